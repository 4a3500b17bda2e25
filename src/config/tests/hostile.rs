//! Texts that mean harm: the answer is a problem, soon, and never a panic.

use std::time::{Duration, Instant};

use super::language::WHOLE;
use super::*;

/// The whole language, the keys that do not work yet included.
const LANGUAGE: &str = r#"
clients:
  app: { basic: env:PROXY_PASSWORD }
  partner: { certificate: CN=partner, ca: file:clients-ca.pem }
rate_limit_store: vcap:redis/uri
destinations:
  partner:
    hosts: [partner.agency.test, "partner.agency.test:8443"]   # a comment
    tls:
      client_certificate: { pkcs12: vcap:partner/p12, password: vcap:partner/password }
      pins: []
    probe: GET /healthz
  search:
    hosts:
      - "*.search.test"
      - 10.0.0.0/8
    auth:
      oauth2:
        token_url: https://login.search.test/token
        scopes: [read]
        params: { audience: https://api.search.test }
    priority: [{ match: { path: /api/batch/** }, class: low }]
    retry: { attempts: 2, on: [connect, 429, 503], max_wait: 5s, budget: 20% }
    headers:
      set:
        X-Long: >
          folded
          text
        X-Block: |
          a block
  others:
    hosts: [api.data.test]
    auth:
      - { match: { path: /public/** }, none: true }
      - { match: { path: /v5/** }, http_signature: { key_id: app, components: ["@method", content-digest] } }
      - { pool: [{ bearer: env:TOKEN_1 }, { bearer: env:TOKEN_2 }] }
tcp:
  database: { listen: 127.0.0.1:15432, to: db.agency.test:5432, starttls: postgres }
"#;

/// A generator of the same numbers at every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

/// Anything but a problem with a short text, or a configuration, fails the test.
fn survive(text: &str) {
    if let Err(problems) = parse(text) {
        let told = problems.to_string();
        assert!(
            !problems.is_empty() && told.lines().count() == problems.all.len(),
            "{text}\n{told}"
        );
    }
}

#[test]
fn a_file_that_is_cut_anywhere_is_no_panic() {
    for text in [WHOLE, LANGUAGE] {
        for (end, _) in text.char_indices() {
            survive(&text[..end]);
        }
    }
}

#[test]
fn a_file_with_bytes_changed_moved_and_lost_is_no_panic() {
    const SPICE: &[&str] = &[
        ":", ": ", "- ", "[", "]", "{", "}", "\"", "'", "\n", "\t", " ", "  ", "*", "&a ", "!!x ", "|", ">",
        "%", "?", "? ", "#", " #", "~", "$", "\0", "\u{feff}", "\u{85}", "ü", "---\n", "...\n", "null",
        "[[]]", "@", "`", ",", "\r",
    ];
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in 0..2_000 {
        let source = if round % 2 == 0 { WHOLE } else { LANGUAGE };
        let mut text: Vec<char> = source.chars().collect();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(text.len());
            let end = (at + numbers.below(20)).min(text.len());
            match numbers.below(4) {
                0 => drop(text.drain(at..end)),
                1 => drop(text.splice(at..at, SPICE[numbers.below(SPICE.len())].chars())),
                2 => drop(text.splice(at..end, SPICE[numbers.below(SPICE.len())].chars())),
                _ => {
                    let part: Vec<_> = text[at..end].to_vec();
                    let to = numbers.below(text.len());
                    text.splice(to..to, part);
                }
            }
        }
        survive(&text.iter().collect::<String>());
    }
}

#[test]
fn bombs_meet_a_limit_soon() {
    let laughs: String = (0..30)
        .map(|i| format!("a{i}: &a{i} [{}]\n", "*a, ".repeat(9)))
        .collect();
    let bombs = [
        laughs,
        "[".repeat(node::LARGEST),
        "{a: ".repeat(node::LARGEST / 4),
        "- ".repeat(node::LARGEST / 2),
        "? ".repeat(node::LARGEST / 2),
        "[{".repeat(100_000),
        "a: ".repeat(100_000),
        "a,".repeat(node::LARGEST / 2),
        format!("a: [{}]", "a,".repeat(node::LARGEST / 2 - 10)),
        format!("a: {}", "\"".repeat(node::LARGEST - 10)),
        format!("a: {}", "x".repeat(node::LARGEST - 10)),
        "\n".repeat(node::LARGEST),
        "#".repeat(node::LARGEST),
        "!a".repeat(node::LARGEST / 2),
        "%a\n".repeat(node::LARGEST / 3),
        "&a ".repeat(node::LARGEST / 3),
        (0..40_000).map(|i| format!("k{i}: 1\n")).collect(),
        "k: 1\n".repeat(node::LARGEST / 5),
        (0..2_000)
            .map(|i| format!("{}k: \n", " ".repeat(i % 500)))
            .collect(),
        (0..600).map(|i| format!("{}k:\n", " ".repeat(i))).collect(),
    ];
    for bomb in bombs {
        let start = Instant::now();
        let told = parse(&bomb).map(drop).unwrap_err().to_string();
        let taken = start.elapsed();
        assert!(
            taken < Duration::from_secs(5),
            "{taken:?} for {}…: {told:.80}",
            &bomb[..20]
        );
    }
}

#[test]
fn what_nobody_wants_to_read_to_its_end_is_cut() {
    let problems = parse(&(0..1_000).map(|i| format!("k{i}: 1\n")).collect::<String>())
        .map(drop)
        .unwrap_err();
    assert_eq!(problems.all.len(), 101);
    assert_eq!(
        problems.all[100].to_string(),
        "there may be more; correct these first"
    );
    let duplicates = parse(&"drain: 8s\n".repeat(1_000)).map(drop).unwrap_err();
    assert_eq!(duplicates.all.len(), 101);
}

#[test]
fn what_is_nested_too_deep_is_refused_and_what_is_not_is_read() {
    let nested = |levels: usize| {
        parse(&format!("{}1{}", "{a: ".repeat(levels), "}".repeat(levels)))
            .map(drop)
            .unwrap_err()
    };
    assert_eq!(nested(32).all[0].what, "no such key");
    let deep = nested(33).to_string();
    assert_eq!(
        deep,
        "a.yml:1:129: nested too deep; nothing in a configuration stands this deep"
    );
}

use serde_json::{Value, json};

use super::plan::{NameError, Plan, Wish};
use super::record::Record;
use crate::config::{Config, NewDestination, add_destinations};
use crate::host::Target;
use crate::policy::{Policy, RequestForm, Verdict};

fn policy(text: &str) -> Policy {
    Policy::compile(&Config::parse(text, "test.yml").unwrap_or_else(|problems| panic!("{problems}\n{text}")))
        .unwrap()
}

fn observed(host: &str, port: u16, requests: &[(&str, &str)]) -> Value {
    let tunnels = u64::from(requests.is_empty());
    let requests = requests
        .iter()
        .map(|(method, path)| json!({ "method": method, "path": path, "passed": 1 }));
    json!({
        "host": host, "port": port, "would_deny": "unlisted", "passed": 1, "failed": 0, "tunnels": tunnels,
        "requests": requests.collect::<Vec<_>>(), "requests_left_out": 0,
    })
}

fn record(hosts: &[Value]) -> Record {
    Record::of_page(&json!({ "outrider": "x", "hosts_left_out": 0, "observed": hosts })).unwrap()
}

/// Learns from the record into the file, and returns the new file and the notes.
#[track_caller]
fn learned(text: &str, record: &Record, wish: &Wish) -> (String, Vec<String>) {
    let plan = Plan::of(record, &policy(text), wish).unwrap();
    let merged = add_destinations(text, &plan.new).unwrap();
    let again = Plan::of(record, &policy(&merged), wish).unwrap();
    assert!(
        again.new.is_empty(),
        "the second time is not idle: {:?}",
        again.new
    );
    (merged, plan.notes)
}

fn passes(policy: &Policy, target: &str) -> bool {
    let target = Target::of_connect(&target.parse().unwrap()).unwrap();
    !matches!(policy.route(&target, RequestForm::Connect), Verdict::Deny(..))
}

#[test]
fn a_policy_allows_what_was_observed_and_nothing_else() {
    let record = record(&[
        observed("tunnel.test", 443, &[]),
        observed("plain.test", 80, &[("GET", "/")]),
        observed("both.test", 80, &[("GET", "/")]),
        observed("both.test", 443, &[]),
        observed("both.test", 8443, &[]),
        observed("[2606:4700::1]", 8443, &[]),
        observed("8.8.8.8", 53, &[]),
        observed("xn--bcher-kva.test", 443, &[]),
        observed("null", 443, &[]),
        observed("kept.test", 8443, &[]),
    ]);
    let text = "destinations:\n  kept: { hosts: [kept.test], auth: { bearer: env:T } }\n";
    let (merged, notes) = learned(text, &record, &Wish::Hosts);
    assert!(notes.is_empty(), "{notes:?}");
    let policy = policy(&merged);
    for target in [
        "tunnel.test:443",
        "plain.test:80",
        "both.test:80",
        "both.test:443",
        "both.test:8443",
        "[2606:4700::1]:8443",
        "8.8.8.8:53",
        "xn--bcher-kva.test:443",
        "null:443",
        "kept.test:8443",
        "kept.test:443",
    ] {
        assert!(passes(&policy, target), "{target}\n{merged}");
    }
    for target in [
        "tunnel.test:80",
        "tunnel.test:8443",
        "plain.test:443",
        "both.test:8080",
        "x.both.test:443",
        "test:443",
        "[2606:4700::1]:443",
        "8.8.8.8:443",
        "kept.test:8444",
    ] {
        assert!(!passes(&policy, target), "{target}\n{merged}");
    }
    // The new port of a known host gets no credential.
    let target = Target::of_connect(&"kept.test:8443".parse().unwrap()).unwrap();
    assert!(!policy.find(&target).0.attaches());
}

#[test]
fn what_is_hostile_or_useless_is_left_out_and_told() {
    let mut dead = observed("dead.test", 443, &[]);
    dead["passed"] = 0.into();
    let record = record(&[
        dead,
        observed("*.test", 443, &[]),
        observed("*", 443, &[]),
        observed("a b.test", 443, &[]),
        observed("a.test: {}\ndestinations", 443, &[]),
        observed("a.test # c", 443, &[]),
        observed("127.1", 443, &[]),
        observed("0.0.0.0/0", 443, &[]),
        observed(&"a".repeat(300), 443, &[]),
        observed("", 443, &[]),
        json!({ "host": "port.test", "port": 65536, "passed": 1 }),
        json!({ "host": "port.test", "port": 0, "passed": 1 }),
        json!({ "host": ["x"], "port": "443", "passed": 1 }),
        json!(null),
        observed("10.0.0.1", 443, &[]),
        observed("169.254.169.254", 80, &[("GET", "/latest/meta-data/")]),
        observed("bad.test", 443, &[]),
    ]);
    let text = "destinations:\n  bad: { hosts: [\"bad.test:*\"], deny: true }\n";
    let (merged, notes) = learned(text, &record, &Wish::Hosts);
    assert_eq!(merged, text);
    let notes = notes.join("\n");
    for told in [
        "dead.test:443 is left out: nothing there ever answered",
        "10.0.0.1:443 is left out: the address 10.0.0.1 is in a denied network (private)",
        "169.254.169.254:80 is left out",
        "bad.test:443 is left out: destination bad denies it",
        "left out: 13 entries without a usable host and port",
    ] {
        assert!(notes.contains(told), "{told}\n{notes}");
    }
}

#[test]
fn paths_and_methods_are_written_where_all_of_them_are_known() {
    let mut more = observed("more.test", 80, &[("GET", "/a")]);
    more["requests_left_out"] = 1.into();
    let record = record(&[
        observed(
            "api.test",
            80,
            &[("GET", "/v1/users/7"), ("POST", "/v1/users/8"), ("GET", "/a*b")],
        ),
        observed("api.test", 443, &[]),
        observed("odd.test", 80, &[("GET", "/a/../b")]),
        more,
    ]);
    let (merged, notes) = learned("egress: { default: deny }\n", &record, &Wish::Paths);
    assert_eq!(
        merged,
        "egress: { default: deny }\n\ndestinations:\n  api-test:\n    hosts: [\"api.test:443\"]\n  api-test-80:\n    \
         hosts: [\"api.test:80\"]\n    paths: [\"/a%2Ab\", \"/v1/users/*\"]\n    methods: [GET, POST]\n"
    );
    let notes = notes.join("\n");
    assert!(notes.contains("odd.test:80/a/../b is left out"), "{notes}");
    assert!(
        notes.contains("more.test:80 is left out: not all of its methods"),
        "{notes}"
    );
    let policy = policy(&merged);
    let api = &policy.destinations[2];
    assert!(api.permits(&http::Method::GET, "/v1/users/9").is_ok());
    for (method, path) in [
        ("GET", "/v1/users/9/x"),
        ("GET", "/axb"),
        ("DELETE", "/v1/users/7"),
        ("GET", "/"),
    ] {
        assert!(
            api.permits(&method.parse().unwrap(), path).is_err(),
            "{method} {path}"
        );
    }
}

#[test]
fn one_name_for_all_takes_no_destination_of_the_file() {
    let record = record(&[observed("b.test", 443, &[]), observed("a.test", 8080, &[])]);
    let named = |name: &str| Wish::Named(name.to_owned());
    let text = "destinations: { old: { hosts: [c.test] } }";
    let (merged, _) = learned(text, &record, &named("build"));
    assert!(
        merged.contains("build: { hosts: [\"a.test:8080\", \"b.test:443\"] }"),
        "{merged}"
    );
    for (name, expected) in [
        ("old", NameError::Taken("old".to_owned())),
        ("a b", NameError::Malformed),
        ("unlisted", NameError::Malformed),
        ("", NameError::Malformed),
    ] {
        assert_eq!(
            Plan::of(&record, &policy(text), &named(name)).unwrap_err(),
            expected
        );
    }
}

#[test]
fn a_log_is_read_whatever_stands_around_its_lines() {
    let line = |method: &str, host: &str, port: u16, by: &str, status: u16, path: &str| {
        json!({
            "target": "access", "would_deny": "unlisted", "method": method, "host": host, "port": port, "status": status,
            "answered_by": by, "path": path,
        })
    };
    let mut refused = line("GET", "refused.test", 80, "outrider", 403, "/");
    refused["would_deny"] = Value::Null;
    let mut foreign = line("GET", "foreign.test", 80, "upstream", 200, "/");
    foreign["target"] = "app".into();
    let log = [
        line("CONNECT", "A.test", 443, "outrider", 200, "").to_string(),
        format!(
            "2026-11-30T01:00:00.00+0000 [APP/PROC/WEB/SIDECAR/OUTRIDER/0] OUT {} trailing",
            line("GET", "b.test", 80, "upstream", 404, "/x")
        ),
        line("CONNECT", "dead.test", 443, "outrider", 502, "").to_string(),
        line("other", "c.test", 80, "upstream", 200, "/x").to_string(),
        line(
            "GET",
            "d.test",
            80,
            "upstream",
            200,
            &format!("/{}", "x".repeat(1023)),
        )
        .to_string(),
        line("GET", "e.test\n", 80, "upstream", 200, "/").to_string(),
        refused.to_string(),
        foreign.to_string(),
        "{ not json".to_owned(),
        "\u{0}\u{1b}[31m".to_owned(),
        format!("{{\"target\":\"access\",\"x\":\"{}\"", "y".repeat(200_000)),
        line("GET", "last.test", 80, "upstream", 200, "/").to_string(),
    ];
    let record = Record::of_log(log.join("\n").as_bytes()).unwrap();
    let hosts: Vec<_> = record
        .hosts
        .iter()
        .map(|((host, _), seen)| (host.as_str(), seen.has_answered, seen.has_unseen))
        .collect();
    assert_eq!(
        hosts,
        [
            ("a.test", true, true),
            ("b.test", true, false),
            ("c.test", true, true),
            ("d.test", true, true),
            ("dead.test", false, false),
            ("last.test", true, false),
        ]
    );
    assert_eq!(record.odd, 1);
    assert!(Record::of_log(&b""[..]).unwrap().hosts.is_empty());
    assert!(Record::of_page(&json!({ "outrider": "x" })).is_none());
}

/// Two runs over a growing record, into a file in a person's own style.
#[test]
fn a_second_run_adds_what_is_new() {
    let text = "# ours\ndestinations:\n  a: { hosts: [a.test] } # kept\n\n# the rest\ndrain: 8s\n";
    let (first, _) = learned(text, &record(&[observed("b.test", 443, &[])]), &Wish::Hosts);
    let both = record(&[observed("b.test", 443, &[]), observed("b.test", 8443, &[])]);
    let (second, _) = learned(&first, &both, &Wish::Hosts);
    assert_eq!(
        second,
        "# ours\ndestinations:\n  a: { hosts: [a.test] } # kept\n  b-test:\n    hosts: [\"b.test:443\"]\n  b-test-8443:\n    \
         hosts: [\"b.test:8443\"]\n\n# the rest\ndrain: 8s\n"
    );
    let none: &[NewDestination] = &[];
    assert_eq!(add_destinations(&second, none).unwrap(), second);
}

/// Whatever bytes a log has: no panic, and no host that could not be a host.
#[test]
fn a_log_of_noise_teaches_nothing_wrong() {
    use rand::{RngExt as _, SeedableRng as _};
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let line = br#"{"target":"access","would_deny":"unlisted","method":"GET","host":"a.test","port":80,"status":200,"answered_by":"upstream","path":"/x"}"#;
    let mut log = Vec::new();
    for _ in 0..3_000 {
        let mut line = line.to_vec();
        for _ in 0..random.random_range(0..4) {
            let at = random.random_range(0..line.len());
            line[at] = random.random();
        }
        log.extend(line);
        log.push(b'\n');
    }
    let record = Record::of_log(&log[..]).unwrap();
    for wish in [Wish::Hosts, Wish::Paths] {
        let (merged, _) = learned("drain: 8s\n", &record, &wish);
        let policy = policy(&merged);
        for destination in policy.destinations.iter().skip(1) {
            let hosts = destination.hosts.iter();
            assert!(
                hosts
                    .clone()
                    .all(|host| matches!(host.what, crate::host::Pattern::Host(_))),
                "{merged}"
            );
        }
    }
    assert!(record.hosts.contains_key(&("a.test".to_owned(), 80)));
}

/// The cause comes before the remedy, and nothing comes twice.
#[test]
fn an_error_is_said_once() {
    use super::Error;
    let said = |error: &Error| crate::error::ErrorChain(error).to_string();
    let name = said(&Error::Name(NameError::Malformed));
    assert_eq!(name, NameError::Malformed.to_string());
    let page = said(&Error::Page {
        at: "http://a.test/observed".to_owned(),
        cause: std::io::ErrorKind::ConnectionRefused.into(),
    });
    assert!(
        page.starts_with("no record at http://a.test/observed (connection refused): "),
        "{page}"
    );
    assert!(page.ends_with("outrider learn -"), "{page}");
}

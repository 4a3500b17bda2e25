//! Every statement follows its setting, is proved by something that is there, and has no secret in it.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::facts::{Control, Fact, FactProof, ReadableSecrets, Standing, Subject, gather};
use super::markdown::proofs;
use super::{ConfigFile, Report, markdown, origin, oscal};
use crate::config::Config;
use crate::policy::Policy;
use crate::secret::Snapshot;
use crate::secret::roots::SystemRoots;
use crate::telemetry::CRYPTO;

mod settings;

/// Stands in every secret of these tests.
const CANARY: &str = "canary-77c1";

fn config(yaml: &str) -> Config {
    Config::parse(yaml, "outrider.yml").unwrap_or_else(|problems| panic!("{problems}\n{yaml}"))
}

/// Gathers the facts; the secrets are `variables`, or not there to be read.
fn controls(yaml: &str, variables: Option<&[(&str, &str)]>) -> Vec<Control> {
    let config = config(yaml);
    let policy = Policy::compile(&config).unwrap_or_else(|problems| panic!("{problems}\n{yaml}"));
    let snapshot = Snapshot::of_variables(variables.unwrap_or_default().iter().copied());
    let roots = SystemRoots::new(&snapshot, Path::new("/nowhere/bundle.pem"));
    let secrets = variables.map(|_| ReadableSecrets {
        snapshot: &snapshot,
        roots: &roots,
        now: SystemTime::now(),
    });
    gather(&Subject {
        config: &config,
        policy: &policy,
        is_built_in: false,
        secrets,
    })
}

/// A line a fact: its part, its standing, its sentence and its proofs.
fn told(controls: &[Control], id: &str) -> String {
    let control = controls.iter().find(|control| control.id == id).unwrap();
    let lines = control.facts.iter().map(|fact| {
        let word = fact.standing.word();
        format!(
            "{} {word}: {} [{}]\n",
            fact.part,
            fact.sentence(),
            proofs(fact, "outrider.yml")
        )
    });
    lines.collect()
}

fn report(name: &str, yaml: &str, variables: Option<&[(&str, &str)]>) -> Report {
    let file = ConfigFile {
        name: "outrider.yml".to_owned(),
        hash: "0123456789abcdef".repeat(4),
    };
    Report {
        name: name.to_owned(),
        prepared_by: Some("Office of | `Proxies`".to_owned()),
        origin: origin(Some(&file), variables.is_none()),
        file: Some(file),
        modified: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        controls: controls(yaml, variables),
    }
}

/// A configuration in which everything occurs.
const FULL: &str = r#"
listen: ["127.0.0.1:3128", "0.0.0.0:8443"]
log: { format: json, access: all, metrics: 60s }
telemetry: { push: "https://prom.test/write?token=canary-77c1" }
egress: { default: observe, allow_networks: [10.0.0.0/8, metadata], parent: vcap:proxy/uri }
rate_limit_store: vcap:redis/uri
instances: 3
clients:
  app: { basic: env:PASSWORD }
  batch: { certificate: CN=batch, ca: file:ca.pem, destinations: [weather] }
destinations:
  weather:
    hosts: [api.weather.test]
    paths: ["/a|b/**"]
    methods: [GET]
    auth: { bearer: vcap:weather/token }
    headers: { set: { X-Agency: canary-77c1, X-Key: env:KEY }, remove: [X-Internal-*] }
    rate_limit: 5/s burst 10
  login:
    hosts: [login.test]
    auth: { oauth2: { token_url: "https://login.test/token?key=canary-77c1", client_id: env:ID, client_secret: env:SECRET } }
    parent: none
  pair:
    hosts: ["*.pair.test"]
    tls: { client_certificate: { cert: file:p.crt, key: file:p.key, passphrase: env:PASSPHRASE }, min_version: "1.3" }
  basic:
    hosts: [basic.test]
    auth: { basic: { username: canary-77c1, password: env:SECRET } }
    insecure_attach_over_http: true
    upgrade: false
    rehearse: { after: 3 }
  signed:
    hosts: [signed.test]
    auth: { hmac: { key: env:SECRET, key_id: canary-77c1, algorithm: sha1, message: "{method}", set: { X-S: "{signature}" } } }
  tokens:
    hosts: [tokens.test]
    auth: { jwt: { key: env:SECRET, claims: { iss: canary-77c1 } } }
  blind: { hosts: [blind.test] }
  refused: { hosts: [refused.test], deny: true }
route_service: { to: [app.test], allow: [192.0.2.0/24], auth: { basic: { ann: env:PASSWORD }, bearer: env:SECRET } }
tcp:
  db: { listen: 127.0.0.1:15432, to: db.test:5432, starttls: postgres }
  raw: { listen: 127.0.0.1:15433, to: raw.test:5432, tls: off }
"#;

/// ReadableSecrets for [`FULL`], each with the canary.
const SECRETS: &[(&str, &str)] = &[
    ("PASSWORD", "canary-77c1-password"),
    ("KEY", "canary-77c1-key"),
    ("ID", "canary-77c1-id"),
    ("SECRET", "canary-77c1-secret"),
    ("PASSPHRASE", "canary-77c1-passphrase"),
    (
        "VCAP_SERVICES",
        r#"{"user-provided":[
            {"name":"proxy","credentials":{"uri":"http://canary-77c1:canary-77c1@proxy.test:3128"}},
            {"name":"redis","credentials":{"uri":"redis://:canary-77c1@redis.test:6379"}},
            {"name":"weather","credentials":{"token":"canary-77c1-token"}}]}"#,
    ),
];

/// Whatever is written where, no secret gets into the evidence.
#[test]
fn no_secret_is_shown() {
    for variables in [Some(SECRETS), Some(&[][..]), None] {
        let report = report("outrider", FULL, variables);
        for text in [markdown::write(&report), oscal::write(&report)] {
            assert!(!text.contains(CANARY), "{text}");
            assert!(text.contains("env:SECRET"), "the source of a secret is told");
        }
    }
}

/// What was read tells how parents and stores are reached, and nothing else of them.
#[test]
fn the_scheme_in_a_secret_is_told() {
    let unread = told(&controls(FULL, None), "sc-8");
    for what in ["the parent at `egress.parent`", "the store of rate limits"] {
        let line = format!("not known: Whether {what} is reached over TLS");
        assert!(unread.contains(&line), "{unread}");
    }
    let clear = told(&controls(FULL, Some(SECRETS)), "sc-8");
    assert!(
        clear.contains("gap: The parent at `egress.parent` is reached in clear"),
        "{clear}"
    );
    assert!(
        clear.contains("gap: The store of rate limits is reached in clear."),
        "{clear}"
    );
    assert!(clear.contains("read from `vcap:redis/uri`"), "{clear}");

    let secure: Vec<_> = SECRETS
        .iter()
        .map(|(name, value)| {
            let value = value
                .replace("http://", "https://")
                .replace("redis://", "rediss://");
            (*name, value)
        })
        .collect();
    let secure: Vec<_> = secure.iter().map(|(name, value)| (*name, &**value)).collect();
    let secure = told(&controls(FULL, Some(&secure)), "sc-8");
    assert!(
        secure.contains("met: The parent at `egress.parent` is reached over TLS 1.2 or 1.3."),
        "{secure}"
    );
    assert!(
        secure.contains("met: The store of rate limits is reached over TLS 1.2 or 1.3."),
        "{secure}"
    );
}

/// A secret that cannot be read is a gap, with the reason and without the secret.
#[test]
fn a_secret_that_cannot_be_used_is_told() {
    let all = controls(FULL, Some(&[]));
    let told = told(&all, "ia-5");
    assert!(
        told.contains("gap: `weather`: its credential cannot be used as it was read"),
        "{told}"
    );
    assert!(
        told.contains("gap: `pair`: its TLS settings cannot be used as they were read"),
        "{told}"
    );
}

/// The configuration without a file is told as what it is.
#[test]
fn the_built_in_default_is_a_gap() {
    let config = Config::embedded();
    let policy = Policy::compile(&config).unwrap();
    let subject = Subject {
        config: &config,
        policy: &policy,
        is_built_in: true,
        secrets: None,
    };
    let told = told(&gather(&subject), "ac-4");
    assert!(told.contains("gap: There is no configuration file."), "{told}");
    assert!(!told.contains("A changed configuration"), "{told}");
}

/// Every fact of every control, of a configuration in which everything occurs and of one in which nothing does.
fn all_facts() -> Vec<(Control, Fact)> {
    let both = [controls(FULL, None), controls("{}", None)].concat();
    let facts = both.into_iter().flat_map(|control| {
        let facts = control.facts.clone();
        facts.into_iter().map(move |fact| (control.clone(), fact))
    });
    facts.collect()
}

#[test]
fn every_control_has_facts_and_every_fact_belongs_to_its_control_and_has_a_proof() {
    for (control, fact) in all_facts() {
        assert!(fact.part.starts_with(&format!("{}_smt", control.id)), "{fact:?}");
        assert!(!fact.proofs.is_empty(), "{fact:?}");
        assert!(!fact.text.contains('\n'), "{fact:?}");
        assert!(fact.text.matches('`').count().is_multiple_of(2), "{fact:?}");
        assert_eq!(fact.text.trim(), fact.text, "{fact:?}");
    }
    let ids: Vec<_> = controls("{}", None).iter().map(|control| control.id).collect();
    let asked = [
        "ac-4", "au-2", "au-3", "ia-3", "ia-5", "sc-7", "sc-8", "sc-12", "sc-13", "si-4",
    ];
    assert_eq!(ids, asked);
    for control in controls("{}", None) {
        assert!(!control.facts.is_empty(), "{control:?}");
    }
}

/// A proof that leads nowhere proves nothing.
#[test]
fn every_proof_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let families = read("src/telemetry/families.rs");
    let access = read("src/telemetry/access.rs");
    let reference = read("docs/reference.md");
    for (_, fact) in all_facts() {
        for proof in &fact.proofs {
            match proof {
                FactProof::Always(page) => {
                    let (path, anchor) = page.split_once('#').unwrap_or((page, ""));
                    let text = read(path);
                    assert!(anchor.is_empty() || anchors(&text).contains(anchor), "{page}");
                }
                FactProof::Build(command) => assert_eq!(*command, "outrider --version"),
                // The writer of the log adds it to every line.
                FactProof::LogField("timestamp") => {}
                FactProof::LogField(field) => {
                    let is_set = [format!(" {field} ="), format!(" {field},")];
                    assert!(is_set.iter().any(|set| access.contains(set)), "{field}");
                }
                FactProof::Metric(metric) => {
                    let name = metric.split('{').next().unwrap();
                    assert!(families.contains(&format!("\"{name}\"")), "{metric}");
                }
                FactProof::Read(reference) => panic!("{reference} was not read"),
                FactProof::Setting(path, line) => {
                    let key = path.rsplit('.').next().unwrap();
                    let key = key.split('[').next().unwrap();
                    let is_known = reference.contains(&format!("| `{key}` |"));
                    // A name that the user chose, or a key below one.
                    assert!(is_known || line.is_some(), "{path}");
                }
            }
        }
    }
}

/// The lines are those of the file.
#[test]
fn a_setting_is_told_with_its_line() {
    let yaml = "\negress:\n  default: tunnel\n  ports: [80]\n";
    let told = told(&controls(yaml, None), "ac-4");
    assert!(
        told.contains("`egress.default` (outrider.yml:3); `egress.ports` (outrider.yml:4)"),
        "{told}"
    );
    let default = self::told(&controls("{}", None), "ac-4");
    assert!(default.contains("`egress.default` (default)"), "{default}");
}

/// The anchors of the headings, as GitHub makes them.
fn anchors(text: &str) -> HashSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// Links lead somewhere, and no text of the configuration breaks out of its cell.
#[test]
fn the_markdown_is_whole() {
    let report = report("a | `b`", FULL, None);
    let text = markdown::write(&report);
    let anchors = anchors(&text);
    let links: Vec<_> = text
        .split("](#")
        .skip(1)
        .map(|rest| rest.split(')').next().unwrap())
        .collect();
    assert_eq!(links.len(), report.controls.len());
    assert!(links.iter().all(|link| anchors.contains(*link)), "{links:?}");
    let mut columns = 0;
    for line in text.lines() {
        let cells = line.replace("\\|", "").matches('|').count();
        if cells == 0 {
            columns = 0;
        } else if columns == 0 {
            columns = cells;
        }
        assert_eq!(cells, columns, "{line}");
    }
    assert!(text.contains("`/a\\|b/**`"), "{text}");
    for control in &report.controls {
        for fact in &control.facts {
            let sentence = fact.sentence().replace('|', "\\|");
            let count = text.matches(&sentence).count();
            assert!(count >= 1, "{sentence}");
            assert!(
                fact.standing != Standing::Gap
                    || text.contains(&format!("- **{}** {}", control.label(), fact.sentence()))
            );
        }
    }
}

/// The lines that the page shows are written for the file that it shows.
#[test]
fn the_page_shows_what_is_written() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/evidence.md")).unwrap();
    let block = |language: &str| {
        let (_, rest) = page.split_once(&format!("```{language}\n")).unwrap();
        rest.split("```").next().unwrap()
    };
    let text = markdown::write(&report("outrider", block("yaml"), None));
    let lines: HashSet<_> = text.lines().collect();
    assert!(block("markdown").lines().count() > 5);
    for line in block("markdown").lines() {
        assert!(lines.contains(line), "{line}");
    }
}

/// Nothing but the content decides what is written.
#[test]
fn equal_input_makes_equal_output() {
    let write = |name: &str, yaml: &str| {
        let report = report(name, yaml, Some(SECRETS));
        (markdown::write(&report), oscal::write(&report))
    };
    let (text, json) = write("outrider", FULL);
    assert_eq!((text.clone(), json.clone()), write("outrider", FULL));
    let changed = FULL.replace("5/s", "6/s");
    let (other, other_json) = write("outrider", &changed);
    assert_ne!(text, other);

    let read = |json: &str| -> Value { serde_json::from_str(json).unwrap() };
    let (one, two) = (read(&json), read(&other_json));
    let root = |value: &Value| value["component-definition"]["uuid"].clone();
    let component = |value: &Value| value["component-definition"]["components"][0].clone();
    // Another document about the same component.
    assert_ne!(root(&one), root(&two));
    assert_eq!(component(&one)["uuid"], component(&two)["uuid"]);
    let (_, named) = write("billing", FULL);
    assert_ne!(component(&one)["uuid"], component(&read(&named))["uuid"]);
}

/// What OSCAL demands beyond its schema; compliance-trestle judges the rest in tests/evidence.rs.
#[test]
fn oscal_has_every_uuid_and_every_part_once() {
    let report = report("outrider", FULL, None);
    let document: Value = serde_json::from_str(&oscal::write(&report)).unwrap();
    let mut uuids = Vec::new();
    collect(&document, &mut uuids);
    assert!(uuids.len() > 30, "{uuids:?}");
    let distinct: HashSet<_> = uuids.iter().collect();
    assert_eq!(distinct.len(), uuids.len());
    let definition = &document["component-definition"];
    let component = &definition["components"][0];
    assert_eq!(
        component["links"][0]["href"],
        format!(
            "#{}",
            definition["back-matter"]["resources"][0]["uuid"]
                .as_str()
                .unwrap()
        )
    );
    assert_eq!(definition["metadata"]["last-modified"], "2027-01-15T08:00:00Z");
    let requirements = component["control-implementations"][0]["implemented-requirements"]
        .as_array()
        .unwrap();
    let mut count = 0;
    for requirement in requirements {
        let statements = requirement["statements"].as_array().unwrap();
        let parts: HashSet<_> = statements
            .iter()
            .map(|one| one["statement-id"].to_string())
            .collect();
        assert_eq!(parts.len(), statements.len(), "{requirement}");
        count += statements
            .iter()
            .map(|one| one["props"].as_array().unwrap().len())
            .sum::<usize>();
    }
    let facts: usize = report.controls.iter().map(|control| control.facts.len()).sum();
    assert_eq!(count, facts);
}

fn collect(value: &Value, uuids: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, uuids)),
        Value::Object(fields) => {
            uuids.extend(fields.get("uuid").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| collect(field, uuids));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The module is told as `--version` and the metrics tell it.
#[test]
fn the_module_is_that_of_the_build() {
    let told = told(&controls("{}", None), "sc-13");
    assert!(told.contains(CRYPTO), "{told}");
    let is_fips = cfg!(feature = "fips");
    assert_eq!(
        told.contains("gap: The cryptography is AWS-LC"),
        !is_fips,
        "{told}"
    );
    assert_eq!(
        told.contains("not known: Whether the CMVP lists"),
        is_fips,
        "{told}"
    );
    assert_eq!(told.contains("FIPS 140 does not approve"), !is_fips, "{told}");
}

//! `outrider evidence`: what it writes, judged by the tools that read it, and by the proxy that it speaks of.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use data_encoding::BASE64;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::programs::{clean, outrider, tool};
use crate::support::{CANARY, Origin, Pki, ProgramOutput, Proxy, leak, run};

/// Something of everything.
const YAML: &str = r#"
log: { access: all }
egress: { default: observe, parent: vcap:proxy/uri }
clients: { app: { basic: env:PASSWORD } }
destinations:
  weather:
    hosts: [api.weather.test, "*.weather.test"]
    paths: [/points/**]
    auth: { bearer: vcap:weather/token }
    headers: { set: { X-Agency: "a | `b`" } }
  blind: { hosts: [blind.test] }
tcp:
  db: { listen: 127.0.0.1:15432, to: db.test:5432, starttls: postgres }
"#;

fn folder(yaml: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("outrider.yml"), yaml).unwrap();
    folder
}

/// Writes the evidence of `outrider.yml` in a folder.
fn evidence(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> ProgramOutput {
    run(outrider(["evidence"])
        .args(arguments)
        .current_dir(folder)
        .env("TMPDIR", folder)
        .envs(variables.iter().copied()))
}

/// Compliance-trestle, with a workspace for a document.
struct Trestle(TempDir);

impl Trestle {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("component-definitions/outrider")).unwrap();
        run(clean(tool("oscal/bin/trestle"))
            .args(["init", "--local"])
            .current_dir(folder.path()))
        .succeeded();
        Self(folder)
    }

    /// Asks for its verdict on a component definition.
    fn validate(&self, document: &str) -> ProgramOutput {
        let file = "component-definitions/outrider/component-definition.json";
        fs::write(self.0.path().join(file), document).unwrap();
        run(clean(tool("oscal/bin/trestle"))
            .args(["validate", "--file", file])
            .current_dir(self.0.path()))
    }
}

/// Trestle accepts what is written, and would say so if it were wrong.
#[test]
fn trestle_validates_the_oscal() {
    let trestle = Trestle::new();
    let full = folder(YAML);
    let named = ["--name", "billing", "--prepared-by", "Office of \"Proxies\""];
    let mut last = String::new();
    for (folder, arguments) in [
        (&full, &["--offline"][..]),
        (&full, &named),
        (&folder("{}\n"), &[]),
        (&tempfile::tempdir().unwrap(), &[]),
    ] {
        let written = evidence(folder.path(), &[arguments, &["--format", "oscal"]].concat(), &[]);
        last.clone_from(&written.succeeded().stdout);
        let verdict = trestle.validate(&last);
        assert!(
            verdict.succeeded().stdout.contains("VALID: Model"),
            "{verdict:#?}"
        );
    }
    let document: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(
        document["component-definition"]["metadata"]["oscal-version"],
        "1.1.3"
    );
    let part = "\"statement-id\": \"ac-4_smt\"";
    assert!(last.contains(part));
    for wrong in [
        last.replace(part, "\"statement-id\": \"4 of ac\""),
        last.replace("\"source\"", "\"origin\""),
    ] {
        let verdict = trestle.validate(&wrong);
        assert!(!verdict.status.success(), "{verdict:#?}");
    }
}

/// The same file makes the same bytes wherever it lies and whenever it is described; the clock and the folder do not count.
#[test]
fn the_output_can_be_compared() {
    let (one, other) = (folder(YAML), folder(YAML));
    let at = [("SOURCE_DATE_EPOCH", "1800000000")];
    for format in ["markdown", "oscal"] {
        let arguments = ["--offline", "--format", format];
        let written = evidence(one.path(), &arguments, &at).succeeded().stdout.clone();
        assert!(written.contains("2027-01-15T08:00:00Z"), "{written}");
        let elsewhere = other.path().join("outrider.yml").display().to_string();
        let arguments = [&arguments[..], &["--config", &elsewhere, "--output", "written"]].concat();
        let silent = evidence(one.path(), &arguments, &at);
        assert_eq!(
            (silent.succeeded().stdout.as_str(), silent.stderr.as_str()),
            ("", "")
        );
        assert_eq!(fs::read_to_string(one.path().join("written")).unwrap(), written);
    }
    // Without the variable the date is that of the file.
    let file = fs::File::open(one.path().join("outrider.yml")).unwrap();
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    file.set_modified(then).unwrap();
    let written = evidence(one.path(), &["--offline"], &[]);
    assert!(
        written.succeeded().stdout.contains("2023-11-14T22:13:20Z"),
        "{written:#?}"
    );
}

/// The hash is that of the file, as every tool computes it.
#[test]
fn the_hash_is_that_of_the_file() {
    let folder = folder(YAML);
    let sum = run(clean("sha256sum").arg(folder.path().join("outrider.yml")));
    let sum = sum.succeeded().stdout.split(' ').next().unwrap();
    for format in ["markdown", "oscal"] {
        let written = evidence(folder.path(), &["--offline", "--format", format], &[]);
        assert!(written.succeeded().stdout.contains(sum), "{written:#?}");
    }
}

/// Where there is no evidence to give, none is written and the reason is told.
#[test]
fn what_cannot_be_described_is_refused() {
    let wrong = folder("egress: { default: alow }\n");
    fs::write(wrong.path().join("kept"), "old").unwrap();
    let refused = evidence(wrong.path(), &["--output", "kept"], &[]);
    assert_eq!((refused.code(), refused.stdout.as_str()), (1, ""), "{refused:#?}");
    assert!(
        refused.stderr.contains("outrider.yml:1:20: egress.default"),
        "{refused:#?}"
    );
    assert_eq!(fs::read_to_string(wrong.path().join("kept")).unwrap(), "old");

    let sound = folder("{}\n");
    for (arguments, variables, reason) in [
        (
            &[][..],
            &[("SOURCE_DATE_EPOCH", "yesterday")][..],
            "SOURCE_DATE_EPOCH is not a number",
        ),
        (
            &[],
            &[("SOURCE_DATE_EPOCH", "99999999999999")],
            "SOURCE_DATE_EPOCH is not a number",
        ),
        (&["--name", " "], &[], "--name is empty"),
        (
            &["--prepared-by", "a\nb"],
            &[],
            "--prepared-by is empty, or has control characters",
        ),
        (
            &["--output", "no/such/folder"],
            &[],
            "no/such/folder cannot be written",
        ),
        (&["--config", "none.yml"], &[], "none.yml: cannot be read"),
    ] {
        let refused = evidence(sound.path(), arguments, variables);
        assert_eq!((refused.code(), refused.stdout.as_str()), (1, ""), "{refused:#?}");
        assert!(refused.stderr.contains(reason), "{reason}: {refused:#?}");
    }
}

/// Secrets in variables, files, bound services and the file itself stay where they are, usable or not.
#[test]
fn no_secret_gets_into_the_evidence() {
    let yaml = format!(
        "egress: {{ parent: vcap:proxy/uri }}\nrate_limit_store: file:store\nclients: {{ app: {{ basic: env:PASSWORD }} }}\n\
         telemetry: {{ push: \"https://push.test/{CANARY}?t={CANARY}\" }}\ndestinations:\n  a:\n    hosts: [a.test]\n    \
         auth: {{ bearer: vcap:a/token }}\n    headers: {{ set: {{ X-A: {CANARY}, X-B: file:header }} }}\n  \
         b:\n    hosts: [b.test]\n    tls: {{ client_certificate: {{ cert: file:b.pem, key: file:b.pem, passphrase: file:pass }} }}\n    \
         auth: {{ oauth2: {{ token_url: \"https://l.test/{CANARY}?t={CANARY}\", client_id: {CANARY}, client_secret: env:PASSWORD, params: {{ p: {CANARY} }} }} }}\n"
    );
    let folder = folder(&yaml);
    for (name, text) in [
        ("store", format!("redis://:{CANARY}@r.test")),
        ("header", format!("{CANARY}\u{7}")),
        ("pass", CANARY.to_owned()),
        (
            "b.pem",
            format!("-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n"),
        ),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let services = format!(
        r#"{{"user-provided":[{{"name":"proxy","credentials":{{"uri":"http://u:{CANARY}@p.test"}}}},{{"name":"a","credentials":{{"token":"{CANARY}"}}}}]}}"#
    );
    let broken = services.replace("http://", "");
    for services in [services.as_str(), &broken, CANARY, ""] {
        for format in ["markdown", "oscal"] {
            for offline in [&[][..], &["--offline"]] {
                let arguments = [&["--format", format], offline].concat();
                let variables = [("VCAP_SERVICES", services), ("PASSWORD", CANARY)];
                let written = evidence(folder.path(), &arguments, &variables);
                let said = format!("{}{}", written.succeeded().stdout, written.stderr);
                assert_eq!(leak(&said), None, "{services}");
                assert!(
                    said.contains("l.test:443") && said.contains("push.test:443"),
                    "{said}"
                );
            }
        }
    }
}

/// The end of a certificate is read, and one that has ended is a gap.
#[test]
fn the_ends_of_certificates_are_told() {
    let pki = Pki::new();
    let mut old = rcgen::CertificateParams::default();
    old.not_before = rcgen::date_time_ymd(2019, 1, 1);
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let mut young = rcgen::CertificateParams::default();
    young.not_before = rcgen::date_time_ymd(2020, 1, 1);
    young.not_after = rcgen::date_time_ymd(2199, 1, 1);
    young.serial_number = Some(vec![0x0a, 0x1b].into());
    let yaml = format!(
        "destinations:\n  old: {{ hosts: [old.test], tls: {{ ca: \"file:{ca}\", client_certificate: {} }} }}\n  young: {{ hosts: [young.test], \
         tls: {{ ca: \"file:{ca}\", client_certificate: {} }} }}\n",
        pki.issue("old", old).yaml(),
        pki.issue("young", young).yaml(),
        ca = pki.ca().display(),
    );
    let folder = folder(&yaml);
    let written = evidence(folder.path(), &[], &[]);
    let text = &written.succeeded().stdout;
    let young = "met | `young`: its client certificate (serial number `0a:1b`) is valid from `2020-01-01T00:00:00Z` to `2199-01-01T00:00:00Z`";
    assert!(text.contains(young), "{text}");
    assert!(
        text.contains("| **gap** | `old`: its client certificate (serial number"),
        "{text}"
    );
    assert!(text.contains("ended `2020-01-01T00:00:00Z`"), "{text}");
    // Everybody may read the files that the test has made.
    assert!(
        text.contains("young.key can be read by every user of this machine"),
        "{text}"
    );
    let offline = evidence(folder.path(), &["--offline"], &[]);
    let unread = "not known | `old`, `young`: when its client certificate ends was not read (`--offline`)";
    assert!(offline.succeeded().stdout.contains(unread), "{offline:#?}");
}

/// The fields that are named as proofs are in the log of the proxy that is described, and so are the metrics on its page.
#[test]
fn the_proofs_are_found_beside_the_running_proxy() {
    let origin = Origin::plain();
    let proxy = Proxy::start_with(
        &format!(
            "clients: {{ app: {{ basic: env:PASSWORD }} }}\ndestinations: {{ p: {{ hosts: [\"{}\"] }} }}",
            origin.authority()
        ),
        &[("PASSWORD", CANARY)],
    );
    let password = BASE64.encode(format!("app:{CANARY}").as_bytes());
    let password = format!("Proxy-Authorization: Basic {password}\r\n");
    assert_eq!(proxy.ask("GET", &origin.url("/a"), &password).status, 200);
    assert_eq!(proxy.ask("GET", "http://stranger.test/", &password).status, 403);

    let file = proxy.config_file();
    let written = evidence(
        file.parent().unwrap(),
        &["--config", &file.display().to_string()],
        &[("PASSWORD", CANARY)],
    );
    let text = &written.succeeded().stdout;
    let named = |what: &str| -> BTreeSet<&str> {
        let before = format!("{what} `");
        let places = text.split(&before).skip(1);
        places
            .map(|rest| rest.split(['`', '{']).next().unwrap())
            .collect()
    };
    let (fields, metrics) = (named("log field"), named("metric"));
    assert!(fields.len() > 12 && metrics.len() > 12, "{fields:?} {metrics:?}");

    let log = proxy.log();
    let lines: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let requests: Vec<_> = lines.iter().filter(|line| line["target"] == "access").collect();
    assert_eq!(requests.len(), 2, "{log}");
    let missing: Vec<_> = (fields.iter())
        .filter(|field| requests.iter().all(|line| line[**field].is_null()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}: {log}");
    // UTC, to the microsecond.
    let time = requests[0]["timestamp"].as_str().unwrap();
    assert!(
        time.ends_with('Z') && time.len() == "2026-01-01T00:00:00.000000Z".len(),
        "{time}"
    );

    let page = proxy.page("/metrics").text();
    for metric in [
        "outrider_build_info",
        "outrider_denied_total",
        "outrider_requests_total",
        "outrider_config_loaded_timestamp_seconds",
    ] {
        assert!(
            metrics.contains(metric) && page.contains(metric),
            "{metric}: {page}"
        );
    }
}

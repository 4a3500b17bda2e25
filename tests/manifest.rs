//! `check --offline`, `check --manifest`: a file for the platform is checked where its secrets are not.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs outrider in a folder, without the variables of this process.
fn outrider(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outrider"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const CONFIG: &str = "\
egress:
  parent: [vcap:egress-proxy/https_uri]
  parent_ca: file:$CF_SYSTEM_CERT_PATH
clients:
  app: { basic: env:PROXY_PASSWORD }
rate_limit_store: vcap:redis/uri
destinations:
  partner:
    hosts: [partner.agency.gov]
    auth: { bearer: vcap:partner/token }
    headers: { set: { X-Key: env:PARTNER_KEY } }
    tls: { client_certificate: { cert: file:certs/a.crt, key: file:certs/a.key }, ca: vcap:partner/ca }
";

#[test]
fn a_file_for_the_platform_is_checked_without_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("outrider.yml"), CONFIG).unwrap();
    let online = outrider(folder.path(), &["check"]);
    assert_eq!(online.status.code(), Some(1));
    assert!(
        text(&online.stdout).contains("CF_SYSTEM_CERT_PATH is not set"),
        "{online:?}"
    );
    let offline = outrider(folder.path(), &["check", "--offline"]);
    assert_eq!(
        (offline.status.code(), text(&offline.stdout).as_str()),
        (Some(0), ""),
        "{offline:?}"
    );

    // What is wrong in the file itself is told all the same: a key, a plain secret, two that exclude each other.
    for (from, to, said) in [
        (
            "hosts:",
            "host:",
            "outrider.yml:9:5: destinations.partner.host: no such key",
        ),
        (
            "vcap:partner/token",
            "hunter2",
            "destinations.partner.auth.bearer: a plain value",
        ),
        ("vcap:partner/token", "vcap:partner", "no service and key"),
        (
            "[partner.agency.gov]",
            "[partner.agency.gov:99999]",
            "outrider.yml:9:",
        ),
    ] {
        fs::write(folder.path().join("outrider.yml"), CONFIG.replace(from, to)).unwrap();
        let output = outrider(folder.path(), &["check", "--offline"]);
        assert_eq!(output.status.code(), Some(1), "{to}");
        let problems = text(&output.stdout);
        assert!(
            problems.contains(said) && !problems.contains("hunter2"),
            "{problems}"
        );
    }
}

const MANIFEST: &str = "\
version: 1
applications:
- name: app
  path: app
  memory: 256M
  services: [partner, redis, egress-proxy]
  sidecars:
  - name: outrider
    process_types: [web]
    command: exec ./outrider run
    memory: 64M
";

#[test]
fn a_manifest_is_checked_with_the_configuration_in_the_apps_folder() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| fs::write(folder.path().join(path), text).unwrap();
    fs::create_dir(folder.path().join("app")).unwrap();
    write("app/outrider.yml", CONFIG);
    write("manifest.yml", MANIFEST);
    let check = || outrider(folder.path(), &["check", "--manifest", "manifest.yml"]);
    let sound = check();
    assert_eq!(
        (sound.status.code(), text(&sound.stdout).as_str()),
        (Some(0), ""),
        "{sound:?}"
    );

    write(
        "manifest.yml",
        &MANIFEST
            .replace("exec ./outrider", "./outrider")
            .replace("partner, ", ""),
    );
    let output = check();
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<_> = text(&output.stdout).lines().map(str::to_owned).collect();
    assert!(
        lines[0].starts_with("manifest.yml:6:13: applications[0].services: outrider.yml needs"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("manifest.yml:10:14: applications[0].sidecars[0].command: the shell"),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 2);

    // Faults of the configuration count, too, with its own name.
    write("manifest.yml", MANIFEST);
    for wrong in ["listen: 127.0.0.1:8080", "lisen: 127.0.0.1:1"] {
        write("app/outrider.yml", wrong);
        let output = check();
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text(&output.stdout).starts_with("app/outrider.yml:1:"),
            "{output:?}"
        );
    }
    fs::remove_file(folder.path().join("app/outrider.yml")).unwrap();
    let output = check();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        text(&output.stderr).contains("the built-in default holds"),
        "{output:?}"
    );

    write("manifest.yml", "applications: [");
    assert!(text(&check().stdout).starts_with("manifest.yml:"));
    let missing = outrider(folder.path(), &["check", "--manifest", "none.yml"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        text(&missing.stdout).contains("none.yml: cannot be read"),
        "{missing:?}"
    );
}

/// The manifests that are copied have to be as sound as `check` wants them.
#[test]
fn the_manifest_of_the_example_is_sound() {
    let output = outrider(
        Path::new(env!("CARGO_MANIFEST_DIR")),
        &["check", "--manifest", "manifest.yml"],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stdout), "");
}

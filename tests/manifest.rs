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
        (
            "rate_limit_store: vcap:redis/uri",
            "rate_limit_store: { url: 'redis://redis.test:6379', tls: { server_name: x.test } }",
            "outrider.yml:6:19: rate_limit_store: the URL: `tls` is written beside it, and the address asks for no TLS",
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

/// What has to be read is the file alone: a laptop may have other secrets at the same places, or a folder that hangs.
#[test]
fn no_secret_is_read_for_a_file_of_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| fs::write(folder.path().join(path), text).unwrap();
    fs::create_dir(folder.path().join("certs")).unwrap();
    for name in ["a.crt", "a.key", "ca.crt", "services.json", "sub"] {
        write(&format!("certs/{name}"), "no certificate, and no key");
    }
    let config = CONFIG
        .replace("file:$CF_SYSTEM_CERT_PATH", "file:certs/ca.crt")
        .replace("ca: vcap:partner/ca", "ca: file:certs/ca.crt")
        .replace("vcap:partner/token", "file:certs/sub");
    write("outrider.yml", &config);
    write(
        "manifest.yml",
        &MANIFEST.replace("path: app", "path: .").replace("partner, ", ""),
    );
    for arguments in [
        &["check", "--offline"][..],
        &["check", "--manifest", "manifest.yml"],
    ] {
        let trace = folder.path().join("trace");
        let output = Command::new("strace")
            .args(["-f", "-e", "trace=file,network", "-o"])
            .arg(&trace)
            .arg(env!("CARGO_BIN_EXE_outrider"))
            .args(arguments)
            .current_dir(folder.path())
            .env_clear()
            .env("VCAP_SERVICES_FILE_PATH", "certs/services.json")
            .output()
            .unwrap();
        assert_eq!(
            (output.status.code(), text(&output.stdout).as_str()),
            (Some(0), ""),
            "{output:?}"
        );
        let calls = fs::read_to_string(&trace).unwrap();
        assert!(calls.contains("outrider.yml"), "{calls}");
        let touched: Vec<_> = calls
            .lines()
            .filter(|line| line.contains("certs") || line.contains("socket("))
            .collect();
        assert!(touched.is_empty(), "{touched:#?}");
    }
    // Where they are read, they are told to be no certificates.
    let online = outrider(folder.path(), &["check"]);
    assert!(
        text(&online.stdout).contains("client_certificate.cert: there is no certificate in it"),
        "{online:?}"
    );
}

#[test]
fn a_procfile_in_the_apps_folder_is_read_with_the_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| fs::write(folder.path().join(path), text).unwrap();
    fs::create_dir(folder.path().join("app")).unwrap();
    write("app/outrider.yml", "egress: { default: deny }\n");
    let check = || outrider(folder.path(), &["check", "--manifest", "manifest.yml"]);
    write("manifest.yml", "applications:\n- name: app\n  path: app\n");
    assert!(text(&check().stdout).contains("nothing here runs outrider; run outrider init --manifest"));
    write("app/Procfile", "web: ./outrider exec -- gunicorn app\n");
    assert_eq!(text(&check().stdout), "");
    write(
        "manifest.yml",
        &MANIFEST.replace("[web]", "[web, worker]").replace(
            "  services",
            "  env: { OUTRIDER_PROCESS_TYPES: 'web,worker' }\n  services",
        ),
    );
    write("app/Procfile", "web: gunicorn app\nworker: celery\n");
    let sound = check();
    assert_eq!(
        (text(&sound.stdout).as_str(), text(&sound.stderr).as_str()),
        ("", "")
    );
    write("app/Procfile", "web: gunicorn app\n");
    let warned = check();
    assert_eq!(warned.status.code(), Some(0));
    assert!(
        text(&warned.stderr).contains("no process type `worker` is listed here or in the Procfile"),
        "{warned:?}"
    );
    // The platform would refuse it when it stages the app.
    write("app/Procfile", "web gunicorn app\n");
    let refused = check();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stdout).starts_with("app/Procfile"), "{refused:?}");
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

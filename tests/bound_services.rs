//! Secrets of bound services, in each form in which Cloud Foundry hands them over, and renewed while the proxy runs.

use std::path::Path;

use crate::support::programs::outrider;
use crate::support::{Origin, Proxy, eventually, origin, run};

/// A destination that takes a bearer token from the bound service.
fn proxy(origin: &Origin, reference: &str, variable: (&str, &str)) -> Proxy {
    let authority = origin.authority();
    let yaml = format!(
        "egress: {{ allow_networks: [loopback] }}\n\
         destinations: {{ p: {{ hosts: [\"{authority}\"], auth: {{ bearer: \"{reference}\" }}, upgrade: false, \
         insecure_attach_over_http: true }} }}"
    );
    Proxy::start_with(&yaml, &[variable])
}

/// As the platform writes them: the managed one has a label, a plan and a provider, the other tags; values from CredHub
/// are in their place before anything of ours starts.
const SERVICES: &str = r#"{
  "user-provided": [
    { "label": "user-provided", "name": "partner", "tags": ["egress"], "instance_guid": "1", "instance_name": "partner",
      "binding_guid": "2", "binding_name": null, "credentials": { "token": "canary-2f6b-user" }, "syslog_drain_url": null,
      "volume_mounts": [] } ],
  "aws-elasticache-redis": [
    { "label": "aws-elasticache-redis", "provider": null, "plan": "redis-dev", "name": "limits", "tags": ["redis", "AWS"],
      "instance_name": "store", "binding_name": "limits", "credentials": { "password": "canary-2f6b-managed", "port": 6379 } } ],
  "credhub": [
    { "label": "credhub", "name": "vault", "tags": [], "instance_name": "vault", "credentials": { "key": "canary-2f6b-credhub" } } ]
}"#;

fn write(folder: &Path, binding: &str, files: &[(&str, &str)]) {
    let folder = folder.join(binding);
    std::fs::create_dir_all(&folder).unwrap();
    for (name, text) in files {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

#[test]
fn every_form_of_binding_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vcap_services");
    std::fs::write(&file, SERVICES).unwrap();
    let root = folder.path().join("bindings");
    // What the platform's code writes has underscores, what its documentation says has hyphens.
    write(
        &root,
        "binding-1",
        &[
            ("type", "user-provided"),
            ("instance_name", "partner"),
            ("tags", "[\"egress\"]"),
            ("token", "canary-2f6b-user"),
        ],
    );
    write(
        &root,
        "binding-2",
        &[
            ("type", "aws"),
            ("instance-name", "store"),
            ("binding-name", "limits"),
            ("tags", "[\"redis\"]"),
            ("password", "canary-2f6b-managed"),
        ],
    );
    write(
        &root,
        "vault",
        &[
            ("type", "credhub"),
            ("provider", "credhub"),
            ("key", "canary-2f6b-credhub\n"),
        ],
    );
    write(&root, "..data", &[("key", "none")]);

    let (file, root) = (file.display().to_string(), root.display().to_string());
    for variable in [
        ("VCAP_SERVICES", SERVICES),
        ("VCAP_SERVICES_FILE_PATH", file.as_str()),
        ("SERVICE_BINDING_ROOT", root.as_str()),
    ] {
        for (reference, token) in [
            ("vcap:partner/token", "canary-2f6b-user"),
            ("vcap:egress/token", "canary-2f6b-user"),
            ("vcap:store/password", "canary-2f6b-managed"),
            ("vcap:limits/password", "canary-2f6b-managed"),
            ("vcap:redis/password", "canary-2f6b-managed"),
            ("vcap:vault/key", "canary-2f6b-credhub"),
        ] {
            let origin = Origin::http(origin::ok);
            let proxy = proxy(&origin, reference, variable);
            let answer = proxy.get(&origin.url("/"));
            assert_eq!(
                answer.status,
                200,
                "{reference} of {}: {}",
                variable.0,
                proxy.log()
            );
            assert!(
                origin.raw().contains(&format!("Bearer {token}\r\n")),
                "{reference} of {}: {}",
                variable.0,
                origin.raw()
            );
        }
    }
}

/// A key that is renewed in a file is taken over; a half-written file, or one that is gone, leaves the last one in use.
#[test]
fn a_renewed_service_key_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vcap_services");
    let renew = |text: &str| {
        let new = folder.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
    };
    renew(SERVICES);
    let origin = Origin::http(origin::ok);
    let place = path.display().to_string();
    let proxy = proxy(&origin, "vcap:partner/token", ("VCAP_SERVICES_FILE_PATH", &place));
    let sent = |token: &str| {
        assert_eq!(proxy.get(&origin.url("/")).status, 200, "{}", proxy.log());
        origin.seen().last().is_some() && origin.raw().contains(&format!("Bearer {token}\r\n"))
    };
    assert!(sent("canary-2f6b-user"));

    renew(&SERVICES.replace("canary-2f6b-user", "canary-2f6b-second"));
    eventually("the second token is sent", || sent("canary-2f6b-second"));
    // In two halves, as a program writes that does not rename.
    let third = SERVICES.replace("canary-2f6b-user", "canary-2f6b-third");
    std::fs::write(&path, &third[..60]).unwrap();
    let failed = || proxy.metric("outrider_config_reloads_total", &[("result", "failed")]) > 0.0;
    eventually("half a file is told of", failed);
    assert!(sent("canary-2f6b-second"));
    std::fs::write(&path, &third).unwrap();
    eventually("the third token is sent", || sent("canary-2f6b-third"));
    std::fs::remove_file(&path).unwrap();
    assert!(sent("canary-2f6b-third"));
}

/// The same for a folder of bindings.
#[test]
fn a_renewed_key_of_a_folder_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        "one",
        &[("instance-name", "partner"), ("token", "canary-2f6b-user")],
    );
    let origin = Origin::http(origin::ok);
    let place = folder.path().display().to_string();
    let proxy = proxy(&origin, "vcap:partner/token", ("SERVICE_BINDING_ROOT", &place));
    assert_eq!(proxy.get(&origin.url("/")).status, 200, "{}", proxy.log());
    write(folder.path(), "one", &[("token", "canary-2f6b-second")]);
    eventually("the second token is sent", || {
        assert_eq!(proxy.get(&origin.url("/")).status, 200);
        origin.raw().contains("Bearer canary-2f6b-second\r\n")
    });
}

/// What the platform's launcher has not resolved is no credential, and the way out is told; nothing is sent without it.
#[test]
fn a_reference_to_credhub_is_told_with_its_remedy() {
    let services =
        r#"{ "vault": [ { "name": "vault", "credentials": { "credhub-ref": "/c/broker/canary-path" } } ] }"#;
    let origin = Origin::http(origin::ok);
    let proxy = proxy(&origin, "vcap:vault/key", ("VCAP_SERVICES", services));
    let answer = proxy.get(&origin.url("/"));
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(origin.raw(), "");
    let log = proxy.log();
    for part in ["vcap:vault/key", "are in CredHub", "CREDHUB_SKIP_INTERPOLATION"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(!log.contains("canary-path"), "{log}");

    let checked = run(outrider(["check", "--config"])
        .arg(proxy.config_file())
        .env("VCAP_SERVICES", services));
    assert_eq!(checked.code(), 1, "{checked:?}");
    assert!(checked.stdout.contains("are in CredHub"), "{checked:?}");
}

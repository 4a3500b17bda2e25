//! The bundle that replaces the app's own: the app still trusts the roots that it trusted before.

use crate::support::origin::ok;
use crate::support::programs::{outrider, tool};
use crate::support::proxy::configuration;
use crate::support::{Origin, Pki, run};

/// A private authority of the app, named by any variable that its clients read, is trusted through a tunnel.
#[test]
fn a_private_authority_of_the_app_is_trusted_under_exec() {
    let (pki, folder) = (Pki::new(), tempfile::tempdir().unwrap());
    let ca = pki.ca();
    let origin = Origin::https(pki.accepting(&pki.server("partner.test")), ok);
    let file = folder.path().join("outrider.yml");
    let text = format!("destinations: {{ p: {{ hosts: [\"{}\"] }} }}", origin.authority());
    std::fs::write(&file, configuration(&text, folder.path())).unwrap();
    let url = format!("https://{}/", origin.authority());
    // What the clients say of a bundle without it is not ours to judge.
    let script = format!(
        "curl -sS {url} && echo
         $PY -c \"import requests; print(requests.get('{url}').text)\"
         $PY -c \"import urllib.request; print(urllib.request.urlopen('{url}').read().decode())\"
         $NODE -e \"fetch('{url}').then(r => r.text()).then(t => console.log(t), e => console.error(e.cause))\""
    );
    let ask = |variables: &[(&str, &std::path::Path)]| {
        let mut command = outrider(["exec", "--config"]);
        command.arg(&file).args(["--", "sh", "-c", &script]);
        command
            .env("PY", tool("venv/bin/python"))
            .env("NODE", tool("node_modules/node/bin/node"));
        command
            .env("TMPDIR", folder.path())
            .envs(variables.iter().copied());
        run(&mut command)
    };
    for variable in [
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "AWS_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "PIP_CERT",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        "DENO_CERT",
    ] {
        let done = ask(&[(variable, ca.as_path())]);
        assert_eq!(done.stdout, "ok\n".repeat(4), "{variable}: {}", done.stderr);
    }
    let gone = folder.path().join("gone.pem");
    let done = ask(&[("SSL_CERT_FILE", ca.as_path()), ("PIP_CERT", &gone)]);
    assert_eq!(done.stdout, "ok\n".repeat(4), "{}", done.stderr);
    assert!(done.stderr.contains("gone.pem"), "{}", done.stderr);
    assert_eq!(ask(&[]).stdout, "");
}

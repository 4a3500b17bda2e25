//! The main job: an app that knows nothing of credentials calls a service that demands a client certificate
//! and a token. A real nginx on the one side; real curl, Python and Node on the other.

use std::process::Command;

use crate::support::partner::destination;
use crate::support::programs::{curl, node, outrider, python};
use crate::support::proxy::configuration;
use crate::support::{Nginx, Pki, ProgramOutput, Proxy, TOKEN, run};

/// nginx, the proxy before it, and nothing else.
struct Setup {
    nginx: Nginx,
    proxy: Proxy,
    pki: Pki,
}

impl Setup {
    fn new(h2: bool) -> Self {
        let pki = Pki::new();
        let nginx = Nginx::demanding(&pki, h2);
        let yaml = destination(&pki, &pki.client("app"), &nginx.authority(), "");
        let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
        Self { nginx, proxy, pki }
    }

    /// Runs a client in the environment that `outrider env` prints, and one argument more: the URL.
    #[track_caller]
    fn through(&self, command: &mut Command) -> ProgramOutput {
        let proxy = format!("http://{}", self.proxy.address());
        let bundle = self.proxy.bundle();
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env(name, &proxy);
        }
        for name in [
            "SSL_CERT_FILE",
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
            "NODE_EXTRA_CA_CERTS",
        ] {
            command.env(name, &bundle);
        }
        command.env("NODE_USE_ENV_PROXY", "1");
        run(command)
    }

    /// Returns `https://partner.test:PORT/token` and the same with `http`.
    fn urls(&self) -> [String; 2] {
        ["https", "http"].map(|scheme| format!("{scheme}://{}/token", self.nginx.authority()))
    }
}

#[track_caller]
fn assert_greeted(run: &ProgramOutput) {
    assert!(
        run.succeeded().stdout.starts_with("hello CN=app with a token"),
        "{run:#?}"
    );
}

const REQUESTS: &str =
    "import sys, requests; r = requests.get(sys.argv[1], timeout=20); r.raise_for_status(); print(r.text)";
const URLLIB: &str =
    "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())";
const FETCH: &str = "fetch(process.argv[1]).then(async r => { if (!r.ok) throw r.status; console.log(await r.text()) })\
    .catch(e => { console.error(e); process.exit(1) })";
const UNDICI: &str = "const { fetch, EnvHttpProxyAgent } = require('undici'); \
    fetch(process.argv[1], { dispatcher: new EnvHttpProxyAgent() })\
    .then(async r => { if (!r.ok) throw r.status; console.log(await r.text()) })\
    .catch(e => { console.error(e); process.exit(1) })";

#[test]
fn curl_is_greeted_through_intercept_and_through_upgrade() {
    for h2 in [false, true] {
        let scene = Setup::new(h2);
        for url in scene.urls() {
            assert_greeted(&scene.through(&mut curl(["--fail", &url])));
        }
    }
}

#[test]
fn python_requests_is_greeted() {
    let scene = Setup::new(false);
    for url in scene.urls() {
        assert_greeted(&scene.through(python(REQUESTS).arg(url)));
    }
}

#[test]
fn python_urllib_is_greeted() {
    let scene = Setup::new(true);
    for url in scene.urls() {
        assert_greeted(&scene.through(python(URLLIB).arg(url)));
    }
}

#[test]
fn node_fetch_is_greeted() {
    let scene = Setup::new(true);
    for script in [FETCH, UNDICI] {
        for url in scene.urls() {
            assert_greeted(&scene.through(node(script).arg(url)));
        }
    }
}

/// Some clients send `GET https://…` to the proxy itself, in clear.
#[test]
fn an_absolute_https_request_is_greeted() {
    for h2 in [false, true] {
        let scene = Setup::new(h2);
        let authority = scene.nginx.authority();
        let answer = scene.proxy.get(&format!("https://{authority}/token"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(
            answer.text().starts_with("hello CN=app with a token"),
            "{}",
            answer.text()
        );
    }
}

/// `outrider exec` alone is enough: it binds, sets every variable and hands back the status.
#[test]
fn exec_greets_curl_python_and_node() {
    let pki = Pki::new();
    let nginx = Nginx::demanding(&pki, true);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrider.yml");
    let yaml = destination(&pki, &pki.client("app"), &nginx.authority(), "");
    std::fs::write(&file, configuration(&yaml, folder.path())).unwrap();
    let url = format!("https://{}/token", nginx.authority());
    for client in [curl(["--fail"]), python(REQUESTS), python(URLLIB), node(FETCH)] {
        let mut command = outrider(["exec", "--config"]);
        command
            .arg(&file)
            .arg("--")
            .arg(client.get_program())
            .args(client.get_args())
            .arg(&url);
        command.env("TOKEN", TOKEN).env("TMPDIR", folder.path());
        assert_greeted(&run(&mut command));
    }
}

/// Without outrider the same calls are refused: the certificate is really demanded.
#[test]
fn without_outrider_the_caller_is_refused() {
    let scene = Setup::new(false);
    let ca = scene.pki.ca().display().to_string();
    let resolve = format!("{}:127.0.0.1", scene.nginx.authority());
    let bare = run(&mut curl([
        "--fail",
        "--cacert",
        &ca,
        "--resolve",
        &resolve,
        &scene.urls()[0],
    ]));
    assert_eq!(bare.code(), 22, "{bare:?}");
}

/// What curl shows for a refused CONNECT and for a refused request has the reason.
#[test]
fn a_refusal_reaches_the_client() {
    let scene = Setup::new(false);
    let refused = scene.through(&mut curl(["--include", "http://unlisted.test/"]));
    assert!(
        refused.stdout.contains("403") && refused.stdout.contains("unlisted"),
        "{refused:?}"
    );
    let tunnel = scene.through(&mut curl(["--include", "--verbose", "https://unlisted.test/"]));
    assert_ne!(tunnel.code(), 0);
    let told = format!("{}{}", tunnel.stdout, tunnel.stderr);
    assert!(
        told.contains("403") && told.contains("error=http_request_denied"),
        "{told}"
    );
}

/// A client that does not know our authority rejects our leaf: the log names what it lacks.
#[test]
fn a_client_without_the_bundle_is_noticed() {
    let scene = Setup::new(false);
    let proxy = format!("http://{}", scene.proxy.address());
    let url = scene.urls()[0].clone();
    let rejected = run(curl([&url]).env("https_proxy", proxy));
    assert_eq!(rejected.code(), 60, "{rejected:?}");
    crate::support::eventually("the log names the variables", || {
        let log = scene.proxy.log();
        log.contains("SSL_CERT_FILE") || log.contains("CURL_CA_BUNDLE")
    });
    assert!(
        scene
            .proxy
            .metric("outrider_errors_total", &[("destination", "partner")])
            >= 1.0
    );
}

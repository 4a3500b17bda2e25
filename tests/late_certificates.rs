//! A server that asks for the client's certificate only once it has read the request.

use std::time::{Duration, Instant};

use crate::support::apache::Apache;
use crate::support::programs::clean;
use crate::support::{Identity, Pki, Proxy, run};

/// Returns what curl, which renegotiates, gets for `/late/`.
fn by_curl(pki: &Pki, client: &Identity, apache: &Apache) -> String {
    let authority = apache.authority();
    let mut curl = clean("curl");
    curl.args(["-sS", "--max-time", "20", "--cacert"]).arg(pki.ca());
    curl.arg("--cert").arg(&client.cert_path);
    curl.arg("--key").arg(&client.key_path);
    curl.args(["--resolve", &format!("{authority}:127.0.0.1")]);
    let told = run(curl.arg(format!("https://{authority}/late/")));
    told.succeeded().stdout.clone()
}

/// In TLS 1.2 Apache asks for another handshake. The refusal comes at once, says who has to do what, and the
/// next request for another path is answered.
#[test]
fn a_server_that_renegotiates_is_refused_at_once_with_the_reason() {
    let pki = Pki::new();
    let client = pki.client("app");
    let apache = Apache::asking_late(&pki, "TLSv1.2");
    assert_eq!(by_curl(&pki, &client, &apache), "known");
    let authority = apache.authority();
    for tls in [String::new(), format!(", client_certificate: {}", client.yaml())] {
        let proxy = Proxy::start(&format!(
            "destinations: {{ p: {{ hosts: [\"{authority}\"], tls: {{ ca: \"file:{}\"{tls} }} }} }}",
            pki.ca().display()
        ));
        let url = |path: &str| format!("http://{authority}{path}");
        let others = || {
            let answer = proxy.get(&url("/"));
            assert_eq!((answer.status, answer.text()), (200, "everyone".to_owned()));
        };
        others();
        for body in [None, Some("a=b")] {
            let started = Instant::now();
            let answer = match body {
                None => proxy.get(&url("/late/")),
                Some(body) => proxy.raw(format!(
                    "POST {} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    url("/late/"),
                    body.len()
                )),
            };
            let detail = answer.assert_ours(502, "tls_protocol_error");
            assert!(
                started.elapsed() < Duration::from_secs(15),
                "{:?}",
                started.elapsed()
            );
            assert!(
                detail.starts_with(
                    "partner.test asks for a client certificate only once it has read the request \
                     (renegotiation, TLS 1.2), which HTTP/2 forbids and outrider does not do; its operator must"
                ),
                "{detail}"
            );
            let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(problem["reason"], "client_certificate_late");
            others();
        }
    }
}

/// In TLS 1.3 Apache sees from the handshake that it cannot ask any more, and says so itself: its answer passes.
#[test]
fn a_server_that_cannot_ask_after_the_handshake_answers_itself() {
    let pki = Pki::new();
    let client = pki.client("app");
    let apache = Apache::asking_late(&pki, "TLSv1.3");
    let authority = apache.authority();
    let proxy = Proxy::start(&format!(
        "destinations: {{ p: {{ hosts: [\"{authority}\"], tls: {{ ca: \"file:{}\", client_certificate: {} }} }} }}",
        pki.ca().display(),
        client.yaml()
    ));
    let answer = proxy.get(&format!("http://{authority}/late/"));
    assert_eq!(answer.status, 403);
    assert!(
        answer
            .text()
            .contains("Cannot perform Post-Handshake Authentication"),
        "{}",
        answer.text()
    );
}

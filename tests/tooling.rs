//! The tests' own instruments, without a proxy between: what they claim elsewhere must be true of them.

use std::net::SocketAddr;

use crate::support::pki::trusting;
use crate::support::programs::{curl, node, python};
use crate::support::{Nginx, Origin, Pki, TOKEN, Wire, eventually, run};

/// The origin of the main job really refuses callers without a certificate, and without the token.
#[test]
fn nginx_refuses_who_has_no_certificate_and_who_has_no_token() {
    let pki = Pki::new();
    let nginx = Nginx::demanding(&pki, true);
    let client = pki.client("app");
    let port = nginx.port();
    let ca = pki.ca().display().to_string();
    let resolve = format!("partner.test:{port}:127.0.0.1");
    let url = format!("https://partner.test:{port}/token");
    let base = [
        "--cacert",
        &ca,
        "--resolve",
        &resolve,
        "--write-out",
        " %{http_code}",
        &url,
    ];
    let (cert, key) = (
        client.cert_path.display().to_string(),
        client.key_path.display().to_string(),
    );
    let with_certificate = ["--cert", &cert, "--key", &key];

    let stranger = run(&mut curl(base));
    let tokenless = run(curl(base).args(with_certificate));
    let known = run(curl(base)
        .args(with_certificate)
        .args(["-H", &format!("Authorization: Bearer {TOKEN}")]));

    assert!(stranger.stdout.ends_with(" 400"), "{stranger:?}");
    assert!(tokenless.stdout.ends_with(" 401"), "{tokenless:?}");
    assert!(
        known.stdout.starts_with("hello CN=app with a token over HTTP/2"),
        "{known:?}"
    );
}

/// The scripted origin records the bytes, the names and the certificate that it was shown.
#[test]
fn the_scripted_origin_keeps_what_it_was_sent() {
    let pki = Pki::new();
    let origin = Origin::https(
        pki.accepting(&pki.server("partner.test")),
        crate::support::origin::echo,
    );
    let address = SocketAddr::from(([127, 0, 0, 1], origin.port()));
    let mut wire = Wire::connect(address)
        .tls("partner.test", &trusting(&pki.ca(), &[]))
        .expect("a handshake");

    let response = wire.ask("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    drop(wire);

    assert_eq!((response.status, response.text().as_str()), (200, "abc"));
    eventually("the end is seen", || origin.seen()[0].ended);
    let seen = &origin.seen()[0];
    assert_eq!(seen.sni.as_deref(), Some("partner.test"));
    assert!(
        origin.raw().ends_with("3\r\nabc\r\n0\r\n\r\n"),
        "{}",
        origin.raw()
    );
}

/// What `tests/run --tools` installs is what the tests with real clients need.
#[test]
fn the_clients_are_installed() {
    run(&mut python("import requests, websockets, grpc")).succeeded();
    let version = run(&mut node("require('undici'); console.log(process.versions.node)"));
    let major: u32 = version
        .succeeded()
        .stdout
        .split('.')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(major >= 24, "{version:?}");
}

//! Who may use the listener: passwords, certificates of partners, and instance identities of Cloud Foundry.

use rcgen::{CertificateParams, DnType};
use rustix::process::Signal;

use crate::support::pki::trusting;
use crate::support::platform::curl_as;
use crate::support::programs::{curl, outrider};
use crate::support::proxy::configuration;
use crate::support::{Origin, Pki, Proxy, Response, Wire, eventually, run};

const SESAME: (&str, &str) = ("PW", "canary-2f6b-sesame");

fn url(origin: &Origin, host: &str) -> String {
    format!("http://{host}:{}/", origin.port())
}

/// Two destinations, `weather` and `billing`, at one origin.
fn destinations(origin: &Origin) -> String {
    format!(
        "destinations:\n  weather: {{ hosts: [\"partner.test:{0}\"] }}\n  billing: {{ hosts: [\"other.test:{0}\"] }}\n",
        origin.port()
    )
}

fn asked(proxy: &Proxy, url: &str, credentials: &str) -> Response {
    let field = if credentials.is_empty() {
        String::new()
    } else {
        let token = data_encoding::BASE64.encode(credentials.as_bytes());
        format!("Proxy-Authorization: Basic {token}\r\n")
    };
    proxy.ask("GET", url, &field)
}

/// F15: every door asks, each client gets its destinations only, and nothing of its password leaves.
#[test]
fn a_client_with_a_password_gets_its_destinations() {
    let origin = Origin::plain();
    let proxy = Proxy::start_with(
        &format!(
            "clients:\n  app: {{ basic: env:PW }}\n  reports: {{ basic: env:PW, destinations: [weather] }}\n{}",
            destinations(&origin)
        ),
        &[SESAME],
    );
    let (weather, billing) = (url(&origin, "partner.test"), url(&origin, "other.test"));
    let right = |user: &str| format!("{user}:{}", SESAME.1);
    assert_eq!(asked(&proxy, &weather, &right("app")).status, 200);
    assert_eq!(asked(&proxy, &billing, &right("app")).status, 200);
    assert_eq!(asked(&proxy, &weather, &right("reports")).status, 200);
    let refused = asked(&proxy, &billing, &right("reports"));
    assert_eq!(refused.status, 403);
    assert!(
        refused
            .text()
            .contains("client reports may not use destination billing")
            && refused.text().contains("clients.reports.destinations"),
        "{}",
        refused.text()
    );
    for wrong in [
        String::new(),
        "app:".to_owned(),
        "app:wrong".to_owned(),
        right("nobody"),
        right(""),
        format!("app:{}:", SESAME.1),
        format!("app:{}", "x".repeat(60_000)),
    ] {
        for url in [&weather, &billing] {
            let refused = asked(&proxy, url, &wrong);
            // Too long for any head is another refusal.
            assert!([407, 431].contains(&refused.status), "{wrong:.40} {refused:?}");
            if refused.status == 407 {
                assert!(
                    refused.header("proxy-authenticate").unwrap().starts_with("Basic"),
                    "{refused:?}"
                );
            }
        }
    }
    let (refused, _) = proxy.connect(&format!("partner.test:{}", origin.port()));
    assert_eq!(refused.status, 407);
    assert!(!origin.raw().to_ascii_lowercase().contains("proxy-authorization"));
    let count = |client: &str, result: &str| {
        proxy.metric(
            "outrider_client_requests_total",
            &[("client", client), ("result", result)],
        )
    };
    assert_eq!((count("app", "served"), count("reports", "served")), (2.0, 1.0));
    assert_eq!((count("app", "refused"), count("reports", "refused")), (0.0, 1.0));
    assert_eq!(
        proxy.metric(
            "outrider_denied_total",
            &[("destination", "billing"), ("reason", "client")]
        ),
        1.0
    );
    eventually("it is in the log", || {
        proxy.log().contains("\"client\":\"reports\"")
    });
}

fn negotiate(proxy: &Proxy, user: &str, password: &str) -> (Vec<u8>, Wire) {
    let mut wire = proxy.wire();
    assert_eq!(wire.send([5, 2, 0, 2]).read_exact(2).unwrap(), [5, 2]);
    let (user_length, length) = (user.len() as u8, password.len() as u8);
    let bytes = [&[1, user_length], user.as_bytes(), &[length], password.as_bytes()].concat();
    (wire.send(bytes).read_exact(2).unwrap(), wire)
}

/// RFC 1929: the same names and passwords, the same destinations.
#[test]
fn socks5_asks_for_the_same_passwords() {
    let origin = Origin::http(|wire| {
        while let Ok(byte) = wire.read_exact(1) {
            wire.send(byte);
        }
    });
    let port = origin.port();
    let proxy = Proxy::start_with(
        &format!(
            "clients:\n  app: {{ basic: env:PW }}\n  reports: {{ basic: env:PW, destinations: [weather] }}\n\
             destinations:\n  weather: {{ hosts: [\"partner.test:{port}\"], mode: tunnel }}\n  \
             billing: {{ hosts: [\"other.test:{port}\"], mode: tunnel }}\n"
        ),
        &[SESAME],
    );
    let request = |host: &str| {
        let length = host.len() as u8;
        [&[5, 1, 0, 3, length], host.as_bytes(), &port.to_be_bytes()].concat()
    };
    for (user, host, code) in [
        ("app", "partner.test", 0),
        ("app", "other.test", 0),
        ("reports", "partner.test", 0),
        ("reports", "other.test", 2),
    ] {
        let (answer, mut wire) = negotiate(&proxy, user, SESAME.1);
        assert_eq!(answer, [1, 0], "{user}");
        assert_eq!(
            wire.send(request(host)).read_exact(10).unwrap()[1],
            code,
            "{user} {host}"
        );
    }
    for (user, password) in [
        ("app", ""),
        ("", SESAME.1),
        ("app", "wrong"),
        ("nobody", SESAME.1),
        ("app:canary-2f6b-ses", "ame"),
    ] {
        let (answer, mut wire) = negotiate(&proxy, user, password);
        assert_eq!(answer, [1, 1], "{user}:{password}");
        // What follows is not read as a request.
        assert!(wire.send(request("partner.test")).closes());
    }
    let mut wire = proxy.wire();
    assert_eq!(wire.send([5, 1, 0]).read_exact(2).unwrap(), [5, 0xff]);
    assert!(wire.send(request("partner.test")).closes());
    let by = format!("socks5h://app:{}@{}", SESAME.1, proxy.address());
    let told = run(&mut curl([
        "--proxy",
        &by,
        "telnet://partner.test",
        "--max-time",
        "1",
    ]));
    assert_ne!(told.code(), 0, "port 23 is no destination");
    for told in [
        "SOCKS5: the user name and password that came are those of none of `clients`",
        "(the user name is that of client app)",
        "(the user name is that of no client)",
        "SOCKS5: this proxy serves only its `clients`, and no user name and password came; write",
        "SOCKS5: client reports may not use destination billing",
    ] {
        eventually(told, || proxy.log().contains(told));
    }
    let log = proxy.log();
    let unwanted = [
        "\"path\":\"/\"",
        "nobody",
        "canary",
        "wrong",
        "Proxy-Authorization",
    ];
    for unwanted in unwanted {
        assert!(!log.contains(unwanted), "{unwanted}: {log}");
    }
}

/// A reload that removes a client takes effect at its next request: on a kept connection, and inside an intercepted tunnel.
#[test]
fn a_removed_client_loses_access_at_its_next_request() {
    let pki = Pki::new();
    let partner = crate::support::partner::Partner::new();
    let _ = &pki;
    let origin = Origin::plain();
    let authority = format!("partner.test:{}", partner.origin.port());
    let config = |clients: &str| {
        format!(
            "clients: {{ {clients} }}\n{}  partner: {{ hosts: [\"{authority}\"], tls: {{ ca: \"file:{}\", client_certificate: {} }} }}\n",
            destinations(&origin),
            partner.pki.ca().display(),
            partner.client.yaml()
        )
    };
    let proxy = Proxy::start_with(
        &config("app: { basic: env:PW }, other: { basic: env:PW }"),
        &[SESAME],
    );
    let token = data_encoding::BASE64.encode(format!("app:{}", SESAME.1).as_bytes());
    let field = format!("Proxy-Authorization: Basic {token}\r\n");
    let mut kept = proxy.wire();
    let plain = format!(
        "GET {} HTTP/1.1\r\nHost: partner.test\r\n{field}\r\n",
        url(&origin, "partner.test")
    );
    assert_eq!(kept.ask(&plain).status, 200);
    let mut tunnel = proxy.wire();
    tunnel.send(format!(
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{field}\r\n"
    ));
    assert_eq!(tunnel.bodiless_response().status, 200);
    let mut tunnel = tunnel
        .tls("partner.test", &trusting(&proxy.bundle(), &["http/1.1"]))
        .unwrap();
    assert_eq!(tunnel.get(&authority, "/").status, 200);
    let (answer, mut socks) = negotiate(&proxy, "app", SESAME.1);
    assert_eq!(answer, [1, 0]);

    // A reload with a fault changes nothing; one that removes the client does.
    proxy.rewrite(&config("app: { basic: env:MISSING }"));
    proxy.signal(Signal::HUP);
    eventually("the reload fails", || {
        proxy.metric("outrider_config_reloads_total", &[("result", "failed")]) >= 1.0
    });
    assert_eq!(
        (kept.ask(&plain).status, tunnel.get(&authority, "/").status),
        (200, 200)
    );
    proxy.rewrite(&config("other: { basic: env:PW }"));
    proxy.signal(Signal::HUP);
    eventually("the reload succeeds", || {
        proxy.metric("outrider_config_reloads_total", &[("result", "done")]) >= 1.0
    });
    let inside = tunnel.get(&authority, "/");
    assert_eq!((kept.ask(&plain).status, inside.status), (407, 403));
    assert!(inside.text().contains("open a new one"), "{}", inside.text());
    // By SOCKS5 the password was good, and the request comes only now.
    let name = b"partner.test";
    let asked = [
        &[5, 1, 0, 3, name.len() as u8],
        &name[..],
        &origin.port().to_be_bytes(),
    ]
    .concat();
    assert_eq!(socks.send(asked).read_exact(2).unwrap(), [5, 2]);
    assert_eq!(partner.origin.raw().matches("GET /").count(), 2);
}

/// Mutual TLS by the first byte, in clear beside it: the certificate counts for its connection.
#[test]
fn a_partner_shows_its_certificate() {
    let origin = Origin::plain();
    let (pki, other) = (Pki::new(), Pki::new());
    let server = pki.server("proxy.test");
    let proxy = Proxy::start_with(
        &format!(
            "listen_tls: {}\nclients:\n  partner: {{ certificate: CN=partner, ca: \"file:{}\", destinations: [weather] }}\n{}",
            server.yaml(),
            pki.ca().display(),
            destinations(&origin)
        ),
        &[SESAME],
    );
    let ca = pki.ca().display().to_string();
    let (weather, billing) = (url(&origin, "partner.test"), url(&origin, "other.test"));
    let partner = pki.client("partner");
    let pair = Some((&*partner.cert_path, &*partner.key_path));
    let told = curl_as(&proxy, &ca, pair, &[], &weather);
    assert_eq!(told.succeeded().stdout, "ok 200");
    let told = curl_as(&proxy, &ca, pair, &[], &billing);
    assert!(
        told.stdout
            .contains("client partner may not use destination billing")
            && told.stdout.ends_with(" 403"),
        "{told:#?}"
    );
    // The same by CONNECT, and by SOCKS5 inside TLS.
    let told = curl_as(&proxy, &ca, pair, &["--proxytunnel"], &weather);
    assert_eq!(told.succeeded().stdout, "ok 200");

    let told = curl_as(&proxy, &ca, None, &[], &weather);
    assert!(
        told.stdout.contains("serves clients with a certificate only") && told.stdout.ends_with(" 403"),
        "{told:#?}"
    );
    assert_eq!(asked(&proxy, &weather, "").status, 403);
    assert_eq!(asked(&proxy, &weather, "partner:x").status, 407);
    let stranger = pki.client("partner2");
    let told = curl_as(
        &proxy,
        &ca,
        Some((&stranger.cert_path, &stranger.key_path)),
        &[],
        &weather,
    );
    assert!(
        told.stdout.contains("of partner2 is that of no client") && told.stdout.ends_with(" 403"),
        "{told:#?}"
    );
    let foreign = other.client("partner");
    let mut old = CertificateParams::default();
    old.distinguished_name.push(DnType::CommonName, "partner");
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let old = pki.issue("old", old);
    for (identity, alert) in [(&foreign, "unknown ca"), (&old, "certificate expired")] {
        let told = curl_as(
            &proxy,
            &ca,
            Some((&identity.cert_path, &identity.key_path)),
            &[],
            &weather,
        );
        assert!(
            told.code() != 0 && told.stderr.to_lowercase().contains(alert),
            "{told:#?}"
        );
    }
    eventually("it is in the log", || {
        proxy.log().contains("its certificate is refused")
    });
    let failed = [("destination", "none"), ("error", "tls_certificate_error")];
    assert_eq!(proxy.metric("outrider_errors_total", &failed), 2.0);
    assert_eq!(origin.raw().matches("GET ").count(), 2);
}

/// TLS that is no TLS, half of it, and nothing: the others are served meanwhile.
#[test]
fn a_broken_handshake_concerns_nobody_else() {
    let origin = Origin::plain();
    let pki = Pki::new();
    let proxy = Proxy::start_with(
        &format!(
            "listen_tls: {}\nclients: {{ app: {{ basic: env:PW }} }}\n{}",
            pki.server("proxy.test").yaml(),
            destinations(&origin)
        ),
        &[SESAME],
    );
    let weather = url(&origin, "partner.test");
    let right = format!("app:{}", SESAME.1);
    let mut half = proxy.wire();
    half.send([0x16]);
    let mut garbage = proxy.wire();
    garbage.send([0x16, 3, 1, 0, 5, 9, 9, 9, 9, 9]);
    let (bytes, _) = garbage.rest();
    assert!(
        bytes.first().is_none_or(|first| *first == 0x15),
        "an alert or nothing: {bytes:?}"
    );
    assert_eq!(asked(&proxy, &weather, &right).status, 200);
    let ca = pki.ca().display().to_string();
    let told = curl_as(&proxy, &ca, None, &["--proxy-user", &right], &weather);
    assert_eq!(told.succeeded().stdout, "ok 200");
    let told = curl_as(&proxy, &ca, None, &["--proxy-user", "app:no"], &weather);
    assert!(told.stdout.ends_with(" 407"), "{told:#?}");
    // TLS within the listener's TLS is refused in HTTP, and SOCKS5 within it works.
    let mut inner = proxy.wire().tls("proxy.test", &trusting(&pki.ca(), &[])).unwrap();
    assert_eq!(inner.ask([0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]).status, 400);
    let mut inner = proxy.wire().tls("proxy.test", &trusting(&pki.ca(), &[])).unwrap();
    assert_eq!(inner.send([5, 1, 2]).read_exact(2).unwrap(), [5, 2]);
    // A client that speaks HTTP/2 only is told by ALPN.
    let h2 = proxy.wire().tls("proxy.test", &trusting(&pki.ca(), &["h2"]));
    assert!(h2.is_err());
}

/// A public address without `clients` is an error, with them it is allowed; and a password in clear there is warned of.
#[test]
fn a_public_address_needs_clients() {
    let check = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("outrider.yml");
        std::fs::write(&file, configuration(text, folder.path())).unwrap();
        run(outrider(["check", "--config"]).arg(&file).env(SESAME.0, SESAME.1))
    };
    let told = check("listen: 0.0.0.0:3128");
    assert!(told.code() != 0, "{told:#?}");
    assert!(
        format!("{}{}", told.stdout, told.stderr)
            .contains("everybody who reaches this address could use the proxy"),
        "{told:#?}"
    );
    let told = check("listen: [127.0.0.1:0, 0.0.0.0:3128]\nclients: { app: { basic: env:PW } }");
    let all = format!("{}{}", told.stdout, told.stderr);
    assert_eq!(told.code(), 0, "{told:#?}");
    assert!(all.contains("in clear"), "{told:#?}");
    let told = check("listen: 0.0.0.0:3128\nclients: {}");
    assert!(told.code() != 0, "{told:#?}");
}

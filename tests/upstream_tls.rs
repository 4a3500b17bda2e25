//! Group H: TLS to origins. Who refuses us is understood. (Whom we refuse is in `x509`.)

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::CertificateDer;

use crate::support::origin::ok;
use crate::support::partner::{Partner, destination};
use crate::support::programs::clean;
use crate::support::{Identity, Origin, Pki, Proxy, TOKEN, eventually, run};

/// H1: the name that is verified may be another than the host, where the configuration says so.
#[test]
fn the_server_name_of_the_configuration_is_sent_and_verified() {
    let pki = Pki::new();
    let origin = Origin::https(pki.accepting(&pki.server("inner.test")), ok);
    let yaml = format!(
        "destinations: {{ p: {{ hosts: [\"{}\"], tls: {{ ca: \"file:{}\", server_name: inner.test }} }} }}",
        origin.authority(),
        pki.ca().display()
    );
    let proxy = Proxy::start(&yaml);
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    assert_eq!(origin.seen()[0].sni.as_deref(), Some("inner.test"));
    assert!(
        origin
            .raw()
            .to_lowercase()
            .contains(&format!("host: {}\r\n", origin.authority())),
        "{}",
        origin.raw()
    );
}

/// `ca_extra` stands beside the system's roots; `min_version` refuses what is older.
#[test]
fn extra_roots_and_the_least_version_hold() {
    let pki = Pki::new();
    let server = pki.server("partner.test");
    let origin = Origin::https(pki.demanding_over(&server, &[&rustls::version::TLS12]), ok);
    let client = pki.client("app");
    let yaml = |least: &str| {
        format!(
            "destinations: {{ p: {{ hosts: [\"{}\"], tls: {{ ca_extra: \"file:{}\", client_certificate: {}, min_version: \"{least}\" }} }} }}",
            origin.authority(),
            pki.ca().display(),
            client.yaml()
        )
    };
    assert_eq!(Proxy::start(&yaml("1.2")).get(&origin.url("/")).status, 200);
    let refused = Proxy::start(&yaml("1.3")).get(&origin.url("/"));
    assert_eq!(refused.status, 502, "{}", refused.text());
    assert!(
        refused.error().is_some_and(|error| error.starts_with("tls_")),
        "{refused:?}"
    );
}

/// H6: a client certificate in every form that people have it in.
#[test]
fn client_certificates_are_read_in_every_form() {
    let pki = Pki::new();
    let server = pki.server("partner.test");
    let folder = pki.folder();
    let rsa = openssl_key(&pki, &["genrsa", "-traditional", "-out"], "rsa");
    let forms = [
        ("PKCS#8", pki.client("pkcs8")),
        ("PKCS#1", rsa),
        (
            "SEC1",
            openssl_key(
                &pki,
                &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"],
                "sec1",
            ),
        ),
        ("CRLF and text around", {
            let client = pki.client("crlf");
            let text = format!(
                "Bag Attributes\r\n  friendlyName: x\r\n{}",
                client.cert.replace('\n', "\r\n")
            );
            std::fs::write(&client.cert_path, text).unwrap();
            std::fs::write(&client.key_path, client.key.replace('\n', "\r\n")).unwrap();
            client
        }),
        ("a longer chain", {
            let client = pki.client("chain");
            let ca = std::fs::read_to_string(pki.ca()).unwrap();
            std::fs::write(&client.cert_path, format!("{}{ca}", client.cert)).unwrap();
            client
        }),
    ];
    for (form, client) in forms {
        let origin = Origin::https(pki.demanding(&server), ok);
        let yaml = destination(&pki, &client, &origin.authority(), "");
        let answer = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]).get(&origin.url("/"));
        assert_eq!(answer.status, 200, "{form}: {}", answer.text());
        assert!(origin.seen()[0].client.is_some(), "{form}");
    }
    assert!(folder.exists());
}

/// Makes a key that openssl made, and a certificate of the authority for it.
fn openssl_key(pki: &Pki, arguments: &[&str], name: &str) -> Identity {
    let path = pki.folder().join(format!("{name}.key"));
    run(clean("openssl").args(arguments).arg(&path)).succeeded();
    let pem = std::fs::read_to_string(&path).unwrap();
    // rcgen reads PKCS#8 only; the file stays as openssl wrote it.
    let pkcs8 = run(clean("openssl")
        .args(["pkcs8", "-topk8", "-nocrypt", "-in"])
        .arg(&path));
    let key = KeyPair::from_pem(&pkcs8.succeeded().stdout).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let identity = pki.issue_for(name, params, &key);
    std::fs::write(&path, &pem).unwrap();
    Identity { key: pem, ..identity }
}

/// H6: an unusable certificate is reported when it is read, with the reason, and requests that need it are refused.
#[test]
fn unusable_client_certificates_are_reported_at_load() {
    let pki = Pki::new();
    let (client, other) = (pki.client("app"), pki.client("other"));
    let encrypted = pki.folder().join("encrypted.key");
    run(clean("openssl")
        .args(["pkcs8", "-topk8", "-passout", "pass:x", "-in"])
        .arg(&client.key_path)
        .arg("-out")
        .arg(&encrypted))
    .succeeded();
    let swapped = Identity {
        key_path: other.key_path,
        ..client.clone()
    };
    let no_key = Identity {
        key_path: client.cert_path.clone(),
        ..client.clone()
    };
    let no_cert = Identity {
        cert_path: client.key_path.clone(),
        ..client.clone()
    };
    let locked = Identity {
        key_path: encrypted,
        ..client.clone()
    };
    let missing = Identity {
        cert_path: pki.folder().join("gone.crt"),
        ..client
    };
    for (name, identity, word) in [
        ("another key", swapped, "belong"),
        ("no key", no_key, "key"),
        ("no certificate", no_cert, "certificate"),
        ("an encrypted key", locked, "encrypted"),
        ("a missing file", missing, "gone.crt"),
    ] {
        let origin = Origin::https(pki.demanding(&pki.server("partner.test")), ok);
        let yaml = destination(&pki, &identity, &origin.authority(), "");
        let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
        eventually(name, || proxy.log().to_lowercase().contains(word));
        let answer = proxy.get(&origin.url("/"));
        assert!(matches!(answer.status, 502 | 503), "{name}: {answer:?}");
        let detail = answer.assert_ours(answer.status, "proxy_configuration_error");
        assert!(
            !format!("{detail}{}", proxy.log()).contains("PRIVATE KEY---"),
            "{name}"
        );
        assert_eq!(origin.seen().len(), 0, "{name}: dialled without its certificate");
    }
}

/// H7: an origin that refuses our certificate does so in the handshake (1.2) or only after it (1.3): one error
/// either way, and no request is sent twice.
#[test]
fn a_refused_client_certificate_is_one_error_in_both_versions() {
    let (pki, stranger) = (Pki::new(), Pki::named("strangers"));
    let mut errors = Vec::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let origin = Origin::https(pki.demanding_over(&pki.server("partner.test"), &[version]), ok);
        let yaml = destination(&pki, &stranger.client("stranger"), &origin.authority(), "");
        let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
        for _ in 0..3 {
            let answer = proxy.ask("POST", &origin.url("/"), "Content-Length: 0\r\n");
            assert_eq!(answer.status, 502, "{version:?}: {}", answer.text());
            let detail = answer.assert_ours(502, "tls_alert_received");
            assert!(detail.contains("client certificate"), "{version:?}: {detail}");
            errors.push(answer.error().unwrap().to_owned());
        }
        assert_eq!(origin.raw(), "");
        assert!(origin.seen().len() <= 4, "tried again: {}", origin.seen().len());
    }
    errors.dedup();
    assert_eq!(errors.len(), 1, "{errors:?}");
}

/// H7: an origin that wants a certificate where none is configured.
#[test]
fn a_demand_that_is_not_configured_is_reported() {
    let partner = Partner::new();
    let yaml = format!(
        "destinations: {{ p: {{ hosts: [\"{}\"], tls: {{ ca: \"file:{}\" }} }} }}",
        partner.authority(),
        partner.pki.ca().display()
    );
    let answer = Proxy::start(&yaml).get(&partner.url("/"));
    let detail = answer.assert_ours(502, "tls_alert_received");
    assert!(detail.contains("client_certificate"), "no remedy: {detail}");
}

/// H9: no early data is sent, even if the origin offers it.
#[test]
fn no_early_data_is_sent() {
    let partner = Partner::configured(
        |config| config.max_early_data_size = 16384,
        |wire| {
            if wire.request().is_ok() {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            }
        },
    );
    let proxy = partner.proxy("");
    for n in 0..4 {
        // Were the request sent as early data, the scripted origin would never read it.
        assert_eq!(proxy.get(&partner.url(&format!("/{n}"))).status, 200);
    }
}

/// H11: an origin that talks nonsense instead of TLS, or says nothing, is an error in bounded time.
#[test]
fn nonsense_instead_of_a_handshake_is_a_502_in_time() {
    for said in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "\x16\x03\x03\x00\x05\x02\x00",
        "\u{0}\u{0}\u{0}",
        "",
    ] {
        let pki = Pki::new();
        let origin = Origin::http(move |wire| {
            wire.send(said);
            let _ = wire.rest();
        });
        let yaml = destination(
            &pki,
            &pki.client("app"),
            &origin.authority(),
            "timeouts: { tls: 1s }",
        );
        let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
        let started = std::time::Instant::now();
        let answer = proxy.get(&origin.url("/"));
        assert!(matches!(answer.status, 502 | 504), "{said:?}: {answer:?}");
        assert!(answer.error().is_some(), "{said:?}: {answer:?}");
        assert!(started.elapsed().as_secs() < 8, "{said:?}");
    }
}

/// The name-constrained authority: it signs for what is intercepted, and the bundle says nothing else of ours.
#[test]
fn our_authority_is_constrained_to_what_is_intercepted() {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let partner = Partner::new();
    let proxy = partner.proxy("");
    let bundle = std::fs::read(proxy.bundle()).unwrap();
    use rustls::pki_types::pem::PemObject;
    let ours: Vec<_> = CertificateDer::pem_slice_iter(&bundle)
        .map(Result::unwrap)
        .filter(|der| {
            let (_, certificate) = X509Certificate::from_der(der).unwrap();
            certificate
                .subject()
                .to_string()
                .to_lowercase()
                .contains("outrider")
        })
        .collect();
    assert_eq!(ours.len(), 1, "one authority of ours in the bundle");
    let (_, authority) = X509Certificate::from_der(&ours[0]).unwrap();
    let constraints = authority.name_constraints().unwrap().expect("name constraints");
    let permitted = format!("{:?}", constraints.value.permitted_subtrees);
    assert!(
        constraints.critical && permitted.contains("partner.test"),
        "{permitted}"
    );
    assert!(!String::from_utf8_lossy(&bundle).contains("PRIVATE KEY"));
}

/// What a middlebox does with a ClientHello of more than one segment.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Middlebox {
    Closes,
    Resets,
    Swallows,
}

/// Starts a middlebox before a server on `port`; it needs the whole ClientHello in the first segment. Returns
/// its port.
fn behind(kind: Middlebox, port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for near in listener.incoming() {
            let mut near = near.unwrap();
            thread::spawn(move || {
                let mut header = [0; 5];
                if near.read_exact(&mut header).is_err() {
                    return;
                }
                let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
                if header.len() + length > 1400 {
                    match kind {
                        Middlebox::Closes => {
                            // What was not read would make it a reset.
                            let _ = near.read_exact(&mut vec![0; length]);
                        }
                        Middlebox::Resets => socket2::SockRef::from(&near)
                            .set_linger(Some(Duration::ZERO))
                            .unwrap(),
                        Middlebox::Swallows => {
                            let _ = io::copy(&mut near, &mut io::sink());
                        }
                    }
                    return;
                }
                let mut far = TcpStream::connect(("127.0.0.1", port)).unwrap();
                far.write_all(&header).unwrap();
                let (mut back, mut forth) = (far.try_clone().unwrap(), near.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = io::copy(&mut back, &mut forth);
                    let _ = forth.shutdown(std::net::Shutdown::Both);
                });
                let _ = io::copy(&mut near, &mut far);
                let _ = far.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    own
}

/// The post-quantum key exchange makes a ClientHello longer than a segment, which some boxes do not take: the
/// answer thinks of it, and `tls.groups` helps.
#[test]
fn a_box_that_takes_no_long_client_hello_is_thought_of_and_got_through() {
    let pki = Pki::new();
    let origin = Origin::https(pki.accepting(&pki.server("partner.test")), ok);
    let with = |port: u16, tls: &str| {
        Proxy::start(&format!(
            "log: {{ level: debug }}\ntimeouts: {{ tls: 1s }}\n\
             destinations: {{ p: {{ hosts: [\"partner.test:{port}\"], tls: {{ ca: \"file:{}\", {tls} }} }} }}",
            pki.ca().display()
        ))
    };
    for (kind, status, error, told) in [
        (
            Middlebox::Closes,
            502,
            "connection_terminated",
            "closed the connection",
        ),
        (
            Middlebox::Resets,
            502,
            "connection_terminated",
            "closed the connection",
        ),
        (
            Middlebox::Swallows,
            504,
            "connection_timeout",
            "did not finish the TLS handshake within 1s",
        ),
    ] {
        let port = behind(kind, origin.port());
        let url = format!("http://partner.test:{port}/");
        for tls in ["", "groups: [X25519MLKEM768, x25519]"] {
            let detail = with(port, tls).get(&url).assert_ours(status, error);
            assert!(detail.contains(told), "{kind:?}: {detail}");
            let remedy = "ClientHello of more than one segment: if other clients reach it, set \
                          `tls: { groups: [x25519, secp256r1, secp384r1] }`";
            assert!(detail.contains(remedy), "{kind:?}: {detail}");
        }
        for (groups, chosen) in [
            ("x25519, secp256r1, secp384r1", "X25519"),
            ("secp384r1", "secp384r1"),
        ] {
            let proxy = with(port, &format!("groups: [{groups}]"));
            assert_eq!(proxy.get(&url).status, 200, "{kind:?}");
            let exchange = format!("\"key_exchange\":\"{chosen}\"");
            eventually("the log tells the group", || proxy.log().contains(&exchange));
        }
    }
    // Without such a box the first choice stays what it was.
    let proxy = with(origin.port(), "");
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    eventually("the log tells the group", || {
        proxy.log().contains("X25519MLKEM768")
    });
}

/// A server that closes after every ClientHello is not said to dislike a long one if ours is short.
#[test]
fn a_server_that_closes_on_a_short_client_hello_is_reported_as_such() {
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().for_each(drop));
    let proxy = Proxy::start(&format!(
        "destinations: {{ p: {{ hosts: [\"partner.test:{port}\"], tls: {{ ca: \"file:{}\", groups: [secp256r1] }} }} }}",
        pki.ca().display()
    ));
    let answer = proxy.get(&format!("http://partner.test:{port}/"));
    let detail = answer.assert_ours(502, "connection_terminated");
    assert!(!detail.contains("segment"), "{detail}");
}

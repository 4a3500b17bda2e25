//! Handshakes with foreign servers: every kind of client key in both versions, and the reports of failed and
//! successful ones.

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};

use crate::support::openssl::SServer;
use crate::support::origin::ok;
use crate::support::partner::{Partner, destination};
use crate::support::pki::{accepting, server_params};
use crate::support::programs::clean;
use crate::support::{Identity, Nginx, Origin, Pki, Proxy, TOKEN, eventually, run};

/// Makes a client certificate of `pki` for a key from openssl.
fn client(pki: &Pki, name: &str, genpkey: &[&str]) -> Identity {
    let path = pki.folder().join(format!("{name}.openssl"));
    run(clean("openssl")
        .arg("genpkey")
        .args(genpkey)
        .arg("-out")
        .arg(&path))
    .succeeded();
    let key = KeyPair::from_pem(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let identity = pki.issue_for(name, params, &key);
    std::fs::copy(&path, &identity.key_path).unwrap();
    identity
}

/// Starts a server that demands a certificate of `pki`.
fn demanding(pki: &Pki, more: &[&str]) -> SServer {
    let ca = pki.ca().display().to_string();
    let arguments = [&["-Verify", "1", "-verify_return_error", "-CAfile", &ca], more].concat();
    SServer::start(&pki.server("partner.test"), &arguments)
}

const EC: [&str; 3] = ["-algorithm", "EC", "-pkeyopt"];

/// H6: OpenSSL asks for our certificate, verifies and accepts it, with every kind of key.
#[test]
fn openssl_takes_a_client_certificate_of_every_kind_in_both_versions() {
    let pki = Pki::new();
    let ec = |curve: &'static str| [&EC[..], &[curve]].concat();
    let rsa = |bits: &'static str| vec!["-algorithm", "RSA", "-pkeyopt", bits];
    let only_pss = &["-client_sigalgs", "rsa_pss_rsae_sha256"][..];
    let kinds = [
        ("rsa-2048", rsa("rsa_keygen_bits:2048"), &[][..]),
        ("rsa-3072-pss", rsa("rsa_keygen_bits:3072"), only_pss),
        ("p-256", ec("ec_paramgen_curve:P-256"), &[]),
        ("p-384", ec("ec_paramgen_curve:P-384"), &[]),
        ("p-521", ec("ec_paramgen_curve:P-521"), &[]),
        ("ed25519", vec!["-algorithm", "ED25519"], &[]),
    ];
    for (name, genpkey, more) in kinds {
        let identity = client(&pki, name, &genpkey);
        for (version, protocol) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let server = demanding(&pki, &[&[version], more].concat());
            let yaml = destination(&pki, &identity, &server.authority(), "");
            let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
            let answer = proxy.get(&format!("http://{}/", server.authority()));
            if (name, version) == ("p-521", "-tls1_2") {
                // rustls has no key exchange over P-521, without which OpenSSL does not look at such a key in
                // TLS 1.2.
                let detail = answer.assert_ours(502, "tls_alert_received");
                assert!(
                    detail.contains("a P-521 key: OpenSSL takes that in TLS 1.3 only"),
                    "{detail}"
                );
                continue;
            }
            assert_eq!(answer.status, 200, "{name} {version}: {}", answer.text());
            // The page describes the connection that it is sent on.
            let page = answer.text();
            assert!(page.contains(&format!("CN={name}\n")), "{name} {version}: {page}");
            assert!(page.contains(protocol), "{name} {version}: {page}");
        }
    }
}

/// H7: the failure names the certificate that is missing.
#[test]
fn openssl_refuses_and_the_answer_says_whose_certificate_it_wants() {
    let (pki, other) = (Pki::named("Partner Authority"), Pki::named("Agency Authority"));
    for version in ["-tls1_2", "-tls1_3"] {
        let server = demanding(&pki, &[version]);
        let url = format!("http://{}/", server.authority());
        let ask = |yaml: &str| Proxy::start_with(yaml, &[("TOKEN", TOKEN)]).get(&url);

        let refused = ask(&destination(&pki, &other.client("app"), &server.authority(), ""));
        let detail = refused.assert_ours(502, "tls_alert_received");
        assert!(
            detail.contains("partner.test refused our client certificate (alert ")
                && detail.contains("it takes those of Partner Authority, and ours leads to Agency Authority"),
            "{version}: {detail}"
        );

        let none = ask(&format!(
            "destinations: {{ p: {{ hosts: [\"{}\"], tls: {{ ca: \"file:{}\" }} }} }}",
            server.authority(),
            pki.ca().display()
        ));
        let detail = none.assert_ours(502, "tls_alert_received");
        assert!(
            detail
                .contains("demands a client certificate of Partner Authority and this destination has none"),
            "{version}: {detail}"
        );
    }
}

/// H7: nginx lets in whom its list of revoked certificates does not name. To the others it speaks HTTP: the
/// answer is its own, and passes as it is.
#[test]
fn nginx_turns_away_a_revoked_client_certificate() {
    let pki = Pki::named("Partner Authority");
    let issue = |name: &str, serial: u64| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(serial.into());
        pki.issue(name, params)
    };
    let list = pki.folder().join("clients.crl");
    std::fs::write(&list, pki.list(&[7])).unwrap();
    let nginx = Nginx::revoking(&pki, &list);
    for (identity, status, word) in [
        (issue("good", 6), 200, "hello CN=good"),
        (issue("revoked", 7), 400, "SSL certificate error"),
    ] {
        let yaml = destination(&pki, &identity, &nginx.authority(), "");
        let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
        let answer = proxy.get(&format!("http://{}/", nginx.authority()));
        assert_eq!(
            (answer.status, answer.error()),
            (status, None),
            "{}",
            answer.text()
        );
        assert!(answer.text().contains(word), "{}", answer.text());
    }
}

/// What cannot be agreed on is said in words, with the error type of RFC 9209.
#[test]
fn a_version_or_cipher_that_only_one_side_has_is_named() {
    let pki = Pki::new();
    let shown = pki.server("partner.test");
    for (arguments, least, error, reason, parts) in [
        (
            &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"][..],
            "1.2",
            "tls_alert_received",
            "tls_version",
            &["speaks no version of TLS that is accepted here: 1.2 or 1.3"][..],
        ),
        (
            &["-tls1_2"],
            "1.3",
            "tls_alert_received",
            "tls_version",
            &["accepted here: 1.3 (tls.min_version)"],
        ),
        (
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"],
            "1.2",
            "tls_alert_received",
            "tls_alert",
            &[
                "handshake_failure",
                "no cipher suite or key exchange of ours",
                "AES-GCM",
            ],
        ),
        (
            &["-tls1_3", "-groups", "P-521"],
            "1.2",
            "tls_alert_received",
            "tls_alert",
            &["handshake_failure", "P-256 or P-384"],
        ),
    ] {
        let server = SServer::start(&shown, arguments);
        let tls = format!(
            "tls: {{ ca: \"file:{}\", min_version: \"{least}\" }}",
            pki.ca().display()
        );
        let answer = Proxy::to(&server.authority(), &tls).get(&format!("http://{}/", server.authority()));
        let detail = answer.assert_ours(502, error);
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(problem["reason"], reason, "{arguments:?}: {detail}");
        for part in parts {
            assert!(detail.contains(part), "{arguments:?}: {detail}");
        }
    }
}

/// The key exchange that a quantum computer does not undo is chosen wherever the server can, and is seen in the
/// log.
#[test]
fn each_new_connection_is_logged_with_its_encryption() {
    let partner = Partner::new();
    let old = SServer::start(&partner.pki.server("partner.test"), &["-tls1_2"]);
    let yaml = format!(
        "log: {{ format: json, level: debug }}\n{}  old: {{ hosts: [\"{}\"], tls: {{ ca: \"file:{}\" }} }}\n",
        partner.yaml(""),
        old.authority(),
        partner.pki.ca().display()
    );
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    assert_eq!(proxy.get(&partner.url("/")).status, 200);
    assert_eq!(proxy.get(&format!("http://{}/", old.authority())).status, 200);
    let told = |destination: &str| {
        let log = proxy.log();
        let name = format!("\"destination\":\"{destination}\"");
        let mut lines = log.lines().filter(|line| line.contains("TLS with the upstream"));
        lines.find(|line| line.contains(&name)).map(str::to_owned)
    };
    eventually("both are told", || {
        ["partner", "old"].iter().all(|name| told(name).is_some())
    });
    let (first, last) = (told("partner").unwrap(), told("old").unwrap());
    for part in [
        "\"tls\":\"1.3\"",
        "TLS13_AES_256_GCM_SHA384",
        "\"key_exchange\":\"X25519MLKEM768\"",
        "\"resumed\":false",
        "\"host\":\"partner.test\"",
    ] {
        assert!(first.contains(part), "{part}: {first}");
    }
    for part in [
        "\"tls\":\"1.2\"",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        if cfg!(feature = "fips") {
            "\"key_exchange\":\"secp256r1\""
        } else {
            "\"key_exchange\":\"X25519\""
        },
    ] {
        assert!(last.contains(part), "{part}: {last}");
    }
}

/// The end of an upstream's certificate is a metric, the soonest of its hosts, and a warning in its last week.
#[test]
fn the_expiry_of_an_upstreams_certificate_is_reported_in_time() {
    let pki = Pki::new();
    let until = |name: &str, days: i64| {
        let mut params = server_params(&[name]);
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(days);
        let end = params.not_after.unix_timestamp();
        (Origin::https(accepting(&pki.issue(name, params)), ok), end)
    };
    let ((late, late_end), (soon, soon_end)) = (until("partner.test", 300), until("other.test", 3));
    let proxy = Proxy::start(&format!(
        "destinations: {{ p: {{ hosts: [\"partner.test:{}\", \"other.test:{}\"], tls: {{ ca: \"file:{}\" }} }} }}",
        late.port(),
        soon.port(),
        pki.ca().display()
    ));
    let end = || {
        proxy.metric(
            "outrider_credential_expiry_timestamp_seconds",
            &[("destination", "p"), ("kind", "upstream_certificate")],
        )
    };
    let warnings = || {
        proxy
            .log()
            .matches("the certificate of this upstream ends within a week")
            .count()
    };
    assert_eq!(
        proxy.get(&format!("http://partner.test:{}/", late.port())).status,
        200
    );
    assert_eq!((end(), warnings()), (late_end as f64, 0));
    for _ in 0..3 {
        assert_eq!(
            proxy.get(&format!("http://other.test:{}/", soon.port())).status,
            200
        );
    }
    assert_eq!(end(), soon_end as f64);
    eventually("a warning", || warnings() == 1);
    assert!(proxy.log().contains("other.test"));
}

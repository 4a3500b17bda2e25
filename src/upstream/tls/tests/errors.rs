use super::*;

/// H7: the same class in both versions, whether the server trusts us not or gets nothing.
#[tokio::test]
async fn a_refused_client_certificate_is_one_error_in_both_versions() {
    let (agency, partner_ca) = (
        Pair::authority("Agency CA", None),
        Pair::authority("Partner CA", None),
    );
    let (partner, app) = (
        Pair::leaf("partner.test", &partner_ca),
        Pair::leaf("app", &agency),
    );
    let expired = Pair::new(
        "app",
        Some(&partner_ca),
        &rcgen::PKCS_ECDSA_P256_SHA256,
        |params| {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        },
    );
    let with = |pair: &Pair| {
        let variables = [
            ("CA", &*partner_ca.pem()),
            ("CERT", &*pair.pem()),
            ("KEY", &*pair.key_pem()),
        ];
        settings(&with_certificate(), &variables).unwrap()
    };
    let without = settings(&with_ca(), &[("CA", &partner_ca.pem())]).unwrap();
    for versions in [TLS12, TLS13] {
        let server = || server(&[&partner], Some(&partner_ca), versions);
        let error = refused(&with(&app), server(), host("partner.test")).await;
        assert_eq!(error.reason(), "client_certificate_refused", "{error}");
        assert_eq!(
            (error.proxy_status(), error.alert_id()),
            ("tls_alert_received", Some(48)),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .starts_with("partner.test refused our client certificate (alert unknown_ca)")
        );
        assert!(
            error
                .to_string()
                .ends_with("; it takes those of Partner CA, and ours leads to Agency CA"),
            "{error}"
        );

        let error = refused(&with(&expired), server(), host("partner.test")).await;
        assert!(
            error
                .to_string()
                .contains("certificate_expired); renew tls.client_certificate"),
            "{error}"
        );

        let error = refused(&without, server(), host("partner.test")).await;
        assert_eq!(error.reason(), "client_certificate_required", "{error}");
        assert_eq!(
            error.to_string(),
            "partner.test demands a client certificate of Partner CA and this destination has none; set \
             tls.client_certificate"
        );
    }
}

/// H1 and H2: each has its class and names what a person needs; no request byte is sent, since there is no connection.
#[tokio::test]
async fn a_wrong_server_certificate_says_what_is_wrong() {
    let (agency, other) = (
        Pair::authority("Agency CA", None),
        Pair::authority("Other CA", None),
    );
    let middle = Pair::authority("Middle CA", Some(&agency));
    let old = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let algorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
    let leaf = |alter: fn(&mut CertificateParams)| Pair::new("partner.test", Some(&agency), algorithm, alter);
    let middle_old = Pair::new("Old CA", Some(&agency), algorithm, |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        old(params);
    });
    let below_old = Pair::leaf("partner.test", &middle_old);
    let below_other_middle = Pair::authority("Other Middle", Some(&other));

    for (case, chain, reason, parts) in [
        (
            "expired",
            vec![leaf(old)],
            "certificate_expired",
            &["2020-01-01T00:00:00Z", "now is 20"][..],
        ),
        (
            "expired above",
            vec![below_old, middle_old],
            "certificate_expired",
            &[" of Old CA", "2020-01-01"],
        ),
        (
            "not yet",
            vec![leaf(|params| {
                params.not_before = rcgen::date_time_ymd(2090, 1, 1)
            })],
            "certificate_not_yet_valid",
            &["2090-01-01", "clock"],
        ),
        (
            "wrong name",
            vec![Pair::leaf("elsewhere.test", &agency)],
            "certificate_name",
            &["for elsewhere.test, not for partner.test", "tls.server_name"],
        ),
        (
            "common name only",
            vec![leaf(|params| params.subject_alt_names.clear())],
            "certificate_name",
            &["no name at all"],
        ),
        (
            "unknown issuer",
            vec![Pair::leaf("partner.test", &other)],
            "certificate_unknown_issuer",
            &["leads to Other CA", "tls.ca", "intermediate"],
        ),
        (
            "unknown root above",
            vec![
                Pair::leaf("partner.test", &below_other_middle),
                below_other_middle,
            ],
            "certificate_unknown_issuer",
            &["leads to Other CA"],
        ),
        (
            "missing intermediate",
            vec![Pair::leaf("partner.test", &middle)],
            "certificate_unknown_issuer",
            &["leads to Middle CA", "have its server send the intermediate"],
        ),
        (
            "self-signed",
            vec![Pair::new("partner.test", None, algorithm, |_| {})],
            "certificate_self_signed",
            &["self-signed certificate (partner.test)", "tls.ca"],
        ),
        (
            "authority",
            vec![leaf(|params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)
            })],
            "certificate_purpose",
            &["authority"],
        ),
        (
            "for clients",
            vec![leaf(|params| {
                params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            })],
            "certificate_purpose",
            &["serverAuth"],
        ),
        (
            "hostile name",
            vec![Pair::new("partner.test", None, algorithm, |params| {
                params
                    .distinguished_name
                    .push(DnType::CommonName, "a\r\nx: y\u{1b}[31m\u{202e}");
            })],
            "certificate_self_signed",
            &["(a??x: y?[31m?)"],
        ),
    ] {
        let settings = settings(&with_ca(), &[("CA", &agency.pem())]).unwrap();
        let server = server(&chain.iter().collect::<Vec<_>>(), None, BOTH);
        let error = refused(&settings, server, host("partner.test")).await;
        assert_eq!(
            (error.reason(), error.proxy_status()),
            (reason, "tls_certificate_error"),
            "{case}: {error}"
        );
        assert!(
            error.to_string().starts_with("partner.test shows "),
            "{case}: {error}"
        );
        for part in parts {
            assert!(error.to_string().contains(part), "{case}: {error}");
        }
    }
}

#[tokio::test]
async fn without_any_root_nobody_is_trusted() {
    let partner = Pair::leaf("partner.test", &Pair::authority("Agency CA", None));
    let settings = settings(&Tls::default(), &[]).unwrap();
    assert_eq!(settings.warnings(SystemTime::now()), [TlsWarning::NoRoots]);
    let error = refused(&settings, server(&[&partner], None, BOTH), host("partner.test")).await;
    assert_eq!(error.reason(), "certificate_unknown_issuer");
}

/// H11: whatever else answers.
#[tokio::test]
async fn what_is_not_tls_is_told_apart() {
    for (answer, reason, status) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            "not_tls",
            "tls_protocol_error",
        ),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "not_tls", "tls_protocol_error"),
        (b"\x16\x03\x03\xff\xff", "tls_protocol", "tls_protocol_error"),
        (
            b"\x16\x03\x03\x00\x04\x02\x00\x00\x01",
            "tls_closed",
            "connection_terminated",
        ),
        (b"\x15\x03\x03\x00\x02\x02\x28", "tls_alert", "tls_alert_received"),
        (b"\x15\x03\x03\x00\x02\x02\x70", "tls_alert", "tls_alert_received"),
        (b"", "tls_closed", "connection_terminated"),
    ] {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        far.write_all(answer).await.unwrap();
        // It reads nothing more and says nothing more.
        far.shutdown().await.unwrap();
        let settings = settings(&Tls::default(), &[]).unwrap();
        let limit = Duration::from_secs(10);
        let error = settings
            .connect(near, &target(host("partner.test")), Alpn::H1, limit)
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(
            (error.reason(), error.proxy_status()),
            (reason, status),
            "{answer:?}: {error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_the_limit() {
    let (near, _far) = tokio::io::duplex(64 * 1024);
    let settings = settings(&Tls::default(), &[]).unwrap();
    let limit = Duration::from_secs(5);
    let error = settings
        .connect(near, &target(host("partner.test")), Alpn::H1, limit)
        .await
        .map(drop)
        .unwrap_err();
    let told = error.to_string();
    let known = "partner.test did not finish the TLS handshake within 5s (timeouts.tls); see that it speaks TLS on this \
                 port, or raise it";
    assert!(
        told.starts_with(known) && told.contains("`tls: { groups: ["),
        "{told}"
    );
    assert_eq!(
        (error.reason(), error.proxy_status()),
        ("tls_timeout", "connection_timeout")
    );
}

/// As hyper's: TLS's error somewhere below.
#[derive(Debug, thiserror::Error)]
#[error("connection error")]
struct Wrapped(#[source] io::Error);

#[test]
fn the_cause_is_found_wherever_it_stands() {
    let settings = settings(&Tls::default(), &[]).unwrap();
    let explained = |error: &(dyn std::error::Error + 'static)| settings.explain(error, &host("h.test"));
    let required = || {
        io::Error::other(rustls::Error::AlertReceived(
            rustls::AlertDescription::CertificateRequired,
        ))
    };
    for error in [
        explained(&required()),
        explained(&Wrapped(required())),
        explained(&Wrapped(io::Error::other(Wrapped(required())))),
    ] {
        assert_eq!(error.unwrap().reason(), "client_certificate_required");
    }
    assert!(explained(&io::Error::from(io::ErrorKind::ConnectionReset)).is_none());
    assert!(explained(&Wrapped(io::Error::other("x"))).is_none());
}

#[test]
fn alerts_are_spelled_as_in_the_standards() {
    for (alert, wanted) in [
        (rustls::AlertDescription::UnknownCA, "unknown_ca"),
        (
            rustls::AlertDescription::CertificateRequired,
            "certificate_required",
        ),
        (rustls::AlertDescription::HandshakeFailure, "handshake_failure"),
    ] {
        let error = Error::Alert {
            host: "h.test".into(),
            alert,
        };
        assert!(
            error.to_string().contains(&format!("the alert {wanted}")),
            "{error}"
        );
    }
}

/// Servers differ in what they say; what they mean depends on whether they asked and what they got.
#[test]
fn an_alert_means_what_came_before_it() {
    use crate::upstream::tls::error::Before;
    use crate::upstream::tls::presenter::CertificateRequested;
    use rustls::AlertDescription as Alert;

    let none = || CertificateRequested::ButHadNone {
        accepts: String::new(),
    };
    let answered = || CertificateRequested::AndAnswered {
        accepts: String::new(),
        ours: None,
    };
    let (refused, required) = ("client_certificate_refused", "client_certificate_required");
    for (alert, asked, wanted) in [
        // OpenSSL in TLS 1.2, Go and Java, everybody in TLS 1.3
        (Alert::HandshakeFailure, none(), required),
        (Alert::BadCertificate, none(), required),
        (Alert::CertificateRequired, none(), required),
        (Alert::CertificateRequired, answered(), refused),
        (Alert::BadCertificate, answered(), refused),
        (Alert::CertificateRevoked, answered(), refused),
        (Alert::HandshakeFailure, answered(), "tls_alert"),
        (Alert::HandshakeFailure, CertificateRequested::Never, "tls_alert"),
        (Alert::BadCertificate, CertificateRequested::Never, "tls_alert"),
        (Alert::UnrecognisedName, answered(), "tls_alert"),
        (Alert::ProtocolVersion, CertificateRequested::Never, "tls_version"),
        (Alert::ProtocolVersion, answered(), "tls_version"),
    ] {
        let before = Before {
            asked: asked.clone(),
            ..Before::default()
        };
        let error = Error::of_rustls(&rustls::Error::AlertReceived(alert), "h.test", &before);
        assert_eq!(error.reason(), wanted, "{alert:?} {asked:?}");
        assert_eq!(error.alert_id(), Some(u8::from(alert)));
    }
}

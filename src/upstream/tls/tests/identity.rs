use super::*;

/// A handshake in which the server demands a certificate of `authority` and `pair` is ours, in these texts.
async fn presents(authority: &Pair, certificate: &str, key: &str) -> Vec<CertificateDer<'static>> {
    let partner = Pair::leaf("partner.test", authority);
    let variables = [("CA", &*authority.pem()), ("CERT", certificate), ("KEY", key)];
    let settings = settings(&with_certificate(), &variables).unwrap();
    let server = Arc::new(server(&[&partner], Some(authority), BOTH));
    let met = meet(&settings, &server, &target(host("partner.test")), Alpn::H1).await;
    met.client.unwrap();
    met.shown.unwrap()
}

fn load_error(certificate: &str, key: &str) -> SettingsError {
    let authority = Pair::authority("Agency CA", None).pem();
    settings(
        &with_certificate(),
        &[("CA", &authority), ("CERT", certificate), ("KEY", key)],
    )
    .unwrap_err()
}

/// Display and Debug of an error and its causes.
fn told(error: &SettingsError) -> String {
    let mut told = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        told += &format!(" {inner} {inner:?}");
        cause = inner.source();
    }
    told
}

#[tokio::test]
async fn keys_of_every_kind_and_form_are_taken() {
    let authority = Pair::authority("Agency CA", None);
    for (arguments, label) in [
        (&["-algorithm", "RSA"][..], "RSA PRIVATE KEY"),
        (
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            "EC PRIVATE KEY",
        ),
        (
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
            "EC PRIVATE KEY",
        ),
        (&["-algorithm", "ED25519"], "PRIVATE KEY"),
    ] {
        let pem = openssl(&[&["genpkey"], arguments].concat(), "");
        let app = Pair::of_key("app", Some(&authority), KeyPair::from_pem(&pem).unwrap(), |_| {});
        // OpenSSL has no older form of Ed25519.
        let traditional = match label {
            "PRIVATE KEY" => pem.clone(),
            _ => openssl(&["pkey", "-traditional"], &pem),
        };
        assert!(
            traditional.starts_with(&format!("-----BEGIN {label}-----")),
            "{label}"
        );
        let with_parameters = format!(
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{traditional}"
        );
        let explained = openssl(&["pkey", "-text"], &pem);
        for key in [
            pem,
            app.key_pem(),
            traditional.replace('\n', "\r\n"),
            traditional.replace('\n', "\\n"),
            with_parameters,
            explained,
            traditional,
        ] {
            let shown = presents(&authority, &app.pem(), &key).await;
            assert_eq!(shown, [app.certificate.der().clone()], "{label}");
        }
    }
}

/// The leaf is found by its key, its issuers follow, strangers stay at home.
#[tokio::test]
async fn the_chain_is_put_in_order() {
    let root = Pair::authority("Root", None);
    let middle = Pair::authority("Middle", Some(&root));
    let lower = Pair::authority("Lower", Some(&middle));
    let (app, stranger) = (Pair::leaf("app", &lower), Pair::authority("Stranger", None));
    let shuffled = [&root, &lower, &stranger, &app, &middle].map(Pair::pem).concat();
    let shown = presents(&root, &shuffled, &app.key_pem()).await;
    assert_eq!(
        shown,
        [&app, &lower, &middle, &root].map(|pair| pair.certificate.der().clone())
    );
}

#[test]
fn a_pair_in_one_file_is_a_pair() {
    let app = Pair::authority("app", None);
    let both = format!("{}{}", app.key_pem(), app.pem());
    settings(
        &with_certificate(),
        &[("CA", &app.pem()), ("CERT", &both), ("KEY", &both)],
    )
    .unwrap();
}

#[test]
fn what_cannot_be_an_identity_is_refused_with_the_remedy() {
    let authority = Pair::authority("Agency CA", None);
    let (app, other) = (Pair::leaf("app", &authority), Pair::leaf("other", &authority));
    let encrypted = openssl(&["pkey", "-aes-256-cbc", "-passout", "pass:x"], &app.key_pem());
    let older = openssl(&["ec", "-aes256", "-passout", "pass:x"], &app.key_pem());
    let small = openssl(&["genrsa", "-traditional", "1024"], "");
    let broken = app.pem().replace("\nMII", "\nAAA");
    for (case, certificate, key, parts) in [
        (
            "another's key",
            app.pem(),
            other.key_pem(),
            &["env:CERT", "env:KEY", "two halves"][..],
        ),
        (
            "encrypted",
            app.pem(),
            encrypted,
            &["env:KEY", "openssl pkey -in"],
        ),
        (
            "encrypted, older form",
            app.pem(),
            older,
            &["env:KEY", "openssl pkey -in"],
        ),
        ("small", app.pem(), small, &["env:KEY", "2048"]),
        (
            "swapped",
            app.key_pem(),
            app.pem(),
            &["env:CERT", "tls.client_certificate.cert", "PRIVATE KEY"],
        ),
        (
            "no key",
            app.pem(),
            app.pem(),
            &["env:KEY", "tls.client_certificate.key", "no private key"],
        ),
        ("broken", broken, app.key_pem(), &["certificate 1 of env:CERT"]),
        (
            "empty",
            String::new(),
            app.key_pem(),
            &["tls.client_certificate.cert", "env:CERT"],
        ),
    ] {
        let told = told(&load_error(&certificate, &key));
        for part in parts {
            assert!(told.contains(part), "{case}: {told}");
        }
        let secret = |line: &&str| line.len() > 40 && told.contains(*line);
        assert_eq!(
            key.lines().chain(certificate.lines()).find(secret),
            None,
            "{case}: {told}"
        );
    }
}

#[test]
fn a_ca_that_is_none_is_refused() {
    for (text, part) in [("nonsense", "blocks found: none"), ("", "not set")] {
        let told = told(&settings(&with_ca(), &[("CA", text)]).unwrap_err());
        assert!(told.contains("tls.ca") && told.contains(part), "{told}");
    }
}

/// H6: an expired certificate is used and told of: the server may be lenient, and the app keeps running.
#[test]
fn dates_and_purpose_are_warned_of() {
    let authority = Pair::authority("Agency CA", None);
    let algorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
    let app = Pair::new("app", Some(&authority), algorithm, |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    let variables = [
        ("CA", &*authority.pem()),
        ("CERT", &*app.pem()),
        ("KEY", &*app.key_pem()),
    ];
    let settings = settings(&with_certificate(), &variables).unwrap();
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let (from, since) = (at(1_577_836_800), at(1_609_459_200));
    assert_eq!(settings.not_after(), Some(since));
    assert_eq!(settings.warnings(at(1_600_000_000)), [Warning::NotForClients]);
    assert_eq!(
        settings.warnings(at(0)),
        [Warning::NotForClients, Warning::NotYetValid { from }]
    );
    assert_eq!(
        settings.warnings(SystemTime::now())[1],
        Warning::Expired { since }
    );
    assert!(Warning::Expired { since }.to_string().contains("2021-01-01"));
}

#[test]
fn debug_shows_no_key() {
    let authority = Pair::authority("Agency CA", None);
    let key = authority.key_pem();
    let variables = [
        ("CA", &*authority.pem()),
        ("CERT", &*authority.pem()),
        ("KEY", &*key),
    ];
    let settings = settings(&with_certificate(), &variables).unwrap();
    let told = format!("{settings:?} {:?} {:?}", settings.base, settings.identity);
    assert!(
        key.lines()
            .filter(|line| line.len() > 40)
            .all(|line| !told.contains(line))
    );
}

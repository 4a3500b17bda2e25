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
            &["env:KEY", "no passphrase", "openssl pkey -in"],
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

/// One pair in all the places and forms that it can come in.
#[test]
fn an_identity_comes_from_anywhere() {
    let app = Pair::authority("app", None);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = |path| path_text(path);
    std::fs::write(path("cert"), app.pem()).unwrap();
    std::fs::write(path("key"), app.key_pem()).unwrap();
    let locked = openssl(&["pkcs8", "-topk8", "-passout", "pass:sesame"], &app.key_pem());
    let both = format!("{}{}", app.key_pem(), app.pem());
    let export = [
        "pkcs12",
        "-export",
        "-passout",
        "pass:sesame",
        "-out",
        &text(path("p12")),
    ];
    openssl(&export, &both);
    let binary = std::fs::read(path("p12")).unwrap();
    // As OpenSSL leaves it, nobody else can read it.
    std::fs::write(path("copied"), &binary).unwrap();
    let base64 = data_encoding::BASE64.encode(&binary);
    let services = serde_json::json!({ "user-provided": [{
        "name": "partner", "credentials": { "p12": base64, "password": "sesame", "cert": app.pem(), "key": locked },
    }] });

    let file = |name: &str| SecretRef::File(path(name));
    let vcap = |key: &str| SecretRef::Vcap {
        service: "partner".to_owned(),
        keys: vec![key.to_owned()],
    };
    let pem = |cert, key, passphrase| ClientCertificate::Pem {
        cert,
        key,
        passphrase,
    };
    let pkcs12 = |file, password| ClientCertificate::Pkcs12 { file, password };
    let (cert, key) = (text(path("cert")), text(path("key")));
    let variables = [
        ("P12", &*base64),
        ("PASSWORD", "sesame"),
        ("LOCKED", &locked),
        ("VCAP_SERVICES", &services.to_string()),
        ("CF_INSTANCE_CERT", &cert),
        ("CF_INSTANCE_KEY", &key),
    ];
    let expected = x509_serial(&app);
    for (from, is_of_platform) in [
        (ClientCertificate::InstanceIdentity, true),
        // The same files, named one by one.
        (pem(file("cert"), file("key"), None), true),
        (pem(vcap("cert"), vcap("key"), Some(vcap("password"))), false),
        (pem(file("cert"), env("LOCKED"), Some(env("PASSWORD"))), true),
        (pkcs12(file("copied"), Some(env("PASSWORD"))), false),
        (pkcs12(env("P12"), Some(env("PASSWORD"))), false),
        (pkcs12(vcap("p12"), Some(vcap("password"))), false),
    ] {
        let tls = Tls {
            client_certificate: Some(from.clone()),
            ..Tls::default()
        };
        let settings = settings(&tls, &variables).unwrap_or_else(|error| panic!("{from}: {error:?}"));
        let life = settings.life().unwrap();
        assert_eq!(life.serial, expected, "{from}");
        assert_eq!(life.is_of_platform, is_of_platform, "{from}");
        let warnings = settings.warnings(SystemTime::now());
        let is_readable_by_all = warnings
            .iter()
            .any(|warning| matches!(warning, TlsWarning::Secret(_)));
        let is_file = matches!(
            &from,
            ClientCertificate::Pem {
                key: SecretRef::File(_),
                ..
            } | ClientCertificate::Pkcs12 {
                file: SecretRef::File(_),
                ..
            }
        );
        assert_eq!(is_readable_by_all, is_file, "{from}");
    }
}

fn path_text(path: std::path::PathBuf) -> String {
    path.into_os_string().into_string().unwrap()
}

fn x509_serial(pair: &Pair) -> String {
    let der = pair.certificate.der().clone();
    let parsed = certificate::parse(&der).unwrap();
    parsed.tbs_certificate.raw_serial_as_string()
}

#[test]
fn what_opens_no_identity_is_told_by_its_key() {
    let app = Pair::authority("app", None);
    let locked = openssl(&["pkcs8", "-topk8", "-passout", "pass:sesame"], &app.key_pem());
    let cert = app.pem();
    let variables = [("CERT", &*cert), ("LOCKED", &locked), ("WRONG", "simsim")];
    let pem = |passphrase| ClientCertificate::Pem {
        cert: env("CERT"),
        key: env("LOCKED"),
        passphrase,
    };
    let pkcs12 = |file| ClientCertificate::Pkcs12 { file, password: None };
    for (from, parts) in [
        (
            ClientCertificate::InstanceIdentity,
            &["tls.client_certificate: ", "CF_INSTANCE_CERT is not set"][..],
        ),
        (
            pem(None),
            &[
                "tls.client_certificate.key: env:LOCKED",
                "name it under `passphrase`",
            ],
        ),
        (
            pem(Some(env("WRONG"))),
            &["tls.client_certificate.key: env:LOCKED", "does not open"],
        ),
        (
            pem(Some(env("NONE"))),
            &["tls.client_certificate.passphrase: ", "env:NONE", "not set"],
        ),
        (
            pkcs12(env("CERT")),
            &["tls.client_certificate.pkcs12: env:CERT", "neither PKCS#12"],
        ),
        (
            pkcs12(env("NONE")),
            &["tls.client_certificate.pkcs12: ", "env:NONE", "not set"],
        ),
    ] {
        let tls = Tls {
            client_certificate: Some(from),
            ..Tls::default()
        };
        let told = told(&settings(&tls, &variables).unwrap_err());
        for part in parts {
            assert!(told.contains(part), "{told}");
        }
        assert!(!told.contains("simsim"), "{told}");
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
    assert_eq!(settings.life().map(|life| life.not_after), Some(since));
    assert_eq!(settings.warnings(at(1_600_000_000)), [TlsWarning::NotForClients]);
    assert_eq!(
        settings.warnings(at(0)),
        [TlsWarning::NotForClients, TlsWarning::NotYetValid { from }]
    );
    assert_eq!(
        settings.warnings(SystemTime::now())[1],
        TlsWarning::Expired { since }
    );
    assert!(TlsWarning::Expired { since }.to_string().contains("2021-01-01"));
}

/// OpenSSL's servers refuse what is warned of.
#[test]
fn a_key_that_is_not_for_clients_is_warned_of() {
    use rcgen::KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign, KeyEncipherment};

    let name = || "Agency CA".to_owned();
    let folder = tempfile::TempDir::new().unwrap();
    let root = Pair::authority("Agency Root", None);
    for (of_middle, is_authority, of_app, wanted) in [
        (&[][..], true, &[][..], None),
        (&[KeyCertSign], true, &[DigitalSignature], None),
        (&[], true, &[KeyEncipherment], Some(TlsWarning::NotForSigning)),
        (&[], true, &[CrlSign], Some(TlsWarning::NotForSigning)),
        (
            &[CrlSign],
            true,
            &[],
            Some(TlsWarning::NotIssuer { name: name() }),
        ),
        (&[], false, &[], Some(TlsWarning::NotIssuer { name: name() })),
    ] {
        let algorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
        let middle = Pair::new("Agency CA", Some(&root), algorithm, |params| {
            params.is_ca = if is_authority {
                IsCa::Ca(BasicConstraints::Unconstrained)
            } else {
                IsCa::ExplicitNoCa
            };
            params.key_usages = of_middle.to_vec();
        });
        let app = Pair::new("app", Some(&middle), algorithm, |params| {
            params.key_usages = of_app.to_vec();
        });
        let chain = format!("{}{}", app.pem(), middle.pem());
        let variables = [("CA", &*root.pem()), ("CERT", &*chain), ("KEY", &*app.key_pem())];
        let settings = settings(&with_certificate(), &variables).unwrap();
        let warnings = settings.warnings(SystemTime::now());
        assert_eq!(warnings, Vec::from_iter(wanted.clone()));

        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (trusted, shown) = (write("root.pem", &root.pem()), write("app.pem", &chain));
        let mut openssl = Command::new("openssl");
        openssl.args([
            "verify",
            "-purpose",
            "sslclient",
            "-no-CApath",
            "-no-CAstore",
            "-CAfile",
        ]);
        openssl.arg(trusted).arg("-untrusted").arg(&shown).arg(&shown);
        let verified = openssl.output().unwrap();
        assert_eq!(
            verified.status.success(),
            wanted.is_none(),
            "{wanted:?} {verified:?}"
        );
    }
}

/// Two certificates of one key, as they are there after a renewal: the one counts that is valid and ends last.
#[test]
fn of_two_certificates_the_valid_one_counts_that_ends_last() {
    let authority = Pair::authority("Agency CA", None);
    let algorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
    let first = Pair::new("app", Some(&authority), algorithm, |_| {});
    let year = |offset: i32| {
        let seconds = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        rcgen::date_time_ymd(1970 + i32::try_from(seconds / 31_556_952).unwrap() + offset, 1, 1)
    };
    let of = |from: i32, until: i32| {
        let key = KeyPair::from_pem(&first.key_pem()).unwrap();
        Pair::of_key("app", Some(&authority), key, |params| {
            (params.not_before, params.not_after) = (year(from), year(until));
            params.serial_number = Some(rcgen::SerialNumber::from(
                ((from + 20) * 100 + until + 20)
                    .unsigned_abs()
                    .to_be_bytes()
                    .to_vec(),
            ));
        })
    };
    let (expired, old, new, future) = (of(-9, -1), of(-3, 2), of(-1, 3), of(2, 9));
    for (case, written, wanted) in [
        ("the new one last", [&old, &new], &new),
        ("the new one first", [&new, &old], &new),
        ("an expired one", [&expired, &old], &old),
        ("one that is not valid yet", [&future, &old], &old),
        ("both at once", [&future, &expired], &future),
    ] {
        let text = written.map(Pair::pem).concat();
        let variables = [
            ("CA", &*authority.pem()),
            ("CERT", &*text),
            ("KEY", &*first.key_pem()),
        ];
        let settings = settings(&with_certificate(), &variables).unwrap();
        assert_eq!(settings.life().unwrap().serial, x509_serial(wanted), "{case}");
    }
    // A new one by the same name that is not the issuer, and one of the same key that has expired.
    let other = Pair::authority("Agency CA", None);
    let key = KeyPair::from_pem(&authority.key_pem()).unwrap();
    let before = Pair::of_key("Agency CA", None, key, |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (year(-9), year(-1));
    });
    let text = [&other, &before, &authority, &new].map(Pair::pem).concat();
    let variables = [
        ("CA", &*authority.pem()),
        ("CERT", &*text),
        ("KEY", &*first.key_pem()),
    ];
    let settings = settings(&with_certificate(), &variables).unwrap();
    let chain = &settings.terms.identity.as_ref().unwrap().certified.cert;
    assert_eq!(
        *chain,
        [&new, &authority].map(|pair| pair.certificate.der().clone())
    );
}

/// The public key is the same, and the handshake fails all the same.
#[test]
fn a_certificate_for_rsa_pss_alone_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pss = openssl(&["genpkey", "-algorithm", "RSA-PSS"], "");
    let path = path_text(folder.path().join("pss.pem"));
    std::fs::write(&path, &pss).unwrap();
    let certificate = openssl(&["req", "-x509", "-key", &path, "-subj", "/CN=app"], "");
    let plain = openssl(&["rsa", "-traditional"], &pss);
    let told_of_certificate = told(&load_error(&certificate, &plain));
    assert!(
        told_of_certificate
            .contains("the certificate of env:CERT is for an RSA key that is for RSA-PSS alone"),
        "{told_of_certificate}"
    );
    let told_of_key = told(&load_error(&certificate, &pss));
    assert!(
        told_of_key.contains("env:KEY is an RSA key that is for RSA-PSS alone"),
        "{told_of_key}"
    );
}

/// OpenSSL 3 refuses what is warned of; how a root is signed is nobody's matter.
#[test]
fn a_chain_that_is_signed_with_an_old_hash_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| path_text(folder.path().join(name));
    let (key, root, app) = (path("key.pem"), path("root.pem"), path("app.pem"));
    openssl(&["genpkey", "-algorithm", "RSA", "-out", &key], "");
    for (hash, wanted) in [("-md5", Some("MD5")), ("-sha1", Some("SHA-1")), ("-sha256", None)] {
        openssl(
            &[
                "req",
                "-x509",
                "-key",
                &key,
                hash,
                "-subj",
                "/CN=Agency CA",
                "-out",
                &root,
            ],
            "",
        );
        let request = openssl(&["req", "-new", "-key", &key, "-subj", "/CN=app"], "");
        let issue = [
            "x509", "-req", hash, "-CA", &root, "-CAkey", &key, "-days", "30", "-out", &app,
        ];
        openssl(&issue, &request);
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        let (chain, key) = (format!("{}{}", read(&app), read(&root)), read(&key));
        let variables = [("CA", &*read(&root)), ("CERT", &*chain), ("KEY", &*key)];
        let settings = settings(&with_certificate(), &variables).unwrap();
        let wanted = wanted.map(|hash| TlsWarning::WeakSignature {
            name: "app".to_owned(),
            hash,
        });
        assert_eq!(
            settings.warnings(SystemTime::now()),
            Vec::from_iter(wanted.clone())
        );
        let mut verify = Command::new("openssl");
        verify.args([
            "verify",
            "-auth_level",
            "2",
            "-no-CApath",
            "-no-CAstore",
            "-CAfile",
            &root,
            &app,
        ]);
        assert_eq!(
            verify.output().unwrap().status.success(),
            wanted.is_none(),
            "{hash}"
        );
    }
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
    let told = format!(
        "{settings:?} {:?} {:?}",
        settings.terms.base, settings.terms.identity
    );
    assert!(
        key.lines()
            .filter(|line| line.len() > 40)
            .all(|line| !told.contains(line))
    );
}

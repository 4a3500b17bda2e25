//! Who is admitted: passwords, certificates, both, and neither.

use std::path::Path;
use std::time::Duration;

use http::HeaderValue;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::CertificateDer;

use super::*;
use crate::config::Config;
use crate::secret::Snapshot;
use crate::telemetry::Telemetry;

mod words;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    CertifiedIssuer::self_signed(authority_params(name), KeyPair::generate().unwrap()).unwrap()
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// Signs an instance identity with these units, as Diego writes it, and returns the client that shows it. By OpenSSL: rcgen
/// writes one unit at most.
fn instance(units: &[&str], issuer: &Authority) -> Arc<Peer> {
    instance_for(units, "clientAuth,serverAuth", "/CN=instance", issuer)
}

fn instance_for(units: &[&str], purposes: &str, subject: &str, issuer: &Authority) -> Arc<Peer> {
    let (folder, units) = (tempfile::tempdir().unwrap(), units.iter());
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("ca.pem"), issuer.pem()).unwrap();
    std::fs::write(at("ca.key"), issuer.key().serialize_pem()).unwrap();
    let subject = units.fold(subject.to_owned(), |subject, unit| format!("{subject}/OU={unit}"));
    let made = std::process::Command::new("openssl")
        .current_dir(folder.path())
        .args("req -x509 -days 5 -CA ca.pem -CAkey ca.key -nodes -keyout leaf.key -out leaf.pem".split(' '))
        .args("-newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj".split(' '))
        .arg(subject)
        .args(["-addext", "basicConstraints=CA:false", "-addext"])
        .arg(format!("extendedKeyUsage={purposes}"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let leaf = pem::parse(std::fs::read(at("leaf.pem")).unwrap()).unwrap();
    let chain = [CertificateDer::from(leaf.into_contents()), issuer.der().clone()];
    Arc::new(Peer::new(&chain).unwrap())
}

/// The parameters of a client certificate with one unit at most.
fn identity(unit: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "instance");
    if let Some(unit) = unit {
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, unit);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// Signs a certificate, and returns the client that shows it with its issuer.
fn peer(params: CertificateParams, issuer: &Authority) -> Arc<Peer> {
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, issuer).unwrap();
    let chain: [CertificateDer<'_>; 2] = [leaf.der().clone(), issuer.der().clone()];
    Arc::new(Peer::new(&chain).unwrap())
}

fn build_in(folder: &Path, text: &str, variables: &[(&str, &str)], command: &CommandClient) -> Built {
    let text = text.replace("$DIR", &folder.display().to_string());
    let config = Config::parse(&text, "a.yml").unwrap_or_else(|problems| panic!("{problems}"));
    let snapshot = Snapshot::of_variables(variables.iter().copied());
    build(&config, command, &snapshot, &Telemetry::new(), None)
}

fn clients(folder: &Path, text: &str) -> Arc<Clients> {
    let built = build_in(
        folder,
        text,
        &[("PW", "sesame"), ("OTHER", "open")],
        &CommandClient::default(),
    );
    built.clients.unwrap()
}

fn who(clients: &Clients, shown: Shown<'_>) -> Result<String, ClientRefusal> {
    let client = clients.admit(shown, SystemTime::now())?;
    Ok(client.map_or_else(|| "all".to_owned(), |client| client.name.to_string()))
}

fn by(peer: &Arc<Peer>) -> Shown<'_> {
    Shown::with(None, Some(peer))
}

#[test]
fn only_the_right_password_opens() {
    let folder = tempfile::tempdir().unwrap();
    let command = CommandClient::basic("outrider", "sesame");
    let clients = build_in(folder.path(), "{}", &[], &command).clients.unwrap();
    for (shown, is_right) in [
        (&["Basic b3V0cmlkZXI6c2VzYW1l"][..], true),
        (&["basic  b3V0cmlkZXI6c2VzYW1l "], true),
        (&[], false),
        (&[""], false),
        (&["Basic"], false),
        (&["Basic "], false),
        (&["Basic b3V0cmlkZXI6c2VzYW1"], false),
        (&["Basic b3V0cmlkZXI6c2VzYW1lMg=="], false),
        (&["Basic B3V0cmlkZXI6c2VzYW1l"], false),
        (&["Bearer b3V0cmlkZXI6c2VzYW1l"], false),
        (&["b3V0cmlkZXI6c2VzYW1l"], false),
        (
            &["Basic b3V0cmlkZXI6c2VzYW1l", "Basic b3V0cmlkZXI6c2VzYW1l"],
            false,
        ),
    ] {
        let mut fields = Fields::new();
        for value in shown {
            fields.append(PROXY_AUTHORIZATION, HeaderValue::from_static(value));
        }
        let admitted = Shown::of(&fields, None).is_some_and(|shown| who(&clients, shown).is_ok());
        assert_eq!(admitted, is_right, "{shown:?}");
    }
    assert_eq!(who(&clients, Shown::default()), Err(ClientRefusal::Command));
    assert!(!format!("{command:?} {clients:?}").contains("sesame"));
    let nobody = build_in(folder.path(), "{}", &[], &CommandClient::default());
    assert!(nobody.clients.is_none() && nobody.failed.is_empty());
}

/// The name of a client is its user name; what SOCKS5 sends counts the same.
#[test]
fn each_client_has_its_own_password() {
    let folder = tempfile::tempdir().unwrap();
    let clients = clients(
        folder.path(),
        "clients: { a: { basic: env:PW }, b: { basic: env:OTHER } }",
    );
    let right = |user: &str, password: &str| {
        let token = basic_token(user.as_bytes(), password.as_bytes());
        token.is_some_and(|token| {
            who(&clients, Shown::with(Some(token.as_bytes()), None)).as_deref() == Ok(user)
        })
    };
    assert!(right("a", "sesame") && right("b", "open"));
    for (user, password) in [
        ("a", "open"),
        ("b", "sesame"),
        ("A", "sesame"),
        ("", "sesame"),
        ("a", ""),
        ("a", "sesame\n"),
        ("a", "sesam"),
        ("c", "sesame"),
        ("a:", "sesame"),
    ] {
        assert!(!right(user, password), "{user}:{password}");
    }
    assert_eq!(basic_token(b"a:ses", b"ame"), None);
    let nothing = who(&clients, Shown::default()).unwrap_err();
    assert_eq!(
        nothing,
        ClientRefusal::Nothing {
            or_certificate: false
        }
    );
    assert!(
        nothing
            .to_string()
            .contains("no user name and password came; write"),
        "{nothing}"
    );
    let long = "x".repeat(5000);
    let fields = Fields::from_iter([(
        PROXY_AUTHORIZATION,
        HeaderValue::from_str(&format!("Basic {long}")).unwrap(),
    )]);
    assert!(Shown::of(&fields, None).is_none());
}

/// A secret that cannot be read makes a client that nobody is, not a listener that serves everybody.
#[test]
fn what_cannot_be_read_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("empty"), "\n").unwrap();
    for text in [
        "clients: { a: { basic: env:MISSING } }",
        "clients: { a: { basic: env:EMPTY } }",
        "clients: { a: { basic: file:$DIR/empty } }",
        "clients: { a: { app_guid: 0b3f9a52-53c4-4f0e-8a6e-5d7c2e9f1a30 } }",
        "clients: { a: { certificate: CN=x, ca: file:$DIR/none.pem } }",
        "clients: { a: { certificate: CN=x, ca: file:$DIR/empty } }",
    ] {
        let built = build_in(folder.path(), text, &[("EMPTY", "")], &CommandClient::default());
        let clients = built.clients.unwrap();
        assert!(!built.failed.is_empty() && !clients.is_whole(), "{text}");
        assert!(clients.asks() && clients.tls().is_none(), "{text}");
        assert!(who(&clients, Shown::default()).is_err(), "{text}");
        let token = basic_token(b"a", b"").unwrap();
        assert!(
            who(&clients, Shown::with(Some(token.as_bytes()), None)).is_err(),
            "{text}"
        );
        if text.contains("basic") {
            // Nothing sends the client for a certificate, or to `outrider exec`.
            let shown = Shown::with(Some(token.as_bytes()), None);
            let told = (who(&clients, Shown::default()), who(&clients, shown));
            assert!(
                matches!(
                    told,
                    (
                        Err(ClientRefusal::Nothing {
                            or_certificate: false
                        }),
                        Err(ClientRefusal::WrongPassword { .. })
                    )
                ),
                "{text} {told:?}"
            );
        }
    }
}

/// The right GUIDs, from the right authority, once each.
#[test]
fn an_instance_identity_is_known_by_its_guids() {
    let folder = tempfile::tempdir().unwrap();
    let platform = authority("instanceIdentityCA");
    let other = authority("instanceIdentityCA");
    std::fs::write(folder.path().join("ca.pem"), platform.pem()).unwrap();
    let clients = clients(
        folder.path(),
        "clients:\n  space: { space_guid: 1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55, ca: file:$DIR/ca.pem }\n  app: { app_guid: 7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c, ca: file:$DIR/ca.pem }\n  \
         both: { app_guid: b07b9a52-53c4-4f0e-8a6e-5d7c2e9f1a30, space_guid: 2f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55, ca: file:$DIR/ca.pem }\n  org: { organization_guid: 3f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55, ca: \
         file:$DIR/ca.pem }\n",
    );
    let known = |units: &[&str], issuer| who(&clients, by(&instance(units, issuer)));
    for (units, expected) in [
        (
            &[
                "organization:3f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55",
                "space:1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55",
                "app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c",
            ][..],
            "app",
        ),
        (&["app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c"], "app"),
        (
            &[
                "space:1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55",
                "app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1cd",
            ],
            "space",
        ),
        (
            &[
                "organization:3f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55",
                "space:9f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55",
                "app:0b3f9a52-53c4-4f0e-8a6e-5d7c2e9f1a30",
            ],
            "org",
        ),
        (
            &[
                "space:2f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55",
                "app:b07b9a52-53c4-4f0e-8a6e-5d7c2e9f1a30",
            ],
            "both",
        ),
    ] {
        assert_eq!(known(units, &platform).as_deref(), Ok(expected), "{units:?}");
    }
    for units in [
        &["app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1cd"][..],
        &["app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1"],
        &["app:7C1D9D5C-7A0A-4A4E-9D0B-0F6F6D4A2B1C"],
        &["APP:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c"],
        &["app: 7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c"],
        &["xapp:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c"],
        &["app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c", "app:other"],
        &["app:other", "app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c"],
        &["space:1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e551"],
        &["app:1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55"],
        &["app:b07b9a52-53c4-4f0e-8a6e-5d7c2e9f1a30"],
        &["7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c"],
        &["app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c,app:1"],
        &[],
    ] {
        assert!(
            matches!(known(units, &platform), Err(ClientRefusal::Unknown { .. })),
            "{units:?}"
        );
    }
    // Another authority of the same name.
    assert!(known(&["app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c"], &other).is_err());
    // The names are those of the certificate's own subject.
    let mut params = identity(None);
    params
        .distinguished_name
        .push(DnType::CommonName, "app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c");
    params.subject_alt_names = vec![rcgen::SanType::DnsName(
        "app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c".try_into().unwrap(),
    )];
    assert!(who(&clients, by(&peer(params, &platform))).is_err());
}

/// An authority vouches for its own clients only.
#[test]
fn a_certificate_counts_under_the_authority_of_its_client() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (authority("one"), authority("two"));
    std::fs::write(folder.path().join("one.pem"), one.pem()).unwrap();
    std::fs::write(folder.path().join("two.pem"), two.pem()).unwrap();
    let clients = clients(
        folder.path(),
        "clients:\n  app: { app_guid: 7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c, ca: file:$DIR/one.pem }\n  partner: { certificate: [CN=partner, O=Agency], ca: \
         file:$DIR/two.pem }\n  named: { certificate: DNS=App.Example.com, ca: file:$DIR/two.pem }\n",
    );
    assert!(
        who(
            &clients,
            by(&peer(
                identity(Some("app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c")),
                &one
            ))
        )
        .is_ok()
    );
    assert!(
        who(
            &clients,
            by(&peer(
                identity(Some("app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c")),
                &two
            ))
        )
        .is_err()
    );
    let partner = |organization: &str, issuer| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "partner");
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
        who(&clients, by(&peer(params, issuer)))
    };
    assert_eq!(partner("Agency", &two).as_deref(), Ok("partner"));
    assert!(partner("agency", &two).is_err() && partner("Agency", &one).is_err());
    let named = CertificateParams::new(["app.EXAMPLE.com".to_owned()]).unwrap();
    assert_eq!(who(&clients, by(&peer(named, &two))).as_deref(), Ok("named"));
    let wild = CertificateParams::new(["*.example.com".to_owned()]).unwrap();
    assert!(who(&clients, by(&peer(wild, &two))).is_err());
}

#[test]
fn a_certificate_is_good_for_its_time_and_purpose_only() {
    let folder = tempfile::tempdir().unwrap();
    let platform = authority("ca");
    std::fs::write(folder.path().join("ca.pem"), platform.pem()).unwrap();
    let clients = clients(
        folder.path(),
        "clients: { app: { app_guid: 7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c, ca: file:$DIR/ca.pem } }",
    );
    let mut params = identity(Some("app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c"));
    params.not_after = rcgen::date_time_ymd(2035, 1, 1);
    let peer_until_2035 = peer(params.clone(), &platform);
    let at = |years: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(years * 31_556_952);
    assert!(clients.admit(by(&peer_until_2035), at(64)).is_ok());
    assert!(matches!(
        clients.admit(by(&peer_until_2035), at(66)),
        Err(ClientRefusal::Ended { .. })
    ));
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    assert!(who(&clients, by(&peer(params, &platform))).is_err());
    let mut server = identity(Some("app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c"));
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert!(who(&clients, by(&peer(server, &platform))).is_err());
}

/// A self-signed certificate may be named as its own authority. It vouches for itself then, and for nobody else.
#[test]
fn a_certificate_that_is_its_own_authority_issues_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut params = identity(Some("app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c"));
    params.is_ca = IsCa::ExplicitNoCa;
    let own = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.path().join("ca.pem"), own.pem()).unwrap();
    let clients = clients(
        folder.path(),
        "clients: { app: { app_guid: 7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c, ca: file:$DIR/ca.pem } }",
    );
    let itself = Arc::new(Peer::new(&[own.der().clone()]).unwrap());
    assert_eq!(who(&clients, by(&itself)).as_deref(), Ok("app"));
    assert!(
        who(
            &clients,
            by(&peer(
                identity(Some("app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c")),
                &own
            ))
        )
        .is_err()
    );
}

/// As `openssl req -x509` makes them: its own authority, and one that may issue others.
#[test]
fn a_self_signed_certificate_is_trusted_itself_for_its_time_and_purpose() {
    let folder = tempfile::tempdir().unwrap();
    let self_signed = |until: i32, purpose: ExtendedKeyUsagePurpose| {
        let mut params = identity(Some("app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.extended_key_usages = vec![purpose];
        let own = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.path().join("ca.pem"), own.pem()).unwrap();
        let clients = clients(
            folder.path(),
            "clients: { app: { app_guid: 7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c, ca: file:$DIR/ca.pem } }",
        );
        who(&clients, by(&Arc::new(Peer::new(&[own.der().clone()]).unwrap()))).is_ok()
    };
    assert!(self_signed(2040, ExtendedKeyUsagePurpose::ClientAuth));
    assert!(!self_signed(2020, ExtendedKeyUsagePurpose::ClientAuth));
    assert!(!self_signed(2040, ExtendedKeyUsagePurpose::ServerAuth));
}

/// Where a client has both, both are asked for; and a wrong password is never made up for.
#[test]
fn a_password_beside_a_certificate_is_judged_strictly() {
    let folder = tempfile::tempdir().unwrap();
    let platform = authority("ca");
    std::fs::write(folder.path().join("ca.pem"), platform.pem()).unwrap();
    let clients = clients(
        folder.path(),
        "clients:\n  both: { basic: env:PW, app_guid: 7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c, ca: file:$DIR/ca.pem }\n  app: { app_guid: 0b3f9a52-53c4-4f0e-8a6e-5d7c2e9f1a30, ca: \
         file:$DIR/ca.pem }\n  word: { basic: env:OTHER }\n",
    );
    let (abc, xyz) = (
        peer(
            identity(Some("app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c")),
            &platform,
        ),
        peer(
            identity(Some("app:0b3f9a52-53c4-4f0e-8a6e-5d7c2e9f1a30")),
            &platform,
        ),
    );
    let both = basic_token(b"both", b"sesame").unwrap();
    let word = basic_token(b"word", b"open").unwrap();
    let wrong = basic_token(b"word", b"shut").unwrap();
    let with = |token: &Zeroizing<String>, peer| who(&clients, Shown::with(Some(token.as_bytes()), peer));
    assert_eq!(with(&both, Some(&abc)).as_deref(), Ok("both"));
    assert!(matches!(
        with(&both, Some(&xyz)),
        Err(ClientRefusal::HalfShown { .. })
    ));
    assert!(matches!(with(&both, None), Err(ClientRefusal::HalfShown { .. })));
    let missing = who(&clients, by(&abc)).unwrap_err().to_string();
    assert!(
        missing.contains("client both has to show its password"),
        "{missing}"
    );
    assert_eq!(who(&clients, by(&xyz)).as_deref(), Ok("app"));
    assert_eq!(with(&word, Some(&xyz)).as_deref(), Ok("word"));
    let stranger = peer(identity(Some("app:other")), &platform);
    let unknown = who(&clients, by(&stranger)).unwrap_err();
    assert!(
        unknown.to_string().contains("of app:other is that of no client"),
        "{unknown}"
    );
    assert_eq!(
        unknown.status(),
        StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        "a password would do"
    );
    let nothing = who(&clients, Shown::default()).unwrap_err().to_string();
    assert!(nothing.contains("and no client certificate"), "{nothing}");

    // The answer does not tell which names there are; the log names a client, and never another text.
    let nobody = basic_token(b"sneaky", b"shut").unwrap();
    let wrong_password = with(&wrong, Some(&xyz)).unwrap_err();
    let wrong_user = with(&nobody, None).unwrap_err();
    assert_eq!(wrong_password.to_string(), wrong_user.to_string());
    assert_eq!(
        wrong_password.log_note().unwrap(),
        "the user name is that of client word"
    );
    assert_eq!(
        wrong_user.log_note().unwrap(),
        "the user name is that of no client"
    );
    for odd in [&b""[..], b"!!", b"d29yZA=="] {
        let refusal = who(&clients, Shown::with(Some(odd), None)).unwrap_err();
        assert_eq!(refusal, ClientRefusal::WrongPassword { named: None });
    }
    let told = format!("{wrong_password:?} {wrong_user:?} {wrong_user}");
    assert!(!told.contains("shut") && !told.contains("sneaky"), "{told}");
}

/// A reload makes other clients: what was found for the old ones does not count.
#[test]
fn a_kept_connection_is_looked_up_again_after_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let (platform, new) = (authority("ca"), authority("ca"));
    std::fs::write(folder.path().join("ca.pem"), platform.pem()).unwrap();
    let text = "clients: { app: { app_guid: 7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c, ca: file:$DIR/ca.pem } }";
    let peer = peer(
        identity(Some("app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c")),
        &platform,
    );
    assert!(who(&clients(folder.path(), text), by(&peer)).is_ok());
    let other = text.replace(
        "7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c",
        "0b3f9a52-53c4-4f0e-8a6e-5d7c2e9f1a30",
    );
    assert!(who(&clients(folder.path(), &other), by(&peer)).is_err());
    assert!(who(&clients(folder.path(), text), by(&peer)).is_ok());
    std::fs::write(folder.path().join("ca.pem"), new.pem()).unwrap();
    assert!(who(&clients(folder.path(), text), by(&peer)).is_err());
}

/// The authority of our own identity counts, its root in the platform's folder too; others in that folder do not.
#[test]
fn the_platform_vouches_by_the_issuer_of_our_own_identity() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("system")).unwrap();
    let (root, foreign) = (authority("root"), authority("another root"));
    std::fs::write(at("system/root.crt"), root.pem()).unwrap();
    std::fs::write(at("system/foreign.crt"), foreign.pem()).unwrap();
    std::fs::write(at("system/broken.crt"), "no certificate").unwrap();
    let below = |name: &str, root: &Authority| {
        CertifiedIssuer::signed_by(authority_params(name), KeyPair::generate().unwrap(), root).unwrap()
    };
    let issuer = below("instanceIdentityCA", &root);
    let renewed = below("instanceIdentityCA", &root);
    let sibling = below("otherCA", &root);
    let stranger = below("instanceIdentityCA", &foreign);
    let key = KeyPair::generate().unwrap();
    let own = identity(Some("app:own")).signed_by(&key, &issuer).unwrap();
    std::fs::write(at("instance.crt"), own.pem() + &issuer.pem()).unwrap();
    std::fs::write(at("instance.key"), key.serialize_pem()).unwrap();
    let variables = ["instance.crt", "instance.key", "system"].map(|name| at(name).display().to_string());
    let [cert, key, system] = &variables;
    let variables = [
        ("CF_INSTANCE_CERT", &**cert),
        ("CF_INSTANCE_KEY", key),
        ("CF_SYSTEM_CERT_PATH", system),
    ];
    let text = "clients: { app: { app_guid: 7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c } }";
    let built = build_in(folder.path(), text, &variables, &CommandClient::default());
    assert!(built.failed.is_empty(), "{:?}", built.failed);
    let clients = built.clients.unwrap();
    assert!(clients.tls().is_some() && clients.life().is_some());
    let known = |issuer: &Authority| {
        who(
            &clients,
            by(&peer(
                identity(Some("app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c")),
                issuer,
            )),
        )
        .is_ok()
    };
    assert!(known(&issuer) && known(&renewed));
    assert!(!known(&root) && !known(&sibling) && !known(&foreign) && !known(&stranger));
}

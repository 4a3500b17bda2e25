//! Handshakes against servers in this process, over pipes in memory.

use std::process::{Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SignatureAlgorithm};
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::TlsAcceptor;

use super::presenter::CertificateRequested;
use super::*;
use crate::config::ClientCertificate;
use crate::host::Scheme;

mod damaged;
mod errors;
mod identity;
mod late;
mod named;
mod policies;
mod trust;

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];
const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// A certificate, its key, and what it can issue.
struct Pair {
    certificate: rcgen::Certificate,
    key: KeyPair,
    params: CertificateParams,
}

impl Pair {
    /// Issued by `issuer`, else by itself; `alter` has the last word.
    fn new(
        name: &str,
        issuer: Option<&Self>,
        algorithm: &'static SignatureAlgorithm,
        alter: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        Self::of_key(name, issuer, KeyPair::generate_for(algorithm).unwrap(), alter)
    }

    fn of_key(
        name: &str,
        issuer: Option<&Self>,
        key: KeyPair,
        alter: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        alter(&mut params);
        let certificate = match issuer {
            None => params.self_signed(&key),
            Some(issuer) => params.signed_by(&key, &Issuer::from_params(&issuer.params, &issuer.key)),
        };
        Self {
            certificate: certificate.unwrap(),
            key,
            params,
        }
    }

    fn authority(name: &str, issuer: Option<&Self>) -> Self {
        Self::new(name, issuer, &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        })
    }

    fn leaf(name: &str, issuer: &Self) -> Self {
        Self::new(name, Some(issuer), &rcgen::PKCS_ECDSA_P256_SHA256, |_| {})
    }

    fn pem(&self) -> String {
        self.certificate.pem()
    }

    fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

/// `openssl ARGUMENTS` with `input`.
fn openssl(arguments: &[&str], input: &str) -> String {
    use std::io::Write;

    let mut child = (Command::new("openssl").args(arguments))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn env(name: &str) -> SecretRef {
    SecretRef::Env(name.to_owned())
}

fn with_ca() -> Tls {
    Tls {
        ca: Some(env("CA")),
        ..Tls::default()
    }
}

fn with_certificate() -> Tls {
    Tls {
        client_certificate: Some(ClientCertificate::Pem {
            cert: env("CERT"),
            key: env("KEY"),
            passphrase: None,
        }),
        ..with_ca()
    }
}

/// Settings of what the variables hold, on a system without roots.
fn settings(tls: &Tls, variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let mut variables = variables.to_vec();
    variables.push(("SSL_CERT_FILE", "/nonexistent/roots.pem"));
    let snapshot = Snapshot::of_variables(variables);
    let roots = SystemRoots::new(&snapshot, std::path::Path::new("/nonexistent/bundle.pem"));
    Settings::of(tls, &snapshot, &roots)
}

fn host(text: &str) -> Host {
    Host::parse(text).unwrap()
}

fn target(host: Host) -> Target {
    Target {
        scheme: Scheme::Https,
        host,
        port: 443,
    }
}

/// A server with `pair`, which demands clients of `clients` where that is given.
fn server(
    chain: &[&Pair],
    clients: Option<&Pair>,
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let verifier = clients.map(|authority| {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.der().clone()).unwrap();
        WebPkiClientVerifier::builder_with_provider(roots.into(), provider().clone())
            .build()
            .unwrap()
    });
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(chain[0].key.serialize_der());
    ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(verifier.unwrap_or_else(|| Arc::new(NoClientAuth)))
        .with_single_cert(
            chain.iter().map(|pair| pair.certificate.der().clone()).collect(),
            key.into(),
        )
        .unwrap()
}

/// One connection: the handshake and one byte from the server.
struct Met {
    client: Result<Session<DuplexStream>, Error>,
    /// The certificates that the server was shown.
    shown: Option<Vec<CertificateDer<'static>>>,
}

async fn meet(settings: &Settings, server: &Arc<ServerConfig>, target: &Target, alpn: Alpn) -> Met {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let accept = async {
        let mut stream = TlsAcceptor::from(server.clone()).accept(far).await.ok()?;
        stream.write_all(b"x").await.ok()?;
        stream.flush().await.ok()?;
        let shown = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec);
        Some((shown, stream))
    };
    let call = async {
        let Secured { mut stream, .. } = settings
            .connect(near, target, alpn, Duration::from_secs(10))
            .await?;
        match stream.read_u8().await {
            Ok(_) => Ok(stream),
            Err(error) => Err(settings.explain(&error, &target.host).expect("an error of TLS")),
        }
    };
    let (served, client) = tokio::join!(accept, call);
    Met {
        client,
        shown: served.and_then(|(shown, _)| shown),
    }
}

/// The error of a connection that must fail.
async fn refused(settings: &Settings, server: ServerConfig, host: Host) -> Error {
    match meet(settings, &Arc::new(server), &target(host), Alpn::H1)
        .await
        .client
    {
        Ok(_) => panic!("the connection was made"),
        Err(error) => error,
    }
}

#[test]
fn the_hybrid_key_exchange_comes_first() {
    assert_eq!(provider().kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
}

/// What is built for FIPS 140-3 offers nothing else; what is not does not pretend.
#[test]
fn a_build_for_fips_offers_what_is_approved_and_no_more() {
    let settings = settings(&Tls::default(), &[]).unwrap();
    assert_eq!(settings.terms.base.fips(), cfg!(feature = "fips"));
    assert_eq!(settings.terms.base.require_ems, cfg!(feature = "fips"));
    let groups = provider().kx_groups.iter().map(|group| group.name());
    let has_x25519 = groups.clone().any(|group| group == rustls::NamedGroup::X25519);
    let suites = provider().cipher_suites.iter().map(|suite| format!("{suite:?}"));
    let has_chacha = suites.clone().any(|suite| suite.contains("CHACHA20"));
    assert_eq!([has_x25519, has_chacha], [cfg!(not(feature = "fips")); 2]);
    assert!(suites.count() >= 6 && groups.count() >= 3);
}

#[test]
fn there_is_no_early_data_no_key_log_and_no_store_to_share() {
    let settings = settings(&Tls::default(), &[]).unwrap();
    assert!(!settings.terms.base.enable_early_data && !settings.terms.base.enable_secret_extraction);
    assert_eq!(format!("{:?}", settings.terms.base.key_log), "NoKeyLog");
    let config = |host_name, port, alpn| {
        let target = Target {
            scheme: Scheme::Https,
            host: host(host_name),
            port,
        };
        settings.config(&target, alpn, SystemTime::now()).config
    };
    let first = config("a.test", 443, Alpn::H1);
    assert!(Arc::ptr_eq(&first, &config("a.test", 443, Alpn::H1)));
    assert!(!Arc::ptr_eq(&first, &config("a.test", 8443, Alpn::H1)));
    assert!(!Arc::ptr_eq(&first, &config("a.test", 443, Alpn::H2)));
    assert!(!Arc::ptr_eq(&first, &config("b.test", 443, Alpn::H1)));
}

#[test]
fn a_flood_of_names_takes_no_memory() {
    let settings = settings(&Tls::default(), &[]).unwrap();
    for i in 0..3 * ORIGINS {
        let target = target(host(&format!("h{i}.test")));
        settings.config(&target, Alpn::H1, SystemTime::now());
    }
    assert!(settings.configs.lock().unwrap().len() <= ORIGINS);
}

#[tokio::test]
async fn both_versions_carry_our_certificate() {
    let authority = Pair::authority("Agency CA", None);
    let (partner, app) = (
        Pair::leaf("partner.test", &authority),
        Pair::leaf("app", &authority),
    );
    let variables = [
        ("CA", &*authority.pem()),
        ("CERT", &*app.pem()),
        ("KEY", &*app.key_pem()),
    ];
    let settings = settings(&with_certificate(), &variables).unwrap();
    for versions in [TLS12, TLS13] {
        let server = Arc::new(server(&[&partner], Some(&authority), versions));
        let met = meet(&settings, &server, &target(host("partner.test")), Alpn::Either).await;
        assert_eq!(
            met.client.unwrap().connection().protocol_version(),
            Some(versions[0].version)
        );
        assert_eq!(met.shown.unwrap(), [app.certificate.der().clone()]);
    }
}

/// F11: a session made for one identity, port or ALPN never resumes for another.
#[tokio::test]
async fn sessions_resume_within_one_identity_and_origin_only() {
    let authority = Pair::authority("Agency CA", None);
    let partner = Pair::leaf("partner.test", &authority);
    let identity = |name: &str| {
        let app = Pair::leaf(name, &authority);
        let variables = [
            ("CA", &*authority.pem()),
            ("CERT", &*app.pem()),
            ("KEY", &*app.key_pem()),
        ];
        settings(&with_certificate(), &variables).unwrap()
    };
    let (one, other) = (identity("one"), identity("other"));
    let at = |port| Target {
        scheme: Scheme::Https,
        host: host("partner.test"),
        port,
    };
    for versions in [TLS12, TLS13] {
        let mut server = server(&[&partner], Some(&authority), versions);
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let server = Arc::new(server);
        for (settings, port, alpn, wanted) in [
            (&one, 443, Alpn::H1, HandshakeKind::Full),
            (&one, 443, Alpn::H1, HandshakeKind::Resumed),
            (&one, 8443, Alpn::H1, HandshakeKind::Full),
            (&one, 443, Alpn::Either, HandshakeKind::Full),
            (&one, 443, Alpn::H2, HandshakeKind::Full),
            (&other, 443, Alpn::H1, HandshakeKind::Full),
            (&other, 443, Alpn::H1, HandshakeKind::Resumed),
            (&one, 443, Alpn::H1, HandshakeKind::Resumed),
        ] {
            let met = meet(settings, &server, &at(port), alpn).await;
            let kind = met.client.unwrap().connection().handshake_kind().unwrap();
            let context = format!("{:?} {port} {alpn:?}", versions[0]);
            // TLS 1.3 with a hybrid first share may need a second hello; that is a full handshake, too.
            assert_eq!(
                kind == HandshakeKind::Resumed,
                wanted == HandshakeKind::Resumed,
                "{context}"
            );
        }
        one.configs.lock().unwrap().clear();
        other.configs.lock().unwrap().clear();
    }
}

#[tokio::test]
async fn alpn_is_what_was_asked_for() {
    let authority = Pair::authority("Agency CA", None);
    let partner = Pair::leaf("partner.test", &authority);
    let settings = settings(&with_ca(), &[("CA", &authority.pem())]).unwrap();
    for (offered, spoken, wanted) in [
        (Alpn::H1, &["h2", "http/1.1"][..], Ok(Some("http/1.1"))),
        (Alpn::H2, &["h2", "http/1.1"], Ok(Some("h2"))),
        (Alpn::Either, &["h2", "http/1.1"], Ok(Some("h2"))),
        (Alpn::Either, &["http/1.1"], Ok(Some("http/1.1"))),
        (Alpn::Either, &[], Ok(None)),
        (Alpn::H1, &[], Ok(None)),
        (Alpn::H2, &[], Err("tls_no_http2")),
        (Alpn::H2, &["http/1.1"], Err("tls_alert")),
    ] {
        let mut server = server(&[&partner], None, BOTH);
        server.alpn_protocols = spoken.iter().map(|name| name.as_bytes().to_vec()).collect();
        let met = meet(
            &settings,
            &Arc::new(server),
            &target(host("partner.test")),
            offered,
        )
        .await;
        let chosen = met.client.map_err(|error| error.reason()).map(|stream| {
            let chosen = stream.connection().alpn_protocol();
            chosen.map(|name| String::from_utf8(name.to_vec()).unwrap())
        });
        assert_eq!(
            chosen,
            wanted.map(|name| name.map(str::to_owned)),
            "{offered:?} {spoken:?}"
        );
    }
}

#[tokio::test]
async fn addresses_are_verified_as_addresses() {
    let authority = Pair::authority("Agency CA", None);
    let settings = settings(&with_ca(), &[("CA", &authority.pem())]).unwrap();
    for (name, asked, good) in [
        ("192.0.2.7", "192.0.2.7", true),
        ("192.0.2.7", "192.0.2.8", false),
        ("2001:db8::7", "[2001:db8::7]", true),
        ("partner.test", "192.0.2.7", false),
    ] {
        let partner = Pair::leaf(name, &authority);
        let server = Arc::new(server(&[&partner], None, BOTH));
        let met = meet(&settings, &server, &target(host(asked)), Alpn::H1).await;
        assert_eq!(met.client.is_ok(), good, "{name} {asked}");
    }
}

#[tokio::test]
async fn the_server_name_is_what_the_configuration_says() {
    let authority = Pair::authority("Agency CA", None);
    let partner = Pair::leaf("partner.test", &authority);
    let tls = Tls {
        server_name: Some(host("partner.test")),
        ..with_ca()
    };
    let settings = settings(&tls, &[("CA", &authority.pem())]).unwrap();
    let server = Arc::new(server(&[&partner], None, BOTH));
    let met = meet(&settings, &server, &target(host("192.0.2.7")), Alpn::H1).await;
    assert!(met.client.is_ok());
    assert_eq!(
        settings.server_name(&host("other.test")),
        ServerName::try_from("partner.test").unwrap()
    );
}

#[tokio::test]
async fn ca_replaces_the_systems_roots_and_ca_extra_stands_beside_them() {
    let folder = tempfile::TempDir::new().unwrap();
    let (system, agency) = (
        Pair::authority("System CA", None),
        Pair::authority("Agency CA", None),
    );
    let file = folder.path().join("roots.pem");
    std::fs::write(&file, system.pem()).unwrap();
    let variables = [("SSL_CERT_FILE", file.to_str().unwrap()), ("CA", &agency.pem())];
    let snapshot = Snapshot::of_variables(variables);
    let roots = SystemRoots::new(&snapshot, &folder.path().join("bundle.pem"));
    let extra = Tls {
        ca_extra: Some(env("CA")),
        ..Tls::default()
    };
    for (tls, of_system, of_agency) in [
        (Tls::default(), true, false),
        (with_ca(), false, true),
        (extra, true, true),
    ] {
        let settings = Settings::of(&tls, &snapshot, &roots).unwrap();
        for (authority, good) in [(&system, of_system), (&agency, of_agency)] {
            let server = Arc::new(server(&[&Pair::leaf("partner.test", authority)], None, BOTH));
            let met = meet(&settings, &server, &target(host("partner.test")), Alpn::H1).await;
            assert_eq!(met.client.is_ok(), good, "{tls:?}");
        }
    }
    assert_eq!(
        roots.anchors().roots().len(),
        1,
        "the shared roots stay as they were"
    );
}

#[tokio::test]
async fn the_lowest_version_holds() {
    let authority = Pair::authority("Agency CA", None);
    let partner = Pair::leaf("partner.test", &authority);
    let tls = Tls {
        min_version: TlsVersion::V1_3,
        ..with_ca()
    };
    let settings = settings(&tls, &[("CA", &authority.pem())]).unwrap();
    let error = refused(&settings, server(&[&partner], None, TLS12), host("partner.test")).await;
    assert!(
        matches!(error.proxy_status(), "tls_alert_received" | "tls_protocol_error"),
        "{error}"
    );
}

/// Of a self-signed certificate named in `tls.ca` only the name and the dates are checked.
#[tokio::test]
async fn a_named_certificate_is_checked_by_name_and_dates() {
    let algorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
    type Alter = fn(&mut CertificateParams);
    let kinds: [(&str, Alter); 2] = [
        ("end entity", |_| {}),
        ("authority", |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)
        }),
    ];
    let issued = Pair::leaf("partner.test", &Pair::authority("Nobody's CA", None));
    let named = kinds.map(|(kind, alter)| (kind, Pair::new("partner.test", None, algorithm, alter)));
    let impostor = Pair::new("partner.test", None, algorithm, kinds[1].1);
    for (kind, partner) in named
        .iter()
        .map(|(kind, pair)| (*kind, pair))
        .chain([("issued", &issued)])
    {
        let settings = settings(&with_ca(), &[("CA", &partner.pem())]).unwrap();
        let server_of = |pair| Arc::new(server(&[pair], None, BOTH));
        let met = meet(
            &settings,
            &server_of(partner),
            &target(host("partner.test")),
            Alpn::H1,
        )
        .await;
        assert!(met.client.is_ok(), "{kind}: {:?}", met.client.err());
        let met = meet(
            &settings,
            &server_of(partner),
            &target(host("other.test")),
            Alpn::H1,
        )
        .await;
        assert_eq!(met.client.unwrap_err().reason(), "certificate_name", "{kind}");
        let met = meet(
            &settings,
            &server_of(&impostor),
            &target(host("partner.test")),
            Alpn::H1,
        )
        .await;
        assert!(
            met.client.is_err(),
            "{kind}: another certificate of the same name"
        );
    }

    let expired = Pair::new("partner.test", None, algorithm, |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let settings = settings(&with_ca(), &[("CA", &expired.pem())]).unwrap();
    let error = refused(&settings, server(&[&expired], None, BOTH), host("partner.test")).await;
    assert_eq!(error.reason(), "certificate_expired", "{error}");
}

/// A server of `tcp` that closes or says something else may want to be asked for TLS; no advice is about HTTP servers.
#[test]
fn an_entry_of_tcp_without_starttls_is_told_of_it() {
    let hint = |asked: CertificateRequested| {
        error::closing_hint(&error::Before {
            asked,
            is_long: true,
            versions: TlsVersion::V1_2,
        })
    };
    let closed = |hint: String| Error::Closed {
        host: "db.test".to_owned(),
        hint,
        source: io::ErrorKind::UnexpectedEof.into(),
    };
    let not_tls = || Error::NotTls {
        host: "db.test".to_owned(),
        hint: String::new(),
    };
    let long = hint(CertificateRequested::Never);
    assert!(long.contains("ClientHello"), "{long}");
    for (error, is_asked, wanted) in [
        (closed(long.clone()), false, true),
        (closed(long), true, false),
        (not_tls(), false, true),
        (not_tls(), true, false),
    ] {
        let told = error.of_tcp(is_asked).to_string();
        assert_eq!(told.contains("set `starttls`"), wanted, "{told}");
        assert!(!told.contains("ClientHello"), "{told}");
    }
    let accepts = String::new();
    let certificate = hint(CertificateRequested::ButHadNone { accepts });
    let told = closed(certificate).of_tcp(false).to_string();
    assert!(
        told.contains("set tls.client_certificate") && !told.contains("starttls"),
        "{told}"
    );
}

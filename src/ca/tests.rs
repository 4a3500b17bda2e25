//! What clients make of the authority: rustls here, the programs of this machine in `programs`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig,
    ServerConnection, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::leaves::LEAVES_MAX;
use super::{Authority, Constraints, Offer};
use crate::host::{Host, HostPattern, Pattern, PortPattern};
use crate::secret::Snapshot;
use crate::secret::roots::SystemRoots;

mod programs;

const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

fn name(text: &str) -> Host {
    Host::Name(text.into())
}

fn pattern(text: &str) -> HostPattern {
    let what = match (text.strip_prefix("*."), text.parse(), text.parse()) {
        (Some(suffix), _, _) => Pattern::Suffix(suffix.into()),
        (None, Ok(network), _) => Pattern::Network(network),
        (None, Err(_), Ok(std::net::IpAddr::V4(ip))) => Pattern::Host(Host::V4(ip)),
        (None, Err(_), Ok(std::net::IpAddr::V6(ip))) => Pattern::Host(Host::V6(ip)),
        (None, Err(_), Err(_)) => Pattern::Host(name(text)),
    };
    HostPattern {
        what,
        port: PortPattern::Usual,
    }
}

fn authority(hosts: &[&str]) -> Authority {
    let hosts: Vec<_> = hosts.iter().map(|host| pattern(host)).collect();
    Authority::new(&hosts, Constraints::default(), WEEK).unwrap()
}

/// The system's, whatever the variables of the developer who runs the tests.
fn roots() -> SystemRoots {
    SystemRoots::new(
        &Snapshot::of_variables::<String, String>([]),
        Path::new("/nonexistent"),
    )
}

/// A handshake between a client that trusts `trusted` and `server`; the client's configuration comes back with it.
fn connect(
    client: &Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    host: &Host,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let server_name = match host {
        Host::Name(name) => ServerName::try_from(name.to_string()).unwrap(),
        Host::V4(ip) => ServerName::from(std::net::IpAddr::from(*ip)),
        Host::V6(ip) => ServerName::from(std::net::IpAddr::from(*ip)),
    };
    let mut client = ClientConnection::new(Arc::clone(client), server_name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    // A few flights, then the tickets.
    for _ in 0..4 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;

        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking());
    Ok((client, server))
}

fn client(trusted: &Authority) -> Arc<ClientConfig> {
    client_of(trusted, aws_lc_rs::default_provider(), rustls::DEFAULT_VERSIONS)
}

fn client_of(
    trusted: &Authority,
    provider: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.certificate.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(32);
    Arc::new(config)
}

fn is_accepted(authority: &Authority, host: &Host) -> bool {
    let server = authority.serve(host, Offer::H1).unwrap();
    connect(&client(authority), server, host).is_ok()
}

fn leaf_of(config: Arc<ServerConfig>, authority: &Authority, host: &Host) -> CertificateDer<'static> {
    let (client, _) = connect(&client(authority), config, host).unwrap();
    let certificates = client.peer_certificates().unwrap();
    assert_eq!(certificates.len(), 1, "the chain is the leaf alone");
    certificates[0].clone().into_owned()
}

#[test]
fn leaves_are_accepted_inside_the_constraints_and_nowhere_else() {
    let long = format!("{}.{}.example.com", "a".repeat(63), "b".repeat(63));
    let table: &[(&[&str], Host, bool)] = &[
        (&["api.example.com"], name("api.example.com"), true),
        (&["api.example.com"], name("example.com"), false),
        (&["api.example.com"], name("evil.example.com"), false),
        (&["api.example.com"], name("notapi.example.com"), false),
        (&["api.example.com"], name("api.example.com.evil.test"), false),
        (&["api.example.com"], Host::V4(Ipv4Addr::new(10, 0, 0, 1)), false),
        (&["api.example.com"], Host::V6(Ipv6Addr::LOCALHOST), false),
        (&["*.example.com"], name("api.example.com"), true),
        (&["*.example.com"], name("a.b.example.com"), true),
        (&["*.example.com"], name("badexample.com"), false),
        (&["*.example.com"], name(&long), true),
        (&["xn--bcher-kva.example"], name("xn--bcher-kva.example"), true),
        (
            &["my_service.apps.internal"],
            name("my_service.apps.internal"),
            true,
        ),
        (&["localhost"], name("localhost"), true),
        (&["10.0.0.1"], Host::V4(Ipv4Addr::new(10, 0, 0, 1)), true),
        (&["10.0.0.1"], Host::V4(Ipv4Addr::new(10, 0, 0, 2)), false),
        (&["10.0.0.1"], Host::V6(Ipv6Addr::LOCALHOST), false),
        (&["10.0.0.1"], name("api.example.com"), false),
        (&["10.1.0.0/16"], Host::V4(Ipv4Addr::new(10, 1, 255, 3)), true),
        (&["10.1.0.0/16"], Host::V4(Ipv4Addr::new(10, 2, 0, 1)), false),
        (&["::1"], Host::V6(Ipv6Addr::LOCALHOST), true),
        (&["::1"], Host::V6(Ipv6Addr::UNSPECIFIED), false),
        (&["::1"], Host::V4(Ipv4Addr::LOCALHOST), false),
        (&["api.example.com", "10.0.0.1"], name("api.example.com"), true),
        (
            &["api.example.com", "10.0.0.1"],
            Host::V4(Ipv4Addr::new(10, 0, 0, 1)),
            true,
        ),
        (&["api.example.com", "10.0.0.1"], name("example.org"), false),
        (&[], name("example.com"), false),
        (&[], Host::V4(Ipv4Addr::LOCALHOST), false),
        (&[], Host::V6(Ipv6Addr::LOCALHOST), false),
    ];
    for (hosts, host, accepted) in table {
        assert_eq!(
            is_accepted(&authority(hosts), host),
            *accepted,
            "{host:?} under {hosts:?}"
        );
    }
}

/// I1: the alternative name only, a random serial, an hour back, thirty days at most.
#[test]
fn a_leaf_says_what_clients_ask_for_and_no_more() {
    let authority = authority(&["*.example.com"]);
    let host = name("api.example.com");
    let der = leaf_of(authority.serve(&host, Offer::H1).unwrap(), &authority, &host);
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();

    assert_eq!(leaf.subject().iter().count(), 0);
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical, "the subject is empty");
    assert_eq!(
        names.value.general_names,
        [GeneralName::DNSName("api.example.com")]
    );
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth && !usage.any);
    assert!(!leaf.is_ca());
    assert_eq!(leaf.raw_serial().len(), 16);

    let other = name("other.example.com");
    let der = leaf_of(authority.serve(&other, Offer::H1).unwrap(), &authority, &other);
    let (_, other) = X509Certificate::from_der(&der).unwrap();
    assert_ne!(leaf.raw_serial(), other.raw_serial());
    assert_eq!(leaf.public_key(), other.public_key(), "one key for all leaves");
}

#[test]
fn a_leaf_lives_as_long_as_the_configuration_says_and_never_longer_than_thirty_days() {
    let day = Duration::from_secs(24 * 60 * 60);
    for (lifetime, expected) in [
        (Duration::from_secs(3600), Duration::from_secs(3600)),
        (day * 365, day * 30),
    ] {
        let authority = Authority::new(&[pattern("a.test")], Constraints::default(), lifetime).unwrap();
        let der = leaf_of(
            authority.serve(&name("a.test"), Offer::H1).unwrap(),
            &authority,
            &name("a.test"),
        );
        let (_, leaf) = X509Certificate::from_der(&der).unwrap();
        let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
        let hour_back = 3600;
        assert_eq!(u64::try_from(life).unwrap() - hour_back, expected.as_secs());

        let (_, root) = X509Certificate::from_der(&authority.certificate).unwrap();
        let life = root.validity().not_after.timestamp() - root.validity().not_before.timestamp();
        assert_eq!(
            u64::try_from(life).unwrap() - hour_back,
            day.as_secs() * 365,
            "apps read the bundle once"
        );
    }
}

#[test]
fn what_the_app_is_served_with_is_for_fips_where_the_build_is() {
    let served = authority(&["a.test"]).serve(&name("a.test"), Offer::H2).unwrap();
    assert_eq!(served.fips(), cfg!(feature = "fips"));
    assert_eq!(served.require_ems, cfg!(feature = "fips"));
}

#[test]
fn a_leaf_is_minted_once_and_renewed_at_half_of_its_life() {
    let authority = authority(&["a.test"]);
    let host = name("a.test");
    let now = SystemTime::now();
    let first = authority.serve_at(&host, Offer::H1, now).unwrap();
    let same = |now| Arc::ptr_eq(&first, &authority.serve_at(&host, Offer::H1, now).unwrap());

    assert!(same(now));
    assert!(same(now + WEEK / 2 - Duration::from_secs(3600)));
    assert!(!same(now + WEEK / 2 + Duration::from_secs(3600)));
}

#[test]
fn a_clock_that_was_set_back_gets_a_leaf_of_its_own_time() {
    let authority = authority(&["a.test"]);
    let host = name("a.test");
    let now = SystemTime::now();
    let first = authority.serve_at(&host, Offer::H1, now + WEEK).unwrap();
    let second = authority.serve_at(&host, Offer::H1, now).unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
}

/// I2: a flood of names costs us no memory.
#[test]
fn the_leaves_are_bounded_and_the_busy_ones_stay() {
    let authority = authority(&["*.example.com"]);
    let busy = name("busy.example.com");
    let start = SystemTime::now();
    let kept = authority.serve_at(&busy, Offer::H2, start).unwrap();
    for n in 1..=(LEAVES_MAX as u64 + 200) {
        let now = start + Duration::from_millis(n);
        authority
            .serve_at(&name(&format!("n{n}.example.com")), Offer::H1, now)
            .unwrap();
        authority.serve_at(&busy, Offer::H1, now).unwrap();
        assert!(authority.leaves.len() <= LEAVES_MAX);
    }
    let now = start + Duration::from_secs(5);
    assert!(Arc::ptr_eq(
        &kept,
        &authority.serve_at(&busy, Offer::H2, now).unwrap()
    ));
}

#[test]
fn the_offer_decides_what_is_spoken() {
    let authority = authority(&["a.test"]);
    for (offer, expected) in [(Offer::H1, &b"http/1.1"[..]), (Offer::H2, b"h2")] {
        let server = authority.serve(&name("a.test"), offer).unwrap();
        let (client, _) = connect(&client(&authority), server, &name("a.test")).unwrap();
        assert_eq!(client.alpn_protocol(), Some(expected));
    }
}

/// Whatever the client names first; one that leaves it out is served with what it has.
#[test]
fn aes_128_is_spoken_where_the_client_has_it() {
    use CipherSuite::*;
    let authority = authority(&["a.test"]);
    let host = name("a.test");
    let spoken = |version: &'static SupportedProtocolVersion, leaves_out: &[CipherSuite]| {
        let mut provider = aws_lc_rs::default_provider();
        provider
            .cipher_suites
            .retain(|suite| !leaves_out.contains(&suite.suite()));
        let client = client_of(&authority, provider, &[version]);
        let server = authority.serve(&host, Offer::H1).unwrap();
        let (client, _) = connect(&client, server, &host).unwrap();
        client.negotiated_cipher_suite().unwrap().suite()
    };
    for (version, wanted, next) in [
        (&TLS13, TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384),
        (
            &TLS12,
            TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        ),
    ] {
        assert_eq!(spoken(version, &[]), wanted);
        assert_eq!(spoken(version, &[wanted]), next);
    }
}

/// I4: a ticket resumes sessions of the same name only.
#[test]
fn tickets_are_bound_to_the_name() {
    let authority = authority(&["*.example.com"]);
    let (a, b) = (name("a.example.com"), name("b.example.com"));
    let serve = |host| authority.serve(host, Offer::H1).unwrap();
    let client = client(&authority);

    let (first, _) = connect(&client, serve(&a), &a).unwrap();
    assert_eq!(first.handshake_kind(), Some(HandshakeKind::Full));
    let (again, _) = connect(&client, serve(&a), &a).unwrap();
    assert_eq!(again.handshake_kind(), Some(HandshakeKind::Resumed));

    // Each leaves a ticket for the next.
    assert_eq!(again.tls13_tickets_received(), 1);
    let (again, _) = connect(&client, serve(&a), &a).unwrap();
    assert_eq!(again.handshake_kind(), Some(HandshakeKind::Resumed));

    // The client believes that it talks to `a`, and offers its ticket to the settings of `b`. It is not resumed, so
    // the client sees the wrong certificate and leaves.
    assert!(connect(&client, serve(&b), &a).is_err());
}

/// H9: early data is neither offered nor accepted.
#[test]
fn there_is_no_early_data() {
    let authority = authority(&["a.test"]);
    let config = authority.serve(&name("a.test"), Offer::H2).unwrap();
    assert_eq!(config.max_early_data_size, 0);
}

#[test]
fn other_hosts_mean_another_certificate_of_the_same_key() {
    let first = authority(&["a.test", "b.test"]);
    assert!(
        first
            .for_hosts(
                &[pattern("b.test"), pattern("a.test")],
                Constraints::default(),
                WEEK
            )
            .unwrap()
            .is_none()
    );

    let second = first
        .for_hosts(
            &[pattern("b.test"), pattern("c.test")],
            Constraints::default(),
            WEEK,
        )
        .unwrap()
        .unwrap();
    assert!(second.widens(&first));
    assert_ne!(first.certificate, second.certificate);

    // An app that read the first bundle: what it knew goes on working, what was added does not.
    let server = |host| second.serve(&name(host), Offer::H1).unwrap();
    assert!(connect(&client(&first), server("b.test"), &name("b.test")).is_ok());
    assert!(connect(&client(&first), server("c.test"), &name("c.test")).is_err());
    assert!(connect(&client(&second), server("c.test"), &name("c.test")).is_ok());

    let fewer = second
        .for_hosts(&[pattern("c.test")], Constraints::default(), WEEK)
        .unwrap()
        .unwrap();
    assert!(!fewer.widens(&second));
}

/// G7: the key is in no file, and no text about the authority shows it.
#[test]
fn the_key_is_in_no_file_and_no_text() {
    let authority = authority(&["a.test"]);
    let folder = TempDir::new().unwrap();
    authority
        .write(
            &roots(),
            &folder.path().join("b.pem"),
            &folder.path().join("t.p12"),
        )
        .unwrap();
    // The secret half only, 32 bytes in an octet string: the public one stands in the certificate.
    let secret = |key: &rcgen::KeyPair| {
        let der = key.serialize_der();
        let at = der.windows(2).position(|part| part == [0x04, 32]).unwrap();
        der[at + 2..at + 34].to_vec()
    };
    let bundle = std::fs::read(folder.path().join("b.pem")).unwrap();
    let mut contents: Vec<_> = (pem::parse_many(&bundle).unwrap().into_iter())
        .map(pem::Pem::into_contents)
        .collect();
    contents.extend([bundle, std::fs::read(folder.path().join("t.p12")).unwrap()]);
    let public = authority.identity.issuer.key().public_key_raw();
    let holds = |content: &[u8], wanted: &[u8]| content.windows(wanted.len()).any(|part| part == wanted);
    assert_eq!(
        contents.iter().filter(|content| holds(content, public)).count(),
        2
    );
    for secret in [authority.identity.issuer.key(), &authority.identity.leaf_key].map(secret) {
        for window in secret.windows(8) {
            assert!(!contents.iter().any(|content| holds(content, window)));
        }
    }
    let debug = format!("{authority:?}");
    assert!(!debug.contains("KeyPair") && !debug.contains("issuer"), "{debug}");
    assert!(
        !std::fs::read_to_string(folder.path().join("b.pem"))
            .unwrap()
            .contains("PRIVATE")
    );
}

/// What the configuration leaves out of the constraints is out, and nothing else.
#[test]
fn constraints_leave_out_what_the_configuration_says() {
    let made = |hosts: &[&str], about| {
        let hosts: Vec<_> = hosts.iter().map(|host| pattern(host)).collect();
        let authority = Authority::new(&hosts, about, WEEK).unwrap();
        let (_, certificate) = X509Certificate::from_der(&authority.certificate).unwrap();
        let constraints = certificate.name_constraints().unwrap();
        constraints.map(|constraints| {
            let count = |trees: &Option<Vec<x509_parser::prelude::GeneralSubtree<'_>>>, wants_names: bool| {
                let trees = trees.iter().flatten();
                let is_name = |base: &GeneralName<'_>| matches!(base, GeneralName::DNSName(_));
                trees.filter(|tree| is_name(&tree.base) == wants_names).count()
            };
            let (permitted, excluded) = (
                &constraints.value.permitted_subtrees,
                &constraints.value.excluded_subtrees,
            );
            assert!(constraints.critical);
            (
                count(permitted, true),
                count(permitted, false),
                count(excluded, false),
            )
        })
    };
    let both = ["a.test", "10.0.0.1", "10.1.0.0/16"];
    for (hosts, about, wanted) in [
        (&both[..], Constraints::NamesAndAddresses, Some((1, 2, 0))),
        (&both, Constraints::Names, Some((1, 0, 0))),
        (&both, Constraints::None, None),
        (&both[1..], Constraints::Names, Some((1, 0, 0))),
        // Nothing is given up where no address is intercepted.
        (&both[..1], Constraints::Names, Some((1, 0, 2))),
    ] {
        assert_eq!(made(hosts, about), wanted, "{hosts:?} {about:?}");
    }
    let hosts = [pattern("10.0.0.1")];
    let confined = Authority::new(&hosts, Constraints::NamesAndAddresses, WEEK).unwrap();
    let freed = confined
        .for_hosts(&hosts, Constraints::Names, WEEK)
        .unwrap()
        .unwrap();
    assert!(freed.widens(&confined), "apps need the new bundle");
    assert!(
        confined
            .for_hosts(&hosts, Constraints::NamesAndAddresses, WEEK)
            .unwrap()
            .is_none()
    );
}

//! Pins and lists of revoked certificates: both only ever refuse more.

use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};

use super::*;
use crate::config::Pin;

/// A chain of three, and a list of each authority.
struct Agency {
    root: Pair,
    middle: Pair,
    partner: Pair,
}

impl Agency {
    fn new() -> Self {
        let root = Pair::authority("Agency Root", None);
        let serial =
            |number: u64| move |params: &mut CertificateParams| params.serial_number = Some(number.into());
        let middle = Pair::new(
            "Agency CA",
            Some(&root),
            &rcgen::PKCS_ECDSA_P256_SHA256,
            |params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                serial(0x80)(params);
            },
        );
        let partner = Pair::new(
            "partner.test",
            Some(&middle),
            &rcgen::PKCS_ECDSA_P256_SHA256,
            serial(0xfe),
        );
        Self {
            root,
            middle,
            partner,
        }
    }

    async fn ask(&self, settings: &Settings) -> Result<(), Error> {
        let server = Arc::new(server(&[&self.partner, &self.middle], None, BOTH));
        let met = meet(settings, &server, &target(host("partner.test")), Alpn::H1).await;
        met.client.map(drop)
    }
}

/// When the lists of the tests are made and end, in days from now.
const CURRENT: (i64, i64) = (-1, 7);

fn list(issuer: &Pair, revoked: &[u64], (from, until): (i64, i64)) -> String {
    let day = |days: i64| time::OffsetDateTime::now_utc() + time::Duration::days(days);
    let entry = |number: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*number),
        revocation_time: rcgen::date_time_ymd(2026, 1, 2),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: day(from),
        next_update: day(until),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let issuer = Issuer::from_params(&issuer.params, &issuer.key);
    params.signed_by(&issuer).unwrap().pem().unwrap()
}

fn pin_of(pair: &Pair) -> Pin {
    use rcgen::PublicKeyData;
    let digest =
        ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, &pair.key.subject_public_key_info());
    Pin(digest.as_ref().try_into().unwrap())
}

#[tokio::test]
async fn a_pin_is_a_key_of_the_verified_chain_and_never_replaces_it() {
    let (agency, other) = (Agency::new(), Agency::new());
    let ca = agency.root.pem();
    let pinned = |pins: &[Pin]| {
        let tls = Tls {
            pins: pins.to_vec(),
            ..with_ca()
        };
        settings(&tls, &[("CA", &ca)]).unwrap()
    };
    for pair in [&agency.partner, &agency.middle, &agency.root] {
        let settings = pinned(&[Pin([0; 32]), pin_of(pair)]);
        assert!(agency.ask(&settings).await.is_ok());
    }

    let error = agency.ask(&pinned(&[pin_of(&other.middle)])).await.unwrap_err();
    assert_eq!(
        (error.reason(), error.proxy_status()),
        ("certificate_pin", "tls_certificate_error")
    );
    for pair in [&agency.partner, &agency.middle, &agency.root] {
        let key = data_encoding::BASE64.encode(&pin_of(pair).0);
        assert!(error.to_string().contains(&format!("sha256/{key} (")), "{error}");
    }

    // A server with a certificate of a trusted authority can send along any other: that is no part of the chain.
    let smuggled = Arc::new(server(
        &[&agency.partner, &agency.middle, &other.middle, &other.root],
        None,
        BOTH,
    ));
    for pair in [&other.middle, &other.root] {
        let settings = pinned(&[pin_of(pair)]);
        let met = meet(&settings, &smuggled, &target(host("partner.test")), Alpn::H1).await;
        assert_eq!(met.client.unwrap_err().reason(), "certificate_pin");
    }
    // And a pin makes nobody trusted.
    let error = other.ask(&pinned(&[pin_of(&other.partner)])).await.unwrap_err();
    assert_eq!(
        error.reason(),
        "certificate_signature",
        "its root has the name of a trusted one"
    );
    assert!(
        error
            .to_string()
            .contains("of Agency CA that is not signed with the key of Agency Root"),
        "{error}"
    );
}

#[tokio::test]
async fn a_certificate_that_stands_for_itself_is_pinned_by_its_own_key() {
    let partner = Pair::new("partner.test", None, &rcgen::PKCS_ECDSA_P256_SHA256, |_| {});
    let server = Arc::new(server(&[&partner], None, BOTH));
    for (pin, good) in [(pin_of(&partner), true), (Pin([1; 32]), false)] {
        let tls = Tls {
            pins: vec![pin],
            ..with_ca()
        };
        let settings = settings(&tls, &[("CA", &partner.pem())]).unwrap();
        let met = meet(&settings, &server, &target(host("partner.test")), Alpn::H1).await;
        assert_eq!(met.client.is_ok(), good);
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_named_and_what_no_list_knows_is_refused() {
    let agency = Agency::new();
    let (root, middle) = (&agency.root, &agency.middle);
    let good = format!("{}{}", list(root, &[], CURRENT), list(middle, &[7], CURRENT));
    let (unknown, revoked) = ("certificate_revocation_unknown", "certificate_revoked");
    let stranger = Pair::authority("Agency CA", None);
    for (case, lists, wanted) in [
        ("neither is on a list", good.clone(), None),
        (
            "the server's own",
            format!(
                "{}{}",
                list(root, &[], CURRENT),
                list(middle, &[1, 0xfe], CURRENT)
            ),
            Some((
                revoked,
                &[
                    "(partner.test) that Agency CA has revoked",
                    "2026-01-02",
                    "KeyCompromise",
                    "fe",
                ][..],
            )),
        ),
        (
            "its authority",
            format!("{}{}", list(middle, &[], CURRENT), list(root, &[0x80], CURRENT)),
            Some((revoked, &["(Agency CA) that Agency Root has revoked"])),
        ),
        (
            "no list for the server",
            list(root, &[], CURRENT),
            Some((unknown, &["(partner.test)", "no list of Agency CA"])),
        ),
        (
            "no list for its authority",
            list(middle, &[], CURRENT),
            Some((unknown, &["(Agency CA)", "no list of Agency Root"])),
        ),
        (
            "an old list",
            format!("{}{}", list(root, &[], CURRENT), list(middle, &[], (-9, -2))),
            Some((
                unknown,
                &[
                    "(partner.test)",
                    "the list of Agency CA",
                    "was to be renewed by 20",
                ],
            )),
        ),
        (
            "an old list beside the new one",
            format!(
                "{}{}{}",
                list(middle, &[0xfe], (-9, -2)),
                good,
                list(middle, &[0xfe], (-8, -3))
            ),
            None,
        ),
        (
            "a list of tomorrow",
            format!("{good}{}", list(middle, &[], (1, 7))),
            Some((
                unknown,
                &[
                    "(partner.test)",
                    "the list of Agency CA in tls.crl is not valid before 20",
                ],
            )),
        ),
        (
            "a list of tomorrow for its authority",
            format!("{good}{}", list(root, &[], (1, 7))),
            Some((unknown, &["(Agency CA)", "the list of Agency Root"])),
        ),
        (
            "a list that somebody else signed",
            format!("{}{}", list(root, &[], CURRENT), list(&stranger, &[], CURRENT)),
            Some((unknown, &["(partner.test)", "not signed by Agency CA"])),
        ),
    ] {
        let tls = Tls {
            crl: vec![env("CRL")],
            ..with_ca()
        };
        let settings = settings(&tls, &[("CA", &root.pem()), ("CRL", &lists)]).unwrap();
        let met = agency.ask(&settings).await.map_err(|error| {
            assert_eq!(error.proxy_status(), "tls_certificate_error");
            (error.reason(), error.to_string())
        });
        match wanted {
            None => assert_eq!(met, Ok(()), "{case}"),
            Some((reason, parts)) => {
                let (found, text) = met.unwrap_err();
                assert_eq!(found, reason, "{case}: {text}");
                for part in parts {
                    assert!(text.contains(part), "{case}: {text}");
                }
            }
        }
    }
}

/// Sessions and connections rest on what ends first: a certificate of the path or a list of one of its issuers.
#[tokio::test]
async fn sessions_resume_until_what_they_rest_on_ends() {
    let day = |days: i64| time::OffsetDateTime::now_utc() + time::Duration::days(days);
    let pair = |name, issuer: Option<&Pair>, days, is_ca| {
        Pair::new(name, issuer, &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
            params.not_after = day(days);
            params.is_ca = if is_ca {
                IsCa::Ca(BasicConstraints::Unconstrained)
            } else {
                IsCa::NoCa
            };
        })
    };
    // The root's own end is nobody's: it is trusted as it is.
    let root = pair("Agency Root", None, 1, true);
    let stranger = Pair::authority("Stranger Root", None);
    for (leaf, middle, of_root, of_middle, wanted) in [
        (9, 20, 20, 20, 9),
        (20, 9, 20, 20, 9),
        (20, 20, 9, 20, 9),
        (20, 20, 20, 9, 9),
    ] {
        let middle = pair("Agency CA", Some(&root), middle, true);
        let leaf = pair("partner.test", Some(&middle), leaf, false);
        let lists = format!(
            "{}{}{}{}",
            list(&root, &[], (-9, -2)),
            list(&root, &[], (-1, of_root)),
            list(&middle, &[], (-1, of_middle)),
            list(&stranger, &[], (-1, 2))
        );
        let tls = Tls {
            crl: vec![env("CRL")],
            ..with_ca()
        };
        let settings = settings(&tls, &[("CA", &root.pem()), ("CRL", &lists)]).unwrap();
        for versions in [TLS12, TLS13] {
            let server = Arc::new(server(&[&leaf, &middle], None, versions));
            let mut target = target(host("partner.test"));
            target.port = if versions == TLS12 { 1 } else { 2 };
            let config = |now| settings.config(&target, Alpn::H1, now).config;
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let met = meet(&settings, &server, &target, Alpn::H1).await.client.unwrap();
                assert_eq!(met.connection().handshake_kind(), Some(kind));
            }
            let now = SystemTime::now();
            let of_days = |days: i64| Duration::from_secs(u64::try_from(days).unwrap() * 24 * 3600);
            let (before, after) = (now + of_days(wanted) - of_days(1), now + of_days(wanted));
            let sessions = config(now);
            assert!(Arc::ptr_eq(&sessions, &config(before)));
            assert!(!Arc::ptr_eq(&sessions, &config(after)));
            // They are gone for good.
            let met = meet(&settings, &server, &target, Alpn::H1).await.client.unwrap();
            assert_eq!(met.connection().handshake_kind(), Some(HandshakeKind::Full));
        }
    }
}

/// A certificate among the roots, the system's or the destination's, stands for itself; where it is no authority it
/// issues nothing. One that is the same authority's in another certificate counts by what that one says.
#[tokio::test]
async fn a_root_that_is_no_authority_stands_for_itself_alone() {
    let algorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
    let partner = Pair::new("partner.test", None, algorithm, |_| {});
    let issued = Pair::leaf("partner.test", &partner);
    let key = KeyPair::from_pem(&partner.key_pem()).unwrap();
    // The same name and key, and other names: the holder of the key is trusted for the one certificate only.
    let twin = Pair::of_key("partner.test", None, key, |params| {
        params.serial_number = Some(2.into());
    });
    let key = KeyPair::from_pem(&partner.key_pem()).unwrap();
    let authority = Pair::of_key("partner.test", None, key, |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let folder = tempfile::TempDir::new().unwrap();
    let bundle = folder.path().join("roots.pem");
    let both = format!("{}{}", partner.pem(), authority.pem());
    for (roots, wanted) in [
        (partner.pem(), ["", "certificate_chain", "certificate_chain"]),
        (both, ["", "", ""]),
    ] {
        std::fs::write(&bundle, &roots).unwrap();
        let snapshot = Snapshot::of_variables(vec![
            ("SSL_CERT_FILE", bundle.to_str().unwrap()),
            ("CA", roots.as_str()),
        ]);
        let system = SystemRoots::new(&snapshot, std::path::Path::new("/nonexistent/bundle.pem"));
        let extra = Tls {
            ca_extra: Some(env("CA")),
            ..Tls::default()
        };
        for tls in [&Tls::default(), &with_ca(), &extra] {
            let settings = Settings::of(tls, &snapshot, &system).unwrap();
            for (pair, reason) in [&partner, &issued, &twin].into_iter().zip(wanted) {
                let server = Arc::new(server(&[pair], None, BOTH));
                let met = meet(&settings, &server, &target(host("partner.test")), Alpn::H1).await;
                let found = met.client.map_or_else(|error| error.reason(), |_| "");
                assert_eq!(found, reason, "{tls:?}");
            }
        }
    }
}

/// Who may sign certificates need not sign lists, be it a root or below one.
#[tokio::test]
async fn a_list_counts_where_its_issuer_may_sign_lists() {
    use rcgen::KeyUsagePurpose::{CrlSign, KeyCertSign};

    let may = [KeyCertSign, CrlSign];
    for (of_root, of_middle, refused) in [
        (&may[..], &may[..], None),
        (&[], &[], None),
        (&may[..1], &may[..], Some("(Agency CA)")),
        (&may[..], &may[..1], Some("(partner.test)")),
    ] {
        let authority = |name, issuer, uses: &[_]| {
            Pair::new(name, issuer, &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.key_usages = uses.to_vec();
            })
        };
        let root = authority("Agency Root", None, of_root);
        let middle = authority("Agency CA", Some(&root), of_middle);
        let partner = Pair::leaf("partner.test", &middle);
        let lists = format!("{}{}", signed(&root), signed(&middle));
        let agency = Agency {
            root,
            middle,
            partner,
        };
        let tls = Tls {
            crl: vec![env("CRL")],
            ..with_ca()
        };
        let variables = [("CA", &*agency.root.pem()), ("CRL", &lists)];
        let met = agency.ask(&settings(&tls, &variables).unwrap()).await;
        let Some(whose) = refused else {
            met.unwrap();
            continue;
        };
        let error = met.unwrap_err();
        assert_eq!(error.reason(), "certificate_revocation_unknown");
        let told = error.to_string();
        assert!(told.contains(whose) && told.contains("lacks cRLSign"), "{told}");
        // Nor does it count for a certificate that is trusted itself.
        let with_partner = format!("{}{}", agency.root.pem(), agency.partner.pem());
        let named = settings(&tls, &[("CA", &*with_partner), ("CRL", &lists)]).unwrap();
        let error = agency.ask(&named).await.unwrap_err();
        assert_eq!(error.reason(), "certificate_revocation_unknown");
        // Where no list is asked for, nobody has to sign one.
        let without = settings(&with_ca(), &variables).unwrap();
        agency.ask(&without).await.unwrap();
    }
}

/// A list of an issuer that says nothing of what its key is for: rcgen signs lists of no other.
fn signed(issuer: &Pair) -> String {
    let mut params = issuer.params.clone();
    params.key_usages.clear();
    let key = KeyPair::from_pem(&issuer.key_pem()).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let plain = Pair {
        certificate,
        key,
        params,
    };
    list(&plain, &[], CURRENT)
}

#[tokio::test]
async fn lists_may_be_der_and_several_and_an_old_one_is_told_at_load() {
    let agency = Agency::new();
    let folder = tempfile::TempDir::new().unwrap();
    // A list in DER may end in what looks like a line end, and must not lose it.
    let der = (0..).find_map(|n| {
        let text = list(&agency.middle, &[n], CURRENT);
        let der = ::pem::parse(text).unwrap().into_contents();
        matches!(der.last(), Some(b'\n' | b'\r')).then_some(der)
    });
    let file = folder.path().join("middle.crl");
    std::fs::write(&file, der.unwrap()).unwrap();
    let tls = Tls {
        crl: vec![SecretRef::File(file), env("CRL")],
        ..with_ca()
    };
    let with = |lists: &str| settings(&tls, &[("CA", &agency.root.pem()), ("CRL", lists)]);
    let good = with(&list(&agency.root, &[], CURRENT)).unwrap();
    assert!(agency.ask(&good).await.is_ok());
    assert_eq!(good.terms.warnings.len(), 0);

    let old = with(&list(&agency.root, &[], (-9, -2))).unwrap();
    let warnings: Vec<_> = old
        .warnings(SystemTime::now())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        warnings[0].contains("the list of Agency Root was to be renewed by"),
        "{warnings:?}"
    );

    let told = |lists: &str| {
        let error = with(lists).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error} {}", source.unwrap_or_default())
    };
    for (lists, part) in [
        (
            &*agency.root.pem(),
            "no list of revoked certificates in it (blocks found: CERTIFICATE)",
        ),
        (
            "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----",
            "tls.crl: list 1 of env:CRL cannot be used",
        ),
        ("-----BEGIN X509 CRL-----\n%\n-----END X509 CRL-----", "damaged"),
    ] {
        assert!(told(lists).contains(part), "{}", told(lists));
    }
}

/// Whatever a server shows or a list says: nothing panics, what is refused has its words, and no changed byte is
/// accepted.
#[test]
fn changed_certificates_and_lists_are_refused_in_words() {
    use rand::{RngExt, SeedableRng};
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::UnixTime;

    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let agency = Agency::new();
    let lists = format!(
        "{}{}",
        list(&agency.root, &[], CURRENT),
        list(&agency.middle, &[7], CURRENT)
    );
    let tls = Tls {
        crl: vec![env("CRL")],
        pins: vec![pin_of(&agency.middle)],
        ..with_ca()
    };
    let settings = settings(&tls, &[("CA", &agency.root.pem()), ("CRL", &lists)]).unwrap();
    let name = ServerName::try_from("partner.test").unwrap();
    let verify_with = |settings: &Settings, chain: &[CertificateDer<'_>]| {
        let verifier = Generation::new(&settings.terms.verifier);
        let answer = verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now());
        answer.map(drop)
    };
    let verify = |chain: &[CertificateDer<'_>]| verify_with(&settings, chain);
    let good = [&agency.partner, &agency.middle].map(|pair| pair.certificate.der().clone());
    verify(&good).unwrap();

    let mut change = |der: &[u8]| {
        let mut der = der.to_vec();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..der.len());
            match random.random_range(0..4) {
                0 => der.truncate(at.max(1)),
                1 => der.insert(at, random.random()),
                _ => der[at] ^= random.random_range(1..=255),
            }
        }
        der
    };
    for round in 0..2000 {
        let mut chain = good.clone();
        let which = round % 2;
        let changed = change(&good[which]);
        if changed == good[which].as_ref() {
            continue;
        }
        chain[which] = changed.into();
        let error = verify(&chain).expect_err("a changed certificate");
        let told = Error::of_rustls(&error, "partner.test", &error::Before::default());
        let text = told.to_string();
        assert!(text.starts_with("partner.test "), "{text}");
        assert!(text.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{text}");
    }

    let der = ::pem::parse(list(&agency.middle, &[7, 8, 9], CURRENT))
        .unwrap()
        .into_contents();
    for _ in 0..1000 {
        let changed = change(&der);
        if changed == der {
            continue;
        }
        let changed = ::pem::encode(&::pem::Pem::new("X509 CRL", changed));
        let lists = format!("{}{changed}", list(&agency.root, &[], CURRENT));
        let variables = [("CA", &*agency.root.pem()), ("CRL", &lists)];
        // One that can be read is not believed.
        if let Ok(settings) = super::settings(&tls, &variables) {
            verify_with(&settings, &good).expect_err("a changed list");
        }
    }
}

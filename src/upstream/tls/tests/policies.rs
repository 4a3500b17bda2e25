//! Certificate policies: OpenSSL is asked about the same chains.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rcgen::CustomExtension;

use super::*;
use crate::upstream::tls::policies;

/// What a certificate of a test says about policies; 0 is anyPolicy.
#[derive(Clone, Debug, Default)]
struct Says {
    critical: bool,
    named: Vec<u64>,
    mappings: Vec<(u64, u64)>,
    explicit: Option<u64>,
    mapping: Option<u64>,
    any: Option<u64>,
    is_self_issued: bool,
}

fn oid(policy: u64) -> yasna::models::ObjectIdentifier {
    let any = [2, 5, 29, 32, 0];
    let ours = [2, 16, 840, 1, 101, 3, 2, 1, 3, policy];
    yasna::models::ObjectIdentifier::from_slice(if policy == 0 { &any } else { &ours })
}

fn der(value: impl FnOnce(&mut yasna::DERWriterSeq<'_>)) -> Vec<u8> {
    yasna::construct_der(|writer| writer.write_sequence(value))
}

impl Says {
    fn extensions(&self) -> Vec<CustomExtension> {
        let mut found = Vec::new();
        let mut add = |last, value: Vec<u8>| {
            let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, last], value);
            extension.set_criticality(self.critical);
            found.push(extension);
        };
        if !self.named.is_empty() {
            add(
                32,
                der(|all| {
                    for policy in &self.named {
                        all.next()
                            .write_sequence(|one| one.next().write_oid(&oid(*policy)));
                    }
                }),
            );
        }
        if !self.mappings.is_empty() {
            add(
                33,
                der(|all| {
                    for (from, to) in &self.mappings {
                        all.next().write_sequence(|one| {
                            one.next().write_oid(&oid(*from));
                            one.next().write_oid(&oid(*to));
                        });
                    }
                }),
            );
        }
        if self.explicit.is_some() || self.mapping.is_some() {
            add(
                36,
                der(|all| {
                    for (tag, skip) in [(0, self.explicit), (1, self.mapping)] {
                        if let Some(skip) = skip {
                            let tag = yasna::Tag::context(tag);
                            all.next()
                                .write_tagged_implicit(tag, |writer| writer.write_u64(skip));
                        }
                    }
                }),
            );
        }
        if let Some(skip) = self.any {
            add(54, yasna::construct_der(|writer| writer.write_u64(skip)));
        }
        found
    }

    /// Anything that a certificate may say, seldom that which RFC 5280 does not allow.
    fn any(random: &mut StdRng) -> Self {
        let mut named: Vec<u64> = (0..4).filter(|_| random.random_bool(0.5)).collect();
        if random.random_bool(0.02) {
            named.extend(named.first().copied());
        }
        let mut pair = || (random.random_range(1..4), random.random_range(1..4));
        let mut mappings = vec![pair(), pair()];
        if random.random_bool(0.03) {
            mappings[0].1 = 0;
        }
        if random.random_bool(0.5) {
            mappings.clear();
        }
        let mut skip = |often| random.random_bool(often).then(|| random.random_range(0..3));
        Self {
            explicit: skip(0.5),
            mapping: skip(0.2),
            any: skip(0.2),
            critical: random.random_bool(0.5),
            is_self_issued: random.random_bool(0.15),
            named,
            mappings,
        }
    }
}

/// A root, and below it a chain of what `said` has, the server's last.
fn chain(said: &[Says]) -> Vec<Pair> {
    let mut pairs = vec![Pair::authority("Policy Root", None)];
    for (place, says) in said.iter().enumerate() {
        let issuer = &pairs[place];
        let name = match (place + 1 == said.len(), says.is_self_issued) {
            (true, _) => "partner.test".to_owned(),
            (false, false) => format!("CA {place}"),
            (false, true) => String::new(),
        };
        let pair = Pair::new(&name, Some(issuer), &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
            if name != "partner.test" {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.subject_alt_names.clear();
            }
            if name.is_empty() {
                params.distinguished_name = issuer.params.distinguished_name.clone();
            }
            params.use_authority_key_identifier_extension = true;
            params.custom_extensions = says.extensions();
        });
        pairs.push(pair);
    }
    pairs
}

/// What outrider says of a chain: nothing, or the word for what is wrong.
fn ours(pairs: &[Pair]) -> Result<(), String> {
    let settings = settings(&with_ca(), &[("CA", &pairs[0].pem())]).unwrap();
    let ders: Vec<_> = (pairs[1..].iter().rev())
        .map(|pair| pair.certificate.der().clone())
        .collect();
    let verifier = Generation::new(&settings.terms.verifier);
    let name = ServerName::try_from("partner.test").unwrap();
    let now = rustls::pki_types::UnixTime::now();
    use rustls::client::danger::ServerCertVerifier;
    let verified = verifier.verify_server_cert(&ders[0], &ders[1..], &name, &[], now);
    verified.map(drop).map_err(|error| {
        let error = Error::of_rustls(&error, "partner.test", &error::Before::default());
        format!("{}: {error}", error.reason())
    })
}

/// What OpenSSL says of it.
fn openssls(pairs: &[Pair], folder: &std::path::Path) -> bool {
    let write = |name: &str, pairs: &[Pair]| {
        let text: String = pairs.iter().map(Pair::pem).collect();
        std::fs::write(folder.join(name), text).unwrap();
    };
    write("root.pem", &pairs[..1]);
    write("middle.pem", &pairs[1..pairs.len() - 1]);
    write("leaf.pem", &pairs[pairs.len() - 1..]);
    let mut openssl = Command::new("openssl");
    // It takes any policy where that is said, and none where nothing is.
    openssl
        .current_dir(folder)
        .args(["verify", "-policy_check", "-policy", "2.5.29.32.0"]);
    openssl.args(["-CAfile", "root.pem"]);
    if pairs.len() > 2 {
        openssl.args(["-untrusted", "middle.pem"]);
    }
    let output = openssl.arg("leaf.pem").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    // Nothing but a policy may be wrong: X509_V_ERR_INVALID_POLICY_EXTENSION and X509_V_ERR_NO_EXPLICIT_POLICY.
    let is_of_policy = told.contains("error 42 ") || told.contains("error 43 ");
    assert!(output.status.success() || is_of_policy, "{told}");
    output.status.success()
}

/// Chains of chance are judged as by OpenSSL, whatever they say about policies.
#[test]
fn policies_are_judged_as_openssl_judges_them() {
    let folder = tempfile::TempDir::new().unwrap();
    let (mut good, mut bad) = (0, 0);
    for seed in 0..150 {
        let mut random = StdRng::seed_from_u64(seed);
        let length = random.random_range(1..5);
        let mut said: Vec<_> = (0..length).map(|_| Says::any(&mut random)).collect();
        // The RFC reads none of a server's own; OpenSSL does.
        said[length - 1].mappings.clear();
        // Where anyPolicy does not count, OpenSSL lets it be mapped all the same.
        if said.iter().any(|says| says.any.is_some()) {
            for says in &mut said {
                let named = says.named.clone();
                says.mappings.retain(|(from, _)| named.contains(from));
            }
        }
        let pairs = chain(&said);
        let (ours, openssls) = (ours(&pairs), openssls(&pairs, folder.path()));
        assert_eq!(ours.is_ok(), openssls, "seed {seed}: {ours:?}\n{said:?}");
        match &ours {
            Ok(()) => good += 1,
            Err(said) => {
                bad += 1;
                assert!(said.starts_with("certificate_policy: "), "seed {seed}: {said}");
            }
        }
    }
    assert!(good > 30 && bad > 30, "{good} good ones and {bad} bad ones");
}

/// A chain that would double the nodes of RFC 5280's tree at each certificate (CVE-2023-0464) costs what its own length
/// does.
#[test]
fn a_tree_that_would_explode_stays_small() {
    let policies: Vec<u64> = (1..100).collect();
    let each_to_each: Vec<_> = policies
        .iter()
        .flat_map(|from| (policies.iter().take(10)).map(move |to| (*from, *to)))
        .collect();
    let middle = Says {
        named: policies,
        mappings: each_to_each,
        explicit: Some(0),
        ..Says::default()
    };
    let leaf = Says {
        named: vec![1],
        ..Says::default()
    };
    let stranger = Says {
        named: vec![200],
        ..Says::default()
    };
    for (last, is_good) in [(leaf, true), (stranger, false)] {
        let mut said = vec![middle.clone(); 5];
        said.push(last);
        let pairs = chain(&said);
        let parsed = pairs[1..]
            .iter()
            .rev()
            .map(|pair| certificate::parse(pair.certificate.der()));
        let parsed: Vec<_> = parsed.map(Option::unwrap).collect();
        let started = std::time::Instant::now();
        assert_eq!(policies::judge(&parsed).is_ok(), is_good);
        assert!(
            started.elapsed() < Duration::from_secs(1),
            "{:?}",
            started.elapsed()
        );
    }
}

/// The last part of its identifier, and its value.
type Extension = (u64, Vec<u8>);

/// Extensions that RFC 5280 does not allow, critical or not, and whether or not a policy is demanded.
#[test]
fn malformed_extensions_are_refused_each_with_its_words() {
    let twice = |last| [(last, good(last)), (last, good(last))];
    fn good(last: u64) -> Vec<u8> {
        let says = Says {
            named: vec![1],
            mappings: vec![(1, 2)],
            explicit: Some(3),
            any: Some(3),
            ..Says::default()
        };
        let found = says.extensions().into_iter();
        let wanted = [2, 5, 29, last];
        let found = found.filter(|one| one.oid_components().eq(wanted));
        found.map(|one| one.content().to_vec()).next().unwrap()
    }
    let qualified = der(|all| {
        all.next().write_sequence(|one| {
            one.next().write_oid(&oid(1));
            one.next().write_sequence(|qualifiers| {
                qualifiers.next().write_sequence(|one| {
                    one.next().write_oid(&oid(9));
                    one.next().write_null();
                });
            });
        });
    });
    let minus_one = vec![2, 1, 0xff];
    let cases: Vec<(&str, Vec<Extension>)> = vec![
        ("stands in it twice", twice(32).to_vec()),
        ("stands in it twice", twice(33).to_vec()),
        ("stands in it twice", twice(36).to_vec()),
        ("stands in it twice", twice(54).to_vec()),
        ("name no policy", vec![(32, vec![0x30, 0])]),
        ("map nothing", vec![(33, vec![0x30, 0])]),
        ("say nothing", vec![(36, vec![0x30, 0])]),
        ("cannot be read", vec![(32, vec![5, 0])]),
        ("cannot be read", vec![(33, vec![5, 0])]),
        ("cannot be read", vec![(36, vec![5, 0])]),
        ("cannot be read", vec![(54, vec![5, 0])]),
        ("cannot be read", vec![(54, minus_one)]),
        ("cannot be read", vec![(36, vec![0x30, 3, 0x80, 1, 0xff])]),
        ("cannot be read", vec![(32, [good(32), vec![5, 0]].concat())]),
        ("whose qualifiers are not known", vec![(32, qualified)]),
    ];
    for (wanted, extensions) in cases {
        for critical in [true, false] {
            let root = Pair::authority("Policy Root", None);
            let leaf = Pair::new(
                "partner.test",
                Some(&root),
                &rcgen::PKCS_ECDSA_P256_SHA256,
                |params| {
                    params.custom_extensions = (extensions.iter())
                        .map(|(last, value)| {
                            let mut one =
                                CustomExtension::from_oid_content(&[2, 5, 29, *last], value.clone());
                            one.set_criticality(critical);
                            one
                        })
                        .collect();
                },
            );
            let said = ours(&[root, leaf]);
            if wanted.contains("qualifiers") && !critical {
                assert_eq!(said, Ok(()));
                continue;
            }
            let said = said.unwrap_err();
            assert!(
                said.starts_with("certificate_policy: ") && said.contains(wanted),
                "{wanted}: {said}"
            );
        }
    }
}

/// A copy in which nothing is critical is for webpki alone: what was signed is what the server has shown.
#[test]
fn a_certificate_whose_criticality_was_changed_is_not_signed() {
    let said = Says {
        critical: true,
        named: vec![1],
        ..Says::default()
    };
    let pairs = chain(&[said.clone(), said]);
    assert_eq!(ours(&pairs), Ok(()));
    let settings = settings(&with_ca(), &[("CA", &pairs[0].pem())]).unwrap();
    let truth = [0x55, 0x1d, 0x20, 0x01, 0x01, 0xff];
    for changed in [1, 2] {
        let mut ders: Vec<Vec<u8>> = pairs[1..]
            .iter()
            .rev()
            .map(|one| one.certificate.der().to_vec())
            .collect();
        let der = &mut ders[changed - 1];
        let at = der.windows(truth.len()).position(|six| six == truth).unwrap();
        der[at + 5] = 0;
        let ders: Vec<_> = ders.into_iter().map(CertificateDer::from).collect();
        let name = ServerName::try_from("partner.test").unwrap();
        use rustls::client::danger::ServerCertVerifier;
        let verified = Generation::new(&settings.terms.verifier).verify_server_cert(
            &ders[0],
            &ders[1..],
            &name,
            &[],
            rustls::pki_types::UnixTime::now(),
        );
        let error = Error::of_rustls(&verified.unwrap_err(), "partner.test", &error::Before::default());
        assert_eq!(error.reason(), "certificate_signature", "{error}");
    }
}

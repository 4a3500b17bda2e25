//! Whom outrider believes: certificates of every kind of wrong, each refused with its own words, and the odd
//! ones that are right.
//!
//! What is accepted is what browsers accept. Where they differ among themselves, the case says so.

use std::path::Path;

use rcgen::{
    BasicConstraints, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair,
    NameConstraints, date_time_ymd,
};

use crate::support::authorities::{Authorities, Authority, Change};
use crate::support::openssl::SServer;
use crate::support::origin::ok;
use crate::support::pki::{accepting, server_params};
use crate::support::programs::clean;
use crate::support::{Identity, Origin, Proxy, TOKEN, eventually};

mod federal;
mod usages;

/// One certificate chain as a server shows it, and what is to come of it.
struct Case {
    name: &'static str,
    shows: Identity,
    /// Under which name the proxy asks for it.
    host: &'static str,
    /// Served by openssl: rustls does not take such a key.
    by_openssl: bool,
    /// What `tls.ca` holds where it is not the root.
    trusts: Option<String>,
    wanted: Expected,
    /// Why OpenSSL's client says otherwise, where it does.
    differs: Option<&'static str>,
}

impl Case {
    /// Shown by rustls, asked for as `partner.test` under the usual root, and judged by OpenSSL alike.
    fn new(name: &'static str, shows: Identity, wanted: Expected) -> Self {
        Self {
            name,
            shows,
            host: "partner.test",
            by_openssl: false,
            trusts: None,
            wanted,
            differs: None,
        }
    }
}

#[derive(Clone, Copy)]
enum Expected {
    Accepted,
    /// Its word, and what its sentence says.
    Refused(&'static str, &'static [&'static str]),
}

use Expected::{Accepted, Refused};

fn cases(authorities: &Authorities) -> Vec<Case> {
    let root = &authorities.root;
    let old: Change = &|params| {
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
    };
    let middle = |alter: Change| Authority::new("Middle CA", Some(root), alter);
    let plain = middle(&|_| {});
    let stranger = Authority::new("Stranger Root", None, &|_| {});
    let partner = ["partner.test"];
    let case = Case::new;
    let of_root =
        |name, alter: Change, wanted| case(name, authorities.leaf(&partner, root, &[], alter), wanted);
    let named = |name, names: &[&str], host, wanted| Case {
        host,
        ..case(name, authorities.leaf(names, root, &[], &|_| {}), wanted)
    };
    let constrained = |permitted: &[&str], excluded: &[&str]| {
        let subtrees = |names: &[&str]| {
            names
                .iter()
                .map(|name| GeneralSubtree::DnsName((*name).to_owned()))
                .collect()
        };
        middle(&|params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: subtrees(permitted),
                excluded_subtrees: subtrees(excluded),
            });
        })
    };
    let below = |middle: &Authority| authorities.leaf(&partner, middle, &[middle], &|_| {});
    let mut self_signed = server_params(&partner);
    self_signed
        .distinguished_name
        .push(DnType::CommonName, "The Partner");
    let self_key = KeyPair::generate().unwrap();
    let self_signed = authorities.write(
        self_signed.self_signed(&self_key).unwrap().pem(),
        self_key.serialize_pem(),
    );
    let short = middle(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let too_deep = Authority::new("Deep CA", Some(&short), &|_| {});
    let not_an_authority = middle(&|params| params.is_ca = IsCa::ExplicitNoCa);
    let mut changed = stranger.params.clone();
    changed.distinguished_name = root.params.distinguished_name.clone();
    let forged = Authority {
        params: changed,
        key: KeyPair::generate().unwrap(),
        pem: String::new(),
    };
    let ec = [
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ];
    let name = "certificate_name";

    let mut cases = vec![
        of_root("good", &|_| {}, Accepted),
        case("with its intermediate", below(&plain), Accepted),
        case(
            "chain out of order, with what does not belong",
            {
                let deeper = Authority::new("Deeper CA", Some(&plain), &|_| {});
                authorities.leaf(&partner, &deeper, &[&stranger, root, &plain, &deeper], &|_| {})
            },
            Accepted,
        ),
        of_root(
            "expired",
            old,
            Refused("certificate_expired", &["expired 2020-01-01T00:00:00Z", "renew"]),
        ),
        of_root(
            "not yet valid",
            &|params| params.not_before = date_time_ymd(2090, 1, 1),
            Refused(
                "certificate_not_yet_valid",
                &["not valid before 2090-01-01", "clock"],
            ),
        ),
        case(
            "expired intermediate",
            below(&middle(old)),
            Refused(
                "certificate_expired",
                &["a certificate of Middle CA that expired"],
            ),
        ),
        case(
            "missing intermediate",
            authorities.leaf(&partner, &plain, &[], &|_| {}),
            Refused(
                "certificate_unknown_issuer",
                &["leads to Middle CA", "send the intermediate"],
            ),
        ),
        case(
            "unknown root",
            authorities.leaf(&partner, &stranger, &[], &|_| {}),
            Refused(
                "certificate_unknown_issuer",
                &["leads to Stranger Root", "tls.ca"],
            ),
        ),
        case(
            "self-signed",
            self_signed,
            Refused(
                "certificate_self_signed",
                &["self-signed certificate (The Partner)"],
            ),
        ),
        case(
            "another key under the name of a trusted root",
            authorities.leaf(&partner, &forged, &[], &|_| {}),
            Refused(
                "certificate_signature",
                &["not signed with the key of Agency Root"],
            ),
        ),
        named(
            "wrong host",
            &["elsewhere.test"],
            "partner.test",
            Refused(
                name,
                &["for elsewhere.test, not for partner.test", "tls.server_name"],
            ),
        ),
        named(
            "common name only",
            &[],
            "partner.test",
            Refused(name, &["no name at all (the common name does not count)"]),
        ),
        named("right address", &["127.0.0.1"], "127.0.0.1", Accepted),
        named(
            "wrong address",
            &["127.0.0.2"],
            "127.0.0.1",
            Refused(name, &["for 127.0.0.2, not for 127.0.0.1"]),
        ),
        named(
            "a name is no address",
            &["partner.test"],
            "127.0.0.1",
            Refused(name, &["for partner.test, not for 127.0.0.1"]),
        ),
        named(
            "an address is no name",
            &["127.0.0.1"],
            "partner.test",
            Refused(name, &["for 127.0.0.1, not for partner.test"]),
        ),
        named(
            "wildcard of one label",
            &["*.partner.test"],
            "a.partner.test",
            Accepted,
        ),
        named(
            "wildcard, upper case",
            &["*.PARTNER.test"],
            "a.partner.test",
            Accepted,
        ),
        named(
            "wildcard, two labels below",
            &["*.partner.test"],
            "b.a.partner.test",
            Refused(name, &["for *.partner.test, not for b.a.partner.test"]),
        ),
        named(
            "wildcard, not its own parent",
            &["*.partner.test"],
            "partner.test",
            Refused(name, &["for *.partner.test"]),
        ),
        Case {
            differs: Some("OpenSSL takes a part of a label where it is not told otherwise; browsers do not"),
            ..named(
                "wildcard within a label",
                &["a*.partner.test"],
                "ab.partner.test",
                Refused(name, &["not for ab.partner.test"]),
            )
        },
        named(
            "wildcard not leftmost",
            &["a.*.test"],
            "a.partner.test",
            Refused(name, &["not for a.partner.test"]),
        ),
        of_root(
            "for clients only",
            &|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            Refused("certificate_purpose", &["not meant for servers", "serverAuth"]),
        ),
        of_root(
            "for whatever: no extended key usage",
            &|params| params.extended_key_usages.clear(),
            Accepted,
        ),
        case(
            "intermediate for clients only",
            below(&middle(&|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]
            })),
            Refused(
                "certificate_purpose",
                &["a certificate of Middle CA that is not meant for servers"],
            ),
        ),
        Case {
            differs: Some("Firefox refuses it; Chrome and OpenSSL do not"),
            ..of_root(
                "an authority in place of a server",
                &|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
                Refused("certificate_purpose", &["of an authority in place of a server's"]),
            )
        },
        case(
            "issued by who is no authority",
            below(&not_an_authority),
            Refused(
                "certificate_chain",
                &["signed by Middle CA, which is no authority"],
            ),
        ),
        case(
            "more authorities than one allows",
            authorities.leaf(&partner, &too_deep, &[&too_deep, &short], &|_| {}),
            Refused(
                "certificate_chain",
                &["more authorities below Middle CA", "path length"],
            ),
        ),
        case(
            "within the constraints",
            below(&constrained(&["partner.test"], &["x.partner.test"])),
            Accepted,
        ),
        case(
            "outside the permitted names",
            below(&constrained(&["agency.test"], &[])),
            Refused(
                "certificate_constraint",
                &["for partner.test, which Middle CA may not issue"],
            ),
        ),
        case(
            "among the excluded names",
            below(&constrained(&[], &["partner.test"])),
            Refused(
                "certificate_constraint",
                &["for partner.test, which Middle CA may not issue"],
            ),
        ),
        of_root(
            "unknown critical extension",
            &|params| {
                let mut extension =
                    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 7], vec![5, 0]);
                extension.set_criticality(true);
                params.custom_extensions = vec![extension];
            },
            Refused("certificate_extension", &["1.3.6.1.4.1.99999.7"]),
        ),
        of_root(
            "unknown extension that is not critical",
            &|params| {
                let oid = [1, 3, 6, 1, 4, 1, 99999, 7];
                params.custom_extensions = vec![CustomExtension::from_oid_content(&oid, vec![5, 0])];
            },
            Accepted,
        ),
        case(
            "openssl's own",
            authorities.by_openssl(&ec, &["-sha256"]),
            Accepted,
        ),
        case(
            "signed with SHA-1",
            authorities.by_openssl(&ec, &["-sha1"]),
            Refused("certificate_weak", &["signed with SHA-1, which proves nothing"]),
        ),
        Case {
            by_openssl: true,
            ..case(
                "RSA of 1024 bits",
                authorities.by_openssl(
                    &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
                    &["-sha256"],
                ),
                Refused("certificate_weak", &["(RSA of 1024 bits)", "2048"]),
            )
        },
        Case {
            by_openssl: true,
            ..case(
                "an RSA authority's of 2048 bits",
                authorities.by_openssl(
                    &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
                    &["-sha256"],
                ),
                Accepted,
            )
        },
    ];
    cases.extend(usages::usages(authorities));
    cases
}

/// Returns whether OpenSSL's client accepts the chain of the case.
fn is_good_for_openssl(case: &Case, trusted: &Path) -> bool {
    let name = match case.host.parse::<std::net::IpAddr>() {
        Ok(_) => "-verify_ip",
        Err(_) => "-verify_hostname",
    };
    let mut openssl = clean("openssl");
    openssl.args([
        "verify",
        "-purpose",
        "sslserver",
        "-policy_check",
        "-policy",
        // Any. It takes none where nothing is said.
        "2.5.29.32.0",
        "-auth_level",
        "2",
        name,
        case.host,
    ]);
    openssl
        .arg("-no-CApath")
        .arg("-no-CAstore")
        .arg("-CAfile")
        .arg(trusted);
    openssl
        .arg("-untrusted")
        .arg(&case.shows.cert_path)
        .arg(&case.shows.cert_path);
    openssl.output().unwrap().status.success()
}

/// What listens for a case.
enum CaseServer {
    Openssl(SServer),
    Ours(Origin),
}

impl CaseServer {
    fn of(case: &Case) -> Self {
        if case.by_openssl {
            // OpenSSL serves with such a key only at this security level.
            return Self::Openssl(SServer::start(&case.shows, &["-cipher", "DEFAULT@SECLEVEL=0"]));
        }
        Self::Ours(Origin::https(accepting(&case.shows), ok))
    }

    fn port(&self) -> u16 {
        match self {
            Self::Openssl(server) => server.port(),
            Self::Ours(origin) => origin.port(),
        }
    }
}

/// H1: what a certificate can have wrong, each with its own words in the answer and in the log, and no byte sent.
#[test]
fn every_certificate_is_judged_as_a_browser_would() {
    let authorities = Authorities::new();
    judge(&authorities, &cases(&authorities), |_, _, _| {});
}

/// Holds outrider and OpenSSL to `cases`. `also` gets the place of each, its port, and the file of what is trusted;
fn judge(authorities: &Authorities, cases: &[Case], also: impl Fn(usize, u16, &Path)) {
    let servers: Vec<_> = cases.iter().map(CaseServer::of).collect();
    let mut yaml = "dns: { hosts: { partner.test: 127.0.0.1".to_owned();
    for host in ["a.partner.test", "b.a.partner.test", "ab.partner.test"] {
        yaml.push_str(&format!(", {host}: 127.0.0.1"));
    }
    yaml.push_str(" } }\ndestinations:\n");
    for (i, (case, server)) in cases.iter().zip(&servers).enumerate() {
        let (host, port, ca) = (case.host, server.port(), authorities.path(&format!("ca{i}.pem")));
        let trusted = case.trusts.as_ref().unwrap_or(&authorities.root.pem);
        std::fs::write(&ca, trusted).unwrap();
        let is_accepted = matches!(case.wanted, Accepted);
        assert_eq!(
            is_good_for_openssl(case, &ca) == is_accepted,
            case.differs.is_none(),
            "{}: OpenSSL",
            case.name
        );
        yaml.push_str(&format!(
            "  d{i}: {{ hosts: [\"{host}:{port}\"], tls: {{ ca: \"file:{}\" }}, auth: {{ bearer: env:TOKEN }} }}\n",
            ca.display()
        ));
    }
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    for (i, (case, server)) in cases.iter().zip(&servers).enumerate() {
        let name = case.name;
        let answer = proxy.get(&format!("http://{}:{}/", case.host, server.port()));
        let Refused(reason, parts) = case.wanted else {
            assert_eq!(answer.status, 200, "{name}: {}", answer.text());
            continue;
        };
        assert_eq!(answer.status, 502, "{name}: {}", answer.text());
        let detail = answer.assert_ours(502, "tls_certificate_error");
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(problem["reason"], reason, "{name}: {detail}");
        assert!(
            detail.starts_with(&format!("{} shows ", case.host)),
            "{name}: {detail}"
        );
        for part in parts {
            assert!(detail.contains(part), "{name}: {detail}");
        }
        eventually("the log tells the same", || proxy.log().contains(&detail));
        let labels = [
            ("destination", &*format!("d{i}")),
            ("error", "tls_certificate_error"),
        ];
        assert!(proxy.metric("outrider_errors_total", &labels) >= 1.0, "{name}");
        if let CaseServer::Ours(origin) = server {
            assert_eq!(origin.raw(), "", "{name}: request bytes left");
        }
    }
    for (i, server) in servers.iter().enumerate() {
        also(i, server.port(), &authorities.path(&format!("ca{i}.pem")));
    }
}

//! Certificates whose keys are for something else.

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};

use super::{Accepted, Case, Refused};
use crate::support::authorities::{Authorities, Authority, Change};
use crate::support::pki::server_params;

/// Returns cases about the purpose of keys: RFC 5280, 4.2.1.3, 4.2.1.9 and 6.1.4 (k) to (n); RFC 8446, 4.4.2.2.
pub(super) fn usages(authorities: &Authorities) -> Vec<Case> {
    use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyAgreement, KeyCertSign, KeyEncipherment};

    let root = &authorities.root;
    let case = Case::new;
    let leaf = |issuer: &Authority, above: &[&Authority], alter: Change| {
        authorities.leaf(&["partner.test"], issuer, above, alter)
    };
    let of_use = |name, uses: &[KeyUsagePurpose], wanted| {
        let shows = leaf(root, &[], &|params| params.key_usages = uses.to_vec());
        case(name, shows, wanted)
    };
    let below = |name, uses: &[KeyUsagePurpose], wanted| {
        let middle = Authority::new("Middle CA", Some(root), &|params| {
            params.key_usages = uses.to_vec()
        });
        case(name, leaf(&middle, &[&middle], &|_| {}), wanted)
    };
    let of_anchor = |name, anchor: &Authority, wanted| Case {
        trusts: Some(anchor.pem.clone()),
        ..case(name, leaf(anchor, &[], &|_| {}), wanted)
    };
    let anchor = |alter: Change| Authority::new("Odd Root", None, alter);
    let itself = |name, alter: Change, wanted| {
        let (mut params, key) = (server_params(&["partner.test"]), KeyPair::generate().unwrap());
        alter(&mut params);
        let pem = params.self_signed(&key).unwrap().pem();
        Case {
            trusts: Some(pem.clone()),
            ..case(name, authorities.write(pem, key.serialize_pem()), wanted)
        }
    };
    let no_signing = Refused("certificate_purpose", &["key usage lacks digitalSignature"]);
    let no_issuing = Refused(
        "certificate_chain",
        &["signed by Middle CA", "key usage lacks keyCertSign"],
    );
    let static_rsa = Some(
        "OpenSSL allows for the key exchange by RSA alone and for static keys, which are not spoken here",
    );

    let short = anchor(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let below_short = Authority::new("Middle CA", Some(&short), &|_| {});
    let old = authorities.old_root();
    vec![
        of_use("a key that signs", &[DigitalSignature], Accepted),
        of_use(
            "a key that signs and enciphers",
            &[DigitalSignature, KeyEncipherment],
            Accepted,
        ),
        of_use("a key that signs lists", &[CrlSign], no_signing),
        of_use("a key that signs certificates", &[KeyCertSign], no_signing),
        Case {
            differs: static_rsa,
            ..of_use("a key that enciphers", &[KeyEncipherment], no_signing)
        },
        Case {
            differs: static_rsa,
            ..of_use("a key that agrees", &[KeyAgreement], no_signing)
        },
        below("an intermediate that issues", &[KeyCertSign], Accepted),
        below(
            "an intermediate that issues and signs lists",
            &[KeyCertSign, CrlSign],
            Accepted,
        ),
        below("an intermediate that signs lists", &[CrlSign], no_issuing),
        below("an intermediate that signs", &[DigitalSignature], no_issuing),
        of_anchor(
            "a root that issues",
            &anchor(&|params| params.key_usages = vec![KeyCertSign]),
            Accepted,
        ),
        Case {
            trusts: Some(old.pem.clone()),
            ..case("a root of version 1", leaf(&old, &[], &|_| {}), Accepted)
        },
        of_anchor(
            "a root that signs lists",
            &anchor(&|params| params.key_usages = vec![CrlSign]),
            Refused(
                "certificate_chain",
                &["signed by Odd Root", "key usage lacks keyCertSign"],
            ),
        ),
        of_anchor(
            "a root that is no authority",
            &anchor(&|params| params.is_ca = IsCa::ExplicitNoCa),
            Refused(
                "certificate_chain",
                &["signed by Odd Root, which is no authority"],
            ),
        ),
        of_anchor(
            "a root that does not say that it is an authority",
            &anchor(&|params| params.is_ca = IsCa::NoCa),
            Refused(
                "certificate_chain",
                &["signed by Odd Root, which is no authority"],
            ),
        ),
        of_anchor(
            "a root for clients only",
            &anchor(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            Refused(
                "certificate_purpose",
                &["of Odd Root that is not meant for servers"],
            ),
        ),
        of_anchor("a root that allows nobody below", &short, Accepted),
        Case {
            trusts: Some(short.pem.clone()),
            ..case(
                "an authority below a root that allows nobody below",
                leaf(&below_short, &[&below_short], &|_| {}),
                Refused(
                    "certificate_chain",
                    &["more authorities below Odd Root", "path length"],
                ),
            )
        },
        itself("itself", &|_| {}, Accepted),
        itself(
            "itself, a key that signs",
            &|params| params.key_usages = vec![DigitalSignature],
            Accepted,
        ),
        itself(
            "itself, an authority",
            &|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            Accepted,
        ),
        itself(
            "itself, a key that signs lists",
            &|params| params.key_usages = vec![CrlSign],
            no_signing,
        ),
        itself(
            "itself, an authority whose key signs certificates",
            &|params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.key_usages = vec![KeyCertSign];
            },
            no_signing,
        ),
        itself(
            "itself, an authority for clients only",
            &|params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            },
            Refused("certificate_purpose", &["not meant for servers"]),
        ),
    ]
}

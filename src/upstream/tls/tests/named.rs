//! A certificate that `tls.ca` names itself, and the other certificates of the file.

use rcgen::{CustomExtension, GeneralSubtree, NameConstraints};

use super::*;

/// Each authority that is wrong in its own way refuses what it issued, but not what is named itself.
#[tokio::test]
async fn what_is_named_is_accepted_whatever_stands_beside_it() {
    let algorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
    let authority = |name, issuer: Option<&Pair>, alter: &dyn Fn(&mut CertificateParams)| {
        Pair::new(name, issuer, algorithm, |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            alter(params);
        })
    };
    let root = authority("Agency Root", None, &|_| {});
    let short = authority("Short Root", None, &|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let elsewhere = |params: &mut CertificateParams| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("elsewhere.test".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    };
    let demanding = |params: &mut CertificateParams| {
        // policyConstraints, requireExplicitPolicy of 0.
        let extension = CustomExtension::from_oid_content(&[2, 5, 29, 36], vec![0x30, 3, 0x80, 1, 0]);
        params.custom_extensions = vec![extension];
    };
    let expired = |params: &mut CertificateParams| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    };
    let clients = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    };
    let cases = [
        (
            authority("Agency Root", None, &|_| {}),
            authority("Agency CA", Some(&root), &|_| {}),
            "certificate_signature",
        ),
        (
            authority("Other", None, &|_| {}),
            authority("Agency CA", Some(&short), &|_| {}),
            "certificate_unknown_issuer",
        ),
        (
            root,
            authority("Agency CA", None, &|_| {}),
            "certificate_unknown_issuer",
        ),
    ];
    for (beside, middle, wanted) in cases {
        both(&beside, &middle, wanted).await;
    }
    for (alter, wanted) in [
        (
            &elsewhere as &dyn Fn(&mut CertificateParams),
            "certificate_constraint",
        ),
        (&demanding, "certificate_policy"),
        (&expired, "certificate_expired"),
        (&clients, "certificate_purpose"),
    ] {
        let root = authority("Agency Root", None, &|_| {});
        both(&root, &authority("Agency CA", Some(&root), alter), wanted).await;
    }
    both(
        &short,
        &authority("Agency CA", Some(&short), &|_| {}),
        "certificate_chain",
    )
    .await;
}

/// A server below `middle`, where `beside` is trusted: refused, and accepted where it is named before or after that.
async fn both(beside: &Pair, middle: &Pair, wanted: &str) {
    let partner = Pair::leaf("partner.test", middle);
    let server = Arc::new(server(&[&partner, middle], None, BOTH));
    let with = async |roots: &str| {
        let settings = settings(&with_ca(), &[("CA", roots)]).unwrap();
        let met = meet(&settings, &server, &target(host("partner.test")), Alpn::H1).await;
        met.client.map(drop).map_err(|error| error.reason())
    };
    let (one, other) = (partner.pem(), beside.pem());
    assert_eq!(with(&other).await, Err(wanted));
    for roots in [format!("{one}{other}"), format!("{other}{one}")] {
        assert_eq!(with(&roots).await, Ok(()), "{wanted}");
    }
}

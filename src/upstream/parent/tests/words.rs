//! The sentences about a parent name its own keys, and the scheme that may be meant.

use super::*;
use crate::upstream::parent::error::keys_of_parent;
use crate::upstream::tls::CertificateFault;

#[test]
fn the_other_scheme_is_named_where_it_may_be_meant() {
    let not_tls = || {
        let host = "p.test".to_owned();
        ParentFault::Tls(Box::new(tls::Error::NotTls {
            host,
            hint: String::new(),
        }))
    };
    for (url, fault, words) in [
        (
            "http://p.test:1",
            ParentFault::Closed,
            "if its port speaks TLS, write https://",
        ),
        (
            "https://p.test:1",
            not_tls(),
            "if its port speaks no TLS, write http://",
        ),
        (
            "socks5://p.test:1",
            ParentFault::NotSocks,
            "if it is an HTTP proxy, write http://",
        ),
        (
            "socks5://p.test:1",
            ParentFault::Silent(LIMIT),
            "if it is an HTTP proxy, write http://",
        ),
    ] {
        let parent = one("env:P", &[("P", url)]);
        let text = ParentError::new(&parent, &target("api.test:443"), fault).to_string();
        assert!(text.contains(words), "{text}");
    }
    let parent = one("env:P", &[("P", "https://p.test:1")]);
    let text = ParentError::new(&parent, &target("api.test:443"), ParentFault::Closed).to_string();
    assert!(!text.contains("write http"), "{text}");
}

#[test]
fn a_certificate_of_a_parent_is_trusted_by_the_keys_of_parents() {
    let parent = one("env:P", &[("P", "https://p.test:1")]);
    let error = tls::Error::ClientCertificateRequired {
        host: "p.test".to_owned(),
        alert: rustls::AlertDescription::CertificateRequired,
        of: String::new(),
    };
    let fault = ParentFault::Tls(Box::new(error));
    let text = ParentError::new(&parent, &target("api.test:443"), fault).to_string();
    assert!(
        text.contains("set tls.client_certificate (of the parent, written as { url: "),
        "{text}"
    );
    for text in [
        "if it is the right one, name it in tls.ca",
        "certificate in tls.ca or tls.ca_extra",
        "or set tls.ca",
    ] {
        let told = keys_of_parent(text);
        assert!(
            told.contains("egress.parent_ca (or in tls.ca of the parent"),
            "{told}"
        );
        assert!(!told.contains("ca_extra"), "{told}");
    }
    let issuer = || "Agency CA".to_owned();
    for fault in [
        CertificateFault::Authority,
        CertificateFault::SelfSigned { name: issuer() },
        CertificateFault::Signature {
            whose: String::new(),
            issuer: issuer(),
        },
        CertificateFault::UnknownIssuer {
            issuer: issuer(),
            or: "",
        },
    ] {
        let host = "p.test".to_owned();
        let told = ParentFault::Tls(Box::new(tls::Error::Certificate { host, fault })).to_string();
        assert!(
            told.contains("egress.parent_ca (or in tls.ca of the parent") && !told.contains("ca_extra"),
            "{told}"
        );
    }
}

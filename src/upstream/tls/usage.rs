//! Checks what the keys of a path may be used for: RFC 5280, 4.2.1.3 and 6.1.4 (n), and RFC 8446, 4.4.2.2.
//!
//! webpki verifies signatures, dates, names, `cA`, path length and extended key usage. It does not check the key usage of
//! issuers and servers, nor what the certificate of a root says.

use rustls::pki_types::TrustAnchor;
use x509_parser::certificate::X509Certificate;

use super::certificate;
use super::fault::CertificateFault;
use crate::secret::anchors::{Anchors, Issues, Restriction};

/// Checks a path that webpki has verified: the server's certificate first, and its root among the anchors. `has_lists`: its
/// certificates were looked up in lists of their issuers.
pub(super) fn judge(
    path: &[X509Certificate<'_>],
    root: &TrustAnchor<'_>,
    anchors: &Anchors,
    has_lists: bool,
) -> Result<(), CertificateFault> {
    let Some((server, above)) = path.split_first() else {
        return Err(unreadable());
    };
    is_of_server(server)?;
    for one in above {
        let usage = one.key_usage().map_err(|_| unreadable())?;
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            let name = certificate::title(one);
            return Err(CertificateFault::NotIssuer { name });
        }
    }
    let restriction = anchors.restriction(root);
    // A certificate that is trusted itself has issued nothing here.
    match restriction.filter(|restriction| *restriction.certificate != *server.as_raw()) {
        Some(restriction) => is_within(restriction, certificate::name_of_anchor(root), path, has_lists),
        None => Ok(()),
    }
}

/// Checks that a server may sign with this certificate: all key exchanges used here are signed.
pub(super) fn is_of_server(certificate: &X509Certificate<'_>) -> Result<(), CertificateFault> {
    let whose = String::new;
    let purposes = certificate.extended_key_usage().map_err(|_| unreadable())?;
    if purposes.is_some_and(|purposes| !purposes.value.server_auth) {
        return Err(CertificateFault::Purpose { whose: whose() });
    }
    match certificate.key_usage().map_err(|_| unreadable())? {
        Some(usage) if !usage.value.digital_signature() => Err(CertificateFault::NotSigner),
        Some(_) | None => Ok(()),
    }
}

/// Checks `chain` against what the certificate of its root says.
fn is_within(
    restriction: &Restriction,
    root: String,
    chain: &[X509Certificate<'_>],
    has_lists: bool,
) -> Result<(), CertificateFault> {
    match restriction.issues {
        Issues::Freely => {}
        Issues::NoAuthority => return Err(CertificateFault::NotAuthority { name: root }),
        Issues::NotByKeyUsage => return Err(CertificateFault::NotIssuer { name: root }),
    }
    if !restriction.is_for_servers {
        let whose = format!(" of {root}");
        return Err(CertificateFault::Purpose { whose });
    }
    let is_counted = |one: &&X509Certificate<'_>| one.subject() != one.issuer();
    let below = chain.iter().skip(1).filter(is_counted).count();
    let is_long = |limit| usize::try_from(limit).is_ok_and(|limit| limit < below);
    if restriction.path_length.is_some_and(is_long) {
        return Err(CertificateFault::PathLength { authority: root });
    }
    match chain.last() {
        Some(last) if has_lists && !restriction.signs_lists => Err(CertificateFault::RevocationUnknown {
            name: certificate::title(last),
            why: no_list_signer(&root),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Returns why lists of `issuer` are not valid.
pub(super) fn no_list_signer(issuer: &str) -> String {
    format!("{issuer} may sign no lists (its key usage lacks cRLSign); get a list of one that may")
}

pub(super) fn unreadable() -> CertificateFault {
    CertificateFault::Unusable("it cannot be read".to_owned())
}

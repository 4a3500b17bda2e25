//! Which authorities may vouch for clients.
//!
//! Each client has the authority that its `ca` names. For instance identities without `ca` it is the authority of our own
//! identity: those certificates that the platform put beside ours in CF_INSTANCE_CERT, and the roots in CF_SYSTEM_CERT_PATH
//! that vouch for ours. The folder has authorities for other purposes, too: so a certificate must also have the same issuer as
//! ours, whatever root it leads to.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustls::DistinguishedName;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::BuildError;
use crate::config::SecretRef;
use crate::secret::anchors::{Anchors, Issues};
use crate::secret::{Snapshot, pem};
use crate::upstream::tls::provider;

/// The authorities of all clients.
#[derive(Debug, Default)]
pub(super) struct Trust(Vec<Vouching>);

/// One set of authorities.
#[derive(Debug)]
struct Vouching {
    anchors: Anchors,
    /// The `ca` that names it; `None`: the platform's.
    from: Option<SecretRef>,
    /// The name that a client's certificate must have as its issuer, in DER.
    issuer: Option<Vec<u8>>,
    /// Certificates that the user named: each is trusted as a client's certificate as well.
    named: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// Returns the index of the authorities that `from` names. Reads them where they are not known yet.
    pub(super) fn of(&mut self, from: Option<&SecretRef>, snapshot: &Snapshot) -> Result<usize, BuildError> {
        if let Some(place) = self.0.iter().position(|one| one.from.as_ref() == from) {
            return Ok(place);
        }
        self.0.push(match from {
            Some(reference) => Vouching::named(reference, snapshot)?,
            None => Vouching::platform(snapshot)?,
        });
        Ok(self.0.len() - 1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether these authorities vouch for the certificate that begins `chain`.
    pub(super) fn vouches(&self, authority: usize, chain: &[CertificateDer<'_>], now: SystemTime) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return false;
        };
        self.0[authority].verify(leaf, intermediates, unix(now)).is_ok()
    }

    /// Refuses a certificate for which no authority vouches, with what the one said that came closest.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let mut closest = webpki::Error::UnknownIssuer;
        for one in &self.0 {
            match one.verify(leaf, intermediates, now) {
                Ok(()) => return Ok(()),
                Err(webpki::Error::UnknownIssuer) => {}
                Err(error) => closest = error,
            }
        }
        Err(closest)
    }

    /// Returns the names of all authorities, for clients that choose their certificate by them.
    pub(super) fn names(&self) -> Vec<DistinguishedName> {
        let anchors = self.0.iter().flat_map(|one| one.anchors.roots());
        let mut names: Vec<DistinguishedName> = Vec::new();
        for anchor in anchors {
            let name = DistinguishedName::in_sequence(&anchor.subject);
            if !names.iter().any(|known| known.as_ref() == name.as_ref()) {
                names.push(name);
            }
        }
        names
    }
}

impl Vouching {
    fn named(reference: &SecretRef, snapshot: &Snapshot) -> Result<Self, BuildError> {
        let mut anchors = Anchors::new();
        let named = certificates(reference, snapshot)?;
        for (i, certificate) in named.iter().enumerate() {
            let bad = |_| BuildError::BadAuthority {
                reference: reference.clone(),
                position: i + 1,
            };
            anchors.add(certificate.clone()).map_err(bad)?;
        }
        Ok(Self {
            anchors,
            from: Some(reference.clone()),
            issuer: None,
            named,
        })
    }

    fn platform(snapshot: &Snapshot) -> Result<Self, BuildError> {
        let own = snapshot.instance_identity().map_err(BuildError::Platform)?.cert;
        let chain = certificates(&own, snapshot)?;
        let bad = |position| BuildError::BadAuthority {
            reference: own.clone(),
            position,
        };
        let (leaf, issuers) = chain.split_first().ok_or_else(|| bad(1))?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| bad(1))?;
        let mut anchors = Anchors::new();
        for (i, issuer) in issuers.iter().enumerate() {
            anchors.add(issuer.clone()).map_err(|_| bad(i + 2))?;
        }
        // As of a time when ours was valid: it may be renewed late, which says nothing about its root.
        let issued = parsed.validity().not_before.timestamp();
        let issued = Duration::from_secs(u64::try_from(issued).unwrap_or_default() + 1);
        for root in system_certificates(snapshot) {
            let Ok(anchor) = webpki::anchor_from_trusted_cert(&root) else {
                continue;
            };
            let is_ours = verify(leaf, issuers, &[anchor], UnixTime::since_unix_epoch(issued), None);
            if is_ours.is_ok() {
                anchors.add(root).map_err(|_| bad(1))?;
            }
        }
        if anchors.is_empty() {
            return Err(BuildError::NoAuthority { reference: own });
        }
        Ok(Self {
            anchors,
            from: None,
            issuer: Some(parsed.issuer().as_raw().to_vec()),
            named: Vec::new(),
        })
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        if let Some(issuer) = &self.issuer {
            let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| webpki::Error::BadDer)?;
            if parsed.issuer().as_raw() != issuer.as_slice() {
                return Err(webpki::Error::UnknownIssuer);
            }
        }
        // A certificate that is trusted itself need not be an authority, and vouches for nobody else then.
        let judge = |path: &VerifiedPath<'_>| match self.anchors.restriction(path.anchor()) {
            Some(own) if own.issues != Issues::Freely && own.certificate != path.end_entity().der() => {
                Err(webpki::Error::CertDistrusted)
            }
            Some(_) | None => Ok(()),
        };
        match verify(leaf, intermediates, self.anchors.roots(), now, Some(&judge)) {
            // `openssl req -x509` makes self-signed certificates that may issue others. webpki takes them for authorities only.
            Err(webpki::Error::CaUsedAsEndEntity) if self.named.contains(leaf) => is_valid_itself(leaf, now),
            verified => verified,
        }
    }
}

/// Checks the dates and the purpose of a certificate that is trusted itself.
fn is_valid_itself(leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), webpki::Error> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| webpki::Error::BadDer)?;
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    if seconds < validity.not_before.timestamp() || seconds > validity.not_after.timestamp() {
        return Err(webpki::Error::InvalidCertValidity);
    }
    let purposes = parsed.extended_key_usage().map_err(|_| webpki::Error::BadDer)?;
    match purposes {
        Some(purposes) if !purposes.value.client_auth && !purposes.value.any => {
            Err(webpki::Error::CertDistrusted)
        }
        Some(_) | None => Ok(()),
    }
}

type Judge<'j> = &'j dyn Fn(&VerifiedPath<'_>) -> Result<(), webpki::Error>;

fn verify(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &[TrustAnchor<'_>],
    now: UnixTime,
    judge: Option<Judge<'_>>,
) -> Result<(), webpki::Error> {
    let algorithms = provider().signature_verification_algorithms.all;
    let leaf = EndEntityCert::try_from(leaf)?;
    let usage = KeyUsage::client_auth();
    leaf.verify_for_usage(algorithms, anchors, intermediates, now, usage, None, judge)
        .map(drop)
}

fn certificates(
    reference: &SecretRef,
    snapshot: &Snapshot,
) -> Result<Vec<CertificateDer<'static>>, BuildError> {
    let text = snapshot.read_binary(reference).map_err(BuildError::Secret)?;
    pem::certificates(&text).map_err(|source| BuildError::Pem {
        reference: reference.clone(),
        source,
    })
}

/// Returns the certificates that the platform has put into its folder. A file that cannot be read counts as empty.
fn system_certificates(snapshot: &Snapshot) -> Vec<CertificateDer<'static>> {
    let Some(folder) = snapshot.variable("CF_SYSTEM_CERT_PATH") else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(PathBuf::from(folder)).into_iter().flatten();
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "crt"));
    paths.sort();
    let read = |path| certificates(&SecretRef::File(path), snapshot).unwrap_or_default();
    paths.into_iter().flat_map(read).collect()
}

fn unix(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

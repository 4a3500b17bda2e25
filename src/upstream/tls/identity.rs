//! Who we are: the client certificate, its key, and the chain put in order.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroize;

use super::{SettingsError, certificate, certificates, read};
use crate::config::ClientCertificate;
use crate::secret::{Sources, pem};

/// A client certificate with its key.
pub(super) struct Identity {
    certified: Arc<CertifiedKey>,
    /// Whether its extended key usage allows it for clients, or says nothing.
    pub(super) for_clients: bool,
    pub(super) not_after: SystemTime,
    pub(super) not_before: SystemTime,
}

impl Identity {
    /// Reads the pair. The certificate is the one whose public key is the key's, wherever it stands in the file; its
    /// issuers follow in order, and certificates that do not belong to the chain are left out.
    pub(super) fn load(pair: &ClientCertificate, sources: &Sources) -> Result<Self, SettingsError> {
        let all = certificates(CERTIFICATE, &pair.cert, sources)?;
        let text = read(KEY, &pair.key, sources)?;
        let mut der = pem::private_key(&text).map_err(|source| SettingsError::Pem {
            key: KEY,
            reference: pair.key.clone(),
            source,
        })?;
        drop(text);
        let key = any_supported_type(&der);
        der.zeroize();
        let key = key.map_err(|source| SettingsError::WeakKey {
            key: KEY,
            reference: pair.key.clone(),
            source,
        })?;

        let bad = |position| SettingsError::BadCertificate {
            key: CERTIFICATE,
            reference: pair.cert.clone(),
            position,
        };
        let parsed = all
            .iter()
            .enumerate()
            .map(|(i, der)| certificate::parse(der).ok_or_else(|| bad(i + 1)));
        let parsed: Vec<_> = parsed.collect::<Result<_, _>>()?;
        let public = public_key(&*key);
        let leaf = parsed.iter().position(|certificate| {
            public
                .as_deref()
                .is_none_or(|public| certificate.public_key().subject_public_key.data == public)
        });
        let leaf = leaf.ok_or_else(|| SettingsError::KeyMismatch {
            certificate: pair.cert.clone(),
            key: pair.key.clone(),
        })?;

        let mut chain = vec![leaf];
        while let Some(next) = issuer_of(*chain.last().unwrap_or(&leaf), &parsed)
            && !chain.contains(&next)
        {
            chain.push(next);
        }
        let purposes = parsed[leaf].extended_key_usage().ok().flatten();
        let (not_before, not_after) = certificate::validity(&parsed[leaf]);
        let chain: Vec<CertificateDer<'static>> = chain.into_iter().map(|i| all[i].clone()).collect();
        Ok(Self {
            certified: Arc::new(CertifiedKey::new(chain, key)),
            for_clients: purposes.is_none_or(|purposes| purposes.value.client_auth || purposes.value.any),
            not_after,
            not_before,
        })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Shows our certificate to servers that ask, and remembers that one did.
pub(super) struct Presenter {
    asked: AtomicBool,
    certified: Option<Arc<CertifiedKey>>,
}

impl Presenter {
    pub(super) fn new(identity: Option<&Identity>) -> Self {
        Self {
            asked: AtomicBool::new(false),
            certified: identity.map(|identity| identity.certified.clone()),
        }
    }

    /// Whether a server of this destination has ever asked for a client certificate. A server that does, does so each
    /// time, but only a full handshake shows it: a resumed one does not ask again.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

impl ResolvesClientCert for Presenter {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // No choice by the server's hints: many send none or wrong ones, and there is only one certificate.
        self.asked.store(true, Ordering::Relaxed);
        self.certified.clone()
    }

    fn has_certs(&self) -> bool {
        self.certified.is_some()
    }
}

impl fmt::Debug for Presenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presenter")
            .field("has_certificate", &self.certified.is_some())
            .finish_non_exhaustive()
    }
}

/// The bits of the public key, without the algorithm, which has several spellings. `None` where the key does not say.
fn public_key(key: &dyn SigningKey) -> Option<Vec<u8>> {
    let spki = key.public_key()?;
    let (_, spki) = SubjectPublicKeyInfo::from_der(&spki).ok()?;
    Some(spki.subject_public_key.data.into_owned())
}

/// The certificate, by its position, that issued the one at `position`.
fn issuer_of(position: usize, parsed: &[x509_parser::certificate::X509Certificate<'_>]) -> Option<usize> {
    let issuer = parsed[position].issuer().as_raw();
    (0..parsed.len()).find(|i| *i != position && parsed[*i].subject().as_raw() == issuer)
}

const CERTIFICATE: &str = "tls.client_certificate.cert";
const KEY: &str = "tls.client_certificate.key";

//! Shows our certificate to a server that asks, and remembers what it asked for.

use std::fmt;
use std::sync::{Arc, Mutex};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::certificate;
use crate::sync::lock;

/// The most authorities that are kept; servers may name hundreds.
const SHOWN: usize = 8;

/// The longest name that is kept, in bytes.
const LONGEST: usize = 1024;

/// Of one host, because its servers ask for the same.
pub(super) struct Presenter {
    asked: Mutex<Option<CertificateRequest>>,
    certified: Option<Arc<CertifiedKey>>,
}

/// A server's request for a certificate.
#[derive(Clone)]
struct CertificateRequest {
    /// The first of the authorities whose certificates it accepts, in DER.
    authorities: Vec<Vec<u8>>,
    more: usize,
}

/// Whether a server has asked for a client certificate, and what it got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum CertificateRequested {
    AndAnswered {
        /// The authorities whose certificates it accepts; empty if it did not say.
        accepts: String,
        /// The authority of our certificate, if it is not among them.
        ours: Option<String>,
    },
    ButHadNone {
        accepts: String,
    },
    #[default]
    Never,
}

impl Presenter {
    pub(super) fn new(certified: Option<Arc<CertifiedKey>>) -> Self {
        Self {
            asked: Mutex::default(),
            certified,
        }
    }

    /// Returns what a server of this host has asked for so far. A server that asks does so in each full handshake, but not when
    /// it resumes a session.
    pub(super) fn asked(&self) -> CertificateRequested {
        let asked = lock(&self.asked).clone();
        let Some(request) = asked else {
            return CertificateRequested::Never;
        };
        let accepts = request.accepts();
        match &self.certified {
            None => CertificateRequested::ButHadNone { accepts },
            Some(certified) => CertificateRequested::AndAnswered {
                ours: request.misses(certified),
                accepts,
            },
        }
    }
}

impl CertificateRequest {
    fn of(authorities: &[&[u8]]) -> Self {
        let shown = authorities.iter().take(SHOWN).filter(|der| der.len() <= LONGEST);
        let shown: Vec<_> = shown.map(|der| der.to_vec()).collect();
        Self {
            more: authorities.len() - shown.len(),
            authorities: shown,
        }
    }

    /// Lists the authorities, as `A, B and 3 more`.
    fn accepts(&self) -> String {
        let name = |der: &Vec<u8>| {
            let name = X509Name::from_der(der).ok();
            name.map_or_else(|| certificate::plain(""), |(_, name)| certificate::name(&name))
        };
        let names: Vec<_> = self.authorities.iter().map(name).collect();
        match self.more {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        }
    }

    /// Returns the authority of the certificate, if the server names authorities and none of them is in its chain.
    fn misses(&self, certified: &CertifiedKey) -> Option<String> {
        // Those that are not kept may be the ones.
        if self.authorities.is_empty() || self.more > 0 {
            return None;
        }
        let chain = certified.cert.iter();
        let chain: Vec<_> = chain.filter_map(|der| certificate::parse(der)).collect();
        let is_named = |name: &X509Name<'_>| self.authorities.iter().any(|der| der == name.as_raw());
        if chain
            .iter()
            .any(|one| is_named(one.issuer()) || is_named(one.subject()))
        {
            None
        } else {
            chain.last().map(|last| certificate::name(last.issuer()))
        }
    }
}

impl ResolvesClientCert for Presenter {
    fn resolve(&self, authorities: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // No choice by the server's hints: many send none or wrong ones, and there is only one certificate.
        let asked = Some(CertificateRequest::of(authorities));
        *lock(&self.asked) = asked;
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

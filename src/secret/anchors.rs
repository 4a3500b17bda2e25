//! Trust anchors, and what their own certificates restrict.
//!
//! webpki keeps a root's name, key and name constraints. What else its certificate says (RFC 5280, 4.2.1.3, 4.2.1.9
//! and 4.2.1.12) is kept here, for the few roots that say something: a server's certificate may be trusted as
//! its own root, and must not issue others then. OpenSSL treats its roots alike.

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::KeyUsage;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

/// The roots that a chain may end at. Cloned where a destination adds more.
#[derive(Clone, Debug)]
pub(crate) struct Anchors {
    restricted: Vec<(usize, Restriction)>,
    store: RootCertStore,
}

/// What a root may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Restriction {
    pub(crate) certificate: CertificateDer<'static>,
    /// Its extended key usage is for servers, or says nothing.
    pub(crate) is_for_servers: bool,
    pub(crate) issues: Issues,
    /// How many authorities may be below it.
    pub(crate) path_length: Option<u32>,
    pub(crate) signs_lists: bool,
}

/// Whether a certificate may sign others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Issues {
    Freely,
    NoAuthority,
    /// Its key usage lacks keyCertSign.
    NotByKeyUsage,
}

impl Anchors {
    pub(crate) fn new() -> Self {
        Self {
            restricted: Vec::new(),
            store: RootCertStore::empty(),
        }
    }

    pub(crate) fn add(&mut self, certificate: CertificateDer<'_>) -> Result<(), rustls::Error> {
        let restriction = Restriction::of(&certificate);
        self.store.add(certificate)?;
        let place = self.store.len() - 1;
        self.restricted
            .extend(restriction.map(|restriction| (place, restriction)));
        Ok(())
    }

    pub(crate) fn shrink_to_fit(&mut self) {
        self.restricted.shrink_to_fit();
        self.store.roots.shrink_to_fit();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.store.is_empty()
    }

    pub(crate) fn roots(&self) -> &[TrustAnchor<'static>] {
        &self.store.roots
    }

    /// Returns what `root`, one of [`roots`](Self::roots), may not do. Found by its place: an equal one beside it
    /// may do more.
    pub(crate) fn restriction(&self, root: &TrustAnchor<'_>) -> Option<&Restriction> {
        let is_meant = |place: usize| std::ptr::eq(&raw const self.store.roots[place], &raw const *root);
        let found = self.restricted.iter().find(|(place, _)| is_meant(*place));
        found.map(|(_, restriction)| restriction)
    }
}

impl Restriction {
    /// `None` where the certificate may do all that an authority does.
    fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let nothing = || Self {
            certificate: der.clone().into_owned(),
            is_for_servers: false,
            issues: Issues::NoAuthority,
            path_length: None,
            signs_lists: false,
        };
        // One that cannot be read, or says a thing twice, is trusted for itself at most.
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Some(nothing());
        };
        let (Ok(constraints), Ok(usage), Ok(purposes)) = (
            certificate.basic_constraints(),
            certificate.key_usage(),
            certificate.extended_key_usage(),
        ) else {
            return Some(nothing());
        };
        let (constraints, usage) = (constraints.map(|it| it.value), usage.map(|it| it.value));
        let is_authority = match constraints {
            Some(constraints) => constraints.ca,
            // There were no extensions before version 3.
            None => certificate.version() != X509Version::V3 || usage.is_some(),
        };
        let restriction = Self {
            is_for_servers: purposes.is_none_or(|purposes| purposes.value.server_auth),
            issues: match usage.is_none_or(KeyUsage::key_cert_sign) {
                _ if !is_authority => Issues::NoAuthority,
                false => Issues::NotByKeyUsage,
                true => Issues::Freely,
            },
            path_length: constraints.and_then(|constraints| constraints.path_len_constraint),
            signs_lists: usage.is_none_or(KeyUsage::crl_sign),
            ..nothing()
        };
        let is_free = restriction.is_for_servers
            && restriction.issues == Issues::Freely
            && restriction.path_length.is_none()
            && restriction.signs_lists;
        (!is_free).then_some(restriction)
    }
}

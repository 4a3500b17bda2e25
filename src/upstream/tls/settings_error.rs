//! Why TLS settings cannot be made, and the key of the configuration that an error is about.

use std::fmt;

use super::identity::{NEW_KEY, remedy};
use super::revocation;
use crate::config::{Group, SecretRef};
use crate::secret::kind::KeyKind;
use crate::secret::{self, pem, pkcs12};

/// Why TLS settings cannot be made. Names the destination's key (`tls.ca`, …), the cause and the remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error(
        "{key}: certificate {position} of {reference} is no X.509 certificate that can be used; export it again"
    )]
    BadCertificate {
        key: TlsKey,
        reference: SecretRef,
        position: usize,
    },

    #[error(
        "tls.crl: list {position} of {reference} cannot be used: {source}; get it anew from its authority"
    )]
    BadList {
        reference: SecretRef,
        position: usize,
        source: revocation::Unusable,
    },

    #[error("tls: no TLS version or cipher is left to speak")]
    Crypto(#[source] rustls::Error),

    #[error(
        "tls.client_certificate: the key of {key} does not belong to any certificate of {certificate}; \
         name the two halves of one pair"
    )]
    KeyMismatch { certificate: SecretRef, key: SecretRef },

    #[error("{key}: no file of the folder {reference} has a certificate; name the right folder")]
    NoAuthority { key: TlsKey, reference: SecretRef },

    #[error(
        "tls.groups: the cryptography of this build has no {group} (FIPS 140-3 does not approve x25519 alone); remove it"
    )]
    NoGroup { group: Group },

    #[error(
        "tls: this build is for FIPS 140-3, and its module is not in that mode; build it again as docs/fips.md says"
    )]
    NotApproved,

    #[error(
        "tls: a certificate or key made the program panic, which is a fault of outrider; export them again"
    )]
    Panicked,

    #[error("{key}: {reference} cannot be used")]
    Pem {
        key: TlsKey,
        reference: SecretRef,
        source: pem::Error,
    },

    #[error("tls.client_certificate.pkcs12: {reference} cannot be used")]
    Pkcs12 {
        reference: SecretRef,
        source: pkcs12::Error,
    },

    #[error("{key}: {} cannot be read", key.kind())]
    Secret { key: TlsKey, source: secret::Error },

    #[error("{key}: {reference} is {found}{}", remedy(found, reference))]
    WeakKey {
        key: TlsKey,
        reference: SecretRef,
        found: KeyKind,
    },

    #[error(
        "{key}: the certificate of {reference} is for {found}, with which no handshake can be signed here; have one issued \
         for another key: {NEW_KEY}"
    )]
    WeakCertificate {
        key: TlsKey,
        reference: SecretRef,
        found: KeyKind,
    },
}

/// A key below `tls` that names certificates, keys or what opens them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsKey {
    Ca,
    CaExtra,
    ClientCertificate,
    ClientCertificateCert,
    ClientCertificateKey,
    ClientCertificatePassphrase,
    ClientCertificatePassword,
    ClientCertificatePkcs12,
    Crl,
}

impl SettingsError {
    /// Whether a certificate and a key are not of one pair, as while they are being replaced.
    pub(crate) fn is_mismatch(&self) -> bool {
        matches!(self, Self::KeyMismatch { .. })
    }

    pub(crate) fn is_of_client_certificate(&self) -> bool {
        match self {
            Self::KeyMismatch { .. } | Self::Pkcs12 { .. } => true,
            Self::BadCertificate { key, .. }
            | Self::NoAuthority { key, .. }
            | Self::Pem { key, .. }
            | Self::Secret { key, .. }
            | Self::WeakCertificate { key, .. }
            | Self::WeakKey { key, .. } => key.is_of_client_certificate(),
            Self::BadList { .. }
            | Self::Crypto(_)
            | Self::NoGroup { .. }
            | Self::NotApproved
            | Self::Panicked => false,
        }
    }
}

impl TlsKey {
    /// Returns what is there.
    fn kind(self) -> &'static str {
        match self {
            Self::Ca | Self::CaExtra | Self::ClientCertificateCert => "the certificate",
            Self::Crl => "the list",
            Self::ClientCertificate
            | Self::ClientCertificateKey
            | Self::ClientCertificatePassphrase
            | Self::ClientCertificatePassword
            | Self::ClientCertificatePkcs12 => "the secret",
        }
    }

    pub(super) fn is_of_client_certificate(self) -> bool {
        match self {
            Self::Ca | Self::CaExtra | Self::Crl => false,
            Self::ClientCertificate
            | Self::ClientCertificateCert
            | Self::ClientCertificateKey
            | Self::ClientCertificatePassphrase
            | Self::ClientCertificatePassword
            | Self::ClientCertificatePkcs12 => true,
        }
    }
}

impl fmt::Display for TlsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ca => "tls.ca",
            Self::CaExtra => "tls.ca_extra",
            Self::ClientCertificate => "tls.client_certificate",
            Self::ClientCertificateCert => "tls.client_certificate.cert",
            Self::ClientCertificateKey => "tls.client_certificate.key",
            Self::ClientCertificatePassphrase => "tls.client_certificate.passphrase",
            Self::ClientCertificatePassword => "tls.client_certificate.password",
            Self::ClientCertificatePkcs12 => "tls.client_certificate.pkcs12",
            Self::Crl => "tls.crl",
        })
    }
}

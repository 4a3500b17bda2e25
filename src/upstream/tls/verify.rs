//! Whether a server is who it should be: webpki's answer, explained.
//!
//! Nothing is accepted here that webpki refuses, but for one case: a certificate that the user named in `tls.ca` or
//! `tls.ca_extra` itself, byte for byte, stands for itself although it is a CA's or its own issuer is unknown. Its name
//! and its dates must still be right. Self-signed partners are common, and OpenSSL's clients accept them so.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use x509_parser::certificate::X509Certificate;

use super::certificate;

/// What is wrong with a server's certificate. Reads on after "HOST shows".
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Fault {
    #[error(
        "the certificate of an authority in place of a server's; to accept exactly this one, name it in tls.ca"
    )]
    Authority,

    #[error(
        "a certificate{whose} that expired {} (now is {}); whoever runs it must renew it",
        humantime::format_rfc3339_seconds(*since),
        humantime::format_rfc3339_seconds(*now)
    )]
    Expired {
        whose: String,
        since: SystemTime,
        now: SystemTime,
    },

    #[error(
        "a certificate for {names}, not for {wanted}; if that is the right one, set tls.server_name to its name"
    )]
    Foreign { names: String, wanted: String },

    #[error(
        "a certificate{whose} that is not valid before {} (now is {}); is a clock wrong?",
        humantime::format_rfc3339_seconds(*from),
        humantime::format_rfc3339_seconds(*now)
    )]
    NotYetValid {
        whose: String,
        from: SystemTime,
        now: SystemTime,
    },

    #[error("a certificate that is not meant for servers (its extended key usage lacks serverAuth)")]
    Purpose,

    #[error("a revoked certificate")]
    Revoked,

    #[error(
        "a self-signed certificate ({name}), which nothing here trusts; if it is the right one, name it in tls.ca"
    )]
    SelfSigned { name: String },

    #[error(
        "a certificate that leads to {issuer}, which is not among the trusted roots; name that authority's \
         certificate in tls.ca or tls.ca_extra{or}"
    )]
    UnknownIssuer { issuer: String, or: &'static str },

    #[error("a certificate that cannot be used ({0})")]
    Unusable(CertificateError),
}

impl Fault {
    /// The word for logs: a closed set.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Authority | Self::Purpose => "certificate_purpose",
            Self::Expired { .. } => "certificate_expired",
            Self::Foreign { .. } => "certificate_name",
            Self::NotYetValid { .. } => "certificate_not_yet_valid",
            Self::Revoked => "certificate_revoked",
            Self::SelfSigned { .. } => "certificate_self_signed",
            Self::UnknownIssuer { .. } => "certificate_unknown_issuer",
            Self::Unusable(_) => "certificate_unusable",
        }
    }

    /// Of what the handshake reports.
    pub(super) fn of(error: &CertificateError) -> Self {
        let whose = String::new;
        match error {
            CertificateError::ExpiredContext { time, not_after } => Self::Expired {
                whose: whose(),
                since: system_time(*not_after),
                now: system_time(*time),
            },
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::Purpose
            }
            CertificateError::NotValidForNameContext { expected, presented } => Self::Foreign {
                names: names(presented),
                wanted: certificate::plain(&expected.to_str()),
            },
            CertificateError::NotValidYetContext { time, not_before } => Self::NotYetValid {
                whose: whose(),
                from: system_time(*not_before),
                now: system_time(*time),
            },
            CertificateError::Other(OtherError(inner)) => match inner.downcast_ref::<Self>() {
                Some(fault) => fault.clone(),
                None => Self::Unusable(error.clone()),
            },
            CertificateError::Revoked => Self::Revoked,
            // The rest is rare and says it all in its own words; rustls may add more.
            other => Self::Unusable(other.clone()),
        }
    }
}

/// Verifies servers against one set of roots.
#[derive(Debug)]
pub(super) struct Verifier {
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
    /// `None` without any root: then nobody is trusted.
    webpki: Option<Arc<WebPkiServerVerifier>>,
}

impl Verifier {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        pinned: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, rustls::Error> {
        let webpki = match roots.is_empty() {
            true => None,
            false => {
                let builder = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
                Some(
                    builder
                        .build()
                        .map_err(|error| rustls::Error::General(error.to_string()))?,
                )
            }
        };
        Ok(Self {
            pinned,
            provider: provider.clone(),
            webpki,
        })
    }

    /// Whether `leaf` is a certificate that the user named, with the right name and dates.
    fn accepts_itself(
        &self,
        leaf: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<bool, rustls::Error> {
        if !self.pinned.iter().any(|pinned| pinned == leaf) {
            return Ok(false);
        }
        let Some(parsed) = certificate::parse(leaf) else {
            return Ok(false);
        };
        verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
        let (not_before, not_after) = certificate::validity(&parsed);
        let seconds = |time: SystemTime| {
            UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
        };
        if system_time(now) < not_before {
            let not_before = seconds(not_before);
            return Err(CertificateError::NotValidYetContext {
                time: now,
                not_before,
            }
            .into());
        }
        if system_time(now) > not_after {
            return Err(CertificateError::ExpiredContext {
                time: now,
                not_after: seconds(not_after),
            }
            .into());
        }
        Ok(true)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let answer = match &self.webpki {
            Some(webpki) => webpki.verify_server_cert(leaf, intermediates, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        let error = match answer {
            Ok(verified) => return Ok(verified),
            Err(rustls::Error::InvalidCertificate(error)) => error,
            Err(other) => return Err(other),
        };
        if (error == CertificateError::UnknownIssuer || is_authority(&error))
            && self.accepts_itself(leaf, name, now)?
        {
            return Ok(ServerCertVerified::assertion());
        }
        Err(explained(error, leaf, intermediates).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            leaf,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            leaf,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Adds what only the presented certificates tell. The peer is then told `certificate_unknown`; we know more.
fn explained(
    error: CertificateError,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> CertificateError {
    let fault = match &error {
        CertificateError::UnknownIssuer => unknown_issuer(leaf, intermediates),
        CertificateError::ExpiredContext { time, not_after } => owner(leaf, intermediates, |_, until| {
            until == system_time(*not_after)
        })
        .map(|whose| Fault::Expired {
            whose,
            since: system_time(*not_after),
            now: system_time(*time),
        }),
        CertificateError::NotValidYetContext { time, not_before } => owner(leaf, intermediates, |from, _| {
            from == system_time(*not_before)
        })
        .map(|whose| Fault::NotYetValid {
            whose,
            from: system_time(*not_before),
            now: system_time(*time),
        }),
        error if is_authority(error) => Some(Fault::Authority),
        _ => None,
    };
    fault.map_or(error, |fault| {
        CertificateError::Other(OtherError(Arc::new(fault)))
    })
}

/// Which authority is missing: the issuer of the last certificate to which the presented ones lead.
fn unknown_issuer(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Option<Fault> {
    let mut last = certificate::parse(leaf)?;
    if last.subject() == last.issuer() {
        return Some(Fault::SelfSigned {
            name: certificate::name(last.subject()),
        });
    }
    let mut others: Vec<X509Certificate<'_>> = intermediates
        .iter()
        .filter_map(|der| certificate::parse(der))
        .collect();
    while let Some(next) = others.iter().position(|other| other.subject() == last.issuer()) {
        last = others.swap_remove(next);
    }
    let or = match intermediates.is_empty() {
        true => ", or have its server send the intermediate certificate as well",
        false => "",
    };
    Some(Fault::UnknownIssuer {
        issuer: certificate::name(last.issuer()),
        or,
    })
}

/// " of NAME" where a certificate above the leaf has the validity that is meant; `None` where the leaf has.
fn owner(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    meant: impl Fn(SystemTime, SystemTime) -> bool,
) -> Option<String> {
    let is_meant = |certificate: &X509Certificate<'_>| {
        let (from, until) = certificate::validity(certificate);
        meant(from, until)
    };
    if is_meant(&certificate::parse(leaf)?) {
        return None;
    }
    let found = intermediates
        .iter()
        .filter_map(|der| certificate::parse(der))
        .find(is_meant)?;
    Some(format!(" of {}", certificate::name(found.subject())))
}

/// Whether webpki met a CA's certificate where a server's belongs. rustls has no name of its own for it.
fn is_authority(error: &CertificateError) -> bool {
    match error {
        CertificateError::Other(OtherError(inner)) => {
            matches!(inner.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
        }
        _ => false,
    }
}

/// `DnsName("a.test")` and `IpAddress(…)`, as webpki puts it, without the shell; at most five.
fn names(presented: &[String]) -> String {
    let name = |written: &String| {
        let inner = written
            .split_once('(')
            .map_or(written.as_str(), |(_, rest)| rest.trim_end_matches(')'));
        certificate::plain(inner.trim_matches('"'))
    };
    let shown: Vec<_> = presented.iter().take(5).map(name).collect();
    match (shown.is_empty(), presented.len().saturating_sub(shown.len())) {
        (true, _) => "no name at all (the common name does not count)".to_owned(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

//! Explains why TLS to an upstream failed: which host, which certificate, and what was wrong.
//!
//! In TLS 1.2 a refused client certificate ends the handshake; in TLS 1.3 the handshake is over by then and the alert
//! comes with the first read. Both are the same [`Error`] here. Of the server's bytes a message contains only names from its
//! certificate, cut and cleaned.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use rustls::{AlertDescription, InvalidMessage, PeerIncompatible};

use super::fault::CertificateFault;
use super::late::Late;
use super::presenter::CertificateRequested;
use crate::config::TlsVersion;

/// How the remark about long ClientHellos begins.
const LENGTH_HINT: &str = "; it, or a box on the way, may not take a ClientHello";

/// Why a handshake failed, or a connection after it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{host} ended TLS with the alert {}{}", name(*alert), advice(*alert))]
    Alert { host: String, alert: AlertDescription },

    #[error("{host} shows {fault}")]
    Certificate { host: String, fault: CertificateFault },

    #[error("{host} refused our client certificate (alert {}){advice}", name(*alert))]
    ClientCertificateRefused {
        host: String,
        alert: AlertDescription,
        advice: String,
    },

    #[error(
        "{host} asks for a client certificate only once it has read the request ({how}), which HTTP/2 forbids and outrider \
         does not do; its operator must ask for it in the handshake, for the whole host or port (Apache: SSLVerifyClient \
         outside of <Location> and <Directory>), and so best under a host name of its own"
    )]
    ClientCertificateLate { host: String, how: Late },

    #[error(
        "{host} demands a client certificate{of} and this destination has none; set tls.client_certificate"
    )]
    ClientCertificateRequired {
        host: String,
        alert: AlertDescription,
        /// Whose, where it says so.
        of: String,
    },

    #[error("{host} closed the connection during the TLS handshake{hint}")]
    Closed {
        host: String,
        hint: String,
        source: io::Error,
    },

    #[error("{host} does not choose HTTP/2; leave out `http: 2`")]
    NoHttp2 { host: String },

    #[error("{host} does not speak TLS on this port; check the port{hint}")]
    NotTls { host: String, hint: String },

    #[error("{host} {}", breach(source))]
    Protocol { host: String, source: rustls::Error },

    #[error(
        "{host} did not finish the TLS handshake within {} (timeouts.tls); see that it speaks TLS on this port, or raise \
         it{hint}",
        humantime::format_duration(*limit)
    )]
    Timeout {
        host: String,
        hint: String,
        limit: Duration,
    },

    #[error("{host} speaks no version of TLS that is accepted here: {}", spoken(*versions))]
    Version {
        host: String,
        /// The server's alert, if it sent one.
        alert: Option<AlertDescription>,
        versions: TlsVersion,
    },
}

/// What came before an error, on connections to the same host.
#[derive(Clone, Debug, Default)]
pub(super) struct Before {
    pub(super) asked: CertificateRequested,
    /// Our ClientHello is longer than a segment of TCP.
    pub(super) is_long: bool,
    pub(super) versions: TlsVersion,
}

impl Error {
    /// Returns the error type of RFC 9209.
    pub(crate) fn proxy_status(&self) -> &'static str {
        match self {
            Self::Alert { .. }
            | Self::ClientCertificateRefused { .. }
            | Self::ClientCertificateRequired { .. }
            | Self::Version { alert: Some(_), .. } => "tls_alert_received",
            Self::Certificate { .. } => "tls_certificate_error",
            Self::Closed { .. } => "connection_terminated",
            Self::ClientCertificateLate { .. }
            | Self::NoHttp2 { .. }
            | Self::NotTls { .. }
            | Self::Protocol { .. }
            | Self::Version { alert: None, .. } => "tls_protocol_error",
            Self::Timeout { .. } => "connection_timeout",
        }
    }

    /// Returns the word for logs: a closed set, finer than [`Error::proxy_status`].
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Alert { .. } => "tls_alert",
            Self::Certificate { fault, .. } => fault.reason(),
            Self::ClientCertificateLate { .. } => "client_certificate_late",
            Self::ClientCertificateRefused { .. } => "client_certificate_refused",
            Self::ClientCertificateRequired { .. } => "client_certificate_required",
            Self::Closed { .. } => "tls_closed",
            Self::NoHttp2 { .. } => "tls_no_http2",
            Self::NotTls { .. } => "not_tls",
            Self::Protocol { .. } => "tls_protocol",
            Self::Timeout { .. } => "tls_timeout",
            Self::Version { .. } => "tls_version",
        }
    }

    /// Whether the server may not speak TLS at all.
    pub(crate) fn may_be_without_tls(&self) -> bool {
        matches!(
            self,
            Self::Closed { .. } | Self::NotTls { .. } | Self::Protocol { .. } | Self::Timeout { .. }
        )
    }

    /// Whether the destination's lists or pins refuse the certificate.
    pub(crate) fn is_of_destination(&self) -> bool {
        let Self::Certificate { fault, .. } = self else {
            return false;
        };
        matches!(
            fault,
            CertificateFault::Pins { .. }
                | CertificateFault::Revoked { .. }
                | CertificateFault::RevocationUnknown { .. }
        )
    }

    /// Explains it for an entry of `tcp`: what else than TLS its server may begin with. `is_asked`: `starttls` asks for TLS.
    pub(crate) fn of_tcp(mut self, is_asked: bool) -> Self {
        if let Self::Closed { hint, .. } | Self::NotTls { hint, .. } | Self::Timeout { hint, .. } = &mut self
            && (hint.is_empty() || hint.starts_with(LENGTH_HINT))
        {
            let advice = "; where its protocol begins in the clear (PostgreSQL, MySQL, SMTP, IMAP, LDAP), set `starttls`";
            *hint = if is_asked {
                String::new()
            } else {
                advice.to_owned()
            };
        }
        self
    }

    /// Returns the number of the alert that the server sent: `alert-id` of RFC 9209.
    pub(crate) fn alert_id(&self) -> Option<u8> {
        match self {
            Self::Alert { alert, .. }
            | Self::ClientCertificateRefused { alert, .. }
            | Self::ClientCertificateRequired { alert, .. }
            | Self::Version {
                alert: Some(alert), ..
            } => Some(u8::from(*alert)),
            Self::Certificate { .. }
            | Self::ClientCertificateLate { .. }
            | Self::Closed { .. }
            | Self::NoHttp2 { .. }
            | Self::NotTls { .. }
            | Self::Protocol { .. }
            | Self::Timeout { .. }
            | Self::Version { alert: None, .. } => None,
        }
    }

    /// Explains an error of rustls; `before`: what came before it on connections to the host.
    pub(super) fn of_rustls(error: &rustls::Error, host: &str, before: &Before) -> Self {
        use PeerIncompatible::{ServerDoesNotSupportTls12Or13, ServerTlsVersionIsDisabledByOurConfig};

        let host = host.to_owned();
        match error {
            rustls::Error::AlertReceived(alert) => Self::of_alert(*alert, host, before),
            rustls::Error::InvalidCertificate(error) => Self::Certificate {
                host,
                fault: CertificateFault::of(error),
            },
            rustls::Error::PeerIncompatible(
                ServerDoesNotSupportTls12Or13 | ServerTlsVersionIsDisabledByOurConfig,
            ) => Self::Version {
                host,
                alert: None,
                versions: before.versions,
            },
            // All others are protocol errors of some kind; rustls may add more.
            other => Self::Protocol {
                host,
                source: other.clone(),
            },
        }
    }

    fn of_alert(alert: AlertDescription, host: String, before: &Before) -> Self {
        use AlertDescription as Alert;

        // These are about a certificate, and a server can only mean ours.
        let of_certificate = matches!(
            alert,
            Alert::AccessDenied
                | Alert::BadCertificate
                | Alert::CertificateExpired
                | Alert::CertificateRevoked
                | Alert::CertificateUnknown
                | Alert::DecryptError
                | Alert::NoCertificate
                | Alert::UnknownCA
                | Alert::UnsupportedCertificate
        );
        let required = alert == Alert::CertificateRequired;
        match &before.asked {
            CertificateRequested::AndAnswered { accepts, ours } if of_certificate || required => {
                Self::ClientCertificateRefused {
                    host,
                    alert,
                    advice: refusal(alert, accepts, ours.as_deref()),
                }
            }
            // Go and Java send bad_certificate to a client without certificate; OpenSSL, in TLS 1.2, handshake_failure.
            CertificateRequested::ButHadNone { accepts }
                if of_certificate || required || alert == Alert::HandshakeFailure =>
            {
                Self::ClientCertificateRequired {
                    host,
                    alert,
                    of: of(accepts),
                }
            }
            CertificateRequested::Never if required => Self::ClientCertificateRequired {
                host,
                alert,
                of: String::new(),
            },
            _ if alert == Alert::ProtocolVersion => Self::Version {
                host,
                alert: Some(alert),
                versions: before.versions,
            },
            CertificateRequested::AndAnswered { .. }
            | CertificateRequested::ButHadNone { .. }
            | CertificateRequested::Never => Self::Alert { host, alert },
        }
    }
}

/// Finds an error of one type among the causes of another.
pub(super) fn find<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // `source()` of an I/O error skips the error that it wraps.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// Whether the first bytes of the server cannot have been TLS.
pub(super) fn is_not_tls(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)
    )
}

/// Explains a server that closes without an alert.
pub(super) fn closing_hint(before: &Before) -> String {
    match &before.asked {
        CertificateRequested::AndAnswered { accepts, ours } => {
            let advice = refusal(AlertDescription::CloseNotify, accepts, ours.as_deref());
            format!(" after it asked for our client certificate; it may not accept it{advice}")
        }
        CertificateRequested::ButHadNone { accepts } => format!(
            " after it asked for a client certificate{}, and this destination has none; set tls.client_certificate",
            of(accepts)
        ),
        CertificateRequested::Never => length_hint(before),
    }
}

/// Explains what may be wrong with a ClientHello that gets no answer.
pub(super) fn length_hint(before: &Before) -> String {
    if !before.is_long || before.asked != CertificateRequested::Never {
        return String::new();
    }
    let short = if cfg!(feature = "fips") {
        "secp256r1, secp384r1"
    } else {
        "x25519, secp256r1, secp384r1"
    };
    format!(
        "{LENGTH_HINT} of more than one segment: if other clients reach it, set `tls: {{ groups: [{short}] }}`"
    )
}

/// Returns " of NAMES", if there are any.
fn of(accepts: &str) -> String {
    if accepts.is_empty() {
        String::new()
    } else {
        format!(" of {accepts}")
    }
}

/// The versions that are spoken here.
fn spoken(least: TlsVersion) -> &'static str {
    match least {
        TlsVersion::V1_2 => "1.2 or 1.3; older ones are broken, so its operator must bring it up to date",
        TlsVersion::V1_3 => {
            "1.3 (tls.min_version); set that to 1.2 if its operator cannot bring it up to date"
        }
    }
}

/// Explains what a server did that TLS does not allow, or that it offers nothing that we accept.
fn breach(error: &rustls::Error) -> String {
    use PeerIncompatible as Incompatible;

    let why = match error {
        rustls::Error::PeerIncompatible(Incompatible::ExtendedMasterSecretExtensionRequired) => {
            "does not bind its session to the handshake (extended master secret, RFC 7627), which FIPS 140-3 demands"
        }
        rustls::Error::PeerIncompatible(
            Incompatible::NoCertificateRequestSignatureSchemesInCommon
            | Incompatible::NoSignatureSchemesInCommon,
        ) => "accepts no signature that the key of our client certificate can make",
        rustls::Error::PeerIncompatible(Incompatible::NoKxGroupsInCommon) => {
            "accepts no key exchange of ours (tls.groups; X25519MLKEM768, X25519, P-256 and P-384 where it does not stand)"
        }
        rustls::Error::PeerIncompatible(Incompatible::NoCipherSuitesInCommon) => {
            "accepts no cipher suite of ours; its operator must allow ECDHE with AES-GCM"
        }
        other => {
            return format!("does not keep to the TLS protocol, or offers nothing that we accept ({other})");
        }
    };
    why.to_owned()
}

/// Returns the name of an alert as the standards spell it.
fn name(alert: AlertDescription) -> String {
    let mut name = String::new();
    let mut lower = false;
    for c in format!("{alert:?}").chars() {
        // UnknownCA is unknown_ca, and an alert without a name is Unknown(0x2a).
        if c.is_ascii_uppercase() && lower {
            name.push('_');
        }
        lower = c.is_ascii_lowercase();
        name.push(c.to_ascii_lowercase());
    }
    name
}

/// Returns what can be done about an alert on our side.
fn advice(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            "; it accepts no cipher suite or key exchange of ours (ECDHE over X25519, P-256 or P-384, with AES-GCM), or \
             wants a client certificate"
        }
        // It accepts a client's key only if its curve is among the groups that the client offers.
        AlertDescription::IllegalParameter => {
            "; if tls.client_certificate has a P-521 key: OpenSSL takes that in TLS 1.3 only, so use P-256 or P-384"
        }
        AlertDescription::NoApplicationProtocol => "; it speaks neither protocol offered; set `http`",
        AlertDescription::UnrecognisedName => "; it does not know this name; set tls.server_name",
        _ => "",
    }
}

/// Returns what can be done about a refused certificate on our side.
fn refusal(alert: AlertDescription, accepts: &str, ours: Option<&str>) -> String {
    if let Some(ours) = ours {
        return format!("; it takes those of {accepts}, and ours leads to {ours}");
    }
    let advice = match alert {
        AlertDescription::CertificateExpired => "; renew tls.client_certificate",
        AlertDescription::CertificateRequired => "; it accepts no key of its kind",
        AlertDescription::UnknownCA => {
            "; it does not trust its issuer: is the intermediate certificate in the file?"
        }
        _ => "; ask its operator which one it expects",
    };
    advice.to_owned()
}

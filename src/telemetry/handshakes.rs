//! Failed TLS handshakes with the app: their kinds, and how often each is logged.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::sampler::LogSampler;
use crate::sync::lock;
use crate::units::nanos;

/// The time between two log lines of a kind. An app whose handshake fails tries again every second.
const INTERVAL: Duration = Duration::from_secs(60);

/// How a handshake with the app failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeFailure {
    /// The app sent an alert that is not about our certificate.
    Alert,
    /// No protocol in common (ALPN).
    Alpn,
    /// No cipher suite or signature algorithm in common.
    Cipher,
    /// The certificate of a client is refused.
    ClientCertificate,
    /// The app closed the connection before we sent a certificate.
    Closed,
    /// No certificate could be made.
    Certificate,
    /// The app sent an alert about our certificate.
    Distrust,
    /// No key exchange in common.
    Group,
    /// The app sent an alert after our certificate that does not say why.
    LikelyDistrust,
    /// The app was silent for too long.
    TimedOut,
    /// The app sent malformed TLS, or neither TLS nor HTTP.
    NotTls,
    /// The app closed the connection after our certificate, without an alert.
    SilentDistrust,
    /// No version of TLS in common.
    Version,
}

/// When each kind of failure of one destination was last logged.
#[derive(Debug)]
pub(super) struct HandshakeLog {
    created: Instant,
    samplers: Mutex<[LogSampler; HandshakeFailure::COUNT]>,
}

impl HandshakeFailure {
    const COUNT: usize = 13;

    /// Returns the error type of RFC 9209.
    pub(crate) fn error_type(self) -> &'static str {
        match self {
            Self::Alert | Self::Distrust | Self::LikelyDistrust => "tls_alert_received",
            Self::Alpn | Self::Cipher | Self::Group | Self::NotTls | Self::Version => "tls_protocol_error",
            Self::Certificate => "proxy_internal_error",
            Self::ClientCertificate => "tls_certificate_error",
            Self::Closed | Self::SilentDistrust => "connection_terminated",
            Self::TimedOut => "connection_read_timeout",
        }
    }

    /// Returns whether the app seems not to trust the local authority.
    pub(crate) fn is_distrust(self) -> bool {
        matches!(self, Self::Distrust | Self::LikelyDistrust | Self::SilentDistrust)
    }
}

impl HandshakeLog {
    pub(super) fn new() -> Self {
        Self {
            created: Instant::now(),
            samplers: Mutex::default(),
        }
    }

    /// Returns how many failures of this kind were not logged, if a line is due.
    pub(super) fn due(&self, failure: HandshakeFailure) -> Option<u64> {
        let now = nanos(self.created.elapsed());
        let mut samplers = lock(&self.samplers);
        // However an app shows that it does not trust us, it is one trouble, and one line.
        let slot = if failure.is_distrust() {
            HandshakeFailure::Distrust
        } else {
            failure
        };
        samplers[slot as usize].due(nanos(INTERVAL), now)
    }
}

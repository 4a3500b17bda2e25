//! HandshakeLog of the app that fail: their kinds, and what is counted of them.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::sampler::LogSampler;
use crate::sync::lock;
use crate::units::nanos;

/// How a handshake with the app failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeFailure {
    /// The app ended it with an alert that says nothing against our certificate.
    Alert,
    /// No protocol in common (ALPN).
    Alpn,
    /// No cipher suite or signature algorithm in common.
    Cipher,
    /// The app went before it was shown a certificate.
    Closed,
    /// No certificate could be made.
    Certificate,
    /// The app ended it with an alert about our certificate.
    Distrust,
    /// No key exchange in common.
    Group,
    /// The app did not go on in time.
    Late,
    /// What the app sent is not TLS as it should be, or neither TLS nor HTTP.
    NotTls,
    /// The app went when it was shown our certificate, and said nothing.
    SilentDistrust,
    /// No version of TLS in common.
    Version,
}

/// What has been told of the failures of one destination, and when.
#[derive(Debug)]
pub(super) struct HandshakeLog {
    born: Instant,
    told: Mutex<[LogSampler; HandshakeFailure::COUNT]>,
}

impl HandshakeFailure {
    const COUNT: usize = 11;

    /// The error type of RFC 9209.
    pub(crate) fn error_type(self) -> &'static str {
        match self {
            Self::Alert | Self::Distrust => "tls_alert_received",
            Self::Alpn | Self::Cipher | Self::Group | Self::NotTls | Self::Version => "tls_protocol_error",
            Self::Certificate => "proxy_internal_error",
            Self::Closed | Self::SilentDistrust => "connection_terminated",
            Self::Late => "connection_read_timeout",
        }
    }

    /// Whether it looks as if the app did not trust the local authority.
    pub(crate) fn is_distrust(self) -> bool {
        matches!(self, Self::Distrust | Self::SilentDistrust)
    }
}

impl HandshakeLog {
    pub(super) fn new() -> Self {
        Self {
            born: Instant::now(),
            told: Mutex::default(),
        }
    }

    /// How many failures of the kind have not been told, if it is time for a line.
    pub(super) fn due(&self, failure: HandshakeFailure) -> Option<u64> {
        let now = nanos(self.born.elapsed());
        let mut told = lock(&self.told);
        told[failure as usize].due(nanos(INTERVAL), now)
    }
}

/// Between two lines of a kind. An app that fails once tries again every second.
const INTERVAL: Duration = Duration::from_secs(60);

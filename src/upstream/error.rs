//! Everything that can go wrong between a verdict and a response head.

use std::sync::Arc;
use std::time::Duration;

use super::body::Cut;
use super::{Endpoint, dial, resolve, tls};
use crate::host::Host;
use crate::policy::Denial;

/// Why there is no response from the upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Denied(#[from] Denial),

    #[error(transparent)]
    Dial(#[from] dial::Error),

    #[error(transparent)]
    Dns(#[from] resolve::Error),

    #[error("the destination closed the connection before it answered")]
    Incomplete(#[source] hyper::Error),

    #[error("the destination's answer is not valid HTTP")]
    Protocol(#[source] hyper::Error),

    #[error("the request body ended early or was not valid")]
    RequestBody(#[source] hyper::Error),

    #[error("the request body stood still for {}s (timeouts.idle)", .0.as_secs_f32())]
    RequestStalled(Duration),

    #[error("the destination sent no response head within {}s", .0.as_secs_f32())]
    ResponseTimeout(Duration),

    #[error("the TLS settings of this destination cannot be used: {0}")]
    Settings(Arc<tls::SettingsError>),

    #[error(transparent)]
    Tls(#[from] tls::Error),

    #[error("the destination does not speak the HTTP version that its configuration demands")]
    Version,
}

impl Error {
    /// The error type of RFC 9209.
    pub(crate) fn proxy_status(&self) -> &'static str {
        match self {
            Self::Denied(_) => "destination_ip_prohibited",
            Self::Dial(error) => error.proxy_status(),
            Self::Dns(error) => error.proxy_status(),
            Self::Incomplete(_) => "http_response_incomplete",
            Self::Protocol(_) | Self::Version => "http_protocol_error",
            Self::RequestBody(_) | Self::RequestStalled(_) => "http_request_error",
            Self::ResponseTimeout(_) => "http_response_timeout",
            Self::Settings(_) => "proxy_configuration_error",
            Self::Tls(error) => error.proxy_status(),
        }
    }

    /// Whether the app should be told that it was a matter of time (504).
    pub(crate) fn timed_out(&self) -> bool {
        matches!(
            self.proxy_status(),
            "dns_timeout" | "connection_timeout" | "http_response_timeout" | "connection_read_timeout"
        )
    }

    /// Sorts a failure of an established connection.
    pub(super) fn of_hyper(error: hyper::Error, host: &Host, endpoint: &Endpoint) -> Self {
        if let Some(tls) = endpoint
            .tls
            .as_ref()
            .ok()
            .and_then(|settings| settings.explain(&error, host))
        {
            return Self::Tls(tls);
        }
        if error.is_user() {
            match std::error::Error::source(&error).and_then(|cause| cause.downcast_ref()) {
                Some(Cut::Idle(limit)) => Self::RequestStalled(*limit),
                Some(Cut::Stream(_)) | None => Self::RequestBody(error),
            }
        } else if error.is_parse() {
            Self::Protocol(error)
        } else {
            Self::Incomplete(error)
        }
    }
}

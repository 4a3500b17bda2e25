//! The errors that end an exchange before the destination has answered.

use http::StatusCode;

use super::route_service::ForwardedUrlFault;
use crate::auth::{self, NoToken};
use crate::clients::{ClientRefusal, GuardRefusal};
use crate::host;
use crate::http1::{Excess, Fault};
use crate::limit;
use crate::memory::Exhausted;
use crate::policy::Denial;
use crate::socks;
use crate::starttls::UpgradeFault;
use crate::upstream;
use crate::upstream::breaker;

/// Variants name what went wrong, not the module that noticed it. `Display` is a sentence for the app's developer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}. A proxy wants an absolute URL (GET http://host/path) or CONNECT host:port")]
    BadTarget(#[from] host::HostError),

    #[error(transparent)]
    Client(#[from] ClientRefusal),

    /// The reason is in the log, because the app cannot fix it.
    #[error(
        "the credential of this destination is not available; see outrider's log, or run `outrider check`"
    )]
    Credential,

    #[error(transparent)]
    Denied(#[from] Denial),

    #[error("only `Expect: 100-continue` can be met")]
    Expectation,

    #[error("{}", match .0 {
        Excess::HeadCount | Excess::TrailerCount => {
            "the request has more header fields than limits.header_count allows; send fewer, or raise it"
        }
        Excess::HeadSize | Excess::TrailerSize => {
            "the head of the request is larger than limits.header_size allows; send less (often it is cookies), or raise it"
        }
    })]
    HeadTooLarge(Excess),

    #[error(transparent)]
    ForwardedUrl(#[from] ForwardedUrlFault),

    #[error(transparent)]
    Guard(GuardRefusal),

    #[error("the head of the request did not come to its end in time")]
    HeadTooSlow,

    /// The reason is in the log too, because mostly the operator has to fix it.
    #[error(transparent)]
    NoToken(#[from] NoToken),

    /// The circuit of the destination is open.
    #[error(transparent)]
    LeftAlone(#[from] breaker::CircuitOpen),

    #[error(transparent)]
    Limited(#[from] limit::Refusal),

    #[error(
        "this request has been through this proxy before; check that nothing sends outrider's own requests back to it"
    )]
    Looped,

    #[error("the request is not valid HTTP: {0}")]
    Malformed(&'static str),

    #[error("the tunnel was opened to {asked}, but the {what} in it names another host")]
    Misdirected { asked: String, what: &'static str },

    #[error("the request is not valid HTTP: {0}")]
    NotHttp(Fault),

    #[error(
        "nothing is stored for this request, and it asks for nothing else (Cache-Control: only-if-cached)"
    )]
    NotStored,

    #[error("outrider is at its own limit ({0}); raise it in the configuration or send less at a time")]
    Overloaded(&'static str),

    #[error(transparent)]
    Socks(socks::SocksFault),

    /// A connection of a local port failed before the app and the server were joined, or right after.
    #[error("{}", if fault.is_of_app() { fault.to_string() } else { format!("{host} {fault}") })]
    StartTls { host: host::Host, fault: UpgradeFault },

    #[error("TRACE is answered by no destination through this proxy: it would show the attached credential")]
    Trace,

    #[error("the destination switched protocols (101) {0}: the connection is closed")]
    Unasked(&'static str),

    /// RFC 9111 section 5.2.2.2: 504, whatever kept the destination from saying so.
    #[error(
        "what is stored has to be confirmed by the destination before it is used again (Cache-Control), and that failed: {0}"
    )]
    Unconfirmed(upstream::Error),

    /// The signer cannot sign this request.
    #[error(transparent)]
    Unsigned(auth::sign::Error),

    /// The response has to be searched for secrets, and cannot be.
    #[error("the response {0}, so secrets could not be redacted from it (`scrub: true`)")]
    Unreadable(&'static str),

    #[error(transparent)]
    Upstream(upstream::Error),

    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here; an app reaches HTTP/2 services through CONNECT")]
    Version,
}

impl From<upstream::Error> for Error {
    fn from(error: upstream::Error) -> Self {
        match error {
            upstream::Error::Denied(denial) => Self::Denied(denial),
            upstream::Error::NoMemory(exhausted) => exhausted.into(),
            other => Self::Upstream(other),
        }
    }
}

impl From<GuardRefusal> for Error {
    fn from(refusal: GuardRefusal) -> Self {
        match refusal {
            GuardRefusal::Limited(refusal) => Self::Limited(refusal),
            other => Self::Guard(other),
        }
    }
}

impl From<Exhausted> for Error {
    fn from(Exhausted: Exhausted) -> Self {
        Self::Overloaded("limits.memory")
    }
}

impl From<auth::Error> for Error {
    fn from(error: auth::Error) -> Self {
        match error {
            auth::Error::OAuth(auth::TokenError::NoToken(no_token)) => Self::NoToken(no_token),
            auth::Error::Sign(error) if error.is_of_request() => Self::Unsigned(error),
            _ => Self::Credential,
        }
    }
}

impl Error {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BadTarget(_) | Self::Malformed(_) | Self::NotHttp(_) | Self::Socks(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::Client(refusal) => refusal.status(),
            Self::Credential | Self::LeftAlone(_) | Self::Overloaded(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Denied(Denial::Loop { .. }) | Self::Looped => StatusCode::LOOP_DETECTED,
            Self::Denied(_) => StatusCode::FORBIDDEN,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::ForwardedUrl(fault) => fault.status(),
            Self::Guard(refusal) => refusal.status(),
            Self::StartTls { fault, .. } if fault.is_of_app() => StatusCode::BAD_REQUEST,
            Self::StartTls {
                fault: UpgradeFault::Timeout { .. },
                ..
            } => StatusCode::GATEWAY_TIMEOUT,
            Self::HeadTooLarge(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::HeadTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Misdirected { .. } => StatusCode::MISDIRECTED_REQUEST,
            Self::NotStored | Self::Unconfirmed(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Trace => StatusCode::METHOD_NOT_ALLOWED,
            Self::Upstream(upstream::Error::LengthUnknown) => StatusCode::LENGTH_REQUIRED,
            Self::Upstream(upstream::Error::RequestBody(_)) => StatusCode::BAD_REQUEST,
            Self::Upstream(upstream::Error::RequestStalled(_)) => StatusCode::REQUEST_TIMEOUT,
            Self::Unsigned(auth::sign::Error::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unsigned(_) => StatusCode::BAD_REQUEST,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Upstream(error) if error.timed_out() => StatusCode::GATEWAY_TIMEOUT,
            Self::NoToken(_)
            | Self::StartTls { .. }
            | Self::Unasked(_)
            | Self::Unreadable(_)
            | Self::Upstream(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// Returns the error type of RFC 9209, for Proxy-Status and the metrics.
    pub(crate) fn proxy_status(&self) -> &'static str {
        match self {
            Self::BadTarget(_)
            | Self::Expectation
            | Self::HeadTooLarge(_)
            | Self::HeadTooSlow
            | Self::Malformed(_)
            | Self::NotHttp(_)
            | Self::Socks(_)
            | Self::Unsigned(_)
            | Self::Version => "http_request_error",
            Self::Credential => "proxy_configuration_error",
            Self::Denied(Denial::Network { .. }) => "destination_ip_prohibited",
            Self::Denied(Denial::Loop { .. }) | Self::Looped => "proxy_loop_detected",
            Self::Guard(GuardRefusal::NoKeys) => "destination_unavailable",
            Self::ForwardedUrl(fault) if fault.status() == StatusCode::BAD_REQUEST => "http_request_error",
            Self::Client(_)
            | Self::Denied(_)
            | Self::ForwardedUrl(_)
            | Self::Guard(_)
            | Self::Limited(_)
            | Self::Misdirected { .. }
            | Self::NotStored
            | Self::Trace => "http_request_denied",
            Self::NoToken(no_token) => no_token.proxy_status(),
            Self::StartTls { fault, .. } => fault.proxy_status(),
            Self::LeftAlone(_) => "destination_unavailable",
            Self::Overloaded(_) => "connection_limit_reached",
            Self::Unasked(_) => "http_upgrade_failed",
            Self::Unreadable(_) => "http_response_content_coding",
            Self::Unconfirmed(error) | Self::Upstream(error) => error.proxy_status(),
        }
    }

    /// Returns a more precise word for the failure, if there is one. For people and logs, not for a metric label.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        match self {
            Self::NoToken(_) => Some("token"),
            Self::Unsigned(_) => Some("signature"),
            Self::Unconfirmed(upstream::Error::Tls(error)) | Self::Upstream(upstream::Error::Tls(error)) => {
                Some(error.reason())
            }
            Self::Unconfirmed(upstream::Error::Parent(error))
            | Self::Upstream(upstream::Error::Parent(error)) => Some(error.fault()),
            _ => None,
        }
    }

    /// Returns a further parameter of Proxy-Status (RFC 9209 section 2.3): `rcode` of a name server, `alert-id` of
    /// a TLS peer.
    pub(crate) fn proxy_status_parameter(&self) -> Option<String> {
        match self {
            Self::Unconfirmed(upstream::Error::Dns(error)) | Self::Upstream(upstream::Error::Dns(error)) => {
                error.rcode().map(|rcode| format!("rcode=\"{rcode}\""))
            }
            Self::Unconfirmed(upstream::Error::Tls(error)) | Self::Upstream(upstream::Error::Tls(error)) => {
                error.alert_id().map(|id| format!("alert-id={id}"))
            }
            _ => None,
        }
    }

    /// Returns the word for a refusal by policy: the `reason` label. Dashboards depend on these words: never rename
    /// one.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Client(refusal) => refusal.reason(),
            Self::Denied(denial) => Some(denial.reason()),
            Self::ForwardedUrl(fault) => fault.reason(),
            Self::Guard(refusal) => refusal.reason(),
            Self::Looped => Some("loop"),
            Self::Misdirected { .. } => Some("misdirected"),
            Self::Trace => Some("trace"),
            Self::BadTarget(_)
            | Self::Credential
            | Self::Expectation
            | Self::HeadTooLarge(_)
            | Self::HeadTooSlow
            | Self::LeftAlone(_)
            | Self::Limited(_)
            | Self::Malformed(_)
            | Self::NoToken(_)
            | Self::NotHttp(_)
            | Self::NotStored
            | Self::Overloaded(_)
            | Self::StartTls { .. }
            | Self::Unasked(_)
            | Self::Socks(_)
            | Self::Unconfirmed(_)
            | Self::Unreadable(_)
            | Self::Unsigned(_)
            | Self::Upstream(_)
            | Self::Version => None,
        }
    }
}

//! Why there is no token. What a token endpoint says of it is cut down to words that are known: servers repeat what they
//! were told.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::auth::{jwt, key};
use crate::host::Target;
use crate::secret;
use crate::units;
use crate::upstream;

/// Why tokens cannot be had at all, or a request has none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Jwt(#[from] jwt::Error),

    #[error(transparent)]
    NoToken(#[from] NoToken),

    #[error("the token has expired while the request waited")]
    Overdue,

    #[error(transparent)]
    Secret(#[from] secret::Error),

    #[error("{0} cannot be the path of a token endpoint")]
    Url(String),
}

impl From<key::Error> for Error {
    fn from(error: key::Error) -> Self {
        Self::Jwt(error.into())
    }
}

/// A request has no token, and none is asked for at this moment.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{failure}; asked again in {}", humantime::format_duration(*.retry_after))]
pub(crate) struct NoToken {
    failure: Arc<Failure>,
    /// In whole seconds, at least one.
    pub(crate) retry_after: Duration,
}

/// A token request that brought none.
#[derive(Debug, thiserror::Error)]
#[error("no token from {endpoint}: {reason}")]
pub(crate) struct Failure {
    pub(super) endpoint: Target,
    pub(super) reason: Reason,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Reason {
    #[error("its answer breaks off")]
    Cut,

    #[error("its answer is not one that RFC 6749 knows: {0}")]
    Malformed(&'static str),

    #[error("it gave {0} token, and only Bearer tokens can be attached; ask its operator for one of these")]
    OtherType(&'static str),

    #[error(
        "its token has expired before it came (expires_in); check the clock and the lifetime at the server"
    )]
    Outlived,

    #[error("it redirects ({0}), which is not followed; write the address that it names as token_url")]
    Redirected(StatusCode),

    #[error("it answered {status}{}{}", with_error(*.status, *.code), told(*.code))]
    Refused {
        status: StatusCode,
        code: Option<Code>,
        retry_after: Option<Duration>,
    },

    #[error(transparent)]
    Signature(#[from] jwt::Error),

    #[error("it did not answer within {}", humantime::format_duration(*.0))]
    Slow(Duration),

    #[error("its answer is larger than {0} bytes")]
    TooLarge(usize),

    #[error("it cannot be reached: {0}{hint}", hint = of_whom(.0))]
    Unreachable(Box<upstream::Error>),
}

/// What the standards let a token endpoint answer: RFC 6749, section 5.2; RFC 8693; RFC 8707.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    AccessDenied,
    InvalidClient,
    InvalidGrant,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    ServerError,
    SlowDown,
    TemporarilyUnavailable,
    UnauthorizedClient,
    UnsupportedGrantType,
}

impl NoToken {
    pub(super) fn new(failure: &Arc<Failure>, left: Duration) -> Self {
        Self {
            failure: Arc::clone(failure),
            retry_after: Duration::from_secs(units::retry_after(left)),
        }
    }

    /// The error type of RFC 9209.
    pub(crate) fn proxy_status(&self) -> &'static str {
        match &self.failure.reason {
            Reason::Cut => "http_response_incomplete",
            Reason::Malformed(_) | Reason::TooLarge(_) => "http_protocol_error",
            Reason::OtherType(_)
            | Reason::Outlived
            | Reason::Redirected(_)
            | Reason::Refused { .. }
            | Reason::Signature(_) => "proxy_configuration_error",
            Reason::Slow(_) => "http_response_timeout",
            Reason::Unreachable(error) => error.proxy_status(),
        }
    }
}

impl Reason {
    /// Whether the server does not know the client, as far as it says. Servers that read the secret in another form than
    /// it was written in answer so, some without a word that is known, some (oidc-provider) that it cannot be decoded.
    pub(super) fn is_of_client(&self) -> bool {
        match self {
            Self::Refused { status, code, .. } => match code {
                Some(Code::InvalidClient) => true,
                Some(Code::InvalidRequest) => *status == StatusCode::BAD_REQUEST,
                Some(_) => *status == StatusCode::UNAUTHORIZED,
                None => matches!(*status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED),
            },
            _ => false,
        }
    }
}

impl Failure {
    /// Whether the endpoint works and says no: asking it again soon changes nothing.
    pub(super) fn is_refusal(&self) -> bool {
        match &self.reason {
            Reason::Refused { status, code, .. } => {
                let is_passing = matches!(
                    code,
                    Some(Code::ServerError | Code::SlowDown | Code::TemporarilyUnavailable)
                );
                let is_busy = matches!(
                    *status,
                    StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
                );
                !status.is_server_error() && !is_passing && !is_busy
            }
            Reason::OtherType(_) | Reason::Redirected(_) => true,
            Reason::Cut
            | Reason::Malformed(_)
            | Reason::Outlived
            | Reason::Signature(_)
            | Reason::Slow(_)
            | Reason::TooLarge(_)
            | Reason::Unreachable(_) => false,
        }
    }

    /// How long the endpoint asks to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match &self.reason {
            Reason::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl Code {
    pub(super) fn parse(text: &str) -> Option<Self> {
        CODES
            .iter()
            .find_map(|(code, word, _)| (*word == text).then_some(*code))
    }
}

/// What a person can do where it is the lists or the pins of a destination that refuse the token endpoint.
fn of_whom(error: &upstream::Error) -> &'static str {
    let upstream::Error::Tls(tls) = error else {
        return "";
    };
    match tls.is_of_destination() {
        true => {
            "; tls.crl and tls.pins of a destination hold for its token endpoint as well: where the endpoint needs \
             others, give its host a destination with tls settings of its own"
        }
        false => "",
    }
}

/// An error that comes with a status of success says so, and where to read it.
fn with_error(status: StatusCode, code: Option<Code>) -> &'static str {
    match (status.is_success(), code) {
        (true, Some(_)) => " with an error:",
        (true, None) => " with an error, which the log has",
        (false, _) => "",
    }
}

/// The word of the standard, and what a person can do about it.
fn told(code: Option<Code>) -> String {
    let entry = code.and_then(|code| CODES.iter().find(|(own, ..)| *own == code));
    entry.map_or_else(String::new, |(_, word, hint)| format!(" {word}: {hint}"))
}

const CODES: &[(Code, &str, &str)] = &[
    (
        Code::AccessDenied,
        "access_denied",
        "its operator has to allow what is asked for",
    ),
    (
        Code::InvalidClient,
        "invalid_client",
        "check client_id, its secret or key, and which client_auth the server wants",
    ),
    (
        Code::InvalidGrant,
        "invalid_grant",
        "the refresh token, assertion or exchanged token is not valid, or not any more; check it, its audience and the clock",
    ),
    (
        Code::InvalidRequest,
        "invalid_request",
        "check which parameters the server wants, and params",
    ),
    (
        Code::InvalidScope,
        "invalid_scope",
        "check scopes, and what the client may ask for",
    ),
    (
        Code::InvalidTarget,
        "invalid_target",
        "check audience and resource",
    ),
    (Code::ServerError, "server_error", "it has failed itself"),
    (Code::SlowDown, "slow_down", "it is asked too often"),
    (
        Code::TemporarilyUnavailable,
        "temporarily_unavailable",
        "it is overloaded or being mended",
    ),
    (
        Code::UnauthorizedClient,
        "unauthorized_client",
        "its operator has to allow this grant to the client",
    ),
    (
        Code::UnsupportedGrantType,
        "unsupported_grant_type",
        "check grant and token_url",
    ),
];

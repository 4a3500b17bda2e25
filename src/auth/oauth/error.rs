//! Why there is no token. Of the server's error only known codes are kept, because servers repeat what they were
//! sent.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::auth::{jwt, key};
use crate::host::Target;
use crate::secret;
use crate::units;
use crate::upstream;

/// Why no token can be requested, or a request has no token.
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

/// There is no token, and the token endpoint is not asked at the moment.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{failure}; asked again in {}", humantime::format_duration(*.retry_after))]
pub(crate) struct NoToken {
    failure: Arc<TokenFailure>,
    /// In whole seconds, at least one.
    pub(crate) retry_after: Duration,
}

/// A token request that failed.
#[derive(Debug, thiserror::Error)]
#[error("no token from {endpoint}: {reason}")]
pub(crate) struct TokenFailure {
    pub(super) endpoint: Target,
    pub(super) reason: TokenFailureReason,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenFailureReason {
    #[error("its answer breaks off")]
    Incomplete,

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

    #[error("it answered {status}{}{}", with_error(*.status, *.code), code_and_remedy(*.code))]
    Refused {
        status: StatusCode,
        code: Option<OAuthErrorCode>,
        retry_after: Option<Duration>,
    },

    #[error(transparent)]
    Signature(#[from] jwt::Error),

    #[error("it did not answer within {}", humantime::format_duration(*.0))]
    Slow(Duration),

    #[error("its answer is larger than {0} bytes")]
    TooLarge(usize),

    #[error("it cannot be reached: {0}{hint}", hint = destination_hint(.0))]
    Unreachable(Box<upstream::Error>),
}

/// The error codes of RFC 6749, section 5.2; RFC 8693; RFC 8707.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OAuthErrorCode {
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
    pub(super) fn new(failure: &Arc<TokenFailure>, left: Duration) -> Self {
        Self {
            failure: Arc::clone(failure),
            retry_after: Duration::from_secs(units::retry_after(left)),
        }
    }

    /// Returns the error type of RFC 9209.
    pub(crate) fn proxy_status(&self) -> &'static str {
        match &self.failure.reason {
            TokenFailureReason::Incomplete => "http_response_incomplete",
            TokenFailureReason::Malformed(_) | TokenFailureReason::TooLarge(_) => "http_protocol_error",
            TokenFailureReason::OtherType(_)
            | TokenFailureReason::Outlived
            | TokenFailureReason::Redirected(_)
            | TokenFailureReason::Refused { .. }
            | TokenFailureReason::Signature(_) => "proxy_configuration_error",
            TokenFailureReason::Slow(_) => "http_response_timeout",
            TokenFailureReason::Unreachable(error) => error.proxy_status(),
        }
    }
}

impl TokenFailureReason {
    /// Returns whether the server says that it does not know the client. Servers that expect another encoding of
    /// the secret answer so: some without a known code, some (oidc-provider) that it cannot be decoded.
    pub(super) fn is_of_client(&self) -> bool {
        match self {
            Self::Refused { status, code, .. } => match code {
                Some(OAuthErrorCode::InvalidClient) => true,
                Some(OAuthErrorCode::InvalidRequest) => *status == StatusCode::BAD_REQUEST,
                Some(_) => *status == StatusCode::UNAUTHORIZED,
                None => matches!(*status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED),
            },
            _ => false,
        }
    }
}

impl TokenFailure {
    /// Returns whether the endpoint works and refuses, so that asking again soon changes nothing.
    pub(super) fn is_refusal(&self) -> bool {
        match &self.reason {
            TokenFailureReason::Refused { status, code, .. } => {
                let is_passing = matches!(
                    code,
                    Some(
                        OAuthErrorCode::ServerError
                            | OAuthErrorCode::SlowDown
                            | OAuthErrorCode::TemporarilyUnavailable
                    )
                );
                let is_busy = matches!(
                    *status,
                    StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
                );
                !status.is_server_error() && !is_passing && !is_busy
            }
            TokenFailureReason::OtherType(_) | TokenFailureReason::Redirected(_) => true,
            TokenFailureReason::Incomplete
            | TokenFailureReason::Malformed(_)
            | TokenFailureReason::Outlived
            | TokenFailureReason::Signature(_)
            | TokenFailureReason::Slow(_)
            | TokenFailureReason::TooLarge(_)
            | TokenFailureReason::Unreachable(_) => false,
        }
    }

    /// Returns how long the endpoint asks us to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match &self.reason {
            TokenFailureReason::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl OAuthErrorCode {
    pub(super) fn parse(text: &str) -> Option<Self> {
        CODES
            .iter()
            .find_map(|(code, word, _)| (*word == text).then_some(*code))
    }
}

/// Returns a remedy if `tls.crl` or `tls.pins` of the destination refuse the token endpoint.
fn destination_hint(error: &upstream::Error) -> &'static str {
    let upstream::Error::Tls(tls) = error else {
        return "";
    };
    if tls.is_of_destination() {
        "; tls.crl and tls.pins of a destination hold for its token endpoint as well: where the endpoint needs \
             others, give its host a separate destination with its own tls settings"
    } else {
        ""
    }
}

/// Says that a response with a status of success is an error, and where to read it.
fn with_error(status: StatusCode, code: Option<OAuthErrorCode>) -> &'static str {
    match (status.is_success(), code) {
        (true, Some(_)) => " with an error:",
        (true, None) => " with an error, which the log has",
        (false, _) => "",
    }
}

/// Returns the code of the standard and a remedy.
fn code_and_remedy(code: Option<OAuthErrorCode>) -> String {
    let entry = code.and_then(|code| CODES.iter().find(|(own, ..)| *own == code));
    entry.map_or_else(String::new, |(_, word, hint)| format!(" {word}: {hint}"))
}

const CODES: &[(OAuthErrorCode, &str, &str)] = &[
    (
        OAuthErrorCode::AccessDenied,
        "access_denied",
        "its operator has to allow what is asked for",
    ),
    (
        OAuthErrorCode::InvalidClient,
        "invalid_client",
        "check client_id, its secret or key, and which client_auth the server wants",
    ),
    (
        OAuthErrorCode::InvalidGrant,
        "invalid_grant",
        "the refresh token, assertion or exchanged token is not valid, or not any more; check it, its audience and the clock",
    ),
    (
        OAuthErrorCode::InvalidRequest,
        "invalid_request",
        "check which parameters the server wants, and params",
    ),
    (
        OAuthErrorCode::InvalidScope,
        "invalid_scope",
        "check scopes, and what the client may ask for",
    ),
    (
        OAuthErrorCode::InvalidTarget,
        "invalid_target",
        "check audience and resource",
    ),
    (
        OAuthErrorCode::ServerError,
        "server_error",
        "it has failed itself",
    ),
    (OAuthErrorCode::SlowDown, "slow_down", "it is asked too often"),
    (
        OAuthErrorCode::TemporarilyUnavailable,
        "temporarily_unavailable",
        "it is overloaded or under maintenance",
    ),
    (
        OAuthErrorCode::UnauthorizedClient,
        "unauthorized_client",
        "its operator has to allow this grant to the client",
    ),
    (
        OAuthErrorCode::UnsupportedGrantType,
        "unsupported_grant_type",
        "check grant and token_url",
    ),
];

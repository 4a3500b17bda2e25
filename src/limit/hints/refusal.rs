//! Which answers are refusals because of a limit: what the status tells, and marks beside it.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::grpc::Code;

/// What the status says before other fields are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A refusal because of a limit: 429, RESOURCE_EXHAUSTED of gRPC.
    Limit,
    /// One if anything else says so: 403, 503, UNAVAILABLE of gRPC.
    Perhaps,
    /// An error. What asks for a pause holds for it; it is a refusal because of a limit only where a mark says so.
    Error,
    /// No error.
    None,
}

impl Kind {
    pub(super) fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        match status {
            StatusCode::TOO_MANY_REQUESTS => Self::Limit,
            StatusCode::FORBIDDEN | StatusCode::SERVICE_UNAVAILABLE => Self::Perhaps,
            status if is_error(status) => Self::Error,
            status => match Code::of(status, headers) {
                Some(Code::Exhausted) => Self::Limit,
                Some(Code::Unavailable) => Self::Perhaps,
                None => Self::None,
            },
        }
    }
}

/// Whether an error has a mark.
pub(super) fn is_marked(status: StatusCode, headers: &HeaderMap) -> bool {
    is_error(status) && has_mark(headers)
}

/// Whether an answer that went wrong says in so many words that a limit refused it: Envoy, which may be told to answer
/// anything, and AWS, which answers 400 (Smithy's `aws.protocols`; the codes are those that botocore takes for it).
pub(super) fn has_mark(headers: &HeaderMap) -> bool {
    let says = |name: &str, is_meant: fn(&str) -> bool| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.is_some_and(is_meant)
    };
    says("x-envoy-ratelimited", |_| true)
        || says("grpc-message", |message| message == "local_rate_limited")
        || says("x-amzn-errortype", |text| {
            let code = text.split([':', ',']).next().unwrap_or(text);
            let code = code.rsplit('#').next().unwrap_or(code);
            AWS_CODES.contains(&code.trim())
        })
}

/// GitHub asks to wait for at least a minute where a 429 says nothing else ("Rate limits for the REST API"). A 403 of
/// its secondary limits without a field cannot be told from one that is about permissions.
pub(super) fn of_github(kind: Kind, headers: &HeaderMap) -> Option<(Duration, &'static str, &'static str)> {
    let is_github = kind == Kind::Limit && headers.contains_key("x-github-request-id");
    is_github.then_some((Duration::from_secs(60), "", "X-GitHub-Request-Id"))
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

const AWS_CODES: &[&str] = &[
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

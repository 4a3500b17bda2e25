//! Which answers are refusals because of a limit, by status and by other marks.

use std::time::Duration;

use http::StatusCode;

use super::grpc::GrpcCode;

use crate::message::Fields;

/// What the status alone says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusalKind {
    /// A refusal because of a limit: 429, RESOURCE_EXHAUSTED of gRPC.
    Limit,
    /// A refusal if anything else says so: 403, 503, UNAVAILABLE of gRPC.
    Perhaps,
    /// An error. A field that asks for a pause is read; it is a refusal because of a limit only with a mark.
    Error,
    /// Not an error.
    None,
}

impl RefusalKind {
    pub(super) fn of(status: StatusCode, headers: &Fields) -> Self {
        match status {
            StatusCode::TOO_MANY_REQUESTS => Self::Limit,
            StatusCode::FORBIDDEN | StatusCode::SERVICE_UNAVAILABLE => Self::Perhaps,
            status if is_error(status) => Self::Error,
            status => match GrpcCode::of(status, headers) {
                Some(GrpcCode::Exhausted) => Self::Limit,
                Some(GrpcCode::Unavailable) => Self::Perhaps,
                None => Self::None,
            },
        }
    }
}

/// Whether the answer is an error with a mark.
pub(super) fn is_marked(status: StatusCode, headers: &Fields) -> bool {
    is_error(status) && has_mark(headers)
}

/// Whether a field says that a limit refused the request. Envoy sends such a field, whatever status it is
/// configured to use. So does AWS, which answers 400 (Smithy's `aws.protocols`; the codes are those that botocore
/// takes for it).
pub(super) fn has_mark(headers: &Fields) -> bool {
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

/// Returns the pause of a 429 from GitHub that names no time: GitHub asks to wait for at least a minute ("Rate
/// limits for the REST API"). A 403 of its secondary limits without a field looks like one about permissions.
pub(super) fn of_github(
    kind: RefusalKind,
    headers: &Fields,
) -> Option<(Duration, &'static str, &'static str)> {
    let is_github = kind == RefusalKind::Limit && headers.contains_key("x-github-request-id");
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

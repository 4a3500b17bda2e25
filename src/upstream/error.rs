//! Everything that can go wrong between the decision to forward a request and the head of its response.

use std::sync::Arc;
use std::time::Duration;

use super::body::BodyError;
use super::parent::{ParentError, ParentSettingsError};
use super::unreadable::{Unreadable, Wrong};
use super::{Endpoint, dial, resolve, tls};
use crate::error::ErrorChain;
use crate::host::Host;
use crate::http1;
use crate::memory::Exhausted;
use crate::policy::Denial;

/// Why there is no response from the upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "{host} closed the connection in the middle of its answer; try again, and tell who runs that host"
    )]
    CutShort {
        host: Host,
        #[source]
        source: Cause,
    },

    #[error(transparent)]
    Denied(#[from] Denial),

    #[error(transparent)]
    Dial(#[from] dial::Error),

    #[error(transparent)]
    Dns(#[from] resolve::Error),

    #[error("the destination closed the connection before it answered")]
    Incomplete(#[source] Cause),

    #[error(
        "the destination speaks HTTP/1.0 and has to know the length of a body beforehand, which the app does not state; \
         outrider reads up to 1 MiB to find out: send Content-Length instead of chunks"
    )]
    LengthUnknown,

    #[error(transparent)]
    Parent(Box<ParentError>),

    #[error("the parent proxy of this destination cannot be used: {}", ErrorChain(&**.0))]
    ParentSettings(Arc<ParentSettingsError>),

    /// On our side, for the body of the request.
    #[error(transparent)]
    NoMemory(#[from] Exhausted),

    #[error("the request body cannot be read: {0}")]
    RequestBody(#[source] Cause),

    #[error(
        "the request body stood still for {} (timeouts.idle); where the app takes longer, raise it",
        humantime::format_duration(*.0)
    )]
    RequestStalled(Duration),

    #[error(
        "the destination sent no response head within {} (timeouts.response); where its answers take longer, raise it",
        humantime::format_duration(*.0)
    )]
    ResponseTimeout(Duration),

    #[error(
        "the TLS settings of this destination cannot be used: {0}; see outrider's log, or run `outrider check`"
    )]
    Settings(Arc<tls::SettingsError>),

    #[error(transparent)]
    Tls(#[from] tls::Error),

    #[error(
        "the destination has refused the request without looking at it (HTTP/2 GOAWAY or REFUSED_STREAM); {}",
        match .is_body_there {
            true => "it was sent several times; try again later",
            false => "more of its body was on its way than outrider keeps (64 KiB, less where memory is short), so it was \
                      not sent again here; it is safe to send it again",
        }
    )]
    Unprocessed {
        is_body_there: bool,
        #[source]
        source: Cause,
    },

    #[error(transparent)]
    Unreadable(Box<Unreadable>),

    #[error("the destination does not speak the HTTP version that its configuration demands")]
    Version,
}

impl Error {
    /// Returns the error type of RFC 9209.
    pub(crate) fn proxy_status(&self) -> &'static str {
        match self {
            Self::Denied(_) => "destination_ip_prohibited",
            Self::Dial(error) => error.proxy_status(),
            Self::Dns(error) => error.proxy_status(),
            Self::CutShort { .. } | Self::Incomplete(_) | Self::Unprocessed { .. } => {
                "http_response_incomplete"
            }
            Self::NoMemory(_) => "connection_limit_reached",
            Self::Version => "http_protocol_error",
            Self::LengthUnknown | Self::RequestBody(_) | Self::RequestStalled(_) => "http_request_error",
            Self::ResponseTimeout(_) => "http_response_timeout",
            Self::Parent(error) => error.proxy_status(),
            Self::ParentSettings(_) | Self::Settings(_) => "proxy_configuration_error",
            Self::Tls(error) => error.proxy_status(),
            Self::Unreadable(unreadable) => unreadable.proxy_status(),
        }
    }

    /// Whether a time limit ended the request, so that the app gets 504 instead of 502.
    pub(crate) fn timed_out(&self) -> bool {
        match self {
            Self::Dial(dial::Error::Timeout { .. })
            | Self::Dns(resolve::Error::Timeout { .. })
            | Self::ResponseTimeout(_)
            | Self::Tls(tls::Error::Timeout { .. }) => true,
            Self::Parent(error) => error.timed_out(),
            Self::CutShort { .. }
            | Self::Denied(_)
            | Self::Dial(_)
            | Self::Dns(_)
            | Self::Incomplete(_)
            | Self::LengthUnknown
            | Self::NoMemory(_)
            | Self::ParentSettings(_)
            | Self::RequestBody(_)
            | Self::RequestStalled(_)
            | Self::Settings(_)
            | Self::Tls(_)
            | Self::Unprocessed { .. }
            | Self::Unreadable(_)
            | Self::Version => false,
        }
    }

    /// Classifies an error of an established HTTP/1.1 connection. `is_begun`: a part of an answer had come.
    pub(super) fn of_http1(error: http1::Error, is_begun: bool, host: &Host, endpoint: &Endpoint) -> Self {
        if let Some(tls) = explain(&error, host, endpoint) {
            return Self::Tls(tls);
        }
        let wrong = match error {
            http1::Error::NoMemory(exhausted) => return Self::NoMemory(exhausted),
            http1::Error::Incomplete | http1::Error::Io(_) | http1::Error::Slow if is_begun => {
                return Self::CutShort {
                    host: host.clone(),
                    source: error.into(),
                };
            }
            http1::Error::Incomplete | http1::Error::Io(_) | http1::Error::Slow => {
                return Self::Incomplete(error.into());
            }
            // Only the server's side looks for other protocols.
            http1::Error::Foreign(_) => Wrong::Fault(http1::Fault::NoStatusLine),
            http1::Error::Malformed(fault) => Wrong::Fault(fault),
            http1::Error::TooLarge(excess) => Wrong::TooLarge(excess),
            http1::Error::Version => Wrong::Version,
        };
        Self::Unreadable(Unreadable::new(wrong, host, endpoint))
    }

    /// Classifies an error of an established HTTP/2 connection.
    pub(super) fn of_hyper(error: hyper::Error, host: &Host, endpoint: &Endpoint) -> Self {
        if let Some(tls) = explain(&error, host, endpoint) {
            return Self::Tls(tls);
        }
        if error.is_user() {
            match std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<BodyError>()) {
                Some(BodyError::Denied(denial)) => Self::Denied(Denial::clone(denial)),
                Some(BodyError::Idle(limit)) => Self::RequestStalled(*limit),
                Some(cut @ (BodyError::H1(_) | BodyError::H2(_))) => {
                    Self::RequestBody(cut.to_string().into())
                }
                None => Self::RequestBody(error.into()),
            }
        } else if let Some(fault) = h2_fault(&error) {
            Self::Unreadable(Unreadable::new(Wrong::H2(fault), host, endpoint))
        } else {
            Self::Incomplete(error.into())
        }
    }

    /// Makes the error for a request body that could not be read. `None`: its length was not the one that its head states.
    pub(super) fn of_cut(cut: Option<BodyError>) -> Self {
        match cut {
            Some(BodyError::Denied(denial)) => Self::Denied(*denial),
            Some(BodyError::Idle(limit)) => Self::RequestStalled(limit),
            Some(cut) => Self::RequestBody(cut.into()),
            None => Self::RequestBody("its length is not the one that its head states".into()),
        }
    }
}

/// Returns what the upstream did wrong, if we ended the stream or the connection because of it.
fn h2_fault(error: &hyper::Error) -> Option<String> {
    let cause = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
    let is_fault = cause.is_library()
        && matches!(
            cause.reason(),
            Some(
                h2::Reason::PROTOCOL_ERROR
                    | h2::Reason::COMPRESSION_ERROR
                    | h2::Reason::ENHANCE_YOUR_CALM
                    | h2::Reason::FRAME_SIZE_ERROR
                    | h2::Reason::FLOW_CONTROL_ERROR
            )
        );
    is_fault.then(|| cause.to_string())
}

fn explain(
    error: &(dyn std::error::Error + 'static),
    host: &Host,
    endpoint: &Endpoint,
) -> Option<tls::Error> {
    endpoint.tls.as_ref().ok()?.explain(error, host)
}

/// The error of the HTTP library or of our own HTTP/1.1, for the log.
type Cause = Box<dyn std::error::Error + Send + Sync>;

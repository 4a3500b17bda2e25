//! The access line: one log event for one exchange, under the target `access`.
//!
//! It never contains a query string, user information, a header or a body. Host and path, which come from the
//! wire, are cut to a bounded length; control characters are escaped by the writer in [`log`](super::log).

use std::time::Duration;

use http::uri::Authority;
use http::{StatusCode, Uri};

use super::labels::{AnsweredBy, MethodLabel};
use super::observed::ObservedRequest;

/// The target of the event. The log writes it at every level.
pub(super) const TARGET: &str = "access";

const DETAIL_LENGTH: usize = 1024;
/// A DNS name is at most 253 characters.
const HOST_LENGTH: usize = 255;
const PATH_LENGTH: usize = 1024;

/// The content of the line.
pub(super) struct AccessLine<'a> {
    pub(super) destination: &'a str,
    pub(super) method: MethodLabel,
    /// The name of the client that sent it, if the listener asks for one.
    pub(super) client: Option<&'a str>,
    pub(super) uri: Option<&'a Uri>,
    pub(super) authority: Option<&'a Authority>,
    pub(super) status: StatusCode,
    pub(super) answered_by: AnsweredBy,
    pub(super) error: Option<&'static str>,
    pub(super) reason: Option<&'static str>,
    /// It passed because of `egress.default: observe`.
    pub(super) observed: Option<&'a ObservedRequest>,
    /// Why it was refused, and what to do. Clients hide the answer to a refused CONNECT, so the log has it, too.
    pub(super) detail: Option<&'a str>,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) duration: Duration,
    /// `None` if the head was never sent.
    pub(super) overhead: Option<Duration>,
    pub(super) waited: Duration,
}

impl AccessLine<'_> {
    pub(super) fn write(&self) {
        let authority = self.uri.and_then(Uri::authority).or(self.authority);
        // `Authority::host` leaves user information out.
        let host = authority.map(|authority| cut(authority.host(), HOST_LENGTH));
        // What was observed can be made into a policy, for which the port must not be guessed.
        let port = match self.observed {
            Some(observed) => Some(observed.target.port),
            None => authority.and_then(Authority::port_u16),
        };
        let path = self.uri.map(Uri::path).filter(|path| !path.is_empty());
        // An empty URI has a path; a tunnel has no path.
        let path = path.filter(|_| authority.is_some() || !matches!(self.method, MethodLabel::Connect));
        tracing::info!(
            target: TARGET,
            destination = self.destination,
            method = self.method.as_str(),
            client = self.client,
            host,
            port,
            path = path.map(|path| cut(path, PATH_LENGTH)),
            status = self.status.as_u16(),
            answered_by = self.answered_by.as_str(),
            error = self.error,
            reason = self.reason,
            would_deny = self.observed.map(|observed| observed.reason),
            detail = self.detail.map(|detail| cut(detail, DETAIL_LENGTH)),
            sent = self.sent,
            received = self.received,
            duration_ms = milliseconds(self.duration),
            overhead_ms = self.overhead.map(milliseconds),
            wait_ms = milliseconds(self.waited),
            "request"
        );
    }
}

/// Returns the first `length` bytes at most, never half a character.
fn cut(text: &str, length: usize) -> &str {
    let mut end = length.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Returns milliseconds, to the microsecond.
fn milliseconds(duration: Duration) -> f64 {
    // The microseconds of any process lifetime fit into the 53 bits of a float.
    duration.as_micros() as f64 / 1000.0
}

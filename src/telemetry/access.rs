//! The access line: one event for one exchange, under the target `access`.
//!
//! It never carries a query string, user information, a header or a body. What came from the wire (host, path) is cut
//! to a bounded length; control characters are escaped by the writer in [`log`](super::log).

use std::time::Duration;

use http::uri::Authority;
use http::{StatusCode, Uri};

use super::AnsweredBy;
use super::labels::MethodLabel;

/// What the line says.
pub(super) struct AccessLine<'a> {
    pub(super) destination: &'a str,
    pub(super) verb: MethodLabel,
    pub(super) uri: Option<&'a Uri>,
    pub(super) authority: Option<&'a Authority>,
    pub(super) status: StatusCode,
    pub(super) answered_by: AnsweredBy,
    pub(super) error: Option<&'static str>,
    pub(super) reason: Option<&'static str>,
    /// Why, and what to do: clients hide the answer to a refused CONNECT, so it stands here, too.
    pub(super) detail: Option<&'a str>,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) duration: Duration,
    /// `None`: the head never went out.
    pub(super) overhead: Option<Duration>,
    pub(super) waited: Duration,
}

impl AccessLine<'_> {
    pub(super) fn write(&self) {
        let authority = self.uri.and_then(Uri::authority).or(self.authority);
        // `Authority::host` leaves user information out.
        let host = authority.map(|authority| cut(authority.host(), HOST_LENGTH));
        let port = authority.and_then(Authority::port_u16);
        let path =
            (self.uri.map(Uri::path).filter(|path| !path.is_empty())).map(|path| cut(path, PATH_LENGTH));
        tracing::info!(
            target: TARGET,
            destination = self.destination,
            method = self.verb.as_str(),
            host,
            port,
            path,
            status = self.status.as_u16(),
            answered_by = self.answered_by.as_str(),
            error = self.error,
            reason = self.reason,
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

/// The first `length` bytes at most, never half a character.
fn cut(text: &str, length: usize) -> &str {
    let mut end = length.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// To the microsecond.
fn milliseconds(duration: Duration) -> f64 {
    // Microseconds of any duration that a process can live fit into the 53 bits of a float.
    duration.as_micros() as f64 / 1000.0
}

/// The target of the event, by which the log lets it pass at every level.
pub(super) const TARGET: &str = "access";

/// A DNS name is at most 253 characters.
const HOST_LENGTH: usize = 255;
const DETAIL_LENGTH: usize = 1024;
const PATH_LENGTH: usize = 1024;

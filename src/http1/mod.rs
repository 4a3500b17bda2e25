//! HTTP/1.1 on the wire, on both sides: heads, framing, bodies as they come.
//!
//! A connection is driven by whoever has a request on it, with no task or channel in between; nothing is buffered but a
//! head and the one read that a body arrived in, and an idle connection holds no buffer. What a method, a target or a
//! field may be made of is decided by `http`'s types. What two parsers could read differently is refused here, before
//! anybody sees the message (RFC 9112 sections 5 to 7).
//!
//! [`server`] serves the app, [`client`] asks an upstream. What a message means is decided above.

use std::io;
use std::time::Duration;

use http::HeaderValue;

pub(crate) use deadline::Deadline;
pub(crate) use inbound::Inbound;
pub(crate) use interim::Interim;

use crate::memory::Exhausted;

pub(crate) mod client;
mod deadline;
mod decoder;
mod framing;
mod head;
mod inbound;
mod interim;
mod outflow;
pub(crate) mod server;
#[cfg(test)]
mod tests;
mod wire;

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the connection ended inside a message")]
    Incomplete,

    #[error("the connection failed")]
    Io(#[from] io::Error),

    /// What is wrong, in words that go on from "the request is not valid HTTP: ".
    #[error("{0}")]
    Malformed(&'static str),

    #[error("there is no memory for it")]
    NoMemory(#[from] Exhausted),

    #[error("the head did not come in time")]
    Slow,

    #[error("the head is larger than allowed")]
    TooLarge,

    #[error("the HTTP version is neither 1.0 nor 1.1")]
    Version,
}

/// The reason phrase of a response, where it is not the one that its status implies.
#[derive(Clone, Debug)]
pub(crate) struct Reason(pub(crate) HeaderValue);

/// How long an app that waits for leave to send its body is kept waiting for an upstream that says nothing. curl and many
/// other clients wait so long themselves, and upstreams that do not know `Expect` say nothing ever.
pub(crate) const SILENCE: Duration = Duration::from_secs(1);

/// A message with more fields than this is refused, as many servers do.
const MOST_FIELDS: usize = 100;

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

use http::{HeaderMap, HeaderValue};

pub(crate) use deadline::Deadline;
pub(crate) use fault::Fault;
pub(crate) use inbound::Inbound;
pub(crate) use interim::Interim;
pub(crate) use spelling::Spelling;
pub(crate) use target::RawTarget;

use crate::memory::Exhausted;

pub(crate) mod client;
mod deadline;
mod decoder;
mod fault;
mod framing;
mod head;
mod inbound;
mod interim;
mod outflow;
pub(crate) mod server;
mod spelling;
mod target;
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

    #[error("{0}")]
    Malformed(Fault),

    #[error("there is no memory for it")]
    NoMemory(#[from] Exhausted),

    #[error("the head did not come in time")]
    Slow,

    #[error("{0}")]
    TooLarge(Excess),

    #[error("the HTTP version is neither 1.0 nor 1.1")]
    Version,
}

/// How heads are read: how much of fields a message may have, in its head and again in its trailers, and what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadRules {
    /// Field lines.
    pub(crate) count: usize,
    /// The spelling of names, for whoever writes the message.
    pub(crate) keeps_spelling: bool,
    /// In bytes: of a whole head, of all trailers.
    pub(crate) size: usize,
}

impl HeadRules {
    /// As HTTP/2 counts (RFC 9113 section 6.5.2): 32 bytes more for each field. What passes there is counted as in HTTP/1.1
    /// by [`check`](Self::check), so that both versions take the same heads.
    pub(crate) fn list_size(self) -> u32 {
        let size = self
            .size
            .saturating_mul(2)
            .saturating_add(self.count.saturating_mul(32));
        u32::try_from(size).unwrap_or(u32::MAX)
    }

    /// The same for trailers.
    pub(crate) fn check_trailers(self, trailers: &HeaderMap) -> Result<(), Excess> {
        self.check(trailers).map_err(|excess| match excess {
            Excess::HeadCount | Excess::TrailerCount => Excess::TrailerCount,
            Excess::HeadSize | Excess::TrailerSize => Excess::TrailerSize,
        })
    }

    /// Refuses a head that came over HTTP/2 and is larger than one of HTTP/1.1 may be.
    pub(crate) fn check(self, fields: &HeaderMap) -> Result<(), Excess> {
        if fields.len() > self.count {
            return Err(Excess::HeadCount);
        }
        let lines = fields
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + LINE);
        if lines.sum::<usize>() > self.size {
            return Err(Excess::HeadSize);
        }
        Ok(())
    }
}

/// Whether a length that came over HTTP/2 is larger than one of HTTP/1.1 may be.
pub(crate) fn is_length_too_large(fields: &HeaderMap) -> bool {
    let length = fields.get(http::header::CONTENT_LENGTH);
    length.is_some_and(|length| {
        let length = length.to_str().ok().and_then(|length| length.parse::<u64>().ok());
        length.is_none_or(|length| length > MOST_LENGTH)
    })
}

/// Which of the [`HeadRules`] a message exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Excess {
    #[error("the head has too many fields")]
    HeadCount,
    #[error("the head is too large")]
    HeadSize,
    #[error("the trailers have too many fields")]
    TrailerCount,
    #[error("the trailers are too large")]
    TrailerSize,
}

/// The largest Content-Length: many programs keep lengths as signed numbers of 64 bits.
pub(crate) const MOST_LENGTH: u64 = i64::MAX as u64;

/// The reason phrase of a response, where it is not the one that its status implies.
#[derive(Clone, Debug)]
pub(crate) struct Reason(pub(crate) HeaderValue);

/// How long an app that waits for leave to send its body is kept waiting for an upstream that says nothing. curl and many
/// other clients wait so long themselves, and upstreams that do not know `Expect` say nothing ever.
pub(crate) const SILENCE: Duration = Duration::from_secs(1);

/// What a field line has beside its name and value: `: ` and its end.
const LINE: usize = 4;

//! HTTP/1.1 on the wire, for both sides: heads, framing and bodies.
//!
//! [`server`] serves the app, [`client`] sends requests to an upstream. What a message means is decided in `proxy`.
//!
//! A connection is driven by the task that handles its current request, without another task or a channel between. Only a
//! head, or the last read of a body, is buffered; an idle connection holds no buffer. The types of `http` decide which
//! characters a method, a target or a field may have. A message that two parsers could read in two ways is refused (RFC
//! 9112 sections 5 to 7).
//!
//! Our own rather than hyper's: on a warm GET hyper's dispatcher, channels and buffers took a third of all instructions in
//! user space (40,400 fell to 26,900, and the bytes allocated from 17,968 to 2,299), and hyper hides what a proxy has to
//! judge: a length beside a coding, a client that has closed half of its connection. Types and header validation are
//! `http`'s, chunk sizes are `httparse`'s, HTTP/2 is hyper's. `tests/fuzz` checks that hyper and httparse read each head
//! that is accepted here in the same way.

use http::{HeaderMap, HeaderName};
use std::io;
use std::time::Duration;

use http::HeaderValue;

pub(crate) use deadline::Deadline;
pub(crate) use fault::Fault;
pub(crate) use inbound::Inbound;
pub(crate) use interim::Interim;
pub(crate) use spelling::Spelling;
pub(crate) use target::RawTarget;

use crate::memory::Exhausted;
use crate::message::Fields;

pub(crate) mod capsule;
pub(crate) mod client;
mod deadline;
mod decoder;
mod fault;
mod framing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod head;
mod inbound;
mod interim;
mod names;
mod outflow;
pub(crate) mod server;
mod spelling;
mod target;
#[cfg(test)]
mod tests;
mod wire;

/// The largest Content-Length: many programs keep lengths as signed 64-bit numbers.
pub(crate) const MOST_LENGTH: u64 = i64::MAX as u64;

/// How long an app that sent `Expect: 100-continue` waits for an upstream that says nothing; then it gets the 100 from us.
/// curl and many other clients wait as long, and an upstream that does not know `Expect` never says anything.
pub(crate) const SILENCE: Duration = Duration::from_secs(1);

/// The most bytes of a body that nobody wants which are read all the same, so that its sender can get its answer.
pub(crate) const MOST_SKIPPED: usize = 256 * 1024;

/// The bytes of a field line beside its name and value: `: ` and the line end.
const LINE: usize = 4;

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The first byte of the connection, which is of another protocol.
    #[error("another protocol is spoken")]
    Foreign(u8),

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

/// How requests are written to a proxy (RFC 9112 section 3.2).
#[derive(Debug)]
pub(crate) struct ProxyForm {
    /// The value of Proxy-Authorization, which goes to this proxy alone.
    pub(crate) authorization: Option<HeaderValue>,
    /// In absolute-form, with this scheme. `None`: the target is the authority alone, as with CONNECT.
    pub(crate) scheme: Option<&'static str>,
}

/// How heads are read: how many and how large fields may be, in the head and again in the trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadRules {
    /// The most field lines.
    pub(crate) count: usize,
    /// Keeps the spelling of names, to write the message with it.
    pub(crate) keeps_spelling: bool,
    /// The most bytes of a whole head, and of all trailers.
    pub(crate) size: usize,
}

impl HeadRules {
    /// Returns the limit as HTTP/2 counts (RFC 9113 section 6.5.2): 32 bytes more for each field. What passes it is counted
    /// again by [`check`](Self::check), so that both versions accept the same heads.
    pub(crate) fn list_size(self) -> u32 {
        let size = self
            .size
            .saturating_mul(2)
            .saturating_add(self.count.saturating_mul(32));
        u32::try_from(size).unwrap_or(u32::MAX)
    }

    /// Refuses trailers that came over HTTP/2 and are larger than those of HTTP/1.1 may be.
    pub(crate) fn check_trailers(self, trailers: &HeaderMap) -> Result<(), Excess> {
        self.check(trailers).map_err(|excess| match excess {
            Excess::HeadCount | Excess::TrailerCount => Excess::TrailerCount,
            Excess::HeadSize | Excess::TrailerSize => Excess::TrailerSize,
        })
    }

    /// Refuses a head that came over HTTP/2 and is larger than one of HTTP/1.1 may be.
    pub(crate) fn check<'f>(
        self,
        fields: impl IntoIterator<Item = (&'f HeaderName, &'f HeaderValue)>,
    ) -> Result<(), Excess> {
        let (mut count, mut size) = (0, 0);
        for (name, value) in fields {
            count += 1;
            size += name.as_str().len() + value.len() + LINE;
        }
        if count > self.count {
            Err(Excess::HeadCount)
        } else if size > self.size {
            Err(Excess::HeadSize)
        } else {
            Ok(())
        }
    }
}

/// Whether a length that came over HTTP/2 is larger than one of HTTP/1.1 may be.
pub(crate) fn is_length_too_large(fields: &Fields) -> bool {
    let length = fields.get(http::header::CONTENT_LENGTH);
    length.is_some_and(|length| {
        let length = length.to_str().ok().and_then(|length| length.parse::<u64>().ok());
        length.is_none_or(|length| length > MOST_LENGTH)
    })
}

/// The limit of [`HeadRules`] that a message exceeds.
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

/// The reason phrase of a response that has another one than its status implies.
#[derive(Clone, Debug)]
pub(crate) struct ReasonPhrase(pub(crate) HeaderValue);

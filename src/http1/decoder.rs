//! Reads bodies: by length, in chunks (RFC 9112 section 7.1), or until the stream ends.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::Frame;
use tokio::io::AsyncRead;

use super::framing::Framing;
use super::wire::{Wire, end_of_head};
use super::{Error, Excess, Fault, HeadRules, head};
use crate::memory::{Reservation, SMALL};

const TOO_LONG: Error = Error::Malformed(Fault::ChunkExtension);
/// The longest line of a chunk size, in bytes.
const LONGEST_LINE: usize = 4 * 1024;
/// The most bytes of chunk extensions in one body.
const MOST_EXTENSIONS: usize = 16 * 1024;
/// The longest size line without extension: sixteen digits and a line end.
const PLAIN_LINE: usize = 18;

/// Reads the rest of a body.
#[derive(Debug)]
pub(super) enum Decoder {
    Done,
    /// Bytes; not 0.
    Length(u64),
    Chunked(ChunkedState),
    UntilClose,
    /// There was a fault: what follows cannot be told apart from the body.
    Broken,
}

/// The place in a chunked body.
#[derive(Debug)]
pub(super) struct ChunkedState {
    at: ChunkPart,
    /// Bytes of chunk extensions so far. They are dropped, and bounded so that the body must go on.
    extensions: usize,
    /// Memory for large trailers that have come in part.
    held: Reservation,
    /// The limits of the trailers.
    limits: HeadRules,
}

#[derive(Debug)]
enum ChunkPart {
    Size,
    /// Bytes left of the chunk; not 0.
    Data(u64),
    DataEnd,
    Trailers,
}

impl Decoder {
    /// `limits` are those of the trailers.
    pub(super) fn new(framing: Framing, limits: HeadRules) -> Self {
        match framing {
            Framing::None => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(ChunkedState {
                at: ChunkPart::Size,
                extensions: 0,
                held: Reservation::default(),
                limits,
            }),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Returns the bytes that are still to come, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose | Self::Broken => None,
        }
    }

    /// Reads the next piece of the body; `None` at its end. A body that ends early is [`Error::Incomplete`]. After a fault
    /// every call fails, so that bytes after it are never taken for the end.
    pub(super) fn poll_frame<T: AsyncRead + Unpin>(
        &mut self,
        wire: &mut Wire<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(self.poll_next(wire, cx));
        if matches!(frame, Some(Err(_))) {
            *self = Self::Broken;
        }
        Poll::Ready(frame)
    }

    fn poll_next<T: AsyncRead + Unpin>(
        &mut self,
        wire: &mut Wire<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            match self.decode(wire) {
                Ok(Decoded::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::More) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match ready!(wire.poll_fill(cx)) {
                Ok(0) if matches!(self, Self::UntilClose) => *self = Self::Done,
                Ok(0) => return Poll::Ready(Some(Err(Error::Incomplete))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// Decodes the bytes that have come.
    fn decode<T>(&mut self, wire: &mut Wire<T>) -> Result<Decoded, Error> {
        let ahead = &mut wire.ahead;
        match self {
            Self::Broken => Err(Error::Incomplete),
            Self::Done => Ok(Decoded::End),
            Self::UntilClose | Self::Length(_) if ahead.is_empty() => Ok(Decoded::More),
            Self::UntilClose => Ok(Decoded::Frame(Frame::data(ahead.split().freeze()))),
            Self::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(ahead.len());
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Decoded::Frame(Frame::data(ahead.split_to(taken).freeze())))
            }
            Self::Chunked(chunk) => {
                let step = chunk.decode(ahead)?;
                if matches!(chunk.at, ChunkPart::Trailers) && !matches!(step, Decoded::More) {
                    *self = Self::Done;
                }
                Ok(step)
            }
        }
    }
}

enum Decoded {
    Frame(Frame<Bytes>),
    End,
    /// More bytes are needed.
    More,
}

impl ChunkedState {
    /// Decodes the bytes that have come. The body has ended if `at` is then at the trailers and no more bytes are needed.
    fn decode(&mut self, ahead: &mut bytes::BytesMut) -> Result<Decoded, Error> {
        loop {
            match &mut self.at {
                ChunkPart::Size => {
                    let Some(end) = memchr::memchr(b'\n', ahead) else {
                        return if ahead.len() > LONGEST_LINE {
                            Err(TOO_LONG)
                        } else {
                            Ok(Decoded::More)
                        };
                    };
                    let line = ahead.split_to(end + 1);
                    let size = chunk_size(&line)?;
                    self.extensions += line.len();
                    if line.len() > LONGEST_LINE || self.extensions > MOST_EXTENSIONS {
                        return Err(TOO_LONG);
                    }
                    // A size line without extension does not count: there may be many small chunks.
                    self.extensions -= line.len().min(PLAIN_LINE);
                    self.at = if size == 0 {
                        ChunkPart::Trailers
                    } else {
                        ChunkPart::Data(size)
                    };
                }
                ChunkPart::Data(_) if ahead.is_empty() => return Ok(Decoded::More),
                ChunkPart::Data(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(ahead.len());
                    *left -= taken as u64;
                    if *left == 0 {
                        self.at = ChunkPart::DataEnd;
                    }
                    return Ok(Decoded::Frame(Frame::data(ahead.split_to(taken).freeze())));
                }
                ChunkPart::DataEnd => match &ahead[..] {
                    [b'\r', b'\n', ..] => {
                        ahead.advance(2);
                        self.at = ChunkPart::Size;
                    }
                    [] | [b'\r'] => return Ok(Decoded::More),
                    _ => return Err(Error::Malformed(Fault::ChunkData)),
                },
                ChunkPart::Trailers => {
                    if ahead.starts_with(b"\r\n") {
                        ahead.advance(2);
                        return Ok(Decoded::End);
                    }
                    let end = end_of_head(ahead);
                    if end.unwrap_or(ahead.len()) > self.limits.size {
                        return Err(Error::TooLarge(Excess::TrailerSize));
                    }
                    let Some(end) = end else {
                        if ahead.len() > SMALL {
                            self.held.grow(ahead.capacity())?;
                        }
                        return Ok(Decoded::More);
                    };
                    let section = ahead.split_to(end).freeze();
                    let trailers = head::trailers(&section, self.limits.count)?;
                    return Ok(Decoded::Frame(Frame::trailers(trailers.into())));
                }
            }
        }
    }
}

/// Reads the size in a line such as `1f;extension\r\n`.
pub(super) fn chunk_size(line: &[u8]) -> Result<u64, Error> {
    // httparse accepts an empty line as zero, and a bare line feed in an extension.
    let is_line = line.first().is_some_and(u8::is_ascii_hexdigit) && line.ends_with(b"\r\n");
    match httparse::parse_chunk_size(line) {
        Ok(httparse::Status::Complete((end, size))) if is_line && end == line.len() => Ok(size),
        _ => Err(Error::Malformed(Fault::ChunkSize)),
    }
}

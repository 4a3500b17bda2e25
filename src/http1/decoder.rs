//! Bodies as they are read: by length, in chunks (RFC 9112 section 7.1), or until the stream ends.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::Frame;
use tokio::io::AsyncRead;

use super::framing::Framing;
use super::wire::{Wire, end_of_head};
use super::{Error, Excess, Fault, HeadRules, head};
use crate::memory::{Reservation, SMALL};

/// What is left of a body.
#[derive(Debug)]
pub(super) enum Decoder {
    Done,
    /// Bytes; not 0.
    Length(u64),
    Chunked(Chunk),
    UntilClose,
    /// Nothing behind a fault can be told from the body.
    Broken,
}

/// Where in a chunked body we are.
#[derive(Debug)]
pub(super) struct Chunk {
    at: At,
    /// Bytes of chunk extensions so far: they are dropped, so there must be an end to them.
    extensions: usize,
    /// For large trailers as far as they have come.
    held: Reservation,
    /// Of the trailers.
    limits: HeadRules,
}

#[derive(Debug)]
enum At {
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
            Framing::Chunked => Self::Chunked(Chunk {
                at: At::Size,
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

    /// The bytes that are still to come, where that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose | Self::Broken => None,
        }
    }

    /// The next piece of the body; `None` at its end. A body that ends early is [`Error::Incomplete`]. Behind a fault
    /// there are only faults: what is there may look like another end.
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
                Ok(Step::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Step::End) => return Poll::Ready(None),
                Ok(Step::More) => {}
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

    /// What can be told from the bytes that are there.
    fn decode<T>(&mut self, wire: &mut Wire<T>) -> Result<Step, Error> {
        let ahead = &mut wire.ahead;
        match self {
            Self::Broken => Err(Error::Incomplete),
            Self::Done => Ok(Step::End),
            Self::UntilClose | Self::Length(_) if ahead.is_empty() => Ok(Step::More),
            Self::UntilClose => Ok(Step::Frame(Frame::data(ahead.split().freeze()))),
            Self::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(ahead.len());
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Step::Frame(Frame::data(ahead.split_to(taken).freeze())))
            }
            Self::Chunked(chunk) => {
                let step = chunk.decode(ahead)?;
                if matches!(chunk.at, At::Trailers) && !matches!(step, Step::More) {
                    *self = Self::Done;
                }
                Ok(step)
            }
        }
    }
}

enum Step {
    Frame(Frame<Bytes>),
    End,
    /// It takes more bytes to say.
    More,
}

impl Chunk {
    /// The last chunk has been read to its end where this leaves `at` at the trailers and asks for no more.
    fn decode(&mut self, ahead: &mut bytes::BytesMut) -> Result<Step, Error> {
        loop {
            match &mut self.at {
                At::Size => {
                    let Some(end) = memchr::memchr(b'\n', ahead) else {
                        return if ahead.len() > LONGEST_LINE {
                            Err(TOO_LONG)
                        } else {
                            Ok(Step::More)
                        };
                    };
                    let line = ahead.split_to(end + 1);
                    let size = chunk_size(&line)?;
                    self.extensions += line.len();
                    if line.len() > LONGEST_LINE || self.extensions > MOST_EXTENSIONS {
                        return Err(TOO_LONG);
                    }
                    // A plain size line is not held against who sends many small chunks.
                    self.extensions -= line.len().min(PLAIN_LINE);
                    self.at = if size == 0 { At::Trailers } else { At::Data(size) };
                }
                At::Data(_) if ahead.is_empty() => return Ok(Step::More),
                At::Data(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(ahead.len());
                    *left -= taken as u64;
                    if *left == 0 {
                        self.at = At::DataEnd;
                    }
                    return Ok(Step::Frame(Frame::data(ahead.split_to(taken).freeze())));
                }
                At::DataEnd => match &ahead[..] {
                    [b'\r', b'\n', ..] => {
                        ahead.advance(2);
                        self.at = At::Size;
                    }
                    [] | [b'\r'] => return Ok(Step::More),
                    _ => return Err(Error::Malformed(Fault::ChunkData)),
                },
                At::Trailers => {
                    if ahead.starts_with(b"\r\n") {
                        ahead.advance(2);
                        return Ok(Step::End);
                    }
                    let end = end_of_head(ahead);
                    if end.unwrap_or(ahead.len()) > self.limits.size {
                        return Err(Error::TooLarge(Excess::TrailerSize));
                    }
                    let Some(end) = end else {
                        if ahead.len() > SMALL {
                            self.held.grow(ahead.capacity())?;
                        }
                        return Ok(Step::More);
                    };
                    let section = ahead.split_to(end).freeze();
                    let trailers: HeaderMap = head::trailers(&section, self.limits.count)?;
                    return Ok(Step::Frame(Frame::trailers(trailers)));
                }
            }
        }
    }
}

/// The size in a line such as `1f;extension\r\n`.
fn chunk_size(line: &[u8]) -> Result<u64, Error> {
    // httparse would take an empty line for a zero, and a bare line feed for a part of an extension.
    let is_line = line.first().is_some_and(u8::is_ascii_hexdigit) && line.ends_with(b"\r\n");
    match httparse::parse_chunk_size(line) {
        Ok(httparse::Status::Complete((end, size))) if is_line && end == line.len() => Ok(size),
        _ => Err(Error::Malformed(Fault::ChunkSize)),
    }
}

const TOO_LONG: Error = Error::Malformed(Fault::ChunkExtension);
const LONGEST_LINE: usize = 4 * 1024;
/// Of one body, in bytes.
const MOST_EXTENSIONS: usize = 16 * 1024;
/// Sixteen digits and a line end.
const PLAIN_LINE: usize = 18;

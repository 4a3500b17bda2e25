//! A message on its way out: its head, then its body as that comes, in as few writes as can be.

use std::fmt::Write as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, SizeHint};

use super::head::write_field;
use super::wire::Outgoing;

/// How the end of a body is shown to who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// There is no body.
    None,
    /// Bytes that are still to be given.
    Length(u64),
    Chunked,
    UntilClose,
}

/// A head and a body that are being written.
#[derive(Debug)]
pub(super) struct Outflow<B> {
    pub(super) body: B,
    encoding: Encoding,
    out: Outgoing,
    is_ended: bool,
    /// A piece of the body waits to be written: it goes out before the next one is asked for.
    is_due: bool,
    /// Grows with every piece of the body.
    pieces: usize,
    /// Whether the reader wants trailers.
    trailers: bool,
}

/// Why a message was not written to its end.
#[derive(Debug)]
pub(super) enum Broken<E> {
    /// By its source.
    Body(E),
    /// By who should read it; what broke shows when the connection is used next.
    Io,
    /// It is longer or shorter than its head says.
    Length,
}

impl Encoding {
    /// The bytes of a body that is short enough to go out in one buffer with its head.
    pub(super) fn room(&self) -> usize {
        match self {
            Self::Length(length) => usize::try_from(*length).ok().filter(|length| *length <= SMALL),
            Self::Chunked | Self::None | Self::UntilClose => None,
        }
        .unwrap_or_default()
    }

    /// For a body of which `hint` is known, to a reader of chunks if `chunks`.
    pub(super) fn of(hint: &SizeHint, chunks: bool) -> Self {
        match (hint.exact(), chunks) {
            (Some(length), _) => Self::Length(length),
            (None, true) => Self::Chunked,
            (None, false) => Self::UntilClose,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Outflow<B> {
    pub(super) fn new(head: BytesMut, body: B, encoding: Encoding, trailers: bool) -> Self {
        let is_ended = body.is_end_stream() && matches!(encoding, Encoding::None | Encoding::Length(0));
        Self {
            body,
            encoding,
            out: Outgoing {
                head,
                ..Outgoing::default()
            },
            is_ended,
            is_due: false,
            pieces: 0,
            trailers,
        }
    }

    pub(super) fn pieces(&self) -> usize {
        self.pieces
    }

    /// Ready when all is out. `write` writes and flushes all that it is given.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut Outgoing, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<Result<(), Broken<B::Error>>> {
        loop {
            if self.is_ended || self.is_due {
                ready!(write(&mut self.out, cx)).map_err(|_| Broken::Io)?;
                self.is_due = false;
                if self.is_ended {
                    return Poll::Ready(Ok(()));
                }
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.pieces = self.pieces.wrapping_add(1);
                    match frame.into_data() {
                        Ok(data) => self.put(data)?,
                        Err(frame) => {
                            self.end(frame.trailers_ref())?;
                            continue;
                        }
                    }
                    // Known to be over: its end goes out in the same write.
                    if self.body.is_end_stream() {
                        self.end(None)?;
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Broken::Body(error))),
                Poll::Ready(None) => self.end(None)?,
                Poll::Pending => {
                    if !self.out.is_empty() {
                        ready!(write(&mut self.out, cx)).map_err(|_| Broken::Io)?;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn put(&mut self, data: Bytes) -> Result<(), Broken<B::Error>> {
        self.is_due = true;
        match &mut self.encoding {
            Encoding::Chunked if data.is_empty() => return Ok(()),
            Encoding::Chunked => {
                // Writing to a buffer that grows cannot fail.
                let _ = write!(self.out.head, "{:x}\r\n", data.len());
                self.out.tail = Bytes::from_static(b"\r\n");
            }
            Encoding::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Broken::Length)?;
                // A short body goes out with its head: one buffer is cheaper for the kernel to take than two.
                if !self.out.head.is_empty() && data.len() <= SMALL {
                    self.out.head.put_slice(&data);
                    return Ok(());
                }
            }
            Encoding::UntilClose => {}
            Encoding::None => return Ok(()),
        }
        self.out.data = data;
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Broken<B::Error>> {
        self.is_ended = true;
        match self.encoding {
            Encoding::Length(left) if left > 0 => return Err(Broken::Length),
            Encoding::Chunked => {
                let mut tail = BytesMut::from(&self.out.tail[..]);
                tail.put_slice(b"0\r\n");
                for (name, value) in trailers.filter(|_| self.trailers).into_iter().flatten() {
                    write_field(&mut tail, name, value);
                }
                tail.put_slice(b"\r\n");
                self.out.tail = tail.freeze();
            }
            Encoding::Length(_) | Encoding::None | Encoding::UntilClose => {}
        }
        Ok(())
    }
}

/// In bytes.
const SMALL: usize = 4 * 1024;

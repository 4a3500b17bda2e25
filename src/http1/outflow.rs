//! Writes a message: the head, then the body as it comes, in as few writes as possible.

use std::fmt::Write as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;

use super::framing::{BodyEncoding, ONE_BUFFER};
use super::head::write_field;
use super::wire::Outgoing;

/// A head and a body that are being written.
#[derive(Debug)]
pub(super) struct MessageWriter<B> {
    pub(super) body: B,
    encoding: BodyEncoding,
    out: Outgoing,
    is_ended: bool,
    /// A piece of the body waits to be written. The next one is not asked for before that.
    is_due: bool,
    /// Grows with every piece of the body.
    pieces: usize,
    /// Whether the reader wants trailers.
    trailers: bool,
}

/// Why a message was not written to its end.
#[derive(Debug)]
pub(super) enum WriteError<E> {
    /// The body could not be read.
    Body(E),
    /// The connection broke. Its error shows when it is used next.
    Io,
    /// It is longer or shorter than its head says.
    Length,
}

impl<B: Body<Data = Bytes> + Unpin> MessageWriter<B> {
    pub(super) fn new(head: BytesMut, body: B, encoding: BodyEncoding, trailers: bool) -> Self {
        let is_ended =
            body.is_end_stream() && matches!(encoding, BodyEncoding::None | BodyEncoding::Length(0));
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

    /// Writes the message; ready when all of it is out. `write` writes and flushes what it is given.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut Outgoing, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<Result<(), WriteError<B::Error>>> {
        loop {
            if self.is_ended || self.is_due {
                ready!(write(&mut self.out, cx)).map_err(|_| WriteError::Io)?;
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
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(WriteError::Body(error))),
                Poll::Ready(None) => self.end(None)?,
                Poll::Pending => {
                    if !self.out.is_empty() {
                        ready!(write(&mut self.out, cx)).map_err(|_| WriteError::Io)?;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn put(&mut self, data: Bytes) -> Result<(), WriteError<B::Error>> {
        self.is_due = true;
        match &mut self.encoding {
            BodyEncoding::Chunked if data.is_empty() => return Ok(()),
            BodyEncoding::Chunked => {
                // Writing to a buffer that grows cannot fail.
                let _ = write!(self.out.head, "{:x}\r\n", data.len());
                self.out.tail = Bytes::from_static(b"\r\n");
            }
            BodyEncoding::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(WriteError::Length)?;
                // A short body goes out with its head: one buffer is cheaper for the kernel to take than two.
                if !self.out.head.is_empty() && data.len() <= ONE_BUFFER {
                    self.out.head.put_slice(&data);
                    return Ok(());
                }
            }
            BodyEncoding::UntilClose => {}
            BodyEncoding::None => return Ok(()),
        }
        self.out.data = data;
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), WriteError<B::Error>> {
        self.is_ended = true;
        match self.encoding {
            BodyEncoding::Length(left) if left > 0 => return Err(WriteError::Length),
            BodyEncoding::Chunked => {
                let mut tail = BytesMut::from(&self.out.tail[..]);
                tail.put_slice(b"0\r\n");
                for (name, value) in trailers.filter(|_| self.trailers).into_iter().flatten() {
                    write_field(&mut tail, name, value);
                }
                tail.put_slice(b"\r\n");
                self.out.tail = tail.freeze();
            }
            BodyEncoding::Length(_) | BodyEncoding::None | BodyEncoding::UntilClose => {}
        }
        Ok(())
    }
}

//! A stream with what has been read ahead, and what waits to be written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem::Finder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Error, Excess};
use crate::stream;

/// The read buffer that an idle connection may keep, in bytes.
const KEPT: usize = 4 * 1024;

/// A stream, and the bytes that have been read from it ahead of use.
#[derive(Debug)]
pub(super) struct Wire<T> {
    pub(super) stream: T,
    pub(super) ahead: BytesMut,
    /// The first so many bytes of `ahead` have been searched: no head ends in them.
    scanned: usize,
    /// `ahead` has been larger than an idle connection may keep.
    is_large: bool,
}

/// What waits to be written: a head or the size line of a chunk, the data, and the end of the chunk.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) head: BytesMut,
    pub(super) data: Bytes,
    pub(super) tail: Bytes,
}

impl<T> Wire<T> {
    pub(super) fn new(stream: T) -> Self {
        Self {
            stream,
            ahead: BytesMut::new(),
            scanned: 0,
            is_large: false,
        }
    }

    /// Puts bytes back in front of what has been read ahead.
    pub(super) fn put_back(&mut self, first: &[u8]) {
        let mut whole = BytesMut::with_capacity(first.len() + self.ahead.len());
        whole.extend_from_slice(first);
        whole.extend_from_slice(&self.ahead);
        self.ahead = whole;
        self.scanned = 0;
    }

    /// Frees a large buffer that is empty: what was split off may still keep all of it.
    pub(super) fn rest(&mut self) {
        if self.is_large && self.ahead.is_empty() {
            (self.ahead, self.is_large) = (BytesMut::new(), false);
        }
    }

    /// Returns the stream, and what was read ahead.
    pub(super) fn into_parts(self) -> (T, Bytes) {
        // Copied: a view would keep all of the buffer for as long as the stream lives.
        (self.stream, Bytes::copy_from_slice(&self.ahead))
    }
}

impl<T: AsyncRead + Unpin> Wire<T> {
    /// Reads once, and appends to what has been read ahead. Returns 0 at the end of the stream.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self {
            stream,
            ahead,
            is_large,
            ..
        } = self;
        stream::with_buffer(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(stream).poll_read(cx, &mut read))?;
            let read = read.filled();
            if ahead.is_empty() && ahead.capacity() > KEPT {
                *ahead = BytesMut::new();
            }
            ahead.extend_from_slice(read);
            *is_large |= ahead.len() > KEPT;
            Poll::Ready(Ok(read.len()))
        })
    }

    /// Reads the next head, its empty line included; `None` if the stream ends before it begins.
    ///
    /// `probe` refuses a beginning that cannot become a head, so that we do not wait for the end of another protocol.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        probe: impl Fn(&[u8]) -> Result<(), Error>,
    ) -> Poll<Result<Option<Bytes>, Error>> {
        loop {
            // RFC 9112 section 2.2: some clients end a body with an empty line too many.
            while self.scanned == 0 && self.ahead.starts_with(b"\r\n") {
                self.ahead.advance(2);
            }
            // An end that is split over two reads begins at most three bytes before the second.
            let from = self.scanned.saturating_sub(3);
            if let Some(end) = end_of_head(&self.ahead[from..]) {
                self.scanned = 0;
                if from + end > most {
                    return Poll::Ready(Err(Error::TooLarge(Excess::HeadSize)));
                }
                let head = self.ahead.split_to(from + end).freeze();
                // A view keeps the whole buffer: a small head must not keep the body that came with it.
                let is_small_part = head.len() < self.ahead.len() && self.ahead.len() > KEPT;
                return Poll::Ready(Ok(Some(if is_small_part {
                    Bytes::copy_from_slice(&head)
                } else {
                    head
                })));
            }
            if self.ahead.len() >= most {
                return Poll::Ready(Err(Error::TooLarge(Excess::HeadSize)));
            }
            // A carriage return alone may become an empty line.
            if self.ahead[..] != *b"\r" {
                if self.scanned == 0 && !self.ahead.is_empty() {
                    probe(&self.ahead)?;
                }
                self.scanned = self.ahead.len();
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(if self.ahead.is_empty() {
                    Ok(None)
                } else {
                    Err(Error::Incomplete)
                });
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> Wire<T> {
    /// Writes and flushes all of `out`.
    pub(super) fn poll_write(&mut self, out: &mut Outgoing, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = Pin::new(&mut self.stream);
        while !out.is_empty() {
            let slices = [
                IoSlice::new(&out.head),
                IoSlice::new(&out.data),
                IoSlice::new(&out.tail),
            ];
            // Some streams write only the first slice, which must not be empty.
            let first = slices.iter().position(|slice| !slice.is_empty()).unwrap_or(0);
            let last = slices.iter().rposition(|slice| !slice.is_empty()).unwrap_or(0);
            let written = if first == last {
                ready!(stream.as_mut().poll_write(cx, &slices[first]))?
            } else {
                ready!(stream.as_mut().poll_write_vectored(cx, &slices[first..=last]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            out.advance(written);
        }
        stream.poll_flush(cx)
    }
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty() && self.data.is_empty() && self.tail.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.head.len() + self.data.len() + self.tail.len()
    }

    fn advance(&mut self, mut written: usize) {
        if written == self.len() {
            // As nearly always. The room of the head is kept.
            self.head.clear();
            (self.data, self.tail) = (Bytes::new(), Bytes::new());
            return;
        }
        for part in [&mut self.head as &mut dyn Buf, &mut self.data, &mut self.tail] {
            let taken = written.min(part.remaining());
            part.advance(taken);
            written -= taken;
        }
    }
}

/// Returns the end of the head at the beginning of `bytes`: after its first empty line, with or without carriage returns.
pub(super) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    static ENDS: LazyLock<[Finder<'static>; 2]> =
        LazyLock::new(|| [Finder::new("\n\r\n"), Finder::new("\n\n")]);
    let [usual, bare] = &*ENDS;
    let end = usual.find(bytes).map(|at| at + 3);
    // The second search goes only as far as the first one came.
    let before = &bytes[..end.unwrap_or(bytes.len())];
    bare.find(before).map(|at| at + 2).or(end)
}

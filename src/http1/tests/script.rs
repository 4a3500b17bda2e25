//! A stream that reads what it was told, in the pieces that it was told, and a body that does the same.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::http1::server::RelayedBody;
use crate::stream::{Hangup, Reset};

/// What comes after the last piece.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Eof,
    Error(io::ErrorKind),
    Never,
}

/// What has been written to a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

/// A stream of which each read gives one piece, with a `Pending` before each but the first.
#[derive(Debug)]
pub(super) struct Script {
    pieces: VecDeque<Bytes>,
    end: End,
    has_waited: bool,
    /// How a write is taken: at most so many bytes, of all slices or of the first.
    most: usize,
    is_vectored: bool,
    pub(super) written: Written,
}

impl Script {
    pub(super) fn new(pieces: impl IntoIterator<Item = Bytes>, end: End) -> Self {
        Self {
            pieces: pieces.into_iter().filter(|piece| !piece.is_empty()).collect(),
            end,
            has_waited: true,
            most: usize::MAX,
            is_vectored: true,
            written: Written::default(),
        }
    }

    pub(super) fn whole(bytes: impl AsRef<[u8]>) -> Self {
        Self::new([Bytes::copy_from_slice(bytes.as_ref())], End::Eof)
    }

    pub(super) fn taking(mut self, most: usize, is_vectored: bool) -> Self {
        (self.most, self.is_vectored) = (most, is_vectored);
        self
    }
}

impl Reset for Script {
    fn reset(&self) {
        self.written.0.lock().unwrap().extend_from_slice(b"<reset>");
    }

    fn hangup(&self) -> Option<Hangup> {
        None
    }
}

impl Reset for DuplexStream {
    fn reset(&self) {}

    fn hangup(&self) -> Option<Hangup> {
        None
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.has_waited, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(mut piece) = self.pieces.pop_front() else {
            return match self.end {
                End::Eof => Poll::Ready(Ok(())),
                End::Error(kind) => Poll::Ready(Err(kind.into())),
                End::Never => Poll::Pending,
            };
        };
        self.has_waited = false;
        buf.put_slice(&piece.split_to(piece.len().min(buf.remaining())));
        if !piece.is_empty() {
            self.pieces.push_front(piece);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        assert!(!bytes.is_empty(), "nothing to write");
        let taken = bytes.len().min(self.most);
        self.written.0.lock().unwrap().extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.is_vectored {
            return self.poll_write(cx, &slices[0]);
        }
        let mut taken = 0;
        for slice in slices {
            let most = slice.len().min(self.most - taken);
            if most > 0 {
                match self.as_mut().poll_write(cx, &slice[..most]) {
                    Poll::Ready(written) => taken += written?,
                    Poll::Pending => break,
                }
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        self.is_vectored
    }
}

/// A body of so many pieces, perhaps with its length stated, perhaps with trailers, perhaps without an end.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) pieces: VecDeque<Bytes>,
    pub(super) length: Option<u64>,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) end: SaidEnd,
    /// Whether it waits before each piece.
    pub(super) is_slow: bool,
    pub(super) has_waited: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SaidEnd {
    /// Known when the last piece is given.
    #[default]
    Known,
    Asked,
    Cut,
    Never,
}

impl Said {
    /// Its length is stated.
    pub(super) fn of(text: &'static str) -> Self {
        Self {
            length: Some(text.len() as u64),
            ..Self::pieces(&[text])
        }
    }

    /// Its length is not known.
    pub(super) fn pieces(pieces: &[&'static str]) -> Self {
        let pieces = pieces.iter().filter(|piece| !piece.is_empty());
        Self {
            pieces: pieces.map(|piece| Bytes::from_static(piece.as_bytes())).collect(),
            ..Self::default()
        }
    }
}

impl Body for Said {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        if self.is_slow && !std::mem::replace(&mut self.has_waited, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.has_waited = false;
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        match self.end {
            SaidEnd::Known | SaidEnd::Asked => Poll::Ready(None),
            SaidEnd::Cut => Poll::Ready(Some(Err("cut"))),
            SaidEnd::Never => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.end == SaidEnd::Known && self.pieces.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl RelayedBody for Said {
    fn poll_upload(&mut self, _: &mut Context<'_>) {}

    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// `bytes` whole, one byte at a time, and cut in two at each place.
pub(super) fn cuts(bytes: &[u8]) -> Vec<Vec<Bytes>> {
    let bytes = Bytes::copy_from_slice(bytes);
    let single = (0..bytes.len()).map(|at| bytes.slice(at..=at)).collect();
    let halves = (1..bytes.len()).map(|at| vec![bytes.slice(..at), bytes.slice(at..)]);
    [vec![bytes.clone()], single].into_iter().chain(halves).collect()
}

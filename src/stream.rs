//! The app's end of a connection: a TCP or a UNIX socket, and a stream with bytes put back in front.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;

/// A connection from the app.
#[derive(Debug)]
pub(crate) enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A stream some of whose bytes have been read already, and are read again.
#[derive(Debug)]
pub(crate) struct Rewound<T> {
    first: Bytes,
    then: T,
}

/// A connection whose peer may have said all it wants to say, or may be gone: TCP tells the two alike.
///
/// While a request is being answered the end of the peer's bytes is held back: for a moment while there is no answer
/// yet, then it is told and the work for the request is given up; for as long as it takes while the answer goes out,
/// since a write to a peer that is gone fails by itself.
#[derive(Debug)]
pub(crate) struct Patient<T> {
    phase: Arc<Phase>,
    /// Since the peer's end has been seen.
    ended: Option<Pin<Box<Sleep>>>,
    stream: T,
}

/// What a connection is busy with, shared by its stream and whoever answers.
#[derive(Debug, Default)]
pub(crate) struct Phase(AtomicU8);

/// See [`Phase`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Doing {
    /// Nothing, or reading a request.
    Idle = 0,
    /// No answer yet to a request without a body.
    Waiting = 1,
    /// No answer yet to a request whose body may still be under way.
    Uploading = 2,
    /// The answer goes out.
    Answering = 3,
}

impl Phase {
    pub(crate) fn set(&self, doing: Doing) {
        self.0.store(doing as u8, Ordering::Relaxed);
    }

    fn is(&self, doing: Doing) -> bool {
        self.0.load(Ordering::Relaxed) == doing as u8
    }
}

impl Io {
    /// Without it, small writes wait for the peer's delayed acknowledgement: 40 ms a time.
    pub(crate) fn set_nodelay(&self) {
        if let Self::Tcp(stream) = self {
            let _ = stream.set_nodelay(true);
        }
    }
}

impl<T> Rewound<T> {
    pub(crate) fn new(first: Bytes, then: T) -> Self {
        Self { first, then }
    }
}

impl<T> Patient<T> {
    pub(crate) fn new(stream: T, phase: Arc<Phase>) -> Self {
        Self {
            phase,
            ended: None,
            stream,
        }
    }

    pub(crate) fn into_inner(self) -> T {
        self.stream
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewound<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.then).poll_read(cx, buf);
        }
        let length = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..length]);
        self.first.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewound<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.then).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.then).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.then).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.then).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.then.is_write_vectored()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            if buf.filled().len() > before || self.phase.is(Doing::Idle) {
                return Poll::Ready(Ok(()));
            }
            let grace = if self.phase.is(Doing::Uploading) {
                UPLOAD_GRACE
            } else {
                GRACE
            };
            self.ended = Some(Box::pin(tokio::time::sleep(grace)));
        }
        let Self { phase, ended, .. } = &mut *self;
        match ended {
            Some(_) if phase.is(Doing::Answering) => Poll::Pending,
            Some(_) if phase.is(Doing::Idle) => Poll::Ready(Ok(())),
            Some(grace) => grace.as_mut().poll(cx).map(Ok),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Long enough for the answer to whoever closes its half first, short enough not to work long for nobody.
const GRACE: Duration = Duration::from_secs(5);
/// A body that ends early must not look complete for long.
const UPLOAD_GRACE: Duration = Duration::from_secs(1);

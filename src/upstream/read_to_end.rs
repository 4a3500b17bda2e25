//! A stream that is read to its end although it cannot be written any more.
//!
//! A server that answers early and closes (RFC 9113 section 8.1) resets the connection while we still send the request
//! body. The h2 crate drops a connection at the first write that fails, with the answer unread in the socket. And if the
//! connection ends before the request does, it forgets that the answer was complete. So the end is reported a moment later
//! than the bytes before it, and the answer is read first.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

const PAUSE: Duration = Duration::from_millis(2);

/// Accepts and drops what is written after the peer has gone, so that the reader sees all that came, and then the end.
#[derive(Debug)]
pub(super) struct ReadToEnd<T> {
    stream: T,
    is_broken: bool,
    /// Shared with the pool, which then sends no new request here.
    is_closed: Arc<AtomicBool>,
    /// Bytes were read, and their readers have not run yet.
    has_news: bool,
    /// The delay of the end, and the end.
    pause: Option<(Pin<Box<Sleep>>, io::Result<()>)>,
}

impl<T> ReadToEnd<T> {
    pub(super) fn new(stream: T, is_closed: Arc<AtomicBool>) -> Self {
        Self {
            stream,
            is_broken: false,
            is_closed,
            has_news: false,
            pause: None,
        }
    }

    /// Turns a write error that shows that the peer has gone into the success `value`, because the reader will see the end.
    /// Other errors stay errors.
    fn forgive<V>(&mut self, result: io::Result<V>, value: V) -> io::Result<V> {
        match result {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                self.is_broken = true;
                self.is_closed.store(true, Ordering::Relaxed);
                Ok(value)
            }
            result => result,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ReadToEnd<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some((pause, _)) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
        }
        if let Some((_, end)) = self.pause.take() {
            return Poll::Ready(end);
        }
        let before = buf.filled().len();
        let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(cx, buf) else {
            self.has_news = false;
            return Poll::Pending;
        };
        let is_end = result.is_err() || buf.filled().len() == before;
        if !is_end {
            self.has_news = true;
            return Poll::Ready(result);
        }
        self.is_closed.store(true, Ordering::Relaxed);
        if std::mem::take(&mut self.has_news) {
            let mut pause = Box::pin(sleep(PAUSE));
            if pause.as_mut().poll(cx).is_pending() {
                self.pause = Some((pause, result));
                return Poll::Pending;
            }
        }
        Poll::Ready(result)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ReadToEnd<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_broken {
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        Poll::Ready(self.forgive(result, bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_broken {
            return Poll::Ready(Ok(()));
        }
        let result = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(self.forgive(result, ()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.is_broken {
            return Poll::Ready(Ok(length));
        }
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices));
        Poll::Ready(self.forgive(result, length))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

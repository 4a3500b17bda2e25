//! A stream that sends the end of a TLS handshake together with the first answer.
//!
//! After a handshake in TLS 1.3 the server sends a ticket. Where the client's first request has come with the end of its side,
//! the ticket waits for the answer: one packet instead of two, and the client wakes once.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::{Hangup, Reset};

/// The most bytes that are kept: more than a handshake takes.
const MOST: usize = 16 * 1024;

/// A stream that keeps what is written until there is nothing to read, and after [`Self::release`] until the next write. At
/// its end it sends what it still has: an alert says why a handshake failed.
#[derive(Debug)]
pub(super) struct Combined<T: AsyncWrite + Unpin> {
    is_combining: bool,
    kept: BytesMut,
    then: T,
}

impl<T: AsyncWrite + Unpin> Combined<T> {
    pub(super) fn new(then: T) -> Self {
        Self {
            is_combining: true,
            kept: BytesMut::new(),
            then,
        }
    }

    /// Ends that: what has been kept goes out with the next bytes.
    pub(super) fn release(&mut self) {
        self.is_combining = false;
    }

    /// Sends what has been kept, as far as the socket takes it now.
    pub(super) fn send(&mut self) {
        // An error shows at the next read or write.
        let _ = self.poll_send(&mut Context::from_waker(Waker::noop()));
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let written = ready!(Pin::new(&mut self.then).poll_write(cx, &self.kept))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.kept.advance(written);
        }
        self.kept = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Drop for Combined<T> {
    fn drop(&mut self) {
        self.send();
    }
}

impl<T: AsyncWrite + Reset + Unpin> Reset for Combined<T> {
    fn reset(&self) {
        self.then.reset();
    }

    fn hangup(&self) -> Option<Hangup> {
        self.then.hangup()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Combined<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.then).poll_read(cx, buf);
        // Now the other side may be waiting for what is kept.
        if read.is_pending()
            && self.is_combining
            && let Poll::Ready(Err(error)) = self.poll_send(cx)
        {
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Combined<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.is_combining && self.kept.is_empty() {
            return Pin::new(&mut self.then).poll_write_vectored(cx, slices);
        }
        if self.kept.len() >= MOST {
            ready!(self.poll_send(cx))?;
        }
        let before = self.kept.len();
        for slice in slices {
            let room = MOST - self.kept.len();
            self.kept.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let taken = self.kept.len() - before;
        if !self.is_combining
            && let Poll::Ready(Err(error)) = self.poll_send(cx)
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_combining {
            ready!(self.poll_send(cx))?;
        }
        Pin::new(&mut self.then).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.then).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// Reads what is there.
    async fn arrived(stream: &mut (impl AsyncRead + Unpin)) -> String {
        let mut bytes = [0; 64];
        let mut read = ReadBuf::new(&mut bytes);
        let poll = |cx: &mut Context<'_>| Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut read));
        let _ = std::future::poll_fn(poll).await;
        String::from_utf8(read.filled().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn what_is_written_goes_out_when_there_is_nothing_to_read() {
        let (near, mut far) = duplex(64);
        let mut near = Combined::new(near);
        far.write_all(b"hello").await.unwrap();
        near.write_all(b"one ").await.unwrap();
        near.flush().await.unwrap();
        assert_eq!(arrived(&mut near).await, "hello");
        near.write_all(b"two").await.unwrap();
        assert_eq!(arrived(&mut far).await, "");
        assert_eq!(arrived(&mut near).await, "");
        assert_eq!(arrived(&mut far).await, "one two");
    }

    #[tokio::test]
    async fn after_the_release_it_goes_out_with_what_follows_and_then_nothing_is_kept() {
        let (near, mut far) = duplex(64);
        let mut near = Combined::new(near);
        near.write_all(b"ticket ").await.unwrap();
        near.release();
        assert_eq!(arrived(&mut near).await, "");
        assert_eq!(arrived(&mut far).await, "");
        let parts = [IoSlice::new(b"head "), IoSlice::new(b"body")];
        assert_eq!(near.write_vectored(&parts).await.unwrap(), 9);
        assert_eq!(arrived(&mut far).await, "ticket head body");
        near.write_all(b"more").await.unwrap();
        assert_eq!(arrived(&mut far).await, "more");
    }

    #[tokio::test]
    async fn a_peer_that_is_slow_to_read_gets_every_byte_in_order() {
        let (near, mut far) = duplex(7);
        let mut near = Combined::new(near);
        let sent: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let (first, rest) = sent.split_at(2 * MOST + 5);
        let sending = async {
            for piece in first.chunks(1000) {
                near.write_all(piece).await.unwrap();
            }
            near.release();
            near.write_all(rest).await.unwrap();
            near.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (read, ()) = tokio::join!(far.read_to_end(&mut got), sending);
        assert_eq!(read.unwrap(), sent.len());
        assert!(got == sent);
    }

    #[tokio::test]
    async fn what_is_kept_at_the_end_is_sent() {
        let (near, mut far) = duplex(64);
        let mut near = Combined::new(near);
        near.write_all(b"alert").await.unwrap();
        drop(near);
        assert_eq!(arrived(&mut far).await, "alert");
    }
}

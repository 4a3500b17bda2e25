//! Streams of bytes: a TCP socket or another stream in its place, a stream with bytes put back in front, and the buffer
//! that a worker reads through.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::memory::{MEMORY, Reservation};

/// Reads a stream from the one inside it: each pattern binds the fields of a form, and the place after it is the inner
/// stream.
macro_rules! delegate_read {
    ([$($bounds:tt)*] $stream:ty { $($form:pat => $inner:expr),+ $(,)? }) => {
        impl<$($bounds)*> tokio::io::AsyncRead for $stream {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() { $($form => std::pin::Pin::new(&mut $inner).poll_read(cx, buf)),+ }
            }
        }
    };
}

/// The same for writing.
macro_rules! delegate_write {
    ([$($bounds:tt)*] $stream:ty { $($form:pat => $inner:expr),+ $(,)? }) => {
        impl<$($bounds)*> tokio::io::AsyncWrite for $stream {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bytes: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                match self.get_mut() { $($form => std::pin::Pin::new(&mut $inner).poll_write(cx, bytes)),+ }
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() { $($form => std::pin::Pin::new(&mut $inner).poll_flush(cx)),+ }
            }

            fn poll_shutdown(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() { $($form => std::pin::Pin::new(&mut $inner).poll_shutdown(cx)),+ }
            }

            fn poll_write_vectored(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                slices: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                match self.get_mut() { $($form => std::pin::Pin::new(&mut $inner).poll_write_vectored(cx, slices)),+ }
            }

            fn is_write_vectored(&self) -> bool {
                match self { $($form => $inner.is_write_vectored()),+ }
            }
        }
    };
}
pub(crate) use {delegate_read, delegate_write};

/// A TCP socket, or another stream in its place.
#[derive(Debug)]
pub(crate) enum Socket<O> {
    Tcp(TcpStream),
    Other(O),
}

/// A connection from the app.
pub(crate) type Io = Socket<OtherStream>;

/// A connection from the app that is no TCP socket.
#[derive(Debug)]
pub(crate) enum OtherStream {
    /// TLS with a client of the listener.
    Tls(Box<ClientTls>),
    Unix(UnixStream),
}

/// TLS with a client of the listener, and the memory for it.
#[derive(Debug)]
pub(crate) struct ClientTls {
    pub(crate) stream: TlsStream<Rewound<Io>>,
    pub(crate) _held: Reservation,
}

/// A stream whose first bytes have been read already, and are read again.
#[derive(Debug)]
pub(crate) struct Rewound<T> {
    first: Bytes,
    then: T,
}

/// A stream that can show whether its end was meant: a reset shows that it was not.
pub(crate) trait Reset {
    /// Makes the end of the stream a reset, because what was written is not complete.
    fn reset(&self);

    /// Returns how the peer has ended it, as far as that shows without reading. `None`: not yet, or it does not show.
    fn hangup(&self) -> Option<Hangup>;
}

/// How a peer has ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hangup {
    /// It sends no more (FIN). It may still read, or be gone.
    Closed,
    /// It neither sends nor reads any more (RST).
    Reset,
}

impl Hangup {
    /// Reads what the event loop knows: without a system call, and also if there are unread bytes before the end.
    fn of(ready: impl Future<Output = io::Result<Ready>>) -> Option<Self> {
        match pin!(ready).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(ready)) if ready.is_write_closed() || ready.is_error() => Some(Self::Reset),
            Poll::Ready(Ok(ready)) if ready.is_read_closed() => Some(Self::Closed),
            Poll::Ready(_) | Poll::Pending => None,
        }
    }
}

impl Reset for Io {
    fn reset(&self) {
        match self {
            Self::Tcp(stream) => drop(stream.set_zero_linger()),
            Self::Other(OtherStream::Tls(tls)) => tls.stream.reset(),
            // A Unix socket has no reset.
            Self::Other(OtherStream::Unix(_)) => {}
        }
    }

    fn hangup(&self) -> Option<Hangup> {
        let all = Interest::READABLE | Interest::WRITABLE | Interest::ERROR;
        match self {
            Self::Tcp(stream) => Hangup::of(stream.ready(all)),
            Self::Other(OtherStream::Tls(tls)) => tls.stream.hangup(),
            Self::Other(OtherStream::Unix(stream)) => Hangup::of(stream.ready(all)),
        }
    }
}

impl<T: Reset> Reset for Rewound<T> {
    fn reset(&self) {
        self.then.reset();
    }

    fn hangup(&self) -> Option<Hangup> {
        self.then.hangup()
    }
}

impl<T: Reset> Reset for Box<T> {
    fn reset(&self) {
        (**self).reset();
    }

    fn hangup(&self) -> Option<Hangup> {
        (**self).hangup()
    }
}

impl<T: Reset> Reset for TlsStream<T> {
    /// TLS that ends without close_notify was cut: nothing has to be done.
    fn reset(&self) {}

    fn hangup(&self) -> Option<Hangup> {
        self.get_ref().0.hangup()
    }
}

impl<T> Rewound<T> {
    pub(crate) fn new(first: Bytes, then: T) -> Self {
        Self { first, then }
    }
}

delegate_read!([O: AsyncRead + Unpin] Socket<O> { Self::Tcp(stream) => *stream, Self::Other(stream) => *stream });
delegate_write!([O: AsyncWrite + Unpin] Socket<O> { Self::Tcp(stream) => *stream, Self::Other(stream) => *stream });
delegate_read!([] OtherStream { Self::Tls(tls) => tls.stream, Self::Unix(stream) => *stream });
delegate_write!([] OtherStream { Self::Tls(tls) => tls.stream, Self::Unix(stream) => *stream });

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
        if self.first.is_empty() {
            // Else what is left of it would keep its whole buffer for the life of the connection.
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

delegate_write!([T: AsyncWrite + Unpin] Rewound<T> { Self { then, .. } => *then });

/// Bounds the kernel's buffers of a socket to so many bytes in each direction. If it refuses, the system's bounds stay.
pub(crate) fn bound_buffers(socket: &SockRef<'_>, bytes: usize) {
    let _ = socket.set_recv_buffer_size(bytes);
    let _ = socket.set_send_buffer_size(bytes);
}

/// Lends the worker's read buffer, so that a connection that waits for bytes holds none. When memory is short, only a part
/// of it is lent, because what is read stays in memory until it is sent on.
pub(crate) fn with_buffer<R>(read: impl FnOnce(&mut [u8]) -> R) -> R {
    BUFFER.with_borrow_mut(|buffer| read(&mut buffer[..MEMORY.read_ahead(BUFFER_SIZE)]))
}

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER_SIZE].into_boxed_slice());
}

/// In bytes.
pub(crate) const BUFFER_SIZE: usize = 64 * 1024;
/// The version of SOCKS, the first byte of every connection that speaks it.
pub(crate) const SOCKS4: u8 = 0x04;
pub(crate) const SOCKS5: u8 = 0x05;
/// The content type of a handshake record, the first byte of every TLS connection.
pub(crate) const TLS_HANDSHAKE: u8 = 0x16;

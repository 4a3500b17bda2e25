//! What carries the bytes to an upstream: a socket, or a stream through a parent proxy; with or without TLS on top.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::parent::Via;
use super::tls;
use crate::stream::{Rewound, Socket, delegate_read, delegate_write};

/// A connection that carries bytes to an upstream. Through a parent that is reached without TLS it is a plain socket
/// as well, as soon as the parent has opened the way.
pub(crate) type Link = Socket<Box<Relay>>;

/// A stream through a parent. What the parent sent behind its answer is read first.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Bytes of others pass, which have their own end. So a parent that closes without close_notify, as many do, has closed
    /// the tunnel; a reset in its place would cost the app what it has not read yet.
    is_tunnel: bool,
    stream: Rewound<Socket<tls::Session<TcpStream>>>,
}

impl Relay {
    pub(super) fn new(stream: Rewound<Socket<tls::Session<TcpStream>>>, is_tunnel: bool) -> Self {
        Self { is_tunnel, stream }
    }
}

impl AsyncRead for Relay {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(Err(error)) if self.is_tunnel && error.kind() == io::ErrorKind::UnexpectedEof => {
                Poll::Ready(Ok(()))
            }
            read => read,
        }
    }
}

delegate_write!([] Relay { Self { stream, .. } => *stream });

/// A link to a target for a tunnel.
#[derive(Debug)]
pub(crate) struct OpenedLink {
    pub(crate) link: Link,
    /// To be told how the tunnel ended.
    pub(crate) way: Way,
}

/// How a link gets to its target: straight, or through a parent.
#[derive(Debug)]
pub(crate) struct Way(pub(super) Option<Arc<Via>>);

impl Way {
    /// Takes note of the end of a tunnel that `received` so many bytes from its target: some parents open a tunnel and
    /// close it when they cannot reach the target.
    pub(crate) fn ended(self, received: u64) {
        if let Some(via) = self.0.filter(|_| received == 0) {
            via.ended();
        }
    }
}

/// A connection to an upstream, with or without TLS of its destination.
#[derive(Debug)]
pub(crate) enum Stream {
    Clear(Link),
    Tls(Box<tls::Session<Link>>),
}

impl Stream {
    /// Whether it is a plain socket on which nothing is to be read, as far as the event loop knows. Of other streams that does
    /// not show without reading.
    pub(super) fn is_quiet(&self) -> bool {
        match self {
            Self::Clear(Socket::Tcp(socket)) => socket.try_io(Interest::READABLE, || Ok(())).is_err(),
            Self::Clear(Socket::Other(_)) | Self::Tls(_) => false,
        }
    }
}

delegate_read!([] Stream { Self::Clear(link) => *link, Self::Tls(session) => **session });
delegate_write!([] Stream { Self::Clear(link) => *link, Self::Tls(session) => **session });

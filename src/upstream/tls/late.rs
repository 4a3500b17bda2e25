//! A connection whose server may ask for the client's certificate after it has read a request.
//!
//! In TLS 1.2 it asks for another handshake (renegotiation), in TLS 1.3 for authentication after the handshake; HTTP/2
//! forbids both (RFC 9113 section 9.2.3, RFC 8740). rustls supports neither. It declines the first with a warning, which has
//! to be written at once, because the server waits for it. Most servers then end the connection; if one answers all the
//! same, its answer is read.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::{ClientConnection, HandshakeType, PeerMisbehaved, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use super::error;
use crate::stream::delegate_write;

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct Session<S> {
    /// The server has asked for another handshake, and sent nothing since.
    is_asked: bool,
    stream: TlsStream<S>,
}

/// How a server asks too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Late {
    #[error("authentication after the handshake, TLS 1.3")]
    Authentication,
    #[error("renegotiation, TLS 1.2")]
    Renegotiation,
}

impl Late {
    /// Returns how the server has asked, if that ended a connection after its handshake.
    pub(super) fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        if let Some(found) = error::find::<Self>(error) {
            return Some(*found);
        }
        match error::find(error)? {
            rustls::Error::InappropriateHandshakeMessage {
                got_type: HandshakeType::CertificateRequest,
                ..
            } => Some(Self::Authentication),
            rustls::Error::PeerMisbehaved(PeerMisbehaved::TooManyRenegotiationRequests) => {
                Some(Self::Renegotiation)
            }
            _ => None,
        }
    }
}

impl<S> Session<S> {
    pub(super) fn new(stream: TlsStream<S>) -> Self {
        let is_asked = false;
        Self { is_asked, stream }
    }

    /// Returns the state of the TLS connection.
    pub(crate) fn connection(&self) -> &ClientConnection {
        self.stream.get_ref().1
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Session<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining());
        let was_quiet = !self.connection().wants_write();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.connection().wants_write() {
            // In TLS 1.3 it may be a new key.
            let is_old = self.connection().protocol_version() == Some(ProtocolVersion::TLSv1_2);
            self.is_asked |= was_quiet && is_old;
            // What the socket does not take now is written later; an error shows at the next read or write.
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
        }
        if !self.is_asked {
            return result;
        }
        let is_answer = buf.filled().len() > before;
        match &result {
            Poll::Ready(Ok(())) if is_answer || room == 0 => {
                self.is_asked &= !is_answer;
                result
            }
            Poll::Ready(_) => Poll::Ready(Err(io::Error::other(Late::Renegotiation))),
            Poll::Pending => result,
        }
    }
}

delegate_write!([S: AsyncRead + AsyncWrite + Unpin] Session<S> { Self { stream, .. } => *stream });

//! The bodies of responses to the app: relayed from the upstream, or made here.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::reply_body::ReplyBody;
use super::splice;
use super::tunnel::TunnelSlot;
use crate::drain::ExchangeGuard;
use crate::fields::{self, Listed};
use crate::http1::server::RelayedBody;
use crate::limit::Permit;
use crate::memory::Reservation;
use crate::stream::Rewound;
use crate::telemetry::Exchange;
use crate::upstream::body::{BodyError, Progress};
use crate::upstream::link::Stream;

/// How long the app may take to read a response that was made here.
const LOCAL_UNREAD: Duration = Duration::from_secs(60);

/// The body of a response to the app.
#[derive(Debug)]
pub(crate) enum Body {
    /// Made here. `None` once it has been sent.
    Local(Option<Bytes>),
    /// From the upstream or the cache. The exchange is recorded when the body ends.
    Forwarded(Box<ForwardedBody>, Box<Exchange>),
}

/// A body on its way to the app, with everything that must live as long as it does.
#[derive(Debug)]
pub(crate) struct ForwardedBody {
    pub(super) body: ReplyBody,
    /// How long no byte may move before the connection is closed.
    pub(super) idle: Duration,
    pub(super) upload: Option<Arc<Progress>>,
    /// After a 101, when both connections carry another protocol.
    pub(super) upgraded: Option<Box<Upgraded>>,
    /// A download keeps its permit to its end.
    pub(super) permit: Option<Permit>,
    /// Fields that Connection named, which trailers must not carry either.
    pub(super) listed: Option<Arc<Listed>>,
    pub(super) busy: ExchangeGuard,
    pub(super) _held: Reservation,
}

/// An upstream connection that will be joined with the app's.
#[derive(Debug)]
pub(super) struct Upgraded {
    pub(super) upstream: Rewound<Stream>,
    pub(super) slot: TunnelSlot,
    pub(super) idle: Duration,
}

impl Body {
    pub(super) fn empty() -> Self {
        Self::Local(None)
    }

    pub(super) fn local(text: String) -> Self {
        Self::Local(Some(Bytes::from(text)))
    }
}

impl Upgraded {
    /// Joins the two streams, beginning with the bytes that both sides have sent already.
    pub(super) async fn join<T>(
        self: Box<Self>,
        app: T,
        early: Bytes,
        forwarded: Box<ForwardedBody>,
        mut exchange: Box<Exchange>,
    ) where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { upstream, slot, idle } = *self;
        let ForwardedBody { permit, busy, .. } = *forwarded;
        let _held = (permit, slot);
        exchange.tunnel();
        let drain = busy.drain();
        // A long-lived stream must not delay the end of the process. From here on only moving bytes do.
        drop(busy);
        let moved = splice::copy(Rewound::new(early, app), upstream, idle, &drain).await;
        exchange.sent(moved.sent);
        exchange.received(moved.received);
        exchange.tunnel_ended(moved.end);
    }
}

impl RelayedBody for Body {
    fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let Self::Forwarded(forwarded, _) = self {
            forwarded.body.poll_upload(cx);
        }
    }

    fn patience(&self) -> Duration {
        match self {
            Self::Local(_) => LOCAL_UNREAD,
            Self::Forwarded(forwarded, _) => forwarded.idle,
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Local(text) => Poll::Ready(text.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Forwarded(forwarded, exchange) => {
                let mut frame = ready!(Pin::new(&mut forwarded.body).poll_frame(cx));
                match &mut frame {
                    Some(Ok(frame)) => {
                        if let Some(data) = frame.data_ref() {
                            exchange.received(data.len() as u64);
                        } else if let Some(trailers) = frame.trailers_mut() {
                            fields::remove_from_trailers(trailers, forwarded.listed.as_deref(), None);
                        }
                    }
                    Some(Err(cut @ BodyError::Idle(_))) => exchange.cut(cut.proxy_status()),
                    Some(Err(cut @ (BodyError::Denied(_) | BodyError::H1(_) | BodyError::H2(_)))) => {
                        exchange.cut(cut.proxy_status());
                        exchange.explain(&format!("the answer was cut short: {cut}"));
                    }
                    None => {}
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(text) => text.is_none(),
            Self::Forwarded(forwarded, _) => forwarded.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Self::Forwarded(forwarded, _) => forwarded.body.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Self::Forwarded(forwarded, exchange) = self
            && let Some(upload) = &forwarded.upload
        {
            exchange.sent(upload.bytes());
        }
    }
}

/// A body with a guard that is dropped when the body has been sent or given up.
#[derive(Debug)]
pub(super) struct GuardedBody<G> {
    pub(super) body: Body,
    pub(super) _guard: G,
}

impl<G: Unpin> HttpBody for GuardedBody<G> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! What the app gets: an upstream's body on its way, or an answer of our own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::source::Source;
use super::splice;
use super::tunnel::Room;
use crate::drain::ExchangeGuard;
use crate::fields::{self, Listed};
use crate::http1::server::RelayedBody;
use crate::limit::Permit;
use crate::memory::Reservation;
use crate::stream::Rewound;
use crate::telemetry::Exchange;
use crate::upstream::body::{BodyError, Progress};
use crate::upstream::connect::Stream;

/// The body of a response to the app.
#[derive(Debug)]
pub(crate) enum Body {
    /// `None` once it has been sent.
    Ours(Option<Bytes>),
    /// The exchange ends, and is recorded, when the body does.
    Passing(Passing, Box<Exchange>),
}

/// The body of a carried answer, and what has to last as long as it does.
#[derive(Debug)]
pub(crate) struct Passing {
    pub(super) body: Source,
    /// How long neither side of it may stand still.
    pub(super) idle: Duration,
    pub(super) upload: Option<Arc<Progress>>,
    /// After a 101: both connections belong to the protocol that was switched to.
    pub(super) upgraded: Option<Box<Upgraded>>,
    /// A slow download still occupies its slot.
    pub(super) permit: Option<Permit>,
    /// What the trailers must not carry, beside what none may.
    pub(super) listed: Option<Arc<Listed>>,
    pub(super) busy: ExchangeGuard,
    pub(super) _held: Reservation,
}

/// An upstream connection that is about to be joined with the app's.
#[derive(Debug)]
pub(super) struct Upgraded {
    pub(super) upstream: Rewound<Stream>,
    pub(super) room: Room,
    pub(super) idle: Duration,
}

impl Body {
    pub(super) fn empty() -> Self {
        Self::Ours(None)
    }

    pub(super) fn ours(text: String) -> Self {
        Self::Ours(Some(Bytes::from(text)))
    }
}

impl Upgraded {
    /// Bytes go through untouched, first ones included.
    pub(super) async fn join<T>(
        self: Box<Self>,
        app: T,
        early: Bytes,
        passing: Passing,
        mut exchange: Box<Exchange>,
    ) where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { upstream, room, idle } = *self;
        let _held = (passing.permit, room);
        exchange.tunnel();
        let drain = passing.busy.drain();
        // A long-lived stream must not hold the end back: from here on only moving bytes do.
        drop(passing.busy);
        let moved = splice::copy(Rewound::new(early, app), upstream, idle, &drain).await;
        exchange.sent(moved.sent);
        exchange.received(moved.received);
        exchange.tunnel_ended(moved.end);
    }
}

impl RelayedBody for Body {
    fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let Self::Passing(passing, _) = self {
            passing.body.poll_upload(cx);
        }
    }

    fn patience(&self) -> Duration {
        match self {
            Self::Ours(_) => OURS_UNREAD,
            Self::Passing(passing, _) => passing.idle,
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
            Self::Ours(text) => Poll::Ready(text.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Passing(passing, exchange) => {
                let mut frame = ready!(Pin::new(&mut passing.body).poll_frame(cx));
                match &mut frame {
                    Some(Ok(frame)) => {
                        if let Some(data) = frame.data_ref() {
                            exchange.received(data.len() as u64);
                        } else if let Some(trailers) = frame.trailers_mut() {
                            fields::remove_from_trailers(trailers, passing.listed.as_deref(), None);
                        }
                    }
                    Some(Err(cut @ BodyError::Idle(_))) => exchange.cut(cut.proxy_status()),
                    Some(Err(cut @ (BodyError::H1(_) | BodyError::H2(_)))) => {
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
            Self::Ours(text) => text.is_none(),
            Self::Passing(passing, _) => passing.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ours(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Self::Passing(passing, _) => passing.body.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Self::Passing(passing, exchange) = self
            && let Some(upload) = &passing.upload
        {
            exchange.sent(upload.bytes());
        }
    }
}

/// A body, and what has to be undone when it has gone out or is given up.
#[derive(Debug)]
pub(super) struct Holding<G> {
    pub(super) body: Body,
    pub(super) _guard: G,
}

impl<G: Unpin> HttpBody for Holding<G> {
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

/// How long the app may leave an answer of our own unread.
const OURS_UNREAD: Duration = Duration::from_secs(60);

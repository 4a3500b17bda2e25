//! Bodies on their way: a request's to the upstream, a response's to the app.
//!
//! Nothing is buffered: a frame is asked for when the other side has room for it. A body that ends early is an error on
//! both sides, never a tidy shorter message.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::pool::Lease;

/// What has become of a request body so far, shared with the record of the exchange.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    bytes: AtomicU64,
    done: AtomicBool,
}

impl Progress {
    /// Bytes read from the app.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }
}

/// A request body on its way to the upstream.
#[derive(Debug)]
pub(crate) enum Outbound {
    Empty,
    Stream {
        incoming: Incoming,
        progress: Arc<Progress>,
        patience: Patience,
    },
}

/// A response body on its way to the app. When it has been read to its end the connection that carries it goes back
/// to the pool; when it is dropped before, the connection closes.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    incoming: Incoming,
    lease: Option<Lease>,
    patience: Patience,
}

/// Why a body was cut.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cut {
    #[error("no byte came for {}s", .0.as_secs_f32())]
    Idle(Duration),
    #[error("the body ended early or was not valid")]
    Stream(#[from] hyper::Error),
}

/// How long a body may stand still. The timer exists only while the other side is waited for.
#[derive(Debug)]
pub(crate) struct Patience {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    moved: bool,
}

impl Outbound {
    pub(crate) fn new(incoming: Incoming, idle: Duration) -> (Self, Option<Arc<Progress>>) {
        if incoming.is_end_stream() {
            return (Self::Empty, None);
        }
        let progress = Arc::new(Progress::default());
        let body = Self::Stream {
            incoming,
            progress: Arc::clone(&progress),
            patience: Patience::new(idle),
        };
        (body, Some(progress))
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    pub(super) fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            Self::Empty => None,
            Self::Stream { progress, .. } => Some(Arc::clone(progress)),
        }
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Self::Stream {
            incoming,
            progress,
            patience,
        } = &mut *self
        else {
            return Poll::Ready(None);
        };
        match ready!(patience.poll(Pin::new(incoming), cx)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    progress.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
                if incoming.is_end_stream() {
                    progress.done.store(true, Ordering::Relaxed);
                }
                Poll::Ready(Some(Ok(without_forbidden_trailers(frame))))
            }
            Some(Err(cut)) => Poll::Ready(Some(Err(cut))),
            None => {
                progress.done.store(true, Ordering::Relaxed);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream { incoming, .. } => incoming.size_hint(),
        }
    }
}

impl ResponseBody {
    pub(super) fn new(incoming: Incoming, lease: Lease, idle: Duration) -> Self {
        let mut body = Self {
            incoming,
            lease: Some(lease),
            patience: Patience::new(idle),
        };
        if body.incoming.is_end_stream() {
            body.finish();
        }
        body
    }

    /// Gives the connection up without giving it back: it has become something else than HTTP.
    pub(crate) fn detach(&mut self) {
        self.lease = None;
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = &mut *self;
        let frame = ready!(this.patience.poll(Pin::new(&mut this.incoming), cx))
            .map(|result| result.map(without_forbidden_trailers));
        match &frame {
            Some(Ok(_)) if this.incoming.is_end_stream() => this.finish(),
            Some(Ok(_)) => {}
            Some(Err(_)) => this.lease = None,
            None => this.finish(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            sleep: None,
            moved: true,
        }
    }

    /// Polls `body`; an error when it has stood still for too long.
    fn poll(
        &mut self,
        body: Pin<&mut Incoming>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Poll::Ready(frame) = body.poll_frame(cx) {
            self.moved = true;
            return Poll::Ready(frame.map(|result| result.map_err(Cut::Stream)));
        }
        let deadline = Instant::now() + self.limit;
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if std::mem::take(&mut self.moved) {
            sleep.as_mut().reset(deadline);
        }
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Some(Err(Cut::Idle(self.limit))))
    }
}

/// RFC 9110 section 6.5.1: fields that frame, route or authenticate a message never stand in its trailers.
fn without_forbidden_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    if frame.is_data() {
        return frame;
    }
    match frame.into_trailers() {
        Ok(mut trailers) => {
            strike_forbidden(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(other) => other,
    }
}

fn strike_forbidden(trailers: &mut HeaderMap) {
    for name in [
        header::AUTHORIZATION,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::HOST,
        header::PROXY_AUTHORIZATION,
        header::SET_COOKIE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        trailers.remove(name);
    }
}

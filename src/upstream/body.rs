//! The bodies of requests on their way to the upstream, and of responses on their way to the app.
//!
//! Bodies are not buffered: a frame is read when the other side has room for it. The exception is a small request body that
//! may have to be sent again, see [`Outbound::gather`]. A body that ends early is an error on both sides, and never looks
//! like a shorter complete message.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::timeout;

use super::Error;
use super::buffered::BufferedBody;
use super::idle::IdleLimit;
use super::link::Stream;
use super::multiplexed_body::MultiplexedBody;
use super::pool;
use super::reclaim::ReclaimableBody;
use super::streamed::Streamed;
use super::unreadable;
use crate::fields::{self, FieldNames, Listed};
use crate::http1::{self, Inbound};
use crate::memory::Reservation;
use crate::policy::Denial;

/// The most bytes that are kept of a request's body, so that it can be sent again, or of an answer's, so that it can still
/// be delivered after a further try.
pub(crate) const MOST_KEPT: usize = 64 * 1024;

/// A request body as the app sends it, in the protocol that the app speaks.
#[derive(Debug)]
pub(crate) enum Incoming {
    H1(Inbound),
    H2(MultiplexedBody),
    /// Searched, and perhaps changed, on its way.
    Searched(Box<dyn SearchedBody>),
}

/// A request body that is searched on its way.
pub(crate) trait SearchedBody:
    Body<Data = Bytes, Error = BodyError> + std::fmt::Debug + Send + Sync + Unpin
{
    /// See [`Inbound::ask`].
    fn ask(&self);

    /// Whether it is read whole before it is sent, so that its length can be stated.
    fn is_read_whole(&self) -> bool;
}

/// How much of a request body has been read, shared with the record of the exchange.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Here, so that [`Outbound`] does not grow by it.
    filter: OnceLock<TrailerFilter>,
    bytes: AtomicU64,
}

impl Progress {
    /// Returns the bytes read from the app.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A request body on its way to the upstream.
#[derive(Debug)]
pub(crate) enum Outbound {
    Empty,
    Stream {
        incoming: Incoming,
        progress: Arc<Progress>,
        limit: IdleLimit,
    },
    /// Read to its end, so that it can be sent more than once.
    Whole(BufferedBody),
    /// The beginning that has been read, and the rest.
    Begun(Bytes, Box<Self>),
    /// Given to an HTTP/2 connection; it can be taken back.
    Lent(Arc<ReclaimableBody>),
}

/// The fields that are removed from the trailers of a request, beside those that trailers never may have.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrailerFilter {
    /// Fields that the configuration sets or removes.
    pub(crate) decided: Option<Arc<FieldNames>>,
    /// Fields that the Connection field of the head lists.
    pub(crate) listed: Option<Arc<Listed>>,
}

/// A response body on its way to the app. At its end its connection returns to the pool; if it is dropped before, the
/// connection closes.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    Ended,
    /// Ended, but there were bytes after it.
    Overrun,
    /// Made here, without a connection.
    Whole(Bytes),
    /// The beginning has been read ahead.
    Ahead(Box<ReadAhead>),
    H1(Box<pool::PooledConnection>),
    H2(Box<Streamed>),
}

/// The beginning of a response body that has been read ahead, and the rest. If there are trailers, the rest has ended.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    data: BytesMut,
    held: Reservation,
    trailers: Option<HeaderMap>,
    rest: ResponseBody,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// A request body may not pass.
    #[error(transparent)]
    Denied(Box<Denial>),
    #[error("no byte came for {}s", .0.as_secs_f32())]
    Idle(Duration),
    #[error(transparent)]
    H1(#[from] http1::Error),
    #[error("the body ended early or was not valid")]
    H2(#[from] hyper::Error),
}

impl BodyError {
    /// Returns the error type of RFC 9209 for an answer that ended early.
    pub(crate) fn proxy_status(&self) -> &'static str {
        match self {
            Self::Denied(_) => "http_request_denied",
            Self::Idle(_) => "connection_read_timeout",
            Self::H1(http1::Error::TooLarge(excess)) => unreadable::of_excess(*excess),
            Self::H1(http1::Error::Malformed(fault)) => unreadable::of_fault(*fault),
            Self::H1(_) | Self::H2(_) => "http_response_incomplete",
        }
    }
}

pub(crate) type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

impl Incoming {
    /// Reads the next frame.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
        match self {
            Self::H1(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(BodyError::H1))),
            Self::H2(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(BodyError::H2))),
            Self::Searched(body) => Pin::new(body).poll_frame(cx),
        }
    }

    /// See [`Inbound::ask`]. Over HTTP/2 there is no way to ask.
    pub(crate) fn ask(&self) {
        match self {
            Self::H1(body) => body.ask(),
            Self::H2(_) => {}
            Self::Searched(body) => body.ask(),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::H1(body) => body.is_end_stream(),
            Self::H2(body) => body.is_end_stream(),
            Self::Searched(body) => body.is_end_stream(),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::H1(body) => body.size_hint(),
            Self::H2(body) => body.size_hint(),
            Self::Searched(body) => body.size_hint(),
        }
    }
}

impl Outbound {
    /// Makes the body of a request, and its progress if there is a body.
    pub(crate) fn new(incoming: Option<Incoming>, idle: Duration) -> (Self, Option<Arc<Progress>>) {
        let Some(incoming) = incoming else {
            return (Self::Empty, None);
        };
        let progress = Arc::new(Progress::default());
        let body = Self::Stream {
            incoming,
            progress: Arc::clone(&progress),
            limit: IdleLimit::new(idle),
        };
        (body, Some(progress))
    }

    /// Makes a body of bytes.
    pub(crate) fn whole(data: Bytes) -> Self {
        Self::kept(data, Reservation::default(), None, true)
    }

    /// Makes a body that has been read to its end into memory reserved by `held`. `is_sized`: its length is stated.
    pub(super) fn kept(data: Bytes, held: Reservation, trailers: Option<HeaderMap>, is_sized: bool) -> Self {
        Self::Whole(BufferedBody::new(data, held, trailers, is_sized))
    }

    /// Reads a body of at most `most` bytes to its end, so that it can be sent again. A larger one is sent as it comes, after
    /// the part that has been read. If the app states the length, memory is reserved before the body is read.
    pub(crate) async fn gather(self, most: usize) -> Result<Self, Error> {
        let Self::Stream { incoming, .. } = &self else {
            return Ok(self);
        };
        let length = incoming.size_hint().exact();
        if length.is_some_and(|length| length > most as u64) {
            return Ok(self);
        }
        incoming.ask();
        let mut held = Reservation::default();
        if let Some(length) = length {
            // It is no larger than `most`.
            held.grow(length as usize)?;
        }
        let mut rest = self;
        let (mut first, mut more, mut trailers) = (Bytes::new(), BytesMut::new(), None);
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut rest).poll_frame(cx)).await {
            match frame.map_err(|cut| Error::of_cut(Some(cut)))?.into_data() {
                // Most come in one piece, which is not copied.
                Ok(data) if first.is_empty() && more.is_empty() => first = data,
                Ok(data) => {
                    if more.is_empty() {
                        // Of a known length: else it would grow to twice of what comes.
                        more.reserve(length.unwrap_or_default() as usize);
                        more.extend_from_slice(&first);
                        first = Bytes::new();
                    }
                    more.extend_from_slice(&data);
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
            held.grow(first.len().max(more.capacity()))?;
            if first.len().max(more.len()) > most {
                let read = if more.is_empty() { first } else { more.freeze() };
                return Ok(Self::Begun(read, Box::new(rest)));
            }
        }
        let data = if more.is_empty() { first } else { more.freeze() };
        if length.is_some_and(|length| length != data.len() as u64) {
            return Err(Error::of_cut(None));
        }
        // Some servers take no other framing, and a signature may cover the length.
        let is_sized = length.is_some() || trailers.is_none();
        Ok(Self::kept(data, held, trailers, is_sized))
    }

    /// Returns the length of a buffered body, if it is stated.
    pub(crate) fn stated_length(&self) -> Option<usize> {
        match self {
            Self::Whole(whole) => whole.stated_length(),
            Self::Empty | Self::Stream { .. } | Self::Begun(..) | Self::Lent(_) => None,
        }
    }

    /// Whether it can be sent more than once: it is empty, or has been read to its end.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Empty | Self::Whole(_))
    }

    /// Whether there is a body and nothing of it has been read.
    pub(crate) fn is_untouched(&self) -> bool {
        matches!(self, Self::Stream { .. })
    }

    /// Whether its length changes on its way, and can be stated only when it has been read.
    pub(crate) fn is_read_whole(&self) -> bool {
        matches!(self, Self::Stream { incoming: Incoming::Searched(body), .. } if body.is_read_whole())
    }

    /// Lets an app that waits for `100 Continue` send the body.
    pub(crate) fn ask(&self) {
        if let Self::Stream { incoming, .. } = self {
            incoming.ask();
        }
    }

    /// Whether there is a body whose length is not stated.
    pub(crate) fn lacks_length(&self) -> bool {
        !matches!(self, Self::Empty) && self.size_hint().exact().is_none()
    }

    /// States the length of a buffered body; that of others is not known. Returns whether it is stated now. A body of a
    /// stated length loses its trailers.
    pub(crate) fn state_length(&mut self) -> bool {
        if let Self::Whole(whole) = self {
            whole.state_length();
        }
        !self.lacks_length()
    }

    /// Returns the whole body, if it is buffered or empty.
    pub(crate) fn data(&self) -> Option<&[u8]> {
        match self {
            Self::Empty => Some(&[]),
            Self::Whole(whole) => Some(whole.data()),
            Self::Stream { .. } | Self::Begun(..) | Self::Lent(_) => None,
        }
    }

    /// Removes the fields of `filter` from its trailers.
    pub(crate) fn confine(&mut self, filter: TrailerFilter) {
        match self {
            // It got its filter before it was lent.
            Self::Empty | Self::Lent(_) => {}
            // It is sent once, so there was no filter.
            Self::Stream { progress, .. } => drop(progress.filter.set(filter)),
            Self::Whole(whole) => whole.confine(&filter),
            Self::Begun(_, rest) => rest.confine(filter),
        }
    }

    /// Takes the body to be sent. A buffered one is kept as well, for another try.
    pub(super) fn depart(&mut self) -> Self {
        match self {
            Self::Whole(whole) => Self::Whole(whole.clone()),
            Self::Empty | Self::Stream { .. } | Self::Begun(..) | Self::Lent(_) => {
                std::mem::replace(self, Self::Empty)
            }
        }
    }

    /// Does the same, and returns how a body that is not buffered can be taken back.
    pub(super) fn lend(&mut self) -> (Self, Option<Arc<ReclaimableBody>>) {
        let body = self.depart();
        if body.is_whole() {
            return (body, None);
        }
        let reclaim = ReclaimableBody::new(body);
        (Self::Lent(Arc::clone(&reclaim)), Some(reclaim))
    }

    /// Returns the progress of a body that is read from the app.
    pub(super) fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            Self::Empty | Self::Whole(_) => None,
            Self::Stream { progress, .. } => Some(Arc::clone(progress)),
            Self::Begun(_, rest) => rest.progress(),
            Self::Lent(lent) => lent.progress(),
        }
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let (incoming, progress, limit) = match &mut *self {
            Self::Empty => return Poll::Ready(None),
            Self::Stream {
                incoming,
                progress,
                limit,
            } => (incoming, progress, limit),
            Self::Whole(whole) => return Poll::Ready(whole.next().map(Ok)),
            Self::Begun(read, rest) if read.is_empty() => return Pin::new(&mut **rest).poll_frame(cx),
            Self::Begun(read, _) => return Poll::Ready(Some(Ok(Frame::data(std::mem::take(read))))),
            Self::Lent(lent) => return lent.poll_frame(cx),
        };
        match ready!(limit.poll(cx, |cx| incoming.poll_frame(cx))) {
            Some(Ok(mut frame)) => {
                if let Some(data) = frame.data_ref() {
                    progress.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
                if let Some(trailers) = frame.trailers_mut() {
                    let filter = progress.filter.get_or_init(TrailerFilter::default);
                    filter.apply(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(cut)) => Poll::Ready(Some(Err(cut))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream { incoming, .. } => incoming.is_end_stream(),
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Begun(read, rest) => read.is_empty() && rest.is_end_stream(),
            Self::Lent(lent) => lent.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream { incoming, .. } => incoming.size_hint(),
            Self::Whole(whole) => whole.size_hint(),
            Self::Begun(read, rest) => match rest.size_hint().exact() {
                Some(rest) => SizeHint::with_exact(read.len() as u64 + rest),
                None => SizeHint::default(),
            },
            Self::Lent(lent) => lent.size_hint(),
        }
    }
}

impl TrailerFilter {
    pub(super) fn apply(&self, trailers: &mut HeaderMap) {
        fields::remove_from_trailers(trailers, self.listed.as_deref(), self.decided.as_deref());
    }
}

impl ResponseBody {
    /// Makes the body of an answer with `status`. A 101 has no body, but its connection goes on.
    pub(super) fn h1(held: Box<pool::PooledConnection>, status: StatusCode) -> Self {
        let mut body = Self::H1(held);
        if status != StatusCode::SWITCHING_PROTOCOLS {
            body.end_if_done();
        }
        body
    }

    pub(super) fn h2(streamed: Streamed) -> Self {
        Self::H2(Box::new(streamed))
    }

    /// Reads the body until it ends, more than `most` bytes have come, or `limit` is over. If it has ended, its connection
    /// is free for other requests; else the rest is read from there later.
    pub(crate) async fn read_ahead(self, most: usize, limit: Duration) -> Result<Self, BodyError> {
        let mut ahead = Box::new(ReadAhead {
            data: BytesMut::new(),
            held: Reservation::default(),
            trailers: None,
            rest: self,
        });
        match timeout(limit, ahead.read(most)).await {
            Ok(Err(cut)) => Err(cut),
            Ok(Ok(())) | Err(_) => Ok(Self::Ahead(ahead)),
        }
    }

    /// Sends more of the request, while the response is not read.
    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::H1(held) => held.connection.poll_rest(cx),
            Self::Ahead(ahead) => ahead.rest.poll_upload(cx),
            Self::Ended | Self::Overrun | Self::Whole(_) | Self::H2(_) => {}
        }
    }

    /// Returns the stream and what has been read ahead, after a 101.
    pub(crate) fn into_stream(self) -> Option<(Stream, Bytes)> {
        match self {
            Self::H1(held) => Some(held.connection.into_parts()),
            Self::Ended | Self::Overrun | Self::Whole(_) | Self::Ahead(_) | Self::H2(_) => None,
        }
    }

    fn end_if_done(&mut self) {
        if matches!(self, Self::H1(held) if held.connection.is_done())
            && let Self::H1(held) = std::mem::replace(self, Self::Ended)
        {
            if held.connection.has_more() {
                *self = Self::Overrun;
            }
            held.give_back();
        }
    }

    /// Whether nothing came after the body.
    pub(crate) fn is_clean(&self) -> bool {
        match self {
            Self::Overrun => false,
            Self::Ahead(ahead) => ahead.rest.is_clean(),
            Self::Ended | Self::Whole(_) | Self::H1(_) | Self::H2(_) => true,
        }
    }
}

impl ReadAhead {
    async fn read(&mut self, most: usize) -> Result<(), BodyError> {
        while self.data.len() <= most {
            match poll_fn(|cx| Pin::new(&mut self.rest).poll_frame(cx)).await {
                Some(frame) => match frame?.into_data() {
                    Ok(data) => {
                        self.data.extend_from_slice(&data);
                        // No memory: the rest is read later.
                        if self.held.grow(self.data.capacity()).is_err() {
                            break;
                        }
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                None => break,
            }
        }
        Ok(())
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
        if !self.data.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(self.data.split().freeze()))));
        }
        let rest = ready!(Pin::new(&mut self.rest).poll_frame(cx));
        Poll::Ready(rest.or_else(|| self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))))
    }

    fn size_hint(&self) -> SizeHint {
        match self.rest.size_hint().exact() {
            Some(rest) if self.trailers.is_none() => SizeHint::with_exact(self.data.len() as u64 + rest),
            Some(_) | None => SizeHint::default(),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let frame = match &mut *self {
            Self::Ended | Self::Overrun => return Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Ended;
                let frame = (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)));
                return Poll::Ready(frame);
            }
            Self::Ahead(ahead) => return ahead.poll_frame(cx),
            Self::H1(held) => {
                let idle = held.info.endpoint.destination.timeouts.idle;
                ready!(held.connection.poll_frame(cx, idle)).map(|frame| {
                    frame.map_err(|cut| match cut {
                        http1::client::ReadError::Http(error) => BodyError::H1(error),
                        http1::client::ReadError::Idle => BodyError::Idle(idle),
                    })
                })
            }
            Self::H2(streamed) => ready!(streamed.poll_frame(cx)),
        };
        match &frame {
            Some(Ok(_)) => self.end_if_done(),
            None if matches!(*self, Self::H1(_)) => self.end_if_done(),
            Some(Err(_)) | None => *self = Self::Ended,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ended | Self::Overrun => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Ahead(ahead) => {
                ahead.data.is_empty() && ahead.trailers.is_none() && ahead.rest.is_end_stream()
            }
            Self::H1(_) => false,
            Self::H2(streamed) => streamed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ended | Self::Overrun => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Ahead(ahead) => ahead.size_hint(),
            Self::H1(held) => held
                .connection
                .left()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::H2(streamed) => streamed.size_hint(),
        }
    }
}

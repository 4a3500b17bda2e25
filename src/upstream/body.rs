//! Bodies on their way: a request's to the upstream, a response's to the app.
//!
//! Nothing is buffered: a frame is asked for when the other side has room for it. The exception is a small request body
//! that may have to be sent again, see [`Outbound::gather`]. A body that ends early is an error on both sides, never a
//! tidy shorter message.

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
use super::connect::Stream;
use super::loan::Loan;
use super::patience::Patience;
use super::pool;
use super::streamed::Streamed;
use super::unreadable;
use super::whole::Whole;
use crate::fields::{self, Listed, Names};
use crate::http1::{self, Inbound};
use crate::memory::Reservation;

/// A request body as the app sends it, in the protocol that the app speaks.
#[derive(Debug)]
pub(crate) enum Incoming {
    H1(Inbound),
    H2(hyper::body::Incoming),
}

/// What has become of a request body so far, shared with the record of the exchange.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Here, so that no body grows by it.
    border: OnceLock<Border>,
    bytes: AtomicU64,
}

impl Progress {
    /// Bytes read from the app.
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
        patience: Patience,
    },
    /// It has been read to its end, and can be sent more than once.
    Whole(Whole),
    /// What has been read of it, and the rest.
    Begun(Bytes, Box<Self>),
    /// It may have to be had back.
    Lent(Arc<Loan>),
}

/// What the trailers of a request must not carry, beside what none may.
#[derive(Clone, Debug, Default)]
pub(crate) struct Border {
    /// It is decided here.
    pub(crate) decided: Option<Arc<Names>>,
    /// By the Connection field of its head.
    pub(crate) listed: Option<Arc<Listed>>,
}

/// A response body on its way to the app. When it has been read to its end the connection that carries it goes back
/// to the pool; when it is dropped before, the connection closes.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    Ended,
    /// Ended, with bytes behind it that belong to nobody.
    Overrun,
    /// Made here, not on a connection.
    Whole(Bytes),
    /// The beginning of it has been read before anybody asked for it.
    Ahead(Box<Ahead>),
    H1(Box<pool::Held>),
    H2(Box<Streamed>),
}

/// What has been read of a response body, and the rest of it. Where there are trailers, the rest has ended.
#[derive(Debug)]
pub(crate) struct Ahead {
    data: BytesMut,
    held: Reservation,
    trailers: Option<HeaderMap>,
    rest: ResponseBody,
}

/// Why a body was cut.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cut {
    #[error("no byte came for {}s", .0.as_secs_f32())]
    Idle(Duration),
    #[error(transparent)]
    H1(#[from] http1::Error),
    #[error("the body ended early or was not valid")]
    H2(#[from] hyper::Error),
}

impl Cut {
    /// The error type of RFC 9209 for an answer that was cut.
    pub(crate) fn proxy_status(&self) -> &'static str {
        match self {
            Self::Idle(_) => "connection_read_timeout",
            Self::H1(http1::Error::TooLarge(excess)) => unreadable::of_excess(*excess),
            Self::H1(http1::Error::Malformed(fault)) => unreadable::of_fault(*fault),
            Self::H1(_) | Self::H2(_) => "http_response_incomplete",
        }
    }
}

pub(super) type Polled = Poll<Option<Result<Frame<Bytes>, Cut>>>;

impl Incoming {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
        match self {
            Self::H1(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Cut::H1))),
            Self::H2(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Cut::H2))),
        }
    }

    /// See [`Inbound::ask`]. Over HTTP/2 nobody can be told.
    fn ask(&self) {
        if let Self::H1(body) = self {
            body.ask();
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::H1(body) => body.is_end_stream(),
            Self::H2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::H1(body) => body.size_hint(),
            Self::H2(body) => body.size_hint(),
        }
    }
}

impl Outbound {
    /// `None` where the request has no body.
    pub(crate) fn new(incoming: Option<Incoming>, idle: Duration) -> (Self, Option<Arc<Progress>>) {
        let Some(incoming) = incoming else {
            return (Self::Empty, None);
        };
        let progress = Arc::new(Progress::default());
        let body = Self::Stream {
            incoming,
            progress: Arc::clone(&progress),
            patience: Patience::new(idle),
        };
        (body, Some(progress))
    }

    /// One that is made here.
    pub(crate) fn whole(data: Bytes) -> Self {
        Self::kept(data, Reservation::default(), None, true)
    }

    /// One that has been read to its end into memory that is `held`. `is_sized`: its length is stated.
    pub(super) fn kept(data: Bytes, held: Reservation, trailers: Option<HeaderMap>, is_sized: bool) -> Self {
        Self::Whole(Whole::new(data, held, trailers, is_sized))
    }

    /// Reads a body of at most `most` bytes to its end, so that it can be sent again. Of a larger one what has been
    /// read so far is sent first, then the rest as it comes. Memory for it is reserved before it is read, where the app
    /// says how much it will be.
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

    /// The length of a body that is at hand whole and is sent with it.
    pub(crate) fn stated_length(&self) -> Option<usize> {
        match self {
            Self::Whole(whole) => whole.stated_length(),
            Self::Empty | Self::Stream { .. } | Self::Begun(..) | Self::Lent(_) => None,
        }
    }

    /// Whether it can be sent more than once: there is none, or it has been read to its end.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Empty | Self::Whole(_))
    }

    /// Whether nothing of it has been read, and something is to come.
    pub(crate) fn is_untouched(&self) -> bool {
        matches!(self, Self::Stream { .. })
    }

    /// Lets an app that waits for leave to send the body send it.
    pub(crate) fn ask(&self) {
        if let Self::Stream { incoming, .. } = self {
            incoming.ask();
        }
    }

    /// Whether there is one whose length is not stated.
    pub(crate) fn lacks_length(&self) -> bool {
        !matches!(self, Self::Empty) && self.size_hint().exact().is_none()
    }

    /// States the length of one that is at hand whole; of others it cannot be known. Whether it is stated now. Trailers
    /// have no place behind a body of a stated length.
    pub(crate) fn state_length(&mut self) -> bool {
        if let Self::Whole(whole) = self {
            whole.state_length();
        }
        !self.lacks_length()
    }

    /// All of it, where it is at hand; empty where there is none.
    pub(crate) fn data(&self) -> Option<&[u8]> {
        match self {
            Self::Empty => Some(&[]),
            Self::Whole(whole) => Some(whole.data()),
            Self::Stream { .. } | Self::Begun(..) | Self::Lent(_) => None,
        }
    }

    /// From now on its trailers carry nothing that `border` keeps back.
    pub(crate) fn confine(&mut self, border: Border) {
        match self {
            // What is lent was confined before.
            Self::Empty | Self::Lent(_) => {}
            // It is sent once.
            Self::Stream { progress, .. } => drop(progress.border.set(border)),
            Self::Whole(whole) => whole.confine(&border),
            Self::Begun(_, rest) => rest.confine(border),
        }
    }

    /// Takes the body out to be sent. A whole one stays as well, for another time; of others nothing does.
    pub(super) fn depart(&mut self) -> Self {
        match self {
            Self::Whole(whole) => Self::Whole(whole.clone()),
            Self::Empty | Self::Stream { .. } | Self::Begun(..) | Self::Lent(_) => {
                std::mem::replace(self, Self::Empty)
            }
        }
    }

    /// The same, and with the body the means to have one back that is not whole.
    pub(super) fn lend(&mut self) -> (Self, Option<Arc<Loan>>) {
        let body = self.depart();
        if body.is_whole() {
            return (body, None);
        }
        let loan = Loan::new(body);
        (Self::Lent(Arc::clone(&loan)), Some(loan))
    }

    /// For a body that moves only as the app does.
    pub(super) fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            Self::Empty | Self::Whole(_) => None,
            Self::Stream { progress, .. } => Some(Arc::clone(progress)),
            Self::Begun(_, rest) => rest.progress(),
            Self::Lent(loan) => loan.progress(),
        }
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let (incoming, progress, patience) = match &mut *self {
            Self::Empty => return Poll::Ready(None),
            Self::Stream {
                incoming,
                progress,
                patience,
            } => (incoming, progress, patience),
            Self::Whole(whole) => return Poll::Ready(whole.next().map(Ok)),
            Self::Begun(read, rest) if read.is_empty() => return Pin::new(&mut **rest).poll_frame(cx),
            Self::Begun(read, _) => return Poll::Ready(Some(Ok(Frame::data(std::mem::take(read))))),
            Self::Lent(loan) => return loan.poll_frame(cx),
        };
        match ready!(patience.poll(cx, |cx| incoming.poll_frame(cx))) {
            Some(Ok(mut frame)) => {
                if let Some(data) = frame.data_ref() {
                    progress.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
                if let Some(trailers) = frame.trailers_mut() {
                    let border = progress.border.get_or_init(Border::default);
                    border.strike(trailers);
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
            Self::Lent(loan) => loan.is_end_stream(),
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
            Self::Lent(loan) => loan.size_hint(),
        }
    }
}

impl Border {
    pub(super) fn strike(&self, trailers: &mut HeaderMap) {
        fields::strike_trailers(trailers, self.listed.as_deref(), self.decided.as_deref());
    }
}

impl ResponseBody {
    /// The body of an answer with `status`. After a 101 the connection is not over, though nothing that is HTTP follows.
    pub(super) fn h1(held: Box<pool::Held>, status: StatusCode) -> Self {
        let mut body = Self::H1(held);
        if status != StatusCode::SWITCHING_PROTOCOLS {
            body.end_if_done();
        }
        body
    }

    pub(super) fn h2(streamed: Streamed) -> Self {
        Self::H2(Box::new(streamed))
    }

    /// Reads the body until it ends, or more than `most` bytes are there, or `limit` is over. One that has ended by then
    /// has left its connection to other requests; of others the rest comes from where it is.
    pub(crate) async fn read_ahead(self, most: usize, limit: Duration) -> Result<Self, Cut> {
        let mut ahead = Box::new(Ahead {
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

    /// Moves the rest of the request on, while nobody asks for the response.
    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::H1(held) => held.connection.poll_rest(cx),
            Self::Ahead(ahead) => ahead.rest.poll_upload(cx),
            Self::Ended | Self::Overrun | Self::Whole(_) | Self::H2(_) => {}
        }
    }

    /// After a 101: the stream, which is something else than HTTP now, and what the upstream has sent on it already.
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

    /// Whether nothing followed a body that has ended.
    pub(crate) fn is_clean(&self) -> bool {
        match self {
            Self::Overrun => false,
            Self::Ahead(ahead) => ahead.rest.is_clean(),
            Self::Ended | Self::Whole(_) | Self::H1(_) | Self::H2(_) => true,
        }
    }
}

impl Ahead {
    async fn read(&mut self, most: usize) -> Result<(), Cut> {
        while self.data.len() <= most {
            match poll_fn(|cx| Pin::new(&mut self.rest).poll_frame(cx)).await {
                Some(frame) => match frame?.into_data() {
                    Ok(data) => {
                        self.data.extend_from_slice(&data);
                        // The rest has to wait where it is.
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
    type Error = Cut;

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
                let idle = held.link.endpoint.destination.timeouts.idle;
                ready!(held.connection.poll_frame(cx, idle)).map(|frame| {
                    frame.map_err(|cut| match cut {
                        http1::client::Cut::Http(error) => Cut::H1(error),
                        http1::client::Cut::Idle => Cut::Idle(idle),
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

/// Of a request's body, so that it can be sent again, and of an answer's, so that it can be given after all. In bytes.
pub(crate) const MOST_KEPT: usize = 64 * 1024;

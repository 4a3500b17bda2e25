//! The client side: a connection to an upstream that carries one request at a time. The task that waits for the answer
//! drives it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use http_body::{Body, Frame};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::deadline::Deadline;
use super::decoder::Decoder;
use super::framing::{BodyEncoding, Framing};
use super::outflow::{MessageWriter, WriteError};
use super::wire::Wire;
use super::{Error, Fault, HeadRules, ProxyForm, Spelling, head};
use crate::memory::{Exhausted, Reservation, SMALL};
use crate::message::{RequestHead, Response};

/// The most interim answers to a request. Each starts the time limit again.
const MOST_INTERIM: u32 = 100;

/// A connection to an upstream; `B` is the body of a request.
#[derive(Debug)]
pub(crate) struct ClientConnection<T, B> {
    wire: Wire<T>,
    /// The limits of answers.
    limits: HeadRules,
    /// Memory for a large head that has come in part.
    held: Reservation,
    /// Reads the body of the answer.
    decoder: Decoder,
    deadline: Deadline,
    is_waiting: bool,
    keeps_alive: bool,
    /// `None`: the other side is the server itself.
    proxy: Option<Arc<ProxyForm>>,
    /// The part of the request that is still to be written.
    upload: Option<MessageWriter<B>>,
}

/// Why a request got no response head.
#[derive(Debug)]
pub(crate) enum SendError<E> {
    /// The answer broke off or was malformed.
    Answer(Error),
    /// The body of the request could not be read. `None`: its length was not the one that its head states.
    Body(Option<E>),
    /// The connection ended without a byte of an answer.
    Lost(Error),
    TimedOut,
}

/// Why the body of an answer ended early.
#[derive(Debug)]
pub(crate) enum ReadError {
    Http(Error),
    /// Nothing came within the time allowed.
    Idle,
}

impl<T, B> ClientConnection<T, B> {
    /// `limits`: of the answers.
    pub(crate) fn new(stream: T, limits: HeadRules) -> Self {
        Self {
            wire: Wire::new(stream),
            limits,
            held: Reservation::default(),
            decoder: Decoder::Done,
            deadline: Deadline::default(),
            is_waiting: false,
            keeps_alive: true,
            proxy: None,
            upload: None,
        }
    }

    /// Makes the requests those of a client to a proxy.
    pub(crate) fn for_proxy(self, proxy: Arc<ProxyForm>) -> Self {
        let proxy = Some(proxy);
        Self { proxy, ..self }
    }

    /// Whether the answer has been read to its end and the whole request has been written.
    pub(crate) fn is_done(&self) -> bool {
        self.decoder.is_done() && self.upload.is_none()
    }

    /// Returns the bytes still to come of the answer's body, if that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        self.decoder.left()
    }

    /// Whether the exchange is over and another may begin. Not if there are bytes after the answer: they would be read as the
    /// beginning of the next one.
    pub(crate) fn is_reusable(&self) -> bool {
        self.keeps_alive && self.is_done() && !self.has_more()
    }

    /// Whether bytes have come after the answer.
    pub(crate) fn has_more(&self) -> bool {
        !self.wire.ahead.is_empty()
    }

    pub(crate) fn stream(&self) -> &T {
        &self.wire.stream
    }

    /// Frees what an idle connection does not need.
    pub(crate) fn rest(&mut self) {
        self.wire.rest();
    }

    /// Returns the stream and what has been read ahead, after a 101.
    pub(crate) fn into_parts(self) -> (T, Bytes) {
        self.wire.into_parts()
    }
}

impl<T, B> ClientConnection<T, B>
where
    T: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    /// Whether nothing has come since the last answer, neither bytes nor the end.
    pub(crate) fn is_fresh(&mut self, cx: &mut Context<'_>) -> bool {
        // A task that has used up its budget would see every stream as pending, also a dead one.
        let mut fill = std::pin::pin!(unconstrained(poll_fn(|cx| self.wire.poll_fill(cx))));
        fill.as_mut().poll(cx).is_pending()
    }

    /// Takes the body of a lost request back, if nothing of it has been read: the app waits for `100 Continue`, or is slow.
    pub(crate) fn take_back(&mut self) -> Option<B> {
        let untouched = self.upload.take_if(|upload| upload.pieces() == 0);
        untouched.map(|upload| upload.body)
    }

    /// Sends a request in origin-form to the host that `authority` names, and returns the head of the final answer;
    /// `interim` gets those before it.
    ///
    /// `limit` runs from the last piece of the request that was read, or from the last interim answer. The answer may come
    /// before all of the request is written: reading it writes more of the request. But a body whose app waits for
    /// `100 Continue` is not sent after the final answer.
    pub(crate) async fn send(
        &mut self,
        parts: &RequestHead,
        authority: &HeaderValue,
        body: B,
        limit: Duration,
        interim: impl Fn(Response<()>),
    ) -> Result<Response<()>, SendError<B::Error>> {
        let encoding = if body.is_end_stream() {
            BodyEncoding::None
        } else {
            BodyEncoding::of(&body.size_hint(), true)
        };
        let (proxy, is_spelled) = (self.proxy.as_deref(), self.limits.keeps_spelling);
        let head = head::write_request(parts, authority, proxy, &encoding, is_spelled);
        self.upload = Some(MessageWriter::new(head, body, encoding, true));
        self.deadline.set(Instant::now() + limit);
        let (mut count, mut bytes) = (0_u32, 0_u32);
        loop {
            let head = poll_fn(|cx| self.poll_head(cx, limit, count > 0)).await?;
            let (mut response, facts) =
                head::response(&head, self.limits.count).map_err(SendError::Answer)?;
            if self.limits.keeps_spelling {
                response.extensions_mut().insert(Spelling::Sent(head.clone()));
            }
            if head.len() > SMALL {
                self.held.grow(head.len()).map_err(no_memory)?;
                // Freed with the head.
                response.extensions_mut().insert(std::mem::take(&mut self.held));
            }
            let (version, status) = (response.version(), response.status());
            if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                (count, bytes) = (count + 1, bytes.saturating_add(head.len() as u32));
                if count > MOST_INTERIM || bytes as usize > self.limits.size {
                    return Err(SendError::Answer(Error::Malformed(Fault::TooMuchInterim)));
                }
                // The upstream works on it.
                self.deadline.set(Instant::now() + limit);
                interim(response);
                continue;
            }
            // A final answer may mean that the body is not wanted (RFC 9110 section 10.1.1).
            let is_untouched =
                |upload: &MessageWriter<B>| upload.pieces() == 0 && !upload.body.is_end_stream();
            if self.upload.as_ref().is_some_and(is_untouched) && parts.headers.contains_key(header::EXPECT) {
                (self.upload, self.keeps_alive) = (None, false);
            }
            let framing = if parts.method == Method::CONNECT && status.is_success() {
                // The tunnel begins behind the head, whatever its fields say (RFC 9110 section 9.3.6).
                Framing::None
            } else {
                Framing::of_response(&parts.method, status, version, &facts)
                    .map_err(|fault| SendError::Answer(Error::Malformed(fault)))?
            };
            self.decoder = Decoder::new(framing, self.limits);
            self.keeps_alive &= facts.keeps_alive(version)
                && !facts.has_both_framings()
                && framing != Framing::UntilClose
                && status != StatusCode::SWITCHING_PROTOCOLS;
            return Ok(response);
        }
    }

    /// Reads the next head, and writes the request meanwhile. `is_answered`: an interim answer has come already.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limit: Duration,
        is_answered: bool,
    ) -> Poll<Result<Bytes, SendError<B::Error>>> {
        if self.poll_upload(cx).map_err(SendError::Body)? {
            self.deadline.set(Instant::now() + limit);
        }
        let head = match self.wire.poll_head(cx, self.limits.size, head::probe_response) {
            Poll::Ready(head) => head,
            Poll::Pending => {
                if self.wire.ahead.len() > SMALL {
                    self.held.grow(self.wire.ahead.capacity()).map_err(no_memory)?;
                }
                ready!(self.deadline.poll(cx));
                return Poll::Ready(Err(SendError::TimedOut));
            }
        };
        let is_lost = !is_answered && self.wire.ahead.is_empty();
        Poll::Ready(match head {
            Ok(Some(head)) => Ok(head),
            Ok(None) if is_lost => Err(SendError::Lost(Error::Incomplete)),
            Ok(None) => Err(SendError::Answer(Error::Incomplete)),
            Err(error @ Error::Io(_)) if is_lost => Err(SendError::Lost(error)),
            Err(error) => Err(SendError::Answer(error)),
        })
    }

    /// Writes more of the request. Returns whether a piece of its body was read, or the last of it was written.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<bool, Option<B::Error>> {
        let Some(upload) = &mut self.upload else {
            return Ok(false);
        };
        let (wire, before) = (&mut self.wire, upload.pieces());
        let has_moved = match upload.poll(cx, |out, cx| wire.poll_write(out, cx)) {
            Poll::Pending => return Ok(upload.pieces() != before),
            Poll::Ready(Ok(())) => before > 0 || upload.pieces() > 0,
            // The upstream may have answered before it stopped reading, so the answer is still read.
            Poll::Ready(Err(WriteError::Io)) => {
                self.keeps_alive = false;
                false
            }
            Poll::Ready(Err(broken)) => {
                (self.upload, self.keeps_alive) = (None, false);
                return Err(match broken {
                    WriteError::Body(error) => Some(error),
                    WriteError::Io | WriteError::Length => None,
                });
            }
        };
        self.upload = None;
        Ok(has_moved)
    }

    /// Writes more of the request, while the answer is not read.
    pub(crate) fn poll_rest(&mut self, cx: &mut Context<'_>) {
        // If the request breaks off now, its answer is valid all the same.
        let _ = self.poll_upload(cx);
    }

    /// Reads the next piece of the answer's body, within `idle`; `None` at its end. If the answer ended first, the end waits
    /// for the request to be written: some upstreams answer at once and still want all of it.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        idle: Duration,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        // If the request breaks off now, its answer is valid all the same.
        let has_moved = self.poll_upload(cx).unwrap_or_default();
        if !self.decoder.is_done()
            && let Poll::Ready(Some(frame)) = self.decoder.poll_frame(&mut self.wire, cx)
        {
            self.is_waiting = false;
            return Poll::Ready(Some(frame.map_err(ReadError::Http)));
        }
        if self.is_done() {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut self.is_waiting, true) || has_moved {
            self.deadline.set(Instant::now() + idle);
        }
        ready!(self.deadline.poll(cx));
        if self.decoder.is_done() {
            // The upstream does not read the rest of the request; its answer is complete.
            (self.upload, self.keeps_alive) = (None, false);
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Err(ReadError::Idle)))
    }
}

fn no_memory<E>(exhausted: Exhausted) -> SendError<E> {
    SendError::Answer(exhausted.into())
}

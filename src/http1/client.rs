//! The upstream's side: a connection that carries one request at a time, driven by whoever waits for the answer.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::deadline::Deadline;
use super::decoder::Decoder;
use super::framing::Framing;
use super::outflow::{Broken, Encoding, Outflow};
use super::wire::Wire;
use super::{Error, Fault, HeadRules, Spelling, head};
use crate::memory::{Exhausted, Reservation, SMALL};

/// A connection to an upstream; `B` is the body of a request.
#[derive(Debug)]
pub(crate) struct Connection<T, B> {
    wire: Wire<T>,
    /// Of the answers.
    limits: HeadRules,
    /// For a large head as far as it has come.
    held: Reservation,
    /// Of the answer.
    decoder: Decoder,
    deadline: Deadline,
    is_waiting: bool,
    keeps_alive: bool,
    /// What is still to be written of the request.
    upload: Option<Outflow<B>>,
}

/// Why a request got no response head.
#[derive(Debug)]
pub(crate) enum Failure<E> {
    /// An answer was under way, or what came is none.
    Answer(Error),
    /// The body of the request could not be read, or, with `None`, was not as long as its head had said.
    Body(Option<E>),
    /// The connection died without a byte of an answer.
    Lost(Error),
    TimedOut,
}

/// Why a response body ended early.
#[derive(Debug)]
pub(crate) enum Cut {
    Http(Error),
    /// Nothing came for as long as was allowed.
    Idle,
}

impl<T, B> Connection<T, B> {
    /// `limits` are those of the answers.
    pub(crate) fn new(stream: T, limits: HeadRules) -> Self {
        Self {
            wire: Wire::new(stream),
            limits,
            held: Reservation::default(),
            decoder: Decoder::Done,
            deadline: Deadline::default(),
            is_waiting: false,
            keeps_alive: true,
            upload: None,
        }
    }

    /// Whether the answer has been read to its end, and all of the request is out.
    pub(crate) fn is_done(&self) -> bool {
        self.decoder.is_done() && self.upload.is_none()
    }

    /// The bytes that are still to come of the answer's body, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        self.decoder.left()
    }

    /// Whether the exchange is over and another may begin. Bytes beyond an answer belong to nobody: they would be the
    /// next one's beginning.
    pub(crate) fn is_reusable(&self) -> bool {
        self.keeps_alive && self.is_done() && !self.has_more()
    }

    /// Whether bytes have come that nobody asked for.
    pub(crate) fn has_more(&self) -> bool {
        !self.wire.ahead.is_empty()
    }

    /// It waits for its next request, and keeps little meanwhile.
    pub(crate) fn rest(&mut self) {
        self.wire.rest();
    }

    /// After a 101: the stream, and what the upstream has sent on it already.
    pub(crate) fn into_parts(self) -> (T, Bytes) {
        self.wire.into_parts()
    }
}

impl<T, B> Connection<T, B>
where
    T: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    /// Whether nothing has come since the last answer: neither bytes that nobody asked for nor the end.
    pub(crate) fn is_fresh(&mut self, cx: &mut Context<'_>) -> bool {
        // Of a task that has spent its budget everything would have to wait, a dead connection included.
        let mut fill = std::pin::pin!(unconstrained(poll_fn(|cx| self.wire.poll_fill(cx))));
        fill.as_mut().poll(cx).is_pending()
    }

    /// The body of a request that was lost, where nothing of it has been taken: the app waits for leave to send it, or is
    /// slow.
    pub(crate) fn take_back(&mut self) -> Option<B> {
        let untouched = self.upload.take_if(|upload| upload.pieces() == 0);
        untouched.map(|upload| upload.body)
    }

    /// Sends a request in origin-form to the host that `authority` names, and returns the head of the final answer;
    /// `interim` gets those before it.
    ///
    /// `limit` runs from the last piece of the request that was taken, or from the last interim answer. An answer may come
    /// before the request is out: reading the one moves the other on. But a body that waited for leave to be sent
    /// (`Expect: 100-continue`), and of which nothing was, is not sent any more.
    pub(crate) async fn send(
        &mut self,
        parts: &Parts,
        authority: &HeaderValue,
        body: B,
        limit: Duration,
        interim: impl Fn(Response<()>),
    ) -> Result<Response<()>, Failure<B::Error>> {
        let encoding = if body.is_end_stream() {
            Encoding::None
        } else {
            Encoding::of(&body.size_hint(), true)
        };
        let mut head = BytesMut::new();
        head::write_request(&mut head, parts, authority, &encoding, self.limits.keeps_spelling);
        self.upload = Some(Outflow::new(head, body, encoding, true));
        self.deadline.set(Instant::now() + limit);
        let (mut count, mut bytes) = (0_u32, 0_u32);
        loop {
            let head = poll_fn(|cx| self.poll_head(cx, limit, count > 0)).await?;
            let (mut response, facts) = head::response(&head, self.limits.count).map_err(Failure::Answer)?;
            if self.limits.keeps_spelling {
                response.extensions_mut().insert(Spelling::Sent(head.clone()));
            }
            if head.len() > SMALL {
                self.held.grow(head.len()).map_err(no_memory)?;
                // As long as the head lasts.
                response.extensions_mut().insert(std::mem::take(&mut self.held));
            }
            let (version, status) = (response.version(), response.status());
            if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                (count, bytes) = (count + 1, bytes.saturating_add(head.len() as u32));
                if count > MOST_INTERIM || bytes as usize > self.limits.size {
                    return Err(Failure::Answer(Error::Malformed(Fault::TooMuchInterim)));
                }
                // It is being worked on.
                self.deadline.set(Instant::now() + limit);
                interim(response);
                continue;
            }
            // The app may have been told by this answer not to send it (RFC 9110 section 10.1.1).
            let is_untouched = |upload: &Outflow<B>| upload.pieces() == 0 && !upload.body.is_end_stream();
            if self.upload.as_ref().is_some_and(is_untouched) && parts.headers.contains_key(header::EXPECT) {
                (self.upload, self.keeps_alive) = (None, false);
            }
            let framing = Framing::of_response(&parts.method, status, version, &facts)
                .map_err(|fault| Failure::Answer(Error::Malformed(fault)))?;
            self.decoder = Decoder::new(framing, self.limits);
            self.keeps_alive &= facts.keeps_alive(version)
                && !facts.has_both_framings()
                && framing != Framing::UntilClose
                && status != StatusCode::SWITCHING_PROTOCOLS;
            return Ok(response);
        }
    }

    /// The next head, while the request goes out. `is_answered`: one has come already.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limit: Duration,
        is_answered: bool,
    ) -> Poll<Result<Bytes, Failure<B::Error>>> {
        if self.poll_upload(cx).map_err(Failure::Body)? {
            self.deadline.set(Instant::now() + limit);
        }
        let head = match self.wire.poll_head(cx, self.limits.size, head::probe_response) {
            Poll::Ready(head) => head,
            Poll::Pending => {
                if self.wire.ahead.len() > SMALL {
                    self.held.grow(self.wire.ahead.capacity()).map_err(no_memory)?;
                }
                ready!(self.deadline.poll(cx));
                return Poll::Ready(Err(Failure::TimedOut));
            }
        };
        let is_lost = !is_answered && self.wire.ahead.is_empty();
        Poll::Ready(match head {
            Ok(Some(head)) => Ok(head),
            Ok(None) if is_lost => Err(Failure::Lost(Error::Incomplete)),
            Ok(None) => Err(Failure::Answer(Error::Incomplete)),
            Err(error @ Error::Io(_)) if is_lost => Err(Failure::Lost(error)),
            Err(error) => Err(Failure::Answer(error)),
        })
    }

    /// Moves the request on. True: a piece of its body was taken, or the last of it is out.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<bool, Option<B::Error>> {
        let Some(upload) = &mut self.upload else {
            return Ok(false);
        };
        let (wire, before) = (&mut self.wire, upload.pieces());
        let has_moved = match upload.poll(cx, |out, cx| wire.poll_write(out, cx)) {
            Poll::Pending => return Ok(upload.pieces() != before),
            Poll::Ready(Ok(())) => before > 0 || upload.pieces() > 0,
            // The upstream may have answered before it stopped reading: that is still to be heard.
            Poll::Ready(Err(Broken::Io)) => {
                self.keeps_alive = false;
                false
            }
            Poll::Ready(Err(broken)) => {
                (self.upload, self.keeps_alive) = (None, false);
                return Err(match broken {
                    Broken::Body(error) => Some(error),
                    Broken::Io | Broken::Length => None,
                });
            }
        };
        self.upload = None;
        Ok(has_moved)
    }

    /// Moves the rest of the request on, while nobody asks for the answer.
    pub(crate) fn poll_rest(&mut self, cx: &mut Context<'_>) {
        // A request that breaks off now has got its answer all the same.
        let _ = self.poll_upload(cx);
    }

    /// The next piece of the answer's body, within `idle`; `None` at its end. An answer that came early ends with its
    /// request: some upstreams answer at once and still want all of it.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        idle: Duration,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        // A request that breaks off now has got its answer all the same.
        let has_moved = self.poll_upload(cx).unwrap_or_default();
        if !self.decoder.is_done()
            && let Poll::Ready(Some(frame)) = self.decoder.poll_frame(&mut self.wire, cx)
        {
            self.is_waiting = false;
            return Poll::Ready(Some(frame.map_err(Cut::Http)));
        }
        if self.is_done() {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut self.is_waiting, true) || has_moved {
            self.deadline.set(Instant::now() + idle);
        }
        ready!(self.deadline.poll(cx));
        if self.decoder.is_done() {
            // The upstream does not want the rest of the request after all; its answer is whole.
            (self.upload, self.keeps_alive) = (None, false);
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Err(Cut::Idle)))
    }
}

fn no_memory<E>(exhausted: Exhausted) -> Failure<E> {
    Failure::Answer(exhausted.into())
}

/// Each may extend the wait for the final answer by as much as that has at first.
const MOST_INTERIM: u32 = 100;

//! The app's side: one connection, one request after the other.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http::{Method, Request, Response, Version};
use http_body::{Body, Frame};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::deadline::Deadline;
use super::decoder::Decoder;
use super::framing::{Framing, is_bodiless};
use super::inbound::{Inbound, Source};
use super::outflow::{Encoding, Outflow};
use super::wire::{Outgoing, Wire};
use super::{Error, head};
use crate::memory::{Held, MEMORY, SMALL};
use crate::stream::{Hangup, Reset};

/// What a request is answered with.
pub(crate) enum Answer<T, B> {
    Response(Response<B>),
    /// The head goes out. Then the stream, and what the app has sent on it ahead, are somebody else's.
    Switch(Response<()>, Next<T>),
}

/// Who takes a stream over.
pub(crate) type Next<T> = Box<dyn FnOnce(T, Bytes) -> Rest + Send>;

/// What becomes of a stream that has been taken over.
pub(crate) type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A response body whose request may still be on its way.
pub(crate) trait Carried: Body<Data = Bytes> + Unpin {
    /// Moves the rest of the request on, while the app is slow to read the response.
    fn poll_upload(&mut self, cx: &mut Context<'_>);

    /// How long the app may read nothing of the response.
    fn patience(&self) -> Duration;
}

/// Serves `stream` until either side has had enough. `answer` gets each request, with a body if it has one, or what was
/// wrong with it; after that the connection ends.
///
/// Work for an app that has left is given up, whatever of it lies unread: a reset says so at once. An app that closes
/// its sending side may have left or wait for its answer, and TCP tells the two alike until something is sent: so the
/// first bytes of the answer, which are the same for every answer, are sent ahead, one at a time. Who has left answers
/// them with a reset; who has not gets the answer, whenever it comes.
///
/// Returns what is left to do with a stream that was taken over, so that nothing of all this is held meanwhile.
pub(crate) async fn serve<T, B, F>(
    stream: T,
    header_size: usize,
    mut answer: impl FnMut(Result<Request<Option<Inbound>>, Error>) -> F,
) -> Option<Rest>
where
    T: AsyncRead + AsyncWrite + Reset + Unpin + Send + 'static,
    B: Carried,
    F: Future<Output = Answer<T, B>>,
{
    let connection = Arc::new(Mutex::new(Connection::new(stream)));
    let mut deadline = Deadline::default();
    loop {
        let head = poll_fn(|cx| lock(&connection).poll_head(cx, header_size, &mut deadline)).await;
        deadline.clear();
        let mut ask = Ask::default();
        let request = match head {
            Ok(Some(head)) => begin(&connection, head, &mut ask),
            // Nobody is there to be told.
            Ok(None) | Err(Error::Incomplete | Error::Io(_)) => return None,
            Err(error) => Err(error),
        };
        let outcome = {
            let mut answer = std::pin::pin!(answer(request));
            let mut is_veiled = false;
            poll_fn(|cx| {
                // Before the work goes on: what it waited for may have come together with the reset.
                if is_veiled && lock(&connection).is_reset() {
                    return Poll::Ready(None);
                }
                if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                    return Poll::Ready(Some(answer));
                }
                let mut connection = lock(&connection);
                let gone = connection.poll_gone(cx, &mut deadline);
                is_veiled = connection.is_veiled();
                gone.map(|()| None)
            })
            .await
        };
        match outcome {
            None => return None,
            Some(Answer::Switch(response, next)) => return switch(connection, response, next).await,
            Some(Answer::Response(response)) => {
                let (parts, body) = response.into_parts();
                let after = respond(&connection, &ask, parts, body, &mut deadline).await;
                if !matches!(after, After::Next) {
                    lock(&connection).give_up();
                }
                match after {
                    After::Next => {}
                    After::Close => {
                        linger(&connection).await;
                        return None;
                    }
                    After::Broken => return None,
                }
            }
        }
    }
}

/// What becomes of a connection after a response.
enum After {
    Next,
    Close,
    /// The response did not get to its end, and must not look as if it had.
    Broken,
}

/// What of a request decides how it is answered.
#[derive(Debug, Default)]
struct Ask {
    is_head: bool,
    is_old: bool,
    keeps_alive: bool,
    wants_trailers: bool,
}

/// What the app still sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Open,
    /// It has closed its side before it had the answer: it may wait for that, or be gone.
    Closed,
    /// It has closed its side in the middle of the answer, as those do that leave.
    Leaving,
}

/// How far the answer to the request at hand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// Its first bytes have just been written.
    Begun,
    Answering,
}

#[derive(Debug)]
struct Connection<T> {
    wire: Wire<T>,
    decoder: Decoder,
    /// The app waits for a `100 Continue` before it sends the body.
    owes_continue: bool,
    /// What is left to write of one: nothing may come between its bytes.
    interim: Outgoing,
    /// How many bytes of [`STATUS_LINE`] have been sent ahead of the answer.
    begun: usize,
    side: Side,
    stage: Stage,
    /// For the head as far as it has come, then for what the app does not read.
    held: Held,
    /// Whoever reads the body, and whoever waits for it to be read: over HTTP/2 they are two tasks.
    reader: Option<Waker>,
    watcher: Option<Waker>,
}

type Shared<T> = Arc<Mutex<Connection<T>>>;

impl<T: AsyncRead + AsyncWrite + Reset + Unpin> Connection<T> {
    fn new(stream: T) -> Self {
        Self {
            wire: Wire::new(stream),
            decoder: Decoder::Done,
            owes_continue: false,
            interim: Outgoing::default(),
            begun: 0,
            side: Side::Open,
            stage: Stage::Waiting,
            held: Held::default(),
            reader: None,
            watcher: None,
        }
    }

    /// The head of the next request; `None` where there is none.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        header_size: usize,
        deadline: &mut Deadline,
    ) -> Poll<Result<Option<Bytes>, Error>> {
        let was_begun = !self.wire.ahead.is_empty();
        match self.wire.poll_head(cx, header_size, head::probe_request) {
            Poll::Ready(Ok(Some(head))) => {
                self.stage = Stage::Waiting;
                // It stays as long as the request does, with all of the buffer that it came in.
                if head.len() > SMALL {
                    self.held.grow(head.len() + self.wire.ahead.capacity())?;
                } else {
                    self.held.release();
                }
                Poll::Ready(Ok(Some(head)))
            }
            Poll::Ready(end) => {
                self.stage = Stage::Waiting;
                Poll::Ready(end)
            }
            Poll::Pending => {
                self.wire.rest();
                let is_begun = !self.wire.ahead.is_empty();
                if is_begun {
                    self.held.grow(self.wire.ahead.capacity())?;
                }
                if is_begun != was_begun || !deadline.is_set() {
                    deadline.set(Instant::now() + if is_begun { HEAD_TIMEOUT } else { IDLE_TIMEOUT });
                }
                ready!(deadline.poll(cx));
                Poll::Ready(if is_begun { Err(Error::Slow) } else { Ok(None) })
            }
        }
    }

    /// Whether bytes lie unread, so that the end of the stream does not show by reading.
    fn is_veiled(&self) -> bool {
        !self.decoder.is_done() || !self.wire.ahead.is_empty()
    }

    fn is_reset(&self) -> bool {
        self.wire.stream.hangup() == Some(Hangup::Reset)
    }

    /// Ready once the app has left, or can be taken to have.
    fn poll_gone(&mut self, cx: &mut Context<'_>, deadline: &mut Deadline) -> Poll<()> {
        if !self.decoder.is_done() {
            note(&mut self.watcher, cx);
            // Who waits for more of the body sees its end.
            if self.reader.is_some() {
                return Poll::Pending;
            }
        } else if self.wire.ahead.is_empty() && self.side == Side::Open {
            match ready!(self.wire.poll_fill(cx)) {
                Ok(0) => self.closes(deadline),
                Ok(_) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        loop {
            match self.wire.stream.hangup() {
                Some(Hangup::Reset) => return Poll::Ready(()),
                Some(Hangup::Closed) if self.side == Side::Open => self.closes(deadline),
                Some(Hangup::Closed) | None => {}
            }
            if !deadline.is_set() {
                deadline.set(Instant::now() + LOOK);
            }
            ready!(deadline.poll(cx));
            if self.side == Side::Leaving || self.probe(cx).is_err() {
                return Poll::Ready(());
            }
            let pause = self.begun.checked_sub(1).and_then(|last| PROBES.get(last));
            deadline.set(Instant::now() + *pause.unwrap_or(&LOOK));
        }
    }

    /// The app sends no more.
    fn closes(&mut self, deadline: &mut Deadline) {
        // Nor the body that it asked leave for.
        self.owes_continue = false;
        self.side = match self.stage {
            Stage::Waiting | Stage::Begun => Side::Closed,
            Stage::Answering => Side::Leaving,
        };
        let wait = match self.stage {
            Stage::Waiting => Duration::ZERO,
            Stage::Begun | Stage::Answering => GRACE,
        };
        deadline.set(Instant::now() + wait);
    }

    /// Sends one more byte ahead of the answer to an app that may have left.
    fn probe(&mut self, cx: &mut Context<'_>) -> Result<(), io::Error> {
        let is_due = self.side == Side::Closed && self.stage == Stage::Waiting && self.interim.is_empty();
        if is_due && self.begun < PROBES.len() {
            self.interim.data = Bytes::from_static(&STATUS_LINE[self.begun..=self.begun]);
            self.begun += 1;
        }
        match self.poll_interim(cx) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }

    /// Drops what has come of a body that nobody reads. Whether that was all of it; never waits for more.
    fn skip(&mut self, cx: &mut Context<'_>) -> bool {
        self.reader = None;
        let mut skipped = 0;
        // Whoever waits for a `100 Continue` that never came may send the body or not: there is no telling.
        while !self.owes_continue && skipped < MOST_SKIPPED {
            match self.decoder.poll_frame(&mut self.wire, cx) {
                Poll::Ready(Some(Ok(frame))) => skipped += frame.data_ref().map_or(0, Bytes::len),
                Poll::Ready(None | Some(Err(_))) | Poll::Pending => break,
            }
        }
        self.decoder.is_done()
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if std::mem::take(&mut self.owes_continue) && self.wire.ahead.is_empty() {
            self.interim.data = CONTINUE;
        }
        // Where there is no room for all of it, whoever writes next begins with the rest.
        if let Poll::Ready(Err(error)) = self.poll_interim(cx) {
            return Poll::Ready(Some(Err(error.into())));
        }
        let frame = self.decoder.poll_frame(&mut self.wire, cx);
        if frame.is_pending() {
            note(&mut self.reader, cx);
            return frame;
        }
        self.reader = None;
        if self.decoder.is_done()
            && let Some(watcher) = self.watcher.take()
        {
            watcher.wake();
        }
        frame
    }

    /// Whoever still reads a body is told that it ended early: nothing of it is left to them from here on.
    fn give_up(&mut self) {
        if !self.decoder.is_done() {
            self.decoder = Decoder::Broken;
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.wire.poll_write(&mut self.interim, cx)
    }

    /// Writes and flushes all of `out`.
    fn poll_write(&mut self, out: &mut Outgoing, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
        self.wire.poll_write(out, cx)
    }
}

impl<T: AsyncRead + AsyncWrite + Reset + Unpin + Send> Source for Mutex<Connection<T>> {
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        lock(self).poll_body(cx)
    }

    fn is_done(&self) -> bool {
        lock(self).decoder.is_done()
    }
}

fn note(slot: &mut Option<Waker>, cx: &Context<'_>) {
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}

/// The lock is there for the type system: all that use a connection run on one thread, one at a time.
fn lock<T>(connection: &Mutex<Connection<T>>) -> MutexGuard<'_, Connection<T>> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a head, and gets ready for the body that it announces. The head is not kept: it may hold a large buffer.
fn begin<T>(connection: &Shared<T>, head: Bytes, ask: &mut Ask) -> Result<Request<Option<Inbound>>, Error>
where
    T: AsyncRead + AsyncWrite + Reset + Unpin + Send + 'static,
{
    let (request, facts) = head::request(&head)?;
    let version = request.version();
    let framing = Framing::of_request(version, &facts).map_err(Error::Malformed)?;
    *ask = Ask {
        is_head: request.method() == Method::HEAD,
        is_old: version == Version::HTTP_10,
        keeps_alive: facts.keeps_alive(version),
        wants_trailers: facts.accepts_trailers,
    };
    if framing == Framing::None {
        return Ok(request.map(|()| None));
    }
    let decoder = Decoder::new(framing);
    let left = decoder.left();
    {
        let mut connection = lock(connection);
        connection.decoder = decoder;
        connection.owes_continue = facts.expects && !ask.is_old;
    }
    let source = Arc::clone(connection) as Arc<dyn Source>;
    Ok(request.map(|()| Some(Inbound::new(source, left))))
}

/// Writes a response to its end.
async fn respond<T, B>(
    connection: &Shared<T>,
    ask: &Ask,
    parts: http::response::Parts,
    body: B,
    gone: &mut Deadline,
) -> After
where
    T: AsyncRead + AsyncWrite + Reset + Unpin + Send,
    B: Carried,
{
    let encoding = if is_bodiless(ask.is_head, parts.status) {
        Encoding::None
    } else {
        Encoding::of(&body.size_hint(), !ask.is_old)
    };
    // A body that nobody reads any more stands between us and the next request.
    let is_unread =
        Arc::strong_count(connection) == 1 && !poll_fn(|cx| Poll::Ready(lock(connection).skip(cx))).await;
    let begun = {
        let mut connection = lock(connection);
        // An answer is no place for a `100 Continue`, should the body be asked for now.
        connection.owes_continue = false;
        connection.held.release();
        connection.stage = Stage::Begun;
        std::mem::take(&mut connection.begun)
    };
    gone.clear();
    let keeps_alive =
        ask.keeps_alive && !is_unread && encoding != Encoding::UntilClose && !says_close(&parts.headers);
    let option: Option<&[u8]> = match (keeps_alive, ask.is_old) {
        (false, _) => Some(b"close"),
        (true, true) => Some(b"keep-alive"),
        (true, false) => None,
    };
    let mut head = BytesMut::new();
    head::write_response(&mut head, &parts, &encoding, option);
    head.advance(begun);
    drop(parts);
    let mut flow = Outflow::new(head, body, encoding, ask.wants_trailers);
    let (limit, mut stalled) = (flow.body.patience(), Deadline::default());
    let is_written = poll_fn(|cx| {
        let (mut is_full, mut has_moved) = (false, false);
        let written = flow.poll(cx, |out, cx| {
            let before = out.len();
            let mut connection = lock(connection);
            let written = connection.poll_write(out, cx);
            has_moved |= out.len() < before;
            is_full = written.is_pending();
            if is_full {
                connection.held.set(out.len() + MEMORY.stuck());
            } else {
                connection.held.release();
            }
            written
        });
        if let Poll::Ready(written) = written {
            return Poll::Ready(written.is_ok());
        }
        flow.body.poll_upload(cx);
        if is_full {
            if has_moved || !stalled.is_set() {
                stalled.set(Instant::now() + limit);
            }
            ready!(stalled.poll(cx));
        } else {
            stalled.clear();
            if has_moved && gone.is_set() {
                gone.set(Instant::now() + GRACE);
            }
            let mut connection = lock(connection);
            let is_gone = connection.poll_gone(cx, gone).is_ready();
            connection.stage = Stage::Answering;
            if !is_gone {
                return Poll::Pending;
            }
        }
        Poll::Ready(false)
    })
    .await;
    drop(flow);
    if !is_written {
        if encoding == Encoding::UntilClose {
            lock(connection).wire.stream.reset();
        }
        return After::Broken;
    }
    if keeps_alive && lock(connection).decoder.is_done() {
        After::Next
    } else {
        After::Close
    }
}

async fn switch<T: AsyncRead + AsyncWrite + Reset + Unpin>(
    connection: Shared<T>,
    response: Response<()>,
    next: Next<T>,
) -> Option<Rest> {
    let mut out = Outgoing::default();
    let (parts, ()) = response.into_parts();
    head::write_response(&mut out.head, &parts, &Encoding::None, None);
    out.head.advance(lock(&connection).begun);
    let written = poll_fn(|cx| lock(&connection).poll_write(&mut out, cx)).await;
    written.ok()?;
    // Whoever had a body of this connection is gone: the request has been answered.
    let connection = Arc::try_unwrap(connection).ok()?;
    let connection = connection.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (stream, ahead) = connection.wire.into_parts();
    Some(next(stream, ahead))
}

/// Ends a connection so that the last answer is read: bytes of the app that nobody has read would make the kernel reset
/// it, and the answer would be lost on the way (RFC 9112 section 9.6).
async fn linger<T: AsyncRead + AsyncWrite + Unpin>(connection: &Shared<T>) {
    lock(connection).wire.ahead = BytesMut::new();
    let drained = async {
        poll_fn(|cx| Pin::new(&mut lock(connection).wire.stream).poll_shutdown(cx)).await?;
        let mut left = LINGER_BYTES;
        while left > 0 {
            let read = poll_fn(|cx| {
                let wire = &mut lock(connection).wire;
                let read = wire.poll_fill(cx);
                // Nobody wants it: not even its buffer is kept, as many may linger at a time.
                wire.ahead = BytesMut::new();
                read
            })
            .await?;
            if read == 0 {
                break;
            }
            left = left.saturating_sub(read);
        }
        Ok::<_, io::Error>(())
    };
    let _ = tokio::time::timeout(LINGER, drained).await;
}

/// Whether whoever made the answer wants the connection closed.
fn says_close(fields: &HeaderMap) -> bool {
    let option = fields.get(header::CONNECTION);
    option.is_some_and(|option| option.as_bytes().eq_ignore_ascii_case(b"close"))
}

const CONTINUE: Bytes = Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n");
/// After an app has closed its side in the middle of its answer: how long nothing of it may come before the app is taken
/// to have left.
const GRACE: Duration = Duration::from_secs(5);
/// From the first byte of a head to its last.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two requests: longer than the clients that keep connections longest do.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
const LINGER: Duration = Duration::from_secs(1);
/// Between two looks at whether an app has left behind bytes that nobody has read.
const LOOK: Duration = Duration::from_millis(100);
const LINGER_BYTES: usize = 16 * 1024 * 1024;
/// Of a body that nobody reads, in bytes, for the sake of the next request.
const MOST_SKIPPED: usize = 256 * 1024;
/// After each byte that is sent ahead: a reset comes back within the time that the way takes, and an app that closed its
/// side may leave later.
const PROBES: [Duration; STATUS_LINE.len()] = [
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(5),
    Duration::from_secs(5),
    Duration::from_secs(5),
    Duration::from_secs(5),
    Duration::from_secs(5),
];
/// What every answer begins with.
const STATUS_LINE: &[u8] = b"HTTP/1.1 ";

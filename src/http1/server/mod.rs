//! The app's side: one connection, one request after the other.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http::{Method, Request, Response, Version};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use self::connection::{Connection, Expectation, GRACE, Stage};
use super::deadline::Deadline;
use super::decoder::Decoder;
use super::framing::{Framing, is_bodiless};
use super::inbound::{Inbound, Source};
use super::outflow::{Encoding, Outflow};
use super::wire::Outgoing;
use super::{Error, HeadRules, Interim, Spelling, head};
use crate::memory::MEMORY;
use crate::stream::Reset;
use crate::sync::{into_inner, lock};

mod connection;

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
/// `begins` is told once where the interim answers go.
///
/// Returns what is left to do with a stream that was taken over, so that nothing of all this is held meanwhile.
pub(crate) async fn serve<T, B, F>(
    stream: T,
    limits: HeadRules,
    begins: impl FnOnce(Weak<dyn Interim>),
    mut answer: impl FnMut(Result<Request<Option<Inbound>>, Error>) -> F,
) -> Option<Rest>
where
    T: AsyncRead + AsyncWrite + Reset + Unpin + Send + 'static,
    B: Carried,
    F: Future<Output = Answer<T, B>>,
{
    let connection = Arc::new(Mutex::new(Connection::new(stream)));
    // Weak: whoever has it has no part in the connection, which must not outlive its requests.
    begins(Arc::downgrade(&connection) as Weak<dyn Interim>);
    let mut deadline = Deadline::default();
    loop {
        let head = poll_fn(|cx| lock(&connection).poll_head(cx, limits.size, &mut deadline)).await;
        deadline.clear();
        let mut ask = Ask::default();
        let request = match head {
            Ok(Some(head)) => begin(&connection, head, limits, &mut ask),
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
                // An interim answer may have come.
                if let Poll::Ready(Err(_)) = connection.poll_interim(cx) {
                    return Poll::Ready(None);
                }
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

type Shared<T> = Arc<Mutex<Connection<T>>>;

/// Reads a head, and gets ready for the body that it announces. The head is not kept: it may hold a large buffer.
fn begin<T>(
    connection: &Shared<T>,
    head: Bytes,
    limits: HeadRules,
    ask: &mut Ask,
) -> Result<Request<Option<Inbound>>, Error>
where
    T: AsyncRead + AsyncWrite + Reset + Unpin + Send + 'static,
{
    let (mut request, facts) = head::request(&head, limits.count)?;
    if limits.keeps_spelling {
        request.extensions_mut().insert(Spelling::Sent(head));
    }
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
    let decoder = Decoder::new(framing, limits);
    let left = decoder.left();
    {
        let mut connection = lock(connection);
        connection.decoder = decoder;
        connection.expectation = Expectation::of(facts.expects && !ask.is_old);
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
    let mut is_unread =
        Arc::strong_count(connection) == 1 && !poll_fn(|cx| Poll::Ready(lock(connection).skip(cx))).await;
    let begun = {
        let mut connection = lock(connection);
        // Whoever waits for leave to send the body, and is answered, may send it or not: there is no telling. And an
        // answer is no place for a `100 Continue`, should the body be asked for now.
        is_unread |= !std::mem::take(&mut connection.expectation).is_none();
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
    let connection = into_inner(connection);
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

const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 16 * 1024 * 1024;

//! The server side: serves a connection of the app, one request after the other.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self};
use http::{Method, Version};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use self::connection::{AnswerStage, Expectation, GRACE, ServerConnection};
use super::deadline::Deadline;
use super::decoder::Decoder;
use super::framing::{BodyEncoding, Framing, is_bodiless};
use super::inbound::{BodySource, Inbound};
use super::outflow::MessageWriter;
use super::wire::Outgoing;
use super::{Error, HeadRules, Interim, Spelling, head};
use crate::memory::MEMORY;
use crate::message::{Fields, Request, Response, ResponseHead};
use crate::stream::{Reset, SOCKS4, SOCKS5, TLS_HANDSHAKE};
use crate::sync::{into_inner, lock};

mod connection;

/// How long a connection that ends is still read.
const LINGER: Duration = Duration::from_secs(1);
/// How much is still read of it.
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// The first bytes of connections that may speak another protocol: SOCKS4, SOCKS5 and TLS. No HTTP method begins with one.
const FOREIGN: [u8; 3] = [SOCKS4, SOCKS5, TLS_HANDSHAKE];

/// What the handler makes of a request.
pub(crate) enum Handled<T, B> {
    /// Give the stream away, with all that has been read of it, to speak another protocol. For [`Error::Foreign`] only.
    Foreign(ForeignTakeover<T>),
    Response(Response<B>),
    /// Send this head, then give the stream away, with what has been read ahead.
    Switch(Response<()>, Takeover<T>),
}

/// Takes a stream over, after the head of its answer.
pub(crate) type Takeover<T> = Box<dyn FnOnce(T, Bytes) -> TakenOver + Send>;

/// Takes over a stream that speaks another protocol.
pub(crate) type ForeignTakeover<T> = Box<dyn FnOnce(T, Bytes) -> Serving + Send>;

/// The work on a connection, up to its end or to the work that follows.
pub(crate) type Serving = Pin<Box<dyn Future<Output = Option<NextWork>> + Send>>;

/// The work that follows on a connection. It is returned, so that the caller can free the rest before it.
pub(crate) enum NextWork {
    Serve(Serving),
    Tunnel(TakenOver),
}

/// The work on a stream that has been taken over.
pub(crate) type TakenOver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A response body whose request may still be on its way to the upstream.
pub(crate) trait RelayedBody: Body<Data = Bytes> + Unpin {
    /// Sends more of the request, while the app is slow to read the response.
    fn poll_upload(&mut self, cx: &mut Context<'_>);

    /// Returns how long the app may read nothing of the response.
    fn patience(&self) -> Duration;
}

/// Serves `stream` until one side closes it. `answer` gets each request, with its body if there is one, or what is wrong
/// with it; in that case the connection ends after the answer.
///
/// Work for an app that has left is dropped. A reset shows that at once. An app that closes its sending side may have left,
/// or may wait for its answer; in TCP both look alike until something is sent. So the first bytes of the answer, which
/// are the same for every answer, are sent ahead, one at a time: an app that has left resets the connection then, and one
/// that waits gets its answer in the end.
///
/// `begins` is called once, with the place to which interim answers go.
///
/// Returns the work on a stream that was taken over.
pub(crate) async fn serve<T, B, F>(
    stream: T,
    limits: HeadRules,
    begins: impl FnOnce(Weak<dyn Interim>),
    mut answer: impl FnMut(Result<Request<Option<Inbound>>, Error>) -> F,
) -> Option<NextWork>
where
    T: AsyncRead + AsyncWrite + Reset + Unpin + Send + 'static,
    B: RelayedBody,
    F: Future<Output = Handled<T, B>>,
{
    let connection = Arc::new(Mutex::new(ServerConnection::new(stream)));
    // Weak, because the connection must not outlive its requests.
    begins(Arc::downgrade(&connection) as Weak<dyn Interim>);
    let mut deadline = Deadline::default();
    let mut is_first = true;
    loop {
        let head = poll_fn(|cx| lock(&connection).poll_head(cx, limits.size, &mut deadline)).await;
        deadline.clear();
        let mut ask = RequestFacts::default();
        let request = match head {
            // What follows the first byte may look like the end of a head.
            Ok(Some(head)) if is_first && FOREIGN.contains(&head[0]) => {
                lock(&connection).wire.put_back(&head);
                Err(Error::Foreign(head[0]))
            }
            Ok(Some(head)) => begin(&connection, head, limits, &mut ask),
            // The app has left: there is nobody to answer.
            Ok(None) | Err(Error::Incomplete | Error::Io(_)) => return None,
            Err(error) if is_first => Err(foreign(&connection, error)),
            Err(error) => Err(error),
        };
        is_first = false;
        let outcome = {
            let mut answer = std::pin::pin!(answer(request));
            let mut is_veiled = false;
            poll_fn(|cx| {
                // Checked first: the handler may have become ready together with the reset.
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
            Some(Handled::Foreign(next)) => {
                let (stream, ahead) = into_parts(connection)?;
                return Some(NextWork::Serve(next(stream, ahead)));
            }
            Some(Handled::Switch(response, next)) => {
                return switch(connection, response, next).await.map(NextWork::Tunnel);
            }
            Some(Handled::Response(response)) => {
                let (parts, body) = response.into_parts();
                let after = respond(&connection, &ask, parts, body, &mut deadline).await;
                if !matches!(after, AfterResponse::Next) {
                    lock(&connection).give_up();
                }
                match after {
                    AfterResponse::Next => {}
                    AfterResponse::Close => {
                        linger(&connection).await;
                        return None;
                    }
                    AfterResponse::Broken => return None,
                }
            }
        }
    }
}

/// What happens to a connection after a response.
enum AfterResponse {
    Next,
    Close,
    /// The response was not written to its end, and must not look complete.
    Broken,
}

/// The facts of a request that decide how its answer is written.
#[derive(Debug, Default)]
struct RequestFacts {
    is_head: bool,
    is_old: bool,
    keeps_alive: bool,
    wants_trailers: bool,
}

type SharedConnection<T> = Arc<Mutex<ServerConnection<T>>>;

/// Reads a head and prepares to read the body. The head is not kept, because it may keep a large buffer.
fn begin<T>(
    connection: &SharedConnection<T>,
    head: Bytes,
    limits: HeadRules,
    ask: &mut RequestFacts,
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
    *ask = RequestFacts {
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
    let source = Arc::clone(connection) as Arc<dyn BodySource>;
    Ok(request.map(|()| Some(Inbound::new(source, left))))
}

/// Writes a response to its end.
async fn respond<T, B>(
    connection: &SharedConnection<T>,
    ask: &RequestFacts,
    parts: ResponseHead,
    body: B,
    gone: &mut Deadline,
) -> AfterResponse
where
    T: AsyncRead + AsyncWrite + Reset + Unpin + Send,
    B: RelayedBody,
{
    let encoding = if is_bodiless(ask.is_head, parts.status) {
        BodyEncoding::None
    } else {
        BodyEncoding::of(&body.size_hint(), !ask.is_old)
    };
    // The rest of a body that the handler has dropped comes before the next request.
    let mut is_unread =
        Arc::strong_count(connection) == 1 && !poll_fn(|cx| Poll::Ready(lock(connection).skip(cx))).await;
    let begun = {
        let mut connection = lock(connection);
        // An app that waits for `100 Continue` may send the body after a final answer or not; we cannot know. And no 100 may
        // be sent from here on.
        is_unread |= !std::mem::take(&mut connection.expectation).is_none();
        connection.held.release();
        connection.stage = AnswerStage::Begun;
        std::mem::take(&mut connection.begun)
    };
    gone.clear();
    let keeps_alive =
        ask.keeps_alive && !is_unread && encoding != BodyEncoding::UntilClose && !says_close(&parts.headers);
    let option: Option<&[u8]> = match (keeps_alive, ask.is_old) {
        (false, _) => Some(b"close"),
        (true, true) => Some(b"keep-alive"),
        (true, false) => None,
    };
    let mut head = head::write_response(&parts, &encoding, option);
    head.advance(begun);
    drop(parts);
    let mut flow = MessageWriter::new(head, body, encoding, ask.wants_trailers);
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
            connection.stage = AnswerStage::Answering;
            if !is_gone {
                return Poll::Pending;
            }
        }
        Poll::Ready(false)
    })
    .await;
    drop(flow);
    if !is_written {
        if encoding == BodyEncoding::UntilClose {
            lock(connection).wire.stream.reset();
        }
        return AfterResponse::Broken;
    }
    if keeps_alive && lock(connection).decoder.is_done() {
        AfterResponse::Next
    } else {
        AfterResponse::Close
    }
}

/// Returns why the first bytes of a connection are no request.
fn foreign<T>(connection: &SharedConnection<T>, error: Error) -> Error {
    match (lock(connection).wire.ahead.first(), error) {
        (Some(first), Error::Malformed(_) | Error::TooLarge(_)) if FOREIGN.contains(first) => {
            Error::Foreign(*first)
        }
        (_, error) => error,
    }
}

/// Returns the stream, and what was read ahead.
fn into_parts<T>(connection: SharedConnection<T>) -> Option<(T, Bytes)> {
    // The request has been answered, so its body has been dropped and this is the last reference.
    let connection = Arc::try_unwrap(connection).ok()?;
    Some(into_inner(connection).wire.into_parts())
}

async fn switch<T: AsyncRead + AsyncWrite + Reset + Unpin>(
    connection: SharedConnection<T>,
    response: Response<()>,
    next: Takeover<T>,
) -> Option<TakenOver> {
    let mut out = Outgoing::default();
    let (parts, ()) = response.into_parts();
    out.head = head::write_response(&parts, &BodyEncoding::None, None);
    out.head.advance(lock(&connection).begun);
    let written = poll_fn(|cx| lock(&connection).poll_write(&mut out, cx)).await;
    written.ok()?;
    let (stream, ahead) = into_parts(connection)?;
    Some(next(stream, ahead))
}

/// Ends a connection so that the app can read the last answer. If bytes of the app were unread, the kernel would reset the
/// connection and the answer could be lost (RFC 9112 section 9.6).
async fn linger<T: AsyncRead + AsyncWrite + Unpin>(connection: &SharedConnection<T>) {
    lock(connection).wire.ahead = BytesMut::new();
    let drained = async {
        poll_fn(|cx| Pin::new(&mut lock(connection).wire.stream).poll_shutdown(cx)).await?;
        let mut left = LINGER_BYTES;
        while left > 0 {
            let read = poll_fn(|cx| {
                let wire = &mut lock(connection).wire;
                let read = wire.poll_fill(cx);
                // Its buffer is freed as well, because many connections may linger at a time.
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

/// Whether the answer asks for the connection to be closed.
fn says_close(fields: &Fields) -> bool {
    let option = fields.get(header::CONNECTION);
    option.is_some_and(|option| option.as_bytes().eq_ignore_ascii_case(b"close"))
}

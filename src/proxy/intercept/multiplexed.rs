//! HTTP/2 with the app inside an intercepted tunnel, over TLS or in cleartext, and its limits.
//!
//! [`super::answer`] handles each stream.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use http_body::Body as _;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{TunnelContext, answer};
use crate::message::{Request, Response};
use crate::proxy::body::GuardedBody;
use crate::proxy::{AppResponse, Body};
use crate::sync::lock;
use crate::upstream::{Incoming, MultiplexedBody, Protocol};

/// Room for the windows of all streams. With less, uploads that wait for a limit would fill it, and the one that is admitted
/// could not send the rest of its body.
const CONNECTION_WINDOW: u32 = MOST_STREAMS * STREAM_WINDOW;
const FAREWELL: Duration = Duration::from_secs(5);
const FORGIVEN_A_SECOND: u64 = 20;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const MOST_RESETS: u32 = 200;
const MOST_STREAMS: u32 = 100;
const SEND_BUFFER: usize = 64 * 1024;
/// For the body of a request; the app is near.
const STREAM_WINDOW: u32 = 32 * 1024;

/// Serves the streams of one connection until either side closes it, no stream was open for `idle`, or the process
/// drains and the streams that were open have ended.
pub(super) async fn serve<S>(stream: S, inside: Arc<TunnelContext>, idle: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = inside.proxy.live.load().limits.request_fields();
    let streams = Arc::new(Streams::default());
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let (inside, open) = (Arc::clone(&inside), ActiveStream::new(&streams));
        async move {
            let mut open = open;
            let request = Request::from(request)
                .map(|body| (!body.is_end_stream()).then(|| Incoming::H2(MultiplexedBody::new(body))));
            let response = match answer::<S>(request, Protocol::H2, &inside).await {
                AppResponse::Response(response) => response,
                // Only for the first bytes of a connection on the listener.
                AppResponse::Foreign(_) => Response::new(Body::empty()),
                // HTTP/2 has no 101.
                AppResponse::Switch(response, _) => response.map(|()| Body::empty()),
            };
            open.is_answered = true;
            let response = response.map(|body| GuardedBody { body, _guard: open });
            Ok::<_, Infallible>(http::Response::from(response))
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(limits.list_size())
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(KEEP_ALIVE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut silence = std::pin::pin!(tokio::time::sleep(idle));
    let mut begun = std::pin::pin!(inside.proxy.drain.begun());
    let (mut was_silent, mut is_draining, mut is_leaving) = (true, false, false);
    std::future::poll_fn(|cx| {
        loop {
            if streams.is_flooded.load(Ordering::Relaxed) {
                tracing::warn!(target = %inside.target, "the app reset too many HTTP/2 streams; its connection is closed");
                return Poll::Ready(());
            }
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            is_draining = is_draining || begun.as_mut().poll(cx).is_ready();
            // As with `Connection: close`, the app is told with an answer: a connection made while we drain has its first
            // request before that.
            let must_leave = is_draining && !is_leaving && streams.is_used.load(Ordering::Relaxed);
            if !must_leave {
                if streams.open.load(Ordering::Relaxed) > 0 {
                    was_silent = false;
                    return Poll::Pending;
                }
                if !std::mem::replace(&mut was_silent, true) {
                    let longest = if is_leaving { FAREWELL } else { idle };
                    silence.as_mut().reset(Instant::now() + longest);
                }
                if silence.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                if is_leaving {
                    return Poll::Ready(());
                }
            }
            // Sends GOAWAY first, answers what comes until the app has read it, and closes then. An app that does not
            // read is closed in the next round.
            connection.as_mut().graceful_shutdown();
            (is_leaving, was_silent) = (true, false);
        }
    })
    .await;
}

/// The streams of one connection.
#[derive(Debug, Default)]
struct Streams {
    is_flooded: AtomicBool,
    /// Whether there was a request.
    is_used: AtomicBool,
    open: AtomicUsize,
    resets: Mutex<Resets>,
}

/// How many streams the app has recently reset before their response.
#[derive(Debug, Default)]
struct Resets {
    counted: u32,
    /// Resets before this time have been forgiven.
    since: Option<Instant>,
}

/// A stream, from its head to the end of its response.
#[derive(Debug)]
struct ActiveStream {
    is_answered: bool,
    streams: Arc<Streams>,
}

impl Resets {
    /// Counts one more. Returns true if there were so many that it is an attack (rapid reset), not a client that
    /// cancels.
    fn add(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let seconds = now.duration_since(since).as_secs();
        let forgiven = seconds.saturating_mul(FORGIVEN_A_SECOND);
        self.since = Some(since + Duration::from_secs(seconds));
        self.counted = self
            .counted
            .saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
            + 1;
        self.counted > MOST_RESETS
    }
}

impl ActiveStream {
    fn new(streams: &Arc<Streams>) -> Self {
        streams.open.fetch_add(1, Ordering::Relaxed);
        streams.is_used.store(true, Ordering::Relaxed);
        Self {
            is_answered: false,
            streams: Arc::clone(streams),
        }
    }
}

impl Drop for ActiveStream {
    fn drop(&mut self) {
        self.streams.open.fetch_sub(1, Ordering::Relaxed);
        let resets = &self.streams.resets;
        if !self.is_answered && lock(resets).add(Instant::now()) {
            self.streams.is_flooded.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_resets_is_an_attack_and_a_habit_of_cancelling_is_none() {
        let start = Instant::now();
        let mut burst = Resets::default();
        let allowed = (0..1000).take_while(|_| !burst.add(start)).count();
        assert_eq!(allowed, 200);

        let mut habit = Resets::default();
        for number in 0..10_000 {
            assert!(!habit.add(start + Duration::from_millis(60) * number), "{number}");
        }
    }
}

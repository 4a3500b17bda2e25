//! The pool of connections to upstreams.
//!
//! Each worker thread has its own pool: no lock, and a connection never leaves the thread that drives it. Connections are
//! found by the endpoint (destination, identity, trust: see [`super::Endpoint`]), the ALPN offer, and the target (scheme,
//! host, port): two connections that could differ for a request have different keys. Of the idle HTTP/1.1 connections the
//! one used last is taken first; HTTP/2 connections are shared.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;
use http::{StatusCode, Version};
use hyper::client::conn::http2;
use tokio::time::Instant;

use super::body::{Outbound, ResponseBody};
use super::bound::{self, BoundConnections};
use super::link::Stream;
use super::parent::Via;
use super::streamed::Streamed;
use super::unreadable::{self, Unreadable};
use super::{Endpoint, Error, FastMap, Protocol, RequestObserver, is_repeatable, sweeper, tls};
use crate::host::{Scheme, Target};
use crate::http1;
use crate::http1::Spelling;
use crate::http1::client::ClientConnection;
use crate::message::{Request, RequestHead, Response};
use crate::telemetry::GaugeGuard;

/// The longest that a connection is used, because the addresses of a name change.
const MOST_AGE: Duration = Duration::from_secs(300);
/// Common servers close an idle connection after 60 to 75 seconds; we go first.
const MOST_IDLE: Duration = Duration::from_secs(50);
/// The most idle connections to a target.
const MOST_IDLE_CONNECTIONS: usize = 512;
/// How often each worker calls [`sweep`].
pub(crate) const SWEEP: Duration = Duration::from_secs(5);
/// How late a sweep may come.
const LATE: Duration = Duration::from_secs(1);
/// The most targets of a key whose protocol is remembered.
const MOST_LEARNED: usize = 10_000;
/// The most requests at a time on a shared connection.
const MOST_STREAMS: usize = 100;

/// The key of connections: the endpoint's id and the ALPN offer.
type PoolKey = (u64, tls::Alpn);

type KeyedPool = FastMap<PoolKey, FastMap<Target, TargetPool>>;

thread_local! {
    static LEARNED: RefCell<FastMap<PoolKey, FastMap<Target, Protocol>>> = RefCell::default();
    static POOL: RefCell<KeyedPool> = RefCell::default();
    /// The time of the worker's last sweep: costs nothing to read, and is exact enough for a connection's age.
    static SWEPT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The connections to one target under one identity.
#[derive(Debug, Default)]
struct TargetPool {
    idle: Vec<IdleConnection>,
    shared: Vec<SharedH2>,
}

#[derive(Debug)]
struct IdleConnection {
    held: Box<PooledConnection>,
    /// When a sweep first saw it idle: reading a clock for each request would cost too much.
    since: Option<Instant>,
}

#[derive(Clone, Debug)]
struct SharedH2 {
    sender: http2::SendRequest<Outbound>,
    info: Arc<ConnectionInfo>,
    streams: Arc<AtomicUsize>,
}

/// The facts of a connection that do not change.
#[derive(Debug)]
pub(crate) struct ConnectionInfo {
    pub(super) key: PoolKey,
    pub(super) target: Target,
    /// The value of Host or `:authority`.
    pub(super) authority: HeaderValue,
    /// After this time it takes no new requests; `None`: it closes after the first one.
    pub(super) until: Option<Instant>,
    pub(super) endpoint: Arc<Endpoint>,
    /// The upstream has closed it. What came before is still read. HTTP/2 only.
    pub(super) is_closed: Arc<AtomicBool>,
    /// The parent through which it goes.
    pub(super) via: Option<Arc<Via>>,
}

/// An HTTP/1.1 connection, owned by the exchange that uses it or by the pool.
#[derive(Debug)]
pub(crate) struct PooledConnection {
    pub(super) connection: ClientConnection<Stream, Outbound>,
    pub(super) info: ConnectionInfo,
    /// The app's connection that it belongs to, if it does; then it never comes into the pool.
    bound: Option<Weak<BoundConnections>>,
    _open: GaugeGuard,
}

/// A connection in use for one request.
#[derive(Debug)]
pub(crate) enum ActiveConnection {
    H1(Box<PooledConnection>),
    H2 {
        sender: http2::SendRequest<Outbound>,
        info: Arc<ConnectionInfo>,
        open: OpenStream,
    },
}

/// An open stream of a shared connection; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenStream(Arc<AtomicUsize>);

/// A try that got no response head.
#[derive(Debug)]
pub(super) struct AttemptFailed {
    pub(super) error: Error,
    /// Why the request may be sent again, if it may; its body is then still there.
    pub(super) again: Option<ResendReason>,
}

impl From<Error> for AttemptFailed {
    fn from(error: Error) -> Self {
        Self { error, again: None }
    }
}

/// Why a request may be sent again without a `retry` in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResendReason {
    /// The connection ended without a byte of an answer, and the request is repeatable.
    Stale,
    /// It was not written, or the upstream says that it has not processed it (RFC 9113 section 8.7).
    Unprocessed,
}

impl ResendReason {
    /// Returns the label of the metric.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Unprocessed => "unprocessed",
        }
    }

    /// Returns why a request on an HTTP/2 connection may be sent again, provided that its body is still there.
    fn of(error: &hyper::Error, head: &RequestHead) -> Option<Self> {
        if is_unprocessed(error) {
            return Some(Self::Unprocessed);
        }
        let is_lost =
            error.is_closed() || error.is_incomplete_message() || error.is_canceled() || is_reset(error);
        (is_lost && is_repeatable(head)).then_some(Self::Stale)
    }
}

/// Takes a connection that can carry a request to `target` at once, the most recently used first.
pub(super) fn take(name: PoolKey, target: &Target, cx: &mut Context<'_>) -> Option<ActiveConnection> {
    POOL.with_borrow_mut(|pool| {
        let pooled = pool.get_mut(&name)?.get_mut(target)?;
        while let Some(IdleConnection { mut held, .. }) = pooled.idle.pop() {
            if held.is_fresh(cx) {
                return Some(ActiveConnection::H1(held));
            }
        }
        if pooled.shared.is_empty() {
            return None;
        }
        (pooled.shared)
            .retain(|shared| !shared.sender.is_closed() && !shared.info.is_closed.load(Ordering::Relaxed));
        let now = Instant::now();
        let shared = pooled.shared.iter().find(|shared| {
            shared.streams.load(Ordering::Relaxed) < MOST_STREAMS && !shared.info.is_over(now)
        })?;
        Some(ActiveConnection::H2 {
            sender: shared.sender.clone(),
            info: Arc::clone(&shared.info),
            open: OpenStream::new(&shared.streams),
        })
    })
}

/// Returns until when a connection that is made now takes new requests. `trusted`: the end of the first certificate or list
/// on which the trust in its server rests. `None` if that is before the next sweep, which would come too late.
pub(super) fn until(trusted: Option<SystemTime>) -> Option<Instant> {
    let left = match trusted {
        None => MOST_AGE,
        Some(until) => {
            let left = until.duration_since(SystemTime::now()).unwrap_or_default();
            left.checked_sub(SWEEP + LATE)?.min(MOST_AGE)
        }
    };
    Some(Instant::now() + left)
}

/// Returns what the upstream was found to speak, if a connection was made before.
pub(super) fn learned(name: PoolKey, target: &Target) -> Option<Protocol> {
    LEARNED.with_borrow(|learned| learned.get(&name)?.get(target).copied())
}

/// Remembers what the upstream speaks. When there are too many, all are forgotten: at worst we connect to find out again.
pub(super) fn learn(name: PoolKey, target: &Target, protocol: Protocol) {
    LEARNED.with_borrow_mut(|learned| {
        let targets = learned.entry(name).or_default();
        if targets.len() >= MOST_LEARNED {
            targets.clear();
        }
        targets.insert(target.clone(), protocol);
    });
}

/// Removes the shared connections to the target of `info` that are not `kept`. Requests that are on them go on.
fn retire(info: &ConnectionInfo, kept: impl Fn(&SharedH2) -> bool) {
    POOL.with_borrow_mut(|pool| {
        let targets = pool.get_mut(&info.key);
        if let Some(pooled) = targets.and_then(|targets| targets.get_mut(&info.target)) {
            pooled.shared.retain(kept);
        }
    });
}

/// Closes connections that have been idle for too long, are too old, or belong to an endpoint that is gone. Returns whether
/// none is left.
pub(crate) fn sweep(is_live: impl Fn(u64) -> bool) -> bool {
    let now = Instant::now();
    SWEPT.set(Some(now));
    LEARNED.with_borrow_mut(|learned| learned.retain(|(endpoint, _), _| is_live(*endpoint)));
    POOL.with_borrow_mut(|pool| {
        pool.retain(|(endpoint, _), targets| {
            targets.retain(|_, pooled| {
                pooled.idle.retain_mut(|idle| {
                    idle.held.is_fresh(&mut Context::from_waker(Waker::noop()))
                        && now.duration_since(*idle.since.get_or_insert(now)) < MOST_IDLE
                        && !idle.held.info.is_over(now)
                });
                pooled.shared.retain(|shared| {
                    let quiet = shared.streams.load(Ordering::Relaxed) == 0;
                    !(shared.sender.is_closed() || quiet && shared.info.is_over(now))
                });
                !pooled.idle.is_empty() || !pooled.shared.is_empty()
            });
            is_live(*endpoint) && !targets.is_empty()
        });
        pool.is_empty()
    })
}

impl ConnectionInfo {
    /// Whether the time for new requests on it is over `now`.
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}

impl PooledConnection {
    pub(super) fn new(stream: Stream, info: ConnectionInfo, open: GaugeGuard) -> Self {
        let mut connection = ClientConnection::new(stream, info.endpoint.destination.response_fields);
        if let Some(form) = info.via.as_ref().and_then(|via| via.form()) {
            connection = connection.for_proxy(form);
        }
        Self {
            connection,
            info,
            bound: None,
            _open: open,
        }
    }

    /// Returns the connection to the pool, or closes it if it cannot carry another request.
    pub(super) fn give_back(mut self: Box<Self>) {
        // By the time of the last sweep, so that no clock is read.
        let is_over = self.info.until.is_none() || SWEPT.get().is_some_and(|swept| self.info.is_over(swept));
        if !self.connection.is_reusable() || is_over {
            return;
        }
        self.connection.rest();
        if let Some(bound) = &self.bound {
            if let Some(bound) = bound.upgrade() {
                bound.keep(self);
            }
            return;
        }
        POOL.with_borrow_mut(|pool| {
            let pooled = target_pool(pool, &self.info);
            if pooled.idle.len() < MOST_IDLE_CONNECTIONS {
                pooled.idle.push(IdleConnection {
                    held: self,
                    since: None,
                });
            }
        });
    }

    /// Whether the time for new requests on it is over. Connections in the pool are swept instead.
    pub(super) fn is_over(&self) -> bool {
        self.info.is_over(Instant::now())
    }

    /// Whether a request to `target` under this endpoint may be sent on it.
    pub(super) fn leads_to(&self, endpoint: u64, target: &Target) -> bool {
        self.info.key.0 == endpoint && self.info.target == *target
    }

    /// Whether nothing has come since the last answer.
    pub(super) fn is_fresh(&mut self, cx: &mut Context<'_>) -> bool {
        // What the event loop knows of a socket is asked first: it costs less than to read nothing.
        self.connection.stream().is_quiet() || self.connection.is_fresh(cx)
    }

    async fn send(
        mut self: Box<Self>,
        head: &RequestHead,
        body: &mut Outbound,
        observer: &impl RequestObserver,
    ) -> Result<Response<ResponseBody>, AttemptFailed> {
        let is_whole = body.is_whole();
        let limit = self.info.endpoint.destination.timeouts.response;
        let failure = match self
            .connection
            .send(head, &self.info.authority, body.depart(), limit, |response| {
                observer.interim(response);
            })
            .await
        {
            Ok(response) => {
                if let Some(via) = &self.info.via
                    && let Some(error) = via.own_answer(&response)
                {
                    return Err(error.into());
                }
                let status = response.status();
                let old = &self.info.endpoint.old;
                old.answered(&self.info.target, response.version());
                if status == StatusCode::UNAUTHORIZED
                    && self.bound.is_none()
                    && bound::is_spoken_in(response.headers())
                {
                    self.bound = Some(bound::to_nobody());
                }
                return Ok(response.map(|()| ResponseBody::h1(self, status)));
            }
            Err(failure) => failure,
        };
        let (host, endpoint) = (&self.info.target.host, &self.info.endpoint);
        Err(match failure {
            http1::client::SendError::Answer(error) => {
                let of_parent = self.info.via.as_ref().and_then(|via| via.unreadable(&error));
                let error = of_parent.unwrap_or_else(|| Error::of_http1(error, true, host, endpoint));
                error.into()
            }
            http1::client::SendError::Body(cut) => Error::of_cut(cut).into(),
            http1::client::SendError::Lost(error) => {
                let of_parent = self.info.via.as_ref().and_then(|via| via.lost(&error));
                let error = of_parent.unwrap_or_else(|| Error::of_http1(error, false, host, endpoint));
                let mut is_back =
                    || is_whole || self.connection.take_back().map(|back| *body = back).is_some();
                // What TLS has refused it will refuse again.
                let may_be_repeated = is_repeatable(head) && !matches!(error, Error::Tls(_)) && is_back();
                AttemptFailed {
                    again: may_be_repeated.then_some(ResendReason::Stale),
                    error,
                }
            }
            http1::client::SendError::TimedOut => {
                Error::ResponseTimeout(endpoint.destination.timeouts.response).into()
            }
        })
    }
}

impl ActiveConnection {
    /// Makes a new HTTP/2 connection available to other requests.
    pub(super) fn h2(info: ConnectionInfo, sender: http2::SendRequest<Outbound>) -> Self {
        let info = Arc::new(info);
        let streams = Arc::new(AtomicUsize::new(0));
        let open = OpenStream::new(&streams);
        let shared = SharedH2 {
            sender: sender.clone(),
            info: Arc::clone(&info),
            streams,
        };
        POOL.with_borrow_mut(|pool| target_pool(pool, &info).shared.push(shared));
        Self::H2 { sender, info, open }
    }

    /// Makes it belong to one connection of the app.
    pub(super) fn bound_to(mut self, bound: &Arc<BoundConnections>) -> Self {
        if let Self::H1(held) = &mut self {
            held.bound = Some(Arc::downgrade(bound));
        }
        self
    }

    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Self::H1(_) => Protocol::H1,
            Self::H2 { .. } => Protocol::H2,
        }
    }

    /// Returns an unused connection to the pool.
    pub(super) fn give_back(self) {
        if let Self::H1(held) = self {
            held.give_back();
        }
    }

    /// Sends one request and waits for the head of its answer. A buffered `body` is kept for another try.
    pub(super) async fn send(
        self,
        head: &RequestHead,
        body: &mut Outbound,
        observer: &impl RequestObserver,
    ) -> Result<Response<ResponseBody>, AttemptFailed> {
        match self {
            Self::H1(held) => held.send(head, body, observer).await,
            // Boxed, because most requests go over HTTP/1.1.
            Self::H2 { sender, info, open } => Box::pin(send_h2(sender, &info, open, head, body)).await,
        }
    }
}

async fn send_h2(
    mut sender: http2::SendRequest<Outbound>,
    info: &Arc<ConnectionInfo>,
    open: OpenStream,
    head: &RequestHead,
    body: &mut Outbound,
) -> Result<Response<ResponseBody>, AttemptFailed> {
    let timeouts = &info.endpoint.destination.timeouts;
    let upload = body.progress();
    let (sent, reclaim) = body.lend();
    let mut request = http::Request::from(Request::from_parts(Box::new(head.clone()), sent));
    shape_h2(&mut request, info);
    let mut uploaded = 0;
    let mut answer = std::pin::pin!(sender.try_send_request(request));
    let result = loop {
        if let Ok(result) = tokio::time::timeout(timeouts.response, answer.as_mut()).await {
            break result;
        }
        // As long as the body moves, it is the app that is slow. A body that does not move has another limit (timeouts.idle).
        match &upload {
            Some(upload) if upload.bytes() > uploaded => uploaded = upload.bytes(),
            _ => {
                // A firewall may have forgotten the connections: the next request must not wait on them as well.
                retire(info, |_| false);
                return Err(Error::ResponseTimeout(timeouts.response).into());
            }
        }
    };
    match result {
        Ok(response) => {
            let mut response = Response::from(response);
            if let Some(reclaim) = reclaim {
                reclaim.forget();
            }
            let limits = info.endpoint.destination.response_fields;
            if let Some(wrong) = unreadable::of_h2(response.headers(), limits) {
                let unreadable = Unreadable::new(wrong, &info.target.host, &info.endpoint);
                return Err(Error::Unreadable(unreadable).into());
            }
            if limits.keeps_spelling {
                response.extensions_mut().insert(Spelling::Usual);
            }
            Ok(response
                .map(|incoming| ResponseBody::h2(Streamed::new(incoming, open, timeouts.idle, limits))))
        }
        Err(mut failure) => {
            let is_unwritten = failure.take_message().is_some();
            let error = failure.into_error();
            let again = if is_unwritten {
                Some(ResendReason::Unprocessed)
            } else {
                ResendReason::of(&error, head)
            };
            if again == Some(ResendReason::Unprocessed) {
                // The next request would be refused as well.
                retire(info, |shared| !Arc::ptr_eq(&shared.info, info));
            }
            let is_body_there =
                reclaim.is_none_or(|reclaim| reclaim.take_back().map(|back| *body = back).is_some());
            let error = match Error::of_hyper(error, &info.target.host, &info.endpoint) {
                // What TLS has refused it will refuse again.
                error @ Error::Tls(_) => return Err(error.into()),
                Error::Incomplete(source) if again == Some(ResendReason::Unprocessed) => Error::Unprocessed {
                    is_body_there,
                    source,
                },
                error => error,
            };
            Err(AttemptFailed {
                again: again.filter(|_| is_body_there),
                error,
            })
        }
    }
}

/// Writes the target into `:scheme` and `:authority`, and removes Host.
fn shape_h2(request: &mut http::Request<Outbound>, info: &ConnectionInfo) {
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = request
        .uri()
        .path_and_query()
        // Displaying adds the slash that an empty path before a query must have.
        .and_then(|path| path.to_string().parse().ok())
        .or(Some(PathAndQuery::from_static("/")));
    parts.scheme = Some(match info.target.scheme {
        Scheme::Http => http::uri::Scheme::HTTP,
        Scheme::Https => http::uri::Scheme::HTTPS,
    });
    parts.authority = (info.authority.to_str().ok()).and_then(|text| text.parse().ok());
    if let Ok(uri) = http::Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(header::HOST);
}

impl OpenStream {
    fn new(streams: &Arc<AtomicUsize>) -> Self {
        streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(streams))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn target_pool<'p>(pool: &'p mut KeyedPool, info: &ConnectionInfo) -> &'p mut TargetPool {
    sweeper::filled();
    let targets = pool.entry(info.key).or_default();
    targets.entry(info.target.clone()).or_default()
}

/// Whether HTTP/2 says that the stream was refused, or is after the last one that a closing upstream processes.
fn is_unprocessed(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        cause.is_remote()
            && (cause.is_go_away() || cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// Whether the connection was reset or the pipe broken: what we see if the peer closes while we send a request.
fn is_reset(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind::{
                BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
            };
            return matches!(
                io.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
            );
        }
        source = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_connection_waits_beyond_the_end_of_its_trust() {
        let ends_in = |seconds| until(Some(SystemTime::now() + Duration::from_secs(seconds)));
        assert_eq!(until(Some(SystemTime::UNIX_EPOCH)), None);
        // The next sweep may come after that.
        assert_eq!(ends_in(3), None);
        let before_sweep = Instant::now() + Duration::from_secs(60) - SWEEP - LATE;
        assert!(ends_in(60).is_some_and(|until| until <= before_sweep + Duration::from_secs(1)));
        let oldest = Instant::now() + MOST_AGE;
        assert!(ends_in(100_000).is_some_and(|until| until >= oldest));
        assert!(until(None).is_some_and(|until| until >= oldest));
    }
}

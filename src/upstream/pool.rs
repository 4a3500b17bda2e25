//! Connections that wait for their next request.
//!
//! Each worker thread has its own pool: no lock, and a connection never leaves the thread that drives it. A shelf is
//! named by the endpoint (destination, identity, trust: see [`super::Endpoint`]), what was offered by ALPN, and the
//! target (scheme, host, port): the whole of what may tell two connections apart. HTTP/1.1 connections are taken last in,
//! first out; HTTP/2 connections are shared.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Version};
use hyper::client::conn::http2;
use tokio::time::Instant;

use super::body::{Outbound, ResponseBody};
use super::bond::{self, Bond};
use super::connect::Stream;
use super::streamed::Streamed;
use super::unreadable::{self, Unreadable};
use super::{Endpoint, Error, Mirror, Witness, is_repeatable, tls};
use crate::host::{Scheme, Target};
use crate::http1;
use crate::http1::Spelling;
use crate::http1::client::Connection;
use crate::telemetry::GaugeGuard;

/// The endpoint's id and what was offered by ALPN.
type ShelfName = (u64, tls::Alpn);

/// Looked up for every request; the hash is seeded anew in each process.
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

type Pool = Map<ShelfName, Map<Target, Shelf>>;

thread_local! {
    static LEARNED: RefCell<Map<ShelfName, Map<Target, Mirror>>> = RefCell::default();
    static POOL: RefCell<Pool> = RefCell::default();
    /// When the worker last swept: a clock that costs nothing to read, and is exact enough for a connection's age.
    static SWEPT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The connections to one target under one identity.
#[derive(Debug, Default)]
struct Shelf {
    idle: Vec<Idle>,
    shared: Vec<Shared>,
}

#[derive(Debug)]
struct Idle {
    held: Box<Held>,
    /// When a sweep first saw it here: a clock for each request would be too dear.
    since: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Shared {
    sender: http2::SendRequest<Outbound>,
    link: Arc<Link>,
    streams: Arc<AtomicUsize>,
}

/// What stays the same for the life of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) shelf: ShelfName,
    pub(super) target: Target,
    /// The target as a Host field or `:authority` names it.
    pub(super) authority: HeaderValue,
    /// From when on it takes no new requests; `None`: it never waits for another one.
    pub(super) until: Option<Instant>,
    pub(super) endpoint: Arc<Endpoint>,
    /// The upstream has closed it; what came before that is still read. HTTP/2 only.
    pub(super) is_closed: Arc<AtomicBool>,
}

/// An HTTP/1.1 connection, held by the one exchange that is on it, or by the pool.
#[derive(Debug)]
pub(crate) struct Held {
    pub(super) connection: Connection<Stream, Outbound>,
    pub(super) link: Link,
    /// It belongs to one connection of the app, and never comes into the pool.
    bond: Option<Weak<Bond>>,
    _open: GaugeGuard,
}

/// A connection that is in use for one request.
#[derive(Debug)]
pub(crate) enum Lease {
    H1(Box<Held>),
    H2 {
        sender: http2::SendRequest<Outbound>,
        link: Arc<Link>,
        open: OpenStream,
    },
}

/// One of the streams of a shared connection; counted while it is open.
#[derive(Debug)]
pub(crate) struct OpenStream(Arc<AtomicUsize>);

/// A request that got no response head.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// Why the request may be sent again; its body is still there.
    pub(super) again: Option<Again>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, again: None }
    }
}

/// Why a request may be sent again although the configuration does not say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// The connection died without a byte of an answer, and the request means the same when it is sent twice.
    Stale,
    /// It was not written, or the upstream says that it has not processed it (RFC 9113 section 8.7).
    Unprocessed,
}

impl Again {
    /// The label of the metric.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Unprocessed => "unprocessed",
        }
    }

    /// Whether a request that was handed to an HTTP/2 connection may be sent again, should its body be there.
    fn of(error: &hyper::Error, head: &Parts) -> Option<Self> {
        if is_unprocessed(error) {
            return Some(Self::Unprocessed);
        }
        let is_lost =
            error.is_closed() || error.is_incomplete_message() || error.is_canceled() || is_reset(error);
        (is_lost && is_repeatable(head)).then_some(Self::Stale)
    }
}

/// A connection that can carry a request to `target` at once, the most recently used first.
pub(super) fn take(name: ShelfName, target: &Target, cx: &mut Context<'_>) -> Option<Lease> {
    POOL.with_borrow_mut(|pool| {
        let shelf = pool.get_mut(&name)?.get_mut(target)?;
        while let Some(Idle { mut held, .. }) = shelf.idle.pop() {
            if held.connection.is_fresh(cx) {
                return Some(Lease::H1(held));
            }
        }
        if shelf.shared.is_empty() {
            return None;
        }
        (shelf.shared)
            .retain(|shared| !shared.sender.is_closed() && !shared.link.is_closed.load(Ordering::Relaxed));
        let now = Instant::now();
        let shared = shelf.shared.iter().find(|shared| {
            shared.streams.load(Ordering::Relaxed) < MOST_STREAMS && !shared.link.is_over(now)
        })?;
        Some(Lease::H2 {
            sender: shared.sender.clone(),
            link: Arc::clone(&shared.link),
            open: OpenStream::new(&shared.streams),
        })
    })
}

/// Until when a connection that is made now takes new requests. `trusted`: when the first certificate or list ends on
/// which the trust in its server rests. `None` where that is before the next sweep, which would come too late.
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

/// What the upstream was found to speak, where it has been connected to before.
pub(super) fn learned(name: ShelfName, target: &Target) -> Option<Mirror> {
    LEARNED.with_borrow(|learned| learned.get(&name)?.get(target).copied())
}

/// Remembers what the upstream speaks. Bounded by forgetting: at worst a connection is made to find out again.
pub(super) fn learn(name: ShelfName, target: &Target, mirror: Mirror) {
    LEARNED.with_borrow_mut(|learned| {
        let targets = learned.entry(name).or_default();
        if targets.len() >= MOST_LEARNED {
            targets.clear();
        }
        targets.insert(target.clone(), mirror);
    });
}

/// Gives those of the shared connections to the target of `link` that are not `kept` no more requests; what is under way
/// on them goes on.
fn retire(link: &Link, kept: impl Fn(&Shared) -> bool) {
    POOL.with_borrow_mut(|pool| {
        let targets = pool.get_mut(&link.shelf);
        if let Some(shelf) = targets.and_then(|targets| targets.get_mut(&link.target)) {
            shelf.shared.retain(kept);
        }
    });
}

/// Closes what has been idle for too long, is too old, or belongs to an endpoint that is gone.
pub(crate) fn sweep(is_live: impl Fn(u64) -> bool) {
    let now = Instant::now();
    SWEPT.set(Some(now));
    LEARNED.with_borrow_mut(|learned| learned.retain(|(endpoint, _), _| is_live(*endpoint)));
    POOL.with_borrow_mut(|pool| {
        pool.retain(|(endpoint, _), targets| {
            targets.retain(|_, shelf| {
                shelf.idle.retain_mut(|idle| {
                    idle.held
                        .connection
                        .is_fresh(&mut Context::from_waker(Waker::noop()))
                        && now.duration_since(*idle.since.get_or_insert(now)) < MOST_IDLE
                        && !idle.held.link.is_over(now)
                });
                shelf.shared.retain(|shared| {
                    let quiet = shared.streams.load(Ordering::Relaxed) == 0;
                    !(shared.sender.is_closed() || quiet && shared.link.is_over(now))
                });
                !shelf.idle.is_empty() || !shelf.shared.is_empty()
            });
            is_live(*endpoint) && !targets.is_empty()
        });
    });
}

impl Link {
    /// Whether the time for new requests on it is over `now`.
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}

impl Held {
    pub(super) fn new(stream: Stream, link: Link, open: GaugeGuard) -> Self {
        Self {
            connection: Connection::new(stream, link.endpoint.destination.response_fields),
            link,
            bond: None,
            _open: open,
        }
    }

    /// The exchange is over: the connection waits for its next request, or closes.
    pub(super) fn give_back(mut self: Box<Self>) {
        // By the clock of the last sweep: an exchange reads none.
        let is_over = self.link.until.is_none() || SWEPT.get().is_some_and(|swept| self.link.is_over(swept));
        if !self.connection.is_reusable() || is_over {
            return;
        }
        self.connection.rest();
        if let Some(bond) = &self.bond {
            if let Some(bond) = bond.upgrade() {
                bond.keep(self);
            }
            return;
        }
        POOL.with_borrow_mut(|pool| {
            let shelf = shelf_of(pool, &self.link);
            if shelf.idle.len() < MOST_IDLE_CONNECTIONS {
                shelf.idle.push(Idle {
                    held: self,
                    since: None,
                });
            }
        });
    }

    /// Whether the time for new requests on it is over. The pool's sweep sees to those that wait there.
    pub(super) fn is_over(&self) -> bool {
        self.link.is_over(Instant::now())
    }

    /// Whether a request to `target` under this endpoint may be sent on it.
    pub(super) fn leads_to(&self, endpoint: u64, target: &Target) -> bool {
        self.link.shelf.0 == endpoint && self.link.target == *target
    }

    /// Whether nothing has come since the last answer.
    pub(super) fn is_fresh(&mut self, cx: &mut Context<'_>) -> bool {
        self.connection.is_fresh(cx)
    }

    async fn send(
        mut self: Box<Self>,
        head: &Parts,
        body: &mut Outbound,
        witness: &impl Witness,
    ) -> Result<Response<ResponseBody>, Failure> {
        let is_whole = body.is_whole();
        let limit = self.link.endpoint.destination.timeouts.response;
        let failure = match self
            .connection
            .send(head, &self.link.authority, body.depart(), limit, |response| {
                witness.interim(response);
            })
            .await
        {
            Ok(response) => {
                let status = response.status();
                let old = &self.link.endpoint.old;
                old.answered(&self.link.target, response.version());
                if status == StatusCode::UNAUTHORIZED
                    && self.bond.is_none()
                    && bond::is_spoken_in(response.headers())
                {
                    self.bond = Some(bond::to_nobody());
                }
                return Ok(response.map(|()| ResponseBody::h1(self, status)));
            }
            Err(failure) => failure,
        };
        let (host, endpoint) = (&self.link.target.host, &self.link.endpoint);
        Err(match failure {
            http1::client::Failure::Answer(error) => Error::of_http1(error, true, host, endpoint).into(),
            http1::client::Failure::Body(cut) => Error::of_cut(cut).into(),
            http1::client::Failure::Lost(error) => {
                let error = Error::of_http1(error, false, host, endpoint);
                let mut is_back =
                    || is_whole || self.connection.take_back().map(|back| *body = back).is_some();
                // What TLS refuses it will refuse again.
                let may_be_repeated = is_repeatable(head) && !matches!(error, Error::Tls(_)) && is_back();
                Failure {
                    again: may_be_repeated.then_some(Again::Stale),
                    error,
                }
            }
            http1::client::Failure::TimedOut => {
                Error::ResponseTimeout(endpoint.destination.timeouts.response).into()
            }
        })
    }
}

impl Lease {
    /// A new HTTP/2 connection: others may share it from now on.
    pub(super) fn h2(link: Link, sender: http2::SendRequest<Outbound>) -> Self {
        let link = Arc::new(link);
        let streams = Arc::new(AtomicUsize::new(0));
        let open = OpenStream::new(&streams);
        let shared = Shared {
            sender: sender.clone(),
            link: Arc::clone(&link),
            streams,
        };
        POOL.with_borrow_mut(|pool| shelf_of(pool, &link).shared.push(shared));
        Self::H2 { sender, link, open }
    }

    /// From now on it belongs to one connection of the app.
    pub(super) fn bound_to(mut self, bond: &Arc<Bond>) -> Self {
        if let Self::H1(held) = &mut self {
            held.bond = Some(Arc::downgrade(bond));
        }
        self
    }

    pub(super) fn mirror(&self) -> Mirror {
        match self {
            Self::H1(_) => Mirror::H1,
            Self::H2 { .. } => Mirror::H2,
        }
    }

    /// The connection was not needed after all.
    pub(super) fn give_back(self) {
        if let Self::H1(held) = self {
            held.give_back();
        }
    }

    /// Sends one request and waits for the head of its answer. A whole `body` stays for another time.
    pub(super) async fn send(
        self,
        head: &Parts,
        body: &mut Outbound,
        witness: &impl Witness,
    ) -> Result<Response<ResponseBody>, Failure> {
        match self {
            Self::H1(held) => held.send(head, body, witness).await,
            // Boxed: most exchanges do not carry one.
            Self::H2 { sender, link, open } => Box::pin(send_h2(sender, &link, open, head, body)).await,
        }
    }
}

async fn send_h2(
    mut sender: http2::SendRequest<Outbound>,
    link: &Arc<Link>,
    open: OpenStream,
    head: &Parts,
    body: &mut Outbound,
) -> Result<Response<ResponseBody>, Failure> {
    let timeouts = &link.endpoint.destination.timeouts;
    let upload = body.progress();
    let (lent, loan) = body.lend();
    let mut request = Request::from_parts(head.clone(), lent);
    shape_h2(&mut request, link);
    let mut uploaded = 0;
    let mut answer = std::pin::pin!(sender.try_send_request(request));
    let result = loop {
        if let Ok(result) = tokio::time::timeout(timeouts.response, answer.as_mut()).await {
            break result;
        }
        // While a body moves it is the app that takes its time. One that stands still has a limit of its own.
        match &upload {
            Some(upload) if upload.bytes() > uploaded => uploaded = upload.bytes(),
            _ => {
                // A firewall may have forgotten the connections: whoever comes next must not wait on them as well.
                retire(link, |_| false);
                return Err(Error::ResponseTimeout(timeouts.response).into());
            }
        }
    };
    match result {
        Ok(mut response) => {
            if let Some(loan) = loan {
                loan.forget();
            }
            let limits = link.endpoint.destination.response_fields;
            if let Some(wrong) = unreadable::of_h2(response.headers(), limits) {
                let unreadable = Unreadable::new(wrong, &link.target.host, &link.endpoint);
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
                Some(Again::Unprocessed)
            } else {
                Again::of(&error, head)
            };
            if again == Some(Again::Unprocessed) {
                // Whoever comes next would be refused as well.
                retire(link, |shared| !Arc::ptr_eq(&shared.link, link));
            }
            let is_body_there = loan.is_none_or(|loan| loan.take_back().map(|back| *body = back).is_some());
            let error = match Error::of_hyper(error, &link.target.host, &link.endpoint) {
                // What TLS refuses it will refuse again.
                error @ Error::Tls(_) => return Err(error.into()),
                Error::Incomplete(source) if again == Some(Again::Unprocessed) => Error::Unprocessed {
                    is_body_there,
                    source,
                },
                error => error,
            };
            Err(Failure {
                again: again.filter(|_| is_body_there),
                error,
            })
        }
    }
}

/// `:authority` instead of Host.
fn shape_h2(request: &mut Request<Outbound>, link: &Link) {
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = request
        .uri()
        .path_and_query()
        // Displayed, a path that is empty before its query gets the slash that it has to have.
        .and_then(|path| path.to_string().parse().ok())
        .or(Some(PathAndQuery::from_static("/")));
    parts.scheme = Some(match link.target.scheme {
        Scheme::Http => http::uri::Scheme::HTTP,
        Scheme::Https => http::uri::Scheme::HTTPS,
    });
    parts.authority = (link.authority.to_str().ok()).and_then(|text| text.parse().ok());
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

fn shelf_of<'p>(pool: &'p mut Pool, link: &Link) -> &'p mut Shelf {
    let targets = pool.entry(link.shelf).or_default();
    targets.entry(link.target.clone()).or_default()
}

/// A stream that HTTP/2 says was refused, or that began after the last one that a closing upstream looks at.
fn is_unprocessed(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        cause.is_remote()
            && (cause.is_go_away() || cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// A connection reset or a broken pipe: what a peer's close looks like when it crosses our request.
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

/// Addresses change behind a name: a connection is not used for longer than this, give or take a sweep.
const MOST_AGE: Duration = Duration::from_secs(300);
/// Common servers close an idle connection after 60 to 75 seconds; we go first.
const MOST_IDLE: Duration = Duration::from_secs(50);
const MOST_IDLE_CONNECTIONS: usize = 512;
/// How often each worker calls [`sweep`].
pub(crate) const SWEEP: Duration = Duration::from_secs(5);
/// How late a sweep may come.
const LATE: Duration = Duration::from_secs(1);
const MOST_LEARNED: usize = 10_000;
const MOST_STREAMS: usize = 100;

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

//! Connections that wait for their next request.
//!
//! Each worker thread has its own pool: no lock, and a connection never leaves the thread that drives it. A shelf is
//! named by the endpoint (destination, identity, trust: see [`super::Endpoint`]), what was offered by ALPN, and the
//! target (scheme, host, port): the whole of what may tell two connections apart. HTTP/1.1 connections are taken last in,
//! first out; HTTP/2 connections are shared.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, Response, Version};
use hyper::client::conn::{http1, http2};
use tokio::time::Instant;

use super::body::{Outbound, Progress, ResponseBody};
use super::{Endpoint, Error, Mirror, tls};
use crate::host::{Scheme, Target};

/// The endpoint's id and what was offered by ALPN.
type ShelfName = (u64, tls::Alpn);

/// Looked up for every request; the hash is seeded anew in each process.
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

thread_local! {
    static LEARNED: RefCell<Map<ShelfName, Map<Target, Mirror>>> = RefCell::default();
    static POOL: RefCell<Map<ShelfName, Map<Target, Shelf>>> = RefCell::default();
}

/// The connections to one target under one identity.
#[derive(Debug, Default)]
struct Shelf {
    idle: Vec<Idle>,
    shared: Vec<Shared>,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<Outbound>,
    link: Arc<Link>,
    since: Instant,
}

#[derive(Clone, Debug)]
struct Shared {
    sender: http2::SendRequest<Outbound>,
    link: Arc<Link>,
    streams: Arc<AtomicUsize>,
}

/// What stays the same for the life of a connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) shelf: ShelfName,
    pub(super) target: Target,
    /// The target as a Host field or `:authority` names it.
    pub(super) authority: HeaderValue,
    pub(super) born: Instant,
    pub(super) endpoint: Arc<Endpoint>,
}

/// A connection that is in use for one request.
#[derive(Debug)]
pub(crate) struct Lease {
    link: Arc<Link>,
    sender: Sender,
    upload: Option<Arc<Progress>>,
}

#[derive(Debug)]
enum Sender {
    H1(http1::SendRequest<Outbound>),
    H2 {
        sender: http2::SendRequest<Outbound>,
        _stream: Stream,
    },
}

/// One of the streams of a shared connection; counted while it is open.
#[derive(Debug)]
struct Stream(Arc<AtomicUsize>);

/// A request that got no response head.
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) lost: Lost,
}

/// What a failure says about a request that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It may have been processed, and an answer was under way.
    Answered,
    /// The connection died without a byte of an answer.
    Stale,
    /// The upstream says that it has not been processed (RFC 9113 section 8.7).
    Unprocessed,
}

impl Lost {
    /// Whether a request of this method, with nothing to read twice, may be sent again (RFC 9110 section 9.2.2).
    pub(super) fn is_replayable(self, method: &Method) -> bool {
        match self {
            Self::Answered => false,
            Self::Stale => method.is_idempotent(),
            Self::Unprocessed => true,
        }
    }

    fn of(error: &hyper::Error) -> Self {
        if is_unprocessed(error) {
            Self::Unprocessed
        } else if error.is_closed() || error.is_incomplete_message() || error.is_canceled() || is_reset(error)
        {
            Self::Stale
        } else {
            Self::Answered
        }
    }
}

/// A connection that could carry a request to `target` at once, the most recently used first.
pub(super) async fn take(name: ShelfName, target: &Target) -> Option<Lease> {
    loop {
        match take_any(name, target)? {
            (link, Sender::H1(mut sender)) => {
                // Not ready yet: the last answer has been read, but the connection has not looked round since.
                if !sender.is_ready() && sender.ready().await.is_err() {
                    continue;
                }
                return Some(Lease {
                    link,
                    sender: Sender::H1(sender),
                    upload: None,
                });
            }
            (link, sender) => {
                return Some(Lease {
                    link,
                    sender,
                    upload: None,
                });
            }
        }
    }
}

fn take_any(name: ShelfName, target: &Target) -> Option<(Arc<Link>, Sender)> {
    POOL.with_borrow_mut(|pool| {
        let shelf = pool.get_mut(&name)?.get_mut(target)?;
        while let Some(Idle { sender, link, .. }) = shelf.idle.pop() {
            if !sender.is_closed() {
                return Some((link, Sender::H1(sender)));
            }
        }
        shelf.shared.retain(|shared| !shared.sender.is_closed());
        let now = Instant::now();
        let shared = shelf.shared.iter().find(|shared| {
            shared.streams.load(Ordering::Relaxed) < MOST_STREAMS
                && now.duration_since(shared.link.born) < MOST_AGE
        })?;
        Some((
            Arc::clone(&shared.link),
            Sender::H2 {
                sender: shared.sender.clone(),
                _stream: Stream::open(&shared.streams),
            },
        ))
    })
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

/// Gives the shared connections to `target` no more requests; those under way go on.
pub(super) fn retire(name: ShelfName, target: &Target) {
    POOL.with_borrow_mut(|pool| {
        if let Some(shelf) = pool.get_mut(&name).and_then(|targets| targets.get_mut(target)) {
            shelf.shared.clear();
        }
    });
}

/// Closes what has been idle for too long, is too old, or belongs to an endpoint that is gone.
pub(crate) fn sweep(is_live: impl Fn(u64) -> bool) {
    let now = Instant::now();
    LEARNED.with_borrow_mut(|learned| learned.retain(|(endpoint, _), _| is_live(*endpoint)));
    POOL.with_borrow_mut(|pool| {
        pool.retain(|(endpoint, _), targets| {
            targets.retain(|_, shelf| {
                shelf.idle.retain(|idle| {
                    !idle.sender.is_closed()
                        && now.duration_since(idle.since) < MOST_IDLE
                        && now.duration_since(idle.link.born) < MOST_AGE
                });
                shelf.shared.retain(|shared| {
                    let quiet = shared.streams.load(Ordering::Relaxed) == 0;
                    !(shared.sender.is_closed() || quiet && now.duration_since(shared.link.born) > MOST_AGE)
                });
                !shelf.idle.is_empty() || !shelf.shared.is_empty()
            });
            is_live(*endpoint) && !targets.is_empty()
        });
    });
}

impl Lease {
    pub(super) fn h1(link: Link, sender: http1::SendRequest<Outbound>) -> Self {
        Self {
            link: Arc::new(link),
            sender: Sender::H1(sender),
            upload: None,
        }
    }

    /// A new HTTP/2 connection: others may share it from now on.
    pub(super) fn h2(link: Link, sender: http2::SendRequest<Outbound>) -> Self {
        let link = Arc::new(link);
        let streams = Arc::new(AtomicUsize::new(0));
        let stream = Stream::open(&streams);
        let shared = Shared {
            sender: sender.clone(),
            link: Arc::clone(&link),
            streams,
        };
        with_shelf(&link, |shelf| shelf.shared.push(shared));
        Self {
            link,
            sender: Sender::H2 {
                sender,
                _stream: stream,
            },
            upload: None,
        }
    }

    pub(super) fn mirror(&self) -> Mirror {
        match &self.sender {
            Sender::H1(_) => Mirror::H1,
            Sender::H2 { .. } => Mirror::H2,
        }
    }

    /// Sends one request and waits for the head of its answer. What the connection never took is put back.
    pub(super) async fn send(
        mut self,
        request: &mut Option<Request<Outbound>>,
    ) -> Result<Response<ResponseBody>, Failure> {
        // Callers give a request; without one there is nothing that could be answered.
        let Some(mut first) = request.take() else {
            return Err(Failure {
                error: Error::Version,
                lost: Lost::Answered,
            });
        };
        self.upload = first.body().progress();
        self.shape(&mut first);
        let result = match &mut self.sender {
            Sender::H1(sender) => sender.try_send_request(first).await,
            Sender::H2 { sender, .. } => sender.try_send_request(first).await,
        };
        match result {
            Ok(response) => {
                let patience = self.link.endpoint.destination.timeouts.idle;
                Ok(response.map(|incoming| ResponseBody::new(incoming, self, patience)))
            }
            Err(mut failure) => {
                *request = failure.take_message();
                let error = failure.into_error();
                let lost = Lost::of(&error);
                let error = Error::of_hyper(error, &self.link.target.host, &self.link.endpoint);
                let lost = if matches!(error, Error::Tls(_)) {
                    Lost::Answered
                } else {
                    lost
                };
                Err(Failure { error, lost })
            }
        }
    }

    /// Gives the request the form that the connection's protocol wants: origin-form and Host, or `:authority`.
    fn shape(&self, request: &mut Request<Outbound>) {
        match &self.sender {
            Sender::H1(_) => {
                let path = request.uri().path_and_query().cloned();
                *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
                *request.version_mut() = Version::HTTP_11;
                request
                    .headers_mut()
                    .insert(header::HOST, self.link.authority.clone());
            }
            Sender::H2 { .. } => {
                let mut parts = http::uri::Parts::default();
                parts.path_and_query = request
                    .uri()
                    .path_and_query()
                    .cloned()
                    .or(Some(PathAndQuery::from_static("/")));
                parts.scheme = Some(match self.link.target.scheme {
                    Scheme::Http => http::uri::Scheme::HTTP,
                    Scheme::Https => http::uri::Scheme::HTTPS,
                });
                parts.authority = self
                    .link
                    .authority
                    .to_str()
                    .ok()
                    .and_then(|text| text.parse().ok());
                if let Ok(uri) = Uri::from_parts(parts) {
                    *request.uri_mut() = uri;
                }
                *request.version_mut() = Version::HTTP_2;
                request.headers_mut().remove(header::HOST);
            }
        }
    }

    /// The answer has been read to its end: the connection waits for its next request.
    pub(super) fn give_back(self) {
        // A request that is still being sent would be the next one's beginning.
        if self.upload.is_some_and(|upload| !upload.is_done()) {
            return;
        }
        let now = Instant::now();
        if now.duration_since(self.link.born) > MOST_AGE {
            return;
        }
        if let Sender::H1(sender) = self.sender {
            let link = self.link;
            let idle = Idle {
                sender,
                link: Arc::clone(&link),
                since: now,
            };
            with_shelf(&link, |shelf| {
                if shelf.idle.len() < MOST_IDLE_CONNECTIONS {
                    shelf.idle.push(idle);
                }
            });
        }
    }
}

impl Stream {
    fn open(streams: &Arc<AtomicUsize>) -> Self {
        streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(streams))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn with_shelf(link: &Link, put: impl FnOnce(&mut Shelf)) {
    POOL.with_borrow_mut(|pool| {
        let targets = pool.entry(link.shelf).or_default();
        // The common case first: the target is cloned once for a shelf, not for each request.
        if let Some(shelf) = targets.get_mut(&link.target) {
            return put(shelf);
        }
        let shelf = targets.entry(link.target.clone()).or_default();
        put(shelf);
    });
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

/// Addresses change behind a name: a connection is not used for longer than this.
const MOST_AGE: Duration = Duration::from_secs(300);
/// Common servers close an idle connection after 60 to 75 seconds; we go first.
const MOST_IDLE: Duration = Duration::from_secs(50);
const MOST_IDLE_CONNECTIONS: usize = 512;
const MOST_LEARNED: usize = 10_000;
const MOST_STREAMS: usize = 100;

//! Sends requests to upstreams, and opens connections for tunnels.
//!
//! [`send`] takes an idle connection from the worker's [`pool`] or makes one: resolve → approve → dial → TLS.
//! An [`Endpoint`] is the run-time part of a destination on this side: its TLS settings and its counters. Its `id` is part
//! of every pool key, so a connection made for one identity never carries a request of another one. When certificates,
//! trust or allowed addresses change, a new endpoint with a new id is made; the connections of the old one finish the
//! requests that they carry, and close.
//!
//! Which requests may be sent, and with which credential, is decided in `proxy` and `auth`.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

pub(crate) use body::{Incoming, Outbound, ResponseBody};
pub(crate) use bound::BoundConnections;
pub(crate) use error::Error;
pub(crate) use multiplexed_body::MultiplexedBody;

use self::parent::{ParentSettingsError, Parents};
use self::pool::{AttemptFailed, ResendReason};
use crate::config::HttpVersion;
use crate::host::Target;
use crate::message::{RequestHead, Response};
use crate::policy::{Destination, EgressRules, ParentPlan};
use crate::telemetry::Counters;

pub(crate) mod body;
mod bound;
pub(crate) mod breaker;
mod buffered;
pub(crate) mod connect;
pub(crate) mod dial;
pub(crate) mod error;
mod http10;
mod idle;
pub(crate) mod link;
mod multiplexed_body;
pub(crate) mod parent;
pub(crate) mod pool;
mod read_to_end;
mod reclaim;
pub(crate) mod resolve;
pub(crate) mod service;
mod streamed;
pub(crate) mod sweeper;
pub(crate) mod tls;
pub(crate) mod unreadable;

/// How many new connections may refuse to process a request before it fails.
const MOST_REFUSALS: u32 = 3;

/// A map with a fast hash, because it is looked up for every request. Its seed is new in each process.
type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The run-time part of a destination on the upstream side.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Never used twice in one process: it separates the connections of different identities.
    id: u64,
    pub(crate) destination: Arc<Destination>,
    pub(crate) counters: Arc<Counters>,
    old: http10::Http10Targets,
    /// `Ok(None)`: its targets are reached directly. Where its parents cannot be used, they are not reached at all.
    parents: Result<Option<Arc<Parents>>, Arc<ParentSettingsError>>,
    /// An unreadable certificate, key or authority refuses requests over TLS; it does not stop the others.
    tls: Result<Arc<tls::Settings>, Arc<tls::SettingsError>>,
}

/// The resolver and the egress rules: what is needed to dial.
#[derive(Clone, Copy)]
pub(crate) struct DialContext<'p> {
    pub(crate) resolver: &'p resolve::Resolver,
    pub(crate) egress: &'p EgressRules,
}

/// The protocol that the app speaks to us, or that an upstream speaks. By default an upstream gets the app's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// An absolute-form request, or HTTP/1.1 inside an intercepted tunnel.
    H1,
    /// HTTP/2 inside an intercepted tunnel, over TLS or in clear.
    H2,
}

impl Endpoint {
    pub(crate) fn new(
        destination: Arc<Destination>,
        counters: Arc<Counters>,
        tls: Result<tls::Settings, Arc<tls::SettingsError>>,
    ) -> Self {
        Self {
            id: next_id(),
            destination,
            counters,
            old: http10::Http10Targets::default(),
            parents: Ok(None),
            tls: tls.map(Arc::new),
        }
    }

    /// Puts its targets behind parents.
    pub(crate) fn behind(self, parents: Result<Option<Arc<Parents>>, Arc<ParentSettingsError>>) -> Self {
        Self { parents, ..self }
    }

    /// Returns the same endpoint with another id, so that it shares no connections.
    pub(crate) fn sibling(&self) -> Self {
        Self {
            id: next_id(),
            destination: Arc::clone(&self.destination),
            counters: Arc::clone(&self.counters),
            old: http10::Http10Targets::default(),
            parents: self.parents.clone(),
            tls: self.tls.clone(),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Whether `target` speaks HTTP/1.0, as far as is known.
    pub(crate) fn is_old(&self, target: &Target) -> bool {
        self.old.has(target)
    }

    /// Returns the parents, or why they could not be made.
    pub(crate) fn parents(&self) -> Result<Option<&Arc<Parents>>, &Arc<ParentSettingsError>> {
        self.parents.as_ref().map(Option::as_ref)
    }

    /// Returns the parents that `target` is reached through. `None`: it is reached directly.
    fn parents_of(&self, target: &Target) -> Result<Option<&Arc<Parents>>, Error> {
        let is_direct = |plan: &ParentPlan| plan.bypasses(target);
        match &self.parents {
            Ok(None) => Ok(None),
            _ if self.destination.parent.as_deref().is_some_and(is_direct) => Ok(None),
            Ok(parents) => Ok(parents.as_ref()),
            Err(error) => Err(Error::ParentSettings(Arc::clone(error))),
        }
    }

    /// Returns the TLS settings, or why they could not be made.
    pub(crate) fn tls(&self) -> Result<&tls::Settings, Error> {
        self.tls
            .as_deref()
            .map_err(|error| Error::Settings(Arc::clone(error)))
    }

    /// Returns the pool key for an app that speaks `protocol`: with what is offered by ALPN. An upstream that was found to
    /// speak only HTTP/1.1 shares the key of connections that offer nothing else.
    fn pool_key(&self, protocol: Protocol, target: &Target) -> (u64, tls::Alpn) {
        let name = (self.id, self.alpn(protocol));
        match name.1 {
            tls::Alpn::Either if pool::learned(name, target) == Some(Protocol::H1) => {
                (self.id, tls::Alpn::H1)
            }
            tls::Alpn::H1 | tls::Alpn::H2 | tls::Alpn::Either => name,
        }
    }

    /// Returns what we offer by ALPN for an app that speaks `protocol`.
    fn alpn(&self, protocol: Protocol) -> tls::Alpn {
        match (self.destination.http, protocol) {
            (HttpVersion::H1, _) | (HttpVersion::Auto, Protocol::H1) => tls::Alpn::H1,
            (HttpVersion::H2, _) => tls::Alpn::H2,
            (HttpVersion::Auto, Protocol::H2) => tls::Alpn::Either,
        }
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Observes a request until its final answer.
pub(crate) trait RequestObserver {
    /// The first byte of the request is about to be written.
    fn begins(&self);

    /// An interim answer has come (RFC 9110 section 15.2).
    fn interim(&self, response: Response<()>);
}

/// Observes nothing.
impl RequestObserver for () {
    fn begins(&self) {}

    fn interim(&self, _: Response<()>) {}
}

/// A request that got no answer.
#[derive(Debug)]
pub(crate) struct RequestFailed {
    pub(crate) error: Error,
    /// No connection could be made, so nothing of the request was sent.
    pub(crate) is_unsent: bool,
}

impl From<Error> for RequestFailed {
    fn from(error: Error) -> Self {
        let is_unsent = false;
        Self { error, is_unsent }
    }
}

/// Whether a request may be sent twice: its method is idempotent (RFC 9110 section 9.2.2), or it has a key by which the
/// upstream recognizes it (draft-ietf-httpapi-idempotency-key-header).
pub(crate) fn is_repeatable(head: &RequestHead) -> bool {
    head.method.is_idempotent()
        || (head.headers.get("idempotency-key")).is_some_and(|key| !key.as_bytes().trim_ascii().is_empty())
}

/// Sends one request to `target` and returns once the response head is in.
///
/// The caller has removed the hop-by-hop fields of `head`. Two kinds of requests are sent again, if their body is still
/// there: a repeatable request whose pooled connection ended before a byte of an answer came, once and on a new connection;
/// and a request that was certainly not processed, because it was not written or the upstream says so (RFC 9113 section
/// 8.7), a few times. Afterwards `body` is unchanged if it is buffered or nothing was processed.
pub(crate) async fn send(
    head: &RequestHead,
    body: &mut Outbound,
    target: &Target,
    protocol: Protocol,
    endpoint: &Arc<Endpoint>,
    network: DialContext<'_>,
    observer: &impl RequestObserver,
) -> Result<Response<ResponseBody>, RequestFailed> {
    if let Some(bound) = head.extensions.get::<Arc<BoundConnections>>() {
        // Boxed: few requests are bound to a connection.
        return Box::pin(bound::send(
            bound, head, body, target, endpoint, network, observer,
        ))
        .await;
    }
    let key = endpoint.pool_key(protocol, target);
    if let Some(active) = poll_fn(|cx| Poll::Ready(pool::take(key, target, cx))).await {
        endpoint.counters.upstream_reuse();
        observer.begins();
        match active.send(head, body, observer).await {
            Ok(response) => return Ok(response),
            // The other idle connections are likely dead too, so the second try gets a new one.
            Err(AttemptFailed {
                again: Some(again), ..
            }) => endpoint.counters.retry(again.as_str()),
            Err(failure) => return Err(failure.error.into()),
        }
    }
    // Boxed: only requests that need a new connection pay for its state.
    Box::pin(async {
        let mut refusals = 0;
        loop {
            let active = connect::connect(target, protocol, endpoint, network)
                .await
                .map_err(|error| RequestFailed {
                    error,
                    is_unsent: true,
                })?;
            observer.begins();
            match active.send(head, body, observer).await {
                Err(AttemptFailed {
                    again: Some(again @ ResendReason::Unprocessed),
                    ..
                }) if refusals < MOST_REFUSALS => endpoint.counters.retry(again.as_str()),
                result => return result.map_err(|failure| failure.error.into()),
            }
            refusals += 1;
        }
    })
    .await
}

/// Returns what the upstream of an intercepted tunnel speaks, if that is configured or was learned before.
pub(crate) fn known(target: &Target, endpoint: &Endpoint) -> Option<Protocol> {
    match endpoint.destination.http {
        HttpVersion::H1 => Some(Protocol::H1),
        HttpVersion::H2 => Some(Protocol::H2),
        HttpVersion::Auto => pool::learned((endpoint.id, tls::Alpn::Either), target),
    }
}

/// Finds out what the upstream of an intercepted tunnel speaks, by connecting if necessary, so that the app can be offered
/// the same.
pub(crate) async fn learn(
    target: &Target,
    endpoint: &Arc<Endpoint>,
    network: DialContext<'_>,
) -> Result<Protocol, Error> {
    if let Some(protocol) = known(target, endpoint) {
        return Ok(protocol);
    }
    let active = Box::pin(connect::connect(target, Protocol::H2, endpoint, network)).await?;
    let protocol = active.protocol();
    pool::learn((endpoint.id, tls::Alpn::Either), target, protocol);
    active.give_back();
    Ok(protocol)
}

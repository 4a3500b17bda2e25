//! How we get there: one request to one destination, or one open connection for a tunnel.
//!
//! [`send`] takes a warm connection from the worker's [`pool`] or makes one: resolve → approve → dial → TLS.
//! An [`Endpoint`] is what is alive of one destination on this side: its TLS settings and the handles that count.
//! Its `id` is part of every pool key, so a connection made for one identity can never carry another's request:
//! when certificates, trust or addresses-to-be change, a new endpoint with a new id takes over and the
//! connections of the old one finish what they carry and close.
//!
//! What may be sent and with which credential is decided above, in `proxy` and `auth`.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use http::{Response, request};

pub(crate) use body::{Incoming, Outbound, ResponseBody};
pub(crate) use bond::Bond;
pub(crate) use error::Error;

use self::pool::{Again, Failure};
use crate::config::HttpVersion;
use crate::host::Target;
use crate::policy::{Destination, Egress};
use crate::telemetry::Counters;

pub(crate) mod body;
mod bond;
pub(crate) mod breaker;
pub(crate) mod connect;
pub(crate) mod dial;
pub(crate) mod error;
mod loan;
mod old;
mod patience;
pub(crate) mod pool;
mod read_to_end;
pub(crate) mod resolve;
mod streamed;
pub(crate) mod tls;
pub(crate) mod unreadable;
mod whole;

/// What is alive of one destination on the upstream side.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Never used twice in one process: it separates the connections of different identities.
    id: u64,
    pub(crate) destination: Arc<Destination>,
    pub(crate) counters: Arc<Counters>,
    old: old::Old,
    /// An unreadable certificate, key or authority refuses requests over TLS; it does not stop the others.
    tls: Result<Arc<tls::Settings>, Arc<tls::SettingsError>>,
}

/// Where and how to dial: the parts of the running proxy that the upstream side needs.
#[derive(Clone, Copy)]
pub(crate) struct Ways<'p> {
    pub(crate) resolver: &'p resolve::Resolver,
    pub(crate) egress: &'p Egress,
}

/// Which protocol the app speaks to us; an upstream connection mirrors it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mirror {
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
            old: old::Old::default(),
            tls: tls.map(Arc::new),
        }
    }

    /// The same with connections of its own.
    pub(crate) fn sibling(&self) -> Self {
        Self {
            id: next_id(),
            destination: Arc::clone(&self.destination),
            counters: Arc::clone(&self.counters),
            old: old::Old::default(),
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

    /// The TLS settings, or why there are none.
    pub(crate) fn tls(&self) -> Result<&tls::Settings, Error> {
        self.tls
            .as_deref()
            .map_err(|error| Error::Settings(Arc::clone(error)))
    }

    /// Where the connections for an app that speaks `mirror` wait: under what was offered to the upstream, or, where it
    /// was found to speak only HTTP/1.1, with those that offered nothing else.
    fn shelf(&self, mirror: Mirror, target: &Target) -> (u64, tls::Alpn) {
        let name = (self.id, self.alpn(mirror));
        match name.1 {
            tls::Alpn::Either if pool::learned(name, target) == Some(Mirror::H1) => (self.id, tls::Alpn::H1),
            tls::Alpn::H1 | tls::Alpn::H2 | tls::Alpn::Either => name,
        }
    }

    /// What we offer the upstream by ALPN for an app that speaks `mirror`.
    fn alpn(&self, mirror: Mirror) -> tls::Alpn {
        match (self.destination.http, mirror) {
            (HttpVersion::H1, _) | (HttpVersion::Auto, Mirror::H1) => tls::Alpn::H1,
            (HttpVersion::H2, _) => tls::Alpn::H2,
            (HttpVersion::Auto, Mirror::H2) => tls::Alpn::Either,
        }
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Who hears what becomes of a request before its answer.
pub(crate) trait Witness {
    /// The first byte of the request is about to be written.
    fn begins(&self);

    /// An interim answer has come (RFC 9110 section 15.2).
    fn interim(&self, response: Response<()>);
}

/// Nobody.
impl Witness for () {
    fn begins(&self) {}

    fn interim(&self, _: Response<()>) {}
}

/// A request that got no answer.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// No connection could be made: nothing of the request was sent.
    pub(crate) is_unsent: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let is_unsent = false;
        Self { error, is_unsent }
    }
}

/// Whether a request means the same when it is sent twice: by its method (RFC 9110 section 9.2.2), or because it has a
/// key by which the upstream knows it again (draft-ietf-httpapi-idempotency-key-header).
pub(crate) fn is_repeatable(head: &request::Parts) -> bool {
    head.method.is_idempotent()
        || (head.headers.get("idempotency-key")).is_some_and(|key| !key.as_bytes().trim_ascii().is_empty())
}

/// Sends one request to `target` and returns once the response head is in.
///
/// The hop-by-hop fields of `head` are gone. Two things are sent again, where the body can be had again: a repeatable
/// request that a pooled connection lost before a byte of an answer came, once and on a new connection; and every request
/// that was certainly not processed, because it was not written or the upstream says so (RFC 9113 section 8.7), a few
/// times. Afterwards `body` is what it was where it is whole or nothing was processed.
pub(crate) async fn send(
    head: &request::Parts,
    body: &mut Outbound,
    target: &Target,
    mirror: Mirror,
    endpoint: &Arc<Endpoint>,
    ways: Ways<'_>,
    witness: &impl Witness,
) -> Result<Response<ResponseBody>, Failed> {
    if let Some(bond) = head.extensions.get::<Arc<Bond>>() {
        // Boxed: few requests come here.
        return Box::pin(bond::send(bond, head, body, target, endpoint, ways, witness)).await;
    }
    let shelf = endpoint.shelf(mirror, target);
    if let Some(lease) = poll_fn(|cx| Poll::Ready(pool::take(shelf, target, cx))).await {
        endpoint.counters.upstream_reuse();
        witness.begins();
        match lease.send(head, body, witness).await {
            Ok(response) => return Ok(response),
            // Its neighbours in the pool are likely dead too: the second try gets a new connection.
            Err(Failure {
                again: Some(again), ..
            }) => endpoint.counters.retry(again.as_str()),
            Err(failure) => return Err(failure.error.into()),
        }
    }
    // Boxed: what only a new connection needs is not carried by every request.
    Box::pin(async {
        let mut refusals = 0;
        loop {
            let lease = connect::connect(target, mirror, endpoint, ways)
                .await
                .map_err(|error| Failed {
                    error,
                    is_unsent: true,
                })?;
            witness.begins();
            match lease.send(head, body, witness).await {
                Err(Failure {
                    again: Some(again @ Again::Unprocessed),
                    ..
                }) if refusals < MOST_REFUSALS => endpoint.counters.retry(again.as_str()),
                result => return result.map_err(|failure| failure.error.into()),
            }
            refusals += 1;
        }
    })
    .await
}

/// What the upstream of an intercepted tunnel speaks, where that is configured or was learned before.
pub(crate) fn known(target: &Target, endpoint: &Endpoint) -> Option<Mirror> {
    match endpoint.destination.http {
        HttpVersion::H1 => Some(Mirror::H1),
        HttpVersion::H2 => Some(Mirror::H2),
        HttpVersion::Auto => pool::learned((endpoint.id, tls::Alpn::Either), target),
    }
}

/// Learns, by connecting once if need be, what the upstream of an intercepted tunnel speaks, so that the app can be
/// offered the same.
pub(crate) async fn learn(
    target: &Target,
    endpoint: &Arc<Endpoint>,
    ways: Ways<'_>,
) -> Result<Mirror, Error> {
    if let Some(mirror) = known(target, endpoint) {
        return Ok(mirror);
    }
    let lease = Box::pin(connect::connect(target, Mirror::H2, endpoint, ways)).await?;
    let mirror = lease.mirror();
    pool::learn((endpoint.id, tls::Alpn::Either), target, mirror);
    lease.give_back();
    Ok(mirror)
}

/// By new connections in a row, of one request that they did not process.
const MOST_REFUSALS: u32 = 3;

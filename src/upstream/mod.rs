//! How we get there: one request to one destination, or one open connection for a tunnel.
//!
//! [`send`] takes a warm connection from the worker's [`pool`] or makes one: resolve → approve → dial → TLS.
//! An [`Endpoint`] is what is alive of one destination on this side: its TLS settings and the handles that count.
//! Its `id` is part of every pool key, so a connection made for one identity can never carry another's request:
//! when certificates, trust or addresses-to-be change, a new endpoint with a new id takes over and the
//! connections of the old one finish what they carry and close.
//!
//! What may be sent and with which credential is decided above, in `proxy` and `auth`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Request, Response};

pub(crate) use body::{Outbound, ResponseBody};
pub(crate) use error::Error;

use crate::config::HttpVersion;
use crate::host::Target;
use crate::policy::{Destination, Egress};
use crate::telemetry::Counters;

pub(crate) mod body;
pub(crate) mod connect;
pub(crate) mod dial;
pub(crate) mod error;
pub(crate) mod pool;
pub(crate) mod resolve;
pub(crate) mod tls;

/// What is alive of one destination on the upstream side.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Never used twice in one process: it separates the connections of different identities.
    id: u64,
    pub(crate) destination: Arc<Destination>,
    pub(crate) counters: Arc<Counters>,
    /// An unreadable certificate, key or authority refuses requests over TLS; it does not stop the others.
    tls: Result<tls::Settings, Arc<tls::SettingsError>>,
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
    H2,
}

impl Endpoint {
    pub(crate) fn new(
        destination: Arc<Destination>,
        counters: Arc<Counters>,
        tls: Result<tls::Settings, Arc<tls::SettingsError>>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            destination,
            counters,
            tls,
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The TLS settings, or why there are none.
    pub(crate) fn tls(&self) -> Result<&tls::Settings, Error> {
        self.tls
            .as_ref()
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

/// Sends one request to `target` and returns once the response head is in.
///
/// `request` is taken; it travels by reference because every step that held it by value would make every exchange's
/// future larger. Its hop-by-hop fields are gone. A request that a pooled connection lost before a byte of an answer came
/// is sent once more on a new connection, if it is safe: when none of it was written; or when there is no body, and the
/// method is idempotent or the upstream says that it has not processed it.
pub(crate) async fn send(
    request: &mut Option<Request<Outbound>>,
    target: &Target,
    mirror: Mirror,
    endpoint: &Arc<Endpoint>,
    ways: Ways<'_>,
) -> Result<Response<ResponseBody>, Error> {
    let limit = endpoint.destination.timeouts.response;
    let upload = request.as_ref().and_then(|request| request.body().progress());
    let mut uploaded = 0;
    let mut attempt = std::pin::pin!(attempt(request, target, mirror, endpoint, ways));
    loop {
        if let Ok(result) = tokio::time::timeout(limit, attempt.as_mut()).await {
            return result;
        }
        // While a body moves it is the app that takes its time. One that stands still has a limit of its own.
        match &upload {
            Some(upload) if upload.bytes() > uploaded => uploaded = upload.bytes(),
            _ => {
                // A firewall may have forgotten the connection: whoever comes next must not wait on it as well.
                pool::retire(endpoint.shelf(mirror, target), target);
                return Err(Error::ResponseTimeout(limit));
            }
        }
    }
}

async fn attempt(
    request: &mut Option<Request<Outbound>>,
    target: &Target,
    mirror: Mirror,
    endpoint: &Arc<Endpoint>,
    ways: Ways<'_>,
) -> Result<Response<ResponseBody>, Error> {
    let shelf = endpoint.shelf(mirror, target);
    if let Some(lease) = pool::take(shelf, target).await {
        endpoint.counters.upstream_reuse();
        // Nothing of this copy is needed unless the connection turns out to be dead.
        let spare = request
            .as_ref()
            .filter(|request| request.body().is_empty())
            .map(copy_of);
        match lease.send(request).await {
            Ok(response) => return Ok(response),
            Err(failure) => {
                if request.is_none() {
                    *request = spare.filter(|spare| failure.lost.is_replayable(spare.method()));
                }
                if request.is_none() {
                    return Err(failure.error);
                }
                // Its neighbours in the pool are likely dead too: the second try gets a new connection.
            }
        }
    }
    // Boxed, here and below: what only a new connection needs is not carried by every request.
    Box::pin(async {
        let lease = connect::connect(target, mirror, endpoint, ways).await?;
        lease.send(request).await.map_err(|failure| failure.error)
    })
    .await
}

/// Learns, by connecting once if need be, what the upstream of an intercepted tunnel speaks, so that the app can be
/// offered the same.
pub(crate) async fn learn(
    target: &Target,
    endpoint: &Arc<Endpoint>,
    ways: Ways<'_>,
) -> Result<Mirror, Error> {
    match endpoint.destination.http {
        HttpVersion::H1 => return Ok(Mirror::H1),
        HttpVersion::H2 => return Ok(Mirror::H2),
        HttpVersion::Auto => {}
    }
    let name = (endpoint.id, tls::Alpn::Either);
    if let Some(mirror) = pool::learned(name, target) {
        return Ok(mirror);
    }
    let lease = Box::pin(connect::connect(target, Mirror::H2, endpoint, ways)).await?;
    let mirror = lease.mirror();
    pool::learn(name, target, mirror);
    lease.give_back();
    Ok(mirror)
}

fn copy_of(request: &Request<Outbound>) -> Request<Outbound> {
    let mut copy = Request::new(Outbound::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

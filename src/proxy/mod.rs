//! What happens to a request: target → verdict → one of three lives.
//!
//! [`handle`] answers every request of the app; whatever fails becomes an answer in [`reply`], the only place that
//! makes one. [`forward`] carries one HTTP exchange, [`tunnel`] joins two sockets, [`intercept`] ends the app's TLS and
//! gives each inner request to `forward`.
//!
//! What is allowed is decided in `policy`, what is attached in `auth`, how to get there in `upstream`.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;
use http::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use body::Body;
pub(crate) use clients::Clients;
pub(crate) use connection::serve_h1;
pub(crate) use error::Error;
pub(crate) use headers::Marks;
pub(crate) use live::{Live, Route};
pub(crate) use rehearse::Rehearsal;
pub(crate) use retry::Retrying;

use crate::drain::Drain;
use crate::host::Target;
use crate::http1::server;
use crate::policy::{Asked, Verdict};
use crate::stream::Io;
use crate::telemetry::{Exchange, Telemetry};
use crate::upstream::resolve::Resolver;
use crate::upstream::{BoundConnections, DialContext, Incoming, Protocol};

pub(crate) mod bench;

mod aside;
mod attempt;
mod body;
mod cache_status;
mod cached;
mod caller;
mod clients;
mod connection;
mod cookies;
mod error;
mod fetch;
mod forward;
mod headers;
mod intercept;
mod live;
mod rehearse;
mod reply;
mod retry;
mod scrub;
mod source;
mod splice;
mod tries;
mod tunnel;

/// The live parts that all workers share.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) clients: Clients,
    pub(crate) drain: Drain,
    /// Swapped whole by a reload; a request loads it once.
    pub(crate) live: ArcSwap<Live>,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) tunnels: AtomicUsize,
    pub(crate) marks: Marks,
}

/// Where a request goes, by the policy that it keeps to its end.
#[derive(Clone)]
struct Way {
    live: Arc<Live>,
    route: Arc<Route>,
}

/// What the app gets: a response, or the stream that it spoke HTTP on.
pub(crate) type Answer<T> = server::Handled<T, Body>;

/// Answers one request that came in through the listener.
pub(crate) async fn handle(
    mut request: Request<Option<Incoming>>,
    bond: Arc<BoundConnections>,
    proxy: Arc<Proxy>,
) -> Answer<Io> {
    let mut exchange = Exchange::begin(&proxy.telemetry, request.method(), request.uri());
    if let Err(error) = proxy.clients.check(request.headers()) {
        let is_connect = request.method() == Method::CONNECT;
        return Answer::Response(reply::refuse(&error, &mut exchange, is_connect));
    }
    if request.method() == Method::CONNECT {
        // Boxed: every request's future would be as large as this one.
        return Box::pin(connect(request, exchange, proxy)).await;
    }
    if headers::ends_here(&mut request) {
        return Answer::Response(reply::options(&mut exchange));
    }
    let result = match Target::of_absolute(request.uri()) {
        Ok(target) => match proxy.way(&target, &mut exchange) {
            Ok(way) => forward::run(request, &target, Protocol::H1, &way, &bond, &mut exchange, &proxy).await,
            Err(error) => Err(error),
        },
        Err(error) => Err(error.into()),
    };
    finish(result, exchange, |_| false)
}

/// What the app gets of a carried request. `is_over` says after which refusals its connection is closed.
fn finish<T>(
    result: Result<Response<body::Passing>, Error>,
    mut exchange: Box<Exchange>,
    is_over: impl Fn(&Error) -> bool,
) -> Answer<T>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let response = match result {
        Ok(response) => response,
        Err(error) => return Answer::Response(reply::refuse(&error, &mut exchange, is_over(&error))),
    };
    exchange.answered();
    let (parts, mut passing) = response.into_parts();
    match passing.upgraded.take() {
        None => Answer::Response(Response::from_parts(parts, Body::Passing(passing, exchange))),
        Some(upgraded) => Answer::Switch(
            Response::from_parts(parts, ()),
            Box::new(move |app, early| Box::pin(upgraded.join(app, early, passing, exchange))),
        ),
    }
}

/// What a CONNECT that was let through has become.
enum Opened {
    Intercept(intercept::Intercept),
    Tunnel(tunnel::Tunnel),
}

async fn connect(
    request: Request<Option<Incoming>>,
    mut exchange: Box<Exchange>,
    proxy: Arc<Proxy>,
) -> Answer<Io> {
    // Until it stands; from then on only what moves in it holds the end back.
    let busy = proxy.drain.busy();
    match open(&request, &mut exchange, &proxy).await {
        Ok(Opened::Intercept(intercept)) => intercept.start(exchange, proxy, busy),
        Ok(Opened::Tunnel(tunnel)) => tunnel.start(exchange, proxy, busy),
        Err(error) => Answer::Response(reply::refuse(&error, &mut exchange, true)),
    }
}

async fn open(
    request: &Request<Option<Incoming>>,
    exchange: &mut Exchange,
    proxy: &Arc<Proxy>,
) -> Result<Opened, Error> {
    headers::check_connect(request)?;
    let target = Target::of_connect(request.uri())?;
    let live = proxy.live.load_full();
    let (route, is_intercepted) = match live.policy.route(&target, Asked::Connect) {
        Verdict::Tunnel(destination) => (live.route(destination), false),
        Verdict::Forward(destination) | Verdict::Intercept(destination) => (live.route(destination), true),
        Verdict::Deny(destination, denial) => {
            exchange.set_destination(&live.route(destination).counters);
            return Err(denial.into());
        }
    };
    exchange.set_destination(&route.counters);
    if is_intercepted {
        intercept::open(target, route, proxy, &live).map(Opened::Intercept)
    } else {
        let tunnel = tunnel::open(&target, route, exchange, proxy, &live).await?;
        Ok(Opened::Tunnel(tunnel))
    }
}

impl Proxy {
    /// How the upstream side gets about, under the policy of `live`.
    fn ways<'a>(&'a self, live: &'a Live) -> DialContext<'a> {
        DialContext {
            resolver: &self.resolver,
            egress: &live.policy.egress,
        }
    }

    /// Where a request to `target` goes, under the policy of this moment.
    fn way(&self, target: &Target, exchange: &mut Exchange) -> Result<Way, Error> {
        let live = self.live.load_full();
        let (destination, denial) = match live.policy.route(target, Asked::Request) {
            Verdict::Forward(destination)
            | Verdict::Intercept(destination)
            | Verdict::Tunnel(destination) => (destination, None),
            Verdict::Deny(destination, denial) => (destination, Some(denial)),
        };
        let route = Arc::clone(live.route(destination));
        exchange.set_destination(&route.counters);
        match denial {
            None => Ok(Way { live, route }),
            Some(denial) => Err(denial.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a future is as large as, without making one.
    fn size<A, B, C, F: Future>(_: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Every connection of the app holds the future of its request for its whole life.
    #[test]
    fn the_future_of_a_request_stays_small() {
        let bytes = size(handle);
        assert!(bytes <= 3360, "{bytes} bytes");
    }
}

//! What happens to a request: target, verdict, then one of three paths.
//!
//! [`handle`] answers every request of the app. [`forward`] carries one HTTP exchange, [`tunnel`] joins two
//! sockets, [`intercept`] ends the app's TLS and gives each inner request to `forward`. Every failure becomes a
//! response in [`reply`], the only file where outrider makes a response.
//!
//! `policy` decides what is allowed, `auth` what is attached, `upstream` how to get there.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;
use http::Method;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use body::Body;
pub(crate) use error::Error;
pub(crate) use headers::LoopMarker;
pub(crate) use intercept::HeardClients;
pub(crate) use listener::serve_client;
pub(crate) use live::{Live, Route};
pub(crate) use rehearse::Rehearsal;
pub(crate) use retry::RetryPolicy;

use crate::clients::{Client, Shown};
use crate::drain::{Drain, ExchangeGuard};
use crate::host::Target;
use crate::http1::server::{self, Takeover};
use crate::message::{Request, Response};
use crate::policy::{RequestForm, Verdict};
use crate::stream::Io;
use crate::telemetry::{Exchange, ObservedRequest, Telemetry};
use crate::upstream::resolve::Resolver;
use crate::upstream::{BoundConnections, DialContext, Incoming, Protocol};

use admission::TunnelSender;

pub(crate) mod bench;

mod admission;
mod attempt;
mod body;
mod cache_status;
mod cached;
mod caller;
mod connection;
mod cookies;
mod earlier;
mod error;
mod fetch;
mod forward;
mod headers;
mod intercept;
mod listener;
mod live;
mod own;
mod placeholders;
mod rehearse;
mod reply;
mod reply_body;
mod retry;
pub(crate) mod route_service;
mod scrub;
mod socks;
mod splice;
pub(crate) mod tcp;
mod tries;
mod tunnel;
mod udp;

/// The parts of the running proxy that all workers share.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) drain: Drain,
    /// A reload replaces it as a whole. A request loads it once.
    pub(crate) live: ArcSwap<Live>,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) tunnels: AtomicUsize,
    pub(crate) loop_marker: LoopMarker,
    pub(crate) heard: HeardClients,
    /// We run around a command (`outrider exec`), whose variables are ours.
    pub(crate) is_around_command: bool,
}

/// The route of a request, with the policy snapshot that the request keeps to its end.
#[derive(Clone)]
struct Routed {
    live: Arc<Live>,
    route: Arc<Route>,
}

/// What the app gets: a response, or a switch to another protocol on the same stream.
pub(crate) type AppResponse<T> = server::Handled<T, Body>;

/// Answers one request from the listener.
pub(crate) async fn handle(
    mut request: Request<Option<Incoming>>,
    bond: Arc<BoundConnections>,
    proxy: Arc<Proxy>,
) -> AppResponse<Io> {
    let mut exchange = Exchange::begin(&proxy.telemetry, request.method(), request.uri());
    let live = proxy.live.load_full();
    if request.method() == Method::CONNECT {
        // Boxed, so that the future of every other request does not reserve room for this one.
        return Box::pin(connect(request, live, exchange, proxy)).await;
    }
    let client = match &live.clients {
        None => None,
        Some(clients) => match admission::of_request(clients, &request, &mut exchange) {
            Ok(client) => client,
            Err(error) => return AppResponse::Response(reply::refuse(&error, &mut exchange, false)),
        },
    };
    if udp::is_asked(&request) {
        return Box::pin(udp::connect(request, live, client, exchange, proxy)).await;
    }
    if headers::ends_here(&mut request) {
        return AppResponse::Response(reply::options(&mut exchange));
    }
    let result = match Target::of_absolute(request.uri()) {
        Ok(target) => match proxy.route_to(live, &target, client, &request, &mut exchange) {
            Ok(routed) => {
                forward::run(
                    request,
                    &target,
                    Protocol::H1,
                    &routed,
                    &bond,
                    &mut exchange,
                    &proxy,
                )
                .await
            }
            Err(error) => Err(error),
        },
        Err(error) => Err(error.into()),
    };
    finish(result, exchange, |_| false)
}

/// Builds the answer to a forwarded request. `is_over` says which refusals close the app's connection.
fn finish<T>(
    result: Result<Response<Box<body::ForwardedBody>>, Error>,
    mut exchange: Box<Exchange>,
    is_over: impl Fn(&Error) -> bool,
) -> AppResponse<T>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let response = match result {
        Ok(response) => response,
        Err(error) => return AppResponse::Response(reply::refuse(&error, &mut exchange, is_over(&error))),
    };
    exchange.answered();
    let (parts, mut forwarded) = response.into_parts();
    match forwarded.upgraded.take() {
        None => AppResponse::Response(Response::from_parts(parts, Body::Forwarded(forwarded, exchange))),
        Some(upgraded) => AppResponse::Switch(
            Response::from_parts(parts, ()),
            Box::new(move |app, early| Box::pin(upgraded.join(app, early, forwarded, exchange))),
        ),
    }
}

/// An admitted CONNECT.
enum Opened {
    Intercept(intercept::Intercept),
    Tunnel(tunnel::Tunnel),
}

async fn connect(
    request: Request<Option<Incoming>>,
    live: Arc<Live>,
    mut exchange: Box<Exchange>,
    proxy: Arc<Proxy>,
) -> AppResponse<Io> {
    // Delays the end of the process until the tunnel is open. After that only moving bytes do.
    let busy = proxy.drain.busy();
    let opened = match asked(&request, live, &mut exchange, &proxy) {
        Ok((target, sender)) => open(target, sender, &request, &mut exchange, &proxy).await,
        Err(error) => Err(error),
    };
    match opened {
        Ok(opened) => AppResponse::Switch(Response::new(()), opened.start(exchange, proxy, busy)),
        Err(error) => AppResponse::Response(reply::refuse(&error, &mut exchange, true)),
    }
}

/// Reads the target of a CONNECT, and who sends it.
fn asked(
    request: &Request<Option<Incoming>>,
    live: Arc<Live>,
    exchange: &mut Exchange,
    proxy: &Proxy,
) -> Result<(Target, TunnelSender), Error> {
    let shown = match &live.clients {
        None => Shown::default(),
        Some(clients) => admission::shown_by(clients, request)?,
    };
    let sender = TunnelSender::of(live, shown, exchange)?;
    headers::check_connect(request)?;
    if proxy.loop_marker.has_looped(request.headers()) {
        return Err(Error::Looped);
    }
    Ok((Target::of_connect(request.uri())?, sender))
}

/// Opens the way to a target, for a CONNECT or for a client of SOCKS5, whose request has no fields.
async fn open<B>(
    target: Target,
    sender: TunnelSender,
    request: &Request<B>,
    exchange: &mut Exchange,
    proxy: &Arc<Proxy>,
) -> Result<Opened, Error> {
    let TunnelSender { client, live, shown } = sender;
    let (route, is_intercepted) = live.route_tunnel(&target, client.as_ref(), request, exchange)?;
    if is_intercepted {
        intercept::open(target, request.headers(), route, shown, proxy, &live).map(Opened::Intercept)
    } else {
        let tunnel = tunnel::open(&target, route, exchange, proxy, &live).await?;
        Ok(Opened::Tunnel(tunnel))
    }
}

impl Opened {
    /// Returns what serves the tunnel, once the app has been told that it may go on.
    fn start(self, exchange: Box<Exchange>, proxy: Arc<Proxy>, busy: ExchangeGuard) -> Takeover<Io> {
        match self {
            Self::Intercept(intercept) => intercept.start(exchange, proxy, busy),
            Self::Tunnel(tunnel) => tunnel.start(exchange, proxy, busy),
        }
    }
}

impl Live {
    /// Finds the route of a tunnel to `target` for this client, and whether it is intercepted.
    fn route_tunnel<B>(
        &self,
        target: &Target,
        client: Option<&Arc<Client>>,
        request: &Request<B>,
        exchange: &mut Exchange,
    ) -> Result<(&Arc<Route>, bool), Error> {
        let (destination, result) = match self.policy.route(target, RequestForm::Connect) {
            Verdict::Tunnel(destination) => (destination, Ok(false)),
            Verdict::Observe(destination, reason) => {
                exchange.observe(ObservedRequest::connect(target, reason.as_str()));
                (destination, Ok(false))
            }
            Verdict::Forward(destination) | Verdict::Intercept(destination) => (destination, Ok(true)),
            Verdict::Deny(destination, denial) => (destination, Err(denial)),
        };
        let route = self.route(destination);
        exchange.set_destination(&route.counters);
        let is_intercepted =
            result.map_err(|denial| placeholders::explained(denial.into(), request, self))?;
        admission::check(client, destination)?;
        if let Some(placeholders) = &route.placeholders {
            placeholders::check_connect(request, &placeholders.set, &destination.name)?;
        }
        Ok((route, is_intercepted))
    }
}

impl Proxy {
    /// Returns the resolver and the egress rules of `live`.
    fn network<'a>(&'a self, live: &'a Live) -> DialContext<'a> {
        DialContext {
            resolver: &self.resolver,
            egress: &live.policy.egress,
        }
    }

    /// Finds the route to `target` under the policy of `live`, for this client.
    fn route_to<B>(
        &self,
        live: Arc<Live>,
        target: &Target,
        client: Option<Arc<Client>>,
        request: &Request<B>,
        exchange: &mut Exchange,
    ) -> Result<Routed, Error> {
        let (destination, denial) = match live.policy.route(target, RequestForm::Request) {
            Verdict::Forward(destination)
            | Verdict::Intercept(destination)
            | Verdict::Tunnel(destination) => (destination, None),
            Verdict::Observe(destination, reason) => {
                let path = request.uri().path();
                exchange.observe(ObservedRequest::new(
                    target,
                    request.method(),
                    path,
                    reason.as_str(),
                ));
                (destination, None)
            }
            Verdict::Deny(destination, denial) => (destination, Some(denial)),
        };
        let route = Arc::clone(live.route(destination));
        exchange.set_destination(&route.counters);
        if let Some(denial) = denial {
            return Err(placeholders::explained(denial.into(), request, &live));
        }
        admission::check(client.as_ref(), &route.destination)?;
        Ok(Routed { live, route })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Unit, keep};

    /// Returns the size of a function's future without calling the function.
    fn size<A, B, C, F: Future>(_: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Each connection of the app holds the future of one request as long as it is open.
    #[test]
    fn the_future_of_a_request_stays_small() {
        keep(&[("future of a request", size(handle) as f64, Unit::BytesOfType)]);
    }
}

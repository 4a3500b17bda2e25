//! What happens to a request: target → verdict → one of three lives.
//!
//! [`handle`] answers every request of the app; whatever fails becomes an answer in [`reply`], the only place that
//! makes one. [`forward`] carries one HTTP exchange, [`tunnel`] joins two sockets, [`intercept`] ends the app's TLS and
//! gives each inner request to `forward`.
//!
//! What is allowed is decided in `policy`, what is attached in `auth`, how to get there in `upstream`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;

pub(crate) use crate::upstream::body::Cut;
pub(crate) use body::Body;
pub(crate) use error::Error;
pub(crate) use live::{Live, Route};

use crate::drain::Drain;
use crate::host::Target;
use crate::policy::{Asked, Verdict};
use crate::telemetry::{Exchange, Telemetry};
use crate::upstream::resolve::Resolver;
use crate::upstream::{Mirror, Ways};

mod body;
mod error;
mod forward;
mod headers;
mod intercept;
mod live;
mod reply;
mod splice;
mod tunnel;

/// The live parts that all workers share.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) drain: Drain,
    /// Swapped whole by a reload; a request loads it once.
    pub(crate) live: ArcSwap<Live>,
    /// More memory is in use than the configuration allows: new work is refused.
    pub(crate) is_short_of_memory: AtomicBool,
    pub(crate) resolver: Resolver,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) tunnels: AtomicUsize,
    /// Our name in Via fields, different in each process: `1.1 outrider-5f0c…`.
    pub(crate) via: HeaderValue,
}

/// Answers one request that came in through the listener.
pub(crate) async fn handle(mut request: Request<Incoming>, proxy: Arc<Proxy>) -> Response<Body> {
    let mut exchange = Exchange::begin(&proxy.telemetry, request.method(), request.uri());
    if headers::ends_here(&mut request) {
        return reply::options(&mut exchange);
    }
    let is_connect = request.method() == Method::CONNECT;
    let result = if is_connect {
        // Boxed: every request's future would be as large as this one.
        Box::pin(connect(&mut request, &mut exchange, &proxy)).await
    } else {
        absolute(request, &mut exchange, &proxy).await
    };
    match result {
        Ok(Passed::Response(response)) => {
            exchange.answered();
            response.map(|passing| Body::passing(passing, exchange))
        }
        Ok(Passed::Tunnel(tunnel)) => tunnel.start(exchange, proxy),
        Ok(Passed::Intercept(intercept)) => intercept.start(exchange, proxy),
        Err(error) => reply::refuse(&error, &mut exchange, is_connect),
    }
}

/// What a request that was let through has become.
#[expect(
    clippy::large_enum_variant,
    reason = "the largest is the usual one, and it is moved once"
)]
enum Passed {
    Intercept(intercept::Intercept),
    Response(Response<body::Passing>),
    Tunnel(tunnel::Tunnel),
}

async fn absolute(
    request: Request<Incoming>,
    exchange: &mut Exchange,
    proxy: &Arc<Proxy>,
) -> Result<Passed, Error> {
    headers::check(&request)?;
    let target = Target::of_absolute(request.uri())?;
    let live = proxy.live.load_full();
    let route = match live.policy.route(&target, Asked::Request) {
        Verdict::Forward(destination) | Verdict::Intercept(destination) | Verdict::Tunnel(destination) => {
            live.route(destination)
        }
        Verdict::Deny(destination, denial) => {
            exchange.bound_for(&live.route(destination).counters);
            return Err(denial.into());
        }
    };
    exchange.bound_for(&route.counters);
    let response = forward::run(request, &target, Mirror::H1, route, exchange, proxy, &live).await?;
    Ok(Passed::Response(response))
}

async fn connect(
    request: &mut Request<Incoming>,
    exchange: &mut Exchange,
    proxy: &Arc<Proxy>,
) -> Result<Passed, Error> {
    headers::check_connect(request)?;
    let target = Target::of_connect(request.uri())?;
    let live = proxy.live.load_full();
    let (route, is_intercepted) = match live.policy.route(&target, Asked::Connect) {
        Verdict::Tunnel(destination) => (live.route(destination), false),
        Verdict::Forward(destination) | Verdict::Intercept(destination) => (live.route(destination), true),
        Verdict::Deny(destination, denial) => {
            exchange.bound_for(&live.route(destination).counters);
            return Err(denial.into());
        }
    };
    exchange.bound_for(&route.counters);
    proxy.has_room()?;
    if is_intercepted {
        intercept::open(request, target, route, proxy, &live).map(Passed::Intercept)
    } else {
        tunnel::open(request, &target, route, exchange, proxy, &live)
            .await
            .map(Passed::Tunnel)
    }
}

/// HTTP/1.1 as we speak it to the app, in the clear or inside an intercepted tunnel.
pub(crate) fn h1(header_size: usize) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(header_size.max(SMALLEST_BUFFER))
        .max_header_size(header_size);
    builder
}

impl Proxy {
    /// How the upstream side gets about, under the policy of `live`.
    fn ways<'a>(&'a self, live: &'a Live) -> Ways<'a> {
        Ways {
            resolver: &self.resolver,
            egress: &live.policy.egress,
        }
    }

    fn has_room(&self) -> Result<(), Error> {
        if self.is_short_of_memory.load(Ordering::Relaxed) {
            Err(Error::Overloaded("limits.memory"))
        } else {
            Ok(())
        }
    }
}

const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// What hyper needs at least.
const SMALLEST_BUFFER: usize = 8 * 1024;

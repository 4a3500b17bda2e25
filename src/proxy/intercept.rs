//! CONNECT, TLS ended here: what is inside goes to `forward`, and nowhere else than the tunnel was opened to.
//!
//! The name in the ClientHello, the Host of each inner request and the target of the CONNECT must be one; where they
//! differ the app gets 421 with the reason, under a certificate for the target of the CONNECT.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use http::uri::Authority;
use http::{Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::tunnel::Room;
use super::{Body, Error, Live, Proxy, Route, forward, headers, reply};
use crate::ca::Offer;
use crate::host::{Host, Target};
use crate::policy::{Asked, Verdict};
use crate::stream::{Io, Rewound};
use crate::telemetry::{Exchange, Side};
use crate::upstream::{self, Mirror};

/// A CONNECT that is going to be ended here.
pub(super) struct Intercept {
    app_side: OnUpgrade,
    offer: Offer,
    room: Room,
    route: Arc<Route>,
    target: Target,
}

/// What the requests inside one tunnel have in common.
struct Inside {
    /// The name in the ClientHello, where it is not the target's.
    foreign_name: Option<String>,
    /// Streams that the app gave up before their answer: too many of them are an attack.
    abandoned: AtomicU32,
    /// The target as the access log names it.
    authority: Option<Authority>,
    proxy: Arc<Proxy>,
    target: Target,
}

/// Finds out what the upstream speaks, so that the app can be offered the same. The first tunnel to a target
/// connects for this, so a dead upstream is told as the status of the CONNECT.
pub(super) async fn open(
    request: &mut Request<Incoming>,
    target: Target,
    route: &Arc<Route>,
    exchange: &mut Exchange,
    proxy: &Arc<Proxy>,
    live: &Live,
) -> Result<Intercept, Error> {
    let room = Room::take(proxy, live.limits.tunnels)?;
    exchange.asked_upstream();
    let offer = match upstream::learn(&target, &route.endpoint, proxy.ways(live)).await? {
        Mirror::H1 => Offer::H1,
        Mirror::H2 => Offer::H2,
    };
    Ok(Intercept {
        app_side: hyper::upgrade::on(request),
        offer,
        room,
        route: Arc::clone(route),
        target,
    })
}

impl Intercept {
    /// Says 200; what follows is served in a task of its own.
    pub(super) fn start(self, exchange: Exchange, proxy: Arc<Proxy>) -> Response<Body> {
        // Each inner request is an exchange of its own; the CONNECT that carries them is none.
        exchange.withdraw();
        tokio::spawn(async move {
            let Self {
                app_side,
                offer,
                room,
                route,
                target,
            } = self;
            let Ok(upgraded) = app_side.await else { return };
            let Ok(parts) = upgraded.downcast::<TokioIo<Io>>() else {
                return;
            };
            let app = Rewound::new(parts.read_buf, parts.io.into_inner());
            let _room = room;
            serve(app, target, offer, &route, proxy).await;
        });
        Response::new(Body::empty())
    }
}

async fn serve(app: Rewound<Io>, target: Target, offer: Offer, route: &Route, proxy: Arc<Proxy>) {
    let started = Instant::now();
    let limit = route.destination.timeouts.tls;
    let Ok(accepted) = tokio::time::timeout(limit, accept(app, &target.host, offer, &proxy)).await else {
        tracing::debug!(destination = %route.destination.name, "the app began no TLS in its tunnel in time");
        return;
    };
    let (stream, foreign_name) = match accepted {
        Ok(accepted) => accepted,
        Err(error) => return report(&error, route),
    };
    route.counters.tls_handshake(Side::Client, started.elapsed());
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let authority = target.to_string().parse().ok();
    let inside = Arc::new(Inside {
        foreign_name,
        abandoned: AtomicU32::new(0),
        authority,
        proxy,
        target,
    });
    if is_h2 {
        serve_h2(stream, inside).await
    } else {
        serve_h1(stream, inside).await
    }
}

/// Ends the app's TLS. The second value is the name it asked for, where that is not the target's.
async fn accept(
    app: Rewound<Io>,
    host: &Host,
    offer: Offer,
    proxy: &Proxy,
) -> std::io::Result<(TlsStream<Rewound<Io>>, Option<String>)> {
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), app).await?;
    let asked = start.client_hello().server_name().map(str::to_owned);
    let foreign = asked.filter(|name| Host::parse(name).ok().as_ref() != Some(host));
    let config = (proxy.live.load().authority.serve(host, offer)).map_err(std::io::Error::other)?;
    Ok((start.into_stream(config).await?, foreign))
}

/// A client that does not trust the local authority says so with an alert: the usual first trouble of a new user.
fn report(error: &std::io::Error, route: &Route) {
    let rejected = (error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>()))
    .is_some_and(|error| matches!(error, rustls::Error::AlertReceived(_)));
    if rejected {
        route.counters.error("tls_alert_received");
        tracing::warn!(
            destination = %route.destination.name,
            error = %error,
            "the app does not trust outrider's certificate; start it under `outrider exec`, or point its trust variable \
             (SSL_CERT_FILE, REQUESTS_CA_BUNDLE, NODE_EXTRA_CA_CERTS, CURL_CA_BUNDLE, …) at the CA bundle: `outrider env` prints them all",
        );
    } else {
        tracing::debug!(destination = %route.destination.name, error = %error, "no TLS in an intercepted tunnel");
    }
}

async fn serve_h1(stream: TlsStream<Rewound<Io>>, inside: Arc<Inside>) {
    let header_size = inside.proxy.live.load().limits.header_size;
    let service = service_fn(move |request| {
        let inside = Arc::clone(&inside);
        async move { Ok::<_, std::convert::Infallible>(answer(request, Mirror::H1, &inside).await) }
    });
    let connection = super::h1(header_size)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let _ = connection.await;
}

async fn serve_h2(stream: TlsStream<Rewound<Io>>, inside: Arc<Inside>) {
    let header_size = inside.proxy.live.load().limits.header_size;
    let counted = Arc::clone(&inside);
    let service = service_fn(move |request| {
        let inside = Arc::clone(&inside);
        async move {
            let watch = Watch {
                inside: &inside,
                done: false,
            };
            let response = answer(request, Mirror::H2, &inside).await;
            watch.done();
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(u32::try_from(header_size).unwrap_or(u32::MAX))
        .max_send_buf_size(STREAM_WINDOW as usize)
        .keep_alive_interval(KEEP_ALIVE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // Rapid reset: a client that opens streams only to reset them pays with its connection.
    std::future::poll_fn(|cx| {
        if counted.abandoned.load(Ordering::Relaxed) > MOST_ABANDONED {
            tracing::warn!(target = %counted.target, "the app reset too many HTTP/2 streams; its connection is closed");
            return std::task::Poll::Ready(());
        }
        connection.as_mut().poll(cx).map(|_| ())
    })
    .await;
}

/// Counts a stream as abandoned unless its answer was made.
struct Watch<'a> {
    inside: &'a Inside,
    done: bool,
}

impl Watch<'_> {
    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.inside.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Answers one request inside a tunnel. It cannot leave it: there is no CONNECT here, and its host is the tunnel's.
async fn answer(request: Request<Incoming>, mirror: Mirror, inside: &Inside) -> Response<Body> {
    let mut exchange = Exchange::begin(&inside.proxy.telemetry, request.method(), request.uri());
    if let Some(authority) = &inside.authority {
        exchange.within(authority);
    }
    match forward_inside(request, mirror, inside, &mut exchange).await {
        Ok(response) => {
            exchange.answered();
            response.map(|passing| Body::passing(passing, exchange))
        }
        Err(error) => reply::refuse(
            &error,
            &mut exchange,
            matches!(error, Error::Misdirected { .. }) && mirror == Mirror::H1,
        ),
    }
}

async fn forward_inside(
    request: Request<Incoming>,
    mirror: Mirror,
    inside: &Inside,
    exchange: &mut Exchange,
) -> Result<Response<super::body::Passing>, Error> {
    let live = inside.proxy.live.load_full();
    // Asked anew for each request: a reload may have closed this way since the tunnel was opened.
    let route = match live.policy.route(&inside.target, Asked::Request) {
        Verdict::Forward(destination) | Verdict::Intercept(destination) | Verdict::Tunnel(destination) => {
            live.route(destination)
        }
        Verdict::Deny(destination, denial) => {
            exchange.bound_for(&live.route(destination).counters);
            return Err(denial.into());
        }
    };
    exchange.bound_for(&route.counters);
    if request.method() == http::Method::CONNECT {
        return Err(Error::Malformed("a CONNECT inside a tunnel"));
    }
    // HTTP/2 names its host in the URI.
    if request.version() != Version::HTTP_2 {
        headers::check(&request)?;
    } else if request.method() == http::Method::TRACE {
        return Err(Error::Trace);
    }
    inside.check_names(&request)?;
    forward::run(
        request,
        &inside.target,
        mirror,
        route,
        exchange,
        &inside.proxy,
        &live,
    )
    .await
}

impl Inside {
    fn check_names(&self, request: &Request<Incoming>) -> Result<(), Error> {
        let misdirected = |what| Error::Misdirected {
            asked: self.target.to_string(),
            what,
        };
        if self.foreign_name.is_some() {
            return Err(misdirected("TLS server name (SNI)"));
        }
        if let Some(authority) = request.uri().authority()
            && !self.target.is_named_by(authority.as_str())
        {
            return Err(misdirected("request target"));
        }
        for host in request.headers().get_all(header::HOST) {
            if !host.to_str().is_ok_and(|host| self.target.is_named_by(host)) {
                return Err(misdirected("Host field"));
            }
        }
        Ok(())
    }
}

const CONNECTION_WINDOW: u32 = 1024 * 1024;
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(30);
const MOST_ABANDONED: u32 = 200;
const MOST_STREAMS: u32 = 100;
const STREAM_WINDOW: u32 = 64 * 1024;

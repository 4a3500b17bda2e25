//! CONNECT, TLS ended here: what is inside goes to `forward`, and nowhere else than the tunnel was opened to.
//!
//! The name in the ClientHello, the Host of each inner request and the target of the CONNECT must be one; where they
//! differ the app gets 421 with the reason, under a certificate for the target of the CONNECT.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::uri::Authority;
use http::{Method, Request, Response, header};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::tunnel::Room;
use super::{Answer, Error, Live, Proxy, Route, forward, headers, reply};
use crate::drain::ExchangeGuard;
use crate::host::{Scheme, Target};
use crate::http1::server::TakenOver;
use crate::memory;
use crate::stream::{Io, Reset, Rewound, TLS_HANDSHAKE};
use crate::telemetry::Exchange;
use crate::upstream::{BoundConnections, Incoming, Protocol};

mod handshake;
mod hello;
mod multiplexed;

/// A CONNECT that is going to be ended here.
pub(super) struct Intercept {
    room: Room,
    route: Arc<Route>,
    target: Target,
}

/// What the requests inside one tunnel have in common.
struct Inside {
    /// The name in the ClientHello, where it is not the target's.
    foreign_name: Option<String>,
    /// The target as the access log names it.
    authority: Option<Authority>,
    bond: Arc<BoundConnections>,
    proxy: Arc<Proxy>,
    target: Target,
}

/// Nothing is dialled yet: a dead upstream is told inside the tunnel, where the app reads the reason as an answer.
pub(super) fn open(
    target: Target,
    route: &Arc<Route>,
    proxy: &Arc<Proxy>,
    live: &Live,
) -> Result<Intercept, Error> {
    let room = Room::take(proxy, live.limits.tunnels, memory::INTERCEPTED)?;
    Ok(Intercept {
        room,
        route: Arc::clone(route),
        target,
    })
}

impl Intercept {
    /// Says 200, and serves what follows.
    pub(super) fn start(self, exchange: Box<Exchange>, proxy: Arc<Proxy>, busy: ExchangeGuard) -> Answer<Io> {
        // Each inner request is an exchange of its own; the CONNECT that carries them is none.
        exchange.discard();
        let Self { room, route, target } = self;
        let serve = move |app, early| {
            Box::pin(async move {
                let _room = room;
                serve(early, app, target, &route, proxy, busy).await;
            }) as TakenOver
        };
        Answer::Switch(Response::new(()), Box::new(serve))
    }
}

/// Serves TLS, or HTTP in clear, of either version: some clients tunnel their http:// requests, too, and gRPC over an
/// insecure channel is HTTP/2 that was agreed on beforehand. `busy` lasts until the tunnel stands.
async fn serve(
    early: Bytes,
    mut app: Io,
    target: Target,
    route: &Route,
    proxy: Arc<Proxy>,
    busy: ExchangeGuard,
) {
    let limit = route.destination.timeouts.tls;
    let Ok(Ok(first)) = tokio::time::timeout(limit, first_bytes(early, &mut app)).await else {
        tracing::debug!(destination = %route.destination.name, "nothing came through an intercepted tunnel in time");
        return;
    };
    let idle = route.destination.timeouts.idle;
    if first.first() != Some(&TLS_HANDSHAKE) {
        handshake::tell_foreign(&first, &target, route);
        let is_h2 = first.starts_with(H2_PREFACE);
        let app = Rewound::new(first, app);
        let target = Target {
            scheme: Scheme::Http,
            ..target
        };
        drop(busy);
        let inside = Arc::new(Inside::new(None, proxy, target));
        return if is_h2 {
            multiplexed::serve(app, inside, idle).await;
        } else {
            serve_h1(app, inside).await;
        };
    }
    let accepted = handshake::accept(first, app, &target, route, &proxy, busy).await;
    let Some(handshake::Accepted { foreign_name, stream }) = accepted else {
        return;
    };
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let inside = Arc::new(Inside::new(foreign_name, proxy, target));
    if is_h2 {
        multiplexed::serve(stream, inside, idle).await
    } else {
        serve_h1(stream, inside).await
    }
}

/// So many bytes that it shows what is spoken.
async fn first_bytes(early: Bytes, app: &mut Io) -> std::io::Result<Bytes> {
    let is_open = |bytes: &[u8]| bytes.len() < H2_PREFACE.len() && H2_PREFACE.starts_with(bytes);
    if !is_open(&early) {
        return Ok(early);
    }
    // Holds a whole ClientHello, as a rule.
    let mut buffer = BytesMut::with_capacity(2048);
    buffer.extend_from_slice(&early);
    while is_open(&buffer) && app.read_buf(&mut buffer).await? > 0 {}
    Ok(buffer.freeze())
}

async fn serve_h1<S>(stream: S, inside: Arc<Inside>)
where
    S: AsyncRead + AsyncWrite + Reset + Unpin + Send + 'static,
{
    let (bond, proxy) = (Arc::clone(&inside.bond), Arc::clone(&inside.proxy));
    let rest = Box::pin(super::serve_h1(stream, bond, proxy, move |request| {
        let inside = Arc::clone(&inside);
        async move { answer(request, Protocol::H1, &inside).await }
    }));
    if let Some(rest) = rest.await {
        rest.await;
    }
}

/// Answers one request inside a tunnel. It cannot leave it: there is no CONNECT here, and its host is the tunnel's.
async fn answer<T>(mut request: Request<Option<Incoming>>, mirror: Protocol, inside: &Inside) -> Answer<T>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut exchange = Exchange::begin(&inside.proxy.telemetry, request.method(), request.uri());
    if let Some(authority) = &inside.authority {
        exchange.set_authority(authority);
    }
    if headers::ends_here(&mut request) {
        return Answer::Response(reply::options(&mut exchange));
    }
    // Asked anew for each request: a reload may have closed this way since the tunnel was opened.
    let way = inside.proxy.way(&inside.target, &mut exchange);
    let result = match way.and_then(|way| inside.check(&request).map(|()| way)) {
        Ok(way) => {
            forward::run(
                request,
                &inside.target,
                mirror,
                &way,
                &inside.bond,
                &mut exchange,
                &inside.proxy,
            )
            .await
        }
        Err(error) => Err(error),
    };
    // In HTTP/1.1 a client that mixes hosts up may have sent more for the wrong one.
    super::finish(result, exchange, |error| {
        mirror == Protocol::H1 && matches!(error, Error::Misdirected { .. })
    })
}

impl Inside {
    fn new(foreign_name: Option<String>, proxy: Arc<Proxy>, target: Target) -> Self {
        let authority = target.to_string().parse().ok();
        Self {
            foreign_name,
            authority,
            bond: Arc::default(),
            proxy,
            target,
        }
    }

    /// Nothing leaves the tunnel: no CONNECT inside, and no other host.
    fn check<B>(&self, request: &Request<B>) -> Result<(), Error> {
        if request.method() == Method::CONNECT {
            return Err(Error::Malformed("a CONNECT request was sent inside a tunnel"));
        }
        let misdirected = |what| Error::Misdirected {
            asked: self.target.to_string(),
            what,
        };
        if self.foreign_name.is_some() {
            return Err(misdirected("TLS server name (SNI)"));
        }
        // `GET host HTTP/1.1`: it has no path that a rule could judge, and would leave with one.
        if request.uri().scheme().is_none() && request.uri().path().is_empty() {
            return Err(Error::Malformed("the request target is neither a path nor a URL"));
        }
        if request.uri().path() == "*" && request.method() != Method::OPTIONS {
            return Err(Error::Malformed(
                "the request target * is for OPTIONS only (RFC 9112 section 3.2.4)",
            ));
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

/// How a connection begins that speaks HTTP/2 (RFC 9113 section 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

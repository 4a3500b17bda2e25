//! CONNECT tunnels whose TLS ends here: `forward` handles each request inside.
//!
//! Requests inside can only go to the target of the CONNECT. The name in the ClientHello, the Host of each inner
//! request and that target must be equal. Where they differ the app gets 421 with the reason, under a certificate
//! for the target of the CONNECT.

use std::sync::{Arc, Once};

use bytes::{Bytes, BytesMut};
use http::uri::Authority;
use http::{Method, header};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::tunnel::TunnelSlot;
use super::{AppResponse, Error, Live, Proxy, Route, admission, forward, headers, reply};
use crate::clients::KeptShown;
use crate::drain::ExchangeGuard;
use crate::host::{Scheme, Target};
use crate::http1::server::{NextWork, TakenOver, Takeover};
use crate::memory;
use crate::message::{Fields, Request};
use crate::stream::{Io, Reset, Rewound, TLS_HANDSHAKE};
use crate::telemetry::Exchange;
use crate::upstream::{BoundConnections, Incoming, Protocol};

mod combined;
mod distrust;
mod handshake;
mod hello;
mod multiplexed;

pub(crate) use distrust::HeardClients;

use distrust::KnownClient;

/// The first bytes of every HTTP/2 connection (RFC 9113 section 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An admitted CONNECT, before the app gets its 200.
pub(super) struct Intercept {
    slot: TunnelSlot,
    route: Arc<Route>,
    opened: OpenedTunnel,
}

/// Where a tunnel leads, and what its sender has shown.
struct OpenedTunnel {
    /// Which client it is, by its User-Agent.
    client: Option<KnownClient>,
    shown: Option<KeptShown>,
    target: Target,
}

/// What the requests inside a tunnel have in common.
struct TunnelContext {
    /// The server name in the ClientHello, if it is not the target's.
    foreign_name: Option<String>,
    /// The target, as the access log writes it.
    authority: Option<Authority>,
    bond: Arc<BoundConnections>,
    /// Done when the first request has said which client it comes from.
    heard: Once,
    proxy: Arc<Proxy>,
    shown: Option<KeptShown>,
    target: Target,
}

/// Admits a CONNECT. Dials nothing yet: inside the tunnel the app can read the reason of a failure as a response.
pub(super) fn open(
    target: Target,
    fields: &Fields,
    route: &Arc<Route>,
    shown: Option<KeptShown>,
    proxy: &Arc<Proxy>,
    live: &Live,
) -> Result<Intercept, Error> {
    let slot = TunnelSlot::take(proxy, live.limits.tunnels, memory::INTERCEPTED)?;
    let client = KnownClient::of(fields);
    Ok(Intercept {
        slot,
        route: Arc::clone(route),
        opened: OpenedTunnel {
            client,
            shown,
            target,
        },
    })
}

impl Intercept {
    /// Returns what serves the requests inside, once the app has been told that it may go on.
    pub(super) fn start(
        self,
        exchange: Box<Exchange>,
        proxy: Arc<Proxy>,
        busy: ExchangeGuard,
    ) -> Takeover<Io> {
        // The requests inside the tunnel are recorded one by one, so the CONNECT itself is not.
        exchange.discard();
        let Self { slot, route, opened } = self;
        Box::new(move |app, early| {
            Box::pin(async move {
                let _slot = slot;
                serve(early, app, opened, &route, proxy, busy).await;
            }) as TakenOver
        })
    }
}

/// Serves TLS or cleartext HTTP, of both versions: some clients tunnel their http:// requests too, and gRPC over an
/// insecure channel is cleartext HTTP/2. `busy` lasts until the tunnel is open.
async fn serve(
    early: Bytes,
    mut app: Io,
    opened: OpenedTunnel,
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
        handshake::report_foreign(&first, &opened.target, route);
        let is_h2 = first.starts_with(H2_PREFACE);
        let app = Rewound::new(first, app);
        let mut opened = opened;
        opened.target.scheme = Scheme::Http;
        drop(busy);
        let inside = Arc::new(TunnelContext::new(None, proxy, opened));
        return if is_h2 {
            Box::pin(multiplexed::serve(app, inside, idle)).await;
        } else {
            serve_h1(app, inside).await;
        };
    }
    // Boxed, so that a tunnel does not hold its handshake for its life.
    let accepted = Box::pin(handshake::accept(first, app, &opened, route, &proxy, busy)).await;
    let Some(handshake::Accepted { foreign_name, stream }) = accepted else {
        return;
    };
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let inside = Arc::new(TunnelContext::new(foreign_name, proxy, opened));
    if is_h2 {
        Box::pin(multiplexed::serve(stream, inside, idle)).await
    } else {
        serve_h1(stream, inside).await
    }
}

/// Reads as many bytes as are needed to know the protocol.
async fn first_bytes(early: Bytes, app: &mut Io) -> std::io::Result<Bytes> {
    let is_open = |bytes: &[u8]| bytes.len() < H2_PREFACE.len() && H2_PREFACE.starts_with(bytes);
    if !is_open(&early) {
        return Ok(early);
    }
    // Usually large enough for a whole ClientHello.
    let mut buffer = BytesMut::with_capacity(2048);
    buffer.extend_from_slice(&early);
    while is_open(&buffer) && app.read_buf(&mut buffer).await? > 0 {}
    Ok(buffer.freeze())
}

async fn serve_h1<S>(stream: S, inside: Arc<TunnelContext>)
where
    S: AsyncRead + AsyncWrite + Reset + Unpin + Send + 'static,
{
    let (bond, proxy) = (Arc::clone(&inside.bond), Arc::clone(&inside.proxy));
    let serving = super::connection::serve_h1(
        stream,
        bond,
        proxy,
        |_| None,
        move |request| {
            let inside = Arc::clone(&inside);
            async move { answer(request, Protocol::H1, &inside).await }
        },
    );
    // Boxed, so that it is freed before the rest runs.
    if let Some(NextWork::Tunnel(rest)) = Box::pin(serving).await {
        rest.await;
    }
}

/// Answers one request inside a tunnel. [`TunnelContext::check`] keeps it inside.
async fn answer<T>(
    mut request: Request<Option<Incoming>>,
    mirror: Protocol,
    inside: &TunnelContext,
) -> AppResponse<T>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut exchange = Exchange::begin(&inside.proxy.telemetry, request.method(), request.uri());
    if let Some(authority) = &inside.authority {
        exchange.set_authority(authority);
    }
    let heard = &inside.proxy.heard;
    inside.heard.call_once(|| heard.hear(request.headers()));
    if headers::ends_here(&mut request) {
        return AppResponse::Response(reply::options(&mut exchange));
    }
    // Asked again for each request: a reload may have changed the policy since the tunnel was opened.
    let live = inside.proxy.live.load_full();
    let client = admission::inside(&live, inside.shown.as_ref(), &mut exchange);
    let routed = client
        .and_then(|client| (inside.proxy).route_to(live, &inside.target, client, &request, &mut exchange));
    let result = match routed.and_then(|routed| inside.check(&request).map(|()| routed)) {
        Ok(routed) => {
            forward::run(
                request,
                &inside.target,
                mirror,
                &routed,
                &inside.bond,
                &mut exchange,
                &inside.proxy,
            )
            .await
        }
        Err(error) => Err(error),
    };
    // In HTTP/1.1 a client that confuses hosts may have sent more requests for the wrong one.
    super::finish(result, exchange, |error| {
        mirror == Protocol::H1 && matches!(error, Error::Misdirected { .. })
    })
}

impl TunnelContext {
    fn new(foreign_name: Option<String>, proxy: Arc<Proxy>, opened: OpenedTunnel) -> Self {
        let OpenedTunnel { shown, target, .. } = opened;
        let authority = target.to_string().parse().ok();
        Self {
            foreign_name,
            authority,
            bond: Arc::default(),
            heard: Once::new(),
            proxy,
            shown,
            target,
        }
    }

    /// Refuses a request that would leave the tunnel: a CONNECT, or a request for another host.
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
        // `GET host HTTP/1.1` has no path that a rule could check, but would be sent with one.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Unit, keep};

    /// Returns the size of a function's future without calling the function.
    fn size<A, B, C, D, E, G, F: Future>(_: impl FnOnce(A, B, C, D, E, G) -> F) -> usize {
        size_of::<F>()
    }

    /// A tunnel holds it as long as it is open, with what it serves at the time.
    #[test]
    fn the_future_of_an_intercepted_tunnel_stays_small() {
        let size = size(|early, app, opened, route: &'static Route, proxy, busy| {
            serve(early, app, opened, route, proxy, busy)
        });
        keep(&[("future of an intercepted tunnel", size as f64, Unit::BytesOfType)]);
    }
}

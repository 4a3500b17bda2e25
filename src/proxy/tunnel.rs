//! CONNECT tunnels whose bytes pass unchanged.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;

use super::splice::{self, Joined, Moved};
use super::{Error, Live, Proxy, Route};
use crate::drain::ExchangeGuard;
use crate::host::Target;
use crate::http1::server::{TakenOver, Takeover};
use crate::limit::{Caller, Permit, RequestAttributes};
use crate::memory::{self, Reservation};
use crate::stream::{Io, Reset as _, Rewound};
use crate::telemetry::{Exchange, TunnelEnd};
use crate::upstream::connect;
use crate::upstream::link::{Link, OpenedLink, Way};

/// A tunnel that is connected to the upstream, before the app gets its 200.
pub(super) struct Tunnel {
    idle: Duration,
    /// Only where the end of the tunnel frees something: the others would be held for nothing.
    permit: Option<Box<Permit>>,
    slot: TunnelSlot,
    upstream: OpenedLink,
}

/// One of the tunnels that `limits.tunnels` allows at a time, and its memory. Dropping it frees both.
#[derive(Debug)]
pub(super) struct TunnelSlot {
    proxy: Arc<Proxy>,
    _held: Reservation,
}

/// Connects to the upstream before the app gets a response, so that the app sees a failure as a status.
pub(super) async fn open(
    target: &Target,
    route: &Arc<Route>,
    exchange: &mut Exchange,
    proxy: &Arc<Proxy>,
    live: &Live,
) -> Result<Tunnel, Error> {
    let slot = TunnelSlot::take(proxy, live.limits.tunnels, memory::REQUEST)?;
    let permit = admit(target, route, exchange).await?;
    exchange.asked_upstream();
    let opened = connect::open(target, &route.endpoint, proxy.network(live)).await;
    permit.iter().for_each(Permit::used);
    let upstream = opened?;
    Ok(Tunnel {
        idle: route.destination.timeouts.idle,
        permit: permit.filter(Permit::is_held).map(Box::new),
        slot,
        upstream,
    })
}

/// Waits for the limits of the destination. `None`: nothing limits it.
pub(super) async fn admit(
    target: &Target,
    route: &Arc<Route>,
    exchange: &mut Exchange,
) -> Result<Option<Permit>, Error> {
    let Some(limiter) = route.limiter.if_limited() else {
        return Ok(None);
    };
    let asked = RequestAttributes {
        caller: &|| Caller::default(),
        method: &Method::CONNECT,
        path: "",
        target,
    };
    let permit = limiter.admit(asked, || None).await?.unsent();
    exchange.waited(permit.waited());
    Ok(Some(permit))
}

impl Tunnel {
    /// Returns what moves the bytes, in a future that is as small as possible, once the app has been told that it may go on.
    pub(super) fn start(
        self,
        mut exchange: Box<Exchange>,
        proxy: Arc<Proxy>,
        busy: ExchangeGuard,
    ) -> Takeover<Io> {
        exchange.tunnel();
        Box::new(move |app, early| -> TakenOver {
            drop(busy);
            let Self {
                idle,
                permit,
                slot,
                upstream,
            } = self;
            let held = (permit, slot);
            let OpenedLink { link, way } = upstream;
            match (app, link) {
                (Io::Tcp(app), Link::Tcp(upstream)) => {
                    let joined = Joined::new(app, upstream, early, idle);
                    Box::pin(joined.run(proxy.drain.clone(), move |moved| {
                        end(exchange, moved, Some(way));
                        drop(held);
                    }))
                }
                (app, mut upstream) => Box::pin(async move {
                    let mut app = Rewound::new(early, app);
                    let moved = splice::copy(&mut app, &mut upstream, idle, &proxy.drain).await;
                    if moved.end == TunnelEnd::Failed {
                        // A reset on one side must not look like an orderly end on the other.
                        app.reset();
                        if let Link::Tcp(upstream) = &upstream {
                            let _ = upstream.set_zero_linger();
                        }
                    }
                    end(exchange, moved, Some(way));
                    drop(held);
                }),
            }
        })
    }
}

/// Records what a tunnel has moved, and how it ended.
pub(super) fn end(mut exchange: Box<Exchange>, moved: Moved, way: Option<Way>) {
    // An app that sent nothing was only looking whether the port is open.
    if let Some(way) = way.filter(|_| moved.sent > 0 && moved.end != TunnelEnd::Idle) {
        way.ended(moved.received);
    }
    exchange.sent(moved.sent);
    exchange.received(moved.received);
    exchange.tunnel_ended(moved.end);
}

impl TunnelSlot {
    /// Takes a place for one more tunnel, and `bytes` of memory. Fails if there are `most` tunnels.
    pub(super) fn take(proxy: &Arc<Proxy>, most: usize, bytes: usize) -> Result<Self, Error> {
        let held = Reservation::take(bytes)?;
        if proxy.tunnels.fetch_add(1, Ordering::Relaxed) >= most {
            proxy.tunnels.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::Overloaded("limits.tunnels"));
        }
        Ok(Self {
            proxy: Arc::clone(proxy),
            _held: held,
        })
    }
}

impl Drop for TunnelSlot {
    fn drop(&mut self) {
        self.proxy.tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}

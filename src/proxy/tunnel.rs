//! CONNECT, bytes untouched.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Body, Error, Live, Proxy, Route, splice};
use crate::drain::Busy;
use crate::host::Target;
use crate::limit::Permit;
use crate::stream::{Io, Patient, Rewound};
use crate::telemetry::Exchange;
use crate::upstream::connect;

/// A tunnel whose far end stands: what is left is to tell the app and to join the two.
pub(super) struct Tunnel {
    app_side: OnUpgrade,
    idle: Duration,
    permit: Option<Permit>,
    room: Room,
    upstream: TcpStream,
}

/// One of the tunnels that the configuration allows at a time.
#[derive(Debug)]
pub(super) struct Room(Arc<Proxy>);

/// Connects before the app is told anything, so that a failure is a real status.
pub(super) async fn open(
    request: &mut Request<Incoming>,
    target: &Target,
    route: &Arc<Route>,
    exchange: &mut Exchange,
    proxy: &Arc<Proxy>,
    live: &Live,
) -> Result<Tunnel, Error> {
    let room = Room::take(proxy, live.limits.tunnels)?;
    let permit = if route.limiter.is_unlimited() {
        None
    } else {
        let permit = route.limiter.admit(&Method::CONNECT, "").await?;
        exchange.waited(permit.waited());
        Some(permit)
    };
    exchange.asked_upstream();
    let upstream = connect::open(target, &route.endpoint, proxy.ways(live)).await?;
    Ok(Tunnel {
        app_side: hyper::upgrade::on(request),
        idle: route.destination.timeouts.idle,
        permit,
        room,
        upstream,
    })
}

impl Tunnel {
    /// Says 200; the bytes go through in a task of their own that holds as little as it can.
    pub(super) fn start(self, mut exchange: Exchange, proxy: Arc<Proxy>, busy: Busy) -> Response<Body> {
        exchange.tunnel();
        let Self {
            app_side,
            idle,
            permit,
            room,
            upstream,
        } = self;
        tokio::spawn(async move {
            let Ok(upgraded) = app_side.await else { return };
            let Ok(parts) = upgraded.downcast::<TokioIo<Patient<Io>>>() else {
                return;
            };
            // Copied: an empty rest of hyper's read buffer would keep all of it for the life of the tunnel.
            let early = Bytes::copy_from_slice(&parts.read_buf);
            drop(parts.read_buf);
            let app = parts.io.into_inner().into_inner();
            // A task of its own: what the upgrade needed is not carried through the life of the tunnel.
            tokio::spawn(async move {
                let _held = (permit, room);
                drop(busy);
                let moved = match app {
                    Io::Tcp(app) => splice::join(app, upstream, early, idle, &proxy.drain).await,
                    Io::Unix(app) => {
                        let app = Rewound::new(early, app);
                        Box::pin(splice::copy(app, upstream, idle, &proxy.drain)).await
                    }
                };
                exchange.sent(moved.sent);
                exchange.received(moved.received);
                exchange.tunnel_ended(moved.end);
            });
        });
        Response::new(Body::empty())
    }
}

impl Room {
    pub(super) fn take(proxy: &Arc<Proxy>, most: usize) -> Result<Self, Error> {
        if proxy.tunnels.fetch_add(1, Ordering::Relaxed) >= most {
            proxy.tunnels.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::Overloaded("limits.tunnels"));
        }
        Ok(Self(Arc::clone(proxy)))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}

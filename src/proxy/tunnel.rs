//! CONNECT, bytes untouched.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, Response};
use tokio::net::TcpStream;

use super::splice::{self, Joined, Moved};
use super::{Answer, Error, Live, Proxy, Route};
use crate::drain::ExchangeGuard;
use crate::host::Target;
use crate::http1::server::TakenOver;
use crate::limit::{Caller, Permit, RequestAttributes};
use crate::memory::{self, Reservation};
use crate::stream::{Io, Rewound};
use crate::telemetry::Exchange;
use crate::upstream::connect;

/// A tunnel whose far end stands: what is left is to tell the app and to join the two.
pub(super) struct Tunnel {
    idle: Duration,
    permit: Option<Permit>,
    room: Room,
    upstream: TcpStream,
}

/// One of the tunnels that the configuration allows at a time, and what memory it takes.
#[derive(Debug)]
pub(super) struct Room {
    proxy: Arc<Proxy>,
    _held: Reservation,
}

/// Connects before the app is told anything, so that a failure is a real status.
pub(super) async fn open(
    target: &Target,
    route: &Arc<Route>,
    exchange: &mut Exchange,
    proxy: &Arc<Proxy>,
    live: &Live,
) -> Result<Tunnel, Error> {
    let room = Room::take(proxy, live.limits.tunnels, memory::REQUEST)?;
    let permit = if route.limiter.is_unlimited() {
        None
    } else {
        let permit = {
            let asked = RequestAttributes {
                caller: &|| Caller::default(),
                method: &Method::CONNECT,
                path: "",
                target,
            };
            route.limiter.admit(asked, || None).await?.held()
        };
        exchange.waited(permit.waited());
        Some(permit)
    };
    exchange.asked_upstream();
    let opened = connect::open(target, &route.endpoint, proxy.ways(live)).await;
    permit.iter().for_each(Permit::used);
    let upstream = opened?;
    Ok(Tunnel {
        idle: route.destination.timeouts.idle,
        permit,
        room,
        upstream,
    })
}

impl Tunnel {
    /// Says 200; then the bytes go through, in a future that holds as little as it can.
    pub(super) fn start(
        self,
        mut exchange: Box<Exchange>,
        proxy: Arc<Proxy>,
        busy: ExchangeGuard,
    ) -> Answer<Io> {
        exchange.tunnel();
        let join = move |app, early| -> TakenOver {
            drop(busy);
            let Self {
                idle,
                permit,
                room,
                upstream,
            } = self;
            let held = (permit, room);
            match app {
                Io::Tcp(app) => {
                    // Made out here: what a future is given and what it makes of that would both stay in it.
                    let mut joined = Joined::new(app, upstream, early);
                    Box::pin(async move {
                        let moved = joined.run(idle, &proxy.drain).await;
                        end(exchange, moved);
                        drop(held);
                    })
                }
                Io::Other(app) => Box::pin(async move {
                    let app = Rewound::new(early, app);
                    let moved = splice::copy(app, upstream, idle, &proxy.drain).await;
                    end(exchange, moved);
                    drop(held);
                }),
            }
        };
        Answer::Switch(Response::new(()), Box::new(join))
    }
}

fn end(mut exchange: Box<Exchange>, moved: Moved) {
    exchange.sent(moved.sent);
    exchange.received(moved.received);
    exchange.tunnel_ended(moved.end);
}

impl Room {
    /// `bytes`: of memory.
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

impl Drop for Room {
    fn drop(&mut self) {
        self.proxy.tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}

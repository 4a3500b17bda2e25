//! The door for the app: accept, the cap on connections, HTTP/1.1.
//!
//! Every worker accepts from the same sockets, so a busy worker takes less; where one has clearly more connections
//! than another it hands the new one over. What a request means is not decided here.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use crate::descriptors::DescriptorPair;
use crate::memory::{self, MEMORY, Reservation};
use crate::proxy::{self, Proxy};
use crate::stream::{Io, bound_buffers};

/// A socket that accepts, registered with one worker.
#[derive(Debug)]
pub(crate) enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// How many connections each worker has, and how to hand one over.
#[derive(Debug)]
pub(crate) struct Floor {
    pub(crate) desks: Vec<Desk>,
}

/// One worker, as its neighbours see it.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) connections: AtomicUsize,
    pub(crate) inbox: mpsc::UnboundedSender<HandOver>,
}

/// A connection on its way to another worker. It has its place there already, so that the next one is not sent after it
/// by a count that is out of date.
#[derive(Debug)]
pub(crate) struct HandOver {
    pair: DescriptorPair,
    seat: Seat,
    stream: std::net::TcpStream,
}

/// A connection's place: one of its worker's, one of all that the configuration allows.
#[derive(Debug)]
struct Seat {
    floor: Arc<Floor>,
    desk: usize,
    _held: Reservation,
}

/// Accepts until the task is dropped. No error ends it: the process must not go down because of what arrives.
pub(crate) async fn accept(door: Door, desk: usize, floor: Arc<Floor>, proxy: Arc<Proxy>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = match &door {
            Door::Tcp(listener) => listener.accept().await.map(|(stream, _)| Io::Tcp(stream)),
            Door::Unix(listener) => listener.accept().await.map(|(stream, _)| Io::Other(stream)),
        };
        match accepted {
            Ok(io) => {
                pause = FIRST_PAUSE;
                welcome(io, desk, &floor, &proxy);
            }
            Err(error) if is_about_the_connection(&error) => {}
            Err(error) => {
                // Out of descriptors, most likely: others must close first, and spinning would not help them.
                tracing::warn!(error = %error, "cannot accept connections for a moment");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }
}

/// Serves the connections that other workers hand over.
pub(crate) async fn take_over(mut inbox: mpsc::UnboundedReceiver<HandOver>, proxy: Arc<Proxy>) {
    while let Some(HandOver { pair, seat, stream }) = inbox.recv().await {
        if let Ok(stream) = tokio::net::TcpStream::from_std(stream) {
            serve(Io::Tcp(stream), seat, pair, Arc::clone(&proxy));
        }
    }
}

fn welcome(io: Io, desk: usize, floor: &Arc<Floor>, proxy: &Arc<Proxy>) {
    let pair = match DescriptorPair::take() {
        Some(pair) if floor.connections() < proxy.live.load().limits.connections => pair,
        Some(_) | None => {
            proxy.telemetry.connection_limit_reached();
            return turn_away(&io);
        }
    };
    io.set_nodelay();
    let io = match io {
        Io::Tcp(stream) => match floor.hand_over(stream, pair, desk) {
            Some((stream, pair)) => {
                return serve(Io::Tcp(stream), Seat::take(desk, floor), pair, Arc::clone(proxy));
            }
            None => return,
        },
        Io::Other(stream) => {
            if let Some(bytes) = MEMORY.kernel_buffer() {
                bound_buffers(&SockRef::from(&stream), bytes);
            }
            Io::Other(stream)
        }
    };
    serve(io, Seat::take(desk, floor), pair, Arc::clone(proxy));
}

/// `pair`: the descriptors of the connection, whatever becomes of it.
fn serve(io: Io, seat: Seat, pair: DescriptorPair, proxy: Arc<Proxy>) {
    tokio::spawn(async move {
        let (of_requests, bond) = (Arc::clone(&proxy), Arc::default());
        let same = Arc::clone(&bond);
        // Boxed, to be gone by the time that the connection has become a tunnel.
        let requests = Box::pin(proxy::serve_h1(io, same, of_requests, move |request| {
            proxy::handle(request, Arc::clone(&bond), Arc::clone(&proxy))
        }));
        let rest = requests.await;
        drop(seat);
        if let Some(rest) = rest {
            rest.await;
        }
        drop(pair);
    });
}

/// The cap is reached: the app is told, in as few bytes as can be. At once: nothing of a crowd may hold a descriptor.
fn turn_away(io: &Io) {
    let socket = match io {
        Io::Tcp(stream) => SockRef::from(stream),
        Io::Other(stream) => SockRef::from(stream),
    };
    // A fresh socket takes so little.
    let _ = socket.send(FULL.as_bytes());
    let _ = socket.shutdown(Shutdown::Write);
}

impl Floor {
    fn connections(&self) -> usize {
        self.desks
            .iter()
            .map(|desk| desk.connections.load(Ordering::Relaxed))
            .sum()
    }

    /// Gives the stream to a worker with clearly fewer connections, or gives it back.
    fn hand_over(
        self: &Arc<Self>,
        stream: tokio::net::TcpStream,
        pair: DescriptorPair,
        desk: usize,
    ) -> Option<(tokio::net::TcpStream, DescriptorPair)> {
        let own = self.desks[desk].connections.load(Ordering::Relaxed);
        let counts = self
            .desks
            .iter()
            .map(|desk| desk.connections.load(Ordering::Relaxed));
        let Some((least, count)) = counts.enumerate().min_by_key(|(_, count)| *count) else {
            return Some((stream, pair));
        };
        if own < count + CLEARLY_MORE {
            return Some((stream, pair));
        }
        if let Ok(stream) = stream.into_std() {
            // A worker that is gone cannot take it; the app sees a closed connection, as it would anyway.
            let seat = Seat::take(least, self);
            let _ = self.desks[least].inbox.send(HandOver { pair, seat, stream });
        }
        None
    }
}

impl Seat {
    fn take(desk: usize, floor: &Arc<Floor>) -> Self {
        floor.desks[desk].connections.fetch_add(1, Ordering::Relaxed);
        Self {
            floor: Arc::clone(floor),
            desk,
            _held: Reservation::of(memory::CONNECTION),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.floor.desks[self.desk]
            .connections
            .fetch_sub(1, Ordering::Relaxed);
    }
}

/// Errors of the one connection that was being accepted, not of accepting.
fn is_about_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

const CLEARLY_MORE: usize = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_secs(1);

const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\n\
    proxy-status: outrider; error=connection_limit_reached; details=\"limits.connections\"\r\n\
    content-type: application/problem+json\r\ncontent-length: 181\r\nretry-after: 1\r\nconnection: close\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\
    \"detail\":\"outrider has as many connections as limits.connections or its limit on open files allows: ask again soon\"}";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the app's end of a connection")]
    async fn a_burst_is_dealt_out_before_any_worker_has_looked_up() {
        let (desks, _inboxes): (Vec<_>, Vec<_>) = (0..3)
            .map(|_| {
                let (inbox, handed_over) = mpsc::unbounded_channel();
                let connections = AtomicUsize::new(0);
                (Desk { connections, inbox }, handed_over)
            })
            .unzip();
        let floor = Arc::new(Floor { desks });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut kept = Vec::new();
        for _ in 0..60 {
            let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
            let pair = DescriptorPair::take().unwrap();
            if let Some(stream) = floor.hand_over(stream.await.unwrap(), pair, 0) {
                kept.push((Seat::take(0, &floor), stream));
            }
        }
        assert_eq!(floor.connections(), 60);
        for desk in &floor.desks {
            let count = desk.connections.load(Ordering::Relaxed);
            assert!((16..=24).contains(&count), "{count}");
        }
    }

    #[test]
    fn the_refusal_at_the_cap_is_as_long_as_it_says() {
        let (head, body) = FULL.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len())),
            "{}",
            body.len()
        );
    }
}

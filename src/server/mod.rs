//! Accepts the app's connections, and refuses those beyond `limits.connections`.
//!
//! Every worker accepts from the same sockets, so a busy worker takes fewer connections. A worker that has clearly more
//! connections than another one hands the new one over. What a request means is decided in `proxy`.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use crate::descriptors::DescriptorPair;
use crate::http1::server::NextWork;
use crate::memory::{self, MEMORY, Reservation};
use crate::panics::caught;
use crate::proxy::{self, Proxy};
use crate::stream::{Io, OtherStream, Reset as _, bound_buffers};
use crate::upstream::sweeper;

/// A worker hands a connection over if it has so many more than another one.
const CLEARLY_MORE: usize = 4;
/// After the first failure to accept; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// The answer to a connection beyond the limit.
const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\n\
    proxy-status: outrider; error=connection_limit_reached; details=\"limits.connections\"\r\n\
    content-type: application/problem+json\r\ncontent-length: 181\r\nretry-after: 1\r\nconnection: close\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\
    \"detail\":\"outrider has as many connections as limits.connections or its limit on open files allows: ask again soon\"}";

/// A socket that accepts, registered with one worker.
#[derive(Debug)]
pub(crate) enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The connections of all workers: how many each has, and how to hand one over.
#[derive(Debug)]
pub(crate) struct WorkerConnections {
    pub(crate) handles: Vec<WorkerHandle>,
}

/// One worker, as the other workers see it.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    pub(crate) connections: AtomicUsize,
    pub(crate) inbox: mpsc::UnboundedSender<Handover>,
}

/// A connection that is handed to another worker. It is counted there already: otherwise a burst would all go to the same
/// worker, whose count would still be low.
#[derive(Debug)]
pub(crate) struct Handover {
    door: Door,
    pair: DescriptorPair,
    slot: ConnectionSlot,
    stream: std::net::TcpStream,
}

/// What a listener leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// The proxy: HTTP.
    Proxy,
    /// The route service: HTTP of the platform's router.
    RouteService,
    /// The entry of `tcp` with this name.
    Tcp(Arc<str>),
}

/// Counts one connection, with its worker and towards `limits.connections`, until it is dropped.
#[derive(Debug)]
struct ConnectionSlot {
    workers: Arc<WorkerConnections>,
    worker: usize,
    _held: Reservation,
}

/// Accepts connections until the task is dropped. No error ends it: what arrives must not stop the process.
pub(crate) async fn accept(
    acceptor: Acceptor,
    door: Door,
    worker: usize,
    workers: Arc<WorkerConnections>,
    proxy: Arc<Proxy>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = match &acceptor {
            Acceptor::Tcp(listener) => listener.accept().await.map(|(stream, _)| Io::Tcp(stream)),
            Acceptor::Unix(listener) => {
                let accepted = listener.accept().await;
                accepted.map(|(stream, _)| Io::Other(OtherStream::Unix(stream)))
            }
        };
        match accepted {
            Ok(io) => {
                pause = FIRST_PAUSE;
                // A panic must not close the door to all that come after.
                let _ = caught(|| admit(io, &door, worker, &workers, &proxy));
            }
            Err(error) if is_about_the_connection(&error) => {}
            Err(error) => {
                // Most likely there are no descriptors left: other connections must close first, and a busy loop would not help.
                tracing::warn!(error = %error, "cannot accept connections for a moment");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }
}

/// Serves the connections that other workers hand over.
pub(crate) async fn take_over(mut inbox: mpsc::UnboundedReceiver<Handover>, proxy: Arc<Proxy>) {
    while let Some(handover) = inbox.recv().await {
        let Handover {
            door,
            pair,
            slot,
            stream,
        } = handover;
        if let Ok(stream) = tokio::net::TcpStream::from_std(stream) {
            serve(Io::Tcp(stream), door, slot, pair, Arc::clone(&proxy));
        }
    }
}

fn admit(io: Io, door: &Door, worker: usize, workers: &Arc<WorkerConnections>, proxy: &Arc<Proxy>) {
    let socket = match &io {
        Io::Tcp(stream) => SockRef::from(stream),
        Io::Other(OtherStream::Unix(stream)) => SockRef::from(stream),
        // Never of an acceptor.
        Io::Other(OtherStream::Tls(_)) => return,
    };
    let pair = match DescriptorPair::take() {
        Some(pair) if workers.connections() < proxy.live.load().limits.connections => pair,
        Some(_) | None => {
            proxy.telemetry.connection_limit_reached();
            return match door {
                Door::Proxy | Door::RouteService => refuse_at_capacity(&socket),
                // None of these protocols has words that hold before anything else is said.
                Door::Tcp(_) => io.reset(),
            };
        }
    };
    if matches!(io, Io::Other(_))
        && let Some(bytes) = MEMORY.kernel_buffer()
    {
        bound_buffers(&socket, bytes);
    }
    let (io, pair) = match io {
        Io::Tcp(stream) => match workers.hand_over(stream, door, pair, worker) {
            Some((stream, pair)) => (Io::Tcp(stream), pair),
            None => return,
        },
        Io::Other(_) => (io, pair),
    };
    let slot = ConnectionSlot::take(worker, workers);
    serve(io, door.clone(), slot, pair, Arc::clone(proxy));
}

/// Serves one connection. `pair` stands for its descriptors, and lives as long as it does, also as a tunnel.
fn serve(io: Io, door: Door, slot: ConnectionSlot, pair: DescriptorPair, proxy: Arc<Proxy>) {
    sweeper::arrived();
    let mut serving = match door {
        Door::Proxy => proxy::serve_client(io, None, proxy),
        Door::RouteService => proxy::route_service::serve(io, proxy),
        Door::Tcp(name) => {
            tokio::spawn(async move {
                proxy::tcp::serve(io, &name, slot, &proxy).await;
                drop(pair);
            });
            return;
        }
    };
    tokio::spawn(async move {
        // Each is freed before the next begins.
        let tunnel = loop {
            match serving.await {
                Some(NextWork::Serve(next)) => serving = next,
                Some(NextWork::Tunnel(tunnel)) => break Some(tunnel),
                None => break None,
            }
        };
        drop(slot);
        if let Some(tunnel) = tunnel {
            tunnel.await;
        }
        drop(pair);
    });
}

/// Answers 503 without waiting for the request: a crowd of connections must not hold descriptors.
fn refuse_at_capacity(socket: &SockRef<'_>) {
    // The send buffer of a new socket has room for it.
    let _ = socket.send(FULL.as_bytes());
    let _ = socket.shutdown(Shutdown::Write);
}

impl WorkerConnections {
    fn connections(&self) -> usize {
        self.handles
            .iter()
            .map(|worker| worker.connections.load(Ordering::Relaxed))
            .sum()
    }

    /// Hands the stream to a worker with clearly fewer connections, or returns it.
    fn hand_over(
        self: &Arc<Self>,
        stream: tokio::net::TcpStream,
        door: &Door,
        pair: DescriptorPair,
        worker: usize,
    ) -> Option<(tokio::net::TcpStream, DescriptorPair)> {
        let own = self.handles[worker].connections.load(Ordering::Relaxed);
        let counts = self
            .handles
            .iter()
            .map(|worker| worker.connections.load(Ordering::Relaxed));
        let Some((least, count)) = counts.enumerate().min_by_key(|(_, count)| *count) else {
            return Some((stream, pair));
        };
        if own < count + CLEARLY_MORE {
            return Some((stream, pair));
        }
        if let Ok(stream) = stream.into_std() {
            // If that worker has ended the connection closes, as the app's other connections do then.
            let slot = ConnectionSlot::take(least, self);
            let door = door.clone();
            let _ = self.handles[least].inbox.send(Handover {
                door,
                pair,
                slot,
                stream,
            });
        }
        None
    }
}

impl ConnectionSlot {
    fn take(worker: usize, workers: &Arc<WorkerConnections>) -> Self {
        workers.handles[worker]
            .connections
            .fetch_add(1, Ordering::Relaxed);
        Self {
            workers: Arc::clone(workers),
            worker,
            _held: Reservation::of(memory::CONNECTION),
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.workers.handles[self.worker]
            .connections
            .fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether the error concerns only the connection that was being accepted.
fn is_about_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the app's end of a connection")]
    async fn a_burst_is_spread_before_any_worker_has_run() {
        let (handles, _inboxes): (Vec<_>, Vec<_>) = (0..3)
            .map(|_| {
                let (inbox, handed_over) = mpsc::unbounded_channel();
                let connections = AtomicUsize::new(0);
                (WorkerHandle { connections, inbox }, handed_over)
            })
            .unzip();
        let workers = Arc::new(WorkerConnections { handles });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut kept = Vec::new();
        for _ in 0..60 {
            let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
            let pair = DescriptorPair::take().unwrap();
            if let Some(stream) = workers.hand_over(stream.await.unwrap(), &Door::Proxy, pair, 0) {
                kept.push((ConnectionSlot::take(0, &workers), stream));
            }
        }
        assert_eq!(workers.connections(), 60);
        for worker in &workers.handles {
            let count = worker.connections.load(Ordering::Relaxed);
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

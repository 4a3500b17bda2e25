//! The workers: each has one thread, one runtime, and its share of the connections and of the upstream pool.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use socket2::SockRef;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::panics::caught;
use crate::proxy::Proxy;
use crate::server::{self, Acceptor, Door, WorkerConnections, WorkerHandle};
use crate::upstream::{pool, sweeper};

/// A socket that accepts, not yet registered with any worker.
#[derive(Debug)]
pub(crate) enum BoundListener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// The ports that a reload may change, and what each leads to.
pub(crate) type OpenDoors = Vec<(Door, Arc<BoundListener>)>;

/// All workers. Dropping it stops them where they are.
#[derive(Debug)]
pub(crate) struct Workers {
    doors: watch::Sender<OpenDoors>,
    stop: watch::Sender<bool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads that accept from `listeners`.
    pub(crate) fn start(count: usize, listeners: &[BoundListener], proxy: &Arc<Proxy>) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let doors = watch::Sender::new(OpenDoors::new());
        let (handles, inboxes): (Vec<_>, Vec<_>) = (0..count.max(1))
            .map(|_| {
                let (inbox, handed_over) = mpsc::unbounded_channel();
                (
                    WorkerHandle {
                        connections: AtomicUsize::new(0),
                        inbox,
                    },
                    handed_over,
                )
            })
            .unzip();
        let connections = Arc::new(WorkerConnections { handles });
        let mut workers = Self {
            doors,
            stop,
            threads: Vec::new(),
        };
        for (worker, inbox) in inboxes.into_iter().enumerate() {
            let listeners = listeners
                .iter()
                .map(BoundListener::try_clone)
                .collect::<io::Result<Vec<_>>>()?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let (connections, proxy, mut stopped) =
                (Arc::clone(&connections), Arc::clone(proxy), stopped.clone());
            let doors = workers.doors.subscribe();
            let thread = thread::Builder::new()
                .name(format!("worker-{worker}"))
                .spawn(move || {
                    runtime.block_on(async move {
                        for listener in listeners {
                            let acceptor = listener.register();
                            let _ = accept(acceptor, Door::Proxy, worker, &connections, &proxy);
                        }
                        tokio::spawn(keep_doors(doors, worker, connections, Arc::clone(&proxy)));
                        tokio::spawn(server::take_over(inbox, Arc::clone(&proxy)));
                        tokio::spawn(sweep(proxy));
                        // An error means that the sender is gone: that is the end, too.
                        let _ = stopped.wait_for(|stop| *stop).await;
                    });
                    // Whatever still runs is dropped here, without waiting for blocking look-ups.
                    runtime.shutdown_background();
                })?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Opens these ports, and closes the others of before. Connections go on.
    pub(crate) fn set_doors(&self, doors: OpenDoors) {
        self.doors.send_replace(doors);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl BoundListener {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(listener) => Self::Unix(listener.try_clone()?),
        })
    }

    fn register(self) -> io::Result<Acceptor> {
        Ok(match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                // Linux gives it to each connection that is accepted. Without it, small writes wait for the peer's delayed
                // acknowledgement, 40 ms each.
                SockRef::from(&listener).set_tcp_nodelay(true)?;
                Acceptor::Tcp(TcpListener::from_std(listener)?)
            }
            Self::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Acceptor::Unix(UnixListener::from_std(listener)?)
            }
        })
    }
}

/// Accepts from a socket of this worker. `None`: that does not work, which is logged.
fn accept(
    acceptor: io::Result<Acceptor>,
    door: Door,
    worker: usize,
    connections: &Arc<WorkerConnections>,
    proxy: &Arc<Proxy>,
) -> Option<JoinHandle<()>> {
    match acceptor {
        Ok(acceptor) => {
            let (connections, proxy) = (Arc::clone(connections), Arc::clone(proxy));
            Some(tokio::spawn(server::accept(
                acceptor,
                door,
                worker,
                connections,
                proxy,
            )))
        }
        Err(error) => {
            tracing::error!(error = %error, "a worker cannot listen");
            None
        }
    }
}

/// Accepts from the ports that there are at the moment.
async fn keep_doors(
    mut doors: watch::Receiver<OpenDoors>,
    worker: usize,
    connections: Arc<WorkerConnections>,
    proxy: Arc<Proxy>,
) {
    let mut open: Vec<(Door, Arc<BoundListener>, JoinHandle<()>)> = Vec::new();
    loop {
        let wanted = doors.borrow_and_update().clone();
        let mut closing = std::mem::take(&mut open);
        for (door, listener) in wanted {
            let is_same = |(own, other, _): &(Door, Arc<BoundListener>, _)| {
                *own == door && Arc::ptr_eq(other, &listener)
            };
            let task = if let Some(place) = closing.iter().position(is_same) {
                Some(closing.swap_remove(place).2)
            } else {
                let acceptor = listener.try_clone().and_then(BoundListener::register);
                accept(acceptor, door.clone(), worker, &connections, &proxy)
            };
            open.extend(task.map(|task| (door, listener, task)));
        }
        for (_, _, task) in closing {
            task.abort();
        }
        if doors.changed().await.is_err() {
            return;
        }
    }
}

/// Closes pooled connections that are too old, idle for too long, or of an identity that is not used any more. Sleeps while
/// the pool is empty and no connection comes.
async fn sweep(proxy: Arc<Proxy>) {
    let sweep = || {
        let live = proxy.live.load_full();
        caught(|| pool::sweep(|endpoint| live.has_endpoint(endpoint)))
    };
    loop {
        if sweep() == Ok(true) {
            sweeper::until_stirred().await;
            // At once: what comes first may be over by now.
            let _ = sweep();
        }
        tokio::time::sleep(pool::SWEEP).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_accepted_sends_small_writes_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = BoundListener::Tcp(listener).register().unwrap();
        let _app = std::net::TcpStream::connect(address).unwrap();
        let Acceptor::Tcp(acceptor) = acceptor else {
            panic!("another acceptor");
        };
        let (accepted, _) = acceptor.accept().await.unwrap();
        assert!(accepted.nodelay().unwrap());
    }
}

//! Two streams joined: zero copy where both are sockets, counted, with a limit on silence.
//!
//! A read goes through a buffer that the worker's tunnels share, so an idle tunnel holds none. When a read fills that
//! buffer the direction moves on by splice(2) through a pipe from a small store, until the source has nothing
//! more at once. A half-close is passed on; a reset is passed on as a reset.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rustix::pipe::{PipeFlags, SpliceFlags};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::drain::Drain;
use crate::telemetry::TunnelEnd;

/// What went through, as the app sees it, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) end: TunnelEnd,
}

/// Joins two sockets until both directions have ended, one fails, or neither has moved a byte for `idle`.
///
/// `early` is what the app had sent before the tunnel stood.
pub(super) async fn join(
    mut app: TcpStream,
    mut upstream: TcpStream,
    early: Bytes,
    idle: Duration,
    drain: &Drain,
) -> Moved {
    let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
    let end = {
        let (app_read, app_write) = app.split();
        let (upstream_read, upstream_write) = upstream.split();
        let upload = async {
            if !early.is_empty() {
                Box::pin(write_all(upstream_write.as_ref(), &early)).await?;
                sent.fetch_add(early.len() as u64, Ordering::Relaxed);
                drop(early);
            }
            one_way(app_read, upstream_write, &sent, drain).await
        };
        let download = one_way(upstream_read, app_write, &received, drain);
        race(upload, download, &sent, &received, idle).await
    };
    if end == TunnelEnd::Failed {
        // What ended in a reset on one side must not look like a tidy end on the other.
        for stream in [&app, &upstream] {
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
    Moved {
        sent: sent.into_inner(),
        received: received.into_inner(),
        end,
    }
}

/// The same for streams that are not both sockets.
pub(super) async fn copy<A, B>(app: A, upstream: B, idle: Duration, drain: &Drain) -> Moved
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
    let (app_read, app_write) = tokio::io::split(app);
    let (upstream_read, upstream_write) = tokio::io::split(upstream);
    let upload = copy_one_way(app_read, upstream_write, &sent, drain);
    let download = copy_one_way(upstream_read, app_write, &received, drain);
    let end = race(upload, download, &sent, &received, idle).await;
    Moved {
        sent: sent.into_inner(),
        received: received.into_inner(),
        end,
    }
}

async fn race(
    upload: impl Future<Output = io::Result<()>>,
    download: impl Future<Output = io::Result<()>>,
    sent: &AtomicU64,
    received: &AtomicU64,
    idle: Duration,
) -> TunnelEnd {
    let both = async { tokio::try_join!(upload, download) };
    let silence = async {
        let mut last = None;
        loop {
            tokio::time::sleep(idle).await;
            let now = Some((sent.load(Ordering::Relaxed), received.load(Ordering::Relaxed)));
            if std::mem::replace(&mut last, now) == now {
                return;
            }
        }
    };
    tokio::select! {
        result = both => if result.is_ok() { TunnelEnd::Closed } else { TunnelEnd::Failed },
        () = silence => TunnelEnd::Idle,
    }
}

async fn one_way(
    mut source: ReadHalf<'_>,
    sink: WriteHalf<'_>,
    count: &AtomicU64,
    drain: &Drain,
) -> io::Result<()> {
    let sink_socket: &TcpStream = sink.as_ref();
    loop {
        let step = poll_fn(|cx| poll_step(cx, &mut source, sink_socket)).await?;
        drain.moved();
        match step {
            Step::End => break,
            Step::Moved(bytes) => {
                count.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Step::Full(bytes) => {
                count.fetch_add(bytes as u64, Ordering::Relaxed);
                // Boxed, like all that an idle tunnel has no use for: its future is as large as the largest step.
                if Box::pin(bulk(source.as_ref(), sink_socket, count, drain)).await? {
                    break;
                }
            }
            Step::Left(moved, left) => {
                count.fetch_add((moved + left.len()) as u64, Ordering::Relaxed);
                Box::pin(write_all(sink_socket, &left)).await?;
            }
        }
    }
    // An error means that the other side has gone already: its own direction reports that.
    let _ = rustix::net::shutdown(sink_socket.as_fd(), rustix::net::Shutdown::Write);
    Ok(())
}

enum Step {
    End,
    /// The source has nothing more at once.
    Moved(usize),
    /// The read filled the buffer: there is likely much more.
    Full(usize),
    /// So much was written; the sink took no more.
    Left(usize, Box<[u8]>),
}

/// One read into the worker's buffer and one write out of it.
fn poll_step(cx: &mut Context<'_>, source: &mut ReadHalf<'_>, sink: &TcpStream) -> Poll<io::Result<Step>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut read = ReadBuf::new(buffer);
        // poll_read, not try_read: tokio takes a short read for a drained socket and spares the call that says so.
        match Pin::new(source).poll_read(cx, &mut read) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(result) => result?,
        }
        let got = read.filled();
        if got.is_empty() {
            return Poll::Ready(Ok(Step::End));
        }
        let written = match sink.try_write(got) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Poll::Ready(Err(error)),
        };
        Poll::Ready(Ok(if written < got.len() {
            Step::Left(written, got[written..].into())
        } else if got.len() == CHUNK {
            Step::Full(written)
        } else {
            Step::Moved(written)
        }))
    })
}

/// Moves bytes inside the kernel until the source has nothing more at once. True at its end.
async fn bulk(source: &TcpStream, sink: &TcpStream, count: &AtomicU64, drain: &Drain) -> io::Result<bool> {
    let Some((out_of, into)) = PIPES.with_borrow_mut(Vec::pop).or_else(new_pipe) else {
        return Ok(false);
    };
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    loop {
        let filled = source.try_io(Interest::READABLE, || {
            Ok(rustix::pipe::splice(
                source.as_fd(),
                None,
                into.as_fd(),
                None,
                PIPE,
                flags,
            )?)
        });
        let mut inside = match filled {
            // An empty pipe can serve the next tunnel; one with bytes inside is dropped by the error path.
            Ok(0) => {
                keep_pipe((out_of, into));
                return Ok(true);
            }
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                keep_pipe((out_of, into));
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        while inside > 0 {
            let moved = (sink.async_io(Interest::WRITABLE, || {
                Ok(rustix::pipe::splice(
                    out_of.as_fd(),
                    None,
                    sink.as_fd(),
                    None,
                    inside,
                    flags,
                )?)
            }))
            .await?;
            inside -= moved;
            count.fetch_add(moved as u64, Ordering::Relaxed);
        }
        drain.moved();
        // A sink and a source that are both fast must not keep the worker from its other tasks.
        tokio::task::consume_budget().await;
    }
}

fn new_pipe() -> Option<(OwnedFd, OwnedFd)> {
    let (out_of, into) = rustix::pipe::pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
    // A refusal (the user's limit on pipe memory) leaves the default size: slower, but right.
    let _ = rustix::pipe::fcntl_setpipe_size(&into, PIPE);
    Some((out_of, into))
}

fn keep_pipe(pipe: (OwnedFd, OwnedFd)) {
    PIPES.with_borrow_mut(|pipes| {
        if pipes.len() < KEPT_PIPES {
            pipes.push(pipe);
        }
    });
}

async fn write_all(sink: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        sink.writable().await?;
        match sink.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn copy_one_way(
    mut source: impl AsyncRead + Unpin,
    mut sink: impl AsyncWrite + Unpin,
    count: &AtomicU64,
    drain: &Drain,
) -> io::Result<()> {
    loop {
        let chunk = poll_fn(|cx| poll_chunk(cx, &mut source)).await?;
        if chunk.is_empty() {
            break;
        }
        sink.write_all(&chunk).await?;
        sink.flush().await?;
        count.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        drain.moved();
    }
    sink.shutdown().await
}

/// One read through the worker's buffer; only what came is kept while the sink is waited for.
fn poll_chunk(cx: &mut Context<'_>, source: &mut (impl AsyncRead + Unpin)) -> Poll<io::Result<Box<[u8]>>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut read = ReadBuf::new(buffer);
        match Pin::new(source).poll_read(cx, &mut read) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => Poll::Ready(result.map(|()| read.filled().into())),
        }
    })
}

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
    static PIPES: RefCell<Vec<(OwnedFd, OwnedFd)>> = const { RefCell::new(Vec::new()) };
}

const CHUNK: usize = 64 * 1024;
const PIPE: usize = 1024 * 1024;
const KEPT_PIPES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// An idle tunnel is its two sockets and this: what grows here grows with every tunnel.
    #[tokio::test]
    async fn the_future_of_an_idle_tunnel_stays_small() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || {
            let stream = std::net::TcpStream::connect(address).unwrap();
            stream.set_nonblocking(true).unwrap();
            TcpStream::from_std(stream).unwrap()
        };
        let drain = Drain::default();
        let tunnel = join(connect(), connect(), Bytes::new(), Duration::from_secs(1), &drain);
        let size = size_of_val(&tunnel);
        assert!(size <= 1600, "{size} bytes");
    }
}

//! Joins two streams: moves and counts bytes in both directions, and ends after a time of silence.
//!
//! A read uses a buffer that all tunnels of the worker share, so an idle tunnel holds none. When a read fills that
//! buffer and both ends are sockets, the direction continues with splice(2), which copies nothing, through one of a
//! few kept pipes, until the source has no more bytes at the moment. A half-close is passed on, and a reset as a
//! reset.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustix::pipe::{PipeFlags, SpliceFlags};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::descriptors::DescriptorPair;
use crate::drain::Drain;
use crate::memory::{MEMORY, Reservation};
use crate::stream;
use crate::telemetry::TunnelEnd;

const PIPE: usize = 1024 * 1024;
const KEPT_PIPES: usize = 16;

/// How often a pipe is filled before other tasks get their turn.
const ROUNDS: usize = 16;

/// The byte counts of a tunnel, as the app sees them, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) end: TunnelEnd,
}

/// Joins two streams of which at least one is not a socket. See [`Joined::run`].
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
    tokio::select! {
        result = both => if result.is_ok() { TunnelEnd::Closed } else { TunnelEnd::Failed },
        () = silence(sent, received, idle) => TunnelEnd::Idle,
    }
}

/// Returns when neither count has changed for `idle`.
pub(super) async fn silence(sent: &AtomicU64, received: &AtomicU64, idle: Duration) {
    let mut last = None;
    loop {
        tokio::time::sleep(idle).await;
        let now = Some((sent.load(Ordering::Relaxed), received.load(Ordering::Relaxed)));
        if std::mem::replace(&mut last, now) == now {
            return;
        }
    }
}

/// Two joined sockets and the state of each direction.
pub(super) struct Joined {
    app: TcpStream,
    upstream: TcpStream,
    upload: Direction,
    download: Direction,
    idle: Duration,
    /// How many bytes had been moved when `idle` was last over.
    last: Option<u64>,
}

/// One direction. An idle one needs 16 bytes.
struct Direction {
    moved: u64,
    state: State,
}

enum State {
    /// Waits for the source.
    Open,
    /// Waits for the sink, which did not take all bytes at once.
    Unsent(Box<Unsent>),
    /// Moves many bytes through a pipe.
    Pipe(Box<Pipe>),
    Ended,
}

/// Bytes that the sink did not take. `_held` also counts the kernel's buffers before and behind them.
struct Unsent {
    bytes: Bytes,
    _held: Reservation,
}

/// A pipe and the number of bytes in it. A pipe with bytes inside is never used again.
struct Pipe {
    out_of: OwnedFd,
    into: OwnedFd,
    inside: usize,
    /// Memory, counted as for [`Unsent`].
    held: Reservation,
    _pair: DescriptorPair,
}

impl Joined {
    /// Joins two sockets. `early`: bytes that the app sent before the tunnel was open. `idle`: how long neither direction may be
    /// silent.
    pub(super) fn new(app: TcpStream, upstream: TcpStream, early: Bytes, idle: Duration) -> Self {
        Self {
            app,
            upstream,
            upload: Direction::new(early),
            download: Direction::new(Bytes::new()),
            idle,
            last: None,
        }
    }

    /// Moves bytes until both directions have ended, one fails, or both are silent; then calls `ended`.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps what it is given twice")]
    pub(super) fn run(mut self, drain: Drain, ended: impl FnOnce(Moved)) -> impl Future<Output = ()> {
        async move {
            let mut silence = std::pin::pin!(tokio::time::sleep(self.idle));
            let moved = poll_fn(|cx| self.poll_end(cx, silence.as_mut(), &drain)).await;
            ended(moved);
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, mut silence: Pin<&mut Sleep>, drain: &Drain) -> Poll<Moved> {
        let end = loop {
            if let Poll::Ready(end) = self.poll(cx, drain) {
                break end;
            }
            ready!(silence.as_mut().poll(cx));
            let now = Some(self.upload.moved.wrapping_add(self.download.moved));
            if std::mem::replace(&mut self.last, now) == now {
                break TunnelEnd::Idle;
            }
            silence.as_mut().reset(Instant::now() + self.idle);
        };
        if end == TunnelEnd::Failed {
            // A reset on one side must not look like an orderly end on the other.
            for stream in [&self.app, &self.upstream] {
                let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
        }
        Poll::Ready(Moved {
            sent: self.upload.moved,
            received: self.download.moved,
            end,
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>, drain: &Drain) -> Poll<TunnelEnd> {
        let before = (self.upload.progress(), self.download.progress());
        let upload = self.upload.poll(cx, &mut self.app, &self.upstream, before.1.1);
        let download = self
            .download
            .poll(cx, &mut self.upstream, &self.app, self.upload.progress().1);
        if (self.upload.progress(), self.download.progress()) != before {
            drain.moved();
        }
        match (upload, download) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(TunnelEnd::Failed),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(TunnelEnd::Closed),
            (Poll::Pending, _) | (_, Poll::Pending) => Poll::Pending,
        }
    }
}

impl Direction {
    fn new(early: Bytes) -> Self {
        let state = if early.is_empty() {
            State::Open
        } else {
            Unsent::state(early)
        };
        Self { moved: 0, state }
    }

    /// Returns a value that changes whenever something has happened.
    fn progress(&self) -> (u64, bool) {
        (self.moved, matches!(self.state, State::Ended))
    }

    /// Moves bytes. Ready once the source has ended and the sink was shut down, or one of them has failed.
    /// `is_last`: the other direction has ended.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut TcpStream,
        sink: &TcpStream,
        is_last: bool,
    ) -> Poll<io::Result<()>> {
        loop {
            let is_ended = match &mut self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Open => {
                    let step = ready!(poll_step(cx, source, sink))?;
                    self.moved += step.written as u64;
                    if !step.left.is_empty() {
                        self.state = Unsent::state(step.left);
                    } else if step.is_full
                        && let Some(mut pipe) = Pipe::take()
                    {
                        pipe.held.set(MEMORY.stuck());
                        self.state = State::Pipe(Box::new(pipe));
                    }
                    step.is_end
                }
                State::Unsent(left) => {
                    let written = ready!(poll_write(cx, sink, || sink.try_write(&left.bytes)))?;
                    self.moved += written as u64;
                    left.bytes.advance(written);
                    if left.bytes.is_empty() {
                        self.state = State::Open;
                    }
                    false
                }
                State::Pipe(pipe) => match ready!(pipe.poll(cx, source, sink, &mut self.moved))? {
                    PipeEnd::Dry => {
                        self.put_back_pipe(State::Open);
                        false
                    }
                    PipeEnd::Ended => {
                        self.put_back_pipe(State::Ended);
                        true
                    }
                },
            };
            if is_ended {
                self.state = State::Ended;
                // If the other direction has ended too, both sockets are about to be closed.
                if !is_last {
                    // An error means that the other side is gone already, which its direction reports.
                    let _ = rustix::net::shutdown(sink.as_fd(), rustix::net::Shutdown::Write);
                }
            }
        }
    }

    fn put_back_pipe(&mut self, next: State) {
        if let State::Pipe(mut pipe) = std::mem::replace(&mut self.state, next) {
            pipe.held.release();
            PIPES.with_borrow_mut(|pipes| {
                if pipes.len() < KEPT_PIPES {
                    pipes.push(*pipe);
                }
            });
        }
    }
}

impl Unsent {
    fn state(bytes: Bytes) -> State {
        let _held = Reservation::of(bytes.len() + MEMORY.stuck());
        State::Unsent(Box::new(Self { bytes, _held }))
    }
}

/// The result of one read and one write.
struct ReadStep {
    written: usize,
    /// Bytes that the sink did not take.
    left: Bytes,
    /// The read filled the buffer, so there is probably much more.
    is_full: bool,
    is_end: bool,
}

/// Reads once into the worker's buffer and writes once from it.
fn poll_step(cx: &mut Context<'_>, source: &mut TcpStream, sink: &TcpStream) -> Poll<io::Result<ReadStep>> {
    stream::with_buffer(|buffer| {
        let mut read = ReadBuf::new(buffer);
        // poll_read, not try_read: after a short read tokio knows that the socket is empty, and saves a system
        // call.
        ready!(Pin::new(source).poll_read(cx, &mut read))?;
        let is_full = read.remaining() == 0;
        let got = read.filled();
        let written = if got.is_empty() {
            0
        } else {
            match sink.try_write(got) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                written => written?,
            }
        };
        Poll::Ready(Ok(ReadStep {
            written,
            left: Bytes::copy_from_slice(&got[written..]),
            is_full,
            is_end: got.is_empty(),
        }))
    })
}

/// Waits until `sink` takes some bytes.
fn poll_write(
    cx: &mut Context<'_>,
    sink: &TcpStream,
    mut write: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(sink.poll_write_ready(cx))?;
        match write() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => return Poll::Ready(written),
        }
    }
}

/// Why a pipe is no longer used.
enum PipeEnd {
    /// The source has no more bytes at the moment.
    Dry,
    Ended,
}

impl Pipe {
    /// Takes a kept pipe or makes one. `None`: the system gives no pipe, and the bytes are copied.
    fn take() -> Option<Self> {
        PIPES.with_borrow_mut(Vec::pop).or_else(|| {
            let pair = DescriptorPair::take()?;
            let (out_of, into) = rustix::pipe::pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
            // On failure (the user's limit on pipe memory) the pipe keeps its default size, which is only slower.
            let size = MEMORY.kernel_buffer().map_or(PIPE, |most| most.min(PIPE));
            let _ = rustix::pipe::fcntl_setpipe_size(&into, size);
            Some(Self {
                out_of,
                into,
                inside: 0,
                held: Reservation::default(),
                _pair: pair,
            })
        })
    }

    /// Moves bytes inside the kernel until the source has no more at the moment. Then the pipe is empty.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        sink: &TcpStream,
        moved: &mut u64,
    ) -> Poll<io::Result<PipeEnd>> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        for _ in 0..ROUNDS {
            if self.inside == 0 {
                let filled = source.try_io(Interest::READABLE, || {
                    let (from, to) = (source.as_fd(), self.into.as_fd());
                    Ok(rustix::pipe::splice(from, None, to, None, PIPE, flags)?)
                });
                match filled {
                    Ok(0) => return Poll::Ready(Ok(PipeEnd::Ended)),
                    Ok(filled) => self.inside = filled,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Poll::Ready(Ok(PipeEnd::Dry));
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            while self.inside > 0 {
                let written = ready!(poll_write(cx, sink, || {
                    sink.try_io(Interest::WRITABLE, || {
                        let (from, to) = (self.out_of.as_fd(), sink.as_fd());
                        Ok(rustix::pipe::splice(from, None, to, None, self.inside, flags)?)
                    })
                }))?;
                self.inside -= written;
                *moved += written as u64;
            }
        }
        // Two fast sockets must not keep the worker from its other tasks.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

async fn copy_one_way(
    mut source: impl AsyncRead + Unpin,
    mut sink: impl AsyncWrite + Unpin,
    count: &AtomicU64,
    drain: &Drain,
) -> io::Result<()> {
    loop {
        let chunk = next_chunk(&mut source).await?;
        if chunk.is_empty() {
            break;
        }
        let held = Reservation::of(chunk.len() + MEMORY.stuck());
        sink.write_all(&chunk).await?;
        sink.flush().await?;
        drop(held);
        count.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        drain.moved();
    }
    sink.shutdown().await
}

/// Reads once; an empty chunk is the end.
pub(super) async fn next_chunk(source: &mut (impl AsyncRead + Unpin)) -> io::Result<Box<[u8]>> {
    poll_fn(|cx| poll_chunk(cx, source)).await
}

/// Reads once through the worker's buffer. Only the bytes that came are kept while we wait for the sink.
fn poll_chunk(cx: &mut Context<'_>, source: &mut (impl AsyncRead + Unpin)) -> Poll<io::Result<Box<[u8]>>> {
    stream::with_buffer(|buffer| {
        let mut read = ReadBuf::new(buffer);
        match Pin::new(source).poll_read(cx, &mut read) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => Poll::Ready(result.map(|()| read.filled().into())),
        }
    })
}

thread_local! {
    static PIPES: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Unit, keep};

    /// An idle tunnel consists of its two sockets and this future.
    #[tokio::test]
    async fn the_future_of_an_idle_tunnel_stays_small() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || {
            let stream = std::net::TcpStream::connect(address).unwrap();
            stream.set_nonblocking(true).unwrap();
            TcpStream::from_std(stream).unwrap()
        };
        let joined = Joined::new(connect(), connect(), Bytes::new(), Duration::from_secs(1));
        // What a tunnel holds beside: its record, its slot, its permit, its way.
        let held = ([0_u64; 5], Drain::default());
        let size = size_of_val(&joined.run(Drain::default(), move |_| drop(held)));
        keep(&[("future of an idle tunnel", size as f64, Unit::BytesOfType)]);
    }
}

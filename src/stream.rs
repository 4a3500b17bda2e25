//! The app's end of a connection: a TCP or a UNIX socket, and a stream with bytes put back in front.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep};

/// A connection from the app.
#[derive(Debug)]
pub(crate) enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A stream some of whose bytes have been read already, and are read again.
#[derive(Debug)]
pub(crate) struct Rewound<T> {
    first: Bytes,
    then: T,
}

/// A connection whose peer may have said all it wants to say, or may be gone: TCP tells the two alike.
///
/// While a request is being answered the end of the peer's bytes is held back: for a moment while there is no answer
/// yet, then it is told and the work for the request is given up; for as long as it takes while the answer goes out,
/// since a write to a peer that is gone fails by itself.
#[derive(Debug)]
pub(crate) struct Patient<T> {
    head: HeadWatch,
    phase: Arc<Phase>,
    /// Since the peer's end has been seen.
    ended: Option<Ended>,
    stream: T,
}

/// The end of a peer's bytes, held back for as long as `grace`, which depends on what is being done.
#[derive(Debug)]
struct Ended {
    doing: Doing,
    grace: Pin<Box<Sleep>>,
}

/// What a connection is busy with, shared by its stream and whoever answers.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    doing: AtomicU8,
    /// A head named both a length and a coding.
    is_ambiguous: AtomicBool,
    /// Heads that have been read.
    messages: AtomicU32,
}

/// See [`Phase`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Doing {
    /// Nothing, or reading a request.
    Idle = 0,
    /// No answer yet to a request without a body.
    Waiting = 1,
    /// No answer yet to a request whose body may still be under way.
    Uploading = 2,
    /// The answer goes out.
    Answering = 3,
    /// It is no HTTP any more: bytes pass as they are, and their end is told at once.
    Upgraded = 4,
}

impl Phase {
    pub(crate) fn set(&self, doing: Doing) {
        self.doing.store(doing as u8, Ordering::Relaxed);
    }

    /// A head has been read. True where it named both a Content-Length and a Transfer-Encoding: hyper drops the first
    /// without a word, and what two parsers would read differently must be refused (RFC 9112 section 6.3).
    pub(crate) fn begin(&self, doing: Doing) -> bool {
        self.set(doing);
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.is_ambiguous.swap(false, Ordering::Relaxed)
    }

    fn doing(&self) -> Doing {
        match self.doing.load(Ordering::Relaxed) {
            1 => Doing::Waiting,
            2 => Doing::Uploading,
            3 => Doing::Answering,
            4 => Doing::Upgraded,
            _ => Doing::Idle,
        }
    }
}

impl Doing {
    /// How long a peer that has said all may still want its answer.
    fn grace(self) -> Duration {
        match self {
            // The last answer may not have left the buffers yet.
            Self::Answering | Self::Idle | Self::Upgraded => FLUSH_GRACE,
            Self::Uploading => UPLOAD_GRACE,
            Self::Waiting => GRACE,
        }
    }
}

impl Io {
    /// Without it, small writes wait for the peer's delayed acknowledgement: 40 ms a time.
    pub(crate) fn set_nodelay(&self) {
        if let Self::Tcp(stream) = self {
            let _ = stream.set_nodelay(true);
        }
    }
}

impl<T> Rewound<T> {
    pub(crate) fn new(first: Bytes, then: T) -> Self {
        Self { first, then }
    }
}

impl<T> Patient<T> {
    pub(crate) fn new(stream: T, phase: Arc<Phase>) -> Self {
        Self {
            head: HeadWatch::default(),
            phase,
            ended: None,
            stream,
        }
    }

    pub(crate) fn into_inner(self) -> T {
        self.stream
    }
}

/// Looks at the bytes of each request head as they are read, for what hyper does not show.
///
/// Heads that are pipelined behind another are not looked at; whoever answers closes the connection after a message with
/// a Transfer-Encoding, so that none of them is ever read wrongly.
#[derive(Debug, Default)]
struct HeadWatch {
    /// The message whose head has been seen to its end.
    done: Option<u32>,
    /// A head that came in pieces, so far.
    partial: Vec<u8>,
}

impl HeadWatch {
    /// Whether the head that ends within `bytes` names both framings.
    fn is_ambiguous(&mut self, bytes: &[u8], phase: &Phase) -> bool {
        let message = phase.messages.load(Ordering::Relaxed);
        if self.done == Some(message) {
            return false;
        }
        // The usual case: one read, one whole head, no body.
        if self.partial.is_empty() && bytes.ends_with(b"\r\n\r\n") {
            self.done = Some(message);
            return names_both(bytes);
        }
        self.partial.extend_from_slice(bytes);
        let end = head_end(&self.partial);
        if end.is_none() && self.partial.len() < LARGEST_HEAD {
            return false;
        }
        self.done = Some(message);
        let partial = std::mem::take(&mut self.partial);
        names_both(&partial[..end.unwrap_or(partial.len())])
    }
}

/// The end of a head: an empty line, with or without its carriage return.
fn head_end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find(|at| matches!(&bytes[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

/// Whether the head at the start of `bytes` names both framings.
fn names_both(bytes: &[u8]) -> bool {
    // Cheap to see in most heads: hardly a name ends like this one. Whatever follows the head is cut off only then.
    if !has_field(bytes, CODING) {
        return false;
    }
    let head = &bytes[..head_end(bytes).unwrap_or(bytes.len())];
    has_field(head, CODING) && has_field(head, LENGTH)
}

/// Whether a line begins with `name`, which ends in a colon; in any case of letters.
fn has_field(head: &[u8], name: &[u8]) -> bool {
    let (last, colon) = (name[name.len() - 2], name[name.len() - 1]);
    [last.to_ascii_lowercase(), last.to_ascii_uppercase()]
        .iter()
        .any(|last| {
            memchr::memmem::find_iter(head, &[*last, colon]).any(|at| {
                let start = (at + 2).checked_sub(name.len() + 1);
                start.is_some_and(|start| {
                    head[start] == b'\n' && head[start + 1..at + 2].eq_ignore_ascii_case(name)
                })
            })
        })
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewound<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.then).poll_read(cx, buf);
        }
        let length = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..length]);
        self.first.advance(length);
        if self.first.is_empty() {
            // Else what is left of it would keep its whole buffer for the life of the connection.
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewound<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.then).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.then).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.then).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.then).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.then.is_write_vectored()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let doing = this.phase.doing();
        if doing == Doing::Upgraded {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        if this.ended.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let read = &buf.filled()[before..];
            if !read.is_empty() {
                if doing == Doing::Idle && this.head.is_ambiguous(read, &this.phase) {
                    this.phase.is_ambiguous.store(true, Ordering::Relaxed);
                }
                return Poll::Ready(Ok(()));
            }
            if this.phase.messages.load(Ordering::Relaxed) == 0 {
                return Poll::Ready(Ok(()));
            }
            this.ended = Some(Ended {
                doing,
                grace: Box::pin(tokio::time::sleep(doing.grace())),
            });
        }
        let Some(ended) = &mut this.ended else {
            return Poll::Ready(Ok(()));
        };
        if ended.doing != doing {
            ended.doing = doing;
            ended.grace.as_mut().reset(Instant::now() + doing.grace());
        }
        match doing {
            // hyper looks again when the answer is out, and a write to a peer that is gone fails by itself.
            Doing::Answering => Poll::Pending,
            Doing::Idle | Doing::Upgraded | Doing::Uploading | Doing::Waiting => {
                ended.grace.as_mut().poll(cx).map(Ok)
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

const CODING: &[u8] = b"Transfer-Encoding:";
const LENGTH: &[u8] = b"Content-Length:";
/// hyper refuses larger ones long before.
const LARGEST_HEAD: usize = 2 * 1024 * 1024;
/// Long enough for the answer to whoever closes its half first, short enough not to work long for nobody.
const GRACE: Duration = Duration::from_secs(5);
const FLUSH_GRACE: Duration = Duration::from_millis(50);
/// A body that ends early must not look complete for long.
const UPLOAD_GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str =
        "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 3\r\nTRANSFER-encoding: chunked\r\n\r\n";

    #[test]
    fn a_head_with_both_framings_is_seen_however_it_is_cut() {
        for cut in 0..BOTH.len() {
            let (phase, mut watch) = (Phase::default(), HeadWatch::default());
            let (first, second) = BOTH.as_bytes().split_at(cut);
            let seen = watch.is_ambiguous(first, &phase) | watch.is_ambiguous(second, &phase);
            assert!(seen, "{cut}");
        }
    }

    #[test]
    fn bodies_and_other_heads_are_none_of_its_business() {
        for message in [
            "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n20\r\nContent-Length: 5\r\n\r\nabc",
            "POST / HTTP/1.1\nContent-Length: 30\n\n\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nX-Transfer-Encodin: g\r\nContent-Length: 5\r\n\r\nabcde",
        ] {
            let (phase, mut watch) = (Phase::default(), HeadWatch::default());
            assert!(!watch.is_ambiguous(message.as_bytes(), &phase), "{message}");
            // The rest of the body.
            assert!(!watch.is_ambiguous(BOTH.as_bytes(), &phase), "{message}");
            // The next message.
            assert!(!phase.begin(Doing::Waiting));
            assert!(watch.is_ambiguous(BOTH.as_bytes(), &phase), "{message}");
        }
    }

    #[tokio::test]
    async fn bytes_of_an_upgraded_connection_are_not_looked_at_nor_kept() {
        let phase = Arc::new(Phase::default());
        let (mut app, ours) = tokio::io::duplex(1024);
        let mut ours = Patient::new(ours, Arc::clone(&phase));
        phase.begin(Doing::Waiting);
        phase.set(Doing::Upgraded);
        for _ in 0..64 {
            let mut read = [0; 1024];
            tokio::io::AsyncWriteExt::write_all(&mut app, &[7; 1024])
                .await
                .unwrap();
            tokio::io::AsyncReadExt::read_exact(&mut ours, &mut read)
                .await
                .unwrap();
        }
        assert_eq!(ours.head.partial.capacity(), 0);
        drop(app);
        assert_eq!(
            tokio::io::AsyncReadExt::read(&mut ours, &mut [0]).await.unwrap(),
            0
        );
        assert!(ours.ended.is_none());
    }
}

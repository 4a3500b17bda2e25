//! Bytes in both directions between the app and its server, and which side broke.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::ServerStream;
use crate::drain::Drain;
use crate::memory::{MEMORY, Reservation};
use crate::proxy::splice::next_chunk;
use crate::starttls;
use crate::stream::Io;
use crate::sync::lock;
use crate::telemetry::{Exchange, TunnelEnd};

/// How long the other direction may be silent where one has ended.
const HALF_OPEN: Duration = Duration::from_secs(300);
/// How long a server that takes no bytes any more may take to say why.
const REASON: Duration = Duration::from_secs(1);

/// How the two were parted.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) end: TunnelEnd,
    pub(super) broken: Option<Broken>,
    /// Bytes that the app got.
    pub(super) received: u64,
}

/// Why the two were parted too early.
#[derive(Debug)]
pub(super) enum Broken {
    /// The app went away.
    App,
    /// The app begins TLS with us.
    AppSpeaksTls,
    Server(io::Error),
}

/// Moves bytes until both directions have ended, one fails, or neither has moved a byte for `idle`. `is_tls`: the app must
/// not begin TLS itself. `must_answer`: a server that goes away without a byte is taken to refuse us.
pub(super) async fn join(
    app: &mut Io,
    server: Box<dyn ServerStream>,
    exchange: &mut Exchange,
    idle: Duration,
    is_tls: bool,
    must_answer: bool,
    drain: &Drain,
) -> Ending {
    let exchange = Mutex::new(exchange);
    let (moved, received) = (AtomicU64::new(0), AtomicU64::new(0));
    let (app_read, app_write) = tokio::io::split(app);
    let (server_read, server_write) = tokio::io::split(server);
    let count = |bytes: usize, is_upload: bool| {
        let bytes = bytes as u64;
        let mut exchange = lock(&exchange);
        if is_upload {
            exchange.sent(bytes);
        } else {
            exchange.received(bytes);
            received.fetch_add(bytes, Ordering::Relaxed);
        }
        moved.fetch_add(bytes, Ordering::Relaxed);
        drain.moved();
    };
    // A server that says nothing at all does not accept our certificate.
    let is_refusal = || must_answer && received.load(Ordering::Relaxed) == 0;
    let upload = async {
        let (mut from, mut to) = (app_read, server_write);
        loop {
            let chunk = next_chunk(&mut from).await.map_err(|_| Broken::App)?;
            if is_tls && moved.load(Ordering::Relaxed) == 0 && starttls::is_tls(&chunk) {
                return Err(Broken::AppSpeaksTls);
            }
            if write(&mut to, &chunk).await.map_err(Broken::Server)? {
                return Ok(());
            }
            count(chunk.len(), true);
        }
    };
    let download = async {
        let (mut from, mut to) = (server_read, app_write);
        loop {
            let chunk = match next_chunk(&mut from).await {
                // Many servers end TLS without close_notify. What is cut short shows in the protocol inside.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !is_refusal() => Box::default(),
                chunk => chunk.map_err(Broken::Server)?,
            };
            if write(&mut to, &chunk).await.map_err(|_| Broken::App)? {
                return Ok(());
            }
            count(chunk.len(), false);
        }
    };
    let (mut upload, mut download) = (std::pin::pin!(upload), std::pin::pin!(download));
    let (mut is_uploaded, mut is_downloaded) = (false, false);
    let mut longest = idle;
    let mut silence = std::pin::pin!(sleep(idle));
    let mut last = 0;
    let (end, broken) = loop {
        let ended = tokio::select! {
            ended = &mut upload, if !is_uploaded => {
                is_uploaded = ended.is_ok();
                match ended {
                    // The alert that says why waits to be read.
                    Err(Broken::Server(error)) if !is_downloaded => {
                        let told = timeout(REASON, &mut download).await;
                        let reason = told.ok().and_then(Result::err);
                        Err(reason.unwrap_or(Broken::Server(error)))
                    }
                    ended => ended,
                }
            }
            ended = &mut download, if !is_downloaded => {
                is_downloaded = ended.is_ok();
                ended
            }
            () = &mut silence => {
                let now = moved.load(Ordering::Relaxed);
                if now == last {
                    break (TunnelEnd::Idle, None);
                }
                last = now;
                silence.as_mut().reset(Instant::now() + longest);
                continue;
            }
        };
        match ended {
            Ok(()) if is_uploaded && is_downloaded => break (TunnelEnd::Closed, None),
            Ok(()) => {
                longest = idle.min(HALF_OPEN);
                last = moved.load(Ordering::Relaxed);
                silence.as_mut().reset(Instant::now() + longest);
            }
            // The app has said that it leaves. Some servers close so that what we said last is answered by a reset.
            Err(Broken::Server(_)) if is_uploaded => break (TunnelEnd::Closed, None),
            Err(broken) => break (TunnelEnd::Failed, Some(broken)),
        }
    };
    Ending {
        end,
        broken,
        received: received.load(Ordering::Relaxed),
    }
}

/// Writes a chunk; an empty one ends the direction. Returns whether it did.
async fn write(sink: &mut (impl AsyncWrite + Unpin), chunk: &[u8]) -> io::Result<bool> {
    if chunk.is_empty() {
        // The other side may be gone by now, which its own direction tells.
        let _ = sink.shutdown().await;
        return Ok(true);
    }
    let _held = Reservation::of(chunk.len() + MEMORY.stuck());
    sink.write_all(chunk).await?;
    sink.flush().await?;
    Ok(false)
}

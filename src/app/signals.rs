//! The signals that we act on: SIGTERM and SIGINT to leave, SIGHUP to reload.

use std::io;
use std::time::Duration;

use procfs::process::Process;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Some senders signal the process and its group: two signals within this time are one wish.
const ONE_WISH: Duration = Duration::from_millis(50);

/// SIGTERM or SIGINT: the platform, or a person at a terminal, asks us to leave.
#[derive(Debug)]
pub(crate) struct Termination {
    interrupt: Signal,
    last: Option<Instant>,
    terminate: Signal,
}

impl Termination {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            last: None,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn wait(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
            if self.last.is_none_or(|last| last.elapsed() > ONE_WISH) {
                self.last = Some(Instant::now());
                return;
            }
        }
    }
}

/// Returns whether a signal is ignored, as the program that started us may want it. A signal that we catch is not.
pub(crate) fn is_ignored(signal: SignalKind) -> bool {
    let ignored = Process::myself()
        .and_then(|process| process.status())
        .map_or(0, |status| status.sigign);
    ignored & (1 << (signal.as_raw_value() - 1)) != 0
}

/// SIGHUP, unless it is ignored, as under `nohup`: then it stays so, for a command of ours as well.
#[derive(Debug)]
pub(super) struct HangupSignal(Option<Signal>);

impl HangupSignal {
    pub(super) fn listen() -> io::Result<Self> {
        let kind = SignalKind::hangup();
        Ok(Self((!is_ignored(kind)).then(|| signal(kind)).transpose()?))
    }

    /// Waits for the next one; for ever where it is ignored.
    pub(super) async fn wait(&mut self) {
        match &mut self.0 {
            Some(hangup) => drop(hangup.recv().await),
            None => std::future::pending().await,
        }
    }
}

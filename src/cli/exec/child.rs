//! One child process: starts it, passes signals on, and waits for its end.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::task::Poll;

use rustix::process::{Pid, Signal, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};

use crate::app::is_ignored;

#[cfg(test)]
mod tests;

/// The signals that are passed on. SIGHUP is not: it reloads our configuration, and a terminal that closes
/// sends it to the whole job, so the child gets it anyway.
const PASSED_ON: &[Signal] = &[
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
];

/// The signals that a terminal sends to the whole job, so that the child gets them anyway.
const SENT_BY_TERMINALS: &[Signal] = &[Signal::INT, Signal::QUIT, Signal::WINCH];

/// A running child and the signals to pass on to it.
#[derive(Debug)]
pub(in crate::cli) struct ChildProcess {
    child: Child,
    signals: Signals,
}

/// Why the child cannot be started or waited for.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Error {
    #[error("no command; write it after `--`")]
    Missing,

    #[error("signals cannot be caught: {0}")]
    Signals(io::Error),

    #[error("cannot start {}: {source}; {}", program.display(), remedy(source))]
    Start { program: OsString, source: io::Error },

    #[error("the command cannot be waited for: {0}")]
    Wait(io::Error),
}

/// Returns the remedy for a program that cannot be started.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "put it on the PATH, or write its path",
        io::ErrorKind::PermissionDenied => "name a program that this user may run",
        _ => "see whether it runs without outrider",
    }
}

impl Error {
    /// Returns the exit code that a shell uses: 127 for a missing program, 126 for one that cannot be run.
    pub(in crate::cli) fn code(&self) -> u8 {
        match self {
            Self::Missing => 127,
            Self::Start { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Start { .. } => 126,
            Self::Signals(_) | Self::Wait(_) => 1,
        }
    }
}

impl ChildProcess {
    /// Starts `command` in our environment with `variables` changed: set, or removed where there is no value. Signals are
    /// caught first, so that no signal is lost.
    ///
    /// Must be called inside a tokio runtime.
    pub(in crate::cli) fn start<N, V>(
        command: &[OsString],
        variables: impl IntoIterator<Item = (N, Option<V>)>,
    ) -> Result<Self, Error>
    where
        N: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        let (program, arguments) = command.split_first().ok_or(Error::Missing)?;
        let signals = Signals::catch().map_err(Error::Signals)?;
        let mut command = Command::new(program);
        command.args(arguments);
        for (name, value) in variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = command.spawn().map_err(|source| Error::Start {
            program: program.clone(),
            source,
        })?;
        Ok(Self { child, signals })
    }

    /// Passes signals on until the child has ended. Returns the exit code for us: its status, or 128+N if
    /// signal N ended it.
    pub(in crate::cli) async fn end(mut self) -> Result<u8, Error> {
        loop {
            tokio::select! {
                status = self.child.wait() => return status.map(exit_code).map_err(Error::Wait),
                signal = self.signals.next() => pass_on(signal, &self.child),
            }
        }
    }
}

/// The streams of caught signals.
#[derive(Debug)]
struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// Catches the signals. Ignored ones stay ignored, for the child as well: `nohup` means both of us.
    fn catch() -> io::Result<Self> {
        PASSED_ON
            .iter()
            .filter(|passed| !is_ignored(SignalKind::from_raw(passed.as_raw())))
            .map(|passed| Ok((*passed, unix::signal(SignalKind::from_raw(passed.as_raw()))?)))
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// Waits for the next signal. Dropping the future loses no signal.
    async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (passed, stream) in &mut self.0 {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*passed);
                }
            }
            Poll::Pending
        })
        .await
    }
}

fn pass_on(signal: Signal, child: &Child) {
    if SENT_BY_TERMINALS.contains(&signal) && is_job_of_terminal() {
        return;
    }
    // Without an id it has been waited for, and its id may belong to another process.
    let Some(id) = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) else {
        return;
    };
    if let Err(error) = kill_process(id, signal) {
        tracing::debug!(%error, signal = signal.as_raw(), "the signal cannot be passed on");
    }
}

/// Returns whether we are the foreground job of a terminal. Then the terminal has signalled the child itself,
/// and a second interrupt makes many programs stop at once, without tidying up.
fn is_job_of_terminal() -> bool {
    File::open("/dev/tty")
        .and_then(|terminal| Ok(tcgetpgrp(terminal)?))
        .is_ok_and(|foreground| foreground == getpgrp())
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

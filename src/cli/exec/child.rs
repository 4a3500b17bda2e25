//! One child process: started, told every signal that we are told, outlived.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::task::Poll;

use procfs::process::Process;
use rustix::process::{Pid, Signal, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};

#[cfg(test)]
mod tests;

/// Runs `command` with `variables` beside our own environment until it ends, and answers the exit code for us: its
/// status, 128+N where signal N ended it, 127 where there is no such program, 126 where it cannot be run.
///
/// `signals` are caught before the start, so that none is lost. An error means that the child cannot be waited for.
pub(in crate::cli) async fn supervise<N, V>(
    command: &[OsString],
    variables: impl IntoIterator<Item = (N, V)>,
    mut signals: Signals,
) -> io::Result<u8>
where
    N: AsRef<OsStr>,
    V: AsRef<OsStr>,
{
    let Some((program, arguments)) = command.split_first() else {
        eprintln!("outrider exec: no command; write it after `--`");
        return Ok(NOT_FOUND);
    };
    let mut child = match Command::new(program).args(arguments).envs(variables).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("outrider exec: cannot start {}: {error}", program.display());
            return Ok(match error.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_EXECUTABLE,
            });
        }
    };
    loop {
        tokio::select! {
            status = child.wait() => return status.map(exit_code),
            signal = signals.next() => pass_on(signal, &child),
        }
    }
}

/// What shells answer where a command is not there, and where it is not a program.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// What a service manager or a terminal sends to have something done.
const PASSED_ON: &[Signal] = &[
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
];

/// What a terminal sends to the whole job, hence to the child as well.
const SENT_BY_TERMINALS: &[Signal] = &[Signal::INT, Signal::QUIT, Signal::WINCH];

/// The signals that reach us.
pub(in crate::cli) struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// From now on they do not end us. What is ignored stays so, for the child as well: `nohup` means both of us.
    pub(in crate::cli) fn catch() -> io::Result<Self> {
        let ignored = Process::myself()
            .and_then(|process| process.status())
            .map_or(0, |status| status.sigign);
        PASSED_ON
            .iter()
            .filter(|passed| ignored & (1 << (passed.as_raw() - 1)) == 0)
            .map(|passed| Ok((*passed, unix::signal(SignalKind::from_raw(passed.as_raw()))?)))
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// The next one. Nothing is lost where the future is dropped.
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
    // Without an id it has been waited for, and its id may belong to somebody else.
    let Some(id) = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) else {
        return;
    };
    if let Err(error) = kill_process(id, signal) {
        tracing::debug!(%error, signal = signal.as_raw(), "the signal cannot be passed on");
    }
}

/// Whether we are what a terminal works on at the moment. It then has sent its signals to the child itself, and a second
/// interrupt makes many programs stop at once, without tidying up.
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

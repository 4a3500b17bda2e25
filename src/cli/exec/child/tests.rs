//! Signals go to the whole test process, so the parent under test is a separate process: this test binary
//! again, with a variable that makes it supervise a command.

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::process::CommandExt;
use std::process::{self, ChildStdout, Stdio};

use super::*;

/// Not a test: the program that [`Parent`] starts.
#[test]
#[ignore = "started by the tests below"]
#[expect(
    clippy::disallowed_methods,
    reason = "it plays the part of main, whose exit code is under test"
)]
fn parent() {
    let words = std::env::var("OUTRIDER_TEST_COMMAND").unwrap();
    let command: Vec<_> = words
        .split(BETWEEN)
        .filter(|word| !word.is_empty())
        .map(OsString::from)
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let code = runtime.block_on(async {
        let child = ChildProcess::start(&command, [("OUTRIDER_TEST", Some("given"))]);
        match child {
            Ok(child) => child.end().await,
            Err(error) => Ok(error.code()),
        }
    });
    let code = code.unwrap();
    process::exit(code.into());
}

const BETWEEN: &str = "\u{1f}";

struct Parent {
    process: process::Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Parent {
    /// Supervises `command` as a separate job, so that the terminal that runs the tests does not take part.
    fn start(command: &[&str], through: &[&str]) -> Self {
        let mut words: Vec<OsString> = through.iter().map(OsString::from).collect();
        words.push(std::env::current_exe().unwrap().into());
        let name = "cli::exec::child::tests::parent";
        words.extend(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"].map(OsString::from));
        let mut process = process::Command::new(&words[0])
            .args(&words[1..])
            .process_group(0)
            .env("OUTRIDER_TEST_COMMAND", command.join(BETWEEN))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Supervises a shell that runs `script`, and waits for its `ready`.
    fn start_shell(script: &str, through: &[&str]) -> Self {
        let mut parent = Self::start(&["sh", "-c", script], through);
        parent.expect("ready");
        parent
    }

    /// Reads up to a line with this end; the test harness also writes lines.
    fn expect(&mut self, word: &str) {
        let found = self.lines.any(|line| line.unwrap().ends_with(word));
        assert!(found, "no line says {word}");
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    fn code(mut self) -> Option<i32> {
        self.lines.by_ref().for_each(drop);
        self.process.wait().unwrap().code()
    }
}

#[test]
fn the_status_of_the_command_is_ours() {
    for (command, expected) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 3"], 3),
        (&["sh", "-c", "exit 255"], 255),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["sh", "-c", "kill -KILL $$"], 128 + 9),
        (&["no-such-program-anywhere"], 127),
        (&["/etc/passwd"], 126),
        (&["/"], 126),
        (&[], 127),
    ] {
        assert_eq!(Parent::start(command, &[]).code(), Some(expected), "{command:?}");
    }
}

#[test]
fn the_command_gets_the_variables_and_our_own_environment() {
    let script = "test \"$OUTRIDER_TEST\" = given && test -n \"$PATH\"";
    assert_eq!(Parent::start(&["sh", "-c", script], &[]).code(), Some(0));
}

/// Waits in a loop of short commands, because a shell runs its traps between commands.
const WAIT: &str = "echo ready; while :; do sleep 0.05; done";

#[test]
fn signals_for_the_command_reach_it_and_none_ends_us() {
    let names = ["INT", "QUIT", "USR1", "USR2", "WINCH"];
    let traps: String = names
        .map(|name| format!("trap 'echo got {name}' {name}; "))
        .concat();
    let script = format!("{traps} trap 'echo got TERM; exit 7' TERM; {WAIT}");
    // Tests that run in the background ignore INT and QUIT, and so would the command.
    let mut parent = Parent::start_shell(&script, &["env", "--default-signal"]);
    for (signal, name) in [
        (Signal::INT, "got INT"),
        (Signal::QUIT, "got QUIT"),
        (Signal::USR1, "got USR1"),
        (Signal::USR2, "got USR2"),
        (Signal::WINCH, "got WINCH"),
        (Signal::TERM, "got TERM"),
    ] {
        parent.signal(signal);
        parent.expect(name);
    }
    assert_eq!(parent.code(), Some(7));
}

#[test]
fn what_nohup_ignores_stays_ignored_for_both() {
    let mut parent = Parent::start_shell(&format!("trap 'echo bye; exit 5' TERM; {WAIT}"), &["nohup"]);
    parent.signal(Signal::HUP);
    // If HUP had reached the command, it would have ended first: of pending signals the lowest number is delivered first.
    parent.signal(Signal::TERM);
    parent.expect("bye");
    assert_eq!(parent.code(), Some(5));
}

#[test]
fn a_command_that_takes_its_time_to_end_is_outlived() {
    let mut parent = Parent::start_shell(
        &format!("trap 'sleep 0.3; echo tidied up; exit 0' TERM; {WAIT}"),
        &[],
    );
    parent.signal(Signal::TERM);
    parent.signal(Signal::TERM);
    parent.expect("tidied up");
    assert_eq!(parent.code(), Some(0));
}

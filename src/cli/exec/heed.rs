//! `outrider exec --check`: what the runtime of a command heeds of our variables, and whether its requests arrive.
//!
//! The runtime is known by the name of the program, by the first line of a script, or by what Go leaves in its binaries.
//! Only known ones are run: to ask for their version, and to send two requests for hosts that do not exist, in cleartext and
//! over TLS that ends here. A destination of our own refuses both, so nothing leaves the machine; what it has refused shows
//! what has arrived.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::app::App;
use crate::cli::{admin_page, loopback};
use crate::config::{Access, Config, Listen};

use runtimes::{Ask, GO, RUNTIMES, Runtime};

mod runtimes;

/// Names that exist nowhere (RFC 6761): the first is asked in cleartext, the second over TLS.
const CLEAR: &str = "outrider-check.invalid";
const OPENED: &str = "opened.outrider-check.invalid";

/// What answers for them: a destination that is intercepted, and refuses every GET before anything is dialled.
const DESTINATION: &str = "
dns: { hosts: { outrider-check.invalid: 127.0.0.1, opened.outrider-check.invalid: 127.0.0.1 } }
destinations:
  outrider-check: { hosts: [outrider-check.invalid, opened.outrider-check.invalid], methods: [OPTIONS], parent: none }
";

/// For the record of a request whose answer the client has.
const RECORDED: Duration = Duration::from_millis(500);

/// How many of the last refusals are printed.
const MOST_REFUSALS: usize = 5;

/// For a question to a runtime: a virtual machine takes seconds to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// So much of a program is searched for what Go leaves in it.
const SEARCHED: u64 = 64 * 1024;

/// What a Java says that cannot compile.
const NO_COMPILER: &[&str] = &["jdk.compiler", "Could not find or load main class"];

/// What is read of what a program says, in bytes of each stream.
const MOST_SAID: u64 = 64 * 1024;

/// What is printed of an answer, in characters.
const LONGEST: usize = 200;

/// What `exec --check` tries a command with.
pub(super) struct Trial<'l> {
    pub(super) app: &'l App,
    /// A folder for the program of a runtime that takes none as an argument.
    pub(super) folder: &'l Path,
    /// The variables that the command would get.
    pub(super) variables: &'l [(OsString, Option<OsString>)],
}

/// Adds what answers the requests of [`check`], and takes the addresses away: they are those of an outrider that may run.
/// Returns that one's admin port.
pub(super) fn prepare(config: &mut Config) -> Option<SocketAddr> {
    if let Ok(own) = Config::parse(DESTINATION, "exec --check") {
        config.dns.hosts.extend(own.dns.hosts);
        config.destinations.extend(own.destinations);
    }
    config.listen = vec![Listen::Tcp((Ipv4Addr::LOCALHOST, 0).into())];
    config.log.access = Access::Errors;
    config.admin.take()
}

/// Prints what the command heeds. Returns the exit code: 1 if a request did not arrive.
pub(super) async fn check(command: &[OsString], trial: Trial<'_>) -> u8 {
    let Some(program) = command.first() else { return 0 };
    let Some(path) = find(program) else {
        say(format_args!("{}: no such program", program.display()));
        return 127;
    };
    let Some((runtime, interpreter)) = recognise(&path) else {
        say(format_args!(
            "{}: not a runtime that is known here, so it is not run.\nMost programs heed http_proxy and https_proxy, and \
             one of SSL_CERT_FILE and the trust variables that `outrider env` prints. Run it under `outrider exec`: what \
             does not arrive does not show in the log at `log.access: all`.",
            path.display()
        ));
        return 0;
    };
    say(format_args!(
        "runtime    {} ({})",
        runtime.name,
        interpreter.display()
    ));
    if !runtime.version.is_empty() {
        let told = trial.run(&interpreter, runtime.version, None).await;
        let told = told.lines().find(|line| !line.starts_with("Picked up"));
        say(format_args!("version    {}", shown(told.unwrap_or_default())));
    }
    say(format_args!("heeds      {}", runtime.heeds));
    say(format_args!("does not   {}", runtime.ignores));
    let mut arguments: Vec<&str> = Vec::new();
    let file;
    match runtime.ask {
        Ask::Arguments(given) => arguments.extend(given),
        Ask::File(given, name, text) => {
            file = trial.folder.join(name).display().to_string();
            if let Err(error) = std::fs::write(&file, text) {
                say(format_args!("request    not tried: {file}: {error}"));
                return 0;
            }
            arguments.extend(given);
            arguments.push(&file);
        }
        Ask::No(why) => {
            say(format_args!("request    not tried: {why}"));
            return 0;
        }
    }
    let told = trial
        .run(&interpreter, &arguments, Some(&format!("http://{CLEAR}/")))
        .await;
    if NO_COMPILER.iter().any(|words| told.contains(words)) {
        say(format_args!(
            "request    not tried: this Java has no compiler for a program of one file; try it where a JDK is"
        ));
        return 0;
    }
    let has_arrived = trial.tell("request", CLEAR, &told).await;
    let told = trial
        .run(&interpreter, &arguments, Some(&format!("https://{OPENED}/")))
        .await;
    let is_trusted = trial.tell("trust", OPENED, &told).await;
    u8::from(!has_arrived || !is_trusted)
}

/// Prints the last refusals of the outrider whose admin port this is: some clients show nothing of them.
pub(super) fn tell_refusals(admin: Option<SocketAddr>) {
    let Some(address) = admin.and_then(loopback) else {
        return;
    };
    let Ok(page) = admin_page::fetch(address, &address.to_string(), "/status") else {
        say(format_args!(
            "refusals   not known (no outrider answers at {address})"
        ));
        return;
    };
    let lines = refusal_lines(&page["refusals"]);
    let title = if lines.is_empty() {
        "none"
    } else {
        "the newest first"
    };
    say(format_args!("refusals   of the outrider at {address}: {title}"));
    lines
        .iter()
        .for_each(|line| say(format_args!("           {line}")));
}

/// Returns the newest of them, as lines that a terminal can show: what answers there may be anything.
fn refusal_lines(refusals: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let newest = refusals.as_array().into_iter().flatten().take(MOST_REFUSALS);
    let line = |one: &Value| {
        let words = [
            text(&one["at"]),
            text(&one["method"]),
            text(&one["host"]),
            one["status"].to_string(),
            text(&one["detail"]),
        ];
        crate::fields::printable(&words.join(" "), 2 * LONGEST)
    };
    newest.map(line).collect()
}

/// What became of the requests for a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrialRequest {
    /// Nothing came, or only a CONNECT.
    None,
    /// It came without the password of `exec`.
    WithoutPassword,
    Whole,
}

impl TrialRequest {
    /// Reads it from the refusals. The request inside a tunnel counts, not the CONNECT.
    fn of(host: &str, refusals: &Value) -> Self {
        let of_host = refusals
            .as_array()
            .into_iter()
            .flatten()
            .filter(|one| one["host"] == *host);
        let mut came = Self::None;
        for one in of_host {
            if one["status"] == 407 {
                came = Self::WithoutPassword;
            } else if one["method"] != "CONNECT" {
                return Self::Whole;
            }
        }
        came
    }
}

impl Trial<'_> {
    /// Prints what became of the request for a host, by what the proxy has seen, and `told` by the client. Returns whether it
    /// arrived.
    async fn tell(&self, title: &str, host: &str, told: &str) -> bool {
        let mut came = TrialRequest::of(host, &self.app.refusals());
        if came == TrialRequest::None {
            sleep(RECORDED).await;
            came = TrialRequest::of(host, &self.app.refusals());
        }
        let last = told
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or("it said nothing");
        let sentence = match (came, host == OPENED) {
            (TrialRequest::Whole, false) => "arrived at the proxy".to_owned(),
            (TrialRequest::Whole, true) => {
                "trusts outrider's certificate: its request arrived over TLS that ends here".to_owned()
            }
            (TrialRequest::WithoutPassword, _) => {
                "did NOT bring the password of `exec`: use `outrider exec --no-password`".to_owned()
            }
            (TrialRequest::None, false) => format!("did NOT arrive at the proxy: {}", shown(last)),
            (TrialRequest::None, true) => format!("did NOT arrive over TLS that ends here: {}", shown(last)),
        };
        say(format_args!("{title:<10} {sentence}"));
        came == TrialRequest::Whole
    }

    async fn run(&self, program: &Path, arguments: &[&str], url: Option<&str>) -> String {
        run(program, arguments, url, self.variables).await
    }
}

/// Prints a line. One that cannot be written, as to a full disk, is no reason to stop: the exit code says the result.
fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Returns a program as the shell finds it.
fn find(program: &OsStr) -> Option<PathBuf> {
    if Path::new(program).components().count() > 1 {
        return Some(PathBuf::from(program)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Returns the runtime of a program, and the program to ask: for a script its interpreter.
fn recognise(path: &Path) -> Option<(&'static Runtime, PathBuf)> {
    if let Some(runtime) = named(path) {
        return Some((runtime, path.to_owned()));
    }
    let mut beginning = Vec::new();
    File::open(path)
        .ok()?
        .take(SEARCHED)
        .read_to_end(&mut beginning)
        .ok()?;
    if let Some(script) = beginning.strip_prefix(b"#!") {
        let line = script.split(|byte| *byte == b'\n').next()?;
        let mut words = str::from_utf8(line).ok()?.split_whitespace();
        let first = words.next()?;
        let interpreter = match Path::new(first).file_name()? {
            name if name == "env" => words.find(|word| !word.starts_with('-') && !word.contains('='))?,
            _ => first,
        };
        let interpreter = find(OsStr::new(interpreter))?;
        return named(&interpreter).map(|runtime| (runtime, interpreter));
    }
    // The note that Go's linker puts near the beginning.
    memchr::memmem::find(&beginning, b"\0Go\0\0").map(|_| (&GO, path.to_owned()))
}

/// Returns the runtime that a file is named for: `python3.11` is Python.
fn named(path: &Path) -> Option<&'static Runtime> {
    let name = path.file_name()?.to_str()?;
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'));
    RUNTIMES.iter().find(|runtime| runtime.programs.contains(&name))
}

/// Runs a program as the command would run. Returns what it says, or why it does not.
async fn run(
    program: &Path,
    arguments: &[&str],
    url: Option<&str>,
    variables: &[(OsString, Option<OsString>)],
) -> String {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .args(url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for (name, value) in variables {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return error.to_string(),
    };
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    match timeout(PATIENCE, async { tokio::join!(said(output), said(errors)) }).await {
        Ok((output, errors)) => String::from_utf8_lossy(&[output, errors].concat()).into_owned(),
        Err(_) => format!("it did not end within {} s", PATIENCE.as_secs()),
    }
}

/// Reads a stream to its end, or as much as is of use, and closes it.
async fn said(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some(stream) = stream {
        // What was read before an error is said all the same.
        let _ = stream.take(MOST_SAID).read_to_end(&mut text).await;
    }
    text
}

/// Returns a text as one line that a terminal can show.
fn shown(text: &str) -> String {
    crate::fields::printable(text.trim(), LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_never_stops_talking_is_cut_off() {
        let said = run(Path::new("cat"), &["/dev/zero"], None, &[]).await;
        assert_eq!(said.len() as u64, MOST_SAID);
        let both = run(Path::new("sh"), &["-c", "echo out; echo err >&2"], None, &[]).await;
        assert_eq!(both, "out\nerr\n");
    }

    #[test]
    fn a_runtime_is_known_by_its_name_or_the_first_line_of_a_script() {
        let folder = tempfile::tempdir().unwrap();
        let name_of = |name: &str, text: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            recognise(&path).map(|(runtime, _)| runtime.name)
        };
        for (name, text, expected) in [
            ("python3.11", &b""[..], Some("Python")),
            ("node", b"", Some("Node")),
            ("php8.2", b"", Some("PHP")),
            ("app", b"#!/usr/bin/env -S perl -w\n", Some("Perl")),
            ("app", b"#! /usr/bin/perl\nprint", Some("Perl")),
            ("app", b"\x7fELF....\x04\0\0\0Go\0\0id", Some("a Go program")),
            ("app", b"#!/bin/sh\n", None),
            ("app", b"#!", None),
            ("app", b"#!\xff\xfe\n", None),
            ("app", b"#!/usr/bin/env\n", None),
            ("nodemon-like", b"\x7fELF", None),
            ("app", b"", None),
        ] {
            assert_eq!(name_of(name, text), expected, "{name} {text:?}");
        }
        assert_eq!(recognise(folder.path()).map(|(runtime, _)| runtime.name), None);
        assert_eq!(find(OsStr::new("no-such-program-anywhere")), None);
    }

    #[test]
    fn a_request_has_arrived_when_it_came_through_with_the_password() {
        let refusal = |host: &str, method: &str, status: u16| serde_json::json!({ "host": host, "method": method, "status": status });
        for (refusals, expected) in [
            (vec![], TrialRequest::None),
            (vec![refusal("other.invalid", "GET", 403)], TrialRequest::None),
            (vec![refusal(OPENED, "CONNECT", 403)], TrialRequest::None),
            (
                vec![refusal(OPENED, "CONNECT", 407)],
                TrialRequest::WithoutPassword,
            ),
            (
                vec![refusal(OPENED, "GET", 403), refusal(OPENED, "CONNECT", 407)],
                TrialRequest::Whole,
            ),
        ] {
            assert_eq!(TrialRequest::of(OPENED, &refusals.into()), expected);
        }
        assert_eq!(TrialRequest::of(OPENED, &Value::Null), TrialRequest::None);
    }

    #[test]
    fn what_answers_a_trial_is_a_destination_and_the_addresses_are_others() {
        let mut config =
            Config::parse("admin: 127.0.0.1:9901\nlog: { access: none }", "outrider.yml").unwrap();
        assert_eq!(prepare(&mut config), Some((Ipv4Addr::LOCALHOST, 9901).into()));
        assert_eq!(config.destinations.len(), 1);
        assert_eq!(config.admin, None);
        assert_eq!(config.log.access, Access::Errors);
    }

    #[test]
    fn refusals_are_few_lines_without_control_characters() {
        let one = serde_json::json!({ "at": "t", "method": "GET", "host": null, "status": 403, "detail": "no\u{1b}[2J\nline" });
        let lines = refusal_lines(&vec![one; 9].into());
        assert_eq!(lines, vec!["t GET - 403 no?[2J?line"; MOST_REFUSALS]);
        assert!(refusal_lines(&Value::Null).is_empty());
    }
}

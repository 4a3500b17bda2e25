//! `outrider exec --check`: what the runtime of a command heeds of our variables, and whether its requests arrive.
//!
//! The runtime is known by the name of the program, by the first line of a script, or by what Go leaves in its binaries.
//! Only known ones are run: to ask for their version, and to send one request for a host that does not exist. The proxy
//! answers that by itself, so nothing leaves the machine.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

/// A name that exists nowhere (RFC 6761).
const URL: &str = "http://outrider-check.invalid/";

/// What each of our own answers has in it.
const OURS: &str = "about:blank";

/// For a question to a runtime: a virtual machine takes seconds to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// So much of a program is searched for what Go leaves in it.
const SEARCHED: u64 = 64 * 1024;

/// What is read of what a program says, in bytes of each stream.
const MOST_SAID: u64 = 64 * 1024;

/// What is printed of an answer, in characters.
const LONGEST: usize = 200;

/// A program that runs or sends requests, and what it heeds.
struct Runtime {
    name: &'static str,
    /// How the name of the program begins; a version may follow.
    programs: &'static [&'static str],
    version: &'static [&'static str],
    /// Arguments that make it send a request for [`URL`], which is appended.
    ask: &'static [&'static str],
    heeds: &'static str,
    ignores: &'static str,
}

const NODE: &str = "const url = process.argv[1]; require('http').get(url, (answer) => answer.pipe(process.stdout)).on('error', \
    (error) => console.error(error.message))";
const PHP: &str = "$c = curl_init($argv[1]); curl_exec($c); echo curl_error($c);";
const PYTHON: &str = "import sys, urllib.request, urllib.error\ntry: urllib.request.urlopen(sys.argv[1])\n\
    except urllib.error.HTTPError as error: print(error.read().decode())";
const PERL: &str = "use HTTP::Tiny; print HTTP::Tiny->new->get($ARGV[0])->{content}";
const RUBY: &str = "require 'net/http'; puts Net::HTTP.get(URI(ARGV[0]))";

const RUNTIMES: &[Runtime] = &[
    Runtime {
        name: "Node",
        programs: &["node", "nodejs"],
        version: &["--version"],
        ask: &["-e", NODE],
        heeds: "http and https from 22.21 and 24.5 on, with agents that a library creates (AWS SDK, OTLP, superagent); fetch \
                from 24 on; NODE_EXTRA_CA_CERTS",
        ignores: "everything before 22.21 (give its client a proxy agent); ws, WebSocket and undici's own Pool; `ca` in the \
                  code replaces the bundle",
    },
    Runtime {
        name: "Deno",
        programs: &["deno"],
        version: &["--version"],
        ask: &[],
        heeds: "fetch, node:http and node:https; DENO_CERT",
        ignores: "the npm package ws",
    },
    Runtime {
        name: "Bun",
        programs: &["bun"],
        version: &["--version"],
        ask: &[],
        heeds: "fetch, node:https; NODE_EXTRA_CA_CERTS",
        ignores: "WebSocket and ws; certificates for addresses",
    },
    Runtime {
        name: "Python",
        programs: &["python"],
        version: &["--version"],
        ask: &["-c", PYTHON],
        heeds: "urllib, requests, httpx, boto3, grpcio, websockets; SSL_CERT_FILE, REQUESTS_CA_BUNDLE, AWS_CA_BUNDLE",
        ignores: "aiohttp without trust_env=True, urllib3 and http.client alone, tornado, elasticsearch, minio; pycurl heeds \
                  the proxy and not the bundle",
    },
    Runtime {
        name: "Java",
        programs: &["java"],
        version: &["-version"],
        ask: &[],
        heeds: "HttpURLConnection, HttpClient and OkHttp, by JAVA_TOOL_OPTIONS",
        ignores: "Apache HttpClient's createDefault (createSystem heeds them); the password of `exec` (use --no-password)",
    },
    Runtime {
        name: "Ruby",
        programs: &["ruby"],
        version: &["--version"],
        ask: &["-e", RUBY],
        heeds: "Net::HTTP, faraday, httpclient, excon; SSL_CERT_FILE",
        ignores: "http.rb; typhoeus heeds the proxy and not the bundle",
    },
    Runtime {
        name: "PHP",
        programs: &["php"],
        version: &["--version"],
        ask: &["-r", PHP, "--"],
        heeds: "the curl extension, Guzzle, Symfony HttpClient; the .ini in PHP_INI_SCAN_DIR",
        ignores: "streams (file_get_contents, fopen); under php-fpm everything, unless clear_env = no",
    },
    Runtime {
        name: "Perl",
        programs: &["perl"],
        version: &["-e", "print $^V"],
        ask: &["-e", PERL],
        heeds: "LWP, HTTP::Tiny, Mojolicious; PERL_LWP_SSL_CA_FILE, SSL_CERT_FILE",
        ignores: "LWP::UserAgent with env_proxy => 0",
    },
    Runtime {
        name: "curl",
        programs: &["curl"],
        version: &["--version"],
        ask: &["--silent", "--show-error", "--max-time", "10"],
        heeds: "the proxy variables and CURL_CA_BUNDLE",
        ignores: "them where ~/.curlrc says otherwise",
    },
    Runtime {
        name: "wget",
        programs: &["wget"],
        version: &["--version"],
        ask: &[
            "--quiet",
            "--output-document=-",
            "--content-on-error",
            "--tries=1",
            "--timeout=10",
        ],
        heeds: "the proxy variables and SYSTEM_WGETRC",
        ignores: "them where ~/.wgetrc says otherwise; wget2 ignores the file",
    },
    Runtime {
        name: "git",
        programs: &["git"],
        version: &["--version"],
        ask: &[],
        heeds: "the proxy variables and GIT_SSL_CAINFO",
        ignores: "them where http.proxy is configured; ssh:// and git://",
    },
    Runtime {
        name: "R",
        programs: &["Rscript", "R"],
        version: &["--version"],
        ask: &[],
        heeds: "the proxy variables",
        ignores: "the bundle, in the packages curl and httr: ask for http:// with `upgrade`",
    },
];

const GO: Runtime = Runtime {
    name: "a Go program",
    programs: &[],
    version: &[],
    ask: &[],
    heeds: "net/http's default transport: the proxy variables, SSL_CERT_FILE",
    ignores: "them in a Transport without Proxy: http.ProxyFromEnvironment, or with RootCAs",
};

/// Prints what the command heeds. `variables` are those that it gets. Returns the exit code: 1 if a request did not
/// arrive.
pub(super) async fn check(command: &[OsString], variables: &[(OsString, Option<OsString>)]) -> u8 {
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
        let told = run(&interpreter, runtime.version, None, variables).await;
        say(format_args!(
            "version    {}",
            shown(
                told.lines()
                    .find(|line| !line.starts_with("Picked up"))
                    .unwrap_or_default()
            )
        ));
    }
    say(format_args!("heeds      {}", runtime.heeds));
    say(format_args!("does not   {}", runtime.ignores));
    if runtime.ask.is_empty() {
        say(format_args!("request    not tried: there is no short one for it"));
        return 0;
    }
    let told = run(&interpreter, runtime.ask, Some(URL), variables).await;
    if told.contains(OURS) {
        say(format_args!("request    arrived at the proxy"));
        return 0;
    }
    say(format_args!(
        "request    did NOT arrive at the proxy: {}",
        shown(&told)
    ));
    1
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
}

//! What outrider costs, counted rather than timed, and compared with `tests/ledger.txt`: allocations, bytes and system
//! calls here, instructions and memory of a release in [`program`].
//!
//! A separate binary, because its allocator counts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::alloc::System;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outrider::bench::RunningProxy;
use rustix::process::{Pid, Signal, kill_process};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use ledger::{Unit, keep};
use stage::{Client, Outrider};

#[path = "cost/callgrind.rs"]
mod callgrind;
#[path = "cost/ledger.rs"]
mod ledger;
#[path = "cost/program.rs"]
mod program;
#[path = "bench/stage.rs"]
mod stage;
#[allow(dead_code, unused_imports, reason = "written for the end-to-end tests")]
mod support;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Held by the test that runs: another one's allocations would count.
static ALONE: Mutex<()> = Mutex::new(());

/// What one more time of some work takes.
#[derive(Debug, Default)]
struct Calls {
    /// Read and written.
    data: f64,
    /// For something to happen.
    waits: f64,
    others: f64,
    by_name: BTreeMap<String, f64>,
}

impl Calls {
    /// Compares them; their names are printed where a test fails.
    #[track_caller]
    fn keep(&self, name: &str) {
        println!("{self:#?}");
        let sum = self.data + self.waits + self.others;
        keep(&[(name, sum, Unit::Calls)]);
    }
}

/// The maps of both heads, what is written of them, and the record of the exchange.
#[test]
fn a_warm_request_allocates_little() {
    keep_allocated("request in clear, with a credential", "");
}

/// One more, for what a request that may be sent again has to keep.
#[test]
fn a_request_that_may_be_sent_again_allocates_little_more() {
    keep_allocated(
        "request that may be sent again",
        "retry: {}\n    circuit_breaker: {}",
    );
}

/// Its policy, its limiter, its TLS settings and its names; no series of metrics.
#[test]
fn a_destination_that_nobody_uses_takes_little_memory() {
    let _alone = alone();
    let origin = stage::origin();
    let held = |others: usize| {
        let others = (0..others).map(|number| {
            let host = format!("service-{number:04}.example.com");
            format!("\n  service-{number:04}: {{ hosts: [{host}], rate_limit: 100/s burst 200 }}")
        });
        // A folder for each: a proxy whose file changes reads it again.
        let folder = tempfile::tempdir().unwrap();
        let config = stage::configure(origin, folder.path(), &others.collect::<String>());
        let region = Region::new(ALLOCATOR);
        let proxy = RunningProxy::start(&config);
        let change = region.change();
        let bytes = change.bytes_allocated as f64 - change.bytes_deallocated as f64;
        (bytes, proxy, folder)
    };
    // None of them ends before the last is measured: what it frees would count.
    let _first = held(0);
    let none = held(0);
    let thousand = held(1_000);
    let each = (thousand.0 - none.0) / 1_000.0;
    keep(&[("destination that nobody uses", each, Unit::Bytes)]);
}

/// Its two sockets, its task, its future and its record.
#[test]
fn an_idle_tunnel_takes_little_memory() {
    let _alone = alone();
    let (origin, folder) = (stage::origin(), tempfile::tempdir().unwrap());
    let proxy = RunningProxy::start(&stage::configure(origin, folder.path(), ""));
    let open = || {
        let tunnels = (0..TUNNELS).map(|_| open_tunnel(proxy.address(), origin));
        tunnels.collect::<Vec<_>>()
    };
    let _first = open();
    let region = Region::new(ALLOCATOR);
    let _second = open();
    let change = region.change();
    let each = (change.bytes_allocated as f64 - change.bytes_deallocated as f64) / TUNNELS as f64;
    keep(&[("tunnel that is idle", each, Unit::Bytes)]);
}

/// Looking through the fields of an answer for what was attached allocates nothing.
#[test]
fn a_credential_that_is_looked_for_allocates_nothing() {
    let keys = "auth: { header: { name: X-Api-Key, value: \"file:$DIR/secret\" } }\n    upgrade: false\n    \
                insecure_attach_over_http: true";
    keep_allocated("request whose answer is searched for the credential", keys);
}

/// Compares what [`allocated`] returns.
fn keep_allocated(name: &str, keys: &str) {
    let (count, bytes) = allocated(keys);
    keep(&[(name, count, Unit::Allocations), (name, bytes, Unit::Bytes)]);
}

/// Returns how often a warm request to a destination with more `keys` allocates, and how much.
fn allocated(keys: &str) -> (f64, f64) {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let origin = stage::origin();
    std::fs::write(folder.path().join("secret"), "canary-2f6b-of-some-length").unwrap();
    let keys = keys.replace("$DIR", &folder.path().display().to_string());
    let proxy = RunningProxy::start(&stage::configure(origin, folder.path(), &keys));
    // Were the answer to be stored, the first one would be another.
    drop(Client::warm(proxy.address(), origin));
    let mut client = Client::warm(proxy.address(), origin);
    let rounds = (0..5).map(|_| {
        let region = Region::new(ALLOCATOR);
        (0..ROUND).for_each(|_| client.get());
        region.change()
    });
    // What happens once a second falls into some of them.
    let least = rounds.min_by_key(|round| round.allocations).unwrap();
    let per_request = |count: usize| count as f64 / ROUND as f64;
    (
        per_request(least.allocations + least.reallocations),
        per_request(least.bytes_allocated),
    )
}

/// The app's head and the answer's, and the record of the exchange; of the body nothing.
#[test]
fn an_answer_from_the_cache_allocates_little() {
    keep_allocated("answer from the cache", STORED);
}

/// Neither the limiter nor the upstream hears of it.
#[test]
fn an_answer_from_the_cache_costs_few_calls() {
    let origin = stage::origin();
    let Some(calls) = calls_with(origin, STORED, |proxy, times| {
        drop(Client::warm(proxy, origin));
        let mut client = Client::warm(proxy, origin);
        (0..times).for_each(|_| client.get());
    }) else {
        return;
    };
    calls.keep("answer from the cache");
}

/// Neither a tick nor a worker wakes up for nothing, with a limit of memory either. What a start leaves behind takes some
/// seconds.
#[test]
fn at_rest_it_sleeps() {
    let _alone = alone();
    let (origin, folder) = (stage::origin(), tempfile::tempdir().unwrap());
    let config = stage::configure(origin, folder.path(), "");
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrider"));
    let outrider = Outrider::start(command.env("MEMORY_LIMIT", "64M"), &config);
    drop(Client::warm(outrider.address(), origin));
    let tasks = format!("/proc/{}/task", outrider.child.id());
    let wakes = || -> u64 {
        let tasks = std::fs::read_dir(&tasks).unwrap();
        let status = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("status")).ok();
        let wakes = |status: String| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            line.unwrap().trim().parse::<u64>().unwrap()
        };
        tasks.filter_map(|task| status(task.unwrap()).map(wakes)).sum()
    };
    // Two seconds each.
    let mut windows = (0..40).map(|_| {
        let before = wakes();
        std::thread::sleep(Duration::from_secs(2));
        wakes() - before
    });
    // Measured: 0 or 1, and 11 when files were looked at once a second.
    let quiet = windows.position(|wakes| wakes <= 2);
    assert!(quiet.is_some(), "it wakes up more than once a second");
}

/// Else the tests above would prove nothing.
#[test]
fn the_allocator_counts() {
    let _alone = alone();
    let region = Region::new(ALLOCATOR);
    drop(black_box(vec![0_u8; 100]));
    let change = region.change();
    assert!(
        change.allocations >= 1 && change.bytes_allocated >= 100,
        "{change:?}"
    );
}

#[test]
fn a_warm_request_costs_few_calls() {
    let origin = stage::origin();
    let Some(calls) = calls(origin, |proxy, times| {
        let mut client = Client::warm(proxy, origin);
        (0..times).for_each(|_| client.get());
    }) else {
        return;
    };
    calls.keep("request in clear, with a credential");
}

/// To open it, to carry a message each way and to close it.
#[test]
fn a_blind_tunnel_costs_few_calls() {
    let origin = stage::origin();
    let Some(calls) = calls(origin, |proxy, times| {
        (0..times).for_each(|_| exchange_in_tunnel(proxy, origin));
    }) else {
        return;
    };
    calls.keep("tunnel: CONNECT, an exchange, the end");
}

/// Returns how many system calls one more round of `work` makes. Without a way to count it prints that and
/// returns `None`.
///
/// Two runs that differ in their number of times: what the start costs falls out.
fn calls(origin: SocketAddr, work: impl Fn(SocketAddr, usize)) -> Option<Calls> {
    calls_with(origin, "", work)
}

/// Counts the system calls with one more line in the destination.
fn calls_with(origin: SocketAddr, line: &str, work: impl Fn(SocketAddr, usize)) -> Option<Calls> {
    let _alone = alone();
    let probe = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    match probe {
        Ok(probe) if probe.status.success() => {}
        other => {
            // Past the capture of the test's output: a skipped test must not look like one that passed.
            let _ = writeln!(std::io::stderr(), "SKIPPED, as strace cannot be used: {other:?}");
            return None;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let config = stage::configure(origin, folder.path(), line);
    let counted = |times: f64| {
        let log = folder.path().join("calls");
        let mut strace = Command::new("strace");
        (strace.args(["-f", "-c", "-o"]).arg(&log)).arg(env!("CARGO_BIN_EXE_outrider"));
        let mut outrider = Outrider::start(&mut strace, &config);
        work(outrider.address(), times as usize);
        kill_traced(&outrider.child);
        outrider.child.wait().unwrap();
        summary(&std::fs::read_to_string(&log).unwrap())
    };
    let (few, many) = (counted(FEW), counted(FEW + MORE));
    let mut calls = Calls::default();
    for (call, count) in many {
        let more = count - few.get(&call).copied().unwrap_or_default();
        let kind = match call.as_str() {
            call if DATA.contains(&call) => &mut calls.data,
            call if call.starts_with("epoll_wait") || call.starts_with("epoll_pwait") => &mut calls.waits,
            _ => &mut calls.others,
        };
        *kind += more / MORE;
        calls.by_name.insert(call, more / MORE);
    }
    assert!(calls.data >= 1.5, "nothing went through: {calls:#?}");
    Some(calls)
}

/// Each call's count, from what `strace -c` prints.
fn summary(table: &str) -> BTreeMap<String, f64> {
    let rows = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter_map(|row| Some((row.last()?.to_string(), row.get(3)?.parse().ok()?)))
        .filter(|(call, _)| call != "total")
        .collect()
}

/// Kills the program that strace runs, so that strace sums up.
fn kill_traced(strace: &Child) {
    let pid = strace.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let traced = children.split_whitespace().next().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(traced).unwrap(), Signal::KILL).unwrap();
}

/// Opens a tunnel to `far`.
fn open_tunnel(proxy: SocketAddr, far: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).unwrap();
    write!(stream, "CONNECT {far} HTTP/1.1\r\nHost: {far}\r\n\r\n").unwrap();
    assert!(read_until(&mut stream, b"\r\n\r\n").starts_with(b"HTTP/1.1 200 "));
    stream
}

/// Opens a tunnel to `far`, asks once, hears the answer, closes: one after the other, so that nothing comes together that
/// may come apart.
fn exchange_in_tunnel(proxy: SocketAddr, far: SocketAddr) {
    let mut stream = open_tunnel(proxy, far);
    stream.write_all(b"ping\r\n\r\n").unwrap();
    read_until(&mut stream, b"hello");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "more than an answer");
}

/// Reads up to and including `end`.
fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let (mut byte, mut read) = ([0], Vec::new());
    while !read.ends_with(end) {
        stream.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
    read
}

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const DATA: &[&str] = &[
    "read", "readv", "recvfrom", "recvmsg", "sendmsg", "sendto", "splice", "write", "writev",
];

const FEW: f64 = 10.0;
/// So many that what happens once a second does not show.
const MORE: f64 = 1_000.0;
const ROUND: usize = 1_000;
const TUNNELS: usize = 200;
/// So long that all answers say it in as many digits.
const STORED: &str = "cache: { min_fresh: 9h }";

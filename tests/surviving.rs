//! What must not end the process: its exit would be the end of the app instance beside it.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::programs::{clean, outrider, skipped, wait};
use crate::support::proxy::configuration;
use crate::support::{Origin, PATIENCE, Proxy, Wire, closed_port, eventually};

/// A proxy of which nothing can be read, on a port that the test chose.
struct MuteProxy {
    child: Child,
    port: u16,
}

impl MuteProxy {
    /// Starts `command`, which the arguments of `outrider run` are added to.
    fn start(mut command: Command, origin: &Origin, folder: &tempfile::TempDir) -> Self {
        let port = closed_port();
        let file = folder.path().join("outrider.yml");
        let text = format!(
            "listen: 127.0.0.1:{port}\nadmin: false\ndestinations: {{ p: {{ hosts: [\"{}\"], tls: {{}}, upgrade: false }} }}",
            origin.authority()
        );
        let text = configuration(&text, folder.path());
        // The default place is below TMPDIR.
        let text: String = text
            .lines()
            .filter(|line| !line.starts_with("ca:"))
            .map(|line| format!("{line}\n"))
            .collect();
        std::fs::write(&file, text).unwrap();
        let child = command.args(["run", "--config"]).arg(&file).spawn().unwrap();
        let proxy = Self { child, port };
        eventually("it listens", || proxy.get(origin) == Some(200));
        proxy
    }

    fn get(&self, origin: &Origin) -> Option<u16> {
        let socket = std::net::TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let mut wire = Wire::over(Box::new(socket.try_clone().ok()?), socket);
        let (url, host) = (origin.url("/"), origin.authority());
        let asked = format!("GET {url} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        wire.try_send(asked).ok()?;
        wire.try_response().ok().map(|answer| answer.status)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Asserts that requests are served after a reload, and that SIGTERM ends it in good order.
    #[track_caller]
    fn assert_serves_and_ends(mut self, what: &str, origin: &Origin) {
        for _ in 0..3 {
            assert_eq!(self.get(origin), Some(200), "{what}");
            self.signal(Signal::HUP);
        }
        assert_eq!(self.child.try_wait().unwrap(), None, "{what}");
        self.signal(Signal::TERM);
        let ended = wait(&mut self.child, PATIENCE).unwrap_or_else(|| panic!("{what}: it did not end"));
        assert_eq!(ended.code(), Some(0), "{what}: {ended}");
    }
}

impl Drop for MuteProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// K6, K7: the log is lost, and nothing else.
#[test]
fn nobody_has_to_read_the_log() {
    let origin = Origin::plain();
    let gone = || {
        let (read, write) = std::io::pipe().unwrap();
        drop(read);
        Stdio::from(write)
    };
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let start = |stdout: Stdio, stderr: Stdio| {
        let folder = tempfile::tempdir().unwrap();
        let mut command = outrider([""; 0]);
        command.env("TMPDIR", folder.path());
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        (MuteProxy::start(command, &origin, &folder), folder)
    };
    let (proxy, _folder) = start(gone(), gone());
    proxy.assert_serves_and_ends("the reader has gone", &origin);
    let (proxy, _folder) = start(full(), full());
    proxy.assert_serves_and_ends("the disk is full", &origin);

    let folder = tempfile::tempdir().unwrap();
    let mut closed = clean("sh");
    closed.env("TMPDIR", folder.path());
    closed.args([
        "-c",
        "exec \"$@\" <&- >&- 2>&-",
        "sh",
        env!("CARGO_BIN_EXE_outrider"),
    ]);
    let proxy = MuteProxy::start(closed, &origin, &folder);
    proxy.assert_serves_and_ends("there is no standard output at all", &origin);
}

/// K6: no home, no folder that can be written, no working folder, and no user that the system knows.
#[test]
fn no_folder_has_to_be_writable() {
    let origin = Origin::plain();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = outrider([""; 0]);
    // Not even root writes there.
    command
        .env_clear()
        .env("TMPDIR", "/proc/self")
        .current_dir("/proc/self");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap());
    let proxy = MuteProxy::start(command, &origin, &folder);
    proxy.assert_serves_and_ends("nothing can be written", &origin);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("the CA bundle cannot be written"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

/// H14, K10: timers and limits keep to a clock that does not jump.
#[test]
fn the_clock_may_jump() {
    let library = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|folder| format!("/usr/lib/{folder}/faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|path| std::path::Path::new(path).exists());
    let Some(library) = library else {
        return skipped("the clock of a process cannot be set here (Debian: apt install faketime)");
    };
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    let set = |offset: &str| {
        let new = folder.path().join("clock.new");
        std::fs::write(&new, format!("{offset}\n")).unwrap();
        std::fs::rename(&new, &clock).unwrap();
    };
    set("+0d");
    let origin = Origin::plain();
    let proxy = Proxy::start_with(
        &format!(
            "destinations: {{ p: {{ hosts: [\"{}\"], rate_limit: 1000/s burst 5, on_limit: wait 5s }} }}",
            origin.authority()
        ),
        &[
            ("LD_PRELOAD", &library),
            ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            // The monotonic clock does not jump on a real machine either.
            ("DONT_FAKE_MONOTONIC", "1"),
        ],
    );
    let day = || {
        assert_eq!(proxy.get(&origin.url("/")).status, 200);
        let log = proxy.log();
        let last = log
            .lines()
            .rfind(|line| line.contains("\"timestamp\""))
            .unwrap_or_default();
        serde_json::from_str::<serde_json::Value>(last)
            .ok()
            .and_then(|line| Some(line["timestamp"].as_str()?[..10].to_owned()))
    };
    let mut seen = Vec::new();
    for offset in ["+0d", "+400d", "-9000d", "-30000d", "+20000d", "+0d"] {
        set(offset);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        assert_eq!(proxy.get(&origin.url("/")).status, 200, "{offset}");
                    }
                });
            }
        });
        proxy.signal(Signal::HUP);
        for page in ["/metrics", "/status", "/readyz"] {
            assert_eq!(proxy.page(page).status, 200, "{offset}: {page}");
        }
        eventually("the log has the new time", || {
            day() != seen.last().cloned().flatten()
        });
        seen.push(day());
    }
    println!("{seen:?}");
}

//! A container of Cloud Foundry: the app's folder, the launcher's script, its two processes, and a user who is not root.
//!
//! The script and its arguments are those of cloudfoundry/buildpackapplifecycle, launcher/launcher_unix.go, and what
//! env/env.go sets before it is set here. The launcher itself is not built: the modules that it is made of are in no
//! registry that these tests use.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::programs::{clean, wait};
use crate::support::{Origin, PATIENCE, Wire, closed_port, eventually, run};

const LAUNCHER: &str = include_str!("launcher.sh");

/// The user and group vcap.
const VCAP: u32 = 2000;

/// The command of `manifest.yml`.
const SIDECAR: &str = "exec ./outrider run";

/// What `sidecar/install` makes of an app's folder, in a container.
struct Container {
    home: TempDir,
    port: u16,
}

impl Container {
    fn new(origin: &Origin) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755)).unwrap();
        for folder in ["app", "deps", "profile.d", "tmp", "logs"] {
            std::fs::create_dir(home.path().join(folder)).unwrap();
        }
        let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("sidecar/install");
        let app = home.path().join("app");
        run(clean(install).arg(&app).arg(env!("CARGO_BIN_EXE_outrider"))).succeeded();
        let port = closed_port();
        let yaml = format!(
            "listen: 127.0.0.1:{port}\nadmin: false\ndns: {{ hosts: {{ api.test: 127.0.0.1 }} }}\n\
             egress: {{ allow_networks: [loopback] }}\n\
             destinations: {{ api: {{ hosts: [\"api.test:{}\"] }} }}\n",
            origin.port()
        );
        std::fs::write(app.join("outrider.yml"), yaml).unwrap();
        let container = Self { home, port };
        if is_root() {
            for path in [
                "",
                "app",
                "app/outrider",
                "app/outrider.yml",
                "app/.profile.d",
                "deps",
                "tmp",
                "logs",
            ] {
                chown(container.path(path), Some(VCAP), Some(VCAP)).unwrap();
            }
        }
        container
    }

    fn path(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    /// Starts a process of the container as the platform does.
    fn launch(&self, command: &str, memory: u32) -> Process {
        let mut launcher = if is_root() {
            let mut command = clean("setpriv");
            command.args([
                "--reuid",
                &VCAP.to_string(),
                "--regid",
                &VCAP.to_string(),
                "--clear-groups",
            ]);
            command.args(["--no-new-privs", "/bin/bash"]);
            command
        } else {
            clean("/bin/bash")
        };
        launcher.args(["-c", LAUNCHER, "/tmp/lifecycle/launcher"]);
        launcher.arg(self.path("app")).arg(command);
        launcher
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.path("app"))
            .env("TMPDIR", self.path("tmp"))
            .env("DEPS_DIR", self.path("deps"))
            .env("USER", "vcap")
            .env("PORT", "8080")
            .env("VCAP_APP_PORT", "8080")
            .env("MEMORY_LIMIT", format!("{memory}m"))
            .env("CF_INSTANCE_INDEX", "0")
            .env("VCAP_SERVICES", "{}")
            .env(
                "VCAP_APPLICATION",
                format!(
                    "{{\"application_id\":\"1\",\"application_name\":\"my-app\",\"host\":\"0.0.0.0\",\
                     \"instance_index\":0,\"limits\":{{\"disk\":1024,\"fds\":16384,\"mem\":{memory}}},\"name\":\"my-app\",\
                     \"port\":8080,\"process_id\":\"1\",\"process_type\":\"web\"}}"
                ),
            );
        Process::start(&mut launcher, self.path("logs"), command)
    }

    fn sidecar(&self) -> Process {
        self.launch(SIDECAR, 64)
    }

    fn app(&self, command: &str) -> Process {
        self.launch(command, 128)
    }
}

/// A process of a container; it is killed when this is dropped.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(command: &mut Command, logs: PathBuf, name: &str) -> Self {
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let log = logs.join(&name[..name.len().min(40)]);
        let file = std::fs::File::create(&log).unwrap();
        let both = file.try_clone().unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(both)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end, and returns the exit code.
    #[track_caller]
    fn ends(&mut self) -> Option<i32> {
        let status = wait(&mut self.child, 3 * PATIENCE);
        status
            .unwrap_or_else(|| panic!("it did not end: {}", self.said()))
            .code()
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Both processes at once, in either order: the first call of the app passes. `OUTRIDER_TEST_STARTS` is how often.
#[test]
fn the_first_call_of_the_app_passes_in_either_order() {
    let times = std::env::var("OUTRIDER_TEST_STARTS").map_or(50, |text| text.parse().unwrap());
    let origin = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    let container = Container::new(&origin);
    // No retries, and no time to spare after the start.
    let call = format!(
        "exec curl -sS --fail --max-time 20 http://api.test:{}/",
        origin.port()
    );
    for time in 0..times {
        let (mut app, mut sidecar);
        if time % 2 == 0 {
            (app, sidecar) = (container.app(&call), container.sidecar());
        } else {
            sidecar = container.sidecar();
            app = container.app(&call);
        }
        assert_eq!(
            app.ends(),
            Some(0),
            "start {time}: {}\n{}",
            app.said(),
            sidecar.said()
        );
        assert!(
            app.said().ends_with("Invoking start command.\nok"),
            "{}",
            app.said()
        );
        sidecar.signal(Signal::TERM);
        assert_eq!(sidecar.ends(), Some(0), "start {time}: {}", sidecar.said());
        // A new container has nothing of the last one.
        let _ = std::fs::remove_dir_all(container.path("tmp/outrider"));
    }
    assert_eq!(origin.seen().len(), times, "each call came once");
}

/// An origin that answers once it is told to.
fn held() -> (Origin, impl Fn()) {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let theirs = Arc::clone(&gate);
    let origin = Origin::http(move |wire: &mut Wire| {
        while wire.request().is_ok() {
            let is_open = theirs.0.lock().unwrap();
            drop(
                theirs
                    .1
                    .wait_timeout_while(is_open, PATIENCE, |is_open| !*is_open),
            );
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    (origin, move || {
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
    })
}

/// An app that finishes what it does when it is told to end, as a good server does.
fn four_calls(origin: &Origin) -> String {
    format!(
        "trap : TERM; for n in 1 2 3 4; do curl -sS --fail --max-time 20 http://api.test:{}/$n || echo failed & done; \
         while [ \"$(jobs -pr)\" ]; do wait; done; echo ended",
        origin.port()
    )
}

#[test]
fn no_call_in_flight_fails_when_both_are_told_to_end() {
    let (origin, answer) = held();
    let container = Container::new(&origin);
    let mut sidecar = container.sidecar();
    let mut app = container.app(&four_calls(&origin));
    eventually("all four are in flight", || {
        origin.raw().matches("GET /").count() == 4
    });
    sidecar.signal(Signal::TERM);
    app.signal(Signal::TERM);
    eventually("the sidecar is ending", || sidecar.said().contains("leaving"));
    assert!(app.child.try_wait().unwrap().is_none(), "{}", app.said());
    answer();
    assert_eq!(app.ends(), Some(0), "{}", app.said());
    assert!(app.said().ends_with("okokokokended\n"), "{}", app.said());
    assert_eq!(sidecar.ends(), Some(0), "{}", sidecar.said());
}

#[test]
fn a_killed_sidecar_is_seen_as_refused() {
    let (origin, _answer) = held();
    let container = Container::new(&origin);
    let mut sidecar = container.sidecar();
    // One call that is in flight, one that begins afterwards.
    let url = format!("http://api.test:{}/", origin.port());
    let mut app = container.app(&format!(
        "curl -sS --max-time 20 {url}; echo first $?; curl -sS --max-time 20 {url}; echo second $?"
    ));
    eventually("the call is in flight", || origin.raw().contains("GET /"));
    let start = Instant::now();
    sidecar.signal(Signal::KILL);
    sidecar.ends();
    assert_eq!(app.ends(), Some(0));
    // curl: 52 or 56, the connection ended; 7, refused.
    let said = app.said();
    assert!(said.contains("first 52") || said.contains("first 56"), "{said}");
    assert!(said.contains("second 7"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(std::net::TcpStream::connect(("127.0.0.1", container.port)).is_err());
}

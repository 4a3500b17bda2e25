//! Real programs as clients, and how a test runs a program.

use std::ffi::OsStr;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, eventually};

/// The output and the exit status of a program.
#[derive(Debug)]
pub(crate) struct ProgramOutput {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl ProgramOutput {
    /// Returns the exit code; a signal counts as 128 and its number, as in a shell.
    pub(crate) fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap())
    }

    #[track_caller]
    pub(crate) fn succeeded(&self) -> &Self {
        assert!(self.status.success(), "{self:#?}");
        self
    }
}

/// What a Python client says over its WebSocket `ws`, and hears back from a server that echoes.
pub(crate) const WEBSOCKET_TALK: &str = r#"
            for message in ["hello", "x" * 1000, os.urandom(1 << 20), ""]:
                await ws.send(message)
                assert await ws.recv() == message
            await (await ws.ping())
            await ws.close(4001, "done")
            assert ws.close_code == 4001, ws.close_code
asyncio.run(asyncio.wait_for(main(), 20))
print("all echoed")
"#;

/// Says, past the capture of the test's output, that a test did not run: it must not look like one that passed.
pub(crate) fn skipped(why: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
}

/// Whether this release of Debian has no package of a program, as `tests/run` found out. Any other program must be there.
pub(crate) fn is_not_packaged(program: &str) -> bool {
    let absent = std::env::var("OUTRIDER_NOT_PACKAGED").unwrap_or_default();
    let is_absent = absent.split(' ').any(|name| name == program);
    if is_absent {
        skipped(&format!("this Debian has no package of {program}"));
    }
    is_absent
}

/// A server program; it is stopped when this is dropped.
pub(crate) struct ServerProcess(pub(crate) Child);

impl ServerProcess {
    /// Starts a server in the foreground, and waits until it listens on `port`.
    #[track_caller]
    pub(crate) fn start(command: &mut Command, port: u16) -> Self {
        // Some servers are in a folder that only root has on the PATH.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let child = command
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut server =
            Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run --tools installs it")));
        eventually("the server listens", || {
            assert!(
                server.0.try_wait().unwrap().is_none(),
                "{command:?} ended at once"
            );
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        server
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end, within three times [`PATIENCE`].
#[track_caller]
pub(crate) fn run(command: &mut Command) -> ProgramOutput {
    let mut child = (command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn())
    .unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run --tools installs what the tests need"));
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let status = wait(&mut child, 3 * PATIENCE).unwrap_or_else(|| panic!("{command:?} did not end"));
    ProgramOutput {
        status,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

/// Waits for a child's end; `None`, and the child killed, when it takes longer than `patience`.
pub(crate) fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::park_timeout(Duration::from_millis(5));
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Returns a command for the program under test, without the settings of the environment.
pub(crate) fn outrider<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = clean(env!("CARGO_BIN_EXE_outrider"));
    command.args(arguments);
    command
}

/// Returns a command without the machine's proxy, trust and platform variables.
pub(crate) fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LANG", "C.UTF-8");
    for name in ["PATH", "HOME", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

pub(crate) fn curl<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = clean("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "20"])
        .args(arguments);
    command
}

/// Returns a command for Python with `requests`, `websockets` and `grpc`.
pub(crate) fn python(script: &str) -> Command {
    let mut command = clean(tool("venv/bin/python"));
    command.args(["-c", script]);
    command
}

/// Returns a command for a Node that reads NODE_USE_ENV_PROXY.
pub(crate) fn node(script: &str) -> Command {
    let mut command = clean(tool("node_modules/node/bin/node"));
    command.args(["-e", script]);
    command.env("NODE_PATH", tool("node_modules"));
    command
}

/// Returns the path of a file that `tests/run --tools` has installed.
pub(crate) fn tool(path: &str) -> PathBuf {
    let folder = std::env::var_os("OUTRIDER_TEST_TOOLS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/test-tools"),
        PathBuf::from,
    );
    let file = folder.join(path);
    assert!(
        file.exists(),
        "{} is missing: run tests/run --tools first",
        file.display()
    );
    file
}

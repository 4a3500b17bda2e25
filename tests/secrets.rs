//! What must not leak: memory, and the scan that every other test runs under.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::support::programs::{clean, outrider, wait};
use crate::support::proxy::{configuration, destination};
use crate::support::{CANARY, Origin, PATIENCE, Proxy, TOKEN, eventually, leak};

/// Allows core dumps of any size, as far as this machine does.
fn allow_cores(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    let all = Rlimit {
        current: None,
        maximum: None,
    };
    // Not root: then as much as there is.
    let _ = prlimit(pid, Resource::Core, all);
}

/// G4: no end of the program writes a core dump.
#[test]
fn no_core_is_written() {
    let origin = Origin::plain();
    let yaml = destination(
        &origin.authority(),
        "auth: { bearer: env:TOKEN }, upgrade: false, insecure_attach_over_http: true",
    );
    let mut proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    allow_cores(proxy.pid());
    proxy.signal(Signal::ABORT);
    let status = proxy.exit();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));

    // Another program dumps core here, which shows that the test can fail.
    let mut other = clean("sleep")
        .arg("60")
        .current_dir(std::env::temp_dir())
        .spawn()
        .unwrap();
    allow_cores(other.id());
    rustix::process::kill_process(Pid::from_child(&other), Signal::ABORT).unwrap();
    let status = wait(&mut other, PATIENCE).unwrap();
    if !status.core_dumped() {
        eprintln!("this machine writes no cores at all");
    }
}

/// G4: the app, which runs as the same user, reads neither our memory nor our environment; we still read our
/// own figures.
#[test]
fn the_same_user_cannot_look_inside() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let file = folder.path().join("outrider.yml");
    std::fs::write(&file, configuration("destinations: {}\n", folder.path())).unwrap();
    let is_root = rustix::process::getuid().is_root();
    let as_nobody = |command: &mut Command| {
        if is_root {
            command.uid(65534).gid(65534);
        }
    };
    // Where nobody can reach it.
    let program = folder.path().join("outrider");
    std::fs::copy(outrider([""; 0]).get_program(), &program).unwrap();
    let mut command = clean(&program);
    command
        .args(["run", "--config"])
        .arg(&file)
        .env("TMPDIR", folder.path())
        .env("TOKEN", TOKEN);
    command
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    as_nobody(&mut command);
    let log = folder.path().join("log");
    command.stdout(std::fs::File::create(&log).unwrap());
    command.stderr(std::fs::File::options().append(true).open(&log).unwrap());
    let mut child = command.spawn().unwrap();
    let told = || std::fs::read_to_string(&log).unwrap();
    eventually("it runs", || told().contains("metrics on http://"));

    for name in ["environ", "mem", "maps", "auxv"] {
        let mut command = clean("head");
        command.args(["-c", "1", &format!("/proc/{}/{name}", child.id())]);
        as_nobody(&mut command);
        let ran = command.output().unwrap();
        assert!(
            !ran.status.success() && ran.stdout.is_empty(),
            "{name} can be read: {ran:?}"
        );
    }
    // Anybody may read this one, so it must contain nothing.
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap();
    assert!(
        arguments.contains("outrider.yml") && !arguments.contains(CANARY),
        "{arguments}"
    );

    let told = told();
    let address = told
        .split_once("metrics on http://")
        .unwrap()
        .1
        .split('/')
        .next()
        .unwrap();
    let page = String::from_utf8(
        clean("curl")
            .args(["-s", &format!("http://{address}/metrics")])
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap();
    for name in [
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
        "process_threads",
    ] {
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .unwrap_or_else(|| panic!("{name}: {page}"));
        assert!(line.parse::<f64>().unwrap() > 0.0, "{name}{line}");
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// What `exec` starts is as it would be without us.
#[test]
fn a_command_keeps_its_own_limits() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrider.yml");
    std::fs::write(&file, configuration("destinations: {}\n", folder.path())).unwrap();
    let script =
        "ulimit -c; ulimit -H -c; head -c 1 /proc/self/environ >/dev/null && stat -c %U /proc/$$/environ";
    let with = outrider(["exec", "--config"])
        .arg(&file)
        .args(["--", "sh", "-c", script])
        .current_dir(folder.path())
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    let without = clean("sh").args(["-c", script]).output().unwrap();
    assert!(without.status.success(), "{without:?}");
    assert_eq!(
        String::from_utf8_lossy(&with.stdout),
        String::from_utf8_lossy(&without.stdout),
        "{with:?}"
    );
}

/// The scan at the end of each test finds what it is there to find.
#[test]
fn a_planted_secret_is_found() {
    let basic = |pair: &str| data_encoding::BASE64.encode(pair.as_bytes());
    for text in [
        format!("one\ntoken={TOKEN} two"),
        format!("Authorization: Basic {}", basic(&format!("app:{TOKEN}"))),
        format!("Authorization: Basic {}", basic(&format!("ap:{TOKEN}"))),
        format!("Authorization: Basic {}", basic(&format!("a:{TOKEN}"))),
        basic(CANARY),
        format!("GET /?key={CANARY}%20x"),
    ] {
        assert!(leak(&text).is_some(), "{text}");
    }
    for text in ["", "canary", "Y2FuYXJ5"] {
        assert_eq!(leak(text), None);
    }
}

//! The released program under callgrind: the user instructions of a piece of work, the same from run to run.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::stage::Outrider;
use crate::support::TOKEN;

/// The least of so many counts is told: only in some of them something else happens as well.
const ROUNDS: usize = 5;
const REST: Duration = Duration::from_secs(2);

/// A proxy that counts.
pub(crate) struct Counted {
    outrider: Outrider,
    folder: TempDir,
    dumps: usize,
    per_second_at_rest: Option<f64>,
}

/// Returns the program to count, which is that of a release. Without one, or without valgrind, it says so and returns `None`.
pub(crate) fn program() -> Option<PathBuf> {
    let missing = match (std::env::var_os("OUTRIDER_RELEASE"), valgrind()) {
        (Some(program), Some(_)) => return Some(program.into()),
        (None, _) => "no release is named; tests/ledger builds one",
        (_, None) => "valgrind is missing",
    };
    // Past the capture of the test's output: a skipped test must not look like one that passed.
    let _ = writeln!(std::io::stderr(), "SKIPPED, as {missing}");
    None
}

/// Returns valgrind's version.
pub(crate) fn valgrind() -> Option<String> {
    let said = Command::new("valgrind").arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

impl Counted {
    /// Starts the program on a configuration.
    pub(crate) fn start(program: &Path, config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("outrider.yml");
        fs::write(
            &file,
            config.replace("$DIR", &folder.path().display().to_string()),
        )
        .unwrap();
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=callgrind", "--fair-sched=yes"]);
        valgrind.arg(format!(
            "--callgrind-out-file={}",
            folder.path().join("out").display()
        ));
        valgrind.arg(program).env("TOKEN", TOKEN);
        Self {
            outrider: Outrider::start(&mut valgrind, &file),
            folder,
            dumps: 0,
            per_second_at_rest: None,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.outrider.address()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the instructions since the last call, or since the start.
    pub(crate) fn instructions(&mut self) -> f64 {
        self.dumps += 1;
        let pid = format!("--pid={}", self.outrider.child.id());
        let vgdb = Command::new("vgdb").args([&pid, "dump"]).output().unwrap();
        assert!(vgdb.status.success(), "{vgdb:?}");
        let out = self.folder.path().join(format!("out.{}", self.dumps));
        let text = fs::read_to_string(&out).unwrap();
        let total = text.lines().find_map(|line| line.strip_prefix("summary: "));
        total.unwrap().trim().parse().unwrap()
    }

    /// Returns the instructions of a second in which nobody asks, which are counted once.
    pub(crate) fn per_second_at_rest(&mut self) -> f64 {
        self.instructions();
        if let Some(known) = self.per_second_at_rest {
            return known;
        }
        let rests = (0..ROUNDS).map(|_| {
            thread::sleep(REST);
            self.instructions() / REST.as_secs_f64()
        });
        let least = rests.min_by(f64::total_cmp).unwrap();
        *self.per_second_at_rest.insert(least)
    }

    /// Returns the instructions of one of `times` pieces of work, without those that the time alone would have cost.
    pub(crate) fn least(&mut self, times: usize, mut work: impl FnMut()) -> f64 {
        let at_rest = self.per_second_at_rest();
        let counts = (0..ROUNDS).map(|_| {
            let begun = Instant::now();
            work();
            let all = self.instructions();
            (all - at_rest * begun.elapsed().as_secs_f64()) / times as f64
        });
        counts.min_by(f64::total_cmp).unwrap()
    }
}

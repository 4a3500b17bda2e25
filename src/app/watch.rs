//! Changed files, found by looking at them.
//!
//! A look sees renames over a file, swapped symlinks of mounted folders and files that appear later, on every file
//! system, and costs one stat call a file. The caller decides when to look: once a tick, and after a notice of
//! [`super::notice`].
//!
//! To look at a file whose file system hangs takes as long as that hangs. Such a file counts as unchanged, and the
//! others are looked at all the same; all of this happens in the background.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::background::in_background;
use crate::secret::guard;
use crate::sync::lock;

/// A file system that takes longer than this to look at a file hangs.
const PATIENCE: Duration = Duration::from_secs(2);

/// Watches files in the background.
#[derive(Debug)]
pub(super) struct FileWatcher(Arc<Mutex<WatchedFiles>>);

/// The files that matter, as they were when last looked at.
#[derive(Debug, Default)]
struct WatchedFiles {
    configuration: Vec<WatchedFile>,
    secrets: Vec<WatchedFile>,
}

/// What has changed since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) configuration: bool,
    pub(super) secrets: bool,
}

/// Where everything is read from.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) configuration: Vec<PathBuf>,
    pub(super) secrets: Vec<PathBuf>,
}

#[derive(Debug)]
struct WatchedFile {
    path: PathBuf,
    seen: FileState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileState {
    Absent,
    As(FileVersion),
    /// Not looked at yet. The bytes that were read may be older than the file is now.
    Never,
}

/// Distinguishes one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileVersion {
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl FileWatcher {
    /// Must not be called on the main thread: it looks at files.
    pub(super) fn new(files: Files) -> Self {
        Self(Arc::new(Mutex::new(WatchedFiles::new(files))))
    }

    /// Watches other files from now on.
    pub(super) async fn follow(&self, files: Files) {
        self.beside(|watch| watch.follow(files)).await;
    }

    /// Returns what has changed since the last look. A file that is still being written has changed again when it
    /// is done.
    pub(super) async fn look(&self) -> Change {
        self.beside(WatchedFiles::look).await
    }

    /// Returns whether a secret has changed since the last look. What has changed in the configuration stays for that.
    pub(super) async fn look_at_secrets(&self) -> bool {
        self.beside(WatchedFiles::look_at_secrets).await
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        lock(&self.0).paths().map(Path::to_owned).collect()
    }

    async fn beside<T: Default + Send + 'static>(
        &self,
        work: impl FnOnce(&mut WatchedFiles) -> T + Send + 'static,
    ) -> T {
        let watch = Arc::clone(&self.0);
        let done = in_background(move || Ok(work(&mut lock(&watch)))).await;
        // Without a thread nothing is found out; the next tick tries again.
        done.unwrap_or_default()
    }
}

impl WatchedFiles {
    fn new(files: Files) -> Self {
        let mut watch = Self::default();
        watch.follow(files);
        watch
    }

    /// Watches other files from now on; those that were watched before keep their mark. A secret that is new counts
    /// as changed at the next look, which finds out whether it is.
    fn follow(&mut self, files: Files) {
        follow(&mut self.configuration, files.configuration, |path| {
            let path = path.to_owned();
            let mark = guard::within(PATIENCE, guard::name(&path), move || FileState::of(&path));
            mark.unwrap_or(FileState::Never)
        });
        follow(&mut self.secrets, files.secrets, |_| FileState::Never);
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let all = self.configuration.iter().chain(&self.secrets);
        all.map(|watched| watched.path.as_path())
    }

    fn look(&mut self) -> Change {
        self.look_by(FileState::of, PATIENCE)
    }

    fn look_at_secrets(&mut self) -> bool {
        let paths = self.secrets.iter().map(|watched| watched.path.clone()).collect();
        has_changed(&mut self.secrets, &states(paths, FileState::of, PATIENCE))
    }

    fn look_by(&mut self, of: fn(&Path) -> FileState, patience: Duration) -> Change {
        let now = states(self.paths().map(Path::to_owned).collect(), of, patience);
        let (configuration, secrets) = now.split_at(self.configuration.len());
        Change {
            configuration: has_changed(&mut self.configuration, configuration),
            secrets: has_changed(&mut self.secrets, secrets),
        }
    }
}

/// Looks at each file; `None` for one whose file system hangs.
fn states(paths: Vec<PathBuf>, of: fn(&Path) -> FileState, patience: Duration) -> Vec<Option<FileState>> {
    let each = paths.clone();
    let all = move || each.iter().map(|path| Some(of(path))).collect();
    guard::within(patience, guard::name("files"), all).unwrap_or_else(|_| {
        // One of them hangs: each by itself, and only those again that answered.
        let one = |path: PathBuf| guard::within(patience, guard::name(&path), move || of(&path)).ok();
        paths.into_iter().map(one).collect()
    })
}

fn follow(watched: &mut Vec<WatchedFile>, paths: Vec<PathBuf>, first: fn(&Path) -> FileState) {
    let known = std::mem::take(watched);
    *watched = (paths.into_iter())
        .map(|path| {
            let seen = known.iter().find(|old| old.path == path).map(|old| old.seen);
            let seen = seen.unwrap_or_else(|| first(&path));
            WatchedFile { path, seen }
        })
        .collect();
}

fn has_changed(watched: &mut [WatchedFile], now: &[Option<FileState>]) -> bool {
    let mut has_changed = false;
    for (WatchedFile { seen, .. }, now) in watched.iter_mut().zip(now) {
        if let Some(now) = now {
            has_changed |= now != seen;
            *seen = *now;
        }
    }
    has_changed
}

impl FileState {
    fn of(path: &Path) -> Self {
        let Ok(data) = std::fs::metadata(path) else {
            return Self::Absent;
        };
        Self::As(FileVersion {
            inode: data.ino(),
            modified: (data.mtime(), data.mtime_nsec()),
            size: data.size(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::sync::{Mutex, OnceLock};

    use super::*;

    #[test]
    fn a_changed_replaced_new_or_removed_file_is_noticed_once() {
        let folder = tempfile::tempdir().unwrap();
        let (file, later) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&file, "1").unwrap();
        let mut watch = WatchedFiles::new(Files {
            configuration: vec![file.clone(), later.clone()],
            secrets: Vec::new(),
        });
        let mut has_changed = || watch.look().configuration;
        assert!(!has_changed());

        std::fs::write(&file, "22").unwrap();
        assert!(has_changed());
        assert!(!has_changed());

        std::fs::write(folder.path().join("new"), "33").unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
        assert!(has_changed());

        std::fs::write(&later, "x").unwrap();
        assert!(has_changed());
        std::fs::remove_file(&later).unwrap();
        assert!(has_changed());
        assert!(!has_changed());
    }

    /// Other files are looked at, and what hangs is looked at again when it has ended.
    #[test]
    fn a_file_system_that_hangs_hides_only_its_own_files() {
        static GATE: OnceLock<Mutex<Receiver<()>>> = OnceLock::new();
        fn of(path: &Path) -> FileState {
            if path.ends_with("hangs") {
                let _ = GATE.get().unwrap().lock().unwrap().recv();
            }
            FileState::of(path)
        }
        let (open, gate) = channel();
        GATE.set(Mutex::new(gate)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (file, hung) = (folder.path().join("key"), folder.path().join("hangs"));
        let mut watch = WatchedFiles {
            configuration: Vec::new(),
            secrets: [&hung, &file]
                .map(|path| WatchedFile {
                    path: path.clone(),
                    seen: FileState::Absent,
                })
                .into(),
        };
        std::fs::write(&hung, "1").unwrap();
        let short = Duration::from_millis(200);
        for text in ["1", "22", "333"] {
            std::fs::write(&file, text).unwrap();
            assert!(watch.look_by(of, short).secrets, "{text}");
            assert_eq!(watch.secrets[0].seen, FileState::Absent);
            assert!(!watch.look_by(of, short).secrets, "{text}");
        }
        drop(open);
        assert!((0..10_000).any(|_| watch.look_by(of, short).secrets));
        assert_ne!(watch.secrets[0].seen, FileState::Absent);
    }

    /// A look at the secrets alone leaves a changed configuration to the next look.
    #[test]
    fn secrets_are_looked_at_alone() {
        let folder = tempfile::tempdir().unwrap();
        let [configuration, key] = ["outrider.yml", "key"].map(|name| folder.path().join(name));
        let write = |text| [&configuration, &key].map(|path| std::fs::write(path, text).unwrap());
        write("1");
        let mut watch = WatchedFiles::new(Files {
            configuration: vec![configuration.clone()],
            secrets: vec![key.clone()],
        });
        assert!(watch.look_at_secrets());
        assert!(!watch.look_at_secrets());
        write("22");
        assert!(watch.look_at_secrets());
        assert_eq!(
            watch.look(),
            Change {
                configuration: true,
                secrets: false
            }
        );
    }

    /// It was read before it is looked at, and may have changed in between.
    #[test]
    fn a_secret_is_looked_into_once_more_after_it_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "1").unwrap();
        let files = || Files {
            configuration: Vec::new(),
            secrets: vec![file.clone()],
        };
        let secrets = Change {
            configuration: false,
            secrets: true,
        };
        let mut watch = WatchedFiles::new(files());
        assert_eq!(watch.look(), secrets);
        watch.follow(files());
        assert_eq!(watch.look(), Change::default());
        std::fs::write(&file, "22").unwrap();
        watch.follow(files());
        assert_eq!(watch.look(), secrets);
    }
}

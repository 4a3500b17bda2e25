//! Notices changed files by looking at them.
//!
//! Looking sees renames over a file, swapped symlinks of mounted folders and files that appear later alike, on every file
//! system, and costs a stat call a file. When to look is decided elsewhere: once a tick, and when [`super::notice`] hears
//! something.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The files that matter, as they were when last looked at.
#[derive(Debug, Default)]
pub(super) struct Watch {
    configuration: Vec<Watched>,
    secrets: Vec<Watched>,
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
struct Watched {
    path: PathBuf,
    seen: Seen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Absent,
    As(Mark),
    /// Not looked at yet. What has been read of it may have been older than what is there now.
    Never,
}

/// Tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl Watch {
    pub(super) fn new(files: Files) -> Self {
        let mut watch = Self::default();
        watch.follow(files);
        watch
    }

    /// Watches other files from now on; those that were watched before keep their mark. A secret that is new counts as
    /// changed at the next look, which finds out whether it is.
    pub(super) fn follow(&mut self, files: Files) {
        follow(&mut self.configuration, files.configuration, Seen::of);
        follow(&mut self.secrets, files.secrets, |_| Seen::Never);
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let all = self.configuration.iter().chain(&self.secrets);
        all.map(|watched| watched.path.as_path())
    }

    /// What has changed since this was last asked. A file that is still being written is told again when it is done.
    pub(super) fn look(&mut self) -> Change {
        Change {
            configuration: has_changed(&mut self.configuration),
            secrets: has_changed(&mut self.secrets),
        }
    }
}

fn follow(watched: &mut Vec<Watched>, paths: Vec<PathBuf>, first: fn(&Path) -> Seen) {
    let known = std::mem::take(watched);
    *watched = (paths.into_iter())
        .map(|path| {
            let seen = known.iter().find(|old| old.path == path).map(|old| old.seen);
            let seen = seen.unwrap_or_else(|| first(&path));
            Watched { path, seen }
        })
        .collect();
}

fn has_changed(watched: &mut [Watched]) -> bool {
    let mut has_changed = false;
    for Watched { path, seen } in watched {
        let now = Seen::of(path);
        has_changed |= now != *seen;
        *seen = now;
    }
    has_changed
}

impl Seen {
    fn of(path: &Path) -> Self {
        let Ok(data) = std::fs::metadata(path) else {
            return Self::Absent;
        };
        Self::As(Mark {
            inode: data.ino(),
            modified: (data.mtime(), data.mtime_nsec()),
            size: data.size(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_replaced_new_or_removed_file_is_noticed_once() {
        let folder = tempfile::tempdir().unwrap();
        let (file, later) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&file, "1").unwrap();
        let mut watch = Watch::new(Files {
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
        let mut watch = Watch::new(files());
        assert_eq!(watch.look(), secrets);
        watch.follow(files());
        assert_eq!(watch.look(), Change::default());
        std::fs::write(&file, "22").unwrap();
        watch.follow(files());
        assert_eq!(watch.look(), secrets);
    }
}

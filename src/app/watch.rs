//! Notices changed files by looking at them once a tick.
//!
//! Polling, not inotify: it sees renames over a file, swapped symlinks of mounted folders and files that appear later
//! alike, on every file system, and costs a stat call a file and second.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The files that matter, as they were when last looked at.
#[derive(Debug)]
pub(super) struct Watch {
    files: Vec<(PathBuf, Option<Mark>)>,
}

/// Tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl Watch {
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        let mut watch = Self { files: Vec::new() };
        watch.follow(files);
        watch
    }

    /// Watches other files from now on; those that were watched before keep their mark.
    pub(super) fn follow(&mut self, files: Vec<PathBuf>) {
        let known = std::mem::take(&mut self.files);
        self.files = (files.into_iter())
            .map(|path| {
                let mark = known.iter().find(|(old, _)| *old == path).map(|(_, mark)| *mark);
                let mark = mark.unwrap_or_else(|| Mark::of(&path));
                (path, mark)
            })
            .collect();
    }

    /// Whether a file has changed since this was last asked. A file that is still being written is told again when it
    /// is done.
    pub(super) fn has_changed(&mut self) -> bool {
        let mut has_changed = false;
        for (path, mark) in &mut self.files {
            let now = Mark::of(path);
            if now != *mark {
                *mark = now;
                has_changed = true;
            }
        }
        has_changed
    }
}

impl Mark {
    fn of(path: &PathBuf) -> Option<Self> {
        let data = std::fs::metadata(path).ok()?;
        Some(Self {
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
        let mut watch = Watch::new(vec![file.clone(), later.clone()]);
        assert!(!watch.has_changed());

        std::fs::write(&file, "22").unwrap();
        assert!(watch.has_changed());
        assert!(!watch.has_changed());

        std::fs::write(folder.path().join("new"), "33").unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
        assert!(watch.has_changed());

        std::fs::write(&later, "x").unwrap();
        assert!(watch.has_changed());
        std::fs::remove_file(&later).unwrap();
        assert!(watch.has_changed());
        assert!(!watch.has_changed());
    }
}

//! Notices of the kernel (inotify) that something happened to a file.
//!
//! A notice only says that it is worth looking: [`super::watch`] finds out what has changed, and looks once a tick
//! anyway. So it does no harm that some file systems give no notice, that a folder does not exist yet, or that the
//! kernel has no watch left for us. Where nothing of this is so ([`Notices::are_complete`]), ticks are rare.
//!
//! Folders are watched, since a rename puts a new file in place and the watch of the old file stays with the old; and
//! files, which may be mounted one by one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use super::background::in_background;
use crate::secret::guard;

/// What can put other bytes where a path leads.
const EVENTS: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::ONLYDIR);

/// What puts another folder where a path leads, beside what is in [`EVENTS`].
const GONE: WatchFlags = WatchFlags::MOVE_SELF.union(WatchFlags::DELETE_SELF);

const OF_A_FILE: WatchFlags = WatchFlags::CLOSE_WRITE.union(WatchFlags::ATTRIB).union(GONE);

/// File systems that nobody changes but the system that we run on, so that it gives notice of everything: bcachefs, btrfs,
/// ext, f2fs, overlay, ramfs, tmpfs, xfs, zfs. By their numbers (`f_type` in statfs(2)).
const LOCAL: [u64; 9] = [
    0xca45_1a4e,
    0x9123_683e,
    0xef53,
    0xf2f5_2010,
    0x794c_7630,
    0x8584_58f6,
    0x0102_1994,
    0x5846_5342,
    0x2fc1_2fc1,
];

/// A file system that takes longer than this to find a folder hangs. The tick looks at its files all the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// Notices about some folders.
#[derive(Debug)]
pub(super) struct Notices {
    /// `None`: the system gives none.
    descriptor: Option<Arc<AsyncFd<OwnedFd>>>,
    watched: WatchedFolders,
}

/// The folders that are watched.
#[derive(Clone, Debug, Default)]
struct WatchedFolders {
    /// Every change is noticed: each folder is watched, with those above it, on a file system that only this system changes.
    are_all: bool,
    numbers: Vec<i32>,
}

impl Notices {
    /// Must be called inside a tokio runtime.
    pub(super) fn new() -> Self {
        let open = || -> io::Result<_> {
            let descriptor = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            #[expect(
                deprecated,
                reason = "its successor asks for a promise that the compiler cannot check; nobody else has this descriptor"
            )]
            AsyncFd::new(descriptor)
        };
        let descriptor = open()
            .inspect_err(|error| {
                tracing::info!(%error, "no notice of changed files from the system: they are looked at once a second");
            })
            .ok();
        Self {
            descriptor: descriptor.map(Arc::new),
            watched: WatchedFolders::default(),
        }
    }

    /// Listens for notices about these files, and no others. This runs in the background and has a limit: to find a
    /// folder of a file system that hangs takes as long as that hangs.
    pub(super) async fn follow(&mut self, files: Vec<PathBuf>) {
        let Some(descriptor) = self.descriptor.clone() else {
            return;
        };
        let stale = std::mem::take(&mut self.watched).numbers;
        let work = move || follow(&descriptor, &files, &stale);
        let followed = in_background(|| Ok(guard::within(PATIENCE, guard::name("folders"), work))).await;
        if let Ok(Ok(watched)) = followed {
            self.watched = watched;
        }
    }

    /// Whether a change of any of the files is noticed.
    pub(super) fn are_complete(&self) -> bool {
        self.watched.are_all
    }

    /// Waits until something has happened. All that happens before the wait is over counts as one notice.
    pub(super) async fn next(&self) {
        let Some(descriptor) = &self.descriptor else {
            return std::future::pending().await;
        };
        match descriptor.readable().await {
            Ok(mut ready) => {
                let mut events = [0; 4096];
                while rustix::io::read(descriptor, &mut events).is_ok_and(|length| length > 0) {}
                ready.clear_ready();
            }
            // The runtime ends.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Watches `files` and their folders, and no others than these.
fn follow(descriptor: &AsyncFd<OwnedFd>, files: &[PathBuf], old: &[i32]) -> WatchedFolders {
    let folders: BTreeSet<_> = files.iter().flat_map(|file| folders(file)).collect();
    let above: BTreeSet<_> = folders
        .iter()
        .flat_map(|folder| folder.ancestors().skip(1))
        .collect();
    // The folder of a file that is mounted by itself hears nothing of it.
    let there = files.iter().filter(|file| file.exists());
    let places = (folders.iter().map(|folder| (folder.as_path(), EVENTS)))
        .chain(
            above
                .into_iter()
                .map(|folder| (folder, GONE.union(WatchFlags::ONLYDIR))),
        )
        .chain(there.clone().map(|file| (file.as_path(), OF_A_FILE)));
    // The kernel gives the same number again for what is watched already.
    let added = |(place, events): (&Path, WatchFlags)| {
        inotify::add_watch(descriptor, place, events.union(WatchFlags::MASK_ADD)).ok()
    };
    let numbers: Vec<_> = places.map(added).collect();
    let is_local = |place: &Path| {
        let found = rustix::fs::statfs(place);
        found.is_ok_and(|found| LOCAL.contains(&(found.f_type as u64 & 0xffff_ffff)))
    };
    let are_all =
        numbers.iter().all(Option::is_some) && (folders.iter().chain(there)).all(|place| is_local(place));
    let numbers: Vec<_> = numbers.into_iter().flatten().collect();
    for stale in old.iter().filter(|number| !numbers.contains(number)) {
        // It is gone already where its folder is.
        let _ = inotify::remove_watch(descriptor, *stale);
    }
    WatchedFolders { are_all, numbers }
}

/// Returns every folder where a rename can put another file at `path`: that of the file, and each with a link on
/// the way.
fn folders(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // As many links as the kernel follows.
    for _ in 0..40 {
        let Some((folder, rest)) = first_link(&path) else {
            break;
        };
        path = rest;
        found.push(folder);
    }
    found.extend(path.parent().map(Path::to_owned));
    found
}

/// Returns the folder of the first link on the way, and the rest of the path from where the link leads.
fn first_link(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut folder = PathBuf::new();
    let mut parts = path.components();
    while let Some(part) = parts.next() {
        if let Component::Normal(name) = part
            && let Ok(target) = fs::read_link(folder.join(name))
        {
            let rest = folder.join(target).join(parts.as_path());
            return Some((folder, rest));
        }
        folder.push(part);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// As a platform mounts secrets: the file leads through a link to a folder of the version.
    fn mounted(folder: &Path) -> PathBuf {
        for version in ["v1", "v2"] {
            fs::create_dir(folder.join(version)).unwrap();
            fs::write(folder.join(version).join("key"), version).unwrap();
        }
        symlink("v1", folder.join("data")).unwrap();
        symlink("data/key", folder.join("key")).unwrap();
        folder.join("key")
    }

    async fn is_noticed(notices: &Notices) -> bool {
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, notices.next()).await.is_ok()
    }

    #[test]
    fn every_folder_on_the_way_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let key = mounted(&root);
        assert_eq!(folders(&key), [root.clone(), root.clone(), root.join("v1")]);
        assert_eq!(folders(&root.join("v2/key")), [root.join("v2")]);
        assert_eq!(folders(&root.join("none/key")), [root.join("none")]);

        symlink("loop", root.join("loop")).unwrap();
        assert!(folders(&root.join("loop/key")).contains(&root));
    }

    #[tokio::test]
    async fn renames_links_and_writes_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let key = mounted(folder.path());
        let path = |name: &str| folder.path().join(name);
        let mut notices = Notices::new();
        notices.follow(vec![key.clone()]).await;

        fs::write(path("v1/new"), "1").unwrap();
        assert!(is_noticed(&notices).await);
        fs::rename(path("v1/new"), path("v1/key")).unwrap();
        assert!(is_noticed(&notices).await);

        symlink("v2", path("next")).unwrap();
        fs::rename(path("next"), path("data")).unwrap();
        assert!(is_noticed(&notices).await);
        notices.follow(vec![key.clone()]).await;
        fs::write(path("v2/key"), "in place").unwrap();
        assert!(is_noticed(&notices).await);

        // Nothing is said of what does not lead to the file any more.
        fs::write(path("v1/key"), "late").unwrap();
        let silence = tokio::time::timeout(Duration::from_millis(50), notices.next()).await;
        assert!(silence.is_err());
        assert!(notices.are_complete(), "a folder for temporary files is local");

        // Its folder is another one.
        fs::create_dir(path("other")).unwrap();
        fs::write(path("other/key"), "other").unwrap();
        notices.follow(vec![path("v2/key"), path("none/key")]).await;
        assert!(!notices.are_complete(), "there is a folder missing");
        fs::rename(path("v2"), path("v3")).unwrap();
        assert!(is_noticed(&notices).await);
    }
}

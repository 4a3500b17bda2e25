//! Puts a new text in the place of a file, whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

/// Who may read a file that was not there before: a configuration has no secrets.
const MODE: u32 = 0o644;

/// Why a file is left as it is; `Display` contains the remedy.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplaceError {
    #[error("it has changed since it was read; run the command again")]
    Changed,
    #[error("the folder cannot be written; change the file where it is written, or apply the diff by hand")]
    Folder(#[source] io::Error),
    #[error("its owner cannot be kept; run this as its owner, or apply the diff by hand")]
    Owner(#[source] io::Error),
    #[error("it cannot be read again")]
    Read(#[source] io::Error),
}

/// Replaces the file at `path`, which has to have the text `old` (empty: not be there), by one with the text `new`. Mode
/// and owner stay; of a link the file behind it is replaced.
pub(super) fn replace(path: &Path, old: &str, new: &str) -> Result<(), ReplaceError> {
    let is_there = path.symlink_metadata().is_ok();
    if !is_there {
        let folder = folder_of(path);
        let fresh = written(folder, new, None)?;
        // Fails if somebody else has made the file.
        return match fresh.persist_noclobber(path) {
            Ok(_) => {
                sync(folder);
                Ok(())
            }
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(ReplaceError::Changed),
            Err(error) => Err(ReplaceError::Folder(error.error)),
        };
    }
    let path = path.canonicalize().map_err(ReplaceError::Read)?;
    let folder = folder_of(&path);
    let kept = fs::metadata(&path).map_err(ReplaceError::Read)?;
    let fresh = written(folder, new, Some(&kept))?;
    if fs::read(&path).map_err(ReplaceError::Read)? != old.as_bytes() {
        return Err(ReplaceError::Changed);
    }
    fresh
        .persist(&path)
        .map_err(|error| ReplaceError::Folder(error.error))?;
    sync(folder);
    Ok(())
}

/// Returns a file beside the old one, with its text on the disk.
fn written(
    folder: &Path,
    text: &str,
    kept: Option<&fs::Metadata>,
) -> Result<tempfile::NamedTempFile, ReplaceError> {
    let fresh = tempfile::Builder::new().prefix(".outrider-").tempfile_in(folder);
    let mut fresh = fresh.map_err(ReplaceError::Folder)?;
    if let Some(kept) = kept {
        let own = fresh.as_file().metadata().map_err(ReplaceError::Folder)?;
        if (own.uid(), own.gid()) != (kept.uid(), kept.gid()) {
            chown(fresh.path(), Some(kept.uid()), Some(kept.gid())).map_err(ReplaceError::Owner)?;
        }
    }
    let mode = kept.map_or(MODE, |kept| kept.permissions().mode() & 0o7777);
    let mut write = || {
        fresh.write_all(text.as_bytes())?;
        fresh.as_file().set_permissions(Permissions::from_mode(mode))?;
        fresh.as_file().sync_all()
    };
    write().map_err(ReplaceError::Folder)?;
    Ok(fresh)
}

/// Makes sure that the new name outlives a crash.
fn sync(folder: &Path) {
    // Some file systems cannot do this for folders; the file is replaced all the same.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_and_links_stay_and_no_other_change_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yml");
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("link.yml");
        std::os::unix::fs::symlink("a.yml", &link).unwrap();
        replace(&link, "old", "new").unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);

        assert!(matches!(
            replace(&file, "old", "newer"),
            Err(ReplaceError::Changed)
        ));
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");

        let fresh = folder.path().join("b.yml");
        replace(&fresh, "", "text").unwrap();
        assert_eq!(fs::read_to_string(&fresh).unwrap(), "text");
        let dangling = folder.path().join("dangling.yml");
        std::os::unix::fs::symlink("gone.yml", &dangling).unwrap();
        assert!(matches!(
            replace(&dangling, "", "text"),
            Err(ReplaceError::Read(_))
        ));
        // Nothing is left behind.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }
}

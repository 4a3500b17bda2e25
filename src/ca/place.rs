//! The place of the bundle, and whether another user could replace it.
//!
//! On a shared host anybody may lay a folder, or a link, below `/tmp`. A user who can change a part of the way to
//! the bundle chooses whom the app trusts. So each part of it, links included, has to belong to us or to root, and
//! must not be writable by others; a folder where nobody may take away what is another's (as `/tmp` is) is passed
//! through. Once that is so nobody else can change it, and names of files are as good as descriptors.
//!
//! `run` writes the bundle and `env` prints its place: both ask here, and get the same answer.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use super::Error;
use crate::config::{Ca, Config};

/// As many as the kernel follows.
const MOST_LINKS: usize = 40;

const ROOT: u32 = 0;

/// Only the owner of a file, or of the folder, can take the file away.
const STICKY: u32 = 0o1000;

/// Where the bundle and the truststore can be trusted to be; makes their folders. Where somebody is in the way of
/// the default place, that is a folder beside it with our user's number.
pub(crate) fn settle(ca: &Ca) -> Result<Ca, Error> {
    let first = reserve(&ca.bundle).and_then(|()| reserve(&ca.truststore));
    let Err(error) = first else {
        return Ok(ca.clone());
    };
    let other = beside(ca, &Config::embedded().ca, us().0);
    match reserve(&other.bundle).and_then(|()| reserve(&other.truststore)) {
        Ok(()) => Ok(other),
        Err(_) => Err(error),
    }
}

/// Whether nobody but us and root can change what is at a path.
pub(crate) fn is_ours(path: &Path) -> bool {
    judge(path).is_ok()
}

/// Makes the folder of a file, and makes sure that nobody else can change the file or put another in its place.
pub(super) fn prepare(file: &Path) -> Result<(), Error> {
    judge(file)?;
    let folder = folder_of(file);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| write_error(folder, source))?;
    // Somebody may have been faster.
    judge(file)
}

/// As [`prepare`], for a file that an app learns of before it exists: nobody else can lay one in its place.
/// In `/tmp` itself everybody could.
fn reserve(file: &Path) -> Result<(), Error> {
    prepare(file)?;
    let folder = folder_of(file);
    let data = fs::metadata(folder).map_err(|source| write_error(folder, source))?;
    if fs::symlink_metadata(file).is_err() && is_open(&data, us()) {
        Err(Error::Open {
            path: folder.to_owned(),
        })
    } else {
        Ok(())
    }
}

/// `ca` with what is at its default place moved to the other one.
fn beside(ca: &Ca, default: &Ca, us: u32) -> Ca {
    let moved = |path: &Path, default: &Path| match (path == default, default.parent(), default.file_name()) {
        (true, Some(folder), Some(name)) => {
            let mut folder = folder.as_os_str().to_owned();
            folder.push(format!("-{us}"));
            Path::new(&folder).join(name)
        }
        _ => path.to_owned(),
    };
    Ca {
        bundle: moved(&ca.bundle, &default.bundle),
        truststore: moved(&ca.truststore, &default.truststore),
        ..ca.clone()
    }
}

/// Looks at every part of a path, following links by itself. What is not there yet is nobody's.
fn judge(path: &Path) -> Result<(), Error> {
    let whole = std::path::absolute(path).map_err(|source| write_error(path, source))?;
    let mut left = parts(&whole);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = left.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        at.push(&part);
        let data = match fs::symlink_metadata(&at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            data => data.map_err(|source| write_error(&at, source))?,
        };
        judge_part(&at, &data, us())?;
        if data.is_symlink() {
            links += 1;
            if links > MOST_LINKS {
                return Err(write_error(path, io::Error::other("too many links")));
            }
            let target = fs::read_link(&at).map_err(|source| write_error(&at, source))?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            } else {
                at.pop();
            }
            left.extend(parts(&target));
        }
    }
    Ok(())
}

/// Whether a file, folder or link belongs to us or to root, and nobody else can change it.
fn judge_part(path: &Path, data: &Metadata, us: (u32, u32)) -> Result<(), Error> {
    let path = || path.to_owned();
    let owner = data.uid();
    if owner != us.0 && owner != ROOT {
        return Err(Error::Foreign { path: path() });
    }
    // The mode of a link means nothing.
    if data.is_symlink() {
        return Ok(());
    }
    if is_open(data, us) && !(data.is_dir() && data.mode() & STICKY != 0) {
        Err(Error::Open { path: path() })
    } else {
        Ok(())
    }
}

/// Whether others than its owner and root may write it. The group of root holds nobody else, nor does ours where it
/// is the user's own, as many systems make it.
fn is_open(data: &Metadata, (user, group): (u32, u32)) -> bool {
    let is_own_group = data.gid() == ROOT || data.gid() == user && user == group;
    data.mode() & 0o002 != 0 || data.mode() & 0o020 != 0 && !is_own_group
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The parts of a path after its root, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let named = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::Prefix(_) | Component::RootDir => None,
    });
    let mut parts: Vec<_> = named.collect();
    parts.reverse();
    parts
}

fn write_error(path: &Path, source: io::Error) -> Error {
    let path = path.to_owned();
    Error::Write { path, source }
}

/// Our user and group.
fn us() -> (u32, u32) {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    (user.as_raw(), group.as_raw())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    const STRANGER: u32 = 65_534;

    fn made(path: &Path, mode: u32) {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn words(result: Result<(), Error>) -> String {
        result.err().map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn a_way_that_nobody_else_can_change_is_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        made(&path("own"), 0o755);
        made(&path("shared"), 0o1777);
        symlink("own", path("link")).unwrap();
        symlink(path("link"), path("further")).unwrap();
        for name in [
            "own/a",
            "own/new/deep/a",
            "shared/a",
            "shared/new/a",
            "link/a",
            "further/a",
            "own/../own/a",
        ] {
            prepare(&path(name)).unwrap();
            fs::write(path(name), "").unwrap();
            assert_eq!(words(judge(&path(name))), "", "{name}");
        }
        // What is made is ours alone.
        assert_eq!(fs::metadata(path("shared/new")).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_part_that_others_can_change_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        made(&path("open"), 0o777);
        made(&path("open/own"), 0o700);
        made(&path("own"), 0o755);
        symlink(path("open"), path("link")).unwrap();
        symlink("link/own", path("deep")).unwrap();
        fs::write(path("own/file"), "").unwrap();
        fs::set_permissions(path("own/file"), Permissions::from_mode(0o666)).unwrap();
        for name in [
            "open/a",
            "open/own/a",
            "link/a",
            "deep/a",
            "own/../open/a",
            "own/file",
        ] {
            let told = words(prepare(&path(name)));
            assert!(told.contains("can be changed by other users"), "{name}: {told}");
        }
        symlink("round", path("round")).unwrap();
        assert!(words(judge(&path("round/a"))).contains("cannot write"));
    }

    /// Only root can lay what is another's.
    #[test]
    fn a_part_of_a_stranger_is_not() {
        if us().0 != ROOT {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        made(&path("shared"), 0o1777);
        made(&path("own"), 0o755);
        made(&path("shared/theirs"), 0o755);
        chown(path("shared/theirs"), Some(STRANGER), None).unwrap();
        symlink(path("own"), path("shared/link")).unwrap();
        std::os::unix::fs::lchown(path("shared/link"), Some(STRANGER), None).unwrap();
        symlink(path("shared/link"), path("own/link")).unwrap();
        fs::write(path("own/file"), "").unwrap();
        chown(path("own/file"), Some(STRANGER), None).unwrap();
        for name in ["shared/theirs/a", "shared/link/a", "own/link/a", "own/file"] {
            let told = words(prepare(&path(name)));
            assert!(told.contains("belongs to another user"), "{name}: {told}");
        }
        assert!(!path("shared/theirs/a").exists());
        // What root has made is trusted by others, and what is theirs by themselves.
        let data = fs::symlink_metadata(path("own")).unwrap();
        judge_part(Path::new("own"), &data, (STRANGER, STRANGER)).unwrap();
        let data = fs::symlink_metadata(path("own/file")).unwrap();
        judge_part(Path::new("file"), &data, (STRANGER, STRANGER)).unwrap();
        judge_part(Path::new("file"), &data, (STRANGER + 1, STRANGER)).unwrap_err();

        // A group with the number of the user is the user's own only where it is the user's group.
        chown(path("own/file"), None, Some(STRANGER)).unwrap();
        fs::set_permissions(path("own/file"), Permissions::from_mode(0o664)).unwrap();
        let data = fs::symlink_metadata(path("own/file")).unwrap();
        judge_part(Path::new("file"), &data, (STRANGER, STRANGER)).unwrap();
        judge_part(Path::new("file"), &data, (STRANGER, 100)).unwrap_err();
    }

    #[test]
    fn a_file_that_anybody_could_lay_is_not_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        made(&path("shared"), 0o1777);
        assert!(words(reserve(&path("shared/a"))).contains("can be changed by other users"));
        reserve(&path("shared/own/a")).unwrap();
        // Once it is there, and ours, nobody takes it away.
        fs::write(path("shared/a"), "").unwrap();
        reserve(&path("shared/a")).unwrap();
    }

    #[test]
    fn only_what_is_at_its_default_place_moves() {
        let default = Config::embedded().ca;
        let named = Ca {
            truststore: "/srv/own.p12".into(),
            ..default.clone()
        };
        let moved = beside(&named, &default, 7);
        assert_eq!(moved.truststore, Path::new("/srv/own.p12"));
        let folder = default.bundle.parent().unwrap().display().to_string();
        assert_eq!(moved.bundle, Path::new(&format!("{folder}-7/ca-bundle.pem")));
    }
}

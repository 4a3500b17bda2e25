//! The files that some clients read in place of a variable, beside the bundle: settings for PHP and wget, a module for
//! Node.
//!
//! They say where the bundle is, and nothing else of them changes, so all commands write the same: `run` with the bundle,
//! and `env` where they are missing. Node does not start if a module that NODE_OPTIONS names is
//! not there, or cannot be read: everybody who can read the bundle can read the files, for a command that goes on as
//! another user.

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::Error;
use super::bundle::{READABLE, replace};
use super::place;

#[cfg(test)]
mod tests;

/// The name of the module, by which a module of another outrider is recognised in NODE_OPTIONS.
pub(crate) const NODE_MODULE: &str = "outrider-agents.cjs";

/// What the module holds. It is a script and an ECMAScript module alike.
pub(crate) const AGENTS: &str = include_str!("agents.cjs");

/// Where wget keeps the settings for all users, unless SYSTEM_WGETRC says otherwise.
const SYSTEM_WGETRC: &str = "/etc/wgetrc";

/// More than anybody writes into it.
const LONGEST_WGETRC: u64 = 64 * 1024;

/// What is ours in the settings of wget begins with this line.
const OURS: &str = "# Written by outrider.";

/// Characters that are special in one of the files or variables that name them.
const SPECIAL: &[char] = &['"', '\'', '\\', ':', '$'];

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientFiles {
    /// A module for Node, which gives agents of libraries the proxy.
    pub(crate) node: PathBuf,
    /// A folder with a file of settings for PHP, for PHP_INI_SCAN_DIR.
    pub(crate) php: PathBuf,
    /// Settings for wget, for SYSTEM_WGETRC.
    pub(crate) wgetrc: PathBuf,
}

/// Why the files cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientFilesError {
    #[error(transparent)]
    File(#[from] Error),

    #[error(
        "{} has a character (\" ' \\ : $ or a line break) that PHP, wget or Node read in another way; name another place \
         in ca.bundle",
        .0.display()
    )]
    Name(PathBuf),
}

impl ClientFiles {
    /// Writes the files that belong to a bundle, each atomically, unless they are there and right.
    pub(crate) fn write(bundle: &Path) -> Result<Self, ClientFilesError> {
        let bundle = std::path::absolute(bundle).unwrap_or_else(|_| bundle.to_owned());
        let text = bundle
            .to_str()
            .filter(|text| !text.contains(SPECIAL) && !text.contains(char::is_control))
            .ok_or_else(|| ClientFilesError::Name(bundle.clone()))?;
        let files = Self::of(&bundle);
        let php = format!("; Written by outrider.\ncurl.cainfo = \"{text}\"\nopenssl.cafile = \"{text}\"\n");
        let ini = files.php.join("outrider.ini");
        place::prepare(&bundle)?;
        for file in [&files.node, &ini] {
            make_folder(file)?;
        }
        keep(&ini, READABLE, php.as_bytes())?;
        keep(&files.node, READABLE, AGENTS.as_bytes())?;
        let before = std::env::var_os("SYSTEM_WGETRC").map_or_else(|| SYSTEM_WGETRC.into(), PathBuf::from);
        keep(&files.wgetrc, mode_as(&before), &wgetrc(&before, text))?;
        Ok(files)
    }

    fn of(bundle: &Path) -> Self {
        let mut folder = bundle.as_os_str().to_owned();
        folder.push(".d");
        let folder = PathBuf::from(folder);
        Self {
            node: folder.join(NODE_MODULE),
            php: folder.join("php"),
            wgetrc: folder.join("wgetrc"),
        }
    }
}

/// Makes the folder of a file, which everybody may look into. That it is not another's is seen when the file is written.
fn make_folder(file: &Path) -> Result<(), Error> {
    let folder = file.parent().unwrap_or(file);
    match DirBuilder::new().mode(0o755).create(folder) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::Write {
            path: folder.to_owned(),
            source,
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a file, unless it is there with the same content: another user may have written it, whom we trust.
fn keep(path: &Path, mode: u32, content: &[u8]) -> Result<(), Error> {
    let is_right = super::is_ours(path) && fs::read(path).is_ok_and(|there| there == content);
    if is_right {
        return Ok(());
    }
    replace(path, mode, |file| file.write_all(content))
}

/// Returns the mode for a copy of settings: they may hold the password of a proxy.
fn mode_as(before: &Path) -> u32 {
    match fs::metadata(before) {
        Ok(data) if data.mode() & 0o004 == 0 => 0o600,
        Ok(_) | Err(_) => READABLE,
    }
}

/// Returns settings for wget that hold those of `before`, which wget does not read any more.
fn wgetrc(before: &Path, bundle: &str) -> Vec<u8> {
    let mut kept = read_settings(before);
    if let Some(ours) = memchr::memmem::find(&kept, OURS.as_bytes()) {
        kept.truncate(ours);
    }
    if kept.last().is_some_and(|last| *last != b'\n') {
        kept.push(b'\n');
    }
    kept.extend_from_slice(format!("{OURS}\nca_certificate = {bundle}\n").as_bytes());
    kept
}

/// Returns nothing where there is no file, or one that cannot be settings.
fn read_settings(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    let is_file = fs::metadata(path).is_ok_and(|data| data.is_file() && data.len() <= LONGEST_WGETRC);
    let read = is_file.then(|| File::open(path)?.take(LONGEST_WGETRC).read_to_end(&mut text));
    match read {
        Some(Ok(_)) => text,
        Some(Err(_)) | None => Vec::new(),
    }
}

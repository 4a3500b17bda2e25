//! The file in which processes that start in any order agree on the placeholders.
//!
//! Beside an app on Cloud Foundry `outrider run` is one process and the app's profile script another, and neither
//! starts the other. The first of them makes the placeholders and writes them down, and the second one reads them.
//! The file lies beside the CA bundle, where nobody else can change it, has mode 0600, and is locked while it is read
//! and written. It holds no secret.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::{NoRandom, PlaceholderSet};
use crate::config::{Config, SecretRef};
use crate::secret::Snapshot;

const NAME: &str = "placeholders.json";

/// How long another process may hold the file.
const LOCKED: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// More than the placeholders of any configuration.
const LARGEST: u64 = 1024 * 1024;

/// Why the placeholders cannot be agreed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "{path}: {source}; the folder of ca.bundle has to be one that this user can write, and that no other program locks"
    )]
    File { path: PathBuf, source: io::Error },

    #[error("{path} belongs to another user, or is not a file; remove it")]
    NotOurs { path: PathBuf },

    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

/// Returns the placeholders of `config`: those that are written down, and new ones for the rest, which are written down.
pub(crate) fn agree(config: &Config, bundle: &Path, snapshot: &Snapshot) -> Result<PlaceholderSet, Error> {
    let path = bundle.with_file_name(NAME);
    let failed = |source| Error::File {
        path: path.clone(),
        source,
    };
    let mut file = open(&path).map_err(failed)?;
    let data = file.metadata().map_err(failed)?;
    if !data.is_file() || data.uid() != rustix::process::geteuid().as_raw() {
        return Err(Error::NotOurs { path });
    }
    lock(&file).map_err(failed)?;
    let mut text = String::new();
    let read = (&mut file).take(LARGEST).read_to_string(&mut text);
    read.map_err(failed)?;
    // One that was damaged is written anew; an app that has the old placeholders is refused then, and starts again.
    let mut written: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();

    let known = |reference: &SecretRef| written.get(&reference.to_string()).cloned();
    let set = PlaceholderSet::of(config, snapshot, known)?;
    let mut has_new = false;
    for placeholder in set.all() {
        let before = written.insert(placeholder.reference.to_string(), placeholder.text.clone());
        has_new |= before.as_ref() != Some(&placeholder.text);
    }
    if has_new {
        let text = serde_json::to_vec_pretty(&written).unwrap_or_default();
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        file.set_len(text.len() as u64).map_err(failed)?;
    }
    Ok(set)
}

/// Locks the file. Another process holds it for a moment only, or means to stop us.
fn lock(file: &File) -> io::Result<()> {
    let end = Instant::now() + LOCKED;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "another process keeps it locked",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
}

//! One reading of the secrets: the environment, files and bound services.
//!
//! A [`Snapshot`] is taken for one build. It reads a file when that is first asked for, and never again, so that a
//! fingerprint and what is made of the same bytes are always of one moment, and so are a certificate and its key.
//! The next snapshot sees a file that has been replaced. What was read is wiped when the snapshot is dropped. How
//! bound services are written is in [`super::services`].

use std::cell::RefCell;
#[cfg(test)]
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::hash::{BuildHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{Error, READING, Secret, guard, services};
use crate::config::{ClientCertificate, SecretRef};

/// The largest secret file. The largest that Cloud Foundry writes is 1 MB.
pub(super) const LARGEST: u64 = 1024 * 1024;

/// The largest list of revoked certificates: some four hundred thousand of them.
const LARGEST_LIST: u64 = 16 * 1024 * 1024;

/// The bytes of a file, or why it was not read.
type FileContents = Result<Zeroizing<Vec<u8>>, Unread>;

/// Every secret of one build, each read once.
pub(crate) struct Snapshot {
    /// What each file held when it was first asked for.
    files: RefCell<HashMap<PathBuf, FileContents>>,
    /// The files of each folder when it was first asked for; `None` where it could not be listed.
    folders: RefCell<HashMap<PathBuf, Option<Vec<PathBuf>>>>,
    variables: Variables,
}

/// Why a file gave no bytes.
#[derive(Clone)]
enum Unread {
    Failed(Arc<io::Error>),
    NotFile,
    Slow,
    TooLarge,
}

/// The two halves of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InstanceIdentity {
    pub(crate) cert: SecretRef,
    pub(crate) key: SecretRef,
}

/// Something about a secret's place that a person should look at; it works all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SecretWarning {
    #[error("{path} can be read by every user of this machine (mode {mode:03o}); `chmod 600 {path}`")]
    WorldReadable { path: PathBuf, mode: u32 },
}

/// Where variables are looked up.
enum Variables {
    /// Tests need not touch the process's own.
    #[cfg(test)]
    Given(BTreeMap<String, OsString>),
    Process,
}

impl Snapshot {
    /// Takes it of the variables of this process, and of files.
    pub(crate) fn of_process() -> Self {
        Self::of(Variables::Process)
    }

    /// Takes it of the variables given, and of files.
    #[cfg(test)]
    pub(crate) fn of_variables<N, V>(variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<OsString>,
    {
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        Self::of(Variables::Given(variables.collect()))
    }

    fn of(variables: Variables) -> Self {
        Self {
            files: RefCell::default(),
            folders: RefCell::default(),
            variables,
        }
    }

    /// Reads one secret; trailing newlines are trimmed; an empty one is an error.
    pub(crate) fn read(&self, reference: &SecretRef) -> Result<Secret, Error> {
        let secret = Secret::new(self.bytes(reference, LARGEST)?).of(reference);
        if secret.expose().is_empty() {
            return Err(Error::Empty {
                reference: reference.clone(),
            });
        }
        Ok(secret)
    }

    /// Reads a password, which may be empty on purpose: in a variable that is set to nothing, or in a bound
    /// service. An empty file may be one that is being written.
    pub(crate) fn read_password(&self, reference: &SecretRef) -> Result<Secret, Error> {
        let read = self.read(reference);
        let is_empty = match (&read, reference) {
            (Err(Error::Unset { .. }), SecretRef::Env(name)) => self.is_set(name),
            (Err(Error::Empty { .. }), SecretRef::Env(_) | SecretRef::Vcap { .. }) => true,
            (Ok(_) | Err(_), _) => false,
        };
        if is_empty {
            return Ok(Secret::new(Zeroizing::default()));
        }
        read
    }

    /// Reads what may be binary, so that a line end may be its last byte.
    pub(crate) fn read_binary(&self, reference: &SecretRef) -> Result<Secret, Error> {
        self.read_up_to(LARGEST, reference)
    }

    /// Reads a list of revoked certificates, which is public and may be larger.
    pub(crate) fn read_list(&self, reference: &SecretRef) -> Result<Secret, Error> {
        self.read_up_to(LARGEST_LIST, reference)
    }

    fn read_up_to(&self, limit: u64, reference: &SecretRef) -> Result<Secret, Error> {
        let bytes = self.bytes(reference, limit)?;
        if bytes.trim_ascii().is_empty() {
            return Err(Error::Empty {
                reference: reference.clone(),
            });
        }
        Ok(Secret::whole(bytes).of(reference))
    }

    /// Returns a number that differs whenever a byte of one of these secrets does, or one can be read that could
    /// not be read before. It means something in this process only.
    pub(crate) fn fingerprint<'r>(&self, references: impl IntoIterator<Item = &'r SecretRef>) -> u64 {
        static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let mut hasher = SEED.build_hasher();
        for reference in references {
            reference.hash(&mut hasher);
            // Of any size: the code that uses a secret knows how large that may be.
            match self.bytes(reference, LARGEST_LIST) {
                Ok(bytes) => bytes.hash(&mut hasher),
                Err(_) => hasher.write_u8(0),
            }
        }
        hasher.finish()
    }

    fn bytes(&self, reference: &SecretRef, limit: u64) -> Result<Zeroizing<Vec<u8>>, Error> {
        match reference {
            SecretRef::Env(name) => match self.variable(name) {
                Some(value) => Ok(Zeroizing::new(value.into_vec())),
                None => Err(Error::Unset {
                    reference: reference.clone(),
                }),
            },
            SecretRef::File(path) => self.file(path, limit, reference),
            SecretRef::Vcap { service, keys } => services::read(self, service, keys, reference),
        }
    }

    /// Returns what the file held when it was first asked for.
    pub(super) fn file(
        &self,
        path: &Path,
        limit: u64,
        reference: &SecretRef,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut files = self.files.borrow_mut();
        let read = files.entry(path.to_owned()).or_insert_with(|| read_file(path));
        match read {
            Ok(bytes) if bytes.len() as u64 <= limit => Ok(bytes.clone()),
            Ok(_) => Err(Unread::TooLarge.of(path, limit, reference)),
            Err(unread) => Err(unread.of(path, limit, reference)),
        }
    }

    /// The files of a folder that `reference` names, sorted; itself where it names no folder. Hidden files are left out:
    /// mounted folders have such links to what they hold.
    pub(crate) fn spread(&self, reference: &SecretRef) -> Vec<SecretRef> {
        let SecretRef::File(path) = reference else {
            return vec![reference.clone()];
        };
        // What could be read is no folder.
        if let Some(Ok(_)) = self.files.borrow().get(path) {
            return vec![reference.clone()];
        }
        let mut folders = self.folders.borrow_mut();
        match folders.entry(path.clone()).or_insert_with(|| list_folder(path)) {
            Some(files) => files.iter().cloned().map(SecretRef::File).collect(),
            None => vec![reference.clone()],
        }
    }

    /// Where the platform keeps the certificate of this app instance and its key, which it renews all the while.
    pub(crate) fn instance_identity(&self) -> Result<InstanceIdentity, Error> {
        let path = |variable| match self.variable(variable) {
            Some(path) => Ok(SecretRef::File(path.into())),
            None => Err(Error::NoInstanceIdentity { variable }),
        };
        Ok(InstanceIdentity {
            cert: path("CF_INSTANCE_CERT")?,
            key: path("CF_INSTANCE_KEY")?,
        })
    }

    /// Every secret that a client certificate is made of.
    pub(crate) fn parts(&self, certificate: &ClientCertificate) -> Vec<SecretRef> {
        match certificate {
            ClientCertificate::InstanceIdentity => self
                .instance_identity()
                .map_or_else(|_| Vec::new(), |pair| vec![pair.cert, pair.key]),
            ClientCertificate::Pem {
                cert,
                key,
                passphrase,
            } => [cert, key].into_iter().chain(passphrase).cloned().collect(),
            ClientCertificate::Pkcs12 { file, password } => {
                [file].into_iter().chain(password).cloned().collect()
            }
        }
    }

    /// The files that a reference is read from, to be watched. Platforms replace whole folders by renaming a link,
    /// so watch the parent folder, too.
    pub(crate) fn files(&self, reference: &SecretRef) -> Vec<PathBuf> {
        match reference {
            SecretRef::Env(_) => Vec::new(),
            SecretRef::File(path) => vec![path.clone()],
            SecretRef::Vcap { service, keys } => services::files(self, service, keys, reference),
        }
    }

    /// What a person should know about the files of a secret. Not for certificates, which are public.
    pub(crate) fn warnings(&self, reference: &SecretRef) -> Vec<SecretWarning> {
        // Files of the platform (`vcap:`) are as the platform made them; nobody can chmod them.
        let SecretRef::File(path) = reference else {
            return Vec::new();
        };
        match fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o777) {
            Ok(mode) if mode & 0o004 != 0 => vec![SecretWarning::WorldReadable {
                path: path.clone(),
                mode,
            }],
            Ok(_) | Err(_) => Vec::new(),
        }
    }

    /// One variable of the environment; `None` where it is not set or empty.
    pub(crate) fn variable(&self, name: &str) -> Option<OsString> {
        self.variables.get(name).filter(|value| !value.is_empty())
    }

    /// Whether it is set, be it to nothing.
    fn is_set(&self, name: &str) -> bool {
        self.variables.get(name).is_some()
    }
}

impl Variables {
    fn get(&self, name: &str) -> Option<OsString> {
        // `std::env` panics on names that no variable can have.
        if name.is_empty() || name.contains(['=', '\0']) {
            return None;
        }
        match self {
            #[cfg(test)]
            Self::Given(variables) => variables.get(name).cloned(),
            Self::Process => std::env::var_os(name),
        }
    }
}

/// Shows which variables and files, never what they hold.
impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("files", &self.files.borrow().keys())
            .field("variables", &self.variables)
            .finish()
    }
}

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            #[cfg(test)]
            Self::Given(variables) => f.debug_tuple("Given").field(&variables.keys()).finish(),
            Self::Process => f.write_str("Process"),
        }
    }
}

impl Unread {
    /// The error that names the file and who asked for it.
    fn of(&self, path: &Path, limit: u64, reference: &SecretRef) -> Error {
        let (path, reference) = (path.to_owned(), reference.clone());
        match self {
            Self::Failed(source) => Error::Unreadable {
                reference,
                // Whole, because a relative path begins where this process runs, and that may be the surprise.
                path: std::path::absolute(&path).unwrap_or(path),
                source: Arc::clone(source),
            },
            Self::NotFile => Error::NotFile { reference, path },
            Self::Slow => Error::Slow { reference, path },
            Self::TooLarge => Error::TooLarge { reference, limit },
        }
    }
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Failed(Arc::new(error))
    }
}

/// Reads a regular file, or gives up: a network's file system may hang.
fn read_file(path: &Path) -> FileContents {
    let own = path.to_owned();
    let work = move || read_now(&own);
    guard::within(READING, guard::name(path), work).unwrap_or(Err(Unread::Slow))
}

/// Lists a folder, or gives up: a network's file system may hang.
fn list_folder(path: &Path) -> Option<Vec<PathBuf>> {
    let own = path.to_owned();
    let list = move || fs::read_dir(own).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    let listed: Result<io::Result<Vec<PathBuf>>, _> = guard::within(READING, guard::name(path), list);
    let mut files = listed.ok()?.ok()?;
    let is_hidden = |file: &PathBuf| {
        let name = file.file_name().map(OsStr::as_encoded_bytes);
        name.is_none_or(|name| name.starts_with(b"."))
    };
    files.retain(|file| !is_hidden(file));
    files.sort();
    Some(files)
}

fn read_now(path: &Path) -> FileContents {
    let is_file = |metadata: &fs::Metadata| {
        if metadata.is_file() {
            Ok(())
        } else {
            Err(Unread::NotFile)
        }
    };
    // Looked at before it is opened, which does something with some devices; and after, since it may be another one
    // by then. A pipe would make us wait for a writer, but for the flag.
    is_file(&fs::metadata(path)?)?;
    let mut options = fs::OpenOptions::new();
    let options = options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    is_file(&metadata)?;
    if metadata.len() > LARGEST_LIST {
        return Err(Unread::TooLarge);
    }
    // Room for the whole file at once: a buffer that grows leaves copies behind.
    let room = usize::try_from(metadata.len()).unwrap_or(0) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(LARGEST_LIST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_LIST {
        return Err(Unread::TooLarge);
    }
    Ok(bytes)
}

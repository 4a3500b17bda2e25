//! Reads secrets by reference: the environment, files and bound services.
//!
//! Nothing is kept: each [`Sources::read`] goes to the place itself, so a rotated file is seen at the next read and no
//! copy of a secret outlives its use. What bound services look like is in [`super::services`].

#[cfg(test)]
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{Error, READING, Secret, guard, services};
use crate::config::{ClientCertificate, SecretRef};

/// Reads secrets: from the environment, from files and from bound services.
#[derive(Debug)]
pub(crate) struct Sources {
    environment: Variables,
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

impl Sources {
    /// Of the running process.
    pub(crate) fn of_process() -> Self {
        Self {
            environment: Variables::Process,
        }
    }

    /// Of the variables given, and of files.
    #[cfg(test)]
    pub(crate) fn of_variables<N, V>(variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<OsString>,
    {
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        Self {
            environment: Variables::Given(variables.collect()),
        }
    }

    /// Reads one secret; trailing newlines are trimmed; an empty one is an error.
    pub(crate) fn read(&self, reference: &SecretRef) -> Result<Secret, Error> {
        let secret = Secret::new(self.bytes(reference, LARGEST)?).of(reference);
        match secret.expose().is_empty() {
            true => Err(Error::Empty {
                reference: reference.clone(),
            }),
            false => Ok(secret),
        }
    }

    /// The same of a password, which may be empty where that is said on purpose: by a variable that is set to nothing, or
    /// by a bound service. An empty file may be one that is being written.
    pub(crate) fn read_password(&self, reference: &SecretRef) -> Result<Secret, Error> {
        let read = self.read(reference);
        let is_empty = match (&read, reference) {
            (Err(Error::Unset { .. }), SecretRef::Env(name)) => self.is_set(name),
            (Err(Error::Empty { .. }), SecretRef::Env(_) | SecretRef::Vcap { .. }) => true,
            (Ok(_) | Err(_), _) => false,
        };
        match is_empty {
            true => Ok(Secret::new(Zeroizing::default())),
            false => read,
        }
    }

    /// The same of what may be binary, so that a line end may be its last byte.
    pub(crate) fn read_binary(&self, reference: &SecretRef) -> Result<Secret, Error> {
        self.read_up_to(LARGEST, reference)
    }

    /// The same of what is no secret and may be larger: a list of revoked certificates.
    pub(crate) fn read_list(&self, reference: &SecretRef) -> Result<Secret, Error> {
        self.read_up_to(LARGEST_LIST, reference)
    }

    fn read_up_to(&self, limit: u64, reference: &SecretRef) -> Result<Secret, Error> {
        let bytes = self.bytes(reference, limit)?;
        match bytes.trim_ascii().is_empty() {
            true => Err(Error::Empty {
                reference: reference.clone(),
            }),
            false => Ok(Secret::whole(bytes).of(reference)),
        }
    }

    fn bytes(&self, reference: &SecretRef, limit: u64) -> Result<Zeroizing<Vec<u8>>, Error> {
        match reference {
            SecretRef::Env(name) => match self.variable(name) {
                Some(value) => Ok(Zeroizing::new(value.into_vec())),
                None => Err(Error::Unset {
                    reference: reference.clone(),
                }),
            },
            SecretRef::File(path) => read_file(path, limit, reference),
            SecretRef::Vcap { service, keys } => services::read(self, service, keys, reference),
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

    /// The files that a reference is read from, to be watched. Platforms replace whole folders by renaming a link, so
    /// watch the parent folder, too.
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
    pub(super) fn variable(&self, name: &str) -> Option<OsString> {
        self.environment.get(name).filter(|value| !value.is_empty())
    }

    /// Whether it is set, be it to nothing.
    fn is_set(&self, name: &str) -> bool {
        self.environment.get(name).is_some()
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

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            #[cfg(test)]
            Self::Given(variables) => f.debug_tuple("Given").field(&variables.keys()).finish(),
            Self::Process => f.write_str("Process"),
        }
    }
}

/// Reads a regular file of at most `limit` bytes, or gives up: a network's file system may hang.
pub(super) fn read_file(path: &Path, limit: u64, reference: &SecretRef) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (own, named) = (path.to_owned(), reference.clone());
    let work = move || read_now(&own, limit, &named);
    guard::within(READING, guard::name(path), work).unwrap_or_else(|_| {
        Err(Error::Slow {
            reference: reference.clone(),
            path: path.to_owned(),
        })
    })
}

fn read_now(path: &Path, limit: u64, reference: &SecretRef) -> Result<Zeroizing<Vec<u8>>, Error> {
    // Whole, because a relative path begins where this process runs, and that may be the surprise.
    let unreadable = |source| Error::Unreadable {
        reference: reference.clone(),
        path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        source,
    };
    let is_file = |metadata: &fs::Metadata| match metadata.is_file() {
        true => Ok(()),
        false => Err(Error::NotFile {
            reference: reference.clone(),
            path: path.to_owned(),
        }),
    };
    // Looked at before it is opened, which does something with some devices; and after, since it may be another one by
    // then. A pipe would make us wait for a writer, but for the flag.
    is_file(&fs::metadata(path).map_err(unreadable)?)?;
    let mut options = fs::OpenOptions::new();
    let options = options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    is_file(&metadata)?;
    if metadata.len() > limit {
        return Err(Error::TooLarge {
            reference: reference.clone(),
            limit,
        });
    }
    // Room for the whole file at once: a buffer that grows leaves copies behind.
    let room = usize::try_from(metadata.len()).unwrap_or(0) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    match bytes.len() as u64 > limit {
        true => Err(Error::TooLarge {
            reference: reference.clone(),
            limit,
        }),
        false => Ok(bytes),
    }
}

/// The largest secret file. The largest that Cloud Foundry writes is 1 MB.
pub(super) const LARGEST: u64 = 1024 * 1024;

/// The largest list of revoked certificates: some four hundred thousand of them.
const LARGEST_LIST: u64 = 16 * 1024 * 1024;

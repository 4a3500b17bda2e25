//! Secret bytes, and the places that they come from.
//!
//! A [`Secret`] is read by reference ([`Snapshot`]), zeroised and redacted, and shown by [`Secret::expose`] alone,
//! so that every place where it goes can be found. [`pem`] and [`pkcs12`] take certificates and keys out of one;
//! [`roots`] are the public certificates that the system trusts.
//!
//! Which secret goes where is decided in `policy`; what is made of it, in `auth`, `upstream` and `ca`.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

pub(crate) use snapshot::{SecretWarning, Snapshot};

use crate::config::SecretRef;
use file::FileName;

pub(crate) mod anchors;
pub(crate) mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod guard;
pub(crate) mod kind;
pub(crate) mod pem;
pub(crate) mod pkcs12;
pub(crate) mod roots;

mod ber;
mod contents;
mod form;
mod hash;
mod openssh;
mod pbe;
mod pkcs8;
mod services;
mod snapshot;
#[cfg(test)]
pub(crate) mod tests;
mod traditional;

/// How long a file may take to be read. Local ones take microseconds, those of a network some milliseconds.
const READING: Duration = Duration::from_secs(5);

/// Secret bytes: redacted in `Debug`, without `Display`, zeroised on drop.
pub(crate) struct Secret {
    bytes: Zeroizing<Vec<u8>>,
    /// The file that it was read from, if it is the whole file: for commands in messages.
    file: FileName,
}

/// Why a secret cannot be read. Names the place and the remedy, never the secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "{reference}: several bound services answer to `{service}`: {services}; use the instance name of one"
    )]
    Ambiguous {
        reference: SecretRef,
        service: String,
        services: NameList,
    },

    #[error("{reference}: nothing but line ends there; give it a value")]
    Empty { reference: SecretRef },

    #[error(
        "{variable} is not set, and only an app instance of Cloud Foundry has an identity of its own; elsewhere write \
         {{ cert: file:PATH, key: file:PATH }}"
    )]
    NoInstanceIdentity { variable: &'static str },

    #[error("{reference}: {path} is not a regular file; name the file itself")]
    NotFile { reference: SecretRef, path: PathBuf },

    #[error(
        "{reference}: {place} is not a JSON object of bound services (line {line}, column {column}); correct it, or name \
         another place"
    )]
    NotServices {
        reference: SecretRef,
        place: String,
        line: usize,
        column: usize,
    },

    #[error("{reference}: `{key}` holds {what}, not a text; name a key within it, or one beside it")]
    NotText {
        reference: SecretRef,
        key: String,
        what: &'static str,
    },

    #[error(
        "{reference}: {path} was not read within {} seconds; the file system behind it hangs: repair that, or name \
         another place",
        READING.as_secs()
    )]
    Slow { reference: SecretRef, path: PathBuf },

    #[error("{reference}: larger than {} MiB, which nothing here is; name another place", limit / 1024 / 1024)]
    TooLarge { reference: SecretRef, limit: u64 },

    #[error("{reference}: no bound service has this instance name, binding name or tag; there are: {known}")]
    UnknownService { reference: SecretRef, known: NameList },

    #[error(
        "{reference}: the credentials of this service are in CredHub, and the platform has put a reference (credhub-ref) in \
         their place: its launcher resolves that before it starts a process; unset CREDHUB_SKIP_INTERPOLATION, start outrider \
         by a start command of the app or under /tmp/lifecycle/launcher, and not in a Docker image"
    )]
    InCredHub { reference: SecretRef },

    #[error("{reference}: the service has no key `{key}`; there are: {known}")]
    UnknownKey {
        reference: SecretRef,
        key: String,
        known: NameList,
    },

    #[error("{reference}: {path} cannot be read; it has to be there, and readable for this user")]
    Unreadable {
        reference: SecretRef,
        path: PathBuf,
        source: Arc<io::Error>,
    },

    #[error("{reference}: the environment variable is not set, or empty; set it, or name another place")]
    Unset { reference: SecretRef },

    #[error(
        "{reference}: no services are bound: none of VCAP_SERVICES_FILE_PATH, SERVICE_BINDING_ROOT and \
         VCAP_SERVICES is set; bind the service and restart, or name another place"
    )]
    Unbound { reference: SecretRef },
}

/// Names of services or keys, as an error lists them: never values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NameList(pub(crate) Vec<String>);

impl Secret {
    /// Takes the bytes as they are, less trailing line ends.
    pub(crate) fn new(mut bytes: Zeroizing<Vec<u8>>) -> Self {
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        Self::whole(bytes)
    }

    /// Takes the bytes as they are.
    fn whole(bytes: Zeroizing<Vec<u8>>) -> Self {
        let file = FileName::default();
        Self { bytes, file }
    }

    /// Notes where it was read.
    fn of(self, reference: &SecretRef) -> Self {
        let file = FileName::of(reference);
        Self { file, ..self }
    }

    fn copy(&self) -> Self {
        Self {
            bytes: self.bytes.clone(),
            file: self.file.clone(),
        }
    }

    fn file(&self) -> FileName {
        self.file.clone()
    }

    /// Returns the bytes. The caller is responsible for where they go.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// Sorted, separated by commas; at most 20, and how many more.
impl fmt::Display for NameList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let mut names: Vec<_> = self.0.iter().map(String::as_str).collect();
        names.sort_unstable();
        f.write_str(&names[..names.len().min(SHOWN)].join(", "))?;
        match names.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// How long a file that a password protects may take to open: the most work that is allowed, on a busy machine.
const OPENING: Duration = Duration::from_secs(20);

/// Names shown in an error; an app with more bound services than this does not read them all.
const SHOWN: usize = 20;

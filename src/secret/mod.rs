//! What must not leak: secret bytes and where they come from.

use std::path::PathBuf;

use crate::config::SecretRef;

/// Secret bytes: redacted in `Debug`, without `Display`, zeroised on drop.
pub(crate) struct Secret(zeroize::Zeroizing<Vec<u8>>);

/// Why a secret cannot be had. Names the place and the remedy, never the secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("TODO")]
    Todo,
}

/// Reads secrets: the environment, files and bound services as they were when this was made.
#[derive(Debug)]
pub(crate) struct Sources {
    // private: the parsed VCAP_SERVICES, …
}

impl Secret {
    /// The bytes. Whoever calls this is responsible for where they go.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl Sources {
    /// Of the running process.
    pub(crate) fn of_process() -> Self {
        todo!()
    }

    /// Reads one secret; trailing newlines are trimmed; an empty one is an error.
    pub(crate) fn read(&self, reference: &SecretRef) -> Result<Secret, Error> {
        todo!("{reference:?}")
    }

    /// The files that a reference is read from, to be watched.
    pub(crate) fn files(&self, reference: &SecretRef) -> Vec<PathBuf> {
        todo!("{reference:?}")
    }
}

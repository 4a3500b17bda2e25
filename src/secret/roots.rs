//! The roots that the system trusts: public, yet kept here, because `upstream` verifies with them and `ca` writes them
//! into the app's bundle, and neither may know the other.
//!
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` replace the distribution's bundle, as with OpenSSL, and the certificates of
//! `CF_SYSTEM_CERT_PATH` come on top. The bundle that we write ourselves is never read: a profile script exports
//! `SSL_CERT_FILE` to us as well as to the app, and to trust it would be to trust our own authority upstream.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::Sources;

/// The system's trusted roots: found at once, read when somebody needs them. A reload makes new ones.
#[derive(Debug)]
pub(crate) struct SystemRoots {
    /// What the store was made from, until the bundle has been: both are wanted at the start, and reading is slow.
    kept: Mutex<Option<Read>>,
    places: Vec<PathBuf>,
    store: OnceLock<Arc<RootCertStore>>,
}

/// Certificates as read, and what could not be.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// Sorted, each once.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) problems: Vec<Problem>,
}

/// A place of trusted certificates that cannot be read, or not wholly.
#[derive(Debug, thiserror::Error)]
#[error("trusted certificates at {place} cannot be read")]
pub(crate) struct Problem {
    pub(crate) place: PathBuf,
    pub(crate) source: io::Error,
}

impl SystemRoots {
    /// Where the environment and the distribution say that they are; `own_bundle` is never one of them.
    pub(crate) fn new(sources: &Sources, own_bundle: &Path) -> Self {
        let paths = |name| {
            let paths = sources.variable(name);
            paths.map_or_else(Vec::new, |paths| std::env::split_paths(&paths).collect())
        };
        let own = fs::canonicalize(own_bundle).unwrap_or_else(|_| own_bundle.to_owned());
        let foreign = |path: &PathBuf| {
            !path.as_os_str().is_empty()
                && *path != own_bundle
                && fs::canonicalize(path).map_or(true, |path| path != own)
        };

        let mut places: Vec<_> = sources
            .variable("SSL_CERT_FILE")
            .map(PathBuf::from)
            .into_iter()
            .collect();
        places.extend(paths("SSL_CERT_DIR"));
        places.retain(foreign);
        if places.is_empty() {
            places.extend(BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()));
        }
        places.extend(paths("CF_SYSTEM_CERT_PATH").into_iter().filter(foreign));
        Self {
            kept: Mutex::new(None),
            places,
            store: OnceLock::new(),
        }
    }

    /// What upstreams are verified with; read at the first call and kept. Empty where the system has none.
    pub(crate) fn store(&self) -> &Arc<RootCertStore> {
        self.store.get_or_init(|| {
            let mut store = RootCertStore::empty();
            // Distributions ship a few that webpki cannot parse; the others count.
            let read = self.load();
            store.add_parsable_certificates(read.certificates.iter().cloned());
            store.roots.shrink_to_fit();
            *self.kept() = Some(read);
            Arc::new(store)
        })
    }

    /// Reads the certificates themselves, which are not kept: 300 kB that only the bundle needs.
    pub(crate) fn read(&self) -> Read {
        let kept = self.kept().take();
        kept.unwrap_or_else(|| self.load())
    }

    fn kept(&self) -> MutexGuard<'_, Option<Read>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self) -> Read {
        let mut all = Read::default();
        for place in &self.places {
            let (file, folder) = match place.is_dir() {
                true => (None, Some(place.as_path())),
                false => (Some(place.as_path()), None),
            };
            let found = rustls_native_certs::load_certs_from_paths(file, folder);
            all.certificates.extend(found.certs);
            all.problems.extend(found.errors.into_iter().map(|error| Problem {
                place: place.clone(),
                source: io::Error::other(error),
            }));
        }
        all.certificates
            .sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        all.certificates.dedup();
        all
    }
}

/// Where distributions keep all roots in one file, the likeliest first (Cloud Foundry's stacks are Ubuntu), then
/// folders. One file is read in a tenth of the time that the same roots take in a folder of links.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
];

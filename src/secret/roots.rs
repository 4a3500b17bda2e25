//! The roots that the system trusts: public, yet kept here, because `upstream` verifies with them and `ca` writes them
//! into the app's bundle, and neither may know the other.
//!
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` replace the distribution's bundle, as with OpenSSL, and the certificates of
//! `CF_SYSTEM_CERT_PATH` come on top. The bundle that we write ourselves is never read: a profile script exports
//! `SSL_CERT_FILE` to us as well as to the app, and to trust it would be to trust our own authority upstream.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use data_encoding::BASE64_MIME_PERMISSIVE;
use memchr::memmem;
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
    /// All of them, one after the other: in pieces of their own they would leave a hole in the heap for good.
    der: Vec<u8>,
    /// Where each stands. Sorted by their bytes, each once.
    spans: Vec<Range<usize>>,
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
            let read = self.load();
            let mut store = RootCertStore::empty();
            // Distributions ship a few that webpki cannot parse; the others count.
            store.add_parsable_certificates(read.certificates().map(CertificateDer::from));
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
        let mut read = Read::default();
        // A folder holds links to the same files by other names, and often all of them once more in one file.
        let mut seen = HashSet::new();
        let mut text = Vec::new();
        for place in &self.places {
            let result = match place.is_dir() {
                true => read.folder(place, &mut seen, &mut text),
                false => read.file(place, &mut seen, &mut text),
            };
            if let Err(source) = result {
                read.problem(place, source);
            }
        }
        let Read { der, spans, .. } = &mut read;
        spans.sort_unstable_by(|a, b| der[a.clone()].cmp(&der[b.clone()]));
        spans.dedup_by(|a, b| der[a.clone()] == der[b.clone()]);
        read
    }
}

impl Read {
    /// In DER, sorted, each once.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|span| &self.der[span.clone()])
    }

    fn folder(&mut self, folder: &Path, seen: &mut Seen, text: &mut Vec<u8>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            match self.file(&path, seen, text) {
                // A link whose certificate was taken away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.problem(&path, error),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Reads a file that was not seen before, into `text` on its way.
    fn file(&mut self, path: &Path, seen: &mut Seen, text: &mut Vec<u8>) -> io::Result<()> {
        let data = fs::metadata(path)?;
        if !data.is_file() || !seen.insert((data.dev(), data.ino())) {
            return Ok(());
        }
        text.clear();
        fs::File::open(path)?.read_to_end(text)?;
        self.certificates_of(text)
    }

    /// Takes every block `CERTIFICATE`; others, and what stands around them, are nothing to us.
    fn certificates_of(&mut self, text: &[u8]) -> io::Result<()> {
        let (begin, end) = (memmem::Finder::new(BEGIN), memmem::Finder::new(END));
        let mut rest = text;
        let mut damaged = None;
        while let Some(at) = begin.find(rest) {
            rest = &rest[at + BEGIN.len()..];
            let Some(at) = end.find(rest) else {
                damaged = Some("a certificate is cut short");
                break;
            };
            if !self.decode(&rest[..at]) {
                damaged = Some("a certificate is not in base64");
            }
            rest = &rest[at + END.len()..];
        }
        damaged.map_or(Ok(()), |what| {
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        })
    }

    fn decode(&mut self, body: &[u8]) -> bool {
        let start = self.der.len();
        let letters: Vec<u8> = (body.iter().copied())
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        let Ok(length) = BASE64_MIME_PERMISSIVE.decode_len(letters.len()) else {
            return false;
        };
        self.der.resize(start + length, 0);
        match BASE64_MIME_PERMISSIVE.decode_mut(&letters, &mut self.der[start..]) {
            Ok(length) => {
                self.der.truncate(start + length);
                self.spans.push(start..start + length);
                true
            }
            Err(_) => {
                self.der.truncate(start);
                false
            }
        }
    }

    fn problem(&mut self, place: &Path, source: io::Error) {
        self.problems.push(Problem {
            place: place.to_owned(),
            source,
        });
    }
}

/// Files that were read, by device and number.
type Seen = HashSet<(u64, u64)>;

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const END: &[u8] = b"-----END CERTIFICATE-----";

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

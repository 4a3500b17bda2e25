//! The roots that the system trusts: public, yet kept here, because `upstream` verifies with them and `ca` writes them
//! into the app's bundle, and neither may know the other.
//!
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` replace the distribution's bundle, as with OpenSSL, and the certificates of
//! `CF_SYSTEM_CERT_PATH` come on top. The bundle that we write ourselves is never read: a profile script exports
//! `SSL_CERT_FILE` to us as well as to the app, and to trust it would be to trust our own authority upstream.

use std::collections::HashSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Read as _};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use data_encoding::BASE64_MIME_PERMISSIVE;
use rustls::pki_types::CertificateDer;

use super::Sources;
use super::anchors::Anchors;

/// The system's trusted roots: found at once, read when somebody needs them. A reload makes new ones.
#[derive(Debug)]
pub(crate) struct SystemRoots {
    /// What the anchors were made from, until the bundle has been: both are wanted at the start, and reading is slow.
    kept: Mutex<Option<Read>>,
    places: Vec<PathBuf>,
    anchors: OnceLock<Arc<Anchors>>,
}

/// Certificates as read, and what could not be.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// All of them, one after the other: in pieces of their own they would leave holes in the heap for good.
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
            anchors: OnceLock::new(),
        }
    }

    /// What upstreams are verified with; read at the first call and kept. Empty where the system has none.
    pub(crate) fn anchors(&self) -> &Arc<Anchors> {
        self.anchors.get_or_init(|| {
            let read = self.load();
            let mut anchors = Anchors::new();
            for certificate in read.certificates() {
                // Distributions ship a few that webpki cannot parse; the others count.
                let _ = anchors.add(CertificateDer::from(certificate));
            }
            anchors.shrink_to_fit();
            *self.kept() = Some(read);
            Arc::new(anchors)
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
        let mut read = Read {
            der: Vec::with_capacity(ROOM),
            ..Read::default()
        };
        // A folder holds links to the same files by other names, and often all of them once more in one file.
        let mut seen = HashSet::new();
        for place in &self.places {
            let result = match place.is_dir() {
                true => read.folder(place, &mut seen),
                false => read.file(place, &mut seen),
            };
            if let Err(source) = result {
                read.problem(place, source);
            }
        }
        read
    }
}

impl Read {
    /// In DER, sorted, each once.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|span| &self.der[span.clone()])
    }

    fn folder(&mut self, folder: &Path, seen: &mut Seen) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            match self.file(&path, seen) {
                // A link whose certificate was taken away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.problem(&path, error),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Takes every block `CERTIFICATE` of a file that was not seen before; others, and what stands around them, are
    /// nothing to us.
    fn file(&mut self, path: &Path, seen: &mut Seen) -> io::Result<()> {
        let data = fs::metadata(path)?;
        if !data.is_file() || !seen.insert((data.dev(), data.ino())) {
            return Ok(());
        }
        if data.len() > LARGEST {
            return Err(damaged("it is larger than any bundle of certificates"));
        }
        let mut reader = BufReader::new(fs::File::open(path)?.take(LARGEST));
        let (mut line, mut letters) = (Vec::new(), Vec::new());
        let mut is_inside = false;
        let mut result = Ok(());
        while reader.read_until(b'\n', &mut line)? > 0 {
            match line.trim_ascii() {
                BEGIN => {
                    letters.clear();
                    is_inside = true;
                }
                END if is_inside => {
                    is_inside = false;
                    if let Err(error) = self.take(&letters) {
                        result = Err(error);
                    }
                }
                // By words, not by letters: a start reads a quarter of a million of them.
                text if is_inside => {
                    (text.split(u8::is_ascii_whitespace)).for_each(|word| letters.extend_from_slice(word));
                }
                _ => {}
            }
            line.clear();
        }
        match is_inside {
            true => Err(damaged("a certificate is cut short")),
            false => result,
        }
    }

    /// Keeps a certificate, given in base64, in its place among the others.
    fn take(&mut self, letters: &[u8]) -> io::Result<()> {
        let new = (BASE64_MIME_PERMISSIVE.decode(letters))
            .map_err(|_| damaged("a certificate is not in base64"))?;
        let Self { der, spans, .. } = self;
        if let Err(place) = spans.binary_search_by(|span| der[span.clone()].cmp(&new)) {
            spans.insert(place, der.len()..der.len() + new.len());
            der.extend(new);
        }
        Ok(())
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

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Twice what distributions ship, and more than an allocator takes from its heap: it goes back to the system.
const ROOM: usize = 512 * 1024;

/// A hundred times what distributions ship.
const LARGEST: u64 = 32 * 1024 * 1024;

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

//! The roots that the system trusts: public, yet kept here, because `upstream` verifies with them and `ca` writes
//! them into the app's bundle, and neither may know the other.
//!
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` replace the distribution's bundle, as with OpenSSL, and the certificates of
//! `CF_SYSTEM_CERT_PATH` come on top. The bundle that we write ourselves is never read: a profile script exports
//! `SSL_CERT_FILE` to us as well as to the app, and to trust it would be to trust our own authority upstream. Nor is
//! the authority of any outrider taken from another file: a variable may name the bundle of an earlier start.
//!
//! The files that single clients of the app trust ([`CLIENT_VARIABLES`]) go into the app's bundle, since the
//! bundle takes the place of these files. No upstream is verified with it: a file for pip must not decide who gets
//! a credential.

use std::collections::HashSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Read as _};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use data_encoding::{BASE64, BASE64_MIME_PERMISSIVE};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::Snapshot;
use super::anchors::Anchors;
use crate::sync::lock;

/// The variables that name what one client trusts, a file or a folder of PEM, and that [`SystemRoots`] does not
/// heed otherwise. `outrider env` points each at the bundle.
pub(crate) const CLIENT_VARIABLES: &[&str] = &[
    "REQUESTS_CA_BUNDLE",               // Python requests
    "CURL_CA_BUNDLE",                   // curl
    "NODE_EXTRA_CA_CERTS",              // Node
    "AWS_CA_BUNDLE",                    // AWS SDKs and command line
    "GIT_SSL_CAINFO",                   // git, whose libcurl may stand on GnuTLS
    "PIP_CERT",                         // pip
    "NEW_RELIC_CA_BUNDLE_PATH",         // New Relic's agent for Python
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", // gRPC's C core: Python, Ruby, PHP
    "HTTPLIB2_CA_CERTS",                // httplib2, under Google's older Python clients
    "DENO_CERT",                        // Deno
    "PERL_LWP_SSL_CA_FILE",             // Perl's LWP
];

/// More of them, of clients that trust the bundle without. One that is set goes before what the client reads
/// otherwise, so `outrider env` points it at the bundle only then.
pub(crate) const RARE_CLIENT_VARIABLES: &[&str] = &[
    "BUNDLE_SSL_CA_CERT",                 // Bundler
    "CARGO_HTTP_CAINFO",                  // cargo
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", // gcloud
    "COMPOSER_CAFILE",                    // Composer
    "HEX_CACERTS_PATH",                   // Hex
    "HTTPS_CA_FILE",                      // Perl's LWP, by its older name
    "NIX_SSL_CERT_FILE",                  // OpenSSL and git of Nix
    "OTEL_EXPORTER_OTLP_CERTIFICATE",     // OpenTelemetry's exporters
    "WEBSOCKET_CLIENT_CA_BUNDLE",         // websocket-client
    "YARN_HTTPS_CA_FILE_PATH",            // yarn
    "npm_config_cafile",                  // npm
];

/// Twice what distributions ship, and more than an allocator takes from its heap: it goes back to the system.
const ROOM: usize = 512 * 1024;

/// A hundred times what distributions ship.
const LARGEST: u64 = 32 * 1024 * 1024;

/// All certificates together, in bytes of DER.
const MOST: usize = 16 * 1024 * 1024;

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const END: &[u8] = b"-----END CERTIFICATE-----";
/// The same by its older name, which OpenSSL takes, too.
const BEGIN_X509: &[u8] = b"-----BEGIN X509 CERTIFICATE-----";
const END_X509: &[u8] = b"-----END X509 CERTIFICATE-----";

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

/// The system's trusted roots: found at the start, read when they are first needed.
#[derive(Debug)]
pub(crate) struct SystemRoots {
    /// What the anchors were made from, until the bundle has been: both are wanted at the start, and reading is
    /// slow.
    kept: Mutex<Option<RootCertificates>>,
    places: Vec<PathBuf>,
    /// What clients of the app trust beside it.
    clients: Vec<PathBuf>,
    anchors: OnceLock<Arc<Anchors>>,
}

/// Certificates as read, and what could not be.
#[derive(Debug, Default)]
pub(crate) struct RootCertificates {
    /// All of them, one after the other: single allocations would leave holes in the heap for good.
    der: Vec<u8>,
    /// Whether each is parsed: OpenSSL takes nothing of a file in which one is damaged, so that a damaged one of a
    /// single client's file would take the bundle from all clients. Those of the system are as it ships them.
    is_strict: bool,
    /// A folder holds links to the same files by other names, and a client's file is often the system's.
    seen: HashSet<FileNumber>,
    /// Where each stands. Sorted by their bytes, each once.
    spans: Vec<Range<usize>>,
    pub(crate) problems: Vec<UnreadableRoots>,
}

/// A place of trusted certificates that cannot be read, or not wholly.
#[derive(Debug, thiserror::Error)]
#[error("trusted certificates at {place} cannot be read")]
pub(crate) struct UnreadableRoots {
    pub(crate) place: PathBuf,
    pub(crate) source: io::Error,
}

impl SystemRoots {
    /// Where the environment and the distribution say that they are; `own_bundle` is never one of them.
    pub(crate) fn new(snapshot: &Snapshot, own_bundle: &Path) -> Self {
        let paths = |name| {
            let paths = snapshot.variable(name);
            paths.map_or_else(Vec::new, |paths| std::env::split_paths(&paths).collect())
        };
        let own = fs::canonicalize(own_bundle).unwrap_or_else(|_| own_bundle.to_owned());
        let foreign = |path: &PathBuf| {
            !path.as_os_str().is_empty()
                && *path != own_bundle
                && fs::canonicalize(path).map_or(true, |path| path != own)
        };

        let mut places: Vec<_> = snapshot
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
        let clients = CLIENT_VARIABLES.iter().chain(RARE_CLIENT_VARIABLES);
        let clients = clients.filter_map(|name| snapshot.variable(name));
        let mut clients: Vec<_> = clients.map(PathBuf::from).filter(foreign).collect();
        clients.sort();
        clients.dedup();
        Self {
            kept: Mutex::new(None),
            places,
            clients,
            anchors: OnceLock::new(),
        }
    }

    /// What upstreams are verified with; read at the first call and kept. Empty if the system has no trust store.
    pub(crate) fn anchors(&self) -> &Arc<Anchors> {
        self.anchors.get_or_init(|| {
            let read = self.load(&self.places);
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

    /// Reads the certificates themselves, which are not kept: 300 kB that only the bundle needs. Those of the app's
    /// clients are among them.
    pub(crate) fn read(&self) -> RootCertificates {
        let kept = self.kept().take();
        let mut read = kept.unwrap_or_else(|| self.load(&self.places));
        read.is_strict = true;
        read.places(&self.clients);
        read
    }

    fn kept(&self) -> MutexGuard<'_, Option<RootCertificates>> {
        lock(&self.kept)
    }

    fn load(&self, places: &[PathBuf]) -> RootCertificates {
        let mut read = RootCertificates {
            der: Vec::with_capacity(ROOM),
            ..RootCertificates::default()
        };
        read.places(places);
        read
    }
}

impl RootCertificates {
    /// In DER, sorted, each once.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|span| &self.der[span.clone()])
    }

    fn places(&mut self, places: &[PathBuf]) {
        for place in places {
            let result = if place.is_dir() {
                self.folder(place)
            } else {
                self.file(place).and_then(|found| match found {
                    Some(0) => Err(damaged("there is no certificate in PEM in it")),
                    Some(_) | None => Ok(()),
                })
            };
            if let Err(source) = result {
                self.problem(place, source);
            }
        }
    }

    fn folder(&mut self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            match self.file(&path) {
                // A link whose certificate was taken away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.problem(&path, error),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Takes every block `CERTIFICATE` or `X509 CERTIFICATE` of a file that was not seen before; others, and the
    /// text around them, are ignored. Returns how many there are; `None` where it was not read.
    fn file(&mut self, path: &Path) -> io::Result<Option<usize>> {
        let data = fs::metadata(path)?;
        if !data.is_file() || !self.seen.insert((data.dev(), data.ino())) {
            return Ok(None);
        }
        if data.len() > LARGEST {
            return Err(damaged("it is larger than any bundle of certificates"));
        }
        let mut reader = BufReader::new(fs::File::open(path)?.take(LARGEST));
        let (mut line, mut letters) = (Vec::new(), Vec::new());
        let mut is_inside = false;
        let mut found = 0;
        let mut result = Ok(());
        while reader.read_until(b'\n', &mut line)? > 0 {
            match line.trim_ascii() {
                BEGIN | BEGIN_X509 => {
                    letters.clear();
                    is_inside = true;
                }
                END | END_X509 if is_inside => {
                    is_inside = false;
                    found += 1;
                    if let Err(error) = self.take(&letters) {
                        result = Err(error);
                    }
                }
                text if is_inside => letters.extend_from_slice(text),
                _ => {}
            }
            line.clear();
        }
        if is_inside {
            Err(damaged("a certificate is cut short"))
        } else {
            result.map(|()| Some(found))
        }
    }

    /// Keeps a certificate, given in base64, in its place among the others.
    fn take(&mut self, letters: &[u8]) -> io::Result<()> {
        let new = (BASE64.decode(letters).ok())
            .or_else(|| lenient(letters))
            .ok_or_else(|| damaged("a certificate is not in base64"))?;
        if memchr::memmem::find(&new, AUTHORITY_NAME.as_bytes()).is_some() {
            return Ok(());
        }
        if self.der.len() + new.len() > MOST {
            return Err(damaged("there are more certificates than a client would read"));
        }
        let is_whole = |der| X509Certificate::from_der(der).is_ok_and(|(rest, _)| rest.is_empty());
        let Self { der, spans, .. } = self;
        if let Err(place) = spans.binary_search_by(|span| der[span.clone()].cmp(&new)) {
            if self.is_strict && !is_whole(&new) {
                return Err(damaged("a certificate is damaged"));
            }
            spans.insert(place, der.len()..der.len() + new.len());
            der.extend(new);
        }
        Ok(())
    }

    fn problem(&mut self, place: &Path, source: io::Error) {
        self.problems.push(UnreadableRoots {
            place: place.to_owned(),
            source,
        });
    }
}

/// The device of a file, and its number there.
type FileNumber = (u64, u64);

/// Reads base64 in which there is space inside of lines, or which ends in bits that mean nothing. Takes five times as long.
fn lenient(letters: &[u8]) -> Option<Vec<u8>> {
    let words = letters.split(u8::is_ascii_whitespace).flatten();
    BASE64_MIME_PERMISSIVE
        .decode(&words.copied().collect::<Vec<_>>())
        .ok()
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The beginning of the name of each local authority.
pub(crate) const AUTHORITY_NAME: &str = "outrider local authority ";

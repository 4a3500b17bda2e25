//! The files that tell the app whom to trust: a PEM bundle, and the same as PKCS#12 for Java.
//!
//! Most variables that name a bundle (`SSL_CERT_FILE` and its kin) replace the trust of the app, so the bundle holds
//! the system's roots and the authority. A reader sees the old file or the new one, never half of one.

use std::fs::{self, DirBuilder, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use p12_keystore::{KeyStore, KeyStoreEntry};
use pem::{EncodeConfig, LineEnding, Pem};
use rustls_pki_types::CertificateDer;
use tempfile::NamedTempFile;

use super::Error;
use crate::secret::roots::SystemRoots;

/// What opens the PKCS#12 file. Java does not load a store without one; this is its convention for public content.
pub(crate) const TRUSTSTORE_PASSWORD: &str = "changeit";

/// Writes the system's roots and `authority` to both files, and makes their folders.
pub(super) fn write(
    authority: &CertificateDer<'_>,
    roots: &SystemRoots,
    bundle: &Path,
    truststore: &Path,
) -> Result<(), Error> {
    let roots = roots.read();
    for problem in &roots.problems {
        tracing::warn!(place = %problem.place.display(), error = %problem.source, "some roots cannot be read");
    }
    if roots.certificates.is_empty() {
        tracing::warn!("no system roots found: the bundle holds the local authority only");
    }
    replace(bundle, to_pem(authority, &roots.certificates).as_bytes())?;
    replace(truststore, &to_pkcs12(authority, &roots.certificates)?)
}

fn to_pem(authority: &CertificateDer<'_>, roots: &[CertificateDer<'_>]) -> String {
    let lines = EncodeConfig::new().set_line_ending(LineEnding::LF);
    (std::iter::once(authority).chain(roots))
        .map(|certificate| pem::encode_config(&Pem::new("CERTIFICATE", certificate.as_ref()), lines))
        .collect()
}

fn to_pkcs12(authority: &CertificateDer<'_>, roots: &[CertificateDer<'_>]) -> Result<Vec<u8>, Error> {
    let mut store = KeyStore::new();
    let entry = |certificate: &CertificateDer<'_>| {
        p12_keystore::Certificate::from_der(certificate).map(KeyStoreEntry::Certificate)
    };
    store.add_entry("outrider", entry(authority)?);
    for (number, root) in roots.iter().enumerate() {
        match entry(root) {
            Ok(root) => store.add_entry(&format!("system-{number:03}"), root),
            // An odd root of the system must not cost the app all the others.
            Err(error) => tracing::debug!(%error, number, "a system root is left out of the truststore"),
        }
    }
    let writer = store.writer(TRUSTSTORE_PASSWORD);
    Ok(writer
        .encryption_iterations(ITERATIONS)
        .mac_iterations(ITERATIONS)
        .write()?)
}

/// Puts `content` at `path`, readable by all, in one step.
fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed(folder))?;
    check_owner(folder)?;

    let mut file = NamedTempFile::new_in(folder).map_err(failed(folder))?;
    file.write_all(content).map_err(failed(path))?;
    file.as_file()
        .set_permissions(Permissions::from_mode(0o644))
        .map_err(failed(path))?;
    file.persist(path).map_err(|error| failed(path)(error.error))?;
    Ok(())
}

/// A folder below a shared `/tmp` may have been laid there by somebody else, who could then swap the roots of the app.
fn check_owner(folder: &Path) -> Result<(), Error> {
    let owner = fs::metadata(folder)
        .map_err(|source| Error::Write {
            path: folder.to_owned(),
            source,
        })?
        .uid();
    let us = rustix::process::geteuid().as_raw();
    match is_trusted(owner, us) {
        true => Ok(()),
        false => Err(Error::Foreign {
            path: folder.to_owned(),
        }),
    }
}

/// Whether a folder of `owner` is safe for a process of `us`. Root may write for anybody: it serves their app.
pub(super) fn is_trusted(owner: u32, us: u32) -> bool {
    owner == us || owner == ROOT || us == ROOT
}

/// Rounds of key derivation for a password that everybody knows: the least that Java's and OpenSSL's readers meet in
/// the wild, so that start-up does not pay for them.
const ITERATIONS: u32 = 1_000;

const ROOT: u32 = 0;

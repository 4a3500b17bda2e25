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

/// What opens the PKCS#12 file. Java does not load a store without one; this is its convention for public content.
pub(crate) const TRUSTSTORE_PASSWORD: &str = "changeit";

/// Writes the system's roots and `authority` to both files, and makes their folders.
pub(super) fn write(authority: &CertificateDer<'_>, bundle: &Path, truststore: &Path) -> Result<(), Error> {
    let roots = system_roots(bundle);
    if roots.is_empty() {
        tracing::warn!("no system roots found: the bundle holds the local authority only");
    }
    replace(bundle, to_pem(authority, &roots).as_bytes())?;
    replace(truststore, &to_pkcs12(authority, &roots)?)
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
    match owner {
        owner if owner == us || owner == ROOT || us == ROOT => Ok(()),
        _ => Err(Error::Foreign {
            path: folder.to_owned(),
        }),
    }
}

/// Rounds of key derivation for a password that everybody knows: the least that Java's and OpenSSL's readers meet in
/// the wild, so that start-up does not pay for them.
const ITERATIONS: u32 = 1_000;

const ROOT: u32 = 0;

/// The system's roots, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`, as other programs would read them. A variable
/// that names our own bundle is no source: it would add the authority of the run before.
pub(super) fn system_roots(bundle: &Path) -> Vec<CertificateDer<'static>> {
    let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let loaded = match named {
        Some(file) if file == bundle => rustls_native_certs::load_certs_from_paths(
            SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists()),
            None,
        ),
        _ => rustls_native_certs::load_native_certs(),
    };
    for error in &loaded.errors {
        tracing::debug!(%error, "a system root cannot be read");
    }
    loaded.certs
}

/// Where Debian, Red Hat, Alpine and SUSE keep the bundle.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

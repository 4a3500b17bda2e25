//! The files with the roots that the app trusts: a PEM bundle, and the same as PKCS#12 for Java.
//!
//! Most variables that name a bundle (`SSL_CERT_FILE` and its kin) replace the trust of the app, so the bundle
//! holds the system's roots and the authority. A reader sees the old file or the new one, never half of one.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use data_encoding::BASE64;
use rustls_pki_types::CertificateDer;
use tempfile::NamedTempFile;

use super::{Error, place, truststore};
use crate::secret::roots::SystemRoots;

/// Writes the system's roots and `authority` to both files, and makes their folders.
pub(super) fn write(
    authority: &CertificateDer<'_>,
    roots: &SystemRoots,
    bundle: &Path,
    store: &Path,
) -> Result<(), Error> {
    let roots = roots.read();
    for problem in &roots.problems {
        tracing::warn!(place = %problem.place.display(), error = %problem.source, "some roots cannot be read");
    }
    if roots.certificates().next().is_none() {
        tracing::warn!("no system roots found: the bundle holds the local authority only");
    }
    replace(bundle, READABLE, |file| {
        let mut file = BufWriter::new(file);
        for certificate in std::iter::once(authority.as_ref()).chain(roots.certificates()) {
            write_pem(certificate, &mut file)?;
        }
        file.flush()
    })?;
    replace(store, READABLE, |file| {
        truststore::write(authority, roots.certificates(), file)
    })
}

fn write_pem(certificate: &[u8], file: &mut impl Write) -> io::Result<()> {
    file.write_all(b"-----BEGIN CERTIFICATE-----\n")?;
    for line in BASE64.encode(certificate).as_bytes().chunks(LINE) {
        file.write_all(line)?;
        file.write_all(b"\n")?;
    }
    file.write_all(b"-----END CERTIFICATE-----\n")
}

/// Puts what `write` writes at `path`, in one step.
pub(super) fn replace(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    place::prepare(path)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = NamedTempFile::new_in(folder).map_err(failed(folder))?;
    write(file.as_file_mut()).map_err(failed(path))?;
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))
        .map_err(failed(path))?;
    file.persist(path).map_err(|error| failed(path)(error.error))?;
    Ok(())
}

/// The mode of a file that everybody may read.
pub(super) const READABLE: u32 = 0o644;

/// The letters of a line of PEM (RFC 7468).
const LINE: usize = 64;

//! The files that tell the app whom to trust: a PEM bundle, and the same as PKCS#12 for Java.
//!
//! Most variables that name a bundle (`SSL_CERT_FILE` and its kin) replace the trust of the app, so the bundle holds
//! the system's roots and the authority. A reader sees the old file or the new one, never half of one.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use data_encoding::BASE64;
use rustls_pki_types::CertificateDer;
use tempfile::NamedTempFile;

use super::{Error, truststore};
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
    replace(bundle, |file| {
        let mut file = BufWriter::new(file);
        for certificate in std::iter::once(authority.as_ref()).chain(roots.certificates()) {
            write_pem(certificate, &mut file)?;
        }
        file.flush()
    })?;
    replace(store, |file| {
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

/// Puts what `write` writes at `path`, readable by all, in one step.
fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
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
    write(file.as_file_mut()).map_err(failed(path))?;
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

/// The letters of a line of PEM (RFC 7468).
const LINE: usize = 64;

const ROOT: u32 = 0;

//! Encrypted private keys (RFC 5958, section 3), as `openssl pkcs8 -topk8` writes them.

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::ber;
use super::pbe::{EncryptionScheme, Error, Password};

/// Decrypts an `EncryptedPrivateKeyInfo`.
pub(super) fn unlock(locked: &[u8], passphrase: &Password) -> Result<PrivateKeyDer<'static>, Error> {
    let parts = ber::parse(locked, |reader| {
        reader.read_sequence(|parts| Ok((EncryptionScheme::read(parts.next())?, parts.next().read_bytes()?)))
    });
    let (algorithm, locked) = parts.map_err(|_| Error::Damaged)?;
    let key = algorithm.unlock(&locked, passphrase)?;
    // One wrong passphrase of 256 leaves padding that looks right.
    if is_private_key_info(&key) {
        Ok(PrivatePkcs8KeyDer::from(key.to_vec()).into())
    } else {
        Err(Error::Wrong)
    }
}

/// Whether this is a sequence of a version, an algorithm and a key; further attributes are not looked at.
pub(super) fn is_private_key_info(key: &[u8]) -> bool {
    let parsed = ber::parse(key, |reader| {
        reader.read_sequence(|parts| {
            parts.next().read_u8()?;
            parts.next().read_der()?;
            Zeroizing::new(parts.next().read_bytes()?);
            while parts.read_optional(|reader| reader.read_der())?.is_some() {}
            Ok(())
        })
    });
    parsed.is_ok()
}

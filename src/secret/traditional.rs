//! Private keys in OpenSSL's oldest encryption: PEM whose headers say `Proc-Type: 4,ENCRYPTED` (RFC 1421).
//!
//! The key is derived by one round of MD5, so that it protects little. `ssh-keygen -m PEM`, OpenSSL 1 and
//! `openssl … -traditional` write it all the same.

use md5::{Digest, Md5};
use rustls::pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

use super::contents::{ContentItem, ContentKind};
use super::pbe::{Cipher, Error};

/// Decrypts the key, in PKCS#1 or SEC1.
pub(super) fn unlock(item: &ContentItem, passphrase: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    let locked = item.der.as_ref().ok_or(Error::Damaged)?;
    let written = item.headers.iter().find(|(name, _)| name == "DEK-Info");
    let (name, vector) = written
        .and_then(|(_, value)| value.split_once(','))
        .ok_or(Error::Damaged)?;
    let vector = data_encoding::HEXUPPER_PERMISSIVE.decode(vector.as_bytes());
    let vector = vector.map_err(|_| Error::Damaged)?;
    let cipher = match name {
        "AES-128-CBC" => Cipher::Aes128,
        "AES-192-CBC" => Cipher::Aes192,
        "AES-256-CBC" => Cipher::Aes256,
        "CAMELLIA-128-CBC" => Cipher::Camellia128,
        "CAMELLIA-192-CBC" => Cipher::Camellia192,
        "CAMELLIA-256-CBC" => Cipher::Camellia256,
        "DES-EDE3-CBC" => Cipher::TripleDes,
        other => return Err(Error::Unsupported(super::pbe::plain(other))),
    };
    let salt = vector.first_chunk::<8>().ok_or(Error::Damaged)?;
    let key = derived(passphrase, salt, cipher.key_length());
    let key = cipher.decrypt(&key, &vector, locked)?;
    // One wrong passphrase of 256 leaves padding that looks right.
    match ContentKind::of_der(&key) {
        Some(ContentKind::Key(form)) => Ok(form.of(&key)),
        _ => Err(Error::Wrong),
    }
}

/// Derives a key as OpenSSL's `EVP_BytesToKey` does, with MD5 and one round.
fn derived(passphrase: &[u8], salt: &[u8; 8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::with_capacity(length + 16));
    let mut last = Zeroizing::new([0; 16]);
    while key.len() < length {
        let mut digest = Md5::new();
        if !key.is_empty() {
            digest.update(last.as_slice());
        }
        digest.update(passphrase);
        digest.update(salt);
        last.copy_from_slice(&digest.finalize());
        key.extend_from_slice(last.as_slice());
    }
    key.truncate(length);
    key
}

//! Certificates and private keys out of PEM as people really have it.
//!
//! Tolerated: any line ends, indentation, text around and between the blocks, line ends that an environment variable or
//! a JSON document turned into the two characters `\n` or into blanks, and both halves of a pair in one file. An
//! encrypted key is opened with its passphrase; one in OpenSSL's oldest form is refused with the command that mends it.
//! The parser itself is rustls's.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::guard::{self, Interrupted};
use super::pbe::{self, Password};
use super::{Names, OPENING, Secret, pkcs8};

/// Why a PEM text does not hold what is wanted of it. Says nothing of what it does hold but the labels of its blocks.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Error {
    #[error(
        "this is DER or PKCS#12, not PEM; a client certificate in PKCS#12 (.p12, .pfx) is named under `pkcs12`; \
         `openssl x509 -inform DER -in FILE -out FILE.pem` a .der or .cer, `openssl pkey -inform DER …` a key"
    )]
    Binary,

    #[error(
        "the private key is encrypted; decrypt it with `openssl pkey -in KEY -out PLAIN` and name that file"
    )]
    Encrypted,

    #[error(
        "the private key is encrypted and there is no passphrase; name it under `passphrase`, or decrypt the key with \
         `openssl pkey -in KEY -out PLAIN`"
    )]
    MissingPassphrase,

    #[error("the PEM text is damaged: a block is cut short or holds what is not base64; copy it again")]
    Malformed,

    #[error(
        "there is no certificate in it (blocks found: {found}); it must hold -----BEGIN CERTIFICATE-----"
    )]
    NoCertificate { found: Names },

    #[error(
        "there is no list of revoked certificates in it (blocks found: {found}); it must hold -----BEGIN X509 CRL-----, \
         or be one list in DER"
    )]
    NoList { found: Names },

    #[error(
        "there is no private key in it (blocks found: {found}); it must hold a block PRIVATE KEY, \
         RSA PRIVATE KEY or EC PRIVATE KEY"
    )]
    NoKey { found: Names },

    #[error(
        "the private key is encrypted in OpenSSL's oldest form (Proc-Type: 4,ENCRYPTED), which protects little; convert it \
         with `openssl pkcs8 -topk8 -v2 aes-256-cbc -in KEY -out NEW`"
    )]
    OldEncryption,

    #[error(
        "the private key takes longer than {} seconds to decrypt; convert it with \
         `openssl pkcs8 -topk8 -v2 aes-256-cbc -in KEY -out NEW`",
        OPENING.as_secs()
    )]
    Slow,

    #[error("there are {count} private keys in it; leave the one of the certificate")]
    SeveralKeys { count: usize },

    #[error(
        "the private key is encrypted with {what}, which is not understood; convert it with \
         `openssl pkcs8 -topk8 -v2 aes-256-cbc -in KEY -out NEW`"
    )]
    Unsupported { what: String },

    #[error("the passphrase does not open the private key; mend `passphrase`")]
    WrongPassphrase,
}

/// Every certificate, in the order of the text; at least one.
pub(crate) fn certificates(secret: &Secret) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = normalise(secret.expose());
    let certificates = CertificateDer::pem_slice_iter(&text);
    let certificates: Vec<_> = certificates
        .collect::<Result<_, _>>()
        .map_err(|_| Error::Malformed)?;
    match certificates.is_empty() {
        true if is_binary(secret) => Err(Error::Binary),
        true => Err(Error::NoCertificate { found: labels(&text) }),
        false => Ok(certificates),
    }
}

/// Every list of revoked certificates, in the order of the text; at least one. DER holds one.
pub(crate) fn revocation_lists(secret: &Secret) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
    if is_binary(secret) {
        return Ok(vec![secret.expose().to_vec().into()]);
    }
    let text = normalise(secret.expose());
    let lists = CertificateRevocationListDer::pem_slice_iter(&text);
    let lists: Vec<_> = lists.collect::<Result<_, _>>().map_err(|_| Error::Malformed)?;
    match lists.is_empty() {
        true => Err(Error::NoList { found: labels(&text) }),
        false => Ok(lists),
    }
}

/// The one private key, in PKCS#1, PKCS#8 or SEC1.
pub(crate) fn private_key(secret: &Secret) -> Result<PrivateKeyDer<'static>, Error> {
    let text = normalise(secret.expose());
    // The second form is OpenSSL's older one: a plain label over headers that say ENCRYPTED.
    if contains(&text, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || contains(&text, OLD_ENCRYPTION) {
        return Err(Error::Encrypted);
    }
    let keys = PrivateKeyDer::pem_slice_iter(&text);
    let mut keys: Vec<_> = keys.collect::<Result<_, _>>().map_err(|_| Error::Malformed)?;
    match (keys.pop(), keys.len()) {
        (Some(key), 0) => Ok(key),
        (Some(_), others) => Err(Error::SeveralKeys { count: others + 1 }),
        (None, _) if is_binary(secret) => Err(Error::Binary),
        (None, _) => Err(Error::NoKey { found: labels(&text) }),
    }
}

/// The same, of a key that may be encrypted. A key that is not needs no passphrase, and ignores one.
pub(crate) fn unlocked_key(
    secret: &Secret,
    passphrase: Option<&Secret>,
) -> Result<PrivateKeyDer<'static>, Error> {
    let text = normalise(secret.expose());
    if contains(&text, OLD_ENCRYPTION) {
        return Err(Error::OldEncryption);
    }
    let mut locked = blocks(&text, "ENCRYPTED PRIVATE KEY");
    let Some(body) = locked.next() else {
        return private_key(secret);
    };
    let others = locked.count() + PrivateKeyDer::pem_slice_iter(&text).flatten().count();
    if others > 0 {
        return Err(Error::SeveralKeys { count: others + 1 });
    }
    let passphrase = passphrase.ok_or(Error::MissingPassphrase)?;
    let body: Vec<u8> = body
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let der = data_encoding::BASE64
        .decode(&body)
        .map_err(|_| Error::Malformed)?;
    let passphrase = passphrase.copy();
    let what = guard::name(&der);
    let work = move || pkcs8::unlock(&der, &Password::new(passphrase.expose()));
    match guard::within(OPENING, what, work) {
        Err(Interrupted::Panicked) => Err(Error::Malformed),
        Err(Interrupted::TooLong) => Err(Error::Slow),
        Ok(key) => key.map(PrivateKeyDer::Pkcs8).map_err(|error| match error {
            pbe::Error::Damaged => Error::Malformed,
            pbe::Error::Unsupported(what) => Error::Unsupported { what },
            pbe::Error::Wrong => Error::WrongPassphrase,
        }),
    }
}

/// What stands between the markers of each block of this label. One that is cut short ends with the text.
fn blocks<'t>(text: &'t [u8], label: &str) -> impl Iterator<Item = &'t [u8]> {
    let begin = format!("-----BEGIN {label}-----").into_bytes();
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = memchr::memmem::find(rest, &begin)? + begin.len();
        let body = &rest[start..];
        let end = memchr::memmem::find(body, MARKER).unwrap_or(body.len());
        rest = &body[end..];
        Some(&body[..end])
    })
}

/// Whether this begins as DER does: a sequence with a long length. PEM is text, and `0` is not followed by such a byte.
fn is_binary(secret: &Secret) -> bool {
    matches!(secret.expose(), [0x30, 0x80..=0x84, ..])
}

/// PEM with each marker on a line of its own and real line ends.
///
/// A backslash stands neither in base64 nor in a marker, so `\n` and `\r` can only be escapes.
fn normalise(text: &[u8]) -> Zeroizing<Vec<u8>> {
    // Each marker may gain two line ends; room beforehand, since growing leaves copies of the key behind.
    let markers = text
        .windows(MARKER.len())
        .filter(|window| *window == MARKER)
        .count();
    let mut lines = Zeroizing::new(Vec::with_capacity(text.len() + 2 * markers + 2));
    let mut rest = text;
    let mut in_marker = false;
    while let Some((&byte, tail)) = rest.split_first() {
        if rest.starts_with(MARKER) {
            let opens = !in_marker && (rest.starts_with(b"-----BEGIN ") || rest.starts_with(b"-----END "));
            if opens && lines.last().is_some_and(|last| *last != b'\n') {
                lines.push(b'\n');
            }
            lines.extend_from_slice(MARKER);
            rest = &rest[MARKER.len()..];
            if in_marker {
                lines.push(b'\n');
            }
            in_marker = opens;
        } else if rest.starts_with(b"\\n") || rest.starts_with(b"\\r") {
            lines.push(b'\n');
            rest = &rest[2..];
            in_marker = false;
        } else {
            // Only a marker begins at the margin for the parser; what is indented is moved there.
            let margin = lines.last().is_none_or(|last| *last == b'\n');
            if !(margin && matches!(byte, b' ' | b'\t')) {
                lines.push(byte);
            }
            in_marker &= !matches!(byte, b'\n' | b'\r');
            rest = tail;
        }
    }
    lines
}

/// The labels of all blocks, such as `TRUSTED CERTIFICATE`.
fn labels(text: &[u8]) -> Names {
    let labels = text
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .filter_map(|line| {
            let label = line.strip_prefix(b"-----BEGIN ")?.strip_suffix(MARKER)?;
            // Whatever stands there is no secret unless somebody put it between markers; keep to what labels are made of.
            let plain = label
                .iter()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b' ');
            (plain && label.len() <= 40).then(|| String::from_utf8_lossy(label).into_owned())
        });
    Names(labels.collect())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

const MARKER: &[u8] = b"-----";
const OLD_ENCRYPTION: &[u8] = b"Proc-Type: 4,ENCRYPTED";

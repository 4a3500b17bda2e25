//! Certificates, private keys and lists of revoked certificates, in the forms in which people really have them.
//!
//! Read are PEM and DER. Tolerated in PEM: any line ends, indentation, text around and between the blocks, line
//! ends that an environment variable or a JSON document turned into the two characters `\n` or into blanks, and
//! keys beside their certificates. All of it may be in base64 once more, or in UTF-16. An encrypted key is opened
//! with its passphrase. What cannot be used is named, with the command that makes something of it that can.

use std::fmt;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::contents::{self, ContentItem, ContentKind, Java};
use super::file::{FileName, OpenCommand};
use super::guard::{self, Interrupted};
use super::openssh::OpenSsh;
use super::pbe::{self, Password};
use super::{NameList, OPENING, Secret, ber, pkcs8, traditional};

/// Why a text does not hold what is wanted. Shows nothing of it but the labels of its blocks.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Error {
    #[error(
        "the private key is encrypted; `openssl pkey{legacy} -in {file} -out NEW.pem` decrypts it, so name NEW.pem"
    )]
    Encrypted { file: FileName, legacy: Legacy },

    #[error(
        "this is a Java keystore ({kind}) with a key; `keytool -importkeystore -srckeystore {file} -srcstoretype {kind} \
         -destkeystore NEW.p12 -deststoretype PKCS12` makes PKCS#12 of it: name NEW.p12 under `pkcs12`, or take out what \
         belongs here: `openssl pkcs12 -in NEW.p12 -nokeys -out NEW.pem` writes its certificates, and with `-nocerts` for \
         `-nokeys` its key"
    )]
    Keystore { kind: Java, file: FileName },

    #[error(
        "the private key is encrypted and there is no passphrase; name it under `passphrase`, or decrypt the key with \
         `openssl pkey{legacy} -in {file} -out NEW.pem`"
    )]
    MissingPassphrase { file: FileName, legacy: Legacy },

    #[error("the text is damaged: a block is cut short or holds what is not base64; copy it again")]
    Malformed,

    #[error(
        "there is no certificate in it (blocks found: {found}); it must hold -----BEGIN CERTIFICATE-----, or be a certificate in DER"
    )]
    NoCertificate { found: NameList },

    #[error(
        "there is no list of revoked certificates in it (blocks found: {found}); it must hold -----BEGIN X509 CRL-----, or be a \
         list in DER"
    )]
    NoList { found: NameList },

    #[error(
        "there is no private key in it (blocks found: {found}); it must hold a block PRIVATE KEY, RSA PRIVATE KEY or \
         EC PRIVATE KEY, or be such a key in DER"
    )]
    NoKey { found: NameList },

    #[error(
        "this is a private key of OpenSSH, which is not read but for Ed25519; `ssh-keygen -p -m PKCS8 -f {file}` writes \
         PKCS#8 in its place"
    )]
    OpenSsh { file: FileName },

    #[error(
        "this is an Ed25519 key of OpenSSH under a passphrase, which is read only without; \
         `ssh-keygen -p -f {file}` takes it off where the new one is left empty"
    )]
    OpenSshLocked { file: FileName },

    #[error(
        "the private key takes longer than {} seconds to decrypt; `openssl pkey{legacy} -in {file} -aes256 -out NEW.pem` \
         encrypts it with less work, so name NEW.pem",
        OPENING.as_secs()
    )]
    Slow { file: FileName, legacy: Legacy },

    #[error("there are {count} private keys in it; leave the one of the certificate")]
    SeveralKeys { count: usize },

    #[error(
        "this is PKCS#12; name it under `pkcs12`, or take out what belongs here: `{opening} -nokeys -out NEW.pem` writes \
         its certificates, and with `-nocerts` for `-nokeys` its key"
    )]
    Store { opening: OpenCommand },

    #[error(
        "this is a Java keystore ({kind}) without a key; `keytool -list -rfc -storetype {kind} -keystore {file} > NEW.pem` \
         writes its certificates as PEM: name NEW.pem"
    )]
    Truststore { kind: Java, file: FileName },

    #[error(
        "the private key is encrypted with {what}, which is not understood; \
         `openssl pkey -provider legacy -provider default -in {file} -aes256 -out NEW.pem` encrypts it with AES, so name \
         NEW.pem"
    )]
    Unsupported { what: String, file: FileName },

    #[error("the passphrase does not open the private key; correct `passphrase`")]
    WrongPassphrase,
}

/// The arguments with which OpenSSL 3 reads old encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Legacy(bool);

/// Returns every certificate, in the order of the text; at least one.
pub(crate) fn certificates(secret: &Secret) -> Result<Vec<CertificateDer<'static>>, Error> {
    let items = contents::read(secret.expose());
    let found = all(&items, ContentKind::Certificate)?;
    if found.is_empty() {
        Err(refused(&items, secret).unwrap_or_else(|| Error::NoCertificate {
            found: contents::labels(&items),
        }))
    } else {
        Ok(found.into_iter().map(|der| der.to_vec().into()).collect())
    }
}

/// Returns every list of revoked certificates, in the order of the text; at least one.
pub(crate) fn revocation_lists(secret: &Secret) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
    let items = contents::read(secret.expose());
    let found = all(&items, ContentKind::List)?;
    if found.is_empty() {
        Err(Error::NoList {
            found: contents::labels(&items),
        })
    } else {
        Ok(found.into_iter().map(|der| der.to_vec().into()).collect())
    }
}

/// Returns the one private key, in PKCS#1, PKCS#8 or SEC1.
pub(crate) fn private_key(secret: &Secret) -> Result<PrivateKeyDer<'static>, Error> {
    let items = contents::read(secret.expose());
    let item = only_key(&items, secret)?;
    plain_key(item, secret).unwrap_or_else(|| {
        Err(Error::Encrypted {
            file: secret.file(),
            legacy: Legacy::of(item),
        })
    })
}

/// Returns the one private key, which may be encrypted. For one that is not, the passphrase is ignored.
pub(crate) fn unlocked_key(
    secret: &Secret,
    passphrase: Option<&Secret>,
) -> Result<PrivateKeyDer<'static>, Error> {
    let mut items = contents::read(secret.expose());
    let item = only_key(&items, secret)?;
    if let Some(key) = plain_key(item, secret) {
        return key;
    }
    let (file, legacy) = (secret.file(), Legacy::of(item));
    let Some(passphrase) = passphrase else {
        return Err(Error::MissingPassphrase { file, legacy });
    };
    let place = items.iter().position(|other| std::ptr::eq(other, item));
    let item = items.swap_remove(place.unwrap_or_default());
    let passphrase = passphrase.copy();
    let what = guard::name(item.der.as_ref().map(|der| der.as_slice()));
    let work = move || match item.kind {
        ContentKind::OldLockedKey => traditional::unlock(&item, passphrase.expose()),
        _ => {
            let der = item.der.as_ref().ok_or(pbe::Error::Damaged)?;
            pkcs8::unlock(der, &Password::new(passphrase.expose()))
        }
    };
    match guard::within(OPENING, what, work) {
        Err(Interrupted::Panicked) => Err(Error::Malformed),
        Err(Interrupted::TooLong) => Err(Error::Slow { file, legacy }),
        Ok(key) => key.map_err(|error| match error {
            pbe::Error::Damaged => Error::Malformed,
            pbe::Error::Unsupported(what) => Error::Unsupported { what, file },
            pbe::Error::Wrong => Error::WrongPassphrase,
        }),
    }
}

/// Returns the error about contents that are not read here, with the command that converts them.
pub(super) fn refused(items: &[ContentItem], secret: &Secret) -> Option<Error> {
    let file = secret.file();
    items.iter().find_map(|item| match item.kind {
        ContentKind::Java(kind) => match item.der.as_deref().map(|der| der.get(8..16)) {
            // The version, how many entries, and of what kind the first one is: 1 has a key.
            Some(Some([0, 0, 0, 0, ..] | [_, _, _, _, 0, 0, 0, 2])) => Some(Error::Truststore {
                kind,
                file: file.clone(),
            }),
            _ => Some(Error::Keystore {
                kind,
                file: file.clone(),
            }),
        },
        ContentKind::Store => Some(Error::Store {
            opening: OpenCommand::of(secret),
        }),
        _ => None,
    })
}

/// All certificates or lists, those of bundles among them.
fn all(items: &[ContentItem], what: ContentKind) -> Result<Vec<&[u8]>, Error> {
    let mut all = Vec::new();
    for item in items {
        if item.kind == what {
            all.push(item.der.as_deref().ok_or(Error::Malformed)?.as_slice());
        } else if item.kind == ContentKind::Bundle {
            all.extend(item.bundled(what).ok_or(Error::Malformed)?);
        }
    }
    Ok(all)
}

/// The one item that is a private key, of whatever form.
fn only_key<'i>(items: &'i [ContentItem], secret: &Secret) -> Result<&'i ContentItem, Error> {
    let is_key = |kind| {
        matches!(
            kind,
            ContentKind::Key(_) | ContentKind::LockedKey | ContentKind::OldLockedKey | ContentKind::OpenSsh
        )
    };
    let mut keys = items.iter().filter(|item| is_key(item.kind));
    match (keys.next(), keys.count()) {
        (Some(key), 0) => Ok(key),
        (Some(_), others) => Err(Error::SeveralKeys { count: others + 1 }),
        (None, _) => Err(refused(items, secret).unwrap_or_else(|| Error::NoKey {
            found: contents::labels(items),
        })),
    }
}

/// Returns the key of an item, or why it cannot be used; `None` where a passphrase is needed.
fn plain_key(item: &ContentItem, secret: &Secret) -> Option<Result<PrivateKeyDer<'static>, Error>> {
    let Some(der) = &item.der else {
        return Some(Err(Error::Malformed));
    };
    match item.kind {
        ContentKind::Key(form) => Some(Ok(form.of(der))),
        ContentKind::OpenSsh => Some(match OpenSsh::read(der) {
            OpenSsh::Damaged => Err(Error::Malformed),
            OpenSsh::Ed25519(key) => Ok(PrivatePkcs8KeyDer::from(key.to_vec()).into()),
            OpenSsh::LockedEd25519 => Err(Error::OpenSshLocked { file: secret.file() }),
            OpenSsh::Other => Err(Error::OpenSsh { file: secret.file() }),
        }),
        _ => None,
    }
}

impl Legacy {
    /// Whether OpenSSL 3 needs its legacy provider for it: for all but PBES2, to be sure.
    fn of(item: &ContentItem) -> Self {
        let scheme = || {
            let parts = ber::parts(item.der.as_ref()?)?;
            let parts = ber::parts(parts.first()?)?;
            ber::content(parts.first()?)
        };
        let is_old = |oid: &[u8]| oid != PBES2;
        Self(item.kind == ContentKind::LockedKey && scheme().is_none_or(is_old))
    }
}

impl fmt::Display for Legacy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 {
            " -provider legacy -provider default"
        } else {
            ""
        })
    }
}

impl fmt::Display for Java {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jceks => "JCEKS",
            Self::Jks => "JKS",
        })
    }
}

/// 1.2.840.113549.1.5.13, as it is written.
const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 13];

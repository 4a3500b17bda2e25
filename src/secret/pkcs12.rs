//! PKCS#12 (RFC 7292): a key and its certificates in one file, as .p12 and .pfx come by mail.
//!
//! Binary, or base64 of it where only text can stand, also between the markers of PEM. Read are the
//! password-protected forms that OpenSSL, Java and Windows write, of today and of before; what is protected by a
//! public key is not.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use yasna::{ASN1Result, BERReader, BERReaderSeq, Tag};
use zeroize::Zeroizing;

use super::contents::{self, ContentKind};
use super::file::OpenCommand;
use super::guard::{self, Interrupted};
use super::pbe::{self, EncryptionScheme, Mac, Password};
use super::{OPENING, Secret, ber, pem, pkcs8};

const DATA: &[u64] = &[1, 2, 840, 113549, 1, 7, 1];
const ENCRYPTED_DATA: &[u64] = &[1, 2, 840, 113549, 1, 7, 6];
const KEY_BAG: &[u64] = &[1, 2, 840, 113549, 1, 12, 10, 1, 1];
const LOCKED_KEY_BAG: &[u64] = &[1, 2, 840, 113549, 1, 12, 10, 1, 2];
const CERTIFICATE_BAG: &[u64] = &[1, 2, 840, 113549, 1, 12, 10, 1, 3];
const X509: &[u64] = &[1, 2, 840, 113549, 1, 9, 22, 1];

/// The content of a PKCS#12 file.
pub(crate) struct Bundle {
    /// In the order of the file; at least one.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// Why a PKCS#12 file cannot be used. Says nothing of what it holds.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Error {
    #[error("the PKCS#12 file is damaged or cut short; copy it again")]
    Damaged,

    #[error("the PKCS#12 file has a password; name it under `password`")]
    MissingPassword,

    #[error("there is no certificate in the PKCS#12 file; export it again with the certificate of its key")]
    NoCertificate,

    #[error("there is no private key in the PKCS#12 file; export it again with the key")]
    NoKey,

    #[error(
        "this is neither PKCS#12 nor base64 of it; name a .p12 or .pfx file, and PEM under `cert` and `key`"
    )]
    NotPkcs12,

    #[error(transparent)]
    Other(pem::Error),

    #[error(
        "`password` is right for the MAC of the PKCS#12 file, and does not decrypt what is in it: the file was written \
         with two passwords, or by a program that derives a wrong key (gpgsm 2.2 does, in one file of sixty); export it \
         again, with one password"
    )]
    OtherPassword,

    #[error(
        "the PKCS#12 file takes longer than {} seconds to open; `{opening} -out NEW.pem` writes its key and certificates \
         to NEW.pem: name that under `cert` and `key`, and the new pass phrase under `passphrase`",
        OPENING.as_secs()
    )]
    Slow { opening: OpenCommand },

    #[error("there are {count} private keys in the PKCS#12 file; export only the one of the certificate")]
    SeveralKeys { count: usize },

    #[error(
        "the PKCS#12 file is protected by {what}, which is not understood; `{opening} -out NEW.pem` writes its key and \
         certificates to NEW.pem: name that under `cert` and `key`, and the new pass phrase under `passphrase`"
    )]
    Unsupported { what: String, opening: OpenCommand },

    #[error("wrong password for the PKCS#12 file; correct `password`")]
    WrongPassword,
}

/// Opens `file`. Without a password it must have none, or an empty one.
pub(crate) fn open(file: &Secret, password: Option<&Secret>) -> Result<Bundle, Error> {
    let opening = OpenCommand::of(file);
    let (file, password) = (file.copy(), password.map(Secret::copy));
    let what = guard::name(file.expose());
    let work = move || opened(&file, password.as_ref());
    guard::within(OPENING, what, work).unwrap_or_else(|why| match why {
        Interrupted::Panicked => Err(Error::Damaged),
        Interrupted::TooLong => Err(Error::Slow { opening }),
    })
}

/// Opens it on this thread, without a limit.
pub(super) fn opened(file: &Secret, password: Option<&Secret>) -> Result<Bundle, Error> {
    let items = contents::read(file.expose());
    let der = match items.iter().find(|item| item.kind == ContentKind::Store) {
        Some(store) => store.der.as_ref().ok_or(Error::Damaged)?,
        None if items.iter().any(|item| item.is_damaged_der()) => return Err(Error::Damaged),
        None => return Err(pem::refused(&items, file).map_or(Error::NotPkcs12, Error::Other)),
    };
    let pfx = ber::parse(der, Pfx::read).map_err(|_| Error::Damaged)?;
    let open = |password: &Password| {
        (pfx.open(password)).map_err(|error| match error {
            Error::Unsupported { what, .. } => Error::Unsupported {
                what,
                opening: OpenCommand::of(file),
            },
            other => other,
        })
    };
    if let Some(password) = password {
        return open(&Password::new(password.expose()));
    }
    for none in [Password::new(b""), Password::none()] {
        match open(&none) {
            Err(Error::OtherPassword | Error::WrongPassword) => {}
            result => return result,
        }
    }
    Err(Error::MissingPassword)
}

/// The outermost structure.
struct Pfx {
    /// The serialized list of safes, which the MAC is about.
    content: Vec<u8>,
    proof: Option<Proof>,
}

/// The `MacData`.
struct Proof {
    mac: Mac,
    expected: Vec<u8>,
    salt: Vec<u8>,
    iterations: u32,
}

/// One `ContentInfo` of the list.
enum Safe {
    Locked(EncryptionScheme, Vec<u8>),
    Other,
    Plain(Zeroizing<Vec<u8>>),
}

/// What a safe holds.
enum Bag {
    Certificate(Vec<u8>),
    Key(Zeroizing<Vec<u8>>),
    LockedKey(EncryptionScheme, Vec<u8>),
    Other,
}

impl Pfx {
    fn read(reader: BERReader<'_, '_>) -> ASN1Result<Self> {
        reader.read_sequence(|parts| {
            parts.next().read_u8()?;
            let content = parts.next().read_sequence(|parts| {
                parts.next().read_oid()?;
                explicit(parts, |reader| reader.read_bytes())
            })?;
            let proof = parts.read_optional(Proof::read)?;
            Ok(Self { content, proof })
        })
    }

    fn open(&self, password: &Password) -> Result<Bundle, Error> {
        if let Some(proof) = &self.proof {
            let of = (&self.content, &proof.expected);
            proof
                .mac
                .verify(of.0, of.1, &proof.salt, proof.iterations, password)?;
        }
        self.contents(password).map_err(|error| match error {
            Error::WrongPassword if self.proof.is_some() => Error::OtherPassword,
            other => other,
        })
    }

    fn contents(&self, password: &Password) -> Result<Bundle, Error> {
        let (mut certificates, mut keys) = (Vec::new(), Vec::new());
        for safe in listed(&self.content, Safe::read)? {
            let content = match safe {
                Safe::Locked(algorithm, locked) => algorithm.unlock(&locked, password)?,
                Safe::Plain(content) => content,
                Safe::Other => continue,
            };
            // What was locked and is now no list was unlocked with another password.
            let bags = listed(&content, Bag::read).map_err(|_| Error::WrongPassword)?;
            for bag in bags {
                match bag {
                    Bag::Certificate(der) => certificates.push(CertificateDer::from(der)),
                    Bag::Key(key) => keys.push(key),
                    Bag::LockedKey(algorithm, locked) => keys.push(algorithm.unlock(&locked, password)?),
                    Bag::Other => {}
                }
            }
        }
        let key = match (keys.pop(), keys.len()) {
            (Some(key), 0) => key,
            (Some(_), others) => return Err(Error::SeveralKeys { count: others + 1 }),
            (None, _) => return Err(Error::NoKey),
        };
        if !pkcs8::is_private_key_info(&key) {
            return Err(Error::Damaged);
        }
        if certificates.is_empty() {
            return Err(Error::NoCertificate);
        }
        Ok(Bundle {
            certificates,
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec())),
        })
    }
}

impl Proof {
    fn read(reader: BERReader<'_, '_>) -> ASN1Result<Self> {
        reader.read_sequence(|parts| {
            let (mac, expected) = parts
                .next()
                .read_sequence(|parts| Ok((Mac::read(parts.next())?, parts.next().read_bytes()?)))?;
            Ok(Self {
                mac,
                expected,
                salt: parts.next().read_bytes()?,
                iterations: parts.read_default(1, |reader| reader.read_u32())?,
            })
        })
    }
}

impl Safe {
    fn read(reader: BERReader<'_, '_>) -> ASN1Result<Self> {
        reader.read_sequence(|parts| {
            let oid = parts.next().read_oid()?;
            match oid.components().as_slice() {
                DATA => explicit(parts, |reader| reader.read_bytes())
                    .map(Zeroizing::new)
                    .map(Self::Plain),
                ENCRYPTED_DATA => explicit(parts, |reader| {
                    reader.read_sequence(|parts| {
                        parts.next().read_u8()?;
                        let locked = parts.next().read_sequence(|parts| {
                            parts.next().read_oid()?;
                            let algorithm = EncryptionScheme::read(parts.next())?;
                            let content = |reader: BERReader<'_, '_>| reader.read_bytes();
                            let locked = parts.next().read_tagged_implicit(Tag::context(0), content)?;
                            Ok(Self::Locked(algorithm, locked))
                        })?;
                        rest(parts)?;
                        Ok(locked)
                    })
                }),
                _ => rest(parts).map(|()| Self::Other),
            }
        })
    }
}

impl Bag {
    fn read(reader: BERReader<'_, '_>) -> ASN1Result<Self> {
        reader.read_sequence(|parts| {
            let oid = parts.next().read_oid()?;
            let bag = match oid.components().as_slice() {
                KEY_BAG => Self::Key(Zeroizing::new(explicit(parts, |reader| reader.read_der())?)),
                LOCKED_KEY_BAG => explicit(parts, |reader| {
                    reader.read_sequence(|parts| {
                        let algorithm = EncryptionScheme::read(parts.next())?;
                        Ok(Self::LockedKey(algorithm, parts.next().read_bytes()?))
                    })
                })?,
                CERTIFICATE_BAG => explicit(parts, |reader| {
                    reader.read_sequence(|parts| {
                        let kind = parts.next().read_oid()?;
                        match kind.components().as_slice() {
                            X509 => explicit(parts, |reader| reader.read_bytes()).map(Self::Certificate),
                            _ => rest(parts).map(|()| Self::Other),
                        }
                    })
                })?,
                _ => Self::Other,
            };
            // The attributes: names for people, and which key is whose; we find that out by the key itself.
            rest(parts)?;
            Ok(bag)
        })
    }
}

/// The items of a `SEQUENCE OF`.
fn listed<T>(der: &[u8], read: impl Fn(BERReader<'_, '_>) -> ASN1Result<T>) -> Result<Vec<T>, Error> {
    ber::parse(der, |reader| reader.collect_sequence_of(read)).map_err(|_| Error::Damaged)
}

/// The next part, which stands under an explicit `[0]`.
fn explicit<T>(
    parts: &mut BERReaderSeq<'_, '_>,
    read: impl FnOnce(BERReader<'_, '_>) -> ASN1Result<T>,
) -> ASN1Result<T> {
    parts.next().read_tagged(Tag::context(0), read)
}

/// Reads over what is left.
fn rest(parts: &mut BERReaderSeq<'_, '_>) -> ASN1Result<()> {
    while parts.read_optional(|reader| reader.read_der())?.is_some() {}
    Ok(())
}

impl From<pbe::Error> for Error {
    fn from(error: pbe::Error) -> Self {
        match error {
            pbe::Error::Damaged => Self::Damaged,
            pbe::Error::Unsupported(what) => Self::Unsupported {
                what,
                opening: OpenCommand::default(),
            },
            pbe::Error::Wrong => Self::WrongPassword,
        }
    }
}

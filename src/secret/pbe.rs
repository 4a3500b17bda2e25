//! Encryption with a password: PBES2 of PKCS#5 (RFC 8018), and the older schemes of PKCS#12 (RFC 7292).
//!
//! It only decrypts, so it understands schemes that are weak today: agencies send .p12 files that OpenSSL 1.1, Java
//! 8 or Windows wrote, with RC2 of 40 bits and 3DES. AES, most hashes and PBKDF2 are aws-lc-rs's; the rest are
//! crates of RustCrypto.
//!
//! The files are read in [`super::pkcs8`] and [`super::pkcs12`].

use std::cell::Cell;
use std::num::NonZeroU32;

use aws_lc_rs::cipher::{self, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::digest;
use aws_lc_rs::iv::FixedLength;
use cbc::Decryptor;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use yasna::models::ObjectIdentifier;
use yasna::{ASN1Result, BERReader, BERReaderSeq};
use zeroize::Zeroizing;

use super::hash::{Hash, SHA1};

const PBES2: &[u64] = &[1, 2, 840, 113549, 1, 5, 13];
const PBKDF2: &[u64] = &[1, 2, 840, 113549, 1, 5, 12];
const PBMAC1: &[u64] = &[1, 2, 840, 113549, 1, 5, 14];
const SCRYPT: &[u64] = &[1, 3, 6, 1, 4, 1, 11591, 4, 11];

/// What a derived value is for (RFC 7292, appendix B.3).
const PURPOSE_KEY: u8 = 1;
const PURPOSE_VECTOR: u8 = 2;
const PURPOSE_MAC: u8 = 3;

/// About three seconds of a slow core; OpenSSL writes 2048, careful people a million.
const MOST_ITERATIONS: u32 = 5_000_000;

/// In one file: its proof, its certificates and its key are each derived for by themselves, some of them twice. A fuzzer
/// gets less, so that no input takes it seconds.
const MOST_IN_ALL: u32 = if cfg!(fuzzing) { 20_000 } else { 20_000_000 };

/// For scrypt, in bytes: four times what OpenSSL takes.
const MOST_MEMORY: u64 = 64 * 1024 * 1024;

/// Why something stays locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// The algorithm cannot be what it says: a length is wrong, or the work it asks for is absurd.
    Damaged,
    /// Its name, or its number.
    Unsupported(String),
    /// The password is wrong, or the bytes are damaged: the two cannot be distinguished.
    Wrong,
}

/// A password in the two forms that the schemes want.
pub(super) struct Password {
    bytes: Zeroizing<Vec<u8>>,
    /// Iterations that may still be spent on it: a file may hold thousands of locked things.
    left: Cell<u32>,
    /// UTF-16, big endian, with a zero at the end.
    wide: Zeroizing<Vec<u8>>,
}

/// How something is locked, as an `AlgorithmIdentifier` says.
pub(super) enum EncryptionScheme {
    Pkcs12 {
        cipher: Cipher,
        salt: Vec<u8>,
        iterations: u32,
    },
    Pkcs5 {
        derivation: Derivation,
        cipher: Cipher,
        vector: Vec<u8>,
    },
    Unsupported(String),
}

/// How a PKCS#12 file proves that it is whole, and that the password is right.
pub(super) enum Mac {
    Pkcs12(&'static Hash),
    /// PBMAC1 (RFC 9579).
    Pkcs5 {
        derivation: Derivation,
        length: usize,
        hash: &'static Hash,
    },
    Unsupported(String),
}

/// PBKDF2, or scrypt (RFC 7914).
pub(super) struct Derivation {
    function: Function,
    length: Option<usize>,
    salt: Vec<u8>,
}

enum Function {
    Pbkdf2 { hash: &'static Hash, iterations: u32 },
    Scrypt(scrypt::Params),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cipher {
    Aes128,
    Aes192,
    Aes256,
    Camellia128,
    Camellia192,
    Camellia256,
    /// With keys of 5 or 16 bytes, all of their bits in effect.
    Rc2 {
        length: usize,
    },
    TripleDes,
    /// With two keys, the first of which is also the third.
    TripleDesOfTwo,
}

impl Password {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut wide = Zeroizing::new(Vec::with_capacity(4 * bytes.len() + 2));
        match std::str::from_utf8(bytes) {
            Ok(text) => text
                .encode_utf16()
                .for_each(|unit| wide.extend(unit.to_be_bytes())),
            // Not UTF-8, so from before it: each byte is a character of Latin-1.
            Err(_) => bytes.iter().for_each(|byte| wide.extend([0, *byte])),
        }
        wide.extend([0, 0]);
        Self {
            bytes: Zeroizing::new(bytes.to_vec()),
            left: Cell::new(MOST_IN_ALL),
            wide,
        }
    }

    /// The absence of a password as other programs write it: as an empty one, or as no bytes.
    pub(super) fn none() -> Self {
        Self {
            bytes: Zeroizing::default(),
            left: Cell::new(MOST_IN_ALL),
            wide: Zeroizing::default(),
        }
    }

    /// A count of iterations that is no mistake, and for which there is work left.
    pub(super) fn spend(&self, iterations: u32) -> Result<NonZeroU32, Error> {
        let count = NonZeroU32::new(iterations).ok_or(Error::Damaged)?;
        let left = self.left.get().checked_sub(iterations);
        match left.filter(|_| iterations <= MOST_ITERATIONS) {
            Some(left) => {
                self.left.set(left);
                Ok(count)
            }
            None => Err(Error::Unsupported(format!("{iterations} iterations"))),
        }
    }
}

impl EncryptionScheme {
    pub(super) fn read(reader: BERReader<'_, '_>) -> ASN1Result<Self> {
        reader.read_sequence(|parts| {
            let oid = parts.next().read_oid()?;
            match oid.components().as_slice() {
                PBES2 => parts.next().read_sequence(|parts| {
                    let derivation = Derivation::read(parts.next())?;
                    let cipher = Cipher::read(parts.next())?;
                    Ok(match (derivation, cipher) {
                        (Ok(derivation), Ok((cipher, vector))) => Self::Pkcs5 {
                            derivation,
                            cipher,
                            vector,
                        },
                        (Err(what), _) | (_, Err(what)) => Self::Unsupported(what),
                    })
                }),
                other => match Cipher::of_pkcs12(other) {
                    Some(cipher) => parts.next().read_sequence(|parts| {
                        Ok(Self::Pkcs12 {
                            cipher,
                            salt: parts.next().read_bytes()?,
                            iterations: parts.next().read_u32()?,
                        })
                    }),
                    None => skip(parts).map(|()| Self::Unsupported(name(&oid))),
                },
            }
        })
    }

    /// Decrypts, and takes the padding off.
    pub(super) fn unlock(&self, locked: &[u8], password: &Password) -> Result<Zeroizing<Vec<u8>>, Error> {
        match self {
            Self::Unsupported(what) => Err(Error::Unsupported(what.clone())),
            Self::Pkcs12 {
                cipher,
                salt,
                iterations,
            } => {
                let hash = &SHA1;
                let key = pkcs12_key(
                    hash,
                    password,
                    salt,
                    *iterations,
                    PURPOSE_KEY,
                    cipher.key_length(),
                )?;
                let vector = pkcs12_key(hash, password, salt, *iterations, PURPOSE_VECTOR, 8)?;
                cipher.decrypt(&key, &vector, locked)
            }
            Self::Pkcs5 {
                derivation,
                cipher,
                vector,
            } => {
                if (derivation.length).is_some_and(|length| length != cipher.key_length()) {
                    return Err(Error::Damaged);
                }
                let key = derivation.derive(password, cipher.key_length())?;
                cipher.decrypt(&key, vector, locked)
            }
        }
    }
}

impl Mac {
    pub(super) fn read(reader: BERReader<'_, '_>) -> ASN1Result<Self> {
        reader.read_sequence(|parts| {
            let oid = parts.next().read_oid()?;
            if oid.components().as_slice() != PBMAC1 {
                skip(parts)?;
                return Ok(Hash::of(&oid).map_or_else(|| Self::Unsupported(name(&oid)), Self::Pkcs12));
            }
            parts.next().read_sequence(|parts| {
                let derivation = Derivation::read(parts.next())?;
                let hash = Hash::read(parts.next())?;
                Ok(match (derivation, hash) {
                    (Ok(derivation), Ok(hash)) => Self::Pkcs5 {
                        // RFC 9579, section 5: the length must be there.
                        length: derivation.length.unwrap_or(0),
                        derivation,
                        hash,
                    },
                    (Err(what), _) | (_, Err(what)) => Self::Unsupported(what),
                })
            })
        })
    }

    /// Checks the MAC. `salt` and `iterations` are those beside the algorithm; PBMAC1 has them in its parameters.
    pub(super) fn verify(
        &self,
        content: &[u8],
        expected: &[u8],
        salt: &[u8],
        iterations: u32,
        password: &Password,
    ) -> Result<(), Error> {
        let (hash, key) = match self {
            Self::Unsupported(what) => return Err(Error::Unsupported(what.clone())),
            Self::Pkcs12(hash) => {
                let length = hash.digest.output_len();
                let key = pkcs12_key(hash, password, salt, iterations, PURPOSE_MAC, length)?;
                (hash, key)
            }
            Self::Pkcs5 {
                derivation,
                length,
                hash,
            } => match length {
                // RFC 9579, section 8: shorter than 20 octets is to be refused.
                20..=64 => (hash, derivation.derive(password, *length)?),
                _ => return Err(Error::Damaged),
            },
        };
        if hash.is_mac(&key, content, expected) {
            Ok(())
        } else {
            Err(Error::Wrong)
        }
    }
}

impl Derivation {
    /// The inner error is the name of what is not supported.
    fn read(reader: BERReader<'_, '_>) -> ASN1Result<Result<Self, String>> {
        reader.read_sequence(|parts| {
            let oid = parts.next().read_oid()?;
            match oid.components().as_slice() {
                PBKDF2 => parts.next().read_sequence(|parts| {
                    let salt = parts.next().read_bytes()?;
                    let iterations = parts.next().read_u32()?;
                    let length = parts.read_optional(|reader| reader.read_u32())?;
                    let hash = parts.read_optional(Hash::read)?.unwrap_or(Ok(&SHA1));
                    let function = hash.map(|hash| Function::Pbkdf2 { hash, iterations });
                    Ok(function.map(|function| Self::new(function, length, salt)))
                }),
                SCRYPT => parts.next().read_sequence(|parts| {
                    let salt = parts.next().read_bytes()?;
                    let (cost, block) = (parts.next().read_u64()?, parts.next().read_u32()?);
                    let parallel = parts.next().read_u32()?;
                    let length = parts.read_optional(|reader| reader.read_u32())?;
                    let function = Function::scrypt(cost, block, parallel);
                    Ok(function.map(|function| Self::new(function, length, salt)))
                }),
                _ => skip(parts).map(|()| Err(name(&oid))),
            }
        })
    }

    fn new(function: Function, length: Option<u32>, salt: Vec<u8>) -> Self {
        Self {
            function,
            length: length.map(|length| usize::try_from(length).unwrap_or(usize::MAX)),
            salt,
        }
    }

    fn derive(&self, password: &Password, length: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut key = Zeroizing::new(vec![0; length]);
        match &self.function {
            Function::Pbkdf2 { hash, iterations } => {
                let iterations = password.spend(*iterations)?;
                hash.pbkdf2(&password.bytes, &self.salt, iterations, &mut key);
            }
            Function::Scrypt(params) => {
                // One step takes as long as an iteration of PBKDF2.
                let steps = params
                    .n()
                    .saturating_mul(params.r().into())
                    .saturating_mul(params.p().into());
                let spent = password.spend(u32::try_from(steps).unwrap_or(u32::MAX));
                spent.map_err(|_| Error::Unsupported(too_much(params.n(), params.r(), params.p())))?;
                scrypt::scrypt(&password.bytes, &self.salt, params, &mut key).map_err(|_| Error::Damaged)?;
            }
        }
        Ok(key)
    }
}

fn too_much(cost: u64, block: u32, parallel: u32) -> String {
    format!("scrypt (N={cost}, r={block}, p={parallel}) of more work or memory than is spent here")
}

impl Function {
    /// The error says what is too much.
    fn scrypt(cost: u64, block: u32, parallel: u32) -> Result<Self, String> {
        // Both the table and what is worked on in parallel lie in memory.
        let blocks = cost
            .checked_add(parallel.into())
            .and_then(|blocks| blocks.checked_mul(block.into()));
        let fits = blocks.is_some_and(|blocks| blocks <= MOST_MEMORY / 128);
        if !fits || !cost.is_power_of_two() {
            return Err(too_much(cost, block, parallel));
        }
        // Only now: with numbers that are larger this overflows.
        let params = scrypt::Params::new(cost.trailing_zeros().to_le_bytes()[0], block, parallel);
        params
            .map(Self::Scrypt)
            .map_err(|_| too_much(cost, block, parallel))
    }
}

impl Cipher {
    /// With its initialization vector.
    fn read(reader: BERReader<'_, '_>) -> ASN1Result<Result<(Self, Vec<u8>), String>> {
        reader.read_sequence(|parts| {
            let oid = parts.next().read_oid()?;
            let cipher = match oid.components().as_slice() {
                [2, 16, 840, 1, 101, 3, 4, 1, 2] => Self::Aes128,
                [2, 16, 840, 1, 101, 3, 4, 1, 22] => Self::Aes192,
                [2, 16, 840, 1, 101, 3, 4, 1, 42] => Self::Aes256,
                [1, 2, 392, 200011, 61, 1, 1, 1, 2] => Self::Camellia128,
                [1, 2, 392, 200011, 61, 1, 1, 1, 3] => Self::Camellia192,
                [1, 2, 392, 200011, 61, 1, 1, 1, 4] => Self::Camellia256,
                [1, 2, 840, 113549, 3, 7] => Self::TripleDes,
                _ => return skip(parts).map(|()| Err(name(&oid))),
            };
            Ok(Ok((cipher, parts.next().read_bytes()?)))
        })
    }

    fn of_pkcs12(oid: &[u64]) -> Option<Self> {
        match oid {
            [1, 2, 840, 113549, 1, 12, 1, 3] => Some(Self::TripleDes),
            [1, 2, 840, 113549, 1, 12, 1, 4] => Some(Self::TripleDesOfTwo),
            [1, 2, 840, 113549, 1, 12, 1, 5] => Some(Self::Rc2 { length: 16 }),
            [1, 2, 840, 113549, 1, 12, 1, 6] => Some(Self::Rc2 { length: 5 }),
            _ => None,
        }
    }

    pub(super) fn key_length(self) -> usize {
        match self {
            Self::Aes128 | Self::Camellia128 | Self::TripleDesOfTwo => 16,
            Self::Aes192 | Self::Camellia192 | Self::TripleDes => 24,
            Self::Aes256 | Self::Camellia256 => 32,
            Self::Rc2 { length } => length,
        }
    }

    pub(super) fn decrypt(
        self,
        key: &[u8],
        vector: &[u8],
        locked: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut bytes = Zeroizing::new(locked.to_vec());
        let aes = |algorithm, bytes: &mut [u8]| {
            let vector = FixedLength::try_from(vector).map_err(|_| Error::Damaged)?;
            let key = UnboundCipherKey::new(algorithm, key).map_err(|_| Error::Damaged)?;
            let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_| Error::Damaged)?;
            let plain = key.decrypt(bytes, DecryptionContext::Iv128(vector));
            plain.map(|plain| plain.len()).map_err(|_| Error::Wrong)
        };
        let length = match self {
            Self::Aes128 => aes(&cipher::AES_128, &mut bytes),
            Self::Aes192 => aes(&cipher::AES_192, &mut bytes),
            Self::Aes256 => aes(&cipher::AES_256, &mut bytes),
            Self::Camellia128 => old(
                Decryptor::<camellia::Camellia128>::new_from_slices(key, vector),
                &mut bytes,
            ),
            Self::Camellia192 => old(
                Decryptor::<camellia::Camellia192>::new_from_slices(key, vector),
                &mut bytes,
            ),
            Self::Camellia256 => old(
                Decryptor::<camellia::Camellia256>::new_from_slices(key, vector),
                &mut bytes,
            ),
            Self::Rc2 { .. } => old(Decryptor::<rc2::Rc2>::new_from_slices(key, vector), &mut bytes),
            Self::TripleDes => old(
                Decryptor::<des::TdesEde3>::new_from_slices(key, vector),
                &mut bytes,
            ),
            Self::TripleDesOfTwo => old(
                Decryptor::<des::TdesEde2>::new_from_slices(key, vector),
                &mut bytes,
            ),
        }?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// Decrypts in place; the length of what is left without padding.
fn old<D, E>(decryptor: Result<D, E>, bytes: &mut [u8]) -> Result<usize, Error>
where
    D: BlockModeDecrypt,
{
    let decryptor = decryptor.map_err(|_| Error::Damaged)?;
    let plain = decryptor.decrypt_padded::<Pkcs7>(bytes);
    plain.map(<[u8]>::len).map_err(|_| Error::Wrong)
}

/// The key derivation of PKCS#12 (RFC 7292, appendix B.2).
fn pkcs12_key(
    hash: &Hash,
    password: &Password,
    salt: &[u8],
    iterations: u32,
    purpose: u8,
    length: usize,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let block = hash.digest.block_len();
    let filled = |bytes: &[u8]| -> Zeroizing<Vec<u8>> {
        let length = bytes.len().div_ceil(block) * block;
        Zeroizing::new(bytes.iter().copied().cycle().take(length).collect())
    };
    let mut state = Zeroizing::new([filled(salt).as_slice(), &filled(&password.wide)].concat());
    let mut key = Zeroizing::new(Vec::with_capacity(length + block));
    while key.len() < length {
        let iterations = password.spend(iterations)?.get();
        let mut context = digest::Context::new(hash.digest);
        context.update(&vec![purpose; block]);
        context.update(&state);
        let mut part = context.finish();
        for _ in 1..iterations {
            part = digest::digest(hash.digest, part.as_ref());
        }
        key.extend_from_slice(part.as_ref());

        // Each block of the state grows by what came out, repeated to the length of a block, and by one.
        for block in state.chunks_mut(block) {
            let mut carry = 1;
            for (i, byte) in block.iter_mut().enumerate().rev() {
                let sum = u16::from(*byte) + u16::from(part.as_ref()[i % part.as_ref().len()]) + carry;
                *byte = sum.to_le_bytes()[0];
                carry = sum >> 8;
            }
        }
    }
    key.truncate(length);
    Ok(key)
}

/// Reads over whatever is left of an algorithm's parameters.
pub(super) fn skip(parts: &mut BERReaderSeq<'_, '_>) -> ASN1Result<()> {
    parts.read_optional(|reader| reader.read_der()).map(drop)
}

/// What people know an algorithm by.
pub(super) fn name(oid: &ObjectIdentifier) -> String {
    let name = match oid.components().as_slice() {
        [1, 2, 840, 113549, 1, 5, 1] => "PBE-MD2-DES",
        [1, 2, 840, 113549, 1, 5, 3] => "PBE-MD5-DES",
        [1, 2, 840, 113549, 1, 5, 6] => "PBE-MD5-RC2-64",
        [1, 2, 840, 113549, 1, 5, 10] => "PBE-SHA1-DES",
        [1, 2, 840, 113549, 1, 5, 11] => "PBE-SHA1-RC2-64",
        [1, 2, 840, 113549, 1, 12, 1, 1] => "PBE-SHA1-RC4-128",
        [1, 2, 840, 113549, 1, 12, 1, 2] => "PBE-SHA1-RC4-40",
        [1, 2, 840, 113549, 2, 5] => "MD5",
        [1, 2, 840, 113549, 2, 6] => "HMAC with MD5",
        [1, 2, 840, 113549, 2, 12] => "HMAC with SHA-512/224",
        [1, 2, 840, 113549, 3, 2] => "RC2",
        [1, 3, 14, 3, 2, 7] => "DES",
        [2, 16, 840, 1, 101, 3, 4, 2, 5] => "SHA-512/224",
        _ => return format!("the algorithm {oid}"),
    };
    name.to_owned()
}

/// A name that a file gives, as far as a message may show it.
pub(super) fn plain(name: &str) -> String {
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    name.chars().filter(is_plain).take(40).collect()
}

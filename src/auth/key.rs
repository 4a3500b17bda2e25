//! Signing keys: private keys and shared secrets, read once and held by the crypto library.
//!
//! [`SigningKey::load`] reads a private key in PEM (PKCS#8, PKCS#1 or SEC1) and checks that the algorithm can use
//! it. [`SigningKey::sign`] returns a signature in the form that HTTP and JOSE share: ECDSA as r and s of fixed
//! length (RFC 7518, section 3.4), RSA-PSS with a salt as long as the hash.
//!
//! The signers decide what is signed and how a signature is written into a request.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P256K1_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding, RsaKeyPair,
};
use rustls::pki_types::PrivateKeyDer;
use x509_parser::der_parser::asn1_rs::{Any, FromDer, Integer, OctetString, Oid, Sequence};
use x509_parser::der_parser::oid;
use zeroize::Zeroizing;

use crate::config::{Algorithm, SecretRef};
use crate::secret::kind::KeyKind;
use crate::secret::{self, Snapshot, pem};

#[cfg(test)]
pub(super) mod tests;

const RSA_MADE: &str = "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out NEW.pem";
const ED25519: &str = "an Ed25519 key";
const P256: &str = "an elliptic-curve key on P-256";
const P384: &str = "an elliptic-curve key on P-384";
const P521: &str = "an elliptic-curve key on P-521";
const RSA: &str = "an RSA key";

/// RFC 8017, appendix C.
const ID_RSASSA_PSS: Oid<'static> = oid!(1.2.840.113549.1.1.10);

/// A key and the only algorithm that it is used with.
pub(crate) struct SigningKey {
    algorithm: Algorithm,
    pair: KeyMaterial,
}

/// Why a key cannot be read, or cannot sign. Never shows a key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "{reference}: the private key is damaged, or of a kind that is not known; export it again as PKCS#8"
    )]
    Damaged { reference: SecretRef },

    #[error("the crypto library does not sign with this key")]
    Failed,

    #[error(
        "{reference}: {algorithm} needs {wanted}, and this is {found}; name another key, or the algorithm that fits it"
    )]
    Misfit {
        reference: SecretRef,
        algorithm: Algorithm,
        wanted: &'static str,
        found: &'static str,
    },

    #[error(
        "{reference}: this is {found}, with which nothing can be signed here; {algorithm} needs {wanted}: `{}` makes one",
        make(*algorithm)
    )]
    Unusable {
        reference: SecretRef,
        algorithm: Algorithm,
        wanted: &'static str,
        found: KeyKind,
    },

    // Not `#[source]`: logs show the whole chain and would repeat it.
    #[error("{reference}: {why}")]
    Pem { reference: SecretRef, why: pem::Error },

    #[error(transparent)]
    Secret(#[from] secret::Error),

    #[error(
        "{reference}: this is {found}, and an RSA key has to have 2048 bits or more, up to 8192; `{RSA_MADE}` makes one"
    )]
    WrongSize { reference: SecretRef, found: KeyKind },
}

/// A key in the crypto library, which zeroises its copies.
enum KeyMaterial {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Hmac(Box<hmac::Key>),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
}

impl SigningKey {
    /// Reads a key. For an HMAC the bytes of the secret are the key; otherwise it is a private key in PEM.
    pub(crate) fn load(
        reference: &SecretRef,
        algorithm: Algorithm,
        snapshot: &Snapshot,
    ) -> Result<Self, Error> {
        if let Some(key) = Self::of_bytes(snapshot.read(reference)?.expose(), algorithm) {
            return Ok(key);
        }
        // Read again as bytes: a shared secret is trimmed, which could cut off the end of a key in DER.
        let secret = snapshot.read_binary(reference)?;
        let der = pem::private_key(&secret).map_err(|why| Error::Pem {
            reference: reference.clone(),
            why,
        })?;
        let der = Zeroizing::new(der);
        drop(secret);
        let reference = reference.clone();
        let pair = KeyMaterial::of(&der, algorithm).map_err(|misfit| match misfit {
            Misfit::Damaged => Error::Damaged { reference },
            Misfit::Kind(found) => Error::Misfit {
                reference,
                algorithm,
                wanted: wanted(algorithm),
                found,
            },
            Misfit::Size => Error::WrongSize {
                reference,
                found: KeyKind::of_private(&der),
            },
            Misfit::Unusable(found) => Error::Unusable {
                reference,
                algorithm,
                wanted: wanted(algorithm),
                found,
            },
        })?;
        Ok(Self { algorithm, pair })
    }

    /// Makes an HMAC key of bytes. `None`: the algorithm is not an HMAC.
    pub(crate) fn of_bytes(key: &[u8], algorithm: Algorithm) -> Option<Self> {
        let hash = match algorithm {
            Algorithm::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::HmacSha256 => hmac::HMAC_SHA256,
            Algorithm::HmacSha384 => hmac::HMAC_SHA384,
            Algorithm::HmacSha512 => hmac::HMAC_SHA512,
            Algorithm::EcdsaP256Sha256
            | Algorithm::EcdsaP384Sha384
            | Algorithm::EcdsaP521Sha512
            | Algorithm::Ed25519
            | Algorithm::RsaPkcs1Sha256
            | Algorithm::RsaPkcs1Sha384
            | Algorithm::RsaPkcs1Sha512
            | Algorithm::RsaPssSha256
            | Algorithm::RsaPssSha384
            | Algorithm::RsaPssSha512 => return None,
        };
        let pair = KeyMaterial::Hmac(Box::new(hmac::Key::new(hash, key)));
        Some(Self { algorithm, pair })
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the public key, as a certificate holds it. `None`: the key is a shared secret.
    pub(crate) fn public(&self) -> Option<&[u8]> {
        match &self.pair {
            KeyMaterial::Ecdsa(pair) => Some(pair.public_key().as_ref()),
            KeyMaterial::Ed25519(pair) => Some(pair.public_key().as_ref()),
            KeyMaterial::Hmac(_) => None,
            KeyMaterial::Rsa(pair, _) => Some(pair.public_key().as_ref()),
        }
    }

    /// Returns the signature or the authentication code of `message`.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let random = SystemRandom::new();
        match &self.pair {
            KeyMaterial::Ecdsa(pair) => pair
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec()),
            KeyMaterial::Ed25519(pair) => pair
                .try_sign(message)
                .map(|signature| signature.as_ref().to_vec()),
            KeyMaterial::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            KeyMaterial::Rsa(pair, padding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*padding, &random, message, &mut signature)
                    .map(|()| signature)
            }
        }
        .map_err(|_| Error::Failed)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Why a private key cannot be used.
enum Misfit {
    Damaged,
    /// A key of another kind, which is named.
    Kind(&'static str),
    Size,
    /// No supported algorithm signs with it.
    Unusable(KeyKind),
}

impl KeyMaterial {
    fn of(der: &PrivateKeyDer<'_>, algorithm: Algorithm) -> Result<Self, Misfit> {
        let ecdsa = |curve| match ecdsa(der, curve) {
            Some(pair) => Ok(Self::Ecdsa(pair)),
            None => Err(misfit(der)),
        };
        match algorithm {
            Algorithm::EcdsaP256Sha256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::EcdsaP384Sha384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::EcdsaP521Sha512 => ecdsa(&ECDSA_P521_SHA512_FIXED_SIGNING),
            Algorithm::Ed25519 => ed25519(der).map(Self::Ed25519).ok_or_else(|| misfit(der)),
            Algorithm::RsaPkcs1Sha256 | Algorithm::RsaPkcs1Sha384 | Algorithm::RsaPkcs1Sha512
                if pss(der).is_some() =>
            {
                Err(misfit(der))
            }
            Algorithm::RsaPkcs1Sha256 => Ok(Self::Rsa(rsa(der)?, &RSA_PKCS1_SHA256)),
            Algorithm::RsaPkcs1Sha384 => Ok(Self::Rsa(rsa(der)?, &RSA_PKCS1_SHA384)),
            Algorithm::RsaPkcs1Sha512 => Ok(Self::Rsa(rsa(der)?, &RSA_PKCS1_SHA512)),
            Algorithm::RsaPssSha256 => Ok(Self::Rsa(rsa(der)?, &RSA_PSS_SHA256)),
            Algorithm::RsaPssSha384 => Ok(Self::Rsa(rsa(der)?, &RSA_PSS_SHA384)),
            Algorithm::RsaPssSha512 => Ok(Self::Rsa(rsa(der)?, &RSA_PSS_SHA512)),
            // Not private keys: `of_bytes` handles them.
            Algorithm::HmacSha1 | Algorithm::HmacSha256 | Algorithm::HmacSha384 | Algorithm::HmacSha512 => {
                Err(misfit(der))
            }
        }
    }
}

fn ecdsa(der: &PrivateKeyDer<'_>, curve: &'static EcdsaSigningAlgorithm) -> Option<EcdsaKeyPair> {
    match der {
        PrivateKeyDer::Pkcs8(_) | PrivateKeyDer::Sec1(_) => {
            EcdsaKeyPair::from_private_key_der(curve, der.secret_der()).ok()
        }
        _ => None,
    }
}

fn ed25519(der: &PrivateKeyDer<'_>) -> Option<Ed25519KeyPair> {
    match der {
        PrivateKeyDer::Pkcs8(der) => Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).ok(),
        _ => None,
    }
}

fn rsa(der: &PrivateKeyDer<'_>) -> Result<RsaKeyPair, Misfit> {
    let pair = match der {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(pkcs8) => match pss(der) {
            Some(inner) => RsaKeyPair::from_der(inner),
            None => RsaKeyPair::from_pkcs8(pkcs8.secret_pkcs8_der()),
        },
        _ => return Err(misfit(der)),
    };
    pair.map_err(|rejected| match rejected.to_string().as_str() {
        "TooSmall" | "TooLarge" => Misfit::Size,
        _ => misfit(der),
    })
}

/// Returns the PKCS#1 key inside a PKCS#8 key that is for RSA-PSS only. The crypto library does not read the outer
/// one.
fn pss<'a>(der: &'a PrivateKeyDer<'_>) -> Option<&'a [u8]> {
    let PrivateKeyDer::Pkcs8(der) = der else {
        return None;
    };
    let (_, info) = Sequence::from_der(der.secret_pkcs8_der()).ok()?;
    let content: &'a [u8] = match info.content {
        std::borrow::Cow::Borrowed(content) => content,
        std::borrow::Cow::Owned(_) => return None,
    };
    let (rest, _version) = Integer::from_der(content).ok()?;
    let (rest, kind) = Any::from_der(rest).ok()?;
    let (_, kind) = Oid::from_der(kind.data).ok()?;
    let (_, key) = OctetString::from_der(rest).ok()?;
    match (kind == ID_RSASSA_PSS, key.into_cow()) {
        (true, std::borrow::Cow::Borrowed(key)) => Some(key),
        _ => None,
    }
}

/// Finds out what an unusable private key is.
fn misfit(der: &PrivateKeyDer<'_>) -> Misfit {
    let curves: [(&'static EcdsaSigningAlgorithm, _); 4] = [
        (&ECDSA_P256_SHA256_FIXED_SIGNING, P256),
        (&ECDSA_P384_SHA384_FIXED_SIGNING, P384),
        (&ECDSA_P521_SHA512_FIXED_SIGNING, P521),
        (
            &ECDSA_P256K1_SHA256_FIXED_SIGNING,
            "an elliptic-curve key on secp256k1",
        ),
    ];
    if let Some((_, name)) = curves.into_iter().find(|(curve, _)| ecdsa(der, curve).is_some()) {
        return Misfit::Kind(name);
    }
    if ed25519(der).is_some() {
        return Misfit::Kind(ED25519);
    }
    let rsa = match der {
        PrivateKeyDer::Pkcs8(_) if pss(der).is_some() => {
            return Misfit::Kind("an RSA key that is for RSA-PSS alone");
        }
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        _ => RsaKeyPair::from_pkcs8(der.secret_der()),
    };
    match rsa {
        Ok(_) => Misfit::Kind(RSA),
        Err(_) => match KeyKind::of_private(der) {
            kind if kind == KeyKind::Unknown || kind.signs_handshakes() => Misfit::Damaged,
            kind => Misfit::Unusable(kind),
        },
    }
}

fn wanted(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::EcdsaP256Sha256 => P256,
        Algorithm::EcdsaP384Sha384 => P384,
        Algorithm::EcdsaP521Sha512 => P521,
        Algorithm::Ed25519 => ED25519,
        Algorithm::HmacSha1 | Algorithm::HmacSha256 | Algorithm::HmacSha384 | Algorithm::HmacSha512 => {
            "a shared secret"
        }
        Algorithm::RsaPkcs1Sha256
        | Algorithm::RsaPkcs1Sha384
        | Algorithm::RsaPkcs1Sha512
        | Algorithm::RsaPssSha256
        | Algorithm::RsaPssSha384
        | Algorithm::RsaPssSha512 => RSA,
    }
}

/// Returns the command that makes a key for the algorithm.
fn make(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::EcdsaP256Sha256 => {
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out NEW.pem"
        }
        Algorithm::EcdsaP384Sha384 => {
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out NEW.pem"
        }
        Algorithm::EcdsaP521Sha512 => {
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out NEW.pem"
        }
        Algorithm::Ed25519 => "openssl genpkey -algorithm ED25519 -out NEW.pem",
        Algorithm::HmacSha1 | Algorithm::HmacSha256 | Algorithm::HmacSha384 | Algorithm::HmacSha512 => {
            "openssl rand -hex -out NEW.txt 32"
        }
        Algorithm::RsaPkcs1Sha256
        | Algorithm::RsaPkcs1Sha384
        | Algorithm::RsaPkcs1Sha512
        | Algorithm::RsaPssSha256
        | Algorithm::RsaPssSha384
        | Algorithm::RsaPssSha512 => RSA_MADE,
    }
}

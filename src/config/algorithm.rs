//! Algorithms of signatures, and their names in each family of standards.

use std::fmt;

/// A signature or message authentication algorithm, with its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Algorithm {
    EcdsaP256Sha256,
    EcdsaP384Sha384,
    EcdsaP521Sha512,
    Ed25519,
    /// Only where an old service knows nothing better.
    HmacSha1,
    HmacSha256,
    HmacSha384,
    HmacSha512,
    RsaPkcs1Sha256,
    RsaPkcs1Sha384,
    RsaPkcs1Sha512,
    RsaPssSha256,
    RsaPssSha384,
    RsaPssSha512,
}

/// The name in RFC 9421 if there is one, with the name in RFC 7518 beside it.
impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256 (ES256)",
            Self::EcdsaP384Sha384 => "ecdsa-p384-sha384 (ES384)",
            Self::EcdsaP521Sha512 => "ECDSA on P-521 with SHA-512 (ES512)",
            Self::Ed25519 => "ed25519 (EdDSA)",
            Self::HmacSha1 => "HMAC with SHA-1",
            Self::HmacSha256 => "hmac-sha256 (HS256)",
            Self::HmacSha384 => "HMAC with SHA-384 (HS384)",
            Self::HmacSha512 => "HMAC with SHA-512 (HS512)",
            Self::RsaPkcs1Sha256 => "rsa-v1_5-sha256 (RS256)",
            Self::RsaPkcs1Sha384 => "RSA with SHA-384 (RS384)",
            Self::RsaPkcs1Sha512 => "RSA with SHA-512 (RS512)",
            Self::RsaPssSha256 => "RSA-PSS with SHA-256 (PS256)",
            Self::RsaPssSha384 => "RSA-PSS with SHA-384 (PS384)",
            Self::RsaPssSha512 => "rsa-pss-sha512 (PS512)",
        })
    }
}

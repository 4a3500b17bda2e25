//! The kinds of keys: for messages, and to see whether a handshake can be signed with one.

use std::fmt;

use rustls::pki_types::PrivateKeyDer;
use x509_parser::der_parser::asn1_rs::Oid;
use x509_parser::der_parser::oid;

use super::ber;

const ED25519: &str = "an Ed25519 key";

/// The kind of a private or public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// An elliptic curve, by its name.
    Curve(&'static str),
    /// The whole name.
    Other(&'static str),
    Rsa {
        bits: usize,
    },
    Unknown,
    /// An elliptic curve whose parameters are written out, instead of its name.
    UnnamedCurve,
}

impl KeyKind {
    pub(crate) fn of_private(key: &PrivateKeyDer<'_>) -> Self {
        let kind = match key {
            PrivateKeyDer::Pkcs1(key) => rsa(key.secret_pkcs1_der(), 1),
            PrivateKeyDer::Pkcs8(key) => ber::parts(key.secret_pkcs8_der())
                .and_then(|parts| of_algorithm(parts.get(1)?, parts.get(2)?)),
            PrivateKeyDer::Sec1(key) => ber::parts(key.secret_sec1_der()).and_then(|parts| {
                let parameters = parts.iter().find(|part| part.first() == Some(&0xa0))?;
                Some(curve(ber::content(parameters)?))
            }),
            _ => None,
        };
        kind.unwrap_or(Self::Unknown)
    }

    /// Of a `SubjectPublicKeyInfo` in DER.
    pub(crate) fn of_public(key: &[u8]) -> Self {
        let kind = ber::parts(key).and_then(|parts| of_algorithm(parts.first()?, parts.get(1)?));
        kind.unwrap_or(Self::Unknown)
    }

    /// Whether TLS can be signed with it here. As certificates for RSA-PSS alone cannot be used, their keys cannot.
    pub(crate) fn signs_handshakes(&self) -> bool {
        match self {
            Self::Curve(name) => matches!(*name, "P-256" | "P-384" | "P-521"),
            Self::Other(name) => *name == ED25519,
            Self::Rsa { bits } => (2048..=8192).contains(bits),
            Self::UnnamedCurve | Self::Unknown => false,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Curve(name) => write!(f, "an elliptic-curve key on {name}"),
            Self::Other(name) => f.write_str(name),
            Self::Rsa { bits } => write!(f, "an RSA key of {bits} bits"),
            Self::Unknown => f.write_str("a key that is damaged, or of a kind that is not known"),
            Self::UnnamedCurve => {
                f.write_str("an elliptic-curve key that describes its curve instead of naming it")
            }
        }
    }
}

/// By the algorithm, and the bits of a public key or the bytes of a private one, which tell the length of RSA.
fn of_algorithm(algorithm: &[u8], key: &[u8]) -> Option<KeyKind> {
    let parts = ber::parts(algorithm)?;
    let kind = ber::content(parts.first()?)?;
    let content = ber::content(key)?;
    if kind == oid!(1.2.840.113549.1.1.1).as_bytes() {
        return match key.first()? {
            // Before the bits of a public key it says how many do not count.
            3 => rsa(content.get(1..)?, 0),
            _ => rsa(content, 1),
        };
    }
    if kind == oid!(1.2.840.10045.2.1).as_bytes() {
        return Some(curve(parts.get(1)?));
    }
    let name = KINDS.iter().find(|(oid, _)| oid.as_bytes() == kind);
    Some(name.map_or(KeyKind::Unknown, |(_, name)| KeyKind::Other(name)))
}

/// Of a PKCS#1 key whose modulus is the part at `place`.
fn rsa(key: &[u8], place: usize) -> Option<KeyKind> {
    let parts = ber::parts(key)?;
    let modulus = ber::content(parts.get(place)?)?;
    let first = modulus.iter().position(|byte| *byte != 0)?;
    let bits = 8 * (modulus.len() - first) - modulus[first].leading_zeros() as usize;
    Some(KeyKind::Rsa { bits })
}

fn curve(parameters: &[u8]) -> KeyKind {
    const NAME: u8 = 0x06;
    match (parameters.first(), ber::content(parameters)) {
        (Some(&NAME), Some(name)) => {
            let known = CURVES.iter().find(|(oid, _)| oid.as_bytes() == name);
            known.map_or(KeyKind::Curve("another curve"), |(_, name)| KeyKind::Curve(name))
        }
        _ => KeyKind::UnnamedCurve,
    }
}

const KINDS: &[(Oid<'static>, &str)] = &[
    (oid!(1.2.840.10040.4.1), "a DSA key"),
    (
        oid!(1.2.840.113549.1.1.10),
        "an RSA key that is for RSA-PSS alone",
    ),
    (oid!(1.3.101.110), "an X25519 key"),
    (oid!(1.3.101.111), "an X448 key"),
    (oid!(1.3.101.112), ED25519),
    (oid!(1.3.101.113), "an Ed448 key"),
    (oid!(2.16.840.1.101.3.4.3.17), "an ML-DSA-44 key"),
    (oid!(2.16.840.1.101.3.4.3.18), "an ML-DSA-65 key"),
    (oid!(2.16.840.1.101.3.4.3.19), "an ML-DSA-87 key"),
];

const CURVES: &[(Oid<'static>, &str)] = &[
    (oid!(1.2.840.10045.3.1.1), "P-192"),
    (oid!(1.2.840.10045.3.1.7), "P-256"),
    (oid!(1.3.132.0.10), "secp256k1"),
    (oid!(1.3.132.0.33), "P-224"),
    (oid!(1.3.132.0.34), "P-384"),
    (oid!(1.3.132.0.35), "P-521"),
    (oid!(1.3.36.3.3.2.8.1.1.7), "brainpoolP256r1"),
    (oid!(1.3.36.3.3.2.8.1.1.11), "brainpoolP384r1"),
    (oid!(1.3.36.3.3.2.8.1.1.13), "brainpoolP512r1"),
];

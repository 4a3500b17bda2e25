//! JSON Web Tokens that clients of the route service show (RFC 7519): keys, signature and claims.
//!
//! Only public keys verify, so that nobody can sign with what everybody may read, and a token needs a signature.
//! The algorithm of a token has to be one of the configuration and one of the key. No I/O; where the keys come from is in
//! [`super::jwks`].

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::de::IgnoredAny;

use crate::config::TokenRules;

/// The most keys of one issuer that are kept, and of one key ID that are tried.
const MOST_KEYS: usize = 64;
const MOST_TRIED: usize = 4;

/// The keys of an issuer.
#[derive(Debug)]
pub(crate) struct KeySet(Vec<IssuerKey>);

#[derive(Debug)]
struct IssuerKey {
    /// The only algorithm that the issuer uses it for.
    algorithm: Option<Algorithm>,
    id: Option<String>,
    key: DecodingKey,
}

/// Why a text is no set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeySetError {
    #[error("it has no public key for signatures that can be used here: RSA, P-256, P-384 or Ed25519")]
    Empty,
    #[error("it is no JSON Web Key Set (RFC 7517), which has a list `keys`")]
    Format,
}

/// What is wrong with a token. `Display` is the end of a sentence for its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenFault {
    #[error("its algorithm is not one of those that are taken")]
    Algorithm,
    #[error("it is not meant for this route (aud)")]
    Audience,
    #[error("it lacks exp, iss or aud, or one of its claims is malformed")]
    Claims,
    #[error("its time is over (exp)")]
    Expired,
    #[error("another issuer has made it (iss)")]
    Issuer,
    #[error("it is no JSON Web Token")]
    Malformed,
    #[error("its time has not begun (nbf)")]
    NotYet,
    #[error("its signature is wrong")]
    Signature,
    #[error("the issuer has no key of its ID (kid)")]
    UnknownKey,
}

/// The head of a token, before anything is verified.
pub(crate) struct TokenHead {
    algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
}

impl KeySet {
    /// Reads a JSON Web Key Set. Keys of other kinds and for other uses are passed over.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, KeySetError> {
        #[derive(serde::Deserialize)]
        struct KeyList {
            keys: Vec<serde_json::Value>,
        }
        let written: KeyList = serde_json::from_slice(bytes).map_err(|_| KeySetError::Format)?;
        let keys = written.keys.into_iter().take(MOST_KEYS);
        let keys: Vec<_> = keys.filter_map(IssuerKey::read).collect();
        if keys.is_empty() {
            return Err(KeySetError::Empty);
        }
        Ok(Self(keys))
    }

    /// Whether a token with this head can be verified with one of the keys.
    pub(crate) fn has(&self, head: &TokenHead) -> bool {
        self.of(head).next().is_some()
    }

    fn of<'k>(&'k self, head: &'k TokenHead) -> impl Iterator<Item = &'k IssuerKey> {
        let fits = |key: &&IssuerKey| {
            (head.key_id.is_none() || key.id == head.key_id)
                && key.key.family() == head.algorithm.family()
                && key.algorithm.is_none_or(|own| own == head.algorithm)
        };
        self.0.iter().filter(fits).take(MOST_TRIED)
    }

    /// Verifies the signature of a token and what it says.
    pub(crate) fn verify(
        &self,
        token: &[u8],
        head: &TokenHead,
        rules: &TokenRules,
    ) -> Result<(), TokenFault> {
        let mut wanted = Validation::new(head.algorithm);
        wanted.leeway = rules.skew.as_secs();
        wanted.validate_nbf = true;
        wanted.set_audience(&rules.audience);
        wanted.set_issuer(&[&rules.issuer]);
        wanted.set_required_spec_claims(&["exp", "iss", "aud"]);
        let mut fault = TokenFault::UnknownKey;
        for key in self.of(head) {
            match decode::<IgnoredAny>(token, &key.key, &wanted) {
                Ok(_) => return Ok(()),
                Err(error) => fault = TokenFault::of(error.kind()),
            }
            // Of several keys without an ID, one may be the right one.
            if fault != TokenFault::Signature {
                break;
            }
        }
        Err(fault)
    }
}

impl IssuerKey {
    fn read(written: serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(written).ok()?;
        if let AlgorithmParameters::OctetKey(_) | AlgorithmParameters::Other(_) = jwk.algorithm {
            return None;
        }
        if let Some(PublicKeyUse::Encryption) = jwk.common.public_key_use {
            return None;
        }
        let algorithm = match jwk.common.key_algorithm {
            None => None,
            // An algorithm that is not known here is no reason to take the key for another one.
            Some(algorithm) => Some(algorithm.to_string().parse().ok()?),
        };
        Some(Self {
            algorithm,
            key: DecodingKey::from_jwk(&jwk).ok()?,
            id: jwk.common.key_id,
        })
    }
}

impl TokenHead {
    /// Reads the head of a token, and refuses an algorithm that the configuration does not name.
    pub(crate) fn read(token: &[u8], rules: &TokenRules) -> Result<Self, TokenFault> {
        let head = decode_header(token).map_err(|_| TokenFault::Malformed)?;
        if !rules.algorithms.contains(&head.alg) {
            return Err(TokenFault::Algorithm);
        }
        Ok(Self {
            algorithm: head.alg,
            key_id: head.kid,
        })
    }
}

impl TokenFault {
    fn of(kind: &ErrorKind) -> Self {
        match kind {
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::NotYet,
            ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Self::Algorithm,
            ErrorKind::InvalidAudience => Self::Audience,
            ErrorKind::InvalidClaimFormat(_) | ErrorKind::MissingRequiredClaim(_) => Self::Claims,
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidSignature => Self::Signature,
            // Whatever else it is, nobody has vouched for it.
            _ => Self::Malformed,
        }
    }
}

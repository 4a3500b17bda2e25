//! JSON Web Tokens that are signed here (RFC 7515, 7519): assertions for token endpoints (RFC 7521, 7523), and tokens for
//! services that take those which their clients sign themselves.
//!
//! A [`Maker`] has read everything but the time; [`Maker::make`] gives a token in the compact form. [`Jwt`] puts one on
//! requests. It signs anew when half of a token's life is over: an RSA signature costs more than the rest of a request.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use serde_json::{Map, Value as Json, json};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::hidden;
use super::key::{self, SigningKey};
use crate::config::{self, Algorithm, Claim, SecretRef, Text};
use crate::secret::{self, Secret, Sources, pem};
use crate::sync::lock;
use crate::upstream::tls;

#[cfg(test)]
mod tests;

/// Everything of a token but its time.
pub(crate) struct Maker {
    claims: Map<String, Json>,
    /// `None`: where it is for one use.
    has_id: Option<bool>,
    /// In base64url.
    header: String,
    key: SigningKey,
    lifetime: Duration,
}

/// Attaches a token of our own to requests.
pub(crate) struct Jwt {
    maker: Maker,
    kept: Mutex<Option<Kept>>,
}

/// Why there is no token. Never shows a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{reference}: {why}")]
    Certificate { reference: SecretRef, why: pem::Error },

    #[error(transparent)]
    Key(#[from] key::Error),

    #[error("{reference}: not UTF-8 text, which all that stands in a JSON Web Token has to be")]
    NotText { reference: SecretRef },

    #[error("{reference}: no certificate of the key {key} in it; name the one that was issued for this key")]
    OtherCertificate { reference: SecretRef, key: SecretRef },

    #[error("no random number can be had for the id of a token")]
    Random,

    #[error(transparent)]
    Secret(#[from] secret::Error),
}

struct Kept {
    made: SystemTime,
    value: HeaderValue,
}

impl Maker {
    /// Reads the key and what the claims refer to. `defaults` are claims that hold where they are not written.
    pub(crate) fn build(
        settings: &config::Jwt,
        defaults: &[(&str, &str)],
        sources: &Sources,
    ) -> Result<Self, Error> {
        let mut claims = Map::new();
        for (name, value) in defaults {
            claims.insert((*name).to_owned(), json!(value));
        }
        for (name, claim) in &settings.claims {
            claims.insert(name.clone(), value(claim, sources)?);
        }
        let key = SigningKey::load(&settings.key, settings.algorithm, sources)?;
        let mut header = json!({ "alg": name(settings.algorithm), "typ": settings.typ });
        match &settings.key_id {
            None => {}
            Some(Text::Plain(id)) => header["kid"] = json!(id),
            Some(Text::Reference(reference)) => {
                header["kid"] = json!(*text(&sources.read(reference)?, reference)?);
            }
        }
        if let Some(reference) = &settings.certificate {
            let chain = certificates(reference, &settings.key, &key, sources)?;
            header["x5t"] =
                json!(BASE64URL_NOPAD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &chain[0]).as_ref()));
            header["x5t#S256"] = json!(BASE64URL_NOPAD.encode(digest(&SHA256, &chain[0]).as_ref()));
            if settings.has_chain {
                header["x5c"] = chain.iter().map(|one| BASE64.encode(one)).collect();
            }
        }
        Ok(Self {
            claims,
            has_id: settings.has_id,
            header: BASE64URL_NOPAD.encode(header.to_string().as_bytes()),
            key,
            lifetime: settings.lifetime,
        })
    }

    /// A token that is valid from `now` on.
    pub(crate) fn make(&self, now: SystemTime) -> Result<Zeroizing<String>, Error> {
        match self.is_for_once() {
            true => self.make_with_id(now),
            false => self.sign(self.claims_at(now)),
        }
    }

    /// The same for one use, with an id unless the configuration says otherwise.
    pub(crate) fn make_once(&self, now: SystemTime) -> Result<Zeroizing<String>, Error> {
        match self.has_id {
            Some(false) => self.make(now),
            Some(true) | None => self.make_with_id(now),
        }
    }

    /// Whether a token is good for one request only.
    fn is_for_once(&self) -> bool {
        self.has_id == Some(true)
    }

    /// An id of its own (`jti`), by which a server knows that it is not used twice.
    fn make_with_id(&self, now: SystemTime) -> Result<Zeroizing<String>, Error> {
        let mut claims = self.claims_at(now);
        let mut id = [0; 16];
        SystemRandom::new().fill(&mut id).map_err(|_| Error::Random)?;
        claims.insert("jti".to_owned(), json!(BASE64URL_NOPAD.encode(&id)));
        self.sign(claims)
    }

    fn claims_at(&self, now: SystemTime) -> Map<String, Json> {
        // A server whose clock is a little behind must not take it for a token of the future.
        let issued = seconds(now).saturating_sub(SKEW);
        let mut claims = self.claims.clone();
        claims.insert("iat".to_owned(), json!(issued));
        claims.insert("exp".to_owned(), json!(issued + self.lifetime.as_secs()));
        claims
    }

    fn sign(&self, claims: Map<String, Json>) -> Result<Zeroizing<String>, Error> {
        let payload = Zeroizing::new(Json::Object(claims).to_string());
        compact(&self.header, payload.as_bytes(), &self.key)
    }
}

impl Jwt {
    pub(super) fn build(settings: &config::Jwt, sources: &Sources) -> Result<Self, Error> {
        Ok(Self {
            maker: Maker::build(settings, &[], sources)?,
            kept: Mutex::new(None),
        })
    }

    /// The value of `Authorization`, sensitive.
    pub(super) fn value(&self, now: SystemTime) -> Result<HeaderValue, Error> {
        if self.maker.is_for_once() {
            return bearer(&self.maker.make(now)?);
        }
        let mut kept = lock(&self.kept);
        if let Some(kept) = &*kept {
            // A clock that was set back makes it a token of the future.
            let age = now.duration_since(kept.made);
            if age.is_ok_and(|age| age < self.maker.lifetime / 2) {
                return Ok(kept.value.clone());
            }
        }
        // Under the lock: many requests at once make one signature.
        let value = bearer(&self.maker.make(now)?)?;
        *kept = Some(Kept {
            made: now,
            value: value.clone(),
        });
        Ok(value)
    }
}

impl fmt::Debug for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maker")
            .field("key", &self.key)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt")
            .field("maker", &self.maker)
            .finish_non_exhaustive()
    }
}

/// What a claim says, its references read.
fn value(claim: &Claim, sources: &Sources) -> Result<Json, Error> {
    Ok(match claim {
        Claim::List(items) => {
            let items = items.iter().map(|item| value(item, sources));
            Json::Array(items.collect::<Result<_, _>>()?)
        }
        Claim::Map(entries) => {
            let entries = (entries.iter()).map(|(name, claim)| Ok((name.clone(), value(claim, sources)?)));
            Json::Object(entries.collect::<Result<_, Error>>()?)
        }
        Claim::Plain(value) => value.clone(),
        Claim::Reference(reference) => json!(*text(&sources.read(reference)?, reference)?),
    })
}

/// The certificate of a key, and then its issuers, each behind the one that it issued (RFC 7515, section 4.1.6). Of several
/// for the same key, as a renewal leaves them, one that is valid now, and ends last.
fn certificates(
    reference: &SecretRef,
    key_reference: &SecretRef,
    key: &SigningKey,
    sources: &Sources,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    // What is trimmed of a text may be the end of DER.
    let all = pem::certificates(&sources.read_binary(reference)?).map_err(|why| Error::Certificate {
        reference: reference.clone(),
        why,
    })?;
    let (all, parsed): (Vec<_>, Vec<_>) = (all.iter())
        .filter_map(|one| Some((one, X509Certificate::from_der(one).ok()?.1)))
        .unzip();
    let public = key.public();
    let chain = public.and_then(|public| tls::chain_of(Some(public), &parsed, SystemTime::now()));
    let chain = chain.ok_or_else(|| Error::OtherCertificate {
        reference: reference.clone(),
        key: key_reference.clone(),
    })?;
    Ok(chain.into_iter().map(|i| all[i].clone()).collect())
}

fn bearer(token: &str) -> Result<HeaderValue, Error> {
    let text = Zeroizing::new(format!("Bearer {token}").into_bytes());
    // Base64 and dots are always a field value.
    Ok(hidden(text).ok_or(key::Error::Failed)?)
}

/// RFC 7515, section 3.1; `header` is in base64url already.
fn compact(header: &str, payload: &[u8], key: &SigningKey) -> Result<Zeroizing<String>, Error> {
    // Room for everything at once: a text that grows leaves copies behind.
    let room = header.len() + 2 + payload.len().div_ceil(3) * 4 + LONGEST_SIGNATURE;
    let mut text = Zeroizing::new(String::with_capacity(room));
    text.push_str(header);
    text.push('.');
    BASE64URL_NOPAD.encode_append(payload, &mut text);
    let signature = key.sign(text.as_bytes())?;
    text.push('.');
    BASE64URL_NOPAD.encode_append(&signature, &mut text);
    Ok(text)
}

/// RFC 7518, section 3.1, and RFC 8037.
fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::EcdsaP256Sha256 => "ES256",
        Algorithm::EcdsaP384Sha384 => "ES384",
        Algorithm::EcdsaP521Sha512 => "ES512",
        Algorithm::Ed25519 => "EdDSA",
        // No name is registered for it, and the configuration offers none.
        Algorithm::HmacSha1 => "HS1",
        Algorithm::HmacSha256 => "HS256",
        Algorithm::HmacSha384 => "HS384",
        Algorithm::HmacSha512 => "HS512",
        Algorithm::RsaPkcs1Sha256 => "RS256",
        Algorithm::RsaPkcs1Sha384 => "RS384",
        Algorithm::RsaPkcs1Sha512 => "RS512",
        Algorithm::RsaPssSha256 => "PS256",
        Algorithm::RsaPssSha384 => "PS384",
        Algorithm::RsaPssSha512 => "PS512",
    }
}

/// What a reference names, as text.
pub(super) fn text(secret: &Secret, reference: &SecretRef) -> Result<Zeroizing<String>, Error> {
    let text = str::from_utf8(secret.expose()).map_err(|_| Error::NotText {
        reference: reference.clone(),
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// In seconds: how much earlier than now a token says that it was made.
const SKEW: u64 = 5;

/// In base64url, of an RSA key of 8192 bits.
const LONGEST_SIGNATURE: usize = 1366;

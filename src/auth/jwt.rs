//! JSON Web Tokens that outrider signs (RFC 7515, 7519): assertions for token endpoints (RFC 7521, 7523), and
//! tokens for services whose clients sign their own tokens.
//!
//! A [`JwtSigner`] holds everything except the time. [`JwtSigner::token`] returns a token in compact form.
//! [`JwtCredential`] attaches one to requests and signs a new one after half of its lifetime, because an RSA
//! signature costs more than the rest of a request.

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
use crate::secret::{self, Secret, Snapshot, pem};
use crate::sync::lock;
use crate::upstream::tls;

#[cfg(test)]
mod tests;

/// How many seconds before now a token says that it was issued.
const SKEW: u64 = 5;

/// The length in base64url of a signature by an RSA key of 8192 bits.
const LONGEST_SIGNATURE: usize = 1366;

/// Signs tokens with constant claims.
pub(crate) struct JwtSigner {
    claims: Map<String, Json>,
    /// Whether tokens have an id. `None`: only single-use tokens have one.
    has_id: Option<bool>,
    /// The header in base64url.
    header: String,
    key: SigningKey,
    lifetime: Duration,
}

/// Attaches self-signed tokens to requests.
pub(crate) struct JwtCredential {
    signer: JwtSigner,
    cached: Mutex<Option<CachedJwt>>,
}

/// Why no token can be signed. Never shows a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{reference}: {why}")]
    Certificate { reference: SecretRef, why: pem::Error },

    #[error(transparent)]
    Key(#[from] key::Error),

    #[error("{reference}: not UTF-8 text, as all parts of a JSON Web Token have to be")]
    NotText { reference: SecretRef },

    #[error("{reference}: no certificate of the key {key} in it; name the one that was issued for this key")]
    OtherCertificate { reference: SecretRef, key: SecretRef },

    #[error("no random number can be had for the id of a token")]
    Random,

    #[error(transparent)]
    Secret(#[from] secret::Error),
}

struct CachedJwt {
    made: SystemTime,
    value: HeaderValue,
}

impl JwtSigner {
    /// Reads the key and the secrets in the claims. `defaults` are claims for which the configuration has no value.
    pub(crate) fn build(
        settings: &config::Jwt,
        defaults: &[(&str, &str)],
        snapshot: &Snapshot,
    ) -> Result<Self, Error> {
        let mut claims = Map::new();
        for (name, value) in defaults {
            claims.insert((*name).to_owned(), json!(value));
        }
        for (name, claim) in &settings.claims {
            claims.insert(name.clone(), value(claim, snapshot)?);
        }
        let key = SigningKey::load(&settings.key, settings.algorithm, snapshot)?;
        let mut header = json!({ "alg": name(settings.algorithm), "typ": settings.typ });
        match &settings.key_id {
            None => {}
            Some(Text::Plain(id)) => header["kid"] = json!(id),
            Some(Text::Reference(reference)) => {
                header["kid"] = json!(*text(&snapshot.read(reference)?, reference)?);
            }
        }
        if let Some(reference) = &settings.certificate {
            let chain = certificates(reference, &settings.key, &key, snapshot)?;
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

    /// Signs a token that is valid from `now` on.
    pub(crate) fn token(&self, now: SystemTime) -> Result<Zeroizing<String>, Error> {
        if self.is_for_once() {
            self.token_with_id(now)
        } else {
            self.sign(self.claims_at(now))
        }
    }

    /// Signs a token for a single use, with an id unless the configuration says otherwise.
    pub(crate) fn single_use_token(&self, now: SystemTime) -> Result<Zeroizing<String>, Error> {
        match self.has_id {
            Some(false) => self.token(now),
            Some(true) | None => self.token_with_id(now),
        }
    }

    /// Returns whether a token is valid for one request only.
    fn is_for_once(&self) -> bool {
        self.has_id == Some(true)
    }

    /// Signs a token with a random id (`jti`), by which a server recognises a second use.
    fn token_with_id(&self, now: SystemTime) -> Result<Zeroizing<String>, Error> {
        let mut claims = self.claims_at(now);
        let mut id = [0; 16];
        SystemRandom::new().fill(&mut id).map_err(|_| Error::Random)?;
        claims.insert("jti".to_owned(), json!(BASE64URL_NOPAD.encode(&id)));
        self.sign(claims)
    }

    fn claims_at(&self, now: SystemTime) -> Map<String, Json> {
        // Issued a little earlier, so that a server whose clock is slow does not refuse a token from the future.
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

impl JwtCredential {
    pub(super) fn build(settings: &config::Jwt, snapshot: &Snapshot) -> Result<Self, Error> {
        Ok(Self {
            signer: JwtSigner::build(settings, &[], snapshot)?,
            cached: Mutex::new(None),
        })
    }

    /// Returns the value of Authorization, marked sensitive.
    pub(super) fn value(&self, now: SystemTime) -> Result<HeaderValue, Error> {
        if self.signer.is_for_once() {
            return bearer(&self.signer.token(now)?);
        }
        let mut cached = lock(&self.cached);
        if let Some(cached) = &*cached {
            // An error means that the clock was set back: then the token is from the future.
            let age = now.duration_since(cached.made);
            if age.is_ok_and(|age| age < self.signer.lifetime / 2) {
                return Ok(cached.value.clone());
            }
        }
        // Under the lock, so that many requests at once share one signature.
        let value = bearer(&self.signer.token(now)?)?;
        *cached = Some(CachedJwt {
            made: now,
            value: value.clone(),
        });
        Ok(value)
    }
}

impl fmt::Debug for JwtSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSigner")
            .field("key", &self.key)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for JwtCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtCredential")
            .field("signer", &self.signer)
            .finish_non_exhaustive()
    }
}

/// Returns the value of a claim, with its secrets.
fn value(claim: &Claim, snapshot: &Snapshot) -> Result<Json, Error> {
    Ok(match claim {
        Claim::List(items) => {
            let items = items.iter().map(|item| value(item, snapshot));
            Json::Array(items.collect::<Result<_, _>>()?)
        }
        Claim::Map(entries) => {
            let entries = entries
                .iter()
                .map(|(name, claim)| Ok((name.clone(), value(claim, snapshot)?)));
            Json::Object(entries.collect::<Result<_, Error>>()?)
        }
        Claim::Plain(value) => value.clone(),
        Claim::Reference(reference) => json!(*text(&snapshot.read(reference)?, reference)?),
    })
}

/// Returns the certificate of a key and its issuers, in the order of RFC 7515, section 4.1.6. If there are several
/// for the key, as after a renewal, takes one that is valid now and expires last.
fn certificates(
    reference: &SecretRef,
    key_reference: &SecretRef,
    key: &SigningKey,
    snapshot: &Snapshot,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    // Read as bytes: trimming white space could cut off the end of DER.
    let all = pem::certificates(&snapshot.read_binary(reference)?).map_err(|why| Error::Certificate {
        reference: reference.clone(),
        why,
    })?;
    let (all, parsed): (Vec<_>, Vec<_>) = all
        .iter()
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
    // Base64 and dots are always a valid field value.
    Ok(hidden(text).ok_or(key::Error::Failed)?)
}

/// Signs and joins the parts (RFC 7515, section 3.1). `header` is in base64url already.
fn compact(header: &str, payload: &[u8], key: &SigningKey) -> Result<Zeroizing<String>, Error> {
    // Allocated at once: a text that grows leaves copies behind.
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

/// Returns the name of an algorithm in RFC 7518, section 3.1, and RFC 8037.
fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::EcdsaP256Sha256 => "ES256",
        Algorithm::EcdsaP384Sha384 => "ES384",
        Algorithm::EcdsaP521Sha512 => "ES512",
        Algorithm::Ed25519 => "EdDSA",
        // Not registered, and not offered by the configuration.
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

/// Returns the secret of a reference as text.
pub(super) fn text(secret: &Secret, reference: &SecretRef) -> Result<Zeroizing<String>, Error> {
    let text = str::from_utf8(secret.expose()).map_err(|_| Error::NotText {
        reference: reference.clone(),
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Returns the seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

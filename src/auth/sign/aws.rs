//! AWS Signature Version 4 in the Authorization field.
//!
//! [`canonical`] builds the canonical request. This file decides which fields are signed, and what is signed for
//! the body: the hash of a body in memory, or the app's hash of a larger one (which the service checks). S3 also
//! takes a body without a hash over https.

use std::fmt;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use self::canonical::CanonicalRequest;
use super::{Error, Payload, RequestToSign, ValueOrigin, plain, sensitive, sha256_hex};
use crate::config::{AwsSigV4, SecretRef, Text};
use crate::host::Scheme;
use crate::secret::{self, Secret, Snapshot};
use crate::units::rfc3339;

mod canonical;
#[cfg(test)]
mod tests;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const STREAMING_UNSIGNED: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
pub(crate) const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// The fields of the signature. The app may set the hash of the body, see [`AwsSigner::payload`].
pub(super) const FIELDS: [HeaderName; 4] = [AUTHORIZATION, CONTENT_SHA256, DATE, SECURITY_TOKEN];

/// Signs requests to one service in one region.
pub(crate) struct AwsSigner {
    access_key_id: Box<str>,
    max_body: usize,
    region: Box<str>,
    /// `AWS4` and the secret access key.
    secret: Secret,
    service: Box<str>,
    token: Option<HeaderValue>,
}

impl AwsSigner {
    pub(crate) fn build(settings: &AwsSigV4, snapshot: &Snapshot) -> Result<Self, Error> {
        let key = read(&settings.secret_access_key, snapshot, "a secret access key")?;
        let mut secret = Zeroizing::new(Vec::with_capacity(4 + key.expose().len()));
        secret.extend_from_slice(b"AWS4");
        secret.extend_from_slice(key.expose());
        Ok(Self {
            access_key_id: access_key_id(&settings.access_key_id, snapshot)?,
            max_body: settings.max_body,
            region: settings.region.as_str().into(),
            secret: Secret::new(secret),
            service: settings.service.as_str().into(),
            token: token(settings.session_token.as_ref(), snapshot)?,
        })
    }

    /// Returns how many bytes of a body it signs at most.
    pub(crate) fn hashes(&self) -> Option<usize> {
        Some(self.max_body)
    }

    /// Signs, replacing an earlier signature.
    pub(crate) fn sign(&self, request: &mut RequestToSign<'_>) -> Result<(), Error> {
        let payload = self.payload(request)?;
        let time = rfc3339(request.now);
        let time: String = time.chars().filter(|c| !matches!(c, '-' | ':')).collect();
        let head = &mut *request.head;
        if let Some(uri) = canonical::without_signature(&head.uri) {
            head.uri = uri;
        }
        for name in [AUTHORIZATION, DATE, SECURITY_TOKEN] {
            head.headers.remove(name);
        }
        head.headers.insert(DATE, plain(&time)?);
        if let Some(token) = &self.token {
            head.headers.insert(SECURITY_TOKEN, token.clone());
        }
        if self.states_payload() || head.headers.contains_key(CONTENT_SHA256) {
            head.headers.insert(CONTENT_SHA256, plain(&payload)?);
        }

        let canonical = CanonicalRequest {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            authority: request.authority,
            fields: &head.headers,
            payload: &payload,
            is_s3: self.is_s3(),
        };
        let (request, signed) = canonical.text(is_signed);
        let day = &time[..8];
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let text = format!("{ALGORITHM}\n{time}\n{scope}\n{}", sha256_hex(&request));
        let signature = HEXLOWER.encode(self.code(day, &text).as_ref());
        let id = &self.access_key_id;
        let value =
            format!("{ALGORITHM} Credential={id}/{scope}, SignedHeaders={signed}, Signature={signature}");
        head.headers.insert(AUTHORIZATION, sensitive(value.as_bytes())?);
        Ok(())
    }

    /// Returns the payload part of the signature: the hash of the body, or a word that says that it is not hashed.
    fn payload(&self, request: &RequestToSign<'_>) -> Result<String, Error> {
        let its = request.head.headers.get(CONTENT_SHA256);
        let its = its.and_then(|value| value.to_str().ok()).unwrap_or_default();
        match request.payload {
            _ if its.starts_with("STREAMING-AWS4-") => Err(Error::ChunkSignatures),
            // The chunks are not signed, but S3 verifies a checksum in the trailers.
            _ if self.is_s3() && its == STREAMING_UNSIGNED => Ok(its.to_owned()),
            Payload::Whole(body) => Ok(sha256_hex(body)),
            Payload::Streamed if is_hash(its) => Ok(its.to_owned()),
            Payload::Streamed if self.is_s3() && request.scheme == Scheme::Https => Ok(UNSIGNED.to_owned()),
            Payload::Streamed => Err(Error::TooLarge {
                kind: "aws_sigv4",
                most: self.max_body,
            }),
        }
    }

    /// Returns the HMAC of `text` with the signing key of the day.
    fn code(&self, day: &str, text: &str) -> hmac::Tag {
        let code = |key: &[u8], text: &str| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key);
            hmac::sign(&key, text.as_bytes())
        };
        let mut tag = code(self.secret.expose(), day);
        for part in [&self.region, &self.service, "aws4_request", text] {
            tag = code(tag.as_ref(), part);
        }
        tag
    }

    /// Returns whether the service is S3 or like it: a path is an object name, and a body need not be hashed.
    fn is_s3(&self) -> bool {
        matches!(
            &*self.service,
            "s3" | "s3-object-lambda" | "s3-outposts" | "s3express"
        )
    }

    /// Returns whether the service wants the hash of the body in a field.
    fn states_payload(&self) -> bool {
        self.is_s3() || matches!(&*self.service, "aoss" | "glacier")
    }
}

impl fmt::Debug for AwsSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsSigner")
            .field("region", &self.region)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

fn access_key_id(written: &Text, snapshot: &Snapshot) -> Result<Box<str>, Error> {
    let (secret, place) = match written {
        Text::Plain(text) => {
            let secret = Secret::new(Zeroizing::new(text.clone().into_bytes()));
            (secret, ValueOrigin::Key("aws_sigv4.access_key_id"))
        }
        Text::Reference(reference) => (
            snapshot.read(reference)?,
            ValueOrigin::Reference(reference.clone()),
        ),
    };
    // It is written between slashes and commas.
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let text = std::str::from_utf8(secret.expose()).ok();
    let text = text.filter(|text| text.bytes().all(|byte| is_word(&byte)));
    let what = "an access key id";
    text.map(Box::from).ok_or(Error::NotOne { place, what })
}

/// Reads the session token. Permanent keys have none: a variable that is not set means that, so that one
/// configuration works for both.
fn token(reference: Option<&SecretRef>, snapshot: &Snapshot) -> Result<Option<HeaderValue>, Error> {
    let Some(reference) = reference else {
        return Ok(None);
    };
    match read(reference, snapshot, "a session token") {
        Err(Error::Secret(secret::Error::Unset { .. })) => Ok(None),
        Err(error) => Err(error),
        Ok(token) => sensitive(token.expose()).map(Some),
    }
}

/// Reads a secret that is one word of visible ASCII.
fn read(reference: &SecretRef, snapshot: &Snapshot, what: &'static str) -> Result<Secret, Error> {
    let secret = snapshot.read(reference)?;
    if secret.expose().iter().all(u8::is_ascii_graphic) {
        Ok(secret)
    } else {
        Err(Error::NotOne {
            place: ValueOrigin::Reference(reference.clone()),
            what,
        })
    }
}

/// Returns whether a field is signed, because it arrives unchanged. Hop-by-hop fields do not, nor fields that
/// proxies and load balancers change, or that HTTP/2 writes differently.
fn is_signed(name: &HeaderName) -> bool {
    let name = name.as_str();
    let mut prefixes = ["proxy-", "sec-", "x-forwarded-"].iter();
    !UNSIGNED_FIELDS.contains(&name) && !prefixes.any(|prefix| name.starts_with(prefix))
}

/// Returns whether this looks like a SHA-256.
fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Fields that are not signed, besides those that begin with `proxy-`, `sec-` or `x-forwarded-`.
const UNSIGNED_FIELDS: [&str; 29] = [
    "accept-encoding",
    "authorization",
    "baggage",
    "cache-control",
    "cdn-loop",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "from",
    "host",
    "keep-alive",
    "max-forwards",
    "origin",
    "pragma",
    "priority",
    "referer",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-amzn-trace-id",
    "x-real-ip",
    "x-request-id",
];

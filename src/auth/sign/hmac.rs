//! HMAC signatures for services with a proprietary scheme. The configuration writes the signed text and the fields.

use std::fmt;
use std::fmt::Write as _;
use std::time::UNIX_EPOCH;

use aws_lc_rs::digest;
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use http::header::HeaderName;

use super::{Error, Payload, RequestToSign, sensitive};
use crate::auth::key::SigningKey;
use crate::config::{self, BodyHash, SignatureEncoding, Template, TemplatePiece};
use crate::host::Scheme;
use crate::secret::Snapshot;
use crate::units::{http_date, rfc3339};

#[cfg(test)]
mod tests;

/// Signs requests with one secret.
pub(crate) struct HmacSigner {
    encoding: SignatureEncoding,
    key: SigningKey,
    key_id: Box<str>,
    max_body: usize,
    message: Template,
    sees_body: bool,
    set: Vec<(HeaderName, Template)>,
}

/// Values that stay constant while one request is signed.
struct SigningValues<'a> {
    key_id: &'a str,
    nonce: String,
    signature: String,
}

impl HmacSigner {
    pub(crate) fn build(settings: &config::Hmac, snapshot: &Snapshot) -> Result<Self, Error> {
        let key_id = match &settings.key_id {
            None => "".into(),
            Some(written) => super::key_id(written, snapshot)?,
        };
        let all = settings.set.iter().map(|(_, value)| value);
        Ok(Self {
            encoding: settings.encoding,
            key: super::key_of(&settings.key, settings.algorithm, settings.key_encoding, snapshot)?,
            key_id,
            max_body: settings.max_body,
            message: settings.message.clone(),
            sees_body: all.chain([&settings.message]).any(Template::has_body),
            set: settings.set.clone(),
        })
    }

    /// Returns how many bytes of a body it signs at most. `None`: it does not sign the body.
    pub(crate) fn hashes(&self) -> Option<usize> {
        self.sees_body.then_some(self.max_body)
    }

    /// Returns the fields that it sets.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &HeaderName> {
        self.set.iter().map(|(name, _)| name)
    }

    /// Signs, replacing an earlier signature. Sets the fields without the signature first, so that the signed text
    /// can contain them.
    pub(crate) fn sign(&self, request: &mut RequestToSign<'_>) -> Result<(), Error> {
        let mut values = SigningValues {
            key_id: &self.key_id,
            nonce: super::nonce(),
            signature: String::new(),
        };
        for name in self.fields() {
            request.head.headers.remove(name);
        }
        let says_it = |value: &Template| value.has(&TemplatePiece::Signature);
        for (name, value) in self.set.iter().filter(|(_, value)| !says_it(value)) {
            let value = self.fill(value, &values, request)?;
            request.head.headers.insert(name.clone(), sensitive(&value)?);
        }
        let signature = self.key.sign(&self.fill(&self.message, &values, request)?)?;
        values.signature = match self.encoding {
            SignatureEncoding::Base64 => BASE64.encode(&signature),
            SignatureEncoding::Base64Url => BASE64URL_NOPAD.encode(&signature),
            SignatureEncoding::Hex => HEXLOWER.encode(&signature),
        };
        for (name, value) in self.set.iter().filter(|(_, value)| says_it(value)) {
            let value = self.fill(value, &values, request)?;
            request.head.headers.insert(name.clone(), sensitive(&value)?);
        }
        Ok(())
    }

    fn fill(
        &self,
        template: &Template,
        values: &SigningValues<'_>,
        request: &RequestToSign<'_>,
    ) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        for piece in &template.0 {
            match piece {
                TemplatePiece::Body => bytes.extend_from_slice(self.body(request)?),
                TemplatePiece::BodyHash(hash) => {
                    bytes.extend_from_slice(hashed(self.body(request)?, *hash).as_bytes());
                }
                TemplatePiece::Field(name) => {
                    for (i, line) in request.head.headers.get_all(name).enumerate() {
                        bytes.extend_from_slice(if i > 0 { b", " } else { b"" });
                        bytes.extend_from_slice(line.as_bytes().trim_ascii());
                    }
                }
                piece => bytes.extend_from_slice(text(piece, values, request).as_bytes()),
            }
        }
        Ok(bytes)
    }

    fn body<'a>(&self, request: &RequestToSign<'a>) -> Result<&'a [u8], Error> {
        match request.payload {
            Payload::Whole(body) => Ok(body),
            Payload::Streamed => Err(Error::TooLarge {
                kind: "hmac",
                most: self.max_body,
            }),
        }
    }
}

impl fmt::Debug for HmacSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HmacSigner")
            .field("key", &self.key)
            .field("set", &self.set)
            .finish_non_exhaustive()
    }
}

/// Returns the text for a placeholder that needs neither fields nor body.
fn text(piece: &TemplatePiece, values: &SigningValues<'_>, request: &RequestToSign<'_>) -> String {
    let RequestToSign {
        head,
        authority,
        scheme,
        now,
        ..
    } = request;
    let since = || now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let scheme = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let target = || {
        let mut target = head.uri.path().to_owned();
        if let Some(query) = head.uri.query() {
            // Writing to a String cannot fail.
            let _ = write!(target, "?{query}");
        }
        target
    };
    match piece {
        TemplatePiece::Authority => (*authority).to_owned(),
        TemplatePiece::Date => http_date(*now),
        TemplatePiece::KeyId => values.key_id.to_owned(),
        TemplatePiece::Method => head.method.as_str().to_owned(),
        TemplatePiece::MethodInLowerCase => head.method.as_str().to_ascii_lowercase(),
        TemplatePiece::Nonce => values.nonce.clone(),
        TemplatePiece::Path => head.uri.path().to_owned(),
        TemplatePiece::Query => head.uri.query().unwrap_or_default().to_owned(),
        TemplatePiece::Rfc3339 => rfc3339(*now),
        TemplatePiece::Scheme => scheme.to_owned(),
        TemplatePiece::Signature => values.signature.clone(),
        TemplatePiece::Target => target(),
        TemplatePiece::Text(text) => text.clone(),
        TemplatePiece::Timestamp => since().as_secs().to_string(),
        TemplatePiece::TimestampMillis => since().as_millis().to_string(),
        TemplatePiece::Url => format!("{scheme}://{authority}{}", target()),
        // `fill` takes these bytes from the request.
        TemplatePiece::Body | TemplatePiece::BodyHash(_) | TemplatePiece::Field(_) => String::new(),
    }
}

fn hashed(body: &[u8], hash: BodyHash) -> String {
    let algorithm = match hash {
        BodyHash::Sha1Hex => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        BodyHash::Sha256Base64 | BodyHash::Sha256Hex => &digest::SHA256,
        BodyHash::Sha512Base64 | BodyHash::Sha512Hex => &digest::SHA512,
    };
    let digest = digest::digest(algorithm, body);
    match hash {
        BodyHash::Sha256Base64 | BodyHash::Sha512Base64 => BASE64.encode(digest.as_ref()),
        BodyHash::Sha1Hex | BodyHash::Sha256Hex | BodyHash::Sha512Hex => HEXLOWER.encode(digest.as_ref()),
    }
}

//! HTTP Message Signatures (RFC 9421), with Content-Digest (RFC 9530).
//!
//! The signature base is signed: a line for each component, in the configured order, and one for the parameters. A
//! component that a request does not have is an error: to omit it silently would weaken the signature, and a rule
//! with `match` can exclude such requests. A signed Date is set here, and a signed Content-Digest too, unless the
//! body is too large to be read whole and the app has sent one.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use http::header::{DATE, HOST, HeaderName};

use super::{Error, Payload, RequestToSign, plain, sensitive, sha256};
use crate::auth::key::SigningKey;
use crate::config::{Algorithm, Component, HttpSignature, form_encoded};
use crate::host::Scheme;
use crate::message::{Fields, RequestHead};
use crate::secret::Snapshot;
use crate::units::http_date;

#[cfg(test)]
mod tests;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const SIGNATURE: HeaderName = HeaderName::from_static("signature");
const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");

/// Signs requests with one key.
#[derive(Debug)]
pub(crate) struct MessageSigner {
    key: SigningKey,
    key_id: Box<str>,
    settings: HttpSignature,
}

impl MessageSigner {
    pub(crate) fn build(settings: &HttpSignature, snapshot: &Snapshot) -> Result<Self, Error> {
        let key = super::key_of(&settings.key, settings.algorithm, settings.key_encoding, snapshot)?;
        let key_id = super::key_id(&settings.key_id, snapshot)?;
        let settings = settings.clone();
        Ok(Self {
            key,
            key_id,
            settings,
        })
    }

    /// Returns how many bytes of a body it signs at most. `None`: it does not sign the body.
    pub(crate) fn hashes(&self) -> Option<usize> {
        self.covers(&CONTENT_DIGEST).then_some(self.settings.max_body)
    }

    /// Returns the fields of a request that it sets.
    pub(crate) fn fields(&self) -> Vec<HeaderName> {
        let covered = [CONTENT_DIGEST, DATE]
            .into_iter()
            .filter(|name| self.covers(name));
        [SIGNATURE, SIGNATURE_INPUT].into_iter().chain(covered).collect()
    }

    /// Signs, replacing an earlier signature.
    pub(crate) fn sign(&self, request: &mut RequestToSign<'_>) -> Result<(), Error> {
        let nonce = self.settings.nonce.then(super::nonce);
        self.sign_with(nonce.as_deref(), request)
    }

    fn sign_with(&self, nonce: Option<&str>, request: &mut RequestToSign<'_>) -> Result<(), Error> {
        let fields = &mut request.head.headers;
        fields.remove(SIGNATURE);
        fields.remove(SIGNATURE_INPUT);
        if self.covers(&DATE) {
            fields.insert(DATE, plain(&http_date(request.now))?);
        }
        if self.covers(&CONTENT_DIGEST) {
            match request.payload {
                Payload::Whole(body) => {
                    let digest = BASE64.encode(sha256(body).as_ref());
                    fields.insert(CONTENT_DIGEST, plain(&format!("sha-256=:{digest}:"))?);
                }
                // The server checks the digest of the app.
                Payload::Streamed if fields.contains_key(CONTENT_DIGEST) => {}
                Payload::Streamed => {
                    return Err(Error::TooLarge {
                        kind: "http_signature",
                        most: self.settings.max_body,
                    });
                }
            }
        }

        let parameters = self.parameters(nonce, request.now);
        let base = self.base(request, &parameters)?;
        let signature = BASE64.encode(&self.key.sign(base.as_bytes())?);
        let label = &self.settings.label;
        let fields = &mut request.head.headers;
        fields.insert(SIGNATURE_INPUT, plain(&format!("{label}={parameters}"))?);
        fields.insert(SIGNATURE, sensitive(format!("{label}=:{signature}:").as_bytes())?);
        Ok(())
    }

    /// Returns the signature parameters (RFC 9421, section 2.3), in the order of that section. Any order is valid,
    /// but some verifiers (the crate httpsig) use this one before they verify.
    fn parameters(&self, nonce: Option<&str>, now: SystemTime) -> String {
        let settings = &self.settings;
        let components: Vec<_> = settings.components.iter().map(Component::to_string).collect();
        let mut text = format!("({})", components.join(" "));
        let created = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if settings.created {
            text.push_str(&format!(";created={created}"));
        }
        if let Some(expires) = settings.expires {
            text.push_str(&format!(";expires={}", created + expires.as_secs()));
        }
        if let Some(nonce) = nonce {
            text.push_str(&format!(";nonce=\"{nonce}\""));
        }
        if settings.names_algorithm
            && let Some(name) = name(self.key.algorithm())
        {
            text.push_str(&format!(";alg=\"{name}\""));
        }
        text.push_str(&format!(";keyid=\"{}\"", self.key_id));
        if let Some(tag) = &settings.tag {
            text.push_str(&format!(";tag=\"{tag}\""));
        }
        text
    }

    /// Returns the signature base (RFC 9421, section 2.5).
    fn base(&self, request: &RequestToSign<'_>, parameters: &str) -> Result<String, Error> {
        let mut base = String::new();
        for component in &self.settings.components {
            let value = value(component, request)?;
            base.push_str(&format!("{component}: {value}\n"));
        }
        base.push_str(&format!("\"@signature-params\": {parameters}"));
        Ok(base)
    }

    fn covers(&self, wanted: &HeaderName) -> bool {
        let is_wanted = |component: &Component| match component {
            Component::Field { name, .. } => name == wanted,
            _ => false,
        };
        self.settings.components.iter().any(is_wanted)
    }
}

/// Returns the value of a component (RFC 9421, sections 2.1 and 2.2).
fn value(component: &Component, request: &RequestToSign<'_>) -> Result<String, Error> {
    let RequestToSign {
        head,
        authority,
        scheme,
        ..
    } = request;
    let (scheme, port) = match scheme {
        Scheme::Http => ("http", ":80"),
        Scheme::Https => ("https", ":443"),
    };
    let authority = authority.to_ascii_lowercase();
    let authority = authority.strip_suffix(port).unwrap_or(&authority);
    let path = match head.uri.path() {
        "" => "/",
        path => path,
    };
    Ok(match component {
        Component::Authority => authority.to_owned(),
        Component::Field { name, .. } if name == HOST => request.authority.to_owned(),
        Component::Field { name, is_binary } => {
            let value = if *is_binary {
                binary(&head.headers, name)
            } else {
                combined(&head.headers, name)?
            };
            value.ok_or_else(|| Error::Missing {
                component: component.to_string(),
            })?
        }
        Component::Method => head.method.as_str().to_owned(),
        Component::Path => path.to_owned(),
        Component::Query => format!("?{}", head.uri.query().unwrap_or_default()),
        Component::QueryParam(name) => query_param(head, name).ok_or_else(|| Error::Missing {
            component: component.to_string(),
        })?,
        Component::RequestTarget => target(head, path),
        Component::Scheme => scheme.to_owned(),
        Component::TargetUri => format!("{scheme}://{authority}{}", target(head, path)),
    })
}

fn target(head: &RequestHead, path: &str) -> String {
    match head.uri.query() {
        None => path.to_owned(),
        Some(query) => format!("{path}?{query}"),
    }
}

/// Joins all lines of a field. `None`: the request does not have the field.
fn combined(fields: &Fields, name: &HeaderName) -> Result<Option<String>, Error> {
    let mut lines = Vec::new();
    for line in fields.get_all(name) {
        // The base must be ASCII, so that all verifiers compute the same bytes.
        let line = line
            .to_str()
            .map_err(|_| Error::NotAscii { name: name.clone() })?;
        lines.push(line.trim_matches([' ', '\t']));
    }
    Ok((!lines.is_empty()).then(|| lines.join(", ")))
}

fn binary(fields: &Fields, name: &HeaderName) -> Option<String> {
    let lines: Vec<_> = fields
        .get_all(name)
        .map(|line| format!(":{}:", BASE64.encode(line.as_bytes().trim_ascii())))
        .collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// Returns the value of the only parameter of this name. `None`: there is no such parameter, or more than one.
fn query_param(head: &RequestHead, name: &str) -> Option<String> {
    let pairs = head.uri.query()?.split('&');
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(its, _)| form_encoded(its) == name);
    match (values.next(), values.next()) {
        (Some((_, value)), None) => Some(form_encoded(value)),
        _ => None,
    }
}

/// Returns the name of an algorithm in the registry of RFC 9421.
fn name(algorithm: Algorithm) -> Option<&'static str> {
    match algorithm {
        Algorithm::EcdsaP256Sha256 => Some("ecdsa-p256-sha256"),
        Algorithm::EcdsaP384Sha384 => Some("ecdsa-p384-sha384"),
        Algorithm::Ed25519 => Some("ed25519"),
        Algorithm::HmacSha256 => Some("hmac-sha256"),
        Algorithm::RsaPkcs1Sha256 => Some("rsa-v1_5-sha256"),
        Algorithm::RsaPssSha512 => Some("rsa-pss-sha512"),
        Algorithm::EcdsaP521Sha512
        | Algorithm::HmacSha1
        | Algorithm::HmacSha384
        | Algorithm::HmacSha512
        | Algorithm::RsaPkcs1Sha384
        | Algorithm::RsaPkcs1Sha512
        | Algorithm::RsaPssSha256
        | Algorithm::RsaPssSha384 => None,
    }
}

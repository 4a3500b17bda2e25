//! HTTP Message Signatures (RFC 9421), with Content-Digest (RFC 9530).
//!
//! What is signed is the signature base: a line for each component, in the order in which they are configured, and one
//! for the parameters. A component that a request does not have is an error: to leave it out silently would weaken the
//! signature, and where it is not to be there, a rule with `match` says so. A Date that is signed is set here, and so is
//! the Content-Digest, unless the body is too large to be read whole and the app has sent one.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use http::header::{DATE, HOST, HeaderMap, HeaderName};
use http::request::Parts;

use super::{Error, Payload, Subject, plain, sensitive, set, sha256};
use crate::auth::key::SigningKey;
use crate::config::{Algorithm, Component, HttpSignature, form_encoded};
use crate::host::Scheme;
use crate::secret::Sources;
use crate::units::http_date;

#[cfg(test)]
mod tests;

/// Signs requests under one key.
#[derive(Debug)]
pub(crate) struct Message {
    key: SigningKey,
    key_id: Box<str>,
    settings: HttpSignature,
}

impl Message {
    pub(crate) fn build(settings: &HttpSignature, sources: &Sources) -> Result<Self, Error> {
        let key = super::key_of(&settings.key, settings.algorithm, settings.key_encoding, sources)?;
        let key_id = super::key_id(&settings.key_id, sources)?;
        let settings = settings.clone();
        Ok(Self {
            key,
            key_id,
            settings,
        })
    }

    /// How much of a body it has to see, in bytes.
    pub(crate) fn hashes(&self) -> Option<usize> {
        self.covers(&CONTENT_DIGEST).then_some(self.settings.max_body)
    }

    /// The fields of a request that it sets.
    pub(crate) fn fields(&self) -> Vec<HeaderName> {
        let covered = [CONTENT_DIGEST, DATE]
            .into_iter()
            .filter(|name| self.covers(name));
        [SIGNATURE, SIGNATURE_INPUT].into_iter().chain(covered).collect()
    }

    /// Signs, in the place of what is signed already.
    pub(crate) fn sign(&self, subject: &mut Subject<'_>) -> Result<(), Error> {
        let nonce = self.settings.nonce.then(super::nonce);
        self.sign_with(nonce.as_deref(), subject)
    }

    fn sign_with(&self, nonce: Option<&str>, subject: &mut Subject<'_>) -> Result<(), Error> {
        let fields = &mut subject.head.headers;
        fields.remove(SIGNATURE);
        fields.remove(SIGNATURE_INPUT);
        if self.covers(&DATE) {
            set(fields, DATE, plain(&http_date(subject.now))?)?;
        }
        if self.covers(&CONTENT_DIGEST) {
            match subject.payload {
                Payload::Whole(body) => {
                    let digest = BASE64.encode(sha256(body).as_ref());
                    set(fields, CONTENT_DIGEST, plain(&format!("sha-256=:{digest}:"))?)?;
                }
                // The server checks what the app says of its body.
                Payload::Streamed if fields.contains_key(CONTENT_DIGEST) => {}
                Payload::Streamed => {
                    return Err(Error::TooLarge {
                        kind: "http_signature",
                        most: self.settings.max_body,
                    });
                }
            }
        }

        let parameters = self.parameters(nonce, subject.now);
        let base = self.base(subject, &parameters)?;
        let signature = BASE64.encode(&self.key.sign(base.as_bytes())?);
        let label = &self.settings.label;
        let fields = &mut subject.head.headers;
        set(fields, SIGNATURE_INPUT, plain(&format!("{label}={parameters}"))?)?;
        set(
            fields,
            SIGNATURE,
            sensitive(format!("{label}=:{signature}:").as_bytes())?,
        )
    }

    /// What is covered, and how it is signed (RFC 9421, section 2.3), in the order in which that section has them: any is
    /// valid, and some verifiers (the crate httpsig) put them into this one before they verify.
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

    /// The signature base (RFC 9421, section 2.5).
    fn base(&self, subject: &Subject<'_>, parameters: &str) -> Result<String, Error> {
        let mut base = String::new();
        for component in &self.settings.components {
            let value = value(component, subject)?;
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

/// The value of a component (RFC 9421, sections 2.1 and 2.2).
fn value(component: &Component, subject: &Subject<'_>) -> Result<String, Error> {
    let Subject {
        head,
        authority,
        scheme,
        ..
    } = subject;
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
        Component::Field { name, .. } if name == HOST => subject.authority.to_owned(),
        Component::Field { name, is_binary } => {
            let value = match is_binary {
                true => binary(&head.headers, name),
                false => combined(&head.headers, name)?,
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

fn target(head: &Parts, path: &str) -> String {
    match head.uri.query() {
        None => path.to_owned(),
        Some(query) => format!("{path}?{query}"),
    }
}

/// All lines of a field; `None` where there are none.
fn combined(fields: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Error> {
    let mut lines = Vec::new();
    for line in fields.get_all(name) {
        // The base is ASCII, each byte of it the same to all.
        let line = line
            .to_str()
            .map_err(|_| Error::NotAscii { name: name.clone() })?;
        lines.push(line.trim_matches([' ', '\t']));
    }
    Ok((!lines.is_empty()).then(|| lines.join(", ")))
}

fn binary(fields: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Vec<_> = (fields.get_all(name).iter())
        .map(|line| format!(":{}:", BASE64.encode(line.as_bytes().trim_ascii())))
        .collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// The value of the one parameter of this name; `None` where there is none, or more than one.
fn query_param(head: &Parts, name: &str) -> Option<String> {
    let pairs = head.uri.query()?.split('&');
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(its, _)| form_encoded(its) == name);
    match (values.next(), values.next()) {
        (Some((_, value)), None) => Some(form_encoded(value)),
        _ => None,
    }
}

/// In the registry of RFC 9421.
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

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const SIGNATURE: HeaderName = HeaderName::from_static("signature");
const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");

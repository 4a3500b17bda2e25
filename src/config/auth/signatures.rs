//! From the tree to the settings of the credentials that sign.

use std::time::Duration;

use http::header::{HeaderName, HeaderValue};

use super::component::Component;
use super::template::{Piece, Template};
use crate::config::destination::header_name;
use crate::config::reader::{Field, REFERENCE, Reader};
use crate::config::{Algorithm, SecretRef, Text};

/// AWS Signature Version 4.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AwsSigV4 {
    pub(crate) access_key_id: Text,
    /// The largest body that is hashed, in bytes.
    pub(crate) max_body: usize,
    pub(crate) region: String,
    pub(crate) secret_access_key: SecretRef,
    pub(crate) service: String,
    pub(crate) session_token: Option<SecretRef>,
}

/// HTTP Message Signatures, RFC 9421.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HttpSignature {
    pub(crate) algorithm: Algorithm,
    pub(crate) components: Vec<Component>,
    pub(crate) created: bool,
    pub(crate) expires: Option<Duration>,
    pub(crate) key: SecretRef,
    pub(crate) key_encoding: KeyEncoding,
    pub(crate) key_id: Text,
    pub(crate) label: String,
    pub(crate) max_body: usize,
    /// The parameter that says the algorithm.
    pub(crate) names_algorithm: bool,
    pub(crate) nonce: bool,
    pub(crate) tag: Option<String>,
}

/// An HMAC over what a service wants, said where it wants it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hmac {
    pub(crate) algorithm: Algorithm,
    pub(crate) encoding: Encoding,
    pub(crate) key: SecretRef,
    pub(crate) key_encoding: KeyEncoding,
    pub(crate) key_id: Option<Text>,
    pub(crate) max_body: usize,
    pub(crate) message: Template,
    pub(crate) set: Vec<(HeaderName, Template)>,
}

impl AwsSigV4 {
    /// Every secret that it names, with its key.
    pub(super) fn references(&self) -> Vec<(&'static str, &SecretRef)> {
        let mut all = vec![("aws_sigv4.secret_access_key", &self.secret_access_key)];
        if let Text::Reference(id) = &self.access_key_id {
            all.push(("aws_sigv4.access_key_id", id));
        }
        all.extend(self.session_token.iter().map(|token| (SESSION_TOKEN, token)));
        all
    }
}

impl HttpSignature {
    /// Every secret that it names, with its key.
    pub(super) fn references(&self) -> Vec<(&'static str, &SecretRef)> {
        let mut all = vec![("http_signature.key", &self.key)];
        if let Text::Reference(id) = &self.key_id {
            all.push(("http_signature.key_id", id));
        }
        all
    }
}

impl Hmac {
    /// Every secret that it names, with its key.
    pub(super) fn references(&self) -> Vec<(&'static str, &SecretRef)> {
        let mut all = vec![("hmac.key", &self.key)];
        if let Some(Text::Reference(id)) = &self.key_id {
            all.push(("hmac.key_id", id));
        }
        all
    }

    /// Whether each of the two leaves nothing of the other on a request.
    pub(super) fn sets_what(&self, other: &Self) -> bool {
        let names = |hmac: &Self| {
            let mut names: Vec<_> = hmac
                .set
                .iter()
                .map(|(name, _)| name.as_str().to_owned())
                .collect();
            names.sort_unstable();
            names
        };
        names(self) == names(other)
    }
}

/// How a shared secret is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum KeyEncoding {
    Base64,
    Hex,
    Text,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    Base64,
    Base64Url,
    Hex,
}

pub(super) fn aws_sigv4(reader: &Reader<'_>) -> Option<AwsSigV4> {
    let service = reader
        .need("service", "write service: s3")
        .and_then(|field| scope(&field));
    let region = reader
        .need("region", "write region: us-gov-west-1")
        .and_then(|field| scope(&field));
    let access_key_id = reader
        .need("access_key_id", "write access_key_id: env:AWS_ACCESS_KEY_ID")
        .and_then(|field| text_or_reference(&field));
    let secret_access_key = secret(reader, "secret_access_key");
    let session_token = optional(reader.take("session_token"), Field::secret);
    let max_body = max_body(reader);
    Some(AwsSigV4 {
        access_key_id: access_key_id?,
        max_body: max_body?,
        region: region?,
        secret_access_key: secret_access_key?,
        service: service?,
        session_token: session_token?,
    })
}

pub(super) fn http_signature(reader: &Reader<'_>) -> Option<HttpSignature> {
    let key_id = reader
        .need("key_id", "write key_id: NAME")
        .and_then(|field| text_or_reference(&field));
    let key = secret(reader, "key");
    let algorithm = reader
        .need("algorithm", "write algorithm: ed25519")
        .and_then(|field| field.choice(&HTTP_ALGORITHMS));
    let components = reader
        .need("components", "write components: [\"@method\", \"@target-uri\"]")
        .and_then(components);
    let label = match reader.take("label") {
        None => Some("sig1".to_owned()),
        Some(field) => label(&field),
    };
    let boolean = |key, default| reader.take(key).map_or(Some(default), Field::boolean);
    let created = boolean("created", true);
    let nonce = boolean("nonce", false);
    let names_algorithm = boolean("alg", false);
    let expires = optional(reader.take("expires"), |field| {
        let expires = field.clone().positive_duration()?;
        if expires.subsec_nanos() != 0 {
            field.problem("a fraction of a second", "write whole seconds, as in 5m");
            return None;
        }
        Some(expires)
    });
    let tag = optional(reader.take("tag"), |field| string(&field));
    let key_encoding = key_encoding(reader);
    let max_body = max_body(reader);

    // Below, only where everything above can be believed.
    let (algorithm, created, expires) = (algorithm?, created?, expires?);
    if let Some(field) = reader
        .take("key_encoding")
        .filter(|_| algorithm != Algorithm::HmacSha256)
    {
        field.problem(
            "only the secret of an HMAC has one",
            "remove it: a private key is PEM",
        );
    }
    if expires.is_some() && !created {
        reader.problem("expires without created", "remove created: false");
    }
    Some(HttpSignature {
        algorithm,
        components: components?,
        created,
        expires,
        key: key?,
        key_encoding: key_encoding?,
        key_id: key_id?,
        label: label?,
        max_body: max_body?,
        names_algorithm: names_algorithm?,
        nonce: nonce?,
        tag: tag?,
    })
}

pub(super) fn hmac(reader: &Reader<'_>) -> Option<Hmac> {
    let key = secret(reader, "key");
    let key_encoding = key_encoding(reader);
    let max_body = max_body(reader);
    let key_id = optional(reader.take("key_id"), |field| text_or_reference(&field));
    let algorithm = match reader.take("algorithm") {
        None => Some(Algorithm::HmacSha256),
        Some(field) => field.choice(&HMAC_ALGORITHMS),
    };
    let encoding = match reader.take("encoding") {
        None => Some(Encoding::Hex),
        Some(field) => field.choice(&[
            ("hex", Encoding::Hex),
            ("base64", Encoding::Base64),
            ("base64url", Encoding::Base64Url),
        ]),
    };
    let right = "write what the service wants to be signed, as in \"{method}\\n{target}\\n{body_sha256}\"";
    let message = reader.need("message", right).and_then(|field| {
        let message = template(&field)?;
        if message.has(&Piece::Signature) {
            field.problem(
                "{signature} cannot be part of what is signed",
                "write it in `set`",
            );
            return None;
        }
        if message.0.iter().all(|piece| matches!(piece, Piece::Text(_))) {
            field.problem("the same for every request", right);
            return None;
        }
        Some(message)
    });
    let set = reader
        .need("set", "write set: { X-Signature: '{signature}' }")
        .and_then(set);
    let (key_id, message, set) = (key_id?, message?, set?);
    let names_key = message.has(&Piece::KeyId) || set.iter().any(|(_, value)| value.has(&Piece::KeyId));
    if names_key && key_id.is_none() {
        reader.problem("{key_id} without a key_id", "write key_id: NAME");
    }
    Some(Hmac {
        algorithm: algorithm?,
        encoding: encoding?,
        key: key?,
        key_encoding: key_encoding?,
        key_id,
        max_body: max_body?,
        message,
        set,
    })
}

/// A value that may be left out: `None` only where there is a wrong one.
fn optional<'a, T>(
    field: Option<Field<'a>>,
    decode: impl FnOnce(Field<'a>) -> Option<T>,
) -> Option<Option<T>> {
    match field {
        None => Some(None),
        Some(field) => decode(field).map(Some),
    }
}

fn secret(reader: &Reader<'_>, name: &str) -> Option<SecretRef> {
    reader.need(name, REFERENCE).and_then(Field::secret)
}

fn text_or_reference(field: &Field<'_>) -> Option<Text> {
    let text = field.text("write a name or a reference")?;
    match SecretRef::parse(text, field.decoding.environment) {
        Some(Ok(reference)) => Some(Text::Reference(reference)),
        Some(Err(error)) => {
            field.problem(&error, error.right());
            None
        }
        None => string(field).map(Text::Plain),
    }
}

/// What can stand between quotes in a field.
fn string(field: &Field<'_>) -> Option<String> {
    let text = field.text("write a text")?;
    let is_plain = |c: char| matches!(c, ' '..='~') && c != '"' && c != '\\';
    if text.is_empty() || !text.chars().all(is_plain) {
        field.problem(
            "has to be visible ASCII, without quotes and backslashes",
            "write it without",
        );
        return None;
    }
    Some(text.to_owned())
}

/// A part of the scope of an AWS key.
fn scope(field: &Field<'_>) -> Option<String> {
    let right = "write it as AWS does, as in s3 or us-gov-west-1";
    let text = field.text(right)?;
    let is_word = |byte| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(is_word) {
        field.problem("not the name of a service or a region", right);
        return None;
    }
    Some(text.to_owned())
}

/// A key of a structured field (RFC 9651, section 3.1.2).
fn label(field: &Field<'_>) -> Option<String> {
    let right = "write a name of small letters, digits, -, _, . and *, as in sig1";
    let text = field.text(right)?;
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '*');
    let goes_on = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*');
    if !begins || !text.bytes().all(goes_on) {
        field.problem("not the name of a signature", right);
        return None;
    }
    Some(text.to_owned())
}

fn components(field: Field<'_>) -> Option<Vec<Component>> {
    let items = field.filled_list("write at least one component")?;
    let mut components = Vec::with_capacity(items.len());
    for item in &items {
        let text = item.text("write the name of a component, as in \"@method\"")?;
        let component = item.kept(text, Component::parse(text))?;
        if components.contains(&component) {
            item.problem("stands there already", "remove it: each is signed once");
        }
        components.push(component);
    }
    Some(components)
}

fn template(field: &Field<'_>) -> Option<Template> {
    let text = field.text("write a text with {placeholders}")?;
    field.kept(text, Template::parse(text))
}

fn set(field: Field<'_>) -> Option<Vec<(HeaderName, Template)>> {
    let whole = field.clone();
    let mut set = Vec::new();
    for (entry, field) in field.named() {
        let name = header_name(&field, &entry.key)?;
        let value = template(&field)?;
        if value.has(&Piece::Body) {
            field.problem("a body cannot stand in a header", "write {body_sha256}");
            return None;
        }
        let is_text = |piece: &Piece| match piece {
            Piece::Text(text) => HeaderValue::from_str(text).is_ok(),
            _ => true,
        };
        if !value.0.iter().all(is_text) {
            field.problem("cannot stand in a header", "write it in one line");
            return None;
        }
        set.push((name, value));
    }
    if !set.iter().any(|(_, value)| value.has(&Piece::Signature)) {
        whole.problem(
            "no field says the signature",
            "write one, as in X-Signature: '{signature}'",
        );
        return None;
    }
    Some(set)
}

fn key_encoding(reader: &Reader<'_>) -> Option<KeyEncoding> {
    let Some(field) = reader.take("key_encoding") else {
        return Some(KeyEncoding::Text);
    };
    field.choice(&[
        ("text", KeyEncoding::Text),
        ("base64", KeyEncoding::Base64),
        ("hex", KeyEncoding::Hex),
    ])
}

fn max_body(reader: &Reader<'_>) -> Option<usize> {
    let size = match reader.take("max_body") {
        None => return Some(MAX_BODY),
        Some(field) => field.size("0B", "64MiB")?,
    };
    usize::try_from(size).ok()
}

/// The one secret that need not be there.
pub(crate) const SESSION_TOKEN: &str = "aws_sigv4.session_token";

/// Enough for the calls of nearly every API, and little beside what a sidecar has.
const MAX_BODY: usize = 1024 * 1024;

/// As [`keys`](crate::config::keys) has them.
const HTTP_ALGORITHMS: [(&str, Algorithm); 6] = [
    ("ecdsa-p256-sha256", Algorithm::EcdsaP256Sha256),
    ("ecdsa-p384-sha384", Algorithm::EcdsaP384Sha384),
    ("ed25519", Algorithm::Ed25519),
    ("hmac-sha256", Algorithm::HmacSha256),
    ("rsa-pss-sha512", Algorithm::RsaPssSha512),
    ("rsa-v1_5-sha256", Algorithm::RsaPkcs1Sha256),
];

const HMAC_ALGORITHMS: [(&str, Algorithm); 4] = [
    ("sha1", Algorithm::HmacSha1),
    ("sha256", Algorithm::HmacSha256),
    ("sha384", Algorithm::HmacSha384),
    ("sha512", Algorithm::HmacSha512),
];

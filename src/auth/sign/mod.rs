//! Signatures: made anew for each request, since they cover it and the time.
//!
//! Each signer takes a [`Subject`], the request as it is about to leave, and sets the fields of its kind. What stands
//! there of an earlier signature goes, be it the app's or, where a request is sent again, our own. How much of the body
//! a signer has to see it says before, by `hashes`.

use std::fmt;
use std::time::SystemTime;

use aws_lc_rs::digest;
use data_encoding::{BASE64_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use zeroize::Zeroizing;

use super::hidden;
use super::key::{self, SigningKey};
use crate::config::{Algorithm, Auth, KeyEncoding, SecretRef, Text};
use crate::host::Scheme;
use crate::secret::{self, Sources};

pub(super) mod aws;
mod hmac;
mod message;

/// What signs.
#[derive(Debug)]
pub(crate) enum Signer {
    Aws(aws::Aws),
    Hmac(hmac::Hmac),
    Message(message::Message),
}

impl Signer {
    /// `None` where a credential of this kind does not sign.
    pub(super) fn build(auth: &Auth, sources: &Sources) -> Result<Option<Self>, Error> {
        Ok(Some(match auth {
            Auth::AwsSigV4(settings) => Self::Aws(aws::Aws::build(settings, sources)?),
            Auth::Hmac(settings) => Self::Hmac(hmac::Hmac::build(settings, sources)?),
            Auth::HttpSignature(settings) => Self::Message(message::Message::build(settings, sources)?),
            _ => return Ok(None),
        }))
    }

    /// How much of a body it has to see, in bytes; `None`: nothing of it.
    pub(super) fn hashes(&self) -> Option<usize> {
        match self {
            Self::Aws(aws) => aws.hashes(),
            Self::Hmac(hmac) => hmac.hashes(),
            Self::Message(message) => message.hashes(),
        }
    }

    /// The fields of a request that it sets.
    pub(super) fn fields(&self) -> Vec<HeaderName> {
        match self {
            Self::Aws(_) => aws::FIELDS.to_vec(),
            Self::Hmac(hmac) => hmac.fields().cloned().collect(),
            Self::Message(message) => message.fields(),
        }
    }

    /// Signs, in the place of what is signed already.
    pub(super) fn sign(&self, subject: &mut Subject<'_>) -> Result<(), Error> {
        match self {
            Self::Aws(aws) => aws.sign(subject),
            Self::Hmac(hmac) => hmac.sign(subject),
            Self::Message(message) => message.sign(subject),
        }
    }
}

/// What is signed: the request as it will leave, but for what the signature adds.
pub(crate) struct Subject<'a> {
    pub(crate) head: &'a mut Parts,
    /// As the Host field or `:authority` will say it.
    pub(crate) authority: &'a str,
    pub(crate) scheme: Scheme,
    pub(crate) payload: Payload<'a>,
    pub(crate) now: SystemTime,
}

/// The body of what is signed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload<'a> {
    /// More than the signer asked for.
    Streamed,
    /// All of it; empty where there is none.
    Whole(&'a [u8]),
}

/// Why there is no signer, or no signature. Never shows a secret, nor more of a request than the names of its fields.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "the app signs each chunk of the body (x-amz-content-sha256: STREAMING-AWS4-…), which nobody can sign again; \
         turn the signing of payloads off in its SDK"
    )]
    ChunkSignatures,

    #[error(transparent)]
    Key(#[from] key::Error),

    #[error(
        "the request has no {component}, or more than one, and the signature has to cover it; leave it out of \
         components, or write a rule with `match` for such requests"
    )]
    Missing { component: String },

    #[error("no room for the signature: the request's header fields are at their limit")]
    NoRoom,

    #[error("the field {name} of the request is not ASCII, which a signature cannot cover; write {name};bs")]
    NotAscii { name: HeaderName },

    #[error("{place}: this is not {what}; it has to be one line of letters, digits and a few marks")]
    NotOne { place: Place, what: &'static str },

    #[error(transparent)]
    Secret(#[from] secret::Error),

    #[error(
        "{kind} signs the body, and this one is larger than {most} bytes; raise max_body, or send it in smaller parts"
    )]
    TooLarge { kind: &'static str, most: usize },
}

impl Error {
    /// Whether another request could be signed: then it is the app that can mend it.
    pub(crate) fn is_of_request(&self) -> bool {
        match self {
            Self::ChunkSignatures
            | Self::Missing { .. }
            | Self::NoRoom
            | Self::NotAscii { .. }
            | Self::TooLarge { .. } => true,
            Self::Key(_) | Self::NotOne { .. } | Self::Secret(_) => false,
        }
    }
}

/// Where something came from.
#[derive(Debug)]
pub(crate) enum Place {
    Key(&'static str),
    Reference(SecretRef),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(key),
            Self::Reference(reference) => reference.fmt(f),
        }
    }
}

/// A key that may be the secret of an HMAC, which has an encoding.
fn key_of(
    reference: &SecretRef,
    algorithm: Algorithm,
    encoding: KeyEncoding,
    sources: &Sources,
) -> Result<SigningKey, Error> {
    let what = match encoding {
        KeyEncoding::Text => return Ok(SigningKey::load(reference, algorithm, sources)?),
        KeyEncoding::Base64 => "base64",
        KeyEncoding::Hex => "hexadecimal",
    };
    let secret = sources.read(reference)?;
    let bytes = match encoding {
        KeyEncoding::Hex => HEXLOWER_PERMISSIVE.decode(secret.expose()).ok(),
        KeyEncoding::Base64 | KeyEncoding::Text => from_base64(secret.expose()),
    };
    let key = bytes.and_then(|bytes| SigningKey::of_bytes(&Zeroizing::new(bytes), algorithm));
    key.ok_or_else(|| Error::NotOne {
        place: Place::Reference(reference.clone()),
        what,
    })
}

/// Of either alphabet, padded or not.
fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let length = text.iter().rposition(|byte| *byte != b'=')? + 1;
    let mut text = Zeroizing::new(text[..length].to_vec());
    for byte in text.iter_mut() {
        match byte {
            b'-' => *byte = b'+',
            b'_' => *byte = b'/',
            _ => {}
        }
    }
    BASE64_NOPAD.decode(&text).ok()
}

/// What a server knows a key by, as it can stand between quotes.
fn key_id(written: &Text, sources: &Sources) -> Result<Box<str>, Error> {
    let (secret, place) = match written {
        Text::Plain(text) => return Ok(text.as_str().into()),
        Text::Reference(reference) => (sources.read(reference)?, reference.clone()),
    };
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    let text = std::str::from_utf8(secret.expose()).ok();
    let text = text.filter(|text| text.bytes().all(is_plain));
    text.map(Box::from).ok_or(Error::NotOne {
        place: Place::Reference(place),
        what: "the name of a key",
    })
}

/// A random value that is used once.
fn nonce() -> String {
    HEXLOWER.encode(&rand::random::<[u8; 16]>())
}

fn set(fields: &mut HeaderMap, name: HeaderName, value: HeaderValue) -> Result<(), Error> {
    fields.try_insert(name, value).map_err(|_| Error::NoRoom)?;
    Ok(())
}

/// A field value. Every caller has checked the bytes; should one not have, it is an error, not a panic.
fn plain(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|_| Error::NoRoom)
}

/// As [`plain`], and not shown.
fn sensitive(text: &[u8]) -> Result<HeaderValue, Error> {
    hidden(Zeroizing::new(text.to_vec())).ok_or(Error::NoRoom)
}

fn sha256(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

fn sha256_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(sha256(bytes).as_ref())
}

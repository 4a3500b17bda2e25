//! Signatures of requests. Each request gets a new one, because it covers the request and the time.
//!
//! Each signer takes a [`RequestToSign`], the request as it will be sent, and sets its fields. It removes an
//! earlier signature: the app's or, if the request is sent again, our own. `hashes` says how much of the body a
//! signer needs.

use std::fmt;
use std::time::SystemTime;

use aws_lc_rs::digest;
use data_encoding::{BASE64_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use http::header::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::hidden;
use super::key::{self, SigningKey};
use crate::config::{Algorithm, Auth, KeyEncoding, SecretRef, Text};
use crate::host::Scheme;
use crate::message::RequestHead;
use crate::secret::{self, Snapshot};

pub(super) mod aws;
mod hmac;
mod message;

/// The kinds of signatures.
#[derive(Debug)]
pub(crate) enum Signer {
    Aws(aws::AwsSigner),
    Hmac(hmac::HmacSigner),
    Message(message::MessageSigner),
}

impl Signer {
    /// Builds the signer of a credential. `None`: this kind does not sign.
    pub(super) fn build(auth: &Auth, snapshot: &Snapshot) -> Result<Option<Self>, Error> {
        Ok(Some(match auth {
            Auth::AwsSigV4(settings) => Self::Aws(aws::AwsSigner::build(settings, snapshot)?),
            Auth::Hmac(settings) => Self::Hmac(hmac::HmacSigner::build(settings, snapshot)?),
            Auth::HttpSignature(settings) => {
                Self::Message(message::MessageSigner::build(settings, snapshot)?)
            }
            _ => return Ok(None),
        }))
    }

    /// Returns how many bytes of a body it signs at most. `None`: it does not sign the body.
    pub(super) fn hashes(&self) -> Option<usize> {
        match self {
            Self::Aws(aws) => aws.hashes(),
            Self::Hmac(hmac) => hmac.hashes(),
            Self::Message(message) => message.hashes(),
        }
    }

    /// Returns the fields of a request that it sets.
    pub(super) fn fields(&self) -> Vec<HeaderName> {
        match self {
            Self::Aws(_) => aws::FIELDS.to_vec(),
            Self::Hmac(hmac) => hmac.fields().cloned().collect(),
            Self::Message(message) => message.fields(),
        }
    }

    /// Signs, replacing an earlier signature.
    pub(super) fn sign(&self, request: &mut RequestToSign<'_>) -> Result<(), Error> {
        match self {
            Self::Aws(aws) => aws.sign(request),
            Self::Hmac(hmac) => hmac.sign(request),
            Self::Message(message) => message.sign(request),
        }
    }
}

/// The request as it will be sent, except for the fields of the signature.
pub(crate) struct RequestToSign<'a> {
    pub(crate) head: &'a mut RequestHead,
    /// The value of Host or `:authority`.
    pub(crate) authority: &'a str,
    pub(crate) scheme: Scheme,
    pub(crate) payload: Payload<'a>,
    pub(crate) now: SystemTime,
}

/// The body of a request to sign.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload<'a> {
    /// Larger than the signer can take.
    Streamed,
    /// The whole body; empty if the request has no body.
    Whole(&'a [u8]),
}

/// Why a signer cannot be built, or cannot sign. Shows no secret, and of a request only the names of its fields.
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
    NotOne { place: ValueOrigin, what: &'static str },

    #[error(transparent)]
    Secret(#[from] secret::Error),

    #[error(
        "{kind} signs the body, and this one is larger than {most} bytes; raise max_body, or send it in smaller parts"
    )]
    TooLarge { kind: &'static str, most: usize },
}

impl Error {
    /// Returns whether the request is the reason, so that the app can fix it.
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

/// Where a value came from: a key of the configuration, or a secret.
#[derive(Debug)]
pub(crate) enum ValueOrigin {
    Key(&'static str),
    Reference(SecretRef),
}

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(key),
            Self::Reference(reference) => reference.fmt(f),
        }
    }
}

/// Reads a key. The secret of an HMAC may be encoded.
fn key_of(
    reference: &SecretRef,
    algorithm: Algorithm,
    encoding: KeyEncoding,
    snapshot: &Snapshot,
) -> Result<SigningKey, Error> {
    let what = match encoding {
        KeyEncoding::Text => return Ok(SigningKey::load(reference, algorithm, snapshot)?),
        KeyEncoding::Base64 => "base64",
        KeyEncoding::Hex => "hexadecimal",
    };
    let secret = snapshot.read(reference)?;
    let bytes = match encoding {
        KeyEncoding::Hex => HEXLOWER_PERMISSIVE.decode(secret.expose()).ok(),
        KeyEncoding::Base64 | KeyEncoding::Text => from_base64(secret.expose()),
    };
    let key = bytes.and_then(|bytes| SigningKey::of_bytes(&Zeroizing::new(bytes), algorithm));
    key.ok_or_else(|| Error::NotOne {
        place: ValueOrigin::Reference(reference.clone()),
        what,
    })
}

/// Decodes base64 of either alphabet, padded or not.
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

/// Reads the id of a key. It must be valid between quotes.
fn key_id(written: &Text, snapshot: &Snapshot) -> Result<Box<str>, Error> {
    let (secret, place) = match written {
        Text::Plain(text) => return Ok(text.as_str().into()),
        Text::Reference(reference) => (snapshot.read(reference)?, reference.clone()),
    };
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    let text = std::str::from_utf8(secret.expose()).ok();
    let text = text.filter(|text| text.bytes().all(is_plain));
    text.map(Box::from).ok_or(Error::NotOne {
        place: ValueOrigin::Reference(place),
        what: "the name of a key",
    })
}

/// Returns a random value for a single use.
fn nonce() -> String {
    HEXLOWER.encode(&rand::random::<[u8; 16]>())
}

/// Makes a field value. Every caller has checked the bytes. If one has not, it is an error, not a panic.
fn plain(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|_| Error::NoRoom)
}

/// Makes a field value that `Debug` does not show.
fn sensitive(text: &[u8]) -> Result<HeaderValue, Error> {
    hidden(Zeroizing::new(text.to_vec())).ok_or(Error::NoRoom)
}

fn sha256(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

fn sha256_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(sha256(bytes).as_ref())
}

//! Signatures: made anew for each request, since they cover it and the time.
//!
//! Each signer takes a [`Subject`], the request as it is about to leave, and sets the fields of its kind. What stands
//! there of an earlier signature goes, be it the app's or, where a request is sent again, our own. How much of the body
//! a signer has to see it says before, by `hashes`.

use std::fmt;
use std::time::SystemTime;

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use super::key;
use crate::config::SecretRef;
use crate::host::Scheme;
use crate::secret;

pub(crate) mod aws;

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

    #[error("no room for the signature: the request's header fields are at their limit")]
    NoRoom,

    #[error("{place}: this is not {what}; it has to be one line of letters, digits and a few marks")]
    NotOne { place: Place, what: &'static str },

    #[error(transparent)]
    Secret(#[from] secret::Error),

    #[error(
        "{kind} signs the body, and this one is larger than {most} bytes; raise max_body, or send it in smaller parts"
    )]
    TooLarge { kind: &'static str, most: usize },
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
    let mut value = HeaderValue::from_bytes(text).map_err(|_| Error::NoRoom)?;
    value.set_sensitive(true);
    Ok(value)
}

fn sha256(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

fn sha256_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(sha256(bytes).as_ref())
}

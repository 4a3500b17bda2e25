//! One stored response.
//!
//! It is immutable and shared by all requests that it answers: a hit copies the fields, but not the body. When a
//! response is stored, its bytes are copied into one buffer. So an entry keeps no larger buffer alive, and its
//! size is known.
//!
//! How long it is fresh is in [`freshness`](super::freshness), which requests it answers in [`key`](super::key).

use std::time::SystemTime;

use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::freshness::Freshness;
use super::key::{RequestIdentity, SelectingFields};
use crate::fields::date;
use crate::message::{Fields, Response};
use crate::units::http_date;

/// Fields of a 304 that are ignored, because the stored bytes do not change.
const OF_THE_BYTES: [HeaderName; 5] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ETAG,
    HeaderName::from_static("content-md5"),
];

/// Fields that a 304 leaves out (RFC 9110 section 15.4.5).
const OF_THE_BODY: [HeaderName; 5] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    HeaderName::from_static("content-md5"),
];

/// What one field takes in the map beside its text, in bytes: name, value, hash, index and the name's buffer.
const FIELD: usize = 160;

/// What the entry itself takes and what the allocator adds, in bytes.
const OVERHEAD: usize = 512;

/// A stored response.
#[derive(Debug)]
pub(crate) struct CacheEntry {
    pub(super) identity: RequestIdentity,
    pub(super) choice: SelectingFields,
    pub(super) freshness: Freshness,
    head: StoredHead,
    body: Bytes,
}

/// Status and fields, copied into one buffer.
#[derive(Clone, Debug)]
pub(super) struct StoredHead {
    status: StatusCode,
    fields: Fields,
    /// In bytes, as it lies in memory.
    size: usize,
}

impl CacheEntry {
    pub(super) fn new(
        identity: RequestIdentity,
        choice: SelectingFields,
        freshness: Freshness,
        head: StoredHead,
        body: Bytes,
    ) -> Self {
        Self {
            identity,
            choice,
            freshness,
            head,
            body,
        }
    }

    /// Returns the bytes that the entry takes, all included.
    pub(super) fn size(&self) -> usize {
        OVERHEAD + self.head.size + self.choice.size() + self.body.len()
    }

    /// Builds a response from this entry, with `Age` as of `now`.
    pub(crate) fn answer(&self, now: Instant) -> Response<Bytes> {
        let mut response = Response::new(self.body.clone());
        *response.status_mut() = self.head.status;
        *response.headers_mut() = self.head.fields.clone();
        self.set_age(response.headers_mut(), now);
        response
    }

    /// Builds the response to HEAD: the same without the body.
    pub(crate) fn answer_to_head(&self, now: Instant) -> Response<Bytes> {
        let mut response = self.answer(now);
        response.body_mut().clear();
        let has_none = self.head.status == StatusCode::NO_CONTENT;
        if !has_none && !response.headers().contains_key(header::CONTENT_LENGTH) {
            let length = HeaderValue::from(self.body.len());
            response.headers_mut().insert(header::CONTENT_LENGTH, length);
        }
        response
    }

    /// Builds a 304, for a client that already has the response.
    pub(crate) fn not_modified(&self, now: Instant) -> Response<Bytes> {
        let mut response = self.answer(now);
        response.body_mut().clear();
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        for name in OF_THE_BODY {
            response.headers_mut().remove(name);
        }
        response
    }

    fn set_age(&self, fields: &mut Fields, now: Instant) {
        fields.insert(header::AGE, HeaderValue::from(self.freshness.age(now).as_secs()));
    }

    /// Whether the entry must not be used once it is stale, so that after a failed revalidation only an error is
    /// left (RFC 9111 section 5.2.2.2).
    pub(crate) fn must_revalidate_stale(&self) -> bool {
        self.freshness.must_revalidate_stale()
    }

    /// Whether a conditional request is answered with 304 (RFC 9110 section 13.2.2).
    pub(crate) fn has_not_changed_for(&self, request: &Fields) -> bool {
        if !self.head.status.is_success() {
            return false;
        }
        if request.contains_key(header::IF_NONE_MATCH) {
            let own = self
                .head
                .fields
                .get(header::ETAG)
                .map(|tag| opaque(tag.as_bytes()));
            let mut tags = request.get_all(header::IF_NONE_MATCH).flat_map(tags);
            return tags.any(|tag| tag == b"*" || Some(opaque(tag)) == own);
        }
        let Some(since) = date(request, &header::IF_MODIFIED_SINCE) else {
            return false;
        };
        let modified = date(&self.head.fields, &header::LAST_MODIFIED);
        // RFC 9111 section 4.3.2: without Last-Modified, Date is used.
        modified
            .or_else(|| date(&self.head.fields, &header::DATE))
            .is_some_and(|modified| modified <= since)
    }

    /// Makes a request conditional on this entry, replacing any condition of the app. Returns false where the
    /// entry has no validator.
    pub(crate) fn validate(&self, request: &mut Fields) -> bool {
        let (tag, modified) = (
            self.head.fields.get(header::ETAG),
            self.head.fields.get(header::LAST_MODIFIED),
        );
        if tag.is_none() && modified.is_none() {
            return false;
        }
        for (value, name) in [
            (tag, header::IF_NONE_MATCH),
            (modified, header::IF_MODIFIED_SINCE),
        ] {
            match value {
                Some(value) => request.insert(name, value.clone()),
                None => drop(request.remove(name)),
            }
        }
        true
    }

    /// Whether a 304 with these fields is about this entry (RFC 9111 section 4.3.4).
    pub(super) fn is_confirmed_by(&self, confirmation: &Fields) -> bool {
        match (self.head.fields.get(header::ETAG), confirmation.get(header::ETAG)) {
            (Some(own), Some(other)) => opaque(own.as_bytes()) == opaque(other.as_bytes()),
            (None, _) | (_, None) => true,
        }
    }

    /// Whether the response to a HEAD is about a different body (RFC 9111 section 4.3.5).
    pub(super) fn differs_from(&self, status: StatusCode, fields: &Fields) -> bool {
        status != self.head.status
            || [header::ETAG, header::LAST_MODIFIED, header::CONTENT_LENGTH].iter().any(|name| {
                matches!((self.head.fields.get(name), fields.get(name)), (Some(own), Some(other)) if own != other)
            })
    }

    pub(super) fn head(&self) -> &StoredHead {
        &self.head
    }

    pub(super) fn body(&self) -> &Bytes {
        &self.body
    }
}

impl StoredHead {
    /// `received`: the value of Date where the upstream sent none.
    pub(super) fn new(status: StatusCode, fields: &Fields, received: SystemTime) -> Self {
        let mut kept: Vec<(HeaderName, &[u8])> = Vec::with_capacity(fields.len() + 2);
        // Replaced in each response; the room for it is already there.
        kept.push((header::AGE, b"0"));
        for (name, value) in fields {
            if *name != header::AGE && !is_momentary(name) {
                kept.push((name.clone(), value.as_bytes()));
            }
        }
        let made;
        if !fields.contains_key(header::DATE) {
            made = http_date(received);
            kept.push((header::DATE, made.as_bytes()));
        }
        Self::of(status, &kept)
    }

    /// Returns the head with the fields of a 304 in place of the old ones (RFC 9111 section 3.2).
    pub(super) fn confirmed(&self, confirmation: &Fields) -> Self {
        let is_updated = |name: &HeaderName| {
            confirmation.contains_key(name)
                && !OF_THE_BYTES.contains(name)
                && *name != header::AGE
                && !is_momentary(name)
        };
        let own = self.fields.iter().filter(|(name, _)| !is_updated(name));
        let new = confirmation.iter().filter(|(name, _)| is_updated(name));
        let kept: Vec<_> = own
            .chain(new)
            .map(|(name, value)| (name.clone(), value.as_bytes()))
            .collect();
        Self::of(self.status, &kept)
    }

    fn of(status: StatusCode, kept: &[(HeaderName, &[u8])]) -> Self {
        let bytes = kept.iter().map(|(_, value)| value.len()).sum();
        let mut buffer = BytesMut::with_capacity(bytes);
        let mut fields = Fields::with_capacity(kept.len());
        let mut size = bytes;
        for (name, value) in kept {
            buffer.put_slice(value);
            // They have been valid values before.
            if let Ok(value) = HeaderValue::from_maybe_shared(buffer.split().freeze()) {
                size += name.as_str().len() + FIELD;
                fields.append(name.clone(), value);
            }
        }
        Self { status, fields, size }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn fields(&self) -> &Fields {
        &self.fields
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }
}

/// Whether a field reports what is left of a quota: it is true when it is sent, not later.
pub(crate) fn is_momentary(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("ratelimit") || name.starts_with("x-ratelimit") || name.starts_with("x-rate-limit")
}

/// Returns the entity tags of a line, with their weak marks.
fn tags(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let mut rest = line.as_bytes();
    std::iter::from_fn(move || {
        rest = &rest[rest
            .iter()
            .position(|byte| !matches!(byte, b',' | b' ' | b'\t'))?..];
        // A comma inside the quotes is part of the tag.
        let mut is_quoted = false;
        let end = rest.iter().position(|byte| {
            is_quoted ^= *byte == b'"';
            *byte == b',' && !is_quoted
        });
        let (tag, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        Some(tag.trim_ascii_end())
    })
}

/// Returns the part of a tag that the weak comparison uses (RFC 9110 section 8.8.3.2).
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

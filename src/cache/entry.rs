//! One stored answer.
//!
//! It is immutable, and shared by all that send it: a hit copies its fields and not its body. What comes from the wire
//! is copied together when it is stored, so that an entry holds on to no larger buffer and its size is known.
//!
//! How long it is good is in [`terms`](super::terms), for which requests in [`key`](super::key).

use std::time::SystemTime;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use tokio::time::Instant;

use super::key::{Choice, Identity};
use super::terms::Terms;
use crate::units::http_date;

/// A stored answer; cheap to clone.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(super) identity: Identity,
    pub(super) choice: Choice,
    pub(super) terms: Terms,
    head: Head,
    body: Bytes,
}

/// Status and fields, in buffers of their own.
#[derive(Clone, Debug)]
pub(super) struct Head {
    status: StatusCode,
    fields: HeaderMap,
    /// In bytes, as it lies in memory.
    size: usize,
}

impl Entry {
    pub(super) fn new(identity: Identity, choice: Choice, terms: Terms, head: Head, body: Bytes) -> Self {
        Self {
            identity,
            choice,
            terms,
            head,
            body,
        }
    }

    /// Everything that it takes, in bytes.
    pub(super) fn size(&self) -> usize {
        OVERHEAD + self.head.size + self.choice.size() + self.body.len()
    }

    /// The answer to a request that has this one coming to it, as old as it is `now`.
    pub(crate) fn answer(&self, now: Instant) -> Response<Bytes> {
        let mut response = Response::new(self.body.clone());
        *response.status_mut() = self.head.status;
        *response.headers_mut() = self.head.fields.clone();
        self.tell_age(response.headers_mut(), now);
        response
    }

    /// The same without its body, to HEAD.
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

    /// 304, to a request that has the answer already.
    pub(crate) fn not_modified(&self, now: Instant) -> Response<Bytes> {
        let mut response = self.answer(now);
        response.body_mut().clear();
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        for name in OF_THE_BODY {
            response.headers_mut().remove(name);
        }
        response
    }

    fn tell_age(&self, fields: &mut HeaderMap, now: Instant) {
        fields.insert(header::AGE, HeaderValue::from(self.terms.age(now).as_secs()));
    }

    /// Whether it must not be used once it is stale, so that a failure is all that can be said (RFC 9111 section 5.2.2.2).
    pub(crate) fn must_be_confirmed(&self) -> bool {
        self.terms.must_be_confirmed()
    }

    /// Whether a conditional request finds its condition met, so that 304 answers it (RFC 9110 section 13.2.2).
    pub(crate) fn has_not_changed_for(&self, request: &HeaderMap) -> bool {
        if !self.head.status.is_success() {
            return false;
        }
        if request.contains_key(header::IF_NONE_MATCH) {
            let own = self
                .head
                .fields
                .get(header::ETAG)
                .map(|tag| opaque(tag.as_bytes()));
            let mut tags = request.get_all(header::IF_NONE_MATCH).iter().flat_map(tags);
            return tags.any(|tag| tag == b"*" || Some(opaque(tag)) == own);
        }
        let Some(since) = date(request, header::IF_MODIFIED_SINCE) else {
            return false;
        };
        let modified = date(&self.head.fields, header::LAST_MODIFIED);
        // RFC 9111 section 4.3.2: without a time of its change, that of its making.
        modified
            .or_else(|| date(&self.head.fields, header::DATE))
            .is_some_and(|modified| modified <= since)
    }

    /// Makes a request ask whether this is still right, in place of whatever condition the app has put. False: there is
    /// nothing to ask by.
    pub(crate) fn validate(&self, request: &mut HeaderMap) -> bool {
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
                None => request.remove(name),
            };
        }
        true
    }

    /// Whether a 304 with these fields speaks of this answer (RFC 9111 section 4.3.4).
    pub(super) fn is_meant_by(&self, confirmation: &HeaderMap) -> bool {
        match (self.head.fields.get(header::ETAG), confirmation.get(header::ETAG)) {
            (Some(own), Some(other)) => opaque(own.as_bytes()) == opaque(other.as_bytes()),
            (None, _) | (_, None) => true,
        }
    }

    /// Whether the answer to a HEAD speaks of another body than this one (RFC 9111 section 4.3.5).
    pub(super) fn differs_from(&self, status: StatusCode, fields: &HeaderMap) -> bool {
        status != self.head.status
            || [header::ETAG, header::LAST_MODIFIED, header::CONTENT_LENGTH].iter().any(|name| {
                matches!((self.head.fields.get(name), fields.get(name)), (Some(own), Some(other)) if own != other)
            })
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    pub(super) fn body(&self) -> &Bytes {
        &self.body
    }
}

impl Head {
    /// `received`: what Date says where the upstream said nothing.
    pub(super) fn new(status: StatusCode, fields: &HeaderMap, received: SystemTime) -> Self {
        let mut kept: Vec<(HeaderName, &[u8])> = Vec::with_capacity(fields.len() + 2);
        // Put right in each answer; its place is there already.
        kept.push((header::AGE, b"0"));
        for (name, value) in fields {
            if *name != header::AGE && !is_of_its_moment(name) {
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

    /// With the fields of a 304 in place of its own (RFC 9111 section 3.2).
    pub(super) fn confirmed(&self, confirmation: &HeaderMap) -> Self {
        let is_updated = |name: &HeaderName| {
            confirmation.contains_key(name)
                && !OF_THE_BYTES.contains(name)
                && *name != header::AGE
                && !is_of_its_moment(name)
        };
        let own = (self.fields.iter()).filter(|(name, _)| !is_updated(name));
        let new = (confirmation.iter()).filter(|(name, _)| is_updated(name));
        let kept: Vec<_> = (own.chain(new))
            .map(|(name, value)| (name.clone(), value.as_bytes()))
            .collect();
        Self::of(self.status, &kept)
    }

    fn of(status: StatusCode, kept: &[(HeaderName, &[u8])]) -> Self {
        let bytes = kept.iter().map(|(_, value)| value.len()).sum();
        let mut buffer = BytesMut::with_capacity(bytes);
        let mut fields = HeaderMap::with_capacity(kept.len());
        let mut size = bytes;
        for (name, value) in kept {
            buffer.put_slice(value);
            // They were values before.
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

    pub(super) fn fields(&self) -> &HeaderMap {
        &self.fields
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }
}

/// Fields that tell how much of a quota is left: true of the moment they were sent, not of any later one.
pub(crate) fn is_of_its_moment(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("ratelimit") || name.starts_with("x-ratelimit") || name.starts_with("x-rate-limit")
}

/// The entity tags of a line, weak marks included.
fn tags(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let mut rest = line.as_bytes();
    std::iter::from_fn(move || {
        rest = &rest[rest
            .iter()
            .position(|byte| !matches!(byte, b',' | b' ' | b'\t'))?..];
        // A comma inside of the quotes is part of the tag.
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

/// What the weak comparison looks at (RFC 9110 section 8.8.3.2).
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn date(fields: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(fields.get(name)?.to_str().ok()?).ok()
}

/// What a 304 may be wrong about, since the bytes stay as they were.
const OF_THE_BYTES: [HeaderName; 5] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ETAG,
    HeaderName::from_static("content-md5"),
];

/// What a 304 need not repeat (RFC 9110 section 15.4.5).
const OF_THE_BODY: [HeaderName; 5] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    HeaderName::from_static("content-md5"),
];

/// A field in the map, beside its text: name, value, hash, index, and what its name is kept in.
const FIELD: usize = 160;
/// The entry itself and what the allocator adds.
const OVERHEAD: usize = 512;

//! A credential in the query string. It replaces the app's parameter of that name; the rest stays unchanged.

use std::borrow::Cow;

use bytes::Bytes;
use http::Uri;
use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// All characters except the unreserved ones of RFC 3986.
pub(crate) const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// One query parameter, already encoded.
#[derive(Debug)]
pub(super) struct Parameter {
    /// The name, decoded.
    name: Box<[u8]>,
    /// `name=value`, percent-encoded.
    pair: Secret,
}

impl Parameter {
    pub(super) fn new(name: &str, value: &Secret) -> Self {
        // Allocated at once, three bytes for each: a vector that grows leaves copies behind.
        let mut pair = Zeroizing::new(Vec::with_capacity(3 * (name.len() + value.expose().len()) + 1));
        percent_encode(name.as_bytes(), RESERVED).for_each(|part| pair.extend_from_slice(part.as_bytes()));
        pair.push(b'=');
        percent_encode(value.expose(), RESERVED).for_each(|part| pair.extend_from_slice(part.as_bytes()));
        Self {
            name: name.as_bytes().into(),
            pair: Secret::new(pair),
        }
    }

    /// Replaces the parameter in `uri`. `None`: the result would not be a valid URI.
    pub(super) fn apply(&self, uri: Uri) -> Option<Uri> {
        let mut parts = uri.into_parts();
        let written = parts.path_and_query.take();
        let (path, query) = match &written {
            Some(written) if written.path() == "*" => return None,
            Some(written) => (written.path(), written.query()),
            None => ("/", None),
        };

        let pair = self.pair.expose();
        let mut text = Vec::with_capacity(path.len() + query.map_or(0, str::len) + pair.len() + 2);
        text.extend_from_slice(path.as_bytes());
        text.push(b'?');
        let others = query
            .filter(|query| !query.is_empty())
            .into_iter()
            .flat_map(|query| query.split('&'));
        for part in others.filter(|part| !self.is_named_by(part)) {
            text.extend_from_slice(part.as_bytes());
            text.push(b'&');
        }
        text.extend_from_slice(pair);

        parts.path_and_query =
            Some(PathAndQuery::from_maybe_shared(Bytes::from_owner(Zeroizing::new(text))).ok()?);
        Uri::from_parts(parts).ok()
    }

    /// Returns whether a part of a query has this name, in any encoding.
    pub(super) fn is_named_by(&self, part: &str) -> bool {
        let name = part.split_once('=').map_or(part, |(name, _)| name);
        let name = if name.contains('+') {
            Cow::Owned(name.replace('+', " "))
        } else {
            Cow::Borrowed(name)
        };
        percent_decode(name.as_bytes()).eq(self.name.iter().copied())
    }
}

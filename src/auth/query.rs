//! A credential in the query string: the app's own parameter of the name goes, ours comes, the rest stays as it was.

use std::borrow::Cow;

use bytes::Bytes;
use http::Uri;
use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// One query parameter, encoded and ready.
#[derive(Debug)]
pub(super) struct Parameter {
    /// Decoded.
    name: Box<[u8]>,
    /// `name=value`, percent-encoded.
    pair: Secret,
}

impl Parameter {
    pub(super) fn new(name: &str, value: &Secret) -> Self {
        // Room beforehand: each byte takes three at most, and growing leaves copies behind.
        let mut pair = Zeroizing::new(Vec::with_capacity(3 * (name.len() + value.expose().len()) + 1));
        percent_encode(name.as_bytes(), RESERVED).for_each(|part| pair.extend_from_slice(part.as_bytes()));
        pair.push(b'=');
        percent_encode(value.expose(), RESERVED).for_each(|part| pair.extend_from_slice(part.as_bytes()));
        Self {
            name: name.as_bytes().into(),
            pair: Secret::new(pair),
        }
    }

    /// `uri` with this parameter in place of its own of that name; `None` where it does not fit.
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

    /// Whether a piece of a query has this name, however it is spelled.
    pub(super) fn is_named_by(&self, part: &str) -> bool {
        let name = part.split_once('=').map_or(part, |(name, _)| name);
        let name = match name.contains('+') {
            true => Cow::Owned(name.replace('+', " ")),
            false => Cow::Borrowed(name),
        };
        percent_decode(name.as_bytes()).eq(self.name.iter().copied())
    }
}

/// All but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

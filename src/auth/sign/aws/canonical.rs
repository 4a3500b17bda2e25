//! The canonical request of AWS Signature Version 4: the form over which AWS and we compute the same hash.
//!
//! Services parse a request before they check its signature. So the signature covers the meaning and not the text:
//! the parameters are decoded, encoded in one way and sorted. A path loses its `.` and `..` and is encoded once
//! more. For S3, where it is an object name, it is decoded and encoded instead.

use http::Uri;
use http::header::HeaderName;
use http::uri::PathAndQuery;
use percent_encoding::{percent_decode_str, percent_encode};

use crate::auth::RESERVED;
use crate::message::Fields;

/// The query parameters of a presigned URL.
const PRESIGNED: [&str; 7] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
];

/// The parts of a request that are signed.
pub(super) struct CanonicalRequest<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    /// The value of Host.
    pub(super) authority: &'a str,
    pub(super) fields: &'a Fields,
    /// The hash of the body, or a word in its place.
    pub(super) payload: &'a str,
    /// Whether the path is an object name.
    pub(super) is_s3: bool,
}

impl CanonicalRequest<'_> {
    /// Returns the canonical request and the names of the signed fields.
    pub(super) fn text(&self, is_signed: impl Fn(&HeaderName) -> bool) -> (Vec<u8>, String) {
        let mut names: Vec<_> = self
            .fields
            .keys()
            .filter(|name| is_signed(name))
            .map(HeaderName::as_str)
            .chain(["host"])
            .collect();
        names.sort_unstable();
        names.dedup();
        let signed = names.join(";");

        let path = if self.is_s3 {
            each_segment(self.path, recoded)
        } else {
            each_segment(&without_dots(self.path), |segment| encoded(segment.as_bytes()))
        };
        let query = parameters(self.query);
        let mut text = format!("{}\n{path}\n{query}\n", self.method).into_bytes();
        for name in names {
            text.extend_from_slice(name.as_bytes());
            text.push(b':');
            if name == "host" {
                text.extend_from_slice(self.authority.as_bytes());
            } else {
                for (i, line) in self.fields.get_all(name).enumerate() {
                    if i > 0 {
                        text.push(b',');
                    }
                    squeeze(line.as_bytes(), &mut text);
                }
            }
            text.push(b'\n');
        }
        text.push(b'\n');
        text.extend_from_slice(signed.as_bytes());
        text.push(b'\n');
        text.extend_from_slice(self.payload.as_bytes());
        (text, signed)
    }
}

/// Removes a signature from the query. `None`: the query has no signature.
pub(super) fn without_signature(uri: &Uri) -> Option<Uri> {
    let query = uri.query()?;
    let is_named = |pair: &str, name: &str| {
        let its = pair.split_once('=').map_or(pair, |(its, _)| its);
        its.eq_ignore_ascii_case(name)
    };
    if !query.split('&').any(|pair| is_named(pair, "X-Amz-Signature")) {
        return None;
    }
    let others: Vec<_> = query
        .split('&')
        .filter(|pair| !PRESIGNED.iter().any(|name| is_named(pair, name)))
        .collect();
    let text = if others.is_empty() {
        uri.path().to_owned()
    } else {
        format!("{}?{}", uri.path(), others.join("&"))
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
    Uri::from_parts(parts).ok()
}

fn each_segment(path: &str, form: impl Fn(&str) -> String) -> String {
    path.split('/').map(form).collect::<Vec<_>>().join("/")
}

fn encoded(octets: &[u8]) -> String {
    percent_encode(octets, RESERVED).to_string()
}

/// Decodes and encodes a text, so that each octet has one form.
fn recoded(text: &str) -> String {
    encoded(&percent_decode_str(text).collect::<Vec<_>>())
}

/// Removes dot segments (RFC 3986, section 5.2.4) and empty segments.
fn without_dots(path: &str) -> String {
    let mut kept = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let end = if path.ends_with('/') && !kept.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{end}", kept.join("/"))
}

/// Decodes the parameters as form fields, encodes them in one way and sorts them.
fn parameters(query: &str) -> String {
    let recoded = |text: &str| recoded(&text.replace('+', " "));
    let mut pairs: Vec<_> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (recoded(name), recoded(value)))
        .collect();
    pairs.sort_unstable();
    let pairs = pairs.iter().map(|(name, value)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join("&")
}

/// Trims a value and replaces several spaces by one.
fn squeeze(value: &[u8], text: &mut Vec<u8>) {
    let words = value
        .split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|word| !word.is_empty());
    for (i, word) in words.enumerate() {
        if i > 0 {
            text.push(b' ');
        }
        text.extend_from_slice(word);
    }
}

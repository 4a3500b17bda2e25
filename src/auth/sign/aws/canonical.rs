//! A request in the one form over which AWS and we compute the same hash.
//!
//! Services take a request apart and put it together again before they check a signature, so what is signed is not the
//! text that was sent but what it means: parameters decoded and encoded in one way, in order. A path is signed as it is
//! written and encoded once more, without its `.` and `..`; but for S3, where it is an object's name.

use http::Uri;
use http::header::{HeaderMap, HeaderName};
use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// What is signed of a request.
pub(super) struct Canonical<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    /// In the place of a Host field.
    pub(super) authority: &'a str,
    pub(super) fields: &'a HeaderMap,
    /// What is said of the body.
    pub(super) payload: &'a str,
    /// The path is an object's name.
    pub(super) is_s3: bool,
}

impl Canonical<'_> {
    /// The canonical request, and the names of the fields in it.
    pub(super) fn text(&self, is_signed: impl Fn(&HeaderName) -> bool) -> (Vec<u8>, String) {
        let mut names: Vec<_> = (self.fields.keys())
            .filter(|name| is_signed(name))
            .map(HeaderName::as_str)
            .chain(["host"])
            .collect();
        names.sort_unstable();
        names.dedup();
        let signed = names.join(";");

        let path = match self.is_s3 {
            true => each_segment(self.path, recoded),
            false => each_segment(&without_dots(self.path), |segment| encoded(segment.as_bytes())),
        };
        let query = parameters(self.query);
        let mut text = format!("{}\n{path}\n{query}\n", self.method).into_bytes();
        for name in names {
            text.extend_from_slice(name.as_bytes());
            text.push(b':');
            if name == "host" {
                text.extend_from_slice(self.authority.as_bytes());
            } else {
                for (i, line) in self.fields.get_all(name).iter().enumerate() {
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

/// A URI without the parameters of a signature that stands in its query; `None` where none does.
pub(super) fn without_signature(uri: &Uri) -> Option<Uri> {
    let query = uri.query()?;
    let is_named = |pair: &str, name: &str| {
        let its = pair.split_once('=').map_or(pair, |(its, _)| its);
        its.eq_ignore_ascii_case(name)
    };
    if !query.split('&').any(|pair| is_named(pair, "X-Amz-Signature")) {
        return None;
    }
    let others: Vec<_> = (query.split('&'))
        .filter(|pair| !PRESIGNED.iter().any(|name| is_named(pair, name)))
        .collect();
    let text = match others.is_empty() {
        true => uri.path().to_owned(),
        false => format!("{}?{}", uri.path(), others.join("&")),
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

/// Each octet in the one way in which it can be written.
fn recoded(text: &str) -> String {
    encoded(&percent_decode_str(text).collect::<Vec<_>>())
}

/// RFC 3986, section 5.2.4, and no empty segments.
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

/// Decoded as the fields of a form are, encoded, in order.
fn parameters(query: &str) -> String {
    let recoded = |text: &str| recoded(&text.replace('+', " "));
    let mut pairs: Vec<_> = (query.split('&'))
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (recoded(name), recoded(value)))
        .collect();
    pairs.sort_unstable();
    let pairs = pairs.iter().map(|(name, value)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join("&")
}

/// Without blanks at the ends, and with one where there are several.
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

/// All but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The parameters of a signature in the query.
const PRESIGNED: [&str; 7] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
];

//! Which header fields cross the border between app and upstream, in heads and in trailers.
//!
//! Three kinds of fields are removed, from the head and from the trailers: those that go one hop only, those that carry our
//! name, and those that the configuration sets or removes. A server may merge trailers into the head (RFC 9110 section
//! 6.5). And for CGI and WSGI `X_Api_Key` is `X-Api-Key`, for some programs `X.Api.Key` as well: so all characters but
//! letters and digits are compared as equal.
//!
//! What is attached is decided in `auth`, how a head is rewritten in `proxy`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use crate::message::Fields;

/// These frame the message or say where it goes; a removal that happens to match does not mean them.
const FRAMING: [HeaderName; 3] = [header::CONTENT_LENGTH, header::HOST, header::TRANSFER_ENCODING];

const NAME: &[u8] = b"outrider";

const ONE_HOP: [&str; 5] = [
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
];

/// Ours to say, to the app only: `Outrider-Rehearsal`.
const OURS: &str = "outrider-";

const NOT_IN_TRAILERS: [&str; 26] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "location",
    "max-forwards",
    "pragma",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "www-authenticate",
];

/// Some servers and frameworks take these for the method or the path of a request.
const OVERRIDES: [&str; 5] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The names of the request fields that the configuration sets or removes.
#[derive(Debug, Default)]
pub(crate) struct FieldNames {
    removed: Vec<Removal>,
    set: Vec<HeaderName>,
}

/// A field, or all fields with the same prefix.
#[derive(Debug)]
enum Removal {
    Name(HeaderName),
    /// In lower case, without the `*`.
    Prefix(Box<str>),
}

/// The fields that the Connection field of a head lists. They go one hop only, also as trailers. A set, because a head may list
/// thousands.
#[derive(Debug)]
pub(crate) struct Listed(HashSet<HeaderName>);

impl FieldNames {
    /// Reads the names of `headers.remove`, which may end in `*`. A name that no field can have is left out.
    pub(crate) fn new(removed: &[String]) -> Self {
        Self {
            removed: removed.iter().filter_map(|name| Removal::parse(name)).collect(),
            set: Vec::new(),
        }
    }

    /// Adds a field that the configuration sets.
    pub(crate) fn add(&mut self, name: HeaderName) {
        if !self.set.contains(&name) {
            self.set.push(name);
        }
    }

    /// Whether the configuration sets or removes this field, so that the app cannot.
    pub(crate) fn decide(&self, name: &HeaderName) -> bool {
        self.set.iter().any(|own| is_alike(name.as_str(), own.as_str())) || self.remove(name)
    }

    /// Removes the fields to be removed from a head, and those that are spelled almost like a field that is set. The latter
    /// itself stays: it is replaced later.
    pub(crate) fn remove_from(&self, fields: &mut Fields) {
        let is_removed = |name: &HeaderName| {
            let is_other = |own: &HeaderName| own != name && is_alike(name.as_str(), own.as_str());
            self.set.iter().any(is_other) || self.remove(name)
        };
        fields.retain(|name, _| !is_removed(name));
    }

    fn remove(&self, name: &HeaderName) -> bool {
        self.removed.iter().any(|removal| removal.means(name))
    }
}

impl Removal {
    /// Reads a name; `None` if no field can have it, so that there is nothing to remove.
    fn parse(written: &str) -> Option<Self> {
        match written.strip_suffix('*') {
            Some(prefix) => Some(Self::Prefix(prefix.to_ascii_lowercase().into())),
            None => HeaderName::from_bytes(written.as_bytes()).ok().map(Self::Name),
        }
    }

    fn means(&self, name: &HeaderName) -> bool {
        let is_meant = match self {
            Self::Name(own) => is_alike(name.as_str(), own.as_str()),
            Self::Prefix(prefix) => begins_alike(name.as_str(), prefix),
        };
        is_meant && !FRAMING.contains(name)
    }
}

impl Listed {
    /// Reads what Connection lists, except fields that frame or route the message. `None`: there is nothing to remove.
    pub(crate) fn of(fields: &Fields) -> Option<Arc<Self>> {
        // The usual options name no field, or one that is always removed.
        let says_little = |option: &HeaderValue| {
            option.as_bytes().eq_ignore_ascii_case(b"keep-alive")
                || option.as_bytes().eq_ignore_ascii_case(b"close")
        };
        if fields.get_all(header::CONNECTION).all(says_little) {
            return None;
        }
        let listed = (fields.get_all(header::CONNECTION))
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .filter(|name| *name != header::CONNECTION && !FRAMING.contains(name));
        Some(Arc::new(Self(listed.collect())))
    }

    pub(crate) fn remove_from(&self, fields: &mut Fields) {
        fields.retain(|name, _| !self.0.contains(name));
    }
}

/// Whether a field goes one hop only, even if Connection does not list it, or carries our name. Connection, TE,
/// Transfer-Encoding and Upgrade are handled where heads are rewritten.
pub(crate) fn goes_one_hop(name: &str) -> bool {
    ONE_HOP.iter().any(|own| is_alike(name, own)) || begins_alike(name, OURS)
}

/// Removes the fields that [go one hop only](goes_one_hop).
pub(crate) fn remove_one_hop(fields: &mut Fields) {
    fields.retain(|name, _| !goes_one_hop(name.as_str()));
}

/// Removes lines of Proxy-Status and Cache-Status that carry our name and are not from us.
pub(crate) fn remove_forged(fields: &mut Fields) {
    let is_ours = |line: &HeaderValue| {
        let mut words = line.as_bytes().windows(NAME.len());
        words.any(|word| word.eq_ignore_ascii_case(NAME))
    };
    fields.retain(|name, line| !([CACHE_STATUS, PROXY_STATUS].contains(name) && is_ours(line)));
}

/// Returns the first field that some servers take for the method or the path of a request.
pub(crate) fn overrides(fields: &Fields) -> Option<&'static str> {
    let named = |name: &HeaderName| OVERRIDES.into_iter().find(|own| is_alike(name.as_str(), own));
    fields.keys().find_map(named)
}

/// Removes from trailers the fields that are removed from a head, and those that trailers must not have (RFC 9110 section
/// 6.5.1): fields that frame or route a message, say how to process it, or authenticate.
///
/// `listed`: what the Connection field of the head lists. `decided`: what the configuration sets or removes in a request.
pub(crate) fn remove_from_trailers(
    trailers: &mut HeaderMap,
    listed: Option<&Listed>,
    decided: Option<&FieldNames>,
) {
    let mut fields = Fields::from(std::mem::take(trailers));
    let is_removed = |name: &HeaderName| {
        goes_one_hop(name.as_str())
            || (NOT_IN_TRAILERS.iter().chain(&OVERRIDES)).any(|own| is_alike(name.as_str(), own))
            || listed.is_some_and(|listed| listed.0.contains(name))
            || decided.is_some_and(|names| names.decide(name))
    };
    fields.retain(|name, _| !is_removed(name));
    remove_forged(&mut fields);
    *trailers = fields.into();
}

/// Whether some servers take one name for the other. Both are in lower case.
pub(crate) fn is_alike(name: &str, other: &str) -> bool {
    // Lengths settle nearly every pair.
    name.len() == other.len() && begins_alike(name, other)
}

fn begins_alike(name: &str, prefix: &str) -> bool {
    let fold = |byte: u8| if byte.is_ascii_alphanumeric() { byte } else { b'-' };
    name.len() >= prefix.len()
        && (name.bytes().zip(prefix.bytes())).all(|(own, other)| own == other || fold(own) == fold(other))
}

/// Reads a field that holds an HTTP date (RFC 9110 section 5.6.7). Of several lines, the first counts.
pub(crate) fn date(fields: &Fields, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(fields.get(name)?.to_str().ok()?).ok()
}

/// Writes a String of a structured field (RFC 9651 section 3.3.3): printable ASCII, with quotes and backslashes
/// escaped. Any other character becomes a question mark.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c => quoted.push(visible(c)),
        }
    }
    quoted.push('"');
    quoted
}

/// Returns at most so many characters, all of them visible ASCII.
pub(crate) fn printable(text: &str, most: usize) -> String {
    text.chars().take(most).map(visible).collect()
}

fn visible(c: char) -> char {
    match c {
        ' '..='~' => c,
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.append(*name, HeaderValue::from_static(value));
        }
        fields
    }

    fn names(fields: &Fields) -> Vec<&str> {
        let mut names: Vec<_> = fields.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    fn decided() -> FieldNames {
        let mut names = FieldNames::new(&[
            "X-Debug".into(),
            "X-Internal-*".into(),
            "Host".into(),
            "no name".into(),
        ]);
        names.add(HeaderName::from_static("x-amz-security-token"));
        names.add(header::AUTHORIZATION);
        names
    }

    /// Behind CGI `_` and `-` are one, and all that is neither letter nor digit with lighttpd and others.
    #[test]
    fn names_are_compared_as_cgi_reads_them() {
        for name in [
            "authorization",
            "x-amz-security-token",
            "x_amz_security_token",
            "x-amz_security-token",
            "x-debug",
            "x_debug",
            "x-internal-a",
            "x_internal_a_b",
            "x.debug",
            "x.amz+security~token",
            "x!internal-a",
        ] {
            assert!(decided().decide(&HeaderName::from_static(name)), "{name}");
        }
        for name in [
            "host",
            "x-amz-security",
            "x-amz-security-token-2",
            "x-debugger",
            "x-internal",
        ] {
            assert!(!decided().decide(&HeaderName::from_static(name)), "{name}");
        }
    }

    /// What is set replaces the app's own, which a signer may want to read before.
    #[test]
    fn a_head_keeps_the_fields_that_are_replaced() {
        let mut fields = map(&[
            ("x-amz-security-token", "a"),
            ("x_amz_security_token", "b"),
            ("x_debug", "c"),
            ("x-internal-d", "d"),
            ("host", "e"),
            ("accept", "f"),
        ]);
        decided().remove_from(&mut fields);
        assert_eq!(names(&fields), ["accept", "host", "x-amz-security-token"]);
    }

    #[test]
    fn trailers_carry_nothing_that_a_head_would_not() {
        let listed = Listed::of(&map(&[("connection", "close, X-Hop")])).unwrap();
        let fields = map(&[
            ("authorization", "a"),
            ("cache-status", "outrider; hit"),
            ("cache-status", "edge; hit"),
            ("content_length", "3"),
            ("grpc-status", "0"),
            ("keep-alive", "a"),
            ("outrider-rehearsal", "passed"),
            ("outrider_else", "a"),
            ("proxy-authorization", "a"),
            ("proxy_authenticate", "a"),
            ("proxy-status", "Outrider; error=dns_error"),
            ("x-checksum", "a"),
            ("x-hop", "a"),
            ("x-original-url", "/admin"),
            ("x_amz_security_token", "a"),
            ("x_http_method_override", "DELETE"),
        ]);
        let mut trailers = HeaderMap::from(fields);
        remove_from_trailers(&mut trailers, Some(&listed), Some(&decided()));
        let fields = Fields::from(trailers);
        assert_eq!(names(&fields), ["cache-status", "grpc-status", "x-checksum"]);
        assert_eq!(fields["cache-status"], "edge; hit");
    }

    #[test]
    fn connection_lists_nothing_that_frames_or_routes_the_message() {
        assert!(Listed::of(&map(&[("connection", "keep-alive"), ("connection", "Close")])).is_none());
        let listed = Listed::of(&map(&[("connection", "host, content-length, connection, X-A")])).unwrap();
        assert_eq!(listed.0, HashSet::from([HeaderName::from_static("x-a")]));
    }
}

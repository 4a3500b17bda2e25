//! What tells answers apart: where the request goes, as whom, and what the answer was chosen by.
//!
//! A [`Key`] is the target and the path as they leave, the identity of the attached credential, and a digest of every
//! field of the app's own that is, or looks like, a credential, or that servers are known to obey without saying so in
//! Vary. A [`Choice`] is the request fields that Vary names, with their values, and a few that an upstream ought to have
//! named there.
//!
//! Fields that outrider attaches, or strikes, are in neither: they are the same for all requests of one identity.

use std::fmt::Write;

use aws_lc_rs::digest;
use http::header::{self, HeaderMap, HeaderName};

use crate::host::{Host, Scheme, Target};

/// Answers under equal keys may be mistaken for one another only where their [`Choice`] is equal as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// `https://host:port/path?query`, before a credential is put into the query.
    pub(super) uri: String,
    pub(super) identity: Identity,
}

/// As whom a request is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    /// Of the destination's secrets.
    fingerprint: u64,
    /// Of what the app itself has put on the request; `None` for nothing.
    own: Option<[u8; digest::SHA256_OUTPUT_LEN]>,
}

/// The request fields that an answer was chosen by, with their values then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) names: Box<[HeaderName]>,
    values: Box<[u8]>,
}

impl Key {
    /// `attached`: whether outrider puts a field on the request itself.
    pub(super) fn new(
        target: &Target,
        path: &str,
        fields: &HeaderMap,
        attached: impl Fn(&HeaderName) -> bool,
        fingerprint: u64,
    ) -> Self {
        let identity = Identity {
            fingerprint,
            own: own(fields, attached),
        };
        Self {
            uri: uri(target, path),
            identity,
        }
    }
}

impl Choice {
    /// `None`: by something that is not in the request (`Vary: *`), or by more than is sensible.
    pub(super) fn of(
        answer: &HeaderMap,
        request: &HeaderMap,
        attached: impl Fn(&HeaderName) -> bool,
    ) -> Option<Self> {
        // Most interfaces choose a representation by Accept, and many forget to say so.
        let mut names = vec![header::ACCEPT];
        for (tells, chooses) in [
            (header::CONTENT_ENCODING, header::ACCEPT_ENCODING),
            (header::CONTENT_LANGUAGE, header::ACCEPT_LANGUAGE),
        ] {
            if answer.contains_key(tells) {
                names.push(chooses);
            }
        }
        for line in answer.get_all(header::VARY) {
            for name in line
                .as_bytes()
                .split(|byte| *byte == b',')
                .map(<[u8]>::trim_ascii)
            {
                if name.is_empty() {
                    continue;
                }
                // `*`, and what is no field name and so can never match.
                let name = HeaderName::from_bytes(name).ok().filter(|name| name != "*")?;
                // What tells keys apart is equal already, and no secret of the app's is kept here.
                if names.contains(&name) || attached(&name) || is_telling(name.as_str()) {
                    continue;
                }
                if names.len() == MOST_NAMES {
                    return None;
                }
                names.push(name);
            }
        }
        let names = names.into_boxed_slice();
        Some(Self {
            values: values(&names, request),
            names,
        })
    }

    /// Whether the request would have been answered alike.
    pub(super) fn fits(&self, request: &HeaderMap) -> bool {
        let mut rest = Some(&*self.values);
        each_piece(&self.names, request, |piece| {
            rest = rest.and_then(|rest| rest.strip_prefix(piece));
        });
        rest.is_some_and(<[u8]>::is_empty)
    }

    /// In bytes.
    pub(super) fn size(&self) -> usize {
        self.values.len() + self.names.len() * size_of::<HeaderName>()
    }
}

/// Where requests to `target` go.
pub(super) fn uri(target: &Target, path: &str) -> String {
    let scheme = match target.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let host = match &target.host {
        Host::Name(name) => name.len(),
        Host::V4(_) | Host::V6(_) => LONGEST_ADDRESS,
    };
    // In one piece: every request makes one.
    let mut uri = String::with_capacity(scheme.len() + host + path.len() + "://:65535".len());
    // Writing to a string cannot fail.
    let _ = write!(uri, "{scheme}://{}:{}{path}", target.host, target.port);
    uri
}

/// The values of `names` in a form that is equal where only blanks, or lines, are divided differently.
pub(super) fn values(names: &[HeaderName], fields: &HeaderMap) -> Box<[u8]> {
    let mut all = Vec::with_capacity(64);
    each_piece(names, fields, |piece| all.extend_from_slice(piece));
    all.into_boxed_slice()
}

/// Tells the pieces of what [`values`] returns.
fn each_piece(names: &[HeaderName], fields: &HeaderMap, mut tell: impl FnMut(&[u8])) {
    for name in names {
        for line in fields.get_all(name) {
            for part in line.as_bytes().split(|byte| *byte == b',') {
                tell(part.trim_ascii());
                tell(b",");
            }
        }
        // In no field value.
        tell(b"\n");
    }
}

/// A digest of what the app itself adds to who it is, or to what it wants without any Vary telling.
fn own(
    fields: &HeaderMap,
    attached: impl Fn(&HeaderName) -> bool,
) -> Option<[u8; digest::SHA256_OUTPUT_LEN]> {
    let mut context: Option<digest::Context> = None;
    for (name, value) in fields {
        if !is_telling(name.as_str()) || attached(name) {
            continue;
        }
        let context = context.get_or_insert_with(|| digest::Context::new(&digest::SHA256));
        for part in [name.as_str().as_bytes(), value.as_bytes()] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
    }
    context?.finish().as_ref().try_into().ok()
}

/// Whether answers to requests that differ in this field are kept apart, whatever Vary says.
fn is_telling(name: &str) -> bool {
    match name {
        "accept" | "accept-encoding" | "accept-language" | "cache-control" | "connection"
        | "content-length" | "content-type" | "host" | "if-modified-since" | "if-none-match" | "pragma"
        | "referer" | "te" | "traceparent" | "tracestate" | "user-agent" | "via" => false,
        "authorization" | "cookie" | "prefer" => true,
        name => TELLING.iter().any(|word| name.contains(word)),
    }
}

const LONGEST_ADDRESS: usize = "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]".len();
const MOST_NAMES: usize = 16;
/// In the names of credentials, and of fields by which servers are made to answer for another host, path or method.
const TELLING: [&str; 14] = [
    "auth", "cookie", "cred", "forward", "host", "key", "method", "original", "overrid", "passw", "rewrit",
    "secret", "session", "token",
];

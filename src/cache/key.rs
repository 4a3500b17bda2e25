//! What tells answers apart: where the request goes, as whom, and what the answer was chosen by.
//!
//! A [`Key`] is the target and the path as they leave, the identity of the attached credential, and a digest of every
//! field of the app's own but those that are known to be harmless: one app asks for many users, and only the app and
//! the service know which field says for whom. A [`Choice`] is the harmless fields that Vary names, with their values,
//! and a few that an upstream ought to have named there. A `private` answer was chosen by all of them.
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

/// The credential that a request is sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sender {
    /// Of the destination's secrets.
    pub(crate) fingerprint: u64,
    /// Which of its credentials; `None` for none.
    pub(crate) rule: Option<usize>,
}

/// As whom a request is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    sender: Sender,
    /// Of what the app itself has put on the request; `None` for nothing.
    own: Option<Digest>,
}

/// The request fields that an answer was chosen by, with their values then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) names: Box<[HeaderName]>,
    values: Box<[u8]>,
    private: Option<Private>,
}

/// Of the harmless fields of the request that a `private` answer belongs to; `None` for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Private(Option<Digest>);

/// What a request field says to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// It may say for whom or what the answer is: part of every key.
    Telling,
    /// How the answer should look, or which request this is: part of the key of `private` answers.
    Harmless,
    /// Where the message goes, how it is framed, and what caches on its way should do: part of no key.
    Handling,
}

type Digest = [u8; digest::SHA256_OUTPUT_LEN];

impl Key {
    /// `attached`: whether outrider puts a field on the request itself.
    pub(super) fn new(
        target: &Target,
        path: &str,
        fields: &HeaderMap,
        attached: impl Fn(&HeaderName) -> bool,
        sender: Sender,
    ) -> Self {
        let identity = Identity {
            sender,
            own: digest_of(Sort::Telling, fields, attached),
        };
        Self {
            uri: uri(target, path),
            identity,
        }
    }
}

impl Choice {
    /// `None`: by something that is not in the request (`Vary: *`).
    pub(super) fn of(
        answer: &HeaderMap,
        request: &HeaderMap,
        attached: impl Fn(&HeaderName) -> bool,
        is_private: bool,
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
                // What tells keys apart is equal already, and no secret of the app's is kept here. Few names are left.
                if names.contains(&name) || attached(&name) || sort(name.as_str()) == Sort::Telling {
                    continue;
                }
                names.push(name);
            }
        }
        let names = names.into_boxed_slice();
        Some(Self {
            private: is_private.then(|| Private::of(request, attached)),
            values: values(&names, request),
            names,
        })
    }

    /// Whether the request would have been answered alike.
    pub(super) fn fits(&self, request: &HeaderMap, attached: impl Fn(&HeaderName) -> bool) -> bool {
        if self
            .private
            .is_some_and(|private| private != Private::of(request, attached))
        {
            return false;
        }
        let mut rest = Some(&*self.values);
        each_piece(&self.names, request, |piece| {
            rest = rest.and_then(|rest| rest.strip_prefix(piece));
        });
        rest.is_some_and(<[u8]>::is_empty)
    }

    pub(super) fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// In bytes.
    pub(super) fn size(&self) -> usize {
        self.values.len() + self.names.len() * size_of::<HeaderName>()
    }
}

impl Private {
    pub(super) fn of(request: &HeaderMap, attached: impl Fn(&HeaderName) -> bool) -> Self {
        Self(digest_of(Sort::Harmless, request, attached))
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

/// A digest of the app's own fields of one sort; `None` where there is no such field.
fn digest_of(wanted: Sort, fields: &HeaderMap, attached: impl Fn(&HeaderName) -> bool) -> Option<Digest> {
    let mut context: Option<digest::Context> = None;
    for (name, value) in fields {
        if sort(name.as_str()) != wanted || attached(name) {
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

/// Names come in lower case. A field that is not known here tells requests apart. `baggage` does, too: it carries
/// whatever the app puts into it, and often the user.
fn sort(name: &str) -> Sort {
    match name {
        "cache-control" | "cdn-loop" | "connection" | "content-length" | "host" | "if-modified-since"
        | "if-none-match" | "pragma" | "te" | "via" => Sort::Handling,
        "accept" | "accept-encoding" | "accept-language" | "user-agent" => Sort::Harmless,
        // The W3C's, B3, and those of vendors and platforms: numbers of requests and of their traces.
        "traceparent"
        | "tracestate"
        | "b3"
        | "x-b3-flags"
        | "x-b3-parentspanid"
        | "x-b3-sampled"
        | "x-b3-spanid"
        | "x-b3-traceid"
        | "amz-sdk-invocation-id"
        | "amz-sdk-request"
        | "request-id"
        | "sentry-trace"
        | "uber-trace-id"
        | "x-amzn-trace-id"
        | "x-client-request-id"
        | "x-cloud-trace-context"
        | "x-correlation-id"
        | "x-datadog-parent-id"
        | "x-datadog-sampling-priority"
        | "x-datadog-trace-id"
        | "x-ms-client-request-id"
        | "x-request-id"
        | "x-vcap-request-id" => Sort::Harmless,
        _ => Sort::Telling,
    }
}

const LONGEST_ADDRESS: usize = "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]".len();

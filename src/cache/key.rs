//! What distinguishes stored responses: target, identity of the client, and the request fields that selected the
//! response.
//!
//! A [`CacheKey`] is the target, the path as it is sent, the attached credential, and a digest of every request
//! field of the app except some that are known to be harmless. One app sends requests for many users, and only
//! the app and the service know which field names the user. [`SelectingFields`] are the harmless fields that Vary
//! names, with their values, and a few that an upstream should have named there. A `private` response is selected
//! by all of them.
//!
//! Fields that outrider attaches or removes are in neither: they are the same for all requests of one identity.

use std::fmt::Write;

use aws_lc_rs::digest;
use http::header::{self, HeaderName};

use crate::host::{Host, Scheme, Target};
use crate::message::Fields;

type Digest = [u8; digest::SHA256_OUTPUT_LEN];
const LONGEST_ADDRESS: usize = "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]".len();

/// Responses under equal keys may be exchanged for one another only if their [`SelectingFields`] match too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CacheKey {
    /// `https://host:port/path?query`, before a credential is put into the query.
    pub(super) uri: String,
    pub(super) identity: RequestIdentity,
}

/// The credential that a request is sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sender {
    /// The fingerprint of the destination's secrets.
    pub(crate) fingerprint: u64,
    /// The index of the credential; `None` without one.
    pub(crate) rule: Option<usize>,
}

/// The client that a request is sent for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RequestIdentity {
    sender: Sender,
    /// A digest of the fields that the app itself sent; `None` without any.
    own: Option<Digest>,
}

/// The request fields that selected a response, with their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SelectingFields {
    pub(super) names: Box<[HeaderName]>,
    values: Box<[u8]>,
    private: Option<PrivateDigest>,
}

/// A digest of the harmless fields of the request that a `private` response belongs to; `None` without any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PrivateDigest(Option<Digest>);

/// What a request field means to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldRole {
    /// It may name the user or the resource: part of every key.
    Identifying,
    /// It says how the response should look, or which request this is: part of the key of `private` responses.
    Harmless,
    /// It says where the message goes, how it is framed, or what caches should do: part of no key.
    Transport,
}

impl CacheKey {
    /// `attached`: whether outrider itself puts a field on the request.
    pub(super) fn new(
        target: &Target,
        path: &str,
        fields: &Fields,
        attached: impl Fn(&HeaderName) -> bool,
        sender: Sender,
    ) -> Self {
        let identity = RequestIdentity {
            sender,
            own: digest_of(FieldRole::Identifying, fields, attached),
        };
        Self {
            uri: uri(target, path),
            identity,
        }
    }
}

impl SelectingFields {
    /// Returns `None` where something outside the request selected the response (`Vary: *`).
    pub(super) fn of(
        answer: &Fields,
        request: &Fields,
        attached: impl Fn(&HeaderName) -> bool,
        is_private: bool,
    ) -> Option<Self> {
        // Most APIs select a representation by Accept, and many forget to say so.
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
                // `*`, or a malformed name, which can never match.
                let name = HeaderName::from_bytes(name).ok().filter(|name| name != "*")?;
                // These fields are in the key already, and none of the app's secrets is kept here. Few names are
                // left.
                if names.contains(&name)
                    || attached(&name)
                    || field_role(name.as_str()) == FieldRole::Identifying
                {
                    continue;
                }
                names.push(name);
            }
        }
        let names = names.into_boxed_slice();
        Some(Self {
            private: is_private.then(|| PrivateDigest::of(request, attached)),
            values: values(&names, request),
            names,
        })
    }

    /// Whether the request would have got the same response.
    pub(super) fn fits(&self, request: &Fields, attached: impl Fn(&HeaderName) -> bool) -> bool {
        if self
            .private
            .is_some_and(|private| private != PrivateDigest::of(request, attached))
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

    /// Returns the size in bytes.
    pub(super) fn size(&self) -> usize {
        self.values.len() + self.names.len() * size_of::<HeaderName>()
    }
}

impl PrivateDigest {
    pub(super) fn of(request: &Fields, attached: impl Fn(&HeaderName) -> bool) -> Self {
        Self(digest_of(FieldRole::Harmless, request, attached))
    }
}

/// Returns the URI of requests to `target`.
pub(super) fn uri(target: &Target, path: &str) -> String {
    let scheme = match target.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let host = match &target.host {
        Host::Name(name) => name.len(),
        Host::V4(_) | Host::V6(_) => LONGEST_ADDRESS,
    };
    // Allocated once: every request makes one.
    let mut uri = String::with_capacity(scheme.len() + host + path.len() + "://:65535".len());
    // Writing to a string cannot fail.
    let _ = write!(uri, "{scheme}://{}:{}{path}", target.host, target.port);
    uri
}

/// Returns the values of `names` in a form that does not depend on spaces and on how they are divided into lines.
pub(super) fn values(names: &[HeaderName], fields: &Fields) -> Box<[u8]> {
    let mut all = Vec::with_capacity(64);
    each_piece(names, fields, |piece| all.extend_from_slice(piece));
    all.into_boxed_slice()
}

/// Calls `take` with each piece of what [`values`] returns.
fn each_piece(names: &[HeaderName], fields: &Fields, mut take: impl FnMut(&[u8])) {
    for name in names {
        for line in fields.get_all(name) {
            for part in line.as_bytes().split(|byte| *byte == b',') {
                take(part.trim_ascii());
                take(b",");
            }
        }
        // No field value contains it.
        take(b"\n");
    }
}

/// Returns a digest of the app's fields with this role; `None` without any.
fn digest_of(wanted: FieldRole, fields: &Fields, attached: impl Fn(&HeaderName) -> bool) -> Option<Digest> {
    let mut context: Option<digest::Context> = None;
    for (name, value) in fields {
        if field_role(name.as_str()) != wanted || attached(name) {
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

/// Returns the role of a field; `name` is in lower case. An unknown field is part of every key. So is `baggage`,
/// which often names the user.
fn field_role(name: &str) -> FieldRole {
    match name {
        "cache-control" | "cdn-loop" | "connection" | "content-length" | "host" | "if-modified-since"
        | "if-none-match" | "pragma" | "te" | "via" => FieldRole::Transport,
        "accept" | "accept-encoding" | "accept-language" | "user-agent" => FieldRole::Harmless,
        // Request and trace identifiers: those of the W3C, B3, and of vendors and platforms.
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
        | "x-vcap-request-id" => FieldRole::Harmless,
        _ => FieldRole::Identifying,
    }
}

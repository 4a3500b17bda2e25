//! Redacts attached secrets from responses, so that an upstream that echoes them does not hand them to the app.
//!
//! Header fields are always searched, which costs little. Bodies are searched only with `scrub: true`, and only if
//! they are text. Then we ask the upstream for a readable response (complete, not compressed) and refuse any other.
//! Each byte of a secret becomes `*`, so that lengths and chunks stay valid.
//!
//! A body is never collected. Only the end of each piece is held back, if it may be the beginning of a secret,
//! until the next piece decides. Event streams are not delayed, because their events end with a line end.
//!
//! `auth` knows the secrets. Tunnels and upgraded connections are not searched.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use zeroize::Zeroizing;

use super::{Error, Route};
use crate::auth::SecretMatcher;
use crate::http1::ReasonPhrase;
use crate::message::{Fields, Response};
use crate::telemetry::MessagePart;
use crate::upstream::ResponseBody;
use crate::upstream::body::BodyError;
use crate::upstream::link::Stream;

/// Digests of the body as the upstream sent it: RFC 9530 and its predecessors.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

/// Subtypes that are text, besides `text/*`.
const TEXTS: [&str; 16] = [
    "csp-report",
    "ecmascript",
    "graphql",
    "javascript",
    "json",
    "json-seq",
    "jsonl",
    "jsonlines",
    "ndjson",
    "problem",
    "sql",
    "toml",
    "www-form-urlencoded",
    "xml",
    "xml-dtd",
    "yaml",
];

const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
const STAR: u8 = b'*';
const REDACTED: HeaderValue = HeaderValue::from_static("*");

/// A body without attached secrets, as far as it has to be searched. Only this type can be relayed to the app, so
/// that a body that was not searched does not compile.
#[derive(Debug)]
pub(super) struct RedactedBody {
    body: ResponseBody,
    filter: Option<Box<BodyFilter>>,
    /// `None`: there are no secrets to find.
    redaction: Option<Redaction>,
}

/// The secrets to find, and the route whose counters and log report a find.
#[derive(Clone, Debug)]
struct Redaction {
    matcher: Arc<SecretMatcher>,
    route: Arc<Route>,
}

/// Searches a text that passes in pieces.
#[derive(Default)]
struct BodyFilter {
    has_redacted: bool,
    /// The held-back end, which may be the beginning of a secret.
    held: Zeroizing<Vec<u8>>,
    /// How many bytes of `held` are the end of a secret that was found.
    redacted: usize,
    /// Trailers that follow the held-back end.
    trailers: Option<HeaderMap>,
}

/// Asks for a readable response: not compressed, and not a range, which might begin within a secret.
pub(super) fn ask_for_readable(fields: &mut Fields) {
    fields.insert(header::ACCEPT_ENCODING, IDENTITY);
    fields.remove(header::RANGE);
    fields.remove(header::IF_RANGE);
}

/// Redacts secrets in the head of a response.
pub(super) fn head<B>(response: &mut Response<B>, matcher: &SecretMatcher, route: &Route) {
    // One look at all of the head. What it cannot rule out, an escape for example, is searched value by value.
    if matcher.is_empty() || response.received().is_some_and(|head| matcher.cannot_be_in(head)) {
        return;
    }
    let mut has_redacted = fields(response.headers_mut().iter_mut(), matcher);
    if let Some(ReasonPhrase(reason)) = response.extensions_mut().get_mut() {
        has_redacted |= redact(reason, matcher);
    }
    if has_redacted {
        report(MessagePart::Head, route);
    }
}

/// Wraps the body of a response whose head has been searched. `is_empty`: it has no body, whatever its fields say.
pub(super) fn body(
    response: Response<ResponseBody>,
    is_empty: bool,
    matcher: Arc<SecretMatcher>,
    route: &Arc<Route>,
) -> Result<Response<RedactedBody>, Error> {
    let (mut parts, body) = response.into_parts();
    if matcher.is_empty() {
        return Ok(Response::from_parts(parts, RedactedBody::from(body)));
    }
    let is_bodiless = is_empty
        || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || parts.status.is_informational();
    let mut filter = None;
    if route.scrubs() && !is_bodiless && is_text(&parts.headers) {
        if let Some(why) = unreadable(parts.status, &parts.headers) {
            return Err(Error::Unreadable(why));
        }
        // They may be wrong after a redaction, and would otherwise reveal that there was none.
        for name in DIGESTS {
            parts.headers.remove(name);
        }
        filter = Some(Box::default());
    }
    let redaction = Redaction {
        matcher,
        route: Arc::clone(route),
    };
    let clean = RedactedBody {
        body,
        filter,
        redaction: Some(redaction),
    };
    Ok(Response::from_parts(parts, clean))
}

impl RedactedBody {
    /// Sends more of the request body while the response is not read.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        self.body.poll_upload(cx);
    }

    /// Returns the stream after a 101, and the bytes that the upstream has sent on it already.
    pub(super) fn into_stream(self) -> Option<(Stream, Bytes)> {
        self.body.into_stream()
    }

    /// Returns whether the upstream sent nothing after the end of the body.
    pub(super) fn is_clean(&self) -> bool {
        self.body.is_clean()
    }
}

/// For a body that was made here or was searched before.
impl From<ResponseBody> for RedactedBody {
    fn from(body: ResponseBody) -> Self {
        Self {
            body,
            filter: None,
            redaction: None,
        }
    }
}

impl HttpBody for RedactedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self {
            body,
            filter,
            redaction,
        } = &mut *self;
        let Some(redaction) = redaction else {
            return Pin::new(body).poll_frame(cx);
        };
        if let Some(trailers) = filter.as_mut().and_then(|filter| filter.trailers.take()) {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        loop {
            let frame = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => Some(frame),
                Some(Err(cut)) => return Poll::Ready(Some(Err(cut))),
                None => None,
            };
            let frame = match frame.map(Frame::into_data) {
                Some(Ok(data)) => {
                    let data = filtered(filter, data, body.is_end_stream(), redaction);
                    (!data.is_empty()).then(|| Frame::data(data))
                }
                Some(Err(frame)) => {
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    if fields(trailers.iter_mut(), &redaction.matcher) {
                        report(MessagePart::Trailers, &redaction.route);
                    }
                    let rest = filtered(filter, Bytes::new(), true, redaction);
                    match filter {
                        Some(filter) if !rest.is_empty() => {
                            filter.trailers = Some(trailers);
                            Some(Frame::data(rest))
                        }
                        Some(_) | None => Some(Frame::trailers(trailers)),
                    }
                }
                None => {
                    let rest = filtered(filter, Bytes::new(), true, redaction);
                    let rest = (!rest.is_empty()).then(|| Ok(Frame::data(rest)));
                    return Poll::Ready(rest);
                }
            };
            // Nothing to pass on yet: the whole piece is held back.
            if let Some(frame) = frame {
                return Poll::Ready(Some(Ok(frame)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_holding = |filter: &BodyFilter| !filter.held.is_empty() || filter.trailers.is_some();
        self.body.is_end_stream() && !self.filter.as_deref().is_some_and(is_holding)
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.filter.as_ref().map_or(0, |filter| filter.held.len() as u64);
        let hint = self.body.size_hint();
        match hint.exact() {
            Some(left) => SizeHint::with_exact(left + held),
            None => SizeHint::default(),
        }
    }
}

/// Returns a piece of a body with what was held back before it.
pub(super) fn behind(held: &[u8], data: Bytes) -> Bytes {
    if held.is_empty() {
        return data;
    }
    let mut text = BytesMut::with_capacity(held.len() + data.len());
    text.extend_from_slice(held);
    text.extend_from_slice(&data);
    text.freeze()
}

impl BodyFilter {
    /// Adds `data` and returns the bytes that can be passed on: all of them if `is_last`.
    fn push(&mut self, data: Bytes, is_last: bool, matcher: &SecretMatcher) -> Bytes {
        let text = behind(&self.held, data);
        let mut places = Vec::new();
        let held = matcher.search(&text, is_last, |place| places.push(place));
        let cut = text.len() - held;
        self.held = Zeroizing::new(text[cut..].to_vec());
        // The held bytes are searched again. A secret that began before them is remembered in `redacted`.
        places.retain(|place| place.start < cut);
        if self.redacted > 0 {
            places.push(0..self.redacted);
        }
        let ends = places.iter().map(|place| place.end.saturating_sub(cut));
        self.redacted = ends.max().unwrap_or(0);
        if places.is_empty() {
            return text.slice(..cut);
        }
        self.has_redacted = true;
        let mut left = BytesMut::from(&text[..cut]);
        for place in places {
            cover(&mut left[place.start..place.end.min(cut)]);
        }
        left.freeze()
    }
}

impl fmt::Debug for BodyFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.held.len();
        f.debug_struct("BodyFilter")
            .field("held", &held)
            .finish_non_exhaustive()
    }
}

/// Passes `data` through the filter, if there is one, and reports the first find.
fn filtered(
    filter: &mut Option<Box<BodyFilter>>,
    data: Bytes,
    is_last: bool,
    redaction: &Redaction,
) -> Bytes {
    let Some(filter) = filter else { return data };
    let had_redacted = filter.has_redacted;
    let data = filter.push(data, is_last, &redaction.matcher);
    if filter.has_redacted && !had_redacted {
        report(MessagePart::Body, &redaction.route);
    }
    data
}

/// Redacts secrets in field values, except in fields that frame the message. Returns whether there were any.
fn fields<'f>(
    fields: impl Iterator<Item = (&'f HeaderName, &'f mut HeaderValue)>,
    matcher: &SecretMatcher,
) -> bool {
    let frames = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    fields
        .filter(|(name, _)| !frames.contains(name))
        .fold(false, |has_redacted, (_, value)| {
            redact(value, matcher) || has_redacted
        })
}

fn redact(value: &mut HeaderValue, matcher: &SecretMatcher) -> bool {
    let mut places = Vec::new();
    matcher.search(value.as_bytes(), true, |place| places.push(place));
    if places.is_empty() {
        return false;
    }
    let mut left = value.as_bytes().to_vec();
    places.into_iter().for_each(|place| cover(&mut left[place]));
    // Stars are always a valid field value; if they were not, the whole value would be replaced.
    *value = HeaderValue::from_maybe_shared(Bytes::from(left)).unwrap_or(REDACTED);
    true
}

/// Overwrites a secret with stars. Keeps zero bytes, so that UTF-16 stays UTF-16.
fn cover(secret: &mut [u8]) {
    for byte in secret.iter_mut().filter(|byte| **byte != 0) {
        *byte = STAR;
    }
}

/// Counts and logs a redaction. The operator should know: the service may show the secret to others as well.
fn report(part: MessagePart, route: &Route) {
    let destination = &*route.destination.name;
    let part_name = part.as_str();
    if route.counters.redacted(part) {
        tracing::warn!(
            destination,
            part = part_name,
            "the destination echoes an attached secret; it was redacted from the response",
        );
    } else {
        tracing::debug!(
            destination,
            part = part_name,
            "a secret was redacted from a response"
        );
    }
}

/// Returns whether a body of this type is searched. A body without a type is searched: it may be text.
fn is_text(fields: &Fields) -> bool {
    let Some(value) = fields.get(header::CONTENT_TYPE) else {
        return true;
    };
    let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    let essence = text.split([';', ',']).next().unwrap_or_default().trim();
    let Some((kind, subtype)) = essence.split_once('/') else {
        return true;
    };
    // The base format of types such as `vnd.api+json` and `x-ndjson`.
    let subtype = subtype.rsplit('+').next().unwrap_or_default();
    let subtype = subtype.strip_prefix("x-").unwrap_or(subtype);
    matches!(kind, "message" | "multipart" | "text") || TEXTS.contains(&subtype)
}

/// Returns why secrets could not be found in this text.
fn unreadable(status: StatusCode, fields: &Fields) -> Option<&'static str> {
    let is_compressed = fields.get_all(header::CONTENT_ENCODING).any(|value| {
        let codings = value.as_bytes().split(|byte| *byte == b',');
        let mut codings = codings
            .map(<[u8]>::trim_ascii)
            .filter(|coding| !coding.is_empty());
        codings.any(|coding| !coding.eq_ignore_ascii_case(b"identity"))
    });
    let is_wide = || {
        let kind = fields
            .get(header::CONTENT_TYPE)
            .map(HeaderValue::as_bytes)
            .unwrap_or_default();
        let kind = String::from_utf8_lossy(kind).to_ascii_lowercase();
        let charset = kind
            .split_once("charset=")
            .map(|(_, charset)| charset.trim_start_matches('"'));
        charset.is_some_and(|charset| {
            ["utf-16", "utf-32", "utf-7", "ucs-"]
                .iter()
                .any(|wide| charset.starts_with(wide))
        })
    };
    if is_compressed {
        Some("is compressed (Content-Encoding), although Accept-Encoding: identity was asked for")
    } else if status == StatusCode::PARTIAL_CONTENT {
        Some("is a part (206), although all of it was asked for")
    } else if is_wide() {
        Some("is in a charset that is not like ASCII")
    } else {
        None
    }
}

#[cfg(test)]
mod tests;

//! Strikes attached secrets out of what the upstream answers, so that an echo does not hand them to the app.
//!
//! Fields are always looked through: it costs little. Bodies are where the configuration says `scrub: true`, and only
//! text: then the upstream is asked for an answer that can be read (no compression, all of it), and one that cannot be
//! is refused. A secret becomes as many `*`, so that lengths and chunks stay right.
//!
//! A body is never gathered. Of each piece of it only the end is held back, where it may be the beginning of a secret,
//! until what follows has decided: an event stream, whose events end with a line, does not stand still.
//!
//! What is looked for is known to `auth`. A tunnel, and what was switched to another protocol, is not looked through.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use zeroize::Zeroizing;

use super::{Error, Route};
use crate::auth::Needles;
use crate::http1::ReasonPhrase;
use crate::telemetry::MessagePart;
use crate::upstream::ResponseBody;
use crate::upstream::body::BodyError;
use crate::upstream::connect::Stream;

/// A body in which no attached secret stands, as far as it is to be looked through.
#[derive(Debug)]
pub(super) struct Clean {
    body: ResponseBody,
    filter: Option<Box<Filter>>,
    /// `None`: there is nothing to look for.
    watch: Option<Watch>,
}

/// What is looked for, and who is told of it.
#[derive(Clone, Debug)]
struct Watch {
    needles: Arc<Needles>,
    route: Arc<Route>,
}

/// The body of a text on its way through.
#[derive(Default)]
struct Filter {
    has_struck: bool,
    /// It may be the beginning of a secret.
    held: Zeroizing<Vec<u8>>,
    /// So many bytes of what is held are the end of a secret.
    struck: usize,
    /// They follow what was held.
    trailers: Option<HeaderMap>,
}

/// Asks for an answer that can be read: not compressed, and not a piece that might begin within a secret.
pub(super) fn ask_plainly(fields: &mut HeaderMap) {
    fields.insert(header::ACCEPT_ENCODING, IDENTITY);
    fields.remove(header::RANGE);
    fields.remove(header::IF_RANGE);
}

/// Strikes secrets out of the head of an answer.
pub(super) fn head<B>(response: &mut Response<B>, needles: &Needles, route: &Route) {
    if needles.is_empty() {
        return;
    }
    let mut has_struck = fields(response.headers_mut(), needles);
    if let Some(ReasonPhrase(reason)) = response.extensions_mut().get_mut() {
        has_struck |= strike(reason, needles);
    }
    if has_struck {
        tell(MessagePart::Head, route);
    }
}

/// The body of an answer, whose head has been looked through. `is_empty`: it has none, whatever its fields say.
pub(super) fn body(
    response: Response<ResponseBody>,
    is_empty: bool,
    needles: Arc<Needles>,
    route: &Arc<Route>,
) -> Result<Response<Clean>, Error> {
    let (mut parts, body) = response.into_parts();
    if needles.is_empty() {
        return Ok(Response::from_parts(parts, Clean::from(body)));
    }
    let is_bodiless = is_empty
        || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || parts.status.is_informational();
    let mut filter = None;
    if route.destination.scrub && !is_bodiless && is_text(&parts.headers) {
        if let Some(why) = unreadable(parts.status, &parts.headers) {
            return Err(Error::Unreadable(why));
        }
        // They are right for another body now, or would tell that it is the same.
        for name in DIGESTS {
            parts.headers.remove(name);
        }
        filter = Some(Box::default());
    }
    let watch = Watch {
        needles,
        route: Arc::clone(route),
    };
    let clean = Clean {
        body,
        filter,
        watch: Some(watch),
    };
    Ok(Response::from_parts(parts, clean))
}

impl Clean {
    /// Moves the rest of the request on, while nobody asks for the response.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        self.body.poll_upload(cx);
    }

    /// After a 101: the stream, and what the upstream has sent on it already.
    pub(super) fn into_stream(self) -> Option<(Stream, Bytes)> {
        self.body.into_stream()
    }

    /// Whether nothing followed a body that has ended.
    pub(super) fn is_clean(&self) -> bool {
        self.body.is_clean()
    }
}

/// A body that was made here, or looked through before.
impl From<ResponseBody> for Clean {
    fn from(body: ResponseBody) -> Self {
        Self {
            body,
            filter: None,
            watch: None,
        }
    }
}

impl HttpBody for Clean {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { body, filter, watch } = &mut *self;
        let Some(watch) = watch else {
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
                    let data = pass(filter, data, body.is_end_stream(), watch);
                    (!data.is_empty()).then(|| Frame::data(data))
                }
                Some(Err(frame)) => {
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    if fields(&mut trailers, &watch.needles) {
                        tell(MessagePart::Trailers, &watch.route);
                    }
                    let rest = pass(filter, Bytes::new(), true, watch);
                    match filter {
                        Some(filter) if !rest.is_empty() => {
                            filter.trailers = Some(trailers);
                            Some(Frame::data(rest))
                        }
                        Some(_) | None => Some(Frame::trailers(trailers)),
                    }
                }
                None => {
                    let rest = pass(filter, Bytes::new(), true, watch);
                    let rest = (!rest.is_empty()).then(|| Ok(Frame::data(rest)));
                    return Poll::Ready(rest);
                }
            };
            // All of it may be held: then there is nothing to hand on yet.
            if let Some(frame) = frame {
                return Poll::Ready(Some(Ok(frame)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_holding = |filter: &Filter| !filter.held.is_empty() || filter.trailers.is_some();
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

impl Filter {
    /// What can be handed on once `data` has come; after the last of it, everything.
    fn push(&mut self, data: Bytes, is_last: bool, needles: &Needles) -> Bytes {
        let text = if self.held.is_empty() {
            data
        } else {
            let mut text = BytesMut::with_capacity(self.held.len() + data.len());
            text.extend_from_slice(&self.held);
            text.extend_from_slice(&data);
            text.freeze()
        };
        let mut places = Vec::new();
        let held = needles.look(&text, is_last, |place| places.push(place));
        let cut = text.len() - held;
        self.held = Zeroizing::new(text[cut..].to_vec());
        // What is held is looked through again, but what began before it is not found again.
        places.retain(|place| place.start < cut);
        if self.struck > 0 {
            places.push(0..self.struck);
        }
        let ends = places.iter().map(|place| place.end.saturating_sub(cut));
        self.struck = ends.max().unwrap_or(0);
        if places.is_empty() {
            return text.slice(..cut);
        }
        self.has_struck = true;
        let mut left = BytesMut::from(&text[..cut]);
        for place in places {
            cover(&mut left[place.start..place.end.min(cut)]);
        }
        left.freeze()
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.held.len();
        f.debug_struct("Filter")
            .field("held", &held)
            .finish_non_exhaustive()
    }
}

/// What can be handed on once `data` has come.
fn pass(filter: &mut Option<Box<Filter>>, data: Bytes, is_last: bool, watch: &Watch) -> Bytes {
    let Some(filter) = filter else { return data };
    let had_struck = filter.has_struck;
    let data = filter.push(data, is_last, &watch.needles);
    if filter.has_struck && !had_struck {
        tell(MessagePart::Body, &watch.route);
    }
    data
}

/// Strikes secrets out of the values of `fields`, but of those that frame the message. Whether there were any.
fn fields(fields: &mut HeaderMap, needles: &Needles) -> bool {
    let frames = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    (fields.iter_mut())
        .filter(|(name, _)| !frames.contains(name))
        .fold(false, |has_struck, (_, value)| {
            strike(value, needles) || has_struck
        })
}

fn strike(value: &mut HeaderValue, needles: &Needles) -> bool {
    let mut places = Vec::new();
    needles.look(value.as_bytes(), true, |place| places.push(place));
    if places.is_empty() {
        return false;
    }
    let mut left = value.as_bytes().to_vec();
    places.into_iter().for_each(|place| cover(&mut left[place]));
    // Stars are fit for a field where what they stand for was; if they were not, nothing of it is.
    *value = HeaderValue::from_maybe_shared(Bytes::from(left)).unwrap_or(STRUCK);
    true
}

/// The zeros of UTF-16 stay, so that it goes on being that.
fn cover(secret: &mut [u8]) {
    for byte in secret.iter_mut().filter(|byte| **byte != 0) {
        *byte = STAR;
    }
}

/// An operator should know whose pages show what was sent there: they may show it to others.
fn tell(part: MessagePart, route: &Route) {
    let destination = &*route.destination.name;
    let part_name = part.as_str();
    if route.counters.redacted(part) {
        tracing::warn!(
            destination,
            part = part_name,
            "the destination echoes an attached secret; it was struck out of the answer",
        );
    } else {
        tracing::debug!(
            destination,
            part = part_name,
            "a secret was struck out of an answer"
        );
    }
}

/// Whether a body of this type is looked through. One that does not say what it is may be anything.
fn is_text(fields: &HeaderMap) -> bool {
    let Some(value) = fields.get(header::CONTENT_TYPE) else {
        return true;
    };
    let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    let essence = text.split([';', ',']).next().unwrap_or_default().trim();
    let Some((kind, subtype)) = essence.split_once('/') else {
        return true;
    };
    // Of `vnd.api+json` and `x-ndjson` alike, what it is written in.
    let subtype = subtype.rsplit('+').next().unwrap_or_default();
    let subtype = subtype.strip_prefix("x-").unwrap_or(subtype);
    matches!(kind, "message" | "multipart" | "text") || TEXTS.contains(&subtype)
}

/// Why secrets would not be found in a text.
fn unreadable(status: StatusCode, fields: &HeaderMap) -> Option<&'static str> {
    let is_compressed = fields.get_all(header::CONTENT_ENCODING).iter().any(|value| {
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

/// Digests of the body as the upstream has sent it: RFC 9530, and what was before it.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

const STAR: u8 = b'*';
const STRUCK: HeaderValue = HeaderValue::from_static("*");

/// Types besides `text/*` in which people and programs read texts.
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

#[cfg(test)]
mod tests;

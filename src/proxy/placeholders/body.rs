//! The body of a request, searched for placeholders and changed on its way.
//!
//! A body of a small stated length is read whole before it is sent: its length is stated anew, and nothing is sent if it is
//! refused. A larger one, or one of unknown length, passes in pieces: only what may be the beginning of a placeholder waits for
//! the next piece. If such a body is refused, it is cut off, so that the destination never sees its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{self};
use http_body::{Body, Frame, SizeHint};
use zeroize::Zeroizing;

use super::Search;
use super::place::Place;
use crate::auth::LiveCredential;
use crate::auth::placeholder::FoundPlaceholder;
use crate::message::{Fields, RequestHead};
use crate::policy::{Denial, PlaceholderFault};
use crate::proxy::scrub;
use crate::upstream::Incoming;
use crate::upstream::body::{BodyError, Polled, SearchedBody};

/// The largest body that is read whole, as [`PlaceholderFault::Length`] says it.
const MOST_WHOLE: u64 = 1024 * 1024;

/// The beginnings of the names of fields in which an app states a digest or a signature of the body.
const DIGESTS: [&str; 12] = [
    "content-digest",
    "content-md5",
    "digest",
    "repr-digest",
    "signature",
    "x-amz-checksum-",
    "x-amz-content-sha256",
    "x-bz-content-sha1",
    "x-goog-hash",
    "x-hub-signature",
    "x-ms-content-sha256",
    "x-signature",
];

/// What is known of the whole body.
#[derive(Debug)]
struct Piecewise {
    /// The end that may be the beginning of a placeholder.
    held: Zeroizing<Vec<u8>>,
    /// Whether the app states a digest or a signature.
    has_digest: bool,
    /// Whether its length is stated, and has left already.
    is_sized: bool,
    place: Place,
    search: Search,
}

/// A body that passes in pieces.
#[derive(Debug)]
struct StreamedBody {
    incoming: Incoming,
    /// It is read whole before it is sent, so that its length can change.
    is_small: bool,
    pieces: Piecewise,
    /// Trailers that follow the held-back end.
    trailers: Option<HeaderMap>,
}

/// Whether the body can be searched: it is not compressed.
pub(super) fn is_readable(fields: &Fields) -> bool {
    fields.get_all(header::CONTENT_ENCODING).all(|value| {
        let mut codings = value
            .as_bytes()
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii);
        codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity"))
    })
}

/// Returns the body as it is sent. The length of a small one is stated when it has been read.
pub(super) fn searched(
    head: &mut RequestHead,
    incoming: Incoming,
    search: Search,
    credential: Option<&LiveCredential>,
) -> Incoming {
    let length = incoming.size_hint().exact();
    let is_small = length.is_some_and(|length| length <= MOST_WHOLE);
    let is_decided = |name| credential.is_some_and(|credential| credential.names().decide(name));
    let is_digest = |name: &str| DIGESTS.iter().any(|own| name.starts_with(own));
    let pieces = Piecewise {
        held: Zeroizing::default(),
        has_digest: head.headers.contains_key(header::TRAILER)
            || (head.headers.keys()).any(|name| is_digest(name.as_str()) && !is_decided(name)),
        is_sized: length.is_some() && !is_small,
        place: Place::of_body(&head.headers),
        search,
    };
    if is_small {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    Incoming::Searched(Box::new(StreamedBody {
        incoming,
        is_small,
        pieces,
        trailers: None,
    }))
}

impl Piecewise {
    /// Adds `data` and returns the bytes that can be passed on: all of them if `is_last`.
    fn push(&mut self, data: Bytes, is_last: bool) -> Result<Bytes, Denial> {
        let text = scrub::behind(&self.held, data);
        let (mut found, held) = self.search.set().find(&text, is_last, self.place.is_encoded());
        let mut cut = text.len() - held;
        // One that is longer may begin where this one does.
        if let Some(first) = found
            .iter()
            .find(|one| one.place.start < cut && one.place.end > cut)
        {
            cut = first.place.start;
        }
        found.retain(|one| one.place.start < cut);
        self.held = Zeroizing::new(text[cut..].to_vec());
        if found.is_empty() {
            return Ok(text.slice(..cut));
        }
        self.search.check_all(&found, self.place.name(), false)?;
        if !self.search.is_carried {
            return Ok(text.slice(..cut));
        }
        let written = self.search.writer().text(&text[..cut], &found, self.place)?;
        self.check_length(&found, written.len() != cut)?;
        Ok(Bytes::from_owner(written))
    }

    /// Checks that what the app said of the body still holds.
    fn check_length(&self, found: &[FoundPlaceholder], has_changed: bool) -> Result<(), Denial> {
        let fault = if self.has_digest {
            PlaceholderFault::Digest
        } else if self.is_sized && has_changed {
            PlaceholderFault::Length
        } else {
            return Ok(());
        };
        let number = found.first().map_or(0, |first| first.number);
        Err(self.search.denial(number, self.place.name(), fault))
    }
}

fn denied(denial: Denial) -> BodyError {
    BodyError::Denied(Box::new(denial))
}

impl Body for StreamedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let Self {
            incoming,
            pieces,
            trailers,
            ..
        } = &mut *self;
        if let Some(trailers) = trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        loop {
            let frame = match ready!(incoming.poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(cut)) => return Poll::Ready(Some(Err(cut))),
                None => {
                    let rest = pieces.push(Bytes::new(), true).map_err(denied);
                    let rest = rest.map(|rest| (!rest.is_empty()).then(|| Frame::data(rest)));
                    return Poll::Ready(rest.transpose());
                }
            };
            let frame = match frame.into_data() {
                Ok(data) => {
                    let data = pieces.push(data, incoming.is_end_stream()).map_err(denied)?;
                    (!data.is_empty()).then(|| Frame::data(data))
                }
                Err(frame) => {
                    let last = frame.into_trailers().unwrap_or_default();
                    pieces.search.check_trailers(&last).map_err(denied)?;
                    let rest = pieces.push(Bytes::new(), true).map_err(denied)?;
                    if rest.is_empty() {
                        Some(Frame::trailers(last))
                    } else {
                        *trailers = Some(last);
                        Some(Frame::data(rest))
                    }
                }
            };
            // Else the whole piece is held back.
            if let Some(frame) = frame {
                return Poll::Ready(Some(Ok(frame)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream() && self.pieces.held.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.incoming.size_hint().exact() {
            Some(_) if self.is_small => SizeHint::default(),
            Some(left) => SizeHint::with_exact(left + self.pieces.held.len() as u64),
            None => SizeHint::default(),
        }
    }
}

impl SearchedBody for StreamedBody {
    fn ask(&self) {
        self.incoming.ask();
    }

    fn is_read_whole(&self) -> bool {
        self.is_small
    }
}

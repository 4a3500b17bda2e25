//! The body of a response on its way to the app, copied into the cache or not.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::scrub::RedactedBody;
use crate::cache::ResponseCopy;
use crate::upstream::body::BodyError;
use crate::upstream::link::Stream;

/// The body of a response.
#[derive(Debug)]
pub(super) enum ReplyBody {
    Copied(Box<CopiedBody>),
    Plain(RedactedBody),
}

/// A body that is stored once it is complete.
#[derive(Debug)]
pub(super) struct CopiedBody {
    body: RedactedBody,
    copy: ResponseCopy,
}

impl ReplyBody {
    pub(super) fn copied(body: RedactedBody, mut copy: ResponseCopy) -> Self {
        if body.is_end_stream() {
            end(&body, &mut copy);
            return Self::Plain(body);
        }
        Self::Copied(Box::new(CopiedBody { body, copy }))
    }

    /// Sends more of the request body while the response is not read.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let Self::Plain(body) = self {
            body.poll_upload(cx);
        }
    }

    /// Returns the stream after a 101, and the bytes that the upstream has sent on it already.
    pub(super) fn into_stream(self) -> Option<(Stream, Bytes)> {
        match self {
            Self::Plain(body) => body.into_stream(),
            Self::Copied(_) => None,
        }
    }

    /// Reads a body that no client waits for, as long as it is copied.
    pub(super) async fn store(self) {
        if let Self::Copied(mut copied) = self {
            while copied.copy.is_active() {
                let next = std::future::poll_fn(|cx| copied.poll_frame(cx)).await;
                if next.is_none() {
                    return;
                }
            }
        }
    }
}

impl CopiedBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => {
                    self.copy.push(data);
                    // A reader who knows the length does not poll again.
                    if self.body.is_end_stream() {
                        end(&self.body, &mut self.copy);
                    }
                }
                // A stored response has no place for trailers.
                None => self.copy.give_up(),
            },
            Some(Err(_)) => self.copy.give_up(),
            None => end(&self.body, &mut self.copy),
        }
        Poll::Ready(frame)
    }
}

/// Finishes the copy at the end of the body.
fn end(body: &RedactedBody, copy: &mut ResponseCopy) {
    if body.is_clean() {
        copy.finish();
    } else {
        copy.give_up();
    }
}

impl HttpBody for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Copied(copied) => copied.poll_frame(cx),
            Self::Plain(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Copied(copied) => copied.body.is_end_stream(),
            Self::Plain(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Copied(copied) => copied.body.size_hint(),
            Self::Plain(body) => body.size_hint(),
        }
    }
}

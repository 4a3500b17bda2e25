//! The bytes of an answer, copied into the cache on their way to the app or not.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::scrub::Clean;
use crate::cache::ResponseCopy;
use crate::upstream::body::BodyError;
use crate::upstream::connect::Stream;

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Source {
    Copied(Box<Copied>),
    Plain(Clean),
}

/// A body that may be stored when it has come whole.
#[derive(Debug)]
pub(super) struct Copied {
    body: Clean,
    copy: ResponseCopy,
}

impl Source {
    pub(super) fn copied(body: Clean, mut copy: ResponseCopy) -> Self {
        if body.is_end_stream() {
            end(&body, &mut copy);
            return Self::Plain(body);
        }
        Self::Copied(Box::new(Copied { body, copy }))
    }

    /// Moves the rest of the request on, while nobody asks for the response.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let Self::Plain(body) = self {
            body.poll_upload(cx);
        }
    }

    /// After a 101: the stream, and what the upstream has sent on it already.
    pub(super) fn into_stream(self) -> Option<(Stream, Bytes)> {
        match self {
            Self::Plain(body) => body.into_stream(),
            Self::Copied(_) => None,
        }
    }

    /// Reads a body for nobody, for as long as it is copied.
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

impl Copied {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => {
                    self.copy.push(data);
                    // Whoever knows the length asks for no more.
                    if self.body.is_end_stream() {
                        end(&self.body, &mut self.copy);
                    }
                }
                // Trailers come after a body that may have been used already; a stored answer has no place for them.
                None => self.copy.give_up(),
            },
            Some(Err(_)) => self.copy.give_up(),
            None => end(&self.body, &mut self.copy),
        }
        Poll::Ready(frame)
    }
}

/// A body has come to its end.
fn end(body: &Clean, copy: &mut ResponseCopy) {
    if body.is_clean() {
        copy.finish();
    } else {
        copy.give_up();
    }
}

impl HttpBody for Source {
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

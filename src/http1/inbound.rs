//! The body of a request, as the app sends it over HTTP/1.1.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::Error;

/// The body of a request that came over HTTP/1.1. Polling it reads the app's connection.
pub(crate) struct Inbound {
    source: Arc<dyn BodySource>,
    /// The bytes still to come, if the app stated the length.
    left: Option<u64>,
    is_ended: bool,
}

/// The connection that a body comes from.
pub(super) trait BodySource: Send + Sync {
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>>;

    /// See [`Inbound::ask`].
    fn ask(&self);

    /// Whether the body has been read to its end.
    fn is_done(&self) -> bool;
}

impl Inbound {
    pub(super) fn new(source: Arc<dyn BodySource>, length: Option<u64>) -> Self {
        Self {
            source,
            left: length,
            is_ended: false,
        }
    }

    /// Asks for the body without waiting for the upstream: an app that waits for `100 Continue` gets it when the body is
    /// next read.
    pub(crate) fn ask(&self) {
        self.source.ask();
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(self.source.poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(left), Some(data)) = (&mut self.left, frame.data_ref()) {
                    *left = left.saturating_sub(data.len() as u64);
                }
                self.is_ended = self.source.is_done();
            }
            Some(Err(_)) | None => self.is_ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

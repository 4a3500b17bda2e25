//! The body of a request that came over HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::http1::MOST_SKIPPED;

/// How long the rest of a body that nobody wants is read.
const LINGER: Duration = Duration::from_secs(1);

/// A body whose rest is read and thrown away, within bounds, where it is dropped before its end.
///
/// Otherwise the library resets the stream as soon as it is answered, while the app still sends. RFC 9113 section 8.1 allows
/// that, but some clients then take the answer for lost: curl 7.88 ends with error 92.
#[derive(Debug)]
pub(crate) struct MultiplexedBody(Option<Incoming>);

impl MultiplexedBody {
    pub(crate) fn new(incoming: Incoming) -> Self {
        Self(Some(incoming))
    }
}

impl Body for MultiplexedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Some(incoming) => Pin::new(incoming).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .as_ref()
            .map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for MultiplexedBody {
    fn drop(&mut self) {
        let rest = self.0.take().filter(|incoming| !incoming.is_end_stream());
        if let Some(rest) = rest
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(timeout(LINGER, skip(rest)));
        }
    }
}

/// Reads a body up to its end, its failure or the bound.
async fn skip(mut rest: Incoming) {
    let mut skipped = 0;
    while skipped < MOST_SKIPPED
        && let Some(Ok(frame)) = rest.frame().await
    {
        skipped += frame.data_ref().map_or(0, Bytes::len);
    }
}

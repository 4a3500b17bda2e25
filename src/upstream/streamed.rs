//! The bodies of answers that come over HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body as _, SizeHint};
use hyper::body::Incoming;

use super::body::{BodyError, Polled};
use super::idle::IdleLimit;
use super::pool::OpenStream;
use crate::http1::{self, HeadRules};

/// The body of an answer that comes over HTTP/2.
#[derive(Debug)]
pub(crate) struct Streamed {
    incoming: Incoming,
    limits: HeadRules,
    limit: IdleLimit,
    _open: OpenStream,
}

impl Streamed {
    /// `limits`: of the trailers.
    pub(super) fn new(incoming: Incoming, open: OpenStream, idle: Duration, limits: HeadRules) -> Self {
        Self {
            incoming,
            limits,
            limit: IdleLimit::new(idle),
            _open: open,
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
        let Self {
            incoming,
            limits,
            limit,
            ..
        } = self;
        let frame = ready!(limit.poll(cx, |cx| {
            Pin::new(&mut *incoming)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(BodyError::H2)))
        }));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
            && let Err(excess) = limits.check_trailers(trailers)
        {
            return Poll::Ready(Some(Err(http1::Error::TooLarge(excess).into())));
        }
        // An error after the last byte of a stated length does not matter.
        Poll::Ready(frame.filter(|frame| frame.is_ok() || incoming.size_hint().exact() != Some(0)))
    }
}

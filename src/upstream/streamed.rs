//! The body of an answer that came over HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body as _, SizeHint};
use hyper::body::Incoming;

use super::body::{Cut, Polled};
use super::patience::Patience;
use super::pool::OpenStream;
use crate::http1::{self, HeadRules};

/// The body of an answer that came over HTTP/2.
#[derive(Debug)]
pub(crate) struct Streamed {
    incoming: Incoming,
    limits: HeadRules,
    patience: Patience,
    _open: OpenStream,
}

impl Streamed {
    /// `limits` are those of the trailers.
    pub(super) fn new(incoming: Incoming, open: OpenStream, idle: Duration, limits: HeadRules) -> Self {
        Self {
            incoming,
            limits,
            patience: Patience::new(idle),
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
            patience,
            ..
        } = self;
        let frame = ready!(patience.poll(cx, |cx| {
            Pin::new(&mut *incoming)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Cut::H2)))
        }));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
            && let Err(excess) = limits.check_trailers(trailers)
        {
            return Poll::Ready(Some(Err(http1::Error::TooLarge(excess).into())));
        }
        // What ends behind the last byte that was promised cuts nothing.
        Poll::Ready(frame.filter(|frame| frame.is_ok() || incoming.size_hint().exact() != Some(0)))
    }
}

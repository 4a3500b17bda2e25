//! A request body that has been read to its end, and can be sent more than once.

use std::sync::Arc;

use bytes::Bytes;
use http::header::HeaderMap;
use http_body::{Frame, SizeHint};

use super::body::Border;
use crate::memory::Reservation;

/// A whole body on one of its ways out.
#[derive(Clone, Debug)]
pub(crate) struct Whole {
    kept: Arc<Kept>,
    sent: Sent,
}

#[derive(Clone, Debug)]
struct Kept {
    data: Bytes,
    _held: Reservation,
    trailers: Option<HeaderMap>,
    /// Its length is stated, by the app or by us.
    is_sized: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Nothing,
    Data,
    All,
}

impl Whole {
    /// One that was read into memory that is `held`. `is_sized`: its length is stated.
    pub(super) fn new(data: Bytes, held: Reservation, trailers: Option<HeaderMap>, is_sized: bool) -> Self {
        let kept = Kept {
            data,
            _held: held,
            trailers,
            is_sized,
        };
        Self {
            kept: Arc::new(kept),
            sent: Sent::Nothing,
        }
    }

    /// All of it, however much of it has been sent.
    pub(super) fn data(&self) -> &[u8] {
        &self.kept.data
    }

    /// Its length, where that is stated.
    pub(super) fn stated_length(&self) -> Option<usize> {
        self.kept.is_sized.then_some(self.kept.data.len())
    }

    /// States its length. Trailers have no place behind a body of a stated length.
    pub(super) fn state_length(&mut self) {
        if !self.kept.is_sized {
            let kept = Arc::make_mut(&mut self.kept);
            (kept.is_sized, kept.trailers) = (true, None);
        }
    }

    /// From now on its trailers carry nothing that `border` keeps back.
    pub(super) fn confine(&mut self, border: &Border) {
        if self.kept.trailers.is_some()
            && let Some(trailers) = &mut Arc::make_mut(&mut self.kept).trailers
        {
            border.strike(trailers);
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.sent == Sent::All
    }

    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        if self.sent == Sent::Nothing {
            self.sent = match self.kept.trailers {
                None => Sent::All,
                Some(_) => Sent::Data,
            };
            if !self.kept.data.is_empty() {
                return Some(Frame::data(self.kept.data.clone()));
            }
        }
        if self.sent == Sent::Data {
            self.sent = Sent::All;
            return self.kept.trailers.clone().map(Frame::trailers);
        }
        None
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        if !self.kept.is_sized {
            return SizeHint::default();
        }
        SizeHint::with_exact(match self.sent {
            Sent::Nothing => self.kept.data.len() as u64,
            Sent::Data | Sent::All => 0,
        })
    }
}

//! A request body that has been read to its end, and can be sent more than once.

use std::sync::Arc;

use bytes::Bytes;
use http::header::HeaderMap;
use http_body::{Frame, SizeHint};

use super::body::TrailerFilter;
use crate::memory::Reservation;

/// A request body that has been read to its end. Each clone is sent once.
#[derive(Clone, Debug)]
pub(crate) struct BufferedBody {
    kept: Arc<BufferedData>,
    sent: BufferedSent,
}

#[derive(Clone, Debug)]
struct BufferedData {
    data: Bytes,
    _held: Reservation,
    trailers: Option<HeaderMap>,
    /// Its length is stated, by the app or here.
    is_sized: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BufferedSent {
    Nothing,
    Data,
    All,
}

impl BufferedBody {
    /// `held` reserves the memory of `data`. `is_sized`: its length is stated.
    pub(super) fn new(data: Bytes, held: Reservation, trailers: Option<HeaderMap>, is_sized: bool) -> Self {
        let kept = BufferedData {
            data,
            _held: held,
            trailers,
            is_sized,
        };
        Self {
            kept: Arc::new(kept),
            sent: BufferedSent::Nothing,
        }
    }

    /// Returns all of it, also what has been sent.
    pub(super) fn data(&self) -> &[u8] {
        &self.kept.data
    }

    /// Returns its length, if that is stated.
    pub(super) fn stated_length(&self) -> Option<usize> {
        self.kept.is_sized.then_some(self.kept.data.len())
    }

    /// States its length, and drops its trailers: a body of a stated length cannot have them.
    pub(super) fn state_length(&mut self) {
        if !self.kept.is_sized {
            let kept = Arc::make_mut(&mut self.kept);
            (kept.is_sized, kept.trailers) = (true, None);
        }
    }

    /// Removes the fields of `filter` from its trailers.
    pub(super) fn confine(&mut self, filter: &TrailerFilter) {
        if self.kept.trailers.is_some()
            && let Some(trailers) = &mut Arc::make_mut(&mut self.kept).trailers
        {
            filter.apply(trailers);
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.sent == BufferedSent::All
    }

    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        if self.sent == BufferedSent::Nothing {
            self.sent = match self.kept.trailers {
                None => BufferedSent::All,
                Some(_) => BufferedSent::Data,
            };
            if !self.kept.data.is_empty() {
                return Some(Frame::data(self.kept.data.clone()));
            }
        }
        if self.sent == BufferedSent::Data {
            self.sent = BufferedSent::All;
            return self.kept.trailers.clone().map(Frame::trailers);
        }
        None
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        if !self.kept.is_sized {
            return SizeHint::default();
        }
        SizeHint::with_exact(match self.sent {
            BufferedSent::Nothing => self.kept.data.len() as u64,
            BufferedSent::Data | BufferedSent::All => 0,
        })
    }
}

//! A request body that can be taken back from an HTTP/2 connection.
//!
//! An upstream that closes a connection, or has too many streams, refuses requests without processing them. They are sent
//! again (RFC 9113 section 8.7), which needs their bodies. What the connection has read of a body is kept until the answer
//! comes, up to [`MOST_KEPT`] and while there is memory to spare; the rest is still with the app.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, ready};

use bytes::BytesMut;
use http::header::HeaderMap;
use http_body::{Body, SizeHint};

use super::body::{BodyError, MOST_KEPT, Outbound, Polled, Progress};
use crate::http1;
use crate::memory::{self, Reservation};
use crate::sync::lock;

/// A body that is lent to a connection. Shared by the connection and the sender of the request.
#[derive(Debug)]
pub(crate) struct ReclaimableBody(Mutex<ReclaimState>);

#[derive(Debug)]
struct ReclaimState {
    /// `None`: it was taken back.
    body: Option<Outbound>,
    is_ended: bool,
    /// The app stated its length.
    is_sized: bool,
    /// What the connection has read so far. `None`: too much to keep, or not needed any more.
    taken: Option<BytesMut>,
    held: Reservation,
    trailers: Option<HeaderMap>,
}

impl ReclaimableBody {
    pub(super) fn new(body: Outbound) -> Arc<Self> {
        Arc::new(Self(Mutex::new(ReclaimState {
            is_ended: false,
            is_sized: body.size_hint().exact().is_some(),
            taken: Some(BytesMut::new()),
            held: Reservation::default(),
            trailers: None,
            body: Some(body),
        })))
    }

    /// Frees what is kept, because the answer has come.
    pub(super) fn forget(&self) {
        self.lent().forget();
    }

    /// Takes the body back for another connection; `None` if what had been read was not kept. The first connection can read
    /// no more of it.
    pub(super) fn take_back(&self) -> Option<Outbound> {
        let mut lent = self.lent();
        let (body, taken) = (lent.body.take()?, lent.taken.take()?.freeze());
        Some(if lent.is_ended || body.is_end_stream() {
            let held = std::mem::take(&mut lent.held);
            Outbound::kept(taken, held, lent.trailers.take(), lent.is_sized)
        } else if taken.is_empty() {
            body
        } else {
            Outbound::Begun(taken, Box::new(body))
        })
    }

    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Polled {
        let mut lent = self.lent();
        let Some(body) = &mut lent.body else {
            // An error, so that it is not taken for the end.
            return Polled::Ready(Some(Err(BodyError::H1(http1::Error::Incomplete))));
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => lent.keep(frame.data_ref().map(|data| &**data), frame.trailers_ref()),
            Some(Err(_)) => lent.forget(),
            None => lent.is_ended = true,
        }
        Polled::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.lent().body.as_ref().is_some_and(Body::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        (self.lent().body.as_ref()).map_or_else(SizeHint::default, Body::size_hint)
    }

    pub(super) fn progress(&self) -> Option<Arc<Progress>> {
        self.lent().body.as_ref().and_then(Outbound::progress)
    }

    fn lent(&self) -> MutexGuard<'_, ReclaimState> {
        lock(&self.0)
    }
}

impl ReclaimState {
    fn keep(&mut self, data: Option<&[u8]>, trailers: Option<&HeaderMap>) {
        let Some(taken) = &mut self.taken else { return };
        if let Some(data) = data {
            let length = taken.len() + data.len();
            if length > MOST_KEPT || length > memory::SMALL && self.held.fit(length).is_err() {
                return self.forget();
            }
            // A copy, because a view would keep its whole buffer.
            taken.extend_from_slice(data);
        }
        if let Some(trailers) = trailers {
            self.trailers = Some(trailers.clone());
            self.is_ended = true;
        }
    }

    fn forget(&mut self) {
        self.taken = None;
        self.held.release();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::BodyExt;

    use super::*;

    /// A body of two pieces of so many bytes.
    fn body(first: usize, second: usize) -> Outbound {
        let rest = Outbound::whole(Bytes::from(vec![b'b'; second]));
        Outbound::Begun(Bytes::from(vec![b'a'; first]), Box::new(rest))
    }

    #[tokio::test]
    async fn a_body_comes_back_as_it_was() {
        for (first, second, taken, is_back) in [
            (5, 5, 0, true),
            (5, 5, 1, true),
            (5, 5, 2, true),
            (5, 5, 3, true),
            (MOST_KEPT, 5, 1, true),
            (MOST_KEPT, 1, 2, false),
            (MOST_KEPT + 1, 5, 0, true),
            (MOST_KEPT + 1, 5, 1, false),
        ] {
            let reclaim = ReclaimableBody::new(body(first, second));
            let mut lent = Outbound::Lent(Arc::clone(&reclaim));
            for _ in 0..taken {
                let _ = lent.frame().await;
            }
            let back = reclaim.take_back();
            assert_eq!(back.is_some(), is_back, "{first} {second} {taken}");
            if let Some(back) = back {
                assert_eq!(back.size_hint().exact(), Some((first + second) as u64));
                let whole = body(first, second).collect().await.unwrap().to_bytes();
                assert_eq!(back.collect().await.unwrap().to_bytes(), whole, "{taken}");
            }
            assert!(lent.frame().await.unwrap().is_err(), "it was taken back");
        }
    }

    #[tokio::test]
    async fn an_answered_request_keeps_nothing() {
        let reclaim = ReclaimableBody::new(body(5, 5));
        let mut lent = Outbound::Lent(Arc::clone(&reclaim));
        let _ = lent.frame().await;
        reclaim.forget();
        let _ = lent.frame().await;
        assert!(reclaim.take_back().is_none());
    }
}

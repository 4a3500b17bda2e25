//! A request body that is lent to an HTTP/2 connection.
//!
//! An upstream that closes a connection, or has too many streams, refuses requests that it has not looked at. These are
//! sent again (RFC 9113 section 8.7), for which their bodies have to be had back. What the connection has taken of one
//! by then is kept until the answer comes, up to [`MOST_KEPT`] and while there is memory to spare; the rest is where it
//! was, with the app.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, ready};

use bytes::BytesMut;
use http::header::HeaderMap;
use http_body::{Body, SizeHint};

use super::body::{Cut, MOST_KEPT, Outbound, Polled, Progress};
use crate::http1;
use crate::memory::{self, Reservation};
use crate::sync::lock;

/// A body that is lent. The connection has it, and whoever sends the request.
#[derive(Debug)]
pub(crate) struct Loan(Mutex<Lent>);

#[derive(Debug)]
struct Lent {
    /// `None`: it was taken back.
    body: Option<Outbound>,
    is_ended: bool,
    /// The app stated its length.
    is_sized: bool,
    /// What the connection has taken so far. `None`: more than can be kept, or it is not needed any more.
    taken: Option<BytesMut>,
    held: Reservation,
    trailers: Option<HeaderMap>,
}

impl Loan {
    pub(super) fn new(body: Outbound) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Lent {
            is_ended: false,
            is_sized: body.size_hint().exact().is_some(),
            taken: Some(BytesMut::new()),
            held: Reservation::default(),
            trailers: None,
            body: Some(body),
        })))
    }

    /// The answer has come: nothing is kept any more.
    pub(super) fn forget(&self) {
        self.lent().forget();
    }

    /// The body as it was, for another connection; `None` where what was taken was not kept. The first connection gets no
    /// more of it.
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
            // An error, so that nobody takes it for the end.
            return Polled::Ready(Some(Err(Cut::H1(http1::Error::Incomplete))));
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

    fn lent(&self) -> MutexGuard<'_, Lent> {
        lock(&self.0)
    }
}

impl Lent {
    fn keep(&mut self, data: Option<&[u8]>, trailers: Option<&HeaderMap>) {
        let Some(taken) = &mut self.taken else { return };
        if let Some(data) = data {
            let length = taken.len() + data.len();
            if length > MOST_KEPT || length > memory::SMALL && self.held.fit(length).is_err() {
                return self.forget();
            }
            // A copy: a piece of a buffer would keep all of it.
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

    /// The first so many bytes as one piece, then a second one.
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
            let loan = Loan::new(body(first, second));
            let mut lent = Outbound::Lent(Arc::clone(&loan));
            for _ in 0..taken {
                let _ = lent.frame().await;
            }
            let back = loan.take_back();
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
        let loan = Loan::new(body(5, 5));
        let mut lent = Outbound::Lent(Arc::clone(&loan));
        let _ = lent.frame().await;
        loan.forget();
        let _ = lent.frame().await;
        assert!(loan.take_back().is_none());
    }
}

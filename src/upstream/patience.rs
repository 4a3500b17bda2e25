//! The limit on how long a body may stand still.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::body::{Cut, Polled};
use crate::http1::Deadline;

/// How long a body may stand still. The timer exists only where the other side had to be waited for.
#[derive(Debug)]
pub(crate) struct Patience {
    limit: Duration,
    deadline: Deadline,
    moved: bool,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            deadline: Deadline::default(),
            moved: true,
        }
    }

    /// Asks `source`; an error when it has stood still for too long.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: impl FnOnce(&mut Context<'_>) -> Polled,
    ) -> Polled {
        if let Poll::Ready(frame) = source(cx) {
            self.moved = true;
            return Poll::Ready(frame);
        }
        if std::mem::take(&mut self.moved) {
            self.deadline.set(Instant::now() + self.limit);
        }
        ready!(self.deadline.poll(cx));
        Poll::Ready(Some(Err(Cut::Idle(self.limit))))
    }
}

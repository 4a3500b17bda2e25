//! The limit on how long a body may not move (`timeouts.idle`).

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::body::{BodyError, Polled};
use crate::http1::Deadline;

/// Limits how long a body may not move. The timer is made only when a read has to wait.
#[derive(Debug)]
pub(crate) struct IdleLimit {
    limit: Duration,
    deadline: Deadline,
    moved: bool,
}

impl IdleLimit {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            deadline: Deadline::default(),
            moved: true,
        }
    }

    /// Polls `source`; fails if nothing has come for too long.
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
        Poll::Ready(Some(Err(BodyError::Idle(self.limit))))
    }
}

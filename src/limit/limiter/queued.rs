//! A request that waits in the queue of its limiter.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Limiter;

use crate::limit::request::{LimitedRequest, Ticket};

/// A request in the queue. Unless it was admitted, dropping it gives everything back.
pub(super) struct QueuedRequest<'l> {
    pub(super) request: LimitedRequest,
    pub(super) wake: Arc<Notify>,
    pub(super) is_admitted: bool,
    pub(super) limiter: &'l Limiter,
    pub(super) ticket: Ticket,
}

impl Drop for QueuedRequest<'_> {
    fn drop(&mut self) {
        if !self.is_admitted {
            let limiter = self.limiter;
            let now = limiter.nanos(Instant::now());
            limiter
                .state()
                .leave(&limiter.rules, self.ticket, self.request.limits, now);
        }
    }
}

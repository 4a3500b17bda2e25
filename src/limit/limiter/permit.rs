//! Leave to send one request, and what becomes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::Limiter;
use crate::limit::asked::Asked;
use crate::limit::book::Concerns;
use crate::limit::chance;
use crate::limit::hints::Hints;
use crate::limit::learned::Stamp;
use crate::limit::queue::Ticket;

/// Leave to send one request. Frees its concurrency slot on drop; one that is [held](Self::held) back until then gives
/// back what rates and quotas counted as well.
#[derive(Debug)]
pub(crate) struct Permit {
    /// The answer has come.
    pub(super) is_answered: AtomicBool,
    /// The request has not been sent yet.
    pub(super) is_held: AtomicBool,
    pub(super) concerns: Concerns,
    /// `None` where nothing has to be given back and nothing can be learned.
    pub(super) limiter: Option<Arc<Limiter>>,
    pub(super) stamp: Stamp,
    /// `None` where nothing was taken.
    pub(super) ticket: Option<Ticket>,
    pub(super) waited: Duration,
}

impl Permit {
    /// How long the request had to wait for it.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }

    /// The request is not sent yet, and does not count should it never be.
    pub(crate) fn held(self) -> Self {
        self.is_held.store(true, Ordering::Relaxed);
        self
    }

    /// From now on the request counts: it is being sent, or was tried in vain.
    pub(crate) fn used(&self) {
        self.is_held.store(false, Ordering::Relaxed);
    }

    /// The head of the upstream's answer is in: what it says of limits is kept to from now on. Only the first head of a
    /// permit counts.
    pub(crate) fn learn(&self, status: StatusCode, fields: &HeaderMap, asked: Asked<'_>) {
        let Some(limiter) = &self.limiter else { return };
        if !self.stamp.is_counted() || self.is_answered.swap(true, Ordering::Relaxed) {
            return;
        }
        limiter.traffic.end();
        let hints = Hints::of(status, fields, chance::time_of_day());
        if hints.is_some() || limiter.traffic.is_watched() {
            limiter.hear(self.stamp, status, hints.as_deref(), &asked);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(limiter) = &self.limiter else { return };
        if let Some(ticket) = self.ticket
            && *self.is_held.get_mut()
        {
            let now = limiter.nanos(Instant::now());
            (limiter.book()).put_back(&limiter.rules, ticket, self.concerns, self.stamp, now);
            return;
        }
        if self.stamp.is_counted() && !*self.is_answered.get_mut() {
            limiter.traffic.end();
            limiter.lose(self.stamp);
        }
        if self.concerns.slots() {
            (limiter.book()).release(&limiter.rules, || limiter.nanos(Instant::now()));
        }
    }
}

//! The permission to send one request, and what is learned from its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::Limiter;
use crate::limit::attributes::RequestAttributes;
use crate::limit::chance;
use crate::limit::hints::Hints;
use crate::limit::learned::SentRequest;
use crate::limit::request::{LimitSet, Ticket};
use crate::message::Fields;

/// The permission to send one request. Dropping it frees the concurrency slot. Dropping it before the request is
/// [sent](Self::used) also returns what rates and quotas counted.
#[derive(Debug)]
pub(crate) struct Permit {
    /// The answer has come.
    pub(super) is_answered: AtomicBool,
    /// The request has not been sent yet.
    pub(super) is_unsent: AtomicBool,
    pub(super) limits: LimitSet,
    /// `None` where nothing was taken and nothing can be learned.
    pub(super) limiter: Option<Arc<Limiter>>,
    pub(super) sent: SentRequest,
    /// `None` where nothing was taken.
    pub(super) ticket: Option<Ticket>,
    pub(super) waited: Duration,
}

impl Permit {
    /// How long the request waited for it.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }

    /// Marks the request as not sent yet: if it never is, it does not count.
    pub(crate) fn unsent(self) -> Self {
        self.is_unsent.store(true, Ordering::Relaxed);
        self
    }

    /// Marks the request as sent, or tried without success: from now on it counts.
    pub(crate) fn used(&self) {
        self.is_unsent.store(false, Ordering::Relaxed);
    }

    /// Whether its end frees something: a slot, or the place of a request whose answer is waited for.
    pub(crate) fn is_held(&self) -> bool {
        self.limits.has_slots() || self.sent.is_counted()
    }

    /// Learns from the head of the upstream's answer. Only the first head of a permit counts.
    pub(crate) fn learn(&self, status: StatusCode, fields: &Fields, attributes: RequestAttributes<'_>) {
        let Some(limiter) = &self.limiter else { return };
        if !self.sent.is_counted() || self.is_answered.swap(true, Ordering::Relaxed) {
            return;
        }
        limiter.traffic.end();
        let hints = Hints::of(status, fields, chance::time_of_day);
        if hints.is_some() || limiter.traffic.is_watched() {
            limiter.learn(self.sent, status, hints.as_deref(), &attributes);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(limiter) = &self.limiter else { return };
        if let Some(ticket) = self.ticket
            && *self.is_unsent.get_mut()
        {
            let now = limiter.nanos(Instant::now());
            limiter
                .state()
                .put_back(&limiter.rules, ticket, self.limits, self.sent, now);
            return;
        }
        if self.sent.is_counted() && !*self.is_answered.get_mut() {
            limiter.traffic.end();
            limiter.lost(self.sent);
        }
        if self.limits.has_slots() {
            limiter
                .state()
                .release(&limiter.rules, || limiter.nanos(Instant::now()));
        }
    }
}

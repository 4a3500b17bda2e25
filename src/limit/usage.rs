//! How much of one destination's limits is in use.
//!
//! A request takes from all limits that apply to it, or from none. The order of requests is decided in
//! [`LimiterState`](super::state::LimiterState).

use super::bucket::RateBucket;
use super::learned::{Learned, LearnedVerdict, SentRequest};
use super::request::{LimitSet, PendingRequest, Rules, Ticket};

#[derive(Debug)]
pub(super) struct Usage {
    /// `None` where answers of the upstream are ignored (`respect_upstream: false`).
    pub(super) learned: Option<Learned>,
    /// One for each rate.
    pub(super) buckets: Box<[RateBucket]>,
    pub(super) slots_taken: u32,
}

impl Usage {
    /// Decides whether the learned limits let a request go.
    pub(super) fn verdict(&mut self, pending: PendingRequest, now: u64) -> LearnedVerdict {
        match (&mut self.learned, &pending.request.key) {
            (Some(learned), Some(key)) => learned.verdict(key, pending.arrived, pending.max_wait, now),
            (None, _) | (_, None) => LearnedVerdict::Free,
        }
    }

    /// Takes from all limits of a request, if every one of them lets it go.
    pub(super) fn go(&mut self, rules: &Rules, pending: PendingRequest, now: u64) -> Option<SentRequest> {
        match self.verdict(pending, now) {
            LearnedVerdict::Free => self.take(rules, pending, now),
            LearnedVerdict::Held(..) => None,
        }
    }

    /// Takes from all limits of a request that the learned ones allow, if the configured ones do too.
    pub(super) fn take(&mut self, rules: &Rules, pending: PendingRequest, now: u64) -> Option<SentRequest> {
        let limits = pending.request.limits;
        let slots_full = limits.has_slots() && rules.slots.is_some_and(|slots| self.slots_taken >= slots);
        if slots_full || self.obstacle(rules, limits, now) > now {
            return None;
        }
        for (index, rate) in rules.rates(limits) {
            self.buckets[index].take(rate, pending.ticket, now);
        }
        self.slots_taken += u32::from(limits.has_slots());
        Some(match (&mut self.learned, &pending.request.key) {
            (Some(learned), Some(key)) => learned.take(key, now),
            (Some(learned), None) if !pending.request.is_tunnel => learned.take_unknown(),
            (None, _) | (_, None) => SentRequest::default(),
        })
    }

    /// Returns until when the rates hold a request that is next in line.
    pub(super) fn obstacle(&self, rules: &Rules, limits: LimitSet, now: u64) -> u64 {
        let earliest = rules
            .rates(limits)
            .map(|(index, rate)| self.buckets[index].earliest(rate, now));
        earliest.max().unwrap_or_default()
    }

    /// Returns what a request took that is not sent.
    pub(super) fn put_back(&mut self, rules: &Rules, ticket: Ticket, limits: LimitSet, sent: SentRequest) {
        for (index, rate) in rules.rates(limits) {
            self.buckets[index].give_back(rate, ticket);
        }
        if limits.has_slots() {
            self.slots_taken = self.slots_taken.saturating_sub(1);
        }
        if let Some(learned) = &mut self.learned {
            learned.give_back(sent);
        }
    }
}

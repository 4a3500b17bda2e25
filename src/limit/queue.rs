//! Which requests wait for one destination, and in which order.
//!
//! High goes before normal, and normal before low. Within a class, the first to come is the first to go. So that
//! no class starves, a waiter that has waited half of its time is promoted to the highest class. Its early
//! arrival counts there, so no later request overtakes it any more.
//!
//! The queue is always sorted. Whether a request can go is decided in [`state`](super::state).

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use super::gcra::NEVER;
use super::learned::SentRequest;
use super::request::{PendingRequest, Ticket};
use crate::config::Class;

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) wake: Arc<Notify>,
    /// When its timer fires, while it is at the front and a learned limit holds it.
    pub(super) due: Option<u64>,
    /// A learned limit holds it, so it blocks only waiters that the same limit holds.
    pub(super) is_held: bool,
    /// It has been woken because no earlier waiter blocks it.
    pub(super) is_front: bool,
    /// When it is promoted; [`NEVER`] in the highest class.
    promotes_at: u64,
    /// The class it is in now.
    rank: Class,
    pub(super) pending: PendingRequest,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiters: VecDeque<Waiter>,
    /// Those that have left the queue and have not checked since.
    departed: Vec<(Ticket, Departure)>,
    /// No promotion is due before this moment.
    next_promotion: u64,
}

/// Why a request has left the queue.
#[derive(Clone, Copy, Debug)]
pub(super) enum Departure {
    Admitted(SentRequest),
    /// Removed to make room for a higher class.
    Displaced,
}

impl Waiter {
    fn new(pending: PendingRequest) -> Self {
        Self {
            wake: Arc::new(Notify::new()),
            due: None,
            is_held: false,
            is_front: false,
            promotes_at: match pending.ticket.class {
                Class::High => NEVER,
                Class::Normal | Class::Low => pending.arrived.saturating_add(pending.max_wait / 2),
            },
            rank: pending.ticket.class,
            pending,
        }
    }

    fn key(&self) -> (Class, u64) {
        (self.rank, self.pending.ticket.number)
    }

    /// Whether its timer also serves if it is held until `due`: it fires in time, and before that there is
    /// nothing to report.
    pub(super) fn is_timed(&self, due: u64) -> bool {
        let max_wait = self.pending.arrived.saturating_add(self.pending.max_wait);
        self.due
            .is_some_and(|own| own <= due && (own > max_wait) == (due > max_wait))
    }

    /// Whether it goes before a request of `class` that comes later and goes at `horizon`.
    fn goes_before(&self, class: Class, horizon: u64) -> bool {
        self.rank <= class || self.promotes_at <= horizon
    }
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(super) fn get_mut(&mut self, position: usize) -> Option<&mut Waiter> {
        self.waiters.get_mut(position)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Waiter> {
        self.waiters.iter_mut()
    }

    /// Returns the waiters that go before a request of `class` that comes now and would go at `horizon`, if no
    /// other came.
    pub(super) fn before(&self, class: Class, horizon: u64) -> impl Iterator<Item = &Waiter> {
        let goes_before = move |waiter: &&Waiter| waiter.goes_before(class, horizon);
        self.waiters.iter().filter(goes_before)
    }

    /// Counts the waiters to which a rate applies, perhaps among other limits.
    pub(super) fn waiting_for(&self, rate: usize) -> u32 {
        let waiting = self
            .waiters
            .iter()
            .filter(|waiter| waiter.pending.request.limits.has_rate(rate));
        u32::try_from(waiting.count()).unwrap_or(u32::MAX)
    }

    /// Adds a waiter. Returns what wakes it when it should check.
    pub(super) fn insert(&mut self, pending: PendingRequest) -> Arc<Notify> {
        let waiter = Waiter::new(pending);
        let wake = Arc::clone(&waiter.wake);
        let position = self.waiters.partition_point(|other| other.key() < waiter.key());
        self.next_promotion = self.next_promotion.min(waiter.promotes_at);
        if self.waiters.is_empty() {
            self.next_promotion = waiter.promotes_at;
        }
        self.waiters.insert(position, waiter);
        wake
    }

    /// Removes the waiter at `position` as admitted, and wakes it. It learns of it by
    /// [`departure`](Self::departure).
    pub(super) fn admit(&mut self, position: usize, sent: SentRequest) {
        if let Some(admitted) = self.waiters.remove(position) {
            self.departed
                .push((admitted.pending.ticket, Departure::Admitted(sent)));
            admitted.wake.notify_one();
        }
    }

    /// Removes the waiter at `position`, which gives up.
    pub(super) fn remove(&mut self, position: usize) {
        self.waiters.remove(position);
    }

    /// Finds a waiter, in its class or promoted.
    pub(super) fn position(&self, ticket: Ticket) -> Option<usize> {
        let by = |rank| {
            let key = (rank, ticket.number);
            self.waiters.binary_search_by_key(&key, Waiter::key).ok()
        };
        by(ticket.class).or_else(|| by(Class::High))
    }

    /// Promotes the waiters that have waited long enough.
    pub(super) fn promote(&mut self, now: u64) {
        if now < self.next_promotion || self.waiters.is_empty() {
            return;
        }
        self.next_promotion = NEVER;
        for waiter in &mut self.waiters {
            if waiter.promotes_at <= now {
                waiter.promotes_at = NEVER;
                waiter.rank = Class::High;
            }
            self.next_promotion = self.next_promotion.min(waiter.promotes_at);
        }
        self.waiters.make_contiguous().sort_by_key(Waiter::key);
    }

    /// Makes room for a request of `class` in a full queue: removes the last waiter if that is of a lower class.
    pub(super) fn displace(&mut self, class: Class) -> bool {
        if self.waiters.back().is_none_or(|last| last.rank <= class) {
            return false;
        }
        if let Some(last) = self.waiters.pop_back() {
            self.departed.push((last.pending.ticket, Departure::Displaced));
            last.wake.notify_one();
        }
        true
    }

    /// Returns why a request has left the queue, and forgets it.
    pub(super) fn departure(&mut self, ticket: Ticket) -> Option<Departure> {
        let position = self.departed.iter().position(|(other, _)| *other == ticket)?;
        Some(self.departed.swap_remove(position).1)
    }
}

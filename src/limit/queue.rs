//! Who waits for one destination, and in which order.
//!
//! High goes before normal, normal before low; within a class the first to come is the first to go. So that nobody
//! starves, a waiter that has waited half of its patience moves up into the highest class, where its early arrival
//! counts: from then on nobody who comes later overtakes it.
//!
//! The queue is sorted at all times. Whether anybody can go is decided in [`book`](super::book).

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use super::book::Concerns;
use super::gcra::NEVER;
use crate::config::Class;

/// A request's place in the order: its class on arrival, then its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    pub(super) class: Class,
    pub(super) number: u64,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) bell: Arc<Notify>,
    pub(super) concerns: Concerns,
    /// It has been told that nobody before it blocks it.
    pub(super) is_front: bool,
    /// When it moves up; [`NEVER`] where it is in the highest class.
    promotes: u64,
    /// In which class it is now.
    rank: Class,
    pub(super) ticket: Ticket,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiters: VecDeque<Waiter>,
    /// Those that had to make room for a higher class and have not looked since.
    displaced: Vec<Ticket>,
    /// No promotion is due before.
    next_promotion: u64,
}

impl Ticket {
    /// Nobody's: the first to arrive comes after it.
    pub(super) const NOBODY: Self = Self {
        class: Class::High,
        number: 0,
    };
}

impl Waiter {
    /// Arrives `now` and waits for `patience` at most.
    pub(super) fn new(ticket: Ticket, concerns: Concerns, now: u64, patience: u64) -> Self {
        Self {
            bell: Arc::new(Notify::new()),
            concerns,
            is_front: false,
            promotes: match ticket.class {
                Class::High => NEVER,
                Class::Normal | Class::Low => now.saturating_add(patience / 2),
            },
            rank: ticket.class,
            ticket,
        }
    }

    fn key(&self) -> (Class, u64) {
        (self.rank, self.ticket.number)
    }

    /// Whether it goes before one of `class` that comes later and goes at `horizon`.
    fn goes_before(&self, class: Class, horizon: u64) -> bool {
        self.rank <= class || self.promotes <= horizon
    }
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(super) fn get(&self, place: usize) -> Option<&Waiter> {
        self.waiters.get(place)
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Waiter> {
        self.waiters.get_mut(place)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Waiter> {
        self.waiters.iter_mut()
    }

    /// Those that go before one of `class` which comes now and would go at `horizon`, if nobody else came.
    pub(super) fn before(&self, class: Class, horizon: u64) -> impl Iterator<Item = &Waiter> {
        let goes_before = move |waiter: &&Waiter| waiter.goes_before(class, horizon);
        self.waiters.iter().filter(goes_before)
    }

    /// How many wait for a rate, among others perhaps.
    pub(super) fn waiting_for(&self, rate: usize) -> u32 {
        let waiting = self.waiters.iter().filter(|waiter| waiter.concerns.rate(rate));
        u32::try_from(waiting.count()).unwrap_or(u32::MAX)
    }

    pub(super) fn insert(&mut self, waiter: Waiter) {
        let place = self.waiters.partition_point(|other| other.key() < waiter.key());
        self.next_promotion = self.next_promotion.min(waiter.promotes);
        if self.waiters.is_empty() {
            self.next_promotion = waiter.promotes;
        }
        self.waiters.insert(place, waiter);
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<Waiter> {
        self.waiters.remove(place)
    }

    /// Where a waiter stands: by its class, or moved up.
    pub(super) fn place(&self, ticket: Ticket) -> Option<usize> {
        let by = |rank| {
            let key = (rank, ticket.number);
            self.waiters.binary_search_by_key(&key, Waiter::key).ok()
        };
        by(ticket.class).or_else(|| by(Class::High))
    }

    /// Moves up whoever has waited long enough.
    pub(super) fn promote(&mut self, now: u64) {
        if now < self.next_promotion || self.waiters.is_empty() {
            return;
        }
        self.next_promotion = NEVER;
        for waiter in &mut self.waiters {
            if waiter.promotes <= now {
                waiter.promotes = NEVER;
                waiter.rank = Class::High;
            }
            self.next_promotion = self.next_promotion.min(waiter.promotes);
        }
        self.waiters.make_contiguous().sort_by_key(Waiter::key);
    }

    /// Makes room for one of `class` in a full queue: the last one goes, if it is of a lower class. It finds out by
    /// [`was_displaced`](Self::was_displaced) when it looks.
    pub(super) fn displace(&mut self, class: Class) -> bool {
        if self.waiters.back().is_none_or(|last| last.rank <= class) {
            return false;
        }
        if let Some(last) = self.waiters.pop_back() {
            self.displaced.push(last.ticket);
            last.bell.notify_one();
        }
        true
    }

    /// Whether it had to make room. It is forgotten with the answer.
    pub(super) fn was_displaced(&mut self, ticket: Ticket) -> bool {
        let found = self.displaced.iter().position(|other| *other == ticket);
        found.map(|place| self.displaced.swap_remove(place)).is_some()
    }
}

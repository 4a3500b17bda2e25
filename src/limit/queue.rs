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

use super::book::Asker;
use super::gcra::NEVER;
use super::learned::Stamp;
use crate::config::Class;

/// A request's place in the order: its class on arrival, then its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    pub(super) class: Class,
    pub(super) number: u64,
}

/// A request that asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) arrived: u64,
    pub(super) asker: Asker,
    pub(super) patience: u64,
    pub(super) ticket: Ticket,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) bell: Arc<Notify>,
    /// When its timer rings, where it is at the front and what is learned of the upstream holds it.
    pub(super) due: Option<u64>,
    /// What is learned of the upstream holds it, so that it stands in nobody's way but of those that the same holds.
    pub(super) is_aside: bool,
    /// It has been told that nobody before it blocks it.
    pub(super) is_front: bool,
    /// When it moves up; [`NEVER`] where it is in the highest class.
    promotes: u64,
    /// In which class it is now.
    rank: Class,
    pub(super) turn: Turn,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiters: VecDeque<Waiter>,
    /// What became of those that have left it and have not looked since.
    left: Vec<(Ticket, Left)>,
    /// No promotion is due before.
    next_promotion: u64,
}

/// What became of one that was in the queue.
#[derive(Clone, Copy, Debug)]
pub(super) enum Left {
    Admitted(Stamp),
    /// It had to make room for a higher class.
    Displaced,
}

impl Ticket {
    /// Nobody's: the first to arrive comes after it.
    pub(super) const NOBODY: Self = Self {
        class: Class::High,
        number: 0,
    };
}

impl Waiter {
    fn new(turn: Turn) -> Self {
        Self {
            bell: Arc::new(Notify::new()),
            due: None,
            is_aside: false,
            is_front: false,
            promotes: match turn.ticket.class {
                Class::High => NEVER,
                Class::Normal | Class::Low => turn.arrived.saturating_add(turn.patience / 2),
            },
            rank: turn.ticket.class,
            turn,
        }
    }

    fn key(&self) -> (Class, u64) {
        (self.rank, self.turn.ticket.number)
    }

    /// Whether its timer serves where it is held until `due`: it does not ring too late, and there is nothing to tell
    /// before.
    pub(super) fn is_timed(&self, due: u64) -> bool {
        let patience = self.turn.arrived.saturating_add(self.turn.patience);
        self.due
            .is_some_and(|own| own <= due && (own > patience) == (due > patience))
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
        let waiting = (self.waiters.iter()).filter(|waiter| waiter.turn.asker.concerns.rate(rate));
        u32::try_from(waiting.count()).unwrap_or(u32::MAX)
    }

    /// The bell that is rung when the waiter should look.
    pub(super) fn insert(&mut self, turn: Turn) -> Arc<Notify> {
        let waiter = Waiter::new(turn);
        let bell = Arc::clone(&waiter.bell);
        let place = self.waiters.partition_point(|other| other.key() < waiter.key());
        self.next_promotion = self.next_promotion.min(waiter.promotes);
        if self.waiters.is_empty() {
            self.next_promotion = waiter.promotes;
        }
        self.waiters.insert(place, waiter);
        bell
    }

    /// The waiter at this place goes; it is rung and finds out by [`left`](Self::left).
    pub(super) fn admit(&mut self, place: usize, stamp: Stamp) {
        if let Some(admitted) = self.waiters.remove(place) {
            self.left.push((admitted.turn.ticket, Left::Admitted(stamp)));
            admitted.bell.notify_one();
        }
    }

    /// The waiter at this place gives up.
    pub(super) fn remove(&mut self, place: usize) {
        self.waiters.remove(place);
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

    /// Makes room for one of `class` in a full queue: the last one goes, if it is of a lower class.
    pub(super) fn displace(&mut self, class: Class) -> bool {
        if self.waiters.back().is_none_or(|last| last.rank <= class) {
            return false;
        }
        if let Some(last) = self.waiters.pop_back() {
            self.left.push((last.turn.ticket, Left::Displaced));
            last.bell.notify_one();
        }
        true
    }

    /// What became of one that is not in the queue any more. It is forgotten with the answer.
    pub(super) fn left(&mut self, ticket: Ticket) -> Option<Left> {
        let place = self.left.iter().position(|(other, _)| *other == ticket)?;
        Some(self.left.swap_remove(place).1)
    }
}

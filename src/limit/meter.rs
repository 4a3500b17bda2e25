//! What one rate has left.
//!
//! The [`Book`](super::book::Book) asks a meter when the next request may go, takes from it and gives back; it does not
//! know where the permits come from. [`Stock::Local`] counts by itself: the level of a bucket (see [`gcra`](super::gcra)).
//! [`Stock::Lent`] has permits that a store lends which several instances share (see [`shared`](super::shared)): from
//! what it holds it says when the next request may go. Whoever brings something does so through
//! [`Book::refill`](super::book::Book::refill), which admits and rings those who wait.
//!
//! Pure: time is passed in. A meter is told its rate with each call, so that it holds only what changes.

use super::gcra::Gcra;
use super::queue::Ticket;
use super::shared::lease::Lease;

/// What one rate has left, and who took from it last.
#[derive(Debug)]
pub(super) struct Meter {
    /// Whose request made the stock what it is: only that one can be returned exactly.
    last: Ticket,
    stock: Stock,
}

#[derive(Debug)]
enum Stock {
    /// Counted here alone: the level of a bucket.
    Local(u64),
    /// Lent by the store.
    Lent(Box<Lease>),
}

impl Meter {
    /// Nobody has used it yet.
    pub(super) fn local(rate: Gcra) -> Self {
        Self {
            last: Ticket::NOBODY,
            stock: Stock::Local(rate.full()),
        }
    }

    pub(super) fn lent(lease: Lease) -> Self {
        Self {
            last: Ticket::NOBODY,
            stock: Stock::Lent(Box::new(lease)),
        }
    }

    /// What the store lends; `None` where nothing is lent.
    pub(super) fn lease(&mut self) -> Option<&mut Lease> {
        match &mut self.stock {
            Stock::Local(_) => None,
            Stock::Lent(lease) => Some(lease),
        }
    }

    /// Whether nothing is known before the store has answered.
    pub(super) fn is_asking(&self, now: u64) -> bool {
        match &self.stock {
            Stock::Local(_) => false,
            Stock::Lent(lease) => lease.is_asking(now),
        }
    }

    /// From when on the next request may go, as far as what is here tells; [`NEVER`](super::gcra::NEVER) for a rate of
    /// zero.
    pub(super) fn earliest(&self, rate: Gcra, now: u64) -> u64 {
        match &self.stock {
            Stock::Local(level) => rate.earliest(*level),
            Stock::Lent(lease) => lease.earliest(now),
        }
    }

    /// One request goes `now`, which must not be before the earliest moment.
    pub(super) fn take(&mut self, rate: Gcra, ticket: Ticket, now: u64) {
        match &mut self.stock {
            Stock::Local(level) => *level = rate.taken(*level, now),
            Stock::Lent(lease) => lease.take(now),
        }
        self.last = ticket;
    }

    /// The request of `ticket` does not go after all. Where another has gone since, nothing comes back: more might
    /// exceed the rate.
    pub(super) fn give_back(&mut self, rate: Gcra, ticket: Ticket) {
        if self.last != ticket {
            return;
        }
        match &mut self.stock {
            Stock::Local(level) => *level = rate.returned(*level),
            Stock::Lent(lease) => lease.give_back(),
        }
        self.last = Ticket::NOBODY;
    }

    /// How much is left: 1 full, 0 exhausted.
    pub(super) fn left(&self, rate: Gcra, now: u64) -> f64 {
        match &self.stock {
            Stock::Local(level) => f64::from(rate.remaining(*level, now)) / f64::from(rate.burst()),
            Stock::Lent(lease) => lease.left(now),
        }
    }

    /// A rate, and the level of its bucket, that behave as this meter is expected to: what a wait is forecast from.
    pub(super) fn outlook(&self, rate: Gcra, now: u64) -> (Gcra, u64) {
        match &self.stock {
            Stock::Local(level) => (rate, *level),
            Stock::Lent(lease) => lease.outlook(now),
        }
    }
}

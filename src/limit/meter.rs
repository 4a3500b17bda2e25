//! What one rate has left.
//!
//! The [`Book`](super::book::Book) asks a meter when the next request may go, takes from it and gives back; it does not
//! know where the permits come from. [`Meter::Local`] counts by itself: the level of a bucket (see [`gcra`](super::gcra)).
//! [`Meter::Lent`] has permits that a store lends which several instances share (see [`shared`](super::shared)): from
//! what it holds it says when the next request may go. Whoever brings something does so through
//! [`Book::refill`](super::book::Book::refill), which admits and rings those who wait.
//!
//! Pure: time is passed in. A meter is told its rate with each call, so that it holds only what changes.

use super::gcra::Gcra;
use super::queue::Ticket;
use super::shared::lease::Lease;

/// What one rate has left, and who took from it last.
#[derive(Debug)]
pub(super) enum Meter {
    /// Counted here alone.
    Local {
        level: u64,
        /// Whose request made the level what it is: only that one can be returned exactly.
        last: Ticket,
    },
    /// Lent by the store.
    Lent { lease: Box<Lease>, last: Ticket },
}

impl Meter {
    /// Nobody has used it yet.
    pub(super) fn local(rate: Gcra) -> Self {
        Self::Local {
            level: rate.full(),
            last: Ticket::NOBODY,
        }
    }

    pub(super) fn lent(lease: Lease) -> Self {
        Self::Lent {
            lease: Box::new(lease),
            last: Ticket::NOBODY,
        }
    }

    /// What the store lends; `None` where nothing is lent.
    pub(super) fn lease(&mut self) -> Option<&mut Lease> {
        match self {
            Self::Local { .. } => None,
            Self::Lent { lease, .. } => Some(lease),
        }
    }

    /// Whether nothing is known before the store has answered.
    pub(super) fn is_asking(&self, now: u64) -> bool {
        match self {
            Self::Local { .. } => false,
            Self::Lent { lease, .. } => lease.is_asking(now),
        }
    }

    /// From when on the next request may go, as far as what is here tells; [`NEVER`](super::gcra::NEVER) for a rate of
    /// zero. `None`: nothing is here, and the moment at which something comes is not known. Whoever waits for it then
    /// has no timer, so that a [refill](super::book::Book::refill) must come.
    pub(super) fn earliest(&self, rate: Gcra, now: u64) -> Option<u64> {
        match self {
            Self::Local { level, .. } => Some(rate.earliest(*level)),
            Self::Lent { lease, .. } => Some(lease.earliest(now)),
        }
    }

    /// One request goes `now`, which must not be before the earliest moment.
    pub(super) fn take(&mut self, rate: Gcra, ticket: Ticket, now: u64) {
        match self {
            Self::Local { level, last } => {
                *level = rate.taken(*level, now);
                *last = ticket;
            }
            Self::Lent { lease, last } => {
                lease.take(now);
                *last = ticket;
            }
        }
    }

    /// The request of `ticket` does not go after all. Where another has gone since, nothing comes back: more might
    /// exceed the rate.
    pub(super) fn give_back(&mut self, rate: Gcra, ticket: Ticket) {
        match self {
            Self::Local { level, last } => {
                if *last == ticket {
                    *level = rate.returned(*level);
                    *last = Ticket::NOBODY;
                }
            }
            Self::Lent { lease, last } => {
                if *last == ticket {
                    lease.give_back();
                    *last = Ticket::NOBODY;
                }
            }
        }
    }

    /// How much is left: 1 full, 0 exhausted.
    pub(super) fn left(&self, rate: Gcra, now: u64) -> f64 {
        match self {
            Self::Local { level, .. } => f64::from(rate.remaining(*level, now)) / f64::from(rate.burst()),
            Self::Lent { lease, .. } => lease.left(now),
        }
    }

    /// A rate, and the level of its bucket, that behave as this meter is expected to: what a wait is forecast from.
    pub(super) fn outlook(&self, rate: Gcra, now: u64) -> (Gcra, u64) {
        match self {
            Self::Local { level, .. } => (rate, *level),
            Self::Lent { lease, .. } => lease.outlook(now),
        }
    }
}

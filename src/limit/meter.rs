//! What one rate has left.
//!
//! The [`Book`](super::book::Book) asks a meter when the next request may go, takes from it and gives back; it does not
//! know where the permits come from. [`Meter::Local`] counts by itself: the level of a bucket (see [`gcra`](super::gcra)).
//! A form whose permits are lent by somebody else (a store that several instances share) fits beside it: it says from
//! what it holds when the next request may go, or that nobody knows until something comes from outside. Whoever brings
//! something does so through [`Book::refill`](super::book::Book::refill), which admits and rings those who wait.
//!
//! Pure: time is passed in. A meter is told its rate with each call, so that it holds only what changes.

use super::gcra::Gcra;
use super::queue::Ticket;

/// What one rate has left, and who took from it last.
#[derive(Debug)]
pub(super) enum Meter {
    /// Counted here alone.
    Local {
        level: u64,
        /// Whose request made the level what it is: only that one can be returned exactly.
        last: Ticket,
    },
}

impl Meter {
    /// Nobody has used it yet.
    pub(super) fn local(rate: Gcra) -> Self {
        Self::Local {
            level: rate.full(),
            last: Ticket::NOBODY,
        }
    }

    /// From when on the next request may go, as far as what is here tells; [`NEVER`](super::gcra::NEVER) for a rate of
    /// zero. `None`: nothing is here, and the moment at which something comes is not known. Whoever waits for it then
    /// has no timer, so that a [refill](super::book::Book::refill) must come.
    pub(super) fn earliest(&self, rate: Gcra) -> Option<u64> {
        match self {
            Self::Local { level, .. } => Some(rate.earliest(*level)),
        }
    }

    /// One request goes `now`, which must not be before the earliest moment.
    pub(super) fn take(&mut self, rate: Gcra, ticket: Ticket, now: u64) {
        match self {
            Self::Local { level, last } => {
                *level = rate.taken(*level, now);
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
        }
    }

    /// How much is left: 1 full, 0 exhausted.
    pub(super) fn left(&self, rate: Gcra, now: u64) -> f64 {
        match self {
            Self::Local { level, .. } => f64::from(rate.remaining(*level, now)) / f64::from(rate.burst()),
        }
    }

    /// The level of a bucket that behaves as this meter is expected to: what a wait is forecast from.
    pub(super) fn outlook(&self) -> u64 {
        match self {
            Self::Local { level, .. } => *level,
        }
    }
}

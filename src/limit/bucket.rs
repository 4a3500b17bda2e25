//! What one rate has left.
//!
//! [`LimiterState`](super::state::LimiterState) asks a bucket when the next request may go, takes from it and
//! gives back. It does not know where the permits come from. [`Supply::Local`] is counted here: the level of a
//! [`gcra`](super::gcra) bucket. [`Supply::Leased`] holds permits leased from a store that several instances
//! [share](super::shared). A store's answer arrives through
//! [`LimiterState::refill`](super::state::LimiterState::refill), which admits those that can go now.
//!
//! Pure: time is passed in. The rate is passed with each call, so that a bucket holds only what changes.

use super::gcra::Gcra;
use super::request::Ticket;
use super::shared::lease::RateLease;

/// What one rate has left, and which request took from it last.
#[derive(Debug)]
pub(super) struct RateBucket {
    /// The request that took from it last. Only that one can be undone exactly.
    last: Ticket,
    supply: Supply,
}

#[derive(Debug)]
enum Supply {
    /// Counted here alone: the level of a bucket.
    Local(u64),
    /// Leased from the store.
    Leased(Box<RateLease>),
}

impl RateBucket {
    /// Makes a full bucket.
    pub(super) fn local(rate: Gcra) -> Self {
        Self {
            last: Ticket::NOBODY,
            supply: Supply::Local(rate.full()),
        }
    }

    pub(super) fn leased(lease: RateLease) -> Self {
        Self {
            last: Ticket::NOBODY,
            supply: Supply::Leased(Box::new(lease)),
        }
    }

    /// Returns the lease; `None` where the rate is counted here alone.
    pub(super) fn lease(&mut self) -> Option<&mut RateLease> {
        match &mut self.supply {
            Supply::Local(_) => None,
            Supply::Leased(lease) => Some(lease),
        }
    }

    /// Whether the store has to answer before anything is known.
    pub(super) fn is_asking(&self, now: u64) -> bool {
        match &self.supply {
            Supply::Local(_) => false,
            Supply::Leased(lease) => lease.is_asking(now),
        }
    }

    /// Returns when the next request may go, as far as this instance knows; [`NEVER`](super::gcra::NEVER) for a
    /// rate of zero.
    pub(super) fn earliest(&self, rate: Gcra, now: u64) -> u64 {
        match &self.supply {
            Supply::Local(level) => rate.earliest(*level),
            Supply::Leased(lease) => lease.earliest(now),
        }
    }

    /// Takes for one request that goes `now`, which must not be before the earliest moment.
    pub(super) fn take(&mut self, rate: Gcra, ticket: Ticket, now: u64) {
        match &mut self.supply {
            Supply::Local(level) => *level = rate.taken(*level, now),
            Supply::Leased(lease) => lease.take(now),
        }
        self.last = ticket;
    }

    /// Gives back what the request of `ticket` took. If another has gone since, nothing is given back: more might
    /// exceed the rate.
    pub(super) fn give_back(&mut self, rate: Gcra, ticket: Ticket) {
        if self.last != ticket {
            return;
        }
        match &mut self.supply {
            Supply::Local(level) => *level = rate.returned(*level),
            Supply::Leased(lease) => lease.give_back(),
        }
        self.last = Ticket::NOBODY;
    }

    /// Returns how much is left: 1 full, 0 exhausted.
    pub(super) fn left(&self, rate: Gcra, now: u64) -> f64 {
        match &self.supply {
            Supply::Local(level) => f64::from(rate.remaining(*level, now)) / f64::from(rate.burst()),
            Supply::Leased(lease) => lease.left(now),
        }
    }

    /// Returns a rate and a level that behave as this bucket is expected to, for forecasts.
    pub(super) fn forecast(&self, rate: Gcra, now: u64) -> (Gcra, u64) {
        match &self.supply {
            Supply::Local(level) => (rate, *level),
            Supply::Leased(lease) => lease.outlook(now),
        }
    }
}

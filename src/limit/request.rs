//! The configured limits of a destination as numbers, and a request as these limits see it.
//!
//! [`Rules`] holds the limits. A [`LimitedRequest`] says which of them apply to a request; with its time of
//! arrival and its [`Ticket`] it is a [`PendingRequest`], which is either admitted at once or waits in the
//! [`queue`](super::queue).

use super::gcra::Gcra;
use super::learned::LearnedKey;
use crate::config::Class;

/// The most rates of one destination that a [`LimitSet`] can distinguish.
const MOST_RATES: usize = 63;

const SLOTS: u64 = 1 << 63;

/// The limits of one destination as numbers. Immutable; [`LimiterState`](super::state::LimiterState) has one
/// bucket for each rate.
#[derive(Debug)]
pub(super) struct Rules {
    /// The limits that apply to every request.
    pub(super) for_all: LimitSet,
    /// How many requests may wait.
    pub(super) queue: usize,
    pub(super) rates: Box<[Gcra]>,
    /// How many requests may be in flight at once.
    pub(super) slots: Option<u32>,
}

/// Which limits apply to a request: bit i is rate i, the highest bit is the concurrency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LimitSet(u64);

/// A request as the limits see it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LimitedRequest {
    pub(super) class: Class,
    pub(super) limits: LimitSet,
    /// Finds the learned limits that apply. `None`: nothing had been learned when the request came.
    pub(super) key: Option<LearnedKey>,
    pub(super) is_tunnel: bool,
}

/// A request that has asked to be admitted.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingRequest {
    pub(super) arrived: u64,
    /// How long it may wait, in nanoseconds.
    pub(super) max_wait: u64,
    pub(super) request: LimitedRequest,
    pub(super) ticket: Ticket,
}

/// How long a request may wait, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct MaxWait {
    /// For the answer to a probe: a request that went first, to find out whether the others may go.
    pub(super) for_probe: u64,
    /// For its turn. Zero where the destination has `on_limit: reject`.
    pub(super) for_turn: u64,
}

/// The position of a request in the order: its class on arrival, then its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    pub(super) class: Class,
    pub(super) number: u64,
}

impl Rules {
    /// Returns the rates among `limits`, with their indices.
    pub(super) fn rates(&self, limits: LimitSet) -> impl Iterator<Item = (usize, Gcra)> {
        let rates = self.rates.iter().copied().enumerate();
        rates.filter(move |&(index, _)| limits.has_rate(index))
    }
}

impl LimitSet {
    pub(super) fn add_rate(&mut self, index: usize) {
        self.0 |= Self::bit(index);
    }

    pub(super) fn add_slots(&mut self) {
        self.0 |= SLOTS;
    }

    /// Adds every limit of `other`.
    pub(super) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has_slots(self) -> bool {
        self.0 & SLOTS != 0
    }

    pub(super) fn has_rate(self, index: usize) -> bool {
        self.0 & Self::bit(index) != 0
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns the bit of a rate. More rates than bits share the last one: stricter, never looser.
    fn bit(index: usize) -> u64 {
        1 << index.min(MOST_RATES - 1)
    }
}

impl Ticket {
    /// No request has this one: the first to arrive comes after it.
    pub(super) const NOBODY: Self = Self {
        class: Class::High,
        number: 0,
    };
}

//! One quota for all instances of an app: what an instance asks of the store that counts for all, and what it is given.
//!
//! Each instance holds a [`lease`] of every shared rate: a few permits, each with the moment from which it may be used.
//! When it runs low it asks for more, in one call for all limits of a destination; the store runs [`SCRIPT`], which
//! counts by its own clock. The permits of all instances together are what one bucket would have let through. While the
//! store cannot be asked, each instance keeps to its part of the rate.
//!
//! Slots of concurrency, and what is learned from an upstream's answers, stay with each instance. Pure: how the store is
//! reached is a matter of `store`.

use super::gcra::Gcra;

pub(crate) mod lease;
pub(crate) mod store_queue;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod twin;

/// What the store runs: grants permits of several limits in one atomic step.
pub(crate) const SCRIPT: &str = include_str!("grant.lua");

/// What an instance says to the store about one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PermitRequest {
    pub(super) terms: RateTerms,
    /// Permits that somebody waits for.
    pub(super) need: u32,
    /// Permits likely to be used within the grace, these among them.
    pub(super) soon: u32,
    /// Requests in a thousand seconds.
    pub(super) demand: u32,
    /// Permits it holds beyond what those need who wait.
    pub(super) spare: u32,
    /// How long those who wait would.
    pub(super) patience: u64,
    /// Permits it holds whose moment is to come.
    pub(super) held: u32,
    /// What it has used of its share, and is still felt, since the store has last answered.
    pub(super) spent: u32,
    /// What is left of its share of the burst, in case the store knows nothing of it any more.
    pub(super) left: u32,
    /// The birth of the key that it knows; 0 for none.
    pub(super) seen: i64,
    /// How far ahead, at most, others may have reserved before the store has lost it.
    pub(super) reserved: u64,
    pub(super) presence: Presence,
    /// It could not reach the store before.
    pub(super) returned: bool,
}

/// A rate as the store counts it, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RateTerms {
    pub(super) period: u64,
    pub(super) tolerance: u64,
    /// How long a permit that was there at once may lie unused.
    pub(super) grace: u64,
}

/// Whether the member tells with this call that it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It has told a moment ago.
    #[default]
    Announced,
    /// It is there, and uses the limit.
    Active,
    /// It is there, that is all.
    Idle,
}

/// What the store says about one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PermitGrant {
    /// Permits that may be used now.
    pub(super) at_once: u32,
    /// Permits that may be used later: the first after [`first`](Self::first), each next one a period later.
    pub(super) later: u32,
    /// In nanoseconds from now.
    pub(super) first: u64,
    /// How far the fleet's bucket is ahead, in nanoseconds.
    pub(super) ahead: u64,
    pub(super) born: i64,
    /// How many share the limit.
    pub(super) live: u32,
    /// How many of them have asked a moment ago.
    pub(super) active: u32,
    /// For how long each has its share only, because not all have returned.
    pub(super) wait: u64,
}

impl PermitRequest {
    /// The arguments of the script for this limit.
    pub(crate) fn arguments(&self) -> [String; ARGUMENTS] {
        let micros = |nanos: u64| format!("{}.{:03}", nanos / 1000, nanos % 1000);
        let presence = match self.presence {
            Presence::Announced => 0,
            Presence::Active => 1,
            Presence::Idle => 2,
        };
        [
            micros(self.terms.period),
            micros(self.terms.tolerance),
            micros(self.terms.grace),
            self.need.to_string(),
            self.soon.to_string(),
            format!("{}.{:03}", self.demand / 1000, self.demand % 1000),
            micros(self.patience),
            self.held.to_string(),
            self.spent.to_string(),
            self.left.to_string(),
            self.seen.to_string(),
            micros(self.reserved),
            presence.to_string(),
            u8::from(self.returned).to_string(),
            self.spare.to_string(),
        ]
    }
}

impl PermitGrant {
    /// So many permits at once, with plenty left.
    pub(super) fn of_bench(permits: u32) -> Self {
        Self {
            at_once: permits,
            born: 1,
            live: 1,
            active: 1,
            ..Self::default()
        }
    }

    #[cfg(test)]
    pub(crate) fn born(&self) -> i64 {
        self.born
    }

    /// Reads the script's answer about one limit; `None` where it makes no sense.
    pub(crate) fn read(numbers: [i64; ANSWERS]) -> Option<Self> {
        let [at_once, later, first, ahead, born, live, active, wait] = numbers;
        // A rate of zero is ahead for ever.
        let nanos = |micros: i64| Some(u64::try_from(micros).ok()?.saturating_mul(1000));
        Some(Self {
            at_once: at_once.try_into().ok()?,
            later: later.try_into().ok()?,
            first: nanos(first)?,
            ahead: nanos(ahead)?,
            born: (born != 0).then_some(born)?,
            live: live.try_into().ok()?,
            active: active.try_into().ok()?,
            wait: nanos(wait)?,
        })
    }
}

impl RateTerms {
    pub(super) fn of(rate: Gcra) -> Self {
        Self {
            period: rate.period(),
            tolerance: rate.tolerance(),
            grace: (rate.tolerance() / 4).min(LEASE),
        }
    }
}

/// How many numbers the script takes, and gives, for each limit.
pub(crate) const ARGUMENTS: usize = 15;
pub(crate) const ANSWERS: usize = 8;

/// How far ahead of its use a permit may be reserved, and how long it may lie at most.
const LEASE: u64 = SECOND;

const SECOND: u64 = 1_000_000_000;

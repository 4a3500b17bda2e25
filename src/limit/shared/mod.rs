//! One configured rate for all instances of an app: what an instance asks of the store, and what the store grants.
//!
//! Each instance holds a [`lease`] of every shared rate: a few permits, each with the moment from which it can be
//! used. When few are left it asks for more, in one call for all limits of a destination. The store runs
//! [`SCRIPT`], which counts by the store's clock. The permits of all instances together are what one bucket would
//! have let through. While the store cannot be asked, each instance keeps to its part of the rate.
//!
//! Slots of concurrency, and what is learned from an upstream's answers, stay with each instance. Pure: the
//! connections to the store are in `store`.

use super::gcra::Gcra;

mod batch;
mod demand;
pub(crate) mod lease;
#[cfg(test)]
pub(crate) mod script_model;
pub(crate) mod store_queue;
#[cfg(test)]
mod tests;

/// What the store runs: grants permits of several limits in one atomic step.
pub(crate) const SCRIPT: &str = include_str!("grant.lua");

/// How many numbers the script takes, and returns, for each limit.
pub(crate) const ARGUMENTS: usize = 15;
pub(crate) const ANSWERS: usize = 8;

/// How far ahead of its use a permit can be reserved, and how long it can stay unused at most.
const LEASE: u64 = SECOND;

const SECOND: u64 = 1_000_000_000;

/// What an instance asks of the store about one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PermitRequest {
    pub(super) terms: RateTerms,
    /// Permits for requests that wait.
    pub(super) need: u32,
    /// Permits likely to be used within the grace, these among them.
    pub(super) soon: u32,
    /// Requests in a thousand seconds.
    pub(super) demand: u32,
    /// Permits it holds and waiting requests do not need.
    pub(super) spare: u32,
    /// How long those requests would wait at most.
    pub(super) patience: u64,
    /// Permits it holds for later moments.
    pub(super) held: u32,
    /// What it has used of its share since the last answer, less what was earned since.
    pub(super) spent: u32,
    /// What is left of its share of the burst, in case the store has lost its data.
    pub(super) left: u32,
    /// When the key was made that it knows; 0 before the first answer.
    pub(super) seen: i64,
    /// How far ahead others may have reserved permits, at most, in case the store has lost its data.
    pub(super) reserved: u64,
    pub(super) presence: Presence,
    /// It could not reach the store before this call.
    pub(super) returned: bool,
}

/// A rate as the store counts it, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RateTerms {
    pub(super) period: u64,
    pub(super) tolerance: u64,
    /// How long a permit that was granted at once may stay unused.
    pub(super) grace: u64,
}

/// What an instance says about itself with this call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Nothing: a call a moment ago did.
    #[default]
    Announced,
    /// It runs and uses the limit.
    Active,
    /// It runs.
    Idle,
}

/// What the store grants of one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PermitGrant {
    /// Permits that can be used now.
    pub(super) at_once: u32,
    /// Permits that can be used later: the first after [`first`](Self::first), each next one a period later.
    pub(super) later: u32,
    /// In nanoseconds from now.
    pub(super) first: u64,
    /// In how many nanoseconds the fleet's bucket will be full.
    pub(super) ahead: u64,
    pub(super) born: i64,
    /// How many instances share the limit.
    pub(super) live: u32,
    /// How many of them have asked in the last seconds.
    pub(super) active: u32,
    /// How long each must keep to its share, because not all have returned.
    pub(super) wait: u64,
}

impl PermitRequest {
    /// Returns the arguments of the script for this limit.
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
    /// Builds a grant of so many permits at once, with plenty left.
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

    /// Reads the script's answer about one limit; `None` when it makes no sense.
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

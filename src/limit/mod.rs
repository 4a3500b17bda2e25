//! How much each destination may be asked at once and over time.
//!
//! [`Limiter::admit`] turns a request into a [`Permit`] or a [`Refusal`]. A request takes from every limit that
//! concerns it or from none. Where it may wait it queues, by class and in order of arrival; where the wait is known to
//! be too long it is refused at once. The permit holds the concurrency slot until it is dropped, so it rides on the
//! response body, or on the tunnel.
//!
//! The arithmetic of a rate is in [`gcra`], what a rate has left in [`meter`], who waits in [`queue`], who may go in
//! [`book`]: no clock, no lock, no I/O. [`limiter`] adds the lock, the timers and the metrics. Which limits a
//! destination has is decided in `policy`, not here.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::config::{AppliesTo, OnLimit, Priority, RateLimit};
use crate::policy::Destination;
use crate::sync::lock;
use crate::telemetry::Telemetry;

pub(crate) use self::asked::{Asked, Caller};
pub(crate) use self::deadline::deadline;
pub(crate) use self::hints::{asked_pause, is_refusal};
pub(crate) use self::limiter::{Limiter, Permit};
pub(crate) use self::refusal::Refusal;
use self::shared::board::Sharing;
use self::status::Belief;

mod asked;
pub(crate) mod bench;
mod book;
mod chance;
mod deadline;
mod gcra;
mod hints;
mod learned;
mod limiter;
mod meter;
mod queue;
mod refusal;
mod rule;
pub(crate) mod shared;
pub(crate) mod status;
#[cfg(test)]
mod tests;
mod told;
mod usage;

/// The limiters of all destinations. State survives a reload where the settings are equal.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// By the name of the destination; those of a pool's credentials by `NAME/PLACE`.
    limiters: Mutex<HashMap<Arc<str>, Arc<Limiter>>>,
}

/// What the configuration says; equal settings keep the state across reloads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    /// Whom and what a limit concerns that is learned.
    applies_to: AppliesTo,
    concurrency: Option<u32>,
    /// How many instances share each rate; each has its own concurrency.
    instances: u32,
    /// Which of several credentials these are the limits of; `None`: of the destination.
    member: Option<Box<str>>,
    on_limit: OnLimit,
    priorities: Vec<Priority>,
    queue: usize,
    rate_limits: Vec<RateLimit>,
    respect_upstream: bool,
    /// Where a store counts for all instances.
    sharing: Option<Sharing>,
}

impl Limits {
    /// The limiter of a destination: the running one where its limits are as before, else a new one.
    ///
    /// `sharing`: where a store counts for all instances.
    pub(crate) fn of(
        &self,
        destination: &Destination,
        sharing: Option<Sharing>,
        telemetry: &Telemetry,
    ) -> Arc<Limiter> {
        let settings = Settings {
            applies_to: destination.limits_apply_to,
            concurrency: destination.concurrency,
            instances: destination.instances.map_or(1, NonZeroU32::get),
            member: None,
            on_limit: destination.on_limit,
            priorities: destination.priorities.clone(),
            queue: destination.queue,
            rate_limits: destination.rate_limits.clone(),
            // With a pool, what the upstream says is said of one of its credentials.
            respect_upstream: destination.respect_upstream && !destination.has_pool(),
            sharing,
        };
        self.with(&destination.name, settings, telemetry)
    }

    /// What the upstream says of one of several credentials, by its place in the destination: the running limiter where
    /// the settings are as before, else a new one.
    pub(crate) fn of_member(
        &self,
        destination: &Destination,
        place: &str,
        telemetry: &Telemetry,
    ) -> Arc<Limiter> {
        let settings = Settings {
            applies_to: destination.limits_apply_to,
            concurrency: None,
            instances: 1,
            member: Some(place.into()),
            on_limit: destination.on_limit,
            priorities: destination.priorities.clone(),
            queue: destination.queue,
            rate_limits: Vec::new(),
            respect_upstream: destination.respect_upstream,
            sharing: None,
        };
        self.with(&destination.name, settings, telemetry)
    }

    /// Sets the gauges of what is left. For the metrics page to call before it is written: buckets fill while nobody
    /// asks, so the value is right only at the moment of asking.
    pub(crate) fn observe(&self) {
        for limiter in self.limiters().values() {
            limiter.observe();
        }
    }

    /// What is believed of the limits of each destination's upstream, in the order of their names.
    pub(crate) fn beliefs(&self) -> Vec<(Arc<str>, Belief)> {
        let mut limiters: Vec<_> = (self.limiters().iter())
            .map(|(key, limiter)| (Arc::clone(key), Arc::clone(limiter)))
            .collect();
        limiters.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let beliefs = |(key, limiter): (Arc<str>, Arc<Limiter>)| {
            let beliefs = limiter.beliefs().into_iter();
            beliefs.map(move |belief| (Arc::clone(&key), belief))
        };
        limiters.into_iter().flat_map(beliefs).collect()
    }

    /// Forgets the limiters of destinations that are gone.
    pub(crate) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        // In no name of a destination there is a slash.
        let name = |key: &str| key.split('/').next().map(&is_there);
        self.limiters().retain(|key, _| name(key) == Some(true));
    }

    fn with(&self, name: &Arc<str>, settings: Settings, telemetry: &Telemetry) -> Arc<Limiter> {
        let key = match &settings.member {
            None => Arc::clone(name),
            Some(place) => format!("{name}/{place}").into(),
        };
        let mut limiters = self.limiters();
        match limiters.get(&key) {
            Some(running) if running.has(&settings) => Arc::clone(running),
            _ => {
                let limiter = Limiter::new(name, settings, telemetry.counters(name));
                limiters.insert(key, Arc::clone(&limiter));
                limiter
            }
        }
    }

    fn limiters(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Limiter>>> {
        lock(&self.limiters)
    }
}

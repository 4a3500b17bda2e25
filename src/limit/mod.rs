//! How many requests a destination gets, at once and over time.
//!
//! [`Limiter::admit`] turns a request into a [`Permit`] or a [`Refusal`]. A request takes from every limit that
//! applies to it, or from none. If it may wait, it joins a queue, by class and in order of arrival; if the wait
//! is known to be too long, it is refused at once. The permit holds the concurrency slot until it is dropped, so
//! it stays with the response body, or with the tunnel.
//!
//! There are two kinds of limits. Configured ones are rates (arithmetic in [`gcra`], level in [`bucket`], shared
//! by several instances in [`shared`]) and the concurrency. Learned ones come from the upstream's answers:
//! [`hints`] parses these, [`learned`] keeps to them. [`state`] puts all of them together with the [`queue`]. All
//! of this has no clock, no lock and no I/O. [`limiter`] adds the lock, the timers and the metrics. Which limits
//! a destination has is decided in `policy`, not here.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::config::{AppliesTo, OnLimit, Priority, RateLimit};
use crate::policy::Destination;
use crate::sync::lock;
use crate::telemetry::Telemetry;

pub(crate) use self::attributes::{Caller, RequestAttributes};
pub(crate) use self::deadline::deadline;
pub(crate) use self::hints::{asked_pause, is_refusal};
pub(crate) use self::limiter::{Limiter, Permit};
pub(crate) use self::per_client::ClientRates;
pub(crate) use self::refusal::Refusal;
use self::shared::store_queue::Sharing;
use self::status::LimitStatus;

mod attributes;
pub(crate) mod bench;
mod bucket;
mod chance;
mod deadline;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gcra;
mod hints;
mod learned;
mod limiter;
mod log;
mod per_client;
mod queue;
mod refusal;
mod request;
mod rule;
pub(crate) mod shared;
mod state;
pub(crate) mod status;
#[cfg(test)]
mod tests;
mod usage;

/// The limiters of all destinations. Their state survives a reload if the settings are equal.
#[derive(Debug, Default)]
pub(crate) struct Limiters {
    /// By the name of the destination; those of a pool's credentials by `NAME/PLACE`.
    limiters: Mutex<HashMap<Arc<str>, Arc<Limiter>>>,
}

/// What the configuration says. A limiter with equal settings is kept across reloads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    /// Which requests a learned limit counts.
    applies_to: AppliesTo,
    concurrency: Option<u32>,
    /// How many instances share each rate. The concurrency is not shared.
    instances: u32,
    /// The credential of a pool that these are the limits of; `None` for the limits of the destination.
    member: Option<Box<str>>,
    on_limit: OnLimit,
    priorities: Vec<Priority>,
    queue: usize,
    rate_limits: Vec<RateLimit>,
    respect_upstream: bool,
    /// The store that counts for all instances.
    sharing: Option<Sharing>,
}

impl Limiters {
    /// Returns the limiter of a destination: the one that is [held](Self::hold) where its limits are as before, else a new one.
    ///
    /// `sharing`: the store that counts for all instances.
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
            // With a pool, what the upstream says concerns one of its credentials.
            respect_upstream: destination.respect_upstream && !destination.has_pool(),
            sharing,
        };
        self.with(&destination.name, settings, telemetry)
    }

    /// Returns the limiter of one credential of a pool, by its place in the destination: the one that is
    /// [held](Self::hold) if its settings have not changed, else a new one. It holds what the upstream says about that
    /// credential.
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

    /// Sets the gauges of what is left. Called before the metrics page is written: buckets refill while nobody
    /// asks, so a value is right only at the moment of asking.
    pub(crate) fn observe(&self) {
        for limiter in self.limiters().values() {
            limiter.observe();
        }
    }

    /// Returns what has been learned about the upstream of each destination, ordered by name.
    pub(crate) fn learned_limits(&self) -> Vec<(Arc<str>, LimitStatus)> {
        let mut limiters: Vec<_> = self
            .limiters()
            .iter()
            .map(|(key, limiter)| (Arc::clone(key), Arc::clone(limiter)))
            .collect();
        limiters.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let learned_limits = |(key, limiter): (Arc<str>, Arc<Limiter>)| {
            let learned_limits = limiter.learned_limits().into_iter();
            learned_limits.map(move |limit| (Arc::clone(&key), limit))
        };
        limiters.into_iter().flat_map(learned_limits).collect()
    }

    /// Keeps these limiters for the next build, and forgets all others.
    pub(crate) fn hold(&self, limiters: impl IntoIterator<Item = Arc<Limiter>>) {
        let keyed = |limiter: Arc<Limiter>| (limiter.key(), limiter);
        *self.limiters() = limiters.into_iter().map(keyed).collect();
    }

    fn with(&self, name: &Arc<str>, settings: Settings, telemetry: &Telemetry) -> Arc<Limiter> {
        match self.limiters().get(&settings.key(name)) {
            Some(running) if running.has(&settings) => Arc::clone(running),
            _ => Limiter::new(name, settings, telemetry.counters(name)),
        }
    }

    fn limiters(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Limiter>>> {
        lock(&self.limiters)
    }
}

impl Settings {
    /// Returns the key of a limiter of `destination`.
    fn key(&self, destination: &Arc<str>) -> Arc<str> {
        match &self.member {
            None => Arc::clone(destination),
            Some(place) => format!("{destination}/{place}").into(),
        }
    }
}

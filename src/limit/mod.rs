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
use std::sync::{Arc, Mutex, MutexGuard};

use crate::config::{AppliesTo, OnLimit, Priority, RateLimit};
use crate::policy::Destination;
use crate::sync::lock;
use crate::telemetry::Telemetry;

pub(crate) use self::attributes::{Caller, RequestAttributes};
pub(crate) use self::deadline::deadline;
pub(crate) use self::hints::{asked_pause, is_refusal};
pub(crate) use self::lazy::LazyLimiter;
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
mod lazy;
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
    of_destinations: Mutex<Vec<Arc<LazyLimiter>>>,
    /// Of the credentials of pools, by `NAME/PLACE`.
    of_members: Mutex<HashMap<Arc<str>, Arc<Limiter>>>,
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
        self.used().for_each(|limiter| limiter.observe());
    }

    /// Returns what has been learned about the upstream of each destination, ordered by name.
    pub(crate) fn learned_limits(&self) -> Vec<(Arc<str>, LimitStatus)> {
        let mut limiters: Vec<_> = self.used().map(|limiter| (limiter.key(), limiter)).collect();
        limiters.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let learned_limits = |(key, limiter): (Arc<str>, Arc<Limiter>)| {
            let learned_limits = limiter.learned_limits().into_iter();
            learned_limits.map(move |limit| (Arc::clone(&key), limit))
        };
        limiters.into_iter().flat_map(learned_limits).collect()
    }

    /// Keeps these limiters, and forgets all others: those of destinations for the pages, and those of the credentials of
    /// pools for the next build, too.
    pub(crate) fn hold(
        &self,
        of_destinations: impl IntoIterator<Item = Arc<LazyLimiter>>,
        of_members: impl IntoIterator<Item = Arc<Limiter>>,
    ) {
        let keyed = |limiter: Arc<Limiter>| (limiter.key(), limiter);
        *lock(&self.of_destinations) = of_destinations.into_iter().collect();
        *self.of_members() = of_members.into_iter().map(keyed).collect();
    }

    /// Returns those that a request has needed.
    fn used(&self) -> impl Iterator<Item = Arc<Limiter>> {
        let of_destinations = lock(&self.of_destinations);
        let used = of_destinations.iter().filter_map(|lazy| lazy.used());
        let used: Vec<_> = used.chain(self.of_members().values()).cloned().collect();
        used.into_iter()
    }

    fn with(&self, name: &Arc<str>, settings: Settings, telemetry: &Telemetry) -> Arc<Limiter> {
        match self.of_members().get(&settings.key(name)) {
            Some(running) if running.has(&settings) => Arc::clone(running),
            _ => Limiter::new(name, settings, telemetry.counters(name)),
        }
    }

    fn of_members(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Limiter>>> {
        lock(&self.of_members)
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

//! The running parts of a destination that have a state, and when a reload keeps them.

use std::sync::Arc;

use crate::cache::ResponseCache;
use crate::policy::Destination;
use crate::proxy::{Rehearsal, RetryPolicy, Route};
use crate::telemetry::Counters;
use crate::upstream::breaker::Breaker;

/// Returns the running cache where a request would still be answered as the one whose answer is stored, else a new
/// one.
pub(super) fn cache(destination: &Destination, before: Option<&Arc<Route>>) -> Option<Arc<ResponseCache>> {
    let config = destination.cache.as_ref()?;
    let same = before.filter(|old| old.destination.has_same_answers(destination));
    let running = same.and_then(|old| old.cache.as_ref());
    Some(kept(running, |_| true, || ResponseCache::new(config)))
}

/// Returns the running circuit where its settings are as before, else a new one.
pub(super) fn breaker(
    destination: &Destination,
    before: Option<&Arc<Route>>,
    counters: &Arc<Counters>,
) -> Option<Arc<Breaker>> {
    let settings = destination.circuit_breaker?;
    let running = before.and_then(|old| old.breaker.as_ref());
    let new = || Breaker::new(settings, &destination.name, Arc::clone(counters));
    Some(kept(running, |running| *running.settings() == settings, new))
}

/// Returns the running rehearsal where its settings are as before, else a new one.
pub(super) fn rehearsal(
    destination: &Destination,
    before: Option<&Arc<Route>>,
    counters: &Arc<Counters>,
) -> Option<Arc<Rehearsal>> {
    let settings = destination.rehearse?;
    let running = before.and_then(|old| old.rehearsal.as_ref());
    let new = || Rehearsal::new(settings, &destination.name, Arc::clone(counters));
    Some(kept(running, |running| *running.settings() == settings, new))
}

/// Returns the running budget of repeats where the settings are as before, else a new one.
pub(super) fn retry_policy(
    destination: &Destination,
    before: Option<&Arc<Route>>,
) -> Option<Arc<RetryPolicy>> {
    let settings = destination.retry.as_ref()?;
    let running = before.and_then(|old| old.retry_policy.as_ref());
    let new = || RetryPolicy::new(settings.clone(), &destination.name);
    Some(kept(running, |running| running.settings() == settings, new))
}

/// Returns what runs where it is as it should be, else a new one.
fn kept<T>(running: Option<&Arc<T>>, is_same: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> Arc<T> {
    match running {
        Some(running) if is_same(running) => Arc::clone(running),
        Some(_) | None => Arc::new(new()),
    }
}

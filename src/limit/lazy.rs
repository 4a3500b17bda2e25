//! The limiter of a destination, made when a request first needs it: most destinations of a long configuration are never
//! asked.

use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};

use super::shared::store_queue::Sharing;
use super::{Limiter, Settings};
use crate::policy::Destination;
use crate::telemetry::Counters;

/// What the limiter of a destination is made of, and the limiter.
#[derive(Debug)]
pub(crate) struct LazyLimiter {
    counters: Arc<Counters>,
    destination: Arc<Destination>,
    /// The same one before and after a reload that changes no limit: requests of both may make it.
    limiter: Arc<OnceLock<Arc<Limiter>>>,
    /// The store that counts for all instances.
    sharing: Option<Sharing>,
}

impl LazyLimiter {
    /// The limiter of `before` goes on where its limits are as they were.
    pub(crate) fn of(
        destination: &Arc<Destination>,
        sharing: Option<Sharing>,
        counters: &Arc<Counters>,
        before: Option<&Self>,
    ) -> Self {
        let mut new = Self {
            counters: Arc::clone(counters),
            destination: Arc::clone(destination),
            limiter: Arc::default(),
            sharing,
        };
        if let Some(before) = before.filter(|before| before.settings() == new.settings()) {
            new.limiter = Arc::clone(&before.limiter);
        }
        if new.sharing.is_some() {
            // It joins the fleet now: the other instances count it among those that share the rate.
            new.limiter();
        }
        new
    }

    /// Returns the limiter. `None`: nothing is limited, so that no permit is needed.
    pub(crate) fn if_limited(&self) -> Option<&Arc<Limiter>> {
        let limiter = self.limiter.get();
        let is_limited = limiter.map_or_else(|| self.is_limited(), |limiter| !limiter.is_unlimited());
        is_limited.then(|| limiter.unwrap_or_else(|| self.limiter()))
    }

    /// Returns the limiter, whether it limits anything or not.
    pub(crate) fn limiter(&self) -> &Arc<Limiter> {
        self.limiter.get_or_init(|| {
            Limiter::new(
                &self.destination.name,
                self.settings(),
                Arc::clone(&self.counters),
            )
        })
    }

    /// Returns the limiter where a request has needed it.
    pub(super) fn used(&self) -> Option<&Arc<Limiter>> {
        self.limiter.get()
    }

    fn is_limited(&self) -> bool {
        let Self { destination, .. } = self;
        !destination.rate_limits.is_empty() || destination.concurrency.is_some() || learns(destination)
    }

    fn settings(&self) -> Settings {
        let Self { destination, .. } = self;
        Settings {
            applies_to: destination.limits_apply_to,
            concurrency: destination.concurrency,
            instances: destination.instances.map_or(1, NonZeroU32::get),
            member: None,
            on_limit: destination.on_limit,
            priorities: destination.priorities.clone(),
            queue: destination.queue,
            rate_limits: destination.rate_limits.clone(),
            respect_upstream: learns(destination),
            sharing: self.sharing.clone(),
        }
    }
}

/// With a pool, what the upstream says concerns one of its credentials.
fn learns(destination: &Destination) -> bool {
    destination.respect_upstream && !destination.has_pool()
}

//! The `retry` settings of a destination and its budget of repeats.
//!
//! Repeats stay a small share of the requests. Otherwise a destination that is down would get twice the load.
//! [`tries`](super::tries) decides when a request is sent again.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Retry;
use crate::sync::lock;
use crate::window::Window;

/// The share of repeats is measured over this time.
const SPAN: Duration = Duration::from_secs(10);

/// Repeats per [`SPAN`] that are always allowed, so that an app with few requests can repeat too.
const ALWAYS_ALLOWED: u64 = 10;

/// The repeats of one destination: settings and recent counts. Shared by all workers.
#[derive(Debug)]
pub(crate) struct RetryPolicy {
    destination: Arc<str>,
    /// Recent requests (first count) and repeats (second count).
    lately: Mutex<Window>,
    settings: Retry,
}

impl RetryPolicy {
    pub(crate) fn new(settings: Retry, destination: &Arc<str>) -> Self {
        Self {
            destination: Arc::clone(destination),
            lately: Mutex::new(Window::new(SPAN, Instant::now())),
            settings,
        }
    }

    pub(crate) fn settings(&self) -> &Retry {
        &self.settings
    }

    /// Counts a request.
    pub(super) fn begin(&self, now: Instant) {
        self.lately().first(now);
    }

    /// Takes one repeat from the budget. Returns false if the budget is spent.
    pub(super) fn spend(&self, now: Instant) -> bool {
        let mut lately = self.lately();
        let counts = lately.counts(now);
        let share = u64::from(counts.first) * u64::from(self.settings.budget) / 100;
        let has_room = u64::from(counts.second) < share + ALWAYS_ALLOWED;
        if has_room {
            lately.second(now);
        }
        drop(lately);
        if !has_room {
            tracing::debug!(destination = %self.destination, "not sent again: the budget of repeats is spent");
        }
        has_room
    }

    fn lately(&self) -> MutexGuard<'_, Window> {
        lock(&self.lately)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use http::StatusCode;

    use super::*;
    use crate::config::RetryOn;

    /// Two attempts, for 429 and failed connections.
    pub(in crate::proxy) fn policy(budget: u8) -> RetryPolicy {
        let settings = Retry {
            attempts: 2,
            budget,
            on: RetryOn {
                connect: true,
                statuses: vec![StatusCode::TOO_MANY_REQUESTS],
            },
            max_wait: Duration::from_secs(5),
        };
        RetryPolicy::new(settings, &"p".into())
    }

    fn spent(policy: &RetryPolicy, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| policy.spend(now)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn repeats_are_a_share_of_the_requests_and_a_few() {
        for (requests, budget, repeats) in [
            (0, 20, 10),
            (1, 20, 10),
            (100, 20, 30),
            (1_000, 1, 20),
            (50, 100, 60),
        ] {
            let policy = policy(budget);
            let now = Instant::now();
            (0..requests).for_each(|_| policy.begin(now));
            assert_eq!(spent(&policy, now, 2_000), repeats, "{requests} {budget}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_one_of_lately() {
        let policy = policy(20);
        let start = Instant::now();
        (0..100).for_each(|_| policy.begin(start));
        assert_eq!(spent(&policy, start, 100), 30);
        assert_eq!(spent(&policy, start + SPAN / 2, 100), 0);
        // Old requests and old repeats are forgotten together.
        assert_eq!(spent(&policy, start + SPAN, 100), 10);
    }
}

//! What a destination's configuration says about sending a request again, and its budget.
//!
//! Repeats have to stay a small share of the requests, so that a destination that is down is not asked twice as much for
//! it. When a request is sent again is decided in [`tries`](super::tries).

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Retry;
use crate::sync::lock;
use crate::window::Window;

/// How one destination's requests are repeated, and how many of them were lately; shared by all workers.
#[derive(Debug)]
pub(crate) struct Retrying {
    destination: Arc<str>,
    /// Requests first, then repeats.
    lately: Mutex<Window>,
    settings: Retry,
}

impl Retrying {
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

    /// A request begins.
    pub(super) fn begin(&self, now: Instant) {
        self.lately().first(now);
    }

    /// Takes one repeat from the budget, if there is one.
    pub(super) fn spend(&self, now: Instant) -> bool {
        let mut lately = self.lately();
        let counts = lately.counts(now);
        let share = u64::from(counts.first) * u64::from(self.settings.budget) / 100;
        let has_room = u64::from(counts.second) < share + FLOOR;
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

/// The time over which the share of repeats is measured.
const SPAN: Duration = Duration::from_secs(10);
/// Repeats in that time that need no requests beside them: an app that asks little may repeat as well.
const FLOOR: u64 = 10;

#[cfg(test)]
pub(super) mod tests {
    use http::StatusCode;

    use super::*;

    /// Two attempts, for 429 and where no connection can be made.
    pub(in crate::proxy) fn retrying(budget: u8) -> Retrying {
        let settings = Retry {
            attempts: 2,
            budget,
            on_connect: true,
            on_status: vec![StatusCode::TOO_MANY_REQUESTS],
            max_wait: Duration::from_secs(5),
        };
        Retrying::new(settings, &"p".into())
    }

    fn spent(retrying: &Retrying, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| retrying.spend(now)).count()
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
            let retrying = retrying(budget);
            let now = Instant::now();
            (0..requests).for_each(|_| retrying.begin(now));
            assert_eq!(spent(&retrying, now, 2_000), repeats, "{requests} {budget}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_one_of_lately() {
        let retrying = retrying(20);
        let start = Instant::now();
        (0..100).for_each(|_| retrying.begin(start));
        assert_eq!(spent(&retrying, start, 100), 30);
        assert_eq!(spent(&retrying, start + SPAN / 2, 100), 0);
        // The requests are forgotten with the repeats.
        assert_eq!(spent(&retrying, start + SPAN, 100), 10);
    }
}

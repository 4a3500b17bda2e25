//! What outrider tells of itself without being asked: `log.metrics` and `telemetry.push`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::App;
use super::build::Builder;
use crate::config::{Config, Push};
use crate::proxy::Proxy;
use crate::telemetry::PushResult;
use crate::upstream::pool;

/// The longest push, from name resolution to the end of the answer.
const LONGEST_PUSH: Duration = Duration::from_secs(10);
/// The longest one at the end: the platform does not wait.
const LAST_PUSH: Duration = Duration::from_secs(1);

/// Logs the key counters as the newest configuration says. Never ends.
pub(super) async fn log_counters(proxy: Arc<Proxy>, mut configs: watch::Receiver<Arc<Config>>) -> Infallible {
    let mut schedule = Schedule::new();
    loop {
        let every = configs.borrow_and_update().log.metrics;
        tokio::select! {
            // Where the sender is gone, so is the process.
            _ = configs.changed() => {}
            () = schedule.next(every) => proxy.telemetry.log_counters(),
        }
    }
}

/// Pushes all metrics as the newest configuration says. Never ends.
pub(super) async fn push(
    proxy: Arc<Proxy>,
    builder: Arc<Builder>,
    mut configs: watch::Receiver<Arc<Config>>,
) -> Infallible {
    let mut schedule = Schedule::new();
    let mut is_failing = false;
    loop {
        let config = Arc::clone(&configs.borrow_and_update());
        let push = config.telemetry.push.as_ref();
        if push.is_some() {
            proxy.telemetry.expect_pushes();
        }
        tokio::select! {
            _ = configs.changed() => {}
            () = schedule.next(push.map(|push| push.every)) => {
                if let Some(push) = push {
                    builder.limits.observe();
                    let failed = send(&proxy, push, LONGEST_PUSH).await;
                    tell(push, failed.as_deref(), &mut is_failing);
                    // Its connections are in the pool of this thread, which no worker sweeps.
                    let live = proxy.live.load_full();
                    pool::sweep(|endpoint| live.has_endpoint(endpoint));
                }
            }
        }
    }
}

impl App {
    /// Reports for the last time.
    pub(crate) async fn report_last(&self) {
        if self.config.log.metrics.is_some() {
            self.proxy.telemetry.log_counters();
        }
        if let Some(push) = &self.config.telemetry.push {
            self.builder.limits.observe();
            let failed = send(&self.proxy, push, LAST_PUSH).await;
            tell(push, failed.as_deref(), &mut false);
        }
    }
}

/// Writes all metrics, and counts that. Returns why it failed.
async fn send(proxy: &Arc<Proxy>, push: &Push, limit: Duration) -> Option<String> {
    let request = proxy.telemetry.remote_write(push.url.uri.clone());
    let failed = match timeout(limit, Box::pin(proxy.send_own(request, &push.url.target))).await {
        Err(_) => Some(format!("no answer within {} s", limit.as_secs())),
        Ok(answer) if answer.status.is_success() => None,
        Ok(answer) => {
            let refusal = answer.refusal;
            Some(refusal.unwrap_or_else(|| format!("the server answers {}", answer.status.as_u16())))
        }
    };
    let result = if failed.is_some() {
        PushResult::Failed
    } else {
        PushResult::Done
    };
    proxy.telemetry.pushed(result);
    failed
}

/// Logs the first failure, and the first success after one.
fn tell(push: &Push, failed: Option<&str>, is_failing: &mut bool) {
    let receiver = &push.url.target;
    match failed {
        Some(error) if !*is_failing => {
            tracing::warn!(%receiver, error, "metrics cannot be pushed; each following push has all of them again");
        }
        None if *is_failing => tracing::info!(%receiver, "metrics are pushed again"),
        Some(_) | None => {}
    }
    *is_failing = failed.is_some();
}

/// When something regular was last due.
struct Schedule(Instant);

impl Schedule {
    fn new() -> Self {
        Self(Instant::now())
    }

    /// Waits until `every` after the last time; for ever without an interval. What was late does not make the next one
    /// late, and what was missed is not made up for. A wait that is given up counts as none.
    async fn next(&mut self, every: Option<Duration>) {
        let Some(every) = every else {
            return std::future::pending().await;
        };
        let due = self.0 + every;
        sleep_until(due).await;
        let now = Instant::now();
        self.0 = if now < due + every { due } else { now };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn the_interval_is_kept_whatever_the_work_takes() {
        let start = Instant::now();
        let mut schedule = Schedule::new();
        let mut seen = Vec::new();
        // The time that the work takes after each.
        for takes in [0, 9, 3, 25, 0] {
            schedule.next(Some(EVERY)).await;
            seen.push(start.elapsed().as_secs());
            tokio::time::advance(Duration::from_secs(takes)).await;
        }
        // The fifth was missed and follows at once; from then on it is regular again.
        schedule.next(Some(EVERY)).await;
        seen.push(start.elapsed().as_secs());
        assert_eq!(seen, [10, 20, 30, 40, 65, 75]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_given_up_and_a_new_interval_count_from_the_last_time() {
        let start = Instant::now();
        let mut schedule = Schedule::new();
        schedule.next(Some(EVERY)).await;
        for _ in 0..2 {
            let waited = timeout(Duration::from_secs(3), schedule.next(Some(EVERY))).await;
            assert!(waited.is_err());
            assert!(
                timeout(Duration::from_secs(1), schedule.next(None))
                    .await
                    .is_err()
            );
        }
        schedule.next(Some(3 * EVERY)).await;
        assert_eq!(start.elapsed(), 4 * EVERY);
    }
}

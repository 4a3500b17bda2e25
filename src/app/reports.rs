//! What outrider tells of itself without being asked: `log.metrics` and `telemetry.push`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::App;
use crate::config::{Config, Push};
use crate::proxy::Proxy;
use crate::upstream::pool;

/// The longest push, from name resolution to the end of the answer.
const LONGEST_PUSH: Duration = Duration::from_secs(10);
/// The longest one at the end: the platform does not wait.
const LAST_PUSH: Duration = Duration::from_secs(1);

/// Reports as the newest configuration says. Never ends.
pub(super) async fn report(proxy: Arc<Proxy>, mut configs: watch::Receiver<Arc<Config>>) -> Infallible {
    let (mut logged, mut pushed) = (Instant::now(), Instant::now());
    let mut is_failing = false;
    loop {
        let config = Arc::clone(&configs.borrow_and_update());
        let (metrics, push) = (config.log.metrics, config.telemetry.push.as_ref());
        tokio::select! {
            // Where the sender is gone, so is the process.
            _ = configs.changed() => {}
            () = at(metrics.map(|every| logged + every)) => {
                logged = Instant::now();
                proxy.telemetry.log_counters();
            }
            () = at(push.map(|push| pushed + push.every)) => {
                pushed = Instant::now();
                if let Some(push) = push {
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
            let failed = send(&self.proxy, push, LAST_PUSH).await;
            tell(push, failed.as_deref(), &mut false);
        }
    }
}

/// Writes all metrics. Returns why it failed.
async fn send(proxy: &Arc<Proxy>, push: &Push, limit: Duration) -> Option<String> {
    let request = proxy.telemetry.remote_write(push.url.uri.clone());
    match timeout(limit, Box::pin(proxy.send_own(request, &push.url.target))).await {
        Err(_) => Some(format!("no answer within {} s", limit.as_secs())),
        Ok(answer) if answer.status.is_success() => None,
        Ok(answer) => {
            let refusal = answer.refusal;
            Some(refusal.unwrap_or_else(|| format!("the server answers {}", answer.status.as_u16())))
        }
    }
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

/// Waits until then; for ever where there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

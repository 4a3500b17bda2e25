//! The end: what a draining proxy waits for before it leaves.
//!
//! A platform stops the app and its proxy at the same moment, and an app that ends in good order still makes calls.
//! Those of a second from now are not to be seen yet, so a quiet moment says nothing there: it is the app's own end that
//! is waited for. Where no app is known, a quiet moment has to do.

use std::time::Duration;

use tokio::time::Instant;

use super::App;
use super::neighbours::app_processes;
use super::placeholders::is_on_platform;
use crate::config::DrainUntil;
use crate::descriptors;

/// How long it has to be quiet.
const QUIET: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(50);

impl App {
    /// Waits until nothing needs the proxy any more; connections are accepted all the while. The wait ends at the
    /// configured time at the latest, or when `now` completes.
    pub(crate) async fn drain(&self, now: impl Future<Output = ()>) {
        let drain = &self.proxy.drain;
        drain.begin();
        let waits_for_app = match self.config.drain_until {
            DrainUntil::AppGone => true,
            DrainUntil::Auto => is_on_platform(),
            DrainUntil::Quiet => false,
        };
        tracing::info!(
            at_most_seconds = self.config.drain.as_secs_f32(),
            until = if waits_for_app { "app_gone" } else { "quiet" },
            "leaving: waiting for what is going on"
        );
        let is_app_there = || {
            waits_for_app && (descriptors::pairs_taken() > 0 || app_processes().is_none_or(|count| count > 0))
        };
        let quiet = async {
            let mut last = drain.activity();
            let mut since = Instant::now();
            while since.elapsed() < QUIET {
                tokio::time::sleep(LOOK).await;
                let activity = drain.activity();
                if activity.0 > 0 || activity != last || is_app_there() {
                    since = Instant::now();
                }
                last = activity;
            }
        };
        let left = || {
            let (exchanges, connections) = (drain.activity().0, descriptors::pairs_taken());
            let processes = waits_for_app.then(app_processes).flatten();
            (exchanges, connections, processes)
        };
        let has_time = tokio::select! {
            () = quiet => {
                tracing::info!("left: all exchanges have finished");
                true
            }
            () = tokio::time::sleep(self.config.drain) => {
                let (exchanges, connections, app_processes) = left();
                tracing::warn!(exchanges, connections, app_processes, "left: the time to drain is over");
                true
            }
            () = now => {
                let (exchanges, connections, app_processes) = left();
                tracing::warn!(exchanges, connections, app_processes, "second signal: exiting without draining");
                false
            }
        };
        if has_time {
            self.report_last().await;
        }
        if let Some(store) = &self.store {
            store.leave().await;
        }
    }
}

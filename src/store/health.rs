//! Whether the store answers: logged once for each change, counted each time.

use std::sync::Arc;

use tokio::time::Instant;

use super::error::Error;
use crate::error::ErrorChain;
use crate::limit::Limiter;
use crate::telemetry::Telemetry;

pub(super) struct StoreHealth {
    failed: Option<Instant>,
    store: String,
    telemetry: Arc<Telemetry>,
}

impl StoreHealth {
    pub(super) fn new(store: String, telemetry: Arc<Telemetry>) -> Self {
        Self {
            failed: None,
            store,
            telemetry,
        }
    }

    /// Notes that the store could not be asked for these limiters.
    pub(super) fn bad(&mut self, error: &Error, concerned: &[Arc<Limiter>]) {
        self.telemetry.quota_store_error();
        if self.failed.is_none() {
            self.failed = Some(Instant::now());
            let parts = concerned.iter().map(|limiter| limiter.parts()).max();
            tracing::warn!(
                store = %self.store,
                error = %ErrorChain(error),
                instances = parts.unwrap_or(1),
                "the quota store cannot be asked: each instance keeps to its share until it can",
            );
        }
    }

    /// Notes that everything was answered.
    pub(super) fn good(&mut self) {
        if let Some(failed) = self.failed.take() {
            let seconds = failed.elapsed().as_secs_f32();
            tracing::info!(store = %self.store, seconds, "the quota store answers again");
        }
    }
}

//! Whether the store answers: logged once for each change, counted each time.

use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::error::Error;
use crate::error::ErrorChain;
use crate::host::Target;
use crate::limit::Limiter;
use crate::telemetry::Telemetry;

pub(super) struct StoreHealth {
    failed: Option<Instant>,
    /// Limiters that have not got an answer since.
    concerned: Vec<Weak<Limiter>>,
    store: String,
    telemetry: Arc<Telemetry>,
}

impl StoreHealth {
    pub(super) fn new(store: String, telemetry: Arc<Telemetry>) -> Self {
        Self {
            failed: None,
            concerned: Vec::new(),
            store,
            telemetry,
        }
    }

    /// Returns whether a failure was logged and its end was not.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Notes that the store, or this server of it, could not be asked for these limiters.
    pub(super) fn bad(&mut self, error: &Error, server: Option<&Target>, concerned: &[Arc<Limiter>]) {
        self.telemetry.quota_store_error();
        let server = server.map(tracing::field::display);
        let Some(parts) = concerned.iter().map(|limiter| limiter.parts()).max() else {
            // For example a server of a cluster that keeps nothing of ours.
            let error = ErrorChain(error);
            tracing::debug!(store = %self.store, server, %error, "a server of the quota store failed");
            return;
        };
        for limiter in concerned {
            let limiter = Arc::downgrade(limiter);
            if !self.concerned.iter().any(|other| other.ptr_eq(&limiter)) {
                self.concerned.push(limiter);
            }
        }
        if self.failed.is_none() {
            self.failed = Some(Instant::now());
            tracing::warn!(
                store = %self.store,
                server,
                error = %ErrorChain(error),
                instances = parts,
                "the quota store cannot be asked: each instance keeps to its share until it can",
            );
        }
    }

    /// Notes that a call of this limiter was answered.
    pub(super) fn good(&mut self, limiter: &Arc<Limiter>) {
        let answered = Arc::downgrade(limiter);
        self.concerned
            .retain(|other| other.strong_count() > 0 && !other.ptr_eq(&answered));
        if self.concerned.is_empty()
            && let Some(failed) = self.failed.take()
        {
            let seconds = failed.elapsed().as_secs_f32();
            tracing::info!(store = %self.store, seconds, "the quota store answers again");
        }
    }
}

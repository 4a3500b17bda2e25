//! The queue of limiters that want permits from the store, and the list of all that share their rates.
//!
//! Limiters add themselves; `store` takes them, asks, and gives each its answer.

use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Notify;

use super::lease::FleetConfig;
use super::{PermitGrant, PermitRequest};
use crate::limit::Limiter;
use crate::sync::lock;

/// The limiters that share their rates with other instances.
#[derive(Debug, Default)]
pub(crate) struct StoreQueue {
    limiters: Mutex<Vec<Weak<Limiter>>>,
    waiting: Mutex<Vec<Arc<Limiter>>>,
    wake: Notify,
}

/// How a destination shares its rates with other instances.
#[derive(Clone, Debug)]
pub(crate) struct Sharing {
    pub(crate) queue: Arc<StoreQueue>,
    pub(crate) fleet: FleetConfig,
    /// The name of each rate in the store, in the order of the configuration.
    pub(crate) names: Arc<[String]>,
}

/// What one limiter asks of the store: for all its rates at a time.
#[derive(Debug)]
pub(crate) struct PermitCall {
    pub(crate) requests: Vec<PermitRequest>,
    pub(crate) limiter: Arc<Limiter>,
}

impl StoreQueue {
    /// Waits until a limiter wants permits.
    pub(crate) async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Removes and returns the limiters that want permits.
    pub(crate) fn take(&self) -> Vec<Arc<Limiter>> {
        std::mem::take(&mut *lock(&self.waiting))
    }

    /// Returns all limiters that share their rates.
    pub(crate) fn limiters(&self) -> Vec<Arc<Limiter>> {
        let mut limiters = lock(&self.limiters);
        limiters.retain(|limiter| limiter.strong_count() > 0);
        limiters.iter().filter_map(Weak::upgrade).collect()
    }

    pub(in crate::limit) fn register(&self, limiter: &Arc<Limiter>) {
        lock(&self.limiters).push(Arc::downgrade(limiter));
    }

    pub(in crate::limit) fn push(&self, limiter: &Arc<Limiter>) {
        lock(&self.waiting).push(Arc::clone(limiter));
        self.wake.notify_one();
    }
}

impl PermitCall {
    /// Passes on what the store has answered for each rate.
    pub(crate) fn answered(&self, grants: &[PermitGrant]) {
        self.limiter.answered(&self.requests, grants);
    }
}

/// Equal when the same store is asked for the same: then a limiter goes on as it is.
impl PartialEq for Sharing {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.queue, &other.queue) && self.fleet == other.fleet && self.names == other.names
    }
}

impl Eq for Sharing {}

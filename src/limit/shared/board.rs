//! Where limiters say that they want something of the store, and whoever asks the store finds them.

use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Notify;

use super::lease::Home;
use super::{Ask, Grant};
use crate::limit::Limiter;
use crate::sync::lock;

/// The limiters that share their rates with other instances.
#[derive(Debug, Default)]
pub(crate) struct Board {
    bell: Notify,
    members: Mutex<Vec<Weak<Limiter>>>,
    posted: Mutex<Vec<Arc<Limiter>>>,
}

/// With whom a destination shares its rates.
#[derive(Clone, Debug)]
pub(crate) struct Sharing {
    pub(crate) board: Arc<Board>,
    pub(crate) home: Home,
    /// Under which name the store keeps each rate, in the order of the configuration.
    pub(crate) names: Arc<[String]>,
}

/// What one limiter asks of the store, all its rates at a time.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) asks: Vec<Ask>,
    pub(crate) limiter: Arc<Limiter>,
}

impl Board {
    /// Waits until somebody wants something. Those who do are [taken](Self::take) then.
    pub(crate) async fn posted(&self) {
        self.bell.notified().await;
    }

    /// Those who have said so since the last time.
    pub(crate) fn take(&self) -> Vec<Arc<Limiter>> {
        std::mem::take(&mut *lock(&self.posted))
    }

    /// All of them.
    pub(crate) fn members(&self) -> Vec<Arc<Limiter>> {
        let mut members = lock(&self.members);
        members.retain(|member| member.strong_count() > 0);
        members.iter().filter_map(Weak::upgrade).collect()
    }

    pub(in crate::limit) fn join(&self, limiter: &Arc<Limiter>) {
        lock(&self.members).push(Arc::downgrade(limiter));
    }

    pub(in crate::limit) fn post(&self, limiter: &Arc<Limiter>) {
        lock(&self.posted).push(Arc::clone(limiter));
        self.bell.notify_one();
    }
}

impl Call {
    /// What the store has said about each rate.
    pub(crate) fn answered(&self, grants: &[Grant]) {
        self.limiter.answered(&self.asks, grants);
    }
}

/// Equal where the same store is asked for the same: then a limiter goes on as it is.
impl PartialEq for Sharing {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.board, &other.board) && self.home == other.home && self.names == other.names
    }
}

impl Eq for Sharing {}

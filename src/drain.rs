//! Draining: the requests in flight, and whether it is quiet enough to leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Whether we are leaving, how many exchanges there are, and how much has moved. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain(Arc<State>);

#[derive(Debug, Default)]
struct State {
    draining: AtomicBool,
    begun: Notify,
    exchanges: AtomicUsize,
    moved: AtomicU64,
}

/// An exchange in flight: draining waits until it is dropped.
#[derive(Debug)]
pub(crate) struct ExchangeGuard(Arc<State>);

impl Drain {
    /// Begins to drain.
    pub(crate) fn begin(&self) {
        self.0.draining.store(true, Ordering::Release);
        self.0.begun.notify_waiters();
    }

    /// Waits until it begins to drain.
    pub(crate) async fn begun(&self) {
        // Made before the look, so that a beginning between the two is not missed.
        let begun = self.0.begun.notified();
        if !self.is_draining() {
            begun.await;
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Registers an exchange until the value is dropped.
    pub(crate) fn busy(&self) -> ExchangeGuard {
        self.0.exchanges.fetch_add(1, Ordering::Relaxed);
        ExchangeGuard(Arc::clone(&self.0))
    }

    /// Notes that bytes went through a tunnel: it is not idle.
    pub(crate) fn moved(&self) {
        self.0.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the exchanges in flight, and a number that changes whenever a tunnel moves bytes.
    pub(crate) fn activity(&self) -> (usize, u64) {
        (
            self.0.exchanges.load(Ordering::Acquire),
            self.0.moved.load(Ordering::Relaxed),
        )
    }
}

impl ExchangeGuard {
    pub(crate) fn drain(&self) -> Drain {
        Drain(Arc::clone(&self.0))
    }
}

impl Drop for ExchangeGuard {
    fn drop(&mut self) {
        self.0.exchanges.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_beginning_is_told_to_those_who_wait_and_to_those_who_come_later() {
        let drain = Drain::default();
        let waits = tokio::spawn({
            let drain = drain.clone();
            async move { drain.begun().await }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        drain.begin();
        waits.await.unwrap();
        drain.begun().await;
    }
}

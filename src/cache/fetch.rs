//! Requests that wait for the same response.
//!
//! The first of them is the [`Leader`]: it sends the request to the upstream and reports how that ends. The
//! others are [`Follower`]s. They stop waiting as soon as it is clear that the response will not be stored. When
//! the leader is dropped because its app went away, one of them becomes the next leader. A follower waits no
//! longer than the destination gives an upstream to answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::ResponseCache;

/// The app of the leader may read slowly; the followers must not wait for that.
const LONGEST_COPY: Duration = Duration::from_secs(3);

const MOST_FOLLOWERS: usize = 1000;

/// How far the leader has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchPhase {
    Asked,
    /// The head of the response is in; the body is being copied since this moment.
    Copying(Instant),
    Over(FetchOutcome),
}

/// How the leader's fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FetchOutcome {
    /// The response cannot be stored: each follower sends its own request.
    Alone,
    /// The upstream failed: a stale entry may be used.
    Failed,
    /// The leader was dropped: one of the followers becomes the leader.
    Gone,
    /// The response is stored: look it up again.
    Stored,
}

/// The request that goes to the upstream for all. Dropping it ends the fetch as [`FetchOutcome::Gone`].
#[derive(Debug)]
pub(crate) struct Leader {
    pub(super) cache: Arc<ResponseCache>,
    fetch_key: u64,
    phase: watch::Sender<FetchPhase>,
}

/// A fetch as the followers see it.
#[derive(Debug)]
pub(super) struct SharedFetch {
    phase: watch::Receiver<FetchPhase>,
    followers: usize,
}

/// A request that waits for the leader.
#[derive(Debug)]
pub(crate) struct Follower {
    phase: watch::Receiver<FetchPhase>,
}

impl Leader {
    /// Makes a leader, and the fetch that others can follow.
    pub(super) fn new(cache: &Arc<ResponseCache>, fetch_key: u64) -> (Self, SharedFetch) {
        let (sender, phase) = watch::channel(FetchPhase::Asked);
        let leader = Self {
            cache: Arc::clone(cache),
            fetch_key,
            phase: sender,
        };
        (leader, SharedFetch { phase, followers: 0 })
    }

    pub(super) fn copying(&self) {
        self.phase.send_replace(FetchPhase::Copying(Instant::now()));
    }

    pub(crate) fn finish(self, outcome: FetchOutcome) {
        self.report(outcome);
    }

    fn report(&self, outcome: FetchOutcome) {
        if !matches!(*self.phase.borrow(), FetchPhase::Over(_)) {
            // Removed first: a follower that looks again must not find this fetch.
            self.cache.fetch_ended(self.fetch_key);
            self.phase.send_replace(FetchPhase::Over(outcome));
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.report(FetchOutcome::Gone);
    }
}

impl SharedFetch {
    /// Adds a follower; `None` if there are enough.
    pub(super) fn follower(&mut self) -> Option<Follower> {
        if self.followers == MOST_FOLLOWERS {
            return None;
        }
        self.followers += 1;
        Some(Follower {
            phase: self.phase.clone(),
        })
    }
}

impl Follower {
    /// Waits for the end of the fetch. After `patience`, or when the copy takes too long, the follower sends its
    /// own request.
    pub(crate) async fn wait(mut self, patience: Duration) -> FetchOutcome {
        let mut deadline = Instant::now() + patience;
        loop {
            match *self.phase.borrow_and_update() {
                FetchPhase::Over(outcome) => return outcome,
                FetchPhase::Copying(since) => deadline = deadline.min(since + LONGEST_COPY),
                FetchPhase::Asked => {}
            }
            match timeout_at(deadline, self.phase.changed()).await {
                Ok(Ok(())) => {}
                // A leader reports its end before it is dropped.
                Ok(Err(_)) => return FetchOutcome::Gone,
                Err(_) => return FetchOutcome::Alone,
            }
        }
    }
}

//! Requests that wait for the same answer.
//!
//! The first of them is the [`Lead`]: it asks the upstream, and tells how that ends. The others [`Follow`]. They are let
//! go as soon as it shows that nothing will be stored, and when the lead is given up (its app went away) one of them
//! becomes the next. Nobody waits longer than the destination gives an upstream to answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Cache;

/// Where a lead has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Asked,
    /// The head of the answer is in, and it is being copied since then.
    Copying(Instant),
    Over(Outcome),
}

/// What followers should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The answer cannot be stored: each asks for itself.
    Alone,
    /// The upstream failed; what is stored may stand in.
    Failed,
    /// Whoever led is gone. One of them leads.
    Gone,
    /// Look again.
    Stored,
}

/// The one that asks the upstream. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Lead {
    pub(super) cache: Arc<Cache>,
    likeness: u64,
    tell: watch::Sender<Phase>,
}

/// A lead as others see it.
#[derive(Debug)]
pub(super) struct Flight {
    told: watch::Receiver<Phase>,
    followers: usize,
}

/// One that waits.
#[derive(Debug)]
pub(crate) struct Follow {
    told: watch::Receiver<Phase>,
}

impl Lead {
    /// The lead, and what others follow it by.
    pub(super) fn new(cache: &Arc<Cache>, likeness: u64) -> (Self, Flight) {
        let (tell, told) = watch::channel(Phase::Asked);
        let lead = Self {
            cache: Arc::clone(cache),
            likeness,
            tell,
        };
        (lead, Flight { told, followers: 0 })
    }

    pub(super) fn copies(&self) {
        self.tell.send_replace(Phase::Copying(Instant::now()));
    }

    pub(crate) fn ends(self, outcome: Outcome) {
        self.tell(outcome);
    }

    fn tell(&self, outcome: Outcome) {
        if !matches!(*self.tell.borrow(), Phase::Over(_)) {
            // First: whoever is told to look again must not find it going on.
            self.cache.landed(self.likeness);
            self.tell.send_replace(Phase::Over(outcome));
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.tell(Outcome::Gone);
    }
}

impl Flight {
    /// `None`: there are enough already.
    pub(super) fn follow(&mut self) -> Option<Follow> {
        if self.followers == MOST_FOLLOWERS {
            return None;
        }
        self.followers += 1;
        Some(Follow {
            told: self.told.clone(),
        })
    }
}

impl Follow {
    /// How the lead ended. After `patience`, or when its answer takes long to arrive, it is each for itself.
    pub(crate) async fn wait(mut self, patience: Duration) -> Outcome {
        let mut deadline = Instant::now() + patience;
        loop {
            match *self.told.borrow_and_update() {
                Phase::Over(outcome) => return outcome,
                Phase::Copying(since) => deadline = deadline.min(since + LONGEST_COPY),
                Phase::Asked => {}
            }
            match timeout_at(deadline, self.told.changed()).await {
                Ok(Ok(())) => {}
                // A lead tells before it goes.
                Ok(Err(_)) => return Outcome::Gone,
                Err(_) => return Outcome::Alone,
            }
        }
    }
}

/// The app that the lead serves may read slowly, and the others must not wait for that.
const LONGEST_COPY: Duration = Duration::from_secs(3);
const MOST_FOLLOWERS: usize = 1000;

//! One limit of the upstream, as one caller meets it.

use super::{Evidence, LearnedQuota, RateGuess, Scope};

/// One limit of the upstream.
#[derive(Debug)]
pub(super) struct LearnedLimit {
    pub(super) guess: RateGuess,
    /// The upstream's name for it; empty if it has no name.
    pub(super) name: Box<str>,
    pub(super) quota: LearnedQuota,
    pub(super) scope: Scope,
    pub(super) evidence: Evidence,
}

impl LearnedLimit {
    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.quota.is_idle(now) && self.guess.is_idle(now)
    }
}

//! How many permits the requests of late suggest.

use super::SECOND;

/// The number of requests a second that want a permit: an average in which old ones fade.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    rate: f64,
    at: u64,
}

impl Demand {
    pub(super) fn count(&mut self, now: u64) {
        self.rate = self.at(now) + 1.0;
        self.at = now;
    }

    /// Returns how many permits that makes in `reach`.
    ///
    /// Without the last request: it has just come, and would make rare requests look frequent.
    pub(super) fn within(&self, reach: u64, now: u64) -> u32 {
        let past = now.saturating_sub(self.at) as f64 / SECOND as f64;
        ((self.rate - 1.0).max(0.0) * (-past).exp() * reach as f64 / SECOND as f64) as u32
    }

    /// Returns whether a request came within the last second.
    pub(super) fn is_fresh(&self, now: u64) -> bool {
        self.rate > 0.0 && now < self.at.saturating_add(SECOND)
    }

    fn at(&self, now: u64) -> f64 {
        let past = now.saturating_sub(self.at) as f64 / SECOND as f64;
        self.rate * (-past).exp()
    }
}

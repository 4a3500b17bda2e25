//! Permits that the store has granted together.

/// Permits of one grant: the first at a certain moment, each next one a period later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PermitBatch {
    /// When the first of them can be used.
    pub(super) first: u64,
    pub(super) count: u32,
    /// 0: all at once.
    pub(super) period: u64,
    /// How long after its moment each can be used.
    pub(super) life: u64,
}

impl PermitBatch {
    /// Returns how many can still be used, now or later.
    pub(super) fn alive(&self, now: u64) -> u32 {
        let over = now.saturating_sub(self.first.saturating_add(self.life));
        match (over, self.period) {
            (0, _) => self.count,
            (_, 0) => 0,
            (over, period) => {
                self.count
                    - self
                        .count
                        .min(u32::try_from(over.div_ceil(period)).unwrap_or(u32::MAX))
            }
        }
    }

    /// Returns how many cannot be used yet.
    pub(super) fn after(&self, now: u64) -> u32 {
        match (now.checked_sub(self.first), self.period) {
            (None, _) => self.count,
            (Some(_), 0) => 0,
            (Some(since), period) => {
                let come = u32::try_from(since / period)
                    .unwrap_or(u32::MAX)
                    .saturating_add(1);
                self.count - self.count.min(come)
            }
        }
    }

    /// Returns when the first that has not ended can be used.
    pub(super) fn next(&self, now: u64) -> Option<u64> {
        let alive = self.alive(now);
        let expired = u64::from(self.count - alive);
        (alive > 0).then(|| self.first.saturating_add(self.period.saturating_mul(expired)))
    }

    /// Removes and returns the first.
    pub(super) fn split(&mut self) -> Self {
        let first = Self { count: 1, ..*self };
        self.first = self.first.saturating_add(self.period);
        self.count -= 1;
        first
    }
}

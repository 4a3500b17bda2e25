//! Sets of learned limits.

use super::caller::MOST_LIMITS;

/// A set of learned limits: bit i is the limit at index i of one [`CallerLimits`](super::caller::CallerLimits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LearnedSet(u32);

impl LearnedSet {
    pub(super) const ALL: Self = Self(u32::MAX);

    /// The slow start of a caller about which nothing is known: a bit after those of the limits.
    pub(super) const SLOW_START: Self = Self(1 << MOST_LIMITS);

    pub(super) fn of(index: usize) -> Self {
        Self(1 << index)
    }

    pub(super) fn contains(self, index: usize) -> bool {
        self.0 & (1 << index) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn shares(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

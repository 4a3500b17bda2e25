//! Sets of beliefs.

use super::subject::MOST_BELIEFS;

/// A set of beliefs: bit i is the belief at place i.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set(u32);

impl Set {
    pub(super) const ALL: Self = Self(u32::MAX);

    /// Of those that go carefully because nothing is known yet.
    pub(super) const BEGINNING: Self = Self(1 << MOST_BELIEFS);

    pub(super) fn one(place: usize) -> Self {
        Self(1 << place)
    }

    pub(super) fn has(self, place: usize) -> bool {
        self.0 & (1 << place) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn join(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn shares(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

//! Slow start: one request first, and two more for each answer.
//!
//! Where nobody knows what an upstream takes, the first answers show it. What may be in flight doubles in the
//! time that one answer takes. So that a slow upstream does not stop everything, it also doubles after a second
//! without an answer.

/// How many requests may be in flight. Each answer raises it by one; the answered request frees a second place.
#[derive(Debug)]
pub(super) struct SlowStart {
    /// Only requests with this number or a later one are counted.
    first_number: u64,
    allowed: u32,
    in_flight: u32,
    /// When `allowed` was last raised.
    raised_at: u64,
}

impl SlowStart {
    /// `first_number` is the number of the next request.
    pub(super) fn new(first_number: u64, now: u64) -> Self {
        Self::with(1, first_number, now)
    }

    pub(super) fn with(allowed: u32, first_number: u64, now: u64) -> Self {
        Self {
            first_number,
            allowed,
            in_flight: 0,
            raised_at: now,
        }
    }

    pub(super) fn allowed(&self) -> u32 {
        self.allowed
    }

    /// Whether one more request may go.
    pub(super) fn admits(&mut self, now: u64) -> bool {
        while !self.is_over() && now >= self.due() {
            self.raised_at = self.due();
            self.allowed *= 2;
        }
        self.in_flight < self.allowed
    }

    /// When more requests may go even without an answer.
    pub(super) fn due(&self) -> u64 {
        self.raised_at.saturating_add(SECOND)
    }

    /// Whether so many were in flight that there is nothing left to find out.
    pub(super) fn is_over(&self) -> bool {
        self.allowed >= ENOUGH
    }

    /// Whether the request with this number was sent since the slow start began.
    pub(super) fn counts(&self, number: u64) -> bool {
        number >= self.first_number
    }

    pub(super) fn take(&mut self) {
        self.in_flight += 1;
    }

    /// Counts a request as ended, with an answer or without. Returns whether it was counted here.
    pub(super) fn ended(&mut self, number: u64) -> bool {
        let counted = self.counts(number);
        self.in_flight = self.in_flight.saturating_sub(u32::from(counted));
        counted
    }

    /// Halves what may be in flight: the upstream refused.
    pub(super) fn ended_in_refusal(&mut self) {
        self.allowed = (self.allowed / 2).max(1);
    }

    /// Raises what may be in flight by one: a counted request was answered without a refusal.
    pub(super) fn grow(&mut self, now: u64) {
        self.allowed = self.allowed.saturating_add(1);
        self.raised_at = now;
    }
}

/// Nanoseconds.
pub(super) const SECOND: u64 = 1_000_000_000;

/// With so many in flight and no refusal, the upstream has no limit that a slow start would find.
const ENOUGH: u32 = 64;

//! A careful beginning: one request first, and for each answer two more.
//!
//! Where nobody knows what an upstream takes, the first answers tell; what may be under way doubles in the time that an
//! answer takes. An upstream that takes long must not stop everything, so a second without an answer doubles it, too.

/// So many requests may be under way; each answer adds one.
#[derive(Debug)]
pub(super) struct Ramp {
    /// Requests with this number or a later one are counted.
    born: u64,
    most: u32,
    out: u32,
    /// Since when it is `most`.
    raised: u64,
}

impl Ramp {
    /// `born` is the number of the next request.
    pub(super) fn new(born: u64, now: u64) -> Self {
        Self::with(1, born, now)
    }

    pub(super) fn with(most: u32, born: u64, now: u64) -> Self {
        Self {
            born,
            most,
            out: 0,
            raised: now,
        }
    }

    pub(super) fn most(&self) -> u32 {
        self.most
    }

    /// Whether one more may go.
    pub(super) fn admits(&mut self, now: u64) -> bool {
        while !self.is_over() && now >= self.due() {
            self.raised = self.due();
            self.most *= 2;
        }
        self.out < self.most
    }

    /// When more may go though nobody has answered.
    pub(super) fn due(&self) -> u64 {
        self.raised.saturating_add(SECOND)
    }

    /// There is nothing left to be careful about.
    pub(super) fn is_over(&self) -> bool {
        self.most >= ENOUGH
    }

    /// Whether the request with this number went since.
    pub(super) fn counts(&self, number: u64) -> bool {
        number >= self.born
    }

    pub(super) fn took(&mut self) {
        self.out += 1;
    }

    /// A request is not under way any more, answered or not. Whether it was counted here.
    pub(super) fn ended(&mut self, number: u64) -> bool {
        let counted = self.counts(number);
        self.out = self.out.saturating_sub(u32::from(counted));
        counted
    }

    /// The upstream refused: as many as that are too many for now.
    pub(super) fn ended_in_refusal(&mut self) {
        self.most = (self.most / 2).max(1);
    }

    /// One that was counted has been answered, and the upstream has not complained.
    pub(super) fn grow(&mut self, now: u64) {
        self.most = self.most.saturating_add(1);
        self.raised = now;
    }
}

/// Nanoseconds.
pub(super) const SECOND: u64 = 1_000_000_000;

/// So many at once without a complaint: the upstream has no limit that a careful beginning would find.
const ENOUGH: u32 = 64;

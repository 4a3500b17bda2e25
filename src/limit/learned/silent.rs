//! The rate of an upstream that refuses and does not say when to come back.
//!
//! Each refusal is followed by a short pause, longer where one comes upon the other, and afterwards by one request
//! that finds out. A second refusal soon after the first shows that there is a rate: a little less than what got
//! through since. From then on requests are spaced. While there are more of them than the rate lets through it grows: fast
//! until a complaint comes, which cuts it; then slowly, faster the longer nobody complains, and very slowly where the
//! last complaint came. It is forgotten
//! when nobody has had to wait for it for minutes.
//!
//! Refusals of requests that went before the last cut say nothing new.

use super::ramp::SECOND;
use crate::limit::gcra::Gcra;

#[derive(Debug, Default)]
pub(super) struct Silent {
    /// How many answers were no refusals since `since`.
    fine: u32,
    /// Refusals with nothing between them.
    in_a_row: u32,
    /// Requests with a lower number went before the last cut.
    news: u64,
    /// The first refusal, or the last one that was counted.
    since: u64,
    rate: Option<Adapted>,
}

#[derive(Debug)]
struct Adapted {
    per_second: f64,
    level: u64,
    /// At what rate it was refused last.
    ceiling: f64,
    grown: u64,
    /// When somebody last had to wait for it.
    held: u64,
    /// How much it grows in a second, as a part of itself.
    step: f64,
}

/// What follows from a refusal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cut {
    /// How long nobody goes.
    pub(super) pause: u64,
    /// The new rate, if there is one.
    pub(super) per_second: Option<f64>,
}

impl Silent {
    /// Nothing to keep to, nothing to measure.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.rate.is_none() && (self.since == 0 || now.saturating_sub(self.since) > MEMORY)
    }

    pub(super) fn per_second(&self) -> Option<f64> {
        self.rate.as_ref().map(|rate| rate.per_second)
    }

    /// From when on the next request may go. Whoever asks would go if it were now.
    pub(super) fn earliest(&mut self, now: u64) -> u64 {
        let Some(rate) = &mut self.rate else { return 0 };
        let earliest = rate.gcra().earliest(rate.level);
        if earliest > now {
            rate.held = now;
        }
        earliest
    }

    /// The rate as a bucket: what a wait is forecast from.
    pub(super) fn outlook(&self) -> Option<(Gcra, u64)> {
        // Where it has not been refused yet it doubles in little more than a second.
        let faster = |rate: &Adapted| if rate.ceiling.is_finite() { 1.0 } else { 4.0 };
        (self.rate.as_ref()).map(|rate| (spaced(rate.per_second * faster(rate)), rate.level))
    }

    pub(super) fn took(&mut self, now: u64) {
        if let Some(rate) = &mut self.rate {
            rate.level = rate.gcra().taken(rate.level, now);
        }
    }

    /// The last request that was taken did not go after all. A cut since has begun anew.
    pub(super) fn give_back(&mut self, number: u64) {
        if number >= self.news
            && let Some(rate) = &mut self.rate
        {
            rate.level = rate.gcra().returned(rate.level);
        }
    }

    /// An answer came that was no refusal. Whether the rate was forgotten.
    pub(super) fn went_well(&mut self, number: u64, now: u64) -> bool {
        if self.since == 0 {
            return false;
        }
        self.fine = self.fine.saturating_add(1);
        if number >= self.news {
            self.in_a_row = 0;
        }
        let Some(rate) = &mut self.rate else {
            if self.is_idle(now) {
                *self = Self::default();
            }
            return false;
        };
        rate.grow(now);
        let is_unused = now.saturating_sub(rate.held.max(self.since)) > UNUSED;
        if is_unused {
            *self = Self::default();
        }
        is_unused
    }

    /// Request `number` was refused without a word; `next` is the next request's number, `jitter` between 0 and 1.
    /// `None` where that says nothing new.
    pub(super) fn refused(&mut self, number: u64, next: u64, now: u64, jitter: f64) -> Option<Cut> {
        if number < self.news {
            return None;
        }
        let elapsed = now.saturating_sub(self.since);
        let is_first = self.since == 0 || (self.rate.is_none() && elapsed > MEMORY);
        let measured = f64::from(self.fine) / (elapsed.max(SHORTEST_PAUSE) as f64 / SECOND as f64);
        match &mut self.rate {
            _ if is_first => {}
            Some(rate) => rate.cut(measured, now),
            None => self.rate = Some(Adapted::new(measured * 0.9, now)),
        }
        let pause = SHORTEST_PAUSE << self.in_a_row.min(7);
        // Those that were refused together do not come back together.
        let pause = (pause as f64 * (0.75 + jitter / 2.0)) as u64;
        self.fine = 0;
        self.in_a_row += 1;
        self.news = next;
        self.since = now.max(1);
        Some(Cut {
            pause,
            per_second: self.per_second(),
        })
    }
}

impl Adapted {
    fn new(per_second: f64, now: u64) -> Self {
        let per_second = per_second.max(SLOWEST);
        Self {
            per_second,
            level: 0,
            // Nobody knows yet where it is: what was measured has pauses in it.
            ceiling: f64::INFINITY,
            grown: now,
            held: now,
            step: FIRST_STEP,
        }
    }

    fn gcra(&self) -> Gcra {
        spaced(self.per_second)
    }

    fn is_held(&self, now: u64) -> bool {
        now.saturating_sub(self.held) < 2 * SECOND
    }

    /// Grows while it holds somebody back.
    fn grow(&mut self, now: u64) {
        let seconds = (now.saturating_sub(self.grown)).min(SECOND) as f64 / SECOND as f64;
        self.grown = now;
        if !self.is_held(now) {
            return;
        }
        if self.ceiling.is_infinite() {
            self.per_second = (self.per_second * (1.0 + UNKNOWN_STEP * seconds)).min(FASTEST);
            return;
        }
        let is_near = (0.9 * self.ceiling..1.1 * self.ceiling).contains(&self.per_second);
        if is_near {
            self.step = FIRST_STEP;
        } else {
            self.step = (self.step + seconds * FIRST_STEP).min(LARGEST_STEP);
        }
        let step = if is_near { NEAR_STEP } else { self.step };
        self.per_second = (self.per_second * (1.0 + step * seconds)).min(FASTEST);
    }

    fn cut(&mut self, measured: f64, now: u64) {
        // Where nobody waited for it, it was higher than what came.
        let reached = if self.is_held(now) {
            self.per_second
        } else {
            measured.min(self.per_second)
        };
        self.ceiling = reached;
        self.per_second = (0.8 * reached).max(SLOWEST);
        self.step = FIRST_STEP;
        self.grown = now;
        self.held = now;
    }
}

fn spaced(per_second: f64) -> Gcra {
    // Timers are a millisecond late; a faster rate than that would never be reached.
    Gcra::spaced((SECOND as f64 / per_second) as u64, 10_000_000)
}

/// A refusal is soon after another one.
const MEMORY: u64 = 10 * SECOND;

/// So long without anybody who had to wait for it: forgotten.
const UNUSED: u64 = 300 * SECOND;

const SHORTEST_PAUSE: u64 = SECOND / 2;

const FASTEST: f64 = 100_000.0;
const SLOWEST: f64 = 0.05;

/// While no refusal has told how fast is too fast.
const UNKNOWN_STEP: f64 = 0.7;

const FIRST_STEP: f64 = 0.03;
const LARGEST_STEP: f64 = 0.3;
const NEAR_STEP: f64 = 0.005;

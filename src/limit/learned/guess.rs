//! The rate of an upstream that refuses and does not say when to come back.
//!
//! | event | what we do |
//! | --- | --- |
//! | a refusal after requests that passed | send the next request at once and alone, as a probe |
//! | the probe is refused as well: the upstream is *closed* | wait as long as has passed since the first refusal, then send one more; a fifth of that where requests may not wait |
//! | a probe passes: the upstream is *open* | send all that come |
//! | it has been closed and opened a second time | the requests that passed between both openings, divided by the time, are the *rate* |
//!
//! The rate is an average, and unused requests are saved up, so that it never holds back what the upstream would
//! take. It is the best of the last three measurements. It grows while it holds requests: fast until a second
//! measurement, then slowly. After five minutes without a held request it is forgotten.
//!
//! Errors are not limits. A refusal after which the next request passes changes nothing. And where as many
//! requests are refused at a lower rate as at a higher one, there is no limit, and the guess is dropped.

use std::collections::VecDeque;

use super::slow_start::SECOND;
use crate::limit::gcra::Gcra;

/// A rate is forgotten after so long without a refusal, or without a request that had to wait.
const MEMORY: u64 = 300 * SECOND;

const SHORTEST_PAUSE: u64 = SECOND / 20;
const SHORTEST_WAIT: u64 = SECOND / 2;
const LONGEST_PAUSE: u64 = 60 * SECOND;

/// A measurement over a shorter time is mostly chance.
const SHORTEST_CYCLE: u64 = 2 * SECOND;

const LONGEST_SPAN: u64 = 60 * SECOND;

/// So many passed requests are enough for a measurement.
const MANY: u32 = 15;

/// Timers are up to a millisecond late; without some slack a faster rate would never be reached.
const SLACK: u64 = 10_000_000;

const MOST_DOUBTS: u32 = 5;
const FASTEST: f64 = 100_000.0;
const SLOWEST: f64 = 0.01;

/// While there is only one measurement.
const FIRST_STEP: f64 = 1.0;

const SMALLEST_STEP: f64 = 0.02;
const LARGEST_STEP: f64 = 0.2;

#[derive(Debug, Default)]
pub(super) struct RateGuess {
    /// When the upstream last opened, and what passed and was refused since. Zero: not known.
    opened: u64,
    passed: u32,
    /// Refusals after which the next request passed.
    errors: u32,
    /// Refusals one after the other.
    in_a_row: u32,
    /// Nothing was sent for a while after the last refusal.
    is_closed: bool,
    /// Requests with a lower number were sent before the last refusal. That they are refused as well says nothing
    /// new.
    counts_from: u64,
    /// When the first and the last of the refusals in a row came.
    first: u64,
    last: u64,
    /// The share of requests that were refused among others that passed, before there was a rate.
    share: Option<f64>,
    /// Until then refusals count as errors.
    errors_until: u64,
    rate: Option<GuessedRate>,
}

#[derive(Debug)]
struct GuessedRate {
    per_second: f64,
    /// When everything saved up would be used.
    level: u64,
    /// The last three measurements, the newest first.
    measured: VecDeque<f64>,
    /// The time in which it grows by `step`.
    span: u64,
    step: f64,
    grown: u64,
    /// When a request last had to wait for it.
    held: u64,
}

/// A refusal without a long pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct ObservedRefusal {
    /// How long the upstream asks to be left alone, in nanoseconds. Zero: less than a second.
    pub(super) asked: Option<u64>,
    /// The upstream says that a quota is used up, so this is not an error.
    pub(super) is_sure: bool,
    /// A random number between 0 and 1.
    pub(super) jitter: f64,
    /// Requests may wait.
    pub(super) may_wait: bool,
}

/// What to do after a refusal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RefusalPause {
    /// Nothing is sent until then; afterwards one request goes first.
    pub(super) until: u64,
    pub(super) per_second: Option<f64>,
}

impl RateGuess {
    /// Whether there is no rate to keep to and no measurement running.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        let is_quiet = self.last == 0 || now.saturating_sub(self.last) > MEMORY;
        self.rate.is_none() && is_quiet
    }

    pub(super) fn per_second(&self) -> Option<f64> {
        self.rate.as_ref().map(|rate| rate.per_second)
    }

    /// Returns when the next request may go. The caller would send it if that were now, so a later moment counts
    /// as holding it.
    pub(super) fn earliest(&mut self, now: u64) -> u64 {
        let Some(rate) = &mut self.rate else { return 0 };
        let earliest = rate.level.saturating_sub(SLACK);
        if earliest > now {
            rate.held = now;
        }
        earliest
    }

    /// Returns the rate as a bucket, with its level, for forecasts.
    pub(super) fn forecast(&self) -> Option<(Gcra, u64)> {
        let rate = self.rate.as_ref()?;
        Some((Gcra::spaced(rate.period(), SLACK), rate.level))
    }

    pub(super) fn take(&mut self) {
        if let Some(rate) = &mut self.rate {
            rate.level = rate.level.saturating_add(rate.period());
        }
    }

    /// Takes back the last counted request, which was not sent.
    pub(super) fn give_back(&mut self, number: u64) {
        if number >= self.counts_from
            && let Some(rate) = &mut self.rate
        {
            rate.level = rate.level.saturating_sub(rate.period());
        }
    }

    /// Learns from an answer that was no refusal. Returns whether the rate was forgotten.
    pub(super) fn passed(&mut self, number: u64, now: u64) -> bool {
        if self.last == 0 {
            return false;
        }
        self.passed = self.passed.saturating_add(1);
        if number >= self.counts_from {
            match (self.in_a_row, self.is_closed) {
                (0, _) => {}
                (_, true) => self.opens(now),
                (_, false) => self.errors += 1,
            }
            self.in_a_row = 0;
            self.is_closed = false;
        }
        if let Some(rate) = &mut self.rate {
            rate.grow(now);
            if now.saturating_sub(rate.held.max(self.last)) > MEMORY {
                *self = Self::default();
                return true;
            }
        }
        if self.is_idle(now) {
            *self = Self::default();
        }
        false
    }

    /// Learns that request `number` was refused; `next` is the number of the next request. Returns `None` where
    /// nothing follows from it.
    pub(super) fn refused(
        &mut self,
        number: u64,
        next: u64,
        now: u64,
        refusal: &ObservedRefusal,
    ) -> Option<RefusalPause> {
        let ObservedRefusal {
            asked,
            is_sure,
            jitter,
            may_wait,
        } = *refusal;
        if number < self.counts_from {
            return None;
        }
        if self.is_idle(now) {
            *self = Self::default();
        }
        self.counts_from = next;
        self.last = now.max(1);
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row == 1 {
            self.first = now;
        }
        let closes = match (is_sure, now < self.errors_until) {
            (true, _) => 1,
            (false, false) => 2,
            (false, true) => 4,
        };
        if self.in_a_row < closes && asked.is_none_or(|asked| asked == 0) {
            if let Some(rate) = &mut self.rate {
                rate.slow_down();
            }
            // Most refusals so far were errors: the others need not wait for the request that finds out.
            let is_certain = self.errors >= MOST_DOUBTS || now < self.errors_until;
            return (!is_certain).then_some(RefusalPause {
                until: now,
                per_second: self.per_second(),
            });
        }
        self.is_closed = true;
        let closed = now.saturating_sub(self.first);
        // Where requests can wait, each one sent too early is refused for nothing.
        let pause = if may_wait {
            closed.max(SHORTEST_WAIT)
        } else {
            (closed / 5).max(SHORTEST_PAUSE)
        };
        // Clients that were refused together should not come back together.
        let pause = (pause as f64 * (0.9 + jitter / 5.0)) as u64;
        let pause = match asked {
            Some(asked @ 1..) => asked,
            Some(0) => pause.min(SECOND),
            None => pause.min(LONGEST_PAUSE),
        };
        Some(RefusalPause {
            until: now.saturating_add(pause),
            per_second: self.per_second(),
        })
    }

    /// A request passed after the upstream was closed: takes a measurement.
    fn opens(&mut self, now: u64) {
        let lasted = now.saturating_sub(self.opened);
        if self.opened == 0 {
            self.measure_from(now);
        } else if lasted >= SHORTEST_CYCLE || self.passed >= MANY {
            let asked = self.passed + self.errors;
            let share = f64::from(self.errors) / f64::from(asked.max(1));
            let before = *self.share.get_or_insert(share);
            if self.rate.is_some() && share > 0.05 && share > 0.6 * before {
                *self = Self {
                    errors_until: now.saturating_add(MEMORY),
                    last: self.last,
                    counts_from: self.counts_from,
                    ..Self::default()
                };
                return;
            }
            let measured = f64::from(self.passed) * SECOND as f64 / lasted as f64;
            match &mut self.rate {
                Some(rate) => rate.measure(measured, lasted),
                None => self.rate = Some(GuessedRate::new(measured, lasted, now)),
            }
            self.measure_from(now);
        }
        if let Some(rate) = &mut self.rate {
            // Nothing is saved up any more, and one request has just gone.
            rate.level = now.saturating_add(rate.period());
        }
    }

    fn measure_from(&mut self, now: u64) {
        self.opened = now.max(1);
        self.passed = 0;
        self.errors = 0;
    }
}

impl GuessedRate {
    fn new(measured: f64, lasted: u64, now: u64) -> Self {
        Self {
            per_second: measured.max(SLOWEST),
            level: now,
            measured: VecDeque::from([measured]),
            span: lasted,
            step: FIRST_STEP,
            grown: now,
            held: now,
        }
    }

    /// Returns the nanoseconds between two requests.
    fn period(&self) -> u64 {
        (SECOND as f64 / self.per_second) as u64
    }

    fn measure(&mut self, measured: f64, lasted: u64) {
        self.measured.push_front(measured);
        self.measured.truncate(3);
        self.per_second = self.best().min(FASTEST);
        self.span = lasted;
        self.step = SMALLEST_STEP;
    }

    fn best(&self) -> f64 {
        self.measured.iter().copied().fold(SLOWEST, f64::max)
    }

    /// Raises the rate while it holds requests back.
    fn grow(&mut self, now: u64) {
        let passed = now.saturating_sub(self.grown);
        self.grown = now;
        let lately = (2 * self.period()).max(2 * SECOND);
        if now.saturating_sub(self.held) > lately {
            return;
        }
        let span = self.span.clamp(2 * SECOND, LONGEST_SPAN) as f64;
        let part = passed.min(lately) as f64 / span;
        self.per_second = (self.per_second * (1.0 + self.step * part)).min(FASTEST);
        self.step = (self.step * (1.0 + part)).min(LARGEST_STEP.max(self.step));
    }

    /// Lowers the rate a little after a refusal that may have been an error.
    fn slow_down(&mut self) {
        self.per_second = (self.per_second * 0.97).max(self.best());
        self.step = SMALLEST_STEP;
    }
}

//! The rate of an upstream that refuses and does not say when to come back.
//!
//! | it happens | we do |
//! | --- | --- |
//! | one refusal after requests that passed | the next request goes at once, and alone: it finds out |
//! | that one is refused as well: the upstream is *closed* | wait a fifth of the time that it has been closed, then send one more (as long again where requests may wait) |
//! | that one passes: the upstream is *open* | all may go |
//! | closed and open for a second time | what passed from one opening to the next, by the time: that is the *rate* |
//!
//! A rate lets through on average what the upstream let through, and what was not used is kept, so that it never holds
//! back what the upstream would take. It is the best of the last three measurements, and grows while it holds
//! somebody: fast until a second closing shows that the first measurement was right, then slowly. It is forgotten when
//! it has held nobody for five minutes.
//!
//! Errors are not limits. A refusal that is followed at once by a request that passes changes nothing, and where
//! requests are refused as often at a lower rate as at a higher one, there is no rate: the guess is dropped.

use std::collections::VecDeque;

use super::ramp::SECOND;
use crate::limit::gcra::Gcra;

#[derive(Debug, Default)]
pub(super) struct Guess {
    /// When the upstream opened last, and what passed and was refused since. Zero: not known.
    opened: u64,
    passed: u32,
    /// Refusals that were followed by a request that passed.
    errors: u32,
    /// Refusals in a row.
    in_a_row: u32,
    /// After the last refusal nobody went for a time.
    is_closed: bool,
    /// Requests with a lower number went before the last refusal: that they were refused as well says nothing new.
    news: u64,
    /// When the first of the refusals in a row came, and the last.
    first: u64,
    last: u64,
    /// The part of the requests that was refused among others that passed, before there was a rate.
    share: Option<f64>,
    /// Until then refusals are taken for errors.
    deaf: u64,
    rate: Option<Rate>,
}

#[derive(Debug)]
struct Rate {
    per_second: f64,
    /// When all that was saved would be used up.
    level: u64,
    /// The last measurements.
    measured: VecDeque<f64>,
    /// In which time it grows by `step`.
    span: u64,
    step: f64,
    grown: u64,
    /// When it last held somebody.
    held: u64,
}

/// How a request was refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    /// For how long the upstream asks to be left alone; zero: not for long.
    pub(super) asked: Option<u64>,
    /// The upstream says that a quota is used up: it is no error.
    pub(super) is_sure: bool,
    /// Between 0 and 1.
    pub(super) jitter: f64,
    /// Requests may wait.
    pub(super) waits: bool,
}

/// What follows from a refusal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cut {
    /// Nobody goes until then; afterwards one goes first.
    pub(super) until: u64,
    pub(super) per_second: Option<f64>,
}

impl Guess {
    /// Nothing to keep to, nothing to measure.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        let is_quiet = self.last == 0 || now.saturating_sub(self.last) > MEMORY;
        self.rate.is_none() && is_quiet
    }

    pub(super) fn per_second(&self) -> Option<f64> {
        self.rate.as_ref().map(|rate| rate.per_second)
    }

    /// From when on the next request may go. Whoever asks would go if it were now.
    pub(super) fn earliest(&mut self, now: u64) -> u64 {
        let Some(rate) = &mut self.rate else { return 0 };
        let earliest = rate.level.saturating_sub(SLACK);
        if earliest > now {
            rate.held = now;
        }
        earliest
    }

    /// The rate as a bucket, and its level: what a wait is forecast from.
    pub(super) fn outlook(&self) -> Option<(Gcra, u64)> {
        let rate = self.rate.as_ref()?;
        Some((Gcra::spaced(rate.period(), SLACK), rate.level))
    }

    pub(super) fn took(&mut self) {
        if let Some(rate) = &mut self.rate {
            rate.level = rate.level.saturating_add(rate.period());
        }
    }

    /// The last request that was taken did not go after all.
    pub(super) fn give_back(&mut self, number: u64) {
        if number >= self.news
            && let Some(rate) = &mut self.rate
        {
            rate.level = rate.level.saturating_sub(rate.period());
        }
    }

    /// An answer came that was no refusal. Whether the rate was forgotten.
    pub(super) fn passed(&mut self, number: u64, now: u64) -> bool {
        if self.last == 0 {
            return false;
        }
        self.passed = self.passed.saturating_add(1);
        if number >= self.news {
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

    /// Request `number` was refused; `next` is the next request's number. `None` where nothing follows.
    pub(super) fn refused(&mut self, number: u64, next: u64, now: u64, refusal: &Refusal) -> Option<Cut> {
        let Refusal {
            asked,
            is_sure,
            jitter,
            waits,
        } = *refusal;
        if number < self.news {
            return None;
        }
        if self.is_idle(now) {
            *self = Self::default();
        }
        self.news = next;
        self.last = now.max(1);
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row == 1 {
            self.first = now;
        }
        let closes = match (is_sure, now < self.deaf) {
            (true, _) => 1,
            (false, false) => 2,
            (false, true) => 4,
        };
        if self.in_a_row < closes && asked.is_none_or(|asked| asked == 0) {
            if let Some(rate) = &mut self.rate {
                rate.slow_down();
            }
            // Often enough it was an error: those behind need not wait for the one that finds out.
            let is_certain = self.errors >= MOST_DOUBTS || now < self.deaf;
            return (!is_certain).then_some(Cut {
                until: now,
                per_second: self.per_second(),
            });
        }
        self.is_closed = true;
        let closed = now.saturating_sub(self.first);
        // Where requests can wait, each that is sent too early is refused for nothing.
        let pause = match waits {
            true => closed.max(SHORTEST_WAIT),
            false => (closed / 5).max(SHORTEST_PAUSE),
        };
        // Those that were refused together do not come back together.
        let pause = (pause as f64 * (0.9 + jitter / 5.0)) as u64;
        let pause = match asked {
            Some(asked @ 1..) => asked,
            Some(0) => pause.min(SECOND),
            None => pause.min(LONGEST_PAUSE),
        };
        Some(Cut {
            until: now.saturating_add(pause),
            per_second: self.per_second(),
        })
    }

    /// It was closed, and a request passed.
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
                    deaf: now.saturating_add(MEMORY),
                    last: self.last,
                    news: self.news,
                    ..Self::default()
                };
                return;
            }
            let measured = f64::from(self.passed) * SECOND as f64 / lasted as f64;
            match &mut self.rate {
                Some(rate) => rate.measure(measured, lasted),
                None => self.rate = Some(Rate::new(measured, lasted, now)),
            }
            self.measure_from(now);
        }
        if let Some(rate) = &mut self.rate {
            // What was saved is gone, and one has gone just now.
            rate.level = now.saturating_add(rate.period());
        }
    }

    fn measure_from(&mut self, now: u64) {
        self.opened = now.max(1);
        self.passed = 0;
        self.errors = 0;
    }
}

impl Rate {
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

    /// Nanoseconds between two requests.
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

    /// Grows while it holds somebody back.
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

    /// One was refused, and perhaps by error.
    fn slow_down(&mut self) {
        self.per_second = (self.per_second * 0.97).max(self.best());
        self.step = SMALLEST_STEP;
    }
}

/// So long without a refusal, or without anybody who had to wait: forgotten.
const MEMORY: u64 = 300 * SECOND;

const SHORTEST_PAUSE: u64 = SECOND / 20;
const SHORTEST_WAIT: u64 = SECOND / 2;
const LONGEST_PAUSE: u64 = 60 * SECOND;

/// What is measured over a shorter time has too much chance in it.
const SHORTEST_CYCLE: u64 = 2 * SECOND;
const LONGEST_SPAN: u64 = 60 * SECOND;

/// So many that passed are enough to measure.
const MANY: u32 = 15;

/// Timers are a millisecond late; a faster rate than that would never be reached.
const SLACK: u64 = 10_000_000;

const MOST_DOUBTS: u32 = 5;

const FASTEST: f64 = 100_000.0;
const SLOWEST: f64 = 0.01;

/// While one measurement is all that is known.
const FIRST_STEP: f64 = 1.0;
const SMALLEST_STEP: f64 = 0.02;
const LARGEST_STEP: f64 = 0.2;

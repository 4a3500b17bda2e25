//! What is left of a quota that the upstream counts.
//!
//! The upstream tells with each answer what is left; what it had not seen by then is under way and has to be taken off.
//! Within a window the lowest estimate counts, as answers overtake each other, until nothing is under way and the last
//! figure is exact. When nothing is left nobody goes until the window ends, and then one first: clocks differ. Where
//! the upstream does not say when, one asks now and then.
//!
//! Pure: moments are nanoseconds since the limiter was made, requests have numbers in the order in which they went.

use std::collections::VecDeque;
use std::time::Duration;

use super::ramp::{Ramp, SECOND};
use crate::limit::hints;
use crate::units::nanos;

#[derive(Debug)]
pub(super) struct Quota {
    pub(super) name: Box<str>,
    /// All requests with a lower number count as taken from it; it was not known when they went.
    born: u64,
    /// A whole window after it was used up only a part of it was back: it comes back little by little.
    is_smooth: bool,
    /// What may still go.
    left: u64,
    pub(super) limit: Option<u64>,
    /// The lowest figure since nothing was under way.
    lowest: u64,
    /// What is under way and not answered yet.
    out: u64,
    /// The window has ended, and one request finds out how it stands.
    probe: Option<Ramp>,
    /// When requests went of late, in parts of a window: the first of each part.
    /// Only where no reset is told.
    recent: VecDeque<u64>,
    reset: Option<u64>,
    /// When to ask where no reset is known.
    retry: u64,
    /// How long a window is; the longest time to a reset where nobody says.
    span: u64,
    told: u64,
    /// How often in a row it was asked in vain.
    tries: u32,
    /// The first request of the window that the reset belongs to.
    window_born: u64,
}

/// Whether one more may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Some,
    /// Nothing until then at the latest, or until an answer comes.
    None(Option<u64>),
}

impl Quota {
    /// `number` is the next request's; `out` requests are under way.
    pub(super) fn new(name: &str, number: u64, out: u64) -> Self {
        Self {
            name: name.into(),
            born: number,
            is_smooth: false,
            left: u64::MAX,
            limit: None,
            lowest: u64::MAX,
            out,
            probe: None,
            recent: VecDeque::new(),
            reset: None,
            retry: 0,
            span: 0,
            told: 0,
            tries: 0,
            window_born: number,
        }
    }

    /// When it was last told of.
    pub(super) fn told(&self) -> u64 {
        self.told
    }

    pub(super) fn span(&self) -> Duration {
        Duration::from_nanos(self.span)
    }

    /// What is left of the whole: 1 full, 0 exhausted.
    pub(super) fn ratio(&self, now: u64) -> Option<f64> {
        let limit = self.limit?;
        let is_over = self.reset.is_some_and(|reset| now >= reset);
        let left = if is_over { limit } else { self.left.min(limit) };
        Some(left as f64 / limit as f64)
    }

    /// Until when nothing goes, as the upstream says.
    pub(super) fn exhausted_until(&self) -> Option<u64> {
        self.reset.filter(|_| self.left == 0 && self.probe.is_none())
    }

    /// `number` is the next request's; `out` requests are under way to all of the upstream.
    pub(super) fn look(&mut self, number: u64, out: u64, now: u64) -> Left {
        self.roll_over(number, out, now);
        if let Some(probe) = &mut self.probe {
            return match probe.admits(now) {
                true => Left::Some,
                false => Left::None(Some(probe.due())),
            };
        }
        match self.left {
            0 if self.out > 0 => Left::None(self.reset),
            0 => Left::None(Some(self.opens())),
            _ => Left::Some,
        }
    }

    /// When one may find out how it stands, with nothing left and nothing under way. That a quota is whole again
    /// tomorrow may be nonsense, or another one's doing that somebody mends: it is asked from time to time.
    fn opens(&self) -> u64 {
        let longest = self.told.saturating_add(LONGEST_HOLD);
        self.reset.map_or(self.retry, |reset| reset.min(longest))
    }

    /// When the one would go that has so many before it, if the upstream keeps to its windows.
    pub(super) fn when(&self, before: u64, now: u64) -> u64 {
        if self.probe.is_some() || self.left > before {
            return now;
        }
        let opens = self.reset.unwrap_or(self.retry).max(now);
        let windows = (before - self.left) / self.limit.unwrap_or(u64::MAX).max(1);
        opens.saturating_add(windows.saturating_mul(self.span))
    }

    pub(super) fn took(&mut self, now: u64) {
        self.remember(now);
        if self.out == 0 {
            self.lowest = u64::MAX;
        }
        self.out += 1;
        self.left = self.left.saturating_sub(1);
        if let Some(probe) = &mut self.probe {
            probe.took();
        }
    }

    /// A request that was taken from it, or went before it was known, is not under way any more.
    pub(super) fn ended(&mut self, number: u64, was_taken: bool) {
        if was_taken || number < self.born {
            self.out = self.out.saturating_sub(1);
            if self.out == 0 && self.left == 0 && self.lowest < u64::MAX {
                // Nothing is under way, so that the lowest figure is exact, but for one that did not say.
                self.left = self.lowest.saturating_sub(1);
            }
            if let Some(probe) = &mut self.probe {
                probe.ended(number);
            }
        }
    }

    /// A request that was taken has not gone, or was not counted.
    pub(super) fn give_back(&mut self) {
        self.left = self.left.saturating_add(1);
    }

    /// An answer to a request that was taken does not tell of it: the upstream did not count it here. After a window's
    /// end the quota need not exist any more. Whether it is to be forgotten.
    pub(super) fn pass_over(&mut self, now: u64) -> bool {
        self.give_back();
        self.probe.as_mut().is_some_and(|probe| {
            probe.grow(now);
            probe.is_over()
        })
    }

    /// It is forgotten, and only its place is kept.
    pub(super) fn vacate(&mut self) {
        *self = Self::new(VACANT, u64::MAX, 0);
    }

    pub(super) fn is_vacant(&self) -> bool {
        &*self.name == VACANT
    }

    /// The answer to request `number` tells how it stands; `next` is the next request's number.
    pub(super) fn tell(&mut self, told: &hints::Quota, number: u64, next: u64, now: u64) {
        self.limit = told.limit.or(self.limit);
        let reset = told.reset.map(|reset| now.saturating_add(nanos(reset)));
        self.span = match told.window {
            Some(window) => nanos(window),
            None => self.span.max(told.reset.map_or(0, nanos)),
        };
        let Some(remaining) = told.remaining else {
            return;
        };
        if self.probe.as_ref().is_some_and(|probe| !probe.counts(number)) {
            // It went before the window ended.
            return;
        }
        let is_new = match (self.reset, reset) {
            _ if self.probe.is_some() || self.told == 0 => true,
            (Some(old), Some(new)) if new.saturating_add(SLACK) < old && now < old => {
                if number < self.window_born {
                    // It speaks of the window before.
                    return;
                }
                true
            }
            (Some(old), Some(new)) => now >= old || new > old.saturating_add(SLACK),
            (Some(old), None) => now >= old,
            (None, _) => false,
        };
        self.told = now.max(1);
        let after = remaining.saturating_sub(self.out);
        if is_new {
            let was_used_up = self.probe.is_some() && self.reset.is_none() && reset.is_none();
            self.is_smooth |= was_used_up && self.limit.is_some_and(|limit| remaining + 1 < limit);
            self.probe = None;
            self.reset = reset;
            self.window_born = next;
            self.left = after;
            self.lowest = remaining;
        } else {
            // Told in whole seconds the moment may be early by a part of one, which costs a refusal, or late.
            self.reset = self.reset.max(reset);
            self.left = self.left.min(after);
            self.lowest = self.lowest.min(remaining);
        }
        if self.out == 0 {
            self.left = self.lowest;
        }
        if remaining > 0 {
            self.tries = 0;
        } else if self.reset.is_none() {
            self.retry = self.frees(now);
            self.tries = self.tries.saturating_add(1);
        }
    }

    /// The upstream refuses by it until then.
    pub(super) fn stop(&mut self, until: u64, next: u64) {
        self.probe = None;
        self.left = 0;
        self.lowest = 0;
        self.reset = self.reset.max(Some(until));
        self.window_born = next;
    }

    /// The window has ended: it is whole again, but where it was used up one request goes first.
    fn roll_over(&mut self, number: u64, out: u64, now: u64) {
        let is_over = match self.reset {
            Some(reset) if now >= reset => true,
            Some(_) => self.left == 0 && self.out == 0 && now >= self.opens(),
            None => self.left == 0 && self.out == 0 && now >= self.retry,
        };
        if !is_over || self.probe.is_some() {
            return;
        }
        self.reset = None;
        self.out = self.out.min(out);
        if self.left == 0 {
            self.probe = Some(Ramp::new(number, now));
        }
        self.left = (self.limit).map_or(u64::MAX, |limit| limit.saturating_sub(self.out));
        self.lowest = u64::MAX;
    }

    /// Notes that a request goes. Parts of a window are enough: they make what follows late by one of them.
    fn remember(&mut self, now: u64) {
        if self.reset.is_some() || self.limit.is_none() || self.span == 0 {
            self.recent.clear();
            return;
        }
        let part = self.span / PARTS;
        if (self.recent.back()).is_none_or(|last| now.saturating_sub(*last) >= part) {
            self.recent.push_back(now);
        }
        while (self.recent.front()).is_some_and(|first| now.saturating_sub(*first) > self.span + part) {
            self.recent.pop_front();
        }
    }

    /// When to ask again where nobody says when: in a window that rolls, when the first of those that are counted falls
    /// out of it. Others may share the quota, so that one asks now and then all the same.
    fn frees(&self, now: u64) -> u64 {
        if self.limit.is_none() || self.span == 0 {
            return now.saturating_add((SECOND << self.tries.min(6)).min(LONGEST_PAUSE));
        }
        let part = self.span / PARTS;
        if self.is_smooth {
            // Rather a few at a time than one by one: each time the last figure has to come in.
            let few = self.span / self.limit.unwrap_or(1).max(1) * 4;
            return now.saturating_add(few.clamp(1, LONGEST_PAUSE));
        }
        let first = (self.recent.iter()).find(|first| **first + self.span + part > now);
        let falls = first.map_or(now, |first| first.saturating_add(self.span + part));
        falls.clamp(now.saturating_add(part), now.saturating_add(LONGEST_PAUSE))
    }
}

/// Two resets that are closer than that are one, told by clocks of whole seconds.
const SLACK: u64 = 1_500_000_000;

/// A name that no upstream can send.
const VACANT: &str = "\0";

/// Into how many parts a window is divided to remember when requests went.
const PARTS: u64 = 32;

const LONGEST_HOLD: u64 = 3600 * SECOND;

const LONGEST_PAUSE: u64 = 60 * SECOND;

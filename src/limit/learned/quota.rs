//! What is left of a quota that the upstream counts. A pause is a quota of which nothing is left until its end.
//!
//! The upstream tells with each answer what is left; what it had not seen by then is under way and has to be taken off.
//! Within a window the lowest estimate counts, as answers overtake each other, until nothing is under way and the last
//! figure is exact. When nothing is left nobody goes until the window ends, and then one first: clocks differ. Where
//! the upstream does not say when, one goes at a time and finds out.
//!
//! Pure: moments are nanoseconds since the limiter was made, requests have numbers in the order in which they went.

use std::collections::VecDeque;
use std::time::Duration;

use super::ramp::{Ramp, SECOND};
use crate::limit::hints;
use crate::units::nanos;

#[derive(Debug)]
pub(super) struct Quota {
    /// All requests with a lower number count as taken from it; it was not known when they went.
    born: u64,
    /// The next request when it told first that nothing is left.
    emptied: Option<u64>,
    /// When it was told of first.
    first_told: u64,
    /// Where nothing is left and no time is told: the next one goes so long after the last one.
    gap: u64,
    /// Resets are cut down: one that went when the time was over was refused.
    is_cut: bool,
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
    /// The lowest figure of this window.
    shown: Option<u64>,
    /// How long a window is; the longest time to a reset where nobody says.
    span: u64,
    told: u64,
    /// The number of the next request when it was last told of.
    told_next: u64,
    took_at: u64,
    /// Of those under way, how many went before it was known: nobody knows whether they count.
    unseen: u64,
    /// The upstream asks to be left alone until then.
    stopped: Option<u64>,
    /// The first request of the window that the reset belongs to, or the first one after a stop.
    window_born: u64,
}

/// Whether one more may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Some,
    /// One has gone to find out. More go with its answer, or then at the latest.
    Probed(u64),
    /// Nothing until then at the latest.
    None(u64),
}

impl Quota {
    /// `number` is the next request's; `out` requests are under way.
    pub(super) fn new(number: u64, out: u64) -> Self {
        Self {
            born: number,
            emptied: None,
            first_told: 0,
            gap: SECOND / 4,
            is_cut: false,
            is_smooth: false,
            left: u64::MAX,
            limit: None,
            lowest: u64::MAX,
            out,
            probe: None,
            recent: VecDeque::new(),
            reset: None,
            retry: 0,
            shown: None,
            span: 0,
            stopped: None,
            told: 0,
            told_next: 0,
            took_at: 0,
            unseen: out,
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
        if self.unseen > 0 && self.is_told() && now >= self.first_told.saturating_add(SECOND) {
            // What went before this quota was known is counted by now, or is about something else.
            self.out = self.out.saturating_sub(self.unseen);
            self.left = self.left.saturating_add(self.unseen);
            self.unseen = 0;
        }
        self.roll_over(number, out, now);
        if let Some(probe) = &mut self.probe {
            return match probe.admits(now) {
                true => Left::Some,
                false => Left::Probed(probe.due()),
            };
        }
        match self.left {
            // Nothing is left, and nobody says until when: the answer to the last one tells more, if it comes soon.
            0 if self.has_no_time() => match self.out == 0 || now >= self.next() {
                true => Left::Some,
                false => Left::Probed(self.next()),
            },
            0 if self.out > 0 => Left::None(self.reset.unwrap_or_else(|| self.next())),
            0 => Left::None(self.opens()),
            _ => Left::Some,
        }
    }

    /// It has told neither when it is whole again nor in what time it may be used up.
    fn has_no_time(&self) -> bool {
        self.reset.is_none() && (self.limit.is_none() || self.span == 0)
    }

    /// When one more goes though the last one has not been answered.
    fn next(&self) -> u64 {
        self.took_at.saturating_add(self.gap)
    }

    /// When one may find out how it stands, with nothing left and nothing under way. That a quota is whole again
    /// tomorrow may be nonsense, or another one's doing that somebody mends: it is asked from time to time.
    fn opens(&self) -> u64 {
        let longest = self.told.saturating_add(LONGEST_HOLD);
        let asked = self.reset.map_or(self.retry, |reset| reset.min(longest));
        self.stopped.unwrap_or(asked)
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
        self.took_at = now;
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
        let was_unseen = number < self.born && self.unseen > 0;
        self.unseen -= u64::from(was_unseen);
        if was_taken || was_unseen {
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
        let is_old = self.probe.as_ref().is_some_and(|probe| !probe.counts(number))
            || (self.stopped.is_some() && number < self.window_born);
        if is_old {
            // It went before the window ended, or before the upstream said stop.
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
            // More than before, and nothing was said of a window: it fills by and by.
            (None, _) => number >= self.told_next && self.shown.is_some_and(|shown| remaining > shown),
        };
        if self.told == 0 {
            self.first_told = now;
        }
        self.told = now.max(1);
        self.told_next = next;
        let after = remaining.saturating_sub(self.out);
        if is_new {
            let was_used_up = self.probe.is_some() && self.reset.is_none() && reset.is_none();
            self.is_smooth |= was_used_up && self.limit.is_some_and(|limit| remaining + 1 < limit);
            self.probe = None;
            self.reset = reset;
            self.stopped = None;
            self.window_born = next;
            self.left = after;
            self.lowest = remaining;
            self.shown = Some(remaining);
        } else {
            // Told in whole seconds, the moments of one window differ by a second at most: rounded up all of them are too
            // late, cut down all are too early. Which of them it is, one refusal shows.
            self.reset = match (self.reset, reset) {
                (Some(own), Some(new)) if self.is_cut => Some(own.max(new)),
                (Some(own), Some(new)) => Some(own.min(new)),
                (own, new) => own.or(new),
            };
            self.left = self.left.min(after);
            self.lowest = self.lowest.min(remaining);
            self.shown = self.shown.min(Some(remaining)).or(Some(remaining));
        }
        if self.out == 0 {
            self.left = self.lowest;
        }
        self.emptied = (remaining == 0).then(|| self.emptied.unwrap_or(next));
        if remaining == 0 && self.reset.is_none() {
            self.retry = self.frees(now);
        }
    }

    /// The upstream asks to be left alone until then: that goes before what the quota tells of its reset.
    pub(super) fn stop(&mut self, until: u64, next: u64) {
        let until = self.stopped.map_or(until, |old| old.max(until));
        self.gap = (self.gap * 2).clamp(SECOND / 4, SECOND);
        self.is_cut |= self.probe.is_some() && self.is_told();
        self.probe = None;
        self.left = 0;
        self.lowest = 0;
        self.reset = Some(until);
        self.stopped = Some(until);
        self.window_born = next;
    }

    /// An answer to a request that went since has been allowed, and does not tell how it stands.
    pub(super) fn open(&mut self, number: u64, is_careful: bool, now: u64) {
        let Some(probe) = &mut self.probe else { return };
        if !probe.counts(number) {
            return;
        }
        probe.grow(now);
        if !is_careful || probe.is_over() {
            self.probe = None;
        }
    }

    /// The upstream has told what is left of it.
    pub(super) fn is_told(&self) -> bool {
        self.told > 0
    }

    /// It holds nobody, and tells nothing, or has not for long.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        let known_until = self
            .reset
            .unwrap_or(self.told)
            .saturating_add(self.span.max(MEMORY));
        let is_silent = !self.is_told() || now >= known_until;
        is_silent && self.left > 0 && self.probe.is_none()
    }

    /// An answer was allowed that told how it stands: where nothing was left, the last wait was long enough.
    pub(super) fn went_well(&mut self, number: u64) {
        if self.has_no_time() && self.emptied.is_some_and(|emptied| number >= emptied) {
            self.gap = (self.gap / 2).max(SHORTEST_GAP);
        }
    }

    /// Whether an answer with these figures can be about the same counter as the answers before: the same limit, the same
    /// end of the window, and no more left than there was, but for what may have gone meanwhile.
    pub(super) fn agrees(&self, told: &hints::Quota, number: u64, now: u64) -> bool {
        let (Some(remaining), true) = (told.remaining, self.is_told()) else {
            return false;
        };
        let is_limit = self.limit.zip(told.limit).is_none_or(|(own, told)| own == told);
        let is_reset = match (self.reset, told.reset) {
            (Some(own), Some(told)) => own.abs_diff(now.saturating_add(nanos(told))) <= SLACK,
            (None, None) => true,
            (Some(own), None) => now >= own,
            (None, Some(_)) => false,
        };
        is_limit && is_reset && self.has_room(remaining, number, now)
    }

    /// Whether an answer with these figures cannot be about the same counter as the answers before.
    pub(super) fn contradicts(&self, told: &hints::Quota, number: u64, now: u64) -> bool {
        let is_other = self.limit.zip(told.limit).is_some_and(|(own, told)| own != told);
        let is_window = match (self.reset, told.reset) {
            (Some(own), Some(told)) => now < own && own.abs_diff(now.saturating_add(nanos(told))) <= SLACK,
            _ => false,
        };
        let grows = self
            .shown
            .zip(told.remaining)
            .is_some_and(|(own, told)| told > 0 && told >= own);
        is_other || (is_window && number >= self.told_next && grows)
    }

    /// The upstream does not tell of it any more.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.born, self.out);
    }

    /// Until when the upstream asks to be left alone.
    pub(super) fn stopped_until(&self) -> Option<u64> {
        self.stopped
    }

    /// When it is whole again.
    pub(super) fn resets(&self) -> Option<u64> {
        self.reset
    }

    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Whether that many can be left of it.
    fn has_room(&self, remaining: u64, number: u64, now: u64) -> bool {
        let Some(shown) = self.shown.filter(|_| self.reset.is_none_or(|reset| now < reset)) else {
            return true;
        };
        // A request that went before the last figure came may have been counted before or after it.
        let is_later = number >= self.told_next;
        let most = if is_later {
            shown.saturating_sub(1)
        } else {
            shown.saturating_add(self.out)
        };
        // Others may take from it, too.
        let spent = self.out + 2 + self.limit.unwrap_or(remaining) / 10;
        remaining <= most && (is_later || remaining != shown) && remaining.saturating_add(spent) >= shown
    }

    /// The window has ended: it is whole again, but where it was used up one request goes first.
    fn roll_over(&mut self, number: u64, out: u64, now: u64) {
        let is_over = match self.reset {
            Some(reset) if now >= reset => true,
            Some(_) => self.left == 0 && self.out == 0 && now >= self.opens(),
            None => self.left == 0 && self.out == 0 && now >= self.retry && !self.has_no_time(),
        };
        if !is_over || self.probe.is_some() {
            return;
        }
        self.reset = None;
        self.stopped = None;
        self.out = self.out.min(out);
        self.unseen = self.unseen.min(self.out);
        if self.left == 0 {
            self.probe = Some(Ramp::new(number, now));
        }
        self.left = (self.limit).map_or(u64::MAX, |limit| limit.saturating_sub(self.out));
        self.lowest = u64::MAX;
    }

    /// Notes that a request goes. Parts of a window are enough: they make what follows late by one of them.
    fn remember(&mut self, now: u64) {
        if self.reset.is_some() || self.has_no_time() {
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
        if self.has_no_time() {
            // That nothing is left may be said of a bucket that fills at once: only a refusal tells more.
            return now;
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
pub(super) const SLACK: u64 = 1_500_000_000;

/// Into how many parts a window is divided to remember when requests went.
const PARTS: u64 = 32;

/// Timers are a millisecond late.
const SHORTEST_GAP: u64 = SECOND / 200;

/// It is forgotten when it has not been told of for so long, or for its window.
const MEMORY: u64 = 300 * SECOND;

const LONGEST_HOLD: u64 = 3600 * SECOND;

const LONGEST_PAUSE: u64 = 60 * SECOND;

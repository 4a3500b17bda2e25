//! What is left of one quota that the upstream counts.
//!
//! A pause is handled here too: it is a quota with nothing left until the pause ends.
//!
//! Each answer reports what is left (`remaining`). Requests that the upstream had not counted by then are still
//! in flight, so [`LearnedQuota::left`] is the reported figure less those in flight. Answers can overtake each
//! other: within a window the lowest result counts. When nothing is in flight any more, the lowest figure since the
//! last such moment is exact, and counts instead. When nothing is left, nothing is sent until the window ends. Then one request goes first as a *probe*, because the
//! clocks of both sides differ. Where the upstream does not say when the window ends, requests go one at a time
//! to find out.
//!
//! Pure: moments are nanoseconds since the limiter was made, and requests are numbered in the order in which they
//! were sent.

use std::collections::VecDeque;
use std::time::Duration;

use super::slow_start::{SECOND, SlowStart};
use crate::limit::hints;
use crate::units::nanos;

/// Resets that differ by less are the same one, reported in whole seconds.
pub(super) const SLACK: u64 = 1_500_000_000;

/// The parts of a window for which `recent` remembers when a request was sent.
const PARTS: u64 = 32;

/// Timers are up to a millisecond late.
const SHORTEST_GAP: u64 = SECOND / 200;

/// A quota that has not been reported for so long, or for its own window, is forgotten.
const MEMORY: u64 = 300 * SECOND;

const LONGEST_HOLD: u64 = 3600 * SECOND;
const LONGEST_PAUSE: u64 = 60 * SECOND;

#[derive(Debug)]
pub(super) struct LearnedQuota {
    /// Requests with a lower number were sent before this quota was known. They count as taken from it.
    first_number: u64,
    /// A request number: that of the next request when the quota was first reported used up.
    empty_since: Option<u64>,
    /// When it was first reported.
    first_reported: u64,
    /// How long after the last request the next one is sent, while nothing is left and no time is known.
    probe_gap: u64,
    /// The reported resets are rounded down: a request that was sent after one was refused.
    rounds_down: bool,
    /// A whole window after it was used up, only a part of it was back: it refills little by little.
    refills_gradually: bool,
    /// How many requests may still be sent.
    left: u64,
    pub(super) limit: Option<u64>,
    /// The lowest figure reported since the last moment at which nothing was in flight.
    lowest_since_idle: u64,
    /// Requests that were counted here and have not ended.
    in_flight: u64,
    /// The window has ended: requests go a few at a time, the first alone, to find out what is left.
    probe: Option<SlowStart>,
    /// When requests were sent lately: the first one of each part of a window. Only kept while no reset is known.
    recent: VecDeque<u64>,
    reset: Option<u64>,
    /// When to try again, while no reset is known.
    retry_at: u64,
    /// The lowest reported figure of this window.
    lowest_in_window: Option<u64>,
    /// The length of a window; the longest reported time to a reset where the upstream does not state the window.
    window: u64,
    reported_at: u64,
    /// A request number: that of the next request when the quota was last reported.
    reported_next: u64,
    last_taken: u64,
    /// Those among `in_flight` that were sent before this quota was known: they may be about something else.
    uncertain: u64,
    /// The upstream asked for a pause until then.
    pause_end: Option<u64>,
    /// The number of the first request of the window that `reset` ends, or the first one after a pause began.
    window_first: u64,
}

/// Whether one more request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuotaState {
    Open,
    /// The requests that may go first are in flight. More go when one is answered, or at this moment at the latest.
    Probing(u64),
    /// Nothing goes before this moment, unless an answer changes that.
    Exhausted(u64),
}

impl LearnedQuota {
    /// `number` is that of the next request; `in_flight` requests have been sent and not answered.
    pub(super) fn new(number: u64, in_flight: u64) -> Self {
        Self {
            first_number: number,
            empty_since: None,
            first_reported: 0,
            probe_gap: SECOND / 4,
            rounds_down: false,
            refills_gradually: false,
            left: u64::MAX,
            limit: None,
            lowest_since_idle: u64::MAX,
            in_flight,
            probe: None,
            recent: VecDeque::new(),
            reset: None,
            retry_at: 0,
            lowest_in_window: None,
            window: 0,
            pause_end: None,
            reported_at: 0,
            reported_next: 0,
            last_taken: 0,
            uncertain: in_flight,
            window_first: number,
        }
    }

    /// When it was last reported.
    pub(super) fn reported_at(&self) -> u64 {
        self.reported_at
    }

    pub(super) fn window(&self) -> Duration {
        Duration::from_nanos(self.window)
    }

    /// Returns what is left: 1 full, 0 exhausted.
    pub(super) fn ratio(&self, now: u64) -> Option<f64> {
        let limit = self.limit?;
        let is_over = self.reset.is_some_and(|reset| now >= reset);
        let left = if is_over { limit } else { self.left.min(limit) };
        Some(left as f64 / limit as f64)
    }

    /// Until when nothing is sent, as far as the upstream has said.
    pub(super) fn exhausted_until(&self) -> Option<u64> {
        self.reset.filter(|_| self.left == 0 && self.probe.is_none())
    }

    /// Returns the state `now`. `number` is that of the next request; `in_flight` counts the requests to all of
    /// the upstream.
    pub(super) fn state(&mut self, number: u64, in_flight: u64, now: u64) -> QuotaState {
        if self.uncertain > 0 && self.is_reported() && now >= self.first_reported.saturating_add(SECOND) {
            // After a second, the upstream has counted what was sent before, or it counts it elsewhere.
            self.in_flight = self.in_flight.saturating_sub(self.uncertain);
            self.left = self.left.saturating_add(self.uncertain);
            self.uncertain = 0;
        }
        self.roll_over(number, in_flight, now);
        if let Some(probe) = &mut self.probe {
            return if probe.admits(now) {
                QuotaState::Open
            } else {
                QuotaState::Probing(probe.due())
            };
        }
        match self.left {
            // Nothing is left and no time is known: the answer to the last request says more, if it comes soon.
            0 if self.has_no_time() => {
                if self.in_flight == 0 || now >= self.next_probe() {
                    QuotaState::Open
                } else {
                    QuotaState::Probing(self.next_probe())
                }
            }
            0 if self.in_flight > 0 => QuotaState::Exhausted(self.reset.unwrap_or_else(|| self.next_probe())),
            0 => QuotaState::Exhausted(self.opens()),
            _ => QuotaState::Open,
        }
    }

    /// Whether neither a reset nor a window is known.
    fn has_no_time(&self) -> bool {
        self.reset.is_none() && (self.limit.is_none() || self.window == 0)
    }

    /// When one more request is sent although the last one has not been answered.
    fn next_probe(&self) -> u64 {
        self.last_taken.saturating_add(self.probe_gap)
    }

    /// Returns when a probe may go, with nothing left and nothing in flight. A reset that is far away may be
    /// wrong, or somebody may raise the quota before it: so a probe goes once an hour.
    fn opens(&self) -> u64 {
        let longest = self.reported_at.saturating_add(LONGEST_HOLD);
        let asked = self.reset.map_or(self.retry_at, |reset| reset.min(longest));
        self.pause_end.unwrap_or(asked)
    }

    /// Returns when a request goes that has `before` others before it, if the upstream keeps to its windows.
    pub(super) fn when(&self, before: u64, now: u64) -> u64 {
        if self.probe.is_some() || self.left > before {
            return now;
        }
        let opens = self.reset.unwrap_or(self.retry_at).max(now);
        let windows = (before - self.left) / self.limit.unwrap_or(u64::MAX).max(1);
        opens.saturating_add(windows.saturating_mul(self.window))
    }

    pub(super) fn take(&mut self, now: u64) {
        self.remember(now);
        self.last_taken = now;
        if self.in_flight == 0 {
            self.lowest_since_idle = u64::MAX;
        }
        self.in_flight += 1;
        self.left = self.left.saturating_sub(1);
        if let Some(probe) = &mut self.probe {
            probe.take();
        }
    }

    /// Counts a request as ended if it was taken from this quota or sent before the quota was known.
    pub(super) fn ended(&mut self, number: u64, was_taken: bool) {
        let was_unseen = number < self.first_number && self.uncertain > 0;
        self.uncertain -= u64::from(was_unseen);
        if was_taken || was_unseen {
            self.in_flight = self.in_flight.saturating_sub(1);
            if self.in_flight == 0 && self.left == 0 && self.lowest_since_idle < u64::MAX {
                // Nothing is in flight, so the lowest figure is exact, but for this request: its own figure, if
                // it brings one, is read after this.
                self.left = self.lowest_since_idle.saturating_sub(1);
            }
            if let Some(probe) = &mut self.probe {
                probe.ended(number);
            }
        }
    }

    /// Takes back a request that was not sent, or that the upstream did not count here.
    pub(super) fn give_back(&mut self) {
        self.left = self.left.saturating_add(1);
    }

    /// An answer to a counted request does not report this quota: the upstream did not count it here. Returns
    /// whether to forget the quota, because after the end of a window it may no longer exist.
    pub(super) fn not_counted(&mut self, now: u64) -> bool {
        self.give_back();
        self.probe.as_mut().is_some_and(|probe| {
            probe.grow(now);
            probe.is_over()
        })
    }

    /// Takes over the figures of the answer to request `number`; `next` is the number of the next request.
    pub(super) fn update(&mut self, hint: &hints::QuotaHint, number: u64, next: u64, now: u64) {
        self.limit = hint.limit.or(self.limit);
        let reset = hint.reset.map(|reset| now.saturating_add(nanos(reset)));
        self.window = match hint.window {
            Some(window) => nanos(window),
            None => self.window.max(hint.reset.map_or(0, nanos)),
        };
        let Some(remaining) = hint.remaining else {
            return;
        };
        let is_old = self.probe.as_ref().is_some_and(|probe| !probe.counts(number))
            || (self.pause_end.is_some() && number < self.window_first);
        if is_old {
            // It was sent before the window ended, or before the pause began.
            return;
        }
        let is_new = match (self.reset, reset) {
            _ if self.probe.is_some() || self.reported_at == 0 => true,
            (Some(old), Some(new)) if new.saturating_add(SLACK) < old && now < old => {
                if number < self.window_first {
                    // It reports the window before this one.
                    return;
                }
                true
            }
            (Some(old), Some(new)) => now >= old || new > old.saturating_add(SLACK),
            (Some(old), None) => now >= old,
            // More is left than before, and no reset is known: it refills gradually.
            (None, _) => {
                number >= self.reported_next
                    && self
                        .lowest_in_window
                        .is_some_and(|lowest_in_window| remaining > lowest_in_window)
            }
        };
        if self.reported_at == 0 {
            self.first_reported = now;
        }
        self.reported_at = now.max(1);
        self.reported_next = next;
        let after = remaining.saturating_sub(self.in_flight);
        if is_new {
            let was_used_up = self.probe.is_some() && self.reset.is_none() && reset.is_none();
            self.refills_gradually |= was_used_up && self.limit.is_some_and(|limit| remaining + 1 < limit);
            self.probe = None;
            self.reset = reset;
            self.pause_end = None;
            self.window_first = next;
            self.left = after;
            self.lowest_since_idle = remaining;
            self.lowest_in_window = Some(remaining);
        } else {
            // In whole seconds, the reported ends of one window differ by a second at most. Rounded up, all of
            // them are too late; rounded down, all are too early. One refusal shows which it is.
            self.reset = match (self.reset, reset) {
                (Some(own), Some(new)) if self.rounds_down => Some(own.max(new)),
                (Some(own), Some(new)) => Some(own.min(new)),
                (own, new) => own.or(new),
            };
            self.left = self.left.min(after);
            self.lowest_since_idle = self.lowest_since_idle.min(remaining);
            self.lowest_in_window = self.lowest_in_window.min(Some(remaining)).or(Some(remaining));
        }
        if self.in_flight == 0 {
            self.left = self.lowest_since_idle;
        }
        self.empty_since = (remaining == 0).then(|| self.empty_since.unwrap_or(next));
        if remaining == 0 && self.reset.is_none() {
            self.retry_at = self.frees(now);
        }
    }

    /// Holds all requests until a moment that replaces the reset of the quota: the end of a pause that the upstream asks
    /// for, or of a time for which a guess keeps it closed.
    pub(super) fn pause(&mut self, until: u64, next: u64) {
        let until = self.pause_end.map_or(until, |old| old.max(until));
        self.probe_gap = (self.probe_gap * 2).clamp(SECOND / 4, SECOND);
        self.rounds_down |= self.probe.is_some() && self.is_reported();
        self.probe = None;
        self.left = 0;
        self.lowest_since_idle = 0;
        self.reset = Some(until);
        self.pause_end = Some(until);
        self.window_first = next;
    }

    /// An answer that was no refusal and reports nothing came to a request sent since the window ended.
    pub(super) fn probe_passed(&mut self, number: u64, is_careful: bool, now: u64) {
        let Some(probe) = &mut self.probe else { return };
        if !probe.counts(number) {
            return;
        }
        probe.grow(now);
        if !is_careful || probe.is_over() {
            self.probe = None;
        }
    }

    /// Whether the upstream has reported what is left.
    pub(super) fn is_reported(&self) -> bool {
        self.reported_at > 0
    }

    /// Whether it holds nobody, and has not been reported lately.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        let known_until = self
            .reset
            .unwrap_or(self.reported_at)
            .saturating_add(self.window.max(MEMORY));
        let is_silent = !self.is_reported() || now >= known_until;
        is_silent && self.left > 0 && self.probe.is_none()
    }

    /// An answer reported the quota and was no refusal: if nothing was left, the last wait was long enough.
    pub(super) fn passed(&mut self, number: u64) {
        if self.has_no_time() && self.empty_since.is_some_and(|empty_since| number >= empty_since) {
            self.probe_gap = (self.probe_gap / 2).max(SHORTEST_GAP);
        }
    }

    /// Whether these figures can belong to the same counter as the answers before: the same limit, the same end
    /// of the window, and no more left than there was, allowing for requests in between.
    pub(super) fn agrees(&self, hint: &hints::QuotaHint, number: u64, now: u64) -> bool {
        let (Some(remaining), true) = (hint.remaining, self.is_reported()) else {
            return false;
        };
        let is_limit = self.limit.zip(hint.limit).is_none_or(|(own, hint)| own == hint);
        let is_reset = match (self.reset, hint.reset) {
            (Some(own), Some(hint)) => own.abs_diff(now.saturating_add(nanos(hint))) <= SLACK,
            (None, None) => true,
            (Some(own), None) => now >= own,
            (None, Some(_)) => false,
        };
        is_limit && is_reset && self.has_room(remaining, number, now)
    }

    /// Whether these figures cannot belong to the same counter as the answers before.
    pub(super) fn contradicts(&self, hint: &hints::QuotaHint, number: u64, now: u64) -> bool {
        let is_other = self.limit.zip(hint.limit).is_some_and(|(own, hint)| own != hint);
        let is_window = match (self.reset, hint.reset) {
            (Some(own), Some(hint)) => now < own && own.abs_diff(now.saturating_add(nanos(hint))) <= SLACK,
            _ => false,
        };
        let grows = self
            .lowest_in_window
            .zip(hint.remaining)
            .is_some_and(|(own, hint)| hint > 0 && hint >= own);
        is_other || (is_window && number >= self.reported_next && grows)
    }

    /// Forgets all figures: the upstream no longer reports them.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.first_number, self.in_flight);
    }

    /// When the pause ends that the upstream asked for.
    pub(super) fn pause_end(&self) -> Option<u64> {
        self.pause_end
    }

    /// When the window ends.
    pub(super) fn resets(&self) -> Option<u64> {
        self.reset
    }

    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Whether `remaining` can be what is left of it.
    fn has_room(&self, remaining: u64, number: u64, now: u64) -> bool {
        let Some(lowest_in_window) = self
            .lowest_in_window
            .filter(|_| self.reset.is_none_or(|reset| now < reset))
        else {
            return true;
        };
        // A request sent before the last report may have been counted before or after it.
        let is_later = number >= self.reported_next;
        let most = if is_later {
            lowest_in_window.saturating_sub(1)
        } else {
            lowest_in_window.saturating_add(self.in_flight)
        };
        // Other clients may use the quota, too.
        let spent = self.in_flight + 2 + self.limit.unwrap_or(remaining) / 10;
        remaining <= most
            && (is_later || remaining != lowest_in_window)
            && remaining.saturating_add(spent) >= lowest_in_window
    }

    /// Begins a new window when the old one has ended. Where nothing was left, one request goes first.
    fn roll_over(&mut self, number: u64, in_flight: u64, now: u64) {
        let is_over = match self.reset {
            Some(reset) if now >= reset => true,
            Some(_) => self.left == 0 && self.in_flight == 0 && now >= self.opens(),
            None => self.left == 0 && self.in_flight == 0 && now >= self.retry_at && !self.has_no_time(),
        };
        if !is_over || self.probe.is_some() {
            return;
        }
        self.reset = None;
        self.pause_end = None;
        self.in_flight = self.in_flight.min(in_flight);
        self.uncertain = self.uncertain.min(self.in_flight);
        if self.left == 0 {
            self.probe = Some(SlowStart::new(number, now));
        }
        self.left = self
            .limit
            .map_or(u64::MAX, |limit| limit.saturating_sub(self.in_flight));
        self.lowest_since_idle = u64::MAX;
    }

    /// Notes that a request is sent. Parts of a window are precise enough: the result is late by one part at
    /// most.
    fn remember(&mut self, now: u64) {
        if self.reset.is_some() || self.has_no_time() {
            self.recent.clear();
            return;
        }
        let part = self.window / PARTS;
        if self
            .recent
            .back()
            .is_none_or(|last| now.saturating_sub(*last) >= part)
        {
            self.recent.push_back(now);
        }
        while self
            .recent
            .front()
            .is_some_and(|first| now.saturating_sub(*first) > self.window + part)
        {
            self.recent.pop_front();
        }
    }

    /// Returns when to try again where the upstream names no time. In a rolling window that is when the oldest
    /// counted request leaves it. Other clients may share the quota, so a try is made within a minute all the
    /// same.
    fn frees(&self, now: u64) -> u64 {
        if self.has_no_time() {
            // The upstream may have a bucket that refills at once: only a refusal says more.
            return now;
        }
        let part = self.window / PARTS;
        if self.refills_gradually {
            // A few requests at a time rather than single ones: after each try we wait for an answer that reports
            // what is left.
            let few = self.window / self.limit.unwrap_or(1).max(1) * 4;
            return now.saturating_add(few.clamp(1, LONGEST_PAUSE));
        }
        let first = self
            .recent
            .iter()
            .find(|first| **first + self.window + part > now);
        let falls = first.map_or(now, |first| first.saturating_add(self.window + part));
        falls.clamp(now.saturating_add(part), now.saturating_add(LONGEST_PAUSE))
    }
}

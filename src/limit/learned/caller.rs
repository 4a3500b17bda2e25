//! The limits of one caller: everything learned for one host, port and credential.
//!
//! A response can report several limits, and one limit can count several routes. [`CallerLimits`] keeps the
//! limits ([`LearnedLimit`]), and for each route which of them count it ([`RouteLimits`]).

use std::collections::HashMap;
use std::time::Duration;

use super::guess::{ObservedRefusal, RateGuess};
use super::quota::{LearnedQuota, QuotaState, SLACK};
use super::response::{Evidence, ObservedResponse, field_text};
use super::route::{RoutePattern, Scope};
use super::set::LearnedSet;
use super::slow_start::{SECOND, SlowStart};
use super::{Hold, LearnedEvent, SentRequest};
use crate::limit::hints::{self, Hints};
use crate::limit::status::shown_path;
use crate::units::nanos;

pub(super) use self::forecast::CallerForecast;
use self::limit::LearnedLimit;

mod forecast;
mod limit;
#[cfg(test)]
mod tests;

/// An upstream that names a quota for each user must not fill the memory.
pub(super) const MOST_LIMITS: usize = 16;

const MOST_ROUTES: usize = 256;

/// Upstreams state times no more precisely than this.
const MOMENT: u64 = SECOND / 4;

/// A pause this short may be a fraction of a second that was rounded up.
const SHORT: u64 = 2 * SECOND;

#[derive(Debug)]
pub(super) struct CallerLimits {
    /// At most [`MOST_LIMITS`]. An index never changes, because a [`LearnedSet`] names it.
    limits: Vec<Option<LearnedLimit>>,
    /// Holds requests back while nobody knows what the upstream takes. It refuses none of them, and delays each
    /// for a second at most, or for half of the time that the request may wait.
    slow_start: Option<SlowStart>,
    /// `https://host:port`; empty until an answer comes.
    pub(super) host: Box<str>,
    /// [`LearnedKey::host`](super::LearnedKey::host).
    pub(super) host_hash: u64,
    /// By [`RoutePattern::key`].
    routes: HashMap<u64, RouteLimits>,
    pub(super) last_used: u64,
    /// Requests may wait (`on_limit: wait`).
    may_wait: bool,
    /// An answer to a second route may show that a limit counts both.
    widens: bool,
}

/// Which limits count the requests of one route, as its answers have shown.
#[derive(Clone, Copy, Debug, Default)]
struct RouteLimits {
    counted_by: LearnedSet,
    /// Limits that do not count this route, though their scope covers it.
    not_counted_by: LearnedSet,
}

impl CallerLimits {
    /// `allowed`: how many requests may be in flight at first. `next`: the number of the next request.
    pub(super) fn new(host: u64, may_wait: bool, allowed: u32, widens: bool, next: u64, now: u64) -> Self {
        let slow_start = SlowStart::with(allowed, next, now);
        Self {
            limits: Vec::new(),
            slow_start: (may_wait && !slow_start.is_over()).then_some(slow_start),
            host: Box::default(),
            host_hash: host,
            routes: HashMap::new(),
            last_used: now,
            may_wait,
            widens,
        }
    }

    /// Whether nothing here can hold a request back.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.slow_start.is_none() && self.is_blank(now)
    }

    /// Whether nothing learned matters now.
    pub(super) fn is_blank(&self, now: u64) -> bool {
        self.all().all(|(_, limit)| limit.is_idle(now))
    }

    /// How many requests may be in flight while nothing else is known.
    pub(super) fn slow_start_allows(&self) -> u32 {
        self.slow_start.as_ref().map_or(u32::MAX, SlowStart::allowed)
    }

    /// Returns the limits that hold a request of `route` back, and for how long; an empty set where it may go.
    pub(super) fn held(
        &mut self,
        route: &RoutePattern,
        (arrived, max_wait): (u64, u64),
        (next, in_flight): (u64, u64),
        now: u64,
    ) -> (LearnedSet, Hold) {
        self.last_used = now;
        let (mut held, mut probed) = (LearnedSet::default(), LearnedSet::default());
        let mut due = now;
        let applying = self.applying_to(route);
        let mut is_reported = false;
        for (index, limit) in self.among(applying) {
            is_reported |= limit.quota.is_reported() || limit.guess.per_second().is_some();
            let until = match limit.quota.state(next, in_flight, now) {
                QuotaState::Open => match limit.guess.earliest(now) {
                    earliest if earliest > now => earliest,
                    _ => continue,
                },
                QuotaState::Probing(until) => {
                    probed = probed.union(LearnedSet::of(index));
                    until
                }
                QuotaState::Exhausted(until) => until,
            };
            held = held.union(LearnedSet::of(index));
            due = due.max(until);
        }
        if let Some(slow_start) = &mut self.slow_start
            && !is_reported
            && !slow_start.admits(now)
        {
            let longest = arrived.saturating_add(SECOND.min(max_wait / 2));
            if longest > now {
                held = held.union(LearnedSet::SLOW_START);
                probed = probed.union(LearnedSet::SLOW_START);
                due = due.max(slow_start.due().min(longest));
            }
        }
        let hold = match due {
            // What is over in a moment is waited for as an answer to a probe is, also with `on_limit: reject`.
            until if held == probed || until.saturating_sub(now) <= MOMENT => Hold::ForProbe(until),
            until => Hold::Until(until),
        };
        (held, hold)
    }

    /// Returns when the last pause ends. A tunnel waits for that: we cannot see which route its requests take.
    pub(super) fn pause_end(&self, now: u64) -> Option<u64> {
        let stops = self.all().filter_map(|(_, limit)| limit.quota.pause_end());
        stops.filter(|until| *until > now).max()
    }

    /// Counts a request of `route` as sent. Returns the limits that it was counted under.
    pub(super) fn take(&mut self, route: &RoutePattern, now: u64) -> LearnedSet {
        let applying = self.applying_to(route);
        for (_, limit) in self.among(applying) {
            limit.quota.take(now);
            limit.guess.take();
        }
        match &mut self.slow_start {
            Some(slow_start) => {
                slow_start.take();
                applying.union(LearnedSet::SLOW_START)
            }
            None => applying,
        }
    }

    /// Takes back a request that was counted and then not sent. `is_last`: none has been sent since.
    pub(super) fn give_back(&mut self, sent: SentRequest, is_last: bool) {
        for (_, limit) in self.among(sent.taken) {
            limit.quota.give_back();
            // Otherwise more requests might go than the rate allows.
            if is_last {
                limit.guess.give_back(sent.number);
            }
        }
    }

    /// Counts a request as ended, with an answer or without.
    pub(super) fn end(&mut self, sent: SentRequest) {
        for (index, limit) in self.among(LearnedSet::ALL) {
            limit.quota.ended(sent.number, sent.taken.contains(index));
        }
        if let Some(slow_start) = &mut self.slow_start
            && sent.taken.shares(LearnedSet::SLOW_START)
        {
            slow_start.ended(sent.number);
        }
    }

    /// Learns from the answer to a request of `route`.
    pub(super) fn learn(
        &mut self,
        sent: SentRequest,
        route: &RoutePattern,
        response: &ObservedResponse<'_>,
        counts: (u64, u64),
        now: u64,
    ) -> Option<LearnedEvent> {
        let mut reported = LearnedSet::default();
        let evidence = |field: &str| Evidence {
            at: now,
            field: field.into(),
            method: response.method.clone(),
            path: shown_path(response.path).into(),
            status: response.status,
        };
        let quotas = response.hints.map_or(&[][..], |hints| &hints.quotas);
        for quota in quotas.iter().filter(|quota| quota.remaining.is_some()) {
            let index = self.limit_for(quota, route, sent.number, counts, now, || {
                evidence("RateLimit fields")
            });
            if let Some(Some(limit)) = self.limits.get_mut(index) {
                limit.quota.update(quota, sent.number, counts.0, now);
                reported = reported.union(LearnedSet::of(index));
            }
        }
        match response.hints {
            Some(hints) if hints.is_refusal => {
                self.refused(hints, reported, sent, route, response, counts, now, evidence)
            }
            Some(_) | None => self.passed(reported, sent, route, now),
        }
    }

    fn passed(
        &mut self,
        reported: LearnedSet,
        sent: SentRequest,
        route: &RoutePattern,
        now: u64,
    ) -> Option<LearnedEvent> {
        let applying = self.applying_to(route);
        let is_careful = self.slow_start.is_some();
        let mut not_counted = LearnedSet::default();
        let mut event = None;
        for (index, limit) in self.among(applying) {
            if limit.guess.passed(sent.number, now) {
                event = Some(LearnedEvent::Forgotten);
            }
            if reported.contains(index) {
                limit.quota.passed(sent.number);
                continue;
            }
            if limit.quota.is_reported() {
                // Answers to this route do not report this quota, or no longer do.
                not_counted = not_counted.union(LearnedSet::of(index));
                if sent.taken.contains(index) && limit.quota.not_counted(now) {
                    limit.quota.forget();
                }
            } else {
                let is_certain = limit.guess.per_second().is_some();
                limit
                    .quota
                    .probe_passed(sent.number, is_careful && !is_certain, now);
            }
        }
        if !not_counted.is_empty() {
            let seen = self.route_limits(route);
            seen.not_counted_by = seen.not_counted_by.union(not_counted.without(seen.counted_by));
        }
        if let Some(slow_start) = &mut self.slow_start
            && sent.taken.shares(LearnedSet::SLOW_START)
        {
            slow_start.grow(now);
            if slow_start.is_over() {
                self.slow_start = None;
            }
        }
        self.tidy(now);
        event
    }

    #[expect(clippy::too_many_arguments, reason = "one answer, and what is known of it")]
    fn refused(
        &mut self,
        hints: &Hints,
        reported: LearnedSet,
        sent: SentRequest,
        route: &RoutePattern,
        response: &ObservedResponse<'_>,
        counts: (u64, u64),
        now: u64,
        evidence: impl Fn(&str) -> Evidence,
    ) -> Option<LearnedEvent> {
        let (next, _) = counts;
        let pause = hints.pause.as_ref();
        let length = pause.map(|pause| nanos(pause.length));
        let name = pause.map_or("", |pause| &pause.name);
        let exhausted = self.exhausted(hints, reported, name);
        let (is_sure, may_wait) = (!exhausted.is_empty(), self.may_wait);
        let refusing = if exhausted.is_empty() {
            LearnedSet::of(self.refusing_limit(name, reported, route, counts, now, &evidence))
        } else {
            exhausted
        };
        let field = pause.map_or_else(String::new, field_text);
        let mut event = None;
        for (_, limit) in self.among(refusing) {
            limit.evidence = evidence(&field);
            let is_short = length.is_none_or(|length| length <= SHORT);
            let until = match length {
                Some(length) if !is_short => {
                    event = Some(LearnedEvent::Paused(Duration::from_nanos(length)));
                    Some(now.saturating_add(length))
                }
                _ => {
                    let refusal = ObservedRefusal {
                        asked: length,
                        is_sure,
                        jitter: response.jitter,
                        may_wait,
                    };
                    let backoff = limit.guess.refused(sent.number, next, now, &refusal);
                    if let (None, Some(asked @ 1..)) = (&backoff, length) {
                        // A request that was sent together with the first refused one: its answer restarts the
                        // pause.
                        limit.quota.pause(now.saturating_add(asked), next);
                    }
                    backoff.map(|backoff| {
                        let pause = Duration::from_nanos(backoff.until.saturating_sub(now));
                        event = Some(match length {
                            Some(1..) => LearnedEvent::Paused(pause),
                            Some(0) | None => LearnedEvent::Guessed(pause, backoff.per_second),
                        });
                        backoff.until
                    })
                }
            };
            if let Some(until) = until {
                limit.quota.pause(until, next);
            }
        }
        if let Some(slow_start) = &mut self.slow_start {
            slow_start.ended_in_refusal();
        }
        let is_telling = length.is_some_and(|length| length > 2 * SLACK);
        for index in 0..self.limits.len() {
            if is_telling && refusing.contains(index) {
                self.merge_same_pause(index, now);
            }
        }
        event
    }

    /// Returns the quotas of which a refusal says that nothing is left.
    fn exhausted(&self, hints: &Hints, reported: LearnedSet, name: &str) -> LearnedSet {
        let mut set = LearnedSet::default();
        for (index, limit) in self.all().filter(|(index, _)| reported.contains(*index)) {
            let is_used_up =
                |quota: &&hints::QuotaHint| quota.name == limit.name && quota.remaining == Some(0);
            let is_named = name.is_empty() || *limit.name == *name;
            if is_named && hints.quotas.iter().any(|quota| is_used_up(&quota)) {
                set = set.union(LearnedSet::of(index));
            }
        }
        set
    }

    /// Returns the limit that refuses `route` without reporting figures. It is not one that the same answer
    /// reports: of those something is left, and other routes may rely on it.
    fn refusing_limit(
        &mut self,
        name: &str,
        reported: LearnedSet,
        route: &RoutePattern,
        counts: (u64, u64),
        now: u64,
        evidence: impl Fn(&str) -> Evidence,
    ) -> usize {
        let applying = self.applying_to(route).without(reported);
        let known = self
            .among(applying)
            .find(|(_, limit)| *limit.name == *name)
            .map(|(index, _)| index);
        let index = known.unwrap_or_else(|| self.add(name, route, counts, now, || evidence("")));
        self.mark_counted(route, index);
        index
    }

    /// Finds or adds the limit that an answer to `route` reports figures of.
    fn limit_for(
        &mut self,
        quota: &hints::QuotaHint,
        route: &RoutePattern,
        number: u64,
        counts: (u64, u64),
        now: u64,
        evidence: impl FnOnce() -> Evidence,
    ) -> usize {
        let has = self
            .routes
            .get(&route.key())
            .map_or_else(LearnedSet::default, |seen| seen.counted_by);
        // There may be a second limit of the same name that only pauses: prefer the one with figures.
        let own = self
            .all()
            .filter(|(index, limit)| has.contains(*index) && limit.name == quota.name)
            .max_by_key(|(index, limit)| (limit.quota.is_reported(), std::cmp::Reverse(*index)));
        let own = own.map(|(index, _)| index);
        let agrees = |(index, limit): (usize, &LearnedLimit)| {
            (Some(index) != own && limit.name == quota.name && limit.quota.agrees(quota, number, now))
                .then_some(index)
        };
        if let Some(own) = own {
            // It counts several routes, and this answer may show that one of them is counted apart.
            let is_shared = self
                .routes
                .values()
                .filter(|seen| seen.counted_by.contains(own))
                .nth(1)
                .is_some();
            let differs = self.limits[own]
                .as_ref()
                .is_some_and(|limit| limit.quota.contradicts(quota, number, now));
            if !(is_shared && differs) {
                return own;
            }
            let seen = self.route_limits(route);
            seen.not_counted_by = seen.not_counted_by.union(LearnedSet::of(own));
            seen.counted_by = seen.counted_by.without(LearnedSet::of(own));
        }
        let other = if self.widens {
            self.all().find_map(agrees)
        } else {
            None
        };
        let index = match other {
            Some(index) => {
                if let Some(Some(limit)) = self.limits.get_mut(index) {
                    limit.scope.widen(route);
                }
                index
            }
            None => self.add(&quota.name, route, counts, now, evidence),
        };
        self.mark_counted(route, index);
        index
    }

    /// Notes that answers to `route` report the limit at `index`.
    fn mark_counted(&mut self, route: &RoutePattern, index: usize) {
        let seen = self.route_limits(route);
        seen.counted_by = seen.counted_by.union(LearnedSet::of(index));
        seen.not_counted_by = seen.not_counted_by.without(LearnedSet::of(index));
    }

    /// Returns what is known about `route`, to be changed.
    fn route_limits(&mut self, route: &RoutePattern) -> &mut RouteLimits {
        if self.routes.len() >= MOST_ROUTES && !self.routes.contains_key(&route.key()) {
            // An app may ask for any number of paths.
            self.routes.clear();
        }
        self.routes.entry(route.key()).or_default()
    }

    /// Adds a limit. When there are [`MOST_LIMITS`], it replaces the one that was reported longest ago.
    fn add(
        &mut self,
        name: &str,
        route: &RoutePattern,
        (next, in_flight): (u64, u64),
        now: u64,
        evidence: impl FnOnce() -> Evidence,
    ) -> usize {
        self.tidy(now);
        let limit = LearnedLimit {
            guess: RateGuess::default(),
            name: name.into(),
            quota: LearnedQuota::new(next, in_flight),
            scope: Scope::only(*route),
            evidence: evidence(),
        };
        let vacant = self.limits.iter().position(Option::is_none);
        let index = match vacant {
            Some(index) => index,
            None if self.limits.len() < MOST_LIMITS => {
                self.limits.push(None);
                self.limits.len() - 1
            }
            None => {
                let oldest = self
                    .all()
                    .min_by_key(|(_, limit)| limit.quota.reported_at().max(limit.evidence.at));
                oldest.map_or(0, |(index, _)| index)
            }
        };
        self.forget(index);
        self.limits[index] = Some(limit);
        index
    }

    /// Merges two limits without figures whose pauses end at the same moment. If both pauses began at the same
    /// moment, equal ends prove nothing: a service that always sends the same `Retry-After` sends it for each of
    /// its routes.
    fn merge_same_pause(&mut self, index: usize, now: u64) {
        let Some(Some(own)) = self.limits.get(index) else {
            return;
        };
        if !self.widens || own.quota.is_reported() || !own.name.is_empty() {
            return;
        }
        let Some(until) = own.quota.pause_end().filter(|until| *until > now) else {
            return;
        };
        let told_at = own.evidence.at;
        let is_same = |(other, limit): &(usize, &LearnedLimit)| {
            let is_close = |its: u64| its > now && its.abs_diff(until) <= SLACK;
            *other != index
                && limit.evidence.at.abs_diff(told_at) > SLACK
                && limit.name.is_empty()
                && !limit.quota.is_reported()
                && limit.quota.pause_end().is_some_and(is_close)
        };
        let Some((other, _)) = self.all().find(is_same) else {
            return;
        };
        let Some(own) = self.limits[index].take() else {
            return;
        };
        if let Some(limit) = &mut self.limits[other] {
            limit.scope.join(&own.scope);
        }
        for seen in self.routes.values_mut() {
            if seen.counted_by.contains(index) {
                seen.counted_by = seen.counted_by.union(LearnedSet::of(other));
                seen.not_counted_by = seen.not_counted_by.without(LearnedSet::of(other));
            }
        }
        self.forget(index);
    }

    /// Forgets limits that hold nobody and have not been reported lately.
    fn tidy(&mut self, now: u64) {
        for index in 0..self.limits.len() {
            if self.limits[index]
                .as_ref()
                .is_some_and(|limit| limit.is_idle(now))
            {
                self.forget(index);
            }
        }
    }

    fn forget(&mut self, index: usize) {
        self.limits[index] = None;
        let gone = LearnedSet::of(index);
        for seen in self.routes.values_mut() {
            seen.counted_by = seen.counted_by.without(gone);
            seen.not_counted_by = seen.not_counted_by.without(gone);
        }
        self.routes
            .retain(|_, seen| !seen.counted_by.is_empty() || !seen.not_counted_by.is_empty());
    }

    /// Returns the limits that apply to a request of `route`: those that its own answers have shown and, of those
    /// that count several routes, the one with the narrowest scope.
    fn applying_to(&self, route: &RoutePattern) -> LearnedSet {
        let seen = self.routes.get(&route.key()).copied().unwrap_or_default();
        let covers = |(index, limit): &(usize, &LearnedLimit)| {
            !seen.counted_by.contains(*index)
                && !seen.not_counted_by.contains(*index)
                && limit.scope.covers(route)
        };
        let depth = self
            .all()
            .filter(covers)
            .map(|(_, limit)| limit.scope.depth())
            .max();
        let mut set = seen.counted_by;
        for (index, _) in self
            .all()
            .filter(covers)
            .filter(|(_, limit)| Some(limit.scope.depth()) == depth)
        {
            set = set.union(LearnedSet::of(index));
        }
        set
    }

    fn all(&self) -> impl Iterator<Item = (usize, &LearnedLimit)> {
        let limits = self.limits.iter().enumerate();
        limits.filter_map(|(index, limit)| Some((index, limit.as_ref()?)))
    }

    fn among(&mut self, set: LearnedSet) -> impl Iterator<Item = (usize, &mut LearnedLimit)> {
        let limits = self.limits.iter_mut().enumerate();
        let among = limits.filter(move |(index, _)| set.contains(*index));
        among.filter_map(|(index, limit)| Some((index, limit.as_mut()?)))
    }
}

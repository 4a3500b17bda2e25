//! The state of one destination's limits: how much is in use, and which requests wait.
//!
//! A request takes from all limits that apply to it, or from none. If it has to wait, it joins the
//! [`queue`](super::queue). A later request never overtakes it if both have a configured limit in common, unless
//! a learned limit holds the earlier one; requests without a common limit do not hold each other up. Nothing is reserved for a waiting request: whenever something changes,
//! [`LimiterState::admit_ready`] goes through the queue from the front and admits every request that can go. So
//! when one gives up, those behind it move up by themselves.
//!
//! Only the waiters at the front, which no earlier one blocks, set a timer: their tasks sleep in `Limiter::wait`. `admit_ready` wakes each waiter that
//! reaches the front or is admitted. How long a request would have to wait is forecast by simulating the queue.
//!
//! Pure except for the wake-ups: time is passed in, as nanoseconds since the limiter was made. The lock, the
//! timers and the metrics are in [`limiter`](super::limiter).

use std::sync::Arc;

use tokio::sync::Notify;

use super::bucket::RateBucket;
use super::gcra::{Gcra, NEVER};
use super::learned::{
    HeldBy, Hold, Learned, LearnedEvent, LearnedKey, LearnedVerdict, ObservedResponse, ReportedQuota,
    SentRequest,
};
use super::queue::{Departure, Queue, Waiter};
use super::request::{LimitSet, LimitedRequest, MaxWait, PendingRequest, Rules, Ticket};
use super::shared::PermitRequest;
use super::shared::lease::{PATIENCE, RateLease};
use super::usage::Usage;
use crate::config::Class;

/// How often a forecast is corrected for requests that are promoted meanwhile, before it counts all of them.
const MOST_ROUNDS: usize = 4;

/// The limit that a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockingLimit {
    Concurrency,
    /// A limit of the upstream.
    Learned(ReportedQuota),
    /// The index of the rate.
    Rate(usize),
}

/// What happened to a request on arrival.
#[derive(Debug)]
pub(super) enum Arrival {
    Admitted(Ticket, SentRequest),
    /// It may wait for this many nanoseconds.
    Queued(Ticket, Arc<Notify>, u64),
    Refused(Obstacle),
}

/// The limit that lets a request go last, and when; [`NEVER`] for a rate of zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) limit: BlockingLimit,
    pub(super) until: u64,
}

/// The state of a request that was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueState {
    /// Admitted: everything it needs has been taken.
    Admitted(SentRequest),
    /// Removed from a full queue, to make room for a higher class.
    Displaced,
    /// It has to check again at this moment, or when it is woken: it may be able to go then.
    Due(u64),
    /// A learned limit holds it until this moment. If that is after its deadline, it is refused at once.
    Held(u64),
    /// It has to check again when it is woken.
    Waiting,
}

/// The state of one destination's limits.
#[derive(Debug)]
pub(super) struct LimiterState {
    arrivals: u64,
    queue: Queue,
    usage: Usage,
}

impl LimiterState {
    /// All rates are counted here, not in a store.
    #[cfg(test)]
    pub(super) fn new(rules: &Rules, learned: Option<Learned>) -> Self {
        let buckets = rules.rates.iter().map(|&rate| RateBucket::local(rate));
        Self::with(buckets.collect(), learned)
    }

    pub(super) fn with(buckets: Box<[RateBucket]>, learned: Option<Learned>) -> Self {
        Self {
            arrivals: 0,
            queue: Queue::default(),
            usage: Usage {
                learned,
                buckets,
                slots_taken: 0,
            },
        }
    }

    /// Admits the request, queues it, or returns what it would have to wait for. `max_wait` returns how long it
    /// may wait, and is called only if it has to. `key` returns the key of a request without one; it is called if
    /// something has been learned since the look outside the lock, or if the request has to wait.
    pub(super) fn arrive(
        &mut self,
        rules: &Rules,
        mut request: LimitedRequest,
        now: u64,
        max_wait: impl FnOnce() -> MaxWait,
        key: impl Fn() -> Option<LearnedKey>,
    ) -> Arrival {
        let LimitedRequest { class, limits, .. } = request;
        self.arrivals += 1;
        let ticket = Ticket {
            class,
            number: self.arrivals,
        };
        for (index, _) in rules.rates(limits) {
            if let Some(lease) = self.usage.buckets[index].lease() {
                lease.count_demand(now);
            }
        }
        if request.key.is_none() && self.usage.learned.as_ref().is_some_and(Learned::is_watched) {
            request.key = key();
        }
        self.admit_ready(rules, now);
        let is_in_the_way =
            |waiter: &Waiter| !waiter.is_held && waiter.pending.request.limits.overlaps(limits);
        let is_blocked = self.queue.before(class, now).any(is_in_the_way);
        // Unlimited until `max_wait` has been called.
        let mut pending = PendingRequest {
            arrived: now,
            request,
            max_wait: NEVER,
            ticket,
        };
        if !is_blocked && let Some(sent) = self.usage.go(rules, pending, now) {
            return Arrival::Admitted(ticket, sent);
        }
        if request.key.is_none() {
            request.key = key();
            pending.request = request;
        }
        let obstacle = self.forecast(rules, request, now);
        let max_wait = max_wait();
        pending.max_wait = max_wait.for_turn;
        // A slow start holds nothing that may not wait.
        if pending.max_wait == 0
            && !is_blocked
            && let Some(sent) = self.usage.go(rules, pending, now)
        {
            return Arrival::Admitted(ticket, sent);
        }
        if rules
            .rates(limits)
            .any(|(index, _)| self.usage.buckets[index].is_asking(now))
        {
            // Even a request that may not wait for a permit waits for the store to say whether there is one.
            pending.max_wait = pending.max_wait.max(PATIENCE);
        }
        if let LearnedVerdict::Held(_, Hold::ForProbe(_)) = self.usage.verdict(pending, now) {
            // A probe is in flight: the others wait for its answer, also with `on_limit: reject`.
            pending.max_wait = max_wait.for_probe;
        }
        let in_time = obstacle.until != NEVER && obstacle.until <= now.saturating_add(pending.max_wait);
        let has_room = |queue: &mut Queue| queue.len() < rules.queue || queue.displace(class);
        if pending.max_wait == 0 || !in_time || !has_room(&mut self.queue) {
            return Arrival::Refused(obstacle);
        }
        let wake = self.queue.insert(pending);
        // If the request is at the front now, this says so and wakes it.
        self.admit_ready(rules, now);
        Arrival::Queued(ticket, wake, pending.max_wait)
    }

    /// Returns the state of a queued request. Admits every request that can go by now, so that no request
    /// depends on the timer of another.
    pub(super) fn check(&mut self, rules: &Rules, ticket: Ticket, now: u64) -> QueueState {
        self.admit_ready(rules, now);
        let position = self.queue.position(ticket);
        let Some(waiter) = position.and_then(|position| self.queue.get_mut(position)) else {
            return match self.queue.departure(ticket) {
                Some(Departure::Admitted(sent)) => QueueState::Admitted(sent),
                // A request checks only once after it has left the queue.
                Some(Departure::Displaced) | None => QueueState::Displaced,
            };
        };
        waiter.due = None;
        if !waiter.is_front {
            return QueueState::Waiting;
        }
        let pending = waiter.pending;
        let rates = self.usage.obstacle(rules, pending.request.limits, now);
        let verdict = self.usage.verdict(pending, now);
        if let Some(waiter) = position.and_then(|position| self.queue.get_mut(position)) {
            waiter.due = verdict.due();
        }
        match verdict {
            LearnedVerdict::Free if rates > now => QueueState::Due(rates),
            // The rates would let it go, so it waits for a slot.
            LearnedVerdict::Free => QueueState::Waiting,
            LearnedVerdict::Held(_, Hold::Until(until)) => QueueState::Held(until),
            LearnedVerdict::Held(_, Hold::ForProbe(until)) => QueueState::Due(until),
        }
    }

    /// Removes a request that gives up. If it had just been admitted, what it took is returned.
    pub(super) fn leave(&mut self, rules: &Rules, ticket: Ticket, limits: LimitSet, now: u64) {
        if let Some(position) = self.queue.position(ticket) {
            self.queue.remove(position);
        } else if let Some(Departure::Admitted(sent)) = self.queue.departure(ticket) {
            return self.put_back(rules, ticket, limits, sent, now);
        }
        self.admit_ready(rules, now);
    }

    /// Returns what an admitted request took that is not sent. A rate takes it back only if no other request has
    /// gone since, because otherwise more might exceed it.
    pub(super) fn put_back(
        &mut self,
        rules: &Rules,
        ticket: Ticket,
        limits: LimitSet,
        sent: SentRequest,
        now: u64,
    ) {
        self.usage.put_back(rules, ticket, limits, sent);
        self.reset_timers();
        self.admit_ready(rules, now);
    }

    /// Changes the bucket of a rate from outside, and admits the requests that can go now.
    pub(super) fn refill(
        &mut self,
        rules: &Rules,
        index: usize,
        now: u64,
        change: impl FnOnce(&mut RateBucket),
    ) {
        if let Some(bucket) = self.usage.buckets.get_mut(index) {
            change(bucket);
            self.reset_timers();
            self.admit_ready(rules, now);
        }
    }

    /// Whether it is time to ask the store. Returns true once for each answer.
    pub(super) fn wants(&mut self, now: u64) -> bool {
        let queue = &self.queue;
        let mut wants = false;
        for (index, bucket) in self.usage.buckets.iter_mut().enumerate() {
            if let Some(lease) = bucket.lease() {
                wants |= lease.should_ask(|| queue.waiting_for(index), now);
            }
        }
        wants
    }

    /// Returns what to ask the store, for each rate.
    pub(super) fn asks(&mut self, max_wait: u64, now: u64) -> Vec<PermitRequest> {
        let queue = &self.queue;
        let lent = self.usage.buckets.iter_mut().enumerate();
        let ask = |(index, bucket): (usize, &mut RateBucket)| {
            let lease = bucket.lease()?;
            Some(lease.request(queue.waiting_for(index), max_wait, now))
        };
        lent.filter_map(ask).collect()
    }

    /// Returns what the store has leased of each rate.
    pub(super) fn leases(&mut self) -> impl Iterator<Item = &mut RateLease> {
        self.usage.buckets.iter_mut().filter_map(RateBucket::lease)
    }

    /// Learns from a response, or from `None` if the request ended without one. Returns what to log.
    pub(super) fn learn(
        &mut self,
        rules: &Rules,
        sent: SentRequest,
        response: Option<(&LearnedKey, ObservedResponse<'_>)>,
        now: u64,
    ) -> Option<LearnedEvent> {
        let learned = self.usage.learned.as_mut()?;
        let event = match response {
            Some((key, response)) => learned.learn(sent, key, &response, now),
            None => {
                learned.end(sent);
                None
            }
        };
        if !self.queue.is_empty() {
            self.reset_timers();
            self.admit_ready(rules, now);
        }
        event
    }

    /// Frees the slot of a request that has ended. `now` is called only if a request waits for it.
    pub(super) fn release(&mut self, rules: &Rules, now: impl FnOnce() -> u64) {
        self.usage.slots_taken = self.usage.slots_taken.saturating_sub(1);
        if !self.queue.is_empty() {
            self.admit_ready(rules, now());
        }
    }

    /// Returns what a request would wait for if it queued now, and until when, provided that nobody gives up and
    /// nobody comes who goes before it. Nobody knows when a slot becomes free, so slots count as free unless the
    /// rates hold the request too.
    pub(super) fn forecast(&self, rules: &Rules, request: LimitedRequest, now: u64) -> Obstacle {
        let mut horizon = now;
        // Waiters that are promoted before this request's turn go before it. That makes its turn later, so that
        // more may be promoted.
        for _ in 0..MOST_ROUNDS {
            let obstacle = self.simulate(rules, request, now, horizon);
            if obstacle.until <= horizon || request.class == Class::Low {
                return obstacle;
            }
            horizon = obstacle.until;
        }
        self.simulate(rules, request, now, NEVER - 1)
    }

    /// Simulates the queue, with the waiters ahead that will have been promoted by `horizon`.
    fn simulate(&self, rules: &Rules, request: LimitedRequest, now: u64, horizon: u64) -> Obstacle {
        let LimitedRequest { class, limits, .. } = request;
        let key = request.key.unwrap_or_default();
        let bucket = |(bucket, rate): (&RateBucket, &Gcra)| bucket.forecast(*rate, now);
        let mut buckets: Vec<_> = (self.usage.buckets.iter().zip(&rules.rates).map(bucket)).collect();
        // When a later request may go, for each limit: not before those that wait for it already.
        let mut floors = vec![now; rules.rates.len()];
        let mut slots_floor = now;
        let learned = self.usage.learned.as_ref();
        let mut forecast = learned.map(|learned| (learned, learned.forecast(&key, now)));
        // A waiter that nothing learned holds passes those that are held.
        let before = |is_held: bool| {
            let waiters = self.queue.before(class, horizon);
            waiters.filter(move |waiter| waiter.is_held == is_held)
        };
        for waiter in before(false).chain(before(true)) {
            let limits = waiter.pending.request.limits;
            let its = waiter.pending.request.key.unwrap_or_default();
            let mut at = if limits.has_slots() { slots_floor } else { now };
            let mut is_passed = waiter.is_held;
            if let Some((learned, forecast)) = &forecast {
                let free_at = learned.when(forecast, &its).0;
                at = at.max(free_at);
                // What holds it holds this request for at least as long, so it still goes before.
                is_passed =
                    is_passed && (its.caller != key.caller || learned.when(forecast, &key).0 < free_at);
            }
            for (index, _) in rules.rates(limits) {
                let (rate, level) = buckets[index];
                at = at.max(floors[index]).max(rate.earliest(level));
            }
            if let Some((learned, forecast)) = &mut forecast {
                learned.add_sent(forecast, &its, at);
            }
            if is_passed {
                continue;
            }
            for (index, _) in rules.rates(limits) {
                let (rate, level) = &mut buckets[index];
                floors[index] = at;
                *level = rate.taken(*level, at);
            }
            if limits.has_slots() {
                slots_floor = at;
            }
        }
        let limit = match rules.rates(limits).next() {
            _ if limits.is_empty() => BlockingLimit::Learned(ReportedQuota::default()),
            Some((index, _)) if !limits.has_slots() => BlockingLimit::Rate(index),
            _ => BlockingLimit::Concurrency,
        };
        let mut obstacle = Obstacle { limit, until: now };
        for (index, _) in rules.rates(limits) {
            let (rate, level) = buckets[index];
            let until = rate.earliest(level).max(floors[index]);
            if until > obstacle.until {
                obstacle = Obstacle {
                    limit: BlockingLimit::Rate(index),
                    until,
                };
            }
        }
        if limits.has_slots() {
            obstacle.until = obstacle.until.max(slots_floor);
        }
        if let Some((learned, forecast)) = &forecast {
            let (until, told) = learned.when(forecast, &key);
            if until > obstacle.until || limits.is_empty() {
                obstacle = Obstacle {
                    limit: BlockingLimit::Learned(told),
                    until,
                };
            }
        }
        obstacle
    }

    /// Returns what is left of a rate: 1 full, 0 exhausted.
    pub(super) fn rate_left(&self, rules: &Rules, index: usize, now: u64) -> f64 {
        self.usage.buckets[index].left(rules.rates[index], now)
    }

    pub(super) fn slots_taken(&self) -> u32 {
        self.usage.slots_taken
    }

    #[cfg(test)]
    pub(super) fn has_waiters(&self) -> bool {
        !self.queue.is_empty()
    }

    #[cfg(test)]
    pub(super) fn is_queued(&self, ticket: Ticket) -> bool {
        self.queue.position(ticket).is_some()
    }

    pub(super) fn learned(&self) -> Option<&Learned> {
        self.usage.learned.as_ref()
    }

    /// Admits every request that can go `now`, from the front of the queue, and wakes it.
    fn admit_ready(&mut self, rules: &Rules, now: u64) {
        self.queue.promote(now);
        let mut blocked = LimitSet::default();
        // The limits that hold the waiters seen so far.
        let mut holding: Vec<(LearnedKey, HeldBy)> = Vec::new();
        let mut position = 0;
        while let Some(waiter) = self.queue.get_mut(position) {
            let limits = waiter.pending.request.limits;
            if limits.overlaps(blocked) {
                blocked.add(limits);
                position += 1;
                continue;
            }
            let same = |(key, _): &&(LearnedKey, HeldBy)| Some(*key) == waiter.pending.request.key;
            if holding.iter().any(|holding| same(&holding)) {
                // The timer of an earlier waiter with the same key serves both.
                waiter.is_held = true;
                waiter.is_front = false;
                position += 1;
                continue;
            }
            let verdict = self.usage.verdict(waiter.pending, now);
            if verdict == LearnedVerdict::Free
                && let Some(sent) = self.usage.take(rules, waiter.pending, now)
            {
                self.queue.admit(position, sent);
                continue;
            }
            // Of the waiters that the same limits hold, only the first sets a timer.
            let is_front = match verdict {
                LearnedVerdict::Held(held_by, _) => !holding.iter().any(|(_, other)| held_by.shares(*other)),
                LearnedVerdict::Free => true,
            };
            waiter.is_held = matches!(verdict, LearnedVerdict::Held(..));
            let due = verdict.due();
            if is_front && !waiter.is_front && !due.is_some_and(|due| waiter.is_timed(due)) {
                waiter.due = due;
                waiter.wake.notify_one();
            }
            waiter.is_front = is_front;
            match verdict {
                LearnedVerdict::Held(held_by, _) => {
                    holding.push((waiter.pending.request.key.unwrap_or_default(), held_by));
                }
                LearnedVerdict::Free => blocked.add(limits),
            }
            if blocked.overlaps(rules.for_all) {
                // No request behind can go.
                return;
            }
            position += 1;
        }
    }

    /// Makes [`admit_ready`](Self::admit_ready) wake the waiters at the front again, because their timers may now
    /// be too late.
    fn reset_timers(&mut self) {
        for waiter in self.queue.iter_mut() {
            waiter.is_front = false;
        }
    }
}

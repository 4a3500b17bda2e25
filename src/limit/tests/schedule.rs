//! Random schedules, checked against the plain definition of the limits.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::config::Class;
use crate::limit::gcra::Gcra;
use crate::limit::request::{LimitSet, LimitedRequest, MaxWait, Rules, Ticket};
use crate::limit::state::{Arrival, LimiterState, QueueState};
use crate::units::Rate;

/// The definition of a rate: of any requests in a row, no more than the burst and what the time between the first
/// and the last allows.
fn exceeds(times: &[u64], count: u32, per: u64, burst: u32) -> bool {
    let earned = |from: u64, to: u64| u128::from(to - from) * u128::from(count) / u128::from(per);
    (0..times.len()).any(|i| {
        (i..times.len()).any(|j| (j - i + 1) as u128 > u128::from(burst) + earned(times[i], times[j]))
    })
}

/// Plays random schedules of arrivals, departures and ends, and checks them against the definition of the limits.
#[test]
fn random_schedules_never_exceed_a_limit_and_never_leave_a_free_one_unused() {
    for seed in 0..10_000 {
        Schedule::new(seed).play();
    }
}

struct Schedule {
    seed: u64,
    random: StdRng,
    rates: Vec<(u32, u64, u32)>,
    rules: Rules,
    state: LimiterState,
    now: u64,
    waiting: Vec<Waiting>,
    running: Vec<LimitSet>,
    /// When requests went, for each rate.
    went: Vec<Vec<u64>>,
    /// A request gave up after it was admitted, so a rate may be used less than it allows.
    returned: bool,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    request: LimitedRequest,
    ticket: Ticket,
    arrived: u64,
    max_wait: u64,
}

impl Waiting {
    /// The order of the queue: after half of the waiting time the class no longer counts.
    fn key(&self, now: u64) -> (Class, u64) {
        let moved_up = now >= self.arrived.saturating_add(self.max_wait / 2);
        let rank = if moved_up { Class::High } else { self.request.class };
        (rank, self.ticket.number)
    }
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let rates: Vec<_> = (0..random.random_range(1..=3))
            .map(|_| {
                (
                    random.random_range(1..=7),
                    random.random_range(1..=40),
                    random.random_range(1..=4),
                )
            })
            .collect();
        let gcra = |&(count, per, burst): &(u32, u64, u32)| {
            Gcra::new(&Rate {
                count,
                per: Duration::from_nanos(per),
                burst,
            })
        };
        let slots = random.random_bool(0.5).then(|| random.random_range(1..=3));
        let mut for_all = LimitSet::default();
        if slots.is_some() {
            for_all.add_slots();
        }
        if random.random_bool(0.5) {
            for_all.add_rate(0);
        }
        let rules = Rules {
            for_all,
            queue: random.random_range(1..=12),
            rates: rates.iter().map(gcra).collect(),
            slots,
        };
        let state = LimiterState::new(&rules, None);
        let went = vec![Vec::new(); rates.len()];
        let (waiting, running) = (Vec::new(), Vec::new());
        Self {
            seed,
            random,
            rates,
            rules,
            state,
            now: 0,
            waiting,
            running,
            went,
            returned: false,
        }
    }

    fn play(mut self) {
        for _ in 0..40 {
            self.now += self.random.random_range(0..=6);
            match self.random.random_range(0..10) {
                0..=5 => self.arrive(),
                6 => self.leave(),
                7 | 8 => self.end(),
                _ => {}
            }
            self.collect(None);
            self.give_up();
            self.check();
        }
        self.drain();
    }

    fn request(&mut self) -> LimitedRequest {
        let mut limits = self.rules.for_all;
        for index in 0..self.rates.len() {
            if self.random.random_bool(0.7) {
                limits.add_rate(index);
            }
        }
        let class = [Class::High, Class::Normal, Class::Low][self.random.random_range(0..3)];
        LimitedRequest {
            class,
            limits,
            key: None,
            is_tunnel: false,
        }
    }

    fn arrive(&mut self) {
        let request = self.request();
        // Requests that may go by now go first.
        self.collect(None);
        let max_wait = self.random.random_range(0..200);
        match self.state.arrive(
            &self.rules,
            request,
            self.now,
            || MaxWait {
                for_probe: max_wait,
                for_turn: max_wait,
            },
            || None,
        ) {
            Arrival::Admitted(..) => {
                let earlier = self.waiting.iter().any(|other| {
                    let goes_before = other.key(self.now).0 <= request.class;
                    goes_before && other.request.limits.overlaps(request.limits)
                });
                assert!(!earlier, "seed {}: overtaken on arrival", self.seed);
                self.admit(request.limits);
            }
            Arrival::Queued(ticket, ..) => {
                self.waiting.push(Waiting {
                    request,
                    ticket,
                    arrived: self.now,
                    max_wait,
                });
                self.collect(Some(request.class));
            }
            Arrival::Refused(obstacle) => {
                let last = self.waiting.iter().map(|other| other.key(self.now).0).max();
                let is_full = self.waiting.len() >= self.rules.queue && last <= Some(request.class);
                assert!(
                    max_wait == 0 || is_full || obstacle.until > self.now + max_wait,
                    "seed {}: refused though it would wait no longer than allowed",
                    self.seed
                );
            }
        }
    }

    /// A request gives up: in the queue, or after it was admitted and before it learned of it, perhaps so late
    /// that others have gone since.
    fn leave(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let place = self.random.random_range(0..self.waiting.len());
        let Waiting { ticket, request, .. } = self.waiting.remove(place);
        if self.random.random_bool(0.5) {
            self.end();
            self.collect(None);
            if !self.state.is_queued(ticket) {
                self.returned = true;
                self.collect(None);
                self.now += self.random.random_range(0..=40);
                self.arrive();
                self.collect(None);
            }
        }
        self.state.leave(&self.rules, ticket, request.limits, self.now);
    }

    /// Removes the requests that have waited as long as they may.
    fn give_up(&mut self) {
        let now = self.now;
        let is_over = |waiting: &Waiting| now >= waiting.arrived + waiting.max_wait;
        while let Some(place) = self.waiting.iter().position(is_over) {
            let Waiting { ticket, request, .. } = self.waiting.remove(place);
            self.state.leave(&self.rules, ticket, request.limits, now);
            self.collect(None);
        }
    }

    fn end(&mut self) {
        if !self.running.is_empty() {
            let limits = self
                .running
                .remove(self.random.random_range(0..self.running.len()));
            if limits.has_slots() {
                let now = self.now;
                self.state.release(&self.rules, || now);
            }
        }
    }

    /// Checks all queued requests; the admitted ones go. `class` is that of the request that came just before,
    /// which may have displaced another.
    fn collect(&mut self, class: Option<Class>) {
        let mut gone = Vec::new();
        let mut place = 0;
        while let Some(&waiting) = self.waiting.get(place) {
            match self.state.check(&self.rules, waiting.ticket, self.now) {
                QueueState::Admitted(_) => gone.push(self.waiting.remove(place)),
                QueueState::Displaced => {
                    assert!(
                        class.is_some_and(|class| class < waiting.key(self.now).0),
                        "seed {}: displaced by one that is no better",
                        self.seed
                    );
                    self.waiting.remove(place);
                }
                QueueState::Due(_) | QueueState::Held(_) | QueueState::Waiting => place += 1,
            }
        }
        for gone in gone {
            let overtaken = self.waiting.iter().any(|other| {
                other.key(self.now) < gone.key(self.now) && other.request.limits.overlaps(gone.request.limits)
            });
            assert!(!overtaken, "seed {}: overtaken", self.seed);
            self.admit(gone.request.limits);
        }
    }

    fn admit(&mut self, limits: LimitSet) {
        self.running.push(limits);
        for (index, times) in self.went.iter_mut().enumerate() {
            if limits.has_rate(index) {
                times.push(self.now);
            }
        }
    }

    fn check(&self) {
        let seed = self.seed;
        for (times, &(count, per, burst)) in self.went.iter().zip(&self.rates) {
            assert!(
                !exceeds(times, count, per, burst),
                "seed {seed}: {count} per {per} burst {burst}: {times:?}"
            );
        }
        let held = self.running.iter().filter(|limits| limits.has_slots()).count();
        assert_eq!(self.state.slots_taken() as usize, held, "seed {seed}");
        assert!(
            self.rules.slots.is_none_or(|slots| held <= slots as usize),
            "seed {seed}: too many at once"
        );
        assert!(
            self.waiting.len() <= self.rules.queue,
            "seed {seed}: too many wait"
        );
        // The first in the queue must be waiting for something. Periods are whole nanoseconds, rounded up, so the
        // comparison uses the rounded rate.
        let first = self.waiting.iter().min_by_key(|waiting| waiting.key(self.now));
        if let Some(first) = first {
            let full = self.rules.slots.is_some_and(|slots| held >= slots as usize);
            let limited = self.went.iter().zip(&self.rates).enumerate().any(
                |(index, (times, &(count, per, burst)))| {
                    let mut times = times.clone();
                    times.push(self.now);
                    let concerned = first.request.limits.has_rate(index);
                    concerned && exceeds(&times, 1, per.div_ceil(u64::from(count)), burst)
                },
            );
            assert!(
                full || limited || self.returned,
                "seed {seed}: the first waits for nothing"
            );
        }
    }

    /// No more requests come: all those in the queue go in the end, and all slots become free.
    fn drain(mut self) {
        for _ in 0..250 {
            self.now += 1;
            self.end();
            self.collect(None);
            self.give_up();
        }
        while !self.running.is_empty() {
            self.end();
        }
        assert!(self.waiting.is_empty(), "seed {}: {:?}", self.seed, self.waiting);
        assert_eq!(self.state.slots_taken(), 0, "seed {}", self.seed);
    }
}

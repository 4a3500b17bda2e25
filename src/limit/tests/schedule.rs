//! Random schedules against the plain meaning of the limits.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::limit::book::{Arrival, Book, Concerns, Look, Rules, Ticket};
use crate::limit::gcra::Gcra;
use crate::units::Rate;

/// What a rate means, in the plainest words: of any requests in a row, no more than the burst and what the time
/// between the first and the last has earned.
fn exceeds(times: &[u64], count: u32, per: u64, burst: u32) -> bool {
    let earned = |from: u64, to: u64| u128::from(to - from) * u128::from(count) / u128::from(per);
    (0..times.len()).any(|i| {
        (i..times.len()).any(|j| (j - i + 1) as u128 > u128::from(burst) + earned(times[i], times[j]))
    })
}

/// Plays random schedules of arrivals, departures and ends against the plain meaning of the limits.
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
    book: Book,
    now: u64,
    waiting: Vec<(Ticket, Concerns)>,
    running: Vec<Concerns>,
    /// For each rate when requests went.
    went: Vec<Vec<u64>>,
    /// Someone gave up after having been admitted, so a rate may be used less than it allows.
    returned: bool,
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
        let rules = Rules {
            rates: rates.iter().map(gcra).collect(),
            slots,
        };
        let book = Book::new(&rules);
        let went = vec![Vec::new(); rates.len()];
        let (waiting, running) = (Vec::new(), Vec::new());
        Self {
            seed,
            random,
            rates,
            rules,
            book,
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
            self.collect();
            self.check();
        }
    }

    fn concerns(&mut self) -> Concerns {
        let mut concerns = Concerns::default();
        for index in 0..self.rates.len() {
            if self.random.random_bool(0.7) {
                concerns.add_rate(index);
            }
        }
        if self.rules.slots.is_some() {
            concerns.add_slots();
        }
        concerns
    }

    fn arrive(&mut self) {
        let concerns = self.concerns();
        let patience = self.random.random_range(0..200);
        match self.book.arrive(&self.rules, concerns, self.now, patience) {
            Arrival::Admitted => {
                self.collect();
                let earlier = self.waiting.iter().any(|(_, other)| other.shares(concerns));
                assert!(!earlier, "seed {}: overtaken on arrival", self.seed);
                self.admit(concerns);
            }
            Arrival::Queued(ticket, _) => self.waiting.push((ticket, concerns)),
            Arrival::Refused(obstacle) => assert!(
                patience == 0 || obstacle.until > self.now + patience,
                "seed {}: refused though it would wait no longer than allowed",
                self.seed
            ),
        }
    }

    /// Someone gives up: in the queue, or after having been admitted and before it could tell, perhaps so late that
    /// others have gone since.
    fn leave(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let (ticket, concerns) = self
            .waiting
            .remove(self.random.random_range(0..self.waiting.len()));
        if self.random.random_bool(0.5) {
            self.end();
            if self.book.look(&self.rules, ticket, self.now) == Look::Admitted {
                self.returned = true;
                self.collect();
                self.now += self.random.random_range(0..=40);
                self.arrive();
                self.collect();
            }
        }
        self.book.leave(&self.rules, ticket, concerns, self.now);
    }

    fn end(&mut self) {
        if !self.running.is_empty() {
            let concerns = self
                .running
                .remove(self.random.random_range(0..self.running.len()));
            if concerns.slots() {
                let now = self.now;
                self.book.release(&self.rules, || now);
            }
        }
    }

    /// Those in the queue look; whoever is admitted goes.
    fn collect(&mut self) {
        let mut place = 0;
        while let Some(&(ticket, concerns)) = self.waiting.get(place) {
            if self.book.look(&self.rules, ticket, self.now) == Look::Admitted {
                self.waiting.remove(place);
                let earlier = self.waiting[..place]
                    .iter()
                    .any(|(_, other)| other.shares(concerns));
                assert!(!earlier, "seed {}: overtaken", self.seed);
                self.admit(concerns);
            } else {
                place += 1;
            }
        }
    }

    fn admit(&mut self, concerns: Concerns) {
        self.running.push(concerns);
        for (index, times) in self.went.iter_mut().enumerate() {
            if concerns.rate(index) {
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
        let held = self.running.iter().filter(|concerns| concerns.slots()).count();
        assert_eq!(self.book.slots_taken() as usize, held, "seed {seed}");
        assert!(
            self.rules.slots.is_none_or(|slots| held <= slots as usize),
            "seed {seed}: too many at once"
        );
        // Work goes on: the first in the queue waits for something. Periods are whole nanoseconds here, rounded up,
        // so the comparison is with the rounded rate.
        if let Some(&(_, concerns)) = self.waiting.first() {
            let full = self.rules.slots.is_some_and(|slots| held >= slots as usize);
            let limited = self.went.iter().zip(&self.rates).enumerate().any(
                |(index, (times, &(count, per, burst)))| {
                    let mut times = times.clone();
                    times.push(self.now);
                    concerns.rate(index) && exceeds(&times, 1, per.div_ceil(u64::from(count)), burst)
                },
            );
            assert!(
                full || limited || self.returned,
                "seed {seed}: the first waits for nothing"
            );
        }
    }
}

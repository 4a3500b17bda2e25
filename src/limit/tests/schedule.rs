//! Random schedules against the plain meaning of the limits.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::config::Class;
use crate::limit::book::{Arrival, Asker, Book, Concerns, Look, Patience, Rules};
use crate::limit::gcra::Gcra;
use crate::limit::queue::Ticket;
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
    waiting: Vec<Waiting>,
    running: Vec<Concerns>,
    /// For each rate when requests went.
    went: Vec<Vec<u64>>,
    /// Someone gave up after having been admitted, so a rate may be used less than it allows.
    returned: bool,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    asker: Asker,
    ticket: Ticket,
    arrived: u64,
    patience: u64,
}

impl Waiting {
    /// What the order is by: after half of its patience the class counts no more.
    fn key(&self, now: u64) -> (Class, u64) {
        let moved_up = now >= self.arrived.saturating_add(self.patience / 2);
        let rank = if moved_up { Class::High } else { self.asker.class };
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
        let mut everybody = Concerns::default();
        if slots.is_some() {
            everybody.add_slots();
        }
        if random.random_bool(0.5) {
            everybody.add_rate(0);
        }
        let rules = Rules {
            everybody,
            queue: random.random_range(1..=12),
            rates: rates.iter().map(gcra).collect(),
            slots,
        };
        let book = Book::new(&rules, None);
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
            self.collect(None);
            self.give_up();
            self.check();
        }
        self.drain();
    }

    fn asker(&mut self) -> Asker {
        let mut concerns = self.rules.everybody;
        for index in 0..self.rates.len() {
            if self.random.random_bool(0.7) {
                concerns.add_rate(index);
            }
        }
        let class = [Class::High, Class::Normal, Class::Low][self.random.random_range(0..3)];
        Asker {
            class,
            concerns,
            about: None,
            is_tunnel: false,
        }
    }

    fn arrive(&mut self) {
        let asker = self.asker();
        // By what has come due meanwhile others go first.
        self.collect(None);
        let patience = self.random.random_range(0..200);
        match self.book.arrive(
            &self.rules,
            asker,
            self.now,
            || Patience {
                answer: patience,
                turn: patience,
            },
            || None,
        ) {
            Arrival::Admitted(..) => {
                let earlier = (self.waiting.iter()).any(|other| {
                    let goes_before = other.key(self.now).0 <= asker.class;
                    goes_before && other.asker.concerns.shares(asker.concerns)
                });
                assert!(!earlier, "seed {}: overtaken on arrival", self.seed);
                self.admit(asker.concerns);
            }
            Arrival::Queued(ticket, ..) => {
                self.waiting.push(Waiting {
                    asker,
                    ticket,
                    arrived: self.now,
                    patience,
                });
                self.collect(Some(asker.class));
            }
            Arrival::Refused(obstacle) => {
                let last = self.waiting.iter().map(|other| other.key(self.now).0).max();
                let is_full = self.waiting.len() >= self.rules.queue && last <= Some(asker.class);
                assert!(
                    patience == 0 || is_full || obstacle.until > self.now + patience,
                    "seed {}: refused though it would wait no longer than allowed",
                    self.seed
                );
            }
        }
    }

    /// Someone gives up: in the queue, or after having been admitted and before it could tell, perhaps so late that
    /// others have gone since.
    fn leave(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let place = self.random.random_range(0..self.waiting.len());
        let Waiting { ticket, asker, .. } = self.waiting.remove(place);
        if self.random.random_bool(0.5) {
            self.end();
            self.collect(None);
            if !self.book.is_queued(ticket) {
                self.returned = true;
                self.collect(None);
                self.now += self.random.random_range(0..=40);
                self.arrive();
                self.collect(None);
            }
        }
        (self.book).leave(&self.rules, ticket, asker.concerns, self.now);
    }

    /// Whoever has waited for its whole patience goes away.
    fn give_up(&mut self) {
        let now = self.now;
        let is_over = |waiting: &Waiting| now >= waiting.arrived + waiting.patience;
        while let Some(place) = self.waiting.iter().position(is_over) {
            let Waiting { ticket, asker, .. } = self.waiting.remove(place);
            self.book.leave(&self.rules, ticket, asker.concerns, now);
            self.collect(None);
        }
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

    /// Those in the queue look; whoever is admitted goes. `class` is of the one that came just before and may have
    /// taken another's place.
    fn collect(&mut self, class: Option<Class>) {
        let mut gone = Vec::new();
        let mut place = 0;
        while let Some(&waiting) = self.waiting.get(place) {
            match self.book.look(&self.rules, waiting.ticket, self.now) {
                Look::Admitted(_) => gone.push(self.waiting.remove(place)),
                Look::Displaced => {
                    assert!(
                        class.is_some_and(|class| class < waiting.key(self.now).0),
                        "seed {}: displaced by one that is no better",
                        self.seed
                    );
                    self.waiting.remove(place);
                }
                Look::Due(_) | Look::Held(_) | Look::Waiting => place += 1,
            }
        }
        for gone in gone {
            let overtaken = (self.waiting.iter()).any(|other| {
                other.key(self.now) < gone.key(self.now) && other.asker.concerns.shares(gone.asker.concerns)
            });
            assert!(!overtaken, "seed {}: overtaken", self.seed);
            self.admit(gone.asker.concerns);
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
        assert!(
            self.waiting.len() <= self.rules.queue,
            "seed {seed}: too many wait"
        );
        // Work goes on: the first in the queue waits for something. Periods are whole nanoseconds here, rounded up,
        // so the comparison is with the rounded rate.
        let first = self.waiting.iter().min_by_key(|waiting| waiting.key(self.now));
        if let Some(first) = first {
            let full = self.rules.slots.is_some_and(|slots| held >= slots as usize);
            let limited = self.went.iter().zip(&self.rates).enumerate().any(
                |(index, (times, &(count, per, burst)))| {
                    let mut times = times.clone();
                    times.push(self.now);
                    let concerned = first.asker.concerns.rate(index);
                    concerned && exceeds(&times, 1, per.div_ceil(u64::from(count)), burst)
                },
            );
            assert!(
                full || limited || self.returned,
                "seed {seed}: the first waits for nothing"
            );
        }
    }

    /// Nobody comes any more: everybody in the queue goes in the end, and all slots are free.
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
        assert_eq!(self.book.slots_taken(), 0, "seed {}", self.seed);
    }
}

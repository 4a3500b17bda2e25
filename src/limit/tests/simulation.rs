//! Services of every kind in simulated time: what a client gets beside outrider, against what it gets alone.
//!
//! Each cell is a service, what it reports, its limit, the demand and what `on_limit` says. The same schedule
//! goes to a fresh service without outrider. `cargo test --lib limit::tests::simulation -- --nocapture` prints
//! the cells that fall below the floor; `OUTRIDER_WRITE_DOCS=1` writes the table in `docs/limits.md`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use self::client::{Demand, Obeys, Sending, Tally};
use self::reporting::Reporting;
use self::service::{Limit, Model, Service};
use super::wait;
use crate::config::OnLimit;

mod adapter;
mod client;
mod reporting;
mod service;
mod table;

/// How long a request waits where it may, in milliseconds.
const PATIENCE: u64 = 30_000;

/// The demands, and whether requests wait.
const STEADY: [(Demand, bool); 6] = [
    (Demand::Steady(0.7), false),
    (Demand::Steady(1.5), false),
    (Demand::Steady(3.0), false),
    (Demand::Steady(0.7), true),
    (Demand::Steady(1.5), true),
    (Demand::Steady(3.0), true),
];
const FEW: [(Demand, bool); 3] = [
    (Demand::Steady(0.7), false),
    (Demand::Steady(1.5), true),
    (Demand::Steady(3.0), false),
];
const BURSTS: [(Demand, bool); 2] = [(Demand::Bursts, false), (Demand::Bursts, true)];
const FIRST: [(Demand, bool); 1] = [(Demand::First, true)];

const LIMITS: [Limit; 2] = [
    Limit::new("5 in 6 s", 5, 6_000, 120_000),
    Limit::new("30 in 60 s", 30, 60_000, 180_000),
];

const FAST: Limit = Limit::new("20 in 1 s", 20, 1_000, 8_000);
/// Simulating a queue of hundreds takes long.
const FAST_SHORT: Limit = Limit {
    duration: 4_000,
    ..FAST
};

const HOURLY: [Limit; 1] = [Limit::new("100 in 1 h", 100, 3_600_000, 10_800_000)];

/// The limit changes in the middle.
const CHANGED: [Limit; 2] = [
    Limit {
        later: 20,
        ..Limit::new("10, 20 in 10 s", 10, 10_000, 120_000)
    },
    Limit {
        later: 10,
        ..Limit::new("20, 10 in 10 s", 20, 10_000, 120_000)
    },
];

/// So many at once; an answer takes 50 ms.
const AT_ONCE: [Limit; 1] = [Limit::new("2 at once", 2, 50, 8_000)];

const MODELS: [Model; 15] = [
    Model::FixedWindow,
    Model::CalendarWindow,
    Model::SlidingLog,
    Model::SlidingCounter,
    Model::TokenBucket,
    Model::TokenBucketNext,
    Model::BucketOfOne,
    Model::StrictSpacing,
    Model::Concurrency,
    Model::PerUser,
    Model::PerRoute,
    Model::PerHost,
    Model::OneCounter,
    Model::Random429,
    Model::Random503,
];

/// When the simulation begins, in milliseconds since the epoch: neither at the beginning of a second nor of a
/// window.
const BEGIN: u64 = 1_790_000_002_250;

#[derive(Clone, Copy, Debug)]
struct Cell {
    model: Model,
    reporting: Reporting,
    limit: Limit,
    demand: Demand,
    waits: bool,
    many_routes: bool,
}

/// The result of a cell.
#[derive(Clone, Debug)]
struct Outcome {
    cell: Cell,
    alone: Tally,
    beside: Tally,
    /// How many requests of a client passed that keeps to each `Retry-After`.
    obedient: u64,
    /// How many requests of a client passed that keeps to the resets, too.
    strict: u64,
    /// How many requests a client could get through that knows the limit.
    ideal: u64,
}

impl Cell {
    fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for model in MODELS {
            for reporting in Reporting::of(model).iter().copied() {
                cells.extend(Self::of(model, reporting));
            }
        }
        cells
    }

    /// Returns the cells of all limits and demands for a service.
    fn of(model: Model, reporting: Reporting) -> Vec<Self> {
        let mut cells = Vec::new();
        let mut add = |limits: &[Limit], demands: &[(Demand, bool)]| {
            for limit in limits.iter().copied() {
                cells.extend(demands.iter().copied().map(|(demand, waits)| Self {
                    model,
                    reporting,
                    limit,
                    demand,
                    waits,
                    many_routes: waits == (demand == Demand::Steady(1.5)),
                }));
            }
        };
        // Ways to write a time differ little from one another, and so do hosts from users: a few demands are
        // enough.
        let is_like_others = reporting.row() == Reporting::RoundedUp.row() || model == Model::PerHost;
        let steady: &[_] = if is_like_others { &FEW } else { &STEADY };
        match model {
            Model::Concurrency => {
                add(&AT_ONCE, steady);
                add(&AT_ONCE, &FIRST);
            }
            Model::Random429 | Model::Random503 => add(&[LIMITS[0], FAST], steady),
            _ => {
                let (most, longest) = steady.split_at(steady.len().min(5));
                add(&LIMITS, steady);
                add(&LIMITS, &BURSTS);
                add(&LIMITS, &FIRST);
                add(&[FAST], most);
                add(&[FAST_SHORT], longest);
                add(&[FAST], &FIRST);
            }
        }
        if let Model::FixedWindow | Model::SlidingLog | Model::TokenBucket = model {
            add(&HOURLY, steady);
            add(&CHANGED, steady);
        }
        cells
    }

    fn play(self) -> Outcome {
        let Self { model, limit, .. } = self;
        let schedule = client::schedule(model, limit, self.demand, self.many_routes);
        let service = || Service::new(model, limit);
        let alone = |obeys| client::alone(&schedule, service(), self.reporting, obeys);
        let on_limit = if self.waits {
            wait(PATIENCE / 1000)
        } else {
            OnLimit::Reject
        };
        let reckless = alone(Obeys::Nothing);
        Outcome {
            cell: self,
            ideal: self.ideal(&schedule).max(reckless.passed()),
            alone: reckless,
            beside: client::beside(&schedule, service(), self.reporting, on_limit, true),
            obedient: alone(Obeys::RetryAfter).passed(),
            strict: alone(Obeys::Reset).passed(),
        }
    }

    /// Returns how many requests a client could get through that knows the limit. One that cannot wait does best
    /// when it simply tries.
    fn ideal(&self, schedule: &[Sending]) -> u64 {
        if !self.waits {
            return 0;
        }
        let Some(most) = self.model.allows(self.limit, self.limit.duration + PATIENCE) else {
            return schedule.len() as u64 * 9 / 10;
        };
        let mut asked: Vec<(&str, u64)> = Vec::new();
        for sending in schedule {
            let counter = self.model.counter(&sending.request);
            match asked.iter_mut().find(|(own, _)| *own == counter) {
                Some((_, count)) => *count += 1,
                None => asked.push((counter, 1)),
            }
        }
        asked.iter().map(|(_, count)| most.min(*count)).sum()
    }
}

impl Outcome {
    /// Returns the part of what passes alone that passes beside outrider.
    fn share(&self) -> f64 {
        self.beside.passed() as f64 / self.alone.passed().max(1) as f64
    }

    /// Returns what the floor is a part of: what passes alone, or less where less passes of a client that keeps
    /// to the times that the service sends.
    fn owed(&self) -> u64 {
        self.alone.passed().min(self.obedient).min(self.strict).max(1)
    }

    /// Returns the part of what is owed that passed.
    fn kept(&self) -> f64 {
        self.beside.passed() as f64 / self.owed() as f64
    }

    fn is_below_the_floor(&self) -> bool {
        self.kept() < FLOOR
    }

    fn is_refused_more(&self) -> bool {
        self.beside.refused > self.alone.refused + SLACK
    }
}

/// Plays everything once, for all tests.
fn outcomes() -> &'static [Outcome] {
    static OUTCOMES: OnceLock<Vec<Outcome>> = OnceLock::new();
    OUTCOMES.get_or_init(|| {
        let (mut cells, next) = (Cell::all(), AtomicUsize::new(0));
        // For work on a few cells: `OUTRIDER_CELLS="token bucket of one"`.
        if let Ok(only) = std::env::var("OUTRIDER_CELLS") {
            cells.retain(|cell| table::name(cell).contains(&only));
        }
        let play = || {
            let mine = std::iter::from_fn(|| {
                let place = next.fetch_add(1, Ordering::Relaxed);
                cells.get(place).map(|cell| (place, cell.play()))
            });
            mine.collect::<Vec<_>>()
        };
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let mut outcomes: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(play)).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        outcomes.sort_by_key(|(place, _)| *place);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    })
}

/// The least part of what the client gets alone.
const FLOOR: f64 = 0.75;

/// Refusals by the service that may be more than alone by chance.
const SLACK: u64 = 2;

/// Cells below the floor, or in which the service refuses a little more than alone: services that send no time or
/// zero and refuse for fractions of a second, and limits that double without notice.
const KNOWN: [&str; 15] = [
    "sliding log nothing 20 in 1 s 1.5 wait many",
    "sliding counter clock 2 s behind, no Date 30 in 60 s 0.7 reject many",
    "sliding counter clock 2 s ahead, no Date 30 in 60 s 0.7 reject many",
    "token bucket only on refusal 10, 20 in 10 s 3 reject many",
    "token bucket of one all 30 in 60 s 3 reject many",
    "token bucket of one only on refusal 30 in 60 s 3 reject many",
    "token bucket of one cut times 5 in 6 s 3 reject many",
    "token bucket of one cut times 20 in 1 s 0.7 reject many",
    "token bucket of one cut times 20 in 1 s 3 reject many",
    "strict spacing nothing 5 in 6 s 3 reject many",
    "strict spacing nothing 30 in 60 s 3 reject many",
    "strict spacing nothing 20 in 1 s 0.7 reject many",
    "strict spacing nothing 20 in 1 s 3 reject many",
    "concurrency nothing 2 at once 0.7 reject many",
    "concurrency cut times 2 at once 1.5 reject one",
];

/// Checks the simulation itself: through a limiter that learns nothing, the client gets what it gets alone; and a
/// service allows what its model says, no more and not much less.
#[test]
fn both_clients_meet_the_same_service() {
    for model in MODELS {
        let limit = if model == Model::Concurrency {
            AT_ONCE[0]
        } else {
            LIMITS[0]
        };
        let schedule = client::schedule(model, limit, Demand::Steady(3.0), true);
        let service = || Service::new(model, limit);
        let alone = client::alone(&schedule, service(), Reporting::Nothing, Obeys::Nothing);
        let beside = client::beside(&schedule, service(), Reporting::Nothing, OnLimit::Reject, false);
        let (passed, name) = (alone.passed(), model.name());
        assert_eq!(
            (beside.passed(), beside.refused, beside.own),
            (passed, alone.refused, 0),
            "{name}"
        );
        let asked = schedule.len() as u64;
        let most = model
            .allows(limit, limit.duration)
            .map(|most| most * model.counters());
        let range = most.map_or(asked * 85 / 100..=asked * 95 / 100, |most| most * 7 / 10..=most);
        assert!(range.contains(&passed), "{name}: {passed} of {asked}, {range:?}");
    }
}

/// A cell below the floor is on the list, and a cell on the list is below the floor.
#[test]
fn the_floor_holds_in_every_cell() {
    let short = |outcome: &&Outcome| outcome.is_below_the_floor() || outcome.is_refused_more();
    let (short, fine): (Vec<_>, Vec<_>) = outcomes().iter().partition(short);
    let is_known = |outcome: &&&Outcome| KNOWN.contains(&&*table::words(&outcome.cell));
    let unknown: Vec<_> = short.into_iter().filter(|outcome| !is_known(&outcome)).collect();
    let stale: Vec<_> = fine.into_iter().filter(|outcome| is_known(&outcome)).collect();
    assert!(
        unknown.is_empty() && stale.is_empty(),
        "\n{}\non the list, but fine:\n{}",
        table::failing(&unknown, outcomes().len()),
        table::failing(&stale, outcomes().len())
    );
}

#[test]
fn the_table_in_the_document_is_what_the_simulation_shows() {
    table::compare_or_write(&table::rows(outcomes()));
}

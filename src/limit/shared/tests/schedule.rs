//! Random fleets, compared with what one bucket lets through.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{MS, rate};
use crate::limit::gcra::Gcra;
use crate::limit::shared::lease::{FleetConfig, RateLease};
use crate::limit::shared::script_model::ScriptModel;
use crate::limit::shared::{PermitGrant, PermitRequest, SECOND};

/// A few instances, their store, and the requests that wait.
struct Fleet {
    random: StdRng,
    gcra: Gcra,
    instances: Vec<Instance>,
    store: ScriptModel,
    now: u64,
    used: Vec<u64>,
    is_away: bool,
}

struct Instance {
    lease: RateLease,
    waiting: VecDeque<u64>,
    answer: Option<(u64, PermitRequest, PermitGrant)>,
    busy: f64,
    used: usize,
}

impl Fleet {
    fn new(seed: u64, gcra: Gcra, busy: impl Fn(&mut StdRng) -> f64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(1..=8);
        let instances = (0..count).map(|index| Instance {
            lease: RateLease::new(
                gcra,
                FleetConfig {
                    instances: None,
                    index: Some(index),
                },
                random.random(),
            ),
            waiting: VecDeque::new(),
            answer: None,
            busy: busy(&mut random),
            used: 0,
        });
        Self {
            instances: instances.collect(),
            random,
            gcra,
            store: ScriptModel::default(),
            now: SECOND,
            used: Vec::new(),
            is_away: false,
        }
    }

    fn run(&mut self, until: u64) {
        while self.now < until {
            self.now += self.random.random_range(1..2 * MS);
            for index in 0..self.instances.len() {
                self.step(index);
            }
        }
    }

    fn step(&mut self, index: usize) {
        let (now, clock) = (self.now, (self.now / 1000) as i64);
        let instance = &mut self.instances[index];
        if let Some((at, ask, grant)) = instance.answer.take() {
            if at <= now {
                instance.lease.receive(&ask, grant, now)
            } else {
                instance.answer = Some((at, ask, grant))
            }
        }
        if self.random.random_bool(instance.busy) {
            instance.lease.count_demand(now);
            instance.waiting.push_back(now + 500 * MS);
        }
        while instance.waiting.front().is_some_and(|until| *until < now) {
            instance.waiting.pop_front();
        }
        while !instance.waiting.is_empty() && instance.lease.earliest(now) <= now {
            instance.lease.take(now);
            if self.random.random_bool(0.05) {
                instance.lease.give_back();
            } else {
                self.used.push(now);
                instance.used += 1;
            }
            instance.waiting.pop_front();
        }
        let waiting = instance.waiting.len() as u32;
        let wants = instance.lease.should_ask(|| waiting, now) || instance.lease.is_quiet(now);
        if self.is_away {
            instance.lease.store_lost(now);
            instance.answer = None;
        } else if wants || instance.lease.store_is_away() {
            if instance.lease.store_is_away() {
                instance.lease.store_returned();
            }
            let ask = instance.lease.request(waiting, 500 * MS, now);
            let grant = self.store.call(&index.to_string(), &[("r", ask)], clock)[0];
            instance.answer = Some((now + self.random.random_range(0..2 * MS), ask, grant));
        }
    }

    /// By how many requests the worst window exceeds what one bucket would have let through.
    fn excess(&self) -> i64 {
        let (mut level, mut worst) = (0, i64::MIN);
        for &at in &self.used {
            level = self.gcra.taken(level, at);
            let ahead = i128::from(level) - i128::from(at + self.gcra.tolerance() + self.gcra.period());
            worst = worst.max((ahead.max(0) as u64).div_ceil(self.gcra.period()) as i64);
        }
        worst
    }
}

fn some_rate(random: &mut StdRng) -> Gcra {
    let count = random.random_range(5..400);
    let burst = if random.random_bool(0.3) {
        1
    } else {
        random.random_range(1..=count)
    };
    rate(count, 1, burst)
}

/// What a tick of the clock and the way of an answer may add, in requests.
fn slop(gcra: Gcra) -> i64 {
    (14 * MS).div_ceil(gcra.period()) as i64
}

#[test]
fn a_fleet_never_exceeds_what_one_bucket_would_let_through() {
    for seed in 0..300 {
        let gcra = some_rate(&mut StdRng::seed_from_u64(seed));
        let mut fleet = Fleet::new(seed, gcra, |random| random.random::<f64>().powi(3));
        fleet.run(6 * SECOND);
        let excess = fleet.excess();
        assert!(excess <= slop(gcra), "seed {seed}: {excess} too many at {gcra:?}");
    }
}

#[test]
fn a_busy_fleet_uses_what_there_is_and_shares_it() {
    for seed in 0..100 {
        let gcra = some_rate(&mut StdRng::seed_from_u64(seed));
        let mut fleet = Fleet::new(seed, gcra, |_| 0.9);
        fleet.run(3 * SECOND);
        let (used, calls) = (fleet.used.len(), fleet.store.calls);
        fleet.instances.iter_mut().for_each(|instance| instance.used = 0);
        fleet.run(13 * SECOND);
        let used = (fleet.used.len() - used) as f64;
        let ideal = 10.0 * SECOND as f64 / gcra.period() as f64;
        let demand = fleet.instances.len() as f64 * 8_500.0;
        if demand < ideal {
            continue;
        }
        assert!(
            used > 0.97 * ideal - 1.0,
            "seed {seed}: {used} of {ideal}: {gcra:?}"
        );
        let fair = used / fleet.instances.len() as f64;
        let least = fleet
            .instances
            .iter()
            .map(|instance| instance.used)
            .min()
            .unwrap() as f64;
        assert!(
            least > 0.7 * fair - 2.0,
            "seed {seed}: {least} of {fair}: {gcra:?}"
        );
        let calls = (fleet.store.calls - calls) as f64;
        if fair > 200.0 {
            assert!(calls < 0.3 * used, "seed {seed}: {calls} calls for {used}");
        }
    }
}

#[test]
fn an_outage_adds_no_more_than_the_shares() {
    for seed in 0..200 {
        let gcra = some_rate(&mut StdRng::seed_from_u64(seed));
        let mut fleet = Fleet::new(seed, gcra, |random| random.random());
        fleet.run(3 * SECOND);
        fleet.is_away = true;
        let until = fleet.now + fleet.random.random_range(MS..3 * SECOND);
        fleet.run(until);
        fleet.is_away = false;
        if fleet.random.random_bool(0.5) {
            fleet.store.clear();
        }
        let until = fleet.now + 5 * SECOND;
        fleet.run(until);
        let (excess, parts) = (fleet.excess(), fleet.instances.len() as i64);
        let stated = i64::from(gcra.burst()).max(2 * parts) + slop(gcra);
        assert!(
            excess <= stated,
            "seed {seed}: {excess} too many at {gcra:?}, {parts} instances"
        );
    }
}

//! Whole fleets in simulated time: the limiters as they are, a model of the script, a network of a
//! millisecond each way.
//!
//! The small fleets are tests. The large one takes minutes and prints the table of docs/fleets.md:
//! `cargo test --release --lib simulation -- --ignored --nocapture`

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::{AppliesTo, Matcher, OnLimit, RateLimit};
use crate::limit::shared::lease::FleetConfig;
use crate::limit::shared::script_model::ScriptModel;
use crate::limit::shared::store_queue::{Sharing, StoreQueue};
use crate::limit::{Limiter, Limiters, Settings};
use crate::telemetry::Telemetry;

/// How long a message is under way.
const LATENCY: Duration = Duration::from_millis(1);

/// The fleet and its demand.
#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    instances: usize,
    destinations: usize,
    /// Requests in a second that a destination allows to the whole fleet, and its burst.
    rate: u32,
    burst: u32,
    mix: Mix,
    /// Whether the store is away for ten seconds, and comes back empty.
    has_outage: bool,
}

/// How much each instance asks: half as much again as the limit in all.
#[derive(Clone, Copy)]
enum Mix {
    AllBusy,
    /// A tenth of the instances asks for all of it.
    TenthBusy,
    /// The second instance asks half as much as the first, the third a third.
    Zipf,
    /// Each asks the same, and all together half of the limit.
    Calm,
}

/// The result of a simulation, after its first seconds.
struct Outcome {
    /// Of what the limits allow.
    admitted: f64,
    /// The busiest second of any destination, as a part of the rate and the burst.
    busiest: f64,
    /// Calls of the script for each request that was admitted.
    calls: f64,
    /// What an instance got of what is fair, the least and the mean.
    least: f64,
    mean: f64,
    /// Jain's index of the same: 1 where all have the same.
    jain: f64,
}

/// A running simulation. It has one thread, so that its result is always the same.
struct Simulation {
    scenario: Scenario,
    begin: Instant,
    store: RefCell<ScriptModel>,
    is_away: Cell<bool>,
    random: RefCell<StdRng>,
    /// Admitted after the first seconds, by instance.
    got: RefCell<Vec<u32>>,
    /// Admitted in each tenth of a second, by destination.
    tenths: RefCell<Vec<Vec<u32>>>,
    counts: Cell<bool>,
}

impl Scenario {
    /// Requests in a second from an instance to a destination.
    fn demand(&self, instance: usize) -> f64 {
        let (all, count) = (f64::from(self.rate) * 1.5, self.instances as f64);
        match self.mix {
            Mix::AllBusy => all / count,
            Mix::TenthBusy if instance.is_multiple_of(10) => all / (count / 10.0).ceil(),
            Mix::TenthBusy => 0.0,
            Mix::Zipf => {
                let whole: f64 = (1..=self.instances).map(|rank| 1.0 / rank as f64).sum();
                all / whole / (instance + 1) as f64
            }
            Mix::Calm => all / 3.0 / count,
        }
    }

    /// What is fair for each: what it asks for, as far as all the others can have as much.
    fn fair(&self) -> Vec<f64> {
        let demands: Vec<_> = (0..self.instances)
            .map(|instance| self.demand(instance))
            .collect();
        let (mut low, mut high) = (0.0, f64::from(self.rate));
        for _ in 0..60 {
            let level = (low + high) / 2.0;
            let sum: f64 = demands.iter().map(|demand| demand.min(level)).sum();
            if sum > f64::from(self.rate) {
                high = level;
            } else {
                low = level;
            }
        }
        demands.into_iter().map(|demand| demand.min(high)).collect()
    }

    fn run(self) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let local = LocalSet::new();
        runtime.block_on(local.run_until(async move {
            let simulation = Rc::new(Simulation {
                scenario: self,
                begin: Instant::now(),
                store: RefCell::default(),
                is_away: Cell::new(false),
                random: RefCell::new(StdRng::seed_from_u64(1)),
                got: RefCell::new(vec![0; self.instances]),
                tenths: RefCell::new(vec![Vec::new(); self.destinations]),
                counts: Cell::new(false),
            });
            simulation.run().await
        }))
    }
}

impl Simulation {
    async fn run(self: &Rc<Self>) -> Outcome {
        let telemetry = Telemetry::new();
        for instance in 0..self.scenario.instances {
            self.start(instance, &telemetry);
        }
        let at = |seconds| self.begin + Duration::from_secs(seconds);
        let end = if self.scenario.has_outage { 19 } else { 9 };
        sleep_until(at(3)).await;
        self.counts.set(true);
        let calls = self.store.borrow().calls;
        if self.scenario.has_outage {
            sleep_until(at(5)).await;
            self.is_away.set(true);
            sleep_until(at(15)).await;
            self.store.borrow_mut().clear();
            self.is_away.set(false);
        }
        sleep_until(at(end)).await;
        let calls = self.store.borrow().calls - calls;
        self.outcome(calls, (end - 3) as f64)
    }

    fn outcome(&self, calls: u64, seconds: f64) -> Outcome {
        let Scenario {
            rate,
            burst,
            destinations,
            ..
        } = self.scenario;
        let got = self.got.borrow();
        let admitted: f64 = got.iter().copied().map(f64::from).sum();
        let parts: Vec<_> = got
            .iter()
            .zip(self.scenario.fair())
            .filter(|(_, fair)| *fair * seconds >= 0.5)
            .map(|(got, fair)| f64::from(*got) / (fair * seconds * destinations as f64))
            .collect();
        let (sum, squares) = (
            parts.iter().sum::<f64>(),
            parts.iter().map(|part| part * part).sum::<f64>(),
        );
        let tenths = self.tenths.borrow();
        let busiest = tenths
            .iter()
            .flat_map(|tenths| tenths.windows(10).map(|window| window.iter().sum::<u32>()))
            .max();
        Outcome {
            admitted: admitted / (f64::from(rate) * seconds * destinations as f64),
            busiest: f64::from(busiest.unwrap_or(0)) / f64::from(rate + burst),
            calls: calls as f64 / admitted,
            least: parts.iter().copied().fold(f64::INFINITY, f64::min),
            mean: sum / parts.len() as f64,
            jain: sum * sum / (parts.len() as f64 * squares),
        }
    }

    /// One instance: its limiters, its clients, and the task that asks the store.
    fn start(self: &Rc<Self>, instance: usize, telemetry: &Telemetry) {
        let (limits, queue) = (Limiters::default(), Arc::new(StoreQueue::default()));
        let demand = self.scenario.demand(instance);
        let mut made = Vec::new();
        for destination in 0..self.scenario.destinations {
            let name = format!("d{destination}");
            let rate = format!("{}/s burst {}", self.scenario.rate, self.scenario.burst);
            let settings = Settings {
                applies_to: AppliesTo::Auto,
                concurrency: None,
                instances: 1,
                member: None,
                on_limit: OnLimit::Wait(Duration::from_secs(1)),
                priorities: Vec::new(),
                queue: 1000,
                respect_upstream: false,
                rate_limits: vec![RateLimit {
                    rate: rate.parse().unwrap(),
                    matcher: Matcher::default(),
                }],
                sharing: Some(Sharing {
                    queue: Arc::clone(&queue),
                    fleet: FleetConfig {
                        instances: None,
                        index: Some(instance as u32),
                    },
                    names: [name.clone()].into(),
                }),
            };
            let limiter = limits.with(&name.as_str().into(), settings, telemetry);
            made.push(Arc::clone(&limiter));
            if demand > 0.0 {
                let simulation = Rc::clone(self);
                spawn_local(async move { simulation.clients(limiter, instance, destination, demand).await });
            }
        }
        limits.hold([], made);
        let simulation = Rc::clone(self);
        spawn_local(async move {
            let _alive = limits;
            simulation.ask(&queue).await;
        });
    }

    /// Requests come by chance, none waits for another.
    async fn clients(
        self: Rc<Self>,
        limiter: Arc<Limiter>,
        instance: usize,
        destination: usize,
        demand: f64,
    ) {
        let mut at = self.begin;
        loop {
            let chance: f64 = self.random.borrow_mut().random();
            at += Duration::from_secs_f64(-(1.0 - chance).ln() / demand);
            sleep_until(at).await;
            let (simulation, limiter) = (Rc::clone(&self), Arc::clone(&limiter));
            spawn_local(async move {
                if limiter
                    .admit(crate::limit::bench::request(&Method::GET, "/"), || None)
                    .await
                    .is_ok()
                {
                    simulation.admitted(instance, destination);
                }
            });
        }
    }

    fn admitted(&self, instance: usize, destination: usize) {
        let tenth = (self.begin.elapsed().as_millis() / 100) as usize;
        let tenths = &mut self.tenths.borrow_mut()[destination];
        tenths.resize(tenths.len().max(tenth + 1), 0);
        tenths[tenth] += 1;
        if self.counts.get() {
            self.got.borrow_mut()[instance] += 1;
        }
    }

    /// What `store` does, on a network without surprises.
    async fn ask(self: &Rc<Self>, queue: &Arc<StoreQueue>) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            if self.is_away.get() {
                queue.limiters().iter().for_each(|limiter| limiter.unanswered());
                while self.is_away.get() {
                    let pause = self.random.borrow_mut().random_range(1000..2000);
                    sleep(Duration::from_millis(pause)).await;
                }
                for limiter in queue.limiters() {
                    limiter.reachable();
                    self.call(&limiter);
                }
            }
            tokio::select! {
                () = queue.wait() => queue.take().iter().for_each(|limiter| self.call(limiter)),
                _ = tick.tick() => {
                    let quiet = queue.limiters().into_iter().filter(|limiter| limiter.is_quiet());
                    quiet.for_each(|limiter| self.call(&limiter));
                }
            }
        }
    }

    fn call(self: &Rc<Self>, limiter: &Arc<Limiter>) {
        let (simulation, limiter) = (Rc::clone(self), Arc::clone(limiter));
        spawn_local(async move {
            let call = limiter.call().unwrap();
            sleep(LATENCY).await;
            if simulation.is_away.get() {
                return limiter.unanswered();
            }
            let grants = {
                let (names, member) = limiter.names();
                let asks: Vec<_> = (names.iter().map(String::as_str))
                    .zip(call.requests.iter().copied())
                    .collect();
                let now = simulation.begin.elapsed().as_micros() as i64 + 1;
                simulation.store.borrow_mut().call(member, &asks, now)
            };
            sleep(LATENCY).await;
            call.answered(&grants);
        });
    }
}

fn print(scenario: &Scenario, outcome: &Outcome) {
    println!(
        "| {} | {:.1} % | {:.1} % | {:.3} | {:.2} / {:.2} | {:.4} |",
        scenario.name,
        100.0 * outcome.admitted,
        100.0 * outcome.busiest,
        outcome.calls,
        outcome.least,
        outcome.mean,
        outcome.jain
    );
}

fn scenarios(instances: usize, destinations: usize, rate: u32, burst: u32) -> Vec<Scenario> {
    let scenario = |name, mix, has_outage| Scenario {
        name,
        instances,
        destinations,
        rate,
        burst,
        mix,
        has_outage,
    };
    vec![
        scenario("all busy", Mix::AllBusy, false),
        scenario("a tenth busy", Mix::TenthBusy, false),
        scenario("demand by Zipf", Mix::Zipf, false),
        scenario("all calm, half of the limit", Mix::Calm, false),
        scenario("all busy, the store away for 10 s", Mix::AllBusy, true),
    ]
}

#[test]
fn small_fleets_keep_their_quota_cheaply_and_fairly() {
    for scenario in scenarios(50, 2, 500, 50) {
        let outcome = scenario.run();
        print(&scenario, &outcome);
        let is_calm = matches!(scenario.mix, Mix::Calm);
        let expected = if is_calm { 0.48..0.52 } else { 0.95..1.02 };
        assert!(
            expected.contains(&outcome.admitted),
            "{}: {}",
            scenario.name,
            outcome.admitted
        );
        assert!(outcome.busiest < 1.1, "{}: {}", scenario.name, outcome.busiest);
        assert!(outcome.calls < 1.0, "{}: {}", scenario.name, outcome.calls);
        assert!(outcome.least > 0.5, "{}: {}", scenario.name, outcome.least);
        assert!(outcome.jain > 0.95, "{}: {}", scenario.name, outcome.jain);
    }
}

#[test]
#[ignore = "takes minutes: the large fleets of docs/fleets.md"]
fn large_fleets_for_the_table() {
    for (instances, destinations, rate, burst) in [(1000, 100, 1000, 1000), (100, 10, 1000, 100)] {
        println!("{instances} instances, {destinations} destinations, each {rate}/s burst {burst}");
        for scenario in scenarios(instances, destinations, rate, burst) {
            let begin = std::time::Instant::now();
            print(&scenario, &scenario.run());
            eprintln!("{} s", begin.elapsed().as_secs());
        }
    }
}

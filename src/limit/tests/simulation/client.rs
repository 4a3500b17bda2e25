//! The client: a schedule that does not depend on the answers, played alone and beside outrider.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until};

use super::BEGIN;
use super::adapter::{self, Request};
use super::reporting::Reporting;
use super::service::{Figures, Limit, Model, Service};
use crate::config::OnLimit;
use crate::limit::chance::simulated;

const BURST: usize = 15;

const ITEMS: [&str; 4] = ["/items/1", "/items/2", "/items/3", "/items/4"];

/// A request, and how long it is on its way, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    at: u64,
    there: u64,
    back: u64,
    pub(super) request: Request,
}

/// The result of a schedule.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// When the service allowed a request, in order.
    passed: Vec<u64>,
    /// Refused by the service.
    pub(super) refused: u64,
    /// Requests never sent: refused by the limiter, or held back by the obedient client.
    pub(super) own: u64,
}

/// When the client sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Demand {
    /// A burst of 15, then evenly with some jitter, so many times what is allowed.
    Steady(f64),
    /// A burst of 15 every 20 seconds, nothing between them.
    Bursts,
    /// A burst of 15 and nothing more.
    First,
}

impl Demand {
    pub(super) fn name(self) -> String {
        match self {
            Self::Steady(part) => part.to_string(),
            Self::Bursts => "bursts".to_owned(),
            Self::First => "first".to_owned(),
        }
    }
}

/// With several counters, two thirds of the requests use the first.
pub(super) fn schedule(model: Model, limit: Limit, demand: Demand, many_routes: bool) -> Vec<Sending> {
    let mut random = StdRng::seed_from_u64(5);
    let mut requests = Vec::new();
    let even = limit.window as f64 / (limit.count * model.counters()) as f64;
    let mut at = 0.0;
    while at < limit.duration as f64 {
        let own = [0, 0, 0, 0, 1, 2][random.random_range(0..6)];
        let route = ["/search", ITEMS[random.random_range(0..ITEMS.len())], "/orders/7"][own];
        let of = |names: [&'static str; 3], is_apart: bool| if is_apart { names[own] } else { names[0] };
        let is_routed = many_routes || matches!(model, Model::PerRoute | Model::OneCounter);
        requests.push(Sending {
            at: at as u64,
            there: random.random_range(1..=20),
            back: random.random_range(1..=20),
            request: Request {
                path: if is_routed { route } else { ITEMS[0] },
                host: of(
                    ["a.pages.test", "b.pages.test", "c.pages.test"],
                    model == Model::PerHost,
                ),
                user: of(["Bearer a", "Bearer b", "Bearer c"], model == Model::PerUser),
            },
        });
        at += match demand {
            _ if !requests.len().is_multiple_of(BURST) && demand == Demand::Bursts => 0.0,
            _ if requests.len() < BURST => 0.0,
            Demand::Steady(part) => even / part * random.random_range(0.5..1.5),
            Demand::Bursts => 20_000.0,
            Demand::First => break,
        };
    }
    requests
}

/// What a client without outrider obeys: it sends nothing to a counter for the time stated there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obeys {
    Nothing,
    RetryAfter,
    /// `Retry-After`, and the reset of an allowed answer after which nothing is left.
    Reset,
}

/// Sends everything at its time.
pub(super) fn alone(schedule: &[Sending], mut service: Service, reporting: Reporting, obeys: Obeys) -> Tally {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Event {
        Sends,
        Arrives,
        Answered(u64),
    }
    let mut tally = Tally::default();
    let mut pauses: HashMap<&str, u64> = HashMap::new();
    let sends = schedule.iter().enumerate();
    let mut events: BinaryHeap<_> =
        (sends.map(|(index, sending)| Reverse((sending.at, index, Event::Sends)))).collect();
    while let Some(Reverse((now, index, event))) = events.pop() {
        let Sending {
            there, back, request, ..
        } = &schedule[index];
        let counter = service.counter(request);
        match event {
            Event::Sends if pauses.get(counter).is_some_and(|until| now < *until) => tally.own += 1,
            Event::Sends => events.push(Reverse((now + there, index, Event::Arrives))),
            Event::Arrives => {
                let figures = service.ask(request, now);
                tally.count(&figures, now);
                let answered = now + figures.takes + back;
                let pause = match obeys {
                    Obeys::Nothing => None,
                    Obeys::Reset if figures.is_allowed() => reporting.exhausted(&figures, BEGIN + now),
                    Obeys::RetryAfter | Obeys::Reset => reporting.retry_after(&figures),
                };
                if let Some(pause) = pause {
                    events.push(Reverse((
                        answered,
                        index,
                        Event::Answered(answered + pause * 1000),
                    )));
                }
            }
            Event::Answered(until) => {
                let pause = pauses.entry(counter).or_default();
                *pause = until.max(*pause);
            }
        }
    }
    tally
}

/// Sends everything at its time through a limiter that knows nothing yet; it learns if it `respects` the
/// upstream.
pub(super) fn beside(
    schedule: &[Sending],
    service: Service,
    reporting: Reporting,
    on_limit: OnLimit,
    respects: bool,
) -> Tally {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let local = LocalSet::new();
    let tally = Rc::new(RefCell::new(Tally::default()));
    local.block_on(&runtime, async {
        let (begin, service) = (Instant::now(), Rc::new(RefCell::new(service)));
        simulated::begin(UNIX_EPOCH + Duration::from_millis(BEGIN));
        let limiter = adapter::limiter(on_limit, respects);
        let now = move || begin.elapsed().as_millis() as u64;
        let mut tasks = Vec::new();
        for sending in schedule.iter().copied() {
            sleep_until(begin + Duration::from_millis(sending.at)).await;
            let (limiter, service, tally) = (limiter.clone(), Rc::clone(&service), Rc::clone(&tally));
            tasks.push(spawn_local(async move {
                let Ok(permit) = adapter::admit(&limiter, &sending.request).await else {
                    tally.borrow_mut().own += 1;
                    return;
                };
                sleep(Duration::from_millis(sending.there)).await;
                let figures = service.borrow_mut().ask(&sending.request, now());
                tally.borrow_mut().count(&figures, now());
                sleep(Duration::from_millis(figures.takes)).await;
                let fields = reporting.fields(&figures, BEGIN + now());
                sleep(Duration::from_millis(sending.back)).await;
                adapter::learn(&permit, &sending.request, figures.status, &fields);
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    simulated::end();
    Rc::try_unwrap(tally).unwrap().into_inner()
}

impl Tally {
    pub(super) fn passed(&self) -> u64 {
        self.passed.len() as u64
    }

    /// Returns the longest time without a passed request, in milliseconds, at least until `end`.
    pub(super) fn silence(&self, end: u64) -> u64 {
        let ends = self.passed.iter().copied().chain([end]);
        let starts = std::iter::once(0).chain(self.passed.iter().copied());
        (starts.zip(ends).map(|(from, to)| to.saturating_sub(from)))
            .max()
            .unwrap_or_default()
    }

    fn count(&mut self, figures: &Figures, now: u64) {
        if figures.is_allowed() {
            self.passed.push(now)
        } else {
            self.refused += 1
        }
    }
}

use std::future::Future;
use std::pin::Pin;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::timeout;

use super::*;
use crate::units::Rate;

const SECOND: Duration = Duration::from_secs(1);

fn rate(count: u32, seconds: u64, burst: u32) -> RateLimit {
    let rate = Rate {
        count,
        per: Duration::from_secs(seconds),
        burst,
    };
    RateLimit {
        rate,
        method: None,
        path: None,
    }
}

fn limiter(on_limit: OnLimit, concurrency: Option<u32>, rate_limits: Vec<RateLimit>) -> Arc<Limiter> {
    let settings = Settings {
        concurrency,
        on_limit,
        rate_limits,
    };
    Limits::default().with(&"search".into(), settings, &Telemetry::new())
}

fn wait(seconds: u64) -> OnLimit {
    OnLimit::Wait(Duration::from_secs(seconds))
}

async fn get(limiter: &Arc<Limiter>) -> Result<Permit, Refusal> {
    limiter.admit(&Method::GET, "/").await
}

type Pending<'f, T> = Pin<Box<dyn Future<Output = T> + 'f>>;

/// Starts the future and shows that it has to wait.
async fn queued<'f, T: std::fmt::Debug>(future: impl Future<Output = T> + 'f) -> Pending<'f, T> {
    let mut future: Pending<'f, T> = Box::pin(future);
    let early = timeout(Duration::ZERO, &mut future).await;
    assert!(early.is_err(), "did not wait: {early:?}");
    future
}

#[tokio::test(start_paused = true)]
async fn a_burst_passes_then_the_rate_holds() {
    let limiter = limiter(wait(10), None, vec![rate(2, 1, 3)]);
    let start = Instant::now();
    let mut times = Vec::new();
    for _ in 0..6 {
        get(&limiter).await.unwrap();
        times.push(start.elapsed().as_millis());
    }
    // A timer is a millisecond late at most.
    for (time, expected) in times.iter().zip([0, 0, 0, 500, 1000, 1500]) {
        assert!((expected..expected + 5).contains(time), "{times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn waiters_go_in_order_of_arrival() {
    let limiter = limiter(wait(60), None, vec![rate(1, 1, 1)]);
    get(&limiter).await.unwrap();
    let order = Mutex::new(Vec::new());
    let one = |n: u32| {
        let (limiter, order) = (&limiter, &order);
        async move {
            let permit = get(limiter).await.unwrap();
            order.lock().unwrap().push((n, permit.waited().as_secs()));
        }
    };
    tokio::join!(one(1), one(2), one(3), one(4));
    assert_eq!(*order.lock().unwrap(), [(1, 1), (2, 2), (3, 3), (4, 4)]);
}

#[tokio::test(start_paused = true)]
async fn a_later_request_does_not_overtake_a_waiting_one() {
    let limiter = limiter(wait(60), None, vec![rate(1, 1, 1)]);
    get(&limiter).await.unwrap();
    let first = queued(get(&limiter)).await;
    // The bucket lets one through now, and it is the first one's.
    tokio::time::advance(SECOND).await;
    let second = queued(get(&limiter)).await;
    assert_eq!(first.await.unwrap().waited().as_secs(), 1);
    assert_eq!(second.await.unwrap().waited().as_millis() / 100, 10);
}

#[tokio::test(start_paused = true)]
async fn a_wait_longer_than_allowed_is_refused_at_once() {
    let limiter = limiter(wait(2), None, vec![rate(1, 1, 1)]);
    let start = Instant::now();
    get(&limiter).await.unwrap();
    let _first = queued(get(&limiter)).await;
    let _second = queued(get(&limiter)).await;
    let refusal = get(&limiter).await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(
        (&*refusal.limit, refusal.retry_after, refusal.seconds()),
        ("1/s", 3 * SECOND, 3)
    );
}

#[tokio::test(start_paused = true)]
async fn reject_never_waits_and_tells_the_true_time() {
    let limiter = limiter(OnLimit::Reject, None, vec![rate(30, 60, 1)]);
    get(&limiter).await.unwrap();
    tokio::time::advance(Duration::from_millis(500)).await;
    let refusal = get(&limiter).await.unwrap_err();
    assert_eq!(
        (refusal.retry_after, refusal.seconds()),
        (Duration::from_millis(1500), 2)
    );
    tokio::time::advance(refusal.retry_after).await;
    get(&limiter).await.unwrap();
}

/// An app that goes away does not burn quota: those behind move up.
#[tokio::test(start_paused = true)]
async fn a_waiter_that_gives_up_makes_room() {
    let limiter = limiter(wait(3), None, vec![rate(1, 1, 1)]);
    get(&limiter).await.unwrap();
    let first = queued(get(&limiter)).await;
    let second = queued(get(&limiter)).await;
    let third = queued(get(&limiter)).await;
    assert!(get(&limiter).await.is_err());
    drop(first);
    let fourth = queued(get(&limiter)).await;
    drop(third);
    let start = Instant::now();
    second.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 1);
    fourth.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 2);
}

/// The future is dropped after it was admitted and before it could tell.
#[tokio::test(start_paused = true)]
async fn what_an_admitted_waiter_took_comes_back_when_it_is_dropped() {
    let limiter = limiter(wait(30), Some(1), vec![rate(1, 60, 2)]);
    let permit = get(&limiter).await.unwrap();
    let waiting = queued(get(&limiter)).await;
    drop(permit);
    assert_eq!(limiter.book().slots_taken(), 1, "the waiter was admitted");
    drop(waiting);
    assert_eq!(limiter.book().slots_taken(), 0);
    get(&limiter).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_takes_from_all_limits_or_from_none() {
    let limiter = limiter(OnLimit::Reject, Some(5), vec![rate(10, 1, 10), rate(1, 60, 1)]);
    let _permit = get(&limiter).await.unwrap();
    for _ in 0..20 {
        let refusal = get(&limiter).await.unwrap_err();
        assert_eq!(&*refusal.limit, "1/m");
    }
    let book = limiter.book();
    assert_eq!(book.rate_left(&limiter.rules, 0, 0), 0.9);
    assert_eq!(book.slots_taken(), 1);
}

#[tokio::test(start_paused = true)]
async fn slots_are_freed_in_order_of_arrival() {
    let limiter = limiter(wait(5), Some(2), vec![]);
    let first = get(&limiter).await.unwrap();
    let second = get(&limiter).await.unwrap();
    let third = queued(get(&limiter)).await;
    let fourth = queued(get(&limiter)).await;
    drop(first);
    let fourth = queued(fourth).await;
    let third = third.await.unwrap();
    drop(second);
    fourth.await.unwrap();
    drop(third);
    assert_eq!(limiter.book().slots_taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_waited_for_no_longer_than_allowed() {
    let limiter = limiter(wait(5), Some(1), vec![]);
    let start = Instant::now();
    let _held = get(&limiter).await.unwrap();
    let refusal = get(&limiter).await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!((&*refusal.limit, refusal.seconds()), ("concurrency", 1));
    assert!(
        get(&limiter).await.is_err(),
        "the queue is empty again, the slot still taken"
    );
}

#[tokio::test(start_paused = true)]
async fn reject_refuses_when_every_slot_is_taken() {
    let limiter = limiter(OnLimit::Reject, Some(1), vec![]);
    let held = get(&limiter).await.unwrap();
    assert_eq!(&*get(&limiter).await.unwrap_err().limit, "concurrency");
    drop(held);
    get(&limiter).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rate_of_zero_denies_however_long_one_would_wait() {
    for on_limit in [OnLimit::Reject, OnLimit::Wait(Duration::MAX)] {
        let limiter = limiter(on_limit, None, vec![rate(0, 60, 1)]);
        let refusal = get(&limiter).await.unwrap_err();
        assert_eq!((&*refusal.limit, refusal.seconds()), ("0/m", 60));
    }
}

#[tokio::test(start_paused = true)]
async fn a_boundless_patience_does_not_overflow_the_clock() {
    let limiter = limiter(OnLimit::Wait(Duration::MAX), Some(1), vec![]);
    let held = get(&limiter).await.unwrap();
    let waiting = queued(get(&limiter)).await;
    tokio::time::advance(Duration::from_secs(200_000)).await;
    let waiting = queued(waiting).await;
    drop(held);
    assert_eq!(waiting.await.unwrap().waited().as_secs(), 200_000);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded() {
    let limiter = limiter(wait(5), Some(1), vec![]);
    let _held = get(&limiter).await.unwrap();
    let mut waiting = Vec::new();
    for _ in 0..1000 {
        waiting.push(queued(get(&limiter)).await);
    }
    assert_eq!(&*get(&limiter).await.unwrap_err().limit, "concurrency");
    waiting.pop();
    queued(get(&limiter)).await;
}

fn matching(mut limit: RateLimit, method: Option<Method>, path: Option<&str>) -> RateLimit {
    limit.method = method;
    limit.path = path.map(str::to_owned);
    limit
}

#[tokio::test(start_paused = true)]
async fn a_rate_with_a_match_concerns_only_what_matches() {
    let reindex = matching(rate(1, 60, 1), Some(Method::POST), Some("/api/reindex"));
    let limiter = limiter(OnLimit::Reject, None, vec![reindex]);
    limiter.admit(&Method::POST, "/api/reindex").await.unwrap();
    let refusal = limiter.admit(&Method::POST, "/api/%72eindex").await.unwrap_err();
    assert_eq!(&*refusal.limit, "1/m POST /api/reindex");
    for (method, path) in [
        (Method::GET, "/api/reindex"),
        (Method::POST, "/api"),
        (Method::CONNECT, ""),
    ] {
        limiter.admit(&method, path).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_share_no_limit_do_not_hold_each_other_up() {
    let post = matching(rate(1, 1, 1), Some(Method::POST), None);
    let read = matching(rate(1, 1, 1), Some(Method::GET), None);
    let limiter = limiter(wait(9), None, vec![post, read]);
    limiter.admit(&Method::POST, "/").await.unwrap();
    let waiting = queued(limiter.admit(&Method::POST, "/")).await;
    get(&limiter).await.unwrap();
    waiting.await.unwrap();
}

/// Under `mode: tunnel` a permit lives as long as the tunnel.
#[tokio::test(start_paused = true)]
async fn tunnels_are_counted_like_requests() {
    let limiter = limiter(OnLimit::Reject, Some(1), vec![rate(10, 1, 10)]);
    let tunnel = limiter.admit(&Method::CONNECT, "").await.unwrap();
    tokio::time::advance(Duration::from_secs(86_400)).await;
    assert!(limiter.admit(&Method::CONNECT, "").await.is_err());
    drop(tunnel);
    limiter.admit(&Method::CONNECT, "").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_limits_everything_passes() {
    let limiter = limiter(OnLimit::Reject, None, vec![]);
    assert!(limiter.is_unlimited());
    for _ in 0..10_000 {
        assert_eq!(get(&limiter).await.unwrap().waited(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_the_state_of_equal_settings_only() {
    let limits = Limits::default();
    let telemetry = Telemetry::new();
    let settings = |concurrency| Settings {
        concurrency,
        on_limit: wait(1),
        rate_limits: vec![rate(1, 60, 1)],
    };
    let before = limits.with(&"a".into(), settings(None), &telemetry);
    assert!(Arc::ptr_eq(
        &before,
        &limits.with(&"a".into(), settings(None), &telemetry)
    ));
    assert!(!Arc::ptr_eq(
        &before,
        &limits.with(&"b".into(), settings(None), &telemetry)
    ));
    let after = limits.with(&"a".into(), settings(Some(1)), &telemetry);
    assert!(!Arc::ptr_eq(&before, &after));
    assert!(Arc::ptr_eq(
        &after,
        &limits.with(&"a".into(), settings(Some(1)), &telemetry)
    ));
}

#[tokio::test(start_paused = true)]
async fn waits_and_refusals_are_counted() {
    let telemetry = Telemetry::new();
    let limits = Limits::default();
    let settings = Settings {
        concurrency: Some(2),
        on_limit: wait(1),
        rate_limits: vec![rate(2, 1, 2)],
    };
    let limiter = limits.with(&"search".into(), settings, &telemetry);
    let page = || {
        limits.observe();
        String::from_utf8(telemetry.render()).unwrap()
    };
    let shows = |line: &str| {
        assert!(
            page().lines().any(|own| own == line),
            "{line} is not in\n{}",
            page()
        )
    };

    shows("outrider_limit_remaining_ratio{destination=\"search\",limit=\"2/s\"} 1");
    let held = get(&limiter).await.unwrap();
    shows("outrider_limit_remaining_ratio{destination=\"search\",limit=\"2/s\"} 0.5");
    shows("outrider_limit_remaining_ratio{destination=\"search\",limit=\"concurrency\"} 0.5");
    get(&limiter).await.unwrap();
    let waiting = queued(get(&limiter)).await;
    shows("outrider_limit_waiting{destination=\"search\"} 1");
    shows("outrider_limit_remaining_ratio{destination=\"search\",limit=\"2/s\"} 0");
    waiting.await.unwrap();
    shows("outrider_limit_waiting{destination=\"search\"} 0");
    shows("outrider_limit_wait_seconds_count{destination=\"search\"} 1");
    let _second = get(&limiter).await.unwrap();
    assert!(get(&limiter).await.is_err());
    shows("outrider_limit_refused_total{destination=\"search\",limit=\"concurrency\"} 1");
    drop(held);
    tokio::time::advance(60 * SECOND).await;
    shows("outrider_limit_remaining_ratio{destination=\"search\",limit=\"2/s\"} 1");
}

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
                self.book.release(&self.rules, self.now);
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

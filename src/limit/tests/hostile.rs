//! Random runs against an upstream that may say anything. No request waits longer than it may, no reported quota
//! is exceeded, and at the end nothing is left behind.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use http::{HeaderName, HeaderValue, StatusCode};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::LocalSet;
use tokio::time::sleep;

use super::*;
use crate::config::{Class, Matcher, Priority};
use crate::message::Fields;
use crate::path::PathGlob;

/// The value with which a handler panics here.
struct Tested;

/// What one run has seen.
struct Life {
    /// How many requests the upstream allows in each window, and how many it has answered in this one.
    limit: u64,
    used: Cell<u64>,
    window: Duration,
    started: Cell<Instant>,
    random: RefCell<StdRng>,
    refused: Cell<u32>,
    went: RefCell<Vec<Instant>>,
}

impl Life {
    fn below(&self, most: u64) -> u64 {
        self.random.borrow_mut().random_range(0..most)
    }

    /// Answers truthfully or with nonsense, with a status to match.
    fn answer(&self, is_honest: bool) -> (StatusCode, Fields) {
        if self.started.get().elapsed() >= self.window {
            self.started.set(Instant::now());
            self.used.set(0);
        }
        let is_refused = self.used.get() >= self.limit;
        if is_refused {
            self.refused.set(self.refused.get() + 1);
        } else {
            self.used.set(self.used.get() + 1);
        }
        let reset = (self.window - self.started.get().elapsed()).as_secs_f64().ceil();
        let mut fields = Fields::new();
        let mut say = |name: &'static str, value: String| {
            fields.insert(
                HeaderName::from_static(name),
                HeaderValue::from_str(&value).unwrap(),
            );
        };
        if is_honest {
            say("x-ratelimit-limit", self.limit.to_string());
            say(
                "x-ratelimit-remaining",
                (self.limit - self.used.get()).to_string(),
            );
            say("x-ratelimit-reset", reset.to_string());
        } else {
            let nonsense = ["NaN", "-1", "0", "1", "3", "99999999999999999999", "", "1;2"];
            let any = || nonsense[self.below(nonsense.len() as u64) as usize].to_owned();
            for name in [
                "retry-after",
                "x-ratelimit-remaining",
                "x-ratelimit-reset",
                "ratelimit",
            ] {
                if self.below(4) == 0 {
                    say(name, any());
                }
            }
            say("x-ratelimit-resource", format!("r{}", self.below(20)));
        }
        let odd = [200, 404, 429, 503, 403][self.below(5) as usize];
        let status = match is_refused {
            true => StatusCode::TOO_MANY_REQUESTS,
            false if is_honest => StatusCode::OK,
            false => StatusCode::from_u16(odd).unwrap(),
        };
        (status, fields)
    }
}

async fn live(seed: u64, is_honest: bool) {
    let mut random = StdRng::seed_from_u64(seed);
    let max_wait = Duration::from_millis(random.random_range(0..20_000));
    let concurrency = random.random_bool(0.5).then(|| random.random_range(1..6));
    let rates = if random.random_bool(0.5) {
        vec![rate(random.random_range(1..20), 1, random.random_range(1..10))]
    } else {
        Vec::new()
    };
    let priority = |class, path: &str| Priority {
        class,
        matcher: Matcher {
            method: None,
            path: Some(PathGlob::parse(path).unwrap()),
        },
    };
    let waits = random.random_bool(0.8);
    let limiter = with(Settings {
        concurrency,
        priorities: vec![priority(Class::High, "/a/**"), priority(Class::Low, "/b/**")],
        queue: random.random_range(1..60),
        rate_limits: rates.clone(),
        respect_upstream: true,
        ..settings(if waits {
            OnLimit::Wait(max_wait)
        } else {
            OnLimit::Reject
        })
    });
    let life = Rc::new(Life {
        limit: random.random_range(1..30),
        used: Cell::new(0),
        window: Duration::from_secs(random.random_range(1..5)),
        started: Cell::new(Instant::now()),
        random: RefCell::new(random),
        refused: Cell::new(0),
        went: RefCell::new(Vec::new()),
    });
    let local = LocalSet::new();
    let mut handlers = Vec::new();
    for _ in 0..80 {
        let (limiter, life) = (Arc::clone(&limiter), Rc::clone(&life));
        let handler = local.spawn_local(async move {
            sleep(Duration::from_millis(life.below(6000))).await;
            let path = ["/a/x", "/b/y", "/c/z", "/a/y"][life.below(4) as usize];
            let method = match life.below(8) {
                0 => Method::CONNECT,
                1 | 2 => Method::POST,
                _ => Method::GET,
            };
            let deadline = (life.below(3) == 0).then(|| Duration::from_millis(life.below(5000)));
            let most = if waits { max_wait } else { SECOND };
            let allowed = deadline.map_or(most, |deadline| deadline.min(most));
            let leaves = Duration::from_millis(life.below(30_000));
            let arrived = Instant::now();
            let asked = timeout(leaves, limiter.admit(bench::request(&method, path), || deadline)).await;
            let waited = arrived.elapsed();
            let bound = allowed + Duration::from_millis(2);
            assert!(waited <= bound, "seed {seed}: waited {waited:?} of {allowed:?}");
            let Ok(Ok(permit)) = asked else { return };
            assert!(permit.waited() <= bound, "seed {seed}");
            life.went.borrow_mut().push(Instant::now());
            if method == Method::CONNECT {
                return sleep(Duration::from_millis(life.below(3000))).await;
            }
            let fate = life.below(if is_honest { 1 } else { 12 });
            sleep(Duration::from_millis(life.below(300))).await;
            if fate == 11 {
                return;
            }
            let (status, fields) = life.answer(is_honest);
            sleep(Duration::from_millis(life.below(300))).await;
            permit.learn(status, &fields, bench::request(&method, path));
            if fate == 10 {
                // Panics without a message.
                std::panic::resume_unwind(Box::new(Tested));
            }
            sleep(Duration::from_millis(life.below(400))).await;
        });
        handlers.push(handler);
    }
    local.await;
    for handler in handlers {
        if let Err(error) = handler.await {
            let panic = error.into_panic();
            if !panic.is::<Tested>() {
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(!limiter.state().has_waiters(), "seed {seed}");
    assert_eq!(limiter.state().slots_taken(), 0, "seed {seed}");
    assert_eq!(limiter.under_way(), 0, "seed {seed}");
    let went = life.went.borrow().clone();
    for RateLimit { rate, .. } in &rates {
        for (index, first) in went.iter().enumerate() {
            let within = went[index..]
                .iter()
                .filter(|time| **time - *first < rate.per)
                .count();
            let most = rate.count + rate.burst;
            assert!(
                within as u32 <= most,
                "seed {seed}: {within} in a second of {rate}"
            );
        }
    }
    if is_honest {
        // Only what cannot be known: requests in flight before the first answer, and that a route shares the
        // counter of another one.
        let refused = life.refused.get();
        assert!(refused <= 20, "seed {seed}: {refused} refused of {}", went.len());
    }
    // Whatever was learned, the destination is not shut for ever: the longest pause is an hour.
    tokio::time::advance(Duration::from_secs(7300)).await;
    let method = Method::GET;
    let after = limiter.admit(bench::request(&method, "/a/x"), || None).await;
    assert!(after.is_ok(), "seed {seed}: {after:?}");
}

fn play(seeds: std::ops::Range<u64>, is_honest: bool) {
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(live(seed, is_honest));
    }
}

#[test]
fn whatever_an_upstream_says_nobody_waits_too_long_and_nothing_leaks() {
    play(0..150, false);
}

#[test]
fn an_honest_upstream_refuses_next_to_nothing() {
    play(0..150, true);
}

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::timeout;

use http::Method;
use tokio::time::Instant;

use super::bucket::RateBucket;
use super::*;
use crate::config::Matcher;
use crate::path::PathGlob;
use crate::units::Rate;

mod hostile;
mod learned;
mod order;
mod schedule;
mod simulation;
mod slow_start;
mod whom;

const SECOND: Duration = Duration::from_secs(1);

fn rate(count: u32, seconds: u64, burst: u32) -> RateLimit {
    let rate = Rate {
        count,
        per: Duration::from_secs(seconds),
        burst,
    };
    RateLimit {
        rate,
        matcher: Matcher::default(),
    }
}

fn limiter(on_limit: OnLimit, concurrency: Option<u32>, rate_limits: Vec<RateLimit>) -> Arc<Limiter> {
    with(Settings {
        concurrency,
        rate_limits,
        ..settings(on_limit)
    })
}

fn settings(on_limit: OnLimit) -> Settings {
    Settings {
        applies_to: AppliesTo::Auto,
        sharing: None,
        concurrency: None,
        instances: 1,
        member: None,
        on_limit,
        priorities: Vec::new(),
        queue: 1000,
        rate_limits: Vec::new(),
        respect_upstream: false,
    }
}

fn with(settings: Settings) -> Arc<Limiter> {
    Limiters::default().with(&"search".into(), settings, &Telemetry::new())
}

fn wait(seconds: u64) -> OnLimit {
    OnLimit::Wait(Duration::from_secs(seconds))
}

async fn get(limiter: &Arc<Limiter>) -> Result<Permit, Refusal> {
    limiter.admit(bench::request(&Method::GET, "/"), || None).await
}

type Pending<'f, T> = Pin<Box<dyn Future<Output = T> + 'f>>;

/// Polls the future once and asserts that it has to wait.
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
    // A timer is up to a millisecond late.
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
    // The bucket lets one request through now: the first one.
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

/// An app that goes away does not use up quota: the requests behind it move up.
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

/// The future is dropped after the request was admitted and before the future is polled again.
#[tokio::test(start_paused = true)]
async fn what_an_admitted_waiter_took_comes_back_when_it_is_dropped() {
    let limiter = limiter(wait(30), Some(1), vec![rate(1, 60, 2)]);
    let permit = get(&limiter).await.unwrap();
    let waiting = queued(get(&limiter)).await;
    drop(permit);
    assert_eq!(limiter.state().slots_taken(), 1, "the waiter was admitted");
    drop(waiting);
    assert_eq!(limiter.state().slots_taken(), 0);
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
    let state = limiter.state();
    assert_eq!(state.rate_left(&limiter.rules, 0, 0), 0.9);
    assert_eq!(state.slots_taken(), 1);
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
    assert_eq!(limiter.state().slots_taken(), 0);
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
    let _place = queued(get(&limiter)).await;
}

/// Without a store, each of several instances takes its share. The label stays as it was written.
#[tokio::test(start_paused = true)]
async fn instances_divide_a_rate() {
    let limiter = with(Settings {
        instances: 4,
        rate_limits: vec![rate(2, 1, 8)],
        ..settings(wait(60))
    });
    let start = Instant::now();
    let mut times = Vec::new();
    for _ in 0..4 {
        get(&limiter).await.unwrap();
        times.push(start.elapsed().as_secs());
    }
    assert_eq!(times, [0, 0, 2, 4]);
    assert_eq!(&*limiter.rates[0].info.label, "2/s burst 8");
}

/// What a store leases goes to waiting requests at once.
#[tokio::test(start_paused = true)]
async fn what_comes_from_outside_lets_the_first_go() {
    let limiter = limiter(wait(600), None, vec![rate(1, 60, 1), rate(100, 1, 100)]);
    get(&limiter).await.unwrap();
    let first = queued(get(&limiter)).await;
    let second = queued(get(&limiter)).await;
    let start = Instant::now();
    limiter.granted(0, |bucket| *bucket = RateBucket::local(limiter.rules.rates[0]));
    first.await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    let _second = queued(second).await;
}

fn matching(mut limit: RateLimit, method: Option<Method>, path: Option<&str>) -> RateLimit {
    limit.matcher = Matcher {
        method,
        path: path.map(|path| PathGlob::parse(path).unwrap()),
    };
    limit
}

#[tokio::test(start_paused = true)]
async fn a_rate_with_a_match_concerns_only_what_matches() {
    let reindex = matching(rate(1, 60, 1), Some(Method::POST), Some("/api/reindex"));
    let limiter = limiter(OnLimit::Reject, None, vec![reindex]);
    limiter
        .admit(bench::request(&Method::POST, "/api/reindex"), || None)
        .await
        .unwrap();
    let refusal = limiter
        .admit(bench::request(&Method::POST, "/api/%72eindex"), || None)
        .await
        .unwrap_err();
    assert_eq!(&*refusal.limit, "1/m POST /api/reindex");
    for (method, path) in [
        (Method::GET, "/api/reindex"),
        (Method::POST, "/api"),
        (Method::CONNECT, ""),
    ] {
        limiter
            .admit(bench::request(&method, path), || None)
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_share_no_limit_do_not_hold_each_other_up() {
    let post = matching(rate(1, 1, 1), Some(Method::POST), None);
    let read = matching(rate(1, 1, 1), Some(Method::GET), None);
    let limiter = limiter(wait(9), None, vec![post, read]);
    limiter
        .admit(bench::request(&Method::POST, "/"), || None)
        .await
        .unwrap();
    let waiting = queued(limiter.admit(bench::request(&Method::POST, "/"), || None)).await;
    get(&limiter).await.unwrap();
    waiting.await.unwrap();
}

/// Under `mode: tunnel` a permit lives as long as the tunnel.
#[tokio::test(start_paused = true)]
async fn tunnels_are_counted_like_requests() {
    let limiter = limiter(OnLimit::Reject, Some(1), vec![rate(10, 1, 10)]);
    let tunnel = limiter
        .admit(bench::request(&Method::CONNECT, ""), || None)
        .await
        .unwrap();
    tokio::time::advance(Duration::from_secs(86_400)).await;
    assert!(
        limiter
            .admit(bench::request(&Method::CONNECT, ""), || None)
            .await
            .is_err()
    );
    drop(tunnel);
    limiter
        .admit(bench::request(&Method::CONNECT, ""), || None)
        .await
        .unwrap();
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
    let limits = Limiters::default();
    let telemetry = Telemetry::new();
    let settings = |concurrency| Settings {
        concurrency,
        rate_limits: vec![rate(1, 60, 1)],
        ..settings(wait(1))
    };
    let before = limits.with(&"a".into(), settings(None), &telemetry);
    limits.hold([], [Arc::clone(&before)]);
    assert!(Arc::ptr_eq(
        &before,
        &limits.with(&"a".into(), settings(None), &telemetry)
    ));
    assert!(!Arc::ptr_eq(
        &before,
        &limits.with(&"b".into(), settings(None), &telemetry)
    ));
    let after = limits.with(&"a".into(), settings(Some(1)), &telemetry);
    let refused = limits.with(&"a".into(), settings(None), &telemetry);
    assert!(Arc::ptr_eq(&before, &refused), "what is not used changes nothing");
    limits.hold([], [Arc::clone(&after)]);
    assert!(!Arc::ptr_eq(&before, &after));
    assert!(Arc::ptr_eq(
        &after,
        &limits.with(&"a".into(), settings(Some(1)), &telemetry)
    ));
}

/// In a store, it would go on announcing that it is there.
#[tokio::test(start_paused = true)]
async fn the_limiter_of_a_destination_that_is_gone_is_forgotten() {
    let limits = Limiters::default();
    let telemetry = Telemetry::new();
    let both = ["a", "b"].map(|name| limits.with(&name.into(), settings(wait(1)), &telemetry));
    let [stays, goes] = [&both[0], &both[1]].map(Arc::downgrade);
    limits.hold([], both);
    limits.hold([], stays.upgrade());
    assert!(stays.upgrade().is_some() && goes.upgrade().is_none());
}

#[tokio::test(start_paused = true)]
async fn waits_and_refusals_are_counted() {
    let telemetry = Telemetry::new();
    let limits = Limiters::default();
    let settings = Settings {
        concurrency: Some(2),
        rate_limits: vec![rate(2, 1, 2)],
        ..settings(wait(1))
    };
    let limiter = limits.with(&"search".into(), settings, &telemetry);
    limits.hold([], [Arc::clone(&limiter)]);
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

    assert!(!page().contains("search"), "nobody has used it: {}", page());
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

/// Workers wake each other: a slot that one of them frees admits a waiter of another.
#[test]
fn waiters_of_several_workers_share_one_limiter() {
    let limiter = limiter(wait(60), Some(1), vec![rate(1000, 1, 1)]);
    let started = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .unwrap();
                let request = async || {
                    for _ in 0..10 {
                        let permit = get(&limiter).await.unwrap();
                        tokio::task::yield_now().await;
                        drop(permit);
                    }
                };
                runtime
                    .block_on(async { tokio::join!(request(), request(), request(), request(), request()) });
            });
        }
    });
    assert!(
        started.elapsed() >= Duration::from_millis(199),
        "200 requests at a thousand a second"
    );
    assert_eq!(limiter.state().slots_taken(), 0);
}

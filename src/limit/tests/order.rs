//! Which requests go first, and which are refused instead of queued.

use super::*;
use crate::config::{Class, Matcher, Priority};
use crate::path::PathGlob;

fn prioritised(on_limit: OnLimit, queue: usize, rate: RateLimit) -> Arc<Limiter> {
    let priority = |class, path: &str| Priority {
        class,
        matcher: Matcher {
            method: None,
            path: Some(PathGlob::parse(path).unwrap()),
        },
    };
    with(Settings {
        priorities: vec![
            priority(Class::High, "/page/**"),
            priority(Class::Low, "/batch/**"),
        ],
        queue,
        rate_limits: vec![rate],
        ..settings(on_limit)
    })
}

async fn ask(limiter: &Arc<Limiter>, path: &str) -> Result<Permit, Refusal> {
    limiter.admit(bench::request(&Method::GET, path), || None).await
}

#[tokio::test(start_paused = true)]
async fn high_goes_before_normal_and_normal_before_low() {
    let limiter = prioritised(wait(60), 1000, rate(1, 1, 1));
    get(&limiter).await.unwrap();
    let order = Mutex::new(Vec::new());
    let one = |path: &'static str| {
        let (limiter, order) = (&limiter, &order);
        async move {
            ask(limiter, path).await.unwrap();
            order.lock().unwrap().push(path);
        }
    };
    tokio::join!(
        one("/batch/1"),
        one("/1"),
        one("/page/1"),
        one("/batch/2"),
        one("/2"),
        one("/page/2"),
    );
    let expected = ["/page/1", "/page/2", "/1", "/2", "/batch/1", "/batch/2"];
    assert_eq!(*order.lock().unwrap(), expected);
}

/// One page view a second, at one request a second: without a bound the batch job would never go.
#[tokio::test(start_paused = true)]
async fn half_of_its_patience_is_the_longest_that_one_is_overtaken() {
    let limiter = prioritised(wait(20), 1000, rate(1, 1, 1));
    get(&limiter).await.unwrap();
    let mut batch = queued(ask(&limiter, "/batch/1")).await;
    let mut pages = Vec::new();
    let permit = loop {
        tokio::time::advance(Duration::from_millis(990)).await;
        pages.push(queued(ask(&limiter, "/page/1")).await);
        tokio::time::advance(Duration::from_millis(10)).await;
        if let Ok(permit) = timeout(Duration::ZERO, &mut batch).await {
            break permit.unwrap();
        }
    };
    let waited = permit.waited().as_secs();
    assert!((10..=11).contains(&waited), "{waited}");
}

/// A forecast without the waiters that will be promoted would keep a request waiting for nothing.
#[tokio::test(start_paused = true)]
async fn a_forecast_counts_those_who_will_have_moved_up() {
    let limiter = prioritised(wait(8), 1000, rate(1, 1, 1));
    get(&limiter).await.unwrap();
    let mut batch = Vec::new();
    for _ in 0..7 {
        batch.push(queued(ask(&limiter, "/batch/1")).await);
    }
    tokio::time::advance(Duration::from_millis(500)).await;
    // They are promoted at 4 s. Three page views go before that; the fourth would go after the whole batch: at 11
    // s.
    let mut pages = Vec::new();
    for _ in 0..3 {
        pages.push(queued(ask(&limiter, "/page/1")).await);
    }
    let refusal = ask(&limiter, "/page/1").await.unwrap_err();
    assert_eq!(refusal.retry_after, Duration::from_millis(10_500));
}

/// A batch job that fills the queue does not shut the page views out.
#[tokio::test(start_paused = true)]
async fn in_a_full_queue_the_last_of_a_lower_class_makes_room() {
    let limiter = prioritised(wait(60), 2, rate(1, 1, 1));
    get(&limiter).await.unwrap();
    let first = queued(ask(&limiter, "/batch/1")).await;
    let second = queued(ask(&limiter, "/batch/2")).await;
    let refusal = ask(&limiter, "/batch/3").await.unwrap_err();
    assert_eq!((&*refusal.limit, refusal.seconds()), ("1/s", 3));
    let page = queued(ask(&limiter, "/page/1")).await;
    let start = Instant::now();
    assert_eq!(&*second.await.unwrap_err().limit, "1/s");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(page.await.unwrap().waited().as_secs(), 1);
    assert_eq!(first.await.unwrap().waited().as_secs(), 2);
}

/// The displaced request is dropped before it learns of it.
#[tokio::test(start_paused = true)]
async fn who_made_room_and_left_takes_nothing_with_it() {
    let limiter = prioritised(wait(60), 1, rate(1, 1, 1));
    get(&limiter).await.unwrap();
    let batch = queued(ask(&limiter, "/batch/1")).await;
    let page = queued(ask(&limiter, "/page/1")).await;
    drop(batch);
    assert_eq!(page.await.unwrap().waited().as_secs(), 1);
    let next = queued(ask(&limiter, "/batch/1")).await;
    assert_eq!(next.await.unwrap().waited().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_will_not_wait_so_long_is_refused_at_once() {
    let limiter = prioritised(wait(60), 1000, rate(1, 10, 1));
    let start = Instant::now();
    let within = |seconds| {
        limiter.admit(bench::request(&Method::GET, "/"), move || {
            Some(Duration::from_secs(seconds))
        })
    };
    within(1).await.unwrap();
    let refusal = within(9).await.unwrap_err();
    assert_eq!(refusal.seconds(), 10);
    assert_eq!(start.elapsed(), Duration::ZERO);
    within(11).await.unwrap();
    // Longer than the configuration allows does not help.
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(queued(get(&limiter)).await);
    }
    assert!(within(1000).await.is_err());
}

/// The warm path does not read the client's deadline.
#[tokio::test(start_paused = true)]
async fn the_client_is_not_asked_where_nobody_waits() {
    let limiter = prioritised(wait(60), 1000, rate(1, 10, 1));
    limiter
        .admit(bench::request(&Method::GET, "/"), || unreachable!())
        .await
        .unwrap();
}

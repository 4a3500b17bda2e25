//! The slow start of a limiter that knows nothing of its upstream yet.

use http::StatusCode;

use super::learned::learning;
use super::*;

use crate::message::Fields;

#[tokio::test(start_paused = true)]
async fn a_request_behind_those_of_a_slow_start_is_refused_at_once() {
    let limiter = with(Settings {
        respect_upstream: true,
        rate_limits: vec![rate(5, 1, 1)],
        ..settings(wait(2))
    });
    let answered = |permit: Permit| {
        let request = bench::request(&Method::GET, "/");
        permit.learn(StatusCode::OK, &Fields::new(), request);
    };
    let start = Instant::now();
    let first = get(&limiter).await.unwrap();
    // Nothing is known of the service yet, so these wait for its first answer. By the rate, the last of them goes after
    // two seconds.
    let mut waiting = Vec::new();
    for _ in 0..10 {
        waiting.push(queued(get(&limiter)).await);
    }
    for number in 11..14 {
        let refusal = get(&limiter).await.unwrap_err();
        assert_eq!(start.elapsed(), Duration::ZERO, "request {number} waited in vain");
        assert_eq!(
            (&*refusal.limit, refusal.seconds()),
            ("5/s burst 1", 3),
            "request {number}"
        );
    }
    answered(first);
    for (number, waiting) in (1..).zip(waiting) {
        answered(waiting.await.unwrap());
        // A timer is up to a millisecond late.
        let late = start
            .elapsed()
            .checked_sub(Duration::from_millis(200 * number))
            .unwrap();
        assert!(
            late < Duration::from_millis(15),
            "request {number} went {late:?} late"
        );
    }
}

/// Nothing is known about the upstream yet. A request that cannot wait goes all the same, and none is refused.
#[tokio::test(start_paused = true)]
async fn at_the_beginning_nobody_is_kept_for_longer_than_a_second() {
    let limiter = learning(wait(1));
    let start = Instant::now();
    let mut permits = vec![get(&limiter).await.unwrap()];
    for _ in 0..50 {
        permits.push(get(&limiter).await.unwrap());
    }
    let took = start.elapsed();
    assert!(
        permits
            .iter()
            .all(|permit| permit.waited() <= Duration::from_millis(502))
    );
    assert!(took > Duration::from_millis(490), "{took:?}");
    let hurried = learning(wait(10));
    let _first = get(&hurried).await.unwrap();
    let now = hurried
        .admit(bench::request(&Method::GET, "/"), || Some(Duration::ZERO))
        .await
        .unwrap();
    assert_eq!(now.waited(), Duration::ZERO);
}

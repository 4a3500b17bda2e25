//! Which requests a limit holds that one caller learned on one route.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake};

use http::StatusCode;

use super::learned::{at_once, fields, learning};
use super::*;

/// Sends a request of a caller, and learns from the given answer. Returns false where the request was refused.
async fn called(limiter: &Arc<Limiter>, caller: u64, path: &str, status: u16, said: &[(&str, &str)]) -> bool {
    let caller = || Caller(caller);
    let asked = RequestAttributes {
        caller: &caller,
        ..bench::request(&Method::GET, path)
    };
    let Ok(permit) = limiter.admit(asked, || Some(Duration::ZERO)).await else {
        return false;
    };
    let said: Vec<_> = said
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    permit.learn(StatusCode::from_u16(status).unwrap(), &fields(&said), asked);
    true
}

/// Services that count each route apart send the same time for each.
#[tokio::test(start_paused = true)]
async fn two_routes_that_stop_at_once_do_not_stop_the_others() {
    let limiter = learning(OnLimit::Reject);
    let both = [queued_now(&limiter, "/a").await, queued_now(&limiter, "/b").await];
    for (permit, path) in both.into_iter().zip(["/a", "/b"]) {
        permit.learn(
            StatusCode::TOO_MANY_REQUESTS,
            &fields(&[("retry-after", "60".to_owned())]),
            bench::request(&Method::GET, path),
        );
    }
    assert!(!called(&limiter, 0, "/a", 200, &[]).await && !called(&limiter, 0, "/b", 200, &[]).await);
    assert!(called(&limiter, 0, "/c", 200, &[]).await);
    // A pause that begins later and ends at the same moment is the same one.
    tokio::time::advance(20 * SECOND).await;
    assert!(called(&limiter, 0, "/d", 429, &[("retry-after", "40")]).await);
    assert!(!called(&limiter, 0, "/e", 200, &[]).await);
}

async fn queued_now(limiter: &Arc<Limiter>, path: &str) -> Permit {
    limiter
        .admit(bench::request(&Method::GET, path), || None)
        .await
        .unwrap()
}

/// A refusal that reports a quota with something left is not about that quota.
#[tokio::test(start_paused = true)]
async fn a_route_that_stops_leaves_a_shared_quota_to_the_others() {
    let limiter = learning(OnLimit::Reject);
    let left = |left: &'static str| {
        [
            ("ratelimit-limit", "100"),
            ("ratelimit-remaining", left),
            ("ratelimit-reset", "60"),
        ]
    };
    for (path, remaining) in [("/a", "99"), ("/b", "98"), ("/a", "97"), ("/search", "96")] {
        assert!(called(&limiter, 0, path, 200, &left(remaining)).await);
    }
    let refusal = [&left("95")[..], &[("retry-after", "60")]].concat();
    assert!(called(&limiter, 0, "/search", 429, &refusal).await);
    assert!(!called(&limiter, 0, "/search", 200, &left("94")).await);
    for (path, remaining) in [("/a", "94"), ("/b", "93"), ("/c", "92")] {
        assert!(called(&limiter, 0, path, 200, &left(remaining)).await, "{path}");
    }
    // The quota is still the same one.
    assert!(called(&limiter, 0, "/a", 200, &left("0")).await);
    assert!(!called(&limiter, 0, "/b", 200, &[]).await);
}

/// What one caller learned outlives callers about which nothing is known.
#[tokio::test(start_paused = true)]
async fn many_callers_do_not_push_out_what_was_told() {
    let limiter = learning(wait(1));
    assert!(called(&limiter, 1, "/", 429, &[("retry-after", "60")]).await);
    for caller in 2..200 {
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(called(&limiter, caller, "/", 200, &[]).await);
    }
    assert!(!called(&limiter, 1, "/", 200, &[]).await);
}

/// A host that has answered many requests is not unknown because another caller comes.
#[tokio::test(start_paused = true)]
async fn a_new_caller_of_a_known_host_does_not_wait() {
    let limiter = learning(wait(30));
    for caller in 1..20 {
        for _ in 0..5 {
            assert!(called(&limiter, caller, "/", 200, &[]).await);
        }
    }
    assert!(called(&limiter, 20, "/", 429, &[("retry-after", "600")]).await);
    let caller = || Caller(21);
    let asked = || RequestAttributes {
        caller: &caller,
        ..bench::request(&Method::GET, "/")
    };
    let permits: Vec<_> = (0..20)
        .map(|_| at_once(limiter.admit(asked(), || None)).unwrap())
        .collect();
    drop(permits);
}

/// Counts how often it is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// An answer wakes the requests that it concerns, not all that wait: each of these goes through the whole queue.
#[tokio::test(start_paused = true)]
async fn an_answer_does_not_wake_those_that_it_changes_nothing_for() {
    let limiter = learning(wait(100));
    for path in ["/a", "/b", "/c"] {
        assert!(called(&limiter, 0, path, 429, &[("retry-after", "60")]).await);
    }
    let wakes = Arc::new(Wakes::default());
    let waker = Arc::clone(&wakes).into();
    let mut context = Context::from_waker(&waker);
    let asked = |path| limiter.admit(bench::request(&Method::GET, path), || None);
    let mut waiting: Vec<_> = ["/a", "/b", "/c"].map(|path| Box::pin(asked(path))).into();
    for waiter in &mut waiting {
        // On the second poll it has learned that it is at the front.
        assert!(waiter.as_mut().poll(&mut context).is_pending());
        assert!(waiter.as_mut().poll(&mut context).is_pending());
    }
    wakes.0.store(0, Ordering::Relaxed);
    for _ in 0..3 {
        assert!(called(&limiter, 0, "/free", 200, &[]).await);
    }
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
    tokio::time::advance(61 * SECOND).await;
    assert_eq!(wakes.0.load(Ordering::Relaxed), 3);
}

//! What is learned from answers: clients against upstreams with limits, in simulated time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use http::{HeaderName, HeaderValue, StatusCode};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::LocalSet;

use super::*;
use crate::limit::request::{LimitedRequest, MaxWait};
use crate::limit::state::Arrival;
use crate::message::Fields;

pub(super) fn learning(on_limit: OnLimit) -> Arc<Limiter> {
    with(Settings {
        respect_upstream: true,
        ..settings(on_limit)
    })
}

pub(super) fn fields(fields: &[(&str, String)]) -> Fields {
    let fields = fields.iter().map(|(name, value)| {
        let name: HeaderName = name.parse().unwrap();
        (name, HeaderValue::from_str(value).unwrap())
    });
    fields.collect()
}

/// A request looks outside the lock whether anything has been learned, and takes the lock after an answer has paused
/// its destination.
#[tokio::test(start_paused = true)]
async fn what_is_learned_before_the_lock_is_taken_holds_a_request() {
    let limiter = with(Settings {
        concurrency: Some(9),
        respect_upstream: true,
        ..settings(OnLimit::Reject)
    });
    let attributes = bench::request(&Method::GET, "/");
    let mut request = LimitedRequest::default();
    request.limits.add_slots();
    let permit = get(&limiter).await.unwrap();
    permit.learn(
        StatusCode::TOO_MANY_REQUESTS,
        &fields(&[("retry-after", "30".to_owned())]),
        attributes,
    );
    drop(permit);
    let max_wait = || MaxWait {
        for_probe: 0,
        for_turn: 0,
    };
    let key = || Some(limiter.learned_key(&attributes));
    let arrival = limiter
        .state()
        .arrive(&limiter.rules, request, 1_000_000, max_wait, key);
    assert!(matches!(arrival, Arrival::Refused(_)), "{arrival:?}");
}

/// A request that waits for a slot, while the answer that frees it pauses the destination for longer than it may wait.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_paused_while_it_waits_is_refused_for_the_pause() {
    let limiter = with(Settings {
        concurrency: Some(1),
        respect_upstream: true,
        ..settings(wait(5))
    });
    // Until the slow start is over.
    for _ in 0..50 {
        tokio::time::advance(SECOND).await;
        let permit = get(&limiter).await.unwrap();
        permit.learn(StatusCode::OK, &Fields::new(), bench::request(&Method::GET, "/"));
    }
    let permit = get(&limiter).await.unwrap();
    let waiting = queued(get(&limiter)).await;
    permit.learn(
        StatusCode::TOO_MANY_REQUESTS,
        &fields(&[("retry-after", "60".to_owned())]),
        bench::request(&Method::GET, "/"),
    );
    drop(permit);
    let refusal = waiting.await.unwrap_err();
    assert_eq!((&*refusal.limit, refusal.seconds()), ("learned", 60));
}

/// An upstream with one fixed window.
struct Window {
    limit: u64,
    length: Duration,
    start: Cell<Instant>,
    used: Cell<u64>,
    refused: Cell<u64>,
    accepted: Cell<u64>,
    random: RefCell<StdRng>,
    /// Returns the fields that it sends.
    says: fn(&Self, left: u64) -> Fields,
}

impl Window {
    fn new(limit: u64, seconds: u64, says: fn(&Self, u64) -> Fields) -> Self {
        Self {
            limit,
            length: Duration::from_secs(seconds),
            start: Cell::new(Instant::now()),
            used: Cell::new(0),
            refused: Cell::new(0),
            accepted: Cell::new(0),
            random: RefCell::new(StdRng::seed_from_u64(7)),
            says,
        }
    }

    fn reset(&self) -> Duration {
        self.length.saturating_sub(self.start.get().elapsed())
    }

    /// Answers a request, with a delay in each direction.
    async fn ask(&self) -> (StatusCode, Fields) {
        let late =
            |random: &RefCell<StdRng>| Duration::from_micros(random.borrow_mut().random_range(500..20_000));
        tokio::time::sleep(late(&self.random)).await;
        if self.reset().is_zero() {
            self.start.set(Instant::now());
            self.used.set(0);
        }
        let status = if self.used.get() < self.limit {
            self.used.set(self.used.get() + 1);
            self.accepted.set(self.accepted.get() + 1);
            StatusCode::OK
        } else {
            self.refused.set(self.refused.get() + 1);
            StatusCode::TOO_MANY_REQUESTS
        };
        let fields = (self.says)(self, self.limit - self.used.get());
        tokio::time::sleep(late(&self.random)).await;
        (status, fields)
    }
}

/// Sends `requests` altogether, `clients` at a time. Returns how many were refused by us.
async fn fire(limiter: &Arc<Limiter>, upstream: &Rc<Window>, clients: usize, requests: usize) -> usize {
    let left = Rc::new(Cell::new(requests));
    let refused = Rc::new(Cell::new(0));
    let local = LocalSet::new();
    for _ in 0..clients {
        let (limiter, upstream) = (Arc::clone(limiter), Rc::clone(upstream));
        let (left, refused) = (Rc::clone(&left), Rc::clone(&refused));
        local.spawn_local(async move {
            while left.get() > 0 {
                left.set(left.get() - 1);
                match limiter
                    .admit(bench::request(&Method::GET, "/items/1"), || None)
                    .await
                {
                    Ok(permit) => {
                        let (status, fields) = upstream.ask().await;
                        permit.learn(status, &fields, bench::request(&Method::GET, "/items/1"));
                    }
                    Err(_) => refused.set(refused.get() + 1),
                }
            }
        });
    }
    local.await;
    refused.get()
}

fn with_reset(upstream: &Window, left: u64) -> Fields {
    let reset = upstream.reset().as_secs_f64();
    fields(&[
        ("x-ratelimit-limit", upstream.limit.to_string()),
        ("x-ratelimit-remaining", left.to_string()),
        ("x-ratelimit-reset", format!("{}", reset.ceil())),
    ])
}

fn without_reset(upstream: &Window, left: u64) -> Fields {
    fields(&[
        ("x-ratelimit-limit", upstream.limit.to_string()),
        ("x-ratelimit-remaining", left.to_string()),
    ])
}

fn retry_after(upstream: &Window, left: u64) -> Fields {
    match left {
        0 => fields(&[("retry-after", upstream.reset().as_secs_f64().ceil().to_string())]),
        _ => Fields::new(),
    }
}

fn nothing(_: &Window, _: u64) -> Fields {
    Fields::new()
}

/// Sends one request and learns from the given answer.
async fn answered(
    limiter: &Arc<Limiter>,
    path: &str,
    status: u16,
    said: &[(&str, &str)],
) -> Result<(), Refusal> {
    let permit = limiter.admit(bench::request(&Method::GET, path), || None).await?;
    let said: Vec<_> = said
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    let status = StatusCode::from_u16(status).unwrap();
    permit.learn(status, &fields(&said), bench::request(&Method::GET, path));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn ten_times_the_quota_goes_without_a_refusal() {
    let upstream = Rc::new(Window::new(100, 10, with_reset));
    let limiter = learning(wait(300));
    let start = Instant::now();
    let refused = fire(&limiter, &upstream, 1000, 1000).await;
    assert_eq!((refused, upstream.refused.get()), (0, 0));
    // Nine windows have to be waited for, and the requests in flight at their ends take some time.
    let took = start.elapsed().as_secs_f64();
    assert!((90.0..99.0).contains(&took), "{took}");
}

/// Where no reset is known, a request tries now and then, and is refused now and then.
#[tokio::test(start_paused = true)]
async fn a_quota_without_a_reset_costs_few_refusals() {
    let upstream = Rc::new(Window::new(100, 10, without_reset));
    let limiter = learning(wait(600));
    fire(&limiter, &upstream, 1000, 1000).await;
    let (accepted, refused) = (upstream.accepted.get(), upstream.refused.get());
    assert!(
        accepted >= 900 && refused <= 100,
        "{accepted} accepted, {refused} refused"
    );
}

/// One request is refused; the others wait until the time is over.
#[tokio::test(start_paused = true)]
async fn a_refusal_with_a_time_stops_everybody() {
    let upstream = Rc::new(Window::new(100, 10, retry_after));
    let limiter = learning(wait(600));
    fire(&limiter, &upstream, 50, 500).await;
    let (accepted, refused) = (upstream.accepted.get(), upstream.refused.get());
    assert!(accepted >= 350, "{accepted} accepted, {refused} refused");
    // Requests in flight when the quota ends are refused.
    assert!(refused <= 150, "{accepted} accepted, {refused} refused");
}

/// A token bucket that sends only 429: the guessed rate comes close to its rate, with few refusals on the way.
#[tokio::test(start_paused = true)]
async fn a_rate_is_learned_from_refusals_alone() {
    let upstream = Rc::new(Window::new(20, 1, nothing));
    let limiter = learning(wait(600));
    let start = Instant::now();
    fire(&limiter, &upstream, 40, 3000).await;
    let (accepted, refused) = (upstream.accepted.get(), upstream.refused.get());
    let rate = accepted as f64 / start.elapsed().as_secs_f64();
    assert!(rate > 12.0, "{rate} a second of 20");
    assert!(refused <= 180, "{refused} of 3000 refused");
}

#[tokio::test(start_paused = true)]
async fn while_the_upstream_says_stop_it_is_left_alone() {
    let limiter = learning(OnLimit::Reject);
    answered(&limiter, "/", 200, &[]).await.unwrap();
    answered(&limiter, "/", 429, &[("retry-after", "30")])
        .await
        .unwrap();
    tokio::time::advance(10 * SECOND).await;
    let refusal = get(&limiter).await.unwrap_err();
    assert_eq!((&*refusal.limit, refusal.seconds()), ("learned", 20));
    let fields: Vec<_> = refusal.fields().collect();
    assert_eq!(fields, [("ratelimit", "\"learned\";r=0;t=20".to_owned())]);
    // A tunnel does not get around the pause, but its content is not counted.
    assert!(
        limiter
            .admit(bench::request(&Method::CONNECT, ""), || None)
            .await
            .is_err()
    );
    tokio::time::advance(20 * SECOND).await;
    limiter
        .admit(bench::request(&Method::CONNECT, ""), || None)
        .await
        .unwrap();

    // One request goes first, as a probe.
    let probe = get(&limiter).await.unwrap();
    let next = queued(get(&limiter)).await;
    probe.learn(StatusCode::OK, &Fields::new(), bench::request(&Method::GET, "/"));
    next.await.unwrap();
    for _ in 0..100 {
        get(&limiter).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_waited_for_and_the_refusal_tells_its_end() {
    let limiter = learning(wait(10));
    let start = Instant::now();
    answered(&limiter, "/", 503, &[("retry-after", "8")])
        .await
        .unwrap();
    let waiting = queued(get(&limiter)).await;
    assert_eq!(waiting.await.unwrap().waited().as_secs(), 8);
    answered(&limiter, "/", 429, &[("retry-after", "11")])
        .await
        .unwrap();
    let refusal = get(&limiter).await.unwrap_err();
    assert_eq!((refusal.seconds(), start.elapsed().as_secs()), (11, 8));
}

/// A probe that is lost, or never answered, does not hold the others for ever.
#[tokio::test(start_paused = true)]
async fn a_lost_probe_makes_way_for_the_next() {
    let limiter = learning(wait(60));
    answered(&limiter, "/", 429, &[("retry-after", "5")])
        .await
        .unwrap();
    let lost = get(&limiter).await.unwrap();
    let next = queued(get(&limiter)).await;
    drop(lost);
    let unanswered = next.await.unwrap();
    let after = get(&limiter).await.unwrap();
    assert_eq!(after.waited().as_secs(), 1);
    drop((unanswered, after));
}

/// A reported figure may not include the requests in flight.
#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_taken_off() {
    let limiter = learning(OnLimit::Reject);
    let under_way: Vec<_> = [get(&limiter).await, get(&limiter).await, get(&limiter).await]
        .map(Result::unwrap)
        .into();
    let said = [
        ("ratelimit", "\"\";r=5;t=60"),
        ("ratelimit-policy", "\"\";q=10;w=60"),
    ];
    let said = said.map(|(name, value)| (name, value.to_owned()));
    under_way[0].learn(StatusCode::OK, &fields(&said), bench::request(&Method::GET, "/"));
    // Five are left, and two of those may be in flight.
    let more: Vec<_> = [get(&limiter).await, get(&limiter).await, get(&limiter).await]
        .map(Result::unwrap)
        .into();
    let refusal = get(&limiter).await.unwrap_err();
    assert_eq!((&*refusal.limit, refusal.seconds()), ("learned", 60));
    let fields: Vec<_> = refusal.fields().map(|(_, value)| value).collect();
    assert_eq!(fields, ["\"learned\";q=10;w=60", "\"learned\";r=0;t=60"]);
    drop((under_way, more));
}

/// GitHub counts searches apart; their quota holds only searches.
#[tokio::test(start_paused = true)]
async fn a_quota_with_a_name_holds_only_its_own_requests() {
    let limiter = learning(OnLimit::Reject);
    let said = |resource, remaining| {
        [
            ("x-ratelimit-limit", "30"),
            ("x-ratelimit-remaining", remaining),
            ("x-ratelimit-reset", "60"),
            ("x-ratelimit-resource", resource),
        ]
    };
    answered(&limiter, "/repos/a", 200, &said("core", "20"))
        .await
        .unwrap();
    for _ in 0..2 {
        // The first one was sent before anything was learned.
        answered(&limiter, "/repos/a", 200, &said("core", "20"))
            .await
            .unwrap();
        answered(&limiter, "/search/code", 200, &said("search", "1"))
            .await
            .unwrap();
    }
    answered(&limiter, "/search/code", 403, &said("search", "0"))
        .await
        .unwrap();
    let refused = limiter
        .admit(bench::request(&Method::GET, "/search/code"), || None)
        .await;
    assert_eq!(&*refused.unwrap_err().limit, "learned");
    answered(&limiter, "/repos/a", 200, &said("core", "19"))
        .await
        .unwrap();
    answered(&limiter, "/users/b", 200, &said("core", "18"))
        .await
        .unwrap();
    tokio::time::advance(61 * SECOND).await;
    answered(&limiter, "/search/code", 200, &said("search", "29"))
        .await
        .unwrap();
}

/// A request that waits for a quota holds up no other.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_quota_does_not_hold_the_others() {
    let limiter = with(Settings {
        concurrency: Some(10),
        rate_limits: vec![rate(1000, 1, 1000)],
        respect_upstream: true,
        ..settings(wait(600))
    });
    let said = |resource, remaining| {
        [
            ("x-ratelimit-limit", "30"),
            ("x-ratelimit-remaining", remaining),
            ("x-ratelimit-reset", "60"),
            ("x-ratelimit-resource", resource),
        ]
    };
    answered(&limiter, "/repos/a", 200, &said("core", "20"))
        .await
        .unwrap();
    answered(&limiter, "/search/a", 200, &said("search", "0"))
        .await
        .unwrap();
    let search = queued(limiter.admit(bench::request(&Method::GET, "/search/a"), || None)).await;
    let start = Instant::now();
    answered(&limiter, "/repos/a", 200, &said("core", "19"))
        .await
        .unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(search.await.unwrap().waited().as_secs(), 60);
}

/// Returns the result of a future that does not have to wait.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

/// The lock is not taken while nothing is known, nor after everything was forgotten: this test holds it, so
/// taking it would block for ever.
#[test]
fn what_is_not_limited_goes_without_a_lock() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let limiter = learning(OnLimit::Reject);
    let without_lock = || {
        let _held = limiter.state();
        let permits: Vec<_> = (0..100).map(|_| at_once(get(&limiter)).unwrap()).collect();
        permits.iter().for_each(|permit| {
            permit.learn(StatusCode::OK, &Fields::new(), bench::request(&Method::GET, "/"))
        });
    };
    without_lock();
    at_once(answered(&limiter, "/", 429, &[("retry-after", "5")])).unwrap();
    assert!(at_once(get(&limiter)).is_err());
    runtime.block_on(tokio::time::advance(6 * SECOND));
    at_once(answered(&limiter, "/", 200, &[])).unwrap();
    without_lock();
}

/// A handler that panics gives back what it held.
#[tokio::test(start_paused = true)]
async fn a_panic_leaks_nothing() {
    let limiter = with(Settings {
        concurrency: Some(2),
        respect_upstream: true,
        ..settings(wait(60))
    });
    answered(&limiter, "/", 200, &[("ratelimit", "\"\";r=9;t=60")])
        .await
        .unwrap();
    for _ in 0..8 {
        let limiter = Arc::clone(&limiter);
        let handler = tokio::spawn(async move {
            let _permit = get(&limiter).await.unwrap();
            panic!("as a handler does that nobody has tested");
        });
        assert!(handler.await.unwrap_err().is_panic());
    }
    assert_eq!(limiter.state().slots_taken(), 0);
    let _ninth = get(&limiter).await.unwrap();
    assert!(
        timeout(30 * SECOND, get(&limiter)).await.is_err(),
        "nine were left"
    );
}

/// Equal settings keep the state, with what was learned.
#[tokio::test(start_paused = true)]
async fn a_reload_forgets_nothing_of_what_was_learned() {
    let limits = Limiters::default();
    let telemetry = Telemetry::new();
    let settings = || Settings {
        respect_upstream: true,
        ..settings(OnLimit::Reject)
    };
    let before = limits.with(&"a".into(), settings(), &telemetry);
    limits.hold([], [Arc::clone(&before)]);
    answered(&before, "/", 429, &[("retry-after", "60")])
        .await
        .unwrap();
    let after = limits.with(&"a".into(), settings(), &telemetry);
    assert!(get(&after).await.is_err());
    let page = || {
        limits.observe();
        String::from_utf8(telemetry.render()).unwrap()
    };
    let shows = |line: &str| assert!(page().contains(line), "{line} is not in\n{}", page());
    shows("outrider_upstream_throttled_total{code=\"429\",destination=\"a\"} 1");
    shows("outrider_limit_refused_total{destination=\"a\",limit=\"learned\"} 1");
    let line = page();
    let (_, until) = line
        .split_once("outrider_paused_until_timestamp_seconds{destination=\"a\"} ")
        .unwrap();
    let until: u64 = until.lines().next().unwrap().parse().unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert!(
        (now.as_secs() + 50..=now.as_secs() + 61).contains(&until),
        "{until}"
    );
    tokio::time::advance(61 * SECOND).await;
    shows("outrider_paused_until_timestamp_seconds{destination=\"a\"} 0");
}

#[tokio::test(start_paused = true)]
async fn where_it_does_not_matter_nothing_is_learned() {
    let limiter = with(Settings {
        concurrency: Some(5),
        ..settings(OnLimit::Reject)
    });
    answered(&limiter, "/", 429, &[("retry-after", "60")])
        .await
        .unwrap();
    get(&limiter).await.unwrap();
}

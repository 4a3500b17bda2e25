//! Limits of each destination: rates, concurrency, and what the app gets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use crate::support::partner::Partner;
use crate::support::{Origin, Proxy, Response, Wire, eventually};

#[track_caller]
fn assert_limited(answer: &Response) {
    assert_eq!(answer.status, 429, "{answer:?}");
    assert!(answer.error().is_some(), "{answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{answer:?}"
    );
    let after: u64 = answer
        .header("retry-after")
        .expect("Retry-After")
        .parse()
        .unwrap();
    assert!(after >= 1, "{answer:?}");
    let fields = [
        "ratelimit",
        "ratelimit-policy",
        "ratelimit-limit",
        "ratelimit-remaining",
    ];
    assert!(
        fields.iter().any(|field| answer.header(field).is_some()),
        "no RateLimit field: {answer:?}"
    );
}

/// M4: past the burst the answer is 429 with everything a client needs to do better.
#[test]
fn past_the_burst_the_answer_is_429() {
    let origin = Origin::plain();
    let proxy = origin.proxy("rate_limit: 3/h burst 2, on_limit: reject");
    for _ in 0..2 {
        assert_eq!(proxy.get(&origin.url("/")).status, 200);
    }
    let refused = proxy.get(&origin.url("/"));
    assert_limited(&refused);
    assert!(
        refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 600,
        "{refused:?}"
    );
    assert_eq!(origin.raw().matches("GET /").count(), 2);
    assert_eq!(
        proxy.metric(
            "outrider_limit_refused_total",
            &[("destination", "p"), ("limit", "3/h burst 2")]
        ),
        1.0
    );
}

/// `wait D`: requests leave in their order at the rate, and none is refused that need not be.
#[test]
fn waiting_spreads_the_requests() {
    let origin = Origin::plain();
    let proxy = origin.proxy("rate_limit: 5/s burst 1, on_limit: wait 10s");
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(proxy.get(&origin.url("/")).status, 200));
        }
    });
    let elapsed = started.elapsed();
    assert!(elapsed >= Duration::from_millis(950), "{elapsed:?}");
    assert!(elapsed < Duration::from_secs(8), "{elapsed:?}");
    assert!(proxy.metric("outrider_limit_wait_seconds_count", &[("destination", "p")]) >= 5.0);
    assert_eq!(
        proxy.metric("outrider_limit_waiting", &[("destination", "p")]),
        0.0
    );
}

/// `wait D`: where waiting could not help, the 429 comes at once.
#[test]
fn a_wait_that_is_too_long_is_refused_at_once() {
    let origin = Origin::plain();
    let proxy = origin.proxy("rate_limit: 1/h burst 1, on_limit: wait 5s");
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    let started = Instant::now();
    assert_limited(&proxy.get(&origin.url("/")));
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

/// An app that leaves while it waits gives its place back.
#[test]
fn who_leaves_the_queue_leaves_no_trace() {
    let origin = Origin::plain();
    let proxy = origin.proxy("rate_limit: 1/s burst 1, on_limit: wait 30s");
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    let mut waiting: Vec<_> = (0..5).map(|_| proxy.wire()).collect();
    for wire in &mut waiting {
        wire.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/left")));
    }
    eventually("they wait", || {
        proxy.metric("outrider_limit_waiting", &[("destination", "p")]) >= 3.0
    });
    drop(waiting);
    eventually("nobody waits", || {
        proxy.metric("outrider_limit_waiting", &[("destination", "p")]) == 0.0
    });
}

/// Several limits hold at once, each for what it matches.
#[test]
fn limits_match_by_method_and_path() {
    let origin = Origin::plain();
    let proxy = origin.proxy(
        "on_limit: reject, rate_limit: [4/h burst 4, { limit: 1/h burst 1, match: { method: POST, path: /api/** } }]",
    );
    let post = |path: &str| {
        proxy
            .ask("POST", &origin.url(path), "Content-Length: 0\r\n")
            .status
    };
    assert_eq!(post("/api/a"), 200);
    assert_eq!(post("/api/b"), 429);
    assert_eq!(post("/other"), 200);
    assert_eq!(proxy.get(&origin.url("/api/c")).status, 200);
    assert_eq!(proxy.get(&origin.url("/d")).status, 200);
    assert_eq!(proxy.get(&origin.url("/e")).status, 429);
}

/// A slot is held until the last byte: a slow download counts.
#[test]
fn a_slow_download_holds_its_slot() {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::http(move |wire| {
        while let Ok(request) = wire.request() {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
            if request.target() == "/slow" {
                let _ = gate.lock().unwrap().recv();
            }
            wire.send("done");
        }
    });
    let proxy = origin.proxy("concurrency: 1, on_limit: reject");
    let mut slow = proxy.wire();
    slow.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/slow")));
    while slow.read_line() != "\r\n" {}
    let refused = proxy.get(&origin.url("/quick"));
    assert_eq!(refused.status, 429, "{refused:?}");
    assert_eq!(
        proxy.metric("outrider_limit_refused_total", &[("limit", "concurrency")]),
        1.0
    );
    open.send(()).unwrap();
    assert_eq!(slow.read_exact(8).unwrap(), b"halfdone");
    eventually("the slot is free", || {
        proxy.get(&origin.url("/quick")).status == 200
    });
}

/// Concurrency with `wait`: the second goes when the first is done.
#[test]
fn a_slot_is_waited_for() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let origin = Origin::http(move |wire| {
        while wire.request().is_ok() {
            seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Gives a second request, were there one, the time to show.
            thread::park_timeout(Duration::from_millis(20));
            now.fetch_sub(1, Ordering::SeqCst);
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let proxy = origin.proxy("concurrency: 1, on_limit: wait 15s");
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert_eq!(proxy.get(&origin.url("/")).status, 200));
        }
    });
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

/// Inside an intercepted tunnel each request counts; under `mode: tunnel` each tunnel does.
#[test]
fn limits_count_requests_or_tunnels() {
    let partner = Partner::new();
    let proxy = partner.proxy("rate_limit: 2/h burst 2, on_limit: reject");
    let mut wire = proxy.intercepted(&partner.authority());
    assert_eq!(wire.get(&partner.authority(), "/").status, 200);
    assert_eq!(wire.get(&partner.authority(), "/").status, 200);
    assert_limited(&wire.get(&partner.authority(), "/"));

    let origin = Origin::plain();
    let proxy = origin.proxy("mode: tunnel, rate_limit: 1/h burst 1, on_limit: reject");
    let mut tunnel = proxy.tunnel(&origin.authority());
    for _ in 0..3 {
        assert_eq!(tunnel.get("partner.test", "/").status, 200);
    }
    assert_limited(&proxy.connect(&origin.authority()).0);
}

/// M1: another spelling of the same host is the same destination.
#[test]
fn no_spelling_evades_a_limit() {
    let origin = Origin::plain();
    let proxy = origin.proxy("rate_limit: 1/h burst 1, on_limit: reject");
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    for host in ["PARTNER.test", "partner.test.", "Partner.Test."] {
        assert_eq!(
            proxy.get(&format!("http://{host}:{}/", origin.port())).status,
            429,
            "{host}"
        );
    }
}

/// A reload that leaves the limit as it was forgets nothing of it.
#[test]
fn a_reload_does_not_refill() {
    let origin = Origin::plain();
    let proxy = origin.proxy("rate_limit: 1/h burst 1, on_limit: reject");
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    let before = proxy.metric("outrider_config_reloads_total", &[("result", "done")]);
    proxy.signal(Signal::HUP);
    eventually("the reload", || {
        proxy.metric("outrider_config_reloads_total", &[("result", "done")]) > before
    });
    assert_eq!(proxy.get(&origin.url("/")).status, 429);
}

/// A refused request spends nothing, and a limit of nothing lets nothing pass.
#[test]
fn a_limit_of_zero_refuses_everything() {
    let origin = Origin::plain();
    let proxy = origin.proxy("rate_limit: 0/s, on_limit: reject");
    assert_eq!(proxy.get(&origin.url("/")).status, 429);
    assert_eq!(origin.seen().len(), 0);
}

/// Sends requests one after the other without waiting for answers, each on a new connection, and checks that
/// each waits before the next is sent.
fn line_up(proxy: &Proxy, origin: &Origin, paths: &[&str]) -> Vec<Wire> {
    let mut waiting = Vec::new();
    for path in paths {
        let mut wire = proxy.wire();
        wire.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url(path)));
        waiting.push(wire);
        eventually("it waits", || {
            proxy.metric("outrider_limit_waiting", &[("destination", "p")]) == waiting.len() as f64
        });
    }
    waiting
}

/// A page view that comes last goes first; the batch job goes last.
#[test]
fn a_page_view_overtakes_a_batch_job() {
    let origin = Origin::plain();
    let proxy = origin.proxy(
        "rate_limit: 2/s burst 1, on_limit: wait 30s, \
         priority: [{ match: { path: /page/** }, class: high }, { match: { path: /batch/** }, class: low }]",
    );
    assert_eq!(proxy.get(&origin.url("/first")).status, 200);
    let waiting = line_up(&proxy, &origin, &["/batch/1", "/batch/2", "/other", "/page/1"]);
    for mut wire in waiting {
        assert_eq!(wire.response().status, 200);
    }
    // On a slow machine the answers may be logged in another order than the requests were sent.
    let waits = |path: &str| {
        let log = proxy.log();
        let line = log
            .lines()
            .find(|line| line.contains(&format!("\"path\":\"{path}\"")));
        let (_, wait) = line?.split_once("\"wait_ms\":")?;
        wait.split([',', '}']).next()?.parse::<f64>().ok()
    };
    eventually("all are told", || waits("/batch/2").is_some());
    let order = ["/page/1", "/other", "/batch/1", "/batch/2"].map(|path| waits(path).unwrap());
    assert!(order.is_sorted(), "{order:?}");
}

/// Past `queue` the answer comes at once, unless one of a lower class can make room.
#[test]
fn the_queue_is_as_long_as_it_says() {
    let origin = Origin::plain();
    let proxy = origin.proxy(
        "rate_limit: 1/m burst 1, on_limit: wait 10m, queue: 2, \
         priority: [{ match: { path: /page/** }, class: high }]",
    );
    assert_eq!(proxy.get(&origin.url("/first")).status, 200);
    let mut waiting = line_up(&proxy, &origin, &["/1", "/2"]);
    assert_limited(&proxy.get(&origin.url("/3")));
    let mut page = proxy.wire();
    page.send(format!(
        "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
        origin.url("/page/1")
    ));
    assert_limited(&waiting[1].response());
    assert_eq!(origin.raw().matches("GET /").count(), 1);
}

/// A client that says how long it waits gets its 429 at once where that is too short.
#[test]
fn a_client_that_states_its_deadline_is_not_kept_waiting() {
    let origin = Origin::plain();
    let proxy = origin.proxy("rate_limit: 1/m burst 1, on_limit: wait 10m");
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    let started = Instant::now();
    for field in [
        "Prefer: respond-async, wait=5\r\n",
        "grpc-timeout: 900m\r\n",
        "X-Envoy-Upstream-Rq-Timeout-Ms: 1500\r\n",
        "X-Stainless-Timeout: 30\r\n",
    ] {
        let refused = proxy.ask("GET", &origin.url("/"), field);
        assert_limited(&refused);
        let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((50..=60).contains(&after), "{refused:?}");
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

/// Without a store each of four instances takes a quarter; the label stays as it was written.
#[test]
fn instances_take_their_part_of_a_rate() {
    let origin = Origin::plain();
    let proxy = Proxy::start(&format!(
        "instances: 4\ndestinations: {{ p: {{ hosts: [\"{}\"], rate_limit: 8/h }} }}",
        origin.authority()
    ));
    for expected in [200, 200, 429] {
        assert_eq!(proxy.get(&origin.url("/")).status, expected);
    }
    assert_eq!(
        proxy.metric("outrider_limit_refused_total", &[("limit", "8/h")]),
        1.0
    );
}

/// Starts an origin that refuses the second request for `seconds`, and accepts all others.
fn refusing_once(seconds: u64) -> Origin {
    let asked = AtomicUsize::new(0);
    Origin::http(move |wire| {
        while wire.request().is_ok() {
            if asked.fetch_add(1, Ordering::SeqCst) == 1 {
                wire.send(format!(
                    "HTTP/1.1 429 Too Many Requests\r\nRetry-After: {seconds}\r\nContent-Length: 4\r\n\r\nslow"
                ));
            } else {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
    })
}

/// A refusal in the words and fields of each known service.
#[test]
fn a_refusal_is_known_in_every_form() {
    for (status, answer) in [
        (429, "Too Many Requests\r\nX-Retry-After: 60"),
        (429, "Too Many Requests\r\nX-Rate-Limit-Retry-After-Seconds: 60"),
        (429, "Too Many Requests\r\nRetry-After-short: 60"),
        (429, "Too Many Requests\r\nRetry-After: 0\r\nX-Retry-In: 1m0.5s"),
        (
            429,
            "Too Many Requests\r\nDate: Wed, 15 Jul 2026 10:36:17 GMT\r\n\
             Retry-After: Wed Jul 15 2026 12:37:17 GMT+0200 (Central European Summer Time)",
        ),
        (
            503,
            "Busy\r\nX-RateLimit-Limit: 9\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 60",
        ),
        (
            400,
            "Bad Request\r\nx-amzn-ErrorType: ThrottlingException:\r\nRetry-After: 60",
        ),
        (
            200,
            "OK\r\nContent-Type: application/grpc\r\ngrpc-status: 8\r\ngrpc-retry-pushback-ms: 60000",
        ),
    ] {
        let origin = Origin::saying(format!("HTTP/1.1 {status} {answer}\r\nContent-Length: 0\r\n\r\n"));
        let proxy = origin.proxy("on_limit: reject");
        let theirs = proxy.get(&origin.url("/"));
        assert_eq!((theirs.status, theirs.error()), (status, None), "{answer}");
        let ours = proxy.get(&origin.url("/"));
        assert_limited(&ours);
        let after: u64 = ours.header("retry-after").unwrap().parse().unwrap();
        assert!((50..=61).contains(&after), "{answer}: {ours:?}");
        assert_eq!(origin.raw().matches("GET /").count(), 1, "{answer}");
    }
}

/// The app sees the upstream's own 429 as it came; the later ones are ours and say so, and the upstream hears
/// of none.
#[test]
fn an_upstream_that_says_stop_is_left_alone() {
    let origin = refusing_once(60);
    let proxy = origin.proxy("on_limit: reject");
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    let theirs = proxy.get(&origin.url("/"));
    assert_eq!((theirs.status, theirs.text().as_str()), (429, "slow"));
    assert_eq!(theirs.header("retry-after"), Some("60"));
    assert_eq!(theirs.error(), None, "{theirs:?}");
    for _ in 0..5 {
        let ours = proxy.get(&origin.url("/"));
        assert_limited(&ours);
        let after: u64 = ours.header("retry-after").unwrap().parse().unwrap();
        assert!((50..=60).contains(&after), "{ours:?}");
    }
    assert_eq!(origin.raw().matches("GET /").count(), 2);
    let labels = [("destination", "p"), ("code", "429")];
    assert_eq!(proxy.metric("outrider_upstream_throttled_total", &labels), 1.0);
    let until = proxy.metric("outrider_paused_until_timestamp_seconds", &[("destination", "p")]);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    assert!((now + 40.0..now + 61.0).contains(&until), "{until}");
    let labels = [("destination", "p"), ("limit", "learned")];
    assert_eq!(proxy.metric("outrider_limit_refused_total", &labels), 5.0);
    eventually("it is told once", || {
        proxy.log().matches("the upstream refused").count() == 1
    });
}

/// Who may wait waits for the end of the pause, and then goes.
#[test]
fn a_pause_is_waited_for() {
    let origin = refusing_once(2);
    let proxy = origin.proxy("on_limit: wait 20s");
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    assert_eq!(proxy.get(&origin.url("/")).status, 429);
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert_eq!(proxy.get(&origin.url("/")).status, 200));
        }
    });
    let elapsed = started.elapsed();
    assert!(elapsed >= Duration::from_millis(1900), "{elapsed:?}");
    assert!(elapsed < Duration::from_secs(6), "{elapsed:?}");
}

/// `respect_upstream: false`: what it says is the app's matter.
#[test]
fn an_app_may_look_after_that_itself() {
    let origin = refusing_once(60);
    let proxy = origin.proxy("respect_upstream: false");
    for status in [200, 429, 200, 200] {
        assert_eq!(proxy.get(&origin.url("/")).status, status);
    }
}

/// A pause holds tunnels, too: they would be a way around it.
#[test]
fn a_pause_holds_new_tunnels() {
    let origin = refusing_once(60);
    let proxy = origin.proxy("mode: tunnel");
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    let mut before = proxy.tunnel(&origin.authority());
    assert_eq!(proxy.get(&origin.url("/")).status, 429);
    assert_limited(&proxy.connect(&origin.authority()).0);
    assert_eq!(before.get("partner.test", "/").status, 200);
}

//! Sending once more what is safe to send, and how often at most.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::limited::{RateLimitedServer, refused};
use crate::support::partner::Partner;
use crate::support::{Origin, Proxy, Response, Wire, closed_port, eventually};

pub(crate) const BUSY: &str =
    "HTTP/1.1 503 Service Unavailable\r\nX-Why: deploy\r\nContent-Length: 4\r\n\r\nbusy";
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Answers the requests in their order, on all connections; the last answer is used for all that follow.
fn answering<const N: usize>(answers: [&'static str; N]) -> Origin {
    let asked = AtomicUsize::new(0);
    Origin::http(move |wire| {
        while wire.request().is_ok() {
            let number = asked.fetch_add(1, Ordering::SeqCst);
            wire.send(answers[number.min(N - 1)]);
        }
    })
}

pub(crate) fn to(origin: &Origin, keys: &str) -> Proxy {
    to_port(origin.port(), keys)
}

fn to_port(port: u16, keys: &str) -> Proxy {
    Proxy::to(&format!("partner.test:{port}"), keys)
}

pub(crate) fn retries(proxy: &Proxy, reason: &str) -> f64 {
    proxy.metric(
        "outrider_retries_total",
        &[("destination", "p"), ("reason", reason)],
    )
}

/// Waits for the record of the one request that was answered so.
#[track_caller]
fn recorded(proxy: &Proxy, code: &str, answered_by: &str) {
    eventually("the request is recorded", || {
        proxy.metric(
            "outrider_requests_total",
            &[("code", code), ("answered_by", answered_by)],
        ) == 1.0
    });
}

/// Returns how many requests of a method the origin has seen.
pub(crate) fn asked(origin: &Origin, method: &str) -> usize {
    origin.raw().matches(&format!("{method} /")).count()
}

pub(crate) fn send(proxy: &Proxy, method: &str, url: &str, fields: &str, body: &[u8]) -> Response {
    let mut request = format!("{method} {url} HTTP/1.1\r\nHost: partner.test\r\n{fields}\r\n").into_bytes();
    request.extend_from_slice(body);
    proxy.raw(request)
}

#[test]
fn what_is_safe_is_asked_again_and_counts_as_one() {
    for (method, fields) in [
        ("GET", ""),
        ("HEAD", ""),
        ("DELETE", ""),
        ("PUT", "Content-Length: 0\r\n"),
        ("POST", "Idempotency-Key: \"8e03978e\"\r\nContent-Length: 0\r\n"),
    ] {
        let origin = answering([BUSY, OK]);
        let proxy = to(&origin, "retry: { max_wait: 1s }");
        let mut wire = proxy.wire();
        wire.send(format!(
            "{method} {} HTTP/1.1\r\nHost: x\r\n{fields}\r\n",
            origin.url("/")
        ));
        // HEAD has no body, in every answer.
        assert_eq!(wire.bodiless_response().status, 200, "{method}");
        assert_eq!(asked(&origin, method), 2, "{method}");
        assert_eq!(retries(&proxy, "503"), 1.0, "{method}");
        eventually("one exchange is recorded", || {
            proxy.metric("outrider_requests_total", &[("code", "200")]) == 1.0
        });
        assert_eq!(proxy.metric("outrider_requests_total", &[]), 1.0, "{method}");
    }
}

/// Also for 429: the status does not promise that nothing was done.
#[test]
fn a_post_without_a_key_is_sent_once() {
    for (status, fields) in [("503", ""), ("429", ""), ("503", "Idempotency-Key: \r\n")] {
        let answer = BUSY.replace("503", status);
        let origin = Origin::saying(answer);
        let proxy = to(&origin, "retry: { attempts: 5, max_wait: 1s }");
        let fields = format!("{fields}Content-Length: 4\r\n");
        let answer = send(&proxy, "POST", &origin.url("/"), &fields, b"once");
        assert_eq!(answer.status.to_string(), status);
        assert_eq!(
            (answer.header("x-why"), answer.text().as_str()),
            (Some("deploy"), "busy")
        );
        assert!(answer.error().is_none(), "{answer:?}");
        assert_eq!(asked(&origin, "POST"), 1);
        assert_eq!(proxy.metric("outrider_retries_total", &[]), 0.0);
    }
}

/// What is not configured is not retried: neither without `retry`, nor after another status.
#[test]
fn only_what_is_configured_is_asked_again() {
    for keys in [
        "upgrade: false",
        "retry: { on: [429] }",
        "retry: { on: [connect] }",
    ] {
        let origin = answering([BUSY, OK]);
        let proxy = to(&origin, keys);
        assert_eq!(proxy.get(&origin.url("/")).status, 503, "{keys}");
        assert_eq!(asked(&origin, "GET"), 1, "{keys}");
    }
}

/// The pause that outrider keeps after a 429 does not prevent the retry.
#[test]
fn a_repeat_waits_for_what_was_learned_from_the_refusal() {
    for after in ["Retry-After: 1\r\n", ""] {
        let asked = AtomicUsize::new(0);
        let origin = Origin::http(move |wire| {
            while wire.request().is_ok() {
                if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                    wire.send(format!(
                        "HTTP/1.1 429 Too Many Requests\r\n{after}Content-Length: 0\r\n\r\n"
                    ));
                } else {
                    wire.send(OK);
                }
            }
        });
        let proxy = to(&origin, "on_limit: reject, retry: { max_wait: 4s }");
        assert_eq!(proxy.get(&origin.url("/")).status, 200, "{after}");
        assert_eq!(retries(&proxy, "429"), 1.0, "{after}");
        assert_eq!(
            proxy.metric("outrider_upstream_throttled_total", &[("code", "429")]),
            1.0
        );
    }
}

#[test]
fn retry_after_is_obeyed_up_to_max_wait() {
    let origin = answering([
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
        OK,
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nContent-Length: 4\r\n\r\nlate",
    ]);
    let proxy = to(
        &origin,
        "respect_upstream: false, retry: { attempts: 5, max_wait: 2s }",
    );
    let started = Instant::now();
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    let elapsed = started.elapsed();
    assert!(
        elapsed >= Duration::from_secs(1) && elapsed < Duration::from_secs(3),
        "{elapsed:?}"
    );
    eventually("it is recorded", || {
        proxy.metric("outrider_overhead_seconds_count", &[("destination", "p")]) == 1.0
    });
    // It waited, which is not its own time.
    let own = proxy.metric("outrider_overhead_seconds_sum", &[("destination", "p")]);
    assert!(own < 0.5, "{own}");

    let started = Instant::now();
    let answer = proxy.get(&origin.url("/"));
    assert!(
        started.elapsed() < Duration::from_millis(900),
        "{:?}",
        started.elapsed()
    );
    assert_eq!((answer.status, answer.text().as_str()), (429, "late"));
    assert_eq!(answer.header("retry-after"), Some("3"));
    assert!(answer.error().is_none(), "it is the destination's: {answer:?}");
    assert_eq!(asked(&origin, "GET"), 3);
    recorded(&proxy, "429", "upstream");
}

/// Fractions, units and the names that packages write; a zero is cut, and goes after all others.
#[test]
fn a_wait_is_read_in_the_forms_of_others() {
    let wait = |fields: &'static str| {
        let asked = AtomicUsize::new(0);
        let origin = Origin::http(move |wire| {
            while wire.request().is_ok() {
                match asked.fetch_add(1, Ordering::SeqCst) {
                    0 => wire.send(format!(
                        "HTTP/1.1 429 Too Many Requests\r\n{fields}Content-Length: 0\r\n\r\n"
                    )),
                    _ => wire.send(OK),
                };
            }
        });
        let proxy = to(&origin, "respect_upstream: false, retry: { max_wait: 5s }");
        let started = Instant::now();
        assert_eq!(proxy.get(&origin.url("/")).status, 200, "{fields}");
        started.elapsed()
    };
    for fields in [
        "Retry-After: 0.8\r\n",
        "X-Retry-In: 805.7ms\r\nRetry-After: 0\r\n",
        "retry-after-ms: 800\r\nRetry-After: 1\r\n",
        "X-Retry-After: 1\r\n",
        "Retry-After-short: 1\r\n",
        "X-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 1\r\n",
    ] {
        let took = wait(fields);
        assert!(
            took >= Duration::from_millis(800) && took < Duration::from_secs(4),
            "{fields}: {took:?}"
        );
    }
    // As without a time: everyone at another moment.
    let took = wait("Retry-After: 0\r\n");
    assert!(took >= Duration::from_millis(100), "{took:?}");
}

/// The app says for how long it waits: an answer after that would reach nobody.
#[test]
fn nothing_is_waited_for_longer_than_the_app_does() {
    let origin = answering([
        "HTTP/1.1 503 No\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n",
        OK,
    ]);
    let proxy = to(&origin, "respect_upstream: false, retry: { max_wait: 5s }");
    let started = Instant::now();
    assert_eq!(
        proxy.ask("GET", &origin.url("/"), "Prefer: wait=1\r\n").status,
        503
    );
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(asked(&origin, "GET"), 1);
}

/// Also a POST, and a body that is still on its way: nothing of it was sent.
#[test]
fn a_connection_that_cannot_be_made_is_tried_again() {
    let port = closed_port();
    let proxy = to_port(port, "retry: { attempts: 10, max_wait: 10s }");
    let mut wire = proxy.wire();
    wire.send(format!(
        "POST http://partner.test:{port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nhalf"
    ));
    eventually("a second try", || retries(&proxy, "connect") >= 1.0);
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let origin = thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut origin = Wire::over(Box::new(socket.try_clone().unwrap()), socket);
        let request = origin.request().unwrap();
        origin.send(OK);
        request.body
    });
    assert_eq!(wire.ask("half").status, 200);
    assert_eq!(origin.join().unwrap(), b"halfhalf");
}

#[test]
fn the_budget_stops_a_storm() {
    let port = closed_port();
    let proxy = to_port(port, "retry: { attempts: 5, max_wait: 0s, budget: 20% }");
    let url = format!("http://partner.test:{port}/");
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| (0..20).for_each(|_| assert_eq!(proxy.get(&url).status, 502)));
        }
    });
    let tries = proxy.metric(
        "outrider_upstream_connects_total",
        &[("result", "connection_refused")],
    );
    // 200 requests, a fifth of that and ten.
    assert!((200.0..=250.0).contains(&tries), "{tries}");
    assert!(retries(&proxy, "connect") >= 20.0);
}

#[test]
fn a_websocket_is_never_asked_for_twice() {
    let origin = answering([BUSY, OK]);
    let proxy = to(&origin, "retry: { max_wait: 1s }");
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_eq!(send(&proxy, "GET", &origin.url("/"), fields, b"").status, 503);
    assert_eq!(asked(&origin, "GET"), 1);
}

#[test]
fn an_app_that_leaves_while_it_waits_leaves_nothing_behind() {
    let origin = answering([
        "HTTP/1.1 503 No\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n",
        OK,
    ]);
    let proxy = to(
        &origin,
        "respect_upstream: false, concurrency: 1, on_limit: reject, retry: { max_wait: 10m }",
    );
    let mut wire = proxy.wire();
    wire.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")));
    origin.wait("the request", |seen| {
        seen.iter().any(|seen| !seen.bytes.is_empty())
    });
    eventually("its slot is free, so it waits", || {
        proxy.get(&origin.url("/second")).status == 200
    });
    wire.reset();
    eventually("nobody is in flight", || {
        proxy.metric("outrider_requests_in_flight", &[("destination", "p")]) == 0.0
    });
    recorded(&proxy, "499", "outrider");
    assert_eq!(origin.raw().matches("GET / ").count(), 1);
    assert_eq!(retries(&proxy, "503"), 0.0);
}

/// While a request waits to be sent again, its slot is another one's.
#[test]
fn a_request_that_waits_holds_no_slot() {
    let origin = answering([
        "HTTP/1.1 503 No\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n",
        OK,
    ]);
    let proxy = to(
        &origin,
        "respect_upstream: false, concurrency: 1, on_limit: reject, retry: { max_wait: 5s }",
    );
    thread::scope(|scope| {
        let first = scope.spawn(|| proxy.get(&origin.url("/first")).status);
        origin.wait("the first", |seen| seen.iter().any(|seen| !seen.bytes.is_empty()));
        eventually("a free slot", || proxy.get(&origin.url("/second")).status == 200);
        assert!(!first.is_finished(), "it waits for two seconds");
        assert_eq!(first.join().unwrap(), 200);
    });
}

/// A repeat takes from the limits like any request; where they do not let it through, the app gets what there was.
#[test]
fn the_limits_count_repeats() {
    let origin = Origin::saying(BUSY);
    let proxy = to(
        &origin,
        "rate_limit: 1/h burst 1, on_limit: reject, retry: { max_wait: 1s }",
    );
    let answer = proxy.get(&origin.url("/"));
    assert_eq!((answer.status, answer.text().as_str()), (503, "busy"));
    assert_eq!(answer.header("x-why"), Some("deploy"));
    assert!(answer.error().is_none(), "{answer:?}");
    assert_eq!(asked(&origin, "GET"), 1);
    assert_eq!(retries(&proxy, "503"), 0.0, "it was not sent");
    recorded(&proxy, "503", "upstream");
}

/// The answer that nobody gets is read to its end where it is short; else its connection closes.
#[test]
fn a_discarded_answer_does_not_cost_its_connection() {
    let long = 1 << 20;
    for (length, connections) in [(0, 1), (10_000, 1), (long, 2)] {
        let asked = AtomicUsize::new(0);
        let origin = Origin::http(move |wire| {
            while wire.request().is_ok() {
                if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                    wire.send(format!("HTTP/1.1 503 No\r\nContent-Length: {length}\r\n\r\n"));
                    wire.send(vec![b'x'; length]);
                } else {
                    wire.send(OK);
                }
            }
        });
        let proxy = to(&origin, "retry: { max_wait: 1s }");
        assert_eq!(proxy.get(&origin.url("/")).status, 200, "{length}");
        assert_eq!(origin.seen().len(), connections, "{length}");
    }
}

#[test]
fn a_reload_does_not_refill_the_budget() {
    let port = closed_port();
    let proxy = to_port(port, "retry: { max_wait: 0s, budget: 1% }");
    let url = format!("http://partner.test:{port}/");
    (0..12).for_each(|_| assert_eq!(proxy.get(&url).status, 502));
    let before = proxy.metric("outrider_config_reloads_total", &[("result", "done")]);
    proxy.signal(Signal::HUP);
    eventually("the reload", || {
        proxy.metric("outrider_config_reloads_total", &[("result", "done")]) > before
    });
    (0..5).for_each(|_| assert_eq!(proxy.get(&url).status, 502));
    assert_eq!(retries(&proxy, "connect"), 10.0);
}

/// A real server that only says 503: a dozen at once, where one passes every 20 ms.
#[test]
fn what_nginx_refuses_passes_a_little_later() {
    let nginx = RateLimitedServer::nginx(50, 1, 503);
    let proxy = nginx
        .proxy("respect_upstream: false, retry: { attempts: 10, on: [503], max_wait: 10s, budget: 100% }");
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| assert_eq!(proxy.get(&nginx.url("/")).status, 200));
        }
    });
    // It writes its log once the answer is out.
    eventually("a dozen have passed", || {
        let asked = nginx.requests();
        asked.len() - refused(&asked) == 12
    });
    let refused = refused(&nginx.requests());
    assert!(refused >= 5, "nothing had to be sent again: {refused}");
    assert_eq!(retries(&proxy, "503"), refused as f64);
}

#[test]
fn requests_within_a_tunnel_are_asked_again_with_their_credential() {
    let asked = AtomicUsize::new(0);
    let partner = Partner::with(move |wire| {
        while wire.request().is_ok() {
            let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
            wire.send(if first { BUSY } else { OK });
        }
    });
    let proxy = partner.proxy("retry: { max_wait: 1s }");
    let mut wire = proxy.intercepted(&partner.authority());
    assert_eq!(wire.get(&partner.authority(), "/").status, 200);
    let raw = partner.origin.raw();
    assert_eq!(raw.matches("GET / ").count(), 2, "{raw}");
    assert_eq!(
        raw.matches("authorization: Bearer ").count(),
        2,
        "once on each: {raw}"
    );
}

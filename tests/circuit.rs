//! A destination that fails is left alone, until one request finds that it works again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::dns::{Answer, Dns};
use crate::support::partner::Partner;
use crate::support::{Origin, Proxy, Response, closed_port, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const DOWN: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\ndown";

fn to_port(port: u16, keys: &str) -> Proxy {
    Proxy::to(&format!("partner.test:{port}"), keys)
}

fn state(proxy: &Proxy) -> f64 {
    proxy.metric("outrider_circuit_state", &[("destination", "p")])
}

/// Starts an origin that works while the switch is on.
fn switched() -> (Origin, Arc<AtomicBool>) {
    let works = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&works);
    let origin = Origin::http(move |wire| {
        while wire.request().is_ok() {
            wire.send(if switch.load(Ordering::SeqCst) { OK } else { DOWN });
        }
    });
    (origin, works)
}

#[track_caller]
fn assert_left_alone(answer: &Response) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.error(), Some("destination_unavailable"), "{answer:?}");
    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&after), "{answer:?}");
}

#[test]
fn it_opens_tries_and_closes() {
    let (origin, works) = switched();
    let proxy = to_port(
        origin.port(),
        "circuit_breaker: { failures: 3, open_for: 1s }, rate_limit: 100/h burst 100",
    );
    assert!(
        proxy
            .page("/metrics")
            .text()
            .contains("outrider_circuit_state{destination=\"p\"} 0")
    );
    for _ in 0..3 {
        let answer = proxy.get(&origin.url("/"));
        assert_eq!((answer.status, answer.text().as_str()), (503, "down"));
        assert!(answer.error().is_none(), "{answer:?}");
    }
    assert_eq!(state(&proxy), 2.0);
    let left = proxy.metric("outrider_limit_remaining_ratio", &[("destination", "p")]);
    let before = Instant::now();
    for _ in 0..5 {
        assert_left_alone(&proxy.get(&origin.url("/")));
    }
    // Nobody was asked, and no limit spent.
    assert!(before.elapsed() < Duration::from_secs(1));
    assert_eq!(origin.raw().matches("GET /").count(), 3);
    let now = proxy.metric("outrider_limit_remaining_ratio", &[("destination", "p")]);
    assert!(now >= left, "{left} {now}");
    eventually("they are recorded as ours", || {
        proxy.metric(
            "outrider_requests_total",
            &[("code", "503"), ("answered_by", "outrider")],
        ) == 5.0
    });

    // It still fails: open again.
    eventually("a request tries", || {
        proxy.get(&origin.url("/")).error().is_none()
    });
    assert_eq!(state(&proxy), 2.0);
    assert_left_alone(&proxy.get(&origin.url("/")));
    assert_eq!(origin.raw().matches("GET /").count(), 4);

    works.store(true, Ordering::SeqCst);
    eventually("it works again", || proxy.get(&origin.url("/")).status == 200);
    assert_eq!(state(&proxy), 0.0);
    eventually("the log tells each change", || {
        let log = proxy.log();
        log.matches("circuit open").count() == 2 && log.matches("circuit closed").count() == 1
    });
}

#[test]
fn an_origin_that_cannot_be_reached_or_dies_opens_it() {
    let dying = Origin::http(|wire| drop(wire.request()));
    let silent = Origin::http(|wire| {
        let _ = wire.request();
        let _ = wire.request();
    });
    for (port, status) in [(closed_port(), 502), (dying.port(), 502), (silent.port(), 504)] {
        let proxy = to_port(
            port,
            "circuit_breaker: { failures: 2, open_for: 1m }, timeouts: { response: 200ms }",
        );
        let url = format!("http://partner.test:{port}/");
        for _ in 0..2 {
            assert_eq!(proxy.get(&url).status, status);
        }
        assert_left_alone(&proxy.get(&url));
    }
}

/// It works, if only to refuse; and what the app breaks is not the destination's fault.
#[test]
fn refusals_and_the_app_itself_open_nothing() {
    for answer in [
        "429 Too Many Requests\r\n",
        "429 Too Many Requests\r\nRetry-After: 1\r\n",
        "503 Service Unavailable\r\nRetry-After: 1\r\n",
        "503 Service Unavailable\r\nX-Retry-After: 1\r\n",
        "503 Service Unavailable\r\nX-Envoy-RateLimited: true\r\n",
        "503 Service Unavailable\r\nX-RateLimit-Limit: 9\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 1\r\n",
        "500 Internal Server Error\r\n",
        "404 Not Found\r\n",
    ] {
        let origin = Origin::saying(format!("HTTP/1.1 {answer}Content-Length: 0\r\n\r\n"));
        let proxy = to_port(
            origin.port(),
            "respect_upstream: false, circuit_breaker: { failures: 1 }",
        );
        for _ in 0..3 {
            assert!(proxy.get(&origin.url("/")).error().is_none(), "{answer}");
        }
        assert_eq!(state(&proxy), 0.0, "{answer}");
    }
    let origin = Origin::plain();
    let proxy = to_port(origin.port(), "circuit_breaker: { failures: 1 }");
    let mut wire = proxy.wire();
    wire.send(format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
        origin.url("/")
    ));
    wire.half_close();
    assert_eq!(wire.response().status, 400);
    assert_eq!(state(&proxy), 0.0);
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
}

/// An origin that fails at first; later it holds each request until the gate opens.
struct HeldOrigin {
    origin: Origin,
    is_held: Arc<AtomicBool>,
    held: Arc<AtomicUsize>,
    open: mpsc::Sender<()>,
}

fn held() -> HeldOrigin {
    let (is_held, held) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (open, gate) = mpsc::channel();
    let gate = Mutex::new(gate);
    let (hold, count) = (Arc::clone(&is_held), Arc::clone(&held));
    let origin = Origin::http(move |wire| {
        while wire.request().is_ok() {
            if !hold.load(Ordering::SeqCst) {
                wire.send(DOWN);
                continue;
            }
            count.fetch_add(1, Ordering::SeqCst);
            let _ = gate.lock().unwrap().recv();
            wire.send(OK);
        }
    });
    HeldOrigin {
        origin,
        is_held,
        held,
        open,
    }
}

#[test]
fn of_fifty_clients_one_tries() {
    let HeldOrigin {
        origin,
        is_held,
        held,
        open,
    } = held();
    let proxy = to_port(origin.port(), "circuit_breaker: { failures: 1, open_for: 100ms }");
    assert_eq!(proxy.get(&origin.url("/")).status, 503);
    is_held.store(true, Ordering::SeqCst);
    thread::park_timeout(Duration::from_millis(200));
    let (passed, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let answer = proxy.get(&origin.url("/"));
                if answer.status == 200 {
                    passed.fetch_add(1, Ordering::SeqCst);
                } else {
                    assert_left_alone(&answer);
                    refused.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        eventually("all but one are refused", || refused.load(Ordering::SeqCst) == 49);
        assert_eq!(state(&proxy), 1.0);
        open.send(()).unwrap();
    });
    assert_eq!(passed.load(Ordering::SeqCst), 1);
    assert_eq!(held.load(Ordering::SeqCst), 1, "the origin saw one");
    assert_eq!(state(&proxy), 0.0);
}

#[test]
fn a_prober_that_leaves_frees_its_place() {
    let HeldOrigin {
        origin,
        is_held,
        held,
        open,
    } = held();
    let proxy = to_port(origin.port(), "circuit_breaker: { failures: 1, open_for: 100ms }");
    assert_eq!(proxy.get(&origin.url("/")).status, 503);
    is_held.store(true, Ordering::SeqCst);
    thread::park_timeout(Duration::from_millis(200));
    let mut prober = proxy.wire();
    prober.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")));
    eventually("the prober is there", || held.load(Ordering::SeqCst) == 1);
    assert_left_alone(&proxy.get(&origin.url("/")));
    prober.reset();
    // Twice: each held request needs one.
    open.send(()).unwrap();
    open.send(()).unwrap();
    eventually("another one tries", || proxy.get(&origin.url("/")).status == 200);
    assert_eq!(held.load(Ordering::SeqCst), 2);
    assert_eq!(state(&proxy), 0.0);
}

/// A reload forgets nothing where the settings are as before; other settings begin anew.
#[test]
fn a_reload_closes_nothing() {
    let (origin, _works) = switched();
    let yaml = |breaker: &str| {
        format!(
            "destinations: {{ p: {{ hosts: [\"{}\"]{breaker} }} }}",
            origin.authority()
        )
    };
    let proxy = Proxy::start(&yaml(", circuit_breaker: { failures: 1, open_for: 1m }"));
    let reload = || {
        let before = proxy.metric("outrider_config_reloads_total", &[("result", "done")]);
        proxy.signal(Signal::HUP);
        eventually("the reload", || {
            proxy.metric("outrider_config_reloads_total", &[("result", "done")]) > before
        });
    };
    assert!(proxy.get(&origin.url("/")).error().is_none());
    assert_left_alone(&proxy.get(&origin.url("/")));
    reload();
    assert_left_alone(&proxy.get(&origin.url("/")));
    proxy.rewrite(&yaml(", circuit_breaker: { failures: 2, open_for: 1m }"));
    reload();
    assert!(
        proxy.get(&origin.url("/")).error().is_none(),
        "a circuit of its own"
    );
    assert_eq!(state(&proxy), 0.0);
    assert!(proxy.get(&origin.url("/")).error().is_none());
    assert_left_alone(&proxy.get(&origin.url("/")));
    proxy.rewrite(&yaml(""));
    reload();
    assert!(proxy.get(&origin.url("/")).error().is_none());
    assert_eq!(state(&proxy), 0.0, "none is none that is open");
}

/// Names that do not exist, and a host that is down, say nothing of a host that works.
#[test]
fn a_host_that_fails_closes_no_other_of_its_destination() {
    let dns = Dns::serve(|name, _| match name {
        "works.pages.test" | "down.pages.test" => Answer::Addresses(vec![[127, 0, 0, 1].into()], 60),
        _ => Answer::Code(3),
    });
    let (works, down) = (Origin::saying(OK), Origin::saying(DOWN));
    let proxy = Proxy::start(&format!(
        "
         dns: {}
         destinations:
           p:
             hosts: [\"*.pages.test:{}\", \"*.pages.test:{}\"]
             circuit_breaker: {{ failures: 3, within: 3s, open_for: 3s }}",
        dns.yaml(),
        works.port(),
        down.port(),
    ));
    let get = |host: &str, port: u16| proxy.get(&format!("http://{host}.pages.test:{port}/"));
    for name in ["a", "b", "c"] {
        assert_eq!(get(name, works.port()).status, 502);
    }
    assert_eq!(
        get("works", works.port()).status,
        200,
        "three names, one failure each"
    );
    for _ in 0..2 {
        assert_eq!(get("a", works.port()).error(), Some("dns_error"));
    }
    for _ in 0..3 {
        assert_eq!(get("down", down.port()).error(), None);
    }
    assert_eq!(state(&proxy), 2.0, "the worst of its hosts");
    for (host, port) in [("a", works.port()), ("down", down.port())] {
        let answer = get(host, port);
        assert_left_alone(&answer);
        let named = format!("{host}.pages.test:{port} of destination p fails");
        assert!(answer.text().contains(&named), "{answer:?}");
    }
    assert_eq!(get("works", works.port()).status, 200);
    eventually("the log names the host", || {
        let log = proxy.log();
        let mut lines = log.lines().filter(|line| line.contains("circuit open"));
        lines.any(|line| line.contains(&format!("down.pages.test:{}", down.port())))
    });
    // Nobody asks for them again: an alert on the metric must come to an end.
    eventually("what is asked for no more is forgotten", || state(&proxy) == 0.0);
}

/// What is refused inside a tunnel says so there, and the origin is not even asked what it speaks.
#[test]
fn an_intercepted_destination_is_left_alone_too() {
    let partner = Partner::with(|wire| drop(wire.request()));
    let proxy = partner.proxy("circuit_breaker: { failures: 1, open_for: 1m }");
    let mut wire = proxy.intercepted(&partner.authority());
    assert_eq!(wire.get(&partner.authority(), "/").status, 502);
    assert_left_alone(&wire.get(&partner.authority(), "/"));
    let asked = partner.origin.seen().len();
    let mut wire = proxy.intercepted(&partner.authority());
    assert_left_alone(&wire.get(&partner.authority(), "/"));
    assert_eq!(partner.origin.seen().len(), asked);
}

/// A request whose connection failed is not sent again where that opened the circuit: it gets what there was.
#[test]
fn a_repeat_does_not_go_round_it() {
    let port = closed_port();
    let proxy = to_port(
        port,
        "circuit_breaker: { failures: 2, open_for: 1m }, retry: { attempts: 5 }",
    );
    let answer = proxy.get(&format!("http://partner.test:{port}/"));
    assert_eq!((answer.status, answer.error()), (502, Some("connection_refused")));
    assert_eq!(
        proxy.metric(
            "outrider_upstream_connects_total",
            &[("result", "connection_refused")]
        ),
        2.0
    );
}

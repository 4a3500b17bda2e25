//! Answers past their time: who may still have them, and what an app may demand.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use crate::support::{Origin, eventually, ok};

/// Answers 200 with these header lines and the number of the request, as long as `up`; then what `down` says.
fn failing(lines: &'static str, down: &'static str) -> (Origin, Arc<AtomicBool>) {
    let up = Arc::new(AtomicBool::new(true));
    let is_up = Arc::clone(&up);
    let count = AtomicUsize::new(0);
    let origin = Origin::http(move |wire| {
        while wire.request().is_ok() {
            if !is_up.load(Ordering::SeqCst) {
                wire.send(down);
                if down.is_empty() {
                    return;
                }
                continue;
            }
            let body = format!("answer {}", count.fetch_add(1, Ordering::SeqCst) + 1);
            wire.send(ok(lines, &body));
        }
    });
    (origin, up)
}

/// Stale at once, with something to ask by.
const STALE: &str = "Cache-Control: max-age=0\r\nETag: \"a\"\r\n";

#[test]
fn a_stale_answer_replaces_one_that_failed() {
    for (down, told) in [
        ("", "outrider; fwd=stale; ttl="),
        (
            "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno",
            "outrider; fwd=stale; fwd-status=500; ttl=",
        ),
        (
            "HTTP/1.1 502 No\r\nContent-Length: 2\r\n\r\nno",
            "outrider; fwd=stale; fwd-status=502; ttl=",
        ),
        (
            "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno",
            "outrider; fwd=stale; fwd-status=503; ttl=",
        ),
        (
            "HTTP/1.1 504 No\r\nContent-Length: 2\r\n\r\nno",
            "outrider; fwd=stale; fwd-status=504; ttl=",
        ),
        ("no HTTP at all\r\n\r\n", "outrider; fwd=stale; ttl="),
    ] {
        let (origin, up) = failing(STALE, down);
        let proxy = origin.proxy("cache: {}");
        assert_eq!(proxy.get(&origin.url("/")).text(), "answer 1");
        up.store(false, Ordering::SeqCst);
        for _ in 0..2 {
            let answer = proxy.get(&origin.url("/"));
            assert_eq!(
                (answer.status, answer.text()),
                (200, "answer 1".to_owned()),
                "{down}"
            );
            answer.assert_cache_status(told);
            assert!(
                answer
                    .header("cache-status")
                    .unwrap()
                    .ends_with("detail=stale-if-error")
            );
        }
        // Where there is nothing, the failure is what it is.
        assert!(proxy.get(&origin.url("/other")).status >= 500);
        // Who wants the newest gets no old one.
        assert!(
            proxy
                .ask("GET", &origin.url("/"), "Cache-Control: no-cache\r\n")
                .status
                >= 500
        );
        up.store(true, Ordering::SeqCst);
        assert_eq!(proxy.get(&origin.url("/")).text(), "answer 2", "{down}");
        let stale = [("destination", "p"), ("status", "stale")];
        assert_eq!(proxy.metric("outrider_cache_total", &stale), 2.0);
    }
}

/// The origin is gone altogether: its port is closed.
#[test]
fn a_stale_answer_replaces_that_of_an_origin_that_is_gone() {
    let (origin, _) = failing(
        "Cache-Control: max-age=0, stale-if-error=60\r\nConnection: close\r\n",
        "",
    );
    let proxy = origin.proxy("cache: { stale_if_error: 0s }");
    assert_eq!(proxy.get(&origin.url("/")).text(), "answer 1");
    let url = origin.url("/");
    origin.close();
    for _ in 0..2 {
        let answer = proxy.get(&url);
        assert_eq!((answer.status, answer.text()), (200, "answer 1".to_owned()));
        answer.assert_cache_status("outrider; fwd=stale; ttl=");
    }
}

/// Past a limit of ours, too: no request is left for what is known already.
#[test]
fn a_stale_answer_is_used_when_the_limit_is_reached() {
    let (origin, _) = failing(STALE, "");
    let proxy = origin.proxy("cache: {}, rate_limit: 1/h burst 1, on_limit: reject");
    assert_eq!(proxy.get(&origin.url("/")).text(), "answer 1");
    let answer = proxy.get(&origin.url("/"));
    assert_eq!((answer.status, answer.text()), (200, "answer 1".to_owned()));
    answer.assert_cache_status("outrider; fwd=stale; ttl=");
    assert_eq!(proxy.get(&origin.url("/other")).status, 429);
}

/// Nor is a destination asked that is left alone.
#[test]
fn a_stale_answer_is_used_when_the_circuit_is_open() {
    let (origin, up) = failing(STALE, "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno");
    let proxy = origin.proxy("cache: {}, circuit_breaker: { failures: 2, open_for: 1h }");
    proxy.get(&origin.url("/"));
    up.store(false, Ordering::SeqCst);
    let told = |_| {
        proxy
            .get(&origin.url("/"))
            .header("cache-status")
            .unwrap()
            .to_owned()
    };
    let told: Vec<_> = (0..4).map(told).collect();
    let asked = told.iter().filter(|told| told.contains("fwd-status=503")).count();
    assert_eq!(asked, 2, "{told:?}");
    assert!(
        told.iter().all(|told| told.ends_with("detail=stale-if-error")),
        "{told:?}"
    );
    assert_eq!(proxy.get(&origin.url("/other")).status, 503);
    let requests = [("destination", "p"), ("answered_by", "cache")];
    eventually("they are counted", || {
        proxy.metric("outrider_requests_total", &requests) == 4.0
    });
}

#[test]
fn what_forbids_staleness_is_kept_to() {
    for line in ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=0"] {
        let lines: &'static str = format!("Cache-Control: max-age=0, {line}\r\nETag: \"a\"\r\n").leak();
        let (origin, up) = failing(lines, "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno");
        let proxy = origin.proxy("cache: { stale_while_revalidate: 1h }");
        assert_eq!(proxy.get(&origin.url("/")).status, 200);
        up.store(false, Ordering::SeqCst);
        assert_eq!(proxy.get(&origin.url("/")).status, 503, "{line}");
    }
    let (origin, up) = failing(STALE, "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno");
    let proxy = origin.proxy("cache: { stale_if_error: 0s }");
    proxy.get(&origin.url("/"));
    up.store(false, Ordering::SeqCst);
    assert_eq!(proxy.get(&origin.url("/")).status, 503, "not asked for");
}

/// An answer that must be confirmed and cannot be becomes a 504, which still names the failure.
#[test]
fn what_cannot_be_confirmed_is_a_gateway_timeout() {
    for line in ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=0"] {
        let lines: &'static str =
            format!("Cache-Control: max-age=0, {line}\r\nETag: \"a\"\r\nConnection: close\r\n").leak();
        let (origin, _) = failing(lines, "");
        let proxy = origin.proxy("cache: {}");
        assert_eq!(proxy.get(&origin.url("/")).status, 200, "{line}");
        let (url, other) = (origin.url("/"), origin.url("/other"));
        origin.close();
        for _ in 0..2 {
            let answer = proxy.get(&url);
            let told = answer.assert_ours(504, "connection_refused");
            assert!(
                told.contains("has to be confirmed") && told.contains("refused the connection"),
                "{told}"
            );
            answer.assert_cache_status("outrider; fwd=stale");
        }
        // Where nothing is stored, and where the app asks past it, it is what it is.
        proxy.get(&other).assert_ours(502, "connection_refused");
        let asked = proxy.ask("GET", &url, "Cache-Control: no-cache\r\n");
        asked.assert_ours(502, "connection_refused");
    }
    // An answer of the destination's own is more than we could say.
    let (origin, up) = failing(
        "Cache-Control: max-age=0, must-revalidate\r\n",
        "HTTP/1.1 502 No\r\nContent-Length: 2\r\n\r\nno",
    );
    let proxy = origin.proxy("cache: {}");
    proxy.get(&origin.url("/"));
    up.store(false, Ordering::SeqCst);
    let answer = proxy.get(&origin.url("/"));
    assert_eq!((answer.status, answer.text()), (502, "no".to_owned()));
}

/// The stale answer comes at once; behind it exactly one request refreshes.
#[test]
fn a_stale_answer_is_refreshed_behind_the_app() {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let origin = Origin::http(move |wire| {
        while wire.request().is_ok() {
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            if number > 1 {
                let _ = gate.lock().unwrap().recv();
            }
            let lines = if number == 1 {
                STALE
            } else {
                "Cache-Control: max-age=60\r\nETag: \"b\"\r\n"
            };
            wire.send(ok(lines, &format!("answer {number}")));
        }
    });
    let proxy = origin.proxy("cache: { stale_while_revalidate: 1m }");
    assert_eq!(proxy.get(&origin.url("/")).text(), "answer 1");
    for _ in 0..5 {
        let answer = proxy.get(&origin.url("/"));
        assert_eq!(answer.text(), "answer 1");
        answer.assert_cache_status("outrider; hit; ttl=");
    }
    eventually("it is refreshed", || count.load(Ordering::SeqCst) == 2);
    open.send(()).unwrap();
    eventually("the new answer", || {
        proxy.get(&origin.url("/")).text() == "answer 2"
    });
    assert_eq!(count.load(Ordering::SeqCst), 2);
    assert!(proxy.metric("outrider_cache_total", &[("status", "stale")]) >= 5.0);
    // The refresh is no request of the app's.
    let asked = [("destination", "p"), ("answered_by", "upstream")];
    assert_eq!(proxy.metric("outrider_requests_total", &asked), 1.0);
}

/// A refresh that is going on holds the end back, so that it is not cut.
#[test]
fn a_refresh_is_waited_for_at_the_end() {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let count = AtomicUsize::new(0);
    let origin = Origin::http(move |wire| {
        while wire.request().is_ok() {
            if count.fetch_add(1, Ordering::SeqCst) > 0 {
                let _ = gate.lock().unwrap().recv();
            }
            wire.send(ok(STALE, "body"));
        }
    });
    let mut proxy = origin.proxy("cache: { stale_while_revalidate: 1m }");
    proxy.get(&origin.url("/"));
    proxy.get(&origin.url("/"));
    origin.wait("the refresh", |seen| {
        let all: Vec<u8> = seen.iter().flat_map(|seen| seen.bytes.clone()).collect();
        String::from_utf8_lossy(&all).matches("GET /").count() == 2
    });
    proxy.signal(rustix::process::Signal::TERM);
    eventually("it is leaving", || proxy.log().contains("leaving"));
    std::thread::park_timeout(std::time::Duration::from_millis(1500));
    assert!(proxy.runs(), "the refresh is going on");
    open.send(()).unwrap();
    assert!(proxy.exit().success());
}

/// `min_fresh`: an app that asks too often is answered from the cache, against its own and the answer's directives.
#[test]
fn an_eager_app_is_tamed() {
    let (origin, _) = failing(
        "Cache-Control: max-age=0, private, must-revalidate\r\nETag: \"a\"\r\n",
        "",
    );
    let proxy = origin.proxy("cache: { min_fresh: 1h }");
    proxy.get(&origin.url("/"));
    for line in [
        "",
        "Cache-Control: no-cache\r\n",
        "Cache-Control: max-age=0\r\n",
        "Pragma: no-cache\r\n",
    ] {
        let answer = proxy.ask("GET", &origin.url("/"), line);
        assert_eq!(answer.text(), "answer 1", "{line}");
        answer.assert_cache_status("outrider; hit; ttl=");
    }
    // Its own change is seen, though.
    proxy.ask("POST", &origin.url("/"), "Content-Length: 0\r\n");
    assert_ne!(proxy.get(&origin.url("/")).text(), "answer 1");

    // The upstream's clear word goes before.
    for lines in [
        "Cache-Control: no-store\r\n",
        "Cache-Control: no-cache\r\nETag: \"a\"\r\n",
    ] {
        let (origin, _) = failing(lines, "");
        let proxy = origin.proxy("cache: { min_fresh: 1h }");
        assert_eq!(proxy.get(&origin.url("/")).text(), "answer 1");
        assert_eq!(proxy.get(&origin.url("/")).text(), "answer 2", "{lines}");
    }
}

/// What the app demands is kept to where nothing tames it.
#[test]
fn an_app_is_given_what_it_demands() {
    let (origin, _) = failing("Cache-Control: max-age=60\r\n", "");
    let proxy = origin.proxy("cache: {}");
    let ask = |line: &str| proxy.ask("GET", &origin.url("/"), line);
    let nothing = ask("Cache-Control: only-if-cached\r\n");
    nothing.assert_ours(504, "http_request_denied");
    nothing.assert_cache_status("outrider; detail=only-if-cached");
    assert_eq!(ask("").text(), "answer 1");
    for (line, text, status) in [
        ("Cache-Control: only-if-cached\r\n", "answer 1", "outrider; hit"),
        ("Cache-Control: max-age=50\r\n", "answer 1", "outrider; hit"),
        (
            "Cache-Control: no-cache\r\n",
            "answer 2",
            "outrider; fwd=request; stored",
        ),
        ("", "answer 2", "outrider; hit"),
        (
            "Cache-Control: max-age=0\r\n",
            "answer 3",
            "outrider; fwd=request; stored",
        ),
        (
            "Cache-Control: min-fresh=100\r\n",
            "answer 4",
            "outrider; fwd=request; stored",
        ),
        ("Cache-Control: no-store\r\n", "answer 5", "outrider; fwd=bypass"),
        ("Range: bytes=0-1\r\n", "answer 6", "outrider; fwd=bypass"),
        ("If-Match: \"a\"\r\n", "answer 7", "outrider; fwd=bypass"),
        ("", "answer 4", "outrider; hit"),
    ] {
        let answer = ask(line);
        assert_eq!(answer.text(), text, "{line}");
        answer.assert_cache_status(status);
    }
}

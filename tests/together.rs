//! Equal requests in flight: one asks, and nobody is held up by it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use crate::support::h2::{self, DATA, END_HEADERS, END_STREAM, HEADERS, frame};
use crate::support::h2_origin::H2Partner;
use crate::support::partner::Partner;
use crate::support::{Origin, Proxy, Response, Wire, eventually, ok};

/// Starts an origin that counts its requests and lets the first one wait for its sender.
fn gated(
    answer: impl Fn(usize) -> String + Send + Sync + 'static,
) -> (Origin, Arc<AtomicUsize>, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let origin = Origin::http(move |wire| {
        while wire.request().is_ok() {
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            if number == 1 {
                let _ = gate.lock().unwrap().recv();
            }
            wire.send(answer(number));
        }
    });
    (origin, count, open)
}

/// Sends so many requests, each on a new connection, and does not read the answers.
fn send(proxy: &Proxy, origin: &Origin, many: usize) -> Vec<Wire> {
    let wires = (0..many).map(|_| {
        let mut wire = proxy.wire();
        wire.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")));
        wire
    });
    let wires: Vec<_> = wires.collect();
    eventually("they are all in", || in_flight(proxy) >= many as f64);
    wires
}

fn in_flight(proxy: &Proxy) -> f64 {
    proxy.metric("outrider_requests_in_flight", &[("destination", "p")])
}

fn answers(wires: Vec<Wire>) -> Vec<Response> {
    let threads = wires
        .into_iter()
        .map(|mut wire| thread::spawn(move || wire.response()));
    let threads: Vec<_> = threads.collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn is_collapsed(answer: &Response) -> bool {
    answer
        .header("cache-status")
        .is_some_and(|told| told.contains("collapsed"))
}

#[test]
fn fifty_equal_requests_are_one() {
    for lines in [
        "Cache-Control: max-age=60\r\n",
        "ETag: \"no time of its own\"\r\n",
    ] {
        let (origin, count, open) = gated(move |number| ok(lines, &format!("answer {number}")));
        let proxy = origin.proxy("cache: {}");
        let wires = send(&proxy, &origin, 50);
        open.send(()).unwrap();
        let answers = answers(wires);
        assert!(answers.iter().all(|answer| answer.text() == "answer 1"));
        assert_eq!(answers.iter().filter(|answer| is_collapsed(answer)).count(), 49);
        assert_eq!(count.load(Ordering::SeqCst), 1, "{lines}");
        let hits = [("destination", "p"), ("status", "hit")];
        assert_eq!(proxy.metric("outrider_cache_total", &hits), 49.0);
    }
}

/// What turns out not to be for storing holds nobody up: the others go at once, and later ones do not wait at all.
#[test]
fn what_is_not_stored_is_asked_for_by_each() {
    for first in [
        ok("Cache-Control: no-store\r\n", "body"),
        ok("Cache-Control: max-age=60\r\nSet-Cookie: a=b\r\n", "body"),
        ok("Cache-Control: max-age=60\r\nVary: *\r\n", "body"),
        "HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbody".to_owned(),
        // Larger than an eighth of the cache: known by its length.
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 9000000\r\n\r\n".to_owned(),
    ] {
        let other = ok("Cache-Control: no-store\r\n", "body");
        let (origin, count, open) =
            gated(move |number| if number == 1 { first.clone() } else { other.clone() });
        let proxy = origin.proxy("cache: {}");
        let mut wires = send(&proxy, &origin, 20);
        open.send(()).unwrap();
        // Each has asked, though the body of the large one never ends.
        eventually("each has asked", || count.load(Ordering::SeqCst) == 20);
        wires.truncate(0);
    }
}

/// An app that leaves takes nobody with it: one of the others asks.
#[test]
fn who_leads_may_leave() {
    let (origin, count, _open) =
        gated(|number| ok("Cache-Control: max-age=60\r\n", &format!("answer {number}")));
    let proxy = origin.proxy("cache: {}");
    let leader = send(&proxy, &origin, 1);
    eventually("the first has asked", || count.load(Ordering::SeqCst) == 1);
    let wires = send(&proxy, &origin, 20);
    for wire in leader {
        wire.reset();
    }
    let answers = answers(wires);
    assert!(
        answers.iter().all(|answer| answer.text() == "answer 2"),
        "{answers:?}"
    );
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

/// The same in the middle of the body.
#[test]
fn who_leads_may_leave_on_the_way() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let origin = Origin::http(move |wire| {
        while wire.request().is_ok() {
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            let whole = ok("Cache-Control: max-age=60\r\n", &format!("answer {number}"));
            if number == 1 {
                wire.send(&whole[..whole.len() - 4]);
            } else {
                wire.send(whole);
            }
        }
    });
    let proxy = origin.proxy("cache: {}");
    let mut leader = send(&proxy, &origin, 1).remove(0);
    while leader.read_line() != "\r\n" {}
    let waiting = thread::scope(|scope| {
        let proxy = &proxy;
        let all: Vec<_> = (0..5)
            .map(|_| scope.spawn(|| proxy.get(&origin.url("/"))))
            .collect();
        eventually("they wait", || in_flight(proxy) >= 6.0);
        leader.reset();
        all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(
        waiting.iter().all(|answer| answer.text() == "answer 2"),
        "{waiting:?}"
    );
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

/// Where the upstream fails the others stand on their own; with something stale at hand nobody asks again.
#[test]
fn a_failure_is_shared_if_something_replaces_it() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::http(move |wire| {
        while wire.request().is_ok() {
            if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                wire.send(ok("Cache-Control: max-age=0\r\nETag: \"a\"\r\n", "kept"));
            } else {
                let _ = gate.lock().unwrap().recv();
                wire.send("HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno");
            }
        }
    });
    let proxy = origin.proxy("cache: {}");
    assert_eq!(proxy.get(&origin.url("/")).text(), "kept");
    let wires = send(&proxy, &origin, 20);
    open.send(()).unwrap();
    let answers = answers(wires);
    assert!(answers.iter().all(|answer| answer.text() == "kept"));
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

/// Inside an intercepted tunnel as outside of it.
#[test]
fn a_tunnel_shares_with_the_others() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let partner = Partner::with(move |wire| {
        while wire.request().is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
            wire.send(ok("Cache-Control: max-age=60\r\n", "body"));
        }
    });
    let proxy = partner.proxy("cache: {}");
    assert_eq!(proxy.get(&partner.url("/")).text(), "body");
    let mut wire = proxy.intercepted(&partner.authority());
    for _ in 0..2 {
        let answer = wire.get(&partner.authority(), "/");
        assert_eq!(answer.text(), "body");
        assert!(
            answer
                .header("cache-status")
                .unwrap()
                .starts_with("outrider; hit")
        );
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

/// HTTP/2 on either side, and HTTP/1.1 from another app beside it: one request.
#[test]
fn protocols_share_what_is_stored() {
    let partner = H2Partner::new();
    let proxy = partner.proxy("http: 2, cache: { min_fresh: 1h }");
    let url = format!("https://{}/old", partner.authority());
    assert_eq!(proxy.get(&url).text(), "/old");
    let mut wire = proxy.intercepted_as(&partner.authority(), &["h2"]);
    h2::greet(&mut wire);
    for stream in [1, 3] {
        let head = h2::get(&partner.authority(), "/old");
        wire.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head));
        assert_eq!(h2::outcome(&mut wire, stream), Some(200));
        let body = h2::read_until(&mut wire, |frame| frame.kind == DATA && frame.stream == stream);
        assert_eq!(body.unwrap().payload, b"/old");
    }
    assert_eq!(proxy.get(&url).text(), "/old");
    assert_eq!(partner.asked().len(), 1);
}

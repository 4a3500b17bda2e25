//! Apps that leave before their answer: what waited for them is never sent, and what it held is free at once.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::dns::{Answer, Dns};
use crate::support::partner::Partner;
use crate::support::proxy::destination;
use crate::support::{Origin, Proxy, Wire, eventually, h2};

/// Holds the answers to `/held` back until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let open = self.0.0.lock().unwrap();
        let patience = Duration::from_secs(60);
        drop((self.0.1).wait_timeout_while(open, patience, |is_open| !*is_open));
    }

    fn script(&self) -> impl Fn(&mut Wire) + Send + Sync + 'static {
        let gate = self.clone();
        move |wire| {
            while let Ok(request) = wire.request() {
                if request.target().starts_with("/held") {
                    gate.pass();
                }
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Departure {
    Reset,
    Closed,
}

impl Departure {
    const ALL: [Self; 2] = [Self::Reset, Self::Closed];

    fn leave(self, wire: Wire) {
        match self {
            Self::Reset => wire.reset(),
            Self::Closed => drop(wire),
        }
    }
}

/// Sends a request, of whose body the proxy need not take all.
fn asking(proxy: &Proxy, request: &str) -> Wire {
    let mut wire = proxy.wire();
    let patience = Some(Duration::from_millis(500));
    wire.socket().set_write_timeout(patience).unwrap();
    wire.send(request);
    wire
}

fn waiting(proxy: &Proxy) -> f64 {
    proxy.metric("outrider_limit_waiting", &[])
}

fn in_flight(proxy: &Proxy) -> f64 {
    proxy.metric("outrider_requests_in_flight", &[])
}

fn left(proxy: &Proxy) -> f64 {
    proxy.metric(
        "outrider_requests_total",
        &[("code", "499"), ("answered_by", "outrider")],
    )
}

/// Returns requests with every kind of unread bytes behind the head, which must hide neither FIN nor RST.
fn requests(url: &str) -> Vec<(&'static str, String)> {
    let post = format!("POST {url} HTTP/1.1\r\nHost: x\r\n");
    let large = "x".repeat(3_000_000);
    vec![
        ("nothing", format!("GET {url} HTTP/1.1\r\nHost: x\r\n\r\n")),
        ("a body", format!("{post}Content-Length: 3\r\n\r\nx=1")),
        (
            "a large body",
            format!("{post}Content-Length: 3000000\r\n\r\n{large}"),
        ),
        (
            "chunks",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n3\r\nx=1\r\n0\r\n\r\n"),
        ),
        ("half a body", format!("{post}Content-Length: 30\r\n\r\nx=1")),
        (
            "no body yet",
            format!("{post}Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"),
        ),
        (
            "the next request",
            format!("GET {url} HTTP/1.1\r\nHost: x\r\n\r\nGET {url}/next HTTP/1.1\r\nHost: x\r\n\r\n"),
        ),
    ]
}

/// A queued request ends when its app leaves, even with unread bytes, and those behind it move up.
#[test]
fn a_queued_request_whose_app_leaves_is_never_sent() {
    let gate = Gate::default();
    let origin = Origin::http(gate.script());
    let proxy = origin.proxy("concurrency: 1, on_limit: wait 60s");
    let mut first = proxy.wire();
    first.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/held")));
    origin.wait("the first", |seen| !seen.is_empty() && !seen[0].bytes.is_empty());
    let mut gone = 0.0;
    for (unread, request) in requests(&origin.url("/gone")) {
        for how in Departure::ALL {
            if how == Departure::Closed && unread == "a large body" {
                // Its FIN stays behind what the proxy has no room for.
                continue;
            }
            let wire = asking(&proxy, &request);
            eventually("it waits", || waiting(&proxy) == 1.0);
            let since = Instant::now();
            how.leave(wire);
            eventually(&format!("{unread} {how:?} waits no more"), || {
                waiting(&proxy) == 0.0
            });
            assert!(
                since.elapsed() < Duration::from_secs(2),
                "{unread} {how:?}: {:?}",
                since.elapsed()
            );
            gone += 1.0;
            eventually("it is recorded", || left(&proxy) == gone);
        }
    }
    gate.open();
    assert_eq!(first.response().status, 200);
    assert_eq!(proxy.get(&origin.url("/after")).status, 200);
    assert!(!origin.raw().contains("/gone"), "{}", origin.raw());
}

/// The same under the app's own TLS, and through a Unix socket.
#[test]
fn inside_a_tunnel_and_by_a_unix_socket_it_is_the_same() {
    let gate = Gate::default();
    let partner = Partner::with(gate.script());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outrider.sock");
    let settings = partner.yaml("concurrency: 1, on_limit: wait 60s");
    let listen = format!("listen: [\"127.0.0.1:0\", \"unix:{}\"]\n", path.display());
    let proxy = Proxy::start_with(
        &format!("{settings}{listen}"),
        &[("TOKEN", crate::support::TOKEN)],
    );
    let mut first = proxy.intercepted(&partner.authority());
    let host = partner.authority();
    first.send(format!("GET /held HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    partner.origin.wait("the first", |seen| {
        seen.iter().any(|seen| seen.bytes.starts_with(b"GET /held"))
    });
    for unread in ["", "Content-Length: 3\r\n\r\nx=1"] {
        for how in Departure::ALL {
            let mut wire = proxy.intercepted(&partner.authority());
            let method = if unread.is_empty() { "GET" } else { "POST" };
            let end = if unread.is_empty() { "\r\n" } else { unread };
            wire.send(format!("{method} /gone HTTP/1.1\r\nHost: {host}\r\n{end}"));
            eventually("it waits", || waiting(&proxy) == 1.0);
            how.leave(wire);
            eventually("it waits no more", || waiting(&proxy) == 0.0);
        }
    }
    for unread in ["", "x=1"] {
        let mut app = UnixStream::connect(&path).unwrap();
        let url = partner.url("/gone");
        let length = unread.len();
        write!(
            app,
            "POST {url} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{unread}"
        )
        .unwrap();
        eventually("it waits", || waiting(&proxy) == 1.0);
        drop(app);
        eventually("it waits no more", || waiting(&proxy) == 0.0);
    }
    gate.open();
    assert_eq!(first.response().status, 200);
    assert!(
        !partner.origin.raw().contains("/gone"),
        "{}",
        partner.origin.raw()
    );
}

/// HTTP/2: a stream that is reset, and a connection that is gone.
#[test]
fn a_stream_that_is_reset_while_it_waits_is_never_sent() {
    let gate = Gate::default();
    let held = gate.clone();
    let partner = Partner::offering(&["h2"], move |wire| {
        let _ = wire.read_exact(24);
        wire.send(h2::frame(h2::SETTINGS, 0, 0, &[]));
        while let Some(asked) = h2::read_until(wire, |frame| frame.kind == h2::HEADERS) {
            held.pass();
            wire.send(h2::frame(
                h2::HEADERS,
                h2::END_HEADERS | h2::END_STREAM,
                asked.stream,
                &[0x88],
            ));
        }
    });
    let proxy = partner.proxy("concurrency: 1, on_limit: wait 60s");
    let open = || {
        let mut wire = proxy.intercepted_as(&partner.authority(), &["h2"]);
        h2::greet(&mut wire);
        wire
    };
    let get = |path: &str| h2::get(&partner.authority(), path);
    let (mut first, mut second) = (open(), open());
    let begin = h2::END_HEADERS | h2::END_STREAM;
    first.send(h2::frame(h2::HEADERS, begin, 1, &get("/held")));
    eventually("the first is under way", || {
        proxy.metric("outrider_requests_in_flight", &[]) == 1.0
    });
    for stream in [1_u32, 3] {
        second.send(h2::frame(h2::HEADERS, begin, stream, &get("/gone")));
        eventually("it waits", || waiting(&proxy) == 1.0);
        second.send(h2::frame(h2::RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        eventually("it waits no more", || waiting(&proxy) == 0.0);
    }
    for how in Departure::ALL {
        let mut wire = open();
        wire.send(h2::frame(h2::HEADERS, begin, 1, &get("/gone")));
        eventually("it waits", || waiting(&proxy) == 1.0);
        how.leave(wire);
        eventually("it waits no more", || waiting(&proxy) == 0.0);
    }
    gate.open();
    assert_eq!(h2::outcome(&mut first, 1), Some(200));
}

/// A slot belongs to an answer that can still be delivered.
#[test]
fn the_slot_of_an_app_that_left_is_free_at_once() {
    let gate = Gate::default();
    let origin = Origin::http(gate.script());
    let proxy = origin.proxy("concurrency: 1, on_limit: reject");
    for (number, (unread, request)) in requests(&origin.url("/held")).into_iter().enumerate() {
        // What is not whole at the origin is asked for in vain.
        if matches!(unread, "half a body" | "no body yet" | "a large body") {
            continue;
        }
        for how in Departure::ALL {
            let mut wire = proxy.wire();
            let held = || origin.raw().matches(" /held").count();
            let before = held();
            wire.send(&request);
            eventually("the origin has it", || held() > before);
            let since = Instant::now();
            how.leave(wire);
            eventually("the slot is free", || proxy.get(&origin.url("/")).status == 200);
            eventually("nothing is under way", || in_flight(&proxy) == 0.0);
            assert!(
                since.elapsed() < Duration::from_secs(3),
                "{number} {unread} {how:?}: {:?}",
                since.elapsed()
            );
        }
    }
    gate.open();
}

/// An app that closed only its sending side is distinguished from one that left, however long its answer takes.
#[test]
fn a_half_closed_app_waits_as_long_as_any() {
    let gate = Gate::default();
    let origin = Origin::http(gate.script());
    let proxy = origin.proxy("concurrency: 1, on_limit: wait 60s");
    let mut wires = Vec::new();
    for (version, method, body) in [
        ("1.1", "GET", "\r\n"),
        ("1.0", "GET", "\r\n"),
        ("1.1", "POST", "Content-Length: 3\r\n\r\nx=1"),
    ] {
        let mut wire = proxy.wire();
        wire.send(format!(
            "{method} {} HTTP/{version}\r\nHost: x\r\n{body}",
            origin.url("/held")
        ));
        wire.half_close();
        wires.push(wire);
    }
    // Two requests at once, and the app says no more: the answers are whole, each with one status line.
    let mut wire = proxy.wire();
    let get = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/held"));
    wire.send(format!("{get}{get}"));
    wire.half_close();
    wires.push(wire);
    eventually("one has gone, the others wait", || waiting(&proxy) == 3.0);
    // Longer than an app that left was waited for, once.
    thread::park_timeout(Duration::from_secs(7));
    assert_eq!(waiting(&proxy), 3.0);
    gate.open();
    for mut wire in wires {
        let answer = wire.response();
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        let (rest, end) = wire.rest();
        end.unwrap();
        if !rest.is_empty() {
            assert!(
                rest.starts_with(b"HTTP/1.1 200 OK\r\n") && rest.ends_with(b"ok"),
                "{rest:?}"
            );
        }
    }
    assert_eq!(left(&proxy), 0.0);
}

/// An answer that pauses is not cut because the app closed its side with its request.
#[test]
fn a_half_closed_app_gets_an_answer_that_pauses() {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::http(move |wire| {
        let _ = wire.request();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
        let _ = gate.lock().unwrap().recv();
        wire.send("done");
    });
    let proxy = origin.proxy("");
    let mut wire = proxy.wire();
    wire.send(format!("GET {} HTTP/1.0\r\nHost: x\r\n\r\n", origin.url("/")));
    wire.half_close();
    while wire.read_line() != "\r\n" {}
    thread::park_timeout(Duration::from_secs(7));
    go.send(()).unwrap();
    assert_eq!(wire.read_exact(8).unwrap(), b"halfdone");
}

/// While a connection is made: the handshake of an upstream that says nothing is given up with the app.
#[test]
fn an_app_that_leaves_while_its_request_waits_for_a_connection_takes_it_along() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = Proxy::to(
        &format!("partner.test:{port}"),
        "upgrade: true, timeouts: { tls: 10m }",
    );
    for (unread, request) in requests(&format!("http://partner.test:{port}/gone")) {
        for how in Departure::ALL {
            if how == Departure::Closed && unread == "a large body" {
                continue;
            }
            let wire = asking(&proxy, &request);
            let (upstream, _) = listener.accept().unwrap();
            let mut upstream = Wire::over(Box::new(upstream.try_clone().unwrap()), upstream);
            // A ClientHello, which stays without an answer.
            assert_eq!(upstream.read_exact(1).unwrap(), [0x16], "{unread}");
            let since = Instant::now();
            how.leave(wire);
            let _ = upstream.rest();
            assert!(
                since.elapsed() < Duration::from_secs(2),
                "{unread} {how:?}: {:?}",
                since.elapsed()
            );
        }
    }
}

/// A CONNECT that waits for one of the tunnels that a limit allows, what it will say lying behind it.
#[test]
fn a_connect_whose_app_leaves_opens_no_tunnel() {
    let origin = Origin::plain();
    let proxy = origin.proxy("mode: tunnel, concurrency: 1, on_limit: wait 60s");
    let mut first = proxy.tunnel(&origin.authority());
    assert_eq!(first.get("x", "/first").status, 200);
    for early in ["", "GET /gone HTTP/1.1\r\n\r\n"] {
        for how in Departure::ALL {
            let mut wire = proxy.wire();
            wire.send(format!(
                "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n{early}",
                origin.authority()
            ));
            eventually("it waits", || waiting(&proxy) == 1.0);
            how.leave(wire);
            eventually("it waits no more", || waiting(&proxy) == 0.0);
        }
    }
    drop(first);
    let mut next = proxy.tunnel(&origin.authority());
    assert_eq!(next.get("x", "/next").status, 200);
    assert_eq!(origin.seen().len(), 2);
}

/// A WebSocket's handshake, and one whose app has closed its side by then.
#[test]
fn a_handshake_that_waits_is_over_with_its_app() {
    let gate = Gate::default();
    let origin = Origin::http(gate.script());
    let proxy = origin.proxy("concurrency: 1, on_limit: wait 60s");
    let mut first = proxy.wire();
    first.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/held")));
    origin.wait("the first", |seen| !seen.is_empty() && !seen[0].bytes.is_empty());
    for how in Departure::ALL {
        let mut wire = proxy.wire();
        wire.send(format!(
            "GET {} HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            origin.url("/gone")
        ));
        eventually("it waits", || waiting(&proxy) == 1.0);
        how.leave(wire);
        eventually("it waits no more", || waiting(&proxy) == 0.0);
    }
    gate.open();
    assert_eq!(first.response().status, 200);
    assert!(!origin.raw().contains("/gone"));
}

/// What a request took of a rate goes back where it is not sent, and only there.
#[test]
fn what_a_request_took_that_is_not_sent_goes_back() {
    const LIMIT: &str = "rate_limit: 2/h burst 2, on_limit: reject, retry: { attempts: 2 }";
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let gate = Gate::default();
    let origin = Origin::http(gate.script());
    let mut connections = Vec::new();
    let (half, whole) = ("Content-Length: 10\r\n\r\nhalf", "\r\n");
    for (place, proxy, url, request, taken) in [
        // What may be repeated is read whole before it is sent, and after it was admitted.
        ("the body", origin.proxy(LIMIT), origin.url("/gone"), half, 0),
        (
            "the connection",
            Proxy::to(
                &format!("partner.test:{port}"),
                &format!("upgrade: true, {LIMIT}"),
            ),
            format!("http://partner.test:{port}/gone"),
            whole,
            0,
        ),
        ("the answer", origin.proxy(LIMIT), origin.url("/held"), whole, 2),
    ] {
        for turn in 0..4 {
            let before = origin.raw().len();
            let how = Departure::ALL[turn % 2];
            let mut wire = proxy.wire();
            wire.send(format!("PUT {url} HTTP/1.1\r\nHost: x\r\n{request}"));
            if turn >= 2 && taken == 2 {
                assert_eq!(wire.response().status, 429, "{place}");
                continue;
            }
            match place {
                "the body" => eventually("it is under way", || in_flight(&proxy) == 1.0),
                "the connection" => connections.push(silent.accept().unwrap()),
                _ => eventually("it is sent", || origin.raw().len() > before),
            }
            how.leave(wire);
            eventually("it is over", || in_flight(&proxy) == 0.0);
        }
        let mut wires: Vec<_> = (taken..2).map(|_| proxy.wire()).collect();
        for (before, wire) in wires.iter_mut().enumerate() {
            wire.send(format!("PUT {url} HTTP/1.1\r\nHost: x\r\n{request}"));
            eventually("it is let through", || in_flight(&proxy) > before as f64);
        }
        assert_eq!(proxy.ask("GET", &url, "").status, 429, "{place}");
    }
    gate.open();
    assert!(!origin.raw().contains("/gone"), "{}", origin.raw());
}

/// Wherever else a request may wait, nothing is left of it.
#[test]
fn a_request_is_over_with_its_app_wherever_it_waits() {
    let gate = Gate::default();
    let refusing = Origin::http(|wire| {
        while wire.request().is_ok() {
            wire.send("HTTP/1.1 503 Wait\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let patient = "on_limit: wait 120s";
    let held = gate.clone();
    let dns = Dns::serve(move |_, _| {
        held.pass();
        Answer::Silence
    });
    let names = format!("dns: {{ servers: [\"{}\"], timeout: 60s }}\n", dns.address());
    for (place, proxy, sent) in [
        (
            "an address",
            Proxy::start(&format!(
                "{names}{}",
                destination(&format!("slow.test:{}", refusing.port()), "")
            )),
            0,
        ),
        (
            "another try",
            refusing.proxy("retry: { on: [503], max_wait: 120s }, respect_upstream: false"),
            1,
        ),
        ("the end of a pause", refusing.proxy(patient), 1),
        (
            "a rehearsed delay",
            refusing.proxy("rehearse: { latency: 60s }"),
            0,
        ),
    ] {
        let host = if place == "an address" {
            "slow.test"
        } else {
            "partner.test"
        };
        let url = format!("http://{host}:{}/gone", refusing.port());
        let asked = || refusing.raw().matches("/gone").count();
        let before = asked();
        if place == "the end of a pause" {
            // Of the same kind as those that follow.
            let told = proxy.wire().ask(format!(
                "PUT {url} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            ));
            assert_eq!(told.status, 503);
        }
        for (number, how) in Departure::ALL.into_iter().enumerate() {
            let mut wire = proxy.wire();
            wire.send(format!(
                "PUT {url} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nx=1"
            ));
            eventually(place, || in_flight(&proxy) == 1.0);
            let tries = if place == "another try" { number + 1 } else { sent };
            eventually(place, || asked() == before + tries);
            let since = Instant::now();
            how.leave(wire);
            eventually(place, || in_flight(&proxy) == 0.0);
            assert!(
                since.elapsed() < Duration::from_secs(2),
                "{place} {how:?}: {:?}",
                since.elapsed()
            );
            eventually(place, || left(&proxy) == (number + 1) as f64);
        }
        let tries = if place == "another try" { 2 } else { sent };
        assert_eq!(asked(), before + tries, "{place}");
    }
    gate.open();
}

/// Several ask for the same; the one whose request went out leaves, and another one's takes its place.
#[test]
fn those_who_wait_for_the_same_answer_do_not_leave_with_the_first() {
    for how in Departure::ALL {
        let gate = Gate::default();
        let origin = Origin::http(gate.script());
        let proxy = origin.proxy("cache: { size: 1MiB }");
        let get = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/held"));
        let asked = || origin.raw().matches("GET /held").count();
        let mut wires: Vec<_> = (0..4).map(|_| proxy.wire()).collect();
        for (before, wire) in wires.iter_mut().enumerate() {
            wire.send(&get);
            eventually("it has come", || in_flight(&proxy) > before as f64);
            eventually("one is sent", || asked() == 1);
        }
        how.leave(wires.remove(0));
        eventually("it is over", || left(&proxy) == 1.0);
        // Which of the others it is nobody knows.
        eventually("another one is sent", || asked() == 2);
        gate.open();
        for wire in &mut wires {
            assert_eq!(wire.response().text(), "ok");
        }
    }
}

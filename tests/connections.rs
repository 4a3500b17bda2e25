//! Group J: connections, time and memory. One slow, dead or greedy peer costs nobody else anything.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::support::origin::ok;
use crate::support::{Origin, Proxy, Wire, closed_port, eventually};

fn plain(origin: &Origin, extra: &str) -> Proxy {
    Proxy::start(&format!(
        "destinations: {{ plain: {{ hosts: [\"{}\"]{extra} }} }}",
        origin.authority()
    ))
}

/// Answers the first request of the first connection and then closes on the second one, without a word.
fn closing_under_the_second_request() -> Origin {
    Origin::numbered(None, |wire, number| {
        if number > 0 {
            return ok(wire);
        }
        let _ = wire.request();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let _ = wire.request_head();
    })
}

/// J1: a connection that dies under a request that may be repeated costs nothing.
#[test]
fn a_get_on_a_dying_connection_is_sent_again_once() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        let origin = closing_under_the_second_request();
        let proxy = plain(&origin, "");
        let mut wire = proxy.wire();
        assert_eq!(
            wire.ask(format!(
                "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
                origin.url("/first")
            ))
            .status,
            200
        );
        wire.send(format!(
            "{method} {} HTTP/1.1\r\nHost: x\r\n\r\n",
            origin.url("/second")
        ));
        assert_eq!(wire.bodiless_response().status, 200, "{method}");
        assert_eq!(origin.seen().len(), 2, "{method}");
    }
}

/// J1: a request that may have been done is not sent again.
#[test]
fn a_post_is_never_replayed() {
    for length in [0, 5] {
        let origin = closing_under_the_second_request();
        let proxy = plain(&origin, "");
        let mut wire = proxy.wire();
        assert_eq!(
            wire.ask(format!(
                "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
                origin.url("/first")
            ))
            .status,
            200
        );
        let body = "x".repeat(length);
        let answer = wire.ask(format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}",
            origin.url("/post")
        ));
        assert_eq!(answer.status, 502, "{answer:?}");
        assert_eq!(origin.raw().matches("POST /post").count(), 1, "{}", origin.raw());
    }
}

/// Idle connections to an origin are used again, and one that the origin has closed is not.
#[test]
fn connections_are_reused_while_they_live() {
    let origin = Origin::plain();
    let proxy = plain(&origin, "");
    let mut wire = proxy.wire();
    for _ in 0..20 {
        assert_eq!(
            wire.ask(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")))
                .status,
            200
        );
    }
    assert_eq!(origin.seen().len(), 1);
    assert_eq!(
        proxy.metric("outrider_upstream_reuses_total", &[("destination", "plain")]),
        19.0
    );
}

/// J2: heads that never end hold nobody else up, and are ended.
#[test]
fn slow_heads_are_ended_and_harm_nobody() {
    let origin = Origin::plain();
    let proxy = plain(&origin, "");
    let mut slow: Vec<Wire> = (0..100).map(|_| proxy.wire()).collect();
    for wire in &mut slow {
        wire.send("GET http://partner.test/ HTTP/1.1\r\nX-Slow: ");
    }
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    let started = Instant::now();
    for wire in &mut slow {
        wire.socket()
            .set_read_timeout(Some(Duration::from_secs(45)))
            .unwrap();
        let (_, end) = wire.rest();
        assert!(
            end.is_ok() || started.elapsed() < Duration::from_secs(45),
            "never ended"
        );
    }
    assert!(
        started.elapsed() < Duration::from_secs(45),
        "{:?}",
        started.elapsed()
    );
}

/// J2: a body that stops coming ends the request, and the origin never sees it whole.
#[test]
fn a_stalled_upload_is_ended() {
    let origin = Origin::plain();
    let proxy = plain(&origin, ", timeouts: { idle: 1s, response: 3s }");
    let mut wire = proxy.wire();
    wire.send(format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
        origin.url("/")
    ));
    let started = Instant::now();
    if let Ok(answer) = wire.try_response() {
        assert!(matches!(answer.status, 408 | 502 | 504), "{answer:?}");
    }
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
    origin.wait("the cut", |seen| seen.first().is_some_and(|seen| seen.ended));
}

/// J5: the time to the head of the response begins when the request is out, however long that takes.
#[test]
fn a_long_upload_is_not_a_slow_response() {
    let origin = Origin::plain();
    let proxy = plain(&origin, ", timeouts: { idle: 5s, response: 1s }");
    let mut wire = proxy.wire();
    wire.send(format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n",
        origin.url("/")
    ));
    for piece in 1..=5 {
        // The app is slow: half as slow as the limit, five times.
        thread::sleep(Duration::from_millis(500));
        wire.send("x");
        origin.wait("the piece", |seen| {
            seen.first()
                .is_some_and(|seen| seen.bytes.ends_with("x".repeat(piece).as_bytes()))
        });
    }
    assert_eq!(wire.response().status, 200);
}

/// J5: an upload of more pieces than a task may take in one turn leaves the limits in force, whether it is complete or stalls.
#[test]
fn an_upload_in_many_pieces_is_answered_in_time_all_the_same() {
    let silent = Origin::http(|wire| drop(wire.rest()));
    let proxy = plain(&silent, ", timeouts: { idle: 1s, response: 1s }");
    for (pieces, end) in [
        (100, "0\r\n\r\n"),
        (127, "0\r\n\r\n"),
        (300, "0\r\n\r\n"),
        (127, ""),
    ] {
        let mut wire = proxy.wire();
        let (url, body) = (silent.url("/"), "1\r\nx\r\n".repeat(pieces));
        let started = Instant::now();
        wire.send(format!(
            "POST {url} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}{end}"
        ));
        let status = wire.response().status;
        assert!(matches!(status, 408 | 502 | 504), "{status}");
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{:?}",
            started.elapsed()
        );
    }
}

/// J2: a stalled download is cut off, and the app notices.
#[test]
fn a_stalled_download_is_ended() {
    let origin = Origin::http(|wire| {
        let _ = wire.request();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        let _ = wire.rest();
    });
    let proxy = plain(&origin, ", timeouts: { idle: 1s }");
    let started = Instant::now();
    let answer = proxy.get(&origin.url("/"));
    assert!(!answer.complete && answer.text() == "half", "{answer:?}");
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
}

/// J2, invariant 9: connections have a cap; past it the refusal says so, and room is made again.
#[test]
fn connections_are_capped() {
    let origin = Origin::plain();
    let proxy = Proxy::start(&format!(
        "limits: {{ connections: 3 }}\ndestinations: {{ plain: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ));
    let ask = |wire: &mut Wire| {
        wire.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")))
            .try_response()
    };
    let mut held: Vec<Wire> = (0..3).map(|_| proxy.wire()).collect();
    for wire in &mut held {
        assert_eq!(ask(wire).unwrap().status, 200);
    }
    if let Ok(answer) = ask(&mut proxy.wire()) {
        answer.assert_ours(503, "connection_limit_reached");
    }
    held.pop();
    eventually("room again", || {
        ask(&mut proxy.wire()).is_ok_and(|answer| answer.status == 200)
    });
}

/// J3, invariant 9: readers that have stopped reading hold back their origins, not our memory.
#[test]
fn stalled_readers_cost_little_memory() {
    let origin = Origin::http(|wire| {
        let _ = wire.request();
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 64 << 20));
        let block = vec![0; 1 << 20];
        for _ in 0..64 {
            if wire.try_send(&block).is_err() {
                return;
            }
        }
    });
    let proxy = plain(&origin, "");
    assert_eq!(proxy.page("/healthz").status, 200);
    let before = proxy.resident();
    let mut stalled: Vec<Wire> = Vec::new();
    for _ in 0..100 {
        let mut wire = proxy.wire();
        wire.receive_little();
        wire.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")));
        assert_eq!(wire.read_line(), "HTTP/1.1 200 OK\r\n");
        stalled.push(wire);
    }
    let growth = proxy.resident_peak().saturating_sub(before);
    assert!(growth < 24 << 20, "{} MB for 100 stalled readers", growth >> 20);
}

/// J4: out of file descriptors, the proxy neither exits nor spins, and recovers.
#[test]
fn running_out_of_descriptors_is_survived() {
    let origin = Origin::plain();
    let mut proxy = plain(&origin, "");
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    let pid = Pid::from_raw(proxy.pid().cast_signed()).unwrap();
    let open = proxy.metric("process_open_fds", &[]) as u64;
    let old = prlimit(
        Some(pid),
        Resource::Nofile,
        Rlimit {
            current: Some(open + 4),
            maximum: None,
        },
    );
    let old = old.or_else(|_| {
        // Without the right to raise the hard limit, the soft one is enough.
        prlimit(
            Some(pid),
            Resource::Nofile,
            Rlimit {
                current: Some(open + 4),
                maximum: Some(4096),
            },
        )
    });
    let crowd: Vec<TcpStream> = (0..64)
        .map(|_| TcpStream::connect(proxy.address()).unwrap())
        .collect();
    thread::park_timeout(Duration::from_millis(500));
    let busy = cpu_ticks(proxy.pid());
    thread::park_timeout(Duration::from_secs(1));
    let spent = cpu_ticks(proxy.pid()) - busy;
    assert!(proxy.runs(), "exited: {}", proxy.log());
    assert!(spent < 50, "{spent} of 100 ticks spent spinning");
    drop(crowd);
    let _ = prlimit(Some(pid), Resource::Nofile, old.unwrap());
    eventually("it serves again", || {
        let mut wire = proxy.wire();
        wire.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")));
        wire.try_response().is_ok_and(|answer| answer.status == 200)
    });
}

/// User and system time so far, in hundredths of a second.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// J5: each way in which an origin can fail has its own name, its own status and its bound in time.
#[test]
fn each_failure_of_an_origin_has_its_name() {
    let silent = Origin::http(|wire| {
        let _ = wire.rest();
    });
    let closing = Origin::http(|wire| {
        let _ = wire.request();
    });
    let refused = closed_port();
    let full = FullListener::new();
    let proxy = Proxy::start(&format!(
        r#"
        destinations:
          all:
            hosts: ["partner.test:{}", "partner.test:{}", "partner.test:{refused}", "partner.test:{}"]
            timeouts: {{ connect: 1s, tls: 1s, response: 1s }}
        "#,
        silent.port(),
        closing.port(),
        full.port()
    ));
    let timed_out = "connection_timeout";
    for (name, scheme, port, status, error, key) in [
        (
            "silent",
            "http",
            silent.port(),
            504,
            "http_response_timeout",
            "within 1s (timeouts.response)",
        ),
        (
            "no TLS",
            "https",
            silent.port(),
            504,
            timed_out,
            "within 1s (timeouts.tls)",
        ),
        (
            "closing",
            "http",
            closing.port(),
            502,
            "http_response_incomplete",
            "",
        ),
        ("refused", "http", refused, 502, "connection_refused", ""),
        (
            "unanswered",
            "http",
            full.port(),
            504,
            timed_out,
            "within 1s (timeouts.connect)",
        ),
    ] {
        let started = Instant::now();
        let answer = proxy.get(&format!("{scheme}://partner.test:{port}/"));
        let closing = name == "closing" && answer.error() == Some("connection_terminated");
        let told = answer.assert_ours(status, if closing { "connection_terminated" } else { error });
        assert!(told.contains(key), "{name}: {told}");
        assert!(
            started.elapsed() < Duration::from_secs(6),
            "{name}: {:?}",
            started.elapsed()
        );
    }
    assert_eq!(
        proxy.metric("outrider_errors_total", &[("error", "connection_refused")]),
        1.0
    );
}

/// A listener whose queue is full: who connects hears nothing.
struct FullListener {
    listener: socket2::Socket,
    _waiting: Vec<socket2::Socket>,
}

impl FullListener {
    fn new() -> Self {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let waiting = (0..8)
            .map(|_| {
                let socket =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&address);
                socket
            })
            .collect();
        Self {
            listener,
            _waiting: waiting,
        }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().as_socket().unwrap().port()
    }
}

/// J7: an app that says no more still hears the answer.
#[test]
fn a_half_closed_app_gets_its_answer() {
    let origin = Origin::http(ok);
    let proxy = plain(&origin, "");
    let mut wire = proxy.wire();
    wire.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")));
    wire.half_close();
    let answer = wire.response();
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
}

/// J8: many at once, each its own answer.
#[test]
fn answers_do_not_cross() {
    let origin = Origin::http(crate::support::origin::echo);
    let proxy = plain(&origin, "");
    let wrong = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in 0..20 {
            let (proxy, origin, wrong) = (&proxy, &origin, &wrong);
            scope.spawn(move || {
                let mut wire = proxy.wire();
                for n in 0..30 {
                    let body = format!("{client}/{n}/{}", "x".repeat(n * 97));
                    let answer = wire.ask(format!(
                        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
                        origin.url("/"),
                        body.len()
                    ));
                    if answer.text() != body {
                        wrong.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(wrong.into_inner(), 0);
}

/// J11: where one of a name's addresses is dead, the other answers soon.
#[test]
fn a_dead_address_does_not_delay_for_long() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let proxy = Proxy::start(&format!(
        r#"
        dns: {{ hosts: {{ partner.test: ["::1", 127.0.0.1] }} }}
        destinations: {{ plain: {{ hosts: ["partner.test:{port}"] }} }}
        "#
    ));
    let started = Instant::now();
    assert_eq!(proxy.get(&format!("http://partner.test:{port}/")).status, 200);
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
}

/// Invariant 8: nothing that arrives ends the process.
#[test]
fn no_bytes_end_the_process() {
    let origin = Origin::plain();
    let mut proxy = plain(&origin, "");
    // A small generator of numbers is enough, and repeats itself from run to run.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let valid = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        origin.url("/")
    );
    for round in 0..300 {
        let mut bytes: Vec<u8> = if round % 3 == 0 {
            (0..200).map(|_| (next() & 0xff) as u8).collect()
        } else {
            valid.clone().into_bytes()
        };
        for _ in 0..round % 7 {
            let at = (next() as usize) % bytes.len();
            bytes[at] = (next() & 0xff) as u8;
        }
        let mut wire = proxy.wire();
        wire.send(&bytes);
        wire.half_close();
        let _ = wire.rest();
    }
    assert!(proxy.runs());
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
}

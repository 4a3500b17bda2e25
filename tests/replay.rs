//! Bodies that go out twice, whole each time, and those that cannot.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::retry::{BUSY, OK, asked, retries, send, to};
use crate::support::h2::{self, DATA, END_HEADERS, END_STREAM, HEADERS, frame};
use crate::support::h2_origin::H2Partner;
use crate::support::{Origin, Request, eventually};

/// Refuses the first request once all of it has arrived, and records it; echoes the second one.
fn refusing_first(refused: &'static Mutex<Vec<Request>>) -> Origin {
    Origin::http(move |wire| {
        while let Ok(request) = wire.request() {
            if request.headers.get("x-first").is_some()
                && !refused.lock().unwrap().iter().any(|r| r.line == request.line)
            {
                refused.lock().unwrap().push(request);
                wire.send(BUSY);
                continue;
            }
            let length = request.body.len();
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nX-Chunked: {}\r\nContent-Length: {length}\r\n\r\n",
                request.headers.get("transfer-encoding").is_some()
            ))
            .send(request.body);
        }
    })
}

#[test]
fn bodies_are_whole_on_the_second_try() {
    static REFUSED: Mutex<Vec<Request>> = Mutex::new(Vec::new());
    let origin = refusing_first(&REFUSED);
    let proxy = to(&origin, "retry: { max_wait: 1s }");
    let most: Vec<u8> = (0..64 * 1024).map(|i: u32| (i % 251) as u8).collect();
    for (path, body) in [("/small", b"small".to_vec()), ("/most", most)] {
        let fields = format!("X-First: 1\r\nContent-Length: {}\r\n", body.len());
        let answer = send(&proxy, "PUT", &origin.url(path), &fields, &body);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("x-chunked"), Some("false"));
        assert!(answer.body == body, "{path}: {} bytes", answer.body.len());
        assert!(REFUSED.lock().unwrap().last().unwrap().body == body);
    }
    // In chunks, in pieces that come one by one, with trailers.
    let mut wire = proxy.wire();
    wire.send(format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nX-First: 1\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nfirst\r\n",
        origin.url("/chunks")
    ));
    thread::park_timeout(Duration::from_millis(50));
    let answer = wire.ask("6\r\nsecond\r\n0\r\nX-Sum: 11\r\n\r\n");
    assert_eq!((answer.status, answer.text().as_str()), (200, "firstsecond"));
    assert_eq!(answer.header("x-chunked"), Some("true"));
    assert_eq!(origin.raw().matches("x-sum: 11").count(), 2, "{}", origin.raw());
    // The app waits to be asked for it.
    let mut wire = proxy.wire();
    wire.send(format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nX-First: 1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        origin.url("/expect")
    ));
    assert_eq!(wire.read_line(), "HTTP/1.1 100 Continue\r\n");
    wire.read_line();
    let answer = wire.ask("later");
    assert_eq!((answer.status, answer.text().as_str()), (200, "later"));
    assert_eq!(retries(&proxy, "503"), 4.0);
    eventually("the bytes of the app count, not those to the upstream", || {
        let sent = proxy.metric("outrider_bytes_total", &[("direction", "sent")]);
        sent == (5 + 64 * 1024 + 11 + 5) as f64
    });
}

#[test]
fn a_body_that_is_too_large_to_keep_is_sent_once() {
    static REFUSED: Mutex<Vec<Request>> = Mutex::new(Vec::new());
    let origin = refusing_first(&REFUSED);
    let proxy = to(&origin, "retry: { max_wait: 1s }");
    let large = vec![b'x'; 64 * 1024 + 1];
    let fields = format!("X-First: 1\r\nContent-Length: {}\r\n", large.len());
    assert_eq!(
        send(&proxy, "PUT", &origin.url("/sized"), &fields, &large).status,
        503
    );
    let mut chunked = format!("{:x}\r\n", large.len()).into_bytes();
    chunked.extend_from_slice(&large);
    chunked.extend_from_slice(b"\r\n4\r\nmore\r\n0\r\n\r\n");
    let fields = "X-First: 1\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(
        send(&proxy, "PUT", &origin.url("/chunked"), fields, &chunked).status,
        503
    );
    let refused: Vec<_> = REFUSED
        .lock()
        .unwrap()
        .iter()
        .map(|request| request.body.len())
        .collect();
    assert_eq!(refused, [large.len(), large.len() + 4], "nothing of it is lost");
    assert_eq!(asked(&origin, "PUT"), 2);
}

#[test]
fn an_app_that_breaks_off_its_body_gets_the_reason_and_nothing_is_sent() {
    let origin = Origin::plain();
    let proxy = to(
        &origin,
        "retry: { max_wait: 1s }, circuit_breaker: { failures: 1 }",
    );
    let mut wire = proxy.wire();
    wire.send(format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
        origin.url("/")
    ));
    wire.half_close();
    let answer = wire.response();
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(answer.error(), Some("http_request_error"));
    assert_eq!(asked(&origin, "PUT"), 0);
    assert_eq!(
        proxy.metric("outrider_circuit_state", &[]),
        0.0,
        "it was not the destination's fault"
    );
}

/// A connection of the pool that dies without a byte: once, always, if it is safe.
#[test]
fn a_stale_connection_is_no_failure() {
    let again = "retry: { on: [429] }";
    for (keys, method, fields, body, status) in [
        ("upgrade: false", "GET", "", "", 200),
        ("upgrade: false", "POST", "Content-Length: 0\r\n", "", 502),
        (
            "upgrade: false",
            "POST",
            "Idempotency-Key: 1\r\nContent-Length: 0\r\n",
            "",
            200,
        ),
        // Its body is gone, unless it was kept.
        ("upgrade: false", "PUT", "Content-Length: 4\r\n", "body", 502),
        (again, "PUT", "Content-Length: 4\r\n", "body", 200),
        (again, "POST", "Content-Length: 4\r\n", "body", 502),
        (
            again,
            "POST",
            "Idempotency-Key: 1\r\nContent-Length: 4\r\n",
            "body",
            200,
        ),
    ] {
        let origin = Origin::numbered(None, |wire, number| {
            let mut answered = 0;
            while wire.request().is_ok() {
                if number == 0 && answered == 1 {
                    return;
                }
                answered += 1;
                wire.send(OK);
            }
        });
        let proxy = to(&origin, keys);
        let mut wire = proxy.wire();
        assert_eq!(
            wire.ask(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")))
                .status,
            200
        );
        let answer = wire.ask(format!(
            "{method} {} HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}",
            origin.url("/")
        ));
        assert_eq!(answer.status, status, "{keys} {method} {fields}");
        let stale = if status == 200 { 1.0 } else { 0.0 };
        assert_eq!(retries(&proxy, "stale"), stale, "{keys} {method} {fields}");
    }
}

#[test]
fn over_http_2_too() {
    let partner = H2Partner::refusing(2);
    let proxy = partner.proxy("http: 2, retry: { attempts: 3, max_wait: 2s }");
    let url = format!("http://{}/echo", partner.authority());
    let answer = send(&proxy, "PUT", &url, "Content-Length: 4\r\n", b"body");
    assert_eq!((answer.status, answer.text().as_str()), (200, "/echo"));
    let asked = partner.asked();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked.iter().all(|asked| asked.ends_with(" body")), "{asked:?}");
    assert_eq!(proxy.metric("outrider_retries_total", &[("reason", "503")]), 2.0);
}

/// As gRPC does it: the app speaks HTTP/2 as well, and its body comes in frames, its length unsaid.
#[test]
fn from_http_2_to_http_2() {
    for (method, status, times) in [("PUT", 200, 2), ("POST", 503, 1)] {
        let partner = H2Partner::refusing(1);
        let proxy = partner.proxy("retry: { max_wait: 2s }");
        let authority = partner.authority();
        let mut wire = proxy.intercepted_as(&authority, &["h2"]);
        h2::greet(&mut wire);
        let head = h2::block(&[
            (b":method", method.as_bytes()),
            (b":scheme", b"https"),
            (b":authority", authority.as_bytes()),
            (b":path", b"/frames"),
        ]);
        wire.send(frame(HEADERS, END_HEADERS, 1, &head))
            .send(frame(DATA, 0, 1, b"half"))
            .send(frame(DATA, END_STREAM, 1, b"half"));
        assert_eq!(h2::outcome(&mut wire, 1), Some(status), "{method}");
        let asked = partner.asked();
        assert_eq!(asked.len(), times, "{asked:?}");
        assert!(
            asked.iter().all(|asked| asked.ends_with(" halfhalf")),
            "{asked:?}"
        );
    }
}

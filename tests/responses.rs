//! Group B: answers of origins. The app can always distinguish a whole answer from a cut one, and no byte of an
//! answer reaches the client of another request.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use crate::support::origin::ok;
use crate::support::{Origin, Proxy, eventually};

fn plain(origin: &Origin) -> Proxy {
    Proxy::start(&format!(
        "destinations: {{ plain: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ))
}

/// B1: a body that the origin cuts is cut for the app too.
#[test]
fn a_cut_body_is_cut_for_the_app() {
    for (name, response) in [
        (
            "short of its length",
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        ),
        (
            "no last chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        ),
        (
            "inside a chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf",
        ),
        (
            "no end of the last chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
        ),
        (
            "a broken chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n\r\n",
        ),
    ] {
        let origin = Origin::saying_once(response);
        let proxy = plain(&origin);
        let mut wire = proxy.wire();
        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/"));
        match wire.send(request).try_response() {
            Ok(response) => assert!(
                !response.complete || response.status == 502,
                "{name}: {response:?}"
            ),
            // A reset before the head was read is as clear.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{name}"),
        }
        assert!(wire.closes(), "{name}");
    }
}

/// B1: to an app that speaks HTTP/1.0 the end of the connection is the end of the body: only a reset marks a
/// cut one.
#[test]
fn a_cut_body_is_cut_for_an_app_that_knows_no_chunks() {
    let cut = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    for (rest, is_whole) in [("0\r\n\r\n", true), ("", false)] {
        let origin = Origin::http(move |wire| {
            let _ = wire.request();
            wire.send(format!("{cut}{rest}"));
        });
        let proxy = plain(&origin);
        let mut wire = proxy.wire();
        wire.send(format!("GET {} HTTP/1.0\r\n\r\n", origin.url("/")));
        let (text, end) = wire.rest();
        assert_eq!(end.is_ok(), is_whole, "{}", String::from_utf8_lossy(&text));
        if is_whole {
            assert!(text.ends_with(b"\r\n\r\nhalf"));
        }
    }
}

/// B1: a reset in the middle of a body.
#[test]
fn a_reset_by_the_origin_is_felt_by_the_app() {
    let origin = Origin::http(|wire| {
        let _ = wire.request();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        socket2::SockRef::from(wire.socket())
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
    });
    let proxy = plain(&origin);
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/"));
    if let Ok(response) = proxy.wire().send(request).try_response() {
        assert!(!response.complete || response.status == 502, "{response:?}");
    }
}

/// B2: what an origin says beyond its answer reaches nobody.
#[test]
fn bytes_beyond_the_answer_reach_nobody() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for (name, method, answer) in [
        (
            "a second response",
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        (
            "after the last chunk",
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        ("after a 204", "GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("after a 304", "GET", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        (
            "after an answer to HEAD",
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        ),
    ] {
        let origin = Origin::numbered(None, move |wire, number| {
            if number > 0 {
                return ok(wire);
            }
            let _ = wire.request();
            wire.send(format!("{answer}{poison}"));
            let _ = wire.rest();
        });
        let proxy = plain(&origin);
        let mut wire = proxy.wire();
        wire.send(format!(
            "{method} {} HTTP/1.1\r\nHost: x\r\n\r\n",
            origin.url("/first")
        ));
        let first = if method == "HEAD" {
            wire.bodiless_response()
        } else {
            wire.response()
        };
        assert!(!first.text().contains("poison"), "{name}: {first:?}");
        for _ in 0..4 {
            let next = proxy.get(&origin.url("/next"));
            assert_eq!((next.status, next.text().as_str()), (200, "ok"), "{name}");
        }
        assert!(
            origin.seen()[0].bytes.windows(5).all(|part| part != b"/next"),
            "{name}: reused"
        );
    }
}

/// B3: a response without a clear end is refused.
#[test]
fn a_response_with_faulty_framing_is_refused() {
    for (name, response) in [
        (
            "both framings",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        ),
        (
            "a negative length",
            "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        ),
        (
            "a huge length",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
        ),
        (
            "chunked not last",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
    ] {
        let origin = Origin::saying_once(response);
        let proxy = plain(&origin);
        let answer = proxy.get(&origin.url("/"));
        let framings =
            answer.headers.all("content-length").len() + answer.headers.all("transfer-encoding").len();
        assert!(framings <= 1, "{name}: {answer:?}");
        // A coding that is not chunked last is delimited by the close: RFC 9112 section 6.3 allows to pass it.
        if name != "chunked not last" && name != "both framings" {
            answer.assert_ours(502, "http_protocol_error");
        }
    }
}

/// B3: where a length stands beside a coding, the app gets the whole of what the coding carried.
#[test]
fn a_length_beside_a_coding_cuts_nothing_short() {
    let origin = Origin::saying_once(
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    let answer = plain(&origin).get(&origin.url("/"));
    assert!(answer.status == 502 || answer.text() == "ok", "{answer:?}");
}

/// RFC 9110 section 2.5: the version of an answer is ours, so an old origin does not close the app's connection.
#[test]
fn an_old_origin_is_answered_for_in_our_version() {
    let origin = Origin::saying_once("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = plain(&origin);
    let mut wire = proxy.wire();
    wire.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")));
    assert_eq!(wire.read_line(), "HTTP/1.1 200 OK\r\n");
}

/// B4: an answer that is not HTTP is refused, and nothing of it is in ours.
#[test]
fn garbage_from_the_origin_is_a_502_of_ours() {
    for (name, response) in [
        ("status 99", "HTTP/1.1 99 Odd\r\nContent-Length: 0\r\n\r\ngarbage"),
        (
            "status 1000",
            "HTTP/1.1 1000 Odd\r\nContent-Length: 0\r\n\r\ngarbage",
        ),
        (
            "status abc",
            "HTTP/1.1 abc Odd\r\nContent-Length: 0\r\n\r\ngarbage",
        ),
        ("HTTP/0.9", "<html>garbage</html>"),
        ("a banner", "SSH-2.0-garbage\r\n"),
        ("an alert", "\x15\x03\x01\x00\x02\x02\x28garbage"),
        (
            "NUL in a field",
            "HTTP/1.1 200 OK\r\nX: gar\0bage\r\nContent-Length: 0\r\n\r\n",
        ),
        ("nothing", ""),
    ] {
        let origin = Origin::saying_once(response);
        let proxy = plain(&origin);
        let answer = proxy.ask("POST", &origin.url("/"), "Content-Length: 0\r\n");
        assert_eq!(answer.status, 502, "{name}: {answer:?}");
        assert!(answer.error().is_some(), "{name}: {answer:?}");
        assert!(!answer.text().contains("garbage"), "{name}");
    }
}

/// B5: a head without end is cut off at a bound.
#[test]
fn an_endless_head_is_refused_in_flat_memory() {
    for part in [
        "X-Y: zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        let origin = Origin::http(move |wire| {
            let _ = wire.request();
            if part.starts_with('X') {
                wire.send("HTTP/1.1 200 OK\r\n");
            }
            let block = part.repeat(1000);
            // 48 MB: past any bound, and not for ever.
            for _ in 0..1000 {
                if wire.try_send(&block).is_err() {
                    return;
                }
            }
        });
        let proxy = plain(&origin);
        let before = proxy.resident();
        let answer = proxy.get(&origin.url("/"));
        assert_eq!(answer.status, 502, "{part:?}: {answer:?}");
        assert!(
            proxy.resident_peak() < before + (24 << 20),
            "{part:?}: {}",
            proxy.resident_peak()
        );
    }
}

/// B6: a 101 is joined only where it names the protocol that a GET has asked for; else no byte behind it gets
/// through.
#[test]
fn a_101_that_nobody_asked_for_is_a_502() {
    const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let get = ("GET", "HTTP/1.1", WEBSOCKET);
    let cases = [
        (get, WEBSOCKET, true),
        (
            get,
            "connection: keep-alive, upgrade\r\nupgrade: WebSocket\r\n",
            true,
        ),
        // Something else than what was asked for, or nothing at all.
        (get, "Connection: Upgrade\r\nUpgrade: h2c\r\n", false),
        (get, "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n", false),
        (
            get,
            "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
            false,
        ),
        (get, "Connection: Upgrade\r\nUpgrade: websocket/13\r\n", false),
        (get, "Connection: Upgrade\r\n", false),
        (get, "Upgrade: websocket\r\n", false),
        (get, "Connection: close\r\nUpgrade: websocket\r\n", false),
        (get, "", false),
        // Nothing was asked for, or by a request that cannot ask for it (RFC 9110 section 7.8, RFC 6455 section
        // 4.1).
        (("GET", "HTTP/1.1", ""), WEBSOCKET, false),
        (("GET", "HTTP/1.1", "Upgrade: websocket\r\n"), WEBSOCKET, false),
        (
            (
                "GET",
                "HTTP/1.1",
                "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
            ),
            WEBSOCKET,
            false,
        ),
        (
            ("GET", "HTTP/1.1", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
            "Connection: Upgrade\r\nUpgrade: h2c\r\n",
            false,
        ),
        (("GET", "HTTP/1.0", WEBSOCKET), WEBSOCKET, false),
        (("POST", "HTTP/1.1", WEBSOCKET), WEBSOCKET, false),
        (("PUT", "HTTP/1.1", WEBSOCKET), WEBSOCKET, false),
        (("OPTIONS", "HTTP/1.1", WEBSOCKET), WEBSOCKET, false),
    ];
    let origin = Origin::http(move |wire| {
        if let Ok(request) = wire.request() {
            let number: usize = request.target().trim_start_matches('/').parse().unwrap();
            let answered = cases[number].1;
            wire.send(format!(
                "HTTP/1.1 101 Switching Protocols\r\n{answered}\r\nsurprise"
            ));
        }
    });
    let proxy = plain(&origin);
    for (number, ((method, version, asked), answered, is_joined)) in cases.into_iter().enumerate() {
        let case = format!("{method} {version} {asked:?}, answered {answered:?}");
        let mut wire = proxy.wire();
        wire.send(format!(
            "{method} {} {version}\r\nHost: {}\r\n{asked}\r\n",
            origin.url(&format!("/{number}")),
            origin.authority()
        ));
        let answer = wire.bodiless_response();
        if is_joined {
            assert_eq!(answer.status, 101, "{case}: {answer:?}");
            assert_eq!(wire.read_exact(8).unwrap(), b"surprise", "{case}");
        } else {
            assert_eq!(
                (answer.status, answer.error()),
                (502, Some("http_upgrade_failed")),
                "{case}: {answer:?}"
            );
            wire.half_close();
            let (rest, _) = wire.rest();
            assert!(!String::from_utf8_lossy(&rest).contains("surprise"), "{case}");
        }
        let seen = origin.seen().pop().unwrap();
        let seen = String::from_utf8(seen.bytes).unwrap().to_ascii_lowercase();
        let is_asked = seen.contains("\r\nupgrade: websocket\r\n");
        assert_eq!(is_asked, (method, version, asked) == get, "{case}: {seen}");
    }
}

/// B7: provisional answers do not hide the final one.
#[test]
fn the_final_answer_comes_after_provisional_ones() {
    let origin = Origin::saying(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = plain(&origin);
    let answer = proxy.get(&origin.url("/"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));

    let old = proxy.raw(format!("GET {} HTTP/1.0\r\n\r\n", origin.url("/")));
    assert_eq!((old.status, old.interim.len()), (200, 0), "{old:?}");
}

/// B8: an HTTP/1.0 client gets no chunks.
#[test]
fn chunks_are_undone_for_an_old_client() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3\r\nay!\r\n0\r\n\r\n",
    );
    let answer = plain(&origin).raw(format!("GET {} HTTP/1.0\r\nHost: x\r\n\r\n", origin.url("/")));
    assert_eq!(answer.header("transfer-encoding"), None, "{answer:?}");
    assert_eq!(answer.text(), "okay!");
}

/// B10: what is legal passes unchanged.
#[test]
fn answers_pass_unchanged() {
    let mut response = b"HTTP/1.1 299 \r\nSet-Cookie: a=1\r\nSet-Cookie: b=2; Path=/\r\nETag: W/\"x\"\r\n\
        X-Text: caf\xe9\r\nContent-Encoding: gzip\r\nX-Empty:\r\nContent-Length: 4\r\n\r\n"
        .to_vec();
    response.extend_from_slice(b"\x1f\x8b\x00\xff");
    let origin = Origin::saying(response);
    let proxy = plain(&origin);
    let mut wire = proxy.wire();
    wire.send(format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        origin.url("/")
    ));
    let (raw, _) = wire.rest();
    let text = String::from_utf8_lossy(&raw).to_lowercase();
    assert!(text.starts_with("http/1.1 299"), "{text}");
    for line in [
        "set-cookie: a=1\r\n",
        "set-cookie: b=2; path=/\r\n",
        "etag: w/\"x\"\r\n",
        "content-encoding: gzip\r\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(raw.windows(5).any(|part| part == b"caf\xe9\r"), "{text}");
    assert!(raw.ends_with(b"\x1f\x8b\x00\xff"), "{text}");
}

/// B11: an answer before the upload's end is an answer.
#[test]
fn an_early_answer_is_delivered() {
    let origin = Origin::http(|wire| {
        let _ = wire.request_head();
        wire.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
        // A while longer, so that the answer is not lost to a reset.
        let _ = wire.read_exact(1 << 20);
    });
    let proxy = plain(&origin);
    let mut wire = proxy.wire();
    wire.send(format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n",
        origin.url("/")
    ));
    let answer = wire.send(vec![b'x'; 64 << 10]).response();
    assert_eq!((answer.status, answer.text().as_str()), (413, "big"));
}

/// B12: a stream is passed on as it comes: each event is read before the origin may send the next.
#[test]
fn events_pass_one_by_one() {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::http(move |wire| {
        let _ = wire.request();
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        for event in 0..3 {
            wire.send(format!("data: {event}\n\n"));
            let _ = gate.lock().unwrap().recv();
        }
    });
    let proxy = plain(&origin);
    let mut wire = proxy.wire();
    wire.send(format!("GET {} HTTP/1.0\r\nHost: x\r\n\r\n", origin.url("/")));
    while wire.read_line() != "\r\n" {}
    for event in 0..3 {
        assert_eq!(wire.read_line(), format!("data: {event}\n"));
        assert_eq!(wire.read_line(), "\n");
        go.send(()).unwrap();
    }
    assert!(wire.closes());
}

/// B12: an upload reaches the origin as it is sent.
#[test]
fn an_upload_passes_piece_by_piece() {
    let origin = Origin::http(ok);
    let proxy = plain(&origin);
    let mut wire = proxy.wire();
    wire.send(format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        origin.url("/")
    ));
    for piece in ["first", "other"] {
        wire.send(format!("5\r\n{piece}\r\n"));
        origin.wait(piece, |seen| {
            seen.first()
                .is_some_and(|seen| seen.bytes.windows(5).any(|part| part == piece.as_bytes()))
        });
    }
    assert_eq!(wire.ask("0\r\n\r\n").status, 200);
}

/// J6: who has left is not worked for any longer.
#[test]
fn the_origin_is_released_when_the_app_leaves() {
    let left = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&left);
    let origin = Origin::http(move |wire| {
        let _ = wire.request();
        // Silence; then the proxy hangs up.
        told.store(wire.closes(), Ordering::Relaxed);
    });
    let proxy = plain(&origin);
    let mut wire = proxy.wire();
    wire.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")));
    origin.wait("the request", |seen| {
        seen.first().is_some_and(|seen| !seen.bytes.is_empty())
    });
    drop(wire);
    eventually("the origin is let go", || left.load(Ordering::Relaxed));
}

//! Group A, bodies: what the app sends along. A body that goes wrong is cut at the origin, never finished, and
//! nothing that stands behind it is taken for a request.

use crate::support::hidden::{fill, plain};
use crate::support::origin::{echo, ok};
use crate::support::{Origin, eventually};

/// A5: a body that goes wrong half-way is cut at the origin, never finished, and nothing behind it is read.
#[test]
fn a_broken_chunk_aborts_the_request() {
    let bodies: &[&[u8]] = &[
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"1_0\r\nhello\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX\r\n\r\n",
    ];
    let origin = Origin::http(ok);
    let proxy = plain(&origin);
    let mut wrong = Vec::new();
    for body in bodies {
        let name = String::from_utf8_lossy(body).into_owned();
        let head = b"POST {url}/cut HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut wire = proxy.wire();
        wire.send(fill(head, &origin)).send(body);
        wire.send(fill(
            b"GET {url}/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n",
            &origin,
        ));
        if let Ok(response) = wire.try_response()
            && response.status < 400
        {
            wrong.push(format!("{name:?}: answered {}", response.status));
        }
        if !wire.closes() {
            wrong.push(format!("{name:?}: the connection goes on"));
        }
    }
    let raw = origin.raw();
    assert!(!raw.contains("/smuggled"), "{raw}");
    assert!(!raw.contains("0\r\n\r\n"), "a cut body was finished: {raw}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A6: chunk extensions are for the next hop only, and bounded.
#[test]
fn chunk_extensions_are_dropped_and_bounded() {
    let origin = Origin::http(echo);
    let proxy = plain(&origin);
    let head = fill(
        b"POST {url}/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n",
        &origin,
    );

    let response = proxy
        .wire()
        .send(&head)
        .ask("5;sneaky=\"yes\"\r\nhello\r\n0;sneaky\r\n\r\n");
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert!(!origin.raw().contains("sneaky"), "{}", origin.raw());

    let huge = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(64 << 10));
    let answer = proxy.wire().send(&head).send(huge).try_response();
    assert!(
        answer.as_ref().map_or(true, |response| response.status >= 400),
        "{answer:?}"
    );
}

/// A7: a trailer never becomes a header.
#[test]
fn trailers_carry_no_framing_routing_or_credentials() {
    let origin = Origin::http(ok);
    let proxy = plain(&origin);
    let request = b"POST {url}/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
        2\r\nhi\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nHost: evil.test\r\nAuthorization: evil\r\n\r\n";
    let response = proxy.raw(fill(request, &origin));
    if response.status == 200 {
        let raw = origin.raw().to_lowercase();
        for field in ["evil", "content-length: 9"] {
            assert!(!raw.contains(field), "{raw}");
        }
        assert_eq!(raw.matches("transfer-encoding: chunked").count(), 1, "{raw}");
    } else {
        assert_eq!(response.status, 400);
    }
}

/// A8: a body where none is usual arrives with its framing, or not at all; never as a second request.
#[test]
fn a_body_on_get_is_not_a_second_request() {
    for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
        let origin = Origin::http(ok);
        let proxy = plain(&origin);
        let hidden = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
        let request = format!(
            "{method} {{url}}/ HTTP/1.1\r\nHost: {{host}}\r\nContent-Length: {}\r\n\r\n{hidden}",
            hidden.len()
        );
        let response = proxy
            .wire()
            .send(fill(request.as_bytes(), &origin))
            .bodiless_response();
        let raw = origin.raw();
        assert!(response.status == 200 || raw.is_empty(), "{method}: {response:?}");
        if raw.contains("/smuggled") {
            assert!(
                raw.to_lowercase()
                    .contains(&format!("content-length: {}", hidden.len())),
                "{method}: {raw}"
            );
        }
    }
}

/// A15: no cleartext HTTP/2 behind our back, and no tunnel before the origin's 101.
#[test]
fn an_upgrade_is_a_tunnel_only_after_101() {
    let origin = Origin::http(ok);
    let proxy = plain(&origin);
    let mut wire = proxy.wire();
    wire.send(fill(
        b"GET {url}/ HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
          HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        &origin,
    ));
    let response = wire.response();
    let raw = origin.raw().to_lowercase();
    assert!(matches!(response.status, 200 | 400 | 501), "{response:?}");
    assert!(!raw.contains("h2c") && !raw.contains("http2-settings"), "{raw}");

    let mut early = proxy.wire();
    early.send(fill(
        b"GET {url}/early HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
        &origin,
    ));
    assert!(early.response().status >= 200);
    let _ = early.rest();
    assert!(!origin.raw().contains("/smuggled"), "{}", origin.raw());
}

/// A15: what follows a handshake is the other protocol's, so there is no telling a body from its first bytes.
#[test]
fn a_websocket_handshake_has_no_body() {
    let origin = Origin::http(ok);
    let proxy = plain(&origin);
    let request = b"GET {url}/ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Content-Length: 5\r\n\r\nhello";
    assert_eq!(proxy.raw(fill(request, &origin)).status, 400);
    assert_eq!(origin.seen().len(), 0, "{}", origin.raw());
}

/// A16: 100-continue never hangs and loses nothing.
#[test]
fn expect_continue_is_answered_and_the_body_arrives() {
    let origin = Origin::http(echo);
    let proxy = plain(&origin);
    let head = b"POST {url}/ HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

    let mut waiting = proxy.wire();
    waiting.send(fill(head, &origin));
    assert_eq!(waiting.read_line(), "HTTP/1.1 100 Continue\r\n");
    assert_eq!(waiting.read_line(), "\r\n");
    let response = waiting.ask("hello");
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));

    let impatient = proxy.wire().send(fill(head, &origin)).ask("hello");
    assert_eq!((impatient.status, impatient.text().as_str()), (200, "hello"));

    let unknown = b"POST {url}/ HTTP/1.1\r\nHost: {host}\r\nExpect: tea\r\nContent-Length: 5\r\n\r\nhello";
    assert!(matches!(proxy.raw(fill(unknown, &origin)).status, 200 | 417));
}

/// A16: an origin that refuses before the body is heard.
#[test]
fn expect_continue_delivers_a_refusal() {
    let origin = Origin::http(|wire| {
        let _ = wire.request_head();
        wire.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let proxy = plain(&origin);
    let head =
        b"POST {url}/ HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\nContent-Length: 500000\r\n\r\n";
    assert_eq!(proxy.raw(fill(head, &origin)).status, 417);
}

/// A17: pipelined requests are answered in their order.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::http(|wire| {
        while let Ok(request) = wire.request() {
            let path = request.target().to_owned();
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
                path.len()
            ));
        }
    });
    let proxy = plain(&origin);
    let mut wire = proxy.wire();
    let paths = ["/1", "/2", "/3", "/4"];
    let all: String = paths
        .iter()
        .map(|path| format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url(path)))
        .collect();
    wire.send(all);
    for path in paths {
        assert_eq!(wire.response().text(), path);
    }
}

/// A20: an upload that is cut never looks whole to the origin.
#[test]
fn a_cut_upload_is_cut_at_the_origin() {
    for (name, framing, part) in [
        ("length", "Content-Length: 100", "half"),
        ("chunked", "Transfer-Encoding: chunked", "4\r\nhalf\r\n"),
        (
            "chunked, last chunk half-way",
            "Transfer-Encoding: chunked",
            "4\r\nhalf\r\n0\r\n",
        ),
    ] {
        for end in ["close", "half-close", "reset"] {
            let origin = Origin::http(ok);
            let proxy = plain(&origin);
            let mut wire = proxy.wire();
            let head = format!("POST {{url}}/ HTTP/1.1\r\nHost: {{host}}\r\n{framing}\r\n\r\n{part}");
            wire.send(fill(head.as_bytes(), &origin));
            origin.wait("the half", |seen| {
                seen.first()
                    .is_some_and(|seen| seen.bytes.windows(4).any(|part| part == b"half"))
            });
            match end {
                "half-close" => wire.half_close(),
                "reset" => wire.reset(),
                _ => drop(wire),
            }
            origin.wait("the cut", |seen| seen[0].ended);
            assert!(
                !origin.raw().ends_with("0\r\n\r\n"),
                "{name}, {end}: finished: {:?}",
                origin.raw()
            );
        }
    }
}

/// A17: after a framing error nothing more is read from that connection, and others go on.
#[test]
fn one_bad_connection_does_not_harm_the_next() {
    let origin = Origin::plain();
    let proxy = plain(&origin);
    for _ in 0..20 {
        proxy.wire().send("nonsense\r\n\r\n");
    }
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    eventually("it is counted", || {
        proxy.metric(
            "outrider_requests_total",
            &[("destination", "plain"), ("answered_by", "upstream")],
        ) == 1.0
    });
}

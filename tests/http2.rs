//! Group C: HTTP/2 inside intercepted tunnels. A flood is bounded, and no field smuggles.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::h2::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
    frame,
};
use crate::support::h2_origin::H2Partner;
use crate::support::partner::Partner;
use crate::support::{Origin, Proxy, TOKEN, Wire, eventually};

/// Opens a tunnel with HTTP/2 to the app.
fn h2(partner: &H2Partner, proxy: &Proxy) -> Wire {
    let mut wire = proxy.intercepted_as(&partner.authority(), &["h2"]);
    h2::greet(&mut wire);
    wire
}

/// Asserts that a request on another connection is answered soon.
#[track_caller]
fn assert_others_are_served(partner: &H2Partner, proxy: &Proxy) {
    let started = Instant::now();
    let mut other = h2(partner, proxy);
    let head = h2::get(&partner.authority(), "/other");
    other.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &head));
    assert_eq!(h2::outcome(&mut other, 1), Some(200));
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
}

/// What the app says in HTTP/2 arrives in HTTP/2, with the certificate and the token.
#[test]
fn h2_is_carried_end_to_end() {
    let partner = H2Partner::new();
    let proxy = partner.proxy("");
    let mut wire = h2(&partner, &proxy);
    wire.send(frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &h2::get(&partner.authority(), "/one?two=3"),
    ));
    assert_eq!(h2::outcome(&mut wire, 1), Some(200));
    let asked = partner.asked().concat();
    assert!(
        asked.starts_with(&format!("GET https://{}/one?two=3 ", partner.authority())),
        "{asked}"
    );
    assert!(asked.contains(TOKEN), "{asked}");
}

/// With `http: 2` even a request in HTTP/1.1 leaves as HTTP/2; without, the answer says what to set.
#[test]
fn http_1_reaches_an_h2_origin_where_the_configuration_says_so() {
    let partner = H2Partner::new();
    let url = format!("https://{}/old", partner.authority());
    let auto = partner.proxy("").get(&url);
    assert!(
        auto.assert_ours(502, "tls_alert_received").contains("http"),
        "{}",
        auto.text()
    );
    let told = partner.proxy("http: 2").get(&url);
    assert_eq!((told.status, told.text().as_str()), (200, "/old"));
    assert_eq!(partner.asked().len(), 1);
}

/// C1: a rapid reset ends the attacker's connection and nobody else's.
#[test]
fn rapid_resets_are_bounded() {
    let partner = H2Partner::new();
    let proxy = partner.proxy("");
    let mut attacker = h2(&partner, &proxy);
    h2::assert_resets_are_bounded(&mut attacker, &h2::get(&partner.authority(), "/reset"));

    assert_others_are_served(&partner, &proxy);
    let reached = partner.asked().len();
    assert!(reached < 1000, "{reached} of 5000 requests reached the origin");
    eventually("nothing is in flight", || {
        proxy.metric("outrider_requests_in_flight", &[]) == 0.0
    });
}

/// J2: a connection without requests ends, before and after its preface; after it, with a GOAWAY.
#[test]
fn an_idle_connection_ends() {
    let partner = H2Partner::new();
    let proxy = partner.proxy("timeouts: { idle: 1s }");
    let authority = partner.authority();
    let mut silent = proxy.intercepted_as(&authority, &["h2"]);
    let mut idle = h2(&partner, &proxy);
    idle.send(frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &h2::get(&authority, "/first"),
    ));
    assert_eq!(h2::outcome(&mut idle, 1), Some(200));
    let end = h2::read_until(&mut idle, |frame| frame.kind == GOAWAY);
    assert_eq!(end.and_then(|frame| frame.error()), Some(0));
    // Our settings came, and then the end.
    let end = loop {
        if let Err(error) = h2::read(&mut silent) {
            break error.kind();
        }
    };
    assert!(
        matches!(end, ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof),
        "{end:?}"
    );
}

/// C3: a header list has a bound while it is read.
#[test]
fn continuation_floods_are_bounded() {
    let partner = H2Partner::new();
    let proxy = partner.proxy("");
    let before = proxy.resident();
    let filler = h2::block(&[(b"x-filler", &[b'x'; 8000])]);
    let frames = [("large", filler.as_slice()), ("empty", &[])];
    for (name, part) in frames {
        let mut wire = h2(&partner, &proxy);
        wire.send(frame(
            HEADERS,
            END_STREAM,
            1,
            &h2::get(&partner.authority(), "/flood"),
        ));
        let block: Vec<u8> = frame(CONTINUATION, 0, 1, part).repeat(if part.is_empty() { 2000 } else { 10 });
        let started = Instant::now();
        let mut sent = 0;
        while sent < 200 && started.elapsed() < Duration::from_secs(10) && wire.try_send(&block).is_ok() {
            sent += 1;
        }
        wire.send(frame(CONTINUATION, END_HEADERS, 1, &[]));
        let outcome = h2::outcome(&mut wire, 1);
        assert!(matches!(outcome, None | Some(400 | 431)), "{name}: {outcome:?}");
    }
    assert!(partner.asked().iter().all(|asked| !asked.contains("/flood")));
    assert!(proxy.resident() < before + (24 << 20), "{}", proxy.resident());
    assert_others_are_served(&partner, &proxy);
}

/// C4: floods of small frames end the flooder, and others are served.
#[test]
fn control_frame_floods_are_bounded() {
    let partner = H2Partner::new();
    let proxy = partner.proxy("");
    let before = proxy.resident();
    for flood in [
        frame(PING, 0, 0, &[0; 8]),
        frame(SETTINGS, 0, 0, &[]),
        // A kind that nobody knows.
        frame(0xbb, 0, 0, &[0; 16]),
    ] {
        let mut wire = h2(&partner, &proxy);
        let block = flood.repeat(1000);
        let started = Instant::now();
        // The acknowledgements are never read.
        wire.socket()
            .set_write_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        for _ in 0..200 {
            if wire.try_send(&block).is_err() || started.elapsed() > Duration::from_secs(5) {
                break;
            }
        }
        assert_others_are_served(&partner, &proxy);
    }
    assert!(proxy.resident() < before + (24 << 20), "{}", proxy.resident());
}

/// C7: what HTTP/2 can carry and HTTP/1.1 cannot ends the stream; nothing reaches the origin.
#[test]
fn no_field_smuggles_through_the_down_conversion() {
    let partner = H2Partner::new();
    let proxy = partner.proxy("");
    let authority = partner.authority();
    let host = authority.as_bytes();
    let pseudo = |method: &'static [u8], path: &'static [u8]| -> Vec<(Vec<u8>, Vec<u8>)> {
        vec![
            (b":method".to_vec(), method.to_vec()),
            (b":scheme".to_vec(), b"https".to_vec()),
            (b":authority".to_vec(), host.to_vec()),
            (b":path".to_vec(), path.to_vec()),
        ]
    };
    let plus = |name: &[u8], value: &[u8]| {
        let mut fields = pseudo(b"GET", b"/smuggled");
        fields.push((name.to_vec(), value.to_vec()));
        fields
    };
    let mut cases = vec![
        ("CRLF in a value", plus(b"x", b"a\r\nhost: evil")),
        ("LF in a value", plus(b"x", b"a\nb: c")),
        ("CR in a value", plus(b"x", b"a\rb")),
        ("NUL in a value", plus(b"x", b"a\0b")),
        ("CRLF in a name", plus(b"x: a\r\ny", b"b")),
        ("colon in a name", plus(b"x: y", b"b")),
        ("blank in a name", plus(b"x y", b"b")),
        ("upper case name", plus(b"X-Y", b"b")),
        ("empty name", plus(b"", b"b")),
        ("transfer-encoding", plus(b"transfer-encoding", b"chunked")),
        ("connection", plus(b"connection", b"close")),
        ("keep-alive", plus(b"keep-alive", b"1")),
        ("proxy-connection", plus(b"proxy-connection", b"x")),
        ("upgrade", plus(b"upgrade", b"h2c")),
        ("te other than trailers", plus(b"te", b"gzip")),
        ("a second host", plus(b"host", b"evil.test")),
        ("pseudo-field after a field", plus(b":path", b"/other")),
        ("unknown pseudo-field", plus(b":odd", b"x")),
        ("CRLF in the path", pseudo(b"GET", b"/smuggled HTTP/1.1\r\nx: y")),
        ("blank in the path", pseudo(b"GET", b"/smuggled x")),
        ("no slash", pseudo(b"GET", b"smuggled")),
        ("empty path", pseudo(b"GET", b"")),
        (
            "CRLF in the method",
            pseudo(b"GET / HTTP/1.1\r\nx: y", b"/smuggled"),
        ),
        ("blank in the method", pseudo(b"GET /x", b"/smuggled")),
    ];
    let mut doubled = pseudo(b"GET", b"/smuggled");
    doubled.insert(3, (b":authority".to_vec(), b"evil.test".to_vec()));
    cases.push(("two authorities", doubled));
    let mut late = pseudo(b"GET", b"/smuggled");
    let path = late.remove(3);
    late.extend([(b"x".to_vec(), b"y".to_vec()), path]);
    cases.push(("path after fields", late));
    let mut elsewhere = pseudo(b"GET", b"/smuggled");
    elsewhere[2].1 = b"evil.test".to_vec();
    cases.push(("another authority", elsewhere));
    let mut twice = plus(b"content-length", b"0");
    twice.push((b"content-length".to_vec(), b"0".to_vec()));
    cases.push(("two lengths", twice));
    let mut user = pseudo(b"GET", b"/smuggled");
    user[2].1 = [b"user@", host].concat();
    cases.push(("user in the authority", user));

    let mut wrong = Vec::new();
    for (name, fields) in cases {
        let mut wire = h2(&partner, &proxy);
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_slice()))
            .collect();
        wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &h2::block(&fields)));
        let outcome = h2::outcome(&mut wire, 1);
        if !matches!(outcome, None | Some(400 | 421)) {
            wrong.push(format!("{name}: {outcome:?}"));
        }
    }
    let asked = partner.asked();
    assert!(wrong.is_empty() && asked.is_empty(), "{wrong:#?}\n{asked:#?}");
}

/// C8: the length that was promised is the length that arrives, or the request is cut.
#[test]
fn a_content_length_that_lies_ends_the_stream() {
    let partner = H2Partner::new();
    let proxy = partner.proxy("");
    for (name, length) in [("too little", "10"), ("too much", "2")] {
        let mut wire = h2(&partner, &proxy);
        let head = h2::block(&[
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", partner.authority().as_bytes()),
            (b":path", b"/lie"),
            (b"content-length", length.as_bytes()),
        ]);
        wire.send(frame(HEADERS, END_HEADERS, 1, &head));
        wire.send(frame(DATA, END_STREAM, 1, b"hello"));
        let outcome = h2::outcome(&mut wire, 1);
        assert!(matches!(outcome, None | Some(400 | 502)), "{name}: {outcome:?}");
    }
    assert!(partner.asked().is_empty(), "{:?}", partner.asked());
}

/// Several requests at once on one h2 connection, each its own answer.
#[test]
fn streams_do_not_mix() {
    let partner = H2Partner::new();
    let proxy = partner.proxy("");
    let mut wire = h2(&partner, &proxy);
    let streams: Vec<u32> = (0..50).map(|n| 1 + 2 * n).collect();
    for stream in &streams {
        let head = h2::get(&partner.authority(), &format!("/{stream}"));
        wire.send(frame(HEADERS, END_HEADERS | END_STREAM, *stream, &head));
    }
    let mut bodies = std::collections::HashMap::<u32, Vec<u8>>::new();
    let mut ended = 0;
    while ended < streams.len() {
        let Frame {
            kind,
            flags,
            stream,
            payload,
        } = h2::read(&mut wire).unwrap();
        assert!(kind != RST_STREAM && kind != GOAWAY, "{kind} {payload:?}");
        if kind == DATA {
            bodies.entry(stream).or_default().extend(payload);
        }
        if kind <= HEADERS && flags & END_STREAM != 0 {
            ended += 1;
        }
    }
    for stream in streams {
        assert_eq!(bodies[&stream], format!("/{stream}").into_bytes());
    }
}

/// What the origin speaks is offered to the app: a plain origin leaves a capable client at HTTP/1.1.
#[test]
fn the_origins_protocol_is_mirrored() {
    let old = Partner::offering(&["http/1.1"], crate::support::origin::ok);
    let proxy = old.proxy("");
    let mut wire = proxy.intercepted_as(&old.authority(), &["h2", "http/1.1"]);
    assert_eq!(wire.get(&old.authority(), "/").status, 200);
    assert!(
        old.origin
            .seen()
            .iter()
            .all(|seen| seen.alpn.as_deref() == Some("http/1.1")),
        "{:?}",
        old.origin.seen()
    );
}

/// A destination in clear is never spoken to in h2 by guess.
#[test]
fn a_clear_request_leaves_as_http_1() {
    let origin = Origin::plain();
    let proxy = Proxy::start(&format!(
        "destinations: {{ plain: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ));
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    assert!(origin.raw().starts_with("GET / HTTP/1.1\r\n"), "{}", origin.raw());
}

/// C9, C10: a request that the origin says it has not processed is sent again on a new connection, for every
/// method; one that it may have processed is not.
#[test]
fn only_what_was_not_processed_is_sent_again() {
    let refused = 7_u32.to_be_bytes().to_vec();
    let broken = 2_u32.to_be_bytes().to_vec();
    // The last stream it looks at is 1; no error.
    let leaving = vec![0, 0, 0, 1, 0, 0, 0, 0];
    for (name, kind, stream, payload, expected) in [
        ("a refused stream", RST_STREAM, 3, refused, 200),
        ("a closing origin", GOAWAY, 0, leaving, 200),
        ("a broken stream", RST_STREAM, 3, broken, 502),
    ] {
        let connections = AtomicUsize::new(0);
        let partner = Partner::offering(&["h2"], move |wire| {
            let number = connections.fetch_add(1, Ordering::Relaxed);
            let _ = wire.read_exact(24);
            wire.send(frame(SETTINGS, 0, 0, &[]));
            while let Some(asked) = h2::read_until(wire, |frame| frame.kind == HEADERS) {
                if number == 0 && asked.stream == 3 {
                    wire.send(frame(kind, 0, stream, &payload));
                } else {
                    wire.send(frame(HEADERS, END_HEADERS | END_STREAM, asked.stream, &[0x88]));
                }
            }
        });
        let yaml = format!("workers: 1\n{}", partner.yaml("http: 2"));
        let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
        assert_eq!(proxy.get(&partner.url("/")).status, 200, "{name}");
        let answer = proxy.ask("POST", &partner.url("/"), "Content-Length: 0\r\n");
        assert_eq!(answer.status, expected, "{name}: {}", answer.text());
    }
}

/// J5: a connection that has gone silent costs one request its time, not every one after it.
#[test]
fn a_silent_connection_is_not_asked_twice() {
    let connections = AtomicUsize::new(0);
    let partner = Partner::offering(&["h2"], move |wire| {
        let number = connections.fetch_add(1, Ordering::Relaxed);
        let _ = wire.read_exact(24);
        wire.send(frame(SETTINGS, 0, 0, &[]));
        while let Some(asked) = h2::read_until(wire, |frame| frame.kind == HEADERS) {
            if number > 0 || asked.stream == 1 {
                wire.send(frame(HEADERS, END_HEADERS | END_STREAM, asked.stream, &[0x88]));
            }
        }
    });
    let extra = "http: 2, timeouts: { response: 1s }";
    let yaml = format!("workers: 1\n{}", partner.yaml(extra));
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    let url = partner.url("/");
    assert_eq!(proxy.get(&url).status, 200);
    proxy.get(&url).assert_ours(504, "http_response_timeout");
    assert_eq!(proxy.get(&url).status, 200);
}

//! Group E: CONNECT, blind and intercepted. Bytes pass untouched, or not at all.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use crate::support::partner::{Partner, nameless};
use crate::support::pki::trusting;
use crate::support::programs::{clean, node, python, run};
use crate::support::{Origin, Proxy, Wire, eventually};

fn blind(origin: &Origin) -> Proxy {
    Proxy::start(&format!(
        "destinations: {{ blind: {{ hosts: [\"{}\"], mode: tunnel }} }}",
        origin.authority()
    ))
}

/// Echoes bytes until the peer ends, then says goodbye.
fn echo(wire: &mut Wire) {
    while let Ok(byte) = wire.read_exact(1) {
        wire.send(byte);
    }
    wire.send("bye");
}

/// A blind tunnel carries bytes of any kind, both ways, and is counted.
#[test]
fn a_blind_tunnel_passes_bytes_untouched() {
    let origin = Origin::http(echo);
    let proxy = blind(&origin);
    let mut wire = proxy.tunnel(&origin.authority());
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(wire.send(&bytes).read_exact(256).unwrap(), bytes);
    assert_eq!(
        proxy.metric("outrider_tunnels_open", &[("destination", "blind")]),
        1.0
    );
    drop(wire);
    eventually("the tunnel is closed", || {
        proxy.metric("outrider_tunnels_open", &[("destination", "blind")]) == 0.0
    });
    assert_eq!(
        proxy.metric("outrider_tunnels_total", &[("destination", "blind")]),
        1.0
    );
    assert!(
        proxy.metric(
            "outrider_bytes_total",
            &[("destination", "blind"), ("direction", "sent")]
        ) >= 256.0
    );
}

/// E1: bytes sent along with CONNECT wait for the tunnel and lose nothing.
#[test]
fn early_bytes_are_delivered() {
    let origin = Origin::http(echo);
    let proxy = blind(&origin);
    let mut wire = proxy.wire();
    wire.send(format!(
        "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\nearly",
        origin.authority()
    ));
    assert_eq!(wire.bodiless_response().status, 200);
    assert_eq!(wire.read_exact(5).unwrap(), b"early");
}

/// E1: when CONNECT is refused, what came along is never taken for a request.
#[test]
fn early_bytes_of_a_refused_connect_are_never_parsed() {
    let origin = Origin::plain();
    let proxy = Proxy::start(&format!(
        "destinations: {{ plain: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ));
    let mut wire = proxy.wire();
    wire.send(format!(
        "CONNECT forbidden.test:443 HTTP/1.1\r\nHost: x\r\n\r\nGET {} HTTP/1.1\r\nHost: x\r\n\r\n",
        origin.url("/smuggled")
    ));
    wire.bodiless_response().assert_ours(403, "http_request_denied");
    assert!(wire.closes());
    assert_eq!(origin.seen().len(), 0);
}

/// Most clients show of a refused CONNECT no more than its status line.
#[test]
fn a_refused_connect_says_why_in_its_status_line() {
    let proxy = Proxy::start("egress: { default: deny }");
    let status_line = |target: &str| {
        let mut wire = proxy.wire();
        let line = (wire.send(format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n"))).read_line();
        line.trim_end_matches("\r\n").to_owned()
    };
    let said = status_line("elsewhere.test:443");
    let sentence = "elsewhere.test:443 is named by no destination; where it should be reached, add elsewhere.test to the \
                    hosts of a destination";
    assert!(said.starts_with(&format!("HTTP/1.1 403 {sentence}")), "{said}");
    // Nothing but ASCII gets there, and no second line.
    let long = format!("{}.test", "a".repeat(60)).repeat(4);
    for target in [
        "b\u{fc}cher.test:443",
        "x\u{85}y.test:443",
        &format!("{long}:443"),
    ] {
        let line = status_line(target);
        assert!(line.starts_with("HTTP/1.1 40"), "{line:?}");
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
        assert!(line.len() <= 400 + "HTTP/1.1 403 ".len(), "{line:?}");
    }

    let url = "https://elsewhere.test/";
    let urllib = format!("import urllib.request; urllib.request.urlopen({url:?})");
    let requests = format!("import requests; requests.get({url:?})");
    let node_script = format!(
        "const https = require('https'); const agent = new https.Agent({{ proxyEnv: process.env }});
         https.get({url:?}, {{ agent }}).on('error', (error) => console.error(error.message))"
    );
    let mut wget = clean("wget");
    wget.args(["-O-", "--tries=1", url]);
    for mut client in [wget, python(&urllib), python(&requests), node(&node_script)] {
        let told = run(client.env("https_proxy", format!("http://{}", proxy.address())));
        assert!(told.stderr.contains(sentence), "{client:?}: {told:?}");
    }
}

/// E2: a CONNECT that is no CONNECT.
#[test]
fn malformed_connects_are_refused() {
    let origin = Origin::plain();
    let proxy = blind(&origin);
    let authority = origin.authority();
    for request in [
        format!("CONNECT {authority} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"),
        format!("CONNECT {authority} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        "CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        format!("CONNECT http://{authority}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("CONNECT {authority}/path HTTP/1.1\r\nHost: x\r\n\r\n"),
        "CONNECT partner.test HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "CONNECT partner.test: HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        format!("CONNECT user@{authority} HTTP/1.1\r\nHost: x\r\n\r\n"),
        "CONNECT * HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    ] {
        let mut wire = proxy.wire();
        wire.send(&request);
        assert_eq!(wire.bodiless_response().status, 400, "{request}");
        assert_eq!(origin.seen().len(), 0, "{request}");
    }
}

/// E3: the 200 of a tunnel frames nothing.
#[test]
fn the_answer_to_connect_has_no_framing() {
    let origin = Origin::http(echo);
    let proxy = blind(&origin);
    let (response, _) = proxy.connect(&origin.authority());
    assert_eq!(response.status, 200);
    for field in ["content-length", "transfer-encoding"] {
        assert_eq!(response.header(field), None, "{response:?}");
    }
}

/// E4: each direction ends by itself.
#[test]
fn half_closes_are_relayed_both_ways() {
    let origin = Origin::http(echo);
    let proxy = blind(&origin);
    let mut app_first = proxy.tunnel(&origin.authority());
    app_first.send("hello");
    app_first.half_close();
    let (rest, end) = app_first.rest();
    assert_eq!((rest.as_slice(), end.is_ok()), (b"hellobye".as_slice(), true));

    let origin = Origin::http(|wire| {
        wire.send("bye");
        wire.half_close();
        let (rest, _) = wire.rest();
        assert_eq!(rest, b"still here");
    });
    let proxy = blind(&origin);
    let mut origin_first = proxy.tunnel(&origin.authority());
    assert_eq!(origin_first.rest().0, b"bye");
    origin_first.send("still here");
    origin.wait("what came after", |seen| {
        seen.first().is_some_and(|seen| seen.bytes == b"still here")
    });
    drop(origin_first);
    origin.wait("the end", |seen| seen[0].ended);
}

/// E4: a reset is relayed, and a server that speaks first is heard.
#[test]
fn resets_are_relayed_and_servers_may_speak_first() {
    let origin = Origin::http(|wire| {
        wire.send("220 ready\r\n");
        let _ = wire.rest();
    });
    let proxy = blind(&origin);
    let mut wire = proxy.tunnel(&origin.authority());
    assert_eq!(wire.read_line(), "220 ready\r\n");
    wire.reset();
    origin.wait("the reset", |seen| seen.first().is_some_and(|seen| seen.ended));
    eventually("the tunnel is closed", || {
        proxy.metric("outrider_tunnels_open", &[]) == 0.0
    });
}

/// E4: a tunnel that says nothing for too long is ended.
#[test]
fn idle_tunnels_end() {
    let origin = Origin::http(echo);
    let proxy = Proxy::start(&format!(
        "destinations: {{ blind: {{ hosts: [\"{}\"], mode: tunnel, timeouts: {{ idle: 1s }} }} }}",
        origin.authority()
    ));
    let mut wire = proxy.tunnel(&origin.authority());
    let started = Instant::now();
    assert!(wire.closes());
    assert!(
        started.elapsed() >= Duration::from_millis(900),
        "{:?}",
        started.elapsed()
    );
}

/// A tunnel's failure is a real status, before any 200, with the reason.
#[test]
fn a_tunnel_that_cannot_stand_is_refused_with_the_reason() {
    let port = crate::support::closed_port();
    let proxy = Proxy::start(&format!(
        "destinations: {{ gone: {{ hosts: [\"partner.test:{port}\"], mode: tunnel }} }}"
    ));
    proxy
        .connect(&format!("partner.test:{port}"))
        .0
        .assert_ours(502, "connection_refused");
    assert_eq!(
        proxy.metric("outrider_errors_total", &[("error", "connection_refused")]),
        1.0
    );
}

/// E5: a tunnel that is not intercepted carries no credential of ours.
#[test]
fn a_blind_tunnel_carries_no_credential() {
    let origin = Origin::http(echo);
    let proxy = Proxy::start(&format!(
        "destinations: {{ blind: {{ hosts: [\"{}\"], mode: tunnel }} }}",
        origin.authority()
    ));
    let mut wire = proxy.tunnel(&origin.authority());
    wire.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(wire.read_exact(18).unwrap(), b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(origin.raw(), "GET / HTTP/1.1\r\n\r\n");
}

/// E6: what is no TLS inside an intercepted tunnel goes nowhere.
#[test]
fn an_intercepted_tunnel_takes_tls_only() {
    let partner = Partner::new();
    let proxy = partner.proxy("timeouts: { tls: 1s }");
    for bytes in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "SSH-2.0-x\r\n",
        "\x16\x03\x01\u{0}\u{0}",
        "\u{0}\u{0}\u{0}\u{0}\u{0}",
        "",
    ] {
        let mut wire = proxy.tunnel(&partner.authority());
        wire.send(bytes);
        let started = Instant::now();
        let (_, _) = wire.rest();
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{bytes:?}: {:?}",
            started.elapsed()
        );
    }
    assert_eq!(partner.origin.raw(), "");
    assert_eq!(
        partner
            .origin
            .seen()
            .iter()
            .filter(|seen| !seen.bytes.is_empty())
            .count(),
        0
    );
}

/// E7: a ClientHello in many small pieces, and one without a name.
#[test]
fn client_hellos_in_pieces_and_without_a_name_are_understood() {
    let partner = Partner::new();
    let proxy = partner.proxy("");
    let config = trusting(&proxy.bundle(), &["http/1.1"]);

    let wire = proxy.tunnel(&partner.authority());
    let socket = wire.socket().try_clone().unwrap();
    let slow = Wire::over(Box::new(ByteByByte(socket.try_clone().unwrap())), socket);
    let mut slow = slow
        .tls("partner.test", &config)
        .expect("a handshake byte by byte");
    assert_eq!(slow.get(&partner.authority(), "/slow").status, 200);

    let nameless = nameless(&config);
    let mut wire = proxy
        .tunnel(&partner.authority())
        .tls("partner.test", &nameless)
        .expect("a handshake without SNI");
    assert_eq!(wire.get(&partner.authority(), "/nameless").status, 200);
    assert!(
        partner
            .origin
            .seen()
            .iter()
            .all(|seen| seen.sni.as_deref() == Some("partner.test"))
    );
}

/// E7: a ClientHello has a bound.
#[test]
fn an_endless_client_hello_is_cut() {
    let partner = Partner::new();
    let proxy = partner.proxy("timeouts: { tls: 2s }");
    let mut wire = proxy.tunnel(&partner.authority());
    // One handshake message that announces 16 MB, in records of 1 KB.
    let mut record = vec![0x16, 3, 1, 4, 0, 1, 0xff, 0xff, 0xff];
    record.resize(5 + 1024, 0);
    let more = [&[0x16, 3, 1, 4, 0][..], &[0; 1024]].concat();
    wire.send(&record);
    let started = Instant::now();
    while wire.try_send(&more).is_ok() && started.elapsed() < Duration::from_secs(10) {}
    assert!(started.elapsed() < Duration::from_secs(10), "never cut");
}

/// Tunnels have a cap, and past it the refusal says so.
#[test]
fn tunnels_are_capped() {
    let origin = Origin::http(echo);
    let proxy = Proxy::start(&format!(
        "limits: {{ tunnels: 2 }}\ndestinations: {{ blind: {{ hosts: [\"{}\"], mode: tunnel }} }}",
        origin.authority()
    ));
    let first = proxy.tunnel(&origin.authority());
    let _second = proxy.tunnel(&origin.authority());
    proxy
        .connect(&origin.authority())
        .0
        .assert_ours(503, "connection_limit_reached");
    drop(first);
    eventually("room again", || {
        proxy.connect(&origin.authority()).0.status == 200
    });
}

/// Writes one byte at a time.
struct ByteByByte(std::net::TcpStream);

impl Read for ByteByByte {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for ByteByByte {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(&buffer[..buffer.len().min(1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#![expect(
    clippy::disallowed_methods,
    reason = "the tests act as the operator, who may connect to any address"
)]

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

#[tokio::test]
async fn every_page_has_its_content() {
    let (address, _drain) = start().await;
    for (method, path, status, contains) in [
        ("GET", "/", "200 OK", "/metrics"),
        ("GET", "/healthz", "200 OK", "ok\n"),
        ("GET", "/healthz?verbose", "200 OK", "ok\n"),
        ("GET", "/readyz", "200 OK", "ready\n"),
        ("GET", "/metrics", "200 OK", "outrider_build_info{"),
        (
            "GET",
            "/metrics",
            "200 OK",
            "content-type: text/plain; version=0.0.4; charset=utf-8\r\n",
        ),
        ("GET", "/", "200 OK", "/status"),
        ("GET", "/status", "200 OK", "\"state\": \"ready\""),
        ("GET", "/status", "200 OK", "content-type: application/json\r\n"),
        ("GET", "/metrics/", "404 Not Found", "no such page"),
        ("GET", "/%2e%2e/etc/passwd", "404 Not Found", "no such page"),
        (
            "POST",
            "/metrics",
            "405 Method Not Allowed",
            "allow: GET, HEAD\r\n",
        ),
        ("DELETE", "/nowhere", "404 Not Found", "no such page"),
        (
            "PURGE",
            "/healthz",
            "405 Method Not Allowed",
            "allow: GET, HEAD\r\n",
        ),
    ] {
        let answer = ask(
            address,
            &format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        )
        .await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{method} {path}: {answer}"
        );
        assert!(answer.contains(contains), "{method} {path}: {answer}");
        assert!(
            answer.contains("x-content-type-options: nosniff\r\n"),
            "{method} {path}: {answer}"
        );
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let (address, _drain) = start().await;
    let answer = ask(address, "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-length: 3"), "{head}");
    assert_eq!(body, "");
}

#[tokio::test]
async fn a_draining_process_is_alive_but_not_ready() {
    let (address, drain) = start().await;
    drain.begin();
    let ready = ask(address, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(
        ready.starts_with("HTTP/1.1 503 ") && ready.contains("draining: "),
        "{ready}"
    );
    let status = ask(address, "GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(status.contains("\"state\": \"draining\""), "{status}");
    let health = ask(address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
}

/// G3, L3: nothing of the request comes back.
#[tokio::test]
async fn nothing_from_the_wire_is_echoed() {
    let (address, _drain) = start().await;
    for request in [
        "GET / HTTP/1.1\r\nHost: canary\r\n\r\n",
        "GET /canary<script> HTTP/1.1\r\nHost: localhost\r\nUser-Agent: canary\r\n\r\n",
        "CANARY /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /metrics?canary HTTP/1.1\r\nHost: localhost\r\nX: canary\"} 1\r\n\r\n",
    ] {
        let answer = ask(address, request).await.to_lowercase();
        assert!(!answer.contains("canary"), "{answer}");
    }
}

#[tokio::test]
async fn heads_that_are_no_http_or_too_large_are_refused() {
    let (address, _drain) = start().await;
    let large = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "a".repeat(2 * HEAD_SIZE)
    );
    for request in [
        "\x16\x03\x01\x02\x00\x01",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        &large,
    ] {
        let answer = ask(address, request).await;
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    let after = ask(address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(after.starts_with("HTTP/1.1 200 "), "{after}");
}

/// J2: the paused clock advances while all tasks wait, so the limit on the head ends these connections at once.
#[tokio::test(start_paused = true)]
async fn silent_clients_are_closed_and_others_are_served() {
    let (address, _drain) = start().await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await.unwrap();
        silent.push(stream);
    }
    // All connections are in use; this one waits until one of them ends.
    let answer = ask(address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for stream in &mut silent {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(!String::from_utf8_lossy(&rest).contains(" 200 "));
    }
}

/// L4: the page is far larger than the socket buffers, and nobody reads it.
#[tokio::test(start_paused = true)]
async fn a_scraper_that_never_reads_is_cut_off() {
    let telemetry = Telemetry::new();
    for destination in 0..2_000 {
        // A destination has series from its first use on.
        let counters = telemetry.counters(&format!("{destination}-{}", "x".repeat(200)));
        counters.upstream_reuse();
    }
    let length = telemetry.render().len();
    let (near, mut far) = tokio::io::duplex(4096);
    far.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    connection(
        near,
        AllowedHosts::new(None, None),
        pages(telemetry, Drain::default()),
    )
    .await;

    let mut got = Vec::new();
    far.read_to_end(&mut got).await.unwrap();
    assert!(got.len() < length, "{} of {length}", got.len());
}

#[test]
fn only_an_error_that_would_repeat_causes_a_pause() {
    for (error, pause) in [
        (io::Error::from_raw_os_error(24), Some(PAUSE)), // EMFILE
        (io::Error::from_raw_os_error(23), Some(PAUSE)), // ENFILE
        (io::Error::from_raw_os_error(12), Some(PAUSE)), // ENOMEM
        (io::Error::from_raw_os_error(103), None),       // ECONNABORTED
        (io::Error::from_raw_os_error(4), None),         // EINTR
    ] {
        assert_eq!(pause_after(&error), pause, "{error}");
    }
}

fn pages(telemetry: Arc<Telemetry>, drain: Drain) -> Pages {
    Pages {
        drain,
        limits: Arc::default(),
        started: SystemTime::now(),
        telemetry,
    }
}

/// Starts the admin port on a free port, until the test's runtime ends.
async fn start() -> (SocketAddr, Drain) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let drain = Drain::default();
    let hosts = AllowedHosts::new(Some(address), None);
    tokio::spawn(serve(listener, hosts, pages(Telemetry::new(), drain.clone())));
    (address, drain)
}

/// Sends `request` as it is and reads until the connection is closed.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A refusal may come with a reset while the rest of the request is unread; what was read by then counts.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

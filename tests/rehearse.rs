//! A rehearsal of limits and faults: what the app sees, and who says so.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::partner::Partner;
use crate::support::programs::outrider;
use crate::support::{Origin, Proxy, Response, eventually};

fn rehearsing(origin: &Origin, rehearse: &str, keys: &str) -> Proxy {
    origin.proxy(&format!("rehearse: {{ {rehearse} }}, {keys}"))
}

fn asked(origin: &Origin) -> usize {
    origin.raw().matches(" HTTP/1.1\r\n").count()
}

#[track_caller]
fn assert_simulated(answer: &Response, status: u16, mark: &str) {
    assert_eq!(
        (answer.status, answer.header("outrider-rehearsal")),
        (status, Some(mark)),
        "{answer:?}"
    );
    let told = answer.header("proxy-status").unwrap();
    assert!(
        told.starts_with("outrider; ") && told.contains("rehearsal"),
        "{told}"
    );
    assert!(
        answer.error().is_none(),
        "it stands for the destination's answer: {told}"
    );
    assert!(answer.text().contains("rehearsal"), "{answer:?}");
}

#[test]
fn so_many_pass_then_the_limit_is_reached_until_its_time_is_over() {
    let origin = Origin::plain();
    let proxy = rehearsing(&origin, "after: 3, retry_after: 2s", "respect_upstream: false");
    for round in 1..=2 {
        for _ in 0..3 {
            let answer = proxy.get(&origin.url("/"));
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
            assert_eq!(answer.header("outrider-rehearsal"), Some("passed"));
            assert!(answer.header("proxy-status").is_none());
        }
        let refused = proxy.get(&origin.url("/"));
        let started = Instant::now();
        assert_simulated(&refused, 429, "429");
        assert_eq!(refused.header("retry-after"), Some("2"));
        assert_simulated(
            &proxy.ask("POST", &origin.url("/"), "Content-Length: 0\r\n"),
            429,
            "429",
        );
        assert_eq!(asked(&origin), 3 * round, "it never hears of those");
        if round == 1 {
            eventually("its time is over", || started.elapsed() >= Duration::from_secs(2));
        }
    }
    let rehearsed = [("destination", "p"), ("answer", "429")];
    assert_eq!(proxy.metric("outrider_rehearsed_total", &rehearsed), 4.0);
    eventually("who answered is recorded", || {
        proxy.metric(
            "outrider_requests_total",
            &[("code", "429"), ("answered_by", "outrider")],
        ) == 4.0
            && proxy.metric(
                "outrider_requests_total",
                &[("code", "200"), ("answered_by", "upstream")],
            ) == 6.0
    });
}

#[test]
fn answers_are_slow_and_some_fail() {
    let origin = Origin::plain();
    let proxy = rehearsing(&origin, "latency: 300ms, fail: 50%", "");
    for _ in 0..2 {
        let started = Instant::now();
        assert_eq!(
            proxy.get(&origin.url("/")).header("outrider-rehearsal"),
            Some("passed")
        );
        assert!(started.elapsed() >= Duration::from_millis(300));
        let started = Instant::now();
        let failed = proxy.get(&origin.url("/"));
        assert_simulated(&failed, 503, "fail");
        assert!(failed.header("retry-after").is_none());
        assert!(started.elapsed() >= Duration::from_millis(300));
    }
    assert_eq!(
        proxy.metric("outrider_rehearsed_total", &[("answer", "fail")]),
        2.0
    );
    assert_eq!(asked(&origin), 2);
    eventually("all are recorded", || {
        proxy.metric("outrider_overhead_seconds_count", &[("destination", "p")]) == 4.0
    });
    // The destination is slow, not outrider.
    let own = proxy.metric("outrider_overhead_seconds_sum", &[("destination", "p")]);
    assert!(own < 0.3, "{own}");
}

#[test]
fn it_is_logged_at_the_start_and_at_each_reload_and_shown_by_the_commands() {
    let origin = Origin::plain();
    let proxy = rehearsing(
        &origin,
        "after: 0, answer: 403, retry_after: 30s, fail: 2%",
        "respect_upstream: false",
    );
    let told = || {
        let log = proxy.log();
        let lines = log
            .lines()
            .filter(|line| line.contains("REHEARSAL") && line.contains("WARN"));
        lines
            .filter(|line| line.contains("403 with Retry-After 30s after 0 requests"))
            .count()
    };
    eventually("the start is told", || told() == 1);
    assert_simulated(&proxy.get(&origin.url("/")), 403, "403");
    proxy.signal(Signal::HUP);
    eventually("the reload is told", || told() == 2);
    // Where the settings are as before, so is the state.
    let again = proxy.get(&origin.url("/"));
    assert_simulated(&again, 403, "403");
    assert_eq!(asked(&origin), 0);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrider.yml");
    std::fs::write(
        &file,
        "destinations: { p: { hosts: [p.example], rehearse: { fail: 2% } } }\n",
    )
    .unwrap();
    let check = outrider(["check", "--config"]).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(
        check.status.success() && said.contains("destinations.p.rehearse"),
        "{said}"
    );
    assert!(said.contains("2% of the requests fail"), "{said}");
}

#[test]
fn a_reload_does_not_begin_it_anew() {
    let origin = Origin::plain();
    let proxy = rehearsing(&origin, "after: 2, retry_after: 1h", "respect_upstream: false");
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    let before = proxy.metric("outrider_config_reloads_total", &[("result", "done")]);
    proxy.signal(Signal::HUP);
    eventually("the reload", || {
        proxy.metric("outrider_config_reloads_total", &[("result", "done")]) > before
    });
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    assert_eq!(proxy.get(&origin.url("/")).status, 429);
}

/// Neither where nothing is rehearsed nor where something is.
#[test]
fn an_upstream_cannot_say_so_in_our_name() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\nOutrider-Rehearsal: 429\r\nProxy-Status: outrider; details=\"a rehearsal\"\r\n\
         Content-Length: 2\r\n\r\nok",
    );
    let plain = Proxy::start(&format!(
        "destinations: {{ p: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ));
    let answer = plain.get(&origin.url("/"));
    assert!(answer.header("outrider-rehearsal").is_none(), "{answer:?}");
    assert!(answer.header("proxy-status").is_none(), "{answer:?}");
    let rehearsing = rehearsing(&origin, "after: 5", "");
    let answer = rehearsing.get(&origin.url("/"));
    assert_eq!(answer.headers.all("outrider-rehearsal"), ["passed"]);
    assert!(answer.header("proxy-status").is_none(), "{answer:?}");
}

/// What is simulated is met by retries and by the circuit as the real thing would be.
#[test]
fn retries_and_the_circuit_take_it_for_real() {
    let origin = Origin::plain();
    let proxy = rehearsing(
        &origin,
        "after: 1, retry_after: 1s",
        "respect_upstream: false, retry: { max_wait: 3s }",
    );
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    let started = Instant::now();
    let answer = proxy.get(&origin.url("/"));
    assert_eq!(
        (answer.status, answer.header("outrider-rehearsal")),
        (200, Some("passed"))
    );
    assert!(answer.header("proxy-status").is_none(), "{answer:?}");
    assert!(
        started.elapsed() >= Duration::from_millis(900),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(proxy.metric("outrider_retries_total", &[("reason", "429")]), 1.0);

    let proxy = rehearsing(&origin, "fail: 100%", "circuit_breaker: { failures: 2 }");
    for _ in 0..2 {
        assert_simulated(&proxy.get(&origin.url("/")), 503, "fail");
    }
    assert_eq!(
        proxy.get(&origin.url("/")).error(),
        Some("destination_unavailable")
    );
    assert_eq!(
        proxy.metric("outrider_circuit_state", &[("destination", "p")]),
        2.0
    );
}

/// Limits that are learned are learned from it too: outrider spares the app's destination what it says it
/// cannot bear.
#[test]
fn what_is_simulated_is_learned_from() {
    let origin = Origin::plain();
    let proxy = rehearsing(&origin, "after: 1, retry_after: 30s", "on_limit: reject");
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    assert_simulated(&proxy.get(&origin.url("/")), 429, "429");
    let refused = proxy.get(&origin.url("/"));
    assert_eq!(
        (refused.status, refused.error()),
        (429, Some("http_request_denied"))
    );
    assert!(
        refused.header("outrider-rehearsal").is_none(),
        "it is our own: {refused:?}"
    );
    let rehearsed = [("destination", "p"), ("answer", "429")];
    assert_eq!(proxy.metric("outrider_rehearsed_total", &rehearsed), 1.0);
}

/// Inside a tunnel, to HEAD, and to a request whose body is on its way: the connection goes on.
#[test]
fn every_kind_of_request_meets_it() {
    let partner = Partner::new();
    let proxy = partner.proxy("rehearse: { after: 0 }, respect_upstream: false");
    let mut wire = proxy.intercepted(&partner.authority());
    let host = partner.authority();
    assert_simulated(&wire.get(&host, "/"), 429, "429");
    wire.send(format!("HEAD / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    let line = wire.read_line();
    assert!(line.starts_with("HTTP/1.1 429 "), "{line}");
    while wire.read_line() != "\r\n" {}
    let posted = wire.ask(format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n\r\nbody"
    ));
    assert_simulated(&posted, 429, "429");
    assert_simulated(&wire.get(&host, "/"), 429, "429");
    assert!(
        !partner.origin.raw().contains("HTTP/1.1"),
        "{}",
        partner.origin.raw()
    );
}

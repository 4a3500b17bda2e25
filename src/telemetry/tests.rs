//! Tests of the exchange: it is counted once, its own time is separate, and its line has no secrets.

use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::Mutex;
use std::thread;

use http::uri::Authority;
use http::{Method, StatusCode, Uri};
use tokio::time::advance;
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use super::*;

#[test]
fn an_exchange_is_counted_once_on_drop() {
    let telemetry = Telemetry::new();
    let mut exchange = begun(&telemetry, "GET");
    assert_eq!(in_flight(&telemetry), 1.0);
    exchange.asked_upstream();
    exchange.upstream_answered(StatusCode::OK);
    exchange.answered();
    exchange.received(10);
    assert!(
        requests(&telemetry).is_empty(),
        "nothing is counted before the end"
    );
    drop(exchange);

    assert_eq!(requests(&telemetry), ["upstream 200 weather GET 1"]);
    assert_eq!(in_flight(&telemetry), 0.0);
    for histogram in ["request_duration", "overhead", "upstream_response"] {
        let series = format!(r#"outrider_{histogram}_seconds_count{{destination="weather"}}"#);
        assert_eq!(sample(&telemetry, &series), Some(1.0), "{series}");
    }
}

/// One row for each end of an exchange.
#[test]
fn every_end_is_counted_once_and_leaves_nothing_in_flight() {
    type Steps = fn(Box<Exchange>);
    let cases: [(Steps, &[&str], &[&str]); 8] = [
        (drop, &["outrider 499 weather GET 1"], &[]),
        (
            |mut exchange| {
                exchange.asked_upstream();
                drop(exchange);
            },
            &["outrider 499 weather GET 1"],
            &[],
        ),
        (
            |mut exchange| {
                let denied = StatusCode::FORBIDDEN;
                exchange.refused(denied, "http_request_denied", Some("unlisted"));
                exchange.answered();
            },
            &["outrider 403 weather GET 1"],
            &["http_request_denied"],
        ),
        (
            |mut exchange| {
                exchange.asked_upstream();
                exchange.refused(StatusCode::BAD_GATEWAY, "connection_refused", None);
            },
            &["outrider 502 weather GET 1"],
            &["connection_refused"],
        ),
        (
            |mut exchange| {
                exchange.asked_upstream();
                exchange.upstream_answered(StatusCode::OK);
                exchange.answered();
                exchange.cut("http_response_incomplete");
                exchange.cut("connection_timeout");
            },
            &["upstream 200 weather GET 1"],
            &["http_response_incomplete"],
        ),
        (
            // A first attempt whose answer is thrown away in favour of a second.
            |mut exchange| {
                for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::CREATED] {
                    exchange.asked_upstream();
                    exchange.upstream_answered(status);
                }
                exchange.answered();
            },
            &["upstream 201 weather GET 1"],
            &[],
        ),
        (Exchange::discard, &[], &[]),
        (
            |exchange| {
                let panic = thread::spawn(move || {
                    let _exchange = exchange;
                    std::panic::resume_unwind(Box::new("planted"));
                });
                assert!(panic.join().is_err());
            },
            &["outrider 500 weather GET 1"],
            &["proxy_internal_error"],
        ),
    ];
    for (number, (steps, counted, errors)) in cases.into_iter().enumerate() {
        let telemetry = Telemetry::new();
        steps(begun(&telemetry, "GET"));
        assert_eq!(requests(&telemetry), counted, "steps {number}");
        assert_eq!(in_flight(&telemetry), 0.0, "steps {number}");
        let found = labels(&telemetry, "outrider_errors_total", &["error"]);
        let expected: Vec<_> = errors.iter().map(|error| format!("{error} 1")).collect();
        assert_eq!(found, expected, "steps {number}");
    }
}

#[test]
fn a_refusal_by_policy_is_counted_under_its_reason() {
    let telemetry = Telemetry::new();
    let mut exchange = Exchange::begin(&telemetry, &Method::GET, &Uri::from_static("http://127.0.0.1/"));
    exchange.refused(
        StatusCode::FORBIDDEN,
        "destination_ip_prohibited",
        Some("metadata"),
    );
    drop(exchange);
    assert_eq!(requests(&telemetry), ["outrider 403 none GET 1"]);
    let denied = labels(&telemetry, "outrider_denied_total", &["destination", "reason"]);
    assert_eq!(denied, ["none metadata 1"]);
}

#[tokio::test(start_paused = true)]
async fn own_work_is_what_neither_limit_nor_upstream_nor_app_took() {
    let telemetry = Telemetry::new();
    let mut exchange = begun(&telemetry, "POST");
    advance(Duration::from_millis(1003)).await; // 3 ms of own work, the rest in the queue
    exchange.waited(Duration::from_secs(1));
    exchange.asked_upstream();
    advance(Duration::from_millis(40)).await; // connecting
    exchange.asked_upstream();
    advance(Duration::from_millis(500)).await;
    exchange.upstream_answered(StatusCode::OK);
    advance(Duration::from_millis(4)).await;
    exchange.answered();
    advance(Duration::from_secs(7)).await; // the app reads slowly
    drop(exchange);

    for (histogram, seconds) in [
        ("overhead", 0.007),
        ("upstream_response", 0.5),
        ("request_duration", 8.547),
    ] {
        let sum = sample(
            &telemetry,
            &format!(r#"outrider_{histogram}_seconds_sum{{destination="weather"}}"#),
        );
        assert!((sum.unwrap() - seconds).abs() < 1e-9, "{histogram}: {sum:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_stays_out_of_the_requests_times() {
    let telemetry = Telemetry::new();
    let mut exchange = begun(&telemetry, "CONNECT");
    exchange.asked_upstream();
    exchange.tunnel();
    assert_eq!((in_flight(&telemetry), open_tunnels(&telemetry)), (0.0, 1.0));
    advance(Duration::from_secs(90)).await;
    exchange.tunnel_ended(TunnelEnd::Idle);
    drop(exchange);

    assert_eq!(requests(&telemetry), ["outrider 200 weather CONNECT 1"]);
    assert_eq!((in_flight(&telemetry), open_tunnels(&telemetry)), (0.0, 0.0));
    assert_eq!(
        labels(&telemetry, "outrider_tunnels_total", &["result"]),
        ["idle 1"]
    );
    let duration = r#"outrider_tunnel_duration_seconds_sum{destination="weather"}"#;
    assert_eq!(sample(&telemetry, duration), Some(90.0));
    let request = r#"outrider_request_duration_seconds_count{destination="weather"}"#;
    assert_eq!(sample(&telemetry, request), Some(0.0));
}

#[test]
fn a_long_transfer_shows_before_it_ends_and_every_byte_counts_once() {
    let telemetry = Telemetry::new();
    let bytes = |direction| {
        let series = format!(r#"outrider_bytes_total{{destination="weather",direction="{direction}"}}"#);
        sample(&telemetry, &series).unwrap()
    };
    let mut exchange = begun(&telemetry, "PUT");
    exchange.sent(1000);
    assert_eq!(bytes("sent"), 0.0);
    for _ in 0..300 {
        exchange.received(8192);
    }
    assert!(bytes("received") >= f64::from(1 << 20), "{}", bytes("received"));
    exchange.sent(u64::MAX); // saturates, cannot wrap
    drop(exchange);
    assert_eq!(
        (bytes("sent"), bytes("received")),
        (u64::MAX as f64, 300.0 * 8192.0)
    );
}

/// L1: invented methods and status codes do not add series.
#[test]
fn methods_and_codes_from_the_wire_make_no_new_series() {
    let telemetry = Telemetry::new();
    for status in 100..=999 {
        for method in [format!("X{status}"), "get".to_owned(), "GET".to_owned()] {
            let mut exchange = begun(&telemetry, &method);
            exchange.upstream_answered(StatusCode::from_u16(status).unwrap());
        }
    }
    let methods: HashSet<_> = labels(&telemetry, "outrider_requests_total", &["method"])
        .into_iter()
        .filter_map(|line| Some(line.split_once(' ')?.0.to_owned()))
        .collect();
    assert_eq!(methods, HashSet::from(["GET".to_owned(), "other".to_owned()]));
    assert_eq!(requests(&telemetry).len(), 2 * labels::CodeLabel::COUNT);
}

#[test]
fn the_same_name_has_the_same_handles() {
    let telemetry = Telemetry::new();
    assert!(Arc::ptr_eq(
        &telemetry.counters("weather"),
        &telemetry.counters("weather")
    ));
    assert!(Arc::ptr_eq(&telemetry.counters("none"), &telemetry.none));
}

#[test]
fn the_rest_of_a_limit_is_a_ratio() {
    let telemetry = Telemetry::new();
    let limit = telemetry.counters("weather").limit("5/s burst 10");
    for (set, shown) in [
        (0.5, 0.5),
        (2.0, 1.0),
        (-1.0, 0.0),
        (f64::NAN, 0.0),
        (f64::INFINITY, 1.0),
    ] {
        limit.remaining(set);
        let series = r#"outrider_limit_remaining_ratio{destination="weather",limit="5/s burst 10"}"#;
        assert_eq!(sample(&telemetry, series), Some(shown), "{set}");
    }
}

#[test]
fn the_access_setting_decides_which_exchanges_have_a_line() {
    type Steps = fn(&mut Exchange);
    let fine: Steps = |exchange| exchange.upstream_answered(StatusCode::OK);
    let not_found: Steps = |exchange| exchange.upstream_answered(StatusCode::NOT_FOUND);
    let refused: Steps =
        |exchange| exchange.refused(StatusCode::FORBIDDEN, "http_request_denied", Some("path"));
    let cut: Steps = |exchange| {
        exchange.upstream_answered(StatusCode::OK);
        exchange.cut("http_response_incomplete");
    };
    let waited: Steps = |exchange| {
        exchange.waited(Duration::from_millis(1));
        exchange.upstream_answered(StatusCode::OK);
    };
    for (steps, name, errors) in [
        (fine, "fine", 0),
        (not_found, "not found", 1),
        (refused, "refused", 1),
        (cut, "cut", 1),
        (waited, "waited", 1),
    ] {
        for (access, lines) in [(Access::All, 1), (Access::Errors, errors), (Access::None, 0)] {
            let written = lines_of(Level::ERROR, false, || {
                let telemetry = Telemetry::new();
                telemetry.set_access(access);
                steps(&mut begun(&telemetry, "GET"));
            });
            assert_eq!(
                written.lines().count(),
                lines,
                "{name} under {access:?}: {written}"
            );
        }
    }
}

#[test]
fn an_access_line_has_the_result_of_the_request() {
    let written = lines_of(Level::INFO, false, || {
        let telemetry = Telemetry::new();
        let mut exchange = begun(&telemetry, "GET");
        exchange.sent(3);
        exchange.received(5);
        exchange.refused(StatusCode::FORBIDDEN, "http_request_denied", Some("path"));
    });
    let line: serde_json::Value = serde_json::from_str(&written).unwrap();
    for (field, value) in [
        ("target", serde_json::json!("access")),
        ("destination", "weather".into()),
        ("method", "GET".into()),
        ("host", "api.weather.gov".into()),
        ("port", 8443.into()),
        ("path", "/points/1".into()),
        ("status", 403.into()),
        ("answered_by", "outrider".into()),
        ("error", "http_request_denied".into()),
        ("reason", "path".into()),
        ("sent", 3.into()),
        ("received", 5.into()),
        ("wait_ms", 0.0.into()),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert!(
        line["duration_ms"].is_number() && line["overhead_ms"].is_number(),
        "{line}"
    );
}

#[test]
fn an_inner_request_is_logged_with_the_host_of_its_connect() {
    let written = lines_of(Level::INFO, false, || {
        let telemetry = Telemetry::new();
        let mut exchange = Exchange::begin(&telemetry, &Method::GET, &Uri::from_static("/inner"));
        exchange.set_authority(&Authority::from_static("partner.agency.gov:443"));
        exchange.refused(StatusCode::BAD_GATEWAY, "connection_refused", None);
    });
    let line: serde_json::Value = serde_json::from_str(&written).unwrap();
    let found = (&line["host"], &line["port"], &line["path"]);
    assert_eq!(
        found,
        (&"partner.agency.gov".into(), &443.into(), &"/inner".into())
    );
}

/// G1, G2, A13: in every form of the target, its secret parts are not logged, and a line is one line.
#[test]
fn no_secret_and_no_second_line_comes_out_of_a_target() {
    let long = format!("http://h.example/{}?CANARY", "%0d%0a\u{e9}".repeat(4_000));
    for target in [
        "http://user:CANARY@h.example/p?token=CANARY",
        "http://CANARY@h.example:8080/p",
        "user:CANARY@h.example:443",
        "/p?CANARY=CANARY",
        "/p%0a{\"level\":\"ERROR\"}?CANARY",
        "*",
        &long,
    ] {
        let Ok(uri) = target.parse::<Uri>() else { continue };
        for text in [true, false] {
            let written = lines_of(Level::TRACE, text, || {
                let telemetry = Telemetry::new();
                telemetry.set_access(Access::All);
                let mut exchange = Exchange::begin(&telemetry, &Method::GET, &uri);
                exchange.set_destination(&telemetry.counters("weather"));
                exchange.set_authority(&Authority::from_static("CANARY@inner.example:443"));
                exchange.refused(StatusCode::FORBIDDEN, "http_request_denied", None);
                assert!(!format!("{telemetry:?}").contains("CANARY"));
            });
            assert!(!written.contains("CANARY"), "{written}");
            assert_eq!(written.matches('\n').count(), 1, "{written}");
            assert!(written.len() < 8_192, "{}", written.len());
        }
    }
}

/// Begins an exchange whose destination is `weather`.
fn begun(telemetry: &Arc<Telemetry>, method: &str) -> Box<Exchange> {
    let uri = Uri::from_static("https://api.weather.gov:8443/points/1?key=secret");
    let mut exchange = Exchange::begin(telemetry, &method.parse().unwrap(), &uri);
    exchange.set_destination(&telemetry.counters("weather"));
    exchange
}

fn in_flight(telemetry: &Telemetry) -> f64 {
    sample(telemetry, r#"outrider_requests_in_flight{destination="weather"}"#).unwrap()
}

fn open_tunnels(telemetry: &Telemetry) -> f64 {
    sample(telemetry, r#"outrider_tunnels_open{destination="weather"}"#).unwrap()
}

/// Returns `answered_by code destination method value` for every series of requests.
fn requests(telemetry: &Telemetry) -> Vec<String> {
    labels(
        telemetry,
        "outrider_requests_total",
        &["answered_by", "code", "destination", "method"],
    )
}

/// Returns the chosen label values and the value of every series of one family.
fn labels(telemetry: &Telemetry, family: &str, names: &[&str]) -> Vec<String> {
    let families = telemetry.registry.gather();
    let Some(family) = families.iter().find(|found| found.name() == family) else {
        return Vec::new();
    };
    let line = |metric: &prometheus::proto::Metric| {
        let mut words: Vec<_> = metric
            .get_label()
            .iter()
            .filter(|label| names.contains(&label.name()))
            .map(|label| label.value().to_owned())
            .collect();
        words.push(metric.get_counter().get_value().to_string());
        words.join(" ")
    };
    family.get_metric().iter().map(line).collect()
}

/// Returns the value of one series on the page.
fn sample(telemetry: &Telemetry, series: &str) -> Option<f64> {
    let page = String::from_utf8(telemetry.render()).unwrap();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

/// Returns what the log writes at `level` while `steps` run.
pub(super) fn lines_of(level: Level, text: bool, steps: impl FnOnce()) -> String {
    let captured = Captured::default();
    tracing::subscriber::with_default(log::captured(level, text, captured.clone()), steps);
    captured.text()
}

/// Receives the log instead of standard error.
#[derive(Clone, Debug, Default)]
pub(super) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Captured {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

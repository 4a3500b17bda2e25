//! Tests of the registry and of the record.

use http::{Method, StatusCode, Uri};

use super::*;

#[test]
fn an_exchange_is_counted_once_on_drop() {
    let telemetry = Telemetry::new();
    let counters = telemetry.counters("weather");
    let uri = Uri::from_static("http://api.weather.gov/points?key=secret");

    let mut exchange = Exchange::begin(&telemetry, &Method::GET, &uri);
    exchange.bound_for(&counters);
    assert_eq!(
        sample(
            &telemetry,
            r#"outrider_requests_in_flight{destination="weather"}"#
        ),
        Some(1.0)
    );
    exchange.asked_upstream();
    exchange.upstream_answered(StatusCode::OK);
    exchange.answered();
    exchange.received(10);
    drop(exchange);

    let series =
        r#"outrider_requests_total{answered_by="upstream",code="200",destination="weather",method="GET"}"#;
    assert_eq!(sample(&telemetry, series), Some(1.0));
    assert_eq!(
        sample(
            &telemetry,
            r#"outrider_requests_in_flight{destination="weather"}"#
        ),
        Some(0.0)
    );
    for histogram in ["request_duration", "overhead", "upstream_response"] {
        let series = format!(r#"outrider_{histogram}_seconds_count{{destination="weather"}}"#);
        assert_eq!(sample(&telemetry, &series), Some(1.0), "{series}");
    }
}

/// The value of one series on the page.
fn sample(telemetry: &Telemetry, series: &str) -> Option<f64> {
    let page = String::from_utf8(telemetry.render()).unwrap();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

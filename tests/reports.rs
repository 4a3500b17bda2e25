//! What outrider reports without being asked: `log.metrics` and `telemetry.push`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::prometheus::Prometheus;
use crate::support::{Origin, PATIENCE, Proxy, TOKEN, eventually};

/// The last line comes at the end, so that nothing here waits for an interval.
#[test]
fn the_key_counters_are_logged() {
    let origin = Origin::plain();
    let mut proxy = Proxy::start(&format!(
        "log: {{ metrics: 1h, level: error, access: none, format: json }}\ndestinations: {{ p: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ));
    for _ in 0..3 {
        assert_eq!(proxy.get(&origin.url("/?secret=no")).status, 200);
    }
    assert_eq!(proxy.get("http://stranger.test/").status, 403);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit().code(), Some(0));
    let log = proxy.log();
    let lines: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let of = |destination: Option<&str>| {
        let is_it =
            |line: &&Value| line["target"] == "metrics" && line["destination"].as_str() == destination;
        lines
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("{destination:?}: {log}"))
    };
    let (sums, named) = (of(None), of(Some("p")));
    assert_eq!(
        (&sums["requests"], &sums["denied"]),
        (&4.0.into(), &1.0.into()),
        "{sums}"
    );
    assert_eq!(sums["answered_by_outrider"], 1.0, "{sums}");
    assert_eq!(
        (&named["requests"], &named["status_2xx"]),
        (&3.0.into(), &3.0.into()),
        "{named}"
    );
    assert!(named.get("denied").is_none(), "{named}");
    assert!(!log.contains("secret=no"), "{log}");
}

/// The last push, at the end, has what was counted until then; the real Prometheus takes it.
#[test]
fn metrics_are_pushed_to_prometheus() {
    let prometheus = Prometheus::start(&[("prometheus", &[])], None);
    let origin = Origin::plain();
    let mut proxy = Proxy::start_with(
        &format!(
            "telemetry: {{ push: {{ url: \"http://{0}/api/v1/write\", every: 1h }} }}\n\
             destinations: {{ p: {{ hosts: [\"{1}\"] }}, receiver: {{ hosts: [\"{0}\"] }} }}",
            prometheus.listen,
            origin.authority()
        ),
        &[
            ("VCAP_APPLICATION", r#"{"application_name":"shop"}"#),
            ("CF_INSTANCE_INDEX", "3"),
            ("CF_INSTANCE_GUID", "0a1b2c3d-4e5f"),
        ],
    );
    eventually("it is ready", || {
        prometheus.query("up").is_ok_and(|found| !found.is_empty())
    });
    for _ in 0..3 {
        assert_eq!(proxy.get(&origin.url("/")).status, 200);
    }
    // Other processes of this machine are no app.
    proxy.rewrite(&format!(
        "drain_until: quiet\ntelemetry: {{ push: \"http://{0}/api/v1/write\" }}\n\
         destinations: {{ p: {{ hosts: [\"{1}\"] }}, receiver: {{ hosts: [\"{0}\"] }} }}",
        prometheus.listen,
        origin.authority()
    ));
    eventually("the reload", || {
        proxy.metric("outrider_config_reloads_total", &[("result", "done")]) >= 1.0
    });
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit().code(), Some(0));
    let query =
        r#"outrider_requests_total{job="outrider",instance="shop/3/0a1b2c3d",destination="p",code="200"}"#;
    eventually("the series", || {
        let found = prometheus.query(query).unwrap_or_default();
        found.first().is_some_and(|series| series["value"][1] == "3")
    });
    let buckets = r#"outrider_request_duration_seconds_bucket{job="outrider",destination="p",le="+Inf"}"#;
    assert_eq!(prometheus.query(buckets).unwrap()[0]["value"][1], "3");
}

/// The push is under the rules of every request: its destination's credential, and the rules for egress.
#[test]
fn a_push_goes_the_way_of_a_request() {
    let receiver = Origin::plain();
    let push = format!("telemetry: {{ push: \"{}\" }}", receiver.url("/write"));
    let mut proxy = Proxy::start_with(
        &format!(
            "{push}\ndestinations: {{ r: {{ hosts: [\"{}\"], auth: {{ bearer: env:TOKEN }}, upgrade: false, insecure_attach_over_http: true }} }}",
            receiver.authority()
        ),
        &[("TOKEN", TOKEN)],
    );
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit().code(), Some(0));
    let raw = receiver.raw().to_lowercase();
    let authorization = format!("authorization: bearer {TOKEN}").to_lowercase();
    for part in ["post /write", "content-encoding: snappy", &authorization] {
        assert!(raw.contains(part), "{part}: {raw}");
    }

    let stranger = Origin::plain();
    let mut proxy = Proxy::start(&format!("telemetry: {{ push: \"{}\" }}", stranger.url("/write")));
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit().code(), Some(0));
    assert_eq!(stranger.raw(), "");
    assert!(
        proxy.log().contains("metrics cannot be pushed"),
        "{}",
        proxy.log()
    );
}

/// A receiver that does not answer delays neither the next push nor the lines in the log; each failure is counted, the
/// first one is told, and so is the end of it.
#[test]
fn reports_are_regular_whatever_becomes_of_a_push() {
    let (arrived, hangs) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(true)));
    let receiver = Origin::http({
        let (arrived, hangs) = (Arc::clone(&arrived), Arc::clone(&hangs));
        move |wire| {
            while wire.request().is_ok() {
                arrived.lock().unwrap().push(Instant::now());
                let refuses = hangs.load(Ordering::Relaxed);
                if refuses {
                    // Longer than a push may take.
                    std::thread::park_timeout(Duration::from_secs(11));
                }
                wire.send("HTTP/1.1 204 No Content\r\n\r\n");
            }
        }
    });
    let proxy = Proxy::start(&format!(
        "log: {{ metrics: 10s, format: json, access: none }}\n\
         telemetry: {{ push: {{ url: \"{}\", every: 10s }} }}\n\
         destinations: {{ r: {{ hosts: [\"{}\"] }} }}",
        receiver.url("/write"),
        receiver.authority()
    ));
    let pushes = |result| proxy.metric("outrider_push_total", &[("result", result)]);
    let wait = |claim: &str, what: &dyn Fn() -> bool| {
        let begin = Instant::now();
        while !what() {
            assert!(begin.elapsed() < 2 * PATIENCE, "{claim}: {}", proxy.log());
            std::thread::park_timeout(Duration::from_millis(50));
        }
    };
    assert_eq!(
        (pushes("done"), pushes("failed")),
        (0.0, 0.0),
        "both are on the page"
    );
    wait("a failure", &|| pushes("failed") == 1.0);
    hangs.store(false, Ordering::Relaxed);
    wait("a success", &|| pushes("done") >= 1.0);
    wait("it is told", &|| proxy.log().contains("metrics are pushed again"));
    assert_eq!(
        proxy.log().matches("metrics cannot be pushed").count(),
        1,
        "{}",
        proxy.log()
    );
    assert!(proxy.log().contains("no answer within 10 s"), "{}", proxy.log());

    let arrived = arrived.lock().unwrap().clone();
    let apart = |times: &[Duration]| times.windows(2).map(|two| two[1] - two[0]).collect::<Vec<_>>();
    let arrived: Vec<_> = arrived.iter().map(|at| *at - arrived[0]).collect();
    // Of each line that sums up an interval: the seconds of its minute, counted on over the hour.
    let seconds = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        let is_sum = line["target"] == "metrics" && line.get("destination").is_none();
        let time = is_sum.then(|| line["timestamp"].as_str().unwrap_or_default().to_owned())?;
        let numbers: Vec<f64> = time[11..26]
            .split(':')
            .map(|part| part.parse().unwrap())
            .collect();
        Some(Duration::from_secs_f64(
            (numbers[0] * 60.0 + numbers[1]) * 60.0 + numbers[2],
        ))
    };
    let logged: Vec<_> = proxy.log().lines().filter_map(seconds).collect();
    assert!(arrived.len() >= 2 && logged.len() >= 2, "{arrived:?} {logged:?}");
    for apart in apart(&arrived).into_iter().chain(apart(&logged)) {
        let seconds = apart.as_secs_f64();
        assert!((8.5..11.5).contains(&seconds), "{arrived:?} {logged:?}");
    }
}

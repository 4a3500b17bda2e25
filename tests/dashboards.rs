//! The dashboard and the alert rules, evaluated by a real Prometheus on the metrics of a real outrider.

use std::path::Path;

use serde_json::Value;

use crate::support::partner::Partner;
use crate::support::programs::curl;
use crate::support::prometheus::Prometheus;
use crate::support::{Origin, Proxy, TOKEN, closed_port, eventually, run};

/// Answers each request with this status and these fields.
fn saying(status: &str, fields: &str) -> Origin {
    Origin::saying(format!(
        "HTTP/1.1 {status}\r\n{fields}Content-Length: 2\r\n\r\nok"
    ))
}

/// Returns the value of a sample, `None` for NaN.
fn value(sample: &Value) -> Option<f64> {
    let value: f64 = sample["value"][1].as_str()?.parse().ok()?;
    (!value.is_nan()).then_some(value)
}

/// Returns the text that Grafana puts in place of a variable if all of its values are chosen.
fn all_of(name: &str, dashboard: &Value, prometheus: &Prometheus) -> String {
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variable = variables
        .iter()
        .find(|variable| variable["name"] == name)
        .unwrap();
    if let Some(all) = variable["allValue"].as_str() {
        return all.to_owned();
    }
    let series = prometheus.query("outrider_build_info").unwrap();
    let values = series.iter().filter_map(|series| series["metric"][name].as_str());
    format!("({})", values.collect::<Vec<_>>().join("|"))
}

/// Returns every expression that Prometheus gets from the dashboard, with the panel's title.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            found.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    found
}

/// Each panel shows something, and nothing of other jobs; each rule can be evaluated; those alerts are pending
/// or firing that should be.
#[test]
fn every_panel_and_rule_works_on_a_real_scrape() {
    let partner = Partner::new();
    let echo = saying("200 OK", &format!("X-Echo: {TOKEN}\r\n"));
    let refusing = saying("401 Unauthorized", "");
    let erring = saying("500 Internal Server Error", "");
    let (throttling, failing) = (
        saying("429 Too Many Requests", "Retry-After: 60\r\n"),
        saying("503 Service Unavailable", ""),
    );
    let cached = saying("200 OK", "Cache-Control: max-age=60\r\n");
    let plain = Origin::plain();
    let mut yaml = partner.yaml("rate_limit: 2/s burst 1, on_limit: wait 5s");
    let dead = closed_port();
    for (name, port, settings) in [
        (
            "echo",
            echo.port(),
            "auth: { bearer: env:TOKEN }, upgrade: false, insecure_attach_over_http: true",
        ),
        ("throttling", throttling.port(), "respect_upstream: true"),
        (
            "failing",
            failing.port(),
            "retry: { attempts: 2, on: [503] }, circuit_breaker: { failures: 2 }",
        ),
        ("cached", cached.port(), "cache: { size: 1MiB }"),
        ("blind", plain.port(), "mode: tunnel"),
        ("slow", plain.port(), "rate_limit: 1/h burst 1"),
        ("simulated", plain.port(), "rehearse: { after: 0, answer: 429 }"),
        (
            "tokens",
            plain.port(),
            &format!(
                "auth: {{ oauth2: {{ token_url: \"https://partner.test:{dead}/\", client_id: a, client_secret: env:TOKEN }} }}"
            ),
        ),
        ("distrusted", dead, "auth: { bearer: env:TOKEN }"),
        (
            "refusing",
            refusing.port(),
            "auth: { bearer: env:TOKEN }, upgrade: false, insecure_attach_over_http: true",
        ),
        ("erring", erring.port(), ""),
        ("lookup", 9, ""),
        ("parented", 9, &format!("parent: \"http://127.0.0.1:{dead}\"")),
    ] {
        yaml.push_str(&format!(
            "  {name}: {{ hosts: [\"{name}.test:{port}\"], {settings} }}\n"
        ));
    }
    let names = [
        "echo",
        "throttling",
        "failing",
        "cached",
        "blind",
        "slow",
        "simulated",
        "tokens",
        "distrusted",
        "refusing",
        "erring",
    ];
    let hosts: Vec<_> = names
        .iter()
        .chain(&["partner"])
        .map(|name| format!("{name}.test: 127.0.0.1"))
        .collect();
    yaml.push_str(&format!(
        "dns: {{ servers: [\"127.0.0.1:{dead}\"], timeout: 200ms, hosts: {{ {} }} }}\n",
        hosts.join(", ")
    ));
    yaml.push_str("telemetry: { push: \"http://unlisted.test/write\" }\n");
    let application = r#"{"application_name":"billing","space_name":"prod","organization_name":"agency"}"#;
    let proxy = Proxy::start_with(
        &yaml,
        &[
            ("TOKEN", TOKEN),
            ("VCAP_APPLICATION", application),
            ("CF_INSTANCE_INDEX", "0"),
        ],
    );
    let url = |name: &str, port: u16| format!("http://{name}.test:{port}/");
    let drive = || {
        for _ in 0..2 {
            proxy.get(&partner.url("/"));
            proxy.get(&url("echo", echo.port()));
            proxy.get(&url("refusing", refusing.port()));
            proxy.get(&url("erring", erring.port()));
            proxy.get(&url("throttling", throttling.port()));
            proxy.get(&url("failing", failing.port()));
            proxy.get(&url("cached", cached.port()));
            proxy.get(&url("slow", plain.port()));
            proxy.get(&url("simulated", plain.port()));
            proxy.get(&url("tokens", plain.port()));
            proxy.get(&url("lookup", 9));
            proxy.get(&url("parented", 9));
            proxy.get("http://unlisted.test/");
            drop(proxy.tunnel(&format!("blind.test:{}", plain.port())));
            let proxy = format!("http://{}", proxy.address());
            run(&mut curl([
                "-s",
                "-x",
                &proxy,
                &format!("https://distrusted.test:{dead}/"),
            ]));
        }
        (proxy.intercepted(&partner.authority())).get(&partner.authority(), "/");
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana");
    let admin = [proxy.admin().to_string()];
    let prometheus = Prometheus::start(
        &[("sidecars", &admin), ("prometheus", &[])],
        Some(&folder.join("prometheus-rules.yml")),
    );
    let count = |query: &str| prometheus.query(query).map_or(0, |result| result.len());
    drive();
    eventually("the first scrapes are in", || {
        count("count_over_time(outrider_requests_total[1h]) > 1") > 5
            && count("process_start_time_seconds") == 2
    });
    let before = count("outrider_requests_total");
    drive();
    eventually("the second round is in", || {
        count("increase(outrider_requests_total{destination=\"partner\"}[1m]) > 0") > 0
            && count("increase(outrider_limit_wait_seconds_count[1m]) > 0") > 0
    });
    assert!(before > 5, "{before}");
    // Only now: what came before was sent without a password.
    proxy.rewrite(&format!("clients: {{ app: {{ basic: env:TOKEN }} }}\n{yaml}"));
    proxy.signal(rustix::process::Signal::HUP);
    eventually("the clients are scraped", || {
        count("count_over_time(outrider_client_requests_total[1m]) > 1") > 0
    });

    let text = std::fs::read_to_string(folder.join("outrider.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    for (title, expression) in expressions(&dashboard) {
        let mut query = expression.clone();
        for name in ["job", "instance", "destination"] {
            query = query.replace(&format!("${name}"), &all_of(name, &dashboard, &prometheus));
        }
        let query = query.replace("$__rate_interval", "1m").replace("$__range", "1h");
        match prometheus.query(&query) {
            Err(error) => wrong.push(format!("{title}: {query}: {error}")),
            Ok(result) if !result.iter().any(|sample| value(sample).is_some()) => {
                wrong.push(format!("{title}: shows nothing: {query}: {result:?}"));
            }
            Ok(result) => {
                let is_foreign = |sample: &Value| sample["metric"]["job"] == "prometheus";
                if result.iter().any(is_foreign) || title == "Memory" && result.len() != 1 {
                    wrong.push(format!("{title}: shows other jobs: {result:?}"));
                }
                let most = result.iter().filter_map(value).fold(f64::MIN, f64::max);
                let is_alive = ["Paused for", "Circuit", "Memory", "Instances", "Requests"];
                if is_alive.contains(&title.as_str()) && most <= 0.0 {
                    wrong.push(format!("{title}: is {most}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let mut rules = Vec::new();
    eventually("the rules are evaluated", || {
        let groups = prometheus.api("rules", &[])["data"]["groups"].clone();
        rules = groups
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|group| group["rules"].as_array().unwrap().clone())
            .collect();
        !rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown")
    });
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    let state = |name: &str| {
        let rule = rules.iter().find(|rule| rule["name"] == name).unwrap();
        rule["state"].as_str().unwrap().to_owned()
    };
    for alert in [
        "OutriderSecretsStruck",
        "OutriderDenied",
        "OutriderAppDistrusts",
        "OutriderUpstreamErrors",
        "OutriderCredentialRefused",
        "OutriderCircuitOpen",
        "OutriderLimitExhausted",
    ] {
        assert_ne!(state(alert), "inactive", "{alert}");
    }
    for alert in [
        "OutriderDown",
        "OutriderAbsent",
        "OutriderPlaceholderRefused",
        "OutriderFull",
        "OutriderOverheadHigh",
        "OutriderConfigReloadFailed",
    ] {
        assert_eq!(state(alert), "inactive", "{alert}");
    }
}

/// A server that fails every handshake is no connection that was made, and the alert about certificates goes by
/// that.
#[test]
fn a_connect_counts_as_made_when_a_request_can_go_out() {
    let partner = Partner::new();
    let yaml = format!(
        "destinations: {{ p: {{ hosts: [\"{}\"], tls: {{}}, auth: {{ bearer: env:TOKEN }} }} }}",
        partner.authority()
    );
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    for _ in 0..3 {
        proxy
            .get(&partner.url("/"))
            .assert_ours(502, "tls_certificate_error");
    }
    let connects = |result: &str| proxy.metric("outrider_upstream_connects_total", &[("result", result)]);
    assert_eq!((connects("ok"), connects("tls_certificate_error")), (0.0, 3.0));
    // The connection is made and then refused: our certificate is missing.
    let yaml = format!(
        "destinations: {{ p: {{ hosts: [\"{}\"], tls: {{ ca: \"file:{}\" }} }} }}",
        partner.authority(),
        partner.pki.ca().display()
    );
    let proxy = Proxy::start(&yaml);
    proxy
        .get(&partner.url("/"))
        .assert_ours(502, "tls_alert_received");
    let good = partner.proxy("");
    assert_eq!(good.get(&partner.url("/")).status, 200);
    assert_eq!(good.metric("outrider_upstream_connects_total", &[]), 1.0);
}

/// A 401 or 403 to a credential of ours is counted, one to the app's own is not.
#[test]
fn a_refused_credential_is_counted() {
    let (refusing, forbidding) = (saying("401 Unauthorized", ""), saying("403 Forbidden", ""));
    let attach = "auth: { bearer: env:TOKEN }, upgrade: false, insecure_attach_over_http: true";
    let proxy = Proxy::start_with(
        &format!(
            "destinations:\n  a: {{ hosts: [\"{}\"], {attach} }}\n  b: {{ hosts: [\"{}\"] }}\n",
            refusing.authority(),
            forbidding.authority().replace("partner", "other"),
        ),
        &[("TOKEN", TOKEN)],
    );
    proxy.get(&refusing.url("/"));
    proxy.get(&forbidding.url("/").replace("partner", "other"));
    let refused = |labels: &[(&str, &str)]| proxy.metric("outrider_credential_refused_total", labels);
    assert_eq!(refused(&[("destination", "a"), ("code", "401")]), 1.0);
    assert_eq!(refused(&[]), 1.0);
}

/// The app is turned away at the door: counted, so that an alert can fire.
#[test]
fn a_connection_that_is_turned_away_is_counted() {
    let proxy = Proxy::start("limits: { connections: 1 }");
    // Each worker accepts: without an answer, it is not certain which connection came first.
    let mut first = proxy.wire();
    first.ask("GET http://other.test/ HTTP/1.1\r\nHost: other.test\r\n\r\n");
    assert!(proxy.wire().rest().0.starts_with(b"HTTP/1.1 503"));
    let labels = [("destination", "none"), ("error", "connection_limit_reached")];
    assert!(proxy.metric("outrider_errors_total", &labels) >= 1.0);
}

/// What nobody asks any more is not shown as open for ever.
#[test]
fn an_idle_circuit_is_shown_half_open_when_its_time_is_over() {
    let failing = saying("503 Service Unavailable", "");
    let proxy = failing.proxy("circuit_breaker: { failures: 1, open_for: 1s }");
    proxy.get(&failing.url("/"));
    let state = || proxy.metric("outrider_circuit_state", &[("destination", "p")]);
    assert_eq!(state(), 2.0);
    eventually("it is half open", || state() == 1.0);
    proxy.get(&failing.url("/"));
    assert_eq!(state(), 2.0, "the request tried");
}

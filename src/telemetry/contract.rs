//! The names on the metrics page are a contract: with our dashboards and alert rules, and with those of users.
//!
//! Prometheus' `promtool` judges the page and the rules; without it those tests print a note and pass.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::*;

/// Every family with its labels, in alphabetical order.
const CONTRACT: &[(&str, &str)] = &[
    ("outrider_build_info", "version revision crypto"),
    ("outrider_bytes_total", "destination direction"),
    ("outrider_cache_total", "destination status"),
    ("outrider_circuit_state", "destination"),
    ("outrider_client_distrust_total", "destination"),
    ("outrider_client_requests_total", "client result"),
    ("outrider_config_loaded_timestamp_seconds", ""),
    ("outrider_config_reloads_total", "result"),
    ("outrider_credential_expiry_timestamp_seconds", "destination kind"),
    ("outrider_credential_refresh_total", "destination kind result"),
    ("outrider_credential_refused_total", "destination code"),
    ("outrider_denied_total", "destination reason"),
    ("outrider_dns_lookup_seconds", "result"),
    ("outrider_errors_total", "destination error"),
    ("outrider_instance_info", "app space organization instance"),
    ("outrider_limit_refused_total", "destination limit"),
    ("outrider_limit_remaining_ratio", "destination limit"),
    ("outrider_limit_wait_seconds", "destination"),
    ("outrider_limit_waiting", "destination"),
    ("outrider_log_lines_dropped_total", ""),
    ("outrider_memory_short", ""),
    ("outrider_observed_total", "reason"),
    ("outrider_overhead_seconds", "destination"),
    ("outrider_panics_total", ""),
    ("outrider_parent_connects_total", "parent result"),
    ("outrider_paused_until_timestamp_seconds", "destination"),
    ("outrider_push_total", "result"),
    ("outrider_quota_store_errors_total", ""),
    ("outrider_rehearsed_total", "destination answer"),
    ("outrider_request_duration_seconds", "destination"),
    ("outrider_requests_in_flight", "destination"),
    ("outrider_requests_total", "destination method code answered_by"),
    ("outrider_retries_total", "destination reason"),
    ("outrider_secrets_struck_total", "destination part"),
    ("outrider_tls_handshake_seconds", "destination side"),
    ("outrider_tunnel_duration_seconds", "destination"),
    ("outrider_tunnels_open", "destination"),
    ("outrider_tunnels_total", "destination result"),
    ("outrider_upstream_connections_open", "destination"),
    ("outrider_upstream_connects_total", "destination result"),
    ("outrider_upstream_response_seconds", "destination"),
    ("outrider_upstream_reuses_total", "destination"),
    ("outrider_upstream_throttled_total", "destination code"),
    ("process_cpu_seconds_total", ""),
    ("process_max_fds", ""),
    ("process_open_fds", ""),
    ("process_resident_memory_bytes", ""),
    ("process_start_time_seconds", ""),
    ("process_threads", ""),
    ("process_virtual_memory_bytes", ""),
];

#[test]
fn the_page_has_the_families_and_labels_of_the_contract() {
    let found: BTreeMap<_, _> = everything()
        .registry
        .gather()
        .iter()
        .map(|family| {
            let names = family.get_metric()[0]
                .get_label()
                .iter()
                .map(|label| label.name().to_owned());
            (family.name().to_owned(), names.collect::<BTreeSet<_>>())
        })
        .collect();
    let expected: BTreeMap<_, _> = CONTRACT
        .iter()
        .map(|(name, labels)| {
            let labels = labels.split_whitespace().map(str::to_owned);
            ((*name).to_owned(), labels.collect::<BTreeSet<_>>())
        })
        .collect();
    assert_eq!(found, expected);
}

/// L2: promtool gives no warning either.
#[test]
fn prometheus_finds_nothing_wrong_with_the_page() {
    let Some((is_sound, output)) = promtool(&["check", "metrics"], &everything().render()) else {
        return;
    };
    assert!(is_sound && output.is_empty(), "{output}");
}

/// L3: a label value from the configuration or the platform stays a label value.
#[test]
fn label_values_are_escaped() {
    let telemetry = Telemetry::new();
    let name = "x\"} 1\nforged_total 1\n\\";
    telemetry.counters(name);
    let application = serde_json::json!({ "application_name": name }).to_string();
    instance::set_info(&telemetry.families, Some(&application), None);
    let page = String::from_utf8(telemetry.render()).unwrap();
    assert!(
        !page.lines().any(|line| line.starts_with("forged_total")),
        "{page}"
    );
    assert!(page.contains(r#"app="x\"} 1\nforged_total 1\n\\""#), "{page}");
}

/// L6.
#[test]
fn the_alert_rules_pass_their_tests() {
    for (command, file) in [
        ("check", "prometheus-rules.yml"),
        ("test", "prometheus-rules-test.yml"),
    ] {
        let file = grafana().join(file);
        let arguments = [command, "rules", file.to_str().unwrap()];
        let Some((is_sound, output)) = promtool(&arguments, b"") else {
            return;
        };
        assert!(is_sound, "{output}");
    }
}

#[test]
fn dashboards_and_rules_use_only_what_is_on_the_page() {
    let mut used = 0;
    let rules = fs::read_to_string(grafana().join("prometheus-rules.yml")).unwrap();
    for (place, query) in dashboard_queries()
        .into_iter()
        .chain([("rules".to_owned(), rules)])
    {
        for (metric, labels) in selectors(&query) {
            used += 1;
            let known = labels_of(&metric).unwrap_or_else(|| panic!("{place}: no such metric: {metric}"));
            for label in labels {
                assert!(
                    known.contains(label.as_str()),
                    "{place}: {metric} has no label {label}"
                );
            }
        }
    }
    assert!(used > 50, "only {used} uses found: is the reader blind?");
}

#[test]
fn every_query_of_the_dashboards_is_sound() {
    let mut rules = String::from("groups:\n- name: dashboards\n  rules:\n");
    for (number, (_, query)) in dashboard_queries().iter().enumerate() {
        if query.starts_with("label_values(") {
            continue;
        }
        let query = query.replace("$__rate_interval", "5m").replace("$__range", "1h");
        let query = serde_json::to_string(&query).unwrap(); // a JSON string is a YAML string
        rules.push_str(&format!(
            "  - {{ record: 'dashboard:query:{number}', expr: {query} }}\n"
        ));
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), rules).unwrap();
    let Some((is_sound, output)) = promtool(&["check", "rules", file.path().to_str().unwrap()], b"") else {
        return;
    };
    assert!(is_sound, "{output}");
}

/// Grafana accepts a dashboard with two panels of one id, or one over the other, and shows it broken.
#[test]
fn dashboards_are_laid_out_soundly() {
    for (file, dashboard) in dashboards() {
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = &panel["title"];
            assert!(
                ids.insert(panel["id"].as_u64().unwrap()),
                "{file}: {title} has a number twice"
            );
            let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(place("x") + place("w") <= 24, "{file}: {title} is too wide");
            for x in place("x")..place("x") + place("w") {
                for y in place("y")..place("y") + place("h") {
                    assert!(taken.insert((x, y)), "{file}: {title} lies over another");
                }
            }
            if panel["type"] != "row" {
                assert_eq!(panel["datasource"]["uid"], "${datasource}", "{file}: {title}");
                assert!(
                    !panel["targets"].as_array().unwrap().is_empty(),
                    "{file}: {title}"
                );
            }
        }
    }
}

/// Returns telemetry in which every family has a sample.
fn everything() -> Arc<Telemetry> {
    let telemetry = Telemetry::new();
    let application = r#"{"application_name":"billing","space_name":"prod","organization_name":"agency"}"#;
    instance::set_info(&telemetry.families, Some(application), Some("0"));
    telemetry.config_loaded();
    telemetry.config_reload(ReloadResult::Failed);
    telemetry.pushed(PushResult::Failed);
    let moment = Duration::from_millis(1);
    telemetry.dns_lookup("ok", moment);
    telemetry.client("app").request(false);
    telemetry.parent("proxy.test:3128").connect("ok");

    let counters = telemetry.counters("weather");
    counters.credential_expiry(CredentialKind::ClientCertificate, 1_900_000_000);
    counters.credential_refresh(CredentialKind::Token, RefreshResult::Done);
    counters.credential_refused(http::StatusCode::UNAUTHORIZED);
    counters.tls_handshake(TlsSide::Client, moment);
    counters.tls_handshake(TlsSide::Upstream, moment);
    counters.handshake_failed(HandshakeFailure::Distrust);
    counters.upstream_connect("ok");
    counters.upstream_reuse();
    drop(counters.upstream_connection());
    let limit = counters.limit("5/s burst 10");
    limit.refused();
    counters.cached(CacheStatus::Hit);
    counters.circuit(CircuitState::Closed);
    counters.paused_until(0);
    counters.rehearsed("429");
    counters.retry("429");
    counters.redacted(MessagePart::Head);
    counters.upstream_throttled(http::StatusCode::TOO_MANY_REQUESTS);
    drop(counters.limit_waiting());
    counters.limit_waited(moment);

    for uri in ["http://api.weather.gov/", "http://10.0.0.1/"] {
        let mut exchange = Exchange::begin(&telemetry, &http::Method::GET, &uri.parse().unwrap());
        exchange.set_destination(&counters);
        exchange.asked_upstream();
        exchange.upstream_answered(http::StatusCode::OK);
        exchange.answered();
        exchange.received(1);
    }
    let mut observed = Exchange::begin(&telemetry, &http::Method::GET, &"http://b.test/".parse().unwrap());
    let target = crate::host::Target::of_absolute(&"http://b.test/".parse().unwrap()).unwrap();
    observed.observe(ObservedRequest::new(&target, &http::Method::GET, "/", "unlisted"));
    drop(observed);
    let mut denied = Exchange::begin(&telemetry, &http::Method::GET, &"/".parse().unwrap());
    denied.refused(http::StatusCode::FORBIDDEN, "http_request_denied", Some("path"));
    drop(denied);
    let mut tunnel = Exchange::begin(
        &telemetry,
        &http::Method::CONNECT,
        &"a.example:443".parse().unwrap(),
    );
    tunnel.set_destination(&counters);
    tunnel.tunnel();
    drop(tunnel);
    telemetry
}

/// Returns the labels of a metric on the page and those that Prometheus adds. A histogram has three names.
fn labels_of(metric: &str) -> Option<BTreeSet<&'static str>> {
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
        let base = metric.strip_suffix(end)?;
        base.ends_with("_seconds").then_some(base)
    });
    let (_, labels) = CONTRACT
        .iter()
        .find(|(name, _)| *name == base.unwrap_or(metric))?;
    let mut labels: BTreeSet<_> = labels.split_whitespace().chain(["instance", "job"]).collect();
    if metric.ends_with("_bucket") {
        labels.insert("le");
    }
    Some(labels)
}

/// Returns each metric of ours in a query, with the labels used: in its selector, and in the nearest `by (…)`
/// before it.
fn selectors(query: &str) -> Vec<(String, Vec<String>)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut grouping: Vec<String> = Vec::new();
    let mut rest = query;
    while let Some(start) = rest.find(is_word) {
        let word_and_rest = &rest[start..];
        let end = word_and_rest.find(|c| !is_word(c)).unwrap_or(word_and_rest.len());
        let (word, after) = word_and_rest.split_at(end);
        rest = after;
        if word == "expr:" {
            grouping.clear(); // the next rule of a file
        } else if word == "by" && after.trim_start().starts_with('(') {
            let list = after[after.find('(').unwrap() + 1..].split(')').next().unwrap();
            grouping = list.split(',').map(|label| label.trim().to_owned()).collect();
            rest = &after[after.find(')').unwrap()..];
        } else if word.starts_with("outrider_") || word.starts_with("process_") {
            let mut labels = grouping.clone();
            if let Some(matchers) = after.strip_prefix('{') {
                let inside = &matchers[..matchers.find('}').unwrap()];
                // No value of ours holds a comma, so every piece is `label OPERATOR "value"`.
                let names = inside
                    .split(',')
                    .filter_map(|matcher| matcher.split(['=', '!']).next());
                labels.extend(
                    names
                        .map(|name| name.trim().to_owned())
                        .filter(|name| !name.is_empty()),
                );
                rest = &matchers[inside.len()..];
            }
            found.push((word.to_owned(), labels));
        }
    }
    found
}

/// Returns every query of every dashboard, with its place in the file.
fn dashboard_queries() -> Vec<(String, String)> {
    fn walk(value: &Value, place: &str, queries: &mut Vec<(String, String)>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match value {
                        Value::String(query) if key == "expr" || key == "definition" => {
                            queries.push((place.to_owned(), query.clone()));
                        }
                        _ => walk(value, &format!("{place}.{key}"), queries),
                    }
                }
            }
            Value::Array(values) => {
                for (number, value) in values.iter().enumerate() {
                    walk(value, &format!("{place}[{number}]"), queries);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut queries = Vec::new();
    for (file, dashboard) in dashboards() {
        walk(&dashboard, &file, &mut queries);
    }
    queries
}

fn dashboards() -> Vec<(String, Value)> {
    let files = fs::read_dir(grafana())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let dashboards: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (
                name,
                serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap(),
            )
        })
        .collect();
    assert!(!dashboards.is_empty());
    dashboards
}

fn grafana() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana")
}

/// Runs `promtool`. Returns whether it succeeded, and its output; `None` if it is not installed.
fn promtool(arguments: &[&str], input: &[u8]) -> Option<(bool, String)> {
    let started = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = started else {
        println!("skipped: promtool is not on the PATH (Debian: apt install prometheus)");
        return None;
    };
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    Some((
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

//! The metric families: their names, labels, help texts and buckets, in one place.
//!
//! Names and labels are a contract with dashboards and alerts: never rename one. No label value comes from the
//! wire; destinations, limits and credential kinds come from the configuration, everything else is a closed set.
//!
//! Who counts what is in [`counters`](super::counters) and [`exchange`](super::exchange).

use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector,
};

/// Every family, one field a metric.
pub(super) struct Families {
    pub(super) build_info: IntGaugeVec,
    pub(super) bytes: IntCounterVec,
    pub(super) cache: IntCounterVec,
    pub(super) circuit_state: IntGaugeVec,
    pub(super) client_distrust: IntCounterVec,
    pub(super) config_loaded: IntGauge,
    pub(super) config_reloads: IntCounterVec,
    pub(super) credential_expiry: IntGaugeVec,
    pub(super) credential_refresh: IntCounterVec,
    pub(super) credential_refused: IntCounterVec,
    pub(super) denied: IntCounterVec,
    pub(super) dns_lookup: HistogramVec,
    pub(super) errors: IntCounterVec,
    pub(super) in_flight: IntGaugeVec,
    pub(super) instance_info: IntGaugeVec,
    pub(super) limit_refused: IntCounterVec,
    pub(super) limit_remaining: GaugeVec,
    pub(super) limit_wait: HistogramVec,
    pub(super) limit_waiting: IntGaugeVec,
    pub(super) log_lines_dropped: IntCounter,
    pub(super) memory_short: IntGauge,
    pub(super) overhead: HistogramVec,
    pub(super) paused_until: IntGaugeVec,
    pub(super) quota_store_errors: IntCounter,
    pub(super) rehearsed: IntCounterVec,
    pub(super) request_duration: HistogramVec,
    pub(super) requests: IntCounterVec,
    pub(super) retries: IntCounterVec,
    pub(super) struck: IntCounterVec,
    pub(super) tls_handshake: HistogramVec,
    pub(super) tunnel_duration: HistogramVec,
    pub(super) tunnels: IntCounterVec,
    pub(super) tunnels_open: IntGaugeVec,
    pub(super) upstream_connections: IntGaugeVec,
    pub(super) upstream_connects: IntCounterVec,
    pub(super) upstream_response: HistogramVec,
    pub(super) upstream_reuses: IntCounterVec,
    pub(super) upstream_throttled: IntCounterVec,
}

impl Families {
    /// Registers all of them. Fails only where two share a name or a name is malformed.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let r = registry;
        Ok(Self {
            build_info: gauges(
                r,
                "outrider_build_info",
                BUILD_INFO,
                &["version", "revision", "crypto"],
            )?,
            bytes: counters(r, "outrider_bytes_total", BYTES, &["destination", "direction"])?,
            cache: counters(r, "outrider_cache_total", CACHE, &["destination", "status"])?,
            circuit_state: gauges(r, "outrider_circuit_state", CIRCUIT_STATE, DESTINATION)?,
            client_distrust: counters(r, "outrider_client_distrust_total", CLIENT_DISTRUST, DESTINATION)?,
            config_loaded: register(
                r,
                IntGauge::new("outrider_config_loaded_timestamp_seconds", CONFIG_LOADED)?,
            )?,
            config_reloads: counters(r, "outrider_config_reloads_total", CONFIG_RELOADS, &["result"])?,
            credential_expiry: gauges(
                r,
                "outrider_credential_expiry_timestamp_seconds",
                CREDENTIAL_EXPIRY,
                &["destination", "kind"],
            )?,
            credential_refresh: counters(
                r,
                "outrider_credential_refresh_total",
                CREDENTIAL_REFRESH,
                &["destination", "kind", "result"],
            )?,
            credential_refused: counters(
                r,
                "outrider_credential_refused_total",
                CREDENTIAL_REFUSED,
                &["destination", "code"],
            )?,
            denied: counters(r, "outrider_denied_total", DENIED, &["destination", "reason"])?,
            dns_lookup: histograms(
                r,
                "outrider_dns_lookup_seconds",
                DNS_LOOKUP,
                &["result"],
                HANDSHAKE,
            )?,
            errors: counters(r, "outrider_errors_total", ERRORS, &["destination", "error"])?,
            in_flight: gauges(r, "outrider_requests_in_flight", IN_FLIGHT, DESTINATION)?,
            instance_info: gauges(
                r,
                "outrider_instance_info",
                INSTANCE_INFO,
                &["app", "space", "organization", "instance"],
            )?,
            limit_refused: counters(
                r,
                "outrider_limit_refused_total",
                LIMIT_REFUSED,
                &["destination", "limit"],
            )?,
            limit_remaining: register(
                r,
                GaugeVec::new(
                    Opts::new("outrider_limit_remaining_ratio", LIMIT_REMAINING),
                    &["destination", "limit"],
                )?,
            )?,
            limit_wait: histograms(r, "outrider_limit_wait_seconds", LIMIT_WAIT, DESTINATION, WAIT)?,
            limit_waiting: gauges(r, "outrider_limit_waiting", LIMIT_WAITING, DESTINATION)?,
            log_lines_dropped: register(
                r,
                IntCounter::new("outrider_log_lines_dropped_total", LOG_LINES_DROPPED)?,
            )?,
            memory_short: register(r, IntGauge::new("outrider_memory_short", MEMORY_SHORT)?)?,
            overhead: histograms(r, "outrider_overhead_seconds", OVERHEAD, DESTINATION, OWN_WORK)?,
            paused_until: gauges(
                r,
                "outrider_paused_until_timestamp_seconds",
                PAUSED_UNTIL,
                DESTINATION,
            )?,
            quota_store_errors: register(
                r,
                IntCounter::new("outrider_quota_store_errors_total", QUOTA_STORE_ERRORS)?,
            )?,
            rehearsed: counters(
                r,
                "outrider_rehearsed_total",
                REHEARSED,
                &["destination", "answer"],
            )?,
            request_duration: histograms(
                r,
                "outrider_request_duration_seconds",
                REQUEST_DURATION,
                DESTINATION,
                EXCHANGE,
            )?,
            requests: counters(
                r,
                "outrider_requests_total",
                REQUESTS,
                &["destination", "method", "code", "answered_by"],
            )?,
            retries: counters(r, "outrider_retries_total", RETRIES, &["destination", "reason"])?,
            struck: counters(
                r,
                "outrider_secrets_struck_total",
                STRUCK,
                &["destination", "part"],
            )?,
            tls_handshake: histograms(
                r,
                "outrider_tls_handshake_seconds",
                TLS_HANDSHAKE,
                &["destination", "side"],
                HANDSHAKE,
            )?,
            tunnel_duration: histograms(
                r,
                "outrider_tunnel_duration_seconds",
                TUNNEL_DURATION,
                DESTINATION,
                TUNNEL,
            )?,
            tunnels: counters(r, "outrider_tunnels_total", TUNNELS, &["destination", "result"])?,
            tunnels_open: gauges(r, "outrider_tunnels_open", TUNNELS_OPEN, DESTINATION)?,
            upstream_connections: gauges(
                r,
                "outrider_upstream_connections_open",
                UPSTREAM_CONNECTIONS,
                DESTINATION,
            )?,
            upstream_connects: counters(
                r,
                "outrider_upstream_connects_total",
                UPSTREAM_CONNECTS,
                &["destination", "result"],
            )?,
            upstream_response: histograms(
                r,
                "outrider_upstream_response_seconds",
                UPSTREAM_RESPONSE,
                DESTINATION,
                EXCHANGE,
            )?,
            upstream_reuses: counters(r, "outrider_upstream_reuses_total", UPSTREAM_REUSES, DESTINATION)?,
            upstream_throttled: counters(
                r,
                "outrider_upstream_throttled_total",
                UPSTREAM_THROTTLED,
                &["destination", "code"],
            )?,
        })
    }
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> prometheus::Result<HistogramVec> {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(registry, HistogramVec::new(options, labels)?)
}

/// Registers a metric and hands it back; the registry keeps a clone that shares the samples.
pub(super) fn register<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: M,
) -> prometheus::Result<M> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Seconds as the histograms take them.
pub(super) fn observe(histogram: &Histogram, duration: std::time::Duration) {
    histogram.observe(duration.as_secs_f64());
}

const DESTINATION: &[&str] = &["destination"];

// Upper bounds in seconds. Fixed, so that series of several versions can be added up.
const EXCHANGE: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
const HANDSHAKE: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
const OWN_WORK: &[f64] = &[
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0,
];
const TUNNEL: &[f64] = &[0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 14400.0, 86400.0];
const WAIT: &[f64] = &[
    0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
];

const BUILD_INFO: &str = "Always 1; the labels tell which build this is.";
const BYTES: &str = "Body and tunnel bytes as the app sees them: sent by it, received by it.";
const CACHE: &str = "Requests to destinations with a cache, by what it did for them (RFC 9211).";
const CIRCUIT_STATE: &str =
    "0 closed, 1 half open, 2 open: whether a failing host is left alone; the worst of its hosts.";
const CLIENT_DISTRUST: &str =
    "Handshakes with the app that ended as they do where it does not trust the local authority.";
const CONFIG_LOADED: &str = "When the configuration in force was loaded.";
const CONFIG_RELOADS: &str = "Reloads of the configuration; after a failed one the old configuration stays.";
const CREDENTIAL_EXPIRY: &str = "When a credential ends to be valid.";
const CREDENTIAL_REFRESH: &str =
    "Attempts to get the next credential of a kind that is renewed while running.";
const CREDENTIAL_REFUSED: &str =
    "Answers 401 and 403 of the upstream to requests that carried an attached credential.";
const DENIED: &str = "Requests that policy refused, by reason.";
const DNS_LOOKUP: &str = "Time that a name look-up took, answers from the cache left out.";
const ERRORS: &str = "Exchanges that failed or were refused here, and handshakes with the app that failed, by RFC 9209 error type.";
const IN_FLIGHT: &str = "Requests going on now, tunnels left out.";
const INSTANCE_INFO: &str = "Always 1; the labels tell which app instance this runs beside.";
const LIMIT_REFUSED: &str = "Requests answered 429 here because a limit was reached.";
const LIMIT_REMAINING: &str = "How much of a limit is left: 1 full, 0 exhausted.";
const LIMIT_WAIT: &str = "Time that requests waited for a limit before they were sent.";
const LIMIT_WAITING: &str = "Requests queued for a limit now.";
const LOG_LINES_DROPPED: &str = "Log lines given up because whoever reads the log was too slow.";
const MEMORY_SHORT: &str = "1 while limits.memory refuses new work.";
const OVERHEAD: &str = "Time spent in outrider itself, waits for app, limits and upstream left out.";
const PAUSED_UNTIL: &str = "Until when the destination asked to be left alone; 0 when it is not.";
const QUOTA_STORE_ERRORS: &str = "Failures to reach the shared quota store; the local share was used.";
const REHEARSED: &str = "Answers that were simulated because the configuration says rehearse.";
const REQUEST_DURATION: &str =
    "Time from the request's head to the last byte of the answer, tunnels left out.";
const REQUESTS: &str = "Exchanges, one each, a tunnel being one.";
const RETRIES: &str = "Requests that were sent again, by what had become of them before.";
const STRUCK: &str = "Answers out of which an attached secret was struck, by where it stood.";
const TLS_HANDSHAKE: &str = "Time that a TLS handshake took, with the app (client) or the upstream.";
const TUNNEL_DURATION: &str = "Time that a tunnel was open.";
const TUNNELS: &str = "Tunnels that were open and have ended, by how they ended.";
const TUNNELS_OPEN: &str = "Tunnels open now.";
const UPSTREAM_CONNECTIONS: &str = "Connections to upstreams open now, idle ones included.";
const UPSTREAM_CONNECTS: &str =
    "Attempts to connect to an upstream, TLS included: ok, or the RFC 9209 error type.";
const UPSTREAM_RESPONSE: &str = "Time from the request being sent to the head of the upstream's answer.";
const UPSTREAM_REUSES: &str = "Requests sent on a connection that was already open.";
const UPSTREAM_THROTTLED: &str = "Answers of the upstream that say that a limit of its own is reached.";

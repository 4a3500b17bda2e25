//! The metric families, each stated once: field, kind, labels, name and help text.
//!
//! Names and labels are a contract with dashboards and alerts: never rename one. No label value comes from the
//! wire; destinations, limits and credential kinds come from the configuration, everything else is a closed
//! set.
//!
//! The metrics of one destination are looked up in [`counters`](super::counters).

use std::time::Duration;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

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

/// A kind of metric, and the family that holds one for each set of label values.
pub(super) trait MetricKind {
    type Family;
}

impl MetricKind for Gauge {
    type Family = GaugeVec;
}

impl MetricKind for Histogram {
    type Family = HistogramVec;
}

impl MetricKind for IntCounter {
    type Family = IntCounterVec;
}

impl MetricKind for IntGauge {
    type Family = IntGaugeVec;
}

macro_rules! options {
    ($name:literal, $help:literal) => {
        Opts::new($name, $help)
    };
    ($name:literal, $help:literal, $buckets:ident) => {
        HistogramOpts::new($name, $help).buckets($buckets.to_vec())
    };
}

/// Makes [`Families`] from lines of `field: Kind(labels) in BUCKETS = name, help`. A family is a field, and a
/// method that looks up one metric by its label values.
macro_rules! families {
    ($($field:ident: $kind:ident ($($label:ident),*) $(in $buckets:ident)? = $name:literal, $help:literal;)+) => {
        /// Every family.
        pub(super) struct Families {
            $(pub(super) $field: <$kind as MetricKind>::Family,)+
        }

        impl Families {
            /// Registers all of them. Fails only if two share a name or a name is malformed.
            pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
                Ok(Self {
                    $($field: register_family(registry, <<$kind as MetricKind>::Family>::new(
                        options!($name, $help $(, $buckets)?),
                        &[$(stringify!($label)),*],
                    )?)?,)+
                })
            }

            $(
                #[doc = $help]
                pub(super) fn $field(&self, $($label: &str),*) -> $kind {
                    let values: &[&str] = &[$($label),*];
                    self.$field.with_label_values(values)
                }
            )+
        }
    };
}

families! {
    build_info: IntGauge(version, revision, crypto) = "outrider_build_info",
        "Always 1; the labels say which build this is.";
    bytes: IntCounter(destination, direction) = "outrider_bytes_total",
        "Body and tunnel bytes as the app sees them: sent by it, received by it.";
    cache: IntCounter(destination, status) = "outrider_cache_total",
        "Requests to destinations with a cache, by what it did for them (RFC 9211).";
    circuit_state: IntGauge(destination) = "outrider_circuit_state",
        "0 closed, 1 half open, 2 open: whether a failing host is left alone; the worst of its hosts.";
    client_distrust: IntCounter(destination) = "outrider_client_distrust_total",
        "Handshakes with the app that ended as they do where it does not trust the local authority.";
    client_requests: IntCounter(client, result) = "outrider_client_requests_total",
        "Requests of each client of the listener: served, or refused because it may not use the destination.";
    config_loaded: IntGauge() = "outrider_config_loaded_timestamp_seconds",
        "When the configuration in force was loaded.";
    config_reloads: IntCounter(result) = "outrider_config_reloads_total",
        "Reloads of the configuration; after a failed one the old configuration stays.";
    credential_expiry: IntGauge(destination, kind) = "outrider_credential_expiry_timestamp_seconds",
        "When a credential ends to be valid.";
    credential_refresh: IntCounter(destination, kind, result) = "outrider_credential_refresh_total",
        "Attempts to get the next credential of a kind that is renewed while running.";
    credential_refused: IntCounter(destination, code) = "outrider_credential_refused_total",
        "Answers 401 and 403 of the upstream to requests that carried an attached credential.";
    denied: IntCounter(destination, reason) = "outrider_denied_total",
        "Requests that policy refused, by reason.";
    dns_lookup: Histogram(result) in HANDSHAKE = "outrider_dns_lookup_seconds",
        "Time that a name look-up took, answers from the cache left out.";
    errors: IntCounter(destination, error) = "outrider_errors_total",
        "Exchanges that failed or were refused here, and handshakes with the app that failed, by RFC 9209 error type.";
    in_flight: IntGauge(destination) = "outrider_requests_in_flight",
        "Requests going on now, tunnels left out.";
    instance_info: IntGauge(app, space, organization, instance) = "outrider_instance_info",
        "Always 1; the labels say which app instance this runs beside.";
    limit_refused: IntCounter(destination, limit) = "outrider_limit_refused_total",
        "Requests answered 429 here because a limit was reached.";
    limit_remaining: Gauge(destination, limit) = "outrider_limit_remaining_ratio",
        "How much of a limit is left: 1 full, 0 exhausted.";
    limit_wait: Histogram(destination) in WAIT = "outrider_limit_wait_seconds",
        "Time that requests waited for a limit before they were sent.";
    limit_waiting: IntGauge(destination) = "outrider_limit_waiting",
        "Requests queued for a limit now.";
    log_lines_dropped: IntCounter() = "outrider_log_lines_dropped_total",
        "Log lines dropped because they were read too slowly.";
    memory_short: IntGauge() = "outrider_memory_short",
        "1 while limits.memory refuses new work.";
    observed: IntCounter(reason) = "outrider_observed_total",
        "Exchanges that passed because of egress.default: observe, by the reason for which deny would refuse them.";
    overhead: Histogram(destination) in OWN_WORK = "outrider_overhead_seconds",
        "Time spent in outrider itself, waits for app, limits and upstream left out.";
    panics: IntCounter() = "outrider_panics_total",
        "Faults of outrider that ended one piece of its work.";
    parent_connects: IntCounter(parent, result) = "outrider_parent_connects_total",
        "Attempts to get to a destination through a parent proxy: ok, or what the parent did instead.";
    paused_until: IntGauge(destination) = "outrider_paused_until_timestamp_seconds",
        "Until when the destination asked to be left alone; 0 when it is not.";
    pushes: IntCounter(result) = "outrider_push_total",
        "Writes of all metrics to the receiver of telemetry.push.";
    quota_store_errors: IntCounter() = "outrider_quota_store_errors_total",
        "Failures to reach the shared quota store; the local share was used.";
    rehearsed: IntCounter(destination, answer) = "outrider_rehearsed_total",
        "Answers that were simulated because the configuration says rehearse.";
    request_duration: Histogram(destination) in EXCHANGE = "outrider_request_duration_seconds",
        "Time from the request's head to the last byte of the answer, tunnels left out.";
    requests: IntCounter(destination, method, code, answered_by) = "outrider_requests_total",
        "Exchanges, one each, a tunnel being one.";
    retries: IntCounter(destination, reason) = "outrider_retries_total",
        "Requests that were sent again, by what had become of them before.";
    secrets_redacted: IntCounter(destination, part) = "outrider_secrets_struck_total",
        "Answers from which an attached secret was removed, by the part that held it.";
    tls_handshake: Histogram(destination, side) in HANDSHAKE = "outrider_tls_handshake_seconds",
        "Time that a TLS handshake took, with the app (client) or the upstream.";
    tunnel_duration: Histogram(destination) in TUNNEL = "outrider_tunnel_duration_seconds",
        "Time that a tunnel was open.";
    tunnels: IntCounter(destination, result) = "outrider_tunnels_total",
        "Tunnels that were open and have ended, by how they ended.";
    tunnels_open: IntGauge(destination) = "outrider_tunnels_open",
        "Tunnels open now.";
    upstream_connections: IntGauge(destination) = "outrider_upstream_connections_open",
        "Connections to upstreams open now, idle ones included.";
    upstream_connects: IntCounter(destination, result) = "outrider_upstream_connects_total",
        "Attempts to connect to an upstream, TLS included: ok, or the RFC 9209 error type.";
    upstream_response: Histogram(destination) in EXCHANGE = "outrider_upstream_response_seconds",
        "Time from the request being sent to the head of the upstream's answer.";
    upstream_reuses: IntCounter(destination) = "outrider_upstream_reuses_total",
        "Requests sent on a connection that was already open.";
    upstream_throttled: IntCounter(destination, code) = "outrider_upstream_throttled_total",
        "Answers of the upstream that say that one of its limits is reached.";
}

/// Registers a family. One without labels is a single metric, which is on the page from the start.
fn register_family<B: MetricVecBuilder + 'static>(
    registry: &Registry,
    family: MetricVec<B>,
) -> prometheus::Result<MetricVec<B>> {
    // Fails for a family with labels, which needs their values.
    let _ = family.get_metric_with_label_values::<&str>(&[]);
    register(registry, family)
}

/// Registers a metric and returns it; the registry keeps a clone that shares the samples.
pub(super) fn register<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: M,
) -> prometheus::Result<M> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Adds a duration to a histogram of seconds.
pub(super) fn observe(histogram: &Histogram, duration: Duration) {
    histogram.observe(duration.as_secs_f64());
}

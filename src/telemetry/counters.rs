//! The metric handles of one destination.
//!
//! Found once, when the policy is compiled; after that a request pays for atomics, never for a look-up of label
//! strings. Handles of things that many destinations never do (tunnels, limits, handshakes) are made at first use,
//! so that the page is not full of zeros. The families themselves are in [`families`](super::families).

use std::array;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use super::AnsweredBy;
use super::certificate_expiry::CertificateExpiries;
use super::families::{Families, observe};
use super::handshakes::{HandshakeFailure, HandshakeLog};
use super::labels::{
    CacheStatus, CircuitState, CodeLabel, CredentialKind, MessagePart, MethodLabel, RefreshResult, TlsSide,
    TunnelEnd,
};
use crate::sync::lock;
use crate::units::{rfc3339, unix_seconds};

/// The metric handles of one destination, looked up once when the policy is compiled.
pub(crate) struct Counters {
    pub(super) destination: Box<str>,
    families: Arc<Families>,
    pub(super) in_flight: IntGauge,
    pub(super) overhead: Histogram,
    pub(super) received: IntCounter,
    pub(super) request_duration: Histogram,
    pub(super) sent: IntCounter,
    pub(super) upstream_response: Histogram,
    /// By [`AnsweredBy`] and [`MethodLabel`], then by [`CodeLabel`]. The inner table comes with the first such request.
    requests: [[OnceLock<Box<ByCode>>; MethodLabel::COUNT]; AnsweredBy::COUNT],
    cache: [OnceLock<IntCounter>; CacheStatus::COUNT],
    certificate_expiries: Mutex<CertificateExpiries>,
    handshakes: OnceLock<Box<HandshakeLog>>,
    has_echoed: OnceLock<()>,
    limits: OnceLock<LimitCounters>,
    tls_client: OnceLock<Histogram>,
    tls_upstream: OnceLock<Histogram>,
    tunnels: OnceLock<TunnelCounters>,
    upstream: OnceLock<UpstreamCounters>,
}

/// The handles of one limit of one destination.
#[derive(Clone, Debug)]
pub(crate) struct LimitHandles {
    refused: IntCounter,
    remaining: Gauge,
}

/// A gauge that counts something alive: one more from here until the drop.
#[derive(Debug)]
pub(crate) struct GaugeGuard(IntGauge);

type ByCode = [OnceLock<IntCounter>; CodeLabel::COUNT];

struct LimitCounters {
    wait: Histogram,
    waiting: IntGauge,
}

struct TunnelCounters {
    duration: Histogram,
    open: IntGauge,
}

struct UpstreamCounters {
    connections: IntGauge,
    reuses: IntCounter,
}

impl Counters {
    pub(super) fn new(families: &Arc<Families>, destination: &str) -> Self {
        let label = &[destination];
        Self {
            destination: destination.into(),
            in_flight: families.in_flight.with_label_values(label),
            overhead: families.overhead.with_label_values(label),
            received: families.bytes.with_label_values(&[destination, "received"]),
            request_duration: families.request_duration.with_label_values(label),
            sent: families.bytes.with_label_values(&[destination, "sent"]),
            upstream_response: families.upstream_response.with_label_values(label),
            requests: array::from_fn(|_| array::from_fn(|_| OnceLock::new())),
            cache: array::from_fn(|_| OnceLock::new()),
            certificate_expiries: Mutex::default(),
            handshakes: OnceLock::new(),
            has_echoed: OnceLock::new(),
            limits: OnceLock::new(),
            tls_client: OnceLock::new(),
            tls_upstream: OnceLock::new(),
            tunnels: OnceLock::new(),
            upstream: OnceLock::new(),
            families: Arc::clone(families),
        }
    }

    /// A credential of this destination ends to be valid at `unix_seconds`.
    pub(crate) fn credential_expiry(&self, kind: CredentialKind, unix_seconds: i64) {
        let labels = &[&*self.destination, kind.as_str()];
        self.families
            .credential_expiry
            .with_label_values(labels)
            .set(unix_seconds);
    }

    /// An upstream showed a certificate that is valid until `until`. The gauge holds the soonest end of all hosts, and
    /// the log a warning in the last week, once a day.
    pub(crate) fn upstream_certificate(&self, host: &str, until: SystemTime, now: SystemTime) {
        let mut expiries = lock(&self.certificate_expiries);
        let notice = expiries.shown(host, until, now);
        drop(expiries);
        self.credential_expiry(CredentialKind::UpstreamCertificate, unix_seconds(notice.soonest));
        if notice.is_warning {
            tracing::warn!(
                destination = &*self.destination,
                host,
                until = %rfc3339(until),
                "the certificate of this upstream ends within a week: whoever runs it must renew it",
            );
        }
    }

    /// The destination is reached in another way from now on.
    pub(crate) fn forget_upstream_certificates(&self) {
        lock(&self.certificate_expiries).forget();
    }

    /// Another credential was asked for, or read.
    pub(crate) fn credential_refresh(&self, kind: CredentialKind, result: RefreshResult) {
        let labels = &[&*self.destination, kind.as_str(), result.as_str()];
        self.families.credential_refresh.with_label_values(labels).inc();
    }

    /// The upstream answered 401 or 403 to a request that carried an attached credential.
    pub(crate) fn credential_refused(&self, status: StatusCode) {
        let labels = &[&*self.destination, CodeLabel::of(status).as_str()];
        self.families.credential_refused.with_label_values(labels).inc();
    }

    /// The label.
    pub(crate) fn destination(&self) -> &str {
        &self.destination
    }

    /// This destination has no such credential any more.
    pub(crate) fn credential_removed(&self, kind: CredentialKind) {
        let labels = &[&*self.destination, kind.as_str()];
        // An error means that it had none before either.
        let _ = self.families.credential_expiry.remove_label_values(labels);
    }

    /// The handles of one limit, found once, when its limiter is built. `limit` is as written in the configuration,
    /// or `concurrency`.
    pub(crate) fn limit(&self, limit: &str) -> LimitHandles {
        let labels = &[&*self.destination, limit];
        let handles = LimitHandles {
            refused: self.families.limit_refused.with_label_values(labels),
            remaining: self.families.limit_remaining.with_label_values(labels),
        };
        handles.remaining(1.0);
        handles
    }

    /// A request waited so long for a limit and is sent now. Not for those that did not have to wait.
    pub(crate) fn limit_waited(&self, wait: Duration) {
        observe(&self.limits().wait, wait);
    }

    /// A request is queued until the value is dropped.
    pub(crate) fn limit_waiting(&self) -> GaugeGuard {
        GaugeGuard::new(&self.limits().waiting)
    }

    /// What the cache did for a request.
    pub(crate) fn cached(&self, status: CacheStatus) {
        let labels = &[&*self.destination, status.as_str()];
        self.cache[status as usize]
            .get_or_init(|| self.families.cache.with_label_values(labels))
            .inc();
    }

    /// How the circuit to the upstream stands.
    pub(crate) fn circuit(&self, state: CircuitState) {
        let labels = &[&*self.destination];
        self.families
            .circuit_state
            .with_label_values(labels)
            .set(state as i64);
    }

    /// The upstream is left alone until `unix_seconds`; 0: it is not.
    pub(crate) fn paused_until(&self, unix_seconds: i64) {
        let labels = &[&*self.destination];
        self.families
            .paused_until
            .with_label_values(labels)
            .set(unix_seconds);
    }

    /// An answer was simulated: its status, or the fault, as the configuration names it.
    pub(crate) fn rehearsed(&self, answer: &str) {
        let labels = &[&*self.destination, answer];
        self.families.rehearsed.with_label_values(labels).inc();
    }

    /// Secrets were struck out of a part of an answer. Whether it is the first time for this destination.
    pub(crate) fn redacted(&self, part: MessagePart) -> bool {
        let labels = &[&*self.destination, part.as_str()];
        self.families.struck.with_label_values(labels).inc();
        self.has_echoed.set(()).is_ok()
    }

    /// A request is sent again: because of this status, or `connect`, or a `stale` connection.
    pub(crate) fn retry(&self, reason: &str) {
        let labels = &[&*self.destination, reason];
        self.families.retries.with_label_values(labels).inc();
    }

    /// The upstream answered that a limit of its own is reached.
    pub(crate) fn upstream_throttled(&self, status: StatusCode) {
        let labels = &[&*self.destination, CodeLabel::of(status).as_str()];
        self.families.upstream_throttled.with_label_values(labels).inc();
    }

    /// A TLS handshake succeeded.
    pub(crate) fn tls_handshake(&self, side: TlsSide, duration: Duration) {
        let slot = match side {
            TlsSide::Client => &self.tls_client,
            TlsSide::Upstream => &self.tls_upstream,
        };
        let labels = &[&*self.destination, side.as_str()];
        observe(
            slot.get_or_init(|| self.families.tls_handshake.with_label_values(labels)),
            duration,
        );
    }

    /// A handshake with the app failed. Returns how many failures of this kind were not told since the last line, if it is
    /// time for another one.
    pub(crate) fn handshake_failed(&self, failure: HandshakeFailure) -> Option<u64> {
        self.error(failure.error_type());
        if failure.is_distrust() {
            let labels = &[&*self.destination];
            self.families.client_distrust.with_label_values(labels).inc();
        }
        let handshakes = self.handshakes.get_or_init(|| Box::new(HandshakeLog::new()));
        handshakes.due(failure)
    }

    /// A tunnel is open until the value is dropped. For an [`Exchange`](super::Exchange) its `tunnel` does this.
    pub(crate) fn tunnel_opened(&self) -> GaugeGuard {
        GaugeGuard::new(&self.tunnels().open)
    }

    /// A tunnel that was open for `duration` has ended.
    pub(crate) fn tunnel_closed(&self, end: TunnelEnd, duration: Duration) {
        let labels = &[&*self.destination, end.as_str()];
        self.families.tunnels.with_label_values(labels).inc();
        observe(&self.tunnels().duration, duration);
    }

    /// An attempt to connect to the upstream, parent and TLS included, came to `result`: `ok`, or an RFC 9209 error
    /// type.
    pub(crate) fn upstream_connect(&self, result: &'static str) {
        let labels = &[&*self.destination, result];
        self.families.upstream_connects.with_label_values(labels).inc();
    }

    /// A connection to the upstream is open until the value is dropped.
    pub(crate) fn upstream_connection(&self) -> GaugeGuard {
        GaugeGuard::new(&self.upstream().connections)
    }

    /// A request goes out on a connection that was already open.
    pub(crate) fn upstream_reuse(&self) {
        self.upstream().reuses.inc();
    }

    pub(super) fn denied(&self, reason: &'static str) {
        let labels = &[&*self.destination, reason];
        self.families.denied.with_label_values(labels).inc();
    }

    /// Something failed that is no exchange: by its RFC 9209 error type.
    pub(crate) fn error(&self, error: &'static str) {
        let labels = &[&*self.destination, error];
        self.families.errors.with_label_values(labels).inc();
    }

    /// One more exchange. Neither allocates nor hashes once the same kind has been seen.
    pub(super) fn request(&self, answered_by: AnsweredBy, verb: MethodLabel, status: StatusCode) {
        let code = CodeLabel::of(status);
        let by_code = self.requests[answered_by as usize][verb as usize]
            .get_or_init(|| Box::new(array::from_fn(|_| OnceLock::new())));
        let labels = [
            &*self.destination,
            verb.as_str(),
            code.as_str(),
            answered_by.as_str(),
        ];
        by_code[code.index()]
            .get_or_init(|| self.families.requests.with_label_values(&labels))
            .inc();
    }

    fn limits(&self) -> &LimitCounters {
        self.limits.get_or_init(|| LimitCounters {
            wait: self.families.limit_wait.with_label_values(&[&*self.destination]),
            waiting: self
                .families
                .limit_waiting
                .with_label_values(&[&*self.destination]),
        })
    }

    fn tunnels(&self) -> &TunnelCounters {
        self.tunnels.get_or_init(|| TunnelCounters {
            duration: self
                .families
                .tunnel_duration
                .with_label_values(&[&*self.destination]),
            open: self
                .families
                .tunnels_open
                .with_label_values(&[&*self.destination]),
        })
    }

    fn upstream(&self) -> &UpstreamCounters {
        self.upstream.get_or_init(|| UpstreamCounters {
            connections: self
                .families
                .upstream_connections
                .with_label_values(&[&*self.destination]),
            reuses: self
                .families
                .upstream_reuses
                .with_label_values(&[&*self.destination]),
        })
    }
}

/// The name only: the handles would fill pages.
impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counters").field(&self.destination).finish()
    }
}

impl LimitHandles {
    /// A request was answered 429 because of this limit.
    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    /// How much is left: 1 full, 0 exhausted. Values outside are drawn to the nearer end; no number is 0.
    pub(crate) fn remaining(&self, ratio: f64) {
        self.remaining
            .set(if ratio >= 0.0 { ratio.min(1.0) } else { 0.0 });
    }
}

impl GaugeGuard {
    pub(super) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

//! The metrics of one destination.
//!
//! Looked up once, when the destination is first used; after that a request pays for atomics, never for a look-up of
//! label strings. A destination that nobody uses has no series and takes no memory for them, and what many
//! destinations never do (tunnels, limits, handshakes) is made when it is first done. Names and labels are in
//! [`families`](super::families).

use std::array;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use super::certificate_expiry::CertificateExpiries;
use super::families::{Families, observe};
use super::handshakes::{HandshakeFailure, HandshakeLog};
use super::labels::{
    AnsweredBy, CacheStatus, CircuitState, CodeLabel, CredentialKind, MessagePart, MethodLabel,
    RefreshResult, TlsSide, TunnelEnd,
};
use crate::sync::lock;
use crate::units::{rfc3339, unix_seconds};

/// The metrics of one destination.
pub(crate) struct Counters {
    pub(super) destination: Arc<str>,
    families: Arc<Families>,
    used: OnceLock<Box<UsedCounters>>,
}

/// The metrics of a destination that is used.
pub(super) struct UsedCounters {
    pub(super) in_flight: IntGauge,
    pub(super) overhead: Histogram,
    pub(super) received: IntCounter,
    pub(super) request_duration: Histogram,
    pub(super) sent: IntCounter,
    pub(super) upstream_response: Histogram,
    /// By [`AnsweredBy`] and [`MethodLabel`], then by [`CodeLabel`]. The inner table is made for the first such
    /// request.
    requests: [[OnceLock<Box<ByCode>>; MethodLabel::LABELS.len()]; AnsweredBy::LABELS.len()],
    cache: [OnceLock<IntCounter>; CacheStatus::LABELS.len()],
    certificate_expiries: Mutex<CertificateExpiries>,
    handshakes: OnceLock<Box<HandshakeLog>>,
    has_redacted: OnceLock<()>,
    limits: OnceLock<LimitCounters>,
    paused_until: OnceLock<IntGauge>,
    tls_handshake: [OnceLock<Histogram>; TlsSide::LABELS.len()],
    tunnels: OnceLock<TunnelCounters>,
    upstream: OnceLock<UpstreamCounters>,
}

/// The metrics of one limit of one destination.
#[derive(Clone, Debug)]
pub(crate) struct LimitHandles {
    refused: IntCounter,
    remaining: Gauge,
}

/// The metrics of one parent proxy.
pub(crate) struct ParentCounters {
    families: Arc<Families>,
    /// `host:port`, as configured.
    parent: Box<str>,
}

/// Adds one to a gauge until it is dropped.
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
    pub(super) fn new(families: &Arc<Families>, destination: &Arc<str>) -> Self {
        Self {
            destination: Arc::clone(destination),
            families: Arc::clone(families),
            used: OnceLock::new(),
        }
    }

    /// Returns the metrics of the destination's use, which the first call puts on the page.
    pub(super) fn used(&self) -> &UsedCounters {
        self.used
            .get_or_init(|| Box::new(UsedCounters::new(&self.families, &self.destination)))
    }

    /// Returns the name of the destination, as the label shows it.
    pub(crate) fn destination(&self) -> &str {
        &self.destination
    }

    /// Sets when a credential of this destination expires.
    pub(crate) fn credential_expiry(&self, kind: CredentialKind, unix_seconds: i64) {
        let gauge = self.families.credential_expiry(&self.destination, kind.as_str());
        gauge.set(unix_seconds);
    }

    /// Removes the expiry of a credential that this destination no longer has.
    pub(crate) fn credential_removed(&self, kind: CredentialKind) {
        let labels = &[&*self.destination, kind.as_str()];
        // An error means that there was no such metric before either.
        let _ = self.families.credential_expiry.remove_label_values(labels);
    }

    /// Counts an attempt to get or read another credential.
    pub(crate) fn credential_refresh(&self, kind: CredentialKind, result: RefreshResult) {
        self.families
            .credential_refresh(&self.destination, kind.as_str(), result.as_str())
            .inc();
    }

    /// Counts a 401 or 403 of the upstream to a request that carried an attached credential.
    pub(crate) fn credential_refused(&self, status: StatusCode) {
        let code = CodeLabel::of(status).as_str();
        self.families.credential_refused(&self.destination, code).inc();
    }

    /// Notes that an upstream's certificate is valid until `until`. The gauge holds the earliest expiry of all
    /// hosts; in the last week the log has a warning once a day.
    pub(crate) fn upstream_certificate(&self, host: &str, until: SystemTime, now: SystemTime) {
        let mut expiries = lock(&self.used().certificate_expiries);
        let notice = expiries.note(host, until, now);
        drop(expiries);
        self.credential_expiry(CredentialKind::UpstreamCertificate, unix_seconds(notice.earliest));
        if notice.is_warning {
            tracing::warn!(
                destination = &*self.destination,
                host,
                until = %rfc3339(until),
                "the certificate of this upstream ends within a week: its operator must renew it",
            );
        }
    }

    /// Forgets the certificates seen so far, because a new configuration may reach other hosts.
    pub(crate) fn forget_upstream_certificates(&self) {
        if let Some(used) = self.used.get() {
            lock(&used.certificate_expiries).clear();
        }
    }

    /// Looks up the metrics of one limit, when it first applies to a request. `limit` is as written in the configuration, or
    /// `concurrency`.
    pub(crate) fn limit(&self, limit: &str) -> LimitHandles {
        let handles = LimitHandles {
            refused: self.families.limit_refused(&self.destination, limit),
            remaining: self.families.limit_remaining(&self.destination, limit),
        };
        handles.remaining(1.0);
        handles
    }

    /// Looks up the count of requests that one limit has refused, for a limit of which nothing else is known.
    pub(crate) fn limit_refusals(&self, limit: &str) -> IntCounter {
        self.families.limit_refused(&self.destination, limit)
    }

    /// Records how long a request waited for a limit before it was sent. Not called for requests that did not wait.
    pub(crate) fn limit_waited(&self, wait: Duration) {
        observe(&self.limits().wait, wait);
    }

    /// Counts a request as queued until the guard is dropped.
    pub(crate) fn limit_waiting(&self) -> GaugeGuard {
        GaugeGuard::new(&self.limits().waiting)
    }

    /// Counts what the cache did for a request.
    pub(crate) fn cached(&self, status: CacheStatus) {
        self.used().cache[status as usize]
            .get_or_init(|| self.families.cache(&self.destination, status.as_str()))
            .inc();
    }

    /// Sets the state of the circuit to the upstream.
    pub(crate) fn circuit(&self, state: CircuitState) {
        self.families.circuit_state(&self.destination).set(state as i64);
    }

    /// Sets until when nothing is sent to the upstream, in Unix seconds; 0 if there is no pause, which is not said of a
    /// destination that nobody uses.
    pub(crate) fn paused_until(&self, unix_seconds: i64) {
        if unix_seconds == 0 && self.used.get().is_none() {
            return;
        }
        let gauge = &self.used().paused_until;
        gauge
            .get_or_init(|| self.families.paused_until(&self.destination))
            .set(unix_seconds);
    }

    /// Counts a simulated answer by its status or fault, as the configuration names it.
    pub(crate) fn rehearsed(&self, answer: &str) {
        self.families.rehearsed(&self.destination, answer).inc();
    }

    /// Counts a part of an answer that secrets were removed from. Returns whether it is the first for this
    /// destination.
    pub(crate) fn redacted(&self, part: MessagePart) -> bool {
        self.families
            .secrets_redacted(&self.destination, part.as_str())
            .inc();
        self.used().has_redacted.set(()).is_ok()
    }

    /// Counts a request that is sent again, by the reason: a status, `connect`, or a `stale` connection.
    pub(crate) fn retry(&self, reason: &str) {
        self.families.retries(&self.destination, reason).inc();
    }

    /// Counts an answer of the upstream that says that one of its limits is reached.
    pub(crate) fn upstream_throttled(&self, status: StatusCode) {
        let code = CodeLabel::of(status).as_str();
        self.families.upstream_throttled(&self.destination, code).inc();
    }

    /// Records how long a successful TLS handshake took.
    pub(crate) fn tls_handshake(&self, side: TlsSide, duration: Duration) {
        let histogram = self.used().tls_handshake[side as usize]
            .get_or_init(|| self.families.tls_handshake(&self.destination, side.as_str()));
        observe(histogram, duration);
    }

    /// Counts a failed handshake with the app. Returns how many failures of this kind were not logged since the
    /// last line, if another line is due.
    pub(crate) fn handshake_failed(&self, failure: HandshakeFailure) -> Option<u64> {
        self.error(failure.error_type());
        if failure.is_distrust() {
            self.families.client_distrust(&self.destination).inc();
        }
        let log = (self.used().handshakes).get_or_init(|| Box::new(HandshakeLog::new()));
        log.due(failure)
    }

    /// Counts a tunnel as open until the guard is dropped. An [`Exchange`](super::Exchange) does this in its
    /// `tunnel`.
    pub(crate) fn tunnel_opened(&self) -> GaugeGuard {
        GaugeGuard::new(&self.tunnels().open)
    }

    /// Counts a tunnel that has ended after `duration`.
    pub(crate) fn tunnel_closed(&self, end: TunnelEnd, duration: Duration) {
        self.families.tunnels(&self.destination, end.as_str()).inc();
        observe(&self.tunnels().duration, duration);
    }

    /// Counts an attempt to connect to the upstream, parent proxy and TLS included. `result` is `ok` or an RFC
    /// 9209 error type.
    pub(crate) fn upstream_connect(&self, result: &'static str) {
        self.families.upstream_connects(&self.destination, result).inc();
    }

    /// Counts a connection to the upstream as open until the guard is dropped.
    pub(crate) fn upstream_connection(&self) -> GaugeGuard {
        GaugeGuard::new(&self.upstream().connections)
    }

    /// Counts a request that is sent on a connection that was already open.
    pub(crate) fn upstream_reuse(&self) {
        self.upstream().reuses.inc();
    }

    pub(super) fn denied(&self, reason: &'static str) {
        self.families.denied(&self.destination, reason).inc();
    }

    /// Counts a failure by its RFC 9209 error type, outside of an exchange.
    pub(crate) fn error(&self, error: &'static str) {
        self.families.errors(&self.destination, error).inc();
    }

    /// Counts an exchange. Neither allocates nor hashes once the same labels have been seen.
    pub(super) fn request(&self, answered_by: AnsweredBy, method: MethodLabel, status: StatusCode) {
        let code = CodeLabel::of(status);
        let by_code = self.used().requests[answered_by as usize][method as usize]
            .get_or_init(|| Box::new(array::from_fn(|_| OnceLock::new())));
        let counter = by_code[code.index()].get_or_init(|| {
            self.families.requests(
                &self.destination,
                method.as_str(),
                code.as_str(),
                answered_by.as_str(),
            )
        });
        counter.inc();
    }

    fn limits(&self) -> &LimitCounters {
        self.used().limits.get_or_init(|| LimitCounters {
            wait: self.families.limit_wait(&self.destination),
            waiting: self.families.limit_waiting(&self.destination),
        })
    }

    fn tunnels(&self) -> &TunnelCounters {
        self.used().tunnels.get_or_init(|| TunnelCounters {
            duration: self.families.tunnel_duration(&self.destination),
            open: self.families.tunnels_open(&self.destination),
        })
    }

    fn upstream(&self) -> &UpstreamCounters {
        self.used().upstream.get_or_init(|| UpstreamCounters {
            connections: self.families.upstream_connections(&self.destination),
            reuses: self.families.upstream_reuses(&self.destination),
        })
    }
}

impl UsedCounters {
    fn new(families: &Families, destination: &str) -> Self {
        Self {
            in_flight: families.in_flight(destination),
            overhead: families.overhead(destination),
            received: families.bytes(destination, "received"),
            request_duration: families.request_duration(destination),
            sent: families.bytes(destination, "sent"),
            upstream_response: families.upstream_response(destination),
            requests: array::from_fn(|_| array::from_fn(|_| OnceLock::new())),
            cache: array::from_fn(|_| OnceLock::new()),
            certificate_expiries: Mutex::default(),
            handshakes: OnceLock::new(),
            has_redacted: OnceLock::new(),
            limits: OnceLock::new(),
            paused_until: OnceLock::new(),
            tls_handshake: array::from_fn(|_| OnceLock::new()),
            tunnels: OnceLock::new(),
            upstream: OnceLock::new(),
        }
    }
}

/// Shows the name only: the metrics would fill pages.
impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counters").field(&self.destination).finish()
    }
}

impl ParentCounters {
    pub(super) fn new(families: &Arc<Families>, parent: &str) -> Self {
        Self {
            families: Arc::clone(families),
            parent: parent.into(),
        }
    }

    /// Counts an attempt to get to a destination. `result` is `ok`, or one of a closed set of words.
    pub(crate) fn connect(&self, result: &'static str) {
        self.families.parent_connects(&self.parent, result).inc();
    }
}

impl LimitHandles {
    /// Counts a request answered 429 because of this limit.
    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    /// Sets how much is left: 1 full, 0 exhausted. Other values are clamped; NaN counts as 0.
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

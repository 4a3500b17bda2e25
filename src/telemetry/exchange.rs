//! The record of one request: its result, how long it took, and which part of that was our own work.
//!
//! Our own work is measured, not derived: a stopwatch runs while outrider works on the request and stops while an
//! upstream has it. What is counted and logged is decided here, on drop, and nowhere else. The access line is in
//! [`access`](super::access).

use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use http::uri::Authority;
use http::{Method, StatusCode, Uri};
use prometheus::IntCounter;
use tokio::time::Instant;

use super::Telemetry;
use super::access::AccessLine;
use super::clients::ClientCounters;
use super::counters::{Counters, GaugeGuard};
use super::families::observe;
use super::labels::{AnsweredBy, MethodLabel, TunnelEnd};
use super::observed::ObservedRequest;
use crate::config::Access;
use crate::host::Target;
use crate::sync::lock;

/// The reason of a refusal for what the client of the listener is.
pub(crate) const CLIENT_REFUSED: &str = "client";
/// How many bytes of a long transfer are counted at once, so that it shows on the metrics page before its end.
const COUNT_EVERY: u64 = 1 << 20;

/// One request and its result, recorded once, on drop.
#[derive(Debug)]
pub(crate) struct Exchange {
    telemetry: Arc<Telemetry>,
    /// `None` until the destination is known.
    counters: Option<Arc<Counters>>,
    method: MethodLabel,
    /// For the access line; `None` if access lines are off.
    uri: Option<Uri>,
    /// Used if `uri` has no authority.
    authority: Option<Authority>,
    /// `None`: nobody is asked, or it is not known who sends it.
    client: Option<Arc<ClientCounters>>,
    begun: Instant,
    stopwatch: Stopwatch,
    /// When the request was sent to the upstream.
    asked: Option<Instant>,
    upstream_response: Option<Duration>,
    waited: Duration,
    answer: Option<RecordedAnswer>,
    head_sent: bool,
    error: Option<&'static str>,
    policy: Option<PolicyNote>,
    /// The sentence of a refusal, for the access line.
    detail: Option<Box<str>>,
    /// The Cache-Status to send if the request is refused.
    cache_status: Option<&'static str>,
    sent: ByteCount,
    received: ByteCount,
    phase: ExchangePhase,
}

/// The record of an answer that the app may not get: the answer, and how long the upstream took.
#[derive(Debug)]
pub(crate) struct TakenBackAnswer(Option<RecordedAnswer>, Option<Duration>);

/// The answer, as counted.
#[derive(Clone, Copy, Debug)]
struct RecordedAnswer {
    status: StatusCode,
    by: AnsweredBy,
}

/// What policy says of the request, where there is something to say.
#[derive(Debug)]
enum PolicyNote {
    /// The reason of a refusal.
    Denied(&'static str),
    Observed(Box<ObservedRequest>),
}

/// Adds up our own work. `since` is when the stopwatch was last started.
#[derive(Debug)]
struct Stopwatch {
    own: Duration,
    since: Option<Instant>,
}

/// The bytes of one direction, and how many of them have been counted in the metric.
#[derive(Debug, Default)]
struct ByteCount {
    total: u64,
    counted: u64,
}

/// Which gauge counts this exchange.
#[derive(Debug)]
enum ExchangePhase {
    /// The destination is not known yet.
    NoDestination,
    Request {
        _in_flight: GaugeGuard,
    },
    Tunnel {
        _open: GaugeGuard,
        since: Instant,
        end: TunnelEnd,
    },
    /// Nothing is recorded.
    Discarded,
}

impl Exchange {
    /// Starts the clock. Counts under `none` until a destination is known. Boxed because it is moved often.
    pub(crate) fn begin(telemetry: &Arc<Telemetry>, method: &Method, uri: &Uri) -> Box<Self> {
        let now = Instant::now();
        Box::new(Self {
            telemetry: Arc::clone(telemetry),
            counters: None,
            method: MethodLabel::of(method),
            uri: (telemetry.access() != Access::None).then(|| uri.clone()),
            authority: None,
            client: None,
            begun: now,
            stopwatch: Stopwatch {
                own: Duration::ZERO,
                since: Some(now),
            },
            asked: None,
            upstream_response: None,
            waited: Duration::ZERO,
            answer: None,
            head_sent: false,
            error: None,
            policy: None,
            detail: None,
            cache_status: None,
            sent: ByteCount::default(),
            received: ByteCount::default(),
            phase: ExchangePhase::NoDestination,
        })
    }

    /// Begins an exchange for work that no app waits for; nothing is recorded.
    pub(crate) fn unrecorded(telemetry: &Arc<Telemetry>, method: &Method, uri: &Uri) -> Box<Self> {
        let mut exchange = Self::begin(telemetry, method, uri);
        exchange.phase = ExchangePhase::Discarded;
        exchange
    }

    /// Sets the host for the access line of a request inside an intercepted CONNECT, whose URI has no host.
    pub(crate) fn set_authority(&mut self, authority: &Authority) {
        if self.uri.is_some() {
            self.authority = Some(authority.clone());
        }
    }

    /// Sets what the app wants, where the URI of the request does not say it: SOCKS5, CONNECT-UDP.
    pub(crate) fn set_target(&mut self, target: &Target) {
        if self.uri.is_some()
            && let Ok(uri) = target.to_string().parse()
        {
            self.uri = Some(uri);
        }
    }

    /// Whether anything is known about where the request is to go, or has been said about it.
    pub(crate) fn has_content(&self) -> bool {
        self.counters.is_some() || self.answer.is_some()
    }

    /// Sets the client of the listener that sends the request.
    pub(crate) fn set_client(&mut self, client: &Arc<ClientCounters>) {
        self.client = Some(Arc::clone(client));
    }

    /// Sets the destination. The request counts as in flight there from now on.
    pub(crate) fn set_destination(&mut self, counters: &Arc<Counters>) {
        self.phase = ExchangePhase::Request {
            _in_flight: GaugeGuard::new(&counters.used().in_flight),
        };
        self.counters = Some(Arc::clone(counters));
    }

    /// Adds time spent waiting before the request was sent: for a limit, or before a retry.
    pub(crate) fn waited(&mut self, wait: Duration) {
        self.waited += wait;
    }

    /// Returns the time spent waiting so far.
    pub(crate) fn total_wait(&self) -> Duration {
        self.waited
    }

    /// Stops the stopwatch: the upstream has the request now, or is being connected to. A second call, when the
    /// request is written on a new connection, restarts the clock of the upstream's answer.
    pub(crate) fn asked_upstream(&mut self) {
        let now = Instant::now();
        self.stopwatch.pause(now);
        self.asked = Some(now);
    }

    /// Returns when the request was last sent to the upstream.
    pub(crate) fn asked_at(&self) -> Option<Instant> {
        self.asked
    }

    /// Restarts the stopwatch after the upstream gave no answer.
    pub(crate) fn upstream_failed(&mut self) {
        self.stopwatch.resume(Instant::now());
    }

    /// Restarts the stopwatch: the head of the upstream's answer has been read.
    pub(crate) fn upstream_answered(&mut self, status: StatusCode) {
        let now = Instant::now();
        self.stopwatch.resume(now);
        self.upstream_response = self.asked.map(|asked| now - asked);
        self.answer = Some(RecordedAnswer {
            status,
            by: AnsweredBy::Upstream,
        });
    }

    /// Removes the answer from the record, because the request is sent again.
    pub(crate) fn take_back(&mut self) -> TakenBackAnswer {
        self.stopwatch.resume(Instant::now());
        TakenBackAnswer(self.answer.take(), self.upstream_response.take())
    }

    /// Puts an answer back that the app gets after all.
    pub(crate) fn restore_answer(&mut self, answer: TakenBackAnswer) {
        self.stopwatch.resume(Instant::now());
        TakenBackAnswer(self.answer, self.upstream_response) = answer;
    }

    /// Records a refusal of ours, with the RFC 9209 error type and, for a refusal by policy, its reason.
    pub(crate) fn refused(&mut self, status: StatusCode, error: &'static str, reason: Option<&'static str>) {
        self.stopwatch.resume(Instant::now());
        self.answer = Some(RecordedAnswer {
            status,
            by: AnsweredBy::Outrider,
        });
        self.error = Some(error);
        let was_denied = matches!(self.policy, Some(PolicyNote::Denied(_)));
        if reason.is_some() || was_denied {
            self.policy = reason.map(PolicyNote::Denied);
        }
    }

    /// Notes that the request passes only because of `egress.default: observe`. It is recorded with its result, unless policy
    /// refuses it for another reason.
    pub(crate) fn observe(&mut self, request: ObservedRequest) {
        self.policy = Some(PolicyNote::Observed(Box::new(request)));
    }

    /// Sets the sentence that goes with a refusal. It must contain no secret and nothing that the app sent.
    pub(crate) fn explain(&mut self, detail: &str) {
        self.detail = Some(detail.into());
    }

    /// Puts the protocol of the app before the sentence.
    pub(crate) fn explain_over(&mut self, protocol: &str) {
        if let Some(detail) = &mut self.detail {
            *detail = format!("{protocol}: {detail}").into();
        }
    }

    /// Sets the Cache-Status, which says why the request was not answered from the cache.
    pub(crate) fn set_cache_status(&mut self, status: &'static str) {
        self.cache_status = Some(status);
    }

    pub(crate) fn cache_status(&self) -> Option<&'static str> {
        self.cache_status
    }

    /// Records an answer from the cache.
    pub(crate) fn answered_from_cache(&mut self, status: StatusCode) {
        self.stopwatch.resume(Instant::now());
        self.answer = Some(RecordedAnswer {
            status,
            by: AnsweredBy::Cache,
        });
    }

    /// Records an answer of ours that is not a refusal.
    pub(crate) fn answered_here(&mut self, status: StatusCode) {
        self.stopwatch.resume(Instant::now());
        self.answer = Some(RecordedAnswer {
            status,
            by: AnsweredBy::Outrider,
        });
    }

    /// Stops the stopwatch: the response head goes to the app, and only its bytes remain to be carried.
    pub(crate) fn answered(&mut self) {
        self.stopwatch.pause(Instant::now());
        self.head_sent = true;
    }

    /// Begins a tunnel, by a CONNECT or by an upgrade; it is open until the drop. Without an earlier answer it
    /// counts as a 200 of ours.
    pub(crate) fn tunnel(&mut self) {
        let now = Instant::now();
        self.stopwatch.pause(now);
        self.head_sent = true;
        self.answer.get_or_insert(RecordedAnswer {
            status: StatusCode::OK,
            by: AnsweredBy::Outrider,
        });
        // A copy: the URI is a view into the buffer that the head was read into, which would live as long as
        // the tunnel.
        self.uri = self.uri.take().and_then(|uri| uri.to_string().parse().ok());
        // Now, because a tunnel may stay open for days.
        if let Some(PolicyNote::Observed(request)) = &self.policy {
            self.telemetry.observe(request, true);
        }
        let counters = self.counters.as_ref().unwrap_or(&self.telemetry.none);
        self.phase = ExchangePhase::Tunnel {
            _open: counters.tunnel_opened(),
            since: now,
            end: TunnelEnd::Closed,
        };
    }

    /// Sets how the tunnel ended; without this it is [`TunnelEnd::Closed`].
    pub(crate) fn tunnel_ended(&mut self, how: TunnelEnd) {
        if let ExchangePhase::Tunnel { end, .. } = &mut self.phase {
            *end = how;
        }
    }

    /// Drops the exchange without a record, for a CONNECT whose inner requests are recorded one by one.
    pub(crate) fn discard(mut self: Box<Self>) {
        self.phase = ExchangePhase::Discarded;
    }

    /// Adds body bytes from the app.
    pub(crate) fn sent(&mut self, bytes: u64) {
        if self.sent.add(bytes) {
            self.count_bytes();
        }
    }

    /// Adds body bytes to the app.
    pub(crate) fn received(&mut self, bytes: u64) {
        if self.received.add(bytes) {
            self.count_bytes();
        }
    }

    /// Records that the body was cut off after the head had been sent, with the RFC 9209 error type.
    pub(crate) fn cut(&mut self, error: &'static str) {
        self.error.get_or_insert(error);
        self.tunnel_ended(TunnelEnd::Failed);
    }

    fn count_bytes(&mut self) {
        let counters = self.counters.as_ref().unwrap_or(&self.telemetry.none).used();
        self.sent.count(&counters.sent);
        self.received.count(&counters.received);
    }

    /// Returns the answer to record if there was none: the task panicked, or the app left, which is not our error.
    fn unanswered(&mut self) -> RecordedAnswer {
        let status = if thread::panicking() {
            self.error = Some("proxy_internal_error");
            StatusCode::INTERNAL_SERVER_ERROR
        } else {
            client_closed_request()
        };
        RecordedAnswer {
            status,
            by: AnsweredBy::Outrider,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if matches!(self.phase, ExchangePhase::Discarded) {
            return;
        }
        let now = Instant::now();
        let answer = match self.answer {
            Some(answer) => answer,
            None => self.unanswered(),
        };
        // An answer of ours is sent at once, so its head was sent by now.
        if answer.by == AnsweredBy::Outrider && self.answer.is_some() {
            self.stopwatch.pause(now);
            self.head_sent = true;
        }
        let overhead = self
            .head_sent
            .then(|| self.stopwatch.own.saturating_sub(self.waited));
        self.count_bytes();

        let counters = self.counters.as_ref().unwrap_or(&self.telemetry.none);
        counters.request(answer.by, self.method, answer.status);
        match &self.phase {
            ExchangePhase::Tunnel { since, end, .. } => counters.tunnel_closed(*end, now - *since),
            ExchangePhase::NoDestination | ExchangePhase::Request { .. } | ExchangePhase::Discarded => {
                observe(&counters.used().request_duration, now - self.begun);
                if let Some(overhead) = overhead {
                    observe(&counters.used().overhead, overhead);
                }
            }
        }
        if let Some(duration) = self.upstream_response {
            observe(&counters.used().upstream_response, duration);
        }
        if let Some(error) = self.error {
            counters.error(error);
        }
        let (mut reason, mut observed) = (None, None);
        match &self.policy {
            None => {}
            Some(PolicyNote::Denied(denied)) => {
                counters.denied(denied);
                reason = Some(*denied);
            }
            Some(PolicyNote::Observed(request)) => {
                if !matches!(self.phase, ExchangePhase::Tunnel { .. }) {
                    self.telemetry.observe(request, answer.by == AnsweredBy::Upstream);
                }
                observed = Some(&**request);
            }
        }
        if let Some(client) = &self.client {
            client.request(reason == Some(CLIENT_REFUSED));
        }

        if let Some(detail) = &self.detail
            && answer.by == AnsweredBy::Outrider
        {
            let authority = self.uri.as_ref().and_then(Uri::authority);
            let host = authority.or(self.authority.as_ref()).map(Authority::host);
            let now = SystemTime::now();
            lock(&self.telemetry.refusals).add(self.method.as_str(), host, answer.status, detail, now);
        }
        let is_noteworthy = answer.status.as_u16() >= 400 || self.error.is_some() || !self.waited.is_zero();
        match self.telemetry.access() {
            Access::None => return,
            Access::Errors if !is_noteworthy && observed.is_none() => return,
            Access::All | Access::Errors => {}
        }
        AccessLine {
            destination: &counters.destination,
            method: self.method,
            client: self.client.as_ref().map(|client| &*client.name),
            uri: self.uri.as_ref(),
            authority: self.authority.as_ref(),
            status: answer.status,
            answered_by: answer.by,
            error: self.error,
            reason,
            observed,
            detail: self.detail.as_deref(),
            sent: self.sent.total,
            received: self.received.total,
            duration: now - self.begun,
            overhead,
            waited: self.waited,
        }
        .write();
    }
}

impl Stopwatch {
    fn pause(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.own += now - since;
        }
    }

    fn resume(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }
}

impl ByteCount {
    /// Adds bytes. Returns whether enough have come together to count them.
    fn add(&mut self, bytes: u64) -> bool {
        self.total = self.total.saturating_add(bytes);
        self.total - self.counted >= COUNT_EVERY
    }

    /// Counts the bytes that are not counted yet. Most requests send no body, which saves them an atomic.
    fn count(&mut self, counter: &IntCounter) {
        if self.counted != self.total {
            counter.inc_by(self.total - self.counted);
            self.counted = self.total;
        }
    }
}

/// The app closed the connection before it had an answer. The code is not registered; it is nginx's.
/// `answered_by` distinguishes it from a 499 of an upstream.
fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

//! The one record of a request: what became of it, how long it took, and whose time that was.
//!
//! Own work is measured, not derived: a stopwatch runs while outrider has the request in hand and stands still while
//! an upstream has it. What is counted and logged is decided here, on drop, and nowhere else. The line itself is in
//! [`access`](super::access).

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http::uri::Authority;
use http::{Method, StatusCode, Uri};
use prometheus::IntCounter;
use tokio::time::Instant;

use super::access::AccessLine;
use super::counters::{Counters, GaugeGuard};
use super::families::observe;
use super::labels::{MethodLabel, TunnelEnd};
use super::{AnsweredBy, Telemetry};
use crate::config::Access;

/// One request and what became of it: born at the door, written once, on drop.
#[derive(Debug)]
pub(crate) struct Exchange {
    telemetry: Arc<Telemetry>,
    /// `None` until the destination is known.
    counters: Option<Arc<Counters>>,
    verb: MethodLabel,
    /// For the access line; `None` where there will be none.
    uri: Option<Uri>,
    /// Where `uri` has none of its own.
    authority: Option<Authority>,
    begun: Instant,
    stopwatch: Stopwatch,
    /// When the upstream was asked, for the time of its answer.
    asked: Option<Instant>,
    upstream_response: Option<Duration>,
    waited: Duration,
    answer: Option<RecordedAnswer>,
    head_sent: bool,
    error: Option<&'static str>,
    reason: Option<&'static str>,
    /// Of a refusal, for the access line.
    detail: Option<Box<str>>,
    /// What a cache will have done for it, should it be refused.
    cache_status: Option<&'static str>,
    sent: ByteCount,
    received: ByteCount,
    phase: Phase,
}

/// What had been told of an answer that the app may not get.
#[derive(Debug)]
pub(crate) struct TakenBackAnswer(Option<RecordedAnswer>, Option<Duration>);

/// The head of the answer.
#[derive(Clone, Copy, Debug)]
struct RecordedAnswer {
    status: StatusCode,
    by: AnsweredBy,
}

/// Adds up own work. `since` is when the running stretch began.
#[derive(Debug)]
struct Stopwatch {
    own: Duration,
    since: Option<Instant>,
}

/// Bytes moved, and how many of them the metric knows already.
#[derive(Debug, Default)]
struct ByteCount {
    total: u64,
    counted: u64,
}

/// Which gauge this exchange is one of.
#[derive(Debug)]
enum Phase {
    /// None: no destination yet, or not to be counted at all.
    NoDestination,
    Request {
        _in_flight: GaugeGuard,
    },
    Tunnel {
        _open: GaugeGuard,
        since: Instant,
        end: TunnelEnd,
    },
    /// Not an exchange of its own: nothing is written.
    Discarded,
}

impl Exchange {
    /// Starts the clock. GaugeGuard under `none` until a destination is known. Boxed, as it goes through many hands.
    pub(crate) fn begin(telemetry: &Arc<Telemetry>, method: &Method, uri: &Uri) -> Box<Self> {
        let now = Instant::now();
        Box::new(Self {
            telemetry: Arc::clone(telemetry),
            counters: None,
            verb: MethodLabel::of(method),
            uri: (telemetry.access() != Access::None).then(|| uri.clone()),
            authority: None,
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
            reason: None,
            detail: None,
            cache_status: None,
            sent: ByteCount::default(),
            received: ByteCount::default(),
            phase: Phase::NoDestination,
        })
    }

    /// The same for work that no app waits for: nothing is written.
    pub(crate) fn unrecorded(telemetry: &Arc<Telemetry>, method: &Method, uri: &Uri) -> Box<Self> {
        let mut exchange = Self::begin(telemetry, method, uri);
        exchange.phase = Phase::Discarded;
        exchange
    }

    /// The host for the access line, where the request's own URI has none: inside an intercepted CONNECT.
    pub(crate) fn set_authority(&mut self, authority: &Authority) {
        if self.uri.is_some() {
            self.authority = Some(authority.clone());
        }
    }

    /// The destination is known: in flight there from now on.
    pub(crate) fn set_destination(&mut self, counters: &Arc<Counters>) {
        self.phase = Phase::Request {
            _in_flight: GaugeGuard::new(&counters.in_flight),
        };
        self.counters = Some(Arc::clone(counters));
    }

    /// Time spent waiting before the upstream was asked: for a limit, or to ask it once more.
    pub(crate) fn waited(&mut self, wait: Duration) {
        self.waited += wait;
    }

    /// All that has been waited so far.
    pub(crate) fn total_wait(&self) -> Duration {
        self.waited
    }

    /// Outrider's own work pauses: the upstream has the request now (or is being connected to). Called again when the
    /// request is written on the new connection, the clock of the upstream's answer starts anew.
    pub(crate) fn asked_upstream(&mut self) {
        let now = Instant::now();
        self.stopwatch.pause(now);
        self.asked = Some(now);
    }

    /// When the upstream was asked last.
    pub(crate) fn asked_at(&self) -> Option<Instant> {
        self.asked
    }

    /// Outrider's own work resumes, and nothing has been answered.
    pub(crate) fn upstream_failed(&mut self) {
        self.stopwatch.resume(Instant::now());
    }

    /// The upstream's response head is in: outrider's own work resumes.
    pub(crate) fn upstream_answered(&mut self, status: StatusCode) {
        let now = Instant::now();
        self.stopwatch.resume(now);
        self.upstream_response = self.asked.map(|asked| now - asked);
        self.answer = Some(RecordedAnswer {
            status,
            by: AnsweredBy::Upstream,
        });
    }

    /// The answer so far is not given to the app: the upstream is to be asked once more.
    pub(crate) fn take_back(&mut self) -> TakenBackAnswer {
        self.stopwatch.resume(Instant::now());
        TakenBackAnswer(self.answer.take(), self.upstream_response.take())
    }

    /// The answer that was taken back is given to the app after all.
    pub(crate) fn restore_answer(&mut self, told: TakenBackAnswer) {
        self.stopwatch.resume(Instant::now());
        TakenBackAnswer(self.answer, self.upstream_response) = told;
    }

    /// An answer of ours, with the RFC 9209 error type and, for a refusal by policy, its reason.
    pub(crate) fn refused(&mut self, status: StatusCode, error: &'static str, reason: Option<&'static str>) {
        self.stopwatch.resume(Instant::now());
        self.answer = Some(RecordedAnswer {
            status,
            by: AnsweredBy::Outrider,
        });
        self.error = Some(error);
        self.reason = reason;
    }

    /// The sentence that goes with a refusal. Never a secret, nor what the app sent.
    pub(crate) fn explain(&mut self, detail: &str) {
        self.detail = Some(detail.into());
    }

    /// It goes past a cache, or through one, for the reason that this Cache-Status says.
    pub(crate) fn set_cache_status(&mut self, status: &'static str) {
        self.cache_status = Some(status);
    }

    pub(crate) fn cache_status(&self) -> Option<&'static str> {
        self.cache_status
    }

    /// An answer that had been kept.
    pub(crate) fn answered_from_cache(&mut self, status: StatusCode) {
        self.stopwatch.resume(Instant::now());
        self.answer = Some(RecordedAnswer {
            status,
            by: AnsweredBy::Cache,
        });
    }

    /// An answer of ours that is no refusal.
    pub(crate) fn answered_here(&mut self, status: StatusCode) {
        self.stopwatch.resume(Instant::now());
        self.answer = Some(RecordedAnswer {
            status,
            by: AnsweredBy::Outrider,
        });
    }

    /// The response head goes to the app: outrider's own work is done but for the bytes.
    pub(crate) fn answered(&mut self) {
        self.stopwatch.pause(Instant::now());
        self.head_sent = true;
    }

    /// Two streams are joined from here on, by a CONNECT or by an upgrade: a tunnel is open until the drop. Where no
    /// answer was told before, it is a 200 of ours.
    pub(crate) fn tunnel(&mut self) {
        let now = Instant::now();
        self.stopwatch.pause(now);
        self.head_sent = true;
        self.answer.get_or_insert(RecordedAnswer {
            status: StatusCode::OK,
            by: AnsweredBy::Outrider,
        });
        // A copy: the URI is a view into the buffer that the head was read into, which would live as long as the tunnel.
        self.uri = self.uri.take().and_then(|uri| uri.to_string().parse().ok());
        let counters = self.counters.as_ref().unwrap_or(&self.telemetry.none);
        self.phase = Phase::Tunnel {
            _open: counters.tunnel_opened(),
            since: now,
            end: TunnelEnd::Closed,
        };
    }

    /// How the tunnel ended; [`TunnelEnd::Closed`] where nobody says.
    pub(crate) fn tunnel_ended(&mut self, how: TunnelEnd) {
        if let Phase::Tunnel { end, .. } = &mut self.phase {
            *end = how;
        }
    }

    /// This is no exchange of its own: a CONNECT whose inner requests are counted one by one. Nothing is written.
    pub(crate) fn discard(mut self: Box<Self>) {
        self.phase = Phase::Discarded;
    }

    /// Body bytes from the app.
    pub(crate) fn sent(&mut self, bytes: u64) {
        if self.sent.add(bytes) {
            self.count_bytes();
        }
    }

    /// Body bytes to the app.
    pub(crate) fn received(&mut self, bytes: u64) {
        if self.received.add(bytes) {
            self.count_bytes();
        }
    }

    /// The body was cut after the head had gone out: the RFC 9209 error type.
    pub(crate) fn cut(&mut self, error: &'static str) {
        self.error.get_or_insert(error);
        self.tunnel_ended(TunnelEnd::Failed);
    }

    fn count_bytes(&mut self) {
        let counters = self.counters.as_ref().unwrap_or(&self.telemetry.none);
        self.sent.count(&counters.sent);
        self.received.count(&counters.received);
    }

    /// The answer that stands where nobody told one: the task panicked, or the app left, which is no error of ours.
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
        if matches!(self.phase, Phase::Discarded) {
            return;
        }
        let now = Instant::now();
        let answer = match self.answer {
            Some(answer) => answer,
            None => self.unanswered(),
        };
        // An answer of ours is written at once, so its drop stands for its head.
        if answer.by == AnsweredBy::Outrider && self.answer.is_some() {
            self.stopwatch.pause(now);
            self.head_sent = true;
        }
        let overhead = self
            .head_sent
            .then(|| self.stopwatch.own.saturating_sub(self.waited));
        self.count_bytes();

        let counters = self.counters.as_ref().unwrap_or(&self.telemetry.none);
        counters.request(answer.by, self.verb, answer.status);
        match &self.phase {
            Phase::Tunnel { since, end, .. } => counters.tunnel_closed(*end, now - *since),
            Phase::NoDestination | Phase::Request { .. } | Phase::Discarded => {
                observe(&counters.request_duration, now - self.begun);
                if let Some(overhead) = overhead {
                    observe(&counters.overhead, overhead);
                }
            }
        }
        if let Some(duration) = self.upstream_response {
            observe(&counters.upstream_response, duration);
        }
        if let Some(error) = self.error {
            counters.error(error);
        }
        if let Some(reason) = self.reason {
            counters.denied(reason);
        }

        let noteworthy = answer.status.as_u16() >= 400 || self.error.is_some() || !self.waited.is_zero();
        match self.telemetry.access() {
            Access::None => return,
            Access::Errors if !noteworthy => return,
            Access::All | Access::Errors => {}
        }
        AccessLine {
            destination: &counters.destination,
            verb: self.verb,
            uri: self.uri.as_ref(),
            authority: self.authority.as_ref(),
            status: answer.status,
            answered_by: answer.by,
            error: self.error,
            reason: self.reason,
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
    /// Whether so much has come together that the metric should know.
    fn add(&mut self, bytes: u64) -> bool {
        self.total = self.total.saturating_add(bytes);
        self.total - self.counted >= COUNT_EVERY
    }

    /// Adds what the metric does not know yet. Most requests send no body: nothing is an atomic saved.
    fn count(&mut self, counter: &IntCounter) {
        if self.counted != self.total {
            counter.inc_by(self.total - self.counted);
            self.counted = self.total;
        }
    }
}

/// The app went away before it had an answer. Not registered; nginx coined it, and no upstream of ours can be mistaken
/// for it, as `answered_by` tells.
fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

/// Long transfers show on the metrics page in steps of this many bytes, not all at their end.
const COUNT_EVERY: u64 = 1 << 20;

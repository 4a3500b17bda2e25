//! Simulates a destination's limits and faults (`rehearse`), so that a team sees how its app handles them before
//! production does.
//!
//! A simulated response replaces the request to the upstream. It is limited, learned from, repeated and counted
//! like a real one. After a number of passed requests the limit counts as reached until the time of its Retry-After
//! is over, then requests pass again. Failures are spread evenly and not at random, so that each run of a test
//! meets the same ones. A failure is a 503 without Retry-After, which leaves it to the app how to continue.
//!
//! Nobody should mistake it for the destination: the log, the metrics and each response say so.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::config::Rehearse;
use crate::message::Response;
use crate::sync::lock;
use crate::telemetry::Counters;
use crate::units;
use crate::upstream::ResponseBody;

/// The text of a simulated response, for its body and its Proxy-Status.
macro_rules! detail {
    () => {
        "a rehearsal of the destination's limits and faults (rehearse): the destination was not asked"
    };
}

const FAIL: HeaderValue = HeaderValue::from_static("fail");
const FIELD: HeaderName = HeaderName::from_static("outrider-rehearsal");
const PASSED: HeaderValue = HeaderValue::from_static("passed");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Without `error`, because it replaces the destination's response.
const REHEARSED: HeaderValue = HeaderValue::from_static(concat!("outrider; details=\"", detail!(), "\""));

/// The simulation of one destination. Shared by all workers.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    counters: Arc<Counters>,
    destination: Arc<str>,
    /// The value of `outrider-rehearsal` in a refusal: its status.
    refusal: HeaderValue,
    settings: Rehearse,
    state: Mutex<State>,
}

/// An extension of a simulated response: the value of its `outrider-rehearsal`.
#[derive(Clone, Debug)]
struct Simulated(HeaderValue);

#[derive(Debug, Default)]
struct State {
    /// Requests passed since the limit was last reached.
    passed: u32,
    /// Failures that are due, in hundredths of a request.
    due: u32,
    refused_until: Option<Instant>,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Pass,
    Fail,
    RefuseUntil(Instant),
}

impl Rehearsal {
    pub(crate) fn new(settings: Rehearse, destination: &Arc<str>, counters: Arc<Counters>) -> Self {
        Self {
            counters,
            destination: Arc::clone(destination),
            refusal: HeaderValue::from(settings.answer.as_u16()),
            settings,
            state: Mutex::default(),
        }
    }

    pub(crate) fn settings(&self) -> &Rehearse {
        &self.settings
    }

    /// Warns in the log that some responses will be simulated.
    pub(crate) fn announce(&self) {
        tracing::warn!(
            destination = %self.destination,
            simulates = %self.settings,
            "REHEARSAL: answers of this destination are simulated; remove rehearse before production",
        );
    }

    /// Returns a simulated response, or `None` if the request passes. Waits for `latency` first.
    pub(super) async fn simulate(&self, is_head: bool) -> Option<Response<ResponseBody>> {
        let act = self.state().act(&self.settings, Instant::now());
        if !self.settings.latency.is_zero() {
            tokio::time::sleep(self.settings.latency).await;
        }
        let (status, mark, retry_after) = match act {
            Act::Pass => return None,
            Act::Fail => (StatusCode::SERVICE_UNAVAILABLE, FAIL, None),
            Act::RefuseUntil(until) => {
                let left = until.saturating_duration_since(Instant::now());
                let seconds = units::retry_after(left);
                (self.settings.answer, self.refusal.clone(), Some(seconds))
            }
        };
        self.counters.rehearsed(mark.to_str().unwrap_or_default());
        Some(simulated(status, mark, retry_after, is_head))
    }

    /// Writes into a response whether it was simulated. The same fields from an upstream have been removed before.
    pub(super) fn mark<B>(&self, response: &mut Response<B>) {
        let mark = match response.extensions().get() {
            None => PASSED,
            Some(Simulated(mark)) => {
                let mark = mark.clone();
                response.headers_mut().append(PROXY_STATUS, REHEARSED);
                mark
            }
        };
        response.headers_mut().insert(FIELD, mark);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn act(&mut self, settings: &Rehearse, now: Instant) -> Act {
        match self.refused_until {
            Some(until) if now < until => return Act::RefuseUntil(until),
            Some(_) => (self.passed, self.refused_until) = (0, None),
            None => {}
        }
        if settings.after.is_some_and(|after| self.passed >= after) {
            let until = now + settings.retry_after;
            self.refused_until = Some(until);
            return Act::RefuseUntil(until);
        }
        self.passed = self.passed.saturating_add(1);
        self.due += u32::from(settings.fail);
        if self.due >= 100 {
            self.due -= 100;
            return Act::Fail;
        }
        Act::Pass
    }
}

fn simulated(
    status: StatusCode,
    mark: HeaderValue,
    retry_after: Option<u64>,
    is_head: bool,
) -> Response<ResponseBody> {
    let text = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail!(),
    })
    .to_string();
    let mut response = Response::new(if is_head {
        ResponseBody::Ended
    } else {
        ResponseBody::Whole(Bytes::from(text))
    });
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = retry_after {
        fields.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response.extensions_mut().insert(Simulated(mark));
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::Telemetry;

    fn settings(after: Option<u32>, fail: u8) -> Rehearse {
        Rehearse {
            after,
            answer: StatusCode::TOO_MANY_REQUESTS,
            fail,
            latency: Duration::ZERO,
            retry_after: Duration::from_secs(10),
        }
    }

    /// Returns what happens to the next requests: `.` passes, `f` fails, `4` is refused.
    fn acts(state: &mut State, settings: &Rehearse, now: Instant, count: usize) -> String {
        (0..count)
            .map(|_| match state.act(settings, now) {
                Act::Pass => '.',
                Act::Fail => 'f',
                Act::RefuseUntil(_) => '4',
            })
            .collect()
    }

    #[test]
    fn so_many_pass_then_none_until_the_time_is_over() {
        let (settings, start) = (settings(Some(3), 0), Instant::now());
        let mut state = State::default();
        for (second, expected) in [
            (0, "..."),
            (5, "444"),
            (14, "44"),
            (15, "...4"),
            (24, "4"),
            (25, "...4"),
        ] {
            let now = start + Duration::from_secs(second);
            assert_eq!(
                acts(&mut state, &settings, now, expected.len()),
                expected,
                "{second}"
            );
        }
    }

    #[test]
    fn after_nothing_all_are_refused_and_without_after_none() {
        let start = Instant::now();
        for (after, expected) in [(Some(0), "4444"), (None, "....")] {
            let settings = settings(after, 0);
            let mut state = State::default();
            for second in [0, 10, 20] {
                let now = start + Duration::from_secs(second);
                assert_eq!(acts(&mut state, &settings, now, 4), expected);
            }
        }
    }

    #[test]
    fn failures_are_spread_evenly() {
        let now = Instant::now();
        for (fail, expected) in [
            (0, "........"),
            (25, "...f...f"),
            (50, ".f.f.f.f"),
            (100, "ffffffff"),
        ] {
            assert_eq!(
                acts(&mut State::default(), &settings(None, fail), now, 8),
                expected,
                "{fail}"
            );
        }
        let of_a_hundred = acts(&mut State::default(), &settings(None, 7), now, 100);
        assert_eq!(of_a_hundred.matches('f').count(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_simulated_answer_says_what_it_is_and_when_to_come_back() {
        let settings = Rehearse {
            latency: Duration::from_millis(300),
            ..settings(Some(1), 0)
        };
        let telemetry = Telemetry::new();
        let rehearsal = Rehearsal::new(settings, &"p".into(), telemetry.counters("p"));
        let start = Instant::now();
        assert!(rehearsal.simulate(false).await.is_none());
        assert_eq!(start.elapsed(), settings.latency, "what passes is slow as well");
        let mut refused = rehearsal.simulate(false).await.unwrap();
        assert_eq!(start.elapsed(), 2 * settings.latency);
        assert_eq!(refused.status(), 429);
        // Ten seconds from the request, rounded up.
        assert_eq!(refused.headers()["retry-after"], "10");
        rehearsal.mark(&mut refused);
        assert_eq!(refused.headers()["outrider-rehearsal"], "429");
        assert!(
            refused.headers()["proxy-status"]
                .to_str()
                .unwrap()
                .contains("rehears")
        );
        let page = String::from_utf8(telemetry.render()).unwrap();
        let line = "outrider_rehearsed_total{answer=\"429\",destination=\"p\"} 1\n";
        assert!(page.contains(line), "{page}");
    }

    #[tokio::test]
    async fn a_failure_has_no_retry_after_and_head_no_body() {
        let telemetry = Telemetry::new();
        let rehearsal = Rehearsal::new(settings(None, 100), &"p".into(), telemetry.counters("p"));
        let mut failed = rehearsal.simulate(true).await.unwrap();
        assert_eq!(failed.status(), 503);
        assert!(!failed.headers().contains_key("retry-after"));
        assert!(matches!(failed.body(), ResponseBody::Ended));
        rehearsal.mark(&mut failed);
        assert_eq!(failed.headers()["outrider-rehearsal"], "fail");
    }

    #[test]
    fn what_passes_is_marked_as_passed() {
        let telemetry = Telemetry::new();
        let rehearsal = Rehearsal::new(settings(None, 0), &"p".into(), telemetry.counters("p"));
        let mut response = Response::new(ResponseBody::Ended);
        rehearsal.mark(&mut response);
        assert_eq!(response.headers()["outrider-rehearsal"], "passed");
        assert!(!response.headers().contains_key("proxy-status"));
    }
}

//! Sending a request once more, where that is safe and may help.
//!
//! Safe means: it could not be sent at all, or it means the same when it is sent twice (by its method, or because it
//! carries an Idempotency-Key) and its body is at hand whole. A 429 is no exception for a POST without a key: the
//! status does not promise that nothing was done (RFC 6585 section 4).
//!
//! May help means: after what the configuration names, so many times at most, and while repeats stay a small share of
//! the requests, so that a destination that is down is not asked twice as much for it. Between two tries there is the
//! wait that the upstream asks for, or one that grows and is different for each; all waits of a request together take
//! `max_wait` at most, and no longer than the app says that it waits. Each repeat is admitted by circuit and limits like
//! any request. Where it is not let through, the app gets the answer that there was.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http::{Response, StatusCode, request};
use http_body::Body;
use rand::Rng;
use tokio::time::{Instant, sleep, timeout};

use super::Error;
use super::fetch::{self, Answered, Course};
use crate::config::Retry;
use crate::limit;
use crate::telemetry::{Counters, Exchange, Told};
use crate::upstream::{self, Failed, Outbound, ResponseBody};
use crate::upstream::{dial, tls};
use crate::window::Window;

/// How one destination's requests are repeated, and how many of them were lately; shared by all workers.
#[derive(Debug)]
pub(crate) struct Retrying {
    counters: Arc<Counters>,
    destination: Arc<str>,
    /// Requests first, then repeats.
    lately: Mutex<Window>,
    settings: Retry,
}

/// A request to a destination that has retries, on its first try.
#[derive(Debug)]
pub(super) struct First<'r> {
    begun: Instant,
    /// It means the same when it is sent twice, and, once gathered, its body is at hand whole.
    is_repeatable: bool,
    retrying: &'r Retrying,
}

/// A request whose first try came to something after which another may be made.
pub(super) struct Again<'r> {
    first: First<'r>,
    result: Result<Answered<'r>, Failed>,
}

/// Why a request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Connect,
    Status(StatusCode),
}

/// What the app gets where a repeat is not let through.
enum Last<'r> {
    Answer(Box<Answered<'r>>, Told),
    /// The answer was too long to be kept.
    Lost,
    Error(Error),
}

impl Retrying {
    pub(crate) fn new(settings: Retry, destination: &Arc<str>, counters: Arc<Counters>) -> Self {
        Self {
            counters,
            destination: Arc::clone(destination),
            lately: Mutex::new(Window::new(SPAN, Instant::now())),
            settings,
        }
    }

    pub(crate) fn settings(&self) -> &Retry {
        &self.settings
    }

    /// A request begins.
    pub(super) fn begin(&self, now: Instant) {
        self.lately().first(now);
    }

    /// Takes one repeat from the budget, if there is one.
    fn spend(&self, now: Instant) -> bool {
        let mut lately = self.lately();
        let counts = lately.counts(now);
        let share = u64::from(counts.first) * u64::from(self.settings.budget) / 100;
        let has_room = u64::from(counts.second) < share + FLOOR;
        if has_room {
            lately.second(now);
        }
        has_room
    }

    /// After what a request may be sent again. `is_repeatable`: it means the same then, and its body is at hand whole.
    fn reason(&self, result: Tried<'_>, is_repeatable: bool) -> Option<Reason> {
        match result {
            Ok(response) if is_repeatable && self.settings.on_status.contains(&response.status()) => {
                Some(Reason::Status(response.status()))
            }
            Err(failed) if failed.is_unsent && self.settings.on_connect && may_pass(&failed.error) => {
                Some(Reason::Connect)
            }
            Ok(_) | Err(_) => None,
        }
    }

    fn lately(&self) -> MutexGuard<'_, Window> {
        // Nothing panics under the lock; if it did, the counts would still be whole.
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'r> First<'r> {
    /// A request begins.
    pub(super) fn new(retrying: &'r Retrying, head: &request::Parts) -> Self {
        let begun = Instant::now();
        retrying.begin(begun);
        Self {
            begun,
            // A WebSocket's handshake opens a tunnel: nothing in it can be repeated.
            is_repeatable: upstream::is_repeatable(head) && !head.headers.contains_key(header::UPGRADE),
            retrying,
        }
    }

    /// How much of a body is read whole, so that the request can be repeated with it, in bytes; `None`: nothing of it.
    pub(super) fn keeps(&self) -> Option<usize> {
        self.is_repeatable.then_some(MOST_KEPT)
    }

    /// The body is as it is sent.
    pub(super) fn has_gathered(&mut self, body: &Outbound) {
        self.is_repeatable &= body.is_whole();
    }

    /// What the first try has come to: what the app gets, or something after which another try may be made.
    pub(super) fn judge(
        first: Option<Self>,
        result: Result<Answered<'r>, Failed>,
    ) -> Result<Result<Answered<'r>, Error>, Box<Again<'r>>> {
        match first {
            Some(first)
                if first
                    .retrying
                    .reason(tried(&result), first.is_repeatable)
                    .is_some() =>
            {
                Err(Box::new(Again { first, result }))
            }
            Some(_) | None => Ok(result.map_err(|failed| failed.error.into())),
        }
    }
}

impl<'r> Again<'r> {
    /// Sends the request again as long as that is safe and may help.
    pub(super) async fn run(
        self: Box<Self>,
        head: &mut request::Parts,
        mut body: Outbound,
        course: Course<'r>,
        exchange: &mut Exchange,
    ) -> Result<Answered<'r>, Error> {
        let Self { first, mut result } = *self;
        let First {
            begun,
            is_repeatable,
            retrying,
        } = first;
        let route = &course.way.route;
        let settings = &retrying.settings;
        let mut left = settings.max_wait;
        for repeat in 1..settings.attempts {
            let Some(reason) = retrying.reason(tried(&result), is_repeatable) else {
                break;
            };
            // The app may have said for how long it waits at all.
            let its = limit::deadline(&head.headers)
                .map_or(Duration::MAX, |its| its.saturating_sub(begun.elapsed()));
            if its.is_zero() {
                break;
            }
            let Some(wait) = wait(tried(&result), repeat, left.min(its)) else {
                break;
            };
            if !retrying.spend(Instant::now()) {
                tracing::debug!(destination = %retrying.destination, "not sent again: the budget of repeats is spent");
                break;
            }
            let since = Instant::now();
            let last = Last::of(result, exchange).await;
            sleep(wait).await;
            let slept = since.elapsed();
            exchange.waited(slept);
            // What was just refused may have to wait for the limits that were learned from that.
            let patience = left.min(its).saturating_sub(slept);
            let leave = match fetch::admit(head, route, None, Some(patience), exchange).await {
                Ok(leave) => leave,
                Err(refusal) => {
                    exchange.waited(since.elapsed() - slept);
                    return last.stand(refusal, exchange);
                }
            };
            left = left.saturating_sub(since.elapsed());
            drop(last);
            retrying.counters.retry(reason.as_str());
            tracing::debug!(
                destination = %retrying.destination,
                reason = reason.as_str(),
                ?wait,
                "sent again",
            );
            fetch::ready(head, leave.credential, course, exchange).await?;
            fetch::attach(head, &body, leave.credential, course)?;
            result = fetch::send(head, &mut body, leave, course, exchange).await;
        }
        result.map_err(|failed| failed.error.into())
    }
}

impl Reason {
    fn as_str(&self) -> &str {
        match self {
            Self::Connect => "connect",
            Self::Status(status) => status.as_str(),
        }
    }
}

impl<'r> Last<'r> {
    /// Reads an answer to its end, so that its connection and its permit are free for others.
    async fn of(result: Result<Answered<'r>, Failed>, exchange: &mut Exchange) -> Self {
        let told = exchange.take_back();
        match result {
            Err(failed) => Self::Error(failed.error.into()),
            Ok(Answered {
                credential,
                permit: _permit,
                response,
            }) => match kept(response).await {
                Some(response) => Self::Answer(
                    Box::new(Answered {
                        credential,
                        permit: None,
                        response,
                    }),
                    told,
                ),
                None => Self::Lost,
            },
        }
    }

    /// The repeat is not let through: what there was stands, where there is anything left of it.
    fn stand(self, refusal: Error, exchange: &mut Exchange) -> Result<Answered<'r>, Error> {
        match self {
            Self::Answer(answered, told) => {
                exchange.let_stand(told);
                Ok(*answered)
            }
            Self::Error(error) => Err(error),
            Self::Lost => Err(refusal),
        }
    }
}

/// What a try has come to, as far as it is looked at.
type Tried<'a> = Result<&'a Response<ResponseBody>, &'a Failed>;

fn tried<'a>(result: &'a Result<Answered<'_>, Failed>) -> Tried<'a> {
    result.as_ref().map(|answered| &answered.response)
}

/// How long to wait before another try; `None` where the upstream asks for more than there is `left`.
fn wait(result: Tried<'_>, repeat: u32, left: Duration) -> Option<Duration> {
    let answer = result.ok();
    let asked = answer.and_then(|response| retry_after(response.headers(), SystemTime::now()));
    match asked {
        Some(asked) if asked > left => None,
        // Those who were refused together should not come back together.
        Some(asked) => Some((asked + (asked / 10).min(MOST_SPREAD).mul_f64(rand::random())).min(left)),
        None => {
            let longest = FIRST_WAIT
                .saturating_mul(1 << repeat.saturating_sub(1).min(16))
                .min(MOST_WAIT);
            Some(longest.mul_f64(rand::rng().random_range(0.5..=1.0)).min(left))
        }
    }
}

/// Retry-After, in seconds or as a date (RFC 9110 section 10.2.3). What is neither is not there.
fn retry_after(fields: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = fields.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// Whether a connection that could not be made might be a moment later.
fn may_pass(error: &upstream::Error) -> bool {
    match error {
        upstream::Error::Dial(error) => !matches!(error, dial::Error::Empty),
        upstream::Error::Dns(error) => !error.is_final(),
        upstream::Error::Tls(error) => {
            matches!(error, tls::Error::Closed { .. } | tls::Error::Timeout { .. })
        }
        _ => false,
    }
}

/// The answer without its connection, which carries other requests again; `None` where it is too long or too slow.
pub(super) async fn kept(response: Response<ResponseBody>) -> Option<Response<ResponseBody>> {
    let (parts, mut body) = response.into_parts();
    let read = async {
        let mut data = BytesMut::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            // Trailers cannot be kept.
            data.extend_from_slice(&frame.ok()?.into_data().ok()?);
            if data.len() > MOST_KEPT {
                return None;
            }
        }
        Some(data.freeze())
    };
    let data: Bytes = timeout(MOST_READING, read).await.ok()??;
    Some(Response::from_parts(parts, ResponseBody::Whole(data)))
}

/// Of a request's body, so that it can be sent again, and of an answer's, so that it can be given after all. In bytes.
pub(super) const MOST_KEPT: usize = 64 * 1024;
/// For an answer that is likely not to be given to the app.
const MOST_READING: Duration = Duration::from_secs(1);

const FIRST_WAIT: Duration = Duration::from_millis(200);
const MOST_WAIT: Duration = Duration::from_secs(10);
const MOST_SPREAD: Duration = Duration::from_secs(1);

/// The time over which the share of repeats is measured.
const SPAN: Duration = Duration::from_secs(10);
/// Repeats in that time that need no requests beside them: an app that asks little may repeat as well.
const FLOOR: u64 = 10;

#[cfg(test)]
mod tests;

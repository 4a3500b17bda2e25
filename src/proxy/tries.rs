//! When a request is sent again, and after what wait. No I/O; time and chance are passed in.
//!
//! There are two reasons. The upstream has refused the credential (401), and another one is at hand: a 401 says that
//! nothing was done, so that any request may be repeated whose body is at hand whole (RFC 9110 section 15.5.2), once after
//! each try and at once. Or the configuration asks for it (`retry`): where that is safe and may help.
//!
//! Safe means: it could not be sent at all, or it means the same when it is sent twice (by its method, or because it
//! carries an Idempotency-Key) and its body is at hand whole. A 429 is no exception for a POST without a key: the
//! status does not promise that nothing was done (RFC 6585 section 4).
//!
//! May help means: after what the configuration names, so many times at most, and while there is a budget of repeats.
//! Between two tries there is the wait that the upstream asks for, or one that grows and is different for each; all waits
//! of a request together take `max_wait` at most, and no longer than the app says that it waits.

use std::time::{Duration, SystemTime};

use http::{Response, header, request};
use tokio::time::Instant;

use super::Retrying;
use super::attempt::{Reason, Terms, Tried};
use crate::limit;
use crate::upstream::{self, RequestFailed, ResponseBody};
use crate::upstream::{dial, tls};

/// The tries of one request.
#[derive(Debug)]
pub(super) struct Tries<'r> {
    /// Since the last try that was made for another reason, the credential has been renewed.
    is_renewed: bool,
    /// `None`: the configuration asks for no repeats.
    repeats: Option<Repeats<'r>>,
}

/// What the configuration asks for, of one request.
#[derive(Debug)]
struct Repeats<'r> {
    begun: Instant,
    /// How many there were.
    count: u32,
    /// It means the same when it is sent twice, should its body be at hand.
    is_repeatable: bool,
    retrying: &'r Retrying,
}

/// Another try.
#[derive(Debug)]
pub(super) struct Next<'r> {
    /// Its patience begins now: the wait is a part of it.
    pub(super) terms: Terms<'r>,
    /// Before it.
    pub(super) wait: Duration,
}

/// What a decision depends on beside the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// From 0 to 1.
    pub(super) chance: f64,
    pub(super) clock: SystemTime,
    pub(super) now: Instant,
    /// What the request has waited since its first try.
    pub(super) waited: Duration,
}

impl<'r> Tries<'r> {
    /// A request begins.
    pub(super) fn new(retrying: Option<&'r Retrying>, head: &request::Parts) -> Self {
        let repeats = retrying.map(|retrying| {
            let begun = Instant::now();
            retrying.begin(begun);
            Repeats {
                begun,
                count: 0,
                // A WebSocket's handshake opens a tunnel: nothing in it can be repeated.
                is_repeatable: upstream::is_repeatable(head) && !head.headers.contains_key(header::UPGRADE),
                retrying,
            }
        });
        Self {
            is_renewed: false,
            repeats,
        }
    }

    pub(super) fn first(&self) -> Terms<'r> {
        Terms {
            credential: None,
            earlier: None,
            keeps_body: self.repeats.as_ref().is_some_and(|repeats| repeats.is_repeatable),
            patience: None,
            reason: None,
        }
    }

    /// Why another try might be made; `None`: what this one has come to is the app's.
    pub(super) fn reason(&self, tried: &Tried<'_>) -> Option<Reason> {
        if tried.may_be_renewed && !self.is_renewed {
            return Some(Reason::Renewal);
        }
        self.repeats
            .as_ref()?
            .reason(tried.result.as_ref(), tried.has_whole_body)
    }

    /// The next try, if one is made for this reason.
    pub(super) fn next(
        &mut self,
        reason: Reason,
        result: Outcome<'_>,
        head: &request::Parts,
        moment: Moment,
    ) -> Option<Next<'r>> {
        self.is_renewed = reason == Reason::Renewal;
        if self.is_renewed {
            let terms = Terms {
                credential: None,
                earlier: None,
                keeps_body: true,
                patience: None,
                reason: Some(reason),
            };
            let wait = Duration::ZERO;
            return Some(Next { terms, wait });
        }
        self.repeats.as_mut()?.next(reason, result, head, moment)
    }
}

impl<'r> Repeats<'r> {
    fn reason(&self, result: Outcome<'_>, has_whole_body: bool) -> Option<Reason> {
        let settings = self.retrying.settings();
        match result {
            Ok(response)
                if self.is_repeatable
                    && has_whole_body
                    && settings.on_status.contains(&response.status()) =>
            {
                Some(Reason::Status(response.status()))
            }
            Err(failed) if failed.is_unsent && settings.on_connect && may_pass(&failed.error) => {
                Some(Reason::Connect)
            }
            Ok(_) | Err(_) => None,
        }
    }

    fn next(
        &mut self,
        reason: Reason,
        result: Outcome<'_>,
        head: &request::Parts,
        moment: Moment,
    ) -> Option<Next<'r>> {
        let settings = self.retrying.settings();
        self.count += 1;
        if self.count >= settings.attempts {
            return None;
        }
        let mut left = settings.max_wait.saturating_sub(moment.waited);
        // The app may have said for how long it waits at all.
        if let Some(its) = limit::deadline(&head.headers) {
            let its = its.saturating_sub(moment.now - self.begun);
            if its.is_zero() {
                return None;
            }
            left = left.min(its);
        }
        let wait = wait(result, self.count, left, moment)?;
        let terms = Terms {
            credential: None,
            earlier: None,
            keeps_body: self.is_repeatable,
            // What was just refused may have to wait for the limits that were learned from that.
            patience: Some(left),
            reason: Some(reason),
        };
        self.retrying.spend(moment.now).then_some(Next { terms, wait })
    }
}

/// What a try has come to, as far as it is looked at.
type Outcome<'a> = Result<&'a Response<ResponseBody>, &'a RequestFailed>;

/// How long to wait before another try; `None` where the upstream asks for more than there is `left`.
fn wait(result: Outcome<'_>, repeat: u32, left: Duration, moment: Moment) -> Option<Duration> {
    let answer = result.ok();
    let asked = answer
        .and_then(|response| limit::asked_pause(response.status(), response.headers(), moment.clock))
        // Soon is what the wait without a time is.
        .filter(|asked| !asked.is_zero());
    match asked {
        Some(asked) if asked > left => None,
        // Those who were refused together should not come back together.
        Some(asked) => Some((asked + (asked / 10).min(MOST_SPREAD).mul_f64(moment.chance)).min(left)),
        None => {
            let longest = FIRST_WAIT
                .saturating_mul(1 << repeat.saturating_sub(1).min(16))
                .min(MOST_WAIT);
            Some(longest.mul_f64(0.5 + moment.chance / 2.0).min(left))
        }
    }
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

const FIRST_WAIT: Duration = Duration::from_millis(200);
const MOST_WAIT: Duration = Duration::from_secs(10);
const MOST_SPREAD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

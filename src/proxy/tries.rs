//! When a request is sent again, and after what wait. No I/O: time and chance are passed in.
//!
//! There are two reasons to send a request again:
//!
//! - *Renewal*: the upstream refused the credential (401), and there is another one. A 401 means that nothing was
//!   done (RFC 9110 section 15.5.2), so any request may be repeated if its body is in memory. It is repeated at once,
//!   and only once after each other try.
//! - *Repeat*: the configuration (`retry`) asks for it, the repeat is safe, and the budget of repeats is not spent.
//!
//! A repeat is safe if no connection could be made, or if the request is idempotent (by its method, or by an
//! Idempotency-Key) and its body is in memory. A 429 is no exception for a POST without a key: the status does not
//! promise that nothing was done (RFC 6585 section 4).
//!
//! Before a repeat we wait as long as the upstream asks for, or a random time that grows from repeat to repeat. All
//! waits of a request together last `max_wait` at most, and not longer than the app waits.

use std::time::{Duration, SystemTime};

use http::header;
use tokio::time::Instant;

use super::RetryPolicy;
use super::attempt::{RetryReason, TryOptions, TryOutcome};
use crate::limit;
use crate::message::{RequestHead, Response};
use crate::upstream::{self, RequestFailed, ResponseBody};
use crate::upstream::{dial, tls};

const FIRST_WAIT: Duration = Duration::from_millis(200);
const MOST_WAIT: Duration = Duration::from_secs(10);
const MOST_SPREAD: Duration = Duration::from_secs(1);

/// The tries of one request.
#[derive(Debug)]
pub(super) struct Tries<'r> {
    /// The last try was a renewal.
    is_renewed: bool,
    /// `None`: the destination has no `retry`.
    repeats: Option<Repeats<'r>>,
}

/// The repeats of one request.
#[derive(Debug)]
struct Repeats<'r> {
    begun: Instant,
    /// How many tries have ended.
    count: u32,
    /// Whether the request is idempotent.
    is_repeatable: bool,
    retry_policy: &'r RetryPolicy,
}

/// A further try.
#[derive(Debug)]
pub(super) struct NextTry<'r> {
    /// Its patience begins now and includes the wait.
    pub(super) options: TryOptions<'r>,
    /// How long to wait before it.
    pub(super) wait: Duration,
}

/// What a decision depends on, apart from the request and its response.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryConditions {
    /// A random number from 0 to 1.
    pub(super) chance: f64,
    pub(super) clock: SystemTime,
    pub(super) now: Instant,
    /// How long the request has waited since its first try.
    pub(super) waited: Duration,
}

impl<'r> Tries<'r> {
    /// Begins a request, and counts it for the budget of repeats.
    pub(super) fn new(policy: Option<&'r RetryPolicy>, head: &RequestHead) -> Self {
        let repeats = policy.map(|policy| {
            let begun = Instant::now();
            policy.begin(begun);
            Repeats {
                begun,
                count: 0,
                // A WebSocket handshake opens a tunnel, in which nothing can be repeated.
                is_repeatable: upstream::is_repeatable(head) && !head.headers.contains_key(header::UPGRADE),
                retry_policy: policy,
            }
        });
        Self {
            is_renewed: false,
            repeats,
        }
    }

    pub(super) fn first(&self) -> TryOptions<'r> {
        TryOptions {
            credential: None,
            earlier: None,
            keeps_body: self.repeats.as_ref().is_some_and(|repeats| repeats.is_repeatable),
            patience: None,
            reason: None,
        }
    }

    /// Returns why another try may follow. `None`: the app gets the result of this one.
    pub(super) fn reason(&self, tried: &TryOutcome<'_>) -> Option<RetryReason> {
        if tried.may_be_renewed && !self.is_renewed {
            return Some(RetryReason::Renewal);
        }
        self.repeats
            .as_ref()?
            .reason(tried.result.as_ref(), tried.has_whole_body)
    }

    /// Decides about another try for this reason.
    pub(super) fn next(
        &mut self,
        reason: RetryReason,
        result: TryResult<'_>,
        head: &RequestHead,
        conditions: RetryConditions,
    ) -> Option<NextTry<'r>> {
        self.is_renewed = reason == RetryReason::Renewal;
        if self.is_renewed {
            let options = TryOptions {
                credential: None,
                earlier: None,
                keeps_body: true,
                patience: None,
                reason: Some(reason),
            };
            let wait = Duration::ZERO;
            return Some(NextTry { options, wait });
        }
        self.repeats.as_mut()?.next(reason, result, head, conditions)
    }
}

impl<'r> Repeats<'r> {
    fn reason(&self, result: TryResult<'_>, has_whole_body: bool) -> Option<RetryReason> {
        let settings = self.retry_policy.settings();
        match result {
            Ok(response)
                if self.is_repeatable
                    && has_whole_body
                    && settings.on.statuses.contains(&response.status()) =>
            {
                Some(RetryReason::Status(response.status()))
            }
            Err(failed) if failed.is_unsent && settings.on.connect && may_recover(&failed.error) => {
                Some(RetryReason::Connect)
            }
            Ok(_) | Err(_) => None,
        }
    }

    fn next(
        &mut self,
        reason: RetryReason,
        result: TryResult<'_>,
        head: &RequestHead,
        conditions: RetryConditions,
    ) -> Option<NextTry<'r>> {
        let settings = self.retry_policy.settings();
        self.count += 1;
        if self.count >= settings.attempts {
            return None;
        }
        let mut left = settings.max_wait.saturating_sub(conditions.waited);
        // The app may have said how long it waits.
        if let Some(its) = limit::deadline(&head.headers) {
            let its = its.saturating_sub(conditions.now - self.begun);
            if its.is_zero() {
                return None;
            }
            left = left.min(its);
        }
        let wait = wait(result, self.count, left, conditions)?;
        let options = TryOptions {
            credential: None,
            earlier: None,
            keeps_body: self.is_repeatable,
            // The next try may have to wait for a limit that we have just learned.
            patience: Some(left),
            reason: Some(reason),
        };
        self.retry_policy
            .spend(conditions.now)
            .then_some(NextTry { options, wait })
    }
}

/// The result of a try, as the decision sees it.
type TryResult<'a> = Result<&'a Response<ResponseBody>, &'a RequestFailed>;

/// Computes the wait before another try. `None`: the upstream asks for more than there is `left`.
fn wait(result: TryResult<'_>, repeat: u32, left: Duration, conditions: RetryConditions) -> Option<Duration> {
    let answer = result.ok();
    let asked = answer
        .and_then(|response| limit::asked_pause(response.status(), response.headers(), conditions.clock))
        // Zero means "soon": take our own wait.
        .filter(|asked| !asked.is_zero());
    match asked {
        Some(asked) if asked > left => None,
        // Spread, so that requests that were refused together do not come back together.
        Some(asked) => Some((asked + (asked / 10).min(MOST_SPREAD).mul_f64(conditions.chance)).min(left)),
        None => {
            let longest = FIRST_WAIT
                .saturating_mul(1 << repeat.saturating_sub(1).min(16))
                .min(MOST_WAIT);
            Some(longest.mul_f64(0.5 + conditions.chance / 2.0).min(left))
        }
    }
}

/// Returns whether a failed connection may succeed a moment later.
fn may_recover(error: &upstream::Error) -> bool {
    match error {
        upstream::Error::Dial(error) => !matches!(error, dial::Error::Empty),
        upstream::Error::Dns(error) => !error.is_final(),
        upstream::Error::Tls(error) => {
            matches!(error, tls::Error::Closed { .. } | tls::Error::Timeout { .. })
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;

//! The life of a token: when it is used, when it is replaced, when the token endpoint is not asked. No lock, no
//! I/O: time and chance are passed in.
//!
//! A token is requested when a request needs it, by one token request at a time. After three quarters of its
//! lifetime the next request starts a token request in the background and uses the old token. An expired or refused
//! token is never used again. After a failure the endpoint is not asked until a backoff is over, which doubles with
//! each failure; meanwhile requests without a token are refused at once. So an endpoint that recovers gets one
//! request, not one from everybody.
//!
//! For a destination without requests no token is requested.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use super::error::{NoToken, TokenFailure};

/// The first wait. The random part halves it at most.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// An endpoint that recovers is noticed within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The longest wait after a refusal. Asking again does not help, and some servers lock out a client that fails
/// often.
const LONGEST_REFUSED: Duration = Duration::from_secs(300);

/// A refusal this long after the last one starts a new series.
const CALM: Duration = Duration::from_secs(300);

/// A token and its times.
#[derive(Debug)]
pub(super) struct Token {
    /// From here on another one is requested.
    pub(super) ageing: Instant,
    /// From here on it is not used.
    pub(super) over: Instant,
    /// The value of Authorization, marked sensitive.
    pub(super) value: HeaderValue,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// The number of the token request under way.
    request: Option<u64>,
    requests: u64,
    last: Option<Arc<TokenFailure>>,
    /// Between token requests, after failures.
    pause: TokenBackoff,
    /// Between tokens that the upstream refused.
    refusals: TokenBackoff,
    token: Option<Token>,
}

/// What a request that needs a token has to do.
#[derive(Debug)]
pub(super) enum TokenStep {
    /// Start a token request with this number and wait for it.
    Request(u64),
    /// Use the token and start a token request with this number.
    UseAndRequest(u64),
    Use,
    Refuse(NoToken),
    /// Wait for the token request under way.
    Wait,
}

/// A wait that doubles each time.
#[derive(Debug, Default)]
struct TokenBackoff {
    times: u32,
    until: Option<Instant>,
}

impl State {
    /// Decides for a request that needs a token `now`.
    pub(super) fn step(&mut self, now: Instant) -> TokenStep {
        let token = self.token.as_ref().filter(|token| now < token.over);
        let is_good = token.is_some();
        let is_fresh = token.is_some_and(|token| now < token.ageing);
        match (self.request, self.pause.left(now)) {
            _ if is_fresh => TokenStep::Use,
            (Some(_), _) if is_good => TokenStep::Use,
            (Some(_), _) => TokenStep::Wait,
            (None, Some(_)) if is_good => TokenStep::Use,
            (None, Some(left)) => match &self.last {
                Some(failure) => TokenStep::Refuse(NoToken::new(failure, left)),
                // Never: every backoff follows a failure.
                None => TokenStep::Request(self.start()),
            },
            (None, None) if is_good => TokenStep::UseAndRequest(self.start()),
            (None, None) => TokenStep::Request(self.start()),
        }
    }

    /// Returns the value to attach `now`.
    pub(super) fn value(&self, now: Instant) -> Option<&HeaderValue> {
        let token = self.token.as_ref().filter(|token| now < token.over)?;
        Some(&token.value)
    }

    /// Stores the token of a request that succeeded. Returns whether the request before it had failed.
    pub(super) fn succeed(&mut self, request: u64, token: Token) -> bool {
        self.end(request);
        self.token = Some(token);
        let has_failed = self.last.take().is_some();
        self.pause = TokenBackoff::default();
        has_failed
    }

    /// Records a failed token request. Returns how long the endpoint is not asked. `chance` is from 0 to 1.
    pub(super) fn fail(
        &mut self,
        request: u64,
        failure: &Arc<TokenFailure>,
        now: Instant,
        chance: f64,
    ) -> Duration {
        self.end(request);
        self.last = Some(Arc::clone(failure));
        let longest = if failure.is_refusal() {
            LONGEST_REFUSED
        } else {
            LONGEST_PAUSE
        };
        self.pause.extend(now, longest, chance);
        if let Some(wish) = failure.retry_after() {
            self.pause.at_least(now, wish.min(LONGEST_REFUSED));
        }
        self.pause.left(now).unwrap_or_default()
    }

    /// Records that a token request was dropped. The next request starts another one.
    pub(super) fn abandon(&mut self, request: u64) {
        self.end(request);
    }

    /// Records that the upstream refused `value`. Returns false if another token was refused shortly before: then
    /// the token is not the reason, and it stays.
    pub(super) fn refuse(&mut self, value: &HeaderValue, now: Instant, chance: f64) -> bool {
        if self.token.as_ref().is_none_or(|token| token.value != *value) {
            // It has been replaced already, or is being replaced.
            return true;
        }
        if self.refusals.left(now).is_some() {
            return false;
        }
        if self
            .refusals
            .until
            .is_some_and(|until| now.duration_since(until) > CALM)
        {
            self.refusals = TokenBackoff::default();
        }
        self.refusals.extend(now, LONGEST_REFUSED, chance);
        self.token = None;
        true
    }

    fn start(&mut self) -> u64 {
        self.requests += 1;
        self.request = Some(self.requests);
        self.requests
    }

    fn end(&mut self, request: u64) {
        if self.request == Some(request) {
            self.request = None;
        }
    }
}

impl TokenBackoff {
    fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Doubles the wait. Its upper half is random, so that instances that failed together do not come back
    /// together.
    fn extend(&mut self, now: Instant, longest: Duration, chance: f64) {
        let whole = SHORTEST_PAUSE
            .saturating_mul(1 << self.times.min(16))
            .min(longest);
        self.times = self.times.saturating_add(1);
        self.until = Some(now + whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0));
    }

    fn at_least(&mut self, now: Instant, wait: Duration) {
        self.until = self.until.max(Some(now + wait));
    }
}

#[cfg(test)]
mod tests;

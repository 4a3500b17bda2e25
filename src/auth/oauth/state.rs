//! The life of a token: when it is used, when another one is asked for, when the token endpoint is left alone. No lock,
//! no I/O; time and chance are passed in.
//!
//! A token is asked for when a request needs one, by one flight at a time. From three quarters of its life on the next
//! request starts the flight and goes on with the token that there is. A token that is over, or was refused, is never
//! given out again. After a failure nobody asks until a pause is over, which doubles from failure to failure: without
//! a token requests are refused meanwhile, at once. So an endpoint that comes back is asked once, not by all who waited.
//!
//! Nothing is asked for a destination that nobody uses.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use super::error::{Failure, NoToken};

/// A token, and until when it is good for what.
#[derive(Debug)]
pub(super) struct Token {
    /// From here on another one is asked for.
    pub(super) ageing: Instant,
    /// From here on it is not attached.
    pub(super) over: Instant,
    /// Of `Authorization`; sensitive.
    pub(super) value: HeaderValue,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// The number of the flight under way.
    flight: Option<u64>,
    flights: u64,
    last: Option<Arc<Failure>>,
    /// Of the token endpoint, after failures.
    pause: Pause,
    /// Between tokens that the upstream refused.
    refusals: Pause,
    token: Option<Token>,
}

/// What a request has to do.
#[derive(Debug)]
pub(super) enum Step {
    /// Start a flight with this number and wait for it.
    Ask(u64),
    /// Use the token; and start a flight with this number.
    GoAndAsk(u64),
    Go,
    Refuse(NoToken),
    /// For the flight that is under way.
    Wait,
}

/// A wait that doubles each time.
#[derive(Debug, Default)]
struct Pause {
    times: u32,
    until: Option<Instant>,
}

impl State {
    /// Decides for a request that needs a token `now`.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        let token = self.token.as_ref().filter(|token| now < token.over);
        let is_good = token.is_some();
        let is_fresh = token.is_some_and(|token| now < token.ageing);
        match (self.flight, self.pause.left(now)) {
            _ if is_fresh => Step::Go,
            (Some(_), _) if is_good => Step::Go,
            (Some(_), _) => Step::Wait,
            (None, Some(_)) if is_good => Step::Go,
            (None, Some(left)) => match &self.last {
                Some(failure) => Step::Refuse(NoToken::new(failure, left)),
                // A pause has a failure before it.
                None => Step::Ask(self.start()),
            },
            (None, None) if is_good => Step::GoAndAsk(self.start()),
            (None, None) => Step::Ask(self.start()),
        }
    }

    /// What is attached `now`.
    pub(super) fn value(&self, now: Instant) -> Option<&HeaderValue> {
        let token = self.token.as_ref().filter(|token| now < token.over)?;
        Some(&token.value)
    }

    /// A flight has brought a token. Whether others had failed before it.
    pub(super) fn land(&mut self, flight: u64, token: Token) -> bool {
        self.end(flight);
        self.token = Some(token);
        let has_failed = self.last.take().is_some();
        self.pause = Pause::default();
        has_failed
    }

    /// A flight has failed; how long the endpoint is left alone. `chance` is from 0 to 1.
    pub(super) fn fail(
        &mut self,
        flight: u64,
        failure: &Arc<Failure>,
        now: Instant,
        chance: f64,
    ) -> Duration {
        self.end(flight);
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

    /// A flight was given up, without news. Whoever comes next starts another one.
    pub(super) fn abandon(&mut self, flight: u64) {
        self.end(flight);
    }

    /// The upstream refused `value`. False: another token was refused a moment ago as well, so that it is not the token;
    /// it stays, and nothing is asked for.
    pub(super) fn refuse(&mut self, value: &HeaderValue, now: Instant, chance: f64) -> bool {
        if self.token.as_ref().is_none_or(|token| token.value != *value) {
            // There is another one since, or there will be.
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
            self.refusals = Pause::default();
        }
        self.refusals.extend(now, LONGEST_REFUSED, chance);
        self.token = None;
        true
    }

    fn start(&mut self) -> u64 {
        self.flights += 1;
        self.flight = Some(self.flights);
        self.flights
    }

    fn end(&mut self, flight: u64) {
        if self.flight == Some(flight) {
            self.flight = None;
        }
    }
}

impl Pause {
    fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// The upper half of the wait is left to chance, so that instances that failed together do not come back together.
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

/// Before chance halves it.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// An endpoint that comes back is found within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What the endpoint refuses is not mended by asking again, and some lock out a client that fails often.
const LONGEST_REFUSED: Duration = Duration::from_secs(300);

/// A token that was good for so long was not refused for the reason of the one before it.
const CALM: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;

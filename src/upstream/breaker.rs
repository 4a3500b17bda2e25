//! Leaving a destination alone that fails.
//!
//! While the circuit is closed, requests pass and what became of them is counted. It opens when so many of them have
//! failed lately as the configuration says, and these were all in a row, or at least half of what came back: a busy
//! destination is not given up for one failure in a hundred, and one that dies is not asked until its good days are
//! forgotten. While it is open, nobody is sent. Then one request tries, and decides for all: others are refused
//! meanwhile, as waiting for its outcome would only pile up what may have to be refused after all.
//!
//! What counts as a failure is decided in [`Outcome`]. A refusal because of a limit (429) is none: the destination
//! works, and the limits deal with it. An answer of 500 is none either: it is most often about the one request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::{Error, dial};
use crate::config::CircuitBreaker;
use crate::telemetry::{Circuit, Counters};
use crate::units;
use crate::window::Window;

/// The circuit to one destination, shared by all workers.
#[derive(Debug)]
pub(crate) struct Breaker {
    counters: Arc<Counters>,
    destination: Arc<str>,
    settings: CircuitBreaker,
    state: Mutex<State>,
}

/// Leave to ask the destination once. Dropped without an [`Outcome`], it counts as nothing, and the place of a request
/// that tries whether the destination works again is free for the next one.
#[derive(Debug)]
pub(crate) struct Passage {
    breaker: Arc<Breaker>,
    /// The state that it was given in: whoever comes back to another one has nothing to say there.
    turn: u64,
    is_told: bool,
}

/// The destination is left alone for now.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "destination {destination} fails and is left alone for now (circuit_breaker); try again in {}",
    humantime::format_duration(*.retry_after)
)]
pub(crate) struct Open {
    destination: Arc<str>,
    /// In whole seconds, at least one.
    pub(crate) retry_after: Duration,
}

/// What an attempt says about the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answers, if only to refuse.
    Works,
    Fails,
    /// Nothing: the failure was ours, or the app's.
    Unknown,
}

#[derive(Debug)]
struct State {
    position: Position,
    /// Grows with every change of the position.
    turn: u64,
}

#[derive(Debug)]
enum Position {
    Closed {
        /// Failures first, then what worked.
        lately: Window,
        failures_in_a_row: u32,
    },
    HalfOpen {
        is_tried: bool,
    },
    Open {
        until: Instant,
    },
}

impl Breaker {
    pub(crate) fn new(settings: CircuitBreaker, destination: &Arc<str>, counters: Arc<Counters>) -> Self {
        counters.circuit(Circuit::Closed);
        Self {
            counters,
            destination: Arc::clone(destination),
            settings,
            state: Mutex::new(State {
                position: Position::closed(&settings, Instant::now()),
                turn: 0,
            }),
        }
    }

    pub(crate) fn settings(&self) -> &CircuitBreaker {
        &self.settings
    }

    /// Whether a request that came `now` would be refused.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        match &self.state().position {
            Position::Closed { .. } => false,
            Position::HalfOpen { is_tried } => *is_tried,
            Position::Open { until } => now < *until,
        }
    }

    /// Lets a request pass, or refuses it at once.
    pub(crate) fn pass(self: &Arc<Self>, now: Instant) -> Result<Passage, Open> {
        let mut state = self.state();
        match &mut state.position {
            Position::Closed { .. } => {}
            Position::HalfOpen { is_tried } if *is_tried => return Err(self.refusal(Duration::ZERO)),
            Position::HalfOpen { is_tried } => *is_tried = true,
            Position::Open { until } if now < *until => return Err(self.refusal(*until - now)),
            Position::Open { .. } => {
                self.turn(&mut state, Position::HalfOpen { is_tried: true });
                tracing::info!(destination = %self.destination, "circuit half open: one request tries");
            }
        }
        Ok(Passage {
            breaker: Arc::clone(self),
            turn: state.turn,
            is_told: false,
        })
    }

    fn tell(&self, turn: u64, outcome: Outcome, now: Instant) {
        let mut state = self.state();
        if state.turn != turn {
            return;
        }
        match (&mut state.position, outcome) {
            (
                Position::Closed {
                    lately,
                    failures_in_a_row,
                },
                Outcome::Works,
            ) => {
                lately.second(now);
                *failures_in_a_row = 0;
            }
            (
                Position::Closed {
                    lately,
                    failures_in_a_row,
                },
                Outcome::Fails,
            ) => {
                lately.first(now);
                *failures_in_a_row = failures_in_a_row.saturating_add(1);
                let counts = lately.counts(now);
                let is_most = *failures_in_a_row >= self.settings.failures || counts.first >= counts.second;
                if counts.first >= self.settings.failures && is_most {
                    self.open(&mut state, counts.first, now);
                }
            }
            (Position::HalfOpen { .. }, Outcome::Works) => {
                self.turn(&mut state, Position::closed(&self.settings, now));
                tracing::info!(destination = %self.destination, "circuit closed: the destination works again");
            }
            (Position::HalfOpen { .. }, Outcome::Fails) => self.open(&mut state, 1, now),
            (Position::HalfOpen { is_tried }, Outcome::Unknown) => *is_tried = false,
            (Position::Closed { .. }, Outcome::Unknown) | (Position::Open { .. }, _) => {}
        }
    }

    fn open(&self, state: &mut State, failures: u32, now: Instant) {
        // No clock can add centuries.
        let until = now + self.settings.open_for;
        self.turn(state, Position::Open { until });
        tracing::warn!(
            destination = %self.destination,
            failures,
            open_for = %humantime::format_duration(self.settings.open_for),
            "circuit open: the destination fails and is left alone",
        );
    }

    fn turn(&self, state: &mut State, position: Position) {
        self.counters.circuit(match position {
            Position::Closed { .. } => Circuit::Closed,
            Position::HalfOpen { .. } => Circuit::HalfOpen,
            Position::Open { .. } => Circuit::Open,
        });
        state.position = position;
        state.turn += 1;
    }

    fn refusal(&self, left: Duration) -> Open {
        Open {
            destination: Arc::clone(&self.destination),
            retry_after: Duration::from_secs(units::retry_after(left)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock; if it did, the state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passage {
    /// Whether it still holds: a circuit that opened while the request waited for something else refuses it after all.
    pub(crate) fn check(&self, now: Instant) -> Result<(), Open> {
        let state = self.breaker.state();
        match &state.position {
            _ if state.turn == self.turn => Ok(()),
            Position::Closed { .. } => Ok(()),
            Position::HalfOpen { .. } => Err(self.breaker.refusal(Duration::ZERO)),
            Position::Open { until } => {
                let left = until.saturating_duration_since(now);
                Err(self.breaker.refusal(left))
            }
        }
    }

    /// What became of the request.
    pub(crate) fn tell(mut self, outcome: Outcome) {
        self.is_told = true;
        self.breaker.tell(self.turn, outcome, Instant::now());
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if !self.is_told {
            self.breaker.tell(self.turn, Outcome::Unknown, Instant::now());
        }
    }
}

impl Outcome {
    /// Of an answer. A 503 may refuse because of a limit, or know when it will be back: asked only of one.
    pub(crate) fn of_answer(status: StatusCode, is_limit: impl FnOnce() -> bool) -> Self {
        match status {
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Self::Fails,
            StatusCode::SERVICE_UNAVAILABLE if !is_limit() => Self::Fails,
            _ => Self::Works,
        }
    }

    /// Of a request that got no answer.
    pub(crate) fn of_error(error: &Error) -> Self {
        match error {
            Error::Dns(_)
            | Error::Incomplete(_)
            | Error::Protocol(_)
            | Error::ResponseTimeout(_)
            | Error::Tls(_)
            | Error::Unprocessed { .. } => Self::Fails,
            // No socket or no memory could be had on this side.
            Error::Dial(dial::Error::Empty | dial::Error::Local { .. }) | Error::NoMemory(_) => Self::Unknown,
            Error::Dial(_) => Self::Fails,
            // What the app sent, or what is configured.
            Error::Denied(_)
            | Error::RequestBody(_)
            | Error::RequestStalled(_)
            | Error::Settings(_)
            | Error::Version => Self::Unknown,
        }
    }
}

impl Position {
    fn closed(settings: &CircuitBreaker, now: Instant) -> Self {
        Self::Closed {
            lately: Window::new(settings.within, now),
            failures_in_a_row: 0,
        }
    }
}

#[cfg(test)]
mod tests;

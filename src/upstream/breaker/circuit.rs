//! The circuit to one host.
//!
//! Closed: requests pass, and their results are counted. It opens when as many have failed lately as the configuration
//! says, and these failed in a row or are at least half of all results: one failure in a hundred does not open it, and a
//! host that dies opens it before its earlier successes are forgotten.
//!
//! Open: no request passes. After `open_for` it is half open: one request tests the host, and its result decides for
//! all. Other requests are refused meanwhile: if they waited, they might have to be refused in the end.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::{CircuitOpen, HostHealth};
use crate::config::CircuitBreaker;
use crate::host::{Host, Target};
use crate::sync::lock;
use crate::telemetry::{self, Counters};
use crate::units;
use crate::window::Window;

/// The circuit to one host and port.
#[derive(Debug)]
pub(super) struct HostCircuit {
    common: Arc<BreakerShared>,
    host: Host,
    port: u16,
    state: Mutex<State>,
}

/// What all circuits of a destination have in common.
#[derive(Debug)]
pub(super) struct BreakerShared {
    counters: Arc<Counters>,
    destination: Arc<str>,
    pub(super) settings: CircuitBreaker,
    tally: Mutex<OpenCounts>,
}

/// How many circuits are not closed. The gauge shows the worst one.
#[derive(Debug, Default)]
struct OpenCounts {
    half_open: usize,
    open: usize,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) position: Position,
    /// Grows with each change of the position.
    pub(super) generation: u64,
}

#[derive(Debug)]
pub(super) enum Position {
    Closed {
        /// Failures (first) and successes (second).
        lately: Window,
        failures_in_a_row: u32,
    },
    HalfOpen {
        is_tried: bool,
        /// Since when a request may test the host.
        since: Instant,
    },
    Open {
        until: Instant,
    },
}

impl HostCircuit {
    pub(super) fn new(common: &Arc<BreakerShared>, target: &Target, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            common: Arc::clone(common),
            host: target.host.clone(),
            port: target.port,
            state: Mutex::new(State {
                position: Position::closed(&common.settings, now),
                generation: 0,
            }),
        })
    }

    pub(super) fn is_of(&self, target: &Target) -> bool {
        self.port == target.port && self.host == target.host
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state().position, Position::Closed { .. })
    }

    /// Whether a request that came `now` would be refused.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        match &self.state().position {
            Position::Closed { .. } => false,
            Position::HalfOpen { is_tried, .. } => *is_tried,
            Position::Open { until } => now < *until,
        }
    }

    /// Permits a request, and returns the generation; or refuses it at once.
    pub(super) fn pass(&self, now: Instant) -> Result<u64, CircuitOpen> {
        let mut state = self.state();
        match &mut state.position {
            Position::Closed { .. } => {}
            Position::HalfOpen { is_tried: true, .. } => return Err(self.refusal(Duration::ZERO)),
            Position::HalfOpen { is_tried, .. } => {
                *is_tried = true;
                self.count_trial();
            }
            Position::Open { until } if now < *until => return Err(self.refusal(*until - now)),
            Position::Open { until } => {
                let half_open = Position::HalfOpen {
                    is_tried: true,
                    since: *until,
                };
                self.change(&mut state, half_open);
                self.count_trial();
            }
        }
        Ok(state.generation)
    }

    /// Refuses a request of `generation` if the circuit has opened since.
    pub(super) fn check(&self, generation: u64, now: Instant) -> Result<(), CircuitOpen> {
        let state = self.state();
        match &state.position {
            _ if state.generation == generation => Ok(()),
            Position::Closed { .. } => Ok(()),
            Position::HalfOpen { .. } => Err(self.refusal(Duration::ZERO)),
            Position::Open { until } => Err(self.refusal(until.saturating_duration_since(now))),
        }
    }

    /// Takes the report about a request of `generation`.
    pub(super) fn report(&self, generation: u64, outcome: HostHealth, now: Instant) {
        let mut state = self.state();
        if state.generation != generation {
            return;
        }
        match (&mut state.position, outcome) {
            (
                Position::Closed {
                    lately,
                    failures_in_a_row,
                },
                HostHealth::Works,
            ) => {
                lately.second(now);
                *failures_in_a_row = 0;
            }
            (
                Position::Closed {
                    lately,
                    failures_in_a_row,
                },
                HostHealth::Fails,
            ) => {
                lately.first(now);
                *failures_in_a_row = failures_in_a_row.saturating_add(1);
                let counts = lately.counts(now);
                let is_most =
                    *failures_in_a_row >= self.common.settings.failures || counts.first >= counts.second;
                if counts.first >= self.common.settings.failures && is_most {
                    self.open(&mut state, counts.first, now);
                }
            }
            (Position::HalfOpen { .. }, HostHealth::Works) => {
                self.close(&mut state, now);
                tracing::info!(destination = %self.common.destination, host = %self, "circuit closed: the host works again");
            }
            (Position::HalfOpen { .. }, HostHealth::Fails) => self.open(&mut state, 1, now),
            (Position::HalfOpen { is_tried, .. }, HostHealth::Unknown) => *is_tried = false,
            (Position::Closed { .. }, HostHealth::Unknown) | (Position::Open { .. }, _) => {}
        }
    }

    /// Opens it by half where a request that came `now` might try: without one it would be shown as open for ever.
    pub(super) fn expire(&self, now: Instant) {
        let mut state = self.state();
        if let Position::Open { until: since } = state.position
            && since <= now
        {
            let is_tried = false;
            self.change(&mut state, Position::HalfOpen { is_tried, since });
        }
    }

    /// Closes it where nobody has asked since a request might have tried, for so long that failures do not count any more.
    pub(super) fn forget(&self, now: Instant) {
        let mut state = self.state();
        if let Position::HalfOpen {
            is_tried: false,
            since,
        } = state.position
            && now.saturating_duration_since(since) >= self.common.settings.within
        {
            self.close(&mut state, now);
            tracing::info!(destination = %self.common.destination, host = %self, "circuit closed: nobody asks the host any more");
        }
    }

    fn close(&self, state: &mut State, now: Instant) {
        self.change(state, Position::closed(&self.common.settings, now));
    }

    fn open(&self, state: &mut State, failures: u32, now: Instant) {
        // No clock can add centuries.
        let until = now + self.common.settings.open_for;
        self.change(state, Position::Open { until });
        tracing::warn!(
            destination = %self.common.destination,
            host = %self,
            failures,
            open_for = %humantime::format_duration(self.common.settings.open_for),
            "circuit open: the host fails and is left alone",
        );
    }

    fn change(&self, state: &mut State, position: Position) {
        self.common.moved(&state.position, Some(&position));
        state.position = position;
        state.generation += 1;
    }

    fn count_trial(&self) {
        tracing::info!(destination = %self.common.destination, host = %self, "circuit half open: one request tries");
    }

    fn refusal(&self, left: Duration) -> CircuitOpen {
        CircuitOpen {
            destination: Arc::clone(&self.common.destination),
            host: self.to_string(),
            retry_after: Duration::from_secs(units::retry_after(left)),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for HostCircuit {
    fn drop(&mut self) {
        self.common.moved(&self.state().position, None);
    }
}

/// `host:port`.
impl fmt::Display for HostCircuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl BreakerShared {
    pub(super) fn new(
        settings: CircuitBreaker,
        destination: &Arc<str>,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        let common = Self {
            counters,
            destination: Arc::clone(destination),
            settings,
            tally: Mutex::default(),
        };
        common.show();
        Arc::new(common)
    }

    /// Sets the gauge.
    pub(super) fn show(&self) {
        self.show_gauge(&self.tally());
    }

    /// A circuit has another position now; `None`: it is not there any more.
    fn moved(&self, from: &Position, to: Option<&Position>) {
        let mut tally = self.tally();
        if let Some(count) = tally.of(from) {
            *count -= 1;
        }
        if let Some(count) = to.and_then(|position| tally.of(position)) {
            *count += 1;
        }
        self.show_gauge(&tally);
    }

    /// Under the lock: what is shown last is what is true.
    fn show_gauge(&self, tally: &OpenCounts) {
        self.counters.circuit(match tally {
            OpenCounts { open: 1.., .. } => telemetry::CircuitState::Open,
            OpenCounts { half_open: 1.., .. } => telemetry::CircuitState::HalfOpen,
            OpenCounts { .. } => telemetry::CircuitState::Closed,
        });
    }

    fn tally(&self) -> MutexGuard<'_, OpenCounts> {
        lock(&self.tally)
    }
}

impl OpenCounts {
    /// What counts circuits in this position; nothing counts closed ones.
    fn of(&mut self, position: &Position) -> Option<&mut usize> {
        match position {
            Position::Closed { .. } => None,
            Position::HalfOpen { .. } => Some(&mut self.half_open),
            Position::Open { .. } => Some(&mut self.open),
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

//! The circuit breaker: sends no requests to a host that fails.
//!
//! Each host and port of a destination has its [`HostCircuit`], because one that fails says nothing about another one.
//! [`HostHealth`] decides what counts as a failure. A refusal because of a limit (429) does not count: the host works, and
//! the limits handle it. Neither does an answer of 500: it is usually about the one request.

use std::collections::hash_map::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use hashlink::LruCache;
use http::StatusCode;
use tokio::time::Instant;

use self::circuit::{BreakerShared, HostCircuit};
use super::{Error, dial};
use crate::config::CircuitBreaker;
use crate::host::{Host, Target};
use crate::sync::lock;
use crate::telemetry::Counters;

mod circuit;
#[cfg(test)]
mod tests;

/// The most hosts beside the first. Beyond it the least recently used one is forgotten, closed circuits before others.
const MOST: usize = 256;

/// The circuits of one destination, shared by all workers.
#[derive(Debug)]
pub(crate) struct Breaker {
    common: Arc<BreakerShared>,
    /// The circuit of the first host. Most destinations have only one, so it is found without a lock.
    first: OnceLock<Arc<HostCircuit>>,
    others: Mutex<Circuits>,
}

/// By host and port, the least recently used one first.
type Circuits = LruCache<(Host, u16), Arc<HostCircuit>, RandomState>;

/// Permission to send one request to a host. If it is dropped without a report, it counts as [`HostHealth::Unknown`]: a
/// request that was to test a failed host is then replaced by the next one.
#[derive(Debug)]
pub(crate) struct CircuitPermit {
    circuit: Arc<HostCircuit>,
    /// The circuit's generation when the permit was given. Reports from an earlier generation are ignored.
    generation: u64,
    is_reported: bool,
}

/// The circuit of the host is open: no request is sent for now.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{host} of destination {destination} fails and is left alone for now (circuit_breaker); try again in {}",
    humantime::format_duration(*.retry_after)
)]
pub(crate) struct CircuitOpen {
    destination: Arc<str>,
    /// With its port.
    host: String,
    /// In whole seconds, at least one.
    pub(crate) retry_after: Duration,
}

/// What a request says about its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostHealth {
    /// It answers, also if it refuses.
    Works,
    Fails,
    /// Nothing: the failure was on our side or the app's.
    Unknown,
}

impl Breaker {
    pub(crate) fn new(settings: CircuitBreaker, destination: &Arc<str>, counters: Arc<Counters>) -> Self {
        Self {
            common: BreakerShared::new(settings, destination, counters),
            first: OnceLock::new(),
            others: Mutex::new(LruCache::with_hasher(usize::MAX, RandomState::new())),
        }
    }

    pub(crate) fn settings(&self) -> &CircuitBreaker {
        &self.common.settings
    }

    /// Whether a request to `target` that came `now` would be refused.
    pub(crate) fn is_open(&self, target: &Target, now: Instant) -> bool {
        match self.first.get() {
            Some(first) if first.is_of(target) => first.is_open(now),
            Some(_) | None => {
                let circuit = self.others().get(&key(target)).cloned();
                circuit.is_some_and(|circuit| circuit.is_open(now))
            }
        }
    }

    /// Permits a request to `target`, or refuses it at once.
    pub(crate) fn pass(&self, target: &Target, now: Instant) -> Result<CircuitPermit, CircuitOpen> {
        let new = || HostCircuit::new(&self.common, target, now);
        let first = self.first.get_or_init(new);
        let circuit = if first.is_of(target) {
            Arc::clone(first)
        } else {
            self.of_another(target, new)
        };
        let generation = circuit.pass(now)?;
        Ok(CircuitPermit {
            circuit,
            generation,
            is_reported: false,
        })
    }

    /// Updates the gauge. With several hosts, one that failed and gets no more requests is forgotten after a while: a name
    /// that was mistyped once must not be shown as open for ever.
    pub(crate) fn observe(&self, now: Instant) {
        let others: Vec<_> = (self.others().iter())
            .map(|(_, circuit)| Arc::clone(circuit))
            .collect();
        for circuit in self.first.get().into_iter().chain(&others) {
            circuit.expire(now);
            if !others.is_empty() {
                circuit.forget(now);
            }
        }
        self.common.show();
    }

    fn of_another(&self, target: &Target, new: impl FnOnce() -> Arc<HostCircuit>) -> Arc<HostCircuit> {
        let (mut others, key) = (self.others(), key(target));
        if let Some(circuit) = others.get(&key) {
            return Arc::clone(circuit);
        }
        if others.len() >= MOST {
            let closed = others.iter().find(|(_, circuit)| circuit.is_closed());
            match closed.map(|(key, _)| key.clone()) {
                Some(key) => drop(others.remove(&key)),
                None => drop(others.remove_lru()),
            }
        }
        let circuit = new();
        others.insert(key, Arc::clone(&circuit));
        circuit
    }

    fn others(&self) -> MutexGuard<'_, Circuits> {
        lock(&self.others)
    }
}

impl CircuitPermit {
    /// Refuses the request if the circuit has opened since the permit was given.
    pub(crate) fn check(&self, now: Instant) -> Result<(), CircuitOpen> {
        self.circuit.check(self.generation, now)
    }

    /// Reports what the request says about the host.
    pub(crate) fn report(mut self, outcome: HostHealth) {
        self.is_reported = true;
        self.circuit.report(self.generation, outcome, Instant::now());
    }
}

impl Drop for CircuitPermit {
    fn drop(&mut self) {
        if !self.is_reported {
            self.circuit
                .report(self.generation, HostHealth::Unknown, Instant::now());
        }
    }
}

impl HostHealth {
    /// Judges an answer. `is_limit` is called only for a 503: whether it refuses because of a limit, or says when to return.
    pub(crate) fn of_answer(status: StatusCode, is_limit: impl FnOnce() -> bool) -> Self {
        match status {
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Self::Fails,
            StatusCode::SERVICE_UNAVAILABLE if !is_limit() => Self::Fails,
            _ => Self::Works,
        }
    }

    /// Judges a request that got no answer.
    pub(crate) fn of_error(error: &Error) -> Self {
        match error {
            Error::CutShort { .. }
            | Error::Dns(_)
            | Error::Incomplete(_)
            | Error::ResponseTimeout(_)
            | Error::Tls(_)
            | Error::Unreadable(_)
            | Error::Unprocessed { .. } => Self::Fails,
            // There was no socket or no memory on our side.
            Error::Dial(dial::Error::Empty | dial::Error::Local { .. }) | Error::NoMemory(_) => Self::Unknown,
            Error::Dial(_) => Self::Fails,
            // A parent that fails says nothing about the hosts behind it.
            Error::Parent(error) if error.is_failure_of_target() => Self::Fails,
            Error::Parent(_) => Self::Unknown,
            // The fault is in the request or in the configuration.
            Error::Denied(_)
            | Error::LengthUnknown
            | Error::ParentSettings(_)
            | Error::RequestBody(_)
            | Error::RequestStalled(_)
            | Error::Settings(_)
            | Error::Version => Self::Unknown,
        }
    }
}

fn key(target: &Target) -> (Host, u16) {
    (target.host.clone(), target.port)
}

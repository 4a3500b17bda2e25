//! Leaving a host alone that fails.
//!
//! Each host and port of a destination has a [`Circuit`] of its own, as one that fails says nothing of another one.
//! What counts as a failure is decided in [`Outcome`]. A refusal because of a limit (429) is none: the destination
//! works, and the limits deal with it. An answer of 500 is none either: it is most often about the one request.

use std::collections::hash_map::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use hashlink::LruCache;
use http::StatusCode;
use tokio::time::Instant;

use self::circuit::{Circuit, Common};
use super::{Error, dial};
use crate::config::CircuitBreaker;
use crate::host::{Host, Target};
use crate::sync::lock;
use crate::telemetry::Counters;

mod circuit;
#[cfg(test)]
mod tests;

/// The circuits of one destination, shared by all workers.
#[derive(Debug)]
pub(crate) struct Breaker {
    common: Arc<Common>,
    /// Of the host that was asked first. Most destinations have one only, so it is found without a lock.
    first: OnceLock<Arc<Circuit>>,
    others: Mutex<Circuits>,
}

/// By host and port, the least recently used one first.
type Circuits = LruCache<(Host, u16), Arc<Circuit>, RandomState>;

/// Leave to ask a host once. Dropped without an [`Outcome`], it counts as nothing, and the place of a request that tries
/// whether the host works again is free for the next one.
#[derive(Debug)]
pub(crate) struct Passage {
    circuit: Arc<Circuit>,
    /// The state that it was given in: whoever comes back to another one has nothing to say there.
    turn: u64,
    is_told: bool,
}

/// The host is left alone for now.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{host} of destination {destination} fails and is left alone for now (circuit_breaker); try again in {}",
    humantime::format_duration(*.retry_after)
)]
pub(crate) struct Open {
    destination: Arc<str>,
    /// With its port.
    host: String,
    /// In whole seconds, at least one.
    pub(crate) retry_after: Duration,
}

/// What an attempt says about the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answers, if only to refuse.
    Works,
    Fails,
    /// Nothing: the failure was ours, or the app's.
    Unknown,
}

impl Breaker {
    pub(crate) fn new(settings: CircuitBreaker, destination: &Arc<str>, counters: Arc<Counters>) -> Self {
        Self {
            common: Common::new(settings, destination, counters),
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

    /// Lets a request to `target` pass, or refuses it at once.
    pub(crate) fn pass(&self, target: &Target, now: Instant) -> Result<Passage, Open> {
        let new = || Circuit::new(&self.common, target, now);
        let first = self.first.get_or_init(new);
        let circuit = if first.is_of(target) {
            Arc::clone(first)
        } else {
            self.of_another(target, new)
        };
        let turn = circuit.pass(now)?;
        Ok(Passage {
            circuit,
            turn,
            is_told: false,
        })
    }

    /// Brings the gauge up to date. Where there are several hosts, one that failed and is not asked again is forgotten
    /// after a while: a name that was mistyped once must not be shown as open for ever.
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

    fn of_another(&self, target: &Target, new: impl FnOnce() -> Arc<Circuit>) -> Arc<Circuit> {
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

impl Passage {
    /// Whether it still holds: a circuit that opened while the request waited for something else refuses it after all.
    pub(crate) fn check(&self, now: Instant) -> Result<(), Open> {
        self.circuit.check(self.turn, now)
    }

    /// What became of the request.
    pub(crate) fn tell(mut self, outcome: Outcome) {
        self.is_told = true;
        self.circuit.tell(self.turn, outcome, Instant::now());
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if !self.is_told {
            self.circuit.tell(self.turn, Outcome::Unknown, Instant::now());
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
            Error::CutShort { .. }
            | Error::Dns(_)
            | Error::Incomplete(_)
            | Error::ResponseTimeout(_)
            | Error::Tls(_)
            | Error::Unreadable(_)
            | Error::Unprocessed { .. } => Self::Fails,
            // No socket or no memory could be had on this side.
            Error::Dial(dial::Error::Empty | dial::Error::Local { .. }) | Error::NoMemory(_) => Self::Unknown,
            Error::Dial(_) => Self::Fails,
            // What the app sent, or what is configured.
            Error::Denied(_)
            | Error::LengthUnknown
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

/// So many hosts are known beside the first. Then the least recently used one is forgotten, closed circuits before others.
const MOST: usize = 256;

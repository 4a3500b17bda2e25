//! What is told: the registry of metrics, the one record of an exchange, the log.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, Uri};

pub(crate) mod log;

/// Every metric family, registered once. Cloning the `Arc` shares them.
#[derive(Debug)]
pub(crate) struct Telemetry {
    // private
}

/// The metric handles of one destination, looked up once when the policy is compiled.
#[derive(Debug)]
pub(crate) struct Counters {
    // handles that other areas touch directly are pub(crate) fields, for example tunnels_open
}

/// Who gave the answer: the `answered_by` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnsweredBy {
    Outrider,
    Upstream,
}

/// One request and what became of it: born at the door, written once, on drop.
#[derive(Debug)]
pub(crate) struct Exchange {
    // private
}

impl Telemetry {
    pub(crate) fn new() -> Arc<Self> {
        todo!()
    }

    /// The handles of one destination; the same `Arc` for the same name.
    pub(crate) fn counters(&self, destination: &str) -> Arc<Counters> {
        todo!("{destination}")
    }

    /// The Prometheus text format.
    pub(crate) fn render(&self) -> Vec<u8> {
        todo!()
    }
}

impl Exchange {
    /// Starts the clock. Counted under `none` until a destination is known.
    pub(crate) fn begin(telemetry: &Arc<Telemetry>, method: &Method, uri: &Uri) -> Self {
        todo!("{telemetry:?} {method} {uri}")
    }

    /// The destination is known: in flight there from now on.
    pub(crate) fn bound_for(&mut self, counters: &Arc<Counters>) {
        todo!("{counters:?}")
    }

    /// Time spent waiting for a limit, before the upstream was asked.
    pub(crate) fn waited(&mut self, wait: Duration) {
        todo!("{wait:?}")
    }

    /// Outrider's own work pauses: the upstream has the request now (or is being connected to).
    pub(crate) fn asked_upstream(&mut self) {
        todo!()
    }

    /// The upstream's response head is in: outrider's own work resumes.
    pub(crate) fn upstream_answered(&mut self, status: StatusCode) {
        todo!("{status}")
    }

    /// An answer of ours, with the RFC 9209 error type and, for a refusal by policy, its reason.
    pub(crate) fn refused(&mut self, status: StatusCode, error: &'static str, reason: Option<&'static str>) {
        todo!("{status} {error} {reason:?}")
    }

    /// The response head goes to the app: outrider's own work is done but for the bytes.
    pub(crate) fn answered(&mut self) {
        todo!()
    }

    /// Body bytes from the app.
    pub(crate) fn sent(&mut self, bytes: u64) {
        todo!("{bytes}")
    }

    /// Body bytes to the app.
    pub(crate) fn received(&mut self, bytes: u64) {
        todo!("{bytes}")
    }

    /// The body was cut after the head had gone out: the RFC 9209 error type.
    pub(crate) fn cut(&mut self, error: &'static str) {
        todo!("{error}")
    }
}

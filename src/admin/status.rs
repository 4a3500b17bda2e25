//! The page /status: the state of this process, and what it assumes about the limits of each destination.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::{Pages, ProcessState};
use crate::units::rfc3339;

/// Builds one JSON object. A destination with a pool of credentials has an entry for each of them, by its index.
pub(super) fn page(pages: &Pages) -> String {
    let mut destinations = BTreeMap::<String, Vec<Value>>::new();
    for (name, belief) in pages.limits.learned_limits() {
        let (destination, credential) = match name.split_once('/') {
            None => (&*name, None),
            Some((destination, place)) => (destination, Some(place)),
        };
        let mut belief = belief.json();
        belief["credential"] = credential.into();
        destinations
            .entry(destination.to_owned())
            .or_default()
            .push(belief);
    }
    let state = match ProcessState::of(&pages.drain) {
        ProcessState::Ready => "ready",
        ProcessState::Draining => "draining",
        ProcessState::ShortOfMemory => "short of memory",
    };
    let up = SystemTime::now()
        .duration_since(pages.started)
        .unwrap_or_default();
    let page = json!({
        "outrider": env!("CARGO_PKG_VERSION"),
        "state": state,
        "started": rfc3339(pages.started),
        "uptime_seconds": up.as_secs(),
        "limits_now": destinations,
        "refusals": pages.telemetry.refusals(),
    });
    format!("{page:#}\n")
}

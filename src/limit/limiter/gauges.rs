//! The metrics of one destination's limits.

use tokio::time::Instant;

use super::{Limiter, epoch_seconds};
use crate::limit::refusal::LimitInfo;
use crate::telemetry::LimitHandles;

impl Limiter {
    /// Sets the gauges of what is left.
    pub(in crate::limit) fn observe(&self) {
        let state = self.state();
        let now = self.nanos(Instant::now());
        if let Some(handles) = self.handles.get() {
            let (rates, slots) = handles.split_at(self.rates.len());
            for (index, rate) in rates.iter().enumerate() {
                rate.remaining(state.rate_left(&self.rules, index, now));
            }
            if let (Some(slots), Some(most)) = (slots.first(), self.rules.slots) {
                let taken = f64::from(state.slots_taken()) / f64::from(most.max(1));
                slots.remaining(1.0 - taken);
            }
        }
        let Some(learned) = state.learned() else { return };
        if let Some(ratio) = learned.ratio(now) {
            self.learned().remaining(ratio);
        }
        self.set_pause_gauge(learned.paused_until(now), now);
    }

    /// Sets the gauge of the pause. A pause of one of several credentials does not hold the destination, so it is
    /// not shown.
    pub(super) fn set_pause_gauge(&self, until: Option<u64>, now: u64) {
        if self.settings.member.is_none() {
            self.counters
                .paused_until(until.map_or(0, |until| epoch_seconds(until, now)));
        }
    }

    /// Returns the metrics of the configured limits, which the first call puts on the page.
    pub(super) fn handles(&self) -> &[LimitHandles] {
        self.handles.get_or_init(|| {
            let rates = self.rates.iter().map(|rate| &rate.info);
            let labels = rates.chain(&self.slots).map(|info| &info.label);
            labels.map(|label| self.counters.limit(label)).collect()
        })
    }

    /// Returns those of the learned limits.
    pub(super) fn learned(&self) -> &LimitHandles {
        self.learned.get_or_init(|| match &self.settings.member {
            None => self.counters.limit(LimitInfo::LEARNED),
            Some(place) => self.counters.limit(&format!("{} {place}", LimitInfo::LEARNED)),
        })
    }
}

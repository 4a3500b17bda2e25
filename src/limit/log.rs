//! Log lines about the upstream's limits: one for each refusal and for each change of a guessed rate.
//!
//! An upstream may refuse a thousand times in a second. The first refusal is logged at once; the others are
//! counted, and the count is logged with the next line, a second later at the earliest. Malformed fields are
//! logged once a minute, because an upstream may send them in every answer.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::hints::Hints;
use super::learned::LearnedEvent;
use crate::telemetry::LogSampler;

/// What has been logged about one destination, and when.
#[derive(Debug, Default)]
pub(super) struct LimitLog {
    bad_field: LogSampler,
    /// The rate that was logged last.
    per_second: Option<f64>,
    refusals: LogSampler,
}

impl LimitLog {
    pub(super) fn record(
        &mut self,
        destination: &Arc<str>,
        status: StatusCode,
        hints: &Hints,
        event: Option<LearnedEvent>,
        now: u64,
    ) {
        if hints.is_refusal
            && let Some(untold) = self.refusals.due(INTERVAL, now)
        {
            let pause = match event {
                Some(LearnedEvent::Paused(pause) | LearnedEvent::Guessed(pause, _)) => Some(seconds(pause)),
                Some(LearnedEvent::Forgotten) | None => None,
            };
            let code = status.as_u16();
            tracing::warn!(%destination, code, pause, untold, "the upstream refused because of a limit");
        }
        match event {
            Some(LearnedEvent::Guessed(_, Some(rate))) if self.per_second != Some(rate) => {
                self.per_second = Some(rate);
                tracing::info!(%destination, rate, why = "refused without a time", "learned rate changed");
            }
            Some(LearnedEvent::Forgotten) => {
                self.per_second = None;
                tracing::info!(%destination, why = "nobody has waited for it", "learned rate forgotten");
            }
            Some(LearnedEvent::Paused(_) | LearnedEvent::Guessed(..)) | None => {}
        }
        if let Some(bad_field) = hints.bad_field
            && let Some(untold) = self.bad_field.due(60 * INTERVAL, now)
        {
            let (field, why) = (bad_field.field, bad_field.why);
            tracing::warn!(%destination, field, why, untold, "a field about limits makes no sense");
        }
    }
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Nanoseconds.
const INTERVAL: u64 = 1_000_000_000;

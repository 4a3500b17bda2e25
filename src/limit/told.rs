//! What is told of an upstream's limits: a line in the log for each refusal and for each change of what is kept to.
//!
//! An upstream that refuses a thousand times in a second makes one line of it: the first is told at once, the others
//! are counted and told with the next, a second later at the earliest. What made no sense is told once a minute, because
//! an upstream that errs may do so in every answer.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::hints::Hints;
use super::learned::News;
use crate::telemetry::LogSampler;

/// What has been told of one destination, and when.
#[derive(Debug, Default)]
pub(super) struct Told {
    nonsense: LogSampler,
    /// The rate that was told last.
    per_second: Option<f64>,
    refusals: LogSampler,
}

impl Told {
    pub(super) fn tell(
        &mut self,
        destination: &Arc<str>,
        status: StatusCode,
        hints: &Hints,
        news: Option<News>,
        now: u64,
    ) {
        if hints.is_refusal
            && let Some(untold) = self.refusals.due(INTERVAL, now)
        {
            let pause = match news {
                Some(News::Stopped(pause) | News::Guessed(pause, _)) => Some(seconds(pause)),
                Some(News::Forgotten) | None => None,
            };
            let code = status.as_u16();
            tracing::warn!(%destination, code, pause, untold, "the upstream refused because of a limit");
        }
        match news {
            Some(News::Guessed(_, Some(rate))) if self.per_second != Some(rate) => {
                self.per_second = Some(rate);
                tracing::info!(%destination, rate, why = "refused without a time", "learned rate changed");
            }
            Some(News::Forgotten) => {
                self.per_second = None;
                tracing::info!(%destination, why = "nobody has waited for it", "learned rate forgotten");
            }
            Some(News::Stopped(_) | News::Guessed(..)) | None => {}
        }
        if let Some(nonsense) = hints.nonsense
            && let Some(untold) = self.nonsense.due(60 * INTERVAL, now)
        {
            let (field, why) = (nonsense.field, nonsense.why);
            tracing::warn!(%destination, field, why, untold, "a field about limits makes no sense");
        }
    }
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Nanoseconds.
const INTERVAL: u64 = 1_000_000_000;

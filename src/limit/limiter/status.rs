//! What has been learned about one destination's limits, for people.

use std::time::Duration;

use tokio::time::Instant;

use super::Limiter;
use crate::limit::chance;
use crate::limit::learned::LearnedSnapshot;
use crate::limit::status::{LearnedFrom, LimitStatus, QuotaLeft};

impl Limiter {
    /// Returns everything learned about the upstream's limits, as of now.
    pub(in crate::limit) fn learned_limits(&self) -> Vec<LimitStatus> {
        let now = self.nanos(Instant::now());
        let snapshot = self.state().learned().map(|learned| learned.snapshot(now));
        let clock = chance::time_of_day();
        let time = |moment: u64| match moment.checked_sub(now) {
            Some(ahead) => clock + Duration::from_nanos(ahead),
            None => clock - Duration::from_nanos(now - moment),
        };
        let limit = |snapshot: LearnedSnapshot| LimitStatus {
            host: snapshot.host.into(),
            concerns: snapshot.concerns,
            name: snapshot.name.into(),
            paused_until: snapshot.paused_until.map(time),
            quota: snapshot.left.map(|left| QuotaLeft {
                left: snapshot.limit.map_or(left, |limit| left.min(limit)),
                limit: snapshot.limit,
                whole_at: snapshot.resets.map(time),
            }),
            guessed_rate: snapshot.per_second,
            learned_from: LearnedFrom {
                method: snapshot.evidence.method.to_string(),
                path: snapshot.evidence.path.into(),
                status: snapshot.evidence.status.as_u16(),
                field: snapshot.evidence.field.into(),
                at: time(snapshot.evidence.at),
            },
        };
        snapshot.into_iter().flatten().map(limit).collect()
    }
}

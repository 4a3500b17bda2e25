//! What is believed of one destination's limits, for people.

use std::time::Duration;

use tokio::time::Instant;

use super::Limiter;
use crate::limit::chance;
use crate::limit::learned::Known;
use crate::limit::status::{Belief, QuotaLeft, ToldBy};

impl Limiter {
    /// What is believed of the upstream's limits now.
    pub(in crate::limit) fn beliefs(&self) -> Vec<Belief> {
        let now = self.nanos(Instant::now());
        let known = self.book().learned().map(|learned| learned.known(now));
        let clock = chance::time_of_day();
        let time = |moment: u64| match moment.checked_sub(now) {
            Some(ahead) => clock + Duration::from_nanos(ahead),
            None => clock - Duration::from_nanos(now - moment),
        };
        let belief = |known: Known| Belief {
            host: known.host.into(),
            concerns: known.concerns,
            name: known.name.into(),
            paused_until: known.paused_until.map(time),
            quota: known.left.map(|left| QuotaLeft {
                left: known.limit.map_or(left, |limit| left.min(limit)),
                limit: known.limit,
                whole_at: known.resets.map(time),
            }),
            guessed_rate: known.per_second,
            told_by: ToldBy {
                method: known.source.method.to_string(),
                path: known.source.path.into(),
                status: known.source.status.as_u16(),
                field: known.source.field.into(),
                at: time(known.source.at),
            },
        };
        known.into_iter().flatten().map(belief).collect()
    }
}

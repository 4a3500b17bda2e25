//! Forecasts when a request may go, and lists what has been learned for the status page.

use super::{CallerLimits, MOST_LIMITS};
use crate::limit::gcra::Gcra;
use crate::limit::learned::route::RoutePattern;
use crate::limit::learned::{LearnedSnapshot, ReportedQuota};

/// When a request may go, as far as the limits of one caller show: requests that go before it, and the level of
/// each guessed rate.
#[derive(Debug)]
pub(in crate::limit::learned) struct CallerForecast {
    before: [u64; MOST_LIMITS],
    rates: [Option<(Gcra, u64)>; MOST_LIMITS],
}

impl CallerLimits {
    pub(in crate::limit::learned) fn ratio(&self, now: u64) -> Option<f64> {
        let ratios = self.all().filter_map(|(_, limit)| limit.quota.ratio(now));
        ratios.reduce(f64::min)
    }

    /// Returns until when requests are held: by a pause, or by a quota of which nothing is left.
    pub(in crate::limit::learned) fn paused_until(&self) -> Option<u64> {
        self.all()
            .filter_map(|(_, limit)| limit.quota.exhausted_until())
            .max()
    }

    pub(in crate::limit::learned) fn snapshot(&self, now: u64) -> impl Iterator<Item = LearnedSnapshot> {
        self.all()
            .filter(move |(_, limit)| !limit.is_idle(now))
            .map(move |(_, limit)| LearnedSnapshot {
                host: self.host.clone(),
                concerns: limit.scope.words(&limit.evidence.path),
                name: limit.name.clone(),
                paused_until: limit.quota.exhausted_until().filter(|until| *until > now),
                left: limit.quota.is_reported().then(|| limit.quota.left()),
                limit: limit.quota.limit,
                resets: limit.quota.resets(),
                per_second: limit.guess.per_second(),
                evidence: limit.evidence.clone(),
            })
    }

    pub(in crate::limit::learned) fn forecast(&self) -> CallerForecast {
        let mut forecast = CallerForecast {
            before: [0; MOST_LIMITS],
            rates: [None; MOST_LIMITS],
        };
        for (index, limit) in self.all() {
            forecast.rates[index] = limit.guess.forecast();
        }
        forecast
    }

    /// Returns when a request of `route` may go after those already in the forecast, and the quota that decides.
    pub(in crate::limit::learned) fn when(
        &self,
        forecast: &CallerForecast,
        route: &RoutePattern,
        now: u64,
    ) -> (u64, ReportedQuota) {
        let mut until = now;
        let mut reported = ReportedQuota::default();
        let applying = self.applying_to(route);
        for (index, limit) in self.all().filter(|(index, _)| applying.contains(*index)) {
            let mut when = limit.quota.when(forecast.before[index], now);
            if let Some((rate, level)) = forecast.rates[index] {
                when = when.max(rate.earliest(level));
            }
            if when > until || (when >= until && reported.limit.is_none()) {
                reported = ReportedQuota {
                    limit: limit.quota.limit,
                    window: limit.quota.window(),
                };
            }
            until = until.max(when);
        }
        (until, reported)
    }

    /// Adds a request of `route` that is sent at this moment.
    pub(in crate::limit::learned) fn add_sent(
        &self,
        forecast: &mut CallerForecast,
        route: &RoutePattern,
        at: u64,
    ) {
        let applying = self.applying_to(route);
        for index in (0..MOST_LIMITS).filter(|index| applying.contains(*index)) {
            forecast.before[index] += 1;
            if let Some((rate, level)) = &mut forecast.rates[index] {
                *level = rate.taken(*level, at);
            }
        }
    }
}

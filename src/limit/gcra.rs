//! One rate: when may the next request go?
//!
//! This is the generic cell rate algorithm. A bucket is one number, its level: the moment at which the whole
//! burst will be free again. Each request raises the level by one period, and the next may go while the level is at most the
//! tolerance ahead of now. So a burst passes after a quiet time, and then the rate holds, without a counter or
//! the edge of a window.
//!
//! Times are nanoseconds since the limiter was made. Everything saturates: 584 years fit. No clock, no lock, no
//! I/O.

use crate::units::{self, Rate};

/// A moment that never comes: what a rate of zero waits for.
pub(super) const NEVER: u64 = u64::MAX;

/// A rate in the form that the algorithm uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gcra {
    /// The time between two requests at the full rate, rounded up, so that the rate is never exceeded.
    period: u64,
    /// How far the level may be ahead of now when a request goes: as many periods as the burst has requests, less
    /// one.
    tolerance: u64,
    burst: u32,
}

impl Gcra {
    pub(super) fn new(rate: &Rate) -> Self {
        let per = units::nanos(rate.per);
        let burst = rate.burst.max(1);
        match rate.count {
            0 => Self {
                period: NEVER,
                tolerance: 0,
                burst,
            },
            count => {
                let period = per.div_ceil(u64::from(count)).max(1);
                Self {
                    period,
                    tolerance: period.saturating_mul(u64::from(burst - 1)),
                    burst,
                }
            }
        }
    }

    /// Returns an equal share of this rate for each of `parts`, which together never exceed it in the long run.
    /// The period grows instead of the count shrinking, so that shares below one request are right, too. The
    /// burst is divided into whole requests, and each part keeps at least one. So if there are more parts than
    /// requests in the burst, more than the burst may go at one moment.
    pub(super) fn share(self, parts: u32) -> Self {
        let parts = parts.max(1);
        let burst = (self.burst / parts).max(1);
        let period = self.period.saturating_mul(u64::from(parts));
        let tolerance = match period {
            NEVER => 0,
            _ => period.saturating_mul(u64::from(burst - 1)),
        };
        Self {
            period,
            tolerance,
            burst,
        }
    }

    /// Returns a rate of one request a `period`, up to `tolerance` early.
    pub(super) fn spaced(period: u64, tolerance: u64) -> Self {
        Self {
            period: period.clamp(1, NEVER - 1),
            tolerance,
            burst: 1,
        }
    }

    /// Returns the rate of one of `parts` that take turns, with the given burst.
    pub(super) fn paced(self, parts: u32, burst: u32) -> Self {
        let period = self.period.saturating_mul(u64::from(parts.max(1)));
        let burst = burst.max(1);
        Self {
            period,
            tolerance: period.saturating_mul(u64::from(burst - 1)),
            burst,
        }
    }

    /// Returns the time between two requests at the full rate; [`NEVER`] for a rate of zero.
    pub(super) fn period(self) -> u64 {
        self.period
    }

    /// Returns how far the level may be ahead of now when a request goes.
    pub(super) fn tolerance(self) -> u64 {
        self.tolerance
    }

    /// Returns the level of an unused bucket.
    pub(super) fn full(self) -> u64 {
        match self.period {
            NEVER => NEVER,
            _ => 0,
        }
    }

    /// Returns when the next request may go; [`NEVER`] for a rate of zero.
    pub(super) fn earliest(self, level: u64) -> u64 {
        level.saturating_sub(self.tolerance)
    }

    /// Returns the level after a request that goes `now`, which must not be before the earliest moment.
    pub(super) fn taken(self, level: u64, now: u64) -> u64 {
        level.max(now).saturating_add(self.period)
    }

    /// Returns the level without the last request. Only right if no other has gone since.
    pub(super) fn returned(self, level: u64) -> u64 {
        level.saturating_sub(self.period)
    }

    /// Returns how many requests may go `now`, [`burst`](Self::burst) at most.
    pub(super) fn remaining(self, level: u64, now: u64) -> u32 {
        let ahead = level.saturating_sub(now);
        match self.tolerance.checked_sub(ahead) {
            Some(room) => u32::try_from(room / self.period)
                .unwrap_or(u32::MAX)
                .saturating_add(1)
                .min(self.burst),
            None => 0,
        }
    }

    /// Returns how many requests may go at once after a quiet time.
    pub(super) fn burst(self) -> u32 {
        self.burst
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn gcra(count: u32, per: u64, burst: u32) -> Gcra {
        Gcra::new(&Rate {
            count,
            per: Duration::from_secs(per),
            burst,
        })
    }

    /// The moments at which requests go that always go as early as allowed, from `now` on.
    fn greedy(gcra: Gcra, mut now: u64, n: usize) -> Vec<u64> {
        let mut level = gcra.full();
        let mut times = Vec::new();
        for _ in 0..n {
            now = now.max(gcra.earliest(level));
            level = gcra.taken(level, now);
            times.push(now);
        }
        times
    }

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let start = 100 * SECOND;
        let times = greedy(gcra(5, 1, 3), start, 6);
        let offsets: Vec<_> = times.iter().map(|time| (time - start) / 1_000_000).collect();
        assert_eq!(offsets, [0, 0, 0, 200, 400, 600]);
    }

    #[test]
    fn without_a_burst_requests_are_evenly_spaced() {
        assert_eq!(
            greedy(gcra(30, 60, 1), 0, 4),
            [0, 2 * SECOND, 4 * SECOND, 6 * SECOND]
        );
    }

    #[test]
    fn a_quiet_time_earns_the_burst_again_but_no_more() {
        let gcra = gcra(1, 1, 2);
        let level = greedy(gcra, 0, 2)
            .last()
            .map(|&now| gcra.taken(gcra.taken(0, now), now))
            .unwrap();
        assert_eq!(gcra.remaining(level, 0), 0);
        assert_eq!(gcra.remaining(level, SECOND), 1);
        assert_eq!(gcra.remaining(level, 2 * SECOND), 2);
        assert_eq!(gcra.remaining(level, 2_000_000 * SECOND), 2);
    }

    #[test]
    fn zero_denies_for_ever() {
        let gcra = gcra(0, 1, 5);
        assert_eq!(gcra.earliest(gcra.full()), NEVER);
        assert_eq!(gcra.remaining(gcra.full(), 0), 0);
        assert_eq!(gcra.remaining(gcra.full(), NEVER - 1), 0);
    }

    #[test]
    fn extremes_saturate() {
        for (count, per, burst) in [
            (1, u64::MAX, u32::MAX),
            (u32::MAX, 1, u32::MAX),
            (1, 86_400, u32::MAX),
        ] {
            let gcra = gcra(count, per, burst);
            for level in [0, 1, NEVER / 2, NEVER - 1, NEVER] {
                for now in [0, 1, NEVER / 2, NEVER - 1, NEVER] {
                    let taken = gcra.taken(level, now);
                    assert!(taken >= level && taken >= now, "{gcra:?} {level} {now}");
                    assert!(gcra.earliest(level) <= level);
                    assert!(gcra.remaining(level, now) <= burst);
                    assert!(gcra.returned(level) <= level);
                }
            }
        }
    }

    /// Once their bursts are used up, the parts together keep to the rate of the whole.
    #[test]
    fn shares_add_up_to_the_whole() {
        for (count, per, burst, parts) in [
            (10, 1, 10, 1),
            (10, 1, 10, 3),
            (10, 1, 4, 4),
            (1, 60, 1, 8),
            (7, 1, 20, 5),
        ] {
            let whole = gcra(count, per, burst);
            let share = whole.share(parts);
            assert_eq!(share.period, whole.period * u64::from(parts));
            assert_eq!(share.burst(), (burst / parts).max(1));
            let window = 1000 * per * SECOND;
            let went = greedy(share, 0, 200_000 / parts as usize);
            let each = went.iter().take_while(|time| **time < window).count() as u64;
            let most = u64::from(count) * 1000 + u64::from(burst.max(parts));
            assert!(
                each * u64::from(parts) <= most,
                "{each} by each of {parts}, {most} by all"
            );
        }
        assert_eq!(gcra(5, 1, 5).share(0), gcra(5, 1, 5));
        assert_eq!(gcra(0, 1, 5).share(3).earliest(NEVER), NEVER);
    }

    #[test]
    fn a_returned_request_can_go_again() {
        let gcra = gcra(1, 60, 1);
        let level = gcra.taken(gcra.full(), 5 * SECOND);
        assert_eq!(gcra.earliest(level), 65 * SECOND);
        assert!(gcra.earliest(gcra.returned(level)) <= 5 * SECOND);
    }

    /// Rounded down, seven periods would be shorter than a second.
    #[test]
    fn periods_that_do_not_divide_are_rounded_up() {
        let times = greedy(gcra(7, 1, 1), 0, 8);
        assert!(times[7] >= SECOND, "{times:?}");
    }
}

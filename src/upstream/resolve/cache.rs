//! The cache of answers, bounded in number and age. Failures are kept for some seconds as well.
//!
//! Time is passed in. [`super`] decides what to do without a cached answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::Instant;

use super::{DnsAnswer, Error};

/// How long a failure of the servers is kept.
const FAILURE_TTL: Duration = Duration::from_secs(1);

/// How long it is kept that a name does not exist.
const FINAL_TTL: Duration = Duration::from_secs(5);

/// The answers, shared by all workers.
#[derive(Debug)]
pub(super) struct DnsCache {
    entries: DashMap<Box<str>, DnsEntry>,
    max_ttl: Duration,
    min_ttl: Duration,
    stale: Duration,
}

#[derive(Debug)]
struct DnsEntry {
    answer: DnsAnswer,
    fresh_until: Instant,
    stale_until: Instant,
}

impl DnsCache {
    pub(super) fn new(min_ttl: Duration, max_ttl: Duration, stale: Duration) -> Self {
        Self {
            entries: DashMap::new(),
            max_ttl,
            min_ttl,
            stale,
        }
    }

    /// Returns the answer, unless it has expired.
    pub(super) fn fresh(&self, name: &str, now: Instant) -> Option<DnsAnswer> {
        let entry = self.entries.get(name)?;
        (now < entry.fresh_until).then(|| entry.answer.clone())
    }

    /// Returns expired addresses that may be used while the name servers fail.
    pub(super) fn stale(&self, name: &str, now: Instant) -> Option<Arc<[IpAddr]>> {
        let entry = self.entries.get(name)?;
        if now < entry.stale_until {
            entry.answer.clone().ok()
        } else {
            None
        }
    }

    /// Keeps addresses for `ttl`, within the bounds.
    pub(super) fn keep(
        &self,
        name: &str,
        addresses: Vec<IpAddr>,
        ttl: Duration,
        now: Instant,
    ) -> Arc<[IpAddr]> {
        let addresses: Arc<[IpAddr]> = addresses.into();
        let fresh_until = now + ttl.max(self.min_ttl).min(self.max_ttl);
        let answer = Ok(Arc::clone(&addresses));
        self.insert(
            name,
            DnsEntry {
                answer,
                fresh_until,
                stale_until: fresh_until + self.stale,
            },
            now,
        );
        addresses
    }

    /// Keeps a failure, long enough that a busy app does not cause a query for each request, and short enough that nobody
    /// waits when the name servers work again.
    pub(super) fn keep_failure(&self, name: &str, error: Error, now: Instant) {
        let ttl = if error.is_final() { FINAL_TTL } else { FAILURE_TTL };
        let until = now + ttl;
        self.insert(
            name,
            DnsEntry {
                answer: Err(error),
                fresh_until: until,
                stale_until: until,
            },
            now,
        );
    }

    /// Lets an expired answer be used for a moment without a query.
    pub(super) fn prolong(&self, name: &str, now: Instant) {
        if let Some(mut entry) = self.entries.get_mut(name) {
            entry.fresh_until = entry.stale_until.min(now + RECHECK);
        }
    }

    fn insert(&self, name: &str, entry: DnsEntry, now: Instant) {
        if self.entries.len() >= CAPACITY && !self.entries.contains_key(name) {
            self.make_room(now);
        }
        self.entries.insert(name.into(), entry);
    }

    /// Drops expired answers, or every other answer if none has expired: so this work is rare, even if new names come
    /// quickly.
    fn make_room(&self, now: Instant) {
        self.entries.retain(|_, entry| now < entry.stale_until);
        if self.entries.len() >= CAPACITY {
            let mut keep = false;
            self.entries.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
    }
}

/// The most names in the cache.
const CAPACITY: usize = 10_000;

/// How long failed servers get no query while there is an expired answer.
const RECHECK: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn cache() -> DnsCache {
        DnsCache::new(Duration::from_secs(5), 5 * MINUTE, MINUTE)
    }

    fn address() -> Vec<IpAddr> {
        vec!["192.0.2.1".parse().unwrap()]
    }

    /// For how many whole seconds something holds.
    fn seconds(now: Instant, holds: impl Fn(Instant) -> bool) -> u64 {
        (0..10_000)
            .take_while(|&second| holds(now + Duration::from_secs(second)))
            .count() as u64
    }

    #[test]
    fn answers_live_within_the_bounds() {
        for (ttl, lives) in [
            (0, 5),
            (4, 5),
            (60, 60),
            (300, 300),
            (86_400, 300),
            (u64::MAX, 300),
        ] {
            let (cache, now) = (cache(), Instant::now());
            cache.keep("a.test", address(), Duration::from_secs(ttl), now);
            assert_eq!(
                seconds(now, |time| cache.fresh("a.test", time).is_some()),
                lives,
                "ttl {ttl}"
            );
            assert_eq!(
                seconds(now, |time| cache.stale("a.test", time).is_some()),
                lives + 60,
                "ttl {ttl}"
            );
        }
    }

    /// Bounds that contradict each other: the upper one wins.
    #[test]
    fn a_lower_bound_above_the_upper_one_does_no_harm() {
        let cache = DnsCache::new(MINUTE, Duration::from_secs(1), Duration::ZERO);
        let now = Instant::now();
        cache.keep("a.test", address(), Duration::ZERO, now);
        assert_eq!(seconds(now, |time| cache.fresh("a.test", time).is_some()), 1);
    }

    #[test]
    fn failures_are_kept_for_some_seconds_and_never_served_stale() {
        let name: Arc<str> = "a.test".into();
        let cases = [
            (
                Error::NotFound {
                    name: Arc::clone(&name),
                },
                5,
            ),
            (
                Error::Empty {
                    name: Arc::clone(&name),
                },
                5,
            ),
            (Error::Unreachable { servers: name }, 1),
        ];
        for (error, lives) in cases {
            let (cache, now) = (cache(), Instant::now());
            cache.keep_failure("a.test", error.clone(), now);
            assert_eq!(cache.fresh("a.test", now), Some(Err(error)));
            assert_eq!(seconds(now, |time| cache.fresh("a.test", time).is_some()), lives);
            assert_eq!(cache.stale("a.test", now), None);
        }
    }

    #[test]
    fn a_prolonged_answer_does_not_outlive_its_stale_time() {
        let (cache, now) = (cache(), Instant::now());
        cache.keep("a.test", address(), Duration::ZERO, now);
        cache.prolong("a.test", now + Duration::from_secs(30));
        assert_eq!(seconds(now, |time| cache.fresh("a.test", time).is_some()), 35);
        cache.prolong("a.test", now + Duration::from_secs(63));
        assert_eq!(seconds(now, |time| cache.fresh("a.test", time).is_some()), 65);
    }

    /// Many names cannot fill the memory.
    #[test]
    fn the_number_of_names_is_bounded() {
        let (cache, now) = (cache(), Instant::now());
        for number in 0..3 * CAPACITY {
            cache.keep(&format!("{number}.test"), address(), MINUTE, now);
            assert!(cache.entries.len() <= CAPACITY);
        }
        let last = format!("{}.test", 3 * CAPACITY - 1);
        assert!(cache.fresh(&last, now).is_some(), "the newest is there");
    }
}

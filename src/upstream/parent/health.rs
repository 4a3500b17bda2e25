//! Which parents have failed lately. Shared by all workers; a few atomics for each parent.

use std::fmt::Display;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How long a parent that has failed comes last.
const BACK: Duration = Duration::from_secs(30);

/// How long the one connection may take that finds out whether a parent can be reached again.
pub(super) const PROBE: Duration = Duration::from_secs(1);

/// The state of one parent.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// There are other parents beside it.
    has_others: bool,
    /// Until when it comes last; 0: it works.
    until: AtomicU64,
    /// When it last opened a connection.
    worked: AtomicU64,
}

/// When a parent is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// In its place.
    First,
    /// After those that work.
    Last,
    /// In its place, although it has failed: its time is over, and this connection finds out.
    Probe,
}

impl Health {
    /// Returns the state of one of so many parents.
    pub(super) fn of(count: usize) -> Self {
        Self {
            has_others: count > 1,
            ..Self::default()
        }
    }

    /// Returns when the parent is tried by a connection that is opened `now`.
    pub(super) fn turn(&self, now: Instant) -> Turn {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return Turn::First;
        }
        if millis(now) < until {
            return Turn::Last;
        }
        // Of all that see it at the same time, one is first.
        let again =
            self.until
                .compare_exchange(until, millis(now + BACK), Ordering::Relaxed, Ordering::Relaxed);
        if again.is_ok() { Turn::Probe } else { Turn::Last }
    }

    /// Notes that the parent has opened a connection.
    pub(super) fn works(&self, name: &str) {
        self.worked.store(millis(Instant::now()), Ordering::Relaxed);
        self.answers(name);
    }

    /// Notes that the parent has answered, though not as it was asked.
    pub(super) fn answers(&self, name: &str) {
        if self.until.load(Ordering::Relaxed) != 0 && self.until.swap(0, Ordering::Relaxed) != 0 {
            tracing::info!(parent = name, "the parent works again");
        }
    }

    /// Notes that the parent has failed.
    pub(super) fn fails(&self, name: &str, why: &impl Display) {
        let until = millis(Instant::now() + BACK);
        if self.until.swap(until, Ordering::Relaxed) == 0 {
            tracing::warn!(parent = name, %why, "{}", self.consequence());
        }
    }

    /// Returns what the failure of the parent means.
    fn consequence(&self) -> &'static str {
        if self.has_others {
            "a parent fails: others are tried before it for a while"
        } else {
            "the only parent fails: nothing leaves that goes through it"
        }
    }

    pub(super) fn has_worked_since(&self, then: Instant) -> bool {
        self.worked.load(Ordering::Relaxed) >= millis(then)
    }
}

/// Returns the time since the first call, and never 0.
fn millis(now: Instant) -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let since = now.saturating_duration_since(*START).as_millis();
    u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_parent_that_fails_comes_last_until_one_connection_finds_it_working() {
        let health = Health::default();
        let turn = || health.turn(Instant::now());
        assert_eq!(turn(), Turn::First);
        health.fails("p", &"down");
        assert_eq!(turn(), Turn::Last);
        tokio::time::advance(BACK + Duration::from_millis(1)).await;
        assert_eq!([turn(), turn(), turn()], [Turn::Probe, Turn::Last, Turn::Last]);
        // A probe that never ends is followed by another one.
        tokio::time::advance(BACK + Duration::from_millis(1)).await;
        assert_eq!([turn(), turn()], [Turn::Probe, Turn::Last]);
        health.works("p");
        assert_eq!([turn(), turn()], [Turn::First, Turn::First]);
    }

    #[test]
    fn others_are_spoken_of_where_there_are_some() {
        assert!(Health::of(2).consequence().contains("others are tried"));
        assert!(Health::of(1).consequence().starts_with("the only parent fails"));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_the_parents_only_where_it_served_nobody_meanwhile() {
        let health = Health::default();
        tokio::time::advance(Duration::from_secs(1)).await;
        let begun = Instant::now();
        assert!(!health.has_worked_since(begun));
        tokio::time::advance(Duration::from_secs(1)).await;
        health.works("p");
        assert!(health.has_worked_since(begun));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!health.has_worked_since(Instant::now()));
    }
}

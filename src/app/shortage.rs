//! Short memory: measures what is resident, shrinks caches, and logs each change once.

use std::time::Duration;

use tokio::time::Instant;

use crate::memory::MEMORY;
use crate::proxy::Live;
use crate::telemetry::Telemetry;

use super::host_limits;

/// One in so many parts of the ceiling has to be free again.
const ENOUGH: usize = 16;

/// Whether new work is refused for want of memory.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    is_reported: bool,
    /// When there was enough room again.
    enough_since: Option<Instant>,
}

impl Shortage {
    /// Whether the log says that new work is refused.
    pub(super) fn is_reported(&self) -> bool {
        self.is_reported
    }

    /// Measures, and logs a change.
    pub(super) fn look(&mut self, telemetry: &Telemetry) {
        let (Some(ceiling), Some(resident)) = (MEMORY.ceiling(), host_limits::resident()) else {
            if std::mem::take(self).is_reported {
                telemetry.memory_short(false);
                tracing::info!("limits.memory refuses nothing any longer");
            }
            return;
        };
        MEMORY.measured(resident);
        let is_short = MEMORY.take_refused() || MEMORY.is_full();
        let is_over = self.is_over(!is_short && MEMORY.room() > ceiling / ENOUGH);
        let megabytes = |bytes: usize| bytes / (1024 * 1024);
        if is_short && !self.is_reported {
            tracing::warn!(
                limit_mb = megabytes(ceiling),
                resident_mb = megabytes(resident),
                "limits.memory is reached: new work is refused with 503 until there is room; raise it, or send less at a time",
            );
        } else if is_over && self.is_reported {
            tracing::info!(
                limit_mb = megabytes(ceiling),
                resident_mb = megabytes(resident),
                "limits.memory: there is room again, and new work is accepted",
            );
        } else {
            return;
        }
        self.is_reported = is_short;
        telemetry.memory_short(is_short);
    }

    /// Returns whether there has been enough room for long enough. A refused request gives back its memory, so each
    /// refusal makes room for a moment: without the wait one peak would be logged many times.
    fn is_over(&mut self, is_enough: bool) -> bool {
        if !is_enough {
            self.enough_since = None;
            return false;
        }
        self.enough_since.get_or_insert_with(Instant::now).elapsed() >= CALM
    }
}

/// Sets the limit of the memory of this process.
pub(super) fn limit(configured: Option<u64>) {
    match host_limits::memory(configured) {
        // Where it cannot be measured, only reservations count.
        Some(ceiling) => MEMORY.set_ceiling(Some(ceiling), host_limits::resident().unwrap_or(0)),
        None => MEMORY.set_ceiling(None, usize::MAX),
    }
}

/// Evicts stored answers where they take the room that is kept for requests, from all caches alike.
pub(super) fn shrink_caches(live: &Live) {
    let excess = MEMORY.overdraft();
    if excess == 0 {
        return;
    }
    let caches = || live.routes.iter().filter_map(|route| route.cache.as_ref());
    let all: usize = caches().map(|cache| cache.held()).sum();
    for cache in caches() {
        let share = cache.held() as f64 / all.max(1) as f64;
        cache.shrink((excess as f64 * share).ceil() as usize);
    }
}

/// How long there has to be room.
const CALM: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peak_is_over_when_nothing_was_refused_for_three_seconds() {
        let mut shortage = Shortage::default();
        let mut after = async |millis, is_enough| {
            tokio::time::advance(Duration::from_millis(millis)).await;
            shortage.is_over(is_enough)
        };
        assert!(!after(0, true).await && !after(2900, true).await);
        assert!(!after(200, false).await, "a refusal starts the wait again");
        assert!(!after(200, true).await && !after(2900, true).await);
        assert!(after(200, true).await && after(200, true).await);
    }
}

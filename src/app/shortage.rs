//! Whether memory is short: what is resident is measured, stored answers make way, and each change is told once.

use crate::memory::MEMORY;
use crate::proxy::Live;
use crate::telemetry::Telemetry;

use super::host_limits;

/// Whether new work was refused for want of memory when it was last looked.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    is_told: bool,
}

impl Shortage {
    /// Measures, and tells of a change.
    pub(super) fn look(&mut self, telemetry: &Telemetry) {
        let (Some(ceiling), Some(resident)) = (MEMORY.ceiling(), host_limits::resident()) else {
            if std::mem::take(&mut self.is_told) {
                telemetry.memory_short(false);
                tracing::info!("limits.memory refuses nothing any longer");
            }
            return;
        };
        MEMORY.measured(resident);
        let is_short = MEMORY.take_refused() || MEMORY.is_full();
        // It has to be clearly over, or a state that comes and goes would fill the log.
        let is_over = !is_short && MEMORY.room() > ceiling / ENOUGH;
        let megabytes = |bytes: usize| bytes / (1024 * 1024);
        if is_short && !self.is_told {
            tracing::warn!(
                limit_mb = megabytes(ceiling),
                resident_mb = megabytes(resident),
                "limits.memory is reached: new work is refused with 503 until there is room; raise it, or send less at a time",
            );
        } else if is_over && self.is_told {
            tracing::info!(
                limit_mb = megabytes(ceiling),
                resident_mb = megabytes(resident),
                "limits.memory: there is room again, and new work is accepted",
            );
        } else {
            return;
        }
        self.is_told = is_short;
        telemetry.memory_short(is_short);
    }
}

/// Sets the limit of the memory of this process.
pub(super) fn limit(configured: Option<u64>) {
    match host_limits::memory(configured) {
        // What cannot be read counts as nothing; what is reserved counts still.
        Some(ceiling) => MEMORY.set_ceiling(Some(ceiling), host_limits::resident().unwrap_or(0)),
        None => MEMORY.set_ceiling(None, usize::MAX),
    }
}

/// Lets stored answers go where they take the room that is kept for requests, those of all caches alike.
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

/// This part of the ceiling has to be free again.
const ENOUGH: usize = 16;

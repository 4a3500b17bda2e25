//! What a limiter takes from outside: the time of day and random numbers. A simulation sets both, so that it
//! always gives the same result.

use std::time::SystemTime;

/// Returns the time of day.
pub(super) fn time_of_day() -> SystemTime {
    #[cfg(test)]
    if let Some(time) = simulated::time_of_day() {
        return time;
    }
    SystemTime::now()
}

/// Returns a random number between 0 and 1.
pub(super) fn jitter() -> f64 {
    #[cfg(test)]
    if let Some(jitter) = simulated::jitter() {
        return jitter;
    }
    rand::random()
}

#[cfg(test)]
pub(super) mod simulated {
    use std::cell::RefCell;
    use std::time::SystemTime;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use tokio::time::Instant;

    thread_local! {
        static WORLD: RefCell<Option<(SystemTime, Instant, StdRng)>> = const { RefCell::new(None) };
    }

    /// Sets the time of day on this thread and makes the random numbers repeatable. Needs a runtime with paused
    /// time.
    pub(in crate::limit) fn begin(time: SystemTime) {
        WORLD.set(Some((time, Instant::now(), StdRng::seed_from_u64(3))));
    }

    pub(in crate::limit) fn end() {
        WORLD.set(None);
    }

    pub(super) fn time_of_day() -> Option<SystemTime> {
        WORLD.with_borrow(|world| world.as_ref().map(|(time, begin, _)| *time + begin.elapsed()))
    }

    pub(super) fn jitter() -> Option<f64> {
        WORLD.with_borrow_mut(|world| world.as_mut().map(|(_, _, random)| random.random()))
    }
}

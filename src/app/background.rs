//! Work off the main thread: builds, which read files that may hang, and upkeep. Signals and the admin port are
//! answered meanwhile.

use std::convert::Infallible;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::build::Builder;
use super::shortage::{self, Shortage};
use super::{Error, TICK};
use crate::memory::MEMORY;
use crate::proxy::Proxy;

/// Does `work` on a new thread. When the future is dropped, the work goes on and its result is lost.
pub(super) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (give, result) = oneshot::channel();
    let runtime = Handle::current();
    let thread = thread::Builder::new().name("outrider-build".to_owned());
    thread.spawn(move || {
        // A store that counts for all instances spawns a task there.
        let _runtime = runtime.enter();
        let _ = give.send(work());
    })?;
    result.await.unwrap_or(Err(Error::Panicked))
}

/// Measures memory, and updates circuits and limits that no request has touched for long. Never ends.
pub(super) async fn maintain(proxy: Arc<Proxy>, builder: Arc<Builder>) -> Infallible {
    let mut shortage = Shortage::default();
    let mut pulse = tokio::time::interval(PULSE);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Without a limit there is nothing to measure, and no reason to wake up.
            _ = pulse.tick(), if MEMORY.ceiling().is_some() => shortage.look(&proxy.telemetry),
            _ = tick.tick() => {
                let live = proxy.live.load();
                shortage::limit(live.limits.memory);
                shortage.look(&proxy.telemetry);
                shortage::shrink_caches(&live);
                let now = Instant::now();
                let breakers = live.routes.iter().filter_map(|route| route.breaker.as_ref());
                breakers.for_each(|breaker| breaker.observe(now));
                drop(live);
                builder.limits.observe();
            }
        }
    }
}

/// How often resident memory is measured.
const PULSE: Duration = Duration::from_millis(250);

//! Work off the main thread: builds, which read files that may hang, and upkeep. Signals and the admin port are
//! answered meanwhile.

use std::convert::Infallible;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::shortage::{self, Shortage};
use super::{Error, TICK};
use crate::config::Config;
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

/// Measures memory, and updates circuits that no request has touched for long. Never ends. At rest there is nothing to do,
/// and it sleeps.
pub(super) async fn maintain(proxy: Arc<Proxy>, mut configs: watch::Receiver<Arc<Config>>) -> Infallible {
    let mut shortage = Shortage::default();
    let mut quiet_since = Instant::now();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        configs.mark_unchanged();
        let live = proxy.live.load_full();
        shortage::limit(live.limits.memory);
        let has_breakers = live.routes.iter().any(|route| route.breaker.is_some());
        let mut pulse = std::pin::pin!(pulse(quiet_since));
        loop {
            tokio::select! {
                // Where the sender is gone, so is the process.
                _ = configs.changed() => break,
                () = &mut pulse, if MEMORY.ceiling().is_some() || shortage.is_reported() => {
                    shortage.look(&proxy.telemetry);
                    shortage::shrink_caches(&live);
                    if !MEMORY.is_at_rest() || shortage.is_reported() {
                        quiet_since = Instant::now();
                    }
                    pulse.set(self::pulse(quiet_since));
                }
                _ = tick.tick(), if has_breakers => {
                    let now = Instant::now();
                    let breakers = live.routes.iter().filter_map(|route| route.breaker.as_ref());
                    breakers.for_each(|breaker| breaker.observe(now));
                }
            }
        }
    }
}

/// Waits until memory is to be measured again. After a while without reservations, in which freed memory goes back to the
/// system, that is for the next one; and now and then, for what takes memory without.
async fn pulse(quiet_since: Instant) {
    if quiet_since.elapsed() > CALM {
        let _ = timeout(LONGEST_REST, MEMORY.stirs()).await;
    }
    sleep(PULSE).await;
}

const CALM: Duration = Duration::from_secs(5);
/// How long resident memory is not measured at most.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// How often it is measured while requests come.
const PULSE: Duration = Duration::from_millis(250);

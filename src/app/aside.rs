//! Work that reads secrets, beside the main thread: whatever it meets, signals and the operator's door are answered.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::build::Parts;
use super::host_limits::Memory;
use super::{Error, TICK};
use crate::proxy::Proxy;

/// Does `work` on a thread of its own. Where nobody waits any more, it goes on and nobody learns what came of it.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (give, result) = oneshot::channel();
    let runtime = Handle::current();
    let thread = thread::Builder::new().name("outrider-build".to_owned());
    thread.spawn(move || {
        // A store that counts for all instances has a task there.
        let _runtime = runtime.enter();
        let _ = give.send(work());
    })?;
    result.await.unwrap_or(Err(Error::Panicked))
}

/// Keeps an eye on memory and on who has long been silent, also while a change is being read.
pub(super) async fn look_after(proxy: Arc<Proxy>, build: Arc<Parts>) -> Infallible {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let live = proxy.live.load();
        let is_short = Memory::of(live.limits.memory).is_short();
        proxy.is_short_of_memory.store(is_short, Ordering::Relaxed);
        if is_short {
            let caches = live.routes.iter().filter_map(|route| route.cache.as_ref());
            caches.for_each(|cache| cache.clear());
        }
        drop(live);
        build.limits.observe();
    }
}

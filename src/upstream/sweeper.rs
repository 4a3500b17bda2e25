//! When a worker sweeps its pool: while there is something in it, and after a connection has come.
//!
//! Between two sweeps the worker has a timer that is due soon. tokio wakes its own driver, with a system call, for each timer
//! that is due before all others: without this one that is the first timer of each request and of each tunnel.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use tokio::sync::Notify;

thread_local! {
    static FILLED: RefCell<Arc<Notify>> = RefCell::default();
    static HAS_ARRIVED: Cell<bool> = const { Cell::new(false) };
    static WAITS: Cell<bool> = const { Cell::new(false) };
}

/// Waits until something comes into this worker's pool, or a connection to this worker. At once if one came since the last call.
pub(crate) async fn until_stirred() {
    if HAS_ARRIVED.take() {
        return;
    }
    WAITS.set(true);
    let filled = FILLED.with_borrow(Arc::clone);
    filled.notified().await;
    HAS_ARRIVED.set(false);
}

/// Notes that a connection of the app comes to this worker.
pub(crate) fn arrived() {
    HAS_ARRIVED.set(true);
    filled();
}

/// Notes that something comes into this worker's pool.
pub(super) fn filled() {
    if WAITS.replace(false) {
        FILLED.with_borrow(|filled| filled.notify_one());
    }
}

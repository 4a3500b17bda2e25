//! When a worker sweeps its pool: while there is something in it.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use tokio::sync::Notify;

thread_local! {
    static FILLED: RefCell<Arc<Notify>> = RefCell::default();
    static WAITS: Cell<bool> = const { Cell::new(false) };
}

/// Waits until something comes into this worker's pool.
pub(crate) async fn until_filled() {
    WAITS.set(true);
    let filled = FILLED.with_borrow(Arc::clone);
    filled.notified().await;
}

/// Notes that something comes into this worker's pool.
pub(super) fn filled() {
    if WAITS.replace(false) {
        FILLED.with_borrow(|filled| filled.notify_one());
    }
}

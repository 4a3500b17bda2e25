//! Locks that outlive a panic.
//!
//! The standard lock is poisoned when a thread panics while it holds it, and every later holder gets an error. Here
//! the lock is taken all the same: what our locks protect is whole between any two statements (a map, a list, a
//! counter), and a proxy that refused every request from then on would be worse than one lost entry.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, also after a panic of an earlier holder.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns what `mutex` holds, also after a panic of an earlier holder.
pub(crate) fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

//! Guarded work: its caller is safe from work that never ends or panics, such as a read from a file system that
//! hangs, or a parser with a fault.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use crate::sync::lock;

/// Why guarded work gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupted {
    Panicked,
    /// It goes on; until it ends, the same work is not tried again.
    TooLong,
}

/// Identifies a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkId(u64);

/// Does `work` on a new thread and waits for at most `limit`. Where the same work, by `what`, has been given up and
/// still runs, it is not begun again: work that hangs costs one thread, however often it is tried.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    what: WorkId,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Interrupted> {
    if has_stuck(what) {
        return Err(Interrupted::TooLong);
    }
    let is_done = Arc::new(AtomicBool::new(false));
    let done = Done(Arc::clone(&is_done));
    let (give, result) = sync_channel(1);
    let work = move || {
        let _done = done;
        // The caller may have given up.
        let _ = give.send(work());
    };
    let thread = thread::Builder::new().name("secret".to_owned());
    // Where the system gives no thread, it is as overloaded as if the work had taken too long.
    thread.spawn(work).map_err(|_| Interrupted::TooLong)?;
    result.recv_timeout(limit).map_err(|why| match why {
        RecvTimeoutError::Disconnected => Interrupted::Panicked,
        RecvTimeoutError::Timeout => {
            let mut stuck = lock(&STUCK);
            stuck.push((what, is_done));
            Interrupted::TooLong
        }
    })
}

/// Identifies work by its subject, without revealing that.
pub(crate) fn name(about: impl Hash) -> WorkId {
    WorkId(SEED.get_or_init(RandomState::new).hash_one(about))
}

/// Whether the same work was given up and still runs.
fn has_stuck(what: WorkId) -> bool {
    let mut stuck = lock(&STUCK);
    stuck.retain(|(_, is_done)| !is_done.load(Ordering::Acquire));
    stuck.iter().any(|(other, _)| *other == what)
}

/// Marks that a thread has ended, also by a panic.
struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Work that was given up, and whether it has ended since.
static STUCK: Mutex<Vec<(WorkId, Arc<AtomicBool>)>> = Mutex::new(Vec::new());

static SEED: OnceLock<RandomState> = OnceLock::new();

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(10);

    #[test]
    fn a_result_comes_back_and_a_panic_is_an_answer() {
        assert_eq!(within(LONG, name("a result"), || 7), Ok(7));
        let panicked: Result<(), _> = within(LONG, name("a panic"), || panic!("meant to"));
        assert_eq!(panicked, Err(Interrupted::Panicked));
    }

    #[test]
    fn what_hangs_is_given_up_and_tried_again_only_when_it_has_ended() {
        let (open, gate) = channel::<()>();
        let hangs = move || gate.recv().unwrap_or_default();
        assert_eq!(within(SHORT, name("hangs"), hangs), Err(Interrupted::TooLong));
        // At once, whatever the limit, and without a second thread.
        assert_eq!(within(LONG, name("hangs"), || ()), Err(Interrupted::TooLong));
        assert_eq!(within(LONG, name("another"), || ()), Ok(()));
        drop(open);
        for _ in 0..1000 {
            if within(LONG, name("hangs"), || ()) == Ok(()) {
                return;
            }
            thread::yield_now();
            thread::park_timeout(SHORT);
        }
        panic!("it has ended and is not tried again");
    }
}

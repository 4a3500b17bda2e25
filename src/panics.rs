//! What a panic ends: one piece of work, and never the process.
//!
//! A panic is a fault of ours, and the end of the process would be the end of the app instance beside it. A panic in a
//! task of a connection ends that connection; the loops that everything depends on go on. Each panic is counted, and
//! logged with its place. Its message is not: it may hold what passed through.

use std::any::Any;
use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::pin::pin;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

/// Work has panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Between a panic and the next try of the same work: a fault may be there each time.
const PAUSE: Duration = Duration::from_secs(1);

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Counts and logs panics from now on, in place of a message on standard error.
pub(crate) fn report() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            COUNT.fetch_add(1, Ordering::Relaxed);
            if !tracing::dispatcher::has_been_set() {
                return usual(panic);
            }
            let thread = thread::current();
            tracing::error!(
                place = panic.location().map(tracing::field::display),
                thread = thread.name(),
                "panicked: a fault of outrider has ended what was done there, and all else goes on; report this line",
            );
        }));
    });
}

/// Returns how many panics there were.
pub(crate) fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// Does `work`, and catches a panic.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    // What is shared with others is behind locks that outlive a panic.
    catch_unwind(AssertUnwindSafe(work)).map_err(|_: Box<dyn Any + Send>| Panicked)
}

/// Waits for `work`, and catches a panic. A pause follows it.
pub(crate) async fn survived<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut work = pin!(work);
    let result = poll_fn(|cx| match caught(|| work.as_mut().poll(cx)) {
        Ok(poll) => poll.map(Ok),
        Err(panicked) => Poll::Ready(Err(panicked)),
    });
    let result = result.await;
    if result.is_err() {
        tokio::time::sleep(PAUSE).await;
    }
    result
}

/// Does work that never ends; after a panic it begins anew.
pub(crate) async fn keep_up<F>(begin: impl Fn() -> F) -> Infallible
where
    F: Future<Output = Infallible>,
{
    loop {
        if let Ok(never) = survived(begin()).await {
            match never {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_panic_is_an_answer() {
        assert_eq!(caught(|| 7), Ok(7));
        let panicked: Result<(), _> = caught(|| panic!("meant to"));
        assert_eq!(panicked, Err(Panicked));
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_panics_while_it_waits_is_survived() {
        let work = async |panics: bool| {
            tokio::task::yield_now().await;
            assert!(!panics, "meant to");
            7
        };
        assert_eq!(survived(work(false)).await, Ok(7));
        assert_eq!(survived(work(true)).await, Err(Panicked));
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_begins_anew_after_a_panic() {
        let begun = Cell::new(0);
        let (done, mut is_done) = tokio::sync::mpsc::channel(1);
        let work = || async {
            begun.set(begun.get() + 1);
            assert!(begun.get() == 3, "meant to");
            let _ = done.send(()).await;
            std::future::pending().await
        };
        tokio::select! {
            never = keep_up(work) => match never {},
            _ = is_done.recv() => {}
        }
        assert_eq!(begun.get(), 3);
    }
}

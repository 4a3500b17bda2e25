//! A time limit that is set often and rarely reached.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep};

/// The timer is armed once; setting the limit later costs a store, and the timer looks again when it fires.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom the timer wakes. As long as that is the one who asks, the timer need not be told again.
    waker: Option<Waker>,
}

impl Deadline {
    pub(crate) fn set(&mut self, at: Instant) {
        self.at = Some(at);
    }

    pub(super) fn clear(&mut self) {
        self.at = None;
    }

    pub(super) fn is_set(&self) -> bool {
        self.at.is_some()
    }

    /// Ready once the limit is reached; never without one.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if at < sleep.deadline() {
            sleep.as_mut().reset(at);
            self.waker = None;
        }
        let is_known = |waker: &Waker| waker.will_wake(cx.waker());
        if !sleep.is_elapsed() && self.waker.as_ref().is_some_and(is_known) {
            return Poll::Pending;
        }
        self.waker = None;
        if tell(sleep.as_mut(), cx).is_ready() {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
            ready!(tell(sleep.as_mut(), cx));
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Arms a timer for the task of `cx`. A task that has used up its budget would find it pending and not armed.
fn tell(sleep: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    pin!(unconstrained(sleep)).poll(cx)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_may_be_moved_both_ways_and_taken_back() {
        let start = Instant::now();
        let mut deadline = Deadline::default();
        deadline.set(start + Duration::from_secs(5));
        let wait = async |deadline: &mut Deadline| {
            let wait = poll_fn(|cx| deadline.poll(cx));
            let _ = tokio::time::timeout(Duration::from_secs(100), wait).await;
            start.elapsed().as_secs()
        };
        assert_eq!(wait(&mut deadline).await, 5);
        // Armed for the 5th second still.
        deadline.set(start + Duration::from_secs(20));
        assert_eq!(wait(&mut deadline).await, 20);
        deadline.set(start + Duration::from_secs(900));
        assert!(poll_fn(|cx| Poll::Ready(deadline.poll(cx))).await.is_pending());
        deadline.set(start + Duration::from_secs(30));
        assert_eq!(wait(&mut deadline).await, 30);
        deadline.clear();
        assert_eq!(wait(&mut deadline).await, 130);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_that_asked_is_woken() {
        let start = Instant::now();
        let mut deadline = Deadline::default();
        for second in [5, 10] {
            deadline.set(start + Duration::from_secs(second));
            // Somebody else asks first, and again in between.
            assert!(
                deadline
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_pending()
            );
            let wait = poll_fn(|cx| deadline.poll(cx));
            let is_over = tokio::time::timeout(Duration::from_secs(100), wait).await.is_ok();
            assert_eq!((is_over, start.elapsed().as_secs()), (true, second));
        }
    }

    /// Uses up what a task may do in one turn: from then on all that tokio has is pending.
    fn spend_budget(cx: &mut Context<'_>) {
        let (sender, mut receiver) = unbounded_channel();
        (0..1_000).for_each(|_| sender.send(()).unwrap());
        while receiver.poll_recv(cx).is_ready() {}
        assert!(!receiver.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_has_used_up_its_budget_is_woken_all_the_same() {
        let armed = async |second| {
            let mut deadline = Deadline::default();
            deadline.set(Instant::now() + Duration::from_secs(second));
            assert!(poll_fn(|cx| Poll::Ready(deadline.poll(cx))).await.is_pending());
            deadline
        };
        let mut of_another = Deadline::default();
        of_another.set(Instant::now() + Duration::from_secs(10));
        assert!(
            of_another
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        // A new one, one that is moved to an earlier time, one that fires too early, and one that another task asked.
        for mut deadline in [Deadline::default(), armed(20).await, armed(5).await, of_another] {
            let start = Instant::now();
            deadline.set(start + Duration::from_secs(10));
            // A task that has used it up is polled again at once.
            let mut is_again = true;
            let wait = poll_fn(|cx| {
                is_again = !is_again;
                if !is_again {
                    spend_budget(cx);
                }
                deadline.poll(cx)
            });
            let is_over = tokio::time::timeout(Duration::from_secs(100), wait).await.is_ok();
            assert_eq!((is_over, start.elapsed().as_secs()), (true, 10));
        }
    }
}

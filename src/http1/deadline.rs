//! A time limit that is set often and rarely reached.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

/// The timer is armed once; setting the limit later costs a store, and the timer looks again when it fires.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
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
        }
        ready!(sleep.as_mut().poll(cx));
        if Instant::now() < at {
            sleep.as_mut().reset(at);
            return sleep.as_mut().poll(cx);
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

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
}

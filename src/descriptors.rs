//! The file descriptors that connections may take: two for each of the app, one to it and one to an upstream.
//!
//! Some are kept for the rest: the admin port, files, look-ups, upstream connections that wait in a pool. The whole
//! process shares one account.

use std::sync::atomic::{AtomicUsize, Ordering};

static PAIRS: Account = Account::new();

/// Two descriptors, until the value is dropped.
#[derive(Debug)]
pub(crate) struct DescriptorPair(&'static Account);

#[derive(Debug)]
struct Account {
    most: AtomicUsize,
    taken: AtomicUsize,
}

/// Divides `all` descriptors; returns how many connections may be open at a time.
pub(crate) fn divide(all: Option<u64>) -> usize {
    let most = pairs(all);
    PAIRS.most.store(most, Ordering::Relaxed);
    most
}

/// Returns how many connections of the app are open, tunnels included.
pub(crate) fn pairs_taken() -> usize {
    PAIRS.taken.load(Ordering::Relaxed)
}

fn pairs(all: Option<u64>) -> usize {
    let Some(all) = all else { return usize::MAX };
    let left = all.saturating_sub(RESERVED).max(all / 2);
    usize::try_from(left / 2).unwrap_or(usize::MAX).max(1)
}

impl DescriptorPair {
    /// Takes two descriptors; `None` where all are taken.
    pub(crate) fn take() -> Option<Self> {
        PAIRS.take()
    }
}

impl Drop for DescriptorPair {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Account {
    const fn new() -> Self {
        Self {
            most: AtomicUsize::new(usize::MAX),
            taken: AtomicUsize::new(0),
        }
    }

    fn take(&'static self) -> Option<DescriptorPair> {
        // Where all were taken, the value gives its part back when it is dropped.
        let (before, pair) = (self.taken.fetch_add(1, Ordering::Relaxed), DescriptorPair(self));
        (before < self.most.load(Ordering::Relaxed)).then_some(pair)
    }
}

/// Descriptors kept for everything but connections of the app and their upstream connections.
const RESERVED: u64 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_kept_for_the_rest() {
        for (all, most) in [
            (None, usize::MAX),
            (Some(20_000), 9960),
            (Some(200), 60),
            (Some(64), 16),
            (Some(0), 1),
        ] {
            assert_eq!(pairs(all), most, "{all:?}");
        }
    }

    #[test]
    fn what_is_dropped_can_be_taken_again() {
        static TWO: Account = Account::new();
        TWO.most.store(2, Ordering::Relaxed);
        let (one, two) = (TWO.take(), TWO.take());
        assert!(one.is_some() && two.is_some() && TWO.take().is_none());
        drop(one);
        assert!(TWO.take().is_some());
    }
}

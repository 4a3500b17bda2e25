//! Remembers which upstreams speak HTTP/1.0: they understand neither chunks nor `Expect` (RFC 9110 section 10.1.1).

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use http::Version;

use crate::host::Target;
use crate::sync::lock;

/// The most targets that are remembered.
const MOST: usize = 1000;

/// The targets whose last answer was in HTTP/1.0.
#[derive(Debug, Default)]
pub(super) struct Http10Targets {
    /// Whether there are any. Usually not, and then no request has to lock.
    is_any: AtomicBool,
    targets: Mutex<HashSet<Target>>,
}

impl Http10Targets {
    pub(super) fn has(&self, target: &Target) -> bool {
        self.is_any.load(Ordering::Relaxed) && self.targets().contains(target)
    }

    /// Remembers the version of an answer. When there are too many targets, all are forgotten: at worst a request is sent in
    /// chunks once more.
    pub(super) fn answered(&self, target: &Target, version: Version) {
        if version == Version::HTTP_10 {
            let mut targets = self.targets();
            if !targets.contains(target) {
                if targets.len() >= MOST {
                    targets.clear();
                }
                targets.insert(target.clone());
                self.is_any.store(true, Ordering::Relaxed);
            }
        } else if self.is_any.load(Ordering::Relaxed) {
            let mut targets = self.targets();
            targets.remove(target);
            self.is_any.store(!targets.is_empty(), Ordering::Relaxed);
        }
    }

    fn targets(&self) -> MutexGuard<'_, HashSet<Target>> {
        lock(&self.targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(number: usize) -> Target {
        let uri = format!("http://host-{number}.test/").parse().unwrap();
        Target::of_absolute(&uri).unwrap()
    }

    #[test]
    fn the_last_answer_counts() {
        let old = Http10Targets::default();
        old.answered(&target(0), Version::HTTP_11);
        assert!(!old.has(&target(0)));
        old.answered(&target(0), Version::HTTP_10);
        old.answered(&target(1), Version::HTTP_10);
        old.answered(&target(0), Version::HTTP_11);
        assert!(!old.has(&target(0)) && old.has(&target(1)));
        (0..=MOST).for_each(|number| old.answered(&target(number), Version::HTTP_10));
        assert!(old.targets().len() <= MOST && old.has(&target(MOST)));
    }
}

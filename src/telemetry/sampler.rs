//! A line in the log that may be due very often, told now and then.
//!
//! The first is told at once; the others are counted, and their number is told with the next, an interval later at the
//! earliest.

/// At most one line in an interval.
#[derive(Debug, Default)]
pub(crate) struct LogSampler {
    /// `None`: never.
    last: Option<u64>,
    untold: u64,
}

impl LogSampler {
    /// How many have not been told, if it is time for a line. Both times in nanoseconds.
    pub(crate) fn due(&mut self, interval: u64, now: u64) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_sub(last) < interval) {
            self.untold += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_lines_become_one_a_second_that_says_how_many_are_missing() {
        const SECOND: u64 = 1_000_000_000;
        let mut sampled = LogSampler::default();
        let lines: Vec<_> = (0..25)
            .filter_map(|tenth| sampled.due(SECOND, tenth * SECOND / 10))
            .collect();
        assert_eq!(lines, [0, 9, 9]);
    }
}

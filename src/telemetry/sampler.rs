//! Limits how often a log line is written.
//!
//! The first line is written at once. Those that follow within the interval are counted, and the next line says
//! how many there were.

/// Lets at most one line pass in an interval.
#[derive(Debug, Default)]
pub(crate) struct LogSampler {
    last: Option<u64>,
    skipped: u64,
}

impl LogSampler {
    /// Returns how many lines were skipped since the last one, if a line is due. Both times are in nanoseconds.
    pub(crate) fn due(&mut self, interval: u64, now: u64) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_sub(last) < interval) {
            self.skipped += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.skipped))
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

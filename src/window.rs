//! How often things happened lately.
//!
//! A [`Window`] counts two kinds of events over a sliding span of time. The span is cut into slices; what is counted is
//! forgotten slice by slice, so a window looks back over the last nine to ten tenths of its span. Memory and the cost
//! of an event stay the same however many there are.
//!
//! What follows from the counts is decided by the callers.

use std::time::Duration;

use tokio::time::Instant;

use crate::units::nanos;

const SLICES: u64 = 10;

/// How often two kinds of events happened within the last `span`.
#[derive(Debug)]
pub(crate) struct Window {
    born: Instant,
    /// Of one slice, in nanoseconds.
    length: u64,
    /// The number of the newest slice since `born`.
    newest: u64,
    slices: [Counts; SLICES as usize],
    sum: Counts,
}

/// How often each of the two kinds happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) first: u32,
    pub(crate) second: u32,
}

impl Window {
    pub(crate) fn new(span: Duration, now: Instant) -> Self {
        Self {
            born: now,
            length: (nanos(span) / SLICES).max(1),
            newest: 0,
            slices: [Counts::default(); SLICES as usize],
            sum: Counts::default(),
        }
    }

    /// Counts one event of the first kind.
    pub(crate) fn first(&mut self, now: Instant) {
        let slice = self.slice(now);
        slice.first = slice.first.saturating_add(1);
        self.sum.first = self.sum.first.saturating_add(1);
    }

    /// Counts one event of the second kind.
    pub(crate) fn second(&mut self, now: Instant) {
        let slice = self.slice(now);
        slice.second = slice.second.saturating_add(1);
        self.sum.second = self.sum.second.saturating_add(1);
    }

    /// The events within the span.
    pub(crate) fn counts(&mut self, now: Instant) -> Counts {
        self.advance(now);
        self.sum
    }

    /// The slice of this moment. A clock that seems to go back counts into the newest.
    fn slice(&mut self, now: Instant) -> &mut Counts {
        self.advance(now);
        &mut self.slices[(self.newest % SLICES) as usize]
    }

    /// Forgets what is out of the span by now.
    fn advance(&mut self, now: Instant) {
        let current = nanos(now.saturating_duration_since(self.born)) / self.length;
        if current <= self.newest {
            return;
        }
        let outdated = (current - self.newest).min(SLICES);
        for number in (current - outdated + 1)..=current {
            let gone = std::mem::take(&mut self.slices[(number % SLICES) as usize]);
            self.sum.first -= gone.first.min(self.sum.first);
            self.sum.second -= gone.second.min(self.sum.second);
        }
        self.newest = current;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(10);

    #[test]
    fn what_is_older_than_the_span_is_forgotten() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = Window::new(SPAN, start);
        for second in [0, 0, 4, 9] {
            window.first(at(second));
        }
        window.second(at(9));
        for (second, first, second_kind) in [(9, 4, 1), (10, 2, 1), (13, 2, 1), (14, 1, 1), (19, 0, 0)] {
            let expected = Counts {
                first,
                second: second_kind,
            };
            assert_eq!(window.counts(at(second)), expected, "{second}");
        }
    }

    #[test]
    fn a_long_pause_forgets_everything_at_once() {
        let start = Instant::now();
        let mut window = Window::new(SPAN, start);
        window.first(start);
        let much_later = start + Duration::from_secs(1_000_000);
        window.second(much_later);
        assert_eq!(window.counts(much_later), Counts { first: 0, second: 1 });
    }

    #[test]
    fn a_clock_that_goes_back_loses_nothing() {
        let start = Instant::now();
        let mut window = Window::new(SPAN, start);
        window.first(start + Duration::from_secs(5));
        window.first(start);
        assert_eq!(window.counts(start), Counts { first: 2, second: 0 });
    }

    #[test]
    fn the_shortest_span_can_be_divided() {
        let start = Instant::now();
        let mut window = Window::new(Duration::from_nanos(1), start);
        window.first(start);
        assert_eq!(window.counts(start + SPAN), Counts::default());
    }
}

//! `log.metrics`: the key counters as lines of the log, for places where nothing can scrape.
//!
//! One line has the sums, and one follows for each destination that moved since the last time. All numbers are flat
//! fields, which log stores index as they are; a counter that did not move is left out. The lines are few and short:
//! the platform's limit on what an instance may log is shared with the app.

use std::collections::BTreeMap;

use prometheus::proto::{Metric, MetricFamily};
use tokio::time::Instant;

/// The target of the events. The log writes them at every level.
pub(super) const TARGET: &str = "metrics";

/// How many destinations get a separate line; the sums have the rest.
const MOST_LINES: usize = 20;

/// What was counted at the last line, by destination.
#[derive(Debug)]
pub(super) struct CounterLog {
    at: Instant,
    before: BTreeMap<String, Figures>,
}

/// Declares figures with how to add, subtract and log them.
macro_rules! figures {
    (counters { $($counter:ident),+ $(,)? } gauges { $($gauge:ident),+ $(,)? }) => {
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        struct Figures {
            $($counter: f64,)+
            $($gauge: f64,)+
        }

        impl Figures {
            fn add(&mut self, other: &Self) {
                $(self.$counter += other.$counter;)+
                $(self.$gauge += other.$gauge;)+
            }

            /// Returns what was counted since `before`. Gauges stay as they are.
            fn since(&self, before: &Self) -> Self {
                Self {
                    $($counter: (self.$counter - before.$counter).max(0.0),)+
                    $($gauge: self.$gauge,)+
                }
            }

            fn has_moved(&self) -> bool {
                false $(|| self.$counter > 0.0)+
            }

            fn log(&self, seconds: u64, destination: Option<&str>, left_out: Option<usize>) {
                tracing::info!(
                    target: TARGET,
                    destination,
                    seconds,
                    $($counter = shown(self.$counter),)+
                    $($gauge = shown(self.$gauge),)+
                    destinations_left_out = left_out,
                    "metrics"
                );
            }
        }
    };
}

figures! {
    counters {
        requests,
        status_2xx,
        status_3xx,
        status_4xx,
        status_5xx,
        answered_by_cache,
        answered_by_outrider,
        denied,
        errors,
        limit_refused,
        limit_waits,
        limit_wait_seconds,
        upstream_throttled,
        retries,
        bytes_sent,
        bytes_received,
    }
    gauges {
        in_flight,
        limit_waiting,
        tunnels_open,
    }
}

impl Default for CounterLog {
    fn default() -> Self {
        Self {
            at: Instant::now(),
            before: BTreeMap::new(),
        }
    }
}

impl CounterLog {
    /// Logs what was counted since the last call.
    pub(super) fn log(&mut self, families: &[MetricFamily], at: Instant) {
        let now = by_destination(families);
        let mut moved = Vec::new();
        let mut sums = Figures::default();
        for (destination, figures) in &now {
            let before = self.before.get(destination).copied().unwrap_or_default();
            let since = figures.since(&before);
            sums.add(&since);
            if since.has_moved() {
                moved.push((destination.as_str(), since));
            }
        }
        // The busiest first.
        moved.sort_by(|(_, one), (_, other)| other.requests.total_cmp(&one.requests));
        let left_out = moved.len().saturating_sub(MOST_LINES);
        let seconds = at.duration_since(self.at).as_secs();
        sums.log(seconds, None, (left_out > 0).then_some(left_out));
        for (destination, figures) in moved.iter().take(MOST_LINES) {
            figures.log(seconds, Some(destination), None);
        }
        self.at = at;
        self.before = now;
    }
}

fn by_destination(families: &[MetricFamily]) -> BTreeMap<String, Figures> {
    let mut all: BTreeMap<String, Figures> = BTreeMap::new();
    for family in families {
        for metric in family.get_metric() {
            let Some(destination) = label(metric, "destination") else {
                continue;
            };
            let figures = all.entry(destination.to_owned()).or_default();
            count(figures, family.name(), metric);
        }
    }
    all
}

fn count(figures: &mut Figures, name: &str, metric: &Metric) {
    let counted = metric.get_counter().get_value();
    match name {
        "outrider_requests_total" => {
            figures.requests += counted;
            match label(metric, "code").and_then(|code| code.bytes().next()) {
                Some(b'2') => figures.status_2xx += counted,
                Some(b'3') => figures.status_3xx += counted,
                Some(b'4') => figures.status_4xx += counted,
                Some(b'5') => figures.status_5xx += counted,
                _ => {}
            }
            match label(metric, "answered_by") {
                Some("cache") => figures.answered_by_cache += counted,
                Some("outrider") => figures.answered_by_outrider += counted,
                _ => {}
            }
        }
        "outrider_denied_total" => figures.denied += counted,
        "outrider_errors_total" => figures.errors += counted,
        "outrider_limit_refused_total" => figures.limit_refused += counted,
        "outrider_limit_wait_seconds" => {
            let histogram = metric.get_histogram();
            figures.limit_waits += histogram.get_sample_count() as f64;
            figures.limit_wait_seconds += histogram.get_sample_sum();
        }
        "outrider_upstream_throttled_total" => figures.upstream_throttled += counted,
        "outrider_retries_total" => figures.retries += counted,
        "outrider_bytes_total" => match label(metric, "direction") {
            Some("sent") => figures.bytes_sent += counted,
            Some("received") => figures.bytes_received += counted,
            _ => {}
        },
        "outrider_requests_in_flight" => figures.in_flight += metric.get_gauge().get_value(),
        "outrider_limit_waiting" => figures.limit_waiting += metric.get_gauge().get_value(),
        "outrider_tunnels_open" => figures.tunnels_open += metric.get_gauge().get_value(),
        _ => {}
    }
}

fn label<'m>(metric: &'m Metric, name: &str) -> Option<&'m str> {
    let pair = metric.get_label().iter().find(|pair| pair.name() == name)?;
    Some(pair.value())
}

/// Returns the figure to the thousandth; `None`, which is not written, for nothing.
fn shown(figure: f64) -> Option<f64> {
    let rounded = (figure * 1000.0).round() / 1000.0;
    (rounded > 0.0).then_some(rounded)
}

//! A page of metrics, read as Prometheus reads it.

/// The samples of one page.
#[derive(Debug, Default)]
pub(super) struct MetricsPage(Vec<Sample>);

#[derive(Debug)]
struct Sample {
    name: String,
    /// As written, without the braces.
    labels: String,
    value: f64,
}

impl MetricsPage {
    /// Reads the text format. Lines that are no samples are passed over.
    pub(super) fn read(page: &str) -> Self {
        Self(page.lines().filter_map(Sample::read).collect())
    }

    /// Whether `name` has these values, by destination.
    pub(super) fn hold(&self, name: &str, values: &[(&str, u32)]) -> bool {
        let holds = |(destination, value): &(&str, u32)| self.of(name, destination) == f64::from(*value);
        values.iter().all(holds)
    }

    /// The sum of the samples of `name` that have this destination; 0 where there is none.
    pub(super) fn of(&self, name: &str, destination: &str) -> f64 {
        let label = format!("destination=\"{destination}\"");
        let samples = self.0.iter().filter(|sample| sample.name == name);
        let ours = samples.filter(|sample| sample.labels.split(',').any(|pair| pair == label));
        ours.map(|sample| sample.value).sum()
    }
}

impl Sample {
    fn read(line: &str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        Some(Self {
            name: name.to_owned(),
            labels: labels.strip_suffix('}')?.to_owned(),
            value: value.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_of_a_destination_are_added_up() {
        let metrics_page = MetricsPage::read(
            "# HELP a_total Requests.\n\
             a_total{code=\"200\",destination=\"api\"} 2\n\
             a_total{code=\"429\",destination=\"api\"} 1\n\
             a_total{code=\"200\",destination=\"api-two\"} 4\n\
             a_total_created{destination=\"api\"} 8\n\
             alone 16\n",
        );
        assert_eq!(metrics_page.of("a_total", "api"), 3.0);
        assert_eq!(metrics_page.of("a_total", "partner"), 0.0);
        assert_eq!(metrics_page.of("b_total", "api"), 0.0);
        assert!(metrics_page.hold("a_total", &[("api", 3), ("partner", 0)]));
        assert!(!metrics_page.hold("a_total", &[("api", 3), ("api-two", 3)]));
    }
}

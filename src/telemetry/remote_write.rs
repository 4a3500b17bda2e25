//! All metrics as a request of Prometheus remote write 1.0: Protocol Buffers, compressed by Snappy.
//!
//! Every request holds all series with their values of now. So one that is lost needs no copy and no repeat: the next one
//! makes it good.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderValue, Method, Uri, header};
use prometheus::proto::{Metric, MetricFamily, MetricType};
use prost::Message;

use crate::message::Request;

const JOB: &str = "outrider";
/// A label of ours with this name makes way for the one of the job, as when Prometheus scrapes.
const INSTANCE: &str = "instance";

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    series: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<SeriesLabel>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<TimedSample>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Message)]
struct SeriesLabel {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct TimedSample {
    #[prost(double, tag = "1")]
    value: f64,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// Returns the request that writes all of `families` to `url`, as those of `instance`.
pub(super) fn request(
    families: &[MetricFamily],
    instance: &str,
    url: Uri,
    now: SystemTime,
) -> Request<Bytes> {
    let body = compressed(&encode(families, instance, now));
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url;
    let fields = request.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE.as_str(), "application/x-protobuf"),
        (header::CONTENT_ENCODING.as_str(), "snappy"),
        (
            header::USER_AGENT.as_str(),
            concat!("outrider/", env!("CARGO_PKG_VERSION")),
        ),
        ("x-prometheus-remote-write-version", "0.1.0"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    request
}

fn compressed(body: &[u8]) -> Bytes {
    // Fails only for 4 GiB and more.
    snap::raw::Encoder::new()
        .compress_vec(body)
        .map(Bytes::from)
        .unwrap_or_default()
}

fn encode(families: &[MetricFamily], instance: &str, now: SystemTime) -> Vec<u8> {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let timestamp = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let mut series = Vec::new();
    for family in families {
        for metric in family.get_metric() {
            let mut add = |suffix: &str, bound: Option<String>, value: f64| {
                let name = format!("{}{suffix}", family.name());
                series.push(TimeSeries {
                    labels: labels(name, metric, bound, instance),
                    samples: vec![TimedSample { value, timestamp }],
                });
            };
            match family.get_field_type() {
                MetricType::COUNTER => add("", None, metric.get_counter().get_value()),
                MetricType::GAUGE => add("", None, metric.get_gauge().get_value()),
                MetricType::HISTOGRAM => {
                    let histogram = metric.get_histogram();
                    for bucket in histogram.get_bucket() {
                        let bound = bucket.upper_bound();
                        if bound.is_finite() {
                            add(
                                "_bucket",
                                Some(bound.to_string()),
                                bucket.cumulative_count() as f64,
                            );
                        }
                    }
                    let count = histogram.get_sample_count() as f64;
                    add("_bucket", Some("+Inf".to_owned()), count);
                    add("_sum", None, histogram.get_sample_sum());
                    add("_count", None, count);
                }
                // None of ours is of these.
                MetricType::SUMMARY | MetricType::UNTYPED => {}
            }
        }
    }
    WriteRequest { series }.encode_to_vec()
}

/// Returns the labels of a series in the order of their names, which the protocol asks for.
fn labels(name: String, metric: &Metric, bound: Option<String>, instance: &str) -> Vec<SeriesLabel> {
    let label = |name: &str, value: String| SeriesLabel {
        name: name.to_owned(),
        value,
    };
    let mut labels = vec![
        label("__name__", name),
        label(INSTANCE, instance.to_owned()),
        label("job", JOB.to_owned()),
    ];
    labels.extend(bound.map(|bound| label("le", bound)));
    for pair in metric.get_label().iter().filter(|pair| !pair.value().is_empty()) {
        let name = match pair.name() {
            INSTANCE => "exported_instance",
            name => name,
        };
        labels.push(label(name, pair.value().to_owned()));
    }
    labels.sort();
    labels
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntGaugeVec, Opts, Registry};

    use super::*;

    #[test]
    fn every_kind_becomes_its_series_with_labels_in_order() {
        let registry = Registry::new();
        let counter = IntCounter::new("a_total", "x").unwrap();
        counter.inc_by(3);
        let gauge = IntGaugeVec::new(Opts::new("info", "x"), &["zone", "instance", "app"]).unwrap();
        gauge.with_label_values(&["z", "0", ""]).set(1);
        let options = HistogramOpts::new("time_seconds", "x").buckets(vec![0.5, 2.0]);
        let histogram = HistogramVec::new(options, &["destination"]).unwrap();
        histogram.with_label_values(&["p"]).observe(1.0);
        registry.register(Box::new(counter)).unwrap();
        registry.register(Box::new(gauge)).unwrap();
        registry.register(Box::new(histogram)).unwrap();

        let url = Uri::from_static("https://prom.test/api/v1/write");
        let now = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let request = request(&registry.gather(), "app/0", url, now);
        let raw = snap::raw::Decoder::new().decompress_vec(request.body()).unwrap();
        let written = WriteRequest::decode(&*raw).unwrap();
        let shown: Vec<_> = written
            .series
            .iter()
            .map(|one| {
                assert!(one.labels.is_sorted());
                let labels = one
                    .labels
                    .iter()
                    .map(|label| format!("{}={}", label.name, label.value));
                assert_eq!(one.samples[0].timestamp, 1_700_000_000_123);
                format!(
                    "{} {}",
                    labels.collect::<Vec<_>>().join(","),
                    one.samples[0].value
                )
            })
            .collect();
        let of_time = |name: &str, le: &str, value: u8| {
            format!("__name__=time_seconds{name},destination=p,instance=app/0,job=outrider{le} {value}")
        };
        assert_eq!(
            shown,
            [
                "__name__=a_total,instance=app/0,job=outrider 3".to_owned(),
                "__name__=info,exported_instance=0,instance=app/0,job=outrider,zone=z 1".to_owned(),
                of_time("_bucket", ",le=0.5", 0),
                of_time("_bucket", ",le=2", 1),
                of_time("_bucket", ",le=+Inf", 1),
                of_time("_sum", "", 1),
                of_time("_count", "", 1),
            ]
        );
    }
}

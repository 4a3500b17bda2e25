//! How long the client itself waits for an answer, where it says so.
//!
//! Only fields are read whose meaning and unit are specified, or settled by the programs that send them: `Prefer:
//! wait=` (RFC 7240), `grpc-timeout` (gRPC), `connect-timeout-ms` (Connect), `x-envoy-upstream-rq-timeout-ms` and
//! `x-envoy-expected-rq-timeout-ms` (Envoy), `x-server-timeout` (Google's client libraries, in seconds) and
//! `x-stainless-timeout` (the OpenAI and Anthropic libraries among others, in seconds). `Request-Timeout` and
//! `X-Request-Timeout` are not read: some clients send seconds, some milliseconds, some a unit, and a guess would
//! refuse requests that had time. The shortest of several fields counts; a malformed field is ignored.
//!
//! Pure, and called only if a request would have to wait.

use std::time::Duration;

use crate::message::Fields;

const FIELDS: &[(&str, ParseDuration)] = &[
    ("prefer", prefer),
    ("grpc-timeout", grpc),
    ("connect-timeout-ms", milliseconds),
    ("x-envoy-upstream-rq-timeout-ms", milliseconds),
    ("x-envoy-expected-rq-timeout-ms", milliseconds),
    ("x-server-timeout", seconds),
    ("x-stainless-timeout", seconds),
];

/// Returns how long the client of a request with these fields waits for its answer; `None` where it does not say.
pub(crate) fn deadline(fields: &Fields) -> Option<Duration> {
    let values = FIELDS.iter().flat_map(|(name, read)| {
        let values = fields.get_all(*name);
        values.filter_map(|value| read(value.to_str().ok()?.trim()))
    });
    values.min()
}

/// Reads `wait=10` among other preferences, as in `respond-async, wait=10; x="y"`.
fn prefer(value: &str) -> Option<Duration> {
    let mut preferences = value.split(',').filter_map(|preference| {
        let (name, rest) = preference.split_once('=')?;
        let value = rest.split_once(';').map_or(rest, |(value, _)| value);
        (name.trim().eq_ignore_ascii_case("wait")).then(|| value.trim())
    });
    let number = preferences.next()?;
    let bare = number.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    whole(bare.unwrap_or(number)).map(Duration::from_secs)
}

/// Reads up to eight digits and a unit: `100m`.
fn grpc(value: &str) -> Option<Duration> {
    let (number, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if number.len() > 8 {
        return None;
    }
    let number = whole(number)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Reads milliseconds. Zero turns the limit off in Envoy.
fn milliseconds(value: &str) -> Option<Duration> {
    whole(value)
        .filter(|number| *number > 0)
        .map(Duration::from_millis)
}

/// Reads seconds, with or without a fraction. A client that waited no time would not ask, so zero is ignored.
fn seconds(value: &str) -> Option<Duration> {
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds: f64 = value.parse().ok().filter(|_| is_plain)?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| !duration.is_zero())
}

fn whole(text: &str) -> Option<u64> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

type ParseDuration = fn(&str) -> Option<Duration>;

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn of(fields: &[(&str, &str)]) -> Option<u128> {
        let fields = fields.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        let mut map = Fields::new();
        for (name, value) in fields {
            map.append(name, value);
        }
        deadline(&map).map(|deadline| deadline.as_nanos())
    }

    #[test]
    fn each_field_has_its_unit() {
        let cases: &[(&str, &str, u128)] = &[
            ("prefer", "wait=10", 10_000_000_000),
            ("Prefer", "respond-async, Wait=100; foo=\"a\"", 100_000_000_000),
            ("prefer", "wait=\"0\"", 0),
            ("grpc-timeout", "2H", 7_200_000_000_000),
            ("grpc-timeout", "1M", 60_000_000_000),
            ("grpc-timeout", "3S", 3_000_000_000),
            ("grpc-timeout", "99999999m", 99_999_999_000_000),
            ("grpc-timeout", "5u", 5000),
            ("grpc-timeout", "7n", 7),
            ("connect-timeout-ms", "250", 250_000_000),
            ("x-envoy-upstream-rq-timeout-ms", "1500", 1_500_000_000),
            ("x-envoy-expected-rq-timeout-ms", "20", 20_000_000),
            ("x-server-timeout", "1.5", 1_500_000_000),
            ("x-stainless-timeout", "600", 600_000_000_000),
        ];
        for (name, value, expected) in cases {
            assert_eq!(of(&[(name, value)]), Some(*expected), "{name}: {value}");
        }
    }

    #[test]
    fn the_shortest_counts() {
        let fields = [
            ("prefer", "return=minimal"),
            ("prefer", "wait=30"),
            ("x-server-timeout", "20"),
            ("connect-timeout-ms", "x"),
        ];
        assert_eq!(of(&fields), Some(20_000_000_000));
    }

    #[test]
    fn nonsense_says_nothing() {
        let cases = [
            ("prefer", "wait"),
            ("prefer", "wait="),
            ("prefer", "wait=-1"),
            ("prefer", "wait=1.5"),
            ("prefer", "await=3"),
            ("prefer", "wait=99999999999999999999"),
            ("grpc-timeout", ""),
            ("grpc-timeout", "S"),
            ("grpc-timeout", "123456789S"),
            ("grpc-timeout", "1s"),
            ("grpc-timeout", "1é"),
            ("grpc-timeout", "+1S"),
            ("connect-timeout-ms", "0"),
            ("connect-timeout-ms", "1e3"),
            ("x-envoy-upstream-rq-timeout-ms", "NaN"),
            ("x-server-timeout", "NaN"),
            ("x-server-timeout", "inf"),
            ("x-server-timeout", "-1"),
            ("x-server-timeout", "1e300"),
            ("x-server-timeout", "0"),
            ("x-stainless-timeout", "1.2.3"),
            ("request-timeout", "5"),
            ("x-request-timeout", "5"),
        ];
        for (name, value) in cases {
            assert_eq!(of(&[(name, value)]), None, "{name}: {value}");
        }
    }

    #[test]
    fn no_bytes_panic() {
        let mut random = StdRng::seed_from_u64(1);
        let alphabet = b"0199.,;= \"wait-HSmun\xc3\xa9\xff";
        for _ in 0..20_000 {
            let length = random.random_range(0..12);
            let value: Vec<u8> = (0..length)
                .map(|_| alphabet[random.random_range(0..alphabet.len())])
                .collect();
            let mut map = Fields::new();
            for (name, _) in FIELDS {
                map.insert(*name, HeaderValue::from_bytes(&value).unwrap());
            }
            deadline(&map);
        }
    }
}

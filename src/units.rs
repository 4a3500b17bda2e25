//! Durations, sizes and rates as the configuration writes them.
//!
//! Every amount is a whole number with a unit, so that nobody has to guess what `60` means. The limits here
//! keep later arithmetic from overflowing; which amounts make sense for a key is decided in `config`.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second of the year 9999, since 1970.
pub(crate) const LAST_DATE: i64 = 253_402_300_799;

/// After so many seconds the Gregorian calendar repeats.
const FOUR_CENTURIES: i64 = 146_097 * 86_400;

/// In milliseconds.
const DURATION_UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// In seconds.
const RATE_UNITS: &[(&str, u64)] = &[("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];

/// A text that is not a duration, size or rate. `Display` says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnitError {
    #[error("not a duration; write a number and a unit, as in 500ms, 10s, 5m, 1h or 7d")]
    Duration,
    #[error(
        "not a rate; write requests per unit, as in 5/s, 30/m, 1000/h or 10000/d, with an optional burst: 5/s burst 10"
    )]
    Rate,
    #[error("not a size; write a number and a unit, as in 512B, 64KiB or 1MiB")]
    Size,
    #[error("longer than a year; write at most 365d")]
    TooLong,
}

/// A number of requests in a span of time, with room for a burst.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rate {
    /// Requests per `per`; 0 refuses everything.
    pub(crate) count: u32,
    /// One of a second, a minute, an hour or a day.
    pub(crate) per: Duration,
    /// How many may pass at once after a quiet time; at least 1. Not written, it is `count`: `5/s` lets five
    /// pass at once and then one every 200 ms, which is what most people mean by it. `5/s burst 1` spaces them.
    pub(crate) burst: u32,
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut words = text.split_ascii_whitespace();
        let (count, unit) = words
            .next()
            .and_then(|rate| rate.split_once('/'))
            .ok_or(UnitError::Rate)?;
        let count: u32 = whole(count)
            .and_then(|count| count.try_into().ok())
            .ok_or(UnitError::Rate)?;
        let per = RATE_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or(UnitError::Rate)?
            .1;
        let burst = match (words.next(), words.next(), words.next()) {
            (None, _, _) => count.max(1),
            (Some("burst"), Some(burst), None) => whole(burst)
                .and_then(|burst| burst.try_into().ok())
                .filter(|b| *b > 0)
                .ok_or(UnitError::Rate)?,
            _ => return Err(UnitError::Rate),
        };
        Ok(Self {
            count,
            per: Duration::from_secs(per),
            burst,
        })
    }
}

/// As it is written in the configuration: `5/s burst 10`. It is the metric label of the limit.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = RATE_UNITS
            .iter()
            .find(|(_, seconds)| *seconds == self.per.as_secs());
        write!(f, "{}/{}", self.count, unit.map_or("?", |(name, _)| name))?;
        if self.burst == self.count.max(1) {
            Ok(())
        } else {
            write!(f, " burst {}", self.burst)
        }
    }
}

/// Returns nanoseconds, at most 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the value for Retry-After: whole seconds, rounded up, at least one.
pub(crate) fn retry_after(duration: Duration) -> u64 {
    let up = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(up).max(1)
}

/// Returns whole seconds since 1970, negative before it, as gauges and tokens have them.
pub(crate) fn unix_seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => {
            let before = before.duration();
            let up = u64::from(before.subsec_nanos() > 0);
            i64::try_from(before.as_secs().saturating_add(up)).map_or(i64::MIN, |seconds| -seconds)
        }
    }
}

/// Writes a moment as RFC 3339 does, to the second. Certificates may name any year; humantime panics outside of
/// 1970 to 9999, so it is given the same moment of a year that it can write: the calendar repeats after 400 years.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let seconds = unix_seconds(time);
    let (cycles, within) = (
        seconds.div_euclid(FOUR_CENTURIES),
        seconds.rem_euclid(FOUR_CENTURIES),
    );
    #[expect(clippy::disallowed_methods, reason = "between 1970 and 2370 it does not fail")]
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(within.unsigned_abs()));
    let text = text.to_string();
    match text
        .split_at_checked(4)
        .map(|(year, rest)| (year.parse::<i64>(), rest))
    {
        Some((Ok(year), rest)) if cycles != 0 => {
            format!("{:04}{rest}", year.saturating_add(cycles.saturating_mul(400)))
        }
        _ => text,
    }
}

/// Writes a moment as HTTP does (RFC 9110, section 5.6.7), which knows the years to 9999; httpdate panics elsewhere.
pub(crate) fn http_date(time: SystemTime) -> String {
    let seconds = unix_seconds(time).clamp(0, LAST_DATE).unsigned_abs();
    #[expect(clippy::disallowed_methods, reason = "between 1970 and 9999 it does not fail")]
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Parses `500ms`, `10s`, `5m`, `1h`, `7d`; at most a year.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text).ok_or(UnitError::Duration)?;
    let unit = DURATION_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or(UnitError::Duration)?
        .1;
    let milliseconds = number.checked_mul(unit).ok_or(UnitError::TooLong)?;
    let duration = Duration::from_millis(milliseconds);
    if duration > LONGEST {
        Err(UnitError::TooLong)
    } else {
        Ok(duration)
    }
}

/// Parses `64KiB`, `1MiB`, `512M`, `100B` into bytes. `K`, `M` and `G` are powers of 1024, as Cloud Foundry
/// writes them.
pub(crate) fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text).ok_or(UnitError::Size)?;
    let shift = match unit {
        "B" => 0,
        "KiB" | "K" | "k" => 10,
        "MiB" | "M" | "m" => 20,
        "GiB" | "G" | "g" => 30,
        _ => return Err(UnitError::Size),
    };
    number.checked_mul(1 << shift).ok_or(UnitError::Size)
}

/// Parses `20%`: whole percents from 0 to 100.
pub(crate) fn parse_percent(text: &str) -> Option<u8> {
    let number = whole(text.strip_suffix('%')?)?;
    u8::try_from(number).ok().filter(|percent| *percent <= 100)
}

/// Splits a text into the number in front and the rest.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((whole(number)?, unit))
}

/// A whole number in digits only: no sign, no blank, no overflow.
fn whole(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Later arithmetic adds durations to the clock, which panics on overflow.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_moment_of_any_year_is_written_and_counted() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (12_622_780_800, "2370-01-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (253_402_300_800, "10000-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (-86_400 * 365, "1969-01-01T00:00:00Z"),
            (-2_208_988_800, "1900-01-01T00:00:00Z"),
            (-62_167_219_200, "0000-01-01T00:00:00Z"),
        ] {
            let away = Duration::from_secs(i64::unsigned_abs(seconds));
            let time = if seconds < 0 {
                UNIX_EPOCH - away
            } else {
                UNIX_EPOCH + away
            };
            assert_eq!(rfc3339(time), text);
            assert_eq!(unix_seconds(time), seconds);
        }
        assert_eq!(
            rfc3339(UNIX_EPOCH - Duration::from_nanos(1)),
            "1969-12-31T23:59:59Z"
        );
        let (early, late) = (UNIX_EPOCH - DAY, UNIX_EPOCH + 3_000_000 * DAY);
        assert_eq!(http_date(early), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(late), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            ("365d", 31_536_000_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn a_text_that_is_no_duration_is_refused() {
        for text in [
            "", "5", "s", "5 s", "-5s", "+5s", "1.5s", "5S", "5sec", "5s ", " 5s", "٥s", "5m30s",
        ] {
            assert_eq!(parse_duration(text), Err(UnitError::Duration), "{text:?}");
        }
        for text in ["366d", "18446744073709551615d", "18446744073709551615ms"] {
            assert_eq!(parse_duration(text), Err(UnitError::TooLong), "{text:?}");
        }
        assert_eq!(parse_duration("99999999999999999999s"), Err(UnitError::Duration));
    }

    #[test]
    fn a_size_is_a_number_and_a_unit() {
        for (text, bytes) in [
            ("100B", 100),
            ("64KiB", 65_536),
            ("1MiB", 1 << 20),
            ("512M", 512 << 20),
            ("512m", 512 << 20),
            ("2G", 2 << 30),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_size_is_refused() {
        for text in [
            "",
            "64",
            "KiB",
            "64KB",
            "64 KiB",
            "-1B",
            "1.5MiB",
            "18446744073709551615K",
            "64kib",
        ] {
            assert_eq!(parse_size(text), Err(UnitError::Size), "{text:?}");
        }
    }

    #[test]
    fn a_share_is_whole_percents() {
        for (text, percent) in [("0%", 0), ("20%", 20), ("100%", 100)] {
            assert_eq!(parse_percent(text), Some(percent), "{text}");
        }
        for text in [
            "", "20", "%", "101%", "-1%", "+1%", "1.5%", " 2%", "2 %", "2%%", "256%",
        ] {
            assert_eq!(parse_percent(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_rate_has_a_burst_of_its_count_unless_it_says_otherwise() {
        for (text, count, seconds, burst) in [
            ("5/s", 5, 1, 5),
            ("30/m", 30, 60, 30),
            ("1000/h", 1000, 3_600, 1000),
            ("10000/d", 10_000, 86_400, 10_000),
            ("5/s burst 10", 5, 1, 10),
            ("5/s   burst  1", 5, 1, 1),
            ("0/s", 0, 1, 1),
        ] {
            let rate = Rate {
                count,
                per: Duration::from_secs(seconds),
                burst,
            };
            assert_eq!(text.parse(), Ok(rate), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_rate_is_refused() {
        for text in [
            "",
            "5",
            "5/",
            "/s",
            "5/x",
            "5 /s",
            "5/ s",
            "-5/s",
            "+5/s",
            "1.5/s",
            "5/s burst",
            "5/s burst 0",
            "5/s burst x",
            "5/s burst 1 2",
            "5/s brust 1",
            "4294967296/s",
            "5/s burst 4294967296",
            "5/2s",
        ] {
            assert_eq!(text.parse::<Rate>(), Err(UnitError::Rate), "{text:?}");
        }
    }

    #[test]
    fn a_rate_is_shown_as_it_is_written() {
        for text in ["5/s", "30/m burst 2", "1000/h", "10000/d burst 1", "0/s"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        assert_eq!("5/s  burst 5".parse::<Rate>().unwrap().to_string(), "5/s");
    }
}

//! Durations, sizes and rates as the configuration writes them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A text that is no duration, size or rate; `Display` says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseError {
    #[error("not a duration; write a number and a unit, as in 500ms, 10s, 5m, 1h or 7d")]
    Duration,
    #[error(
        "not a rate; write requests per unit, as in 5/s, 30/m, 1000/h or 10000/d, with an optional burst: 5/s burst 10"
    )]
    Rate,
    #[error("not a size; write a number and a unit, as in 512B, 64KiB or 1MiB")]
    Size,
}

/// Parses `500ms`, `10s`, `5m`, `1h`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, ParseError> {
    todo!("{text}")
}

/// Parses `64KiB`, `1MiB`, `512M`, `100B` into bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, ParseError> {
    todo!("{text}")
}

/// So many requests in so much time, with room for a burst.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rate {
    /// Requests per `per`; 0 refuses everything.
    pub(crate) count: u32,
    /// One of a second, a minute, an hour or a day.
    pub(crate) per: Duration,
    /// How many may pass at once after a quiet time; at least 1. Defaults to `1` for `/s`… the config helper decides and documents.
    pub(crate) burst: u32,
}

impl FromStr for Rate {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        todo!("{text}")
    }
}

/// As it is written in the configuration: `5/s burst 10`. It is the metric label of the limit.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        {
            let _ = f;
            todo!()
        }
    }
}

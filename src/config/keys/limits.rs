//! The keys of a destination's limits, and of what is done to stay within them.

use super::{Kind, Table, needed, works};

pub(in crate::config) static RATE_LIMIT: Table = &[
    needed("limit", Kind::Rate, "As in 2/s burst 4."),
    works(
        "match",
        Kind::Table(MATCH),
        "{}",
        "Which requests it counts; default: all.",
    ),
];

pub(in crate::config) static MATCH: Table = &[
    works("method", Kind::Text, "", "As in POST; default: any."),
    works("path", Kind::Text, "", "As in /api/**; default: any."),
];

pub(in crate::config) static PRIORITY: Table = &[
    works(
        "match",
        Kind::Table(MATCH),
        "{}",
        "Which requests are of this class; default: all.",
    ),
    needed(
        "class",
        Kind::Choice(&["high", "normal", "low"]),
        "high, normal or low.",
    ),
];

pub(in crate::config) static RETRY: Table = &[
    works(
        "attempts",
        Kind::Number(2, MOST_ATTEMPTS),
        "2",
        "How often a request is sent at most, the first time included.",
    ),
    works(
        "on",
        Kind::Filled(&Kind::Choice(RETRIED)),
        "[connect, 429, 503]",
        "After what: no connection, or one of these answers.",
    ),
    works(
        "max_wait",
        Kind::Duration,
        "5s",
        "An answer that asks for a longer wait is passed on as it is.",
    ),
    works(
        "budget",
        Kind::Text,
        "20%",
        "How many of the requests may be repeats.",
    ),
];

pub(in crate::config) static CIRCUIT_BREAKER: Table = &[
    works(
        "failures",
        Kind::Number(1, MOST_FAILURES),
        "10",
        "After so many failures a host is left alone.",
    ),
    works("within", Kind::Duration, "30s", "Failures count for so long."),
    works(
        "open_for",
        Kind::Duration,
        "15s",
        "After so long one request tries whether it works again.",
    ),
];

pub(in crate::config) static CACHE: Table = &[
    works(
        "size",
        Kind::Size,
        "16MiB",
        "Of all that is kept, from 64KiB to 16GiB.",
    ),
    works(
        "min_fresh",
        Kind::Duration,
        "0s",
        "What is kept is not asked for again before it is so old.",
    ),
    works(
        "stale_if_error",
        Kind::Duration,
        "10m",
        "How long after its time an answer serves on when the destination fails.",
    ),
    works(
        "stale_while_revalidate",
        Kind::Duration,
        "0s",
        "How long after its time an answer serves on while a new one is fetched.",
    ),
];

pub(in crate::config) static REHEARSE: Table = &[
    works(
        "after",
        Kind::Number(0, super::MOST_CONCURRENT),
        "",
        "After so many requests the limit is said to be reached; default: never.",
    ),
    works(
        "answer",
        Kind::Choice(&REHEARSED),
        "429",
        "The status that says so.",
    ),
    works(
        "retry_after",
        Kind::Duration,
        "10s",
        "How long it says to wait; then as many requests pass again.",
    ),
    works("latency", Kind::Duration, "0s", "Added to every answer."),
    works("fail", Kind::Text, "0%", "How many of the requests fail."),
];

/// After what a request may be sent again.
pub(in crate::config) const RETRIED: &[&str] = &["connect", "408", "425", "429", "500", "502", "503", "504"];

/// How a destination says that its limit is reached.
pub(in crate::config) const REHEARSED: [&str; 3] = ["429", "503", "403"];

pub(in crate::config) const MOST_ATTEMPTS: u64 = 10;
pub(in crate::config) const MOST_FAILURES: u64 = 1_000_000;

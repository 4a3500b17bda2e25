//! The names of the fields that speak of limits, and what each tells.

use std::time::Duration;

/// A field that speaks of limits.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) scope: Scope,
    pub(super) part: Part,
}

/// What the fields of one quota have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// What they tell is about the answer, or about the quota without a name of its own.
    Answer,
    /// `ratelimit-*`, `x-ratelimit-*`, `x-rate-limit-*`: three ways to tell the quota without a name.
    Draft,
    X,
    Dashed,
    Requests,
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Interval,
    Shop,
}

/// What a field tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Limit,
    Name,
    Policy,
    Remaining,
    Reset,
    ResetAfter,
    RetryAfter,
    RetryAfterMillis,
    State,
    Used,
    WindowMillis,
}

impl Field {
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        if !may_speak(name) {
            return None;
        }
        let place = FIELDS.binary_search_by(|field| field.name.cmp(name)).ok()?;
        FIELDS.get(place)
    }
}

impl Scope {
    /// The name of the quota, where the fields name it.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Answer | Self::Draft | Self::X | Self::Dashed => None,
            Self::Requests => Some("requests"),
            Self::Second => Some("second"),
            Self::Minute => Some("minute"),
            Self::Hour => Some("hour"),
            Self::Day => Some("day"),
            Self::Month => Some("month"),
            Self::Interval => Some("interval"),
            Self::Shop => Some("shop"),
        }
    }

    /// The window of the quota, where the name tells it.
    pub(super) fn window(self) -> Option<Duration> {
        let seconds = match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Month => 30 * 86_400,
            Self::Answer | Self::Draft | Self::X | Self::Dashed => return None,
            Self::Requests | Self::Interval | Self::Shop => return None,
        };
        Some(Duration::from_secs(seconds))
    }
}

impl Part {
    /// It holds on an answer out of a cache, too.
    pub(super) fn is_retry(self) -> bool {
        matches!(self, Self::RetryAfter | Self::RetryAfterMillis)
    }
}

/// Whether a name may be one of [`FIELDS`]: on the way of every answer, so a look at its first letters.
pub(super) fn may_speak(name: &str) -> bool {
    match name.as_bytes() {
        [b'r', b'a' | b'e', b't', rest @ ..] => rest.starts_with(b"elimit") || rest.starts_with(b"ry-after"),
        [b'x', b'-', b'r', b'a', b't', b'e', ..] => true,
        [b'x', b'-', b'h' | b'm' | b's', ..] => {
            name.starts_with("x-hubspot-ratelimit-")
                || name == "x-ms-retry-after-ms"
                || name == "x-shopify-shop-api-call-limit"
        }
        [b'a', b'n', ..] => name.starts_with("anthropic-ratelimit-"),
        _ => false,
    }
}

const fn field(name: &'static str, scope: Scope, part: Part) -> Field {
    Field { name, scope, part }
}

/// In the order of their names.
pub(super) static FIELDS: &[Field] = &[
    field("anthropic-ratelimit-requests-limit", Scope::Requests, Part::Limit),
    field(
        "anthropic-ratelimit-requests-remaining",
        Scope::Requests,
        Part::Remaining,
    ),
    field("anthropic-ratelimit-requests-reset", Scope::Requests, Part::Reset),
    field("ratelimit", Scope::Answer, Part::State),
    field("ratelimit-limit", Scope::Draft, Part::Limit),
    field("ratelimit-name", Scope::Answer, Part::Name),
    field("ratelimit-policy", Scope::Answer, Part::Policy),
    field("ratelimit-remaining", Scope::Draft, Part::Remaining),
    field("ratelimit-reset", Scope::Draft, Part::Reset),
    field("retry-after", Scope::Answer, Part::RetryAfter),
    field("retry-after-ms", Scope::Answer, Part::RetryAfterMillis),
    field("x-hubspot-ratelimit-daily", Scope::Day, Part::Limit),
    field("x-hubspot-ratelimit-daily-remaining", Scope::Day, Part::Remaining),
    field(
        "x-hubspot-ratelimit-interval-milliseconds",
        Scope::Interval,
        Part::WindowMillis,
    ),
    field("x-hubspot-ratelimit-max", Scope::Interval, Part::Limit),
    field("x-hubspot-ratelimit-remaining", Scope::Interval, Part::Remaining),
    field("x-hubspot-ratelimit-secondly", Scope::Second, Part::Limit),
    field(
        "x-hubspot-ratelimit-secondly-remaining",
        Scope::Second,
        Part::Remaining,
    ),
    field("x-ms-retry-after-ms", Scope::Answer, Part::RetryAfterMillis),
    field("x-rate-limit-limit", Scope::Dashed, Part::Limit),
    field("x-rate-limit-remaining", Scope::Dashed, Part::Remaining),
    field("x-rate-limit-reset", Scope::Dashed, Part::Reset),
    field("x-ratelimit-bucket", Scope::Answer, Part::Name),
    field("x-ratelimit-limit", Scope::X, Part::Limit),
    field("x-ratelimit-limit-day", Scope::Day, Part::Limit),
    field("x-ratelimit-limit-hour", Scope::Hour, Part::Limit),
    field("x-ratelimit-limit-minute", Scope::Minute, Part::Limit),
    field("x-ratelimit-limit-month", Scope::Month, Part::Limit),
    field("x-ratelimit-limit-requests", Scope::Requests, Part::Limit),
    field("x-ratelimit-limit-second", Scope::Second, Part::Limit),
    field("x-ratelimit-remaining", Scope::X, Part::Remaining),
    field("x-ratelimit-remaining-day", Scope::Day, Part::Remaining),
    field("x-ratelimit-remaining-hour", Scope::Hour, Part::Remaining),
    field("x-ratelimit-remaining-minute", Scope::Minute, Part::Remaining),
    field("x-ratelimit-remaining-month", Scope::Month, Part::Remaining),
    field("x-ratelimit-remaining-requests", Scope::Requests, Part::Remaining),
    field("x-ratelimit-remaining-second", Scope::Second, Part::Remaining),
    field("x-ratelimit-requests-limit", Scope::Requests, Part::Limit),
    field("x-ratelimit-requests-remaining", Scope::Requests, Part::Remaining),
    field("x-ratelimit-requests-reset", Scope::Requests, Part::Reset),
    field("x-ratelimit-reset", Scope::X, Part::Reset),
    field("x-ratelimit-reset-after", Scope::Answer, Part::ResetAfter),
    field("x-ratelimit-reset-requests", Scope::Requests, Part::Reset),
    field("x-ratelimit-resource", Scope::Answer, Part::Name),
    field("x-ratelimit-retry-after", Scope::Answer, Part::RetryAfter),
    field("x-shopify-shop-api-call-limit", Scope::Shop, Part::Used),
];

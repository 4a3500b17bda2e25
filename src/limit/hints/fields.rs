//! The names of the fields about limits, and what each one says.
//!
//! [`FIELDS`] lists the names that follow no rule. The others are read word by word. After `RateLimit-`,
//! `X-RateLimit-` or `X-Rate-Limit-` comes `Limit`, `Remaining` or `Reset`, and the rest of the name is the name
//! of the quota: `X-RateLimit-Limit-short`, `X-RateLimit-User-Limit`, `X-RateLimit-UserLimit`. After
//! `Retry-After-` comes the name of the quota, too.

use std::time::Duration;

/// Sorted by name.
pub(super) static FIELDS: &[LimitField] = &[
    field("anthropic-ratelimit-requests-limit", "requests", FieldPart::Limit),
    field(
        "anthropic-ratelimit-requests-remaining",
        "requests",
        FieldPart::Remaining,
    ),
    field("anthropic-ratelimit-requests-reset", "requests", FieldPart::Reset),
    field("grpc-retry-pushback-ms", "", FieldPart::GrpcPushback),
    field("grpc-status-details-bin", "", FieldPart::GrpcDetails),
    field("ratelimit", "", FieldPart::State),
    field("ratelimit-name", "", FieldPart::Name),
    field("ratelimit-policy", "", FieldPart::Policy),
    field("retry-after", "", FieldPart::RetryAfter),
    field("retry-after-ms", "", FieldPart::RetryAfterMillis),
    field("x-hubspot-ratelimit-daily", "day", FieldPart::Limit),
    field("x-hubspot-ratelimit-daily-remaining", "day", FieldPart::Remaining),
    field(
        "x-hubspot-ratelimit-interval-milliseconds",
        "interval",
        FieldPart::WindowMillis,
    ),
    field("x-hubspot-ratelimit-max", "interval", FieldPart::Limit),
    field("x-hubspot-ratelimit-remaining", "interval", FieldPart::Remaining),
    field("x-hubspot-ratelimit-secondly", "second", FieldPart::Limit),
    field(
        "x-hubspot-ratelimit-secondly-remaining",
        "second",
        FieldPart::Remaining,
    ),
    field("x-ms-retry-after-ms", "", FieldPart::RetryAfterMillis),
    field("x-rate-limit-retry-after", "", FieldPart::RetryAfter),
    field("x-ratelimit-after", "", FieldPart::RetryAfter),
    field("x-ratelimit-bucket", "", FieldPart::Name),
    field("x-ratelimit-resource", "", FieldPart::Name),
    field("x-ratelimit-retry-after", "", FieldPart::RetryAfter),
    field("x-retry-after", "", FieldPart::RetryAfter),
    field("x-retry-in", "", FieldPart::RetryIn),
    field("x-shopify-shop-api-call-limit", "shop", FieldPart::Used),
];

const FAMILIES: &[(&str, FieldFamily)] = &[
    ("ratelimit", FieldFamily::Draft),
    ("x-ratelimit", FieldFamily::X),
    ("x-rate-limit", FieldFamily::Dashed),
];
const RETRIES: &[&str] = &[
    "retry-after",
    "x-rate-limit-retry-after",
    "x-ratelimit-retry-after",
    "x-retry-after",
];

/// A field about limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct LimitField<'n> {
    pub(super) quota: QuotaKey<'n>,
    pub(super) part: FieldPart,
    /// Its name, without the quota's.
    pub(super) stem: &'static str,
}

/// What the fields of one quota have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QuotaKey<'n> {
    pub(super) family: FieldFamily,
    /// The parts of the field's name before and after the word that says what it is; both empty where the quota
    /// has no name.
    name: (&'n str, &'n str),
}

/// Fields whose names begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldFamily {
    /// `ratelimit-*`
    Draft,
    /// `x-ratelimit-*`
    X,
    /// `x-rate-limit-*`
    Dashed,
    /// Any other name.
    Other,
}

/// What a field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldPart {
    GrpcDetails,
    GrpcPushback,
    Limit,
    Name,
    Policy,
    Remaining,
    Reset,
    /// Seconds from now, however large the number.
    ResetAfter,
    ResetMillis,
    RetryAfter,
    RetryAfterMillis,
    /// With units, exact.
    RetryIn,
    State,
    Used,
    WindowMillis,
}

impl<'n> LimitField<'n> {
    pub(super) fn named(name: &'n str) -> Option<Self> {
        if !may_speak(name) {
            return None;
        }
        let of_family = (FAMILIES.iter())
            .find_map(|(stem, family)| Some((*family, name.strip_prefix(stem)?.strip_prefix('-')?)));
        // Most fields have such a name.
        if let Some((family, words)) = of_family
            && let Some(("", part)) = part_of(words)
        {
            return Some(Self::of_quota(family, ("", ""), part));
        }
        if let Ok(place) = FIELDS.binary_search_by(|field| field.stem.cmp(name)) {
            return FIELDS.get(place).copied();
        }
        let of_retry =
            (RETRIES.iter()).find_map(|stem| Some((*stem, name.strip_prefix(stem)?.strip_prefix('-')?)));
        match of_retry {
            Some((stem, quota)) => Some(Self::retry(stem, quota)),
            None => of_family.and_then(|(family, words)| Self::worded(family, words)),
        }
    }

    /// Whether the name only looks like one about a quota. It may be about anything.
    pub(super) fn is_guess(self) -> bool {
        self.quota.family != FieldFamily::Other && self.quota.is_named()
    }

    /// A field like `Retry-After-short` or `Retry-After-Seconds`.
    fn retry(stem: &'static str, quota: &'n str) -> Self {
        let (part, quota) = match quota {
            "ms" => (FieldPart::RetryAfterMillis, ""),
            "seconds" => (FieldPart::RetryAfter, ""),
            quota => (FieldPart::RetryAfter, quota),
        };
        Self {
            quota: QuotaKey {
                family: FieldFamily::Other,
                name: ("", quota),
            },
            part,
            stem,
        }
    }

    fn of_quota(family: FieldFamily, name: (&'n str, &'n str), part: FieldPart) -> Self {
        Self {
            quota: QuotaKey { family, name },
            part,
            stem: stem_of(family, part),
        }
    }

    /// Reads the words after the family's.
    fn worded(family: FieldFamily, words: &'n str) -> Option<Self> {
        let mut start = 0;
        for word in words.split('-') {
            let end = start + word.len();
            let Some((joined, part)) = part_of(word) else {
                start = end + 1;
                continue;
            };
            let before = words[..start + joined.len()].trim_end_matches('-');
            let after = words[end..].trim_start_matches('-');
            let (part, after) = match (part, after) {
                (FieldPart::Reset, "after" | "in") => (FieldPart::ResetAfter, ""),
                (FieldPart::Reset, "ms") => (FieldPart::ResetMillis, ""),
                (FieldPart::Reset, "seconds") => (FieldPart::Reset, ""),
                // It repeats the reset in another form.
                (FieldPart::Reset, "at" | "time" | "date") => return None,
                other => other,
            };
            let is_other = [before, after].into_iter().any(counts_other);
            return (!is_other).then(|| Self::of_quota(family, (before, after), part));
        }
        None
    }
}

impl QuotaKey<'_> {
    pub(super) fn is_named(self) -> bool {
        self.name != ("", "")
    }

    /// Returns the name of the quota; empty if it has no name.
    pub(super) fn name(self) -> Box<str> {
        match self.name {
            (before, "") => before.into(),
            ("", after) => after.into(),
            (before, after) => format!("{before}-{after}").into(),
        }
    }

    /// Returns the window of the quota, where its name says it.
    pub(super) fn window(self) -> Option<Duration> {
        let name = if self.name.1.is_empty() {
            self.name.0
        } else {
            self.name.1
        };
        let last = name.rsplit('-').next()?;
        let seconds = match last.strip_suffix('s').unwrap_or(last) {
            "second" => 1,
            "minute" => 60,
            "hour" => 3_600,
            "day" => 86_400,
            "month" => 30 * 86_400,
            _ => return None,
        };
        Some(Duration::from_secs(seconds))
    }
}

impl FieldPart {
    /// Whether the field is about a refusal, so that it counts on an answer from a cache, too.
    pub(super) fn is_retry(self) -> bool {
        matches!(
            self,
            Self::GrpcDetails
                | Self::GrpcPushback
                | Self::RetryAfter
                | Self::RetryAfterMillis
                | Self::RetryIn
        )
    }
}

/// Whether a name may be one of these. Called for every field of every answer, so it compares four letters at
/// once first.
pub(super) fn may_speak(name: &str) -> bool {
    if name.len() < "ratelimit".len() {
        return false;
    }
    let Some(first) = name.as_bytes().first_chunk() else {
        return false;
    };
    match first {
        b"rate" => name.starts_with("ratelimit"),
        b"retr" => name.starts_with("retry-after"),
        b"x-ra" => name.starts_with("x-ratelimit-") || name.starts_with("x-rate-limit-"),
        b"x-re" => name.starts_with("x-retry-"),
        b"x-hu" => name.starts_with("x-hubspot-ratelimit-"),
        b"x-ms" => name == "x-ms-retry-after-ms",
        b"x-sh" => name == "x-shopify-shop-api-call-limit",
        b"anth" => name.starts_with("anthropic-ratelimit-"),
        // Only on a gRPC response that ends with its head.
        b"grpc" => name.starts_with("grpc-status") || name.starts_with("grpc-retry-"),
        _ => false,
    }
}

/// Returns a field's name as people write it: `X-RateLimit-Reset`, `Retry-After-short`, `retry-after-ms`.
pub(super) fn written(name: &str) -> Box<str> {
    let is_lower = ["grpc-", "anthropic-", "x-ms-"]
        .iter()
        .any(|first| name.starts_with(first));
    if is_lower || name == "retry-after-ms" {
        return name.into();
    }
    let words = name.split('-').map(|word| match word {
        "x" => "X",
        "after" => "After",
        "in" => "In",
        "limit" => "Limit",
        "rate" => "Rate",
        "ratelimit" => "RateLimit",
        "reset" => "Reset",
        "retry" => "Retry",
        "seconds" => "Seconds",
        word => word,
    });
    words.collect::<Vec<_>>().join("-").into()
}

/// Returns what a word says, and the name that is joined to it: `limit`, `userlimit`.
fn part_of(word: &str) -> Option<(&str, FieldPart)> {
    let parts = [
        ("limit", FieldPart::Limit),
        ("remaining", FieldPart::Remaining),
        ("reset", FieldPart::Reset),
    ];
    let joined = |(end, part)| word.strip_suffix(end).map(|joined| (joined, part));
    parts.into_iter().find_map(joined)
}

/// Whether a quota of that name counts something other than requests.
fn counts_other(name: &str) -> bool {
    let is_unit = |word: &str| OTHER_UNITS.iter().any(|unit| word.starts_with(unit));
    !name.is_empty() && (name.contains("token") || name.split('-').any(is_unit))
}

fn stem_of(family: FieldFamily, part: FieldPart) -> &'static str {
    match (family, part) {
        (FieldFamily::Draft, FieldPart::Limit) => "ratelimit-limit",
        (FieldFamily::Draft, FieldPart::Remaining) => "ratelimit-remaining",
        (FieldFamily::Draft, _) => "ratelimit-reset",
        (FieldFamily::X, FieldPart::Limit) => "x-ratelimit-limit",
        (FieldFamily::X, FieldPart::Remaining) => "x-ratelimit-remaining",
        (FieldFamily::X, _) => "x-ratelimit-reset",
        (FieldFamily::Dashed | FieldFamily::Other, FieldPart::Limit) => "x-rate-limit-limit",
        (FieldFamily::Dashed | FieldFamily::Other, FieldPart::Remaining) => "x-rate-limit-remaining",
        (FieldFamily::Dashed | FieldFamily::Other, _) => "x-rate-limit-reset",
    }
}

const OTHER_UNITS: &[&str] = &[
    "audio",
    "bandwidth",
    "budget",
    "byte",
    "character",
    "complexity",
    "concurren",
    "connection",
    "cost",
    "cpu",
    "credit",
    "dollar",
    "gb",
    "gpu",
    "image",
    "kb",
    "kilobyte",
    "mb",
    "megabyte",
    "neuron",
    "point",
    "record",
    "row",
    "size",
    "spend",
    "storage",
    "unit",
    "usd",
    "weight",
];

const fn field(stem: &'static str, quota: &'static str, part: FieldPart) -> LimitField<'static> {
    let family = FieldFamily::Other;
    let name = (quota, "");
    let quota = QuotaKey { family, name };
    LimitField { quota, part, stem }
}

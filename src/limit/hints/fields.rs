//! The names of the fields that speak of limits, and what each tells.
//!
//! Names that no rule gives stand in [`FIELDS`]. The others are read by their words: behind `RateLimit-`, `X-RateLimit-`
//! and `X-Rate-Limit-` there is `Limit`, `Remaining` or `Reset`, and what stands before or after it is the name of the
//! quota: `X-RateLimit-Limit-short`, `X-RateLimit-User-Limit`, `X-RateLimit-UserLimit`. So is what follows `Retry-After-`.

use std::time::Duration;

/// A field that speaks of limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'n> {
    pub(super) quota: Key<'n>,
    pub(super) part: Part,
    /// Its name, but for the quota's.
    pub(super) stem: &'static str,
}

/// What the fields of one quota have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key<'n> {
    pub(super) family: Family,
    /// What stands before the word that tells the part, and what after it; both empty where the quota has no name.
    name: (&'n str, &'n str),
}

/// Fields whose names begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// `ratelimit-*`
    Draft,
    /// `x-ratelimit-*`
    X,
    /// `x-rate-limit-*`
    Dashed,
    /// The rest.
    Other,
}

/// What a field tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    GrpcDetails,
    GrpcPushback,
    Limit,
    Name,
    Policy,
    Remaining,
    Reset,
    /// Seconds from now, whatever their number.
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

impl<'n> Field<'n> {
    pub(super) fn named(name: &'n str) -> Option<Self> {
        if !may_speak(name) {
            return None;
        }
        let of_family = (FAMILIES.iter())
            .find_map(|(stem, family)| Some((*family, name.strip_prefix(stem)?.strip_prefix('-')?)));
        // What most of them are.
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

    /// Its name has only the form of one that tells of a quota; it may be about anything.
    pub(super) fn is_guess(self) -> bool {
        self.quota.family != Family::Other && self.quota.is_named()
    }

    /// Of `Retry-After-short`, `Retry-After-Seconds`.
    fn retry(stem: &'static str, quota: &'n str) -> Self {
        let (part, quota) = match quota {
            "ms" => (Part::RetryAfterMillis, ""),
            "seconds" => (Part::RetryAfter, ""),
            quota => (Part::RetryAfter, quota),
        };
        Self {
            quota: Key {
                family: Family::Other,
                name: ("", quota),
            },
            part,
            stem,
        }
    }

    fn of_quota(family: Family, name: (&'n str, &'n str), part: Part) -> Self {
        Self {
            quota: Key { family, name },
            part,
            stem: stem_of(family, part),
        }
    }

    /// Of the words that follow the family's.
    fn worded(family: Family, words: &'n str) -> Option<Self> {
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
                (Part::Reset, "after" | "in") => (Part::ResetAfter, ""),
                (Part::Reset, "ms") => (Part::ResetMillis, ""),
                (Part::Reset, "seconds") => (Part::Reset, ""),
                // It repeats the reset in another form.
                (Part::Reset, "at" | "time" | "date") => return None,
                other => other,
            };
            let is_other = [before, after].into_iter().any(counts_other);
            return (!is_other).then(|| Self::of_quota(family, (before, after), part));
        }
        None
    }
}

impl Key<'_> {
    pub(super) fn is_named(self) -> bool {
        self.name != ("", "")
    }

    /// The name of the quota; empty where it has none.
    pub(super) fn name(self) -> Box<str> {
        match self.name {
            (before, "") => before.into(),
            ("", after) => after.into(),
            (before, after) => format!("{before}-{after}").into(),
        }
    }

    /// The window of the quota, where the name tells it.
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

impl Part {
    /// It is about a refusal, and holds on an answer out of a cache, too.
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

/// Whether a name may be one of those: on the way of every answer, so first a look at four letters at once.
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
        // Only where an answer of gRPC is over with its head.
        b"grpc" => name.starts_with("grpc-status") || name.starts_with("grpc-retry-"),
        _ => false,
    }
}

/// A field's name as people write it: `X-RateLimit-Reset`, `Retry-After-short`, `retry-after-ms`.
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

/// What a word tells, and the name that is joined to it: `limit`, `userlimit`.
fn part_of(word: &str) -> Option<(&str, Part)> {
    let parts = [
        ("limit", Part::Limit),
        ("remaining", Part::Remaining),
        ("reset", Part::Reset),
    ];
    let joined = |(end, part)| word.strip_suffix(end).map(|joined| (joined, part));
    parts.into_iter().find_map(joined)
}

/// A quota of that name does not count requests.
fn counts_other(name: &str) -> bool {
    let is_unit = |word: &str| OTHER_UNITS.iter().any(|unit| word.starts_with(unit));
    !name.is_empty() && (name.contains("token") || name.split('-').any(is_unit))
}

fn stem_of(family: Family, part: Part) -> &'static str {
    match (family, part) {
        (Family::Draft, Part::Limit) => "ratelimit-limit",
        (Family::Draft, Part::Remaining) => "ratelimit-remaining",
        (Family::Draft, _) => "ratelimit-reset",
        (Family::X, Part::Limit) => "x-ratelimit-limit",
        (Family::X, Part::Remaining) => "x-ratelimit-remaining",
        (Family::X, _) => "x-ratelimit-reset",
        (Family::Dashed | Family::Other, Part::Limit) => "x-rate-limit-limit",
        (Family::Dashed | Family::Other, Part::Remaining) => "x-rate-limit-remaining",
        (Family::Dashed | Family::Other, _) => "x-rate-limit-reset",
    }
}

const FAMILIES: &[(&str, Family)] = &[
    ("ratelimit", Family::Draft),
    ("x-ratelimit", Family::X),
    ("x-rate-limit", Family::Dashed),
];

const RETRIES: &[&str] = &[
    "retry-after",
    "x-rate-limit-retry-after",
    "x-ratelimit-retry-after",
    "x-retry-after",
];

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

const fn field(stem: &'static str, quota: &'static str, part: Part) -> Field<'static> {
    let family = Family::Other;
    let name = (quota, "");
    let quota = Key { family, name };
    Field { quota, part, stem }
}

/// In the order of their names.
pub(super) static FIELDS: &[Field] = &[
    field("anthropic-ratelimit-requests-limit", "requests", Part::Limit),
    field(
        "anthropic-ratelimit-requests-remaining",
        "requests",
        Part::Remaining,
    ),
    field("anthropic-ratelimit-requests-reset", "requests", Part::Reset),
    field("grpc-retry-pushback-ms", "", Part::GrpcPushback),
    field("grpc-status-details-bin", "", Part::GrpcDetails),
    field("ratelimit", "", Part::State),
    field("ratelimit-name", "", Part::Name),
    field("ratelimit-policy", "", Part::Policy),
    field("retry-after", "", Part::RetryAfter),
    field("retry-after-ms", "", Part::RetryAfterMillis),
    field("x-hubspot-ratelimit-daily", "day", Part::Limit),
    field("x-hubspot-ratelimit-daily-remaining", "day", Part::Remaining),
    field(
        "x-hubspot-ratelimit-interval-milliseconds",
        "interval",
        Part::WindowMillis,
    ),
    field("x-hubspot-ratelimit-max", "interval", Part::Limit),
    field("x-hubspot-ratelimit-remaining", "interval", Part::Remaining),
    field("x-hubspot-ratelimit-secondly", "second", Part::Limit),
    field(
        "x-hubspot-ratelimit-secondly-remaining",
        "second",
        Part::Remaining,
    ),
    field("x-ms-retry-after-ms", "", Part::RetryAfterMillis),
    field("x-rate-limit-retry-after", "", Part::RetryAfter),
    field("x-ratelimit-after", "", Part::RetryAfter),
    field("x-ratelimit-bucket", "", Part::Name),
    field("x-ratelimit-resource", "", Part::Name),
    field("x-ratelimit-retry-after", "", Part::RetryAfter),
    field("x-retry-after", "", Part::RetryAfter),
    field("x-retry-in", "", Part::RetryIn),
    field("x-shopify-shop-api-call-limit", "shop", Part::Used),
];

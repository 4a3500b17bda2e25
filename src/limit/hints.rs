//! What an answer says about the limits of the upstream that gave it.
//!
//! [`Hints::of`] reads the status and the fields, [`asked_pause`] the same for repeats and token endpoints. A field that
//! makes no sense is ignored or cut, and told in [`Hints::nonsense`], so that no upstream can stop us for a year or make us
//! faster than we would be without it. What it says is a hint: what to make of it is not decided here, and nothing is
//! remembered.
//!
//! # Refusals
//!
//! A limit refused where the status is 429, or 403 or 503 and the answer asks for a pause or tells a quota with nothing
//! left, or any error that has a mark of Envoy or AWS; and so in gRPC ([`grpc`]): RESOURCE_EXHAUSTED, or UNAVAILABLE that
//! says more.
//!
//! | field on a refusal | read as | who sends it |
//! | --- | --- | --- |
//! | `Retry-After`, on two lines too | seconds, fractions too, or a date | RFC 9110, 10.2.3; fractions: Sentry, Shopify, Microsoft Graph |
//! | `X-Retry-After`, `X-RateLimit-After` | the same | better-auth; tower_governor, actix-governor |
//! | `X-RateLimit-Retry-After`, `X-Rate-Limit-Retry-After`, both with `-Seconds` too | the same | MailerLite; Bucket4j, OpenSky |
//! | `Retry-After-NAME` | the same, about the quota of that name | @nestjs/throttler |
//! | `retry-after-ms`, `x-ms-retry-after-ms` | milliseconds | Azure, OpenAI |
//! | `X-Retry-In` | a duration with units (`105.7ms`) | Traefik |
//! | `grpc-status-details-bin` with RetryInfo, `grpc-retry-pushback-ms` | the delay | Google's services; gRPC's proposal A6 |
//!
//! Any of them goes before a reset. Of several the one in units smaller than a second is believed, else the longest, but
//! no zero before another: it is cut.
//!
//! # Quotas
//!
//! | field | read as | who sends it |
//! | --- | --- | --- |
//! | `RateLimit`, `RateLimit-Policy` | lists of named quotas; also tokens for names and `l` for `q`; also `limit=, remaining=, reset=` and `100;w=60` | draft-ietf-httpapi-ratelimit-headers-10, and -08, -07, -06; Cloudflare, express-rate-limit |
//! | `RateLimit-Limit`, `-Remaining`, `-Reset` | the quota without a name; also `100;w=21600` and `10, 10;w=1, 50;w=60` | the draft up to -06, GitLab, Docker Hub, Kong |
//! | `X-RateLimit-Limit`, `-Remaining`, `-Reset` | the same | GitHub, api.data.gov, Reddit (fractions), Envoy and Roblox (lists) |
//! | `X-Rate-Limit-Limit`, `-Remaining`, `-Reset` | the same | Okta, X (formerly Twitter) |
//! | the same with a name after or before the word that tells the part: `X-RateLimit-Limit-Minute`, `X-RateLimit-UserLimit`, `x-ratelimit-requests-limit` | the quota of that name, where what remains and the limit or the reset bear it alike; `minute` and its like tell the window | Kong; hapi-rate-limit, Imgur; @nestjs/throttler, OpenAI, Mistral, RapidAPI |
//! | `X-RateLimit-Reset-After`, `-Reset-In`, `-Reset-Ms` | seconds, milliseconds; the first two are believed before the reset | Discord; ListenBrainz |
//! | `X-RateLimit-Resource`, `-Bucket`, `RateLimit-Name` | the name of the quota that has none | GitHub, Discord, GitLab |
//! | `anthropic-ratelimit-requests-limit`, `-remaining`, `-reset` | the quota `requests` | Anthropic |
//! | `X-HubSpot-RateLimit-Daily`, `-Secondly`, `-Max` with `-Interval-Milliseconds` | the quotas `day`, `second`, `interval` | HubSpot |
//! | `X-Shopify-Shop-Api-Call-Limit` | used and limit, `32/40` | Shopify |
//!
//! A reset is a number of seconds or of epoch seconds (GitHub, Okta), milliseconds (Rocket.Chat, orpc, hapi-rate-limit),
//! micro- or nanoseconds (PUBG), a date as in HTTP, in ISO 8601 (Rachio, Jira, Anthropic) or in JavaScript's words
//! (lemlist), or a duration (`1s`, `6m0s`: OpenAI). Which number it is shows in its size. A moment is compared with the
//! answer's own `Date`, so that it does not matter how wrong our clock is.
//!
//! A quota with a name that has the figures of the one without is the same counter, told twice (Kong). A name that only
//! repeats the numbers (`5-in-6sec`) is none. A reset of zero tells nothing where something is left: at Envoy it is the
//! time to the next token. Less than nothing (`-1`) is nothing.
//!
//! Not read: limits on anything but requests (`-tokens`, `qu` other than requests); quotas on an answer that comes out
//! of a cache (a positive `Age`; the draft's section on caching); `Retry-After` on 2xx and 3xx, which is about the
//! one resource.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

use self::reading::Reading;

mod fields;
mod grpc;
mod reading;
mod refusal;
mod structured;
#[cfg(test)]
mod tests;
mod value;

/// What an answer says about the limits of the upstream that gave it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hints {
    /// The upstream refused because of a limit.
    pub(super) is_refusal: bool,
    /// For how long it asks to be left alone: from a field of the kind of `Retry-After`, else from the reset of an
    /// exhausted quota. `None`: it refused and does not say. Only on a refusal.
    pub(super) pause: Option<Pause>,
    /// [`MOST_QUOTAS`] at most, each with a name of its own.
    pub(super) quotas: Vec<Quota>,
    /// The first field that made no sense and was ignored or cut: for a log line. An upstream may say it in each answer.
    pub(super) nonsense: Option<Nonsense>,
}

/// For how long the upstream asks to be left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    /// From now, [`LONGEST_PAUSE`] at most. Zero: soon, within a second (`Retry-After: 0`, or a reset that is now or just
    /// past).
    pub(super) length: Duration,
    /// Which quota it is about; empty: the answer does not say.
    pub(super) name: Box<str>,
    /// The field that told it, as a person knows it (`X-RateLimit-Reset`): for explanations.
    pub(super) field: Box<str>,
}

/// What is left of one of the upstream's quotas.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Quota {
    /// As the upstream names it: `core`, `default`; empty where it does not.
    pub(super) name: Box<str>,
    /// Never zero.
    pub(super) limit: Option<u64>,
    /// Not more than the limit.
    pub(super) remaining: Option<u64>,
    /// From now until it is whole again, [`LONGEST_RESET`] at most. Zero only where nothing remains: it is now or just
    /// past.
    pub(super) reset: Option<Duration>,
    /// In what time the limit may be used up. Never zero, [`LONGEST_WINDOW`] at most.
    pub(super) window: Option<Duration>,
}

/// A field that made no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nonsense {
    /// Its name, without that of a quota.
    pub(super) field: &'static str,
    pub(super) why: &'static str,
}

impl Hints {
    /// `None` where the answer says nothing of limits: the warm path, one look over the names.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Option<Box<Self>> {
        if status != StatusCode::TOO_MANY_REQUESTS
            && !headers.keys().any(|name| fields::may_speak(name.as_str()))
            && !refusal::is_marked(status, headers)
        {
            return None;
        }
        let (hints, _) = Reading::of(status, headers, now).hints(headers);
        let silent = !hints.is_refusal && hints.quotas.is_empty() && hints.nonsense.is_none();
        (!silent).then(|| Box::new(hints))
    }
}

/// For how long an answer asks to be left alone: one that refuses because of a limit, and any other error that has a
/// field of the kind of `Retry-After`. Zero: soon.
pub(crate) fn asked_pause(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let (hints, asked) = Reading::of(status, headers, now).hints(headers);
    hints.pause.map(|pause| pause.length).or(asked)
}

/// Whether an answer refuses because of a limit.
pub(crate) fn is_refusal(status: StatusCode, headers: &HeaderMap) -> bool {
    let hints = Hints::of(status, headers, SystemTime::now());
    hints.is_some_and(|hints| hints.is_refusal)
}

fn sane(window: Duration) -> bool {
    !window.is_zero() && window <= LONGEST_WINDOW
}

/// Why a field is ignored or cut.
type Why = &'static str;

const MANY: Why = "more than 16 quotas";
const LONG_NAME: Why = "a name of more than 64 bytes";

/// The longest pause. A service that is asked once an hour is not harmed, and an app whose upstream erred is not for long.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);
/// The longest time until a quota is whole: quotas of a day are usual, those of a month are asked again after a day.
pub(super) const LONGEST_RESET: Duration = Duration::from_secs(86_400);
/// The longest window of a quota, a year.
pub(super) const LONGEST_WINDOW: Duration = Duration::from_secs(366 * 86_400);
/// How many quotas of an answer are read.
pub(super) const MOST_QUOTAS: usize = 16;
const LONGEST_NAME: usize = 64;

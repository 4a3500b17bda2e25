//! What an answer says about the limits of the upstream that sent it.
//!
//! [`Hints::of`] reads the status and the fields; [`asked_pause`] reads them for repeats and for token endpoints.
//! A malformed field is ignored or shortened and reported in [`Hints::bad_field`], so that no upstream can stop
//! us for a year, or make us faster than we would be without the field. What follows from the hints is decided in
//! [`learned`](super::learned); nothing is remembered here.
//!
//! # Refusals
//!
//! An answer is a refusal because of a limit if its status is 429; if it is 403 or 503 and the answer asks for a
//! pause or reports a quota with nothing left; or if it is any error with a mark of Envoy or AWS. In gRPC
//! ([`grpc`]) it is RESOURCE_EXHAUSTED, or UNAVAILABLE with a field as above.
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
//! Any of these fields goes before a reset. Of several, the one in units smaller than a second counts, else the
//! longest. A zero never goes before another value: it was rounded down.
//!
//! # Quotas
//!
//! | field | read as | who sends it |
//! | --- | --- | --- |
//! | `RateLimit`, `RateLimit-Policy` | lists of named quotas; also tokens for names and `l` for `q`; also `limit=, remaining=, reset=` and `100;w=60` | draft-ietf-httpapi-ratelimit-headers-10, and -08, -07, -06; Cloudflare, express-rate-limit |
//! | `RateLimit-Limit`, `-Remaining`, `-Reset` | the quota without a name; also `100;w=21600` and `10, 10;w=1, 50;w=60` | the draft up to -06, GitLab, Docker Hub, Kong |
//! | `X-RateLimit-Limit`, `-Remaining`, `-Reset` | the same | GitHub, api.data.gov, Reddit (fractions), Envoy and Roblox (lists) |
//! | `X-Rate-Limit-Limit`, `-Remaining`, `-Reset` | the same | Okta, X (formerly Twitter) |
//! | the same with a name after or before the word for the part: `X-RateLimit-Limit-Minute`, `X-RateLimit-UserLimit`, `x-ratelimit-requests-limit` | the quota of that name, if it appears in what remains and in the limit or the reset; a name like `minute` is also the window | Kong; hapi-rate-limit, Imgur; @nestjs/throttler, OpenAI, Mistral, RapidAPI |
//! | `X-RateLimit-Reset-After`, `-Reset-In`, `-Reset-Ms` | seconds, milliseconds; the first two go before the reset | Discord; ListenBrainz |
//! | `X-RateLimit-Resource`, `-Bucket`, `RateLimit-Name` | the name of the quota without a name | GitHub, Discord, GitLab |
//! | `anthropic-ratelimit-requests-limit`, `-remaining`, `-reset` | the quota `requests` | Anthropic |
//! | `X-HubSpot-RateLimit-Daily`, `-Secondly`, `-Max` with `-Interval-Milliseconds` | the quotas `day`, `second`, `interval` | HubSpot |
//! | `X-Shopify-Shop-Api-Call-Limit` | used and limit, `32/40` | Shopify |
//!
//! A reset is a number of seconds or of epoch seconds (GitHub, Okta), milliseconds (Rocket.Chat, orpc,
//! hapi-rate-limit), micro- or nanoseconds (PUBG), a date as in HTTP, in ISO 8601 (Rachio, Jira, Anthropic) or in
//! JavaScript's form (lemlist), or a duration (`1s`, `6m0s`: OpenAI). The size of a number shows which of these
//! it is. A moment is compared with the answer's own `Date`, so that it does not matter how wrong our clock is.
//!
//! A quota with a name and the figures of the one without a name is the same counter, reported twice (Kong). A
//! name that only repeats the numbers (`5-in-6sec`) is ignored. A reset of zero says nothing while something is
//! left: in Envoy it is the time to the next token. Less than nothing (`-1`) is read as nothing.
//!
//! Not read: limits on anything but requests (`-tokens`, `qu` other than requests); quotas on an answer from a
//! cache (a positive `Age`; the draft's section on caching); `Retry-After` on 2xx and 3xx, which is about that
//! one resource.

use std::time::{Duration, SystemTime};

use http::StatusCode;

use self::reading::HintReader;

use crate::message::Fields;

mod fields;
mod grpc;
mod reading;
mod refusal;
mod structured;
#[cfg(test)]
mod tests;
mod value;

/// The reason why a field is ignored or shortened.
type FieldError = &'static str;

const MANY: FieldError = "more than 16 quotas";
const LONG_NAME: FieldError = "a name of more than 64 bytes";

/// The longest pause. A service that gets one request an hour is not harmed, and an app whose upstream sent a
/// wrong time does not wait for days.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// The longest time to a reset. Quotas of a day are common; after a day a quota of a month is tried again.
pub(super) const LONGEST_RESET: Duration = Duration::from_secs(86_400);

/// The longest window of a quota: a year.
pub(super) const LONGEST_WINDOW: Duration = Duration::from_secs(366 * 86_400);

/// How many quotas of an answer are read.
pub(super) const MOST_QUOTAS: usize = 16;

const LONGEST_NAME: usize = 64;

/// What an answer says about the limits of the upstream that sent it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hints {
    /// The upstream refused because of a limit.
    pub(super) is_refusal: bool,
    /// How long the upstream asks to be left alone: from a field like `Retry-After`, else from the reset of an
    /// exhausted quota. `None` where it does not say, and where it did not refuse.
    pub(super) pause: Option<PauseHint>,
    /// At most [`MOST_QUOTAS`], each with a different name.
    pub(super) quotas: Vec<QuotaHint>,
    /// The first field that was malformed and so ignored or shortened, for a log line. An upstream may send it in
    /// every answer.
    pub(super) bad_field: Option<BadField>,
}

/// How long the upstream asks to be left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PauseHint {
    /// From now, at most [`LONGEST_PAUSE`]. Zero means soon, within a second (`Retry-After: 0`, or a reset that
    /// is now or just past).
    pub(super) length: Duration,
    /// The quota that it is about; empty where the answer does not say.
    pub(super) name: Box<str>,
    /// The field that it was read from, as people write it (`X-RateLimit-Reset`).
    pub(super) field: Box<str>,
}

/// What an answer says about one quota.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct QuotaHint {
    /// The upstream's name for it: `core`, `default`; empty if it has no name.
    pub(super) name: Box<str>,
    /// Never zero.
    pub(super) limit: Option<u64>,
    /// Not more than the limit.
    pub(super) remaining: Option<u64>,
    /// From now until the whole quota is back, at most [`LONGEST_RESET`]. Zero (it is now or just past) only if
    /// nothing remains, or if the answer does not say what remains.
    pub(super) reset: Option<Duration>,
    /// The time in which the limit may be used up. Never zero, at most [`LONGEST_WINDOW`].
    pub(super) window: Option<Duration>,
}

/// A malformed field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadField {
    /// Its name, without the quota's.
    pub(super) field: &'static str,
    pub(super) why: &'static str,
}

impl Hints {
    /// Reads an answer; `None` where it says nothing about limits. On the warm path this is one look over the
    /// names, and `now` is not asked.
    pub(super) fn of(
        status: StatusCode,
        headers: &Fields,
        now: impl FnOnce() -> SystemTime,
    ) -> Option<Box<Self>> {
        if status != StatusCode::TOO_MANY_REQUESTS
            && !headers.keys().any(|name| fields::may_speak(name.as_str()))
            && !refusal::is_marked(status, headers)
        {
            return None;
        }
        let (hints, _) = HintReader::of(status, headers, now()).hints(headers);
        let silent = !hints.is_refusal && hints.quotas.is_empty() && hints.bad_field.is_none();
        (!silent).then(|| Box::new(hints))
    }
}

/// Returns how long an answer asks to be left alone: a refusal because of a limit, or any other error with a
/// field like `Retry-After`. Zero means soon.
pub(crate) fn asked_pause(status: StatusCode, headers: &Fields, now: SystemTime) -> Option<Duration> {
    let (hints, asked) = HintReader::of(status, headers, now).hints(headers);
    hints.pause.map(|pause| pause.length).or(asked)
}

/// Whether an answer refuses because of a limit.
pub(crate) fn is_refusal(status: StatusCode, headers: &Fields) -> bool {
    let hints = Hints::of(status, headers, SystemTime::now);
    hints.is_some_and(|hints| hints.is_refusal)
}

fn sane(window: Duration) -> bool {
    !window.is_zero() && window <= LONGEST_WINDOW
}

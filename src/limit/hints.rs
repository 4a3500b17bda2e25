//! What an answer says about the limits of the upstream that gave it.
//!
//! [`Hints::of`] reads the status and the fields. A field that makes no sense is ignored or cut, and told in
//! [`Hints::nonsense`], so that no upstream can stop us for a year or make us faster than we would be without it. What
//! it says is a hint: what to make of it is not decided here, and nothing is remembered.
//!
//! | field | read as | who sends it |
//! | --- | --- | --- |
//! | `Retry-After` on 429, 503, 403 | seconds, fractions too, or a date in the three forms of RFC 9110, 5.6.7 | RFC 9110, 10.2.3; fractions: Sentry, Shopify, Microsoft Graph |
//! | `retry-after-ms`, `x-ms-retry-after-ms` | milliseconds; believed before `Retry-After` | Azure, OpenAI |
//! | `X-RateLimit-Retry-After` | like `Retry-After` | MailerLite |
//! | `RateLimit`, `RateLimit-Policy` | lists of named quotas; also tokens for names and `l` for `q`; also `limit=, remaining=, reset=` and `100;w=60` | draft-ietf-httpapi-ratelimit-headers-10, and -08, -07, -06; Cloudflare, express-rate-limit |
//! | `RateLimit-Limit`, `-Remaining`, `-Reset` | the quota without a name; also `100;w=21600` and `10, 10;w=1, 50;w=60` | the draft up to -06, GitLab, Docker Hub, Kong |
//! | `X-RateLimit-Limit`, `-Remaining`, `-Reset` | the same | GitHub, api.data.gov, Reddit (fractions), Envoy and Roblox (lists) |
//! | `X-Rate-Limit-Limit`, `-Remaining`, `-Reset` | the same | Okta, X (formerly Twitter) |
//! | `X-RateLimit-Reset-After` | seconds; believed before the reset | Discord |
//! | `X-RateLimit-Resource`, `-Bucket`, `RateLimit-Name` | the name of that quota | GitHub, Discord, GitLab |
//! | `X-RateLimit-Limit-Minute`, `-Remaining-Minute`, and second, hour, day, month | the quota `minute` | Kong |
//! | `x-ratelimit-limit-requests`, `-remaining-`, `-reset-` (`6m0s`); `x-ratelimit-requests-limit` and so on | the quota `requests` | OpenAI, Groq; RapidAPI |
//! | `anthropic-ratelimit-requests-limit`, `-remaining`, `-reset` | the quota `requests` | Anthropic |
//! | `X-HubSpot-RateLimit-Daily`, `-Secondly`, `-Max` with `-Interval-Milliseconds` | the quotas `day`, `second`, `interval` | HubSpot |
//! | `X-Shopify-Shop-Api-Call-Limit` | used and limit, `32/40` | Shopify |
//!
//! A reset is a number of seconds or of epoch seconds (GitHub, Okta), milliseconds (Rocket.Chat), micro- or
//! nanoseconds (PUBG), a date as in HTTP or in ISO 8601 (Rachio, Jira, Anthropic), or a duration (`1s`, `6m0s`: OpenAI).
//! Which number it is shows in its size. A moment is compared with the answer's own `Date`, so that it does not matter
//! how wrong our clock is.
//!
//! Not read: limits on anything but requests (`-tokens`, `qu` other than requests); quotas on an answer that comes out
//! of a cache (a positive `Age`; the draft's section on caching); `Retry-After` on 202 and 3xx, which is about the
//! one resource.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{AGE, DATE};
use http::{HeaderMap, HeaderValue, StatusCode};

use self::fields::{Field, Part, Scope};
use self::structured::Policies;
use self::value::{When, count, fraction, listed_window, number};

mod fields;
mod structured;
#[cfg(test)]
mod tests;
mod value;

/// What an answer says about the limits of the upstream that gave it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hints {
    /// The upstream refused because of a limit: 429, 503 with `Retry-After`, and 403 with `Retry-After` or with an
    /// exhausted quota.
    pub(super) is_refusal: bool,
    /// For how long it asks to be left alone: from `Retry-After`, else from the reset of an exhausted quota. `None`: it
    /// refused and does not say. Only on a refusal.
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
    /// From now until it is whole again, [`LONGEST_RESET`] at most.
    pub(super) reset: Option<Duration>,
    /// In what time the limit may be used up. Never zero, [`LONGEST_WINDOW`] at most.
    pub(super) window: Option<Duration>,
}

/// A field that made no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nonsense {
    pub(super) field: &'static str,
    pub(super) why: &'static str,
}

impl Hints {
    /// `None` where the answer says nothing of limits: the warm path, one look over the names.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Option<Box<Self>> {
        if status != StatusCode::TOO_MANY_REQUESTS
            && !headers.keys().any(|name| fields::may_speak(name.as_str()))
        {
            return None;
        }
        let refused = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::FORBIDDEN
        );
        let hints = Reading::of(headers, refused, now).hints(status, refused, headers);
        let silent = !hints.is_refusal && hints.quotas.is_empty() && hints.nonsense.is_none();
        (!silent).then(|| Box::new(hints))
    }
}

/// What has been read so far.
#[derive(Debug, Default)]
struct Reading {
    /// When the answer was made, by its own clock: the time since the epoch.
    clock: Duration,
    /// There is one, though it may make no sense.
    has_retry_after: bool,
    retry_after: Option<Duration>,
    retry_after_millis: Option<Duration>,
    /// Quotas that are told in several fields, by what their fields have in common.
    told: Vec<(Scope, Quota)>,
    /// About the quota without a name of its own.
    name: Option<Box<str>>,
    reset_after: Option<Duration>,
    policies: Policies,
    nonsense: Option<Nonsense>,
}

impl Reading {
    /// `refused`: it may be a refusal, so that `Retry-After` is about it.
    fn of(headers: &HeaderMap, refused: bool, now: SystemTime) -> Self {
        let mut reading = Self {
            clock: clock(headers, now),
            ..Self::default()
        };
        let cached = cached(headers);
        for (name, value) in headers {
            let Some(field) = Field::named(name.as_str()) else {
                continue;
            };
            let matters = if field.part.is_retry() { refused } else { !cached };
            if !matters {
                continue;
            }
            let read = text(value).and_then(|text| reading.take(field, text));
            if let Err(why) = read {
                reading.nonsense(field.name, why);
            }
        }
        reading
    }

    fn take(&mut self, field: &Field, text: &str) -> Result<(), Why> {
        match field.part {
            Part::Limit => {
                let limit = count(text)?;
                let quota = self.told(field.scope);
                quota.window = quota
                    .window
                    .or_else(|| listed_window(text))
                    .filter(|window| sane(*window));
                strictest(&mut quota.limit, limit, u64::min)
            }
            Part::Name if text.len() > LONGEST_NAME => Err(LONG_NAME),
            Part::Name => {
                self.name.get_or_insert_with(|| text.into());
                Ok(())
            }
            Part::Policy => self.policies.add_policies(text),
            Part::Remaining => {
                // A proxy may have joined two lines.
                let said = text.split(',').map(count);
                let least = said
                    .reduce(|least, said| Ok(least?.min(said?)))
                    .unwrap_or(Ok(0))?;
                strictest(&mut self.told(field.scope).remaining, least, u64::min)
            }
            Part::Reset => {
                let ahead = self.ahead(field, When::read(text)?, LONGEST_RESET)?;
                strictest(&mut self.told(field.scope).reset, ahead, Duration::max)
            }
            Part::ResetAfter => {
                let ahead = self.ahead(field, When::After(number(text)?), LONGEST_RESET)?;
                strictest(&mut self.reset_after, ahead, Duration::max)
            }
            Part::RetryAfter => {
                self.has_retry_after = true;
                let ahead = self.ahead(field, When::read(text)?, LONGEST_PAUSE)?;
                self.retry_after = self.retry_after.max(Some(ahead));
                Ok(())
            }
            Part::RetryAfterMillis => {
                self.has_retry_after = true;
                let ahead = self.ahead(field, When::After(number(text)? / 1_000), LONGEST_PAUSE)?;
                self.retry_after_millis = self.retry_after_millis.max(Some(ahead));
                Ok(())
            }
            Part::State => self.policies.add_states(text),
            Part::Used => {
                let (used, limit) = fraction(text)?;
                let quota = self.told(field.scope);
                strictest(&mut quota.remaining, limit.saturating_sub(used), u64::min)?;
                strictest(&mut quota.limit, limit, u64::min)
            }
            Part::WindowMillis => {
                let window = number(text)? / 1_000;
                self.told(field.scope).window = Some(window).filter(|window| sane(*window));
                Ok(())
            }
        }
    }

    /// How far ahead of the answer's clock a time is, cut to `longest`.
    fn ahead(&mut self, field: &Field, when: When, longest: Duration) -> Result<Duration, Why> {
        let ahead = match when {
            When::After(delay) => delay,
            When::At(moment) if self.clock.saturating_sub(moment) > SKEW => return Err("in the past"),
            When::At(moment) => moment.saturating_sub(self.clock),
        };
        if ahead > longest {
            self.nonsense(field.name, TOO_LONG);
        }
        Ok(ahead.min(longest))
    }

    fn told(&mut self, scope: Scope) -> &mut Quota {
        let place = self
            .told
            .iter()
            .position(|(own, _)| *own == scope)
            .unwrap_or_else(|| {
                self.told.push((
                    scope,
                    Quota {
                        window: scope.window(),
                        ..Quota::default()
                    },
                ));
                self.told.len() - 1
            });
        &mut self.told[place].1
    }

    fn nonsense(&mut self, field: &'static str, why: Why) {
        self.nonsense.get_or_insert(Nonsense { field, why });
    }

    fn hints(mut self, status: StatusCode, refused: bool, headers: &HeaderMap) -> Hints {
        let quotas = self.quotas(refused, headers);
        let asked = self.has_retry_after;
        let is_refusal = match status {
            StatusCode::TOO_MANY_REQUESTS => true,
            StatusCode::SERVICE_UNAVAILABLE => asked,
            StatusCode::FORBIDDEN => asked || quotas.iter().any(|quota| quota.remaining == Some(0)),
            _ => false,
        };
        let pause = is_refusal.then(|| self.pause(&quotas, status, headers)).flatten();
        Hints {
            is_refusal,
            pause,
            quotas,
            nonsense: self.nonsense,
        }
    }

    /// For how long a refusal asks to be left alone.
    fn pause(&self, quotas: &[Quota], status: StatusCode, headers: &HeaderMap) -> Option<Pause> {
        let asked = [
            (self.retry_after_millis, "retry-after-ms"),
            (self.retry_after, "Retry-After"),
        ];
        // The more precise one goes first, but a zero last.
        let asked = asked
            .into_iter()
            .filter_map(|(length, field)| Some((length?, "", field)))
            .min_by_key(|(length, ..)| length.is_zero());
        let (length, name, field) = asked
            .or_else(|| exhausted(quotas, status).map(|(length, name)| (length, name, "X-RateLimit-Reset")))
            .or_else(|| github(status, headers).map(|length| (length, "", "X-GitHub-Request-Id")))?;
        Some(Pause {
            length: length.min(LONGEST_PAUSE),
            name: name.into(),
            field: field.into(),
        })
    }

    /// All quotas, each name once, those with a name of their own last.
    fn quotas(&mut self, refused: bool, headers: &HeaderMap) -> Vec<Quota> {
        let told = std::mem::take(&mut self.told);
        let mut quotas: Vec<Quota> = self.unnamed(&told, headers).into_iter().collect();
        let named = told.into_iter().filter_map(|(scope, quota)| {
            let name = scope.name()?;
            Some(Quota {
                name: name.into(),
                ..quota
            })
        });
        let (structured, why) = std::mem::take(&mut self.policies).quotas();
        if let Some(why) = why {
            self.nonsense("ratelimit", why);
        }
        for mut quota in named.chain(structured) {
            if quotas.iter().any(|own| own.name == quota.name) {
                continue;
            }
            if quotas.len() == MOST_QUOTAS {
                self.nonsense("ratelimit", "more than 16 quotas");
                break;
            }
            if let Some(reset) = &mut quota.reset
                && *reset > LONGEST_RESET
            {
                *reset = LONGEST_RESET;
                self.nonsense("ratelimit", TOO_LONG);
            }
            quotas.push(quota);
        }
        for quota in &mut quotas {
            // Where nothing was refused this means that there is no limit; where something was, Okta says so of its
            // limit on requests at once.
            if quota.limit == Some(0) {
                quota.limit = None;
                quota.remaining = quota.remaining.filter(|_| refused);
            }
            if let (Some(limit), Some(remaining)) = (quota.limit, &mut quota.remaining) {
                *remaining = limit.min(*remaining);
            }
        }
        quotas.retain(|quota| {
            quota.limit.is_some() || quota.remaining.is_some() || (refused && quota.reset.is_some())
        });
        quotas
    }

    /// The quota without a name of its own. Three families of fields may tell it: the one that knows what remains is
    /// taken whole, because what two of them say may be about two windows.
    fn unnamed(&mut self, told: &[(Scope, Quota)], headers: &HeaderMap) -> Option<Quota> {
        let of = |scope| told.iter().find(|(own, _)| *own == scope).map(|(_, quota)| quota);
        let families = || [Scope::Draft, Scope::X, Scope::Dashed].into_iter().filter_map(of);
        let family = families()
            .find(|quota| quota.remaining.is_some())
            .or_else(|| families().next())?;
        let mut window = family.window;
        if let Some(limit) = family.limit
            && window.is_none()
        {
            window = self.policies.window_of(limit);
        }
        let reset = self.reset_after.or(family.reset);
        Some(Quota {
            name: self.name.take().unwrap_or_default(),
            limit: family.limit,
            remaining: family.remaining,
            reset,
            window: window.or_else(|| umbrella(headers).filter(|_| reset.is_none())),
        })
    }
}

/// When the answer was made, by its own clock; ours where it does not say. `Date` is cut to whole seconds: where our
/// clock points into that second or a little behind it, as it does where both are right, it tells the rest of it.
fn clock(headers: &HeaderMap, now: SystemTime) -> Duration {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = headers
        .get(DATE)
        .and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    let Some(date) = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok()) else {
        return now;
    };
    match now.checked_sub(date) {
        Some(rest) if rest < Duration::from_secs(2) => date + rest.min(Duration::from_secs(1)),
        _ => date,
    }
}

/// The answer comes out of a cache. `Age: 0` is what some networks write on every fresh one.
fn cached(headers: &HeaderMap) -> bool {
    let age = headers
        .get(AGE)
        .and_then(|age| number(age.to_str().ok()?.trim()).ok());
    age.is_some_and(|age| !age.is_zero())
}

fn text(value: &HeaderValue) -> Result<&str, Why> {
    if value.len() > LONGEST_VALUE {
        return Err("longer than 1024 bytes");
    }
    match value.to_str().map(str::trim) {
        Ok("") => Err("empty"),
        Ok(text) => Ok(text),
        Err(_) => Err("not text"),
    }
}

/// Keeps the stricter of what two lines say.
fn strictest<T: Copy + PartialEq>(own: &mut Option<T>, said: T, stricter: fn(T, T) -> T) -> Result<(), Why> {
    let before = own.replace(own.map_or(said, |own| stricter(own, said)));
    match before {
        Some(before) if before != said => Err("said twice, differently"),
        _ => Ok(()),
    }
}

fn sane(window: Duration) -> bool {
    !window.is_zero() && window <= LONGEST_WINDOW
}

/// Until the last of the exhausted quotas is whole. On a 429, one that does not tell what remains counts as exhausted.
fn exhausted(quotas: &[Quota], status: StatusCode) -> Option<(Duration, &str)> {
    let empty = |quota: &&Quota| match quota.remaining {
        Some(remaining) => remaining == 0,
        None => status == StatusCode::TOO_MANY_REQUESTS,
    };
    let resets = (quotas.iter().filter(empty)).filter_map(|quota| Some((quota.reset?, &*quota.name)));
    resets.max_by_key(|(reset, _)| *reset)
}

/// GitHub asks to wait for at least a minute where a 429 says nothing else ("Rate limits for the REST API"). A 403 of
/// its secondary limits without a field cannot be told from one that is about permissions.
fn github(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let github = status == StatusCode::TOO_MANY_REQUESTS && headers.contains_key("x-github-request-id");
    github.then_some(Duration::from_secs(60))
}

/// api-umbrella, which is api.data.gov, tells the counter of an hour and no reset, because the hour is a rolling one.
fn umbrella(headers: &HeaderMap) -> Option<Duration> {
    let umbrella = headers.contains_key("x-api-umbrella-request-id");
    umbrella.then_some(Duration::from_secs(3_600))
}

/// Why a field is ignored or cut.
type Why = &'static str;

const TOO_LONG: Why = "too long a time, cut";
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
const LONGEST_VALUE: usize = 1_024;
/// A moment that has passed by less is now: clocks differ, and an answer takes its time.
const SKEW: Duration = Duration::from_secs(60);

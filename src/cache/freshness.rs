//! Whether a response may be stored and reused: RFC 9111 sections 3 and 4, without state.
//!
//! [`Freshness::of`] reads the status and the fields of a response once, when it comes. [`Freshness::reuse`]
//! decides later whether a request may be answered from it. What the configuration allows beyond the upstream's
//! directives is added here too: a minimum freshness, and how stale a response may be used.
//!
//! A `private` response is stored, under all fields of its request (see [`key`](super::key)). For requests with a
//! credential of the app, the rules of a shared cache apply.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{self, HeaderName};
use tokio::time::Instant;

use super::directives::{FOR_EVER, RequestDirectives, ResponseDirectives, seconds_of};
use crate::fields::date;
use crate::message::Fields;

/// The lifetime guessed from Last-Modified is a tenth of the time since, and never more than this: the upstream
/// has promised nothing.
const LONGEST_GUESS: Duration = Duration::from_secs(600);

/// Older than any lifetime.
const UNREADABLE: Duration = Duration::from_secs(1 << 32);

const SET_COOKIE2: HeaderName = HeaderName::from_static("set-cookie2");

/// What the configuration says about time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Allowances {
    pub(super) min_fresh: Duration,
    pub(super) stale_if_error: Duration,
    pub(super) stale_while_revalidate: Duration,
}

/// When a request was sent and when its response came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
    /// `answered` as the time of day, for comparison with the upstream's clock.
    pub(crate) clock: SystemTime,
}

/// How long a response is fresh, and how it may be used afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Freshness {
    /// When it came, or was last confirmed.
    pub(super) received: Instant,
    /// Its age at that time.
    age: Duration,
    lifetime: Duration,
    /// It counts as fresh for so long after it came, whatever it and the request say.
    floor: Duration,
    /// `no-cache`: never used before the upstream has confirmed it.
    always_asks: bool,
    /// How stale it may be used when the upstream fails.
    stale_if_error: Duration,
    /// How stale it may be used while it is refreshed.
    stale_while_revalidate: Duration,
    /// Never used stale.
    never_stale: bool,
}

/// How a request may use a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    /// Use it. It is fresh for `ttl` seconds more; negative where the app accepts a stale one.
    Fresh { ttl: i64 },
    /// Use it, and refresh it.
    Refresh { ttl: i64 },
    /// It has to be confirmed first, because it is stale.
    Stale,
    /// It has to be confirmed first, because the request asks for that.
    Unwanted,
}

impl Freshness {
    /// Returns `None` for a response that must not be stored, or that could not be used. `is_shared`: the app's
    /// request had a credential.
    pub(super) fn of(
        status: StatusCode,
        fields: &Fields,
        is_shared: bool,
        times: &Times,
        allowances: &Allowances,
    ) -> Option<Self> {
        let directives = ResponseDirectives::of(fields);
        if !is_storable(status, fields, is_shared, &directives) {
            return None;
        }
        let date = date(fields, &header::DATE).unwrap_or(times.clock);
        let (lifetime, is_explicit) = lifetime(status, fields, &directives, date);
        if !is_explicit && !is_heuristic(status) && !directives.public {
            return None;
        }
        let never_stale = directives.must_revalidate
            || directives.proxy_revalidate
            || directives.s_maxage.is_some()
            || directives.no_cache;
        let floor = if directives.no_cache || !is_heuristic(status) {
            Duration::ZERO
        } else {
            allowances.min_fresh
        };
        let longer = |directives: Option<Duration>, configured: Duration| {
            if never_stale {
                Duration::ZERO
            } else {
                directives.unwrap_or_default().max(configured)
            }
        };
        let freshness = Self {
            received: times.answered,
            age: age(fields, date, times),
            lifetime,
            floor,
            always_asks: directives.no_cache,
            stale_if_error: longer(directives.stale_if_error, allowances.stale_if_error),
            stale_while_revalidate: longer(
                directives.stale_while_revalidate,
                allowances.stale_while_revalidate,
            ),
            never_stale,
        };
        let has_validator = fields.contains_key(header::ETAG) || fields.contains_key(header::LAST_MODIFIED);
        (has_validator || freshness.is_of_use()).then_some(freshness)
    }

    /// Returns the age at `now`, with the time at the upstream and in other caches.
    pub(super) fn age(&self, now: Instant) -> Duration {
        self.age
            .saturating_add(now.saturating_duration_since(self.received))
    }

    /// Returns how many seconds the response is still fresh at `now`; negative where it is stale.
    pub(super) fn ttl(&self, now: Instant) -> i64 {
        let left = self.left(self.age(now));
        let here = now.saturating_duration_since(self.received);
        if self.floor.is_zero() {
            left
        } else {
            left.max(seconds(self.floor) - seconds(here))
        }
    }

    /// Decides how a request with these directives may use the response at `now`. `since`: when the request began
    /// to wait for this very response.
    pub(super) fn reuse(
        &self,
        directives: &RequestDirectives,
        since: Option<Instant>,
        now: Instant,
    ) -> Reuse {
        let age = self.age(now);
        let left = self.left(age);
        let here = now.saturating_duration_since(self.received);
        if !self.floor.is_zero() && here < self.floor {
            return Reuse::Fresh { ttl: self.ttl(now) };
        }
        let is_too_old = directives
            .max_age
            .is_some_and(|most| age > most || most.is_zero());
        if directives.no_cache || is_too_old {
            return Reuse::Unwanted;
        }
        if self.always_asks {
            return Reuse::Stale;
        }
        let remaining = self.lifetime.checked_sub(age).filter(|left| !left.is_zero());
        let staleness = age.saturating_sub(self.lifetime);
        match (remaining, directives.min_fresh) {
            (Some(remaining), Some(wanted)) if remaining < wanted => return Reuse::Unwanted,
            (Some(_), _) => return Reuse::Fresh { ttl: left },
            (None, Some(_)) => return Reuse::Unwanted,
            (None, None) if self.never_stale => return Reuse::Stale,
            (None, None) => {}
        }
        if directives.max_stale.is_some_and(|most| staleness <= most) {
            return Reuse::Fresh { ttl: left };
        }
        // It was made while the request waited, so it is as new as the request's own response would have been.
        if since.is_some_and(|since| self.received >= since) {
            return Reuse::Fresh { ttl: left };
        }
        if !self.stale_while_revalidate.is_zero() && staleness <= self.stale_while_revalidate {
            return Reuse::Refresh { ttl: left };
        }
        Reuse::Stale
    }

    /// Whether a stale response always has to be confirmed.
    pub(super) fn must_revalidate_stale(&self) -> bool {
        self.never_stale
    }

    /// Whether this stale response may replace a failed one (stale-if-error). Returns its remaining freshness in
    /// seconds, which is negative.
    pub(super) fn may_replace_error(&self, directives: &RequestDirectives, now: Instant) -> Option<i64> {
        let age = self.age(now);
        let is_wanted = !directives.no_cache && directives.max_age.is_none_or(|most| age <= most);
        let staleness = age.saturating_sub(self.lifetime);
        let is_allowed =
            !self.never_stale && !self.stale_if_error.is_zero() && staleness <= self.stale_if_error;
        (is_wanted && is_allowed).then(|| self.left(age))
    }

    /// Returns how much of the lifetime is left at an age, in seconds; negative past it.
    fn left(&self, age: Duration) -> i64 {
        seconds(self.lifetime) - seconds(age)
    }

    fn is_of_use(&self) -> bool {
        let times = [self.floor, self.stale_if_error, self.stale_while_revalidate];
        !self.always_asks && (self.lifetime > self.age || times.iter().any(|time| !time.is_zero()))
    }
}

/// RFC 9111 section 3, and some cases that are not safe.
fn is_storable(
    status: StatusCode,
    fields: &Fields,
    is_shared: bool,
    directives: &ResponseDirectives,
) -> bool {
    // An error belongs to the request that got it, not to everyone.
    let is_kept = match status {
        // A 206 is only a part, and a 304 only confirms: neither is a complete response.
        StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED => false,
        status => status.is_success() || status.is_redirection() || is_heuristic(status),
    };
    // A cookie is for one session, and so may be the rest of the response.
    let sets_cookie = fields.contains_key(header::SET_COOKIE) || fields.contains_key(SET_COOKIE2);
    // RFC 9111 section 3.5.
    let may_share = !directives.private
        && (directives.public || directives.must_revalidate || directives.s_maxage.is_some());
    is_kept
        && !sets_cookie
        && !directives.no_store
        && (!directives.must_understand || is_heuristic(status) || status.is_redirection())
        && (!is_shared || may_share)
}

/// Returns the lifetime, counted from `date`, and whether the upstream stated it.
fn lifetime(
    status: StatusCode,
    fields: &Fields,
    directives: &ResponseDirectives,
    date: SystemTime,
) -> (Duration, bool) {
    // A private cache may ignore s-maxage, a proxy may not: the shorter of the two satisfies both.
    let stated = match (directives.max_age, directives.s_maxage) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    if let Some(stated) = stated {
        return (stated, true);
    }
    if fields.contains_key(header::EXPIRES) {
        // A malformed or repeated Expires is in the past.
        let expires = date_once(fields, &header::EXPIRES);
        let lifetime = expires.and_then(|expires| expires.duration_since(date).ok());
        return (lifetime.unwrap_or_default().min(FOR_EVER), true);
    }
    let may_guess = is_heuristic(status) || directives.public;
    let modified = date_once(fields, &header::LAST_MODIFIED).filter(|_| may_guess);
    let unchanged = modified.and_then(|modified| date.duration_since(modified).ok());
    (
        unchanged.unwrap_or_default().div_f32(10.0).min(LONGEST_GUESS),
        false,
    )
}

/// RFC 9111 sections 4.2.3 and 5.1: the first of several ages counts. An unreadable one is beyond every lifetime.
fn age(fields: &Fields, date: SystemTime, times: &Times) -> Duration {
    let stated = fields.get(header::AGE).map_or(Duration::ZERO, |line| {
        let first = line.as_bytes().split(|byte| *byte == b',').next();
        let seconds = first.and_then(|first| seconds_of(first.trim_ascii()));
        seconds.unwrap_or(UNREADABLE)
    });
    let apparent = times.clock.duration_since(date).unwrap_or_default();
    let delay = times.answered.saturating_duration_since(times.asked);
    // Dates are in whole seconds, so a fraction means nothing.
    let apparent = Duration::from_secs(apparent.as_secs());
    stated.saturating_add(delay).max(apparent).min(UNREADABLE)
}

fn date_once(fields: &Fields, name: &HeaderName) -> Option<SystemTime> {
    let mut lines = fields.get_all(name);
    match (lines.next(), lines.next()) {
        (Some(_), None) => date(fields, name),
        (None | Some(_), _) => None,
    }
}

/// Whether RFC 9110 section 15.1 lists the status as heuristically cacheable; 206 is left out.
fn is_heuristic(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// Returns whole seconds; every time here fits.
fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

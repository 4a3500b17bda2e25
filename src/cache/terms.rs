//! On which terms an answer may be kept and used again: RFC 9111 sections 3 and 4, without state.
//!
//! [`Terms::of`] reads an answer's status and fields once, when it comes; [`Terms::stands`] says later what a request may
//! have of it. What the configuration allows beyond the upstream's word is added here, too: a floor for freshness, and
//! how stale an answer may be served.
//!
//! `private` does not keep an answer out: it is stored under all fields of its request (see [`key`](super::key)).
//! Requests that carry a credential of the app's own make the cache a shared one for their answers.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName};
use tokio::time::Instant;

use super::directives::{Demands, FOR_EVER, Said, seconds_of};

/// What the configuration says about time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Allowances {
    pub(super) min_fresh: Duration,
    pub(super) stale_if_error: Duration,
    pub(super) stale_while_revalidate: Duration,
}

/// When a request went out and when its answer came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
    /// The same moment, for comparison with the upstream's clock.
    pub(crate) clock: SystemTime,
}

/// How long an answer is good, and for what afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// When it came, or was last confirmed.
    pub(super) received: Instant,
    /// How old it was then.
    age: Duration,
    lifetime: Duration,
    /// Treated as fresh for this long after it came, whatever it and the request say.
    floor: Duration,
    /// `no-cache`: never used before the upstream has confirmed it.
    always_asks: bool,
    /// How stale it may be when the upstream fails.
    stale_if_error: Duration,
    /// How stale it may be while it is refreshed.
    stale_while_revalidate: Duration,
    /// Used stale under no circumstances.
    never_stale: bool,
}

/// What a request may have of a stored answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    /// Use it; fresh for so many seconds more, below zero where the app takes a stale one.
    Fresh { ttl: i64 },
    /// Use it, and refresh it.
    Refresh { ttl: i64 },
    /// It has to be confirmed first, because it is stale.
    Stale,
    /// It has to be confirmed first, because the request wants that.
    Unwanted,
}

impl Terms {
    /// `None`: it must not be stored, or there would be no use in it. `is_shared`: the app's request had a credential
    /// of its own.
    pub(super) fn of(
        status: StatusCode,
        fields: &HeaderMap,
        is_shared: bool,
        times: &Times,
        allowances: &Allowances,
    ) -> Option<Self> {
        let said = Said::of(fields);
        if !is_storable(status, fields, is_shared, &said) {
            return None;
        }
        let date = date(fields, header::DATE).unwrap_or(times.clock);
        let (lifetime, is_explicit) = lifetime(status, fields, &said, date);
        if !is_explicit && !is_heuristic(status) && !said.public {
            return None;
        }
        let never_stale =
            said.must_revalidate || said.proxy_revalidate || said.s_maxage.is_some() || said.no_cache;
        let floor = if said.no_cache || !is_heuristic(status) {
            Duration::ZERO
        } else {
            allowances.min_fresh
        };
        let longer = |said: Option<Duration>, configured: Duration| match never_stale {
            true => Duration::ZERO,
            false => said.unwrap_or_default().max(configured),
        };
        let terms = Self {
            received: times.answered,
            age: age(fields, date, times),
            lifetime,
            floor,
            always_asks: said.no_cache,
            stale_if_error: longer(said.stale_if_error, allowances.stale_if_error),
            stale_while_revalidate: longer(said.stale_while_revalidate, allowances.stale_while_revalidate),
            never_stale,
        };
        let has_validator = fields.contains_key(header::ETAG) || fields.contains_key(header::LAST_MODIFIED);
        (has_validator || terms.is_of_use()).then_some(terms)
    }

    /// How old the answer is at `now`, its time at the upstream and in other caches included.
    pub(super) fn age(&self, now: Instant) -> Duration {
        self.age
            .saturating_add(now.saturating_duration_since(self.received))
    }

    /// How long it is fresh at `now`, in seconds; below zero where it is stale.
    pub(super) fn ttl(&self, now: Instant) -> i64 {
        let left = self.left(self.age(now));
        let here = now.saturating_duration_since(self.received);
        match self.floor.is_zero() {
            true => left,
            false => left.max(seconds(self.floor) - seconds(here)),
        }
    }

    /// What a request with these demands may have at `now`. `since`: when it began to wait for just this answer.
    pub(super) fn stands(&self, demands: &Demands, since: Option<Instant>, now: Instant) -> Stands {
        let age = self.age(now);
        let left = self.left(age);
        let here = now.saturating_duration_since(self.received);
        if !self.floor.is_zero() && here < self.floor {
            return Stands::Fresh { ttl: self.ttl(now) };
        }
        let is_too_old = demands.max_age.is_some_and(|most| age > most || most.is_zero());
        if demands.no_cache || is_too_old {
            return Stands::Unwanted;
        }
        if self.always_asks {
            return Stands::Stale;
        }
        let remaining = self.lifetime.checked_sub(age).filter(|left| !left.is_zero());
        let staleness = age.saturating_sub(self.lifetime);
        match (remaining, demands.min_fresh) {
            (Some(remaining), Some(wanted)) if remaining < wanted => return Stands::Unwanted,
            (Some(_), _) => return Stands::Fresh { ttl: left },
            (None, Some(_)) => return Stands::Unwanted,
            (None, None) if self.never_stale => return Stands::Stale,
            (None, None) => {}
        }
        if demands.max_stale.is_some_and(|most| staleness <= most) {
            return Stands::Fresh { ttl: left };
        }
        // It was made while the request waited: it is as new as the request's own answer would have been.
        if since.is_some_and(|since| self.received >= since) {
            return Stands::Fresh { ttl: left };
        }
        if !self.stale_while_revalidate.is_zero() && staleness <= self.stale_while_revalidate {
            return Stands::Refresh { ttl: left };
        }
        Stands::Stale
    }

    /// Whether it is used stale under no circumstances, so that it has to be confirmed.
    pub(super) fn must_be_confirmed(&self) -> bool {
        self.never_stale
    }

    /// Whether it may stand in at `now` for an answer that failed; how long it is fresh, which is less than nothing.
    pub(super) fn stands_in(&self, demands: &Demands, now: Instant) -> Option<i64> {
        let age = self.age(now);
        let is_wanted = !demands.no_cache && demands.max_age.is_none_or(|most| age <= most);
        let staleness = age.saturating_sub(self.lifetime);
        let is_allowed =
            !self.never_stale && !self.stale_if_error.is_zero() && staleness <= self.stale_if_error;
        (is_wanted && is_allowed).then(|| self.left(age))
    }

    /// How much of its lifetime is left at an age, in seconds; below zero past it.
    fn left(&self, age: Duration) -> i64 {
        seconds(self.lifetime) - seconds(age)
    }

    fn is_of_use(&self) -> bool {
        let times = [self.floor, self.stale_if_error, self.stale_while_revalidate];
        !self.always_asks && (self.lifetime > self.age || times.iter().any(|time| !time.is_zero()))
    }
}

/// RFC 9111 section 3, and what is safe.
fn is_storable(status: StatusCode, fields: &HeaderMap, is_shared: bool, said: &Said) -> bool {
    // An error belongs to the request that met it; it must not become everybody's.
    let is_kept = match status {
        // A part of something, and what confirms something: neither is an answer by itself.
        StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED => false,
        status => status.is_success() || status.is_redirection() || is_heuristic(status),
    };
    // A cookie is for one session, and what comes with it may be as well.
    let sets_cookie = fields.contains_key(header::SET_COOKIE) || fields.contains_key(SET_COOKIE2);
    // RFC 9111 section 3.5.
    let may_share = !said.private && (said.public || said.must_revalidate || said.s_maxage.is_some());
    is_kept
        && !sets_cookie
        && !said.no_store
        && (!said.must_understand || is_heuristic(status) || status.is_redirection())
        && (!is_shared || may_share)
}

/// How long from `date`, and whether the upstream said so itself.
fn lifetime(status: StatusCode, fields: &HeaderMap, said: &Said, date: SystemTime) -> (Duration, bool) {
    // A private cache may pass over s-maxage, a proxy may not: the shorter of the two satisfies both.
    let stated = match (said.max_age, said.s_maxage) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    if let Some(stated) = stated {
        return (stated, true);
    }
    if fields.contains_key(header::EXPIRES) {
        // What is no date, and what stands there twice, is in the past.
        let expires = date_once(fields, header::EXPIRES);
        let lifetime = expires.and_then(|expires| expires.duration_since(date).ok());
        return (lifetime.unwrap_or_default().min(FOR_EVER), true);
    }
    let may_guess = is_heuristic(status) || said.public;
    let modified = date_once(fields, header::LAST_MODIFIED).filter(|_| may_guess);
    let unchanged = modified.and_then(|modified| date.duration_since(modified).ok());
    (
        unchanged.unwrap_or_default().div_f32(10.0).min(LONGEST_GUESS),
        false,
    )
}

/// RFC 9111 sections 4.2.3 and 5.1: of several ages the first counts. One that cannot be read is beyond every lifetime.
fn age(fields: &HeaderMap, date: SystemTime, times: &Times) -> Duration {
    let stated = fields.get(header::AGE).map_or(Duration::ZERO, |line| {
        let first = line.as_bytes().split(|byte| *byte == b',').next();
        let seconds = first.and_then(|first| seconds_of(first.trim_ascii()));
        seconds.unwrap_or(UNREADABLE)
    });
    let apparent = times.clock.duration_since(date).unwrap_or_default();
    let delay = times.answered.saturating_duration_since(times.asked);
    // Dates are in whole seconds: a part of one tells nothing.
    let apparent = Duration::from_secs(apparent.as_secs());
    stated.saturating_add(delay).max(apparent).min(UNREADABLE)
}

fn date(fields: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    let text = fields.get(name)?.to_str().ok()?;
    httpdate::parse_http_date(text).ok()
}

fn date_once(fields: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    let mut lines = fields.get_all(&name).iter();
    match (lines.next(), lines.next()) {
        (Some(_), None) => date(fields, name),
        (None | Some(_), _) => None,
    }
}

/// Those that RFC 9110 section 15.1 calls heuristically cacheable, but for 206.
fn is_heuristic(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// Whole ones; no time here is longer than an `i64` of them.
fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// A guess from Last-Modified is a tenth of the time since, and never more than this: nobody has promised anything.
const LONGEST_GUESS: Duration = Duration::from_secs(600);
/// Older than any lifetime.
const UNREADABLE: Duration = Duration::from_secs(1 << 32);

const SET_COOKIE2: HeaderName = HeaderName::from_static("set-cookie2");

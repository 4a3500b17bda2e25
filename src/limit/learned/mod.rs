//! Limits that are learned from the answers of the upstream, and how we keep to them.
//!
//! In this module a *refusal* is an answer of the upstream (429, 503 …). What outrider itself answers is a
//! [`Refusal`](super::Refusal). Nothing here is shared among instances: each learns for itself.
//!
//! There are three sources:
//!
//! | the upstream sends | we learn | we hold requests |
//! | --- | --- | --- |
//! | a refusal with a time: 429 and `Retry-After: 30` | a *pause* | all that it counts until that time, an hour at most |
//! | what is left: `X-RateLimit-Remaining: 7` | a *quota* | when that many have been sent, until the quota resets |
//! | a refusal without a time: 429 alone, or with 2 s at most, which may be rounded up | a *guessed rate* | for a moment, then to the rate at which requests got through |
//!
//! # How a quota holds requests
//!
//! 1. A response reports `X-RateLimit-Remaining: 7` and `X-RateLimit-Reset: 30`. [`hints`](super::hints) parses
//!    these fields.
//! 2. [`CallerLimits`] keeps what is known for one host, port and credential. It finds the limit which counts the
//!    route of this request, or adds one, and hands it the figures. Where the upstream names its quotas (GitHub:
//!    `core`, `search`), each name is another limit.
//! 3. [`quota`] computes how many requests may still be sent: the 7, less the requests that are in flight at that moment,
//!    because the upstream may not have counted those yet. Each request that is sent later takes one.
//! 4. With nothing left, [`Learned::verdict`] answers [`LearnedVerdict::Held`]. The request waits in the queue of
//!    [`state`](super::state), or is refused if it may not wait so long. It wakes by its own timer at the reset, or
//!    earlier if an answer brings news.
//! 5. When the 30 seconds are over, one request goes first, the *probe*, because our clock may be ahead of the
//!    upstream's. If it passes, the others follow.
//!
//! # The states of one limit
//!
//! ```text
//!       nothing is left, or the upstream
//!       refuses and says how long               its time is over
//!   OPEN ───────────────────────────▶ EXHAUSTED ────────────────────▶ PROBING
//!    ▲                                    ▲                           │     │
//!    │                                    └── the probe is refused ───┘     │
//!    └─────────────────────────────────────── the probe passes ─────────────┘
//! ```
//!
//! | state | requests | it ends |
//! | --- | --- | --- |
//! | open | go; with a guessed rate, no faster than that | when nothing is left, or with a refusal |
//! | exhausted | wait | at the reset or at the end of the pause; a quota that names no time is tried now and then |
//! | probing | one goes; without new figures two more for each answer (*slow start*) | with figures, when enough answers have come, or with the first answer of a service that sends no figures |
//!
//! After the first refusal without a time the limit is probing at once. If the probe is refused as well, the limit is
//! exhausted for as long as has passed since the first refusal; for a fifth of that where requests may not wait
//! (`on_limit: reject`). What passes between two such times gives the guessed rate: see [`guess`].
//!
//! # Which requests a limit counts
//!
//! A new limit counts the [`RoutePattern`] whose response reported it. It *widens* when a response to a second
//! route reports figures that can be those of the same counter, or a pause that ends at the same moment; then it
//! counts all paths that begin as both do. It *narrows* when a response to a covered route reports other figures
//! or none. It is *forgotten* when it holds nobody and has not been reported for five minutes or its window, whichever is longer.
//!
//! While nothing is known about a caller, a slow start holds its requests too, for a second at most.
//!
//! A tunnel waits for the pauses of its host and is never counted, because we cannot see what is in it.
//!
//! Pure: time is passed in, as nanoseconds since the limiter was made. Who goes first is decided in
//! [`state`](super::state).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use self::caller::{CallerForecast, CallerLimits};
use self::response::Evidence;
pub(super) use self::response::ObservedResponse;
pub(super) use self::route::RoutePattern;
use self::set::LearnedSet;

mod caller;
mod guess;
mod quota;
mod response;
mod route;
mod set;
mod slow_start;

const MOST_CALLERS: usize = 64;

/// Counts, outside the lock, how many requests have been sent and how many of them have ended.
///
/// A request without configured limits counts itself first and then reads `watched`. A thread that learns something
/// sets `watched` first and then reads the counts. So at least one of the two sees the other. A request with
/// configured limits reads `watched` again under the lock, under which everything is learned.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    ended: AtomicU64,
    watched: AtomicBool,
    started: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Learned {
    /// By [`LearnedKey::caller`]. At most [`MOST_CALLERS`].
    callers: HashMap<u64, CallerLimits>,
    traffic: Arc<Traffic>,
    /// Requests may wait, so that a slow start makes sense.
    may_wait: bool,
    /// A limit learned on one route may turn out to count several.
    widens: bool,
}

/// What the upstream may count a request by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LearnedKey {
    /// A hash of host, port and credential.
    pub(super) caller: u64,
    /// A hash of host and port.
    pub(super) host: u64,
    /// `None` for a tunnel.
    pub(super) route: Option<RoutePattern>,
}

/// What is remembered of a request from when it is sent until its answer comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SentRequest {
    /// False for a tunnel, which is not counted as in flight.
    is_counted: bool,
    number: u64,
    /// Where it was counted; zero where nothing had been learned yet.
    caller: u64,
    /// The limits that it was counted under.
    taken: LearnedSet,
}

/// Whether the learned limits let a request go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LearnedVerdict {
    Free,
    /// These limits hold it back.
    Held(HeldBy, Hold),
}

/// How long a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// Until the answer to a probe comes, or this moment at the latest.
    ForProbe(u64),
    Until(u64),
}

/// The limits that hold a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldBy {
    caller: u64,
    set: LearnedSet,
}

/// Something learned that deserves a line in the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum LearnedEvent {
    /// The upstream named a time: nothing is sent for so long.
    Paused(Duration),
    /// The upstream named no time: nothing is sent for so long, then requests go at this rate if one is known.
    Guessed(Duration, Option<f64>),
    /// A guessed rate has held nobody for five minutes.
    Forgotten,
}

/// A forecast of when requests may go, for one caller.
#[derive(Debug)]
pub(super) struct LearnedForecast {
    expected: Option<CallerForecast>,
    now: u64,
    caller: u64,
}

/// The figures of a quota that a refusal shows, as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReportedQuota {
    pub(super) limit: Option<u64>,
    pub(super) window: Duration,
}

/// A learned limit for people. Moments are nanoseconds since the limiter was made.
#[derive(Clone, Debug)]
pub(super) struct LearnedSnapshot {
    pub(super) concerns: String,
    pub(super) host: Box<str>,
    pub(super) left: Option<u64>,
    pub(super) limit: Option<u64>,
    pub(super) name: Box<str>,
    pub(super) paused_until: Option<u64>,
    pub(super) per_second: Option<f64>,
    pub(super) resets: Option<u64>,
    pub(super) evidence: Evidence,
}

impl Traffic {
    /// Counts a request as sent and returns its number.
    pub(super) fn start(&self) -> u64 {
        self.started.fetch_add(1, Ordering::SeqCst)
    }

    /// Counts a request as ended, with an answer or without.
    pub(super) fn end(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether requests have to ask [`Learned`] before they go.
    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::SeqCst)
    }

    pub(super) fn watch(&self, on: bool) {
        self.watched.store(on, Ordering::SeqCst);
    }

    /// Returns the number of the next request, and how many are in flight.
    fn counts(&self) -> (u64, u64) {
        let ended = self.ended.load(Ordering::SeqCst);
        let next = self.started.load(Ordering::SeqCst);
        (next, next.saturating_sub(ended))
    }

    /// How many requests are in flight.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> u64 {
        self.counts().1
    }
}

impl LearnedKey {
    /// The key of a tunnel to a host, by the host's hash.
    pub(super) fn tunnel(host: u64) -> Self {
        Self {
            caller: host,
            host,
            route: None,
        }
    }
}

impl SentRequest {
    /// A request that was sent while nothing was known.
    pub(super) fn untracked(number: u64) -> Self {
        Self {
            is_counted: true,
            number,
            ..Self::default()
        }
    }

    /// The same request for the limits of another caller, which did not count it.
    fn seen_by_other(self) -> Self {
        Self {
            taken: LearnedSet::default(),
            ..self
        }
    }

    pub(super) fn is_counted(&self) -> bool {
        self.is_counted
    }
}

impl LearnedVerdict {
    /// When to check again if the request is held.
    pub(super) fn due(self) -> Option<u64> {
        match self {
            Self::Free => None,
            Self::Held(_, Hold::ForProbe(until) | Hold::Until(until)) => Some(until),
        }
    }
}

impl HeldBy {
    pub(super) fn shares(self, other: Self) -> bool {
        self.caller == other.caller && self.set.shares(other.set)
    }
}

impl Learned {
    /// `may_wait`: requests may wait. `widens`: a limit learned on one route may turn out to count several.
    pub(super) fn new(traffic: Arc<Traffic>, may_wait: bool, widens: bool) -> Self {
        // From the first request on, so that it begins a slow start.
        traffic.watch(may_wait);
        Self {
            callers: HashMap::new(),
            traffic,
            may_wait,
            widens,
        }
    }

    /// Whether nothing learned could hold a request back.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        let is_begun = !self.may_wait || !self.callers.is_empty();
        is_begun && self.callers.values().all(|caller| caller.is_idle(now))
    }

    /// Whether something may have been learned. Certain while the lock of the limiter is held.
    pub(super) fn is_watched(&self) -> bool {
        self.traffic.is_watched()
    }

    /// Decides whether a request may go that came at `arrived` and may wait for `max_wait`.
    pub(super) fn verdict(
        &mut self,
        key: &LearnedKey,
        arrived: u64,
        max_wait: u64,
        now: u64,
    ) -> LearnedVerdict {
        let Some(route) = &key.route else {
            let held_by = HeldBy {
                caller: key.caller,
                set: LearnedSet::of(0),
            };
            return self
                .pause_end(key.host, now)
                .map_or(LearnedVerdict::Free, |until| {
                    LearnedVerdict::Held(held_by, Hold::Until(until))
                });
        };
        let counts = self.traffic.counts();
        if self.may_wait {
            self.caller(key, now);
        }
        let Some(caller) = self.callers.get_mut(&key.caller) else {
            return LearnedVerdict::Free;
        };
        let (set, hold) = caller.held(route, (arrived, max_wait), counts, now);
        let held_by = HeldBy {
            caller: key.caller,
            set,
        };
        if set.is_empty() {
            LearnedVerdict::Free
        } else {
            LearnedVerdict::Held(held_by, hold)
        }
    }

    /// Counts a request as sent, after [`verdict`](Self::verdict) has let it go.
    pub(super) fn take(&mut self, key: &LearnedKey, now: u64) -> SentRequest {
        let Some(route) = &key.route else {
            return SentRequest::default();
        };
        let number = self.traffic.start();
        let caller = self.callers.get_mut(&key.caller);
        SentRequest {
            is_counted: true,
            number,
            caller: key.caller,
            taken: caller.map(|caller| caller.take(route, now)).unwrap_or_default(),
        }
    }

    /// Counts a request as sent to which nothing learned applies.
    pub(super) fn take_unknown(&self) -> SentRequest {
        SentRequest::untracked(self.traffic.start())
    }

    /// Takes back a request that was counted and then not sent.
    pub(super) fn give_back(&mut self, sent: SentRequest) {
        if !sent.is_counted {
            return;
        }
        self.traffic.end();
        self.end(sent);
        let is_last = self.traffic.counts().0 == sent.number + 1;
        if let Some(caller) = self.callers.get_mut(&sent.caller) {
            caller.give_back(sent, is_last);
        }
    }

    /// Takes a request out of those in flight, after [`Traffic`] has counted it as ended.
    pub(super) fn end(&mut self, sent: SentRequest) {
        // Limits of another caller may have counted it: all requests in flight count for a limit that is new.
        for (key, caller) in &mut self.callers {
            let is_own = *key == sent.caller;
            caller.end(if is_own { sent } else { sent.seen_by_other() });
        }
    }

    /// Learns from an answer, after [`Traffic`] has counted its request as ended.
    pub(super) fn learn(
        &mut self,
        sent: SentRequest,
        key: &LearnedKey,
        response: &ObservedResponse<'_>,
        now: u64,
    ) -> Option<LearnedEvent> {
        self.end(sent);
        let route = key.route.as_ref()?;
        let counts = self.traffic.counts();
        if response.hints.is_some() {
            self.caller(key, now);
        }
        let caller = self.callers.get_mut(&key.caller)?;
        if caller.host.is_empty() {
            caller.host = response.host.to_string().into();
        }
        caller.learn(sent, route, response, counts, now)
    }

    /// Returns until when requests are held: by a pause, or by a quota of which nothing is left.
    pub(super) fn paused_until(&self, now: u64) -> Option<u64> {
        let until = self.callers.values().filter_map(CallerLimits::paused_until).max();
        until.filter(|until| *until > now)
    }

    /// Returns what is left of the most used quota: 1 full, 0 exhausted.
    pub(super) fn ratio(&self, now: u64) -> Option<f64> {
        let ratios = self.callers.values().filter_map(|caller| caller.ratio(now));
        ratios.reduce(f64::min)
    }

    /// Returns everything learned, for the status page.
    pub(super) fn snapshot(&self, now: u64) -> Vec<LearnedSnapshot> {
        self.callers
            .values()
            .flat_map(|caller| caller.snapshot(now))
            .collect()
    }

    /// Begins a forecast for requests with this key.
    pub(super) fn forecast(&self, key: &LearnedKey, now: u64) -> LearnedForecast {
        LearnedForecast {
            expected: self.callers.get(&key.caller).map(CallerLimits::forecast),
            now,
            caller: key.caller,
        }
    }

    /// Returns when a request may go after those already in the forecast, and the quota that decides.
    pub(super) fn when(&self, forecast: &LearnedForecast, key: &LearnedKey) -> (u64, ReportedQuota) {
        let Some(route) = &key.route else {
            let stopped = self.pause_end(key.host, forecast.now);
            return (stopped.unwrap_or(forecast.now), ReportedQuota::default());
        };
        match (self.callers.get(&key.caller), &forecast.expected) {
            (Some(caller), Some(expected)) if key.caller == forecast.caller => {
                caller.when(expected, route, forecast.now)
            }
            _ => (forecast.now, ReportedQuota::default()),
        }
    }

    /// Adds a request that is sent at this moment.
    pub(super) fn add_sent(&self, forecast: &mut LearnedForecast, key: &LearnedKey, at: u64) {
        if key.caller == forecast.caller
            && let Some(route) = &key.route
            && let Some(expected) = &mut forecast.expected
            && let Some(caller) = self.callers.get(&key.caller)
        {
            caller.add_sent(expected, route, at);
        }
    }

    /// Returns until when a tunnel to a host has to wait.
    fn pause_end(&self, host: u64, now: u64) -> Option<u64> {
        let of_host = self.callers.values().filter(|caller| caller.host_hash == host);
        of_host.filter_map(|caller| caller.pause_end(now)).max()
    }

    /// Finds or adds the limits of a caller. When there are [`MOST_CALLERS`], a new one replaces the one used
    /// longest ago, preferably one without learned limits. Its slow start begins where the other callers of its
    /// host are by now.
    fn caller(&mut self, key: &LearnedKey, now: u64) -> &mut CallerLimits {
        let is_new = !self.callers.contains_key(&key.caller);
        let same = self
            .callers
            .values()
            .filter(|caller| is_new && caller.host_hash == key.host);
        let allowed = same.map(CallerLimits::slow_start_allows).max().unwrap_or(1);
        if self.callers.len() >= MOST_CALLERS && is_new {
            let key = |(key, caller): (&u64, &CallerLimits)| (!caller.is_blank(now), caller.last_used, *key);
            if let Some((_, _, oldest)) = self.callers.iter().map(key).min() {
                self.callers.remove(&oldest);
            }
        }
        let (may_wait, widens, next) = (self.may_wait, self.widens, self.traffic.counts().0);
        let new = || CallerLimits::new(key.host, may_wait, allowed, widens, next, now);
        self.callers.entry(key.caller).or_insert_with(new)
    }
}

//! How much each destination may be asked at once and over time.
//!
//! [`Limiter::admit`] turns a request into a [`Permit`] or a [`Refusal`]. A request takes from every limit that
//! concerns it or from none. Where it may wait it queues in order of arrival; where the wait is known to be too long
//! it is refused at once. The permit holds the concurrency slot until it is dropped, so it rides on the response
//! body, or on the tunnel.
//!
//! The arithmetic of a rate is in [`gcra`], what a rate has left in [`meter`], the queue in [`book`]: no clock, no lock,
//! no I/O. This file adds the lock, the timers and the metrics. Which limits a destination has is decided in `policy`, not here.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::config::{OnLimit, RateLimit};
use crate::policy::{Destination, PathGlob};
use crate::telemetry::{Counters, LimitHandles, Telemetry};

use self::book::{Arrival, Book, Concerns, Culprit, Look, Obstacle, Rules, Ticket};
use self::gcra::Gcra;
use self::meter::Meter;
use self::refusal::Face;
pub(crate) use self::refusal::Refusal;

pub(crate) mod bench;
mod book;
mod gcra;
mod hints;
mod meter;
mod refusal;
#[cfg_attr(not(test), expect(dead_code, reason = "no meter is lent anything so far"))]
pub(crate) mod shared;
#[cfg(test)]
mod tests;

/// The limiters of all destinations. State survives a reload where the settings are equal.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    limiters: Mutex<HashMap<Arc<str>, Arc<Limiter>>>,
}

/// The limits of one destination.
#[derive(Debug)]
pub(crate) struct Limiter {
    book: Mutex<Book>,
    born: Instant,
    counters: Arc<Counters>,
    destination: Arc<str>,
    rates: Box<[RateRule]>,
    rules: Rules,
    settings: Settings,
    slots: Option<Shown>,
}

/// Leave to send one request. Frees its concurrency slot on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    /// Whose slot it holds; `None` where concurrency is not limited.
    slot: Option<Arc<Limiter>>,
    waited: Duration,
}

/// What the configuration says; equal settings keep the state across reloads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    concurrency: Option<u32>,
    /// How many instances share each rate; each has its own concurrency.
    instances: u32,
    on_limit: OnLimit,
    rate_limits: Vec<RateLimit>,
}

/// Which requests a rate concerns, and how it is shown.
#[derive(Debug)]
struct RateRule {
    method: Option<Method>,
    path: Option<PathGlob>,
    shown: Shown,
}

/// How a limit appears in answers and metrics.
#[derive(Debug)]
struct Shown {
    face: Face,
    handles: LimitHandles,
}

/// A place in the queue; gives everything back on drop unless the request was admitted.
struct Place<'l> {
    admitted: bool,
    bell: Arc<Notify>,
    concerns: Concerns,
    limiter: &'l Limiter,
    ticket: Ticket,
}

impl Limits {
    /// The limiter of a destination: the running one where its limits are as before, else a new one.
    pub(crate) fn of(&self, destination: &Destination, telemetry: &Telemetry) -> Arc<Limiter> {
        let settings = Settings {
            concurrency: destination.concurrency,
            instances: destination.instances.map_or(1, NonZeroU32::get),
            on_limit: destination.on_limit,
            rate_limits: destination.rate_limits.clone(),
        };
        self.with(&destination.name, settings, telemetry)
    }

    /// Sets the gauges of what is left. For the metrics page to call before it is written: buckets fill while nobody
    /// asks, so the value is right only at the moment of asking.
    pub(crate) fn observe(&self) {
        for limiter in self.limiters().values() {
            limiter.observe();
        }
    }

    fn with(&self, name: &Arc<str>, settings: Settings, telemetry: &Telemetry) -> Arc<Limiter> {
        let mut limiters = self.limiters();
        match limiters.get(name) {
            Some(running) if running.settings == settings => Arc::clone(running),
            _ => {
                let limiter = Arc::new(Limiter::new(name, settings, telemetry.counters(name)));
                limiters.insert(Arc::clone(name), Arc::clone(&limiter));
                limiter
            }
        }
    }

    fn limiters(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Limiter>>> {
        // Nothing panics under the lock; if it did, the map would still be whole.
        self.limiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limiter {
    fn new(destination: &Arc<str>, settings: Settings, counters: Arc<Counters>) -> Self {
        let rates: Box<[RateRule]> = settings
            .rate_limits
            .iter()
            .map(|limit| RateRule::new(limit, &counters))
            .collect();
        let rules = Rules {
            rates: settings
                .rate_limits
                .iter()
                .map(|limit| Gcra::new(&limit.rate).share(settings.instances))
                .collect(),
            slots: settings.concurrency,
        };
        let slots = settings.concurrency.map(|quota| {
            let face = Face {
                label: "concurrency".into(),
                quota,
                window: Duration::ZERO,
            };
            Shown {
                handles: counters.limit(&face.label),
                face,
            }
        });
        Self {
            book: Mutex::new(Book::new(&rules)),
            born: Instant::now(),
            counters,
            destination: Arc::clone(destination),
            rates,
            rules,
            settings,
            slots,
        }
    }

    /// Nothing to admit: no permit is needed. Lets the request path skip all of this.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.rates.is_empty() && self.slots.is_none()
    }

    /// Waits for its turn, in order of arrival, or refuses at once when the wait would be longer than allowed.
    ///
    /// `path` is without query; a tunnel is admitted with `CONNECT` and an empty path. Dropping the future gives
    /// everything back. While nobody waits this is one short lock, without allocation or timer.
    pub(crate) async fn admit(self: &Arc<Self>, method: &Method, path: &str) -> Result<Permit, Refusal> {
        let concerns = self.concerns(method, path);
        if concerns.is_empty() {
            return Ok(self.permit(concerns, Duration::ZERO));
        }
        let arrived = Instant::now();
        let now = self.nanos(arrived);
        let patience = match self.settings.on_limit {
            OnLimit::Reject => Duration::ZERO,
            OnLimit::Wait(patience) => patience,
        };
        let arrival = self
            .book()
            .arrive(&self.rules, concerns, now, saturating_nanos(patience));
        match arrival {
            Arrival::Admitted => Ok(self.permit(concerns, Duration::ZERO)),
            Arrival::Refused(obstacle) => Err(self.refusal(obstacle, now)),
            Arrival::Queued(ticket, bell) => {
                let place = Place {
                    admitted: false,
                    bell,
                    concerns,
                    limiter: self,
                    ticket,
                };
                self.wait(place, arrived, patience).await
            }
        }
    }

    async fn wait(
        self: &Arc<Self>,
        mut place: Place<'_>,
        arrived: Instant,
        patience: Duration,
    ) -> Result<Permit, Refusal> {
        let _waiting = self.counters.limit_waiting();
        loop {
            let time = Instant::now();
            let look = self.book().look(&self.rules, place.ticket, self.nanos(time));
            let waited = time.duration_since(arrived);
            let left = patience.saturating_sub(waited);
            let sleep = match look {
                Look::Admitted => {
                    place.admitted = true;
                    self.counters.limit_waited(waited);
                    return Ok(self.permit(place.concerns, waited));
                }
                Look::Due(_) | Look::Waiting if left.is_zero() => {
                    let concerns = place.concerns;
                    drop(place);
                    let now = self.nanos(time);
                    let obstacle = self.book().forecast(&self.rules, concerns, now);
                    return Err(self.refusal(obstacle, now));
                }
                Look::Due(until) => left.min(Duration::from_nanos(until.saturating_sub(self.nanos(time)))),
                Look::Waiting => left,
            };
            // Whether the bell rang or the time is up: look again.
            let _ = timeout_at(time + sleep.min(LONGEST_SLEEP), place.bell.notified()).await;
        }
    }

    /// Something came from outside into the meter of a rate, by its place in the configuration: for meters whose permits
    /// are lent. Admits and wakes whoever can go by it.
    #[cfg_attr(not(test), expect(dead_code, reason = "every meter counts by itself so far"))]
    fn granted(&self, index: usize, change: impl FnOnce(&mut Meter)) {
        let now = self.nanos(Instant::now());
        self.book().refill(&self.rules, index, now, change);
    }

    /// Which limits concern a request.
    fn concerns(&self, method: &Method, path: &str) -> Concerns {
        let mut concerns = Concerns::default();
        for (index, rate) in self.rates.iter().enumerate() {
            if rate.concerns(method, path) {
                concerns.add_rate(index);
            }
        }
        if self.slots.is_some() {
            concerns.add_slots();
        }
        concerns
    }

    fn permit(self: &Arc<Self>, concerns: Concerns, waited: Duration) -> Permit {
        Permit {
            slot: concerns.slots().then(|| Arc::clone(self)),
            waited,
        }
    }

    fn refusal(&self, obstacle: Obstacle, now: u64) -> Refusal {
        let shown = match obstacle.culprit {
            Culprit::Concurrency => self.slots.as_ref(),
            Culprit::Rate(index) => self.rates.get(index).map(|rate| &rate.shown),
        };
        // The book names only limits that concern the request, and `concerns` made those from these very lists.
        let shown = shown.expect("a limit of this limiter");
        shown.handles.refused();
        Refusal::new(&self.destination, &shown.face, obstacle, now)
    }

    fn observe(&self) {
        let book = self.book();
        let now = self.nanos(Instant::now());
        for (index, rate) in self.rates.iter().enumerate() {
            rate.shown
                .handles
                .remaining(book.rate_left(&self.rules, index, now));
        }
        if let Some(slots) = &self.slots {
            let taken = f64::from(book.slots_taken()) / f64::from(slots.face.quota.max(1));
            slots.handles.remaining(1.0 - taken);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing panics under the lock; if it did, refusing everything from then on would be worse.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nanos(&self, time: Instant) -> u64 {
        saturating_nanos(time.saturating_duration_since(self.born))
    }
}

impl Permit {
    /// How long the request had to wait for it.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(limiter) = &self.slot {
            (limiter.book()).release(&limiter.rules, || limiter.nanos(Instant::now()));
        }
    }
}

impl RateRule {
    fn new(limit: &RateLimit, counters: &Counters) -> Self {
        let mut label = limit.rate.to_string();
        for part in [limit.method.as_ref().map(Method::as_str), limit.path.as_deref()]
            .into_iter()
            .flatten()
        {
            label.push(' ');
            label.push_str(part);
        }
        let face = Face {
            label: label.into(),
            quota: limit.rate.count,
            window: limit.rate.per,
        };
        Self {
            method: limit.method.clone(),
            // The policy has compiled it before; one that does not compile would concern every path.
            path: limit.path.as_deref().and_then(|path| PathGlob::parse(path).ok()),
            shown: Shown {
                handles: counters.limit(&face.label),
                face,
            },
        }
    }

    fn concerns(&self, method: &Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|own| own == method)
            && self.path.as_ref().is_none_or(|own| own.reaches(path))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.admitted {
            let now = self.limiter.nanos(Instant::now());
            self.limiter
                .book()
                .leave(&self.limiter.rules, self.ticket, self.concerns, now);
        }
    }
}

fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A waiter with a longer patience looks again now and then; no clock can add centuries.
const LONGEST_SLEEP: Duration = Duration::from_secs(86_400);

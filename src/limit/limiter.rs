//! The limits of one destination, alive: the lock, the timers and the metrics around a [`Book`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::book::{Arrival, Asker, Book, Concerns, Culprit, Look, Obstacle, Rules};
use super::gcra::Gcra;
use super::meter::Meter;
use super::queue::Ticket;
use super::rule::{ClassRule, RateRule, Shown};
use super::{Refusal, Settings};
use crate::config::OnLimit;
use crate::telemetry::Counters;

/// The limits of one destination.
#[derive(Debug)]
pub(crate) struct Limiter {
    book: Mutex<Book>,
    born: Instant,
    classes: Box<[ClassRule]>,
    counters: Arc<Counters>,
    destination: Arc<str>,
    pub(super) rates: Box<[RateRule]>,
    pub(super) rules: Rules,
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

/// A place in the queue; gives everything back on drop unless the request was admitted.
struct Place<'l> {
    admitted: bool,
    asker: Asker,
    bell: Arc<Notify>,
    limiter: &'l Limiter,
    ticket: Ticket,
}

impl Limiter {
    pub(super) fn new(destination: &Arc<str>, settings: Settings, counters: Arc<Counters>) -> Self {
        let limits = &settings.rate_limits;
        let rates: Box<[RateRule]> = (limits.iter().map(|limit| RateRule::new(limit, &counters))).collect();
        let mut everybody = Concerns::default();
        for (index, _) in rates.iter().enumerate().filter(|(_, rate)| rate.concerns_all()) {
            everybody.add_rate(index);
        }
        if settings.concurrency.is_some() {
            everybody.add_slots();
        }
        let rules = Rules {
            everybody,
            queue: settings.queue,
            rates: (limits.iter())
                .map(|limit| Gcra::new(&limit.rate).share(settings.instances))
                .collect(),
            slots: settings.concurrency,
        };
        Self {
            book: Mutex::new(Book::new(&rules)),
            born: Instant::now(),
            classes: settings.priorities.iter().map(ClassRule::new).collect(),
            destination: Arc::clone(destination),
            rates,
            rules,
            slots: (settings.concurrency).map(|most| Shown::concurrency(most, &counters)),
            settings,
            counters,
        }
    }

    /// Whether it was made of these.
    pub(super) fn has(&self, settings: &Settings) -> bool {
        self.settings == *settings
    }

    /// Nothing to admit: no permit is needed. Lets the request path skip all of this.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.rates.is_empty() && self.slots.is_none()
    }

    /// Waits for its turn, or refuses at once when the wait would be longer than allowed.
    ///
    /// `path` is without query; a tunnel is admitted with `CONNECT` and an empty path. `deadline` says how long the
    /// client itself waits; it is asked only where it would have to. Dropping the future gives everything back. While
    /// nobody waits this is one short lock, without allocation or timer.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        method: &Method,
        path: &str,
        deadline: impl FnOnce() -> Option<Duration>,
    ) -> Result<Permit, Refusal> {
        let asker = self.asker(method, path);
        if asker.concerns.is_empty() {
            return Ok(self.permit(asker.concerns, Duration::ZERO));
        }
        let arrived = Instant::now();
        let now = self.nanos(arrived);
        let mut patience = Duration::ZERO;
        let arrival = self.book().arrive(&self.rules, asker, now, || {
            patience = self.patience(deadline);
            saturating_nanos(patience)
        });
        match arrival {
            Arrival::Admitted => Ok(self.permit(asker.concerns, Duration::ZERO)),
            Arrival::Refused(obstacle) => Err(self.refusal(obstacle, now)),
            Arrival::Queued(ticket, bell) => {
                let place = Place {
                    admitted: false,
                    asker,
                    bell,
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
                    return Ok(self.permit(place.asker.concerns, waited));
                }
                Look::Due(until) if !left.is_zero() => {
                    left.min(Duration::from_nanos(until.saturating_sub(self.nanos(time))))
                }
                Look::Waiting if !left.is_zero() => left,
                Look::Displaced | Look::Due(_) | Look::Waiting => {
                    let asker = place.asker;
                    drop(place);
                    let now = self.nanos(time);
                    let obstacle = self.book().forecast(&self.rules, asker, now);
                    return Err(self.refusal(obstacle, now));
                }
            };
            // Whether the bell rang or the time is up: look again.
            let _ = timeout_at(time + sleep.min(LONGEST_SLEEP), place.bell.notified()).await;
        }
    }

    /// Something came from outside into the meter of a rate, by its place in the configuration: for meters whose permits
    /// are lent. Admits and wakes whoever can go by it.
    #[cfg_attr(not(test), expect(dead_code, reason = "every meter counts by itself so far"))]
    pub(super) fn granted(&self, index: usize, change: impl FnOnce(&mut Meter)) {
        let now = self.nanos(Instant::now());
        self.book().refill(&self.rules, index, now, change);
    }

    /// Sets the gauges of what is left.
    pub(super) fn observe(&self) {
        let book = self.book();
        let now = self.nanos(Instant::now());
        for (index, rate) in self.rates.iter().enumerate() {
            let left = book.rate_left(&self.rules, index, now);
            rate.shown.handles.remaining(left);
        }
        if let (Some(slots), Some(most)) = (&self.slots, self.rules.slots) {
            let taken = f64::from(book.slots_taken()) / f64::from(most.max(1));
            slots.handles.remaining(1.0 - taken);
        }
    }

    /// Which limits concern a request, and how urgent it is.
    fn asker(&self, method: &Method, path: &str) -> Asker {
        let mut concerns = Concerns::default();
        for (index, rate) in self.rates.iter().enumerate() {
            if rate.concerns(method, path) {
                concerns.add_rate(index);
            }
        }
        if self.slots.is_some() {
            concerns.add_slots();
        }
        let class = self.classes.iter().find_map(|rule| rule.class(method, path));
        Asker {
            class: class.unwrap_or_default(),
            concerns,
        }
    }

    /// For how long a request waits at most.
    fn patience(&self, deadline: impl FnOnce() -> Option<Duration>) -> Duration {
        match self.settings.on_limit {
            OnLimit::Reject => Duration::ZERO,
            OnLimit::Wait(patience) => deadline().map_or(patience, |deadline| deadline.min(patience)),
        }
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
        // The book names only limits that concern the request, and `asker` made those from these very lists.
        let shown = shown.expect("a limit of this limiter");
        shown.handles.refused();
        Refusal::new(&self.destination, &shown.face, obstacle, now)
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
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

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.admitted {
            let limiter = self.limiter;
            let now = limiter.nanos(Instant::now());
            (limiter.book()).leave(&limiter.rules, self.ticket, self.asker.concerns, now);
        }
    }
}

fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A waiter with a longer patience looks again now and then; no clock can add centuries.
const LONGEST_SLEEP: Duration = Duration::from_secs(86_400);

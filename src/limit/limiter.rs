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
use super::shared::board::{Call, Sharing};
use super::shared::lease::Lease;
use super::shared::{Ask, Grant};
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
    shared: Option<Shared>,
    slots: Option<Shown>,
}

/// What a limiter is to the store.
#[derive(Debug)]
struct Shared {
    /// The name under which the store knows this limiter among those of other instances.
    member: String,
    sharing: Sharing,
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
    pub(super) fn new(destination: &Arc<str>, settings: Settings, counters: Arc<Counters>) -> Arc<Self> {
        let limits = &settings.rate_limits;
        let rates: Box<[RateRule]> = (limits.iter().map(|limit| RateRule::new(limit, &counters))).collect();
        let mut everybody = Concerns::default();
        for (index, _) in rates.iter().enumerate().filter(|(_, rate)| rate.concerns_all()) {
            everybody.add_rate(index);
        }
        if settings.concurrency.is_some() {
            everybody.add_slots();
        }
        // Where a store counts for all, each instance knows the whole rate.
        let parts = settings.sharing.as_ref().map_or(settings.instances, |_| 1);
        let rules = Rules {
            everybody,
            queue: settings.queue,
            rates: (limits.iter())
                .map(|limit| Gcra::new(&limit.rate).share(parts))
                .collect(),
            slots: settings.concurrency,
        };
        let meter = |&rate: &Gcra| match &settings.sharing {
            None => Meter::local(rate),
            Some(sharing) => Meter::lent(Lease::new(rate, sharing.home, rand::random())),
        };
        let limiter = Arc::new(Self {
            book: Mutex::new(Book::with(rules.rates.iter().map(meter).collect())),
            born: Instant::now(),
            classes: settings.priorities.iter().map(ClassRule::new).collect(),
            destination: Arc::clone(destination),
            rates,
            rules,
            shared: settings.sharing.clone().map(Shared::new),
            slots: (settings.concurrency).map(|most| Shown::concurrency(most, &counters)),
            settings,
            counters,
        });
        if let Some(shared) = &limiter.shared {
            shared.sharing.board.join(&limiter);
        }
        limiter
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
        let arrival = {
            let mut book = self.book();
            let patience = || saturating_nanos(self.patience(deadline));
            let arrival = book.arrive(&self.rules, asker, now, patience);
            self.post(&mut book, now);
            arrival
        };
        match arrival {
            Arrival::Admitted => Ok(self.permit(asker.concerns, Duration::ZERO)),
            Arrival::Refused(obstacle) => Err(self.refusal(obstacle, now)),
            Arrival::Queued(ticket, bell, patience) => {
                let place = Place {
                    admitted: false,
                    asker,
                    bell,
                    limiter: self,
                    ticket,
                };
                self.wait(place, arrived, Duration::from_nanos(patience)).await
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
            let look = {
                let mut book = self.book();
                let look = book.look(&self.rules, place.ticket, self.nanos(time));
                self.post(&mut book, self.nanos(time));
                look
            };
            let waited = time.duration_since(arrived);
            let left = patience.saturating_sub(waited);
            let sleep = match look {
                Look::Admitted => {
                    place.admitted = true;
                    self.counters.limit_waited(waited);
                    return Ok(self.permit(place.asker.concerns, waited));
                }
                Look::Due(until) if !left.is_zero() && !self.is_hopeless(until, time + left) => {
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

    /// Something came from outside into the meter of a rate, by its place in the configuration.
    #[cfg(test)]
    pub(super) fn granted(&self, index: usize, change: impl FnOnce(&mut Meter)) {
        let now = self.nanos(Instant::now());
        self.book().refill(&self.rules, index, now, change);
    }

    /// Whether a wait has become pointless: the store has said when there will be a permit, and that is too late.
    fn is_hopeless(&self, until: u64, deadline: Instant) -> bool {
        self.shared.is_some() && until > self.nanos(deadline)
    }

    /// Lets whoever asks the store know, where it is time to.
    fn post(self: &Arc<Self>, book: &mut Book, now: u64) {
        if let Some(shared) = &self.shared
            && book.wants(now)
        {
            shared.sharing.board.post(self);
        }
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

/// What whoever asks the store needs.
impl Limiter {
    /// What to ask now. `None` where nothing is shared.
    pub(crate) fn call(self: &Arc<Self>) -> Option<Call> {
        self.shared.as_ref()?;
        let patience = match self.settings.on_limit {
            OnLimit::Reject => Duration::ZERO,
            OnLimit::Wait(patience) => patience,
        };
        let asks = (self.book()).asks(saturating_nanos(patience), self.nanos(Instant::now()));
        (!asks.is_empty()).then(|| Call {
            asks,
            limiter: Arc::clone(self),
        })
    }

    /// The names under which the store keeps the rates, and this limiter.
    pub(crate) fn names(&self) -> (&[String], &str) {
        match &self.shared {
            None => (&[], ""),
            Some(shared) => (&shared.sharing.names, &shared.member),
        }
    }

    /// The store has answered: admits and wakes whoever can go by that.
    pub(crate) fn answered(self: &Arc<Self>, asks: &[Ask], grants: &[Grant]) {
        let now = self.nanos(Instant::now());
        let mut book = self.book();
        for (index, (ask, grant)) in asks.iter().zip(grants).enumerate() {
            book.refill(&self.rules, index, now, |meter| {
                meter
                    .lease()
                    .into_iter()
                    .for_each(|lease| lease.granted(ask, *grant, now));
            });
        }
        self.post(&mut book, now);
    }

    /// The store cannot be asked: the share decides from now on.
    pub(crate) fn unanswered(&self) {
        let now = self.nanos(Instant::now());
        let mut book = self.book();
        for index in 0..self.rules.rates.len() {
            book.refill(&self.rules, index, now, |meter| {
                meter.lease().into_iter().for_each(|lease| lease.failed(now));
            });
        }
    }

    /// The store can be asked again.
    pub(crate) fn reachable(&self) {
        self.book().leases().for_each(Lease::back);
    }

    /// Whether the others would forget this instance soon.
    pub(crate) fn is_quiet(&self) -> bool {
        let now = self.nanos(Instant::now());
        self.book().leases().any(|lease| lease.is_quiet(now))
    }

    /// Into how many parts the rates are divided while the store is away.
    pub(crate) fn parts(&self) -> u32 {
        self.book()
            .leases()
            .map(|lease| lease.members())
            .max()
            .unwrap_or(1)
    }
}

impl Shared {
    fn new(sharing: Sharing) -> Self {
        Self {
            member: format!("{:016x}", rand::random::<u64>()),
            sharing,
        }
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

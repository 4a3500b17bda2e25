//! The limits of one destination, alive: the lock, the timers and the metrics around a [`Book`].

use std::fmt::Display;
use std::hash::BuildHasher;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use foldhash::fast::FixedState;
use http::{Method, StatusCode};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::asked::Asked;
use super::book::{Arrival, Asker, Book, Concerns, Culprit, Look, Obstacle, Patience, Rules};
use super::chance;
use super::gcra::Gcra;
use super::hints::Hints;
use super::learned::{About, Heard, Learned, Route, Stamp, Traffic};
use super::meter::Meter;
use super::queue::Ticket;
use super::refusal::Face;
use super::rule::{ClassRule, RateRule, Shown};
use super::shared::board::{Call, Sharing};
use super::shared::lease::Lease;
use super::shared::{Ask, Grant};
use super::told::Told;
use super::{Refusal, Settings};
use crate::config::{AppliesTo, OnLimit};
use crate::sync::lock;
use crate::telemetry::{Counters, LimitHandles};
use crate::units;

pub(crate) use self::permit::Permit;

mod beliefs;
mod permit;

/// The limits of one destination.
#[derive(Debug)]
pub(crate) struct Limiter {
    book: Mutex<Book>,
    born: Instant,
    classes: Box<[ClassRule]>,
    counters: Arc<Counters>,
    destination: Arc<str>,
    /// Made when something is learned: most destinations never do.
    learned: OnceLock<LimitHandles>,
    pub(super) rates: Box<[RateRule]>,
    pub(super) rules: Rules,
    settings: Settings,
    shared: Option<Shared>,
    slots: Option<Shown>,
    told: Mutex<Told>,
    traffic: Arc<Traffic>,
}

/// What a limiter is to the store.
#[derive(Debug)]
struct Shared {
    /// The name under which the store knows this limiter among those of other instances.
    member: String,
    sharing: Sharing,
}

/// A place in the queue; gives everything back on drop unless the request was admitted.
struct Place<'l> {
    asker: Asker,
    bell: Arc<Notify>,
    is_admitted: bool,
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
        let traffic = Arc::new(Traffic::default());
        let learned = (settings.respect_upstream).then(|| {
            Learned::new(
                Arc::clone(&traffic),
                settings.on_limit != OnLimit::Reject,
                settings.applies_to == AppliesTo::Auto,
            )
        });
        let meters = rules.rates.iter().map(meter).collect();
        let limiter = Arc::new(Self {
            book: Mutex::new(Book::with(meters, learned)),
            born: Instant::now(),
            classes: settings.priorities.iter().map(ClassRule::new).collect(),
            destination: Arc::clone(destination),
            learned: OnceLock::new(),
            rates,
            rules,
            shared: settings.sharing.clone().map(Shared::new),
            slots: (settings.concurrency).map(|most| Shown::concurrency(most, &counters)),
            settings,
            counters,
            told: Mutex::default(),
            traffic,
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
        self.rates.is_empty() && self.slots.is_none() && !self.settings.respect_upstream
    }

    /// Waits for its turn, or refuses at once when the wait would be longer than allowed.
    ///
    /// A tunnel is admitted with `CONNECT` and an empty path. `deadline` says how long the client itself waits; it is
    /// asked only where it would have to. Dropping the future gives everything back. While
    /// nobody waits this is one short lock, without allocation or timer; where nothing is limited and nothing has been
    /// learned it is two atomics.
    pub(crate) fn admit(
        self: &Arc<Self>,
        asked: Asked<'_>,
        deadline: impl FnOnce() -> Option<Duration>,
    ) -> impl Future<Output = Result<Permit, Refusal>> {
        self.admit_as(asked, || self.patience(deadline))
    }

    /// The same, for a request that waits as long as `patience` says, whatever `on_limit` does: one that is sent again.
    pub(crate) fn admit_within(
        self: &Arc<Self>,
        asked: Asked<'_>,
        patience: impl FnOnce() -> Duration,
    ) -> impl Future<Output = Result<Permit, Refusal>> {
        self.admit_as(asked, || {
            let patience = units::nanos(patience());
            Patience {
                answer: patience,
                turn: patience,
            }
        })
    }

    async fn admit_as(
        self: &Arc<Self>,
        asked: Asked<'_>,
        patience: impl FnOnce() -> Patience,
    ) -> Result<Permit, Refusal> {
        let Asked { method, path, .. } = asked;
        let mut asker = self.asker(method, path);
        if asker.concerns.is_empty()
            && let Some(permit) = self.pass(method)
        {
            return Ok(permit);
        }
        asker.is_tunnel = *method == Method::CONNECT;
        if self.traffic.is_watched() {
            asker.about = Some(self.about(&asked));
        }
        let arrived = Instant::now();
        let now = self.nanos(arrived);
        let arrival = {
            let mut book = self.book();
            let arrival = book.arrive(&self.rules, asker, now, patience, || {
                self.settings.respect_upstream.then(|| self.about(&asked))
            });
            self.post(&mut book, now);
            arrival
        };
        match arrival {
            Arrival::Admitted(ticket, stamp) => {
                Ok(self.permit(asker.concerns, Some(ticket), stamp, Duration::ZERO))
            }
            Arrival::Refused(obstacle) => Err(self.refusal(obstacle, now)),
            Arrival::Queued(ticket, bell, patience) => {
                let place = Place {
                    asker,
                    bell,
                    is_admitted: false,
                    limiter: self,
                    ticket,
                };
                // Boxed: few requests wait, and each connection holds room for the future of its request.
                Box::pin(self.wait(place, arrived, Duration::from_nanos(patience))).await
            }
        }
    }

    /// A request that no limit of the configuration concerns goes without a lock while nothing has been learned.
    fn pass(self: &Arc<Self>, method: &Method) -> Option<Permit> {
        let nothing = Concerns::default();
        if !self.settings.respect_upstream {
            return Some(self.permit(nothing, None, Stamp::default(), Duration::ZERO));
        }
        if *method == Method::CONNECT {
            let permit = || self.permit(nothing, None, Stamp::default(), Duration::ZERO);
            return (!self.traffic.is_watched()).then(permit);
        }
        let permit = self.permit(nothing, None, Stamp::unasked(self.traffic.go()), Duration::ZERO);
        // Where somebody watches its drop takes it out of what was counted meanwhile.
        (!self.traffic.is_watched()).then_some(permit)
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
                Look::Admitted(stamp) => {
                    place.is_admitted = true;
                    self.counters.limit_waited(waited);
                    return Ok(self.permit(place.asker.concerns, Some(place.ticket), stamp, waited));
                }
                Look::Due(until) if !left.is_zero() && !self.is_hopeless(until, time + left) => {
                    left.min(Duration::from_nanos(until.saturating_sub(self.nanos(time))))
                }
                Look::Held(until) if !left.is_zero() && until <= self.nanos(time + left) => {
                    left.min(Duration::from_nanos(until.saturating_sub(self.nanos(time))))
                }
                Look::Waiting if !left.is_zero() => left,
                Look::Displaced | Look::Due(_) | Look::Held(_) | Look::Waiting => {
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

    /// How many requests have gone and not been answered or lost.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> u64 {
        self.traffic.out()
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
        let Some(learned) = book.learned() else { return };
        if let Some(ratio) = learned.ratio(now) {
            self.learned().remaining(ratio);
        }
        self.tell_pause(learned.paused_until(now), now);
    }

    /// Sets the gauge of the pause. That one of several credentials has to wait does not hold the destination.
    fn tell_pause(&self, until: Option<u64>, now: u64) {
        if self.settings.member.is_none() {
            self.counters
                .paused_until(until.map_or(0, |until| wall(until, now)));
        }
    }

    /// What is left of what the upstream has told, from 0 to 1; below zero while it says that nobody may go. `None`: it
    /// has told nothing.
    pub(crate) fn left(&self) -> Option<f64> {
        if !self.traffic.is_watched() {
            return None;
        }
        let book = self.book();
        let now = self.nanos(Instant::now());
        let learned = book.learned()?;
        match learned.paused_until(now) {
            Some(_) => Some(-1.0),
            None => learned.ratio(now),
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
            about: None,
            is_tunnel: false,
        }
    }

    /// What a request is about, as far as the upstream may count it apart.
    fn about(&self, asked: &Asked<'_>) -> About {
        let host = match self.is_one() {
            true => 1,
            false => HASH.hash_one((&asked.target.host, asked.target.port)),
        };
        if *asked.method == Method::CONNECT {
            return About::tunnel(host);
        }
        let every = Some(Route::default());
        let (subject, route) = match self.settings.applies_to {
            AppliesTo::Destination | AppliesTo::Host => (host, every),
            AppliesTo::Credential => (HASH.hash_one((host, (asked.caller)())), every),
            AppliesTo::Auto | AppliesTo::Route => {
                let route = Route::of(asked.method, asked.path);
                (HASH.hash_one((host, (asked.caller)())), Some(route))
            }
        };
        About { subject, host, route }
    }

    /// All hosts of the destination count as one.
    fn is_one(&self) -> bool {
        self.settings.applies_to == AppliesTo::Destination
    }

    /// For how long a request waits at most.
    fn patience(&self, deadline: impl FnOnce() -> Option<Duration>) -> Patience {
        let (most, waits) = match self.settings.on_limit {
            OnLimit::Reject => (LONGEST_ANSWER, false),
            OnLimit::Wait(patience) => (patience, true),
        };
        let answer = units::nanos(deadline().map_or(most, |deadline| deadline.min(most)));
        Patience {
            answer,
            turn: if waits { answer } else { 0 },
        }
    }

    fn permit(
        self: &Arc<Self>,
        concerns: Concerns,
        ticket: Option<Ticket>,
        stamp: Stamp,
        waited: Duration,
    ) -> Permit {
        Permit {
            is_answered: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
            concerns,
            limiter: (!concerns.is_empty() || stamp.is_counted()).then(|| Arc::clone(self)),
            stamp,
            ticket,
            waited,
        }
    }

    fn refusal(&self, obstacle: Obstacle, now: u64) -> Refusal {
        let shown = match obstacle.culprit {
            Culprit::Concurrency => self.slots.as_ref(),
            Culprit::Rate(index) => self.rates.get(index).map(|rate| &rate.shown),
            Culprit::Learned(told) => {
                self.learned().refused();
                let face = Face::learned(told.limit, told.window);
                return Refusal::new(&self.destination, &face, obstacle, now);
            }
        };
        // The book names only limits that concern the request, and `asker` made those from these very lists.
        let shown = shown.expect("a limit of this limiter");
        shown.handles.refused();
        Refusal::new(&self.destination, &shown.face, obstacle, now)
    }

    fn learned(&self) -> &LimitHandles {
        self.learned.get_or_init(|| match &self.settings.member {
            None => self.counters.limit(Face::LEARNED),
            Some(place) => self.counters.limit(&format!("{} {place}", Face::LEARNED)),
        })
    }

    /// An answer came to a request that has been counted as ended.
    fn hear(&self, stamp: Stamp, status: StatusCode, hints: Option<&Hints>, asked: &Asked<'_>) {
        let now = self.nanos(Instant::now());
        let about = self.about(asked);
        let mut book = self.book();
        // Before anything is counted: see `Traffic`.
        self.traffic.watch(true);
        let of_host = format_args!("{}://{}", asked.target.scheme, asked.target);
        let host: &dyn Display = if self.is_one() { &"" } else { &of_host };
        let heard = Heard {
            hints,
            host,
            jitter: chance::jitter(),
            method: asked.method,
            path: asked.path,
            status,
        };
        let news = book.hear(&self.rules, stamp, Some((&about, heard)), now);
        self.traffic
            .watch(book.learned().is_some_and(|learned| !learned.is_idle(now)));
        let paused = book.learned().and_then(|learned| learned.paused_until(now));
        drop(book);
        let Some(hints) = hints else { return };
        if hints.is_refusal {
            self.counters.upstream_throttled(status);
        }
        self.tell_pause(paused, now);
        let mut told = lock(&self.told);
        told.tell(&self.destination, status, hints, news, now);
    }

    /// A request that has been counted as ended did so without an answer.
    fn lose(&self, stamp: Stamp) {
        if self.traffic.is_watched() {
            let now = self.nanos(Instant::now());
            self.book().hear(&self.rules, stamp, None, now);
        }
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    fn nanos(&self, time: Instant) -> u64 {
        units::nanos(time.saturating_duration_since(self.born))
    }
}

/// What whoever asks the store needs.
impl Limiter {
    /// What to ask now. `None` where nothing is shared.
    pub(crate) fn call(self: &Arc<Self>) -> Option<Call> {
        self.shared.as_ref()?;
        let patience = self.patience(|| None).turn;
        let asks = (self.book()).asks(patience, self.nanos(Instant::now()));
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

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.is_admitted {
            let limiter = self.limiter;
            let now = limiter.nanos(Instant::now());
            (limiter.book()).leave(&limiter.rules, self.ticket, self.asker.concerns, now);
        }
    }
}

/// A moment that comes, in seconds since the epoch.
fn wall(moment: u64, now: u64) -> i64 {
    let time = SystemTime::now() + Duration::from_nanos(moment.saturating_sub(now));
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// How long a request that may not wait for its turn waits for the answer to the one that finds out.
const LONGEST_ANSWER: Duration = Duration::from_secs(1);

/// Beliefs are found by it: that two of them share a hash does little harm.
const HASH: FixedState = FixedState::with_seed(0);

/// A waiter with a longer patience looks again now and then; no clock can add centuries.
const LONGEST_SLEEP: Duration = Duration::from_secs(86_400);

//! The limiter of one destination: the lock, the timers and the metrics around a [`LimiterState`].

use std::fmt::Display;
use std::hash::BuildHasher;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use foldhash::fast::FixedState;
use http::{Method, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::attributes::RequestAttributes;
use super::bucket::RateBucket;
use super::chance;
use super::gcra::Gcra;
use super::hints::Hints;
use super::learned::{Learned, LearnedKey, ObservedResponse, RoutePattern, SentRequest, Traffic};
use super::log::LimitLog;
use super::refusal::LimitInfo;
use super::request::{LimitSet, LimitedRequest, MaxWait, Rules, Ticket};
use super::rule::{ClassRule, RateRule};
use super::shared::lease::RateLease;
use super::shared::store_queue::{PermitCall, Sharing};
use super::shared::{PermitGrant, PermitRequest};
use super::state::{Arrival, BlockingLimit, LimiterState, Obstacle, QueueState};
use super::{Refusal, Settings};
use crate::config::{AppliesTo, OnLimit};
use crate::sync::lock;
use crate::telemetry::{Counters, LimitHandles};
use crate::units;

pub(crate) use self::permit::Permit;
use self::queued::QueuedRequest;

mod gauges;
mod permit;
mod queued;
mod status;

/// How long a request with `on_limit: reject` waits for the answer to a probe.
const LONGEST_PROBE: Duration = Duration::from_secs(1);

/// Finds learned limits: two that share a hash do little harm.
const HASH: FixedState = FixedState::with_seed(0);

/// A request that may wait longer checks again now and then: no clock can add centuries.
const LONGEST_SLEEP: Duration = Duration::from_secs(86_400);

/// The limits of one destination.
#[derive(Debug)]
pub(crate) struct Limiter {
    state: Mutex<LimiterState>,
    born: Instant,
    classes: Box<[ClassRule]>,
    counters: Arc<Counters>,
    destination: Arc<str>,
    /// Those of each rate, then those of the concurrency. Made when a configured limit first applies to a request.
    handles: OnceLock<Box<[LimitHandles]>>,
    /// Made when something is learned: for most destinations that never happens.
    learned: OnceLock<LimitHandles>,
    pub(super) rates: Box<[RateRule]>,
    pub(super) rules: Rules,
    settings: Settings,
    shared: Option<StoreMember>,
    slots: Option<LimitInfo>,
    log: Mutex<LimitLog>,
    traffic: Arc<Traffic>,
}

/// The limiter's membership in a store that counts for all instances.
#[derive(Debug)]
struct StoreMember {
    /// The name under which the store knows this limiter.
    member: String,
    sharing: Sharing,
}

impl Limiter {
    pub(super) fn new(destination: &Arc<str>, settings: Settings, counters: Arc<Counters>) -> Arc<Self> {
        let limits = &settings.rate_limits;
        let rates: Box<[RateRule]> = limits.iter().map(RateRule::new).collect();
        let mut for_all = LimitSet::default();
        for (index, _) in rates.iter().enumerate().filter(|(_, rate)| rate.applies_to_all()) {
            for_all.add_rate(index);
        }
        if settings.concurrency.is_some() {
            for_all.add_slots();
        }
        // Where a store counts for all instances, each of them knows the whole rate.
        let parts = settings.sharing.as_ref().map_or(settings.instances, |_| 1);
        let rules = Rules {
            for_all,
            queue: settings.queue,
            rates: limits
                .iter()
                .map(|limit| Gcra::new(&limit.rate).share(parts))
                .collect(),
            slots: settings.concurrency,
        };
        let bucket = |&rate: &Gcra| match &settings.sharing {
            None => RateBucket::local(rate),
            Some(sharing) => RateBucket::leased(RateLease::new(rate, sharing.fleet, rand::random())),
        };
        let traffic = Arc::new(Traffic::default());
        let learned = settings.respect_upstream.then(|| {
            Learned::new(
                Arc::clone(&traffic),
                settings.on_limit != OnLimit::Reject,
                settings.applies_to == AppliesTo::Auto,
            )
        });
        let buckets = rules.rates.iter().map(bucket).collect();
        let limiter = Arc::new(Self {
            state: Mutex::new(LimiterState::with(buckets, learned)),
            born: Instant::now(),
            classes: settings.priorities.iter().map(ClassRule::new).collect(),
            destination: Arc::clone(destination),
            handles: OnceLock::new(),
            learned: OnceLock::new(),
            rates,
            rules,
            shared: settings.sharing.clone().map(StoreMember::new),
            slots: settings.concurrency.map(LimitInfo::concurrency),
            settings,
            counters,
            log: Mutex::default(),
            traffic,
        });
        if let Some(shared) = &limiter.shared {
            shared.sharing.queue.register(&limiter);
        }
        limiter
    }

    pub(super) fn key(&self) -> Arc<str> {
        self.settings.key(&self.destination)
    }

    /// Whether it was made from these settings.
    pub(super) fn has(&self, settings: &Settings) -> bool {
        self.settings == *settings
    }

    /// Whether there is nothing to limit, so that no permit is needed. Lets a request skip all of this.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.rates.is_empty() && self.slots.is_none() && !self.settings.respect_upstream
    }

    /// Waits for the request's turn, or refuses it at once when it would have to wait longer than allowed.
    ///
    /// A tunnel is admitted with `CONNECT` and an empty path. `deadline` returns how long the client itself
    /// waits; it is called only if the request has to wait. Dropping the future gives everything back. While
    /// nobody waits this is one short lock, without allocation or timer. Where no limit applies and nothing has
    /// been learned it is two atomics.
    pub(crate) fn admit(
        self: &Arc<Self>,
        attributes: RequestAttributes<'_>,
        deadline: impl FnOnce() -> Option<Duration>,
    ) -> impl Future<Output = Result<Permit, Refusal>> {
        self.admit_as(attributes, || self.max_wait(deadline))
    }

    /// Admits a request that is sent again: it waits for `max_wait`, whatever `on_limit` says.
    pub(crate) fn admit_within(
        self: &Arc<Self>,
        attributes: RequestAttributes<'_>,
        max_wait: impl FnOnce() -> Duration,
    ) -> impl Future<Output = Result<Permit, Refusal>> {
        self.admit_as(attributes, || {
            let max_wait = units::nanos(max_wait());
            MaxWait {
                for_probe: max_wait,
                for_turn: max_wait,
            }
        })
    }

    async fn admit_as(
        self: &Arc<Self>,
        attributes: RequestAttributes<'_>,
        max_wait: impl FnOnce() -> MaxWait,
    ) -> Result<Permit, Refusal> {
        let RequestAttributes { method, path, .. } = attributes;
        let mut request = self.request(method, path);
        if request.limits.is_empty()
            && let Some(permit) = self.pass(method)
        {
            return Ok(permit);
        }
        if !request.limits.is_empty() {
            // Before it can be refused: a count that is first seen at 1 is no increase to Prometheus.
            self.handles();
        }
        request.is_tunnel = *method == Method::CONNECT;
        if self.traffic.is_watched() {
            request.key = Some(self.learned_key(&attributes));
        }
        let learns = self.settings.respect_upstream;
        let key = || learns.then(|| self.learned_key(&attributes));
        let arrived = Instant::now();
        let now = self.nanos(arrived);
        let arrival = {
            let mut state = self.state();
            let arrival = state.arrive(&self.rules, request, now, max_wait, key);
            self.post(&mut state, now);
            arrival
        };
        match arrival {
            Arrival::Admitted(ticket, sent) => {
                Ok(self.permit(request.limits, Some(ticket), sent, Duration::ZERO))
            }
            Arrival::Refused(obstacle) => Err(self.refusal(obstacle, now)),
            Arrival::Queued(ticket, wake, max_wait) => {
                // What is learned while it waits may be the reason why it is refused.
                request.key = request.key.or_else(key);
                let queued = QueuedRequest {
                    request,
                    wake,
                    is_admitted: false,
                    limiter: self,
                    ticket,
                };
                // Boxed: few requests wait, and each connection holds room for the future of its request.
                Box::pin(self.wait(queued, arrived, Duration::from_nanos(max_wait))).await
            }
        }
    }

    /// Admits a request to which no configured limit applies, without the lock, while nothing has been learned.
    fn pass(self: &Arc<Self>, method: &Method) -> Option<Permit> {
        let nothing = LimitSet::default();
        if !self.settings.respect_upstream {
            return Some(self.permit(nothing, None, SentRequest::default(), Duration::ZERO));
        }
        if *method == Method::CONNECT {
            let permit = || self.permit(nothing, None, SentRequest::default(), Duration::ZERO);
            return (!self.traffic.is_watched()).then(permit);
        }
        let permit = self.permit(
            nothing,
            None,
            SentRequest::untracked(self.traffic.start()),
            Duration::ZERO,
        );
        // If something has been learned meanwhile, dropping this permit takes the request out of the count again.
        (!self.traffic.is_watched()).then_some(permit)
    }

    async fn wait(
        self: &Arc<Self>,
        mut queued: QueuedRequest<'_>,
        arrived: Instant,
        max_wait: Duration,
    ) -> Result<Permit, Refusal> {
        let _waiting = self.counters.limit_waiting();
        loop {
            let time = Instant::now();
            let queue_state = {
                let mut state = self.state();
                let queue_state = state.check(&self.rules, queued.ticket, self.nanos(time));
                self.post(&mut state, self.nanos(time));
                queue_state
            };
            let waited = time.duration_since(arrived);
            let left = max_wait.saturating_sub(waited);
            let sleep = match queue_state {
                QueueState::Admitted(sent) => {
                    queued.is_admitted = true;
                    self.counters.limit_waited(waited);
                    return Ok(self.permit(queued.request.limits, Some(queued.ticket), sent, waited));
                }
                QueueState::Due(until) if !left.is_zero() && !self.is_hopeless(until, time + left) => {
                    left.min(Duration::from_nanos(until.saturating_sub(self.nanos(time))))
                }
                QueueState::Held(until) if !left.is_zero() && until <= self.nanos(time + left) => {
                    left.min(Duration::from_nanos(until.saturating_sub(self.nanos(time))))
                }
                QueueState::Waiting if !left.is_zero() => left,
                QueueState::Displaced | QueueState::Due(_) | QueueState::Held(_) | QueueState::Waiting => {
                    let request = queued.request;
                    drop(queued);
                    let now = self.nanos(time);
                    let obstacle = self.state().forecast(&self.rules, request, now);
                    return Err(self.refusal(obstacle, now));
                }
            };
            // Woken or timed out: check again in both cases.
            let _ = timeout_at(time + sleep.min(LONGEST_SLEEP), queued.wake.notified()).await;
        }
    }

    /// Changes the bucket of a rate, by its index in the configuration.
    #[cfg(test)]
    pub(super) fn granted(&self, index: usize, change: impl FnOnce(&mut RateBucket)) {
        let now = self.nanos(Instant::now());
        self.state().refill(&self.rules, index, now, change);
    }

    /// Whether waiting is pointless: the store has said when there will be a permit, and that is too late.
    fn is_hopeless(&self, until: u64, deadline: Instant) -> bool {
        self.shared.is_some() && until > self.nanos(deadline)
    }

    /// Notifies the task that asks the store, when it is time to ask.
    fn post(self: &Arc<Self>, state: &mut LimiterState, now: u64) {
        if let Some(shared) = &self.shared
            && state.wants(now)
        {
            shared.sharing.queue.push(self);
        }
    }

    /// How many requests have been sent and neither answered nor lost.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> u64 {
        self.traffic.in_flight()
    }

    /// Returns what is left of the quotas that the upstream reports, from 0 to 1; below zero while it asks for a
    /// pause; `None` where nothing has been learned.
    pub(crate) fn left(&self) -> Option<f64> {
        if !self.traffic.is_watched() {
            return None;
        }
        let state = self.state();
        let now = self.nanos(Instant::now());
        let learned = state.learned()?;
        match learned.paused_until(now) {
            Some(_) => Some(-1.0),
            None => learned.ratio(now),
        }
    }

    /// Returns which limits apply to a request, and its class.
    fn request(&self, method: &Method, path: &str) -> LimitedRequest {
        let mut limits = LimitSet::default();
        for (index, rate) in self.rates.iter().enumerate() {
            if rate.applies_to(method, path) {
                limits.add_rate(index);
            }
        }
        if self.slots.is_some() {
            limits.add_slots();
        }
        let class = self.classes.iter().find_map(|rule| rule.class(method, path));
        LimitedRequest {
            class: class.unwrap_or_default(),
            limits,
            key: None,
            is_tunnel: false,
        }
    }

    /// Returns what the upstream may count a request by.
    pub(super) fn learned_key(&self, attributes: &RequestAttributes<'_>) -> LearnedKey {
        let host = if self.is_one_host() {
            1
        } else {
            HASH.hash_one((&attributes.target.host, attributes.target.port))
        };
        if *attributes.method == Method::CONNECT {
            return LearnedKey::tunnel(host);
        }
        let every = Some(RoutePattern::default());
        let (caller, route) = match self.settings.applies_to {
            AppliesTo::Destination | AppliesTo::Host => (host, every),
            AppliesTo::Credential => (HASH.hash_one((host, (attributes.caller)())), every),
            AppliesTo::Auto | AppliesTo::Route => {
                let route = RoutePattern::of(attributes.method, attributes.path);
                (HASH.hash_one((host, (attributes.caller)())), Some(route))
            }
        };
        LearnedKey { caller, host, route }
    }

    /// Whether all hosts of the destination count as one.
    fn is_one_host(&self) -> bool {
        self.settings.applies_to == AppliesTo::Destination
    }

    /// Returns how long a request may wait.
    fn max_wait(&self, deadline: impl FnOnce() -> Option<Duration>) -> MaxWait {
        let (most, may_wait) = match self.settings.on_limit {
            OnLimit::Reject => (LONGEST_PROBE, false),
            OnLimit::Wait(max_wait) => (max_wait, true),
        };
        let for_probe = units::nanos(deadline().map_or(most, |deadline| deadline.min(most)));
        MaxWait {
            for_probe,
            for_turn: if may_wait { for_probe } else { 0 },
        }
    }

    fn permit(
        self: &Arc<Self>,
        limits: LimitSet,
        ticket: Option<Ticket>,
        sent: SentRequest,
        waited: Duration,
    ) -> Permit {
        Permit {
            is_answered: AtomicBool::new(false),
            is_unsent: AtomicBool::new(false),
            limits,
            limiter: (!limits.is_empty() || sent.is_counted()).then(|| Arc::clone(self)),
            sent,
            ticket,
            waited,
        }
    }

    fn refusal(&self, obstacle: Obstacle, now: u64) -> Refusal {
        let (index, info) = match obstacle.limit {
            BlockingLimit::Concurrency => (self.rates.len(), self.slots.as_ref()),
            BlockingLimit::Rate(index) => (index, self.rates.get(index).map(|rate| &rate.info)),
            BlockingLimit::Learned(log) => {
                self.learned().refused();
                let info = LimitInfo::learned(log.limit, log.window);
                return Refusal::new(&self.destination, &info, obstacle, now);
            }
        };
        // `LimiterState` names only limits of the request, which `request` took from these lists.
        let info = info.expect("a limit of this limiter");
        self.handles()[index].refused();
        Refusal::new(&self.destination, info, obstacle, now)
    }

    /// Learns from the answer to a request that has been counted as ended.
    fn learn(
        &self,
        sent: SentRequest,
        status: StatusCode,
        hints: Option<&Hints>,
        attributes: &RequestAttributes<'_>,
    ) {
        let now = self.nanos(Instant::now());
        let key = self.learned_key(attributes);
        let mut state = self.state();
        // Before anything is counted: see `Traffic`.
        self.traffic.watch(true);
        let of_host = format_args!("{}://{}", attributes.target.scheme, attributes.target);
        let host: &dyn Display = if self.is_one_host() { &"" } else { &of_host };
        let response = ObservedResponse {
            hints,
            host,
            jitter: chance::jitter(),
            method: attributes.method,
            path: attributes.path,
            status,
        };
        let event = state.learn(&self.rules, sent, Some((&key, response)), now);
        self.traffic
            .watch(state.learned().is_some_and(|learned| !learned.is_idle(now)));
        let paused = state.learned().and_then(|learned| learned.paused_until(now));
        drop(state);
        let Some(hints) = hints else { return };
        if hints.is_refusal {
            self.counters.upstream_throttled(status);
        }
        self.set_pause_gauge(paused, now);
        let mut log = lock(&self.log);
        log.record(&self.destination, status, hints, event, now);
    }

    /// Notes that a request, counted as ended, got no answer.
    fn lost(&self, sent: SentRequest) {
        if self.traffic.is_watched() {
            let now = self.nanos(Instant::now());
            self.state().learn(&self.rules, sent, None, now);
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, LimiterState> {
        lock(&self.state)
    }

    fn nanos(&self, time: Instant) -> u64 {
        units::nanos(time.saturating_duration_since(self.born))
    }
}

/// For the task that asks the store.
impl Limiter {
    /// Returns what to ask the store; `None` where nothing is shared.
    pub(crate) fn call(self: &Arc<Self>) -> Option<PermitCall> {
        self.shared.as_ref()?;
        let max_wait = self.max_wait(|| None).for_turn;
        let asks = self.state().asks(max_wait, self.nanos(Instant::now()));
        (!asks.is_empty()).then(|| PermitCall {
            requests: asks,
            limiter: Arc::clone(self),
        })
    }

    /// Returns the names under which the store keeps the rates, and the name of this limiter.
    pub(crate) fn names(&self) -> (&[String], &str) {
        match &self.shared {
            None => (&[], ""),
            Some(shared) => (&shared.sharing.names, &shared.member),
        }
    }

    /// Takes over the store's answer, and admits the requests that can go now.
    pub(crate) fn answered(self: &Arc<Self>, asks: &[PermitRequest], grants: &[PermitGrant]) {
        let now = self.nanos(Instant::now());
        let mut state = self.state();
        for (index, (ask, grant)) in asks.iter().zip(grants).enumerate() {
            state.refill(&self.rules, index, now, |bucket| {
                bucket
                    .lease()
                    .into_iter()
                    .for_each(|lease| lease.receive(ask, *grant, now));
            });
        }
        self.post(&mut state, now);
    }

    /// Notes that the store cannot be asked: from now on each rate is limited to this instance's share.
    pub(crate) fn unanswered(&self) {
        let now = self.nanos(Instant::now());
        let mut state = self.state();
        for index in 0..self.rules.rates.len() {
            state.refill(&self.rules, index, now, |bucket| {
                bucket.lease().into_iter().for_each(|lease| lease.store_lost(now));
            });
        }
    }

    /// Notes that the store can be asked again.
    pub(crate) fn reachable(&self) {
        self.state().leases().for_each(RateLease::store_returned);
    }

    /// Whether the other instances would soon forget this one.
    pub(crate) fn is_quiet(&self) -> bool {
        let now = self.nanos(Instant::now());
        self.state().leases().any(|lease| lease.is_quiet(now))
    }

    /// Returns into how many shares the rates are divided while the store is away.
    pub(crate) fn parts(&self) -> u32 {
        self.state()
            .leases()
            .map(|lease| lease.members())
            .max()
            .unwrap_or(1)
    }
}

impl StoreMember {
    fn new(sharing: Sharing) -> Self {
        Self {
            member: format!("{:016x}", rand::random::<u64>()),
            sharing,
        }
    }
}

/// Converts a future moment to seconds since the epoch.
fn epoch_seconds(moment: u64, now: u64) -> i64 {
    let time = SystemTime::now() + Duration::from_nanos(moment.saturating_sub(now));
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

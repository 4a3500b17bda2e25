//! What one destination's upstream has said about its limits, and what follows.
//!
//! After a refusal that says for how long nobody goes until then. Of a quota that the answers tell no more goes than is
//! left, what is under way taken off. Refusals that say nothing teach a rate. And after each of them, as at the very
//! beginning where requests may wait, one request goes first and the others follow as the answers come in; so what
//! nobody could know, a clock that is a second off or a quota not told yet, costs one refusal and not hundreds.
//!
//! Recovery is told apart: a pause and a rate hold everybody, a quota those whom it concerns. A tunnel, of whose bytes
//! nothing is seen, waits for the end of a pause and is counted nowhere.
//!
//! Pure: time is passed in, as nanoseconds since the limiter was made. What the answers say is read in
//! [`hints`], who goes first is decided in [`book`](super::book).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::gcra::Gcra;
use super::hints::{self, Hints};
use crate::units::nanos;

use self::kinds::Kinds;
pub(super) use self::kinds::{Kind, Names};
use self::quota::{Left, Quota};
use self::ramp::{Ramp, SECOND};
use self::silent::Silent;

mod kinds;
mod quota;
mod ramp;
mod silent;

/// What is counted outside of the lock: how many requests went, and how many of them have been answered or lost.
///
/// A request counts itself and then looks whether anybody watches; whoever learns something first says that it watches
/// and then reads the counts. So one of them sees the other.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    ended: AtomicU64,
    watched: AtomicBool,
    went: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Learned {
    gate: Gate,
    kinds: Kinds,
    /// At most [`MOST_QUOTAS`].
    quotas: Vec<Quota>,
    silent: Silent,
    traffic: Arc<Traffic>,
    /// The last refusal came though no quota was exhausted: that the quotas are told does not tell what is allowed.
    unexplained: bool,
    /// Requests may wait, so that it is worth to go carefully.
    waits: bool,
}

#[derive(Debug)]
enum Gate {
    Open,
    /// Nobody goes until then.
    Paused(u64),
    /// After a pause.
    Careful(Ramp),
    /// Like the former, but nothing has been refused: nobody is kept for longer than a second, or than half of its
    /// patience, and nobody refused.
    Beginning(Ramp),
}

/// What is remembered of a request that goes, until its answer comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// It was [taken](Learned::take) here and did not go past.
    is_taken: bool,
    /// It is counted as under way; a tunnel is not.
    is_counted: bool,
    kind: Kind,
    /// The quotas that it was taken from.
    names: Names,
    number: u64,
}

/// How it stands for one request as far as the upstream has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Free,
    /// Nobody goes until then, or before something changes.
    All(u64),
    /// Only those of these quotas do not. `None`: until an answer comes.
    Some(Names, Option<u64>),
}

/// What is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum News {
    /// The upstream says for how long nobody goes.
    Stopped(Duration),
    /// The upstream does not say. For so long nobody goes; then requests go at this rate, if there is one.
    Guessed(Duration, Option<f64>),
    /// The rate has long been higher than what comes.
    Forgotten,
}

/// What a wait is forecast from.
#[derive(Debug)]
pub(super) struct Outlook {
    before: [u64; MOST_QUOTAS],
    opens: u64,
    rate: Option<(Gcra, u64)>,
}

/// A quota as a refusal tells it, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) limit: Option<u64>,
    pub(super) window: Duration,
}

impl Traffic {
    /// A request goes; its number.
    pub(super) fn go(&self) -> u64 {
        self.went.fetch_add(1, Ordering::SeqCst)
    }

    /// A request was answered, or ended without an answer.
    pub(super) fn end(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether requests have to ask [`Learned`].
    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::SeqCst)
    }

    pub(super) fn watch(&self, on: bool) {
        self.watched.store(on, Ordering::SeqCst);
    }

    fn next(&self) -> u64 {
        self.went.load(Ordering::SeqCst)
    }

    /// How many are under way.
    pub(super) fn out(&self) -> u64 {
        let ended = self.ended.load(Ordering::SeqCst);
        self.next().saturating_sub(ended)
    }
}

impl Stamp {
    /// Of a request that went while nothing was known.
    pub(super) fn unasked(number: u64) -> Self {
        Self {
            is_counted: true,
            number,
            ..Self::default()
        }
    }

    pub(super) fn is_counted(&self) -> bool {
        self.is_counted
    }
}

impl Learned {
    /// `waits`: requests may wait.
    pub(super) fn new(traffic: Arc<Traffic>, waits: bool) -> Self {
        traffic.watch(waits);
        let gate = match waits {
            true => Gate::Beginning(Ramp::new(0, 0)),
            false => Gate::Open,
        };
        Self {
            gate,
            kinds: Kinds::default(),
            quotas: Vec::new(),
            silent: Silent::default(),
            traffic,
            unexplained: false,
            waits,
        }
    }

    /// Nothing is known that could hold a request back.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        matches!(self.gate, Gate::Open) && self.quotas.is_empty() && self.silent.is_idle(now)
    }

    /// How it stands for one who has waited since `arrived` and waits for `patience`. A tunnel has no kind.
    pub(super) fn standing(&mut self, kind: Option<Kind>, arrived: u64, patience: u64, now: u64) -> Standing {
        let Some(kind) = kind else {
            return match self.gate {
                Gate::Paused(until) if now < until => Standing::All(until),
                Gate::Open | Gate::Paused(_) | Gate::Careful(_) | Gate::Beginning(_) => Standing::Free,
            };
        };
        let (next, out) = (self.traffic.next(), self.traffic.out());
        if let Some(until) = self.gate.closed(next, arrived, patience, now) {
            return Standing::All(until);
        }
        let earliest = self.silent.earliest(now);
        if earliest > now {
            return Standing::All(earliest);
        }
        let mut held = Names::default();
        let mut due = Some(now);
        for (place, quota) in self.concerned(self.names(kind)) {
            if let Left::None(until) = quota.look(next, out, now) {
                held = held.join(Names::one(place));
                due = due.zip(until).map(|(due, until)| due.max(until));
            }
        }
        match held.is_empty() {
            true => Standing::Free,
            false => Standing::Some(held, due),
        }
    }

    /// A request goes for which it stands free.
    pub(super) fn take(&mut self, kind: Kind, now: u64) -> Stamp {
        let number = self.traffic.go();
        let names = self.names(kind);
        if let Gate::Careful(ramp) | Gate::Beginning(ramp) = &mut self.gate {
            ramp.took();
        }
        self.silent.took(now);
        self.concerned(names).for_each(|(_, quota)| quota.took(now));
        Stamp {
            is_taken: true,
            is_counted: true,
            kind,
            names,
            number,
        }
    }

    /// A request that was taken did not go after all.
    pub(super) fn give_back(&mut self, stamp: Stamp) {
        if !stamp.is_counted {
            return;
        }
        self.traffic.end();
        self.end(stamp);
        // Where another has gone since, more might exceed the rate.
        if self.traffic.next() == stamp.number + 1 {
            self.silent.give_back(stamp.number);
        }
        (self.concerned(stamp.names)).for_each(|(_, quota)| quota.give_back());
    }

    /// A request that [`Traffic`] has counted as ended is not under way any more. Whether it was one of those that go
    /// carefully.
    pub(super) fn end(&mut self, stamp: Stamp) -> bool {
        for (place, quota) in self.quotas.iter_mut().enumerate() {
            quota.ended(stamp.number, stamp.names.has(place));
        }
        match &mut self.gate {
            Gate::Careful(ramp) | Gate::Beginning(ramp) if stamp.is_taken => ramp.ended(stamp.number),
            Gate::Open | Gate::Paused(_) | Gate::Careful(_) | Gate::Beginning(_) => false,
        }
    }

    /// An answer came to a request that [`Traffic`] has counted as ended. `jitter` is between 0 and 1.
    pub(super) fn hear(
        &mut self,
        stamp: Stamp,
        hints: Option<&Hints>,
        now: u64,
        jitter: f64,
    ) -> Option<News> {
        let was_careful = self.end(stamp);
        let quotas = hints.map_or(&[][..], |hints| &hints.quotas);
        let told = self.tell(quotas, stamp, now);
        match hints {
            Some(hints) if hints.is_refusal => self.refused(hints, stamp, now, jitter),
            Some(_) | None => {
                self.pass_over(stamp.names.without(told), now);
                self.went_well(stamp, was_careful, !told.is_empty(), now)
            }
        }
    }

    /// Until when nobody goes, as the upstream says.
    pub(super) fn paused_until(&self, now: u64) -> Option<u64> {
        let paused = match self.gate {
            Gate::Paused(until) => Some(until),
            Gate::Open | Gate::Careful(_) | Gate::Beginning(_) => None,
        };
        let unnamed = self.quotas.iter().find(|quota| quota.name.is_empty());
        let until = paused.max(unnamed.and_then(Quota::exhausted_until));
        until.filter(|until| *until > now)
    }

    /// What is left of the quota of which least is left: 1 full, 0 exhausted.
    pub(super) fn ratio(&self, now: u64) -> Option<f64> {
        let ratios = self.quotas.iter().filter_map(|quota| quota.ratio(now));
        ratios.reduce(f64::min)
    }

    pub(super) fn outlook(&self, now: u64) -> Outlook {
        Outlook {
            before: [0; MOST_QUOTAS],
            opens: match self.gate {
                Gate::Paused(until) => until.max(now),
                Gate::Open | Gate::Careful(_) | Gate::Beginning(_) => now,
            },
            rate: self.silent.outlook(),
        }
    }

    /// When one could go that comes after those in the outlook, and by which quota.
    pub(super) fn when(&self, outlook: &Outlook, kind: Option<Kind>) -> (u64, Told) {
        let mut until = outlook.opens;
        let mut told = Told::default();
        let Some(kind) = kind else {
            return (until, told);
        };
        if let Some((rate, level)) = outlook.rate {
            until = until.max(rate.earliest(level));
        }
        let names = self.names(kind);
        for (place, quota) in self
            .quotas
            .iter()
            .enumerate()
            .filter(|(place, _)| names.has(*place))
        {
            let when = quota.when(outlook.before[place], outlook.opens);
            if when > until || (when >= until && told.limit.is_none()) {
                told = Told {
                    limit: quota.limit,
                    window: quota.span(),
                };
            }
            until = until.max(when);
        }
        (until, told)
    }

    /// One goes at this moment.
    pub(super) fn play(&self, outlook: &mut Outlook, kind: Option<Kind>, at: u64) {
        let Some(kind) = kind else { return };
        if let Some((rate, level)) = &mut outlook.rate {
            *level = rate.taken(*level, at);
        }
        let names = self.names(kind);
        for (place, before) in outlook.before.iter_mut().enumerate() {
            *before += u64::from(names.has(place));
        }
    }

    /// Which quotas concern a request.
    fn names(&self, kind: Kind) -> Names {
        let unnamed = self.quotas.iter().position(|quota| quota.name.is_empty());
        let unnamed = unnamed.map(Names::one).unwrap_or_default();
        self.kinds.names(kind).unwrap_or_default().join(unnamed)
    }

    fn concerned(&mut self, names: Names) -> impl Iterator<Item = (usize, &mut Quota)> {
        let quotas = self.quotas.iter_mut().enumerate();
        quotas.filter(move |(place, _)| names.has(*place))
    }

    /// Which quotas the answer to `stamp` has told of.
    fn tell(&mut self, quotas: &[hints::Quota], stamp: Stamp, now: u64) -> Names {
        let next = self.traffic.next();
        let (mut told, mut named) = (Names::default(), Names::default());
        for quota in quotas.iter().filter(|quota| quota.remaining.is_some()) {
            let place = self.place(&quota.name, next);
            self.quotas[place].tell(quota, stamp.number, next, now);
            told = told.join(Names::one(place));
            if !quota.name.is_empty() {
                named = named.join(Names::one(place));
            }
        }
        if !named.is_empty() {
            self.kinds.learn(stamp.kind, named);
        }
        told
    }

    /// Where the quota with this name stands. Past the most the one goes that was told of longest ago.
    fn place(&mut self, name: &str, next: u64) -> usize {
        if let Some(place) = self.quotas.iter().position(|quota| *quota.name == *name) {
            return place;
        }
        let quota = Quota::new(name, next, self.traffic.out());
        if self.quotas.len() < MOST_QUOTAS {
            self.quotas.push(quota);
            return self.quotas.len() - 1;
        }
        let oldest = self
            .quotas
            .iter()
            .enumerate()
            .min_by_key(|(_, quota)| quota.told());
        let place = oldest.map_or(0, |(place, _)| place);
        self.kinds.forget(place);
        self.quotas[place] = quota;
        place
    }

    /// An answer did not tell of these, though they concern its request.
    fn pass_over(&mut self, names: Names, now: u64) {
        let mut gone = None;
        for (place, quota) in self.concerned(names) {
            if quota.pass_over(now) {
                gone = Some(place);
            }
        }
        if let Some(place) = gone {
            // Its place stays, so that the others keep theirs: it holds nobody and the next name gets it.
            self.quotas[place].vacate();
            self.kinds.forget(place);
        }
        if self.quotas.iter().all(Quota::is_vacant) {
            self.quotas.clear();
        }
    }

    fn went_well(&mut self, stamp: Stamp, was_careful: bool, told: bool, now: u64) -> Option<News> {
        if was_careful && let Gate::Careful(ramp) | Gate::Beginning(ramp) = &mut self.gate {
            ramp.grow(now);
            let is_known = (told && !self.unexplained) || self.silent.per_second().is_some();
            if is_known || ramp.is_over() || !self.waits {
                self.gate = Gate::Open;
            }
        }
        (self.silent.went_well(stamp.number, now)).then_some(News::Forgotten)
    }

    fn refused(&mut self, hints: &Hints, stamp: Stamp, now: u64, jitter: f64) -> Option<News> {
        let next = self.traffic.next();
        let exhausted = |quota: &&hints::Quota| quota.remaining == Some(0);
        self.unexplained = !hints.quotas.iter().any(|quota| exhausted(&quota));
        // A pause of zero counts as none told.
        let told = hints.pause.as_ref().map(|pause| pause.length);
        if let Some(stop) = told.filter(|length| !length.is_zero()) {
            let until = now.saturating_add(nanos(stop));
            let mut named = false;
            for quota in hints
                .quotas
                .iter()
                .filter(exhausted)
                .filter(|quota| !quota.name.is_empty())
            {
                let place = self.place(&quota.name, next);
                self.quotas[place].stop(until, next);
                named = true;
            }
            if !named {
                self.gate.pause(until);
            }
            return Some(News::Stopped(stop));
        }
        if !self.unexplained {
            // The quota holds its requests.
            return None;
        }
        let cut = self.silent.refused(stamp.number, next, now, jitter)?;
        self.gate.pause(now.saturating_add(cut.pause));
        Some(News::Guessed(Duration::from_nanos(cut.pause), cut.per_second))
    }
}

impl Gate {
    fn pause(&mut self, until: u64) {
        *self = match self {
            Self::Paused(old) => Self::Paused(until.max(*old)),
            Self::Open | Self::Careful(_) | Self::Beginning(_) => Self::Paused(until),
        };
    }

    /// Until when it is closed for one who has waited since `arrived`; `next` is the number of the next request.
    fn closed(&mut self, next: u64, arrived: u64, patience: u64, now: u64) -> Option<u64> {
        match self {
            Self::Open => None,
            Self::Paused(until) if now < *until => Some(*until),
            Self::Paused(_) => {
                *self = Self::Careful(Ramp::new(next, now));
                None
            }
            Self::Careful(ramp) => match ramp.admits(now) {
                true => self.open_if_over(),
                false => Some(ramp.due()),
            },
            Self::Beginning(ramp) => match ramp.admits(now) {
                true => self.open_if_over(),
                false => {
                    let longest = arrived.saturating_add(SECOND.min(patience / 2));
                    (longest > now).then(|| ramp.due().min(longest))
                }
            },
        }
    }

    fn open_if_over(&mut self) -> Option<u64> {
        if matches!(self, Self::Careful(ramp) | Self::Beginning(ramp) if ramp.is_over()) {
            *self = Self::Open;
        }
        None
    }
}

/// An upstream that names a quota for each user must not fill the memory.
const MOST_QUOTAS: usize = 8;

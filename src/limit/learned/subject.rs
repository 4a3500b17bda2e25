//! What is believed of one caller's limits at one host.

use std::collections::HashMap;
use std::time::Duration;

use super::guess::{Guess, Refusal};
use super::heard::{Heard, Source, words};
use super::quota::{Left, Quota, SLACK};
use super::ramp::{Ramp, SECOND};
use super::route::{Route, Scope};
use super::set::Set;
use super::{Hold, News, Stamp};
use crate::limit::hints::{self, Hints};
use crate::limit::status::shown_path;
use crate::units::nanos;

pub(super) use self::forecast::Outlook;

mod forecast;
#[cfg(test)]
mod tests;

#[derive(Debug)]
pub(super) struct Subject {
    /// At most [`MOST_BELIEFS`]. A place is never moved, because sets name it.
    beliefs: Vec<Option<Belief>>,
    /// Nobody knows yet what the upstream takes. Nobody is refused for it, nor kept for longer than a second or half of
    /// its patience.
    beginning: Option<Ramp>,
    /// `https://host:port`; empty until an answer comes.
    pub(super) host: Box<str>,
    /// What [`About`](super::About) has of it.
    pub(super) host_hash: u64,
    /// By the [key](Route::key) of a route.
    routes: HashMap<u64, Shown>,
    pub(super) used: u64,
    /// Requests may wait.
    waits: bool,
    /// A second route may show that a belief is about more than one.
    widens: bool,
}

/// What the answers to one route have shown.
#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    has: Set,
    /// An answer has shown that the route is not concerned.
    lacks: Set,
}

/// One limit, as far as it is known.
#[derive(Debug)]
struct Belief {
    guess: Guess,
    /// As the upstream names it; empty where it does not.
    name: Box<str>,
    quota: Quota,
    scope: Scope,
    source: Source,
}

impl Subject {
    /// `waits`: requests may wait, so that it is worth to go carefully; at first so many may be under way. `next`: the
    /// next request's number.
    pub(super) fn new(host: u64, waits: bool, most: u32, widens: bool, next: u64, now: u64) -> Self {
        let beginning = Ramp::with(most, next, now);
        Self {
            beliefs: Vec::new(),
            beginning: (waits && !beginning.is_over()).then_some(beginning),
            host: Box::default(),
            host_hash: host,
            routes: HashMap::new(),
            used: now,
            waits,
            widens,
        }
    }

    /// Nothing is known that could hold a request back.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.beginning.is_none() && self.is_blank(now)
    }

    /// The upstream has told nothing that matters now.
    pub(super) fn is_blank(&self, now: u64) -> bool {
        self.all().all(|(_, belief)| belief.is_idle(now))
    }

    /// How many may be under way where nothing else is known.
    pub(super) fn most(&self) -> u32 {
        self.beginning.as_ref().map_or(u32::MAX, Ramp::most)
    }

    /// Which beliefs hold a request of `route` back, and for how long.
    pub(super) fn held(
        &mut self,
        route: &Route,
        (arrived, patience): (u64, u64),
        (next, out): (u64, u64),
        now: u64,
    ) -> (Set, Hold) {
        self.used = now;
        let (mut held, mut probed) = (Set::default(), Set::default());
        let mut due = now;
        let concern = self.concern(route);
        let mut is_told = false;
        for (place, belief) in self.among(concern) {
            is_told |= belief.quota.is_told() || belief.guess.per_second().is_some();
            let until = match belief.quota.look(next, out, now) {
                Left::Some => match belief.guess.earliest(now) {
                    earliest if earliest > now => earliest,
                    _ => continue,
                },
                Left::Probed(until) => {
                    probed = probed.join(Set::one(place));
                    until
                }
                Left::None(until) => until,
            };
            held = held.join(Set::one(place));
            due = due.max(until);
        }
        if let Some(ramp) = &mut self.beginning
            && !is_told
            && !ramp.admits(now)
        {
            let longest = arrived.saturating_add(SECOND.min(patience / 2));
            if longest > now {
                held = held.join(Set::BEGINNING);
                probed = probed.join(Set::BEGINNING);
                due = due.max(ramp.due().min(longest));
            }
        }
        let hold = match due {
            until if held == probed || until.saturating_sub(now) <= MOMENT => Hold::Probed(until),
            until => Hold::Until(until),
        };
        (held, hold)
    }

    /// Until when a tunnel has to wait, of which nobody sees what it asks for.
    pub(super) fn stopped_until(&self, now: u64) -> Option<u64> {
        let stops = self.all().filter_map(|(_, belief)| belief.quota.stopped_until());
        stops.filter(|until| *until > now).max()
    }

    /// A request of `route` goes. What it is counted under.
    pub(super) fn take(&mut self, route: &Route, now: u64) -> Set {
        let concern = self.concern(route);
        for (_, belief) in self.among(concern) {
            belief.quota.took(now);
            belief.guess.took();
        }
        match &mut self.beginning {
            Some(ramp) => {
                ramp.took();
                concern.join(Set::BEGINNING)
            }
            None => concern,
        }
    }

    /// A request that was taken has not gone. `is_last`: no other has gone since.
    pub(super) fn give_back(&mut self, stamp: Stamp, is_last: bool) {
        for (_, belief) in self.among(stamp.taken) {
            belief.quota.give_back();
            // Where another has gone since, more might exceed the rate.
            if is_last {
                belief.guess.give_back(stamp.number);
            }
        }
    }

    /// A request is not under way any more, answered or not.
    pub(super) fn end(&mut self, stamp: Stamp) {
        for (place, belief) in self.among(Set::ALL) {
            belief.quota.ended(stamp.number, stamp.taken.has(place));
        }
        if let Some(ramp) = &mut self.beginning
            && stamp.taken.shares(Set::BEGINNING)
        {
            ramp.ended(stamp.number);
        }
    }

    /// An answer came to a request of `route`.
    pub(super) fn hear(
        &mut self,
        stamp: Stamp,
        route: &Route,
        heard: &Heard<'_>,
        counts: (u64, u64),
        now: u64,
    ) -> Option<News> {
        let mut told = Set::default();
        let source = |field: &str| Source {
            at: now,
            field: field.into(),
            method: heard.method.clone(),
            path: shown_path(heard.path).into(),
            status: heard.status,
        };
        let quotas = heard.hints.map_or(&[][..], |hints| &hints.quotas);
        for quota in quotas.iter().filter(|quota| quota.remaining.is_some()) {
            let place = self.place(quota, route, stamp.number, counts, now, || {
                source("RateLimit fields")
            });
            if let Some(Some(belief)) = self.beliefs.get_mut(place) {
                belief.quota.tell(quota, stamp.number, counts.0, now);
                told = told.join(Set::one(place));
            }
        }
        match heard.hints {
            Some(hints) if hints.is_refusal => {
                self.refused(hints, told, stamp, route, heard, counts, now, source)
            }
            Some(_) | None => self.allowed(told, stamp, route, now),
        }
    }

    fn allowed(&mut self, told: Set, stamp: Stamp, route: &Route, now: u64) -> Option<News> {
        let concern = self.concern(route);
        let is_careful = self.beginning.is_some();
        let mut lacks = Set::default();
        let mut news = None;
        for (place, belief) in self.among(concern) {
            if belief.guess.passed(stamp.number, now) {
                news = Some(News::Forgotten);
            }
            if told.has(place) {
                belief.quota.went_well(stamp.number);
                continue;
            }
            if belief.quota.is_told() {
                // Answers to this route do not tell of it, or not any more.
                lacks = lacks.join(Set::one(place));
                if stamp.taken.has(place) && belief.quota.pass_over(now) {
                    belief.quota.forget();
                }
            } else {
                let is_certain = belief.guess.per_second().is_some();
                belief.quota.open(stamp.number, is_careful && !is_certain, now);
            }
        }
        if !lacks.is_empty() {
            let shown = self.shown(route);
            shown.lacks = shown.lacks.join(lacks.without(shown.has));
        }
        if let Some(ramp) = &mut self.beginning
            && stamp.taken.shares(Set::BEGINNING)
        {
            ramp.grow(now);
            if ramp.is_over() {
                self.beginning = None;
            }
        }
        self.tidy(now);
        news
    }

    #[expect(clippy::too_many_arguments, reason = "one answer, and what is known of it")]
    fn refused(
        &mut self,
        hints: &Hints,
        told: Set,
        stamp: Stamp,
        route: &Route,
        heard: &Heard<'_>,
        counts: (u64, u64),
        now: u64,
        source: impl Fn(&str) -> Source,
    ) -> Option<News> {
        let (next, _) = counts;
        let pause = hints.pause.as_ref();
        let length = pause.map(|pause| nanos(pause.length));
        let name = pause.map_or("", |pause| &pause.name);
        let exhausted = self.exhausted(hints, told, name);
        let (is_sure, waits) = (!exhausted.is_empty(), self.waits);
        let places = if exhausted.is_empty() {
            Set::one(self.refusing(name, told, route, counts, now, &source))
        } else {
            exhausted
        };
        let field = pause.map_or_else(String::new, words);
        let mut news = None;
        for (_, belief) in self.among(places) {
            belief.source = source(&field);
            let is_short = length.is_none_or(|length| length <= SHORT);
            let until = match length {
                Some(length) if !is_short => {
                    news = Some(News::Stopped(Duration::from_nanos(length)));
                    Some(now.saturating_add(length))
                }
                _ => {
                    let refusal = Refusal {
                        asked: length,
                        is_sure,
                        jitter: heard.jitter,
                        waits,
                    };
                    let cut = belief.guess.refused(stamp.number, next, now, &refusal);
                    if let (None, Some(asked @ 1..)) = (&cut, length) {
                        // One of those that went together with the first: each begins the time anew.
                        belief.quota.stop(now.saturating_add(asked), next);
                    }
                    cut.map(|cut| {
                        let pause = Duration::from_nanos(cut.until.saturating_sub(now));
                        news = Some(match length {
                            Some(1..) => News::Stopped(pause),
                            Some(0) | None => News::Guessed(pause, cut.per_second),
                        });
                        cut.until
                    })
                }
            };
            if let Some(until) = until {
                belief.quota.stop(until, next);
            }
        }
        if let Some(ramp) = &mut self.beginning {
            ramp.ended_in_refusal();
        }
        let is_telling = length.is_some_and(|length| length > 2 * SLACK);
        for place in 0..self.beliefs.len() {
            if is_telling && places.has(place) {
                self.unite(place, now);
            }
        }
        news
    }

    /// The quotas that a refusal says are used up.
    fn exhausted(&self, hints: &Hints, told: Set, name: &str) -> Set {
        let mut set = Set::default();
        for (place, belief) in self.all().filter(|(place, _)| told.has(*place)) {
            let is_used_up = |quota: &&hints::Quota| quota.name == belief.name && quota.remaining == Some(0);
            let is_named = name.is_empty() || *belief.name == *name;
            if is_named && hints.quotas.iter().any(|quota| is_used_up(&quota)) {
                set = set.join(Set::one(place));
            }
        }
        set
    }

    /// The place of the limit that refuses requests of `route` and tells no figures. It is none of those that the same
    /// answer tells of: of them something is left, and other routes may count on it.
    fn refusing(
        &mut self,
        name: &str,
        told: Set,
        route: &Route,
        counts: (u64, u64),
        now: u64,
        source: impl Fn(&str) -> Source,
    ) -> usize {
        let concern = self.concern(route).without(told);
        let known = self
            .among(concern)
            .find(|(_, belief)| *belief.name == *name)
            .map(|(place, _)| place);
        let place = known.unwrap_or_else(|| self.add(name, route, counts, now, || source("")));
        self.show(route, place);
        place
    }

    /// The place of the limit that an answer to `route` tells the figures of.
    fn place(
        &mut self,
        quota: &hints::Quota,
        route: &Route,
        number: u64,
        counts: (u64, u64),
        now: u64,
        source: impl FnOnce() -> Source,
    ) -> usize {
        let has = self
            .routes
            .get(&route.key())
            .map_or_else(Set::default, |shown| shown.has);
        // Beside it there may be one of the same name that only stops: the one with figures goes first.
        let own = self
            .all()
            .filter(|(place, belief)| has.has(*place) && belief.name == quota.name)
            .max_by_key(|(place, belief)| (belief.quota.is_told(), std::cmp::Reverse(*place)));
        let own = own.map(|(place, _)| place);
        let agrees = |(place, belief): (usize, &Belief)| {
            (Some(place) != own && belief.name == quota.name && belief.quota.agrees(quota, number, now))
                .then_some(place)
        };
        if let Some(own) = own {
            // A belief that is about several routes: one of them may turn out to be counted apart.
            let is_shared = self
                .routes
                .values()
                .filter(|shown| shown.has.has(own))
                .nth(1)
                .is_some();
            let differs = self.beliefs[own]
                .as_ref()
                .is_some_and(|belief| belief.quota.contradicts(quota, number, now));
            if !(is_shared && differs) {
                return own;
            }
            let shown = self.shown(route);
            shown.lacks = shown.lacks.join(Set::one(own));
            shown.has = shown.has.without(Set::one(own));
        }
        let other = if self.widens {
            self.all().find_map(agrees)
        } else {
            None
        };
        let place = match other {
            Some(place) => {
                if let Some(Some(belief)) = self.beliefs.get_mut(place) {
                    belief.scope.widen(route);
                }
                place
            }
            None => self.add(&quota.name, route, counts, now, source),
        };
        self.show(route, place);
        place
    }

    /// Answers to `route` show the belief at `place`.
    fn show(&mut self, route: &Route, place: usize) {
        let shown = self.shown(route);
        shown.has = shown.has.join(Set::one(place));
        shown.lacks = shown.lacks.without(Set::one(place));
    }

    /// What the answers to `route` have shown, to be added to.
    fn shown(&mut self, route: &Route) -> &mut Shown {
        if self.routes.len() >= MOST_ROUTES && !self.routes.contains_key(&route.key()) {
            // What an app asks for may have no end.
            self.routes.clear();
        }
        self.routes.entry(route.key()).or_default()
    }

    /// A new belief. Past the most the one goes that was told of longest ago.
    fn add(
        &mut self,
        name: &str,
        route: &Route,
        (next, out): (u64, u64),
        now: u64,
        source: impl FnOnce() -> Source,
    ) -> usize {
        self.tidy(now);
        let belief = Belief {
            guess: Guess::default(),
            name: name.into(),
            quota: Quota::new(next, out),
            scope: Scope::only(*route),
            source: source(),
        };
        let vacant = self.beliefs.iter().position(Option::is_none);
        let place = match vacant {
            Some(place) => place,
            None if self.beliefs.len() < MOST_BELIEFS => {
                self.beliefs.push(None);
                self.beliefs.len() - 1
            }
            None => {
                let oldest = self
                    .all()
                    .min_by_key(|(_, belief)| belief.quota.told().max(belief.source.at));
                oldest.map_or(0, |(place, _)| place)
            }
        };
        self.drop(place);
        self.beliefs[place] = Some(belief);
        place
    }

    /// Two limits that tell no figures, and stop until the same moment as the upstream says, are one. Told at the same
    /// moment that shows nothing: a service that always says the same time says so of each of its routes.
    fn unite(&mut self, place: usize, now: u64) {
        let Some(Some(own)) = self.beliefs.get(place) else {
            return;
        };
        if !self.widens || own.quota.is_told() || !own.name.is_empty() {
            return;
        }
        let Some(until) = own.quota.stopped_until().filter(|until| *until > now) else {
            return;
        };
        let told_at = own.source.at;
        let is_same = |(other, belief): &(usize, &Belief)| {
            let is_close = |its: u64| its > now && its.abs_diff(until) <= SLACK;
            *other != place
                && belief.source.at.abs_diff(told_at) > SLACK
                && belief.name.is_empty()
                && !belief.quota.is_told()
                && belief.quota.stopped_until().is_some_and(is_close)
        };
        let Some((other, _)) = self.all().find(is_same) else {
            return;
        };
        let Some(own) = self.beliefs[place].take() else {
            return;
        };
        if let Some(belief) = &mut self.beliefs[other] {
            belief.scope.join(&own.scope);
        }
        for shown in self.routes.values_mut() {
            if shown.has.has(place) {
                shown.has = shown.has.join(Set::one(other));
                shown.lacks = shown.lacks.without(Set::one(other));
            }
        }
        self.drop(place);
    }

    /// Forgets what neither holds anybody nor tells anything.
    fn tidy(&mut self, now: u64) {
        for place in 0..self.beliefs.len() {
            if self.beliefs[place]
                .as_ref()
                .is_some_and(|belief| belief.is_idle(now))
            {
                self.drop(place);
            }
        }
    }

    fn drop(&mut self, place: usize) {
        self.beliefs[place] = None;
        let gone = Set::one(place);
        for shown in self.routes.values_mut() {
            shown.has = shown.has.without(gone);
            shown.lacks = shown.lacks.without(gone);
        }
        self.routes
            .retain(|_, shown| !shown.has.is_empty() || !shown.lacks.is_empty());
    }

    /// Which beliefs concern a request of `route`: those that answers to it have shown, and of those that are about more
    /// than one route the one that is about the fewest.
    fn concern(&self, route: &Route) -> Set {
        let shown = self.routes.get(&route.key()).copied().unwrap_or_default();
        let covers = |(place, belief): &(usize, &Belief)| {
            !shown.has.has(*place) && !shown.lacks.has(*place) && belief.scope.covers(route)
        };
        let depth = self
            .all()
            .filter(covers)
            .map(|(_, belief)| belief.scope.depth())
            .max();
        let mut set = shown.has;
        for (place, _) in self
            .all()
            .filter(covers)
            .filter(|(_, belief)| Some(belief.scope.depth()) == depth)
        {
            set = set.join(Set::one(place));
        }
        set
    }

    fn all(&self) -> impl Iterator<Item = (usize, &Belief)> {
        let places = self.beliefs.iter().enumerate();
        places.filter_map(|(place, belief)| Some((place, belief.as_ref()?)))
    }

    fn among(&mut self, set: Set) -> impl Iterator<Item = (usize, &mut Belief)> {
        let places = self.beliefs.iter_mut().enumerate();
        let among = places.filter(move |(place, _)| set.has(*place));
        among.filter_map(|(place, belief)| Some((place, belief.as_mut()?)))
    }
}

impl Belief {
    fn is_idle(&self, now: u64) -> bool {
        self.quota.is_idle(now) && self.guess.is_idle(now)
    }
}

/// An upstream that names a quota for each user must not fill the memory.
pub(super) const MOST_BELIEFS: usize = 16;

const MOST_ROUTES: usize = 256;

/// A time that an upstream tells is not known better than that.
const MOMENT: u64 = SECOND / 4;

/// A pause that is as short may be a part of a second, rounded up.
const SHORT: u64 = 2 * SECOND;

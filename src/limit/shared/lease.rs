//! What an instance holds of a shared rate: permits lent by the store, and its own share while the store is away.
//!
//! A permit has a moment from which it may be used and a life after which it is void, so that permits which lie about
//! cannot pile up into a burst. More are asked for when few are left. How many follows the demand: one where requests
//! are rare, and what a second needs where they are many, so that a busy fleet asks seldom.
//!
//! An answer that takes longer than [`PATIENCE`], or none at all, leaves the decision to the share: the rate divided by
//! the number of instances. What goes on the share is told to the store when it answers again.
//!
//! Pure: time is passed in, as nanoseconds since the limiter was made.

use std::collections::VecDeque;

use super::{LEASE, PermitGrant, PermitRequest, Presence, RateTerms, SECOND};
use crate::limit::gcra::{Gcra, NEVER};

/// What one instance holds of one shared rate.
#[derive(Debug)]
pub(in crate::limit) struct RateLease {
    rate: Gcra,
    terms: RateTerms,
    config: FleetConfig,
    /// In the order of their moments.
    batches: VecDeque<PermitBatch>,
    /// Since when an answer is waited for.
    asked_at: Option<u64>,
    /// Since when the call was under way that was answered last, if it was not about those who wait.
    previous_ask: Option<u64>,
    /// The store cannot be asked.
    store_is_away: bool,
    /// It could not, and has not lent anything since.
    was_away: bool,
    /// Until when the share decides although the store answers, because not all have returned to it.
    shares_until: u64,
    /// Until when there is no use in asking.
    asks_from: u64,
    /// When the store was last found to be away.
    away_since: Option<u64>,
    demand: Demand,
    fleet: Fleet,
    share: Share,
    /// Where this instance stands in the row, from 0 to 1, so that not all ask at the same moment.
    offset: f64,
    taken: Option<Taken>,
    /// When this instance has last told that it is there.
    announced_at: Option<u64>,
}

/// What is known of the fleet before the store tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FleetConfig {
    /// How many instances there are, as written.
    pub(crate) instances: Option<u32>,
    /// Which of them this is, counted from 0, as the platform says.
    pub(crate) index: Option<u32>,
}

/// Permits a period apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PermitBatch {
    /// When the first of them may be used.
    first: u64,
    count: u32,
    /// 0: all at once.
    period: u64,
    /// How long after its moment each may be used.
    life: u64,
}

/// How many requests want a permit in a second: an average that forgets.
#[derive(Clone, Copy, Debug)]
struct Demand {
    rate: f64,
    at: u64,
}

/// The fleet as the store has last told.
#[derive(Clone, Copy, Debug, Default)]
struct Fleet {
    /// When the fleet's bucket will be whole again, by this instance's clock.
    level: u64,
    /// How far that was ahead.
    ahead: u64,
    /// All that there is goes to somebody: permits come with moments.
    is_tight: bool,
    /// For how long requests come that can use a permit which is given out now.
    span: u64,
    born: i64,
    live: u32,
    active: u32,
}

/// What goes without the store.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// The level of this instance's part of the bucket.
    level: u64,
    /// What was used on the share and the store does not know of: how long it takes to be earned again, as of `owed_at`.
    owed: u64,
    owed_at: u64,
    /// How much of that is told in the call that is under way.
    reported: u32,
    /// The level of a bucket that sees all that this instance uses.
    own: u64,
}

/// Where the last permit came from.
#[derive(Clone, Copy, Debug)]
enum Taken {
    Lent(PermitBatch),
    Share,
}

impl RateLease {
    /// `turn`: any number from 0 to 1, another one for each instance.
    pub(in crate::limit) fn new(rate: Gcra, config: FleetConfig, offset: f64) -> Self {
        Self {
            rate,
            terms: RateTerms::of(rate),
            config,
            batches: VecDeque::new(),
            asked_at: None,
            previous_ask: None,
            store_is_away: false,
            was_away: false,
            shares_until: 0,
            asks_from: 0,
            away_since: None,
            demand: Demand { rate: 0.0, at: 0 },
            fleet: Fleet::default(),
            share: Share {
                level: rate.full(),
                ..Share::default()
            },
            offset,
            taken: None,
            announced_at: None,
        }
    }

    /// A request wants a permit, whether it gets one or not.
    pub(in crate::limit) fn count_demand(&mut self, now: u64) {
        self.demand.count(now);
    }

    /// From when on the next request may go, as far as is known here.
    pub(in crate::limit) fn earliest(&self, now: u64) -> u64 {
        if self.rate.period() == NEVER {
            return NEVER;
        }
        let lent = (self.batches.iter()).find_map(|batch| batch.next(now));
        let share = self.share_rate().earliest(self.share.level);
        let otherwise = match self.asked_at {
            _ if self.store_is_away => share,
            _ if self.shares_until > now => share.min(self.shares_until),
            Some(asked) => share.max(asked.saturating_add(PATIENCE)),
            None if self.asks_from > now => self.asks_from,
            None => now.saturating_add(PATIENCE),
        };
        lent.map_or(otherwise, |lent| lent.min(otherwise))
    }

    /// Nothing can be said before the store has answered, which it does at once or is taken to be away.
    pub(in crate::limit) fn is_asking(&self, now: u64) -> bool {
        let is_open = !self.store_is_away && self.asks_from <= now && self.rate.period() != NEVER;
        match self.asked_at {
            Some(asked) => {
                !self.store_is_away
                    && self.shares_until <= now
                    && now < asked.saturating_add(PATIENCE)
                    && self.lent(now) == 0
            }
            None => is_open && self.lent(now) == 0,
        }
    }

    /// One request goes `now`, which must not be before the earliest moment.
    pub(in crate::limit) fn take(&mut self, now: u64) {
        self.expire(now);
        let lent = match self.batches.front_mut() {
            Some(batch) if batch.first <= now => Some(batch.split()),
            Some(_) | None => None,
        };
        let part = self.share_rate();
        if self.batches.front().is_some_and(|batch| batch.count == 0) {
            self.batches.pop_front();
        }
        if lent.is_none() {
            self.share.level = part.taken(self.share.level, now);
            self.share.earn(self.fleet.level, now);
            self.share.owed = self.share.owed.saturating_add(part.period());
        }
        self.share.own = part.taken(self.share.own, now);
        self.taken = Some(lent.map_or(Taken::Share, Taken::Lent));
    }

    /// The last request that took a permit does not go after all.
    pub(in crate::limit) fn give_back(&mut self) {
        let part = self.share_rate();
        match self.taken.take() {
            None => return,
            Some(Taken::Lent(permit)) => self.batches.push_front(permit),
            Some(Taken::Share) => {
                self.share.level = part.returned(self.share.level);
                self.share.owed = self.share.owed.saturating_sub(part.period());
            }
        }
        self.share.own = part.returned(self.share.own);
    }

    /// Whether it is time to ask the store, with so many `waiting` in the queue. Says so once: from then on an answer is
    /// waited for.
    pub(in crate::limit) fn should_ask(&mut self, waiting: impl FnOnce() -> u32, now: u64) -> bool {
        let may = self.asked_at.is_none() && !self.store_is_away && self.rate.period() != NEVER;
        if !may || self.asks_from > now {
            return false;
        }
        self.expire(now);
        let held = self.held();
        let goal = self.goal(now);
        // Where all is given out by turns there is nothing to be had beyond one's own part.
        let is_short = (!self.fleet.is_tight || held == 0) && waiting() > held;
        let is_low = goal > 1 && held.saturating_mul(2) <= goal && self.demand.is_fresh(now);
        if is_short || is_low {
            // Whoever came while another call was under way has waited since then.
            let since = self.previous_ask.take();
            self.asked_at = Some(
                since
                    .filter(|since| now < since.saturating_add(PATIENCE))
                    .unwrap_or(now),
            );
        }
        is_short || is_low
    }

    /// Whether nothing was heard of this instance for so long that the others would forget it.
    pub(in crate::limit) fn is_quiet(&self, now: u64) -> bool {
        self.asked_at.is_none() && !self.store_is_away && self.presence(now) == Presence::Idle
    }

    /// What to ask the store. Where more than one limit is asked about at a time, some have no need.
    pub(in crate::limit) fn request(&mut self, waiting: u32, patience: u64, now: u64) -> PermitRequest {
        self.expire(now);
        self.asked_at.get_or_insert(now);
        let (held, part) = (self.held(), self.share_rate());
        let need = waiting.saturating_sub(held);
        let soon = need.max(self.demand.within(self.terms.grace, now).saturating_sub(held));
        let later = self.batches.iter().map(|batch| batch.after(now));
        self.share.earn(self.fleet.level, now);
        self.share.reported = u32::try_from(self.share.owed.div_ceil(part.period())).unwrap_or(u32::MAX);
        let presence = match self.presence(now) {
            Presence::Idle if soon > 0 || self.demand.is_fresh(now) => Presence::Active,
            other => other,
        };
        if presence != Presence::Announced {
            self.announced_at = Some(now);
        }
        PermitRequest {
            terms: self.terms,
            need,
            soon,
            demand: self.demand.within(1000 * SECOND, now),
            spare: held.saturating_sub(waiting),
            patience,
            held: later.sum(),
            spent: self.share.reported,
            left: match self.rate.burst() / self.members() {
                0 => 0,
                _ => part.remaining(self.share.own, now),
            },
            seen: self.fleet.born,
            returned: self.was_away,
            reserved: match self.away_since {
                Some(away_since) => LEASE.saturating_sub(now.saturating_sub(away_since)),
                None => LEASE,
            },
            presence,
        }
    }

    /// The store has answered.
    pub(in crate::limit) fn receive(&mut self, ask: &PermitRequest, grant: PermitGrant, now: u64) {
        let PermitGrant {
            at_once,
            later,
            first,
            ahead,
            ..
        } = grant;
        self.previous_ask = self.asked_at.take().filter(|_| ask.need == 0);
        self.store_is_away = false;
        if grant.wait > 0 {
            self.shares_until = now.saturating_add(grant.wait);
            self.asks_from = self.shares_until;
            self.share.reported = 0;
            return;
        }
        self.was_away = false;
        self.share.earn(self.fleet.level, now);
        let reported = self
            .share_rate()
            .period()
            .saturating_mul(u64::from(self.share.reported));
        self.share.owed = self.share.owed.saturating_sub(reported);
        self.share.reported = 0;
        self.fleet = Fleet {
            level: now.saturating_add(ahead),
            ahead,
            is_tight: later > 0 || ahead > self.terms.tolerance,
            span: ahead
                .saturating_sub(self.terms.tolerance)
                .min(ask.patience)
                .saturating_add(self.life()),
            born: grant.born,
            live: grant.live,
            active: grant.active.max(1),
        };
        self.share.level = self.share.level.max(self.fleet.level);
        self.hold(PermitBatch {
            first: now,
            count: at_once,
            period: 0,
            life: self.terms.grace.max(SLOP),
        });
        self.hold(PermitBatch {
            first: now.saturating_add(first),
            count: later,
            period: self.terms.period,
            life: self.life(),
        });
        let turn = self.next_offset();
        // Less than was asked for: what remains comes by turns, so there is no use in asking before.
        let got = at_once.saturating_add(later);
        let is_empty = ahead > self.terms.tolerance;
        self.asks_from = match got < ask.need || (got == 0 && is_empty) {
            false => 0,
            true => {
                let reach = ask.patience.max(LEASE);
                let opens = ahead.saturating_sub(self.terms.tolerance).saturating_sub(reach);
                let pitch = self.terms.period.saturating_mul(u64::from(self.fleet.active));
                let pause = pitch.saturating_mul(u64::from(later / 2).max(1)) as f64 * (0.5 + turn);
                now.saturating_add(opens)
                    .saturating_add((pause as u64).clamp(SHORTEST_PAUSE, LONGEST_PAUSE))
            }
        };
    }

    /// The store did not answer, and is not to be asked for now.
    pub(in crate::limit) fn store_lost(&mut self, now: u64) {
        self.asked_at = None;
        self.share.reported = 0;
        if self.store_is_away {
            return;
        }
        self.store_is_away = true;
        self.away_since = Some(now);
        if self.fleet.is_tight {
            // What is reserved comes first, by this instance and by the others: as far ahead as it was before.
            self.share.level = self.share.level.max(now.saturating_add(self.fleet.ahead));
        }
        // A burst that cannot be divided would be one permit for each, all at the same moment: by turns instead.
        let extra = u64::from(self.members().saturating_sub(self.rate.burst()));
        let row = self.terms.period.saturating_mul(extra) as f64;
        let turn = now.saturating_add((row * self.next_offset()) as u64);
        self.share.level = self.share.level.max(turn);
    }

    /// The store can be asked again.
    pub(in crate::limit) fn store_returned(&mut self) {
        self.was_away |= self.store_is_away;
        self.store_is_away = false;
        self.asks_from = 0;
        self.announced_at = None;
    }

    #[cfg(test)]
    pub(in crate::limit) fn store_is_away(&self) -> bool {
        self.store_is_away
    }

    /// Whether something was used on the share that the store does not know of.
    #[cfg(test)]
    pub(in crate::limit) fn owes(&self) -> bool {
        self.share.owed > 0
    }

    /// How many share the rate, as far as is known.
    pub(in crate::limit) fn members(&self) -> u32 {
        let live = self.fleet.live;
        match self.config.instances {
            Some(written) => written.max(1),
            None if live > 0 => live.max(self.config.index.unwrap_or(0).saturating_add(1)),
            None => self.config.unknown(),
        }
    }

    /// What is left of the whole rate, as last told: 1 full, 0 exhausted.
    pub(in crate::limit) fn left(&self, now: u64) -> f64 {
        let (rate, level) = match self.store_is_away {
            true => (self.share_rate(), self.share.level),
            false => (self.rate, self.fleet.level),
        };
        f64::from(rate.remaining(level, now)) / f64::from(rate.burst())
    }

    /// A rate and the level of its bucket that behave as this lease is expected to: what a wait is forecast from.
    pub(in crate::limit) fn outlook(&self, now: u64) -> (Gcra, u64) {
        if self.store_is_away {
            return (self.share_rate(), self.share.level);
        }
        if self.fleet.is_tight && self.fleet.level.saturating_sub(self.terms.tolerance) > now {
            let next = self.earliest(now);
            return (self.rate.paced(self.fleet.active, self.lent(now)), next);
        }
        (self.rate, self.fleet.level)
    }

    /// How long a permit lasts that was given out ahead of its moment.
    fn life(&self) -> u64 {
        self.terms.tolerance.clamp(SLOP, LEASE)
    }

    fn share_rate(&self) -> Gcra {
        self.rate.share(self.members())
    }

    /// How many permits it wants to have.
    fn goal(&self, now: u64) -> u32 {
        let reach = match self.fleet.is_tight {
            true => self.fleet.span,
            false => self.terms.grace,
        };
        let pitch = self
            .terms
            .period
            .saturating_mul(u64::from(self.fleet.active.max(1)));
        let fair = u32::try_from(LEASE / pitch.max(1)).unwrap_or(u32::MAX);
        self.demand.within(reach, now).min(fair)
    }

    /// Whether to tell with the next call that this instance is there.
    fn presence(&self, now: u64) -> Presence {
        match self.announced_at {
            Some(at) if now < at.saturating_add(SECOND) => Presence::Announced,
            Some(at) if now < at.saturating_add(HEARTBEAT) => match self.demand.is_fresh(now) {
                true => Presence::Active,
                false => Presence::Announced,
            },
            Some(_) | None => Presence::Idle,
        }
    }

    /// Permits that can be used now.
    fn lent(&self, now: u64) -> u32 {
        (self.batches.iter())
            .map(|batch| batch.alive(now) - batch.after(now).min(batch.alive(now)))
            .sum()
    }

    /// Permits that can be used now or later. PermitCall [`expire`](Self::expire) first.
    fn held(&self) -> u32 {
        self.batches
            .iter()
            .fold(0, |held, batch| held.saturating_add(batch.count))
    }

    fn hold(&mut self, batch: PermitBatch) {
        if batch.count > 0 {
            let place = self.batches.partition_point(|other| other.first <= batch.first);
            self.batches.insert(place, batch);
        }
    }

    /// Drops what was not used in time.
    fn expire(&mut self, now: u64) {
        self.batches.retain_mut(|batch| {
            let void = batch.count - batch.alive(now);
            batch.first = batch
                .first
                .saturating_add(batch.period.saturating_mul(u64::from(void)));
            batch.count -= void;
            batch.count > 0
        });
    }

    /// Another place in the row each time, evenly spread over time.
    fn next_offset(&mut self) -> f64 {
        self.offset = (self.offset + GOLDEN).fract();
        self.offset
    }
}

impl FleetConfig {
    /// How many to take for the fleet while nobody tells. With the platform's index the parts of all instances, a half,
    /// a sixth, a twelfth, never add up to more than the whole, however many there are.
    fn unknown(self) -> u32 {
        match self.index {
            Some(index) => index.saturating_add(1).saturating_mul(index.saturating_add(2)),
            None => UNKNOWN,
        }
    }
}

impl PermitBatch {
    /// How many can still be used, now or later.
    fn alive(&self, now: u64) -> u32 {
        let over = now.saturating_sub(self.first.saturating_add(self.life));
        match (over, self.period) {
            (0, _) => self.count,
            (_, 0) => 0,
            (over, period) => {
                self.count
                    - self
                        .count
                        .min(u32::try_from(over.div_ceil(period)).unwrap_or(u32::MAX))
            }
        }
    }

    /// How many cannot be used yet.
    fn after(&self, now: u64) -> u32 {
        match (now.checked_sub(self.first), self.period) {
            (None, _) => self.count,
            (Some(_), 0) => 0,
            (Some(since), period) => {
                let come = u32::try_from(since / period)
                    .unwrap_or(u32::MAX)
                    .saturating_add(1);
                self.count - self.count.min(come)
            }
        }
    }

    /// When the first that is not void can be used.
    fn next(&self, now: u64) -> Option<u64> {
        let alive = self.alive(now);
        let void = u64::from(self.count - alive);
        (alive > 0).then(|| self.first.saturating_add(self.period.saturating_mul(void)))
    }

    /// Takes the first out.
    fn split(&mut self) -> Self {
        let first = Self { count: 1, ..*self };
        self.first = self.first.saturating_add(self.period);
        self.count -= 1;
        first
    }
}

impl Share {
    /// Forgets of what is owed what has been earned since: not before the fleet's bucket would have been whole.
    fn earn(&mut self, fleet: u64, now: u64) {
        let earned = now.saturating_sub(self.owed_at.max(fleet));
        self.owed = self.owed.saturating_sub(earned);
        self.owed_at = now;
    }
}

impl Demand {
    fn count(&mut self, now: u64) {
        self.rate = self.at(now) + 1.0;
        self.at = now;
    }

    /// How many permits that makes in `reach`.
    ///
    /// Without the last one: whoever asks has just come, and would make a rare visitor look like a frequent one.
    fn within(&self, reach: u64, now: u64) -> u32 {
        let past = now.saturating_sub(self.at) as f64 / SECOND as f64;
        ((self.rate - 1.0).max(0.0) * (-past).exp() * reach as f64 / SECOND as f64) as u32
    }

    /// Whether somebody asked within the last second.
    fn is_fresh(&self, now: u64) -> bool {
        self.rate > 0.0 && now < self.at.saturating_add(SECOND)
    }

    fn at(&self, now: u64) -> f64 {
        let past = now.saturating_sub(self.at) as f64 / SECOND as f64;
        self.rate * (-past).exp()
    }
}

/// How long a request waits for the store's word.
pub(in crate::limit) const PATIENCE: u64 = 50_000_000;

/// A permit may be used so late at least: timers and networks are not exact.
const SLOP: u64 = 10_000_000;

/// How often an instance that asks for nothing tells that it is there: three times before it is forgotten.
const HEARTBEAT: u64 = 30 * SECOND;

const SHORTEST_PAUSE: u64 = 5_000_000;
const LONGEST_PAUSE: u64 = 5 * SECOND;

/// How many to take for a fleet of which nothing at all is known.
const UNKNOWN: u32 = 10;

/// The fraction whose multiples are spread most evenly.
const GOLDEN: f64 = 0.618_033_988_749_895;

//! What one instance holds of a shared rate: permits that the store has granted, and its share while the store is
//! away.
//!
//! A permit can be used from a certain moment on and ends a while later, so that unused permits do not pile up into
//! a burst. The lease asks for more when few are left. How many depends on the demand: one when requests are rare,
//! what a second needs when they are many, so that a busy fleet asks seldom. The share is the rate divided by the
//! number of instances; what was used of it is reported to the store later.
//!
//! A lease is in one of six states. Permits that it holds can be used in each of them; the last column says when a
//! request may go without one.
//!
//! | state | fields | without a permit |
//! | --- | --- | --- |
//! | ready | none of those below | after an answer; the next look at the queue asks |
//! | asking | `asked_at`, less than [`PATIENCE`] ago | after the answer |
//! | late | `asked_at`, [`PATIENCE`] ago or more | as the share allows |
//! | pausing | `asks_from` is to come: the store has given all | at `asks_from` |
//! | away | `store_is_away` | as the share allows |
//! | returning | `shares_until` is to come: others are not back yet | as the share allows |
//!
//! ```text
//!           should_ask             PATIENCE
//!   ready ──────────────▶ asking ────────────▶ late
//!     ▲                      └──────┬───────────┘
//!     │                             │ receive
//!     ├◀── it got what it needs ────┤
//!     ├◀── asks_from ──── pausing ◀─┤ it got less
//!     └◀── shares_until ─ returning ◀ it must wait (only after `away`)
//!
//!   each of them ── store_lost ──▶ away ── store_returned ──▶ ready
//! ```
//!
//! Pure: time is passed in, as nanoseconds since the limiter was made.

use std::collections::VecDeque;

use super::batch::PermitBatch;
use super::demand::Demand;
use super::{LEASE, PermitGrant, PermitRequest, Presence, RateTerms, SECOND};
use crate::limit::gcra::{Gcra, NEVER};

/// How long a request waits for an answer of the store.
pub(in crate::limit) const PATIENCE: u64 = 50_000_000;

/// A permit may be used so late at least: timers and networks are not exact.
const SLOP: u64 = 10_000_000;

/// How often an instance that asks for nothing shows that it runs: three times before it is forgotten.
const HEARTBEAT: u64 = 30 * SECOND;

const SHORTEST_PAUSE: u64 = 5_000_000;
const LONGEST_PAUSE: u64 = 5 * SECOND;

/// The size to assume for a fleet of which nothing is known.
const UNKNOWN: u32 = 10;

/// The fraction whose multiples are spread most evenly.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// What one instance holds of one shared rate.
#[derive(Debug)]
pub(in crate::limit) struct RateLease {
    rate: Gcra,
    terms: RateTerms,
    config: FleetConfig,
    /// In the order of their moments.
    batches: VecDeque<PermitBatch>,
    /// When the store was asked; `None` when no answer is expected.
    asked_at: Option<u64>,
    /// When the previous call was sent, if it asked nothing for those who wait.
    previous_ask: Option<u64>,
    store_is_away: bool,
    /// The store was away and has granted nothing since.
    was_away: bool,
    /// Until then the share decides although the store answers: not all instances are back.
    shares_until: u64,
    /// Before that it is useless to ask.
    asks_from: u64,
    /// When the store was lost last.
    away_since: Option<u64>,
    demand: Demand,
    fleet: Fleet,
    share: Share,
    /// From 0 to 1, different for each instance, so that not all ask at the same moment.
    offset: f64,
    taken: Option<Taken>,
    /// When this instance last let the store know that it runs.
    announced_at: Option<u64>,
}

/// What is known of the fleet before the store has answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FleetConfig {
    /// The number of instances, as configured.
    pub(crate) instances: Option<u32>,
    /// The number of this one, counted from 0, from the platform.
    pub(crate) index: Option<u32>,
}

/// The fleet as of the last answer.
#[derive(Clone, Copy, Debug, Default)]
struct Fleet {
    /// When the whole burst of the fleet will be free again, by this instance's clock.
    level: u64,
    /// How far that was in the future then.
    ahead: u64,
    /// The burst is used up: permits are for later moments.
    is_tight: bool,
    /// Requests of so long a time can use a permit that is granted now.
    span: u64,
    born: i64,
    live: u32,
    active: u32,
}

/// What may be used without the store.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// The level of this instance's part of the bucket.
    level: u64,
    /// What was used of the share and is not reported yet: the time that earns it back, as of `owed_at`.
    owed: u64,
    owed_at: u64,
    /// How many permits of that the current call reports.
    reported: u32,
    /// The level of a bucket that counts everything this instance uses.
    own: u64,
}

/// Where the last permit came from.
#[derive(Clone, Copy, Debug)]
enum Taken {
    Granted(PermitBatch),
    Share,
}

impl RateLease {
    /// `offset`: any number from 0 to 1, different for each instance.
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
            demand: Demand::default(),
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

    /// Counts a request that wants a permit, whether it gets one or not.
    pub(in crate::limit) fn count_demand(&mut self, now: u64) {
        self.demand.count(now);
    }

    /// Returns when the next request may go, as far as this instance knows.
    pub(in crate::limit) fn earliest(&self, now: u64) -> u64 {
        if self.rate.period() == NEVER {
            return NEVER;
        }
        let granted = self.batches.iter().find_map(|batch| batch.next(now));
        let share = self.share_rate().earliest(self.share.level);
        let otherwise = match self.asked_at {
            _ if self.store_is_away => share,
            _ if self.shares_until > now => share.min(self.shares_until),
            Some(asked) => share.max(asked.saturating_add(PATIENCE)),
            None if self.asks_from > now => self.asks_from,
            None => now.saturating_add(PATIENCE),
        };
        granted.map_or(otherwise, |granted| granted.min(otherwise))
    }

    /// Returns whether a decision has to wait for the store, which takes [`PATIENCE`] at most.
    pub(in crate::limit) fn is_asking(&self, now: u64) -> bool {
        let is_open = !self.store_is_away && self.asks_from <= now && self.rate.period() != NEVER;
        match self.asked_at {
            Some(asked) => {
                !self.store_is_away
                    && self.shares_until <= now
                    && now < asked.saturating_add(PATIENCE)
                    && self.usable(now) == 0
            }
            None => is_open && self.usable(now) == 0,
        }
    }

    /// Uses a permit `now`, which must not be before the earliest moment.
    pub(in crate::limit) fn take(&mut self, now: u64) {
        self.expire(now);
        let granted = match self.batches.front_mut() {
            Some(batch) if batch.first <= now => Some(batch.split()),
            Some(_) | None => None,
        };
        let part = self.share_rate();
        if self.batches.front().is_some_and(|batch| batch.count == 0) {
            self.batches.pop_front();
        }
        if granted.is_none() {
            self.share.level = part.taken(self.share.level, now);
            self.share.earn(self.fleet.level, now);
            self.share.owed = self.share.owed.saturating_add(part.period());
        }
        self.share.own = part.taken(self.share.own, now);
        self.taken = Some(granted.map_or(Taken::Share, Taken::Granted));
    }

    /// Takes back the last permit: its request does not go after all.
    pub(in crate::limit) fn give_back(&mut self) {
        let part = self.share_rate();
        match self.taken.take() {
            None => return,
            Some(Taken::Granted(permit)) => self.batches.push_front(permit),
            Some(Taken::Share) => {
                self.share.level = part.returned(self.share.level);
                self.share.owed = self.share.owed.saturating_sub(part.period());
            }
        }
        self.share.own = part.returned(self.share.own);
    }

    /// Returns whether to ask the store now, with so many `waiting` in the queue. Returns true once: from then on
    /// an answer is expected.
    pub(in crate::limit) fn should_ask(&mut self, waiting: impl FnOnce() -> u32, now: u64) -> bool {
        let may = self.asked_at.is_none() && !self.store_is_away && self.rate.period() != NEVER;
        if !may || self.asks_from > now {
            return false;
        }
        self.expire(now);
        let held = self.held();
        let goal = self.goal(now);
        // When the store hands out permits in turns, asking for more than our share gains nothing.
        let is_short = (!self.fleet.is_tight || held == 0) && waiting() > held;
        let is_low = goal > 1 && held.saturating_mul(2) <= goal && self.demand.is_fresh(now);
        if is_short || is_low {
            // Requests that came during the previous call have waited since then.
            let since = self.previous_ask.take();
            self.asked_at = Some(
                since
                    .filter(|since| now < since.saturating_add(PATIENCE))
                    .unwrap_or(now),
            );
        }
        is_short || is_low
    }

    /// Returns whether the store would soon forget this instance.
    pub(in crate::limit) fn is_quiet(&self, now: u64) -> bool {
        self.asked_at.is_none() && !self.store_is_away && self.presence(now) == Presence::Idle
    }

    /// Builds what to ask the store. One call is about all limits of a destination, and some may need nothing.
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

    /// Takes in an answer of the store.
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
        // Less than was asked for: the rest comes in turns, and asking earlier gains nothing.
        let got = at_once.saturating_add(later);
        let is_empty = ahead > self.terms.tolerance;
        self.asks_from = if got < ask.need || (got == 0 && is_empty) {
            let reach = ask.patience.max(LEASE);
            let opens = ahead.saturating_sub(self.terms.tolerance).saturating_sub(reach);
            let pitch = self.terms.period.saturating_mul(u64::from(self.fleet.active));
            let pause = pitch.saturating_mul(u64::from(later / 2).max(1)) as f64 * (0.5 + turn);
            now.saturating_add(opens)
                .saturating_add((pause as u64).clamp(SHORTEST_PAUSE, LONGEST_PAUSE))
        } else {
            0
        };
    }

    /// Notes that the store did not answer and must not be asked for now.
    pub(in crate::limit) fn store_lost(&mut self, now: u64) {
        self.asked_at = None;
        self.share.reported = 0;
        if self.store_is_away {
            return;
        }
        self.store_is_away = true;
        self.away_since = Some(now);
        if self.fleet.is_tight {
            // Permits that this instance and others have reserved come first: as far ahead as before.
            self.share.level = self.share.level.max(now.saturating_add(self.fleet.ahead));
        }
        // A burst smaller than the fleet would be one permit for each at the same moment: in turns instead.
        let extra = u64::from(self.members().saturating_sub(self.rate.burst()));
        let row = self.terms.period.saturating_mul(extra) as f64;
        let turn = now.saturating_add((row * self.next_offset()) as u64);
        self.share.level = self.share.level.max(turn);
    }

    /// Notes that the store can be asked again.
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

    /// Returns whether something was used of the share that the store does not know of.
    #[cfg(test)]
    pub(in crate::limit) fn owes(&self) -> bool {
        self.share.owed > 0
    }

    /// Returns how many instances share the rate, as far as is known.
    pub(in crate::limit) fn members(&self) -> u32 {
        let live = self.fleet.live;
        match self.config.instances {
            Some(written) => written.max(1),
            None if live > 0 => live.max(self.config.index.unwrap_or(0).saturating_add(1)),
            None => self.config.unknown(),
        }
    }

    /// Returns what is left of the whole rate, as of the last answer: 1 full, 0 exhausted.
    pub(in crate::limit) fn left(&self, now: u64) -> f64 {
        let (rate, level) = if self.store_is_away {
            (self.share_rate(), self.share.level)
        } else {
            (self.rate, self.fleet.level)
        };
        f64::from(rate.remaining(level, now)) / f64::from(rate.burst())
    }

    /// Returns a rate and the level of its bucket that behave as this lease is expected to: a forecast of waits
    /// uses them.
    pub(in crate::limit) fn outlook(&self, now: u64) -> (Gcra, u64) {
        if self.store_is_away {
            return (self.share_rate(), self.share.level);
        }
        if self.fleet.is_tight && self.fleet.level.saturating_sub(self.terms.tolerance) > now {
            let next = self.earliest(now);
            return (self.rate.paced(self.fleet.active, self.usable(now)), next);
        }
        (self.rate, self.fleet.level)
    }

    /// Returns how long a permit lasts that was granted for a later moment.
    fn life(&self) -> u64 {
        self.terms.tolerance.clamp(SLOP, LEASE)
    }

    fn share_rate(&self) -> Gcra {
        self.rate.share(self.members())
    }

    /// Returns how many permits it wants to hold.
    fn goal(&self, now: u64) -> u32 {
        let reach = if self.fleet.is_tight {
            self.fleet.span
        } else {
            self.terms.grace
        };
        let pitch = self
            .terms
            .period
            .saturating_mul(u64::from(self.fleet.active.max(1)));
        let fair = u32::try_from(LEASE / pitch.max(1)).unwrap_or(u32::MAX);
        self.demand.within(reach, now).min(fair)
    }

    /// Returns what the next call says about this instance itself.
    fn presence(&self, now: u64) -> Presence {
        match self.announced_at {
            Some(at) if now < at.saturating_add(SECOND) => Presence::Announced,
            Some(at) if now < at.saturating_add(HEARTBEAT) => {
                if self.demand.is_fresh(now) {
                    Presence::Active
                } else {
                    Presence::Announced
                }
            }
            Some(_) | None => Presence::Idle,
        }
    }

    /// Returns how many permits can be used now.
    fn usable(&self, now: u64) -> u32 {
        self.batches
            .iter()
            .map(|batch| batch.alive(now) - batch.after(now).min(batch.alive(now)))
            .sum()
    }

    /// Returns how many permits can be used now or later. Call [`expire`](Self::expire) first.
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

    /// Drops permits that were not used in time.
    fn expire(&mut self, now: u64) {
        self.batches.retain_mut(|batch| {
            let expired = batch.count - batch.alive(now);
            batch.first = batch
                .first
                .saturating_add(batch.period.saturating_mul(u64::from(expired)));
            batch.count -= expired;
            batch.count > 0
        });
    }

    /// Returns another offset each time, evenly spread over time.
    fn next_offset(&mut self) -> f64 {
        self.offset = (self.offset + GOLDEN).fract();
        self.offset
    }
}

impl FleetConfig {
    /// Returns the size to assume for a fleet of unknown size. With the platform's index the parts of all
    /// instances, a half, a sixth, a twelfth, never add up to more than the whole, however many there are.
    fn unknown(self) -> u32 {
        match self.index {
            Some(index) => index.saturating_add(1).saturating_mul(index.saturating_add(2)),
            None => UNKNOWN,
        }
    }
}

impl Share {
    /// Reduces the debt by what was earned since: only after the fleet's bucket would have been full.
    fn earn(&mut self, fleet: u64, now: u64) {
        let earned = now.saturating_sub(self.owed_at.max(fleet));
        self.owed = self.owed.saturating_sub(earned);
        self.owed_at = now;
    }
}

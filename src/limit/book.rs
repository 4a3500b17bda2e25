//! The state of one destination's limits: what is used up, and who waits.
//!
//! A request takes from all limits that concern it, or from none. Where it has to wait it [queues](super::queue), and
//! it is never overtaken by one behind it that any of its limits concerns, too; requests that share no limit do not
//! hold each other up. Nobody in the queue holds a reservation: whenever something changes, [`Book::settle`] goes
//! through the queue from the front and admits who can go. So when one gives up, those behind move up by themselves.
//!
//! Only the waiters at the front (those whom nobody before them blocks) need a timer; settling rings the bell of each
//! that comes to the front or is admitted. How long a wait would be is forecast by playing the queue through.
//!
//! Pure but for the bells: time is passed in, as nanoseconds since the limiter was made. The lock, the timers and
//! the metrics are in [`limiter`](super::limiter).

use std::sync::Arc;

use tokio::sync::Notify;

use super::gcra::{Gcra, NEVER};
use super::learned::{About, Heard, Hold, Holders, Learned, News, Stamp, Standing, Told};
use super::meter::Meter;
use super::queue::{Left, Queue, Ticket, Turn, Waiter};
use super::shared::Ask;
use super::shared::lease::{Lease, PATIENCE};
use super::usage::Usage;
use crate::config::Class;

/// The limits as numbers. Immutable; the [`Book`] has one meter for each rate.
#[derive(Debug)]
pub(super) struct Rules {
    /// The limits that concern every request.
    pub(super) everybody: Concerns,
    /// How many requests may wait.
    pub(super) queue: usize,
    pub(super) rates: Box<[Gcra]>,
    /// How many requests may be under way at once.
    pub(super) slots: Option<u32>,
}

/// Which limits concern a request: bit i is rate i, the highest bit is the concurrency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Concerns(u64);

/// A request as the limits see it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asker {
    pub(super) class: Class,
    pub(super) concerns: Concerns,
    /// `None`: nothing had been learned when it came.
    pub(super) about: Option<About>,
    pub(super) is_tunnel: bool,
}

/// For how long a request waits, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the answer to one that went first and finds out whether the others may go.
    pub(super) answer: u64,
    /// For its turn.
    pub(super) turn: u64,
}

/// Which limit stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Culprit {
    Concurrency,
    /// What the upstream has told.
    Learned(Told),
    /// The index of the rate.
    Rate(usize),
}

/// What became of a request that asked.
#[derive(Debug)]
pub(super) enum Arrival {
    Admitted(Ticket, Stamp),
    /// For so long at most.
    Queued(Ticket, Arc<Notify>, u64),
    Refused(Obstacle),
}

/// The first limit that would let a request through last, and the moment. [`NEVER`] for a rate of zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) culprit: Culprit,
    pub(super) until: u64,
}

/// What a waiter sees when it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It has been admitted; what it needs is taken.
    Admitted(Stamp),
    /// It had to make room for a higher class in a full queue.
    Displaced,
    /// Look again at this moment, or when the bell rings.
    Due(u64),
    /// Before this moment it does not go, as the upstream says.
    Held(u64),
    /// Look again when the bell rings.
    Waiting,
}

/// The state of one destination's limits.
#[derive(Debug)]
pub(super) struct Book {
    arrivals: u64,
    queue: Queue,
    usage: Usage,
}

impl Rules {
    pub(super) fn rates(&self, concerns: Concerns) -> impl Iterator<Item = (usize, Gcra)> {
        let concerned = move |&(index, _): &(usize, Gcra)| concerns.rate(index);
        self.rates.iter().copied().enumerate().filter(concerned)
    }
}

impl Concerns {
    pub(super) fn add_rate(&mut self, index: usize) {
        self.0 |= Self::bit(index);
    }

    pub(super) fn add_slots(&mut self) {
        self.0 |= SLOTS;
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn slots(self) -> bool {
        self.0 & SLOTS != 0
    }

    pub(super) fn rate(self, index: usize) -> bool {
        self.0 & Self::bit(index) != 0
    }

    pub(super) fn shares(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// More rates than bits share the last one: stricter, never looser. [`MOST_RATES`] keeps it from happening.
    fn bit(index: usize) -> u64 {
        1 << index.min(MOST_RATES - 1)
    }
}

impl Book {
    /// Each rate is counted here.
    #[cfg(test)]
    pub(super) fn new(rules: &Rules, learned: Option<Learned>) -> Self {
        let meters = rules.rates.iter().map(|&rate| Meter::local(rate));
        Self::with(meters.collect(), learned)
    }

    pub(super) fn with(meters: Box<[Meter]>, learned: Option<Learned>) -> Self {
        Self {
            arrivals: 0,
            queue: Queue::default(),
            usage: Usage {
                learned,
                meters,
                slots_taken: 0,
            },
        }
    }

    /// Admits the request, queues it, or says what stands in the way. `patience` says for how long it may wait, and is
    /// asked only where it would have to. So is `about`, where the request does not say it yet.
    pub(super) fn arrive(
        &mut self,
        rules: &Rules,
        mut asker: Asker,
        now: u64,
        patience: impl FnOnce() -> Patience,
        about: impl FnOnce() -> Option<About>,
    ) -> Arrival {
        let Asker { class, concerns, .. } = asker;
        self.arrivals += 1;
        let ticket = Ticket {
            class,
            number: self.arrivals,
        };
        for (index, _) in rules.rates(concerns) {
            if let Some(lease) = self.usage.meters[index].lease() {
                lease.wanted(now);
            }
        }
        self.settle(rules, now);
        let is_in_the_way = |waiter: &Waiter| !waiter.is_aside && waiter.turn.asker.concerns.shares(concerns);
        let is_blocked = self.queue.before(class, now).any(is_in_the_way);
        // As long as nobody has asked for it, the patience is without end.
        let mut turn = Turn {
            arrived: now,
            asker,
            patience: NEVER,
            ticket,
        };
        if !is_blocked && let Some(stamp) = self.usage.go(rules, turn, now) {
            return Arrival::Admitted(ticket, stamp);
        }
        if asker.about.is_none() {
            asker.about = about();
            turn.asker = asker;
        }
        let obstacle = self.forecast(rules, asker, now);
        let patience = patience();
        turn.patience = patience.turn;
        if turn.patience == 0
            && !is_blocked
            && let Some(stamp) = self.usage.go(rules, turn, now)
        {
            return Arrival::Admitted(ticket, stamp);
        }
        if (rules.rates(concerns)).any(|(index, _)| self.usage.meters[index].is_asking(now)) {
            // Also where it may not wait for a permit it waits for the store to say whether there is one.
            turn.patience = turn.patience.max(PATIENCE);
        }
        if let Standing::Held(_, Hold::Probed(_)) = self.usage.standing(turn, now) {
            // One has gone to find out: the others wait for its answer, whether they may wait for a turn or not.
            turn.patience = patience.answer;
        }
        let in_time = obstacle.until != NEVER && obstacle.until <= now.saturating_add(turn.patience);
        let has_room = |queue: &mut Queue| queue.len() < rules.queue || queue.displace(class);
        if turn.patience == 0 || !in_time || !has_room(&mut self.queue) {
            return Arrival::Refused(obstacle);
        }
        let bell = self.queue.insert(turn);
        // Whoever comes to the front learns it there, and is rung.
        self.settle(rules, now);
        Arrival::Queued(ticket, bell, turn.patience)
    }

    /// How it stands for a waiter. Admits whoever can go by now, so that nobody depends on another one's timer.
    pub(super) fn look(&mut self, rules: &Rules, ticket: Ticket, now: u64) -> Look {
        self.settle(rules, now);
        let place = self.queue.place(ticket);
        let Some(waiter) = place.and_then(|place| self.queue.get_mut(place)) else {
            return match self.queue.left(ticket) {
                Some(Left::Admitted(stamp)) => Look::Admitted(stamp),
                // Nobody looks twice after having left.
                Some(Left::Displaced) | None => Look::Displaced,
            };
        };
        waiter.due = None;
        if !waiter.is_front {
            return Look::Waiting;
        }
        let turn = waiter.turn;
        let rates = self.usage.obstacle(rules, turn.asker.concerns, now);
        let standing = self.usage.standing(turn, now);
        if let Some(waiter) = place.and_then(|place| self.queue.get_mut(place)) {
            waiter.due = standing.due();
        }
        match standing {
            Standing::Free if rates > now => Look::Due(rates),
            // The rates would let it go and it waits for a slot.
            Standing::Free => Look::Waiting,
            Standing::Held(_, Hold::Until(until)) => Look::Held(until),
            Standing::Held(_, Hold::Probed(until)) => Look::Due(until),
        }
    }

    /// A waiter gives up: its place is free for those behind. If it had just been admitted, what it took goes back.
    pub(super) fn leave(&mut self, rules: &Rules, ticket: Ticket, concerns: Concerns, now: u64) {
        if let Some(place) = self.queue.place(ticket) {
            self.queue.remove(place);
        } else if let Some(Left::Admitted(stamp)) = self.queue.left(ticket) {
            return self.put_back(rules, ticket, concerns, stamp, now);
        }
        self.settle(rules, now);
    }

    /// What was admitted is not sent: all that it took goes back; of a rate only while no other request has gone since,
    /// because more might exceed it.
    pub(super) fn put_back(
        &mut self,
        rules: &Rules,
        ticket: Ticket,
        concerns: Concerns,
        stamp: Stamp,
        now: u64,
    ) {
        self.usage.put_back(rules, ticket, concerns, stamp);
        self.mistrust_timers();
        self.settle(rules, now);
    }

    /// Something came from outside into the meter of a rate: whoever can go by it does.
    pub(super) fn refill(&mut self, rules: &Rules, index: usize, now: u64, change: impl FnOnce(&mut Meter)) {
        if let Some(meter) = self.usage.meters.get_mut(index) {
            change(meter);
            self.mistrust_timers();
            self.settle(rules, now);
        }
    }

    /// Whether it is time to ask the store for something. Says so once for each answer.
    pub(super) fn wants(&mut self, now: u64) -> bool {
        let queue = &self.queue;
        let mut wants = false;
        for (index, meter) in self.usage.meters.iter_mut().enumerate() {
            if let Some(lease) = meter.lease() {
                wants |= lease.wants(|| queue.waiting_for(index), now);
            }
        }
        wants
    }

    /// What to ask the store, for each rate.
    pub(super) fn asks(&mut self, patience: u64, now: u64) -> Vec<Ask> {
        let queue = &self.queue;
        let lent = self.usage.meters.iter_mut().enumerate();
        let ask = |(index, meter): (usize, &mut Meter)| {
            let lease = meter.lease()?;
            Some(lease.ask(queue.waiting_for(index), patience, now))
        };
        lent.filter_map(ask).collect()
    }

    /// What the store lends of each rate.
    pub(super) fn leases(&mut self) -> impl Iterator<Item = &mut Lease> {
        self.usage.meters.iter_mut().filter_map(Meter::lease)
    }

    /// An answer came, or `None`: the request ended without one. What follows is worth telling.
    pub(super) fn hear(
        &mut self,
        rules: &Rules,
        stamp: Stamp,
        heard: Option<(&About, Heard<'_>)>,
        now: u64,
    ) -> Option<News> {
        let learned = self.usage.learned.as_mut()?;
        let news = match heard {
            Some((about, heard)) => learned.hear(stamp, about, &heard, now),
            None => {
                learned.end(stamp);
                None
            }
        };
        if !self.queue.is_empty() {
            self.mistrust_timers();
            self.settle(rules, now);
        }
        news
    }

    /// A request with a slot has ended. `now` is asked only where somebody waits for it.
    pub(super) fn release(&mut self, rules: &Rules, now: impl FnOnce() -> u64) {
        self.usage.slots_taken = self.usage.slots_taken.saturating_sub(1);
        if !self.queue.is_empty() {
            self.settle(rules, now());
        }
    }

    /// What would stand in the way of a request that queued now, and until when, if nobody gives up and nobody comes
    /// who goes before it.
    /// Slots do not tell when they fall free; they count as free unless the rates are.
    pub(super) fn forecast(&self, rules: &Rules, asker: Asker, now: u64) -> Obstacle {
        let mut horizon = now;
        // Whoever moves up before its turn goes before it, so that its turn is later, so that others may move up.
        for _ in 0..MOST_ROUNDS {
            let obstacle = self.play(rules, asker, now, horizon);
            if obstacle.until <= horizon || asker.class == Class::Low {
                return obstacle;
            }
            horizon = obstacle.until;
        }
        self.play(rules, asker, now, NEVER - 1)
    }

    /// The forecast where those go first who will have moved up by `horizon`.
    fn play(&self, rules: &Rules, asker: Asker, now: u64, horizon: u64) -> Obstacle {
        let Asker { class, concerns, .. } = asker;
        let about = asker.about.unwrap_or_default();
        let bucket = |(meter, rate): (&Meter, &Gcra)| meter.outlook(*rate, now);
        let mut buckets: Vec<_> = (self.usage.meters.iter().zip(&rules.rates).map(bucket)).collect();
        // From when on a later one may go, for each limit: not before those who wait for it already.
        let mut floors = vec![now; rules.rates.len()];
        let mut slots_floor = now;
        let learned = self.usage.learned.as_ref();
        let mut outlook = learned.map(|learned| (learned, learned.outlook(&about, now)));
        for waiter in self.queue.before(class, horizon) {
            let concerns = waiter.turn.asker.concerns;
            let its = waiter.turn.asker.about.unwrap_or_default();
            let mut at = if concerns.slots() { slots_floor } else { now };
            if let Some((learned, outlook)) = &outlook {
                at = at.max(learned.when(outlook, &its).0);
            }
            for (index, _) in rules.rates(concerns) {
                let (rate, level) = buckets[index];
                at = at.max(floors[index]).max(rate.earliest(level));
            }
            if let Some((learned, outlook)) = &mut outlook {
                learned.play(outlook, &its, at);
            }
            if waiter.is_aside {
                continue;
            }
            for (index, _) in rules.rates(concerns) {
                let (rate, level) = &mut buckets[index];
                floors[index] = at;
                *level = rate.taken(*level, at);
            }
            if concerns.slots() {
                slots_floor = at;
            }
        }
        let culprit = match rules.rates(concerns).next() {
            _ if concerns.is_empty() => Culprit::Learned(Told::default()),
            Some((index, _)) if !concerns.slots() => Culprit::Rate(index),
            _ => Culprit::Concurrency,
        };
        let mut obstacle = Obstacle { culprit, until: now };
        for (index, _) in rules.rates(concerns) {
            let (rate, level) = buckets[index];
            let until = rate.earliest(level).max(floors[index]);
            if until > obstacle.until {
                obstacle = Obstacle {
                    culprit: Culprit::Rate(index),
                    until,
                };
            }
        }
        if concerns.slots() {
            obstacle.until = obstacle.until.max(slots_floor);
        }
        if let Some((learned, outlook)) = &outlook {
            let (until, told) = learned.when(outlook, &about);
            if until > obstacle.until || concerns.is_empty() {
                obstacle = Obstacle {
                    culprit: Culprit::Learned(told),
                    until,
                };
            }
        }
        obstacle
    }

    /// What is left of a rate: 1 full, 0 exhausted.
    pub(super) fn rate_left(&self, rules: &Rules, index: usize, now: u64) -> f64 {
        self.usage.meters[index].left(rules.rates[index], now)
    }

    pub(super) fn slots_taken(&self) -> u32 {
        self.usage.slots_taken
    }

    #[cfg(test)]
    pub(super) fn has_waiters(&self) -> bool {
        !self.queue.is_empty()
    }

    #[cfg(test)]
    pub(super) fn is_queued(&self, ticket: Ticket) -> bool {
        self.queue.place(ticket).is_some()
    }

    pub(super) fn learned(&self) -> Option<&Learned> {
        self.usage.learned.as_ref()
    }

    /// Admits from the front of the queue whoever can go `now`, and rings them.
    fn settle(&mut self, rules: &Rules, now: u64) {
        self.queue.promote(now);
        let mut blocked = Concerns::default();
        // What holds somebody of those that were looked at.
        let mut holding: Vec<(About, Holders)> = Vec::new();
        let mut place = 0;
        while let Some(waiter) = self.queue.get_mut(place) {
            let concerns = waiter.turn.asker.concerns;
            if concerns.shares(blocked) {
                blocked.0 |= concerns.0;
                place += 1;
                continue;
            }
            let same = |(about, _): &&(About, Holders)| Some(*about) == waiter.turn.asker.about;
            if holding.iter().any(|holding| same(&holding)) {
                // One that is about the same waits before it, and has the timer.
                waiter.is_aside = true;
                waiter.is_front = false;
                place += 1;
                continue;
            }
            let standing = self.usage.standing(waiter.turn, now);
            if standing == Standing::Free
                && let Some(stamp) = self.usage.take(rules, waiter.turn, now)
            {
                self.queue.admit(place, stamp);
                continue;
            }
            // Of those that the same holds the first has the timer.
            let is_front = match standing {
                Standing::Held(holders, _) => !holding.iter().any(|(_, other)| holders.shares(*other)),
                Standing::Free => true,
            };
            waiter.is_aside = matches!(standing, Standing::Held(..));
            let due = standing.due();
            if is_front && !waiter.is_front && !due.is_some_and(|due| waiter.is_timed(due)) {
                waiter.due = due;
                waiter.bell.notify_one();
            }
            waiter.is_front = is_front;
            match standing {
                Standing::Held(holders, _) => {
                    holding.push((waiter.turn.asker.about.unwrap_or_default(), holders));
                }
                Standing::Free => blocked.0 |= concerns.0,
            }
            if blocked.shares(rules.everybody) {
                // Of those behind nobody can go.
                return;
            }
            place += 1;
        }
    }

    /// The timers of those at the front may be too late now: settling rings them again.
    fn mistrust_timers(&mut self) {
        for waiter in self.queue.iter_mut() {
            waiter.is_front = false;
        }
    }
}

/// How many rates a destination can have that are told apart.
pub(super) const MOST_RATES: usize = 63;

/// How often a forecast is mended for those who move up meanwhile, before all of them count.
const MOST_ROUNDS: usize = 4;

const SLOTS: u64 = 1 << 63;

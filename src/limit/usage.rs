//! What is used up of one destination's limits.
//!
//! A request takes of all limits that concern it or of none. Nobody's turn is known here: that is the
//! [`Book`](super::book::Book)'s matter.

use super::book::{Concerns, Rules};
use super::learned::{Learned, Stamp, Standing};
use super::meter::Meter;
use super::queue::{Ticket, Turn};

#[derive(Debug)]
pub(super) struct Usage {
    /// `None`: what the upstream says does not matter.
    pub(super) learned: Option<Learned>,
    /// One for each rate.
    pub(super) meters: Box<[Meter]>,
    pub(super) slots_taken: u32,
}

impl Usage {
    /// How it stands for one as far as the upstream has told.
    pub(super) fn standing(&mut self, turn: Turn, now: u64) -> Standing {
        match (&mut self.learned, &turn.asker.about) {
            (Some(learned), Some(about)) => learned.standing(about, turn.arrived, turn.patience, now),
            (None, _) | (_, None) => Standing::Free,
        }
    }

    /// Takes all that is needed if nothing stands in the way.
    pub(super) fn go(&mut self, rules: &Rules, turn: Turn, now: u64) -> Option<Stamp> {
        match self.standing(turn, now) {
            Standing::Free => self.take(rules, turn, now),
            Standing::Held(..) => None,
        }
    }

    /// The same for one for which it stands free.
    pub(super) fn take(&mut self, rules: &Rules, turn: Turn, now: u64) -> Option<Stamp> {
        let concerns = turn.asker.concerns;
        let slots_full = concerns.slots() && rules.slots.is_some_and(|slots| self.slots_taken >= slots);
        if slots_full || self.obstacle(rules, concerns, now) > now {
            return None;
        }
        for (index, rate) in rules.rates(concerns) {
            self.meters[index].take(rate, turn.ticket, now);
        }
        self.slots_taken += u32::from(concerns.slots());
        Some(match (&mut self.learned, &turn.asker.about) {
            (Some(learned), Some(about)) => learned.take(about, now),
            (Some(learned), None) if !turn.asker.is_tunnel => learned.pass(),
            (None, _) | (_, None) => Stamp::default(),
        })
    }

    /// Until when the rates keep a request back that nobody precedes.
    pub(super) fn obstacle(&self, rules: &Rules, concerns: Concerns, now: u64) -> u64 {
        let earliest = (rules.rates(concerns)).map(|(index, rate)| self.meters[index].earliest(rate, now));
        earliest.max().unwrap_or_default()
    }

    /// What a request took that has not gone.
    pub(super) fn put_back(&mut self, rules: &Rules, ticket: Ticket, concerns: Concerns, stamp: Stamp) {
        for (index, rate) in rules.rates(concerns) {
            self.meters[index].give_back(rate, ticket);
        }
        if concerns.slots() {
            self.slots_taken = self.slots_taken.saturating_sub(1);
        }
        if let Some(learned) = &mut self.learned {
            learned.give_back(stamp);
        }
    }
}

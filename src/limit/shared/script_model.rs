//! A model of the store's script in Rust, for simulations that are too fast for a server. A test makes the same calls
//! to both and compares every number.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::{PermitGrant, PermitRequest, Presence, RateTerms};
use crate::limit::gcra::Gcra;
use crate::units::Rate;

/// In microseconds, as in the script.
const LIFE: f64 = 90_000_000.0;
const ACTIVE: f64 = 3_000_000.0;
const LEASE: f64 = 1_000_000.0;
const FARTHEST: f64 = 10_000_000.0;
const SILENCE: f64 = 500_000.0;
const RETURN: f64 = 2_500_000.0;
/// In milliseconds.
const KEEP: f64 = 600_000.0;

/// What the store holds: limits by name.
#[derive(Debug, Default)]
pub(crate) struct ScriptModel {
    limits: HashMap<String, Limit>,
    /// How many calls it has answered.
    pub(crate) calls: u64,
}

/// One limit. All times are microseconds, as doubles: the script knows no other numbers.
#[derive(Debug, Default)]
struct Limit {
    state: Option<State>,
    /// The instances that share it, and when each is removed.
    members: HashMap<Rc<str>, i64>,
    /// The same in the order of their removal.
    order: BTreeSet<(i64, Rc<str>)>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    born: f64,
    tat: f64,
    live: f64,
    active: f64,
    lost: bool,
    opens: f64,
    asked: f64,
    dies: f64,
}

impl ScriptModel {
    /// Answers a call about the limits of `asks` at `now`, in microseconds of its clock.
    pub(crate) fn call(
        &mut self,
        member: &str,
        asks: &[(&str, PermitRequest)],
        now: i64,
    ) -> Vec<PermitGrant> {
        self.calls += 1;
        let answer = |&(name, ref ask): &(&str, PermitRequest)| {
            let limit = self.limits.entry(name.to_owned()).or_default();
            PermitGrant::read(limit.answer(member, ask, now as f64).map(|number| number as i64)).unwrap()
        };
        asks.iter().map(answer).collect()
    }

    /// Loses all limits, as a server that is killed does.
    pub(crate) fn clear(&mut self) {
        self.limits.clear();
    }
}

impl Limit {
    fn add_member(&mut self, member: &str, until: i64) {
        let name: Rc<str> = match self.members.get_key_value(member) {
            Some((name, _)) => Rc::clone(name),
            None => Rc::from(member),
        };
        if let Some(before) = self.members.insert(Rc::clone(&name), until) {
            self.order.remove(&(before, Rc::clone(&name)));
        }
        self.order.insert((until, name));
    }

    fn remove_expired(&mut self, now: i64) {
        while let Some((until, _)) = self.order.first()
            && *until <= now
            && let Some((_, name)) = self.order.pop_first()
        {
            self.members.remove(&name);
        }
    }

    fn answer(&mut self, member: &str, ask: &PermitRequest, now: f64) -> [f64; super::ANSWERS] {
        let number = |text: &String| text.parse::<f64>().unwrap();
        let arguments: Vec<_> = ask.arguments().iter().map(number).collect();
        let [period, tolerance, grace, mut need, mut soon, mut demand] = arguments[..6].try_into().unwrap();
        let [patience, held, spent, left, seen, reserved, _, returned, spare] =
            arguments[6..].try_into().unwrap();

        let known = self.state.filter(|state| state.dies > now);
        let State {
            born,
            mut tat,
            mut live,
            mut active,
            mut lost,
            mut opens,
            mut asked,
            ..
        } = known.unwrap_or(State {
            born: now,
            tat: now,
            live: 0.0,
            active: 0.0,
            lost: false,
            opens: 0.0,
            asked: 0.0,
            dies: 0.0,
        });
        tat = tat.max(now).min(now + tolerance + period + FARTHEST);
        if seen != 0.0 && seen != born && !lost {
            lost = true;
            asked = 0.0;
            tat = tat.max(now + tolerance + period + reserved);
        }
        opens = opens.min(now + RETURN);
        if returned > 0.0 && opens <= now && asked + SILENCE < now {
            opens = now + RETURN;
            if lost {
                tat = tat.max(opens + tolerance + period);
            }
        }
        asked = now;
        if opens > now {
            (need, soon, demand) = (0.0, 0.0, 0.0);
        } else if seen != 0.0 && seen != born {
            tat = (tat - left * period).max(now);
        } else if spent > 0.0 {
            tat = tat.max((tat + spent * period).min(now + tolerance + period));
        }

        if ask.presence != Presence::Announced || known.is_none() {
            let idle = match ask.presence {
                Presence::Idle => ACTIVE,
                Presence::Active | Presence::Announced => 0.0,
            };
            self.add_member(member, (now + LIFE - idle) as i64);
            self.remove_expired(now as i64);
            live = self.members.len() as f64;
            let asked = ((now + LIFE - ACTIVE) as i64 + 1, Rc::from(""));
            active = self.order.range(asked..).count() as f64;
        }

        let (mut at_once, mut later, mut first) = (0.0, 0.0, 0.0_f64);
        if tat <= now + tolerance {
            at_once = f64::min(need, ((now + tolerance - tat) / period).floor() + 1.0);
            tat += at_once * period;
            let late = tat.max(now + grace);
            if at_once < soon && at_once == need && late <= now + tolerance {
                let more = f64::min(soon - need, ((now + tolerance - late) / period).floor() + 1.0);
                at_once += more;
                tat = late + more * period;
            }
        }
        let moment = tat - tolerance;
        if (at_once < need || demand > 0.0) && moment > now {
            let within = |horizon: f64| {
                if moment > now + horizon {
                    0.0
                } else {
                    ((now + horizon - moment) / period).floor() + 1.0
                }
            };
            let most = f64::max(1.0, (LEASE / (active.max(1.0) * period)).floor()) - held;
            let missing = f64::max(need - at_once, 0.0);
            let needed = f64::min(missing, within(patience.min(FARTHEST)));
            let span = patience.min(moment - now) + tolerance.min(LEASE);
            let likely = demand * span / 1_000_000.0;
            let likely = f64::max(0.0, (likely - likely.sqrt()).floor() - spare);
            later = needed.max(f64::min(missing + likely, within(LEASE)));
            later = later.min(most).max(0.0);
            if later > 0.0 {
                first = (moment - now).ceil();
                tat += later * period;
            }
        }

        let ahead = (tat - now).ceil();
        self.state = Some(State {
            born,
            // As the script stores it.
            tat: format!("{tat:.3}").parse().unwrap(),
            live,
            active,
            lost,
            opens,
            asked,
            dies: now + (((tat - now) / 1000.0).ceil() + KEEP) * 1000.0,
        });
        let wait = (opens - now).max(0.0);
        [at_once, later, first, ahead, born, live, active, wait]
    }
}

/// Returns a rate such as people write.
pub(crate) fn random_terms(random: &mut StdRng) -> RateTerms {
    let count = random.random_range(1..500);
    let per = [1, 60, 3600][random.random_range(0..3)];
    RateTerms::of(Gcra::new(&Rate {
        count,
        per: Duration::from_secs(per),
        burst: if random.random_bool(0.3) {
            1
        } else {
            random.random_range(1..=count)
        },
    }))
}

/// Returns any request that an instance might make.
pub(crate) fn random_ask(terms: RateTerms, births: &[i64], random: &mut StdRng) -> PermitRequest {
    let mut often_zero = |most| {
        if random.random_bool(0.5) {
            0
        } else {
            random.random_range(0..=most)
        }
    };
    let (need, more, even_more, held) = (often_zero(20), often_zero(20), often_zero(60), often_zero(10));
    let (spent, left) = (often_zero(30), often_zero(30));
    PermitRequest {
        terms,
        need,
        soon: need + more,
        demand: even_more * 1000,
        spare: held / 2,
        patience: random.random_range(0..20) * 1_000_000_000,
        held,
        spent,
        left,
        reserved: random.random_range(0..3) * 500_000_000,
        seen: births[random.random_range(0..births.len())],
        returned: random.random_bool(0.1),
        presence: [Presence::Announced, Presence::Active, Presence::Idle][random.random_range(0..3)],
    }
}

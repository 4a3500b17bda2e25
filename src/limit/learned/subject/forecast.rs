//! What is told to people of one subject's beliefs, and when a request's turn would be.

use super::{MOST_BELIEFS, Subject};
use crate::limit::gcra::Gcra;
use crate::limit::learned::route::Route;
use crate::limit::learned::{Known, Told};

/// When one request's turn would be, as far as one subject's beliefs tell.
#[derive(Debug)]
pub(in crate::limit::learned) struct Outlook {
    before: [u64; MOST_BELIEFS],
    rates: [Option<(Gcra, u64)>; MOST_BELIEFS],
}

impl Subject {
    pub(in crate::limit::learned) fn ratio(&self, now: u64) -> Option<f64> {
        let ratios = self.all().filter_map(|(_, belief)| belief.quota.ratio(now));
        ratios.reduce(f64::min)
    }

    /// Until when somebody is kept away, as the upstream says.
    pub(in crate::limit::learned) fn paused_until(&self) -> Option<u64> {
        self.all()
            .filter_map(|(_, belief)| belief.quota.exhausted_until())
            .max()
    }

    pub(in crate::limit::learned) fn known(&self, now: u64) -> impl Iterator<Item = Known> {
        self.all()
            .filter(move |(_, belief)| !belief.is_idle(now))
            .map(move |(_, belief)| Known {
                host: self.host.clone(),
                concerns: belief.scope.words(&belief.source.path),
                name: belief.name.clone(),
                paused_until: belief.quota.exhausted_until().filter(|until| *until > now),
                left: belief.quota.is_told().then(|| belief.quota.left()),
                limit: belief.quota.limit,
                resets: belief.quota.resets(),
                per_second: belief.guess.per_second(),
                source: belief.source.clone(),
            })
    }

    pub(in crate::limit::learned) fn outlook(&self) -> Outlook {
        let mut outlook = Outlook {
            before: [0; MOST_BELIEFS],
            rates: [None; MOST_BELIEFS],
        };
        for (place, belief) in self.all() {
            outlook.rates[place] = belief.guess.outlook();
        }
        outlook
    }

    /// When one of `route` could go that comes after those in the outlook, and by which quota.
    pub(in crate::limit::learned) fn when(&self, outlook: &Outlook, route: &Route, now: u64) -> (u64, Told) {
        let mut until = now;
        let mut told = Told::default();
        let concern = self.concern(route);
        for (place, belief) in self.all().filter(|(place, _)| concern.has(*place)) {
            let mut when = belief.quota.when(outlook.before[place], now);
            if let Some((rate, level)) = outlook.rates[place] {
                when = when.max(rate.earliest(level));
            }
            if when > until || (when >= until && told.limit.is_none()) {
                told = Told {
                    limit: belief.quota.limit,
                    window: belief.quota.span(),
                };
            }
            until = until.max(when);
        }
        (until, told)
    }

    /// One goes at this moment.
    pub(in crate::limit::learned) fn play(&self, outlook: &mut Outlook, route: &Route, at: u64) {
        let concern = self.concern(route);
        for place in (0..MOST_BELIEFS).filter(|place| concern.has(*place)) {
            outlook.before[place] += 1;
            if let Some((rate, level)) = &mut outlook.rates[place] {
                *level = rate.taken(*level, at);
            }
        }
    }
}

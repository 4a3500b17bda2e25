//! Takes changed secrets over, destination by destination.
//!
//! Only destinations whose secrets have changed are made anew; the others keep their connections. A certificate and its
//! key are two files, and whoever renews them replaces one after the other (Cloud Foundry the key first), so for a
//! moment the new key lies beside the old certificate. What does not fit is therefore not told at once: the destination
//! keeps what it had and is tried again, until it fits or has not fitted for so long that a person should look.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Error;
use super::build::{Builder, End};
use super::doors::Doors;
use crate::config::{Auth, Config};
use crate::policy::Destination;
use crate::proxy::{Live, Route};
use crate::store::QuotaStore;
use crate::telemetry::Telemetry;

/// What came of one look into all secrets.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    /// With what could be taken over; `None` where nothing was.
    pub(super) live: Option<Live>,
    /// The routes that are new.
    pub(super) taken: Vec<Arc<Route>>,
    /// Destinations whose secrets have changed into something that cannot be used.
    pub(super) refused: Vec<(Arc<str>, Error)>,
}

/// Destinations that keep old secrets because the new ones cannot be used.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    since: HashMap<Arc<str>, Wait>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    is_told: bool,
    start: Instant,
}

impl Builder {
    /// Reads every secret, and makes those routes of `old` anew whose secrets are not what they were.
    pub(super) fn rotate(
        &self,
        config: &Config,
        store: Option<&QuotaStore>,
        old: &Live,
        telemetry: &Telemetry,
    ) -> Rotation {
        let mut rotation = Rotation::default();
        let policy = &old.policy;
        let mut ends = Vec::with_capacity(old.routes.len());
        for (destination, route) in policy.destinations.iter().zip(&old.routes) {
            let end = self.end(destination, &policy.egress, Some(old), telemetry);
            ends.push(end.unwrap_or_else(|error| {
                rotation.refused.push((Arc::clone(&destination.name), error));
                End::of(route)
            }));
        }
        let has_changed = |route: &Route, end: &End| end.fingerprint != route.fingerprint;
        let is_any = (old.routes.iter().zip(&ends)).any(|(route, end)| has_changed(route, end));
        let doors = Doors {
            ends: &ends,
            parts: self,
            policy,
        };
        let mut routes = old.routes.clone();
        for (route, end) in routes.iter_mut().zip(&ends) {
            let has_changed = has_changed(route, end);
            // Its token may be asked for at a destination that has changed.
            let may_have_changed = has_changed || is_any && asks_for_tokens(&route.destination);
            if !may_have_changed {
                continue;
            }
            let sharing = self.sharing(&route.destination, config, store);
            match self.route(&route.destination, &doors, sharing, Some(old), telemetry) {
                Ok(new) => {
                    let cache = route.cache.clone();
                    *route = Arc::new(Route { cache, ..new });
                    rotation.taken.extend(has_changed.then(|| Arc::clone(route)));
                }
                Err(error) => (rotation.refused).push((Arc::clone(&route.destination.name), error)),
            }
        }
        if !rotation.taken.is_empty() {
            rotation.live = Some(Live {
                authority: Arc::clone(&old.authority),
                limits: old.limits.clone(),
                policy: Arc::clone(&old.policy),
                routes,
            });
        }
        rotation
    }
}

fn asks_for_tokens(destination: &Destination) -> bool {
    let mut credentials = destination.auth.iter().flat_map(|rule| &rule.credentials);
    credentials.any(|credential| matches!(credential.auth, Auth::OAuth2(_)))
}

impl Waiting {
    /// Whether some destination waits for secrets that can be used.
    pub(super) fn is_any(&self) -> bool {
        !self.since.is_empty()
    }

    /// Whether one has not waited for long: two files of a pair are seldom far apart.
    pub(super) fn is_short(&self, now: Instant) -> bool {
        (self.since.values()).any(|wait| now.duration_since(wait.start) < PATIENCE)
    }

    /// Takes in who is `refused` now, and gives back those that a person has to be told of: once, when it has lasted.
    pub(super) fn lasting(
        &mut self,
        refused: Vec<(Arc<str>, Error)>,
        now: Instant,
    ) -> Vec<(Arc<str>, Error)> {
        let old = std::mem::take(&mut self.since);
        let mut lasting = Vec::new();
        for (destination, error) in refused {
            let known = old.get(&destination).copied();
            let mut wait = known.unwrap_or(Wait {
                is_told: false,
                start: now,
            });
            if !wait.is_told && now.duration_since(wait.start) >= PATIENCE {
                wait.is_told = true;
                lasting.push((Arc::clone(&destination), error));
            }
            self.since.insert(destination, wait);
        }
        lasting
    }
}

/// Longer than any platform needs from the first file of a pair to the second.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_told_once_when_it_has_lasted() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let refused = |name: &str| (Arc::from(name), Error::System(std::io::ErrorKind::Other.into()));
        let mut waiting = Waiting::default();
        let mut told = |names: &[&str], seconds| {
            let refused = names.iter().map(|name| refused(name)).collect();
            let lasting = waiting.lasting(refused, at(seconds));
            let names: Vec<_> = lasting.iter().map(|(name, _)| name.to_string()).collect();
            (names.join(" "), waiting.is_any(), waiting.is_short(at(seconds)))
        };
        let is = |names: &str, is_any, is_short| (names.to_owned(), is_any, is_short);
        assert_eq!(told(&["a"], 0), is("", true, true));
        assert_eq!(told(&["a", "b"], 4), is("", true, true));
        assert_eq!(told(&["a", "b"], 5), is("a", true, true));
        assert_eq!(told(&["a", "b"], 9), is("b", true, false));
        assert_eq!(told(&["a", "b"], 100), is("", true, false));
        // It fitted in between: a new wait begins.
        assert_eq!(told(&["b"], 101), is("", true, false));
        assert_eq!(told(&["a"], 102), is("", true, true));
        assert_eq!(told(&[], 103), is("", false, false));
    }
}

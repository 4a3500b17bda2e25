//! What a destination asks and allows now, and asked and allowed before.

use std::collections::BTreeMap;

use super::reach::{HostChange, Reach, hosts};
use super::{Changes, Effect, Side, listed, told};
use crate::cli::explain::credential;
use crate::config::{Auth, ChangedKey};
use crate::policy::Destination;
use crate::units::Rate;

/// Compares the destinations of each host that is reachable in both files.
pub(super) fn compare(routes: &[HostChange<'_>], old: &Side, new: &Side, changes: &mut Changes) {
    let mut pairs: BTreeMap<(usize, usize), Vec<&HostChange<'_>>> = BTreeMap::new();
    for route in routes {
        match (&route.old, &route.new) {
            (Reach::Destination(old), Reach::Destination(new)) => {
                pairs.entry((old.index, new.index)).or_default().push(route);
            }
            // What held for unlisted hosts is the default of each key.
            (Reach::Default, Reach::Destination(new)) => {
                pairs.entry((0, new.index)).or_default().push(route);
            }
            (Reach::Default | Reach::Refused(_) | Reach::Destination(_), _) => {}
        }
    }
    for ((from, to), routes) in pairs {
        let (was, is) = (&old.policy.destinations[from], &new.policy.destinations[to]);
        let place = if was.name == is.name {
            format!("destinations.{}", is.name)
        } else {
            format!("{} ({} → {})", listed(hosts(&routes)), was.name, is.name)
        };
        let mut told = Told {
            place,
            changes: &mut *changes,
        };
        for key in old.written.changed_in(&was.written, &new.written, &is.written) {
            told.key(&key, was, is);
        }
        told.derived(was, is);
    }
}

/// Where sentences about one destination go.
struct Told<'c> {
    place: String,
    changes: &'c mut Changes,
}

impl Told<'_> {
    fn say(&mut self, effect: Effect, key: &ChangedKey, how: &str) {
        self.changes
            .add(effect, format!("{}.{}", self.place, told(key, how)));
    }

    /// Says what another value of a key means.
    fn key(&mut self, key: &ChangedKey, was: &Destination, is: &Destination) {
        let (effect, how) = match key.path.as_str() {
            // What is attached is told with the hosts that get it; what else differs is told here.
            "auth" if has_other_rights(was, is) => (
                Effect::Wider,
                "the same secret speaks for another user, or with other rights",
            ),
            "auth" => (Effect::Other, ""),
            "headers.remove" => removed(&was.headers.remove, &is.headers.remove),
            "headers.set" => (Effect::Other, "names are shown, values are not"),
            "tls.client_certificate" | "deny" | "mode" | "upgrade" => return,
            "paths" => allowed(was.paths.as_slice(), is.paths.as_slice()),
            "methods" => allowed(&was.methods, &is.methods),
            "rate_limit" => return self.rates(key, was, is),
            "concurrency" => ceiling(was.concurrency, is.concurrency),
            "insecure_attach_over_http" => switch(
                is.insecure_attach_over_http,
                "the credential may leave in clear",
                "the credential stays out of clear connections",
            ),
            "scrub" => switch(
                is.scrub != Some(true),
                "secrets in answers reach the app",
                "secrets are struck out of answers",
            ),
            "respect_upstream" if was.respect_upstream && !is.respect_upstream => (
                Effect::Wider,
                "the limits that the destination tells are not kept any more",
            ),
            "respect_upstream" | "limits_apply_to" => (Effect::Other, "limits that are learned"),
            "tls.ca" => (Effect::Wider, "other roots are trusted"),
            "tls.ca_extra" if is.tls.ca_extra.is_none() => (Effect::Narrower, "fewer roots are trusted"),
            "tls.ca_extra" => (Effect::Wider, "more roots are trusted"),
            "tls.server_name" => (Effect::Wider, "another name is verified"),
            "tls.pins" if was.tls.pins.is_empty() => (Effect::Narrower, "only these keys are trusted"),
            "tls.pins"
                if is.tls.pins.iter().all(|pin| was.tls.pins.contains(pin)) && !is.tls.pins.is_empty() =>
            {
                (Effect::Narrower, "fewer keys are trusted")
            }
            "tls.pins" => (Effect::Wider, "other keys are trusted"),
            "tls.crl" if was.tls.crl.iter().all(|list| is.tls.crl.contains(list)) => {
                (Effect::Narrower, "more certificates may be revoked")
            }
            "tls.crl" => (Effect::Wider, "revoked certificates may be trusted"),
            "tls.min_version" if (is.tls.min_version as u8) > (was.tls.min_version as u8) => {
                (Effect::Narrower, "older TLS is refused")
            }
            "tls.min_version" => (Effect::Wider, "older TLS is spoken"),
            "parent" => (Effect::Wider, "another way out"),
            _ => (Effect::Other, ""),
        };
        self.say(effect, key, how);
    }

    /// Says what follows from several keys: whether TLS is ended, and whether requests leave in clear.
    fn derived(&mut self, was: &Destination, is: &Destination) {
        let place = &self.place;
        match (was.intercept, is.intercept) {
            (false, true) => self.changes.add(
                Effect::Other,
                format!("{place}: TLS of the app is ended here now: outrider sees the requests, and the app its certificate"),
            ),
            (true, false) => self.changes.add(
                Effect::Wider,
                format!("{place}: TLS of the app is not ended any more: its requests are not seen, and no rule holds for them"),
            ),
            (true, true) | (false, false) => {}
        }
        match (was.upgrade, is.upgrade) {
            (true, false) => self.changes.add(
                Effect::Wider,
                format!("{place}: http:// leaves in clear, and no longer over TLS"),
            ),
            (false, true) => self.changes.add(
                Effect::Narrower,
                format!("{place}: http:// leaves over TLS, and no longer in clear"),
            ),
            (true, true) | (false, false) => {}
        }
    }

    /// Says which limits rise, fall, come and go; they are paired by the requests that they count, in order.
    fn rates(&mut self, key: &ChangedKey, was: &Destination, is: &Destination) {
        let by_requests = |destination: &Destination| {
            let mut rates: BTreeMap<String, Vec<Rate>> = BTreeMap::new();
            for limit in &destination.rate_limits {
                let requests: Vec<_> = limit.matcher.parts().collect();
                rates
                    .entry(requests.join(" "))
                    .or_default()
                    .push(limit.rate.clone());
            }
            rates
        };
        let (old, new) = (by_requests(was), by_requests(is));
        let effects = old.keys().chain(new.keys()).map(|requests| {
            let [old, new] = [&old, &new].map(|rates| rates.get(requests).map_or(&[][..], Vec::as_slice));
            limits(old, new)
        });
        match effects.min_by_key(|(effect, _)| *effect) {
            Some((effect, how)) => self.say(effect, key, how),
            None => self.say(Effect::Other, key, ""),
        }
    }
}

/// Whether a credential of before is used in another way: with another user name, more scopes or other claims. One that is
/// new is told with its hosts.
fn has_other_rights(was: &Destination, is: &Destination) -> bool {
    let all = |own: &'_ Destination| -> Vec<Auth> {
        let credentials = own.auth.iter().flat_map(|rule| &rule.credentials);
        credentials.map(|one| one.auth.clone()).collect()
    };
    let before = all(was);
    let is_known = |auth: &Auth| before.iter().any(|own| credential(own) == credential(auth));
    all(is)
        .iter()
        .any(|auth| !before.contains(auth) && is_known(auth))
}

/// Compares what is taken out of requests.
fn removed(old: &[String], new: &[String]) -> (Effect, &'static str) {
    if old.iter().all(|one| new.contains(one)) {
        (Effect::Narrower, "more is taken out of requests")
    } else {
        (Effect::Wider, "what was taken out of requests leaves now")
    }
}

/// Compares what is listed as allowed, where an empty list allows everything.
fn allowed<T: PartialEq>(old: &[T], new: &[T]) -> (Effect, &'static str) {
    if new.is_empty() {
        (Effect::Wider, "everything is allowed now")
    } else if old.is_empty() {
        (Effect::Narrower, "only these are allowed now")
    } else if new.iter().all(|one| old.contains(one)) {
        (Effect::Narrower, "fewer are allowed")
    } else {
        (Effect::Wider, "others are allowed")
    }
}

/// Compares two ceilings, where `None` is no ceiling.
pub(super) fn ceiling<N: PartialOrd>(old: Option<N>, new: Option<N>) -> (Effect, &'static str) {
    match (old, new) {
        (None, _) => (Effect::Narrower, "a limit that was not there"),
        (Some(_), None) => (Effect::Wider, "the limit vanishes"),
        (Some(old), Some(new)) if new > old => (Effect::Wider, "the limit rises"),
        (Some(_), Some(_)) => (Effect::Narrower, "the limit falls"),
    }
}

fn switch(is_wider: bool, wider: &'static str, narrower: &'static str) -> (Effect, &'static str) {
    if is_wider {
        (Effect::Wider, wider)
    } else {
        (Effect::Narrower, narrower)
    }
}

/// Compares the limits on the same requests. All of them hold, so that more of them let less through.
fn limits(old: &[Rate], new: &[Rate]) -> (Effect, &'static str) {
    // Whether `b` never lets through what `a` refuses.
    let is_within = |a: &Rate, b: &Rate| {
        let (sent, other) = (
            u64::from(b.count) * a.per.as_secs(),
            u64::from(a.count) * b.per.as_secs(),
        );
        sent <= other && b.burst <= a.burst
    };
    if old.iter().all(|old| new.iter().any(|new| is_within(old, new))) {
        (Effect::Narrower, "the limits are no higher")
    } else if new.is_empty() {
        (Effect::Wider, "the limit vanishes")
    } else if old.len() == 1 {
        (Effect::Wider, "the limit rises")
    } else {
        (Effect::Wider, "a limit rises or vanishes")
    }
}

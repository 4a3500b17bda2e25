//! From a compiled policy to everything that is alive about it.
//!
//! What is equal before and after a reload is kept as it is: limiter state by name and settings, upstream connections
//! by destination and by the very bytes of its secrets, circuits, budgets and rehearsals by name and settings.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::auth::{self, Credentials};
use crate::ca::Authority;
use crate::cache::ResponseCache;
use crate::config::{Ca, Config, HeaderText, SecretRef, Text};
use crate::limit::Limiters;
use crate::limit::shared::store_queue::Sharing;
use crate::policy::{Destination, Egress, Policy};
use crate::proxy::{Live, Rehearsal, RetryPolicy, Route};
use crate::secret::Sources;
use crate::secret::guard::caught;
use crate::secret::roots::SystemRoots;
use crate::store::{self, QuotaStore, StoreAddress};
use crate::telemetry::log::Chain;
use crate::telemetry::{CircuitState, Counters, CredentialKind, Telemetry};
use crate::units::unix_seconds;
use crate::upstream::breaker::Breaker;
use crate::upstream::resolve::Resolver;
use crate::upstream::{Endpoint, tls};

use super::Error;
use super::doors::Doors;

/// What a build needs and what outlives it.
#[derive(Debug)]
pub(crate) struct Builder {
    hasher: RandomState,
    pub(super) limits: Arc<Limiters>,
    own: Vec<SocketAddr>,
    pub(super) roots: SystemRoots,
    pub(super) resolver: Arc<Resolver>,
    pub(super) sources: Sources,
}

/// How a destination is reached.
#[derive(Clone)]
pub(super) struct End {
    pub(super) endpoint: Arc<Endpoint>,
    /// Of the destination's secrets.
    pub(super) fingerprint: u64,
}

impl End {
    pub(super) fn of(route: &Route) -> Self {
        Self {
            endpoint: Arc::clone(&route.endpoint),
            fingerprint: route.fingerprint,
        }
    }
}

impl Builder {
    /// `own`: our own listeners.
    pub(super) fn new(ca: &Ca, own: Vec<SocketAddr>, resolver: Arc<Resolver>) -> Self {
        let sources = Sources::of_process();
        let roots = SystemRoots::new(&sources, &ca.bundle);
        Self {
            hasher: RandomState::new(),
            limits: Arc::default(),
            own,
            resolver,
            roots,
            sources,
        }
    }

    /// The store that counts for all instances: `old` where it is the same. `None` where each counts alone.
    pub(super) fn store(
        &self,
        config: &Config,
        old: Option<&Arc<QuotaStore>>,
        telemetry: &Arc<Telemetry>,
    ) -> Result<Option<Arc<QuotaStore>>, Error> {
        let Some(written) = &config.rate_limit_store else {
            return Ok(None);
        };
        let address = StoreAddress::read(written, &self.sources).map_err(store::StartError::from)?;
        if let Some(old) = old.filter(|old| old.is_at(&address)) {
            return Ok(Some(Arc::clone(old)));
        }
        let (own, dns) = (self.own.clone(), &config.dns);
        let store = QuotaStore::start(address, own, dns, &self.sources, &self.roots, telemetry)?;
        Ok(Some(Arc::new(store)))
    }

    /// Brings a policy to life, keeping of `old` what is the same.
    pub(super) fn live(
        &self,
        policy: Policy,
        config: &Config,
        store: Option<&QuotaStore>,
        old: Option<&Live>,
        telemetry: &Telemetry,
    ) -> Result<Live, Error> {
        let policy = Policy {
            egress: Arc::new(Arc::unwrap_or_clone(policy.egress).with_own(self.own.clone())),
            ..policy
        };
        let hosts = policy.intercepted();
        let authority = match old {
            None => Arc::new(Authority::new(&hosts, config.ca.constraints, config.ca.lifetime)?),
            Some(old) => match old
                .authority
                .for_hosts(&hosts, config.ca.constraints, config.ca.lifetime)?
            {
                Some(new) => Arc::new(new),
                None => Arc::clone(&old.authority),
            },
        };
        telemetry
            .counters("none")
            .credential_expiry(CredentialKind::LocalCa, unix_seconds(authority.not_after()));
        let ends = (policy.destinations.iter())
            .map(|destination| {
                let end = self.end(destination, &policy.egress, old, telemetry);
                end.or_else(
                    |error| match old.and_then(|old| running(destination, &policy.egress, old)) {
                        // Half of a pair was replaced a moment ago: the other half is waited for after the reload.
                        Some(end) if error.is_mismatch() => Ok(end),
                        Some(_) | None => Err(error),
                    },
                )
            })
            .collect::<Result<Vec<_>, _>>()?;
        let has_same_egress = old.is_some_and(|old| old.policy.egress == policy.egress);
        let doors = Doors {
            ends: &ends,
            parts: self,
            policy: &policy,
        };
        let routes = (policy.destinations.iter())
            .map(|destination| {
                let sharing = self.sharing(destination, config, store);
                let mut route = self.route(destination, &doors, sharing, old, telemetry)?;
                route.cache = cache(destination, old.filter(|_| has_same_egress));
                Ok(Arc::new(route))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let is_there = |name: &str| policy.destinations.iter().any(|own| *own.name == *name);
        self.limits.retain(is_there);
        if let Some(networks) = config.egress.unnamed_classes() {
            tracing::warn!(
                networks,
                "denied although egress.deny_networks does not name them; to open one, add it to egress.allow_networks"
            );
        }
        // Each time: it must not be forgotten.
        for rehearsal in routes.iter().filter_map(|route| route.rehearsal.as_ref()) {
            rehearsal.announce();
        }
        Ok(Live {
            authority,
            limits: config.limits.clone(),
            policy: Arc::new(policy),
            routes,
        })
    }

    /// The files that the address of the store is read from.
    pub(super) fn store_files(&self, config: &Config) -> Vec<PathBuf> {
        match &config.rate_limit_store {
            Some(Text::Reference(reference)) => self.sources.files(reference),
            Some(Text::Plain(_)) | None => Vec::new(),
        }
    }

    /// The files that the secrets of a destination are read from.
    pub(super) fn files(&self, destination: &Destination) -> Vec<PathBuf> {
        (self.references(destination).iter())
            .flat_map(|reference| self.sources.files(reference))
            .collect()
    }

    /// With whom a destination shares its rates.
    pub(super) fn sharing(
        &self,
        destination: &Destination,
        config: &Config,
        store: Option<&QuotaStore>,
    ) -> Option<Sharing> {
        let written = (config.destinations.iter()).find(|written| *written.name == *destination.name);
        store?.sharing(written?, config.instances)
    }

    /// How a destination is reached: as before where nothing about that has changed.
    ///
    /// At the start a destination whose secrets cannot be used refuses its requests and the others work. A reload
    /// that would break a destination is refused as a whole.
    pub(super) fn end(
        &self,
        destination: &Arc<Destination>,
        egress: &Egress,
        old: Option<&Live>,
        telemetry: &Telemetry,
    ) -> Result<End, Error> {
        // Connections that wait were made under the rules of then: other rules, other connections.
        let has_same_egress = old.is_some_and(|old| *old.policy.egress == *egress);
        let before = old.map(|old| route_of(old, destination));
        let fingerprint = self.fingerprint(destination);
        let kept = before.flatten().filter(|route| {
            has_same_egress
                && route.fingerprint == fingerprint
                && route.destination.has_same_upstream(destination)
        });
        if let Some(route) = kept {
            let endpoint = Arc::clone(&route.endpoint);
            return Ok(End {
                endpoint,
                fingerprint,
            });
        }
        let counters = telemetry.counters(&destination.name);
        let build = || {
            let tls = caught(|| tls::Settings::build(destination, &self.sources, &self.roots));
            tls.unwrap_or(Err(tls::SettingsError::Panicked)).map_err(Arc::new)
        };
        let (fingerprint, tls) = settled(fingerprint, || self.fingerprint(destination), build);
        match tls {
            Err(source) if must_work(before, |route| route.endpoint.tls().is_ok()) => Err(Error::Tls {
                destination: Arc::clone(&destination.name),
                source,
            }),
            tls => {
                tell(&tls, destination, &counters);
                counters.forget_upstream_certificates();
                let endpoint = Arc::new(Endpoint::new(Arc::clone(destination), counters, tls));
                Ok(End {
                    endpoint,
                    fingerprint,
                })
            }
        }
    }

    /// What a request to a destination needs, its cache aside. What a reload must not break is as with [`end`](Self::end).
    pub(super) fn route(
        &self,
        destination: &Arc<Destination>,
        doors: &Doors<'_>,
        sharing: Option<Sharing>,
        old: Option<&Live>,
        telemetry: &Telemetry,
    ) -> Result<Route, Error> {
        let End {
            endpoint,
            fingerprint,
        } = doors.ends[destination.index].clone();
        let before = old.map(|old| route_of(old, destination));
        let old = before.flatten();
        let counters = telemetry.counters(&destination.name);
        // With the endpoint every byte of every secret is the same.
        let kept = old.filter(|route| {
            Arc::ptr_eq(&route.endpoint, &endpoint) && route.destination.auth == destination.auth
        });
        let credentials = caught(|| {
            Credentials::build(
                destination,
                &self.sources,
                &endpoint,
                |place| self.limits.of_member(destination, place, telemetry),
                |url| doors.to(url, destination, &counters),
                old.and_then(|route| route.credentials.as_ref().ok()),
                kept.and_then(|route| route.credentials.as_ref().ok()),
            )
        });
        let credentials = credentials.unwrap_or(Err(auth::Error::Panicked));
        let credentials = match credentials {
            Err(source) if must_work(before, |route| route.credentials.is_ok()) => {
                return Err(Error::Credentials {
                    destination: Arc::clone(&destination.name),
                    source,
                });
            }
            result => result.inspect_err(|error| {
                tracing::error!(
                    destination = %destination.name,
                    error = %Chain(error),
                    "no credential: requests to this destination are refused until this is mended",
                );
            }),
        };
        Ok(Route {
            breaker: breaker(destination, old, &counters),
            cache: None,
            credentials,
            endpoint,
            limiter: self.limits.of(destination, sharing, telemetry),
            rehearsal: rehearsal(destination, old, &counters),
            retry_policy: retry_policy(destination, old),
            destination: Arc::clone(destination),
            counters,
            fingerprint,
        })
    }

    /// Every secret that a destination is made with.
    fn references(&self, destination: &Destination) -> Vec<SecretRef> {
        let certificate = destination.tls.client_certificate.as_ref();
        let parts = certificate.map_or_else(Vec::new, |certificate| self.sources.parts(certificate));
        references(destination)
            .into_iter()
            .cloned()
            .chain(parts)
            .collect()
    }

    /// Differs whenever a byte of a secret of the destination does, or one can be read that could not be before.
    fn fingerprint(&self, destination: &Destination) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        for reference in self.references(destination) {
            reference.hash(&mut hasher);
            // Of whatever size and kind: what reads it knows its own limits.
            match self.sources.read_list(&reference) {
                Ok(secret) => secret.expose().hash(&mut hasher),
                Err(_) => hasher.write_u8(0),
            }
        }
        hasher.finish()
    }
}

/// Makes something of files, and again where they have changed meanwhile: half of a pair may have been read before its
/// renewal. Returns the fingerprint of what it was made from, or of what was there before it.
fn settled<T>(before: u64, now: impl Fn() -> u64, make: impl Fn() -> T) -> (u64, T) {
    let mut before = before;
    for _ in 0..MOST_READINGS {
        let made = make();
        let after = now();
        if after == before {
            return (before, made);
        }
        before = after;
    }
    // What changes all the while is looked at once more with the next look at the files.
    (before, make())
}

/// The running cache of a destination, where a request would still be answered as what it keeps was.
fn cache(destination: &Destination, old: Option<&Live>) -> Option<Arc<ResponseCache>> {
    let config = destination.cache.as_ref()?;
    let old = old.and_then(|old| route_of(old, destination));
    let kept = old.filter(|route| route.destination.has_same_answers(destination));
    let kept = kept.and_then(|route| route.cache.clone());
    Some(kept.unwrap_or_else(|| Arc::new(ResponseCache::new(config))))
}

/// The running circuit where its settings are as before, else a new one.
fn breaker(
    destination: &Destination,
    old: Option<&Arc<Route>>,
    counters: &Arc<Counters>,
) -> Option<Arc<Breaker>> {
    let running = old.and_then(|route| route.breaker.as_ref());
    let Some(settings) = destination.circuit_breaker else {
        if running.is_some() {
            // It may have been open when it was taken out.
            counters.circuit(CircuitState::Closed);
        }
        return None;
    };
    let new = || Breaker::new(settings, &destination.name, Arc::clone(counters));
    Some(kept(running, |running| *running.settings() == settings, new))
}

/// The running rehearsal where its settings are as before, else a new one.
fn rehearsal(
    destination: &Destination,
    old: Option<&Arc<Route>>,
    counters: &Arc<Counters>,
) -> Option<Arc<Rehearsal>> {
    let settings = destination.rehearse?;
    let running = old.and_then(|route| route.rehearsal.as_ref());
    let new = || Rehearsal::new(settings, &destination.name, Arc::clone(counters));
    Some(kept(running, |running| *running.settings() == settings, new))
}

/// The running budget of repeats where the settings are as before, else a new one.
fn retry_policy(destination: &Destination, old: Option<&Arc<Route>>) -> Option<Arc<RetryPolicy>> {
    let settings = destination.retry.as_ref()?;
    let running = old.and_then(|route| route.retry_policy.as_ref());
    let new = || RetryPolicy::new(settings.clone(), &destination.name);
    Some(kept(running, |running| running.settings() == settings, new))
}

/// What runs, where it is as it should be, else a new one.
fn kept<T>(running: Option<&Arc<T>>, is_same: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> Arc<T> {
    match running {
        Some(running) if is_same(running) => Arc::clone(running),
        Some(_) | None => Arc::new(new()),
    }
}

/// What a person should know about the TLS settings of a destination.
fn tell(
    tls: &Result<tls::Settings, Arc<tls::SettingsError>>,
    destination: &Destination,
    counters: &Counters,
) {
    match tls {
        Ok(settings) => {
            for warning in settings.warnings(SystemTime::now()) {
                tracing::warn!(destination = %destination.name, "{warning}");
            }
            let kind = CredentialKind::ClientCertificate;
            match settings.life() {
                Some(life) => counters.credential_expiry(kind, unix_seconds(life.not_after)),
                None => counters.credential_removed(kind),
            }
        }
        Err(error) => tracing::error!(
            destination = %destination.name,
            error = %Chain(error.as_ref()),
            "no TLS: requests to this destination are refused until this is mended",
        ),
    }
}

/// How a destination is reached now, if the configuration still says the same about that.
fn running(destination: &Destination, egress: &Egress, old: &Live) -> Option<End> {
    let route = route_of(old, destination)?;
    let is_same = *old.policy.egress == *egress && route.destination.has_same_upstream(destination);
    is_same.then(|| End::of(route))
}

/// A destination before a reload.
fn route_of<'l>(old: &'l Live, destination: &Destination) -> Option<&'l Arc<Route>> {
    old.routes
        .iter()
        .find(|route| route.destination.name == destination.name)
}

/// Whether a reload must not break what `works` looks at. `before`: the destination then, if there is a then.
fn must_work(before: Option<Option<&Arc<Route>>>, works: impl Fn(&Route) -> bool) -> bool {
    before.is_some_and(|route| route.is_none_or(|route| works(route)))
}

/// Every secret that a destination names, but for its client certificate's.
fn references(destination: &Destination) -> Vec<&SecretRef> {
    let credentials = destination.auth.iter().flat_map(|rule| &rule.credentials);
    let mut all: Vec<_> = credentials
        .flat_map(|credential| credential.auth.references())
        .map(|(_, reference)| reference)
        .collect();
    for (_, value) in &destination.headers.set {
        if let HeaderText::Reference(reference) = value {
            all.push(reference);
        }
    }
    let tls = &destination.tls;
    all.extend(tls.ca.iter().chain(&tls.ca_extra).chain(&tls.crl));
    all
}

/// Files that change more often than they can be read are not whole at any time.
const MOST_READINGS: usize = 3;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A certificate that is renewed between the two looks at it would count as renewed once more afterwards.
    #[test]
    fn what_changes_while_it_is_read_is_read_again() {
        for (changes, readings) in [(0, 1), (1, 2), (2, 3), (100, 4)] {
            let (there, made) = (Cell::new(0), Cell::new(0));
            let make = || {
                made.set(made.get() + 1);
                there.set((there.get() + 1).min(changes));
                there.get()
            };
            let (fingerprint, read) = settled(0, || there.get(), make);
            assert_eq!(made.get(), readings, "{changes} changes");
            assert_eq!(fingerprint == read, changes < 100, "{changes} changes");
        }
    }
}

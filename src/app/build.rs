//! From a compiled policy to everything that is alive about it.
//!
//! What is equal before and after a reload is kept as it is: limiter state by name and settings, upstream connections
//! by destination and by the very bytes of its secrets, circuits, budgets and rehearsals by name and settings.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::auth::Attachment;
use crate::ca::Authority;
use crate::cache::Cache;
use crate::config::{Auth, Ca, Config, HeaderText, SecretRef, Text};
use crate::limit::Limits;
use crate::limit::shared::board::Sharing;
use crate::policy::{Destination, Egress, Policy};
use crate::proxy::{Live, Rehearsal, Retrying, Route};
use crate::secret::Sources;
use crate::secret::roots::SystemRoots;
use crate::store::{self, Address, Store};
use crate::telemetry::log::Chain;
use crate::telemetry::{Circuit, Counters, CredentialKind, Telemetry};
use crate::upstream::breaker::Breaker;
use crate::upstream::{Endpoint, tls};

use super::Error;

/// What a build needs and what outlives it.
#[derive(Debug)]
pub(crate) struct Parts {
    hasher: RandomState,
    pub(super) limits: Limits,
    own: Vec<SocketAddr>,
    pub(super) roots: SystemRoots,
    sources: Sources,
}

impl Parts {
    /// `own`: our own listeners.
    pub(super) fn new(ca: &Ca, own: Vec<SocketAddr>) -> Self {
        let sources = Sources::of_process();
        let roots = SystemRoots::new(&sources, &ca.bundle);
        Self {
            hasher: RandomState::new(),
            limits: Limits::default(),
            own,
            roots,
            sources,
        }
    }

    /// Bound services may live in files, which are read once per build.
    pub(super) fn refresh(&mut self) {
        self.sources = Sources::of_process();
    }

    /// The store that counts for all instances: `old` where it is the same. `None` where each counts alone.
    pub(super) fn store(
        &self,
        config: &Config,
        old: Option<&Arc<Store>>,
        telemetry: &Arc<Telemetry>,
    ) -> Result<Option<Arc<Store>>, Error> {
        let Some(written) = &config.rate_limit_store else {
            return Ok(None);
        };
        let address = Address::read(written, &self.sources).map_err(store::StartError::from)?;
        if let Some(old) = old.filter(|old| old.is_at(&address)) {
            return Ok(Some(Arc::clone(old)));
        }
        let (own, dns) = (self.own.clone(), &config.dns);
        let store = Store::start(address, own, dns, &self.sources, &self.roots, telemetry)?;
        Ok(Some(Arc::new(store)))
    }

    /// Brings a policy to life, keeping of `old` what is the same.
    pub(super) fn live(
        &self,
        policy: Policy,
        config: &Config,
        store: Option<&Store>,
        old: Option<&Live>,
        telemetry: &Telemetry,
    ) -> Result<Live, Error> {
        let policy = Policy {
            egress: policy.egress.with_own(self.own.clone()),
            ..policy
        };
        let hosts = policy.intercepted();
        let authority = match old {
            None => Arc::new(Authority::new(&hosts, config.ca.lifetime)?),
            Some(old) => match old.authority.for_hosts(&hosts, config.ca.lifetime)? {
                Some(new) => Arc::new(new),
                None => Arc::clone(&old.authority),
            },
        };
        telemetry
            .counters("none")
            .credential_expiry(CredentialKind::LocalCa, unix_seconds(authority.not_after()));
        let routes = (policy.destinations.iter())
            .map(|destination| {
                let sharing = self.sharing(destination, config, store);
                self.route(destination, &policy.egress, sharing, old, telemetry)
                    .map(Arc::new)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let is_there = |name: &str| policy.destinations.iter().any(|own| *own.name == *name);
        self.limits.retain(is_there);
        // Each time: it must not be forgotten.
        for rehearsal in routes.iter().filter_map(|route| route.rehearsal.as_ref()) {
            rehearsal.announce();
        }
        Ok(Live {
            authority,
            limits: config.limits.clone(),
            policy,
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
    fn sharing(&self, destination: &Destination, config: &Config, store: Option<&Store>) -> Option<Sharing> {
        let written = (config.destinations.iter()).find(|written| *written.name == *destination.name);
        store?.sharing(written?, config.instances, &self.sources)
    }

    /// At the start a destination whose secrets cannot be used refuses its requests and the others work. A reload
    /// that would break a destination is refused as a whole.
    fn route(
        &self,
        destination: &Arc<Destination>,
        egress: &Egress,
        sharing: Option<Sharing>,
        old: Option<&Live>,
        telemetry: &Telemetry,
    ) -> Result<Route, Error> {
        // Connections that wait were made under the rules of then: other rules, other connections.
        let has_same_egress = old.is_some_and(|old| old.policy.egress == *egress);
        let old = old.map(|old| {
            old.routes
                .iter()
                .find(|route| route.destination.name == destination.name)
        });
        let must_work =
            |works: fn(&Route) -> bool| old.is_some_and(|route| route.is_none_or(|route| works(route)));
        let counters = telemetry.counters(&destination.name);
        let attachment = match Attachment::build(destination, &self.sources) {
            Err(source) if must_work(|route| route.attachment.is_ok()) => {
                return Err(Error::Attachment {
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
        let fingerprint = self.fingerprint(destination);
        let kept = old.flatten().filter(|route| {
            has_same_egress
                && route.fingerprint == fingerprint
                && route.destination.has_same_upstream(destination)
        });
        let endpoint = match kept {
            Some(route) => Arc::clone(&route.endpoint),
            None => {
                let tls = tls::Settings::build(destination, &self.sources, &self.roots).map_err(Arc::new);
                match tls {
                    Err(source) if must_work(|route| route.endpoint.tls().is_ok()) => {
                        return Err(Error::Tls {
                            destination: Arc::clone(&destination.name),
                            source,
                        });
                    }
                    tls => {
                        tell(&tls, destination, &counters);
                        Arc::new(Endpoint::new(Arc::clone(destination), Arc::clone(&counters), tls))
                    }
                }
            }
        };
        let old = old.flatten();
        Ok(Route {
            attachment,
            breaker: breaker(destination, old, &counters),
            cache: cache(destination, old.filter(|_| has_same_egress)),
            endpoint,
            limiter: self.limits.of(destination, sharing, telemetry),
            rehearsal: rehearsal(destination, old, &counters),
            retrying: retrying(destination, old, &counters),
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
            match self.sources.read_binary(&reference) {
                Ok(secret) => secret.expose().hash(&mut hasher),
                Err(_) => hasher.write_u8(0),
            }
        }
        hasher.finish()
    }
}

/// The running cache of a destination, where a request would still be answered as what it keeps was.
fn cache(destination: &Destination, old: Option<&Arc<Route>>) -> Option<Arc<Cache>> {
    let config = destination.cache.as_ref()?;
    let kept = old.filter(|route| route.destination.has_same_answers(destination));
    let kept = kept.and_then(|route| route.cache.clone());
    Some(kept.unwrap_or_else(|| Arc::new(Cache::new(config))))
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
            counters.circuit(Circuit::Closed);
        }
        return None;
    };
    let kept = running.filter(|running| *running.settings() == settings);
    let new = || Breaker::new(settings, &destination.name, Arc::clone(counters));
    Some(kept.map_or_else(|| Arc::new(new()), Arc::clone))
}

/// The running rehearsal where its settings are as before, else a new one.
fn rehearsal(
    destination: &Destination,
    old: Option<&Arc<Route>>,
    counters: &Arc<Counters>,
) -> Option<Arc<Rehearsal>> {
    let settings = destination.rehearse?;
    let kept = old
        .and_then(|route| route.rehearsal.as_ref())
        .filter(|running| *running.settings() == settings);
    let new = || Rehearsal::new(settings, &destination.name, Arc::clone(counters));
    Some(kept.map_or_else(|| Arc::new(new()), Arc::clone))
}

/// The running budget of repeats where the settings are as before, else a new one.
fn retrying(
    destination: &Destination,
    old: Option<&Arc<Route>>,
    counters: &Arc<Counters>,
) -> Option<Arc<Retrying>> {
    let settings = destination.retry.as_ref()?;
    let kept = old
        .and_then(|route| route.retrying.as_ref())
        .filter(|running| running.settings() == settings);
    let new = || Retrying::new(settings.clone(), &destination.name, Arc::clone(counters));
    Some(kept.map_or_else(|| Arc::new(new()), Arc::clone))
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
            if let Some(life) = settings.life() {
                counters.credential_expiry(CredentialKind::ClientCertificate, unix_seconds(life.not_after));
            }
        }
        Err(error) => tracing::error!(
            destination = %destination.name,
            error = %Chain(error.as_ref()),
            "no TLS: requests to this destination are refused until this is mended",
        ),
    }
}

/// A time before 1970 is as expired as one can be.
fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Every secret that a destination names, but for its client certificate's.
fn references(destination: &Destination) -> Vec<&SecretRef> {
    let mut all = Vec::new();
    match &destination.auth {
        Some(Auth::Basic { username, password }) => {
            if let Text::Reference(username) = username {
                all.push(username);
            }
            all.push(password);
        }
        Some(Auth::Bearer(value) | Auth::Header { value, .. } | Auth::Query { value, .. }) => all.push(value),
        None => {}
    }
    for (_, value) in &destination.headers.set {
        if let HeaderText::Reference(reference) = value {
            all.push(reference);
        }
    }
    let tls = &destination.tls;
    all.extend(tls.ca.iter().chain(&tls.ca_extra));
    all
}

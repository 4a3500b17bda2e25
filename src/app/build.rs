//! What every build needs and what outlives it: limiters, the system's roots, the resolver, our own addresses.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use crate::auth::placeholder::PlaceholderSet;
use crate::ca::Authority;
use crate::clients::CommandClient;
use crate::config::{Ca, Config, Tls};
use crate::limit::Limiters;
use crate::policy::{Destination, Policy};
use crate::secret::Snapshot;
use crate::secret::roots::SystemRoots;
use crate::store::{self, QuotaStore, StoreAddress};
use crate::telemetry::Telemetry;
use crate::upstream::resolve::Resolver;
use crate::upstream::tls;

use super::doors::DoorListeners;
use super::{Error, PlaceholderSource};

#[derive(Debug)]
pub(crate) struct Builder {
    /// Whom the listener serves beside those of the configuration.
    pub(super) command: CommandClient,
    /// Of the app's environment. Replaced by a reload that needs more of them.
    pub(super) placeholders: ArcSwapOption<PlaceholderSet>,
    pub(super) limits: Arc<Limiters>,
    /// The name of this process in requests to parents.
    pub(super) marker: Arc<str>,
    own: Vec<SocketAddr>,
    pub(super) roots: SystemRoots,
    pub(super) resolver: Arc<Resolver>,
    /// The TLS settings of destinations that say nothing about TLS.
    usual_tls: OnceLock<tls::Settings>,
}

impl Builder {
    /// `own`: our own listeners.
    pub(super) fn new(
        ca: &Ca,
        own: Vec<SocketAddr>,
        marker: Arc<str>,
        resolver: Arc<Resolver>,
        command: CommandClient,
    ) -> Self {
        Self {
            command,
            limits: Arc::default(),
            marker,
            placeholders: ArcSwapOption::empty(),
            own,
            resolver,
            roots: SystemRoots::new(&Snapshot::of_process(), &ca.bundle),
            usual_tls: OnceLock::new(),
        }
    }

    /// Makes the TLS settings of a destination. Those that say nothing about TLS share what does not change.
    pub(super) fn tls(
        &self,
        destination: &Destination,
        secrets: &Snapshot,
    ) -> Result<tls::Settings, tls::SettingsError> {
        if *destination.tls != Tls::default() {
            return tls::Settings::build(destination, secrets, &self.roots);
        }
        if let Some(usual) = self.usual_tls.get() {
            return Ok(usual.sibling());
        }
        let usual = tls::Settings::build(destination, secrets, &self.roots)?;
        Ok(self.usual_tls.get_or_init(|| usual).sibling())
    }

    /// Makes the placeholders that `config` needs and the app has not yet.
    pub(super) fn update_placeholders(
        &self,
        source: &PlaceholderSource,
        config: &Config,
        ca: &Ca,
        secrets: &Snapshot,
    ) {
        let before = self.placeholders.load_full();
        let new = source.placeholders(config, &ca.bundle, secrets, before);
        self.placeholders.store(new);
    }

    /// Returns the same policy, under which our own listeners are never dialled, nor the ports `of_tcp`.
    pub(super) fn guarded(&self, policy: Policy, of_tcp: &DoorListeners) -> Policy {
        let own = self.own.iter().copied().chain(of_tcp.own()).collect();
        let egress = Arc::unwrap_or_clone(policy.egress).with_own(own);
        Policy {
            egress: Arc::new(egress),
            ..policy
        }
    }

    /// Returns the store that counts for all instances: `old` where it is the same. `None` where each counts alone.
    pub(super) fn store(
        &self,
        config: &Config,
        secrets: &Snapshot,
        old: Option<&Arc<QuotaStore>>,
        telemetry: &Arc<Telemetry>,
    ) -> Result<Option<Arc<QuotaStore>>, Error> {
        let Some(written) = &config.rate_limit_store else {
            return Ok(None);
        };
        let address = StoreAddress::read(written, secrets).map_err(store::StartError::from)?;
        if let Some(old) = old.filter(|old| old.is_at(&address)) {
            return Ok(Some(Arc::clone(old)));
        }
        let (own, dns) = (self.own.clone(), &config.dns);
        let store = QuotaStore::start(address, own, dns, secrets, &self.roots, telemetry)?;
        Ok(Some(Arc::new(store)))
    }
}

/// Returns the files that the address of the store is read from.
pub(super) fn store_files(config: &Config, secrets: &Snapshot) -> Vec<PathBuf> {
    let written = config.rate_limit_store.iter();
    let references = written.flat_map(|written| store::references(written, secrets));
    references
        .flat_map(|reference| secrets.files(&reference))
        .collect()
}

/// Returns the authority for the hosts that are intercepted: `old` where it is for the same ones.
pub(super) fn authority(
    policy: &Policy,
    ca: &Ca,
    old: Option<&Arc<Authority>>,
) -> Result<Arc<Authority>, Error> {
    let hosts = policy.intercepted();
    let Some(old) = old else {
        return Ok(Arc::new(Authority::new(&hosts, ca.constraints, ca.lifetime)?));
    };
    let new = old.for_hosts(&hosts, ca.constraints, ca.lifetime)?;
    Ok(new.map_or_else(|| Arc::clone(old), Arc::new))
}

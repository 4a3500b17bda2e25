//! The store that counts one quota for all instances: a Redis server, a cluster of them, or the primary that
//! Sentinels watch.
//!
//! A limiter that wants permits says so on the [`StoreQueue`]. The [`router`] sends one call for each destination
//! to the [`node`] that keeps its keys, without waiting for the answers to earlier calls. A connection that fails
//! in any way, also one that is only slow, is given up and made anew after a pause. Until then every limiter keeps
//! to its share, so that no request fails, waits longer, or passes a limit because of the store.
//!
//! Why our own client: 147 kB of the program. Beside it, `redis` (1.8) makes the program 1.3 MB larger and an idle
//! process 1.1 MB, `fred` (10.1) 1.4 MB and 1.9 MB. `redis` also dials by itself: its Sentinel client takes neither
//! a stream nor a resolver from its caller, so the egress check could not see what it dials.
//!
//! What is asked and what an answer means is in `limit::shared`; here are the connections and the words for a
//! person.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::{DestinationKeys, Dns};
use crate::limit::shared::SCRIPT;
use crate::limit::shared::lease::FleetConfig;
use crate::limit::shared::store_queue::{Sharing, StoreQueue};
use crate::policy::EgressRules;
use crate::secret::Snapshot;
use crate::secret::roots::SystemRoots;
use crate::telemetry::{Telemetry, instance_index};
use crate::upstream::resolve::{self, Resolver};
use crate::upstream::tls;

pub(crate) use self::address::{Error as AddressError, StoreAddress, references};
use self::connector::Connector;
use self::health::StoreHealth;
use self::router::StoreRouter;

mod address;
mod connection;
mod connector;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod health;
mod names;
mod node;
mod resp;
mod router;
#[cfg(test)]
mod tests;
mod topology;

/// How long the end of the program waits until the store knows that this instance leaves.
const FAREWELL: Duration = Duration::from_millis(300);

/// Asks the store until it is dropped.
#[derive(Debug)]
pub(crate) struct QuotaStore {
    queue: Arc<StoreQueue>,
    /// `None`: the address of the store cannot be read, and the shares hold.
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    connector: Arc<Connector>,
    leave: mpsc::UnboundedSender<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// Why nothing can be asked of a store from the start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Address(#[from] AddressError),

    #[error("dns")]
    Dns(#[from] resolve::Error),

    #[error(transparent)]
    Tls(#[from] tls::SettingsError),
}

impl QuotaStore {
    /// Starts to ask the store at `address` for the limiters on a new queue. `own`: our own listeners. Must be
    /// called inside a tokio runtime.
    pub(crate) fn start(
        address: StoreAddress,
        own: Vec<SocketAddr>,
        dns: &Dns,
        snapshot: &Snapshot,
        roots: &SystemRoots,
        telemetry: &Arc<Telemetry>,
    ) -> Result<Self, StartError> {
        let tls = if address.is_tls() {
            Some(tls::Settings::of(&address.tls, snapshot, roots)?)
        } else {
            None
        };
        let connector = Arc::new(Connector {
            address,
            egress: EgressRules::of_operator().with_own(own),
            resolver: Resolver::new(dns, telemetry)?,
            tls,
        });
        let queue = Arc::new(StoreQueue::default());
        let health = StoreHealth::new(connector.address.to_string(), Arc::clone(telemetry));
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, SCRIPT.as_bytes());
        let hash = HEXLOWER.encode(hash.as_ref()).into();
        let router = StoreRouter::new(Arc::clone(&connector), Arc::clone(&queue), health, hash);
        let (leave, left) = mpsc::unbounded_channel();
        Ok(Self {
            queue,
            running: Some(Running {
                connector,
                leave,
                task: tokio::spawn(router.run(left)),
            }),
        })
    }

    /// Builds a store whose address cannot be read.
    pub(crate) fn unknown() -> Self {
        Self {
            queue: Arc::default(),
            running: None,
        }
    }

    /// Returns whether this is the store at `address`.
    pub(crate) fn is_at(&self, address: &StoreAddress) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| running.connector.address.is(address))
    }

    /// Returns how a destination shares its rates. `instances`: how many there are, as written.
    pub(crate) fn sharing(
        &self,
        destination: &DestinationKeys,
        instances: Option<NonZeroU32>,
    ) -> Option<Sharing> {
        if destination.rate_limits.is_empty() {
            return None;
        }
        let names = match &self.running {
            Some(_) => names::names(destination),
            None => Vec::new(),
        };
        Some(Sharing {
            queue: Arc::clone(&self.queue),
            fleet: FleetConfig {
                instances: instances.map(NonZeroU32::get),
                index: instance_index().and_then(|index| index.parse().ok()),
            },
            names: names.into(),
        })
    }

    /// Lets the store know that this instance leaves, so that the others need not find out. May fail, and is brief.
    pub(crate) async fn leave(&self) {
        let Some(running) = &self.running else {
            return;
        };
        let (done, wait) = oneshot::channel();
        let is_running = running.leave.send(done).is_ok();
        if !is_running || !matches!(timeout(FAREWELL, wait).await, Ok(Ok(()))) {
            tracing::debug!("the quota store does not know that this instance leaves");
        }
    }
}

impl Drop for QuotaStore {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.task.abort();
        }
    }
}

/// Returns the key of those who share a limit.
fn members_key(name: &str) -> String {
    format!("{name}:members")
}

//! Resolves names to addresses: from the configured hosts, else the cache, else the name servers.
//!
//! A name is looked up exactly as the policy has checked it, never with a search domain. `localhost` is the loopback,
//! without a query. Answers are cached for their time to live, within the configured bounds; when the name servers fail, an
//! expired answer is used a while longer. A worker sends one query for a name, even if many requests wait for it, and does
//! not depend on another worker's runtime.
//!
//! The cache is in [`cache`], queries are in [`servers`]. Whether an address may be dialled is decided in `policy`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dashmap::DashMap;
use tokio::runtime;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::config::Dns;
use crate::host::Host;
use crate::sync::lock;
use crate::telemetry::Telemetry;

use self::cache::DnsCache;
pub(crate) use self::error::Error;
use self::servers::Servers;

mod cache;
mod error;
mod servers;
#[cfg(test)]
mod tests;

const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Returns the addresses of a name that means this machine wherever it is used (RFC 6761, section 6.3).
pub(crate) fn local(name: &str) -> Option<[IpAddr; 2]> {
    is_local(name.strip_suffix('.').unwrap_or(name)).then_some(LOOPBACK)
}

fn is_local(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// How long to wait for the servers if there is an expired answer (RFC 8767, section 5).
const STALE_PATIENCE: Duration = Duration::from_millis(1800);

/// Resolves names for all workers; answers are cached within the configured bounds.
#[derive(Debug)]
pub(crate) struct Resolver {
    cache: DnsCache,
    hosts: HashMap<Box<str>, Arc<[IpAddr]>>,
    /// Empty: the system's servers.
    servers: Vec<SocketAddr>,
    system: SystemFiles,
    telemetry: Arc<Telemetry>,
    timeout: Duration,
    /// By runtime, because hickory's background tasks live on the runtime that made the first query.
    workers: DashMap<runtime::Id, Arc<WorkerResolver>>,
}

type DnsAnswer = Result<Arc<[IpAddr]>, Error>;

/// The files that say how the system resolves names.
#[derive(Debug)]
struct SystemFiles {
    hosts: PathBuf,
    resolv_conf: PathBuf,
}

/// The resolver state of one worker, made at its first query.
#[derive(Debug)]
struct WorkerResolver {
    queries: Mutex<Queries>,
    servers: Servers,
}

/// The names for which a query is under way.
type Queries = HashMap<Box<str>, Arc<OnceCell<DnsAnswer>>>;

/// One request's part in a query. The last one to be dropped removes the query.
struct QueryGuard<'w> {
    query: Arc<OnceCell<DnsAnswer>>,
    name: &'w str,
    worker: &'w WorkerResolver,
}

impl Resolver {
    /// Makes a resolver; fails if a name in `dns.hosts` has no address.
    pub(crate) fn new(dns: &Dns, telemetry: &Arc<Telemetry>) -> Result<Self, Error> {
        let system = SystemFiles {
            hosts: "/etc/hosts".into(),
            resolv_conf: "/etc/resolv.conf".into(),
        };
        Self::with(dns, telemetry, system)
    }

    fn with(dns: &Dns, telemetry: &Arc<Telemetry>, system: SystemFiles) -> Result<Self, Error> {
        let normal = |name: &str| {
            name.strip_suffix('.')
                .unwrap_or(name)
                .to_ascii_lowercase()
                .into_boxed_str()
        };
        if let Some((name, _)) = dns.hosts.iter().find(|(_, addresses)| addresses.is_empty()) {
            return Err(Error::Host {
                name: (**name).into(),
            });
        }
        Ok(Self {
            cache: DnsCache::new(dns.min_ttl, dns.max_ttl, dns.stale),
            hosts: dns
                .hosts
                .iter()
                .map(|(name, addresses)| (normal(name), addresses.as_slice().into()))
                .collect(),
            servers: dns.servers.clone(),
            system,
            telemetry: Arc::clone(telemetry),
            timeout: dns.timeout,
            workers: DashMap::new(),
        })
    }

    /// Returns the addresses of a name that are known without a query: of `dns.hosts`, and of `localhost`.
    pub(crate) fn fixed(&self, name: &str) -> Option<Arc<[IpAddr]>> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if let Some(addresses) = self.hosts.get(name) {
            return Some(Arc::clone(addresses));
        }
        is_local(name).then(|| Arc::new(LOOPBACK) as _)
    }

    /// Returns the addresses of `host`: itself where it is one. Never an empty list.
    pub(crate) async fn addresses(&self, host: &Host) -> DnsAnswer {
        match host {
            Host::Name(name) => self.resolve(name).await,
            Host::V4(address) => Ok([IpAddr::from(*address)].into()),
            Host::V6(address) => Ok([IpAddr::from(*address)].into()),
        }
    }

    /// Returns the addresses of `name` (lower case, taken as absolute), IPv4 first. Never an empty list.
    ///
    /// Answers or fails within `dns.timeout`.
    pub(crate) async fn resolve(&self, name: &str) -> DnsAnswer {
        let name = name.strip_suffix('.').unwrap_or(name);
        if let Some(addresses) = self.fixed(name) {
            return Ok(addresses);
        }
        let now = Instant::now();
        if let Some(answer) = self.cache.fresh(name, now) {
            return answer;
        }
        let deadline = now + self.timeout;
        let worker = self.worker();
        let seat = worker.join(name);
        // If the request that queries is dropped, the next one takes over, with the time that it has left.
        seat.query
            .get_or_init(|| self.look_up(name, &worker.servers, deadline))
            .await
            .clone()
    }

    async fn look_up(&self, name: &str, servers: &Servers, deadline: Instant) -> DnsAnswer {
        let started = Instant::now();
        if self.servers.is_empty() {
            let listed = self.system.hosts(name);
            if !listed.is_empty() {
                return Ok(self.cache.keep(name, listed, Duration::ZERO, started));
            }
        }
        let stale = self.cache.stale(name, started);
        let patience = stale
            .as_ref()
            .map_or(deadline, |_| deadline.min(started + STALE_PATIENCE));
        let found = servers.look_up(name, patience).await;
        let now = Instant::now();
        self.telemetry.dns_lookup(
            found.as_ref().map_or_else(Error::proxy_status, |_| "ok"),
            now - started,
        );
        match (found, stale) {
            (Ok(found), _) => Ok(self.cache.keep(name, found.addresses, found.ttl, now)),
            (Err(error), Some(addresses)) if !error.is_final() => {
                tracing::warn!(name, %error, "the name servers fail; their last answer serves on");
                self.cache.prolong(name, now);
                Ok(addresses)
            }
            (Err(error), _) => {
                self.cache.keep_failure(name, error.clone(), now);
                Err(error)
            }
        }
    }

    fn worker(&self) -> Arc<WorkerResolver> {
        let id = runtime::Handle::current().id();
        if let Some(worker) = self.workers.get(&id) {
            return Arc::clone(&worker);
        }
        let servers = if self.servers.is_empty() {
            Servers::of_system(&self.system.servers(), &self.system.resolv_conf, self.timeout)
        } else {
            Servers::new(&self.servers, self.timeout)
        };
        let worker = Arc::new(WorkerResolver {
            queries: Mutex::default(),
            servers,
        });
        self.workers.insert(id, Arc::clone(&worker));
        worker
    }
}

impl SystemFiles {
    /// Returns the addresses of `name` in the hosts file. It is read each time, because platforms write it late; a file that
    /// cannot be read counts as empty.
    fn hosts(&self, name: &str) -> Vec<IpAddr> {
        let text = read(&self.hosts).unwrap_or_default();
        let mut addresses: Vec<IpAddr> = (text.lines().map(words))
            .filter_map(|mut words| {
                let address = words.next()?.parse().ok()?;
                let named = |word: &str| word.strip_suffix('.').unwrap_or(word).eq_ignore_ascii_case(name);
                words.any(named).then_some(address)
            })
            .collect();
        addresses.sort_by_key(IpAddr::is_ipv6);
        addresses.dedup();
        addresses
    }

    /// Returns the name servers of `resolv.conf`; an empty list if it is missing or has no servers.
    fn servers(&self) -> Vec<SocketAddr> {
        let text = read(&self.resolv_conf).unwrap_or_else(|error| {
            tracing::warn!(file = %self.resolv_conf.display(), %error, "the system's name servers are not known");
            String::new()
        });
        (text.lines().map(words))
            .filter_map(|mut words| {
                (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
            })
            .map(|address: IpAddr| SocketAddr::new(address, 53))
            .collect()
    }
}

impl WorkerResolver {
    fn join<'w>(&'w self, name: &'w str) -> QueryGuard<'w> {
        let mut queries = self.queries();
        let query = match queries.get(name) {
            Some(query) => Arc::clone(query),
            None => Arc::clone(queries.entry(name.into()).or_default()),
        };
        QueryGuard {
            query,
            name,
            worker: self,
        }
    }

    fn queries(&self) -> MutexGuard<'_, Queries> {
        lock(&self.queries)
    }
}

impl Drop for QueryGuard<'_> {
    fn drop(&mut self) {
        let mut queries = self.worker.queries();
        let ours = queries
            .get(self.name)
            .is_some_and(|query| Arc::ptr_eq(query, &self.query));
        // Later requests find the answer in the cache. Two references: the map and this guard.
        if ours && (self.query.initialized() || Arc::strong_count(&self.query) <= 2) {
            queries.remove(self.name);
        }
    }
}

/// Reads a text file, in any encoding.
fn read(path: &Path) -> io::Result<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Splits a line into words, without its comment.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(['#', ';'])
        .next()
        .unwrap_or(line)
        .split_ascii_whitespace()
}

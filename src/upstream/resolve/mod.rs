//! Names to addresses: configured hosts first, then the cache, then the name servers.
//!
//! A name is tried as it stands, never with a search domain, so that what the policy judged is what is looked up.
//! `localhost` is the loopback without asking. Answers are cached for their time to live within the configured
//! bounds; when the name servers fail, an answer that has run out serves a while longer. Each worker asks for a name
//! once, however many requests wait for it, and depends on no other worker's runtime.
//!
//! The cache is in [`cache`], asking is in [`servers`]. Whether an address may be dialled is decided in `policy`.

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

/// Resolves names for all workers; answers are cached within the configured bounds.
#[derive(Debug)]
pub(crate) struct Resolver {
    cache: DnsCache,
    hosts: HashMap<Box<str>, Arc<[IpAddr]>>,
    /// Empty: the system's.
    servers: Vec<SocketAddr>,
    system: SystemFiles,
    telemetry: Arc<Telemetry>,
    timeout: Duration,
    /// By runtime, because hickory's background tasks live on the runtime that asked first.
    workers: DashMap<runtime::Id, Arc<WorkerResolver>>,
}

type DnsAnswer = Result<Arc<[IpAddr]>, Error>;

/// The files in which a system says how it resolves.
#[derive(Debug)]
struct SystemFiles {
    hosts: PathBuf,
    resolv_conf: PathBuf,
}

/// What one worker has of its own. Made when it first asks.
#[derive(Debug)]
struct WorkerResolver {
    flights: Mutex<Flights>,
    servers: Servers,
}

/// Names that are being asked for.
type Flights = HashMap<Box<str>, Arc<OnceCell<DnsAnswer>>>;

/// One request's part in a flight; the last one to go clears it away.
struct FlightGuard<'w> {
    flight: Arc<OnceCell<DnsAnswer>>,
    name: &'w str,
    worker: &'w WorkerResolver,
}

impl Resolver {
    /// Refuses a name of `dns.hosts` that has no address.
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

    /// The addresses of `name` (lower case), tried as absolute; IPv4 first. Never an empty list.
    ///
    /// Answers or fails within `dns.timeout`.
    pub(crate) async fn resolve(&self, name: &str) -> DnsAnswer {
        let name = name.strip_suffix('.').unwrap_or(name);
        if let Some(addresses) = self.hosts.get(name) {
            return Ok(Arc::clone(addresses));
        }
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(Arc::new(LOOPBACK));
        }
        let now = Instant::now();
        if let Some(answer) = self.cache.fresh(name, now) {
            return answer;
        }
        let deadline = now + self.timeout;
        let worker = self.worker();
        let seat = worker.join(name);
        // When the one who asks goes away, the next takes over, with the rest of its own time.
        seat.flight
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
            flights: Mutex::default(),
            servers,
        });
        self.workers.insert(id, Arc::clone(&worker));
        worker
    }
}

impl SystemFiles {
    /// What the hosts file says about `name`. Read at each look-up, because platforms write it late; an unreadable
    /// file says nothing.
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

    /// The name servers of `resolv.conf`; none where it is missing or names none.
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
    fn join<'w>(&'w self, name: &'w str) -> FlightGuard<'w> {
        let mut flights = self.flights();
        let flight = match flights.get(name) {
            Some(flight) => Arc::clone(flight),
            None => Arc::clone(flights.entry(name.into()).or_default()),
        };
        FlightGuard {
            flight,
            name,
            worker: self,
        }
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        lock(&self.flights)
    }
}

impl Drop for FlightGuard<'_> {
    fn drop(&mut self) {
        let mut flights = self.worker.flights();
        let ours = flights
            .get(self.name)
            .is_some_and(|flight| Arc::ptr_eq(flight, &self.flight));
        // Who comes after the landing finds the answer in the cache. Two: the map and this seat.
        if ours && (self.flight.initialized() || Arc::strong_count(&self.flight) <= 2) {
            flights.remove(self.name);
        }
    }
}

/// A text file, however it is encoded.
fn read(path: &Path) -> io::Result<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The words of a line, without its comment.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(['#', ';'])
        .next()
        .unwrap_or(line)
        .split_ascii_whitespace()
}

const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// How long to wait for the servers where an answer that has run out could serve (RFC 8767, section 5).
const STALE_PATIENCE: Duration = Duration::from_millis(1800);

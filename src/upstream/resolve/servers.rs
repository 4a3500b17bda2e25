//! Queries name servers: one after the other, for A and AAAA at once, within a time limit.
//!
//! The order of the servers matters, because the first may know names that the others do not. The server that answered
//! last is asked first; only silence or a failure leads to the next one, never "no such name". The protocol is hickory's,
//! with one client for each server.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::time::{Instant, timeout, timeout_at};

use super::Error;

/// How long the other kind of address is waited for. Some servers never answer for AAAA.
const GRACE: Duration = Duration::from_millis(200);

/// How long a server may be silent before the next is asked.
const TURN: Duration = Duration::from_secs(1);

/// The name servers of one worker. Their background tasks run on its runtime.
#[derive(Debug)]
pub(super) struct Servers {
    clients: Vec<TokioResolver>,
    /// The server that answered last.
    current: AtomicUsize,
    /// As errors name them.
    names: Arc<str>,
    timeout: Duration,
}

/// Addresses, and how long they are valid.
#[derive(Debug)]
pub(super) struct FoundAddresses {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ttl: Duration,
}

impl Servers {
    pub(super) fn new(servers: &[SocketAddr], timeout: Duration) -> Self {
        let names: Vec<_> = servers.iter().map(ToString::to_string).collect();
        Self::named(servers, &names.join(", "), timeout)
    }

    /// Uses the system's servers. If its file names no server, this machine is asked, as the C library does, and errors say so.
    pub(super) fn of_system(servers: &[SocketAddr], file: &Path, timeout: Duration) -> Self {
        if !servers.is_empty() {
            return Self::new(servers, timeout);
        }
        let names = format!("127.0.0.1:53, because {} names none", file.display());
        Self::named(&[SocketAddr::from(([127, 0, 0, 1], 53))], &names, timeout)
    }

    fn named(servers: &[SocketAddr], names: &str, timeout: Duration) -> Self {
        Self {
            clients: servers
                .iter()
                .filter_map(|server| client(*server, timeout))
                .collect(),
            current: AtomicUsize::new(0),
            names: names.into(),
            timeout,
        }
    }

    /// Asks until one answers, at most until `deadline`.
    pub(super) async fn look_up(&self, name: &str, deadline: Instant) -> Result<FoundAddresses, Error> {
        let Ok(mut absolute) = Name::from_ascii(name) else {
            return Err(Error::Name { name: name.into() });
        };
        absolute.set_fqdn(true);
        let count = self.clients.len();
        let first = self.current.load(Ordering::Relaxed);
        let mut failure = None;
        for step in 0..count {
            let index = (first + step) % count;
            let now = Instant::now();
            let left = deadline.saturating_duration_since(now);
            let others = u32::try_from(count - step - 1).unwrap_or(u32::MAX);
            let share = if others == 0 {
                left
            } else {
                TURN.min(left / others.saturating_add(1))
            };
            match timeout(share, self.ask(&self.clients[index], &absolute, name)).await {
                Ok(Err(error)) if !error.is_final() => failure = failure.or(Some(error)),
                Ok(answer) => {
                    self.current.store(index, Ordering::Relaxed);
                    return answer;
                }
                Err(_) => {}
            }
        }
        Err(failure.unwrap_or_else(|| self.timed_out(name)))
    }

    /// Asks one server for both kinds of address. When one kind has come, the other is waited for only a moment.
    async fn ask(
        &self,
        client: &TokioResolver,
        absolute: &Name,
        name: &str,
    ) -> Result<FoundAddresses, Error> {
        let mut v4 = pin!(self.query(client, absolute, name, RecordType::A));
        let mut v6 = pin!(self.query(client, absolute, name, RecordType::AAAA));
        let (v4, v6) = tokio::select! {
            first = &mut v4 => { let other = self.second(&first, v6, name).await; (first, other) }
            first = &mut v6 => (self.second(&first, v4, name).await, first),
        };
        match (v4, v6) {
            (Ok(v4), Ok(v6)) => {
                let addresses = [v4.addresses, v6.addresses].concat();
                Ok(FoundAddresses {
                    addresses,
                    ttl: v4.ttl.min(v6.ttl),
                })
            }
            // The kind that failed is asked for again soon.
            (Ok(found), Err(error)) | (Err(error), Ok(found)) if !error.is_final() => Ok(FoundAddresses {
                ttl: Duration::ZERO,
                ..found
            }),
            (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
            // A certain answer holds for both kinds, except "no such record".
            (Err(Error::Empty { .. }), Err(error)) | (Err(error), Err(Error::Empty { .. })) => Err(error),
            (Err(error), Err(other)) => Err(if other.is_final() { other } else { error }),
        }
    }

    async fn second(
        &self,
        first: &Result<FoundAddresses, Error>,
        other: impl Future<Output = Result<FoundAddresses, Error>>,
        name: &str,
    ) -> Result<FoundAddresses, Error> {
        match first {
            Ok(_) => timeout_at(Instant::now() + GRACE, other)
                .await
                .unwrap_or_else(|_| Err(self.timed_out(name))),
            Err(_) => other.await,
        }
    }

    async fn query(
        &self,
        client: &TokioResolver,
        absolute: &Name,
        name: &str,
        kind: RecordType,
    ) -> Result<FoundAddresses, Error> {
        let lookup = client
            .lookup(absolute.clone(), kind)
            .await
            .map_err(|error| self.failed(&error, name))?;
        let mut found = FoundAddresses {
            addresses: Vec::new(),
            ttl: Duration::MAX,
        };
        for record in lookup.answers() {
            found.ttl = found.ttl.min(Duration::from_secs(record.ttl.into()));
            found
                .addresses
                .extend(record.data.ip_addr().filter(|_| record.record_type() == kind));
        }
        if found.addresses.is_empty() {
            Err(Error::Empty { name: name.into() })
        } else {
            Ok(found)
        }
    }

    fn failed(&self, error: &NetError, name: &str) -> Error {
        let servers = || Arc::clone(&self.names);
        let of_code = |code| match code {
            ResponseCode::NXDomain => Error::NotFound { name: name.into() },
            ResponseCode::NoError => Error::Empty { name: name.into() },
            code => Error::Failed {
                name: name.into(),
                servers: servers(),
                rcode: mnemonic(code),
            },
        };
        match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => of_code(none.response_code),
            NetError::Dns(DnsError::ResponseCode(code)) => of_code(*code),
            NetError::Timeout => self.timed_out(name),
            NetError::Busy | NetError::Io(_) | NetError::NoConnections => {
                Error::Unreachable { servers: servers() }
            }
            _ => Error::Garbled {
                name: name.into(),
                servers: servers(),
            },
        }
    }

    fn timed_out(&self, name: &str) -> Error {
        Error::Timeout {
            name: name.into(),
            servers: Arc::clone(&self.names),
            limit: self.timeout,
        }
    }
}

/// A client of one server, over UDP, and TCP where an answer is too long. It neither caches nor reads files.
fn client(server: SocketAddr, timeout: Duration) -> Option<TokioResolver> {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let config =
        ResolverConfig::from_name_servers(vec![NameServerConfig::new(server.ip(), true, connections.into())]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options: &mut ResolverOpts = builder.options_mut();
    options.attempts = 0;
    options.cache_size = 0;
    // Old servers and middleboxes fail on it, and addresses fit without it.
    options.edns0 = false;
    options.timeout = timeout;
    options.use_hosts_file = ResolveHosts::Never;
    builder
        .build()
        .inspect_err(|error| tracing::error!(%server, %error, "no client for this name server"))
        .ok()
}

fn mnemonic(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::ServFail => "SERVFAIL",
        other => other.to_str(),
    }
}

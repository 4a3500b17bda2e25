//! How a server is reached (resolve, approve, dial, TLS, log in), and how the servers are found.
//!
//! Whatever names a server, the configuration, a Sentinel or a cluster: it goes through [`Connector::stream`], so
//! that nothing is dialled which the egress check has not approved.

use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::address::{StoreAddress, StoreKind};
use super::connection::{RedisConnection, RedisStream};
use super::error::Error;
use super::resp::{ProtocolError, RedisReply};
use super::topology::{self, Topology};
use crate::host::Target;
use crate::policy::{Approved, EgressRules};
use crate::upstream::resolve::Resolver;
use crate::upstream::{dial, tls};

/// How long each step may take: the connection, the handshake, the login.
const LIMIT: Duration = Duration::from_secs(2);

/// How long one server may take to say where the others are.
const QUESTION: Duration = Duration::from_secs(1);

/// What it takes to reach the servers of the store.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) address: StoreAddress,
    pub(super) egress: EgressRules,
    pub(super) resolver: Resolver,
    /// `None`: without TLS.
    pub(super) tls: Option<tls::Settings>,
}

impl Connector {
    /// Opens a connection to a server that keeps data.
    pub(super) async fn open<T>(&self, node: &Target) -> Result<RedisConnection<T>, Error> {
        let opened = self.log_in(node).await;
        opened.map_err(|error| self.explain(error, node))
    }

    async fn log_in<T>(&self, node: &Target) -> Result<RedisConnection<T>, Error> {
        let mut connection = self.stream(node).await?;
        let StoreAddress { user, password, .. } = &self.address;
        let user = user.as_ref().map(String::as_bytes);
        let password = password.as_ref().map(|password| password.expose());
        let database = self.address.database.to_string();
        authenticate(&mut connection, user, password);
        // Also for the first database: the answer shows that we are let in.
        connection.command(&[b"SELECT", database.as_bytes()], ());
        in_time(LIMIT, connection.finish(Error::refused)).await?;
        Ok(connection.logged_in())
    }

    /// Finds the servers that keep the keys. `known`: servers of the cluster that were found before. `attempt`
    /// chooses who is asked first, so that one server with an old view does not decide for ever.
    pub(super) async fn locate(
        &self,
        kind: &StoreKind,
        known: &[Target],
        attempt: usize,
    ) -> Result<Topology, Error> {
        let written = &self.address.nodes;
        match kind {
            StoreKind::Server => Ok(Topology::of_one(self.address.first().clone())),
            StoreKind::Cluster => {
                let candidates: Vec<_> = known.iter().chain(written).collect();
                first_answer(&candidates, attempt, |node| self.slots(node)).await
            }
            StoreKind::Sentinel { primary } => {
                let sentinels: Vec<_> = written.iter().collect();
                let ask = |sentinel| self.primary(sentinel, primary);
                first_answer(&sentinels, attempt, ask).await.map(Topology::of_one)
            }
        }
    }

    /// Asks a server of a cluster for the map of all slots.
    async fn slots(&self, node: &Target) -> Result<Topology, Error> {
        let mut connection = self.open(node).await?;
        connection.command(&[b"CLUSTER", b"SLOTS"], ());
        match connection.finish(Error::refused).await {
            Ok(reply) => match Topology::read(&reply, node)? {
                // A server that has just joined, or has forgotten the cluster.
                topology if topology.nodes().is_empty() => Err(Error::NoSlot),
                topology => Ok(topology),
            },
            Err(Error::Refused { kind, .. }) if kind == "ERR" => Err(Error::NoCluster {
                place: node.to_string(),
            }),
            Err(error) => Err(error),
        }
    }

    /// Asks a Sentinel for the primary that it watches under `name`.
    async fn primary(&self, sentinel: &Target, name: &str) -> Result<Target, Error> {
        let found = self.ask_sentinel(sentinel, name).await;
        found.map_err(|error| self.explain(error, sentinel))
    }

    async fn ask_sentinel(&self, sentinel: &Target, name: &str) -> Result<Target, Error> {
        let mut connection = self.stream(sentinel).await?;
        let password = self.address.sentinel_password.as_ref();
        authenticate(&mut connection, None, password.map(|password| password.expose()));
        connection.command(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name.as_bytes()], ());
        let refused = |text: &str| Error::refused_by_sentinel(text, sentinel.to_string());
        let reply = match connection.finish(refused).await? {
            RedisReply::List(reply) => reply,
            RedisReply::Nil => {
                return Err(Error::NoPrimary {
                    name: name.to_owned(),
                });
            }
            RedisReply::Error(_) | RedisReply::Integer(_) | RedisReply::Text(_) => {
                return Err(ProtocolError.into());
            }
        };
        let [host, port] = reply.as_slice() else {
            return Err(ProtocolError.into());
        };
        let port = port.text().and_then(|port| port.parse().ok());
        topology::node(host.text(), port.ok_or(ProtocolError)?, sentinel)
    }

    /// Explains an error of a new connection. In TLS 1.3 a server refuses our certificate only after the handshake.
    fn explain(&self, error: Error, node: &Target) -> Error {
        let of_tls = match (&self.tls, &error) {
            (Some(settings), Error::Io(error)) => settings.explain(error, &node.host),
            (Some(_) | None, _) => None,
        };
        of_tls.map_or(error, Error::from)
    }

    /// Connects to a server; the next thing to say is the password.
    async fn stream(&self, node: &Target) -> Result<RedisConnection<()>, Error> {
        let stream = dial::dial(&self.approve(node).await?, LIMIT).await?;
        let (stream, until): (Box<dyn RedisStream>, Option<SystemTime>) = match &self.tls {
            None => (Box::new(stream), None),
            Some(settings) => {
                let secured = settings.connect_bare(stream, &node.host, None, LIMIT).await;
                let tls::Secured { stream, until } = secured?;
                (Box::new(stream), Some(until))
            }
        };
        Ok(RedisConnection::new(stream, until))
    }

    async fn approve(&self, node: &Target) -> Result<Approved, Error> {
        let resolved = self.resolver.addresses(&node.host).await?;
        let approved = self.egress.approve(&resolved, node.port);
        approved.map_err(|_| Error::Denied {
            place: node.to_string(),
        })
    }
}

fn authenticate(connection: &mut RedisConnection<()>, user: Option<&[u8]>, password: Option<&[u8]>) {
    match (user, password) {
        (Some(user), Some(password)) => connection.command(&[b"AUTH", user, password], ()),
        (None, Some(password)) => connection.command(&[b"AUTH", password], ()),
        (_, None) => {}
    }
}

/// Asks one candidate after the other and returns the first answer. Fails with the last error, if possible with one
/// that a server has answered.
async fn first_answer<'a, V, F: Future<Output = Result<V, Error>>>(
    candidates: &[&'a Target],
    attempt: usize,
    ask: impl Fn(&'a Target) -> F,
) -> Result<V, Error> {
    let mut error = Error::Closed;
    for index in 0..candidates.len() {
        let candidate = candidates[(attempt + index) % candidates.len()];
        match in_time(QUESTION, ask(candidate)).await {
            Ok(answer) => return Ok(answer),
            Err(failed) if failed.is_answer() || !error.is_answer() => error = failed,
            Err(_) => {}
        }
    }
    Err(error)
}

async fn in_time<V>(limit: Duration, step: impl Future<Output = Result<V, Error>>) -> Result<V, Error> {
    timeout(limit, step).await.unwrap_or(Err(Error::Slow { limit }))
}

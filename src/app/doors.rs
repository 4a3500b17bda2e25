//! The ports of `tcp`: bound before a configuration is taken over, so that one which cannot be bound refuses it whole.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Error;
use super::bound::{bind_tcp, bind_unix, open_tcp};
use crate::config::{Config, Listen};
use crate::worker::{BoundListener, TcpDoors};

/// The ports of one configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct TcpListeners(Vec<TcpListener>);

#[derive(Clone, Debug)]
struct TcpListener {
    name: Arc<str>,
    /// As written: with port 0 where the system chooses.
    written: Listen,
    /// As it is.
    address: Listen,
    socket: Arc<BoundListener>,
}

impl TcpListeners {
    /// Binds the ports of `config` that are not among the `running` ones. They accept when the workers get them.
    pub(super) fn bind(config: &Config, running: &Self) -> Result<Self, Error> {
        let bind = |(name, written): (&Arc<str>, &Listen)| {
            let name = Arc::clone(name);
            let has_free_port = matches!(written, Listen::Tcp(address) if address.port() == 0);
            let is_same =
                |own: &&TcpListener| own.written == *written && (own.name == name || !has_free_port);
            if let Some(running) = running.0.iter().find(is_same) {
                return Ok(TcpListener {
                    name,
                    ..running.clone()
                });
            }
            let (socket, address) = match written {
                Listen::Tcp(address) => {
                    let (socket, address) = bind_tcp(*address)?;
                    (open_tcp(socket)?, Listen::Tcp(address))
                }
                Listen::Unix(path) => (BoundListener::Unix(bind_unix(path)?), written.clone()),
            };
            Ok(TcpListener {
                name,
                written: written.clone(),
                address,
                socket: Arc::new(socket),
            })
        };
        let entries = config.tcp.iter().map(|entry| (&entry.name, &entry.listen));
        entries.map(bind).collect::<Result<_, _>>().map(Self)
    }

    /// Returns the addresses, which must never be dialled.
    pub(super) fn own(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().filter_map(|own| own.address.address())
    }

    pub(super) fn doors(&self) -> TcpDoors {
        let doors = self
            .0
            .iter()
            .map(|own| (Arc::clone(&own.name), Arc::clone(&own.socket)));
        doors.collect()
    }

    /// Logs the ports that are not among those `before`.
    pub(super) fn announce(&self, config: &Config, before: &Self) {
        for own in &self.0 {
            let is_same = |other: &TcpListener| other.name == own.name && other.address == own.address;
            let entry = config.tcp.iter().find(|entry| entry.name == own.name);
            if let Some(entry) = entry.filter(|_| !before.0.iter().any(is_same)) {
                tracing::info!(destination = %own.name, listen = %own.address, to = %entry.to, "a local port is open");
            }
        }
    }
}

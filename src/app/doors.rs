//! The ports of `tcp` and that of the route service: bound before a configuration is taken over, so that one which cannot
//! be bound refuses it whole.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Error;
use super::bound::{bind_tcp, bind_unix, open_tcp};
use crate::config::{Config, Listen};
use crate::server::Door;
use crate::worker::{BoundListener, OpenDoors};

/// The ports of one configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct DoorListeners(Vec<DoorListener>);

#[derive(Clone, Debug)]
struct DoorListener {
    door: Door,
    /// As written: with port 0 where the system chooses.
    written: Listen,
    /// As it is.
    address: Listen,
    socket: Arc<BoundListener>,
}

impl DoorListeners {
    /// Binds the ports of `config` that are not among the `running` ones. They accept when the workers get them.
    pub(super) fn bind(config: &Config, running: &Self) -> Result<Self, Error> {
        let bind = |(door, written): (Door, Listen)| {
            let has_free_port = matches!(written, Listen::Tcp(address) if address.port() == 0);
            let is_same =
                |own: &&DoorListener| own.written == written && (own.door == door || !has_free_port);
            if let Some(running) = running.0.iter().find(is_same) {
                return Ok(DoorListener {
                    door,
                    ..running.clone()
                });
            }
            let (socket, address) = match &written {
                Listen::Tcp(address) => {
                    let (socket, address) = bind_tcp(*address)?;
                    (open_tcp(socket)?, Listen::Tcp(address))
                }
                Listen::Unix(path) => (BoundListener::Unix(bind_unix(path)?), written.clone()),
            };
            Ok(DoorListener {
                door,
                written,
                address,
                socket: Arc::new(socket),
            })
        };
        let of_tcp = config.tcp.iter();
        let of_tcp = of_tcp.map(|entry| (Door::Tcp(Arc::clone(&entry.name)), entry.listen.clone()));
        let inbound = config.route_service.iter();
        let inbound = inbound.map(|own| (Door::RouteService, Listen::Tcp(own.listen)));
        of_tcp
            .chain(inbound)
            .map(bind)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Returns the addresses, which must never be dialled.
    pub(super) fn own(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().filter_map(|own| own.address.address())
    }

    pub(super) fn doors(&self) -> OpenDoors {
        let doors = self.0.iter();
        doors
            .map(|own| (own.door.clone(), Arc::clone(&own.socket)))
            .collect()
    }

    /// Logs the ports that are not among those `before`.
    pub(super) fn announce(&self, config: &Config, before: &Self) {
        for own in &self.0 {
            let is_same = |other: &DoorListener| other.door == own.door && other.address == own.address;
            if before.0.iter().any(is_same) {
                continue;
            }
            match &own.door {
                Door::Proxy => {}
                Door::RouteService => tracing::info!(listen = %own.address, "the route service is open"),
                Door::Tcp(name) => {
                    if let Some(entry) = config.tcp.iter().find(|entry| entry.name == *name) {
                        tracing::info!(destination = %name, listen = %own.address, to = %entry.to, "a local port is open");
                    }
                }
            }
        }
    }
}

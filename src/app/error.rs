//! Why the proxy does not start, or goes on with the configuration that it has.

use std::io;
use std::net::SocketAddr;

use super::live::DestinationError;
use crate::ca;
use crate::config::Problems;
use crate::upstream::resolve;

/// Why the proxy does not start. Once it runs, nothing of this ends it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot listen on {address} ({remedy})")]
    Bind {
        address: String,
        remedy: &'static str,
        source: io::Error,
    },

    #[error("the local authority cannot be made")]
    Ca(#[from] ca::Error),

    #[error(transparent)]
    Config(#[from] Problems),

    #[error("dns")]
    Dns(#[from] resolve::Error),

    #[error("it panicked while the configuration was made, which is a fault of outrider; report it")]
    Panicked,

    #[error(transparent)]
    Destination(#[from] DestinationError),

    /// `listen` changes at the next start only.
    #[error(
        "clients: outrider still listens on {address}, where others reach it, and without clients it would serve everybody; keep \
         them until the restart that moves the listener"
    )]
    Open { address: SocketAddr },

    #[error("rate_limit_store")]
    Store(#[from] crate::store::StartError),

    #[error("the system refuses what a process needs to run")]
    System(#[from] io::Error),
}

impl Error {
    /// Whether other secrets would remedy it.
    pub(super) fn is_of_secrets(&self) -> bool {
        match self {
            Self::Destination(_) | Self::Store(_) => true,
            Self::Bind { .. }
            | Self::Ca(_)
            | Self::Config(_)
            | Self::Dns(_)
            | Self::Open { .. }
            | Self::Panicked
            | Self::System(_) => false,
        }
    }

    pub(super) fn bind(address: String, source: io::Error) -> Self {
        let remedy = match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program is there: stop it, or choose another listen or admin"
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address: choose 127.0.0.1",
            io::ErrorKind::PermissionDenied => "choose a port above 1023, or a folder that can be written",
            _ => "choose another listen or admin",
        };
        Self::Bind {
            address,
            remedy,
            source,
        }
    }
}

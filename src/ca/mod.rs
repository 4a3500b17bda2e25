//! Whom the app trusts: the local authority, its leaves, the bundle.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::host::{Host, HostPattern};

/// A certificate authority whose key lives in this process only.
#[derive(Debug)]
pub(crate) struct Authority {
    // private
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("TODO")]
    Todo,
}

/// What a minted leaf offers to the app by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Offer {
    H1,
    /// h2, then http/1.1.
    H2,
}

impl Authority {
    /// A new key and certificate, name-constrained to `hosts`; leaves live at most `lifetime`.
    pub(crate) fn new(hosts: &[HostPattern], lifetime: Duration) -> Result<Self, Error> {
        todo!("{hosts:?} {lifetime:?}")
    }

    /// The same key under a certificate for other hosts; `None` where nothing changes.
    pub(crate) fn for_hosts(&self, hosts: &[HostPattern], lifetime: Duration) -> Result<Option<Self>, Error> {
        todo!("{hosts:?} {lifetime:?}")
    }

    /// The TLS settings that serve `host` to the app: minted once, kept, bounded in number.
    pub(crate) fn serve(&self, host: &Host, offer: Offer) -> Result<Arc<rustls::ServerConfig>, Error> {
        todo!("{host} {offer:?}")
    }

    /// Writes the system's roots and this authority's certificate, PEM and PKCS#12, each atomically.
    pub(crate) fn write(&self, bundle: &Path, truststore: &Path) -> Result<(), Error> {
        todo!("{bundle:?} {truststore:?}")
    }
}

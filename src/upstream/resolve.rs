//! Names to addresses: configured hosts first, then the cache, then the name servers.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::Dns;
use crate::telemetry::Telemetry;

/// Resolves names for all workers; answers are cached within the configured bounds.
#[derive(Debug)]
pub(crate) struct Resolver {
    // private
}

/// Why a name has no address. RFC 9209: `dns_error` or `dns_timeout`.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("TODO")]
    Timeout,
}

impl Resolver {
    pub(crate) fn new(dns: &Dns, telemetry: &Arc<Telemetry>) -> Result<Self, Error> {
        todo!("{dns:?} {telemetry:?}")
    }

    /// The addresses of `name` (lower case, no trailing dot), tried as absolute.
    pub(crate) async fn resolve(&self, name: &str) -> Result<Arc<[IpAddr]>, Error> {
        todo!("{name}")
    }
}

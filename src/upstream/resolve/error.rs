//! Why a name has no address, with the remedy.

use std::sync::Arc;
use std::time::Duration;

/// Why a name has no address. RFC 9209: `dns_error` or `dns_timeout`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The name exists, but has no record of this kind.
    #[error("{name} has no address: it exists, but with neither an A nor an AAAA record")]
    Empty { name: Arc<str> },
    /// The servers answer, but not this query.
    #[error("the name servers ({servers}) cannot answer for {name}: {rcode}")]
    Failed {
        name: Arc<str>,
        servers: Arc<str>,
        rcode: &'static str,
    },
    /// What came back is not a valid answer.
    #[error(
        "the name servers ({servers}) sent no usable answer for {name}; see that dns.servers are name servers"
    )]
    Garbled { name: Arc<str>, servers: Arc<str> },
    /// Found at start.
    #[error("dns.hosts names {name} without an address; give it one, or leave it out")]
    Host { name: Arc<str> },
    /// Labels of more than 63 characters, empty ones, or 255 in all.
    #[error("{name} is not a name that DNS could hold")]
    Name { name: Arc<str> },
    #[error("{name} does not exist (NXDOMAIN); check its spelling, or give it an address in dns.hosts")]
    NotFound { name: Arc<str> },
    #[error(
        "no name server answered for {name} within {} (dns.timeout); asked: {servers}; see dns.servers and the network to them",
        humantime::format_duration(*.limit)
    )]
    Timeout {
        name: Arc<str>,
        servers: Arc<str>,
        limit: Duration,
    },
    /// No query could be sent.
    #[error("the name servers ({servers}) cannot be reached; see dns.servers and the network to them")]
    Unreachable { servers: Arc<str> },
}

impl Error {
    /// Returns the error type of RFC 9209.
    pub(crate) fn proxy_status(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "dns_timeout",
            Self::Empty { .. }
            | Self::Failed { .. }
            | Self::Garbled { .. }
            | Self::Host { .. }
            | Self::Name { .. }
            | Self::NotFound { .. }
            | Self::Unreachable { .. } => "dns_error",
        }
    }

    /// Returns the `rcode` parameter of `dns_error` (RFC 9209, section 2.3.2), if a server gave one.
    pub(crate) fn rcode(&self) -> Option<&'static str> {
        match self {
            Self::Empty { .. } => Some("NOERROR"),
            Self::Failed { rcode, .. } => Some(rcode),
            Self::NotFound { .. } => Some("NXDOMAIN"),
            Self::Garbled { .. }
            | Self::Host { .. }
            | Self::Name { .. }
            | Self::Timeout { .. }
            | Self::Unreachable { .. } => None,
        }
    }

    /// Whether the answer is certain: no other server is asked, and no expired answer is used.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Empty { .. } | Self::Host { .. } | Self::Name { .. } | Self::NotFound { .. } => true,
            Self::Failed { .. } | Self::Garbled { .. } | Self::Timeout { .. } | Self::Unreachable { .. } => {
                false
            }
        }
    }
}

//! What it means: the compiled, immutable policy. No I/O.

use std::net::IpAddr;
use std::sync::Arc;

use http::Method;

pub(crate) use destination::Destination;
pub(crate) use egress::{Approved, Egress};

use crate::config::{Config, Problems};
use crate::host::{HostPattern, Target};

mod destination;
mod egress;

/// What the proxy runs on. A request loads it once and keeps it.
#[derive(Debug)]
pub(crate) struct Policy {
    /// `destinations[0]` is `unlisted`: the hosts that no destination names. `destinations[i].index == i`.
    pub(crate) destinations: Vec<Arc<Destination>>,
    pub(crate) egress: Egress,
}

/// What the app asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A CONNECT.
    Connect,
    /// An absolute-form request.
    Request,
}

/// What happens to a request, each with its destination; or why it does not.
#[derive(Clone, Debug)]
pub(crate) enum Verdict<'p> {
    Deny(&'p Arc<Destination>, Denial),
    Forward(&'p Arc<Destination>),
    Intercept(&'p Arc<Destination>),
    Tunnel(&'p Arc<Destination>),
}

/// Why policy refuses. `Display` is a sentence for the developer of the app, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denial {
    #[error("TODO")]
    Method(Method),
    #[error("TODO")]
    Network { address: IpAddr, class: &'static str },
    #[error("TODO")]
    Path,
    #[error("TODO")]
    Plaintext,
    #[error("TODO")]
    Port(u16),
    #[error("TODO")]
    Unlisted,
}

impl Denial {
    /// The word for metric label and log: a closed set. Dashboards depend on it.
    pub(crate) fn reason(&self) -> &'static str {
        todo!()
    }
}

impl Policy {
    /// Turns what the user wrote into what the proxy runs on, or says everything that is wrong with it.
    ///
    /// Pure: reads no file, socket, clock or environment variable.
    pub(crate) fn compile(config: &Config) -> Result<Self, Problems> {
        todo!("{config:?}")
    }

    /// The destination of `target` (`unlisted` where none names it) and what happens to the request.
    pub(crate) fn route(&self, target: &Target, asked: Asked) -> Verdict<'_> {
        todo!("{target} {asked:?}")
    }

    /// The host patterns under which the local authority must be able to sign.
    pub(crate) fn intercepted(&self) -> Vec<HostPattern> {
        todo!()
    }
}

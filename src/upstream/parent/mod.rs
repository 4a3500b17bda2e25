//! Parent proxies: how a connection gets to its target through another proxy.
//!
//! [`Parents::open`] takes the first parent of a list that can be reached and does not fail itself. A tunnel is opened by
//! CONNECT ([`tunnel`]) or SOCKS5 ([`socks5`]). A request for `http://` needs none at an HTTP parent: it is sent there in
//! absolute-form, with our credentials for this parent alone. Whatever a parent answers becomes a [`ParentFault`] that
//! says who refused: [`answer`] knows what common proxies mean.
//!
//! Nothing here ever goes around the parents: when all fail, the request fails. Which hosts are reached without them is
//! decided in `policy`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

#[cfg(test)]
pub(crate) use answer::wants_certificate;
pub(crate) use error::ParentError;
pub(crate) use settings::{ParentSettingsError, references};

use self::error::ParentFault;
use self::health::{Health, Turn};
use super::link::{Link, Relay};
use super::{DialContext, Error, dial, tls};
use crate::config::{ParentScheme, Timeouts};
use crate::host::{Host, Scheme, Target};
use crate::http1::{self, ProxyForm};
use crate::message::Response;
use crate::policy::{EgressRules, ParentPlan};
use crate::stream::{Rewound, Socket};
use crate::telemetry::ParentCounters;

mod answer;
mod error;
mod health;
mod settings;
mod socks5;
#[cfg(test)]
mod tests;
mod tunnel;

/// A connection to a parent, before it leads anywhere.
type Hop = Socket<tls::Session<TcpStream>>;

/// The parents of one place of the configuration, in the order in which they are tried.
#[derive(Debug)]
pub(crate) struct Parents {
    /// Of every secret that they are made with.
    fingerprint: u64,
    list: Vec<Arc<Parent>>,
    /// The name under which a CONNECT that comes back to us is recognised.
    marker: Arc<str>,
    plan: Arc<ParentPlan>,
    /// For the addresses of the parents, which the operator has chosen.
    rules: EgressRules,
}

/// One parent.
pub(crate) struct Parent {
    counters: ParentCounters,
    /// What goes with every request to an HTTP parent.
    form: Arc<ProxyForm>,
    health: Health,
    /// User and password for SOCKS5.
    login: Option<socks5::SocksLogin>,
    /// `host:port`, the label of metrics.
    name: Arc<str>,
    scheme: ParentScheme,
    target: Target,
    tls: Option<tls::Settings>,
    /// For a CONNECT.
    tunnel_form: Arc<ProxyForm>,
}

/// How far a parent shall bring us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// To the target, for any bytes.
    Tunnel,
    /// To an HTTP parent, for requests in absolute-form; through others, to the target.
    Forwarding,
}

/// A connection to a target, or to a parent that serves requests for it.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) link: Link,
    /// The end of the first certificate on which the trust in an `https://` parent rests.
    pub(super) until: Option<SystemTime>,
    /// `None`: there is no parent.
    pub(super) via: Option<Arc<Via>>,
}

/// The parent of a connection, to explain what happens on it.
#[derive(Debug)]
pub(crate) struct Via {
    /// An answer has come through it.
    has_served: AtomicBool,
    parent: Arc<Parent>,
    wanted: Wanted,
    target: Target,
}

impl Parents {
    pub(crate) fn plan(&self) -> &Arc<ParentPlan> {
        &self.plan
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Opens a connection to `target` through the first parent that works. Tries the next one where a parent cannot be
    /// reached or fails itself, never where it refuses the target.
    pub(super) async fn open(
        &self,
        target: &Target,
        timeouts: &Timeouts,
        network: DialContext<'_>,
        wanted: Wanted,
    ) -> Result<Reached, Error> {
        judge(target, network)?;
        let mut first = None;
        for (parent, turn) in self.order() {
            let begun = Instant::now();
            let attempt = Attempt {
                parent,
                parents: self,
                target,
                timeouts,
                network,
            };
            let fault = match attempt.reach(wanted, turn).await {
                Ok(reached) => {
                    parent.counters.connect("ok");
                    parent.health.works(&parent.name);
                    return Ok(reached);
                }
                Err(fault) => fault,
            };
            parent.counters.connect(fault.result());
            // A parent that is silent may hang, or its target is: it hangs if it has served nobody meanwhile.
            let is_suspect = fault.is_silence() && !parent.health.has_worked_since(begun);
            if fault.is_of_parent() || is_suspect {
                parent.fails(&fault);
            } else if fault.is_of_target() {
                parent.health.answers(&parent.name);
            }
            let goes_on = fault.is_of_parent() || is_suspect || fault.may_be_of_parent();
            let error = ParentError::new(parent, target, fault);
            if !goes_on {
                return Err(error.into());
            }
            first = first.or(Some(error));
        }
        // A list has at least one parent.
        Err(first.map_or(Error::Version, |error| error.after(self.list.len()).into()))
    }

    /// Returns the parents in the order in which they are tried: those that failed a while ago last. Of them one at a time is
    /// tried in its place, to see whether it works again.
    fn order(&self) -> impl Iterator<Item = (&Arc<Parent>, Turn)> {
        let now = Instant::now();
        let turns = self.list.iter().map(|parent| (parent, parent.health.turn(now)));
        let (last, early): (Vec<_>, Vec<_>) = turns.partition(|(_, turn)| *turn == Turn::Last);
        early.into_iter().chain(last)
    }
}

/// Refuses what may not be reached: an address as it is written, and a name whose addresses the configuration holds. Other
/// names are resolved by the parent, and what it makes of them is its affair.
fn judge(target: &Target, network: DialContext<'_>) -> Result<(), Error> {
    let known = match &target.host {
        Host::Name(name) => network.resolver.fixed(name),
        host => host.ip().map(|address| [address].into()),
    };
    if let Some(addresses) = known {
        network.egress.approve(&addresses, target.port)?;
    }
    Ok(())
}

/// One attempt with one parent.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    parent: &'a Arc<Parent>,
    parents: &'a Parents,
    target: &'a Target,
    timeouts: &'a Timeouts,
    network: DialContext<'a>,
}

impl Attempt<'_> {
    async fn reach(self, wanted: Wanted, turn: Turn) -> Result<Reached, ParentFault> {
        let Self { parent, target, .. } = self;
        let (mut hop, until) = self.hop(turn).await?;
        // The parent has to resolve the name and to connect.
        let limit = 2 * self.timeouts.connect;
        let (link, wanted) = match (parent.scheme, wanted) {
            (ParentScheme::Socks5, _) => {
                let opened = socks5::open(&mut hop, target, parent.login.as_ref());
                timeout(limit, opened)
                    .await
                    .unwrap_or(Err(ParentFault::Silent(limit)))?;
                (joined(hop, Bytes::new(), Wanted::Tunnel), Wanted::Tunnel)
            }
            (ParentScheme::Http | ParentScheme::Https, Wanted::Forwarding) => {
                (joined(hop, Bytes::new(), wanted), Wanted::Forwarding)
            }
            (ParentScheme::Http | ParentScheme::Https, Wanted::Tunnel) => {
                let (hop, early) = tunnel::open(hop, target, parent, &self.parents.marker, limit).await?;
                (joined(hop, early, wanted), Wanted::Tunnel)
            }
        };
        let via = Via {
            has_served: AtomicBool::new(false),
            parent: Arc::clone(parent),
            wanted,
            target: target.clone(),
        };
        Ok(Reached {
            link,
            until,
            via: Some(Arc::new(via)),
        })
    }

    /// Connects to the parent itself.
    async fn hop(self, turn: Turn) -> Result<(Hop, Option<SystemTime>), ParentFault> {
        let place = &self.parent.target;
        let resolved = self.network.resolver.addresses(&place.host).await?;
        let approved = self.parents.rules.approve(&resolved, place.port)?;
        let limit = match turn {
            Turn::Probe => self.timeouts.connect.min(health::PROBE),
            Turn::First | Turn::Last => self.timeouts.connect,
        };
        let stream = dial::dial(&approved, limit).await?;
        let Some(settings) = &self.parent.tls else {
            return Ok((Socket::Tcp(stream), None));
        };
        let secured = settings.connect(stream, place, tls::Alpn::H1, self.timeouts.tls);
        let tls::Secured { stream, until } = secured.await.map_err(Box::new)?;
        Ok((Socket::Other(stream), Some(until)))
    }
}

/// Returns the stream behind a parent: a socket where nothing but bytes of the target is on it.
fn joined(hop: Hop, early: Bytes, wanted: Wanted) -> Link {
    match hop {
        Socket::Tcp(stream) if early.is_empty() => Link::Tcp(stream),
        hop => {
            let stream = Rewound::new(early, hop);
            Link::Other(Box::new(Relay::new(stream, wanted == Wanted::Tunnel)))
        }
    }
}

impl Parent {
    /// Notes that it has failed.
    fn fails(&self, fault: &ParentFault) {
        let other = fault.other_scheme(self.scheme);
        self.health.fails(&self.name, &format_args!("{fault}{other}"));
    }

    /// Explains an error of a connection to it, where TLS is the cause.
    fn tls_fault(&self, error: &(dyn std::error::Error + 'static)) -> Option<ParentFault> {
        let error = self.tls.as_ref()?.explain(error, &self.target.host)?;
        Some(ParentFault::Tls(Box::new(error)))
    }
}

impl Via {
    /// Returns how requests are written on the connection. `None`: as to the target itself.
    pub(super) fn form(&self) -> Option<Arc<ProxyForm>> {
        match self.wanted {
            Wanted::Forwarding => Some(Arc::clone(&self.parent.form)),
            Wanted::Tunnel => None,
        }
    }

    /// Returns the answer of the parent itself to a request in absolute-form, where it certainly is the parent's.
    pub(super) fn own_answer(&self, response: &Response<()>) -> Option<Error> {
        self.has_served.store(true, Ordering::Relaxed);
        if self.wanted == Wanted::Tunnel {
            return None;
        }
        let fault = answer::of_forwarding(response, self.parent.form.authorization.is_some())?;
        Some(self.explain(fault))
    }

    /// Explains a connection that ended before a byte of an answer.
    pub(super) fn lost(&self, error: &(dyn std::error::Error + 'static)) -> Option<Error> {
        if let Some(fault) = self.parent.tls_fault(error) {
            return Some(self.explain(fault));
        }
        if self.has_served.load(Ordering::Relaxed) {
            // It was kept too long.
            return None;
        }
        match (self.wanted, self.target.scheme) {
            (Wanted::Forwarding, _) => Some(self.explain(ParentFault::Closed)),
            (Wanted::Tunnel, Scheme::Http) => Some(self.explain(ParentFault::ClosedTunnel)),
            (Wanted::Tunnel, Scheme::Https) => None,
        }
    }

    /// Explains a first answer that is not HTTP, which a parent would not have passed on.
    pub(super) fn unreadable(&self, error: &http1::Error) -> Option<Error> {
        let is_first = self.wanted == Wanted::Forwarding && !self.has_served.load(Ordering::Relaxed);
        match error {
            http1::Error::Malformed(_) | http1::Error::Version if is_first => {
                Some(self.explain(ParentFault::Malformed(error.to_string())))
            }
            _ => None,
        }
    }

    /// Explains a TLS handshake that failed because the tunnel ended, or never led to a server that speaks TLS.
    pub(super) fn handshake(&self, error: tls::Error) -> Error {
        match error {
            tls::Error::Closed { .. } => self.explain(ParentFault::ClosedTunnel),
            tls::Error::NotTls { .. } => self.explain(ParentFault::NoTls),
            error => error.into(),
        }
    }

    /// Takes note of a tunnel that ended without a byte of its target.
    pub(super) fn ended(&self) {
        let error = self.explain(ParentFault::ClosedTunnel);
        tracing::warn!(parent = &*self.parent.name, target = %self.target, %error, "a tunnel ended without a byte");
    }

    fn explain(&self, fault: ParentFault) -> Error {
        self.parent.counters.connect(fault.result());
        if fault.is_of_parent() {
            self.parent.fails(&fault);
        }
        ParentError::new(&self.parent, &self.target, fault).into()
    }
}

/// Shows the name only.
impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Parent").field(&self.name).finish()
    }
}

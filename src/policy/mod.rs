//! The policy: what the configuration means, compiled and immutable. No I/O.
//!
//! [`Policy::compile`] turns the configuration into look-ups and plain values and reports every contradiction. A request
//! then asks three questions, each answered with a value and a reason: [`Policy::route`] (which destination, and is it
//! forwarded, intercepted or tunnelled), [`Destination::permits`] (is it allowed) and [`Destination::leaves`] (which target
//! does it leave for). [`EgressRules::approve`] judges the addresses before anything is dialled.
//!
//! Reading secrets, resolving and dialling are not here.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::Method;

pub(crate) use destination::Destination;
pub(crate) use egress::{Approved, EgressRules};
pub(crate) use parent::ParentPlan;
pub(crate) use placeholder::{PlaceholderDenial, PlaceholderFault};

use crate::config::{Auth, ClientAuth, Config, EgressDefault, Problems};
use crate::host::{Host, HostPattern, Pattern, PortPattern, Target};
use crate::path;
use router::Router;

mod destination;
mod egress;
mod network;
mod parent;
mod placeholder;
mod router;
#[cfg(test)]
mod tests;

/// The compiled configuration. A request loads it once and keeps it.
#[derive(Debug)]
pub(crate) struct Policy {
    /// `destinations[0]` is `unlisted`: the hosts that no destination names. `destinations[i].index == i`. Those of `tcp`
    /// and that of the route service come last.
    pub(crate) destinations: Vec<Arc<Destination>>,
    /// Shared with token requests, which dial without a request of the app.
    pub(crate) egress: Arc<EgressRules>,
    pub(crate) default: EgressDefault,
    /// Of unlisted hosts.
    pub(crate) ports: Vec<u16>,
    pub(crate) router: Router,
}

/// How the app asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestForm {
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
    /// It passes only because of `egress.default: observe`: a CONNECT as a tunnel, another request forwarded.
    Observe(&'p Arc<Destination>, WouldDeny),
    Tunnel(&'p Arc<Destination>),
}

/// Why `egress.default: deny` would refuse what `observe` lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WouldDeny {
    /// A destination names the host, though not this port.
    Port,
    /// No destination names the host.
    Unlisted,
}

impl WouldDeny {
    /// Returns the word for metric label, log and record: a closed set.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Unlisted => "unlisted",
        }
    }
}

/// Why policy refuses. `Display` is a sentence for the developer of the app, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denial {
    #[error(
        "destination {destination} attaches its credentials by path: as it is written this one falls under {written}, but \
         some servers read it as {reading}, which falls under {other}; ask for it in one clear spelling"
    )]
    Ambiguous {
        destination: Arc<str>,
        written: String,
        reading: String,
        other: String,
    },
    #[error(
        "destination {destination} says deny: true, so its hosts are refused; where this one should be reached, take it \
         out of the destination's hosts, or name it more specifically in another destination"
    )]
    Denied { destination: Arc<str> },
    #[error("{address} is a listener of outrider itself; a request through it would come back to it")]
    Loop { address: SocketAddr },
    #[error(
        "destination {destination} does not allow {method}; where it should, add it to the destination's methods"
    )]
    Method { destination: Arc<str>, method: Method },
    #[error(
        "destination {destination} has rules about methods or paths, and some servers take {method} for another method; \
         where it should pass, name it in the destination's methods, with all others that should"
    )]
    UnknownMethod { destination: Arc<str>, method: Method },
    #[error(
        "destination {destination} has rules about methods or paths, and some servers take {name} for the method or the \
         path of the request; leave it out, and ask for what is meant"
    )]
    Override {
        destination: Arc<str>,
        name: &'static str,
    },
    #[error(
        "the address {address} is in a denied network ({class}); \
         where it should be reached, add it to egress.allow_networks"
    )]
    Network { address: IpAddr, class: &'static str },
    #[error("destination {destination} {refused}")]
    Path {
        destination: Arc<str>,
        refused: path::Refused,
    },
    #[error(transparent)]
    Placeholder(Box<PlaceholderDenial>),
    #[error(
        "destination {destination} attaches a credential, which would leave in clear; \
         ask for https://, or set the destination's upgrade: true"
    )]
    Plaintext { destination: Arc<str> },
    #[error(
        "{host} is named by no destination, and such hosts are reached on the ports of egress.ports only; \
         add {port} there, or {host}:{port} to the hosts of a destination"
    )]
    Port { host: Host, port: u16 },
    #[error(
        "destination {destination} has keys that need to see its requests, and those in UDP (HTTP/3) cannot be seen; use \
         HTTP/1.1 or HTTP/2 there, or set the destination's mode: tunnel"
    )]
    Udp { destination: Arc<str> },
    #[error(
        "destination {destination} is reached through a parent proxy, which carries no UDP; use HTTP/1.1 or HTTP/2 there"
    )]
    UdpBehindParent { destination: Arc<str> },
    #[error(
        "{target} is named by no destination; where it should be reached, add {} to the hosts of a destination, \
         or set egress.default: tunnel{}",
        pattern_for(target),
        if *is_port_open { String::new() } else { format!(" and add {} to egress.ports", target.port) }
    )]
    Unlisted {
        /// Whether egress.ports has its port.
        is_port_open: bool,
        target: Target,
    },
}

impl Denial {
    /// Returns the word for metric label and log: a closed set. Dashboards depend on it.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "denied",
            Self::Loop { .. } => "loop",
            Self::Method { .. } | Self::Override { .. } | Self::UnknownMethod { .. } => "method",
            Self::Network { .. } => "network",
            Self::Ambiguous { .. } | Self::Path { .. } => "path",
            Self::Placeholder(_) => "placeholder",
            Self::Plaintext { .. } => "plaintext",
            Self::Port { .. } => "port",
            Self::Udp { .. } | Self::UdpBehindParent { .. } => "udp",
            Self::Unlisted { .. } => "unlisted",
        }
    }
}

impl Policy {
    /// Compiles the configuration, or reports everything that is wrong with it.
    ///
    /// Pure: reads no file, socket, clock or environment variable.
    pub(crate) fn compile(config: &Config) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let egress = EgressRules::compile(&config.egress, &mut problems);
        let parent = ParentPlan::of_egress(&config.egress);
        let mut destinations = vec![Arc::new(Destination::unlisted(
            config.timeouts,
            config.limits.response_fields(),
            parent.clone(),
        ))];
        for (i, destination) in config.destinations.iter().enumerate() {
            destinations.push(Arc::new(Destination::compile(
                destination,
                i + 1,
                config,
                parent.as_ref(),
                &mut problems,
            )));
            for (j, pattern) in destination.hosts.iter().enumerate().filter(|_| !destination.deny) {
                if let Some((class, exception)) = denied(pattern, &egress) {
                    problems.add(
                        format!("destinations.{}.hosts[{j}]", destination.name),
                        format!("{pattern} lies in a denied network ({class}), so it could never be reached"),
                        format!("add {exception} to egress.allow_networks"),
                    );
                }
            }
        }
        // The router knows nothing of these: only their local ports lead to them.
        for entry in &config.tcp {
            let destination = Destination::of_tcp(entry, destinations.len(), config, parent.as_ref());
            destinations.push(Arc::new(destination));
            if let Some(ip) = entry.to.host.ip()
                && let Some(class) = egress.denies_block(&ip.into())
            {
                problems.add(
                    format!("tcp.{}.to", entry.name),
                    format!(
                        "{} lies in a denied network ({class}), so it could never be reached",
                        entry.to
                    ),
                    format!("add {ip} to egress.allow_networks"),
                );
            }
        }
        if let Some(written) = &config.route_service {
            let destination =
                Destination::of_route_service(written, destinations.len(), config, parent.as_ref());
            destinations.push(Arc::new(destination));
        }
        let router = Router::compile(&config.destinations, &mut problems);
        let policy = Self {
            destinations,
            egress: Arc::new(egress),
            default: config.egress.default,
            ports: config.egress.ports.clone(),
            router,
        };
        policy.check_token_endpoints(&mut problems);
        policy.check_ports(config, &mut problems);
        if problems.is_empty() {
            Ok(policy)
        } else {
            Err(problems.located(&config.locations))
        }
    }

    /// Returns the destination that names a target.
    pub(crate) fn named(&self, target: &Target) -> Option<&Arc<Destination>> {
        let (destination, pattern) = self.find(target);
        pattern.map(|_| destination)
    }

    /// Returns the destination of what comes through the route service.
    pub(crate) fn route_service(&self) -> Option<&Arc<Destination>> {
        self.destinations.last().filter(|last| last.is_route_service)
    }

    /// Returns the destination of a local port by its name.
    pub(crate) fn tcp(&self, name: &str) -> Option<&Arc<Destination>> {
        let mut entries = self.destinations.iter().filter(|one| one.tcp.is_some());
        entries.find(|one| *one.name == *name)
    }

    /// Checks that no local port leaves to a server that a destination denies.
    fn check_ports(&self, config: &Config, problems: &mut Problems) {
        for entry in &config.tcp {
            if let Some(denying) = self.named(&entry.to).filter(|destination| destination.denies) {
                problems.add(
                    format!("tcp.{}.to", entry.name),
                    format!("destinations.{} says deny: true about it", denying.name),
                    "take it out of one of the two",
                );
            }
        }
    }

    /// Checks that `client_auth: tls` has a certificate.
    fn check_token_endpoints(&self, problems: &mut Problems) {
        for destination in &self.destinations {
            for credential in destination.auth.iter().flat_map(|rule| &rule.credentials) {
                let Auth::OAuth2(oauth2) = &credential.auth else {
                    continue;
                };
                let shown = self.named(&oauth2.token_url.target).unwrap_or(destination);
                if shown.denies {
                    problems.add(
                        format!(
                            "destinations.{}.{}.oauth2.token_url",
                            destination.name, credential.place
                        ),
                        format!("destinations.{} says deny: true about its host", shown.name),
                        "take the host out of there",
                    );
                }
                if oauth2.client_auth == ClientAuth::Tls && shown.tls.client_certificate.is_none() {
                    problems.add(
                        format!(
                            "destinations.{}.{}.oauth2.client_auth",
                            destination.name, credential.place
                        ),
                        format!(
                            "tls shows the client certificate of destinations.{}, which has none",
                            shown.name
                        ),
                        "add tls.client_certificate there, or choose another client_auth",
                    );
                }
            }
        }
    }

    /// Returns the destination of `target` (`unlisted` where no destination names it) and what happens to the request.
    pub(crate) fn route(&self, target: &Target, asked: RequestForm) -> Verdict<'_> {
        let (destination, pattern) = self.find(target);
        if pattern.is_none() {
            if self.default == EgressDefault::Deny {
                return Verdict::Deny(
                    destination,
                    Denial::Unlisted {
                        is_port_open: self.ports.contains(&target.port),
                        target: target.clone(),
                    },
                );
            }
            if !self.ports.contains(&target.port) {
                let denial = Denial::Port {
                    host: target.host.clone(),
                    port: target.port,
                };
                return Verdict::Deny(destination, denial);
            }
            if self.default == EgressDefault::Observe {
                let is_named = self.router.names_host(&target.host);
                let reason = if is_named {
                    WouldDeny::Port
                } else {
                    WouldDeny::Unlisted
                };
                return Verdict::Observe(destination, reason);
            }
        }
        if destination.denies {
            let denial = Denial::Denied {
                destination: Arc::clone(&destination.name),
            };
            return Verdict::Deny(destination, denial);
        }
        match asked {
            RequestForm::Request => Verdict::Forward(destination),
            RequestForm::Connect if destination.intercept => Verdict::Intercept(destination),
            RequestForm::Connect => Verdict::Tunnel(destination),
        }
    }

    /// Returns the destination of `target` and its pattern that matches; `unlisted` has no pattern.
    pub(crate) fn find(&self, target: &Target) -> (&Arc<Destination>, Option<&HostPattern>) {
        match self.router.find(target) {
            Some(claim) => (&self.destinations[claim.destination], Some(&claim.pattern)),
            None => (&self.destinations[0], None),
        }
    }

    /// Returns the host patterns for which the local authority must be able to sign.
    pub(crate) fn intercepted(&self) -> Vec<HostPattern> {
        let claims = self.router.claims().iter();
        let intercepted = claims.filter(|claim| self.destinations[claim.destination].intercept);
        intercepted.map(|claim| claim.pattern.clone()).collect()
    }
}

/// Returns the class that makes an address or block of `hosts` unreachable, and the exception that would open it.
fn denied(pattern: &HostPattern, egress: &EgressRules) -> Option<(&'static str, String)> {
    let block = match &pattern.what {
        Pattern::Host(host) => host.ip()?.into(),
        Pattern::Network(network) => *network,
        Pattern::Suffix(_) => return None,
    };
    egress
        .denies_block(&block)
        .map(|class| (class, block.to_string()))
}

/// Returns the pattern of `hosts` that names `target`: with a port only where a pattern without one would not match.
fn pattern_for(target: &Target) -> HostPattern {
    HostPattern {
        what: Pattern::Host(target.host.clone()),
        port: match target.port {
            80 | 443 => PortPattern::Usual,
            port => PortPattern::One(port),
        },
    }
}

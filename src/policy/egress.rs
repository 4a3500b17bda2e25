//! Which addresses may be dialled at all.
//!
//! The rules judge addresses, after resolution, for every destination: a name that resolves into a denied network
//! is refused however it is spelled, and exactly the judged addresses are dialled. All classes of networks are denied;
//! `deny_networks` only adds to them, and `allow_networks` alone opens what is denied. An IPv6 address that carries an
//! IPv4 address has to pass as both; to open a carried address that is denied, `allow_networks` has to cover the
//! carrier and the carried.
//!
//! Which hosts a request may name is decided in [`super::router`], not here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::{Denial, network};
use crate::config::{self, Network, NetworkClass, Problems, Word as _};

#[cfg(test)]
mod tests;

/// The network rules, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EgressRules {
    allow: Vec<Network>,
    deny: Vec<Network>,
    own: Vec<SocketAddr>,
}

/// Addresses the egress rules have allowed. Nothing else can be dialled.
///
/// Only [`EgressRules::approve`] makes one, and only `upstream::dial` takes one, so an unchecked
/// connection does not compile.
#[derive(Clone, Debug)]
pub(crate) struct Approved(Vec<SocketAddr>);

impl EgressRules {
    pub(super) fn compile(config: &config::Egress, problems: &mut Problems) -> Self {
        let denied = &config.deny_networks;
        for (key, networks) in [("deny", denied), ("allow", &config.allow_networks)] {
            for (i, listed) in networks.iter().enumerate() {
                let Network::Block(block) = listed else { continue };
                if let Some(v4) = network::unmapped(block) {
                    problems.add(
                        format!("egress.{key}_networks[{i}]"),
                        "an IPv4-mapped block covers no address, because these are judged as IPv4",
                        format!("write {v4}"),
                    );
                }
            }
        }
        // The blocks first: a refusal should name what a person wrote.
        let blocks = denied
            .iter()
            .filter(|network| matches!(network, Network::Block(_)));
        let classes = NetworkClass::CHOICES
            .iter()
            .map(|(_, class)| Network::Class(*class));
        Self {
            allow: config.allow_networks.clone(),
            deny: blocks.copied().chain(classes).collect(),
            own: Vec::new(),
        }
    }

    /// Returns the rules for an address that the operator wrote for outrider itself: everything but metadata services.
    pub(crate) fn of_operator() -> Self {
        Self {
            allow: Vec::new(),
            deny: vec![Network::Class(NetworkClass::Metadata)],
            own: Vec::new(),
        }
    }

    /// Returns the same for what else the operator wrote: our own listeners stay refused.
    pub(crate) fn for_operator(&self) -> Self {
        Self {
            own: self.own.clone(),
            ..Self::of_operator()
        }
    }

    /// Adds our own `listeners` to the addresses that are refused.
    ///
    /// A listener on an unspecified address means the loopback ones; the caller adds the addresses of the interfaces.
    pub(crate) fn with_own(self, listeners: Vec<SocketAddr>) -> Self {
        let own = listeners
            .into_iter()
            .map(|own| SocketAddr::new(own.ip().to_canonical(), own.port()))
            .collect();
        Self { own, ..self }
    }

    /// Keeps the allowed ones of the addresses that a name `resolved` to, in their order; IPv4-mapped ones as IPv4.
    ///
    /// Where no address is left, the denial is that of the first. Without addresses the result is empty.
    pub(crate) fn approve(&self, resolved: &[IpAddr], port: u16) -> Result<Approved, Denial> {
        let mut kept = Vec::with_capacity(resolved.len());
        let mut refused = None;
        for address in resolved {
            match self.judge(address.to_canonical(), port) {
                Ok(address) => kept.push(address),
                Err(denial) => refused = refused.or(Some(denial)),
            }
        }
        match refused {
            Some(denial) if kept.is_empty() => Err(denial),
            _ => Ok(Approved(kept)),
        }
    }

    /// Returns the class under which all of `block` is denied; `None` where an exception touches it.
    pub(super) fn denies_block(&self, block: &IpNet) -> Option<&'static str> {
        if block.prefix_len() == block.max_prefix_len() {
            return self.denied(block.addr());
        }
        let touched = |deny: &Network| {
            self.allow.iter().any(|allow| {
                let touches = match allow {
                    Network::Class(class) => network::touches(*class, block),
                    Network::Block(allow) => allow.contains(block) || block.contains(allow),
                };
                touches && outranks(allow, deny)
            })
        };
        let covers = |deny: &Network| match deny {
            Network::Class(class) => network::covers(*class, block),
            Network::Block(deny) => deny.contains(block),
        };
        let deny = self.deny.iter().find(|deny| covers(deny) && !touched(deny));
        deny.map(word)
    }

    fn judge(&self, address: IpAddr, port: u16) -> Result<SocketAddr, Denial> {
        let dialled = SocketAddr::new(address, port);
        if self.is_own(dialled) || carried(address).any(|v4| self.is_own(SocketAddr::new(v4.into(), port))) {
            return Err(Denial::Loop { address: dialled });
        }
        match self.denied(address) {
            Some(class) => Err(Denial::Network { address, class }),
            None => Ok(dialled),
        }
    }

    /// Returns the class under which `address` is denied, for itself, for an IPv4 address that it carries, or for the loopback
    /// address that dialling an unspecified one reaches.
    fn denied(&self, address: IpAddr) -> Option<&'static str> {
        let verdict = self.verdict(address);
        if let AddressVerdict::Denied(class) = verdict {
            return Some(class);
        }
        if let Some(class) = loopback_behind(address).and_then(|loopback| self.denied(loopback)) {
            return Some(class);
        }
        carried(address).find_map(|v4| match self.verdict(v4.into()) {
            AddressVerdict::Denied(class) => Some(class),
            // The exception names the IPv4 address; the way through a translator has to be named as well.
            AddressVerdict::Excepted(class) if !self.excepts(address) => Some(class),
            AddressVerdict::Excepted(_) | AddressVerdict::Open => None,
        })
    }

    /// Judges one address for itself.
    fn verdict(&self, address: IpAddr) -> AddressVerdict {
        let metadata = Network::Class(NetworkClass::Metadata);
        // Opening a network that a metadata service lives in does not open the service.
        if self.deny.contains(&metadata) && matches(&metadata, address) && !self.excepts_service(address) {
            return AddressVerdict::Denied(NetworkClass::Metadata.word());
        }
        match self.deny.iter().find(|deny| matches(deny, address)) {
            None => AddressVerdict::Open,
            Some(deny) if self.excepts(address) => AddressVerdict::Excepted(word(deny)),
            Some(deny) => AddressVerdict::Denied(word(deny)),
        }
    }

    fn excepts(&self, address: IpAddr) -> bool {
        self.allow.iter().any(|allow| {
            let mut denying = self.deny.iter().filter(|deny| matches(deny, address));
            matches(allow, address) && denying.all(|deny| outranks(allow, deny))
        })
    }

    /// Whether `metadata` or this very address is excepted.
    fn excepts_service(&self, address: IpAddr) -> bool {
        self.allow.iter().any(|allow| match allow {
            Network::Class(class) => *class == NetworkClass::Metadata,
            Network::Block(block) => block.prefix_len() == block.max_prefix_len() && block.contains(&address),
        })
    }

    /// Whether dialling `address` reaches one of our listeners. Dialling an unspecified address reaches loopback.
    fn is_own(&self, address: SocketAddr) -> bool {
        let local = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
        self.own.iter().any(|own| {
            own.port() == address.port()
                && (own.ip() == address.ip()
                    || (own.ip().is_unspecified() && local(address.ip()))
                    || (address.ip().is_unspecified() && local(own.ip())))
        })
    }
}

impl Approved {
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.0
    }
}

/// The verdict on one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AddressVerdict {
    Denied(&'static str),
    /// It would be denied, and an exception opens it.
    Excepted(&'static str),
    Open,
}

/// Whether an exception opens a denied network: any exception opens a class; only one that is no larger opens a block.
fn outranks(allow: &Network, deny: &Network) -> bool {
    match (allow, deny) {
        (_, Network::Class(_)) => true,
        (Network::Class(_), Network::Block(_)) => false,
        (Network::Block(allow), Network::Block(deny)) => allow.prefix_len() >= deny.prefix_len(),
    }
}

fn matches(rule: &Network, address: IpAddr) -> bool {
    match rule {
        Network::Class(class) => network::contains(*class, address),
        Network::Block(block) => block.contains(&address),
    }
}

/// Returns the word of a class; a block of the configuration has no name.
fn word(rule: &Network) -> &'static str {
    match rule {
        Network::Class(class) => class.word(),
        Network::Block(_) => "listed in egress.deny_networks",
    }
}

/// Returns the loopback address that is reached by dialling an unspecified one.
fn loopback_behind(address: IpAddr) -> Option<IpAddr> {
    address.is_unspecified().then(|| match address {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    })
}

fn carried(address: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let v6 = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(address),
    };
    v6.into_iter().flat_map(network::embedded)
}

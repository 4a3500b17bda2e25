//! Which destination a target belongs to: the most specific pattern wins.
//!
//! An exact host beats a suffix, a longer suffix a shorter one, a narrower network a wider one; with the same host part, a
//! pattern with a port beats one without, and that one beats any port. Where two patterns are the same, one that denies
//! beats one that allows. A look-up costs one hash for the host and one for
//! each label above it; networks are tried only for targets that are written as an address.
//!
//! What then happens to the request is decided by [`super::Policy::route`].

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{self, Problems};
use crate::host::{Host, HostPattern, Pattern, PortPattern, Target};

/// Looked up for every request; the hash is seeded anew in each process.
type HostMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// All host patterns of the configuration, ready to be looked up.
#[derive(Debug, Default)]
pub(crate) struct Router {
    claims: Vec<HostClaim>,
    hosts: HostMap<Host, PortClaims>,
    /// Narrowest first, then the most specific of the ports.
    networks: Vec<usize>,
    suffixes: HostMap<Arc<str>, PortClaims>,
}

/// A pattern and the destination that names it, by its index in the policy.
#[derive(Debug)]
pub(super) struct HostClaim {
    pub(super) pattern: HostPattern,
    pub(super) destination: usize,
}

/// The claims on one host or suffix, the most specific first.
#[derive(Debug, Default)]
struct PortClaims(Vec<(PortPattern, usize)>);

impl Router {
    /// Destination `i` of the configuration has index `i + 1` in the policy.
    pub(super) fn compile(destinations: &[Arc<config::DestinationKeys>], problems: &mut Problems) -> Self {
        let mut router = Self::default();
        let mut first: HashMap<&HostPattern, &config::DestinationKeys> = HashMap::new();
        // Those that deny come first: with the same pattern they win.
        let in_order = |deny: bool| {
            destinations
                .iter()
                .enumerate()
                .filter(move |(_, own)| own.deny == deny)
        };
        for (i, destination) in in_order(true).chain(in_order(false)) {
            for (j, pattern) in destination.hosts.iter().enumerate() {
                match first.get(pattern) {
                    None => {
                        first.insert(pattern, destination);
                        router.add(pattern.clone(), i + 1);
                    }
                    Some(other) if other.name == destination.name || (other.deny && !destination.deny) => {}
                    Some(other) => problems.add(
                        format!("destinations.{}.hosts[{j}]", destination.name),
                        format!("{pattern} is named by destination {} as well", other.name),
                        "name it in one of the two, or tell them apart by port",
                    ),
                }
            }
        }
        // What was reserved for more would stay with each of a thousand destinations.
        router.claims.shrink_to_fit();
        let ports = router.hosts.values_mut().chain(router.suffixes.values_mut());
        ports.for_each(|claims| claims.0.shrink_to_fit());
        let claims = &router.claims;
        router.networks.sort_by_key(|claim| {
            let HostPattern { what, port } = &claims[*claim].pattern;
            let length = match what {
                Pattern::Network(network) => network.prefix_len(),
                // Only networks are in this list.
                Pattern::Host(_) | Pattern::Suffix(_) => 0,
            };
            Reverse((length, *port))
        });
        router
    }

    /// Returns the most specific claim on `target`.
    pub(super) fn find(&self, target: &Target) -> Option<&HostClaim> {
        let exact = self
            .hosts
            .get(&target.host)
            .and_then(|ports| ports.at(target.port));
        let claim = exact.or_else(|| match &target.host {
            Host::Name(name) => self.find_suffix(name, target.port),
            Host::V4(address) => self.find_network((*address).into(), target.port),
            Host::V6(address) => self.find_network((*address).into(), target.port),
        })?;
        self.claims.get(claim)
    }

    /// Whether some port of `host` is named.
    pub(super) fn names_host(&self, host: &Host) -> bool {
        match host {
            _ if self.hosts.contains_key(host) => true,
            Host::Name(name) => self.suffixes_of(name).next().is_some(),
            Host::V4(address) => self.networks_of((*address).into()).next().is_some(),
            Host::V6(address) => self.networks_of((*address).into()).next().is_some(),
        }
    }

    pub(super) fn claims(&self) -> &[HostClaim] {
        &self.claims
    }

    fn add(&mut self, pattern: HostPattern, destination: usize) {
        let claim = self.claims.len();
        match &pattern.what {
            Pattern::Host(host) => self
                .hosts
                .entry(host.clone())
                .or_default()
                .add(pattern.port, claim),
            Pattern::Suffix(suffix) => self
                .suffixes
                .entry(suffix.clone())
                .or_default()
                .add(pattern.port, claim),
            Pattern::Network(_) => self.networks.push(claim),
        }
        self.claims.push(HostClaim { pattern, destination });
    }

    fn find_suffix(&self, name: &str, port: u16) -> Option<usize> {
        if self.suffixes.is_empty() {
            return None;
        }
        self.suffixes_of(name).find_map(|ports| ports.at(port))
    }

    /// Walks up the labels, so a suffix matches on a label border only and never the name itself.
    fn suffixes_of<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'r PortClaims> {
        let borders = name.bytes().enumerate().filter(|(_, byte)| *byte == b'.');
        borders.filter_map(|(at, _)| self.suffixes.get(&name[at + 1..]))
    }

    fn find_network(&self, address: IpAddr, port: u16) -> Option<usize> {
        let mut claims = self.networks_of(address);
        claims.find(|claim| self.claims[*claim].pattern.port.matches(port))
    }

    /// Returns the claims on networks that contain `address`, the narrowest first.
    fn networks_of(&self, address: IpAddr) -> impl Iterator<Item = usize> {
        let contains = move |claim: &usize| match &self.claims[*claim].pattern.what {
            Pattern::Network(network) => network.contains(&address),
            Pattern::Host(_) | Pattern::Suffix(_) => false,
        };
        self.networks.iter().copied().filter(contains)
    }
}

impl PortClaims {
    fn add(&mut self, port: PortPattern, claim: usize) {
        self.0.push((port, claim));
        self.0.sort_by_key(|(port, _)| Reverse(*port));
    }

    fn at(&self, port: u16) -> Option<usize> {
        let mut ports = self.0.iter();
        ports.find(|(own, _)| own.matches(port)).map(|(_, claim)| *claim)
    }
}

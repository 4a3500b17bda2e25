//! Which hosts become reachable or not, and which destination they belong to.
//!
//! Each host pattern of either file is looked up in both, at each port that either file tells apart. A pattern stands for
//! those hosts under it that no more specific pattern names.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::{Changes, Effect, Side, listed};
use crate::config::EgressDefault;
use crate::host::{Host, HostPattern, Pattern, PortPattern};
use crate::policy::{Destination, Policy};

/// Ports that are told apart: one, or all that are not named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PortRange {
    One(u16),
    Others,
}

/// What a policy does with a host and port.
#[derive(Clone, Debug)]
pub(super) enum Reach<'p> {
    /// No destination names it, and `egress.default` lets it pass.
    Default,
    Destination(&'p Arc<Destination>),
    /// Refused; by this destination, or because none names it.
    Refused(Option<&'p Arc<Destination>>),
}

/// What the two policies do with some hosts of one pattern.
#[derive(Debug)]
pub(super) struct HostChange<'p> {
    /// The pattern, without a port.
    host: String,
    port: PortRange,
    pub(super) old: Reach<'p>,
    pub(super) new: Reach<'p>,
}

/// Compares what is reachable, and returns every host with what becomes of it.
pub(super) fn compare<'p>(old: &'p Side, new: &'p Side, changes: &mut Changes) -> Vec<HostChange<'p>> {
    let routes = routes(&old.policy, &new.policy);
    let mut groups: BTreeMap<(Effect, String), Vec<&HostChange<'_>>> = BTreeMap::new();
    for route in &routes {
        let Some(change) = change(route) else { continue };
        groups.entry(change).or_default().push(route);
    }
    for ((effect, how), routes) in groups {
        changes.add(effect, how.replace(HOSTS, &listed(hosts(&routes))));
    }
    default(&old.policy, &new.policy, changes);
    routes
}

/// Where the hosts are in a sentence.
const HOSTS: &str = "\u{0}";

/// Returns the sentence about a host that another rule decides now.
fn change(route: &HostChange<'_>) -> Option<(Effect, String)> {
    let by = |destination: &Destination| format!("destination {}", destination.name);
    let sentence = match (&route.old, &route.new) {
        (Reach::Refused(_), Reach::Destination(new)) => {
            (Effect::Wider, format!("becomes reachable: {HOSTS} ({})", by(new)))
        }
        (Reach::Refused(Some(old)), Reach::Default) => (
            Effect::Wider,
            format!(
                "becomes reachable: {HOSTS} ({} denied it, egress.default does not)",
                by(old)
            ),
        ),
        (Reach::Refused(None), Reach::Default) => (
            Effect::Wider,
            format!("becomes reachable: {HOSTS} (egress.default)"),
        ),
        (Reach::Destination(_) | Reach::Default, Reach::Refused(Some(new))) => (
            Effect::Narrower,
            format!("no longer reachable: {HOSTS} ({} denies it)", by(new)),
        ),
        (Reach::Destination(_) | Reach::Default, Reach::Refused(None)) => {
            (Effect::Narrower, format!("no longer reachable: {HOSTS}"))
        }
        (Reach::Destination(old), Reach::Default) => (
            Effect::Wider,
            format!(
                "named by no destination any more: {HOSTS} (were in {}; egress.default lets them pass)",
                by(old)
            ),
        ),
        (Reach::Default, Reach::Destination(new)) => (
            Effect::Other,
            format!(
                "named by a destination now: {HOSTS} ({}; before, egress.default let them pass)",
                by(new)
            ),
        ),
        (Reach::Destination(old), Reach::Destination(new)) if old.name != new.name => (
            Effect::Other,
            format!("other destination: {HOSTS} ({} → {})", old.name, new.name),
        ),
        (Reach::Destination(_), Reach::Destination(_))
        | (Reach::Default, Reach::Default)
        | (Reach::Refused(_), Reach::Refused(_)) => return None,
    };
    Some(sentence)
}

/// Compares what happens to hosts that neither file names.
fn default(old: &Policy, new: &Policy, changes: &mut Changes) {
    let ports = |policy: &Policy| -> BTreeSet<u16> {
        match policy.default {
            EgressDefault::Deny => BTreeSet::new(),
            EgressDefault::Tunnel | EgressDefault::Observe => policy.ports.iter().copied().collect(),
        }
    };
    let (old, new) = (ports(old), ports(new));
    let shown = |ports: Vec<&u16>| listed(ports.into_iter().map(u16::to_string));
    let (more, less): (Vec<_>, Vec<_>) = (new.difference(&old).collect(), old.difference(&new).collect());
    if !more.is_empty() {
        let ports = shown(more);
        changes.add(
            Effect::Wider,
            format!("becomes reachable: every host that no destination names, on the ports {ports}"),
        );
    }
    if !less.is_empty() {
        let ports = shown(less);
        changes.add(
            Effect::Narrower,
            format!("no longer reachable: hosts that no destination names, on the ports {ports}"),
        );
    }
}

/// The patterns of a policy. Hosts are looked up, because a file may list very many.
struct NamedHosts<'p> {
    policy: &'p Policy,
    hosts: HashMap<&'p Host, Vec<NamedHost<'p>>>,
    /// Suffixes and networks.
    wide: Vec<NamedHost<'p>>,
}

type NamedHost<'p> = (&'p HostPattern, &'p Arc<Destination>);

/// How specific a pattern is: its kind, the length of its suffix or block, its port; then whether it denies.
#[derive(PartialEq, PartialOrd)]
struct Rank(u8, usize, PortPattern, bool);

/// Returns every pattern of either policy, at each port that is told apart, with what both do.
fn routes<'p>(old: &'p Policy, new: &'p Policy) -> Vec<HostChange<'p>> {
    let (old, new) = (NamedHosts::of(old), NamedHosts::of(new));
    let mut open = BTreeSet::new();
    for policy in [old.policy, new.policy] {
        if policy.default != EgressDefault::Deny {
            open.extend(policy.ports.iter().map(|port| PortRange::One(*port)));
        }
    }
    let mut routes = Vec::new();
    let mut seen = HashSet::new();
    for (pattern, _) in old.all().chain(new.all()) {
        let what = &pattern.what;
        if !seen.insert(what) {
            continue;
        }
        let host = what.to_string();
        let mut ports = open.clone();
        for (other, _) in old.covering(what).chain(new.covering(what)) {
            match other.port {
                PortPattern::Any => ports.extend([PortRange::Others]),
                PortPattern::One(port) => ports.extend([PortRange::One(port)]),
                PortPattern::Usual => ports.extend([80, 443].map(PortRange::One)),
            }
        }
        routes.extend(ports.into_iter().map(|port| HostChange {
            host: host.clone(),
            port,
            old: old.reach(what, port),
            new: new.reach(what, port),
        }));
    }
    routes
}

impl<'p> NamedHosts<'p> {
    fn of(policy: &'p Policy) -> Self {
        let mut named = Self {
            policy,
            hosts: HashMap::new(),
            wide: Vec::new(),
        };
        for destination in policy.destinations.iter().skip(1) {
            for pattern in &destination.hosts {
                match &pattern.what {
                    Pattern::Host(host) => named.hosts.entry(host).or_default().push((pattern, destination)),
                    Pattern::Suffix(_) | Pattern::Network(_) => named.wide.push((pattern, destination)),
                }
            }
        }
        named
    }

    /// Returns all of them, in the order of the file.
    fn all(&self) -> impl Iterator<Item = NamedHost<'p>> {
        let destinations = self.policy.destinations.iter().skip(1);
        destinations.flat_map(|own| own.hosts.iter().map(move |pattern| (pattern, own)))
    }

    /// Returns those that name every host of a pattern.
    fn covering(&self, what: &Pattern) -> impl Iterator<Item = NamedHost<'p>> {
        let exact = match what {
            Pattern::Host(host) => self.hosts.get(host),
            Pattern::Suffix(_) | Pattern::Network(_) => None,
        };
        let wide = self.wide.iter().filter(move |(own, _)| covers(&own.what, what));
        exact.into_iter().flatten().chain(wide).copied()
    }

    /// Returns what the policy does with the hosts of a pattern that no more specific one names.
    fn reach(&self, what: &Pattern, port: PortRange) -> Reach<'p> {
        let has_port = |own: &HostPattern| match port {
            PortRange::One(port) => own.port.matches(port),
            PortRange::Others => own.port == PortPattern::Any,
        };
        let mut best: Option<(Rank, &Arc<Destination>)> = None;
        for (own, destination) in self.covering(what).filter(|(own, _)| has_port(own)) {
            let (kind, length) = match &own.what {
                Pattern::Host(_) => (2, 0),
                Pattern::Suffix(suffix) => (1, suffix.len()),
                Pattern::Network(network) => (0, network.prefix_len().into()),
            };
            let rank = Rank(kind, length, own.port, destination.deny);
            if best.as_ref().is_none_or(|(other, _)| *other < rank) {
                best = Some((rank, destination));
            }
        }
        let is_open = self.policy.default != EgressDefault::Deny;
        match (best, port) {
            (Some((_, destination)), _) if destination.deny => Reach::Refused(Some(destination)),
            (Some((_, destination)), _) => Reach::Destination(destination),
            (None, PortRange::One(port)) if is_open && self.policy.ports.contains(&port) => Reach::Default,
            (None, _) => Reach::Refused(None),
        }
    }
}

/// Whether every host of `inner` is one of `outer`.
fn covers(outer: &Pattern, inner: &Pattern) -> bool {
    let below = |name: &str, suffix: &str| name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    match (outer, inner) {
        (Pattern::Host(outer), Pattern::Host(inner)) => outer == inner,
        (Pattern::Suffix(suffix), Pattern::Host(Host::Name(name))) => below(name, suffix),
        (Pattern::Suffix(suffix), Pattern::Suffix(inner)) => suffix == inner || below(inner, suffix),
        (Pattern::Network(network), Pattern::Host(host)) => host.ip().is_some_and(|ip| network.contains(&ip)),
        (Pattern::Network(network), Pattern::Network(inner)) => network.contains(inner),
        (Pattern::Host(_), Pattern::Suffix(_) | Pattern::Network(_))
        | (Pattern::Suffix(_), Pattern::Host(Host::V4(_) | Host::V6(_)) | Pattern::Network(_))
        | (Pattern::Network(_), Pattern::Suffix(_)) => false,
    }
}

/// Returns hosts as the configuration would write them, each with its ports.
pub(super) fn hosts<'r>(routes: impl IntoIterator<Item = &'r &'r HostChange<'r>>) -> Vec<String> {
    let mut ports: BTreeMap<&str, BTreeSet<PortRange>> = BTreeMap::new();
    for route in routes {
        ports.entry(&route.host).or_default().insert(route.port);
    }
    let mut hosts = Vec::new();
    for (host, mut ports) in ports {
        if ports.remove(&PortRange::Others) {
            let known: Vec<_> = ports.iter().map(PortRange::text).collect();
            hosts.push(match known.len() {
                0 => format!("{host} on every port that is not named"),
                _ => format!("{host}:*"),
            });
            continue;
        }
        let usual = [80, 443].map(PortRange::One);
        if usual.iter().all(|port| ports.contains(port)) {
            usual.iter().for_each(|port| {
                ports.remove(port);
            });
            hosts.push(host.to_owned());
        }
        hosts.extend(ports.iter().map(|port| format!("{host}:{}", port.text())));
    }
    hosts
}

impl PortRange {
    fn text(&self) -> String {
        match self {
            Self::One(port) => port.to_string(),
            Self::Others => "*".to_owned(),
        }
    }
}

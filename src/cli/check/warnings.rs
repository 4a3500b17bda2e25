//! What is allowed in a configuration and probably not meant.

use std::collections::HashMap;

use crate::config::{
    Config, Constraints, DestinationKeys, Egress, EgressDefault, Mode, Network, NetworkClass, OnLimit,
    Problems, TcpKeys,
};
use crate::host::{Host, HostPattern, Pattern, PortPattern};
use crate::policy::Policy;

/// Warns of interception by address: clients on BoringSSL know no name constraints for addresses, and refuse them.
pub(super) fn warn_of_addresses(config: &Config, policy: &Policy, warnings: &mut Problems) {
    if config.ca.constraints != Constraints::NamesAndAddresses {
        return;
    }
    for written in &config.destinations {
        let mut compiled = policy.destinations.iter();
        let is_intercepted = compiled.any(|one| one.intercept && *one.name == *written.name);
        let is_address = |host: &&HostPattern| {
            matches!(
                host.what,
                Pattern::Network(_) | Pattern::Host(Host::V4(_) | Host::V6(_))
            )
        };
        if let Some(host) = written.hosts.iter().find(is_address).filter(|_| is_intercepted) {
            warnings.add(
                format!("destinations.{}.hosts", written.name),
                format!(
                    "https to {host} is intercepted, and clients on BoringSSL (gRPC, Envoy, Electron, Bun) refuse our \
                     certificate for an address"
                ),
                "give them a name; or set `ca.constraints: names`, whose price is in docs/destinations.md",
            );
        }
    }
}

/// Warns of a list of denied networks that looks as if it opened the others, and of open metadata services.
pub(super) fn warn_of_networks(egress: &Egress, warnings: &mut Problems) {
    if let Some(unnamed) = egress.unnamed_classes() {
        warnings.add(
            "egress.deny_networks",
            format!("these networks are denied although the list does not name them: {unnamed}"),
            "name all classes or none; to open one, add it to egress.allow_networks",
        );
    }
    let metadata = Network::Class(NetworkClass::Metadata);
    if let Some(at) = egress.allow_networks.iter().position(|allow| *allow == metadata) {
        warnings.add(
            format!("egress.allow_networks[{at}]"),
            "the metadata services of the platform can be reached, and they give out credentials",
            "remove metadata, or name one address",
        );
    }
}

/// Warns of limits that let nothing through, and of an order for a queue that is always empty.
pub(super) fn warn_of_limits(destination: &DestinationKeys, warnings: &mut Problems) {
    let path = |key: &str| format!("destinations.{}.{key}", destination.name);
    for (i, _) in (destination.rate_limits.iter().enumerate()).filter(|(_, limit)| limit.rate.count == 0) {
        warnings.add(
            path(&format!("rate_limit[{i}]")),
            "a rate of zero refuses every request that it concerns",
            "write how many may pass, or leave the destination out",
        );
    }
    if !destination.priorities.is_empty() && destination.on_limit == OnLimit::Reject {
        warnings.add(
            path("priority"),
            "nobody waits here, so nobody goes first",
            "write on_limit: wait 2s, or remove it",
        );
    }
}

/// Warns of keys that do nothing for `https://`, because its tunnels pass untouched.
pub(super) fn warn_of_tunnels(destination: &DestinationKeys, warnings: &mut Problems) {
    if destination.mode != Mode::Tunnel {
        return;
    }
    let idle = destination.idle_in_tunnels();
    if !idle.is_empty() {
        warnings.add(
            format!("destinations.{}.mode", destination.name),
            format!(
                "tunnels of https:// pass untouched, so they get nothing of {}",
                idle.join(", ")
            ),
            "remove mode, or mode: intercept, to have it for every request",
        );
    }
}

/// Warns of credentials that reach more hosts than may be meant.
pub(super) fn warn_of_reach(destination: &DestinationKeys, warnings: &mut Problems) {
    if !destination.carries_credential() {
        return;
    }
    for (i, host) in destination.hosts.iter().enumerate() {
        let is_of_many = matches!(host.what, Pattern::Suffix(_) | Pattern::Network(_));
        let (what, right) = match host.port {
            _ if is_of_many => (
                format!("every host under {host} gets the credential"),
                "name the hosts one by one if they are not all yours to trust",
            ),
            PortPattern::Any => (
                format!("whatever listens at {host} gets the credential"),
                "name the ports one by one if they are not all yours to trust",
            ),
            PortPattern::One(_) | PortPattern::Usual => continue,
        };
        warnings.add(
            format!("destinations.{}.hosts[{i}]", destination.name),
            what,
            right,
        );
    }
}

/// Warns of a default that is meant for a while.
pub(super) fn warn_of_observing(egress: &Egress, warnings: &mut Problems) {
    if egress.default == EgressDefault::Observe {
        warnings.add(
            "egress.default",
            "every public host passes, and is recorded",
            "write deny when `outrider learn` adds nothing more",
        );
    }
}

/// Warns of patterns that another destination denies, although they are listed to be reached.
pub(super) fn warn_of_denied(config: &Config, warnings: &mut Problems) {
    let (denying, others): (Vec<_>, Vec<_>) = config.destinations.iter().partition(|own| own.deny);
    let denied: HashMap<&HostPattern, &str> = (denying.iter())
        .flat_map(|own| own.hosts.iter().map(|host| (host, &*own.name)))
        .collect();
    for destination in others {
        for (i, host) in destination.hosts.iter().enumerate() {
            if let Some(name) = denied.get(host) {
                warnings.add(
                    format!("destinations.{}.hosts[{i}]", destination.name),
                    format!("destinations.{name} denies {host}, so it is refused"),
                    "take it out of one of the two",
                );
            }
        }
    }
}

/// Warns of credentials that can be read on the way.
pub(super) fn warn_of_clear_wires(destination: &DestinationKeys, warnings: &mut Problems) {
    if destination.insecure_attach_over_http {
        let path = format!("destinations.{}.insecure_attach_over_http", destination.name);
        warnings.add(
            path,
            "the credential may leave in clear",
            "remove it if the destination speaks TLS",
        );
    }
}

/// Warns of a local port that ends no TLS, and of one whose protocol asks for TLS in the clear and is not told so.
pub(super) fn warn_of_clear_ports(entry: &TcpKeys, warnings: &mut Problems) {
    let path = |key: &str| format!("tcp.{}.{key}", entry.name);
    if entry.tls.is_none() {
        warnings.add(
            path("tls"),
            "off: what the app sends in clear leaves in clear, and no certificate is shown",
            "right for an app that speaks TLS itself; else remove it",
        );
        return;
    }
    if entry.starttls.is_some() {
        return;
    }
    // On these ports TLS never begins at once.
    let asks = match entry.to.port {
        25 | 587 => "smtp",
        143 => "imap",
        389 => "ldap",
        3306 => "mysql",
        5432 => "postgres",
        _ => return,
    };
    warnings.add(
        path("to"),
        format!("servers on port {} ask for TLS in the clear first", entry.to.port),
        format!("add starttls: {asks}"),
    );
}

/// Warns of a rehearsal, which must not run in production.
pub(super) fn warn_of_rehearsal(destination: &DestinationKeys, warnings: &mut Problems) {
    if let Some(rehearse) = &destination.rehearse {
        warnings.add(
            format!("destinations.{}.rehearse", destination.name),
            format!("answers of this destination are simulated: {rehearse}"),
            "remove it before production",
        );
    }
}

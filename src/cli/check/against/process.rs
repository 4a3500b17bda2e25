//! What changes outside of the destinations.

use std::net::SocketAddr;

use super::{Changes, Effect, Side, told};
use crate::config::{ChangedKey, Config, Listen, Network, PlaceholderMode, Placeholders};

/// Compares the other keys of the file.
pub(super) fn compare(old: &Side, new: &Side, changes: &mut Changes) {
    for key in old.written.changed(&new.written) {
        // Told entry by entry.
        if key.path == "tcp" {
            continue;
        }
        let (effect, how) = judge(&key, &old.written.config, &new.written.config);
        changes.add(effect, told(&key, how));
    }
}

/// Returns what another value of a key means.
fn judge(key: &ChangedKey, old: &Config, new: &Config) -> (Effect, &'static str) {
    let has_more = |old: &[Network], new: &[Network]| new.iter().any(|network| !old.contains(network));
    match key.path.as_str() {
        // The hosts that this concerns are told by themselves.
        "egress.default" | "egress.ports" => (Effect::Other, ""),
        "egress.allow_networks" if has_more(&old.egress.allow_networks, &new.egress.allow_networks) => {
            (Effect::Wider, "more addresses may be dialled")
        }
        "egress.allow_networks" => (Effect::Narrower, "fewer addresses may be dialled"),
        // The classes are always denied.
        "egress.deny_networks" if has_more(&blocks(new), &blocks(old)) => {
            (Effect::Wider, "more addresses may be dialled")
        }
        "egress.deny_networks" if has_more(&blocks(old), &blocks(new)) => {
            (Effect::Narrower, "fewer addresses may be dialled")
        }
        "egress.deny_networks" => (Effect::Other, "the classes are always denied"),
        "dns.hosts" => (Effect::Wider, "names lead elsewhere"),
        "dns.servers" => (Effect::Wider, "others say where names lead"),
        "no_proxy" if new.no_proxy.iter().any(|host| !old.no_proxy.contains(host)) => {
            (Effect::Wider, "the app calls more hosts past the proxy")
        }
        "no_proxy" => (Effect::Narrower, "the app calls fewer hosts past the proxy"),
        "listen" if public(new).iter().any(|address| !public(old).contains(address)) => {
            (Effect::Wider, "others than the app can reach the proxy")
        }
        "listen" if listeners(old).is_empty() && !listeners(new).is_empty() => {
            (Effect::Wider, "every user of this machine can reach the proxy")
        }
        "instances" if old.instances.is_some() && new.instances >= old.instances => (
            Effect::Narrower,
            "each instance takes a smaller part of the limits",
        ),
        "instances" => (
            Effect::Wider,
            "each instance may take a larger part of the limits",
        ),
        "placeholders" => placeholders(&old.placeholders, &new.placeholders),
        "admin" if new.admin.is_some_and(is_public) => (Effect::Wider, "others can read the pages"),
        "rate_limit_store" => (Effect::Wider, "another store is told the password, and counts"),
        "ca.constraints" => (Effect::Wider, "what the local authority may sign"),
        "clients" => (Effect::Wider, "others may use the proxy"),
        path if path.starts_with("route_service") => (Effect::Wider, "other ways through"),
        path if path.starts_with("egress.parent") => (Effect::Wider, "another way out"),
        _ => (Effect::Other, ""),
    }
}

/// Returns what other placeholders mean to the app.
fn placeholders(old: &Placeholders, new: &Placeholders) -> (Effect, &'static str) {
    let reach = |mode: PlaceholderMode| match mode {
        PlaceholderMode::Never => 0,
        PlaceholderMode::Auto => 1,
        PlaceholderMode::Always => 2,
    };
    let keeps =
        |own: &Placeholders, other: &Placeholders| own.keep.iter().any(|one| !other.keep.contains(one));
    let (was, is) = (reach(old.mode), reach(new.mode));
    if is < was || keeps(new, old) {
        (Effect::Wider, "the app gets secrets as they are")
    } else if is > was || keeps(old, new) {
        (Effect::Narrower, "the app gets fewer secrets")
    } else {
        (Effect::Other, "")
    }
}

/// Returns the networks that are denied beside the classes.
fn blocks(config: &Config) -> Vec<Network> {
    let denied = config.egress.deny_networks.iter();
    denied
        .filter(|network| matches!(network, Network::Block(_)))
        .copied()
        .collect()
}

fn listeners(config: &Config) -> Vec<SocketAddr> {
    config.listen.iter().filter_map(Listen::address).collect()
}

/// Returns the addresses that others than this machine reach.
fn public(config: &Config) -> Vec<SocketAddr> {
    let mut all = listeners(config);
    all.retain(|address| is_public(*address));
    all
}

fn is_public(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

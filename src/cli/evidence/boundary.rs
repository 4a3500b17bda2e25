//! SC-7: the ways in and out, and what bounds them.

use super::facts::{FactProof, Gathered, Standing, code, codes};
use super::inbound;
use crate::config::{Listen, Network, NetworkClass, ParentKeys, Text, Word as _};

/// How the facts of SC-7 are gathered.
pub(super) const BOUNDARY: &[fn(&mut Gathered<'_>)] = &[
    networks,
    bounds,
    parents,
    no_enforcement,
    listeners,
    inbound::boundary,
    admin,
];

const MONITOR: &str = "sc-7_smt.a";
const INTERFACES: &str = "sc-7_smt.c";

/// Tells which addresses may be dialled.
fn networks(found: &mut Gathered<'_>) {
    let egress = &found.config().egress;
    let classes = NetworkClass::CHOICES.iter().map(|(name, _)| *name);
    let blocks = egress.deny_networks.iter().filter_map(|network| match network {
        Network::Block(block) => Some(block.to_string()),
        Network::Class(_) => None,
    });
    let denied = codes(classes.map(str::to_owned).chain(blocks));
    let proofs = [
        found.setting("egress.deny_networks"),
        FactProof::Metric("outrider_denied_total{reason=\"network\"}"),
    ];
    let text = format!(
        "The addresses of every name are judged after its look-up, and exactly the judged ones are dialled. Denied \
         networks: {denied}."
    );
    found.add(MONITOR, Standing::Met, text, proofs);
    for (i, allowed) in egress.allow_networks.iter().enumerate() {
        let shown = match allowed {
            Network::Block(block) => block.to_string(),
            Network::Class(class) => class.word().to_owned(),
        };
        let services = if *allowed == Network::Class(NetworkClass::Metadata) {
            ", the platform's metadata services with them, which give out credentials"
        } else {
            ""
        };
        let text = format!(
            "An exception opens the network {} within what is denied{services}.",
            code(&shown)
        );
        let proofs = [found.setting(format!("egress.allow_networks[{i}]"))];
        found.add(MONITOR, Standing::Gap, text, proofs);
    }
}

/// Tells what bounds the use of outrider itself.
fn bounds(found: &mut Gathered<'_>) {
    let limits = &found.config().limits;
    let memory = match limits.memory {
        Some(bytes) => format!("`{bytes}` bytes of memory"),
        None => "memory by the container's `MEMORY_LIMIT`, if it is set".to_owned(),
    };
    let text = format!(
        "What the app can cost is bounded: `{}` connections, `{}` tunnels, request heads of `{}` bytes and `{}` fields, \
         {memory}. What is more is refused.",
        limits.connections, limits.tunnels, limits.header_size, limits.header_count
    );
    let keys = ["connections", "tunnels", "header_size", "header_count", "memory"];
    let mut proofs: Vec<_> = keys.map(|key| found.setting(format!("limits.{key}"))).into();
    proofs.push(FactProof::Metric("outrider_memory_short"));
    found.add(MONITOR, Standing::Met, text, proofs);
}

/// Tells through which proxies connections leave.
fn parents(found: &mut Gathered<'_>) {
    let config = found.config();
    let egress = &config.egress;
    if egress.parent.is_empty() {
        let proofs = [found.setting("egress.parent")];
        let text = "Connections leave outrider directly, through no parent proxy.";
        found.add(INTERFACES, Standing::Note, text, proofs);
    } else {
        let text = format!(
            "Connections leave through a parent proxy, the next one where one fails: {}. Where all fail, requests are refused.",
            names(&egress.parent)
        );
        let proofs = [
            found.setting("egress.parent"),
            FactProof::Metric("outrider_parent_connects_total"),
        ];
        found.add(INTERFACES, Standing::Met, text, proofs);
        let proofs = [found.setting("egress.parent")];
        let text = "The parent resolves names, and the addresses that it finds are not judged here.";
        found.add(INTERFACES, Standing::Gap, text, proofs);
        if !egress.parent_bypass.is_empty() {
            let text = format!(
                "These hosts, and the names below them, are reached without the parent: {}.",
                codes(&egress.parent_bypass)
            );
            let proofs = [found.setting("egress.parent_bypass")];
            found.add(INTERFACES, Standing::Gap, text, proofs);
        }
        if config.rate_limit_store.is_some() {
            let proofs = [found.setting("rate_limit_store")];
            let text = "The store of rate limits is reached without the parent.";
            found.add(INTERFACES, Standing::Gap, text, proofs);
        }
    }
    let is_direct = egress.parent.is_empty();
    for one in found.policy().destinations.iter().skip(1).filter(|one| !one.deny) {
        let key = format!("{}.parent", one.place());
        let own = one.parent.as_ref().filter(|plan| plan.place == key);
        let (standing, text) = match (own, &one.parent) {
            (Some(plan), _) => (
                Standing::Met,
                format!(
                    "leaves through parents that are its own: {}",
                    names(&plan.parents)
                ),
            ),
            (None, None) if !is_direct => (
                Standing::Gap,
                "reached directly, past the parent of all others".to_owned(),
            ),
            (None, _) => continue,
        };
        let proofs = [
            found.setting(key),
            FactProof::Metric("outrider_parent_connects_total"),
        ];
        found.add_of(&one.name, INTERFACES, standing, text, proofs);
    }
}

/// Returns parents as they are written: URLs of the file have no password.
fn names(parents: &[ParentKeys]) -> String {
    codes(parents.iter().map(|parent| match &parent.url {
        Text::Plain(url) => url.clone(),
        Text::Reference(reference) => reference.to_string(),
    }))
}

/// Tells what outrider cannot close.
fn no_enforcement(found: &mut Gathered<'_>) {
    let page = FactProof::Always("docs/operating.md#what-a-sidecar-cannot-promise");
    let text = "An app that does not heed the proxy variables goes past outrider. The platform's own egress rules have to \
                close every other way out.";
    found.add(INTERFACES, Standing::Gap, text, [page]);
    let hosts = &found.config().no_proxy;
    if !hosts.is_empty() {
        let text = format!(
            "Apps are told to call these hosts without outrider: {}.",
            codes(hosts)
        );
        let proofs = [found.setting("no_proxy")];
        found.add(INTERFACES, Standing::Gap, text, proofs);
    }
}

/// Tells who can reach the listeners.
fn listeners(found: &mut Gathered<'_>) {
    let config = found.config();
    for listen in &config.listen {
        let shown = code(&listen.to_string());
        let mut proofs = vec![found.setting("listen")];
        let text = match (listen, listen.public()) {
            // Without `clients` such a configuration is refused.
            (_, Some(_)) => {
                proofs.push(found.setting("clients"));
                format!(
                    "The listener {shown} can be reached from other machines, and serves the clients of `clients` only."
                )
            }
            (Listen::Unix(_), None) => {
                format!("The listener {shown} is a socket in the file system: only this machine reaches it.")
            }
            (Listen::Tcp(_), None) => format!("The listener {shown} can be reached from this machine only."),
        };
        found.add(INTERFACES, Standing::Met, text, proofs);
    }
}

/// Tells who can reach the pages.
fn admin(found: &mut Gathered<'_>) {
    let proofs = [found.setting("admin")];
    match found.config().admin {
        None => found.add(INTERFACES, Standing::Met, "There is no admin page.", proofs),
        Some(address) if address.ip().to_canonical().is_loopback() => {
            let text = format!(
                "Metrics, status and health at {} can be reached from this machine only; nobody is asked who he is there.",
                code(&address.to_string())
            );
            found.add(INTERFACES, Standing::Met, text, proofs);
        }
        Some(address) => {
            let text = format!(
                "Metrics, status and health at {} can be reached from other machines; nobody is asked who he is there, and \
                 hosts and paths that the app asks for are on these pages.",
                code(&address.to_string())
            );
            found.add(INTERFACES, Standing::Gap, text, proofs);
        }
    }
}

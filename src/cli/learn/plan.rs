//! Which destinations the record asks for.
//!
//! They allow what was observed and not more: a host is written with its port unless both 80 and 443 were seen, because a
//! bare host means both. What a destination of the file names already is left alone, whether it allows or denies.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::globs::globs;
use super::names::name;
use super::record::{Record, SeenHost};
use crate::config::{NewDestination, is_destination_name};
use crate::host::{Scheme, Target};
use crate::policy::Policy;

/// How the destinations are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// One for each host.
    Hosts,
    /// One for all.
    Named(String),
    /// One for each host, with paths and methods where these are known.
    Paths,
}

/// Why a name cannot be taken; `Display` contains the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    #[error("--name takes at most 63 of a to z, 0 to 9, - and _, and not none or unlisted")]
    Malformed,
    #[error(
        "the file has a destination {0}, which is not changed, because its hosts get what it attaches; choose another name"
    )]
    Taken(String),
}

/// What to add, and what to tell.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) new: Vec<NewDestination>,
    pub(super) notes: Vec<String>,
    /// Hosts with a port that the file names already.
    pub(super) covered: usize,
    pub(super) observed: usize,
}

/// The only requests that are allowed; none where all are.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Allowed {
    paths: Vec<String>,
    methods: Vec<String>,
}

impl Plan {
    pub(super) fn of(record: &Record, policy: &Policy, wish: &Wish) -> Result<Self, NameError> {
        let mut plan = Self {
            new: Vec::new(),
            notes: Vec::new(),
            covered: 0,
            observed: record.hosts.len(),
        };
        let known = policy.destinations.iter().map(|known| known.name.to_string());
        let mut taken: HashSet<String> = known.collect();
        // By host; then the ports by what is allowed there.
        let mut wanted: BTreeMap<&str, BTreeMap<Allowed, BTreeSet<u16>>> = BTreeMap::new();
        for ((host, port), seen) in &record.hosts {
            if let Some(allowed) = plan.judge(host, *port, seen, policy, wish) {
                let ports = wanted.entry(host).or_default().entry(allowed).or_default();
                ports.insert(*port);
            }
        }
        plan.tell_of_gaps(record);
        if let Wish::Named(own) = wish {
            if !is_destination_name(own) {
                return Err(NameError::Malformed);
            }
            if !wanted.is_empty() {
                if taken.contains(own) {
                    return Err(NameError::Taken(own.clone()));
                }
                let hosts = wanted
                    .iter()
                    .flat_map(|(host, rules)| rules.values().flat_map(|ports| hosts(host, ports)));
                plan.new.push(NewDestination {
                    name: own.clone(),
                    hosts: hosts.collect(),
                    paths: Vec::new(),
                    methods: Vec::new(),
                });
            }
            return Ok(plan);
        }
        for (host, rules) in wanted {
            for (allowed, ports) in rules {
                let first = ports.first().copied().unwrap_or_default();
                plan.new.push(NewDestination {
                    name: name(host, first, &mut taken),
                    hosts: hosts(host, &ports),
                    paths: allowed.paths,
                    methods: allowed.methods,
                });
            }
        }
        Ok(plan)
    }

    /// Returns what to allow at a host and port; `None` if nothing is to be added.
    fn judge(
        &mut self,
        host: &str,
        port: u16,
        seen: &SeenHost,
        policy: &Policy,
        wish: &Wish,
    ) -> Option<Allowed> {
        let mut left_out = |why: &str| {
            self.notes.push(format!("{host}:{port} is left out: {why}"));
            None
        };
        let target = Target {
            scheme: Scheme::Https,
            host: seen.host.clone(),
            port,
        };
        match policy.find(&target) {
            (destination, Some(_)) if destination.deny => {
                return left_out(&format!("destination {} denies it", destination.name));
            }
            (_, Some(_)) => {
                self.covered += 1;
                return None;
            }
            (_, None) => {}
        }
        if !seen.has_answered {
            return left_out("nothing there ever answered");
        }
        if let Some(address) = seen.host.ip()
            && let Err(denial) = policy.egress.approve(&[address], port)
        {
            return left_out(&denial.to_string());
        }
        if *wish != Wish::Paths || (seen.requests.is_empty() && seen.has_unseen) {
            return Some(Allowed::default());
        }
        if seen.has_unseen {
            return left_out(
                "not all of its methods and paths are known, since tunnels are not looked into and the record has a bound; \
                 without --paths it is learned as a whole",
            );
        }
        // The configuration has methods in capitals only.
        let is_method = |method: &str| method == method.to_ascii_uppercase() && method != "CONNECT";
        let (known, odd): (Vec<_>, Vec<_>) = seen.requests.iter().partition(|(method, _)| is_method(method));
        for (method, _) in odd {
            self.notes.push(format!(
                "{host}:{port}: requests with the method {method} are left out"
            ));
        }
        let (paths, refused) = globs(known.iter().map(|(_, path)| path.as_str()));
        for path in &refused {
            let path = path.escape_debug();
            self.notes.push(format!(
                "{host}:{port}{path} is left out: servers read this path in several ways, so that a pattern would allow more"
            ));
        }
        if paths.is_empty() {
            return None;
        }
        let known = known.iter().filter(|(_, path)| !refused.contains(&path.as_str()));
        let methods: BTreeSet<_> = known.map(|(method, _)| method.clone()).collect();
        Some(Allowed {
            paths,
            methods: methods.into_iter().collect(),
        })
    }

    /// Says what the record does not have.
    fn tell_of_gaps(&mut self, record: &Record) {
        if record.left_out > 0 {
            self.notes.push(format!(
                "the record had no room for {} exchanges with more hosts: learn, reload, and learn again",
                record.left_out
            ));
        }
        if record.odd > 0 {
            self.notes.push(format!(
                "left out: {} entries without a usable host and port",
                record.odd
            ));
        }
    }
}

/// Returns the patterns for a host on these ports. A bare host means 80 and 443, so it is written only for both.
fn hosts(host: &str, ports: &BTreeSet<u16>) -> Vec<String> {
    let has_both = ports.contains(&80) && ports.contains(&443);
    let bare = has_both.then(|| host.to_owned());
    let others = ports.iter().filter(|port| !has_both || !matches!(port, 80 | 443));
    bare.into_iter()
        .chain(others.map(|port| format!("{host}:{port}")))
        .collect()
}

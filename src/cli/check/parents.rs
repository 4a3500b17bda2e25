//! Parent proxies: what their secrets hold, and what is allowed and probably wrong.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Holds, Reference, add, of_tls, told};
use crate::config::{Config, Listen, Problem, Problems, Text};
use crate::policy::{EgressRules, ParentPlan, Policy};
use crate::secret::Snapshot;
use crate::secret::roots::SystemRoots;
use crate::telemetry::Telemetry;
use crate::upstream::parent::Parents;

/// Makes the parents from their secrets, as the proxy would.
pub(super) fn examine(
    config: &Config,
    policy: &Policy,
    snapshot: &Snapshot,
    roots: &SystemRoots,
    problems: &mut Problems,
    warnings: &mut Problems,
) {
    let mut plans: Vec<&Arc<ParentPlan>> = Vec::new();
    for plan in policy.destinations.iter().filter_map(|one| one.parent.as_ref()) {
        if !plans.iter().any(|known| Arc::ptr_eq(known, plan)) {
            plans.push(plan);
        }
    }
    let own = config.listen.iter().filter_map(Listen::address);
    let own: Vec<SocketAddr> = own.chain(config.admin).collect();
    let (rules, telemetry) = (EgressRules::of_operator().with_own(own), Telemetry::new());
    let mut has_tls = false;
    for plan in &plans {
        match Parents::build(plan, snapshot, roots, &rules, &"check".into(), &telemetry) {
            Err(error) => {
                let (what, right) = told(&error);
                // It begins with the key.
                let (path, what) = what.split_once(": ").unwrap_or((&plan.place, &what));
                let is_known = |one: &Problem| one.path == path && one.what == what;
                if !problems.all.iter().any(is_known) {
                    problems.add(path, what, right);
                }
                // Nothing more is known of them.
                has_tls = true;
            }
            Ok(parents) => {
                has_tls |= parents.has_tls();
                for name in parents.readable() {
                    warnings.add(
                        plan.place.as_str(),
                        format!(
                            "the credentials for {name} leave in clear, for everybody on the way to read"
                        ),
                        "reach it by https://, as the egress proxy of cloud.gov by its https_uri",
                    );
                }
            }
        }
        for reference in secrets(plan) {
            for warning in snapshot.warnings(reference.to) {
                add(warnings, &reference.path, &warning);
            }
        }
    }
    if config.egress.parent_ca.is_some() && !has_tls {
        warnings.add(
            "egress.parent_ca",
            "no parent is reached by https://, so nobody is verified with these roots",
            "write https:// in the URL of the parent, or leave it out",
        );
    }
}

/// Returns the references of a plan that are secret, which certificates and lists are not.
pub(in crate::cli) fn secrets(plan: &ParentPlan) -> Vec<Reference<'_>> {
    let mut all = Vec::new();
    for (i, parent) in plan.parents.iter().enumerate() {
        let place = plan.place_of(i);
        let mut add = |key: &str, to, holds| {
            let path = match key {
                "" => place.clone(),
                _ => format!("{place}.{key}"),
            };
            all.push(Reference { path, to, holds });
        };
        if let Text::Reference(url) = &parent.url {
            add("", url, Holds::Secret);
        }
        if let Some(Text::Reference(username)) = &parent.username {
            add("username", username, Holds::Secret);
        }
        if let Some(password) = &parent.password {
            add("password", password, Holds::Password);
        }
        of_tls(&parent.tls, &mut add);
    }
    all.retain(|reference| reference.holds.is_secret());
    all
}

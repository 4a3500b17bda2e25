//! Parent proxies: what their secrets hold, and what is allowed and probably wrong.

use std::net::SocketAddr;
use std::sync::Arc;

use super::add;
use crate::config::{Config, Listen, Problems};
use crate::policy::{EgressRules, ParentPlan, Policy};
use crate::secret::Snapshot;
use crate::secret::roots::SystemRoots;
use crate::telemetry::Telemetry;
use crate::upstream::parent::{self, Parents};

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
    let own = config.listen.iter().filter_map(|listen| match listen {
        Listen::Tcp(address) => Some(*address),
        Listen::Unix(_) => None,
    });
    let own: Vec<SocketAddr> = own.chain(config.admin).collect();
    let (rules, telemetry) = (EgressRules::of_operator().with_own(own), Telemetry::new());
    let mut has_tls = false;
    for plan in &plans {
        match Parents::build(plan, snapshot, roots, &rules, &"check".into(), &telemetry) {
            Err(error) => {
                add(problems, &plan.place, &error);
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
        for reference in parent::references(plan, snapshot) {
            for warning in snapshot.warnings(&reference) {
                add(warnings, &plan.place, &warning);
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

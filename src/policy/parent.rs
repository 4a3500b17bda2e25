//! Which parent proxies a destination is reached through, and which hosts are reached without them.

use std::sync::Arc;

use crate::config::{self, ParentChoice, ParentKeys, SecretRef};
use crate::host::{Host, HostPattern, Pattern, Target};

/// The parents of one place of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ParentPlan {
    /// Whom to trust as an `https://` parent, if that is written.
    pub(crate) ca: Option<SecretRef>,
    /// At least one, in the order in which they are tried.
    pub(crate) parents: Vec<ParentKeys>,
    /// The key that names them.
    pub(crate) place: String,
    bypass: Vec<HostPattern>,
}

impl ParentPlan {
    /// Returns the plan of `egress.parent`. `None`: everything is reached directly.
    pub(super) fn of_egress(egress: &config::Egress) -> Option<Arc<Self>> {
        let plan = Self {
            ca: egress.parent_ca.clone(),
            parents: egress.parent.clone(),
            place: "egress.parent".to_owned(),
            bypass: egress.parent_bypass.clone(),
        };
        (!plan.parents.is_empty()).then(|| Arc::new(plan))
    }

    /// Returns the plan of the destination that is written at `place`. Its parents are for all of its hosts.
    pub(super) fn of_destination(
        written: &config::DestinationKeys,
        place: &str,
        egress: &config::Egress,
        inherited: Option<&Arc<Self>>,
    ) -> Option<Arc<Self>> {
        match &written.parent {
            ParentChoice::Inherit => inherited.cloned(),
            ParentChoice::None => None,
            ParentChoice::Own(parents) => Some(Arc::new(Self {
                ca: egress.parent_ca.clone(),
                parents: parents.clone(),
                place: format!("{place}.parent"),
                bypass: Vec::new(),
            })),
        }
    }

    /// Returns the key of the parent with this index.
    pub(crate) fn place_of(&self, index: usize) -> String {
        match self.parents.len() {
            1 => self.place.clone(),
            _ => format!("{}[{index}]", self.place),
        }
    }

    /// Whether `target` is reached without a parent.
    pub(crate) fn bypasses(&self, target: &Target) -> bool {
        self.bypass.iter().any(|pattern| {
            let is_host = match (&pattern.what, &target.host) {
                (Pattern::Host(Host::Name(own)), Host::Name(name)) => own == name || is_below(name, own),
                (Pattern::Suffix(own), Host::Name(name)) => is_below(name, own),
                (Pattern::Host(own), host) => own == host,
                (Pattern::Network(network), host) => host.ip().is_some_and(|ip| network.contains(&ip)),
                (Pattern::Suffix(_), Host::V4(_) | Host::V6(_)) => false,
            };
            is_host && pattern.port.matches(target.port)
        })
    }
}

/// Whether `name` is a name below `suffix`.
fn is_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::policy::Policy;

    use super::*;

    fn plan(egress: &str) -> Arc<ParentPlan> {
        let config = Config::parse(&format!("egress: {{ default: tunnel, {egress} }}"), "test").unwrap();
        let policy = Policy::compile(&config).unwrap();
        policy.destinations[0].parent.clone().unwrap()
    }

    fn target(authority: &str) -> Target {
        let uri = format!("http://{authority}/").parse().unwrap();
        Target::of_absolute(&uri).unwrap()
    }

    #[test]
    fn a_bypass_means_a_name_and_what_is_below_it_on_any_port() {
        let by_default = plan("parent: http://p:1");
        for (authority, expected) in [
            ("apps.internal", true),
            ("a.apps.internal:8443", true),
            ("A.B.apps.internal.", true),
            ("xapps.internal", false),
            ("apps.internal.example", false),
            ("internal", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(by_default.bypasses(&target(authority)), expected, "{authority}");
        }
        let written = plan(
            "parent: http://p:1, parent_bypass: [.dot.test, \"*.only.test\", \"port.test:81\", 10.0.0.0/8, \"::1\"]",
        );
        for (authority, expected) in [
            ("apps.internal", false),
            ("dot.test", true),
            ("a.dot.test:9", true),
            ("only.test", false),
            ("a.only.test", true),
            ("port.test:81", true),
            ("port.test", false),
            ("10.1.2.3:5", true),
            ("11.1.2.3", false),
            ("[::1]:7", true),
            ("10.example", false),
        ] {
            assert_eq!(written.bypasses(&target(authority)), expected, "{authority}");
        }
    }

    #[test]
    fn a_destination_inherits_has_none_or_its_own_parents() {
        let config = Config::parse(
            "egress: { parent: [http://a:1, \"socks5://b:2\"] }\n\
             destinations:\n  i: { hosts: [i.test] }\n  n: { hosts: [n.test], parent: none }\n  \
             o: { hosts: [o.apps.internal], parent: https://c:3 }",
            "test",
        )
        .unwrap();
        let policy = Policy::compile(&config).unwrap();
        let places: Vec<_> = policy
            .destinations
            .iter()
            .map(|one| {
                one.parent
                    .as_ref()
                    .map(|plan| (plan.place.as_str(), plan.parents.len()))
            })
            .collect();
        assert_eq!(
            places,
            [
                Some(("egress.parent", 2)),
                Some(("egress.parent", 2)),
                None,
                Some(("destinations.o.parent", 1))
            ]
        );
        // Its parents are named for it, so no list of all of them takes its hosts out.
        let own = policy.destinations[3].parent.as_ref().unwrap();
        assert!(!own.bypasses(&target("o.apps.internal")));
    }
}

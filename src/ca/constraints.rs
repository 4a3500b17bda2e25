//! The hosts that the authority may vouch for, as name constraints.
//!
//! An app that trusts the authority trusts it only for the hosts that the configuration intercepts: the certificate
//! says so in a critical name-constraints extension (RFC 5280, section 4.2.1.10). OpenSSL and what uses it
//! (Python, Node, curl), Go and rustls check it, so that a stolen key vouches for nothing else there. Java does not
//! look at the constraints of a root that it is configured to trust, as the standard allows; it accepts what they
//! permit.
//!
//! BoringSSL knows no constraints for addresses and refuses a leaf for one wherever the authority has any; Mbed TLS
//! takes no certificate with a critical extension that it does not know, this one among them. For their sake the
//! configuration may leave out a part, or all.
//!
//! A dNSName subtree contains every name below it, so `host` also permits `x.host`, and `*.suffix` also permits
//! `suffix`: the standard knows nothing narrower.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};

use crate::config::Constraints;
use crate::host::{Host, HostPattern, Pattern};

/// The permitted subtrees, in one canonical order, so that two configurations compare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PermittedHosts {
    about: Constraints,
    names: BTreeSet<Arc<str>>,
    networks: BTreeSet<IpNet>,
}

impl PermittedHosts {
    pub(super) fn of(hosts: &[HostPattern], about: Constraints) -> Self {
        let mut constraints = Self {
            about,
            ..Self::default()
        };
        for pattern in hosts {
            match &pattern.what {
                Pattern::Host(Host::Name(name)) | Pattern::Suffix(name) => {
                    constraints.names.insert(name.clone());
                }
                Pattern::Host(Host::V4(ip)) => {
                    constraints.networks.insert(IpNet::V4(Ipv4Net::from(*ip)));
                }
                Pattern::Host(Host::V6(ip)) => {
                    constraints.networks.insert(IpNet::V6(Ipv6Net::from(*ip)));
                }
                Pattern::Network(network) => {
                    constraints.networks.insert(network.trunc());
                }
            }
        }
        constraints
    }

    /// Whether this permits something that `earlier` did not list.
    pub(super) fn widen(&self, earlier: &Self) -> bool {
        !(self.names.is_subset(&earlier.names)
            && self.networks.is_subset(&earlier.networks)
            && self.about == earlier.about)
    }

    /// Whether addresses that are intercepted are among them.
    pub(super) fn confine_addresses(&self) -> bool {
        self.about == Constraints::NamesAndAddresses && !self.networks.is_empty()
    }

    /// The extension; `None`: the configuration wants none. Neither kind of name is left unconstrained but as the
    /// configuration says, and addresses are not where none is intercepted.
    pub(super) fn extension(&self) -> Option<NameConstraints> {
        let mut permitted: Vec<_> = (self.names.iter())
            .map(|name| GeneralSubtree::DnsName(name.to_string()))
            .collect();
        match self.about {
            Constraints::NamesAndAddresses => permitted.extend(self.networks.iter().map(subtree)),
            Constraints::Names => {}
            Constraints::None => return None,
        }
        let mut excluded = Vec::new();

        if self.names.is_empty() {
            permitted.push(GeneralSubtree::DnsName(NO_NAME.to_owned()));
        }
        if self.networks.is_empty() {
            excluded.push(subtree(&Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into()));
            excluded.push(subtree(&Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into()));
        }
        Some(NameConstraints {
            permitted_subtrees: permitted,
            excluded_subtrees: excluded,
        })
    }
}

/// Means "no name at all". Not every client takes an exclusion of the empty dNSName for all names, but each of
/// them knows a permitted subtree; and below `.invalid` there is no host (RFC 6761, section 6.4).
const NO_NAME: &str = "outrider.invalid";

fn subtree(network: &IpNet) -> GeneralSubtree {
    GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(
        network.network(),
        network.prefix_len(),
    ))
}

//! Checks the certificate policies of a path (RFC 5280, section 6.1), which webpki does not. Any policy is acceptable, and at
//! the start nothing is demanded or forbidden.
//!
//! A path is refused if one of its authorities demands a policy (requireExplicitPolicy) and no policy is valid down to the
//! server: section 6.1.5 (g). Without such a demand nothing is refused. The extensions of the root do not count, as in the
//! RFC.
//!
//! RFC 5280 builds a tree, which a hostile chain can make grow without bounds (CVE-2023-0464); RFC 9618 makes it a graph.
//! As any policy is acceptable, the lowest row is enough: a policy that is valid there has a parent in each row above.

use std::collections::HashSet;

use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::oid::Oid;
use x509_parser::extensions::{ParsedExtension, PolicyInformation};
use x509_parser::oid_registry::{
    OID_X509_EXT_CERTIFICATE_POLICIES, OID_X509_EXT_INHIBIT_ANY_POLICY, OID_X509_EXT_POLICY_CONSTRAINTS,
    OID_X509_EXT_POLICY_MAPPINGS,
};

use super::certificate;
use super::fault::CertificateFault;

const TWICE: &str = "an extension about policies that stands in it twice";
const UNREADABLE: &str = "an extension about policies that cannot be read";

/// anyPolicy, 2.5.29.32.0.
const ANY: &[u8] = &[0x55, 0x1d, 0x20, 0x00];

/// A statement's address and a notice for people: id-qt-cps and id-qt-unotice.
const QUALIFIERS: &[&[u8]] = &[
    &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x02, 0x01],
    &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x02, 0x02],
];

/// Checks the policies of a path that is verified otherwise. `path`: the server's certificate first, without the root.
pub(super) fn judge(path: &[X509Certificate<'_>]) -> Result<(), CertificateFault> {
    let whose = |place: usize| match place {
        0 => String::new(),
        _ => format!(" of {}", certificate::title(&path[place])),
    };
    let said = path.iter().enumerate().map(|(place, one)| {
        PolicyExtensions::of(one).map_err(|what| CertificateFault::PolicyExtension {
            whose: whose(place),
            what,
        })
    });
    let said: Vec<PolicyExtensions<'_>> = said.collect::<Result<_, _>>()?;

    let beyond = u32::try_from(path.len()).map_or(u32::MAX, |length| length + 1);
    let (mut explicit, mut mapping, mut any) = (beyond, beyond, beyond);
    let mut valid = Valid::below_root();
    // The last certificate that demands a policy, and where and why no valid one is left.
    let mut demands = 0;
    let mut lost: Option<(usize, NoPolicy)> = None;
    let refused = |demands: usize, lost: &Option<(usize, NoPolicy)>| {
        let (place, lost) = lost.as_ref().unwrap_or(&(0, NoPolicy::Unnamed));
        Err(CertificateFault::Policy {
            demanded_by: certificate::title(&path[demands]),
            why: format!("{} {lost}", certificate::title(&path[*place])),
        })
    };
    for (place, (one, said)) in path.iter().zip(&said).enumerate().rev() {
        let is_last = place == 0;
        let is_self_issued = one.subject().as_raw() == one.issuer().as_raw();
        let may_be_any = any > 0 || (!is_last && is_self_issued);
        let mut lose = |valid: &Valid<'_>, why: NoPolicy| {
            if valid.is_none() && lost.is_none() {
                lost = Some((place, why));
            }
        };
        let why = valid.descend(said, may_be_any);
        lose(&valid, why);
        if explicit == 0 && valid.is_none() {
            return refused(demands, &lost);
        }
        if is_last {
            // Also for a self-issued one: 6.1.5 (a).
            explicit = explicit.saturating_sub(1);
            if said.explicit == Some(0) {
                (explicit, demands) = (0, place);
            }
            break;
        }
        valid.map(&said.mappings, mapping > 0);
        lose(&valid, NoPolicy::Mapped);
        if !is_self_issued {
            for counter in [&mut explicit, &mut mapping, &mut any] {
                *counter = counter.saturating_sub(1);
            }
        }
        if let Some(skip) = said.explicit.filter(|skip| *skip < explicit) {
            (explicit, demands) = (skip, place);
        }
        mapping = said.mapping.map_or(mapping, |skip| skip.min(mapping));
        any = said.any_inhibited.map_or(any, |skip| skip.min(any));
    }
    if explicit == 0 && valid.is_none() {
        refused(demands, &lost)
    } else {
        Ok(())
    }
}

/// The extensions of a certificate about policies.
#[derive(Default)]
struct PolicyExtensions<'c> {
    /// It names anyPolicy.
    any: bool,
    /// After how many certificates anyPolicy no longer counts.
    any_inhibited: Option<u32>,
    /// After how many certificates a policy is demanded.
    explicit: Option<u32>,
    /// After how many certificates policies are no longer mapped.
    mapping: Option<u32>,
    /// From a policy of the issuer to one of the subject.
    mappings: Vec<(&'c [u8], &'c [u8])>,
    /// The policies that it names, without anyPolicy.
    named: HashSet<&'c [u8]>,
}

impl<'c> PolicyExtensions<'c> {
    /// Reads the extensions. The error says what RFC 5280 does not allow.
    fn of(certificate: &'c X509Certificate<'_>) -> Result<Self, &'static str> {
        let mut said = Self::default();
        // Each of the four at most once. Trailing bytes make an extension unreadable.
        let find = |oid: &Oid<'_>| {
            let found = certificate.get_extension_unique(oid).map_err(|_| TWICE)?;
            let is_whole = |value: &[u8]| yasna::parse_der(value, |reader| reader.read_der()).is_ok();
            match found {
                Some(extension) if !is_whole(extension.value) => Err(UNREADABLE),
                found => Ok(found),
            }
        };
        if let Some(extension) = find(&OID_X509_EXT_CERTIFICATE_POLICIES)? {
            let ParsedExtension::CertificatePolicies(policies) = extension.parsed_extension() else {
                return Err(UNREADABLE);
            };
            if policies.is_empty() {
                return Err("certificatePolicies that name no policy");
            }
            for policy in policies {
                let id = policy.policy_id.as_bytes();
                let is_new = if id == ANY {
                    !std::mem::replace(&mut said.any, true)
                } else {
                    said.named.insert(id)
                };
                if !is_new {
                    return Err("certificatePolicies that name a policy twice");
                }
                if extension.critical && !is_understood(policy) {
                    return Err("critical certificatePolicies whose qualifiers are not known here");
                }
            }
        }
        if let Some(extension) = find(&OID_X509_EXT_POLICY_MAPPINGS)? {
            let ParsedExtension::PolicyMappings(mappings) = extension.parsed_extension() else {
                return Err(UNREADABLE);
            };
            let pairs = mappings.mappings.iter();
            said.mappings = pairs
                .map(|one| {
                    (
                        one.issuer_domain_policy.as_bytes(),
                        one.subject_domain_policy.as_bytes(),
                    )
                })
                .collect();
            if said.mappings.is_empty() {
                return Err("policyMappings that map nothing");
            }
            if said.mappings.iter().any(|(from, to)| *from == ANY || *to == ANY) {
                return Err("policyMappings from or to anyPolicy");
            }
        }
        if let Some(extension) = find(&OID_X509_EXT_POLICY_CONSTRAINTS)? {
            let ParsedExtension::PolicyConstraints(constraints) = extension.parsed_extension() else {
                return Err(UNREADABLE);
            };
            said.explicit = constraints.require_explicit_policy;
            said.mapping = constraints.inhibit_policy_mapping;
            if said.explicit.is_none() && said.mapping.is_none() {
                return Err("policyConstraints that say nothing");
            }
        }
        if let Some(extension) = find(&OID_X509_EXT_INHIBIT_ANY_POLICY)? {
            let ParsedExtension::InhibitAnyPolicy(inhibit) = extension.parsed_extension() else {
                return Err(UNREADABLE);
            };
            said.any_inhibited = Some(inhibit.skip_certs);
        }
        Ok(said)
    }
}

/// Whether the qualifiers of a policy are those of RFC 5280: a critical extension must be understood whole (4.2.1.4).
fn is_understood(policy: &PolicyInformation<'_>) -> bool {
    let mut qualifiers = policy.policy_qualifiers.iter().flatten();
    qualifiers.all(|one| QUALIFIERS.contains(&one.policy_qualifier_id.as_bytes()))
}

/// The lowest row of RFC 5280's tree: which policies are valid so far, by the names that are expected next.
struct Valid<'c> {
    any: bool,
    expected: HashSet<&'c [u8]>,
}

impl<'c> Valid<'c> {
    /// Starts below a root, where every policy is valid: 6.1.2 (a).
    fn below_root() -> Self {
        Self {
            any: true,
            expected: HashSet::new(),
        }
    }

    fn is_none(&self) -> bool {
        !self.any && self.expected.is_empty()
    }

    /// Goes one certificate down: 6.1.3 (d) and (e). Returns why no policy is valid there, if so.
    fn descend(&mut self, said: &PolicyExtensions<'c>, may_be_any: bool) -> NoPolicy {
        let is_valid = |policy: &&&[u8]| self.any || self.expected.contains(**policy);
        let mut below: HashSet<_> = said.named.iter().filter(is_valid).copied().collect();
        let is_any = said.any && may_be_any;
        if is_any {
            below.extend(&self.expected);
        }
        self.any &= is_any;
        self.expected = below;
        match (said.named.is_empty(), said.any) {
            (true, false) => NoPolicy::Unnamed,
            (true, true) => NoPolicy::Inhibited,
            (false, _) => NoPolicy::Unexpected,
        }
    }

    /// Maps the issuer's policies to the subject's: 6.1.4 (b). All at once, so that no policy is mapped twice.
    fn map(&mut self, mappings: &[(&'c [u8], &'c [u8])], may_map: bool) {
        let is_valid = |(from, _): &&(&[u8], &[u8])| may_map && (self.any || self.expected.contains(from));
        let mapped: Vec<_> = mappings.iter().filter(is_valid).map(|(_, to)| *to).collect();
        for (from, _) in mappings {
            self.expected.remove(from);
        }
        self.expected.extend(mapped);
    }
}

/// Why no policy is valid from a certificate on. Continues a sentence after its name.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum NoPolicy {
    #[error("names only anyPolicy, which an authority above it forbids (inhibitAnyPolicy)")]
    Inhibited,
    #[error("maps its policies to others, which an authority above it forbids (inhibitPolicyMapping)")]
    Mapped,
    #[error("names no policy that the authorities above it allow")]
    Unexpected,
    #[error("names no policy")]
    Unnamed,
}

/// The extensions that are checked here, all of id-ce, by the last byte of their identifiers: certificatePolicies,
/// policyMappings, policyConstraints and inhibitAnyPolicy.
pub(super) const EXTENSIONS: &[u8] = &[32, 33, 36, 54];

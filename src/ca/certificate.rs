//! The certificates that the authority makes: its own and the leaves.
//!
//! Both carry what the strictest clients ask for (Python 3.13 and `openssl verify -x509_strict`): key identifiers
//! on both sides, critical constraints, a critical subject alternative name where the subject is empty. Serials are
//! random, because a client that meets one serial twice under one issuer refuses the second.
//!
//! How long a leaf is kept and who asks for it is in `leaves`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use super::constraints::PermittedHosts;
use crate::host::Host;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How far the clocks of a container's processes may differ: a leaf holds from an hour ago.
const SKEW: Duration = Duration::from_secs(60 * 60);

const AUTHORITY_LIFETIME: Duration = DAY.saturating_mul(365);
const LEAF_LIFETIME_MAX: Duration = DAY.saturating_mul(30);

/// From when to when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: SystemTime,
    pub(super) until: SystemTime,
}

impl Validity {
    /// The authority's own: a year.
    ///
    /// Not `ca.lifetime`: apps read the bundle once, and one that runs for longer than a few days must not lose its
    /// trust on the way.
    pub(super) fn of_authority(now: SystemTime) -> Self {
        Self {
            from: now - SKEW,
            until: now + AUTHORITY_LIFETIME,
        }
    }

    /// A leaf's: at most `lifetime`, at most thirty days, never past the authority.
    pub(super) fn of_leaf(now: SystemTime, lifetime: Duration, authority: Self) -> Self {
        let until = now + lifetime.min(LEAF_LIFETIME_MAX);
        Self {
            from: now - SKEW,
            until: until.min(authority.until),
        }
    }
}

/// The subject as leaves name it: it stays the same under every constraint, so that a leaf chains to all of them.
pub(super) fn issuer(name: &str, key: KeyPair) -> Issuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(name);
    Issuer::new(params, key)
}

/// Signs the authority's own certificate: a root that may sign leaves for `constraints` and nothing else.
pub(super) fn authority(
    name: &str,
    issuer: &Issuer<'_, KeyPair>,
    constraints: &PermittedHosts,
    validity: Validity,
) -> Result<CertificateDer<'static>, rcgen::Error> {
    let mut params = params(validity);
    params.distinguished_name = subject(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.name_constraints = constraints.extension();
    params.self_signed(issuer.key()).map(CertificateDer::from)
}

/// Signs a leaf for one host. Its name is in the alternative name only, so its length does not matter.
pub(super) fn leaf(
    host: &Host,
    key: &impl PublicKeyData,
    issuer: &Issuer<'_, KeyPair>,
    validity: Validity,
) -> Result<CertificateDer<'static>, rcgen::Error> {
    let mut params = params(validity);
    params.subject_alt_names = vec![match host {
        Host::Name(name) => SanType::DnsName(Ia5String::try_from(name.as_ref())?),
        Host::V4(ip) => SanType::IpAddress((*ip).into()),
        Host::V6(ip) => SanType::IpAddress((*ip).into()),
    }];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.signed_by(key, issuer).map(CertificateDer::from)
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// A certificate without subject and extensions.
fn params(validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(serial());
    params.not_before = to_date(validity.from);
    params.not_after = to_date(validity.until);
    params
}

/// Sixteen random bytes, positive and without leading zeroes: always the same length in DER.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// To the second, as certificates write it. A clock outside the years that can be written counts as 1970: such
/// certificates are refused by every client, which is right for such a clock.
fn to_date(time: SystemTime) -> OffsetDateTime {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

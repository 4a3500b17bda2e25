//! The cryptography for TLS, and the groups of the key exchange.

use std::sync::{Arc, OnceLock};

use rustls::NamedGroup;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

use super::SettingsError;
use crate::config::Group;

/// Returns the cryptography of the whole process: X25519MLKEM768 first, then X25519 and the NIST curves.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider()))
}

/// Returns the same with `groups` for the key exchange, the first choice first.
pub(super) fn exchanging(groups: &[Group]) -> Result<CryptoProvider, SettingsError> {
    let known = &provider().kx_groups;
    let of = |group: &Group| {
        let name = match group {
            Group::Secp256r1 => NamedGroup::secp256r1,
            Group::Secp384r1 => NamedGroup::secp384r1,
            Group::X25519 => NamedGroup::X25519,
            Group::X25519MlKem768 => NamedGroup::X25519MLKEM768,
        };
        let found = known.iter().find(|one| one.name() == name).copied();
        found.ok_or(SettingsError::NoGroup { group: *group })
    };
    Ok(CryptoProvider {
        kx_groups: groups.iter().map(of).collect::<Result<_, _>>()?,
        ..(**provider()).clone()
    })
}

/// Whether a ClientHello may have a post-quantum share, which makes it longer than a segment of TCP.
pub(super) fn has_long_hello(provider: &CryptoProvider) -> bool {
    let mut groups = provider.kx_groups.iter();
    groups.any(|group| group.name() == NamedGroup::X25519MLKEM768)
}

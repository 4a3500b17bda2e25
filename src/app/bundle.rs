//! The CA bundle of the app: where it is, and what is logged about it.

use crate::ca;
use crate::config::Ca;
use crate::error::ErrorChain;

use super::build::Builder;

/// Moves the bundle to a place where nobody else can change it. Where there is no such place, [`write()`] logs that.
pub(super) fn settle(ca: &mut Ca) {
    let Ok(settled) = ca::settle(ca) else { return };
    if settled.bundle != ca.bundle || settled.truststore != ca.truststore {
        let (bundle, instead) = (settled.bundle.display(), ca.bundle.display());
        tracing::warn!(%bundle, %instead, "the CA bundle is in another place: other users could change the usual one");
    }
    *ca = settled;
}

/// Writes the bundle, and the files beside it that some clients read. A failure is logged and no more: what is not intercepted works without the bundle.
pub(super) fn write(authority: &ca::Authority, builder: &Builder, ca: &Ca) {
    if let Err(error) = authority.write(&builder.roots, &ca.bundle, &ca.truststore) {
        tracing::error!(
            error = %ErrorChain(&error),
            "the CA bundle cannot be written: apps will not trust intercepted connections",
        );
    }
    if let Err(error) = ca::ClientFiles::write(&ca.bundle) {
        tracing::warn!(
            error = %ErrorChain(&error),
            "no files for PHP, wget and Node beside the CA bundle: PHP's curl and wget will not trust intercepted connections",
        );
    }
}

//! A request as an upstream may count it: host, credential, method and path.

use http::Method;

use crate::host::Target;

/// The attributes of a request that a limit of the upstream may depend on.
#[derive(Clone, Copy)]
pub(crate) struct RequestAttributes<'a> {
    /// Computes the caller as the upstream sees it. Called only where something has been learned.
    pub(crate) caller: &'a (dyn Fn() -> Caller + Sync),
    pub(crate) method: &'a Method,
    /// Without the query; empty for a tunnel.
    pub(crate) path: &'a str,
    pub(crate) target: &'a Target,
}

/// A fingerprint of the credential that the upstream sees. The key of the hash belongs to this process, so the
/// fingerprint reveals nothing about the credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Caller(pub(crate) u64);

//! A request as an upstream may count it: who calls which host, by which method and path.

use http::Method;

use crate::host::Target;

/// What a limit of the upstream may be about.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Tells who calls, as far as the upstream can see it. Looked up only where something has been learned.
    pub(crate) caller: &'a (dyn Fn() -> Caller + Sync),
    pub(crate) method: &'a Method,
    /// Without query; empty for a tunnel.
    pub(crate) path: &'a str,
    pub(crate) target: &'a Target,
}

/// A fingerprint of the credential that the upstream sees. The key of the hash is this process's own, so that nobody
/// can tell a credential from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Caller(pub(crate) u64);

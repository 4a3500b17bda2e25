//! All that is decided about one destination.

use std::sync::Arc;

use http::Method;

use super::Denial;
use crate::config::{Auth, Headers, HttpVersion, OnLimit, RateLimit, Timeouts, Tls};
use crate::host::Target;

/// A destination of the configuration, compiled. Nothing here is optional in the sense of "default".
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) name: Arc<str>,
    pub(crate) index: usize,
    pub(crate) auth: Option<Auth>,
    pub(crate) concurrency: Option<u32>,
    pub(crate) headers: Headers,
    pub(crate) http: HttpVersion,
    pub(crate) insecure_attach_over_http: bool,
    pub(crate) on_limit: OnLimit,
    pub(crate) rate_limits: Vec<RateLimit>,
    pub(crate) timeouts: Timeouts,
    pub(crate) tls: Tls,
    /// `http://` from the app leaves as TLS.
    pub(crate) upgrade: bool,
    /// A CONNECT is ended here, because something must see the requests.
    pub(crate) intercept: bool,
    // private: methods, compiled path globs, …
}

impl Destination {
    /// Whether the method and the path (no query) are allowed.
    pub(crate) fn permits(&self, method: &Method, path: &str) -> Result<(), Denial> {
        todo!("{method} {path}")
    }

    /// Whether a request to `target` leaves over TLS, and the port it leaves to: with `upgrade`, 80 becomes 443
    /// and any other port stays. A credential that would leave in clear is `Denial::Plaintext`.
    pub(crate) fn leaves(&self, target: &Target) -> Result<Target, Denial> {
        todo!("{target}")
    }
}

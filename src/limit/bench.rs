//! What the benches need from this area. Nothing in the program uses it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::SystemTime;

use http::{Method, StatusCode};

use super::hints::Hints;
use super::shared::PermitGrant;
use super::{Caller, Limiter, RequestAttributes};
use crate::host::{Host, Scheme, Target};
use crate::message::Fields;

/// Whether a successful answer with these fields says anything about limits.
pub(crate) fn mentions_limits(headers: &Fields, now: SystemTime) -> bool {
    Hints::of(StatusCode::OK, headers, || now).is_some()
}

/// Acts as a store that leases so many permits of each rate at once.
pub(crate) fn lend(limiter: &Arc<Limiter>, permits: u32) {
    if let Some(call) = limiter.call() {
        let grant = PermitGrant::of_bench(permits);
        call.answered(&vec![grant; call.requests.len()]);
    }
}

/// Returns the attributes of a plain request to a fixed host.
pub(crate) fn request<'a>(method: &'a Method, path: &'a str) -> RequestAttributes<'a> {
    static TARGET: Target = Target {
        scheme: Scheme::Http,
        host: Host::V4(Ipv4Addr::LOCALHOST),
        port: 80,
    };
    RequestAttributes {
        caller: &|| Caller(0),
        method,
        path,
        target: &TARGET,
    }
}

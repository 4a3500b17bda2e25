//! What the benches need of this area: nothing in the program uses it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, Method, StatusCode};

use super::hints::Hints;
use super::shared::Grant;
use super::{Asked, Caller, Limiter};
use crate::host::{Host, Scheme, Target};

/// Whether a successful answer with these fields says anything about limits.
pub(crate) fn speaks(headers: &HeaderMap, now: SystemTime) -> bool {
    Hints::of(StatusCode::OK, headers, now).is_some()
}

/// Plays a store that lends so many permits of each rate at once.
pub(crate) fn lend(limiter: &Arc<Limiter>, permits: u32) {
    if let Some(call) = limiter.call() {
        let grant = Grant::of_bench(permits);
        call.answered(&vec![grant; call.asks.len()]);
    }
}

/// A request of nobody in particular to a host that is always the same one.
pub(crate) fn asked<'a>(method: &'a Method, path: &'a str) -> Asked<'a> {
    static TARGET: Target = Target {
        scheme: Scheme::Http,
        host: Host::V4(Ipv4Addr::LOCALHOST),
        port: 80,
    };
    Asked {
        caller: &|| Caller(0),
        method,
        path,
        target: &TARGET,
    }
}

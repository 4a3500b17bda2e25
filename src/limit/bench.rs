//! What the benches need of this area: nothing in the program uses it.

use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, StatusCode};

use super::Limiter;
use super::hints::Hints;
use super::shared::Grant;

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

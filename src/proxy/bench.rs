//! What `tests/bench` calls in this folder.

use http::HeaderMap;
use tokio::time::Instant;

use super::Retrying;
use super::headers::{self, Seen};

/// Strikes what goes one hop only, as for every request.
pub(crate) fn strip(fields: &mut HeaderMap) {
    let seen = Seen::of(fields);
    headers::strip_request(fields, &seen);
}

/// Counts a request of which others may be repeats.
pub(crate) fn begin(retrying: &Retrying) {
    retrying.begin(Instant::now());
}

//! What `tests/bench` calls in this folder.

use http::HeaderMap;

use super::headers::{self, Seen};

/// Strikes what goes one hop only, as for every request.
pub(crate) fn strip(fields: &mut HeaderMap) {
    let seen = Seen::of(fields);
    headers::strip_request(fields, &seen);
}

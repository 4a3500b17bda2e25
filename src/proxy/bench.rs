//! Functions of this folder that `tests/bench` measures.

use tokio::time::Instant;

use super::RetryPolicy;
use super::headers::{self, FieldsPresent};

use crate::message::Fields;

/// Removes the hop-by-hop fields, as for every request.
pub(crate) fn strip(fields: &mut Fields) {
    let present = FieldsPresent::of(fields);
    headers::strip_request(fields, &present);
}

/// Counts a request for the budget of repeats.
pub(crate) fn begin(policy: &RetryPolicy) {
    policy.begin(Instant::now());
}

//! Tables for the rules of RFC 9111, and the state behind the lock under paused time.

use std::time::{Duration, SystemTime};

use http::header::{HeaderName, HeaderValue};
use tokio::time::Instant;

use super::Sender;
use super::freshness::{Allowances, Times};

use crate::message::Fields;

mod answers;
mod directives;
mod fetches;
mod freshness;
mod keys;
mod store;

/// `name: value` lines as fields.
fn fields(lines: &[&str]) -> Fields {
    let mut fields = Fields::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        fields.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    fields
}

/// A sender with the only credential of a destination.
fn sender(fingerprint: u64) -> Sender {
    Sender {
        fingerprint,
        rule: Some(0),
    }
}

/// Requested and answered at this moment.
fn just_now() -> Times {
    Times {
        asked: Instant::now(),
        answered: Instant::now(),
        clock: SystemTime::now(),
    }
}

const STRICT: Allowances = Allowances {
    min_fresh: Duration::ZERO,
    stale_if_error: Duration::ZERO,
    stale_while_revalidate: Duration::ZERO,
};

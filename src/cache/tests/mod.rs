//! Tables for the rules of RFC 9111, and the state behind the lock under paused time.

use std::time::{Duration, SystemTime};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::Sender;
use super::terms::{Allowances, Times};

mod answers;
mod directives;
mod flights;
mod keys;
mod store;
mod terms;

/// `name: value` lines as fields.
fn fields(lines: &[&str]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        fields.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    fields
}

/// One with the only credential of a destination.
fn sender(fingerprint: u64) -> Sender {
    Sender {
        fingerprint,
        rule: Some(0),
    }
}

/// Asked and answered in this moment.
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

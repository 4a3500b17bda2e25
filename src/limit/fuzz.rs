//! The hints of an answer as [`crate::fuzz`] reads them, with the checks that hold for any answer.

use std::collections::HashSet;
use std::time::SystemTime;

use http::StatusCode;

use super::hints::{Hints, LONGEST_PAUSE, LONGEST_RESET, LONGEST_WINDOW, MOST_QUOTAS, asked_pause};

use crate::message::Fields;

/// Reads what an answer says about limits, and checks the bounds. Returns whether it says anything.
pub(crate) fn hints(status: StatusCode, fields: &Fields, now: SystemTime) -> bool {
    let pause = asked_pause(status, fields, now);
    assert!(pause.is_none_or(|pause| pause <= LONGEST_PAUSE));
    let Some(hints) = Hints::of(status, fields, || now) else {
        return false;
    };
    if let Some(pause) = &hints.pause {
        assert!(hints.is_refusal && pause.length <= LONGEST_PAUSE);
    }
    assert!(hints.quotas.len() <= MOST_QUOTAS);
    let mut names = HashSet::new();
    for quota in &hints.quotas {
        assert!(names.insert(&quota.name), "one quota twice");
        assert!(quota.limit != Some(0));
        assert!(
            quota
                .limit
                .is_none_or(|limit| quota.remaining.is_none_or(|left| left <= limit))
        );
        assert!(quota.reset.is_none_or(|reset| reset <= LONGEST_RESET));
        assert!(
            quota
                .reset
                .is_none_or(|reset| !reset.is_zero() || quota.remaining.unwrap_or(0) == 0)
        );
        assert!(
            quota
                .window
                .is_none_or(|window| !window.is_zero() && window <= LONGEST_WINDOW)
        );
    }
    true
}

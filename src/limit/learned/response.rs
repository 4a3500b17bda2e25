//! A response as the learned limits see it.

use std::fmt::Display;

use http::{Method, StatusCode};

use crate::limit::hints::{self, Hints};

/// The response that a limit was learned from.
#[derive(Clone, Debug)]
pub(in crate::limit) struct Evidence {
    pub(in crate::limit) at: u64,
    pub(in crate::limit) field: Box<str>,
    pub(in crate::limit) method: Method,
    pub(in crate::limit) path: Box<str>,
    pub(in crate::limit) status: StatusCode,
}

/// A response, and what it says about limits.
#[derive(Clone, Copy)]
pub(in crate::limit) struct ObservedResponse<'a> {
    pub(in crate::limit) hints: Option<&'a Hints>,
    /// For people: `https://host:port`.
    pub(in crate::limit) host: &'a dyn Display,
    /// A random number between 0 and 1.
    pub(in crate::limit) jitter: f64,
    pub(in crate::limit) method: &'a Method,
    pub(in crate::limit) path: &'a str,
    pub(in crate::limit) status: StatusCode,
}

/// Returns the field as people write it: `Retry-After: 60`.
pub(super) fn field_text(pause: &hints::PauseHint) -> String {
    let is_delay = pause.field.to_ascii_lowercase().contains("retry-after");
    if is_delay && pause.length.subsec_nanos() == 0 {
        format!("{}: {}", pause.field, pause.length.as_secs())
    } else {
        pause.field.to_string()
    }
}

//! An answer, as far as it matters here.

use std::fmt::Display;

use http::{Method, StatusCode};

use crate::limit::hints::{self, Hints};

/// The answer that a belief comes from.
#[derive(Clone, Debug)]
pub(in crate::limit) struct Source {
    pub(in crate::limit) at: u64,
    pub(in crate::limit) field: Box<str>,
    pub(in crate::limit) method: Method,
    pub(in crate::limit) path: Box<str>,
    pub(in crate::limit) status: StatusCode,
}

/// An answer, and what it says.
#[derive(Clone, Copy)]
pub(in crate::limit) struct Heard<'a> {
    pub(in crate::limit) hints: Option<&'a Hints>,
    /// For people: `https://host:port`.
    pub(in crate::limit) host: &'a dyn Display,
    /// Between 0 and 1.
    pub(in crate::limit) jitter: f64,
    pub(in crate::limit) method: &'a Method,
    pub(in crate::limit) path: &'a str,
    pub(in crate::limit) status: StatusCode,
}

/// As a person knows it: `Retry-After: 60`.
pub(super) fn words(pause: &hints::Pause) -> String {
    let is_delay = pause.field.to_ascii_lowercase().contains("retry-after");
    match is_delay && pause.length.subsec_nanos() == 0 {
        true => format!("{}: {}", pause.field, pause.length.as_secs()),
        false => pause.field.to_string(),
    }
}

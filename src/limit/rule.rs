//! What the configuration says of one limit: which requests it concerns, and how it is shown.

use std::time::Duration;

use http::Method;

use super::refusal::Face;
use crate::config::{Class, Priority, RateLimit};
use crate::policy::{self, PathGlob};
use crate::telemetry::{Counters, LimitHandles};

/// Which requests a rate concerns, and how it is shown.
#[derive(Debug)]
pub(super) struct RateRule {
    matched: Match,
    pub(super) shown: Shown,
}

/// Which requests are of a class.
#[derive(Debug)]
pub(super) struct ClassRule {
    class: Class,
    matched: Match,
}

/// How a limit appears in answers and metrics.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) face: Face,
    pub(super) handles: LimitHandles,
}

#[derive(Debug)]
struct Match {
    method: Option<Method>,
    path: Option<PathGlob>,
}

impl RateRule {
    pub(super) fn new(limit: &RateLimit, counters: &Counters) -> Self {
        let mut label = limit.rate.to_string();
        for part in [limit.method.as_ref().map(Method::as_str), limit.path.as_deref()]
            .into_iter()
            .flatten()
        {
            label.push(' ');
            label.push_str(part);
        }
        let face = Face {
            label: label.into(),
            quota: Some(limit.rate.count.into()),
            window: limit.rate.per,
        };
        Self {
            matched: Match::new(limit.method.as_ref(), limit.path.as_deref()),
            shown: Shown::new(face, counters),
        }
    }

    pub(super) fn concerns(&self, method: &Method, path: &str) -> bool {
        self.matched.holds(method, path)
    }

    pub(super) fn concerns_all(&self) -> bool {
        self.matched.method.is_none() && self.matched.path.is_none()
    }
}

impl ClassRule {
    pub(super) fn new(priority: &Priority) -> Self {
        Self {
            class: priority.class,
            matched: Match::new(priority.method.as_ref(), priority.path.as_deref()),
        }
    }

    pub(super) fn class(&self, method: &Method, path: &str) -> Option<Class> {
        self.matched.holds(method, path).then_some(self.class)
    }
}

impl Shown {
    pub(super) fn new(face: Face, counters: &Counters) -> Self {
        Self {
            handles: counters.limit(&face.label),
            face,
        }
    }

    pub(super) fn concurrency(most: u32, counters: &Counters) -> Self {
        let face = Face {
            label: "concurrency".into(),
            quota: Some(most.into()),
            window: Duration::ZERO,
        };
        Self::new(face, counters)
    }
}

impl Match {
    fn new(method: Option<&Method>, path: Option<&str>) -> Self {
        Self {
            method: method.cloned(),
            // The policy has compiled it before; one that does not compile would concern every path.
            path: path.and_then(|path| PathGlob::parse(path).ok()),
        }
    }

    fn holds(&self, method: &Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|own| policy::covers(own, method))
            && self.path.as_ref().is_none_or(|own| own.reaches(path))
    }
}

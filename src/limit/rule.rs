//! What the configuration says about one limit: which requests it applies to, and its name in answers and
//! metrics.

use std::time::Duration;

use http::Method;

use super::refusal::LimitInfo;
use crate::config::{Class, Priority, RateLimit};
use crate::policy::{self, PathGlob};
use crate::telemetry::{Counters, LimitHandles};

/// Which requests a rate applies to, and how it is reported.
#[derive(Debug)]
pub(super) struct RateRule {
    matched: Match,
    pub(super) reported: ReportedLimit,
}

/// Which requests belong to a class.
#[derive(Debug)]
pub(super) struct ClassRule {
    class: Class,
    matched: Match,
}

/// A limit as answers and metrics report it.
#[derive(Debug)]
pub(super) struct ReportedLimit {
    pub(super) info: LimitInfo,
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
        let info = LimitInfo {
            label: label.into(),
            quota: Some(limit.rate.count.into()),
            window: limit.rate.per,
        };
        Self {
            matched: Match::new(limit.method.as_ref(), limit.path.as_deref()),
            reported: ReportedLimit::new(info, counters),
        }
    }

    pub(super) fn applies_to(&self, method: &Method, path: &str) -> bool {
        self.matched.holds(method, path)
    }

    pub(super) fn applies_to_all(&self) -> bool {
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

impl ReportedLimit {
    pub(super) fn new(info: LimitInfo, counters: &Counters) -> Self {
        Self {
            handles: counters.limit(&info.label),
            info,
        }
    }

    pub(super) fn concurrency(most: u32, counters: &Counters) -> Self {
        let info = LimitInfo {
            label: "concurrency".into(),
            quota: Some(most.into()),
            window: Duration::ZERO,
        };
        Self::new(info, counters)
    }
}

impl Match {
    fn new(method: Option<&Method>, path: Option<&str>) -> Self {
        Self {
            method: method.cloned(),
            // The policy has checked it. A path that does not parse would apply to every path.
            path: path.and_then(|path| PathGlob::parse(path).ok()),
        }
    }

    fn holds(&self, method: &Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|own| policy::covers(own, method))
            && self.path.as_ref().is_none_or(|own| own.reaches(path))
    }
}

//! What the configuration says about one limit: which requests it applies to, and its name in answers and
//! metrics.

use std::time::Duration;

use http::Method;

use super::refusal::LimitInfo;
use crate::config::{Class, Matcher, Priority, RateLimit};
use crate::telemetry::{Counters, LimitHandles};

/// Which requests a rate applies to, and how it is reported.
#[derive(Debug)]
pub(super) struct RateRule {
    matcher: Matcher,
    pub(super) reported: ReportedLimit,
}

/// Which requests belong to a class.
#[derive(Debug)]
pub(super) struct ClassRule {
    class: Class,
    matcher: Matcher,
}

/// A limit as answers and metrics report it.
#[derive(Debug)]
pub(super) struct ReportedLimit {
    pub(super) info: LimitInfo,
    pub(super) handles: LimitHandles,
}

impl RateRule {
    pub(super) fn new(limit: &RateLimit, counters: &Counters) -> Self {
        let mut label = limit.rate.to_string();
        for part in limit.matcher.parts() {
            label.push(' ');
            label.push_str(part);
        }
        let info = LimitInfo {
            label: label.into(),
            quota: Some(limit.rate.count.into()),
            window: limit.rate.per,
        };
        Self {
            matcher: limit.matcher.clone(),
            reported: ReportedLimit::new(info, counters),
        }
    }

    pub(super) fn applies_to(&self, method: &Method, path: &str) -> bool {
        self.matcher.reaches(method, path)
    }

    pub(super) fn applies_to_all(&self) -> bool {
        self.matcher.is_any()
    }
}

impl ClassRule {
    pub(super) fn new(priority: &Priority) -> Self {
        Self {
            class: priority.class,
            matcher: priority.matcher.clone(),
        }
    }

    pub(super) fn class(&self, method: &Method, path: &str) -> Option<Class> {
        self.matcher.reaches(method, path).then_some(self.class)
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

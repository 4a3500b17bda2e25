//! What the configuration says about one limit: which requests it applies to, and its name in answers and
//! metrics.

use http::Method;

use super::refusal::LimitInfo;
use crate::config::{Class, Matcher, Priority, RateLimit};

/// Which requests a rate applies to, and how it is reported.
#[derive(Debug)]
pub(super) struct RateRule {
    pub(super) info: LimitInfo,
    matcher: Matcher,
}

/// Which requests belong to a class.
#[derive(Debug)]
pub(super) struct ClassRule {
    class: Class,
    matcher: Matcher,
}

impl RateRule {
    pub(super) fn new(limit: &RateLimit) -> Self {
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
            info,
            matcher: limit.matcher.clone(),
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

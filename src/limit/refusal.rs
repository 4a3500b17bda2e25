//! Why a request is not sent now, and how the answer to the app says so.

use std::sync::Arc;
use std::time::Duration;

use super::gcra::NEVER;
use super::state::{BlockingLimit, Obstacle};
use crate::fields::quoted;
use crate::units;

/// The reason why a request is not sent now: which limit, and when it would let the request go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the limit {limit} of destination {destination} is reached; try again in {}",
    humantime::format_duration(Duration::from_secs(self.seconds()))
)]
pub(crate) struct Refusal {
    /// The destination's name in the configuration.
    pub(crate) destination: Arc<str>,
    /// As written in the configuration, or `concurrency`, or `learned`.
    pub(crate) limit: Arc<str>,
    /// When the limit would let the request go if nothing else came. One second where nobody can know
    /// (`concurrency`); one unit of the rate where the rate is zero.
    pub(crate) retry_after: Duration,
    /// How many requests the limit allows, where that is known.
    quota: Option<u64>,
    /// In what time it allows them; zero: at once.
    window: Duration,
}

/// What a refusal says about a limit.
#[derive(Debug)]
pub(super) struct LimitInfo {
    pub(super) label: Arc<str>,
    pub(super) quota: Option<u64>,
    /// Zero: the quota counts requests in flight.
    pub(super) window: Duration,
}

impl LimitInfo {
    /// The label of all limits learned from the upstream.
    pub(super) const LEARNED: &'static str = "learned";

    pub(super) fn concurrency(most: u32) -> Self {
        Self {
            label: "concurrency".into(),
            quota: Some(most.into()),
            window: Duration::ZERO,
        }
    }

    pub(super) fn learned(quota: Option<u64>, window: Duration) -> Self {
        Self {
            label: Self::LEARNED.into(),
            quota: quota.filter(|_| !window.is_zero()),
            window,
        }
    }
}

impl Refusal {
    pub(super) fn new(destination: &Arc<str>, info: &LimitInfo, obstacle: Obstacle, now: u64) -> Self {
        let retry_after = match (obstacle.limit, obstacle.until) {
            (BlockingLimit::Concurrency, _) => Duration::from_secs(1),
            (BlockingLimit::Rate(_), NEVER) => info.window,
            (BlockingLimit::Learned(_) | BlockingLimit::Rate(_), until) => {
                Duration::from_nanos(until.saturating_sub(now))
            }
        };
        Self {
            destination: Arc::clone(destination),
            limit: Arc::clone(&info.label),
            retry_after,
            quota: info.quota,
            window: info.window,
        }
    }

    /// Returns the value of `Retry-After`: whole seconds, rounded up, at least one.
    pub(crate) fn seconds(&self) -> u64 {
        units::retry_after(self.retry_after)
    }

    /// Returns the fields `ratelimit-policy` and `ratelimit` (draft-ietf-httpapi-ratelimit-headers). The policy's
    /// name is the limit as written. A policy has to state its quota, so it is left out where that is not known.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'static str, String)> {
        let name = quoted(&self.limit);
        let policy = self.quota.map(|quota| match self.window.as_secs() {
            0 if self.window.is_zero() => format!("{name};q={quota};qu=\"concurrent-requests\""),
            window => format!("{name};q={quota};w={}", window.max(1)),
        });
        let limit = format!("{name};r=0;t={}", self.seconds());
        let policy = policy.map(|policy| ("ratelimit-policy", policy));
        policy.into_iter().chain([("ratelimit", limit)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(label: &str, quota: u64, window: u64, limit: BlockingLimit, until: u64) -> Refusal {
        let info = LimitInfo {
            label: label.into(),
            quota: Some(quota),
            window: Duration::from_secs(window),
        };
        Refusal::new(&"search".into(), &info, Obstacle { limit, until }, 5_000_000_000)
    }

    #[test]
    fn seconds_are_rounded_up_and_never_none() {
        let cases = [
            (0, 1),
            (1, 1),
            (5_000_000_000, 1),
            (5_000_000_001, 1),
            (6_000_000_001, 2),
            (65_000_000_000, 60),
        ];
        for (until, seconds) in cases {
            assert_eq!(
                refusal("30/m", 30, 60, BlockingLimit::Rate(0), until).seconds(),
                seconds,
                "{until}"
            );
        }
    }

    #[test]
    fn a_rate_of_zero_is_asked_again_after_its_unit() {
        assert_eq!(
            refusal("0/h", 0, 3600, BlockingLimit::Rate(0), NEVER).seconds(),
            3600
        );
    }

    #[test]
    fn the_fields_name_limit_quota_window_and_wait() {
        let refusal = refusal("5/s burst 10", 5, 1, BlockingLimit::Rate(0), 7_500_000_000);
        let expected = [
            ("ratelimit-policy", "\"5/s burst 10\";q=5;w=1".to_owned()),
            ("ratelimit", "\"5/s burst 10\";r=0;t=3".to_owned()),
        ];
        assert_eq!(refusal.fields().collect::<Vec<_>>(), expected);
        assert_eq!(
            refusal.to_string(),
            "the limit 5/s burst 10 of destination search is reached; try again in 3s"
        );
    }

    #[test]
    fn concurrency_counts_what_is_under_way() {
        let refusal = refusal("concurrency", 8, 0, BlockingLimit::Concurrency, 0);
        let expected = [
            (
                "ratelimit-policy",
                "\"concurrency\";q=8;qu=\"concurrent-requests\"".to_owned(),
            ),
            ("ratelimit", "\"concurrency\";r=0;t=1".to_owned()),
        ];
        assert_eq!(refusal.fields().collect::<Vec<_>>(), expected);
    }

    /// A path in the configuration may contain anything; the field must stay one field.
    #[test]
    fn a_label_cannot_break_out_of_its_field() {
        let refusal = refusal("1/s /a\"b\\c\r\nX: é", 1, 1, BlockingLimit::Rate(0), 0);
        let (_, policy) = refusal.fields().next().unwrap();
        assert_eq!(policy, "\"1/s /a\\\"b\\\\c??X: ?\";q=1;w=1");
        assert!(http::HeaderValue::from_str(&policy).is_ok());
    }
}

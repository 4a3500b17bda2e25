//! Warnings that a client certificate expires soon.
//!
//! A certificate of a year is reported 30, 7 and 1 days before its end. A machine renews shorter ones, mostly at
//! two thirds of their life, so they are reported after that. The platform renews an instance identity half an hour
//! before its end, every day: it is reported only when half of that time is over.
//!
//! A certificate that had expired before it was loaded is reported by the loader, not here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::upstream::tls::Lifetime;

/// What has been reported of each destination's certificate.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    reported: HashMap<Arc<str>, ReportedExpiry>,
}

#[derive(Debug)]
struct ReportedExpiry {
    life: Lifetime,
    stage: ExpiryStage,
}

/// How near the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ExpiryStage {
    Young,
    /// So many of the times before the end have come.
    Near(usize),
    Over,
}

impl Expiries {
    /// Returns the certificates that have come nearer to their end since the last call, and how near.
    pub(super) fn look<'l>(
        &mut self,
        lives: impl Iterator<Item = (&'l Arc<str>, &'l Lifetime)>,
        now: SystemTime,
    ) -> Vec<(&'l Arc<str>, &'l Lifetime, ExpiryStage)> {
        let mut old = std::mem::take(&mut self.reported);
        let mut news = Vec::new();
        for (destination, life) in lives {
            let stage = stage(life, now);
            let old = old.remove(destination).filter(|said| said.life == *life);
            let is_news = match &old {
                Some(said) => stage > said.stage,
                None => matches!(stage, ExpiryStage::Near(_)),
            };
            if is_news {
                news.push((destination, life, stage));
            }
            // A clock that goes back does not repeat a report.
            let stage = old.as_ref().map_or(stage, |said| said.stage.max(stage));
            let life = old.map_or_else(|| life.clone(), |said| said.life);
            self.reported
                .insert(Arc::clone(destination), ReportedExpiry { life, stage });
        }
        news
    }
}

fn stage(life: &Lifetime, now: SystemTime) -> ExpiryStage {
    let Ok(left) = life.not_after.duration_since(now) else {
        return ExpiryStage::Over;
    };
    match notices(life).iter().filter(|notice| left <= **notice).count() {
        0 => ExpiryStage::Young,
        come => ExpiryStage::Near(come),
    }
}

/// Returns how long before the end it is to be reported.
fn notices(life: &Lifetime) -> Vec<Duration> {
    let whole = (life.not_after.duration_since(life.not_before)).unwrap_or_default();
    if life.is_of_platform {
        let renewal = if whole > 4 * HOUR { HOUR / 2 } else { whole / 8 };
        return vec![renewal / 2];
    }
    let third = whole / 3;
    let mut notices: Vec<_> = [30 * DAY, 7 * DAY, DAY]
        .into_iter()
        .filter(|notice| *notice < third)
        .collect();
    if third <= 30 * DAY {
        notices.push(third);
    }
    notices
}

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn life(whole: Duration, is_of_platform: bool) -> Lifetime {
        Lifetime {
            is_of_platform,
            not_after: SystemTime::UNIX_EPOCH + whole,
            not_before: SystemTime::UNIX_EPOCH,
            serial: "01".to_owned(),
        }
    }

    /// How long before the end it is reported, found out by living through it.
    fn said(life: &Lifetime) -> Vec<(Duration, ExpiryStage)> {
        let name: Arc<str> = "partner".into();
        let mut expiries = Expiries::default();
        let whole = life.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let mut said = Vec::new();
        let step = Duration::from_secs(60);
        let mut at = SystemTime::UNIX_EPOCH;
        while at <= life.not_after + 10 * step {
            for (_, _, stage) in expiries.look([(&name, life)].into_iter(), at) {
                let left = whole.saturating_sub(at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
                said.push((left, stage));
            }
            at += step;
        }
        said
    }

    #[test]
    fn words_are_said_once_and_in_time() {
        let (near, over) = (ExpiryStage::Near, ExpiryStage::Over);
        let minute = Duration::from_secs(60);
        for (whole, is_of_platform, times) in [
            (365 * DAY, false, &[30 * DAY, 7 * DAY, DAY][..]),
            (90 * DAY, false, &[30 * DAY, 7 * DAY, DAY]),
            (30 * DAY, false, &[10 * DAY, 7 * DAY, DAY]),
            (6 * DAY, false, &[2 * DAY, DAY]),
            (DAY, false, &[8 * HOUR]),
            (HOUR, false, &[20 * minute]),
            (DAY, true, &[15 * minute]),
            (2 * HOUR, true, &[7 * minute]),
        ] {
            let mut wanted: Vec<_> = (times.iter().enumerate())
                .map(|(i, time)| (*time, near(i + 1)))
                .collect();
            wanted.push((Duration::ZERO, over));
            assert_eq!(
                said(&life(whole, is_of_platform)),
                wanted,
                "{whole:?} {is_of_platform}"
            );
        }
    }

    #[test]
    fn a_renewed_certificate_starts_anew_and_a_clock_that_goes_back_says_nothing_twice() {
        let name: Arc<str> = "partner".into();
        let old = life(365 * DAY, false);
        let new = Lifetime {
            not_after: old.not_after + 300 * DAY,
            serial: "02".to_owned(),
            ..old
        };
        let mut expiries = Expiries::default();
        let mut count = |life: &Lifetime, days: u32| {
            let now = SystemTime::UNIX_EPOCH + days * DAY;
            expiries.look([(&name, life)].into_iter(), now).len()
        };
        assert_eq!(count(&old, 340), 1);
        assert_eq!(count(&old, 300), 0);
        assert_eq!(count(&old, 340), 0);
        assert_eq!(count(&new, 341), 0);
        assert_eq!(count(&new, 660), 1);
        // Back to the old one: reported again, as any that is new here.
        assert_eq!(count(&old, 341), 1);
        // The loader has reported one that had expired before.
        assert_eq!(count(&new, 700), 0);
    }
}

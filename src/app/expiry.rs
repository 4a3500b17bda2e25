//! Says in time that a client certificate ends.
//!
//! Certificates of a year are told of 30, 7 and 1 days before their end. One that lives shorter is meant to be renewed
//! by a machine, which most do at two thirds of its life, so that is when silence ends. The platform renews an
//! instance identity half an hour before its end, every day anew: only when half of that is over is something wrong.
//!
//! What has ended before it was read is told by whoever read it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::upstream::tls::Lifetime;

/// What has been said of each destination's certificate.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    said: HashMap<Arc<str>, ReportedExpiry>,
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
    /// The certificates that have come nearer to their end since this was last asked, and how near.
    pub(super) fn look<'l>(
        &mut self,
        lives: impl Iterator<Item = (&'l Arc<str>, &'l Lifetime)>,
        now: SystemTime,
    ) -> Vec<(&'l Arc<str>, &'l Lifetime, ExpiryStage)> {
        let mut old = std::mem::take(&mut self.said);
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
            // A clock that goes back makes nothing unsaid.
            let stage = old.as_ref().map_or(stage, |said| said.stage.max(stage));
            let life = old.map_or_else(|| life.clone(), |said| said.life);
            self.said
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

/// How long before the end something is to be said.
fn notices(life: &Lifetime) -> Vec<Duration> {
    let whole = (life.not_after.duration_since(life.not_before)).unwrap_or_default();
    if life.is_of_platform {
        let renewal = match whole > 4 * HOUR {
            true => HOUR / 2,
            false => whole / 8,
        };
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

    /// How long before the end something is said, found out by living through it.
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
        // Back to the old one: told of again, as of any that is new here.
        assert_eq!(count(&old, 341), 1);
        // What is over when it comes has been told of when it was read.
        assert_eq!(count(&new, 700), 0);
    }
}

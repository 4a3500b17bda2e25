//! What a service reports of its figures, and how precisely.

use std::time::{Duration, UNIX_EPOCH};

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderName, HeaderValue};

use super::service::{Figures, Model};
use crate::message::Fields;
use crate::units;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reporting {
    /// Limit, remainder and the seconds left until the reset, rounded up; `Retry-After` on a refusal.
    All,
    /// `Retry-After` on a refusal, rounded up.
    OnRefusal,
    Nothing,
    /// The reset as a moment, rounded down to the second, so that it may be past; `Retry-After` rounded down too,
    /// 0 in the last second.
    RoundedDown,
    /// The reset as a moment, rounded up.
    RoundedUp,
    /// The reset as a moment of a clock that is two seconds behind; `Date` is of the same clock.
    Behind,
    /// The same without `Date`.
    BehindUndated,
    /// The reset as a moment of a clock that is two seconds ahead, no `Date`.
    AheadUndated,
}

impl Reporting {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::OnRefusal => "only on refusal",
            Self::Nothing => "nothing",
            Self::RoundedDown => "cut times",
            Self::RoundedUp => "moment rounded up",
            Self::Behind => "clock 2 s behind",
            Self::BehindUndated => "clock 2 s behind, no Date",
            Self::AheadUndated => "clock 2 s ahead, no Date",
        }
    }

    /// The row of the table: moments share one, however wrong their clock.
    pub(super) fn row(self) -> &'static str {
        match self {
            Self::RoundedUp | Self::Behind | Self::BehindUndated | Self::AheadUndated => {
                "moments, clock up to 2 s off"
            }
            Self::All | Self::OnRefusal | Self::Nothing | Self::RoundedDown => self.name(),
        }
    }

    /// Returns what a service of this kind may report.
    pub(super) fn of(model: Model) -> &'static [Self] {
        match model {
            Model::TokenBucketNext => &[Self::All, Self::RoundedDown, Self::RoundedUp],
            Model::BucketOfOne => &[Self::All, Self::OnRefusal, Self::RoundedDown],
            Model::StrictSpacing => &[Self::Nothing],
            Model::Concurrency => &[Self::All, Self::OnRefusal, Self::Nothing, Self::RoundedDown],
            Model::Random429 => &[Self::Nothing, Self::RoundedDown],
            Model::Random503 => &[Self::RoundedDown],
            _ => &[
                Self::All,
                Self::OnRefusal,
                Self::Nothing,
                Self::RoundedDown,
                Self::RoundedUp,
                Self::Behind,
                Self::BehindUndated,
                Self::AheadUndated,
            ],
        }
    }

    /// `Retry-After` on a refusal, in seconds.
    pub(super) fn retry_after(self, figures: &Figures) -> Option<u64> {
        match self {
            _ if figures.is_allowed() => None,
            Self::Nothing => None,
            Self::RoundedDown => Some(figures.retry / 1000),
            _ => Some(figures.retry.div_ceil(1000)),
        }
    }

    /// Returns for how many seconds nothing may go after an allowed answer, as a client understands it.
    pub(super) fn exhausted(self, figures: &Figures, wall: u64) -> Option<u64> {
        let reset = self.reset(figures, wall).filter(|_| figures.left == 0)?;
        let clock = if self == Self::Behind {
            self.clock(wall)
        } else {
            wall
        };
        match self {
            Self::All => Some(reset),
            _ => Some(reset.saturating_sub(clock / 1000)),
        }
    }

    /// The fields of an answer that is made at this moment, in milliseconds since the epoch.
    pub(super) fn fields(self, figures: &Figures, wall: u64) -> Fields {
        let mut fields = Fields::new();
        if !matches!(self, Self::BehindUndated | Self::AheadUndated) {
            let date = units::http_date(UNIX_EPOCH + Duration::from_millis(self.clock(wall)));
            fields.insert(DATE, date.parse().unwrap());
        }
        if let Some(seconds) = self.retry_after(figures) {
            fields.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        let Some(limit) = figures.limit.filter(|_| self.has_figures()) else {
            return fields;
        };
        let mut insert = |name, value| fields.insert(HeaderName::from_static(name), HeaderValue::from(value));
        insert("x-ratelimit-limit", limit);
        insert("x-ratelimit-remaining", figures.left);
        if let Some(reset) = self.reset(figures, wall) {
            insert("x-ratelimit-reset", reset);
        }
        fields
    }

    fn has_figures(self) -> bool {
        !matches!(self, Self::OnRefusal | Self::Nothing)
    }

    /// The value of the reset: seconds left, or seconds since the epoch.
    fn reset(self, figures: &Figures, wall: u64) -> Option<u64> {
        let reset = figures.reset.filter(|_| self.has_figures())?;
        let moment = self.clock(wall) + reset;
        Some(match self {
            Self::All | Self::OnRefusal | Self::Nothing => reset.div_ceil(1000),
            Self::RoundedDown => moment / 1000,
            Self::RoundedUp | Self::Behind | Self::BehindUndated | Self::AheadUndated => {
                moment.div_ceil(1000)
            }
        })
    }

    /// The service's own clock.
    fn clock(self, wall: u64) -> u64 {
        match self {
            Self::Behind | Self::BehindUndated => wall - 2000,
            Self::AheadUndated => wall + 2000,
            Self::All | Self::OnRefusal | Self::Nothing | Self::RoundedDown | Self::RoundedUp => wall,
        }
    }
}

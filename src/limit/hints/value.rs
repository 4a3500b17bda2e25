//! Numbers, times and durations as upstreams write them.
//!
//! A number is kept as a [`Duration`]: that has a fraction and no sign, cannot be infinite, and holds everything.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::FieldError;

/// A time in a field: a delay or a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum When {
    After(Duration),
    /// A moment, since the epoch.
    At(Duration),
}

impl When {
    /// Reads seconds, a moment in one of the units that upstreams use, a date, or a duration with units.
    ///
    /// A proxy may have joined several lines into one: then the longest counts.
    pub(super) fn read(text: &str) -> Result<Self, FieldError> {
        let one = |text: &str| match number(text) {
            Ok(number) => Ok(Self::of_number(number)),
            Err(why) => units(text).map(Self::After).ok_or(why),
        };
        let several = || {
            let mut times = text.split(',').map(|text| one(text.trim()));
            times
                .try_fold(None, |most, time| Ok::<_, FieldError>(most.max(Some(time?))))
                .ok()
                .flatten()
        };
        one(text).or_else(|why| several().or_else(|| date(text).map(Self::At)).ok_or(why))
    }

    /// Decides by its size what a number is: a delay is less than a billion seconds, a moment since 2001 is more.
    pub(super) fn of_number(number: Duration) -> Self {
        match number.as_secs() {
            0..1_000_000_000 => Self::After(number),
            1_000_000_000..100_000_000_000 => Self::At(number),
            100_000_000_000..100_000_000_000_000 => Self::At(number / 1_000),
            100_000_000_000_000..100_000_000_000_000_000 => Self::At(number / 1_000_000),
            _ => Self::At(number / 1_000_000_000),
        }
    }
}

/// Reads digits, with or without a fraction; no sign, no exponent, no words. Saturates.
pub(super) fn number(text: &str) -> Result<Duration, FieldError> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(if text.starts_with('-') {
            "negative"
        } else {
            "not a number"
        });
    }
    // Only a number that is too large fails here.
    let seconds = whole.parse().unwrap_or(u64::MAX);
    let nanos = (fraction.bytes().chain(std::iter::repeat(b'0')).take(9))
        .fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    Ok(Duration::new(seconds, nanos))
}

/// Reads a number of requests: `100`, `99.0`, the first of `100, 100;w=60` and of `100;w=21600`.
pub(super) fn count(text: &str) -> Result<u64, FieldError> {
    let first = text.split([',', ';']).next().unwrap_or(text);
    Ok(number(first.trim())?.as_secs())
}

/// Returns the window that a limit states: in `10, 10;w=1, 50;w=60` the first one whose quota is the limit, 10.
pub(super) fn listed_window(text: &str) -> Option<Duration> {
    let limit = count(text).ok()?;
    text.split(',')
        .filter(|item| count(item) == Ok(limit))
        .find_map(|item| {
            let mut parameters = item.split(';').skip(1).map(str::trim);
            let window = parameters.find_map(|parameter| parameter.strip_prefix("w="))?;
            number(window).ok()
        })
}

/// Reads `32/40`.
pub(super) fn fraction(text: &str) -> Result<(u64, u64), FieldError> {
    let (used, limit) = text.split_once('/').ok_or("not a fraction")?;
    Ok((count(used.trim())?, count(limit.trim())?))
}

/// Reads numbers with units, one after the other: `6m0s`, `1.5s`, `12ms`. `None` for anything else.
fn units(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let amount = number(amount).ok()?;
        total = total.saturating_add(match unit {
            "ns" => amount / 1_000_000_000,
            "us" | "\u{b5}s" | "\u{3bc}s" => amount / 1_000_000,
            "ms" => amount / 1_000,
            "s" => amount,
            "m" => amount.saturating_mul(60),
            "h" => amount.saturating_mul(3_600),
            "d" => amount.saturating_mul(86_400),
            _ => return None,
        });
        rest = tail;
    }
    Some(total)
}

/// Reads a date in one of the three forms of HTTP, as JavaScript writes it, or in ISO 8601 with or without
/// seconds (Jira). A date before the epoch counts as the epoch: it is past either way.
fn date(text: &str) -> Option<Duration> {
    if let Some(moment) = javascript(text) {
        return Some(moment);
    }
    let short = (text.strip_suffix('Z')).filter(|short| short.len() == "2026-03-26T16:00".len());
    if let Some(short) = short {
        return iso(&format!("{short}:00"));
    }
    if let Ok(date) = httpdate::parse_http_date(text) {
        return Some(since_epoch(date));
    }
    iso(text).or_else(|| {
        let sign = text
            .rfind(['+', '-'])
            .filter(|place| text[..*place].contains(':'))?;
        shifted(iso(&text[..sign])?, &text[sign..])
    })
}

/// Reads `Sun Nov 29 2026 12:00:00 GMT+0100 (Central European Standard Time)`, which is a JavaScript `Date` as
/// text.
fn javascript(text: &str) -> Option<Duration> {
    let mut words = text.split_ascii_whitespace();
    let mut word = || words.next();
    let (weekday, month, day, year, time, zone) = (word()?, word()?, word()?, word()?, word()?, word()?);
    let date = httpdate::parse_http_date(&format!("{weekday}, {day} {month} {year} {time} GMT")).ok()?;
    shifted(since_epoch(date), zone.strip_prefix("GMT")?)
}

fn iso(text: &str) -> Option<Duration> {
    humantime::parse_rfc3339_weak(text).ok().map(since_epoch)
}

/// Converts a moment with an offset from UTC (`+01:00`, `-0500`).
fn shifted(moment: Duration, offset: &str) -> Option<Duration> {
    let (sign, offset) = offset.split_at_checked(1)?;
    let (hours, minutes) = offset.split_at_checked(2)?;
    let two = |digits: &str| number(digits).ok().filter(|_| digits.len() == 2);
    let (hours, minutes) = (two(hours)?, two(minutes.strip_prefix(':').unwrap_or(minutes))?);
    let offset = hours * 3_600 + minutes * 60;
    match sign {
        "+" => Some(moment.saturating_sub(offset)),
        "-" => Some(moment.saturating_add(offset)),
        _ => None,
    }
}

fn since_epoch(date: SystemTime) -> Duration {
    date.duration_since(UNIX_EPOCH).unwrap_or_default()
}

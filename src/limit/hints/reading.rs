//! Reads the fields of an answer, and works out what they say together.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{AGE, DATE};
use http::{HeaderValue, StatusCode};

use super::fields::{self, FieldFamily, FieldPart, LimitField, QuotaKey};
use super::structured::Policies;
use super::value::{When, count, fraction, listed_window, number};
use super::{BadField, FieldError, Hints, PauseHint, QuotaHint, grpc, refusal, sane};
use super::{LONG_NAME, LONGEST_NAME, LONGEST_PAUSE, LONGEST_RESET, MANY, MOST_QUOTAS};

use crate::message::Fields;

const TOO_LONG: FieldError = "too long a time, cut";

/// What servers accept in their fields (grpc-go: 16 KiB for all, nginx: 8 KiB for one).
const LONGEST_DETAILS: usize = 8_192;

const LONGEST_VALUE: usize = 1_024;

/// A time in the past by less than this counts as now: clocks differ, and an answer takes time.
const SKEW: Duration = Duration::from_secs(60);

/// What has been read so far.
#[derive(Debug)]
pub(super) struct HintReader<'n> {
    /// The most precise of the fields that ask for a pause.
    asked: Option<AskedPause<'n>>,
    /// When the answer was made, by its own clock: the time since the epoch.
    clock: Duration,
    /// There is a field that asks for a pause, even if it is malformed.
    has_asked: bool,
    kind: refusal::RefusalKind,
    /// Quotas that are spread over several fields, by what the names of these fields have in common.
    told: Vec<(QuotaKey<'n>, PartialQuota<'n>)>,
    /// The name of the quota whose fields carry none.
    name: Option<Box<str>>,
    reset_after: Option<(Duration, &'n str)>,
    policies: Policies,
    bad_field: Option<BadField>,
}

/// A pause that a field asks for. The greatest of several is used.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct AskedPause<'n> {
    /// Not zero: a zero was rounded down, or is what a server always sends.
    is_some: bool,
    /// In units smaller than a second.
    is_exact: bool,
    length: Duration,
    is_named: bool,
    is_standard: bool,
    name: Box<str>,
    field: &'n str,
}

/// A quota, as far as its fields have been read.
#[derive(Debug, Default)]
struct PartialQuota<'n> {
    quota: QuotaHint,
    /// The field that reports less than nothing.
    overdrawn: Option<&'static str>,
    /// The field that the reset was read from.
    reset_field: &'n str,
}

impl<'n> HintReader<'n> {
    pub(super) fn of(status: StatusCode, headers: &'n Fields, now: SystemTime) -> Self {
        let mut reading = Self {
            asked: None,
            clock: clock(headers, now),
            has_asked: false,
            kind: refusal::RefusalKind::of(status, headers),
            told: Vec::new(),
            name: None,
            reset_after: None,
            policies: Policies::default(),
            bad_field: None,
        };
        let cached = cached(headers);
        for (name, value) in headers {
            let Some(field) = LimitField::named(name.as_str()) else {
                continue;
            };
            let matters = if field.part.is_retry() {
                reading.kind != refusal::RefusalKind::None
            } else {
                !cached
            };
            if !matters {
                continue;
            }
            let read = text(value, field.part).and_then(|text| reading.take(field, name.as_str(), text));
            // A name that only looks like ours may be about anything.
            if let Err(why) = read
                && !field.is_guess()
            {
                reading.bad_field(field.stem, why);
            }
        }
        reading
    }

    fn take(&mut self, field: LimitField<'n>, name: &'n str, text: &str) -> Result<(), FieldError> {
        match field.part {
            FieldPart::GrpcDetails => match grpc::retry_delay(text)? {
                Some(delay) => self.ask(field, name, When::After(delay)),
                None => Ok(()),
            },
            // A negative number asks not to try again (gRPC's proposal A6).
            FieldPart::GrpcPushback if text.starts_with('-') => Ok(()),
            FieldPart::GrpcPushback | FieldPart::RetryAfterMillis => {
                self.has_asked = true;
                self.ask(field, name, When::After(number(text)? / 1_000))
            }
            FieldPart::Limit => {
                let limit = count(text)?;
                let quota = &mut self.told(field.quota)?.quota;
                quota.window = quota
                    .window
                    .or_else(|| listed_window(text))
                    .filter(|window| sane(*window));
                strictest(&mut quota.limit, limit, u64::min)
            }
            FieldPart::Name if text.len() > LONGEST_NAME => Err(LONG_NAME),
            FieldPart::Name => {
                self.name.get_or_insert_with(|| text.into());
                Ok(())
            }
            FieldPart::Policy => self.policies.add_policies(text),
            FieldPart::Remaining => {
                let told = self.told(field.quota)?;
                if text.strip_prefix('-').is_some_and(|below| count(below).is_ok()) {
                    told.overdrawn = Some(field.stem);
                    return Ok(());
                }
                // A proxy may have joined two lines.
                let said = text.split(',').map(count);
                let least = said
                    .reduce(|least, said| Ok(least?.min(said?)))
                    .unwrap_or(Ok(0))?;
                strictest(&mut told.quota.remaining, least, u64::min)
            }
            FieldPart::Reset | FieldPart::ResetMillis => {
                let when = match field.part {
                    FieldPart::Reset => When::read(text)?,
                    _ => When::of_number(number(text)? / 1_000),
                };
                let ahead = self.ahead(field, when, LONGEST_RESET)?;
                let told = self.told(field.quota)?;
                told.reset_field = name;
                strictest(&mut told.quota.reset, ahead, Duration::max)
            }
            FieldPart::ResetAfter => {
                let ahead = self.ahead(field, When::After(number(text)?), LONGEST_RESET)?;
                let mut own = self.reset_after.map(|(own, _)| own);
                let read = strictest(&mut own, ahead, Duration::max);
                self.reset_after = own.map(|own| (own, name));
                read
            }
            FieldPart::RetryAfter | FieldPart::RetryIn => {
                self.has_asked = true;
                self.ask(field, name, When::read(text)?)
            }
            FieldPart::State => self.policies.add_states(text),
            FieldPart::Used => {
                let (used, limit) = fraction(text)?;
                let quota = &mut self.told(field.quota)?.quota;
                strictest(&mut quota.remaining, limit.saturating_sub(used), u64::min)?;
                strictest(&mut quota.limit, limit, u64::min)
            }
            FieldPart::WindowMillis => {
                let window = number(text)? / 1_000;
                self.told(field.quota)?.quota.window = Some(window).filter(|window| sane(*window));
                Ok(())
            }
        }
    }

    /// Takes a pause that a field asks for.
    fn ask(&mut self, field: LimitField<'n>, name: &'n str, when: When) -> Result<(), FieldError> {
        self.has_asked = true;
        let length = self.ahead(field, when, LONGEST_PAUSE)?;
        let quota = field.quota.name();
        if quota.len() > LONGEST_NAME {
            return Err(LONG_NAME);
        }
        let asked = AskedPause {
            is_some: !length.is_zero(),
            is_exact: field.part != FieldPart::RetryAfter,
            length,
            is_named: !quota.is_empty(),
            is_standard: field.stem == "retry-after",
            name: quota,
            field: name,
        };
        if self.asked.as_ref().is_none_or(|own| *own < asked) {
            self.asked = Some(asked);
        }
        Ok(())
    }

    /// Returns how far a time is ahead of the answer's clock, at most `longest`.
    fn ahead(
        &mut self,
        field: LimitField<'_>,
        when: When,
        longest: Duration,
    ) -> Result<Duration, FieldError> {
        let ahead = match when {
            When::After(delay) => delay,
            When::At(moment) if self.clock.saturating_sub(moment) > SKEW => return Err("in the past"),
            When::At(moment) => moment.saturating_sub(self.clock),
        };
        if ahead > longest {
            self.bad_field(field.stem, TOO_LONG);
        }
        Ok(ahead.min(longest))
    }

    fn told(&mut self, key: QuotaKey<'n>) -> Result<&mut PartialQuota<'n>, FieldError> {
        let place = match self.told.iter().position(|(own, _)| *own == key) {
            Some(place) => place,
            None if self.told.len() == MOST_QUOTAS => return Err(MANY),
            None => {
                let mut told = PartialQuota::default();
                told.quota.window = key.window();
                self.told.push((key, told));
                self.told.len() - 1
            }
        };
        Ok(&mut self.told[place].1)
    }

    fn bad_field(&mut self, field: &'static str, why: FieldError) {
        self.bad_field.get_or_insert(BadField { field, why });
    }

    /// Returns the hints, and the pause that was asked for, whether the answer is a refusal or not.
    pub(super) fn hints(mut self, headers: &Fields) -> (Hints, Option<Duration>) {
        let quotas = self.quotas(headers);
        let is_refusal = match self.kind {
            refusal::RefusalKind::Limit => true,
            refusal::RefusalKind::Perhaps => {
                let says_so = self.has_asked || quotas.iter().any(|(quota, _)| quota.is_exhausted());
                says_so || refusal::has_mark(headers)
            }
            refusal::RefusalKind::Error => refusal::has_mark(headers),
            refusal::RefusalKind::None => false,
        };
        let pause = is_refusal.then(|| self.pause(&quotas, headers)).flatten();
        let hints = Hints {
            is_refusal,
            pause,
            quotas: quotas.into_iter().map(|(quota, _)| quota).collect(),
            bad_field: self.bad_field,
        };
        (hints, self.asked.map(|asked| asked.length))
    }

    /// Returns how long a refusal asks to be left alone.
    fn pause(&self, quotas: &[(QuotaHint, &str)], headers: &Fields) -> Option<PauseHint> {
        let (length, name, field) = match &self.asked {
            Some(asked) if asked.is_named => (asked.length, &*asked.name, asked.field),
            Some(asked) => (asked.length, of_whom(quotas), asked.field),
            None => exhausted(quotas, self.kind).or_else(|| refusal::of_github(self.kind, headers))?,
        };
        Some(PauseHint {
            length: length.min(LONGEST_PAUSE),
            name: name.into(),
            field: fields::written(field),
        })
    }

    /// Returns all quotas, each name once, those with a name last; each with the field that its reset was read
    /// from.
    fn quotas(&mut self, headers: &Fields) -> Vec<(QuotaHint, &'n str)> {
        let may_refuse = matches!(
            self.kind,
            refusal::RefusalKind::Limit | refusal::RefusalKind::Perhaps
        );
        let mut told = std::mem::take(&mut self.told);
        for (_, PartialQuota { quota, overdrawn, .. }) in &mut told {
            let Some(field) = *overdrawn else { continue };
            // Without a limit it may mean that there is no limit.
            if self.kind == refusal::RefusalKind::Limit || quota.limit.is_some_and(|limit| limit > 0) {
                quota.remaining = Some(0)
            } else {
                self.bad_field(field, "negative")
            }
        }
        let mut quotas: Vec<(QuotaHint, &str)> = self.unnamed(&mut told, headers).into_iter().collect();
        let named = told.into_iter().filter_map(|(key, told)| {
            let name = key.is_named().then(|| key.name())?;
            let quota = QuotaHint { name, ..told.quota };
            // One field alone may be about anything.
            let is_whole = quota.remaining.is_some() && (quota.limit.is_some() || quota.reset.is_some());
            (is_whole && quota.name.len() <= LONGEST_NAME).then_some((quota, told.reset_field))
        });
        let (structured, why) = std::mem::take(&mut self.policies).quotas();
        if let Some(why) = why {
            self.bad_field("ratelimit", why);
        }
        let structured = structured.into_iter().map(|quota| (quota, "ratelimit"));
        for (mut quota, field) in named.chain(structured) {
            if let Some(reset) = &mut quota.reset
                && *reset > LONGEST_RESET
            {
                *reset = LONGEST_RESET;
                self.bad_field("ratelimit", TOO_LONG);
            }
            if let Some((own, own_field)) = quotas.iter_mut().find(|(own, _)| {
                own.name == quota.name || (own.name.is_empty() && own.has_figures_of(&quota))
            }) {
                if own.has_figures_of(&quota) {
                    if own.reset.is_none() {
                        *own_field = field;
                    }
                    own.reset = own.reset.or(quota.reset);
                    own.window = quota.window.or(own.window);
                    own.name = quota.name;
                }
                continue;
            }
            if quotas.len() == MOST_QUOTAS {
                self.bad_field("ratelimit", MANY);
                break;
            }
            quotas.push((quota, field));
        }
        quotas.iter_mut().for_each(|(quota, _)| quota.tidy(may_refuse));
        quotas.retain(|(quota, _)| {
            quota.limit.is_some() || quota.remaining.is_some() || (may_refuse && quota.reset.is_some())
        });
        quotas
    }

    /// Returns the quota without a name. Three families of fields may report it. The first one that says what
    /// remains is used alone, because two families may describe two windows.
    fn unnamed(
        &mut self,
        told: &mut [(QuotaKey<'_>, PartialQuota<'n>)],
        headers: &Fields,
    ) -> Option<(QuotaHint, &'n str)> {
        let places = || {
            let of = |family| {
                told.iter()
                    .position(|(key, _)| key.family == family && !key.is_named())
            };
            [FieldFamily::Draft, FieldFamily::X, FieldFamily::Dashed]
                .into_iter()
                .filter_map(of)
        };
        let place = places()
            .find(|place| told[*place].1.quota.remaining.is_some())
            .or_else(|| places().next());
        let Some(place) = place else {
            // On an answer that is no refusal, a reset alone says nothing about a quota.
            let (reset, field) = self.reset_after?;
            let reset = Some(reset);
            return Some((
                QuotaHint {
                    reset,
                    ..QuotaHint::default()
                },
                field,
            ));
        };
        let family = std::mem::take(&mut told[place].1);
        let mut quota = family.quota;
        let mut field = family.reset_field;
        if let Some(limit) = quota.limit
            && quota.window.is_none()
        {
            quota.window = self.policies.window_of(limit);
        }
        if let Some((reset, its)) = self.reset_after {
            (quota.reset, field) = (Some(reset), its);
        }
        if quota.reset.is_none() && quota.window.is_none() {
            quota.window = umbrella(headers);
        }
        quota.name = self.name.take().unwrap_or_default();
        Some((quota, field))
    }
}

impl QuotaHint {
    /// Whether nothing is left. A limit of one without a reset has nothing left after every request, so it proves
    /// nothing.
    fn is_exhausted(&self) -> bool {
        self.remaining == Some(0) && (self.reset.is_some() || self.limit != Some(1))
    }

    /// Whether both report the same counter.
    fn has_figures_of(&self, other: &Self) -> bool {
        let is_near = |own: Duration, other: Duration| own.abs_diff(other) <= Duration::from_secs(2);
        let agree = |own: Option<Duration>, other: Option<Duration>| {
            own.zip(other).is_none_or(|(own, other)| is_near(own, other))
        };
        self.limit.is_some()
            && self.remaining.is_some()
            && (self.limit, self.remaining) == (other.limit, other.remaining)
            && agree(self.reset, other.reset)
            && agree(self.window, other.window)
    }

    /// Removes figures without a meaning.
    fn tidy(&mut self, may_refuse: bool) {
        // On a success this means that there is no limit. On a refusal, Okta sends it for its limit on concurrent
        // requests.
        if self.limit == Some(0) {
            self.limit = None;
            self.remaining = self.remaining.filter(|_| may_refuse);
        }
        if let (Some(limit), Some(remaining)) = (self.limit, &mut self.remaining) {
            *remaining = limit.min(*remaining);
        }
        // The next token has come already (Envoy), or the time was rounded down: either way the whole quota is
        // not back now.
        if self.reset == Some(Duration::ZERO) && self.remaining.is_some_and(|remaining| remaining > 0) {
            self.reset = None;
        }
    }
}

/// Returns when the answer was made, by its own clock, or by ours where it does not say. `Date` is rounded down
/// to whole seconds. If our clock is within that second or the next, both clocks are right, and ours supplies the
/// fraction.
fn clock(headers: &Fields, now: SystemTime) -> Duration {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = crate::fields::date(headers, &DATE);
    let Some(date) = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok()) else {
        return now;
    };
    match now.checked_sub(date) {
        Some(rest) if rest < Duration::from_secs(2) => date + rest.min(Duration::from_secs(1)),
        _ => date,
    }
}

/// Whether the answer comes from a cache. Some networks write `Age: 0` on every fresh answer.
fn cached(headers: &Fields) -> bool {
    let age = headers
        .get(AGE)
        .and_then(|age| number(age.to_str().ok()?.trim()).ok());
    age.is_some_and(|age| !age.is_zero())
}

fn text(value: &HeaderValue, part: FieldPart) -> Result<&str, FieldError> {
    let (longest, why) = match part {
        FieldPart::GrpcDetails => (LONGEST_DETAILS, "longer than 8192 bytes"),
        _ => (LONGEST_VALUE, "longer than 1024 bytes"),
    };
    if value.len() > longest {
        return Err(why);
    }
    // Go writes microseconds with a letter that is not ASCII.
    match str::from_utf8(value.as_bytes()).map(str::trim) {
        Ok("") => Err("empty"),
        Ok(text) => Ok(text),
        Err(_) => Err("not text"),
    }
}

/// Keeps the stricter of two values of a field.
fn strictest<T: Copy + PartialEq>(
    own: &mut Option<T>,
    said: T,
    stricter: fn(T, T) -> T,
) -> Result<(), FieldError> {
    let before = own.replace(own.map_or(said, |own| stricter(own, said)));
    match before {
        Some(before) if before != said => Err("said twice, differently"),
        _ => Ok(()),
    }
}

/// Returns the latest reset among the exhausted quotas, with the name and the field. If the status says that a
/// limit refused, a quota that does not report what remains counts as exhausted.
fn exhausted<'q>(
    quotas: &'q [(QuotaHint, &'q str)],
    kind: refusal::RefusalKind,
) -> Option<(Duration, &'q str, &'q str)> {
    let empty = |quota: &QuotaHint| match quota.remaining {
        Some(remaining) => remaining == 0,
        None => kind == refusal::RefusalKind::Limit,
    };
    let resets = quotas.iter().filter(|(quota, _)| empty(quota));
    resets
        .filter_map(|(quota, field)| Some((quota.reset?, &*quota.name, *field)))
        .max_by_key(|(reset, ..)| *reset)
}

/// Returns the quota that a pause without a name is about: the exhausted one, and of several the one with the
/// latest reset.
fn of_whom<'q>(quotas: &'q [(QuotaHint, &str)]) -> &'q str {
    let exhausted = || (quotas.iter().map(|(quota, _)| quota)).filter(|quota| quota.remaining == Some(0));
    if exhausted().any(|quota| quota.name.is_empty()) {
        return "";
    }
    let last = exhausted().max_by_key(|quota| quota.reset);
    last.map_or("", |quota| &quota.name)
}

/// Returns the window of api-umbrella (api.data.gov), which reports a quota of a rolling hour and no reset.
fn umbrella(headers: &Fields) -> Option<Duration> {
    let umbrella = headers.contains_key("x-api-umbrella-request-id");
    umbrella.then_some(Duration::from_secs(3_600))
}

//! One look through the fields of an answer, and what they say together.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{AGE, DATE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::fields::{self, Family, Field, Key, Part};
use super::structured::Policies;
use super::value::{When, count, fraction, listed_window, number};
use super::{Hints, Nonsense, Pause, Quota, Why, grpc, refusal, sane};
use super::{LONG_NAME, LONGEST_NAME, LONGEST_PAUSE, LONGEST_RESET, MANY, MOST_QUOTAS};

/// What has been read so far.
#[derive(Debug)]
pub(super) struct Reading<'n> {
    /// The most telling of the fields that ask for a pause.
    asked: Option<Asked<'n>>,
    /// When the answer was made, by its own clock: the time since the epoch.
    clock: Duration,
    /// There is a field that asks for a pause, though it may make no sense.
    has_asked: bool,
    kind: refusal::Kind,
    /// Quotas that are told in several fields, by what their fields have in common.
    told: Vec<(Key<'n>, Told<'n>)>,
    /// About the quota without a name of its own.
    name: Option<Box<str>>,
    reset_after: Option<(Duration, &'n str)>,
    policies: Policies,
    nonsense: Option<Nonsense>,
}

/// A pause that a field asks for. The greatest is believed.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Asked<'n> {
    /// A zero is cut, or is what a server always says.
    is_some: bool,
    /// In units smaller than a second.
    is_exact: bool,
    length: Duration,
    is_named: bool,
    is_standard: bool,
    name: Box<str>,
    field: &'n str,
}

/// A quota as far as it has been told.
#[derive(Debug, Default)]
struct Told<'n> {
    quota: Quota,
    /// Where less than nothing remains: the field.
    overdrawn: Option<&'static str>,
    /// The field that told the reset.
    reset_field: &'n str,
}

impl<'n> Reading<'n> {
    pub(super) fn of(status: StatusCode, headers: &'n HeaderMap, now: SystemTime) -> Self {
        let mut reading = Self {
            asked: None,
            clock: clock(headers, now),
            has_asked: false,
            kind: refusal::Kind::of(status, headers),
            told: Vec::new(),
            name: None,
            reset_after: None,
            policies: Policies::default(),
            nonsense: None,
        };
        let cached = cached(headers);
        for (name, value) in headers {
            let Some(field) = Field::named(name.as_str()) else {
                continue;
            };
            let matters = match field.part.is_retry() {
                true => reading.kind != refusal::Kind::None,
                false => !cached,
            };
            if !matters {
                continue;
            }
            let read = text(value, field.part).and_then(|text| reading.take(field, name.as_str(), text));
            // Names of people's own may be about anything.
            if let Err(why) = read
                && !field.is_guess()
            {
                reading.nonsense(field.stem, why);
            }
        }
        reading
    }

    fn take(&mut self, field: Field<'n>, name: &'n str, text: &str) -> Result<(), Why> {
        match field.part {
            Part::GrpcDetails => match grpc::retry_delay(text)? {
                Some(delay) => self.ask(field, name, When::After(delay)),
                None => Ok(()),
            },
            // A negative one asks not to try again (gRPC's proposal A6).
            Part::GrpcPushback if text.starts_with('-') => Ok(()),
            Part::GrpcPushback | Part::RetryAfterMillis => {
                self.has_asked = true;
                self.ask(field, name, When::After(number(text)? / 1_000))
            }
            Part::Limit => {
                let limit = count(text)?;
                let quota = &mut self.told(field.quota)?.quota;
                quota.window = quota
                    .window
                    .or_else(|| listed_window(text))
                    .filter(|window| sane(*window));
                strictest(&mut quota.limit, limit, u64::min)
            }
            Part::Name if text.len() > LONGEST_NAME => Err(LONG_NAME),
            Part::Name => {
                self.name.get_or_insert_with(|| text.into());
                Ok(())
            }
            Part::Policy => self.policies.add_policies(text),
            Part::Remaining => {
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
            Part::Reset | Part::ResetMillis => {
                let when = match field.part {
                    Part::Reset => When::read(text)?,
                    _ => When::of_number(number(text)? / 1_000),
                };
                let ahead = self.ahead(field, when, LONGEST_RESET)?;
                let told = self.told(field.quota)?;
                told.reset_field = name;
                strictest(&mut told.quota.reset, ahead, Duration::max)
            }
            Part::ResetAfter => {
                let ahead = self.ahead(field, When::After(number(text)?), LONGEST_RESET)?;
                let mut own = self.reset_after.map(|(own, _)| own);
                let read = strictest(&mut own, ahead, Duration::max);
                self.reset_after = own.map(|own| (own, name));
                read
            }
            Part::RetryAfter | Part::RetryIn => {
                self.has_asked = true;
                self.ask(field, name, When::read(text)?)
            }
            Part::State => self.policies.add_states(text),
            Part::Used => {
                let (used, limit) = fraction(text)?;
                let quota = &mut self.told(field.quota)?.quota;
                strictest(&mut quota.remaining, limit.saturating_sub(used), u64::min)?;
                strictest(&mut quota.limit, limit, u64::min)
            }
            Part::WindowMillis => {
                let window = number(text)? / 1_000;
                self.told(field.quota)?.quota.window = Some(window).filter(|window| sane(*window));
                Ok(())
            }
        }
    }

    /// A field asks for a pause.
    fn ask(&mut self, field: Field<'n>, name: &'n str, when: When) -> Result<(), Why> {
        self.has_asked = true;
        let length = self.ahead(field, when, LONGEST_PAUSE)?;
        let quota = field.quota.name();
        if quota.len() > LONGEST_NAME {
            return Err(LONG_NAME);
        }
        let asked = Asked {
            is_some: !length.is_zero(),
            is_exact: field.part != Part::RetryAfter,
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

    /// How far ahead of the answer's clock a time is, cut to `longest`.
    fn ahead(&mut self, field: Field<'_>, when: When, longest: Duration) -> Result<Duration, Why> {
        let ahead = match when {
            When::After(delay) => delay,
            When::At(moment) if self.clock.saturating_sub(moment) > SKEW => return Err("in the past"),
            When::At(moment) => moment.saturating_sub(self.clock),
        };
        if ahead > longest {
            self.nonsense(field.stem, TOO_LONG);
        }
        Ok(ahead.min(longest))
    }

    fn told(&mut self, key: Key<'n>) -> Result<&mut Told<'n>, Why> {
        let place = match self.told.iter().position(|(own, _)| *own == key) {
            Some(place) => place,
            None if self.told.len() == MOST_QUOTAS => return Err(MANY),
            None => {
                let mut told = Told::default();
                told.quota.window = key.window();
                self.told.push((key, told));
                self.told.len() - 1
            }
        };
        Ok(&mut self.told[place].1)
    }

    fn nonsense(&mut self, field: &'static str, why: Why) {
        self.nonsense.get_or_insert(Nonsense { field, why });
    }

    /// The hints, and the pause that is asked for, refusal or not.
    pub(super) fn hints(mut self, headers: &HeaderMap) -> (Hints, Option<Duration>) {
        let quotas = self.quotas(headers);
        let is_refusal = match self.kind {
            refusal::Kind::Limit => true,
            refusal::Kind::Perhaps => {
                let says_so = self.has_asked || quotas.iter().any(|(quota, _)| quota.is_exhausted());
                says_so || refusal::has_mark(headers)
            }
            refusal::Kind::Error => refusal::has_mark(headers),
            refusal::Kind::None => false,
        };
        let pause = is_refusal.then(|| self.pause(&quotas, headers)).flatten();
        let hints = Hints {
            is_refusal,
            pause,
            quotas: quotas.into_iter().map(|(quota, _)| quota).collect(),
            nonsense: self.nonsense,
        };
        (hints, self.asked.map(|asked| asked.length))
    }

    /// For how long a refusal asks to be left alone.
    fn pause(&self, quotas: &[(Quota, &str)], headers: &HeaderMap) -> Option<Pause> {
        let (length, name, field) = match &self.asked {
            Some(asked) if asked.is_named => (asked.length, &*asked.name, asked.field),
            Some(asked) => (asked.length, of_whom(quotas), asked.field),
            None => exhausted(quotas, self.kind).or_else(|| refusal::of_github(self.kind, headers))?,
        };
        Some(Pause {
            length: length.min(LONGEST_PAUSE),
            name: name.into(),
            field: fields::written(field),
        })
    }

    /// All quotas, each name once, those with a name of their own last; with the field that told the reset.
    fn quotas(&mut self, headers: &HeaderMap) -> Vec<(Quota, &'n str)> {
        let may_refuse = matches!(self.kind, refusal::Kind::Limit | refusal::Kind::Perhaps);
        let mut told = std::mem::take(&mut self.told);
        for (_, Told { quota, overdrawn, .. }) in &mut told {
            let Some(field) = *overdrawn else { continue };
            // Without a limit it may as well mean that there is none.
            match self.kind == refusal::Kind::Limit || quota.limit.is_some_and(|limit| limit > 0) {
                true => quota.remaining = Some(0),
                false => self.nonsense(field, "negative"),
            }
        }
        let mut quotas: Vec<(Quota, &str)> = self.unnamed(&mut told, headers).into_iter().collect();
        let named = told.into_iter().filter_map(|(key, told)| {
            let name = key.is_named().then(|| key.name())?;
            let quota = Quota { name, ..told.quota };
            // One part alone may be about anything.
            let is_whole = quota.remaining.is_some() && (quota.limit.is_some() || quota.reset.is_some());
            (is_whole && quota.name.len() <= LONGEST_NAME).then_some((quota, told.reset_field))
        });
        let (structured, why) = std::mem::take(&mut self.policies).quotas();
        if let Some(why) = why {
            self.nonsense("ratelimit", why);
        }
        let structured = structured.into_iter().map(|quota| (quota, "ratelimit"));
        for (mut quota, field) in named.chain(structured) {
            if let Some(reset) = &mut quota.reset
                && *reset > LONGEST_RESET
            {
                *reset = LONGEST_RESET;
                self.nonsense("ratelimit", TOO_LONG);
            }
            if let Some((own, own_field)) = (quotas.iter_mut()).find(|(own, _)| {
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
                self.nonsense("ratelimit", MANY);
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

    /// The quota without a name of its own. Three families of fields may tell it: the one that knows what remains is
    /// taken whole, because what two of them say may be about two windows.
    fn unnamed(&mut self, told: &mut [(Key<'_>, Told<'n>)], headers: &HeaderMap) -> Option<(Quota, &'n str)> {
        let places = || {
            let of = |family| (told.iter()).position(|(key, _)| key.family == family && !key.is_named());
            [Family::Draft, Family::X, Family::Dashed]
                .into_iter()
                .filter_map(of)
        };
        let place = places()
            .find(|place| told[*place].1.quota.remaining.is_some())
            .or_else(|| places().next());
        let Some(place) = place else {
            // That alone says nothing of a quota on an answer that is none of a refusal.
            let (reset, field) = self.reset_after?;
            let reset = Some(reset);
            return Some((
                Quota {
                    reset,
                    ..Quota::default()
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

impl Quota {
    /// A limit of one, whose end is not told, has nothing left on every answer: that alone tells no refusal.
    fn is_exhausted(&self) -> bool {
        self.remaining == Some(0) && (self.reset.is_some() || self.limit != Some(1))
    }

    /// The same counter, told in two ways.
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

    /// Strikes what tells nothing.
    fn tidy(&mut self, may_refuse: bool) {
        // Where nothing was refused this means that there is no limit; where something was, Okta says so of its limit on
        // requests at once.
        if self.limit == Some(0) {
            self.limit = None;
            self.remaining = self.remaining.filter(|_| may_refuse);
        }
        if let (Some(limit), Some(remaining)) = (self.limit, &mut self.remaining) {
            *remaining = limit.min(*remaining);
        }
        // The next token is here already (Envoy), or the moment is cut: either way it is not whole now.
        if self.reset == Some(Duration::ZERO) && self.remaining.is_some_and(|remaining| remaining > 0) {
            self.reset = None;
        }
    }
}

/// When the answer was made, by its own clock; ours where it does not say. `Date` is cut to whole seconds: where our
/// clock points into that second or a little behind it, as it does where both are right, it tells the rest of it.
fn clock(headers: &HeaderMap, now: SystemTime) -> Duration {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = headers
        .get(DATE)
        .and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    let Some(date) = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok()) else {
        return now;
    };
    match now.checked_sub(date) {
        Some(rest) if rest < Duration::from_secs(2) => date + rest.min(Duration::from_secs(1)),
        _ => date,
    }
}

/// The answer comes out of a cache. `Age: 0` is what some networks write on every fresh one.
fn cached(headers: &HeaderMap) -> bool {
    let age = headers
        .get(AGE)
        .and_then(|age| number(age.to_str().ok()?.trim()).ok());
    age.is_some_and(|age| !age.is_zero())
}

fn text(value: &HeaderValue, part: Part) -> Result<&str, Why> {
    let (longest, why) = match part {
        Part::GrpcDetails => (LONGEST_DETAILS, "longer than 8192 bytes"),
        _ => (LONGEST_VALUE, "longer than 1024 bytes"),
    };
    if value.len() > longest {
        return Err(why);
    }
    // Go writes microseconds with a letter that is not in ASCII.
    match str::from_utf8(value.as_bytes()).map(str::trim) {
        Ok("") => Err("empty"),
        Ok(text) => Ok(text),
        Err(_) => Err("not text"),
    }
}

/// Keeps the stricter of what two lines say.
fn strictest<T: Copy + PartialEq>(own: &mut Option<T>, said: T, stricter: fn(T, T) -> T) -> Result<(), Why> {
    let before = own.replace(own.map_or(said, |own| stricter(own, said)));
    match before {
        Some(before) if before != said => Err("said twice, differently"),
        _ => Ok(()),
    }
}

/// The reset of the exhausted quota that is whole last, with its name and its field. Where the status tells a limit, a
/// quota that does not tell what remains counts as exhausted.
fn exhausted<'q>(
    quotas: &'q [(Quota, &'q str)],
    kind: refusal::Kind,
) -> Option<(Duration, &'q str, &'q str)> {
    let empty = |quota: &Quota| match quota.remaining {
        Some(remaining) => remaining == 0,
        None => kind == refusal::Kind::Limit,
    };
    let resets = quotas.iter().filter(|(quota, _)| empty(quota));
    resets
        .filter_map(|(quota, field)| Some((quota.reset?, &*quota.name, *field)))
        .max_by_key(|(reset, ..)| *reset)
}

/// Which quota a pause is about that does not say: the exhausted one, and of several with names the one that is whole
/// last.
fn of_whom<'q>(quotas: &'q [(Quota, &str)]) -> &'q str {
    let exhausted = || (quotas.iter().map(|(quota, _)| quota)).filter(|quota| quota.remaining == Some(0));
    if exhausted().any(|quota| quota.name.is_empty()) {
        return "";
    }
    let last = exhausted().max_by_key(|quota| quota.reset);
    last.map_or("", |quota| &quota.name)
}

/// api-umbrella, which is api.data.gov, tells the counter of an hour and no reset, because the hour is a rolling one.
fn umbrella(headers: &HeaderMap) -> Option<Duration> {
    let umbrella = headers.contains_key("x-api-umbrella-request-id");
    umbrella.then_some(Duration::from_secs(3_600))
}

const TOO_LONG: Why = "too long a time, cut";
/// What servers let pass in their fields (grpc-go: 16 KiB of all, nginx: 8 KiB of one).
const LONGEST_DETAILS: usize = 8_192;
const LONGEST_VALUE: usize = 1_024;
/// A moment that has passed by less is now: clocks differ, and an answer takes its time.
const SKEW: Duration = Duration::from_secs(60);

//! The fields `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers.
//!
//! The draft changed its form several times and servers send all of them:
//!
//! | draft | policy | state |
//! | --- | --- | --- |
//! | -10 | `"day";q=100;qu="requests";w=86400;pk=:ZQ==:` | `"day";r=50;t=30;pk=:ZQ==:` |
//! | -08 | `day;l=100;w=86400` | `day;r=50;t=30` |
//! | -07 | `100;w=86400` | `limit=100, remaining=50, reset=30` |
//!
//! A line that is malformed is ignored whole, as the draft asks for. A partition key is not kept: it stands for
//! whoever asked, and that is us.

use std::ops::Range;
use std::time::Duration;

use sfparse::{Parser, Value};

use super::{LONG_NAME, LONGEST_NAME, MOST_QUOTAS, Quota, Why, sane};

/// The lines read so far.
#[derive(Debug, Default)]
pub(super) struct Policies {
    policies: Vec<Item>,
    states: Vec<Item>,
}

/// A policy or a state; one of a kind has some of the numbers.
#[derive(Debug, Default)]
struct Item {
    /// `None` where a number stands in its place, and that is the limit.
    name: Option<Box<str>>,
    limit: Option<u64>,
    remaining: Option<u64>,
    reset: Option<Duration>,
    /// It counts bytes, or what is under way at once.
    other_units: bool,
    window: Option<Duration>,
}

impl Policies {
    pub(super) fn add_policies(&mut self, line: &str) -> Result<(), Why> {
        let policies = Item::list(line)?;
        if policies.iter().any(|policy| policy.limit.is_none()) {
            return Err(MALFORMED);
        }
        keep(&mut self.policies, policies)
    }

    pub(super) fn add_states(&mut self, line: &str) -> Result<(), Why> {
        let states = match Item::dictionary(line) {
            Ok(state) if state.remaining.is_some() => vec![state],
            _ => Item::list(line)?,
        };
        let whole =
            |state: &Item| state.name.is_some() && (state.remaining.is_some() || state.reset.is_some());
        if !states.iter().all(whole) {
            return Err(MALFORMED);
        }
        keep(&mut self.states, states)
    }

    /// The window of a limit, where a policy without a name tells it.
    pub(super) fn window_of(&self, limit: u64) -> Option<Duration> {
        let counts =
            |policy: &&Item| policy.name.is_none() && policy.limit == Some(limit) && !policy.other_units;
        self.policies.iter().find(counts)?.window
    }

    /// The quotas that are told in full or in part, each name once, and what was wrong with them.
    pub(super) fn quotas(mut self) -> (Vec<Quota>, Option<Why>) {
        let mut quotas: Vec<Quota> = Vec::new();
        let mut why = None;
        for state in std::mem::take(&mut self.states) {
            let policy = self.policies.iter().find(|policy| policy.name == state.name);
            if policy.is_some_and(|policy| policy.other_units) {
                continue;
            }
            let name = state.name.unwrap_or_default();
            if let Some(quota) = quotas.iter_mut().find(|quota| quota.name == name) {
                // One name may come with several partition keys, or of several limiters: the one that ends first counts.
                if state.remaining < quota.remaining && state.remaining.is_some() {
                    (quota.remaining, quota.reset) = (state.remaining, state.reset);
                }
                why = Some("a name twice");
                continue;
            }
            quotas.push(Quota {
                name,
                limit: state.limit.or_else(|| policy?.limit),
                remaining: state.remaining,
                reset: state.reset,
                window: policy.map_or_else(|| self.window_of(state.limit?), |policy| policy.window),
            });
        }
        for policy in self.policies.into_iter().filter(|policy| !policy.other_units) {
            let Some(name) = policy.name else { continue };
            if !quotas.iter().any(|quota| quota.name == name) {
                let (limit, window) = (policy.limit, policy.window);
                quotas.push(Quota {
                    name,
                    limit,
                    window,
                    ..Quota::default()
                });
            }
        }
        if let [quota] = &mut quotas[..]
            && is_of_numbers(&quota.name)
        {
            quota.name = Box::default();
        }
        (quotas, why)
    }
}

impl Item {
    fn list(line: &str) -> Result<Vec<Self>, Why> {
        let mut parser = Parser::new(line.as_bytes());
        let mut items = Vec::new();
        while let Some(value) = parser.parse_list().map_err(|_| MALFORMED)? {
            let mut item = Self::default();
            match value {
                Value::Integer(limit) => item.limit = Some(natural(limit)?),
                value => item.name = Some(text(line, value)?.into()),
            }
            if item.name.as_ref().is_some_and(|name| name.len() > LONGEST_NAME) {
                return Err(LONG_NAME);
            }
            while let Some((key, value)) = parser.parse_param().map_err(|_| MALFORMED)? {
                item.parameter(key, value, line)?;
            }
            items.push(item);
        }
        Ok(items)
    }

    fn parameter(&mut self, key: &str, value: Value, line: &str) -> Result<(), Why> {
        match (key, value) {
            ("q" | "l", Value::Integer(number)) => self.limit = Some(natural(number)?),
            ("r", Value::Integer(number)) => self.remaining = Some(natural(number)?),
            ("t", Value::Integer(number)) => self.reset = Some(Duration::from_secs(natural(number)?)),
            ("w", Value::Integer(number)) => {
                self.window = Some(Duration::from_secs(natural(number)?)).filter(|window| sane(*window));
            }
            ("qu", value) => self.other_units = !matches!(text(line, value)?, "requests" | "request"),
            ("q" | "l" | "r" | "t" | "w", _) => return Err(MALFORMED),
            _ => {}
        }
        Ok(())
    }

    /// The whole line is one state, of the quota without a name.
    fn dictionary(line: &str) -> Result<Self, Why> {
        let mut parser = Parser::new(line.as_bytes());
        let mut item = Self {
            name: Some(Box::default()),
            ..Self::default()
        };
        while let Some((key, value)) = parser.parse_dict().map_err(|_| MALFORMED)? {
            match (key, value) {
                ("limit", Value::Integer(number)) => item.limit = Some(natural(number)?),
                ("remaining", Value::Integer(number)) => item.remaining = Some(natural(number)?),
                ("reset", Value::Integer(number)) => item.reset = Some(Duration::from_secs(natural(number)?)),
                ("limit" | "remaining" | "reset", _) => return Err(MALFORMED),
                _ => {}
            }
        }
        Ok(item)
    }
}

/// `5-in-6sec`, `100-in-1hr`: what express-rate-limit calls a quota that nobody has named. It says no more than the
/// numbers do, and the limiters of two routes may have the same.
fn is_of_numbers(name: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_digit();
    let span = name.trim_start_matches(is_digit);
    let Some(span) = span.strip_prefix("-in-").filter(|_| name.starts_with(is_digit)) else {
        return false;
    };
    let unit = span.trim_start_matches(|c: char| is_digit(c) || c == '.');
    span.starts_with(is_digit) && matches!(unit, "sec" | "min" | "hr" | "hrs" | "day" | "days")
}

/// A name or a unit. Escapes stay as they are: a name is only compared.
fn text(line: &str, value: Value) -> Result<&str, Why> {
    let range: Range<usize> = match value {
        Value::String { range, .. } | Value::Token(range) => range,
        _ => return Err(MALFORMED),
    };
    line.get(range).ok_or(MALFORMED)
}

fn natural(number: i64) -> Result<u64, Why> {
    u64::try_from(number).map_err(|_| "negative")
}

/// Keeps what there is room for.
fn keep(own: &mut Vec<Item>, said: Vec<Item>) -> Result<(), Why> {
    let room = MOST_QUOTAS.saturating_sub(own.len());
    let many = said.len() > room;
    own.extend(said.into_iter().take(room));
    if many { Err("more than 16 quotas") } else { Ok(()) }
}

const MALFORMED: Why = "malformed";

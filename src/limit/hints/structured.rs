//! The fields `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers.
//!
//! The draft changed its form several times, and servers send all forms:
//!
//! | draft | policy | state |
//! | --- | --- | --- |
//! | -10 | `"day";q=100;qu="requests";w=86400;pk=:ZQ==:` | `"day";r=50;t=30;pk=:ZQ==:` |
//! | -08 | `day;l=100;w=86400` | `day;r=50;t=30` |
//! | -07 | `100;w=86400` | `limit=100, remaining=50, reset=30` |
//!
//! A malformed line is ignored as a whole, as the draft asks. A partition key is not kept: it identifies the
//! client, and that is us.

use std::ops::Range;
use std::time::Duration;

use sfparse::{Parser, Value};

use super::{FieldError, LONG_NAME, LONGEST_NAME, MOST_QUOTAS, QuotaHint, sane};

const MALFORMED: FieldError = "malformed";

/// The lines read so far.
#[derive(Debug, Default)]
pub(super) struct Policies {
    policies: Vec<PolicyItem>,
    states: Vec<PolicyItem>,
}

/// One policy or one state. Each has only some of the numbers.
#[derive(Debug, Default)]
struct PolicyItem {
    /// `None` where the item is a number: then that is the limit.
    name: Option<Box<str>>,
    limit: Option<u64>,
    remaining: Option<u64>,
    reset: Option<Duration>,
    /// It counts bytes, or requests in flight.
    other_units: bool,
    window: Option<Duration>,
}

impl Policies {
    pub(super) fn add_policies(&mut self, line: &str) -> Result<(), FieldError> {
        let policies = PolicyItem::list(line)?;
        if policies.iter().any(|policy| policy.limit.is_none()) {
            return Err(MALFORMED);
        }
        keep(&mut self.policies, policies)
    }

    pub(super) fn add_states(&mut self, line: &str) -> Result<(), FieldError> {
        let states = match PolicyItem::dictionary(line) {
            Ok(state) if state.remaining.is_some() => vec![state],
            _ => PolicyItem::list(line)?,
        };
        let whole =
            |state: &PolicyItem| state.name.is_some() && (state.remaining.is_some() || state.reset.is_some());
        if !states.iter().all(whole) {
            return Err(MALFORMED);
        }
        keep(&mut self.states, states)
    }

    /// Returns the window that a policy without a name states for a limit.
    pub(super) fn window_of(&self, limit: u64) -> Option<Duration> {
        let counts = |policy: &&PolicyItem| {
            policy.name.is_none() && policy.limit == Some(limit) && !policy.other_units
        };
        self.policies.iter().find(counts)?.window
    }

    /// Returns the quotas, each name once, and what was wrong with them.
    pub(super) fn quotas(mut self) -> (Vec<QuotaHint>, Option<FieldError>) {
        let mut quotas: Vec<QuotaHint> = Vec::new();
        let mut why = None;
        for state in std::mem::take(&mut self.states) {
            let policy = self.policies.iter().find(|policy| policy.name == state.name);
            if policy.is_some_and(|policy| policy.other_units) {
                continue;
            }
            let name = state.name.unwrap_or_default();
            if let Some(quota) = quotas.iter_mut().find(|quota| quota.name == name) {
                // One name may come with several partition keys, or from several limiters: the smallest rest
                // counts.
                if state.remaining < quota.remaining && state.remaining.is_some() {
                    (quota.remaining, quota.reset) = (state.remaining, state.reset);
                }
                why = Some("a name twice");
                continue;
            }
            quotas.push(QuotaHint {
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
                quotas.push(QuotaHint {
                    name,
                    limit,
                    window,
                    ..QuotaHint::default()
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

impl PolicyItem {
    fn list(line: &str) -> Result<Vec<Self>, FieldError> {
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

    fn parameter(&mut self, key: &str, value: Value, line: &str) -> Result<(), FieldError> {
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

    /// Reads a whole line as one state, of the quota without a name.
    fn dictionary(line: &str) -> Result<Self, FieldError> {
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

/// Whether a name only repeats the numbers: `5-in-6sec`, `100-in-1hr`. That is how express-rate-limit names a
/// quota without a name, and the limiters of two routes may have the same.
fn is_of_numbers(name: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_digit();
    let span = name.trim_start_matches(is_digit);
    let Some(span) = span.strip_prefix("-in-").filter(|_| name.starts_with(is_digit)) else {
        return false;
    };
    let unit = span.trim_start_matches(|c: char| is_digit(c) || c == '.');
    span.starts_with(is_digit) && matches!(unit, "sec" | "min" | "hr" | "hrs" | "day" | "days")
}

/// Returns a name or a unit. Escapes stay as they are: a name is only compared.
fn text(line: &str, value: Value) -> Result<&str, FieldError> {
    let range: Range<usize> = match value {
        Value::String { range, .. } | Value::Token(range) => range,
        _ => return Err(MALFORMED),
    };
    line.get(range).ok_or(MALFORMED)
}

fn natural(number: i64) -> Result<u64, FieldError> {
    u64::try_from(number).map_err(|_| "negative")
}

/// Adds as many items as there is room for.
fn keep(own: &mut Vec<PolicyItem>, said: Vec<PolicyItem>) -> Result<(), FieldError> {
    let room = MOST_QUOTAS.saturating_sub(own.len());
    let many = said.len() > room;
    own.extend(said.into_iter().take(room));
    if many { Err("more than 16 quotas") } else { Ok(()) }
}

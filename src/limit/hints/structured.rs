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

use std::time::Duration;

use sfv::{BareItem, Dictionary, Item, List, ListEntry, Parameters, Parser};

use super::{LONG_NAME, LONGEST_NAME, MOST_QUOTAS, Quota, Why, sane};

/// The lines read so far.
#[derive(Debug, Default)]
pub(super) struct Policies {
    policies: Vec<Policy>,
    states: Vec<State>,
}

#[derive(Debug)]
struct Policy {
    /// `None` in the form that has only a number.
    name: Option<Box<str>>,
    limit: u64,
    /// It counts requests, not bytes, and not what is under way at once.
    requests: bool,
    window: Option<Duration>,
}

#[derive(Debug)]
struct State {
    name: Box<str>,
    limit: Option<u64>,
    remaining: Option<u64>,
    reset: Option<Duration>,
}

impl Policies {
    pub(super) fn add_policies(&mut self, line: &str) -> Result<(), Why> {
        let list: List = Parser::new(line).parse().map_err(|_| MALFORMED)?;
        let policies: Vec<_> = list
            .iter()
            .map(|entry| Policy::read(item(entry)?))
            .collect::<Result<_, _>>()?;
        keep(&mut self.policies, policies)
    }

    pub(super) fn add_states(&mut self, line: &str) -> Result<(), Why> {
        let states = match Parser::new(line).parse::<List>() {
            Ok(list) => list
                .iter()
                .map(|entry| State::read(item(entry)?))
                .collect::<Result<_, _>>()?,
            Err(_) => vec![State::read_dictionary(line)?],
        };
        keep(&mut self.states, states)
    }

    /// The window of a quota that is told elsewhere and of which a policy without a name says only the limit.
    pub(super) fn window_of(&self, limit: u64) -> Option<Duration> {
        let matching = |policy: &&Policy| policy.name.is_none() && policy.requests && policy.limit == limit;
        self.policies.iter().find(matching)?.window
    }

    /// The quotas that are told in full or in part, each name once, and what was wrong with them.
    pub(super) fn quotas(self) -> (Vec<Quota>, Option<Why>) {
        let mut quotas: Vec<Quota> = Vec::new();
        let mut why = None;
        for state in self.states {
            let policy = self
                .policies
                .iter()
                .find(|policy| policy.name.as_ref() == Some(&state.name));
            if policy.is_some_and(|policy| !policy.requests) {
                continue;
            }
            let limit = state.limit.or_else(|| policy.map(|policy| policy.limit));
            let window = match policy {
                Some(policy) => policy.window,
                None => {
                    (self.policies.iter()).find_map(|policy| policy.window.filter(|_| policy.unnamed(limit)))
                }
            };
            match quotas.iter_mut().find(|quota| quota.name == state.name) {
                // One name may come with several partition keys.
                Some(quota) => {
                    quota.remaining = quota.remaining.into_iter().chain(state.remaining).min();
                    quota.reset = quota.reset.max(state.reset);
                    why = Some("a name twice");
                }
                None => quotas.push(Quota {
                    name: state.name,
                    limit,
                    remaining: state.remaining,
                    reset: state.reset,
                    window,
                }),
            }
        }
        for policy in self.policies.into_iter().filter(|policy| policy.requests) {
            let Some(name) = policy.name else { continue };
            if !quotas.iter().any(|quota| quota.name == name) {
                let (limit, window) = (Some(policy.limit), policy.window);
                quotas.push(Quota {
                    name,
                    limit,
                    window,
                    ..Quota::default()
                });
            }
        }
        (quotas, why)
    }
}

impl Policy {
    fn read(item: &Item) -> Result<Self, Why> {
        let quota = natural(&item.params, "q")?.or(natural(&item.params, "l")?);
        let (name, limit) = match (&item.bare_item, quota) {
            (BareItem::Integer(limit), _) => (None, u64::try_from(*limit).map_err(|_| MALFORMED)?),
            (name, Some(limit)) => (Some(named(name)?), limit),
            (_, None) => return Err(MALFORMED),
        };
        let requests = match item.params.get("qu") {
            None => true,
            Some(BareItem::String(unit)) => matches!(unit.as_str(), "requests" | "request"),
            Some(_) => return Err(MALFORMED),
        };
        let window = natural(&item.params, "w")?.map(Duration::from_secs);
        Ok(Self {
            name,
            limit,
            requests,
            window: window.filter(|window| sane(*window)),
        })
    }

    fn unnamed(&self, limit: Option<u64>) -> bool {
        self.name.is_none() && self.requests && Some(self.limit) == limit
    }
}

impl State {
    fn read(item: &Item) -> Result<Self, Why> {
        let remaining = natural(&item.params, "r")?;
        let reset = natural(&item.params, "t")?.map(Duration::from_secs);
        if remaining.is_none() && reset.is_none() {
            return Err(MALFORMED);
        }
        Ok(Self {
            name: named(&item.bare_item)?,
            limit: None,
            remaining,
            reset,
        })
    }

    fn read_dictionary(line: &str) -> Result<Self, Why> {
        let dictionary: Dictionary = Parser::new(line).parse().map_err(|_| MALFORMED)?;
        let natural = |key| match dictionary.get(key).map(item) {
            None => Ok(None),
            Some(Ok(Item {
                bare_item: BareItem::Integer(number),
                ..
            })) => u64::try_from(*number).map(Some).map_err(|_| MALFORMED),
            Some(_) => Err(MALFORMED),
        };
        Ok(Self {
            name: Box::default(),
            limit: natural("limit")?,
            remaining: Some(natural("remaining")?.ok_or(MALFORMED)?),
            reset: natural("reset")?.map(Duration::from_secs),
        })
    }
}

fn item(entry: &ListEntry) -> Result<&Item, Why> {
    match entry {
        ListEntry::Item(item) => Ok(item),
        ListEntry::InnerList(_) => Err(MALFORMED),
    }
}

fn named(name: &BareItem) -> Result<Box<str>, Why> {
    let name = match name {
        BareItem::String(name) => name.as_str(),
        BareItem::Token(name) => name.as_str(),
        _ => return Err(MALFORMED),
    };
    if name.len() > LONGEST_NAME {
        Err(LONG_NAME)
    } else {
        Ok(name.into())
    }
}

/// A parameter that is an integer and not negative, where it is there at all.
fn natural(parameters: &Parameters, key: &str) -> Result<Option<u64>, Why> {
    match parameters.get(key) {
        None => Ok(None),
        Some(BareItem::Integer(number)) => u64::try_from(*number).map(Some).map_err(|_| "negative"),
        Some(_) => Err(MALFORMED),
    }
}

/// Keeps what there is room for.
fn keep<T>(own: &mut Vec<T>, said: Vec<T>) -> Result<(), Why> {
    let room = MOST_QUOTAS.saturating_sub(own.len());
    let many = said.len() > room;
    own.extend(said.into_iter().take(room));
    if many { Err("more than 16 quotas") } else { Ok(()) }
}

const MALFORMED: Why = "malformed";

//! What need not be asked again: the answers of one destination, by RFC 9111, each for the user it came for.
//!
//! A request becomes an [`Ask`], and [`Cache::find`] says what there is for it: an answer that is good, one that is good
//! while somebody refreshes it, or none, and then whether to ask the upstream or to wait for who does already. What the
//! upstream answers is offered to [`Cache::draft`]; a [`Copying`] stores it when its body has come whole.
//!
//! The rules are in [`directives`] and [`terms`], what tells requests apart in [`key`], what is stored in [`entry`] and
//! [`store`], who waits for whom in [`flight`]: no lock, no I/O. This file adds the lock. Who sends what, and what the
//! app gets, is in `proxy`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};
use tokio::time::Instant;

use crate::config;
use crate::host::Target;
use crate::sync::lock;

use self::directives::Demands;
use self::entry::Head;
use self::flight::Flight;
use self::key::{Choice, Key};
use self::store::{Look, Store};
use self::terms::{Allowances, Stands, Terms};

pub(crate) use self::copy::{Answered, Copying, Draft};
pub(crate) use self::entry::{Entry, is_of_its_moment};
pub(crate) use self::flight::{Follow, Lead, Outcome};
pub(crate) use self::key::Sender;
pub(crate) use self::terms::Times;

mod copy;
mod directives;
mod entry;
mod flight;
mod key;
mod store;
mod terms;
#[cfg(test)]
mod tests;

/// The cache of one destination.
#[derive(Debug)]
pub(crate) struct Cache {
    allowances: Allowances,
    /// The most that one answer may take, in bytes.
    share: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    flights: HashMap<u64, Flight, foldhash::fast::RandomState>,
    store: Store,
}

/// A request, as the cache sees it.
#[derive(Debug)]
pub(crate) struct Ask {
    arrived: Instant,
    demands: Demands,
    /// When it was looked for.
    epoch: u64,
    is_head: bool,
    /// It carries a credential of the app's own.
    is_shared: bool,
    key: Key,
}

/// What there is for a request.
#[derive(Debug)]
pub(crate) enum Found {
    /// Good as it is.
    Fresh(Kept),
    /// Good while it is refreshed, by whoever holds the lead; `None`: somebody does already.
    Refresh(Kept, Option<Lead>),
    /// The upstream has to be asked.
    Absent {
        why: Why,
        /// Something that the upstream may confirm, or that may stand in where it fails.
        stale: Option<Arc<Entry>>,
        turn: Turn,
    },
}

/// A stored answer that may be used.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) entry: Arc<Entry>,
    /// How long it is fresh, in seconds; below zero where it is stale.
    pub(crate) ttl: i64,
}

/// Why a request is forwarded: the words of RFC 9211.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Request,
    Stale,
    UriMiss,
    VaryMiss,
}

/// Who asks the upstream.
#[derive(Debug)]
pub(crate) enum Turn {
    Alone,
    Follow(Follow),
    Lead(Lead),
}

impl Cache {
    /// With nothing in it.
    pub(crate) fn new(config: &config::Cache) -> Self {
        let size = usize::try_from(config.size).unwrap_or(usize::MAX);
        Self {
            allowances: Allowances {
                min_fresh: config.min_fresh,
                stale_if_error: config.stale_if_error,
                stale_while_revalidate: config.stale_while_revalidate,
            },
            share: size / SHARES,
            state: Mutex::new(State {
                flights: HashMap::default(),
                store: Store::new(size),
            }),
        }
    }

    /// Bytes of what is stored.
    pub(crate) fn held(&self) -> usize {
        self.state().store.held()
    }

    /// Lets so many bytes go: memory is short.
    pub(crate) fn shrink(&self, bytes: usize) {
        self.state().store.shrink(bytes);
    }

    /// `None`: it is not answered from here, and its answer is not stored. `path`: with the query, as it leaves, before a
    /// credential is put in. `attached`: the fields that outrider sets or strikes.
    pub(crate) fn ask(
        method: &Method,
        target: &Target,
        path: &str,
        fields: &HeaderMap,
        attached: impl Fn(&HeaderName) -> bool,
        sender: Sender,
    ) -> Option<Ask> {
        let is_head = match *method {
            Method::GET => false,
            Method::HEAD => true,
            _ => return None,
        };
        if UNFIT.iter().any(|name| fields.contains_key(name)) {
            return None;
        }
        let demands = Demands::of(fields);
        if demands.no_store {
            return None;
        }
        let is_shared = [header::AUTHORIZATION, header::COOKIE]
            .iter()
            .any(|name| fields.contains_key(name) && !attached(name));
        Some(Ask {
            arrived: Instant::now(),
            demands,
            epoch: 0,
            is_head,
            is_shared,
            key: Key::new(target, path, fields, attached, sender),
        })
    }

    /// What there is for a request `now`, with `fields` and `attached` as it was asked with. `has_waited`: it followed
    /// another one, and does not again.
    pub(crate) fn find(
        self: &Arc<Self>,
        ask: &mut Ask,
        fields: &HeaderMap,
        attached: impl Fn(&HeaderName) -> bool,
        has_waited: bool,
        now: Instant,
    ) -> Found {
        let mut state = self.state();
        ask.epoch = state.store.epoch();
        let (why, stale) = match state.store.look(&ask.key, fields, &attached) {
            Look::Nothing => (Why::UriMiss, None),
            Look::Other => (Why::VaryMiss, None),
            Look::Found(entry) => {
                let since = has_waited.then_some(ask.arrived);
                let why = match entry.terms.stands(&ask.demands, since, now) {
                    Stands::Fresh { ttl } => return Found::Fresh(Kept { entry, ttl }),
                    Stands::Refresh { ttl } => {
                        let likeness = state.store.likeness(&ask.key, fields, &attached);
                        let lead = self.lead(&mut state, likeness);
                        return Found::Refresh(Kept { entry, ttl }, lead);
                    }
                    Stands::Stale => Why::Stale,
                    Stands::Unwanted => Why::Request,
                };
                (why, Some(entry))
            }
        };
        // Whoever wants the newest gets no other one's answer, and HEAD is no use to anybody else.
        let is_alone = has_waited
            || ask.is_head
            || why == Why::Request
            || ask.demands.no_cache
            || state.store.passes(&ask.key.uri, now);
        let turn = if is_alone {
            Turn::Alone
        } else {
            let likeness = state.store.likeness(&ask.key, fields, &attached);
            match state.flights.get_mut(&likeness) {
                Some(flight) => flight.follow().map_or(Turn::Alone, Turn::Follow),
                None => self.lead(&mut state, likeness).map_or(Turn::Alone, Turn::Lead),
            }
        };
        Found::Absent { why, stale, turn }
    }

    /// `None` where somebody leads already.
    fn lead(self: &Arc<Self>, state: &mut State, likeness: u64) -> Option<Lead> {
        if state.flights.contains_key(&likeness) || state.flights.len() >= MOST_FLIGHTS {
            return None;
        }
        let (lead, flight) = Lead::new(self, likeness);
        state.flights.insert(likeness, flight);
        Some(lead)
    }

    /// What an answer would be stored as; `None` where it must not be. `request` is what the app sent.
    pub(crate) fn draft(
        &self,
        ask: &Ask,
        request: &HeaderMap,
        attached: impl Fn(&HeaderName) -> bool,
        answered: &Answered<'_>,
        times: &Times,
    ) -> Option<Draft> {
        let Answered {
            status,
            fields,
            length,
        } = *answered;
        if ask.is_head {
            return None;
        }
        let terms = Terms::of(status, fields, ask.is_shared, times, &self.allowances)?;
        let choice = Choice::of(fields, request, attached, directives::is_private(fields))?;
        let head = Head::new(status, fields, times.clock);
        let length = length.map(usize::try_from).transpose().ok()?;
        let room = self.share.checked_sub(head.size())?;
        if length.is_some_and(|length| length > room) {
            return None;
        }
        Some(Draft {
            choice,
            head,
            key: ask.key.clone(),
            epoch: ask.epoch,
            length,
            terms,
        })
    }

    /// An entry brought up to date by the fields of a 304, and whether it is stored so: one of which the 304 does not
    /// speak, or that must not be stored any longer, is let go.
    pub(crate) fn confirm(
        &self,
        ask: &Ask,
        entry: &Arc<Entry>,
        confirmation: &HeaderMap,
        times: &Times,
    ) -> (Kept, bool) {
        if !entry.is_meant_by(confirmation) {
            self.drop_entry(ask, entry);
            let entry = Arc::clone(entry);
            return (Kept { entry, ttl: 0 }, false);
        }
        let head = entry.head().confirmed(confirmation);
        let terms = {
            // How old it is says the 304 alone.
            let mut fields = head.fields().clone();
            for name in [header::AGE, header::DATE] {
                match confirmation.get(&name) {
                    Some(value) => fields.insert(name, value.clone()),
                    None => fields.remove(name),
                };
            }
            Terms::of(head.status(), &fields, ask.is_shared, times, &self.allowances)
        };
        // By what it was chosen must not have changed.
        let varies_alike = head.fields().get_all(header::VARY) == entry.head().fields().get_all(header::VARY)
            && directives::is_private(head.fields()) == entry.choice.is_private();
        let is_stored = terms.is_some() && varies_alike;
        let fresh = Arc::new(Entry::new(
            entry.identity.clone(),
            entry.choice.clone(),
            terms.unwrap_or_else(|| entry.terms.clone()),
            head,
            entry.body().clone(),
        ));
        if is_stored {
            self.store(&ask.key.uri, Arc::clone(&fresh), ask.epoch, 0);
        } else {
            self.drop_entry(ask, entry);
        }
        let ttl = fresh.terms.ttl(times.answered);
        (Kept { entry: fresh, ttl }, is_stored)
    }

    /// Whether an entry may stand in for the answer of an upstream that failed.
    pub(crate) fn stands_in(ask: &Ask, entry: &Arc<Entry>, now: Instant) -> Option<Kept> {
        let ttl = entry.terms.stands_in(&ask.demands, now)?;
        let entry = Arc::clone(entry);
        Some(Kept { entry, ttl })
    }

    /// The upstream has answered something else instead of an entry.
    pub(crate) fn drop_entry(&self, ask: &Ask, entry: &Arc<Entry>) {
        self.state().store.remove(&ask.key.uri, entry);
    }

    /// The answer to a HEAD may show that what is stored has changed.
    pub(crate) fn hears_of_head(
        &self,
        ask: &Ask,
        entry: &Arc<Entry>,
        status: StatusCode,
        fields: &HeaderMap,
    ) {
        if entry.differs_from(status, fields) {
            self.drop_entry(ask, entry);
        }
    }

    /// A change was made there: what is stored of it, for whomever, is let go (RFC 9111 section 4.4).
    pub(crate) fn invalidate(&self, target: &Target, path: &str) {
        self.state().store.invalidate(&key::uri(target, path));
    }

    /// The answer to a request like this one cannot be stored.
    pub(crate) fn passes(&self, ask: &Ask) {
        self.cannot_store(&ask.key);
    }

    fn cannot_store(&self, key: &Key) {
        self.state().store.pass(&key.uri, Instant::now() + PASS);
    }

    /// Whether there was nothing against it since it was asked for. `reserved` bytes are given back.
    fn store(&self, uri: &str, entry: Arc<Entry>, epoch: u64, reserved: usize) -> bool {
        let mut state = self.state();
        state.store.give_back(reserved);
        let is_right = state.store.is_right(uri, epoch) && entry.size() <= self.share;
        if is_right {
            state.store.put(uri, entry);
        }
        is_right
    }

    fn reserve(&self, bytes: usize) -> bool {
        self.state().store.reserve(bytes)
    }

    fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.state().store.give_back(bytes);
        }
    }

    fn landed(&self, likeness: u64) {
        self.state().flights.remove(&likeness);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Ask {
    /// Where there is nothing stored the app wants to hear just that.
    pub(crate) fn only_if_stored(&self) -> bool {
        self.demands.only_if_cached
    }

    pub(crate) fn is_head(&self) -> bool {
        self.is_head
    }
}

impl Why {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Stale => "stale",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
        }
    }
}

/// Requests with these are forwarded as they are: parts, and conditions that only the upstream can judge.
const UNFIT: [HeaderName; 4] = [
    header::IF_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];
/// One answer takes at most this part of a cache.
const SHARES: usize = 8;
const MOST_FLIGHTS: usize = 10_000;
/// How long it is remembered that an answer could not be stored.
const PASS: Duration = Duration::from_secs(60);

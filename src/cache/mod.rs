//! The response cache of one destination, by RFC 9111. Each response is stored for the user that it came for.
//!
//! A request becomes a [`CacheQuery`]. [`ResponseCache::find`] looks it up: there is a fresh response, or a stale
//! one that may be used while it is refreshed, or the upstream has to be asked. In the last case it also says
//! whether this request goes to the upstream or waits for another one that does. A response of the upstream is
//! offered to [`ResponseCache::draft`], and a [`ResponseCopy`] stores it when its body has come.
//!
//! The rules are in [`directives`] and [`freshness`], what distinguishes requests in [`key`], the stored
//! responses in [`entry`] and [`store`], the requests that wait for the same response in [`fetch`]. These have no
//! lock and no I/O; this file adds the lock. Sending requests and answering the app is done in `proxy`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::header::{self, HeaderName};
use http::{Method, StatusCode};
use tokio::time::Instant;

use crate::config;
use crate::host::Target;
use crate::message::Fields;
use crate::sync::lock;

use self::directives::RequestDirectives;
use self::entry::StoredHead;
use self::fetch::SharedFetch;
use self::freshness::{Allowances, Freshness, Reuse};
use self::key::{CacheKey, SelectingFields};
use self::store::{EntryLookup, EntryStore};

pub(crate) use self::copy::{AnswerHead, Draft, ResponseCopy};
pub(crate) use self::entry::{CacheEntry, is_momentary};
pub(crate) use self::fetch::{FetchOutcome, Follower, Leader};
pub(crate) use self::freshness::Times;
pub(crate) use self::key::Sender;

mod copy;
mod directives;
mod entry;
mod fetch;
mod freshness;
mod key;
mod store;
#[cfg(test)]
mod tests;

/// Requests with these fields are forwarded as they are: ranges, and conditions that only the upstream can judge.
const UNFIT: [HeaderName; 4] = [
    header::IF_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];

/// One response takes at most this part of a cache.
const SHARES: usize = 8;

const MOST_FLIGHTS: usize = 10_000;

/// How long the cache remembers that a response could not be stored.
const PASS: Duration = Duration::from_secs(60);

/// The cache of one destination.
#[derive(Debug)]
pub(crate) struct ResponseCache {
    allowances: Allowances,
    /// The most that one response may take, in bytes.
    share: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    fetches: HashMap<u64, SharedFetch, foldhash::fast::RandomState>,
    store: EntryStore,
}

/// A request as the cache sees it.
#[derive(Debug)]
pub(crate) struct CacheQuery {
    arrived: Instant,
    directives: RequestDirectives,
    /// The store's epoch at the last look-up.
    epoch: u64,
    is_head: bool,
    /// It carries a credential of the app.
    is_shared: bool,
    key: CacheKey,
}

/// The result of a look-up.
#[derive(Debug)]
pub(crate) enum CacheLookup {
    /// A response that can be used.
    Fresh(CacheHit),
    /// A stale response that can be used while the holder of [`Leader`] refreshes it; `None` if that is under
    /// way.
    Refresh(CacheHit, Option<Leader>),
    /// The upstream has to be asked.
    Miss {
        why: ForwardReason,
        /// A stale response, which the upstream may confirm, or which may replace an error.
        stale: Option<Arc<CacheEntry>>,
        turn: FetchRole,
    },
}

/// A stored response that may be used.
#[derive(Debug)]
pub(crate) struct CacheHit {
    pub(crate) entry: Arc<CacheEntry>,
    /// How many seconds it is still fresh; negative where it is stale.
    pub(crate) ttl: i64,
}

/// The reason why a request is forwarded, in the words of RFC 9211.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForwardReason {
    Request,
    Stale,
    UriMiss,
    VaryMiss,
}

/// Which request goes to the upstream.
#[derive(Debug)]
pub(crate) enum FetchRole {
    Alone,
    Follow(Follower),
    Lead(Leader),
}

impl ResponseCache {
    /// Makes an empty cache.
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
                fetches: HashMap::default(),
                store: EntryStore::new(size),
            }),
        }
    }

    /// Returns the bytes of what is stored.
    pub(crate) fn held(&self) -> usize {
        self.state().store.held()
    }

    /// Evicts so many bytes, because memory is short.
    pub(crate) fn shrink(&self, bytes: usize) {
        self.state().store.shrink(bytes);
    }

    /// Returns `None` for a request that the cache neither answers nor stores. `path`: with the query, as it is
    /// sent, before a credential is put in. `attached`: whether outrider sets or removes a field.
    pub(crate) fn query(
        method: &Method,
        target: &Target,
        path: &str,
        fields: &Fields,
        attached: impl Fn(&HeaderName) -> bool,
        sender: Sender,
    ) -> Option<CacheQuery> {
        let is_head = match *method {
            Method::GET => false,
            Method::HEAD => true,
            _ => return None,
        };
        if UNFIT.iter().any(|name| fields.contains_key(name)) {
            return None;
        }
        let directives = RequestDirectives::of(fields);
        if directives.no_store {
            return None;
        }
        let is_shared = [header::AUTHORIZATION, header::COOKIE]
            .iter()
            .any(|name| fields.contains_key(name) && !attached(name));
        Some(CacheQuery {
            arrived: Instant::now(),
            directives,
            epoch: 0,
            is_head,
            is_shared,
            key: CacheKey::new(target, path, fields, attached, sender),
        })
    }

    /// Looks a request up `now`; `fields` and `attached` are those of [`query`](Self::query). `has_waited`: it
    /// has followed another request and does not do so again.
    pub(crate) fn find(
        self: &Arc<Self>,
        query: &mut CacheQuery,
        fields: &Fields,
        attached: impl Fn(&HeaderName) -> bool,
        has_waited: bool,
        now: Instant,
    ) -> CacheLookup {
        let mut state = self.state();
        query.epoch = state.store.epoch();
        let (why, stale) = match state.store.look(&query.key, fields, &attached) {
            EntryLookup::Missing => (ForwardReason::UriMiss, None),
            EntryLookup::OtherVariant => (ForwardReason::VaryMiss, None),
            EntryLookup::CacheLookup(entry) => {
                let since = has_waited.then_some(query.arrived);
                let why = match entry.freshness.reuse(&query.directives, since, now) {
                    Reuse::Fresh { ttl } => return CacheLookup::Fresh(CacheHit { entry, ttl }),
                    Reuse::Refresh { ttl } => {
                        let fetch_key = state.store.fetch_key(&query.key, fields, &attached);
                        let leader = self.leader(&mut state, fetch_key);
                        return CacheLookup::Refresh(CacheHit { entry, ttl }, leader);
                    }
                    Reuse::Stale => ForwardReason::Stale,
                    Reuse::Unwanted => ForwardReason::Request,
                };
                (why, Some(entry))
            }
        };
        // A request for the newest response does not take that of another, and the response to HEAD helps nobody
        // else.
        let is_alone = has_waited
            || query.is_head
            || why == ForwardReason::Request
            || query.directives.no_cache
            || state.store.is_uncacheable(&query.key.uri, now);
        let turn = if is_alone {
            FetchRole::Alone
        } else {
            let fetch_key = state.store.fetch_key(&query.key, fields, &attached);
            match state.fetches.get_mut(&fetch_key) {
                Some(fetch) => fetch.follower().map_or(FetchRole::Alone, FetchRole::Follow),
                None => self
                    .leader(&mut state, fetch_key)
                    .map_or(FetchRole::Alone, FetchRole::Lead),
            }
        };
        CacheLookup::Miss { why, stale, turn }
    }

    /// Returns `None` if there is a leader already.
    fn leader(self: &Arc<Self>, state: &mut State, fetch_key: u64) -> Option<Leader> {
        if state.fetches.contains_key(&fetch_key) || state.fetches.len() >= MOST_FLIGHTS {
            return None;
        }
        let (leader, fetch) = Leader::new(self, fetch_key);
        state.fetches.insert(fetch_key, fetch);
        Some(leader)
    }

    /// Returns what a response would be stored as; `None` if it must not be stored. `request` has the fields that
    /// the app sent.
    pub(crate) fn draft(
        &self,
        query: &CacheQuery,
        request: &Fields,
        attached: impl Fn(&HeaderName) -> bool,
        answered: &AnswerHead<'_>,
        times: &Times,
    ) -> Option<Draft> {
        let AnswerHead {
            status,
            fields,
            length,
        } = *answered;
        if query.is_head {
            return None;
        }
        let freshness = Freshness::of(status, fields, query.is_shared, times, &self.allowances)?;
        let choice = SelectingFields::of(fields, request, attached, directives::is_private(fields))?;
        let head = StoredHead::new(status, fields, times.clock);
        let length = length.map(usize::try_from).transpose().ok()?;
        let room = self.share.checked_sub(head.size())?;
        if length.is_some_and(|length| length > room) {
            return None;
        }
        Some(Draft {
            choice,
            head,
            key: query.key.clone(),
            epoch: query.epoch,
            length,
            freshness,
        })
    }

    /// Updates an entry with the fields of a 304. Returns the result, and whether it is stored. An entry that the
    /// 304 is not about, or that must no longer be stored, is removed.
    pub(crate) fn confirm(
        &self,
        query: &CacheQuery,
        entry: &Arc<CacheEntry>,
        confirmation: &Fields,
        times: &Times,
    ) -> (CacheHit, bool) {
        if !entry.is_confirmed_by(confirmation) {
            self.drop_entry(query, entry);
            let entry = Arc::clone(entry);
            return (CacheHit { entry, ttl: 0 }, false);
        }
        let head = entry.head().confirmed(confirmation);
        let freshness = {
            // Only the 304 says how old the entry is now.
            let mut fields = head.fields().clone();
            for name in [header::AGE, header::DATE] {
                match confirmation.get(&name) {
                    Some(value) => fields.insert(name, value.clone()),
                    None => drop(fields.remove(name)),
                }
            }
            Freshness::of(head.status(), &fields, query.is_shared, times, &self.allowances)
        };
        // What selected the response must not have changed.
        let varies_alike = (head.fields().get_all(header::VARY))
            .eq(entry.head().fields().get_all(header::VARY))
            && directives::is_private(head.fields()) == entry.choice.is_private();
        let is_stored = freshness.is_some() && varies_alike;
        let fresh = Arc::new(CacheEntry::new(
            entry.identity.clone(),
            entry.choice.clone(),
            freshness.unwrap_or_else(|| entry.freshness.clone()),
            head,
            entry.body().clone(),
        ));
        if is_stored {
            self.store(&query.key.uri, Arc::clone(&fresh), query.epoch, 0);
        } else {
            self.drop_entry(query, entry);
        }
        let ttl = fresh.freshness.ttl(times.answered);
        (CacheHit { entry: fresh, ttl }, is_stored)
    }

    /// Whether a stale entry may replace the response of an upstream that failed.
    pub(crate) fn may_replace_error(
        query: &CacheQuery,
        entry: &Arc<CacheEntry>,
        now: Instant,
    ) -> Option<CacheHit> {
        let ttl = entry.freshness.may_replace_error(&query.directives, now)?;
        let entry = Arc::clone(entry);
        Some(CacheHit { entry, ttl })
    }

    /// Removes an entry, because the upstream has answered something else.
    pub(crate) fn drop_entry(&self, query: &CacheQuery, entry: &Arc<CacheEntry>) {
        self.state().store.remove(&query.key.uri, entry);
    }

    /// Removes an entry if the response to a HEAD shows that it has changed.
    pub(crate) fn check_head(
        &self,
        query: &CacheQuery,
        entry: &Arc<CacheEntry>,
        status: StatusCode,
        fields: &Fields,
    ) {
        if entry.differs_from(status, fields) {
            self.drop_entry(query, entry);
        }
    }

    /// Invalidates everything stored for this URI, whichever request it was stored for (RFC 9111 section 4.4).
    pub(crate) fn invalidate(&self, target: &Target, path: &str) {
        self.state().store.invalidate(&key::uri(target, path));
    }

    /// Notes that the response to such a request cannot be stored.
    pub(crate) fn mark_uncacheable(&self, query: &CacheQuery) {
        self.cannot_store(&query.key);
    }

    fn cannot_store(&self, key: &CacheKey) {
        self.state()
            .store
            .mark_uncacheable(&key.uri, Instant::now() + PASS);
    }

    /// Stores an entry, unless its URI was invalidated since it was requested. Gives back the `reserved` bytes.
    fn store(&self, uri: &str, entry: Arc<CacheEntry>, epoch: u64, reserved: usize) -> bool {
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

    fn fetch_ended(&self, fetch_key: u64) {
        self.state().fetches.remove(&fetch_key);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl CacheQuery {
    /// Whether the app wants an error rather than a request to the upstream (`only-if-cached`).
    pub(crate) fn only_if_stored(&self) -> bool {
        self.directives.only_if_cached
    }

    pub(crate) fn is_head(&self) -> bool {
        self.is_head
    }
}

impl ForwardReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Stale => "stale",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
        }
    }
}

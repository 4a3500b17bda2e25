//! Copies a response while it goes to the app.
//!
//! Only a complete and intact response is stored: a [`ResponseCopy`] that is dropped before
//! [`ResponseCopy::finish`] stores nothing. A copy that grows past the size of an entry, or for which other
//! copies leave no room, is given up; the response itself goes on.

use std::sync::Arc;

use bytes::Bytes;

use super::ResponseCache;
use super::entry::{CacheEntry, StoredHead};
use super::fetch::{FetchOutcome, Leader};
use super::freshness::Freshness;
use super::key::{CacheKey, SelectingFields};

use crate::message::Fields;

/// The first room for a body of unknown length, in bytes.
const FIRST: usize = 16 * 1024;

/// What a response will be stored as.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(super) choice: SelectingFields,
    pub(super) head: StoredHead,
    pub(super) key: CacheKey,
    /// The store's epoch when the response was requested.
    pub(super) epoch: u64,
    /// The length of the body, where it is known in advance.
    pub(super) length: Option<usize>,
    pub(super) freshness: Freshness,
}

/// A draft, and the part of the body that has come.
#[derive(Debug)]
pub(crate) struct ResponseCopy {
    body: Vec<u8>,
    cache: Arc<ResponseCache>,
    /// `None` once it has been stored or given up.
    draft: Option<Box<Draft>>,
    leader: Option<Leader>,
    reserved: usize,
}

impl ResponseCopy {
    pub(crate) fn new(draft: Draft, leader: Option<Leader>, cache: &Arc<ResponseCache>) -> Self {
        if let Some(leader) = &leader {
            leader.copying();
        }
        Self {
            body: Vec::new(),
            cache: Arc::clone(cache),
            draft: Some(Box::new(draft)),
            leader,
            reserved: 0,
        }
    }

    /// Whether it may still be stored.
    pub(crate) fn is_active(&self) -> bool {
        self.draft.is_some()
    }

    pub(crate) fn push(&mut self, data: &[u8]) {
        let Some(draft) = &self.draft else { return };
        let needed = self.body.len() + data.len();
        let most = self.cache.share.saturating_sub(draft.head.size());
        let is_longer_than_said = draft.length.is_some_and(|length| needed > length);
        if needed > most || is_longer_than_said || !self.grow(needed, most) {
            return self.give_up();
        }
        self.body.extend_from_slice(data);
    }

    /// Gives the copy up: the response must not be stored after all.
    pub(crate) fn give_up(&mut self) {
        if let Some(draft) = self.draft.take() {
            self.cache.cannot_store(&draft.key);
            self.end(FetchOutcome::Alone);
        }
    }

    /// Stores the copy: the body came complete and intact.
    pub(crate) fn finish(&mut self) {
        let Some(draft) = self.draft.take() else { return };
        let draft = *draft;
        if draft.length.is_some_and(|length| length != self.body.len()) {
            self.cache.cannot_store(&draft.key);
            return self.end(FetchOutcome::Alone);
        }
        let body = Bytes::from(std::mem::take(&mut self.body).into_boxed_slice());
        let Draft {
            choice,
            head,
            key,
            epoch,
            freshness,
            length: _,
        } = draft;
        let entry = Arc::new(CacheEntry::new(key.identity, choice, freshness, head, body));
        let is_stored = self
            .cache
            .store(&key.uri, entry, epoch, std::mem::take(&mut self.reserved));
        self.end(if is_stored {
            FetchOutcome::Stored
        } else {
            FetchOutcome::Alone
        });
    }

    /// Makes room for `needed` bytes, and for some more, as long as there is memory.
    fn grow(&mut self, needed: usize, most: usize) -> bool {
        let capacity = self.body.capacity();
        if needed <= capacity {
            return true;
        }
        let likely = self
            .draft
            .as_ref()
            .and_then(|draft| draft.length)
            .unwrap_or(capacity * 2);
        // An announced length may be wrong: reserve at most twice of what has come.
        let wanted = likely.min((needed * 2).max(FIRST)).max(needed).min(most);
        if !self.cache.reserve(wanted - self.reserved) {
            return false;
        }
        self.reserved = wanted;
        self.body.reserve_exact(wanted - self.body.len());
        true
    }

    fn end(&mut self, outcome: FetchOutcome) {
        self.body = Vec::new();
        self.cache.give_back(std::mem::take(&mut self.reserved));
        if let Some(leader) = self.leader.take() {
            leader.finish(outcome);
        }
    }
}

impl Drop for ResponseCopy {
    fn drop(&mut self) {
        self.cache.give_back(std::mem::take(&mut self.reserved));
    }
}

/// The head of a response, from which is decided whether it is stored.
#[derive(Debug)]
pub(crate) struct AnswerHead<'a> {
    pub(crate) status: http::StatusCode,
    /// Without the fields of one hop.
    pub(crate) fields: &'a Fields,
    /// The length of the body, where it is known.
    pub(crate) length: Option<u64>,
}

//! An answer that is being copied while it goes to the app.
//!
//! Only what came whole and clean is stored: a [`Copying`] that is dropped before [`Copying::finish`] leaves nothing
//! behind. One that grows past what an entry may take, or for which other copies leave no room, is given up; the answer
//! itself goes on.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::Cache;
use super::entry::{Entry, Head};
use super::flight::{Lead, Outcome};
use super::key::{Choice, Key};
use super::terms::Terms;

/// What an answer will be stored as.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(super) choice: Choice,
    pub(super) head: Head,
    pub(super) key: Key,
    /// When it was asked for.
    pub(super) epoch: u64,
    /// The bytes of the body, where they are known before.
    pub(super) length: Option<usize>,
    pub(super) terms: Terms,
}

/// A draft, and the body as far as it has come.
#[derive(Debug)]
pub(crate) struct Copying {
    body: Vec<u8>,
    cache: Arc<Cache>,
    /// `None` once it has been stored or given up.
    draft: Option<Box<Draft>>,
    lead: Option<Lead>,
    reserved: usize,
}

impl Copying {
    pub(crate) fn new(draft: Draft, lead: Option<Lead>, cache: &Arc<Cache>) -> Self {
        if let Some(lead) = &lead {
            lead.copies();
        }
        Self {
            body: Vec::new(),
            cache: Arc::clone(cache),
            draft: Some(Box::new(draft)),
            lead,
            reserved: 0,
        }
    }

    /// Whether there is still something to come of it.
    pub(crate) fn goes_on(&self) -> bool {
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

    /// It must not be stored after all.
    pub(crate) fn give_up(&mut self) {
        if let Some(draft) = self.draft.take() {
            self.cache.cannot_store(&draft.key);
            self.end(Outcome::Alone);
        }
    }

    /// The body was whole, and cleanly so.
    pub(crate) fn finish(&mut self) {
        let Some(draft) = self.draft.take() else { return };
        let draft = *draft;
        if draft.length.is_some_and(|length| length != self.body.len()) {
            self.cache.cannot_store(&draft.key);
            return self.end(Outcome::Alone);
        }
        let body = Bytes::from(std::mem::take(&mut self.body).into_boxed_slice());
        let Draft {
            choice,
            head,
            key,
            epoch,
            terms,
            length: _,
        } = draft;
        let entry = Arc::new(Entry::new(key.identity, choice, terms, head, body));
        let is_stored = self
            .cache
            .store(&key.uri, entry, epoch, std::mem::take(&mut self.reserved));
        self.end(if is_stored {
            Outcome::Stored
        } else {
            Outcome::Alone
        });
    }

    /// Makes room for so many bytes, and for more to come, as long as there is memory for them.
    fn grow(&mut self, needed: usize, most: usize) -> bool {
        let capacity = self.body.capacity();
        if needed <= capacity {
            return true;
        }
        let likely = (self.draft.as_ref())
            .and_then(|draft| draft.length)
            .unwrap_or(capacity * 2);
        // What is said to come need not come: no more than twice of what has.
        let wanted = likely.min((needed * 2).max(FIRST)).max(needed).min(most);
        if !self.cache.reserve(wanted - self.reserved) {
            return false;
        }
        self.reserved = wanted;
        self.body.reserve_exact(wanted - self.body.len());
        true
    }

    fn end(&mut self, outcome: Outcome) {
        self.body = Vec::new();
        self.cache.give_back(std::mem::take(&mut self.reserved));
        if let Some(lead) = self.lead.take() {
            lead.ends(outcome);
        }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.cache.give_back(std::mem::take(&mut self.reserved));
    }
}

/// What the head of an answer says, for the decision whether it is copied.
#[derive(Debug)]
pub(crate) struct Answered<'a> {
    pub(crate) status: http::StatusCode,
    /// Without those of one hop.
    pub(crate) fields: &'a HeaderMap,
    /// Of the body, where it is known.
    pub(crate) length: Option<u64>,
}

/// The room for a body of which nothing is known, in bytes.
const FIRST: usize = 16 * 1024;

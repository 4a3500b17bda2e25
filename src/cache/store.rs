//! The stored answers of one destination, and the bound on what they take.
//!
//! A place holds the variants of one URI; the place that was not asked for longest goes first. What is being copied
//! counts as well, so the bound holds at every moment: a copy grows only as far as stored answers can make way. All of it
//! is reserved in the memory of the process, of which requests get the last part.
//!
//! No lock and no clock; both are in [`super`].

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashlink::LruCache;
use http::header::{self, HeaderMap, HeaderName};
use tokio::time::Instant;

use super::entry::Entry;
use super::key::{self, Key, Private};
use crate::memory::Reservation;

/// All that is stored.
#[derive(Debug)]
pub(super) struct Store {
    places: LruCache<String, Place, RandomState>,
    /// The hashes of the URIs that were invalidated last, the newest at the end, so that what was asked for before is
    /// not stored afterwards.
    invalidated: VecDeque<u64>,
    /// How many have been.
    epoch: u64,
    hasher: RandomState,
    /// URIs by their hashes, and until when nobody waits for another one's answer from there, since the last one could
    /// not be stored. One that falls on another's place takes it: all that is lost is a wait.
    passes: Box<[Option<(u64, Instant)>]>,
    /// Bytes of what is stored.
    held: usize,
    /// Bytes of what is being copied.
    copied: usize,
    /// For both.
    reserved: Reservation,
    size: usize,
}

/// What is known of one URI.
#[derive(Debug, Default)]
struct Place {
    /// The newest first.
    variants: Vec<Arc<Entry>>,
    /// By what its answers were chosen last; empty as long as that is not known.
    chosen_by: Box<[HeaderName]>,
    /// Whether the last one was for one user.
    is_private: bool,
}

/// What there is for a request.
#[derive(Debug)]
pub(super) enum Look {
    Found(Arc<Entry>),
    /// Only what other requests would be answered with.
    Other,
    Nothing,
}

impl Store {
    pub(super) fn new(size: usize) -> Self {
        Self {
            places: LruCache::with_hasher(usize::MAX, RandomState::default()),
            invalidated: VecDeque::new(),
            epoch: 0,
            hasher: RandomState::default(),
            passes: vec![None; PASSES].into(),
            held: 0,
            copied: 0,
            reserved: Reservation::default(),
            size,
        }
    }

    pub(super) fn look(
        &mut self,
        key: &Key,
        request: &HeaderMap,
        attached: impl Fn(&HeaderName) -> bool,
    ) -> Look {
        let Some(place) = self.places.get(&key.uri) else {
            return Look::Nothing;
        };
        let found = (place.variants.iter())
            .find(|entry| entry.identity == key.identity && entry.choice.fits(request, &attached));
        match found {
            Some(entry) => Look::Found(Arc::clone(entry)),
            None if place.variants.iter().any(|entry| entry.identity == key.identity) => Look::Other,
            None => Look::Nothing,
        }
    }

    /// A number that requests share which may well get the same answer. Where they do not, nothing comes of it but a
    /// wait: what each may have is decided by [`Store::look`].
    pub(super) fn likeness(
        &self,
        key: &Key,
        request: &HeaderMap,
        attached: impl Fn(&HeaderName) -> bool,
    ) -> u64 {
        let place = self.places.peek(&key.uri);
        let chosen_by = place.map_or(&[] as &[_], |place| &place.chosen_by);
        let is_private = place.is_some_and(|place| place.is_private);
        let private = is_private.then(|| Private::of(request, attached));
        let chosen_by = if chosen_by.is_empty() { USUAL } else { chosen_by };
        (self.hasher).hash_one((&key.uri, &key.identity, key::values(chosen_by, request), private))
    }

    /// Whether nobody should wait for another one's answer from there.
    pub(super) fn passes(&self, uri: &str, now: Instant) -> bool {
        let hash = self.hasher.hash_one(uri);
        self.passes[place_of(hash, PASSES)].is_some_and(|(other, until)| other == hash && now < until)
    }

    /// An answer from there could not be stored.
    pub(super) fn pass(&mut self, uri: &str, until: Instant) {
        let hash = self.hasher.hash_one(uri);
        self.passes[place_of(hash, PASSES)] = Some((hash, until));
    }

    /// What to remember of the moment at which something is asked for.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether nothing was changed there since then.
    pub(super) fn is_right(&self, uri: &str, epoch: u64) -> bool {
        let hash = self.hasher.hash_one(uri);
        let since = usize::try_from(self.epoch - epoch).unwrap_or(usize::MAX);
        // Beyond what is remembered: it may have been.
        since <= self.invalidated.len()
            && self
                .invalidated
                .iter()
                .rev()
                .take(since)
                .all(|other| *other != hash)
    }

    /// Puts an answer in the place of the one that the same requests had until now.
    pub(super) fn put(&mut self, uri: &str, entry: Arc<Entry>) {
        let place = self.place(uri);
        place.chosen_by = entry.choice.names.clone();
        place.is_private = entry.choice.is_private();
        let mut freed = 0;
        place.variants.retain(|other| {
            let is_replaced = other.identity == entry.identity && other.choice == entry.choice;
            if is_replaced {
                freed += other.size();
            }
            !is_replaced
        });
        let added = entry.size();
        place.variants.insert(0, entry);
        while place.variants.len() > MOST_VARIANTS {
            freed += place.variants.pop().map_or(0, |last| last.size());
        }
        self.held = self.held + added - freed;
        self.make_room();
    }

    /// Lets go of one answer, if it is still there. Its place stays: by what its answers are chosen tells which requests
    /// wait for the one that comes instead.
    pub(super) fn remove(&mut self, uri: &str, entry: &Arc<Entry>) {
        let Some(place) = self.places.peek_mut(uri) else {
            return;
        };
        let before = place.variants.len();
        place.variants.retain(|other| !Arc::ptr_eq(other, entry));
        if place.variants.len() < before {
            self.held -= entry.size();
            self.make_room();
        }
    }

    /// Nothing that was asked for until now is right any longer.
    pub(super) fn invalidate(&mut self, uri: &str) {
        if self.invalidated.len() == MOST_INVALIDATED {
            self.invalidated.pop_front();
        }
        self.invalidated.push_back(self.hasher.hash_one(uri));
        self.epoch += 1;
        self.forget(uri);
    }

    /// Whether so many bytes more can be copied; they count until they are given back.
    pub(super) fn reserve(&mut self, bytes: usize) -> bool {
        // The rest is for what was worth copying before.
        if self.copied + bytes > self.size / 2 {
            return false;
        }
        self.copied += bytes;
        let has_room = self.make_room();
        if !has_room {
            self.give_back(bytes);
        }
        has_room
    }

    pub(super) fn give_back(&mut self, bytes: usize) {
        self.copied -= bytes;
        self.make_room();
    }

    /// Bytes of what is stored.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Lets so many bytes go, of what was not asked for longest.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let rest = self.held.saturating_sub(bytes);
        while self.held > rest && self.drop_oldest() {}
        self.make_room();
    }

    /// All bytes that count.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.held + self.copied
    }

    /// What is stored, counted anew.
    #[cfg(test)]
    pub(super) fn counted(&self) -> usize {
        let sizes = self.places.iter().map(|(uri, place)| place.size(uri));
        sizes.sum()
    }

    fn place(&mut self, uri: &str) -> &mut Place {
        if self.places.get(uri).is_none() {
            let place = Place::default();
            self.held += place.size(uri);
            self.places.insert(uri.to_owned(), place);
        }
        // It has been put there just now, where it was not before.
        self.places.get_mut(uri).expect("a place for this URI")
    }

    fn forget(&mut self, uri: &str) {
        if let Some(place) = self.places.remove(uri) {
            self.held -= place.size(uri);
            self.make_room();
        }
    }

    /// Lets go of what was not asked for longest until the rest fits; false where even that is not enough.
    fn make_room(&mut self) -> bool {
        loop {
            let taken = self.held + self.copied;
            if taken <= self.size && self.reserved.fit(taken).is_ok() {
                return true;
            }
            if !self.drop_oldest() {
                return false;
            }
        }
    }

    fn drop_oldest(&mut self) -> bool {
        // The last one left may be too large by its variants alone: the oldest of them go.
        if self.places.len() == 1
            && let Some((_, place)) = self.places.iter_mut().next()
            && place.variants.len() > 1
        {
            self.held -= place.variants.pop().map_or(0, |last| last.size());
            return true;
        }
        let Some((uri, place)) = self.places.remove_lru() else {
            return false;
        };
        self.held -= place.size(&uri);
        true
    }
}

impl Place {
    /// With its variants, in bytes; `uri` is its own.
    fn size(&self, uri: &str) -> usize {
        PLACE + uri.len() + self.variants.iter().map(|entry| entry.size()).sum::<usize>()
    }
}

/// Where of so many places something with this hash stands.
fn place_of(hash: u64, places: usize) -> usize {
    // The remainder fits, as `places` does.
    (hash % places as u64) as usize
}

/// For a place that has no answer yet.
const USUAL: &[HeaderName] = &[header::ACCEPT, header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE];
/// While an answer is on its way.
const MOST_INVALIDATED: usize = 4096;
const PASSES: usize = 256;
/// Of one URI. An upstream that varies by more is not worth the memory.
const MOST_VARIANTS: usize = 32;
/// What a place takes beside its URI, in bytes: its own fields, its links in the list and its part of the table.
const PLACE: usize = 256;

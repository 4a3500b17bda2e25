//! The stored responses of one destination, and the bound on their memory.
//!
//! Responses are kept by URI, with several variants each; the URI that was not requested for longest is evicted
//! first. Bytes that are being copied count as well, so the bound holds at every moment: a copy grows only as far
//! as stored responses can be evicted. All of it is reserved from the memory of the process, whose last part is
//! left to requests.
//!
//! No lock and no clock; both are in [`super`].

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashlink::LruCache;
use http::header::{self, HeaderName};
use tokio::time::Instant;

use super::entry::CacheEntry;
use super::key::{self, CacheKey, PrivateDigest};
use crate::memory::Reservation;
use crate::message::Fields;

/// Used for a URI without a response so far.
const USUAL: &[HeaderName] = &[header::ACCEPT, header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE];

/// As many as are remembered while a response is on its way.
const MOST_INVALIDATED: usize = 4096;

const UNCACHEABLE: usize = 256;

/// The most variants of one URI. An upstream that varies by more is not worth the memory.
const MOST_VARIANTS: usize = 32;

/// What a URI takes beside its text, in bytes: its fields, its links in the list and its part of the table.
const PLACE: usize = 256;

/// Everything that is stored.
#[derive(Debug)]
pub(super) struct EntryStore {
    places: LruCache<String, UriEntries, RandomState>,
    /// The hashes of the URIs that were invalidated last, the newest at the end. A response that was requested
    /// before is not stored afterwards.
    invalidated: VecDeque<u64>,
    /// The number of invalidations so far.
    epoch: u64,
    hasher: RandomState,
    /// URIs whose last response could not be stored, by hash, and until when no request waits for such a
    /// response. Two URIs may share a slot; then the newer one takes it, which at most costs a wait.
    uncacheable: Box<[Option<(u64, Instant)>]>,
    /// Bytes of what is stored.
    held: usize,
    /// Bytes of what is being copied.
    copied: usize,
    /// The reservation for both.
    reserved: Reservation,
    size: usize,
}

/// What is known about one URI.
#[derive(Debug, Default)]
struct UriEntries {
    /// The newest first.
    variants: Vec<Arc<CacheEntry>>,
    /// The fields that selected the last response; empty while that is not known.
    chosen_by: Box<[HeaderName]>,
    /// Whether the last response was for one user.
    is_private: bool,
}

/// What is stored for a request.
#[derive(Debug)]
pub(super) enum EntryLookup {
    CacheLookup(Arc<CacheEntry>),
    /// Only responses to other requests.
    OtherVariant,
    Missing,
}

impl EntryStore {
    pub(super) fn new(size: usize) -> Self {
        Self {
            places: LruCache::with_hasher(usize::MAX, RandomState::default()),
            invalidated: VecDeque::new(),
            epoch: 0,
            hasher: RandomState::default(),
            uncacheable: vec![None; UNCACHEABLE].into(),
            held: 0,
            copied: 0,
            reserved: Reservation::default(),
            size,
        }
    }

    pub(super) fn look(
        &mut self,
        key: &CacheKey,
        request: &Fields,
        attached: impl Fn(&HeaderName) -> bool,
    ) -> EntryLookup {
        let Some(place) = self.places.get(&key.uri) else {
            return EntryLookup::Missing;
        };
        let found = place
            .variants
            .iter()
            .find(|entry| entry.identity == key.identity && entry.choice.fits(request, &attached));
        match found {
            Some(entry) => EntryLookup::CacheLookup(Arc::clone(entry)),
            None if place.variants.iter().any(|entry| entry.identity == key.identity) => {
                EntryLookup::OtherVariant
            }
            None => EntryLookup::Missing,
        }
    }

    /// Returns a number that requests share which are likely to get the same response. If they do not, that costs
    /// them a wait: [`EntryStore::look`] decides what each of them may use.
    pub(super) fn fetch_key(
        &self,
        key: &CacheKey,
        request: &Fields,
        attached: impl Fn(&HeaderName) -> bool,
    ) -> u64 {
        let place = self.places.peek(&key.uri);
        let chosen_by = place.map_or(&[] as &[_], |place| &place.chosen_by);
        let is_private = place.is_some_and(|place| place.is_private);
        let private = is_private.then(|| PrivateDigest::of(request, attached));
        let chosen_by = if chosen_by.is_empty() { USUAL } else { chosen_by };
        self.hasher
            .hash_one((&key.uri, &key.identity, key::values(chosen_by, request), private))
    }

    /// Whether no request should wait for another one's response from this URI.
    pub(super) fn is_uncacheable(&self, uri: &str, now: Instant) -> bool {
        let hash = self.hasher.hash_one(uri);
        self.uncacheable[place_of(hash, UNCACHEABLE)]
            .is_some_and(|(other, until)| other == hash && now < until)
    }

    /// Notes that a response from this URI could not be stored.
    pub(super) fn mark_uncacheable(&mut self, uri: &str, until: Instant) {
        let hash = self.hasher.hash_one(uri);
        self.uncacheable[place_of(hash, UNCACHEABLE)] = Some((hash, until));
    }

    /// Returns the number to remember when something is requested.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the URI has not been invalidated since `epoch`.
    pub(super) fn is_right(&self, uri: &str, epoch: u64) -> bool {
        let hash = self.hasher.hash_one(uri);
        let since = usize::try_from(self.epoch - epoch).unwrap_or(usize::MAX);
        // Older invalidations are not remembered, so it may have been.
        since <= self.invalidated.len()
            && self
                .invalidated
                .iter()
                .rev()
                .take(since)
                .all(|other| *other != hash)
    }

    /// Stores an entry, in place of the one that the same requests got before.
    pub(super) fn put(&mut self, uri: &str, entry: Arc<CacheEntry>) {
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

    /// Removes an entry if it is still stored. What is known about its URI stays: the selecting fields decide
    /// which requests wait for the next response.
    pub(super) fn remove(&mut self, uri: &str, entry: &Arc<CacheEntry>) {
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

    /// Removes everything stored for a URI. Responses that have been requested by now are not stored.
    pub(super) fn invalidate(&mut self, uri: &str) {
        if self.invalidated.len() == MOST_INVALIDATED {
            self.invalidated.pop_front();
        }
        self.invalidated.push_back(self.hasher.hash_one(uri));
        self.epoch += 1;
        self.forget(uri);
    }

    /// Reserves bytes for a copy; they count until they are given back. Returns false if there is no room.
    pub(super) fn reserve(&mut self, bytes: usize) -> bool {
        // The other half is for responses that are stored already.
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

    /// Returns the bytes of what is stored.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Evicts so many bytes, the least recently requested first.
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

    /// The bytes of what is stored, added up again.
    #[cfg(test)]
    pub(super) fn counted(&self) -> usize {
        let sizes = self.places.iter().map(|(uri, place)| place.size(uri));
        sizes.sum()
    }

    fn place(&mut self, uri: &str) -> &mut UriEntries {
        if self.places.get(uri).is_none() {
            let place = UriEntries::default();
            self.held += place.size(uri);
            self.places.insert(uri.to_owned(), place);
        }
        // Inserted just now, if it was not there before.
        self.places.get_mut(uri).expect("a place for this URI")
    }

    fn forget(&mut self, uri: &str) {
        if let Some(place) = self.places.remove(uri) {
            self.held -= place.size(uri);
            self.make_room();
        }
    }

    /// Evicts the least recently requested until the rest fits. Returns false if even an empty store is too
    /// large.
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
        // The last URI may be too large by its variants alone: the oldest of them is evicted.
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

impl UriEntries {
    /// Returns the bytes of the URI with its variants.
    fn size(&self, uri: &str) -> usize {
        PLACE + uri.len() + self.variants.iter().map(|entry| entry.size()).sum::<usize>()
    }
}

/// Maps a hash to one of so many slots.
fn place_of(hash: u64, places: usize) -> usize {
    // The remainder fits, as `places` does.
    (hash % places as u64) as usize
}

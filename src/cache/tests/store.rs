use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::{STRICT, fields, just_now, sender};
use crate::cache::CacheEntry;
use crate::cache::entry::StoredHead;
use crate::cache::freshness::Freshness;
use crate::cache::key::{CacheKey, SelectingFields};
use crate::cache::store::{EntryLookup, EntryStore};
use crate::host::Target;
use crate::message::Fields;

const SIZE: usize = 64 * 1024;

fn key(path: &str, fingerprint: u64) -> CacheKey {
    let target = Target::of_absolute(&"http://api.test/".parse().unwrap()).unwrap();
    CacheKey::new(&target, path, &Fields::new(), |_| false, sender(fingerprint))
}

/// A response to a request with these fields, which varies by `User-Agent`.
fn entry(key: &CacheKey, request: &[&str], length: usize) -> Arc<CacheEntry> {
    let (answer, times) = (
        fields(&["cache-control: max-age=60", "vary: user-agent"]),
        just_now(),
    );
    let freshness = Freshness::of(StatusCode::OK, &answer, false, &times, &STRICT).unwrap();
    let choice = SelectingFields::of(&answer, &fields(request), |_| false, false).unwrap();
    let head = StoredHead::new(StatusCode::OK, &answer, times.clock);
    let body = Bytes::from(vec![b'x'; length]);
    Arc::new(CacheEntry::new(
        key.identity.clone(),
        choice,
        freshness,
        head,
        body,
    ))
}

fn has(store: &mut EntryStore, key: &CacheKey, request: &[&str]) -> bool {
    matches!(
        store.look(key, &fields(request), |_| false),
        EntryLookup::CacheLookup(_)
    )
}

#[tokio::test(start_paused = true)]
async fn each_identity_and_each_choice_has_its_own_answer() {
    let mut store = EntryStore::new(SIZE);
    let (one, other) = (key("/a", 1), key("/a", 2));
    store.put(&one.uri, entry(&one, &["user-agent: 1"], 10));
    assert!(has(&mut store, &one, &["user-agent: 1"]));
    assert!(matches!(
        store.look(&one, &fields(&["user-agent: 2"]), |_| false),
        EntryLookup::OtherVariant
    ));
    assert!(matches!(
        store.look(&other, &fields(&["user-agent: 1"]), |_| false),
        EntryLookup::Missing
    ));
    store.put(&one.uri, entry(&one, &["user-agent: 2"], 10));
    store.put(&other.uri, entry(&other, &["user-agent: 1"], 10));
    for (key, request) in [
        (&one, "user-agent: 1"),
        (&one, "user-agent: 2"),
        (&other, "user-agent: 1"),
    ] {
        assert!(has(&mut store, key, &[request]), "{request}");
    }
    store.invalidate(&one.uri);
    assert!(matches!(
        store.look(&other, &fields(&["user-agent: 1"]), |_| false),
        EntryLookup::Missing
    ));
    assert_eq!(store.taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_newer_answer_takes_the_place_of_the_older() {
    let mut store = EntryStore::new(SIZE);
    let key = key("/a", 1);
    for length in [10, 2000, 20] {
        let fresh = entry(&key, &[], length);
        store.put(&key.uri, Arc::clone(&fresh));
        let EntryLookup::CacheLookup(found) = store.look(&key, &Fields::new(), |_| false) else {
            panic!("nothing there");
        };
        assert!(Arc::ptr_eq(&found, &fresh));
        assert_eq!(store.taken(), store.counted());
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_asked_for_longest_goes_first() {
    let mut store = EntryStore::new(SIZE);
    let keys: Vec<_> = (0..9).map(|i| key(&format!("/{i}"), 1)).collect();
    for key in &keys[..8] {
        store.put(&key.uri, entry(key, &[], 6500));
    }
    assert!(has(&mut store, &keys[0], &[]));
    store.put(&keys[8].uri, entry(&keys[8], &[], 6500));
    assert!(has(&mut store, &keys[0], &[]), "asked for just now");
    assert!(!has(&mut store, &keys[1], &[]), "the one that has to go");
    assert!(has(&mut store, &keys[8], &[]));
}

#[tokio::test(start_paused = true)]
async fn copies_take_room_from_what_is_stored_but_not_all_of_it() {
    let mut store = EntryStore::new(SIZE);
    for i in 0..8 {
        let key = key(&format!("/{i}"), 1);
        store.put(&key.uri, entry(&key, &[], 7000));
    }
    assert!(store.reserve(SIZE / 2));
    assert!(store.taken() <= SIZE);
    assert!(!store.reserve(1));
    store.give_back(SIZE / 2);
    assert!(store.reserve(1));
}

#[test]
fn what_was_asked_for_before_a_change_is_not_right_afterwards() {
    let mut store = EntryStore::new(SIZE);
    let before = store.epoch();
    store.invalidate("a");
    let after = store.epoch();
    assert!(!store.is_right("a", before) && store.is_right("a", after) && store.is_right("b", before));
    for _ in 0..5000 {
        store.invalidate("c");
    }
    assert!(!store.is_right("b", before), "it is not known any longer");
}

#[tokio::test(start_paused = true)]
async fn it_is_remembered_for_a_while_what_could_not_be_stored() {
    let mut store = EntryStore::new(SIZE);
    let now = Instant::now();
    store.mark_uncacheable("a", now + Duration::from_secs(5));
    assert!(store.is_uncacheable("a", now) && !store.is_uncacheable("b", now));
    assert!(!store.is_uncacheable("a", now + Duration::from_secs(5)));
}

/// Random operations in any order: the bound holds, and the sums are right.
#[tokio::test(start_paused = true)]
async fn no_order_of_events_passes_the_bound() {
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut store = EntryStore::new(SIZE);
        let mut copied = Vec::new();
        for step in 0..1500 {
            let key = key(
                &format!("/{}", random.random_range(0..40)),
                random.random_range(0..3),
            );
            let request = format!("user-agent: {}", random.random_range(0..50));
            match random.random_range(0..12) {
                0..6 => {
                    let length = random.random_range(0..SIZE / 8);
                    store.put(&key.uri, entry(&key, &[&request], length));
                }
                6 => {
                    let bytes = random.random_range(0..SIZE / 4);
                    if store.reserve(bytes) {
                        copied.push(bytes);
                    }
                }
                7 => store.give_back(copied.pop().unwrap_or_default()),
                8 => store.invalidate(&key.uri),
                9 => {
                    if let EntryLookup::CacheLookup(entry) = store.look(&key, &fields(&[&request]), |_| false)
                    {
                        store.remove(&key.uri, &entry);
                        store.remove(&key.uri, &entry);
                    }
                }
                10 if step % 100 == 0 => store.shrink(SIZE / 2),
                _ => drop(store.look(&key, &fields(&[&request]), |_| false)),
            }
            let reserved: usize = copied.iter().sum();
            assert!(
                store.taken() <= SIZE,
                "seed {seed} step {step}: {}",
                store.taken()
            );
            assert_eq!(
                store.taken(),
                store.counted() + reserved,
                "seed {seed} step {step}"
            );
        }
    }
}

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::{Instant, advance, timeout};

use super::{fields, just_now, sender};
use crate::cache::{
    AnswerHead, CacheLookup, CacheQuery, FetchOutcome, FetchRole, Follower, ForwardReason, Leader,
    ResponseCache, ResponseCopy,
};
use crate::config;
use crate::host::Target;
use crate::message::Fields;

fn cache() -> Arc<ResponseCache> {
    Arc::new(ResponseCache::new(&config::Cache {
        min_fresh: Duration::ZERO,
        size: 1 << 20,
        stale_if_error: Duration::ZERO,
        stale_while_revalidate: Duration::from_secs(30),
    }))
}

fn query(path: &str, lines: &[&str]) -> CacheQuery {
    let target = Target::of_absolute(&"http://api.test/".parse().unwrap()).unwrap();
    ResponseCache::query(&Method::GET, &target, path, &fields(lines), |_| false, sender(1))
        .expect("a request for the cache")
}

fn find(cache: &Arc<ResponseCache>, query: &mut CacheQuery) -> CacheLookup {
    cache.find(query, &Fields::new(), |_| false, false, Instant::now())
}

/// Looks a request up that becomes the leader.
fn leader(cache: &Arc<ResponseCache>, query: &mut CacheQuery) -> Leader {
    match find(cache, query) {
        CacheLookup::Miss {
            turn: FetchRole::Lead(leader),
            ..
        } => leader,
        other => panic!("not the first: {other:?}"),
    }
}

/// Looks a request up that follows a leader.
fn follower(cache: &Arc<ResponseCache>, query: &mut CacheQuery) -> Follower {
    match find(cache, query) {
        CacheLookup::Miss {
            turn: FetchRole::Follow(follower),
            ..
        } => follower,
        other => panic!("nobody leads: {other:?}"),
    }
}

fn is_alone(found: &CacheLookup) -> bool {
    matches!(
        found,
        CacheLookup::Miss {
            turn: FetchRole::Alone,
            ..
        }
    )
}

/// Copies a 200 with these fields.
fn copying(
    cache: &Arc<ResponseCache>,
    query: &CacheQuery,
    leader: Option<Leader>,
    lines: &[&str],
    length: Option<u64>,
) -> Option<ResponseCopy> {
    let fields = fields(lines);
    let answered = AnswerHead {
        status: StatusCode::OK,
        fields: &fields,
        length,
    };
    let draft = cache.draft(query, &Fields::new(), |_| false, &answered, &just_now())?;
    Some(ResponseCopy::new(draft, leader, cache))
}

const MINUTE: &[&str] = &["cache-control: max-age=60"];

#[tokio::test(start_paused = true)]
async fn the_first_leads_and_the_others_have_what_it_stores() {
    let cache = cache();
    let mut first = query("/", &[]);
    let leader = leader(&cache, &mut first);
    let waiting: Vec<_> = (0..50).map(|_| follower(&cache, &mut query("/", &[]))).collect();
    let mut copy = copying(&cache, &first, Some(leader), MINUTE, Some(4)).unwrap();
    copy.push(b"bo");
    copy.push(b"dy");
    copy.finish();
    for follower in waiting {
        assert_eq!(follower.wait(Duration::from_secs(9)).await, FetchOutcome::Stored);
    }
    let CacheLookup::Fresh(kept) = find(&cache, &mut query("/", &[])) else {
        panic!("not stored");
    };
    assert_eq!((kept.ttl, kept.entry.body().as_ref()), (60, &b"body"[..]));
}

/// Between the moment when the upstream answers something else and the moment when that is stored.
#[tokio::test(start_paused = true)]
async fn what_takes_the_place_of_a_stale_answer_is_waited_for() {
    let cache = cache();
    let mut first = query("/", &[]);
    let leader = leader(&cache, &mut first);
    let mut copy = copying(&cache, &first, Some(leader), &["cache-control: max-age=0"], None).unwrap();
    copy.push(b"old");
    copy.finish();
    let mut second = query("/", &[]);
    let CacheLookup::Refresh(kept, Some(leader)) = find(&cache, &mut second) else {
        panic!("nothing to refresh");
    };
    cache.drop_entry(&second, &kept.entry);
    let waiting = follower(&cache, &mut query("/", &[]));
    let mut copy = copying(&cache, &second, Some(leader), MINUTE, None).unwrap();
    copy.push(b"new");
    copy.finish();
    assert_eq!(waiting.wait(Duration::from_secs(9)).await, FetchOutcome::Stored);
}

#[tokio::test(start_paused = true)]
async fn followers_are_let_go_as_soon_as_nothing_will_be_stored() {
    // The upstream fails; the response must not be stored; it is cut off; it is too large; it is longer than
    // announced.
    let large = vec![0; 1 << 18];
    type End = fn(&Arc<ResponseCache>, &CacheQuery, Leader, &[u8]);
    let ends: [(&str, End, FetchOutcome); 6] = [
        (
            "failed",
            |_, _, leader, _| leader.finish(FetchOutcome::Failed),
            FetchOutcome::Failed,
        ),
        ("left", |_, _, leader, _| drop(leader), FetchOutcome::Gone),
        (
            "left on the way",
            |cache, query, leader, _| drop(copying(cache, query, Some(leader), MINUTE, Some(4))),
            FetchOutcome::Gone,
        ),
        (
            "cut",
            |cache, query, leader, _| {
                copying(cache, query, Some(leader), MINUTE, None)
                    .unwrap()
                    .give_up()
            },
            FetchOutcome::Alone,
        ),
        (
            "too long",
            |cache, query, leader, large| {
                let mut copy = copying(cache, query, Some(leader), MINUTE, None).unwrap();
                copy.push(large);
                assert!(!copy.is_active());
                // What comes afterwards changes nothing.
                copy.finish();
            },
            FetchOutcome::Alone,
        ),
        (
            "longer than said",
            |cache, query, leader, _| {
                let mut copy = copying(cache, query, Some(leader), MINUTE, Some(3)).unwrap();
                copy.push(b"body");
            },
            FetchOutcome::Alone,
        ),
    ];
    for (what, end, outcome) in ends {
        let cache = cache();
        let mut first = query("/", &[]);
        let leader = leader(&cache, &mut first);
        let follower = follower(&cache, &mut query("/", &[]));
        end(&cache, &first, leader, &large);
        assert_eq!(
            timeout(Duration::ZERO, follower.wait(Duration::from_secs(60))).await,
            Ok(outcome),
            "{what}"
        );
        assert!(
            !matches!(find(&cache, &mut query("/", &[])), CacheLookup::Fresh(_)),
            "{what}: stored"
        );
        assert_eq!(cache.state().store.taken(), 0, "{what}: kept");
        assert!(cache.state().fetches.is_empty() || matches!(what, "failed" | "left" | "left on the way"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_shorter_than_said_is_not_stored() {
    let cache = cache();
    let mut first = query("/", &[]);
    let mut copy = {
        let leader = leader(&cache, &mut first);
        copying(&cache, &first, Some(leader), MINUTE, Some(5)).unwrap()
    };
    copy.push(b"body");
    copy.finish();
    assert!(!matches!(
        find(&cache, &mut query("/", &[])),
        CacheLookup::Fresh(_)
    ));
}

/// No request waits for a response that could not be stored the last time.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_what_is_never_stored() {
    let cache = cache();
    let mut first = query("/", &[]);
    leader(&cache, &mut first).finish(FetchOutcome::Alone);
    cache.mark_uncacheable(&first);
    assert!(is_alone(&find(&cache, &mut query("/", &[]))));
    advance(Duration::from_secs(61)).await;
    drop(leader(&cache, &mut query("/", &[])));
}

#[tokio::test(start_paused = true)]
async fn waiting_has_its_bounds() {
    let cache = cache();
    let mut first = query("/", &[]);
    let leader = leader(&cache, &mut first);
    let begun = Instant::now();
    let outcome = follower(&cache, &mut query("/", &[]))
        .wait(Duration::from_secs(7))
        .await;
    assert_eq!((outcome, begun.elapsed().as_secs()), (FetchOutcome::Alone, 7));
    // The head has come, but the leader's app reads slowly.
    let copy = copying(&cache, &first, Some(leader), MINUTE, None).unwrap();
    let outcome = follower(&cache, &mut query("/", &[]))
        .wait(Duration::from_secs(60))
        .await;
    assert_eq!((outcome, begun.elapsed().as_secs()), (FetchOutcome::Alone, 10));
    // Later requests do not start to wait for it.
    let follower = follower(&cache, &mut query("/", &[])).wait(Duration::from_secs(60));
    assert_eq!(timeout(Duration::ZERO, follower).await, Ok(FetchOutcome::Alone));
    drop(copy);

    let leader = self::leader(&cache, &mut first);
    let waiting: Vec<_> = (0..1000)
        .map(|_| self::follower(&cache, &mut query("/", &[])))
        .collect();
    assert!(
        is_alone(&find(&cache, &mut query("/", &[]))),
        "enough wait already"
    );
    drop((leader, waiting));
}

#[tokio::test(start_paused = true)]
async fn who_wants_the_newest_neither_leads_nor_follows() {
    let cache = cache();
    for line in ["cache-control: no-cache", "pragma: no-cache"] {
        assert!(is_alone(&find(&cache, &mut query("/", &[line]))), "{line}");
    }
    let mut first = query("/", &[]);
    let leader = leader(&cache, &mut first);
    copying(&cache, &first, Some(leader), MINUTE, None)
        .unwrap()
        .finish();
    let found = find(&cache, &mut query("/", &["cache-control: no-cache"]));
    assert!(matches!(
        found,
        CacheLookup::Miss {
            why: ForwardReason::Request,
            stale: Some(_),
            turn: FetchRole::Alone
        }
    ));
}

#[tokio::test(start_paused = true)]
async fn one_refreshes_while_the_others_are_served() {
    let cache = cache();
    let mut first = query("/", &[]);
    let leader = leader(&cache, &mut first);
    copying(&cache, &first, Some(leader), &["cache-control: max-age=1"], None)
        .unwrap()
        .finish();
    advance(Duration::from_secs(5)).await;
    let CacheLookup::Refresh(kept, Some(leader)) = find(&cache, &mut first) else {
        panic!("nobody refreshes");
    };
    assert_eq!(kept.ttl, -4);
    for _ in 0..3 {
        assert!(matches!(
            find(&cache, &mut query("/", &[])),
            CacheLookup::Refresh(_, None)
        ));
    }
    copying(&cache, &first, Some(leader), MINUTE, None)
        .unwrap()
        .finish();
    assert!(matches!(
        find(&cache, &mut query("/", &[])),
        CacheLookup::Fresh(_)
    ));
}

/// A response that was requested before a change and comes after it is outdated.
#[tokio::test(start_paused = true)]
async fn a_change_on_the_way_keeps_an_answer_out() {
    let cache = cache();
    let mut first = query("/", &[]);
    let leader = leader(&cache, &mut first);
    let mut copy = copying(&cache, &first, Some(leader), MINUTE, None).unwrap();
    let target = Target::of_absolute(&"http://api.test/".parse().unwrap()).unwrap();
    cache.invalidate(&target, "/");
    copy.finish();
    assert!(!matches!(
        find(&cache, &mut query("/", &[])),
        CacheLookup::Fresh(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn requests_that_the_cache_has_no_part_in() {
    let target = Target::of_absolute(&"http://api.test/".parse().unwrap()).unwrap();
    for (method, line) in [
        (Method::POST, "x: 1"),
        (Method::OPTIONS, "x: 1"),
        (Method::GET, "range: bytes=0-1"),
        (Method::GET, "if-match: \"a\""),
        (Method::GET, "if-unmodified-since: x"),
        (Method::GET, "if-range: \"a\""),
        (Method::GET, "cache-control: no-store"),
        (Method::HEAD, "range: bytes=0-1"),
    ] {
        let asked = ResponseCache::query(&method, &target, "/", &fields(&[line]), |_| false, sender(1));
        assert!(asked.is_none(), "{method} {line}");
    }
}

/// When memory is short, the least recently requested is evicted, and new responses are stored in its place.
#[tokio::test(start_paused = true)]
async fn a_cache_shrinks_from_its_oldest_end() {
    let cache = cache();
    let mut stored = Vec::new();
    for path in ["/1", "/2", "/3"] {
        let mut query = query(path, &[]);
        let leader = leader(&cache, &mut query);
        (copying(&cache, &query, Some(leader), MINUTE, None).unwrap()).finish();
        stored.push(query);
    }
    cache.shrink(1);
    assert!(!matches!(find(&cache, &mut stored[0]), CacheLookup::Fresh(_)));
    assert!(matches!(find(&cache, &mut stored[2]), CacheLookup::Fresh(_)));
    let mut other = query("/other", &[]);
    let other_lead = leader(&cache, &mut other);
    let mut copy = copying(&cache, &other, Some(other_lead), MINUTE, None).unwrap();
    copy.push(b"body");
    cache.shrink(usize::MAX);
    assert_eq!(cache.held(), 0);
    copy.finish();
    assert!(matches!(find(&cache, &mut other), CacheLookup::Fresh(_)));
}

/// An entry that a 304 is about is as fresh as the 304; another one is removed.
#[tokio::test(start_paused = true)]
async fn a_304_makes_an_answer_new() {
    for (lines, is_stored) in [
        (&["etag: \"a\""][..], true),
        (&["cache-control: max-age=90"], true),
        (&["etag: \"b\""], false),
        (&["cache-control: no-store"], false),
        (&["set-cookie: a=b"], false),
        (&["vary: foo"], false),
    ] {
        let cache = cache();
        let mut first = query("/", &[]);
        let leader = leader(&cache, &mut first);
        let answer = &["cache-control: max-age=60", "etag: \"a\""];
        (copying(&cache, &first, Some(leader), answer, None).unwrap()).finish();
        advance(Duration::from_secs(200)).await;
        let CacheLookup::Miss {
            stale: Some(stale), ..
        } = find(&cache, &mut first)
        else {
            panic!("not stale");
        };
        let (kept, stored) = cache.confirm(&first, &stale, &fields(lines), &just_now());
        assert_eq!(stored, is_stored, "{lines:?}");
        assert_eq!(kept.entry.body(), stale.body());
        let is_fresh = matches!(find(&cache, &mut query("/", &[])), CacheLookup::Fresh(_));
        assert_eq!(is_fresh, is_stored, "{lines:?}");
        assert!(kept.ttl >= 60 || !is_stored, "{lines:?}");
    }
}

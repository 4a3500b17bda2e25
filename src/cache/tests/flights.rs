use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use tokio::time::{Instant, advance, timeout};

use super::{fields, just_now, sender};
use crate::cache::{Answered, Ask, Cache, Copying, Follow, Found, Lead, Outcome, Turn, Why};
use crate::config;
use crate::host::Target;

fn cache() -> Arc<Cache> {
    Arc::new(Cache::new(&config::Cache {
        min_fresh: Duration::ZERO,
        size: 1 << 20,
        stale_if_error: Duration::ZERO,
        stale_while_revalidate: Duration::from_secs(30),
    }))
}

fn ask(path: &str, lines: &[&str]) -> Ask {
    let target = Target::of_absolute(&"http://api.test/".parse().unwrap()).unwrap();
    Cache::ask(&Method::GET, &target, path, &fields(lines), |_| false, sender(1))
        .expect("a request for the cache")
}

fn find(cache: &Arc<Cache>, ask: &mut Ask) -> Found {
    cache.find(ask, &HeaderMap::new(), |_| false, false, Instant::now())
}

/// Asks, and finds that it has to lead.
fn lead(cache: &Arc<Cache>, ask: &mut Ask) -> Lead {
    match find(cache, ask) {
        Found::Absent {
            turn: Turn::Lead(lead),
            ..
        } => lead,
        other => panic!("not the first: {other:?}"),
    }
}

/// Asks, and finds that somebody leads.
fn follow(cache: &Arc<Cache>, ask: &mut Ask) -> Follow {
    match find(cache, ask) {
        Found::Absent {
            turn: Turn::Follow(follow),
            ..
        } => follow,
        other => panic!("nobody leads: {other:?}"),
    }
}

fn is_alone(found: &Found) -> bool {
    matches!(
        found,
        Found::Absent {
            turn: Turn::Alone,
            ..
        }
    )
}

/// Copies a 200 with these fields.
fn copying(
    cache: &Arc<Cache>,
    ask: &Ask,
    lead: Option<Lead>,
    lines: &[&str],
    length: Option<u64>,
) -> Option<Copying> {
    let fields = fields(lines);
    let answered = Answered {
        status: StatusCode::OK,
        fields: &fields,
        length,
    };
    let draft = cache.draft(ask, &HeaderMap::new(), |_| false, &answered, &just_now())?;
    Some(Copying::new(draft, lead, cache))
}

const MINUTE: &[&str] = &["cache-control: max-age=60"];

#[tokio::test(start_paused = true)]
async fn the_first_leads_and_the_others_have_what_it_stores() {
    let cache = cache();
    let mut first = ask("/", &[]);
    let lead = lead(&cache, &mut first);
    let waiting: Vec<_> = (0..50).map(|_| follow(&cache, &mut ask("/", &[]))).collect();
    let mut copy = copying(&cache, &first, Some(lead), MINUTE, Some(4)).unwrap();
    copy.push(b"bo");
    copy.push(b"dy");
    copy.finish();
    for follow in waiting {
        assert_eq!(follow.wait(Duration::from_secs(9)).await, Outcome::Stored);
    }
    let Found::Fresh(kept) = find(&cache, &mut ask("/", &[])) else {
        panic!("not stored");
    };
    assert_eq!((kept.ttl, kept.entry.body().as_ref()), (60, &b"body"[..]));
}

/// Between the moment at which the upstream has answered something else and that at which it is stored.
#[tokio::test(start_paused = true)]
async fn what_takes_the_place_of_a_stale_answer_is_waited_for() {
    let cache = cache();
    let mut first = ask("/", &[]);
    let lead = lead(&cache, &mut first);
    let mut copy = copying(&cache, &first, Some(lead), &["cache-control: max-age=0"], None).unwrap();
    copy.push(b"old");
    copy.finish();
    let mut second = ask("/", &[]);
    let Found::Refresh(kept, Some(lead)) = find(&cache, &mut second) else {
        panic!("nothing to refresh");
    };
    cache.drop_entry(&second, &kept.entry);
    let waiting = follow(&cache, &mut ask("/", &[]));
    let mut copy = copying(&cache, &second, Some(lead), MINUTE, None).unwrap();
    copy.push(b"new");
    copy.finish();
    assert_eq!(waiting.wait(Duration::from_secs(9)).await, Outcome::Stored);
}

#[tokio::test(start_paused = true)]
async fn followers_are_let_go_as_soon_as_nothing_will_be_stored() {
    // The upstream fails; the answer is not for storing; it is cut; it is too long; it is longer than it said.
    let large = vec![0; 1 << 18];
    type End = fn(&Arc<Cache>, &Ask, Lead, &[u8]);
    let ends: [(&str, End, Outcome); 6] = [
        (
            "failed",
            |_, _, lead, _| lead.ends(Outcome::Failed),
            Outcome::Failed,
        ),
        ("left", |_, _, lead, _| drop(lead), Outcome::Gone),
        (
            "left on the way",
            |cache, ask, lead, _| drop(copying(cache, ask, Some(lead), MINUTE, Some(4))),
            Outcome::Gone,
        ),
        (
            "cut",
            |cache, ask, lead, _| copying(cache, ask, Some(lead), MINUTE, None).unwrap().give_up(),
            Outcome::Alone,
        ),
        (
            "too long",
            |cache, ask, lead, large| {
                let mut copy = copying(cache, ask, Some(lead), MINUTE, None).unwrap();
                copy.push(large);
                assert!(!copy.goes_on());
                // What comes afterwards changes nothing.
                copy.finish();
            },
            Outcome::Alone,
        ),
        (
            "longer than said",
            |cache, ask, lead, _| {
                let mut copy = copying(cache, ask, Some(lead), MINUTE, Some(3)).unwrap();
                copy.push(b"body");
            },
            Outcome::Alone,
        ),
    ];
    for (what, end, outcome) in ends {
        let cache = cache();
        let mut first = ask("/", &[]);
        let lead = lead(&cache, &mut first);
        let follow = follow(&cache, &mut ask("/", &[]));
        end(&cache, &first, lead, &large);
        assert_eq!(
            timeout(Duration::ZERO, follow.wait(Duration::from_secs(60))).await,
            Ok(outcome),
            "{what}"
        );
        assert!(
            !matches!(find(&cache, &mut ask("/", &[])), Found::Fresh(_)),
            "{what}: stored"
        );
        assert_eq!(cache.state().store.taken(), 0, "{what}: kept");
        assert!(cache.state().flights.is_empty() || matches!(what, "failed" | "left" | "left on the way"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_shorter_than_said_is_not_stored() {
    let cache = cache();
    let mut first = ask("/", &[]);
    let mut copy = {
        let lead = lead(&cache, &mut first);
        copying(&cache, &first, Some(lead), MINUTE, Some(5)).unwrap()
    };
    copy.push(b"body");
    copy.finish();
    assert!(!matches!(find(&cache, &mut ask("/", &[])), Found::Fresh(_)));
}

/// Nobody waits for what could not be stored the last time.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_what_is_never_stored() {
    let cache = cache();
    let mut first = ask("/", &[]);
    lead(&cache, &mut first).ends(Outcome::Alone);
    cache.passes(&first);
    assert!(is_alone(&find(&cache, &mut ask("/", &[]))));
    advance(Duration::from_secs(61)).await;
    drop(lead(&cache, &mut ask("/", &[])));
}

#[tokio::test(start_paused = true)]
async fn waiting_has_its_bounds() {
    let cache = cache();
    let mut first = ask("/", &[]);
    let lead = lead(&cache, &mut first);
    let begun = Instant::now();
    let outcome = follow(&cache, &mut ask("/", &[]))
        .wait(Duration::from_secs(7))
        .await;
    assert_eq!((outcome, begun.elapsed().as_secs()), (Outcome::Alone, 7));
    // The head has come, but who reads the body is slow.
    let copy = copying(&cache, &first, Some(lead), MINUTE, None).unwrap();
    let outcome = follow(&cache, &mut ask("/", &[]))
        .wait(Duration::from_secs(60))
        .await;
    assert_eq!((outcome, begun.elapsed().as_secs()), (Outcome::Alone, 10));
    // Later ones do not begin to wait for it.
    let follow = follow(&cache, &mut ask("/", &[])).wait(Duration::from_secs(60));
    assert_eq!(timeout(Duration::ZERO, follow).await, Ok(Outcome::Alone));
    drop(copy);

    let lead = self::lead(&cache, &mut first);
    let waiting: Vec<_> = (0..1000)
        .map(|_| self::follow(&cache, &mut ask("/", &[])))
        .collect();
    assert!(is_alone(&find(&cache, &mut ask("/", &[]))), "enough wait already");
    drop((lead, waiting));
}

#[tokio::test(start_paused = true)]
async fn who_wants_the_newest_neither_leads_nor_follows() {
    let cache = cache();
    for line in ["cache-control: no-cache", "pragma: no-cache"] {
        assert!(is_alone(&find(&cache, &mut ask("/", &[line]))), "{line}");
    }
    let mut first = ask("/", &[]);
    let lead = lead(&cache, &mut first);
    copying(&cache, &first, Some(lead), MINUTE, None)
        .unwrap()
        .finish();
    let found = find(&cache, &mut ask("/", &["cache-control: no-cache"]));
    assert!(matches!(
        found,
        Found::Absent {
            why: Why::Request,
            stale: Some(_),
            turn: Turn::Alone
        }
    ));
}

#[tokio::test(start_paused = true)]
async fn one_refreshes_while_the_others_are_served() {
    let cache = cache();
    let mut first = ask("/", &[]);
    let lead = lead(&cache, &mut first);
    copying(&cache, &first, Some(lead), &["cache-control: max-age=1"], None)
        .unwrap()
        .finish();
    advance(Duration::from_secs(5)).await;
    let Found::Refresh(kept, Some(lead)) = find(&cache, &mut first) else {
        panic!("nobody refreshes");
    };
    assert_eq!(kept.ttl, -4);
    for _ in 0..3 {
        assert!(matches!(
            find(&cache, &mut ask("/", &[])),
            Found::Refresh(_, None)
        ));
    }
    copying(&cache, &first, Some(lead), MINUTE, None)
        .unwrap()
        .finish();
    assert!(matches!(find(&cache, &mut ask("/", &[])), Found::Fresh(_)));
}

/// What was read before a change and comes after it is no longer right.
#[tokio::test(start_paused = true)]
async fn a_change_on_the_way_keeps_an_answer_out() {
    let cache = cache();
    let mut first = ask("/", &[]);
    let lead = lead(&cache, &mut first);
    let mut copy = copying(&cache, &first, Some(lead), MINUTE, None).unwrap();
    let target = Target::of_absolute(&"http://api.test/".parse().unwrap()).unwrap();
    cache.invalidate(&target, "/");
    copy.finish();
    assert!(!matches!(find(&cache, &mut ask("/", &[])), Found::Fresh(_)));
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
        let asked = Cache::ask(&method, &target, "/", &fields(&[line]), |_| false, sender(1));
        assert!(asked.is_none(), "{method} {line}");
    }
}

/// Short of memory: what was not asked for longest goes, and what is on its way is stored in its place.
#[tokio::test(start_paused = true)]
async fn a_cache_shrinks_from_its_oldest_end() {
    let cache = cache();
    let mut stored = Vec::new();
    for path in ["/1", "/2", "/3"] {
        let mut ask = ask(path, &[]);
        let lead = lead(&cache, &mut ask);
        (copying(&cache, &ask, Some(lead), MINUTE, None).unwrap()).finish();
        stored.push(ask);
    }
    cache.shrink(1);
    assert!(!matches!(find(&cache, &mut stored[0]), Found::Fresh(_)));
    assert!(matches!(find(&cache, &mut stored[2]), Found::Fresh(_)));
    let mut other = ask("/other", &[]);
    let other_lead = lead(&cache, &mut other);
    let mut copy = copying(&cache, &other, Some(other_lead), MINUTE, None).unwrap();
    copy.push(b"body");
    cache.shrink(usize::MAX);
    assert_eq!(cache.held(), 0);
    copy.finish();
    assert!(matches!(find(&cache, &mut other), Found::Fresh(_)));
}

/// An entry that a 304 speaks of is as new as that; another one is let go.
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
        let mut first = ask("/", &[]);
        let lead = lead(&cache, &mut first);
        let answer = &["cache-control: max-age=60", "etag: \"a\""];
        (copying(&cache, &first, Some(lead), answer, None).unwrap()).finish();
        advance(Duration::from_secs(200)).await;
        let Found::Absent {
            stale: Some(stale), ..
        } = find(&cache, &mut first)
        else {
            panic!("not stale");
        };
        let (kept, stored) = cache.confirm(&first, &stale, &fields(lines), &just_now());
        assert_eq!(stored, is_stored, "{lines:?}");
        assert_eq!(kept.entry.body(), stale.body());
        let is_fresh = matches!(find(&cache, &mut ask("/", &[])), Found::Fresh(_));
        assert_eq!(is_fresh, is_stored, "{lines:?}");
        assert!(kept.ttl >= 60 || !is_stored, "{lines:?}");
    }
}

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, header};
use tokio::time::{Instant, advance};

use super::{STRICT, fields, just_now, sender};
use crate::cache::CacheEntry;
use crate::cache::entry::StoredHead;
use crate::cache::freshness::Freshness;
use crate::cache::key::{CacheKey, SelectingFields};
use crate::host::Target;

/// A 200 with these fields, and the body `body`.
fn entry(lines: &[&str]) -> Arc<CacheEntry> {
    let (fields, times) = (fields(lines), just_now());
    let target = Target::of_absolute(&"http://api.test/".parse().unwrap()).unwrap();
    let none = fields_of_no_request();
    let freshness = Freshness::of(StatusCode::OK, &fields, false, &times, &STRICT).expect("it can be stored");
    Arc::new(CacheEntry::new(
        CacheKey::new(&target, "/", &none, |_| false, sender(0)).identity,
        SelectingFields::of(&fields, &none, |_| false, false).unwrap(),
        freshness,
        StoredHead::new(StatusCode::OK, &fields, times.clock),
        Bytes::from_static(b"body"),
    ))
}

fn fields_of_no_request() -> crate::message::Fields {
    fields(&[])
}

#[tokio::test(start_paused = true)]
async fn an_answer_says_how_old_it_is() {
    let entry = entry(&[
        "cache-control: max-age=60",
        "age: 7",
        "x-a: 1",
        "x-a: 2",
        "ratelimit: \"n\";r=1",
        "x-ratelimit-remaining: 1",
        "x-rate-limit-limit: 1",
    ]);
    advance(Duration::from_secs(5)).await;
    let answer = entry.answer(Instant::now());
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()[header::AGE], "12");
    assert_eq!(answer.headers().get_all("x-a").count(), 2);
    assert!(answer.headers().contains_key(header::DATE));
    assert_eq!(answer.body(), "body");
    // What was left of a quota then means nothing now.
    assert!(!answer.headers().keys().any(|name| name.as_str().contains("rate")));

    let head = entry.answer_to_head(Instant::now());
    assert!(head.body().is_empty());
    assert_eq!(head.headers()[header::CONTENT_LENGTH], "4");
}

#[tokio::test(start_paused = true)]
async fn a_condition_is_judged_here() {
    let tagged = entry(&[
        "etag: \"a,b\"",
        "last-modified: Sat, 01 Jan 2000 00:00:00 GMT",
        "cache-control: max-age=9",
    ]);
    let weak = entry(&["etag: W/\"a\"", "cache-control: max-age=9"]);
    let dated = entry(&[
        "date: Sun, 02 Jan 2000 00:00:00 GMT",
        "cache-control: public, max-age=999999999",
    ]);
    for (entry, lines, is_met) in [
        (&tagged, &[][..], false),
        (&tagged, &["if-none-match: \"a,b\""], true),
        (&tagged, &["if-none-match: W/\"a,b\""], true),
        (&tagged, &["if-none-match: \"x\", \"y\" ,\"a,b\""], true),
        (&tagged, &["if-none-match: \"x\"", "if-none-match: \"a,b\""], true),
        (&tagged, &["if-none-match: *"], true),
        (&tagged, &["if-none-match: \"a\""], false),
        (&tagged, &["if-none-match: a,b"], false),
        (&tagged, &["if-none-match: \"a,b"], false),
        (&tagged, &["if-none-match: "], false),
        (&weak, &["if-none-match: \"a\""], true),
        (&weak, &["if-none-match: W/\"a\""], true),
        (&weak, &["if-none-match: w/\"a\""], false),
        // The tag goes before the date.
        (
            &tagged,
            &[
                "if-none-match: \"x\"",
                "if-modified-since: Sat, 01 Jan 2000 00:00:00 GMT",
            ],
            false,
        ),
        (
            &tagged,
            &["if-modified-since: Sat, 01 Jan 2000 00:00:00 GMT"],
            true,
        ),
        (
            &tagged,
            &["if-modified-since: Fri, 31 Dec 1999 23:59:59 GMT"],
            false,
        ),
        (&tagged, &["if-modified-since: then"], false),
        (
            &dated,
            &["if-modified-since: Sun, 02 Jan 2000 00:00:00 GMT"],
            true,
        ),
        (
            &dated,
            &["if-modified-since: Sat, 01 Jan 2000 00:00:00 GMT"],
            false,
        ),
    ] {
        assert_eq!(entry.has_not_changed_for(&fields(lines)), is_met, "{lines:?}");
    }
    let answer = tagged.not_modified(Instant::now());
    assert_eq!(answer.status(), 304);
    assert!(answer.body().is_empty() && answer.headers().contains_key(header::ETAG));
}

#[tokio::test(start_paused = true)]
async fn a_request_asks_by_what_is_stored() {
    let mut request = fields(&["if-none-match: \"app\"", "if-modified-since: x", "accept: a"]);
    assert!(!entry(&["cache-control: max-age=9"]).validate(&mut request));
    assert_eq!(request[header::IF_NONE_MATCH], "\"app\"");
    assert!(entry(&["etag: \"ours\""]).validate(&mut request));
    assert_eq!(request, fields(&["if-none-match: \"ours\"", "accept: a"]));
}

#[tokio::test(start_paused = true)]
async fn a_304_brings_the_fields_up_to_date_but_not_what_describes_the_bytes() {
    let stored = entry(&[
        "etag: \"a\"",
        "content-length: 4",
        "content-type: a/b",
        "x-old: 1",
        "x-both: 1",
        "x-both: 2",
    ]);
    let confirmation = fields(&[
        "etag: W/\"a\"",
        "content-length: 9",
        "content-encoding: gzip",
        "content-type: c/d",
        "x-both: 3",
        "x-new: 1",
        "age: 3",
        "x-ratelimit-remaining: 7",
    ]);
    assert!(stored.is_confirmed_by(&confirmation));
    let head = stored.head().confirmed(&confirmation);
    let mut updated = head.fields().clone();
    updated.remove(header::DATE);
    updated.remove(header::AGE);
    assert_eq!(
        updated,
        fields(&[
            "etag: \"a\"",
            "content-length: 4",
            "x-old: 1",
            "content-type: c/d",
            "x-both: 3",
            "x-new: 1"
        ])
    );
    assert!(!stored.is_confirmed_by(&fields(&["etag: \"b\""])));
    assert!(stored.is_confirmed_by(&fields(&["x: 1"])));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_head_shows_whether_it_has_changed() {
    let stored = entry(&["etag: \"a\"", "content-length: 4"]);
    for (status, lines, differs) in [
        (200, &[][..], false),
        (200, &["etag: \"a\"", "content-length: 4"], false),
        (200, &["etag: \"b\""], true),
        (200, &["content-length: 5"], true),
        (404, &[], true),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(
            stored.differs_from(status, &fields(lines)),
            differs,
            "{status} {lines:?}"
        );
    }
}

/// A value from a large buffer must not keep that buffer alive.
#[tokio::test(start_paused = true)]
async fn an_entry_holds_on_to_no_other_buffer() {
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    let mut lines = fields(&["cache-control: max-age=9"]);
    lines.insert(
        "x-cut",
        http::HeaderValue::from_maybe_shared(large.slice(..5)).unwrap(),
    );
    let head = StoredHead::new(StatusCode::OK, &lines, just_now().clock);
    drop(lines);
    assert!(large.is_unique());
    assert_eq!(head.fields()["x-cut"], "xxxxx");
}

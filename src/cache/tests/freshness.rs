use std::time::{Duration, SystemTime};

use http::StatusCode;
use tokio::time::Instant;

use super::{STRICT, fields, just_now};
use crate::cache::directives::RequestDirectives;
use crate::cache::freshness::{Allowances, Freshness, Reuse, Times};

fn terms_at(
    times: &Times,
    status: u16,
    lines: &[&str],
    is_shared: bool,
    allowances: &Allowances,
) -> Option<Freshness> {
    let status = StatusCode::from_u16(status).unwrap();
    Freshness::of(status, &fields(lines), is_shared, times, allowances)
}

fn freshness(lines: &[&str], allowances: &Allowances) -> Freshness {
    terms_at(&just_now(), 200, lines, false, allowances).expect("it can be stored")
}

fn directives(line: &str) -> RequestDirectives {
    RequestDirectives::of(&fields(&[&format!("cache-control: {line}")]))
}

fn after(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

const LENIENT: Allowances = Allowances {
    min_fresh: Duration::from_secs(30),
    stale_if_error: Duration::from_secs(600),
    stale_while_revalidate: Duration::from_secs(20),
};

#[tokio::test(start_paused = true)]
async fn only_what_the_rfc_allows_is_stored() {
    let etag = "etag: \"a\"";
    for (status, lines, is_stored) in [
        (200, &["cache-control: max-age=60"][..], true),
        (200, &[etag], true),
        (200, &["last-modified: Sat, 01 Jan 2000 00:00:00 GMT"], true),
        (200, &["expires: Fri, 31 Dec 2100 00:00:00 GMT"], true),
        (200, &["cache-control: private, max-age=60"], true),
        (200, &["cache-control: no-cache", etag], true),
        (200, &["cache-control: max-age=0", etag], true),
        // It could never be used.
        (200, &[], false),
        (200, &["cache-control: max-age=0"], false),
        (200, &["cache-control: no-cache, max-age=60"], false),
        (200, &["cache-control: no-store, max-age=60", etag], false),
        (200, &["cache-control: max-age=60", "set-cookie: a=b"], false),
        (200, &["cache-control: max-age=60", "set-cookie2: a=b"], false),
        (206, &["cache-control: max-age=60", etag], false),
        (304, &["cache-control: max-age=60", etag], false),
        (203, &["cache-control: max-age=60"], true),
        (204, &["cache-control: max-age=60"], true),
        (301, &["cache-control: max-age=60"], true),
        (302, &["cache-control: max-age=60"], true),
        (404, &["cache-control: max-age=60"], true),
        (410, &["cache-control: max-age=60"], true),
        // Without directives, these are not reusable.
        (201, &[etag], false),
        (302, &[etag], false),
        (302, &[etag, "cache-control: public"], true),
        // An error belongs to the request that got it.
        (400, &["cache-control: max-age=60"], false),
        (401, &["cache-control: max-age=60"], false),
        (403, &["cache-control: max-age=60"], false),
        (429, &["cache-control: max-age=60"], false),
        (431, &["cache-control: max-age=60"], false),
        (500, &["cache-control: public, max-age=60"], false),
        (503, &["cache-control: max-age=60"], false),
        (200, &["cache-control: max-age=60, must-understand"], true),
        (299, &["cache-control: max-age=60"], true),
        (299, &["cache-control: max-age=60, must-understand"], false),
    ] {
        let freshness = terms_at(&just_now(), status, lines, false, &STRICT);
        assert_eq!(freshness.is_some(), is_stored, "{status} {lines:?}");
    }
}

/// RFC 9111 section 3.5, for requests with a credential of the app.
#[tokio::test(start_paused = true)]
async fn what_belongs_to_somebody_is_stored_only_where_that_is_said() {
    for (line, is_stored) in [
        ("max-age=60", false),
        ("max-age=60, public", true),
        ("max-age=60, must-revalidate", true),
        ("s-maxage=60", true),
        ("max-age=60, proxy-revalidate", false),
        ("max-age=60, public, private", false),
        ("max-age=60, public, no-store", false),
    ] {
        let line = format!("cache-control: {line}");
        let freshness = terms_at(&just_now(), 200, &[&line], true, &LENIENT);
        assert_eq!(freshness.is_some(), is_stored, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn freshness_lasts_as_long_as_was_said() {
    let date = |ago: u64| {
        let time = SystemTime::now() - Duration::from_secs(ago);
        crate::units::http_date(time)
    };
    let (now, hour, past) = (date(0), date(3600), date(7200));
    let year = date(365 * 86_400);
    for (lines, lifetime) in [
        (vec!["cache-control: max-age=60".to_owned()], 60),
        (vec!["cache-control: max-age=60, s-maxage=5".to_owned()], 5),
        (vec!["cache-control: max-age=5, s-maxage=60".to_owned()], 5),
        (vec!["cache-control: s-maxage=60".to_owned()], 60),
        (
            vec!["cache-control: max-age=60".to_owned(), format!("expires: {past}")],
            60,
        ),
        (
            vec!["cache-control: max-age=60".to_owned(), "age: 20".to_owned()],
            40,
        ),
        (
            vec!["cache-control: max-age=60".to_owned(), "age: x".to_owned()],
            0,
        ),
        (
            vec!["cache-control: max-age=60".to_owned(), "age: -1".to_owned()],
            0,
        ),
        (
            vec!["cache-control: max-age=60".to_owned(), "age: 0, 7200".to_owned()],
            60,
        ),
        (
            vec!["cache-control: max-age=60".to_owned(), "age: 20 ,x".to_owned()],
            40,
        ),
        (
            vec!["cache-control: max-age=60".to_owned(), "age: 7200, 0".to_owned()],
            0,
        ),
        (
            vec!["cache-control: max-age=60".to_owned(), "age: , 0".to_owned()],
            0,
        ),
        (
            vec![
                "cache-control: max-age=60".to_owned(),
                "age: 20".to_owned(),
                "age: 7200".to_owned(),
            ],
            40,
        ),
        (
            vec![
                "cache-control: max-age=60".to_owned(),
                "age: 7200".to_owned(),
                "age: 0".to_owned(),
            ],
            0,
        ),
        (
            vec![
                "cache-control: max-age=9".to_owned(),
                "age: 99999999999999999999".to_owned(),
            ],
            0,
        ),
        (
            vec!["cache-control: max-age=60".to_owned(), format!("date: {hour}")],
            0,
        ),
        (vec![format!("date: {hour}"), format!("expires: {now}")], 0),
        (
            vec![format!("date: {past}"), "cache-control: max-age=7260".to_owned()],
            60,
        ),
        (vec!["expires: 0".to_owned()], 0),
        (vec![format!("expires: {past}"), format!("expires: {past}")], 0),
        // A guess: a tenth of the time since, and at most ten minutes.
        (vec![format!("last-modified: {hour}")], 360),
        (vec![format!("last-modified: {year}")], 600),
        (vec!["last-modified: yesterday".to_owned()], 0),
    ] {
        let mut lines: Vec<_> = lines.iter().map(String::as_str).collect();
        // With a validator it is stored in any case.
        lines.push("etag: \"a\"");
        let freshness = freshness(&lines, &STRICT);
        let stands = |seconds| freshness.reuse(&RequestDirectives::default(), None, after(seconds));
        if lifetime > 0 {
            assert!(
                matches!(stands(lifetime - 1), Reuse::Fresh { .. }),
                "{lines:?} before"
            );
        }
        assert_eq!(stands(lifetime + 1), Reuse::Stale, "{lines:?} afterwards");
    }
}

#[tokio::test(start_paused = true)]
async fn the_way_of_an_answer_makes_it_old() {
    let asked = Instant::now();
    tokio::time::advance(Duration::from_secs(10)).await;
    let times = Times { asked, ..just_now() };
    let freshness = terms_at(
        &times,
        200,
        &["cache-control: max-age=15", "age: 2"],
        false,
        &STRICT,
    )
    .unwrap();
    assert_eq!(freshness.age(after(0)), Duration::from_secs(12));
    assert_eq!(
        freshness.reuse(&RequestDirectives::default(), None, after(2)),
        Reuse::Fresh { ttl: 1 }
    );
    assert_eq!(
        freshness.reuse(&RequestDirectives::default(), None, after(3)),
        Reuse::Stale
    );
}

#[tokio::test(start_paused = true)]
async fn an_app_may_want_more_or_less_than_fresh() {
    let minute = freshness(&["cache-control: max-age=60"], &STRICT);
    for (line, seconds, stands) in [
        ("x", 10, Reuse::Fresh { ttl: 50 }),
        ("no-cache", 10, Reuse::Unwanted),
        ("max-age=0", 0, Reuse::Unwanted),
        ("max-age=10", 10, Reuse::Fresh { ttl: 50 }),
        ("max-age=9", 10, Reuse::Unwanted),
        ("min-fresh=50", 10, Reuse::Fresh { ttl: 50 }),
        ("min-fresh=51", 10, Reuse::Unwanted),
        ("min-fresh=1", 70, Reuse::Unwanted),
        ("max-stale", 1000, Reuse::Fresh { ttl: -940 }),
        ("max-stale=10", 70, Reuse::Fresh { ttl: -10 }),
        ("max-stale=10", 71, Reuse::Stale),
        ("max-stale, max-age=65", 66, Reuse::Unwanted),
    ] {
        assert_eq!(
            minute.reuse(&directives(line), None, after(seconds)),
            stands,
            "{line} at {seconds}"
        );
    }
    for line in ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"] {
        let line = format!("cache-control: max-age=60, {line}");
        let freshness = freshness(&[&line, "etag: \"a\""], &LENIENT);
        assert_eq!(
            freshness.reuse(&directives("max-stale"), None, after(70)),
            Reuse::Stale,
            "{line}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_floor_tames_who_asks_too_often() {
    for line in [
        "max-age=0",
        "max-age=0, private, must-revalidate",
        "max-age=1",
        "x",
    ] {
        let line = format!("cache-control: {line}");
        let freshness = freshness(&[&line], &LENIENT);
        for demand in ["x", "no-cache", "max-age=0", "min-fresh=100"] {
            assert_eq!(
                freshness.reuse(&directives(demand), None, after(29)),
                Reuse::Fresh { ttl: 1 },
                "{line} {demand}"
            );
            let later = freshness.reuse(&directives(demand), None, after(31));
            assert!(!matches!(later, Reuse::Fresh { .. }), "{line} {demand}");
        }
    }
    // Not against an explicit directive of the upstream.
    let asks = freshness(&["cache-control: no-cache", "etag: \"a\""], &LENIENT);
    assert_eq!(
        asks.reuse(&RequestDirectives::default(), None, after(0)),
        Reuse::Stale
    );
    assert!(terms_at(&just_now(), 200, &["cache-control: no-store"], false, &LENIENT).is_none());
}

#[tokio::test(start_paused = true)]
async fn staleness_is_served_as_far_as_either_side_allows() {
    let none = RequestDirectives::default();
    for (line, allowances, most) in [
        ("max-age=10", &LENIENT, 20),
        ("max-age=10, stale-while-revalidate=40", &LENIENT, 40),
        ("max-age=10, stale-while-revalidate=5", &LENIENT, 20),
        ("max-age=10, stale-while-revalidate=5", &STRICT, 5),
        ("max-age=10, stale-while-revalidate=x", &STRICT, 0),
        (
            "max-age=10, stale-while-revalidate=40, must-revalidate",
            &STRICT,
            0,
        ),
    ] {
        let allowances = Allowances {
            min_fresh: Duration::ZERO,
            ..allowances.clone()
        };
        let line = format!("cache-control: {line}");
        let freshness = freshness(&[&line, "etag: \"a\""], &allowances);
        let stands = |seconds| freshness.reuse(&none, None, after(seconds));
        if most > 0 {
            let ttl = -i64::try_from(most).unwrap();
            assert_eq!(stands(10 + most), Reuse::Refresh { ttl }, "{line}");
        }
        assert_eq!(stands(11 + most), Reuse::Stale, "{line}");
        assert_eq!(
            freshness.reuse(&directives("no-cache"), None, after(11)),
            Reuse::Unwanted,
            "{line}"
        );
    }
    for (line, allowances, most) in [
        ("max-age=10", &LENIENT, Some(600)),
        ("max-age=10, stale-if-error=900", &LENIENT, Some(900)),
        ("max-age=10, stale-if-error=5", &STRICT, Some(5)),
        ("max-age=10", &STRICT, None),
        ("max-age=10, must-revalidate, stale-if-error=900", &LENIENT, None),
        ("max-age=10, proxy-revalidate", &LENIENT, None),
        ("s-maxage=10", &LENIENT, None),
        ("no-cache, stale-if-error=900", &LENIENT, None),
    ] {
        let line = format!("cache-control: {line}");
        let freshness = freshness(&[&line, "etag: \"a\""], allowances);
        assert_eq!(
            freshness.may_replace_error(&none, after(11)).is_some(),
            most.is_some(),
            "{line}"
        );
        if let Some(most) = most {
            let ttl = -i64::try_from(most).unwrap();
            assert_eq!(
                freshness.may_replace_error(&none, after(10 + most)),
                Some(ttl),
                "{line}"
            );
            assert_eq!(
                freshness.may_replace_error(&none, after(11 + most)),
                None,
                "{line}"
            );
            assert_eq!(
                freshness.may_replace_error(&directives("no-cache"), after(11)),
                None,
                "{line}"
            );
        }
    }
}

/// A response without a lifetime answers the requests that waited for it, and no later one.
#[tokio::test(start_paused = true)]
async fn who_waited_may_have_what_came() {
    let arrived = Instant::now();
    tokio::time::advance(Duration::from_secs(1)).await;
    let bare = freshness(&["etag: \"a\""], &STRICT);
    assert!(matches!(
        bare.reuse(&RequestDirectives::default(), Some(arrived), after(0)),
        Reuse::Fresh { .. }
    ));
    assert_eq!(
        bare.reuse(&RequestDirectives::default(), Some(after(1)), after(1)),
        Reuse::Stale
    );
    assert_eq!(
        bare.reuse(&RequestDirectives::default(), None, after(0)),
        Reuse::Stale
    );
    for line in ["no-cache", "max-age=0, must-revalidate"] {
        let line = format!("cache-control: {line}");
        let freshness = freshness(&[&line, "etag: \"a\""], &STRICT);
        assert_eq!(
            freshness.reuse(&RequestDirectives::default(), Some(arrived), after(0)),
            Reuse::Stale,
            "{line}"
        );
    }
}

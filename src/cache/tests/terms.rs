use std::time::{Duration, SystemTime};

use http::StatusCode;
use tokio::time::Instant;

use super::{STRICT, fields, just_now};
use crate::cache::directives::Demands;
use crate::cache::terms::{Allowances, Stands, Terms, Times};

fn terms_at(
    times: &Times,
    status: u16,
    lines: &[&str],
    is_shared: bool,
    allowances: &Allowances,
) -> Option<Terms> {
    let status = StatusCode::from_u16(status).unwrap();
    Terms::of(status, &fields(lines), is_shared, times, allowances)
}

fn terms(lines: &[&str], allowances: &Allowances) -> Terms {
    terms_at(&just_now(), 200, lines, false, allowances).expect("it can be stored")
}

fn demands(line: &str) -> Demands {
    Demands::of(&fields(&[&format!("cache-control: {line}")]))
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
        // There would be no use in it.
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
        // Without the upstream's word these are for once.
        (201, &[etag], false),
        (302, &[etag], false),
        (302, &[etag, "cache-control: public"], true),
        // Errors belong to who made them.
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
        let terms = terms_at(&just_now(), status, lines, false, &STRICT);
        assert_eq!(terms.is_some(), is_stored, "{status} {lines:?}");
    }
}

/// RFC 9111 section 3.5, for requests with a credential of the app's own.
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
        let terms = terms_at(&just_now(), 200, &[&line], true, &LENIENT);
        assert_eq!(terms.is_some(), is_stored, "{line}");
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
        // A guess: a tenth of the time since, and no more than ten minutes.
        (vec![format!("last-modified: {hour}")], 360),
        (vec![format!("last-modified: {year}")], 600),
        (vec!["last-modified: yesterday".to_owned()], 0),
    ] {
        let mut lines: Vec<_> = lines.iter().map(String::as_str).collect();
        // Whatever else: it is stored.
        lines.push("etag: \"a\"");
        let terms = terms(&lines, &STRICT);
        let stands = |seconds| terms.stands(&Demands::default(), None, after(seconds));
        if lifetime > 0 {
            assert!(
                matches!(stands(lifetime - 1), Stands::Fresh { .. }),
                "{lines:?} before"
            );
        }
        assert_eq!(stands(lifetime + 1), Stands::Stale, "{lines:?} afterwards");
    }
}

#[tokio::test(start_paused = true)]
async fn the_way_of_an_answer_makes_it_old() {
    let asked = Instant::now();
    tokio::time::advance(Duration::from_secs(10)).await;
    let times = Times { asked, ..just_now() };
    let terms = terms_at(
        &times,
        200,
        &["cache-control: max-age=15", "age: 2"],
        false,
        &STRICT,
    )
    .unwrap();
    assert_eq!(terms.age(after(0)), Duration::from_secs(12));
    assert_eq!(
        terms.stands(&Demands::default(), None, after(2)),
        Stands::Fresh { ttl: 1 }
    );
    assert_eq!(terms.stands(&Demands::default(), None, after(3)), Stands::Stale);
}

#[tokio::test(start_paused = true)]
async fn an_app_may_want_more_or_less_than_fresh() {
    let minute = terms(&["cache-control: max-age=60"], &STRICT);
    for (line, seconds, stands) in [
        ("x", 10, Stands::Fresh { ttl: 50 }),
        ("no-cache", 10, Stands::Unwanted),
        ("max-age=0", 0, Stands::Unwanted),
        ("max-age=10", 10, Stands::Fresh { ttl: 50 }),
        ("max-age=9", 10, Stands::Unwanted),
        ("min-fresh=50", 10, Stands::Fresh { ttl: 50 }),
        ("min-fresh=51", 10, Stands::Unwanted),
        ("min-fresh=1", 70, Stands::Unwanted),
        ("max-stale", 1000, Stands::Fresh { ttl: -940 }),
        ("max-stale=10", 70, Stands::Fresh { ttl: -10 }),
        ("max-stale=10", 71, Stands::Stale),
        ("max-stale, max-age=65", 66, Stands::Unwanted),
    ] {
        assert_eq!(
            minute.stands(&demands(line), None, after(seconds)),
            stands,
            "{line} at {seconds}"
        );
    }
    for line in ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"] {
        let line = format!("cache-control: max-age=60, {line}");
        let terms = terms(&[&line, "etag: \"a\""], &LENIENT);
        assert_eq!(
            terms.stands(&demands("max-stale"), None, after(70)),
            Stands::Stale,
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
        let terms = terms(&[&line], &LENIENT);
        for demand in ["x", "no-cache", "max-age=0", "min-fresh=100"] {
            assert_eq!(
                terms.stands(&demands(demand), None, after(29)),
                Stands::Fresh { ttl: 1 },
                "{line} {demand}"
            );
            let later = terms.stands(&demands(demand), None, after(31));
            assert!(!matches!(later, Stands::Fresh { .. }), "{line} {demand}");
        }
    }
    // Not against the upstream's clear word.
    let asks = terms(&["cache-control: no-cache", "etag: \"a\""], &LENIENT);
    assert_eq!(asks.stands(&Demands::default(), None, after(0)), Stands::Stale);
    assert!(terms_at(&just_now(), 200, &["cache-control: no-store"], false, &LENIENT).is_none());
}

#[tokio::test(start_paused = true)]
async fn staleness_is_served_as_far_as_either_side_allows() {
    let none = Demands::default();
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
        let terms = terms(&[&line, "etag: \"a\""], &allowances);
        let stands = |seconds| terms.stands(&none, None, after(seconds));
        if most > 0 {
            let ttl = -i64::try_from(most).unwrap();
            assert_eq!(stands(10 + most), Stands::Refresh { ttl }, "{line}");
        }
        assert_eq!(stands(11 + most), Stands::Stale, "{line}");
        assert_eq!(
            terms.stands(&demands("no-cache"), None, after(11)),
            Stands::Unwanted,
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
        let terms = terms(&[&line, "etag: \"a\""], allowances);
        assert_eq!(
            terms.stands_in(&none, after(11)).is_some(),
            most.is_some(),
            "{line}"
        );
        if let Some(most) = most {
            let ttl = -i64::try_from(most).unwrap();
            assert_eq!(terms.stands_in(&none, after(10 + most)), Some(ttl), "{line}");
            assert_eq!(terms.stands_in(&none, after(11 + most)), None, "{line}");
            assert_eq!(terms.stands_in(&demands("no-cache"), after(11)), None, "{line}");
        }
    }
}

/// An answer without a lifetime is right for whoever waited for just that answer, and for nobody later.
#[tokio::test(start_paused = true)]
async fn who_waited_may_have_what_came() {
    let arrived = Instant::now();
    tokio::time::advance(Duration::from_secs(1)).await;
    let bare = terms(&["etag: \"a\""], &STRICT);
    assert!(matches!(
        bare.stands(&Demands::default(), Some(arrived), after(0)),
        Stands::Fresh { .. }
    ));
    assert_eq!(
        bare.stands(&Demands::default(), Some(after(1)), after(1)),
        Stands::Stale
    );
    assert_eq!(bare.stands(&Demands::default(), None, after(0)), Stands::Stale);
    for line in ["no-cache", "max-age=0, must-revalidate"] {
        let line = format!("cache-control: {line}");
        let terms = terms(&[&line, "etag: \"a\""], &STRICT);
        assert_eq!(
            terms.stands(&Demands::default(), Some(arrived), after(0)),
            Stands::Stale,
            "{line}"
        );
    }
}

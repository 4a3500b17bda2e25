use std::time::Duration;

use super::fields;
use crate::cache::directives::{FOR_EVER, RequestDirectives, ResponseDirectives};

fn directives(lines: &[&str]) -> ResponseDirectives {
    let lines: Vec<_> = lines
        .iter()
        .map(|line| format!("cache-control: {line}"))
        .collect();
    ResponseDirectives::of(&fields(&lines.iter().map(String::as_str).collect::<Vec<_>>()))
}

#[test]
fn max_age_is_read_as_the_grammar_has_it() {
    for (line, seconds) in [
        ("max-age=60", Some(60)),
        ("MaX-AgE=60", Some(60)),
        (" ,, max-age=60 ,", Some(60)),
        ("max-age=\"60\"", Some(60)),
        ("max-age=0060", Some(60)),
        ("ext=\"a, max-age=5, b\", max-age=60", Some(60)),
        ("ext=\"a \\\" max-age=5\", max-age=60", Some(60)),
        ("x=y=z, max-age=60", Some(60)),
        ("max-age=60, max-age=5", Some(5)),
        // An unreadable value counts as zero.
        ("max-age", Some(0)),
        ("max-age=", Some(0)),
        ("max-age=-1", Some(0)),
        ("max-age=60.5", Some(0)),
        ("max-age=6e1", Some(0)),
        ("max-age='60'", Some(0)),
        ("max-age =60", Some(0)),
        ("max-age= 60", Some(0)),
        ("max-age=\"60", Some(0)),
        ("max-age=99999999999999999999999", Some(FOR_EVER.as_secs())),
        // No directive.
        ("", None),
        ("max-age2=60", None),
        ("ext=\"max-age=60\"", None),
        ("ext=\"never closed, max-age=60", None),
        ("a-directive-with-a-name-longer-than-any-that-we-know=60", None),
    ] {
        assert_eq!(
            directives(&[line]).max_age,
            seconds.map(Duration::from_secs),
            "{line}"
        );
    }
    assert_eq!(
        directives(&["max-age=60", "max-age=5"]).max_age,
        Some(Duration::from_secs(5))
    );
}

#[test]
fn flags_stand_with_and_without_values() {
    for line in [
        "no-cache",
        "no-cache=\"set-cookie, x\"",
        "NO-CACHE, x=\"y",
        "a=\"b\"c, no-cache",
    ] {
        assert!(directives(&[line]).no_cache, "{line}");
    }
    let all = directives(&[
        "No-Store,PRIVATE=\"x\"",
        "public, must-revalidate,proxy-revalidate,must-understand",
    ]);
    assert!(all.no_store && all.private && all.public && all.must_revalidate);
    assert!(all.proxy_revalidate && all.must_understand && !all.no_cache);
    assert_eq!(
        directives(&["x=\"no-store\", y-no-store, no-storex"]),
        ResponseDirectives::default()
    );
}

#[test]
fn an_app_says_what_it_demands() {
    let seconds = Duration::from_secs;
    for (lines, directives) in [
        (&[][..], RequestDirectives::default()),
        (
            &["cache-control: max-age=5, min-fresh=3, max-stale=9"],
            RequestDirectives {
                max_age: Some(seconds(5)),
                min_fresh: Some(seconds(3)),
                max_stale: Some(seconds(9)),
                ..RequestDirectives::default()
            },
        ),
        (
            &["cache-control: max-stale"],
            RequestDirectives {
                max_stale: Some(FOR_EVER),
                ..RequestDirectives::default()
            },
        ),
        (
            &["cache-control: max-stale=x, min-fresh=x"],
            RequestDirectives {
                max_stale: Some(seconds(0)),
                min_fresh: Some(FOR_EVER),
                ..RequestDirectives::default()
            },
        ),
        (
            &["cache-control: no-cache, no-store, only-if-cached"],
            RequestDirectives {
                no_cache: true,
                no_store: true,
                only_if_cached: true,
                ..RequestDirectives::default()
            },
        ),
        (
            &["pragma: No-Cache"],
            RequestDirectives {
                no_cache: true,
                ..RequestDirectives::default()
            },
        ),
        // Pragma counts only without Cache-Control.
        (
            &["pragma: no-cache", "cache-control: x"],
            RequestDirectives::default(),
        ),
    ] {
        assert_eq!(RequestDirectives::of(&fields(lines)), directives, "{lines:?}");
    }
}

/// Any bytes from the wire are read to the end.
#[test]
fn no_line_stops_the_reader() {
    use rand::{RngExt, SeedableRng};
    let mut random = rand::rngs::StdRng::seed_from_u64(9111);
    let alphabet = b"ab=\",\\ \t-0179max-ageno-store\x80\xff";
    for _ in 0..20_000 {
        let length = random.random_range(0..40);
        let line: Vec<u8> = (0..length)
            .map(|_| alphabet[random.random_range(0..alphabet.len())])
            .collect();
        let Ok(value) = http::HeaderValue::from_bytes(&line) else {
            continue;
        };
        let mut map = crate::message::Fields::new();
        map.insert("cache-control", value);
        let _ = (ResponseDirectives::of(&map), RequestDirectives::of(&map));
    }
}

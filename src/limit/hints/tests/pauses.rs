//! The pauses that refusals and other errors ask for.

use super::*;

#[test]
fn retry_after_is_read_in_all_its_forms() {
    assert_says(&[
        // JavaScript's Date as a text, in any zone; ISO 8601 in any zone.
        (
            429,
            "Retry-After: Wed Jul 15 2026 10:38:17 GMT+0000 (Coordinated Universal Time)",
            "pause 2m",
        ),
        (
            429,
            "Retry-After: Wed Jul 15 2026 06:08:17 GMT-0430 (GMT-04:30)",
            "pause 2m",
        ),
        (429, "Retry-After: 2026-07-15T12:38:17+02:00", "pause 2m"),
        (429, "Retry-After: 2026-07-15T05:38:17.5-0500", "pause 2m 500ms"),
        // In every name, and in one line or two.
        (429, "Retry-After: 4\nRetry-After: 4", "pause 4s"),
        (429, "Retry-After: 4, 4", "pause 4s"),
        (429, "X-Retry-After: 6", "pause 6s"),
        (429, "X-Rate-Limit-Retry-After-Seconds: 59", "pause 59s"),
        (429, "X-RateLimit-Retry-After-Seconds: 59", "pause 59s"),
        (429, "X-RateLimit-After: 3", "pause 3s"),
        (429, "Retry-After-short: 3", "pause 3s of short"),
        (429, "Retry-After: 9\nRetry-After-short: 9", "pause 9s of short"),
        // The more precise one counts, but a zero never goes before another value.
        (429, "X-Retry-In: 105.7ms\nRetry-After: 0", "pause 105ms 700us"),
        (429, "X-Retry-In: 1m2.5s\nRetry-After: 63", "pause 1m 2s 500ms"),
        (
            429,
            "X-Retry-In: 850.5\u{b5}s\nRetry-After: 1",
            "pause 850us 500ns",
        ),
        (429, "Retry-After: 0\nRetry-After-short: 3", "pause 3s of short"),
        (
            429,
            "Retry-After: 0\nX-RateLimit-Reset: 30\nX-RateLimit-Remaining: 0",
            "pause soon; quota: 0 of ? for 30s",
        ),
        // A reset that is past or now, to the second.
        (429, "X-RateLimit-Reset: 0", "pause soon; quota: ? of ? for 0s"),
        (
            429,
            "X-RateLimit-Remaining: 0\nX-RateLimit-Reset: 1784111770",
            "pause soon; quota: 0 of ? for 0s",
        ),
        (
            429,
            "X-RateLimit-Limit-a: 2\nX-RateLimit-Remaining-a: 0\nX-RateLimit-Reset-a: 0\n\
             X-RateLimit-Limit-b: 9\nX-RateLimit-Remaining-b: 0\nX-RateLimit-Reset-b: 7",
            "pause 7s of b; a: 0 of 2 for 0s; b: 0 of 9 for 7s",
        ),
        // RFC 9110, 5.6.7: the same moment in the three forms of a date.
        (429, "Retry-After: Wed, 15 Jul 2026 10:38:17 GMT", "pause 2m"),
        (429, "Retry-After: Wednesday, 15-Jul-26 10:38:17 GMT", "pause 2m"),
        (429, "Retry-After: Wed Jul 15 10:38:17 2026", "pause 2m"),
        // getsentry/sentry#7919, urllib3/urllib3#2861, Shopify's 2.0.
        (429, "Retry-After: 0.503", "pause 503ms"),
        (429, "Retry-After: 2.0", "pause 2s"),
        // Azure/azure-sdk-for-python#33510: the more precise one counts.
        (429, "Retry-After: 1\nRetry-After-Ms: 130", "pause 130ms"),
        (429, "x-ms-retry-after-ms: 59.96", "pause 59ms 960us"),
        (
            429,
            "Retry-After: 7\nRetry-After-Ms: -1",
            "pause 7s; ignored retry-after-ms: negative",
        ),
        // developers-classic.mailerlite.com/docs/api-rate-limits.
        (429, "X-RateLimit-Retry-After: 59", "pause 59s"),
        (429, "Retry-After: 5\nRetry-After: 10", "pause 10s"),
        (
            429,
            "Retry-After: 150933900",
            "pause 1h; ignored retry-after: too long a time, cut",
        ),
    ]);
    // A moment is compared with the answer's clock; ours may be years off.
    let answer = "Date: Wed, 15 Jul 2026 10:36:17 GMT\nRetry-After: Wed, 15 Jul 2026 10:38:17 GMT";
    assert_eq!(says_at(0, 429, answer), "pause 2m");
    assert_eq!(says_at(4_000_000_000, 429, answer), "pause 2m");
    let undated = "Retry-After: Wed, 15 Jul 2026 10:38:17 GMT";
    assert_eq!(says_at(MADE + 30, 429, undated), "pause 1m 30s");
    // `Date` is rounded down to seconds; a clock that is right supplies the rest, another one does not.
    for (millis, expected) in [
        (0, "pause 2m"),
        (300, "pause 1m 59s 700ms"),
        (1_200, "pause 1m 59s"),
        (2_000, "pause 2m"),
        (90_000, "pause 2m"),
    ] {
        let now = UNIX_EPOCH + Duration::from_secs(MADE) + Duration::from_millis(millis);
        let said = Hints::of(StatusCode::TOO_MANY_REQUESTS, &parse(answer), || now).unwrap();
        assert_eq!(words(&said), expected, "{millis}");
    }
    let misdated = format!("Date: yesterday\n{undated}");
    assert_eq!(says_at(MADE + 30, 429, &misdated), "pause 1m 30s");
}

/// For explanations.
#[test]
fn the_field_that_told_a_pause_is_named_as_people_write_it() {
    for (fields, expected) in [
        ("X-RateLimit-After: 3\nRetry-After: 3", "Retry-After"),
        ("retry-after-ms: 3", "retry-after-ms"),
        ("X-MS-Retry-After-MS: 3", "x-ms-retry-after-ms"),
        (
            "x-rate-limit-retry-after-seconds: 3",
            "X-Rate-Limit-Retry-After-Seconds",
        ),
        ("Retry-After: 0\nRetry-After-short: 3", "Retry-After-short"),
        ("X-Retry-In: 3s", "X-Retry-In"),
        ("RateLimit: \"a\";r=0;t=50", "RateLimit"),
        (
            "X-RateLimit-Remaining: 0\nX-RateLimit-Reset: 3",
            "X-RateLimit-Reset",
        ),
        (
            "X-RateLimit-Remaining: 0\nX-RateLimit-Reset-After: 3",
            "X-RateLimit-Reset-After",
        ),
        (
            "X-RateLimit-Limit-short: 3\nX-RateLimit-Remaining-short: 0\nX-RateLimit-Reset-short: 3",
            "X-RateLimit-Reset-short",
        ),
        ("X-GitHub-Request-Id: 1", "X-GitHub-Request-Id"),
    ] {
        let said = hints(MADE, 429, &parse(fields)).unwrap();
        assert_eq!(&*said.pause.unwrap().field, expected, "{fields}");
    }
}

/// Any error may ask for a pause; repeats and token endpoints use it.
#[test]
fn a_pause_is_asked_for_on_any_error() {
    for (status, fields, millis) in [
        (429, "Retry-After: 7", Some(7_000)),
        (429, "X-RateLimit-Remaining: 0\nX-RateLimit-Reset: 7", Some(7_000)),
        (429, "", None),
        (429, "Retry-After: 0", Some(0)),
        (500, "Retry-After: 7", Some(7_000)),
        (400, "X-Retry-In: 105.7ms\nRetry-After: 0", Some(105)),
        (500, "X-RateLimit-Remaining: 0\nX-RateLimit-Reset: 7", None),
        (500, "Retry-After: soon", None),
        (200, "Retry-After: 7", None),
        (202, "Retry-After: 7", None),
        (301, "Retry-After: 7", None),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(MADE);
        let asked = asked_pause(status, &parse(fields), now);
        assert_eq!(asked.map(|asked| asked.as_millis()), millis, "{status} {fields}");
    }
    let past = "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT";
    assert_eq!(says(503, past), "refused; ignored retry-after: in the past");
}

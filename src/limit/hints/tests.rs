use std::fmt::Write;

use std::time::UNIX_EPOCH;

use http::HeaderValue;

use super::fields::LimitField;
use super::*;

mod limiters;
mod pauses;
mod random;
mod vendors;

/// When the answers of the tests are made: Wed, 15 Jul 2026 10:36:17 GMT.
const MADE: u64 = 1_784_111_777;

/// Returns in words what an answer says. Fields are lines; `Date` is added if it is missing.
fn says(status: u16, fields: &str) -> String {
    let fields = if fields.to_ascii_lowercase().contains("date:") {
        fields.to_owned()
    } else {
        format!("Date: Wed, 15 Jul 2026 10:36:17 GMT\n{fields}")
    };
    says_at(MADE, status, &fields)
}

fn says_at(now: u64, status: u16, fields: &str) -> String {
    match hints(now, status, &parse(fields)) {
        None => "nothing".to_owned(),
        Some(hints) => words(&hints),
    }
}

fn hints(now: u64, status: u16, headers: &Fields) -> Option<Box<Hints>> {
    let now = UNIX_EPOCH + Duration::from_secs(now);
    Hints::of(StatusCode::from_u16(status).unwrap(), headers, || now)
}

fn parse(fields: &str) -> Fields {
    let mut headers = Fields::new();
    for line in fields.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap();
        let name = http::HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value.trim().as_bytes()).unwrap());
    }
    headers
}

/// `pause 5s of core; core: 0 of 60 for 30s per 1h; ignored retry-after: negative`.
fn words(hints: &Hints) -> String {
    let time = humantime::format_duration;
    let mut parts = Vec::new();
    match (hints.is_refusal, &hints.pause) {
        (true, Some(pause)) => {
            let length = match pause.length {
                Duration::ZERO => "soon".to_owned(),
                length => time(length).to_string(),
            };
            let name = if pause.name.is_empty() { "" } else { " of " };
            parts.push(format!("pause {length}{name}{}", pause.name));
        }
        (true, None) => parts.push("refused".to_owned()),
        (false, None) => {}
        (false, Some(_)) => panic!("a pause without a refusal: {hints:?}"),
    }
    for quota in &hints.quotas {
        let mut part = format!(
            "{}:",
            if quota.name.is_empty() {
                "quota"
            } else {
                &quota.name
            }
        );
        let number = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        write!(part, " {} of {}", number(quota.remaining), number(quota.limit)).unwrap();
        if let Some(reset) = quota.reset {
            write!(part, " for {}", time(reset)).unwrap();
        }
        if let Some(window) = quota.window {
            write!(part, " per {}", time(window)).unwrap();
        }
        parts.push(part);
    }
    if let Some(bad_field) = hints.bad_field {
        parts.push(format!("ignored {}: {}", bad_field.field, bad_field.why));
    }
    parts.join("; ")
}

#[track_caller]
fn assert_says(table: &[(u16, &str, &str)]) {
    for (status, fields, expected) in table {
        assert_eq!(says(*status, fields), *expected, "{status} {fields}");
    }
}

/// RFC 6585, 4; RFC 9110, 10.2.3.
#[test]
fn a_refusal_is_told_from_other_failures() {
    assert_says(&[
        (429, "", "refused"),
        (429, "Retry-After: 120", "pause 2m"),
        (503, "Retry-After: 120", "pause 2m"),
        (503, "", "nothing"),
        (403, "", "nothing"),
        (403, "Retry-After: 120", "pause 2m"),
        (403, "X-RateLimit-Remaining: 0", "refused; quota: 0 of ?"),
        (403, "X-RateLimit-Remaining: 1", "quota: 1 of ?"),
        (200, "Content-Type: text/plain", "nothing"),
        // A limit of one has nothing left on each answer.
        (
            403,
            "X-RateLimit-Limit: 1\nX-RateLimit-Remaining: 0",
            "quota: 0 of 1",
        ),
        (
            503,
            "X-RateLimit-Limit: 9\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: 4",
            "pause 4s; quota: 0 of 9 for 4s",
        ),
        (
            503,
            "X-RateLimit-Remaining: 3\nX-RateLimit-Reset: 4",
            "quota: 3 of ? for 4s",
        ),
        (500, "Retry-After: 120", "nothing"),
        // Envoy may answer anything; AWS answers 400.
        (503, "X-Envoy-RateLimited: true", "refused"),
        (400, "X-Envoy-RateLimited: true", "refused"),
        (200, "X-Envoy-RateLimited: true", "nothing"),
        (400, "x-amzn-ErrorType: ThrottlingException", "refused"),
        (
            400,
            "x-amzn-ErrorType: ThrottlingException:http://internal.amazon.com/coral/com.amazon.coral.availability/",
            "refused",
        ),
        (
            400,
            "x-amzn-ErrorType: aws.protocoltests#TooManyRequestsException",
            "refused",
        ),
        (400, "x-amzn-ErrorType: ValidationException", "nothing"),
        (400, "x-amzn-ErrorType: LimitExceededException", "nothing"),
        // Polling and redirects: about the resource, not about us.
        (202, "Retry-After: 120", "nothing"),
        (202, "Retry-After: NaN", "nothing"),
        (301, "Retry-After: 86400", "nothing"),
        (301, "Retry-After: 120", "nothing"),
        (200, "Retry-After: 0", "nothing"),
    ]);
}

#[test]
fn nonsense_is_ignored_or_cut_and_told() {
    for (value, expected) in [
        ("31536000", "pause 1h; ignored retry-after: too long a time, cut"),
        (
            "99999999999999999999999999",
            "pause 1h; ignored retry-after: too long a time, cut",
        ),
        (
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "pause 1h; ignored retry-after: too long a time, cut",
        ),
        (
            "Wed, 15 Jul 2026 10:27:00 GMT",
            "refused; ignored retry-after: in the past",
        ),
        ("Wed, 15 Jul 2026 10:35:40 GMT", "pause soon"),
        ("0", "pause soon"),
        ("-5", "refused; ignored retry-after: negative"),
        ("NaN", "refused; ignored retry-after: not a number"),
        ("inf", "refused; ignored retry-after: not a number"),
        ("1e3", "refused; ignored retry-after: not a number"),
        ("0x10", "refused; ignored retry-after: not a number"),
        ("5.", "refused; ignored retry-after: not a number"),
        (".5", "refused; ignored retry-after: not a number"),
        ("5, 10", "pause 10s"),
        ("5, soon", "refused; ignored retry-after: not a number"),
        ("soon", "refused; ignored retry-after: not a number"),
        ("", "refused; ignored retry-after: empty"),
        ("\u{fc}", "refused; ignored retry-after: not a number"),
    ] {
        assert_eq!(says(429, &format!("Retry-After: {value}")), expected, "{value}");
    }
    let mut headers = parse("Retry-After: x");
    let latin = HeaderValue::from_bytes(b"\xfc").unwrap();
    headers.insert("retry-after", latin);
    assert_eq!(
        words(&hints(MADE, 429, &headers).unwrap()),
        "refused; ignored retry-after: not text"
    );
    let long = "1".repeat(2_000);
    assert_eq!(
        says(429, &format!("Retry-After: {long}")),
        "refused; ignored retry-after: longer than 1024 bytes"
    );
    assert_says(&[
        // A quota of a month is asked again after a day.
        (
            200,
            "X-RateLimit-Remaining: 7\nX-RateLimit-Reset: 2592000",
            "quota: 7 of ? for 1day; ignored x-ratelimit-reset: too long a time, cut",
        ),
        (
            429,
            "X-RateLimit-Remaining: 0\nX-RateLimit-Reset: 86400",
            "pause 1h; quota: 0 of ? for 1day",
        ),
        (
            200,
            "X-RateLimit-Remaining: 7\nX-RateLimit-Reset: 150933900",
            "quota: 7 of ? for 1day; ignored x-ratelimit-reset: too long a time, cut",
        ),
        // learn.microsoft.com/answers/questions/5625878.
        (
            200,
            "X-RateLimit-Limit: -1\nX-RateLimit-Remaining: -1",
            "ignored x-ratelimit-limit: negative",
        ),
        (
            403,
            "X-RateLimit-Limit: -1\nX-RateLimit-Remaining: -1",
            "ignored x-ratelimit-limit: negative",
        ),
        (429, "X-RateLimit-Remaining: -1", "refused; quota: 0 of ?"),
        (
            200,
            "X-RateLimit-Limit: 9\nX-RateLimit-Remaining: -1",
            "quota: 0 of 9",
        ),
        (200, "X-RateLimit-Limit: 0\nX-RateLimit-Remaining: 0", "nothing"),
        (
            200,
            "X-RateLimit-Limit: unlimited",
            "ignored x-ratelimit-limit: not a number",
        ),
        (
            200,
            "X-RateLimit-Remaining: 70\nX-RateLimit-Limit: 60",
            "quota: 60 of 60",
        ),
        (
            200,
            "X-RateLimit-Limit: 60;w=0\nX-RateLimit-Remaining: 1",
            "quota: 1 of 60",
        ),
    ]);
}

#[test]
fn what_is_said_twice_is_read_strictly() {
    assert_says(&[
        (
            200,
            "X-RateLimit-Remaining: 30\nX-RateLimit-Remaining: 20\nX-RateLimit-Reset: 5\nX-RateLimit-Reset: 9",
            "quota: 20 of ? for 9s; ignored x-ratelimit-remaining: said twice, differently",
        ),
        (
            200,
            "X-RateLimit-Remaining: 20\nX-RateLimit-Remaining: 20",
            "quota: 20 of ?",
        ),
        (200, "X-RateLimit-Remaining: 30, 20", "quota: 20 of ?"),
        (
            200,
            "X-RateLimit-Remaining: 30, none",
            "ignored x-ratelimit-remaining: not a number",
        ),
        // Two families may describe two windows: the first that reports what remains is used alone.
        (
            200,
            "X-RateLimit-Limit: 5000\nX-RateLimit-Remaining: 4000\nX-RateLimit-Reset: 3000\n\
             RateLimit-Limit: 10\nRateLimit-Remaining: 3\nRateLimit-Reset: 1",
            "quota: 3 of 10 for 1s",
        ),
        (
            200,
            "RateLimit-Limit: 10\nX-RateLimit-Limit: 5000\nX-RateLimit-Remaining: 4000",
            "quota: 4000 of 5000",
        ),
    ]);
}

/// The draft, section on caching: ignored where the age is positive. Retry-After is not.
#[test]
fn quotas_out_of_a_cache_are_ignored() {
    let fields = "X-RateLimit-Remaining: 3\nRateLimit: \"a\";r=3;t=9";
    assert_eq!(says(200, &format!("Age: 30\n{fields}")), "nothing");
    assert_eq!(
        says(200, &format!("Age: 0\n{fields}")),
        "quota: 3 of ?; a: 3 of ? for 9s"
    );
    assert_eq!(
        says(200, &format!("Age: old\n{fields}")),
        "quota: 3 of ?; a: 3 of ? for 9s"
    );
    assert_eq!(
        says(503, &format!("Age: 30\nRetry-After: 9\n{fields}")),
        "pause 9s"
    );
}

/// draft-ietf-httpapi-ratelimit-headers-10; -08 has tokens and `l`, -07 the dictionary, -06 policies without a
/// name.
#[test]
fn the_structured_fields_are_read_in_every_form_that_is_sent() {
    assert_says(&[
        (
            200,
            "RateLimit-Policy: \"default\";q=100;w=10\nRateLimit: \"default\";r=50;t=5",
            "default: 50 of 100 for 5s per 10s",
        ),
        (
            200,
            "RateLimit-Policy: \"permin\";q=50;w=60, \"perhr\";q=1000;w=3600\n\
             RateLimit-Policy: \"perday\";q=5000;w=86400\n\
             RateLimit: \"permin\";r=20;t=23;pk=:ZQ==:, \"perhr\";r=399;t=2402",
            "permin: 20 of 50 for 23s per 1m; perhr: 399 of 1000 for 40m 2s per 1h; perday: ? of 5000 per 1day",
        ),
        (
            200,
            "RateLimit-Policy: default;l=100;w=10\nRateLimit: default;r=50;t=5",
            "default: 50 of 100 for 5s per 10s",
        ),
        (
            200,
            "RateLimit-Policy: 100;w=60\nRateLimit: limit=100, remaining=50, reset=5",
            "quota: 50 of 100 for 5s per 1m",
        ),
        (
            200,
            "RateLimit-Policy: 10;w=1, 1000;w=3600;comment=\"fixed\"\n\
             RateLimit-Limit: 1000\nRateLimit-Remaining: 9\nRateLimit-Reset: 50",
            "quota: 9 of 1000 for 50s per 1h",
        ),
        (
            429,
            "RateLimit: \"a\";r=0;t=50",
            "pause 50s of a; a: 0 of ? for 50s",
        ),
        (200, "RateLimit: \"a\";r=0;t=50", "a: 0 of ? for 50s"),
        // Retry-After takes precedence, longer or shorter.
        (
            429,
            "Retry-After: 5\nRateLimit: \"a\";r=0;t=50",
            "pause 5s of a; a: 0 of ? for 50s",
        ),
        (
            200,
            "RateLimit: \"a\";r=2;t=50;acme-burst=?1",
            "a: 2 of ? for 50s",
        ),
    ]);
}

#[test]
fn a_malformed_structured_field_is_ignored_whole() {
    for value in [
        "\"a\";r=1, \"b\";r=-1",
        "\"a\";r=1,",
        "\"a\";r=\"1\"",
        "\"a\";r=1.5",
        "\"a\";r",
        "\"a\"",
        "(\"a\");r=1",
        "7;r=1",
        "\"a;r=1",
        "remaining=x",
        "limit=5",
        "\"a\";r=99999999999999999999",
    ] {
        let said = says(200, &format!("RateLimit: {value}"));
        assert!(said.starts_with("ignored ratelimit: "), "{value} says {said}");
    }
    assert_says(&[
        (
            200,
            "RateLimit-Policy: \"a\";w=60\nRateLimit: \"a\";r=1;t=5",
            "a: 1 of ? for 5s; ignored ratelimit-policy: malformed",
        ),
        // Counted in other units: section on quota units.
        (
            200,
            "RateLimit-Policy: \"a\";q=9999;qu=\"content-bytes\";w=60, \"b\";q=5;qu=\"requests\"\n\
             RateLimit: \"a\";r=1;t=5, \"b\";r=2",
            "b: 2 of 5",
        ),
        (
            200,
            "RateLimit-Policy: \"a\";q=9;qu=\"concurrent-requests\"",
            "nothing",
        ),
        (
            200,
            "RateLimit: \"a\";r=9;t=50, \"a\";r=2;t=7",
            "a: 2 of ? for 7s; ignored ratelimit: a name twice",
        ),
        (
            200,
            "RateLimit: \"a\";r=9;t=5;pk=:AA==:, \"a\";r=2;t=7;pk=:AQ==:",
            "a: 2 of ? for 7s; ignored ratelimit: a name twice",
        ),
        (
            200,
            "RateLimit: \"a\";r=9;t=999999999999999",
            "a: 9 of ? for 1day; ignored ratelimit: too long a time, cut",
        ),
    ]);
}

#[test]
fn a_long_list_is_not_kept_whole() {
    let items = |from: u32, to: u32| {
        (from..to)
            .map(|i| format!("q{i};r={i}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let said = hints(MADE, 200, &parse(&format!("RateLimit: {}", items(0, 60)))).unwrap();
    assert_eq!(said.quotas.len(), MOST_QUOTAS);
    let why = "more than 16 quotas";
    assert_eq!(
        said.bad_field,
        Some(BadField {
            field: "ratelimit",
            why
        })
    );
    let lines = (0..40)
        .map(|i| format!("RateLimit: {}\n", items(i, i + 1)))
        .collect::<String>();
    assert_eq!(
        hints(MADE, 200, &parse(&lines)).unwrap().quotas.len(),
        MOST_QUOTAS
    );
    let long = "n".repeat(65);
    assert_says(&[
        (
            200,
            &format!("RateLimit: {long};r=1"),
            "ignored ratelimit: a name of more than 64 bytes",
        ),
        (
            200,
            &format!("X-RateLimit-Resource: {long}\nX-RateLimit-Remaining: 1"),
            "quota: 1 of ?; ignored x-ratelimit-resource: a name of more than 64 bytes",
        ),
    ]);
}

#[test]
fn the_list_of_names_is_in_order_and_every_name_passes_the_first_look() {
    assert!(fields::FIELDS.is_sorted_by_key(|field| field.stem));
    for field in fields::FIELDS {
        assert!(fields::may_speak(field.stem), "{}", field.stem);
        assert_eq!(
            LimitField::named(field.stem).map(|own| own.stem),
            Some(field.stem)
        );
    }
    for name in [
        "server",
        "etag",
        "x-request-id",
        "x-served-by",
        "accept-ranges",
        "referrer-policy",
        "age",
        "",
    ] {
        assert!(!fields::may_speak(name), "{name}");
    }
    for name in [
        "anthropic-ratelimit-input-tokens-limit",
        "ratelimit-resettime",
        "x-ratelimit-limit-audio-seconds",
        "x-ratelimit-limit-concurrent",
        "x-ratelimit-limit-inputtokens",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-project-tokens",
        "x-ratelimit-reset-at",
        "x-ratelimit-used",
    ] {
        assert!(LimitField::named(name).is_none(), "{name}");
    }
}

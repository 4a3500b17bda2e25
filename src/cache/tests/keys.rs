use http::header::{self, HeaderName};

use super::{fields, sender};
use crate::cache::Sender;
use crate::cache::key::{CacheKey, SelectingFields};
use crate::host::Target;
use crate::message::Fields;

fn key(url: &str, lines: &[&str], fingerprint: u64) -> CacheKey {
    let uri: http::Uri = url.parse().unwrap();
    let target = Target::of_absolute(&uri).unwrap();
    let path = uri.path_and_query().unwrap().as_str();
    CacheKey::new(&target, path, &fields(lines), attached, sender(fingerprint))
}

/// As in a destination with a bearer token.
fn attached(name: &HeaderName) -> bool {
    *name == header::AUTHORIZATION
}

const URL: &str = "https://api.test/a?b=c";

#[test]
fn each_part_of_where_and_who_makes_another_key() {
    let same = key(URL, &[], 1);
    assert_eq!(same, key("https://API.test:443/a?b=c", &[], 1));
    for (what, other) in [
        ("scheme", key("http://api.test:443/a?b=c", &[], 1)),
        ("host", key("https://api2.test/a?b=c", &[], 1)),
        ("port", key("https://api.test:8443/a?b=c", &[], 1)),
        ("path", key("https://api.test/A?b=c", &[], 1)),
        ("query", key("https://api.test/a?b=d", &[], 1)),
        ("no query", key("https://api.test/a", &[], 1)),
        ("secret", key(URL, &[], 2)),
        ("cookie", key(URL, &["cookie: a=b"], 1)),
        ("own key", key(URL, &["x-api-key: 1"], 1)),
    ] {
        assert_ne!(same, other, "{what}");
    }
}

/// HEAD may have another credential than GET.
#[test]
fn each_credential_of_a_destination_makes_another_key() {
    let target = Target::of_absolute(&URL.parse().unwrap()).unwrap();
    let as_rule = |rule| {
        let sender = Sender { fingerprint: 1, rule };
        CacheKey::new(&target, "/", &fields(&[]), attached, sender)
    };
    assert_eq!(as_rule(Some(1)), as_rule(Some(1)));
    assert_ne!(as_rule(Some(1)), as_rule(Some(2)));
    assert_ne!(as_rule(Some(1)), as_rule(None));
}

/// Nobody can list the fields by which services recognize users, so every field counts that is not known to be
/// harmless.
#[test]
fn every_field_that_is_not_known_is_part_of_the_key() {
    for name in [
        "x-user-id",
        "x-tenant",
        "on-behalf-of",
        "from",
        "name-that-nobody-has-thought-of",
        "acting-as",
        "x-amzn-oidc-identity",
        "baggage",
        "x-datadog-tags",
        "cookie",
        "x-api-key",
        "x-vault-token",
        "x-session-id",
        "x-forwarded-for",
        "x-forwarded-host",
        "forwarded",
        "x-real-ip",
        "x-original-url",
        "x-http-method-override",
        "prefer",
        "origin",
        "referer",
        "date",
        "accept-charset",
        "accept-datetime",
        "content-type",
        // Only the names themselves are known.
        "x-user-agent",
        "accept-encoding-x",
        "x-b3-userid",
        "x-request-id-2",
    ] {
        let (one, other) = (format!("{name}: 1"), format!("{name}: 2"));
        assert_ne!(key(URL, &[], 1), key(URL, &[&one], 1), "{name}");
        assert_ne!(key(URL, &[&one], 1), key(URL, &[&other], 1), "{name}");
        assert_ne!(key(URL, &[&one], 1), key(URL, &[&one, &other], 1), "{name}");
        assert_ne!(
            key(URL, &[&one, &other], 1),
            key(URL, &[&other, &one], 1),
            "{name}"
        );
        assert_eq!(key(URL, &[&one], 1), key(URL, &[&one], 1), "{name}");
    }
    for line in [
        "accept: a/b",
        "accept-encoding: gzip",
        "accept-language: de",
        "cache-control: no-cache",
        "content-length: 0",
        "host: x",
        "if-modified-since: Sat, 01 Jan 2000 00:00:00 GMT",
        "if-none-match: \"a\"",
        "pragma: no-cache",
        "te: trailers",
        "user-agent: x",
        "traceparent: 00-1",
        "tracestate: a=1",
        "b3: 1",
        "x-b3-traceid: 1",
        "x-request-id: 1",
        "x-correlation-id: 1",
        "x-vcap-request-id: 1",
        "via: 1.1 x",
        "cdn-loop: x",
        // Replaced by the attached credential.
        "authorization: Bearer app",
    ] {
        assert_eq!(key(URL, &[], 1), key(URL, &[line], 1), "{line}");
    }
    // It matters where one value ends and the next begins.
    assert_ne!(
        key(URL, &["x-key: ab", "x-token: c"], 1),
        key(URL, &["x-key: a", "x-token: bc"], 1)
    );
}

/// A service that answers `private` may have used any field of the request.
#[test]
fn a_private_answer_was_chosen_by_every_field() {
    let stored = ["accept: a/b", "user-agent: x", "x-request-id: 1"];
    let asked = |lines: &[&str]| {
        let choice = SelectingFields::of(&fields(&[]), &fields(&stored), attached, true).unwrap();
        choice.fits(&fields(lines), attached)
    };
    assert!(asked(&stored));
    // Fields for caches, and fields that are replaced, do not name a user.
    assert!(asked(&[
        "accept: a/b",
        "user-agent: x",
        "x-request-id: 1",
        "cache-control: max-stale",
        "if-none-match: \"a\"",
        "authorization: Bearer app",
    ]));
    for lines in [
        &[][..],
        &stored[..2],
        &["accept: a/b", "user-agent: x", "x-request-id: 2"],
        &["accept: a/b", "user-agent: y", "x-request-id: 1"],
        &[
            "accept: a/b",
            "user-agent: x",
            "x-request-id: 1",
            "traceparent: 00",
        ],
        &[
            "accept: a/b",
            "user-agent: x",
            "x-request-id: 1",
            "accept-language: de",
        ],
    ] {
        assert!(!asked(lines), "{lines:?}");
    }
    let of_nothing = SelectingFields::of(&fields(&[]), &fields(&[]), attached, true).unwrap();
    assert!(of_nothing.fits(&fields(&[]), attached));
    assert!(!of_nothing.fits(&fields(&["user-agent: x"]), attached));
}

#[test]
fn a_choice_fits_what_would_be_answered_alike() {
    let fits = |vary: &[&str], stored: &[&str], asked: &[&str]| {
        SelectingFields::of(&fields(vary), &fields(stored), attached, false)
            .map(|choice| choice.fits(&fields(asked), attached))
    };
    let (json, xml) = (&["accept: application/json"][..], &["accept: text/xml"][..]);
    for (vary, stored, asked, expected) in [
        (&[][..], &["b3: 1"][..], &["b3: 2"][..], Some(true)),
        (&["vary: B3"], &["b3: 1"], &["b3: 1"], Some(true)),
        (&["vary: B3"], &["b3: 1"], &["b3: 2"], Some(false)),
        (&["vary: B3"], &["b3: 1"], &[], Some(false)),
        (&["vary: B3"], &[], &["b3: 1"], Some(false)),
        (&["vary: B3"], &[], &["b3: "], Some(false)),
        (
            &["vary: b3, user-agent"],
            &["user-agent: 1"],
            &["b3: 1"],
            Some(false),
        ),
        (
            &["vary: b3", "vary: ,,user-agent"],
            &["user-agent: 1"],
            &["user-agent: 2"],
            Some(false),
        ),
        // Spaces and lines may be divided differently.
        (&["vary: b3"], &["b3: 1, 2"], &["b3: 1", "b3: 2"], Some(true)),
        (&["vary: b3"], &["b3: 1,2"], &["b3: 1 ,  2 "], Some(true)),
        (&["vary: b3"], &["b3: 12"], &["b3: 1", "b3: 2"], Some(false)),
        // What is attached is the same for all.
        (
            &["vary: Authorization"],
            &["authorization: a"],
            &["authorization: b"],
            Some(true),
        ),
        // Fields that are in the key are not compared again, nor kept.
        (
            &["vary: Cookie, X-User-Id"],
            &["cookie: a"],
            &["cookie: b"],
            Some(true),
        ),
        // What upstreams forget to name in Vary.
        (&[], json, xml, Some(false)),
        (
            &["content-encoding: gzip"],
            &["accept-encoding: gzip"],
            &[],
            Some(false),
        ),
        (&[], &["accept-encoding: gzip"], &[], Some(true)),
        (
            &["content-language: de"],
            &["accept-language: de"],
            &["accept-language: en"],
            Some(false),
        ),
        // Selected by something outside the request.
        (&["vary: *"], &[], &[], None),
        (&["vary: b3, *"], &[], &[], None),
        (&["vary: b3", "vary: *"], &[], &[], None),
        (&["vary: f(o"], &[], &[], None),
    ] {
        assert_eq!(
            fits(vary, stored, asked),
            expected,
            "{vary:?} {stored:?} {asked:?}"
        );
    }
    // However long the list is, few of its names are kept.
    let many: Vec<_> = (0..100).map(|i| format!("vary: name-{i}")).collect();
    let many: Fields = fields(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let choice = SelectingFields::of(&many, &Fields::new(), attached, false).unwrap();
    assert_eq!(*choice.names, [header::ACCEPT]);
}

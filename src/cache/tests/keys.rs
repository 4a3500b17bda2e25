use http::header::{self, HeaderMap, HeaderName};

use super::fields;
use crate::cache::key::{Choice, Key};
use crate::host::Target;

fn key(url: &str, lines: &[&str], fingerprint: u64) -> Key {
    let uri: http::Uri = url.parse().unwrap();
    let target = Target::of_absolute(&uri).unwrap();
    let path = uri.path_and_query().unwrap().as_str();
    Key::new(&target, path, &fields(lines), attached, fingerprint)
}

/// As for a destination with a bearer token.
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

/// Whatever in a request may make an upstream answer for somebody or something else, without any Vary.
#[test]
fn telling_fields_are_part_of_the_key() {
    for name in [
        "cookie",
        "x-api-key",
        "apikey",
        "x-auth-token",
        "private-token",
        "x-vault-token",
        "x-amz-security-token",
        "ocp-apim-subscription-key",
        "x-session-id",
        "x-goog-user-credentials",
        "x-forwarded-host",
        "x-forwarded-proto",
        "forwarded",
        "x-host",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
        "x-http-method",
        "prefer",
    ] {
        let (one, other) = (format!("{name}: 1"), format!("{name}: 2"));
        assert_ne!(key(URL, &[], 1), key(URL, &[&one], 1), "{name}");
        assert_ne!(key(URL, &[&one], 1), key(URL, &[&other], 1), "{name}");
        assert_eq!(key(URL, &[&one], 1), key(URL, &[&one], 1), "{name}");
    }
    for line in [
        "accept: a/b",
        "host: x",
        "if-none-match: \"a\"",
        "user-agent: x",
        "traceparent: 00-1",
        "x-request-id: 1",
        "via: 1.1 x",
        // Replaced by what is attached.
        "authorization: Bearer app",
    ] {
        assert_eq!(key(URL, &[], 1), key(URL, &[line], 1), "{line}");
    }
    // Where one value ends and the next begins makes a difference.
    assert_ne!(
        key(URL, &["x-key: ab", "x-token: c"], 1),
        key(URL, &["x-key: a", "x-token: bc"], 1)
    );
}

#[test]
fn a_choice_fits_what_would_be_answered_alike() {
    let fits = |vary: &[&str], stored: &[&str], asked: &[&str]| {
        Choice::of(&fields(vary), &fields(stored), attached).map(|choice| choice.fits(&fields(asked)))
    };
    let (json, xml) = (&["accept: application/json"][..], &["accept: text/xml"][..]);
    for (vary, stored, asked, expected) in [
        (&[][..], &["foo: 1"][..], &["foo: 2"][..], Some(true)),
        (&["vary: Foo"], &["foo: 1"], &["foo: 1"], Some(true)),
        (&["vary: Foo"], &["foo: 1"], &["foo: 2"], Some(false)),
        (&["vary: Foo"], &["foo: 1"], &[], Some(false)),
        (&["vary: Foo"], &[], &["foo: 1"], Some(false)),
        (&["vary: Foo"], &[], &["foo: "], Some(false)),
        (&["vary: foo, bar"], &["bar: 1"], &["foo: 1"], Some(false)),
        (&["vary: a", "vary: ,,b"], &["b: 1"], &["b: 2"], Some(false)),
        // Blanks and lines may be divided otherwise.
        (&["vary: foo"], &["foo: 1, 2"], &["foo: 1", "foo: 2"], Some(true)),
        (&["vary: foo"], &["foo: 1,2"], &["foo: 1 ,  2 "], Some(true)),
        (&["vary: foo"], &["foo: 12"], &["foo: 1", "foo: 2"], Some(false)),
        // What is attached is the same for all.
        (
            &["vary: Authorization"],
            &["authorization: a"],
            &["authorization: b"],
            Some(true),
        ),
        // What is in the key is not looked at twice, nor kept.
        (
            &["vary: Cookie, X-Api-Key"],
            &["cookie: a"],
            &["cookie: b"],
            Some(true),
        ),
        // What upstreams forget to say.
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
        // Chosen by what is not in the request.
        (&["vary: *"], &[], &[], None),
        (&["vary: foo, *"], &[], &[], None),
        (&["vary: foo", "vary: *"], &[], &[], None),
        (&["vary: f(o"], &[], &[], None),
    ] {
        assert_eq!(
            fits(vary, stored, asked),
            expected,
            "{vary:?} {stored:?} {asked:?}"
        );
    }
    let many: Vec<_> = (0..100).map(|i| format!("vary: name-{i}")).collect();
    let many: HeaderMap = fields(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(Choice::of(&many, &HeaderMap::new(), attached), None);
}

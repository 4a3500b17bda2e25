use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::*;

use crate::message::{Fields, Request, RequestHead};

/// A case of the test suite that AWS publishes for signers (in its C library, aws-c-auth, among others).
#[derive(Deserialize)]
struct Case {
    name: String,
    method: String,
    path: String,
    query: String,
    fields: Vec<(String, String)>,
    body: String,
    /// Otherwise the path is signed as for S3.
    normalize: bool,
    /// The hash of the body is in a field too.
    sign_body: bool,
    token: Option<String>,
    /// The token is added to the request when it is signed.
    #[serde(default)]
    omit: bool,
    canonical: String,
    authorization: String,
}

const ID: &str = "AKIDEXAMPLE";
const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// 2015-08-30T12:36:00Z.
fn then() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_440_938_160)
}

fn reference(name: &str) -> SecretRef {
    SecretRef::Env(name.to_owned())
}

fn settings(service: &str) -> AwsSigV4 {
    AwsSigV4 {
        access_key_id: Text::Plain(ID.to_owned()),
        max_body: 64,
        region: "us-east-1".to_owned(),
        secret_access_key: reference("KEY"),
        service: service.to_owned(),
        session_token: None,
    }
}

fn build(settings: &AwsSigV4, variables: &[(&str, &str)]) -> Result<AwsSigner, Error> {
    let variables = [("KEY", KEY)].iter().chain(variables).copied();
    AwsSigner::build(settings, &Snapshot::of_variables(variables))
}

fn aws(service: &str) -> AwsSigner {
    build(&settings(service), &[]).unwrap()
}

fn head(method: &str, uri: &str, fields: &[(&str, &str)]) -> Box<RequestHead> {
    let request = http::Request::builder().method(method).uri(uri).body(()).unwrap();
    let mut head = Request::from(request);
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        head.headers_mut()
            .append(name, HeaderValue::from_str(value).unwrap());
    }
    head.into_parts().0
}

fn sign(aws: &AwsSigner, head: &mut RequestHead, payload: Payload<'_>) -> Result<(), Error> {
    aws.sign(&mut RequestToSign {
        head,
        authority: "example.amazonaws.com",
        scheme: Scheme::Https,
        payload,
        now: then(),
    })
}

fn text<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).map_or("", |value| value.to_str().unwrap())
}

#[test]
fn the_published_cases_come_out_the_same() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("published.json")).unwrap();
    assert_eq!(cases.len(), 38);
    let mut whole = 0;
    for case in cases {
        let name = &case.name;
        let fields: Vec<_> = case
            .fields
            .iter()
            .filter(|(name, _)| name != "Host")
            .map(|(name, value)| (name.as_str(), value.trim()))
            .collect();
        let mut parts = head(&case.method, "/", &fields);

        // The canonical request of all fields of the case.
        let mut all = parts.headers.clone();
        all.insert(DATE, HeaderValue::from_static("20150830T123600Z"));
        if let Some(token) = case.token.as_deref().filter(|_| !case.omit) {
            all.insert(SECURITY_TOKEN, HeaderValue::from_str(token).unwrap());
        }
        let payload = sha256_hex(case.body.as_bytes());
        if case.sign_body {
            all.insert(CONTENT_SHA256, HeaderValue::from_str(&payload).unwrap());
        }
        let canonical = CanonicalRequest {
            method: &case.method,
            path: &case.path,
            query: &case.query,
            authority: "example.amazonaws.com",
            fields: &all,
            payload: &payload,
            is_s3: !case.normalize,
        };
        let (canonical, _) = canonical.text(|_| true);
        assert_eq!(String::from_utf8(canonical).unwrap(), case.canonical, "{name}");

        // The signature, if we sign the same fields and the target is valid in a request.
        let signs_all = case.fields.iter().all(|(name, _)| name != "Content-Length") && !case.omit;
        let target = format!("{}?{}", case.path, case.query);
        let (true, true, Ok(uri)) = (signs_all, case.normalize, target.trim_end_matches('?').parse()) else {
            continue;
        };
        parts.uri = uri;
        let aws = match &case.token {
            None => aws("service"),
            Some(token) => {
                let mut settings = settings("service");
                settings.session_token = Some(reference("TOKEN"));
                build(&settings, &[("TOKEN", token)]).unwrap()
            }
        };
        // Twice: the second signature replaces the first.
        for _ in 0..2 {
            sign(&aws, &mut parts, Payload::Whole(case.body.as_bytes())).unwrap();
            assert_eq!(
                text(&parts.headers, "authorization"),
                case.authorization,
                "{name}"
            );
        }
        whole += 1;
    }
    assert!(whole >= 27, "{whole}");
}

/// From the suite too: the path as it was sent is encoded once more, except for S3.
#[test]
fn a_path_is_encoded_again_but_for_s3() {
    for (is_s3, path, wanted) in [
        (
            false,
            "/test/@connections/JBDvjfGEIAMCERw%3D",
            "/test/%40connections/JBDvjfGEIAMCERw%253D",
        ),
        (true, "/b/a%20b/%E2%82%AC", "/b/a%20b/%E2%82%AC"),
        (true, "/b/a(b)+c%e2%82%ac", "/b/a%28b%29%2Bc%E2%82%AC"),
        (true, "/b//a/../%2e%2f", "/b//a/../.%2F"),
        (true, "/", "/"),
    ] {
        let canonical = CanonicalRequest {
            method: "GET",
            path,
            query: "",
            authority: "a.test",
            fields: &Fields::new(),
            payload: "",
            is_s3,
        };
        let (text, _) = canonical.text(|_| true);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.lines().nth(1), Some(wanted), "{path}");
    }
}

#[test]
fn a_query_is_signed_as_it_is_read() {
    for (query, wanted) in [
        ("acl", "acl="),
        ("a=b=c&&=&a", "=&a=&a=b%3Dc"),
        ("b=2&b=10&B=1&b%32=x", "B=1&b=10&b=2&b2=x"),
        ("q=a+b&q=a%20b&q=a%2bb", "q=a%20b&q=a%20b&q=a%2Bb"),
        ("x=%zz&y=%FF&z='*!()", "x=%25zz&y=%FF&z=%27%2A%21%28%29"),
    ] {
        let canonical = CanonicalRequest {
            method: "GET",
            path: "/",
            query,
            authority: "a.test",
            fields: &Fields::new(),
            payload: "",
            is_s3: false,
        };
        let (text, _) = canonical.text(|_| true);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.lines().nth(2), Some(wanted), "{query}");
    }
}

#[test]
fn what_others_change_on_the_way_is_not_signed() {
    let mut parts = head(
        "GET",
        "/",
        &[
            ("Accept", "*/*"),
            ("Accept-Encoding", "gzip"),
            ("Connection", "upgrade"),
            ("Content-Length", "0"),
            ("Cookie", "a=b"),
            ("Host", "other.test"),
            ("Proxy-Authorization", "Basic eDp5"),
            ("TE", "trailers"),
            ("Traceparent", "00-1"),
            ("User-Agent", "x"),
            ("Via", "1.1 outrider"),
            ("X-Amz-Meta-A", "1"),
            ("X-Amz-Meta-A", "2"),
            ("X-Forwarded-For", "10.0.0.1"),
        ],
    );
    sign(&aws("service"), &mut parts, Payload::Whole(b"")).unwrap();
    let signed = text(&parts.headers, "authorization");
    assert!(
        signed.contains("SignedHeaders=accept;host;x-amz-date;x-amz-meta-a,"),
        "{signed}"
    );
}

/// An SDK with invalid keys signs as with valid ones.
#[test]
fn what_the_app_signed_is_replaced() {
    let mut parts = head(
        "GET",
        "/a?x=1&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F20200101&X-Amz-Date=20200101T000000Z\
         &X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00&y",
        &[
            ("Authorization", "AWS4-HMAC-SHA256 Credential=AKIA/…"),
            ("X-Amz-Date", "20200101T000000Z"),
            ("X-Amz-Security-Token", "dummy"),
            ("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"),
        ],
    );
    sign(&aws("execute-api"), &mut parts, Payload::Whole(b"body")).unwrap();
    assert_eq!(parts.uri, "/a?x=1&y");
    assert_eq!(text(&parts.headers, "x-amz-date"), "20150830T123600Z");
    assert_eq!(text(&parts.headers, "x-amz-content-sha256"), sha256_hex(b"body"));
    assert!(!parts.headers.contains_key("x-amz-security-token"));
    let signed = text(&parts.headers, "authorization");
    assert!(
        signed.starts_with(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/execute-api/aws4_request"
        ),
        "{signed}"
    );
    assert_eq!(parts.headers.get_all("authorization").count(), 1);
    // A date without a signature is a parameter of the app.
    let mut parts = head("GET", "/a?X-Amz-Date=1", &[]);
    sign(&aws("execute-api"), &mut parts, Payload::Whole(b"")).unwrap();
    assert_eq!(parts.uri, "/a?X-Amz-Date=1");
}

#[test]
fn what_is_said_of_the_body() {
    let hash = sha256_hex(b"what the app has hashed");
    let (whole, streamed) = (Payload::Whole(b"body"), Payload::Streamed);
    let ours = sha256_hex(b"body");
    for (service, its, payload, wanted) in [
        ("s3", "", whole, Some(ours.as_str())),
        ("s3", &hash, whole, Some(&ours)),
        ("s3", UNSIGNED, whole, Some(&ours)),
        ("s3", STREAMING_UNSIGNED, whole, Some(STREAMING_UNSIGNED)),
        ("s3", STREAMING_UNSIGNED, streamed, Some(STREAMING_UNSIGNED)),
        ("s3", "", streamed, Some(UNSIGNED)),
        ("s3", UNSIGNED, streamed, Some(UNSIGNED)),
        ("s3", &hash, streamed, Some(&hash)),
        ("aoss", "", whole, Some(&ours)),
        ("execute-api", "", whole, None),
        ("execute-api", UNSIGNED, whole, Some(&ours)),
        ("execute-api", &hash, streamed, Some(&hash)),
    ] {
        let mut parts = head("PUT", "/", &[]);
        if !its.is_empty() {
            parts
                .headers
                .insert(CONTENT_SHA256, HeaderValue::from_str(its).unwrap());
        }
        sign(&aws(service), &mut parts, payload).unwrap();
        let said = text(&parts.headers, "x-amz-content-sha256");
        assert_eq!(said, wanted.unwrap_or_default(), "{service} {its} {payload:?}");
    }
    for (service, its, scheme, wanted) in [
        (
            "execute-api",
            "",
            Scheme::Https,
            "larger than 64 bytes; raise max_body",
        ),
        ("execute-api", UNSIGNED, Scheme::Https, "larger than 64 bytes"),
        ("s3", "", Scheme::Http, "larger than 64 bytes"),
        (
            "s3",
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            Scheme::Https,
            "signs each chunk",
        ),
    ] {
        let mut parts = head("PUT", "/", &[("X-Amz-Content-Sha256", its)]);
        let error = aws(service).sign(&mut RequestToSign {
            head: &mut parts,
            authority: "a.test",
            scheme,
            payload: streamed,
            now: then(),
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains(wanted), "{service} {its}: {error}");
    }
}

#[test]
fn a_token_that_is_not_set_is_none_and_other_mistakes_are_told() {
    let mut lasting = settings("s3");
    lasting.session_token = Some(reference("TOKEN"));
    let mut parts = head("GET", "/", &[("X-Amz-Security-Token", "dummy")]);
    sign(&build(&lasting, &[]).unwrap(), &mut parts, Payload::Whole(b"")).unwrap();
    assert!(!parts.headers.contains_key("x-amz-security-token"));

    let mut bad_id = settings("s3");
    bad_id.access_key_id = Text::Reference(reference("ID"));
    let mut no_id = settings("s3");
    no_id.access_key_id = Text::Plain("AKID/EXAMPLE".to_owned());
    for (settings, variables, wanted) in [
        (
            &lasting,
            ("TOKEN", "canary\nX-Evil: 1"),
            "env:TOKEN: this is not a session token",
        ),
        (
            &lasting,
            ("KEY", "canary canary"),
            "env:KEY: this is not a secret access key",
        ),
        (
            &lasting,
            ("KEY", "canaryé"),
            "env:KEY: this is not a secret access key",
        ),
        (
            &bad_id,
            ("ID", "canary,canary"),
            "env:ID: this is not an access key id",
        ),
        (
            &no_id,
            ("ID", ""),
            "aws_sigv4.access_key_id: this is not an access key id",
        ),
        (&bad_id, ("ID", ""), "env:ID: the environment variable is not set"),
    ] {
        let error = build(settings, &[variables]).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(wanted), "{shown}");
        assert!(!shown.contains("canary"), "{shown}");
    }
}

#[test]
fn nothing_shows_the_keys() {
    let mut with_token = settings("s3");
    with_token.session_token = Some(reference("TOKEN"));
    let aws = build(&with_token, &[("TOKEN", "canary-token")]).unwrap();
    let mut parts = head("GET", "/", &[]);
    sign(&aws, &mut parts, Payload::Whole(b"")).unwrap();
    let shown = format!("{aws:?} {:?}", parts.headers);
    for secret in [KEY, "canary", "Signature="] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains("us-east-1"), "{shown}");
}

//! Checks that httparse and hyper read each head that we accept as we do: method, target, status, version, fields, framing,
//! and where the head ends. Requests are smuggled past a proxy where two programs read one message in two ways.
//!
//! A head that we refuse is not compared: we are stricter on purpose. These differences are known, and each was decided:
//!
//! | what we accept | httparse | hyper | decided |
//! | --- | --- | --- | --- |
//! | `"`, `<`, `>` or a backtick in a target | accepts | refuses | passed on unchanged, as curl, nginx and HAProxy do; the policy sees the percent-encoded form |
//! | a query without a path (`http://host?a`) | leaves it so | adds a slash | the slash is added (RFC 9112 section 3.2.1) |
//! | a fragment in a target | leaves it there | removes it | removed: it is never sent (RFC 9110 section 7.1) |
//! | `OPTIONS http://host` | leaves it so | reads the path `/` | sent on as `OPTIONS *`: it is about the whole server (RFC 9112 section 3.2.4) |
//! | `HTTP/1.2` to `HTTP/1.9` in an answer | refuses | refuses | read as HTTP/1.1 (RFC 9110 section 2.5) |
//! | an interim answer (1xx but 101) | accepts | gives only the final answer | given to the caller, who passes it on |
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use outrider::fuzz::{Ends, Head, request_head, response_head};

mod by_httparse;
mod by_hyper;

/// A head as another reader understands it.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    /// Method and target, or the status.
    start: (String, String),
    is_old: bool,
    fields: HeaderMap,
    /// Known to hyper only.
    ends: Option<Ends>,
    /// Known to httparse only.
    rest: Option<usize>,
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else {
        return;
    };
    match kind % 3 {
        0 => request(data),
        1 => response(&Method::GET, data),
        _ => response(&Method::HEAD, data),
    }
});

fn request(data: &[u8]) {
    let Some(ours) = request_head(data) else { return };
    let theirs = by_httparse::request(data).unwrap_or_else(|error| panic!("httparse refuses: {error}"));
    check_target(&ours, &theirs.start.1);
    let expected = Read {
        start: (ours.start.0.clone(), theirs.start.1.clone()),
        is_old: ours.is_old,
        fields: map(&ours),
        ends: None,
        rest: Some(ours.rest),
    };
    assert_eq!(theirs, expected, "httparse reads another head");
    let theirs = by_hyper::request(&data[..data.len() - ours.rest]);
    if ours.is_raw {
        assert_eq!(theirs, None, "hyper accepts a raw target");
        return;
    }
    let theirs = theirs.expect("hyper refuses");
    check_target(&ours, &theirs.start.1);
    let expected = Read {
        start: (ours.start.0.clone(), theirs.start.1.clone()),
        ends: Some(ours.ends),
        rest: None,
        ..expected
    };
    assert_eq!(theirs, expected, "hyper reads another head");
}

/// Compares our target with the one that another reader has found.
fn check_target(ours: &Head, target: &str) {
    let (method, origin) = (ours.start.0.as_str(), ours.start.1.as_str());
    if ours.is_raw {
        let target = target.split('#').next().unwrap_or_default();
        // The slash may be ours.
        let is_ours = target.ends_with(origin) || target.ends_with(&origin[1..]);
        assert!(is_ours, "{target} is not {origin}");
    } else {
        let uri: Uri = target.parse().expect("it is a target");
        let is_server = (method, origin) == ("OPTIONS", "*");
        if is_server && target != "*" {
            assert_eq!(uri.authority(), ours.uri.authority(), "another server");
            assert!(matches!(uri.path(), "/" | ""), "{target} is not the whole server");
        } else {
            assert_eq!(uri, ours.uri, "another target");
        }
    }
}

fn response(method: &Method, data: &[u8]) {
    let Some(ours) = response_head(method, data) else {
        return;
    };
    let mut data = data.to_vec();
    let start = data.iter().position(|byte| !b"\r\n".contains(byte));
    let minor = start.unwrap_or_default() + "HTTP/1.".len();
    if data[minor] > b'1' {
        assert!(
            by_httparse::response(&data).is_err(),
            "httparse accepts a newer version"
        );
        data[minor] = b'1';
    }
    let expected = Read {
        start: ours.start.clone(),
        is_old: ours.is_old,
        fields: map(&ours),
        ends: None,
        rest: Some(ours.rest),
    };
    let theirs = by_httparse::response(&data).unwrap_or_else(|error| panic!("httparse refuses: {error}"));
    assert_eq!(theirs, expected, "httparse reads another head");
    let theirs = by_hyper::response(method, &data[..data.len() - ours.rest]);
    if ours.start.0.starts_with('1') && ours.start.0 != "101" {
        assert_eq!(theirs, None, "hyper gives an interim answer");
        return;
    }
    let expected = Read {
        rest: None,
        ends: Some(ours.ends),
        ..expected
    };
    assert_eq!(theirs, Some(expected), "hyper reads another head");
}

fn map(head: &Head) -> HeaderMap {
    let pair = |(name, value): &(String, Vec<u8>)| {
        let name: HeaderName = name.parse().expect("it was one");
        (name, HeaderValue::from_bytes(value).expect("it was one"))
    };
    fields(head.fields.iter().map(pair))
}

/// Returns the fields as a map. It keeps the order of the lines of one name; the order of names has no meaning.
fn fields(lines: impl Iterator<Item = (HeaderName, HeaderValue)>) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in lines {
        fields.append(name, value);
    }
    fields
}

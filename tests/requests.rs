//! Group A, heads: what the app asks for. A malformed request is refused, and the origin sees nothing of it; or
//! it is repaired to exactly one clean message. It is never passed on as it was.

use crate::support::hidden::{assert_refused, fill, plain};
use crate::support::origin::{echo, ok};
use crate::support::{CANARY, Origin, Proxy, TOKEN};

/// A1: both framings at once are an attack, no matter which one the origin would believe.
#[test]
fn content_length_beside_transfer_encoding_is_refused() {
    assert_refused(
        &[
            ("CL.TE", b"POST {url}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
            ("TE.CL", b"POST {url}/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nG"),
            ("TE.CL, right length", b"POST {url}/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        ],
        &[400],
    );
}

/// A2: a coding that one side reads and the other does not.
#[test]
fn obfuscated_transfer_encodings_are_refused() {
    let codings: &[&[u8]] = &[
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding\t: chunked",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: identity, chunked",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: \"chunked\"",
        b"Transfer-Encoding: chunked;x",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding: chunked\x00",
        b"Transfer-Encoding: \xa0chunked",
        b"Transfer-Encoding:\r\n chunked",
        b"Transfer-Encoding:",
        b"X: y\r\n Transfer-Encoding: chunked",
    ];
    let requests: Vec<_> = codings
        .iter()
        .map(|coding| {
            let head: &[u8] = b"POST {url}/ HTTP/1.1\r\nHost: {host}\r\n";
            let name = String::from_utf8_lossy(coding).into_owned();
            (name, [head, coding, b"\r\n\r\n0\r\n\r\n"].concat())
        })
        .collect();
    let cases: Vec<_> = requests
        .iter()
        .map(|(name, request)| (name.as_str(), request.as_slice()))
        .collect();
    assert_refused(&cases, &[400, 501]);
}

/// A3: a length that is not one plain number.
#[test]
fn malformed_content_lengths_are_refused() {
    let lengths = [
        "Content-Length: -1",
        "Content-Length: +5",
        "Content-Length: 0x5",
        "Content-Length: 1_0",
        "Content-Length: 99999999999999999999999",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: 5 5",
        "Content-Length: ",
        "Content-Length: 5.0",
        "Content-Length: five",
        "Content-Length: 18446744073709551616",
        "Content-Length: \u{665}",
        "Content-Length : 5",
    ];
    let requests: Vec<_> = lengths
        .iter()
        .map(|length| format!("POST {{url}}/ HTTP/1.1\r\nHost: {{host}}\r\n{length}\r\n\r\nhello"))
        .collect();
    let cases: Vec<_> = lengths
        .iter()
        .copied()
        .zip(requests.iter().map(|request| request.as_bytes()))
        .collect();
    assert_refused(&cases, &[400]);
}

/// A4: HTTP/1.0 knows no transfer coding.
#[test]
fn a_transfer_encoding_in_http_1_0_is_refused() {
    assert_refused(
        &[(
            "1.0",
            b"POST {url}/ HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        )],
        &[400],
    );
}

/// A9: line ends that one parser takes for a line end and another does not.
#[test]
fn bare_line_ends_are_never_passed_on() {
    assert_refused(
        &[
            (
                "bare CR in a value",
                b"GET {url}/ HTTP/1.1\r\nHost: {host}\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n",
            ),
            (
                "bare CR after the line",
                b"GET {url}/ HTTP/1.1\rHost: {host}\r\n\r\n",
            ),
            (
                "bare CR ends the head",
                b"GET {url}/ HTTP/1.1\r\nHost: {host}\r\n\rX: y\r\n\r\n",
            ),
        ],
        &[400],
    );

    let origin = Origin::http(ok);
    let proxy = plain(&origin);
    let response = proxy.raw(fill(
        b"GET {url}/ HTTP/1.1\nHost: {host}\nX: y\nConnection: close\n\n",
        &origin,
    ));
    let raw = origin.raw();
    assert!(matches!(response.status, 200 | 400), "{response:?}");
    assert_eq!(
        raw.matches('\n').count(),
        raw.matches("\r\n").count(),
        "bare LF at the origin: {raw:?}"
    );
}

/// A10: fields that are not fields.
#[test]
fn malformed_fields_are_refused() {
    let fields: &[(&str, &[u8])] = &[
        ("obs-fold", b"X: a\r\n b"),
        ("blank before colon", b"X : a"),
        ("empty name", b": a"),
        ("blank in the name", b"X Y: a"),
        ("NUL in the name", b"X\x00: a"),
        ("NUL in the value", b"X: a\x00b"),
        ("control byte in the value", b"X: a\x01b"),
        ("DEL in the value", b"X: a\x7fb"),
        ("no colon", b"just words"),
        ("bytes above ASCII in the name", b"X\xc3\xa9: a"),
    ];
    let requests: Vec<_> = fields
        .iter()
        .map(|(name, field)| {
            let head: &[u8] = b"GET {url}/ HTTP/1.1\r\nHost: {host}\r\n";
            (*name, [head, field, b"\r\n\r\n"].concat())
        })
        .collect();
    let cases: Vec<_> = requests
        .iter()
        .map(|(name, request)| (*name, request.as_slice()))
        .collect();
    assert_refused(&cases, &[400]);
}

/// A11: what is not an HTTP/1.1 request line is not understood by guessing.
#[test]
fn what_is_no_http_request_is_never_dialled() {
    let starts: &[(&str, &[u8])] = &[
        ("two blanks", b"GET  {url}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        ("a tab", b"GET\t{url}/\tHTTP/1.1\r\nHost: {host}\r\n\r\n"),
        ("no version", b"GET {url}/\r\n\r\n"),
        ("HTTP/0.9", b"GET {url}/ HTTP/0.9\r\nHost: {host}\r\n\r\n"),
        ("HTTP/1.2", b"GET {url}/ HTTP/1.2\r\nHost: {host}\r\n\r\n"),
        ("HTTP/2.0", b"GET {url}/ HTTP/2.0\r\nHost: {host}\r\n\r\n"),
        (
            "lower case version",
            b"GET {url}/ http/1.1\r\nHost: {host}\r\n\r\n",
        ),
        (
            "blank at the start",
            b" GET {url}/ HTTP/1.1\r\nHost: {host}\r\n\r\n",
        ),
        (
            "more after the version",
            b"GET {url}/ HTTP/1.1 x\r\nHost: {host}\r\n\r\n",
        ),
        ("h2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("TLS", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03"),
        (
            "PROXY protocol",
            b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\nGET {url}/ HTTP/1.1\r\nHost: {host}\r\n\r\n",
        ),
        ("origin form", b"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        (
            "DEL in the target",
            b"GET {url}/a\x7fb HTTP/1.1\r\nHost: {host}\r\n\r\n",
        ),
    ];
    let origin = Origin::plain();
    let proxy = plain(&origin);
    for (name, start) in starts {
        let mut wire = proxy.wire();
        wire.send(fill(start, &origin));
        wire.half_close();
        if let Ok(response) = wire.try_response() {
            assert!(
                matches!(response.status, 400 | 404 | 405 | 421 | 501 | 505),
                "{name}: {response:?}"
            );
        }
        assert_eq!(origin.seen().len(), 0, "{name}: {:?}", origin.raw());
    }
}

/// A11: an `https://` in the proxy variable is the usual first mistake, and the log says so.
#[test]
fn tls_to_the_proxy_itself_is_answered_with_the_reason() {
    let origin = Origin::plain();
    let proxy = plain(&origin);
    let answer = proxy.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    answer.assert_ours(400, "http_request_error");
    assert!(
        answer.text().contains("HTTPS_PROXY has to begin with http://"),
        "{}",
        answer.text()
    );
}

/// A12: one host, and the target is right about which.
#[test]
fn the_absolute_target_decides_the_host() {
    assert_refused(
        &[
            (
                "two hosts",
                b"GET {url}/ HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n",
            ),
            (
                "two different hosts",
                b"GET {url}/ HTTP/1.1\r\nHost: {host}\r\nHost: evil.test\r\n\r\n",
            ),
        ],
        &[400],
    );

    let origin = Origin::http(ok);
    let proxy = plain(&origin);
    let response = proxy.raw(fill(
        b"GET {url}/ HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n",
        &origin,
    ));
    assert_eq!(response.status, 200);
    let raw = origin.raw().to_lowercase();
    assert!(
        raw.contains(&format!("host: {}\r\n", origin.authority())) && !raw.contains("evil"),
        "{raw}"
    );
}

/// A13: the target as it may be, and as it may not.
#[test]
fn targets_are_forwarded_untouched_or_refused() {
    let origin = Origin::http(ok);
    let proxy = plain(&origin);
    let path = "/a%2Fb/..%2f%0d%0aX:%20y/%c0%af?q=%41&r=a+b";
    assert_eq!(proxy.get(&origin.url(path)).status, 200);
    assert!(
        origin.raw().starts_with(&format!("GET {path} HTTP/1.1\r\n")),
        "{}",
        origin.raw()
    );

    let with_user = proxy.get(&format!("http://user:{CANARY}@{}/", origin.authority()));
    let raw = origin.raw();
    assert!(matches!(with_user.status, 200 | 400), "{with_user:?}");
    assert!(
        !raw.contains(CANARY) && !with_user.text().contains(CANARY),
        "{raw}"
    );

    let fragment = proxy.get(&origin.url("/page#part"));
    assert!(matches!(fragment.status, 200 | 400), "{fragment:?}");
    assert!(!origin.raw().contains("#part"), "{}", origin.raw());

    let long = proxy
        .wire()
        .send(format!(
            "GET {} HTTP/1.1\r\n",
            origin.url(&format!("/{}", "x".repeat(1 << 20)))
        ))
        .response();
    assert!(matches!(long.status, 414 | 431), "{long:?}");
}

/// A14: what is for this hop only goes no further.
#[test]
fn hop_by_hop_fields_are_removed() {
    let origin = Origin::http(ok);
    let proxy = plain(&origin);
    let response = proxy.raw(fill(
        b"GET {url}/ HTTP/1.1\r\nHost: {host}\r\nconnection: X-Foo, close\r\nConnection: x-bar\r\nX-Foo: hop\r\n\
          X-FOO: hop\r\nX-Bar: hop\r\nProxy-Connection: hop\r\nKeep-Alive: hop\r\nTE: hop\r\n\
          Proxy-Authorization: Basic hop\r\nProxy-Authenticate: hop\r\nUpgrade: hop\r\nX-Kept: kept\r\n\r\n",
        &origin,
    ));
    assert_eq!(response.status, 200);
    let raw = origin.raw().to_lowercase();
    assert!(
        !raw.contains("hop") && !raw.contains("x-foo") && !raw.contains("x-bar"),
        "{raw}"
    );
    assert!(raw.contains("x-kept: kept\r\n"), "{raw}");
}

/// A14: `Connection` cannot name what we attach, or what frames the message, away.
#[test]
fn connection_cannot_strip_what_is_attached() {
    let origin = Origin::http(echo);
    let proxy = Proxy::start_with(
        &format!(
            r#"
            destinations:
              plain:
                hosts: ["{}"]
                upgrade: false
                insecure_attach_over_http: true
                auth: {{ bearer: env:TOKEN }}
            "#,
            origin.authority()
        ),
        &[("TOKEN", TOKEN)],
    );
    let response = proxy.raw(fill(
        b"POST {url}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close, Authorization, Host, Content-Length, Via\r\n\
          Authorization: Bearer mine\r\nContent-Length: 5\r\n\r\nhello",
        &origin,
    ));
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    let raw = origin.raw().to_lowercase();
    assert!(
        raw.contains(&format!("authorization: bearer {TOKEN}\r\n")) && !raw.contains("mine"),
        "{raw}"
    );
    assert!(
        raw.contains(&format!("host: {}\r\n", origin.authority())),
        "{raw}"
    );
}

/// A18: heads have a bound, and past it the answer is 431.
#[test]
fn oversized_heads_are_refused() {
    let origin = Origin::plain();
    let proxy = plain(&origin);
    let before = proxy.resident();
    for (name, extra) in [
        ("a long value", format!("X: {}\r\n", "x".repeat(100 << 10))),
        ("a very long value", format!("X: {}\r\n", "x".repeat(2 << 20))),
        ("a long name", format!("{}: x\r\n", "x".repeat(70 << 10))),
        (
            "many fields",
            (0..100_000).map(|n| format!("X-{n}: x\r\n")).collect(),
        ),
    ] {
        let mut wire = proxy.wire();
        wire.send(fill(
            format!("GET {{url}}/ HTTP/1.1\r\nHost: {{host}}\r\n{extra}\r\n").as_bytes(),
            &origin,
        ));
        assert_eq!(wire.response().status, 431, "{name}");
    }
    assert_eq!(origin.seen().len(), 0);
    assert!(
        proxy.resident() < before + (24 << 20),
        "memory grew to {}",
        proxy.resident()
    );
}

/// A19: what asks only us is answered by us.
#[test]
fn trace_is_off_and_max_forwards_ends_here() {
    let origin = Origin::plain();
    let proxy = plain(&origin);
    assert_eq!(proxy.ask("TRACE", &origin.url("/"), "").status, 405);
    let options = proxy.ask("OPTIONS", &origin.url("/"), "Max-Forwards: 0\r\n");
    assert!(matches!(options.status, 200 | 204), "{options:?}");
    assert_eq!(origin.seen().len(), 0, "{}", origin.raw());

    assert_eq!(
        proxy
            .ask("OPTIONS", &origin.url("/"), "Max-Forwards: 3\r\n")
            .status,
        200
    );
    assert!(
        origin.raw().to_lowercase().contains("max-forwards: 2\r\n"),
        "{}",
        origin.raw()
    );
}

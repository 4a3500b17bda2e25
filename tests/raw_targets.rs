//! Request targets as clients send them that do not encode: passed on as they are, or refused by name.

use crate::support::programs::curl;
use crate::support::{Origin, Proxy, TOKEN, eventually, run};

/// Returns the target of the last request that `origin` got.
fn target(origin: &Origin) -> String {
    let raw = origin.seen().pop().unwrap().bytes;
    let raw = String::from_utf8(raw).unwrap();
    let line = raw.lines().rfind(|line| line.ends_with(" HTTP/1.1")).unwrap();
    line.split(' ').nth(1).unwrap().to_owned()
}

/// Starts an origin that answers one request on each connection.
fn once() -> Origin {
    Origin::saying_once("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}

fn ask(proxy: &Proxy, origin: &Origin, path: &[u8]) -> crate::support::Response {
    let mut bytes = format!("GET http://{}", origin.authority()).into_bytes();
    bytes.extend_from_slice(path);
    bytes.extend_from_slice(
        format!(
            " HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            origin.authority()
        )
        .as_bytes(),
    );
    proxy.raw(bytes)
}

/// As nginx and HAProxy do: all printable ASCII, in the path and in the query.
#[test]
fn printable_characters_pass_as_they_are() {
    let origin = once();
    let proxy = Proxy::to(&origin.authority(), "http: 1");
    for c in "\"<>`{}|\\^[]'()*!$;:@,%".chars() {
        for path in [format!("/p{c}q"), format!("/p?a={c}"), format!("/p{c}?b={c}&c=1")] {
            let got = ask(&proxy, &origin, path.as_bytes());
            assert_eq!(got.status, 200, "{path}: {}", got.text());
            assert_eq!(target(&origin), path);
        }
    }
    let got = ask(&proxy, &origin, "?a=\"é\"".as_bytes());
    assert_eq!((got.status, target(&origin).as_str()), (200, "/?a=\"é\""));
    let got = ask(&proxy, &origin, b"/a?b=<#\"fragment");
    assert_eq!((got.status, target(&origin).as_str()), (200, "/a?b=<"));
}

/// The client of the report.
#[test]
fn curl_asks_prometheus_in_its_own_language() {
    let origin = once();
    let proxy = Proxy::to(&origin.authority(), "http: 1");
    let query = "/api/v1/query?query=up{job=\"x\"}>0";
    let mut curl = curl([
        "-sgS",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        &origin.url(query),
    ]);
    curl.env("http_proxy", format!("http://{}", proxy.address()));
    assert_eq!(run(&mut curl).succeeded().stdout, "200");
    assert_eq!(target(&origin), query);
}

/// What no proxy passes is named, with its remedy.
#[test]
fn other_characters_are_named() {
    let origin = once();
    let proxy = Proxy::to(&origin.authority(), "http: 1");
    for (path, words) in [
        (
            &b"/a b"[..],
            "a blank, which cannot stand in a URL; percent-encode it as %20",
        ),
        (b"/a?b=c d", "percent-encode it as %20"),
        (b"/a\x01b", "the control character 0x01"),
        (b"/a?\x7f", "the control character 0x7F"),
        (b"/a?\"\x7f", "the control character 0x7F"),
        (b"/a\tb", "percent-encode it as %09"),
        (b"/\xe9", "the byte 0xE9"),
        (b"/a?\"\xe9", "percent-encode it as %E9"),
    ] {
        let detail = ask(&proxy, &origin, path).assert_ours(400, "http_request_error");
        assert!(detail.contains(words), "{path:?}: {detail}");
    }
    let got = proxy.raw("GET http://a\"b/ HTTP/1.1\r\nHost: a\r\n\r\n");
    got.assert_ours(400, "http_request_error");
    assert!(origin.seen().is_empty());
}

/// One reading for all: what falls under a rule in its encoded form does so in its raw form.
#[test]
fn rules_judge_raw_targets_as_they_are_read() {
    let origin = once();
    let proxy = Proxy::to(&origin.authority(), "http: 1, paths: [\"/open/*\", \"/a%3Cb\"]");
    for (path, status) in [
        ("/open/<x>", 200),
        ("/a<b", 200),
        ("/a%3cb", 200),
        ("/a\"b", 403),
        ("/shut/<x>", 403),
        ("/open/../shut/<x>", 403),
        ("/open/\"/../../shut", 403),
    ] {
        assert_eq!(ask(&proxy, &origin, path.as_bytes()).status, status, "{path}");
    }
}

/// What is signed or stored is what was judged: there the percent-encoded form is sent.
#[test]
fn what_is_signed_or_stored_is_sent_percent_encoded() {
    let origin = once();
    for settings in [
        "upgrade: false, insecure_attach_over_http: true, auth: { hmac: { key: env:TOKEN, message: \"{path}?{query}\", \
         set: { X-Signature: \"{signature}\" } } }",
        "cache: {}",
    ] {
        let yaml = crate::support::proxy::destination(&origin.authority(), settings);
        let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
        let got = ask(&proxy, &origin, b"/a\"b?c=<d>");
        assert_eq!(
            (got.status, target(&origin).as_str()),
            (200, "/a%22b?c=%3Cd%3E"),
            "{settings}"
        );
    }
}

/// RFC 9112 section 3.2.4: `*` is for OPTIONS only, and what is meant for the whole server leaves as `*`.
#[test]
fn an_asterisk_is_for_options_only() {
    let origin = once();
    let proxy = Proxy::to(&origin.authority(), "http: 1, mode: intercept");
    for method in ["GET", "POST", "HEAD"] {
        let mut tunnel = proxy.tunnel(&origin.authority());
        tunnel.send(format!(
            "{method} * HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n",
            origin.authority()
        ));
        let got = if method == "HEAD" {
            tunnel.bodiless_response()
        } else {
            tunnel.response()
        };
        assert_eq!(
            (got.status, got.error()),
            (400, Some("http_request_error")),
            "{method}"
        );
    }
    assert!(origin.seen().is_empty());
    let mut tunnel = proxy.tunnel(&origin.authority());
    let got = tunnel.ask(format!(
        "OPTIONS * HTTP/1.1\r\nHost: {}\r\n\r\n",
        origin.authority()
    ));
    assert_eq!((got.status, target(&origin).as_str()), (200, "*"));
    for (url, expected) in [("", "*"), ("/", "/"), ("?a", "/?a")] {
        let got = proxy.ask("OPTIONS", &origin.url(url), "");
        assert_eq!((got.status, target(&origin).as_str()), (200, expected), "{url:?}");
    }
}

/// Many programs keep lengths as signed numbers of 64 bits: RFC 9110 section 8.6 wants overflows kept out.
#[test]
fn a_length_beyond_63_bits_is_refused_both_ways() {
    let origin = Origin::saying_once("HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\nok");
    let proxy = Proxy::to(&origin.authority(), "http: 1");
    let detail = proxy
        .get(&origin.url("/"))
        .assert_ours(502, "http_protocol_error");
    assert!(detail.contains("larger than 9223372036854775807"), "{detail}");
    let asked = origin.seen().len();
    let got = proxy.ask(
        "POST",
        &origin.url("/"),
        "Content-Length: 9223372036854775808\r\n",
    );
    let detail = got.assert_ours(400, "http_request_error");
    assert!(detail.contains("larger than 9223372036854775807"), "{detail}");
    assert_eq!(origin.seen().len(), asked);
}

/// RFC 9110 section 10.1.4: TE goes one hop, so that it never leaves without saying so.
#[test]
fn te_leaves_with_connection_te() {
    let origin = once();
    let proxy = Proxy::to(&origin.authority(), "http: 1");
    for (sent, expected) in [
        ("TE: trailers\r\nConnection: TE\r\n", true),
        ("TE: trailers\r\n", true),
        ("TE: gzip, trailers;q=0.5\r\n", true),
        ("TE: gzip\r\n", false),
    ] {
        let mut wire = proxy.wire();
        wire.send(format!(
            "GET {} HTTP/1.1\r\nHost: x\r\n{sent}\r\n",
            origin.url("/")
        ));
        assert_eq!(wire.response().status, 200);
        eventually("the origin has the head", || !origin.seen().is_empty());
        let raw = String::from_utf8(origin.seen().pop().unwrap().bytes)
            .unwrap()
            .to_ascii_lowercase();
        let last = raw.rsplit("get / http/1.1").next().unwrap().to_owned();
        assert_eq!(
            last.contains("\r\nte: trailers\r\n"),
            expected,
            "{sent:?}: {last}"
        );
        assert_eq!(
            last.contains("\r\nconnection: te\r\n"),
            expected,
            "{sent:?}: {last}"
        );
    }
}

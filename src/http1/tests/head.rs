//! Heads, read at every cut and written.

use std::future::poll_fn;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Version, header};

use super::exchange::{LIMITS, listed};
use super::script::{End, Script, cuts};
use crate::http1::framing::BodyEncoding;
use crate::http1::wire::Wire;
use crate::http1::{Error, Excess, Fault, head};
use crate::message::{Request, Response};

/// The first head that `stream` holds, as a request, and what is left behind it.
async fn read(stream: Script, most: usize) -> Result<Option<(Request<()>, Bytes)>, String> {
    let mut wire = Wire::new(stream);
    let head = poll_fn(|cx| wire.poll_head(cx, most, head::probe_request)).await;
    let Some(bytes) = head.map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let (request, _) = head::request(&bytes, LIMITS.count).map_err(|error| error.to_string())?;
    Ok(Some((request, wire.into_parts().1)))
}

fn told(read: Result<Option<(Request<()>, Bytes)>, String>) -> Result<String, String> {
    let Some((request, left)) = read? else {
        return Ok("nothing".to_owned());
    };
    let fields = listed(request.headers()).into_iter();
    let fields: Vec<_> = fields
        .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(&value)))
        .collect();
    let (method, uri, version) = (request.method(), request.uri(), request.version());
    Ok(format!(
        "{method} {uri} {version:?} {} + {}",
        fields.join("&"),
        left.len()
    ))
}

#[tokio::test(start_paused = true)]
async fn a_head_is_the_same_wherever_it_is_cut() {
    for (text, expected) in [
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", "GET / HTTP/1.1 host=a + 0"),
        (
            "GET http://a/b?c HTTP/1.0\r\nHost:a\r\nX:  y z \t\r\n\r\n",
            "GET http://a/b?c HTTP/1.0 host=a&x=y z + 0",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nx:\r\nx: \r\n\r\n",
            "OPTIONS * HTTP/1.1 x=&x= + 0",
        ),
        ("CONNECT a:443 HTTP/1.1\r\n\r\n", "CONNECT a:443 HTTP/1.1  + 0"),
        // RFC 9112 section 2.2: a server takes a bare line feed, and skips empty lines before a request.
        ("GET / HTTP/1.1\nhost: a\n\n", "GET / HTTP/1.1 host=a + 0"),
        ("GET / HTTP/1.1\r\nhost: a\n\r\n", "GET / HTTP/1.1 host=a + 0"),
        (
            "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1 host=a + 0",
        ),
        (
            "\r\n\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1 host=a + 0",
        ),
        ("\r\n\r\n", "nothing"),
        ("", "nothing"),
    ] {
        for pieces in cuts(text.as_bytes()) {
            let script = Script::new(pieces.clone(), End::Eof);
            assert_eq!(
                told(read(script, 1000).await).as_deref(),
                Ok(expected),
                "{pieces:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_head_is_refused_alike_wherever_it_is_cut() {
    let version = Error::Version.to_string();
    let incomplete = Error::Incomplete.to_string();
    let [line, blank, tls] =
        [Fault::RequestLine, Fault::Target(Some(b' ')), Fault::Tls].map(|fault| fault.to_string());
    for (text, expected) in [
        ("GET / HTTP/2.0\r\nhost: a\r\n\r\n", version.as_str()),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &version),
        ("GET / HTTP/1.2\r\n\r\n", &version),
        ("GET /\r\n\r\n", &line),
        ("GET / index HTTP/1.1\r\n\r\n", &blank),
        ("GET / HTTX/1.1\r\n\r\n", &line),
        ("GET  / HTTP/1.1\r\n\r\n", &line),
        (" GET / HTTP/1.1\r\n\r\n", &line),
        ("\x16\x03\x01\x02\r\n\r\n", &tls),
        ("GET / HTTP/1.1\r\nhost: a\r\n", &incomplete),
        ("GET", &incomplete),
    ] {
        for pieces in cuts(text.as_bytes()) {
            let script = Script::new(pieces.clone(), End::Eof);
            assert_eq!(
                told(read(script, 1000).await),
                Err(expected.to_owned()),
                "{pieces:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_may_be_as_large_as_allowed_and_no_larger() {
    let text = "GET / HTTP/1.1\r\nhost: a\r\nx: 12345\r\n\r\n";
    for pieces in cuts(text.as_bytes()) {
        let within = read(Script::new(pieces.clone(), End::Eof), text.len()).await;
        assert!(within.is_ok_and(|head| head.is_some()), "{pieces:?}");
        let beyond = read(Script::new(pieces.clone(), End::Eof), text.len() - 1).await;
        assert_eq!(
            told(beyond),
            Err(Error::TooLarge(Excess::HeadSize).to_string()),
            "{pieces:?}"
        );
    }
    let one_field = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(2_000_000));
    let large = read(Script::whole(one_field), 4_000_000).await;
    assert!(
        large.is_ok_and(|head| head.is_some()),
        "the configuration may allow it"
    );
    // Without an end, it is not waited for longer than that.
    let endless = Script::new([Bytes::from(vec![b'a'; 2000])], End::Never);
    assert_eq!(
        told(read(endless, 1000).await),
        Err(Error::TooLarge(Excess::HeadSize).to_string())
    );
}

#[tokio::test(start_paused = true)]
async fn a_head_has_a_hundred_fields_at_most() {
    for (fields, is_taken) in [(100, true), (101, false)] {
        let text = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(fields));
        for pieces in [
            vec![Bytes::from(text.clone())],
            text.bytes().map(|byte| Bytes::from(vec![byte])).collect(),
        ] {
            let head = read(Script::new(pieces, End::Eof), 10_000).await;
            assert_eq!(head.is_ok(), is_taken, "{fields} fields");
        }
    }
}

fn written_request(request: Request<()>, encoding: BodyEncoding) -> String {
    let out = head::write_request(
        &request.into_parts().0,
        &HeaderValue::from_static("b:1"),
        None,
        &encoding,
        false,
    );
    String::from_utf8(out.to_vec()).unwrap()
}

#[test]
fn a_request_leaves_in_origin_form_to_the_host_that_was_decided() {
    for (target, expected) in [
        ("http://a.test/x/y?z", "/x/y?z"),
        ("http://a.test/", "/"),
        ("http://a.test", "/"),
        ("http://a.test?z=1", "/?z=1"),
        ("http://a.test?", "/?"),
        ("/x", "/x"),
        ("*", "*"),
    ] {
        let request = http::Request::get(target)
            .header("host", "a.test")
            .header("x", "y")
            .body(())
            .unwrap()
            .into();
        let expected = format!("GET {expected} HTTP/1.1\r\nhost: b:1\r\nx: y\r\n\r\n");
        assert_eq!(written_request(request, BodyEncoding::None), expected, "{target}");
    }
}

#[test]
fn a_request_is_framed_by_what_is_sent_and_not_by_what_it_says() {
    for (method, stated, encoding, expected) in [
        (Method::GET, None, BodyEncoding::None, ""),
        (Method::DELETE, None, BodyEncoding::None, ""),
        (Method::POST, None, BodyEncoding::None, "content-length: 0\r\n"),
        (Method::PUT, None, BodyEncoding::None, "content-length: 0\r\n"),
        (
            Method::GET,
            Some(("content-length", "0")),
            BodyEncoding::None,
            "content-length: 0\r\n",
        ),
        (
            Method::GET,
            Some(("content-length", "9")),
            BodyEncoding::None,
            "content-length: 0\r\n",
        ),
        (
            Method::POST,
            Some(("content-length", "9")),
            BodyEncoding::Length(5),
            "content-length: 5\r\n",
        ),
        (
            Method::POST,
            Some(("content-length", "9")),
            BodyEncoding::Chunked,
            "transfer-encoding: chunked\r\n",
        ),
        (
            Method::POST,
            Some(("transfer-encoding", "gzip")),
            BodyEncoding::Length(5),
            "content-length: 5\r\n",
        ),
        (
            Method::GET,
            None,
            BodyEncoding::Chunked,
            "transfer-encoding: chunked\r\n",
        ),
    ] {
        let mut request = http::Request::builder().method(&method).uri("/");
        if let Some((name, value)) = stated {
            request = request.header(name, value);
        }
        let text = written_request(request.body(()).unwrap().into(), encoding);
        let expected = format!("{method} / HTTP/1.1\r\nhost: b:1\r\n{expected}\r\n");
        assert_eq!(text, expected, "{stated:?} {encoding:?}");
    }
}

#[test]
fn a_response_is_framed_by_what_is_sent_and_never_twice() {
    let none = BodyEncoding::None;
    for (status, stated, encoding, expected) in [
        (200, &[][..], none, ""),
        (200, &[("content-length", "7")], none, "content-length: 7\r\n"),
        (
            200,
            &[("content-length", "7"), ("content-length", "7")],
            none,
            "content-length: 7\r\n",
        ),
        (304, &[("content-length", "7")], none, "content-length: 7\r\n"),
        (204, &[("content-length", "7")], none, ""),
        (101, &[("content-length", "7")], none, ""),
        (200, &[("transfer-encoding", "chunked")], none, ""),
        (200, &[], BodyEncoding::Length(7), "content-length: 7\r\n"),
        (
            200,
            &[("content-length", "7")],
            BodyEncoding::Length(7),
            "content-length: 7\r\n",
        ),
        (
            200,
            &[("content-length", "7")],
            BodyEncoding::Chunked,
            "transfer-encoding: chunked\r\n",
        ),
        (
            200,
            &[("transfer-encoding", "gzip")],
            BodyEncoding::Chunked,
            "transfer-encoding: chunked\r\n",
        ),
        (200, &[("content-length", "7")], BodyEncoding::UntilClose, ""),
        (200, &[], BodyEncoding::Length(0), "content-length: 0\r\n"),
    ] {
        let mut response = http::Response::builder()
            .status(status)
            .header(header::DATE, "now");
        for (name, value) in stated {
            response = response.header(*name, *value);
        }
        let out = head::write_response(
            &Response::from(response.body(()).unwrap()).into_parts().0,
            &encoding,
            None,
        );
        let text = String::from_utf8(out.to_vec()).unwrap();
        let phrase = StatusCode::from_u16(status).unwrap().canonical_reason().unwrap();
        let rest = text.strip_prefix(&format!("HTTP/1.1 {status} {phrase}\r\ndate: now\r\n"));
        assert_eq!(
            rest,
            Some(&*format!("{expected}\r\n")),
            "{status} {stated:?} {encoding:?}"
        );
    }
}

#[test]
fn a_response_says_when_it_was_made_and_what_becomes_of_the_connection() {
    let mut response = http::Response::builder()
        .header("connection", "keep-alive, upgrade")
        .body(())
        .unwrap();
    *response.version_mut() = Version::HTTP_10;
    let out = head::write_response(
        &Response::from(response).into_parts().0,
        &BodyEncoding::Length(0),
        Some(b"close"),
    );
    let (read, _) = head::response(&out.freeze(), LIMITS.count).unwrap();
    assert_eq!(read.version(), Version::HTTP_11);
    assert!(read.headers().get_all("connection").eq(["close"]));
    assert!(httpdate::parse_http_date(read.headers()["date"].to_str().unwrap()).is_ok());
}

#[test]
fn a_reason_is_passed_on_where_it_is_printable() {
    for (line, expected) in [
        ("HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r\n"),
        ("HTTP/1.1 200 Fine", "HTTP/1.1 200 Fine\r\n"),
        ("HTTP/1.1 200", "HTTP/1.1 200 \r\n"),
        ("HTTP/1.1 200 ", "HTTP/1.1 200 \r\n"),
        ("HTTP/1.1 200 gr\u{fc}n", "HTTP/1.1 200 gr\u{fc}n\r\n"),
        ("HTTP/1.0 599 Odd", "HTTP/1.1 599 Odd\r\n"),
    ] {
        let (response, _) = head::response(&Bytes::from(format!("{line}\r\n\r\n")), LIMITS.count).unwrap();
        let out = head::write_response(&response.into_parts().0, &BodyEncoding::None, None);
        assert!(out.starts_with(expected.as_bytes()), "{line}: {out:?}");
    }
    for line in [
        "HTTP/1.1 099 X",
        "HTTP/1.1 20 X",
        "HTTP/1.1 2000 X",
        "HTTP/1.1 -20 X",
        "HTTP/1.1  200 X",
        "HTTP/1.1 200 a\rb",
        "HTTP/1.1 200 a\0b",
        "HTTP/2 200 X",
        "HTTP/1.1200 X",
        "http/1.1 200 X",
        "ICY 200 OK",
        "HTTP/1.12 200 X",
        "HTTP/0.9 200 X",
    ] {
        assert!(
            head::response(&Bytes::from(format!("{line}\r\n\r\n")), LIMITS.count).is_err(),
            "{line:?}"
        );
    }
}

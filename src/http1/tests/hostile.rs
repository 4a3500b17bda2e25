//! What has broken other servers, as bytes: each is refused, or read in the one way that there is.

use bytes::Bytes;

use super::exchange::{asked, kind, served};
use super::script::{End, Script, cuts};

/// Follows each request, and must never be read as a separate one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn nothing_is_smuggled_in_a_head() {
    for (what, head) in [
        ("CVE-2021-32715: a sign before a length", "content-length: +5"),
        ("CVE-2023-38697: a length in hexadecimal", "content-length: 0x5"),
        ("CVE-2023-40225: an empty length", "content-length:"),
        (
            "CVE-2023-40225: an empty length beside one",
            "content-length:\r\ncontent-length: 5",
        ),
        (
            "CVE-2021-40346: a length that overflows",
            "content-length: 18446744073709551621",
        ),
        ("a length that is below zero", "content-length: -5"),
        ("a list of lengths", "content-length: 5, 5"),
        ("two lengths", "content-length: 5\r\ncontent-length: 0"),
        ("the same length twice", "content-length: 5\r\ncontent-length: 5"),
        ("a length with a blank in it", "content-length: 1 0"),
        ("both framings", "content-length: 5\r\ntransfer-encoding: chunked"),
        (
            "both framings, the other way round",
            "transfer-encoding: chunked\r\ncontent-length: 5",
        ),
        (
            "CVE-2021-21299: chunked is not the last coding",
            "transfer-encoding: chunked\r\ntransfer-encoding: identity",
        ),
        (
            "CVE-2022-1705: a coding that is none",
            "transfer-encoding: \"chunked\"",
        ),
        (
            "CVE-2022-32213: a coding that only looks like it",
            "transfer-encoding: chunkedchunked",
        ),
        (
            "CVE-2022-32215: a coding on two lines",
            "transfer-encoding:\r\n chunked",
        ),
        ("a coding behind a vertical tab", "transfer-encoding: \x0bchunked"),
        ("a coding and a parameter", "transfer-encoding: chunked;q=1"),
        (
            "CVE-2019-16276, CVE-2021-22959: a blank before the colon",
            "content-length : 5",
        ),
        ("CVE-2024-27982: a blank before the name", " content-length: 5"),
        ("a tab before the name", "\tcontent-length: 5"),
        ("a folded line", "x: y\r\n content-length: 5"),
        ("CVE-2023-25725: no name", ": x"),
        ("no colon", "content-length 5"),
        ("NUL in a name", "content\0-length: 5"),
        ("NUL in a value", "x: a\0b"),
        ("NUL behind a length", "content-length: 5\0"),
        (
            "CVE-2022-32214, CVE-2023-30589: a line that a carriage return ends",
            "x: y\rcontent-length: 5",
        ),
        (
            "CVE-2022-35256: a value that ends with one",
            "x: y\r\rcontent-length: 5",
        ),
        (
            "CVE-2025-23167: a head that \\r\\n\\rX ends",
            "x: y\r\n\rcontent-length: 5",
        ),
        ("a name that is not ASCII", "content-l\u{e9}ngth: 5"),
        ("a name in quotes", "\"content-length\": 5"),
    ] {
        let text = format!("POST / HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\nhello{SMUGGLED}");
        for pieces in [
            vec![Bytes::from(text.clone())],
            text.bytes().map(|byte| Bytes::from(vec![byte])).collect(),
        ] {
            let (log, written) = served(Script::new(pieces, End::Eof)).await;
            let lines = log.lines();
            assert!(
                lines.len() == 1 && lines[0].starts_with("head: "),
                "{what}: {lines:?}"
            );
            assert!(
                written.contains("HTTP/1.1 400 ") && written.contains("connection: close"),
                "{what}: {written}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_smuggled_in_a_start_line() {
    for (what, line) in [
        ("a tab between the words", "GET\t/\tHTTP/1.1"),
        ("a carriage return in the target", "GET /\rx HTTP/1.1"),
        ("NUL in the target", "GET /\0 HTTP/1.1"),
        ("a tab in the target", "GET /\tx HTTP/1.1"),
        ("a carriage return in a fragment", "GET http://a/#\rx HTTP/1.1"),
        ("a control character in a fragment", "GET /#x\x06 HTTP/1.1"),
        ("DEL in the fragment of a raw target", "GET /?<#\x7f HTTP/1.1"),
        (
            "a version that is not one digit, a point and one digit",
            "GET / HTTP/1.10",
        ),
        ("a version with a sign", "GET / HTTP/+1.1"),
        ("a version in lower case", "GET / http/1.1"),
        ("a blank behind the version", "GET / HTTP/1.1 "),
        ("no target", "GET  HTTP/1.1"),
        ("no method", " / HTTP/1.1"),
        ("a method that is none", "GE(T / HTTP/1.1"),
        ("two carriage returns", "GET / HTTP/1.1\r"),
        ("two lines in one", "GET / HTTP/1.1\rhost: b"),
    ] {
        let text = format!("{line}\r\nhost: a\r\n\r\n{SMUGGLED}");
        let (log, _) = served(Script::whole(text)).await;
        let lines = log.lines();
        assert!(
            lines.len() == 1 && lines[0].starts_with("head: "),
            "{what}: {lines:?}"
        );
    }
    // CVE-2023-45539: a fragment is not for intermediaries, and is not forwarded.
    let (log, _) = served(Script::whole("GET http://a/x#.png HTTP/1.1\r\n\r\n")).await;
    assert_eq!(log.lines(), ["GET http://a/x HTTP/1.1"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_smuggled_in_a_chunk() {
    for (what, body) in [
        (
            "CVE-2025-22871: a size that a bare line feed ends",
            "5\nhello\r\n0\r\n\r\n",
        ),
        (
            "CVE-2025-55315: a bare line feed in an extension",
            "5;x\nhello\r\n0\r\n\r\n",
        ),
        (
            "CVE-2021-22960: a carriage return in an extension",
            "5;x\rhello\r\n0\r\n\r\n",
        ),
        ("a carriage return alone behind a size", "5\rhello\r\n0\r\n\r\n"),
        (
            "CVE-2021-32714: a size that overflows",
            "fffffffffffffff01\r\nx\r\n0\r\n\r\n",
        ),
        ("CVE-2023-38697: a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("CVE-2023-38697: a size with a sign", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a size that is below zero", "-1\r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\n0\r\n\r\n"),
        (
            "two bytes that are no line end behind the data",
            "5\r\nhelloXX0\r\n\r\n",
        ),
        ("a bare line feed behind the data", "5\r\nhello\n0\r\n\r\n"),
        ("a bare line feed as the last line", "0\r\n\nx: y\r\n\r\n"),
        ("a folded trailer", "0\r\nx: y\r\n z: a\r\n\r\n"),
    ] {
        let text =
            format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}{SMUGGLED}");
        for pieces in cuts(text.as_bytes()) {
            let (log, _) = served(Script::new(pieces, End::Eof)).await;
            let lines = log.lines();
            assert!(
                lines.len() == 1 && lines[0].starts_with("body: "),
                "{what}: {lines:?}"
            );
        }
    }
}

/// CVE-2023-39326, CVE-2024-22019: bytes that are read and dropped for as long as somebody sends them.
#[tokio::test(start_paused = true)]
async fn extensions_are_not_read_for_ever() {
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let many = format!("1;{}\r\nx\r\n", "e".repeat(2000)).repeat(1000);
    let (log, _) = served(Script::whole(format!("{head}{many}"))).await;
    assert_eq!(log.lines(), ["body: the chunk extensions are too long"]);
    let long =
        std::iter::once(Bytes::from(format!("{head}1;"))).chain(vec![Bytes::from(vec![b'e'; 1000]); 1000]);
    let (log, _) = served(Script::new(long, End::Never)).await;
    assert_eq!(log.lines(), ["body: the chunk extensions are too long"]);
}

/// RUSTSEC-2020-0008: the body of a request that should have none is a body all the same.
#[tokio::test(start_paused = true)]
async fn a_body_is_one_whatever_the_method() {
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "CONNECT", "X"] {
        let target = if method == "CONNECT" { "a:1" } else { "/" };
        let text = format!(
            "{method} {target} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{SMUGGLED}",
            SMUGGLED.len()
        );
        let (log, _) = served(Script::whole(text)).await;
        let heard = log.all();
        assert_eq!(heard.len(), 1, "{method}");
        assert_eq!(heard[0].as_ref().unwrap().body, SMUGGLED.as_bytes(), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_answer_can_be_split() {
    for (what, head) in [
        ("a length with a sign", "content-length: +5"),
        ("two lengths", "content-length: 5\r\ncontent-length: 6"),
        ("a list of lengths", "content-length: 5, 5"),
        ("a blank before the colon", "content-length : 5"),
        ("a folded line", "x: y\r\n z"),
        ("a carriage return in a value", "x: y\rcontent-length: 5"),
        ("NUL in a value", "x: a\0b"),
        ("no name", ": x"),
        ("a coding that is not known", "transfer-encoding: gzip, chunked"),
        (
            "chunked twice",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        ),
    ] {
        let text =
            format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\nhelloHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        for pieces in [
            vec![Bytes::from(text.clone())],
            text.bytes().map(|byte| Bytes::from(vec![byte])).collect(),
        ] {
            let failure = asked(Script::new(pieces, End::Eof)).await.unwrap_err();
            assert_eq!(kind(&failure), "no answer", "{what}");
        }
    }
}

//! The app's side: what keeps a connection, what ends it, and when.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::exchange::{LIMITS, Log, answer, hear, read_all, serve, served};
use super::script::{End, Said, SaidEnd, Script, cuts};
use crate::http1::server::{self, Handled, TakenOver};
use crate::http1::{Error, Inbound};
use crate::message::{Request, Response};

const OK: &str = "HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\n\r\nok";
const CLOSE: &str = "HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
const KEPT: &str = "HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok";
const BAD: &str = "HTTP/1.1 400 Bad Request\r\ndate: now\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_as_its_version_and_its_options_say() {
    for (version, option, expected) in [
        ("1.1", "", OK),
        ("1.1", "keep-alive", OK),
        ("1.1", "upgrade", OK),
        ("1.1", "close", CLOSE),
        ("1.1", "x, Close", CLOSE),
        ("1.1", "keep-alive, close", CLOSE),
        ("1.0", "", CLOSE),
        ("1.0", "keep-alive", KEPT),
        ("1.0", "x,Keep-Alive", KEPT),
        ("1.0", "keep-alive, close", CLOSE),
        ("1.0", "close", CLOSE),
    ] {
        let request = format!("GET / HTTP/{version}\r\nhost: a\r\nconnection: {option}\r\n\r\n");
        let (log, written) = served(Script::whole(request.repeat(2))).await;
        let times = if expected == CLOSE { 1 } else { 2 };
        assert_eq!(
            (log.all().len(), written),
            (times, expected.repeat(times)),
            "{version} {option:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn requests_one_behind_the_other_are_served_alike_wherever_they_are_cut() {
    let requests = "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc\r\n\
                    GET /b HTTP/1.1\r\nhost: a\r\n\r\n\
                    POST /c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nt: u\r\n\r\n\
                    GET /d HTTP/1.1\r\nhost: a\r\n\r\n";
    for pieces in cuts(requests.as_bytes()) {
        let (log, written) = served(Script::new(pieces.clone(), End::Eof)).await;
        assert_eq!(
            log.lines(),
            [
                "POST /a HTTP/1.1",
                "GET /b HTTP/1.1",
                "POST /c HTTP/1.1",
                "GET /d HTTP/1.1"
            ]
        );
        let bodies: Vec<_> = log.all().into_iter().map(|heard| heard.unwrap().body).collect();
        assert_eq!(bodies, [&b"abc"[..], b"", b"x", b""], "{pieces:?}");
        assert_eq!(written, OK.repeat(4), "{pieces:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn behind_a_broken_request_nothing_is_read_as_one() {
    let next = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    for (broken, fault) in [
        (
            "GET /\r\n\r\n",
            "head: the request line is malformed; it has to be METHOD TARGET HTTP/1.1, with one blank between each",
        ),
        ("GET / HTTP/1.1\r\nx y\r\n\r\n", "head: a field line has no colon"),
        (
            "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
            "head: it has more than one Content-Length",
        ),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n0\r\n\r\n",
            "body: a chunk size is not a hexadecimal number, or its line does not end in CR LF",
        ),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx\r\n\r\n\r\n",
            "body: a field line has no colon",
        ),
    ] {
        let (log, written) = served(Script::whole(format!("{broken}{next}"))).await;
        assert_eq!(
            (log.lines(), written.as_str()),
            (vec![fault.to_owned()], BAD),
            "{broken:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_answered_who_leaves_in_the_middle() {
    for (text, heard) in [
        ("", 0),
        ("GET", 0),
        ("GET / HTTP/1.1\r\nhost: a\r\n", 0),
        ("\r\n", 0),
    ] {
        for end in [End::Eof, End::Error(io::ErrorKind::ConnectionReset)] {
            let (log, written) = served(Script::new([Bytes::from(text)], end)).await;
            assert_eq!(
                (log.all().len(), written.as_str()),
                (heard, ""),
                "{text:?} {end:?}"
            );
        }
    }
    let (log, written) = served(Script::whole(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nabc",
    ))
    .await;
    assert_eq!(
        (log.lines().join(""), written.as_str()),
        ("body: the connection ended inside a message".to_owned(), BAD)
    );
}

/// Serves one end of a connection, without reading bodies; the other end is the app's.
fn unread(status: StatusCode, body: &'static str) -> DuplexStream {
    let (app, ours) = duplex(1 << 20);
    tokio::spawn(server::serve(
        ours,
        LIMITS,
        |_| {},
        move |_: Result<Request<Option<Inbound>>, Error>| std::future::ready(answer(status, Said::of(body))),
    ));
    app
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_reads_is_skipped_where_it_is_short_and_there() {
    let next = "GET / HTTP/1.1\r\nconnection: close\r\n\r\n";
    let long = "x".repeat(600_000);
    for (request, is_kept) in [
        (
            "POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello".to_owned(),
            true,
        ),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
            true,
        ),
        (
            format!("POST / HTTP/1.1\r\ncontent-length: 600000\r\n\r\n{long}"),
            false,
        ),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n0\r\n\r\n".to_owned(),
            false,
        ),
        (
            "POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\nhello".to_owned(),
            false,
        ),
    ] {
        let mut app = unread(StatusCode::OK, "ok");
        app.write_all(request.as_bytes()).await.unwrap();
        app.write_all(next.as_bytes()).await.unwrap();
        let expected = if is_kept {
            format!("{OK}{CLOSE}")
        } else {
            CLOSE.to_owned()
        };
        assert_eq!(
            read_all(&mut app).await,
            expected,
            "{}",
            &request[..60.min(request.len())]
        );
    }
    // What has not come yet is not waited for.
    let mut app = unread(StatusCode::OK, "ok");
    app.write_all(b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhel")
        .await
        .unwrap();
    assert_eq!(read_all(&mut app).await, CLOSE);
}

#[tokio::test(start_paused = true)]
async fn the_last_answer_can_be_read_by_an_app_that_is_still_sending() {
    let mut app = unread(StatusCode::PAYLOAD_TOO_LARGE, "too much");
    app.write_all(b"POST / HTTP/1.1\r\ncontent-length: 10000000\r\n\r\n")
        .await
        .unwrap();
    // The stream holds a tenth of it: the rest finds room only where somebody takes it away.
    app.write_all(&vec![b'x'; 10_000_000]).await.unwrap();
    app.shutdown().await.unwrap();
    assert!(
        read_all(&mut app)
            .await
            .ends_with("connection: close\r\n\r\ntoo much")
    );
}

#[tokio::test(start_paused = true)]
async fn an_app_that_does_not_wait_needs_no_leave() {
    let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    let old = head.replace("1.1", "1.0");
    for (pieces, expected) in [
        // It did not wait.
        (vec![head, "hello"], OK.to_owned()),
        (vec![head, "h", "ello"], OK.to_owned()),
        (
            vec![
                "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\nhel",
                "lo",
            ],
            OK.to_owned(),
        ),
        (
            vec!["POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 0\r\n\r\n"],
            OK.to_owned(),
        ),
        (vec![old.as_str(), "hello"], CLOSE.to_owned()),
    ] {
        for (most, is_vectored) in [(usize::MAX, true), (1, false)] {
            let script = Script::new(
                pieces
                    .iter()
                    .map(|piece| Bytes::copy_from_slice(piece.as_bytes())),
                End::Eof,
            );
            let (log, written) = served(script.taking(most, is_vectored)).await;
            assert_eq!((log.all().len(), &written), (1, &expected), "{pieces:?}");
        }
    }
}

/// The body of a request that an HTTP/2 upstream is slow to take is asked for when the answer is already under way.
#[tokio::test(start_paused = true)]
async fn an_answer_is_no_place_for_a_100_continue() {
    let (mut app, ours) = duplex(1000);
    let (give, mut take) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(server::serve(
        ours,
        LIMITS,
        |_| {},
        move |request: Result<Request<Option<Inbound>>, Error>| {
            give.send(request.unwrap().into_parts().1.unwrap()).unwrap();
            let mut body = Said::pieces(&["early"]);
            body.end = SaidEnd::Never;
            std::future::ready(answer(StatusCode::OK, body))
        },
    ));
    app.write_all(b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        .await
        .unwrap();
    let mut body = take.recv().await.unwrap();
    let reading = tokio::spawn(async move { body.frame().await.unwrap().unwrap().into_data().unwrap() });
    let mut answer = vec![0; 1000];
    let length = app.read(&mut answer).await.unwrap();
    assert!(answer[..length].ends_with(b"\r\n\r\n5\r\nearly\r\n"));
    let more = tokio::time::timeout(Duration::from_secs(1), app.read(&mut answer)).await;
    assert!(more.is_err(), "{:?}", String::from_utf8_lossy(&answer));
    app.write_all(b"hello").await.unwrap();
    assert_eq!(reading.await.unwrap(), "hello");
}

/// Where there is room for some bytes of a `100 Continue` only, the rest comes before anything else.
#[tokio::test(start_paused = true)]
async fn a_100_continue_is_written_whole() {
    let (mut app, ours) = duplex(7);
    let log = Log::default();
    tokio::spawn(async move { serve(ours, &log).await });
    app.write_all(b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    app.write_all(b"hello").await.unwrap();
    app.shutdown().await.unwrap();
    assert_eq!(
        read_all(&mut app).await,
        format!("HTTP/1.1 100 Continue\r\n\r\n{OK}")
    );
}

#[tokio::test(start_paused = true)]
async fn a_switch_hands_over_what_was_sent_ahead() {
    for pieces in cuts(b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n\x16\x03\x01rest") {
        let script = Script::new(pieces.clone(), End::Eof);
        let written = script.written.clone();
        let (give, take) = std::sync::mpsc::channel();
        server::serve(
            script,
            LIMITS,
            |_| {},
            async |_| {
                let give = give.clone();
                let next = move |stream, early| {
                    give.send((stream, early)).unwrap();
                    Box::pin(async {}) as TakenOver
                };
                Handled::<_, Said>::Switch(Response::new(()), Box::new(next))
            },
        )
        .await;
        let (mut stream, early): (Script, Bytes) = take.recv().unwrap();
        let mut all = early.to_vec();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"\x16\x03\x01rest", "{pieces:?}");
        let text = written.text();
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\ndate: ") && text.ends_with("\r\n\r\n"),
            "{text}"
        );
        assert!(
            !text.contains("content-length") && !text.contains("connection"),
            "{text}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_shaped_for_who_asked() {
    let said = |end, length| {
        let mut body = Said::pieces(&["he", "llo"]);
        (body.end, body.length) = (end, length);
        body
    };
    let get = "GET / HTTP/1.1\r\n\r\n";
    let chunks = "transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n";
    for (request, status, end, length, head_and_body, is_kept) in [
        (
            get,
            200,
            SaidEnd::Known,
            Some(5),
            "content-length: 5\r\n\r\nhello".to_owned(),
            true,
        ),
        (get, 200, SaidEnd::Known, None, format!("{chunks}0\r\n\r\n"), true),
        (get, 200, SaidEnd::Cut, None, chunks.to_owned(), false),
        (
            get,
            200,
            SaidEnd::Cut,
            Some(9),
            "content-length: 9\r\n\r\nhello".to_owned(),
            false,
        ),
        (
            get,
            200,
            SaidEnd::Known,
            Some(9),
            "content-length: 9\r\n\r\nhe".to_owned(),
            false,
        ),
        (get, 204, SaidEnd::Known, Some(5), "\r\n".to_owned(), true),
        (get, 304, SaidEnd::Known, None, "\r\n".to_owned(), true),
        (
            "HEAD / HTTP/1.1\r\n\r\n",
            200,
            SaidEnd::Known,
            Some(5),
            "\r\n".to_owned(),
            true,
        ),
        (
            "GET / HTTP/1.0\r\n\r\n",
            200,
            SaidEnd::Cut,
            None,
            "connection: close\r\n\r\nhello<reset>".to_owned(),
            false,
        ),
        (
            "GET / HTTP/1.0\r\n\r\n",
            200,
            SaidEnd::Known,
            None,
            "connection: close\r\n\r\nhello".to_owned(),
            false,
        ),
        (
            "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
            200,
            SaidEnd::Known,
            None,
            "connection: close\r\n\r\nhello".to_owned(),
            false,
        ),
    ] {
        let stream = Script::whole(request.repeat(2));
        let (written, status) = (stream.written.clone(), StatusCode::from_u16(status).unwrap());
        let mut answers = 0;
        server::serve(
            stream,
            LIMITS,
            |_| {},
            |_| {
                answers += 1;
                std::future::ready(answer(status, said(end, length)))
            },
        )
        .await;
        let line = format!(
            "HTTP/1.1 {} {}\r\ndate: now\r\n",
            status.as_str(),
            status.canonical_reason().unwrap()
        );
        let expected = format!("{line}{head_and_body}").repeat(if is_kept { 2 } else { 1 });
        assert_eq!(
            (written.text(), answers == 2),
            (expected, is_kept),
            "{request:?} {status} {end:?} {length:?}"
        );
    }
}

/// A body says how much of it is left, and that it is over, as soon as that is known.
#[tokio::test(start_paused = true)]
async fn a_body_tells_its_length_and_its_end() {
    let stream = Script::new(
        ["POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n", "he", "llo"].map(Bytes::from),
        End::Eof,
    );
    server::serve(
        stream,
        LIMITS,
        |_| {},
        async |request| {
            let mut body = request.unwrap().into_parts().1.unwrap();
            let mut seen = VecDeque::new();
            seen.push_back((body.size_hint().exact(), body.is_end_stream()));
            while let Some(frame) = poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
                assert!(frame.unwrap().is_data());
                seen.push_back((body.size_hint().exact(), body.is_end_stream()));
            }
            assert_eq!(seen, [(Some(5), false), (Some(3), false), (Some(0), true)]);
            answer(StatusCode::OK, Said::of("ok"))
        },
    )
    .await;
}

/// One whose answer has gone out is given up: what else comes belongs to nobody, and must not be taken in part.
#[tokio::test(start_paused = true)]
async fn a_body_that_outlives_its_answer_breaks_off_and_has_no_holes() {
    let (mut app, ours) = duplex(1000);
    let (give, mut take) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(server::serve(
        ours,
        LIMITS,
        |_| {},
        move |request: Result<Request<Option<Inbound>>, Error>| {
            give.send(request.unwrap()).unwrap();
            std::future::ready(answer(StatusCode::OK, Said::of("ok")))
        },
    ));
    app.write_all(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        .await
        .unwrap();
    let request = take.recv().await.unwrap();
    let heard = tokio::spawn(hear(request));
    assert_eq!(app.read_u8().await.unwrap(), b'H');
    let answer = read_all(&mut app).await;
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    // A hole here would leave a body that looks whole.
    for chunk in ["1\r\nb\r\n", "1\r\nc\r\n", "0\r\n\r\n"] {
        let _ = app.write_all(chunk.as_bytes()).await;
        tokio::task::yield_now().await;
    }
    let heard = tokio::time::timeout(Duration::from_secs(60), heard).await;
    assert_eq!(
        heard.unwrap().unwrap(),
        Err("body: the connection ended inside a message".to_owned())
    );
}

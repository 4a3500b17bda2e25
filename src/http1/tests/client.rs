//! The upstream's side: what an answer is, what leaves the connection for another, and what time there is.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex};
use tokio::time::Instant;

use super::exchange::{LIMIT, LIMITS, ask, asked, get, kind};
use super::script::{End, Said, SaidEnd, Script, cuts};
use crate::http1::client::{ClientConnection, ReadError, SendError};
use crate::message::{Request, RequestHead};

fn parts(method: Method) -> Box<RequestHead> {
    let request = http::Request::builder().method(method).uri("/");
    Request::from(request.body(()).unwrap()).into_parts().0
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_the_same_wherever_it_is_cut() {
    for (text, body, is_reusable) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "hello", true),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nt: u\r\n\r\n",
            "hello",
            true,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nhello", "hello", false),
        ("HTTP/1.1 204 No Content\r\n\r\n", "", true),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 X\r\n\r\n",
            "",
            true,
        ),
        ("HTTP/1.1 200 OK\ncontent-length: 5\n\nhello", "hello", true),
    ] {
        for pieces in cuts(text.as_bytes()) {
            let got = asked(Script::new(pieces.clone(), End::Eof)).await.unwrap();
            assert!(got.cut.is_none(), "{pieces:?}");
            assert_eq!(
                (&got.body[..], got.is_reusable),
                (body.as_bytes(), is_reusable),
                "{pieces:?}"
            );
            assert_eq!(
                got.trailers.len(),
                usize::from(text.contains("t: u")),
                "{pieces:?}"
            );
            assert!(
                got.response.headers().get("link").is_none(),
                "what is early is not the answer"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_used_again_where_nothing_speaks_against_it() {
    let (get, head) = (Method::GET, Method::HEAD);
    for (method, answer, is_reusable) in [
        (&get, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
        (
            &get,
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            false,
        ),
        (
            &get,
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: x\r\nconnection: CLOSE\r\n\r\n",
            false,
        ),
        (&get, "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", false),
        (
            &get,
            "HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n",
            true,
        ),
        (&get, "HTTP/1.1 200 OK\r\n\r\n", false),
        // Bytes that belong to nobody would be the next answer's beginning.
        (&get, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n\n", false),
        (&get, "HTTP/1.1 204 X\r\ncontent-length: 5\r\n\r\nhello", false),
        (&get, "HTTP/1.1 304 X\r\ncontent-length: 5\r\n\r\nhello", false),
        (&get, "HTTP/1.1 304 X\r\ncontent-length: 5\r\n\r\n", true),
        (
            &get,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            false,
        ),
        // Two framings: the coding decides, and nothing more is believed.
        (
            &get,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
            false,
        ),
        (&get, "HTTP/1.1 101 X\r\nupgrade: y\r\n\r\n", false),
        (&head, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", true),
        (&head, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", false),
        (
            &head,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            true,
        ),
        (&head, "HTTP/1.1 200 OK\r\n\r\n", true),
    ] {
        let mut connection = ClientConnection::new(Script::new([Bytes::from(answer)], End::Never), LIMITS);
        if answer == "HTTP/1.1 200 OK\r\n\r\n" && method == Method::GET {
            connection = ClientConnection::new(Script::whole(answer), LIMITS);
        }
        let got = ask(&mut connection, &parts(method.clone()), Said::default())
            .await
            .unwrap();
        assert!(got.cut.is_none() && got.body.is_empty(), "{answer:?}: {got:?}");
        assert_eq!(got.is_reusable, is_reusable, "{method} {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_lost_only_where_not_a_byte_of_an_answer_came() {
    let (reset, tls) = (io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof);
    for end in [End::Eof, End::Error(reset), End::Error(tls)] {
        let is_eof = matches!(end, End::Eof);
        for (text, expected) in [
            ("", "lost"),
            ("H", if is_eof { "answer cut" } else { "answer broken" }),
            (
                "HTTP/1.1 200 OK\r\nx: y\r\n",
                if is_eof { "answer cut" } else { "answer broken" },
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\n",
                if is_eof { "answer cut" } else { "answer broken" },
            ),
            ("SSH-2.0-OpenSSH\r\n", "no answer"),
            ("HTTP/1.1 200 OK\r\nx y\r\n\r\n", "no answer"),
            ("HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello", "no answer"),
            ("HTTP/2 200\r\n\r\n", "no answer"),
        ] {
            let failure = asked(Script::new([Bytes::from(text)], end)).await.unwrap_err();
            assert_eq!(kind(&failure), expected, "{text:?} {end:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_cut_never_looks_whole() {
    for (text, end) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", End::Eof),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
            End::Eof,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n",
            End::Never,
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\nhello",
            End::Error(io::ErrorKind::ConnectionReset),
        ),
        // TLS that ends without saying so.
        (
            "HTTP/1.1 200 OK\r\n\r\nhello",
            End::Error(io::ErrorKind::UnexpectedEof),
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", End::Never),
    ] {
        let got = asked(Script::new([Bytes::from(text)], end)).await.unwrap();
        assert!(got.cut.is_some() && !got.is_reusable, "{text:?} {end:?}");
        assert_eq!(
            matches!(got.cut, Some(ReadError::Idle)),
            matches!(end, End::Never) && !text.contains("x\r\n"),
            "{text:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn there_is_an_end_to_what_comes_before_an_answer() {
    let early = "HTTP/1.1 102 Processing\r\n\r\n";
    for (times, is_taken) in [(100, true), (101, false)] {
        let text = format!("{}HTTP/1.1 204 X\r\n\r\n", early.repeat(times));
        assert_eq!(asked(Script::whole(text)).await.is_ok(), is_taken, "{times}");
    }
    let endless = Script::new(
        [Bytes::from(format!(
            "HTTP/1.1 200 OK\r\nx: {}",
            "y".repeat(70_000)
        ))],
        End::Never,
    );
    assert_eq!(kind(&asked(endless).await.unwrap_err()), "answer too large");
}

/// The upstream's end is the test's.
fn connect() -> (ClientConnection<DuplexStream, Said>, DuplexStream) {
    let (ours, upstream) = duplex(64);
    (ClientConnection::new(ours, LIMITS), upstream)
}

async fn expect(upstream: &mut DuplexStream, text: &str) {
    let mut read = vec![0; text.len()];
    upstream.read_exact(&mut read).await.unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), text);
}

const POST: &str = "POST / HTTP/1.1\r\nhost: origin.test\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn an_answer_may_come_before_its_request_is_out() {
    for (answer, is_reusable) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", true),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
            false,
        ),
    ] {
        let (mut connection, mut upstream) = connect();
        let other = tokio::spawn(async move {
            expect(&mut upstream, POST).await;
            upstream.write_all(answer.as_bytes()).await.unwrap();
            // It wants all of the request still, which does not fit into the stream at once.
            for _ in 0..100 {
                expect(&mut upstream, "a\r\nten bytes!\r\n").await;
            }
            expect(&mut upstream, "0\r\n\r\n").await;
            upstream
        });
        let mut body = Said::pieces(&["ten bytes!"; 100]);
        body.end = SaidEnd::Asked;
        let got = ask(&mut connection, &parts(Method::POST), body).await.unwrap();
        assert_eq!(
            (&got.body[..], got.cut.is_none(), got.is_reusable),
            (&b"hello"[..], true, is_reusable),
            "{answer:?}"
        );
        other.await.unwrap();
    }
}

/// It has read the head only, and does not close: 413 from a server that wants no more.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_all_there_is_whole_though_its_request_never_gets_out() {
    for stuck in ["upload", "app"] {
        let (mut connection, mut upstream) = connect();
        let other = tokio::spawn(async move {
            expect(&mut upstream, POST).await;
            upstream
                .write_all(b"HTTP/1.1 413 X\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n")
                .await
                .unwrap();
            upstream
        });
        let mut body = Said::pieces(if stuck == "app" { &[] } else { &["ten bytes!"; 100] });
        body.end = SaidEnd::Never;
        let start = Instant::now();
        let got = ask(&mut connection, &parts(Method::POST), body).await.unwrap();
        assert!(
            got.cut.is_none() && got.body == b"no" && !got.is_reusable,
            "{got:?}"
        );
        assert_eq!(start.elapsed(), LIMIT);
        drop(other.await.unwrap());
    }
}

/// The upstream says why it stops reading before it does.
#[tokio::test(start_paused = true)]
async fn an_answer_is_heard_though_the_request_could_not_be_written() {
    let (mut connection, mut upstream) = connect();
    let other = tokio::spawn(async move {
        expect(&mut upstream, POST).await;
        upstream
            .write_all(b"HTTP/1.1 413 X\r\ncontent-length: 2\r\n\r\nno")
            .await
            .unwrap();
    });
    let got = ask(
        &mut connection,
        &parts(Method::POST),
        Said::pieces(&["ten bytes!"; 100]),
    )
    .await
    .unwrap();
    assert_eq!(
        (got.response.status().as_u16(), &got.body[..], got.is_reusable),
        (413, &b"no"[..], false)
    );
    other.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_breaks_off_is_not_answered_and_does_not_look_whole() {
    for (length, end, expected) in [
        (None, SaidEnd::Cut, "body"),
        (Some(9), SaidEnd::Cut, "body"),
        (Some(9), SaidEnd::Known, "length"),
        (Some(3), SaidEnd::Known, "length"),
    ] {
        let stream = Script::new([], End::Never);
        let written = stream.written.clone();
        let mut body = Said::pieces(&["hello"]);
        (body.length, body.end) = (length, end);
        let mut connection = ClientConnection::new(stream, LIMITS);
        let failure = ask(&mut connection, &parts(Method::POST), body)
            .await
            .unwrap_err();
        assert_eq!(
            (kind(&failure), connection.is_reusable()),
            (expected, false),
            "{length:?} {end:?}"
        );
        assert!(!written.text().ends_with("0\r\n\r\n"), "{}", written.text());
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_for_an_answer_runs_from_the_last_piece_that_the_upstream_took() {
    let second = Duration::from_secs(1);
    // None of its body is to be sent: from the beginning.
    let (mut connection, _upstream) = connect();
    let start = Instant::now();
    let authority = HeaderValue::from_static("a");
    let failure = connection
        .send(&get(), &authority, Said::default(), 10 * second, |_| {})
        .await
        .unwrap_err();
    assert!(matches!(failure, SendError::TimedOut) && start.elapsed() == 10 * second);

    // Pieces that take long.
    let (mut connection, mut upstream) = connect();
    let start = Instant::now();
    let reading = tokio::spawn(async move {
        let mut all = 0;
        for _ in 0..5 {
            tokio::time::sleep(8 * second).await;
            all += upstream.read(&mut [0; 64]).await.unwrap();
        }
        (upstream, all)
    });
    let body = Said::pieces(&["twenty bytes, always"; 20]);
    let failure = connection
        .send(&parts(Method::POST), &authority, body, 10 * second, |_| {})
        .await
        .unwrap_err();
    assert!(matches!(failure, SendError::TimedOut), "{failure:?}");
    assert_eq!(start.elapsed(), 50 * second);
    assert_eq!(reading.await.unwrap().1, 5 * 64);
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_stand_still_for_so_long_and_no_longer() {
    let (mut connection, mut upstream) = connect();
    let start = Instant::now();
    let other = tokio::spawn(async move {
        upstream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        for _ in 0..3 {
            tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
            upstream.write_all(b"x").await.unwrap();
        }
        upstream
    });
    let got = ask(&mut connection, &get(), Said::default()).await.unwrap();
    assert!(
        matches!(got.cut, Some(ReadError::Idle)) && got.body == b"xxx",
        "{got:?}"
    );
    assert_eq!(start.elapsed(), 4 * LIMIT - Duration::from_secs(3));
    other.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_waits_is_fresh_until_something_comes() {
    for what in ["nothing", "bytes", "end"] {
        let (mut connection, mut upstream) = connect();
        let request = get();
        let answering = async {
            upstream.write_all(b"HTTP/1.1 204 X\r\n\r\n").await.unwrap();
        };
        let (got, ()) = tokio::join!(ask(&mut connection, &request, Said::default()), answering);
        assert!(got.unwrap().is_reusable);
        let mut kept = Some(upstream);
        match what {
            "bytes" => kept.as_mut().unwrap().write_all(b"H").await.unwrap(),
            "end" => drop(kept.take()),
            _ => {}
        }
        // However much the task has done before: a spent budget makes everything look as if it had to wait.
        poll_fn(|cx| {
            let (mut many, mut sink) = (tokio::io::repeat(0), [0; 1]);
            for _ in 0..1000 {
                let _ = Pin::new(&mut many).poll_read(cx, &mut ReadBuf::new(&mut sink));
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!(
            poll_fn(|cx| Poll::Ready(connection.is_fresh(cx))).await,
            what == "nothing",
            "{what}"
        );
        drop(kept);
    }
}

/// After a switch the stream, and what came with the head, belong to another protocol.
#[tokio::test(start_paused = true)]
async fn a_switch_hands_over_what_came_with_it() {
    for pieces in cuts(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n\x81\x02hi") {
        let mut connection = ClientConnection::new(Script::new(pieces.clone(), End::Eof), LIMITS);
        let authority = HeaderValue::from_static("a");
        let response = connection
            .send(&get(), &authority, Said::default(), LIMIT, |_| {})
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), 101);
        let (mut stream, early) = connection.into_parts();
        let mut all = early.to_vec();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"\x81\x02hi", "{pieces:?}");
    }
}

/// A waker that does nothing must not stand in the way of who waits in earnest.
#[tokio::test(start_paused = true)]
async fn a_look_from_outside_loses_no_wake_up() {
    let (mut connection, mut upstream) = connect();
    assert!(connection.is_fresh(&mut Context::from_waker(Waker::noop())));
    let request = get();
    let answering = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        upstream.write_all(b"HTTP/1.1 204 X\r\n\r\n").await.unwrap();
    };
    let (got, ()) = tokio::join!(ask(&mut connection, &request, Said::default()), answering);
    assert_eq!(got.unwrap().response.status().as_u16(), 204);
}

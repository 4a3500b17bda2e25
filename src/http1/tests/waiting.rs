//! The app's side: how long each wait may last.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::exchange::{LIMIT, LIMITS, Log, answer, get, hear, read_all, serve};
use super::script::{End, Said, SaidEnd, Script};
use crate::http1::client::ClientConnection;
use crate::http1::server::{self, Handled};
use crate::http1::{Error, Inbound};
use crate::message::Request;

const OK: &str = "HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\n\r\nok";
const LONG: &str = "an answer that does not fit into the little room that there is";

#[tokio::test(start_paused = true)]
async fn who_is_waited_for_without_end_is_left() {
    for (sent, seconds, last) in [
        ("", 120, ""),
        ("\r\n", 120, ""),
        ("G", 30, "HTTP/1.1 400"),
        ("GET / HTTP/1.1\r\nx", 30, "HTTP/1.1 400"),
    ] {
        let (mut app, ours) = duplex(1000);
        let (start, log) = (Instant::now(), Log::default());
        let serving = tokio::spawn({
            let log = log.clone();
            async move { serve(ours, &log).await }
        });
        app.write_all(sent.as_bytes()).await.unwrap();
        let text = read_all(&mut app).await;
        assert_eq!(start.elapsed().as_secs(), seconds, "{sent:?}");
        assert!(
            text.starts_with(last) && text.is_empty() == last.is_empty(),
            "{sent:?}: {text}"
        );
        drop(app);
        ended(serving).await;
    }
}

/// A head that comes a byte at a time gets no more time for that.
#[tokio::test(start_paused = true)]
async fn a_head_has_to_come_in_time_whatever_else_comes() {
    let (mut app, ours) = duplex(1000);
    let (start, log) = (Instant::now(), Log::default());
    let serving = tokio::spawn(async move { serve(ours, &log).await });
    app.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    while app.write_all(b"x: y\r\n").await.is_ok() && start.elapsed().as_secs() < 60 {
        tokio::time::sleep(Duration::from_secs(7)).await;
    }
    ended(serving).await;
    assert_eq!(
        start.elapsed().as_secs(),
        35,
        "30 s, and the app notices at its next write"
    );
}

#[tokio::test(start_paused = true)]
async fn an_app_that_closes_its_half_gets_its_answer_and_one_that_left_is_noticed() {
    for (wait, is_there) in [(0, true), (4, true), (600, true), (600, false)] {
        let (mut app, ours) = duplex(1000);
        let start = Instant::now();
        let serving = tokio::spawn(server::serve(
            ours,
            LIMITS,
            |_| {},
            move |_: Result<Request<Option<Inbound>>, Error>| async move {
                tokio::time::sleep(Duration::from_secs(wait)).await;
                answer(StatusCode::OK, Said::of("ok"))
            },
        ));
        app.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        app.shutdown().await.unwrap();
        if is_there {
            assert_eq!(read_all(&mut app).await, OK);
            assert_eq!(start.elapsed().as_secs(), wait);
        } else {
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert_eq!(app.read_u8().await.unwrap(), b'H');
            drop(app);
            ended(serving).await;
            assert!(start.elapsed().as_secs() <= 25, "{:?}", start.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_that_reads_nothing_of_its_answer_is_left() {
    for (pause, read, seconds) in [(0, 0, 60), (59, 1, 119), (59, 4, 59 * 4 + 60)] {
        let (mut app, ours) = duplex(10);
        let start = Instant::now();
        let serving = tokio::spawn(server::serve(
            ours,
            LIMITS,
            |_| {},
            move |_: Result<Request<Option<Inbound>>, Error>| {
                std::future::ready(answer(StatusCode::OK, Said::of(LONG)))
            },
        ));
        app.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        for _ in 0..read {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            app.read_exact(&mut [0; 10]).await.unwrap();
        }
        ended(serving).await;
        assert_eq!(start.elapsed().as_secs(), seconds, "{pause} {read}");
    }
}

/// The upstream may be silent for much longer than an app that has left should cost.
#[tokio::test(start_paused = true)]
async fn an_app_that_leaves_in_the_middle_of_its_answer_is_noticed() {
    for (is_closed, seconds) in [(true, 10), (false, 3600)] {
        let (mut app, ours) = duplex(1000);
        let start = Instant::now();
        let serving = tokio::spawn(server::serve(
            ours,
            LIMITS,
            |_| {},
            |_: Result<Request<Option<Inbound>>, Error>| {
                let mut body = Said::pieces(&["first"]);
                body.end = SaidEnd::Never;
                std::future::ready(answer(StatusCode::OK, body))
            },
        ));
        app.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(app.read_u8().await.unwrap(), b'H');
        tokio::time::sleep(Duration::from_secs(5)).await;
        if is_closed {
            drop(app);
            ended(serving).await;
        } else {
            assert!(
                tokio::time::timeout(Duration::from_secs(3595), serving)
                    .await
                    .is_err()
            );
        }
        assert_eq!(start.elapsed().as_secs(), seconds);
    }
}

/// What reads the body may be another task than the one that waits for the app to leave.
#[tokio::test(start_paused = true)]
async fn an_app_that_leaves_is_noticed_by_whoever_does_not_read_its_body() {
    let (mut app, ours) = duplex(1000);
    let start = Instant::now();
    let serving = tokio::spawn(server::serve(
        ours,
        LIMITS,
        |_| {},
        |request: Result<Request<Option<Inbound>>, Error>| {
            tokio::spawn(hear(request.unwrap()));
            std::future::pending::<Handled<DuplexStream, Said>>()
        },
    ));
    app.write_all(b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    app.write_all(b"hello").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(app);
    tokio::time::timeout(Duration::from_secs(60), serving)
        .await
        .expect("it was not noticed")
        .unwrap();
    assert_eq!(start.elapsed().as_secs(), 2);
}

/// What it keeps shows by who else holds the buffer that a body was read into.
#[tokio::test(start_paused = true)]
async fn a_connection_that_waits_holds_no_large_buffer() {
    let (mut app, ours) = duplex(1 << 20);
    let (give, mut take) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(server::serve(
        ours,
        LIMITS,
        |_| {},
        move |request: Result<Request<Option<Inbound>>, Error>| {
            let give = give.clone();
            async move {
                let mut body = request.unwrap().into_parts().1.unwrap();
                while let Some(frame) = body.frame().await {
                    give.send(frame.unwrap().into_data().unwrap()).unwrap();
                }
                answer(StatusCode::OK, Said::of("ok"))
            }
        },
    ));
    let head = "POST / HTTP/1.1\r\ncontent-length: 60000\r\n\r\n";
    app.write_all(format!("{head}{}", "x".repeat(60_000)).as_bytes())
        .await
        .unwrap();
    let piece = take.recv().await.unwrap();
    app.read_exact(&mut [0; OK.len()]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(piece.len() == 60_000 && piece.is_unique());

    let text = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n{}",
        "x".repeat(60_000)
    );
    let mut connection = ClientConnection::new(Script::new([Bytes::from(text)], End::Never), LIMITS);
    let authority = HeaderValue::from_static("a");
    connection
        .send(&get(), &authority, Said::default(), LIMIT, |_| {})
        .await
        .unwrap();
    let frame = poll_fn(|cx| connection.poll_frame(cx, LIMIT)).await;
    let piece = frame.unwrap().unwrap().into_data().unwrap();
    connection.rest();
    assert!(piece.len() == 60_000 && piece.is_unique());
}

/// A wait without a limit fails here, where it would hang.
async fn ended<R>(serving: JoinHandle<R>) {
    let ended = tokio::time::timeout(Duration::from_secs(24 * 3600), serving).await;
    ended.expect("it waits for ever").unwrap();
}

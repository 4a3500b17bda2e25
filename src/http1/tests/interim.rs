//! What comes before the final answer, on both sides. Time stands still but for timers.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::exchange::{LIMIT, LIMITS, answer, asked, get, hear, read_all};
use super::script::{End, Said, SaidEnd, Script, cuts};
use crate::http1::client::{ClientConnection, SendError};
use crate::http1::server;
use crate::http1::{Error, Inbound, Interim};
use crate::message::{Request, Response};

type Asked = (Request<Option<Inbound>>, oneshot::Sender<StatusCode>);

/// An app, what it has asked, and where interim answers to it go.
fn app() -> (DuplexStream, mpsc::UnboundedReceiver<Asked>, Weak<dyn Interim>) {
    let (app, ours) = duplex(100_000);
    let (give, take) = mpsc::unbounded_channel();
    let interim = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&interim);
    let begins = move |weak| *noted.lock().unwrap() = Some(weak);
    let serving = server::serve(ours, LIMITS, begins, move |request: Result<_, Error>| {
        let (say, said) = oneshot::channel();
        give.send((request.unwrap(), say)).unwrap();
        async move { answer(said.await.unwrap(), Said::of("ok")) }
    });
    let mut serving = Box::pin(serving);
    // As far as that it is known.
    let first = Future::poll(
        serving.as_mut(),
        &mut std::task::Context::from_waker(std::task::Waker::noop()),
    );
    assert!(first.is_pending());
    tokio::spawn(serving);
    let interim = interim.lock().unwrap().take().unwrap();
    (app, take, interim)
}

fn early(status: u16, fields: &[(&'static str, &'static str)]) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in fields {
        (response.headers_mut()).append(*name, HeaderValue::from_static(value));
    }
    response
}

async fn expect(app: &mut DuplexStream, text: &str) {
    let mut read = vec![0; text.len()];
    app.read_exact(&mut read).await.unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), text);
}

const WAITS: &[u8] = b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
const GO_ON: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\n\r\nok";
const CLOSE: &str = "HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

/// By the upstream, by who has to have the body whatever the upstream says, or by the time.
#[tokio::test(start_paused = true)]
async fn leave_to_send_the_body_is_given_once() {
    for (by, wait) in [("upstream", 0), ("need", 0), ("time", 1)] {
        let (mut app, mut take, interim) = app();
        app.write_all(WAITS).await.unwrap();
        let (request, say) = take.recv().await.unwrap();
        let body = request.body().as_ref().unwrap();
        let start = Instant::now();
        match by {
            "upstream" => interim.upgrade().unwrap().interim(early(100, &[("x", "y")])),
            "need" => body.ask(),
            _ => {}
        }
        let reading = tokio::spawn(hear(request));
        expect(&mut app, GO_ON).await;
        assert_eq!(start.elapsed().as_secs(), wait, "{by}");
        // It comes too late.
        interim.upgrade().unwrap().interim(early(100, &[]));
        app.write_all(b"hello").await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap().body, b"hello", "{by}");
        say.send(StatusCode::OK).unwrap();
        expect(&mut app, OK).await;
    }
}

/// The upstream's word comes while the body is waited for, by another task, as with HTTP/2.
#[tokio::test(start_paused = true)]
async fn leave_wakes_who_waits_for_the_body() {
    let (mut app, mut take, interim) = app();
    app.write_all(WAITS).await.unwrap();
    let (request, _say) = take.recv().await.unwrap();
    let start = Instant::now();
    let reading = tokio::spawn(hear(request));
    tokio::task::yield_now().await;
    interim.upgrade().unwrap().interim(early(100, &[]));
    expect(&mut app, GO_ON).await;
    assert!(
        start.elapsed() < Duration::from_millis(100),
        "{:?}",
        start.elapsed()
    );
    app.write_all(b"hello").await.unwrap();
    assert_eq!(reading.await.unwrap().unwrap().body, b"hello");
}

/// It may or may not send the body now, and what comes next could be either.
#[tokio::test(start_paused = true)]
async fn who_is_answered_while_it_waits_is_not_heard_again() {
    for is_allowed in [false, true] {
        let (mut app, mut take, interim) = app();
        app.write_all(WAITS).await.unwrap();
        let (request, say) = take.recv().await.unwrap();
        if is_allowed {
            interim.upgrade().unwrap().interim(early(100, &[]));
        }
        drop(request);
        say.send(StatusCode::OK).unwrap();
        app.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        app.shutdown().await.unwrap();
        assert_eq!(read_all(&mut app).await, CLOSE);
        assert!(take.recv().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn interim_answers_come_before_the_final_one_and_not_after() {
    let (mut app, mut take, interim) = app();
    for _ in 0..2 {
        app.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let (_, say) = take.recv().await.unwrap();
        let sink = interim.upgrade().unwrap();
        // Nobody has asked for it.
        sink.interim(early(100, &[]));
        sink.interim(early(103, &[("link", "</a>"), ("content-length", "5")]));
        sink.interim(early(199, &[]));
        drop(sink);
        say.send(StatusCode::OK).unwrap();
        expect(
            &mut app,
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 199 \r\n\r\n",
        )
        .await;
        expect(&mut app, OK).await;
        interim.upgrade().unwrap().interim(early(103, &[]));
    }
    app.shutdown().await.unwrap();
    assert_eq!(read_all(&mut app).await, "");
    assert!(interim.upgrade().is_none(), "the connection is over");
}

/// The first bytes of an answer show whether an app closed only its side or has left. An interim answer's will do.
#[tokio::test(start_paused = true)]
async fn what_was_sent_ahead_begins_an_interim_answer() {
    let (mut app, mut take, interim) = app();
    app.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let (_, say) = take.recv().await.unwrap();
    app.shutdown().await.unwrap();
    expect(&mut app, "HT").await;
    interim.upgrade().unwrap().interim(early(103, &[]));
    tokio::time::sleep(Duration::from_secs(20)).await;
    say.send(StatusCode::OK).unwrap();
    let rest = read_all(&mut app).await;
    assert_eq!(rest, format!("TP/1.1 103 Early Hints\r\n\r\n{OK}"));
}

/// An app that reads nothing does not fill our memory.
#[tokio::test(start_paused = true)]
async fn what_the_app_does_not_read_is_bounded() {
    let (mut app, mut take, interim) = app();
    app.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let (_, say) = take.recv().await.unwrap();
    let link = Box::leak("x".repeat(8000).into_boxed_str());
    for _ in 0..1000 {
        interim.upgrade().unwrap().interim(early(103, &[("link", link)]));
    }
    say.send(StatusCode::OK).unwrap();
    app.shutdown().await.unwrap();
    let all = read_all(&mut app).await;
    assert!(all.len() < 70_000 && all.ends_with("ok"), "{}", all.len());
}

/// An upstream that says that it works on it has more time.
#[tokio::test(start_paused = true)]
async fn an_interim_answer_extends_the_wait() {
    let (ours, mut upstream) = duplex(1000);
    let other = tokio::spawn(async move {
        for _ in 0..5 {
            tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
            upstream
                .write_all(b"HTTP/1.1 102 Processing\r\n\r\n")
                .await
                .unwrap();
        }
        upstream
    });
    let start = Instant::now();
    let mut connection = ClientConnection::new(ours, LIMITS);
    let authority = HeaderValue::from_static("a");
    let sent = connection
        .send(&get(), &authority, Said::default(), LIMIT, |_| {})
        .await;
    assert!(matches!(sent, Err(SendError::TimedOut)), "{sent:?}");
    assert_eq!(start.elapsed(), 6 * LIMIT - Duration::from_secs(5));
    drop(other.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn interim_answers_are_told_wherever_they_are_cut() {
    let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    for pieces in cuts(text.as_bytes()) {
        let got = asked(Script::new(pieces, End::Eof)).await.unwrap();
        let told: Vec<_> = got.interim.iter().map(|early| early.status().as_u16()).collect();
        assert_eq!((told, got.response.status().as_u16()), (vec![100, 103], 204));
        assert_eq!(got.interim[1].headers()["link"], "x");
    }
}

/// Of a body that waits for leave nothing is sent once there is an answer; any other goes on.
#[tokio::test(start_paused = true)]
async fn a_body_that_waited_is_given_up_with_the_answer() {
    for (expects, is_given_up) in [(true, true), (false, false)] {
        let mut parts = get();
        if expects {
            (parts.headers).insert("expect", HeaderValue::from_static("100-continue"));
        }
        let answer = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
        let mut connection = ClientConnection::new(Script::new([Bytes::from(answer)], End::Never), LIMITS);
        let body = Said {
            length: Some(5),
            end: SaidEnd::Never,
            ..Said::default()
        };
        let authority = HeaderValue::from_static("a");
        let sent = connection.send(&parts, &authority, body, LIMIT, |_| {}).await;
        assert_eq!(sent.unwrap().status(), StatusCode::UNAUTHORIZED);
        assert_eq!(connection.is_done(), is_given_up, "{expects}");
        assert!(!connection.is_reusable(), "{expects}");
    }
}

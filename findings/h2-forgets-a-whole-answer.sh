#!/usr/bin/env bash
# The Rust crate h2 forgets that an answer was whole when the connection ends before the request does.
#
# Versions: h2 0.4.20, tokio 1.54.1.
# Behaviour: a server sends HEADERS, DATA and END_STREAM while a POST is still being uploaded, then closes the connection
#   (RFC 9113 section 8.1 lets a server answer early). The client has the head with status 200, and reads the body a moment
#   later, when its connection task has seen the close. h2 reports a broken pipe in the place of the body's end: END_STREAM,
#   which came first, is overwritten by the end of the connection. Read before the close, the same body is whole.
# Guess that was wrong: what was received before the connection ended can be read as if it had not.
# Output seen:
#   h2, read before the end: status 200, body "hello", end
#   h2, read after the end: status 200, body "hello", error: stream closed because of a broken pipe
#
# Needs cargo. Everything is on loopback, in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/src"
cat >"$tmp/Cargo.toml" <<'TOML'
[package]
name = "early"
version = "0.0.0"
edition = "2021"
[dependencies]
h2 = "=0.4.20"
http = "1"
bytes = "1"
tokio = { version = "=1.54.1", features = ["rt", "net", "time", "macros", "io-util", "sync"] }
TOML
cat >"$tmp/src/main.rs" <<'RUST'
use std::time::Duration;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, payload.len() as u8, kind, flags];
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// Answers the first request whole while its body is on its way, and closes when it is told to.
async fn serve(mut socket: TcpStream, close: oneshot::Receiver<()>) {
    let mut bytes = vec![0; 24];
    socket.read_exact(&mut bytes).await.unwrap();
    socket.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await.unwrap();
        let mut rest = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        socket.read_exact(&mut rest).await.unwrap();
        if head[3] == 1 {
            break;
        }
    }
    let mut answer = frame(1, 4, 1, &[0x88]);
    answer.extend(frame(0, 1, 1, b"hello"));
    socket.write_all(&answer).await.unwrap();
    let _ = close.await;
    socket.shutdown().await.unwrap();
    let _ = timeout(Duration::from_secs(2), socket.read_to_end(&mut Vec::new())).await;
}

async fn ask(read_after_end: bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (close, closing) = oneshot::channel();
    tokio::spawn(async move { serve(listener.accept().await.unwrap().0, closing).await });
    let (mut client, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    let connection = tokio::spawn(async move { let _ = connection.await; });
    let request = http::Request::post("http://localhost/").body(()).unwrap();
    let (response, mut upload) = client.send_request(request, false).unwrap();
    upload.send_data(Bytes::from_static(b"part"), false).unwrap();
    let mut body = response.await.unwrap();
    let status = body.status().as_u16();
    let mut close = Some(close);
    if read_after_end {
        close.take().unwrap().send(()).unwrap();
        let _ = timeout(Duration::from_secs(2), connection).await;
        sleep(Duration::from_millis(50)).await;
    }
    let mut text = String::new();
    let end = loop {
        match body.body_mut().data().await {
            Some(Ok(data)) => text.push_str(std::str::from_utf8(&data).unwrap()),
            Some(Err(error)) => break format!("error: {error}"),
            None => break "end".to_owned(),
        }
    };
    let when = if read_after_end { "after" } else { "before" };
    println!("h2, read {when} the end: status {status}, body {text:?}, {end}");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    ask(false).await;
    ask(true).await;
}
RUST
CARGO_TARGET_DIR=$tmp/target cargo build --quiet --manifest-path "$tmp/Cargo.toml"
seen=$(timeout 20 "$tmp/target/debug/early")
echo "$seen"
diff <(echo "$seen") - <<'SEEN'
h2, read before the end: status 200, body "hello", end
h2, read after the end: status 200, body "hello", error: stream closed because of a broken pipe
SEEN

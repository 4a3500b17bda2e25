//! Uploads of one HTTP/2 connection that wait for a limit, by a real client.

use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::support::h2_origin::H2Partner;
use crate::support::pki::trusting;

const UPLOADS: usize = 60;
/// More than the window of a stream.
const BODY: usize = 200_000;

/// Each has sent what it may before its turn. That must not use up what the connection may carry: the one that is
/// admitted has the rest of its body to send.
#[test]
fn uploads_that_wait_for_a_limit_do_not_stop_the_one_that_is_admitted() {
    let partner = H2Partner::new();
    let proxy = partner.proxy("concurrency: 1, on_limit: wait 1h, queue: 1000");
    let authority = partner.authority();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let socket = TcpStream::connect(proxy.address()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut socket = tokio::net::TcpStream::from_std(socket).unwrap();
        let connect = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        socket.write_all(connect.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        assert!(
            head.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&head)
        );
        let tls = TlsConnector::from(trusting(&proxy.bundle(), &["h2"]));
        let name = ServerName::try_from("partner.test").unwrap();
        let stream = TokioIo::new(tls.connect(name, socket).await.unwrap());
        let (client, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        let _connection = tokio::spawn(connection);
        let mut uploads = JoinSet::new();
        for number in 0..UPLOADS {
            let mut client = client.clone();
            let request = Request::put(format!("https://{authority}/{number}"))
                .body(Full::new(Bytes::from(vec![b'x'; BODY])))
                .unwrap();
            uploads.spawn(async move {
                let answer = client.send_request(request).await.unwrap();
                let status = answer.status();
                let text = answer.into_body().collect().await.unwrap().to_bytes();
                assert_eq!((status.as_u16(), text), (200, Bytes::from(format!("/{number}"))));
            });
        }
        let all = async {
            while let Some(one) = uploads.join_next().await {
                one.unwrap()
            }
        };
        (tokio::time::timeout(Duration::from_secs(60), all).await).expect("no upload waits for another one");
    });
    assert_eq!(partner.asked().len(), UPLOADS);
}

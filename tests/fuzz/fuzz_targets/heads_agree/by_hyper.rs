//! Reads a head with hyper, which also says how the body ends. It is polled by hand, without a runtime.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::{Method, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::{ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper::{client, server};

use crate::{Ends, Read};

/// A body that can be read as chunks, and as plain bytes until the end.
const BODY: &[u8] = b"5\r\nhello\r\n0\r\n\r\n";

/// The number of polls after which hyper has done what it can.
const ROUNDS: usize = 16;

pub(crate) fn request(head: &[u8]) -> Option<Read> {
    let seen = Rc::new(RefCell::new(None));
    let see = Rc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        let (parts, body) = request.into_parts();
        let ends = match (body.is_end_stream(), body.size_hint().exact()) {
            (true, _) => Ends::Nothing,
            (false, Some(length)) => Ends::Length(length),
            (false, None) => Ends::Chunked,
        };
        *see.borrow_mut() = Some(Read {
            start: (parts.method.to_string(), parts.uri.to_string()),
            is_old: parts.version == Version::HTTP_10,
            fields: parts.headers,
            ends: Some(ends),
            rest: None,
        });
        pending::<Result<Response<String>, Infallible>>()
    });
    let mut connection = pin!(
        server::conn::http1::Builder::new()
            .max_headers(100)
            .serve_connection(Stream::new(head, true), service)
    );
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..ROUNDS {
        if connection.as_mut().poll(&mut context).is_ready() {
            break;
        }
    }
    seen.take()
}

pub(crate) fn response(method: &Method, head: &[u8]) -> Option<Read> {
    let mut context = Context::from_waker(Waker::noop());
    let stream = Stream::new(&[head, BODY].concat(), false);
    let handshake = pin!(
        client::conn::http1::Builder::new()
            .max_headers(100)
            .handshake(stream)
    );
    let Poll::Ready(Ok((mut sender, connection))) = handshake.poll(&mut context) else {
        panic!("hyper waits for nothing");
    };
    let mut connection = pin!(connection);
    let request = Request::builder()
        .method(method)
        .uri("/")
        .header("host", "a.test")
        .body(String::new());
    let mut answer = pin!(sender.send_request(request.expect("a request")));
    let mut is_open = true;
    for _ in 0..ROUNDS {
        is_open = is_open && connection.as_mut().poll(&mut context).is_pending();
        let Poll::Ready(answer) = answer.as_mut().poll(&mut context) else {
            continue;
        };
        let (parts, mut body) = answer.ok()?.into_parts();
        let ends = match (body.is_end_stream(), body.size_hint().exact()) {
            (true, _) => Ends::Nothing,
            (false, Some(length)) => Ends::Length(length),
            (false, None) => {
                let mut first = None;
                for _ in 0..ROUNDS {
                    is_open = is_open && connection.as_mut().poll(&mut context).is_pending();
                    let mut frame = pin!(poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)));
                    if let Poll::Ready(frame) = frame.as_mut().poll(&mut context) {
                        first = frame
                            .and_then(Result::ok)
                            .and_then(|frame| frame.into_data().ok());
                        break;
                    }
                }
                match first.as_deref() {
                    Some(b"hello") => Ends::Chunked,
                    Some(BODY) => Ends::UntilClose,
                    other => panic!("hyper reads the body as {other:?}"),
                }
            }
        };
        return Some(Read {
            start: (parts.status.as_str().to_owned(), String::new()),
            is_old: parts.version == Version::HTTP_10,
            fields: parts.headers,
            ends: Some(ends),
            rest: None,
        });
    }
    None
}

/// A stream that gives its bytes and accepts all that is written.
struct Stream {
    bytes: Vec<u8>,
    at: usize,
    /// A client's stream is readable only after something was written.
    is_readable: bool,
}

impl Stream {
    fn new(bytes: &[u8], is_readable: bool) -> Self {
        Self {
            bytes: bytes.to_vec(),
            at: 0,
            is_readable,
        }
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_readable || self.at == self.bytes.len() {
            return Poll::Pending;
        }
        let end = self.bytes.len().min(self.at + buffer.remaining());
        buffer.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.is_readable = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

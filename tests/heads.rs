//! How large a head may be, and what the app hears of a message that cannot be read.

use std::convert::Infallible;
use std::net::TcpListener;
use std::thread;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::support::proxy::destination;
use crate::support::{Origin, Proxy, eventually};

/// Builds `count` field lines of `length` bytes each, line ends included.
fn fields(count: usize, length: usize) -> String {
    (0..count)
        .map(|number| {
            let name = format!("X-Field-{number:05}: ");
            let value = "v".repeat(length - name.len() - 2);
            format!("{name}{value}\r\n")
        })
        .collect()
}

fn answer(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok")
}

/// Node sends 16 KB at most and takes 2,000 fields, curl takes 300 KB: what such programs exchange passes here.
#[test]
fn a_large_answer_passes_and_a_larger_one_names_the_limit() {
    let size = "limits.response_header_size";
    let count = "limits.response_header_count";
    for (limits, sent, expected) in [
        ("", fields(990, 40), None),
        ("", fields(100, 2_500), None),
        ("", fields(1_001, 40), Some(count)),
        ("", fields(100, 2_700), Some(size)),
        ("response_header_size: 16KiB", fields(100, 200), Some(size)),
        ("response_header_count: 10", fields(11, 40), Some(count)),
        (
            "response_header_count: 5000, response_header_size: 1MiB",
            fields(4_000, 200),
            None,
        ),
    ] {
        let origin = Origin::saying(answer(&sent));
        let proxy = Proxy::start(&format!(
            "{}\nlimits: {{ {limits} }}",
            destination(&origin.authority(), "http: 1")
        ));
        let got = proxy.get(&origin.url("/"));
        let case = format!("{limits} {} bytes", sent.len());
        match expected {
            None => {
                assert_eq!((got.status, got.text().as_str()), (200, "ok"), "{case}");
                let all = got
                    .headers
                    .0
                    .iter()
                    .filter(|(name, _)| name.starts_with("x-field-"));
                assert_eq!(all.count(), sent.lines().count(), "{case}");
            }
            Some(key) => {
                let detail = got.assert_ours(502, "http_response_header_section_size");
                assert!(
                    detail.contains(key) && detail.starts_with("partner.test sent"),
                    "{case}: {detail}"
                );
            }
        }
    }
}

/// Each answers with as many fields of as many bytes as the path says, over HTTP/2 in clear.
fn h2_origin() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
        let mut numbers = request.uri().path()[1..]
            .split('/')
            .map(|word| word.parse().unwrap());
        let (count, length): (usize, usize) = (numbers.next().unwrap(), numbers.next().unwrap());
        let mut response = Response::new(Full::new(Bytes::from("ok")));
        for line in fields(count, length).lines() {
            let (name, value) = line.split_once(": ").unwrap();
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (response.headers_mut()).insert(name, HeaderValue::from_str(value).unwrap());
        }
        Ok::<_, Infallible>(response)
    });
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(socket), service);
                tokio::spawn(serving);
            }
        });
    });
    port
}

/// The same limits hold for HTTP/2, and are counted alike.
#[test]
fn http_2_answers_have_the_same_limits() {
    let port = h2_origin();
    let authority = format!("partner.test:{port}");
    let proxy = Proxy::start(&destination(&authority, "mode: intercept, http: 2"));
    for (path, expected) in [
        ("/990/40", None),
        ("/100/2500", None),
        ("/1001/40", Some("limits.response_header_count")),
        ("/100/2700", Some("limits.response_header_size")),
    ] {
        let got = proxy.get(&format!("http://{authority}{path}"));
        match expected {
            None => assert_eq!((got.status, got.text().as_str()), (200, "ok"), "{path}"),
            Some(key) => {
                let detail = got.assert_ours(502, "http_response_header_section_size");
                assert!(detail.contains(key), "{path}: {detail}");
            }
        }
    }
    // Far beyond it the library ends the stream, and cannot say why.
    let got = proxy.get(&format!("http://{authority}/100/9000"));
    let detail = got.assert_ours(502, "http_protocol_error");
    assert!(detail.contains("limits.response_header_size"), "{detail}");
    let got = proxy.get(&format!("http://{authority}/1/40"));
    assert_eq!(got.status, 200, "others are served");
}

/// Interim answers are heads, too.
#[test]
fn an_interim_answer_has_the_limits_of_a_final_one() {
    let hints = |count| format!("HTTP/1.1 103 Early Hints\r\n{}\r\n", fields(count, 40));
    for (count, is_taken) in [(900, true), (1_001, false)] {
        let origin = Origin::saying(format!("{}{}", hints(count), answer("")));
        let proxy = Proxy::to(&origin.authority(), "http: 1");
        let got = proxy.get(&origin.url("/"));
        if is_taken {
            assert_eq!(got.status, 200, "{got:?}");
        } else {
            got.assert_ours(502, "http_response_header_section_size");
        }
    }
}

/// Trailers come behind the head, so that only the log and the metrics can say what was wrong with them.
#[test]
fn trailers_have_the_limits_of_a_head() {
    let told = |trailers: &str| {
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{trailers}\r\n")
    };
    for (trailers, error) in [
        (fields(900, 40), None),
        (fields(1_001, 40), Some("http_response_trailer_section_size")),
        (fields(100, 2_700), Some("http_response_trailer_section_size")),
        ("x: a\0b\r\n".to_owned(), Some("http_protocol_error")),
    ] {
        let origin = Origin::saying(told(&trailers));
        let proxy = Proxy::to(&origin.authority(), "http: 1");
        let mut wire = proxy.wire();
        wire.send(format!(
            "GET {} HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n",
            origin.url("/")
        ));
        let got = wire.response();
        assert_eq!((got.status, got.complete), (200, error.is_none()), "{error:?}");
        if let Some(error) = error {
            let labels = [("destination", "p"), ("error", error)];
            eventually("the fault is counted", || {
                proxy.metric("outrider_errors_total", &labels) == 1.0
            });
            eventually("the fault is logged", || {
                proxy.log().contains("the answer was cut short: ")
            });
        }
    }
}

/// The operator of the host can fix only what is named.
#[test]
fn an_answer_that_cannot_be_read_says_which_rule_it_breaks() {
    let head = |line: &str| format!("HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 2\r\n\r\nok");
    let coding = "http_response_transfer_coding";
    let protocol = "http_protocol_error";
    for (answer, error, words) in [
        ("<html>".to_owned(), protocol, "does not begin with a status line"),
        (
            "SSH-2.0-x\r\n".to_owned(),
            protocol,
            "another protocol may be spoken",
        ),
        ("HTTP/1.1 99 Odd\r\n\r\n".to_owned(), protocol, "the status code"),
        ("HTTP/1.1 abc Odd\r\n\r\n".to_owned(), protocol, "the status code"),
        (
            "HTTP/1.1 200 a\0b\r\n\r\n".to_owned(),
            protocol,
            "the reason phrase",
        ),
        (
            "HTTP/2.0 200 OK\r\n\r\n".to_owned(),
            protocol,
            "neither 1.0 nor 1.1",
        ),
        (head("X : y"), protocol, "a blank before its colon"),
        (head("X: y\r\n z"), protocol, "folded line"),
        (head("X: y\rz"), protocol, "carriage return"),
        (head("X: y\0z"), protocol, "a NUL"),
        (head("X: y\x01z"), protocol, "a control character"),
        (head(": y"), protocol, "no name"),
        (head("X@: y"), protocol, "a field name contains"),
        (head("nothing"), protocol, "no colon"),
        (head("Content-Length: 3"), protocol, "twice with different values"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok".to_owned(),
            protocol,
            "Content-Length is not a number",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\nok".to_owned(),
            protocol,
            "larger than 9223372036854775807",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok".to_owned(),
            coding,
            "Transfer-Encoding is not chunked",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_owned(),
            coding,
            "more than one Transfer-Encoding",
        ),
        (
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            coding,
            "HTTP/1.0 does not know",
        ),
        (
            "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(101),
            protocol,
            "more than 100 interim answers",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-".to_owned(),
            "http_response_incomplete",
            "in the middle of its answer",
        ),
    ] {
        let origin = Origin::saying_once(answer.clone());
        let proxy = Proxy::to(&origin.authority(), "http: 1");
        let got = proxy.ask("POST", &origin.url("/"), "Content-Length: 0\r\n");
        let detail = got.assert_ours(502, error);
        assert!(
            detail.contains(words) && detail.starts_with("partner.test ") && detail.contains("tell who runs"),
            "{answer:?}: {detail}"
        );
    }
}

/// A refused request is described alike, with the key that allows more.
#[test]
fn a_request_that_is_too_large_names_the_limit() {
    let origin = Origin::plain();
    let proxy = Proxy::to(&origin.authority(), "http: 1");
    for (lines, expected) in [
        (fields(190, 40), None),
        (fields(201, 40), Some("limits.header_count")),
        (fields(100, 700), Some("limits.header_size")),
    ] {
        let got = proxy.ask("GET", &origin.url("/"), &lines);
        match expected {
            None => assert_eq!(got.status, 200, "{got:?}"),
            Some(key) => {
                let detail = got.assert_ours(431, "http_request_error");
                assert!(detail.contains(key), "{detail}");
            }
        }
    }
}

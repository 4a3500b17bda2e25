//! No bytes crash it or hang it: valid messages, changed at random and cut at random, always the same by their seed.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::timeout;

use super::exchange::{Heard, LIMIT, LIMITS, ask, served};
use super::script::{End, Said, Script};
use crate::http1::client::ClientConnection;
use crate::message::Request;

const ROUNDS: usize = 10_000;

const REQUESTS: [&str; 5] = [
    "GET http://a.test/x?y HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n",
    "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\nhello world",
    "PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n5;a=b\r\nhello\r\n1f\r\n\
     0123456789012345678901234567890\r\n0\r\nx-sum: 1\r\nx-sum: 2\r\n\r\n",
    "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\nX-Empty:\r\n\r\n",
    "DELETE /a%20b HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
];

const ANSWERS: [&str; 5] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;e\r\nabc\r\n0\r\nt: u\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",
    "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\nuntil the end",
];

/// What framings and lines are made of: bytes that are likely to be taken for something.
const TOKENS: [&str; 28] = [
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    " ",
    "\t",
    ":",
    ";",
    ",",
    "0",
    "5",
    "+",
    "-",
    "ffffffffffffffff",
    "\0",
    "\u{7f}",
    "\u{e9}",
    "content-length: 5\r\n",
    "Content-Length: 0\r\n",
    "transfer-encoding: chunked\r\n",
    "connection: close\r\n",
    "expect: 100-continue\r\n",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "HTTP/1.1",
    "HTTP/1.0 ",
    "GET / HTTP/1.1\r\n\r\n",
    "?",
];

fn mutated(random: &mut StdRng, messages: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.random_range(1..4) {
        bytes.extend_from_slice(messages.choose(random).unwrap().as_bytes());
    }
    for _ in 0..random.random_range(0..6) {
        let at = random.random_range(0..=bytes.len());
        let end = (at + random.random_range(0..12)).min(bytes.len());
        match random.random_range(0..6) {
            0 => drop(bytes.splice(at..at, TOKENS.choose(random).unwrap().bytes())),
            1 => drop(bytes.splice(at..end, TOKENS.choose(random).unwrap().bytes())),
            2 => drop(bytes.drain(at..end)),
            3 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            4 if at < bytes.len() => bytes[at] = random.random(),
            4 => {}
            _ => bytes.truncate(at),
        }
        if bytes.is_empty() {
            bytes.push(b'G');
        }
    }
    bytes
}

fn scripted(random: &mut StdRng, bytes: &[u8]) -> Script {
    let (mut rest, mut pieces) = (Bytes::copy_from_slice(bytes), Vec::new());
    let most = *[1, 3, 17, 1000].choose(random).unwrap();
    while !rest.is_empty() {
        pieces.push(rest.split_to(random.random_range(1..=most).min(rest.len())));
    }
    let end = *[
        End::Eof,
        End::Never,
        End::Error(std::io::ErrorKind::ConnectionReset),
    ]
    .choose(random)
    .unwrap();
    Script::new(pieces, end).taking(*[1, 7, usize::MAX].choose(random).unwrap(), random.random())
}

/// `heard` as the client writes it, in the form that its body came in or in the other.
async fn rewritten(heard: &Heard, is_chunked: bool) -> Vec<u8> {
    let mut words = heard.line.split(' ');
    let (method, uri) = (words.next().unwrap(), words.next().unwrap());
    let mut request = Request::new(());
    *request.method_mut() = method.parse().unwrap();
    *request.uri_mut() = uri.parse().unwrap();
    for (name, value) in &heard.fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        let value = HeaderValue::from_bytes(value).unwrap();
        request.headers_mut().append(name, value);
    }
    let mut body = Said::default();
    if !heard.body.is_empty() || is_chunked {
        body.pieces.push_back(Bytes::from(heard.body.clone()));
        body.length = (!is_chunked).then_some(heard.body.len() as u64);
    }
    if is_chunked && !heard.trailers.is_empty() {
        let mut trailers = HeaderMap::new();
        for (name, value) in &heard.trailers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            trailers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        body.trailers = Some(trailers);
    }
    let stream = Script::new([Bytes::from_static(b"HTTP/1.1 204 X\r\n\r\n")], End::Eof);
    let written = stream.written.clone();
    let parts = request.into_parts().0;
    let _ = ask(&mut ClientConnection::new(stream, LIMITS), &parts, body).await;
    written.bytes()
}

fn plain(fields: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    let ours = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING];
    fields
        .iter()
        .filter(|(name, value)| {
            // Written beside TE.
            let is_te = name.as_str() == "connection" && value == b"TE";
            !is_te && !ours.iter().any(|own| own == name.as_str())
        })
        .cloned()
        .collect()
}

/// Each request that was heard, written by the client and read again, is the same request, and nothing follows it.
#[tokio::test(start_paused = true)]
async fn whatever_the_app_sends_is_read_in_one_way_or_refused() {
    let mut random = StdRng::seed_from_u64(9112);
    let (mut heard_ones, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let bytes = mutated(&mut random, &REQUESTS);
        let stream = scripted(&mut random, &bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let served = timeout(Duration::from_secs(600), served(stream)).await;
        let (log, written) = served.unwrap_or_else(|_| panic!("round {round} hangs: {text:?}"));

        let heard = log.all();
        let answers =
            written.matches("HTTP/1.1 200 OK\r\n").count() + written.matches("HTTP/1.1 400 Bad").count();
        assert_eq!(answers, heard.len(), "round {round}: {text:?}\n{written}");
        let faults = heard.iter().filter(|heard| heard.is_err()).count();
        assert!(
            faults == 0 || faults == 1 && heard.last().unwrap().is_err(),
            "round {round}: read on behind a fault: {text:?}"
        );
        refused += faults;
        for heard in heard.into_iter().filter_map(Result::ok) {
            heard_ones += 1;
            for is_chunked in [false, true] {
                if heard.line.starts_with("CONNECT ") {
                    continue;
                }
                let again = rewritten(&heard, is_chunked).await;
                let (log, _) = super::exchange::served(Script::whole(&again)).await;
                let again_text = String::from_utf8_lossy(&again);
                let [Ok(again)] = &log.all()[..] else {
                    panic!(
                        "round {round}: {text:?} was written as {again_text:?}: {:?}",
                        log.lines()
                    );
                };
                assert_eq!(again.body, heard.body, "round {round}: {text:?} {again_text:?}");
                assert_eq!(
                    plain(&again.fields),
                    plain(&heard.fields),
                    "round {round}: {text:?}"
                );
                let target = |line: &str| {
                    let uri: http::Uri = line.split(' ').nth(1).unwrap().parse().unwrap();
                    uri.path_and_query()
                        .map(PathAndQuery::to_string)
                        .unwrap_or_else(|| "/".to_owned())
                };
                assert_eq!(
                    target(&again.line),
                    target(&heard.line),
                    "round {round}: {text:?}"
                );
                assert_eq!(again.line.split(' ').next(), heard.line.split(' ').next());
                if is_chunked {
                    assert_eq!(again.trailers, heard.trailers, "round {round}: {text:?}");
                }
            }
        }
    }
    // Else it would show nothing.
    assert!(
        heard_ones > ROUNDS / 4 && refused > ROUNDS / 10,
        "{heard_ones} heard, {refused} refused"
    );
}

#[tokio::test(start_paused = true)]
async fn whatever_an_upstream_answers_comes_to_an_end() {
    let mut random = StdRng::seed_from_u64(9110);
    let (mut whole, mut cut, mut none) = (0, 0, 0);
    for round in 0..ROUNDS {
        let bytes = mutated(&mut random, &ANSWERS);
        let stream = scripted(&mut random, &bytes);
        let written = stream.written.clone();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let method = ["GET", "HEAD", "POST"].choose(&mut random).copied().unwrap();
        let request = http::Request::builder().method(method).uri("/");
        let parts = Request::from(request.body(()).unwrap()).into_parts().0;
        let mut body = Said::default();
        if parts.method == Method::POST {
            body = Said::pieces(&["hello", "world"]);
            body.is_slow = random.random();
        }
        let mut connection = ClientConnection::new(stream, LIMITS);
        let asking = timeout(10 * LIMIT, ask(&mut connection, &parts, body)).await;
        match asking.unwrap_or_else(|_| panic!("round {round} hangs: {text:?}")) {
            Ok(got) => {
                assert!(
                    !got.is_reusable || got.cut.is_none(),
                    "round {round}: used again though cut: {text:?}"
                );
                if got.cut.is_none() {
                    whole += 1;
                } else {
                    cut += 1;
                }
            }
            Err(_) => {
                none += 1;
                assert!(
                    !connection.is_reusable() || connection.left() == Some(0),
                    "round {round}: {text:?}"
                );
            }
        }
        assert_eq!(
            written
                .text()
                .matches("HTTP/1.1\r\nhost: origin.test\r\n")
                .count(),
            1,
            "round {round}: {text:?}"
        );
    }
    assert!(
        whole > ROUNDS / 10 && cut > ROUNDS / 20 && none > ROUNDS / 20,
        "{whole} whole, {cut} cut, {none} none"
    );
}

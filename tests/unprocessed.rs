//! What an upstream has not processed is sent again (RFC 9113 section 8.7), for every method and with its body.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::h2::{self, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS, frame};

use crate::support::partner::{Partner, destination};
use crate::support::programs::{curl, python, run};
use crate::support::{Nginx, Pki, Proxy, Response, TOKEN, Wire};

fn again(proxy: &Proxy, destination: &str) -> f64 {
    let labels = [("destination", destination), ("reason", "unprocessed")];
    proxy.metric("outrider_retries_total", &labels)
}

/// How an origin refuses a stream.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY; the last stream that it looks at is the one before.
    Leaving,
}

type Bodies = Arc<Mutex<Vec<Vec<u8>>>>;

/// Refuses the first request of so many connections once it has `taken` so many bytes of its body; answers others.
/// Also returns how many connections there were, and the bodies that came whole.
fn refusing(connections: usize, how: Refusal, taken: usize) -> (Partner, Arc<AtomicUsize>, Bodies) {
    let count = Arc::new(AtomicUsize::new(0));
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let (counted, gathered) = (Arc::clone(&count), Arc::clone(&bodies));
    let partner = Partner::offering(&["h2"], move |wire: &mut Wire| {
        let is_refusing = counted.fetch_add(1, Ordering::SeqCst) < connections;
        let _ = wire.read_exact(24);
        wire.send(frame(SETTINGS, 0, 0, &[]));
        let mut body = Vec::new();
        let mut is_refused = false;
        while let Ok(next) = h2::read(wire) {
            if next.kind == DATA {
                body.extend_from_slice(&next.payload);
            }
            if !matches!(next.kind, HEADERS | DATA) || is_refused {
                continue;
            }
            if is_refusing && body.len() >= taken {
                is_refused = true;
                match how {
                    Refusal::Reset(code) => wire.send(frame(RST_STREAM, 0, next.stream, &code.to_be_bytes())),
                    // The last one, and no error.
                    Refusal::Leaving => wire.send(frame(GOAWAY, 0, 0, &[0; 8])),
                };
            } else if !is_refusing && next.flags & END_STREAM != 0 {
                gathered.lock().unwrap().push(std::mem::take(&mut body));
                wire.send(frame(HEADERS, END_HEADERS | END_STREAM, next.stream, &[0x88]));
            }
        }
    });
    (partner, count, bodies)
}

fn post(proxy: &Proxy, partner: &Partner, body: &[u8]) -> Response {
    let mut request = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        partner.url("/"),
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    proxy.raw(request)
}

/// Without `retry`, a body that is on its way included; it arrives as it was.
#[test]
fn a_post_that_was_refused_unprocessed_is_sent_again_with_its_body() {
    for how in [Refusal::Reset(7), Refusal::Leaving] {
        for (length, taken) in [
            (0, 0),
            (5, 0),
            (5, 5),
            (60_000, 0),
            (60_000, 30_000),
            (60_000, 60_000),
        ] {
            let (partner, connections, bodies) = refusing(2, how, taken);
            let proxy = partner.proxy("http: 2");
            let body: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let answer = post(&proxy, &partner, &body);
            let case = format!("{how:?}, {length} bytes, {taken} taken");
            assert_eq!(answer.status, 200, "{case}: {}", answer.text());
            assert_eq!(
                (connections.load(Ordering::SeqCst), again(&proxy, "partner")),
                (3, 2.0),
                "{case}"
            );
            assert_eq!(*bodies.lock().unwrap(), [body], "{case}");
        }
    }
}

/// A broken stream may have been processed.
#[test]
fn a_post_that_may_have_been_processed_is_sent_once() {
    let (partner, connections, _) = refusing(9, Refusal::Reset(2), 0);
    let proxy = partner.proxy("http: 2");
    post(&proxy, &partner, b"once").assert_ours(502, "http_response_incomplete");
    assert_eq!(
        (connections.load(Ordering::SeqCst), again(&proxy, "partner")),
        (1, 0.0)
    );
}

#[test]
fn an_origin_that_refuses_everything_is_asked_a_few_times() {
    for how in [Refusal::Reset(7), Refusal::Leaving] {
        let (partner, connections, _) = refusing(usize::MAX, how, 0);
        let proxy = partner.proxy("http: 2");
        let detail = post(&proxy, &partner, b"never").assert_ours(502, "http_response_incomplete");
        assert!(
            detail.contains("refused the request without looking at it"),
            "{detail}"
        );
        assert_eq!(
            (connections.load(Ordering::SeqCst), again(&proxy, "partner")),
            (4, 3.0),
            "{how:?}"
        );
    }
}

/// More of a body has gone out than is kept: it is not cut, and the app learns that it may send it again.
#[test]
fn a_body_that_is_gone_is_reported() {
    let (partner, connections, bodies) = refusing(1, Refusal::Reset(7), 65_535);
    let proxy = partner.proxy("http: 2");
    let detail = post(&proxy, &partner, &vec![b'x'; 300_000]).assert_ours(502, "http_response_incomplete");
    assert!(detail.contains("it is safe to send it again"), "{detail}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    assert!(bodies.lock().unwrap().is_empty());
}

/// Posts so many bodies of 20,000 bytes, many at a time. Every one of them has to be answered with 200.
#[track_caller]
fn post_all(proxy: &Proxy, client: &str, authority: &str, count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let body = folder.path().join("body");
    std::fs::write(&body, vec![b'x'; 20_000]).unwrap();
    let mut curl = curl([
        client,
        "--parallel",
        "--parallel-max",
        "80",
        "--write-out",
        "%{http_code}\n",
    ]);
    curl.args([
        "--output",
        "/dev/null",
        "--data-binary",
        &format!("@{}", body.display()),
    ])
    .args(["--proxy", &format!("http://{}", proxy.address()), "--cacert"])
    .arg(proxy.bundle())
    .arg(format!("https://{authority}/whole/[1-{count}]"));
    let posted = run(&mut curl);
    let codes: Vec<_> = posted.succeeded().stdout.lines().collect();
    let passed = codes.iter().filter(|code| **code == "200").count();
    assert_eq!((passed, codes.len()), (count, count), "{client}: {codes:?}");
}

/// nginx closes a connection after so many requests, with a hundred more on their way to it: none of them is lost.
#[test]
fn no_post_is_lost_where_nginx_closes_its_connections() {
    let pki = Pki::new();
    let nginx = Nginx::closing_after(&pki, 100);
    for client in ["--http2", "--http1.1"] {
        let yaml = destination(&pki, &pki.client("app"), &nginx.authority(), "http: 2");
        let proxy = Proxy::start_with(&format!("workers: 1\n{yaml}"), &[("TOKEN", TOKEN)]);
        post_all(&proxy, client, &nginx.authority(), 400);
        assert!(
            again(&proxy, "partner") > 0.0,
            "{client}: nothing had to be sent again"
        );
    }
}

/// nginx answers before it has read a body, and so do we where we refuse: curl sees both answers, because its stream is not reset
/// while it still sends.
#[test]
fn an_answer_that_comes_before_the_end_of_an_upload_arrives() {
    let pki = Pki::new();
    let nginx = Nginx::demanding(&pki, true);
    let yaml = destination(&pki, &pki.client("app"), &nginx.authority(), "methods: [POST]");
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    for (method, expected) in [("POST", "200"), ("PUT", "403")] {
        let mut curl = curl([
            "--http2",
            "--fail-early",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}\n",
            "-X",
            method,
        ]);
        curl.args([
            "-d",
            &"x".repeat(1000),
            "-x",
            &format!("http://{}", proxy.address()),
            "--cacert",
        ])
        .arg(proxy.bundle())
        .arg(format!("https://{}/token?[1-300]", nginx.authority()));
        let done = run(&mut curl);
        let codes: Vec<_> = done.succeeded().stdout.lines().collect();
        assert_eq!(codes, [expected; 300], "{method}");
    }
}

/// A gRPC server that ends each connection after a moment, as those behind load balancers do: no call is lost.
#[test]
fn no_call_is_lost_where_grpc_ends_its_connections() {
    let pki = Pki::new();
    let (server, client) = (pki.server("partner.test"), pki.client("app"));
    let port = crate::support::closed_port();
    let yaml = destination(&pki, &client, &format!("partner.test:{port}"), "");
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    let script = format!(
        r#"
import os
os.environ["https_proxy"] = "http://{proxy}"
import grpc
from concurrent import futures
read = lambda path: open(path, "rb").read()
peers = set()
def unary(request, context):
    peers.add(context.peer())
    return request
class All(grpc.GenericRpcHandler):
    def service(self, call):
        return grpc.unary_unary_rpc_method_handler(unary)
age = [("grpc.max_connection_age_ms", 100), ("grpc.max_connection_age_grace_ms", 10000)]
server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[All()], options=age)
ours = grpc.ssl_server_credentials([(read("{key}"), read("{cert}"))], read("{ca}"), require_client_auth=True)
assert server.add_secure_port("127.0.0.1:{port}", ours) == {port}
server.start()
trust = grpc.ssl_channel_credentials(root_certificates=read("{bundle}"))
call = grpc.secure_channel("partner.test:{port}", trust).unary_unary("/t/unary")
def calls(worker):
    for n in range(200):
        assert call(b"%d %d" % (worker, n), timeout=30) == b"%d %d" % (worker, n)
with futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(calls, range(8)))
assert len(peers) > 3, peers
server.stop(None).wait()
print("all called")
"#,
        key = server.key_path.display(),
        cert = server.cert_path.display(),
        ca = pki.ca().display(),
        bundle = proxy.bundle().display(),
        proxy = proxy.address(),
    );
    let done = run(&mut python(&script));
    assert_eq!(done.succeeded().stdout, "all called\n", "{done:?}");
}

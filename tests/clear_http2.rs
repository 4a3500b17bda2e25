//! HTTP/2 in clear that was agreed on beforehand (h2c, RFC 9113 section 3.3), inside a tunnel: what gRPC speaks
//! over an insecure channel.

use crate::support::h2::{self, END_HEADERS, END_STREAM, HEADERS, SETTINGS, frame};
use crate::support::h2_origin::H2Partner;
use crate::support::programs::{curl, python};
use crate::support::{Origin, Proxy, TOKEN, Wire, closed_port, eventually, run};

/// Attaches in clear.
const IN_CLEAR: &str = "auth: { bearer: env:TOKEN }, upgrade: false, insecure_attach_over_http: true";

/// Starts a proxy with the one destination `p`, and a token for it.
fn proxy(authority: &str, settings: &str) -> Proxy {
    let yaml = format!("workers: 1\ndestinations: {{ p: {{ hosts: [\"{authority}\"], {settings} }} }}");
    Proxy::start_with(&yaml, &[("TOKEN", TOKEN)])
}

/// Opens a tunnel with HTTP/2 without TLS.
fn clear(proxy: &Proxy, authority: &str) -> Wire {
    let mut wire = proxy.tunnel(authority);
    h2::greet(&mut wire);
    wire
}

fn get(authority: &str, path: &str) -> Vec<u8> {
    frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &h2::get_by("http", authority, path),
    )
}

/// Starts an origin with HTTP/2 without TLS that answers 200 to everything.
fn origin() -> Origin {
    Origin::http(|wire| {
        let _ = wire.read_exact(24);
        wire.send(frame(SETTINGS, 0, 0, &[]));
        while let Some(asked) = h2::read_until(wire, |frame| frame.kind == HEADERS) {
            wire.send(frame(HEADERS, END_HEADERS | END_STREAM, asked.stream, &[0x88]));
        }
    })
}

/// Who knows that the origin speaks it is believed: the origin is spoken to alike.
#[test]
fn clear_http_2_is_carried_end_to_end() {
    let origin = origin();
    let authority = origin.authority();
    let proxy = proxy(&authority, IN_CLEAR);
    let mut wire = clear(&proxy, &authority);
    wire.send(get(&authority, "/one"));
    assert_eq!(h2::outcome(&mut wire, 1), Some(200));
    assert!(origin.raw().starts_with("PRI * HTTP/2.0\r\n"), "{}", origin.raw());

    // A byte at a time, and the first of them with the CONNECT.
    let mut slow = proxy.wire();
    slow.send(format!(
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\nP"
    ));
    assert_eq!(slow.bodiless_response().status, 200);
    for byte in b"RI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        slow.send([*byte]);
    }
    slow.send(frame(SETTINGS, 0, 0, &[]))
        .send(get(&authority, "/two"));
    assert_eq!(h2::outcome(&mut slow, 1), Some(200));
    assert_eq!(origin.seen().len(), 1, "its connection is used again");
}

/// `http: 1` says that the origin does not speak HTTP/2.
#[test]
fn an_origin_of_http_1_serves_clear_http_2_where_the_configuration_says_so() {
    let origin = Origin::plain();
    let authority = origin.authority();
    let proxy = proxy(&authority, &format!("{IN_CLEAR}, http: 1"));
    let mut wire = clear(&proxy, &authority);
    wire.send(get(&authority, "/one"));
    assert_eq!(h2::outcome(&mut wire, 1), Some(200));
    let raw = origin.raw();
    assert!(
        raw.starts_with("GET /one HTTP/1.1\r\n")
            && raw.contains(&format!("authorization: Bearer {TOKEN}\r\n")),
        "{raw}"
    );
}

/// What it answers is no frame: the developer hears what to do.
#[test]
fn an_origin_that_speaks_http_1_alone_is_reported_with_the_key() {
    let origin = Origin::http(|wire| {
        let _ = wire.read_exact(24);
        wire.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        let _ = wire.rest();
    });
    let authority = origin.authority();
    let proxy = proxy(&authority, IN_CLEAR);
    let mut wire = clear(&proxy, &authority);
    wire.send(get(&authority, "/one"));
    assert_eq!(h2::outcome(&mut wire, 1), Some(502));
    eventually("the remedy in the log", || {
        proxy.log().contains("set http: 1 in its destination")
    });
}

/// As over http://: a secret leaves in clear only where the configuration says so.
#[test]
fn clear_http_2_does_not_carry_a_secret_in_clear() {
    let origin = origin();
    let authority = origin.authority();
    let proxy = proxy(&authority, "auth: { bearer: env:TOKEN }, upgrade: false");
    let mut wire = clear(&proxy, &authority);
    wire.send(get(&authority, "/"));
    assert_eq!(h2::outcome(&mut wire, 1), Some(403));
    // Nor does it leave the tunnel.
    let mut other = clear(&proxy, &authority);
    other.send(get("other.test", "/"));
    assert_eq!(h2::outcome(&mut other, 1), Some(421));
    assert_eq!(origin.seen().len(), 0, "{}", origin.raw());
}

/// `upgrade`: the origin is spoken to over TLS, in what it chooses.
#[test]
fn clear_http_2_is_upgraded() {
    let partner = H2Partner::new();
    let proxy = partner.proxy("");
    let mut wire = clear(&proxy, &partner.authority());
    wire.send(get(&partner.authority(), "/up"));
    assert_eq!(h2::outcome(&mut wire, 1), Some(200));
    let asked = partner.asked().concat();
    assert!(
        asked.starts_with("GET https://") && asked.contains(TOKEN),
        "{asked}"
    );
}

/// C1, as over TLS.
#[test]
fn rapid_resets_in_clear_are_bounded() {
    let origin = origin();
    let authority = origin.authority();
    let proxy = proxy(&authority, IN_CLEAR);
    let mut attacker = clear(&proxy, &authority);
    h2::assert_resets_are_bounded(&mut attacker, &h2::get_by("http", &authority, "/reset"));
    eventually("nothing is in flight", || {
        proxy.metric("outrider_requests_in_flight", &[]) == 0.0
    });
    let mut other = clear(&proxy, &authority);
    other.send(get(&authority, "/other"));
    assert_eq!(h2::outcome(&mut other, 1), Some(200));
}

/// The listener itself speaks HTTP/1 and says so.
#[test]
fn the_listener_says_that_it_speaks_http_1() {
    let origin = Origin::plain();
    let proxy = origin.proxy("");
    let mut wire = proxy.wire();
    h2::greet(&mut wire);
    let detail = wire.response().assert_ours(505, "http_request_error");
    assert!(detail.contains("CONNECT"), "{detail}");
}

#[test]
fn curl_speaks_clear_http_2_through_a_tunnel() {
    let origin = origin();
    let authority = origin.authority();
    let proxy = proxy(&authority, IN_CLEAR);
    let done = run(&mut curl([
        "--http2-prior-knowledge",
        "--proxytunnel",
        "--proxy",
        &format!("http://{}", proxy.address()),
        "--write-out",
        "%{http_code} %{http_version}",
        &origin.url("/"),
    ]));
    assert_eq!(done.succeeded().stdout, "200 2", "{done:?}");
}

/// N3: an insecure channel. The server sees the credential that the app does not have.
#[test]
fn grpc_passes_over_an_insecure_channel() {
    let port = closed_port();
    let proxy = proxy(&format!("partner.test:{port}"), IN_CLEAR);
    let script = format!(
        r#"
import os
os.environ["http_proxy"] = "http://{address}"
import grpc
from concurrent import futures

def unary(request, context):
    assert dict(context.invocation_metadata())["authorization"] == "Bearer {TOKEN}"
    context.set_trailing_metadata((("ended", "well"),))
    return request
def both(requests, context):
    for request in requests:
        yield request
def refuse(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")

class All(grpc.GenericRpcHandler):
    def service(self, call):
        return {{
            "/t/unary": grpc.unary_unary_rpc_method_handler(unary),
            "/t/both": grpc.stream_stream_rpc_method_handler(both),
            "/t/refuse": grpc.unary_unary_rpc_method_handler(refuse),
        }}.get(call.method)

server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[All()])
assert server.add_insecure_port("127.0.0.1:{port}") == {port}
server.start()
channel = grpc.insecure_channel("partner.test:{port}")
message, call = channel.unary_unary("/t/unary").with_call(b"hello", timeout=15)
assert message == b"hello" and dict(call.trailing_metadata())["ended"] == "well"
pieces = [b"%d" % n * 1000 for n in range(100)]
assert list(channel.stream_stream("/t/both")(iter(pieces), timeout=15)) == pieces
try:
    channel.unary_unary("/t/refuse")(b"", timeout=15)
    raise SystemExit("was not refused")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
channel.close()
server.stop(None).wait()
print("all called")
"#,
        address = proxy.address(),
    );
    let done = run(&mut python(&script));
    assert_eq!(done.succeeded().stdout, "all called\n", "{done:?}");
}

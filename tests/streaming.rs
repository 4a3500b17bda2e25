//! Group N: WebSocket, gRPC and server-sent events pass untouched and unbuffered.

use std::sync::{Mutex, mpsc};

use crate::support::partner::Partner;
use crate::support::programs::{WEBSOCKET_TALK, python};
use crate::support::{Nginx, Origin, Pki, Proxy, TOKEN, Wire, eventually, run};

/// Accepts an upgrade, greets in the same breath, and echoes bytes until the end.
fn switching(wire: &mut Wire) {
    let Ok(request) = wire.request_head() else { return };
    if request.headers.get("upgrade").is_none() {
        wire.send("HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 4\r\n\r\nwhat");
        return;
    }
    wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nfirst");
    while let Ok(byte) = wire.read_exact(1) {
        wire.send(byte);
    }
}

fn handshake(target: &str, host: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// After its 101 a connection carries any bytes, illegal frames included, from the first byte on.
#[track_caller]
fn assert_transparent(wire: &mut Wire, request: &str) {
    wire.send(request);
    let response = wire.response();
    assert_eq!(response.status, 101, "{response:?}");
    assert_eq!(response.header("upgrade"), Some("websocket"));
    assert_eq!(response.header("sec-websocket-accept"), Some("x"));
    assert_eq!(wire.read_exact(5).unwrap(), b"first");
    let bytes: Vec<u8> = (0..=255).rev().collect();
    assert_eq!(wire.send(&bytes).read_exact(256).unwrap(), bytes);
}

/// N1: by absolute form, by blind tunnel, inside interception, and by upgrade to TLS.
#[test]
fn a_websocket_is_transparent_on_every_path() {
    let origin = Origin::http(switching);
    let proxy = Proxy::start(&format!(
        "destinations: {{ p: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ));
    let absolute = handshake(&origin.url("/ws"), &origin.authority());
    let mut wire = proxy.wire();
    assert_transparent(&mut wire, &absolute);
    drop(wire);
    origin.wait("the end of the first", |seen| seen[0].ended);
    assert_transparent(
        &mut proxy.tunnel(&origin.authority()),
        &handshake("/ws", &origin.authority()),
    );

    let partner = Partner::with(switching);
    let proxy = partner.proxy("");
    let inner = handshake("/ws", &partner.authority());
    assert_transparent(&mut proxy.intercepted(&partner.authority()), &inner);
    assert_transparent(
        &mut proxy.wire(),
        &handshake(&partner.url("/ws"), &partner.authority()),
    );
}

/// E8: a WebSocket counts among the tunnels for as long as it lives, on every kind of connection.
#[test]
fn websockets_are_capped_like_tunnels() {
    let partner = Partner::with(switching);
    let yaml = format!("limits: {{ tunnels: 2 }}\n{}", partner.yaml(""));
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    let absolute = handshake(&partner.url("/ws"), &partner.authority());
    let mut first = proxy.wire();
    assert_transparent(&mut first, &absolute);
    let mut second = proxy.wire();
    assert_transparent(&mut second, &absolute);
    proxy.raw(&absolute).assert_ours(503, "connection_limit_reached");
    proxy
        .connect(&partner.authority())
        .0
        .assert_ours(503, "connection_limit_reached");
    drop(first);
    let inner = handshake("/ws", &partner.authority());
    eventually("room again", || {
        proxy.connect(&partner.authority()).0.status == 200
    });
    drop(second);
    let mut open = Vec::new();
    eventually("room for two", || {
        open = (0..2).map(|_| proxy.connect(&partner.authority())).collect();
        let has_room = open.iter().all(|(answer, _)| answer.status == 200);
        if !has_room {
            open.clear();
        }
        has_room
    });
    // Their room is free again when the proxy has closed them, too.
    for (_, wire) in &mut open {
        wire.half_close();
        assert!(wire.closes());
    }
    assert_transparent(&mut proxy.intercepted(&partner.authority()), &inner);
}

/// N2: a refused handshake is an ordinary answer, and the connection goes on.
#[test]
fn a_refused_handshake_is_an_ordinary_answer() {
    let origin = Origin::saying("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let proxy = Proxy::start(&format!(
        "destinations: {{ p: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ));
    let mut wire = proxy.wire();
    for _ in 0..2 {
        let answer = wire.ask(handshake(&origin.url("/ws"), &origin.authority()));
        assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    }
}

/// N4: events inside an intercepted tunnel come one by one.
#[test]
fn events_pass_interception_unbuffered() {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let partner = Partner::with(move |wire| {
        let _ = wire.request();
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for event in 0..3 {
            wire.send(format!("9\r\ndata: {event}\n\n\r\n"));
            let _ = gate.lock().unwrap().recv();
        }
        wire.send("0\r\n\r\n");
    });
    let proxy = partner.proxy("");
    let mut wire = proxy.intercepted(&partner.authority());
    wire.send(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", partner.authority()));
    while wire.read_line() != "\r\n" {}
    for event in 0..3 {
        let mut line = wire.read_line();
        while !line.starts_with("data") {
            line = wire.read_line();
        }
        assert_eq!(line, format!("data: {event}\n"));
        go.send(()).unwrap();
    }
}

/// A real WebSocket client and server on both sides of an interception.
#[test]
fn python_websockets_pass_interception() {
    let pki = Pki::new();
    let (server, client) = (pki.server("partner.test"), pki.client("app"));
    let port = crate::support::closed_port();
    let yaml = crate::support::partner::destination(&pki, &client, &format!("partner.test:{port}"), "");
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    let script = format!(
        r#"
import asyncio, os, ssl, websockets
async def serve(ws):
    assert ws.request.headers["Authorization"] == "Bearer {token}"
    async for message in ws:
        await ws.send(message)
async def main():
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain("{cert}", "{key}")
    ours.load_verify_locations("{ca}")
    ours.verify_mode = ssl.CERT_REQUIRED
    trust = ssl.create_default_context(cafile="{bundle}")
    async with websockets.serve(serve, "127.0.0.1", {port}, ssl=ours, max_size=None):
        async with websockets.connect("wss://partner.test:{port}/", ssl=trust, proxy="http://{proxy}", max_size=None) as ws:{WEBSOCKET_TALK}"#,
        token = TOKEN,
        cert = server.cert_path.display(),
        key = server.key_path.display(),
        ca = pki.ca().display(),
        bundle = proxy.bundle().display(),
        proxy = proxy.address(),
    );
    let done = run(&mut python(&script));
    assert_eq!(done.succeeded().stdout, "all echoed\n", "{done:?}");
    eventually("the tunnel is closed", || {
        proxy.metric("outrider_tunnels_open", &[]) == 0.0
    });
}

/// N3: gRPC end to end through interception: every kind of call, trailers, status codes, binary metadata,
/// deadlines and messages beyond the flow-control windows.
#[test]
fn grpc_passes_interception() {
    let pki = Pki::new();
    let (server, client) = (pki.server("partner.test"), pki.client("app"));
    let port = crate::support::closed_port();
    let yaml = crate::support::partner::destination(&pki, &client, &format!("partner.test:{port}"), "");
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    let script = format!(
        r#"
import os
os.environ["https_proxy"] = os.environ["http_proxy"] = "http://{proxy}"
import grpc
from concurrent import futures
read = lambda path: open(path, "rb").read()

def unary(request, context):
    given = dict(context.invocation_metadata())
    assert given["authorization"] == "Bearer {token}", given
    assert given["some-bin"] == b"\x00\xff", given
    context.set_trailing_metadata((("ended", "well"), ("ended-bin", b"\xfe\x01")))
    return request
def many(request, context):
    for n in range(100):
        yield b"%d" % n
def gather(requests, context):
    return b"%d" % sum(len(request) for request in requests)
def both(requests, context):
    for request in requests:
        yield request
def refuse(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: 100% sure")
def hang(request, context):
    import time
    while context.is_active():
        time.sleep(0.02)

class All(grpc.GenericRpcHandler):
    def service(self, call):
        return {{
            "/t/unary": grpc.unary_unary_rpc_method_handler(unary),
            "/t/many": grpc.unary_stream_rpc_method_handler(many),
            "/t/gather": grpc.stream_unary_rpc_method_handler(gather),
            "/t/both": grpc.stream_stream_rpc_method_handler(both),
            "/t/refuse": grpc.unary_unary_rpc_method_handler(refuse),
            "/t/hang": grpc.unary_unary_rpc_method_handler(hang),
        }}.get(call.method)

big = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[All()], options=big)
ours = grpc.ssl_server_credentials([(read("{key}"), read("{cert}"))], read("{ca}"), require_client_auth=True)
assert server.add_secure_port("127.0.0.1:{port}", ours) == {port}
server.start()

trust = grpc.ssl_channel_credentials(root_certificates=read("{bundle}"))
channel = grpc.secure_channel("partner.test:{port}", trust, options=big)
message, call = channel.unary_unary("/t/unary").with_call(b"hello", metadata=(("some-bin", b"\x00\xff"),), timeout=15)
trailers = dict(call.trailing_metadata())
assert message == b"hello" and trailers["ended"] == "well" and trailers["ended-bin"] == b"\xfe\x01", trailers
assert [m for m in channel.unary_stream("/t/many")(b"", timeout=15)] == [b"%d" % n for n in range(100)]
assert channel.stream_unary("/t/gather")(iter([b"x" * 100000] * 80), timeout=15) == b"8000000"
import queue
ask = queue.Queue()
answers = channel.stream_stream("/t/both")(iter(ask.get, None), timeout=15)
for n in range(20):
    ask.put(b"ping %d" % n)
    assert next(answers) == b"ping %d" % n
ask.put(None)
large = os.urandom(8 << 20)
ask2 = channel.stream_stream("/t/both")(iter([large]), timeout=15)
assert next(ask2) == large
try:
    channel.unary_unary("/t/refuse")(b"", timeout=15)
    raise SystemExit("was not refused")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
    assert error.details() == "not today: 100% sure", error
try:
    channel.unary_unary("/t/hang")(b"", timeout=0.5)
    raise SystemExit("did not end")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
channel.close()
server.stop(None).wait()
print("all called")
"#,
        token = TOKEN,
        cert = server.cert_path.display(),
        key = server.key_path.display(),
        ca = pki.ca().display(),
        bundle = proxy.bundle().display(),
        proxy = proxy.address(),
    );
    let done = run(&mut python(&script));
    assert_eq!(done.succeeded().stdout, "all called\n", "{done:?}");
}

/// An h2 origin is offered to the app as h2; a client of HTTP/1.1 is served all the same.
#[test]
fn an_h2_origin_serves_both_kinds_of_client() {
    let pki = Pki::new();
    let nginx = Nginx::demanding(&pki, true);
    let yaml = crate::support::partner::destination(&pki, &pki.client("app"), &nginx.authority(), "");
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    let authority = nginx.authority();
    let mut old = proxy.intercepted(&authority);
    assert_eq!(old.get(&authority, "/token").status, 200);

    use crate::support::h2;
    let mut new = proxy.intercepted_as(&authority, &["h2"]);
    h2::greet(&mut new);
    let head = h2::get(&authority, "/token");
    new.send(h2::frame(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, 1, &head));
    let body = h2::read_until(&mut new, |frame| frame.kind == h2::DATA && frame.stream == 1).expect("a body");
    let text = String::from_utf8_lossy(&body.payload).into_owned();
    assert!(text.ends_with("over HTTP/2.0"), "{text}");
}

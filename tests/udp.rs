//! CONNECT-UDP (RFC 9298), and what clients of HTTP/3 do behind the proxy.

use std::net::UdpSocket;
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use crate::support::programs::{ServerProcess, clean, python, run};
use crate::support::{Pki, Proxy, TOKEN, Wire, closed_port, eventually};

/// A UDP server that sends each packet back. It ends with the test.
struct Echo {
    port: u16,
    socket: UdpSocket,
    thread: Option<thread::JoinHandle<()>>,
}

/// Ends an [`Echo`].
const END: &[u8] = b"the end";

impl Echo {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let own = socket.try_clone().unwrap();
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok((length, from)) = own.recv_from(&mut buffer)
                && &buffer[..length] != END
            {
                own.send_to(&buffer[..length], from).unwrap();
            }
        });
        Self {
            port,
            socket,
            thread: Some(thread),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.socket.send_to(END, ("127.0.0.1", self.port)).unwrap();
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Starts a proxy with one destination in tunnel mode: a UDP port of this machine.
fn blind(port: u16) -> Proxy {
    Proxy::start(&format!(
        "destinations: {{ blind: {{ hosts: [\"127.0.0.1:{port}\"], mode: tunnel, timeouts: {{ idle: 1s }} }} }}"
    ))
}

/// Returns the request for a UDP tunnel, as libcurl writes it.
fn asking(proxy: &Proxy, path: &str, more: &str) -> String {
    let address = proxy.address();
    format!(
        "GET http://{address}/.well-known/masque/udp/{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
         Upgrade: connect-udp\r\nCapsule-Protocol: ?1\r\n{more}\r\n"
    )
}

/// Opens a UDP tunnel.
#[track_caller]
fn tunnel(proxy: &Proxy, port: u16) -> Wire {
    let mut wire = proxy.wire();
    wire.send(asking(proxy, &format!("127.0.0.1/{port}/"), ""));
    let response = wire.bodiless_response();
    assert_eq!(response.status, 101, "{response:?}");
    assert_eq!(response.header("upgrade"), Some("connect-udp"));
    assert_eq!(response.header("capsule-protocol"), Some("?1"));
    wire
}

/// Returns a DATAGRAM capsule with a length of four bytes, which is allowed for any payload.
fn capsule(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 1).unwrap() | 0x8000_0000;
    [&[0], &length.to_be_bytes()[..], &[0], payload].concat()
}

/// Reads the next payload.
fn payload(wire: &mut Wire) -> Vec<u8> {
    let head = wire.read_exact(2).unwrap();
    assert_eq!(head[0], 0);
    let more = (1 << (head[1] >> 6)) - 1;
    let length = wire.read_exact(more).unwrap();
    let length = length.iter().fold(usize::from(head[1] & 0x3f), |length, byte| {
        length << 8 | usize::from(*byte)
    });
    let content = wire.read_exact(length).unwrap();
    assert_eq!(content[0], 0, "the context ID of a UDP payload");
    content[1..].to_vec()
}

#[test]
fn packets_pass_both_ways() {
    let echo = Echo::start();
    let proxy = blind(echo.port);
    let mut wire = tunnel(&proxy, echo.port);
    for length in [1, 62, 63, 64, 1200, 16_383, 65_507, 0] {
        let sent: Vec<u8> = (0..length).map(|n: u32| n.to_le_bytes()[0]).collect();
        // A capsule and a context that nobody knows are skipped.
        wire.send([0x17, 2, 1, 2]).send([0, 2, 2, 9]).send(capsule(&sent));
        assert_eq!(payload(&mut wire), sent, "{length} bytes");
    }
    // It is larger than a packet can be over IPv4: it is lost, and the next one is not.
    wire.send(capsule(&[0; 65_520])).send(capsule(b"next"));
    assert_eq!(payload(&mut wire), b"next");
    let of = [("destination", "blind")];
    assert_eq!(proxy.metric("outrider_tunnels_open", &of), 1.0);
    drop(wire);
    eventually("the tunnel is recorded", || {
        proxy.metric(
            "outrider_tunnels_total",
            &[("destination", "blind"), ("result", "closed")],
        ) == 1.0
    });
    let line = format!("\"host\":\"127.0.0.1\",\"port\":{},\"status\":101", echo.port);
    eventually("the log names the target", || proxy.log().contains(&line));
}

#[test]
fn what_came_with_the_request_is_delivered() {
    let echo = Echo::start();
    let proxy = blind(echo.port);
    let mut wire = proxy.wire();
    let mut early = asking(&proxy, &format!("127.0.0.1/{}/", echo.port), "").into_bytes();
    early.extend(capsule(b"early"));
    wire.send(early);
    assert_eq!(wire.bodiless_response().status, 101);
    assert_eq!(payload(&mut wire), b"early");
}

/// A tunnel ends with the app's connection, with a capsule that breaks the RFCs, and when it is quiet.
#[test]
fn a_tunnel_ends() {
    let echo = Echo::start();
    let proxy = blind(echo.port);
    let count = |result| {
        proxy.metric(
            "outrider_tunnels_total",
            &[("destination", "blind"), ("result", result)],
        )
    };
    let mut wire = tunnel(&proxy, echo.port);
    wire.half_close();
    assert!(wire.closes(), "UDP has no half-close");
    let mut wire = tunnel(&proxy, echo.port);
    // Longer than any packet.
    wire.send([0, 0x80, 1, 0, 0x10]);
    assert!(wire.closes());
    let mut wire = tunnel(&proxy, echo.port);
    wire.send([0, 0]);
    assert!(wire.closes(), "a DATAGRAM without a context ID");
    let mut wire = tunnel(&proxy, echo.port);
    wire.send(capsule(b"once"));
    assert_eq!(payload(&mut wire), b"once");
    assert!(wire.closes(), "it is quiet for timeouts.idle");
    eventually("all are recorded", || {
        (count("closed"), count("failed"), count("idle")) == (1.0, 2.0, 1.0)
    });
}

#[test]
fn a_target_that_does_not_listen_ends_the_tunnel() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let proxy = blind(port);
    let mut wire = tunnel(&proxy, port);
    drop(socket);
    wire.send(capsule(b"anybody there?"));
    assert!(wire.closes(), "the system says that nobody is");
}

/// A UDP tunnel is no way around the policy.
#[test]
fn what_a_blind_tunnel_may_not_do_is_refused() {
    let proxy = Proxy::start(
        "
        dns: { hosts: { inner.test: 10.1.2.3, partner.test: 127.0.0.1 } }
        destinations:
          inner: { hosts: [inner.test], mode: tunnel }
          behind: { hosts: [behind.test], mode: tunnel, parent: \"http://127.0.0.1:9\" }
          partner:
            hosts: [partner.test]
            auth: { bearer: \"env:TOKEN\" }
        ",
    );
    let denied = |destination: &str, reason: &str| {
        proxy.metric(
            "outrider_denied_total",
            &[("destination", destination), ("reason", reason)],
        )
    };
    for (path, status, error) in [
        ("elsewhere.test/443/", 403, "http_request_denied"),
        ("partner.test/443/", 403, "http_request_denied"),
        ("PARTNER.test./443/", 403, "http_request_denied"),
        ("inner.test/443/", 403, "destination_ip_prohibited"),
        ("inner.test/53/", 403, "http_request_denied"),
        ("fd00%3A%3A1/443/", 403, "http_request_denied"),
        ("behind.test/443/", 403, "http_request_denied"),
        ("169.254.169.254/80/", 403, "http_request_denied"),
        ("partner.test/0/", 400, "http_request_error"),
        ("partner.test/", 400, "http_request_error"),
        ("..%2F..%2Fx/443/", 400, "http_request_error"),
    ] {
        let mut wire = proxy.wire();
        let mut bytes = asking(&proxy, path, "").into_bytes();
        bytes.extend(b"GET http://partner.test/ HTTP/1.1\r\nHost: partner.test\r\n\r\n");
        wire.send(bytes);
        wire.response().assert_ours(status, error);
        assert!(
            wire.closes(),
            "what follows a refusal is not read as a request: {path}"
        );
    }
    assert_eq!(denied("partner", "udp"), 2.0);
    assert_eq!(denied("behind", "udp"), 1.0);
    assert_eq!(denied("inner", "network"), 1.0);
    assert_eq!(denied("unlisted", "unlisted"), 4.0);
    let body = "Content-Length: 5\r\n";
    let mut wire = proxy.wire();
    wire.send(asking(&proxy, "inner.test/443/", body) + "hello");
    wire.response().assert_ours(400, "http_request_error");
    for (right, wrong) in [("GET ", "POST "), ("HTTP/1.1", "HTTP/1.0")] {
        let mut wire = proxy.wire();
        wire.send(asking(&proxy, "127.0.0.1/443/", "").replacen(right, wrong, 1));
        wire.response().assert_ours(400, "http_request_error");
    }
    // Without the upgrade it is a request like any other, and its host is not ours.
    let plain = asking(&proxy, "inner.test/443/", "").replace("Upgrade: connect-udp\r\n", "");
    proxy.wire().ask(plain).assert_ours(403, "http_request_denied");
}

/// A server of HTTP/1.1, HTTP/2 and HTTP/3.
struct Caddy {
    port: u16,
    _server: ServerProcess,
}

impl Caddy {
    /// Answers with the version of HTTP and the token that it got.
    fn start(pki: &Pki, names: &[&str]) -> Self {
        let port = closed_port();
        let mut sites = String::from("{\n admin off\n auto_https off\n}\n");
        for name in names {
            let server = pki.server(name);
            sites += &format!(
                "https://{name}:{port} {{\n bind 127.0.0.1\n tls {} {}\n respond \"{{http.request.proto}} \
                 {{http.request.header.Authorization}}\"\n}}\n",
                server.cert_path.display(),
                server.key_path.display()
            );
        }
        let file = pki.folder().join("Caddyfile");
        std::fs::write(&file, sites).unwrap();
        let mut command: Command = clean("caddy");
        command
            .args(["run", "--config"])
            .arg(&file)
            .env("HOME", pki.folder());
        Self {
            _server: ServerProcess::start(&mut command, port),
            port,
        }
    }
}

/// Asks each host three times: without HTTP/3, with HTTP/3 if it works, with nothing but HTTP/3.
const CURL: &str = r#"
import io, json, pycurl, sys
proxy, bundle, *urls = sys.argv[1:]
assert 'nghttp3' in pycurl.version, pycurl.version
for url in urls:
    for version in (pycurl.CURL_HTTP_VERSION_2TLS, pycurl.CURL_HTTP_VERSION_3, 31):
        curl, body = pycurl.Curl(), io.BytesIO()
        for option, value in ((curl.URL, url), (curl.PROXY, proxy), (curl.NOPROXY, ''), (curl.CAINFO, bundle),
                              (curl.WRITEDATA, body), (curl.TIMEOUT, 20), (curl.HTTP_VERSION, version)):
            curl.setopt(option, value)
        try:
            curl.perform()
            print(json.dumps(body.getvalue().decode()))
        except pycurl.error as error:
            print(json.dumps(str(error)))
"#;

/// What libcurl with HTTP/3 does behind us: it asks for a UDP tunnel, and where it does not get one it uses HTTP/2 through a
/// CONNECT, if it may.
#[test]
fn a_client_of_http3_gets_a_udp_tunnel_or_falls_back() {
    let pki = Pki::new();
    let caddy = Caddy::start(&pki, &["partner.test", "other.test"]);
    let port = caddy.port;
    let proxy = Proxy::start_with(
        &format!(
            "
            destinations:
              blind: {{ hosts: [\"other.test:{port}\"], mode: tunnel }}
              seen:
                hosts: [\"partner.test:{port}\"]
                auth: {{ bearer: \"env:TOKEN\" }}
                tls: {{ ca: \"file:{}\" }}
            ",
            pki.ca().display()
        ),
        &[("TOKEN", TOKEN)],
    );
    // The client has to trust both authorities.
    let bundle = pki.folder().join("both.pem");
    let ours = std::fs::read_to_string(proxy.bundle()).unwrap();
    std::fs::write(&bundle, ours + &std::fs::read_to_string(pki.ca()).unwrap()).unwrap();
    let ask = |scheme: &str| -> Vec<Value> {
        let mut client = python(CURL);
        client.arg(format!("{scheme}://{}", proxy.address())).arg(&bundle);
        client.args(["other", "partner"].map(|name| format!("https://{name}.test:{port}/")));
        let done = run(&mut client);
        let lines = done.succeeded().stdout.lines();
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let answers = ask("http");
    let with_token = format!("HTTP/2.0 Bearer {TOKEN}");
    assert_eq!(
        (&answers[0], &answers[2]),
        (&json!("HTTP/2.0 "), &json!("HTTP/3.0 "))
    );
    // The client races the two.
    assert!(
        answers[1] == "HTTP/3.0 " || answers[1] == "HTTP/2.0 ",
        "{answers:?}"
    );
    assert_eq!(answers[3..5], [json!(with_token), json!(with_token)]);
    let refused = answers[5].as_str().unwrap();
    assert!(refused.contains("403"), "{refused}");
    assert_eq!(
        proxy.metric(
            "outrider_denied_total",
            &[("destination", "seen"), ("reason", "udp")]
        ),
        2.0
    );
    // Over SOCKS5 the client does not ask for UDP.
    let answers = ask("socks5h");
    assert_eq!(answers[..2], [json!("HTTP/2.0 "), json!("HTTP/2.0 ")]);
    assert_eq!(answers[3..5], [json!(with_token), json!(with_token)]);
    for refused in [&answers[2], &answers[5]] {
        let refused = refused.as_str().unwrap();
        assert!(refused.contains("not supported over a SOCKS proxy"), "{refused}");
    }
}

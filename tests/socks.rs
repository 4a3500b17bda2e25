//! SOCKS5 on the listener: the same policy, limits and interception as by CONNECT, for clients of any protocol.

use std::io::Write;
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::partner::destination;
use crate::support::pki::trusting;
use crate::support::programs::{curl, python};
use crate::support::{Nginx, Origin, Pki, Proxy, TOKEN, Wire, closed_port, eventually, run};

const GREETING: &[u8] = &[5, 1, 0];

/// Returns a request for a host that is sent as a name.
fn asking(command: u8, host: &[u8], port: u16) -> Vec<u8> {
    let length = u8::try_from(host.len()).unwrap();
    [&[5, command, 0, 3, length], host, &port.to_be_bytes()].concat()
}

/// Sends a greeting and a request. Returns the code of the reply, and the connection.
fn socks(proxy: &Proxy, request: &[u8]) -> (u8, Wire) {
    let mut wire = proxy.wire();
    assert_eq!(wire.send(GREETING).read_exact(2).unwrap(), [5, 0]);
    let reply = wire.send(request).read_exact(10).unwrap();
    assert_eq!(
        (reply[0], &reply[2..]),
        (5, &[0, 1, 0, 0, 0, 0, 0, 0][..]),
        "{reply:?}"
    );
    (reply[1], wire)
}

fn echo(wire: &mut Wire) {
    while let Ok(byte) = wire.read_exact(1) {
        wire.send(byte);
    }
    wire.send("bye");
}

fn blind(origin: &Origin, more: &str) -> Proxy {
    Proxy::start(&format!(
        "destinations: {{ blind: {{ hosts: [\"127.0.0.1:{0}\", \"partner.test:{0}\", \"[::1]:{0}\"], mode: tunnel, {more} }} }}",
        origin.port()
    ))
}

fn last_line(proxy: &Proxy, what: &str) -> String {
    let mut found = String::new();
    eventually("a line in the log", || {
        let log = proxy.log();
        found = log
            .lines()
            .rev()
            .find(|line| line.contains(what))
            .unwrap_or_default()
            .to_owned();
        !found.is_empty()
    });
    found
}

/// Names and addresses of every type, bytes both ways, a half-close, and the counters of a tunnel.
#[test]
fn a_tunnel_passes_bytes_untouched() {
    let origin = Origin::http(echo);
    let proxy = blind(&origin, "");
    let port = origin.port();
    let v4 = [&[5, 1, 0, 1, 127, 0, 0, 1][..], &port.to_be_bytes()].concat();
    let mapped = [
        &[5, 1, 0, 4][..],
        &[0; 10],
        &[255, 255, 127, 0, 0, 1],
        &port.to_be_bytes(),
    ]
    .concat();
    for request in [
        asking(1, b"partner.test", port),
        asking(1, b"PARTNER.test.", port),
        asking(1, b"127.0.0.1", port),
        v4,
        mapped,
    ] {
        let (code, mut wire) = socks(&proxy, &request);
        assert_eq!(code, 0, "{request:?}");
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(wire.send(&bytes).read_exact(256).unwrap(), bytes);
        wire.half_close();
        assert_eq!(wire.rest().0, b"bye");
    }
    let labels = [("destination", "blind")];
    eventually("the tunnels are counted", || {
        proxy.metric("outrider_tunnels_total", &labels) == 5.0
    });
    let of_clients = [("destination", "blind"), ("method", "CONNECT"), ("code", "200")];
    assert_eq!(proxy.metric("outrider_requests_total", &of_clients), 5.0);
    let line = last_line(&proxy, "\"host\":\"127.0.0.1\"");
    assert!(
        line.contains("\"host\":\"127.0.0.1\"") && line.contains(&format!("\"port\":{port}")),
        "{line}"
    );
}

/// E1: greeting, request and the first bytes in one segment, or byte by byte.
#[test]
fn early_bytes_are_delivered() {
    let origin = Origin::http(echo);
    let proxy = blind(&origin, "");
    let whole = [GREETING, &asking(1, b"partner.test", origin.port()), b"early"].concat();
    let mut wire = proxy.wire();
    wire.send(&whole);
    assert_eq!(wire.read_exact(12).unwrap()[..4], [5, 0, 5, 0]);
    assert_eq!(wire.read_exact(5).unwrap(), b"early");
    // What looks like the end of a head of HTTP, and more than any head may have.
    for early in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![b'x'; 200_000]] {
        let whole = [GREETING, &asking(1, b"partner.test", origin.port()), &early].concat();
        let mut wire = proxy.wire();
        wire.send(&whole);
        assert_eq!(wire.read_exact(12).unwrap()[..4], [5, 0, 5, 0]);
        assert_eq!(wire.read_exact(18).unwrap(), early[..18]);
    }
    let mut wire = proxy.wire();
    for byte in &whole {
        wire.send([*byte]);
    }
    assert_eq!(wire.read_exact(12).unwrap()[..4], [5, 0, 5, 0]);
    assert_eq!(wire.read_exact(5).unwrap(), b"early");
}

/// Each failure has its code, and its sentence in the log.
#[test]
fn a_refusal_is_a_code_and_a_sentence_in_the_log() {
    let origin = Origin::http(echo);
    let closed = closed_port();
    let proxy = Proxy::start(&format!(
        "destinations:\n  blind: {{ hosts: [\"partner.test:{0}\", \"127.0.0.1:{closed}\", \"nowhere.invalid:{0}\"], mode: tunnel }}\n\
         dns: {{ servers: [\"127.0.0.1:{closed}\"], timeout: 300ms, hosts: {{ partner.test: 127.0.0.1 }} }}\n",
        origin.port()
    ));
    let port = origin.port();
    let with_kind = |kind: u8| [&[5, 1, 0, kind][..], &[0; 18]].concat();
    for (request, codes, sentence) in [
        (
            asking(1, b"other.test", port),
            &[2][..],
            "named by no destination",
        ),
        (asking(1, b"127.0.0.1", closed), &[5], "refused the connection"),
        (asking(1, b"nowhere.invalid", port), &[4, 6], "nowhere.invalid"),
        (
            asking(1, b"127.0.0.1", proxy.address().port()),
            &[2],
            "named by no destination",
        ),
        (asking(2, b"partner.test", port), &[7], "BIND"),
        (asking(3, b"partner.test", port), &[7], "UDP ASSOCIATE"),
        (asking(9, b"partner.test", port), &[7], "command 9"),
        (with_kind(2), &[8], "address of type 2"),
        (asking(1, b"", port), &[1], "the host is neither a name"),
        (
            asking(1, b"partner.test\0.evil.test", port),
            &[1],
            "the host is neither a name",
        ),
        (
            asking(1, b"[partner.test]", port),
            &[1],
            "the host is neither a name",
        ),
        (
            asking(1, b"partner.test", 0),
            &[1],
            "the port is missing or not a number",
        ),
        (asking(1, b"127.1", port), &[1], "the host is neither a name"),
        (asking(1, &[b'a'; 255], port), &[1], "the host is neither a name"),
    ] {
        let before = proxy.log().len();
        let (code, mut wire) = socks(&proxy, &request);
        assert!(codes.contains(&code), "{code} for {request:?}");
        assert!(wire.closes(), "{request:?}");
        eventually("the sentence is in the log", || {
            proxy.log()[before..].contains(sentence)
        });
    }
    assert_eq!(origin.raw(), "", "nothing came out of all that");
    let denied = [("destination", "unlisted"), ("reason", "unlisted")];
    assert!(proxy.metric("outrider_denied_total", &denied) >= 2.0);
}

/// A11: what is not SOCKS5 as it should be ends quickly, and nothing is dialled.
#[test]
fn bytes_that_are_not_socks5_are_refused() {
    let origin = Origin::http(echo);
    let proxy = blind(&origin, "");
    for (bytes, answer) in [
        (&[5, 0][..], &[][..]),
        (&[5, 1, 1], &[5, 0xff]),
        (&[5, 2, 1, 3], &[5, 0xff]),
        (&[5, 1, 0, 4, 1, 0, 1], &[5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0]),
        (&[5, 1, 0, 5, 1, 1, 1], &[5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0]),
        (
            b"\x04\x01\x00\x50\x7f\x00\x00\x01me\0",
            &[0, 0x5b, 0, 0, 0, 0, 0, 0],
        ),
    ] {
        let mut wire = proxy.wire();
        let (told, _) = wire.send(bytes).rest();
        assert_eq!(told, answer, "{bytes:?}");
    }
    assert!(last_line(&proxy, "SOCKS4").contains("socks5h://"));
    // A greeting with all 255 methods is a greeting.
    let mut wire = proxy.wire();
    let all: Vec<u8> = [5, 255].into_iter().chain(0..255).collect();
    assert_eq!(wire.send(&all).read_exact(2).unwrap(), [5, 0]);
    // The first byte decides, and only that of the connection: a second request is HTTP as the first one was.
    let mut wire = proxy.wire();
    let first = format!(
        "OPTIONS http://{}/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n",
        origin.authority()
    );
    wire.ask(&first);
    let answer = wire.ask([5, 1, 0]);
    assert_eq!(answer.status, 400, "{answer:?}");
    // TLS is spoken only where the configuration has a certificate for it.
    let answer = proxy.raw([0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]);
    assert!(answer.text().contains("begins with TLS"), "{}", answer.text());
    assert_eq!(origin.raw(), "");
}

/// A client that offers only a password is served where nobody asks for one, as over HTTP.
#[test]
fn a_password_that_nobody_asks_for_is_ignored() {
    let origin = Origin::http(echo);
    let proxy = blind(&origin, "");
    let mut wire = proxy.wire();
    assert_eq!(wire.send([5, 1, 2]).read_exact(2).unwrap(), [5, 2]);
    assert_eq!(wire.send(b"\x01\x02me\x06sesame").read_exact(2).unwrap(), [1, 0]);
    let request = asking(1, b"partner.test", origin.port());
    assert_eq!(wire.send(request).read_exact(10).unwrap()[1], 0);
}

/// `limits.tunnels` counts both ways to a tunnel, and a rate limit of the destination holds.
#[test]
fn limits_hold_for_socks_as_for_connect() {
    let origin = Origin::http(echo);
    let proxy = Proxy::start(&format!(
        "limits: {{ tunnels: 1 }}\ndestinations: {{ blind: {{ hosts: [\"partner.test:{}\"], mode: tunnel }} }}",
        origin.port()
    ));
    let request = asking(1, b"partner.test", origin.port());
    let (code, held) = socks(&proxy, &request);
    assert_eq!(code, 0);
    assert_eq!(socks(&proxy, &request).0, 1);
    assert_eq!(
        proxy.connect(&format!("partner.test:{}", origin.port())).0.status,
        503
    );
    drop(held);
    eventually("the place is free", || socks(&proxy, &request).0 == 0);

    let proxy = blind(&origin, "rate_limit: 1/h");
    assert_eq!((socks(&proxy, &request).0, socks(&proxy, &request).0), (0, 1));
    let refused = [("destination", "blind")];
    assert_eq!(proxy.metric("outrider_limit_refused_total", &refused), 1.0);
}

/// The main job by SOCKS5: TLS inside is intercepted, and the credential attached; cleartext inside is HTTP as well.
#[test]
fn an_intercepted_destination_is_intercepted() {
    let pki = Pki::new();
    let nginx = Nginx::demanding(&pki, false);
    let yaml = destination(&pki, &pki.client("app"), &nginx.authority(), "");
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    let at = proxy.address();
    let bundle = proxy.bundle().display().to_string();
    for scheme in ["https", "http"] {
        let url = format!("{scheme}://{}/token", nginx.authority());
        for way in ["socks5h", "socks5"] {
            // With socks5 curl resolves the name itself.
            let name = format!("{}:127.0.0.1", nginx.authority());
            let by = format!("{way}://{at}");
            let told = run(&mut curl([
                "--fail",
                "--proxy",
                &by,
                "--cacert",
                &bundle,
                "--resolve",
                &name,
                &url,
            ]));
            if way == "socks5h" {
                assert!(
                    told.succeeded().stdout.starts_with("hello CN=app with a token"),
                    "{told:#?}"
                );
            } else {
                // The address is no name of a destination.
                assert_eq!(told.code(), 97, "{told:#?}");
            }
        }
    }
    let (code, wire) = {
        let (host, port) = nginx
            .authority()
            .rsplit_once(':')
            .map(|(h, p)| (h.to_owned(), p.parse().unwrap()))
            .unwrap();
        socks(&proxy, &asking(1, host.as_bytes(), port))
    };
    assert_eq!(code, 0);
    let mut wire = wire
        .tls("partner.test", &trusting(&proxy.bundle(), &["http/1.1"]))
        .unwrap();
    let answer = wire.get("other.test", "/");
    assert_eq!(answer.status, 421, "{answer:?}");
}

const PYSOCKS: &str = "import sys, socks\n\
    s = socks.socksocket(); s.set_proxy(socks.SOCKS5, '127.0.0.1', int(sys.argv[1]), rdns=True)\n\
    s.settimeout(20); s.connect(('partner.test', int(sys.argv[2]))); s.sendall(b'ping')\n\
    got = b''\n\
    while len(got) < 4: got += s.recv(4)\n\
    print(got.decode())";
const REQUESTS: &str = "import sys, requests\n\
    p = 'socks5h://127.0.0.1:' + sys.argv[1]\n\
    print(requests.get(f'http://partner.test:{sys.argv[2]}/', proxies={'http': p}, timeout=20).text)";
const HTTPX: &str = "import sys, httpx\n\
    c = httpx.Client(proxy='socks5h://127.0.0.1:' + sys.argv[1], trust_env=False)\n\
    print(c.get(f'http://partner.test:{sys.argv[2]}/').text)";

/// What developers use: PySocks, requests and httpx, and OpenSSH's way through `nc`.
#[test]
fn real_clients_come_through() {
    let origin = Origin::http(echo);
    let proxy = blind(&origin, "");
    let (at, port) = (proxy.address().port().to_string(), origin.port().to_string());
    let told = run(python(PYSOCKS).args([&at, &port]));
    assert_eq!(told.succeeded().stdout.trim(), "ping", "{told:#?}");
    let mut netcat = crate::support::programs::clean("nc");
    netcat
        .args([
            "-X",
            "5",
            "-x",
            &format!("127.0.0.1:{at}"),
            "-N",
            "127.0.0.1",
            &port,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = netcat.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"ping").unwrap();
    let told = child.wait_with_output().unwrap();
    assert_eq!(told.stdout, b"pingbye", "{told:?}");

    let http = Origin::plain();
    let proxy = Proxy::start(&format!(
        "destinations: {{ p: {{ hosts: [\"partner.test:{}\"] }} }}",
        http.port()
    ));
    let (at, port) = (proxy.address().port().to_string(), http.port().to_string());
    for script in [REQUESTS, HTTPX] {
        let told = run(python(script).args([&at, &port]));
        assert_eq!(told.succeeded().stdout.trim(), "ok", "{told:#?}");
    }
}

/// J2: a client that goes on forever about who it is gives way. K1: an open tunnel is drained like any other.
#[test]
fn a_tunnel_by_socks_ends_with_the_process() {
    let origin = Origin::http(echo);
    let mut proxy = Proxy::start(&format!(
        "drain: 1s\ndestinations: {{ blind: {{ hosts: [\"partner.test:{}\"], mode: tunnel }} }}",
        origin.port()
    ));
    let (code, mut wire) = socks(&proxy, &asking(1, b"partner.test", origin.port()));
    assert_eq!(code, 0);
    wire.send("x").read_exact(1).unwrap();
    proxy.signal(Signal::TERM);
    assert_eq!(wire.send("y").read_exact(1).unwrap(), b"y");
    drop(wire);
    assert!(proxy.exit().success());
}

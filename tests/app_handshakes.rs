//! Failed handshakes with the app: each is logged with what the app offered, so that a person knows what to do.

use std::process::Stdio;

use crate::support::partner::Partner;
use crate::support::programs::{clean, curl, python};
use crate::support::{Proxy, TOKEN, eventually, run};

/// What the proxy should report about a failed handshake.
struct ExpectedFailure<'a> {
    /// The error type of RFC 9209.
    error: &'a str,
    /// Parts of the line.
    parts: &'a [&'a str],
    is_distrust: bool,
}

fn intercepting(partner: &Partner) -> Proxy {
    let yaml = format!(
        "log: {{ format: json }}\n{}",
        partner.yaml("timeouts: { tls: 500ms }")
    );
    Proxy::start_with(&yaml, &[("TOKEN", TOKEN)])
}

#[track_caller]
fn assert_reported(proxy: &Proxy, what: &str, told: &ExpectedFailure<'_>) {
    let line = || {
        let log = proxy.log();
        let mut lines = log.lines().filter(|line| line.contains("\"untold\":0"));
        lines.find(|line| line.contains("\"WARN\"")).map(str::to_owned)
    };
    eventually(what, || line().is_some());
    let line = line().unwrap();
    for part in told.parts.iter().chain(&["\"destination\":\"partner\""]) {
        assert!(line.contains(part), "{what}: {part}: {line}");
    }
    let labels = [("destination", "partner"), ("error", told.error)];
    assert_eq!(
        proxy.metric("outrider_errors_total", &labels),
        1.0,
        "{what}: {}",
        proxy.page("/metrics").text()
    );
    let distrust = proxy.metric("outrider_client_distrust_total", &[("destination", "partner")]);
    assert_eq!(distrust, f64::from(u8::from(told.is_distrust)), "{what}");
}

/// Connects with OpenSSL's client and its limits.
fn s_client(proxy: &Proxy, authority: &str, arguments: &[&str]) {
    let mut command = clean("openssl");
    command.args(["s_client", "-proxy", &proxy.address().to_string()]);
    command.args(["-connect", authority]).args(arguments);
    run(command.stdin(Stdio::null()));
}

/// What has no version, cipher, group, signature or protocol in common with us is named, with what it offered.
#[test]
fn a_client_that_has_nothing_in_common_with_us_is_logged_with_its_offer() {
    let partner = Partner::new();
    let cases: [(&[&str], &[&str]); 8] = [
        (
            &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"],
            &[
                "no version that is accepted here",
                "\"tls\":\"up to TLS 1.1\"",
                "\"server_name\":\"partner.test\"",
            ],
        ),
        (
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"],
            &["no cipher suite", "\"ciphers\":\"ECDHE-ECDSA CBC\""],
        ),
        (
            &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"],
            &["no cipher suite", "\"ciphers\":\"ECDHE-RSA AEAD\""],
        ),
        (
            &["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"],
            &["signature algorithm", "\"ciphers\":\"TLS 1.3\""],
        ),
        (
            &["-tls1_3", "-groups", "P-521"],
            &["no key exchange", "\"groups\":\"P-521\""],
        ),
        (
            &["-tls1_2", "-groups", "P-521"],
            &["\"groups\":\"P-521\"", "\"tls\":\"up to TLS 1.2\""],
        ),
        (
            &["-alpn", "acme-tls/1"],
            &["by ALPN it offers no protocol", "\"alpn\":\"acme-tls/1\""],
        ),
        (&["-alpn", "h2"], &["let it offer http/1.1", "\"alpn\":\"h2\""]),
    ];
    for (arguments, parts) in cases {
        let proxy = intercepting(&partner);
        s_client(&proxy, &partner.authority(), arguments);
        let told = ExpectedFailure {
            error: "tls_protocol_error",
            parts,
            is_distrust: false,
        };
        assert_reported(&proxy, &format!("{arguments:?}"), &told);
    }
}

/// Opens a tunnel by hand, and prepares TLS that trusts everybody: the beginning of the two scripts below.
const TUNNEL: &str = r#"
import socket, ssl, struct, sys
proxy, authority, what = sys.argv[1:4]
host, port = proxy.rsplit(':', 1)
s = socket.create_connection((host, int(port)), 10)
s.sendall(f'CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n'.encode())
assert b' 200 ' in s.recv(4096)
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
"#;

/// Leaves the handshake where one likes.
const BY_HAND: &str = r#"
into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(into, out, server_hostname='partner.test')
try:
    tls.do_handshake()
except ssl.SSLWantReadError:
    pass
hello = out.read()
if what == 'garbage':
    s.sendall(b'\x16\x03\x01\x00\x05hello')
elif what == 'ssh':
    s.sendall(b'SSH-2.0-OpenSSH_9.2p1\r\n')
elif what == 'binary':
    s.sendall(b'\x00\x00\x00\x10\x04\xd2\x16\x2f')
elif what == 'half':
    s.sendall(hello[:100])
elif what == 'half-closed':
    s.sendall(hello[:100])
    s.close()
    sys.exit()
else:
    s.sendall(hello)
    answer = s.recv(65536)
    assert answer[0] == 22, answer
    if what == 'close':
        s.close()
        sys.exit()
    elif what == 'reset':
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        s.close()
        sys.exit()
    elif what == 'alert':
        s.sendall(b'\x15\x03\x03\x00\x02\x02\x28')
    elif what == 'checked-late':
        into.write(answer)
        tls.do_handshake()
        s.sendall(out.read())
        s.close()
        sys.exit()
s.settimeout(10)
try:
    while s.recv(65536): pass
except ConnectionError:
    pass
"#;

#[test]
fn a_client_that_leaves_at_any_point_of_the_handshake_is_logged() {
    let partner = Partner::new();
    let silent = "likely does not trust outrider's certificate: it closed the connection when it had seen it";
    for (what, error, parts, is_distrust) in [
        (
            "close",
            "connection_terminated",
            &[silent, "TLS 1.3, TLS 1.2"][..],
            true,
        ),
        ("reset", "connection_terminated", &[silent], true),
        ("checked-late", "connection_terminated", &[silent], true),
        (
            "half-closed",
            "connection_terminated",
            &["before the TLS handshake"],
            false,
        ),
        (
            "alert",
            "tls_alert_received",
            &["likely does not trust", "with an alert", "HandshakeFailure"],
            true,
        ),
        (
            "finished",
            "connection_read_timeout",
            &["within timeouts.tls", "partner.test"],
            false,
        ),
        ("half", "connection_read_timeout", &["within timeouts.tls"], false),
        (
            "garbage",
            "tls_protocol_error",
            &["is not TLS as it should be"],
            false,
        ),
        (
            "ssh",
            "tls_protocol_error",
            &["neither TLS nor HTTP", "mode: tunnel"],
            false,
        ),
        ("binary", "tls_protocol_error", &["neither TLS nor HTTP"], false),
    ] {
        let proxy = intercepting(&partner);
        let address = proxy.address().to_string();
        run(python(&format!("{TUNNEL}{BY_HAND}")).args([&address, &partner.authority(), what])).succeeded();
        let told = ExpectedFailure {
            error,
            parts,
            is_distrust,
        };
        assert_reported(&proxy, what, &told);
    }
}

/// Tells what arrives first after the client's side of a handshake, as types of TLS records, and then the answer.
const FLIGHTS: &str = r#"
if what != 'TLS 1.3':
    context.maximum_version = ssl.TLSVersion.TLSv1_2
if what == 'no cipher':
    context.set_ciphers('ECDHE-RSA-AES128-GCM-SHA256')
into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(into, out, server_hostname='partner.test')
def step():
    try:
        tls.do_handshake()
        return True
    except ssl.SSLWantReadError:
        return False
def records(data):
    found = []
    while data:
        found.append(str(data[0]))
        data = data[5 + int.from_bytes(data[3:5], 'big'):]
    return ','.join(found)
step()
s.sendall(out.read())
first = s.recv(65536)
if first[0] == 21:
    print('alert')
    sys.exit()
into.write(first)
if what == 'damaged':
    s.sendall(b'\x14\x03\x03\x00\x01\x01\x16\x03\x03\x00\x28' + bytes(40))
    print(records(s.recv(65536)))
    sys.exit()
request = f'GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n'.encode()
is_over = step()
if is_over and len(sys.argv) > 4:
    tls.write(request)
s.sendall(out.read())
second = s.recv(65536)
into.write(second)
if not is_over:
    assert step()
if not (is_over and len(sys.argv) > 4):
    tls.write(request)
    s.sendall(out.read())
answer = b''
while not answer.endswith(b'ok'):
    try:
        answer += tls.read(65536)
    except ssl.SSLWantReadError:
        into.write(s.recv(65536))
print(records(second), answer.split(b'\r\n')[0].decode())
"#;

/// The ticket comes with the answer to a client that has asked already, and at once to one that has not. A client that waits for
/// the end of the handshake gets it, and the reason where it fails.
#[test]
fn a_ticket_waits_for_the_answer_and_nothing_else_waits() {
    let partner = Partner::new();
    let proxy = intercepting(&partner);
    let address = proxy.address().to_string();
    for (arguments, told) in [
        (&["TLS 1.3", "asks at once"][..], "23,23 HTTP/1.1 200 OK"),
        (&["TLS 1.3"], "23 HTTP/1.1 200 OK"),
        // The ticket, the change of cipher and the end.
        (&["TLS 1.2"], "22,20,22 HTTP/1.1 200 OK"),
        (&["no cipher"], "alert"),
        (&["damaged"], "21"),
    ] {
        let mut command = python(&format!("{TUNNEL}{FLIGHTS}"));
        let run = run(command.args([&address, &partner.authority()]).args(arguments));
        assert_eq!(run.succeeded().stdout.trim(), told, "{arguments:?}");
    }
}

/// The usual first trouble, over and over: one line, and a count of what it leaves out.
#[test]
fn a_client_that_does_not_trust_us_is_logged_once_and_counted_each_time() {
    let partner = Partner::new();
    let proxy = intercepting(&partner);
    let (address, url) = (
        proxy.address().to_string(),
        format!("https://{}/", partner.authority()),
    );
    for _ in 0..3 {
        let asked = run(&mut curl(["-sS", "-x", &format!("http://{address}"), &url]));
        assert_eq!(asked.code(), 60, "{}", asked.stderr);
    }
    let labels = [("destination", "partner")];
    eventually("three are counted", || {
        proxy.metric("outrider_client_distrust_total", &labels) == 3.0
    });
    assert_eq!(
        proxy
            .log()
            .matches("does not trust outrider's certificate")
            .count(),
        1
    );
    assert!(proxy.log().contains("UnknownCA"), "{}", proxy.log());
}

/// A CONNECT seldom says which client it is of. The other requests of the app do, unless they may be of another app.
#[test]
fn the_remedy_is_for_the_client_that_other_requests_come_from() {
    let partner = Partner::new();
    let clients = "clients: { a: { basic: env:TOKEN }, b: { basic: env:MORE } }";
    for (keys, user, is_told) in [("", "", true), (clients, "a:", false)] {
        let yaml = format!("log: {{ format: json }}\n{keys}\n{}", partner.yaml(""));
        let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN), ("MORE", "more")]);
        let user = if user.is_empty() {
            String::new()
        } else {
            format!("{user}{TOKEN}@")
        };
        let address = format!("http://{user}{}", proxy.address());
        let ask = |agent: &str, url: &str| {
            run(&mut curl(["-sS", "-x", &address, "-A", agent, url]));
        };
        ask("python-requests/2.34.2", "http://elsewhere.test/");
        // No User-Agent at all, and no trust.
        ask("", &format!("https://{}/", partner.authority()));
        eventually("the hint", || {
            proxy.log().contains("does not trust outrider's certificate")
        });
        let log = proxy.log();
        assert_eq!(
            log.contains("by the User-Agent of the app's other requests: requests trusts REQUESTS_CA_BUNDLE"),
            is_told,
            "{log}"
        );
        assert!(log.contains("outrider exec"), "{log}");
    }
}

/// wget stands on GnuTLS and looks at the certificate when the handshake is done.
#[test]
fn wget_that_leaves_without_an_alert_is_logged() {
    let partner = Partner::new();
    let proxy = intercepting(&partner);
    let mut wget = clean("wget");
    wget.env("https_proxy", format!("http://{}", proxy.address()));
    let asked = run(wget.args(["-q", "-O-", "-t1", &format!("https://{}/", partner.authority())]));
    assert_eq!(asked.code(), 5, "{}", asked.stderr);
    let labels = [("destination", "partner")];
    eventually("it is counted", || {
        proxy.metric("outrider_client_distrust_total", &labels) == 1.0
    });
}

/// HTTP/1.0 in name: the app is served, and as it asked.
#[test]
fn a_client_that_offers_http_1_0_alone_is_served() {
    let partner = Partner::new();
    let proxy = intercepting(&partner);
    let (address, url) = (
        proxy.address().to_string(),
        format!("https://{}/", partner.authority()),
    );
    for flags in [
        &["--http1.0"][..],
        &["-0", "--no-alpn"],
        &["--http1.1"],
        &["--http2"],
    ] {
        let mut command = curl(["-sS", "-i", "-x", &format!("http://{address}"), &url, "--cacert"]);
        let asked = run(command.arg(proxy.bundle()).args(flags));
        let text = &asked.succeeded().stdout;
        assert!(text.contains("200") && text.ends_with("ok"), "{flags:?}: {text}");
    }
    assert_eq!(proxy.metric("outrider_errors_total", &[]), 0.0);
}

/// A client of HTTP/2 alone hears in HTTP/2 that its upstream is dead.
#[test]
fn a_client_of_http_2_alone_learns_inside_that_its_upstream_is_dead() {
    let authority = format!("partner.test:{}", crate::support::closed_port());
    let proxy = Proxy::start_with(
        &format!("destinations: {{ p: {{ hosts: [\"{authority}\"], auth: {{ bearer: env:TOKEN }} }} }}"),
        &[("TOKEN", TOKEN)],
    );
    let mut wire = proxy.intercepted_as(&authority, &["h2"]);
    // The server's preface: a SETTINGS frame.
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    assert_eq!(wire.read_exact(4).unwrap()[3], 4);
}

/// gRPC's own client, on BoringSSL.
const GRPC: &str = r#"
import grpc, sys
trusted = open(sys.argv[2], 'rb').read()
channel = grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials(trusted))
try:
    grpc.channel_ready_future(channel).result(timeout=float(sys.argv[3]))
    print('ready')
except grpc.FutureTimeoutError:
    print('refused')
"#;

/// BoringSSL refuses an address under constraints that mention addresses, with a misleading error. A name
/// works, and so does an address if the configuration leaves addresses out of the constraints.
#[test]
fn boringssl_refuses_an_intercepted_address_unless_addresses_are_left_out() {
    // The failure is reported inside the tunnel, which is all that this test needs.
    let port = crate::support::closed_port();
    let (address, name) = (format!("127.0.0.1:{port}"), format!("partner.test:{port}"));
    for (constraints, host, patience, wanted) in [
        ("names_and_addresses", &address, "3", "refused\n"),
        ("names_and_addresses", &name, "20", "ready\n"),
        ("names", &address, "20", "ready\n"),
        ("none", &address, "20", "ready\n"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("ca-bundle.pem");
        let proxy = Proxy::start_with(
            &format!(
                "ca: {{ bundle: \"{}\", constraints: {constraints} }}\n\
                 destinations: {{ partner: {{ hosts: [\"{address}\", \"{name}\"], auth: {{ bearer: env:TOKEN }} }} }}",
                bundle.display()
            ),
            &[("TOKEN", TOKEN)],
        );
        let mut client = python(GRPC);
        client.env("grpc_proxy", format!("http://{}", proxy.address()));
        client.env("no_grpc_proxy", "").env("no_proxy", "");
        let done = run(client.arg(host).arg(&bundle).arg(patience));
        assert_eq!(
            done.succeeded().stdout,
            wanted,
            "{constraints} {host}: {}",
            proxy.log()
        );
        let hint = proxy
            .log()
            .contains("clients on BoringSSL (gRPC, Envoy, Electron, Bun) refuse our");
        assert_eq!(
            hint,
            wanted == "refused\n",
            "{constraints} {host}: {}",
            proxy.log()
        );
    }
}

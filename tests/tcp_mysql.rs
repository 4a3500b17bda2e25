//! A local port (`tcp`) before the login of MySQL 8, which Debian has no server for.

use crate::support::local_ports::{PASSWORD, entry, local_port, tls};
use crate::support::programs::{ServerProcess, python};
use crate::support::{Pki, Proxy, closed_port, run};

/// MySQL 8: a server that knows no hash wants the password itself. The client sees no TLS, and encrypts it.
#[test]
fn a_password_for_caching_sha2_reaches_the_server_under_tls_only() {
    let pki = Pki::new();
    let server = pki.server("partner.test");
    let port = closed_port();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("mysql.sock");
    let (ca, client) = (pki.ca(), pki.client("app"));
    let script = CACHING_SHA2
        .replace("@PORT@", &port.to_string())
        .replace("@CERT@", &server.cert_path.display().to_string())
        .replace("@KEY@", &server.key_path.display().to_string())
        .replace("@CA@", &ca.display().to_string())
        .replace("@PASSWORD@", PASSWORD);
    let mut stand_in = python(&script);
    let _server = ServerProcess::start(&mut stand_in, port);
    let tls = tls(&pki, Some(&client));
    let more = "starttls: mysql";
    let proxy = Proxy::start(&format!(
        "tcp:\n{}  local: {{ listen: \"unix:{}\", to: \"partner.test:{port}\", tls: {tls}, {more} }}\n",
        entry("db", port, &tls, more),
        socket.display()
    ));
    let local = local_port(&proxy, "db");
    for place in [
        format!("host='127.0.0.1', port={local}"),
        format!("unix_socket='{}'", socket.display()),
    ] {
        for (password, good) in [(PASSWORD, true), ("canary-2f6b-wrong", false)] {
            let answered = run(&mut python(&format!(
                "import pymysql\nc = pymysql.connect({place}, user='app', password='{password}')\nprint('logged in')"
            )));
            assert_eq!(
                answered.stdout.contains("logged in"),
                good,
                "{place}: {answered:?}"
            );
            assert_eq!(answered.stderr.contains("1045"), !good, "{place}: {answered:?}");
        }
    }
}

/// A server of MySQL 8's login, as its documentation describes it. It takes the password under TLS with a client
/// certificate only, checks the numbers of the packets, and switches the method first.
const CACHING_SHA2: &str = r##"
import socket, ssl, struct, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("@CERT@", "@KEY@")
context.load_verify_locations("@CA@")
context.verify_mode = ssl.CERT_REQUIRED
def packet(n, payload): return struct.pack("<I", len(payload))[:3] + bytes([n]) + payload
def read(s, n):
    head = b""
    while len(head) < 4:
        got = s.recv(4 - len(head))
        if not got: raise EOFError
        head += got
    assert head[3] == n, (head, n)
    length = int.from_bytes(head[:3], "little")
    body = b""
    while len(body) < length: body += s.recv(length - len(body))
    return body
def serve(s):
    s.sendall(packet(0, b"\x0a8.0.36\0" + struct.pack("<I", 7) + b"abcdefgh\0" + struct.pack("<H", 0xffff) + b"\x21"
        + struct.pack("<HH", 2, 0xdfff) + b"\x15" + bytes(10) + b"ijklmnopqrst\0caching_sha2_password\0"))
    request = read(s, 1)
    assert len(request) == 32 and request[1] & 8, request
    s = context.wrap_socket(s, server_side=True)
    answer = read(s, 2)
    assert answer[:32] == request, answer
    nonce = b"zyxwvutsrqponmlkjihg"
    s.sendall(packet(3, b"\xfecaching_sha2_password\0" + nonce + b"\0"))
    assert len(read(s, 4)) == 32
    s.sendall(packet(5, b"\x01\x04"))
    good = read(s, 6) == b"@PASSWORD@\0"
    if not good:
        s.sendall(packet(7, b"\xff" + struct.pack("<H", 1045) + b"#28000Access denied"))
        return
    s.sendall(packet(7, b"\0\0\0\x02\0\0\0"))
    while read(s, 0)[:1] != b"\x01":
        s.sendall(packet(1, b"\0\0\0\x02\0\0\0"))
def guarded(s):
    try: serve(s)
    except EOFError: pass
    finally: s.close()
listener = socket.create_server(("127.0.0.1", @PORT@))
while True:
    s, _ = listener.accept()
    threading.Thread(target=guarded, args=(s,), daemon=True).start()
"##;

//! Local ports (`tcp`) between hostile or broken servers and apps: raw sockets that say what no real program says.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::{ServerConnection, StreamOwned};

use crate::support::local_ports::{entry, local_port, tls};
use crate::support::{PATIENCE, Pki, Proxy, eventually};

/// What a stand-in does with a connection, step by step.
#[derive(Clone)]
enum Step {
    /// Waits for bytes of outrider.
    Hear,
    Say(Vec<u8>),
    /// Says it over and over, until nobody takes it.
    Repeat(&'static [u8]),
    /// Says nothing until outrider leaves.
    Keep,
}

use Step::{Hear, Keep, Repeat, Say};

fn say(text: &[u8]) -> Step {
    Say(text.to_vec())
}

/// Serves each connection so; returns the port.
fn stand_in(steps: Vec<Step>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let steps = steps.clone();
            thread::spawn(move || {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_nodelay(true).unwrap();
                for step in steps {
                    let ended = match step {
                        Hear => stream.read(&mut [0; 4096]).map(drop),
                        Say(bytes) => stream.write_all(&bytes),
                        Repeat(bytes) => loop {
                            if let Err(error) = stream.write_all(bytes) {
                                break Err(error);
                            }
                        },
                        Keep => stream.read_to_end(&mut Vec::new()).map(drop),
                    };
                    if ended.is_err() {
                        return;
                    }
                }
                let _ = stream.shutdown(Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
    });
    port
}

/// Connects to a local port, says `first`, and returns what comes until the end.
fn app(port: u16, first: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut told = Vec::new();
    // A reset is an end, too, and may come before the first byte is sent.
    let _ = stream.write_all(first);
    let _ = stream.read_to_end(&mut told);
    told
}

/// The first message of a client of PostgreSQL.
const STARTUP: &[u8] = b"\0\0\0\x17\0\x03\0\0user\0app\0\0\0\0\0\0\0";

/// The greeting of a MySQL server with these lower flags.
fn greeting(flags: u16) -> Vec<u8> {
    let mut payload = b"\x0a8.0.36\0\x01\0\0\0abcdefgh\0".to_vec();
    payload.extend(flags.to_le_bytes());
    payload.extend(b"\x21\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0mysql_native_password\0");
    packet(0, &payload)
}

fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let [a, b, c, ..] = payload.len().to_le_bytes();
    [&[a, b, c, sequence], payload].concat()
}

/// The answer of a client without TLS.
fn login() -> Vec<u8> {
    let mut payload = vec![0x05, 0xa2, 0x0f, 0x00, 0, 0, 0, 1, 0x21];
    payload.extend([0; 23]);
    payload.extend(b"app\0\0");
    packet(1, &payload)
}

/// One stand-in: the protocol, what it does, the first words of the app, what the app is told, and the log's reason.
struct Case(&'static str, Vec<Step>, Vec<u8>, &'static [u8], &'static str);

/// A server that is silent under TLS holds nobody for longer than one that is silent before it.
#[test]
fn a_server_that_is_silent_under_tls_is_given_up() {
    let pki = Pki::new();
    let config = Arc::new(pki.accepting(&pki.server("partner.test")));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"220 mx ESMTP\r\n").unwrap();
        for answer in [&b"250-mx\r\n250 STARTTLS\r\n"[..], b"220 go ahead\r\n"] {
            assert_ne!(stream.read(&mut [0; 4096]).unwrap(), 0);
            stream.write_all(answer).unwrap();
        }
        let connection = ServerConnection::new(config).unwrap();
        let mut heard = Vec::new();
        // Until outrider leaves.
        let _ = StreamOwned::new(connection, stream).read_to_end(&mut heard);
        heard
    });
    let more = "starttls: smtp, timeouts: { response: 1s, tls: 5s }";
    let proxy = Proxy::start(&format!("tcp:\n{}", entry("mail", port, &tls(&pki, None), more)));
    let told = app(local_port(&proxy, "mail"), b"");
    let told = String::from_utf8_lossy(&told);
    assert!(told.starts_with("421 "), "{told}");
    assert!(told.contains("did not say what it should within 1s"), "{told}");
    assert!(server.join().unwrap().starts_with(b"EHLO "), "TLS was up");
}

#[test]
fn what_no_server_says_before_tls_is_refused_with_the_reason() {
    let ssl = 0xf7ff | 0x0800;
    let (hello, offer) = (
        &b"220 mx ESMTP\r\n"[..],
        &b"250-mx\r\n250-PIPELINING\r\n250 starttls\r\n"[..],
    );
    let ok: &[u8] = b"* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n";
    // The answers to StartTLS: success, protocolError, and a notice of disconnection.
    let granted: &[u8] = b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00";
    let unknown: &[u8] = b"\x30\x10\x02\x01\x01\x78\x0b\x0a\x01\x02\x04\x00\x04\x04what";
    let gone: &[u8] = b"\x30\x10\x02\x01\x00\x78\x0b\x0a\x01\x34\x04\x00\x04\x04full";
    let evil: &[u8] = b"evil\x1b[31m\r\n\x07";
    let fatal = |text: &[u8]| {
        let fields = [b"SFATAL\0C53300\0M", text, b"\0\0"].concat();
        [
            &b"E"[..],
            &u32::try_from(fields.len() + 4).unwrap().to_be_bytes(),
            &fields,
        ]
        .concat()
    };
    let injected = "sent bytes in the clear behind its consent to TLS";
    let cases = vec![
        Case(
            "postgres",
            vec![Hear, say(b"Sevil")],
            STARTUP.to_vec(),
            b"outrider: partner.test sent bytes",
            injected,
        ),
        Case(
            "postgres",
            vec![Hear, say(b"N"), Keep],
            STARTUP.to_vec(),
            b"C08006\0",
            "does not offer TLS",
        ),
        Case(
            "postgres",
            vec![Hear, say(b"HTTP/1.1 400\r\n"), Keep],
            STARTUP.to_vec(),
            b"SFATAL",
            "does not answer as PostgreSQL does",
        ),
        Case(
            "postgres",
            vec![Hear, Say(fatal(b"sorry, too many clients already"))],
            STARTUP.to_vec(),
            b"too many clients",
            "refused: it says",
        ),
        Case(
            "postgres",
            vec![Hear, Say(fatal(evil))],
            STARTUP.to_vec(),
            b"evil [31m",
            "refused: it says",
        ),
        Case(
            "postgres",
            vec![Hear, say(b"E\xff\xff\xff\xff"), Keep],
            STARTUP.to_vec(),
            b"SFATAL",
            "does not answer as PostgreSQL does",
        ),
        Case(
            "postgres",
            vec![Keep],
            STARTUP.to_vec(),
            b"SFATAL",
            "did not say what it should within 1s (timeouts.response)",
        ),
        Case(
            "postgres",
            vec![Hear],
            STARTUP.to_vec(),
            b"SFATAL",
            "closed the connection before TLS was agreed on",
        ),
        Case(
            "postgres",
            vec![Hear, say(b"S"), Hear, say(b"no TLS at all"), Keep],
            STARTUP.to_vec(),
            b"SFATAL",
            "does not speak TLS on this port",
        ),
        Case(
            "postgres",
            vec![Hear, say(b"S"), Keep],
            STARTUP.to_vec(),
            b"SFATAL",
            "did not finish the TLS handshake within 1s",
        ),
        Case(
            "mysql",
            vec![Say(greeting(0xf7ff)), Keep],
            login(),
            b"outrider: ",
            "does not offer TLS",
        ),
        Case(
            "mysql",
            vec![Say([greeting(ssl), packet(1, b"\0evil")].concat()), Keep],
            login(),
            b"outrider: ",
            injected,
        ),
        Case(
            "mysql",
            vec![Say([&greeting(ssl)[..], b"evil"].concat()), Keep],
            login(),
            b"outrider: ",
            injected,
        ),
        Case(
            "mysql",
            vec![Say(packet(0, b"\xff\x10\x04Too many connections")), Keep],
            vec![],
            b"\xff\x51\x04outrider: ",
            "Too many connections",
        ),
        Case(
            "mysql",
            vec![say(b"\xff\xff\xff\0\x0a"), Keep],
            vec![],
            b"outrider: ",
            "does not answer as MySQL does",
        ),
        Case(
            "mysql",
            vec![say(b"\x03\0\0\0\x0a\x38\x38"), Keep],
            vec![],
            b"outrider: ",
            "does not answer as MySQL does",
        ),
        Case(
            "mysql",
            vec![say(b"\0\0\0\0"), Keep],
            vec![],
            b"outrider: ",
            "does not answer as MySQL does",
        ),
        Case(
            "mysql",
            vec![say(b"SSH-2.0-OpenSSH\r\n"), Keep],
            vec![],
            b"outrider: ",
            "does not answer as MySQL does",
        ),
        Case(
            "mysql",
            vec![Keep],
            vec![],
            b"outrider: ",
            "did not say what it should within 1s",
        ),
        Case(
            "mysql",
            vec![Say(greeting(ssl)), Keep],
            vec![],
            b"outrider: ",
            "the app did not say what it should within 1s",
        ),
        Case(
            "smtp",
            vec![
                say(hello),
                Hear,
                say(offer),
                Hear,
                say(b"220 go\r\nRSET\r\n"),
                Keep,
            ],
            vec![],
            b"421 4.4.1 outrider: partner.test sent bytes",
            injected,
        ),
        Case(
            "smtp",
            vec![say(hello), Hear, say(b"250-mx\r\n250 STARTTLSX\r\n"), Keep],
            vec![],
            b"421",
            "does not offer TLS",
        ),
        Case(
            "smtp",
            vec![say(hello), Hear, say(b"250 STARTTLS\r\n"), Keep],
            vec![],
            b"421",
            "does not offer TLS",
        ),
        Case(
            "smtp",
            vec![say(b"554 go away\r\n"), Keep],
            vec![],
            "refused: it says “554 go away”".as_bytes(),
            "554 go away",
        ),
        Case(
            "smtp",
            vec![say(b"220 mx\r\n250 mx\r\n"), Keep],
            vec![],
            b"421",
            injected,
        ),
        Case(
            "smtp",
            vec![say(hello), Hear, say(offer), Hear, say(b"454 not now\r\n"), Keep],
            vec![],
            b"454 not now",
            "454 not now",
        ),
        Case(
            "smtp",
            vec![say(b"220-a\r\n"), Repeat(b"220-more\r\n")],
            vec![],
            b"421",
            "says more than 16 KiB",
        ),
        Case(
            "smtp",
            vec![Repeat(b"x")],
            vec![],
            b"421",
            "says more than 16 KiB",
        ),
        Case(
            "smtp",
            vec![say(b"220-a\r\n250 b\r\n"), Keep],
            vec![],
            b"421",
            "does not answer as SMTP does",
        ),
        Case(
            "smtp",
            vec![say(b"\x16\x03\x01\0\n"), Keep],
            vec![],
            b"421",
            "does not answer as SMTP does",
        ),
        Case(
            "imap",
            vec![say(ok), Hear, say(b"o1 OK go\r\n* CAPABILITY evil\r\n"), Keep],
            vec![],
            b"* BYE outrider: partner.test sent bytes",
            injected,
        ),
        Case(
            "imap",
            vec![say(b"* PREAUTH hello\r\n"), Keep],
            vec![],
            b"* BYE",
            "PREAUTH",
        ),
        Case(
            "imap",
            vec![say(b"* BYE too many\r\n"), Keep],
            vec![],
            b"* BYE",
            "refused: it says “too many”",
        ),
        Case(
            "imap",
            vec![say(ok), Hear, say(b"o1 BAD no such command\r\n"), Keep],
            vec![],
            b"* BYE",
            "does not offer TLS: it says “no such command”",
        ),
        Case(
            "imap",
            vec![say(ok), Hear, Repeat(b"* 1 EXISTS\r\n")],
            vec![],
            b"* BYE",
            "says more than 16 KiB",
        ),
        Case(
            "imap",
            vec![say(ok), Hear, say(b"o2 OK\r\n"), Keep],
            vec![],
            b"* BYE",
            "does not answer as IMAP does",
        ),
        Case(
            "imap",
            vec![say(b"+OK POP3 ready\r\n"), Keep],
            vec![],
            b"* BYE",
            "does not answer as IMAP does",
        ),
        Case(
            "ldap",
            vec![Hear, Say([granted, b"\x30"].concat()), Keep],
            vec![],
            b"outrider: partner.test sent bytes",
            injected,
        ),
        Case(
            "ldap",
            vec![Hear, say(unknown), Keep],
            vec![],
            b"1.3.6.1.4.1.1466.20036",
            "does not offer TLS: it says “what”",
        ),
        Case(
            "ldap",
            vec![Hear, say(gone), Keep],
            vec![],
            b"1.3.6.1.4.1.1466.20036",
            "refused: it says “full”",
        ),
        Case(
            "ldap",
            vec![Hear, say(b"\x30\x84\xff\xff\xff\xff"), Keep],
            vec![],
            b"20036",
            "does not answer as LDAP does",
        ),
        Case(
            "ldap",
            vec![Hear, say(b"\x30\x80\0\0"), Keep],
            vec![],
            b"20036",
            "does not answer as LDAP does",
        ),
        Case(
            "ldap",
            vec![Hear, say(b"\x30\x03\x02\x01\x01"), Keep],
            vec![],
            b"20036",
            "does not answer as LDAP does",
        ),
        Case(
            "ldap",
            vec![
                Hear,
                say(b"\x30\x0c\x02\x01\x07\x78\x07\x0a\x01\x00\x04\x00\x04\x00"),
                Keep,
            ],
            vec![],
            b"20036",
            "does not answer as LDAP does",
        ),
        Case(
            "ldap",
            vec![Hear, say(b"hello"), Keep],
            vec![],
            b"20036",
            "does not answer as LDAP does",
        ),
    ];
    let pki = Pki::new();
    let app_certificate = pki.client("app");
    let lines: String = (cases.iter().enumerate())
        .map(|(i, Case(protocol, steps, ..))| {
            let more = format!("starttls: {protocol}, timeouts: {{ response: 1s, tls: 1s }}");
            let port = stand_in(steps.clone());
            entry(
                &format!("case-{i}"),
                port,
                &tls(&pki, Some(&app_certificate)),
                &more,
            )
        })
        .collect();
    let proxy = Proxy::start(&format!("tcp:\n{lines}"));
    for (i, Case(protocol, _, first, told, logged)) in cases.iter().enumerate() {
        let heard = app(local_port(&proxy, &format!("case-{i}")), first);
        let is_told = heard.windows(told.len()).any(|part| part == *told);
        assert!(is_told, "{i} {protocol}: {}", heard.escape_ascii());
        assert!(!heard.windows(4).any(|part| part == b"RSET"), "{i}");
        eventually(
            &format!("the log says of case {i} ({protocol}): {logged}"),
            || {
                let log = proxy.log();
                let name = format!("\"destination\":\"case-{i}\"");
                let mut lines = log
                    .lines()
                    .filter(|line| line.contains(&name) && line.contains("detail"));
                lines.any(|line| line.contains(logged))
            },
        );
    }
    assert!(!proxy.log().contains('\x1b'), "{}", proxy.log());
    assert_eq!(proxy.metric("outrider_tunnels_total", &[]), 0.0);
}

/// What an app says that is not its protocol, or is TLS, ends with a reason and reaches no server.
#[test]
fn an_app_that_speaks_something_else_is_told() {
    let (hello, name) = (
        b"\x16\x03\x01\0\xc8\x01\0\0\xc4\x03\x03",
        "\"destination\":\"pg\"",
    );
    let pki = Pki::new();
    let entries = [
        entry("pg", stand_in(vec![Keep]), &tls(&pki, None), "starttls: postgres"),
        entry(
            "my",
            stand_in(vec![Say(greeting(0xffff)), Keep]),
            &tls(&pki, None),
            "starttls: mysql",
        ),
    ];
    let proxy = Proxy::start(&format!("tcp:\n{}", entries.concat()));
    let (pg, my) = (local_port(&proxy, "pg"), local_port(&proxy, "my"));
    for (first, told, logged) in [
        (
            &hello[..],
            &b"\x15\x03\x01\0\x02\x02\x28"[..],
            "the app begins TLS with the local port",
        ),
        (
            b"GET / HTTP/1.1\r\n\r\n",
            b"C08006\0",
            "the app sent what is not PostgreSQL",
        ),
        (
            b"\0\0\0\x04\0\x03\0\0",
            b"C08006\0",
            "the app sent what is not PostgreSQL",
        ),
        (
            b"\0\0\x27\x11\0\x03\0\0",
            b"C08006\0",
            "the app sent what is not PostgreSQL",
        ),
        (
            b"\xff\xff\xff\xff\x04\xd2\x16\x2f",
            b"C08006\0",
            "the app sent what is not PostgreSQL",
        ),
        (
            &b"\0\0\0\x08\x04\xd2\x16\x2f".repeat(5),
            b"NNNN",
            "the app sent what is not PostgreSQL",
        ),
    ] {
        let before = proxy.log().matches(logged).count();
        let heard = app(pg, first);
        assert!(
            heard.windows(told.len()).any(|part| part == told),
            "{}",
            heard.escape_ascii()
        );
        eventually(logged, || proxy.log().matches(logged).count() > before);
    }
    // A client that asks a MySQL server for TLS although the greeting offers none.
    let mut request = vec![0x05, 0xae, 0x0f, 0x00, 0, 0, 0, 1, 0x21];
    request.extend([0; 23]);
    let heard = app(my, &packet(1, &request));
    assert!(
        heard.windows(6).any(|part| part == b"#08S01"),
        "{}",
        heard.escape_ascii()
    );
    eventually("the log says so", || {
        proxy.log().contains("\"destination\":\"my\"") && proxy.log().contains("begins TLS")
    });
    // Somebody looks whether a port is open: nothing is told of that.
    let before = proxy.log().matches(name).count();
    drop(TcpStream::connect(("127.0.0.1", pg)).unwrap());
    app(pg, hello);
    eventually("a later one is logged", || {
        proxy.log().matches(name).count() > before
    });
    assert_eq!(proxy.log().matches(name).count(), before + 1, "{}", proxy.log());
}

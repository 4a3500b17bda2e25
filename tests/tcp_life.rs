//! Local ports (`tcp`) over time: reload, rotation, limits, the rules for addresses, and how connections end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;

use rustix::process::Signal;

use crate::support::local_ports::{entry, local_port, tls};
use crate::support::programs::outrider;
use crate::support::{Identity, Origin, PATIENCE, Pki, Proxy, Wire, closed_port, eventually, run};

/// Answers each line with itself; says goodbye to who closes his half.
fn echo(wire: &mut Wire) {
    loop {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            match wire.read_exact(1) {
                Ok(byte) => line.extend(byte),
                Err(_) => return drop(wire.try_send("bye")),
            }
        }
        wire.send(&line);
    }
}

/// An authority, a client's certificate, and a server that demands it and echoes lines.
struct Echo {
    pki: Pki,
    app: Identity,
    origin: Origin,
}

impl Echo {
    fn new() -> Self {
        let pki = Pki::new();
        let app = pki.client("app");
        let origin = Origin::https(pki.demanding(&pki.server("partner.test")), echo);
        Self { pki, app, origin }
    }

    fn entry(&self, name: &str, more: &str) -> String {
        entry(name, self.origin.port(), &tls(&self.pki, Some(&self.app)), more)
    }
}

fn dial(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a line, and returns what comes back; empty where the connection ended.
fn said(stream: &mut TcpStream, line: &str) -> String {
    let mut told = String::new();
    if stream.write_all(line.as_bytes()).is_err() {
        return told;
    }
    let mut byte = [0];
    while !told.ends_with('\n') && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        told.push(byte[0].into());
    }
    told
}

fn tunnels(proxy: &Proxy, name: &str, result: &str) -> f64 {
    proxy.metric(
        "outrider_tunnels_total",
        &[("destination", name), ("result", result)],
    )
}

#[test]
fn a_closed_half_is_passed_on_and_bytes_are_counted() {
    let echo = Echo::new();
    let proxy = Proxy::start(&format!("tcp:\n{}", echo.entry("echo", "")));
    let mut stream = dial(local_port(&proxy, "echo"));
    assert_eq!(said(&mut stream, "hello\n"), "hello\n");
    assert_eq!(
        proxy.metric("outrider_tunnels_open", &[("destination", "echo")]),
        1.0
    );
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bye", "the server saw the end, and its last words came");
    eventually("the tunnel is over", || tunnels(&proxy, "echo", "closed") == 1.0);
    let bytes = |direction| {
        proxy.metric(
            "outrider_bytes_total",
            &[("destination", "echo"), ("direction", direction)],
        )
    };
    assert_eq!((bytes("sent"), bytes("received")), (6.0, 9.0));
}

#[test]
fn silence_ends_a_connection_after_its_time_only() {
    let echo = Echo::new();
    let yaml = format!(
        "tcp:\n{}{}",
        echo.entry("quick", "timeouts: { idle: 300ms }"),
        echo.entry("slow", "")
    );
    let proxy = Proxy::start(&format!("timeouts: {{ idle: 300ms }}\n{yaml}"));
    let (mut quick, mut slow) = (
        dial(local_port(&proxy, "quick")),
        dial(local_port(&proxy, "slow")),
    );
    assert_eq!(said(&mut slow, "a\n"), "a\n");
    assert_eq!(said(&mut quick, "a\n"), "a\n");
    assert_eq!(quick.read(&mut [0]).unwrap_or(0), 0);
    eventually("it is counted as idle", || {
        tunnels(&proxy, "quick", "idle") == 1.0
    });
    assert_eq!(
        said(&mut slow, "b\n"),
        "b\n",
        "the limit of the file is not that of databases"
    );
}

#[test]
fn a_reload_opens_closes_and_changes_ports_and_connections_go_on() {
    let (first, second) = (Echo::new(), Echo::new());
    let proxy = Proxy::start(&format!("tcp:\n{}", first.entry("one", "")));
    let one = local_port(&proxy, "one");
    let mut running = dial(one);
    assert_eq!(said(&mut running, "a\n"), "a\n");

    let reloads = |result| proxy.metric("outrider_config_reloads_total", &[("result", result)]);
    // `one` leads to another server now, `two` is new.
    proxy.rewrite(&format!(
        "tcp:\n{}{}",
        second.entry("one", ""),
        first.entry("two", "")
    ));
    proxy.signal(Signal::HUP);
    // The file is watched as well, so one change may be read twice.
    eventually("it is reloaded", || reloads("done") >= 1.0);
    let two = local_port(&proxy, "two");
    assert_eq!(local_port(&proxy, "one"), one, "the port stays open");
    let before = second.origin.seen().len();
    assert_eq!(said(&mut dial(one), "b\n"), "b\n");
    (second.origin).wait("the connection", |seen| seen.len() == before + 1);
    assert_eq!(said(&mut dial(two), "c\n"), "c\n");
    assert_eq!(said(&mut running, "d\n"), "d\n");

    // A port that somebody else has refuses all of it, and the old entries stay.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = first
        .entry("three", "")
        .replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string());
    proxy.rewrite(&format!("tcp:\n{busy}"));
    proxy.signal(Signal::HUP);
    eventually("it is refused", || reloads("failed") >= 1.0);
    assert!(proxy.log().contains("cannot listen on"), "{}", proxy.log());
    assert_eq!(said(&mut dial(two), "e\n"), "e\n");

    proxy.rewrite(&format!("tcp:\n{}", first.entry("two", "")));
    proxy.signal(Signal::HUP);
    eventually("the port is closed", || {
        TcpStream::connect(("127.0.0.1", one)).is_err()
    });
    assert_eq!(said(&mut running, "f\n"), "f\n", "its connection goes on");
    assert_eq!(said(&mut dial(two), "g\n"), "g\n");
}

/// A fixed port moves from one name to another in one reload: its socket does, too.
#[test]
fn a_port_may_change_its_name() {
    let echo = Echo::new();
    let port = closed_port();
    let named = |name: &str| {
        let line = echo
            .entry(name, "")
            .replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
        format!("tcp:\n{line}")
    };
    let proxy = Proxy::start(&named("old"));
    assert_eq!(said(&mut dial(port), "a\n"), "a\n");
    proxy.rewrite(&named("new"));
    proxy.signal(Signal::HUP);
    eventually("connections count under the new name", || {
        said(&mut dial(port), "b\n") == "b\n" && tunnels(&proxy, "new", "closed") > 0.0
    });
}

#[test]
fn a_rotated_certificate_is_shown_by_the_next_connection() {
    let echo = Echo::new();
    let strangers = Pki::named("a stranger");
    let stranger = strangers.client("app");
    let good = echo.app.clone();
    std::fs::copy(&stranger.cert_path, good.cert_path.with_extension("live.crt")).unwrap();
    std::fs::copy(&stranger.key_path, good.key_path.with_extension("live.key")).unwrap();
    let live = Identity {
        cert_path: good.cert_path.with_extension("live.crt"),
        key_path: good.key_path.with_extension("live.key"),
        ..good.clone()
    };
    let line = entry("echo", echo.origin.port(), &tls(&echo.pki, Some(&live)), "");
    let proxy = Proxy::start(&format!("tcp:\n{line}"));
    let port = local_port(&proxy, "echo");
    assert_eq!(said(&mut dial(port), "a\n"), "", "the server knows no stranger");
    eventually("the log says so", || {
        proxy.log().contains("refused our client certificate")
    });
    let replace = |from: &PathBuf, to: &PathBuf| {
        let fresh = to.with_extension("new");
        std::fs::copy(from, &fresh).unwrap();
        std::fs::rename(fresh, to).unwrap();
    };
    replace(&good.key_path, &live.key_path);
    replace(&good.cert_path, &live.cert_path);
    eventually("the new certificate is shown", || {
        said(&mut dial(port), "b\n") == "b\n"
    });
    let expiry = [("destination", "echo"), ("kind", "client_certificate")];
    assert!(proxy.metric("outrider_credential_expiry_timestamp_seconds", &expiry) > 0.0);
}

#[test]
fn connections_beyond_a_limit_wait_or_are_refused() {
    let echo = Echo::new();
    let yaml = format!(
        "limits: {{ tunnels: 3 }}\ntcp:\n{}{}{}",
        echo.entry("strict", "concurrency: 1"),
        echo.entry("patient", "concurrency: 1, on_limit: wait 15s"),
        echo.entry("any", "")
    );
    let proxy = Proxy::start(&yaml);
    let strict = local_port(&proxy, "strict");
    let mut first = dial(strict);
    assert_eq!(said(&mut first, "a\n"), "a\n");
    assert_eq!(said(&mut dial(strict), "b\n"), "");
    eventually("the log names the limit", || {
        proxy
            .log()
            .contains("the limit concurrency of destination strict is reached")
    });

    let patient = local_port(&proxy, "patient");
    let mut before = dial(patient);
    assert_eq!(said(&mut before, "c\n"), "c\n");
    let mut waiting = dial(patient);
    waiting.write_all(b"d\n").unwrap();
    let waits = || proxy.metric("outrider_limit_waiting", &[("destination", "patient")]);
    eventually("it waits", || waits() == 1.0);
    drop(before);
    assert_eq!(said(&mut waiting, ""), "d\n");

    let mut last = dial(local_port(&proxy, "any"));
    assert_eq!(said(&mut last, "e\n"), "e\n");
    assert_eq!(said(&mut dial(local_port(&proxy, "any")), "f\n"), "");
    eventually("the log names limits.tunnels", || {
        proxy.log().contains("(limits.tunnels)")
    });
}

#[test]
fn addresses_are_judged_and_no_port_leads_back() {
    let echo = Echo::new();
    let yaml = format!("tcp:\n{}", echo.entry("denied", ""));
    let denied = Proxy::start(&format!("egress: {{ deny_networks: [] }}\n{yaml}"));
    assert_eq!(said(&mut dial(local_port(&denied, "denied")), "a\n"), "");
    eventually("the network is named", || {
        denied.log().contains("is in a denied network (loopback)")
    });
    let labels = [("destination", "denied"), ("reason", "network")];
    assert_eq!(denied.metric("outrider_denied_total", &labels), 1.0);
    let open = Proxy::start(&yaml);
    assert_eq!(said(&mut dial(local_port(&open, "denied")), "a\n"), "a\n");

    // A port that is opened by a reload is no way back either.
    let port = closed_port();
    open.rewrite(&format!(
        "tcp:\n  own: {{ listen: \"127.0.0.1:{port}\", to: \"partner.test:{port}\", tls: off }}\n"
    ));
    open.signal(Signal::HUP);
    assert_eq!(local_port(&open, "own"), port);
    assert_eq!(said(&mut dial(port), "a\n"), "");
    eventually("the loop is named", || {
        open.log().contains("is a listener of outrider itself")
    });
}

/// `tls: off` carries what the app says; with it the app may speak TLS itself.
#[test]
fn without_tls_an_app_speaks_tls_itself() {
    let pki = Pki::new();
    let origin = Origin::https(pki.accepting(&pki.server("partner.test")), echo);
    let line = entry("plain", origin.port(), "off", "");
    let proxy = Proxy::start(&format!("tcp:\n{line}"));
    let wire = Wire::connect(([127, 0, 0, 1], local_port(&proxy, "plain")).into());
    let config = crate::support::pki::trusting(&pki.ca(), &[]);
    let mut wire = wire.tls("partner.test", &config).unwrap();
    wire.send("hello\n");
    assert_eq!(wire.read_exact(6).unwrap(), b"hello\n");
}

#[test]
fn a_socket_file_is_a_local_port_too() {
    let echo = Echo::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db.sock");
    let line = echo
        .entry("echo", "")
        .replace("127.0.0.1:0", &format!("\"unix:{}\"", path.display()));
    let proxy = Proxy::start(&format!("tcp:\n{line}"));
    eventually("the socket is there", || path.exists());
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"hello\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).unwrap();
    assert_eq!(told, "hello\nbye");
    assert_eq!(tunnels(&proxy, "echo", "failed"), 0.0);
}

/// SIGTERM: what moves goes on, and a silent connection does not hold the end up.
#[test]
fn a_silent_connection_does_not_delay_the_end() {
    let echo = Echo::new();
    let mut proxy = Proxy::start(&format!("drain: 60s\ntcp:\n{}", echo.entry("echo", "")));
    let mut stream = dial(local_port(&proxy, "echo"));
    assert_eq!(said(&mut stream, "a\n"), "a\n");
    proxy.signal(Signal::TERM);
    assert!(proxy.exit().success());
}

#[test]
fn check_and_explain_speak_of_local_ports() {
    let pki = Pki::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrider.yml");
    let asked = |command: &str, text: &str, more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let answer = run(outrider([command, "--config"])
            .arg(&file)
            .args(more)
            .current_dir(folder.path()));
        (answer.status.code(), answer.stdout, answer.stderr)
    };
    let ca = tls(&pki, None);
    for (text, told) in [
        (
            "tcp: { db: { listen: 127.0.0.1:1, to: db.test } }",
            "tcp.db.to: `db.test` has no port; write a host and its port",
        ),
        (
            "tcp: { db: { listen: 127.0.0.1:1, to: \"db.test:0\" } }",
            "`db.test:0` has no port from 1 to 65535",
        ),
        (
            "tcp: { db: { listen: 127.0.0.1:1, to: \"postgres://db.test:1\" } }",
            "is a URL",
        ),
        (
            "tcp: { db: { listen: 0.0.0.0:15432, to: \"db.test:1\" } }",
            "write 127.0.0.1:15432",
        ),
        (
            "tcp: { db: { listen: 127.0.0.1:1, to: \"db.test:1\", starttls: postgresql } }",
            "tcp.db.starttls",
        ),
        (
            "tcp: { db: { listen: 127.0.0.1:1, to: \"db.test:1\", starttls: smtp, tls: off } }",
            "`starttls` asks for TLS and `tls: off` forbids it",
        ),
        ("tcp: { db: { to: \"db.test:1\" } }", "`listen` is missing"),
        ("tcp: { db: { listen: 127.0.0.1:1 } }", "`to` is missing"),
        (
            "tcp: { db: { listen: 127.0.0.1:1, to: \"db.test:1\", start_tls: smtp } }",
            "did you mean `starttls`?",
        ),
        (
            "tcp: { DB: { listen: 127.0.0.1:1, to: \"db.test:1\" } }",
            "tcp.DB: not a name",
        ),
        (
            "tcp: { db: { listen: 127.0.0.1:3128, to: \"db.test:1\" } }",
            "the same address as that of listen",
        ),
        (
            "tcp: { db: { listen: 127.0.0.1:9901, to: \"db.test:1\" } }",
            "the same address as that of admin",
        ),
        (
            "tcp: { a: { listen: 127.0.0.1:1, to: \"db.test:1\" }, b: { listen: 127.0.0.1:1, to: \"db.test:1\" } }",
            "tcp.b: `listen` is the same address as that of tcp.a",
        ),
        (
            "destinations: { db: { hosts: [a.test] } }\ntcp: { db: { listen: 127.0.0.1:1, to: \"db.test:1\" } }",
            "a destination has the same name",
        ),
        (
            "tcp: { db: { listen: 127.0.0.1:1, to: \"db.test:1\", tls: { ca: \"file:missing.pem\" } } }",
            "tcp.db.tls.ca: file:missing.pem",
        ),
        (
            "tcp: { db: { listen: 127.0.0.1:1, to: \"10.0.0.1:5432\" } }",
            "lies in a denied network (private), so it could never be reached; add 10.0.0.1 to egress.allow_networks",
        ),
    ] {
        let (code, stdout, stderr) = asked("check", text, &[]);
        assert_eq!(code, Some(1), "{text}: {stdout}{stderr}");
        assert!(stdout.contains(told), "{text}: {stdout}");
    }
    for (text, told) in [
        (
            format!("tcp: {{ db: {{ listen: 127.0.0.1:1, to: \"db.test:5432\", tls: {ca} }} }}"),
            "add starttls: postgres",
        ),
        (
            "tcp: { db: { listen: 127.0.0.1:1, to: \"db.test:1\", tls: off } }".to_owned(),
            "no certificate is shown",
        ),
    ] {
        let (code, _, stderr) = asked("check", &text, &[]);
        assert_eq!(code, Some(0), "{text}: {stderr}");
        assert!(stderr.contains(told), "{text}: {stderr}");
    }
    let text = format!(
        "egress: {{ allow_networks: [10.0.0.0/8] }}\ndns: {{ hosts: {{ db.test: 10.1.2.3, far.test: 192.168.0.1 }} }}\n\
         tcp:\n  db: {{ listen: 127.0.0.1:15432, to: \"db.test:5432\", starttls: postgres, concurrency: 5, tls: {ca} }}\n  \
         far: {{ listen: 127.0.0.1:15433, to: \"far.test:1\" }}\n"
    );
    for (name, code, told) in [
        (
            "tcp:db",
            0,
            &[
                "tcp.db",
                "127.0.0.1:15432",
                "TLS, asked for in the clear as postgres does, to db.test:5432",
                "10.1.2.3",
                "5 at once",
                "passes",
            ][..],
        ),
        ("db", 0, &["tcp.db"]),
        ("tcp:far", 1, &["denied network (private)"]),
    ] {
        let (status, stdout, stderr) = asked("explain", &text, &[name]);
        assert_eq!(status, Some(code), "{name}: {stdout}{stderr}");
        assert!(told.iter().all(|told| stdout.contains(told)), "{name}: {stdout}");
    }
    let (status, stdout, stderr) = asked("explain", &text, &["tcp:nobody"]);
    assert_ne!(status, Some(0), "{stdout}{stderr}");
    assert!(
        stderr.contains("tcp.nobody: no such entry in ") && stderr.contains("the entries of `tcp` are "),
        "{stdout}{stderr}"
    );
}

//! What the released program costs: instructions of what it does most, and memory at rest.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use tempfile::TempDir;

use crate::callgrind::{Counted, program};
use crate::exchange_in_tunnel;
use crate::ledger::{Unit, keep};
use crate::stage::{Outrider, origin};
use crate::support::partner::Partner;
use crate::support::pki::trusting;
use crate::support::{Origin, TOKEN, Wire};

/// The defaults on one worker; the destinations follow.
const DEFAULTS: &str = "\
listen: 127.0.0.1:0
admin: 127.0.0.1:0
workers: 1
ca: { bundle: $DIR/bundle.pem, truststore: $DIR/trust.p12 }
egress: { allow_networks: [loopback] }
dns: { hosts: { partner.test: 127.0.0.1 } }
";
const LIMIT: &str = "rate_limit: 1000000/s burst 1000000";
const CONNECTIONS: usize = 8;
const TIMES: usize = 200;
const TUNNELS: usize = 100;
const STARTS: usize = 10;

/// Answers each request with 1 KB, in the head that nginx sends.
fn answer(wire: &mut Wire) {
    let head = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Wed, 15 Jul 2026 10:36:17 GMT\r\n\
                Content-Type: text/plain\r\nContent-Length: 1000\r\nConnection: keep-alive\r\n\r\n";
    let answer = [head.as_bytes(), &[b'x'; 1000]].concat();
    while wire.request_head().is_ok() {
        wire.send(&answer);
    }
}

/// Returns a GET for a target on a host.
fn get(target: &str, host: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ledger\r\nAccept: */*\r\n\r\n")
}

/// Returns the instructions of one request on one of several warm connections. One request at a time: how many come together
/// depends on what else the machine does.
fn of_a_request(proxy: &mut Counted, mut wires: Vec<Wire>, request: &str) -> f64 {
    let mut ask = |times| {
        for wire in (0..times).flat_map(|_| 0..CONNECTIONS) {
            let answer = wires[wire].ask(request);
            assert_eq!(
                (answer.status, answer.body.len()),
                (200, 1000),
                "{}",
                answer.text()
            );
        }
    };
    ask(50);
    proxy.least(CONNECTIONS * TIMES, || ask(TIMES))
}

fn wires(proxy: &Counted) -> Vec<Wire> {
    (0..CONNECTIONS).map(|_| Wire::connect(proxy.address())).collect()
}

/// Three destinations without TLS: the first one attaches a credential, and the last one is for tunnels.
fn plain(credential: &Origin, bare: &Origin, far: SocketAddr) -> String {
    let [first, second] = [credential, bare].map(|origin| format!("127.0.0.1:{}", origin.port()));
    format!(
        "{DEFAULTS}destinations:\n  \
           first: {{ hosts: [\"{first}\"], mode: tunnel, auth: {{ bearer: env:TOKEN }}, upgrade: false, \
         insecure_attach_over_http: true, {LIMIT} }}\n  \
           second: {{ hosts: [\"{second}\"], mode: tunnel, {LIMIT} }}\n  \
           far: {{ hosts: [\"{far}\"], mode: tunnel, {LIMIT} }}\n"
    )
}

#[test]
fn what_is_forwarded_in_clear_costs_no_more() {
    let Some(program) = program() else { return };
    let (credential, bare, far) = (Origin::http(answer), Origin::http(answer), origin());
    let config = plain(&credential, &bare, far);
    let host = format!("127.0.0.1:{}", credential.port());
    let request = get(&format!("http://{host}/1k"), &host);
    let starts = (0..3).map(|_| {
        let mut proxy = Counted::start(&program, &config);
        assert_eq!(Wire::connect(proxy.address()).ask(&request).status, 200);
        proxy.instructions()
    });
    let start = starts.min_by(f64::total_cmp).unwrap();

    let mut proxy = Counted::start(&program, &config);
    let asked = wires(&proxy);
    let with_credential = of_a_request(&mut proxy, asked, &request);
    let host = format!("127.0.0.1:{}", bare.port());
    let asked = wires(&proxy);
    let without = of_a_request(&mut proxy, asked, &get(&format!("http://{host}/1k"), &host));
    let address = proxy.address();
    let tunnel = proxy.least(TUNNELS, || {
        (0..TUNNELS).for_each(|_| exchange_in_tunnel(address, far));
    });
    keep(&[
        ("start to the first answer", start, Unit::Instructions),
        ("request in clear", without, Unit::Instructions),
        (
            "request in clear, with a credential",
            with_credential,
            Unit::Instructions,
        ),
        (
            "tunnel: CONNECT, an exchange, the end",
            tunnel,
            Unit::Instructions,
        ),
        ("second at rest", proxy.per_second_at_rest(), Unit::Instructions),
    ]);
}

#[test]
fn what_goes_to_a_partner_over_tls_costs_no_more() {
    let Some(program) = program() else { return };
    let partner = Partner::with(answer);
    let authority = partner.authority();
    let config = format!("{DEFAULTS}{}", partner.yaml(LIMIT));
    let mut proxy = Counted::start(&program, &config);
    let asked = wires(&proxy);
    let upgraded = of_a_request(&mut proxy, asked, &get(&partner.url("/1k"), &authority));
    let trusted = trusting(&proxy.folder().join("bundle.pem"), &["http/1.1"]);
    let address = proxy.address();
    let intercepted = |trusted| {
        let mut wire = Wire::connect(address);
        wire.send(format!(
            "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
        ));
        assert_eq!(wire.bodiless_response().status, 200);
        wire.tls("partner.test", trusted).unwrap()
    };
    let request = get("/1k", &authority);
    let wires = (0..CONNECTIONS).map(|_| intercepted(&trusted)).collect();
    let of_a_request = of_a_request(&mut proxy, wires, &request);
    // Each with a whole handshake.
    let mut forgetful = ClientConfig::clone(&trusted);
    forgetful.resumption = Resumption::disabled();
    let forgetful = Arc::new(forgetful);
    let tunnel = proxy.least(TUNNELS, || {
        (0..TUNNELS).for_each(|_| assert_eq!(intercepted(&forgetful).ask(&request).status, 200));
    });
    keep(&[
        (
            "request upgraded to mutual TLS, with a credential",
            upgraded,
            Unit::Instructions,
        ),
        (
            "request intercepted, with a credential over mutual TLS",
            of_a_request,
            Unit::Instructions,
        ),
        (
            "tunnel intercepted: CONNECT, a handshake, a request, the end",
            tunnel,
            Unit::Instructions,
        ),
    ]);
}

/// Of a process without valgrind, a second after its first answer. The libraries of the system are not counted: how much
/// of them is mapped depends on who else used them.
#[test]
fn memory_at_rest_stays_small() {
    let Some(program) = program() else { return };
    let (credential, bare) = (Origin::http(answer), Origin::http(answer));
    let folder = in_memory(program.as_path());
    let (file, copy) = (folder.path().join("outrider.yml"), folder.path().join("outrider"));
    let config = plain(&credential, &bare, origin()).replace("$DIR", &folder.path().display().to_string());
    fs::write(&file, config).unwrap();
    let host = format!("127.0.0.1:{}", credential.port());
    let request = get(&format!("http://{host}/1k"), &host);
    let sizes = (0..STARTS).map(|_| at_rest(&copy, &file, &request));
    let (anonymous, of_the_program) = sizes
        .reduce(|one, other| (one.0.min(other.0), one.1.min(other.1)))
        .unwrap();
    keep(&[
        ("memory at rest: its own", anonymous, Unit::Kilobytes),
        (
            "memory at rest: mapped from the program",
            of_the_program,
            Unit::Kilobytes,
        ),
    ]);
}

/// Copies the program to a file in memory, where all its pages are there and small; how those of a disk are kept depends on
/// how they were written. Where that is no place for programs, to the folder for temporary files.
fn in_memory(program: &Path) -> TempDir {
    let folders = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
    let mut copies = folders.iter().filter_map(|parent| {
        let folder = tempfile::tempdir_in(parent).ok()?;
        let copy = folder.path().join("outrider");
        fs::copy(program, &copy).ok()?;
        Command::new(copy).arg("--version").output().ok()?;
        Some(folder)
    });
    copies.next().expect("a folder for programs")
}

/// Returns the resident memory, in KB: what belongs to the process alone, and what is mapped from its program.
fn at_rest(program: &Path, file: &Path, request: &str) -> (f64, f64) {
    let outrider = Outrider::start(Command::new(program).env("TOKEN", TOKEN), file);
    assert_eq!(Wire::connect(outrider.address()).ask(request).status, 200);
    thread::sleep(Duration::from_secs(1));
    let maps = fs::read_to_string(format!("/proc/{}/smaps", outrider.child.id())).unwrap();
    let (mut anonymous, mut of_the_program, mut is_of_the_program) = (0.0, 0.0, false);
    for line in maps.lines() {
        let size = || -> f64 { line.split_whitespace().nth(1).unwrap().parse().unwrap() };
        match line.split_once(':') {
            Some(("Anonymous", _)) => {
                anonymous += size();
                if is_of_the_program {
                    of_the_program -= size();
                }
            }
            Some(("Rss", _)) if is_of_the_program => of_the_program += size(),
            // The first line of a mapping.
            Some((head, _)) if head.contains('-') => {
                is_of_the_program = line.ends_with(&*program.to_string_lossy())
            }
            _ => {}
        }
    }
    (anonymous, of_the_program)
}

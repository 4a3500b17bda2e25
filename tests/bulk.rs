//! Large and many: flat memory under transfers of any size, and a thousand tunnels that wait.
//!
//! `OUTRIDER_TEST_MEGABYTES` sets the size of each transfer; 4096 is the proof, the default is for every day.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::partner::Partner;
use crate::support::{Origin, Proxy, Wire, eventually};

/// How much resident memory may grow, for any amount of traffic.
const GROWTH: u64 = 24 << 20;

fn megabytes() -> usize {
    std::env::var("OUTRIDER_TEST_MEGABYTES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(256)
}

/// GET answers that many megabytes; POST counts what it is sent.
fn bulk(wire: &mut Wire) {
    let block = vec![b'x'; 1 << 20];
    while let Ok(request) = wire.request_head() {
        let length: usize = request
            .headers
            .get("content-length")
            .map_or(0, |length| length.parse().unwrap());
        if request.line.starts_with("GET") {
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                megabytes() << 20
            ));
            for _ in 0..megabytes() {
                if wire.try_send(&block).is_err() {
                    return;
                }
            }
        } else {
            let counted = read(wire, length).to_string();
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{counted}",
                counted.len()
            ));
        }
    }
}

/// Reads up to `length` bytes and keeps none of them.
fn read(wire: &mut Wire, length: usize) -> usize {
    let mut left = length;
    while left > 0 {
        let Ok(bytes) = wire.read_exact(left.min(1 << 20)) else {
            break;
        };
        left -= bytes.len();
    }
    length - left
}

/// Sends a download and an upload on `wire`, with `target` in the requests.
#[track_caller]
fn transfer(proxy: &Proxy, mut wire: Wire, target: &str, host: &str) {
    let size = megabytes() << 20;
    let before = proxy.resident();
    wire.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    while wire.read_line() != "\r\n" {}
    assert_eq!(read(&mut wire, size), size, "the download was cut");

    wire.send(format!(
        "POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n"
    ));
    let block = vec![b'x'; 1 << 20];
    for _ in 0..megabytes() {
        wire.try_send(&block).expect("the upload goes on");
    }
    assert_eq!(wire.response().text(), size.to_string(), "the upload was cut");
    let growth = proxy.resident_peak().saturating_sub(before);
    assert!(growth < GROWTH, "memory grew by {} MB", growth >> 20);
}

#[test]
fn large_transfers_in_clear_need_no_memory() {
    let origin = Origin::http(bulk);
    let proxy = Proxy::start(&format!(
        "destinations: {{ p: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ));
    transfer(&proxy, proxy.wire(), &origin.url("/"), &origin.authority());
}

#[test]
fn large_transfers_through_an_upgrade_need_no_memory() {
    let partner = Partner::with(bulk);
    let proxy = partner.proxy("");
    transfer(&proxy, proxy.wire(), &partner.url("/"), &partner.authority());
}

#[test]
fn large_transfers_through_a_blind_tunnel_need_no_memory() {
    let origin = Origin::http(bulk);
    let proxy = Proxy::start(&format!(
        "destinations: {{ p: {{ hosts: [\"{}\"], mode: tunnel }} }}",
        origin.authority()
    ));
    transfer(
        &proxy,
        proxy.tunnel(&origin.authority()),
        "/",
        &origin.authority(),
    );
}

#[test]
fn large_transfers_through_interception_need_no_memory() {
    let partner = Partner::with(bulk);
    let proxy = partner.proxy("");
    transfer(
        &proxy,
        proxy.intercepted(&partner.authority()),
        "/",
        &partner.authority(),
    );
}

/// A thousand tunnels that say nothing cost little, and each still works.
#[test]
fn a_thousand_idle_tunnels_are_cheap() {
    const TUNNELS: usize = 1000;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let origin = thread::spawn(move || {
        let held: Vec<TcpStream> = listener.incoming().take(TUNNELS).map(Result::unwrap).collect();
        for mut socket in held {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            socket.write_all(&byte).unwrap();
        }
    });
    let proxy = Proxy::start(&format!(
        "destinations: {{ p: {{ hosts: [\"partner.test:{port}\"], mode: tunnel }} }}"
    ));
    assert_eq!(proxy.page("/healthz").status, 200);
    let before = proxy.resident();
    let mut tunnels: Vec<TcpStream> = (0..TUNNELS)
        .map(|number| {
            let mut socket = TcpStream::connect(proxy.address()).unwrap();
            socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
            write!(socket, "CONNECT partner.test:{port} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut head = BufReader::with_capacity(1, &socket);
            let mut line = String::new();
            head.read_line(&mut line).unwrap();
            assert!(line.starts_with("HTTP/1.1 200"), "tunnel {number}: {line:?}");
            while line != "\r\n" {
                line.clear();
                head.read_line(&mut line).unwrap();
            }
            socket
        })
        .collect();
    assert_eq!(proxy.metric("outrider_tunnels_open", &[]), TUNNELS as f64);
    let growth = proxy.resident().saturating_sub(before);
    assert!(growth < GROWTH, "{} KB a tunnel", (growth >> 10) / TUNNELS as u64);
    for socket in &mut tunnels {
        socket.write_all(b"!").unwrap();
    }
    for socket in &mut tunnels {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"!");
    }
    origin.join().unwrap();
    drop(tunnels);
    eventually("all are closed", || {
        proxy.metric("outrider_tunnels_open", &[]) == 0.0
    });
}

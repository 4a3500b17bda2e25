//! The memory of a sidecar: 200 intercepted connections at a time, each with a body on its way, within 64 MiB.

use std::thread;

use crate::memory::{limit, shortages, start, take_descriptors};
use crate::support::h2::{self, DATA, END_HEADERS, END_STREAM, HEADERS, WINDOW_UPDATE, frame};
use crate::support::h2_origin::{H2Partner, LARGE};
use crate::support::partner::Partner;
use crate::support::pki::trusting;
use crate::support::{Wire, eventually};

const CONNECTIONS: usize = 200;

/// What is left of 64 MiB beside the program itself, which takes 16 with all that is mapped of its file. In a debug build
/// that is more, but what it takes for connections is nearly the same.
const MEGABYTES: u64 = 48;

/// Of one upload in HTTP/1.1; HTTP/2 sends no more than the window before it is told to.
const BODY: usize = 1 << 20;
const WINDOW: usize = 65_535;

#[derive(Clone, Copy)]
enum Transfer {
    Down,
    Up,
    DownH2,
    UpH2,
}

/// One connection in the middle of a transfer, which stands still until [`finish`](Self::finish).
struct HeldTransfer {
    transfer: Transfer,
    wire: Wire,
}

impl HeldTransfer {
    fn begin(transfer: Transfer, mut wire: Wire, authority: &str) -> Self {
        let host = format!("Host: {authority}\r\n");
        match transfer {
            Transfer::Down => wire.send(format!("GET /large HTTP/1.1\r\n{host}\r\n")),
            Transfer::Up => wire
                .send(format!(
                    "PUT /up HTTP/1.1\r\n{host}Content-Length: {BODY}\r\n\r\n"
                ))
                .send(vec![b'x'; BODY / 2]),
            Transfer::DownH2 => {
                h2::greet(&mut wire);
                let head = h2::get(authority, "/large");
                wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &head))
            }
            Transfer::UpH2 => {
                h2::greet(&mut wire);
                let head = h2::get(authority, "/up");
                wire.send(frame(HEADERS, END_HEADERS, 1, &head));
                for _ in 0..WINDOW / 16_384 {
                    wire.send(frame(DATA, 0, 1, &[b'x'; 16_384]));
                }
                &mut wire
            }
        };
        Self { transfer, wire }
    }

    /// Goes on, and returns the size of the answer's body.
    fn finish(mut self) -> usize {
        let wire = &mut self.wire;
        match self.transfer {
            Transfer::Down | Transfer::Up => {
                if matches!(self.transfer, Transfer::Up) {
                    wire.send(vec![b'x'; BODY / 2]);
                }
                let answer = wire.response();
                assert_eq!(answer.status, 200, "{}", answer.text());
                answer.body.len()
            }
            Transfer::DownH2 | Transfer::UpH2 => {
                if matches!(self.transfer, Transfer::UpH2) {
                    wire.send(frame(DATA, END_STREAM, 1, b"end"));
                }
                for stream in [0, 1] {
                    wire.send(frame(WINDOW_UPDATE, 0, stream, &(LARGE as u32).to_be_bytes()));
                }
                let mut size = 0;
                h2::read_until(wire, |frame| frame.stream == 1 && frame.kind == HEADERS)
                    .and_then(|frame| frame.status())
                    .filter(|status| *status == 200)
                    .expect("an answer");
                while let Ok(frame) = h2::read(wire) {
                    if frame.stream == 1 && frame.kind == DATA {
                        size += frame.payload.len();
                        if frame.flags & END_STREAM != 0 {
                            return size;
                        }
                    }
                }
                panic!("it ended after {size} bytes")
            }
        }
    }
}

#[test]
fn two_hundred_intercepted_connections_fit_into_a_sidecar() {
    take_descriptors();
    let limit = limit(MEGABYTES);
    let one = Partner::with(|wire| {
        while let Ok(request) = wire.request() {
            let body = vec![b'x'; if request.target() == "/large" { LARGE } else { 3 }];
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = wire.try_send([head.into_bytes(), body].concat());
        }
    });
    let two = H2Partner::new();
    let second = two
        .yaml_with("{ bearer: env:TOKEN }")
        .replace("destinations:\n  partner:", "  second:");
    let proxy = start(limit, &format!("{}{second}", one.yaml("")));
    let trusted = ["http/1.1", "h2"].map(|protocol| trusting(&proxy.bundle(), &[protocol]));
    let transfers: Vec<HeldTransfer> = (0..CONNECTIONS)
        .map(|number| {
            let is_h2 = number >= CONNECTIONS / 2;
            let transfer = match (is_h2, number % 2) {
                (false, 0) => Transfer::Down,
                (false, _) => Transfer::Up,
                (true, 0) => Transfer::DownH2,
                (true, _) => Transfer::UpH2,
            };
            let authority = if is_h2 { two.authority() } else { one.authority() };
            let trusted = &trusted[usize::from(is_h2)];
            let wire = proxy.tunnel(&authority).tls("partner.test", trusted).unwrap();
            HeldTransfer::begin(transfer, wire, &authority)
        })
        .collect();
    eventually("all are under way", || {
        proxy.metric("outrider_requests_in_flight", &[]) == CONNECTIONS as f64
    });
    let held = proxy.resident();
    // All at once: in HTTP/2 they share connections to the upstream.
    thread::scope(|scope| {
        for transfer in transfers {
            scope.spawn(|| {
                let is_large = matches!(transfer.transfer, Transfer::Down | Transfer::DownH2);
                assert_eq!(transfer.finish(), if is_large { LARGE } else { 3 });
            });
        }
    });
    assert_eq!(shortages(&proxy), (0, 0), "{}", proxy.log());
    let peak = proxy.resident_peak();
    println!(
        "{} KB while all stood still, {} KB at most, of {}",
        held >> 10,
        peak >> 10,
        limit >> 10
    );
    assert!(peak < limit, "{} MB of {}", peak >> 20, limit >> 20);
}

//! What an HTTP/2 upstream says last reaches the app, however the connection ends right behind it.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::h2::{
    self, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, SETTINGS, WINDOW_UPDATE, frame,
};
use crate::support::partner::Partner;
use crate::support::{Proxy, Response, Wire};

/// How an upstream ends the connection behind its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// FIN.
    Close,
    /// GOAWAY, which names the stream as processed, and FIN.
    GoAway,
    /// GOAWAY and RST.
    Reset,
}

const ENDS: [End; 3] = [End::Close, End::GoAway, End::Reset];

/// Sends the whole answer and the end in one flight.
fn answer(wire: &mut Wire, stream: u32, body: &[u8], end: End) {
    let mut flight = if body.is_empty() {
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x88])
    } else {
        let mut frames = frame(HEADERS, END_HEADERS, stream, &[0x88]);
        frames.extend(frame(DATA, END_STREAM, stream, body));
        frames
    };
    if end != End::Close {
        let last = [stream.to_be_bytes(), [0; 4]].concat();
        flight.extend(frame(GOAWAY, 0, 0, &last));
    }
    wire.send(flight);
}

/// Answers the first request of each connection as soon as its head is in, and ends the connection. With
/// `End::Reset` its last bytes stay unread.
fn ending(body: &'static [u8], end: End) -> Partner {
    Partner::offering(&["h2"], move |wire: &mut Wire| {
        let _ = wire.read_exact(24);
        wire.send(frame(SETTINGS, 0, 0, &[]));
        let asked = h2::read_until(wire, |frame| frame.kind == HEADERS).unwrap();
        if end != End::Reset {
            // Nothing that lies unread turns FIN into RST.
            if asked.flags & END_STREAM == 0 {
                h2::read_until(wire, |frame| frame.kind == DATA && frame.flags & END_STREAM != 0);
            }
        }
        answer(wire, asked.stream, body, end);
        if end != End::Reset {
            wire.half_close();
            let _ = wire.rest();
        }
    })
}

/// Sends the head and the body of a POST side by side with reading its answer.
fn post(proxy: &Proxy, partner: &Partner, length: usize, written: &Arc<AtomicUsize>) -> Response {
    let mut wire = proxy.wire();
    wire.send(format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n",
        partner.url("/")
    ));
    let mut socket = wire.socket().try_clone().unwrap();
    let written = Arc::clone(written);
    let upload = thread::spawn(move || {
        let mut left = length;
        while left > 0 {
            match socket.write(&vec![b'x'; left.min(16 * 1024)]) {
                Ok(count) => left -= count,
                Err(_) => return,
            }
            written.fetch_add(1, Ordering::SeqCst);
        }
    });
    let response = wire.response();
    drop(wire);
    let _ = upload.join();
    response
}

#[test]
fn an_answer_is_delivered_though_the_connection_ends_behind_it() {
    for end in ENDS {
        for body in [&b""[..], b"the last word"] {
            let partner = ending(body, end);
            let proxy = partner.proxy("http: 2");
            for round in 0..20 {
                let response = proxy.get(&partner.url("/"));
                let case = format!("{end:?}, round {round}: {}", response.text());
                assert_eq!((response.status, response.body.as_slice()), (200, body), "{case}");
            }
        }
    }
}

#[test]
fn an_answer_is_delivered_though_the_body_is_under_way() {
    for end in ENDS {
        for body in [&b""[..], b"the last word"] {
            let partner = ending(body, end);
            for round in 0..5 {
                // A new one: no request meets a connection that is about to be closed.
                let proxy = partner.proxy("http: 2");
                let response = post(&proxy, &partner, 60_000, &Arc::default());
                let case = format!("{end:?}, round {round}: {}", response.text());
                assert_eq!((response.status, response.body.as_slice()), (200, body), "{case}");
            }
        }
    }
}

/// A frame that has to be acknowledged comes before the answer, while the socket takes no more of the body.
#[test]
fn an_answer_is_delivered_though_nothing_can_be_written() {
    for body in [&b""[..], b"the last word"] {
        let written = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&written);
        let partner = Partner::offering(&["h2"], move |wire: &mut Wire| {
            let _ = wire.read_exact(24);
            let window = 0x7fff_ffff_u32.to_be_bytes();
            // SETTINGS_INITIAL_WINDOW_SIZE
            wire.send(frame(SETTINGS, 0, 0, &[&[0, 4], &window[..]].concat()));
            wire.send(frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()));
            let asked = h2::read_until(wire, |frame| frame.kind == HEADERS).unwrap();
            // Until the app can write no more: then neither can the proxy.
            let mut before = 0;
            loop {
                thread::sleep(Duration::from_millis(300));
                let now = count.load(Ordering::SeqCst);
                if now == before && now > 0 {
                    break;
                }
                before = now;
            }
            wire.send(frame(PING, 0, 0, &[0; 8]));
            answer(wire, asked.stream, body, End::Reset);
        });
        let proxy = partner.proxy("http: 2");
        let response = post(&proxy, &partner, 64 << 20, &written);
        assert_eq!(
            (response.status, response.body.as_slice()),
            (200, body),
            "{}",
            response.text()
        );
    }
}

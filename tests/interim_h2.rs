//! Answers before the final one where HTTP/2 is spoken: its library keeps them to itself, so none is passed on,
//! and nothing hangs or is hidden for want of them.

use std::time::{Duration, Instant};

use crate::support::h2::{self, DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, frame};
use crate::support::partner::Partner;
use crate::support::{Proxy, Wire};

/// Starts an HTTP/2 origin that sends `first` after a request's head, and `then` after its body.
fn h2_partner(first: &'static [&'static [u8]], then: &'static [&'static [u8]]) -> Partner {
    Partner::offering(&["h2"], move |wire| {
        let _ = wire.read_exact(24);
        wire.send(frame(SETTINGS, 0, 0, &[]));
        while let Some(asked) = h2::read_until(wire, |frame| frame.kind == HEADERS) {
            let say = |wire: &mut Wire, blocks: &[&[u8]]| {
                for block in blocks {
                    let is_last = !block.ends_with(b"103") && !block.ends_with(b"100");
                    let flags = END_HEADERS | if is_last { END_STREAM } else { 0 };
                    wire.send(frame(HEADERS, flags, asked.stream, block));
                }
            };
            say(wire, first);
            if !then.is_empty() {
                let body = h2::read_until(wire, |frame| frame.kind == DATA && frame.flags & END_STREAM != 0);
                assert_eq!(body.unwrap().payload, b"hello");
                say(wire, then);
            }
        }
    })
}

/// Statuses in the form of HPACK.
const EARLY: &[u8] = b"\x48\x03103";
const LEAVE: &[u8] = b"\x48\x03100";
const REFUSED: &[u8] = b"\x48\x03401";
const FINE: &[u8] = b"\x88";

/// The library for HTTP/2 keeps 1xx to itself: the final answer comes all the same.
#[test]
fn an_interim_answer_over_http_2_hides_nothing() {
    let partner = h2_partner(&[EARLY, EARLY, FINE], &[]);
    let authority = partner.authority();
    let old = partner.proxy("http: 2").get(&partner.url("/"));
    assert_eq!((old.status, old.interim.len()), (200, 0));
    let proxy = partner.proxy("");
    let mut app = proxy.intercepted_as(&authority, &["h2"]);
    h2::greet(&mut app);
    let head = h2::get(&authority, "/");
    app.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &head));
    assert_eq!(h2::outcome(&mut app, 1), Some(200));
}

/// Over HTTP/2 no 100 can be passed on, but the field is, and so is an answer instead of the body.
#[test]
fn a_refusal_over_http_2_comes_instead_of_the_body() {
    let partner = h2_partner(&[REFUSED], &[]);
    let authority = partner.authority();
    let proxy = partner.proxy("");
    let mut app = proxy.intercepted_as(&authority, &["h2"]);
    h2::greet(&mut app);
    app.send(frame(HEADERS, END_HEADERS, 1, &waiting_h2(&authority)));
    assert_eq!(h2::outcome(&mut app, 1), Some(401));

    let proxy = partner.proxy("http: 2");
    let answer = waiting(&proxy, &partner).response();
    assert_eq!((answer.status, answer.interim.len()), (401, 0));
    assert_eq!(answer.header("connection"), Some("close"));
}

/// For want of the upstream's word the app gets leave after the second.
#[test]
fn an_upload_to_an_origin_of_http_2_goes_on_after_a_second() {
    let partner = h2_partner(&[LEAVE], &[FINE]);
    let proxy = partner.proxy("http: 2");
    let started = Instant::now();
    let mut app = waiting(&proxy, &partner);
    assert_eq!(app.read_line(), "HTTP/1.1 100 Continue\r\n");
    assert_eq!(app.read_line(), "\r\n");
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(app.ask("hello").status, 200);
}

/// An app that speaks HTTP/2 sends its body when it likes.
#[test]
fn an_app_of_http_2_is_not_kept_waiting() {
    let partner = h2_partner(&[LEAVE], &[FINE]);
    let authority = partner.authority();
    let proxy = partner.proxy("");
    let mut app = proxy.intercepted_as(&authority, &["h2"]);
    h2::greet(&mut app);
    app.send(frame(HEADERS, END_HEADERS, 1, &waiting_h2(&authority)));
    app.send(frame(DATA, END_STREAM, 1, b"hello"));
    assert_eq!(h2::outcome(&mut app, 1), Some(200));
}

/// Sends a POST in HTTP/1.1 that waits for a 100 before its body.
fn waiting(proxy: &Proxy, partner: &Partner) -> Wire {
    let mut wire = proxy.wire();
    wire.send(format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        partner.url("/")
    ));
    wire
}

/// Builds the same request in HTTP/2.
fn waiting_h2(authority: &str) -> Vec<u8> {
    h2::block(&[
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", authority.as_bytes()),
        (b":path", b"/"),
        (b"expect", b"100-continue"),
        (b"content-length", b"5"),
    ])
}

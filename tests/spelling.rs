//! How field names are spelled over HTTP/1.1: the bytes on both sides.

use crate::support::partner::Partner;
use crate::support::{Origin, Proxy};

/// Returns the names of the fields of the last request that `origin` got.
fn asked(origin: &Origin) -> Vec<String> {
    names(&origin.seen().pop().unwrap().bytes)
}

fn names(head: &[u8]) -> Vec<String> {
    let head = String::from_utf8(head.to_vec()).unwrap();
    let lines = head.split("\r\n\r\n").next().unwrap().lines().skip(1);
    let mut names: Vec<_> = lines
        .map(|line| line.split(':').next().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nx-LOWER: b\r\nWWW-Authenticate: c\r\nset-COOKIE: d=1\r\nSet-Cookie: e=2\r\n\
                      Date: now\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// Sends a raw request and returns the raw answer.
fn exchange(proxy: &Proxy, origin: &Origin) -> Vec<u8> {
    let mut wire = proxy.wire();
    wire.send(format!(
        "POST {} HTTP/1.1\r\nHOST: {}\r\nSOAPaction: \"x\"\r\nContent-type: text/xml\r\nX-MY-Id:7\r\nx-my-id:\t8\r\n\
         ACCEPT: */*\r\nConnection: close\r\ncontent-LENGTH: 2\r\n\r\nhi",
        origin.url("/"),
        origin.authority()
    ));
    wire.rest().0
}

#[test]
fn names_leave_as_they_were_spelled_where_that_is_wanted() {
    let origin = Origin::saying_once(ANSWER);
    let proxy = Proxy::start(&format!(
        "destinations: {{ p: {{ hosts: [\"{}\"], preserve_header_case: true, headers: {{ set: {{ x-agency-id: \"47\" }} }} }} }}",
        origin.authority()
    ));
    let answer = exchange(&proxy, &origin);
    assert_eq!(
        asked(&origin),
        [
            "ACCEPT",
            "CDN-Loop",
            "Content-Length",
            "Content-type",
            "Host",
            "SOAPaction",
            "X-Agency-Id",
            "X-MY-Id",
            "x-my-id",
        ]
    );
    assert_eq!(
        names(&answer),
        [
            "Connection",
            "Content-Length",
            "Date",
            "ETag",
            "Set-Cookie",
            "WWW-Authenticate",
            "set-COOKIE",
            "x-LOWER",
        ]
    );
}

/// It costs nothing where nobody wants it: other destinations of the same configuration get lower case.
#[test]
fn names_leave_in_lower_case_elsewhere() {
    let (origin, other) = (Origin::saying_once(ANSWER), Origin::saying_once(ANSWER));
    let proxy = Proxy::start(&format!(
        "destinations: {{ p: {{ hosts: [\"{}\"] }}, q: {{ hosts: [\"{}\"], preserve_header_case: true }} }}",
        origin.authority(),
        other.authority()
    ));
    let answer = exchange(&proxy, &origin);
    let is_lower = |name: &String| name.bytes().all(|byte| !byte.is_ascii_uppercase());
    assert!(asked(&origin).iter().all(is_lower), "{:?}", asked(&origin));
    assert!(names(&answer).iter().all(is_lower), "{:?}", names(&answer));
}

/// Inside an intercepted tunnel as well, with a credential attached.
#[test]
fn names_keep_their_spelling_inside_a_tunnel() {
    let partner = Partner::new();
    let proxy = partner.proxy("preserve_header_case: true");
    let mut tunnel = proxy.intercepted(&partner.authority());
    tunnel.send(format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nX-API-version: 2\r\nConnection: close\r\n\r\n",
        partner.authority()
    ));
    assert!(tunnel.rest().0.starts_with(b"HTTP/1.1 200 "));
    let names = asked(&partner.origin);
    assert!(names.contains(&"X-API-version".to_owned()), "{names:?}");
    assert!(names.contains(&"Authorization".to_owned()), "{names:?}");
}

/// A stored answer has lost how its names were written: they are spelled as is usual.
#[test]
fn names_of_a_stored_answer_are_spelled_as_is_usual() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nETAG: \"a\"\r\nx-old: b\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = origin.proxy("preserve_header_case: true, cache: {}");
    let ask = || {
        let mut wire = proxy.wire();
        wire.send(format!(
            "GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            origin.url("/")
        ));
        names(&wire.rest().0)
    };
    assert!(ask().contains(&"ETAG".to_owned()));
    let stored = [
        "Age",
        "Cache-Control",
        "Cache-Status",
        "Connection",
        "Content-Length",
        "Date",
        "ETag",
        "X-Old",
    ];
    assert_eq!(ask(), stored);
}

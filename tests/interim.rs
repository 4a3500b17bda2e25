//! Answers before the final one: `Expect: 100-continue` (RFC 9110 section 10.1.1), and 102, 103 and the like
//! (15.2).

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::partner::Partner;
use crate::support::{Origin, Proxy, TOKEN, Wire, ok};

const WAITS: &str = "Expect: 100-continue\r\nContent-Length: 5\r\n";

/// Sends a POST that waits for a 100 before its five bytes, on a new connection.
fn waiting(proxy: &Proxy, url: &str, fields: &str) -> Wire {
    let mut wire = proxy.wire();
    wire.send(format!("POST {url} HTTP/1.1\r\nHost: x\r\n{fields}{WAITS}\r\n"));
    wire
}

/// Reads the status line and the fields.
fn head(wire: &mut Wire) -> (String, Vec<String>) {
    let line = wire.read_line().trim_end().to_owned();
    let fields = std::iter::from_fn(|| Some(wire.read_line().trim_end().to_owned()));
    (line, fields.take_while(|field| !field.is_empty()).collect())
}

const GO_ON: &str = "HTTP/1.1 100 Continue";

/// What comes from the origin before its 100 comes before it at the app, which therefore is the origin's.
#[test]
fn leave_to_send_the_body_is_the_origins_to_give() {
    // It serves further requests: a POST is not sent again where a kept connection ends under it.
    let origin = Origin::http(|wire| {
        while let Ok(request) = wire.request_head() {
            assert_eq!(request.headers.all("expect"), ["100-continue"]);
            wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\nX: y\r\n\r\n");
            let Ok(body) = wire.read_exact(5) else { return };
            wire.send(ok("", &String::from_utf8(body).unwrap()));
        }
    });
    let proxy = origin.proxy("");
    let mut app = waiting(&proxy, &origin.url("/"), "Expect: 100-Continue\r\n");
    let (hints, fields) = head(&mut app);
    assert_eq!(hints, "HTTP/1.1 103 Early Hints");
    assert!(fields.contains(&"link: </a>".to_owned()), "{fields:?}");
    assert_eq!(head(&mut app), (GO_ON.to_owned(), Vec::new()));
    let answer = app.ask("hello");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    assert!(answer.interim.is_empty(), "{answer:?}");
    // The connection goes on.
    let again = format!("POST {} HTTP/1.1\r\nHost: x\r\n{WAITS}\r\n", origin.url("/"));
    let begin = head(app.send(again));
    assert_eq!(begin.0, "HTTP/1.1 103 Early Hints");
}

/// After any final answer the app sends nothing, and neither connection is used again: the app may or may not
/// send its body now, and the origin may or may not wait for it.
#[test]
fn a_final_answer_comes_instead_of_the_body() {
    for status in [
        "401 Unauthorized",
        "413 Content Too Large",
        "417 Expectation Failed",
        "200 OK",
        "303 See Other",
    ] {
        let origin = Origin::http(move |wire| {
            while wire.request_head().is_ok() {
                wire.send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno"));
            }
        });
        let proxy = origin.proxy("");
        let mut app = waiting(&proxy, &origin.url("/"), "");
        let started = Instant::now();
        let answer = app.response();
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (status[..3].parse().unwrap(), "no")
        );
        assert_eq!(answer.interim, [0_u16; 0], "{status}");
        assert_eq!(answer.header("connection"), Some("close"), "{status}");
        assert!(
            started.elapsed() < Duration::from_millis(900),
            "{:?}",
            started.elapsed()
        );
        // What it sends all the same is no request.
        app.send("GET / ");
        assert!(app.closes(), "{status}");
        assert!(origin.raw().ends_with("\r\n\r\n"), "{status}: {}", origin.raw());
        assert_eq!(proxy.get(&origin.url("/")).status, answer.status);
        assert_eq!(origin.seen().len(), 2, "{status}: the first connection is over");
    }
}

/// Many origins do not know of it: the app gets leave after a second, and not before.
#[test]
fn silence_is_leave_to_send() {
    let origin = Origin::http(ok_to_all);
    let proxy = alone(&origin);
    let started = Instant::now();
    let mut app = waiting(&proxy, &origin.url("/"), "");
    assert_eq!(head(&mut app).0, GO_ON);
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(app.ask("hello").text(), "hello");
    // A connection that has been used is no other.
    let mut again = waiting(&proxy, &origin.url("/"), "");
    assert_eq!(head(&mut again).0, GO_ON);
    assert_eq!(again.ask("hello").text(), "hello");
    assert_eq!(origin.seen().len(), 1);
}

/// Starts a proxy with one worker, which has all connections to the origin.
fn alone(origin: &Origin) -> Proxy {
    let authority = origin.authority();
    Proxy::start(&format!(
        "workers: 1\ndestinations: {{ p: {{ hosts: [\"{authority}\"] }} }}"
    ))
}

fn ok_to_all(wire: &mut Wire) {
    while let Ok(request) = wire.request() {
        wire.send(ok("", &String::from_utf8_lossy(&request.body)));
    }
}

/// A 100 that comes late, for an app that has not waited, or that nobody has asked for, is nobody's.
#[test]
fn a_100_that_nobody_waits_for_is_dropped() {
    let origin = Origin::http(|wire| {
        while let Ok(request) = wire.request() {
            wire.send("HTTP/1.1 100 Continue\r\n\r\n");
            wire.send(ok("", &String::from_utf8_lossy(&request.body)));
        }
    });
    let proxy = origin.proxy("");
    let late = |wire: &mut Wire| wire.ask("hello");
    let mut app = waiting(&proxy, &origin.url("/"), "");
    let answer = late(&mut app);
    assert_eq!((answer.text().as_str(), answer.interim.len()), ("hello", 0));
    let answer = proxy.get(&origin.url("/"));
    assert_eq!((answer.status, answer.interim.len()), (200, 0));
    let mut app = waiting(&proxy, &origin.url("/"), "");
    assert_eq!(head(&mut app).0, GO_ON, "silence");
    assert_eq!(late(&mut app).interim.len(), 0);
}

/// An origin that has answered in HTTP/1.0 will never say it, and has never heard of chunks.
#[test]
fn an_origin_of_http_1_0_is_not_waited_for_and_gets_no_chunks() {
    let origin = Origin::http(|wire| {
        let Ok(request) = wire.request() else { return };
        let body = String::from_utf8_lossy(&request.body).into_owned();
        wire.send(ok("", &body).replacen("1.1", "1.0", 1));
    });
    let proxy = origin.proxy("");
    let url = origin.url("/");
    let chunked = |proxy: &Proxy, body: &str| {
        proxy.raw(format!(
            "POST {url} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\nX: y\r\n\r\n",
            body.len()
        ))
    };
    // It is not known yet.
    assert_eq!(chunked(&proxy, "one").text(), "one");
    assert!(
        origin.raw().contains("transfer-encoding: chunked"),
        "{}",
        origin.raw()
    );

    let begin = origin.raw().len();
    let started = Instant::now();
    let mut app = waiting(&proxy, &url, "");
    assert_eq!(head(&mut app).0, GO_ON);
    assert!(
        started.elapsed() < Duration::from_millis(900),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(app.ask("hello").text(), "hello");
    assert_eq!(chunked(&proxy, "two").text(), "two");
    let raw = origin.raw().split_off(begin);
    assert!(!raw.contains("chunked") && !raw.contains("expect"), "{raw}");
    assert!(raw.contains("content-length: 3\r\n\r\ntwo"), "{raw}");

    // More than is read ahead.
    let large = "x".repeat((1 << 20) + 1);
    let detail = chunked(&proxy, &large).assert_ours(411, "http_request_error");
    assert!(detail.contains("Content-Length"), "{detail}");
    assert_eq!(chunked(&proxy, &large[1..]).text().len(), 1 << 20);
}

/// Other hosts of the destination, and the same host once it has answered in HTTP/1.1, get chunks.
#[test]
fn what_an_origin_speaks_is_learned_anew_with_each_answer() {
    let version = Arc::new(Mutex::new("1.0"));
    let said = Arc::clone(&version);
    let old = Origin::http(move |wire| {
        while wire.request().is_ok() {
            wire.send(ok("Connection: close\r\n", "").replacen("1.1", *said.lock().unwrap(), 1));
        }
    });
    let new = Origin::plain();
    let hosts = format!("\"{}\", \"{}\"", old.authority(), new.authority());
    let proxy = Proxy::start(&format!("destinations: {{ p: {{ hosts: [{hosts}] }} }}"));
    let post = |origin: &Origin| {
        let before = origin.raw().len();
        let answer = proxy.raw(format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            origin.url("/")
        ));
        assert_eq!(answer.status, 200);
        origin.raw().split_off(before).contains("chunked")
    };
    assert!(post(&old) && !post(&old) && post(&new));
    *version.lock().unwrap() = "1.1";
    assert!(!post(&old) && post(&old) && post(&new));
}

/// The body has to be there before the request is: the app gets leave at once, and the origin is not asked for it.
#[test]
fn a_body_that_is_read_first_is_asked_for_at_once() {
    let (arrived, waits) = mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let origin = Origin::http(move |wire| {
        while let Ok(request) = wire.request() {
            let _ = waits.lock().unwrap().recv();
            wire.send(ok("", &String::from_utf8_lossy(&request.body)));
        }
    });
    let hmac = "auth: { hmac: { key: env:TOKEN, message: \"{body_sha256_base64}\", \
                set: { X-Sign: \"{signature}\" } } }, upgrade: false, insecure_attach_over_http: true";
    for (name, settings) in [("retry", "retry: {}"), ("hmac", hmac)] {
        let yaml = format!(
            "destinations: {{ p: {{ hosts: [\"{}\"], {settings} }} }}",
            origin.authority()
        );
        let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
        let before = origin.raw().len();
        let started = Instant::now();
        let mut app = proxy.wire();
        app.send(format!(
            "PUT {} HTTP/1.1\r\nHost: x\r\n{WAITS}\r\n",
            origin.url("/")
        ));
        assert_eq!(head(&mut app).0, GO_ON, "{name}");
        assert!(
            started.elapsed() < Duration::from_millis(900),
            "{name}: {:?}",
            started.elapsed()
        );
        assert_eq!(origin.raw().len(), before, "{name}: it comes first");
        arrived.send(()).unwrap();
        assert_eq!(app.ask("hello").text(), "hello", "{name}");
        let raw = origin.raw().split_off(before);
        assert!(!raw.contains("expect:"), "{name}: {raw}");
    }
}

/// An upload that waits for leave is sent again where the connection from the pool turns out to be dead:
/// nothing of it is gone. Where that might do something twice it is not.
#[test]
fn a_body_that_waits_survives_a_dead_connection() {
    for (method, is_repeated) in [("PUT", true), ("POST", false)] {
        let origin = Origin::numbered(None, |wire, number| {
            while let Ok(request) = wire.request_head() {
                let Some(length) = request.headers.get("content-length") else {
                    wire.send(ok("", "warm"));
                    continue;
                };
                if number == 0 {
                    return;
                }
                wire.send("HTTP/1.1 100 Continue\r\n\r\n");
                let body = wire.read_exact(length.parse().unwrap()).unwrap();
                wire.send(ok("", &String::from_utf8(body).unwrap()));
            }
        });
        let proxy = alone(&origin);
        assert_eq!(proxy.get(&origin.url("/")).text(), "warm");
        let mut app = proxy.wire();
        app.send(format!(
            "{method} {} HTTP/1.1\r\nHost: x\r\n{WAITS}\r\n",
            origin.url("/")
        ));
        if is_repeated {
            assert_eq!(head(&mut app).0, GO_ON, "{method}");
            assert_eq!(app.ask("hello").text(), "hello", "{method}");
        } else {
            app.response().assert_ours(502, "http_response_incomplete");
        }
        assert_eq!(origin.seen().len(), 1 + usize::from(is_repeated), "{method}");
    }
}

/// Else a limit would be over before anybody had to move.
#[test]
fn where_time_is_short_nobody_waits() {
    let origin = Origin::http(ok_to_all);
    for timeouts in ["response: 900ms", "idle: 900ms"] {
        let proxy = origin.proxy(&format!("timeouts: {{ {timeouts} }}"));
        let mut app = waiting(&proxy, &origin.url("/"), "");
        assert_eq!(head(&mut app).0, GO_ON, "{timeouts}");
        assert_eq!(app.ask("hello").text(), "hello", "{timeouts}");
    }
}

/// Nobody uploads anything to hear that it is not let through.
#[test]
fn a_refusal_of_our_own_comes_before_any_leave() {
    let origin = Origin::plain();
    let proxy = origin.proxy("paths: [/open/**], rate_limit: 1/h, on_limit: reject");
    let refused = |path: &str, fields: &str| {
        let mut app = waiting(&proxy, &origin.url(path), fields);
        let answer = app.response();
        assert_eq!(answer.interim, [0_u16; 0], "{path}");
        assert_eq!(answer.header("connection"), Some("close"), "{path}");
        answer
    };
    refused("/closed", "").assert_ours(403, "http_request_denied");
    assert_eq!(proxy.get(&origin.url("/open/a")).status, 200);
    refused("/open/b", "").assert_ours(429, "http_request_denied");
    refused("/open/c", "Expect: tea\r\n").assert_ours(417, "http_request_error");
    let url = origin.url("/open/d");
    let second = format!(
        "POST {url} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n"
    );
    proxy.raw(second).assert_ours(417, "http_request_error");
}

/// HTTP/1.0 does not know it, and nothing is waited for where nothing follows.
#[test]
fn an_expectation_that_means_nothing_is_not_passed_on() {
    let origin = Origin::http(ok_to_all);
    let proxy = origin.proxy("");
    let url = origin.url("/");
    let answer = proxy.raw(format!("POST {url} HTTP/1.0\r\n{WAITS}\r\nhello"));
    assert_eq!((answer.text().as_str(), answer.interim.len()), ("hello", 0));
    let answer = proxy.ask("GET", &url, "Expect: 100-continue\r\n");
    assert_eq!((answer.status, answer.interim.len()), (200, 0));
    assert!(!origin.raw().contains("expect"), "{}", origin.raw());
}

/// B7: what a final answer would lose an interim one loses as well.
#[test]
fn interim_answers_are_passed_on_without_what_is_not_the_apps() {
    let said = format!(
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nConnection: X-Hop\r\n\
         X-Hop: a\r\nKeep-Alive: b\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\nOutrider-Rehearsal: c\r\n\
         Proxy-Status: outrider; error=d\r\nX-Echo: {TOKEN}\r\n\r\nHTTP/1.1 104 Upload Resumption Supported\r\n\
         Upload-Offset: 3\r\n\r\nHTTP/1.1 199 Own Word\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
    );
    let origin = Origin::saying(said);
    let yaml = format!(
        "destinations: {{ p: {{ hosts: [\"{}\"], auth: {{ bearer: env:TOKEN }}, upgrade: false, \
         insecure_attach_over_http: true }} }}",
        origin.authority()
    );
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    let mut app = proxy.wire();
    for _ in 0..2 {
        app.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")));
        assert_eq!(head(&mut app).0, "HTTP/1.1 102 Processing");
        let (line, fields) = head(&mut app);
        assert_eq!(line, "HTTP/1.1 103 Early Hints");
        let stars = format!("x-echo: {}", "*".repeat(TOKEN.len()));
        assert_eq!(fields, ["link: </a>; rel=preload".to_owned(), stars]);
        let (line, fields) = head(&mut app);
        assert_eq!(line, "HTTP/1.1 104 Upload Resumption Supported");
        assert!(fields.contains(&"upload-offset: 3".to_owned()), "{fields:?}");
        assert_eq!(head(&mut app).0, "HTTP/1.1 199 Own Word");
        assert_eq!(app.response().status, 204);
    }
    let old = proxy.raw(format!("GET {} HTTP/1.0\r\n\r\n", origin.url("/")));
    assert_eq!((old.status, old.interim.len()), (204, 0));
}

/// An interim answer says Via where a final one does.
#[test]
fn interim_answers_say_via_where_that_is_wanted() {
    let origin = Origin::saying("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
    for (settings, has_via) in [("http: 1", false), ("via: true", true)] {
        let proxy = origin.proxy(settings);
        let mut app = proxy.wire();
        app.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")));
        for expected in ["HTTP/1.1 102 Processing", "HTTP/1.1 204 No Content"] {
            let (line, fields) = head(&mut app);
            assert_eq!(line, expected);
            let says_via = fields.iter().any(|field| field.starts_with("via: 1.1 outrider-"));
            assert_eq!(says_via, has_via, "{settings}: {fields:?}");
        }
    }
}

/// With a cache it is the one who asks that hears them.
#[test]
fn interim_answers_come_past_a_cache() {
    let origin = Origin::saying(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = origin.proxy("cache: {}");
    assert_eq!(proxy.get(&origin.url("/")).interim, [103]);
    assert_eq!(proxy.get(&origin.url("/")).interim, [0_u16; 0], "it is stored");
}

/// A tunnel is one hop like any other.
#[test]
fn interim_answers_come_through_an_intercepted_tunnel() {
    let partner = Partner::offering(&["http/1.1"], |wire| {
        while wire.request_head().is_ok() {
            wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
            let body = wire.read_exact(5).unwrap();
            wire.send(ok("", &String::from_utf8(body).unwrap()));
        }
    });
    let proxy = partner.proxy("");
    let authority = partner.authority();
    let mut app = proxy.intercepted(&authority);
    app.send(format!("POST / HTTP/1.1\r\nHost: {authority}\r\n{WAITS}\r\n"));
    assert_eq!(head(&mut app).0, "HTTP/1.1 103 Early Hints");
    assert_eq!(head(&mut app).0, GO_ON);
    assert_eq!(app.ask("hello").text(), "hello");
}

/// However it is spent, there is an end to it.
#[test]
fn interim_answers_are_bounded() {
    let link = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(8000));
    for (name, many) in [
        ("number", "HTTP/1.1 102 Processing\r\n\r\n".repeat(101)),
        ("size", link.repeat(40)),
    ] {
        let origin = Origin::saying(format!("{many}HTTP/1.1 204 No Content\r\n\r\n"));
        let detail = origin.proxy("").get(&origin.url("/"));
        assert_eq!(detail.status, 502, "{name}");
    }
    let origin = Origin::saying(format!(
        "{}HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\n".repeat(100)
    ));
    let answer = origin.proxy("").get(&origin.url("/"));
    assert_eq!((answer.status, answer.interim.len()), (204, 100));
}

/// RFC 9112 section 2.3: a minor version that we do not know is read as the highest that we do; another major
/// one is not. Requests are not read so: no client needs it, and what is odd there is refused.
#[test]
fn a_higher_minor_version_is_read_as_1_1() {
    for (version, status) in [
        ("1.2", 200),
        ("1.9", 200),
        ("2.0", 502),
        ("0.9", 502),
        ("1.10", 502),
        ("3", 502),
    ] {
        let chunks = "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        let origin = Origin::saying(format!("HTTP/{version} 200 OK\r\n{chunks}"));
        let proxy = alone(&origin);
        let answer = proxy.get(&origin.url("/"));
        assert_eq!(answer.status, status, "{version}");
        if status == 200 {
            assert_eq!(answer.text(), "ok", "{version}");
            assert_eq!(proxy.get(&origin.url("/")).status, 200);
            assert_eq!(
                origin.seen().len(),
                1,
                "{version}: the connection is kept, as in 1.1"
            );
        }
    }
}

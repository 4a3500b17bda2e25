//! One app asks for many users: what came for one of them, the cache gives to no other.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use crate::support::partner::Partner;
use crate::support::{Origin, Proxy, TOKEN, Wire, eventually, ok};

/// Answers with these header lines; the body is what the request said in all of `NAMES`.
fn says_who(wire: &mut Wire, lines: &str, count: &AtomicUsize) {
    while let Ok(request) = wire.request() {
        count.fetch_add(1, Ordering::SeqCst);
        let who: Vec<&str> = NAMES.iter().flat_map(|name| request.headers.all(name)).collect();
        wire.send(ok(lines, &format!("for {}", who.join("+"))));
    }
}

/// The fields by which services distinguish users; the last one is invented.
const NAMES: [&str; 8] = [
    "x-user-id",
    "x-tenant",
    "on-behalf-of",
    "from",
    "x-forwarded-for",
    "origin",
    "baggage",
    "twelve-apostles",
];

fn asked(count: &AtomicUsize) -> usize {
    count.load(Ordering::SeqCst)
}

/// Asserts that each user gets the answer stored for this user.
#[track_caller]
fn assert_apart(proxy: &Proxy, url: &str, count: &AtomicUsize, what: &str) {
    let before = asked(count);
    for round in 0..2 {
        for name in NAMES {
            for user in ["ann", "bob"] {
                let answer = proxy.ask("GET", url, &format!("{name}: {user}\r\n"));
                assert_eq!(answer.text(), format!("for {user}"), "{name} {what}");
                answer.assert_cache_status(["outrider; fwd=", "outrider; hit"][round]);
            }
        }
        assert_eq!(proxy.get(url).text(), "for ", "{what}");
        let both = proxy.ask("GET", url, "X-User-Id: ann\r\nX-User-Id: bob\r\n");
        assert_eq!(both.text(), "for ann+bob", "{what}");
    }
    assert_eq!(asked(count) - before, 18, "{what}");
}

#[test]
fn users_have_answers_of_their_own() {
    for line in ["max-age=60", "private, max-age=60", "public, s-maxage=60"] {
        let lines: &'static str = format!("Cache-Control: {line}\r\n").leak();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let origin = Origin::http(move |wire| says_who(wire, lines, &counted));
        let proxy = origin.proxy("cache: {}");
        assert_apart(&proxy, &origin.url("/"), &count, line);
    }
}

/// The attached credential is the app's, and is the same for all of its users.
#[test]
fn users_have_answers_of_their_own_behind_an_attached_credential() {
    for line in ["max-age=60", "private, max-age=60"] {
        let lines: &'static str = format!("Cache-Control: {line}\r\nVary: Authorization\r\n").leak();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let partner = Partner::with(move |wire| says_who(wire, lines, &counted));
        let proxy = partner.proxy("cache: {}");
        assert_apart(&proxy, &partner.url("/"), &count, line);
    }
}

/// `min_fresh` goes before what an answer says of time, not before whose it is.
#[test]
fn a_floor_mixes_no_users() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let origin = Origin::http(move |wire| says_who(wire, "Cache-Control: private, max-age=0\r\n", &counted));
    let proxy = origin.proxy("cache: { min_fresh: 1h }");
    assert_apart(&proxy, &origin.url("/"), &count, "min_fresh");
}

#[test]
fn users_do_not_wait_for_the_answers_of_others() {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::http(move |wire| {
        while let Ok(request) = wire.request() {
            let user = request.headers.get("x-user-id").unwrap_or_default().to_owned();
            if user == "ann" {
                let _ = gate.lock().unwrap().recv();
            }
            wire.send(ok("Cache-Control: private, max-age=60\r\n", &user));
        }
    });
    let proxy = origin.proxy("cache: {}");
    let begin = |user: &str| {
        let mut wire = proxy.wire();
        wire.send(format!(
            "GET {} HTTP/1.1\r\nHost: x\r\nX-User-Id: {user}\r\n\r\n",
            origin.url("/")
        ));
        wire
    };
    let mut anns = [begin("ann"), begin("ann")];
    eventually("both are in", || {
        proxy.metric("outrider_requests_in_flight", &[("destination", "p")]) >= 2.0
    });
    // While both of hers wait for one answer, his comes.
    assert_eq!(begin("bob").response().text(), "bob");
    open.send(()).unwrap();
    for wire in &mut anns {
        assert_eq!(wire.response().text(), "ann");
    }
    assert_eq!(origin.raw().matches("GET / ").count(), 2);
}

/// Neither in the place of a failure nor while it is refreshed.
#[test]
fn a_stale_answer_goes_to_nobody_else() {
    for settings in [
        "cache: {}",
        "cache: { stale_while_revalidate: 1h, stale_if_error: 1h }",
    ] {
        let up = Arc::new(AtomicBool::new(true));
        let is_up = Arc::clone(&up);
        let origin = Origin::http(move |wire| {
            while let Ok(request) = wire.request() {
                let user = request.headers.get("x-user-id").unwrap_or_default().to_owned();
                if is_up.load(Ordering::SeqCst) {
                    wire.send(ok("Cache-Control: private, max-age=0\r\nETag: \"a\"\r\n", &user));
                } else {
                    wire.send("HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno");
                }
            }
        });
        let proxy = origin.proxy(settings);
        let ask = |user: &str| proxy.ask("GET", &origin.url("/"), &format!("X-User-Id: {user}\r\n"));
        assert_eq!(ask("ann").text(), "ann");
        up.store(false, Ordering::SeqCst);
        assert_eq!(
            (ask("bob").status, ask("ann").text()),
            (503, "ann".to_owned()),
            "{settings}"
        );
        assert_eq!(proxy.get(&origin.url("/")).status, 503, "{settings}");
        // The same answer would be confirmed for another one by its tag.
        assert!(!origin.raw().contains("bob\r\nif-none-match"), "{}", origin.raw());
    }
}

/// A change is a change for everybody.
#[test]
fn a_change_invalidates_the_answers_of_all_users() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let origin = Origin::http(move |wire| says_who(wire, "Cache-Control: private, max-age=60\r\n", &counted));
    let proxy = origin.proxy("cache: {}");
    let ask = |method: &str, user: &str| {
        let lines = format!("X-User-Id: {user}\r\nContent-Length: 0\r\n");
        let answer = proxy.ask(method, &origin.url("/"), &lines);
        answer.header("cache-status").unwrap().to_owned()
    };
    for user in ["ann", "bob"] {
        ask("GET", user);
        assert!(ask("GET", user).contains("hit"), "{user}");
    }
    ask("POST", "ann");
    for user in ["ann", "bob"] {
        assert!(ask("GET", user).contains("uri-miss"), "{user}");
    }
}

/// What numbers a request says nothing of a user, so that an app that traces still has a cache. An answer that a
/// service calls private is the exception: what it was chosen by is the service's secret.
#[test]
fn the_number_of_a_request_distinguishes_users_only_for_private_answers() {
    for (line, removed, requests) in [
        ("max-age=60", "", 1),
        ("private, max-age=60", "", 10),
        // A field that is not sent does not distinguish users.
        (
            "private, max-age=60",
            ", headers: { remove: [x-request-id, traceparent] }",
            1,
        ),
    ] {
        let lines: &'static str = format!("Cache-Control: {line}\r\n").leak();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let origin = Origin::http(move |wire| says_who(wire, lines, &counted));
        let proxy = origin.proxy(&format!("cache: {{}}{removed}"));
        for i in 0..10 {
            let lines = format!("X-Request-Id: {i}\r\nTraceparent: 00-{i:032x}-{i:016x}-01\r\n");
            assert_eq!(proxy.ask("GET", &origin.url("/"), &lines).status, 200);
        }
        assert_eq!(asked(&count), requests, "{line}{removed}");
    }
}

/// One user's 304 may say that the answer is private from now on.
#[test]
fn an_answer_that_becomes_private_is_no_longer_everybodys() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let origin = Origin::http(move |wire| {
        while let Ok(request) = wire.request() {
            counted.fetch_add(1, Ordering::SeqCst);
            wire.send(match request.headers.get("if-none-match") {
                Some(_) => {
                    "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: private, max-age=60\r\n\r\n"
                        .to_owned()
                }
                None => ok("Cache-Control: max-age=0\r\nETag: \"a\"\r\n", "body"),
            });
        }
    });
    let proxy = origin.proxy("cache: {}");
    let ask = |agent: &str| proxy.ask("GET", &origin.url("/"), &format!("User-Agent: {agent}\r\n"));
    ask("one");
    ask("one").assert_cache_status("outrider; fwd=stale; fwd-status=304");
    ask("other").assert_cache_status("outrider; fwd=uri-miss");
    assert_eq!(asked(&count), 3);
}

/// Another credential for HEAD than for GET is another user to the service.
#[test]
fn head_does_not_get_what_another_credential_was_given() {
    let origin = Origin::http(|wire| {
        while let Ok(request) = wire.request() {
            let is_known = request.headers.get("authorization").is_some();
            let who = if is_known { "known" } else { "nobody" };
            if request.line.starts_with("HEAD") {
                wire.send(format!(
                    "HTTP/1.1 200 OK\r\nX-Who: {who}\r\nContent-Length: 0\r\n\r\n"
                ))
            } else {
                wire.send(ok(
                    &format!("Cache-Control: max-age=60\r\nX-Who: {who}\r\n"),
                    "body",
                ))
            };
        }
    });
    let settings = "cache: {}, upgrade: false, insecure_attach_over_http: true, \
                    auth: [{ match: { method: HEAD }, none: true }, { bearer: env:TOKEN }]";
    let config = crate::support::proxy::destination(&origin.authority(), settings);
    let proxy = Proxy::start_with(&config, &[("TOKEN", TOKEN)]);
    let get = proxy.get(&origin.url("/"));
    assert_eq!(
        (get.status, get.header("x-who")),
        (200, Some("known")),
        "{}",
        get.text()
    );
    let mut wire = proxy.wire();
    wire.send(format!("HEAD {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")));
    assert_eq!(wire.bodiless_response().header("x-who"), Some("nobody"));
}

/// A field with another value each time makes every request a miss, and takes no more than the cache's size.
#[test]
fn a_flood_of_users_is_bounded() {
    let body = "x".repeat(20_000);
    let origin = Origin::http(move |wire| {
        while wire.request().is_ok() {
            wire.send(ok("Cache-Control: max-age=60\r\n", &body));
        }
    });
    let proxy = origin.proxy("cache: { size: 1MiB }");
    let mut wire = proxy.wire();
    let mut ask = |path: &str, user: usize| {
        wire.ask(format!(
            "GET {} HTTP/1.1\r\nHost: x\r\nX-User-Id: {user}\r\n\r\n",
            origin.url(path)
        ))
    };
    for user in 0..100 {
        ask("/many", user).assert_cache_status("outrider; fwd=");
    }
    let before = proxy.anonymous();
    for user in 100..600 {
        ask("/many", user).assert_cache_status("outrider; fwd=");
    }
    let grown = proxy.anonymous().saturating_sub(before);
    assert!(grown < 2 << 20, "{grown} bytes more");
    ask("/many", 599).assert_cache_status("outrider; hit");
}

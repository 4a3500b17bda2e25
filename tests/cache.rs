//! Asking less: what is stored, for whom, for how long, and what keeps an answer out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use crate::support::partner::Partner;
use crate::support::proxy::destination;
use crate::support::{Origin, Proxy, TOKEN, eventually, ok};

/// Starts an origin that answers 200 with these header lines; the body is the number of the request.
fn counting(lines: &'static str) -> (Origin, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let origin = Origin::http(move |wire| {
        while wire.request().is_ok() {
            let body = format!("answer {}", counted.fetch_add(1, Ordering::SeqCst) + 1);
            wire.send(ok(lines, &body));
        }
    });
    (origin, count)
}

fn cached(proxy: &Proxy, status: &str) -> f64 {
    proxy.metric(
        "outrider_cache_total",
        &[("destination", "p"), ("status", status)],
    )
}

const MINUTE: &str = "Cache-Control: max-age=60\r\n";

#[test]
fn an_answer_is_asked_for_once() {
    let (origin, count) = counting(
        "Cache-Control: max-age=60\r\nX-A: 1\r\nX-A: 2\r\nKeep-Alive: timeout=9\r\nX-RateLimit-Remaining: 3\r\n",
    );
    let proxy = origin.proxy("cache: {}");
    let first = proxy.get(&origin.url("/a?b=c"));
    first.assert_cache_status("outrider; fwd=uri-miss; stored");
    assert_eq!(first.header("x-ratelimit-remaining"), Some("3"));
    for _ in 0..3 {
        let answer = proxy.get(&origin.url("/a?b=c"));
        assert_eq!((answer.status, answer.text()), (200, "answer 1".to_owned()));
        answer.assert_cache_status("outrider; hit; ttl=");
        assert_eq!(answer.headers.all("x-a"), ["1", "2"]);
        assert_eq!(answer.header("via"), None);
        assert!(answer.header("age").is_some() && answer.header("date").is_some());
        assert_eq!(answer.header("keep-alive"), None);
        assert_eq!(answer.header("x-ratelimit-remaining"), None);
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
    let labels = [("destination", "p"), ("answered_by", "cache"), ("code", "200")];
    eventually("the exchanges are counted", || {
        proxy.metric("outrider_requests_total", &labels) == 3.0
    });
    assert_eq!((cached(&proxy, "miss"), cached(&proxy, "hit")), (1.0, 3.0));
    eventually("the access line", || {
        proxy.log().contains("\"answered_by\":\"cache\"")
    });
    // Another query is another place.
    proxy
        .get(&origin.url("/a?b=d"))
        .assert_cache_status("outrider; fwd=uri-miss");
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[test]
fn without_a_cache_nothing_is_said_or_stored() {
    let (origin, count) = counting(MINUTE);
    let proxy = origin.proxy("cache: false");
    for _ in 0..2 {
        assert_eq!(proxy.get(&origin.url("/")).header("cache-status"), None);
    }
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[test]
fn head_is_answered_from_a_stored_get_and_stores_nothing() {
    let (origin, count) = counting("Cache-Control: max-age=60\r\nETag: \"a\"\r\n");
    let proxy = origin.proxy("cache: {}");
    let head = |proxy: &Proxy| {
        let mut wire = proxy.wire();
        wire.send(format!("HEAD {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")));
        wire.bodiless_response()
    };
    head(&proxy).assert_cache_status("outrider; fwd=uri-miss");
    proxy
        .get(&origin.url("/"))
        .assert_cache_status("outrider; fwd=uri-miss; stored");
    let answer = head(&proxy);
    answer.assert_cache_status("outrider; hit");
    assert_eq!(answer.header("content-length"), Some("8"));
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

/// A hit spends nothing: neither the limiter nor the upstream hears of it.
#[test]
fn a_hit_costs_no_quota() {
    let (origin, _) = counting(MINUTE);
    let proxy = origin.proxy("cache: {}, rate_limit: 1/h burst 1, on_limit: reject");
    for _ in 0..5 {
        assert_eq!(proxy.get(&origin.url("/")).status, 200);
    }
    let refused = proxy.get(&origin.url("/other"));
    assert_eq!(refused.status, 429);
    refused.assert_cache_status("outrider; fwd=uri-miss");
}

#[test]
fn a_304_saves_the_body() {
    let conditions = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&conditions);
    let origin = Origin::http(move |wire| {
        while let Ok(request) = wire.request() {
            let condition = request.headers.get("if-none-match").map(str::to_owned);
            heard.lock().unwrap().push(condition.clone());
            wire.send(match condition {
                Some(_) => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nX-Version: 2\r\nX-RateLimit-Remaining: 7\r\n\r\n".to_owned(),
                None => ok("Cache-Control: max-age=0\r\nETag: \"a\"\r\nX-Version: 1\r\nX-RateLimit-Remaining: 8\r\n", "body"),
            });
        }
    });
    let proxy = origin.proxy("cache: {}");
    assert_eq!(proxy.get(&origin.url("/")).header("x-version"), Some("1"));
    let answer = proxy.get(&origin.url("/"));
    assert_eq!((answer.status, answer.text()), (200, "body".to_owned()));
    answer.assert_cache_status("outrider; fwd=stale; fwd-status=304");
    assert_eq!(answer.header("x-version"), Some("2"));
    // That of the moment, not that which was stored.
    assert_eq!(answer.headers.all("x-ratelimit-remaining"), ["7"]);
    assert_eq!(*conditions.lock().unwrap(), [None, Some("\"a\"".to_owned())]);
    assert_eq!(cached(&proxy, "revalidated"), 1.0);

    // The app's own condition is for us to judge; the upstream hears ours.
    let answer = proxy.ask("GET", &origin.url("/"), "If-None-Match: \"a\"\r\n");
    assert_eq!((answer.status, answer.text()), (304, String::new()));
    let answer = proxy.ask("GET", &origin.url("/"), "If-None-Match: \"b\"\r\n");
    assert_eq!((answer.status, answer.text()), (200, "body".to_owned()));
    assert_eq!(conditions.lock().unwrap().last(), Some(&Some("\"a\"".to_owned())));
}

#[test]
fn a_condition_is_answered_while_the_answer_is_fresh() {
    let (origin, count) = counting("Cache-Control: max-age=60\r\nETag: \"a\"\r\n");
    let proxy = origin.proxy("cache: {}");
    // Nothing is stored: the upstream judges.
    assert_eq!(
        proxy
            .ask("GET", &origin.url("/"), "If-None-Match: \"a\"\r\n")
            .status,
        200
    );
    for (line, status) in [
        ("If-None-Match: \"a\"", 304),
        ("If-None-Match: \"b\"", 200),
        ("If-None-Match: *", 304),
    ] {
        let answer = proxy.ask("GET", &origin.url("/"), &format!("{line}\r\n"));
        assert_eq!(answer.status, status, "{line}");
        answer.assert_cache_status("outrider; hit");
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

/// O1: what one credential may see, no other one gets.
#[test]
fn credentials_never_share() {
    let (origin, count) = counting("Cache-Control: public, max-age=60\r\n");
    let proxy = origin.proxy("cache: {}");
    let ask = |line: &str| proxy.ask("GET", &origin.url("/"), line).text();
    let all = [
        ask(""),
        ask("Authorization: Bearer 1\r\n"),
        ask("Authorization: Bearer 2\r\n"),
        ask("Cookie: a=1\r\n"),
        ask("Cookie: a=2\r\n"),
        ask("X-Api-Key: 1\r\n"),
        ask("X-Api-Key: 2\r\n"),
        ask("X-Auth-Token: 1\r\n"),
    ];
    let distinct: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "{all:?}");
    // Each has its own.
    assert_eq!(ask("Authorization: Bearer 1\r\n"), all[1]);
    assert_eq!(ask("Cookie: a=2\r\n"), all[4]);
    assert_eq!(count.load(Ordering::SeqCst), all.len());
}

/// RFC 9111 section 3.5: what was asked for with the app's own credential is stored only where the upstream
/// says so.
#[test]
fn the_apps_own_credential_makes_the_cache_a_shared_one() {
    let (origin, count) = counting("Cache-Control: private, max-age=60\r\n");
    let proxy = origin.proxy("cache: {}");
    for (line, asked) in [
        ("", 1),
        ("", 1),
        ("Authorization: Bearer 1\r\n", 2),
        ("Authorization: Bearer 1\r\n", 3),
        ("Cookie: a=1\r\n", 4),
        ("Cookie: a=1\r\n", 5),
    ] {
        proxy.ask("GET", &origin.url("/"), line);
        assert_eq!(count.load(Ordering::SeqCst), asked, "{line}");
    }
}

/// What outrider attaches is its own: private answers are for this app. Another secret is another key.
#[test]
fn an_attached_credential_has_separate_answers() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let partner = Partner::with(move |wire| {
        while wire.request().is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
            wire.send(ok(
                "Cache-Control: private, max-age=60\r\nVary: Authorization\r\n",
                "secret",
            ));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let yaml = partner
        .yaml("cache: {}")
        .replace("env:TOKEN", &format!("\"file:{}\"", token.display()));
    let proxy = Proxy::start(&yaml);
    let ask = |line: &str| proxy.ask("GET", &partner.url("/"), line);
    ask("").assert_cache_status("outrider; fwd=uri-miss; stored");
    ask("").assert_cache_status("outrider; hit");
    // The app's value of the attached field is not sent, so the stored answer does not depend on it.
    ask("Authorization: Bearer of-the-app\r\n").assert_cache_status("outrider; hit");
    assert_eq!(count.load(Ordering::SeqCst), 1);

    let before = proxy.metric("outrider_config_reloads_total", &[("result", "done")]);
    std::fs::write(&token, format!("{TOKEN}-2")).unwrap();
    proxy.signal(Signal::HUP);
    eventually("the new secret", || {
        proxy.metric("outrider_config_reloads_total", &[("result", "done")]) > before
    });
    ask("").assert_cache_status("outrider; fwd=uri-miss");
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[test]
fn destinations_have_caches_of_their_own() {
    let (one, count) = counting(MINUTE);
    let (other, counted) = counting(MINUTE);
    let proxy = Proxy::start(&format!(
        "destinations:\n  p: {{ hosts: [\"{}\"], cache: {{}} }}\n  q: {{ hosts: [\"{}\", \"other.test:{}\"], cache: {{}} }}\n",
        one.authority(),
        other.authority(),
        one.port(),
    ));
    let as_other = format!("http://other.test:{}/", one.port());
    for _ in 0..2 {
        for url in [one.url("/"), other.url("/"), as_other.clone()] {
            assert_eq!(proxy.get(&url).status, 200);
        }
    }
    assert_eq!(
        (count.load(Ordering::SeqCst), counted.load(Ordering::SeqCst)),
        (2, 1)
    );
}

/// A reload that leaves all as it was forgets nothing; one that changes what is sent forgets everything.
#[test]
fn what_is_stored_survives_a_reload_of_the_same() {
    let (origin, count) = counting(MINUTE);
    let proxy = origin.proxy("cache: {}");
    let rewrite = |settings: &str| {
        proxy.rewrite(&destination(&origin.authority(), settings));
        proxy.signal(Signal::HUP);
    };
    let get = || {
        proxy.get(&origin.url("/"));
        count.load(Ordering::SeqCst)
    };
    assert_eq!(get(), 1);
    rewrite("cache: {}, timeouts: { idle: 9s }");
    eventually("the reload", || {
        proxy.metric("outrider_config_reloads_total", &[("result", "done")]) > 0.0
    });
    assert_eq!(get(), 1);
    // The signal and the look at the file may each lead to a reload, so their number says nothing.
    rewrite("cache: {}, headers: { set: { X-Agency: \"047\" } }");
    eventually("the answer is asked for anew", || get() == 2);
}

/// O2: nothing that is not in the key has a say in what is stored.
#[test]
fn a_poisoned_answer_reaches_nobody_else() {
    let origin = Origin::http(|wire| {
        while let Ok(request) = wire.request() {
            let told = [
                "x-forwarded-host",
                "x-original-url",
                "x-http-method-override",
                "x-host",
                "accept",
            ]
            .map(|name| request.headers.get(name).unwrap_or("").to_owned());
            let body = format!("{}{}", String::from_utf8_lossy(&request.body), told.concat());
            wire.send(ok(MINUTE, &body));
        }
    });
    let proxy = origin.proxy("cache: {}");
    for (path, line) in [
        ("/1", "X-Forwarded-Host: evil\r\n"),
        ("/2", "X-Original-URL: /evil\r\n"),
        ("/3", "X-HTTP-Method-Override: evil\r\n"),
        ("/4", "X-Host: evil\r\n"),
        ("/5", "Accept: evil/x\r\n"),
    ] {
        assert!(
            proxy.ask("GET", &origin.url(path), line).text().contains("evil"),
            "{path}"
        );
        assert_eq!(proxy.get(&origin.url(path)).text(), "", "{line}");
    }
    // A fat GET: neither stored nor answered from what is.
    let url = origin.url("/fat");
    let fat = || {
        proxy.raw(format!(
            "GET {url} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nConnection: close\r\n\r\nevil"
        ))
    };
    for _ in 0..2 {
        let answer = fat();
        assert_eq!(answer.text(), "evil");
        answer.assert_cache_status("outrider; fwd=bypass");
    }
    assert_eq!(proxy.get(&url).text(), "");
    assert_eq!(fat().text(), "evil");
    assert_eq!(proxy.get(&url).text(), "");
}

/// O2: only what came whole and clean is stored, and the app gets it all the same.
#[test]
fn what_is_not_whole_or_too_large_is_not_stored() {
    let many: String = "x".repeat(200_000);
    let scripts: Vec<(&str, String)> = vec![
        (
            "/cut",
            format!("HTTP/1.1 200 OK\r\n{MINUTE}Content-Length: 10\r\n\r\nhalf"),
        ),
        (
            "/cut-chunk",
            format!("HTTP/1.1 200 OK\r\n{MINUTE}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ),
        (
            "/until-close",
            format!("HTTP/1.1 200 OK\r\n{MINUTE}\r\nuntil the end"),
        ),
        (
            "/longer",
            format!(
                "HTTP/1.1 200 OK\r\n{MINUTE}Content-Length: 4\r\n\r\nbodyHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
            ),
        ),
        (
            "/trailers",
            format!(
                "HTTP/1.1 200 OK\r\n{MINUTE}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
            ),
        ),
        ("/large", ok(MINUTE, &many)),
        (
            "/large-chunks",
            format!(
                "HTTP/1.1 200 OK\r\n{MINUTE}Transfer-Encoding: chunked\r\n\r\n30d40\r\n{many}\r\n0\r\n\r\n"
            ),
        ),
        (
            "/partial",
            format!(
                "HTTP/1.1 206 Partial Content\r\n{MINUTE}Content-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nab"
            ),
        ),
        (
            "/cookie",
            ok(&format!("{MINUTE}Set-Cookie: session=1\r\n"), "yours"),
        ),
        ("/star", ok(&format!("{MINUTE}Vary: *\r\n"), "body")),
        (
            "/no-store",
            ok("Cache-Control: max-age=60, No-Store\r\nETag: \"a\"\r\n", "body"),
        ),
        (
            "/error",
            format!("HTTP/1.1 400 Bad Request\r\n{MINUTE}Content-Length: 2\r\n\r\nno"),
        ),
        (
            "/busy",
            format!("HTTP/1.1 429 Too Many Requests\r\n{MINUTE}Content-Length: 2\r\n\r\nno"),
        ),
    ];
    let paths: Vec<&str> = scripts.iter().map(|(path, _)| *path).collect();
    let answers: HashMap<String, String> = scripts
        .iter()
        .map(|(path, text)| ((*path).to_owned(), text.clone()))
        .collect();
    let counts = Arc::new(Mutex::new(HashMap::<String, usize>::new()));
    let counted = Arc::clone(&counts);
    let origin = Origin::http(move |wire| {
        if let Ok(request) = wire.request() {
            *counted
                .lock()
                .unwrap()
                .entry(request.target().to_owned())
                .or_default() += 1;
            wire.send(&answers[request.target()]);
        }
    });
    // An eighth of it is the most that one may take. A 429 is not to be kept to here.
    let proxy = origin.proxy("cache: { size: 1MiB }, respect_upstream: false");
    for path in paths {
        for _ in 0..2 {
            let mut wire = proxy.wire();
            wire.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url(path)));
            // How it ends is not the question here.
            let _ = wire.try_response();
        }
        assert_eq!(counts.lock().unwrap()[path], 2, "{path}");
    }
    assert_eq!(cached(&proxy, "hit"), 0.0);
}

#[test]
fn an_answer_in_chunks_is_stored_whole() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let origin = Origin::http(move |wire| {
        while wire.request().is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
            wire.send(format!(
                "HTTP/1.1 200 OK\r\n{MINUTE}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
            ));
            wire.send("6\r\n world\r\n0\r\n\r\n");
        }
    });
    let proxy = origin.proxy("cache: {}");
    for _ in 0..3 {
        assert_eq!(proxy.get(&origin.url("/")).text(), "hello world");
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

/// The bound holds, however much is asked for.
#[test]
fn memory_is_bounded() {
    let body = "x".repeat(50_000);
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let origin = Origin::http(move |wire| {
        while wire.request().is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
            wire.send(ok(MINUTE, &body));
        }
    });
    let proxy = origin.proxy("cache: { size: 1MiB }");
    let mut wire = proxy.wire();
    let mut get = |path: &str| wire.ask(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url(path)));
    for i in 0..100 {
        assert_eq!(get(&format!("/{i}")).body.len(), 50_000);
    }
    let before = proxy.anonymous();
    for i in 0..400 {
        get(&format!("/{i}"));
    }
    let grown = proxy.anonymous().saturating_sub(before);
    assert!(grown < 2 << 20, "{grown} bytes more");
    // What was asked for last is there, what was asked for first is not.
    let asked = count.load(Ordering::SeqCst);
    get("/399").assert_cache_status("outrider; hit");
    get("/0").assert_cache_status("outrider; fwd=uri-miss");
    assert_eq!(count.load(Ordering::SeqCst), asked + 1);
}

#[test]
fn a_change_invalidates_what_is_stored() {
    let origin = Origin::http(|wire| {
        while let Ok(request) = wire.request() {
            // Nobody knows whether the change was made.
            if request.line.starts_with("POST /lost") {
                return;
            }
            let answer = match request.target() {
                "/fails" if request.line.starts_with("POST") => "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_owned(),
                "/to" if request.line.starts_with("POST") => "HTTP/1.1 201 Made\r\nLocation: /made\r\nContent-Length: 0\r\n\r\n".to_owned(),
                "/far" if request.line.starts_with("POST") => "HTTP/1.1 201 Made\r\nContent-Location: http://other.test/made\r\nContent-Length: 0\r\n\r\n".to_owned(),
                _ => ok(MINUTE, "body"),
            };
            wire.send(answer);
        }
    });
    let proxy = origin.proxy("cache: {}");
    let post = |path: &str| {
        let answer = proxy.ask("POST", &origin.url(path), "Content-Length: 0\r\n");
        answer.assert_cache_status("outrider; fwd=method");
    };
    let is_stored = |path: &str| {
        let answer = proxy.get(&origin.url(path));
        answer.header("cache-status").unwrap().contains("hit")
    };
    for (path, changed, survives) in [
        ("/a", "/a", false),
        ("/made", "/to", false),
        ("/made", "/far", true),
        ("/fails", "/fails", true),
        ("/a", "/b", true),
        ("/lost", "/lost", false),
    ] {
        is_stored(path);
        assert!(is_stored(path), "{path}");
        post(changed);
        assert_eq!(is_stored(path), survives, "{path} after POST {changed}");
    }
    assert_eq!(proxy.ask("OPTIONS", &origin.url("/a"), "").status, 200);
    assert!(is_stored("/a"));
}

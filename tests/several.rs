//! Several credentials for one destination: by path and method, and out of a pool.

use std::collections::HashMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;

use crate::support::{CANARY, Origin, Proxy, Response, eventually};

/// Returns the values of `env:KEY_A` to `env:KEY_D`.
fn key(letter: &str) -> String {
    format!("{CANARY}-{letter}")
}

/// Starts a proxy whose destination has these settings.
fn proxy(origin: &Origin, settings: &str) -> Proxy {
    let config = format!(
        "destinations: {{ p: {{ hosts: [\"{}\"], upgrade: false, insecure_attach_over_http: true, {settings} }} }}",
        origin.authority()
    );
    let keys = ["a", "b", "c", "d"].map(|letter| (format!("KEY_{}", letter.to_uppercase()), key(letter)));
    let keys: Vec<_> = keys
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    Proxy::start_with(&config, &keys)
}

const POOL: &str = "auth: { pool: [{ bearer: env:KEY_A }, { bearer: env:KEY_B }, { bearer: env:KEY_C }] }";

/// Says in `x-seen` with what it was asked, and answers what `answer` says of that.
fn reporting(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Origin {
    Origin::http(move |wire| {
        while let Ok(request) = wire.request() {
            let target = request.line.split(' ').nth(1).unwrap_or_default();
            let query = target.split_once('?').map(|(_, query)| query);
            let seen = [
                request.headers.get("authorization"),
                request.headers.get("x-api-key"),
                query,
            ];
            let seen: Vec<_> = seen.into_iter().flatten().collect();
            let seen = seen.join(" and ").replace(CANARY, "key");
            let body = format!("{seen} {}", String::from_utf8_lossy(&request.body));
            wire.send(format!(
                "HTTP/1.1 {}\r\nContent-Length: {}\r\n\r\n{body}",
                answer(&seen),
                body.len()
            ));
        }
    })
}

fn seen(answer: &Response) -> String {
    assert_eq!(answer.status, 200, "{answer:?} {}", answer.text());
    answer.text().trim().to_owned()
}

/// Returns which of the keys each connection of the origin has carried.
fn keys_of_connections(origin: &Origin) -> Vec<Vec<String>> {
    let keys = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let mut keys: Vec<_> = text
            .split(CANARY)
            .skip(1)
            .map(|rest| rest[..2].to_owned())
            .collect();
        keys.dedup();
        keys
    };
    origin.seen().iter().map(|seen| keys(&seen.bytes)).collect()
}

#[test]
fn the_first_match_counts() {
    let origin = reporting(|_| "200 OK".into());
    let proxy = proxy(
        &origin,
        "auth: [
           { match: { path: /public/** }, none: true },
           { match: { path: /v1/**, method: POST }, bearer: env:KEY_A },
           { match: { path: /v1/** }, header: { name: X-Api-Key, value: env:KEY_B } },
           { match: { path: /v2/** }, query: { name: api_key, value: env:KEY_C } },
           { bearer: env:KEY_D }]",
    );
    for (method, path, wanted) in [
        ("GET", "/public/a", ""),
        ("POST", "/v1/a", "Bearer key-a"),
        ("GET", "/v1/a", "key-b"),
        ("GET", "/v2/a?b=c", "b=c&api_key=key-c"),
        ("GET", "/%762/a", "api_key=key-c"),
        ("GET", "/other", "Bearer key-d"),
    ] {
        let body = if method == "POST" {
            "Content-Length: 0\r\n"
        } else {
            ""
        };
        assert_eq!(
            seen(&proxy.ask(method, &origin.url(path), body)),
            wanted,
            "{method} {path}"
        );
    }
    // Where nothing is attached, what the app has put there is its own affair.
    let own = proxy.ask("GET", &origin.url("/public/a"), "Authorization: Basic own\r\n");
    assert_eq!(seen(&own), "Basic own");
    let own = proxy.ask("GET", &origin.url("/other"), "Authorization: Basic own\r\n");
    assert_eq!(seen(&own), "Bearer key-d");
    for keys in keys_of_connections(&origin) {
        assert!(keys.len() <= 1, "a connection with {keys:?}");
    }
}

/// What nothing matches carries nothing.
#[test]
fn a_list_need_not_be_for_everything() {
    let origin = reporting(|_| "200 OK".into());
    let proxy = proxy(&origin, "auth: [{ match: { path: /v1/** }, bearer: env:KEY_A }]");
    assert_eq!(seen(&proxy.get(&origin.url("/v1/a"))), "Bearer key-a");
    assert_eq!(seen(&proxy.get(&origin.url("/v2/a"))), "");
}

/// Spellings that servers read differently must not choose the credential.
#[test]
fn a_path_with_two_meanings_is_refused() {
    let origin = reporting(|_| "200 OK".into());
    let proxy = proxy(
        &origin,
        "auth: [{ match: { path: /admin/** }, bearer: env:KEY_A }, { bearer: env:KEY_B }]",
    );
    for path in [
        "/public/../admin/x",
        "/public/%2e%2e/admin/x",
        "/admin%2fx",
        "/admin\\x",
        "//admin/x",
        "/%2561dmin/x",
    ] {
        let answer = proxy.get(&origin.url(path));
        assert!(matches!(answer.status, 400 | 403), "{path}: {answer:?}");
    }
    assert_eq!(origin.raw(), "", "something was forwarded");
    assert_eq!(seen(&proxy.get(&origin.url("/admin/x"))), "Bearer key-a");
    assert_eq!(seen(&proxy.get(&origin.url("/%61dmin/x"))), "Bearer key-a");
}

/// A rule that takes something away is escaped by no spelling, no method and no field; `explain` says the same.
#[test]
fn no_spelling_escapes_a_rule() {
    let origin = reporting(|_| "200 OK".into());
    let proxy = proxy(
        &origin,
        "auth: [{ match: { path: /admin/** }, none: true }, { match: { path: /exact }, none: true },
           { match: { method: GET, path: /read/** }, none: true }, { bearer: env:KEY_B }]",
    );
    for (method, path, fields, is_refused) in [
        ("GET", "/Admin/x", "", true),
        ("GET", "/admin./x", "", true),
        ("GET", "/admin%20/x", "", true),
        ("GET", "/admin::$DATA/x", "", true),
        ("GET", "/admin%00/x", "", true),
        ("GET", "/%c1%a1dmin/x", "", true),
        ("GET", "/%u0061dmin/x", "", true),
        ("GET", "/%ef%bd%81dmin/x", "", true),
        ("GET", "/x/..;/admin/x", "", true),
        ("GET", "/exact/", "", true),
        ("GET", "/EXACT", "", true),
        ("get", "/other", "", true),
        ("FOO", "/other", "", true),
        ("POST", "/other?a=b&_method=GET", "", true),
        ("POST", "/other", "X-HTTP-Method-Override: GET\r\n", true),
        ("GET", "/other", "X_Original_URL: /admin/x\r\n", true),
        ("GET", "/other", "X-Rewrite-URL: /admin/x\r\n", true),
        ("GET", "/admin/X", "", false),
        ("GET", "/Other/Case/", "", false),
        ("GET", "/group%2Fproject", "", false),
        ("GET", "/other", "X-Forwarded-Prefix: /admin\r\n", false),
    ] {
        let answer = proxy.raw(format!(
            "{method} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{fields}Content-Length: 0\r\n\r\n",
            origin.url(path),
            origin.authority()
        ));
        let case = format!("{method} {path} {fields}: {answer:?} {}", answer.text());
        assert_eq!(answer.status, if is_refused { 403 } else { 200 }, "{case}");
        if fields.is_empty() {
            let file = proxy.config_file();
            let explained = Command::new(env!("CARGO_BIN_EXE_outrider"))
                .args(["explain", "--config"])
                .arg(&file)
                .args(["--method", method, &origin.url(path)])
                .output()
                .unwrap();
            assert_eq!(
                explained.status.code(),
                Some(i32::from(is_refused)),
                "{case} {explained:?}"
            );
        }
    }
    // HEAD follows GET.
    assert_eq!(proxy.ask("HEAD", &origin.url("/read/x"), "").status, 200);
    assert!(
        !origin
            .raw()
            .split("HEAD /read/x")
            .nth(1)
            .unwrap()
            .contains(CANARY),
        "{}",
        origin.raw()
    );
}

#[test]
fn those_of_a_pool_take_turns_on_connections_of_their_own() {
    let origin = reporting(|_| "200 OK".into());
    let proxy = proxy(&origin, POOL);
    let mut count = HashMap::new();
    for _ in 0..30 {
        *count.entry(seen(&proxy.get(&origin.url("/")))).or_insert(0) += 1;
    }
    for letter in ["a", "b", "c"] {
        assert_eq!(count.get(&format!("Bearer key-{letter}")), Some(&10), "{count:?}");
    }
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| seen(&proxy.get(&origin.url("/"))));
        }
    });
    for keys in keys_of_connections(&origin) {
        assert_eq!(keys.len(), 1, "a connection with {keys:?}");
    }
}

/// The upstream counts for each key by itself, and says so.
#[test]
fn the_one_with_the_most_left_is_taken() {
    let quotas = Mutex::new(HashMap::from([("a", 5), ("b", 40), ("c", 15)]));
    let origin = reporting(move |seen| {
        let letter = ["a", "b", "c"]
            .into_iter()
            .find(|letter| seen.ends_with(letter))
            .unwrap();
        let mut quotas = quotas.lock().unwrap();
        let left = quotas.get_mut(letter).unwrap();
        if *left == 0 {
            return "429 Too Many Requests\r\nRetry-After: 3600".into();
        }
        *left -= 1;
        format!("200 OK\r\nX-RateLimit-Limit: 60\r\nX-RateLimit-Remaining: {left}\r\nX-RateLimit-Reset: 3600")
    });
    let proxy = proxy(&origin, POOL);
    for number in 0..60 {
        let answer = proxy.get(&origin.url("/"));
        assert_eq!(answer.status, 200, "request {number}: {answer:?}");
    }
    // Now all three are used up: outrider itself answers, and nothing is sent.
    let asked = origin.raw().matches("GET /").count();
    let refused = proxy.get(&origin.url("/"));
    assert_eq!(refused.status, 429, "{refused:?}");
    assert!(refused.error().is_some(), "{refused:?}");
    assert_eq!(
        (asked, origin.raw().matches("GET /").count()),
        (60, 60),
        "no request was refused over there"
    );
}

#[test]
fn one_that_is_refused_is_left_out_and_the_request_is_sent_again() {
    let origin = reporting(|seen| match seen {
        "Bearer key-b" => "401 Unauthorized\r\nWWW-Authenticate: Bearer".into(),
        _ => "200 OK".into(),
    });
    let proxy = proxy(&origin, &format!("{POOL}, concurrency: 1, on_limit: wait 5s"));
    for number in 0..20 {
        let got = seen(&proxy.raw(format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody",
            origin.url("/"),
            origin.authority(),
        )));
        assert!(
            matches!(&*got, "Bearer key-a body" | "Bearer key-c body"),
            "{number}: {got}"
        );
    }
    assert_eq!(origin.raw().matches("canary-2f6b-b").count(), 1);
    let reason = [("destination", "p"), ("reason", "401")];
    assert_eq!(proxy.metric("outrider_retries_total", &reason), 1.0);
    let log = proxy.log();
    assert_eq!(
        log.matches("refused with 401: left out of the pool").count(),
        1,
        "{log}"
    );
    assert!(log.contains("auth.pool[1]"), "{log}");
    // A reload with the same secrets does not forget it.
    proxy.signal(Signal::HUP);
    eventually("it has been reloaded", || proxy.log().contains("reloaded"));
    for _ in 0..6 {
        seen(&proxy.get(&origin.url("/")));
    }
    assert_eq!(origin.raw().matches("canary-2f6b-b").count(), 1);
}

/// Where none is left, and where a body cannot be had twice, the app gets the upstream's own answer.
#[test]
fn a_refusal_that_no_credential_helps_is_the_apps() {
    let origin = reporting(|_| "401 Unauthorized\r\nWWW-Authenticate: Bearer".into());
    let pool = proxy(
        &origin,
        "auth: { pool: [{ bearer: env:KEY_A }, { bearer: env:KEY_B }] }",
    );
    for _ in 0..3 {
        let answer = pool.get(&origin.url("/"));
        assert_eq!((answer.status, answer.error()), (401, None), "{answer:?}");
    }
    // Two for the first, then each of the two once more.
    assert_eq!(origin.raw().matches("GET /").count(), 4);

    let single = proxy(&origin, "auth: { bearer: env:KEY_C }");
    assert_eq!(single.get(&origin.url("/")).status, 401);
    assert_eq!(origin.raw().matches("GET /").count(), 5);

    let pool = proxy(&origin, POOL);
    let body = "x".repeat(300_000);
    let answer = pool.raw(format!(
        "PUT {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        origin.url("/"),
        origin.authority(),
        body.len(),
    ));
    assert_eq!(answer.status, 401);
    assert_eq!(origin.raw().matches("PUT /").count(), 1);
}

/// What is under way with one key when it is refused is refused once, and nothing is lost.
#[test]
fn a_key_that_is_withdrawn_under_load_fails_no_request() {
    let count = AtomicUsize::new(0);
    let origin = reporting(move |seen| {
        let is_withdrawn = count.fetch_add(1, Ordering::SeqCst) > 100;
        match seen {
            "Bearer key-a" if is_withdrawn => "401 Unauthorized".into(),
            _ => "200 OK".into(),
        }
    });
    let proxy = proxy(&origin, POOL);
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                for _ in 0..40 {
                    let got = seen(&proxy.get(&origin.url("/")));
                    assert!(got.starts_with("Bearer key-"), "{got}");
                }
            });
        }
    });
    let refused = proxy.log().matches("left out of the pool").count();
    assert_eq!(refused, 1);
}

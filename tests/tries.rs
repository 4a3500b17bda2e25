//! Several tries of one request: which credential the next one gets, and which answer stands where there is no
//! next one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::retry::{BUSY, OK, asked, retries};
use crate::support::{CANARY, Origin, Proxy, Response, closed_port, eventually};

/// Starts a token endpoint; `answer` gives the answer to each of its requests by number. `None`: it
/// never answers.
fn tokens(answer: impl Fn(usize) -> Option<String> + Send + Sync + 'static) -> Origin {
    let count = AtomicUsize::new(0);
    Origin::http(move |wire| {
        while wire.request().is_ok() {
            match answer(count.fetch_add(1, Ordering::SeqCst)) {
                Some(answer) if answer.is_empty() => return,
                Some(answer) => drop(wire.send(answer)),
                // Until the other side gives up.
                None => drop(wire.rest()),
            }
        }
    })
}

fn token(name: &str, seconds: u32) -> String {
    let body = format!(
        "{{\"access_token\":\"{CANARY}-{name}\",\"token_type\":\"Bearer\",\"expires_in\":{seconds}}}"
    );
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn refused() -> String {
    let body = "{\"error\":\"invalid_client\"}";
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn client(port: u16) -> String {
    format!(
        "{{ oauth2: {{ token_url: \"http://127.0.0.1:{port}/token\", client_id: app, client_secret: env:SECRET }} }}"
    )
}

/// Starts a proxy for an origin whose clients get their tokens at these ports; `keys` are more keys of the
/// destination.
fn proxy(origin: &Origin, ports: &[u16], keys: &str) -> Proxy {
    let clients: Vec<_> = ports.iter().map(|port| client(*port)).collect();
    let auth = match &*clients {
        [one] => one.clone(),
        several => format!("{{ pool: [{}] }}", several.join(", ")),
    };
    let config = format!(
        "destinations: {{ p: {{ hosts: [\"{}\"], upgrade: false, insecure_attach_over_http: true, auth: {auth}, {keys} }} }}",
        origin.authority()
    );
    Proxy::start_with(&config, &[("SECRET", "canary-2f6b-secret")])
}

/// Whose token a request carried, as in `b1`.
fn bearer(request: &crate::support::Request) -> String {
    let field = request.headers.get("authorization").unwrap_or_default();
    field.rsplit('-').next().unwrap_or_default().to_owned()
}

/// Answers with the name of the token.
fn reporting() -> Origin {
    Origin::http(|wire| {
        while let Ok(request) = wire.request() {
            let name = bearer(&request);
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
                name.len()
            ));
        }
    })
}

#[track_caller]
fn assert_stands(answer: &Response, status: u16, body: &str) {
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (status, body),
        "{answer:?}"
    );
    assert_eq!(answer.header("x-why"), Some("deploy"));
    assert!(answer.error().is_none(), "it is the destination's: {answer:?}");
}

/// For every failure of the other server, and every place of its client in the pool.
#[test]
fn a_pool_with_a_dead_token_server_answers_every_request() {
    let good = || tokens(|_| Some(token("good", 3600)));
    let closed = closed_port();
    let failing = [
        ("refuses", Some(tokens(|_| Some(refused())))),
        ("breaks off", Some(tokens(|_| Some(String::new())))),
        ("is slow", Some(tokens(|_| None))),
        ("is closed", None),
    ];
    for (name, dead) in &failing {
        let dead = dead.as_ref().map_or(closed, Origin::port);
        let (good, origin) = (good(), reporting());
        for ports in [[good.port(), dead], [dead, good.port()]] {
            let proxy = proxy(&origin, &ports, "");
            let started = Instant::now();
            for number in 0..12 {
                let answer = proxy.get(&origin.url("/"));
                assert_eq!(
                    (answer.status, answer.text().as_str()),
                    (200, "good"),
                    "{name}, {number}"
                );
            }
            // Nobody has waited for the one that does not come.
            assert!(
                started.elapsed() < Duration::from_secs(5),
                "{name}: {:?}",
                started.elapsed()
            );
        }
    }
}

/// With one that rests for another reason as well, and one more that is good.
#[test]
fn a_member_whose_token_server_comes_back_takes_its_turn_again() {
    let first = tokens(|_| Some(token("a", 3600)));
    let second = tokens(|count| {
        Some(if count < 2 {
            String::new()
        } else {
            token("b", 3600)
        })
    });
    let origin = reporting();
    let proxy = proxy(&origin, &[first.port(), second.port()], "");
    for _ in 0..4 {
        assert_eq!(proxy.get(&origin.url("/")).text(), "a");
    }
    eventually("the second one has its turn", || {
        let answer = proxy.get(&origin.url("/"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text() == "b"
    });
}

#[test]
fn where_no_member_has_a_token_the_app_learns_why() {
    let (one, other) = (tokens(|_| Some(refused())), closed_port());
    let origin = reporting();
    let proxy = proxy(&origin, &[one.port(), other], "");
    for _ in 0..4 {
        let answer = proxy.get(&origin.url("/"));
        assert_eq!(answer.status, 502);
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        assert!(
            answer.text().contains("no token from 127.0.0.1:"),
            "{}",
            answer.text()
        );
    }
    assert_eq!(origin.seen().len(), 0);
}

/// The destination says 503, and the repeat would need a token that cannot be had.
#[test]
fn an_answer_is_kept_if_the_next_try_has_no_token() {
    for second in [refused(), String::new()] {
        let login = tokens(move |count| Some(if count == 0 { token("a", 2) } else { second.clone() }));
        let busy = BUSY.replace("X-Why", "Retry-After: 2\r\nX-Why");
        let origin = Origin::saying(busy);
        let proxy = proxy(
            &origin,
            &[login.port()],
            "respect_upstream: false, retry: { on: [503], max_wait: 5s }",
        );
        assert_stands(&proxy.get(&origin.url("/")), 503, "busy");
        assert!(
            asked(&login, "POST") >= 2,
            "the token had to be had anew: {}",
            login.raw()
        );
        assert_eq!((asked(&origin, "GET"), retries(&proxy, "503")), (1, 0.0));
        eventually("it is recorded as the destination's", || {
            let labels = [("code", "503"), ("answered_by", "upstream")];
            proxy.metric("outrider_requests_total", &labels) == 1.0
        });
    }
}

/// The second member's token server is down: the first one makes both tries.
#[test]
fn a_repeat_goes_with_the_member_that_can() {
    let login = tokens(|_| Some(token("a", 3600)));
    let origin = Origin::saying(BUSY);
    let proxy = proxy(
        &origin,
        &[login.port(), closed_port()],
        "retry: { on: [503], max_wait: 1s }",
    );
    for number in 1..4 {
        assert_stands(&proxy.get(&origin.url("/")), 503, "busy");
        assert_eq!(asked(&origin, "GET"), 2 * number);
    }
}

/// For a short and a long answer: what is not read ahead stays where it is.
#[test]
fn an_answer_is_kept_if_the_next_try_cannot_connect() {
    for length in [4, 300_000] {
        let body = "x".repeat(length);
        let busy = format!(
            "HTTP/1.1 503 No\r\nRetry-After: 1\r\nX-Why: deploy\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let origin = Origin::saying(busy);
        let keys = "respect_upstream: false, retry: { attempts: 3, on: [connect, 503], max_wait: 5s }";
        let proxy = origin.proxy(keys);
        let mut wire = proxy.wire();
        wire.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")));
        origin.wait("the request", |seen| {
            seen.iter().any(|seen| !seen.bytes.is_empty())
        });
        origin.close();
        assert_stands(&wire.response(), 503, &body);
        assert_eq!(asked(&origin, "GET"), 1);
        assert_eq!(retries(&proxy, "503") + retries(&proxy, "connect"), 2.0);
        eventually("it is recorded as the destination's", || {
            let labels = [("code", "503"), ("answered_by", "upstream")];
            proxy.metric("outrider_requests_total", &labels) == 1.0
        });
    }
}

/// Also where the limits do not let the repeat through.
#[test]
fn a_long_answer_is_kept_if_the_limits_refuse_the_next_try() {
    let body = "x".repeat(300_000);
    let origin = Origin::saying(format!(
        "HTTP/1.1 503 No\r\nX-Why: deploy\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let proxy = origin.proxy("rate_limit: 1/h burst 1, on_limit: reject, retry: { max_wait: 1s }");
    assert_stands(&proxy.get(&origin.url("/")), 503, &body);
}

/// A 401 costs the token. Where its server gives no other one, another member goes on; without one the 401 stands.
#[test]
fn a_refused_token_that_cannot_be_replaced_is_stood_in_for() {
    let first = || tokens(|count| Some(if count == 0 { token("old", 3600) } else { refused() }));
    let origin = Origin::http(|wire| {
        while let Ok(request) = wire.request() {
            wire.send(match &*bearer(&request) {
                "good" => OK.to_owned(),
                _ => BUSY.replace("503 Service Unavailable", "401 Unauthorized"),
            });
        }
    });
    let good = tokens(|_| Some(token("good", 3600)));
    let login = first();
    let pool = proxy(&origin, &[login.port(), good.port()], "");
    for _ in 0..6 {
        assert_eq!(pool.get(&origin.url("/")).status, 200);
    }
    let login = first();
    let alone = proxy(&origin, &[login.port()], "");
    assert_stands(&alone.get(&origin.url("/")), 401, "busy");
    assert_eq!(retries(&alone, "401"), 0.0);
}

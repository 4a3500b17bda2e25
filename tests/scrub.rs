//! Answers that echo what was attached: the app never gets to see it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use crate::support::h2::{self, DATA, END_HEADERS, END_STREAM, HEADERS};
use crate::support::partner;
use crate::support::programs::{ServerProcess, python};
use crate::support::proxy::destination;
use crate::support::{CANARY, Nginx, Origin, Pki, Proxy, Response, TOKEN, Wire, eventually, ok};

/// Adds the token and plain HTTP to `settings`.
fn clear(settings: &str) -> String {
    format!("auth: {{ bearer: env:TOKEN }}, upgrade: false, insecure_attach_over_http: true, {settings}")
}

fn attaching(origin: &Origin, settings: &str) -> Proxy {
    let yaml = destination(&origin.authority(), &clear(settings));
    Proxy::start_with(&yaml, &[("TOKEN", TOKEN)])
}

/// Returns as many stars as `text` has bytes.
fn stars(text: &str) -> String {
    "*".repeat(text.len())
}

fn redactions(proxy: &Proxy, part: &str) -> f64 {
    proxy.metric(
        "outrider_secrets_struck_total",
        &[("destination", "p"), ("part", part)],
    )
}

/// Neither what it says nor how it says it holds a secret.
#[track_caller]
fn assert_clean(answer: &Response) {
    let told = format!("{:?} {}", answer.headers, answer.text());
    assert!(!told.contains(CANARY), "{told}");
}

/// In fields and reason phrase always, under every configuration; in a body only with `scrub`.
#[test]
fn an_echo_in_the_head_is_always_removed() {
    let origin = Origin::saying(format!(
        "HTTP/1.1 302 No {TOKEN}\r\nLocation: /p?x=%20&token={TOKEN}\r\nSet-Cookie: a=b\r\nSet-Cookie: t=\"{TOKEN}\"\r\n\
         X-Echo: authorization: Bearer {TOKEN}, again {TOKEN}\r\nContent-Length: {}\r\n\r\n{TOKEN}",
        TOKEN.len()
    ));
    let proxy = attaching(&origin, "");
    let mut wire = proxy.wire();
    wire.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")));
    assert_eq!(wire.read_line(), format!("HTTP/1.1 302 No {}\r\n", stars(TOKEN)));
    let answer = proxy.get(&origin.url("/"));
    assert_eq!(
        answer.header("location"),
        Some(&*format!("/p?x=%20&token={}", stars(TOKEN)))
    );
    assert_eq!(
        answer.headers.all("set-cookie"),
        ["a=b", &format!("t=\"{}\"", stars(TOKEN))]
    );
    assert_eq!(
        answer.header("x-echo"),
        Some(&*format!(
            "authorization: {}, again {}",
            stars(&format!("Bearer {TOKEN}")),
            stars(TOKEN)
        ))
    );
    assert_eq!(answer.text(), TOKEN, "scrub is off");
    assert_eq!(
        (redactions(&proxy, "head"), redactions(&proxy, "body")),
        (2.0, 0.0)
    );
    eventually("the operator is told", || {
        proxy.log().contains("echoes an attached secret")
    });
}

/// An upstream may remember what an earlier try of the same request had attached.
#[test]
fn the_secret_of_an_earlier_try_is_removed_too() {
    let (one, another) = (format!("{CANARY}-one"), format!("{CANARY}-another"));
    let refused = one.clone();
    let origin = Origin::http(move |wire| {
        while let Ok(request) = wire.request() {
            match request.headers.get("authorization") {
                Some(sent) if sent.ends_with(&refused) => {
                    wire.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
                }
                _ => wire.send(ok(
                    &format!("Content-Type: text/plain\r\nX-Before: {refused}\r\n"),
                    &format!("before: {refused}"),
                )),
            };
        }
    });
    let settings = "auth: { pool: [{ bearer: env:ONE }, { bearer: env:ANOTHER }] }, scrub: true, upgrade: false, \
                    insecure_attach_over_http: true";
    let yaml = destination(&origin.authority(), settings);
    let proxy = Proxy::start_with(&yaml, &[("ONE", &one), ("ANOTHER", &another)]);
    // Both take turns: one of the two begins with the one that is refused.
    for _ in 0..2 {
        let answer = proxy.get(&origin.url("/"));
        assert_eq!(answer.status, 200);
        if proxy.metric(
            "outrider_retries_total",
            &[("destination", "p"), ("reason", "401")],
        ) == 1.0
        {
            assert_clean(&answer);
            assert_eq!(answer.text(), format!("before: {}", stars(&one)));
            return;
        }
    }
    panic!("nothing was sent again");
}

/// In every form and however the upstream splits it; lengths stay right.
#[test]
fn an_echo_in_a_text_is_removed_if_scrub_says_so() {
    let body = format!("{{\"headers\":{{\"Authorization\":\"Bearer {TOKEN}\"}},\"ok\":true}}");
    let wanted = body.replace(&format!("Bearer {TOKEN}"), &stars(&format!("Bearer {TOKEN}")));
    let typed = "Content-Type: application/json\r\n";
    let digests = "ETag: \"a\"\r\nContent-MD5: eA==\r\nDigest: md5=eA==\r\nContent-Digest: md5=:eA==:\r\nRepr-Digest: md5=:eA==:\r\n";
    for piece in [1, 7, 16, body.len()] {
        let chunks: Vec<String> = body
            .as_bytes()
            .chunks(piece)
            .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)))
            .collect();
        for (name, answer) in [
            ("whole", ok(&format!("{typed}{digests}"), &body)),
            (
                "chunked",
                format!(
                    "HTTP/1.1 200 OK\r\n{typed}{digests}Transfer-Encoding: chunked\r\n\r\n{}0\r\nX-Echo: {TOKEN}\r\nX-Sum: 1\r\n\r\n",
                    chunks.concat()
                ),
            ),
            ("to the end", format!("HTTP/1.0 200 OK\r\n{typed}\r\n{body}")),
            ("no type", ok("", &body)),
        ] {
            let origin = Origin::http(move |wire| {
                while wire.request().is_ok() {
                    answer.as_bytes().chunks(piece).for_each(|piece| {
                        wire.send(piece);
                    });
                    if answer.starts_with("HTTP/1.0") {
                        return;
                    }
                }
            });
            let proxy = attaching(&origin, "scrub: true");
            let answer = proxy.get(&origin.url("/"));
            assert_eq!(answer.text(), wanted, "{name} {piece}");
            assert!(answer.complete, "{name}");
            for field in ["content-md5", "digest", "content-digest", "repr-digest"] {
                assert_eq!(answer.header(field), None, "{name}");
            }
            if name == "chunked" {
                assert_eq!(answer.header("etag"), Some("\"a\""));
                assert_eq!(redactions(&proxy, "trailers"), 1.0);
                let mut wire = proxy.wire();
                wire.send(format!(
                    "GET {} HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n",
                    origin.url("/")
                ));
                let raw = String::from_utf8_lossy(&wire.rest().0).into_owned();
                assert!(raw.contains(&format!("x-echo: {}\r\n", stars(TOKEN))), "{raw}");
            }
            if name == "whole" {
                assert_eq!(answer.header("content-length"), Some(&*body.len().to_string()));
            }
            assert_eq!(
                (redactions(&proxy, "head"), redactions(&proxy, "body") >= 1.0),
                (0.0, true)
            );
        }
    }
}

/// A URL in a URL, JSON in JSON in JSON, and UTF-16 that says nowhere that it is that.
#[test]
fn no_layer_of_escapes_hides_a_secret() {
    let percent = |text: &str| {
        text.bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect::<String>()
    };
    let json = |text: &str| serde_json::to_string(text).unwrap().replace('-', "\\u002d");
    let url = format!(
        "https://a.test/?next={}",
        percent(&format!("/b?c={}", percent(TOKEN)))
    );
    let wide = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        format!("\u{feff}token: {TOKEN}.")
            .encode_utf16()
            .flat_map(bytes)
            .collect()
    };
    let bodies = [
        url.clone().into_bytes(),
        json(&json(&json(TOKEN))).into_bytes(),
        percent(&json(&percent(TOKEN))).into_bytes(),
        wide(u16::to_le_bytes),
        wide(u16::to_be_bytes),
    ];
    for body in bodies {
        for piece in [1, 7, body.len()] {
            let (sent, location) = (body.clone(), url.clone());
            let origin = Origin::http(move |wire| {
                if wire.request().is_ok() {
                    wire.send(format!(
                        "HTTP/1.1 302 Found\r\nLocation: {location}\r\nTransfer-Encoding: chunked\r\n\r\n"
                    ));
                    for piece in sent.chunks(piece) {
                        wire.send(format!("{:x}\r\n", piece.len()))
                            .send(piece)
                            .send("\r\n");
                    }
                    wire.send("0\r\n\r\n");
                }
            });
            let proxy = attaching(&origin, "scrub: true");
            let answer = proxy.get(&origin.url("/"));
            let hidden = percent(&percent(TOKEN)).len();
            let location = answer.header("location").unwrap_or_default();
            assert_eq!(location.matches('*').count(), hidden, "{location}");
            assert!(answer.complete && answer.body.len() == body.len());
            let stars = answer.body.iter().filter(|byte| **byte == b'*').count();
            assert!(
                stars >= TOKEN.len(),
                "{} of {}",
                answer.text(),
                String::from_utf8_lossy(&body)
            );
        }
    }
}

/// What is no text passes as it is, byte for byte and piece by piece.
#[test]
fn what_is_no_text_is_left_alone() {
    let origin = Origin::saying(ok(
        "Content-Type: application/octet-stream\r\nContent-MD5: eA==\r\nContent-Encoding: gzip\r\n",
        TOKEN,
    ));
    let proxy = attaching(&origin, "scrub: true");
    let answer = proxy.get(&origin.url("/"));
    assert_eq!((answer.status, answer.text()), (200, TOKEN.to_owned()));
    assert_eq!(answer.header("content-md5"), Some("eA=="));
}

/// The upstream is asked for what can be read, and what cannot is refused, in words.
#[test]
fn what_cannot_be_read_is_refused() {
    for (answer, why) in [
        (
            ok("Content-Type: text/html\r\nContent-Encoding: gzip\r\n", "\u{1f}"),
            "compressed",
        ),
        (
            ok("Content-Type: text/plain\r\nContent-Range: bytes 0-0/9\r\n", "x")
                .replace("200 OK", "206 Partial"),
            "part",
        ),
        (ok("Content-Type: text/html; charset=utf-16\r\n", "x"), "charset"),
    ] {
        let origin = Origin::saying(answer);
        let proxy = attaching(&origin, "scrub: true");
        let fields = "Accept-Encoding: gzip, br\r\nRange: bytes=0-0\r\nIf-Range: \"a\"\r\n";
        let refused = proxy.ask("GET", &origin.url("/"), fields);
        let detail = refused.assert_ours(502, "http_response_content_coding");
        assert!(detail.contains(why) && detail.contains("scrub"), "{detail}");
        let raw = origin.raw().to_lowercase();
        assert!(
            raw.contains("accept-encoding: identity\r\n") && !raw.contains("range:"),
            "{raw}"
        );

        // A head has no body that could not be read.
        let mut wire = proxy.wire();
        wire.send(format!("HEAD {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")));
        assert_ne!(wire.bodiless_response().status, 502);
    }
    // Without scrub nothing is asked for that the app has not asked for.
    let origin = Origin::saying(ok(
        "Content-Type: text/html\r\nContent-Encoding: gzip\r\n",
        "\u{1f}",
    ));
    let proxy = attaching(&origin, "");
    let fields = "Accept-Encoding: gzip\r\nRange: bytes=0-0\r\n";
    assert_eq!(proxy.ask("GET", &origin.url("/"), fields).status, 200);
    let raw = origin.raw().to_lowercase();
    assert!(
        raw.contains("accept-encoding: gzip\r\n") && raw.contains("range: bytes=0-0\r\n"),
        "{raw}"
    );
}

/// An event reaches the app before the next one is there.
#[test]
fn an_event_stream_does_not_stand_still() {
    let (next, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::http(move |wire| {
        if wire.request().is_err() {
            return;
        }
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        // Each ends as a secret begins, if it were not for the line end.
        for event in ["data: c\n\n", &format!("data: {TOKEN}\n\n"), "data: canary\n\n"] {
            wire.send(format!("{:x}\r\n{event}\r\n", event.len()));
            let _ = gate.lock().unwrap().recv();
        }
        wire.send("0\r\n\r\n");
    });
    let proxy = attaching(&origin, "scrub: true");
    let mut wire = proxy.wire();
    wire.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/")));
    while wire.read_line() != "\r\n" {}
    for event in [
        "data: c".to_owned(),
        format!("data: {}", stars(TOKEN)),
        "data: canary".to_owned(),
    ] {
        assert_eq!(wire.read_line(), format!("{:x}\r\n", event.len() + 2));
        assert_eq!(wire.read_line(), format!("{event}\n"));
        assert_eq!(
            (wire.read_line(), wire.read_line()),
            ("\n".to_owned(), "\r\n".to_owned())
        );
        next.send(()).unwrap();
    }
}

/// O2: what is stored is what was struck, for everybody who gets it.
#[test]
fn the_cache_keeps_no_echo() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let origin = Origin::http(move |wire| {
        while wire.request().is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
            let lines = format!(
                "Cache-Control: max-age=60, public\r\nContent-Type: text/plain\r\nX-Echo: {TOKEN}\r\n"
            );
            wire.send(ok(&lines, &format!("I heard {TOKEN}")));
        }
    });
    let proxy = attaching(&origin, "scrub: true, cache: {}");
    for (encoding, told) in [
        ("gzip", "outrider; fwd=uri-miss; stored"),
        ("br", "outrider; hit"),
        ("gzip", "outrider; hit"),
    ] {
        let answer = proxy.ask(
            "GET",
            &origin.url("/"),
            &format!("Accept-Encoding: {encoding}\r\n"),
        );
        answer.assert_cache_status(told);
        assert_eq!(answer.text(), format!("I heard {}", stars(TOKEN)));
        assert_eq!(answer.header("x-echo"), Some(&*stars(TOKEN)));
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

/// A real server that shows what it got, over HTTP/1.1 and HTTP/2, to an app that speaks either.
#[test]
fn nginx_shows_no_token() {
    for h2 in [false, true] {
        let pki = Pki::new();
        let nginx = Nginx::demanding(&pki, h2);
        let http = if h2 {
            "http: 2, scrub: true"
        } else {
            "http: 1, scrub: true"
        };
        let yaml = partner::destination(&pki, &pki.client("app"), &nginx.authority(), http);
        let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
        let wanted = format!("{{\"authorization\":\"{}\"}}", stars(&format!("Bearer {TOKEN}")));
        let answer = proxy.get(&format!("https://{}/echo", nginx.authority()));
        assert_eq!((answer.status, answer.text()), (200, wanted.clone()));
        assert_eq!(answer.header("x-echo"), Some(&*stars(&format!("Bearer {TOKEN}"))));
        if !h2 {
            let mut wire = proxy.intercepted(&nginx.authority());
            assert_eq!(wire.get(&nginx.authority(), "/echo").text(), wanted);
            continue;
        }
        let mut wire = proxy.intercepted_as(&nginx.authority(), &["h2"]);
        h2::greet(&mut wire);
        let head = h2::get(&nginx.authority(), "/echo");
        wire.send(h2::frame(HEADERS, END_HEADERS | END_STREAM, 1, &head));
        assert_eq!(h2::outcome(&mut wire, 1), Some(200));
        let body = h2::read_until(&mut wire, |frame| frame.kind == DATA).unwrap();
        assert_eq!(String::from_utf8_lossy(&body.payload), wanted);
    }
}

/// A real service of echoes, asked in each way in which a secret may be attached.
#[test]
fn httpbin_shows_no_secret() {
    let httpbin = Httpbin::start();
    // With what encoders change in it.
    let odd = format!("{CANARY} +/=&<>\"'\\%");
    for (auth, name) in [
        ("bearer: env:TOKEN", "bearer"),
        ("basic: { username: app, password: env:ODD }", "basic"),
        ("header: { name: X-Api-Key, value: env:ODD }", "header"),
        ("query: { name: api_key, value: env:ODD }", "query"),
    ] {
        let authority = format!("partner.test:{}", httpbin.port);
        let settings = clear("scrub: true").replace("bearer: env:TOKEN", auth);
        let env = [("TOKEN", TOKEN), ("ODD", &odd)];
        let proxy = Proxy::start_with(&destination(&authority, &settings), &env);
        let ask = |path: &str| proxy.get(&format!("http://{authority}{path}"));
        for path in [
            "/anything?x=1",
            "/headers",
            "/get",
            "/stream/3",
            "/deny",
            "/html",
            "/bytes/100",
            "/missing",
        ] {
            let answer = ask(path);
            assert!(
                answer.complete && answer.status != 502,
                "{name} {path} {answer:?}"
            );
            assert_clean(&answer);
        }
        let shown = ask("/anything").text();
        assert!(shown.contains("***"), "{name}: {shown}");
        // It compresses every answer.
        for path in ["/gzip", "/deflate", "/brotli"] {
            ask(path).assert_ours(502, "http_response_content_coding");
        }
        if name == "query" {
            let redirect = ask("/redirect/1?a=b");
            assert_eq!(redirect.status, 302);
        }
        assert!(redactions(&proxy, "body") > 0.0);
    }
}

/// The service, which ends with the test.
struct Httpbin {
    _server: ServerProcess,
    port: u16,
}

impl Httpbin {
    #[track_caller]
    fn start() -> Self {
        let child = python(HTTPBIN)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = ServerProcess(child);
        let mut line = String::new();
        BufReader::new(server.0.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("httpbin ended at once; tests/run --tools installs it"));
        Self {
            _server: server,
            port,
        }
    }
}

const HTTPBIN: &str = "
import logging
from httpbin import app
from werkzeug.serving import make_server
logging.getLogger('werkzeug').setLevel(logging.ERROR)
server = make_server('127.0.0.1', 0, app, threaded=True)
print(server.port, flush=True)
server.serve_forever()
";

/// What goes through untouched is not looked through: docs/credentials.md says so.
#[test]
fn an_upgraded_connection_is_not_looked_through() {
    let origin = Origin::http(|wire: &mut Wire| {
        if wire.request_head().is_ok() {
            wire.send(format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Echo: {TOKEN}\r\n\r\n{TOKEN}"));
            thread::park_timeout(std::time::Duration::from_millis(100));
        }
    });
    let proxy = attaching(&origin, "scrub: true");
    let mut wire = proxy.wire();
    wire.send(format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        origin.url("/")
    ));
    let answer = wire.response();
    assert_eq!(
        (answer.status, answer.header("x-echo")),
        (101, Some(&*stars(TOKEN)))
    );
    assert_eq!(wire.read_exact(TOKEN.len()).unwrap(), TOKEN.as_bytes());
}

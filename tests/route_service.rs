//! `route_service`: requests of the platform's router, judged and sent on.

use crate::support::programs::{WEBSOCKET_TALK, curl, outrider, python};
use crate::support::router::{BoundRoute, Router, configuration, service_port};
use crate::support::{CANARY, Origin, Pki, Proxy, TOKEN, Wire, closed_port, eventually, run};

const ALLOWED: &str = "allow: [203.0.113.0/24]";

/// A real client gets through; the app sees its request and nothing of the router's, and neither does anybody else.
#[test]
fn a_request_passes_and_its_signature_is_seen_by_the_router_alone() {
    let route = BoundRoute::with(ALLOWED);
    let url = format!(
        "http://partner.test:{}/a%2Fb/./c;d?q=\"<x>&{{y}}=%C3%A9",
        route.router.clear
    );
    let body = route.proxy.config_file();
    let asked = run(curl(["--globoff", "--path-as-is", "--include", "--data-binary"])
        .arg(format!("@{}", body.display()))
        .args([
            "--resolve",
            &format!("partner.test:{}:127.0.0.1", route.router.clear),
            &url,
        ]));
    let (head, echoed) = asked.succeeded().stdout.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(echoed, std::fs::read_to_string(body).unwrap());
    assert!(!head.to_lowercase().contains("x-cf-"), "{head}");
    assert!(head.contains("a=1; Secure"), "{head}");

    let raw = route.app.raw();
    assert!(
        raw.starts_with("POST /a%2Fb/./c;d?q=\"<x>&{y}=%C3%A9 HTTP/1.1\r\n"),
        "{raw}"
    );
    assert!(!raw.to_lowercase().contains("x-cf-"), "{raw}");
    assert!(
        raw.to_lowercase()
            .contains(&format!("host: partner.test:{}\r\n", route.router.tls)),
        "{raw}"
    );
    eventually("the request is logged", || {
        route.proxy.log().contains("\"path\":\"/a%2Fb/./c;d\"")
    });
    let log = route.proxy.log();
    assert!(
        log.contains("\"destination\":\"route_service\"") && log.contains("\"host\":\"partner.test\""),
        "{log}"
    );
    assert!(
        !log.contains("of-the-service") && !log.contains("%C3%A9") && !log.contains(CANARY),
        "{log}"
    );
    let labels = [
        ("destination", "route_service"),
        ("code", "200"),
        ("answered_by", "upstream"),
    ];
    assert_eq!(route.proxy.metric("outrider_requests_total", &labels), 1.0);
}

/// Bytes of both directions pass before either is complete.
#[test]
fn bodies_stream_in_both_directions() {
    let app = Origin::http(|wire| {
        if wire.request_head().is_ok() {
            let first = wire.read_exact(5).unwrap();
            wire.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\n")
                .send(first);
            let second = wire.read_exact(5).unwrap();
            wire.send(second);
        }
    });
    let route = BoundRoute::to(app, ALLOWED, &[]);
    let mut wire = route.wire();
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfirst");
    while !wire.read_line().trim().is_empty() {}
    assert_eq!(wire.read_exact(5).unwrap(), b"first");
    wire.send("after");
    assert_eq!(wire.read_exact(5).unwrap(), b"after");
}

#[test]
fn python_websockets_pass() {
    let (pki, tls, app) = (Pki::new(), closed_port(), closed_port());
    let proxy = Proxy::start(&configuration(&pki, tls).replace("SETTINGS", ALLOWED));
    let router = Router::start(&pki, tls, service_port(&proxy), app);
    let script = format!(
        r#"
import asyncio, os, websockets
async def serve(ws):
    assert not [name for name in ws.request.headers if name.lower().startswith("x-cf-")]
    async for message in ws:
        await ws.send(message)
async def main():
    async with websockets.serve(serve, "127.0.0.1", {app}, max_size=None):
        async with websockets.connect("ws://127.0.0.1:{clear}/chat", proxy=None, max_size=None) as ws:{WEBSOCKET_TALK}"#,
        clear = router.clear
    );
    let done = run(&mut python(&script));
    assert_eq!(done.succeeded().stdout, "all echoed\n", "{done:?}");
    let labels = [("destination", "route_service")];
    assert_eq!(proxy.metric("outrider_tunnels_total", &labels), 1.0);
}

/// What does not come from the router goes nowhere: not past the list, not to our own pages, not without its proof.
#[test]
fn forged_fields_lead_nowhere() {
    let route = BoundRoute::with(ALLOWED);
    let (tls, admin) = (route.router.tls, route.proxy.admin());
    let good = format!("X-CF-Forwarded-Url: https://partner.test:{tls}/\r\n");
    let proof = "X-CF-Proxy-Signature: s\r\nX-CF-Proxy-Metadata: m\r\n";
    let url = |url: &str| format!("X-CF-Forwarded-Url: {url}\r\n{proof}");
    let malformed = [
        "/a",
        "a.test/",
        "ftp://partner.test/",
        "https://",
        "https:///a",
        "https://partner.test:0/",
        "*",
    ];
    let mut cases: Vec<(String, u16, &str)> = malformed
        .iter()
        .map(|text| (url(text), 400, "http_request_error"))
        .collect();
    for tail in ["/#x", "/ /", "/\u{e9}", "/\t/"] {
        cases.push((
            url(&format!("https://partner.test:{tls}{tail}")),
            400,
            "http_request_error",
        ));
    }
    for authority in [
        "me@partner.test",
        "a.test:1@partner.test",
        "partner.test,a.test",
        "a.testhttp://partner.test",
    ] {
        cases.push((
            url(&format!("https://{authority}:{tls}/")),
            400,
            "http_request_error",
        ));
    }
    for outside in [
        "https://partner.test/".to_owned(),
        format!("https://a.partner.test:{tls}/"),
        format!("https://partner.test.a.test:{tls}/"),
        format!("https://127.0.0.1:{tls}/"),
        format!("http://{admin}/metrics"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://[::ffff:169.254.169.254]/".to_owned(),
    ] {
        cases.push((url(&outside), 403, "http_request_denied"));
    }
    let missing = "http_request_error";
    cases.extend([
        (proof.to_owned(), 400, missing),
        (good.clone(), 400, missing),
        (format!("{good}X-CF-Proxy-Signature: s\r\n"), 400, missing),
        (format!("{good}X-CF-Proxy-Metadata: m\r\n"), 400, missing),
        (
            format!("{good}X-CF-Proxy-Signature: \r\nX-CF-Proxy-Metadata: m\r\n"),
            400,
            missing,
        ),
        (format!("{good}{good}{proof}"), 400, missing),
        (format!("{good}{proof}X-CF-Proxy-Signature: t\r\n"), 400, missing),
        (
            format!("{good}{proof}Connection: close, x-cf-proxy-SIGNATURE\r\n"),
            400,
            missing,
        ),
        (
            format!("{good}{proof}Connection: x-forwarded-for\r\n"),
            400,
            missing,
        ),
        (String::new(), 400, missing),
    ]);
    for (fields, status, error) in &cases {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\n{fields}\r\n");
        let answer = route.directly(request);
        assert_eq!(
            (answer.status, answer.error()),
            (*status, Some(*error)),
            "{fields}: {answer:?}"
        );
        answer.assert_ours(*status, error);
    }
    let connect = format!(
        "CONNECT partner.test:{tls} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\n{good}{proof}\r\n"
    );
    route.directly(connect).assert_ours(400, "http_request_error");
    assert_eq!(route.app.raw(), "");
    let labels = [("destination", "route_service"), ("reason", "forwarded_url")];
    assert_eq!(route.proxy.metric("outrider_denied_total", &labels), 7.0);

    // With all three fields it is for the router to find out, and it does.
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\n{good}{proof}\r\n");
    let answer = route.directly(request);
    assert_eq!(
        (answer.status, answer.header("x-cf-routererror")),
        (400, Some("signature"))
    );
    assert_eq!(route.app.raw(), "");
}

/// `to` names a host; that it is our own listener is found out all the same.
#[test]
fn our_own_pages_are_no_route() {
    let proxy = Proxy::start(
        "route_service: { listen: \"127.0.0.1:0\", to: [\"127.0.0.1:*\"], allow: [0.0.0.0/0], upgrade: false }",
    );
    let request = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\nX-CF-Forwarded-Url: http://{}/metrics\r\n\
         X-CF-Proxy-Signature: {CANARY}\r\nX-CF-Proxy-Metadata: {CANARY}\r\n\r\n",
        proxy.admin()
    );
    let answer = Wire::connect(([127, 0, 0, 1], service_port(&proxy)).into()).ask(request);
    answer.assert_ours(508, "proxy_loop_detected");
}

/// What a client writes into X-Forwarded-For stands before what the router adds, and says nothing.
#[test]
fn a_forged_address_says_nothing() {
    let route = BoundRoute::with(ALLOWED);
    assert_eq!(route.get("X-Test-Peer: 203.0.113.9\r\n").status, 200);
    assert_eq!(
        route
            .get("X-Test-Peer: 203.0.113.9:4711\r\nX-Forwarded-For: 192.0.2.1\r\n")
            .status,
        200
    );
    let forged = "X-Forwarded-For: 203.0.113.7\r\n";
    for fields in [
        format!("{forged}X-Test-Peer: 192.0.2.1\r\n"),
        format!("{forged}{forged}X-Test-Peer: [2001:db8::1]:80\r\n"),
        "X-Forwarded-For: junk, 203.0.113.7\r\nX-Test-Peer: unknown\r\n".to_owned(),
        format!("{forged}X-Test-Peer: ::ffff:192.0.2.1\r\n"),
        "Forwarded: for=203.0.113.7\r\nX-Real-IP: 203.0.113.7\r\nX-Test-Peer: 192.0.2.1\r\n".to_owned(),
    ] {
        let detail = route.get(&fields).assert_ours(403, "http_request_denied");
        assert!(
            detail.contains("address of the client") && !detail.contains("192.0.2.1"),
            "{detail}"
        );
    }
    let labels = [("destination", "route_service"), ("reason", "client_address")];
    assert_eq!(route.proxy.metric("outrider_denied_total", &labels), 5.0);
    eventually("the log says which address it was", || {
        route.proxy.log().contains("X-Forwarded-For says 192.0.2.1")
    });

    route.rewrite("allow: [192.0.2.1], trusted_networks: [10.0.0.0/8, \"2001:db8::/32\"]");
    route.proxy.signal(rustix::process::Signal::HUP);
    eventually("the new list holds", || {
        route.get("X-Test-Peer: 203.0.113.9\r\n").status == 403
    });
    let passed =
        route.get("X-Forwarded-For: 203.0.113.7, 192.0.2.1, 10.0.0.9\r\nX-Test-Peer: 2001:db8::5\r\n");
    assert_eq!(passed.status, 200);

    route.rewrite("allow: [203.0.113.0/24], trusted_hops: 2");
    route.proxy.signal(rustix::process::Signal::HUP);
    eventually("the entry before the last one counts", || {
        route
            .get("X-Forwarded-For: 203.0.113.7\r\nX-Test-Peer: 10.0.0.1\r\n")
            .status
            == 200
    });
    for fields in [
        "X-Forwarded-For: 203.0.113.7, 192.0.2.1\r\nX-Test-Peer: 10.0.0.1\r\n",
        "",
    ] {
        route.get(fields).assert_ours(403, "http_request_denied");
    }
}

#[test]
fn users_show_a_password_or_a_token() {
    let auth = "auth: { basic: { partner: env:PASSWORD, other: env:OTHER }, bearer: [env:SPARE, env:TOKEN] }";
    let env = [
        ("PASSWORD", TOKEN),
        ("OTHER", "canary-2f6b-other"),
        ("SPARE", "canary-2f6b-spare"),
        ("TOKEN", TOKEN),
    ];
    let route = BoundRoute::to(
        Origin::http(|wire| {
            if wire.request().is_ok() {
                wire.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            }
        }),
        auth,
        &env,
    );
    let basic = |user: &str, password: &str| {
        let shown = data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes());
        format!("Authorization: Basic {shown}\r\n")
    };
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    for fields in [
        basic("partner", TOKEN),
        bearer(TOKEN),
        bearer("canary-2f6b-spare"),
        bearer(TOKEN).replace("Bearer", "bEARER"),
    ] {
        assert_eq!(route.get(&fields).status, 200, "{fields}");
    }
    assert!(
        !route.app.raw().to_lowercase().contains("authorization"),
        "{}",
        route.app.raw()
    );

    let challenge = |answer: &crate::support::Response| answer.headers.all("www-authenticate").join(" + ");
    let both = "Bearer realm=\"outrider\" + Basic realm=\"outrider\", charset=\"UTF-8\"";
    for (fields, expected) in [
        (String::new(), both),
        (basic("partner", "canary-2f6b-other"), both),
        (basic("other", TOKEN), both),
        (basic("nobody", TOKEN), both),
        (basic("partner", ""), both),
        (basic("partner", TOKEN).replace("Basic ", "Basic"), both),
        (format!("{}{}", basic("partner", TOKEN), bearer(TOKEN)), both),
        ("Authorization: \r\n".to_owned(), both),
        ("Authorization: Digest a=b\r\n".to_owned(), both),
        (
            bearer(&TOKEN[1..]),
            &both.replacen("\"outrider\"", "\"outrider\", error=\"invalid_token\"", 1),
        ),
        (
            bearer(""),
            &both.replacen("\"outrider\"", "\"outrider\", error=\"invalid_token\"", 1),
        ),
    ] {
        let answer = route.get(&fields);
        answer.assert_ours(401, "http_request_denied");
        assert_eq!(challenge(&answer), expected, "{fields}");
    }
    eventually("the log names the user", || {
        route.proxy.log().contains("\"client\":\"partner\"")
    });
    let code = [("destination", "route_service"), ("code", "401")];
    assert_eq!(route.proxy.metric("outrider_requests_total", &code), 11.0);

    // curl asks twice where it is told to choose.
    let url = format!("http://127.0.0.1:{}/", route.router.clear);
    let asked =
        run(curl(["--fail", "--anyauth", "--user", &format!("partner:{TOKEN}"), &url]).env("LANG", "C"));
    asked.succeeded();
}

#[test]
fn authorization_goes_on_where_it_is_meant_for_the_app() {
    for (settings, expected) in [
        (ALLOWED, true),
        ("auth: { bearer: env:TOKEN, forward: true }", true),
        ("auth: { bearer: env:TOKEN }", false),
    ] {
        let route = BoundRoute::to(
            Origin::http(|wire| {
                if wire.request().is_ok() {
                    wire.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
                }
            }),
            settings,
            &[("TOKEN", TOKEN)],
        );
        assert_eq!(
            route.get(&format!("Authorization: Bearer {TOKEN}\r\n")).status,
            200
        );
        assert_eq!(route.app.raw().contains(TOKEN), expected, "{settings}");
    }
}

/// A secret that cannot be read opens nothing.
#[test]
fn a_missing_password_is_nobodys() {
    let route = BoundRoute::to(Origin::plain(), "auth: { basic: { partner: env:ABSENT } }", &[]);
    for shown in ["", "Authorization: Basic cGFydG5lcjo=\r\n"] {
        route.get(shown).assert_ours(401, "http_request_denied");
    }
    eventually("the log says which", || {
        route.proxy.log().contains("route_service.auth.basic.partner")
    });
    assert_eq!(route.app.raw(), "");
}

#[test]
fn a_new_password_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "canary-2f6b-old").unwrap();
    let route = BoundRoute::with(&format!("auth: {{ bearer: \"file:{}\" }}", file.display()));
    let status = |token: &str| route.get(&format!("Authorization: Bearer {token}\r\n")).status;
    assert_eq!((status("canary-2f6b-old"), status("canary-2f6b-new")), (200, 401));
    let fresh = folder.path().join("fresh");
    std::fs::write(&fresh, "canary-2f6b-new").unwrap();
    std::fs::rename(fresh, &file).unwrap();
    eventually("the new token is known", || status("canary-2f6b-new") == 200);
    assert_eq!(status("canary-2f6b-old"), 401);
}

/// A client that guesses is slowed down, and nobody else is.
#[test]
fn each_client_has_its_own_limit() {
    let route = BoundRoute::to(
        Origin::http(|wire| {
            if wire.request().is_ok() {
                wire.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            }
        }),
        "auth: { bearer: env:TOKEN }, rate_limit: 3/h",
        &[("TOKEN", TOKEN)],
    );
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    let from = |peer: &str, fields: &str| route.get(&format!("X-Test-Peer: {peer}\r\n{fields}"));
    let statuses: Vec<_> = (0..3).map(|_| from("203.0.113.7", "").status).collect();
    assert_eq!(statuses, [401; 3]);
    let refused = from(
        "203.0.113.7:81",
        &format!("{right}X-Forwarded-For: 203.0.113.99\r\n"),
    );
    refused.assert_ours(429, "http_request_denied");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1100..=1200).contains(&wait), "{wait}");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"3/h\";q=3;w=3600"));
    assert_eq!(from("203.0.113.8", &right).status, 200);
    let labels = [("destination", "route_service"), ("limit", "3/h")];
    assert_eq!(route.proxy.metric("outrider_limit_refused_total", &labels), 1.0);

    // A reload that does not change the limit forgets nothing.
    route.rewrite("auth: { bearer: env:TOKEN }, rate_limit: 3/h, health: /up");
    route.proxy.signal(rustix::process::Signal::HUP);
    eventually("the reload is done", || {
        route.directly("GET /up HTTP/1.1\r\nHost: a\r\n\r\n").status == 200
    });
    assert_eq!(from("203.0.113.7", &right).status, 429);
}

#[test]
fn the_platform_asks_for_health_without_a_credential() {
    let route = BoundRoute::to(
        Origin::plain(),
        "auth: { bearer: env:TOKEN }",
        &[("TOKEN", TOKEN)],
    );
    let asked = |method: &str, path: &str, more: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}\r\n");
        route.directly(request).status
    };
    assert_eq!(asked("GET", "/healthz", ""), 200);
    for (method, path, more) in [
        ("POST", "/healthz", ""),
        ("GET", "/healthz/", ""),
        ("GET", "/healthz", "X-CF-Proxy-Metadata: m\r\n"),
    ] {
        assert_eq!(asked(method, path, more), 400, "{method} {path} {more}");
    }
    assert_eq!(
        route.proxy.metric("outrider_requests_total", &[("code", "200")]),
        0.0
    );
}

/// The files that a user copies are right as they are.
#[test]
fn the_example_is_sound() {
    let root = env!("CARGO_MANIFEST_DIR");
    let page = std::fs::read_to_string(format!("{root}/docs/route-service.md")).unwrap();
    let yaml = page
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("route-service")).unwrap();
    std::fs::write(folder.path().join("route-service/outrider.yml"), yaml).unwrap();
    let manifest = folder.path().join("manifest.route-service.yml");
    std::fs::copy(format!("{root}/manifest.route-service.yml"), &manifest).unwrap();
    let checked = run(outrider(["check", "--manifest"]).arg(&manifest));
    checked.succeeded();
    assert!(!checked.stderr.contains("there is no"), "{checked:?}");

    let kept = std::fs::read_to_string(&manifest)
        .unwrap()
        .replace("- route-service-users", "");
    std::fs::write(&manifest, kept).unwrap();
    let missed = run(outrider(["check", "--manifest"]).arg(&manifest));
    assert!(
        missed.code() == 1 && missed.stdout.contains("route-service-users"),
        "{missed:?}"
    );
}

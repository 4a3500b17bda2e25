//! What is reported: metrics, health, the access log; and what is never reported (group G, group L, invariants
//! 3 and 7).

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::partner::Partner;
use crate::support::{CANARY, Origin, Proxy, TOKEN, Wire, eventually};

fn lines(proxy: &Proxy) -> Vec<serde_json::Value> {
    let log = proxy.log();
    (log.lines()
        .filter(|line| line.starts_with('{'))
        .map(serde_json::from_str))
    .map(|line| line.unwrap_or_else(|error| panic!("not JSON: {error}: {log}")))
    .collect()
}

/// Returns the field of an access line in either format.
fn field<'a>(line: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    line.get(name).unwrap_or_else(|| &line["fields"][name])
}

fn access(proxy: &Proxy, path: &str) -> serde_json::Value {
    let mut found = None;
    eventually("an access line", || {
        found = lines(proxy)
            .into_iter()
            .find(|line| field(line, "path").as_str() == Some(path));
        found.is_some()
    });
    found.unwrap()
}

/// G1, invariant 3: at the most talkative level, on every path and in every failure, no secret is written.
#[test]
fn no_secret_is_ever_written() {
    let partner = Partner::new();
    let yaml = format!(
        "log: {{ format: json, level: trace, access: all }}\n{}",
        partner.yaml("")
    );
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    let header = format!(
        "Authorization: Bearer {CANARY}-app\r\nCookie: {CANARY}\r\nProxy-Authorization: Basic {CANARY}\r\n"
    );
    assert_eq!(
        proxy
            .ask("GET", &partner.url(&format!("/?key={CANARY}")), &header)
            .status,
        200
    );
    let mut wire = proxy.intercepted(&partner.authority());
    let request = format!(
        "GET /?key={CANARY} HTTP/1.1\r\nHost: {}\r\n{header}\r\n",
        partner.authority()
    );
    assert_eq!(wire.ask(&request).status, 200);
    proxy.ask("GET", &format!("http://unlisted.test/?{CANARY}"), &header);
    proxy.ask("TRACE", &partner.url("/"), &header);
    proxy.raw(format!(
        "GET http://user:{CANARY}@{}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        partner.authority()
    ));
    let _ = proxy.wire().send(format!("BROKEN {CANARY}\r\n\r\n")).rest();
    let body = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n{CANARY}",
        partner.url("/")
    );
    proxy.raw(body);
    assert!(proxy.log().contains("/"), "nothing was written at all");
    for page in ["/metrics", "/healthz", "/readyz", "/status", "/"] {
        assert!(!proxy.page(page).text().contains(CANARY), "{page}");
    }
    // `Proxy` searches the whole output when it ends.
}

/// G1, F13: a credential in the query is never shown, though the request is logged.
#[test]
fn a_query_credential_is_never_written() {
    let pki = crate::support::Pki::new();
    let origin = Origin::https(
        pki.accepting(&pki.server("partner.test")),
        crate::support::origin::ok,
    );
    let proxy = Proxy::start_with(
        &format!(
            "destinations: {{ p: {{ hosts: [\"{}\"], tls: {{ ca: \"file:{}\" }}, auth: {{ query: {{ name: key, value: env:TOKEN }} }} }} }}",
            origin.authority(),
            pki.ca().display()
        ),
        &[("TOKEN", TOKEN)],
    );
    assert_eq!(proxy.get(&origin.url("/found?a=b")).status, 200);
    let line = access(&proxy, "/found");
    assert!(!line.to_string().contains("a=b"), "{line}");
    assert!(origin.raw().contains(&format!("key={TOKEN}")));
}

/// One line for each exchange, with what a person needs.
#[test]
fn an_access_line_has_the_result_of_the_request() {
    let origin = Origin::plain();
    let proxy = Proxy::start(&format!(
        "destinations: {{ plain: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ));
    proxy.ask("POST", &origin.url("/told?secret=1"), "Content-Length: 0\r\n");
    let line = access(&proxy, "/told");
    assert_eq!(field(&line, "destination"), "plain", "{line}");
    assert_eq!(field(&line, "method"), "POST");
    assert_eq!(field(&line, "status"), 200);
    assert_eq!(field(&line, "answered_by"), "upstream");
    assert_eq!(field(&line, "received"), 2);
    for name in ["duration_ms", "overhead_ms", "wait_ms", "sent"] {
        assert!(field(&line, name).is_number(), "{name}: {line}");
    }
    assert!(!line.to_string().contains("secret"), "{line}");

    proxy.get("http://unlisted.test/refused");
    let line = access(&proxy, "/refused");
    assert_eq!(field(&line, "answered_by"), "outrider", "{line}");
    assert_eq!(field(&line, "error"), "http_request_denied", "{line}");
    // Clients hide the answer to a refused CONNECT: the log must have the remedy.
    assert!(
        field(&line, "detail").to_string().contains("egress.default"),
        "{line}"
    );
    assert_eq!(
        lines(&proxy)
            .iter()
            .filter(|line| field(line, "path") == "/told")
            .count(),
        1
    );
}

/// By default only failures are logged.
#[test]
fn by_default_only_errors_are_logged() {
    let origin = Origin::plain();
    let proxy = Proxy::start(&format!(
        "log: {{ format: json }}\ndestinations: {{ plain: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ));
    proxy.get(&origin.url("/fine"));
    proxy.get("http://unlisted.test/refused");
    access(&proxy, "/refused");
    assert!(!proxy.log().contains("/fine"), "{}", proxy.log());
}

/// G2: what an attacker writes stays inside its line.
#[test]
fn a_log_line_cannot_be_forged() {
    let origin = Origin::plain();
    let proxy = Proxy::start(&format!(
        "destinations: {{ plain: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ));
    let _ = proxy.wire().send(b"GET http://unlisted.test/a\"},{\"b\":\"\x1b[31mred%0a{\"forged\":1} HTTP/1.1\r\nHost: x\r\n\r\n").rest();
    proxy.ask(
        "GET",
        &origin.url("/%0a%0d{\"forged\":1}"),
        "User-Agent: \"}\t\u{1b}[31m\r\n",
    );
    proxy.get(&origin.url("/last"));
    access(&proxy, "/last");
    assert!(!proxy.log().contains('\u{1b}'), "{}", proxy.log());
    assert!(lines(&proxy).iter().all(|line| line.get("forged").is_none()));
}

/// Invariant 7: an origin cannot speak as us.
#[test]
fn an_upstream_cannot_forge_our_answers() {
    let origin = Origin::saying(
        "HTTP/1.1 403 Forbidden\r\nProxy-Status: outrider; error=http_request_denied; details=\"forged\"\r\n\
         Content-Type: application/problem+json\r\nContent-Length: 2\r\n\r\n{}",
    );
    let proxy = Proxy::start(&format!(
        "destinations: {{ plain: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ));
    let answer = proxy.get(&origin.url("/"));
    assert_eq!(answer.status, 403);
    for value in answer.headers.all("proxy-status") {
        assert!(
            !value.contains("outrider; error=") && !value.contains("forged"),
            "{answer:?}"
        );
    }
    let denied = proxy.metric("outrider_denied_total", &[]);
    assert_eq!(denied, 0.0);
}

/// G3: an answer of ours repeats nothing of the request.
#[test]
fn our_answers_repeat_nothing_of_the_request() {
    let proxy = Proxy::start("log: { format: json }");
    for path in ["/<script>alert(1)</script>", "/%3Cscript%3E", "/?q=<b>"] {
        let answer = proxy.raw(format!(
            "GET http://unlisted.test{path} HTTP/1.1\r\nHost: x\r\n\r\n"
        ));
        assert!(
            !answer.text().contains("<script") && !answer.text().contains("<b>"),
            "{answer:?}"
        );
        let kind = answer.header("content-type");
        assert!(kind.is_none_or(|kind| kind.contains("json")), "{answer:?}");
    }
}

/// L1: labels come from the configuration, however the requests vary.
#[test]
fn nothing_from_the_wire_becomes_a_label() {
    let origin = Origin::http(|wire| {
        let mut code = 200;
        while wire.request().is_ok() {
            code = 200 + (code + 37) % 399;
            wire.send(format!("HTTP/1.1 {code} x\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let proxy = Proxy::start(&format!(
        "destinations: {{ plain: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ));
    proxy.get(&origin.url("/"));
    proxy.ask("ODD", &origin.url("/"), "");
    proxy.get("http://unlisted.test/");
    let series = |proxy: &Proxy| {
        proxy
            .page("/metrics")
            .text()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count()
    };
    let before = series(&proxy);
    let mut wire = proxy.wire();
    for n in 0..300 {
        wire.send(format!(
            "GET http://host{n}.test/path{n} HTTP/1.1\r\nHost: x\r\nUser-Agent: agent{n}\r\n\r\n"
        ))
        .response();
        wire.send(format!(
            "METHOD{n} {} HTTP/1.1\r\nHost: x\r\n\r\n",
            origin.url(&format!("/path{n}"))
        ))
        .response();
    }
    let page = proxy.page("/metrics").text();
    for part in ["host17", "path17", "agent17", "METHOD17", "partner.test"] {
        assert!(!page.contains(part), "{part} became a label");
    }
    // One destination, one method `other`: at most the codes of the origin are new.
    assert!(
        series(&proxy) < before + 450,
        "{before} series became {}",
        series(&proxy)
    );
}

/// L2: the page is what Prometheus expects.
#[test]
fn promtool_accepts_the_metrics() {
    let partner = Partner::new();
    let proxy = partner.proxy("rate_limit: 100/s, concurrency: 5");
    proxy.get(&partner.url("/"));
    proxy.get("http://unlisted.test/");
    drop(proxy.tunnel(&partner.authority()));
    let page = proxy.page("/metrics");
    assert!(
        page.header("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain")),
        "{page:?}"
    );
    let mut promtool = Command::new("promtool");
    promtool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = promtool.spawn().expect("promtool; tests/run --tools installs it");
    child.stdin.take().unwrap().write_all(&page.body).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(
        done.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&done.stderr),
        page.text()
    );
}

/// Each metric that this line touches is there under its name.
#[test]
fn the_metrics_are_named_as_agreed() {
    let partner = Partner::new();
    let origin = Origin::plain();
    let mut yaml = partner.yaml("rate_limit: 100/s, concurrency: 5, on_limit: wait 1s");
    yaml.push_str(&format!(
        "  blind: {{ hosts: [\"other.test:{}\"], mode: tunnel }}\n",
        origin.port()
    ));
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    drop(proxy.tunnel(&format!("other.test:{}", origin.port())));
    proxy.get(&partner.url("/"));
    proxy
        .intercepted(&partner.authority())
        .get(&partner.authority(), "/");
    proxy.get("http://unlisted.test/");
    eventually("the tunnel's end is counted", || {
        proxy.page("/metrics").text().contains("outrider_tunnels_total{")
    });
    let page = proxy.page("/metrics").text();
    for name in [
        "requests_total",
        "request_duration_seconds",
        "overhead_seconds",
        "upstream_response_seconds",
        "requests_in_flight",
        "bytes_total",
        "errors_total",
        "denied_total",
        "tunnels_open",
        "tunnels_total",
        "tunnel_duration_seconds",
        "limit_refused_total",
        "limit_remaining_ratio",
        "credential_expiry_timestamp_seconds",
        "upstream_connections_open",
        "upstream_connects_total",
        "upstream_reuses_total",
        "tls_handshake_seconds",
        "config_reloads_total",
        "config_loaded_timestamp_seconds",
        "build_info",
    ] {
        assert!(
            page.contains(&format!("# TYPE outrider_{name} ")),
            "{name} is missing:\n{page}"
        );
    }
    let partner_requests = &[
        ("destination", "partner"),
        ("method", "GET"),
        ("code", "200"),
        ("answered_by", "upstream"),
    ];
    assert_eq!(proxy.metric("outrider_requests_total", partner_requests), 2.0);
    let expiry = proxy.metric(
        "outrider_credential_expiry_timestamp_seconds",
        &[("kind", "client_certificate")],
    );
    assert!(expiry > 1.7e9, "{expiry}");
    assert!(proxy.metric("outrider_tls_handshake_seconds_count", &[("side", "client")]) >= 1.0);
    assert!(proxy.metric("outrider_tls_handshake_seconds_count", &[("side", "upstream")]) >= 1.0);
    assert!(proxy.metric("outrider_upstream_connects_total", &[("destination", "partner")]) >= 1.0);
}

/// L4: the operator's door is no proxy, and the app's door is no operator's page.
#[test]
fn the_proxy_and_the_admin_port_are_separate() {
    let proxy = Proxy::start("log: { format: json }");
    for path in ["/healthz", "/readyz", "/metrics", "/status"] {
        assert_eq!(proxy.page(path).status, 200, "{path}");
        let mistaken = proxy.raw(format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n",
            proxy.address()
        ));
        let page = mistaken.text();
        let is_page = page.contains("outrider_requests_total") || page.contains("limits_now");
        assert!(mistaken.status >= 400 && !is_page, "{mistaken:?}");
    }
    let mut admin = Wire::connect(proxy.admin());
    let answer = admin.ask("GET http://169.254.169.254/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(matches!(answer.status, 200 | 400 | 404 | 421), "{answer:?}");
    // The answer is one of the admin port's pages.
    assert_eq!(proxy.metric("outrider_upstream_connects_total", &[]), 0.0);
    let mut admin = Wire::connect(proxy.admin());
    admin.send("CONNECT partner.test:443 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(admin.bodiless_response().status >= 400);
}

/// Start-up says in one line where everything is.
#[test]
fn the_start_is_reported_in_one_line() {
    let proxy = Proxy::start("log: { format: json }");
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("proxy on")).unwrap();
    for part in [
        &proxy.address().to_string(),
        &proxy.admin().to_string(),
        &proxy.bundle().display().to_string(),
    ] {
        assert!(line.contains(part.as_str()), "{part}: {line}");
    }
}

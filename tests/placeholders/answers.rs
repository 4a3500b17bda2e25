//! What comes back, what is kept, and what changes while an app runs.

use super::{BEARER, KEY, KEY_IN_JSON, Scene, assert_refused, assigned};
use crate::support::h2_origin::H2Partner;
use crate::support::origin::ok;
use crate::support::programs::curl;
use crate::support::{Origin, Pki, Proxy, Wire, eventually, leak, run};

/// Answers each request with all of it, and with what came before.
fn echo() -> impl Fn(&mut Wire) + Send + Sync + 'static {
    let last = std::sync::Mutex::new(String::new());
    move |wire| {
        while let Ok(request) = wire.request() {
            let mut last = last.lock().unwrap();
            let headers: Vec<_> = request
                .headers
                .0
                .iter()
                .map(|(name, value)| format!("{name}: {value}"))
                .collect();
            let now = format!(
                "{} {} {}",
                request.line,
                headers.join(" "),
                String::from_utf8_lossy(&request.body)
            );
            let body = format!("{now}\nbefore: {last}");
            let length = body.len();
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Echo: {now}\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
            *last = now;
        }
    }
}

#[test]
fn an_echo_does_not_bring_the_secret_back() {
    let mode = "placeholders: { mode: always }";
    let scene = Scene::with(BEARER, mode, echo());
    let own = scene.own();
    let pair = data_encoding::BASE64.encode(format!("app:{own}").as_bytes());
    for answer in [
        scene.ask("GET", "/", &format!("Authorization: Bearer {own}\r\n")),
        // What a service keeps, it may show later.
        scene.ask("GET", "/", ""),
        scene.ask("GET", "/", &format!("Authorization: Basic {pair}\r\n")),
        scene.ask(
            "GET",
            &format!("/?key={own}"),
            "Accept-Encoding: gzip\r\nRange: bytes=0-9\r\n",
        ),
        scene.ask("GET", "/", ""),
        scene.post(
            "Content-Type: application/json\r\n",
            format!("{{\"key\":\"{own}\"}}"),
        ),
        scene.post(
            "Content-Type: application/x-www-form-urlencoded\r\n",
            format!("key={own}"),
        ),
        // Attached without a placeholder.
        scene.ask("GET", "/attached/x", ""),
        scene.ask("GET", "/", ""),
    ] {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told = format!("{:?} {}", answer.headers, answer.text());
        assert_eq!(leak(&told), None, "{told}");
        assert!(!told.to_lowercase().contains("range: bytes"), "{told}");
    }
    // A destination that says so keeps its bodies.
    let scene = Scene::with(&format!("{BEARER}, scrub: false"), mode, echo());
    let answer = scene.ask("GET", "/", &format!("X: {}\r\nRange: bytes=0-9\r\n", scene.own()));
    assert!(
        answer.text().to_lowercase().contains("range: bytes=0-9"),
        "{}",
        answer.text()
    );
    assert_eq!(leak(&format!("{:?}", answer.headers)), None);
}

#[test]
fn odd_requests_are_treated_alike() {
    let scene = Scene::new(BEARER);
    let own = scene.own();
    let (url, authority) = (scene.partner.url("/"), scene.partner.authority());
    // HTTP/1.0, whose app speaks of no Host.
    let answer = scene
        .proxy
        .raw(format!("GET {url} HTTP/1.0\r\nX-A: {own}\r\n\r\n"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(scene.partner.raw().contains(&format!("x-a: {KEY}\r\n")));
    // OPTIONS carries no credential, so the placeholder stays; TRACE is answered by nobody.
    assert_eq!(scene.ask("OPTIONS", "/", &format!("X-B: {own}\r\n")).status, 200);
    assert!(scene.partner.raw().contains(&format!("x-b: {own}\r\n")));
    let head = format!("OPTIONS {url} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n");
    let with_body = |text: &str| {
        scene
            .proxy
            .raw(format!("{head}Content-Length: {}\r\n\r\n{text}", text.len()))
    };
    assert_eq!(with_body(&format!("body={own}")).status, 200);
    assert!(scene.partner.raw().contains(&format!("body={own}")));
    assert_refused(&with_body(scene.foreign()), &scene, "env:OTHER");
    assert_eq!(scene.ask("TRACE", "/", &format!("X-C: {own}\r\n")).status, 405);
    // The handshake of a WebSocket.
    scene.proxy.raw(format!(
        "GET {url} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nX-D: {own}\r\n\r\n"
    ));
    assert!(
        scene.partner.raw().contains(&format!("x-d: {KEY}\r\n")),
        "{}",
        scene.partner.raw()
    );
    // A field that leaves us anyway carries nothing away.
    let answer = scene.ask(
        "GET",
        "/",
        &format!("Connection: X-E\r\nX-E: {}\r\n", scene.foreign()),
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    // Compressed: it is not seen, and passes as it is.
    let fields = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    assert_eq!(scene.post(fields, own).status, 200);
}

#[test]
fn a_redirect_does_not_carry_the_placeholder_to_another_host() {
    let place = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let told = std::sync::Arc::clone(&place);
    let scene = Scene::with(BEARER, "placeholders: { mode: always }", move |wire| {
        while wire.request().is_ok() {
            let place = told.lock().unwrap();
            wire.send(format!(
                "HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"
            ));
        }
    });
    *place.lock().unwrap() = format!("http://other.test:{}/", scene.other.port());
    let proxy = format!("http://{}", scene.proxy.address());
    let field = format!("X-Api-Key: {}", scene.own());
    let output = run(&mut curl([
        "--location",
        "--proxy",
        &proxy,
        "-H",
        &field,
        &scene.partner.url("/"),
    ]));
    assert!(output.stdout.contains("\"reason\":\"placeholder\""), "{output:?}");
    assert!(scene.partner.raw().contains(&format!("x-api-key: {KEY}")));
    assert!(scene.other.raw().is_empty());
}

#[test]
fn secrets_do_not_leave_in_clear() {
    let pki = Pki::new();
    let clear = Origin::plain();
    // Its certificate is the only use of a secret, and what it speaks is http.
    let client = pki.client("app");
    let yaml = format!(
        "destinations: {{ p: {{ hosts: [\"{}\"], upgrade: false, tls: {{ client_certificate: {{ cert: \"file:{}\", key: env:KEY }} }} }}, \
         q: {{ hosts: [\"other.test:{}\"], upgrade: false, auth: {{ bearer: env:OWN }} }} }}\nplaceholders: {{ mode: always }}\n",
        clear.authority(),
        client.cert_path.display(),
        clear.port(),
    );
    let key = std::fs::read_to_string(&client.key_path).unwrap();
    let proxy = Proxy::start_with(&yaml, &[("KEY", &key), ("OWN", KEY)]);
    let texts = assigned(&proxy);
    let ask = |url: &str, text: &str| proxy.ask("GET", url, &format!("X: {text}\r\n")).text();
    let told = ask(&clear.url("/"), &texts["env:KEY"]);
    assert!(told.contains("is never sent"), "{told}");
    let told = ask(&format!("http://other.test:{}/", clear.port()), &texts["env:OWN"]);
    assert!(told.contains("\"reason\":\"plaintext\""), "{told}");
    assert!(clear.raw().is_empty());
}

#[test]
fn over_http_2_fields_and_bodies_are_replaced() {
    let partner = H2Partner::new();
    let yaml = partner.yaml_with("[{ match: { path: /attached }, bearer: env:TOKEN }]")
        + "placeholders: { mode: always }\n";
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", KEY)]);
    let own = &assigned(&proxy)["env:TOKEN"];
    let (address, bundle) = (
        format!("http://{}", proxy.address()),
        proxy.bundle().display().to_string(),
    );
    let (url, field) = (
        format!("https://{}/x?k={own}", partner.authority()),
        format!("X-Api-Key: {own}"),
    );
    let json = format!("{{\"key\":\"{own}\"}}");
    for more in [&[][..], &["-H", "Transfer-Encoding: chunked"]] {
        let sent = run(curl([
            "--http2",
            "--proxy",
            &address,
            "--cacert",
            &bundle,
            "-H",
            &field,
            "-H",
            "Content-Type: application/json",
            "--data",
            &json,
            "--write-out",
            " %{http_version} %{http_code}",
            &url,
        ])
        .args(more));
        assert!(sent.stdout.ends_with(" 2 200"), "{sent:?}");
    }
    let asked = partner.requests();
    for request in &asked {
        assert_eq!(request.headers.get("x-api-key"), Some(KEY));
        assert_eq!(request.target(), "/x?k=canary-2f6b-own%2Bkey%2F%221%22");
        assert_eq!(
            String::from_utf8_lossy(&request.body),
            format!("{{\"key\":\"{KEY_IN_JSON}\"}}")
        );
    }
    assert_eq!(asked.len(), 2);
}

#[test]
fn a_rotated_secret_and_a_reload_are_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("services");
    let write = |key: &str| {
        let text = format!("{{\"x\":[{{\"name\":\"s\",\"credentials\":{{\"key\":\"{key}\"}}}}]}}");
        std::fs::write(folder.path().join("new"), text).unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
    };
    write("canary-2f6b-first");
    let pki = Pki::new();
    let partner = Origin::https(pki.accepting(&pki.server("partner.test")), ok);
    let yaml = |more: &str| {
        format!(
            "destinations: {{ p: {{ hosts: [\"{}\"], tls: {{ ca: \"file:{}\" }}, auth: [{{ match: {{ path: /a }}, bearer: vcap:s/key }}{more}] }} }}\n\
             placeholders: {{ mode: always }}\n",
            partner.authority(),
            pki.ca().display()
        )
    };
    let services = file.display().to_string();
    let proxy = Proxy::start_with(
        &yaml(""),
        &[
            ("VCAP_SERVICES_FILE_PATH", &services),
            ("LATE", "canary-2f6b-late"),
        ],
    );
    let first = assigned(&proxy);
    let ask = |name: &str, text: &str| proxy.ask("GET", &partner.url("/"), &format!("{name}: {text}\r\n"));
    assert_eq!(ask("X-A", &first["vcap:s/key"]).status, 200);
    assert!(partner.raw().contains("x-a: canary-2f6b-first\r\n"));
    write("canary-2f6b-second");
    eventually("the new secret is sent", || {
        ask("X-A", &first["vcap:s/key"]);
        partner.raw().contains("x-a: canary-2f6b-second\r\n")
    });
    assert!(!first.contains_key("env:LATE"));
    proxy.rewrite(&yaml(", { match: { path: /b }, bearer: env:LATE }"));
    eventually("a reload adds one", || assigned(&proxy).contains_key("env:LATE"));
    let all = assigned(&proxy);
    assert_eq!(all["vcap:s/key"], first["vcap:s/key"], "an app has it already");
    eventually("it is replaced", || {
        ask("X-B", &all["env:LATE"]);
        partner.raw().contains("x-b: canary-2f6b-late\r\n")
    });
}

#[test]
fn a_cached_answer_for_one_serves_no_other() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let scene = Scene::with(
        &format!("{BEARER}, cache: {{ size: 1MiB }}"),
        "placeholders: { mode: always }",
        move |wire| {
            while wire.request().is_ok() {
                let number = count
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed)
                    .to_string();
                let length = number.len();
                wire.send(format!(
                    "HTTP/1.1 200 OK\r\nCache-Control: public, max-age=60\r\nContent-Length: {length}\r\n\r\n{number}"
                ));
            }
        },
    );
    let own = scene.own();
    let ask = |target: &str, fields: &str| scene.ask("GET", target, fields).text();
    let field = format!("X-Api-Key: {own}\r\n");
    assert_eq!(
        [ask("/", ""), ask("/", &field), ask("/", ""), ask("/", &field)],
        ["0", "1", "0", "1"]
    );
    let query = format!("/?key={own}");
    assert_eq!(
        [ask(&query, ""), ask("/?key=x", ""), ask(&query, "")],
        ["2", "3", "2"]
    );
    // One that is stored is not given for a request that is refused.
    let foreign = format!("X-Api-Key: {}\r\n", scene.foreign());
    assert_refused(&scene.ask("GET", "/", &foreign), &scene, "env:OTHER");
}

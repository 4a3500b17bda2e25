//! Group F: the right secret to the right destination, and to nobody else (invariants 2, 4 and 5).

use rustix::process::Signal;

use crate::support::h2;
use crate::support::h2_origin::H2Partner;
use crate::support::partner::{Partner, destination};
use crate::support::pki::trusting;
use crate::support::{CANARY, Origin, Pki, Proxy, TOKEN, eventually};

/// F1, invariant 4: inside a tunnel only the tunnel's own host can be asked for.
#[test]
fn a_host_that_differs_from_connect_is_misdirected() {
    let partner = Partner::new();
    let proxy = partner.proxy("");
    let authority = partner.authority();
    for (name, request) in [
        (
            "another Host",
            "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n".to_owned(),
        ),
        (
            "another port",
            "GET / HTTP/1.1\r\nHost: partner.test:1\r\n\r\n".to_owned(),
        ),
        (
            "absolute target",
            format!("GET https://other.test/ HTTP/1.1\r\nHost: {authority}\r\n\r\n"),
        ),
        (
            "a suffix",
            format!("GET / HTTP/1.1\r\nHost: {authority}.evil.test\r\n\r\n"),
        ),
        ("user", format!("GET / HTTP/1.1\r\nHost: x@{authority}\r\n\r\n")),
        ("no Host", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (
            "two Hosts",
            format!("GET / HTTP/1.1\r\nHost: {authority}\r\nHost: other.test\r\n\r\n"),
        ),
        (
            "no path",
            format!("GET {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"),
        ),
        (
            "nested CONNECT",
            format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"),
        ),
    ] {
        let answer = proxy.intercepted(&authority).ask(request);
        assert!(matches!(answer.status, 400 | 405 | 421), "{name}: {answer:?}");
        if name == "another Host" {
            answer.assert_ours(421, "http_request_denied");
        }
    }
    assert_eq!(partner.origin.raw(), "", "something was forwarded");
}

/// F1: the same in HTTP/2, where the name is in `:authority`.
#[test]
fn an_authority_that_differs_from_connect_is_misdirected() {
    let partner = H2Partner::new();
    let proxy = partner.proxy("");
    for authority in ["other.test", "partner.test", "partner.test:1", ""] {
        let mut wire = proxy.intercepted_as(&partner.authority(), &["h2"]);
        h2::greet(&mut wire);
        wire.send(h2::frame(
            h2::HEADERS,
            h2::END_HEADERS | h2::END_STREAM,
            1,
            &h2::get(authority, "/"),
        ));
        let outcome = h2::outcome(&mut wire, 1);
        assert!(
            matches!(outcome, Some(400 | 421) | None),
            "{authority}: {outcome:?}"
        );
    }
    assert!(partner.asked().is_empty(), "{:?}", partner.asked());
}

/// F2, invariant 4: TLS for another name than the tunnel's is not accepted.
#[test]
fn a_server_name_that_differs_from_connect_is_refused() {
    let partner = Partner::new();
    let proxy = partner.proxy("");
    let config = trusting(&proxy.bundle(), &[]);
    for name in ["other.test", "a.partner.test", "partner.test.evil.test"] {
        match proxy.tunnel(&partner.authority()).tls(name, &config) {
            Err(_) => {}
            Ok(mut wire) => {
                assert_eq!(wire.get(name, "/").status, 421, "{name}");
                assert_eq!(wire.get(&partner.authority(), "/").status, 421, "{name}");
            }
        }
    }
    assert_eq!(partner.origin.raw(), "");
    assert!(
        partner
            .origin
            .seen()
            .iter()
            .all(|seen| seen.sni.as_deref() != Some("other.test"))
    );
}

/// F3, invariant 2: no credential on a clear wire, unless the configuration says so in words that frighten.
#[test]
fn no_credential_leaves_in_clear() {
    let origin = Origin::plain();
    let authority = origin.authority();
    let yaml = |more: &str| {
        format!(
            "destinations: {{ clear: {{ hosts: [\"{authority}\"], auth: {{ bearer: env:TOKEN }}, upgrade: false{more} }} }}"
        )
    };
    let careful = Proxy::start_with(&yaml(""), &[("TOKEN", TOKEN)]);
    careful
        .get(&origin.url("/"))
        .assert_ours(403, "http_request_denied");
    assert_eq!(origin.seen().len(), 0);

    let reckless = Proxy::start_with(&yaml(", insecure_attach_over_http: true"), &[("TOKEN", TOKEN)]);
    assert_eq!(reckless.get(&origin.url("/")).status, 200);
    assert!(
        origin
            .raw()
            .to_lowercase()
            .contains(&format!("authorization: bearer {TOKEN}"))
    );
}

/// F3: an origin that does not prove who it is gets not one byte of a request.
#[test]
fn no_credential_leaves_before_the_origin_is_verified() {
    let stranger = Pki::named("somebody else");
    let origin = Origin::https(
        stranger.accepting(&stranger.server("partner.test")),
        crate::support::origin::ok,
    );
    let pki = Pki::new();
    let yaml = destination(&pki, &pki.client("app"), &origin.authority(), "");
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    proxy
        .get(&origin.url("/"))
        .assert_ours(502, "tls_certificate_error");
    let answer = proxy.raw(format!(
        "GET https://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n",
        origin.authority()
    ));
    answer.assert_ours(502, "tls_certificate_error");
    assert_eq!(origin.raw(), "");

    // A clear-text listener behind an upgraded destination sees a TLS hello and nothing else.
    let clear = Origin::http(|wire| {
        let _ = wire.read_exact(1 << 16);
    });
    let yaml = destination(
        &pki,
        &pki.client("app"),
        &clear.authority(),
        "timeouts: { tls: 1s }",
    );
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    assert!(proxy.get(&clear.url("/")).status >= 502);
    assert!(!clear.raw().contains("GET") && !clear.raw().contains(CANARY));
}

/// F4: what an origin would send back is not attached.
#[test]
fn trace_gets_no_credential_and_neither_does_options() {
    let partner = Partner::new();
    let proxy = partner.proxy("");
    assert_eq!(proxy.ask("TRACE", &partner.url("/"), "").status, 405);
    let mut wire = proxy.intercepted(&partner.authority());
    let trace = wire.ask(format!(
        "TRACE / HTTP/1.1\r\nHost: {}\r\n\r\n",
        partner.authority()
    ));
    assert_eq!(trace.status, 405);
    assert_eq!(partner.origin.raw(), "");

    assert_eq!(proxy.ask("OPTIONS", &partner.url("/"), "").status, 200);
    let raw = partner.origin.raw();
    assert!(!raw.contains(TOKEN), "OPTIONS carried the credential: {raw}");
    let asked = partner.proxy("methods: [GET, OPTIONS]");
    assert_eq!(asked.ask("OPTIONS", &partner.url("/"), "").status, 200);
    assert!(
        partner.origin.raw().contains(TOKEN),
        "OPTIONS is named and carried no credential"
    );
}

/// F5, B9: a redirect is the app's to follow, and the second request is judged alone.
#[test]
fn a_redirect_takes_no_credential_along() {
    let elsewhere = Origin::plain();
    let location = format!("http://other.test:{}/landing", elsewhere.port());
    let redirect = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    let partner = Partner::with(move |wire| {
        while wire.request().is_ok() {
            wire.send(&redirect);
        }
    });
    let mut yaml = partner.yaml("");
    yaml.push_str(&format!(
        "  elsewhere: {{ hosts: [\"other.test:{}\"] }}\n",
        elsewhere.port()
    ));
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);

    let answer = proxy.get(&partner.url("/"));
    assert_eq!(
        (answer.status, answer.header("location")),
        (302, Some(location.as_str()))
    );
    assert_eq!(elsewhere.seen().len(), 0, "the proxy followed");

    assert_eq!(
        proxy
            .ask("GET", &location, "Authorization: Bearer mine\r\n")
            .status,
        200
    );
    let raw = elsewhere.raw().to_lowercase();
    assert!(
        !raw.contains(TOKEN) && raw.matches("authorization:").count() == 1,
        "{raw}"
    );
}

/// F6: the app's word to the proxy is not for the origin, on any path.
#[test]
fn proxy_authorization_stays_here() {
    let partner = Partner::new();
    let proxy = partner.proxy("");
    let line = format!("Proxy-Authorization: Basic {CANARY}\r\nPROXY-AUTHORIZATION: x{CANARY}\r\n");
    assert_eq!(proxy.ask("GET", &partner.url("/"), &line).status, 200);
    let mut wire = proxy.intercepted(&partner.authority());
    assert_eq!(
        wire.ask(format!(
            "GET / HTTP/1.1\r\nHost: {}\r\n{line}\r\n",
            partner.authority()
        ))
        .status,
        200
    );
    let raw = partner.origin.raw().to_lowercase();
    assert_eq!(raw.matches("get / ").count(), 2);
    assert!(
        !raw.contains("proxy-authorization") && !raw.replace(TOKEN, "").contains(CANARY),
        "{raw}"
    );
}

/// F7: exactly one credential at the origin, and it is ours.
#[test]
fn the_apps_own_values_are_replaced() {
    let partner = Partner::new();
    let proxy = partner.proxy("headers: { set: { X-Agency: \"047\" }, remove: [X-Internal-*] }");
    let lines = "Authorization: Bearer one\r\nauthorization: Bearer two\r\nX-Agency: 1\r\nx-agency: 2\r\n\
                 X-Internal-Id: 3\r\nx-internal-: 4\r\nX-Inside: 5\r\n";
    assert_eq!(proxy.ask("GET", &partner.url("/"), lines).status, 200);
    let raw = partner.origin.raw().to_lowercase();
    assert_eq!(raw.matches("authorization:").count(), 1, "{raw}");
    assert_eq!(
        raw.matches("x-agency: 047\r\n").count(),
        raw.matches("x-agency").count(),
        "{raw}"
    );
    assert!(
        raw.contains(&format!("authorization: bearer {TOKEN}\r\n")),
        "{raw}"
    );
    assert!(
        !raw.contains("x-internal") && raw.contains("x-inside: 5"),
        "{raw}"
    );
}

/// Each kind of credential stands where it belongs.
#[test]
fn every_kind_of_credential_is_attached() {
    for (auth, expected) in [
        ("bearer: env:TOKEN", format!("authorization: Bearer {TOKEN}\r\n")),
        (
            "header: { name: X-Api-Key, value: env:TOKEN }",
            format!("x-api-key: {TOKEN}\r\n"),
        ),
        // base64 of app:canary-2f6b-bearer-token
        (
            "basic: { username: app, password: env:TOKEN }",
            "authorization: Basic YXBwOmNhbmFyeS0yZjZiLWJlYXJlci10b2tlbg==\r\n".into(),
        ),
        (
            "query: { name: api_key, value: env:TOKEN }",
            format!("GET /x?y=1&api_key={TOKEN} HTTP/1.1\r\n"),
        ),
    ] {
        let pki = Pki::new();
        let origin = Origin::https(
            pki.accepting(&pki.server("partner.test")),
            crate::support::origin::ok,
        );
        let proxy = Proxy::start_with(
            &format!(
                "destinations: {{ p: {{ hosts: [\"{}\"], tls: {{ ca: \"file:{}\" }}, auth: {{ {auth} }} }} }}",
                origin.authority(),
                pki.ca().display()
            ),
            &[("TOKEN", TOKEN)],
        );
        assert_eq!(proxy.get(&origin.url("/x?y=1")).status, 200, "{auth}");
        let raw = origin.raw();
        assert!(
            raw.to_lowercase().contains(&expected.to_lowercase()),
            "{auth}: {raw}"
        );
    }
}

/// A credential of a bound service, by instance name, binding name or tag, as the platform hands it over.
#[test]
fn credentials_of_bound_services_are_found() {
    let services = format!(
        r#"{{ "user-provided": [{{ "name": "weather", "binding_name": "sky", "tags": ["forecast"],
            "credentials": {{ "api": {{ "token": "{TOKEN}" }} }} }}] }}"#
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vcap.json");
    std::fs::write(&file, &services).unwrap();
    let by_file = file.display().to_string();
    for (service, variable) in [
        ("weather", ("VCAP_SERVICES", services.as_str())),
        ("sky", ("VCAP_SERVICES", services.as_str())),
        ("forecast", ("VCAP_SERVICES_FILE_PATH", by_file.as_str())),
    ] {
        let pki = Pki::new();
        let origin = Origin::https(
            pki.accepting(&pki.server("partner.test")),
            crate::support::origin::ok,
        );
        let proxy = Proxy::start_with(
            &format!(
                "destinations: {{ p: {{ hosts: [\"{}\"], tls: {{ ca: \"file:{}\" }}, auth: {{ bearer: vcap:{service}/api/token }} }} }}",
                origin.authority(),
                pki.ca().display()
            ),
            &[variable],
        );
        assert_eq!(proxy.get(&origin.url("/")).status, 200, "{service}");
        assert!(origin.raw().contains(TOKEN), "{service}: {}", origin.raw());
    }
}

/// F8: a file's last newline is no part of a secret; any other control byte makes it none.
#[test]
fn secrets_are_trimmed_and_never_split_a_header() {
    let pki = Pki::new();
    let secret = pki.folder().join("token");
    let origin = Origin::https(
        pki.accepting(&pki.server("partner.test")),
        crate::support::origin::ok,
    );
    let yaml = format!(
        "destinations: {{ p: {{ hosts: [\"{}\"], tls: {{ ca: \"file:{}\" }}, auth: {{ bearer: \"file:{}\" }} }} }}",
        origin.authority(),
        pki.ca().display(),
        secret.display()
    );
    std::fs::write(&secret, format!("{TOKEN}\r\n")).unwrap();
    let proxy = Proxy::start(&yaml);
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    assert!(
        origin
            .raw()
            .to_lowercase()
            .contains(&format!("authorization: bearer {TOKEN}\r\n")),
        "{}",
        origin.raw()
    );

    for bad in [
        format!("{TOKEN}\r\nX-Evil: 1"),
        format!("{TOKEN}\nX-Evil: 1"),
        format!("{TOKEN}\0x"),
        format!("{TOKEN}\u{e9}"),
    ] {
        std::fs::write(&secret, &bad).unwrap();
        let before = origin.raw().len();
        proxy.signal(Signal::HUP);
        eventually("the reload is refused", || proxy.log().contains("token"));
        // The old one stays.
        assert_eq!(proxy.get(&origin.url("/again")).status, 200, "{bad:?}");
        let after = origin.raw().split_off(before).to_lowercase();
        assert!(
            after.contains(&format!("authorization: bearer {TOKEN}\r\n")) && !after.contains("x-evil"),
            "{after}"
        );
    }
}

/// F9, invariant 6: without its credential a request does not leave.
#[test]
fn a_missing_secret_fails_closed() {
    let partner = Partner::new();
    let yaml = partner.yaml("");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrider.yml");
    std::fs::write(&file, crate::support::proxy::configuration(&yaml, folder.path())).unwrap();
    // Either the program refuses to start, or the request is refused; it never leaves bare.
    let mut command = crate::support::programs::outrider(["exec", "--config"]);
    command.arg(&file).args([
        "--",
        "curl",
        "-s",
        "-m",
        "10",
        "-w",
        "%{http_code}",
        &partner.url("/"),
    ]);
    let run = crate::support::run(&mut command);
    assert!(!run.stdout.ends_with("200"), "{run:?}");
    assert!(
        format!("{}{}", run.stdout, run.stderr).contains("TOKEN"),
        "does not name what is missing: {run:?}"
    );
    assert_eq!(partner.origin.raw(), "");
}

/// F10, F11, invariant 5: two identities to one address never share a connection or a session.
#[test]
fn identities_share_neither_connection_nor_session() {
    let pki = Pki::new();
    let server = pki.issue(
        "both",
        crate::support::pki::server_params(&["partner.test", "other.test"]),
    );
    let mut config = pki.demanding(&server);
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Closes after each answer, so that every request needs a handshake and could resume.
    let origin = Origin::https(config, |wire| {
        if wire.request().is_ok() {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    });
    let port = origin.port();
    let (ca, a, b) = (pki.ca().display().to_string(), pki.client("a"), pki.client("b"));
    let proxy = Proxy::start(&format!(
        r#"
        destinations:
          a: {{ hosts: ["partner.test:{port}"], tls: {{ ca: "file:{ca}", client_certificate: {} }} }}
          b: {{ hosts: ["other.test:{port}"], tls: {{ ca: "file:{ca}", client_certificate: {} }} }}
        "#,
        a.yaml(),
        b.yaml()
    ));
    for n in 0..6 {
        assert_eq!(proxy.get(&format!("http://partner.test:{port}/a{n}")).status, 200);
        assert_eq!(proxy.get(&format!("http://other.test:{port}/b{n}")).status, 200);
    }
    for seen in origin.seen() {
        let text = String::from_utf8_lossy(&seen.bytes).into_owned();
        let client = seen.client.map(|(name, _)| name);
        let (own, name) = if text.starts_with("GET /a") {
            ("a", "partner.test")
        } else {
            ("b", "other.test")
        };
        assert_eq!(client.as_deref(), Some(own), "{text}");
        assert_eq!(seen.sni.as_deref(), Some(name));
    }
}

/// F10, F11, K3, invariant 5: after a rotation nothing old is used for anything new.
#[test]
fn a_new_identity_uses_no_connection_and_no_session_of_the_old() {
    let partner = Partner::new();
    let proxy = partner.proxy("");
    let mut wire = proxy.intercepted(&partner.authority());
    for _ in 0..3 {
        assert_eq!(wire.get(&partner.authority(), "/old").status, 200);
    }
    let fresh = partner.pki.client("rotated");
    let reloads = proxy.metric("outrider_config_reloads_total", &[("result", "done")]);
    proxy.rewrite(&destination(&partner.pki, &fresh, &partner.authority(), ""));
    proxy.signal(Signal::HUP);
    eventually("the reload", || {
        proxy.metric("outrider_config_reloads_total", &[("result", "done")]) > reloads
    });

    assert_eq!(proxy.get(&partner.url("/new")).status, 200);
    // The tunnel that stands takes the new identity, too.
    assert_eq!(wire.get(&partner.authority(), "/new").status, 200);

    let seen = partner.origin.seen();
    for connection in &seen {
        let text = String::from_utf8_lossy(&connection.bytes).into_owned();
        let client = connection.client.as_ref().map(|(name, _)| name.as_str());
        assert_eq!(
            client,
            Some(if text.contains("/new") { "rotated" } else { "app" }),
            "{text}"
        );
        assert!(
            !(text.contains("/new") && text.contains("/old")),
            "shared: {text}"
        );
    }
    let mut new = seen
        .iter()
        .filter(|connection| String::from_utf8_lossy(&connection.bytes).contains("/new"));
    assert!(
        !new.next().unwrap().resumed,
        "a session of the old identity was resumed"
    );
}

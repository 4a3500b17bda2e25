//! J15: parent proxies that a test plays: what they get, what they may do to us, and what never goes around them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use crate::support::origin::ok;
use crate::support::proxy::destination;
use crate::support::{CANARY, Origin, Pki, Proxy, Wire, closed_port, leak};

/// A parent that opens each tunnel to the origin at `port`, whatever it was asked for.
pub(crate) fn opening(port: u16, answer: &'static str) -> Origin {
    Origin::http(move |wire| open(wire, port, answer))
}

fn open(wire: &mut Wire, port: u16, answer: &str) {
    let Ok(request) = wire.request() else { return };
    if !request.line.starts_with("CONNECT ") {
        let target = TcpStream::connect(("127.0.0.1", port)).unwrap();
        drop(target);
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nforwarded");
        return ok(wire);
    }
    wire.send(answer);
    let mut target = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // One request, one answer: enough for a tunnel of the tests.
    let Ok(request) = wire.request_head() else { return };
    let fields: String = request
        .headers
        .0
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    write!(target, "{}\r\n{fields}\r\n", request.line).unwrap();
    let mut buffer = [0; 4096];
    let read = target.read(&mut buffer).unwrap_or(0);
    wire.send(&buffer[..read]);
}

pub(crate) fn url(parent: &Origin) -> String {
    format!("http://app:{CANARY}-parent@127.0.0.1:{}", parent.port())
}

/// Starts with `egress.parent: env:PARENT` and these destinations.
#[track_caller]
fn behind(parents: &[String], more: &str, destinations: &str) -> Proxy {
    let names = ["ONE", "TWO"];
    let references: Vec<_> = names
        .iter()
        .take(parents.len())
        .map(|name| format!("\"env:{name}\""))
        .collect();
    let config = format!(
        "egress: {{ allow_networks: [loopback], parent: [{}], {more} }}\ntimeouts: {{ connect: 2s, tls: 2s }}\n{destinations}",
        references.join(", ")
    );
    let variables: Vec<_> = names
        .iter()
        .copied()
        .zip(parents.iter().map(String::as_str))
        .collect();
    Proxy::start_with(&config, &variables)
}

/// The credentials of the parent go to the parent, in absolute-form and with CONNECT, and those of the app go nowhere.
#[test]
fn credentials_go_to_the_parent_alone() {
    let origin = Origin::plain();
    let parent = opening(origin.port(), "HTTP/1.1 200 OK\r\n\r\n");
    let proxy = behind(&[url(&parent)], "", &destination(&origin.authority(), ""));
    let answer = proxy.ask(
        "GET",
        &origin.url("/a?b=c"),
        "Proxy-Authorization: Basic YXBwOm93bg==\r\nX-Own: 1\r\n",
    );
    assert_eq!((answer.status, answer.text().as_str()), (200, "forwarded"));
    let seen = parent.raw();
    assert!(
        seen.starts_with(&format!("GET {} HTTP/1.1\r\n", origin.url("/a?b=c"))),
        "{seen}"
    );
    assert_eq!(seen.matches("Proxy-Authorization: Basic ").count(), 1, "{seen}");
    assert!(!seen.contains("YXBwOm93bg"), "{seen}");

    let mut tunnel = proxy.tunnel(&origin.authority());
    assert_eq!(tunnel.get(&origin.authority(), "/in").text(), "ok");
    let seen = parent.raw();
    let head = seen.split("CONNECT ").nth(1).unwrap();
    assert!(
        head.starts_with(&format!(
            "{} HTTP/1.1\r\nhost: {}\r\nProxy-Authorization: Basic ",
            origin.authority(),
            origin.authority()
        )),
        "{head}"
    );
    assert!(head.contains("cdn-loop: outrider-"), "{head}");
    let raw = origin.raw().to_ascii_lowercase();
    assert!(!raw.contains("proxy-auth") && raw.contains("get /in"), "{raw}");
}

/// A parent may show what it got, in a field or on a page.
#[test]
fn credentials_that_a_parent_echoes_are_struck() {
    let parent = Origin::http(|wire| {
        while let Ok(request) = wire.request() {
            let got = request.headers.get("proxy-authorization").unwrap_or_default();
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nX-Echo: {got}\r\nContent-Length: {}\r\nContent-Type: text/plain\r\n\r\n{got}",
                got.len()
            ));
        }
    });
    let settings = "headers: { set: { X-Key: \"env:ONE\" } }, scrub: true, upgrade: false, insecure_attach_over_http: true";
    for (settings, has_body) in [(settings, false), ("", true)] {
        let proxy = behind(&[url(&parent)], "", &destination("echo.test:8080", settings));
        let answer = proxy.get("http://echo.test:8080/");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(leak(&format!("{:?}", answer.headers)), None);
        // Bodies are searched where the destination says so.
        assert_eq!(leak(&answer.text()).is_some(), has_body, "{}", answer.text());
    }
}

/// E1: what a target says first is not lost, in one segment with the 200 or behind it.
#[test]
fn bytes_behind_the_200_are_the_targets() {
    for (first, then) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n220 hello\r\n", ""),
        ("HTTP/1.0 200 OK\r\n\r\n", "220 hello\r\n"),
    ] {
        let parent = Origin::http(move |wire| {
            let _ = wire.request();
            wire.send(first).send(then);
            let said = wire.read_exact(4).unwrap();
            wire.send(said);
        });
        let proxy = behind(
            &[url(&parent)],
            "",
            "destinations: { mail: { hosts: [\"mail.test:25\"] } }",
        );
        let mut tunnel = proxy.tunnel("mail.test:25");
        assert_eq!(tunnel.read_line().trim_end(), "220 hello");
        tunnel.send("EHLO");
        assert_eq!(tunnel.read_exact(4).unwrap(), b"EHLO");
    }
}

/// F10: addresses are judged before a parent hears of them; a name that only the parent resolves is the parent's affair.
#[test]
fn denied_addresses_are_not_given_to_the_parent() {
    let parent = Origin::saying("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let proxy = behind(
        &[url(&parent)],
        "default: tunnel",
        "dns: { hosts: { inner.test: 10.1.2.3, partner.test: 127.0.0.1 } }",
    );
    for authority in [
        "10.1.2.3:443",
        "169.254.169.254:80",
        "[fd00:ec2::254]:80",
        "inner.test:443",
    ] {
        let (answer, _) = proxy.connect(authority);
        answer.assert_ours(403, "destination_ip_prohibited");
        proxy
            .get(&format!("http://{}/", authority.replace(":443", ":80")))
            .assert_ours(403, "destination_ip_prohibited");
    }
    // Our own listener.
    let config = format!(
        "egress: {{ allow_networks: [loopback], parent: \"env:ONE\" }}\n{}",
        destination("127.0.0.1:*", "")
    );
    let other = Proxy::start_with(&config, &[("ONE", &url(&parent))]);
    other
        .connect(&format!("127.0.0.1:{}", other.address().port()))
        .0
        .assert_ours(508, "proxy_loop_detected");
    assert_eq!(parent.seen().len(), 0);
    let (answer, _) = proxy.connect("elsewhere.test:443");
    let told = answer.assert_ours(502, "destination_unavailable");
    assert!(
        told.contains("its rules deny") || told.contains("no address of"),
        "{told}"
    );
    assert_eq!(parent.seen().len(), 1);
}

#[test]
fn bypassed_hosts_and_destinations_without_a_parent_are_reached_directly() {
    let origin = Origin::plain();
    let (parent, own) = (opening(origin.port(), ""), opening(origin.port(), ""));
    let port = origin.port();
    let config = format!(
        "
        egress: {{ allow_networks: [loopback], parent: \"env:ONE\", parent_bypass: [apps.internal, 127.0.0.0/8] }}
        dns: {{ hosts: {{ a.apps.internal: 127.0.0.1, direct.test: 127.0.0.1, own.test: 127.0.0.1, partner.test: 127.0.0.1 }} }}
        destinations:
          inner: {{ hosts: [\"*.apps.internal:{port}\", \"127.0.0.1:{port}\"] }}
          direct: {{ hosts: [\"direct.test:{port}\"], parent: none }}
          own: {{ hosts: [\"own.test:{port}\"], parent: \"env:TWO\" }}
          inherits: {{ hosts: [\"partner.test:{port}\"], parent: inherit }}
        "
    );
    let proxy = Proxy::start_with(&config, &[("ONE", &url(&parent)), ("TWO", &url(&own))]);
    for (host, text, seen) in [
        ("a.apps.internal", "ok", (0, 0)),
        ("127.0.0.1", "ok", (0, 0)),
        ("direct.test", "ok", (0, 0)),
        ("own.test", "forwarded", (0, 1)),
        ("partner.test", "forwarded", (1, 1)),
    ] {
        assert_eq!(
            proxy.get(&format!("http://{host}:{port}/")).text(),
            text,
            "{host}"
        );
        assert_eq!((parent.seen().len(), own.seen().len()), seen, "{host}");
    }
}

/// Nothing goes around a parent that is down, and its failure is not held against the destination.
#[test]
fn a_dead_parent_is_not_gone_around_and_opens_no_circuit() {
    let origin = Origin::plain();
    let gone = format!("http://127.0.0.1:{}", closed_port());
    let settings = "circuit_breaker: { failures: 1, within: 30s, open_for: 30s }, mode: tunnel";
    let proxy = behind(&[gone], "", &destination(&origin.authority(), settings));
    for _ in 0..3 {
        let told = proxy.get(&origin.url("/")).assert_ours(502, "connection_refused");
        assert!(told.contains("the parent cannot be reached"), "{told}");
        proxy
            .connect(&origin.authority())
            .0
            .assert_ours(502, "connection_refused");
    }
    assert_eq!(origin.seen().len(), 0);
    assert_eq!(
        proxy.metric("outrider_circuit_state", &[("destination", "p")]),
        0.0
    );
    assert!(proxy.metric("outrider_parent_connects_total", &[("result", "unreachable")]) >= 6.0);
}

#[test]
fn the_next_parent_is_taken_where_one_fails_and_not_where_it_denies() {
    let origin = Origin::plain();
    let second = opening(origin.port(), "HTTP/1.1 200 OK\r\n\r\n");
    let gone = format!("http://127.0.0.1:{}", closed_port());
    let proxy = behind(&[gone, url(&second)], "", &destination(&origin.authority(), ""));
    for _ in 0..3 {
        assert_eq!(proxy.get(&origin.url("/")).status, 200);
    }
    assert_eq!(
        proxy
            .tunnel(&origin.authority())
            .get(&origin.authority(), "/")
            .text(),
        "ok"
    );
    // It came last from then on.
    let unreachable = proxy.metric("outrider_parent_connects_total", &[("result", "unreachable")]);
    assert_eq!(unreachable, 1.0);
    assert_eq!(
        proxy.log().matches("a parent fails").count(),
        1,
        "{}",
        proxy.log()
    );

    for (answer, is_next) in [
        (
            "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
            true,
        ),
        ("SSH-2.0-OpenSSH\r\n", true),
        ("", true),
        ("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", true),
        (
            "HTTP/1.1 403 Forbidden\r\nServer: Caddy\r\nContent-Length: 0\r\n\r\n",
            false,
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\nServer: Caddy\r\nContent-Length: 0\r\n\r\n",
            false,
        ),
    ] {
        let (first, second) = (
            Origin::saying_once(answer),
            opening(origin.port(), "HTTP/1.1 200 OK\r\n\r\n"),
        );
        let proxy = behind(
            &[url(&first), url(&second)],
            "",
            &destination(&origin.authority(), ""),
        );
        let (got, _) = proxy.connect(&origin.authority());
        assert_eq!(
            got.status,
            if is_next { 200 } else { 502 },
            "{answer}: {}",
            got.text()
        );
        assert_eq!(second.seen().len(), usize::from(is_next), "{answer}");
    }
    for parent in [
        Origin::saying_once("SSH-2.0-OpenSSH\r\n"),
        Origin::saying_once("HTTP/1.1 9 X\r\n\r\n"),
    ] {
        let proxy = behind(&[url(&parent)], "", &destination(&origin.authority(), ""));
        let told = proxy
            .get(&origin.url("/"))
            .assert_ours(502, "http_protocol_error");
        assert!(told.contains("the parent's answer cannot be read"), "{told}");
    }
}

/// An end without an answer may be the target's: it says neither that the parent fails nor that it works again.
#[test]
fn a_parent_that_closes_without_an_answer_does_not_work_again() {
    let origin = Origin::plain();
    let asked = AtomicUsize::new(0);
    let first = Origin::http(move |wire| {
        if wire.request().is_ok() && asked.fetch_add(1, Ordering::Relaxed) == 0 {
            wire.send("HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let second = Origin::saying_once("");
    let proxy = behind(
        &[url(&first), url(&second)],
        "",
        &destination(&origin.authority(), ""),
    );
    for _ in 0..3 {
        assert_eq!(proxy.connect(&origin.authority()).0.status, 502);
    }
    assert_eq!((first.seen().len(), second.seen().len()), (3, 3));
    let log = proxy.log();
    assert_eq!(log.matches("a parent fails").count(), 1, "{log}");
    assert!(!log.contains("works again"), "{log}");
}

/// The shape of a gateway: an `https://` parent that wants our certificate, ALPN http/1.1 alone, and a folder of roots.
#[test]
fn an_https_parent_gets_our_client_certificate() {
    let (pki, origin) = (Pki::new(), Origin::plain());
    let (port, server) = (origin.port(), pki.server("gateway.test"));
    let parent = Origin::https(pki.demanding(&server), move |wire| {
        open(wire, port, "HTTP/1.1 200 OK\r\n\r\n")
    });
    let roots = tempfile::tempdir().unwrap();
    std::fs::copy(pki.ca(), roots.path().join("one.crt")).unwrap();
    std::fs::write(roots.path().join("README"), "no certificate").unwrap();
    let (client, strangers) = (pki.client("app-instance"), Pki::new());
    let other = strangers.client("stranger");
    let start = |more: &str| {
        Proxy::start(&format!(
            "
            egress:
              allow_networks: [loopback]
              parent_ca: \"file:{}\"
              parent: {{ url: \"https://gateway.test:{}\", tls: {{ {more} }} }}
            dns: {{ hosts: {{ gateway.test: 127.0.0.1, partner.test: 127.0.0.1 }} }}
            destinations: {{ p: {{ hosts: [\"{}\"] }} }}
            ",
            roots.path().display(),
            parent.port(),
            origin.authority()
        ))
    };
    let proxy = start(&format!("client_certificate: {}", client.yaml()));
    assert_eq!(proxy.get(&origin.url("/")).text(), "forwarded");
    let mut tunnel = proxy.tunnel(&origin.authority());
    assert_eq!(tunnel.get(&origin.authority(), "/").text(), "ok");
    // The parent closes without close_notify: for the app that is an orderly end.
    tunnel.rest().1.unwrap();
    let seen = parent.seen().last().cloned().unwrap();
    assert_eq!(seen.client.map(|(name, _)| name).as_deref(), Some("app-instance"));
    assert_eq!((seen.alpn, seen.sni.as_deref()), (None, Some("gateway.test")));
    // In TLS 1.3 a refusal comes after the handshake, with the first answer.
    for more in [String::new(), format!("client_certificate: {}", other.yaml())] {
        let proxy = start(&more);
        for told in [
            proxy
                .connect(&origin.authority())
                .0
                .assert_ours(502, "tls_alert_received"),
            proxy.get(&origin.url("/")).assert_ours(502, "tls_alert_received"),
        ] {
            assert!(
                told.contains("TLS to the parent failed") && told.contains("client certificate"),
                "{told}"
            );
        }
    }
    let proxy = start("ca_extra: \"file:/nowhere/none.pem\"");
    proxy
        .get(&origin.url("/"))
        .assert_ours(502, "proxy_configuration_error");
}

/// Caddy's forwardproxy, as cloud.gov's egress proxy runs it, replayed: TLS with its own certificate.
#[test]
fn the_answers_of_caddy_are_explained() {
    let (pki, origin) = (Pki::new(), Origin::plain());
    for (answer, error, words) in [
        (
            "HTTP/1.1 403 Forbidden\r\nServer: Caddy\r\nDate: x\r\nContent-Length: 0\r\n\r\n",
            "destination_unavailable",
            "where its rules deny the destination",
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\nServer: Caddy\r\nDate: x\r\nContent-Length: 0\r\n\r\n",
            "dns_error",
            "does not resolve",
        ),
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\nServer: Caddy\r\nProxy-Authenticate: Basic realm=\"Caddy Secure Web Proxy\"\r\nContent-Length: 0\r\n\r\n",
            "proxy_configuration_error",
            "does not accept our credentials",
        ),
    ] {
        let parent = Origin::https(pki.accepting(&pki.server("egress.test")), move |wire| {
            while wire.request().is_ok() {
                wire.send(answer);
            }
        });
        let services = format!(
            r#"{{"user-provided":[{{"name":"egress-proxy","credentials":{{"credentials":{{"my-app":{{"https_uri":"https://u:{CANARY}@127.0.0.1:{}"}}}}}}}}]}}"#,
            parent.port()
        );
        let config = format!(
            "egress: {{ allow_networks: [loopback], parent: vcap:egress-proxy/credentials/my-app/https_uri, parent_ca: \"file:{}\" }}\n{}",
            pki.ca().display(),
            destination(&origin.authority(), "")
        );
        let proxy = Proxy::start_with(&config, &[("VCAP_SERVICES", &services)]);
        let told = proxy.connect(&origin.authority()).0.assert_ours(502, error);
        assert!(told.contains(words), "{told}");
    }
    // With probe resistance: 200 to everything, and no tunnel behind it.
    let parent = Origin::https(pki.accepting(&pki.server("egress.test")), |wire| {
        let _ = wire.request();
        wire.send("HTTP/1.1 200 OK\r\nServer: Caddy\r\nContent-Length: 0\r\n\r\n");
    });
    let inner = format!(
        "egress: {{ allow_networks: [loopback], parent: \"env:ONE\", parent_ca: \"file:{}\" }}\n{}",
        pki.ca().display(),
        destination("partner.test:443", "mode: intercept, http: 1")
    );
    let proxy = Proxy::start_with(
        &inner,
        &[("ONE", &format!("https://127.0.0.1:{}", parent.port()))],
    );
    let told = proxy
        .intercepted("partner.test:443")
        .get("partner.test", "/")
        .assert_ours(502, "connection_terminated");
    assert!(told.contains("Caddy with probe resistance"), "{told}");
}

/// D9: a CONNECT that a parent brings back is recognised, and our own listener is no parent.
#[test]
fn a_loop_through_a_parent_is_recognised() {
    let next = Arc::new(OnceLock::<SocketAddr>::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, back) = (listener.local_addr().unwrap(), Arc::clone(&next));
    // Carries bytes both ways to our own listener.
    thread::spawn(move || {
        for app in listener.incoming().map_while(Result::ok) {
            let proxy = TcpStream::connect(back.get().unwrap()).unwrap();
            let (mut from, mut to) = (app.try_clone().unwrap(), proxy.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from, &mut to));
            let (mut from, mut to) = (proxy, app);
            thread::spawn(move || std::io::copy(&mut from, &mut to));
        }
    });
    let proxy = behind(
        &[format!("http://{address}")],
        "",
        &destination("partner.test:9", ""),
    );
    next.set(proxy.address()).unwrap();
    let told = proxy
        .connect("partner.test:9")
        .0
        .assert_ours(502, "proxy_loop_detected");
    assert!(told.contains("come back to outrider"), "{told}");
    // The answer is the one that came back.
    let answer = proxy.get("http://partner.test:9/");
    assert!(
        answer.status == 508 && answer.text().contains("been through this proxy"),
        "{answer:?}"
    );

    let port = closed_port();
    let config = format!(
        "listen: 127.0.0.1:{port}\negress: {{ allow_networks: [loopback], parent: \"http://localhost:{port}\" }}\n{}",
        destination("partner.test:9", "")
    );
    let proxy = Proxy::start(&config);
    let told = proxy
        .connect("partner.test:9")
        .0
        .assert_ours(502, "proxy_configuration_error");
    assert!(told.contains("cannot be its own parent"), "{told}");
}

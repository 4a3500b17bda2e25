//! Who may come in: by which name the operator's pages are asked for, by which password the proxy of `exec`.

use std::fs;

use crate::support::programs::{clean, curl, outrider, tool};
use crate::support::prometheus::Prometheus;
use crate::support::proxy::{configuration, destination};
use crate::support::{Origin, Proxy, Wire, eventually, run};

/// Sends these bytes to the admin port and returns the answer.
#[track_caller]
fn ask(proxy: &Proxy, request: &str) -> crate::support::Response {
    Wire::connect(proxy.admin()).ask(request)
}

/// A web page whose name has come to mean this machine (DNS rebinding) reads nothing, on no path.
#[test]
fn the_admin_pages_are_served_only_under_their_own_names() {
    let proxy = Proxy::start("destinations: {}");
    let port = proxy.admin().port();
    for path in ["/", "/healthz", "/readyz", "/metrics", "/status", "/nowhere"] {
        let status = if path == "/nowhere" { 404 } else { 200 };
        for own in [
            format!("127.0.0.1:{port}"),
            format!("localhost:{port}"),
            "LOCALHOST".to_owned(),
            format!("[::1]:{port}"),
        ] {
            let answer = ask(
                &proxy,
                &format!("GET {path} HTTP/1.1\r\nHost: {own}\r\nOrigin: http://evil.example\r\n\r\n"),
            );
            assert_eq!(answer.status, status, "{own} {path}: {answer:?}");
            assert!(
                answer
                    .headers
                    .0
                    .iter()
                    .all(|(name, _)| !name.starts_with("access-control-")),
                "{answer:?}"
            );
            assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
        }
        for foreign in ["evil.example", "localhost.evil.example", "10.11.12.13", ""] {
            let host = format!("{foreign}:{port}");
            for request in [
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
                format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n"),
                format!("OPTIONS {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
                format!("GET http://evil.example:{port}{path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            ] {
                let answer = ask(&proxy, &request);
                assert_eq!(answer.status, 421, "{request:?}: {answer:?}");
                let text = answer.text();
                assert!(
                    text.contains("localhost") && !text.contains("outrider_"),
                    "{text}"
                );
                assert!(!format!("{answer:?}{text}").contains("evil"), "{answer:?} {text}");
            }
        }
        for request in [
            format!("GET {path} HTTP/1.1\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"),
        ] {
            assert_eq!(ask(&proxy, &request).status, 400, "{request:?}");
        }
        // A health checker of the old kind says no name at all.
        assert_eq!(
            ask(&proxy, &format!("GET {path} HTTP/1.0\r\n\r\n")).status,
            status
        );
    }
    let curl = run(&mut curl(["--fail", &format!("http://localhost:{port}/healthz")]));
    assert_eq!(curl.succeeded().stdout, "ok\n");
    let page = run(clean("curl").args([
        "--silent",
        "--resolve",
        &format!("evil.example:{port}:127.0.0.1"),
        "--write-out",
        "%{http_code}",
        "--output",
        "/dev/null",
        &format!("http://evil.example:{port}/metrics"),
    ]));
    assert_eq!(page.stdout, "421");
}

/// Beside an app whose admin address is open to its network, a scraper asks by address or by route.
#[test]
fn the_admin_pages_are_served_under_the_routes_of_the_app() {
    let application = r#"{"application_name":"app","application_uris":["app.apps.internal"]}"#;
    let proxy = Proxy::start_with("admin: 0.0.0.0:0", &[("VCAP_APPLICATION", application)]);
    let port = proxy.admin().port();
    let metrics = |host: &str| {
        let wire = &mut Wire::connect(([127, 0, 0, 1], port).into());
        wire.ask(format!("GET /metrics HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"))
            .status
    };
    for host in ["app.apps.internal", "0.app.apps.internal", "127.0.0.1", "0.0.0.0"] {
        assert_eq!(metrics(host), 200, "{host}");
    }
    for host in ["other.apps.internal", "apps.internal", "evil.app.apps.internal"] {
        assert_eq!(metrics(host), 421, "{host}");
    }
}

/// The real one, by address and by name.
#[test]
fn prometheus_scrapes() {
    let proxy = Proxy::start("destinations: {}");
    let port = proxy.admin().port();
    let targets = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let prometheus = Prometheus::start(&[("outrider", &targets)], None);
    eventually("both are up", || {
        prometheus.query("up == 1").is_ok_and(|up| up.len() == 2)
    });
}

/// Without the password of its variables nobody uses the proxy of `exec`, neither by a request nor by a tunnel;
/// with it, curl, wget, Python and Node do. The password is written nowhere, and no destination gets it.
#[test]
fn the_proxy_of_exec_asks_for_the_password_of_its_variables() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrider.yml");
    let origin = Origin::plain();
    fs::write(
        &file,
        configuration(&destination(&origin.authority(), ""), folder.path()),
    )
    .unwrap();
    let url = origin.url("/");
    let authority = origin.authority();
    let script = format!(
        "set -e; echo \"$http_proxy\"; bare=http://${{http_proxy#*@}}; code=%{{http_code}}
        for proxy in $bare http://outrider@${{http_proxy#*@}} http://outrider:wrong@${{http_proxy#*@}}; do
            curl -s -o $OUT/body -D $OUT/head -w \"$code\\n\" -x $proxy {url}
            cat $OUT/head $OUT/body | grep -i -c -e '^proxy-authenticate: basic' -e --no-password
            curl -s -w \"%{{http_connect}}\\n\" -x $proxy -p {url} || true
        done
        curl -s {url}; curl -s -p {url}; wget -q -O - {url}
        $PY -c \"import requests; print(requests.get('{url}').text, end='')\"
        $PY -c \"import urllib.request; print(urllib.request.urlopen('{url}').read().decode(), end='')\"
        $NODE -e \"fetch('{url}').then(r => r.text()).then(t => process.stdout.write(t))\"
        tr '\\0' ' ' < /proc/$PPID/cmdline"
    );
    let mut command = outrider(["exec", "--config"]);
    command.arg(&file).args(["--", "sh", "-c", &script]);
    command
        .env("PY", tool("venv/bin/python"))
        .env("NODE", tool("node_modules/node/bin/node"))
        .env("OUT", folder.path())
        .env("TMPDIR", folder.path());
    let ran = run(&mut command);
    let (proxy, rest) = ran.succeeded().stdout.split_once('\n').unwrap();
    let password = proxy
        .strip_prefix("http://outrider:")
        .unwrap()
        .split_once('@')
        .unwrap()
        .0;
    assert_eq!(password.len(), 43, "{proxy}");
    assert!(
        rest.starts_with(&format!("{}okokokokokok", "407\n3\n407\n".repeat(3))),
        "{ran:?}"
    );
    assert!(
        !rest.contains(password) && !ran.stderr.contains(password),
        "{ran:?}"
    );
    let seen = origin.raw().to_ascii_lowercase();
    assert!(
        !seen.contains("proxy-authorization") && seen.matches("get / ").count() == 6,
        "{seen}"
    );
    assert!(seen.contains(&authority), "{seen}");

    let mut open = outrider(["exec", "--no-password", "--config"]);
    open.arg(&file)
        .args(["--", "sh", "-c", "echo $http_proxy"])
        .env("TMPDIR", folder.path());
    assert!(run(&mut open).succeeded().stdout.starts_with("http://127.0.0.1:"));
}

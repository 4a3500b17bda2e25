//! D9: a request that has been here before goes no further, and what shows it costs no answer its compression.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use crate::support::programs::curl;
use crate::support::{Origin, Proxy, Wire, closed_port, nginx, run};

fn fields(origin: &Origin, name: &str) -> Vec<String> {
    let raw = origin.seen().pop().unwrap().bytes;
    let raw = String::from_utf8(raw).unwrap().to_ascii_lowercase();
    let prefix = format!("{name}: ");
    let values = raw.lines().filter_map(|line| line.strip_prefix(&prefix));
    values.map(str::to_owned).collect()
}

/// RFC 8586, and Via where the configuration wants it. What the app says of earlier proxies stays.
#[test]
fn a_request_is_marked_by_cdn_loop_and_by_via_where_that_is_wanted() {
    for (settings, has_via) in [("http: 1", false), ("via: true", true)] {
        let origin =
            Origin::saying_once("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        let proxy = Proxy::to(&origin.authority(), settings);
        let sent = "Via: 1.0 elsewhere\r\nCDN-Loop: other\r\n";
        let got = proxy.ask("GET", &origin.url("/"), sent);
        assert_eq!(got.status, 200);
        assert_eq!(got.header("via").is_some(), has_via, "{got:?}");
        let (via, marks) = (fields(&origin, "via"), fields(&origin, "cdn-loop"));
        assert_eq!(via.len(), if has_via { 2 } else { 1 }, "{via:?}");
        assert_eq!((via[0].as_str(), marks[0].as_str()), ("1.0 elsewhere", "other"));
        assert!(marks.len() == 2 && marks[1].starts_with("outrider-"), "{marks:?}");

        let asked = origin.seen().len();
        let mut again = vec![format!("CDN-Loop: {}\r\n", marks.join(", "))];
        again.extend(via.get(1).map(|via| format!("Via: {via}\r\n")));
        for mark in again {
            proxy
                .ask("GET", &origin.url("/again"), &mark)
                .assert_ours(508, "proxy_loop_detected");
        }
        assert_eq!(origin.seen().len(), asked);
    }
}

/// Sends each request on, with all of its fields, through the proxy and to the origin that `next` names.
fn relay(next: &Arc<OnceLock<(SocketAddr, String)>>) -> Origin {
    let next = Arc::clone(next);
    Origin::http(move |wire| {
        let Ok(request) = wire.request() else { return };
        let (proxy, authority) = next.get().unwrap();
        let fields = request.headers.0.iter().filter(|(name, _)| name != "host");
        let fields: String = fields
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let answer = Wire::connect(*proxy).ask(format!(
            "GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n{fields}\r\n"
        ));
        wire.send(format!(
            "HTTP/1.1 {} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            answer.status
        ));
    })
}

/// One proxy whose requests come back to it, and two that send to each other.
#[test]
fn a_loop_ends_after_one_turn() {
    for count in [1, 2] {
        let links: Vec<_> = (0..count).map(|_| Arc::new(OnceLock::new())).collect();
        let origins: Vec<_> = links.iter().map(relay).collect();
        let proxies: Vec<_> = origins
            .iter()
            .map(|origin| Proxy::to(&origin.authority(), "http: 1"))
            .collect();
        for (at, link) in links.iter().enumerate() {
            let next = (at + 1) % count;
            link.set((proxies[next].address(), origins[next].authority()))
                .unwrap();
        }
        let got = proxies[0].get(&origins[0].url("/"));
        assert_eq!(got.status, 508, "{count}: {got:?}");
        let turns: usize = origins.iter().map(|origin| origin.seen().len()).sum();
        assert_eq!(turns, count, "each origin was asked once");
    }
}

/// nginx with `gzip on` and nothing else of gzip set compresses no answer to a request with Via (`gzip_proxied
/// off`).
#[test]
fn nginx_as_shipped_compresses_through_us() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    std::fs::write(folder.path().join("index.html"), "<p>hello</p>\n".repeat(5_000)).unwrap();
    let port = closed_port();
    let conf = format!(
        "access_log off;\ngzip on;\nserver {{ listen 127.0.0.1:{port}; root {place}; types {{ text/html html; }} }}\n"
    );
    let _nginx = nginx::start(folder.path(), &conf, port);
    let url = format!("http://partner.test:{port}/index.html");
    for (settings, is_compressed) in [("http: 1", true), ("via: true", false)] {
        let proxy = Proxy::to(&format!("partner.test:{port}"), settings);
        let out = folder.path().join("out");
        let mut curl = curl([
            "-sS",
            "--compressed",
            "-w",
            "%{http_code} %{size_download}",
            &url,
            "-o",
        ]);
        curl.arg(&out)
            .env("http_proxy", format!("http://{}", proxy.address()));
        let told = run(&mut curl).succeeded().stdout.clone();
        let (code, size) = told.split_once(' ').unwrap();
        assert_eq!(code, "200", "{settings}");
        assert_eq!(std::fs::metadata(&out).unwrap().len(), 65_000, "{settings}");
        assert_eq!(
            size.parse::<u64>().unwrap() < 2_000,
            is_compressed,
            "{settings}: {size}"
        );
    }
}

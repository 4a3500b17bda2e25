//! UDP and HTTP/3 behind an HTTP and SOCKS5 proxy: refused in words, and clients come by TCP.

use std::net::UdpSocket;
use std::time::Duration;

use crate::support::partner::destination;
use crate::support::programs::python;
use crate::support::{Nginx, Pki, Proxy, TOKEN, eventually, run};

/// Asks with libcurl's HTTP/3, and says the status, or the error, and the version of HTTP.
const HTTP3: &str = "import io, sys, pycurl\n\
    url, proxy, bundle, version = sys.argv[1:]\n\
    c = pycurl.Curl(); out = io.BytesIO()\n\
    for option, value in [(c.URL, url), (c.PROXY, proxy), (c.CAINFO, bundle), (c.WRITEDATA, out), (c.TIMEOUT, 20),\n\
            (c.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_3 if version == 'any' else 31), (c.NOPROXY, '')]:\n    \
        c.setopt(option, value)\n\
    assert 'nghttp3' in pycurl.version, pycurl.version\n\
    try:\n    \
        c.perform(); print(c.getinfo(c.RESPONSE_CODE), c.getinfo(c.INFO_HTTP_VERSION), out.getvalue().decode())\n\
    except pycurl.error as error: print('failed', error)";

/// Item 7: a client that may use HTTP/3 gets its answer over TCP; one that insists on it is told why not. No datagram leaves.
#[test]
fn an_http_3_client_falls_back_to_tcp() {
    let pki = Pki::new();
    let nginx = Nginx::demanding(&pki, false);
    let (_, port) = nginx
        .authority()
        .rsplit_once(':')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let datagrams = UdpSocket::bind(format!("127.0.0.1:{port}")).unwrap();
    datagrams
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let proxy = Proxy::start_with(
        &destination(&pki, &pki.client("app"), &nginx.authority(), ""),
        &[("TOKEN", TOKEN)],
    );
    let url = format!("https://{}/token", nginx.authority());
    let ask = |scheme: &str, version: &str| {
        let by = format!("{scheme}://{}", proxy.address());
        let told = run(python(HTTP3).args([&url, &by]).arg(proxy.bundle()).arg(version));
        told.succeeded().stdout.clone()
    };
    for scheme in ["http", "socks5h"] {
        let told = ask(scheme, "any");
        assert!(
            told.starts_with("200 2 hello CN=app with a token"),
            "{scheme}: {told}"
        );
    }
    eventually("it is in the log", || {
        proxy
            .log()
            .contains("UDP through this proxy (CONNECT-UDP, RFC 9298) does not work")
    });
    assert!(
        ask("http", "only").contains("response 501"),
        "{}",
        ask("http", "only")
    );
    assert!(ask("socks5h", "only").contains("not supported over a SOCKS proxy"));
    assert!(
        datagrams.recv(&mut [0; 2048]).is_err(),
        "a datagram came to the origin"
    );
}

/// RFC 9298: refused in both forms of its target, and never sent on.
#[test]
fn connect_udp_is_refused_in_words() {
    let origin = crate::support::Origin::plain();
    let proxy = Proxy::to(&origin.authority(), "");
    let path = "/.well-known/masque/udp/127.0.0.1/443/";
    let fields = "Host: x\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\nCapsule-Protocol: ?1\r\n";
    for target in [path.to_owned(), format!("http://{}{path}", proxy.address())] {
        let refused = proxy.raw(format!("GET {target} HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!(refused.status, 501, "{target}");
        assert!(refused.text().contains("ask over TCP"), "{}", refused.text());
    }
    // At a destination it is a path like any other, and the upgrade stays here.
    let target = format!("http://{}{path}", origin.authority());
    assert_eq!(
        proxy.raw(format!("GET {target} HTTP/1.1\r\n{fields}\r\n")).status,
        200
    );
    assert!(
        !origin.raw().to_ascii_lowercase().contains("connect-udp"),
        "{}",
        origin.raw()
    );
    let denied = [("destination", "unlisted"), ("reason", "udp")];
    assert!(proxy.metric("outrider_denied_total", &denied) >= 1.0);
}

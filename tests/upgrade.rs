//! `upgrade`: the app asks in clear, and the destination over TLS.

use crate::support::programs::{curl, python};
use crate::support::{Origin, Pki, Proxy, ok, run};

/// What an app gets to keep on `http://`, as an origin on `https://` sets it.
const SET: &str = "Set-Cookie: sid=1; Path=/; Secure; HttpOnly\r\n\
    Set-Cookie: __Host-csrf=2; Path=/; Secure\r\n\
    Set-Cookie: lax=3; SameSite=None; Secure\r\n\
    Set-Cookie: open=4\r\n\
    Set-Cookie: wide=5; Domain=partner.test; Path=/; Secure\r\n";

fn upgraded() -> (Pki, Origin, Proxy) {
    let pki = Pki::new();
    let origin = Origin::https(pki.accepting(&pki.server("partner.test")), |wire| {
        while wire.request().is_ok() {
            wire.send(ok(SET, "ok"));
        }
    });
    let proxy = Proxy::start(&format!(
        "destinations: {{ p: {{ hosts: [\"{}\"], tls: {{ ca: \"file:{}\" }} }} }}",
        origin.authority(),
        pki.ca().display()
    ));
    (pki, origin, proxy)
}

/// Returns the cookies of the second request, in order.
fn sent_back(origin: &Origin) -> Vec<String> {
    let raw = origin.raw();
    let second = raw.split("GET /second").nth(1).unwrap_or_else(|| panic!("{raw}"));
    let line = second
        .lines()
        .find(|line| line.to_lowercase().starts_with("cookie:"));
    let cookies = line
        .and_then(|line| line.split_once(": "))
        .map_or("", |(_, cookies)| cookies);
    let mut cookies: Vec<_> = cookies.split("; ").map(str::to_owned).collect();
    cookies.sort();
    cookies
}

#[test]
fn a_cookie_of_the_host_alone_comes_back_over_http() {
    let (_pki, origin, proxy) = upgraded();
    let urls = [origin.url("/first"), origin.url("/second")];
    let asked = run(curl(["--proxy", &format!("http://{}", proxy.address()), "--cookie", ""]).args(&urls));
    asked.succeeded();
    // curl keeps no name that begins so over http://, with or without Secure.
    assert_eq!(sent_back(&origin), ["lax=3", "open=4", "sid=1"]);

    let (_pki, origin, proxy) = upgraded();
    let script = format!(
        "import requests\ns = requests.Session()\ns.trust_env = False\ns.proxies = {{'http': 'http://{}'}}\n\
         for url in ['{}', '{}']: s.get(url, timeout=20).raise_for_status()",
        proxy.address(),
        origin.url("/first"),
        origin.url("/second")
    );
    run(&mut python(&script)).succeeded();
    assert_eq!(sent_back(&origin), ["__Host-csrf=2", "lax=3", "open=4", "sid=1"]);
}

/// Only where the scheme was changed: over https:// a cookie is as the destination set it.
#[test]
fn a_cookie_is_untouched_where_the_app_asks_for_https() {
    let (_pki, origin, proxy) = upgraded();
    let lines = |answer: &str| answer.matches("Secure").count();
    let clear = proxy.get(&origin.url("/"));
    assert_eq!(
        clear
            .headers
            .all("set-cookie")
            .iter()
            .map(|line| lines(line))
            .sum::<usize>(),
        1,
        "{clear:?}"
    );
    let secure = proxy.get(&origin.url("/").replace("http://", "https://"));
    assert_eq!(
        secure
            .headers
            .all("set-cookie")
            .iter()
            .map(|line| lines(line))
            .sum::<usize>(),
        4,
        "{secure:?}"
    );
}

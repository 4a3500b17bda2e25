//! Group D: where a request may go. Nothing is dialled that was not judged after resolution (invariant 1).

use std::net::{IpAddr, TcpListener};
use std::time::{Duration, Instant};

use crate::support::dns::{Answer, Dns};
use crate::support::programs::outrider;
use crate::support::{Origin, Proxy, Wire, closed_port, run};

/// Starts a proxy that allows every host on this port, but no special network.
fn open_but_no_special_network(port: u16) -> Proxy {
    Proxy::start(&format!(
        "egress: {{ default: tunnel, ports: [80, 443, {port}] }}"
    ))
}

/// D1, D2: however loopback is spelt, it is not reached.
#[test]
fn no_spelling_of_a_forbidden_address_is_dialled() {
    let origin = Origin::plain();
    let port = origin.port();
    let proxy = open_but_no_special_network(port);
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.1",
        "127.0.1",
        "127.000.000.001",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "127.0.0.%31",
        "127\u{3002}0\u{3002}0\u{3002}1",
        "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
        "\u{2460}\u{2461}\u{2466}.0.0.1",
        "127.0.0.1\u{ad}",
        "4294967297.1",
        "127.0.0.257",
        "localhost",
        "LOCALHOST.",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::1]",
        "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
        "[2001:db8::5efe:7f00:1]",
        "[fe80::1%25lo]",
        "[::1%lo]",
        "[::1%25lo]",
    ] {
        let request = format!("GET http://{host}:{port}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = proxy.raw(request);
        assert!(
            matches!(answer.status, 400 | 403),
            "GET {host}: {} {}",
            answer.status,
            answer.text()
        );
        let mut wire = proxy.wire();
        wire.send(format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let answer = wire.bodiless_response();
        assert!(
            matches!(answer.status, 400 | 403),
            "CONNECT {host}: {} {}",
            answer.status,
            answer.text()
        );
        assert_eq!(origin.seen().len(), 0, "{host}");
    }
}

/// D1: what is neither an address nor a name is refused as such, before any look-up.
#[test]
fn numbers_that_are_no_dotted_quad_are_no_host() {
    let dns = Dns::serve(|_, _| Answer::Addresses(vec!["127.0.0.1".parse().unwrap()], 60));
    let proxy = Proxy::start(&format!(
        "egress: {{ default: tunnel, allow_networks: [loopback] }}\ndns: {}",
        dns.yaml()
    ));
    for host in [
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "127.0.0.257",
        "1.2.3.4.5",
        "a..b",
    ] {
        let answer = proxy.raw(format!(
            "GET http://{host}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ));
        assert_eq!(answer.status, 400, "{host}: {}", answer.text());
        assert_eq!(dns.asked(host), 0, "{host}");
    }
}

/// D3: special networks are refused with the reason, by request and by tunnel, and counted.
#[test]
fn special_networks_are_refused_by_default() {
    let proxy = open_but_no_special_network(443);
    for host in [
        "169.254.169.254",
        "169.254.170.2",
        "[fd00:ec2::254]",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "[::1]",
        "[fc00::1]",
        "[fe80::1]",
        "224.0.0.1",
        "[ff02::1]",
        "255.255.255.255",
        "0.1.2.3",
        "192.0.2.1",
        "192.0.0.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "240.0.0.1",
        "[2001:db8::1]",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
    ] {
        let started = Instant::now();
        proxy
            .get(&format!("http://{host}/"))
            .assert_ours(403, "destination_ip_prohibited");
        let (answer, _) = proxy.connect(&format!("{host}:443"));
        let detail = answer.assert_ours(403, "destination_ip_prohibited");
        assert!(detail.contains("allow_networks"), "no remedy: {detail}");
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{host}: something was dialled"
        );
    }
    assert!(proxy.metric("outrider_denied_total", &[("destination", "unlisted")]) >= 54.0);
}

/// D3, invariant 6: hosts that nobody names are refused by default, and the answer says what to write.
#[test]
fn unlisted_hosts_are_refused_by_default() {
    let origin = Origin::plain();
    let proxy = Proxy::start("egress: { allow_networks: [loopback] }");
    proxy
        .get(&origin.url("/"))
        .assert_ours(403, "http_request_denied");
    let (answer, mut wire) = proxy.connect(&origin.authority());
    let detail = answer.assert_ours(403, "http_request_denied");
    assert!(detail.contains("destination"), "no remedy: {detail}");
    drop(answer);
    let _ = wire.rest();
    assert_eq!(origin.seen().len(), 0);
    assert_eq!(
        proxy.metric("outrider_denied_total", &[("destination", "unlisted")]),
        2.0
    );
}

/// D4: of mixed answers only the permitted one is dialled.
#[test]
fn of_mixed_answers_only_the_permitted_is_dialled() {
    let origin = Origin::plain();
    let forbidden = TcpListener::bind(("127.0.0.2", origin.port())).unwrap();
    forbidden.set_nonblocking(true).unwrap();
    let dns = Dns::serve(|_, _| {
        let addresses = [
            "127.0.0.2",
            "10.1.2.3",
            "::ffff:127.0.0.2",
            "127.0.0.1",
            "169.254.169.254",
        ];
        Answer::Addresses(
            addresses.iter().map(|address| address.parse().unwrap()).collect(),
            0,
        )
    });
    let proxy = Proxy::start(&format!(
        "egress: {{ default: tunnel, ports: [{}], allow_networks: [127.0.0.1/32] }}\ndns: {}",
        origin.port(),
        dns.yaml()
    ));
    for _ in 0..5 {
        assert_eq!(
            proxy.get(&format!("http://mixed.test:{}/", origin.port())).status,
            200
        );
    }
    assert!(forbidden.accept().is_err(), "a forbidden address was dialled");
}

/// D4: a name that changes its mind is judged afresh, and one that hides behind another name, too.
#[test]
fn a_rebound_name_is_judged_again() {
    let origin = Origin::plain();
    let port = origin.port();
    let forbidden = TcpListener::bind(("127.0.0.2", port)).unwrap();
    forbidden.set_nonblocking(true).unwrap();
    let to = |address: &str| -> Vec<IpAddr> { vec![address.parse().unwrap()] };
    let dns = Dns::serve(move |name, before| match name {
        "rebound.test" if before == 0 => Answer::Addresses(to("127.0.0.1"), 0),
        "alias.test" => Answer::Alias("inside.test", to("127.0.0.2")),
        "mapped.test" => Answer::Addresses(to("::ffff:127.0.0.2"), 0),
        "metadata.test" => Answer::Addresses(to("169.254.169.254"), 0),
        _ => Answer::Addresses(to("127.0.0.2"), 0),
    });
    let proxy = Proxy::start(&format!(
        "egress: {{ default: tunnel, ports: [{port}], allow_networks: [127.0.0.1/32] }}\ndns: {}",
        dns.yaml()
    ));
    drop(proxy.tunnel(&format!("rebound.test:{port}")));
    for name in ["rebound.test", "alias.test", "mapped.test", "metadata.test"] {
        let (answer, _) = proxy.connect(&format!("{name}:{port}"));
        answer.assert_ours(403, "destination_ip_prohibited");
    }
    assert!(forbidden.accept().is_err(), "a forbidden address was dialled");
}

/// D5, D6: a name is one name however it is written.
#[test]
fn names_are_normalised_before_they_are_matched() {
    let origin = Origin::plain();
    let port = origin.port();
    let proxy = Proxy::start(&format!(
        r#"
        dns: {{ hosts: {{ partner.test: 127.0.0.1, xn--bcher-kva.test: 127.0.0.1 }} }}
        destinations:
          plain: {{ hosts: ["Partner.test:{port}", "b\u00fccher.test:{port}"] }}
        "#
    ));
    for host in [
        "partner.test",
        "PARTNER.TEST",
        "partner.test.",
        "xn--bcher-kva.test",
        "XN--BCHER-KVA.test",
    ] {
        assert_eq!(proxy.get(&format!("http://{host}:{port}/")).status, 200, "{host}");
        drop(proxy.tunnel(&format!("{host}:{port}")));
    }
    for host in [
        "[partner.test]",
        "partner..test",
        "partner.test..",
        ".partner.test",
        "partner.test%2e",
    ] {
        let answer = proxy.get(&format!("http://{host}:{port}/"));
        assert_eq!(answer.status, 400, "{host}");
    }
}

/// D7: ports are numbers from 1 to 65535, and of unlisted hosts only those that the configuration names.
#[test]
fn odd_ports_are_refused() {
    let origin = Origin::plain();
    let proxy = open_but_no_special_network(443);
    for port in [
        "0",
        "65536",
        "4294967376",
        "+80",
        "-1",
        " 80",
        "80:80",
        "0x50",
        "http",
    ] {
        let answer = proxy.raw(format!(
            "GET http://partner.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n"
        ));
        assert_eq!(answer.status, 400, "GET {port}: {}", answer.text());
        let answer = proxy.raw(format!("CONNECT partner.test:{port} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(answer.status, 400, "CONNECT {port}: {}", answer.text());
    }
    proxy
        .get(&origin.url("/"))
        .assert_ours(403, "http_request_denied");
    for port in [22, 25] {
        proxy
            .connect(&format!("partner.test:{port}"))
            .0
            .assert_ours(403, "http_request_denied");
    }
}

/// D8: a wildcard ends at the border of a label.
#[test]
fn a_wildcard_matches_subdomains_only() {
    let origin = Origin::plain();
    let port = origin.port();
    let names = [
        "a.partner.test",
        "a.b.partner.test",
        "partner.test",
        "evilpartner.test",
        "partner.test.evil.test",
    ];
    let hosts: String = names.iter().map(|name| format!("{name}: 127.0.0.1, ")).collect();
    let proxy = Proxy::start(&format!(
        r#"
        dns: {{ hosts: {{ {hosts} }} }}
        destinations:
          sub: {{ hosts: ["*.partner.test:{port}"] }}
        "#
    ));
    for (name, status) in names.iter().zip([200, 200, 403, 403, 403]) {
        assert_eq!(
            proxy.get(&format!("http://{name}:{port}/")).status,
            status,
            "{name}"
        );
    }
    assert_eq!(proxy.get(&format!("http://127.0.0.1:{port}/")).status, 403);
}

/// D9, L4: the proxy does not connect to its own listeners, by any name.
#[test]
fn the_proxy_does_not_dial_itself() {
    let (listen, admin) = (closed_port(), closed_port());
    let proxy = Proxy::start(&format!(
        r#"
        listen: 127.0.0.1:{listen}
        admin: 127.0.0.1:{admin}
        egress: {{ default: tunnel, ports: [{listen}, {admin}], allow_networks: [loopback] }}
        "#
    ));
    for port in [listen, admin] {
        for host in ["127.0.0.1", "partner.test"] {
            let answer = proxy.get(&format!("http://{host}:{port}/metrics"));
            assert!(
                matches!(answer.status, 403 | 508),
                "{host}:{port}: {} {}",
                answer.status,
                answer.text()
            );
            let (answer, _) = proxy.connect(&format!("{host}:{port}"));
            assert!(
                matches!(answer.status, 403 | 508),
                "CONNECT {host}:{port}: {}",
                answer.status
            );
        }
    }
}

/// D10: other schemes are neither fetched nor read from the disk.
#[test]
fn other_schemes_are_refused() {
    let origin = Origin::plain();
    let proxy = Proxy::start(&format!(
        "destinations: {{ plain: {{ hosts: [\"{}\"] }} }}",
        origin.authority()
    ));
    let authority = origin.authority();
    for target in [
        format!("ftp://{authority}/"),
        format!("ws://{authority}/"),
        format!("gopher://{authority}/"),
        format!("httpx://{authority}/"),
        "file:///etc/passwd".into(),
        "unix:/tmp/x".into(),
        "urn:isbn:1".into(),
        "data:,x".into(),
        "http:///x".into(),
        "http:/x".into(),
        "//x/".into(),
        "*".into(),
    ] {
        let answer = proxy.raw(format!("GET {target} HTTP/1.1\r\nHost: {authority}\r\n\r\n"));
        assert!(
            matches!(answer.status, 400 | 404 | 501),
            "{target}: {} {}",
            answer.status,
            answer.text()
        );
        assert!(!answer.text().contains("root:"), "{target}");
    }
    assert_eq!(origin.seen().len(), 0);
}

/// D11: no field of a request changes where it goes.
#[test]
fn override_fields_do_not_route() {
    let origin = Origin::plain();
    let proxy = Proxy::start("egress: { allow_networks: [loopback] }");
    let lines = format!(
        "X-Forwarded-Host: {0}\r\nForwarded: host={0}\r\nX-Original-URL: http://{0}/\r\n",
        origin.authority()
    );
    assert_eq!(proxy.ask("GET", "http://other.test/", &lines).status, 403);
    assert_eq!(origin.seen().len(), 0);
}

/// D12: a failed look-up is reported as such, in time.
#[test]
fn failing_look_ups_are_reported_in_time() {
    let dns = Dns::serve(|name, _| match name {
        "nxdomain.test" => Answer::Code(3),
        "servfail.test" => Answer::Code(2),
        "empty.test" => Answer::Addresses(Vec::new(), 1),
        "garbage.test" => Answer::Garbage,
        _ => Answer::Silence,
    });
    let proxy = Proxy::start(&format!("egress: {{ default: tunnel }}\ndns: {}", dns.yaml()));
    for (name, status, error) in [
        ("nxdomain.test", 502, "dns_error"),
        ("servfail.test", 502, "dns_error"),
        ("empty.test", 502, "dns_error"),
        ("silent.test", 504, "dns_timeout"),
        ("garbage.test", 504, "dns_timeout"),
    ] {
        let started = Instant::now();
        proxy.get(&format!("http://{name}/")).assert_ours(status, error);
        proxy.connect(&format!("{name}:443")).0.assert_ours(status, error);
        assert!(
            started.elapsed() < 2 * Dns::TIMEOUT + Duration::from_secs(3),
            "{name}: {:?}",
            started.elapsed()
        );
    }
    assert!(dns.asked("nxdomain.test") <= 4, "a failure is kept for a moment");
}

/// D12: a slow name does not hold the others.
#[test]
fn one_slow_name_does_not_hold_the_others() {
    let origin = Origin::plain();
    let dns = Dns::serve(|name, _| match name {
        "slow.test" => Answer::Silence,
        _ => Answer::Addresses(vec!["127.0.0.1".parse().unwrap()], 60),
    });
    let proxy = Proxy::start(&format!(
        "egress: {{ default: tunnel, ports: [80, {}], allow_networks: [loopback] }}\ndns: {}",
        origin.port(),
        dns.yaml()
    ));
    let mut waiting: Vec<Wire> = (0..20).map(|_| proxy.wire()).collect();
    for wire in &mut waiting {
        wire.send("GET http://slow.test/ HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    let started = Instant::now();
    assert_eq!(
        proxy.get(&format!("http://quick.test:{}/", origin.port())).status,
        200
    );
    assert!(started.elapsed() < Dns::TIMEOUT, "{:?}", started.elapsed());
}

/// Paths and methods that a destination does not name are refused, in every spelling of the path.
#[test]
fn paths_and_methods_can_be_fenced() {
    let origin = Origin::plain();
    let proxy = Proxy::start(&format!(
        "destinations: {{ fenced: {{ hosts: [\"{}\"], paths: [/api/**], methods: [GET] }} }}",
        origin.authority()
    ));
    for (method, path, status) in [
        ("GET", "/api/x", 200),
        ("GET", "/api/x?y=/other", 200),
        ("POST", "/api/x", 403),
        ("DELETE", "/api/x", 403),
        ("GET", "/", 403),
        ("GET", "/apix", 403),
        ("GET", "/other?/api/", 403),
        ("GET", "/api/../admin", 403),
        ("GET", "/api/%2e%2e/admin", 403),
        ("GET", "/api/.%2E/admin", 403),
        ("GET", "/api/x/../../admin", 403),
        ("GET", "/API/x", 403),
    ] {
        let answer = proxy.ask(method, &origin.url(path), "");
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        if status == 403 {
            answer.assert_ours(403, "http_request_denied");
        }
    }
    assert!(!origin.raw().contains("admin"), "{}", origin.raw());
}

/// An encoded slash is a part of a name to GitLab and npm, and a slash to others: it passes where both are allowed.
#[test]
fn a_path_passes_where_each_reading_of_it_is_allowed() {
    let origin = Origin::plain();
    let proxy = Proxy::start(&format!(
        "destinations: {{ forge: {{ hosts: [\"{}\"], \
         paths: [/api/v4/**, /p/*/issues, \"/@scope%2F*\"], rate_limit: [{{ limit: 2/h, match: {{ path: /api/v4/*/a/** }} }}] }} }}",
        origin.authority()
    ));
    for (path, status) in [
        ("/api/v4/projects/group%2Fproject", 200),
        ("/api/v4/projects/group%2fproject/issues?x=%2F..", 200),
        ("/api/v4/search%20it/x;v=1", 200),
        ("/api/v4/x/%2e%2e/y", 200),
        ("/@scope%2Fname", 200),
        ("/@scope/name", 403),
        ("/p/name/issues", 200),
        ("/p/group%2Fname/issues", 403),
        ("/api/v4/x%2F..%2F..%2F..%2Fadmin", 403),
        ("/api/v4/x%2Fy/../../../../admin", 403),
        ("/api/v4/x%0d%0a", 403),
        // A limit counts under each reading.
        ("/api/v4/projects/a%2Fb", 200),
        ("/api/v4/projects%2Fa/b", 200),
        ("/api/v4/projects/a", 429),
    ] {
        let answer = proxy.ask("GET", &origin.url(path), "");
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    let refused = proxy.ask("GET", &origin.url("/p/group%2Fname/issues"), "").text();
    let reading = "allows this path as it is written, but some servers read it as /p/group/name/issues, which it does not allow";
    assert!(refused.contains(reading), "{refused}");
    assert!(
        origin.raw().contains("/projects/group%2Fproject "),
        "{}",
        origin.raw()
    );
    assert!(!origin.raw().contains("admin"), "{}", origin.raw());
}

/// `host:*` is every port that nothing more specific names; `explain` says by which pattern.
#[test]
fn a_host_pattern_can_say_any_port() {
    let (origin, own) = (Origin::plain(), Origin::plain());
    let proxy = Proxy::start(&format!(
        "destinations:\n  any: {{ hosts: [\"partner.test:*\"], methods: [GET] }}\n  own: {{ hosts: [\"partner.test:{}\"] }}\n",
        own.port()
    ));
    for (origin, method, status) in [
        (&origin, "GET", 200),
        (&origin, "DELETE", 403),
        (&own, "DELETE", 200),
    ] {
        let answer = proxy.ask(method, &origin.url("/"), "");
        assert_eq!(answer.status, status, "{method} {}", answer.text());
    }
    let file = proxy.config_file();
    let explained = run(outrider(["explain", "--config"]).arg(&file).arg(origin.url("/")));
    let told = &explained.succeeded().stdout;
    assert!(told.contains("any, by its host partner.test:*"), "{told}");
}

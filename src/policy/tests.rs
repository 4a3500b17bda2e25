use http::Method;

use super::{Denial, Destination, Policy, RequestForm, Verdict};
use crate::config::Config;
use crate::host::{Scheme, Target};

mod ranks;
mod remedies;

fn compile(text: &str) -> Result<Policy, String> {
    let config = Config::parse(text, "test.yml").map_err(|problems| problems.to_string())?;
    Policy::compile(&config).map_err(|problems| problems.to_string())
}

fn policy(text: &str) -> Policy {
    compile(text).unwrap()
}

fn connect(text: &str) -> Target {
    Target::of_connect(&text.parse().unwrap()).unwrap()
}

fn absolute(text: &str) -> Target {
    Target::of_absolute(&text.parse().unwrap()).unwrap()
}

/// The verdict as a word and the destination's name.
fn routed(policy: &Policy, target: &Target, asked: RequestForm) -> (String, String) {
    let (word, destination) = match policy.route(target, asked) {
        Verdict::Deny(destination, denial) => (denial.reason(), destination),
        Verdict::Forward(destination) => ("forward", destination),
        Verdict::Intercept(destination) => ("intercept", destination),
        Verdict::Observe(destination, reason) => (reason.as_str(), destination),
        Verdict::Tunnel(destination) => ("tunnel", destination),
    };
    (word.to_owned(), destination.name.to_string())
}

/// One destination `d` with these keys beside its host `a.example`.
fn with(keys: &str) -> Result<Policy, String> {
    compile(&format!("destinations:\n  d: {{ hosts: [a.example], {keys} }}"))
}

fn destination(keys: &str) -> std::sync::Arc<Destination> {
    with(keys).unwrap().destinations[1].clone()
}

#[test]
fn the_most_specific_pattern_wins() {
    let policy = policy(
        r#"
        destinations:
          port: { hosts: ["a.example.com:8443", "a.example.com:443"] }
          host: { hosts: [a.example.com] }
          longer-port: { hosts: ["*.b.example.com:8080"] }
          longer: { hosts: ["*.b.example.com"] }
          shorter: { hosts: ["*.example.com", "*.example.com:8080"] }
          wide: { hosts: [8.0.0.0/8, "2606::/16"] }
          narrow: { hosts: [8.8.0.0/16, "2606:4700::/32"] }
          narrow-port: { hosts: ["8.8.0.0/16:8080"] }
          address: { hosts: [8.8.8.8, "[2606:4700::1]:8443"] }
        "#,
    );
    for (target, expected) in [
        ("a.example.com:443", "port"),
        ("a.example.com:8443", "port"),
        ("a.example.com:80", "host"),
        ("a.example.com:8080", "shorter"),
        ("a.example.com:22", "unlisted"),
        ("x.b.example.com:443", "longer"),
        ("x.y.b.example.com:80", "longer"),
        ("x.b.example.com:8080", "longer-port"),
        ("x.b.example.com:8443", "unlisted"),
        ("b.example.com:443", "shorter"),
        ("8.8.8.8:443", "address"),
        ("8.8.8.8:8080", "narrow-port"),
        ("8.8.9.9:443", "narrow"),
        ("8.9.9.9:443", "wide"),
        ("8.9.9.9:8443", "unlisted"),
        ("9.9.9.9:443", "unlisted"),
        ("[2606:4700::1]:443", "narrow"),
        ("[2606:4700::1]:8443", "address"),
        ("[2606:1::1]:443", "wide"),
        ("[::ffff:8.8.8.8]:443", "address"),
    ] {
        assert_eq!(&*policy.find(&connect(target)).0.name, expected, "{target}");
    }
    for (index, destination) in policy.destinations.iter().enumerate() {
        assert_eq!(destination.index, index);
    }
}

/// `*` is every port that nothing more specific names, of the same host part.
#[test]
fn any_port_is_the_least_specific_one() {
    let policy = policy(
        r#"
        destinations:
          any: { hosts: ["a.example:*", "*.b.example:*", "8.8.8.0/24:*", "[2606::1]:*"] }
          usual: { hosts: [a.example, "*.b.example", 8.8.8.0/24, "[2606::1]"] }
          one: { hosts: ["a.example:8443", "*.b.example:8443", "8.8.8.0/24:8443", "[2606::1]:8443"] }
          wide: { hosts: ["*.example:9000", "8.0.0.0/8:9000"] }
        "#,
    );
    for host in ["a.example", "x.b.example", "8.8.8.8", "[2606::1]"] {
        for (port, expected) in [
            (80, "usual"),
            (443, "usual"),
            (8443, "one"),
            (1, "any"),
            (22, "any"),
            (9000, "any"),
            (65535, "any"),
        ] {
            let target = format!("{host}:{port}");
            assert_eq!(&*policy.find(&connect(&target)).0.name, expected, "{target}");
        }
    }
    assert_eq!(&*policy.find(&connect("b.example:8443")).0.name, "unlisted");
    assert_eq!(&*policy.find(&connect("8.9.8.8:9000")).0.name, "wide");
    let twice =
        compile("destinations:\n  d: { hosts: [\"a.example:*\"] }\n  e: { hosts: [\"A.example:*\"] }");
    let twice = twice.unwrap_err();
    assert!(
        twice.contains("destinations.e.hosts[0]: a.example:* is named by destination d as well"),
        "{twice}"
    );
    let denied = compile("destinations: { d: { hosts: [\"10.0.0.1:*\"] } }").unwrap_err();
    assert!(
        denied.contains("10.0.0.1:* lies in a denied network (private)"),
        "{denied}"
    );
}

/// D5, D6, D8: no spelling and no neighbouring name gets another destination's credential.
#[test]
fn only_the_named_hosts_match() {
    let policy = policy(
        r#"
        destinations:
          apex: { hosts: [bücher.example, api.example.org.] }
          wild: { hosts: ["*.Example.com"], auth: { bearer: "env:TOKEN" } }
        "#,
    );
    for (target, expected) in [
        ("a.example.com:443", "wild"),
        ("A.EXAMPLE.com.:443", "wild"),
        ("a.b.example.com:443", "wild"),
        ("_x.example.com:443", "wild"),
        ("example.com:443", "unlisted"),
        ("example.com.:443", "unlisted"),
        ("evilexample.com:443", "unlisted"),
        ("a.evilexample.com:443", "unlisted"),
        ("example.com.evil:443", "unlisted"),
        ("a.example.com.evil:443", "unlisted"),
        ("a.example.co:443", "unlisted"),
        ("a.xexample.com:443", "unlisted"),
        ("a-example.com:443", "unlisted"),
        ("com:443", "unlisted"),
        ("a.example.com:8443", "unlisted"),
        ("8.8.8.8:443", "unlisted"),
        ("xn--bcher-kva.example:443", "apex"),
        ("XN--BCHER-KVA.example.:443", "apex"),
        ("bucher.example:443", "unlisted"),
        ("api.example.org:443", "apex"),
        ("api.example.org.:443", "apex"),
        ("x.api.example.org:443", "unlisted"),
    ] {
        assert_eq!(&*policy.find(&connect(target)).0.name, expected, "{target}");
    }
}

/// D8: a name never matches a network, an address never a suffix.
#[test]
fn networks_match_addresses_only() {
    let policy = policy(r#"destinations: { all: { hosts: [0.0.0.0/0, "::/0"] } }"#);
    assert_eq!(&*policy.find(&connect("8.8.8.8:443")).0.name, "all");
    assert_eq!(&*policy.find(&connect("[2606::1]:443")).0.name, "all");
    assert_eq!(&*policy.find(&connect("example.com:443")).0.name, "unlisted");
    assert_eq!(
        &*policy.find(&connect("8.8.8.8.example.com:443")).0.name,
        "unlisted"
    );
}

#[test]
fn unlisted_hosts_are_denied_or_pass_on_the_listed_ports() {
    let word = |policy: &Policy, target, asked| routed(policy, &target, asked).0;
    let deny = policy("destinations: { d: { hosts: [a.example] } }");
    assert_eq!(
        word(&deny, connect("b.example:443"), RequestForm::Connect),
        "unlisted"
    );
    assert_eq!(
        word(&deny, absolute("http://b.example/"), RequestForm::Request),
        "unlisted"
    );
    assert_eq!(
        word(&deny, connect("a.example:22"), RequestForm::Connect),
        "unlisted"
    );
    assert_eq!(
        word(&deny, connect("a.example:443"), RequestForm::Connect),
        "tunnel"
    );

    let tunnel = policy(
        "egress: { default: tunnel, ports: [443, 8080] }\ndestinations: { d: { hosts: [a.example] } }",
    );
    assert_eq!(
        word(&tunnel, connect("b.example:443"), RequestForm::Connect),
        "tunnel"
    );
    assert_eq!(
        word(&tunnel, absolute("http://b.example:8080/"), RequestForm::Request),
        "forward"
    );
    assert_eq!(
        word(&tunnel, absolute("http://b.example/"), RequestForm::Request),
        "port"
    );
    assert_eq!(
        word(&tunnel, connect("b.example:22"), RequestForm::Connect),
        "port"
    );
    assert_eq!(
        word(&tunnel, connect("b.example:25"), RequestForm::Connect),
        "port"
    );
    assert_eq!(
        word(&tunnel, connect("a.example:80"), RequestForm::Connect),
        "tunnel"
    );
    assert_eq!(
        word(&tunnel, connect("a.example:22"), RequestForm::Connect),
        "port"
    );

    let Verdict::Deny(_, denial) = deny.route(&connect("b.example:8443"), RequestForm::Connect) else {
        panic!()
    };
    assert!(
        denial.to_string().contains("add b.example:8443 to the hosts"),
        "{denial}"
    );
    let Verdict::Deny(_, denial) = deny.route(&connect("b.example:443"), RequestForm::Connect) else {
        panic!()
    };
    assert!(
        denial.to_string().contains("add b.example to the hosts"),
        "{denial}"
    );
}

#[test]
fn connect_is_intercepted_where_something_must_see_the_requests() {
    for (keys, auto) in [
        ("", "tunnel"),
        ("http: 1", "tunnel"),
        ("tls: {}", "tunnel"),
        ("timeouts: { connect: 1s }", "tunnel"),
        ("on_limit: wait 2s", "tunnel"),
        ("auth: { bearer: env:T }", "intercept"),
        (
            "tls: { client_certificate: { cert: file:c, key: file:k } }",
            "intercept",
        ),
        ("tls: { ca: file:c }", "intercept"),
        ("tls: { ca_extra: file:c }", "intercept"),
        ("tls: { server_name: b.example }", "intercept"),
        ("tls: { min_version: \"1.3\" }", "intercept"),
        ("tls: { groups: [x25519] }", "intercept"),
        ("headers: { set: { X-A: b } }", "intercept"),
        ("headers: { remove: [X-A] }", "intercept"),
        ("paths: [/a]", "intercept"),
        ("methods: [GET]", "intercept"),
        ("rate_limit: 5/s", "intercept"),
        ("concurrency: 3", "intercept"),
        ("respect_upstream: true", "intercept"),
        ("limits_apply_to: auto", "tunnel"),
        ("limits_apply_to: host", "intercept"),
    ] {
        for (mode, expected) in [("auto", auto), ("intercept", "intercept"), ("tunnel", "tunnel")] {
            let policy = with(&format!("mode: {mode}, {keys}")).unwrap();
            let word = |target, asked| routed(&policy, &target, asked).0;
            assert_eq!(
                word(connect("a.example:443"), RequestForm::Connect),
                expected,
                "{mode} {keys}"
            );
            assert_eq!(
                word(absolute("http://a.example"), RequestForm::Request),
                "forward",
                "{mode} {keys}"
            );
            assert_eq!(
                policy.intercepted().len(),
                usize::from(expected == "intercept"),
                "{mode} {keys}"
            );
        }
    }
}

/// F3: a credential leaves over TLS, or not at all, or where the configuration says so in frightening words.
#[test]
fn credentials_leave_over_tls() {
    for (keys, target, expected) in [
        ("", "http://a.example/", Some("http a.example:80")),
        ("", "https://a.example/", Some("https a.example:443")),
        ("upgrade: true", "http://a.example/", Some("https a.example:443")),
        (
            "upgrade: true",
            "http://a.example:8080/",
            Some("https a.example:8080"),
        ),
        (
            "upgrade: true",
            "http://a.example:443/",
            Some("https a.example:443"),
        ),
        (
            "upgrade: true",
            "https://a.example:80/",
            Some("https a.example:80"),
        ),
        (
            "auth: { bearer: env:T }",
            "http://a.example/",
            Some("https a.example:443"),
        ),
        ("tls: {}", "http://a.example/", Some("https a.example:443")),
        (
            "tls: { ca: file:c }, upgrade: false",
            "http://a.example/",
            Some("http a.example:80"),
        ),
        (
            "auth: { bearer: env:T }, upgrade: false",
            "http://a.example/",
            None,
        ),
        (
            "auth: { bearer: env:T }, upgrade: false",
            "http://a.example:8443/",
            None,
        ),
        (
            "auth: { bearer: env:T }, upgrade: false",
            "https://a.example/",
            Some("https a.example:443"),
        ),
        (
            "auth: { query: { name: k, value: env:T } }, upgrade: false",
            "http://a.example/",
            None,
        ),
        ("headers: { set: { X-Key: env:T } }", "http://a.example/", None),
        (
            "headers: { set: { X-Key: plain } }",
            "http://a.example/",
            Some("http a.example:80"),
        ),
        (
            "headers: { set: { X-Key: env:T } }, upgrade: true",
            "http://a.example/",
            Some("https a.example:443"),
        ),
        (
            "auth: { bearer: env:T }, upgrade: false, insecure_attach_over_http: true",
            "http://a.example/",
            Some("http a.example:80"),
        ),
    ] {
        let left = destination(keys).leaves(&absolute(target));
        match (&left, expected) {
            (Ok(target), Some(expected)) => {
                assert_eq!(format!("{} {target}", target.scheme), expected, "{keys}")
            }
            (Err(denial), None) => assert_eq!(denial.reason(), "plaintext", "{keys}"),
            _ => panic!("{keys} {target}: {left:?}"),
        }
    }
    let inner = connect("a.example:443");
    assert_eq!(
        destination("auth: { bearer: env:T }, upgrade: false")
            .leaves(&inner)
            .unwrap()
            .scheme,
        Scheme::Https
    );
}

#[test]
fn methods_and_paths_are_allow_lists() {
    let all = destination("");
    assert_eq!(all.permits(&Method::DELETE, "/any/../thing"), Ok(()));
    let some = destination("methods: [GET, PURGE], paths: [/api/**, /v1/*/x]");
    for (method, path, expected) in [
        ("GET", "/api/x", None),
        ("PURGE", "/v1/a/x", None),
        ("get", "/api/x", Some("method")),
        ("POST", "/api/x", Some("method")),
        ("POST", "/nowhere", Some("method")),
        ("GET", "/", Some("path")),
        ("GET", "*", Some("path")),
        ("GET", "/apis", Some("path")),
        ("GET", "/v1/a/b/x", Some("path")),
        ("GET", "/api/../admin", Some("path")),
        ("GET", "/api/%2e%2e/admin", Some("path")),
        ("GET", "/api/..%2fadmin", Some("path")),
        ("GET", "/api/..%5cadmin", Some("path")),
        ("GET", "/api/..;/admin", Some("path")),
    ] {
        let denial = some
            .permits(&Method::from_bytes(method.as_bytes()).unwrap(), path)
            .err();
        assert_eq!(denial.as_ref().map(Denial::reason), expected, "{method} {path}");
    }
}

#[test]
fn contradictions_are_problems_with_their_place() {
    for (text, expected) in [
        (
            "destinations:\n  d: { hosts: [a.example], http: 2 }",
            &[
                "test.yml:2:",
                "destinations.d.http: HTTP/2 needs TLS",
                "mode: intercept",
            ][..],
        ),
        (
            "destinations:\n  d: { hosts: [a.example], auth: { bearer: env:T }, insecure_attach_over_http: true }",
            &[
                "destinations.d.insecure_attach_over_http: http:// is upgraded",
                "upgrade: false",
            ],
        ),
        (
            "destinations:\n  d: { hosts: [a.example], insecure_attach_over_http: true }",
            &["destinations.d.insecure_attach_over_http: there is no credential"],
        ),
        (
            "destinations:\n  d: { hosts: [a.example], respect_upstream: false, limits_apply_to: host }",
            &["destinations.d.limits_apply_to: no limit is learned here"],
        ),
        (
            "destinations:\n  d: { hosts: [a.example], paths: [/ok, /a/../b] }",
            &["destinations.d.paths[1]: a path glob holds no dot segments"],
        ),
        (
            "destinations:\n  d:\n    hosts: [a.example]\n    rate_limit:\n      - { limit: 1/s, match: { path: /a%5cb } }",
            &[
                "test.yml:5:",
                "destinations.d.rate_limit[0].match.path: a path glob holds no",
            ],
        ),
        (
            "destinations:\n  d: { hosts: [a.example, B.example] }\n  e:\n    hosts:\n      - c.example\n      - b.example.",
            &[
                "test.yml:6:",
                "destinations.e.hosts[1]: b.example is named by destination d as well",
            ],
        ),
        (
            "destinations:\n  d: { hosts: [\"*.a.example:8443\"] }\n  e: { hosts: [\"*.A.example:8443\"] }",
            &["*.a.example:8443 is named by destination d as well"],
        ),
        (
            "destinations:\n  d: { hosts: [10.0.0.1] }",
            &[
                "destinations.d.hosts[0]: 10.0.0.1 lies in a denied network (private)",
                "add 10.0.0.1/32 to egress.allow_networks",
            ],
        ),
        (
            "destinations:\n  d: { hosts: [\"[::1]:8443\", \"::ffff:169.254.169.254\", \"64:ff9b::a00:1\", fd00::/8] }",
            &[
                "(loopback)",
                "add ::1/128",
                "(metadata)",
                "add 169.254.169.254/32",
                "(private)",
                "add fd00::/8",
            ],
        ),
        (
            "egress: { deny_networks: [] }\ndestinations:\n  d: { hosts: [10.0.0.1, 127.0.0.0/8] }",
            &["(private)", "add 10.0.0.1/32", "(loopback)", "add 127.0.0.0/8"],
        ),
        (
            "egress: { deny_networks: [10.1.0.0/16], allow_networks: [private] }\ndestinations:\n  d: { hosts: [10.1.2.0/24, 10.1.2.3] }",
            &[
                "(listed in egress.deny_networks)",
                "add 10.1.2.0/24",
                "add 10.1.2.3/32",
            ],
        ),
        (
            "egress: { deny_networks: [8.0.0.0/8] }\ndestinations:\n  d: { hosts: [8.8.0.0/16] }",
            &[
                "8.8.0.0/16 lies in a denied network (listed in egress.deny_networks)",
                "add 8.8.0.0/16",
            ],
        ),
    ] {
        let problems = compile(text).unwrap_err();
        for part in expected {
            assert!(problems.contains(part), "{part:?} in {problems}");
        }
    }
}

#[test]
fn what_could_work_is_no_problem() {
    for text in [
        "egress: { allow_networks: [10.1.0.0/16] }\ndestinations: { d: { hosts: [10.1.2.3, 10.0.0.0/8] } }",
        "egress: { allow_networks: [loopback] }\ndestinations: { d: { hosts: [127.0.0.1, \"[::1]:8443\"] } }",
        "egress: { allow_networks: [private, metadata] }\ndestinations: { d: { hosts: [10.0.0.1, 169.254.169.254] } }",
        "egress: { deny_networks: [8.0.0.0/8], allow_networks: [8.8.0.0/16] }\ndestinations: { d: { hosts: [8.8.0.0/16] } }",
        "destinations: { d: { hosts: [0.0.0.0/0, \"::/0\", 8.8.8.8] } }",
        "destinations: { d: { hosts: [a.example, \"a.example:443\", a.example.] } }",
        "destinations: { d: { hosts: [a.example] }, e: { hosts: [\"a.example:443\"] } }",
        "destinations: { d: { hosts: [a.example], http: 2, upgrade: true } }",
        "destinations: { d: { hosts: [a.example], http: 2, mode: intercept } }",
        "destinations: { d: { hosts: [a.example], mode: tunnel, auth: { bearer: env:T } } }",
        "destinations: { d: { hosts: [a.example], insecure_attach_over_http: false } }",
    ] {
        assert!(compile(text).is_ok(), "{text}: {:?}", compile(text).err());
    }
}

/// Every problem is reported at once.
#[test]
fn problems_do_not_hide_each_other() {
    let problems = compile(
        "destinations:\n  d: { hosts: [10.0.0.1, a.example], scrub: true }\n  e: { hosts: [a.example], http: 2 }",
    );
    assert_eq!(problems.unwrap_err().lines().count(), 4);
}

/// The built-in default tunnels what is public and nothing else.
#[test]
fn the_embedded_configuration_compiles() {
    let policy = Policy::compile(&Config::embedded()).unwrap();
    assert_eq!(
        routed(&policy, &connect("example.com:443"), RequestForm::Connect),
        ("tunnel".into(), "unlisted".into())
    );
    assert!(
        policy
            .egress
            .approve(&["169.254.169.254".parse().unwrap()], 80)
            .is_err()
    );
    assert!(policy.intercepted().is_empty());
}

#[test]
fn tokens_are_not_asked_for_in_clear() {
    let compile = |more: &str| {
        let text = format!(
            "destinations: {{ d: {{ hosts: [a.test], auth: {{ oauth2: {{ token_url: 'http://login.test/token', \
             client_id: a, client_secret: env:S }} }}{more} }} }}"
        );
        let config = Config::parse(&text, "a.yml").unwrap();
        let compiled = Policy::compile(&config).map(drop);
        compiled.map_err(|problems| problems.located(&config.locations).to_string())
    };
    assert_eq!(
        compile("").unwrap_err(),
        "a.yml:1:68: destinations.d.auth.oauth2.token_url: http:// would show the client's secret, and the token, to \
         everybody on the way; write https://"
    );
    assert_eq!(compile(", insecure_attach_over_http: true"), Ok(()));
}

#[test]
fn a_certificate_that_is_to_be_shown_to_a_token_endpoint_is_there() {
    let certificate = "tls: { client_certificate: { cert: file:a, key: file:b } }";
    let oauth2 =
        "auth: { oauth2: { token_url: 'https://login.test/token', client_id: a, client_auth: tls } }";
    let api = |more: &str| format!("api: {{ hosts: [api.test], {oauth2}{more} }}");
    let compile = |destinations: &str| compile(&format!("destinations: {{ {destinations} }}")).map(drop);
    let problem = |name: &str| {
        format!(
            "tls shows the client certificate of destinations.{name}, which has none; add tls.client_certificate there"
        )
    };
    assert!(compile(&api("")).unwrap_err().contains(&problem("api")));
    let login = "login: { hosts: [login.test], cache: {} }";
    let with_login = format!("{}, {login}", api(&format!(", {certificate}")));
    assert!(compile(&with_login).unwrap_err().contains(&problem("login")));

    assert_eq!(compile(&api(&format!(", {certificate}"))), Ok(()));
    let login = format!("login: {{ hosts: [login.test], {certificate} }}");
    assert_eq!(compile(&format!("{}, {login}", api(""))), Ok(()));
}

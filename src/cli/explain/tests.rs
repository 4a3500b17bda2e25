use http::Method;

use super::{Explanation, parse};
use crate::config::Config;
use crate::policy::Policy;

fn explain(url: &str, method: Method) -> Explanation {
    let config = Config::parse(TEXT, "test.yml").unwrap();
    Explanation::of(url, &method, &Policy::compile(&config).unwrap(), &config)
}

const TEXT: &str = r#"
egress: { allow_networks: [10.1.0.0/16] }
dns: { hosts: { inside.example: 10.1.2.3, outside.example: 10.2.2.3 } }
destinations:
  weather:
    hosts: [api.weather.gov]
    auth: { bearer: "vcap:weather/token" }
    methods: [GET, POST]
    paths: [/points/**]
    rate_limit: [5/s burst 10, { limit: 1/s, match: { method: POST, path: /points/new } }]
    concurrency: 3
    on_limit: wait 2s
    queue: 50
    cache: { min_fresh: 30s }
    priority: [{ match: { path: /points/new }, class: low }]
  partner:
    hosts: [partner.agency.gov, "partner.agency.gov:8443"]
    tls: { client_certificate: { cert: file:p.crt, key: file:p.key } }
    headers: { set: { X-Agency: plain-value, X-Key: "env:KEY" }, remove: [X-Internal-*] }
  legacy:
    hosts: [legacy.example]
    auth: { basic: { username: app, password: "env:PASSWORD" } }
    upgrade: false
    insecure_attach_over_http: true
  blind: { hosts: [blind.example, inside.example, outside.example], mode: tunnel, auth: { bearer: "env:T" } }
  fragile:
    hosts: [fragile.example]
    retry: { attempts: 3, on: [connect, 503], max_wait: 2s, budget: 10% }
    circuit_breaker: { failures: 5 }
    limits_apply_to: destination
    rehearse: { after: 20, fail: 2% }
  clear: { hosts: [clear.example], auth: { bearer: "env:T" }, upgrade: false }
"#;

#[test]
fn the_verdict_and_its_reasons_are_told() {
    for (method, url, passes, parts) in [
        (
            Method::GET,
            "https://api.weather.gov/points/1?secret=query",
            true,
            &[
                "GET https://api.weather.gov:443/points/1\n",
                "weather, by its host api.weather.gov",
                "intercepted, because of auth, cache, concurrency, methods, paths, rate_limit:",
                "https://api.weather.gov:443, HTTP version as agreed\n",
                "bearer from vcap:weather/token\n",
                "5/s burst 10, 1/s for POST /points/new (not this request), 3 at once\n",
                "wait 2s",
                "cache               16 MiB by RFC 9111, not asked again within 30s, \
                 stale where the destination fails for 10m\n",
                "queue               50 requests\n",
                "priority            normal\n",
                "respect_upstream    limits that",
                "limits_apply_to     a limit that is learned concerns a credential at a host, and a route until",
                "parent              none\n",
                "verdict             passes, unless the name resolves to denied networks only\n",
            ][..],
        ),
        (
            Method::POST,
            "https://api.weather.gov/points/new",
            true,
            &[
                "1/s for POST /points/new, 3 at once\n",
                "cache               lets go of what it has from there, once this succeeds\n",
                "priority            low\n",
            ],
        ),
        (
            Method::GET,
            "http://fragile.example/",
            true,
            &[
                "retry               3 tries at most, after connect, 503; waits 2s at most; repeats are 10% of the requests at most\n",
                "circuit breaker     opens for 15s after 5 failures within 30s\n",
                "concerns all of the destination, whatever the host, the credential and the route\n",
                "REHEARSAL           simulated: 429 with Retry-After 10s after 20 requests, 2% of the requests fail\n",
            ],
        ),
        (
            Method::POST,
            "http://fragile.example/",
            true,
            &["at most; POST without an Idempotency-Key only after connect\n"],
        ),
        (
            Method::PUT,
            "https://api.weather.gov/points",
            false,
            &["refused (method): ", "add it to the destination's methods"],
        ),
        (
            Method::GET,
            "https://api.weather.gov/points/../admin",
            false,
            &["refused (path): "],
        ),
        (
            Method::GET,
            "http://api.weather.gov/points",
            true,
            &["https://api.weather.gov:443, HTTP version as agreed, upgraded\n"],
        ),
        (
            Method::GET,
            "partner.agency.gov:8443",
            true,
            &[
                "partner, by its host partner.agency.gov:8443\n",
                "because of headers, tls:",
                "file:p.crt with key file:p.key\n",
                "x-agency, x-key from env:KEY\n",
                "X-Internal-*\n",
            ],
        ),
        (
            Method::GET,
            "http://partner.agency.gov:8443/",
            true,
            &["https://partner.agency.gov:8443, HTTP version as agreed, upgraded"],
        ),
        (
            Method::GET,
            "http://legacy.example/",
            true,
            &["http://legacy.example:80, HTTP/1.1\n", "IN CLEAR"],
        ),
        (
            Method::GET,
            "https://blind.example/",
            true,
            &["tunnelled, because of mode: tunnel", "auth work for http:// only"],
        ),
        (
            Method::GET,
            "http://clear.example/",
            false,
            &["refused (plaintext): ", "upgrade: true"],
        ),
        (
            Method::GET,
            "https://elsewhere.example/",
            false,
            &["refused (unlisted): ", "add elsewhere.example to the hosts"],
        ),
        (
            Method::GET,
            "https://api.weather.gov:8443/",
            false,
            &["refused (unlisted): ", "add api.weather.gov:8443"],
        ),
        (
            Method::GET,
            "https://inside.example/",
            true,
            &["10.1.2.3 (by dns.hosts)", "verdict             passes\n"],
        ),
        (
            Method::GET,
            "https://outside.example/",
            false,
            &["refused (network): ", "10.2.2.3", "egress.allow_networks"],
        ),
        (
            Method::GET,
            "http://127.1/",
            false,
            &["refused with 400: the host is neither a name"],
        ),
        (
            Method::TRACE,
            "http://legacy.example/",
            false,
            &["refused with 405: TRACE"],
        ),
        (
            Method::GET,
            "ftp://example.com/",
            false,
            &["refused with 400: only http and https"],
        ),
        (Method::GET, "https://", false, &["refused with 400: "]),
        // Judged in the percent-encoded form, as in a request.
        (
            Method::GET,
            "https://api.weather.gov/points/<a>?query=up{job=\"<x>\"}",
            true,
            &["GET https://api.weather.gov:443/points/%3Ca%3E\n"],
        ),
        (
            Method::GET,
            "https://api.weather.gov/points/../<a>",
            false,
            &["refused (path): "],
        ),
        (
            Method::GET,
            "https://api.weather.gov/points/a b",
            false,
            &["refused with 400: the request target contains a blank", "%20"],
        ),
    ] {
        let explanation = explain(url, method);
        let text = explanation.text();
        for part in parts {
            assert!(text.contains(part), "{url}: {part:?} in\n{text}");
        }
        assert_eq!(explanation.passes, passes, "{url}:\n{text}");
        assert!(
            !text.contains("secret=query") && !text.contains("plain-value"),
            "{text}"
        );
    }
}

#[test]
fn what_a_person_types_becomes_a_target() {
    for (typed, scheme, target, path) in [
        ("example.com", "https", "example.com:443", "/"),
        ("EXAMPLE.com.:443", "https", "example.com:443", "/"),
        ("example.com:80", "http", "example.com:80", "/"),
        ("example.com:8443/a?b", "https", "example.com:8443", "/a"),
        ("http://user:pass@example.com/a#b", "http", "example.com:80", "/a"),
        ("::1", "https", "[::1]:443", "/"),
        ("[2606::1]:8443", "https", "[2606::1]:8443", "/"),
        ("8.8.8.8", "https", "8.8.8.8:443", "/"),
    ] {
        let (parsed, its_uri) = parse(typed).unwrap();
        let told = (
            parsed.scheme.as_str(),
            parsed.to_string(),
            its_uri.path().to_owned(),
        );
        assert_eq!(told, (scheme, target.to_owned(), path.to_owned()), "{typed}");
    }
}

#[test]
fn the_json_form_says_the_same() {
    let explanation = explain("https://api.weather.gov/points", Method::GET);
    let json: serde_json::Value = serde_json::from_str(&explanation.json()).unwrap();
    assert_eq!(json["passes"], true);
    assert_eq!(json["credential"], "bearer from vcap:weather/token");
    assert_eq!(
        json["leaves_as"],
        "https://api.weather.gov:443, HTTP version as agreed"
    );
    let refused = explain("https://elsewhere.example", Method::GET);
    let json: serde_json::Value = serde_json::from_str(&refused.json()).unwrap();
    assert_eq!(json["passes"], false);
}

/// What `observe` lets pass, and what it does not.
#[test]
fn a_host_that_is_only_observed_says_so() {
    let config = Config::parse(
        "egress: { default: observe, ports: [80, 443, 8443] }\ndestinations:\n  a: { hosts: [a.example] }\n  \
         no: { hosts: [no.example], deny: true }",
        "test.yml",
    )
    .unwrap();
    let policy = Policy::compile(&config).unwrap();
    for (url, passes, part) in [
        (
            "https://b.example/",
            true,
            "deny would refuse it, because no destination names the host\n",
        ),
        (
            "http://b.example/x",
            true,
            "egress.default: observe lets it pass and records it",
        ),
        (
            "https://a.example:8443/",
            true,
            "a destination names the host, though not this port\n",
        ),
        ("https://b.example:22/", false, "refused (port)"),
        (
            "https://no.example/",
            false,
            "refused (denied): destination no says deny: true",
        ),
    ] {
        let explanation = Explanation::of(url, &Method::GET, &policy, &config);
        assert_eq!(explanation.passes, passes, "{url}");
        assert!(explanation.text().contains(part), "{}", explanation.text());
    }
}

/// A parent is asked neither for a name that means this machine, nor for one whose addresses the file holds.
#[test]
fn a_name_that_is_known_here_is_judged_with_a_parent_and_without() {
    for parent in ["", "parent: http://parent.test:1"] {
        let text = format!(
            "egress: {{ default: tunnel, ports: [443], {parent} }}\ndns: {{ hosts: {{ Inside.example: 127.0.0.2 }} }}"
        );
        let config = Config::parse(&text, "test.yml").unwrap();
        let policy = Policy::compile(&config).unwrap();
        for url in [
            "https://localhost/",
            "https://db.localhost",
            "https://inside.example",
        ] {
            let explained = Explanation::of(url, &Method::GET, &policy, &config);
            assert!(!explained.passes, "{parent} {url}");
            let text = explained.text();
            assert!(text.contains("refused (network): the address 127.0.0."), "{text}");
        }
        let other = Explanation::of("https://other.example", &Method::GET, &policy, &config);
        assert!(other.passes, "{}", other.text());
    }
}

#[test]
fn an_unknown_local_port_is_answered_by_those_there_are() {
    let entries =
        |text: &str| super::tcp::entries(&Policy::compile(&Config::parse(text, "a.yml").unwrap()).unwrap());
    let tcp = "tcp:\n  db: { listen: 127.0.0.1:5432, to: db.test:5432 }\n  mail: { listen: 127.0.0.1:2525, to: mail.test:465 }\n";
    assert_eq!(entries(tcp), "the entries of `tcp` are db, mail");
    assert_eq!(entries("drain: 8s"), "it has no `tcp`");
}

//! The language of `route_service`.

use std::ffi::OsString;

use super::*;

fn route_service(keys: &str) -> Result<RouteServiceKeys, String> {
    let config = parse(&format!("route_service: {{ {keys} }}")).map_err(|problems| problems.to_string())?;
    Ok(RouteServiceKeys::clone(config.route_service.as_deref().unwrap()))
}

#[test]
fn a_route_service_is_read() {
    let least = route_service("to: [app.test], allow: [203.0.113.7]").unwrap();
    assert_eq!(least.listen, "0.0.0.0:8080".parse().unwrap());
    assert_eq!((least.upgrade, least.trusted_hops), (true, None));
    assert_eq!((&least.auth, least.health.as_deref()), (&None, Some("/healthz")));
    assert_eq!(least.allow, ["203.0.113.7/32".parse().unwrap()]);

    let keys = "listen: \"127.0.0.1:${PORT}\", to: [\"*.apps.test\", \"a.test:8443\"], trusted_networks: [10.1.2.3/8], \
        auth: { basic: { partner: env:P, other: file:/o }, bearer: [env:A, env:B], forward: true }, rate_limit: 10/s burst 20, \
        health: off, upgrade: false, timeouts: { response: 15m }, tls: { ca: file:/ca }";
    let all = route_service(keys).unwrap();
    assert_eq!(all.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(all.trusted_networks, ["10.0.0.0/8".parse().unwrap()]);
    let auth = all.auth.unwrap();
    let places: Vec<_> = auth.references().into_iter().map(|(place, _)| place).collect();
    assert_eq!(places, ["basic.partner", "basic.other", "bearer[0]", "bearer[1]"]);
    assert!(auth.forward && all.health.is_none());
    assert!(parse("route_service: off").unwrap().route_service.is_none());
}

#[test]
fn the_port_is_the_one_that_the_platform_gives() {
    let text = "route_service: { to: [a.test], allow: [0.0.0.0/0] }";
    for (value, port) in [("61001", 61001), ("$PORT", 8080), ("", 8080), ("x", 8080)] {
        let look_up = |name: &str| (name == "PORT").then(|| OsString::from(value));
        let config = Config::parse_in(text, "a.yml", Environment::new(&look_up)).unwrap();
        assert_eq!(config.route_service.unwrap().listen.port(), port, "{value}");
    }
}

#[test]
fn what_would_let_everybody_in_is_a_problem() {
    let rest = "allow: [203.0.113.7]";
    for (keys, told) in [
        ("to: [a.test]", "nothing says who may come, so everybody could"),
        (
            "to: [a.test], auth: off, rate_limit: 5/s",
            "nothing says who may come",
        ),
        ("to: [a.test], auth: {}", "nothing says what has to be shown"),
        (
            "to: [a.test], auth: { forward: true }",
            "nothing says what has to be shown",
        ),
        ("to: [a.test], allow: []", "route_service.allow: an empty list"),
        (rest, "`to` is missing"),
        ("to: [], allow: [203.0.113.7]", "route_service.to: an empty list"),
        ("to: [\"*\"], allow: [203.0.113.7]", "not a host"),
        ("to: [\"https://a.test\"], allow: [203.0.113.7]", "no scheme"),
        (
            "to: [a.test], allow: [partner.test]",
            "neither an address nor a block",
        ),
        (
            "to: [a.test], allow: [203.0.113.7/33]",
            "neither an address nor a block",
        ),
        (
            "to: [a.test], allow: [203.0.113.7], trusted_hops: 0",
            "from 1 to 32",
        ),
        (
            "to: [a.test], allow: [203.0.113.7], trusted_hops: 2, trusted_networks: [10.0.0.0/8]",
            "`trusted_hops` says already which entry is the client",
        ),
        (
            "to: [a.test], auth: { basic: { partner: sesame } }",
            "a plain value where a reference belongs",
        ),
        (
            "to: [a.test], auth: { basic: { \"a:b\": env:P } }",
            "not a name for a user",
        ),
        ("to: [a.test], auth: { bearer: [] }", "an empty list"),
        ("to: [a.test], allow: [203.0.113.7], health: up", "is not a path"),
        (
            "to: [a.test], allow: [203.0.113.7], listen: 8080",
            "a port without an address",
        ),
    ] {
        let problems = route_service(keys).unwrap_err();
        assert!(problems.contains(told), "{keys}: {problems}");
        assert!(!problems.contains("sesame"), "{problems}");
    }
}

#[test]
fn the_route_service_has_a_name_and_a_port_for_itself() {
    let own = "route_service: { listen: \"0.0.0.0:3128\", to: [a.test], allow: [203.0.113.7] }";
    let problems = parse(own).unwrap_err().to_string();
    assert!(problems.contains("its port is that of listen, too"), "{problems}");
    for name in [
        "destinations: { route_service: { hosts: [a.test] } }",
        "tcp: { route_service: { listen: 127.0.0.1:1, to: a.test:1 } }",
    ] {
        let problems = parse(name).unwrap_err().to_string();
        assert!(
            problems.contains("metrics use it for the route service"),
            "{problems}"
        );
    }
}

#[test]
fn only_tokens_that_the_issuer_alone_can_sign_are_taken() {
    let with = |jwt: &str| route_service(&format!("to: [a.test], auth: {{ jwt: {{ {jwt} }} }}"));
    let rest = "issuer: \"https://i.test\", audience: app";
    let auth = with(&format!("jwks: \"https://i.test/keys?a=1\", {rest}"))
        .unwrap()
        .auth
        .unwrap();
    assert!(auth.references().is_empty());
    let rules = auth.jwt.unwrap();
    assert_eq!(
        (rules.algorithms.len(), rules.skew, &*rules.audience),
        (9, Duration::from_secs(30), &["app".to_owned()][..])
    );
    let JwksPlace::Issuer(url) = &rules.jwks else {
        panic!("{rules:?}")
    };
    assert_eq!(
        (url.target.to_string(), &*url.path_and_query),
        ("i.test:443".to_owned(), "/keys?a=1")
    );
    let auth = with(&format!("jwks: file:/keys.json, {rest}"))
        .unwrap()
        .auth
        .unwrap();
    assert_eq!(auth.references()[0].0, "jwt.jwks");

    for (jwt, told) in [
        ("jwks: file:/k, issuer: i".to_owned(), "`audience` is missing"),
        ("jwks: file:/k, audience: a".to_owned(), "`issuer` is missing"),
        (rest.to_owned(), "`jwks` is missing"),
        (
            format!("jwks: \"http://i.test/keys\", {rest}"),
            "http:// would let everybody on the way",
        ),
        (format!("jwks: \"https://u:p@i.test/keys\", {rest}"), "user name"),
        (format!("jwks: keys.json, {rest}"), "not the address"),
        (
            format!("jwks: file:/k, algorithms: [HS256], {rest}"),
            "`HS256` is not one of the choices",
        ),
        (
            format!("jwks: file:/k, algorithms: [none], {rest}"),
            "`none` is not one of the choices",
        ),
        (format!("jwks: file:/k, algorithms: [], {rest}"), "an empty list"),
        (format!("jwks: file:/k, skew: 10m, {rest}"), "write 5m or less"),
        (
            "jwks: file:/k, issuer: i, audience: []".to_owned(),
            "an empty list",
        ),
        (
            "jwks: file:/k, issuer: i, audience: \"\"".to_owned(),
            "an empty text",
        ),
    ] {
        let problems = with(&jwt).unwrap_err();
        assert!(problems.contains(told), "{jwt}: {problems}");
    }
}

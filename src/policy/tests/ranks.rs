//! Which rule wins: the most specific one, and at equal rank the one that denies.

use super::{RequestForm, absolute, compile, connect, policy, routed};
use crate::policy::{Policy, Verdict};

fn verdict(policy: &Policy, target: &str) -> (String, String) {
    routed(policy, &connect(target), RequestForm::Connect)
}

#[test]
fn a_more_specific_rule_wins_whether_it_denies_or_allows() {
    let policy = policy(
        r#"
        destinations:
          no-wide: { hosts: ["*.example.com:*"], deny: true }
          wide: { hosts: ["*.example.com"] }
          no-port: { hosts: ["*.example.com:80"], deny: true }
          no-longer: { hosts: ["*.b.example.com:*"], deny: true }
          longer: { hosts: ["*.b.example.com:8443"] }
          no-host: { hosts: ["a.example.com", "x.b.example.com:*"], deny: true }
          host: { hosts: ["x.b.example.com:443"] }
          no-block: { hosts: [8.0.0.0/8, "2606::/16"], deny: true }
          block: { hosts: [8.8.0.0/16, "2606:4700::/32"] }
          no-address: { hosts: [8.8.8.8, "[2606:4700::1]:443"], deny: true }
          address: { hosts: ["8.8.8.8:443"] }
        "#,
    );
    for (target, word, destination) in [
        ("w.example.com:22", "denied", "no-wide"),
        ("w.example.com:443", "tunnel", "wide"),
        ("w.example.com:80", "denied", "no-port"),
        ("w.b.example.com:443", "denied", "no-longer"),
        ("w.b.example.com:8443", "tunnel", "longer"),
        ("a.example.com:443", "denied", "no-host"),
        ("a.example.com:22", "denied", "no-wide"),
        ("x.b.example.com:8443", "denied", "no-host"),
        ("x.b.example.com:443", "tunnel", "host"),
        ("8.1.1.1:443", "denied", "no-block"),
        ("8.8.1.1:443", "tunnel", "block"),
        ("8.8.8.8:80", "denied", "no-address"),
        ("8.8.8.8:443", "tunnel", "address"),
        ("[2606:1::1]:443", "denied", "no-block"),
        ("[2606:4700::2]:443", "tunnel", "block"),
        ("[2606:4700::1]:443", "denied", "no-address"),
        ("[2606:4700::1]:80", "tunnel", "block"),
    ] {
        let expected = (word.to_owned(), destination.to_owned());
        assert_eq!(verdict(&policy, target), expected, "{target}");
    }
}

/// In either order of the file, and whatever `egress.default` says.
#[test]
fn deny_beats_allow_where_the_patterns_are_the_same() {
    for pattern in [
        "a.test",
        "a.test:443",
        "a.test:*",
        "*.test",
        "*.test:*",
        "8.8.8.8",
        "8.8.0.0/16",
    ] {
        let target = if pattern.starts_with('8') {
            "8.8.8.8:443"
        } else {
            "a.test:443"
        };
        for default in ["deny", "tunnel", "observe"] {
            for (first, second) in [("", ", deny: true"), (", deny: true", "")] {
                let denying = if first.is_empty() { "two" } else { "one" };
                let policy = policy(&format!(
                    "egress: {{ default: {default} }}\ndestinations:\n  \
                     one: {{ hosts: [\"{pattern}\"]{first} }}\n  two: {{ hosts: [\"{pattern}\"]{second} }}\n"
                ));
                let expected = ("denied".to_owned(), denying.to_owned());
                assert_eq!(verdict(&policy, target), expected, "{pattern}");
                let absolute = absolute(&format!("https://{target}/"));
                assert_eq!(
                    routed(&policy, &absolute, RequestForm::Request),
                    expected,
                    "{pattern}"
                );
            }
        }
    }
    // Two that deny are as much a mistake as two that allow.
    let twice =
        "destinations: { one: { hosts: [a.test], deny: true }, two: { hosts: [A.test], deny: true } }";
    let problems = compile(twice).unwrap_err();
    assert!(
        problems.contains("is named by destination one as well"),
        "{problems}"
    );
}

/// Nothing is intercepted for a host that is refused, and its networks need not be open.
#[test]
fn a_destination_that_denies_opens_nothing() {
    let denied = policy(
        "destinations:\n  no: { hosts: [\"*.a.test\", 10.0.0.0/8, 169.254.169.254], deny: true }\n  \
         yes: { hosts: [b.a.test], auth: { bearer: env:T } }",
    );
    let patterns: Vec<_> = denied.intercepted().iter().map(ToString::to_string).collect();
    assert_eq!(patterns, ["b.a.test"]);
    assert_eq!(verdict(&denied, "10.1.1.1:443").0, "denied");
    let Verdict::Deny(_, denial) = denied.route(&connect("c.a.test:443"), RequestForm::Connect) else {
        panic!()
    };
    assert!(
        denial.to_string().contains("destination no says deny: true"),
        "{denial}"
    );

    let idle = "destinations: { no: { hosts: [a.test], deny: true, auth: { bearer: env:T }, paths: [/a] } }";
    let problems = compile(idle).unwrap_err();
    for key in ["destinations.no.auth", "destinations.no.paths"] {
        let told = format!("{key}: has no effect beside `deny: true`");
        assert!(problems.contains(&told), "{problems}");
    }
    let token = "destinations:\n  no: { hosts: [login.test], deny: true }\n  api: { hosts: [api.test], auth: { oauth2: { \
                 token_url: \"https://login.test/t\", client_id: a, client_secret: env:S } } }";
    let problems = compile(token).unwrap_err();
    assert!(
        problems.contains("destinations.no says deny: true about its host"),
        "{problems}"
    );
}

/// The other way out keeps to it, too.
#[test]
fn a_local_port_leaves_to_no_server_that_is_denied() {
    let file = |to: &str| {
        format!(
            "destinations: {{ no: {{ hosts: [\"*.a.test:*\"], deny: true }} }}\n\
             tcp: {{ db: {{ listen: 127.0.0.1:15432, to: \"{to}\" }} }}"
        )
    };
    let problems = compile(&file("db.a.test:5432")).unwrap_err();
    assert!(
        problems.contains("tcp.db.to: destinations.no says deny: true"),
        "{problems}"
    );
    compile(&file("a.test:5432")).unwrap();
}

/// `observe` passes what no destination names; ports, destinations and their rules hold as before.
#[test]
fn observe_lets_pass_what_no_destination_names_and_nothing_else() {
    let observe = policy(
        r#"
        egress: { default: observe, ports: [80, 443, 8443] }
        destinations:
          d: { hosts: [a.example, "*.w.example", 8.8.8.0/24], paths: [/api/**], methods: [GET] }
          no: { hosts: [bad.example], deny: true }
        "#,
    );
    for (target, word) in [
        ("b.example:443", "unlisted"),
        ("b.example:8443", "unlisted"),
        ("w.example:443", "unlisted"),
        ("9.9.9.9:443", "unlisted"),
        ("a.example:8443", "port"),
        ("x.w.example:8443", "port"),
        ("8.8.8.8:8443", "port"),
        ("a.example:443", "intercept"),
        ("bad.example:443", "denied"),
    ] {
        assert_eq!(verdict(&observe, target).0, word, "{target}");
    }
    for refused in ["b.example:22", "a.example:22"] {
        let target = connect(refused);
        let verdict = observe.route(&target, RequestForm::Connect);
        assert!(
            matches!(&verdict, Verdict::Deny(_, denial) if denial.reason() == "port"),
            "{refused}"
        );
    }
    let destination = &observe.destinations[1];
    assert!(destination.permits(&http::Method::GET, "/other").is_err());
    assert!(destination.permits(&http::Method::POST, "/api/x").is_err());
}

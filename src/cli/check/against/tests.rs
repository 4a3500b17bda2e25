use super::{Changes, Side};

fn between(old: &str, new: &str) -> Changes {
    let side =
        |text: &str, name: &str| Side::of(text, name).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    Changes::between(&side(old, "old.yml"), &side(new, "new.yml"))
}

/// What the change of one destination's keys means.
fn keys(old: &str, new: &str) -> String {
    let file = |keys: &str| format!("destinations:\n  api: {{ hosts: [api.test], {keys} }}\n");
    between(&file(old), &file(new)).text()
}

/// Checks that one list of lines under a heading is all that is told.
#[track_caller]
fn assert_told(text: &str, expected: &[(&str, &[&str])]) {
    let mut lines = String::new();
    for (heading, under) in expected {
        lines.push_str(match *heading {
            "wider" => "lets more through, or trusts others:\n",
            "other" => "changes otherwise:\n",
            _ => "lets less through:\n",
        });
        for line in *under {
            lines.push_str("  ");
            lines.push_str(line);
            lines.push('\n');
        }
    }
    assert_eq!(text, lines);
}

#[test]
fn texts_that_mean_the_same_differ_in_nothing() {
    let nothing = "nothing changes: both files mean the same\n";
    for (old, new) in [
        ("drain: 8s\n", "# a comment\negress: { default: deny }\n"),
        (
            "destinations: { a: { hosts: [a.test] }, b: { hosts: [b.test] } }",
            "destinations:\n  b: { hosts: [B.test.] }\n  a:\n    hosts: [a.test]\n    mode: auto\n",
        ),
        (
            "destinations: { a: { hosts: [\"*.a.test\", x.a.test] } }",
            "destinations: { a: { hosts: [\"*.a.test\"] } }",
        ),
        (
            "destinations: { a: { hosts: [a.test] } }",
            "destinations: { a: { hosts: [\"a.test:80\", \"a.test:443\"] } }",
        ),
        (
            "destinations: { a: { hosts: [a.test], rate_limit: 60/m burst 1 } }",
            "destinations: { a: { hosts: [a.test], rate_limit: [60/m burst 1] } }",
        ),
    ] {
        let changes = between(old, new);
        assert_eq!(changes.text(), nothing, "{old}\n{new}");
        assert!(!changes.widen());
    }
}

#[test]
fn hosts_that_become_reachable_or_not_are_named() {
    let old = r#"
        destinations:
          a: { hosts: [a.test, "a.test:8443", gone.test, 8.8.8.0/24] }
          wild: { hosts: ["*.w.test"] }
          moved: { hosts: [m.test] }
          no: { hosts: [opened.test, "*.closed.test"], deny: true }
    "#;
    let new = r#"
        destinations:
          a: { hosts: [a.test, "a.test:*", new.test, 8.8.0.0/16] }
          wild: { hosts: ["*.w.test", opened.test] }
          other: { hosts: [m.test] }
          no: { hosts: [x.w.test], deny: true }
    "#;
    assert_told(
        &between(old, new).text(),
        &[
            (
                "wider",
                &[
                    "becomes reachable: 8.8.0.0/16, a.test on every port that is not named, new.test (destination a)",
                    "becomes reachable: opened.test (destination wild)",
                ],
            ),
            ("other", &["other destination: m.test (moved → other)"]),
            (
                "narrower",
                &[
                    "no longer reachable: gone.test",
                    "no longer reachable: x.w.test (destination no denies it)",
                ],
            ),
        ],
    );
}

#[test]
fn the_default_and_its_ports_are_told_with_what_they_open() {
    let file = |egress: &str| format!("egress: {{ {egress} }}\ndestinations: {{ a: {{ hosts: [a.test] }} }}");
    let text = between(
        &file("default: deny"),
        &file("default: tunnel, ports: [443, 8443]"),
    )
    .text();
    assert!(
        text.contains("  becomes reachable: every host that no destination names, on the ports 443, 8443\n"),
        "{text}"
    );
    assert!(
        text.contains("  becomes reachable: a.test:8443 (egress.default)\n"),
        "{text}"
    );
    let back = between(&file("default: tunnel"), &file("default: deny"));
    assert!(!back.widen(), "{}", back.text());
    let observed = between(&file("default: observe"), &file("default: tunnel"));
    assert_told(
        &observed.text(),
        &[("other", &["egress.default: observe → tunnel"])],
    );
    let unnamed = between(&file("default: tunnel"), "egress: { default: tunnel }").text();
    assert!(
        unnamed.contains("named by no destination any more: a.test (were in destination a"),
        "{unnamed}"
    );
}

#[test]
fn credentials_are_followed_to_their_hosts() {
    let old = r#"
        destinations:
          a: { hosts: [a.test], auth: { bearer: env:ONE } }
          b: { hosts: [b.test], auth: { bearer: env:TWO } }
          c: { hosts: [c.test], auth: [{ match: { path: /v1/** }, bearer: env:THREE }] }
          d: { hosts: [d.test], headers: { set: { X-Key: env:FOUR } } }
          e: { hosts: [e.test], auth: { oauth2: { token_url: "https://old.test/t", client_id: me, client_secret: env:SIX } } }
    "#;
    let new = r#"
        destinations:
          a: { hosts: [a.test, "*.a.test"], auth: { bearer: env:ONE } }
          b: { hosts: [b.test], auth: { bearer: env:FIVE } }
          b2: { hosts: [b2.test], auth: { bearer: env:TWO } }
          c: { hosts: [c.test], auth: { bearer: env:THREE } }
          d: { hosts: [d.test] }
          e: { hosts: [e.test], auth: { oauth2: { token_url: "https://new.test/t", client_id: me, client_secret: env:SIX } } }
    "#;
    let text = between(old, new).text();
    for line in [
        "credential goes further: bearer from env:ONE, to *.a.test\n",
        "credential is new: bearer from env:FIVE, to b.test\n",
        "credential moves: bearer from env:TWO, to b2.test, and no longer to b.test\n",
        "credential goes with other requests: bearer from env:THREE, at c.test: /v1/** → every request\n",
        "credential no longer goes to d.test: header x-key from env:FOUR\n",
        "credential is new: oauth2.client_secret from env:SIX, sent to https://new.test/t, to e.test\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let (wider, narrower) = text.split_once("lets less through:").unwrap();
    assert!(
        wider.contains("env:TWO") && narrower.contains("env:FOUR"),
        "{text}"
    );
    assert!(narrower.contains("sent to https://old.test/t"), "{text}");
}

#[test]
fn a_certificate_that_a_local_port_shows_is_followed_too() {
    let file = |to: &str| {
        format!(
            "tcp: {{ db: {{ listen: 127.0.0.1:15432, to: \"{to}\", tls: {{ client_certificate: {{ cert: file:c, key: \
             file:k }} }} }} }}"
        )
    };
    let text = between(&file("a.test:5432"), &file("b.test:5432")).text();
    assert!(text.contains("credential moves: client certificate"), "{text}");
    assert!(
        text.contains("to b.test:5432 (tcp), and no longer to a.test:5432 (tcp)"),
        "{text}"
    );
    assert!(text.contains("tcp.db: leads elsewhere"), "{text}");
}

/// Each key of a destination, both ways.
#[test]
fn each_rule_is_judged_by_what_it_lets_through() {
    for (narrow, wide, told) in [
        (
            "paths: [/a]",
            "paths: [/a, /b]",
            "paths: [/a] → [/a, /b] (others are allowed)",
        ),
        (
            "paths: [/a]",
            "mode: intercept",
            "paths: [/a] → nothing (everything is allowed now)",
        ),
        (
            "methods: [GET]",
            "methods: [GET, POST]",
            "methods: [GET] → [GET, POST] (others are allowed)",
        ),
        (
            "rate_limit: 5/s",
            "rate_limit: 10/s",
            "rate_limit: 5/s → 10/s (the limit rises)",
        ),
        (
            "rate_limit: 5/s",
            "rate_limit: 5/s burst 9",
            "rate_limit: 5/s → 5/s burst 9 (the limit rises)",
        ),
        (
            "rate_limit: 5/s",
            "mode: intercept",
            "rate_limit: 5/s → nothing (the limit vanishes)",
        ),
        (
            "rate_limit: [5/s, 100/h]",
            "rate_limit: 5/s",
            "rate_limit: [5/s, 100/h] → 5/s (a limit rises or vanishes)",
        ),
        (
            "concurrency: 2",
            "concurrency: 3",
            "concurrency: 2 → 3 (the limit rises)",
        ),
        (
            "concurrency: 2",
            "mode: intercept",
            "concurrency: 2 → nothing (the limit vanishes)",
        ),
        (
            "mode: intercept",
            "mode: tunnel",
            ": TLS of the app is not ended any more",
        ),
        ("upgrade: true", "upgrade: false", ": http:// leaves in clear"),
        (
            "tls: { pins: [sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=] }",
            "tls: { min_version: \"1.2\" }, mode: intercept",
            "tls.pins: [sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=] → [] (default) (other keys are trusted)",
        ),
        (
            "tls: { crl: file:l }",
            "tls: {}, mode: intercept",
            "tls.crl: file:l → null (default) (revoked",
        ),
        (
            "tls: { min_version: \"1.3\" }",
            "tls: {}, mode: intercept",
            "tls.min_version: 1.3 → \"1.2\" (default) (older TLS",
        ),
        (
            "tls: {}, mode: intercept",
            "tls: { ca_extra: file:c }",
            "tls.ca_extra: nothing → file:c (more roots",
        ),
        (
            "upgrade: false, auth: { bearer: env:T }",
            "upgrade: false, auth: { bearer: env:T }, insecure_attach_over_http: true",
            "insecure_attach_over_http: false (default) → true (the credential may leave in clear)",
        ),
        (
            "auth: { bearer: env:T }, scrub: true",
            "auth: { bearer: env:T }",
            "(secrets in answers reach the app)",
        ),
    ] {
        let text = keys(narrow, wide);
        let heading = text.lines().next().unwrap();
        assert_eq!(
            heading, "lets more through, or trusts others:",
            "{narrow} → {wide}\n{text}"
        );
        assert!(text.contains(told), "{told}\n{text}");
        let back = keys(wide, narrow);
        // Ending TLS is told, and is neither.
        assert!(!back.contains("lets more through"), "{wide} → {narrow}\n{back}");
    }
    // Neither of these is less trust than the other.
    for (one, other, told) in [
        (
            "tls: { ca: file:a }",
            "tls: { ca: file:b }",
            "tls.ca: file:a → file:b (other roots are trusted)",
        ),
        (
            "tls: { server_name: a.test }",
            "tls: { server_name: b.test }",
            "tls.server_name: a.test → b.test (another name is verified)",
        ),
    ] {
        for (old, new) in [(one, other), (other, one)] {
            assert!(keys(old, new).starts_with("lets more through"), "{old}");
        }
        assert!(keys(one, other).contains(told), "{told}");
    }
    assert_told(
        &keys("timeouts: { connect: 1s }", "timeouts: { connect: 2s }"),
        &[("other", &["destinations.api.timeouts.connect: 1s → 2s"])],
    );
    assert_told(
        &keys(
            "headers: { set: { X-A: one } }",
            "headers: { set: { X-A: hidden-value, X-B: two } }",
        ),
        &[(
            "other",
            &["destinations.api.headers.set: X-A → X-A, X-B (names are shown, values are not)"],
        )],
    );
}

#[test]
fn the_rest_of_the_file_is_compared_key_by_key() {
    for (old, new, effect, told) in [
        (
            "egress: { allow_networks: [loopback] }",
            "drain: 8s",
            "narrower",
            "egress.allow_networks: [loopback] → [] (default) (fewer addresses may be dialled)",
        ),
        (
            "egress: { deny_networks: [9.9.9.0/24] }",
            "drain: 8s",
            "wider",
            "egress.deny_networks: [9.9.9.0/24] → [private, link-local, loopback, multicast, metadata, reserved] (default) (more addresses may be dialled)",
        ),
        (
            "dns: { hosts: { a.test: 1.1.1.1 } }",
            "dns: { hosts: { a.test: 9.9.9.9 } }",
            "wider",
            "dns.hosts: { a.test: 1.1.1.1 } → { a.test: 9.9.9.9 } (names lead elsewhere)",
        ),
        (
            "admin: 127.0.0.1:9901",
            "admin: 0.0.0.0:9901",
            "wider",
            "admin: 127.0.0.1:9901 → 0.0.0.0:9901 (others can read the pages)",
        ),
        (
            "limits: { connections: 10 }",
            "limits: { connections: 20 }",
            "other",
            "limits.connections: 10 → 20",
        ),
        ("drain: 8s", "drain: 9s", "other", "drain: 8s → 9s"),
    ] {
        assert_told(&between(old, new).text(), &[(effect, &[told])]);
    }
}

/// A file can be as long as a file may be, and its texts are shown on one line.
#[test]
fn hostile_files_are_compared_in_bounds() {
    let many = |prefix: &str| {
        let hosts: Vec<_> = (0..2_000)
            .map(|number| format!("{prefix}{number}.test"))
            .collect();
        format!("destinations: {{ a: {{ hosts: [{}] }} }}", hosts.join(", "))
    };
    let begun = std::time::Instant::now();
    let text = between(&many("a"), &many("b")).text();
    assert!(begun.elapsed().as_secs() < 20);
    assert!(text.contains("and 1988 more"), "{text}");
    let header = |value: &str| format!("headers: {{ remove: [\"{value}\"] }}");
    let long = keys(&header("X-A"), &header(&format!("X-{}", "b".repeat(3000))));
    assert!(long.len() < 600 && long.contains('…'), "{long}");
}

#[test]
fn local_ports_are_told_entry_by_entry() {
    let old = "tcp:\n  a: { listen: 127.0.0.1:1, to: \"a.test:1\" }\n  b: { listen: 127.0.0.1:2, to: \"b.test:1\", concurrency: 5 }\n  \
        c: { listen: 127.0.0.1:3, to: \"c.test:1\", tls: off }\n";
    let new = "tcp:\n  b: { listen: 127.0.0.1:2, to: \"x.test:1\", concurrency: 3, starttls: ldap, \
        tls: { client_certificate: instance_identity, min_version: \"1.3\" } }\n  \
        c: { listen: 127.0.0.1:4, to: \"c.test:1\", parent: none }\n  d: { listen: 127.0.0.1:5, to: \"d.test:1\" }\n";
    let identity = "the instance identity (CF_INSTANCE_CERT with key CF_INSTANCE_KEY)";
    assert_told(
        &between(old, new).text(),
        &[
            (
                "wider",
                &[
                    "credential is new: client certificate the instance identity (CF_INSTANCE_CERT with key CF_INSTANCE_KEY), to x.test:1 (tcp)",
                    "tcp.b: another client certificate: none → the instance identity (CF_INSTANCE_CERT with key CF_INSTANCE_KEY)",
                    "tcp.b: another trust in the server (tls)",
                    "tcp.b: leads elsewhere: b.test:1 → x.test:1",
                    "tcp.c: another way out (parent)",
                    "tcp.d is new: 127.0.0.1:5 leads to d.test:1 over TLS",
                ],
            ),
            (
                "other",
                &[
                    "tcp.b: starttls: none → ldap",
                    "tcp.c: listens elsewhere: 127.0.0.1:3 → 127.0.0.1:4",
                ],
            ),
            (
                "narrower",
                &[
                    "tcp.a is gone: 127.0.0.1:1 leads to a.test:1 over TLS",
                    "tcp.b: connections at once: 5 → 3",
                    "tcp.c: leaves as TLS now",
                ],
            ),
        ],
    );
    let with = between("drain: 8s\n", &new.replace(", parent: none", "")).text();
    assert!(
        with.contains(&format!("with the client certificate {identity}")),
        "{with}"
    );
    assert!(!between(new, new).widen());
}

/// What gives the app more secrets, or others the proxy, must not pass `--fail-on-widening`.
#[test]
fn more_secrets_for_the_app_and_more_users_of_a_port_are_wider() {
    let unix = "tcp: { db: { listen: unix:/tmp/own/db, to: \"db.test:1\" } }";
    let clients = "clients: { a: { basic: env:A } }\n";
    for (old, new, is_wider) in [
        ("", "placeholders: { mode: never }", true),
        ("placeholders: { mode: always }", "", true),
        ("", "placeholders: { keep: [env:A] }", true),
        ("placeholders: { keep: [env:A] }", "", false),
        ("", "placeholders: { mode: always }", false),
        ("", "placeholders: { remove: [env:A] }", false),
        ("listen: unix:/tmp/own/door", "", true),
        ("listen: 127.0.0.1:1", "listen: 127.0.0.1:2", false),
        ("listen: 10.0.0.1:1", "listen: 0.0.0.0:1", true),
        ("listen: [10.0.0.1:1, 10.0.0.2:1]", "listen: 10.0.0.2:1", false),
        (
            unix,
            "tcp: { db: { listen: 127.0.0.1:1, to: \"db.test:1\" } }",
            true,
        ),
        ("instances: 4", "instances: 2", true),
        ("instances: 2", "instances: 4", false),
    ] {
        let (old, new) = (format!("{clients}{old}\n"), format!("{clients}{new}\n"));
        let changes = between(&old, &new);
        assert_eq!(changes.widen(), is_wider, "{old}{new}{}", changes.text());
        assert!(!changes.0.is_empty(), "{old}{new}");
    }
}

/// The secret is the same, and what it is used for is not.
#[test]
fn the_same_secret_with_other_rights_is_wider() {
    let oauth = |more: &str| {
        format!(
            "auth: {{ oauth2: {{ token_url: https://l.test/t, client_id: x, client_secret: env:T{more} }} }}"
        )
    };
    let basic = |user: &str| format!("auth: {{ basic: {{ username: {user}, password: env:T }} }}");
    for (old, new, is_wider) in [
        (oauth(", scopes: [read]"), oauth(", scopes: [read, admin]"), true),
        (oauth(""), oauth(", params: { resource: all }"), true),
        (basic("app"), basic("root"), true),
        (
            "auth: { bearer: env:T }".to_owned(),
            "auth: [{ bearer: env:T }]".to_owned(),
            false,
        ),
        (basic("app"), "methods: [GET]".to_owned(), false),
        (
            "headers: { remove: [cookie, x-a] }".to_owned(),
            "headers: { remove: [x-a] }".to_owned(),
            true,
        ),
        (
            "headers: { remove: [x-a] }".to_owned(),
            "headers: { remove: [cookie, x-a] }".to_owned(),
            false,
        ),
        (
            "respect_upstream: true".to_owned(),
            "respect_upstream: false".to_owned(),
            true,
        ),
    ] {
        // Two more keys, so that outrider sees the requests in both, and sends them over TLS.
        let file = |keys: &str| {
            format!("destinations:\n  api: {{ hosts: [api.test], mode: intercept, tls: {{}}, {keys} }}\n")
        };
        let changes = between(&file(&old), &file(&new));
        assert_eq!(changes.widen(), is_wider, "{old}\n{new}\n{}", changes.text());
    }
}

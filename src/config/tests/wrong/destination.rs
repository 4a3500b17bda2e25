//! What is wrong in a destination.

use super::{assert_told, assert_told_of, told_of};

#[test]
fn a_destination_has_a_name_and_hosts() {
    assert_told(&[
        (
            "destinations: { none: { hosts: [a.test] } }",
            "a.yml:1:23: destinations.none: the name is taken: metrics use it for requests without a destination; choose another",
        ),
        (
            "destinations: { a.b: { hosts: [a.test] } }",
            "a.yml:1:22: destinations.a.b: not a name for a destination; use at most 63 of a to z, 0 to 9, - and _",
        ),
        (
            "destinations: { d: { mode: auto } }",
            "a.yml:1:20: destinations.d: `hosts` is missing; write hosts: [api.example.com]",
        ),
        (
            "destinations: { d: { hosts: [] } }",
            "a.yml:1:29: destinations.d.hosts: an empty list; write at least one, as in [api.example.com]",
        ),
        (
            "destinations: { d: { hosts: a.test } }",
            "a.yml:1:29: destinations.d.hosts: has to be a list; write [A, B], or a line `- A` for each",
        ),
    ]);
}

/// No message may repeat the text of the file: it may be the secret.
#[test]
fn a_secret_in_the_file_is_refused_and_not_repeated() {
    let reference = "write env:NAME, file:PATH or vcap:SERVICE/KEY";
    let plain = "a plain value where a reference belongs";
    let table = [
        ("auth: { bearer: hunter2 }", format!("auth.bearer: {plain}; {reference}")),
        ("auth: { bearer: [hunter2] }", format!("auth.bearer: has to be a reference, but is a list; {reference}")),
        ("auth: { bearer: env:hunter2-x }", "auth.bearer: no name of an environment variable after `env:`; write env:NAME, with letters, digits and _".to_owned()),
        ("auth: { bearer: vcap:hunter2 }", "auth.bearer: no service and key after `vcap:`; write vcap:SERVICE/KEY, with no part empty".to_owned()),
        ("auth: hunter2", "auth: has to be a mapping; write a kind and its reference, as in { bearer: env:TOKEN }".to_owned()),
        ("auth: { basic: { username: a, password: hunter2 } }", format!("auth.basic.password: {plain}; {reference}")),
        ("auth: { header: { name: X-Key, value: hunter2 } }", format!("auth.header.value: {plain}; {reference}")),
        ("auth: { query: { name: key, value: hunter2 } }", format!("auth.query.value: {plain}; {reference}")),
        ("tls: { client_certificate: { cert: file:a.pem, key: hunter2 } }", format!("tls.client_certificate.key: {plain}; {reference}")),
        ("headers: { set: { X-Key: \"hunter2\\n\" } }", "headers.set.X-Key: the value has a control or non-ASCII character, or a blank at an end; write printable ASCII on one line".to_owned()),
        ("headers: { set: { X-Key: env:hunter2.x } }", "headers.set.X-Key: no name of an environment variable after `env:`; write env:NAME, with letters, digits and _".to_owned()),
    ];
    for (keys, expected) in table {
        let told = told_of(keys);
        assert_eq!(told, expected, "{keys}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    let unreadable = [
        "auth: { bearer: 'hunter2 }",
        "auth: { bearer: a: hunter2 }",
        "auth: { bearer: @hunter2 }",
        "auth: { bearer: *hunter2 }",
    ];
    for keys in unreadable {
        let told = told_of(keys);
        assert!(!told.is_empty() && !told.contains("hunter2"), "{told}");
    }
}

#[test]
fn one_credential_of_a_kind_that_works() {
    assert_told_of(&[
        (
            "auth: {}",
            "auth: no credential; write bearer, basic, header, query, oauth2, jwt, aws_sigv4, http_signature or hmac below it",
        ),
        (
            "auth: { bearer: env:A, basic: { username: a, password: env:B } }",
            "auth: 2 credentials at once; keep bearer or basic",
        ),
        (
            "auth: []",
            "auth: an empty list; write at least one credential, or remove the key",
        ),
        (
            "auth: [{ bearer: env:A }, { bearer: env:B }]",
            "auth[1]: never comes to its turn: the one before it has no match, and takes every request; put that one last",
        ),
        (
            "auth: [hunter2]",
            "auth[0]: has to be a mapping; write a kind and its reference, as in { bearer: env:TOKEN }",
        ),
        (
            "auth: [{ match: { path: /a } }]",
            "auth[0]: no credential; write bearer, basic, header, query, oauth2, jwt, aws_sigv4, http_signature or hmac below it",
        ),
        (
            "auth: { match: { path: /a }, bearer: env:A }",
            "auth: a credential with a match stands in a list; write [{ match: { path: /api/** }, bearer: env:TOKEN }]",
        ),
        (
            "auth: { none: false }",
            "auth.none: a credential of no kind; write none: true, or a kind of credential",
        ),
        (
            "auth: { none: true, bearer: env:A }",
            "auth: 2 credentials at once; keep none or bearer",
        ),
        (
            "auth: { pool: [] }",
            "auth.pool: an empty list; write several credentials of one kind, as in [{ bearer: env:TOKEN_1 }, { bearer: env:TOKEN_2 }]",
        ),
        (
            "auth: { pool: [{ bearer: env:A }, { header: { name: X-Key, value: env:B } }] }",
            "auth.pool: credentials of several kinds; write several credentials of one kind, as in [{ bearer: env:TOKEN_1 }, { bearer: env:TOKEN_2 }]",
        ),
        (
            "auth: { pool: [{ bearer: env:A }, { bearer: env:B }] }, cache: {}",
            "destinations.d: a cache beside a pool: what is answered to one credential would be given for another; remove cache, or keep one credential",
        ),
        (
            "auth: { basic: { username: 'a:b', password: env:B } }",
            "auth.basic.username: a user name cannot contain a colon or a control character; write it without",
        ),
        (
            "auth: { query: { name: '', value: env:B } }",
            "auth.query.name: not the name of a parameter; write one, as in api_key",
        ),
        (
            "tls: { client_certificate: { cert: file:a.pem, key: file:a.key, pkcs12: file:a.p12 } }",
            "tls.client_certificate: `pkcs12` stands beside `cert` or `key`, and holds both; keep one or the other",
        ),
        (
            "tls: { client_certificate: { cert: file:a.pem, key: file:a.key, password: env:P } }",
            "tls.client_certificate: `password` is of a PKCS#12 file; write `passphrase`, which is of a key in PEM",
        ),
        (
            "tls: { client_certificate: { pkcs12: file:a.p12, passphrase: env:P } }",
            "tls.client_certificate: `passphrase` is of a key in PEM; write `password`, which is of a PKCS#12 file",
        ),
        (
            "tls: { client_certificate: {} }",
            "tls.client_certificate: nothing says where it is; write { cert: file:PATH, key: file:PATH }, \
             { pkcs12: file:PATH, password: env:NAME } or instance_identity",
        ),
        (
            "tls: { client_certificate: instance-identity }",
            "tls.client_certificate: has to be a mapping or instance_identity; write { cert: file:PATH, key: file:PATH }, \
             { pkcs12: file:PATH, password: env:NAME } or instance_identity",
        ),
        (
            "tls: { client_certificate: { cert: file:a.pem } }",
            "tls.client_certificate: `key` is missing; write { cert: file:PATH, key: file:PATH }",
        ),
        (
            "tls: { ca: file:$NOPE/a }",
            "tls.ca: the environment variable NOPE is not set; set it, or write another path",
        ),
    ]);
}

/// A configuration that could set or remove these could smuggle a request or send it elsewhere.
#[test]
fn headers_of_the_connection_are_not_for_the_configuration() {
    for name in [
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "TE",
        "Upgrade",
        "Proxy-Authorization",
        "Via",
    ] {
        let ours = format!("`{name}` belongs to the connection and is set by the proxy; remove it");
        assert_eq!(
            told_of(&format!("headers: {{ set: {{ {name}: a }} }}")),
            format!("headers.set.{name}: {ours}")
        );
        let credential = format!("auth: {{ header: {{ name: {name}, value: env:A }} }}");
        assert_eq!(told_of(&credential), format!("auth.header.name: {ours}"));
        let removed = told_of(&format!("headers: {{ remove: [{name}] }}"));
        assert!(removed.contains("which belongs to the connection"), "{removed}");
    }
    assert_told_of(&[
        (
            "headers: { remove: ['*'] }",
            "headers.remove[0]: `*` is not the name of a header; write one as in X-Agency, or X-Internal-* for all that begin so",
        ),
        (
            "headers: { remove: ['Content-*'] }",
            "headers.remove[0]: `Content-*` would remove content-length, which belongs to the connection; remove it, or write a longer name",
        ),
        (
            "headers: { remove: ['X-*-Y'] }",
            "headers.remove[0]: `X-*-Y` is not the name of a header; write one as in X-Agency, or X-Internal-* for all that begin so",
        ),
        (
            r#"headers: { set: { X-A: é } }"#,
            "headers.set.X-A: the value has a control or non-ASCII character, or a blank at an end; write printable ASCII on one line",
        ),
        (
            r#"headers: { set: { X-A: " a" } }"#,
            "headers.set.X-A: the value has a control or non-ASCII character, or a blank at an end; write printable ASCII on one line",
        ),
        (
            r#"headers: { set: { X-A: "a\r\nB: c" } }"#,
            "headers.set.X-A: the value has a control or non-ASCII character, or a blank at an end; write printable ASCII on one line",
        ),
        (
            r#"headers: { set: { X-A: "a\0" } }"#,
            "headers.set.X-A: the value has a control or non-ASCII character, or a blank at an end; write printable ASCII on one line",
        ),
        (
            "headers: { set: { X-A: a, x-a: b } }",
            "headers.set.x-a: the same header stands twice; upper and lower case are one; keep one of them",
        ),
        (
            "headers: { set: { 'a b': a } }",
            "headers.set.a b: `a b` is not the name of a header; write one as in X-Agency",
        ),
        (
            "headers: { set: { X-A: } }",
            "headers.set.X-A: has to be a text, but is nothing; write a value or a reference",
        ),
    ]);
}

#[test]
fn rules_and_limits_of_a_destination_are_checked() {
    let rate = "not a rate; write requests per unit, as in 5/s, 30/m, 1000/h or 10000/d, with an optional burst: 5/s burst 10";
    let path = "write /api, /api/* (one segment) or /api/** (everything below)";
    let wait = "write reject, or wait and how long at most, as in wait 2s";
    assert_told_of(&[
        (
            "methods: [get]",
            "methods[0]: `get`: methods are case-sensitive; write GET",
        ),
        (
            "methods: [CONNECT]",
            "methods[0]: `CONNECT` is how a tunnel is asked for, not a request to a destination; remove it",
        ),
        (
            "methods: []",
            "methods: an empty list; remove the key to allow every method",
        ),
        (
            "paths: []",
            "paths: an empty list; remove the key to allow every path",
        ),
        (
            "paths: [api]",
            &format!("paths[0]: `api` does not begin with /; {path}"),
        ),
        (
            "paths: ['/a?b']",
            &format!("paths[0]: `/a?b` is more than a path: a query or fragment is not looked at; {path}"),
        ),
        (
            "paths: ['/a**']",
            &format!("paths[0]: `/a**` has ** beside other characters; it stands for whole segments; {path}"),
        ),
        ("rate_limit: 5", &format!("rate_limit: `5` is {rate}")),
        (
            "rate_limit: [5/s brust 3]",
            &format!("rate_limit[0]: `5/s brust 3` is {rate}"),
        ),
        (
            "rate_limit: [5/s, 5/s burst 5]",
            "rate_limit[1]: the same limit stands twice; keep one of them",
        ),
        (
            "rate_limit: { limit: 5/s }",
            "rate_limit: a limit with a match stands in a list; write [{ limit: 5/s, match: { path: /api/** } }]",
        ),
        (
            "on_limit: wait",
            &format!("on_limit: `wait` is neither reject nor a wait; {wait}"),
        ),
        (
            "on_limit: wait 5",
            &format!("on_limit: `wait 5` is neither reject nor a wait; {wait}"),
        ),
        (
            "concurrency: 0",
            "concurrency: has to be a number from 1 to 4294967295; write it in digits, without quotes",
        ),
        (
            "mode: blind",
            "mode: `blind` is not one of the choices; write auto, intercept or tunnel",
        ),
        (
            "http: 3",
            "http: `3` is not one of the choices; write auto, 1 or 2",
        ),
        (
            "upgrade: yes",
            "upgrade: has to be true or false; write true or false, without quotes",
        ),
        (
            "tls: { min_version: 1.1 }",
            "tls.min_version: `1.1` is not one of the choices; write 1.2 or 1.3",
        ),
        (
            "tls: { groups: [p256] }",
            "tls.groups[0]: `p256` is not one of the choices; write X25519MLKEM768, x25519, secp256r1 or secp384r1",
        ),
        (
            "tls: { groups: [x25519, x25519] }",
            "tls.groups[1]: `x25519` stands here twice; remove it",
        ),
        (
            "tls: { groups: [] }",
            "tls.groups: an empty list; remove the key to offer what is usual",
        ),
        (
            "tls: { pins: [sha256/AAAA] }",
            "tls.pins[0]: `sha256/AAAA` is not the SHA-256 of a public key; write sha256/ and the 44 characters of base64 that the command in docs/destinations.md prints",
        ),
        (
            "tls: { pins: [sha1/2jmj7l5rSw0yVb/vlWAYkK/YBwk=] }",
            "tls.pins[0]: `sha1/2jmj7l5rSw0yVb/vlWAYkK/YBwk=` is not the SHA-256 of a public key; write sha256/ and the 44 characters of base64 that the command in docs/destinations.md prints",
        ),
        (
            "tls: { crl: [] }",
            "tls.crl: an empty list; remove the key to ask for no list",
        ),
        (
            "tls: { crl: [env:A, certs/b.crl] }",
            "tls.crl[1]: a plain value where a reference belongs; write env:NAME, file:PATH or vcap:SERVICE/KEY",
        ),
        (
            "tls: { server_name: 'a.test:443' }",
            "tls.server_name: `a.test:443` is not a host; write a name or an address, without a port",
        ),
    ]);
}

#[test]
fn how_much_a_destination_is_asked_is_said_soundly() {
    let table = [
        (
            "priority: [{ match: { path: /a } }]",
            "priority[0]: `class` is missing; write class: high, normal or low",
        ),
        (
            "priority: [{ class: urgent }]",
            "priority[0].class: `urgent` is not one of the choices; write high, normal or low",
        ),
        (
            "queue: 0",
            "queue: has to be a number from 1 to 1000000; write it in digits, without quotes",
        ),
        (
            "retry: on",
            "retry: has to be a mapping; write keys below it: attempts, on, max_wait, budget",
        ),
        (
            "retry: { attempts: 1 }",
            "retry.attempts: has to be a number from 2 to 10; write it in digits, without quotes",
        ),
        (
            "retry: { on: [429, 404] }",
            "retry.on[1]: `404` is nothing after which a request is sent again; write connect, 408, 425, 429, 500, 502, 503 or 504",
        ),
        (
            "retry: { on: [connect, connect] }",
            "retry.on[1]: stands twice; keep one of them",
        ),
        (
            "retry: { budget: 0% }",
            "retry.budget: `0%` is not a share; write whole percents from 1% to 100%, as in 20%",
        ),
        (
            "limits_apply_to: user",
            "limits_apply_to: `user` is not one of the choices; write auto, destination, host, credential or route",
        ),
        (
            "circuit_breaker: { within: 0s }",
            "circuit_breaker.within: no time at all; write a longer one, as in 5s",
        ),
        (
            "cache: { size: 1KiB }",
            "cache.size: `1KiB` is out of range; write a size from 64KiB to 16GiB",
        ),
        (
            "rehearse: {}",
            "rehearse: nothing to simulate; write when the limit is reached, as in { after: 20 }, or latency or fail",
        ),
        (
            "rehearse: { fail: 2 }",
            "rehearse.fail: `2` is not a share; write whole percents from 0% to 100%, as in 20%",
        ),
        (
            "rehearse: { after: 1, answer: 404 }",
            "rehearse.answer: `404` is not one of the choices; write 429, 503 or 403",
        ),
    ];
    for (keys, expected) in table {
        assert_eq!(told_of(keys), expected, "{keys}");
    }
}

/// The URL of a store holds its password more often than not.
#[test]
fn a_store_with_a_password_in_the_file_is_refused_and_not_repeated() {
    let right = "write a reference, as in vcap:redis/uri, or redis://HOST:PORT where there is no password";
    let cases = [
        (
            "redis://:hunter2@h:6379",
            "a URL with a password where a reference belongs",
        ),
        (
            "rediss://app:hunter2@h",
            "a URL with a password where a reference belongs",
        ),
        (
            "redis://h?password=hunter2",
            "a URL with a password where a reference belongs",
        ),
        (
            "valkeys://default:hunter2@h",
            "a URL with a password where a reference belongs",
        ),
        (
            "http://hunter2",
            "neither a reference nor a URL of Redis or Valkey",
        ),
        ("hunter2", "neither a reference nor a URL of Redis or Valkey"),
        ("'redis://'", "neither a reference nor a URL of Redis or Valkey"),
        (
            "'valkey+unix://h'",
            "neither a reference nor a URL of Redis or Valkey",
        ),
    ];
    for (text, what) in cases {
        let (text, expected) = (
            format!("rate_limit_store: {text}"),
            format!("a.yml:1:19: rate_limit_store: {what}; {right}"),
        );
        assert_told(&[(text.as_str(), expected.as_str())]);
    }
}

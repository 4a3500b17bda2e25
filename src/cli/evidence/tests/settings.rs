//! Each statement changes when its setting changes, and what is not met is told.

use super::{controls, told};

/// Asserts that a control says the first with one configuration, and the second with another.
#[track_caller]
fn changes(id: &str, cases: &[[&str; 4]]) {
    for [yaml, says, changed, then_says] in cases {
        let (one, other) = (
            told(&controls(yaml, None), id),
            told(&controls(changed, None), id),
        );
        assert!(
            one.contains(says) && !one.contains(then_says),
            "{yaml}: {says}\n{one}"
        );
        assert!(
            other.contains(then_says) && !other.contains(says),
            "{changed}: {then_says}\n{other}"
        );
    }
}

/// A destination with these keys.
macro_rules! with {
    ($keys:literal) => {
        concat!("destinations: { a: { hosts: [a.test], ", $keys, " } }")
    };
}

#[test]
fn ac_4_follows_the_policy() {
    changes(
        "ac-4",
        &[
            [
                "egress: { default: deny }",
                "met: A host that no destination names is refused.",
                "egress: { default: tunnel }",
                "gap: Hosts that no destination names pass on the ports `80`, `443`",
            ],
            [
                "egress: { default: tunnel, ports: [80] }",
                "ports `80`: every public address can be reached, and nothing records",
                "egress: { default: observe, ports: [8443] }",
                "ports `8443`: every public address can be reached, and what `deny` would have refused is recorded",
            ],
            [
                with!("methods: [GET]"),
                "met: `a`: these hosts may be reached: `a.test`; only these methods: `GET`",
                with!(""),
                "met: `a`: these hosts may be reached: `a.test`; with every method and path",
            ],
            [
                with!("paths: [/x/**]"),
                "only these paths: `/x/**`",
                with!("deny: true"),
                "met: `a`: refused, whatever else the file says: `a.test`",
            ],
            [
                with!("rate_limit: 5/s"),
                "met: `a`: every request is seen, that in a CONNECT too: its TLS is ended here, because of `rate_limit`",
                with!("rate_limit: 5/s, mode: tunnel"),
                "gap: `a`: blind: a CONNECT",
            ],
            [
                with!("methods: [GET], mode: tunnel"),
                "neither seen nor judged; `methods` hold for http:// only",
                with!("mode: intercept"),
                "because of `mode: intercept`",
            ],
            [
                "destinations: { a: { hosts: [\"*.a.test\"] } }",
                "gap: `a`: `*.a.test` names hosts or ports that nobody listed one by one",
                "destinations: { a: { hosts: [b.a.test] } }",
                "`b.a.test`",
            ],
            [
                "destinations: { a: { hosts: [\"a.test:*\"] } }",
                "gap: `a`: `a.test:*` names hosts",
                "no_proxy: [a.test]\ndestinations: { a: { hosts: [a.test] } }",
                "gap: `a`: apps call `a.test` past the proxy (`no_proxy: a.test`)",
            ],
            [
                with!("auth: { bearer: env:T }"),
                "met: `a`: its credential is attached for these hosts and no others",
                with!("headers: { remove: [X-Internal-*] }"),
                "met: `a`: these header fields are removed from requests: `X-Internal-*`",
            ],
            [
                with!("auth: { bearer: env:T }"),
                "met: Under `outrider exec`, and beside an app on Cloud Foundry, the app gets a random placeholder",
                "placeholders: { mode: never }\ndestinations: { a: { hosts: [a.test], auth: { bearer: env:T } } }",
                "gap: The app has the secrets of destinations as they are",
            ],
            [
                "placeholders: { keep: [env:T] }\ndestinations: { a: { hosts: [a.test], auth: { bearer: env:T } } }",
                "gap: The app has these secrets as they are: `env:T`.",
                "placeholders: { mode: always }\ndestinations: { a: { hosts: [a.test], auth: { bearer: env:T } } }",
                "met: Everywhere, the app gets a random placeholder",
            ],
            [
                with!("rate_limit: 5/s burst 10, on_limit: wait 2s"),
                "met: `a`: limits on requests: `5/s burst 10`; what is more waits `2s` at most, then is refused with 429",
                with!("concurrency: 8"),
                "met: `a`: limits on requests: `8` at once; what is more is refused with 429",
            ],
            [
                with!("rate_limit: [{ limit: 2/s, match: { method: POST, path: /x } }]"),
                "`2/s` for `POST /x`",
                with!(""),
                "note: `a`: no rate limit and no limit of requests at once is configured",
            ],
            [
                "instances: 4\ndestinations: { a: { hosts: [a.test], rate_limit: 5/s } }",
                "shared by `4` instances",
                "rate_limit_store: vcap:redis/uri",
                "met: All instances share each rate limit by way of a store",
            ],
            [
                "tcp: { db: { listen: 127.0.0.1:15432, to: db.test:5432 } }",
                "met: `db`: the local port `127.0.0.1:15432` leads to `db.test:5432` and nowhere else",
                "clients: { app: { basic: env:P, destinations: [unlisted] } }",
                "met: `clients.app`: may use these destinations only: `unlisted`",
            ],
        ],
    );
}

#[test]
fn sc_7_follows_the_ways_in_and_out() {
    changes(
        "sc-7",
        &[
            [
                "egress: { deny_networks: [203.0.113.0/24] }",
                "`reserved`, `203.0.113.0/24`",
                "egress: { allow_networks: [10.0.0.0/8] }",
                "gap: An exception opens the network `10.0.0.0/8` within what is denied.",
            ],
            [
                "egress: { allow_networks: [metadata] }",
                "gap: An exception opens the network `metadata` within what is denied, the platform's metadata services",
                "limits: { connections: 77, memory: 64MiB }",
                "`77` connections, `5000` tunnels, request heads of `65536` bytes and `200` fields, `67108864` bytes",
            ],
            [
                "{}",
                "note: Connections leave outrider directly, through no parent proxy.",
                "egress: { parent: https://p.test }",
                "met: Connections leave through a parent proxy, the next one where one fails: `https://p.test`.",
            ],
            [
                "egress: { parent: https://p.test }",
                "gap: These hosts, and the names below them, are reached without the parent: `apps.internal",
                "egress: { parent: https://p.test, parent_bypass: [] }\nrate_limit_store: vcap:redis/uri",
                "gap: The store of rate limits is reached without the parent.",
            ],
            [
                "egress: { parent: https://p.test }\ndestinations: { a: { hosts: [a.test], parent: none } }",
                "gap: `a`: reached directly, past the parent of all others",
                "destinations: { a: { hosts: [a.test], parent: env:OTHER } }",
                "met: `a`: leaves through parents that are its own: `env:OTHER`",
            ],
            [
                "no_proxy: [x.test]",
                "gap: Apps are told to call these hosts without outrider: `x.test`.",
                "no_proxy: [y.test]",
                "gap: Apps are told to call these hosts without outrider: `y.test`.",
            ],
        ],
    );
    changes(
        "sc-7",
        &[
            [
                "{}",
                "met: The listener `127.0.0.1:3128` can be reached from this machine only.",
                "listen: 0.0.0.0:3128\nclients: { a: { basic: env:P } }",
                "met: The listener `0.0.0.0:3128` can be reached from other machines, and serves the clients of `clients` only.",
            ],
            [
                "listen: unix:/tmp/o.sock",
                "met: The listener `unix:/tmp/o.sock` is a socket in the file system",
                "admin: false",
                "met: There is no admin page.",
            ],
            [
                "{}",
                "met: Metrics, status and health at `127.0.0.1:9901` can be reached from this machine only",
                "admin: 0.0.0.0:9901",
                "gap: Metrics, status and health at `0.0.0.0:9901` can be reached from other machines",
            ],
        ],
    );
}

#[test]
fn sc_8_follows_the_encryption() {
    changes(
        "sc-8",
        &[
            [
                with!("tls: {}, mode: intercept"),
                "met: `a`: every request leaves over TLS 1.2 or 1.3 (key exchange",
                with!("tls: { min_version: \"1.3\", groups: [secp384r1] }"),
                "met: `a`: every request leaves over TLS 1.3 only (key exchange `secp384r1`) to a verified server",
            ],
            [
                with!("auth: { bearer: env:T }"),
                "http:// from the app is upgraded",
                with!("auth: { bearer: env:T }, upgrade: false"),
                "gap: `a`: what the app asks for by http:// leaves in clear",
            ],
            [
                with!("auth: { bearer: env:T }, upgrade: false, insecure_attach_over_http: true"),
                "gap: `a`: the credential is attached where the request leaves in clear, too",
                with!(""),
                "gap: `a`: in a CONNECT, TLS is that of the app",
            ],
            [
                "egress: { default: tunnel }",
                "gap: To hosts that no destination names, http:// leaves in clear",
                "admin: 0.0.0.0:9901",
                "gap: Metrics and status at `0.0.0.0:9901` cross the network in clear.",
            ],
            [
                with!(
                    "auth: { oauth2: { token_url: \"https://l.test/t\", client_id: c, client_secret: env:S } }"
                ),
                "met: `a`: access tokens are requested over TLS, from `l.test:443`",
                with!(
                    "upgrade: false, insecure_attach_over_http: true, auth: { oauth2: { token_url: \"http://l.test/t\", client_id: c, client_secret: env:S } }"
                ),
                "gap: `a`: access tokens are requested in clear, from `l.test:80`",
            ],
            [
                "tcp: { db: { listen: 127.0.0.1:15432, to: db.test:5432, starttls: postgres } }",
                "met: `db`: connections leave over TLS 1.2 or 1.3",
                "tcp: { db: { listen: 127.0.0.1:15432, to: db.test:5432, tls: off } }",
                "gap: `db`: outrider speaks no TLS",
            ],
            [
                "egress: { parent: https://p.test }",
                "met: The parent at `egress.parent` is reached over TLS 1.2 or 1.3.",
                "egress: { parent: http://p.test }",
                "gap: The parent at `egress.parent` is reached in clear",
            ],
            [
                "rate_limit_store: rediss://r.test",
                "met: The store of rate limits is reached over TLS 1.2 or 1.3.",
                "rate_limit_store: redis://r.test",
                "gap: The store of rate limits is reached in clear.",
            ],
            [
                "telemetry: { push: \"https://p.test/w\" }",
                "met: Metrics are pushed to `p.test:443` over TLS.",
                "telemetry: { push: \"http://p.test/w\" }",
                "gap: Metrics are pushed to `p.test:80` in clear.",
            ],
            [
                "listen: 0.0.0.0:3128\nclients: { a: { basic: env:P } }",
                "gap: The listener `0.0.0.0:3128` speaks no TLS",
                "listen: 0.0.0.0:3128\nclients: { a: { certificate: CN=a, ca: file:ca.pem } }",
                "gap: The listener `0.0.0.0:3128` speaks TLS, and cleartext to clients that do not ask for TLS",
            ],
        ],
    );
}

#[test]
fn sc_12_and_sc_13_follow_keys_and_algorithms() {
    changes(
        "sc-12",
        &[
            [
                "{}",
                "note: No destination is intercepted",
                with!("mode: intercept"),
                "are valid for `7days`",
            ],
            [
                "ca: { lifetime: 1h }\ndestinations: { a: { hosts: [a.test], mode: intercept } }",
                "are valid for `1h`",
                "ca: { constraints: none }\ndestinations: { a: { hosts: [a.test], mode: intercept } }",
                "gap: Nothing confines the local authority",
            ],
            [
                "ca: { constraints: names }\ndestinations: { a: { hosts: [a.test], mode: intercept } }",
                "met: Name constraints confine the local authority to the intercepted names.",
                "ca: { constraints: names }\ndestinations: { a: { hosts: [8.8.8.8], mode: intercept } }",
                "gap: Name constraints confine the local authority to the intercepted names, and to no addresses",
            ],
            [
                with!("tls: { client_certificate: { cert: file:a.crt, key: file:a.key } }"),
                "met: `a`: the private key is in `file:a.key`; key and certificate are taken over together",
                with!("tls: { client_certificate: instance_identity }"),
                "met: `a`: the key is that of the platform's instance identity",
            ],
            [
                with!("auth: { jwt: { key: file:sign.pem } }"),
                "met: `a`: a key for signatures is in `file:sign.pem`",
                with!("tls: { client_certificate: { pkcs12: vcap:a/p12 } }"),
                "met: `a`: the private key is in the PKCS#12 file `vcap:a/p12`",
            ],
        ],
    );
    changes(
        "sc-13",
        &[
            [
                with!("auth: { jwt: { key: file:sign.pem, algorithm: ES256 } }"),
                "met: `a`: `jwt` signs with the algorithm `ecdsa-p256-sha256 (ES256)`",
                with!(
                    "auth: { hmac: { key: env:K, algorithm: sha1, message: \"{method}\", set: { X-S: \"{signature}\" } } }"
                ),
                "gap: `a`: `hmac` signs with an old algorithm `HMAC with SHA-1`",
            ],
            [
                with!("tls: { groups: [secp256r1] }"),
                "note: `a`: groups of the key exchange: `secp256r1`",
                with!("tls: { client_certificate: { pkcs12: file:a.p12 } }"),
                "not known: `a`: whether the password of its key file is applied by an approved algorithm",
            ],
        ],
    );
}

#[test]
fn ia_3_follows_who_is_authenticated() {
    changes(
        "ia-3",
        &[
            [
                with!(
                    "tls: { crl: file:a.crl, pins: [sha256/5kJvNEMw0KjrCAu7eXY5HZdvyCS13BbA0VJG1RSP91w=] }"
                ),
                "for its host, under the system's roots, with one of `1` pinned keys in its chain, that no list of `file:a.crl` revokes",
                with!("tls: { server_name: b.test, ca: file:ca.pem, ca_extra: file:x.pem }"),
                "for the name `b.test`, under `file:ca.pem` and `file:x.pem`",
            ],
            [
                with!("tls: { min_version: \"1.3\" }"),
                "gap: `a`: no lists of revoked certificates are configured",
                with!(""),
                "gap: `a`: in a CONNECT the app alone authenticates the server",
            ],
            [
                with!("tls: { client_certificate: instance_identity }"),
                "met: `a`: outrider shows a client certificate where the server asks for one: `the instance identity",
                with!("tls: { client_certificate: { cert: file:a.crt, key: file:a.key } }"),
                "where the server asks for one: `file:a.crt with key file:a.key`",
            ],
            [
                "{}",
                "gap: The listener (`127.0.0.1:3128`) asks nobody who he is",
                "clients: { app: { basic: env:P } }",
                "met: `clients.app`: known by the password in `env:P`",
            ],
            [
                "clients: { app: { app_guid: 7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c } }",
                "known by an instance identity of the app `7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c`",
                "clients: { app: { certificate: CN=x, ca: file:ca.pem } }",
                "known by a certificate with `CN=x`, and the authority `file:ca.pem`",
            ],
            [
                "clients: { app: { certificate: CN=x, ca: file:ca.pem } }",
                "gap: `clients.app`: lists of revoked certificates are not read for clients",
                "tcp: { db: { listen: 127.0.0.1:15432, to: db.test:5432 } }",
                "gap: `db`: the local port asks nobody who he is",
            ],
        ],
    );
}

#[test]
fn ia_5_follows_the_secrets() {
    changes(
        "ia-5",
        &[
            [
                with!("auth: { bearer: env:T }"),
                "note: `a`: the secret of `destinations.a.auth.bearer` comes from `env:T`, which is read at the start",
                with!("auth: { bearer: file:t }"),
                "met: `a`: the secret of `destinations.a.auth.bearer` comes from `file:t`, which is read again when it changes",
            ],
            [
                with!("auth: { bearer: vcap:s/t }"),
                "comes from `vcap:s/t`, which is read again where the platform gives services as files",
                "rate_limit_store: env:STORE",
                "the secret of `rate_limit_store` comes from `env:STORE`",
            ],
            [
                "clients: { app: { basic: env:P } }",
                "not known: `clients.app`: how strong it is, is not judged",
                "egress: { parent: { url: https://p.test, username: u, password: env:PP } }",
                "the secret of `egress.parent.password` comes from `env:PP`",
            ],
            [
                with!("tls: { client_certificate: { cert: file:a.crt, key: file:a.key } }"),
                "not known: `a`: when its client certificate ends was not read (`--offline`)",
                with!("auth: { header: { name: X-Key, value: env:K } }"),
                "not known: `a`: when its credential (`header`) ends is known to its service only",
            ],
            [
                with!("auth: { jwt: { key: file:k, lifetime: 1m } }"),
                "met: `a`: tokens are signed here, each valid for `1m`",
                with!(
                    "auth: { oauth2: { token_url: \"https://l.test/t\", client_id: c, client_secret: env:S } }"
                ),
                "met: `a`: access tokens are asked for (grant `client_credentials`, client authentication `basic`)",
            ],
            [
                with!(
                    "auth: { http_signature: { key_id: k, key: file:k, algorithm: ed25519, components: [\"@method\"] } }"
                ),
                "gap: `a`: its signatures name no time after which they are void",
                with!(
                    "auth: { http_signature: { key_id: k, key: file:k, algorithm: ed25519, components: [\"@method\"], expires: 5m } }"
                ),
                "met: `a`: each signature is void after `5m`",
            ],
            [
                with!("headers: { set: { X-A: b } }"),
                "not known: `a`: the values of these header fields are written in the file; whether one is a secret cannot be told: `x-a`",
                with!("headers: { set: { X-A: env:B } }"),
                "the secret of `destinations.a.headers.set.x-a` comes from `env:B`",
            ],
            [
                with!("auth: { bearer: env:T }, scrub: true"),
                "met: `a`: attached secrets are struck out of the fields and the text of answers",
                with!("auth: { bearer: env:T }, scrub: false"),
                "gap: `a`: attached secrets are struck out of the fields of answers, and not of their text",
            ],
        ],
    );
    let never =
        "placeholders: { mode: never }\ndestinations: { a: { hosts: [a.test], auth: { bearer: env:T } } }";
    for (yaml, is_told) in [(never, true), (with!("auth: { bearer: env:T }"), false)] {
        let told = told(&controls(yaml, None), "ia-5");
        assert_eq!(
            told.contains("gap: The app's environment has the secrets"),
            is_told,
            "{told}"
        );
    }
}

#[test]
fn au_2_and_au_3_follow_the_log() {
    changes(
        "au-2",
        &[
            [
                "log: { access: all }",
                "met: Every request and every tunnel is a line in the log.",
                "log: { access: errors }",
                "gap: Requests that were refused, failed, had to wait",
            ],
            [
                "log: { access: none }",
                "gap: No request is logged, refused ones neither",
                "{}",
                "requests that succeed are counted and not logged",
            ],
            [
                "log: { level: debug }",
                "met: Events of outrider itself are logged from the level `debug` up",
                "log: { level: error }",
                "gap: Events of outrider itself are logged from the level `error` up",
            ],
            [
                with!(""),
                "gap: `a`: a CONNECT is one event, however many requests are in it",
                "tcp: { db: { listen: 127.0.0.1:15432, to: db.test:5432 } }",
                "gap: `db`: a CONNECT is one event",
            ],
        ],
    );
    changes(
        "au-3",
        &[
            [
                "log: { access: errors }",
                "au-3_smt.e met: A line says how it ended",
                "log: { access: none }",
                "au-3_smt.e gap: There is no line for any request.",
            ],
            [
                "{}",
                "au-3_smt.f gap: A line does not say who sent the request",
                "clients: { app: { basic: env:P } }",
                "au-3_smt.f met: A line says which of the `clients` sent the request.",
            ],
            [
                "log: { format: json }",
                "Lines are JSON (`format: json`)",
                "log: { format: text }",
                "Lines are text (`format: text`)",
            ],
        ],
    );
}

#[test]
fn si_4_follows_what_is_watched() {
    changes(
        "si-4",
        &[
            [
                "{}",
                "not known: Metrics are offered by a page to be scraped at `http://127.0.0.1:9901/metrics`",
                "admin: false",
                "gap: Nobody can read the metrics",
            ],
            [
                "telemetry: { push: { url: \"https://p.test/w\", every: 30s } }",
                "met: Metrics leave outrider by a page to be scraped at `http://127.0.0.1:9901/metrics`, and a push to `p.test:443` every `30s`.",
                "admin: false\nlog: { metrics: 60s }",
                "met: Metrics leave outrider by the key counters as a line of the log every `1m`.",
            ],
            [
                "{}",
                "met: An app that sends the placeholder of a secret elsewhere is refused",
                "placeholders: { mode: never }",
                "gap: An app that sends a secret elsewhere is not noticed",
            ],
            [
                with!(""),
                "gap: `a`: what is in a tunnel is not monitored",
                "egress: { default: tunnel }",
                "gap: What is in tunnels to hosts that no destination names is not monitored.",
            ],
            [
                "egress: { default: tunnel }",
                "gap: Connections to hosts that no destination names are not told apart from wanted ones",
                with!("rehearse: { after: 3 }"),
                "gap: `a`: answers are simulated (`429 with Retry-After 10s after 3 requests`)",
            ],
        ],
    );
}

#[test]
fn several_tell_of_the_route_service() {
    let closed = "route_service: { to: [app.test], allow: [192.0.2.0/24] }";
    let open = "route_service: { to: [other.test], upgrade: false, rate_limit: 5/s, auth: { basic: { ann: env:P } } }";
    for (id, says, then_says) in [
        (
            "ac-4",
            "forwarded to these hosts only, and every request is seen: `app.test`",
            "seen: `other.test`",
        ),
        (
            "ac-4",
            "note: `route_service`: how often a client may come is not limited",
            "met: `route_service`: each client may come `5/s",
        ),
        (
            "sc-7",
            "and serves clients from these addresses only: `192.0.2.0/24`",
            "for other machines, and serves clients from every address",
        ),
        (
            "sc-8",
            "met: `route_service`: requests are forwarded over TLS to a verified server",
            "gap: `route_service`: requests are forwarded as their URL says",
        ),
        (
            "ia-3",
            "gap: `route_service`: clients show no credential: their addresses alone decide",
            "met: `route_service`: clients have to show the password of one of the users `ann`",
        ),
    ] {
        changes(id, &[[closed, says, open, then_says]]);
    }
    let tokens = "route_service: { to: [a.test], auth: { jwt: { jwks: \"https://l.test/k\", issuer: \"https://l.test\", audience: app } } }";
    changes(
        "ia-3",
        &[[
            tokens,
            "clients have to show a JSON Web Token of `https://l.test` for `app`",
            open,
            "`ann`",
        ]],
    );
    let secrets = told(&controls(open, None), "ia-5");
    let source = "the secret of `route_service.auth.basic.ann` comes from `env:P`";
    assert!(secrets.contains(source), "{secrets}");
    // It is no destination that apps ask for.
    let flows = told(&controls(open, None), "ac-4");
    assert!(
        !flows.contains("blind") && !flows.contains("may be reached"),
        "{flows}"
    );
}

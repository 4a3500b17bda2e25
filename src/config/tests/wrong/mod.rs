//! What is wrong, word for word: these lines are what a person sees.

use super::*;

mod destination;
mod signature;
mod token;

/// The problems of a text, a line each.
fn told(text: &str) -> String {
    parse(text).map_or_else(|problems| problems.to_string(), |_| "fine".to_owned())
}

/// The problems of one destination, without their places.
fn told_of(keys: &str) -> String {
    let problems = parse(&format!("destinations: {{ d: {{ hosts: [a.test], {keys} }} }}"));
    let problems = problems.map_or_else(|problems| problems.all, |_| Vec::new());
    let lines: Vec<_> = problems
        .iter()
        .map(|problem| problem.to_string().replace("destinations.d.", ""))
        .collect();
    lines.join("\n")
}

#[track_caller]
fn assert_told(table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(told(text), *expected, "{text}");
    }
}

#[track_caller]
fn assert_told_of(table: &[(&str, &str)]) {
    for (keys, expected) in table {
        assert_eq!(told_of(keys), *expected, "{keys}");
    }
}

#[test]
fn every_problem_is_told_at_once_in_the_order_of_the_file() {
    let text = "\
listen: 3128
drian: 8s
egress:
  default: allow
  default: deny
destinations:
  Partner:
    hosts: [a.test, 'a b']
    auth: { bearer: hunter2 }
    rate_limt: 5/s
    probe: GET /
";
    assert_eq!(
        told(text),
        "\
a.yml:1:9: listen: `3128` is a port without an address; write 127.0.0.1:3128
a.yml:2:1: drian: no such key; did you mean `drain`?
a.yml:4:12: egress.default: `allow` is not one of the choices; write deny, tunnel or observe
a.yml:5:3: egress.default: stands twice; the first one is on line 4; keep one of them
a.yml:8:5: destinations.Partner: not a name for a destination; use at most 63 of a to z, 0 to 9, - and _
a.yml:8:21: destinations.Partner.hosts[1]: `a b`: HOST
a.yml:9:21: destinations.Partner.auth.bearer: a plain value where a reference belongs; write env:NAME, file:PATH or vcap:SERVICE/KEY
a.yml:10:5: destinations.Partner.rate_limt: no such key; did you mean `rate_limit`?
a.yml:11:5: destinations.Partner.probe: does not work yet in this version; remove it, or write null"
            .replace("HOST", &host_error())
    );
}

fn host_error() -> String {
    let error = HostPattern::parse("a b").unwrap_err();
    format!(
        "{error}; write host, host:port, \"host:*\", \"*.suffix\", an address or a CIDR block; no scheme, no path"
    )
}

#[test]
fn a_misspelt_key_names_the_nearest_real_one() {
    assert_told(&[
        (
            "destination: {}",
            "a.yml:1:1: destination: no such key; did you mean `destinations`?",
        ),
        (
            "Listen: 127.0.0.1:3128",
            "a.yml:1:1: Listen: no such key; did you mean `listen`?",
        ),
        (
            "egress: { deny-networks: [] }",
            "a.yml:1:11: egress.deny-networks: no such key; did you mean `deny_networks`?",
        ),
        (
            "dns: { min-tll: 5s }",
            "a.yml:1:8: dns.min-tll: no such key; did you mean `min_ttl`?",
        ),
        (
            "log: { foo: 1 }",
            "a.yml:1:8: log.foo: no such key; the keys here are format, level, access, metrics",
        ),
        (
            "hosts: [a.test]",
            "a.yml:1:1: hosts: no such key; `hosts` belongs under `destinations.NAME`",
        ),
        (
            "rate_limit: 5/s",
            "a.yml:1:1: rate_limit: no such key; `rate_limit` belongs under `destinations.NAME`",
        ),
    ]);
    assert_told_of(&[
        ("host: [b.test]", "host: no such key; did you mean `hosts`?"),
        (
            "insecure_attach: true",
            "insecure_attach: no such key; did you mean `insecure_attach_over_http`?",
        ),
        (
            "client_certificate: {}",
            "client_certificate: no such key; `client_certificate` belongs under `destinations.NAME.tls`",
        ),
        (
            "rate_limit: [{ limit: 5/s, match: { methd: GET } }]",
            "rate_limit[0].match.methd: no such key; did you mean `method`?",
        ),
    ]);
}

#[test]
fn a_key_that_would_break_the_line_is_shown_escaped_and_short() {
    let long = "x".repeat(70);
    let told = told(&format!("\"a\\nb\\e[31m\": 1\n{long}: 1"));
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(
        lines[0].starts_with("a.yml:1:1: a\\nb\\u{1b}[31m: no such key"),
        "{told}"
    );
    assert!(
        lines[1].starts_with(&format!("a.yml:2:1: {}…: no such key", "x".repeat(60))),
        "{told}"
    );
}

#[test]
fn a_listener_without_clients_is_an_address_that_only_this_machine_reaches() {
    let open = "everybody who reaches this address could use the proxy and its credentials";
    let right = "say under `clients` who may, or write";
    let public = |port: &str| format!("a.yml:1:9: listen: {open}; {right} 127.0.0.1:{port}");
    assert_told(&[
        (
            "listen: [127.0.0.1:1, 0.0.0.0:2]",
            &format!("a.yml:1:23: listen[1]: {open}; {right} 127.0.0.1:2"),
        ),
        ("listen: 0.0.0.0:3128\nclients: {}", &public("3128")),
        ("listen: 0.0.0.0:3128\nclients: { a: { basic: env:PW } }", "fine"),
        ("listen: 0.0.0.0:3128", &public("3128")),
        ("listen: '[::]:80'", &public("80")),
        ("listen: 10.0.0.1:0", &public("0")),
        ("listen: '[::ffff:10.0.0.1]:1'", &public("1")),
        ("listen: '[::ffff:127.0.0.1]:1'", "fine"),
        ("listen: 127.9.9.9:1", "fine"),
        (
            "listen: :3129",
            "a.yml:1:9: listen: `:3129` is a port without an address; write 127.0.0.1:3129",
        ),
        (
            "listen: localhost:3129",
            "a.yml:1:9: listen: `localhost:3129` is a name where an address is wanted; write 127.0.0.1:3129",
        ),
        (
            "listen: 127.0.0.1",
            "a.yml:1:9: listen: `127.0.0.1` is an address without a port; write 127.0.0.1:3128",
        ),
        (
            "listen: ::1",
            "a.yml:1:9: listen: `::1` is an address without a port; write [::1]:3128",
        ),
        (
            "listen: http://127.0.0.1:1",
            "a.yml:1:9: listen: `http://127.0.0.1:1` is not an address with a port; write 127.0.0.1:3128",
        ),
        (
            "listen: []",
            "a.yml:1:9: listen: an empty list; write an address with its port, as in 127.0.0.1:3128",
        ),
        (
            "listen: [127.0.0.1:1, 127.0.0.1:1]",
            "a.yml:1:23: listen[1]: stands twice; keep one of them",
        ),
        ("listen: [127.0.0.1:0, 127.0.0.1:0]", "fine"),
        (
            "listen: unix:$NOPE/a",
            "a.yml:1:9: listen: the environment variable NOPE is not set; set it, or write another path",
        ),
        (
            "listen: 'unix:'",
            "a.yml:1:9: listen: the path is empty; write a path",
        ),
        (
            &format!("listen: unix:/{}", "a".repeat(107)),
            "a.yml:1:9: listen: the path is too long for a socket; keep it to 107 bytes",
        ),
    ]);
}

#[test]
fn the_operators_door_is_an_address_of_its_own_or_false() {
    assert_told(&[
        ("admin: 0.0.0.0:9901", "fine"),
        ("admin: false", "fine"),
        (
            "admin: true",
            "a.yml:1:8: admin: `true` is not an address with a port; write 127.0.0.1:9901",
        ),
        (
            "admin: 9902",
            "a.yml:1:8: admin: `9902` is a port without an address; write 127.0.0.1:9902",
        ),
        (
            "admin: 127.0.0.1:3128",
            "a.yml:1:8: admin: the same address as `listen`; write another port",
        ),
        (
            "admin:",
            "a.yml:1:6: admin: has to be a text, but is nothing; write an address with its port, as in 127.0.0.1:9901, or false",
        ),
    ]);
}

#[test]
fn amounts_out_of_reason_are_refused() {
    assert_told(&[
        (
            "drain: 8",
            "a.yml:1:8: drain: `8` is not a duration; write a number and a unit, as in 500ms, 10s, 5m, 1h or 7d",
        ),
        (
            "drain: 999d",
            "a.yml:1:8: drain: `999d` is longer than a year; write at most 365d",
        ),
        (
            "workers: 0",
            "a.yml:1:10: workers: has to be auto or a number from 1 to 1024; write it in digits, without quotes",
        ),
        (
            "workers: '2'",
            "a.yml:1:10: workers: has to be auto or a number from 1 to 1024; write it in digits, without quotes",
        ),
        (
            "timeouts: { connect: 0s }",
            "a.yml:1:22: timeouts.connect: no time at all; write a longer one, as in 5s",
        ),
        (
            "dns: { min_ttl: 10m }",
            "a.yml:1:17: dns.min_ttl: `min_ttl` is longer than `max_ttl`; write min_ttl: 5s and max_ttl: 5m, or the like",
        ),
        (
            "limits: { header_size: 1KiB }",
            "a.yml:1:24: limits.header_size: `1KiB` is out of range; write a size from 8KiB to 1MiB",
        ),
        (
            "limits: { header_size: 2MiB }",
            "a.yml:1:24: limits.header_size: `2MiB` is out of range; write a size from 8KiB to 1MiB",
        ),
        (
            "limits: { response_header_size: 8MiB }",
            "a.yml:1:33: limits.response_header_size: `8MiB` is out of range; write a size from 8KiB to 4MiB",
        ),
        (
            "limits: { header_count: 5 }",
            "a.yml:1:25: limits.header_count: has to be a number from 10 to 10000; write it in digits, without quotes",
        ),
        (
            "limits: { response_header_count: 20000 }",
            "a.yml:1:34: limits.response_header_count: has to be a number from 10 to 10000; write it in digits, without quotes",
        ),
        (
            "limits: { memory: 12 }",
            "a.yml:1:19: limits.memory: `12` is not a size; write a number and a unit, as in 512B, 64KiB or 1MiB",
        ),
        (
            "limits: { tunnels: -1 }",
            "a.yml:1:20: limits.tunnels: has to be a number from 1 to 1000000; write it in digits, without quotes",
        ),
        (
            "ca: { lifetime: 1s }",
            "a.yml:1:17: ca.lifetime: too short for a certificate to be of use; write 1m or longer",
        ),
        (
            "egress: { ports: [0] }",
            "a.yml:1:19: egress.ports[0]: has to be a port from 1 to 65535; write it in digits, without quotes",
        ),
    ]);
}

#[test]
fn networks_and_resolvers_are_addresses() {
    let classes = "write private, link-local, loopback, multicast, metadata or reserved, or a block as in 10.255.0.0/16";
    let network = |text: &str| {
        format!(
            "a.yml:1:27: egress.deny_networks[0]: `{text}` is neither a class of networks nor a block; {classes}"
        )
    };
    assert_told(&[
        ("egress: { deny_networks: [privat] }", &network("privat")),
        (
            "egress: { deny_networks: [10.0.0.0/33] }",
            &network("10.0.0.0/33"),
        ),
        (
            "egress: { default: observed }",
            "a.yml:1:20: egress.default: `observed` is not one of the choices; write deny, tunnel or observe",
        ),
        (
            "dns: { servers: 10.0.0.3 }",
            "a.yml:1:17: dns.servers: `10.0.0.3` is no list of resolvers; write system, or a list as in [10.0.0.2:53]",
        ),
        (
            "dns: { servers: [10.0.0.3] }",
            "a.yml:1:18: dns.servers[0]: `10.0.0.3` is an address without a port; write 10.0.0.3:53",
        ),
        (
            "dns: { servers: [] }",
            "a.yml:1:17: dns.servers: an empty list; write system, or a list as in [10.0.0.2:53]",
        ),
        (
            "dns: { hosts: { a.test: b.test } }",
            "a.yml:1:25: dns.hosts.a.test: `b.test` is no address; write it without a port, as in 192.0.2.1",
        ),
        (
            "dns: { hosts: { 10.0.0.1: 10.0.0.1 } }",
            "a.yml:1:27: dns.hosts.10.0.0.1: the key is not the name of a host; write a name, as in api.example.test: 192.0.2.1",
        ),
        (
            "dns: { hosts: { a.test: 10.0.0.1, A.TEST: 10.0.0.1 } }",
            "a.yml:1:43: dns.hosts.A.TEST: the same host stands twice; keep one of them",
        ),
    ]);
}

#[test]
fn what_is_no_yaml_for_a_configuration_says_where_and_what() {
    let quotes = "put a text that contains `: ` in quotes, or check the indentation and the line above";
    let colon = |place: &str| format!("a.yml:{place}: a colon where no key can stand; {quotes}");
    let star = "a value that begins with * needs quotes; write \"*.example.com\"";
    assert_told(&[
        (
            "",
            "a.yml: nothing is written in this file; write at least `egress: { default: deny }`",
        ),
        (
            "# only a comment\n",
            "a.yml: nothing is written in this file; write at least `egress: { default: deny }`",
        ),
        (
            "egress:\n\tports: [443]\n",
            "a.yml:2:1: a tab stands in the indentation; indent with spaces",
        ),
        (
            "drain: 8s\n\tlog: {}\n",
            "a.yml:2:1: a tab stands in the indentation; indent with spaces",
        ),
        (
            "drain: &a 8s",
            "a.yml:1:8: anchors are not part of the language; write the value out where it is used",
        ),
        (
            "drain: 8s\nlog: *a",
            "a.yml:2:6: aliases are not part of the language; write the value out where it is used",
        ),
        ("dns: { hosts: [*.a.test] }", &format!("a.yml:1:16: {star}")),
        ("dns:\n  hosts:\n    - *.a.test", &format!("a.yml:3:7: {star}")),
        (
            "drain: !!str 8s",
            "a.yml:1:8: tags are not part of the language; write the value without its `!`",
        ),
        (
            "drain: 8s\n---\nlog: {}",
            "a.yml:2:1: a second document begins here; keep to one document",
        ),
        (
            "? [a]\n: b",
            "a.yml:1:3: a key has to be plain text; write `key: value`",
        ),
        (
            ": 8s",
            "a.yml:1:1: a key is missing before the colon; write `key: value`",
        ),
        (
            "drain: 'abc",
            "a.yml:1:8: the file ends in the middle of a value; close the quote or bracket that is open here",
        ),
        (
            "log: { level: info\n",
            "a.yml:2:1: a bracket is not closed, or a comma is missing; write `[a, b]` or `{ key: value }`",
        ),
        ("drain: a: b", &colon("1:9")),
        ("drain 8s\nlog: {}", &colon("2:4")),
        ("drain: 8s\n  log: {}", &colon("2:6")),
        (
            "- a",
            "a.yml:1:1: has to be a mapping; write keys below it: listen, listen_tls, clients, admin, workers, drain, drain_until, instances, log, telemetry, ca, egress, no_proxy, dns, timeouts, limits, destinations, placeholders, rate_limit_store, tcp, route_service",
        ),
    ]);
}

#[test]
fn a_client_says_how_it_is_known() {
    let who = "write basic: env:NAME, app_guid: GUID, space_guid: GUID or certificate: CN=NAME below it";
    let name = "write one name, as in CN=partner, OU=batch, O=Agency, DNS=app.example.com or URI=spiffe://agency/app";
    let guid =
        "write the GUID that `cf app NAME --guid`, `cf space NAME --guid` or `cf org NAME --guid` prints";
    let own = "7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c";
    assert_told(&[
        (
            &format!("clients: {{ a: {{ basic: env:PW, app_guid: {own}, ca: file:c.pem }} }}"),
            "fine",
        ),
        (
            "clients: { a: { certificate: [CN=x, O=y], ca: file:c.pem } }",
            "fine",
        ),
        (
            "clients: { a: {} }",
            &format!("a.yml:1:15: clients.a: nothing says how it is known; {who}"),
        ),
        (
            "clients: { a: { certificate: CN=x } }",
            "a.yml:1:15: clients.a: `certificate` without the authority that vouches for it; write ca: file:PATH beside it",
        ),
        (
            "clients: { a: { basic: env:PW, ca: file:c.pem } }",
            "a.yml:1:15: clients.a: `ca` does nothing for a client that is known by its password; remove it, or write \
             certificate: CN=NAME",
        ),
        (
            "clients: { a: { certificate: partner, ca: file:c.pem } }",
            &format!("a.yml:1:30: clients.a.certificate: `partner` is not a name in a certificate; {name}"),
        ),
        (
            "clients: { a: { certificate: CN=, ca: file:c.pem } }",
            &format!("a.yml:1:30: clients.a.certificate: `CN=` is not a name in a certificate; {name}"),
        ),
        (
            "clients: { a: { certificate: DNS=10.0.0.1, ca: file:c.pem } }",
            &format!(
                "a.yml:1:30: clients.a.certificate: `DNS=10.0.0.1` is not a name in a certificate; {name}"
            ),
        ),
        (
            "clients: { a: { app_guid: 'app:x' } }",
            &format!("a.yml:1:27: clients.a.app_guid: `app:x` is not a GUID; {guid}"),
        ),
        (
            "clients: { a: { space_guid: '' } }",
            &format!("a.yml:1:29: clients.a.space_guid: `` is not a GUID; {guid}"),
        ),
        (
            "clients: { a: { app_guid: reports } }",
            &format!("a.yml:1:27: clients.a.app_guid: `reports` is not a GUID; {guid}"),
        ),
        (
            "clients: { a: { organization_guid: 7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1 } }",
            &format!(
                "a.yml:1:36: clients.a.organization_guid: `7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1` is not a GUID; {guid}"
            ),
        ),
        (
            "clients: { a: { space_guid: 7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2bxx } }",
            &format!(
                "a.yml:1:29: clients.a.space_guid: `7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2bxx` is not a GUID; {guid}"
            ),
        ),
        (
            "clients: { A: { basic: env:PW } }",
            "a.yml:1:15: clients.A: not a name for a client; use at most 63 of a to z, 0 to 9, - and _",
        ),
        (
            "clients: { outrider: { basic: env:PW } }",
            "a.yml:1:22: clients.outrider: the name is taken: it is that of the command of `outrider exec`; choose another",
        ),
        (
            "clients: { a: { basic: env:PW, destinations: [x] } }",
            "a.yml:1:47: clients.a.destinations[0]: there is no destination `x`; write the name of one, or unlisted for hosts \
             that no destination names",
        ),
        (
            "clients: { a: { basic: env:PW, destinations: [unlisted, wheather] } }\n\
             destinations: { weather: { hosts: [a.test] } }",
            "a.yml:1:57: clients.a.destinations[1]: there is no destination `wheather`; did you mean `weather`?",
        ),
        (
            "clients: { a: { basic: env:PW, destinations: [] } }",
            "a.yml:1:46: clients.a.destinations: an empty list; remove the key to allow all, or the client to allow none",
        ),
        (
            &format!(
                "clients: {{ a: {{ app_guid: {own} }}, b: {{ app_guid: {own}, destinations: [unlisted] }} }}"
            ),
            "a.yml:1:70: clients.b: known by the same certificates as client a; keep one of the two",
        ),
        (
            "clients: { a: { basic: sesame } }",
            "a.yml:1:24: clients.a.basic: a plain value where a reference belongs; write env:NAME, file:PATH or vcap:SERVICE/KEY",
        ),
        ("listen_tls: false", "fine"),
        ("listen_tls: instance_identity", "fine"),
        ("listen_tls: { cert: file:a, key: file:b }", "fine"),
    ]);
}

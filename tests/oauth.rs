//! OAuth 2.0 and signed tokens, against an authorization server that nobody here wrote (issue's "it must show"
//! 1 and 3).

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::authorization::AuthorizationServer;
use crate::support::{Proxy, Response, closed_port, eventually};

const BASIC: &str = "client_id: app basic, client_secret: env:SECRET, scopes: [read]";

#[track_caller]
fn json_body(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{response:?} {}", response.text());
    serde_json::from_slice(&response.body).unwrap()
}

fn refreshes(proxy: &Proxy, result: &str) -> f64 {
    let labels = [("destination", "api"), ("kind", "token"), ("result", result)];
    proxy.metric("outrider_credential_refresh_total", &labels)
}

/// RFC 6749, 7523 and 8693, each client by each of its ways; the resource server looks the token up.
#[test]
fn every_grant_and_every_client_gets_a_token() {
    let servers = AuthorizationServer::new();
    let signed = |algorithm: &str| {
        format!(
            "client_id: signed-{algorithm}, scopes: [write], \
             client_assertion: {{ key: env:{algorithm}, algorithm: {algorithm}, key_id: key-{algorithm} }}"
        )
    };
    let cases = [
        (BASIC.to_owned(), "app basic", "read"),
        ("client_id: post, client_secret: env:SECRET, client_auth: post".to_owned(), "post", ""),
        (signed("RS256"), "signed-RS256", "write"),
        (signed("PS512"), "signed-PS512", "write"),
        (signed("ES256"), "signed-ES256", "write"),
        (signed("ES512"), "signed-ES512", "write"),
        (signed("EdDSA"), "signed-EdDSA", "write"),
        (
            "grant: refresh_token, refresh_token: env:REFRESH, client_id: refresh, client_secret: env:SECRET".to_owned(),
            "refresh",
            "openid offline_access read",
        ),
        (
            "grant: jwt_bearer, client_id: bearer, assertion: { key: env:RS256, \
             claims: { iss: app@service.test, scope: read } }"
                .to_owned(),
            "bearer",
            "",
        ),
        (
            "grant: token_exchange, subject_token: env:SUBJECT, client_id: exchange, client_secret: env:SECRET, \
             resource: https://api.test/"
                .to_owned(),
            "exchange",
            "",
        ),
    ];
    for (oauth2, client, scope) in cases {
        let proxy = servers.proxy(&oauth2);
        let answer = json_body(&proxy.get(&servers.url("/")));
        assert_eq!(answer["client"], client, "{answer}");
        assert_eq!(answer["scope"].as_str().unwrap_or_default(), scope, "{answer}");
        assert!((refreshes(&proxy, "done") - 1.0).abs() < 0.1);
        servers.assert_quiet(&proxy);
    }
}

/// RFC 8705: the certificate is the client, and the token is good on connections with this certificate only.
#[test]
fn a_certificate_is_the_client_and_binds_the_token() {
    let servers = AuthorizationServer::new();
    let ca = servers.pki.ca().display().to_string();
    let certificate = format!(
        "client_certificate: {{ cert: \"file:{}\", key: \"file:{}\" }}",
        servers.client.cert_path.display(),
        servers.client.key_path.display()
    );
    let oauth2 = format!(
        "oauth2: {{ token_url: \"https://login.test:{}/token\", client_id: certificate, client_auth: tls }}",
        servers.login
    );
    let dns = "dns: { hosts: { login.test: 127.0.0.1, api.test: 127.0.0.1 } }";
    // The asking destination's certificate is shown to the token endpoint as well.
    let proxy = servers.start(&format!(
        "destinations: {{ api: {{ hosts: [\"api.test:{}\"], tls: {{ ca: \"file:{ca}\", {certificate} }}, \
         auth: {{ {oauth2} }} }} }}\n{dns}",
        servers.api
    ));
    let answer = json_body(&proxy.get(&servers.url("/")));
    assert_eq!(
        (&answer["client"], &answer["bound"]),
        (&"certificate".into(), &true.into())
    );
    servers.assert_quiet(&proxy);

    // The destination that names the token endpoint has the certificate, and the one that asks has not: the
    // token is given, and does not help here.
    let proxy = servers.start(&format!(
        "destinations:\n  api: {{ hosts: [\"api.test:{}\"], tls: {{ ca: \"file:{ca}\" }}, auth: {{ {oauth2} }} }}\n  \
         login: {{ hosts: [\"login.test:{}\"], tls: {{ ca: \"file:{ca}\", {certificate} }} }}\n{dns}",
        servers.api, servers.login
    ));
    assert_eq!(proxy.get(&servers.url("/")).status, 401);
}

/// RFC 7515 to 7519, checked by a library of others; one signature serves many requests.
#[test]
fn a_token_that_is_signed_here_verifies() {
    let servers = AuthorizationServer::new();
    for algorithm in [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    ] {
        let jwt = format!(
            "jwt: {{ key: env:{algorithm}, algorithm: {algorithm}, key_id: k1, lifetime: 10m, \
             claims: {{ iss: app, aud: [api.test, other.test], level: 3, admin: true }} }}"
        );
        let proxy = servers.start(&servers.yaml_of(&jwt, ""));
        let first = json_body(&proxy.get(&servers.url(&format!("/signed/{algorithm}"))));
        assert_eq!(first["iss"], "app", "{first}");
        assert_eq!((&first["level"], &first["admin"]), (&3.into(), &true.into()));
        assert_eq!(first["kid"], "k1");
        let lifetime = first["exp"].as_u64().unwrap() - first["iat"].as_u64().unwrap();
        assert_eq!(lifetime, 600);
        let second = json_body(&proxy.get(&servers.url(&format!("/signed/{algorithm}"))));
        assert_eq!(first["token"], second["token"], "signed anew");
        servers.assert_quiet(&proxy);
    }
    assert_eq!(servers.seen().requests.len(), 0);
}

/// A hundred requests at a cold token, and the first client gone: one token request, and all others are answered.
#[test]
fn many_requests_at_a_cold_token_make_one_token_request() {
    let servers = AuthorizationServer::new();
    let proxy = servers.proxy(BASIC);
    servers.mode("hold");
    let mut first = proxy.wire();
    first.send(format!(
        "GET {} HTTP/1.1\r\nHost: api.test:{}\r\n\r\n",
        servers.url("/"),
        servers.api
    ));
    eventually("the token is asked for", || servers.seen().held == 1);
    drop(first);

    let barrier = Barrier::new(100);
    thread::scope(|scope| {
        let ask = || {
            barrier.wait();
            proxy.get(&servers.url("/")).status
        };
        let asked: Vec<_> = (0..100).map(|_| scope.spawn(ask)).collect();
        eventually("all have come", || {
            proxy.metric("outrider_requests_in_flight", &[("destination", "api")]) >= 100.0
        });
        servers.mode("ok");
        assert!(asked.into_iter().all(|asked| asked.join().unwrap() == 200));
    });
    assert_eq!(servers.seen().requests.len(), 1);
    servers.assert_quiet(&proxy);
}

/// The token endpoint is down: requests with a valid token are served, others are refused at once with the
/// reason, and its return does not start a storm of requests.
#[test]
fn an_endpoint_that_is_down_is_left_alone() {
    let servers = AuthorizationServer::new();
    servers.lifetime(8);
    let proxy = servers.proxy(BASIC);
    assert_eq!(proxy.get(&servers.url("/")).status, 200);
    servers.close();
    let closed = Instant::now();

    // The token that there is serves until a second before its end; then there is a reason.
    let (mut served, mut refused) = (0, Vec::new());
    while refused.len() < 20 {
        let asked = Instant::now();
        let answer = proxy.get(&servers.url("/"));
        match answer.status {
            200 => served += 1,
            _ => {
                let detail = answer.assert_ours(502, "connection_refused");
                assert!(detail.contains("no token from login.test:"), "{detail}");
                assert!(detail.contains("refused the connection"), "{detail}");
                assert!(detail.contains("asked again in "), "{detail}");
                let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
                assert!((1..=30).contains(&wait), "{wait}");
                refused.push(asked.elapsed());
            }
        }
        assert!(closed.elapsed() < Duration::from_secs(60));
    }
    assert!(served > 0, "no request went on with the old token");
    refused.sort();
    assert!(
        refused[10] < Duration::from_millis(500),
        "not at once: {refused:?}"
    );
    let failed = refreshes(&proxy, "failed");
    assert!((1.0..=6.0).contains(&failed), "{failed} attempts");
    assert_eq!(servers.seen().requests.len(), 1);

    servers.lifetime(3600);
    servers.open();
    eventually("there is a token again", || {
        thread::scope(|scope| {
            let asked: Vec<_> = (0..20)
                .map(|_| scope.spawn(|| proxy.get(&servers.url("/")).status))
                .collect();
            asked.into_iter().all(|asked| asked.join().unwrap() == 200)
        })
    });
    assert_eq!(servers.seen().requests.len(), 2, "a stampede");
    eventually("it is logged", || proxy.log().contains("there is a token again"));
    servers.assert_quiet(&proxy);
}

/// While a token ages, requests go on with it and one asks for the next.
#[test]
fn a_token_is_replaced_ahead_of_its_end() {
    let servers = AuthorizationServer::new();
    servers.lifetime(10);
    let proxy = servers.proxy(BASIC);
    let name = |answer: &Response| json_body(answer)["jti"].as_str().unwrap().to_owned();
    let first = name(&proxy.get(&servers.url("/")));
    servers.mode("hold");
    let asked = Instant::now();
    while servers.seen().held == 0 {
        assert_eq!(name(&proxy.get(&servers.url("/"))), first, "the old one serves");
        assert!(asked.elapsed() < Duration::from_secs(20));
    }
    servers.lifetime(3600);
    servers.mode("ok");
    eventually("the new one serves", || {
        name(&proxy.get(&servers.url("/"))) != first
    });
    let seen = servers.seen();
    assert_eq!(seen.requests.len(), 2, "{seen:?}");
    assert!(seen.api.iter().all(|status| *status == 200), "{seen:?}");
    assert!((refreshes(&proxy, "done") - 2.0).abs() < 0.1);
    let expiry = [("destination", "api"), ("kind", "token")];
    let expiry = proxy.metric("outrider_credential_expiry_timestamp_seconds", &expiry);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    assert!((3000.0..3600.0).contains(&(expiry - now)), "{expiry}");
}

/// A token that is revoked: one token request for all, one repeat each, and every app gets its answer.
#[test]
fn a_revoked_token_is_renewed_once_for_all() {
    let servers = AuthorizationServer::new();
    let proxy = servers.proxy(BASIC);
    assert_eq!(proxy.get(&servers.url("/")).status, 200);
    servers.revoke();
    let barrier = Barrier::new(20);
    thread::scope(|scope| {
        let ask = || {
            barrier.wait();
            proxy.get(&servers.url("/")).status
        };
        let asked: Vec<_> = (0..20).map(|_| scope.spawn(ask)).collect();
        assert!(asked.into_iter().all(|asked| asked.join().unwrap() == 200));
    });
    let seen = servers.seen();
    assert_eq!(seen.requests.len(), 2, "{seen:?}");
    // A body that is at hand is sent again, too.
    servers.revoke();
    let authority = format!("api.test:{}", servers.api);
    let post = format!(
        "POST http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
    );
    // Renewals are spaced; the first refusal after a quiet time is answered at once.
    eventually("renewed again", || proxy.raw(&post).status == 200);
    servers.assert_quiet(&proxy);
}

/// An answer of 401 that is not about the token is the app's, and does not turn requests into token requests.
#[test]
fn a_401_that_another_token_does_not_change_is_passed_on() {
    let servers = AuthorizationServer::new();
    let proxy = servers.proxy(BASIC);
    for _ in 0..30 {
        assert_eq!(proxy.get(&servers.url("/forbidden")).status, 401);
    }
    let seen = servers.seen();
    assert!(seen.requests.len() <= 6, "{} token requests", seen.requests.len());
    assert_eq!(proxy.get(&servers.url("/")).status, 200);
}

/// Rotation in memory (RFC 6749, section 6): the server takes each refresh token once.
#[test]
fn a_new_refresh_token_takes_the_place_of_the_old_one() {
    let servers = AuthorizationServer::new();
    let refresh =
        "grant: refresh_token, refresh_token: env:REFRESH, client_id: refresh, client_secret: env:SECRET";
    let proxy = servers.proxy(refresh);
    assert_eq!(proxy.get(&servers.url("/")).status, 200);
    servers.revoke();
    assert_eq!(proxy.get(&servers.url("/")).status, 200);
    assert_eq!(servers.seen().requests.len(), 2);
    eventually("it is logged", || {
        proxy.log().contains("may not work after a restart")
    });
    servers.assert_quiet(&proxy);
}

/// Every kind of no: the app learns why, and the log no secret.
#[test]
fn a_refusal_of_the_server_is_reported_without_secrets() {
    let servers = AuthorizationServer::new();
    let wrong = servers.proxy("client_id: app basic, client_secret: env:WRONG");
    let detail = wrong
        .get(&servers.url("/"))
        .assert_ours(502, "proxy_configuration_error");
    assert!(detail.contains("invalid_client: check client_id"), "{detail}");
    servers.assert_quiet(&wrong);

    for (mode, error, told) in [
        ("redirect", "proxy_configuration_error", "redirects (307"),
        (
            "busy",
            "proxy_configuration_error",
            "503 Service Unavailable temporarily_unavailable",
        ),
        (
            "echo",
            "proxy_configuration_error",
            "400 Bad Request invalid_request",
        ),
        ("reset", "http_response_incomplete", "cannot be reached"),
    ] {
        servers.mode(mode);
        for oauth2 in [
            BASIC,
            "client_id: post, client_secret: env:SECRET, client_auth: post",
        ] {
            let proxy = servers.proxy(oauth2);
            let detail = proxy.get(&servers.url("/")).assert_ours(502, error);
            assert!(detail.contains(told), "{mode}: {detail}");
            eventually("it is logged", || proxy.log().contains("no new token"));
            servers.assert_quiet(&proxy);
        }
        // The client's secret was echoed, whole and in pieces; `assert_quiet` has looked for it.
    }
}

/// Token endpoints are judged like everything else that is dialled.
#[test]
fn a_token_endpoint_in_a_denied_network_is_refused() {
    let servers = AuthorizationServer::new();
    let oauth2 = format!(
        "destinations: {{ api: {{ hosts: [\"api.test:{}\"], tls: {{ ca: \"file:{}\" }}, auth: {{ oauth2: {{ \
         token_url: \"https://metadata.test:{}/token\", {BASIC} }} }} }} }}\n\
         dns: {{ hosts: {{ metadata.test: 169.254.169.254, api.test: 127.0.0.1 }} }}",
        servers.api,
        servers.pki.ca().display(),
        closed_port(),
    );
    let proxy = servers.start(&oauth2);
    let detail = proxy
        .get(&servers.url("/"))
        .assert_ours(502, "destination_ip_prohibited");
    assert!(
        detail.contains("169.254.169.254 is in a denied network"),
        "{detail}"
    );
    assert_eq!(servers.seen().api.len(), 0, "a request left without a token");
}

/// A reload that changes nothing about the token keeps it; one that changes the client asks anew.
#[test]
fn a_token_survives_a_reload() {
    let servers = AuthorizationServer::new();
    let proxy = servers.proxy(BASIC);
    assert_eq!(proxy.get(&servers.url("/")).status, 200);
    let reloads = |proxy: &Proxy| proxy.metric("outrider_config_reloads_total", &[("result", "done")]);
    proxy.rewrite(&servers.yaml(BASIC, "timeouts: { response: 30s }"));
    eventually("reloaded", || reloads(&proxy) >= 1.0);
    assert_eq!(proxy.get(&servers.url("/")).status, 200);
    assert_eq!(servers.seen().requests.len(), 1);

    let other = "client_id: post, client_secret: env:SECRET, client_auth: post";
    proxy.rewrite(&servers.yaml(other, ""));
    eventually("reloaded again", || reloads(&proxy) >= 2.0);
    assert_eq!(json_body(&proxy.get(&servers.url("/")))["client"], "post");
    assert_eq!(servers.seen().requests.len(), 2);
}

/// A request that waits for a token says so in its line, and another does not.
#[test]
fn a_wait_for_a_token_is_no_time_of_our_own() {
    let servers = AuthorizationServer::new();
    let yaml = servers.yaml(BASIC, "") + "\nlog: { format: json, access: errors }";
    let proxy = servers.start(&yaml);
    let lines = || {
        let log = proxy.log();
        let lines: Vec<Value> = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        lines
            .into_iter()
            .filter(|line| line.get("status").is_some())
            .collect::<Vec<_>>()
    };
    for _ in 0..5 {
        assert_eq!(proxy.get(&servers.url("/")).status, 200);
    }
    assert_eq!(proxy.get(&servers.url("/forbidden")).status, 401);
    eventually("the last one is logged", || {
        lines().iter().any(|line| line["status"] == 401)
    });
    let of_good: Vec<_> = lines().into_iter().filter(|line| line["status"] == 200).collect();
    assert_eq!(of_good.len(), 1, "{of_good:?}");
}

/// Only requests that carry a token ask for one; what the app has put in its place is not sent.
#[test]
fn a_token_is_asked_for_by_who_carries_it() {
    let servers = AuthorizationServer::new();
    let token_url = format!("https://login.test:{}/token", servers.login);
    let oauth2 = format!("oauth2: {{ token_url: \"{token_url}\", {BASIC} }}");
    let rules = format!(
        "[{{ match: {{ path: /forbidden/** }}, none: true }}, {{ match: {{ path: /signed/** }}, jwt: {{ key: env:ES256, \
         algorithm: ES256, claims: {{ aud: api.test }} }} }}, {{ {oauth2} }}]"
    );
    let yaml = format!(
        "destinations: {{ api: {{ hosts: [\"api.test:{}\"], tls: {{ ca: \"file:{}\" }}, auth: {rules} }} }}\n\
         dns: {{ hosts: {{ login.test: 127.0.0.1, api.test: 127.0.0.1 }} }}",
        servers.api,
        servers.pki.ca().display(),
    );
    let proxy = servers.start(&yaml);
    assert_eq!(proxy.get(&servers.url("/forbidden/a")).status, 401);
    assert_eq!(proxy.ask("OPTIONS", &servers.url("/"), "").status, 401);
    assert_eq!(proxy.get(&servers.url("/signed/ES256")).status, 200);
    assert_eq!(servers.seen().requests.len(), 0);
    let own = "Authorization: Bearer own\r\nConnection: Authorization\r\n";
    assert_eq!(
        json_body(&proxy.ask("GET", &servers.url("/"), own))["client"],
        "app basic"
    );
    assert_eq!(servers.seen().requests.len(), 1);
    assert!(servers.seen().tokens.iter().all(|token| token != "own"));
}

/// Two clients in a pool: what one is refused, the other one gets.
#[test]
fn clients_stand_in_for_each_other() {
    let servers = AuthorizationServer::new();
    let token_url = format!("https://login.test:{}/token", servers.login);
    let member = |client: &str| format!("{{ oauth2: {{ token_url: \"{token_url}\", {client} }} }}");
    let pool = format!(
        "pool: [{}, {}]",
        member(BASIC),
        member("client_id: post, client_secret: env:SECRET, client_auth: post")
    );
    let proxy = servers.start(&servers.yaml_of(&pool, ""));
    let client = |answer: &Response| json_body(answer)["client"].as_str().unwrap().to_owned();
    let mut clients: Vec<_> = (0..6).map(|_| client(&proxy.get(&servers.url("/")))).collect();
    servers.revoke();
    clients.extend((0..6).map(|_| client(&proxy.get(&servers.url("/")))));
    clients.sort();
    clients.dedup();
    assert_eq!(clients, ["app basic", "post"]);
    servers.assert_quiet(&proxy);
}

/// A body that is gone cannot be sent again: the app gets the 401, and the next request another token.
#[test]
fn a_request_that_cannot_be_repeated_has_the_token_renewed_for_the_next() {
    let servers = AuthorizationServer::new();
    let proxy = servers.proxy(BASIC);
    assert_eq!(proxy.get(&servers.url("/")).status, 200);
    servers.revoke();
    let authority = format!("api.test:{}", servers.api);
    let mut wire = proxy.wire();
    let size = 4 << 20;
    wire.send(format!(
        "POST http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
    ));
    wire.send(vec![b'x'; size]);
    assert_eq!(wire.response().status, 401);
    assert_eq!(proxy.get(&servers.url("/")).status, 200);
    let seen = servers.seen();
    assert_eq!(seen.requests.len(), 2);
    assert_eq!(seen.api, [200, 401, 200]);
}

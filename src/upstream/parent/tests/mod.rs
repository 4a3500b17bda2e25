//! What is read of the answers of real parents, byte for byte.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::error::ParentError;
use super::*;
use crate::config::Config;
use crate::policy::Policy;
use crate::secret::Snapshot;
use crate::secret::roots::SystemRoots;
use crate::telemetry::Telemetry;

mod socks;
mod words;

const LIMIT: Duration = Duration::from_secs(5);

/// Builds what `egress.parent` names, with the URLs of these variables.
fn build(parent: &str, variables: &[(&str, &str)]) -> Result<Parents, ParentSettingsError> {
    let config = Config::parse(&format!("egress: {{ parent: {parent} }}"), "test").unwrap();
    let policy = Policy::compile(&config).unwrap();
    let plan = policy.destinations[0].parent.as_ref().unwrap();
    let snapshot = Snapshot::of_variables(variables.iter().copied());
    let roots = SystemRoots::new(&snapshot, Path::new("/nowhere"));
    let rules = EgressRules::of_operator().with_own(vec!["127.0.0.1:3128".parse().unwrap()]);
    Parents::build(
        plan,
        &snapshot,
        &roots,
        &rules,
        &"outrider-1".into(),
        &Telemetry::new(),
    )
}

fn one(parent: &str, variables: &[(&str, &str)]) -> Arc<Parent> {
    Arc::clone(&build(parent, variables).unwrap().list[0])
}

fn target(authority: &str) -> Target {
    Target::of_connect(&authority.parse().unwrap()).unwrap()
}

/// Plays a parent: reads to the end of the head, writes `answer`, and closes unless it `stays`.
async fn play(mut parent: DuplexStream, answer: Vec<u8>, stays: bool) -> (String, Option<DuplexStream>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(parent.read_u8().await.unwrap());
    }
    parent.write_all(&answer).await.unwrap();
    (String::from_utf8(head).unwrap(), stays.then_some(parent))
}

/// Asks for a tunnel. Returns what was sent, and what became of it.
async fn connect(answer: &str, stays: bool) -> (String, Result<Bytes, ParentError>) {
    let parent = one("env:PARENT", &[("PARENT", "http://user:p%40ss@parent.test:3128")]);
    let (ours, theirs) = duplex(64 * 1024);
    let playing = tokio::spawn(play(theirs, answer.as_bytes().to_vec(), stays));
    let target = target("api.example.test:443");
    let opened = tunnel::open(ours, &target, &parent, "outrider-1", LIMIT).await;
    let (head, _held) = playing.await.unwrap();
    let result = opened.map(|(_, early)| early);
    (
        head,
        result.map_err(|fault| ParentError::new(&parent, &target, fault)),
    )
}

#[tokio::test]
async fn a_connect_has_the_credentials_at_once_and_shows_a_loop() {
    let (head, result) = connect("HTTP/1.1 200 OK\r\n\r\n", true).await;
    assert_eq!(
        head,
        "CONNECT api.example.test:443 HTTP/1.1\r\nhost: api.example.test:443\r\n\
         Proxy-Authorization: Basic dXNlcjpwQHNz\r\ncdn-loop: outrider-1\r\n\r\n"
    );
    assert!(result.unwrap().is_empty());
}

/// As squid, tinyproxy, Apache, Traffic Server, Envoy, mitmproxy, pproxy, npm's proxy and Caddy say it.
#[tokio::test]
async fn every_200_opens_the_tunnel_and_what_follows_belongs_to_the_target() {
    for answer in [
        "HTTP/1.1 200 Connection established\r\n\r\n",
        "HTTP/1.0 200 Connection established\r\nProxy-agent: tinyproxy/1.11.1\r\n\r\n",
        "HTTP/1.0 200 Connection Established\r\nProxy-agent: Apache/2.4.71 (Debian)\r\n\r\n",
        "HTTP/1.1 200 OK\r\nDate: Sun, 29 Nov 2026 10:00:00 GMT\r\nConnection: keep-alive\r\nServer: ATS/9.2.9\r\n\r\n",
        "HTTP/1.1 200 OK\r\ndate: x\r\nserver: envoy\r\n\r\n",
        "HTTP/1.1 200 Connection established\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 Connection established\r\nDate: x\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nServer: Caddy\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 8\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 Anything\r\n\r\n",
    ] {
        for (early, stays) in [
            ("", true),
            ("220 hello\r\n", true),
            ("5\r\nhello\r\n0\r\n\r\n", false),
        ] {
            let (_, result) = connect(&format!("{answer}{early}"), stays).await;
            assert_eq!(result.unwrap(), early, "{answer}");
        }
    }
}

/// A refusal: the answer, the RFC 9209 type, the label, whether the next parent is tried, and a part of the sentence.
type Row = (&'static str, &'static str, &'static str, bool, &'static str);

const REFUSALS: &[Row] = &[
    (
        "HTTP/1.1 403 Forbidden\r\nProxy-Status: outrider; error=http_request_denied; details=\"the client certificate of evil is \
         that of no client\"\r\n\r\n",
        "proxy_configuration_error",
        "credentials",
        true,
        "our certificate is that of none",
    ),
    (
        "HTTP/1.1 403 Forbidden\r\nProxy-Status: outrider; error=http_request_denied; details=\"client evil may not use \
         destination certificate\"\r\n\r\n",
        "destination_unavailable",
        "denied",
        false,
        "its rules deny this destination",
    ),
    (
        "HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nhtml",
        "destination_unavailable",
        "denied",
        false,
        "its rules deny this destination",
    ),
    (
        "HTTP/1.1 500 Internal Server Error\r\nX-Squid-Error: ERR_CANNOT_FORWARD 0\r\n\r\n<html>",
        "dns_error",
        "target_dns",
        false,
        "name does not resolve there",
    ),
    (
        "HTTP/1.1 503 Service Unavailable\r\nX-Squid-Error: ERR_CONNECT_FAIL 111\r\n\r\n",
        "connection_refused",
        "target_refused",
        false,
        "the destination refused its connection",
    ),
    (
        "HTTP/1.1 503 Service Unavailable\r\nX-Squid-Error: ERR_CONNECT_FAIL 110\r\n\r\n",
        "connection_timeout",
        "target_timeout",
        false,
        "did not answer it in time",
    ),
    (
        "HTTP/1.1 403 Filtered\r\nServer: tinyproxy/1.11.1\r\n\r\n",
        "destination_unavailable",
        "denied",
        false,
        "rules",
    ),
    (
        "HTTP/1.0 500 Unable to connect\r\nServer: tinyproxy/1.11.1\r\n\r\n",
        "destination_unavailable",
        "target_unreachable",
        false,
        "could not reach",
    ),
    (
        "HTTP/1.1 404 No such domain\r\n\r\n",
        "dns_error",
        "target_dns",
        false,
        "does not resolve",
    ),
    (
        "HTTP/1.1 503 Connect failed\r\n\r\n",
        "destination_unavailable",
        "target_unreachable",
        false,
        "could not reach",
    ),
    (
        "HTTP/1.1 502 Proxy Error\r\nContent-Length: 1\r\n\r\nx",
        "destination_unavailable",
        "target_unreachable",
        false,
        "could not reach",
    ),
    (
        "HTTP/1.1 403 Tunnel Forbidden\r\nServer: ATS/9.2.9\r\n\r\n",
        "destination_unavailable",
        "denied",
        false,
        "rules",
    ),
    (
        "HTTP/1.1 500 Cannot find server.\r\nServer: ATS/9.2.9\r\n\r\n",
        "dns_error",
        "target_dns",
        false,
        "does not resolve",
    ),
    (
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 19\r\n\r\nRBAC: access denied",
        "destination_unavailable",
        "denied",
        false,
        "rules deny this",
    ),
    (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 22\r\n\r\nDNS resolution failure",
        "dns_error",
        "target_dns",
        false,
        "does not resolve",
    ),
    (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 91\r\nconnection: close\r\n\r\nupstream connect error or \
         disconnect/reset before headers. reset reason: connection timeout",
        "connection_timeout",
        "target_timeout",
        false,
        "in time",
    ),
    (
        "HTTP/1.1 503 Service Unavailable\r\n\r\nupstream connect error or disconnect/reset before headers. reset reason: \
         remote connection failure",
        "connection_refused",
        "target_refused",
        false,
        "refused",
    ),
    (
        "HTTP/1.1 502 Bad Gateway\r\n\r\nCannot connect to nosuch.invalid:443: [Errno -2] Name or service not known",
        "dns_error",
        "target_dns",
        false,
        "does not resolve",
    ),
    (
        "HTTP/1.1 502 Bad Gateway\r\ntransfer-encoding: chunked\r\n\r\n2b\r\nCannot connect: [Errno 111] Connect call failed\r\n0\r\n\r\n",
        "connection_refused",
        "target_refused",
        false,
        "refused",
    ),
    (
        "HTTP/1.1 502 Bad Gateway\r\nProxy-agent: proxy.py v2\r\nConnection: close\r\n\r\nBad Gateway",
        "destination_unavailable",
        "target_unreachable",
        false,
        "could not",
    ),
    // Caddy: denied, or dead; and a name that does not resolve.
    (
        "HTTP/1.1 403 Forbidden\r\nServer: Caddy\r\nContent-Length: 0\r\n\r\n",
        "destination_unavailable",
        "denied",
        false,
        "and also where no address of the destination could be reached",
    ),
    (
        "HTTP/1.1 502 Bad Gateway\r\nServer: Caddy\r\nContent-Length: 0\r\n\r\n",
        "dns_error",
        "target_dns",
        false,
        "does not resolve",
    ),
    // Credentials.
    (
        "HTTP/1.1 407 Proxy Authentication Required\r\nX-Squid-Error: ERR_CACHE_ACCESS_DENIED 0\r\n\r\n",
        "proxy_configuration_error",
        "credentials",
        true,
        "does not accept our credentials",
    ),
    (
        "HTTP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"Tinyproxy\"\r\n\r\n",
        "proxy_configuration_error",
        "credentials",
        true,
        "does not accept our credentials",
    ),
    (
        "HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\n\r\n",
        "proxy_configuration_error",
        "credentials",
        true,
        "credentials",
    ),
    (
        "HTTP/1.1 594 Connection Refused\r\n\r\n",
        "connection_refused",
        "target_refused",
        false,
        "refused",
    ),
    (
        "HTTP/1.1 599 Upstream Error\r\n\r\n",
        "destination_unavailable",
        "target_unreachable",
        false,
        "could not",
    ),
    // Not the parent, or none.
    (
        "HTTP/1.1 404 Not Found\r\nX-Cf-Routererror: unknown_route\r\n\r\n",
        "destination_unavailable",
        "unreachable",
        true,
        "the platform's router",
    ),
    (
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "proxy_configuration_error",
        "no_proxy",
        true,
        "see that this is a proxy",
    ),
    (
        "HTTP/1.1 404 Not Found\r\nServer: nginx\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nhtml",
        "proxy_configuration_error",
        "no_proxy",
        true,
        "like a web server, not a proxy",
    ),
    (
        "HTTP/1.1 404 Not Found\r\nDate: x\r\nConnection: close\r\n\r\n",
        "dns_error",
        "target_dns",
        false,
        "does not resolve",
    ),
    (
        "HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nContent-Length: 4\r\n\r\nhtml",
        "proxy_configuration_error",
        "no_proxy",
        true,
        "if its port speaks TLS, write https://",
    ),
    (
        "HTTP/1.1 405 Method Not Allowed\r\n\r\n",
        "proxy_configuration_error",
        "no_proxy",
        true,
        "allows CONNECT",
    ),
    (
        "HTTP/1.1 426 Upgrade Required\r\n\r\n",
        "proxy_configuration_error",
        "no_proxy",
        true,
        "proxy",
    ),
    (
        "HTTP/1.1 302 Found\r\nLocation: http://evil.test/\r\n\r\n",
        "proxy_configuration_error",
        "no_proxy",
        true,
        "proxy",
    ),
    (
        "HTTP/1.1 508 Loop Detected\r\n\r\n",
        "proxy_loop_detected",
        "loop",
        true,
        "come back",
    ),
    (
        "HTTP/1.1 429 Too Many\r\n\r\n",
        "destination_unavailable",
        "busy",
        true,
        "too much",
    ),
    (
        "HTTP/1.1 504 Gateway Timeout\r\n\r\n",
        "connection_timeout",
        "target_timeout",
        false,
        "in time",
    ),
    (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "proxy_configuration_error",
        "no_proxy",
        true,
        "proxy",
    ),
    // No HTTP.
    (
        "\x15\x03\x01\x00\x02\x02\x46",
        "http_protocol_error",
        "malformed",
        true,
        "https://",
    ),
    (
        "SSH-2.0-OpenSSH_9.2\r\n",
        "http_protocol_error",
        "malformed",
        true,
        "HTTP proxy",
    ),
    (
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "http_protocol_error",
        "malformed",
        true,
        "cannot be read",
    ),
    (
        "HTTP/2.0 200 OK\r\n\r\n",
        "http_protocol_error",
        "malformed",
        true,
        "cannot be read",
    ),
    // Silence and half an answer.
    (
        "",
        "connection_terminated",
        "closed",
        false,
        "closed the connection without an answer",
    ),
    (
        "HTTP/1.1 200 Connection est",
        "connection_terminated",
        "closed",
        false,
        "without an answer",
    ),
];

#[tokio::test]
async fn refusals_are_explained_as_what_they_are() {
    for (answer, status, label, is_of_parent, words) in REFUSALS {
        let (_, result) = connect(answer, false).await;
        let error = result.unwrap_err();
        let seen = (error.proxy_status(), error.fault_for_tests().result());
        assert_eq!(seen, (*status, *label), "{answer}");
        assert_eq!(error.fault_for_tests().is_of_parent(), *is_of_parent, "{answer}");
        let text = error.to_string();
        assert!(text.contains(words), "{answer}: {text}");
        assert!(text.contains("http://parent.test:3128"), "{text}");
        for secret in ["p@ss", "p%40ss", "dXNlcjpwQHNz", "html", "realm", "evil"] {
            assert!(!text.contains(secret), "{answer}: {text}");
        }
    }
}

#[tokio::test]
async fn heads_without_an_end_and_silence_end_in_time() {
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(40 * 1024));
    let (_, result) = connect(&endless, true).await;
    assert_eq!(result.unwrap_err().proxy_status(), "http_protocol_error");
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(200);
    let (_, result) = connect(&interim, true).await;
    assert_eq!(result.unwrap_err().proxy_status(), "http_protocol_error");
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_says_nothing_or_only_interim_answers_is_left() {
    for answer in ["", "HTTP/1.1 200 OK\r\nX", "HTTP/1.1 102 Processing\r\n\r\n"] {
        let (_, result) = connect(answer, true).await;
        let error = result.unwrap_err();
        assert!(
            error.timed_out() && error.fault_for_tests().is_silence(),
            "{answer}: {error}"
        );
    }
}

#[test]
fn the_credentials_of_every_shape_are_found() {
    let basic = |parent: &str, variables: &[(&str, &str)]| {
        let parent = one(parent, variables);
        let value = parent.tunnel_form.authorization.as_ref();
        value.map(|value| {
            assert!(value.is_sensitive());
            value.to_str().unwrap().to_owned()
        })
    };
    let services = r#"{"user-provided":[
        {"name":"egress-proxy","credentials":{"domain":"p.apps.internal","https_port":61443,"http_port":8080,
         "https_uri":"https://u:p@p.apps.internal:61443","http_uri":"http://u:p@p.apps.internal:8080","username":"u","password":"p"}},
        {"name":"several","credentials":{"domain":"p.apps.internal","credentials":{"my-app":{"https_uri":"https://u:p@p.apps.internal:61443"}}}},
        {"name":"by-hand","credentials":{"uri":"https://u:p@p.apps.internal:61443/"}}]}"#;
    for reference in [
        "vcap:egress-proxy/https_uri",
        "vcap:several/credentials/my-app/https_uri",
        "vcap:by-hand/uri",
        "{ url: https://p.apps.internal:61443, username: u, password: vcap:egress-proxy/password }",
        "{ url: https://p.apps.internal:61443, username: vcap:egress-proxy/username, password: vcap:egress-proxy/password }",
    ] {
        let variables = [("VCAP_SERVICES", services)];
        assert_eq!(
            basic(reference, &variables).as_deref(),
            Some("Basic dTpw"),
            "{reference}"
        );
        let parent = one(reference, &variables);
        assert_eq!(
            (&*parent.name, parent.tls.is_some()),
            ("p.apps.internal:61443", true)
        );
    }
    for (url, expected) in [
        ("http://u:p@h:1", Some("Basic dTpw")),
        ("http://u@h:1", Some("Basic dTo=")),
        ("http://u:@h:1", Some("Basic dTo=")),
        ("http://h:1", None),
        ("HTTP://h:1/", None),
        ("http://u:a/b?c#d@h:1", Some("Basic dTphL2I/YyNk")),
        ("http://u:p@q@h:1", Some("Basic dTpwQHE=")),
        (" http://u:p@h:1\n", Some("Basic dTpw")),
    ] {
        assert_eq!(basic("env:P", &[("P", url)]).as_deref(), expected, "{url}");
    }
}

#[test]
fn what_cannot_be_a_parent_says_so_without_its_password() {
    for (parent, url, words) in [
        ("env:P", "ftp://u:sesame@h:1", "none of http://"),
        ("env:P", "sesame", "none of http://"),
        ("env:P", "", "not set, or empty"),
        ("env:P", "http://u:sesame@h:1/path", "a path"),
        ("env:P", "http://u:sesame@h:99999", "its host or its port"),
        ("env:P", "http://u:sesame@", "its host or its port"),
        ("env:P", "http://u:1/sesame", "path"),
        ("env:P", "http://u:ses%0aame@h:1", "control character"),
        ("env:P", "http://u%3Ax:sesame@h:1", "colon"),
        ("env:P", "socks5://u:@h:1", "255 bytes"),
        (
            "env:P",
            "http://u:sesame@127.0.0.1:3128",
            "listener of outrider itself",
        ),
        (
            "env:P",
            "http://u:sesame@localhost:3128",
            "listener of outrider itself",
        ),
        (
            "env:P",
            "http://u:sesame@[::ffff:127.0.0.1]:3128",
            "listener of outrider itself",
        ),
        (
            "env:P",
            "http://u:sesame@169.254.169.254:80",
            "where no parent may be (metadata), whatever egress.allow_networks holds; name another",
        ),
        (
            "{ url: env:P, username: me, password: env:P }",
            "http://u:sesame@h:1",
            "both name a user",
        ),
        (
            "{ url: env:P, tls: { server_name: a.test } }",
            "http://u:sesame@h:1",
            "reached without TLS",
        ),
        (
            "{ url: https://h:1, tls: { ca: file:/nowhere/ca.pem } }",
            "",
            "egress.parent.tls.ca: the certificate cannot be read: file:/nowhere/ca.pem",
        ),
        ("vcap:none/uri", "", "no services are bound"),
    ] {
        let error = build(parent, &[("P", url)]).unwrap_err();
        let text = crate::error::ErrorChain(&error).to_string();
        assert!(text.contains(words), "{url}: {text}");
        assert!(text.starts_with("egress.parent"), "{text}");
        assert!(!text.contains("sesame") && !text.contains("ses%0aame"), "{text}");
    }
}

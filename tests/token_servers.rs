//! Token servers that others wrote, each asked by a client whose secret is full of odd characters; and answers
//! as still others give them.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::programs::{ServerProcess, clean, outrider, run, tool};
use crate::support::{Origin, Proxy, Wire, eventually};

/// All that RFC 6749, appendix A, allows in a secret.
const SECRET: &str = "canary-2f6b+/=%:&?# %41\"~";
/// What some servers accept as well.
const WIDE_SECRET: &str = "canary-2f6b+/=%:&?# é%41";
const ID: &str = "odd/app +1%";

/// A server of `tests/token_servers`, which ends with the test.
struct TokenServer {
    _server: ServerProcess,
    port: u16,
    /// What it has written since it was ready: a line for each token request.
    lines: Arc<Mutex<Vec<String>>>,
}

impl TokenServer {
    #[track_caller]
    fn start(script: &str, secret: &str) -> Self {
        let packages = tool("node_modules/oidc-provider");
        let packages = packages.ancestors().nth(2).unwrap();
        let given = serde_json::json!({ "packages": packages, "id": ID, "secret": secret });
        let program = if script.ends_with(".py") {
            tool("venv/bin/python")
        } else {
            tool("node_modules/node/bin/node")
        };
        let child = clean(program)
            .arg(format!("tests/token_servers/{script}"))
            .arg(given.to_string())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = ServerProcess(child);
        let mut written = BufReader::new(server.0.stdout.take().unwrap()).lines();
        let ready = written.find_map(|line| line.unwrap().strip_prefix("ready ").map(str::to_owned));
        let ready = ready.unwrap_or_else(|| panic!("{script} ended at once"));
        let lines = Arc::default();
        let kept: Arc<Mutex<Vec<String>>> = Arc::clone(&lines);
        thread::spawn(move || {
            for line in written.map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        Self {
            _server: server,
            port: ready.parse().unwrap(),
            lines,
        }
    }

    fn asked(&self) -> usize {
        self.lines
            .lock()
            .unwrap()
            .iter()
            .filter(|line| *line == "asked")
            .count()
    }
}

/// Starts a proxy with a destination that gets its tokens at this port of this machine.
fn proxy(origin: &Origin, port: u16, oauth2: &str, secret: &str) -> Proxy {
    let yaml = format!(
        "destinations: {{ p: {{ hosts: [\"{}\"], upgrade: false, insecure_attach_over_http: true, auth: {{ oauth2: {{ \
         token_url: \"http://other.test:{port}/token\", {oauth2} }} }} }} }}",
        origin.authority()
    );
    Proxy::start_with(&yaml, &[("SECRET", secret)])
}

/// Starts an origin that refuses the token of the first request.
fn fastidious() -> Origin {
    let refuses = AtomicBool::new(true);
    Origin::http(move |wire| {
        while wire.request().is_ok() {
            wire.send(if refuses.swap(false, Ordering::Relaxed) {
                "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
            } else {
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            });
        }
    })
}

/// With the secret in the header, in both forms where the server wants another one than RFC 6749, and in the body.
#[test]
fn every_token_server_knows_a_client_with_an_odd_secret() {
    for (script, secret, forms) in [
        ("oidc_provider.mjs", SECRET, 1),
        ("node_oauth.mjs", SECRET, 2),
        ("mock_server.mjs", WIDE_SECRET, 1),
        ("authlib_server.py", WIDE_SECRET, 1),
        ("django_server.py", WIDE_SECRET, 1),
    ] {
        let server = TokenServer::start(script, secret);
        let origin = fastidious();
        let client = format!("client_id: \"{ID}\", client_secret: env:SECRET");
        let proxy = proxy(&origin, server.port, &client, secret);
        let answer = proxy.get(&origin.url("/"));
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "ok"),
            "{script} {:?} {}",
            answer,
            proxy.log()
        );
        let seen = origin.raw();
        let tokens: Vec<_> = seen
            .lines()
            .filter_map(|line| line.strip_prefix("authorization: Bearer "))
            .collect();
        assert_eq!(tokens.len(), 2, "{script}: {seen}");
        // The form is remembered: the second token took one request.
        let all = format!("{script}: {} token requests", forms + 1);
        eventually(&all, || server.asked() == forms + 1);
        let told = "the server reads client_secret_basic in this form";
        if forms == 2 {
            eventually("it is logged", || proxy.log().contains(told));
        }
        let written = proxy.log() + &proxy.page("/metrics").text();
        assert!(!written.contains("canary-2f6b"), "{script}: {written}");
        assert!(!written.contains(tokens[1]), "{script}: {written}");
        assert_eq!(written.contains(told), forms == 2, "{script}");
    }
}

/// Forms that do not differ are not tried twice, and for a wrong secret the answer to the first form is reported.
#[test]
fn a_wrong_secret_is_tried_in_no_more_than_two_forms() {
    for (secret, asked) in [("canary-2f6b-plain.secret", 1), ("canary-2f6b+wrong", 2)] {
        let server = TokenServer::start("node_oauth.mjs", SECRET);
        let origin = Origin::plain();
        let client = "client_id: app, client_secret: env:SECRET";
        let proxy = proxy(&origin, server.port, client, secret);
        let detail = proxy
            .get(&origin.url("/"))
            .assert_ours(502, "proxy_configuration_error");
        assert!(detail.contains("401 Unauthorized invalid_client"), "{detail}");
        eventually("all are counted", || server.asked() == asked);
        assert!(!proxy.log().contains("canary-2f6b"), "{}", proxy.log());
    }
}

/// Some servers lock out a client that fails often.
#[test]
fn a_client_that_is_not_known_is_asked_for_in_one_form_at_a_time() {
    let origin = Origin::plain();
    let body = r#"{"error":"invalid_client"}"#;
    let server = Origin::saying(saying("401 Unauthorized", "application/json", body));
    let proxy = proxy(&origin, server.port(), CLIENT, "s3cr3t+/");
    let failures = || proxy.log().matches("no new token").count();
    let asked = |failed: usize| {
        eventually("a token request has failed", || {
            proxy.get(&origin.url("/"));
            failures() >= failed
        });
        let seen = server.raw();
        let asked = seen
            .lines()
            .filter_map(|line| line.strip_prefix("authorization: Basic "));
        asked.map(str::to_owned).collect::<Vec<_>>()
    };
    let both = asked(1);
    assert_eq!(both.len(), 2);
    assert_ne!(both[0], both[1]);
    // In turn from now on, so that a secret that is corrected at the server is found.
    let all = asked(3);
    assert_eq!(all[2..], [both[0].clone(), both[1].clone()]);
}

fn saying(status: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}").into()
}

const CLIENT: &str = "client_id: app, client_secret: env:SECRET";

/// Apigee, NestJS, Azure DevOps, VK, GitHub and their like.
#[test]
fn a_token_is_attached_however_it_is_given() {
    for (status, kind, body) in [
        (
            "200 OK",
            "application/json",
            r#"{"access_token":"t0k3n","token_type":"BearerToken","expires_in":"3599"}"#,
        ),
        ("201 Created", "application/json", r#"{"access_token":"t0k3n"}"#),
        (
            "203 Non-Authoritative Information",
            "text/plain",
            r#"{"access_token":"t0k3n","token_type":"bearer_token"}"#,
        ),
        (
            "200 OK",
            "application/jwt",
            r#"{"access_token":"t0k3n","token_type":"JWT","expires_in":0}"#,
        ),
        (
            "202 Accepted",
            "text/html",
            "\u{feff}{\"access_token\":\"t0k3n\",\"token_type\":\" bearer \",\"expires_in\":-1}",
        ),
        (
            "200 OK",
            "application/x-www-form-urlencoded",
            "access_token=t0k3n&scope=&token_type=bearer",
        ),
    ] {
        let origin = Origin::plain();
        let server = Origin::saying(saying(status, kind, body));
        let proxy = proxy(&origin, server.port(), CLIENT, "s3cr3t");
        for _ in 0..3 {
            assert_eq!(proxy.get(&origin.url("/")).status, 200, "{body}");
        }
        assert_eq!(
            origin.raw().matches("authorization: Bearer t0k3n\r\n").count(),
            3,
            "{body}"
        );
        assert_eq!(server.raw().matches("POST /token").count(), 1, "{body}");
    }
}

#[test]
fn an_answer_without_a_token_says_why() {
    for (status, body, told, logged) in [
        (
            "200 OK",
            r#"{"error":"invalid_client","error_description":"s3cr3t+/ s3cr3t%2B%2F is wrong"}"#,
            "it answered 200 OK with an error: invalid_client: check client_id",
            "… … is wrong",
        ),
        (
            "200 OK",
            "error=incorrect_client_credentials&error_description=The+client_id+is+incorrect.",
            "it answered 200 OK with an error, which the log has",
            "incorrect_client_credentials The client_id is incorrect.",
        ),
        (
            "200 OK",
            r#"{"access_token":"t0k3n","token_type":"DPoP"}"#,
            "it gave a DPoP token, and only Bearer tokens can be attached",
            "DPoP",
        ),
        (
            "204 No Content",
            "",
            "it is neither a JSON object nor a form with a token",
            "",
        ),
    ] {
        let origin = Origin::plain();
        let server = Origin::saying(saying(status, "application/json", body));
        let proxy = proxy(&origin, server.port(), CLIENT, "s3cr3t+/");
        let answer = proxy.get(&origin.url("/"));
        assert_eq!(answer.status, 502);
        let detail = answer.text();
        assert!(detail.contains(told), "{detail}");
        eventually("it is logged", || proxy.log().contains("no new token"));
        let log = proxy.log();
        assert!(log.contains(logged), "{log}");
        assert!(!log.contains("s3cr3t") && !log.contains("t0k3n"), "{log}");
        assert_eq!(origin.raw(), "");
    }
}

/// As services want it that take a key as the user name.
#[test]
fn a_password_may_be_empty() {
    let origin = Origin::plain();
    let keys = "upgrade: false, insecure_attach_over_http: true";
    let yaml = format!(
        "destinations: {{ p: {{ hosts: [\"{}\"], {keys}, auth: {{ basic: {{ username: env:KEY, password: env:EMPTY }} }} }} }}",
        origin.authority()
    );
    let proxy = Proxy::start_with(&yaml, &[("KEY", "sk_live_1"), ("EMPTY", "")]);
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    // sk_live_1:
    assert!(origin.raw().contains("authorization: Basic c2tfbGl2ZV8xOg==\r\n"));
    let check = |variables: &[(&str, &str)]| {
        let mut command = outrider(["check", "--config"]);
        command.arg(proxy.config_file());
        command.env("KEY", "sk_live_1").envs(variables.iter().copied());
        run(&mut command)
    };
    let empty = check(&[("EMPTY", "")]);
    empty.succeeded();
    let told = "env:EMPTY is set to nothing, so that the secret is empty";
    assert!((empty.stdout + &empty.stderr).contains(told));
    let unset = check(&[]);
    assert_ne!(unset.code(), 0);
    assert!((unset.stdout + &unset.stderr).contains("the environment variable is not set, or empty"));

    // And a client with a secret that is empty.
    let server = Origin::http(|wire: &mut Wire| {
        while wire.request().is_ok() {
            wire.send(saying(
                "200 OK",
                "application/json",
                r#"{"access_token":"t0k3n"}"#,
            ));
        }
    });
    let proxy = self::proxy(&origin, server.port(), CLIENT, "");
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    assert!(
        server.raw().contains("authorization: Basic YXBwOg==\r\n"),
        "{}",
        server.raw()
    );
}

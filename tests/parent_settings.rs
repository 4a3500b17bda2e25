//! The settings of parents: rotation, token endpoints, `exec`, and what `check` and `explain` say.

use std::sync::{Arc, Mutex};

use crate::parents::{opening, url};
use crate::support::programs::outrider;
use crate::support::proxy::destination;
use crate::support::{CANARY, Origin, Proxy, eventually, run};

/// A new password of the parent makes a new endpoint; one that cannot be used keeps the old one.
#[test]
fn the_password_of_a_parent_rotates() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let parent = Origin::http(move |wire| {
        while let Ok(request) = wire.request() {
            log.lock().unwrap().push(
                request
                    .headers
                    .get("proxy-authorization")
                    .unwrap_or_default()
                    .to_owned(),
            );
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("parent");
    let put = |text: String| {
        std::fs::write(folder.path().join("new"), text).unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
    };
    let url = |user: &str| format!("http://{user}:{CANARY}@127.0.0.1:{}", parent.port());
    put(url("one"));
    let config = format!(
        "egress: {{ allow_networks: [loopback], parent: \"file:{}\" }}\n{}",
        file.display(),
        destination("partner.test:8080", "")
    );
    let proxy = Proxy::start(&config);
    let ask = || assert_eq!(proxy.get("http://partner.test:8080/").status, 200);
    ask();
    let first = seen.lock().unwrap()[0].clone();
    put("no URL".to_owned());
    eventually("the file that cannot be used was tried", || {
        ask();
        proxy.metric("outrider_config_reloads_total", &[("result", "failed")]) > 0.0
    });
    assert!(seen.lock().unwrap().iter().all(|seen| *seen == first));
    put(url("two"));
    eventually("the new user is sent", || {
        ask();
        seen.lock().unwrap().last() != Some(&first)
    });
}

/// The token comes through the parent, too.
#[test]
fn token_endpoints_are_behind_the_parent() {
    let parent = Origin::http(|wire| {
        while let Ok(request) = wire.request() {
            let body = if request.line.starts_with("POST http://login.test:8080/token ") {
                r#"{"access_token":"canary-2f6b-token","token_type":"Bearer","expires_in":3600}"#.to_owned()
            } else {
                request
                    .headers
                    .get("authorization")
                    .map_or("none", |_| "with a token")
                    .to_owned()
            };
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
        }
    });
    let settings = "upgrade: false, insecure_attach_over_http: true, mode: tunnel, auth: { oauth2: { token_url: \
                    \"http://login.test:8080/token\", client_id: app, client_secret: \"env:SECRET\" } }";
    let config = format!(
        "egress: {{ parent: \"http://127.0.0.1:{}\" }}\n{}",
        parent.port(),
        destination("api.test:80", settings)
    );
    let proxy = Proxy::start_with(&config, &[("SECRET", "canary-2f6b-secret")]);
    assert_eq!(
        proxy.get("http://api.test/").text(),
        "with a token",
        "{}",
        proxy.log()
    );
}

/// `env:HTTPS_PROXY` is the variable that outrider itself was given, not the one that it gives to the command.
#[test]
fn under_exec_the_variable_is_the_original_one() {
    let origin = Origin::plain();
    let parent = opening(origin.port(), "");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrider.yml");
    std::fs::write(
        &file,
        "listen: 127.0.0.1:0\nadmin: false\negress: { allow_networks: [loopback], parent: \"env:HTTPS_PROXY\" }\n\
         destinations: { p: { hosts: [\"api.test:8080\"] } }\n",
    )
    .unwrap();
    let mut command = outrider(["exec", "--config"]);
    command
        .arg(&file)
        .arg("--")
        .arg("curl")
        .args(["--silent", "http://api.test:8080/"]);
    command
        .env("HTTPS_PROXY", url(&parent))
        .env("TMPDIR", folder.path());
    let output = run(&mut command);
    assert_eq!(output.succeeded().stdout, "forwarded", "{output:?}");
    assert!(!output.stderr.contains(CANARY), "{output:?}");
}

#[test]
fn check_and_explain_say_what_holds() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrider.yml");
    let said = |command: &[&str], config: &str, parent: &str| {
        std::fs::write(&file, config).unwrap();
        let mut program = outrider(command);
        program.arg("--config").arg(&file).env("PARENT", parent);
        let output = run(&mut program);
        assert!(!format!("{output:?}").contains(CANARY), "{output:?}");
        format!("{}{}", output.stdout, output.stderr)
    };
    let secret = format!("http://u:{CANARY}@proxy.test:3128");
    let inherited = "egress: { default: tunnel, parent: \"env:PARENT\" }\n";
    for (config, parent, words) in [
        (
            inherited,
            secret.as_str(),
            "egress.parent: the credentials for proxy.test:3128 leave in clear",
        ),
        (
            inherited,
            "ftp://x",
            "egress.parent: what is there is not the URL of a proxy",
        ),
        (
            inherited,
            "http://127.0.0.1:3128",
            "which cannot be its own parent",
        ),
        (inherited, "", "the environment variable is not set"),
        (
            "egress: { parent: \"http://u:canary-2f6b@p.test:1\" }\n",
            "",
            "a URL with a password in it",
        ),
        (
            "egress: { parent: { url: \"http://p.test:1\", password: \"env:PARENT\" } }\n",
            "x",
            "a password without a user",
        ),
        (
            "egress: { parent: { url: \"http://p.test:1\", tls: { server_name: a.test } } }\n",
            "",
            "TLS to a parent that is reached by http://",
        ),
        (
            "egress: { parent: \"http://p.test:1\", parent_ca: \"file:/nowhere\" }\n",
            "",
            "egress.parent_ca: no parent is reached by https://",
        ),
        (
            "egress: { parent: [\"http://p.test:1\", \"http://p.test:1\"] }\n",
            "",
            "stands twice",
        ),
        (
            "egress: { parent: \"https://p.test:1\", parent_bypass: [\"http://x\"] }\n",
            "",
            "parent_bypass[0]",
        ),
    ] {
        let told = said(&["check"], config, parent);
        assert!(told.contains(words), "{config}: {told}");
    }
    assert_eq!(
        said(&["check"], inherited, &secret.replace("http://", "https://")),
        ""
    );

    let config = "egress: { default: tunnel, parent: [\"env:PARENT\", \"socks5://p.test:1\"] }\n\
                  destinations: { d: { hosts: [d.test], parent: none } }\n";
    for (url, words) in [
        (
            "https://api.test/",
            "env:PARENT, socks5://p.test:1 (egress.parent, the first that works)",
        ),
        (
            "https://a.apps.internal/",
            "none: egress.parent_bypass names a.apps.internal",
        ),
        ("https://d.test/", "parent              none"),
    ] {
        let told = said(&["explain", url], config, &secret);
        assert!(told.contains(words), "{url}: {told}");
    }
}

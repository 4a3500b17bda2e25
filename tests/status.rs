//! What outrider assumes about the limits of destinations, as people see it: the page /status, and `explain`.

use serde_json::Value;

use crate::support::programs::outrider;
use crate::support::proxy::{configuration, destination};
use crate::support::{CANARY, Origin, Proxy, closed_port, run};

const REFUSED: &str = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n";

#[track_caller]
fn status(proxy: &Proxy) -> Value {
    let page = proxy.page("/status");
    assert_eq!(page.status, 200, "{page:?}");
    assert_eq!(page.header("content-type"), Some("application/json"));
    assert!(!page.text().contains(CANARY), "{}", page.text());
    serde_json::from_str(&page.text()).unwrap()
}

/// Returns what `explain` says of `url`, by a configuration of one destination whose admin port is `admin`.
fn explain(authority: &str, admin: &str, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrider.yml");
    let config = format!("admin: {admin}\n{}", destination(authority, "on_limit: reject"));
    std::fs::write(&file, configuration(&config, folder.path())).unwrap();
    let told = run(outrider(["explain", "--config"]).arg(&file).args(arguments));
    assert_eq!(told.code(), 0, "{told:?}");
    told.stdout
}

#[test]
fn a_pause_is_shown_with_the_answer_that_caused_it() {
    let origin = Origin::saying(REFUSED);
    let authority = format!("partner.test:{}", origin.port());
    let proxy = Proxy::to(&authority, "");
    assert_eq!(status(&proxy)["state"], "ready");
    assert_eq!(status(&proxy)["limits_now"], serde_json::json!({}));
    let url = format!("http://{authority}/search");
    let token = format!("Authorization: Bearer {CANARY}\r\n");
    assert_eq!(
        proxy.ask("GET", &format!("{url}?key={CANARY}"), &token).status,
        429
    );

    let page = status(&proxy);
    let belief = &page["limits_now"]["p"][0];
    assert_eq!(belief["host"], format!("http://{authority}"));
    assert_eq!(belief["told_by"]["path"], "/search");
    assert_eq!(belief["told_by"]["field"], "Retry-After: 60");
    let text = belief["text"].as_str().unwrap();
    assert!(
        text.contains(": paused until 20") && text.ends_with("429 with Retry-After: 60"),
        "{text}"
    );

    let admin = proxy.admin().to_string();
    let told = explain(&authority, &admin, &[&url]);
    assert!(
        told.contains(&format!("\nlimits now          {text}\n")),
        "{told}"
    );
    let told: Value = serde_json::from_str(&explain(&authority, &admin, &["--json", &url])).unwrap();
    assert_eq!(told["limits_now"][0]["text"], text);
    // Another host of the same destination has reported nothing.
    let other = explain(
        &format!("other.test:{}", origin.port()),
        &admin,
        &[&format!("http://other.test:{}/", origin.port())],
    );
    assert!(
        other.contains("\nlimits now          nothing is learned that concerns this host\n"),
        "{other}"
    );
}

#[test]
fn where_no_outrider_answers_explain_says_so() {
    let page = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
    let silent = Origin::http(|wire| drop(wire.request()));
    for port in [closed_port(), page.port(), silent.port()] {
        let told = explain(
            "partner.test",
            &format!("127.0.0.1:{port}"),
            &["http://partner.test/"],
        );
        let line = format!("\nlimits now          not known (no outrider answers at 127.0.0.1:{port})\n");
        assert!(told.contains(&line), "{told}");
        assert!(told.trim_end().ends_with("passes"), "{told}");
    }
    let told = explain("partner.test", "false", &["--json", "http://partner.test/"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (&told["limits_now"], &told["passes"]),
        (&Value::Null, &Value::Bool(true))
    );
}

/// For clients that show nothing of a refused CONNECT.
#[test]
fn the_last_refusals_are_shown_without_path_and_secret() {
    let proxy = Proxy::start("egress: { default: deny }");
    assert_eq!(status(&proxy)["refusals"], serde_json::json!([]));
    let url = format!("http://user:{CANARY}@elsewhere.test/private?key={CANARY}");
    assert!(proxy.ask("GET", &url, "").status >= 400);
    let url = format!("http://elsewhere.test/private?key={CANARY}");
    assert_eq!(proxy.ask("GET", &url, "").status, 403);
    let mut wire = proxy.wire();
    wire.send("CONNECT unlisted.test:443 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(wire.read_line().starts_with("HTTP/1.1 403 "));
    let page = status(&proxy);
    let last = &page["refusals"][0];
    assert_eq!(last["method"], "CONNECT");
    assert_eq!(last["host"], "unlisted.test");
    assert_eq!(last["status"], 403);
    let detail = last["detail"].as_str().unwrap();
    assert!(detail.contains("is named by no destination"), "{detail}");
    assert_eq!(page["refusals"].as_array().unwrap().len(), 3);
    for secret in [CANARY, "private", "user"] {
        assert!(!page["refusals"].to_string().contains(secret), "{page}");
    }
}

//! O3: the suite of http-tests for HTTP caches, run through the program.
//!
//! It holds caches of every kind against RFC 9111. Ours serves one app and all of its users: the tests for
//! browsers' caches and those for proxies are both run, and what does not fit is named here with its reason.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use crate::support::Proxy;
use crate::support::programs::{clean, tool};

/// *Required* tests that fail: the suite's words for what must not be.
const FAIL: &[(&str, &str)] = &[
    // RFC 9111 section 5.1: of several values the first counts, of one line as of two.
    ("age-parse-dup-0", "the first age is 0"),
    ("age-parse-dup-0-twoline", "the first age is 0"),
    ("age-parse-dup-old", "the first age is below the lifetime"),
    ("age-parse-prefix-twoline", "the first age is 0"),
    (
        "cc-resp-immutable-stale",
        "wants the `Cache-Control: max-age=0` that a browser adds",
    ),
    // They take the 504 of a proxy for a stored answer, since it lacks a field of the suite's server. That nothing
    // stale is served then is proved in `stale.rs`.
    ("stale-close-must-revalidate", "the answer is our 504"),
    ("stale-close-no-cache", "the answer is our 504"),
    ("stale-close-proxy-revalidate", "the answer is our 504"),
    ("stale-close-s-maxage=2", "the answer is our 504"),
];

/// *Required* tests that do not come to their point, because an answer is not stored which might be.
const MOOT: &[(&str, &str)] = &[
    (
        "304-etag-update-response-Content-Length",
        "more bytes than were declared",
    ),
    (
        "304-etag-update-response-ETag",
        "a 304 that names another entity tag confirms nothing",
    ),
    (
        "304-etag-update-response-Set-Cookie",
        "what sets a cookie is not stored",
    ),
    (
        "304-etag-update-response-Set-Cookie2",
        "what sets a cookie is not stored",
    ),
    ("headers-store-Content-Length", "more bytes than were declared"),
    ("headers-store-Set-Cookie", "what sets a cookie is not stored"),
    ("headers-store-Set-Cookie2", "what sets a cookie is not stored"),
    (
        "headers-store-Transfer-Encoding",
        "a coding that nobody knows ends in a 502",
    ),
    ("partial-use-headers", "parts are not stored"),
    ("status-400-stale", "errors are not stored"),
    ("status-499-stale", "errors are not stored"),
    ("status-500-stale", "errors are not stored"),
    ("status-502-stale", "errors are not stored"),
    ("status-503-stale", "errors are not stored"),
    ("status-504-stale", "errors are not stored"),
    ("status-599-must-understand", "errors are not stored"),
    ("status-599-stale", "errors are not stored"),
];

#[test]
fn what_the_suite_requires_is_kept_to() {
    let results = run();
    let mut counts = BTreeMap::<(&str, &str), usize>::new();
    for (_, kind, result, _) in &results {
        *counts.entry((kind, result)).or_default() += 1;
    }
    println!("{} tests: {counts:?}", results.len());
    assert!(
        counts[&("required", "pass")] >= 130,
        "too few came to their point"
    );
    assert!(
        counts[&("optimal", "pass")] >= 54,
        "too few answers come from the cache"
    );
    let explained = |list: &[(&str, &str)], id: &str| list.iter().any(|(other, _)| *other == id);
    let surprising: Vec<_> = results
        .iter()
        .filter(|(id, kind, result, _)| {
            kind == "required"
                && match result.as_str() {
                    "pass" => explained(FAIL, id) || explained(MOOT, id),
                    "fail" => !explained(FAIL, id),
                    _ => !explained(MOOT, id),
                }
        })
        .collect();
    assert!(surprising.is_empty(), "not as explained: {surprising:#?}");
}

/// Returns the id, the kind, the result and its detail of each test.
fn run() -> Vec<(String, String, String, String)> {
    let mut command = clean(tool("node_modules/node/bin/node"));
    command
        .args(["--no-warnings", "tests/support/http_cache_tests.mjs"])
        .arg(tool("node_modules/http-cache-tests"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut port = String::new();
    output.read_line(&mut port).unwrap();
    let proxy = Proxy::start(&format!(
        "destinations: {{ p: {{ hosts: [\"partner.test:{}\"], cache: {{}} }} }}\nlog: {{ access: none }}",
        port.trim()
    ));
    writeln!(child.stdin.take().unwrap(), "{}", proxy.address().port()).unwrap();
    let mut told = String::new();
    output.read_to_string(&mut told).unwrap();
    assert!(child.wait().unwrap().success());
    let told: BTreeMap<String, serde_json::Value> = serde_json::from_str(&told).expect("the results");
    told.into_iter()
        .map(|(id, test)| {
            let text = |key: &str| test[key].as_str().unwrap_or_default().to_owned();
            (id, text("kind"), text("result"), text("detail"))
        })
        .collect()
}

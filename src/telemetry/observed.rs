//! What `egress.default: observe` let pass and `deny` would have refused.
//!
//! The record is what `outrider learn` makes destinations of. It is kept in memory until the process ends, in bounded
//! size: what is too much is counted, so that nobody takes the record for complete. It has no query string and no user
//! information. Which requests are observed is decided in `policy`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use http::Method;
use serde_json::{Value, json};

use crate::host::Target;
use crate::units::rfc3339;

/// Hosts with a port.
const MOST_HOSTS: usize = 1024;

/// Pairs of method and path, of all hosts together.
const MOST_REQUESTS: usize = 4096;

/// And of one host and port.
const MOST_OF_A_HOST: usize = 256;

/// In bytes.
const LONGEST_PATH: usize = 512;

/// In bytes.
const LONGEST_METHOD: usize = 32;

/// A segment of a path that is longer, or as long as the second with a digit in it, may be a token.
const LONG: usize = 32;
const RATHER_LONG: usize = 16;

/// A request that passes only because of `observe`.
#[derive(Debug)]
pub(crate) struct ObservedRequest {
    pub(super) target: Target,
    /// Why `deny` would refuse it: a word of a closed set.
    pub(super) reason: &'static str,
    /// Method and path. `None` for a CONNECT, whose requests are not seen, and for what is too long to be kept.
    seen: Option<(Method, Box<str>)>,
    is_tunnel: bool,
}

/// All of them, by host and port.
#[derive(Debug, Default)]
pub(super) struct ObservedTraffic {
    hosts: BTreeMap<(String, u16), ObservedHost>,
    /// Pairs of method and path in `hosts`.
    requests: usize,
    /// Exchanges with hosts for which there was no room.
    hosts_left_out: u64,
}

/// What went to one host and port.
#[derive(Debug)]
struct ObservedHost {
    reason: &'static str,
    first: SystemTime,
    last: SystemTime,
    passed: u64,
    failed: u64,
    tunnels: u64,
    /// By method and path.
    requests: BTreeMap<(String, Box<str>), u64>,
    requests_left_out: u64,
}

impl ObservedRequest {
    pub(crate) fn connect(target: &Target, reason: &'static str) -> Self {
        Self {
            target: target.clone(),
            reason,
            seen: None,
            is_tunnel: true,
        }
    }

    /// `path` is without query.
    pub(crate) fn new(target: &Target, method: &Method, path: &str, reason: &'static str) -> Self {
        let fits = path.len() <= LONGEST_PATH && method.as_str().len() <= LONGEST_METHOD;
        Self {
            target: target.clone(),
            reason,
            seen: fits.then(|| (method.clone(), shown(path))),
            is_tunnel: false,
        }
    }
}

/// Returns a path as the page shows it: `*` stands for a long segment, because some services have a token in it. A `*` that
/// was asked for is written as `%2A`.
fn shown(path: &str) -> Box<str> {
    let segments = path.split('/').map(|segment| {
        let has_digit = segment.bytes().any(|byte| byte.is_ascii_digit());
        if segment.len() > LONG || (segment.len() > RATHER_LONG && has_digit) {
            "*".to_owned()
        } else {
            segment.replace('*', "%2A")
        }
    });
    segments.collect::<Vec<_>>().join("/").into()
}

impl ObservedTraffic {
    /// Adds a request. `passed`: its destination answered.
    pub(super) fn add(&mut self, request: &ObservedRequest, passed: bool, now: SystemTime) {
        let Target { host, port, .. } = &request.target;
        let key = (host.to_string(), *port);
        if self.hosts.len() >= MOST_HOSTS && !self.hosts.contains_key(&key) {
            self.hosts_left_out += 1;
            return;
        }
        let host = self.hosts.entry(key).or_insert_with(|| ObservedHost {
            reason: request.reason,
            first: now,
            last: now,
            passed: 0,
            failed: 0,
            tunnels: 0,
            requests: BTreeMap::new(),
            requests_left_out: 0,
        });
        host.last = now;
        host.reason = request.reason;
        if !passed {
            host.failed += 1;
            return;
        }
        host.passed += 1;
        host.tunnels += u64::from(request.is_tunnel);
        if !request.is_tunnel && host.add(request, self.requests < MOST_REQUESTS) {
            self.requests += 1;
        }
    }

    /// Returns the page /observed.
    pub(super) fn page(&self) -> Value {
        let hosts = self.hosts.iter().map(|((host, port), own)| {
            let requests = own
                .requests
                .iter()
                .map(|((method, path), count)| json!({ "method": method, "path": &**path, "passed": count }));
            json!({
                "host": host,
                "port": port,
                "would_deny": own.reason,
                "first": rfc3339(own.first),
                "last": rfc3339(own.last),
                "passed": own.passed,
                "failed": own.failed,
                "tunnels": own.tunnels,
                "requests": requests.collect::<Vec<_>>(),
                "requests_left_out": own.requests_left_out,
            })
        });
        json!({
            "outrider": env!("CARGO_PKG_VERSION"),
            "observed": hosts.collect::<Vec<_>>(),
            "hosts_left_out": self.hosts_left_out,
        })
    }
}

impl ObservedHost {
    /// Adds method and path. Returns whether they are new here.
    fn add(&mut self, request: &ObservedRequest, has_room: bool) -> bool {
        let Some((method, path)) = &request.seen else {
            self.requests_left_out += 1;
            return false;
        };
        let key = (method.as_str().to_owned(), path.clone());
        if let Some(count) = self.requests.get_mut(&key) {
            *count += 1;
            return false;
        }
        if !has_room || self.requests.len() >= MOST_OF_A_HOST {
            self.requests_left_out += 1;
            return false;
        }
        self.requests.insert(key, 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, port: u16) -> Target {
        Target::of_connect(&format!("{host}:{port}").parse().unwrap()).unwrap()
    }

    fn request(path: &str) -> ObservedRequest {
        ObservedRequest::new(&target("a.test", 80), &Method::GET, path, "unlisted")
    }

    #[test]
    fn tunnels_requests_and_failures_are_told_apart() {
        let mut traffic = ObservedTraffic::default();
        let now = SystemTime::UNIX_EPOCH;
        traffic.add(
            &ObservedRequest::connect(&target("B.test", 443), "port"),
            true,
            now,
        );
        traffic.add(
            &ObservedRequest::connect(&target("b.test", 443), "port"),
            false,
            now,
        );
        traffic.add(&request("/x"), true, now);
        traffic.add(&request("/x"), true, now);
        traffic.add(&request("/never-answered"), false, now);
        let page = traffic.page();
        let hosts = page["observed"].as_array().unwrap();
        assert_eq!(hosts.len(), 2);
        let expected = json!({
            "host": "a.test", "port": 80, "would_deny": "unlisted", "passed": 2, "failed": 1, "tunnels": 0,
            "requests": [{ "method": "GET", "path": "/x", "passed": 2 }], "requests_left_out": 0,
            "first": "1970-01-01T00:00:00Z", "last": "1970-01-01T00:00:00Z",
        });
        assert_eq!(hosts[0], expected);
        assert_eq!(
            (&hosts[1]["host"], &hosts[1]["tunnels"]),
            (&json!("b.test"), &json!(1))
        );
        assert_eq!(hosts[1]["failed"], 1);
    }

    #[test]
    fn tokens_in_paths_are_not_kept() {
        for (path, expected) in [
            ("/v1/users/7", "/v1/users/7"),
            ("/services/T0000000000000000", "/services/*"),
            ("/a*b/*", "/a%2Ab/%2A"),
            ("/an-article-with-a-long-name/x", "/an-article-with-a-long-name/x"),
            ("/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "/*"),
        ] {
            assert_eq!(&*shown(path), expected);
        }
    }

    /// An app that asks for ever new hosts and paths meets a bound, and the record says that it is not complete.
    #[test]
    fn the_record_is_bounded_and_says_so() {
        let mut traffic = ObservedTraffic::default();
        let now = SystemTime::now();
        for number in 0..300 {
            traffic.add(&request(&format!("/{number}")), true, now);
        }
        traffic.add(&request(&"/long".repeat(200)), true, now);
        for host in 0..2000 {
            for path in 0..3 {
                let path = format!("/{path}");
                let target = target(&format!("h{host}.test"), 80);
                traffic.add(
                    &ObservedRequest::new(&target, &Method::GET, &path, "unlisted"),
                    true,
                    now,
                );
            }
        }
        let page = traffic.page();
        let hosts = page["observed"].as_array().unwrap();
        assert_eq!(hosts.len(), MOST_HOSTS);
        assert_eq!(hosts[0]["requests"].as_array().unwrap().len(), MOST_OF_A_HOST);
        assert_eq!(hosts[0]["requests_left_out"], 300 - MOST_OF_A_HOST as u64 + 1);
        assert_eq!(page["hosts_left_out"], (2000 - (MOST_HOSTS as u64 - 1)) * 3);
        let requests: usize = traffic.hosts.values().map(|host| host.requests.len()).sum();
        assert!(
            requests <= MOST_REQUESTS && requests == traffic.requests,
            "{requests}"
        );
    }
}

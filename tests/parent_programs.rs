//! J15: real parent proxies, and what app, log and metric say of what they do.
//!
//! Each test starts one parent once and goes through the same cases. `OUTRIDER_PARENT_TABLE=FILE` writes what was seen as
//! rows of a table.

use std::collections::BTreeMap;
use std::io::Write as _;

use crate::support::origin::ok;
use crate::support::parents::{ParentProgram, USER};
use crate::support::programs::is_not_packaged;
use crate::support::{Origin, Pki, Proxy, Response, closed_port, eventually};

/// What is expected of a case: status, the error type of Proxy-Status, the metric's result, and words of the answer or the
/// log.
type Expected = (u16, &'static str, &'static str, &'static str);

/// A parent, the origins behind it, and outrider before it.
struct Course {
    name: &'static str,
    parent: ParentProgram,
    pki: Pki,
    plain: Origin,
    tls: Origin,
    mutual: Origin,
    proxy: Proxy,
    dead: u16,
    denied: &'static str,
    /// A line each: case = status, error type or -, result: words.
    expected: &'static str,
}

const ANSWERS: Expected = (200, "", "ok", "");

/// With credentials that a parent does not know, and without any.
const USERS: &str = "
    wrong password, CONNECT = 502 proxy_configuration_error credentials: does not accept our credentials
    wrong password, GET = 502 proxy_configuration_error credentials: does not accept our credentials
    no password, CONNECT = 502 proxy_configuration_error credentials: has none from us
    no password, GET = 502 proxy_configuration_error credentials: has none from us
";

impl Course {
    /// `denied`: an authority that the rules of the parent deny; or nothing.
    fn new(name: &'static str, parent: ParentProgram, denied: &'static str, expected: &'static str) -> Self {
        Self::trusting(name, parent, Pki::new(), denied, expected)
    }

    fn trusting(
        name: &'static str,
        parent: ParentProgram,
        pki: Pki,
        denied: &'static str,
        expected: &'static str,
    ) -> Self {
        let server = pki.server("partner.test");
        let (plain, tls) = (Origin::plain(), Origin::https(pki.accepting(&server), ok));
        let mutual = Origin::https(pki.demanding(&server), ok);
        let dead = closed_port();
        let config = configuration(&pki, [plain.port(), tls.port(), mutual.port(), dead], denied);
        let proxy = Proxy::start_with(&config, &[("PARENT", &parent.url())]);
        Self {
            name,
            parent,
            pki,
            plain,
            tls,
            mutual,
            proxy,
            dead,
            denied,
            expected,
        }
    }

    /// Goes through all cases.
    fn run(mut self) {
        let plain = format!("127.0.0.1:{}", self.plain.port());
        let (tls, mutual) = (self.tls.port(), self.mutual.port());
        let dead = format!("127.0.0.1:{}", self.dead);

        self.case("plain", ANSWERS, |proxy| proxy.get(&format!("http://{plain}/")));
        self.case("blind", ANSWERS, |proxy| proxy.tunnel(&plain).get(&plain, "/"));
        let inner = format!("127.0.0.1:{tls}");
        self.case("intercepted", ANSWERS, |proxy| {
            proxy.intercepted(&inner).get(&inner, "/")
        });
        self.case("mutual TLS", ANSWERS, |proxy| {
            proxy.get(&format!("http://127.0.0.1:{mutual}/"))
        });
        let shown = self.mutual.seen().last().and_then(|seen| seen.client.clone());
        assert_eq!(
            shown.map(|(name, _)| name).as_deref(),
            Some("app"),
            "{}",
            self.name
        );
        for origin in [&self.plain, &self.tls, &self.mutual] {
            let seen = origin.raw().to_ascii_lowercase();
            assert!(!seen.contains("proxy-auth"), "{}: {seen}", self.name);
        }

        let mut rows = vec![
            ("dead name, CONNECT", "nosuch.invalid:443".to_owned()),
            ("dead name, GET", "nosuch.invalid".to_owned()),
            ("dead address, CONNECT", dead.clone()),
            ("dead address, GET", dead),
        ];
        if !self.denied.is_empty() {
            rows.push(("denied, CONNECT", self.denied.to_owned()));
        }
        for (case, authority) in rows {
            let expected = self.expectation(case);
            self.case(case, expected, |proxy| ask(proxy, case, &authority));
        }

        if self.parent.has_users() {
            let config = configuration(
                &self.pki,
                [self.plain.port(), tls, mutual, self.dead],
                self.denied,
            );
            for (users, userinfo) in [
                ("wrong password", format!("{USER}:canary-2f6b-wrong@")),
                ("no password", String::new()),
            ] {
                let url = self.parent.url_with(&userinfo);
                let right =
                    std::mem::replace(&mut self.proxy, Proxy::start_with(&config, &[("PARENT", &url)]));
                for form in ["CONNECT", "GET"] {
                    let case = format!("{users}, {form}");
                    let expected = self.expectation(&case);
                    self.case(&case, expected, |proxy| ask(proxy, &case, &plain));
                }
                self.proxy = right;
            }
        }

        // A connection that the parent kept is dead as well.
        self.parent.stop();
        let gone = (
            502,
            "connection_refused",
            "unreachable",
            "the parent cannot be reached",
        );
        self.case("stopped, CONNECT", gone, |proxy| ask(proxy, "CONNECT", &plain));
        self.case("stopped, GET", gone, |proxy| ask(proxy, "GET", &plain));
        eventually("the log says that the parent fails", || {
            self.proxy.log().contains("parent fails")
        });
    }

    fn expectation(&self, case: &str) -> Expected {
        let mut lines = self.expected.lines().chain(USERS.lines());
        let own = lines.find_map(|line| line.trim().strip_prefix(case)?.strip_prefix(" = "));
        let (codes, words) = own
            .unwrap_or_else(|| panic!("{}: what is expected of {case}?", self.name))
            .split_once(": ")
            .unwrap();
        let codes: Vec<_> = codes.split(' ').collect();
        (
            codes[0].parse().unwrap(),
            codes[1].trim_matches('-'),
            codes[2],
            words,
        )
    }

    /// Asks, and compares what app, metric and log say.
    #[track_caller]
    fn case(&self, case: &str, expected: Expected, ask: impl FnOnce(&Proxy) -> Response) {
        let (status, error, result, words) = expected;
        let (before, logged) = (results(&self.proxy), self.proxy.log().len());
        let answer = ask(&self.proxy);
        let told = answer.text();
        let seen = (answer.status, answer.error().unwrap_or_default().to_owned());
        let mut grown = Vec::new();
        if result != "-" {
            eventually(
                &format!(
                    "{} {case}: the metric counts {result}: {seen:?} {told}",
                    self.name
                ),
                || {
                    let now = results(&self.proxy);
                    grown = now
                        .iter()
                        .filter(|(name, count)| before.get(*name) != Some(count))
                        .map(|(name, _)| name.clone())
                        .collect();
                    grown.iter().any(|name| name == result)
                },
            );
        }
        let is_told = || told.contains(words) || self.proxy.log()[logged..].contains(words);
        eventually(
            &format!("{} {case}: {words:?} is told: {told}", self.name),
            is_told,
        );
        let log = self.proxy.log()[logged..].to_owned();
        if let Some(file) = std::env::var_os("OUTRIDER_PARENT_TABLE") {
            let mut file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(file)
                .unwrap();
            let lines: Vec<_> = log
                .lines()
                .filter(|line| line.contains("WARN") || line.contains("\"warn\""))
                .collect();
            let detail = serde_json::from_str::<serde_json::Value>(&told).ok();
            let detail = detail.and_then(|problem| problem["detail"].as_str().map(str::to_owned));
            let row = format!(
                "| {} | {case} | {} {} | {} | {} | {} |\n",
                self.name,
                seen.0,
                seen.1,
                grown.join(", "),
                detail.unwrap_or_default(),
                lines.join(" // ")
            );
            file.write_all(row.as_bytes()).unwrap();
        }
        assert_eq!(seen, (status, error.to_owned()), "{} {case}: {told}", self.name);
        if status >= 500 && !error.is_empty() {
            answer.assert_ours(status, error);
        }
    }
}

fn configuration(pki: &Pki, [plain, tls, mutual, dead]: [u16; 4], denied: &str) -> String {
    let (ca, client) = (pki.ca().display().to_string(), pki.client("app"));
    let denied = match denied {
        "" => String::new(),
        denied => format!("denied: {{ hosts: [\"{denied}\"], mode: tunnel }}"),
    };
    format!(
        "
        egress: {{ allow_networks: [loopback], parent: \"env:PARENT\", parent_ca: \"file:{ca}\" }}
        timeouts: {{ connect: 4s, tls: 4s, response: 10s }}
        destinations:
          plain: {{ hosts: [\"127.0.0.1:{plain}\"] }}
          inner: {{ hosts: [\"127.0.0.1:{tls}\"], mode: intercept, tls: {{ ca: \"file:{ca}\" }} }}
          mutual: {{ hosts: [\"127.0.0.1:{mutual}\"], tls: {{ ca: \"file:{ca}\", client_certificate: {} }} }}
          name: {{ hosts: [nosuch.invalid] }}
          dead: {{ hosts: [\"127.0.0.1:{dead}\"] }}
          {denied}
        ",
        client.yaml()
    )
}

/// Asks by the form that the name of the case ends with. A tunnel that opens is read to its end.
fn ask(proxy: &Proxy, case: &str, authority: &str) -> Response {
    if case.ends_with("GET") {
        return proxy.get(&format!("http://{authority}/"));
    }
    let (answer, mut wire) = proxy.connect(authority);
    if answer.status == 200 {
        // It may be closed by now.
        let _ = wire.try_send("hello");
        assert!(wire.closes(), "{case}: a tunnel to nowhere stays open");
    }
    answer
}

/// The attempts so far, by their results.
fn results(proxy: &Proxy) -> BTreeMap<String, String> {
    let page = proxy.page("/metrics").text();
    let lines = page
        .lines()
        .filter(|line| line.starts_with("outrider_parent_connects_total{"));
    lines
        .filter_map(|line| {
            let (_, rest) = line.split_once("result=\"")?;
            let (result, count) = rest.split_once("\"} ")?;
            Some((result.to_owned(), count.to_owned()))
        })
        .collect()
}

#[test]
fn squid() {
    const EXPECTED: &str = "
        dead name, CONNECT = 502 dns_error target_dns: name does not resolve there
        dead name, GET = 502 dns_error target_dns: name does not resolve there
        dead address, CONNECT = 502 connection_refused target_refused: the destination refused
        dead address, GET = 502 connection_refused target_refused: the destination refused
        denied, CONNECT = 502 destination_unavailable denied: its rules deny this destination
    ";
    Course::new(
        "squid",
        ParentProgram::squid(true, None),
        "denied.test:443",
        EXPECTED,
    )
    .run();
    let pki = Pki::new();
    let parent = ParentProgram::squid(true, Some(&pki.server("parent.test")));
    Course::trusting("squid, https_port", parent, pki, "denied.test:443", EXPECTED).run();
}

#[test]
fn tinyproxy() {
    const EXPECTED: &str = "
        dead name, CONNECT = 502 destination_unavailable target_unreachable: could not reach the destination
        dead name, GET = 502 destination_unavailable target_unreachable: could not reach the destination
        dead address, CONNECT = 502 destination_unavailable target_unreachable: could not reach the destination
        dead address, GET = 502 destination_unavailable target_unreachable: could not reach the destination
        denied, CONNECT = 502 destination_unavailable denied: its rules deny this destination
    ";
    Course::new(
        "tinyproxy",
        ParentProgram::tinyproxy(true),
        "denied.test:443",
        EXPECTED,
    )
    .run();
}

/// Nothing in its error pages says that they are not the destination's.
#[test]
fn apache() {
    const EXPECTED: &str = "
        dead name, CONNECT = 502 destination_unavailable target_unreachable: could not reach the destination
        dead name, GET = 500 - ok: Proxy Error
        dead address, CONNECT = 502 destination_unavailable target_unreachable: could not reach the destination
        dead address, GET = 503 - ok: Service Unavailable
        denied, CONNECT = 502 destination_unavailable denied: its rules deny this destination
    ";
    Course::new("Apache", ParentProgram::apache(true), "127.0.0.1:9", EXPECTED).run();
}

#[test]
fn traffic_server() {
    if is_not_packaged("traffic_server") {
        return;
    }
    const EXPECTED: &str = "
        dead name, CONNECT = 502 dns_error target_dns: name does not resolve there
        dead name, GET = 502 dns_error target_dns: name does not resolve there
        dead address, CONNECT = 200 - closed_tunnel: Traffic Server does that
        dead address, GET = 502 connection_refused target_refused: the destination refused
        denied, CONNECT = 502 destination_unavailable denied: its rules deny this destination
    ";
    Course::new(
        "Traffic Server",
        ParentProgram::traffic_server(),
        "127.0.0.1:9",
        EXPECTED,
    )
    .run();
}

#[test]
fn envoy() {
    const EXPECTED: &str = "
        dead name, CONNECT = 502 destination_unavailable target_unreachable: could not reach the destination
        dead name, GET = 503 - ok: no healthy upstream
        dead address, CONNECT = 502 connection_refused target_refused: the destination refused
        dead address, GET = 503 - ok: upstream connect error
        denied, CONNECT = 502 destination_unavailable denied: its rules deny this destination
    ";
    Course::new("Envoy", ParentProgram::envoy(), "denied.test:443", EXPECTED).run();
}

#[test]
fn mitmproxy() {
    const EXPECTED: &str = "
        dead name, CONNECT = 502 dns_error target_dns: name does not resolve there
        dead name, GET = 502 destination_unavailable target_unreachable: could not reach the destination
        dead address, CONNECT = 502 connection_refused target_refused: the destination refused
        dead address, GET = 502 destination_unavailable target_unreachable: could not reach the destination
    ";
    Course::new("mitmproxy", ParentProgram::mitmproxy(true), "", EXPECTED).run();
}

#[test]
fn proxy_py() {
    const EXPECTED: &str = "
        dead name, CONNECT = 502 destination_unavailable target_unreachable: could not reach the destination
        dead name, GET = 502 destination_unavailable target_unreachable: could not reach the destination
        dead address, CONNECT = 502 destination_unavailable target_unreachable: could not reach the destination
        dead address, GET = 502 destination_unavailable target_unreachable: could not reach the destination
    ";
    Course::new("proxy.py", ParentProgram::proxy_py(true), "", EXPECTED).run();
}

#[test]
fn pproxy() {
    const EXPECTED: &str = "
        dead name, CONNECT = 502 connection_terminated closed: closed the connection without an answer
        dead name, GET = 502 connection_terminated closed: closed the connection without an answer
        dead address, CONNECT = 502 connection_terminated closed: closed the connection without an answer
        dead address, GET = 502 connection_terminated closed: closed the connection without an answer
    ";
    Course::new("pproxy", ParentProgram::pproxy("http", true), "", EXPECTED).run();
    // It says that it has connected before it tries.
    const SOCKS: &str = "
        dead name, CONNECT = 200 - closed_tunnel: closed it without a byte
        dead name, GET = 502 connection_terminated closed_tunnel: closed it without a byte
        dead address, CONNECT = 200 - closed_tunnel: closed it without a byte
        dead address, GET = 502 connection_terminated closed_tunnel: closed it without a byte
    ";
    Course::new(
        "pproxy, SOCKS5",
        ParentProgram::pproxy("socks5", false),
        "",
        SOCKS,
    )
    .run();
}

#[test]
fn proxy_chain() {
    const EXPECTED: &str = "
        dead name, CONNECT = 502 connection_terminated closed: closed the connection without an answer
        dead name, GET = 404 - ok: Not Found
        dead address, CONNECT = 502 connection_terminated closed: closed the connection without an answer
        dead address, GET = 502 connection_refused target_refused: the destination refused
        denied, CONNECT = 502 destination_unavailable denied: its rules deny this destination
    ";
    Course::new(
        "proxy-chain",
        ParentProgram::proxy_chain(true),
        "denied.test:443",
        EXPECTED,
    )
    .run();
}

#[test]
fn dante() {
    if is_not_packaged("danted") {
        return;
    }
    const EXPECTED: &str = "
        dead name, CONNECT = 502 dns_error target_dns: its name does not resolve
        dead name, GET = 502 dns_error target_dns: its name does not resolve
        dead address, CONNECT = 502 connection_refused target_refused: the destination refused
        dead address, GET = 502 connection_refused target_refused: the destination refused
        denied, CONNECT = 502 destination_unavailable denied: its rules deny this destination
    ";
    Course::new("dante", ParentProgram::dante(), "127.0.0.1:9", EXPECTED).run();
}

#[test]
fn microsocks() {
    const EXPECTED: &str = "
        dead name, CONNECT = 502 destination_unavailable target_unreachable: microsocks says so
        dead name, GET = 502 destination_unavailable target_unreachable: microsocks says so
        dead address, CONNECT = 502 connection_refused target_refused: the destination refused
        dead address, GET = 502 connection_refused target_refused: the destination refused
    ";
    Course::new("microsocks", ParentProgram::microsocks(true), "", EXPECTED).run();
}

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::task::JoinSet;

use self::name_server::{NameServer, Say};
use super::*;

mod name_server;

const V4: RecordType = RecordType::A;
const V6: RecordType = RecordType::AAAA;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn address(owner: &str, ttl: u32, address: &str) -> Record {
    let data = match ip(address) {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(name(owner), ttl, data)
}

fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

fn dns(servers: &[&NameServer]) -> Dns {
    Dns {
        hosts: BTreeMap::new(),
        max_ttl: Duration::from_secs(300),
        min_ttl: Duration::from_secs(5),
        servers: servers.iter().map(|server| server.address).collect(),
        stale: Duration::from_secs(60),
        timeout: Duration::from_secs(5),
    }
}

fn resolver(dns: &Dns) -> Resolver {
    Resolver::new(dns, &Telemetry::new()).unwrap()
}

async fn resolved(resolver: &Resolver, name: &str) -> Vec<IpAddr> {
    resolver.resolve(name).await.unwrap().to_vec()
}

#[tokio::test]
async fn both_kinds_of_address_are_found_and_cached() {
    let server = NameServer::start().await;
    server.says(
        "a.test.",
        V4,
        Say::Records(vec![
            address("a.test.", 60, "192.0.2.1"),
            address("a.test.", 60, "192.0.2.2"),
        ]),
    );
    server.says(
        "a.test.",
        V6,
        Say::Records(vec![address("a.test.", 60, "2001:db8::1")]),
    );
    let resolver = resolver(&dns(&[&server]));
    let expected = ips(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    assert_eq!(resolved(&resolver, "a.test").await, expected);
    assert_eq!(server.asked(), ["a.test. A", "a.test. AAAA"]);
    assert_eq!(resolved(&resolver, "a.test.").await, expected);
    assert!(server.asked().is_empty(), "cached, with a trailing dot too");
}

/// D14: no search domain, however few dots.
#[tokio::test]
async fn names_are_tried_as_they_stand() {
    let server = NameServer::start().await;
    server.says_always("printer.", &Say::Code(ResponseCode::NXDomain));
    resolver(&dns(&[&server])).resolve("printer").await.unwrap_err();
    assert_eq!(server.asked(), ["printer. A", "printer. AAAA"]);
}

/// D12: every failure of a server has its own words, and the same name is not asked again at once.
#[tokio::test]
async fn failures_are_told_apart() {
    let cases: [(Say, &str, &str, Option<&str>); 7] = [
        (
            Say::Code(ResponseCode::NXDomain),
            "does not exist",
            "dns_error",
            Some("NXDOMAIN"),
        ),
        (
            Say::Records(vec![]),
            "neither an A nor an AAAA",
            "dns_error",
            Some("NOERROR"),
        ),
        (
            Say::Code(ResponseCode::ServFail),
            "SERVFAIL",
            "dns_error",
            Some("SERVFAIL"),
        ),
        (
            Say::Code(ResponseCode::Refused),
            "REFUSED",
            "dns_error",
            Some("REFUSED"),
        ),
        (Say::Garbage, "no usable answer", "dns_error", None),
        (Say::Silence, "within 600ms", "dns_timeout", None),
        (
            Say::WrongId(vec![address("a.test.", 60, "192.0.2.66")]),
            "within 600ms",
            "dns_timeout",
            None,
        ),
    ];
    for (say, words, status, rcode) in cases {
        let server = NameServer::start().await;
        server.says_always("a.test.", &say);
        let resolver = resolver(&Dns {
            timeout: Duration::from_millis(600),
            ..dns(&[&server])
        });
        let started = Instant::now();
        let error = resolver.resolve("a.test").await.unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(3), "{error}");
        let text = error.to_string();
        assert!(text.contains(words) && text.contains("a.test"), "{text}");
        assert_eq!((error.proxy_status(), error.rcode()), (status, rcode), "{text}");
        assert!(!server.asked().is_empty());
        assert_eq!(resolver.resolve("a.test").await, Err(error));
        assert!(server.asked().is_empty(), "failures are cached: {text}");
    }
}

#[tokio::test]
async fn one_kind_of_address_is_enough() {
    let failures = [
        Say::Silence,
        Say::Garbage,
        Say::Code(ResponseCode::ServFail),
        Say::Code(ResponseCode::NXDomain),
    ];
    for say in failures {
        for (kind, text) in [(V4, "192.0.2.1"), (V6, "2001:db8::1")] {
            let server = NameServer::start().await;
            server.says_always("a.test.", &say);
            server.says("a.test.", kind, Say::Records(vec![address("a.test.", 60, text)]));
            assert_eq!(
                resolved(&resolver(&dns(&[&server])), "a.test").await,
                ips(&[text])
            );
        }
    }
}

#[tokio::test]
async fn aliases_are_followed() {
    let server = NameServer::start().await;
    let whole = vec![
        alias("a.test.", "b.test."),
        alias("b.test.", "c.test."),
        address("c.test.", 60, "192.0.2.1"),
    ];
    server.says("a.test.", V4, Say::Records(whole));
    // A server that leaves the chase to us.
    server.says_always("x.test.", &Say::Records(vec![alias("x.test.", "y.test.")]));
    server.says(
        "y.test.",
        V4,
        Say::Records(vec![address("y.test.", 60, "192.0.2.2")]),
    );
    let resolver = resolver(&dns(&[&server]));
    assert_eq!(resolved(&resolver, "a.test").await, ips(&["192.0.2.1"]));
    assert_eq!(resolved(&resolver, "x.test").await, ips(&["192.0.2.2"]));
}

#[tokio::test]
async fn aliases_in_a_circle_end() {
    let server = NameServer::start().await;
    server.says_always("a.test.", &Say::Records(vec![alias("a.test.", "b.test.")]));
    server.says_always("b.test.", &Say::Records(vec![alias("b.test.", "a.test.")]));
    let error = resolver(&dns(&[&server])).resolve("a.test").await.unwrap_err();
    assert_eq!(error.proxy_status(), "dns_error", "{error}");
}

#[tokio::test]
async fn an_answer_too_long_for_a_datagram_comes_over_tcp() {
    let server = NameServer::start().await;
    let many: Vec<_> = (0..100)
        .map(|n| address("a.test.", 60, &format!("192.0.2.{n}")))
        .collect();
    server.says("a.test.", V4, Say::TooLong(many));
    assert_eq!(resolved(&resolver(&dns(&[&server])), "a.test").await.len(), 100);
}

#[tokio::test]
async fn an_answer_that_has_run_out_serves_while_the_servers_fail() {
    let server = NameServer::start().await;
    server.says(
        "a.test.",
        V4,
        Say::Records(vec![address("a.test.", 60, "192.0.2.1")]),
    );
    // Runs out at once.
    let dns = Dns {
        min_ttl: Duration::ZERO,
        max_ttl: Duration::ZERO,
        ..dns(&[&server])
    };
    let resolver = resolver(&dns);
    assert_eq!(resolved(&resolver, "a.test").await, ips(&["192.0.2.1"]));
    server.says_always("a.test.", &Say::Code(ResponseCode::ServFail));
    server.asked();
    assert_eq!(resolved(&resolver, "a.test").await, ips(&["192.0.2.1"]));
    assert!(!server.asked().is_empty());
    assert_eq!(resolved(&resolver, "a.test").await, ips(&["192.0.2.1"]));
    assert!(
        server.asked().is_empty(),
        "failing servers are left alone for a moment"
    );
}

/// A server that says "no such name" has not failed: the name is gone.
#[tokio::test]
async fn a_name_that_is_gone_does_not_serve_on() {
    let server = NameServer::start().await;
    server.says(
        "a.test.",
        V4,
        Say::Records(vec![address("a.test.", 60, "192.0.2.1")]),
    );
    let dns = Dns {
        min_ttl: Duration::ZERO,
        max_ttl: Duration::ZERO,
        ..dns(&[&server])
    };
    let resolver = resolver(&dns);
    resolved(&resolver, "a.test").await;
    server.says_always("a.test.", &Say::Code(ResponseCode::NXDomain));
    assert!(matches!(
        resolver.resolve("a.test").await,
        Err(Error::NotFound { .. })
    ));
}

#[tokio::test]
async fn configured_hosts_come_before_any_question() {
    let server = NameServer::start().await;
    let mut dns = dns(&[&server]);
    dns.hosts.insert("A.Test.".into(), ips(&["127.0.0.9", "::9"]));
    dns.hosts.insert("localhost".into(), ips(&["127.0.0.8"]));
    let resolver = resolver(&dns);
    assert_eq!(resolved(&resolver, "a.test").await, ips(&["127.0.0.9", "::9"]));
    assert_eq!(resolved(&resolver, "a.test.").await, ips(&["127.0.0.9", "::9"]));
    assert_eq!(resolved(&resolver, "localhost").await, ips(&["127.0.0.8"]));
    assert_eq!(
        resolved(&resolver, "db.localhost").await,
        ips(&["127.0.0.1", "::1"])
    );
    assert!(server.asked().is_empty());
}

#[test]
fn a_configured_host_without_address_is_refused_at_start() {
    let mut dns = Dns {
        servers: Vec::new(),
        hosts: BTreeMap::new(),
        ..lax()
    };
    dns.hosts.insert("a.test".into(), Vec::new());
    let error = Resolver::new(&dns, &Telemetry::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "dns.hosts names a.test without an address; give it one, or leave it out"
    );
}

/// The system's settings; nothing is asked.
fn lax() -> Dns {
    Dns {
        hosts: BTreeMap::new(),
        max_ttl: Duration::from_secs(300),
        min_ttl: Duration::from_secs(5),
        servers: Vec::new(),
        stale: Duration::ZERO,
        timeout: Duration::from_millis(200),
    }
}

#[tokio::test]
async fn names_that_dns_could_not_hold_are_told_without_asking() {
    let server = NameServer::start().await;
    let resolver = resolver(&dns(&[&server]));
    let long = format!("{}.test", "a".repeat(64));
    for name in [&*long, "a..test", &"ab.".repeat(90)] {
        assert!(
            matches!(resolver.resolve(name).await, Err(Error::Name { .. })),
            "{name}"
        );
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_silent_server_leads_to_the_next_and_is_avoided_from_then_on() {
    let (first, second) = (NameServer::start().await, NameServer::start().await);
    for name in ["a.test.", "b.test."] {
        first.says_always(name, &Say::Silence);
        second.says(name, V4, Say::Records(vec![address(name, 60, "192.0.2.1")]));
    }
    let resolver = resolver(&Dns {
        timeout: Duration::from_secs(1),
        ..dns(&[&first, &second])
    });
    assert_eq!(resolved(&resolver, "a.test").await, ips(&["192.0.2.1"]));
    first.asked();
    assert_eq!(resolved(&resolver, "b.test").await, ips(&["192.0.2.1"]));
    assert!(first.asked().is_empty());
}

#[tokio::test]
async fn a_failing_server_leads_to_the_next_but_no_such_name_is_believed() {
    let (first, second) = (NameServer::start().await, NameServer::start().await);
    first.says_always("a.test.", &Say::Code(ResponseCode::ServFail));
    first.says_always("inside.test.", &Say::Code(ResponseCode::NXDomain));
    for name in ["a.test.", "inside.test."] {
        second.says(name, V4, Say::Records(vec![address(name, 60, "192.0.2.2")]));
    }
    let ask = async |name| resolver(&dns(&[&first, &second])).resolve(name).await;
    assert_eq!(ask("a.test").await.unwrap().to_vec(), ips(&["192.0.2.2"]));
    assert!(matches!(ask("inside.test").await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn many_requests_for_one_name_ask_once() {
    let server = NameServer::start().await;
    server.says(
        "a.test.",
        V4,
        Say::Records(vec![address("a.test.", 60, "192.0.2.1")]),
    );
    let resolver = Arc::new(resolver(&dns(&[&server])));
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let resolver = Arc::clone(&resolver);
        tasks.spawn(async move { resolved(&resolver, "a.test").await });
    }
    for addresses in tasks.join_all().await {
        assert_eq!(addresses, ips(&["192.0.2.1"]));
    }
    assert_eq!(server.asked(), ["a.test. A", "a.test. AAAA"]);
    assert!(resolver.worker().queries().is_empty());
}

#[tokio::test]
async fn when_the_one_who_asks_goes_away_the_next_takes_over() {
    let server = NameServer::start().await;
    server.says_always("a.test.", &Say::Silence);
    let resolver = Arc::new(resolver(&dns(&[&server])));
    let spawn = || {
        let resolver = Arc::clone(&resolver);
        tokio::spawn(async move { resolver.resolve("a.test").await })
    };
    let first = spawn();
    while !server.has_been_asked() {
        tokio::task::yield_now().await;
    }
    let second = spawn();
    tokio::task::yield_now().await;
    server.says(
        "a.test.",
        V4,
        Say::Records(vec![address("a.test.", 60, "192.0.2.1")]),
    );
    first.abort();
    assert_eq!(second.await.unwrap().unwrap().to_vec(), ips(&["192.0.2.1"]));
    assert!(resolver.worker().queries().is_empty());
}

#[tokio::test]
async fn requests_that_go_away_leave_nothing_behind() {
    let server = NameServer::start().await;
    let resolver = resolver(&dns(&[&server]));
    for number in 0..20 {
        let name = format!("{number}.test");
        server.says_always(&format!("{name}."), &Say::Silence);
        let gone = tokio::time::timeout(Duration::ZERO, resolver.resolve(&name)).await;
        assert!(gone.is_err());
    }
    assert!(resolver.worker().queries().is_empty());
}

/// A worker's runtime may be gone; the look-ups of the others do not depend on it.
#[tokio::test]
async fn a_look_up_depends_on_no_other_runtime() {
    let server = NameServer::start().await;
    for name in ["a.test.", "b.test."] {
        server.says(name, V4, Say::TooLong(vec![address(name, 60, "192.0.2.1")]));
    }
    let resolver = Arc::new(resolver(&dns(&[&server])));
    for name in ["a.test", "b.test"] {
        let resolver = Arc::clone(&resolver);
        let worker = tokio::task::spawn_blocking(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(resolver.resolve(name))
        });
        assert_eq!(
            worker.await.unwrap().unwrap().to_vec(),
            ips(&["192.0.2.1"]),
            "{name}"
        );
    }
}

#[tokio::test]
async fn look_ups_are_counted_by_result() {
    let server = NameServer::start().await;
    server.says(
        "a.test.",
        V4,
        Say::Records(vec![address("a.test.", 60, "192.0.2.1")]),
    );
    let telemetry = Telemetry::new();
    let resolver = Resolver::new(&dns(&[&server]), &telemetry).unwrap();
    for name in ["a.test", "a.test", "empty.test"] {
        let _ = resolver.resolve(name).await;
    }
    let page = String::from_utf8(telemetry.render()).unwrap();
    for line in [
        "outrider_dns_lookup_seconds_count{result=\"ok\"} 1",
        "outrider_dns_lookup_seconds_count{result=\"dns_error\"} 1",
    ] {
        assert!(page.lines().any(|own| own == line), "{line} is not in\n{page}");
    }
}

fn system(hosts: &str, resolv_conf: &str) -> (SystemFiles, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let system = SystemFiles {
        hosts: folder.path().join("hosts"),
        resolv_conf: folder.path().join("resolv.conf"),
    };
    fs::write(&system.hosts, hosts).unwrap();
    fs::write(&system.resolv_conf, resolv_conf).unwrap();
    (system, folder)
}

#[tokio::test]
async fn the_hosts_file_counts_where_the_system_resolves() {
    let hosts =
        "# a.test\n::5 a.test\n127.0.0.5\tA.test. b.test # c.test\n127.0.0.6 b.test\nnonsense a.test\n";
    let (system, _folder) = system(hosts, "");
    let resolver = Resolver::with(&lax(), &Telemetry::new(), system).unwrap();
    assert_eq!(resolved(&resolver, "a.test").await, ips(&["127.0.0.5", "::5"]));
    assert_eq!(
        resolved(&resolver, "b.test").await,
        ips(&["127.0.0.5", "127.0.0.6"])
    );
    assert!(resolver.system.hosts("c.test").is_empty());

    let server = NameServer::start().await;
    let (system, _folder) = self::system("127.0.0.5 a.test", "");
    let resolver = Resolver::with(&dns(&[&server]), &Telemetry::new(), system).unwrap();
    assert!(
        resolver.resolve("a.test").await.is_err(),
        "whoever names servers wants their answer"
    );
}

#[test]
fn the_systems_servers_are_read() {
    let text = "# x\nsearch example.com\nnameserver 169.254.0.2\nnameserver fe80::1%eth0\n nameserver ::1 ; y\nnameserver\n";
    let (system, _folder) = system("", text);
    let expected: Vec<SocketAddr> = vec!["169.254.0.2:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
    assert_eq!(system.servers(), expected);
}

/// D14: no start failure, and the look-up says what is missing.
#[tokio::test]
async fn without_resolv_conf_this_machine_is_asked_and_errors_say_so() {
    let (mut system, _folder) = system("", "");
    system.resolv_conf = "/nowhere/resolv.conf".into();
    let resolver = Resolver::with(&lax(), &Telemetry::new(), system).unwrap();
    let worker = resolver.worker();
    let error = worker
        .servers
        .look_up("a.invalid.test", Instant::now())
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("127.0.0.1:53, because /nowhere/resolv.conf names none"),
        "{text}"
    );
}

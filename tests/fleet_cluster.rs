//! One quota for several instances in a real Redis cluster while keys move, and a store that wants certificates.

use std::time::Instant;

use crate::fleet::{Counter, SECOND, assert_shared, busiest_second, pause_until, under_load};
use crate::support::redis::{Cluster, Redis};
use crate::support::{CANARY, Origin, Pki, Proxy, Wire, eventually};

/// The slot of one limit moves in the middle: its calls are sent after it, and nobody notices.
#[test]
fn limits_hold_in_a_cluster_while_a_slot_moves() {
    let cluster = Cluster::start();
    let counters = [Counter::start(), Counter::start(), Counter::start()];
    let destinations: Vec<_> = (counters.iter().enumerate())
        .map(|(number, counter)| {
            let host = counter.origin.authority();
            format!("d{number}: {{ hosts: [\"{host}\"], rate_limit: 60/s burst 10, on_limit: wait 5s }}")
        })
        .collect();
    let start = |store: String| {
        Proxy::start(&format!(
            "workers: 1\nlog: {{ format: json, access: none }}\nrate_limit_store: {store}\n\
             destinations: {{ {} }}",
            destinations.join(", ")
        ))
    };
    // The last one is given one server only, and finds out that this is a cluster.
    let proxies = [
        start(format!("redis+cluster://{}", cluster.addresses())),
        start(format!("valkey-cluster://{}", cluster.addresses())),
        start(format!("redis://127.0.0.1:{}", cluster.nodes[0].port())),
    ];
    let keys = || -> String { cluster.nodes.iter().map(|node| node.keys() + " ").collect() };
    let mut key = String::new();
    let mut moved_to = 0;
    let origins: Vec<_> = counters.iter().map(|counter| &counter.origin).collect();
    let begin = Instant::now();
    let statuses = under_load(&proxies, &origins, 2, || {
        pause_until(begin + 2 * SECOND);
        let all = keys();
        key = all
            .split_whitespace()
            .find(|key| !key.ends_with(":members"))
            .unwrap()
            .to_owned();
        moved_to = cluster.move_slot(&key, || {}, || pause_until(begin + 3 * SECOND));
        pause_until(begin + 6 * SECOND);
    });
    assert_eq!(statuses.len(), 1, "only 200: {statuses:?}");
    assert_eq!(cluster.keeper(&key), moved_to);
    let all = keys();
    assert_eq!(all.split_whitespace().count(), 6, "{all}");
    for counter in &counters {
        let asked = counter.between(begin, begin + 6 * SECOND);
        let steady = counter.between(begin + SECOND, begin + 6 * SECOND).len();
        let busiest = busiest_second(&asked);
        println!(
            "{} in 6 s, {busiest} in the busiest second, {steady} after the first",
            asked.len()
        );
        assert!(
            asked.len() as f64 <= 1.02 * 370.0,
            "{} in six seconds",
            asked.len()
        );
        assert!(busiest as f64 <= 1.2 * 70.0, "{busiest} in one second");
        assert!(steady as f64 >= 0.9 * 300.0, "only {steady} in five seconds");
    }
    for proxy in &proxies {
        let log = proxy.log();
        assert_eq!(
            proxy.metric("outrider_quota_store_errors_total", &[]),
            0.0,
            "{log}"
        );
    }
}

/// Every server that a cluster names passes the egress check before it is dialled.
#[test]
fn a_cluster_that_names_outrider_itself_is_not_followed() {
    let origin = Origin::plain();
    let port = crate::support::closed_port();
    let store = Origin::http(move |wire: &mut Wire| {
        let _ = wire.read_exact(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n".len());
        wire.send("+OK\r\n");
        let _ = wire.read_exact(1);
        wire.send(format!("-MOVED 1 127.0.0.1:{port}\r\n"));
        drop(wire.rest());
    });
    let proxy = Proxy::start(&format!(
        "listen: 127.0.0.1:{port}\nrate_limit_store: redis://127.0.0.1:{}\ninstances: 1\n\
         destinations: {{ p: {{ hosts: [\"{}\"], rate_limit: 4/h }} }}",
        store.port(),
        origin.authority()
    ));
    eventually("it is logged", || {
        proxy
            .log()
            .contains(&format!("127.0.0.1:{port} is a listener of outrider itself"))
    });
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
}

/// A store that demands a certificate of its clients gets one.
#[test]
fn the_store_is_shown_a_client_certificate() {
    let pki = Pki::new();
    let password = format!("{CANARY}-redis");
    let redis = Redis::demanding(&pki, &pki.server("partner.test"), &password);
    let client = pki.client("app");
    let origin = Origin::plain();
    let url = format!("rediss://:{password}@partner.test:{}", redis.tls_port());
    let ca = pki.ca().display().to_string();
    let start = |tls: &str| {
        Proxy::start_with(
            &format!(
                "workers: 1\nrate_limit_store: {{ url: env:QUOTAS, tls: {{ {tls} }} }}\n\
                 destinations: {{ p: {{ hosts: [\"{}\"], rate_limit: 4/h, on_limit: reject }} }}",
                origin.authority()
            ),
            &[("QUOTAS", url.as_str())],
        )
    };
    let without = start(&format!("ca: \"file:{ca}\""));
    eventually("it is refused", || without.log().contains("cannot be asked"));
    let certificate = format!(
        "ca: \"file:{ca}\", client_certificate: {{ cert: \"file:{}\", key: \"file:{}\" }}",
        client.cert_path.display(),
        client.key_path.display()
    );
    let proxies = [start(&certificate), start(&certificate)];
    eventually("both are known to the store", || redis.runs().0 >= 3);
    assert_shared(&proxies, &origin);
}

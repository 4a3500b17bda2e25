//! One quota for several instances in a real Redis cluster and under real Sentinels, while keys move and servers
//! die.

use std::time::Instant;

use crate::fleet::{Counter, SECOND, busiest_second, fleet, instance, pause_until, under_load};
use crate::support::redis::{Cluster, Redis, Sentinels};
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
        moved_to = cluster.move_slot(&key, || pause_until(begin + 3 * SECOND));
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
        assert!(busiest as f64 <= 1.05 * 70.0, "{busiest} in one second");
        assert!(steady as f64 >= 0.95 * 300.0, "only {steady} in five seconds");
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

/// The primary is killed in the middle, and a Sentinel too: the limits go on with the new primary.
#[test]
fn a_failover_of_sentinels_passes_no_limit_and_fails_no_request() {
    let (mut primary, counter) = (Redis::open(), Counter::start());
    let replica = Redis::replica_of(&primary);
    let mut sentinels = Sentinels::watching(&primary);
    let store = format!("redis+sentinel://{}/main", sentinels.addresses());
    let limits = "rate_limit: 150/s burst 20, on_limit: wait 5s";
    let proxies = fleet(3, &counter.origin, &store, limits);
    let begin = Instant::now();
    let (killed, end) = (begin + 2 * SECOND, begin + 12 * SECOND);
    let statuses = under_load(&proxies, &[&counter.origin], 6, || {
        pause_until(killed);
        primary.kill();
        sentinels.kill_one();
        pause_until(end);
    });
    assert_eq!(statuses.len(), 1, "only 200: {statuses:?}");
    let all = counter.between(begin, end);
    let last = counter.between(end - 2 * SECOND, end).len();
    println!(
        "{} in all, {} in the busiest second, {last} in the last two",
        all.len(),
        busiest_second(&all)
    );
    // The whole of the shares is one more burst.
    assert!(busiest_second(&all) as f64 <= 1.02 * 190.0);
    assert!(
        all.len() as f64 <= 1.02 * (12.0 * 150.0 + 40.0),
        "{} in all",
        all.len()
    );
    assert!(last as f64 >= 0.95 * 300.0, "{last} in two seconds");
    assert!(replica.runs().0 > 0);
    for proxy in &proxies {
        let log = proxy.log();
        assert_eq!(log.matches("the quota store cannot be asked").count(), 1, "{log}");
        let back = log
            .lines()
            .find(|line| line.contains("the quota store answers again"))
            .unwrap();
        let seconds = back.split("\"seconds\":").nth(1).unwrap();
        let seconds: f64 = seconds.split([',', '}']).next().unwrap().parse().unwrap();
        println!("away for {seconds} s");
        assert!(seconds < 7.0, "{back}");
    }
}

#[test]
fn a_name_that_no_sentinel_knows_is_logged_and_the_share_holds() {
    let primary = Redis::open();
    let _replica = Redis::replica_of(&primary);
    let sentinels = Sentinels::watching(&primary);
    let store = format!("redis+sentinel://{}/other", sentinels.addresses());
    let origin = Origin::plain();
    let limits = "rate_limit: 4/h, on_limit: reject";
    let proxy = instance(&origin, &store, limits, &[("CF_INSTANCE_INDEX", "0")]);
    eventually("it is logged", || {
        proxy
            .log()
            .contains("no Sentinel knows a primary named `other`; check the name")
    });
    let statuses: Vec<_> = (0..3).map(|_| proxy.get(&origin.url("/")).status).collect();
    assert_eq!(statuses, [200, 200, 429]);
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
    let statuses: Vec<_> = (0..8)
        .map(|turn| proxies[turn % 2].get(&origin.url("/")).status)
        .collect();
    assert_eq!(statuses, [200, 200, 200, 200, 429, 429, 429, 429]);
}

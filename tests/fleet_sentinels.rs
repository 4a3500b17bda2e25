//! Real Sentinels with passwords, host names and dead members.

use std::thread;
use std::time::Instant;

use crate::fleet::{Counter, SECOND, busiest_second, instance, pause_until, under_load};
use crate::fleet_outages::together;
use crate::support::redis::{Redis, Sentinels};
use crate::support::{CANARY, Origin, eventually};

#[test]
fn sentinels_lead_to_the_primary() {
    together(&[
        a_failover_of_sentinels_passes_no_limit_and_fails_no_request,
        each_refusal_of_a_sentinel_is_logged_with_its_remedy,
    ]);
}

/// The primary is killed in the middle, and a Sentinel too: the limits go on with the new primary. Servers and Sentinels
/// have different passwords; the servers know outrider as a user, and the Sentinels name them by a host name.
fn a_failover_of_sentinels_passes_no_limit_and_fails_no_request() {
    let start = Instant::now();
    let (counter, password) = (Counter::start(), format!("{CANARY}-servers"));
    let user = format!("{CANARY}-app");
    let options = format!(
        "--user app on >{user} ~outrider:* +@all -@dangerous --masterauth {password} --requirepass {password} \
         --replica-announce-ip localhost"
    );
    let mut primary = Redis::with(&options);
    let replica = Redis::replica_with(&primary, "localhost", &options);
    let own = format!("{CANARY}-sentinels");
    let mut sentinels = Sentinels::with("localhost", primary.port(), Some(&own), |_| {
        vec![
            "sentinel resolve-hostnames yes".to_owned(),
            "sentinel announce-hostnames yes".to_owned(),
            format!("sentinel auth-pass main {password}"),
        ]
    });
    let url = format!("redis+sentinel://app:{user}@{}/main", sentinels.addresses());
    let env = [("QUOTAS", url.as_str()), ("SENTINELS", own.as_str())];
    let store = "{ url: env:QUOTAS, sentinel_password: env:SENTINELS }";
    let limits = "rate_limit: 150/s burst 20, on_limit: wait 5s";
    let proxies = [0, 1, 2].map(|_| instance(&counter.origin, store, limits, &env));
    println!("set up after {:?}", start.elapsed());
    let begin = Instant::now();
    let (killed, mut end) = (begin + SECOND, begin + 8 * SECOND);
    let statuses = under_load(&proxies, &[&counter.origin], 6, || {
        pause_until(killed);
        primary.kill();
        sentinels.kill_one();
        for proxy in &proxies {
            eventually("the replica is asked", || {
                proxy.log().contains("the quota store answers again")
            });
        }
        end = end.max(Instant::now() + 2 * SECOND);
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
    assert!(busiest_second(&all) as f64 <= 1.15 * 190.0);
    assert!(
        all.len() as f64 <= 1.02 * ((end - begin).as_secs_f64() * 150.0 + 40.0),
        "{} in all",
        all.len()
    );
    assert!(last as f64 >= 0.9 * 300.0, "{last} in two seconds");
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
        assert!(seconds < 20.0, "{back}");
    }
}

/// What Sentinels refuse with says which password is meant, and what was taken for a Sentinel.
fn each_refusal_of_a_sentinel_is_logged_with_its_remedy() {
    let right = format!("{CANARY}-right");
    // Sentinels of one primary find each other.
    let (primary, other) = (Redis::open(), Redis::open());
    let _replicas = [&primary, &other].map(Redis::replica_of);
    let (guarded, open) = thread::scope(|scope| {
        let open = scope.spawn(|| Sentinels::watching(&other));
        let guarded = Sentinels::with("127.0.0.1", primary.port(), Some(&right), |_| Vec::new());
        (guarded, open.join().unwrap())
    });
    let server = format!("127.0.0.1:{}", primary.port());
    let (closed, open) = (guarded.addresses(), open.addresses());
    let half = format!("{open},127.0.0.1:1");
    let one = open.split(',').next().unwrap();
    let wrong = format!("{CANARY}-wrong");
    for (url, password, expected) in [
        (
            format!("redis+sentinel://{closed}/main"),
            "",
            "NOAUTH: it asks for a password; set sentinel_password",
        ),
        (
            format!("redis+sentinel://{closed}/main"),
            &wrong,
            "WRONGPASS: check sentinel_password",
        ),
        (
            format!("redis+sentinel://{open}/main"),
            &wrong,
            "ERR: it asks for no password; leave out sentinel_password",
        ),
        (
            format!("redis+sentinel://{half}/other"),
            "",
            "no Sentinel knows a primary named `other`; check the name",
        ),
        (
            format!("redis+sentinel://{server}/main"),
            "",
            "ERR: it is no Sentinel; name the Sentinels",
        ),
        (
            format!("redis://{one}"),
            "",
            "ERR: it is a Sentinel; write redis+sentinel://HOST:PORT/PRIMARY",
        ),
    ] {
        let origin = Origin::plain();
        let sentinel_password = if password.is_empty() {
            ""
        } else {
            ", sentinel_password: env:SENTINELS"
        };
        let store = format!("{{ url: \"{url}\"{sentinel_password} }}");
        let env = [("SENTINELS", password), ("CF_INSTANCE_INDEX", "0")];
        let proxy = instance(&origin, &store, "rate_limit: 4/h, on_limit: reject", &env);
        eventually(expected, || proxy.log().contains(expected));
        let statuses: Vec<_> = (0..3).map(|_| proxy.get(&origin.url("/")).status).collect();
        assert_eq!(statuses, [200, 200, 429], "{url}");
    }
}

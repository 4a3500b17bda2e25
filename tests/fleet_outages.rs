//! Servers of the store that die, move their keys or refuse, while requests go on: real Redis, real processes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::fleet::{
    Counter, SECOND, StopOnDrop, assert_shared, busiest_second, fleet, instance, pause_until,
};
use crate::support::redis::{Cluster, Redis};
use crate::support::{CANARY, Origin, Proxy, Wire, closed_port, eventually};

const REFUSED: &str = "the quota store cannot be asked";
const BACK: &str = "the quota store answers again";

/// A request waits 50 ms for the store at most; the rest is for a busy machine. The store's own limit is a second.
const PROMPT: Duration = Duration::from_millis(900);

#[test]
fn a_part_of_a_cluster_that_is_away_costs_no_request() {
    together(&[
        a_replica_takes_over_from_a_primary_that_dies,
        a_primary_without_a_replica_dies_and_comes_back,
        a_cluster_that_demands_all_of_its_parts_is_down,
        a_slot_that_stays_half_moved_is_logged,
        a_cluster_that_is_made_later_is_found,
    ]);
}

#[test]
fn a_server_that_refuses_costs_no_request() {
    together(&[
        each_refusal_of_a_server_is_logged_with_its_remedy,
        a_server_that_is_busy_for_a_while_is_waited_for,
        an_address_that_a_server_names_is_checked_before_it_is_dialled,
        the_permissions_of_the_page_suffice,
    ]);
}

/// Plays several stories, which mostly wait, at the same time.
pub(crate) fn together(stories: &[fn()]) {
    thread::scope(|scope| stories.iter().for_each(|story| drop(scope.spawn(story))));
}

/// Asks at an even pace through each proxy for as long as `story` takes. Returns how long the slowest answer took;
/// fails at an answer that is neither 200 nor 429.
pub(crate) fn under_pace(proxies: &[Proxy], origin: &Origin, story: impl FnOnce()) -> Duration {
    let (stop, slowest) = (AtomicBool::new(false), Mutex::new(Duration::ZERO));
    thread::scope(|scope| {
        for (number, proxy) in proxies.iter().enumerate() {
            let url = origin.url(&format!("/{number}"));
            let request = format!("GET {url} HTTP/1.1\r\nHost: {}\r\n\r\n", origin.authority());
            for _ in 0..2 {
                let (request, stop, slowest) = (request.clone(), &stop, &slowest);
                scope.spawn(move || {
                    let mut wire = proxy.wire();
                    while !stop.load(Ordering::Relaxed) {
                        let asked = Instant::now();
                        let answer = wire.ask(&request);
                        let took = asked.elapsed();
                        assert!([200, 429].contains(&answer.status), "{answer:?}");
                        let mut slowest = slowest.lock().unwrap();
                        *slowest = took.max(*slowest);
                        drop(slowest);
                        pause_until(asked + Duration::from_millis(10));
                    }
                });
            }
        }
        let _stop = StopOnDrop(&stop);
        story();
    });
    slowest.into_inner().unwrap()
}

/// The log says once that it began and once that it is over, and the metric does not count requests.
pub(crate) fn assert_said_once(proxy: &Proxy) {
    eventually("it is over", || proxy.log().contains(BACK));
    let log = proxy.log();
    assert_eq!(log.matches(REFUSED).count(), 1, "{log}");
    assert_eq!(log.matches(BACK).count(), 1, "{log}");
    let errors = proxy.metric("outrider_quota_store_errors_total", &[]);
    assert!((1.0..=30.0).contains(&errors), "{errors}: {log}");
}

/// Waits until the store answers all again, all have returned (2.5 s), and a second longer.
fn settled(proxies: &[Proxy]) -> Instant {
    eventually("it is over", || {
        proxies.iter().all(|proxy| proxy.log().contains(BACK))
    });
    let end = Instant::now() + SECOND * 36 / 10;
    pause_until(end);
    end
}

fn a_replica_takes_over_from_a_primary_that_dies() {
    let (mut cluster, counter) = (Cluster::start(), Counter::start());
    let store = format!("redis+cluster://{}", cluster.addresses());
    let limits = "rate_limit: 100/s burst 20, on_limit: reject";
    let proxies = fleet(3, &counter.origin, &store, limits);
    eventually("all are known", || {
        cluster.nodes.iter().map(|node| node.runs().0).sum::<u64>() >= 4
    });
    let keeper = cluster.keeper(&cluster.limits()[0]);
    cluster.add_replica(keeper);
    let begin = Instant::now();
    let killed = begin + SECOND;
    let mut end = begin;
    let slowest = under_pace(&proxies, &counter.origin, || {
        pause_until(killed);
        cluster.nodes[keeper].kill();
        end = settled(&proxies);
    });
    let all = counter.between(begin, end);
    let away = counter.between(killed, killed + SECOND).len();
    let last = counter.between(end - SECOND, end).len();
    let busiest = busiest_second(&all);
    println!(
        "{} in all, {busiest} in the busiest second, {away} in the first away, {last} in the last, {slowest:?}",
        all.len()
    );
    assert!(slowest < PROMPT, "{slowest:?}");
    assert!(away > 60, "{away}");
    assert!(last as f64 >= 0.9 * 100.0, "{last} in the last second");
    assert!(busiest as f64 <= 1.25 * 140.0, "{busiest}");
    assert!(cluster.nodes[3].runs().0 > 0);
    proxies.iter().for_each(assert_said_once);
}

/// Without a replica its limits keep to the shares, and the others do not notice; until it is back.
fn a_primary_without_a_replica_dies_and_comes_back() {
    let mut cluster = Cluster::with(|_| "--cluster-require-full-coverage no".to_owned());
    let store = format!("redis+cluster://{}", cluster.addresses());
    let limits = "rate_limit: 100/s burst 20, on_limit: reject";
    let (counter, proxies, keeper) = kept_by(&cluster, &store, limits, |_| true);
    let (others, elsewhere, _) = kept_by(&cluster, &store, limits, |number| number != keeper);
    let dead = format!("\"server\":\"127.0.0.1:{}\"", cluster.nodes[keeper].port());
    let begin = Instant::now();
    let mut end = begin;
    let slowest = under_pace(&proxies, &counter.origin, || {
        pause_until(begin + SECOND);
        cluster.nodes[keeper].kill();
        under_pace(&elsewhere, &others.origin, || pause_until(begin + 2 * SECOND));
        cluster.nodes[keeper].restart();
        end = settled(&proxies);
    });
    assert!(slowest < PROMPT, "{slowest:?}");
    let last = counter.between(end - SECOND, end).len();
    assert!(last as f64 >= 0.9 * 100.0, "{last} in the last second");
    proxies.iter().for_each(assert_said_once);
    assert!(proxies[0].log().contains(&dead), "{}", proxies[0].log());
    for proxy in elsewhere {
        let log = proxy.log();
        assert!(!log.contains(REFUSED) && !log.contains(BACK), "{log}");
        assert!(proxy.metric("outrider_quota_store_errors_total", &[]) >= 1.0);
    }
}

/// As Redis is configured by default: when one part is lost, the others refuse too.
fn a_cluster_that_demands_all_of_its_parts_is_down() {
    let mut cluster = Cluster::start();
    let store = format!("redis+cluster://{}", cluster.addresses());
    let limits = "rate_limit: 100/s burst 20, on_limit: reject";
    let (counter, proxies, keeper) = kept_by(&cluster, &store, limits, |_| true);
    let slowest = under_pace(&proxies, &counter.origin, || {
        cluster.nodes[(keeper + 1) % 3].kill();
        eventually("it is logged", || {
            let expected =
                "CLUSTERDOWN: a part of the cluster has no primary; with cluster-require-full-coverage no";
            proxies.iter().all(|proxy| proxy.log().contains(expected))
        });
        cluster.nodes[(keeper + 1) % 3].restart();
        eventually("it is over", || {
            proxies.iter().all(|proxy| proxy.log().contains(BACK))
        });
    });
    assert!(slowest < PROMPT, "{slowest:?}");
    proxies.iter().for_each(assert_said_once);
}

/// Two proxies and an origin whose limit is kept by a server that `suits`, and its number.
fn kept_by(
    cluster: &Cluster,
    store: &str,
    limits: &str,
    suits: impl Fn(usize) -> bool,
) -> (Counter, Vec<Proxy>, usize) {
    for _ in 0..30 {
        let (before, counter) = (cluster.limits(), Counter::start());
        let proxies = fleet(2, &counter.origin, store, limits);
        let mut key = None;
        eventually("it is known", || {
            key = cluster.limits().into_iter().find(|key| !before.contains(key));
            key.is_some()
        });
        let keeper = cluster.keeper(&key.unwrap());
        if suits(keeper) {
            return (counter, proxies, keeper);
        }
    }
    panic!("all limits are at one server");
}

/// Some keys of a limit have moved and some have not, for long: TRYAGAIN.
fn a_slot_that_stays_half_moved_is_logged() {
    let (cluster, counter) = (Cluster::start(), Counter::start());
    let store = format!("redis+cluster://{}", cluster.addresses());
    let limits = "rate_limit: 100/s burst 20, on_limit: reject";
    let proxies = fleet(2, &counter.origin, &store, limits);
    eventually("it is known", || cluster.limits().len() == 1);
    let slowest = under_pace(&proxies, &counter.origin, || {
        let half = || {
            eventually("it is logged", || {
                let expected = "its slots are being moved for long; check the cluster";
                proxies.iter().all(|proxy| proxy.log().contains(expected))
            });
        };
        cluster.move_slot(&cluster.limits()[0], half, || {});
        eventually("it is over", || {
            proxies.iter().all(|proxy| proxy.log().contains(BACK))
        });
    });
    assert!(slowest < PROMPT, "{slowest:?}");
    proxies.iter().for_each(assert_said_once);
}

/// A program that starts before the cluster is made finds it when it is.
fn a_cluster_that_is_made_later_is_found() {
    let (redis, origin) = (
        Redis::with(&format!("--cluster-enabled yes --cluster-port {}", closed_port())),
        Origin::plain(),
    );
    let store = format!("redis+cluster://127.0.0.1:{}", redis.port());
    let proxy = instance(&origin, &store, "rate_limit: 4/h, on_limit: reject", &[]);
    eventually("it is logged", || {
        proxy
            .log()
            .contains("no server of the cluster keeps the slot of a limit; see CLUSTER INFO")
    });
    redis.say("CLUSTER ADDSLOTSRANGE 0 8000");
    redis.say("CLUSTER ADDSLOTSRANGE 8001 16383");
    assert_said_once(&proxy);
    redis.say("CONFIG SET cluster-preferred-endpoint-type hostname");
    let proxy = instance(&origin, &store, "rate_limit: 4/h, on_limit: reject", &[]);
    eventually("a name is missing", || {
        proxy
            .log()
            .contains("each server needs cluster-announce-hostname")
    });
    redis.say("CONFIG SET cluster-announce-hostname partner.test");
    assert_said_once(&proxy);
}

/// What a real server refuses with is logged once, with the remedy, and the limits are shared again when it is over.
fn each_refusal_of_a_server_is_logged_with_its_remedy() {
    let user = format!("app:{CANARY}-app@");
    let password = format!(":{CANARY}-needless@");
    let limited = format!("ACL SETUSER app on >{CANARY}-app ~outrider:* +@all -hset");
    // Name, what is in the address, database, words of the log, how it begins, how it ends.
    type Case<'c> = (&'c str, &'c str, &'c str, &'c str, &'c [&'c str], &'c [&'c str]);
    let cases: [Case<'_>; 11] = [
        (
            "asks for no password",
            &password,
            "",
            "ERR: it asks for no password; leave the password out of its address",
            &[],
            &["CONFIG SET requirepass canary-2f6b-needless"],
        ),
        (
            "no such database",
            "",
            "/99",
            "ERR: it has no database of this number",
            &[],
            &[],
        ),
        (
            "asks for a password",
            "",
            "",
            "NOAUTH: check the password",
            &["CONFIG SET requirepass other"],
            &["AUTH other", "CONFIG SET requirepass \"\""],
        ),
        (
            "a permission is missing",
            &user,
            "",
            "its user lacks a permission; docs/fleets.md lists them",
            &[&limited],
            &["ACL SETUSER app +hset"],
        ),
        (
            "a key is not allowed",
            &user,
            "",
            "NOPERM: its user lacks a permission",
            &[&limited, "ACL SETUSER app +hset resetkeys ~other:*"],
            &["ACL SETUSER app ~outrider:*"],
        ),
        (
            "full",
            "",
            "",
            "OOM: its memory is full; raise maxmemory",
            &["CONFIG SET maxmemory 1"],
            &["CONFIG SET maxmemory 0"],
        ),
        (
            "too few replicas",
            "",
            "",
            "NOREPLICAS: it has fewer replicas",
            &["CONFIG SET min-replicas-to-write 1"],
            &["CONFIG SET min-replicas-to-write 0"],
        ),
        (
            "a replica",
            "",
            "",
            "READONLY: it is a replica; name the primary",
            &["REPLICAOF 127.0.0.1 1"],
            &["REPLICAOF NO ONE"],
        ),
        (
            "a replica that is cut off",
            "",
            "",
            "MASTERDOWN: it is a replica that does not reach its primary",
            &["CONFIG SET replica-serve-stale-data no", "REPLICAOF 127.0.0.1 1"],
            &["REPLICAOF NO ONE"],
        ),
        (
            "too many clients",
            "",
            "",
            "ERR: it has too many connections; raise maxclients",
            &["CONFIG SET maxclients 1"],
            &["CONFIG SET maxclients 100"],
        ),
        (
            "somebody's keys",
            "",
            "",
            "WRONGTYPE: somebody else has written to our keys",
            &[],
            &[],
        ),
    ];
    thread::scope(|scope| {
        for (name, credentials, database, expected, begins, ends) in cases {
            scope.spawn(move || {
                let (redis, origin) = (Redis::open(), Origin::plain());
                // Commands on one connection, which is the one that maxclients admits.
                let mut wire = Wire::connect(([127, 0, 0, 1], redis.port()).into());
                let mut say = |command: &str| {
                    let answer = wire.send(format!("{command}\r\n")).read_line();
                    assert!(
                        answer.starts_with('+') || answer.starts_with(':'),
                        "{name}: {answer}"
                    );
                };
                begins.iter().for_each(|command| say(command));
                let url = format!("redis://{credentials}127.0.0.1:{}{database}", redis.port());
                let limits = "rate_limit: 4/h, on_limit: reject";
                let env = [("QUOTAS", url.as_str()), ("CF_INSTANCE_INDEX", "0")];
                if name == "somebody's keys" {
                    let first = instance(&origin, "env:QUOTAS", limits, &env);
                    eventually("it is known", || redis.keys().contains("members"));
                    drop(first);
                    let keys = redis.keys();
                    keys.split(' ').for_each(|key| say(&format!("SET {key} other")));
                }
                let proxy = instance(&origin, "env:QUOTAS", limits, &env);
                eventually(name, || proxy.log().contains(expected));
                let statuses: Vec<_> = (0..3).map(|_| proxy.get(&origin.url("/")).status).collect();
                assert_eq!(statuses, [200, 200, 429], "{name}");
                ends.iter().for_each(|command| say(command));
                if !ends.is_empty() {
                    assert_said_once(&proxy);
                }
            });
        }
    });
}

/// The user that docs/fleets.md makes is allowed all that is needed, in a cluster too.
fn the_permissions_of_the_page_suffice() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/fleets.md")).unwrap();
    let line = page
        .lines()
        .find(|line| line.starts_with("ACL SETUSER outrider "))
        .unwrap();
    let redis = Redis::with(&format!("--cluster-enabled yes --cluster-port {}", closed_port()));
    redis.say("CLUSTER ADDSLOTSRANGE 0 16383");
    eventually("the cluster is up", || {
        redis.say("CLUSTER INFO").contains("cluster_state:ok")
    });
    redis.say(&line.replace("PASSWORD", &format!("{CANARY}-user")));
    let url = format!(
        "redis+cluster://outrider:{CANARY}-user@127.0.0.1:{}",
        redis.port()
    );
    let origin = Origin::plain();
    let limits = "rate_limit: 4/h, on_limit: reject";
    let proxies = [0, 1].map(|_| instance(&origin, "env:QUOTAS", limits, &[("QUOTAS", url.as_str())]));
    eventually("both are known to the store", || redis.runs().0 >= 3);
    assert_shared(&proxies, &origin);
    // What is said of a slot that moves, and at the end.
    for command in ["ASKING", "ZREM outrider:{x}:y:members z"] {
        assert_eq!(redis.say(&format!("ACL DRYRUN outrider {command}")), "OK");
    }
}

/// A server that reads a large dump is waited for.
fn a_server_that_is_busy_for_a_while_is_waited_for() {
    let mut redis = Redis::with("--key-load-delay 15000 --loading-process-events-interval-bytes 1024");
    redis.say("EVAL \"for i = 1, 500 do redis.call('SET', i, string.rep('x', 100)) end return 1\" 0");
    redis.say("SAVE");
    redis.restart();
    let origin = Origin::plain();
    let store = format!("redis://127.0.0.1:{}", redis.port());
    let proxy = instance(&origin, &store, "rate_limit: 4/h, on_limit: reject", &[]);
    eventually("it is logged", || {
        proxy
            .log()
            .contains("LOADING: it still reads its data from the disk; wait")
    });
    assert_said_once(&proxy);
}

/// Every address that a server names passes the same check as the one that is configured.
fn an_address_that_a_server_names_is_checked_before_it_is_dialled() {
    type Answer = fn(&str) -> &'static str;
    const MAP: &str = "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$15\r\n169.254.169.254\r\n:80\r\n";
    let cases: [(&str, &str, Answer); 5] = [
        ("MOVED", "redis://", |command| match command {
            "EVALSHA" => "-MOVED 1 169.254.169.254:80\r\n",
            _ => "+OK\r\n",
        }),
        ("MOVED to a name", "redis://", |command| match command {
            "EVALSHA" => "-MOVED 1 metadata.test:80\r\n",
            _ => "+OK\r\n",
        }),
        ("ASK", "redis://", |command| match command {
            "EVALSHA" => "-ASK 1 169.254.169.254:80\r\n",
            _ => "+OK\r\n",
        }),
        ("CLUSTER SLOTS", "redis+cluster://", |command| match command {
            "CLUSTER" => MAP,
            _ => "+OK\r\n",
        }),
        (
            "SENTINEL",
            "redis+sentinel://",
            |_| "*2\r\n$13\r\nmetadata.test\r\n$2\r\n80\r\n",
        ),
    ];
    for (name, scheme, answer) in cases {
        let store = Origin::http(move |wire| {
            while let Some(command) = command(wire) {
                wire.send(answer(&command));
            }
        });
        let origin = Origin::plain();
        let proxy = Proxy::start(
            &format!(
                "rate_limit_store: {scheme}127.0.0.1:{}/main\ninstances: 1\n\
             dns: {{ hosts: {{ partner.test: 127.0.0.1, metadata.test: 169.254.169.254 }} }}\n\
             destinations: {{ p: {{ hosts: [\"{}\"], rate_limit: 4/h }} }}",
                store.port(),
                origin.authority()
            )
            .replace(
                "/main",
                if scheme == "redis+sentinel://" {
                    "/main"
                } else {
                    ""
                },
            ),
        );
        eventually(name, || {
            let log = proxy.log();
            log.contains(":80 is a listener of outrider itself, or a metadata service of the platform")
        });
        assert_eq!(proxy.get(&origin.url("/")).status, 200, "{name}");
        assert_eq!(proxy.log().matches(REFUSED).count(), 1, "{name}");
    }
}

/// Reads a command and returns its first word; `None` at the end of the connection.
fn command(wire: &mut Wire) -> Option<String> {
    let count: usize = line(wire)?.strip_prefix('*')?.parse().ok()?;
    let mut first = None;
    for _ in 0..count {
        let length: usize = line(wire)?.strip_prefix('$')?.parse().ok()?;
        let bytes = wire.read_exact(length + 2).ok()?;
        first.get_or_insert_with(|| String::from_utf8_lossy(&bytes).trim_end().to_owned());
    }
    first
}

fn line(wire: &mut Wire) -> Option<String> {
    let mut line = String::new();
    while !line.ends_with('\n') {
        line.push(char::from(wire.read_exact(1).ok()?[0]));
    }
    Some(line.trim_end().to_owned())
}

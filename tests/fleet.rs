//! One quota for several instances: a real Redis server, real processes, and what happens when it goes away.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::pki::server_params;
use crate::support::programs::outrider;
use crate::support::redis::Redis;
use crate::support::{CANARY, Origin, Pki, Proxy, Wire, eventually, run};

/// An origin that remembers when it was asked, and by whom.
pub(crate) struct Counter {
    pub(crate) origin: Origin,
    asked: Arc<Mutex<Vec<(Instant, usize)>>>,
}

impl Counter {
    pub(crate) fn start() -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let origin = Origin::http(move |wire| {
            while let Ok(request) = wire.request() {
                let by = request.target().trim_start_matches('/').parse().unwrap_or(0);
                log.lock().unwrap().push((Instant::now(), by));
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        });
        Self { origin, asked }
    }

    /// Those from `from` to `until`, as milliseconds since `from`.
    pub(crate) fn between(&self, from: Instant, until: Instant) -> Vec<(f64, usize)> {
        let asked = self.asked.lock().unwrap();
        let inside = asked.iter().filter(|(at, _)| (from..until).contains(at));
        let mut inside: Vec<_> = inside
            .map(|(at, by)| ((*at - from).as_secs_f64() * 1000.0, *by))
            .collect();
        inside.sort_by(|a, b| a.0.total_cmp(&b.0));
        inside
    }
}

/// The most that any window of a second holds.
pub(crate) fn busiest_second(asked: &[(f64, usize)]) -> usize {
    let within = |from: f64| {
        asked
            .iter()
            .filter(|(at, _)| (from..from + 1000.0).contains(at))
            .count()
    };
    asked.iter().map(|(at, _)| within(*at)).max().unwrap_or(0)
}

pub(crate) fn instance(origin: &Origin, store: &str, limits: &str, env: &[(&str, &str)]) -> Proxy {
    let config = format!(
        "workers: 1\nlog: {{ format: json, access: none }}\nrate_limit_store: {store}\n\
         destinations: {{ p: {{ hosts: [\"{}\"], {limits} }} }}",
        origin.authority()
    );
    Proxy::start_with(&config, env)
}

pub(crate) fn fleet(count: usize, origin: &Origin, store: &str, limits: &str) -> Vec<Proxy> {
    let start = |_| instance(origin, store, limits, &[]);
    (0..count).map(start).collect()
}

/// Ends the load also when the story fails.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `clients` of each proxy and origin, who ask as fast as they are answered, for as long as `story` takes.
/// Counts the answers by status.
pub(crate) fn under_load(
    proxies: &[Proxy],
    origins: &[&Origin],
    clients: usize,
    story: impl FnOnce(),
) -> Vec<(u16, usize)> {
    let stop = AtomicBool::new(false);
    let counts: Vec<AtomicUsize> = (0..600).map(|_| AtomicUsize::new(0)).collect();
    thread::scope(|scope| {
        let pairs = proxies.iter().enumerate();
        for ((number, proxy), origin) in
            pairs.flat_map(|proxy| origins.iter().map(move |origin| (proxy, origin)))
        {
            let request = format!(
                "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
                origin.url(&format!("/{number}")),
                origin.authority()
            );
            for _ in 0..clients {
                let (request, stop, counts) = (request.clone(), &stop, &counts);
                scope.spawn(move || {
                    let mut wire: Wire = proxy.wire();
                    while !stop.load(Ordering::Relaxed) {
                        let answer = wire.ask(&request);
                        counts[usize::from(answer.status)].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
        let _stop = StopOnDrop(&stop);
        story();
    });
    let counts = counts
        .iter()
        .map(|count| count.load(Ordering::Relaxed))
        .enumerate();
    counts
        .filter(|(_, count)| *count > 0)
        .map(|(status, count)| (status as u16, count))
        .collect()
}

/// Two instances share `4/h`. On a busy machine an answer of the store may be late, and the share may add one each.
#[track_caller]
pub(crate) fn assert_shared(proxies: &[Proxy], origin: &Origin) {
    let statuses: Vec<_> = (0..10)
        .map(|turn| proxies[turn % 2].get(&origin.url("/")).status)
        .collect();
    let log = proxies[0].log() + &proxies[1].log();
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    assert!((4..=6).contains(&admitted), "{statuses:?} {log}");
    assert!(!log.contains("the quota store cannot be asked"), "{log}");
}

pub(crate) fn pause_until(moment: Instant) {
    while let Some(left) = moment.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Eight processes ask for more than there is: together they get what one would, and each its part.
#[test]
fn eight_instances_keep_one_quota() {
    let (redis, counter) = (Redis::open(), Counter::start());
    let store = format!("redis://127.0.0.1:{}", redis.port());
    let proxies = fleet(
        8,
        &counter.origin,
        &store,
        "rate_limit: 200/s burst 20, on_limit: wait 5s",
    );
    let begin = Instant::now();
    let statuses = under_load(&proxies, &[&counter.origin], 6, || {
        pause_until(begin + 6 * SECOND)
    });
    assert_eq!(statuses.len(), 1, "only 200: {statuses:?}");

    let all = counter.between(begin, begin + 6 * SECOND);
    let (calls, micros) = redis.runs();
    let busiest = busiest_second(&all);
    let steady = counter.between(begin + SECOND, begin + 6 * SECOND);
    let shares: Vec<_> = (0..8)
        .map(|number| steady.iter().filter(|(_, by)| *by == number).count())
        .collect();
    println!(
        "{} in 6 s, {busiest} in the busiest second; after the first second {}, by instance {shares:?}; \
         {calls} calls of {micros:.0} us, {:.3} for a request",
        all.len(),
        steady.len(),
        calls as f64 / all.len() as f64
    );
    assert!(all.len() as f64 <= 1.02 * 1220.0, "{} in six seconds", all.len());
    // The moments are the origin's, which a busy machine wakes late.
    assert!(busiest as f64 <= 1.15 * 220.0, "{busiest} in one second");
    assert!(
        steady.len() as f64 >= 0.95 * 1000.0,
        "only {} in five seconds",
        steady.len()
    );
    let fair = steady.len() / 8;
    assert!(shares.iter().all(|share| *share * 2 > fair), "{shares:?}");
    assert!(
        (calls as f64) < 0.25 * all.len() as f64,
        "{calls} calls for {}",
        all.len()
    );
}

/// M2: the server is killed in the middle and comes back empty. Nobody notices but the metrics and the log.
#[test]
fn a_server_that_dies_and_returns_passes_no_limit_and_fails_no_request() {
    let (mut redis, counter) = (Redis::open(), Counter::start());
    let store = format!("redis://127.0.0.1:{}", redis.port());
    let proxies = fleet(
        8,
        &counter.origin,
        &store,
        "rate_limit: 200/s burst 20, on_limit: wait 5s",
    );
    let begin = Instant::now();
    let (killed, returned, end) = (begin + SECOND, begin + 3 * SECOND, begin + 9 * SECOND);
    let statuses = under_load(&proxies, &[&counter.origin], 6, || {
        pause_until(killed);
        redis.kill();
        pause_until(returned);
        redis.restart();
        pause_until(end);
    });
    assert!(
        statuses.iter().all(|(status, _)| [200, 429].contains(status)),
        "{statuses:?}"
    );
    let all = counter.between(begin, end);
    let seconds: Vec<_> = (0..9)
        .map(|second| {
            all.iter()
                .filter(|(at, _)| (*at / 1000.0) as usize == second)
                .count()
        })
        .collect();
    println!(
        "by second {seconds:?}, the busiest {}: {statuses:?}",
        busiest_second(&all)
    );
    // The whole of the shares is one more burst.
    assert!(busiest_second(&all) as f64 <= 1.02 * 240.0, "{seconds:?}");
    assert!(
        all.len() as f64 <= 1.02 * (9.0 * 200.0 + 40.0),
        "{} in all",
        all.len()
    );
    // While it is away the shares are used, and afterwards everything is as before.
    assert!(seconds[2] > 150, "{seconds:?}");
    assert!(seconds[7] + seconds[8] >= 360, "{seconds:?}");
    for proxy in &proxies {
        assert!(proxy.metric("outrider_quota_store_errors_total", &[]) >= 1.0);
        let log = proxy.log();
        assert_eq!(log.matches("the quota store cannot be asked").count(), 1, "{log}");
        assert_eq!(log.matches("the quota store answers again").count(), 1, "{log}");
    }
}

/// As on cloud.gov: TLS under a private authority, a password without a user, the address from a bound service.
#[test]
fn the_store_is_reached_over_tls_with_a_password() {
    let pki = Pki::new();
    let password = format!("{CANARY}-redis");
    let redis = Redis::guarded(&pki, &pki.server("partner.test"), &password);
    let origin = Origin::plain();
    let services = format!(
        r#"{{"aws-elasticache-redis":[{{"name":"redis","tags":["redis"],"credentials":{{"uri":"rediss://:{password}@partner.test:{}"}}}}]}}"#,
        redis.tls_port()
    );
    let ca = pki.ca().display().to_string();
    let env = [("VCAP_SERVICES", services.as_str()), ("CF_SYSTEM_CERT_PATH", &ca)];
    let limits = "rate_limit: 4/h, on_limit: reject, auth: { bearer: env:TOKEN }, insecure_attach_over_http: true, upgrade: false";
    let token = format!("{CANARY}-token");
    let env: Vec<_> = env.into_iter().chain([("TOKEN", token.as_str())]).collect();
    let proxies: Vec<_> = (0..2)
        .map(|_| instance(&origin, "vcap:redis/uri", limits, &env))
        .collect();
    // Three: the script is not known to the server at the first.
    eventually("both are known to the store", || redis.runs().0 >= 3);
    assert_shared(&proxies, &origin);
    for proxy in &proxies {
        assert_eq!(proxy.metric("outrider_quota_store_errors_total", &[]), 0.0);
    }
    let keys = redis.keys();
    assert!(
        keys.starts_with("outrider:{") && !keys.contains(CANARY) && !keys.contains("partner"),
        "{keys}"
    );
}

/// The store is asked over no connection whose server's certificate has ended.
#[test]
fn a_store_whose_certificate_ends_is_verified_anew() {
    let pki = Pki::new();
    let mut params = server_params(&["partner.test"]);
    let end = time::OffsetDateTime::now_utc() + Duration::from_secs(12);
    params.not_after = end.replace_nanosecond(0).unwrap();
    let (end, password) = (params.not_after, format!("{CANARY}-redis"));
    let redis = Redis::guarded(&pki, &pki.issue("redis", params), &password);
    let origin = Origin::plain();
    let url = format!("valkeys://:{password}@partner.test:{}", redis.tls_port());
    let ca = pki.ca().display().to_string();
    let env = [("QUOTAS", url.as_str()), ("CF_SYSTEM_CERT_PATH", &ca)];
    let proxy = instance(&origin, "env:QUOTAS", "rate_limit: 4/h, on_limit: reject", &env);
    eventually("it is known to the store", || redis.runs().0 >= 1);
    let errors = || proxy.metric("outrider_quota_store_errors_total", &[]);
    assert!(errors() == 0.0 || time::OffsetDateTime::now_utc() > end);
    eventually("the certificate has ended", || {
        proxy.log().contains("a certificate that expired")
    });
    assert!(time::OffsetDateTime::now_utc() > end && errors() >= 1.0);
}

/// Names in the store that differed with the secret would let its readers try out guesses of one.
#[test]
fn no_name_in_the_store_comes_from_a_secret() {
    for credential in [
        "bearer: env:TOKEN",
        "basic: { username: app, password: env:TOKEN }",
        "pool: [{ bearer: env:TOKEN }, { bearer: env:OTHER }]",
    ] {
        let redis = Redis::open();
        let origin = Origin::plain();
        let url = format!("valkey://127.0.0.1:{}/0", redis.port());
        let limits = format!(
            "rate_limit: 4/h, on_limit: reject, auth: {{ {credential} }}, insecure_attach_over_http: true, upgrade: false"
        );
        let proxies = ["one", "another"].map(|secret| {
            let token = format!("{CANARY}-{secret}");
            let env = [("QUOTAS", url.as_str()), ("TOKEN", &token), ("OTHER", &token)];
            instance(&origin, "env:QUOTAS", &limits, &env)
        });
        eventually("both are known to the store", || redis.runs().0 >= 3);
        assert_shared(&proxies, &origin);
    }
}

#[test]
fn a_wrong_password_is_logged_and_the_share_holds() {
    let pki = Pki::new();
    let redis = Redis::guarded(&pki, &pki.server("partner.test"), &format!("{CANARY}-right"));
    let origin = Origin::plain();
    let url = format!("redis://:{CANARY}-wrong@127.0.0.1:{}/0", redis.port());
    let limits = "rate_limit: 4/h, on_limit: reject";
    let proxy = instance(
        &origin,
        "env:QUOTAS",
        limits,
        &[("QUOTAS", &url), ("CF_INSTANCE_INDEX", "0")],
    );
    eventually("it is logged", || {
        proxy.log().contains("WRONGPASS: check the password")
    });
    // The first of a fleet of which nothing else is known takes a half.
    let statuses: Vec<_> = (0..3).map(|_| proxy.get(&origin.url("/")).status).collect();
    assert_eq!(statuses, [200, 200, 429]);
}

/// M2: whatever the store does instead of answering, the share decides within a moment.
#[test]
fn a_store_in_whatever_trouble_leaves_it_to_the_share() {
    type Script = fn(&mut Wire);
    let let_in: Script = |wire| {
        let _ = wire.read_exact(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n".len());
        wire.send("+OK\r\n");
    };
    let troubles: [(&str, Script, &str); 9] = [
        ("silent", |wire| drop(wire.rest()), ""),
        ("gone", |_| {}, ""),
        ("no Redis at all", |_| {}, "HTTP/1.1 400 Bad Request\r\n\r\n"),
        (
            "loading",
            |_| {},
            "-LOADING Redis is loading the dataset in memory\r\n",
        ),
        ("wants a password", |_| {}, "-NOAUTH Authentication required.\r\n"),
        (
            "a replica",
            let_in,
            "-READONLY You can't write against a read only replica.\r\n",
        ),
        (
            "another's key",
            let_in,
            "-WRONGTYPE Operation against a key\r\n-WRONGTYPE again\r\n",
        ),
        ("cut short", let_in, "*7\r\n:1\r\n:0"),
        ("answers nonsense", let_in, "*2\r\n:1\r\n:1\r\n"),
    ];
    thread::scope(|scope| {
        for (trouble, enter, words) in troubles {
            scope.spawn(move || {
                let store = Origin::http(move |wire| {
                    enter(wire);
                    if !words.is_empty() {
                        let _ = wire.read_exact(1);
                        wire.send(words);
                    }
                });
                let origin = Origin::plain();
                let proxy = Proxy::start(&format!(
                    "workers: 1\ninstances: 2\nrate_limit_store: redis://127.0.0.1:{}\n\
                     destinations: {{ p: {{ hosts: [\"{}\"], rate_limit: 4/h, on_limit: reject }} }}",
                    store.port(),
                    origin.authority()
                ));
                let started = Instant::now();
                let statuses: Vec<_> = (0..3).map(|_| proxy.get(&origin.url("/")).status).collect();
                assert_eq!(statuses, [200, 200, 429], "{trouble}");
                assert!(
                    started.elapsed() < 5 * SECOND,
                    "{trouble}: {:?}",
                    started.elapsed()
                );
                // The log comes through a pipe, later than what it reports.
                eventually(trouble, || {
                    proxy.metric("outrider_quota_store_errors_total", &[]) >= 1.0
                        && proxy.log().contains("cannot be asked")
                });
                assert_eq!(proxy.log().matches("cannot be asked").count(), 1, "{trouble}");
            });
        }
    });
}

/// The store's own address is the operator's word, but outrider never talks to itself.
#[test]
fn a_store_that_is_outrider_itself_is_not_dialled() {
    let origin = Origin::plain();
    let port = crate::support::closed_port();
    let proxy = Proxy::start(&format!(
        "listen: 127.0.0.1:{port}\nrate_limit_store: redis://127.0.0.1:{port}\ninstances: 1\n\
         destinations: {{ p: {{ hosts: [\"{}\"], rate_limit: 4/h }} }}",
        origin.authority()
    ));
    eventually("it is logged", || {
        proxy.log().contains("is a listener of outrider itself")
    });
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
}

#[test]
fn check_says_what_is_wrong_with_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrider.yml");
    let cases = [
        (
            "env:NOWHERE",
            "rate_limit_store: the address cannot be read: env:NOWHERE: the environment variable is not set",
        ),
        ("vcap:redis/uri", "no services are bound"),
        (
            "env:HTTP",
            "env:HTTP: the address begins with none of redis://, rediss://, valkey:// and valkeys://; write redis://",
        ),
        ("env:PORT", "env:PORT: the port is not a number"),
        ("env:BASE", "the database is not a number"),
        ("redis://a:p@b", "a URL with a password where a reference belongs"),
    ];
    for (store, expected) in cases {
        std::fs::write(&file, format!("rate_limit_store: {store}\n")).unwrap();
        let mut command = outrider(["check", "--config"]);
        command
            .arg(&file)
            .env("HTTP", format!("http://:{CANARY}@a"))
            .env("PORT", format!("redis://:{CANARY}@a:b"))
            .env("BASE", format!("rediss://:{CANARY}@a:1/b"));
        let checked = run(&mut command);
        assert_eq!(checked.code(), 1, "{store}: {checked:?}");
        assert!(checked.stdout.contains(expected), "{store}: {checked:?}");
        assert!(!format!("{checked:?}").contains(CANARY), "{store}: {checked:?}");
    }
}

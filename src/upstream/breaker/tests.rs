use std::thread;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::circuit::Position;
use super::*;
use crate::host::Scheme;
use crate::telemetry::Telemetry;
use crate::upstream::tls;

const FAILURES: u32 = 3;

/// The circuits of a destination, and the one to the only host that most tests ask.
fn breaker() -> (Breaker, Arc<Telemetry>) {
    let telemetry = Telemetry::new();
    let settings = CircuitBreaker {
        failures: FAILURES,
        open_for: Duration::from_secs(15),
        within: Duration::from_secs(30),
    };
    let counters = telemetry.counters("partner");
    (Breaker::new(settings, &"partner".into(), counters), telemetry)
}

fn at(host: &str) -> Target {
    Target {
        scheme: Scheme::Https,
        host: Host::parse(host).unwrap(),
        port: 443,
    }
}

fn pass(breaker: &Breaker) -> Result<CircuitPermit, CircuitOpen> {
    breaker.pass(&at("partner.test"), Instant::now())
}

fn is_open(breaker: &Breaker) -> bool {
    breaker.is_open(&at("partner.test"), Instant::now())
}

/// What the gauge says.
fn shown(telemetry: &Telemetry) -> u8 {
    let page = String::from_utf8(telemetry.render()).unwrap();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("outrider_circuit_state{destination=\"partner\"} "));
    line.unwrap().parse().unwrap()
}

#[track_caller]
fn ask(breaker: &Breaker, outcomes: &[HostHealth]) {
    ask_at(breaker, "partner.test", outcomes);
}

#[track_caller]
fn ask_at(breaker: &Breaker, host: &str, outcomes: &[HostHealth]) {
    for outcome in outcomes {
        breaker.pass(&at(host), Instant::now()).unwrap().report(*outcome);
    }
}

async fn pass_time(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

const FAIL: HostHealth = HostHealth::Fails;
const WORK: HostHealth = HostHealth::Works;
const NOTHING: HostHealth = HostHealth::Unknown;

#[tokio::test(start_paused = true)]
async fn it_opens_when_so_many_fail_in_a_row_or_half_of_all() {
    let cases: [(&[HostHealth], bool); 9] = [
        (&[FAIL, FAIL], false),
        (&[FAIL, FAIL, FAIL], true),
        // In a row, however much worked before.
        (&[WORK, WORK, WORK, WORK, WORK, WORK, FAIL, FAIL, FAIL], true),
        // Half of all.
        (&[FAIL, WORK, FAIL, WORK, WORK, FAIL], true),
        // Less than half of all.
        (&[WORK, WORK, FAIL, WORK, FAIL, WORK, FAIL], false),
        (&[FAIL, WORK, FAIL, WORK, FAIL], true),
        // What says nothing neither counts nor ends the row.
        (&[FAIL, NOTHING, NOTHING, FAIL], false),
        (&[WORK, WORK, WORK, WORK, FAIL, FAIL, NOTHING, FAIL], true),
        (&[NOTHING, NOTHING, NOTHING, NOTHING], false),
    ];
    for (outcomes, opens) in cases {
        let (breaker, telemetry) = breaker();
        ask(&breaker, outcomes);
        assert_eq!(is_open(&breaker), opens, "{outcomes:?}");
        assert_eq!(shown(&telemetry), if opens { 2 } else { 0 }, "{outcomes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_forgotten_after_their_time() {
    let (breaker, _telemetry) = breaker();
    ask(&breaker, &[FAIL, FAIL]);
    pass_time(31).await;
    ask(&breaker, &[FAIL, FAIL]);
    assert!(!is_open(&breaker));
    ask(&breaker, &[FAIL]);
    assert!(is_open(&breaker));
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_says_how_long_it_stays_so() {
    let (breaker, _telemetry) = breaker();
    ask(&breaker, &[FAIL; 3]);
    pass_time(2).await;
    tokio::time::advance(Duration::from_millis(500)).await;
    let open = pass(&breaker).unwrap_err();
    assert_eq!(open.retry_after, Duration::from_secs(13));
    assert!(open.to_string().contains("try again in 13s"), "{open}");
}

#[tokio::test(start_paused = true)]
async fn one_request_tries_and_decides_for_all() {
    for (outcome, state) in [(WORK, 0), (FAIL, 2)] {
        let (breaker, telemetry) = breaker();
        ask(&breaker, &[FAIL; 3]);
        pass_time(15).await;
        let probe = pass(&breaker).unwrap();
        assert_eq!(shown(&telemetry), 1);
        let other = pass(&breaker).unwrap_err();
        assert_eq!(other.retry_after, Duration::from_secs(1));
        probe.report(outcome);
        assert_eq!(shown(&telemetry), state, "{outcome:?}");
        assert_eq!(pass(&breaker).is_ok(), outcome == WORK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_leaves_frees_its_place() {
    let (breaker, telemetry) = breaker();
    ask(&breaker, &[FAIL; 3]);
    pass_time(15).await;
    drop(pass(&breaker).unwrap());
    ask(&breaker, &[NOTHING]);
    assert_eq!(shown(&telemetry), 1);
    ask(&breaker, &[WORK]);
    assert_eq!(shown(&telemetry), 0);
}

#[tokio::test(start_paused = true)]
async fn a_closed_circuit_has_forgotten_its_failures() {
    let (breaker, _telemetry) = breaker();
    ask(&breaker, &[FAIL; 3]);
    pass_time(15).await;
    ask(&breaker, &[WORK, FAIL, FAIL]);
    assert!(!is_open(&breaker));
}

/// Those who were on their way when it opened come back when it may have closed again.
#[tokio::test(start_paused = true)]
async fn late_news_of_another_time_counts_for_nothing() {
    let (breaker, telemetry) = breaker();
    let late: Vec<_> = (0..8).map(|_| pass(&breaker).unwrap()).collect();
    let mut late = late.into_iter();
    ask(&breaker, &[FAIL; 3]);
    late.next().unwrap().report(WORK);
    assert_eq!(shown(&telemetry), 2, "a late success closes nothing");
    late.next().unwrap().report(FAIL);
    pass_time(15).await;
    let probe = pass(&breaker).unwrap();
    drop(late.next());
    assert!(pass(&breaker).is_err(), "the place is still taken");
    probe.report(WORK);
    late.for_each(|passage| passage.report(FAIL));
    assert_eq!(shown(&telemetry), 0, "late failures open nothing");
}

#[tokio::test(start_paused = true)]
async fn who_waited_while_it_opened_is_refused_after_all() {
    let (breaker, _telemetry) = breaker();
    let waiting = pass(&breaker).unwrap();
    assert!(waiting.check(Instant::now()).is_ok());
    ask(&breaker, &[FAIL; 3]);
    assert_eq!(
        waiting.check(Instant::now()).unwrap_err().retry_after,
        Duration::from_secs(15)
    );
    pass_time(15).await;
    let probe = pass(&breaker).unwrap();
    assert!(probe.check(Instant::now()).is_ok());
    assert!(waiting.check(Instant::now()).is_err());
    probe.report(WORK);
    assert!(waiting.check(Instant::now()).is_ok());
}

/// Whatever happens in whatever order: one probe at a time, nobody while it is open, and no place is lost for good.
#[tokio::test(start_paused = true)]
async fn no_order_of_events_breaks_it() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let (breaker, _telemetry) = breaker();
        let mut under_way: Vec<CircuitPermit> = Vec::new();
        let mut open_until = None;
        for step in 0..200 {
            let now = Instant::now();
            match random.random_range(0..6) {
                0 | 1 => {
                    let passed = pass(&breaker);
                    let is_left_alone = open_until.is_some_and(|until| now < until);
                    assert!(!(passed.is_ok() && is_left_alone), "seed {seed}, step {step}");
                    under_way.extend(passed);
                }
                2..=4 if !under_way.is_empty() => {
                    let passage = under_way.swap_remove(random.random_range(0..under_way.len()));
                    match random.random_range(0..10) {
                        0..6 => passage.report(FAIL),
                        6..8 => passage.report(WORK),
                        8 => passage.report(NOTHING),
                        _ => drop(passage),
                    }
                }
                _ => pass_time(random.random_range(0..12)).await,
            }
            let circuit = breaker.first.get();
            let Some(state) = circuit.map(|circuit| circuit.state()) else {
                continue;
            };
            let current = under_way
                .iter()
                .filter(|passage| passage.generation == state.generation)
                .count();
            match &state.position {
                Position::Closed { .. } => open_until = None,
                Position::HalfOpen { is_tried, .. } => {
                    open_until = None;
                    assert_eq!(current, usize::from(*is_tried), "seed {seed}, step {step}");
                }
                Position::Open { until } => {
                    open_until = Some(*until);
                    assert_eq!(current, 0, "seed {seed}, step {step}");
                }
            }
        }
        under_way.clear();
        pass_time(15).await;
        assert!(pass(&breaker).is_ok(), "seed {seed}: a place was lost");
    }
}

#[tokio::test]
async fn of_many_threads_one_probes() {
    let telemetry = Telemetry::new();
    let settings = CircuitBreaker {
        failures: 1,
        open_for: Duration::from_nanos(1),
        within: Duration::from_secs(30),
    };
    for _ in 0..20 {
        let breaker = Breaker::new(settings, &"p".into(), telemetry.counters("p"));
        ask(&breaker, &[FAIL]);
        let passed: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| pass(&breaker))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(passed.iter().filter(|passed| passed.is_ok()).count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_fails_closes_no_other() {
    let (breaker, telemetry) = breaker();
    for host in ["a.test", "b.test", "c.test"] {
        ask_at(&breaker, host, &[WORK]);
    }
    ask_at(&breaker, "b.test", &[FAIL; 3]);
    let open = breaker.pass(&at("b.test"), Instant::now()).unwrap_err();
    assert!(
        open.to_string()
            .starts_with("b.test:443 of destination partner fails"),
        "{open}"
    );
    assert!(breaker.is_open(&at("b.test"), Instant::now()));
    let other_port = Target {
        port: 8443,
        ..at("b.test")
    };
    assert!(!breaker.is_open(&other_port, Instant::now()));
    ask_at(&breaker, "a.test", &[WORK]);
    breaker.pass(&other_port, Instant::now()).unwrap().report(WORK);
    assert_eq!(shown(&telemetry), 2, "the worst is shown");
    ask_at(&breaker, "a.test", &[FAIL; 3]);
    pass_time(15).await;
    ask_at(&breaker, "a.test", &[WORK]);
    assert_eq!(shown(&telemetry), 2);
    let probe = breaker.pass(&at("b.test"), Instant::now()).unwrap();
    assert_eq!(shown(&telemetry), 1);
    probe.report(WORK);
    assert_eq!(shown(&telemetry), 0);
}

#[tokio::test(start_paused = true)]
async fn of_too_many_hosts_closed_circuits_go_first() {
    let (breaker, telemetry) = breaker();
    ask_at(&breaker, "first.test", &[FAIL; 3]);
    ask_at(&breaker, "dead.test", &[FAIL; 3]);
    let names: Vec<_> = (0..2 * MOST).map(|name| format!("{name}.test")).collect();
    let passage = breaker.pass(&at(&names[0]), Instant::now()).unwrap();
    for name in &names {
        ask_at(&breaker, name, &[WORK]);
    }
    assert_eq!(breaker.others().len(), MOST);
    assert!(breaker.is_open(&at("first.test"), Instant::now()));
    assert!(breaker.is_open(&at("dead.test"), Instant::now()));
    // What comes back to a circuit that is gone harms nobody.
    passage.report(FAIL);
    for name in &names {
        ask_at(&breaker, name, &[FAIL; 3]);
    }
    assert_eq!(breaker.others().len(), MOST);
    assert!(
        !breaker.is_open(&at("dead.test"), Instant::now()),
        "now it was the oldest"
    );
    pass_time(15).await;
    ask_at(&breaker, "first.test", &[WORK]);
    for name in &names[MOST..] {
        ask_at(&breaker, name, &[WORK]);
    }
    assert_eq!(shown(&telemetry), 0, "none is counted that is gone");
}

/// A mistyped name, asked for no more, must not alert for ever; where there is one host only, what it did last counts.
#[tokio::test(start_paused = true)]
async fn of_several_hosts_one_that_is_not_asked_again_is_forgotten() {
    for (others, shown_then) in [(&[][..], 1), (&["api.test"][..], 0)] {
        for dead_first in [true, false] {
            let (breaker, telemetry) = breaker();
            let hosts = ["dead.test"].iter().chain(others);
            let hosts: Vec<_> = if dead_first {
                hosts.collect()
            } else {
                hosts.rev().collect()
            };
            for host in hosts {
                ask_at(
                    &breaker,
                    host,
                    &[if *host == "dead.test" { FAIL } else { WORK }; 3],
                );
            }
            pass_time(14).await;
            breaker.observe(Instant::now());
            assert_eq!(shown(&telemetry), 2);
            pass_time(1 + 29).await;
            breaker.observe(Instant::now());
            assert_eq!(shown(&telemetry), 1, "the next request may try");
            pass_time(1).await;
            breaker.observe(Instant::now());
            assert_eq!(shown(&telemetry), shown_then, "{others:?} {dead_first}");
        }
    }
}

#[test]
fn answers_that_say_the_destination_does_not_work_count() {
    for (status, is_limit, outcome) in [
        (200, false, WORK),
        (404, false, WORK),
        (429, false, WORK),
        (429, true, WORK),
        (500, false, WORK),
        (502, false, FAIL),
        (502, true, FAIL),
        (503, false, FAIL),
        (503, true, WORK),
        (504, false, FAIL),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(
            HostHealth::of_answer(status, || is_limit),
            outcome,
            "{status} {is_limit}"
        );
    }
}

#[test]
fn only_what_the_destination_did_counts() {
    let source = || std::io::Error::other("x");
    let address = "127.0.0.1:1".parse().unwrap();
    for (error, outcome) in [
        (
            Error::Dial(dial::Error::Refused {
                address,
                source: source(),
            }),
            FAIL,
        ),
        (
            Error::Dial(dial::Error::Timeout {
                limit: Duration::ZERO,
            }),
            FAIL,
        ),
        (
            Error::Dial(dial::Error::Local {
                address,
                source: source(),
            }),
            NOTHING,
        ),
        (Error::Incomplete("cut".into()), FAIL),
        (Error::ResponseTimeout(Duration::ZERO), FAIL),
        (
            Error::Tls(tls::Error::NotTls {
                host: "p".into(),
                hint: String::new(),
            }),
            FAIL,
        ),
        (Error::RequestBody("left".into()), NOTHING),
        (Error::RequestStalled(Duration::ZERO), NOTHING),
        (Error::Version, NOTHING),
    ] {
        assert_eq!(HostHealth::of_error(&error), outcome, "{error}");
    }
}

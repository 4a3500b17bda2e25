use http::StatusCode;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::auth::oauth::error::{OAuthErrorCode, TokenFailureReason};
use crate::host::{Scheme, Target};

fn failure(reason: TokenFailureReason) -> Arc<TokenFailure> {
    let endpoint = Target {
        scheme: Scheme::Https,
        host: crate::host::Host::parse("login.test").unwrap(),
        port: 443,
    };
    Arc::new(TokenFailure { endpoint, reason })
}

fn down() -> Arc<TokenFailure> {
    failure(TokenFailureReason::Incomplete)
}

fn refused(code: OAuthErrorCode, retry_after: Option<u64>) -> Arc<TokenFailure> {
    failure(TokenFailureReason::Refused {
        status: StatusCode::BAD_REQUEST,
        code: Some(code),
        retry_after: retry_after.map(Duration::from_secs),
    })
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A token that is replaced after 70 seconds and expires after 100.
fn token(name: u64, now: Instant) -> Token {
    Token {
        ageing: now + seconds(70.0),
        over: now + seconds(100.0),
        value: value(name),
    }
}

fn value(name: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("Bearer {name}")).unwrap()
}

#[track_caller]
fn ask(state: &mut State, now: Instant) -> u64 {
    match state.step(now) {
        TokenStep::Request(request) => request,
        other => panic!("{other:?}"),
    }
}

fn is_go(step: &TokenStep) -> bool {
    matches!(step, TokenStep::Use)
}

#[test]
fn one_asks_and_the_others_wait_for_it() {
    let (mut state, now) = (State::default(), Instant::now());
    let request = ask(&mut state, now);
    for _ in 0..100 {
        assert!(matches!(state.step(now), TokenStep::Wait));
    }
    assert!(!state.succeed(request, token(1, now)));
    assert!(is_go(&state.step(now)));
    assert_eq!(state.value(now), Some(&value(1)));
}

#[test]
fn a_token_that_ages_is_replaced_while_it_is_used() {
    let (mut state, start) = (State::default(), Instant::now());
    let request = ask(&mut state, start);
    state.succeed(request, token(1, start));
    assert!(is_go(&state.step(start + seconds(69.9))));
    let now = start + seconds(70.0);
    let TokenStep::UseAndRequest(request) = state.step(now) else {
        panic!("nobody asks");
    };
    assert!(is_go(&state.step(now)), "the others go on");
    assert_eq!(state.value(now), Some(&value(1)));
    state.succeed(request, token(2, now));
    assert_eq!(state.value(now), Some(&value(2)));
}

#[test]
fn a_token_that_is_over_is_not_given_out() {
    let (mut state, start) = (State::default(), Instant::now());
    let request = ask(&mut state, start);
    state.succeed(request, token(1, start));
    let over = start + seconds(100.0);
    assert!(state.value(over - seconds(0.001)).is_some());
    assert!(state.value(over).is_none());
    assert!(matches!(state.step(over), TokenStep::Request(_)));
}

#[test]
fn after_a_failure_nobody_asks_until_the_pause_is_over() {
    let (mut state, mut now) = (State::default(), Instant::now());
    for longest in [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
        let request = ask(&mut state, now);
        let pause = state.fail(request, &down(), now, 1.0);
        assert_eq!(pause, seconds(longest));
        let TokenStep::Refuse(no_token) = state.step(now + pause / 2) else {
            panic!("not refused");
        };
        assert_eq!(no_token.retry_after, seconds((longest / 2.0).ceil()));
        assert!(
            no_token
                .to_string()
                .starts_with("no token from login.test:443: its answer breaks off; asked again in ")
        );
        now += pause;
    }
    let request = ask(&mut state, now);
    assert!(state.succeed(request, token(1, now)), "it had failed before");
    // From the beginning again.
    now += seconds(200.0);
    let request = ask(&mut state, now);
    assert_eq!(state.fail(request, &down(), now, 0.0), seconds(0.5));
}

#[test]
fn while_the_endpoint_is_down_a_valid_token_is_used() {
    let (mut state, start) = (State::default(), Instant::now());
    let request = ask(&mut state, start);
    state.succeed(request, token(1, start));
    let mut asked = 0;
    for tenth in 700..1000 {
        let now = start + seconds(f64::from(tenth) / 10.0);
        match state.step(now) {
            TokenStep::Use => {}
            TokenStep::UseAndRequest(request) => {
                asked += 1;
                state.fail(request, &down(), now, 1.0);
            }
            other => panic!("{tenth}: {other:?}"),
        }
    }
    assert_eq!(asked, 5, "at 0, 1, 3, 7 and 15 seconds");
    assert!(matches!(state.step(start + seconds(100.0)), TokenStep::Refuse(_)));
}

#[test]
fn what_the_endpoint_refuses_or_wishes_makes_the_pause() {
    let now = Instant::now();
    let cases = [
        (down(), 30.0),
        (refused(OAuthErrorCode::InvalidClient, None), 300.0),
        (refused(OAuthErrorCode::TemporarilyUnavailable, None), 30.0),
        (refused(OAuthErrorCode::SlowDown, Some(45)), 45.0),
        (refused(OAuthErrorCode::SlowDown, Some(u64::MAX)), 300.0),
        (failure(TokenFailureReason::Redirected(StatusCode::FOUND)), 300.0),
    ];
    for (failure, expected) in cases {
        let (mut state, mut now) = (State::default(), now);
        let mut pause = Duration::ZERO;
        for _ in 0..12 {
            now += pause;
            let request = ask(&mut state, now);
            pause = state.fail(request, &failure, now, 1.0);
        }
        assert_eq!(pause, seconds(expected), "{failure}");
    }
}

#[test]
fn a_refused_token_is_replaced_once_for_all() {
    let (mut state, now) = (State::default(), Instant::now());
    let request = ask(&mut state, now);
    state.succeed(request, token(1, now));
    assert!(state.refuse(&value(1), now, 0.5));
    assert!(state.value(now).is_none());
    let request = ask(&mut state, now);
    for _ in 0..100 {
        assert!(state.refuse(&value(1), now, 0.5));
        assert!(matches!(state.step(now), TokenStep::Wait));
    }
    state.succeed(request, token(2, now));
    // A late 401 to the old token: the request gets the new one.
    assert!(state.refuse(&value(1), now, 0.5));
    assert!(is_go(&state.step(now)));
    assert_eq!(state.value(now), Some(&value(2)));
}

/// An upstream that says 401 to everything must not turn each request into a token request.
#[test]
fn tokens_that_are_refused_one_after_the_other_are_kept() {
    let (mut state, start) = (State::default(), Instant::now());
    let (mut name, mut asked) = (0, 0);
    for tenth in 0..6_000 {
        let now = start + seconds(f64::from(tenth) / 10.0);
        match state.step(now) {
            TokenStep::Request(request) | TokenStep::UseAndRequest(request) => {
                asked += 1;
                name += 1;
                // It would be valid for long.
                let over = now + seconds(86_400.0);
                state.succeed(
                    request,
                    Token {
                        ageing: over,
                        over,
                        value: value(name),
                    },
                );
            }
            TokenStep::Use => {}
            other => panic!("{other:?}"),
        }
        state.refuse(&value(name), now, 1.0);
    }
    assert!(asked <= 12, "{asked} token requests in ten minutes");

    // After a quiet time the refusals are counted from the beginning.
    let now = start + seconds(3_600.0);
    assert!(state.refuse(&value(name), now, 1.0));
    let request = ask(&mut state, now);
    state.succeed(request, token(name + 1, now));
    assert!(!state.refuse(&value(name + 1), now + seconds(0.9), 1.0));
    assert!(state.refuse(&value(name + 1), now + seconds(1.0), 1.0));
}

#[test]
fn a_flight_that_is_given_up_is_followed_by_another() {
    let (mut state, now) = (State::default(), Instant::now());
    let first = ask(&mut state, now);
    state.abandon(first);
    let second = ask(&mut state, now);
    // A late result of the first one does not end the second one.
    state.abandon(first);
    assert!(matches!(state.step(now), TokenStep::Wait));
    state.succeed(second, token(1, now));
    assert!(is_go(&state.step(now)));
}

/// For any sequence of events: one token request at a time, none during a backoff, and no expired or refused token.
#[test]
fn in_every_order_the_rules_hold() {
    for seed in 0..400 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut state, mut now) = (State::default(), Instant::now());
        let mut request: Option<u64> = None;
        let mut quiet_until = now;
        let mut names = 0;
        let mut bad: Vec<HeaderValue> = Vec::new();
        let mut over = now;
        for step in 0..300 {
            let what = || format!("seed {seed}, step {step}");
            match random.random_range(0..8) {
                0..=2 => {
                    let before = state.value(now).cloned();
                    match state.step(now) {
                        TokenStep::Request(number) => {
                            assert!(request.replace(number).is_none(), "{}: two flights", what());
                            assert!(now >= quiet_until, "{}: asked in a pause", what());
                            assert!(before.is_none(), "{}: waits although there is a token", what());
                        }
                        TokenStep::UseAndRequest(number) => {
                            assert!(request.replace(number).is_none(), "{}: two flights", what());
                            assert!(now >= quiet_until, "{}: asked in a pause", what());
                            assert!(before.is_some(), "{}", what());
                        }
                        TokenStep::Use => assert!(before.is_some(), "{}: no token", what()),
                        TokenStep::Refuse(no_token) => {
                            assert!(before.is_none() && request.is_none(), "{}", what());
                            assert!(now < quiet_until, "{}: refused after the pause", what());
                            assert!(no_token.retry_after >= Duration::from_secs(1));
                        }
                        TokenStep::Wait => assert!(before.is_none() && request.is_some(), "{}", what()),
                    }
                }
                3 => {
                    if let Some(number) = request.take() {
                        names += 1;
                        let life = seconds(random.random_range(0.1..200.0));
                        over = now + life;
                        let ageing = now + life.mul_f64(random.random_range(0.0..1.0));
                        state.succeed(
                            number,
                            Token {
                                ageing,
                                over,
                                value: value(names),
                            },
                        );
                        quiet_until = now;
                    }
                }
                4 => {
                    if let Some(number) = request.take() {
                        let failure = if random.random_bool(0.3) {
                            refused(OAuthErrorCode::InvalidGrant, None)
                        } else {
                            down()
                        };
                        let pause = state.fail(number, &failure, now, random.random());
                        assert!(
                            pause >= seconds(0.5) && pause <= LONGEST_REFUSED,
                            "{}: {pause:?}",
                            what()
                        );
                        quiet_until = now + pause;
                    }
                }
                5 => {
                    if let Some(number) = request.take() {
                        state.abandon(number);
                    }
                }
                6 => {
                    let name = value(random.random_range(0..=names));
                    let is_current = state.value(now) == Some(&name);
                    if state.refuse(&name, now, random.random()) && is_current {
                        bad.push(name);
                    }
                }
                _ => now += seconds(random.random_range(0.0..40.0)),
            }
            if let Some(value) = state.value(now) {
                assert!(now < over, "{}: over", what());
                assert!(!bad.contains(value), "{}: refused before", what());
            }
        }
    }
}

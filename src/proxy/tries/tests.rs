use http::{HeaderValue, Method, StatusCode};

use super::*;
use crate::message::{Request, RequestHead};
use crate::policy::Denial;
use crate::proxy::retry::tests::policy;
use crate::upstream::resolve;

fn answer(status: u16, retry_after: Option<&str>) -> Result<Response<ResponseBody>, RequestFailed> {
    let mut response = Response::new(ResponseBody::Ended);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some(value) = retry_after {
        let value = HeaderValue::from_str(value).unwrap();
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    Ok(response)
}

fn failed(error: upstream::Error, is_unsent: bool) -> Result<Response<ResponseBody>, RequestFailed> {
    Err(RequestFailed { error, is_unsent })
}

fn refused() -> upstream::Error {
    upstream::Error::Dial(dial::Error::Refused {
        address: "127.0.0.1:1".parse().unwrap(),
        source: std::io::ErrorKind::ConnectionRefused.into(),
    })
}

/// Conditions without a wait so far.
fn conditions(chance: f64) -> RetryConditions {
    RetryConditions {
        chance,
        clock: SystemTime::now(),
        now: Instant::now(),
        waited: Duration::ZERO,
    }
}

fn request(method: Method) -> Box<RequestHead> {
    let request = http::Request::builder().method(method).uri("http://p.test/");
    Request::from(request.body(()).unwrap()).into_parts().0
}

#[test]
fn waits_grow_and_differ_and_never_pass_what_is_left() {
    let long = Duration::from_secs(3600);
    for (repeat, least, most) in [
        (1, 100, 200),
        (2, 200, 400),
        (3, 400, 800),
        (9, 5_000, 10_000),
        (40, 5_000, 10_000),
    ] {
        let waits: Vec<_> = (0..50)
            .map(|_| {
                wait(
                    answer(503, None).as_ref(),
                    repeat,
                    long,
                    conditions(rand::random()),
                )
                .unwrap()
            })
            .collect();
        let range = Duration::from_millis(least)..=Duration::from_millis(most);
        assert!(
            waits.iter().all(|wait| range.contains(wait)),
            "{repeat}: {waits:?}"
        );
        assert!(waits.iter().any(|wait| *wait != waits[0]), "{repeat}: all alike");
    }
    let little = Duration::from_millis(7);
    assert_eq!(
        wait(failed(refused(), false).as_ref(), 1, little, conditions(0.5)),
        Some(little)
    );
    assert_eq!(
        wait(answer(503, None).as_ref(), 1, Duration::ZERO, conditions(0.5)),
        Some(Duration::ZERO)
    );
}

#[test]
fn retry_after_is_obeyed_where_there_is_time() {
    let seconds = Duration::from_secs;
    for (asked, left, least) in [
        ("1.5", seconds(5), Some(Duration::from_millis(1_500))),
        ("2", seconds(5), Some(seconds(2))),
        ("5", seconds(5), Some(seconds(5))),
        ("6", seconds(5), None),
        ("18446744073709551615", seconds(5), None),
        // Far in the future.
        ("Fri, 31 Dec 9999 23:59:59 GMT", seconds(5), None),
    ] {
        let got = wait(
            answer(429, Some(asked)).as_ref(),
            1,
            left,
            conditions(rand::random()),
        );
        match least {
            None => assert_eq!(got, None, "{asked}"),
            Some(least) => {
                let most = (least + least / 10).min(left);
                assert!(
                    got.is_some_and(|got| (least..=most).contains(&got)),
                    "{asked}: {got:?}"
                );
            }
        }
    }
    // A date is compared with the Date of the response.
    let mut dated = answer(429, Some("Wed, 15 Jul 2026 10:36:20 GMT")).unwrap();
    let date = HeaderValue::from_static("Wed, 15 Jul 2026 10:36:17 GMT");
    dated.headers_mut().insert(header::DATE, date);
    assert_eq!(wait(Ok(&dated), 1, seconds(5), conditions(0.0)), Some(seconds(3)));
    // Vendors' names and formats, and a reset if there is nothing else.
    for (status, name, value, least) in [
        (429, "x-retry-after", "2", 2_000),
        (429, "x-retry-in", "1.5s", 1_500),
        (503, "retry-after-ms", "700", 700),
        (429, "x-ratelimit-reset", "2", 2_000),
    ] {
        let mut answer = answer(status, None).unwrap();
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
        let got = wait(Ok(&answer), 1, seconds(5), conditions(0.0));
        assert_eq!(got, Some(Duration::from_millis(least)), "{name}");
    }
    // An invalid, past or zero wait is replaced by our own.
    for nonsense in ["soon", "-1", "NaN", "", "0", "Sun, 06 Nov 1994 08:49:37 GMT"] {
        let got = wait(
            answer(429, Some(nonsense)).as_ref(),
            1,
            seconds(5),
            conditions(0.5),
        )
        .unwrap();
        assert!(got >= FIRST_WAIT / 2 && got <= FIRST_WAIT, "{nonsense}: {got:?}");
    }
}

#[test]
fn only_what_is_configured_is_repeated_and_only_with_a_body() {
    let policy = policy(20);
    let throttled = RetryReason::Status(StatusCode::TOO_MANY_REQUESTS);
    let cut = || upstream::Error::Incomplete("cut".into());
    for (result, is_whole, expected) in [
        (answer(429, None), true, Some(throttled)),
        (answer(429, None), false, None),
        (answer(503, None), true, None),
        (answer(200, None), true, None),
        (failed(refused(), true), false, Some(RetryReason::Connect)),
        (failed(refused(), false), true, None),
        (failed(cut(), false), true, None),
    ] {
        let tries = Tries::new(Some(&policy), &request(Method::GET));
        let got = tries.repeats.unwrap().reason(result.as_ref(), is_whole);
        assert_eq!(got, expected, "{:?} {is_whole}", result);
    }
}

#[test]
fn what_will_fail_again_is_not_tried_again() {
    let name = || "p.test".into();
    let host = || "p.test".to_owned();
    for (error, expected) in [
        (refused(), true),
        (
            upstream::Error::Dns(resolve::Error::NotFound { name: name() }),
            false,
        ),
        (
            upstream::Error::Dns(resolve::Error::Unreachable { servers: name() }),
            true,
        ),
        (
            upstream::Error::Tls(tls::Error::Timeout {
                host: host(),
                hint: String::new(),
                limit: Duration::ZERO,
            }),
            true,
        ),
        (
            upstream::Error::Tls(tls::Error::NotTls {
                host: host(),
                hint: String::new(),
            }),
            false,
        ),
        (upstream::Error::Version, false),
        (
            upstream::Error::Denied(Denial::Loop {
                address: "127.0.0.1:1".parse().unwrap(),
            }),
            false,
        ),
    ] {
        let text = error.to_string();
        assert_eq!(may_recover(&error), expected, "{text}");
    }
}

/// Repeats are limited, whatever else leads to another try. After each repeat a credential may be renewed once.
#[tokio::test(start_paused = true)]
async fn repeats_are_counted_and_renewals_do_not_follow_each_other() {
    let policy = policy(100);
    let head = request(Method::GET);
    let mut tries = Tries::new(Some(&policy), &head);
    let throttled = RetryReason::Status(StatusCode::TOO_MANY_REQUESTS);
    let mut next = |reason: RetryReason, status: u16| {
        let result = answer(status, None);
        tries.next(reason, result.as_ref(), &head, conditions(0.0))
    };
    let renewal = next(RetryReason::Renewal, 401).unwrap();
    assert_eq!((renewal.wait, renewal.options.patience), (Duration::ZERO, None));
    let repeat = next(throttled, 429).unwrap();
    assert_eq!(repeat.wait, FIRST_WAIT / 2);
    assert_eq!(repeat.options.patience, Some(Duration::from_secs(5)));
    assert!(
        next(RetryReason::Renewal, 401).is_some(),
        "another try, another renewal"
    );
    assert!(next(throttled, 429).is_none(), "two attempts");
}

/// All waits of a request count, also those for limits.
#[tokio::test(start_paused = true)]
async fn what_was_waited_is_not_waited_again() {
    let policy = policy(100);
    for (waited, deadline, patience) in [
        (0, None, Some(5)),
        (4, None, Some(1)),
        (0, Some("wait=3"), Some(2)),
        (4, Some("wait=3"), Some(1)),
        (9, None, Some(0)),
        (0, Some("wait=1"), None),
    ] {
        let mut head = request(Method::GET);
        if let Some(deadline) = deadline {
            head.headers.insert("prefer", HeaderValue::from_static(deadline));
        }
        let mut tries = Tries::new(Some(&policy), &head);
        tokio::time::advance(Duration::from_secs(1)).await;
        let conditions = RetryConditions {
            waited: Duration::from_secs(waited),
            ..conditions(0.0)
        };
        let result = answer(429, None);
        let throttled = RetryReason::Status(StatusCode::TOO_MANY_REQUESTS);
        let next = tries.next(throttled, result.as_ref(), &head, conditions);
        let got = next.map(|next| next.options.patience.unwrap().as_secs());
        assert_eq!(got, patience, "{waited} {deadline:?}");
    }
}

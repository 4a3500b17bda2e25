use http::HeaderValue;

use super::*;
use crate::policy::Denial;
use crate::telemetry::Telemetry;
use crate::upstream::resolve;

fn retrying(budget: u8) -> Retrying {
    let settings = Retry {
        attempts: 2,
        budget,
        on_connect: true,
        on_status: vec![StatusCode::TOO_MANY_REQUESTS],
        max_wait: Duration::from_secs(5),
    };
    Retrying::new(settings, &"p".into(), Telemetry::new().counters("p"))
}

fn answer(status: u16, retry_after: Option<&str>) -> Result<Response<ResponseBody>, Failed> {
    let mut response = Response::new(ResponseBody::Ended);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some(value) = retry_after {
        let value = HeaderValue::from_str(value).unwrap();
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    Ok(response)
}

fn failed(error: upstream::Error, is_unsent: bool) -> Result<Response<ResponseBody>, Failed> {
    Err(Failed { error, is_unsent })
}

fn refused() -> upstream::Error {
    upstream::Error::Dial(dial::Error::Refused {
        address: "127.0.0.1:1".parse().unwrap(),
        source: std::io::ErrorKind::ConnectionRefused.into(),
    })
}

fn spent(retrying: &Retrying, now: Instant, tries: usize) -> usize {
    (0..tries).filter(|_| retrying.spend(now)).count()
}

#[tokio::test(start_paused = true)]
async fn repeats_are_a_share_of_the_requests_and_a_few() {
    for (requests, budget, repeats) in [
        (0, 20, 10),
        (1, 20, 10),
        (100, 20, 30),
        (1_000, 1, 20),
        (50, 100, 60),
    ] {
        let retrying = retrying(budget);
        let now = Instant::now();
        (0..requests).for_each(|_| retrying.begin(now));
        assert_eq!(spent(&retrying, now, 2_000), repeats, "{requests} {budget}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_one_of_lately() {
    let retrying = retrying(20);
    let start = Instant::now();
    (0..100).for_each(|_| retrying.begin(start));
    assert_eq!(spent(&retrying, start, 100), 30);
    assert_eq!(spent(&retrying, start + SPAN / 2, 100), 0);
    // The requests are forgotten with the repeats.
    assert_eq!(spent(&retrying, start + SPAN, 100), 10);
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
            .map(|_| wait(answer(503, None).as_ref(), repeat, long).unwrap())
            .collect();
        let range = Duration::from_millis(least)..=Duration::from_millis(most);
        assert!(
            waits.iter().all(|wait| range.contains(wait)),
            "{repeat}: {waits:?}"
        );
        assert!(waits.iter().any(|wait| *wait != waits[0]), "{repeat}: all alike");
    }
    let little = Duration::from_millis(7);
    assert_eq!(wait(failed(refused(), false).as_ref(), 1, little), Some(little));
    assert_eq!(
        wait(answer(503, None).as_ref(), 1, Duration::ZERO),
        Some(Duration::ZERO)
    );
}

#[test]
fn retry_after_is_obeyed_where_there_is_time() {
    let seconds = Duration::from_secs;
    for (asked, left, least) in [
        ("0", seconds(5), Some(Duration::ZERO)),
        ("2", seconds(5), Some(seconds(2))),
        ("5", seconds(5), Some(seconds(5))),
        ("6", seconds(5), None),
        ("18446744073709551615", seconds(5), None),
        // In the past: now.
        ("Sun, 06 Nov 1994 08:49:37 GMT", seconds(5), Some(Duration::ZERO)),
        // Nobody's lifetime.
        ("Fri, 31 Dec 9999 23:59:59 GMT", seconds(5), None),
    ] {
        let got = wait(answer(429, Some(asked)).as_ref(), 1, left);
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
    // What is no wait leaves it to us.
    for nonsense in ["soon", "-1", "1.5", "NaN", ""] {
        let got = wait(answer(429, Some(nonsense)).as_ref(), 1, seconds(5)).unwrap();
        assert!(got >= FIRST_WAIT / 2 && got <= FIRST_WAIT, "{nonsense}: {got:?}");
    }
}

#[test]
fn only_what_is_configured_is_repeated_and_only_with_a_body() {
    let retrying = retrying(20);
    let throttled = Reason::Status(StatusCode::TOO_MANY_REQUESTS);
    let cut = || upstream::Error::Incomplete("cut".into());
    for (result, is_whole, expected) in [
        (answer(429, None), true, Some(throttled)),
        (answer(429, None), false, None),
        (answer(503, None), true, None),
        (answer(200, None), true, None),
        (failed(refused(), true), false, Some(Reason::Connect)),
        (failed(refused(), false), true, None),
        (failed(cut(), false), true, None),
    ] {
        let got = retrying.reason(result.as_ref(), is_whole);
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
                limit: Duration::ZERO,
            }),
            true,
        ),
        (upstream::Error::Tls(tls::Error::NotTls { host: host() }), false),
        (upstream::Error::Version, false),
        (
            upstream::Error::Denied(Denial::Loop {
                address: "127.0.0.1:1".parse().unwrap(),
            }),
            false,
        ),
    ] {
        let text = error.to_string();
        assert_eq!(may_pass(&error), expected, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_kept_where_it_is_short() {
    let body = |length| ResponseBody::Whole(Bytes::from(vec![b'x'; length]));
    for (length, is_kept) in [(0, true), (MOST_KEPT, true), (MOST_KEPT + 1, false)] {
        let kept = kept(Response::new(body(length))).await;
        assert_eq!(kept.is_some(), is_kept, "{length}");
        if let Some(kept) = kept {
            assert_eq!(kept.body().size_hint().exact(), Some(length as u64));
        }
    }
}

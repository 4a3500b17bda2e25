//! Random bytes in the fields: nothing panics, and no result is out of bounds.

use std::time::Duration;

use data_encoding::BASE64_NOPAD;
use http::{HeaderName, HeaderValue};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::{LONGEST_NAME, LONGEST_PAUSE, LONGEST_RESET, LONGEST_WINDOW, MOST_QUOTAS, fields, grpc, hints};

use crate::message::Fields;

/// As grpcio 1.85 writes RetryInfo with 3.5 s.
const DETAILS: &str =
    "CAgSBXF1b3RhGjYKKHR5cGUuZ29vZ2xlYXBpcy5jb20vZ29vZ2xlLnJwYy5SZXRyeUluZm8SCgoICAMQgMq17gE";

const OTHERS: [&str; 4] = [
    "grpc-status",
    "x-amzn-errortype",
    "x-envoy-ratelimited",
    "x-github-request-id",
];

const BY_WORDS: [&str; 15] = [
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "retry-after-short",
    "x-ratelimit-limit",
    "x-ratelimit-limit-minute",
    "x-ratelimit-remaining",
    "x-ratelimit-remaining-minute",
    "x-ratelimit-reset",
    "x-ratelimit-reset-after",
    "x-ratelimit-user-limit-hour",
    "x-ratelimit-userlimit",
    "x-ratelimit-userremaining",
    "x-ratelimit-userreset",
    "x-rate-limit-retry-after-seconds",
];

const SEEDS: [&str; 24] = [
    "0",
    "60",
    "1784111837",
    "1784111837000",
    "18446744073709551616",
    "1.5",
    "6m0s",
    "99999999999999999999d",
    "Wed, 15 Jul 2026 10:37:17 GMT",
    "Wednesday, 15-Jul-26 10:37:17 GMT",
    "Wed Jul 15 10:37:17 2026",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "2026-07-15T10:37:17.250Z",
    "2026-07-15T10:37Z",
    "\"a\";r=0;t=5;pk=:ZQ==:, b;r=1",
    "\"a\";q=100;qu=\"requests\";w=60",
    "limit=1, remaining=0, reset=5",
    "100;w=60",
    "32/40",
    "NaN",
    "8",
    "-1",
    "Wed Jul 15 2026 12:37:17 GMT+0200 (Central European Summer Time)",
    DETAILS,
];

#[test]
fn whatever_an_upstream_writes_nothing_leaves_the_bounds() {
    let mut random = StdRng::seed_from_u64(7);
    for round in 0..100_000 {
        let mut headers = Fields::new();
        for _ in 0..random.random_range(1..=8) {
            let name = match random.random_range(0..8) {
                0 => "date",
                1 => "age",
                2 => OTHERS.choose(&mut random).unwrap(),
                3 | 4 => BY_WORDS.choose(&mut random).unwrap(),
                _ => fields::FIELDS.choose(&mut random).unwrap().stem,
            };
            let value = HeaderValue::from_bytes(&value(&mut random));
            headers.append(HeaderName::from_static(name), value.unwrap());
        }
        let status = *[200, 403, 429, 503, 599].choose(&mut random).unwrap();
        let now = *[0, 1_784_111_777, u64::from(u32::MAX)]
            .choose(&mut random)
            .unwrap();
        let Some(said) = hints(now, status, &headers) else {
            continue;
        };
        assert!(
            said.pause
                .as_ref()
                .is_none_or(|pause| pause.length <= LONGEST_PAUSE),
            "{round}: {headers:?}"
        );
        assert!(said.is_refusal || said.pause.is_none(), "{round}: {headers:?}");
        assert!(said.quotas.len() <= MOST_QUOTAS, "{round}: {headers:?}");
        for quota in &said.quotas {
            let bounded = quota.name.len() <= LONGEST_NAME
                && quota.limit != Some(0)
                && quota
                    .limit
                    .is_none_or(|limit| quota.remaining.is_none_or(|remaining| remaining <= limit))
                && quota.reset.is_none_or(|reset| reset <= LONGEST_RESET)
                && quota
                    .window
                    .is_none_or(|window| !window.is_zero() && window <= LONGEST_WINDOW);
            assert!(bounded, "{round}: {quota:?} of {headers:?}");
        }
        let mut names: Vec<_> = said.quotas.iter().map(|quota| &quota.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), said.quotas.len(), "{round}: {headers:?}");
    }
}

/// Truncated and nested messages: nothing panics, and every delay can be waited for.
#[test]
fn whatever_stands_in_the_details_of_grpc_it_is_read() {
    let mut random = StdRng::seed_from_u64(8);
    let whole = BASE64_NOPAD.decode(DETAILS.as_bytes()).unwrap();
    assert_eq!(grpc::retry_delay(DETAILS), Ok(Some(Duration::from_millis(3_500))));
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..random.random_range(1..4) {
            let place = random.random_range(0..bytes.len());
            match random.random_range(0..3) {
                0 => bytes[place] = random.random(),
                1 => bytes.insert(place, random.random()),
                _ => bytes.truncate(place.max(1)),
            }
        }
        let read = grpc::retry_delay(&BASE64_NOPAD.encode(&bytes));
        assert!(
            read.unwrap()
                .is_none_or(|delay| i64::try_from(delay.as_secs()).is_ok())
        );
    }
}

/// A value that is often nearly valid.
fn value(random: &mut StdRng) -> Vec<u8> {
    let mut value = match random.random_range(0..5) {
        0 => Vec::new(),
        1 => random.random::<u64>().to_string().into_bytes(),
        2 => (0..random.random_range(0..40))
            .map(|_| random.random_range(0x20..0x7f))
            .collect(),
        _ => SEEDS.choose(random).unwrap().as_bytes().to_vec(),
    };
    for _ in 0..random.random_range(0..4) {
        let place = random.random_range(0..=value.len());
        match random.random_range(0..4) {
            0 => value.insert(
                place,
                *b"0123456789.,;=\"-:/ TZGMsmhd(){}\xff\x80"
                    .choose(random)
                    .unwrap(),
            ),
            1 => drop(value.splice(place..place, SEEDS.choose(random).unwrap().bytes())),
            2 => value.truncate(place),
            _ => value.extend_from_within(..place),
        }
    }
    value
}

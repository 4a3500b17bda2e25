//! Leases by themselves: what they hold, when they ask, what the share lets through.

use std::time::Duration;

use super::lease::{FleetConfig, PATIENCE, RateLease};
use super::{PermitGrant, PermitRequest, SECOND};
use crate::limit::gcra::{Gcra, NEVER};
use crate::units::Rate;

mod schedule;
mod simulation;

const MS: u64 = 1_000_000;

fn rate(count: u32, per: u64, burst: u32) -> Gcra {
    Gcra::new(&Rate {
        count,
        per: Duration::from_secs(per),
        burst,
    })
}

/// One of four instances, which has heard of the others.
fn lease(rate: Gcra) -> RateLease {
    let mut lease = RateLease::new(rate, FleetConfig::default(), 0.0);
    let ask = lease.request(0, 0, 0);
    lease.receive(&ask, answer(0, 0, 0, 0), 0);
    lease
}

fn answer(at_once: u32, later: u32, first: u64, ahead: u64) -> PermitGrant {
    PermitGrant {
        at_once,
        later,
        first,
        ahead,
        born: 5,
        live: 4,
        active: 2,
        wait: 0,
    }
}

/// Takes as long as it may `now`.
fn take_all(lease: &mut RateLease, now: u64) -> u32 {
    let mut taken = 0;
    while lease.earliest(now) <= now {
        lease.take(now);
        taken += 1;
    }
    taken
}

#[test]
fn a_quiet_instance_asks_for_one_permit_when_somebody_waits() {
    let mut lease = lease(rate(10, 1, 10));
    assert!(!lease.should_ask(|| 0, SECOND));
    lease.count_demand(SECOND);
    assert!(lease.is_asking(SECOND));
    assert!(lease.should_ask(|| 1, SECOND));
    assert!(!lease.should_ask(|| 1, SECOND), "asked once");
    let ask = lease.request(1, 2 * SECOND, SECOND);
    assert_eq!((ask.need, ask.soon, ask.patience), (1, 1, 2 * SECOND));
    assert_eq!(ask.demand, 0, "one is no habit");
    lease.receive(&ask, answer(1, 0, 0, 0), SECOND + MS);
    assert_eq!(lease.earliest(SECOND + MS), SECOND + MS);
    lease.take(SECOND + MS);
    assert!(!lease.should_ask(|| 0, SECOND + 2 * MS));
}

#[test]
fn a_request_during_another_call_does_not_wait_longer() {
    let mut lease = lease(rate(10, 1, 10));
    let heartbeat = lease.request(0, 0, SECOND);
    lease.count_demand(SECOND + 20 * MS);
    assert!(!lease.should_ask(|| 1, SECOND + 20 * MS));
    lease.receive(&heartbeat, answer(0, 0, 0, 0), SECOND + 30 * MS);
    assert!(lease.should_ask(|| 1, SECOND + 30 * MS));
    assert_eq!(lease.earliest(SECOND + 30 * MS), SECOND + PATIENCE);
}

#[test]
fn a_busy_instance_asks_for_several_before_it_has_none() {
    let mut lease = lease(rate(100, 1, 100));
    for i in 0..100 {
        lease.count_demand(i * 20 * MS);
    }
    let now = 2 * SECOND;
    assert!(lease.should_ask(|| 1, now));
    let ask = lease.request(1, 0, now);
    // Fifty a second: a quarter of a second's worth within the grace.
    assert!(
        (10..=13).contains(&ask.soon) && (39_000..=51_000).contains(&ask.demand),
        "{ask:?}"
    );
    lease.receive(&ask, answer(10, 0, 0, 0), now);
    assert_eq!(lease.earliest(now), now);
    assert!(!lease.should_ask(|| 0, now));
    for _ in 0..6 {
        lease.take(now);
        lease.count_demand(now);
    }
    assert!(lease.should_ask(|| 0, now), "half of them are gone");
}

#[test]
fn permits_have_their_moments_and_expire_after_their_life() {
    let gcra = rate(100, 1, 6);
    let mut lease = lease(gcra);
    let ask = lease.request(4, SECOND, 0);
    lease.receive(&ask, answer(1, 3, 20 * MS, 80 * MS), 0);
    assert_eq!(take_all(&mut lease, 0), 1);
    assert_eq!(lease.earliest(0), 20 * MS);
    assert_eq!(take_all(&mut lease, 29 * MS), 1);
    assert_eq!(lease.earliest(29 * MS), 30 * MS);
    // Fifty milliseconds of tolerance: the second expires after 80, the third after 90.
    assert_eq!(lease.earliest(81 * MS), 40 * MS);
    assert_eq!(take_all(&mut lease, 85 * MS), 1);
    assert!(lease.earliest(91 * MS) > 91 * MS);
}

#[test]
fn a_permit_of_a_request_that_does_not_go_can_be_used_by_the_next() {
    let mut lease = lease(rate(10, 1, 10));
    let ask = lease.request(1, 0, SECOND);
    lease.receive(&ask, answer(1, 0, 0, 0), SECOND);
    lease.take(SECOND);
    assert!(lease.earliest(SECOND) > SECOND);
    lease.give_back();
    assert_eq!(lease.earliest(SECOND), SECOND);
    lease.give_back();
    assert_eq!(take_all(&mut lease, SECOND), 1);
}

#[test]
fn an_answer_that_is_late_leaves_it_to_the_share() {
    // Of a burst of 8, four instances have two each.
    let mut lease = lease(rate(4, 1, 8));
    lease.count_demand(SECOND);
    assert!(lease.should_ask(|| 1, SECOND));
    assert_eq!(lease.earliest(SECOND), SECOND + PATIENCE);
    assert!(lease.is_asking(SECOND + PATIENCE - 1) && !lease.is_asking(SECOND + PATIENCE));
    let late = SECOND + PATIENCE;
    assert_eq!(take_all(&mut lease, late), 2);
    assert_eq!(lease.earliest(late), late + SECOND);
    assert!(lease.owes());
    let ask = lease.request(0, 0, late);
    assert_eq!((ask.spent, ask.left, ask.seen), (2, 0, 5));
    lease.receive(&ask, answer(0, 0, 0, 0), late);
    assert!(!lease.owes());
}

#[test]
fn without_the_store_an_instance_keeps_to_its_share() {
    for (written, index, known, parts) in [
        (None, None, None, 10),
        (None, Some(0), None, 2),
        (None, Some(3), None, 20),
        (None, None, Some(4), 4),
        (None, Some(9), Some(4), 10),
        (Some(7), Some(9), Some(4), 7),
    ] {
        let config = FleetConfig {
            instances: written,
            index,
        };
        let mut lease = RateLease::new(rate(100, 1, 40), config, 0.0);
        if known.is_some() {
            let ask = lease.request(0, 0, 0);
            lease.receive(&ask, answer(0, 0, 0, 0), 0);
        }
        lease.store_lost(0);
        let mut taken = 0;
        for ms in 0..=100_000 {
            taken += take_all(&mut lease, ms * MS);
        }
        let fair = 100 * 100 / parts;
        assert!(
            (fair..=fair + 40 / parts + 1).contains(&taken),
            "{config:?} {known:?}: {taken} of {fair}"
        );
    }
}

#[test]
fn the_shares_of_a_fleet_of_unknown_size_never_exceed_the_whole() {
    let sum: f64 = (0..10_000)
        .map(|index| {
            let config = FleetConfig {
                instances: None,
                index: Some(index),
            };
            1.0 / f64::from(RateLease::new(rate(1, 1, 1), config, 0.0).members())
        })
        .sum();
    assert!(sum <= 1.0 && sum > 0.99, "{sum}");
}

#[test]
fn the_share_begins_where_the_fleet_stood() {
    // Until the fleet's bucket is whole; for how long a share of two in a burst of eight then waits.
    for (ahead, waits) in [
        (SECOND / 2, 0),
        (3 * SECOND / 2, SECOND / 2),
        (2 * SECOND, SECOND),
    ] {
        let mut lease = lease(rate(4, 1, 8));
        let ask = lease.request(1, 0, SECOND);
        lease.receive(&ask, answer(0, 0, 0, ahead), SECOND);
        lease.store_lost(SECOND);
        let earliest = lease.earliest(SECOND).max(SECOND);
        assert_eq!(earliest - SECOND, waits, "{ahead}");
    }
}

#[test]
fn until_all_have_returned_the_share_holds() {
    let mut lease = lease(rate(4, 1, 8));
    lease.store_lost(SECOND);
    lease.store_returned();
    let ask = lease.request(0, 0, 10 * SECOND);
    assert!(ask.returned);
    // It is the first: an empty fleet with a new bucket, which must not be believed yet.
    let first = PermitGrant {
        born: 6,
        live: 1,
        wait: 2 * SECOND,
        ..answer(0, 0, 0, 0)
    };
    lease.receive(&ask, first, 10 * SECOND);
    assert_eq!((take_all(&mut lease, 10 * SECOND), lease.members()), (2, 4));
    assert_eq!(lease.earliest(10 * SECOND), 11 * SECOND);
    assert!(!lease.should_ask(|| 5, 11 * SECOND) && lease.should_ask(|| 5, 12 * SECOND));
    let ask = lease.request(5, 0, 12 * SECOND);
    assert_eq!((ask.returned, ask.seen, ask.left), (true, 5, 2));
    lease.receive(&ask, answer(1, 0, 0, 0), 12 * SECOND);
    assert!(!lease.request(0, 0, 12 * SECOND).returned);
}

#[test]
fn a_burst_that_cannot_be_divided_comes_by_turns() {
    let mut first = Vec::new();
    for turn in 0..8 {
        let config = FleetConfig {
            instances: Some(8),
            index: None,
        };
        let mut lease = RateLease::new(rate(1, 1, 1), config, f64::from(turn) / 8.0);
        lease.store_lost(SECOND);
        first.push(lease.earliest(SECOND) / SECOND);
    }
    first.sort_unstable();
    first.dedup();
    assert!(first.len() >= 6, "{first:?}");
}

#[test]
fn a_refusal_is_remembered_so_that_the_store_is_not_asked_for_each_request() {
    let mut lease = lease(rate(10, 1, 1));
    let ask = lease.request(1, 0, SECOND);
    lease.receive(&ask, answer(0, 0, 0, 3 * SECOND), SECOND);
    for ms in 1..1900 {
        lease.count_demand(SECOND + ms * MS);
        assert!(!lease.should_ask(|| 1, SECOND + ms * MS));
        assert!(!lease.is_asking(SECOND + ms * MS));
    }
    let opens = lease.earliest(SECOND + 1900 * MS);
    assert!((3 * SECOND..4 * SECOND).contains(&opens), "{opens}");
    assert!(lease.should_ask(|| 1, opens));
}

#[test]
fn a_rate_of_zero_never_asks() {
    let mut lease = RateLease::new(rate(0, 1, 1), FleetConfig::default(), 0.0);
    lease.count_demand(SECOND);
    assert!(!lease.should_ask(|| 1, SECOND) && !lease.is_asking(SECOND));
    assert_eq!(lease.earliest(SECOND), NEVER);
}

#[test]
fn an_instance_announces_itself_now_and_then() {
    let mut lease = RateLease::new(rate(10, 1, 10), FleetConfig::default(), 0.0);
    assert!(lease.is_quiet(0));
    let ask = lease.request(0, 0, 0);
    lease.receive(&ask, answer(0, 0, 0, 0), 0);
    assert!(!lease.is_quiet(29 * SECOND));
    assert!(lease.is_quiet(30 * SECOND));
}

#[test]
fn numbers_of_the_wire_are_microseconds() {
    let ask = PermitRequest {
        patience: 1_234_567,
        ..PermitRequest::default()
    };
    assert_eq!(ask.arguments()[6], "1234.567");
    let grant = PermitGrant::read([1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    assert_eq!((grant.first, grant.ahead, grant.wait), (3000, 4000, 8000));
    for wrong in [
        [-1, 0, 0, 0, 1, 1, 1, 0],
        [0, 0, -1, 0, 1, 1, 1, 0],
        [0, 0, 0, -4, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 1, i64::MAX, 1, 0],
        [0, 0, 0, 0, 1, 1, 1, -1],
    ] {
        assert_eq!(PermitGrant::read(wrong), None, "{wrong:?}");
    }
}

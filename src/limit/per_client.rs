//! One rate for each client by itself, as the route service counts them.
//!
//! A client is an address, or a network of IPv6: a subscriber has all of its 2^64 addresses. What is known of a client
//! is one number. There are at most [`MOST_CLIENTS`] of them, so that a crowd costs no memory; past that the client that has
//! been quiet for longest is forgotten, which gives it its burst again.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use foldhash::fast::RandomState;
use hashlink::LruCache;
use prometheus::IntCounter;
use tokio::time::Instant;

use super::Refusal;
use super::gcra::Gcra;
use super::refusal::LimitInfo;
use super::state::{BlockingLimit, Obstacle};
use crate::sync::lock;
use crate::telemetry::Counters;
use crate::units::{self, Rate};

/// Some two megabytes.
const MOST_CLIENTS: usize = 16_384;

/// The rate of each client, and what each has used of it.
pub(crate) struct ClientRates {
    born: Instant,
    destination: Arc<str>,
    gcra: Gcra,
    info: LimitInfo,
    /// When the bucket of a client is empty again, in nanoseconds since `born`.
    levels: Mutex<LruCache<IpAddr, u64, RandomState>>,
    refused: IntCounter,
    settings: (Rate, Option<NonZeroU32>),
}

impl ClientRates {
    /// Makes the rates of a destination. Each of several `instances` takes an equal share.
    pub(crate) fn new(rate: &Rate, instances: Option<NonZeroU32>, counters: &Counters) -> Self {
        let label: Arc<str> = rate.to_string().into();
        Self {
            born: Instant::now(),
            destination: counters.destination().into(),
            gcra: Gcra::new(rate).share(instances.map_or(1, NonZeroU32::get)),
            refused: counters.limit_refusals(&label),
            info: LimitInfo {
                label,
                quota: Some(rate.count.into()),
                window: rate.per,
            },
            levels: Mutex::new(LruCache::with_hasher(MOST_CLIENTS, RandomState::default())),
            settings: (rate.clone(), instances),
        }
    }

    /// Whether it was made with these settings.
    pub(crate) fn is_of(&self, rate: &Rate, instances: Option<NonZeroU32>) -> bool {
        self.settings.0 == *rate && self.settings.1 == instances
    }

    /// Counts a request of a client, or refuses it.
    pub(crate) fn take(&self, client: IpAddr, now: Instant) -> Result<(), Refusal> {
        let now = units::nanos(now.saturating_duration_since(self.born));
        let client = network(client);
        let mut levels = lock(&self.levels);
        let level = levels.get(&client).copied().unwrap_or_else(|| self.gcra.full());
        let until = self.gcra.earliest(level);
        if until <= now {
            levels.insert(client, self.gcra.taken(level, now));
            return Ok(());
        }
        drop(levels);
        self.refused.inc();
        let limit = BlockingLimit::Rate(0);
        Err(Refusal::new(
            &self.destination,
            &self.info,
            Obstacle { limit, until },
            now,
        ))
    }
}

impl std::fmt::Debug for ClientRates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ClientRates").field(&self.settings.0).finish()
    }
}

/// Returns an IPv4 address as it is, and of an IPv6 address the network, which is one subscriber's.
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::Telemetry;

    fn rates(rate: &str, instances: u32) -> ClientRates {
        let counters = Telemetry::new().counters("route_service");
        ClientRates::new(&rate.parse().unwrap(), NonZeroU32::new(instances), &counters)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_client_has_its_own_burst_and_its_own_rate() {
        let (rates, now) = (rates("2/s burst 3", 1), Instant::now());
        for client in ["203.0.113.7", "203.0.113.8", "2001:db8::1"] {
            let passed = (0..9).filter(|_| rates.take(ip(client), now).is_ok()).count();
            assert_eq!(passed, 3, "{client}");
        }
        let refusal = rates.take(ip("203.0.113.7"), now).unwrap_err();
        assert_eq!((&*refusal.limit, refusal.seconds()), ("2/s burst 3", 1));
        assert!(
            rates
                .take(ip("203.0.113.7"), now + Duration::from_millis(501))
                .is_ok()
        );
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_client() {
        let (rates, now) = (rates("1/m burst 1", 1), Instant::now());
        assert!(rates.take(ip("2001:db8::1"), now).is_ok());
        assert!(rates.take(ip("2001:db8::ffff:1:2:3"), now).is_err());
        assert!(rates.take(ip("2001:db8:0:1::1"), now).is_ok());
    }

    #[test]
    fn instances_share_the_rate_of_a_client() {
        let (rates, now) = (rates("4/s", 2), Instant::now());
        let passed = (0..9)
            .filter(|_| rates.take(ip("203.0.113.7"), now).is_ok())
            .count();
        assert_eq!(passed, 2);
    }

    #[test]
    fn a_crowd_of_clients_takes_no_more_room() {
        let (rates, now) = (rates("1/m burst 1", 1), Instant::now());
        for number in 0..3 * MOST_CLIENTS as u32 {
            assert!(
                rates
                    .take(std::net::Ipv4Addr::from_bits(number).into(), now)
                    .is_ok()
            );
        }
        assert_eq!(lock(&rates.levels).len(), MOST_CLIENTS);
    }
}

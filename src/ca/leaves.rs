//! The leaves that are in use: minted once, renewed at half their life, bounded in number.
//!
//! A name costs one signature and about two kilobytes, however often it is asked for. Past the bound the tenth that
//! was asked for longest ago is evicted, so that a flood of names does not fill the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use rustls::ServerConfig;

use super::Offer;
use super::certificate::Validity;
use crate::host::Host;

/// Everything that is served, by host.
#[derive(Debug, Default)]
pub(super) struct LeafCache(DashMap<Host, Leaf>);

/// One certificate and the settings that present it.
#[derive(Debug)]
pub(super) struct Leaf {
    h1: Arc<ServerConfig>,
    h2: Arc<ServerConfig>,
    validity: Validity,
    /// Microseconds since 1970.
    last_asked: AtomicU64,
}

impl Leaf {
    /// `config` presents the certificate and leaves ALPN to us. Both offers share its ticket key.
    pub(super) fn new(config: ServerConfig, validity: Validity) -> Self {
        let with = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        Self {
            h1: with(&[b"http/1.1", b"http/1.0"]),
            h2: with(&[b"h2", b"http/1.1", b"http/1.0"]),
            validity,
            last_asked: AtomicU64::new(0),
        }
    }

    pub(super) fn config(&self, offer: Offer) -> Arc<ServerConfig> {
        Arc::clone(match offer {
            Offer::H1 => &self.h1,
            Offer::H2 => &self.h2,
        })
    }

    /// Whether `now` lies in the first half of its life. A clock that was set back makes it stale, too.
    fn is_fresh(&self, now: SystemTime) -> bool {
        let Validity { from, until } = self.validity;
        let life = until.duration_since(from).unwrap_or_default();
        now.duration_since(from).is_ok_and(|age| age < life / 2)
    }
}

impl LeafCache {
    /// What is served for `host`, if it is there and has not reached half of its life.
    pub(super) fn fresh(&self, host: &Host, offer: Offer, now: SystemTime) -> Option<Arc<ServerConfig>> {
        let leaf = self.0.get(host)?;
        if !leaf.is_fresh(now) {
            return None;
        }
        leaf.last_asked.store(micros(now), Ordering::Relaxed);
        Some(leaf.config(offer))
    }

    /// Keeps a new leaf, and forgets others where there are too many.
    pub(super) fn keep(&self, host: Host, leaf: Leaf, now: SystemTime) {
        leaf.last_asked.store(micros(now), Ordering::Relaxed);
        self.0.insert(host, leaf);
        if self.0.len() > LEAVES_MAX {
            self.forget_oldest();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn forget_oldest(&self) {
        let mut ages: Vec<(u64, Host)> = (self.0.iter())
            .map(|entry| (entry.last_asked.load(Ordering::Relaxed), entry.key().clone()))
            .collect();
        let count = ages.len().min(LEAVES_MAX / 10);
        if count == 0 {
            return;
        }
        ages.select_nth_unstable_by_key(count - 1, |(asked, _)| *asked);
        for (_, host) in &ages[..count] {
            self.0.remove(host);
        }
    }
}

/// So many names are served at once.
pub(super) const LEAVES_MAX: usize = 1_000;

fn micros(now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

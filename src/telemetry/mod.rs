//! What is told: the registry of metrics, the one record of an exchange, the log.
//!
//! An [`Exchange`] is born when a request's head is in, collects what becomes of it, and is written exactly once, on
//! drop: one set of counters, and one access line where the configuration wants it. Everything that is no exchange
//! (connections, handshakes, limits) counts on the [`Counters`] of its destination; the few things that belong to no
//! destination count on [`Telemetry`].
//!
//! The page on which the metrics are read is in `admin`; what the error types mean is in `proxy`.

use std::collections::HashMap;
use std::env;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Encoder, Registry, TextEncoder};

pub(crate) use counters::{Counters, GaugeGuard, LimitHandles};
pub(crate) use exchange::{Exchange, TakenBackAnswer};
pub(crate) use handshakes::HandshakeFailure;
pub(crate) use labels::{
    CacheStatus, CircuitState, CredentialKind, MessagePart, RefreshResult, ReloadResult, TlsSide, TunnelEnd,
};
pub(crate) use sampler::LogSampler;

use crate::config::Access;
use crate::sync::lock;

pub(crate) mod log;

mod access;
mod certificate_expiry;
mod counters;
mod exchange;
mod families;
mod handshakes;
mod instance;
mod labels;
mod process;
mod sampler;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod tests;

/// Which cryptography this build has: the label `crypto` of the build, and what `--version` says.
pub(crate) const CRYPTO: &str = match cfg!(feature = "fips") {
    true => "aws-lc-fips",
    false => "aws-lc-rs",
};

/// The content type of [`Telemetry::render`].
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every metric family, registered once. Cloning the `Arc` shares them.
pub(crate) struct Telemetry {
    access: AtomicU8,
    counters: Mutex<HashMap<Box<str>, Arc<Counters>>>,
    families: Arc<families::Families>,
    /// Of exchanges that end before their destination is known.
    none: Arc<Counters>,
    process: Option<process::Process>,
    registry: Registry,
}

/// Who gave the answer: the `answered_by` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnsweredBy {
    Cache,
    Outrider,
    Upstream,
}

impl Telemetry {
    /// All families, and what never changes: which build and which app instance this is.
    pub(crate) fn new() -> Arc<Self> {
        let registry = Registry::new();
        // Names and labels are constants of `families` and `process`, no two alike: registering cannot fail. A test
        // registers them.
        #[expect(clippy::expect_used, reason = "constants, see above")]
        let (families, process) = families::Families::register(&registry)
            .and_then(|families| Ok((Arc::new(families), process::Process::register(&registry)?)))
            .expect("metric names are well-formed and unique");
        let (application, index) = (
            env::var("VCAP_APPLICATION").ok(),
            env::var("CF_INSTANCE_INDEX").ok(),
        );
        instance::set_info(&families, application.as_deref(), index.as_deref());
        for result in ReloadResult::ALL {
            families.config_reloads.with_label_values(&[result.as_str()]);
        }
        let none = Arc::new(Counters::new(&families, NONE));
        Arc::new(Self {
            access: AtomicU8::new(Access::Errors as u8),
            counters: Mutex::new(HashMap::from([(NONE.into(), Arc::clone(&none))])),
            families,
            none,
            process,
            registry,
        })
    }

    /// The handles of one destination; the same `Arc` for the same name.
    pub(crate) fn counters(&self, destination: &str) -> Arc<Counters> {
        let mut counters = lock(&self.counters);
        if let Some(known) = counters.get(destination) {
            return Arc::clone(known);
        }
        let new = Arc::new(Counters::new(&self.families, destination));
        counters.insert(destination.into(), Arc::clone(&new));
        new
    }

    /// Which exchanges get an access line, from now on.
    pub(crate) fn set_access(&self, access: Access) {
        self.access.store(access as u8, Ordering::Relaxed);
    }

    /// A configuration came into force just now, at start or by a reload.
    pub(crate) fn config_loaded(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.families
            .config_loaded
            .set(now.as_secs().try_into().unwrap_or(i64::MAX));
    }

    /// A reload came to an end. Where it is done, [`config_loaded`](Self::config_loaded) is to be called too.
    pub(crate) fn config_reload(&self, result: ReloadResult) {
        self.families
            .config_reloads
            .with_label_values(&[result.as_str()])
            .inc();
    }

    /// A connection of the app was turned away, because there are as many as may be.
    pub(crate) fn connection_limit_reached(&self) {
        self.none.error("connection_limit_reached");
    }

    /// Whether new work is refused for want of memory.
    pub(crate) fn memory_short(&self, is_short: bool) {
        self.families.memory_short.set(is_short.into());
    }

    /// The store of the shared quotas could not be reached.
    pub(crate) fn quota_store_error(&self) {
        self.families.quota_store_errors.inc();
    }

    /// A name server was asked; `result` is `ok`, or an RFC 9209 error type.
    pub(crate) fn dns_lookup(&self, result: &'static str, duration: Duration) {
        families::observe(&self.families.dns_lookup.with_label_values(&[result]), duration);
    }

    /// The Prometheus text format, of [`CONTENT_TYPE`].
    pub(crate) fn render(&self) -> Vec<u8> {
        if let Some(process) = &self.process {
            process.sample();
        }
        let dropped = &self.families.log_lines_dropped;
        dropped.inc_by(log::dropped_lines().saturating_sub(dropped.get()));

        let mut page = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut page) {
            tracing::error!(%error, "metrics page is incomplete");
        }
        page
    }

    fn access(&self) -> Access {
        match self.access.load(Ordering::Relaxed) {
            ALL => Access::All,
            ERRORS => Access::Errors,
            _ => Access::None,
        }
    }
}

/// Nothing but the name: the registry would fill pages.
impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

impl AnsweredBy {
    const COUNT: usize = 3;

    fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Outrider => "outrider",
            Self::Upstream => "upstream",
        }
    }
}

const ALL: u8 = Access::All as u8;
const ERRORS: u8 = Access::Errors as u8;
/// The destination's name before one is known.
const NONE: &str = "none";

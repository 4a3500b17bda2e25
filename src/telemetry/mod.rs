//! Metrics, the record of each exchange, and the log.
//!
//! An [`Exchange`] begins when the head of a request has been read, collects what happens to the request, and
//! is recorded exactly once, on drop: in one set of counters, and in one access line if the configuration wants
//! it. What is not part of an exchange (connections, handshakes, limits) is counted in the [`Counters`] of its
//! destination; the few things without a destination are counted in [`Telemetry`].
//!
//! The metrics page is served by `admin`; the meaning of error types is in `proxy`.

use std::collections::HashMap;
use std::env;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Uri;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::time::Instant;

pub(crate) use clients::ClientCounters;
pub(crate) use counters::{Counters, GaugeGuard, LimitHandles, ParentCounters};
pub(crate) use exchange::{CLIENT_REFUSED, Exchange, TakenBackAnswer};
pub(crate) use handshakes::HandshakeFailure;
pub(crate) use instance::instance_index;
pub(crate) use labels::{
    CacheStatus, CircuitState, CredentialKind, MessagePart, PushResult, RefreshResult, ReloadResult, TlsSide,
    TunnelEnd,
};
pub(crate) use observed::ObservedRequest;
pub(crate) use sampler::LogSampler;

use crate::config::Access;
use crate::message::Request;
use crate::panics;
use crate::sync::lock;

use families::Families;
use observed::ObservedTraffic;
use refusals::RecentRefusals;

pub(crate) mod log;

mod access;
mod certificate_expiry;
mod clients;
mod counter_log;
mod counters;
mod exchange;
mod families;
mod handshakes;
mod instance;
mod labels;
mod observed;
mod process;
mod refusals;
mod remote_write;
mod sampler;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod tests;

/// The cryptography module of this build, for the `crypto` label and for `--version`.
pub(crate) const CRYPTO: &str = if cfg!(feature = "fips") {
    "aws-lc-fips"
} else {
    "aws-lc-rs"
};

/// The revision of the source, where the build was told.
pub(crate) const REVISION: &str = match option_env!("OUTRIDER_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// The content type of [`Telemetry::render`].
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const ACCESS_ALL: u8 = Access::All as u8;
const ACCESS_ERRORS: u8 = Access::Errors as u8;

/// The `destination` label before a destination is known.
const NO_DESTINATION: &str = "none";

/// All metrics of this process.
pub(crate) struct Telemetry {
    access: AtomicU8,
    counter_log: Mutex<counter_log::CounterLog>,
    counters: Mutex<HashMap<Arc<str>, Arc<Counters>>>,
    families: Arc<Families>,
    /// Held while counters are brought up to what was counted elsewhere: two pages at a time would count it twice.
    gathering: Mutex<()>,
    /// Counts exchanges that end before their destination is known.
    none: Arc<Counters>,
    observed: Mutex<ObservedTraffic>,
    process: Option<process::Process>,
    refusals: Mutex<RecentRefusals>,
    registry: Registry,
}

impl Telemetry {
    /// Registers all metrics, and sets those that never change: the build and the app instance.
    pub(crate) fn new() -> Arc<Self> {
        let registry = Registry::new();
        // Names and labels are constants, and no two names are alike: registering cannot fail. A test registers
        // them.
        #[expect(clippy::expect_used, reason = "constants, see above")]
        let (families, process) = Families::register(&registry)
            .and_then(|families| Ok((Arc::new(families), process::Process::register(&registry)?)))
            .expect("metric names are well-formed and unique");
        let application = env::var("VCAP_APPLICATION").ok();
        instance::set_info(&families, application.as_deref(), instance_index().as_deref());
        for result in ReloadResult::LABELS {
            families.config_reloads(result);
        }
        // From the start, so that the first one is seen as an increase.
        for reason in ["port", "unlisted"] {
            families.observed(reason);
        }
        let name: Arc<str> = NO_DESTINATION.into();
        let none = Arc::new(Counters::new(&families, &name));
        Arc::new(Self {
            access: AtomicU8::new(Access::Errors as u8),
            counter_log: Mutex::default(),
            counters: Mutex::new(HashMap::from([(name, Arc::clone(&none))])),
            families,
            gathering: Mutex::default(),
            none,
            observed: Mutex::default(),
            process,
            refusals: Mutex::default(),
            registry,
        })
    }

    /// Returns the metrics of one destination, always the same for the same name.
    pub(crate) fn counters(&self, destination: &str) -> Arc<Counters> {
        let mut counters = lock(&self.counters);
        if let Some(known) = counters.get(destination) {
            return Arc::clone(known);
        }
        let name: Arc<str> = destination.into();
        let new = Arc::new(Counters::new(&self.families, &name));
        counters.insert(name, Arc::clone(&new));
        new
    }

    /// Returns the metrics of one parent proxy, `host:port`.
    pub(crate) fn parent(&self, name: &str) -> ParentCounters {
        ParentCounters::new(&self.families, name)
    }

    /// Returns the metrics of one client of the listener.
    pub(crate) fn client(&self, name: &str) -> Arc<ClientCounters> {
        Arc::new(ClientCounters::new(&self.families, name))
    }

    /// Sets which exchanges get an access line from now on.
    pub(crate) fn set_access(&self, access: Access) {
        self.access.store(access as u8, Ordering::Relaxed);
    }

    /// Records that a configuration came into force just now, at start or by a reload.
    pub(crate) fn config_loaded(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = now.as_secs().try_into().unwrap_or(i64::MAX);
        self.families.config_loaded().set(seconds);
    }

    /// Counts a reload. After a successful one call [`config_loaded`](Self::config_loaded), too.
    pub(crate) fn config_reload(&self, result: ReloadResult) {
        self.families.config_reloads(result.as_str()).inc();
    }

    /// Counts a connection of the app that was refused because the limit of connections is reached.
    pub(crate) fn connection_limit_reached(&self) {
        self.none.error("connection_limit_reached");
    }

    /// Sets whether new work is refused for lack of memory.
    pub(crate) fn memory_short(&self, is_short: bool) {
        self.families.memory_short().set(is_short.into());
    }

    /// Puts the counters of pushes on the page, so that the first failure is seen as an increase.
    pub(crate) fn expect_pushes(&self) {
        for result in PushResult::LABELS {
            self.families.pushes(result);
        }
    }

    /// Counts a push.
    pub(crate) fn pushed(&self, result: PushResult) {
        self.families.pushes(result.as_str()).inc();
    }

    /// Counts a failure to reach the store of the shared quotas.
    pub(crate) fn quota_store_error(&self) {
        self.families.quota_store_errors().inc();
    }

    /// Records what `egress.default: deny` would have refused. `passed`: the destination answered, or a tunnel to it opened.
    fn observe(&self, request: &ObservedRequest, passed: bool) {
        self.families.observed(request.reason).inc();
        lock(&self.observed).add(request, passed, SystemTime::now());
    }

    /// Returns the page of what was observed.
    pub(crate) fn observed(&self) -> serde_json::Value {
        lock(&self.observed).page()
    }

    /// Returns the last refusals, for a page.
    pub(crate) fn refusals(&self) -> serde_json::Value {
        lock(&self.refusals).page()
    }

    /// Records a question to a name server; `result` is `ok` or an RFC 9209 error type.
    pub(crate) fn dns_lookup(&self, result: &'static str, duration: Duration) {
        families::observe(&self.families.dns_lookup(result), duration);
    }

    /// Returns the metrics page in the Prometheus text format, of [`CONTENT_TYPE`].
    pub(crate) fn render(&self) -> Vec<u8> {
        let mut page = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.gather(), &mut page) {
            tracing::error!(%error, "metrics page is incomplete");
        }
        page
    }

    /// Logs the key counters: what was counted since the last call.
    pub(crate) fn log_counters(&self) {
        lock(&self.counter_log).log(&self.gather(), Instant::now());
    }

    /// Returns the request that writes all metrics to `url`.
    pub(crate) fn remote_write(&self, url: Uri) -> Request<Bytes> {
        remote_write::request(&self.gather(), &instance::name(), url, SystemTime::now())
    }

    fn gather(&self) -> Vec<MetricFamily> {
        let _gathering = lock(&self.gathering);
        if let Some(process) = &self.process {
            process.sample();
        }
        let dropped = self.families.log_lines_dropped();
        dropped.inc_by(log::dropped_lines().saturating_sub(dropped.get()));
        let panics = self.families.panics();
        panics.inc_by(panics::count().saturating_sub(panics.get()));
        self.registry.gather()
    }

    fn access(&self) -> Access {
        match self.access.load(Ordering::Relaxed) {
            ACCESS_ALL => Access::All,
            ACCESS_ERRORS => Access::Errors,
            _ => Access::None,
        }
    }
}

/// Shows only the name: the registry would fill pages.
impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

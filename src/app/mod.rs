//! Builds everything; the one loop where anything changes.
//!
//! [`App::start`] turns a configuration into running workers. From then on [`App::run`] is the only place where
//! something changes: a signal, a changed file, too much memory. A reload compiles the whole configuration, then swaps it
//! whole; when anything is wrong the old one stays and the log and the metrics say so. Nothing that arrives at
//! run time ends the process: its exit would restart the app instance beside it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, Interval};

use crate::admin::{self, AllowedHosts, Pages};
use crate::ca;
use crate::config::{Ca, Config, Listen, Problems, Source};
use crate::drain::Drain;
use crate::policy::Policy;
use crate::proxy::{Clients, Live, LoopMarker, Proxy, Route};
use crate::store::QuotaStore;
use crate::telemetry::{CredentialKind, RefreshResult, ReloadResult, Telemetry, log};
use crate::units::rfc3339;
use crate::upstream::Endpoint;
use crate::upstream::resolve::{self, Resolver};
use crate::upstream::tls::{Lifetime, SettingsError};
use crate::worker::Workers;

use aside::{aside, look_after};
use bound::BoundSockets;
pub(crate) use host_limits::is_ignored;

mod aside;
mod bound;
mod build;
mod doors;
mod expiry;
mod host_limits;
mod notice;
mod rotation;
mod shortage;
mod watch;

/// The running proxy. Dropping it stops it where it is.
#[derive(Debug)]
pub(crate) struct App {
    addresses: Addresses,
    build: Arc<build::Builder>,
    config: Arc<Config>,
    expiries: expiry::Expiries,
    /// From before the doors are told: whoever knows of them may ask for a reload.
    hangup: host_limits::HangupSignal,
    /// The last reload failed for want of a secret that can be used; when one changes, it is tried again.
    is_reload_due: bool,
    notices: notice::Notices,
    proxy: Arc<Proxy>,
    source: Source,
    /// Counts the quotas of all instances.
    store: Option<Arc<QuotaStore>>,
    waiting: rotation::Waiting,
    watch: watch::FileWatcher,
    _workers: Workers,
    /// Dropped last: what the workers cut short at the end is still told.
    log: log::LogGuard,
}

/// Where the doors are, with the ports that the system chose.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) ca: Ca,
    pub(crate) listen: Vec<Listen>,
}

/// Why the proxy does not start. Once it runs, nothing of this ends it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot listen on {address} ({remedy})")]
    Bind {
        address: String,
        remedy: &'static str,
        source: io::Error,
    },

    #[error("destinations.{destination}")]
    Credentials {
        destination: Arc<str>,
        source: crate::auth::Error,
    },

    #[error("the local authority cannot be made")]
    Ca(#[from] ca::Error),

    #[error(transparent)]
    Config(#[from] Problems),

    #[error("dns")]
    Dns(#[from] resolve::Error),

    #[error("it panicked while the configuration was made, which is a fault of outrider; report it")]
    Panicked,

    #[error("destinations.{destination}.tls")]
    Tls {
        destination: Arc<str>,
        source: Arc<SettingsError>,
    },

    #[error("rate_limit_store")]
    Store(#[from] crate::store::StartError),

    #[error("the system refuses what a process needs to run")]
    System(#[from] io::Error),
}

impl Error {
    /// Whether a certificate and a key are not of one pair, as while they are being replaced.
    fn is_mismatch(&self) -> bool {
        let Self::Tls { source, .. } = self else {
            return false;
        };
        matches!(**source, SettingsError::KeyMismatch { .. })
    }

    fn is_of_client_certificate(&self) -> bool {
        let Self::Tls { source, .. } = self else {
            return false;
        };
        // Each of them begins with its key.
        source.to_string().starts_with("tls.client_certificate")
    }

    /// Whether other secrets would mend it.
    fn is_of_secrets(&self) -> bool {
        match self {
            Self::Credentials { .. } | Self::Store(_) | Self::Tls { .. } => true,
            Self::Bind { .. }
            | Self::Ca(_)
            | Self::Config(_)
            | Self::Dns(_)
            | Self::Panicked
            | Self::System(_) => false,
        }
    }

    fn bind(address: String, source: io::Error) -> Self {
        let remedy = match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program is there: stop it, or choose another listen or admin"
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address: choose 127.0.0.1",
            io::ErrorKind::PermissionDenied => "choose a port above 1023, or a folder that can be written",
            _ => "choose another listen or admin",
        };
        Self::Bind {
            address,
            remedy,
            source,
        }
    }
}

impl App {
    /// Starts the proxy. The admin port is served on the runtime that this is called on.
    pub(crate) async fn start(mut config: Config, source: Source, clients: Clients) -> Result<Self, Error> {
        let log = log::init(&config.log);
        host_limits::prepare_process();
        // Before anything is bound: a wrong configuration leaves nothing behind.
        let policy = Policy::compile(&config)?;
        shortage::limit(config.limits.memory);
        let bound = BoundSockets::bind(&config)?;

        let telemetry = Telemetry::new();
        telemetry.set_access(config.log.access);
        let resolver = Arc::new(Resolver::new(&config.dns, &telemetry)?);
        settle(&mut config.ca);
        let build = build::Builder::new(&config.ca, bound.own(), Arc::clone(&resolver));
        let (build, config) = (Arc::new(build), Arc::new(config));
        let started = {
            let (build, config) = (Arc::clone(&build), Arc::clone(&config));
            let (source, telemetry) = (source.clone(), Arc::clone(&telemetry));
            aside(move || start_live(policy, &config, &source, &build, &telemetry))
        };
        let (store, live, watch) = started.await?;
        let mut notices = notice::Notices::new();
        notices.follow(watch.paths()).await;

        let proxy = Arc::new(Proxy {
            clients,
            drain: Drain::default(),
            live: ArcSwap::from_pointee(live),
            resolver,
            telemetry: Arc::clone(&telemetry),
            tunnels: AtomicUsize::new(0),
            loop_marker: LoopMarker::new(),
        });
        let addresses = bound.addresses(&config.ca);
        let (listeners, admin) = bound.open()?;
        if let Some(listener) = admin {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let application = std::env::var("VCAP_APPLICATION").ok();
            let own = AllowedHosts::new(listener.local_addr().ok(), application.as_deref());
            let pages = Pages {
                drain: proxy.drain.clone(),
                limits: Arc::clone(&build.limits),
                started: SystemTime::now(),
                telemetry: Arc::clone(&telemetry),
            };
            tokio::spawn(admin::serve(listener, own, pages));
        }
        let count = config.workers.unwrap_or_else(host_limits::cpus);
        let workers = Workers::start(count, &listeners, &proxy)?;
        telemetry.config_loaded();
        Ok(Self {
            addresses,
            build,
            config,
            expiries: expiry::Expiries::default(),
            hangup: host_limits::HangupSignal::listen()?,
            is_reload_due: false,
            log,
            notices,
            proxy,
            source,
            store,
            waiting: rotation::Waiting::default(),
            watch,
            _workers: workers,
        })
    }

    pub(crate) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Keeps the proxy up to date until `end` comes true.
    pub(crate) async fn run<T>(&mut self, end: impl Future<Output = T>) -> Result<T, Error> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut end = std::pin::pin!(end);
        let mut care = std::pin::pin!(look_after(Arc::clone(&self.proxy), Arc::clone(&self.build)));
        loop {
            tokio::select! {
                ended = &mut end => return Ok(ended),
                never = &mut care => match never {},
                () = self.turn(&mut tick) => {}
            }
        }
    }

    /// Waits for the next thing that may change something, and takes it over.
    async fn turn(&mut self, tick: &mut Interval) {
        let waits = self.waiting.is_short(Instant::now());
        let stirred = async {
            match waits {
                // The other half of a pair is due any moment, whether the system gives notice or not.
                true => drop(tokio::time::timeout(AGAIN, self.notices.next()).await),
                false => self.notices.next().await,
            }
            // What belongs together comes together.
            tokio::time::sleep(SETTLED).await;
        };
        tokio::select! {
            () = self.hangup.wait() => self.reload().await,
            () = stirred => self.look().await,
            _ = tick.tick() => {
                self.look().await;
                self.tell_of_expiry();
            }
        }
    }

    /// Lets what is going on finish. The app is told to stop at the same moment and still needs its way out, so
    /// connections are accepted all the while; the end comes when it has been quiet for a moment, at the configured
    /// time, or when `now` comes true.
    pub(crate) async fn drain(&self, now: impl Future<Output = ()>) {
        self.proxy.drain.begin();
        tracing::info!(
            at_most_seconds = self.config.drain.as_secs_f32(),
            "leaving: waiting for what is going on"
        );
        let quiet = async {
            let mut last = self.proxy.drain.activity();
            let mut since = Instant::now();
            while since.elapsed() < QUIET {
                tokio::time::sleep(QUIET / 10).await;
                let activity = self.proxy.drain.activity();
                if activity.0 > 0 || activity != last {
                    since = Instant::now();
                }
                last = activity;
            }
        };
        tokio::select! {
            () = quiet => tracing::info!("left: all exchanges have finished"),
            () = tokio::time::sleep(self.config.drain) => {
                tracing::warn!(exchanges = self.proxy.drain.activity().0, "left: the time to drain is over");
            }
            () = now => tracing::warn!(exchanges = self.proxy.drain.activity().0, "left at once, as told"),
        }
        if let Some(store) = &self.store {
            store.leave().await;
        }
    }

    /// Looks at the files, and does what has to be done about them.
    async fn look(&mut self) {
        let change = self.watch.look().await;
        if change.configuration {
            self.reload().await;
        } else if change.secrets || self.waiting.is_any() {
            self.rotate().await;
        }
    }

    /// Reads everything anew and swaps it whole; or keeps what there is and says why.
    async fn reload(&mut self) {
        match self.try_reload().await {
            Ok(()) => self.reloaded(),
            Err(error) => {
                self.is_reload_due = error.is_of_secrets();
                self.proxy.telemetry.config_reload(ReloadResult::Failed);
                tracing::error!(source = %self.source, error = %log::Chain(&error), "configuration not reloaded, the old one stays");
            }
        }
        // Whatever came of it: a secret that has changed is taken over, and one that does not fit is waited for.
        self.take_secrets().await;
    }

    fn reloaded(&mut self) {
        self.is_reload_due = false;
        self.proxy.telemetry.config_reload(ReloadResult::Done);
        self.proxy.telemetry.config_loaded();
        tracing::info!(source = %self.source, "configuration reloaded");
    }

    /// Takes over secrets that have changed, under the configuration that is in force.
    async fn rotate(&mut self) {
        if self.is_reload_due && self.try_reload().await.is_ok() {
            self.reloaded();
        }
        self.take_secrets().await;
    }

    async fn take_secrets(&mut self) {
        let old = self.proxy.live.load_full();
        let rotated = {
            let (build, config, source) = (
                Arc::clone(&self.build),
                Arc::clone(&self.config),
                self.source.clone(),
            );
            let (store, telemetry) = (self.store.clone(), Arc::clone(&self.proxy.telemetry));
            let old = Arc::clone(&old);
            aside(move || {
                let rotation = build.rotate(&config, store.as_deref(), &old, &telemetry);
                let files = (rotation.live.as_ref()).map(|live| files(&source, &build, &config, live));
                Ok((rotation, files))
            })
        };
        let (rotation, files) = rotated.await.unwrap_or_else(|error| {
            tracing::error!(error = %log::Chain(&error), "changed secrets are not looked into: the old ones stay");
            Default::default()
        });
        if let Some(live) = rotation.live {
            self.proxy.live.store(Arc::new(live));
        }
        if let Some(files) = files {
            self.watch.follow(files).await;
        }
        let telemetry = &self.proxy.telemetry;
        for route in rotation.taken {
            let before = &old.route(&route.destination).endpoint;
            // Where something else of the destination has changed, there is nothing to say of its certificate.
            let life = life_of(&route.endpoint).filter(|life| life_of(before) != Some(life));
            if life.is_some() {
                (route.counters).credential_refresh(CredentialKind::ClientCertificate, RefreshResult::Done);
            }
            tracing::info!(
                destination = %route.destination.name,
                certificate = life.map(|life| life.serial.as_str()),
                expires = life.map(|life| tracing::field::display(rfc3339(life.not_after))),
                "secrets rotated"
            );
        }
        for (destination, error) in self.waiting.lasting(rotation.refused, Instant::now()) {
            telemetry.config_reload(ReloadResult::Failed);
            if error.is_of_client_certificate() {
                let kind = CredentialKind::ClientCertificate;
                (telemetry.counters(&destination)).credential_refresh(kind, RefreshResult::Failed);
            }
            tracing::warn!(
                %destination,
                error = %log::Chain(&error),
                "changed secrets cannot be used: the old ones stay, and the new ones are tried again",
            );
        }
        // A folder may be another one by now.
        self.notices.follow(self.watch.paths()).await;
    }

    fn tell_of_expiry(&mut self) {
        let live = self.proxy.live.load();
        let lives = live.routes.iter().filter_map(|route| {
            let life = life_of(&route.endpoint)?;
            Some((&route.destination.name, life))
        });
        let now = SystemTime::now();
        for (destination, life, stage) in self.expiries.look(lives, now) {
            let left = life.not_after.duration_since(now).unwrap_or_default();
            let left = Duration::from_secs(left.as_secs() / 60 * 60);
            let message = match stage {
                expiry::ExpiryStage::Over => "the client certificate has expired",
                expiry::ExpiryStage::Young | expiry::ExpiryStage::Near(_) => {
                    "the client certificate expires soon and is not renewed"
                }
            };
            tracing::warn!(
                %destination,
                certificate = life.serial,
                expires = %rfc3339(life.not_after),
                left = %humantime::format_duration(left),
                "{message}",
            );
        }
    }

    async fn try_reload(&mut self) -> Result<(), Error> {
        let old = self.proxy.live.load_full();
        let made = {
            let (build, ca, source) = (
                Arc::clone(&self.build),
                self.addresses.ca.clone(),
                self.source.clone(),
            );
            let (running, telemetry) = (self.store.clone(), Arc::clone(&self.proxy.telemetry));
            let old = Arc::clone(&old);
            aside(move || {
                let config = source.load()?;
                let policy = Policy::compile(&config)?;
                let store = build.store(&config, running.as_ref(), &telemetry)?;
                let live = build.live(policy, &config, store.as_deref(), Some(&old), &telemetry)?;
                if !Arc::ptr_eq(&live.authority, &old.authority) {
                    write_bundle(&live.authority, &build, &ca);
                }
                let files = files(&source, &build, &config, &live);
                Ok((config, store, live, files))
            })
        };
        let (config, store, live, files) = made.await?;
        if live.authority.widens(&old.authority) {
            tracing::warn!(
                bundle = %self.addresses.ca.bundle.display(),
                "more hosts are intercepted: the CA bundle is new, and apps that have read the old one must be restarted",
            );
        }
        self.warn_of_what_needs_a_restart(&config);
        self.proxy.telemetry.set_access(config.log.access);
        self.log.reload(&config.log);
        self.watch.follow(files).await;
        for route in &old.routes {
            let is_there = |new: &Arc<Route>| new.destination.name == route.destination.name;
            if !live.routes.iter().any(is_there) {
                (route.counters).credential_removed(CredentialKind::ClientCertificate);
            }
        }
        self.proxy.live.store(Arc::new(live));
        self.store = store;
        self.config = Arc::new(config);
        Ok(())
    }

    fn warn_of_what_needs_a_restart(&self, new: &Config) {
        let old = &self.config;
        let changed = [
            ("listen", old.listen != new.listen),
            ("admin", old.admin != new.admin),
            ("workers", old.workers != new.workers),
            ("dns", old.dns != new.dns),
            ("log.format", old.log.format != new.log.format),
            (
                "ca.bundle",
                // Under `exec` the default stands for a place of the command's own.
                old.ca.bundle != new.ca.bundle && new.ca.bundle != Config::embedded().ca.bundle,
            ),
        ];
        for (key, _) in changed.iter().filter(|(_, has_changed)| *has_changed) {
            tracing::warn!(key, "this change takes effect at the next start only");
        }
    }
}

/// SIGTERM or SIGINT: the platform, or a person at a terminal, wants us to leave.
#[derive(Debug)]
pub(crate) struct Termination {
    interrupt: Signal,
    last: Option<Instant>,
    terminate: Signal,
}

impl Termination {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            last: None,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next one. Some senders signal the process and its group: two within a moment are one wish.
    pub(crate) async fn wait(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
            if self.last.is_none_or(|last| last.elapsed() > ONE_WISH) {
                self.last = Some(Instant::now());
                return;
            }
        }
    }
}

/// Moves the bundle where nobody else can change it. Where there is no such place, whoever writes it says so.
fn settle(ca: &mut Ca) {
    let Ok(settled) = ca::settle(ca) else { return };
    if settled.bundle != ca.bundle || settled.truststore != ca.truststore {
        let (bundle, instead) = (settled.bundle.display(), ca.bundle.display());
        tracing::warn!(%bundle, %instead, "the CA bundle is in another place: other users could change the usual one");
    }
    *ca = settled;
}

/// Everything that is alive at the start, and the files that it was made from.
fn start_live(
    policy: Policy,
    config: &Config,
    source: &Source,
    build: &build::Builder,
    telemetry: &Arc<Telemetry>,
) -> Result<(Option<Arc<QuotaStore>>, Live, watch::FileWatcher), Error> {
    // As with a destination: what cannot be read does not keep the others from working.
    let store = build.store(config, None, telemetry).unwrap_or_else(|error| {
        tracing::error!(
            error = %log::Chain(&error),
            "no quota store: each instance keeps to its share until this is mended",
        );
        Some(Arc::new(QuotaStore::unknown()))
    });
    let live = build.live(policy, config, store.as_deref(), None, telemetry)?;
    write_bundle(&live.authority, build, &config.ca);
    let watch = watch::FileWatcher::new(files(source, build, config, &live));
    Ok((store, live, watch))
}

/// The proxy runs without its bundle, for what is not intercepted; but a person has to know.
fn write_bundle(authority: &ca::Authority, build: &build::Builder, ca: &Ca) {
    if let Err(error) = authority.write(&build.roots, &ca.bundle, &ca.truststore) {
        tracing::error!(
            error = %log::Chain(&error),
            "the CA bundle cannot be written: apps will not trust intercepted connections",
        );
    }
}

/// The client certificate that is shown there.
fn life_of(endpoint: &Endpoint) -> Option<&Lifetime> {
    endpoint.tls().ok()?.life()
}

/// The files whose change matters. The store's is the configuration's: all limits are made with it.
fn files(source: &Source, build: &build::Builder, config: &Config, live: &Live) -> watch::Files {
    let secrets = (live.policy.destinations.iter()).flat_map(|destination| build.files(destination));
    let own = source.file().map(Path::to_owned);
    watch::Files {
        configuration: own.into_iter().chain(build.store_files(config)).collect(),
        secrets: secrets.collect(),
    }
}

/// How soon after a look half of a pair is looked at again.
const AGAIN: Duration = Duration::from_millis(100);
const ONE_WISH: Duration = Duration::from_millis(50);
const QUIET: Duration = Duration::from_millis(500);
/// From the first notice of a change to the look at it.
const SETTLED: Duration = Duration::from_millis(10);
const TICK: Duration = Duration::from_secs(1);

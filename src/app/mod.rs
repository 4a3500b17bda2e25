//! The running proxy: its start, and the one loop where anything changes.
//!
//! [`App::start`] turns a configuration into running workers. From then on [`App::run`] is the only place where
//! something changes: on a signal, a changed file, too much memory. A reload compiles the whole configuration, then
//! swaps it whole; when anything is wrong the old one stays, and the log and the metrics say so. Nothing that
//! happens at run time ends the process: its exit would restart the app instance beside it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::watch as watch_channel;
use tokio::time::Instant;

use crate::admin::{self, AllowedHosts, Pages};
use crate::clients::{self, CommandClient};
use crate::config::{Ca, Config, ConfigSource, Listen};
use crate::drain::Drain;
use crate::error::ErrorChain;
use crate::panics::{self, keep_up, survived};
use crate::policy::Policy;
use crate::proxy::{HeardClients, Live, LoopMarker, Proxy, Route};
use crate::secret::Snapshot;
use crate::store::QuotaStore;
use crate::telemetry::{CredentialKind, RefreshResult, ReloadResult, Telemetry, log};
use crate::units::rfc3339;
use crate::upstream::resolve::Resolver;
use crate::worker::Workers;

use background::{in_background, maintain};
use bound::BoundSockets;
use build::Builder;
use doors::DoorListeners;
pub(crate) use error::Error;
use live::{FailedPart, Inputs, bring_up, remind, take_over};
pub(crate) use placeholders::{PlaceholderSource, is_on_platform};
use rotation::{life_of, log_rotation};
pub(crate) use signals::{Termination, is_ignored};

mod background;
mod bound;
mod build;
mod bundle;
mod doors;
mod error;
mod expiry;
mod host_limits;
mod leaving;
mod live;
mod neighbours;
mod notice;
mod placeholders;
mod reports;
mod rotation;
mod running;
mod shortage;
mod signals;
mod watch;

/// How soon after a look half of a pair is looked at again.
const AGAIN: Duration = Duration::from_millis(100);
/// How often secrets are read anew at once that change while they are read.
const MOST_READINGS: usize = 5;
/// From the first notice of a change to the look at it.
const SETTLED: Duration = Duration::from_millis(10);
const TICK: Duration = Duration::from_secs(1);
/// How often files are looked at where the system gives notice of each change.
const LONG_TICK: Duration = Duration::from_secs(20);

/// The running proxy. Dropping it stops it where it is.
#[derive(Debug)]
pub(crate) struct App {
    addresses: Addresses,
    builder: Arc<Builder>,
    config: Arc<Config>,
    /// The same, for what goes on beside the loop.
    configs: watch_channel::Sender<Arc<Config>>,
    expiries: expiry::Expiries,
    /// The last look found a change, or there was none yet. What was read then may be older than the files are now, so another
    /// look comes soon.
    has_changed: bool,
    /// Made before the addresses are known: a program that knows them may ask for a reload.
    hangup: signals::HangupSignal,
    /// The last reload failed because a secret could not be used; it is tried again when a secret changes.
    is_reload_due: bool,
    notices: notice::Notices,
    placeholders: PlaceholderSource,
    proxy: Arc<Proxy>,
    tcp: DoorListeners,
    source: ConfigSource,
    /// Counts the quotas of all instances.
    store: Option<Arc<QuotaStore>>,
    pending: rotation::PendingSecrets,
    watch: watch::FileWatcher,
    workers: Workers,
    /// Dropped last: the requests that the workers cut short at the end are still logged.
    log: log::LogGuard,
}

/// The addresses of the listeners, with the ports that the system chose.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) ca: Ca,
    pub(crate) listen: Vec<Listen>,
}

impl App {
    /// Starts the proxy. The admin port is served on the runtime that this is called on.
    pub(crate) async fn start(
        mut config: Config,
        source: ConfigSource,
        command: CommandClient,
        placeholders: PlaceholderSource,
    ) -> Result<Self, Error> {
        let log = log::init(&config.log);
        panics::report();
        host_limits::prepare_process();
        // Before anything is bound: a wrong configuration leaves nothing behind.
        let policy = Policy::compile(&config)?;
        config.forget_locations();
        shortage::limit(config.limits.memory);
        let bound = BoundSockets::bind(&config)?;
        let tcp = DoorListeners::bind(&config, &DoorListeners::default())?;

        let telemetry = Telemetry::new();
        telemetry.set_access(config.log.access);
        let resolver = Arc::new(Resolver::new(&config.dns, &telemetry)?);
        bundle::settle(&mut config.ca);
        let loop_marker = LoopMarker::new();
        let (own, marker) = (bound.own(), loop_marker.name());
        let builder = Builder::new(&config.ca, own, marker, Arc::clone(&resolver), command);
        let (builder, config) = (Arc::new(builder), Arc::new(config));
        let started = {
            let (builder, config) = (Arc::clone(&builder), Arc::clone(&config));
            let (source, placeholders) = (source.clone(), placeholders.clone());
            let (tcp, telemetry) = (tcp.clone(), Arc::clone(&telemetry));
            in_background(move || {
                start_live(
                    policy,
                    &config,
                    &source,
                    &placeholders,
                    &tcp,
                    &builder,
                    &telemetry,
                )
            })
        };
        let (store, live, watch) = started.await?;
        let mut notices = notice::Notices::new();
        notices.follow(watch.paths()).await;

        let proxy = Arc::new(Proxy {
            drain: Drain::default(),
            live: ArcSwap::from_pointee(live),
            resolver,
            telemetry: Arc::clone(&telemetry),
            tunnels: AtomicUsize::new(0),
            loop_marker,
            heard: HeardClients::default(),
            is_around_command: matches!(placeholders, PlaceholderSource::Given(_)),
        });
        let addresses = bound.addresses(&config.ca);
        let (listeners, admin) = bound.open()?;
        if let Some(listener) = admin {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let application = std::env::var("VCAP_APPLICATION").ok();
            let own = AllowedHosts::new(listener.local_addr().ok(), application.as_deref());
            let pages = Pages {
                drain: proxy.drain.clone(),
                limits: Arc::clone(&builder.limits),
                started: SystemTime::now(),
                telemetry: Arc::clone(&telemetry),
            };
            tokio::spawn(admin::serve(listener, own, pages));
        }
        let count = config.workers.unwrap_or_else(host_limits::cpus);
        let workers = Workers::start(count, &listeners, &proxy)?;
        workers.set_doors(tcp.doors());
        tcp.announce(&config, &DoorListeners::default());
        telemetry.config_loaded();
        Ok(Self {
            addresses,
            builder,
            configs: watch_channel::Sender::new(Arc::clone(&config)),
            config,
            expiries: expiry::Expiries::default(),
            has_changed: true,
            hangup: signals::HangupSignal::listen()?,
            is_reload_due: false,
            log,
            notices,
            placeholders,
            proxy,
            source,
            store,
            pending: rotation::PendingSecrets::default(),
            tcp,
            watch,
            workers,
        })
    }

    pub(crate) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Returns the last refusals, as the page /status has them.
    pub(crate) fn refusals(&self) -> serde_json::Value {
        self.proxy.telemetry.refusals()
    }

    /// Keeps the proxy up to date until `end` completes.
    pub(crate) async fn run<T>(&mut self, end: impl Future<Output = T>) -> Result<T, Error> {
        let mut end = std::pin::pin!(end);
        let (proxy, builder, configs) = (&self.proxy, &self.builder, &self.configs);
        let (proxy, builder, configs) = (Arc::clone(proxy), Arc::clone(builder), configs.clone());
        let upkeep = keep_up(|| maintain(Arc::clone(&proxy), configs.subscribe()));
        let counters = keep_up(|| reports::log_counters(Arc::clone(&proxy), configs.subscribe()));
        let pushes = keep_up(|| reports::push(Arc::clone(&proxy), Arc::clone(&builder), configs.subscribe()));
        let (mut upkeep, mut counters, mut pushes) = (
            std::pin::pin!(upkeep),
            std::pin::pin!(counters),
            std::pin::pin!(pushes),
        );
        loop {
            tokio::select! {
                ended = &mut end => return Ok(ended),
                never = &mut upkeep => match never {},
                never = &mut counters => match never {},
                never = &mut pushes => match never {},
                // A panic in it has been told of, and what was swapped was swapped whole.
                _ = survived(self.turn()) => {}
            }
        }
    }

    /// Waits for the next signal, notice or tick, and does what is due.
    async fn turn(&mut self) {
        let is_waiting = self.has_changed || self.is_reload_due || self.pending.is_any();
        let is_at_rest = self.notices.are_complete() && !is_waiting;
        let tick = tokio::time::sleep(if is_at_rest { LONG_TICK } else { TICK });
        let waits = self.pending.is_short(Instant::now());
        let changed = async {
            if waits {
                // The other half of a pair is due any moment, whether the system gives notice or not.
                let _ = tokio::time::timeout(AGAIN, self.notices.next()).await;
            } else {
                self.notices.next().await;
            }
            // Files that belong together are replaced together.
            tokio::time::sleep(SETTLED).await;
        };
        tokio::select! {
            () = self.hangup.wait() => {
                // The reload reads all files, so what has changed until now needs no second one.
                self.watch.look().await;
                self.has_changed = true;
                self.reload().await;
            }
            () = changed => self.look().await,
            () = tick => {
                self.look().await;
                self.warn_of_expiry();
            }
        }
    }

    /// Looks at the files; reloads or rotates where they have changed.
    async fn look(&mut self) {
        let change = self.watch.look().await;
        self.has_changed = change.configuration || change.secrets;
        if change.configuration {
            self.reload().await;
        } else if change.secrets || self.pending.is_any() {
            self.rotate().await;
        }
    }

    /// Reads everything anew and swaps it whole; or keeps what there is and says why.
    async fn reload(&mut self) {
        match self.try_reload().await {
            Ok(()) => self.reloaded(),
            Err(error) => {
                self.is_reload_due = error.is_of_secrets();
                // The line before the count: who sees the count finds the line.
                tracing::error!(source = %self.source, error = %ErrorChain(&error), "configuration not reloaded, the old one stays");
                self.proxy.telemetry.config_reload(ReloadResult::Failed);
            }
        }
        // Also after a failure: a secret that has changed is taken over, and one that does not fit is waited for.
        self.take_secrets().await;
    }

    fn reloaded(&mut self) {
        self.is_reload_due = false;
        tracing::info!(source = %self.source, "configuration reloaded");
        self.proxy.telemetry.config_reload(ReloadResult::Done);
        self.proxy.telemetry.config_loaded();
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
        let (mut made, mut failed) = self.read_secrets(&old).await;
        // Files that are replaced while others are read belong to another set: a token of before with an authority of now.
        for _ in 0..MOST_READINGS {
            if !self.watch.look_at_secrets().await {
                break;
            }
            (made, failed) = self.read_secrets(&old).await;
        }
        if let Some((files, live)) = made {
            let live = Arc::new(live);
            self.proxy.live.store(Arc::clone(&live));
            take_over(&live, Some(&old), &self.builder, &self.proxy.telemetry);
            self.watch.follow(files).await;
            let has_failed = |route: &Route| {
                let name = &route.destination.name;
                failed.iter().any(|failed| failed.destination == *name)
            };
            let rotated = live.rotated(&old).filter(|(route, _)| !has_failed(route));
            rotated.for_each(|(route, before)| log_rotation(route, before));
            if live.has_rotated_clients(&old) {
                tracing::info!("secrets of the listener's clients rotated");
            }
        }
        self.report(failed);
        // A folder may be another one by now.
        self.notices.follow(self.watch.paths()).await;
    }

    /// Makes what the secrets are now; `None` where none is another one. Returns the destinations that cannot use theirs, too.
    async fn read_secrets(&self, old: &Arc<Live>) -> (Option<(watch::Files, Live)>, Vec<FailedPart>) {
        let (builder, config) = (Arc::clone(&self.builder), Arc::clone(&self.config));
        let (source, store) = (self.source.clone(), self.store.clone());
        let (old, telemetry) = (Arc::clone(old), Arc::clone(&self.proxy.telemetry));
        let made = in_background(move || {
            let secrets = Snapshot::of_process();
            let inputs = Inputs {
                builder: &builder,
                config: &config,
                secrets: &secrets,
                store: store.as_deref(),
                telemetry: &telemetry,
            };
            let (policy, authority) = (Arc::clone(&old.policy), Arc::clone(&old.authority));
            let (live, failed) = bring_up(policy, authority, inputs, Some(&old));
            let is_rotated = live.rotated(&old).next().is_some() || live.has_rotated_clients(&old);
            let made = is_rotated.then(|| (files(&source, &config, &live, &secrets), live));
            Ok((made, failed))
        });
        made.await.unwrap_or_else(|error| {
            tracing::error!(error = %ErrorChain(&error), "changed secrets are not looked into: the old ones stay");
            Default::default()
        })
    }

    /// Reports destinations whose changed secrets cannot be used: at once where requests are refused, else when it
    /// lasts.
    fn report(&mut self, failed: Vec<FailedPart>) {
        let (broken, kept): (Vec<_>, Vec<_>) = failed.into_iter().partition(|failed| failed.was_broken);
        broken.iter().for_each(FailedPart::log);
        let telemetry = &self.proxy.telemetry;
        for FailedPart {
            destination, error, ..
        } in self.pending.lasting(kept, Instant::now())
        {
            tracing::warn!(
                %destination,
                error = %ErrorChain(&error),
                "changed secrets cannot be used: the old ones stay, and the new ones are tried again",
            );
            telemetry.config_reload(ReloadResult::Failed);
            if error.is_of_client_certificate() {
                let kind = CredentialKind::ClientCertificate;
                (telemetry.counters(&destination)).credential_refresh(kind, RefreshResult::Failed);
            }
        }
    }

    fn warn_of_expiry(&mut self) {
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
            let (builder, ca) = (Arc::clone(&self.builder), self.addresses.ca.clone());
            let public = self.addresses.listen.iter().find_map(Listen::public);
            let (source, placeholders) = (self.source.clone(), self.placeholders.clone());
            let (old_store, old_tcp) = (self.store.clone(), self.tcp.clone());
            let (old, telemetry) = (Arc::clone(&old), Arc::clone(&self.proxy.telemetry));
            in_background(move || {
                let mut config = source.load()?;
                let policy = Policy::compile(&config)?;
                config.forget_locations();
                let tcp = DoorListeners::bind(&config, &old_tcp)?;
                let policy = Arc::new(builder.guarded(policy, &tcp));
                let secrets = Snapshot::of_process();
                builder.update_placeholders(&placeholders, &config, &ca, &secrets);
                let store = builder.store(&config, &secrets, old_store.as_ref(), &telemetry)?;
                let authority = build::authority(&policy, &config.ca, Some(&old.authority))?;
                let inputs = Inputs {
                    builder: &builder,
                    config: &config,
                    secrets: &secrets,
                    store: store.as_deref(),
                    telemetry: &telemetry,
                };
                let (live, mut failed) = bring_up(policy, authority, inputs, Some(&old));
                let is_open = live.clients.as_ref().is_none_or(|clients| !clients.asks());
                if let Some(address) = public.filter(|_| is_open) {
                    return Err(Error::Open { address });
                }
                if let Some(first) = failed.iter().position(FailedPart::refuses_reload) {
                    return Err(failed.swap_remove(first).error.into());
                }
                failed
                    .iter()
                    .filter(|failed| !failed.is_kept)
                    .for_each(FailedPart::log);
                if !Arc::ptr_eq(&live.authority, &old.authority) {
                    bundle::write(&live.authority, &builder, &ca);
                }
                placeholders.warn_of_late_ones(&config, &secrets);
                let files = files(&source, &config, &live, &secrets);
                Ok((config, store, live, files, tcp))
            })
        };
        let (config, store, live, files, tcp) = made.await?;
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
        take_over(&live, Some(&old), &self.builder, &self.proxy.telemetry);
        remind(&live, &config);
        self.proxy.live.store(Arc::new(live));
        self.workers.set_doors(tcp.doors());
        tcp.announce(&config, &self.tcp);
        self.tcp = tcp;
        self.store = store;
        self.config = Arc::new(config);
        self.configs.send_replace(Arc::clone(&self.config));
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
                // Under `exec` the default means a place of the command.
                old.ca.bundle != new.ca.bundle && new.ca.bundle != Config::embedded().ca.bundle,
            ),
        ];
        for (key, _) in changed.iter().filter(|(_, has_changed)| *has_changed) {
            tracing::warn!(key, "this change takes effect at the next start only");
        }
    }
}

/// Everything that is alive at the start, and the files that it was made from.
fn start_live(
    policy: Policy,
    config: &Config,
    source: &ConfigSource,
    placeholders: &PlaceholderSource,
    tcp: &DoorListeners,
    builder: &Builder,
    telemetry: &Arc<Telemetry>,
) -> Result<(Option<Arc<QuotaStore>>, Live, watch::FileWatcher), Error> {
    let secrets = Snapshot::of_process();
    builder.update_placeholders(placeholders, config, &config.ca, &secrets);
    // As with a destination: what cannot be read does not keep the others from working.
    let store = (builder.store(config, &secrets, None, telemetry)).unwrap_or_else(|error| {
        tracing::error!(
            error = %ErrorChain(&error),
            "no quota store: each instance keeps to its share until this is corrected",
        );
        Some(Arc::new(QuotaStore::unknown()))
    });
    let policy = Arc::new(builder.guarded(policy, tcp));
    let authority = build::authority(&policy, &config.ca, None)?;
    let inputs = Inputs {
        builder,
        config,
        secrets: &secrets,
        store: store.as_deref(),
        telemetry,
    };
    let (live, failed) = bring_up(policy, authority, inputs, None);
    failed.iter().for_each(FailedPart::log);
    take_over(&live, None, builder, telemetry);
    remind(&live, config);
    bundle::write(&live.authority, builder, &config.ca);
    let watch = watch::FileWatcher::new(files(source, config, &live, &secrets));
    Ok((store, live, watch))
}

/// Returns the files whose change matters. The store's is the configuration's: all limits are made with it.
fn files(source: &ConfigSource, config: &Config, live: &Live, secrets: &Snapshot) -> watch::Files {
    let of_destinations = (live.policy.destinations.iter()).flat_map(|one| live::references(one, secrets));
    let references = of_destinations.chain(clients::references(config, secrets));
    let own = source.file().map(Path::to_owned);
    watch::Files {
        configuration: own
            .into_iter()
            .chain(build::store_files(config, secrets))
            .collect(),
        secrets: references
            .flat_map(|reference| secrets.files(&reference))
            .collect(),
    }
}

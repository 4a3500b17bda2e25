//! Builds everything; the one loop where anything changes.
//!
//! [`App::start`] turns a configuration into running workers. From then on [`App::run`] is the only place where
//! something changes: a signal, a changed file, too much memory. A reload compiles the whole configuration, then swaps it
//! whole; when anything is wrong the old one stays and the log and the metrics say so. Nothing that arrives at
//! run time ends the process: its exit would restart the app instance beside it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::ca;
use crate::config::{Ca, Config, Listen, Problems, Source};
use crate::drain::Drain;
use crate::policy::Policy;
use crate::proxy::{Live, Proxy};
use crate::store::Store;
use crate::telemetry::{Reload, Telemetry, log};
use crate::upstream::resolve::{self, Resolver};
use crate::worker::{Listener, Workers};

mod build;
mod doors;
mod host_limits;
mod watch;

/// The running proxy. Dropping it stops it where it is.
#[derive(Debug)]
pub(crate) struct App {
    addresses: Addresses,
    build: build::Parts,
    config: Config,
    /// From before the doors are told: whoever knows of them may ask for a reload.
    hangup: Signal,
    memory: host_limits::Memory,
    proxy: Arc<Proxy>,
    source: Source,
    /// Counts the quotas of all instances.
    store: Option<Arc<Store>>,
    watch: watch::Watch,
    _workers: Workers,
    /// Dropped last: what the workers cut short at the end is still told.
    log: log::Guard,
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

    #[error("destinations.{destination}.tls")]
    Tls {
        destination: Arc<str>,
        source: Arc<crate::upstream::tls::SettingsError>,
    },

    #[error("rate_limit_store")]
    Store(#[from] crate::store::StartError),

    #[error("the system refuses what a process needs to run")]
    System(#[from] io::Error),
}

impl Error {
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
    /// Starts the proxy. Must be called inside a tokio runtime: the operator's door is served there.
    pub(crate) fn start(config: Config, source: Source) -> Result<Self, Error> {
        let log = log::init(&config.log);
        host_limits::prepare_process();
        // Before anything is bound: a wrong configuration leaves nothing behind.
        let policy = Policy::compile(&config)?;
        let bound = Bound::bind(&config)?;

        let telemetry = Telemetry::new();
        telemetry.set_access(config.log.access);
        let resolver = Arc::new(Resolver::new(&config.dns, &telemetry)?);
        let build = build::Parts::new(&config.ca, bound.own(), Arc::clone(&resolver));
        // As with a destination: what cannot be read does not keep the others from working.
        let store = build.store(&config, None, &telemetry).unwrap_or_else(|error| {
            tracing::error!(
                error = %log::Chain(&error),
                "no quota store: each instance keeps to its share until this is mended",
            );
            Some(Arc::new(Store::unknown()))
        });
        let live = build.live(policy, &config, store.as_deref(), None, &telemetry)?;
        write_bundle(&live.authority, &build, &config.ca);
        let watch = watch::Watch::new(files(&source, &build, &config, &live));

        let proxy = Arc::new(Proxy {
            drain: Drain::default(),
            live: ArcSwap::from_pointee(live),
            is_short_of_memory: AtomicBool::new(false),
            resolver,
            telemetry: Arc::clone(&telemetry),
            tunnels: AtomicUsize::new(0),
            via: via(),
        });
        let addresses = bound.addresses(&config.ca);
        let (listeners, admin) = bound.open()?;
        if let Some(listener) = admin {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(crate::admin::serve(
                listener,
                Arc::clone(&telemetry),
                proxy.drain.clone(),
            ));
        }
        let count = config.workers.unwrap_or_else(host_limits::cpus);
        let workers = Workers::start(count, &listeners, &proxy)?;
        telemetry.config_loaded();
        let memory = host_limits::Memory::of(config.limits.memory);
        Ok(Self {
            addresses,
            build,
            config,
            hangup: signal(SignalKind::hangup())?,
            log,
            memory,
            proxy,
            source,
            store,
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
        loop {
            tokio::select! {
                ended = &mut end => return Ok(ended),
                _ = self.hangup.recv() => self.reload(),
                _ = tick.tick() => {
                    let is_short = self.memory.is_short();
                    self.proxy.is_short_of_memory.store(is_short, Ordering::Relaxed);
                    if is_short {
                        let live = self.proxy.live.load();
                        live.routes.iter().filter_map(|route| route.cache.as_ref()).for_each(|cache| cache.clear());
                    }
                    self.build.limits.observe();
                    if self.watch.has_changed() {
                        self.reload();
                    }
                }
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

    /// Reads everything anew and swaps it whole; or keeps what there is and says why.
    fn reload(&mut self) {
        match self.try_reload() {
            Ok(()) => {
                self.proxy.telemetry.config_reload(Reload::Done);
                self.proxy.telemetry.config_loaded();
                tracing::info!(source = %self.source, "configuration reloaded");
            }
            Err(error) => {
                self.proxy.telemetry.config_reload(Reload::Failed);
                tracing::error!(source = %self.source, error = %log::Chain(&error), "configuration not reloaded, the old one stays");
            }
        }
    }

    fn try_reload(&mut self) -> Result<(), Error> {
        let config = self.source.load()?;
        let policy = Policy::compile(&config)?;
        self.build.refresh();
        let old = self.proxy.live.load_full();
        let telemetry = &self.proxy.telemetry;
        let store = self.build.store(&config, self.store.as_ref(), telemetry)?;
        let live = (self.build).live(policy, &config, store.as_deref(), Some(&old), telemetry)?;
        if !Arc::ptr_eq(&live.authority, &old.authority) {
            write_bundle(&live.authority, &self.build, &self.addresses.ca);
            if live.authority.widens(&old.authority) {
                tracing::warn!(
                    bundle = %self.addresses.ca.bundle.display(),
                    "more hosts are intercepted: the CA bundle is new, and apps that have read the old one must be restarted",
                );
            }
        }
        self.warn_of_what_needs_a_restart(&config);
        self.proxy.telemetry.set_access(config.log.access);
        self.log.reload(&config.log);
        self.watch
            .follow(files(&self.source, &self.build, &config, &live));
        self.memory = host_limits::Memory::of(config.limits.memory);
        self.proxy.live.store(Arc::new(live));
        self.store = store;
        self.config = config;
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

/// Sockets that have their addresses but do not accept yet.
struct Bound {
    admin: Option<socket2::Socket>,
    tcp: Vec<(socket2::Socket, SocketAddr)>,
    unix: Vec<(std::os::unix::net::UnixListener, PathBuf)>,
}

impl Bound {
    fn bind(config: &Config) -> Result<Self, Error> {
        let mut bound = Self {
            admin: None,
            tcp: Vec::new(),
            unix: Vec::new(),
        };
        for listen in &config.listen {
            match listen {
                Listen::Tcp(address) => bound.tcp.push(bind_tcp(*address)?),
                Listen::Unix(path) => bound.unix.push((bind_unix(path)?, path.clone())),
            }
        }
        bound.admin = config.admin.map(bind_tcp).transpose()?.map(|(socket, _)| socket);
        Ok(bound)
    }

    /// Our own addresses, which must never be dialled.
    fn own(&self) -> Vec<SocketAddr> {
        let admin = self.admin.as_ref().and_then(local_address);
        self.tcp
            .iter()
            .map(|(_, address)| *address)
            .chain(admin)
            .collect()
    }

    fn addresses(&self, ca: &Ca) -> Addresses {
        let tcp = self.tcp.iter().map(|(_, address)| Listen::Tcp(*address));
        let unix = self.unix.iter().map(|(_, path)| Listen::Unix(path.clone()));
        Addresses {
            admin: self.admin.as_ref().and_then(local_address),
            ca: ca.clone(),
            listen: tcp.chain(unix).collect(),
        }
    }

    fn open(self) -> io::Result<(Vec<Listener>, Option<std::net::TcpListener>)> {
        let mut listeners = Vec::new();
        for (socket, _) in self.tcp {
            socket.listen(BACKLOG)?;
            listeners.push(Listener::Tcp(socket.into()));
        }
        listeners.extend(
            self.unix
                .into_iter()
                .map(|(listener, _)| Listener::Unix(listener)),
        );
        let admin = self
            .admin
            .map(|socket| socket.listen(BACKLOG).map(|()| socket.into()))
            .transpose()?;
        Ok((listeners, admin))
    }
}

fn bind_tcp(address: SocketAddr) -> Result<(socket2::Socket, SocketAddr), Error> {
    let bind = || {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM.cloexec().nonblocking(),
            None,
        )?;
        // After a restart the old connections of the port may linger.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        let local = local_address(&socket).unwrap_or(address);
        Ok((socket, local))
    };
    bind().map_err(|source| Error::bind(address.to_string(), source))
}

fn bind_unix(path: &Path) -> Result<std::os::unix::net::UnixListener, Error> {
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::{UnixListener, UnixStream};
    let bind = || match UnixListener::bind(path) {
        // A socket file that nobody answers at is what a crash left behind. Any other file is somebody's.
        Err(error)
            if error.kind() == io::ErrorKind::AddrInUse
                && std::fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket())
                && UnixStream::connect(path).is_err() =>
        {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        result => result,
    };
    bind().map_err(|source| Error::bind(format!("unix:{}", path.display()), source))
}

fn local_address(socket: &socket2::Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

/// The proxy runs without its bundle, for what is not intercepted; but a person has to know.
fn write_bundle(authority: &ca::Authority, build: &build::Parts, ca: &Ca) {
    if let Err(error) = authority.write(&build.roots, &ca.bundle, &ca.truststore) {
        tracing::error!(
            error = %log::Chain(&error),
            "the CA bundle cannot be written: apps will not trust intercepted connections",
        );
    }
}

/// The files whose change means a reload.
fn files(source: &Source, build: &build::Parts, config: &Config, live: &Live) -> Vec<PathBuf> {
    let secrets = live
        .policy
        .destinations
        .iter()
        .flat_map(|destination| build.files(destination));
    source
        .file()
        .map(Path::to_owned)
        .into_iter()
        .chain(secrets)
        .chain(build.store_files(config))
        .collect()
}

/// Different in each process, so that a request that comes back is known, and a chain of proxies is not mistaken for one.
fn via() -> HeaderValue {
    let text = format!("1.1 outrider-{:016x}", rand::random::<u64>());
    // Letters, digits, a blank and a dash are always a field value.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("1.1 outrider"))
}

const BACKLOG: i32 = 1024;
const ONE_WISH: Duration = Duration::from_millis(50);
const QUIET: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dead_socket_makes_way_for_a_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("door");
        std::fs::write(&path, "somebody's").unwrap();
        assert!(bind_unix(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's");

        std::fs::remove_file(&path).unwrap();
        let first = bind_unix(&path).unwrap();
        assert!(bind_unix(&path).is_err(), "somebody answers there");
        drop(first);
        assert!(bind_unix(&path).is_ok(), "nobody does any more");
    }
}

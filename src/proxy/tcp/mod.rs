//! A connection of a local port (`tcp`): clear text from the app, TLS to the server.
//!
//! Reads as the life of the connection: what the app says first, a place and a permit, the way to the server, the words
//! before TLS, TLS, the words after it, and then bytes in both directions. A failure is told to the app in the words of
//! its protocol, where that has any, and to the log with its reason. It is recorded as a tunnel of the entry.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Uri};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::tunnel::{self, TunnelSlot};
use super::{Error, Live, Proxy, Route};
use crate::config::TcpKeys;
use crate::limit::Permit;
use crate::memory;
use crate::starttls::{TLS_REFUSAL, Upgrade, UpgradeFault};
use crate::stream::{Io, Reset as _};
use crate::telemetry::{Exchange, TlsSide, TunnelEnd};
use crate::upstream::link::{OpenedLink, Way};
use crate::upstream::{self, connect, tls};

use join::Broken;

mod join;

/// How long the app may take to read why it is refused, and how much of what it sends meanwhile is read.
const LAST_WORDS: Duration = Duration::from_secs(5);
const LAST_READ: u64 = 64 * 1024;

/// What a connection holds until its end.
struct Held {
    _permit: Option<Permit>,
    _slot: TunnelSlot,
}

/// One connection on its way.
struct Passage<'p> {
    entry: &'p TcpKeys,
    exchange: Box<Exchange>,
    live: Arc<Live>,
    /// The server has shown its certificate.
    is_secured: bool,
    proxy: &'p Arc<Proxy>,
    route: Arc<Route>,
    upgrade: Upgrade,
    /// How the server is reached, once it is.
    way: Option<Way>,
}

/// A connection to a server, with or without TLS.
trait ServerStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ServerStream for T {}

/// Serves a connection that came in by the port of the entry `name`. `place` is dropped once the connection counts as a
/// tunnel.
pub(crate) async fn serve<P>(mut app: Io, name: &str, place: P, proxy: &Arc<Proxy>) {
    let live = proxy.live.load_full();
    let found = live
        .policy
        .tcp(name)
        .map(|destination| Arc::clone(live.route(destination)));
    // None where the entry went away in this moment.
    let Some(route) = found else { return };
    let destination = Arc::clone(&route.destination);
    let Some(entry) = &destination.tcp else { return };
    let busy = proxy.drain.busy();
    // A host and a port are a URI in authority form.
    let uri = entry.to.to_string().parse().unwrap_or_else(|_| Uri::default());
    let mut exchange = Exchange::begin(&proxy.telemetry, &Method::CONNECT, &uri);
    exchange.set_destination(&route.counters);
    let mut passage = Passage {
        entry,
        exchange,
        live,
        is_secured: false,
        proxy,
        route,
        upgrade: Upgrade::new(entry.starttls),
        way: None,
    };
    let opened = passage.open(&mut app).await;
    drop(place);
    drop(busy);
    match opened {
        Ok((server, held)) => {
            passage.join(app, server).await;
            drop(held);
        }
        Err(error) => passage.refuse(app, &error).await,
    }
}

impl Passage<'_> {
    /// Opens the way to the server, up to the moment from which bytes pass unchanged.
    async fn open(&mut self, app: &mut Io) -> Result<(Box<dyn ServerStream>, Held), Error> {
        let limits = self.route.destination.timeouts;
        let slot = TunnelSlot::take(
            self.proxy,
            self.live.limits.tunnels,
            memory::REQUEST + memory::INTERCEPTED,
        )?;
        let heard = timeout(limits.response, self.upgrade.hear(app)).await;
        self.said(heard, limits.response)?;
        let held = Held {
            _permit: tunnel::admit(&self.entry.to, &self.route, &mut self.exchange).await?,
            _slot: slot,
        };
        self.exchange.asked_upstream();
        let endpoint = &self.route.endpoint;
        // Before dialling: without settings there is no use in a connection.
        let settings = match self.entry.tls {
            Some(_) => Some(endpoint.tls()?),
            None => None,
        };
        let opened = connect::open(&self.entry.to, endpoint, self.proxy.network(&self.live)).await;
        held._permit.iter().for_each(Permit::used);
        let OpenedLink { link, way } = opened?;
        self.way = Some(way);
        let Some(settings) = settings else {
            self.exchange.tunnel();
            return Ok((Box::new(link), held));
        };

        let mut server = link;
        let asked = timeout(limits.response, self.upgrade.ask(app, &mut server)).await;
        self.said(asked, limits.response)?;
        let (host, started) = (&self.entry.to.host, Instant::now());
        let secured = settings
            .connect_bare(server, host, self.upgrade.alpn(), limits.tls)
            .await;
        let secured = secured.map_err(|error| error.of_tcp(self.entry.starttls.is_some()));
        let mut server = secured.map_err(upstream::Error::from)?.stream;
        let counters = &endpoint.counters;
        counters.tls_handshake(TlsSide::Upstream, started.elapsed());
        tls::tell(
            server.connection(),
            &self.entry.to,
            &endpoint.destination.name,
            counters,
        );

        self.is_secured = true;
        self.exchange.tunnel();
        let host = self.entry.to.host.to_string();
        // A login of MySQL may wait for a person.
        let limit = if self.upgrade.is_mysql() {
            limits.idle
        } else {
            limits.response
        };
        let begun = timeout(limit, self.upgrade.begin(&host, app, &mut server)).await;
        match self.said(begun, limit) {
            Ok(()) => Ok((Box::new(server), held)),
            Err(Error::StartTls {
                fault: UpgradeFault::Server(error),
                ..
            }) => Err(self.closed(error, false)),
            Err(error) => Err(error),
        }
    }

    /// Returns the error of words that failed, or took longer than `limit`.
    fn said<E>(&self, result: Result<Result<(), UpgradeFault>, E>, limit: Duration) -> Result<(), Error> {
        let fault = match result {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(fault)) => fault,
            Err(_) if self.upgrade.waits_for_app() => UpgradeFault::AppTimeout { limit },
            Err(_) => UpgradeFault::Timeout { limit },
        };
        let host = self.entry.to.host.clone();
        Err(Error::StartTls { host, fault })
    }

    /// Returns the error of a server that closes the connection once TLS is up. In TLS 1.3 it refuses a certificate so.
    fn closed(&self, error: io::Error, has_answered: bool) -> Error {
        let host = &self.entry.to.host;
        let settings = self.route.endpoint.tls().ok();
        match settings.and_then(|settings| settings.explain(&error, host)) {
            Some(error) => Error::Upstream(error.into()),
            None => Error::StartTls {
                host: host.clone(),
                fault: if has_answered {
                    UpgradeFault::Server(error)
                } else {
                    UpgradeFault::Late(error)
                },
            },
        }
    }

    /// Moves bytes until both sides have ended.
    async fn join(mut self, mut app: Io, server: Box<dyn ServerStream>) {
        let (idle, is_tls) = (self.route.destination.timeouts.idle, self.entry.tls.is_some());
        let ending = join::join(
            &mut app,
            server,
            &mut self.exchange,
            idle,
            is_tls,
            is_tls && self.upgrade.is_unanswered(),
            &self.proxy.drain,
        )
        .await;
        self.exchange.tunnel_ended(ending.end);
        if let Some(way) = self.way.take() {
            way.ended(ending.received + u64::from(self.is_secured));
        }
        let error = match ending.broken {
            None => return,
            // It went away; the server sees no orderly end either.
            Some(Broken::App) => return,
            Some(Broken::AppSpeaksTls) => Error::StartTls {
                host: self.entry.to.host.clone(),
                fault: UpgradeFault::AppSpeaksTls,
            },
            Some(Broken::Server(error)) => self.closed(error, ending.received > 0),
        };
        self.exchange.cut(error.proxy_status());
        self.exchange.explain(&error.to_string());
        let words = match &error {
            Error::StartTls {
                fault: UpgradeFault::AppSpeaksTls,
                ..
            } => TLS_REFUSAL.to_vec(),
            _ if ending.received == 0 => self.upgrade.late_refusal(&error.to_string()),
            _ => Vec::new(),
        };
        last_words(app, &words).await;
    }

    /// Tells the app and the log why there is no connection.
    async fn refuse(mut self, app: Io, error: &Error) {
        tracing::debug!(error = error as &dyn std::error::Error, "refused");
        let detail = error.to_string();
        if let Some(way) = self.way.take().filter(|_| is_closed(error)) {
            way.ended(u64::from(self.is_secured));
        }
        let words = match error {
            // Somebody looked whether the port is open.
            Error::StartTls {
                fault: UpgradeFault::AppSilent,
                ..
            } => return self.exchange.discard(),
            Error::StartTls {
                fault: UpgradeFault::AppSpeaksTls,
                ..
            } if !self.upgrade.is_mysql() => TLS_REFUSAL.to_vec(),
            _ => self.upgrade.refusal(&detail),
        };
        self.exchange
            .refused(error.status(), error.proxy_status(), error.reason());
        self.exchange.explain(&detail);
        self.exchange.tunnel_ended(TunnelEnd::Failed);
        drop(self.exchange);
        last_words(app, &words).await;
    }
}

/// Whether the way to the server ended before a word of it.
fn is_closed(error: &Error) -> bool {
    let closed = |fault: &UpgradeFault| matches!(fault, UpgradeFault::Server(_));
    matches!(error, Error::StartTls { fault, .. } if closed(fault))
        || matches!(
            error,
            Error::Upstream(upstream::Error::Tls(tls::Error::Closed { .. }))
        )
}

/// Writes the last that the app gets. What it has sent is read: a socket with unread bytes is reset, and takes our words
/// with it. Without words the reset is meant.
async fn last_words(mut app: Io, words: &[u8]) {
    if words.is_empty() {
        return app.reset();
    }
    let told = async {
        app.write_all(words).await?;
        app.shutdown().await?;
        tokio::io::copy(&mut (&mut app).take(LAST_READ), &mut tokio::io::sink()).await
    };
    let _ = timeout(LAST_WORDS, told).await;
}

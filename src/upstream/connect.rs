//! Makes a new connection: resolve → approve → dial → TLS → HTTP.

use std::sync::Arc;

use http::HeaderValue;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::link::{Link, OpenedLink, Stream, Way};
use super::parent::{Reached, Wanted};
use super::pool::{self, ActiveConnection, ConnectionInfo, PooledConnection};
use super::read_to_end::ReadToEnd;
use super::{DialContext, Endpoint, Error, Protocol, dial, tls};
use crate::host::{Host, Scheme, Target};
use crate::memory::MEMORY;
use crate::policy::{Approved, Denial};
use crate::telemetry::TlsSide;

/// Opens a connection to `target` for a tunnel: a socket, or a stream through a parent.
pub(crate) async fn open(
    target: &Target,
    endpoint: &Endpoint,
    network: DialContext<'_>,
) -> Result<OpenedLink, Error> {
    let reached = counted(bare(target, endpoint, network, Wanted::Tunnel).await, endpoint)?;
    Ok(OpenedLink {
        link: reached.link,
        way: Way(reached.via),
    })
}

/// Opens a UDP socket that exchanges packets with `target` only. No parent carries UDP, and nothing goes around one.
pub(crate) async fn open_udp(
    target: &Target,
    endpoint: &Endpoint,
    network: DialContext<'_>,
) -> Result<UdpSocket, Error> {
    if endpoint.parents_of(target)?.is_some() {
        let destination = Arc::clone(&endpoint.destination.name);
        return Err(Denial::UdpBehindParent { destination }.into());
    }
    let opened = async {
        let approved = approve(target, network).await?;
        Ok(dial::udp(&approved, endpoint.destination.timeouts.connect).await?)
    };
    counted(opened.await, endpoint)
}

/// Counts an attempt to connect, and whether it succeeded.
fn counted<T>(result: Result<T, Error>, endpoint: &Endpoint) -> Result<T, Error> {
    endpoint.counters.upstream_connect(match &result {
        Ok(_) => "ok",
        Err(error) => error.proxy_status(),
    });
    result
}

/// Connects to `target`, or to the parent that it is behind.
async fn bare(
    target: &Target,
    endpoint: &Endpoint,
    network: DialContext<'_>,
    wanted: Wanted,
) -> Result<Reached, Error> {
    if let Some(parents) = endpoint.parents_of(target)? {
        // Boxed: who has no parent does not pay for its state.
        return Box::pin(parents.open(target, &endpoint.destination.timeouts, network, wanted)).await;
    }
    let approved = approve(target, network).await?;
    let stream = dial::dial(&approved, endpoint.destination.timeouts.connect).await?;
    Ok(Reached {
        link: Link::Tcp(stream),
        until: None,
        via: None,
    })
}

/// Returns the addresses of `target`, if they may be dialled.
async fn approve(target: &Target, network: DialContext<'_>) -> Result<Approved, Error> {
    Ok(match &target.host {
        Host::Name(name) => {
            let resolved = network.resolver.resolve(name).await?;
            network.egress.approve(&resolved, target.port)?
        }
        Host::V4(address) => network.egress.approve(&[(*address).into()], target.port)?,
        Host::V6(address) => network.egress.approve(&[(*address).into()], target.port)?,
    })
}

/// Opens an HTTP connection to `target`. A task of this worker drives an HTTP/2 connection, for all requests that share it.
pub(super) async fn connect(
    target: &Target,
    protocol: Protocol,
    endpoint: &Arc<Endpoint>,
    network: DialContext<'_>,
) -> Result<ActiveConnection, Error> {
    counted(ready(target, protocol, endpoint, network).await, endpoint)
}

/// Makes a connection that is ready for requests, with TLS and the preface of HTTP/2.
async fn ready(
    target: &Target,
    protocol: Protocol,
    endpoint: &Arc<Endpoint>,
    network: DialContext<'_>,
) -> Result<ActiveConnection, Error> {
    let alpn = endpoint.alpn(protocol);
    let mut info = ConnectionInfo {
        key: (endpoint.id, alpn),
        target: target.clone(),
        authority: authority_of(target),
        until: pool::until(None),
        endpoint: Arc::clone(endpoint),
        is_closed: Arc::default(),
        via: None,
    };
    match target.scheme {
        Scheme::Http => {
            let wanted = match alpn {
                tls::Alpn::H1 => Wanted::Forwarding,
                tls::Alpn::H2 | tls::Alpn::Either => Wanted::Tunnel,
            };
            let Reached { link, until, via } = bare(target, endpoint, network, wanted).await?;
            info.until = pool::until(until);
            info.via = via;
            match alpn {
                tls::Alpn::H1 => Ok(h1(Stream::Clear(link), info)),
                // HTTP/2 without TLS is not negotiated: the configuration demands it, or the app speaks it itself.
                tls::Alpn::H2 | tls::Alpn::Either => h2(link, info).await,
            }
        }
        Scheme::Https => {
            // Before dialling: without settings there is no use in a connection.
            let settings = endpoint.tls()?;
            let reached = bare(target, endpoint, network, Wanted::Tunnel).await?;
            let started = Instant::now();
            let tls::Secured { stream, until } = settings
                .connect(reached.link, target, alpn, endpoint.destination.timeouts.tls)
                .await
                .map_err(|error| match &reached.via {
                    Some(via) => via.handshake(error),
                    None => error.into(),
                })?;
            info.until = pool::until(Some(reached.until.map_or(until, |first| first.min(until))));
            info.via = reached.via;
            endpoint
                .counters
                .tls_handshake(TlsSide::Upstream, started.elapsed());
            let connection = stream.connection();
            tls::tell(connection, target, &endpoint.destination.name, &endpoint.counters);
            let chosen = connection.alpn_protocol();
            if alpn == tls::Alpn::Either && chosen != Some(b"h2") {
                // It serves requests that offer only HTTP/1.1 as well.
                info.key.1 = tls::Alpn::H1;
                pool::learn((endpoint.id, tls::Alpn::Either), target, Protocol::H1);
            }
            match (chosen, alpn) {
                (Some(b"h2"), _) => h2(stream, info).await,
                (_, tls::Alpn::H2) => Err(Error::Version),
                (_, tls::Alpn::H1 | tls::Alpn::Either) => Ok(h1(Stream::Tls(Box::new(stream)), info)),
            }
        }
    }
}

fn h1(stream: Stream, info: ConnectionInfo) -> ActiveConnection {
    let open = info.endpoint.counters.upstream_connection();
    ActiveConnection::H1(Box::new(PooledConnection::new(stream, info, open)))
}

async fn h2<T>(stream: T, info: ConnectionInfo) -> Result<ActiveConnection, Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window())
        .max_header_list_size(info.endpoint.destination.response_fields.list_size())
        .handshake(TokioIo::new(ReadToEnd::new(stream, Arc::clone(&info.is_closed))))
        .await
        .map_err(|error| Error::of_hyper(error, &info.target.host, &info.endpoint))?;
    let open = info.endpoint.counters.upstream_connection();
    tokio::spawn(async move {
        let _open = open;
        let _ = connection.await;
    });
    Ok(ActiveConnection::h2(info, sender))
}

/// The target as a Host field names it: without the port that its scheme implies.
pub(crate) fn authority_of(target: &Target) -> HeaderValue {
    let implied = match target.scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    };
    let text = if target.port == implied {
        target.host.to_string()
    } else {
        target.to_string()
    };
    // A parsed host is visible ASCII, so this never fails; an empty field would be refused by any server.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Returns what all streams of a connection may send ahead. Answers that the app does not read hold their part of it, and
/// must leave some for the other requests; where memory is short, there is less of both.
fn connection_window() -> u32 {
    let part = MEMORY.ceiling().map(|ceiling| ceiling / CONNECTIONS);
    let part = part
        .and_then(|bytes| u32::try_from(bytes).ok())
        .unwrap_or(LARGEST_WINDOW);
    part.clamp(16 * STREAM_WINDOW, LARGEST_WINDOW)
}

const STREAM_WINDOW: u32 = 64 * 1024;
/// 256 streams.
const LARGEST_WINDOW: u32 = 256 * STREAM_WINDOW;
/// So many connections may fill their windows.
const CONNECTIONS: usize = 32;

//! A new connection: resolve → approve → dial → TLS → HTTP.

use std::sync::Arc;

use http::HeaderValue;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::pool::{self, Held, Lease, Link};
use super::read_to_end::ReadToEnd;
use super::{Endpoint, Error, Mirror, Ways, dial, tls};
use crate::host::{Host, Scheme, Target};
use crate::stream::Socket;
use crate::telemetry::TlsSide;

/// A connection to an upstream, in the clear or not.
pub(crate) type Stream = Socket<Box<tls::Session<TcpStream>>>;

/// Opens a bare connection to `target`, for a tunnel.
pub(crate) async fn open(target: &Target, endpoint: &Endpoint, ways: Ways<'_>) -> Result<TcpStream, Error> {
    counted(bare(target, endpoint, ways).await, endpoint)
}

/// Counts an attempt to connect, by whether the bytes of a tunnel or a request can go out now.
fn counted<T>(result: Result<T, Error>, endpoint: &Endpoint) -> Result<T, Error> {
    endpoint.counters.upstream_connect(match &result {
        Ok(_) => "ok",
        Err(error) => error.proxy_status(),
    });
    result
}

async fn bare(target: &Target, endpoint: &Endpoint, ways: Ways<'_>) -> Result<TcpStream, Error> {
    let limit = endpoint.destination.timeouts.connect;
    let approved = match &target.host {
        Host::Name(name) => {
            let resolved = ways.resolver.resolve(name).await?;
            ways.egress.approve(&resolved, target.port)?
        }
        Host::V4(address) => ways.egress.approve(&[(*address).into()], target.port)?,
        Host::V6(address) => ways.egress.approve(&[(*address).into()], target.port)?,
    };
    Ok(dial::dial(&approved, limit).await?)
}

/// Opens an HTTP connection to `target`. One that speaks HTTP/2 is driven by a task of this worker, for all who share it.
pub(super) async fn connect(
    target: &Target,
    mirror: Mirror,
    endpoint: &Arc<Endpoint>,
    ways: Ways<'_>,
) -> Result<Lease, Error> {
    counted(ready(target, mirror, endpoint, ways).await, endpoint)
}

/// Makes a connection ready for requests, TLS and the preface of HTTP/2 included.
async fn ready(
    target: &Target,
    mirror: Mirror,
    endpoint: &Arc<Endpoint>,
    ways: Ways<'_>,
) -> Result<Lease, Error> {
    let alpn = endpoint.alpn(mirror);
    let mut link = Link {
        shelf: (endpoint.id, alpn),
        target: target.clone(),
        authority: authority_of(target),
        until: pool::until(None),
        endpoint: Arc::clone(endpoint),
        is_closed: Arc::default(),
    };
    match target.scheme {
        Scheme::Http => {
            let stream = bare(target, endpoint, ways).await?;
            match alpn {
                tls::Alpn::H1 => Ok(h1(Stream::Tcp(stream), link)),
                // Nothing negotiates HTTP/2 in clear: the configuration says so, or the app, which speaks it itself, knows.
                tls::Alpn::H2 | tls::Alpn::Either => h2(stream, link).await,
            }
        }
        Scheme::Https => {
            // Before dialling: without settings there is nothing to say to the upstream.
            let settings = endpoint.tls()?;
            let stream = bare(target, endpoint, ways).await?;
            let started = Instant::now();
            let tls::Secured { stream, until } = settings
                .connect(stream, target, alpn, endpoint.destination.timeouts.tls)
                .await?;
            link.until = pool::until(Some(until));
            endpoint
                .counters
                .tls_handshake(TlsSide::Upstream, started.elapsed());
            let connection = stream.connection();
            tls::tell(connection, target, &endpoint.destination.name, &endpoint.counters);
            let chosen = connection.alpn_protocol();
            if alpn == tls::Alpn::Either && chosen != Some(b"h2") {
                // What the upstream chose serves whoever would have offered only that.
                link.shelf.1 = tls::Alpn::H1;
                pool::learn((endpoint.id, tls::Alpn::Either), target, Mirror::H1);
            }
            match (chosen, alpn) {
                (Some(b"h2"), _) => h2(stream, link).await,
                (_, tls::Alpn::H2) => Err(Error::Version),
                (_, tls::Alpn::H1 | tls::Alpn::Either) => Ok(h1(Stream::Other(Box::new(stream)), link)),
            }
        }
    }
}

fn h1(stream: Stream, link: Link) -> Lease {
    let open = link.endpoint.counters.upstream_connection();
    Lease::H1(Box::new(Held::new(stream, link, open)))
}

async fn h2<T>(stream: T, link: Link) -> Result<Lease, Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(link.endpoint.destination.response_fields.list_size())
        .handshake(TokioIo::new(ReadToEnd::new(stream, Arc::clone(&link.is_closed))))
        .await
        .map_err(|error| Error::of_hyper(error, &link.target.host, &link.endpoint))?;
    let open = link.endpoint.counters.upstream_connection();
    tokio::spawn(async move {
        let _open = open;
        let _ = connection.await;
    });
    Ok(Lease::h2(link, sender))
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

const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

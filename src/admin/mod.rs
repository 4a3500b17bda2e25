//! The door for the operator: /metrics, /healthz, /readyz, /status.
//!
//! One small HTTP/1 server beside the proxy, with bounds of its own: so many connections, one request each, a short
//! time for everything. Whoever scrapes slowly, or never reads, holds one page for some seconds and nothing else.
//! The door only tells; nothing can be changed through it, and nothing of a request to it is ever echoed. No web
//! page can read it: it answers only to its [`AllowedHosts`] names, and never says that another origin may read.
//!
//! What the figures mean is in `telemetry`, what is believed of limits in `limit`; who says that we are leaving is in
//! `drain`.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time;

use crate::drain::Drain;
use crate::limit::Limiters;
use crate::memory::MEMORY;
use crate::telemetry::{self, Telemetry};

pub(crate) use allowed_hosts::AllowedHosts;
use allowed_hosts::HostRejection;

mod allowed_hosts;
mod status;
#[cfg(test)]
mod tests;

/// What the pages are written from.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    pub(crate) drain: Drain,
    pub(crate) limits: Arc<Limiters>,
    pub(crate) started: SystemTime,
    pub(crate) telemetry: Arc<Telemetry>,
}

/// Whether new work is welcome.
enum Readiness {
    Draining,
    Ready,
    ShortOfMemory,
}

impl Readiness {
    fn of(drain: &Drain) -> Self {
        if drain.is_draining() {
            Self::Draining
        } else if MEMORY.is_full() {
            Self::ShortOfMemory
        } else {
            Self::Ready
        }
    }
}

/// Serves the operator's pages until the future is dropped, connections with it. Whether we are ready is asked at each
/// /readyz. No failure to accept ends it.
pub(crate) async fn serve(listener: TcpListener, hosts: AllowedHosts, pages: Pages) -> io::Result<()> {
    let mut connections = JoinSet::new();
    let mut failing = false;
    loop {
        tokio::select! {
            // Past the cap nothing is accepted: the kernel's queue holds who comes, and turns away the rest.
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    failing = false;
                    let hosts = hosts.with(stream.local_addr().ok());
                    connections.spawn(connection(stream, hosts, pages.clone()));
                }
                Err(error) => {
                    // One line for a row of failures: out of descriptors, there would be ten in a second.
                    if !failing {
                        tracing::warn!(%error, "admin cannot accept connections");
                    }
                    failing = true;
                    if let Some(pause) = pause_after(&error) {
                        time::sleep(pause).await;
                    }
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "admin connection failed");
                }
            }
        }
    }
}

/// One connection: one request, and a limit on all of it.
async fn connection<S>(stream: S, hosts: AllowedHosts, pages: Pages)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| {
        let answer = match hosts.check(&request) {
            Ok(()) => answer(&request, &pages),
            Err(HostRejection::Malformed) => page(StatusCode::BAD_REQUEST, TEXT, MALFORMED),
            Err(HostRejection::Foreign) => page(StatusCode::MISDIRECTED_REQUEST, TEXT, FOREIGN),
        };
        async { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .max_buf_size(HEAD_SIZE)
        .serve_connection(TokioIo::new(stream), service);
    // How it ended is the caller's business: it sees what it got, and there is nothing to undo here.
    let _ = time::timeout(CONNECTION, connection).await;
}

/// The page that `request` asks for. Its body, if it has one, is not read.
fn answer<B>(request: &Request<B>, pages: &Pages) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let known = matches!(path, "/" | "/healthz" | "/metrics" | "/readyz" | "/status");
    if known && !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = page(
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT,
            "only GET and HEAD are answered here\n",
        );
        refused
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/" => page(StatusCode::OK, TEXT, INDEX),
        "/healthz" => page(StatusCode::OK, TEXT, "ok\n"),
        "/metrics" => page(StatusCode::OK, telemetry::CONTENT_TYPE, pages.telemetry.render()),
        "/readyz" => match Readiness::of(&pages.drain) {
            Readiness::Draining => page(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                "draining: this process was told to stop and finishes what is going on\n",
            ),
            Readiness::ShortOfMemory => page(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                "short of memory: limits.memory is reached, and requests are refused until there is room\n",
            ),
            Readiness::Ready => page(StatusCode::OK, TEXT, "ready\n"),
        },
        "/status" => page(StatusCode::OK, JSON, status::page(pages)),
        _ => page(
            StatusCode::NOT_FOUND,
            TEXT,
            "no such page; / lists those that there are\n",
        ),
    }
}

fn page(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut page = Response::new(Full::new(body.into()));
    *page.status_mut() = status;
    let headers = page.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    page
}

/// How long to wait before accepting again. `None` where only the one connection failed; anything else (out of
/// descriptors or memory) would fail again at once and spin.
fn pause_after(error: &io::Error) -> Option<Duration> {
    match error.kind() {
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted => {
            None
        }
        _ => Some(PAUSE),
    }
}

const INDEX: &str = "\
outrider

/healthz  ok as long as the process lives
/metrics  Prometheus text format
/readyz   ready, or 503 with the reason
/status   JSON: how this process is, and what it has learned of each destination's limits
";

const FOREIGN: &str = "\
Host is a name or an address that this process does not know as its own: ask by localhost, by the address that `admin` \
listens on, or by a route of the app. Other names are refused, so that no web page can read this.
";

const MALFORMED: &str = "a request needs one Host field\n";

/// Keeps the pages out of the process of a web page that includes them blindly, as a picture or a script.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

const JSON: &str = "application/json";

const TEXT: &str = "text/plain; charset=utf-8";

/// At once. A Prometheus, a health check and some people need fewer than ten.
const CONNECTIONS: usize = 32;

/// For the whole of a connection.
const CONNECTION: Duration = Duration::from_secs(20);

/// For the head of a request.
const HEAD: Duration = Duration::from_secs(5);

/// The size of a request's head, in bytes; hyper refuses less than 8 KiB.
const HEAD_SIZE: usize = 16 * 1024;

const PAUSE: Duration = Duration::from_millis(100);

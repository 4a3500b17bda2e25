//! The admin port: /metrics, /healthz, /observed, /readyz, /status.
//!
//! A small HTTP/1 server beside the proxy, with separate bounds on connections, requests and time: a slow
//! reader costs one page for some seconds and nothing else. Its pages only report; they change nothing and
//! never echo a request. No web page can read them, because it answers only to its [`AllowedHosts`] and never
//! allows another origin to read.
//!
//! The meaning of the figures is in `telemetry` and `limit`; `drain` knows whether the process is stopping.

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

const INDEX: &str = "\
outrider

/healthz  ok as long as the process lives
/metrics  Prometheus text format
/observed JSON: what egress.default: observe let pass, and deny would refuse
/readyz   ready, or 503 with the reason
/status   JSON: how this process is, what it has learned of each destination's limits, and its last refusals
";

const FOREIGN: &str = "\
Host is a name or an address that this process does not know as its own: ask by localhost, by the address that `admin` \
listens on, or by a route of the app. Other names are refused, so that no web page can read this.
";

const MALFORMED: &str = "a request needs one Host field\n";

/// Keeps a web page from loading our pages as an image or a script.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

const JSON: &str = "application/json";

const TEXT: &str = "text/plain; charset=utf-8";

/// The most connections at once. Prometheus, a health check and some people need fewer than ten.
const CONNECTIONS: usize = 32;

/// The most time for a connection.
const CONNECTION: Duration = Duration::from_secs(20);

/// The most time for the head of a request.
const HEAD: Duration = Duration::from_secs(5);

/// The most bytes of a request's head; hyper refuses less than 8 KiB.
const HEAD_SIZE: usize = 16 * 1024;

/// The wait after a failure to accept that would repeat at once.
const PAUSE: Duration = Duration::from_millis(100);

/// The sources of the pages.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    pub(crate) drain: Drain,
    pub(crate) limits: Arc<Limiters>,
    pub(crate) started: SystemTime,
    pub(crate) telemetry: Arc<Telemetry>,
}

/// Whether new work is accepted.
enum ProcessState {
    Draining,
    Ready,
    ShortOfMemory,
}

impl ProcessState {
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

/// Serves the pages until the future is dropped, which also drops the connections. A failure to accept does not
/// end it.
pub(crate) async fn serve(listener: TcpListener, hosts: AllowedHosts, pages: Pages) -> io::Result<()> {
    let mut connections = JoinSet::new();
    let mut failing = false;
    loop {
        tokio::select! {
            // At the limit nothing is accepted: new connections wait in the kernel's queue, which refuses the rest.
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    failing = false;
                    let hosts = hosts.for_connection(stream.local_addr().ok());
                    connections.spawn(connection(stream, hosts, pages.clone()));
                }
                Err(error) => {
                    // One line for a series of failures: without descriptors there would be ten a second.
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

/// Serves one connection: one request, within a time limit.
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
    // The client sees how it ended; there is nothing to undo here.
    let _ = time::timeout(CONNECTION, connection).await;
}

/// Builds the page that `request` asks for. A request body is not read.
fn answer<B>(request: &Request<B>, pages: &Pages) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let known = matches!(
        path,
        "/" | "/healthz" | "/metrics" | "/observed" | "/readyz" | "/status"
    );
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
        "/metrics" => {
            pages.limits.observe();
            page(StatusCode::OK, telemetry::CONTENT_TYPE, pages.telemetry.render())
        }
        "/observed" => page(
            StatusCode::OK,
            JSON,
            format!("{:#}\n", pages.telemetry.observed()),
        ),
        "/readyz" => match ProcessState::of(&pages.drain) {
            ProcessState::Draining => page(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                "draining: this process is stopping and finishes the requests in flight\n",
            ),
            ProcessState::ShortOfMemory => page(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                "short of memory: limits.memory is reached, and requests are refused until there is room\n",
            ),
            ProcessState::Ready => page(StatusCode::OK, TEXT, "ready\n"),
        },
        "/status" => page(StatusCode::OK, JSON, status::page(pages)),
        _ => page(StatusCode::NOT_FOUND, TEXT, "no such page; / lists all pages\n"),
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

/// Returns how long to wait before accepting again. `None` if only this connection failed; other errors (no
/// descriptors, no memory) would repeat at once.
fn pause_after(error: &io::Error) -> Option<Duration> {
    match error.kind() {
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted => {
            None
        }
        _ => Some(PAUSE),
    }
}

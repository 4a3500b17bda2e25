//! HTTP/1.1 with the app, in cleartext or inside an intercepted tunnel.

use std::sync::Arc;

use http::{Method, Request, Response, Uri};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{AppResponse, Body, Error, Proxy, reply};
use crate::http1;
use crate::http1::server::{self, TakenOver};
use crate::stream::Reset;
use crate::telemetry::Exchange;
use crate::upstream::{BoundConnections, Incoming};

/// Serves the requests of one connection, one after the other, until either side closes it. If it became a tunnel,
/// returns the future that runs the tunnel.
pub(crate) async fn serve_h1<T, F>(
    io: T,
    bond: Arc<BoundConnections>,
    proxy: Arc<Proxy>,
    answer: impl Fn(Request<Option<Incoming>>) -> F,
) -> Option<TakenOver>
where
    T: AsyncRead + AsyncWrite + Reset + Unpin + Send + 'static,
    F: Future<Output = AppResponse<T>>,
{
    let limits = proxy.live.load().limits.request_fields();
    let begins = move |interim| bond.hear_interim(interim);
    server::serve(io, limits, begins, async |request| match request {
        Ok(request) => answer(request.map(|body| body.map(Incoming::H1))).await,
        Err(error) => server::Handled::Response(unreadable(error, &proxy)),
    })
    .await
}

/// Answers bytes that could not be read as a request. It is counted without a destination.
fn unreadable(error: http1::Error, proxy: &Proxy) -> Response<Body> {
    let error = match error {
        http1::Error::Incomplete | http1::Error::Io(_) => {
            Error::Malformed("the connection closed before the request was complete")
        }
        http1::Error::Malformed(fault) => Error::NotHttp(fault),
        http1::Error::NoMemory(exhausted) => exhausted.into(),
        http1::Error::Slow => Error::HeadTooSlow,
        http1::Error::TooLarge(excess) => Error::HeadTooLarge(excess),
        http1::Error::Version => Error::Version,
    };
    // The method could not be read: count the request under the label for unknown methods.
    let method = Method::from_bytes(b"-").unwrap_or_default();
    let mut exchange = Exchange::begin(&proxy.telemetry, &method, &Uri::default());
    reply::refuse(&error, &mut exchange, true)
}

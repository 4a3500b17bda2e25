//! HTTP/1.1 with the app, in cleartext or inside an intercepted tunnel.

use std::sync::Arc;

use http::{HeaderValue, Method, Uri, header};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{AppResponse, Body, Error, Proxy, reply};
use crate::http1;
use crate::http1::server::{self, ForeignTakeover, NextWork};
use crate::message::{Request, Response};
use crate::stream::{Reset, TLS_HANDSHAKE};
use crate::telemetry::Exchange;
use crate::upstream::{BoundConnections, Incoming};

/// Serves the requests of one connection, one after the other, until either side closes it. If it became a tunnel,
/// returns the future that runs the tunnel. `foreign` returns what serves a connection whose first byte is of another protocol.
pub(crate) async fn serve_h1<T, F>(
    io: T,
    bond: Arc<BoundConnections>,
    proxy: Arc<Proxy>,
    foreign: impl Fn(u8) -> Option<ForeignTakeover<T>>,
    answer: impl Fn(Request<Option<Incoming>>) -> F,
) -> Option<NextWork>
where
    T: AsyncRead + AsyncWrite + Reset + Unpin + Send + 'static,
    F: Future<Output = AppResponse<T>>,
{
    let limits = proxy.live.load().limits.request_fields();
    let begins = move |interim| bond.hear_interim(interim);
    server::serve(io, limits, begins, async |request| match request {
        Ok(request) => {
            let mut answer = answer(request.map(|body| body.map(Incoming::H1))).await;
            // The app's next call comes on a new connection, which the end cannot cut between two requests.
            if proxy.drain.is_draining()
                && let server::Handled::Response(response) = &mut answer
            {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            answer
        }
        Err(http1::Error::Foreign(first)) => match foreign(first) {
            Some(next) => server::Handled::Foreign(next),
            None => server::Handled::Response(unreadable(http1::Error::Foreign(first), &proxy)),
        },
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
        http1::Error::Foreign(TLS_HANDSHAKE) => Error::NotHttp(http1::Fault::Tls),
        http1::Error::Foreign(_) => Error::NotHttp(http1::Fault::RequestLine),
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

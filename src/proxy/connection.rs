//! HTTP/1.1 as we speak it to the app, in the clear or inside an intercepted tunnel.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Body;
use super::body::Holding;
use crate::stream::{Doing, Patient, Phase};

/// A request whose head names both a Content-Length and a Transfer-Encoding; an extension, as hyper drops the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ambiguous;

/// Serves the requests of one connection, one after the other, until either side has had enough.
///
/// An upgraded connection is a [`Patient`] of `io`.
pub(crate) async fn serve_h1<T, F>(io: T, header_size: usize, answer: impl Fn(Request<Incoming>) -> F)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = http::Response<Body>>,
{
    let phase = Arc::new(Phase::default());
    let io = Patient::new(io, Arc::clone(&phase));
    let service = service_fn(|mut request: Request<Incoming>| {
        let has_body = !request.body().is_end_stream();
        if phase.begin(if has_body {
            Doing::Uploading
        } else {
            Doing::Waiting
        }) {
            request.extensions_mut().insert(Ambiguous);
        }
        let answer = answer(request);
        let phase = Arc::clone(&phase);
        async move {
            let response = answer.await;
            phase.set(Doing::Answering);
            let after = if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                Doing::Upgraded
            } else {
                Doing::Idle
            };
            Ok::<_, Infallible>(response.map(|body| Holding {
                body,
                _guard: Going { after, phase },
            }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(header_size.max(SMALLEST_BUFFER))
        .max_header_size(header_size)
        .serve_connection(TokioIo::new(io), service);
    if let Err(error) = connection.with_upgrades().await {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "a connection from the app ended early"
        );
    }
}

/// An answer on its way; says when it has gone out.
struct Going {
    after: Doing,
    phase: Arc<Phase>,
}

impl Drop for Going {
    fn drop(&mut self) {
        self.phase.set(self.after);
    }
}

const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// What hyper needs at least.
const SMALLEST_BUFFER: usize = 8 * 1024;

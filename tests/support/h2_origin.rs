//! An origin that speaks HTTP/2 only, demands a client certificate, and keeps what it was asked.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::HeaderMap;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_rustls::TlsAcceptor;

use super::partner::destination;
use super::{Identity, Pki, Proxy, Request as Received, TOKEN};

/// The size of a large answer.
pub(crate) const LARGE: usize = 1 << 20;

/// The origin, the identity for it and the authority that signed both. Its thread ends with the process.
pub(crate) struct H2Partner {
    pub(crate) pki: Pki,
    client: Identity,
    port: u16,
    asked: Arc<Mutex<Vec<(String, Received)>>>,
}

impl H2Partner {
    /// Answers each request with its own path, once the whole of its body is in; below `/large` with [`LARGE`] bytes.
    pub(crate) fn new() -> Self {
        Self::refusing(0)
    }

    /// Starts an origin that answers the first `count` requests with 503.
    pub(crate) fn refusing(count: usize) -> Self {
        let pki = Pki::new();
        let client = pki.client("app");
        let mut config = pki.demanding(&pki.server("partner.test"));
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(serve(listener, TlsAcceptor::from(Arc::new(config)), log, count));
        });
        Self {
            pki,
            client,
            port,
            asked,
        }
    }

    /// Returns `partner.test:PORT`.
    pub(crate) fn authority(&self) -> String {
        format!("partner.test:{}", self.port)
    }

    /// Starts a proxy with this destination; `extra` are more keys of it.
    #[track_caller]
    pub(crate) fn proxy(&self, extra: &str) -> Proxy {
        let yaml = destination(&self.pki, &self.client, &self.authority(), extra);
        Proxy::start_with(&yaml, &[("TOKEN", TOKEN)])
    }

    /// Returns every request that was read to its end: method, URI, fields, body.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.log().into_iter().map(|(text, _)| text).collect()
    }

    /// Returns the same requests as an HTTP/1.1 origin would record them.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.log().into_iter().map(|(_, request)| request).collect()
    }

    fn log(&self) -> Vec<(String, Received)> {
        self.asked.lock().unwrap().clone()
    }

    /// Returns a configuration with this destination and this `auth`.
    pub(crate) fn yaml_with(&self, auth: &str) -> String {
        destination(&self.pki, &self.client, &self.authority(), "").replace("{ bearer: env:TOKEN }", auth)
    }
}

async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    log: Arc<Mutex<Vec<(String, Received)>>>,
    refused: usize,
) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((socket, _)) = listener.accept().await {
        let (tls, log) = (tls.clone(), Arc::clone(&log));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(socket).await else {
                return;
            };
            let service =
                service_fn(move |request: Request<Incoming>| answer(request, Arc::clone(&log), refused));
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Describes the trailers, if there are any.
fn shown(trailers: &HeaderMap) -> String {
    if trailers.is_empty() {
        String::new()
    } else {
        format!(" then {trailers:?}")
    }
}

async fn answer(
    request: Request<Incoming>,
    log: Arc<Mutex<Vec<(String, Received)>>>,
    refused: usize,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // A request with a cut body is not recorded.
    let Ok(body) = body.collect().await else {
        return Ok(Response::default());
    };
    let trailers = body.trailers().cloned().unwrap_or_default();
    let body = body.to_bytes();
    let mut told = Received {
        line: format!(
            "{} {} HTTP/2",
            head.method,
            head.uri.path_and_query().map_or("", |target| target.as_str())
        ),
        body: body.to_vec(),
        ..Received::default()
    };
    told.headers.0 = head
        .headers
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    let authority = head.uri.authority().map(ToString::to_string).unwrap_or_default();
    told.headers.0.push(("host".to_owned(), authority));
    let body = String::from_utf8_lossy(&body).into_owned();
    let path = head.uri.path().to_owned();
    let told_back = if path.starts_with("/large") {
        Bytes::from(vec![b'x'; LARGE])
    } else {
        Bytes::from(path)
    };
    let mut response = Response::new(Full::new(told_back));
    let mut log = log.lock().unwrap();
    if log.len() < refused {
        *response.status_mut() = hyper::StatusCode::SERVICE_UNAVAILABLE;
    }
    let text = format!(
        "{} {} {:?} {body}{}",
        head.method,
        head.uri,
        head.headers,
        shown(&trailers)
    );
    log.push((text, told));
    Ok(response)
}

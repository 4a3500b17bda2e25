//! The three services that the app calls. They are real: sockets, TLS, HTTP.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Error;
use super::files::DemoFiles;

/// How long a failed handshake waits for the client to close.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// Demands a bearer token, over TLS.
    Api,
    /// Demands a client certificate.
    Partner,
    /// Demands nothing, without TLS.
    Reports,
}

/// The ports of the services on 127.0.0.1, in the order of [`Service::ALL`].
#[derive(Clone, Copy, Debug)]
pub(super) struct ServicePorts([u16; Service::ALL.len()]);

/// Starts all three; they run until `tasks` is dropped.
pub(super) async fn start(files: &DemoFiles, tasks: &mut JoinSet<()>) -> Result<ServicePorts, Error> {
    let bearer: Arc<str> = format!("Bearer {}", files.token()).into();
    let mut ports = [0; Service::ALL.len()];
    for service in Service::ALL {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        ports[service as usize] = listener.local_addr()?.port();
        tasks.spawn(serve(listener, service, files.tls(service)?, Arc::clone(&bearer)));
    }
    Ok(ServicePorts(ports))
}

impl ServicePorts {
    /// Returns the authority of a service, such as `partner.demo:41234`.
    pub(super) fn authority(self, service: Service) -> String {
        format!("{}:{}", service.host(), self.0[service as usize])
    }
}

impl Service {
    const ALL: [Self; 3] = [Self::Api, Self::Partner, Self::Reports];

    pub(super) fn host(self) -> &'static str {
        match self {
            Self::Api => "api.demo",
            Self::Partner => "partner.demo",
            Self::Reports => "reports.demo",
        }
    }

    /// Answers a client whose certificate has the name `client`.
    fn answer(
        self,
        request: &Request<Incoming>,
        client: Option<&str>,
        bearer: &str,
    ) -> Response<Full<Bytes>> {
        let shown = request.headers().get(header::AUTHORIZATION);
        let text = match self {
            Self::Api if shown.is_none_or(|shown| shown != bearer) => {
                let mut response = Response::new(Full::from("no bearer token, or a wrong one"));
                *response.status_mut() = StatusCode::UNAUTHORIZED;
                let challenge = HeaderValue::from_static("Bearer");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                return response;
            }
            Self::Api => "the token is right".to_owned(),
            Self::Partner => format!("your certificate says {}", client.unwrap_or("nothing")),
            Self::Reports => "a report".to_owned(),
        };
        Response::new(text.into())
    }
}

async fn serve(listener: TcpListener, service: Service, tls: Option<TlsAcceptor>, bearer: Arc<str>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, bearer) = (tls.clone(), Arc::clone(&bearer));
        connections.spawn(async move {
            match tls {
                None => answer_all(stream, service, None, &bearer).await,
                Some(tls) => serve_tls(stream, service, &tls, &bearer).await,
            }
        });
        // Frees the connections that have ended.
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_tls(stream: TcpStream, service: Service, tls: &TlsAcceptor, bearer: &str) {
    match tls.accept(stream).into_fallible().await {
        Ok(stream) => {
            let chain = stream.get_ref().1.peer_certificates();
            let client = chain.and_then(|chain| common_name(chain.first()?));
            answer_all(stream, service, client, bearer).await;
        }
        // Closing at once, with the client's request unread, would reset the socket and lose the alert on its way.
        Err((_, mut stream)) => {
            let mut buffer = [0; 512];
            let drained = async { while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {} };
            let _ = tokio::time::timeout(LINGER, drained).await;
        }
    }
}

async fn answer_all(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    service: Service,
    client: Option<String>,
    bearer: &str,
) {
    let answer = service_fn(|request| {
        let answer = service.answer(&request, client.as_deref(), bearer);
        async { Ok::<_, Infallible>(answer) }
    });
    // The client sees how it ended.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

/// Returns the common name in the subject of a certificate.
fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

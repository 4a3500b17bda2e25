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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// Demands a bearer token, over TLS.
    Api,
    /// Demands a client certificate.
    Partner,
    /// Demands nothing, in clear.
    Reports,
}

/// Where the services are, on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServicePorts {
    api: u16,
    partner: u16,
    reports: u16,
}

/// Starts all three; they run until `tasks` is dropped.
pub(super) async fn start(files: &DemoFiles, tasks: &mut JoinSet<()>) -> Result<ServicePorts, Error> {
    let bearer: Arc<str> = format!("Bearer {}", files.token()).into();
    let mut port = async |service| {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let tls = match service {
            Service::Api | Service::Partner => Some(TlsAcceptor::from(Arc::new(files.tls(service)?))),
            Service::Reports => None,
        };
        tasks.spawn(serve(listener, service, tls, Arc::clone(&bearer)));
        Ok::<_, Error>(port)
    };
    Ok(ServicePorts {
        api: port(Service::Api).await?,
        partner: port(Service::Partner).await?,
        reports: port(Service::Reports).await?,
    })
}

impl ServicePorts {
    /// `partner.demo:41234`.
    pub(super) fn authority(self, service: Service) -> String {
        let port = match service {
            Service::Api => self.api,
            Service::Partner => self.partner,
            Service::Reports => self.reports,
        };
        format!("{}:{port}", service.host())
    }
}

impl Service {
    pub(super) fn host(self) -> &'static str {
        match self {
            Self::Api => "api.demo",
            Self::Partner => "partner.demo",
            Self::Reports => "reports.demo",
        }
    }

    /// What it answers a caller whose certificate has this name.
    fn answer(
        self,
        request: &Request<Incoming>,
        caller: Option<&str>,
        bearer: &str,
    ) -> Response<Full<Bytes>> {
        let shown = request.headers().get(header::AUTHORIZATION);
        let (status, text) = match self {
            Self::Api if shown.is_some_and(|shown| shown == bearer) => {
                (StatusCode::OK, "the token is right".to_owned())
            }
            Self::Api => (
                StatusCode::UNAUTHORIZED,
                "no bearer token, or a wrong one".to_owned(),
            ),
            Self::Partner => (
                StatusCode::OK,
                format!("your certificate says {}", caller.unwrap_or("nothing")),
            ),
            Self::Reports => (StatusCode::OK, "a report".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

async fn serve(listener: TcpListener, service: Service, tls: Option<TlsAcceptor>, bearer: Arc<str>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, bearer) = (tls.clone(), Arc::clone(&bearer));
        connections.spawn(async move {
            match tls {
                None => converse(stream, service, None, &bearer).await,
                Some(tls) => converse_tls(stream, service, &tls, &bearer).await,
            }
        });
        // Those that have ended are let go.
        while connections.try_join_next().is_some() {}
    }
}

async fn converse_tls(stream: TcpStream, service: Service, tls: &TlsAcceptor, bearer: &str) {
    match tls.accept(stream).into_fallible().await {
        Ok(stream) => {
            let caller = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|chain| common_name(chain.first()?));
            converse(stream, service, caller, bearer).await;
        }
        // Closed at once, with the caller's request unread, the socket would be reset and the alert lost on the way.
        Err((_, mut stream)) => {
            let _ = tokio::time::timeout(LINGER, async {
                while stream.read(&mut [0; 512]).await.is_ok_and(|n| n > 0) {}
            })
            .await;
        }
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    service: Service,
    caller: Option<String>,
    bearer: &str,
) {
    let answer = service_fn(|request| {
        let answer = service.answer(&request, caller.as_deref(), bearer);
        async { Ok::<_, Infallible>(answer) }
    });
    // How it ended is the caller's business.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

/// The name in the subject of a certificate.
fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

const LINGER: Duration = Duration::from_secs(1);

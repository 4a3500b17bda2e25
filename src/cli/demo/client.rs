//! The app of the demo: a plain HTTP client, as in any language. It knows no secret.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The most time for one call, the longest wait of the limited service included.
const LIMIT: Duration = Duration::from_secs(10);

/// An app that trusts certain roots, with or without a proxy.
#[derive(Clone)]
pub(super) struct DemoClient {
    proxy: Option<SocketAddr>,
    tls: TlsConnector,
}

/// The answer to a call.
#[derive(Debug)]
pub(super) struct DemoReply {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<String>,
    pub(super) text: String,
}

/// Why there was no answer. It does not implement `std::error::Error`, so that it can be made from all that do.
#[derive(Debug)]
pub(super) enum Error {
    Alert(AlertDescription),
    Other(String),
}

/// TCP, TLS, or a tunnel through the proxy.
trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

impl DemoClient {
    /// Builds a client that trusts the certificates in `pem` and no others. Without a proxy it connects to
    /// 127.0.0.1 for every name.
    pub(super) fn new(proxy: Option<SocketAddr>, pem: &[u8]) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        // Like OpenSSL it skips a certificate that it cannot read.
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).filter_map(Result::ok));
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Self { proxy, tls })
    }

    /// Sends a GET as a client library does: `http://` in absolute form to a proxy, `https://` through CONNECT.
    pub(super) async fn get(&self, url: &str) -> Result<DemoReply, Error> {
        match tokio::time::timeout(LIMIT, self.get_in_time(url)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Other(format!("no answer within {} s", LIMIT.as_secs()))),
        }
    }

    async fn get_in_time(&self, url: &str) -> Result<DemoReply, Error> {
        let url: Uri = url.parse()?;
        let path = url.path_and_query().cloned().map(Uri::from).unwrap_or_default();
        let is_https = url.scheme() == Some(&Scheme::HTTPS);
        let Some(authority) = url.authority().cloned() else {
            return Err(Error::Other("not an absolute URL".to_owned()));
        };
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let mut stream = self.dial(port).await?;
        if !is_https {
            let target = if self.proxy.is_some() { url } else { path };
            return Ok(ask(stream, Method::GET, target, &authority).await?.0);
        }
        if self.proxy.is_some() {
            let target = format!("{}:{port}", authority.host());
            let target: Authority = target.parse()?;
            match ask(stream, Method::CONNECT, target.clone().into(), &target).await? {
                (_, Some(tunnel)) => stream = Box::new(TokioIo::new(tunnel)),
                (refusal, None) => return Ok(refusal),
            }
        }
        let name = ServerName::try_from(authority.host().to_owned())?;
        let stream = Box::new(self.tls.connect(name, stream).await?);
        Ok(ask(stream, Method::GET, path, &authority).await?.0)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the app's side, and all its connections are on loopback"
    )]
    async fn dial(&self, port: u16) -> Result<Box<dyn ByteStream>, Error> {
        let direct = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        Ok(Box::new(TcpStream::connect(self.proxy.unwrap_or(direct)).await?))
    }
}

impl DemoReply {
    /// Returns the error type and the sentence of a refusal by outrider.
    pub(super) fn problem(&self) -> Option<(String, String)> {
        let problem: serde_json::Value = serde_json::from_str(&self.text).ok()?;
        let text = |key: &str| problem.get(key)?.as_str().map(str::to_owned);
        Some((text("error")?, text("detail")?))
    }
}

/// Finds the TLS alert among the causes of an error; otherwise keeps its text.
impl<E: StdError + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        let mut next: Option<&(dyn StdError + 'static)> = Some(&error);
        while let Some(cause) = next {
            let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if let Some(rustls::Error::AlertReceived(alert)) = inner.and_then(|inner| inner.downcast_ref()) {
                return Self::Alert(*alert);
            }
            next = cause.source();
        }
        Self::Other(error.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alert(alert) => write!(f, "TLS alert: {}", words(*alert)),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// Sends one request on a new connection. Returns the tunnel as well if CONNECT succeeded.
async fn ask(
    stream: Box<dyn ByteStream>,
    method: Method,
    target: Uri,
    host: &Authority,
) -> Result<(DemoReply, Option<Upgraded>), Error> {
    let is_connect = method == Method::CONNECT;
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, host.as_str())
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender and the tunnel.
    let connection = tokio::spawn(connection.with_upgrades());
    let mut response = match sender.send_request(request).await {
        Ok(response) => response,
        // The connection may have the better reason for its end.
        Err(error) => {
            drop(sender);
            let reason = connection.await.ok().and_then(Result::err);
            return Err(reason.unwrap_or(error).into());
        }
    };
    let mut reply = DemoReply {
        status: response.status(),
        retry_after: None,
        text: String::new(),
    };
    if is_connect && reply.status.is_success() {
        return Ok((reply, Some(hyper::upgrade::on(&mut response).await?)));
    }
    let retry_after = response.headers().get(header::RETRY_AFTER);
    reply.retry_after = retry_after.and_then(|value| value.to_str().ok().map(str::to_owned));
    let body = response.into_body().collect().await?.to_bytes();
    reply.text = String::from_utf8_lossy(&body).into_owned();
    Ok((reply, None))
}

/// Writes `CertificateRequired` as words.
fn words(alert: AlertDescription) -> String {
    let mut words = String::new();
    for c in format!("{alert:?}").chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

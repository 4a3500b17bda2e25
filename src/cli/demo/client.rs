//! The app of the demo: a plain HTTP client, as in any language. It knows no secret.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// An app that trusts certain roots, with or without a proxy.
#[derive(Clone)]
pub(super) struct Client {
    proxy: Option<SocketAddr>,
    tls: TlsConnector,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("TLS alert: {}", words(*.0))]
    Alert(AlertDescription),

    #[error("{0}")]
    Http(hyper::Error),

    #[error("{0}")]
    Io(io::Error),

    #[error("no answer within {} s", LIMIT.as_secs())]
    Slow,

    #[error("not an absolute URL")]
    Url,
}

impl Client {
    /// Trusts nobody and asks 127.0.0.1 in clear.
    pub(super) fn bare() -> Result<Self, rustls::Error> {
        Self::new(None, RootCertStore::empty())
    }

    /// Asks 127.0.0.1, whatever the name, and trusts `root`.
    pub(super) fn direct(root: &CertificateDer<'static>) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone())?;
        Self::new(None, roots)
    }

    /// Asks the proxy, and trusts the certificates in `bundle` and no others.
    pub(super) fn through(proxy: SocketAddr, bundle: &Path) -> Result<Self, super::Error> {
        let text = std::fs::read(bundle)?;
        let mut roots = RootCertStore::empty();
        // As OpenSSL does, what cannot be read is passed over.
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).filter_map(Result::ok));
        Ok(Self::new(Some(proxy), roots)?)
    }

    fn new(proxy: Option<SocketAddr>, roots: RootCertStore) -> Result<Self, rustls::Error> {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            proxy,
            tls: Arc::new(config).into(),
        })
    }

    /// GET, as a client library does it: `http://` in absolute form to a proxy, `https://` through CONNECT.
    pub(super) async fn get(&self, url: &str) -> Result<Reply, Error> {
        let url: Uri = url.parse().map_err(|_| Error::Url)?;
        let (Some(scheme), Some(authority)) = (url.scheme(), url.authority()) else {
            return Err(Error::Url);
        };
        let call = async {
            if *scheme == Scheme::HTTPS {
                self.get_over_tls(&url, authority).await
            } else {
                let stream = self.dial(authority, 80).await?;
                let target = if self.proxy.is_some() {
                    url.clone()
                } else {
                    origin_form(&url)
                };
                ask(stream, Method::GET, target, authority)
                    .await
                    .map(|(answer, _)| answer)
            }
        };
        tokio::time::timeout(LIMIT, call)
            .await
            .unwrap_or(Err(Error::Slow))
    }

    async fn get_over_tls(&self, url: &Uri, authority: &Authority) -> Result<Reply, Error> {
        let stream = self.dial(authority, 443).await?;
        let name = ServerName::try_from(authority.host().to_owned()).map_err(|_| Error::Url)?;
        let target = origin_form(url);
        if self.proxy.is_none() {
            let stream = self.tls.connect(name, stream).await.map_err(Error::of_io)?;
            return ask(stream, Method::GET, target, authority)
                .await
                .map(|(answer, _)| answer);
        }
        let with_port = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(443));
        let connect: Authority = with_port.parse().map_err(|_| Error::Url)?;
        let (answer, tunnel) = ask(stream, Method::CONNECT, Uri::from(connect.clone()), &connect).await?;
        let Some(tunnel) = tunnel else { return Ok(answer) };
        let stream = self
            .tls
            .connect(name, TokioIo::new(tunnel))
            .await
            .map_err(Error::of_io)?;
        ask(stream, Method::GET, target, authority)
            .await
            .map(|(answer, _)| answer)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the app's side, and all it reaches is on loopback"
    )]
    async fn dial(&self, authority: &Authority, default_port: u16) -> Result<TcpStream, Error> {
        let port = authority.port_u16().unwrap_or(default_port);
        let direct = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        TcpStream::connect(self.proxy.unwrap_or(direct))
            .await
            .map_err(Error::Io)
    }
}

impl Reply {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Of a refusal by outrider: the error type and the sentence.
    pub(super) fn problem(&self) -> Option<(String, String)> {
        let problem: serde_json::Value = serde_json::from_str(&self.text).ok()?;
        let text = |key: &str| problem.get(key)?.as_str().map(str::to_owned);
        Some((text("error")?, text("detail")?))
    }
}

impl Error {
    fn of_io(error: io::Error) -> Self {
        alert(&error).map_or(Self::Io(error), Self::Alert)
    }

    fn of_http(error: hyper::Error) -> Self {
        alert(&error).map_or(Self::Http(error), Self::Alert)
    }
}

/// One request on a connection of its own. The second value is the tunnel, where CONNECT was answered with success.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: Method,
    target: Uri,
    authority: &Authority,
) -> Result<(Reply, Option<hyper::upgrade::Upgraded>), Error> {
    let is_connect = method == Method::CONNECT;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    *request.uri_mut() = target;
    let host = header::HeaderValue::from_str(authority.as_str()).map_err(|_| Error::Url)?;
    request.headers_mut().insert(header::HOST, host);

    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(Error::of_http)?;
    // Ends with the connection, which ends with the sender and the tunnel.
    let connection = tokio::spawn(connection.with_upgrades());
    let mut response = match sender.send_request(request).await {
        Ok(response) => response,
        // The connection may know better why it ended.
        Err(error) => {
            drop(sender);
            let why = connection.await.ok().and_then(Result::err);
            return Err(Error::of_http(why.unwrap_or(error)));
        }
    };
    let tunnel = if is_connect && response.status().is_success() {
        Some(hyper::upgrade::on(&mut response).await.map_err(Error::of_http)?)
    } else {
        None
    };
    let (head, body) = response.into_parts();
    let text = match tunnel {
        Some(_) => Bytes::new(),
        None => body.collect().await.map_err(Error::of_http)?.to_bytes(),
    };
    let answer = Reply {
        status: head.status,
        headers: head.headers,
        text: String::from_utf8_lossy(&text).into_owned(),
    };
    Ok((answer, tunnel))
}

fn origin_form(url: &Uri) -> Uri {
    let path = url.path_and_query().cloned();
    path.map(Uri::from).unwrap_or_default()
}

/// The alert behind an error, if one ended it.
fn alert(error: &(dyn std::error::Error + 'static)) -> Option<AlertDescription> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(rustls::Error::AlertReceived(alert)) = inner.and_then(|inner| inner.downcast_ref()) {
            return Some(*alert);
        }
        next = error.source();
    }
    None
}

/// `CertificateRequired` as a person writes it.
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

/// For one call, the longest wait of the limited service included.
const LIMIT: Duration = Duration::from_secs(10);

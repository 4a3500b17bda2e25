//! TLS to upstreams: who we trust, who we are, and what a failed handshake means to a person.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::host::Host;
use crate::policy::Destination;
use crate::secret::Sources;

/// TLS settings of one destination: one identity, one set of roots, one session store of their own, so that no
/// session made for one identity resumes for another.
pub(crate) struct Settings {
    // private: ClientConfigs for h1, h2 and both; server name; min version
}

/// What we offer by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Alpn {
    H1,
    H2,
    /// h2, then http/1.1.
    Either,
}

/// Why TLS settings cannot be made. Names the destination's key (`tls.ca`, …), the cause and the remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("TODO")]
    Todo,
}

/// Why a handshake failed, in a person's words: which host, what was wrong with which certificate, who wanted what.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("TODO")]
    Todo,
}

impl Settings {
    /// Reads certificates and keys; a key that does not belong to its certificate is an error.
    pub(crate) fn build(
        destination: &Destination,
        sources: &Sources,
        roots: &Arc<rustls::RootCertStore>,
    ) -> Result<Self, SettingsError> {
        todo!("{destination:?} {sources:?} {roots:?}")
    }

    /// The name sent as SNI and verified: `tls.server_name`, else the host.
    pub(crate) fn server_name(&self, host: &Host) -> ServerName<'static> {
        todo!("{host}")
    }

    /// Client handshake within `limit`.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        host: &Host,
        alpn: Alpn,
        limit: Duration,
    ) -> Result<TlsStream<TcpStream>, Error> {
        todo!("{stream:?} {host} {alpn:?} {limit:?}")
    }
}

impl Error {
    /// The RFC 9209 error type: tls_certificate_error, tls_protocol_error, tls_alert_received, connection_timeout…
    pub(crate) fn proxy_status(&self) -> &'static str {
        todo!()
    }

    /// Maps what an established connection reports on a later read: in TLS 1.3 a refused client certificate is only
    /// told after the handshake. `None` where the error is not TLS's.
    pub(crate) fn of_io(error: &std::io::Error, host: &str) -> Option<Self> {
        todo!("{error} {host}")
    }
}

/// The system's trusted roots, loaded once (SSL_CERT_FILE of our own environment is NOT used when it names our bundle).
pub(crate) fn system_roots() -> Arc<rustls::RootCertStore> {
    todo!()
}

//! The TLS handshake with the app, and the log lines for handshakes that fail.
//!
//! The app sees a failure as an error of its TLS library, which seldom names the remedy. So each kind of failure is
//! counted, and logged with what the app offered: at most one line per minute, destination and kind.

use std::io;

use bytes::Bytes;
use rustls::{AlertDescription, HandshakeKind, PeerIncompatible, ProtocolVersion};
use tokio::io::AsyncBufReadExt;
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::OpenedTunnel;
use super::combined::Combined;
use super::distrust::remedy;
use super::hello::Offered;
use crate::ca::{self, Offer};
use crate::clients::Clients;
use crate::drain::ExchangeGuard;
use crate::host::{Host, Target};
use crate::proxy::{Proxy, Route};
use crate::stream::{Io, Reset, Rewound};
use crate::telemetry::{HandshakeFailure, TlsSide};
use crate::upstream::{self, Protocol};

const ADDRESS: &str = "this host is an address, for which clients on BoringSSL (gRPC, Envoy, Electron, Bun) refuse our \
    certificate even where they trust it: give them a name, or set `ca.constraints: names`";

/// A completed handshake.
pub(super) struct Accepted {
    /// The server name in the ClientHello, if it is not the target's.
    pub(super) foreign_name: Option<String>,
    /// Boxed: it is large, and every future that it passes through would keep a place for it.
    pub(super) stream: Box<TlsStream<Combined<Rewound<Io>>>>,
}

/// Why the handshake failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no certificate could be made")]
    Certificate(#[from] ca::Error),

    /// The connection was closed or reset.
    #[error("the app closed the connection")]
    Gone { has_certificate: bool },

    #[error("the app did not go on within timeouts.tls")]
    Late,

    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Completes the app's handshake, offering the protocol that the upstream speaks. Reports a failure.
///
/// `first` are the first bytes from the app. `busy` lasts until the handshake is over.
pub(super) async fn accept(
    first: Bytes,
    app: Io,
    opened: &OpenedTunnel,
    route: &Route,
    proxy: &Proxy,
    busy: ExchangeGuard,
) -> Option<Accepted> {
    let accepted = handshake(first.clone(), app, &opened.target, route, proxy).await;
    drop(busy);
    match accepted {
        Ok(mut accepted) => {
            let is_used = accepted.is_used(&first, opened, route, proxy).await;
            accepted.release();
            is_used.then_some(accepted)
        }
        Err(error) => {
            report(&error, &first, opened, route, proxy);
            None
        }
    }
}

async fn handshake(
    first: Bytes,
    app: Io,
    target: &Target,
    route: &Route,
    proxy: &Proxy,
) -> Result<Accepted, Error> {
    let started = Instant::now();
    let limit = route.destination.timeouts.tls;
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), Rewound::new(first, app));
    let start = (timeout(limit, hello).await)
        .map_err(|_| Error::Late)?
        .map_err(|error| Error::of(error, false))?;
    let read_hello = started.elapsed();
    let hello = start.client_hello();
    let asked = hello.server_name().map(str::to_owned);
    let speaks_h2_only = hello
        .alpn()
        .is_some_and(|mut names| names.all(|name| name == b"h2"));
    let foreign_name = asked.filter(|name| Host::parse(name).ok().as_ref() != Some(&target.host));
    let live = proxy.live.load_full();
    let spoken = match &route.breaker {
        // An open circuit: the upstream must not be asked now.
        Some(breaker) if breaker.is_open(target, Instant::now()) => upstream::known(target, &route.endpoint),
        Some(_) | None => (upstream::learn(target, &route.endpoint, proxy.network(&live)).await).ok(),
    };
    let offer = match spoken {
        Some(Protocol::H2) => Offer::H2,
        // The failure of a dead upstream is the response to each request inside, so the handshake must succeed.
        None if speaks_h2_only => Offer::H2,
        Some(Protocol::H1) | None => Offer::H1,
    };
    let config = live.authority.serve(&target.host, offer)?;
    // The app may have given up while we asked the upstream. That says nothing about our certificate.
    if start.io.hangup().is_some() {
        return Err(Error::Gone {
            has_certificate: false,
        });
    }
    let started = Instant::now();
    let start = StartHandshake::from_parts(start.accepted, Combined::new(start.io));
    let stream = (timeout(limit, start.into_stream(config)).await)
        .map_err(|_| Error::Late)?
        .map_err(|error| Error::of(error, true))?;
    route
        .counters
        .tls_handshake(TlsSide::Client, read_hello + started.elapsed());
    Ok(Accepted {
        foreign_name,
        stream: Box::new(stream),
    })
}

impl Accepted {
    /// Lets what has been kept go out with the first answer.
    fn release(&mut self) {
        let (wire, connection) = self.stream.get_mut();
        wire.release();
        // What is left of a handshake in TLS 1.2 is its end, for which the app may wait.
        if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            wire.send();
        }
    }

    /// Waits for the first bytes inside, as long as the handshake could have taken. Returns whether the connection
    /// is open.
    ///
    /// Clients with GnuTLS (git, wget) check our certificate only after the handshake, and close without an alert.
    /// That is reported too.
    async fn is_used(&mut self, first: &[u8], opened: &OpenedTunnel, route: &Route, proxy: &Proxy) -> bool {
        let is_resumed = self.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        match timeout(route.destination.timeouts.tls, self.stream.fill_buf()).await {
            // A client that waits before its first request is served too.
            Err(_) => true,
            Ok(Ok(bytes)) if !bytes.is_empty() => true,
            // It has trusted us before: this time it has seen no certificate.
            Ok(Ok(_)) if is_resumed => false,
            Ok(Ok(_)) => {
                let error = Error::Gone {
                    has_certificate: true,
                };
                report(&error, first, opened, route, proxy);
                false
            }
            Ok(Err(error)) => {
                report(&Error::of(error, true), first, opened, route, proxy);
                false
            }
        }
    }
}

impl Error {
    fn of(error: io::Error, has_certificate: bool) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(error) => Self::Tls(error),
            Err(_) => Self::Gone { has_certificate },
        }
    }

    fn kind(&self) -> HandshakeFailure {
        match self {
            Self::Certificate(_) => HandshakeFailure::Certificate,
            Self::Gone {
                has_certificate: true,
            } => HandshakeFailure::SilentDistrust,
            Self::Gone {
                has_certificate: false,
            } => HandshakeFailure::Closed,
            Self::Late => HandshakeFailure::TimedOut,
            Self::Tls(rustls::Error::AlertReceived(alert)) if is_about_certificate(*alert) => {
                HandshakeFailure::Distrust
            }
            Self::Tls(rustls::Error::AlertReceived(alert)) if may_be_about_certificate(*alert) => {
                HandshakeFailure::LikelyDistrust
            }
            Self::Tls(rustls::Error::AlertReceived(_)) => HandshakeFailure::Alert,
            Self::Tls(rustls::Error::NoApplicationProtocol) => HandshakeFailure::Alpn,
            Self::Tls(rustls::Error::PeerIncompatible(what)) => match what {
                PeerIncompatible::NoCipherSuitesInCommon
                | PeerIncompatible::NoSignatureSchemesInCommon
                | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => HandshakeFailure::Cipher,
                PeerIncompatible::EcPointsExtensionRequired
                | PeerIncompatible::KeyShareExtensionRequired
                | PeerIncompatible::NamedGroupsExtensionRequired
                | PeerIncompatible::NoEcPointFormatsInCommon
                | PeerIncompatible::NoKxGroupsInCommon
                | PeerIncompatible::UncompressedEcPointsRequired => HandshakeFailure::Group,
                // Extensions that clients older than TLS 1.2 do not send.
                _ => HandshakeFailure::Version,
            },
            Self::Tls(_) => HandshakeFailure::NotTls,
        }
    }
}

/// Returns whether an alert is about a certificate (RFC 8446, section 6.2).
fn is_about_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    )
}

/// Returns whether clients send an alert when code of theirs refuses a certificate, as OpenSSL and Erlang do.
fn may_be_about_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::HandshakeFailure
            | AlertDescription::InternalError
            | AlertDescription::UserCanceled
    )
}

/// Reports bytes in a tunnel that are neither TLS nor HTTP, as far as the first line shows.
pub(super) fn report_foreign(first: &[u8], target: &Target, route: &Route) {
    let line = first.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_whole = line.len() < first.len();
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let method = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    let is_http = !method.is_empty()
        && method.iter().all(is_token)
        && (!is_whole || line.windows(6).any(|part| part == b" HTTP/"));
    if is_http || first.is_empty() {
        return;
    }
    if let Some(untold) = route.counters.handshake_failed(HandshakeFailure::NotTls) {
        tracing::warn!(
            destination = %route.destination.name,
            host = %target,
            untold,
            "what the app sends through an intercepted tunnel is neither TLS nor HTTP; `mode: tunnel` lets it pass as it is",
        );
    }
}

/// Counts a failure and, if a line is due, logs it.
fn report(error: &Error, first: &[u8], opened: &OpenedTunnel, route: &Route, proxy: &Proxy) {
    let OpenedTunnel { client, target, .. } = opened;
    let kind = error.kind();
    let Some(untold) = route.counters.handshake_failed(kind) else {
        return;
    };
    let offered = Offered::read(first);
    let live = proxy.live.load();
    let is_refused_address =
        kind.is_distrust() && !matches!(target.host, Host::Name(_)) && live.authority.confines_addresses();
    // Where several apps come, the other requests may be another's.
    let is_one_app = live.clients.as_deref().is_none_or(Clients::serve_one_app);
    let heard = is_one_app.then_some(&proxy.heard);
    let remedy = kind
        .is_distrust()
        .then(|| remedy(*client, heard, proxy.is_around_command));
    tracing::warn!(
        destination = %route.destination.name,
        host = %target,
        %error,
        tls = offered.versions,
        ciphers = offered.ciphers,
        groups = offered.groups,
        alpn = offered.alpn,
        server_name = offered.server_name,
        also = is_refused_address.then_some(ADDRESS),
        remedy,
        untold,
        "{}",
        sentence(kind),
    );
}

fn sentence(kind: HandshakeFailure) -> &'static str {
    match kind {
        HandshakeFailure::Alert => "the app ended the TLS handshake with an alert",
        HandshakeFailure::Alpn => {
            "no TLS with the app: by ALPN it offers no protocol that is spoken to this upstream; let it offer http/1.1"
        }
        HandshakeFailure::Certificate => "no TLS with the app: no certificate could be made for it",
        HandshakeFailure::Cipher => {
            "no TLS with the app: it offers no cipher suite and signature algorithm for a certificate with a P-256 key; in \
             TLS 1.2 these are ECDHE-ECDSA with AES-GCM or ChaCha20-Poly1305, and ECDSA with SHA-256"
        }
        HandshakeFailure::ClientCertificate => "no TLS with the app: its certificate is refused",
        HandshakeFailure::Closed => "the app closed the connection before the TLS handshake got anywhere",
        HandshakeFailure::Distrust => "the app does not trust outrider's certificate",
        HandshakeFailure::Group => {
            "no TLS with the app: it offers no key exchange that is spoken here: X25519MLKEM768, X25519, P-256 or P-384"
        }
        HandshakeFailure::LikelyDistrust => {
            "the app likely does not trust outrider's certificate: it ended the handshake with an alert when it had seen it"
        }
        HandshakeFailure::TimedOut => {
            "no TLS with the app: it did not go on with the handshake within timeouts.tls"
        }
        HandshakeFailure::NotTls => "no TLS with the app: what it sends is not TLS as it should be",
        HandshakeFailure::SilentDistrust => {
            "the app likely does not trust outrider's certificate: it closed the connection when it had seen it, and said nothing"
        }
        HandshakeFailure::Version => {
            "no TLS with the app: it speaks no version that is accepted here, which are TLS 1.2 and 1.3; a client that cannot \
             be renewed can ask for http:// and let outrider upgrade it"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other alerts say nothing about trust.
    #[test]
    fn only_alerts_about_a_certificate_mean_distrust() {
        for number in 0..=u8::MAX {
            let kind = Error::Tls(rustls::Error::AlertReceived(number.into())).kind();
            let expected = match number {
                // RFC 8446, section 6.2: bad, unsupported, revoked, expired, unknown certificate, unknown authority.
                42..=46 | 48 => HandshakeFailure::Distrust,
                // Handshake failure, access denied, internal error, user cancelled.
                40 | 49 | 80 | 90 => HandshakeFailure::LikelyDistrust,
                _ => HandshakeFailure::Alert,
            };
            assert_eq!(kind, expected, "{number}");
            assert_eq!(kind.is_distrust(), expected != HandshakeFailure::Alert);
            assert_eq!(kind.error_type(), "tls_alert_received", "{number}");
        }
    }
}

//! A connection on the listener: its first byte says whether it speaks HTTP, SOCKS5 or TLS.

use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::connection::serve_h1;
use super::{Proxy, handle, socks};
use crate::clients::Peer;
use crate::error::ErrorChain;
use crate::http1::server::{ForeignTakeover, NextWork, Serving};
use crate::memory::{self, Reservation};
use crate::stream::{ClientTls, Io, OtherStream, Rewound, SOCKS4, SOCKS5, TLS_HANDSHAKE};
use crate::telemetry::{HandshakeFailure, TlsSide};

/// The time for a TLS handshake of a client.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves a connection. `peer` is the client that has shown a certificate for it, if there is one.
pub(crate) fn serve_client(io: Io, peer: Option<Arc<Peer>>, proxy: Arc<Proxy>) -> Serving {
    let is_tls = matches!(io, Io::Other(OtherStream::Tls(_)));
    Box::pin(async move {
        let (of_requests, bond) = (Arc::clone(&proxy), Arc::default());
        let same = Arc::clone(&bond);
        let (known, of_others) = (peer.clone(), Arc::clone(&proxy));
        let heard = Once::new();
        let foreign = move |first| other_protocol(first, is_tls, known.as_ref(), &of_others);
        serve_h1(io, same, of_requests, foreign, move |mut request| {
            if let Some(peer) = &peer {
                request.extensions_mut().insert(Arc::clone(peer));
            }
            heard.call_once(|| proxy.heard.hear(request.headers()));
            handle(request, Arc::clone(&bond), Arc::clone(&proxy))
        })
        .await
    })
}

/// Returns what serves a connection that begins with this byte; `None`: it is answered in HTTP.
fn other_protocol(
    first: u8,
    is_tls: bool,
    peer: Option<&Arc<Peer>>,
    proxy: &Arc<Proxy>,
) -> Option<ForeignTakeover<Io>> {
    let (peer, proxy) = (peer.cloned(), Arc::clone(proxy));
    match first {
        SOCKS4 => Some(Box::new(move |io, _| {
            Box::pin(async move {
                socks::refuse_socks4(io, &proxy).await;
                None
            })
        })),
        SOCKS5 => Some(Box::new(move |io, ahead| {
            Box::pin(async move { socks::serve(io, ahead, peer, proxy).await.map(NextWork::Tunnel) })
        })),
        // Once: there is no TLS in the listener's TLS.
        TLS_HANDSHAKE if !is_tls => {
            let live = proxy.live.load_full();
            live.clients.as_ref()?.tls()?;
            Some(Box::new(move |io, ahead| Box::pin(accept(io, ahead, proxy))))
        }
        _ => None,
    }
}

/// Completes the handshake of a client, and serves what is inside.
async fn accept(io: Io, ahead: Bytes, proxy: Arc<Proxy>) -> Option<NextWork> {
    let live = proxy.live.load_full();
    let config = Arc::clone(live.clients.as_ref()?.tls()?);
    let Ok(held) = Reservation::take(memory::INTERCEPTED) else {
        // There are no words for it before the handshake.
        proxy.telemetry.connection_limit_reached();
        return None;
    };
    let started = Instant::now();
    let handshake = TlsAcceptor::from(config).accept(Rewound::new(ahead, io));
    let (kind, error) = match tokio::time::timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => {
            let counters = proxy.telemetry.counters("none");
            counters.tls_handshake(TlsSide::Client, started.elapsed());
            let chain = stream.get_ref().1.peer_certificates();
            let peer = chain.and_then(Peer::new).map(Arc::new);
            let io = Io::Other(OtherStream::Tls(Box::new(ClientTls { stream, _held: held })));
            return Some(NextWork::Serve(serve_client(io, peer, proxy)));
        }
        Ok(Err(error)) => (kind_of(&error), Some(error)),
        Err(_) => (HandshakeFailure::TimedOut, None),
    };
    if let Some(untold) = proxy.telemetry.counters("none").handshake_failed(kind) {
        let error = error
            .as_ref()
            .map(|error| tracing::field::display(ErrorChain(error)));
        tracing::warn!(
            error,
            untold,
            "no TLS with a client on the listener: {}",
            sentence(kind)
        );
    }
    None
}

fn kind_of(error: &std::io::Error) -> HandshakeFailure {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        None => HandshakeFailure::Closed,
        Some(rustls::Error::InvalidCertificate(_)) => HandshakeFailure::ClientCertificate,
        Some(rustls::Error::AlertReceived(_)) => HandshakeFailure::Alert,
        Some(rustls::Error::NoApplicationProtocol) => HandshakeFailure::Alpn,
        Some(_) => HandshakeFailure::NotTls,
    }
}

fn sentence(kind: HandshakeFailure) -> &'static str {
    match kind {
        HandshakeFailure::Alert => {
            "it ended the handshake with an alert; if that is about our certificate, give the client its authority, or name \
             another one under listen_tls"
        }
        HandshakeFailure::Alpn => "it offers no protocol that is spoken here; let it offer http/1.1",
        HandshakeFailure::ClientCertificate => {
            "its certificate is refused; it needs one that is valid now and issued by an authority of `clients` (ca, or the \
             instance identity's)"
        }
        HandshakeFailure::Closed => "it closed the connection before the handshake was complete",
        HandshakeFailure::TimedOut => "it did not complete the handshake in time",
        HandshakeFailure::Certificate
        | HandshakeFailure::Cipher
        | HandshakeFailure::Distrust
        | HandshakeFailure::LikelyDistrust
        | HandshakeFailure::Group
        | HandshakeFailure::NotTls
        | HandshakeFailure::SilentDistrust
        | HandshakeFailure::Version => "what it sends is not TLS 1.2 or 1.3 as it should be",
    }
}

//! Reports a finished handshake: a log line, and when the server's certificate ends.

use std::time::SystemTime;

use rustls::{ClientConnection, HandshakeKind, ProtocolVersion};

use super::certificate;
use crate::host::Target;
use crate::telemetry::Counters;

/// Reports a new connection to `target`. The certificate is known after a full handshake only.
pub(crate) fn tell(connection: &ClientConnection, target: &Target, destination: &str, counters: &Counters) {
    let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        _ => "unknown",
    };
    let suite = connection.negotiated_cipher_suite();
    let suite = suite.and_then(|suite| suite.suite().as_str());
    // A TLS 1.2 session resumes without a key exchange.
    let group = connection.negotiated_key_exchange_group();
    let group = group.map_or_else(|| "none".to_owned(), |group| format!("{:?}", group.name()));
    tracing::debug!(
        destination,
        host = %target.host,
        port = target.port,
        tls = version,
        cipher_suite = suite.unwrap_or("unknown"),
        key_exchange = group,
        resumed,
        alpn = %connection.alpn_protocol().unwrap_or_default().escape_ascii(),
        "TLS with the upstream",
    );
    if resumed {
        return;
    }
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    if let Some(leaf) = leaf.and_then(|der| certificate::parse(der)) {
        let (_, until) = certificate::validity(&leaf);
        counters.upstream_certificate(&target.to_string(), until, SystemTime::now());
    }
}

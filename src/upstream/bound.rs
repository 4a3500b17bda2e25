//! Upstream connections that belong to one connection of the app.
//!
//! NTLM and Negotiate authenticate a connection, not a request (RFC 4559 section 6): the next request on it is answered
//! as the first user's. So such a connection is neither shared nor pooled. All steps of a handshake go over it, no request is
//! sent again on another one, and it closes with the app's connection.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::task::{Context, Poll};

use http::header::{self, HeaderName};

use super::body::{Outbound, ResponseBody};
use super::pool::{ActiveConnection, PooledConnection};
use super::{DialContext, Endpoint, Error, Protocol, RequestFailed, RequestObserver, connect, tls};
use crate::host::Target;
use crate::http1::Interim;
use crate::message::{Fields, RequestHead, Response};
use crate::sync::lock;

const MOST_IDLE: usize = 8;

/// The upstream connections that belong to one connection of the app, and the place to which its interim answers go.
#[derive(Debug, Default)]
pub(crate) struct BoundConnections {
    idle: Mutex<Vec<PooledConnection>>,
    /// Not set if the app speaks HTTP/2.
    interim: OnceLock<Weak<dyn Interim>>,
    /// The app has used such a scheme: all its further requests go over these connections.
    is_tied: AtomicBool,
}

impl BoundConnections {
    /// Whether a request is sent over these connections. `credentials`: it has an Authorization field of the app.
    pub(crate) fn ties(&self, fields: &Fields, credentials: bool) -> bool {
        if credentials && speaks(fields, &header::AUTHORIZATION, false) {
            self.is_tied.store(true, Ordering::Relaxed);
        }
        self.is_tied.load(Ordering::Relaxed)
    }

    /// Returns the same place for interim answers, without the connections: for a request whose connection many users share.
    pub(crate) fn apart(&self) -> Self {
        Self {
            interim: self.interim.clone(),
            ..Self::default()
        }
    }

    /// Sets the place to which interim answers go.
    pub(crate) fn hear_interim(&self, interim: Weak<dyn Interim>) {
        // It is set once, when the connection is first served.
        let _ = self.interim.set(interim);
    }

    /// Returns the place to which interim answers go.
    pub(crate) fn interim(&self) -> Option<&Weak<dyn Interim>> {
        self.interim.get()
    }

    /// Keeps a connection for the app's next request.
    pub(super) fn keep(&self, held: Box<PooledConnection>) {
        let mut idle = self.idle();
        if idle.len() == MOST_IDLE {
            idle.remove(0);
        }
        idle.push(*held);
    }

    fn take(
        &self,
        endpoint: &Endpoint,
        target: &Target,
        cx: &mut Context<'_>,
    ) -> Option<Box<PooledConnection>> {
        let mut idle = self.idle();
        let is_there = |held: &PooledConnection| held.leads_to(endpoint.id(), target);
        while let Some(place) = idle.iter().rposition(is_there) {
            let mut held = idle.remove(place);
            if !held.is_over() && held.is_fresh(cx) {
                return Some(Box::new(held));
            }
        }
        None
    }

    fn idle(&self) -> MutexGuard<'_, Vec<PooledConnection>> {
        lock(&self.idle)
    }
}

/// Sends one request over a connection that belongs to the app's. In HTTP/1.1, because HTTP/2 would share it.
pub(super) async fn send(
    bound: &Arc<BoundConnections>,
    head: &RequestHead,
    body: &mut Outbound,
    target: &Target,
    endpoint: &Arc<Endpoint>,
    network: DialContext<'_>,
    observer: &impl RequestObserver,
) -> Result<Response<ResponseBody>, RequestFailed> {
    if endpoint.alpn(Protocol::H1) == tls::Alpn::H2 {
        return Err(Error::Version.into());
    }
    let active = match poll_fn(|cx| Poll::Ready(bound.take(endpoint, target, cx))).await {
        Some(held) => {
            endpoint.counters.upstream_reuse();
            ActiveConnection::H1(held)
        }
        None => connect::connect(target, Protocol::H1, endpoint, network)
            .await
            .map_err(|error| RequestFailed {
                error,
                is_unsent: true,
            })?
            .bound_to(bound),
    };
    observer.begins();
    (active.send(head, body, observer).await).map_err(|failure| failure.error.into())
}

/// Whether an answer authenticates its connection although the request did not ask for it.
pub(super) fn is_spoken_in(answer: &Fields) -> bool {
    speaks(answer, &header::WWW_AUTHENTICATE, true)
}

/// Returns an owner that is gone: the connection closes after its request.
pub(super) fn to_nobody() -> Weak<BoundConnections> {
    Weak::new()
}

/// Whether a field of `name` has a scheme that authenticates the connection. `has_token`: a bare offer does not count.
fn speaks(fields: &Fields, name: &HeaderName, has_token: bool) -> bool {
    fields.get_all(name).any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|part| {
            let part = part.trim_ascii();
            let end = part
                .iter()
                .position(u8::is_ascii_whitespace)
                .unwrap_or(part.len());
            let is_scheme = SCHEMES
                .iter()
                .any(|scheme| part[..end].eq_ignore_ascii_case(scheme));
            is_scheme && (!has_token || end < part.len())
        })
    })
}

const SCHEMES: [&[u8]; 2] = [b"NTLM", b"Negotiate"];

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_scheme_is_found_wherever_it_stands() {
        for (values, is_spoken, has_token) in [
            (&["NTLM TlRMTVNTUAAB"][..], true, true),
            (&["ntlm TlRMTVNTUAAB"], true, true),
            (&["Negotiate YII="], true, true),
            (&["NEGOTIATE"], true, false),
            (&["Negotiate, NTLM"], true, false),
            (&["Basic realm=\"x\"", "Negotiate oYG2"], true, true),
            (&["Basic realm=\"x\", Negotiate oYG2"], true, true),
            (&["Bearer NTLM"], false, false),
            (&["Basic bnRsbQ=="], false, false),
            (&["NTLMv2 x"], false, false),
            (&[""], false, false),
            (&[], false, false),
        ] {
            let mut fields = Fields::new();
            for value in values {
                fields.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            let name = header::AUTHORIZATION;
            assert_eq!(speaks(&fields, &name, false), is_spoken, "{values:?}");
            assert_eq!(speaks(&fields, &name, true), has_token, "{values:?}");
        }
    }
}

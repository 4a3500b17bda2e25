//! Connections that authentication is bound to.
//!
//! With NTLM and Negotiate it is the connection that is authenticated (RFC 4559 section 6): whoever sends on it next is
//! answered as the first user. Such a connection belongs to one connection of the app: it is neither shared nor pooled,
//! all legs of a handshake go over it, no request is sent again on another one, and it closes with the app's.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::task::{Context, Poll};

use http::header::{self, HeaderMap, HeaderName};
use http::{Response, request};

use super::body::{Outbound, ResponseBody};
use super::pool::{Held, Lease};
use super::{Endpoint, Error, Failed, Mirror, Ways, Witness, connect, tls};
use crate::host::Target;
use crate::http1::Interim;
use crate::sync::lock;

/// The upstream connections of one connection of the app, and where on that interim answers go.
#[derive(Debug, Default)]
pub(crate) struct Bond {
    idle: Mutex<Vec<Held>>,
    /// Not set where the app speaks HTTP/2.
    interim: OnceLock<Weak<dyn Interim>>,
    /// The app has spoken such a scheme: all that follows goes over connections of its own.
    is_tied: AtomicBool,
}

impl Bond {
    /// Whether a request is sent over a connection of its own. `credentials`: it has an Authorization field.
    pub(crate) fn ties(&self, fields: &HeaderMap, credentials: bool) -> bool {
        if credentials && speaks(fields, &header::AUTHORIZATION, false) {
            self.is_tied.store(true, Ordering::Relaxed);
        }
        self.is_tied.load(Ordering::Relaxed)
    }

    /// From now on interim answers go there.
    pub(crate) fn hear_interim(&self, interim: Weak<dyn Interim>) {
        // It is set once, by who serves the connection.
        let _ = self.interim.set(interim);
    }

    /// Where interim answers go.
    pub(crate) fn interim(&self) -> Option<&Weak<dyn Interim>> {
        self.interim.get()
    }

    /// Keeps a connection for the app's next request.
    pub(super) fn keep(&self, held: Box<Held>) {
        let mut idle = self.idle();
        if idle.len() == MOST_IDLE {
            idle.remove(0);
        }
        idle.push(*held);
    }

    fn take(&self, endpoint: &Endpoint, target: &Target, cx: &mut Context<'_>) -> Option<Box<Held>> {
        let mut idle = self.idle();
        let is_there = |held: &Held| held.leads_to(endpoint.id(), target);
        while let Some(place) = idle.iter().rposition(is_there) {
            let mut held = idle.remove(place);
            if !held.is_over() && held.is_fresh(cx) {
                return Some(Box::new(held));
            }
        }
        None
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Held>> {
        lock(&self.idle)
    }
}

/// Sends one request over a connection that belongs to the app's alone, in HTTP/1.1: streams of HTTP/2 would share it.
pub(super) async fn send(
    bond: &Arc<Bond>,
    head: &request::Parts,
    body: &mut Outbound,
    target: &Target,
    endpoint: &Arc<Endpoint>,
    ways: Ways<'_>,
    witness: &impl Witness,
) -> Result<Response<ResponseBody>, Failed> {
    if endpoint.alpn(Mirror::H1) == tls::Alpn::H2 {
        return Err(Error::Version.into());
    }
    let lease = match poll_fn(|cx| Poll::Ready(bond.take(endpoint, target, cx))).await {
        Some(held) => {
            endpoint.counters.upstream_reuse();
            Lease::H1(held)
        }
        None => connect::connect(target, Mirror::H1, endpoint, ways)
            .await
            .map_err(|error| Failed {
                error,
                is_unsent: true,
            })?
            .bound_to(bond),
    };
    witness.begins();
    (lease.send(head, body, witness).await).map_err(|failure| failure.error.into())
}

/// Whether an answer authenticates its connection, though its request did not ask for that.
pub(super) fn is_spoken_in(answer: &HeaderMap) -> bool {
    speaks(answer, &header::WWW_AUTHENTICATE, true)
}

/// To nobody: the connection closes after its request.
pub(super) fn to_nobody() -> Weak<Bond> {
    Weak::new()
}

/// Whether a field of `name` speaks a scheme that binds to the connection. `has_token`: an offer alone does not count.
fn speaks(fields: &HeaderMap, name: &HeaderName, has_token: bool) -> bool {
    fields.get_all(name).iter().any(|value| {
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

const MOST_IDLE: usize = 8;
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
            let mut fields = HeaderMap::new();
            for value in values {
                fields.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            let name = header::AUTHORIZATION;
            assert_eq!(speaks(&fields, &name, false), is_spoken, "{values:?}");
            assert_eq!(speaks(&fields, &name, true), has_token, "{values:?}");
        }
    }
}

//! One request to the upstream: leave to send it, the credential, the sending.
//!
//! What may be asked at all is checked before, in [`forward`](super::forward); what the app gets of the answer is
//! shaped there as well.

use std::sync::Arc;

use http::{Method, Response, request};

use super::{Error, Proxy, Way};
use crate::host::Target;
use crate::limit::{self, Permit};
use crate::telemetry::Exchange;
use crate::upstream::body::Progress;
use crate::upstream::{self, Incoming, Mirror, Outbound, ResponseBody};

/// An upstream's answer, and what has to last as long as its body does.
pub(super) struct Fetched {
    pub(super) response: Response<ResponseBody>,
    /// A slow download still occupies its slot.
    pub(super) permit: Option<Permit>,
    /// `None` where the request has no body.
    pub(super) upload: Option<Arc<Progress>>,
}

/// Sends one request, without the fields of the app's hop, to `target` and returns once the head of its answer is in.
/// Afterwards `head` holds the credential.
pub(super) async fn fetch(
    head: &mut request::Parts,
    incoming: Option<Incoming>,
    target: &Target,
    mirror: Mirror,
    way: &Way,
    exchange: &mut Exchange,
    proxy: &Arc<Proxy>,
) -> Result<Fetched, Error> {
    let Way { live, route } = way;
    let destination = &route.destination;
    let attachment = route.attachment.as_ref().map_err(|_| Error::Credential)?;
    let permit = if route.limiter.is_unlimited() {
        None
    } else {
        let deadline = || limit::deadline(&head.headers);
        let limiter = &route.limiter;
        let permit = (limiter.admit(&head.method, head.uri.path(), deadline)).await?;
        exchange.waited(permit.waited());
        Some(permit)
    };
    // OPTIONS asks what a server can do, often without a person behind it: it carries a credential only where named.
    if head.method != Method::OPTIONS || destination.names(&Method::OPTIONS) {
        attachment.apply(head).map_err(|_| Error::Credential)?;
    }
    let (body, upload) = Outbound::new(incoming, destination.timeouts.idle);

    exchange.asked_upstream();
    match upstream::send(head, body, target, mirror, &route.endpoint, proxy.ways(live)).await {
        Ok(response) => {
            exchange.upstream_answered(response.status());
            Ok(Fetched {
                response,
                permit,
                upload,
            })
        }
        Err(error) => {
            exchange.sent(upload.as_ref().map_or(0, |upload| upload.bytes()));
            Err(error.into())
        }
    }
}

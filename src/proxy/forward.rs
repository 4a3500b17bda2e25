//! One HTTP exchange from the app's request to the response on its way back.

use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode, Version, header};

use super::attempt::RequestContext;
use super::body::{ForwardedBody, Upgraded};
use super::cached::{CachedRequest, FirstLookup, PendingResponse};
use super::fetch::fetch;
use super::headers::{self, FieldsPresent};
use super::reply_body::ReplyBody;
use super::tunnel::TunnelSlot;
use super::{Error, Proxy, Routed, cookies, placeholders, scrub};
use crate::host::Target;
use crate::http1::{RawTarget, Spelling};
use crate::memory::{self, Reservation};
use crate::message::{Request, Response};
use crate::stream::Rewound;
use crate::telemetry::Exchange;
use crate::upstream::{BoundConnections, Incoming, Protocol, ResponseBody};

const CONTINUE: HeaderValue = HeaderValue::from_static("100-continue");

/// Sends one request to its destination and returns the response with its unread body.
///
/// `mirror` is the protocol that the app speaks. `bond` holds the upstream connections that belong to its
/// connection. The caller turns an error into a response.
pub(super) async fn run(
    mut request: Request<Option<Incoming>>,
    target: &Target,
    mirror: Protocol,
    routed: &Routed,
    bond: &Arc<BoundConnections>,
    exchange: &mut Exchange,
    proxy: &Arc<Proxy>,
) -> Result<Response<Box<ForwardedBody>>, Error> {
    let busy = proxy.drain.busy();
    let Routed { live, route } = routed;
    let present = FieldsPresent::of(request.headers());
    headers::check(&request, &present, mirror, live.limits.request_fields())?;
    let held = Reservation::take(memory::REQUEST)?;
    let destination = &route.destination;
    destination.permits(request.method(), request.uri().path())?;
    destination.refuse_overrides(request.uri().query(), request.headers())?;
    // Only the scheme, not the whole target: each value kept across an await makes the future larger.
    let asked = target.scheme;
    let target = destination.leaves(target)?;
    if present.passed && proxy.loop_marker.has_looped(request.headers()) {
        return Err(Error::Looped);
    }

    // Only a GET over HTTP/1.1 can ask for a WebSocket (RFC 6455 section 4.1).
    if present.upgrade && (request.method() != Method::GET || request.version() != Version::HTTP_11) {
        request.headers_mut().remove(header::UPGRADE);
    }
    let is_old = request.version() == Version::HTTP_10;
    if present.expect {
        // Without a body there is nothing to wait for, and HTTP/1.0 has no interim responses (RFC 9110 section
        // 10.1.1). Otherwise the field is sent once, in the spelling that every server knows.
        if is_old || request.body().is_none() {
            request.headers_mut().remove(header::EXPECT);
        } else {
            request.headers_mut().insert(header::EXPECT, CONTINUE);
        }
    }
    let stripped = headers::strip_request(request.headers_mut(), &present);
    let is_websocket = stripped.is_websocket && mirror == Protocol::H1;
    if is_websocket && request.body().is_some() {
        return Err(Error::Malformed("a WebSocket handshake cannot have a body"));
    }
    // A WebSocket counts as a tunnel.
    let slot = is_websocket
        .then(|| TunnelSlot::take(proxy, live.limits.tunnels, 0))
        .transpose()?;
    let (mut head, mut incoming) = request.into_parts();
    if route.cache.is_some() {
        // A cache key is the normalised target, so the upstream must see that one too.
        head.extensions.remove::<RawTarget>();
    }
    if let Some(listed) = stripped.listed {
        head.extensions.insert(listed);
    }
    if let Some(own) = &route.placeholders {
        incoming = placeholders::admit(&mut head, incoming, &target, own, route)?;
    }
    if bond.ties(&head.headers, present.authorization) {
        head.extensions.insert(Arc::clone(bond));
    }
    if route.scrubs() {
        scrub::ask_for_readable(&mut head.headers);
    }
    proxy.loop_marker.mark_request(&mut head.headers, destination.via);
    let context = RequestContext {
        interim: bond.interim().filter(|_| !is_old),
        target: &target,
        mirror,
        routed,
        proxy,
    };
    let PendingResponse {
        mut response,
        permit,
        upload,
    } = match &route.cache {
        None => PendingResponse::from(fetch(&mut head, incoming, context, exchange).await?),
        Some(cache) => {
            let cached = CachedRequest { cache, context };
            match cached.look_up(&head, incoming.is_some(), exchange)? {
                FirstLookup::Found(pending) => pending,
                // Boxed, so that requests without a cache do not reserve room for it.
                FirstLookup::Miss(miss) => {
                    Box::pin(cached.complete(miss, &mut head, incoming, exchange)).await?
                }
            }
        }
    };

    let mut upgraded = None;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let slot = slot.ok_or(Error::Unasked("without being asked to"))?;
        // `strip_response` leaves Upgrade only where the 101 names a WebSocket.
        if !response.headers().contains_key(header::UPGRADE) {
            return Err(Error::Unasked(
                "without naming `websocket` in Upgrade and `upgrade` in Connection",
            ));
        }
        let body = std::mem::replace(response.body_mut(), ReplyBody::Plain(ResponseBody::Ended.into()));
        let Some((upstream, early)) = body.into_stream() else {
            return Err(Error::Unasked("in HTTP/2, which cannot be switched from"));
        };
        upgraded = Some(Box::new(Upgraded {
            upstream: Rewound::new(early, upstream),
            slot,
            idle: destination.timeouts.idle,
        }));
    }
    if target.scheme != asked {
        cookies::remove_secure(response.headers_mut());
    }
    if destination.via {
        proxy.loop_marker.mark_response(response.headers_mut());
    }
    if let Some(rehearsal) = &route.rehearsal {
        rehearsal.mark(&mut response);
    }
    if destination.response_fields.keeps_spelling && response.extensions().get::<Spelling>().is_none() {
        // The response comes from the cache or was made here.
        response.extensions_mut().insert(Spelling::Usual);
    }
    let listed = response.extensions_mut().remove();
    // The version belongs to one hop. With HTTP/1.0 we would promise to close the connection.
    *response.version_mut() = Version::HTTP_11;
    let forwarded = |body| ForwardedBody {
        body,
        idle: destination.timeouts.idle,
        upload,
        upgraded,
        permit,
        listed,
        busy,
        _held: held,
    };
    // Boxed: it is large, and handed on many times.
    Ok(response.map(|body| Box::new(forwarded(body))))
}

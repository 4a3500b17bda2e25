//! One HTTP exchange, top to bottom.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode, Version, header};

use super::body::{Passing, Upgraded};
use super::headers::{self, Seen};
use super::tunnel::Room;
use super::{Error, Proxy, Way};
use crate::host::Target;
use crate::stream::Rewound;
use crate::telemetry::Exchange;
use crate::upstream::{self, Incoming, Mirror, Outbound, ResponseBody};

/// Carries one request to its destination and returns the response on its way back.
///
/// `mirror` is the protocol the app speaks. Whatever fails leaves through `?`; the caller turns it into an answer.
pub(super) async fn run(
    mut request: Request<Option<Incoming>>,
    target: &Target,
    mirror: Mirror,
    way: &Way,
    exchange: &mut Exchange,
    proxy: &Arc<Proxy>,
) -> Result<Response<Passing>, Error> {
    let busy = proxy.drain.busy();
    let Way { live, route } = way;
    let seen = Seen::of(request.headers());
    headers::check(&request, &seen, mirror)?;
    proxy.has_room()?;
    let destination = &route.destination;
    destination.permits(request.method(), request.uri().path())?;
    let target = destination.leaves(target)?;
    let attachment = route.attachment.as_ref().map_err(|_| Error::Credential)?;
    if seen.via && headers::has_looped(request.headers(), &proxy.via) {
        return Err(Error::Looped);
    }

    let permit = if route.limiter.is_unlimited() {
        None
    } else {
        let permit = route
            .limiter
            .admit(request.method(), request.uri().path())
            .await?;
        exchange.waited(permit.waited());
        Some(permit)
    };

    let is_websocket = headers::strip_request(request.headers_mut(), &seen) && mirror == Mirror::H1;
    if is_websocket && request.body().is_some() {
        return Err(Error::Malformed("a WebSocket handshake with a body"));
    }
    // A WebSocket is a tunnel as well, and no connection that HTTP is spoken on.
    let room = is_websocket
        .then(|| Room::take(proxy, live.limits.tunnels))
        .transpose()?;
    let (mut head, incoming) = request.into_parts();
    head.headers.append(header::VIA, proxy.via.clone());
    // OPTIONS asks what a server can do, often without a person behind it: it carries a credential only where named.
    if head.method != Method::OPTIONS || destination.names(&Method::OPTIONS) {
        attachment.apply(&mut head).map_err(|_| Error::Credential)?;
    }
    let (body, upload) = Outbound::new(incoming, destination.timeouts.idle);

    exchange.asked_upstream();
    let response = upstream::send(&head, body, &target, mirror, &route.endpoint, proxy.ways(live)).await;
    let mut response = match response {
        Ok(response) => response,
        Err(error) => {
            exchange.sent(upload.as_ref().map_or(0, |upload| upload.bytes()));
            return Err(error.into());
        }
    };
    exchange.upstream_answered(response.status());

    let mut upgraded = None;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let body = std::mem::replace(response.body_mut(), ResponseBody::Ended);
        let (Some(room), Some((upstream, early))) = (room, body.into_stream()) else {
            return Err(Error::Unasked);
        };
        let protocol = response.headers().get(header::UPGRADE).cloned();
        upgraded = Some(Box::new(Upgraded {
            upstream: Rewound::new(early, upstream),
            room,
            idle: destination.timeouts.idle,
        }));
        headers::strip_response(response.headers_mut());
        response.headers_mut().insert(header::CONNECTION, UPGRADE);
        if let Some(protocol) = protocol {
            response.headers_mut().insert(header::UPGRADE, protocol);
        }
    } else {
        headers::strip_response(response.headers_mut());
    }
    response.headers_mut().append(header::VIA, proxy.via.clone());
    // The upstream's version is one hop's: in its name we would promise to close.
    *response.version_mut() = Version::HTTP_11;
    Ok(response.map(|body| Passing {
        body,
        idle: destination.timeouts.idle,
        upload,
        upgraded,
        permit,
        busy,
    }))
}

const UPGRADE: http::HeaderValue = http::HeaderValue::from_static("upgrade");

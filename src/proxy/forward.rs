//! One HTTP exchange, top to bottom.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::body::{Passing, Upgraded};
use super::headers::{self, Seen};
use super::tunnel::Room;
use super::{Error, Proxy, Way};
use crate::host::Target;
use crate::telemetry::Exchange;
use crate::upstream::{self, Mirror, Outbound};

/// Carries one request to its destination and returns the response on its way back.
///
/// `mirror` is the protocol the app speaks. Whatever fails leaves through `?`; the caller turns it into an answer.
pub(super) async fn run(
    mut request: Request<Incoming>,
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

    // hyper drops a Content-Length beside a Transfer-Encoding unseen: what follows such a message is never read.
    let is_last = mirror == Mirror::H1 && seen.transfer_encoding > 0;
    let is_websocket = headers::strip_request(request.headers_mut(), &seen);
    // A WebSocket is a tunnel as well, and no connection that HTTP is spoken on.
    let room = is_websocket
        .then(|| Room::take(proxy, live.limits.tunnels))
        .transpose()?;
    let app_side = request.extensions_mut().remove::<OnUpgrade>();
    let (mut head, incoming) = request.into_parts();
    head.extensions.clear();
    head.headers.append(header::VIA, proxy.via.clone());
    // OPTIONS asks what a server can do, often without a person behind it: it carries a credential only where named.
    if head.method != Method::OPTIONS || destination.names(&Method::OPTIONS) {
        attachment.apply(&mut head).map_err(|_| Error::Credential)?;
    }
    let (body, upload) = Outbound::new(incoming, destination.timeouts.idle);
    if upload.is_some() && seen.content_length == 0 {
        // Else hyper would take a GET with a body for one without. It leaves the field out of HTTP/2.
        head.headers.insert(header::TRANSFER_ENCODING, CHUNKED);
    }

    exchange.asked_upstream();
    let mut request = Some(Request::from_parts(head, body));
    let response = upstream::send(&mut request, &target, mirror, &route.endpoint, proxy.ways(live)).await;
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
        let (Some(room), Some(app)) = (room, app_side) else {
            return Err(Error::Unasked);
        };
        let protocol = response.headers().get(header::UPGRADE).cloned();
        let upstream = hyper::upgrade::on(&mut response);
        response.body_mut().detach();
        upgraded = Some(Upgraded {
            app,
            upstream,
            room,
            idle: destination.timeouts.idle,
        });
        headers::strip_response(response.headers_mut());
        response.headers_mut().insert(header::CONNECTION, UPGRADE);
        if let Some(protocol) = protocol {
            response.headers_mut().insert(header::UPGRADE, protocol);
        }
    } else {
        headers::strip_response(response.headers_mut());
    }
    if is_last {
        response.headers_mut().insert(header::CONNECTION, CLOSE);
    }
    response.headers_mut().append(header::VIA, proxy.via.clone());
    // The upstream's version is one hop's: in its name we would promise to close.
    *response.version_mut() = Version::HTTP_11;
    Ok(response.map(|body| Passing {
        body,
        upload,
        upgraded,
        permit,
        busy,
    }))
}

const CHUNKED: http::HeaderValue = http::HeaderValue::from_static("chunked");
const CLOSE: http::HeaderValue = http::HeaderValue::from_static("close");
const UPGRADE: http::HeaderValue = http::HeaderValue::from_static("upgrade");

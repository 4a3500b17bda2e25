//! One HTTP exchange, top to bottom.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};

use super::attempt::Course;
use super::body::{Passing, Upgraded};
use super::cached::{Begun, Carried, Errand};
use super::fetch::fetch;
use super::headers::{self, Seen};
use super::source::Source;
use super::tunnel::Room;
use super::{Error, Proxy, Way, cookies, scrub};
use crate::host::Target;
use crate::http1::{RawTarget, Spelling};
use crate::memory::{self, Reservation};
use crate::stream::Rewound;
use crate::telemetry::Exchange;
use crate::upstream::{BoundConnections, Incoming, Protocol, ResponseBody};

/// Carries one request to its destination and returns the response on its way back.
///
/// `mirror` is the protocol the app speaks, `bond` holds the upstream connections that belong to its connection. Whatever
/// fails leaves through `?`; the caller turns it into an answer.
pub(super) async fn run(
    mut request: Request<Option<Incoming>>,
    target: &Target,
    mirror: Protocol,
    way: &Way,
    bond: &Arc<BoundConnections>,
    exchange: &mut Exchange,
    proxy: &Arc<Proxy>,
) -> Result<Response<Passing>, Error> {
    let busy = proxy.drain.busy();
    let Way { live, route } = way;
    let seen = Seen::of(request.headers());
    headers::check(&request, &seen, mirror, live.limits.request_fields)?;
    let held = Reservation::take(memory::REQUEST)?;
    let destination = &route.destination;
    destination.permits(request.method(), request.uri().path())?;
    destination.heeds(request.uri().query(), request.headers())?;
    // Not the target itself: what is held across a wait makes the future larger.
    let asked = target.scheme;
    let target = destination.leaves(target)?;
    if seen.passed && proxy.marks.has_looped(request.headers()) {
        return Err(Error::Looped);
    }

    // Another request cannot ask for a WebSocket (RFC 6455 section 4.1).
    if seen.upgrade && (request.method() != Method::GET || request.version() != Version::HTTP_11) {
        request.headers_mut().remove(header::UPGRADE);
    }
    let is_old = request.version() == Version::HTTP_10;
    if seen.expect {
        // Nobody waits for leave to send nothing, and HTTP/1.0 does not know it (RFC 9110 section 10.1.1). Once, and as every
        // server knows it.
        if is_old || request.body().is_none() {
            request.headers_mut().remove(header::EXPECT);
        } else {
            request.headers_mut().insert(header::EXPECT, CONTINUE);
        }
    }
    let stripped = headers::strip_request(request.headers_mut(), &seen);
    let is_websocket = stripped.is_websocket && mirror == Protocol::H1;
    if is_websocket && request.body().is_some() {
        return Err(Error::Malformed("a WebSocket handshake cannot have a body"));
    }
    // A WebSocket is a tunnel as well, and no connection that HTTP is spoken on.
    let room = is_websocket
        .then(|| Room::take(proxy, live.limits.tunnels, 0))
        .transpose()?;
    let (mut head, incoming) = request.into_parts();
    if route.cache.is_some() {
        // What is stored under one name has been asked for in one spelling.
        head.extensions.remove::<RawTarget>();
    }
    if let Some(listed) = stripped.listed {
        head.extensions.insert(listed);
    }
    if bond.ties(&head.headers, seen.authorization) {
        head.extensions.insert(Arc::clone(bond));
    }
    if destination.scrub {
        scrub::ask_plainly(&mut head.headers);
    }
    proxy.marks.mark_request(&mut head.headers, destination.via);
    let course = Course {
        interim: bond.interim().filter(|_| !is_old),
        target: &target,
        mirror,
        way,
        proxy,
    };
    let Carried {
        mut response,
        permit,
        upload,
    } = match &route.cache {
        None => Carried::from(fetch(&mut head, incoming, course, exchange).await?),
        Some(cache) => {
            let errand = Errand { cache, course };
            match errand.begin(&head, incoming.is_some(), exchange)? {
                Begun::Answered(carried) => carried,
                // Boxed: every request's future would be as large as this one.
                Begun::Open(open) => Box::pin(errand.carry(open, &mut head, incoming, exchange)).await?,
            }
        }
    };

    let mut upgraded = None;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let room = room.ok_or(Error::Unasked("without being asked to"))?;
        // Left there only where the answer names a WebSocket.
        if !response.headers().contains_key(header::UPGRADE) {
            return Err(Error::Unasked(
                "without naming `websocket` in Upgrade and `upgrade` in Connection",
            ));
        }
        let body = std::mem::replace(response.body_mut(), Source::Plain(ResponseBody::Ended.into()));
        let Some((upstream, early)) = body.into_stream() else {
            return Err(Error::Unasked("in HTTP/2, which cannot be switched from"));
        };
        upgraded = Some(Box::new(Upgraded {
            upstream: Rewound::new(early, upstream),
            room,
            idle: destination.timeouts.idle,
        }));
    }
    if target.scheme != asked {
        cookies::open(response.headers_mut());
    }
    if destination.via {
        proxy.marks.mark_response(response.headers_mut());
    }
    if let Some(rehearsal) = &route.rehearsal {
        rehearsal.mark(&mut response);
    }
    if destination.response_fields.keeps_spelling && response.extensions().get::<Spelling>().is_none() {
        // It was stored, or made here.
        response.extensions_mut().insert(Spelling::Usual);
    }
    let listed = response.extensions_mut().remove();
    // The upstream's version is one hop's: in its name we would promise to close.
    *response.version_mut() = Version::HTTP_11;
    Ok(response.map(|body| Passing {
        body,
        idle: destination.timeouts.idle,
        upload,
        upgraded,
        permit,
        listed,
        busy,
        _held: held,
    }))
}

const CONTINUE: HeaderValue = HeaderValue::from_static("100-continue");

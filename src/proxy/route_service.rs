//! The route service: a request from the platform's router, judged, and sent on to where the router wants it.
//!
//! The router puts three fields into each request: X-CF-Forwarded-Url says where it goes on to, and the other two prove to the
//! router that the request has been here. All three leave as they came, the proof is shown to nobody else, and nothing of
//! the request line that came matters. Who may pass is decided in `clients`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri};
use tokio::time::Instant;

use super::connection::serve_h1;
use super::{AppResponse, Error, Proxy, Routed, finish, forward, reply};
use crate::host::{HostPattern, Scheme, Target};
use crate::http1::RawTarget;
use crate::http1::server::Serving;
use crate::message::{Fields, Request};
use crate::stream::Io;
use crate::telemetry::Exchange;
use crate::upstream::{BoundConnections, Incoming, Protocol};

const FORWARDED_URL: HeaderName = HeaderName::from_static("x-cf-forwarded-url");
const METADATA: HeaderName = HeaderName::from_static("x-cf-proxy-metadata");
const SIGNATURE: HeaderName = HeaderName::from_static("x-cf-proxy-signature");
/// The router writes who the client is into it.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const OF_ROUTER: [HeaderName; 3] = [FORWARDED_URL, METADATA, SIGNATURE];

/// Why a request is not one that the platform's router sends to a route service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ForwardedUrlFault {
    #[error(
        "the field {0} is missing; ask the route that is bound to this service, since nothing else passes through it"
    )]
    Absent(HeaderName),

    #[error("Connection names a field of the platform's router, which would be lost on the way")]
    Listed,

    #[error("X-CF-Forwarded-Url is not the http:// or https:// URL of a request")]
    Malformed,

    #[error(
        "X-CF-Forwarded-Url names a host to which this route service does not go; where a route of it is bound to the service, \
         add it to route_service.to"
    )]
    Outside,

    #[error("there is no route service any more")]
    Removed,

    #[error("the field {0} stands more than once")]
    Repeated(HeaderName),
}

impl ForwardedUrlFault {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Absent(_) | Self::Listed | Self::Malformed | Self::Repeated(_) => StatusCode::BAD_REQUEST,
            Self::Outside => StatusCode::FORBIDDEN,
            Self::Removed => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the word for a refusal by policy: the `reason` label.
    pub(super) fn reason(&self) -> Option<&'static str> {
        (*self == Self::Outside).then_some("forwarded_url")
    }
}

/// Where a request goes on to.
struct Onward {
    /// What was sent, if the URI cannot hold it.
    raw: Option<RawTarget>,
    target: Target,
    uri: Uri,
}

/// Serves a connection of the platform's router.
pub(crate) fn serve(io: Io, proxy: Arc<Proxy>) -> Serving {
    Box::pin(async move {
        let (bond, of_requests) = (Arc::<BoundConnections>::default(), Arc::clone(&proxy));
        let same = Arc::clone(&bond);
        serve_h1(
            io,
            same,
            of_requests,
            |_| None,
            move |request| answer(request, Arc::clone(&bond), Arc::clone(&proxy)),
        )
        .await
    })
}

/// Answers one request of the platform's router.
async fn answer(
    mut request: Request<Option<Incoming>>,
    bond: Arc<BoundConnections>,
    proxy: Arc<Proxy>,
) -> AppResponse<Io> {
    let live = proxy.live.load_full();
    let found = live.policy.route_service().zip(live.route_service.as_ref());
    let health = found.and_then(|(_, guard)| guard.written().health.as_deref());
    if health.is_some_and(|path| asks_for_health(&request, path)) {
        return AppResponse::Response(reply::healthy());
    }
    let onward = Onward::of(request.headers());
    // Nothing else of the request says where it goes: its own URI is that of the service.
    let uri = onward
        .as_ref()
        .map_or_else(|_| Uri::default(), |onward| onward.uri.clone());
    let mut exchange = Exchange::begin(&proxy.telemetry, request.method(), &uri);
    let judged = match found {
        None => Err(ForwardedUrlFault::Removed.into()),
        Some((destination, guard)) => {
            let route = Arc::clone(live.route(destination));
            exchange.set_destination(&route.counters);
            let onward = onward.and_then(|onward| onward.within(&guard.written().to));
            let judged = match onward {
                Err(fault) => Err(fault.into()),
                Ok(_) if request.method() == Method::CONNECT => {
                    Err(Error::Malformed("a route service opens no tunnels (CONNECT)"))
                }
                Ok(onward) => match guard.admit(request.headers(), Instant::now()).await {
                    Err(refusal) => Err(refusal.into()),
                    Ok(user) => {
                        if let Some(user) = user {
                            exchange.set_client(user);
                        }
                        guard.strip(request.headers_mut());
                        Ok(onward)
                    }
                },
            };
            let upgrades = guard.written().upgrade;
            judged.map(|onward| (onward.upgraded(upgrades), route))
        }
    };
    let (onward, route) = match judged {
        Ok(judged) => judged,
        Err(error) => return AppResponse::Response(reply::refuse(&error, &mut exchange, false)),
    };
    onward.direct(&mut request);
    let routed = Routed {
        live: Arc::clone(&live),
        route,
    };
    // Many users share a connection of the router, so none of theirs may belong to it.
    let bond = Arc::new(bond.apart());
    let mut result = forward::run(
        request,
        &onward.target,
        Protocol::H1,
        &routed,
        &bond,
        &mut exchange,
        &proxy,
    )
    .await;
    if let Ok(response) = &mut result {
        for name in &OF_ROUTER {
            response.headers_mut().remove(name);
        }
    }
    finish(result, exchange, |_| false)
}

/// Whether the platform asks how the app is: nothing of a route is in the request.
fn asks_for_health<B>(request: &Request<B>, path: &str) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
        && request.uri().path() == path
        && !OF_ROUTER.iter().any(|name| request.headers().contains_key(name))
}

impl Onward {
    /// Reads the fields of the platform's router, each of which has to stand there once.
    fn of(fields: &Fields) -> Result<Self, ForwardedUrlFault> {
        let url = the_only(fields, &FORWARDED_URL)?;
        the_only(fields, &METADATA)?;
        the_only(fields, &SIGNATURE)?;
        let mut listed = fields
            .get_all(header::CONNECTION)
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii);
        let is_of_router = |name: HeaderName| OF_ROUTER.contains(&name) || name == FORWARDED_FOR;
        if listed.any(|name| HeaderName::from_bytes(name).is_ok_and(is_of_router)) {
            return Err(ForwardedUrlFault::Listed);
        }
        Self::read(url.as_bytes()).ok_or(ForwardedUrlFault::Malformed)
    }

    /// Reads the URL: what is wrong with it is not told, because nobody but the router should have written it.
    fn read(url: &[u8]) -> Option<Self> {
        // The router compares it with that of the request that comes back, which cannot have a fragment.
        if !url.iter().all(u8::is_ascii_graphic) || url.contains(&b'#') {
            return None;
        }
        let (uri, raw) = match Uri::from_maybe_shared(Bytes::copy_from_slice(url)) {
            Ok(uri) => (uri, None),
            Err(_) => {
                let (uri, raw) = RawTarget::read(url).ok()?;
                (uri, Some(raw))
            }
        };
        let target = Target::of_absolute(&uri).ok()?;
        let has_user = uri.authority()?.as_str().contains('@');
        (!has_user).then_some(Self { raw, target, uri })
    }

    /// Refuses a host that is in none of the patterns `to`.
    fn within(self, to: &[HostPattern]) -> Result<Self, ForwardedUrlFault> {
        if to.iter().any(|pattern| pattern.covers(&self.target)) {
            Ok(self)
        } else {
            Err(ForwardedUrlFault::Outside)
        }
    }

    /// Makes `http` to `https`. The router compares host and path of what comes back, not how it came.
    fn upgraded(mut self, is_wanted: bool) -> Self {
        if is_wanted && self.target.scheme == Scheme::Http {
            self.target.scheme = Scheme::Https;
            if self.target.port == Scheme::Http.default_port() {
                self.target.port = Scheme::Https.default_port();
            }
        }
        self
    }

    /// Sends a request there.
    fn direct<B>(&self, request: &mut Request<B>) {
        *request.uri_mut() = self.uri.clone();
        match &self.raw {
            Some(raw) => request.extensions_mut().insert(raw.clone()),
            None => request.extensions_mut().remove::<RawTarget>(),
        };
        // It is written as the target says; here it only has to be there.
        request
            .headers_mut()
            .insert(header::HOST, HeaderValue::from_static("-"));
        for name in [&METADATA, &SIGNATURE] {
            if let Some(value) = request.headers_mut().get_mut(name) {
                value.set_sensitive(true);
            }
        }
    }
}

/// Returns the value of a field that stands once and is not empty.
fn the_only<'f>(fields: &'f Fields, name: &HeaderName) -> Result<&'f HeaderValue, ForwardedUrlFault> {
    let mut values = fields.get_all(name);
    match (values.next(), values.next()) {
        (Some(value), None) if !value.as_bytes().trim_ascii().is_empty() => Ok(value),
        (Some(_), Some(_)) => Err(ForwardedUrlFault::Repeated(name.clone())),
        (Some(_) | None, _) => Err(ForwardedUrlFault::Absent(name.clone())),
    }
}

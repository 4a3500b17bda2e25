//! The policy with its running parts: limiters, identities, credentials, the local authority.

use std::sync::Arc;

use super::{Error, Rehearsal, RetryPolicy};
use crate::auth::Credentials;
use crate::auth::placeholder::RoutePlaceholders;
use crate::ca::Authority;
use crate::cache::ResponseCache;
use crate::clients::{Clients, RouteGuard};
use crate::limit::LazyLimiter;
use crate::policy::{Destination, Policy};
use crate::telemetry::Counters;
use crate::upstream::Endpoint;
use crate::upstream::breaker::Breaker;

/// One compiled configuration with its running parts. Built and replaced as a whole.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) authority: Arc<Authority>,
    /// `None`: the listener serves everybody, in clear.
    pub(crate) clients: Option<Arc<Clients>>,
    pub(crate) limits: crate::config::Limits,
    pub(crate) policy: Arc<Policy>,
    /// Who may come through the route service. `None`: there is no route service.
    pub(crate) route_service: Option<Arc<RouteGuard>>,
    /// One for each of `policy.destinations`, in the same order.
    pub(crate) routes: Vec<Arc<Route>>,
}

/// Everything a request to one destination needs.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) breaker: Option<Arc<Breaker>>,
    /// `None`: the destination has no cache.
    pub(crate) cache: Option<Arc<ResponseCache>>,
    pub(crate) counters: Arc<Counters>,
    /// `None`: a secret cannot be used, so that requests are refused.
    pub(crate) credentials: Option<Credentials>,
    pub(crate) destination: Arc<Destination>,
    pub(crate) endpoint: Arc<Endpoint>,
    /// Changes whenever a secret of the destination does.
    pub(crate) fingerprint: u64,
    pub(crate) limiter: Arc<LazyLimiter>,
    /// What the placeholders of the app mean here. `None`: it has no placeholders.
    pub(crate) placeholders: Option<Arc<RoutePlaceholders>>,
    pub(crate) rehearsal: Option<Arc<Rehearsal>>,
    pub(crate) retry_policy: Option<Arc<RetryPolicy>>,
}

impl Route {
    /// Whether bodies of answers are searched for our secrets.
    pub(super) fn scrubs(&self) -> bool {
        let is_shown = || (self.placeholders.as_ref()).is_some_and(|placeholders| placeholders.is_shown);
        self.destination.scrub.unwrap_or_else(is_shown)
    }

    pub(super) fn credentials(&self) -> Result<&Credentials, Error> {
        self.credentials.as_ref().ok_or(Error::Credential)
    }
}

impl Live {
    /// Returns whether a request may still need the connections of this endpoint.
    pub(crate) fn has_endpoint(&self, id: u64) -> bool {
        self.routes.iter().any(|route| {
            let of_credentials = route.credentials.as_ref().is_some_and(|all| all.has_endpoint(id));
            route.endpoint.id() == id || of_credentials
        })
    }

    /// Returns the routes whose secrets are not those of `old`, each with the old one. Both are of the same policy.
    pub(crate) fn rotated<'l>(&'l self, old: &'l Self) -> impl Iterator<Item = (&'l Route, &'l Route)> {
        let routes = self.routes.iter().zip(&old.routes);
        routes
            .map(|(route, old)| (&**route, &**old))
            .filter(|(route, old)| route.fingerprint != old.fingerprint)
    }

    /// Returns whether who may use the listener or the route service is known by other secrets than in `old`.
    pub(crate) fn has_rotated_clients(&self, old: &Self) -> bool {
        let of_listener = match (&self.clients, &old.clients) {
            (Some(clients), Some(old)) => clients.is_rotated(old),
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        };
        let of_routes = self.route_service.as_ref().zip(old.route_service.as_ref());
        of_listener || of_routes.is_some_and(|(guard, old)| guard.is_rotated(old))
    }

    pub(crate) fn route(&self, destination: &Destination) -> &Arc<Route> {
        &self.routes[destination.index]
    }
}

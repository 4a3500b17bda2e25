//! Who may come in: by the listener, and through the route service.

use std::sync::Arc;

use super::{Build, FailedPart, Inputs};
use crate::clients::{self, BuildError, BuiltGuard, Clients, IssuerEndpoint, RouteGuard};
use crate::config::{ROUTE_SERVICE, TokenUrl};

impl Build<'_> {
    /// Returns who may use the listener: as before where a secret of the same configuration cannot be used.
    pub(super) fn clients(&mut self) -> Option<Arc<Clients>> {
        let Inputs {
            builder,
            config,
            secrets,
            telemetry,
            ..
        } = self.inputs;
        let before = self.previous.and_then(|live| live.clients.as_ref());
        let clients::Built { clients, failed } =
            clients::build(config, &builder.command, secrets, telemetry, before);
        if failed.is_empty() {
            return clients;
        }
        let is_same = |old: &&Arc<Clients>| {
            let new = clients.as_ref();
            old.is_whole() && new.is_some_and(|new| new.is_of_same_configuration(old))
        };
        let kept = before.filter(is_same);
        let was_broken = before.is_some_and(|old| !old.is_whole());
        self.fail_all("none", failed, kept.is_some(), was_broken);
        kept.cloned().or(clients)
    }

    /// Returns who may come through the route service, likewise.
    pub(super) fn guard(&mut self) -> Option<Arc<RouteGuard>> {
        let before = self.previous.and_then(|live| live.route_service.as_ref());
        let Inputs {
            config,
            secrets,
            telemetry,
            ..
        } = self.inputs;
        let issuer = |url: &TokenUrl| {
            // As a host that no destination names, where none does: the TLS of the route service is about the router.
            let unlisted = &self.policy.destinations[0];
            let found = self.token_endpoint(url, unlisted, &telemetry.counters(&unlisted.name));
            IssuerEndpoint {
                egress: found.egress,
                endpoint: found.endpoint,
                resolver: found.resolver,
            }
        };
        let BuiltGuard { guard, failed } = RouteGuard::build(config, secrets, telemetry, issuer, before);
        if failed.is_empty() {
            return guard;
        }
        let is_same = |old: &&Arc<RouteGuard>| {
            let new = guard.as_ref();
            old.is_whole() && new.is_some_and(|new| new.is_of_same_configuration(old))
        };
        let kept = before.filter(is_same);
        let was_broken = before.is_some_and(|old| !old.is_whole());
        self.fail_all(ROUTE_SERVICE, failed, kept.is_some(), was_broken);
        kept.cloned().or(guard)
    }

    /// Notes who cannot be known.
    fn fail_all(&mut self, name: &str, failed: Vec<BuildError>, is_kept: bool, was_broken: bool) {
        self.failed.extend(failed.into_iter().map(|error| FailedPart {
            destination: name.into(),
            error: error.into(),
            is_kept,
            was_broken,
        }));
    }
}

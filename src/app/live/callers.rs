//! Who may come in: by the listener, and through the route service.

use std::sync::Arc;

use super::{Build, FailedPart, Inputs};
use crate::clients::{self, BuildError, BuiltGuard, Clients, RouteGuard};
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
        let (is_whole, is_same) = (Clients::is_whole, Clients::is_of_same_configuration);
        self.kept_or("none", clients, failed, before, is_whole, is_same)
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
            let counters = telemetry.counters(&unlisted.name);
            self.token_endpoint(url, unlisted, &counters).service
        };
        let BuiltGuard { guard, failed } = RouteGuard::build(config, secrets, telemetry, issuer, before);
        let (is_whole, is_same) = (RouteGuard::is_whole, RouteGuard::is_of_same_configuration);
        self.kept_or(ROUTE_SERVICE, guard, failed, before, is_whole, is_same)
    }

    /// Notes what of `new` could not be made, and returns what stood `before` in its place if that is whole and of the same
    /// configuration.
    fn kept_or<T>(
        &mut self,
        name: &str,
        new: Option<Arc<T>>,
        failed: Vec<BuildError>,
        before: Option<&Arc<T>>,
        is_whole: fn(&T) -> bool,
        is_same: fn(&T, &T) -> bool,
    ) -> Option<Arc<T>> {
        if failed.is_empty() {
            return new;
        }
        let whole = before.filter(|old| is_whole(old));
        let kept = whole.filter(|old| new.as_ref().is_some_and(|new| is_same(new, old)));
        self.failed.extend(failed.into_iter().map(|error| FailedPart {
            destination: name.into(),
            error: error.into(),
            is_kept: kept.is_some(),
            was_broken: before.is_some() && whole.is_none(),
        }));
        kept.cloned().or(new)
    }
}

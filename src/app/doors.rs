//! How token endpoints are reached: as the destination that names their host, else as the one that needs the token.

use std::sync::Arc;

use super::build::{Builder, End};
use crate::auth::TokenEndpoint;
use crate::config::TokenUrl;
use crate::policy::{Destination, Policy};
use crate::telemetry::Counters;
use crate::upstream::{Endpoint, tls};

/// What the doors of one configuration are made of.
pub(super) struct Doors<'b> {
    /// One for each destination of the policy, in their order.
    pub(super) ends: &'b [End],
    pub(super) parts: &'b Builder,
    pub(super) policy: &'b Policy,
}

impl Doors<'_> {
    /// The host needs no destination: who wrote its address into the configuration has allowed it. What its name resolves
    /// to is judged all the same.
    pub(super) fn to(
        &self,
        url: &TokenUrl,
        destination: &Destination,
        counters: &Arc<Counters>,
    ) -> TokenEndpoint {
        let named = self.policy.named(&url.target);
        let end = &self.ends[named.map_or(destination.index, |named| named.index)];
        let endpoint = match named {
            Some(_) => Arc::clone(&end.endpoint),
            None => {
                let destination = Arc::new(destination.of_token_endpoint());
                let (sources, roots) = (&self.parts.sources, &self.parts.roots);
                let tls = tls::Settings::build(&destination, sources, roots).map_err(Arc::new);
                Arc::new(Endpoint::new(destination, Arc::clone(counters), tls))
            }
        };
        TokenEndpoint {
            egress: Arc::clone(&self.policy.egress),
            endpoint,
            identity: end.fingerprint,
            resolver: Arc::clone(&self.parts.resolver),
        }
    }
}
